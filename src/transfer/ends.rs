//! The two ends of a transfer: a machine, and the octets that it decides about without seeing them.

use super::body::{Body, Format, Scratch, Trouble};
use super::link::Link;
use super::netascii::Decoder;
use crate::error::Refusal;
use crate::limits::DATA_HEADER;
use crate::proto::{Agreed, Policy, Receiver, Sender, Step, Verdict};
use crate::store::Sink;
use crate::sys;
use crate::wire::{self, Mode, Packet};
use std::ops::Range;
use std::task::Poll;
use std::time::{Duration, Instant};

/// This end of a transfer. What it borrows is its sink's.
#[allow(clippy::large_enum_variant)] // it lies in a transfer, which is boxed as a whole
pub(crate) enum End<'a> {
    /// It has the file: a server's RRQ, a client's WRQ.
    Sending(Sending),
    /// It gets the file: a server's WRQ, a client's RRQ.
    Receiving(Receiving<'a>),
}

pub(crate) struct Sending {
    machine: Sender,
    body: Body,
    format: Format,
}

pub(crate) struct Receiving<'a> {
    machine: Receiver,
    intake: Intake<'a>,
}

impl<'a> End<'a> {
    /// `agreed` is what both ends go by; a client comes to know it later, by
    /// [`agree`](Self::agree).
    pub(crate) fn sending(machine: Sender, mut body: Body, agreed: &Agreed) -> Self {
        let format = format(agreed);
        body.set_format(format, agreed.windowsize);
        Self::Sending(Sending {
            machine,
            body,
            format,
        })
    }

    pub(crate) fn receiving(machine: Receiver, sink: Box<dyn Sink + 'a>, mode: Mode) -> Self {
        let intake = Intake {
            sink: Some(sink),
            decoder: (mode == Mode::Netascii).then(Decoder::default),
            total: 0,
            is_whole: false,
            is_committed: false,
        };
        Self::Receiving(Receiving { machine, intake })
    }

    /// The server has answered the request: with an OACK, or without options.
    pub(super) fn agree(&mut self, agreed: &Agreed, oack: bool, policy: &Policy, now: Instant) {
        match self {
            Self::Sending(sending) => {
                sending.format = format(agreed);
                sending.body.set_format(sending.format, agreed.windowsize);
                let last = sending.body.last(sending.format);
                sending.machine.agree(agreed, last, policy, now);
            }
            Self::Receiving(receiving) => receiving.machine.agree(agreed, oack, policy, now),
        }
    }

    pub(super) fn poll(&mut self, now: Instant) -> Step {
        match self {
            Self::Sending(sending) => sending.machine.poll(now),
            Self::Receiving(receiving) => receiving.machine.poll(now),
        }
    }

    /// Hands a packet to the machine that holds no octets of the file.
    pub(super) fn handle(&mut self, packet: &Packet<'_>, now: Instant) {
        match self {
            Self::Sending(sending) => sending.machine.handle(packet, now),
            Self::Receiving(receiving) => {
                debug_assert!(!matches!(packet, Packet::Data { .. }));
                let _ = receiving.machine.handle(packet, now);
            }
        }
    }

    /// The source has not the block that is offered, or the sink takes no more; see
    /// [`Sender::stalled`] and [`Receiver::stalled`].
    pub(super) fn stalled(&mut self, now: Instant) -> Option<Instant> {
        match self {
            Self::Sending(sending) => sending.machine.stalled(now),
            Self::Receiving(receiving) => receiving.machine.stalled(now),
        }
    }

    /// The peer's packets are not read until the sink takes more.
    pub(super) fn waits_for_sink(&self) -> bool {
        match self {
            Self::Sending(_) => false,
            Self::Receiving(receiving) => receiving.machine.is_stalled(),
        }
    }

    /// The opening datagram has left.
    pub(super) fn opened(&mut self, now: Instant) {
        match self {
            Self::Sending(sending) => sending.machine.opened(now),
            Self::Receiving(receiving) => receiving.machine.sent(now),
        }
    }

    pub(super) fn unreachable(&mut self, now: Instant) {
        match self {
            Self::Sending(sending) => sending.machine.unreachable(now),
            Self::Receiving(receiving) => receiving.machine.unreachable(now),
        }
    }

    pub(super) fn request_repeated(&mut self, now: Instant) -> bool {
        match self {
            Self::Sending(sending) => sending.machine.request_repeated(now),
            Self::Receiving(receiving) => receiving.machine.request_repeated(now),
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        match self {
            Self::Sending(sending) => sending.machine.is_proven(),
            Self::Receiving(receiving) => receiving.machine.is_proven(),
        }
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        match self {
            Self::Sending(sending) => sending.machine.is_silent(now),
            Self::Receiving(receiving) => receiving.machine.is_silent(now),
        }
    }

    /// When the peer moved on last, and the last block that has got through. A peer that waits for
    /// this end has moved just now.
    pub(super) fn moved(&self, now: Instant) -> (Instant, u64) {
        match self {
            Self::Sending(sending) if sending.machine.is_stalled() => {
                (now, sending.machine.acked())
            }
            Self::Sending(sending) => (sending.machine.moved(), sending.machine.acked()),
            Self::Receiving(receiving) if receiving.machine.is_stalled() => {
                (now, receiving.machine.received())
            }
            Self::Receiving(receiving) => (receiving.machine.moved(), receiving.machine.received()),
        }
    }

    /// The whole file is stored and acknowledged, although the last ACK may have to be repeated.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Sending(_) => false,
            Self::Receiving(receiving) => receiving.intake.is_committed,
        }
    }

    /// Octets of the file that are at the other end, or at this one.
    pub(super) fn octets(&self) -> u64 {
        match self {
            Self::Sending(sending) => sending
                .body
                .octets_to(sending.machine.acked(), sending.format),
            Self::Receiving(receiving) => receiving.intake.total,
        }
    }

    /// Blocks that both ends have.
    pub(super) fn blocks(&self) -> u64 {
        match self {
            Self::Sending(sending) => sending.machine.acked(),
            Self::Receiving(receiving) => receiving.machine.received(),
        }
    }

    /// Whether the file was mapped already; asked once.
    pub(crate) fn is_shared(&self) -> Option<bool> {
        match self {
            Self::Sending(sending) => sending.body.is_shared(),
            Self::Receiving(_) => None,
        }
    }

    pub(super) fn retransmits(&self) -> u64 {
        match self {
            Self::Sending(sending) => sending.machine.retransmits(),
            Self::Receiving(receiving) => receiving.machine.retransmits(),
        }
    }

    pub(super) fn lossy_windows(&self) -> u64 {
        match self {
            Self::Sending(sending) => sending.machine.lossy_windows(),
            Self::Receiving(receiving) => receiving.machine.holes(),
        }
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Sending(sending) => sending.machine.round_trip(),
            Self::Receiving(receiving) => receiving.machine.round_trip(),
        }
    }

    /// What was to be sent.
    pub(super) fn into_body(self) -> Option<Body> {
        match self {
            Self::Sending(sending) => Some(sending.body),
            Self::Receiving(_) => None,
        }
    }

    /// Throws away what was stored of a file that is not whole.
    pub(super) fn discard(&mut self) {
        if let Self::Receiving(receiving) = self {
            receiving.intake.sink = None;
        }
    }
}

fn format(agreed: &Agreed) -> Format {
    Format {
        blksize: agreed.blksize,
        rollover: agreed.rollover,
    }
}

impl Sending {
    pub(super) fn machine(&self) -> &Sender {
        &self.machine
    }

    /// Blocks that leave in one system call at best.
    pub(super) fn burst(&self) -> u64 {
        self.format.burst()
    }

    /// Sends blocks that the machine has offered, at most a [`burst`](Self::burst). Returns one
    /// past the last that left.
    pub(super) fn send(
        &mut self,
        link: &mut Link,
        burst: Range<u64>,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<u64, Trouble> {
        let sent = self.body.send(link, burst.clone(), self.format, scratch);
        let last = self.body.last(self.format);
        if let Some(last) = last {
            self.machine.set_last(last);
        }
        let end = match &sent {
            Ok(end) => *end,
            // Lost like any datagram; the timer goes on.
            Err(Trouble::Network(error)) if !sys::is_too_long(error) => {
                last.map_or(burst.end, |last| burst.end.min(last + 1))
            }
            Err(_) => burst.start,
        };
        if end > burst.start {
            self.machine.sent(end, now);
        }
        sent
    }
}

impl Receiving<'_> {
    /// Takes datagrams that came together, each `segment` octets long, the last perhaps shorter.
    /// What they hold is handed to the sink before this returns; a whole file waits for
    /// [`finish`](Self::finish). The buffer is written over.
    ///
    /// # Errors
    /// What the sink says to that.
    pub(super) fn take(
        &mut self,
        datagrams: &mut [u8],
        segment: usize,
        now: Instant,
        mut hear: impl FnMut(&Packet<'_>),
    ) -> Result<(), Refusal> {
        let (mut start, mut kept) = (0, 0);
        while start < datagrams.len() {
            let end = (start + segment).min(datagrams.len());
            if let Ok(packet) = wire::parse(&datagrams[start..end]) {
                hear(&packet);
                let verdict = self.machine.handle(&packet, now);
                if verdict != Verdict::Ignore {
                    // Behind each other, so that the sink is called once.
                    let payload = start + DATA_HEADER..end;
                    kept = self.intake.gather(datagrams, payload, kept);
                }
                self.intake.is_whole |= verdict == Verdict::StoreLast;
            }
            start = end;
        }
        self.intake.append(&datagrams[..kept])?;
        if self.intake.is_whole {
            self.intake.end()?;
        }
        Ok(())
    }

    /// A whole file that is not stored yet: false, or true where it is committed by now.
    ///
    /// # Errors
    /// What the sink says to that.
    pub(super) fn finish(&mut self) -> Result<bool, Refusal> {
        match self.intake.is_whole {
            true => self.intake.commit(),
            false => Ok(true),
        }
    }

    /// Whether the sink takes bytes.
    ///
    /// # Errors
    /// What the sink says to that.
    pub(super) fn is_ready(&mut self) -> Result<bool, Refusal> {
        match &mut self.intake.sink {
            Some(sink) if !self.intake.is_whole => is_done(sink.poll_ready()),
            _ => Ok(true),
        }
    }

    /// The ACK of this block as a datagram.
    pub(super) fn ack(&self, block: u64) -> [u8; DATA_HEADER] {
        wire::ack(self.machine.rollover().to_wire(block))
    }

    /// The ACK or ERROR that the machine has offered has left.
    pub(super) fn sent(&mut self, now: Instant) {
        self.machine.sent(now);
    }
}

/// What becomes of the octets that were received.
struct Intake<'a> {
    /// Until the file is committed or thrown away.
    sink: Option<Box<dyn Sink + 'a>>,
    decoder: Option<Decoder>,
    /// Octets of the file.
    total: u64,
    /// All of them were appended.
    is_whole: bool,
    is_committed: bool,
}

impl Intake<'_> {
    /// Moves a payload to the front of the buffer, behind what is there, and translates it on the
    /// way.
    fn gather(&mut self, buffer: &mut [u8], payload: Range<usize>, kept: usize) -> usize {
        match &mut self.decoder {
            Some(decoder) => decoder.decode(buffer, payload, kept),
            None => {
                let length = payload.len();
                buffer.copy_within(payload, kept);
                kept + length
            }
        }
    }

    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        if let (Some(sink), false) = (&mut self.sink, octets.is_empty()) {
            sink.append(octets)?;
            self.total += octets.len() as u64;
        }
        Ok(())
    }

    /// All bytes have come: those that the decoder has kept are the last.
    fn end(&mut self) -> Result<(), Refusal> {
        match self.decoder.as_mut().and_then(Decoder::finish) {
            Some(octet) => self.append(&[octet]),
            None => Ok(()),
        }
    }

    /// False where the sink has not stored the file yet.
    fn commit(&mut self) -> Result<bool, Refusal> {
        if let Some(sink) = &mut self.sink
            && !is_done(sink.poll_finish())?
        {
            return Ok(false);
        }
        if let Some(sink) = self.sink.take() {
            sink.commit()?;
            self.is_committed = true;
        }
        Ok(true)
    }
}

fn is_done(poll: Poll<Result<(), Refusal>>) -> Result<bool, Refusal> {
    match poll {
        Poll::Ready(result) => result.map(|()| true),
        Poll::Pending => Ok(false),
    }
}
