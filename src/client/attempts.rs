//! The attempts of one call: which address is asked next, and whether with options.

use super::error::ClientError;
use super::guard::{Guard, Guarded};
use super::{Client, Progress};
use crate::error::TransferError;
use crate::event::{Summary, TransferId};
use crate::limits;
use crate::proto::{Agreed, Policy, Receiver, Sender};
use crate::store::Sink;
use crate::sys;
use crate::text::Name;
use crate::transfer::{
    Answer, Body, Dial, Dialed, End, Ending, Exchange, GIVEN_UP, Link, Origin, Scratch, Turn, now,
};
use crate::wire::{Direction, ErrorCode, Options, Request};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn network(error: io::Error) -> ClientError {
    ClientError::Network(error.into())
}

/// What a transfer takes its octets from or gives them to, kept for the next attempt while none has
/// moved.
pub(super) enum Load<'a> {
    Sink(Option<Box<dyn Sink + 'a>>),
    Body(Option<Body>),
}

impl Load<'_> {
    /// An attempt has moved nothing.
    fn take_back(&mut self, returned: Option<Body>) {
        if let Self::Body(body) = self {
            *body = returned.map(Body::rewound);
        }
    }
}

impl Client {
    /// Asks the addresses one after the other: all of them with options, and without where that may
    /// help.
    pub(super) fn ask_all(
        &self,
        direction: Direction,
        name: &[u8],
        size: Option<u64>,
        load: &mut Load<'_>,
        guard: &Guard,
    ) -> Result<Summary, ClientError> {
        self.check()?;
        if name.is_empty() || name.len() > limits::MAX_ASKED_NAME || name.contains(&0) {
            return Err(ClientError::InvalidName);
        }
        let start = now();
        let servers = self
            .servers
            .as_ref()
            .map_err(|cause| ClientError::Lookup(cause.clone()))?;
        let servers = servers.iter().filter(|server| {
            self.local
                .is_none_or(|local| local.is_ipv4() == server.is_ipv4())
        });
        let mut queue: VecDeque<Address> = servers
            .map(|server| Address {
                server: *server,
                asks: self.asks_options,
                is_second: !self.asks_options,
                is_asked: false,
                refused: None,
            })
            .collect();
        let mut last = network(io::Error::other("there is no address to ask"));
        while let Some(mut address) = queue.pop_front() {
            if self.cancel.is_cancelled() {
                return Err(ClientError::Cancelled);
            }
            let others = queue.iter().any(|other| !other.is_asked);
            let attempt = Attempt {
                client: self,
                server: address.server,
                asks: address.asks,
                resends: self.opening_resends(address.is_second),
                may_wait: !others,
                start,
                direction,
                name,
                size,
            };
            let lost = match attempt.make(load, guard) {
                Ok(summary) => return Ok(summary),
                Err(lost) => lost,
            };
            log::debug!(
                "client server={} options={} failure=\"{}\"",
                address.server,
                address.asks,
                lost.failure
            );
            let then = lost.then(&address, attempt.may_wait);
            let failure = match (lost.failure, &address.refused) {
                // Silence, or the end of the time, says less than what was heard before.
                (ClientError::Unanswered | ClientError::TooLong, Some(refused))
                    if !lost.is_answered =>
                {
                    refused.clone()
                }
                (failure, _) => failure,
            };
            address.is_asked = true;
            address.refused = lost.is_refused.then(|| failure.clone()).or(address.refused);
            match then {
                Then::Plain => queue.push_front(address.second(false)),
                Then::Second => queue.push_back(address.second(lost.is_refused)),
                Then::Later => queue.push_back(address),
                Then::NextAddress => {}
                Then::GiveUp => return Err(failure),
            }
            last = failure;
        }
        Err(last)
    }

    /// Where two requests may be needed, they share the retransmissions.
    fn opening_resends(&self, is_second: bool) -> u32 {
        let requests = self.retries + 1;
        let share = match (self.asks_options, is_second) {
            (false, _) => requests,
            (true, false) => requests.div_ceil(2),
            (true, true) => requests / 2,
        };
        share.saturating_sub(1)
    }
}

/// One address of the server, and how far the asking is.
struct Address {
    server: SocketAddr,
    /// With options.
    asks: bool,
    /// In its second attempt.
    is_second: bool,
    is_asked: bool,
    /// What the network said to a request.
    refused: Option<ClientError>,
}

impl Address {
    fn second(self, asks: bool) -> Self {
        Self {
            asks,
            is_second: true,
            ..self
        }
    }
}

/// One request to one address, and the transfer that comes of it.
struct Attempt<'a> {
    client: &'a Client,
    server: SocketAddr,
    /// With options.
    asks: bool,
    /// Retransmissions of the request.
    resends: u32,
    /// False where another address comes first if the network refuses the request.
    may_wait: bool,
    /// When the caller called.
    start: Instant,
    direction: Direction,
    name: &'a [u8],
    size: Option<u64>,
}

/// An attempt that came to nothing.
struct Lost {
    failure: ClientError,
    /// The server has answered with something else than an ERROR.
    is_answered: bool,
    /// The network, or ICMP, refused the last request.
    is_refused: bool,
    /// Octets of the file that have moved.
    bytes: u64,
}

/// What to do after that.
enum Then {
    /// The same server may understand a request without options.
    Plain,
    /// It is asked a second time, but first the others.
    Second,
    /// It is asked again as if it had not been, but first the others.
    Later,
    NextAddress,
    GiveUp,
}

impl Lost {
    fn then(&self, address: &Address, has_waited: bool) -> Then {
        let asks = address.asks;
        match &self.failure {
            // Old servers refuse with whatever code they have.
            ClientError::Aborted {
                code:
                    ErrorCode::NOT_DEFINED | ErrorCode::ILLEGAL_OPERATION | ErrorCode::OPTION_REFUSED,
                ..
            } if asks && !self.is_answered => Then::Plain,
            // Its OACK was wrong, or what was agreed does not come through: large blocks, say.
            ClientError::Protocol(_) | ClientError::Silent | ClientError::Unconfirmed
                if asks && self.bytes == 0 =>
            {
                Then::Plain
            }
            _ if self.is_answered => Then::GiveUp,
            ClientError::Unreachable | ClientError::Network(_)
                if self.is_refused && !has_waited =>
            {
                Then::Later
            }
            ClientError::Unanswered | ClientError::Unreachable | ClientError::Network(_)
                if !address.is_second && (self.is_refused || asks) =>
            {
                Then::Second
            }
            ClientError::Unanswered
            | ClientError::Unreachable
            | ClientError::AnsweredElsewhere(_)
            | ClientError::Network(_) => Then::NextAddress,
            _ => Then::GiveUp,
        }
    }
}

impl From<ClientError> for Lost {
    fn from(failure: ClientError) -> Self {
        Self {
            failure,
            is_answered: false,
            is_refused: false,
            bytes: 0,
        }
    }
}

impl Attempt<'_> {
    fn make(&self, load: &mut Load<'_>, guard: &Guard) -> Result<Summary, Lost> {
        let client = self.client;
        if let Some(words) = client.lacks_interface(self.server) {
            return Err(network(io::Error::other(words)).into());
        }
        let (link, resends) = self.link()?;
        let local = link.local_addr().map_err(network)?;
        let room = client.room(self.server).map_err(network)?;
        let request = Request {
            direction: self.direction,
            name: self.name,
            mode: client.mode,
            options: match self.asks {
                true => self.wishes(room, &link),
                false => Options::default(),
            },
        };
        let policy = self.policy()?;
        let opening = Policy {
            retries: resends,
            ..policy
        };
        let end = match load {
            Load::Sink(sink) => {
                let machine = Receiver::requesting(limits::CLIENT_DALLY, &opening, now());
                let intake = Box::new(Guarded {
                    sink,
                    guard,
                    total: 0,
                });
                End::receiving(machine, intake, client.mode)
            }
            Load::Body(body) => {
                let body = body.take().ok_or(ClientError::Unanswered)?;
                End::sending(
                    Sender::requesting(&opening, now()),
                    body,
                    &Agreed::default(),
                )
            }
        };
        let origin = Origin {
            id: TransferId(0),
            name: Name::new(self.name),
            direction: self.direction,
            asked: request.options.clone(),
            arrived: self.start,
        };
        let mut scratch = Scratch::new();
        let mut dial = Dial::new(origin, end, link, local, &request, &policy);
        let answer = match self.dial(&mut dial, &mut scratch, guard) {
            Ok(answer) => answer,
            Err(failure) => {
                let is_refused = dial.refused().is_some();
                let failure = match (ClientError::from(failure), dial.stranger()) {
                    (ClientError::Unanswered | ClientError::Unreachable, Some(stranger)) => {
                        ClientError::AnsweredElsewhere(stranger)
                    }
                    (failure, _) => failure,
                };
                let returned = dial.into_body();
                load.take_back(returned);
                return Err(Lost {
                    is_refused,
                    ..failure.into()
                });
            }
        };
        let look = |agreed: &Agreed| guard.agreed(agreed, self.direction);
        let (mut exchange, ending) = dial.accept(&answer, &mut scratch, look);
        let ending = ending.unwrap_or_else(|| self.run(&mut exchange, &mut scratch, guard));
        let summary = exchange.summary();
        let failure = match ending {
            Ending::Completed | Ending::Probed => {
                self.tell(&summary, guard);
                return Ok(summary);
            }
            Ending::Failed(failure) => ClientError::from(failure),
        };
        let returned = exchange.into_body();
        if summary.bytes == 0 {
            load.take_back(returned);
        }
        Err(Lost {
            is_answered: true,
            bytes: summary.bytes,
            ..failure.into()
        })
    }

    /// The link, and how many retransmissions are left. An interface may get its address later:
    /// the time until then is part of the request's.
    fn link(&self) -> Result<(Link, u32), Lost> {
        let client = self.client;
        let policy = self.policy()?;
        let begun = now();
        let patience = policy.patience(self.resends);
        let end = begun + policy.max_time.map_or(patience, |most| most.min(patience));
        loop {
            let local = client.local(self.server);
            let error = match Link::asking(local, self.server, &client.sockets) {
                Ok(link) => {
                    let left = patience.saturating_sub(now().saturating_duration_since(begun));
                    let resends = (0..self.resends).find(|count| policy.patience(*count) >= left);
                    return Ok((link, resends.unwrap_or(self.resends)));
                }
                Err(error) => error,
            };
            if client.cancel.is_cancelled() {
                return Err(ClientError::Cancelled.into());
            }
            let left = end.saturating_duration_since(now());
            let is_down = sys::is_network_down(&error);
            if !is_down || !self.may_wait || left.is_zero() {
                return Err(Lost {
                    is_refused: is_down,
                    ..network(error).into()
                });
            }
            std::thread::park_timeout(left.min(limits::CLIENT_PROGRESS_INTERVAL));
        }
    }

    /// The options to ask for: a window that is received is not larger than the socket's buffer.
    fn wishes(&self, room: usize, link: &Link) -> Options {
        let client = self.client;
        let blksize = client.wished_blksize(room);
        let mut windowsize = client.windowsize;
        if self.direction == Direction::Read && windowsize > 1 {
            windowsize = windowsize.min(link.make_room(blksize, windowsize));
        }
        if windowsize < client.windowsize {
            log::debug!(
                "client windowsize={windowsize} blksize={blksize} reason=\"receive buffer holds no more\""
            );
        }
        client.wishes(blksize, windowsize, self.size)
    }

    /// Until the server answers: the caller's thread waits here.
    fn dial(
        &self,
        dial: &mut Dial<'_>,
        scratch: &mut Scratch,
        guard: &Guard,
    ) -> Result<Answer, TransferError> {
        let mut told = self.start;
        loop {
            if self.client.cancel.is_cancelled() {
                dial.leave(GIVEN_UP);
                return Err(TransferError::Cancelled);
            }
            let until = match dial.run(scratch) {
                Dialed::Answered(answer) => return Ok(answer),
                Dialed::Failed(failure) => return Err(failure),
                Dialed::Quiet(until) => until,
            };
            if !self.may_wait
                && let Some(refused) = dial.refused()
            {
                return Err(refused);
            }
            let next = self.tell_now_and_then(&mut told, || dial.summary(), guard);
            dial.mail_until(until.min(next));
        }
    }

    /// Until the end of the transfer.
    fn run(&self, exchange: &mut Exchange<'_>, scratch: &mut Scratch, guard: &Guard) -> Ending {
        let mut told = self.start;
        loop {
            let turn = exchange.run(scratch, guard);
            if let Turn::Done(ending) = turn {
                return ending;
            }
            if self.is_sampled(exchange, now()) {
                exchange.leave("probe is over", || true);
                return Ending::Completed;
            }
            let next = self.tell_now_and_then(&mut told, || exchange.summary(), guard);
            if let Turn::Quiet(until) = turn {
                exchange.mail_until(until.min(next));
            }
        }
    }

    /// Tells the progress if that is due; returns when it is due next.
    fn tell_now_and_then(
        &self,
        told: &mut Instant,
        summary: impl FnOnce() -> Summary,
        guard: &Guard,
    ) -> Instant {
        let time = now();
        if time >= *told + limits::CLIENT_PROGRESS_INTERVAL {
            *told = time;
            self.tell(&summary(), guard);
        }
        *told + limits::CLIENT_PROGRESS_INTERVAL
    }

    fn tell(&self, summary: &Summary, guard: &Guard) {
        if let Some(watch) = &self.client.watch {
            watch(&Progress {
                bytes: summary.bytes,
                size: guard.announced(),
                elapsed: summary.duration,
                rtt: summary.rtt,
                retransmits: summary.retransmits,
            });
        }
    }

    fn policy(&self) -> Result<Policy, ClientError> {
        let client = self.client;
        let spent = now().saturating_duration_since(self.start);
        let max_time = match client.max_time.map(|most| most.saturating_sub(spent)) {
            Some(Duration::ZERO) => return Err(ClientError::TooLong),
            left => left,
        };
        Ok(Policy {
            timeout: client.timeout.unwrap_or(limits::DEFAULT_TIMEOUT),
            retries: client.retries,
            max_time,
            final_timeout: client.final_timeout,
            ..Policy::default()
        })
    }

    fn is_sampled(&self, exchange: &Exchange<'_>, time: Instant) -> bool {
        let Some((octets, most)) = self.client.sample else {
            return false;
        };
        time >= self.start + most || exchange.summary().bytes >= octets
    }
}
