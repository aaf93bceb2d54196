//! How an admitted request becomes a transfer: its socket, the store's answer, the options.

use super::admitted::{AdmittedRequest, Asked};
use super::desk::Tid;
use super::guarded::{close, guarded};
use super::pending::PendingRequest;
use super::shared::Shared;
use super::waiting::Waiting;
use crate::error::{Refusal, TransferError};
use crate::event::{Event, Name};
use crate::limits::{
    BUFFERED_BLKSIZE, DALLY, DATA_HEADER, HALF_OPEN_DATA_SENDS, RECEIVED_WINDOW_OCTETS,
    UNCHECKED_BLKSIZE,
};
use crate::proto::{self, Agreed, Policy, Sender, Terms, grant};
use crate::store::{Kind, Later, Request, Sink, Source};
use crate::sys;
use crate::transfer::{
    Body, End, Format, Link, NO_ANSWER, Origin, STOPPING, Transfer, Trouble, now, tell,
};
use crate::wire::{self, Direction, ErrorCode, Mode, OptionName, Options};
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

/// What the store has answered, and the link for it.
pub(super) struct Answer {
    given: Result<Given, Refusal>,
    link: Link,
}

/// Opens a socket on this port and asks the store.
///
/// # Errors
/// Where there is no socket, or no descriptor for the store.
pub(super) fn ask(
    shared: &Shared,
    opening: &AdmittedRequest,
    port: u16,
    waker: &Waker,
) -> io::Result<Answer> {
    let Tid { peer, local } = opening.tid;
    let mut from = local;
    from.set_port(port);
    let link = Link::open(from, peer, &shared.sockets)?;
    let given = ask_store(shared, opening, waker);
    // The store lacks a descriptor: the request waits as it would for want of a socket, and
    // gives its own back.
    if given.as_ref().is_err_and(Refusal::is_for_want) {
        return Err(sys::no_descriptor());
    }
    Ok(Answer { given, link })
}

impl Answer {
    /// Makes the transfer, or a request that waits for its source.
    ///
    /// # Errors
    /// Where the store has refused: the peer was told, at this instant, and that is reported.
    pub(super) fn begin(
        self,
        shared: &Shared,
        opening: &Arc<AdmittedRequest>,
        waker: &Waker,
    ) -> Result<Waiting, Instant> {
        let Self { given, link } = self;
        // A copy of what was done is acknowledged and never refused: its sender may be busy with
        // something else on that port. What it would have been told is told to whoever really sends
        // the file again.
        let given = match given {
            Err(refusal) if opening.may_be_copy => {
                let sink = Box::new(Refusing(refusal));
                Ok(Given::Now(Granted::Write(sink, None)))
            }
            given => given,
        };
        match given {
            Ok(Given::Later(source, name)) => {
                let since = now();
                Ok(Waiting::Request(Box::new(PendingRequest {
                    opening: Arc::clone(opening),
                    link,
                    source,
                    name,
                    waker: waker.clone(),
                    since,
                    until: since + shared.store_deadline,
                })))
            }
            Ok(Given::Now(granted)) => {
                let transfer = begin(shared, granted, opening, link);
                Ok(Waiting::Transfer(transfer))
            }
            Err(refusal) => Err(refuse(shared, opening, &link, refusal)),
        }
    }
}

/// What became of a pending request in its turn.
pub(super) enum Resolved {
    /// There is no source yet.
    Pending(Box<PendingRequest>),
    Begun(Box<Transfer>),
    /// It never becomes a transfer, and that is reported.
    Ended(Box<PendingRequest>),
}

/// Asks for the source of a request, and makes the transfer if it is there. Where all are to end
/// none waits.
pub(super) fn resolve(
    shared: &Shared,
    mut request: Box<PendingRequest>,
    is_stopping: bool,
) -> Resolved {
    let mode = request.opening.asked.mode;
    let answer = guarded(|| {
        let source = match request.poll(now()) {
            Poll::Ready(source) => source,
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(source.and_then(|source| granted(shared, source, mode)))
    });
    let panicked = || Poll::Ready(Err(failed_read().because(PANICKED)));
    match answer.unwrap_or_else(panicked) {
        Poll::Pending if !is_stopping => Resolved::Pending(request),
        Poll::Pending => {
            fail(shared, &request, Some(STOPPING), TransferError::Stopped);
            Resolved::Ended(request)
        }
        Poll::Ready(Ok(granted)) => {
            let PendingRequest {
                opening,
                link,
                source,
                ..
            } = *request;
            close(source);
            Resolved::Begun(begin(shared, granted, &opening, link))
        }
        Poll::Ready(Err(refusal)) => {
            refuse(shared, &request.opening, &request.link, refusal);
            Resolved::Ended(request)
        }
    }
}

/// A request ends before it is a transfer: tells the peer in these words, within the budget, and
/// reports it.
pub(super) fn fail(
    shared: &Shared,
    request: &PendingRequest,
    words: Option<&str>,
    failure: TransferError,
) {
    request.end(words, || shared.may_refuse(now()));
    let summary = request.opening.summary(now());
    shared.reporter.report(Event::Failed(summary, failure));
}

/// What the store gave.
enum Granted {
    /// With the name that it has in the store.
    Read(Body, Option<Name>),
    Write(Box<dyn Sink>, Option<Name>),
}

/// When it did.
enum Given {
    Now(Granted),
    /// With the name that it has in the store.
    Later(Later, Option<Name>),
}

/// Takes no octet of a file that the store has refused.
struct Refusing(Refusal);

impl Sink for Refusing {
    fn append(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Err(self.0.clone())
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        Err(self.0)
    }
}

/// Asks the store, whose code may panic.
fn ask_store(shared: &Shared, opening: &AdmittedRequest, waker: &Waker) -> Result<Given, Refusal> {
    let Asked {
        direction,
        ref name,
        mode,
        ref options,
    } = opening.asked;
    let Tid { peer, local } = opening.tid;
    let question = Request {
        peer,
        local,
        direction,
        name: name.as_bytes(),
        mode,
        options,
        waker,
    };
    let store = &shared.store;
    let answer = guarded(|| match direction {
        Direction::Write => {
            let sink = store.write(&question)?;
            let served = sink.name().map(Name::new);
            Ok(Given::Now(Granted::Write(sink, served)))
        }
        Direction::Read => match store.read(&question)? {
            Source(Kind::Later(source), name) => Ok(Given::Later(source, name)),
            source => granted(shared, source, mode).map(Given::Now),
        },
    });
    answer.unwrap_or_else(|| {
        let refusal = match direction {
            Direction::Read => failed_read(),
            Direction::Write => Refusal::new(ErrorCode::NOT_DEFINED, "write error"),
        };
        Err(refusal.because(PANICKED))
    })
}

/// Opens what the store has given.
fn granted(shared: &Shared, source: Source, mode: Mode) -> Result<Granted, Refusal> {
    let served = source.1.clone();
    match Body::new(source, mode, &shared.mappings, now()) {
        Ok(body) => Ok(Granted::Read(body, served)),
        Err(Trouble::Changed) => Err(failed_read().because("the file changed")),
        Err(Trouble::Pending) => Err(failed_read().because(NO_ANSWER)),
        Err(Trouble::Read(error) | Trouble::Network(error)) => Err(failed_read().caused_by(error)),
    }
}

fn failed_read() -> Refusal {
    Refusal::new(ErrorCode::NOT_DEFINED, "read error")
}

/// Why a request is refused whose store panicked.
const PANICKED: &str = "the store panicked";

/// Tells the peer of a refusal, within the budget, and reports it. Returns when.
fn refuse(shared: &Shared, opening: &AdmittedRequest, link: &Link, refusal: Refusal) -> Instant {
    let answered = now();
    if !opening.broadcast && shared.may_refuse(answered) {
        tell(link, refusal.code(), refusal.text());
    }
    shared.reporter.report(Event::Refused {
        id: Some(opening.id),
        peer: opening.tid.peer,
        direction: opening.asked.direction,
        name: opening.asked.name.clone(),
        refusal,
    });
    answered
}

/// The largest block size for this peer. One system call, and none for a peer that asks for small
/// blocks.
fn max_blksize(shared: &Shared, asked: &Options, link: &Link) -> u16 {
    let most = shared.terms.max_blksize;
    let wanted = [OptionName::Blksize, OptionName::Blksize2]
        .into_iter()
        .filter_map(|name| asked.get(name))
        .max();
    if !shared.fit_route || wanted.is_none_or(|size| size <= UNCHECKED_BLKSIZE.into()) {
        return most;
    }
    // Where the system does not say, nothing is held back.
    let room = link
        .room()
        .unwrap_or(usize::MAX)
        .saturating_sub(DATA_HEADER);
    most.min(
        u16::try_from(room)
            .unwrap_or(u16::MAX)
            .max(UNCHECKED_BLKSIZE),
    )
}

/// Agrees on the options and makes the transfer.
fn begin(
    shared: &Shared,
    granted: Granted,
    opening: &AdmittedRequest,
    link: Link,
) -> Box<Transfer> {
    let request = &opening.asked;
    let (size, in_flight, share) = match &granted {
        Granted::Read(body, _) => (body.length(), body.in_flight(), body.share(&shared.buffers)),
        Granted::Write(..) => (
            request.options.get(OptionName::Tsize),
            RECEIVED_WINDOW_OCTETS,
            u64::MAX,
        ),
    };
    let advice = shared.advise(opening.tid.peer, &request.options);
    let options = match advice.options {
        true => &request.options,
        false => &Options::NONE,
    };
    let terms = Terms {
        in_flight: shared.terms.in_flight.min(in_flight).min(share),
        max_blksize: max_blksize(shared, options, &link)
            .min(advice.max_blksize)
            .min(
                u16::try_from(share)
                    .unwrap_or(u16::MAX)
                    .max(BUFFERED_BLKSIZE),
            ),
        max_windowsize: shared.terms.max_windowsize.min(advice.max_windowsize),
    };
    let (agreed, answer) = grant(options, size, &terms);
    let mut policy = shared.policy;
    if opening.tense {
        policy.opening_sends = HALF_OPEN_DATA_SENDS;
    }
    let mut served = request.name.clone();
    let (end, datagram) = match granted {
        Granted::Read(mut body, name) => {
            served = name.unwrap_or(served);
            body.reserve(&shared.buffers, &agreed);
            answer_read(body, &agreed, &answer, &policy)
        }
        Granted::Write(sink, name) => {
            served = name.unwrap_or(served);
            let machine = proto::Receiver::answering(&agreed, DALLY, &policy, now());
            let ack = || wire::ack(0).to_vec();
            let datagram = option_ack(&answer).unwrap_or_else(ack);
            (End::receiving(machine, sink, request.mode), datagram)
        }
    };
    let (blksize, windowsize) = (agreed.blksize, agreed.windowsize);
    shared.reporter.report(Event::Started {
        id: opening.id,
        name: request.name.clone(),
        served,
        blksize,
        windowsize,
        size,
        mapping_shared: end.is_shared(),
    });
    let local = link.local_addr().unwrap_or(opening.tid.local);
    let origin = Origin {
        id: opening.id,
        name: request.name.clone(),
        direction: request.direction,
        asked: request.options.clone(),
        arrived: opening.arrived,
    };
    Box::new(Transfer::new(origin, end, link, local, agreed, datagram))
}

/// The sending end of an RRQ, and the datagram that opens it: an OACK, or none.
fn answer_read(
    body: Body,
    agreed: &Agreed,
    answer: &Options,
    policy: &Policy,
) -> (End<'static>, Vec<u8>) {
    let datagram = option_ack(answer);
    let last = body.last(Format {
        blksize: agreed.blksize,
        rollover: agreed.rollover,
    });
    let machine = Sender::answering(agreed, datagram.is_some(), last, policy, now());
    let end = End::sending(machine, body, agreed);
    (end, datagram.unwrap_or_default())
}

/// The OACK, if there is anything to say in it.
fn option_ack(answer: &Options) -> Option<Vec<u8>> {
    if answer.is_empty() {
        return None;
    }
    let mut datagram = Vec::new();
    wire::emit_option_ack(answer, &mut datagram);
    Some(datagram)
}
