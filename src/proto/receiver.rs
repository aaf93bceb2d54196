//! The end that stores the data.
//!
//! Blocks are taken in order only. An ACK goes out at the end of each window, at the last block,
//! once per hole, and when a block comes again whose ACK may have been lost.

use super::opening::Opening;
use super::progress::Progress;
use super::timer::{Expiry, Timer};
use super::{Agreed, Outcome, Policy, Rollover, Step};
use crate::limits::OACK_INTERVAL;
use crate::wire::{ErrorCode, Packet};
use std::time::{Duration, Instant};

/// A receiver repeats its ACK on its own account not earlier than this, and not before twice the
/// measured round trip: the sender, who knows what it sent, goes first.
const RECEIVER_PROBE_FLOOR: Duration = Duration::from_millis(200);

/// In a window a block that comes again sooner than this after its first copy was copied by the
/// network; senders take longer to become impatient.
const COPY_SPREAD: Duration = Duration::from_millis(5);

/// A hole is not reported again sooner than this, or than half a round trip.
const HOLE_REPEAT: Duration = Duration::from_micros(100);

/// Takes a file: a client's RRQ, a server's WRQ.
#[derive(Clone, Debug)]
pub struct Receiver {
    phase: Phase,
    rollover: Rollover,
    blksize: usize,
    window: u64,

    /// The last block that was taken in order.
    received: u64,
    /// The last block that was acknowledged.
    acked: u64,
    /// The newest block number seen, in order or not: a lower one after it starts a new run.
    seen: u64,
    /// The hole before the next block was reported in this run.
    hole_reported: bool,
    due: Option<Due>,
    /// When the last ACK left, and when it did if it may be used for measuring.
    answered: Option<Instant>,
    ack_sent: Option<Instant>,

    dally: Duration,
    /// Since when the peer is not listened to, because what it sends cannot be stored yet.
    stall: Option<Instant>,
    opening: Opening,
    heard: bool,
    timer: Timer,
    progress: Progress,
    retransmits: u64,
    holes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The opening datagram waits for DATA 1 (or, for a client, for an OACK).
    Opening,
    Flowing,
    /// The last block is stored and acknowledged; its ACK is repeated on demand until then (RFC
    /// 1350 §6).
    Dallying(Instant),
    /// The `Error` step comes first.
    Failing(ErrorCode, &'static str),
    Done(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Open,
    Ack,
}

/// What is to be done with the payload of a DATA packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is the next block: store it before the next `poll`.
    Store,
    /// It is the last block: store it, and finish the file, before the next `poll` acknowledges it.
    StoreLast,
    /// It is not; throw it away.
    Ignore,
}

impl Receiver {
    /// A server's side of a WRQ: the opening datagram is an OACK, or ACK 0.
    pub fn answering(agreed: &Agreed, dally: Duration, policy: &Policy, now: Instant) -> Self {
        let mut receiver = Self::new(agreed, dally, policy, now);
        receiver.opening = Opening::new(policy.opening_sends);
        receiver.timer.begin_opening(OACK_INTERVAL);
        receiver
    }

    /// A client's side of an RRQ: the opening datagram is the request. [`agree`](Self::agree) goes
    /// on.
    pub fn requesting(dally: Duration, policy: &Policy, now: Instant) -> Self {
        Self::new(&Agreed::default(), dally, policy, now)
    }

    /// The server has answered the RRQ: with an OACK, which ACK 0 confirms, or with DATA 1 and so
    /// without options (hand it to [`handle`](Self::handle) afterwards).
    pub fn agree(&mut self, agreed: &Agreed, oack: bool, policy: &Policy, now: Instant) {
        if self.phase != Phase::Opening {
            return;
        }
        let opened = self.opening.clone();
        *self = Self::new(agreed, self.dally, policy, now);
        self.phase = Phase::Flowing;
        self.heard = true;
        if let Some(round_trip) = opened.round_trip(now) {
            self.timer.guess(round_trip);
        }
        self.opening = opened;
        self.due = oack.then_some(Due::Ack);
    }

    fn new(agreed: &Agreed, dally: Duration, policy: &Policy, now: Instant) -> Self {
        let policy = Policy {
            probe_floor: RECEIVER_PROBE_FLOOR,
            ..*policy
        };
        let mut timer = Timer::new(&policy, agreed.timeout, now);
        timer.let_the_peer_go_first();
        Self {
            phase: Phase::Opening,
            rollover: agreed.rollover,
            blksize: agreed.blksize.into(),
            window: agreed.windowsize.into(),
            received: 0,
            acked: 0,
            seen: 0,
            hole_reported: false,
            due: Some(Due::Open),
            answered: None,
            ack_sent: None,
            dally,
            stall: None,
            opening: Opening::new(policy.retries + 1),
            heard: false,
            timer,
            progress: Progress::new(&policy, agreed.blksize, now),
            retransmits: 0,
            holes: 0,
        }
    }

    /// What the peer sends cannot be stored yet, so it is not listened to. Until the next packet or
    /// `poll` no clock runs but that of the whole transfer; returns when that one ends.
    pub fn stalled(&mut self, now: Instant) -> Option<Instant> {
        self.stall.get_or_insert(now);
        self.progress.end()
    }

    /// True while the peer waits until more can be stored.
    pub fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }

    /// The clocks go on where they stood.
    fn resume(&mut self, now: Instant) {
        if let Some(since) = self.stall.take() {
            let pause = now.saturating_duration_since(since);
            self.timer.skip(pause, now);
            self.progress.skip(pause, now);
            // The answer may have lain unread.
            self.ack_sent = None;
        }
    }

    /// Takes a packet that came from the right TID. Only DATA has a verdict other than `Ignore`.
    pub fn handle(&mut self, packet: &Packet<'_>, now: Instant) -> Verdict {
        self.resume(now);
        if matches!(self.phase, Phase::Done(_) | Phase::Failing(..)) {
            return Verdict::Ignore;
        }
        match *packet {
            Packet::Error { code, .. } => {
                // Behind the last ACK the file is complete, whatever the sender thinks.
                let outcome = match self.phase {
                    Phase::Dallying(_) => Outcome::Complete,
                    phase => Outcome::Aborted {
                        code,
                        at_opening: phase == Phase::Opening,
                    },
                };
                self.phase = Phase::Done(outcome);
                Verdict::Ignore
            }
            Packet::Data { block, payload } => self.data(block, payload.len(), now),
            // The OACK again: our ACK 0 was lost.
            Packet::OptionAck(_) if self.phase == Phase::Flowing && self.received == 0 => {
                self.due = Some(Due::Ack);
                Verdict::Ignore
            }
            Packet::Ack { .. } | Packet::Request(_) | Packet::OptionAck(_) => Verdict::Ignore,
        }
    }

    fn data(&mut self, wire: u16, length: usize, now: Instant) -> Verdict {
        // Half of the numbers lie behind the next block, half before it.
        let next = self.received + 1;
        let Some(block) = self.rollover.from_wire(wire, next.saturating_sub(32768)) else {
            return Verdict::Ignore;
        };
        if block == 0 || block >= next + self.window {
            return Verdict::Ignore;
        }
        self.progress.reachable();
        // The file is whole and acknowledged: nothing can break it any more.
        let dallying = matches!(self.phase, Phase::Dallying(_));
        if length > self.blksize && !dallying {
            self.phase = Phase::Failing(ErrorCode::ILLEGAL_OPERATION, "block too long");
            return Verdict::Ignore;
        }
        if self.phase == Phase::Opening {
            self.opened(now);
        }
        let seen = std::mem::replace(&mut self.seen, block);
        if block == next && !dallying {
            return self.next_block(length, now);
        }
        let asks = if block > next {
            // RFC 7440 §4: the receiver tells the last block it has in order; once per hole is
            // enough, and once more when the sender has gone back and the hole is still there.
            let goes_back = block <= seen && self.is_calm(HOLE_REPEAT, now);
            let tells = !self.hole_reported || goes_back;
            self.hole_reported = true;
            self.holes += u64::from(tells);
            tells
        } else {
            // RFC 1350: a repeated block is acknowledged again. In a window, copies that the
            // network made of blocks that flow are no question, and an ACK in mid-window would tear
            // it.
            self.window == 1 || self.is_calm(COPY_SPREAD, now)
        };
        if asks {
            self.due = Some(Due::Ack);
        }
        Verdict::Ignore
    }

    /// True where the last progress, or the last ACK, is some time ago: a block that comes again
    /// now was sent again.
    fn is_calm(&self, least: Duration, now: Instant) -> bool {
        let pause = self.timer.shortest_round_trip().unwrap_or_default() / 2;
        let since = self.answered.map_or(self.timer.silent_from(), |at| {
            at.max(self.timer.silent_from())
        });
        now >= since + pause.max(least)
    }

    /// The opening was answered.
    fn opened(&mut self, now: Instant) {
        self.phase = Phase::Flowing;
        self.heard = true;
        self.timer.end_opening();
        self.progress.begin(now);
        if self.due == Some(Due::Open) {
            self.due = None;
        }
    }

    fn next_block(&mut self, length: usize, now: Instant) -> Verdict {
        if let Some(sent) = self.ack_sent.take() {
            self.timer.sample(now - sent);
        }
        self.received += 1;
        self.hole_reported = false;
        self.timer.progress(now);
        self.timer.arm_probe(now);
        if length < self.blksize {
            self.phase = Phase::Dallying(now + self.dally);
            self.due = Some(Due::Ack);
            return Verdict::StoreLast;
        }
        if self.received - self.acked >= self.window {
            self.due = Some(Due::Ack);
        }
        Verdict::Store
    }

    /// ICMP said that nobody listens at the peer's port: a hint only.
    pub fn unreachable(&mut self, _now: Instant) {
        self.progress.unreachable();
    }

    /// The same request came again from the same TID: the same answer again. False where it brings
    /// none.
    pub fn request_repeated(&mut self, now: Instant) -> bool {
        if self.phase != Phase::Opening || !self.opening.asked_again(now) {
            return false;
        }
        self.progress.reachable();
        self.due = Some(Due::Open);
        self.timer.restart_interval(now);
        true
    }

    /// The file cannot be stored: tell the peer and end.
    pub fn fail(&mut self, code: ErrorCode, text: &'static str) {
        self.phase = Phase::Failing(code, text);
    }

    /// Ends the transfer from this side, silently.
    pub fn end(&mut self, outcome: Outcome) {
        self.phase = Phase::Done(outcome);
    }

    /// What is to be done now; see the contract at the head of the module.
    pub fn poll(&mut self, now: Instant) -> Step {
        self.resume(now);
        self.expire(now);
        match (self.phase, self.due) {
            (Phase::Done(outcome), _) => Step::Done(outcome),
            (Phase::Failing(code, text), _) => Step::Error(code, text),
            (_, Some(Due::Open)) => Step::Open,
            (_, Some(Due::Ack)) => Step::Ack(self.received),
            (Phase::Dallying(until), None) => Step::Wait(until),
            (_, None) => Step::Wait(self.deadline()),
        }
    }

    fn deadline(&self) -> Instant {
        self.progress.deadline(&self.timer)
    }

    fn expire(&mut self, now: Instant) {
        match self.phase {
            Phase::Done(_) | Phase::Failing(..) => return,
            // The ACK that is due goes out first.
            Phase::Dallying(until) => {
                if now >= until && self.due.is_none() {
                    self.phase = Phase::Done(Outcome::Complete);
                }
                return;
            }
            Phase::Opening | Phase::Flowing => {}
        }
        let (timer, blocks) = (&mut self.timer, self.received);
        match self.progress.expire(timer, blocks, self.heard, now) {
            Ok(Expiry::Nothing | Expiry::Exhausted) => {}
            Err(outcome) => self.phase = Phase::Done(outcome),
            Ok(Expiry::Probe(_) | Expiry::Resend) if self.phase == Phase::Opening => {
                self.due = self.opening.may_be_sent().then_some(Due::Open);
            }
            Ok(Expiry::Probe(_) | Expiry::Resend) => self.due = Some(Due::Ack),
        }
    }

    /// The datagram of the last step has left: `Open`, `Ack` or `Error`.
    pub fn sent(&mut self, now: Instant) {
        match (self.phase, self.due.take()) {
            (Phase::Failing(_, text), _) => self.phase = Phase::Done(Outcome::Protocol(text)),
            (_, Some(Due::Open)) => {
                self.opening.was_sent(now);
                self.retransmits += u64::from(self.opening.was_resent());
            }
            (_, Some(Due::Ack)) => {
                let again =
                    self.ack_sent.is_some() || (self.acked == self.received && self.received > 0);
                self.retransmits += u64::from(again);
                self.ack_sent = if again { None } else { Some(now) };
                self.answered = Some(now);
                self.acked = self.received;
                if let (Phase::Dallying(_), false) = (self.phase, again) {
                    // Storing may have taken its time.
                    self.phase = Phase::Dallying(now + self.dally);
                }
                self.timer.arm_probe(now);
            }
            (_, None) => {}
        }
    }

    /// True once the last block was taken, although the machine may still dally.
    pub fn is_complete(&self) -> bool {
        matches!(
            self.phase,
            Phase::Dallying(_) | Phase::Done(Outcome::Complete)
        )
    }

    /// True once DATA has come.
    pub fn is_proven(&self) -> bool {
        self.heard
    }

    /// True where nothing new has come for longer than a first probe takes: a repeated request is
    /// not a late copy then.
    pub fn is_silent(&self, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.timer.silent_from());
        silence > self.timer.probe_interval().unwrap_or(self.timer.interval())
    }

    /// When the peer was last told from silence: its last progress, or the beginning.
    pub fn moved(&self) -> Instant {
        self.timer.silent_from()
    }

    /// The last block that was taken.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How block numbers look on the wire.
    pub fn rollover(&self) -> Rollover {
        self.rollover
    }

    /// Opening datagrams and ACKs sent again, so far.
    pub fn retransmits(&self) -> u64 {
        self.retransmits
    }

    /// Holes reported, so far.
    pub fn holes(&self) -> u64 {
        self.holes
    }

    /// Smoothed round trip, where one was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.timer.round_trip()
    }
}
