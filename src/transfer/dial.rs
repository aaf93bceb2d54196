//! A client's request until its first answer, which makes it a transfer.
//!
//! Invariant: until then the link has no peer, and no byte of the file moves.

use super::body::{Body, Scratch};
use super::ends::End;
use super::link::{Link, Taken, Wait};
use super::{DRAIN, Ending, Exchange, Origin, hear, now, summary_of, tell, to_stranger};
use crate::error::{Cause, Refusal, TransferError};
use crate::event::{Name, Summary};
use crate::limits::{DEFAULT_BLKSIZE, PATIENCE, SLICE};
use crate::proto::{Agreed, Outcome, Policy, Step, accept};
use crate::wire::{self, ErrorCode, Packet, Request};
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

/// A request that no server has answered.
pub(crate) struct Dial<'a> {
    origin: Origin,
    end: End<'a>,
    link: Link,
    local: SocketAddr,
    policy: Policy,
    request: Box<[u8]>,
    /// The network, or ICMP, refused the last request: its silence says nothing about the server.
    is_refused: bool,
    /// The last error of the network.
    network: Option<Cause>,
    /// Another host has answered.
    stranger: Option<SocketAddr>,
    /// What an ERROR of the server said.
    peer_text: Option<Name>,
    /// It has run before, and the caller has waited.
    rested: bool,
}

/// Why [`Dial::run`] came back.
pub(crate) enum Dialed {
    /// No answer so far. Nothing to do before this instant, unless a packet comes.
    Quiet(Instant),
    /// The server has answered with something else than an ERROR.
    Answered(Answer),
    /// There will be no transfer.
    Failed(TransferError),
}

/// The first answer. Its bytes lie in the [`Scratch`].
pub(crate) struct Answer {
    taken: Taken,
    at: Instant,
    is_oack: bool,
    agreed: Result<Agreed, &'static str>,
}

/// What a receive has brought.
enum Heard {
    Nothing,
    /// A packet or an error that is no answer, and when it was taken.
    Other(Instant),
    Answer(Answer),
}

impl<'a> Dial<'a> {
    /// Asks a server, to which the link is not connected yet. The first answer from its address,
    /// whatever the port, makes it the peer (RFC 1350 §4).
    pub(crate) fn new(
        origin: Origin,
        end: End<'a>,
        mut link: Link,
        local: SocketAddr,
        request: &Request<'_>,
        policy: &Policy,
    ) -> Self {
        link.tell_strangers(to_stranger);
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        Self {
            origin,
            end,
            link,
            local,
            policy: *policy,
            request: datagram.into(),
            is_refused: false,
            network: None,
            stranger: None,
            peer_text: None,
            rested: false,
        }
    }

    /// Sends the request, and again, until there is an answer or a reason to stop. Waits for a
    /// short time only.
    pub(crate) fn run(&mut self, scratch: &mut Scratch) -> Dialed {
        let start = now();
        let mut time = start;
        // A deadline may be over although the answer is here.
        if std::mem::replace(&mut self.rested, true) {
            match self.take(scratch, Wait::No) {
                Heard::Answer(answer) => return Dialed::Answered(answer),
                Heard::Other(heard) => time = heard,
                Heard::Nothing => {}
            }
        }
        loop {
            match self.end.poll(time) {
                Step::Open => match self.link.send(&self.request) {
                    Ok(true) => {
                        self.is_refused = false;
                        self.end.opened(time);
                    }
                    Ok(false) => return Dialed::Quiet(time + DRAIN),
                    Err(error) => {
                        self.lost(error, time);
                        self.end.opened(time);
                    }
                },
                Step::Wait(until) => {
                    let left = until.saturating_duration_since(time);
                    let wait = match left < PATIENCE {
                        true => Wait::Until(left),
                        false => Wait::Patience,
                    };
                    match self.take(scratch, wait) {
                        Heard::Answer(answer) => return Dialed::Answered(answer),
                        Heard::Other(heard) => time = heard,
                        Heard::Nothing => {
                            time = now();
                            if time < until {
                                return Dialed::Quiet(until);
                            }
                        }
                    }
                    if time - start > SLICE {
                        return Dialed::Quiet(time);
                    }
                }
                Step::Done(outcome) => return Dialed::Failed(self.failure(outcome)),
                step => unreachable!("{step:?} before an answer"),
            }
        }
    }

    fn take(&mut self, scratch: &mut Scratch, wait: Wait) -> Heard {
        let Some(taken) = self.link.recv_blocks(&mut scratch.0, wait).transpose() else {
            return Heard::Nothing;
        };
        let time = now();
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.lost(error, time);
                return Heard::Other(time);
            }
        };
        let datagram = &scratch.0[..taken.length.min(scratch.0.len())];
        if taken.source.ip().to_canonical() != self.link.peer().ip().to_canonical() {
            self.stranger = Some(taken.source);
            self.link.turn_away(taken.source, datagram);
            return Heard::Other(time);
        }
        let Ok(packet) = wire::parse(datagram) else {
            return Heard::Other(time);
        };
        let agreed = match (&packet, &self.end) {
            (Packet::OptionAck(oack), _) => accept(&self.origin.asked, oack),
            // The server knows no options, or wants none (RFC 2347).
            (Packet::Ack { block: 0 }, End::Sending(_)) => Ok(Agreed::default()),
            // A longer block is no answer to a request with options: it is a late one for another
            // transfer, which had this port before.
            (Packet::Data { block: 1, payload }, End::Receiving(_))
                if payload.len() <= DEFAULT_BLKSIZE.into() || self.origin.asked.is_empty() =>
            {
                Ok(Agreed::default())
            }
            (Packet::Error { .. }, _) => {
                hear(&self.origin, &mut self.peer_text, &packet);
                self.end.handle(&packet, time);
                return Heard::Other(time);
            }
            _ => return Heard::Other(time),
        };
        Heard::Answer(Answer {
            taken,
            at: time,
            is_oack: matches!(packet, Packet::OptionAck(_)),
            agreed,
        })
    }

    /// The transfer that an answer begins, and how it ends where it does so at once. `look` says
    /// whether what the server offers will do, before that is confirmed.
    pub(crate) fn accept(
        self,
        answer: &Answer,
        scratch: &mut Scratch,
        look: impl FnOnce(&Agreed) -> Result<(), Refusal>,
    ) -> (Exchange<'a>, Option<Ending>) {
        let Self {
            origin,
            end,
            mut link,
            local,
            policy,
            ..
        } = self;
        let connected = link.connect_to(answer.taken.source);
        let local = link.local_addr().unwrap_or(local);
        let agreed = answer.agreed.unwrap_or_default();
        let mut transfer = Exchange::new(origin, end, link, local, agreed, Vec::new());
        let failure = if let Err(error) = connected {
            TransferError::Network(error.into())
        } else if let Err(what) = answer.agreed {
            transfer.tell(ErrorCode::OPTION_REFUSED, what);
            TransferError::Protocol(what)
        } else if let Err(refusal) = look(&agreed) {
            transfer.tell(refusal.code(), refusal.text());
            TransferError::Store(refusal)
        } else {
            transfer
                .end
                .agree(&agreed, answer.is_oack, &policy, answer.at);
            let taken = match answer.is_oack {
                true => Ok(()),
                false => transfer.take_blocks(&answer.taken, scratch, answer.at),
            };
            return (transfer, taken.err());
        };
        transfer.end.discard();
        (transfer, Some(Ending::Failed(failure)))
    }

    /// A send or receive failed.
    fn lost(&mut self, error: io::Error, time: Instant) {
        self.is_refused = true;
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.end.unreachable(time);
        } else {
            self.network = Some(error.into());
        }
    }

    fn failure(&mut self, outcome: Outcome) -> TransferError {
        match outcome {
            Outcome::Aborted { code, .. } => TransferError::Aborted {
                code,
                text: self.peer_text.take().unwrap_or_else(|| Name::new(b"")),
            },
            Outcome::Unreachable => TransferError::Unreachable,
            Outcome::TooLong => {
                self.leave(super::TOO_LONG);
                TransferError::TooLong
            }
            _ => {
                let network = self.network.take();
                network.map_or(TransferError::Unanswered, TransferError::Network)
            }
        }
    }

    /// Tells the server, which has not answered, why the request ends.
    pub(crate) fn leave(&self, words: &str) {
        tell(&self.link, ErrorCode::NOT_DEFINED, words);
    }

    /// Why the last request cannot have reached the server.
    pub(crate) fn refused(&self) -> Option<TransferError> {
        let network = || self.network.clone();
        let failure = || network().map_or(TransferError::Unreachable, TransferError::Network);
        self.is_refused.then(failure)
    }

    /// The host that answered in place of the server: the server's own at another address, or
    /// another one.
    pub(crate) fn stranger(&self) -> Option<SocketAddr> {
        self.stranger
    }

    /// What was to be sent, for another attempt.
    pub(crate) fn into_body(self) -> Option<Body> {
        self.end.into_body()
    }

    /// Waits for a datagram.
    pub(crate) fn mail_until(&self, until: Instant) {
        let time = until.saturating_duration_since(now());
        let _ = self.link.wait(true, false, time);
    }

    /// What there is to say about it.
    pub(crate) fn summary(&self) -> Summary {
        let agreed = Agreed::default();
        summary_of(
            &self.origin,
            &self.end,
            &self.link,
            self.local,
            &agreed,
            now(),
        )
    }
}
