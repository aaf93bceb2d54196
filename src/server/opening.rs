//! How an admitted request becomes a transfer: its socket, the store's answer, the options.

use super::admitted::{AdmittedRequest, Asked};
use super::desk::Tid;
use super::guarded::guarded;
use super::shared::Shared;
use crate::error::{Refusal, plain};
use crate::event::Event;
use crate::limits::{
    BUFFERED_BLKSIZE, DALLY, DATA_HEADER, RECEIVED_WINDOW_OCTETS, UNCHECKED_BLKSIZE,
    UNPROVEN_DATA_SENDS,
};
use crate::proto::{self, Agreed, Policy, Sender, Terms, grant};
use crate::store::{Request, Sink};
use crate::sys;
use crate::sys::udp::TransferSocket;
use crate::transfer::{Body, End, Format, Origin, Transfer, Trouble, now, tell};
use crate::wire::{self, Direction, ErrorCode, OptionName, Options};
use std::io;
use std::time::Instant;

/// What the store has answered, and the socket for it.
pub(super) struct Answer {
    granted: Result<Granted, Refusal>,
    socket: TransferSocket,
}

/// Opens a socket on this port and asks the store.
///
/// # Errors
/// Where there is no socket, or no descriptor for the store.
pub(super) fn ask(shared: &Shared, opening: &AdmittedRequest, port: u16) -> io::Result<Answer> {
    let Tid { peer, local } = opening.tid;
    let mut from = local;
    from.set_port(port);
    let socket = TransferSocket::open(from, peer, &shared.sockets)?;
    let granted = ask_store(shared, opening);
    // The store lacks a descriptor: the request waits as it would for want of a socket, and
    // gives its own back.
    if granted.as_ref().is_err_and(Refusal::is_for_want) {
        return Err(sys::no_descriptor());
    }
    Ok(Answer { granted, socket })
}

impl Answer {
    /// Makes the transfer.
    ///
    /// # Errors
    /// Where the store has refused: the peer was told, at this instant, and that is reported.
    pub(super) fn begin(
        self,
        shared: &Shared,
        opening: &AdmittedRequest,
    ) -> Result<Box<Transfer>, Instant> {
        let Self { granted, socket } = self;
        // A copy of what was done is acknowledged and never refused: its sender may be busy with
        // something else on that port. What it would have been told is told to whoever really sends
        // the file again.
        let granted = match granted {
            Err(refusal) if opening.may_be_copy => Ok(Granted::Write(Box::new(Refusing(refusal)))),
            granted => granted,
        };
        let refusal = match granted {
            Ok(granted) => return Ok(begin(shared, granted, opening, socket)),
            Err(refusal) => refusal,
        };
        let answered = now();
        if !opening.broadcast && shared.may_refuse(answered) {
            tell(&socket, refusal.code(), refusal.text());
        }
        shared.reporter.report(Event::Refused {
            id: Some(opening.id),
            peer: opening.tid.peer,
            direction: opening.asked.direction,
            name: opening.asked.name.clone(),
            refusal,
        });
        Err(answered)
    }
}

/// What the store gave.
enum Granted {
    Read(Body),
    Write(Box<dyn Sink>),
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
fn ask_store(shared: &Shared, opening: &AdmittedRequest) -> Result<Granted, Refusal> {
    let Asked {
        direction,
        ref name,
        mode,
        options,
    } = opening.asked;
    let Tid { peer, local } = opening.tid;
    let question = Request {
        peer,
        local,
        direction,
        name: name.as_bytes(),
        mode,
        options,
    };
    let failed = |detail: String| {
        let text = match direction {
            Direction::Read => "read error",
            Direction::Write => "write error",
        };
        Refusal::new(ErrorCode::NOT_DEFINED, text).because(detail)
    };
    let store = &shared.store;
    let answer = guarded(|| {
        if direction == Direction::Write {
            return store.write(&question).map(Granted::Write);
        }
        let source = store.read(&question)?;
        let body = Body::new(source, mode, &shared.mappings, now());
        body.map(Granted::Read).map_err(|trouble| {
            failed(match trouble {
                Trouble::Changed => "the file changed".into(),
                Trouble::Read(cause) => cause,
                Trouble::Network(error) => plain(&error),
            })
        })
    });
    answer.unwrap_or_else(|| Err(failed("the store panicked".into())))
}

/// The largest block size for this peer. One system call, and none for a peer that asks for small
/// blocks.
fn max_blksize(shared: &Shared, asked: &Options, socket: &TransferSocket) -> u16 {
    let most = shared.terms.max_blksize;
    let wanted = [OptionName::Blksize, OptionName::Blksize2]
        .into_iter()
        .filter_map(|name| asked.get(name))
        .max();
    if !shared.fit_route || wanted.is_none_or(|size| size <= UNCHECKED_BLKSIZE.into()) {
        return most;
    }
    // Where the system does not say, nothing is held back.
    let room = socket
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
    socket: TransferSocket,
) -> Box<Transfer> {
    let request = &opening.asked;
    let (size, in_flight, share) = match &granted {
        Granted::Read(body) => (body.length(), body.in_flight(), body.share(&shared.buffers)),
        Granted::Write(_) => (
            request.options.get(OptionName::Tsize),
            RECEIVED_WINDOW_OCTETS,
            u64::MAX,
        ),
    };
    let advice = shared.advise(opening.tid.peer, &request.options);
    let options = match advice.options {
        true => request.options,
        false => Options::default(),
    };
    let terms = Terms {
        in_flight: shared.terms.in_flight.min(in_flight).min(share),
        max_blksize: max_blksize(shared, &options, &socket)
            .min(advice.max_blksize)
            .min(
                u16::try_from(share)
                    .unwrap_or(u16::MAX)
                    .max(BUFFERED_BLKSIZE),
            ),
        max_windowsize: shared.terms.max_windowsize.min(advice.max_windowsize),
    };
    let (agreed, answer) = grant(&options, size, &terms);
    let mut policy = shared.policy;
    if opening.tense {
        policy.opening_sends = UNPROVEN_DATA_SENDS;
    }
    let (end, datagram) = match granted {
        Granted::Read(mut body) => {
            body.reserve(&shared.buffers, &agreed);
            answer_read(body, &agreed, &answer, &policy)
        }
        Granted::Write(sink) => {
            let machine = proto::Receiver::answering(&agreed, DALLY, &policy, now());
            let ack = || wire::ack(0).to_vec();
            let datagram = option_ack(&answer).unwrap_or_else(ack);
            (End::receiving(machine, sink, request.mode), datagram)
        }
    };
    let (blksize, windowsize) = (agreed.blksize, agreed.windowsize);
    shared.reporter.report(Event::Started {
        id: opening.id,
        blksize,
        windowsize,
        size,
        mapping_shared: end.is_shared(),
    });
    let local = socket.local_addr().unwrap_or(opening.tid.local);
    let origin = Origin {
        id: opening.id,
        name: request.name.clone(),
        direction: request.direction,
        asked: request.options,
        arrived: opening.arrived,
    };
    Box::new(Transfer::answering(
        origin, end, socket, local, agreed, datagram,
    ))
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
