//! The two ends of a transfer: a real machine, the wire format, and a file that is made up block by
//! block.

use crate::rng::mix;
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{
    Agreed, Outcome, Policy, Receiver, Sender, Step, Terms, Verdict, accept, grant,
};
use tftpool::unversioned::wire::{
    Direction, ErrorCode, Mode, OptionName, Options, Packet, Request, ack, data_header, emit_error,
    emit_option_ack, parse,
};

/// A file of this many octets, whose content follows from the block number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub octets: u64,
}

impl File {
    pub fn last(self, blksize: u16) -> u64 {
        self.octets / u64::from(blksize) + 1
    }

    fn append_block(self, block: u64, blksize: u16, out: &mut Vec<u8>) {
        let blksize = u64::from(blksize);
        let length = self
            .octets
            .saturating_sub((block - 1) * blksize)
            .min(blksize);
        let end = out.len() + length as usize;
        let mut word = mix(block);
        while out.len() < end {
            out.extend_from_slice(&word.to_le_bytes());
            word = word.rotate_left(7).wrapping_add(block);
        }
        out.truncate(end);
    }
}

/// Datagrams on their way out. `room` is what the socket's send buffer still takes.
pub struct Outbox {
    pub datagrams: Vec<Datagram>,
    pub room: usize,
    pub spare: Vec<Vec<u8>>,
}

pub struct Datagram {
    pub octets: Vec<u8>,
    /// The ACK that says that everything has been stored.
    pub is_final_ack: bool,
}

impl Outbox {
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut octets = self.spare.pop().unwrap_or_default();
        octets.clear();
        write(&mut octets);
        self.room -= 1;
        self.datagrams.push(Datagram {
            octets,
            is_final_ack: false,
        });
    }
}

/// What an end does after it was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Until(Instant),
    /// The send buffer is full; poll again when it has drained.
    Full,
    Done(Outcome),
}

pub trait End {
    fn receive(&mut self, datagram: &[u8], now: Instant);
    fn unreachable(&mut self, now: Instant);
    fn poll(&mut self, now: Instant, out: &mut Outbox) -> Rest;
    /// Octets stored, and whether they were the right ones and all of them. `None` for an end that
    /// sends.
    fn stored(&self) -> Option<Stored> {
        None
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub octets: u64,
    pub damaged: bool,
    pub complete: bool,
}

/// Stores blocks: compares them with what they should be.
pub struct Disk {
    file: File,
    blksize: u16,
    pub stored: Stored,
    scratch: Vec<u8>,
}

impl Disk {
    pub fn new(file: File, blksize: u16) -> Self {
        Self {
            file,
            blksize,
            stored: Stored::default(),
            scratch: Vec::new(),
        }
    }

    pub fn store(&mut self, block: u64, payload: &[u8], last: bool) {
        self.scratch.clear();
        self.file
            .append_block(block, self.blksize, &mut self.scratch);
        self.stored.octets += payload.len() as u64;
        self.stored.damaged |= self.scratch != payload || self.stored.complete;
        self.stored.complete |= last;
    }
}

/// The request of a client, and what it may expect.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub direction: Direction,
    pub options: Options,
    pub file: File,
}

impl Ask {
    pub fn datagram(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let request = Request {
            direction: self.direction,
            name: b"boot/image",
            mode: Mode::Octet,
            options: self.options,
        };
        request.emit(&mut out);
        out
    }

    /// What a server with these terms makes of it: the agreement and the opening datagram, if there
    /// is one.
    pub fn granted(&self, terms: &Terms) -> (Agreed, Option<Vec<u8>>) {
        let size = match self.direction {
            Direction::Read => Some(self.file.octets),
            Direction::Write => self.options.get(OptionName::Tsize),
        };
        let (agreed, oack) = grant(&self.options, size, terms);
        let opening = (!oack.is_empty()).then(|| {
            let mut out = Vec::new();
            emit_option_ack(&oack, &mut out);
            out
        });
        (agreed, opening)
    }
}

/// An end that sends: a server's RRQ, a client's WRQ.
pub struct Sending {
    pub machine: Sender,
    opening: Vec<u8>,
    file: File,
    blksize: u16,
    policy: Policy,
    /// A client that waits for the answer to its WRQ.
    asked: Option<Options>,
    refusal: Option<&'static str>,
}

impl Sending {
    pub fn server(ask: &Ask, terms: &Terms, policy: &Policy, now: Instant) -> Self {
        let (agreed, oack) = ask.granted(terms);
        let last = ask.file.last(agreed.blksize);
        Self {
            machine: Sender::answering(&agreed, oack.is_some(), Some(last), policy, now),
            opening: oack.unwrap_or_default(),
            file: ask.file,
            blksize: agreed.blksize,
            policy: *policy,
            asked: None,
            refusal: None,
        }
    }

    pub fn client(ask: &Ask, policy: &Policy, now: Instant) -> Self {
        Self {
            machine: Sender::requesting(policy, now),
            opening: ask.datagram(),
            file: ask.file,
            blksize: Agreed::default().blksize,
            policy: *policy,
            asked: Some(ask.options),
            refusal: None,
        }
    }

    fn agree(&mut self, agreed: &Agreed, now: Instant) {
        self.asked = None;
        self.blksize = agreed.blksize;
        let last = self.file.last(agreed.blksize);
        self.machine.agree(agreed, Some(last), &self.policy, now);
    }
}

impl End for Sending {
    fn receive(&mut self, datagram: &[u8], now: Instant) {
        match (parse(datagram), self.asked) {
            (Ok(Packet::Request(_)), _) => {
                self.machine.request_repeated(now);
            }
            (Ok(Packet::OptionAck(oack)), Some(asked)) => match accept(&asked, &oack) {
                Ok(agreed) => self.agree(&agreed, now),
                Err(text) => self.refusal = Some(text),
            },
            (Ok(Packet::Ack { block: 0 }), Some(_)) => self.agree(&Agreed::default(), now),
            (Ok(packet), _) => self.machine.handle(&packet, now),
            (Err(_), _) => {}
        }
    }

    fn unreachable(&mut self, now: Instant) {
        self.machine.unreachable(now);
    }

    fn poll(&mut self, now: Instant, out: &mut Outbox) -> Rest {
        if let Some(text) = self.refusal.take() {
            out.push(|octets| emit_error(ErrorCode::OPTION_REFUSED, text, octets));
            self.machine.end(Outcome::Protocol(text));
        }
        loop {
            match self.machine.poll(now) {
                Step::Wait(until) => return Rest::Until(until),
                Step::Done(outcome) => return Rest::Done(outcome),
                _ if out.room == 0 => return Rest::Full,
                Step::Open => {
                    out.push(|octets| octets.extend_from_slice(&self.opening));
                    self.machine.opened(now);
                }
                Step::Data { first, end } => {
                    assert!(first < end, "an empty burst");
                    let end = end.min(first.saturating_add(out.room as u64));
                    for block in first..end {
                        out.push(|octets| {
                            let number = self.machine.rollover().to_wire(block);
                            octets.extend_from_slice(&data_header(number));
                            self.file.append_block(block, self.blksize, octets);
                        });
                    }
                    self.machine.sent(end, now);
                }
                step @ (Step::Ack(_) | Step::Error(..)) => panic!("a sender does not {step:?}"),
            }
        }
    }
}

/// An end that stores: a server's WRQ, a client's RRQ.
pub struct Receiving {
    pub machine: Receiver,
    opening: Vec<u8>,
    disk: Disk,
    policy: Policy,
    asked: Option<Options>,
    refusal: Option<&'static str>,
}

impl Receiving {
    pub fn server(
        ask: &Ask,
        terms: &Terms,
        dally: Duration,
        policy: &Policy,
        now: Instant,
    ) -> Self {
        let (agreed, oack) = ask.granted(terms);
        Self {
            machine: Receiver::answering(&agreed, dally, policy, now),
            opening: oack.unwrap_or_else(|| ack(0).to_vec()),
            disk: Disk::new(ask.file, agreed.blksize),
            policy: *policy,
            asked: None,
            refusal: None,
        }
    }

    pub fn client(ask: &Ask, dally: Duration, policy: &Policy, now: Instant) -> Self {
        Self {
            machine: Receiver::requesting(dally, policy, now),
            opening: ask.datagram(),
            disk: Disk::new(ask.file, Agreed::default().blksize),
            policy: *policy,
            asked: Some(ask.options),
            refusal: None,
        }
    }

    fn agree(&mut self, agreed: &Agreed, oack: bool, now: Instant) {
        self.asked = None;
        self.disk = Disk::new(self.disk.file, agreed.blksize);
        self.machine.agree(agreed, oack, &self.policy, now);
    }

    fn handle(&mut self, packet: &Packet<'_>, now: Instant) {
        let verdict = self.machine.handle(packet, now);
        if let (Packet::Data { payload, .. }, Verdict::Store | Verdict::StoreLast) =
            (packet, verdict)
        {
            let last = verdict == Verdict::StoreLast;
            self.disk.store(self.machine.received(), payload, last);
        }
    }
}

impl End for Receiving {
    fn receive(&mut self, datagram: &[u8], now: Instant) {
        match (parse(datagram), self.asked) {
            (Ok(Packet::Request(_)), _) => {
                self.machine.request_repeated(now);
            }
            (Ok(Packet::OptionAck(oack)), Some(asked)) => match accept(&asked, &oack) {
                Ok(agreed) => self.agree(&agreed, true, now),
                Err(text) => self.refusal = Some(text),
            },
            (Ok(packet @ Packet::Data { block: 1, .. }), Some(_)) => {
                self.agree(&Agreed::default(), false, now);
                self.handle(&packet, now);
            }
            (Ok(Packet::Data { .. }), Some(_)) => {}
            (Ok(packet), _) => self.handle(&packet, now),
            (Err(_), _) => {}
        }
    }

    fn unreachable(&mut self, now: Instant) {
        self.machine.unreachable(now);
    }

    fn poll(&mut self, now: Instant, out: &mut Outbox) -> Rest {
        if let Some(text) = self.refusal.take() {
            out.push(|octets| emit_error(ErrorCode::OPTION_REFUSED, text, octets));
            self.machine.end(Outcome::Protocol(text));
        }
        loop {
            match self.machine.poll(now) {
                Step::Wait(until) => return Rest::Until(until),
                Step::Done(outcome) => return Rest::Done(outcome),
                _ if out.room == 0 => return Rest::Full,
                Step::Open => out.push(|octets| octets.extend_from_slice(&self.opening)),
                Step::Ack(block) => {
                    assert_eq!(block, self.machine.received());
                    let number = self.machine.rollover().to_wire(block);
                    out.push(|octets| octets.extend_from_slice(&ack(number)));
                    if let Some(datagram) = out.datagrams.last_mut() {
                        datagram.is_final_ack = self.machine.is_complete();
                    }
                }
                Step::Error(code, text) => out.push(|octets| emit_error(code, text, octets)),
                Step::Data { .. } => panic!("a receiver has no data"),
            }
            self.machine.sent(now);
        }
    }

    fn stored(&self) -> Option<Stored> {
        Some(self.disk.stored)
    }
}
