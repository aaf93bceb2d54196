//! The end that holds the data.
//!
//! The window is `acked + 1 ..= acked + window`; `next` walks through it. Whatever tears a window
//! (a hole reported by the receiver, a silence) sets `next` back to `acked + 1`, because an RFC
//! 7440 receiver keeps nothing behind a hole. What only looks like such a report does not: see
//! [`Echo`].

use super::opening::Opening;
use super::pace::Pace;
use super::progress::Progress;
use super::timer::{Expiry, Timer};
use super::{Agreed, Outcome, Policy, Rollover, Step};
use crate::limits::{
    MAX_WINDOWSIZE, OACK_INTERVAL, REPEATED_ACK_INTERVAL, SILENT_BYTES, SILENT_BYTES_MOST,
    SILENT_BYTES_PER_ACK, UNPROVEN_DATA_SENDS,
};
use crate::wire::Packet;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Bursts whose time of sending is remembered for measuring the round trip.
const REMEMBERED_BURSTS: usize = 4;
/// Blocks beyond the window that may go out where nothing else moves the receiver.
const MOST_AHEAD: u64 = 2;
/// Probes of a window's last block that brought nothing, in a row, before the receiver counts as
/// one that does not answer them.
const TAILS_UNHEARD: u32 = 2;
/// ACKs in a row of single blocks, each too early to answer a resend, before the receiver counts as
/// one that acknowledges every block.
const EAGER_ACKS: u32 = 2;

/// Sends a file: a server's RRQ, a client's WRQ.
#[derive(Clone, Debug)]
pub struct Sender {
    phase: Phase,
    rollover: Rollover,
    window: u64,
    retries: u32,

    /// The last block that the peer has acknowledged; 0 before the first.
    acked: u64,
    /// The next block to be sent in order.
    next: u64,
    /// One past the highest block ever sent.
    sent_end: u64,
    /// One past the highest block ever sent twice; 0 before.
    resent_end: u64,
    /// The last block of the file, once known.
    last: Option<u64>,

    /// Single blocks out of order: a probe.
    probe: Option<Range<u64>>,
    /// Blocks of the current burst still to go, and when the next burst may start.
    burst_left: u64,
    burst_from: Instant,
    /// First sends, newest last: for measuring.
    sends: VecDeque<Sent>,

    /// The peer has acknowledged something: its address is real.
    proven: bool,
    /// How often the opening datagram, or a DATA 1 that opens, has gone out.
    opening: Opening,
    /// It is to go out now.
    opening_due: bool,
    repeats: Repeats,
    echo: Echo,
    recovery: Recovery,
    silence: SilentBlocks,
    pace: Pace,
    timer: Timer,
    progress: Progress,

    retransmits: u64,
    torn: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The opening datagram waits for its answer: an OACK for ACK 0, or a client's WRQ.
    Opening,
    Flowing,
    Done(Outcome),
}

/// Repeats of one ACK that moved nothing.
#[derive(Clone, Debug)]
struct Repeats {
    count: u32,
    answered: Instant,
}

/// A block that was sent again although it had arrived is acknowledged again, and that looks like a
/// report that the next one is missing. Whoever goes back for it sends more such blocks, hears of
/// them too, and never stops: the Sorcerer's Apprentice of RFC 1123 §4.2.3.1, with windows.
#[derive(Clone, Debug, Default)]
struct Echo {
    /// When the first unacknowledged block, or a probe, was last sent again.
    resent: Option<Instant>,
    /// Until then the last ACK may come again in answer to that.
    until: Option<Instant>,
    /// The last report was about the very block behind all that was sent again: a hole, or an echo.
    /// The second in a row is one.
    suspected: bool,
}

/// How a silence behind a window is broken. A probe of the window's last block costs one packet,
/// and a receiver that answers it tells where it stands. Many do not: U-Boot reports a hole once,
/// others never. Only the whole window moves all of them.
#[derive(Clone, Debug)]
struct Recovery {
    /// The window in flight was begun by a report of its receiver, which may not report the same
    /// hole again.
    reported: bool,
    /// In this silence the last block was sent as a probe, and so often the whole window was.
    tail: bool,
    windows: u32,
    /// The window that is being sent is a probe, behind which so many single blocks go out.
    is_probe: bool,
    tails: u32,
    /// Blocks beyond the window that went out: [`MOST_AHEAD`] at most.
    ahead: u64,
    /// Silences in a row in which a probe of the last block brought nothing and the window did.
    unheard: u32,
    /// When a block was last sent.
    sent: Instant,
    /// When the window last went out again from its first block.
    restarted: Option<Instant>,
    /// Blocks in a row that were acknowledged alone, before a resend could have been answered.
    eager: u32,
}

impl Recovery {
    fn new(now: Instant) -> Self {
        Self {
            reported: false,
            tail: false,
            windows: 0,
            is_probe: false,
            tails: 0,
            ahead: 0,
            unheard: 0,
            sent: now,
            restarted: None,
            eager: 0,
        }
    }
}

/// Blocks that timers may send again into silence, beyond one a time. Each ACK that moves on earns
/// some. The peer's address is proved by its ACKs alone, and a host that forges one blindly sends
/// it to every port: without this, one sweep would bring a window again and again.
#[derive(Clone, Debug)]
struct SilentBlocks {
    left: u64,
    per_ack: u64,
    most: u64,
}

impl SilentBlocks {
    fn new(blksize: u16) -> Self {
        let blocks = |bytes| bytes / u64::from(blksize.max(1));
        Self {
            left: blocks(SILENT_BYTES),
            per_ack: blocks(SILENT_BYTES_PER_ACK),
            most: blocks(SILENT_BYTES_MOST),
        }
    }

    /// An ACK has moved on.
    fn earn(&mut self) {
        self.left = self.most.min(self.left + self.per_ack);
    }

    /// How many of these blocks may be sent again.
    fn take(&mut self, blocks: u64) -> u64 {
        let more = self.left.min(blocks.saturating_sub(1));
        self.left -= more;
        1 + more
    }
}

#[derive(Clone, Debug)]
struct Sent {
    blocks: Range<u64>,
    at: Instant,
}

impl Sender {
    /// A server's side of an RRQ. With `oack` the opening datagram is an OACK that ACK 0 must
    /// answer; without, DATA 1 goes out at once. `last` is the number of the last block, if the
    /// length is known.
    pub fn answering(
        agreed: &Agreed,
        oack: bool,
        last: Option<u64>,
        policy: &Policy,
        now: Instant,
    ) -> Self {
        let mut sender = Self {
            last,
            ..Self::new(agreed, policy, now)
        };
        if oack {
            sender.phase = Phase::Opening;
            sender.timer.begin_opening(OACK_INTERVAL);
        } else {
            sender.opening_due = false;
            sender.opening = Opening::new(UNPROVEN_DATA_SENDS);
        }
        sender
    }

    /// A client's side of a WRQ: the opening datagram is the request. [`agree`](Self::agree) goes
    /// on.
    pub fn requesting(policy: &Policy, now: Instant) -> Self {
        let mut sender = Self::new(&Agreed::default(), policy, now);
        sender.phase = Phase::Opening;
        sender.opening = Opening::new(policy.retries + 1);
        sender
    }

    /// The server has answered the WRQ: with an OACK, or with ACK 0 and so without options.
    pub fn agree(&mut self, agreed: &Agreed, last: Option<u64>, policy: &Policy, now: Instant) {
        if self.phase == Phase::Opening {
            let opened = self.opening.clone();
            *self = Self {
                last,
                ..Self::new(agreed, policy, now)
            };
            self.opening = opened;
            self.flow(now);
        }
    }

    fn new(agreed: &Agreed, policy: &Policy, now: Instant) -> Self {
        let window = u64::from(agreed.windowsize);
        let pace = Pace::new(window);
        let mut timer = Timer::new(policy, agreed.timeout, now);
        timer.probe_early_after_losses_only();
        if window > 1 {
            timer.has_questions(3);
        }
        Self {
            phase: Phase::Flowing,
            rollover: agreed.rollover,
            window,
            retries: policy.retries,
            acked: 0,
            next: 1,
            sent_end: 1,
            resent_end: 0,
            last: None,
            probe: None,
            burst_left: pace.burst(),
            burst_from: now,
            sends: VecDeque::new(),
            proven: false,
            opening: Opening::new(policy.opening_sends),
            opening_due: true,
            repeats: Repeats {
                count: 0,
                answered: now,
            },
            echo: Echo::default(),
            recovery: Recovery::new(now),
            silence: SilentBlocks::new(agreed.blksize),
            pace,
            timer,
            progress: Progress::new(policy, agreed.blksize, now),
            retransmits: 0,
            torn: 0,
        }
    }

    /// Takes a packet that came from the right TID.
    pub fn handle(&mut self, packet: &Packet<'_>, now: Instant) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        match *packet {
            Packet::Error { code, .. } => {
                let at_opening = self.phase == Phase::Opening;
                self.phase = Phase::Done(Outcome::Aborted { code, at_opening });
            }
            Packet::Ack { block } => self.acknowledged(block, now),
            Packet::OptionAck(_) => self.offered_again(now),
            // A delayed or duplicated packet of somebody's past (RFC 1350 §2 allows to ignore it).
            Packet::Request(_) | Packet::Data { .. } => {}
        }
    }

    /// A client's server repeats its OACK: it waits for DATA 1, and may not do so for as long as
    /// the interval.
    fn offered_again(&mut self, now: Instant) {
        let is_copy = now < self.repeats.answered + OACK_INTERVAL / 2;
        if self.phase == Phase::Flowing
            && self.acked == 0
            && self.repeats.count <= self.retries
            && !is_copy
        {
            self.repeats.count += 1;
            self.repeats.answered = now;
            self.restart_window(now);
        }
    }

    fn acknowledged(&mut self, wire: u16, now: Instant) {
        // What lies outside "just before the window" to "highest block sent" is stale or invented,
        // and moves nothing, not even a clock.
        let Some(block) = self
            .rollover
            .from_wire(wire, self.acked)
            .filter(|block| *block < self.sent_end)
        else {
            return;
        };
        self.progress.reachable();
        match self.phase {
            Phase::Opening => self.flow(now),
            Phase::Flowing if block == self.acked => self.repeated(now),
            Phase::Flowing => self.progressed(block, now),
            Phase::Done(_) => {}
        }
    }

    /// The opening was answered.
    fn flow(&mut self, now: Instant) {
        self.proven = true;
        self.phase = Phase::Flowing;
        self.opening_due = false;
        if let Some(round_trip) = self.opening.round_trip(now) {
            self.timer.guess(round_trip);
        }
        self.timer.end_opening();
        self.timer.progress(now);
        self.progress.begin(now);
        self.burst_from = now;
    }

    fn progressed(&mut self, block: u64, now: Instant) {
        self.measure(block, now);
        let in_order = self.sent_end - self.recovery.ahead;
        let at_end = block + 1 >= in_order && in_order == self.next;
        let is_eager = self.learn(block, at_end, now);
        let is_echo = !at_end && (is_eager || self.is_echo(block));
        self.pace.answered(at_end);
        if at_end {
            if self.recovery.windows == 0 && self.timer.probes() > 0 {
                self.pace.doubtful();
            } else if self.timer.probes() == 0 && self.window_is_sent() {
                self.pace.whole();
            }
            // Doubt ends with a window of which nothing was sent again.
            self.echo.suspected &= self.acked + 1 < self.resent_end;
            self.recovery.reported = false;
        } else if !is_echo {
            self.torn += 1;
            self.timer.lost();
            self.pace.torn((block - self.acked).min(self.window - 1));
            self.recovery.reported = true;
        }
        (
            self.recovery.tail,
            self.recovery.windows,
            self.recovery.ahead,
        ) = (false, 0, 0);
        self.echo.until = self.echo_until(now);
        self.proven = true;
        self.silence.earn();
        self.acked = block;
        self.timer.progress(now);
        self.repeats = Repeats {
            count: 0,
            answered: now,
        };
        if self.last == Some(block) {
            self.phase = Phase::Done(Outcome::Complete);
            return;
        }
        if !is_echo {
            self.restart_window(now);
        } else if self.window_is_sent() {
            self.timer.arm_probe(now);
        }
    }

    /// An ACK that comes sooner than a round trip after blocks were sent again is no answer to
    /// them: until when that may come. Only where a probe makes up for what is passed over by
    /// mistake.
    fn echo_until(&self, now: Instant) -> Option<Instant> {
        self.timer.probe_interval()?;
        let resent = self.echo.resent?;
        let shortest = self.timer.shortest_round_trip()?;
        let is_too_soon = now < resent + (shortest - shortest / 8);
        is_too_soon.then(|| resent + self.timer.answer_time())
    }

    /// What an ACK that moves on says about how its receiver acknowledges. True where it is inside
    /// the window and no report of a hole: it comes too soon after the window went out again, so
    /// the block that seemed lost had arrived, or the receiver acknowledges every block anyway.
    /// Only where a probe makes up for a mistake.
    fn learn(&mut self, block: u64, at_end: bool, now: Instant) -> bool {
        let too_soon = |at: Option<Instant>| at.is_some_and(|at| self.timer.is_too_soon(now - at));
        let needless = too_soon(self.echo.resent);
        let early = too_soon(self.recovery.restarted);
        let Recovery {
            tail,
            windows,
            unheard,
            eager,
            ..
        } = &mut self.recovery;
        if *windows > 0 && !needless {
            *unheard += u32::from(*tail);
        } else if *windows > 0 || *tail {
            *unheard = 0;
        }
        let blocks = block - self.acked;
        let alone = blocks <= 2 && blocks < self.window && !at_end;
        if !alone {
            *eager = 0;
        } else if early {
            *eager += 1;
        }
        alone && self.timer.probe_interval().is_some() && (early || *eager >= EAGER_ACKS)
    }

    /// Whether this ACK, behind which blocks are under way, speaks of a repetition and not of a
    /// hole.
    fn is_echo(&mut self, block: u64) -> bool {
        let is_behind = block + 1 == self.resent_end
            && self.next > self.resent_end
            && self.timer.probe_interval().is_some();
        let is_echo = is_behind && self.echo.suspected;
        // Whoever says it once more means a hole.
        self.echo.suspected = is_behind && !is_echo;
        is_echo
    }

    /// The same ACK again. In lock step it moves nothing and only the timer resends (RFC 1123
    /// §4.2.3.1, the Sorcerer's Apprentice). With a larger window it says "start again here" (RFC
    /// 7440 §4).
    fn repeated(&mut self, now: Instant) {
        if self.window == 1 {
            self.timer.refute_loss();
            return;
        }
        let is_older = (self.recovery.restarted)
            .is_some_and(|at| self.timer.is_too_soon(now.saturating_duration_since(at)));
        if self.sent_end == self.acked + 1 || is_older {
            return;
        }
        // A copy made by the network comes right behind the original; a report that the first block
        // of a window is missing takes as long as the path, but less than a whole window.
        let pause = match self.repeats.count {
            // Each block brings an ACK, so the report comes right behind the ACK of the last block
            // in order.
            0 if self.recovery.eager >= EAGER_ACKS => Duration::ZERO,
            0 => self.timer.shortest_round_trip().unwrap_or_default() / 2,
            // A second one from a receiver that is behind with reading: the window is on its way.
            1 => self.timer.round_trip().unwrap_or_default(),
            _ => self
                .timer
                .round_trip()
                .unwrap_or_default()
                .max(REPEATED_ACK_INTERVAL),
        };
        if self.repeats.count > self.retries || now < self.repeats.answered + pause {
            return;
        }
        if self.echo.until.is_some_and(|until| now < until) || self.is_echo(self.acked) {
            self.repeats.answered = now; // some answer every block
            return;
        }
        self.torn += 1;
        self.repeats.count += 1;
        self.repeats.answered = now;
        if self.repeats.count > 1 {
            self.pace.vanished();
        }
        self.timer.lost();
        if self.recovery.windows == 0 && self.recovery.tail {
            self.recovery.unheard = 0;
        }
        self.recovery.reported = true;
        self.restart_window(now);
    }

    /// The next window begins behind the acknowledged block and is a whole one again (RFC 7440 §4).
    fn restart_window(&mut self, now: Instant) {
        self.next = self.acked + 1;
        self.probe = None;
        self.recovery.is_probe = false;
        self.timer.disarm_probe();
        // A receiver that needs the gap needs it here too: its buffers are still full of what came
        // behind the hole.
        self.burst_left = self.pace.burst();
        self.burst_from = self.burst_from.max(now);
    }

    fn measure(&mut self, block: u64, now: Instant) {
        while self
            .sends
            .front()
            .is_some_and(|sent| sent.blocks.end <= block)
        {
            self.sends.pop_front();
        }
        let Some(sent) = self
            .sends
            .front()
            .filter(|sent| sent.blocks.contains(&block))
        else {
            return;
        };
        let elapsed = now - sent.at;
        let at_end = block + 1 == self.sent_end;
        if block >= self.resent_end {
            // A hole is reported as soon as the next block comes. An ACK from inside the window
            // that comes later than answers do may have waited for the receiver's own timer.
            let is_late = self
                .timer
                .probe_interval()
                .is_some_and(|latest| elapsed > latest);
            if at_end || !is_late {
                self.timer.sample(elapsed);
            }
        } else if at_end {
            match self.echo.resent.filter(|_| self.timer.is_resending()) {
                Some(at) => {
                    let since_last = now - self.recovery.sent;
                    self.timer
                        .resend_was_answered(elapsed, now - at, since_last);
                }
                None => self.timer.ambiguous_sample(elapsed),
            }
        }
    }

    /// One past the last block that may be sent now.
    fn window_end(&self) -> u64 {
        let end = self.acked + self.window;
        self.last.map_or(end, |last| last.min(end)) + 1
    }

    fn window_is_sent(&self) -> bool {
        self.next >= self.window_end()
    }

    /// ICMP said that nobody listens at the peer's port. A hint only: it may be old, or forged.
    pub fn unreachable(&mut self, _now: Instant) {
        self.progress.unreachable();
    }

    /// The same request came again from the same TID: one more copy of the opening packet. False
    /// where it brings none.
    pub fn request_repeated(&mut self, now: Instant) -> bool {
        let is_over = self.proven || matches!(self.phase, Phase::Done(_));
        if is_over || !self.opening.asked_again(now) {
            return false;
        }
        self.progress.reachable();
        self.timer.restart_interval(now);
        match self.phase {
            Phase::Opening => self.opening_due = true,
            _ => self.restart_window(now),
        }
        true
    }

    /// The last block of the file turned out to be this one. Blocks behind it must not have been
    /// sent.
    pub fn set_last(&mut self, last: u64) {
        debug_assert!(
            self.sent_end <= last + 1,
            "block {} was sent, the last is {last}",
            self.sent_end - 1
        );
        self.last = Some(last);
    }

    /// Ends the transfer from this side.
    pub fn end(&mut self, outcome: Outcome) {
        self.phase = Phase::Done(outcome);
    }

    /// What is to be done now; see the contract at the head of the module.
    pub fn poll(&mut self, now: Instant) -> Step {
        self.expire(now);
        match self.phase {
            Phase::Done(outcome) => Step::Done(outcome),
            Phase::Opening if self.opening_due => Step::Open,
            Phase::Opening => Step::Wait(self.deadline()),
            Phase::Flowing => self.poll_data(now),
        }
    }

    fn poll_data(&self, now: Instant) -> Step {
        if let Some(Range { start: first, end }) = self.probe.clone() {
            return Step::Data { first, end };
        }
        if self.window_is_sent() || !self.may_open() {
            return Step::Wait(self.deadline());
        }
        if now < self.burst_from {
            return Step::Wait(self.burst_from.min(self.deadline()));
        }
        Step::Data {
            first: self.next,
            end: self.window_end().min(self.next + self.burst_left),
        }
    }

    /// What opens a transfer goes out a bounded number of times.
    fn may_open(&self) -> bool {
        self.proven || self.opening.may_be_sent()
    }

    fn deadline(&self) -> Instant {
        self.progress.deadline(&self.timer)
    }

    fn expire(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        let (timer, blocks) = (&mut self.timer, self.acked);
        match self.progress.expire(timer, blocks, self.proven, now) {
            Ok(Expiry::Nothing | Expiry::Exhausted) => {}
            Err(outcome) => self.phase = Phase::Done(outcome),
            Ok(Expiry::Resend) if self.phase == Phase::Opening => {
                self.opening_due = self.may_open()
            }
            Ok(Expiry::Resend) => {
                self.echo.suspected = false;
                if self.window_is_sent() {
                    self.torn += 1;
                    if self.timer.resends() > 1 {
                        self.pace.unanswered();
                    }
                }
                self.resend_into_silence(now);
            }
            Ok(Expiry::Probe(count)) => {
                self.echo.suspected = false;
                self.recovery.eager = 0;
                self.probe(count, now);
            }
        }
    }

    /// Lock step: the block. A window: first its last block, which completes the window, or makes
    /// its receiver say where it stands. Then the window, again and again, and at once where the
    /// last block brings nothing.
    fn probe(&mut self, count: u32, now: Instant) {
        let recovery = &mut self.recovery;
        let is_heard = !recovery.reported && recovery.unheard < TAILS_UNHEARD;
        // A window takes longer to pass than an opening, on a slow line: until one was measured, it
        // is not doubled.
        let is_tail = !self.timer.has_sample() || (count == 1 && is_heard);
        if self.window == 1 || is_tail {
            recovery.tail = true;
            self.probe = Some(self.next - 1..self.next);
            return;
        }
        recovery.windows += 1;
        if recovery.windows > 2 {
            self.pace.unanswered();
        }
        if self.resend_into_silence(now) {
            self.recovery.is_probe = true;
            self.recovery.tails = 1;
        }
    }

    /// Sends again what was sent and not acknowledged, as much of it as may go into silence. True
    /// if that is all of it.
    fn resend_into_silence(&mut self, now: Instant) -> bool {
        let first = self.acked + 1;
        let sent = self.next.saturating_sub(first);
        let may_go = self.silence.take(sent);
        if may_go >= sent {
            self.restart_window(now);
            return true;
        }
        self.probe = Some(first..first + may_go);
        false
    }

    /// What goes out behind a window that breaks a silence: its last block once more. A receiver
    /// whose own window began at a report that was lost has not come to its end, and says so when a
    /// block comes twice.
    ///
    /// If that brings nothing, the next window has the block beyond it behind it, twice. A receiver
    /// that has the whole window, and whose ACK and answer to a copy were both lost, is silent
    /// about all further copies: only a new block moves it. The windows behind that one have two
    /// such blocks, as the answer to the first may be lost like the others. They are more than was
    /// agreed, of a file whose end is known: nothing more has to be kept.
    fn tail(&self) -> Range<u64> {
        let beyond = self.window_end();
        let more = u64::from(self.recovery.windows.saturating_sub(1)).min(MOST_AHEAD);
        let end = self
            .last
            .map_or(beyond, |last| (beyond + more).min(last + 1));
        match end > beyond && self.window + more <= MAX_WINDOWSIZE.into() {
            true => beyond..end,
            false => self.next - 1..self.next,
        }
    }

    /// The opening datagram has left.
    pub fn opened(&mut self, now: Instant) {
        self.opening_due = false;
        self.opening.was_sent(now);
        self.retransmits += u64::from(self.opening.was_resent());
    }

    /// Of the blocks that `poll` offered, those before `end` have left.
    pub fn sent(&mut self, end: u64, now: Instant) {
        self.recovery.sent = now;
        if let Some(probe) = &mut self.probe {
            debug_assert!(end <= probe.end);
            self.retransmits += end.min(self.sent_end).saturating_sub(probe.start);
            probe.start = end;
            if end > self.sent_end {
                self.recovery.ahead += end - self.sent_end;
                self.sent_end = end;
                self.recovery.tails = 1;
            } else {
                self.resent_end = self.resent_end.max(end);
                if !self.recovery.is_probe {
                    self.echo.resent = Some(now);
                }
            }
            if probe.is_empty() {
                self.probe = None;
                self.window_was_sent(now);
            }
            return;
        }
        debug_assert!(self.next <= end && end <= self.window_end());
        let first = self.next;
        if !self.proven && first == 1 {
            self.opening.was_sent(now);
        }
        self.retransmits += end.min(self.sent_end).saturating_sub(first);
        if first < self.sent_end {
            self.resent_end = self.resent_end.max(end.min(self.sent_end));
            if first == self.acked + 1 {
                self.echo.resent = Some(now);
                self.recovery.restarted = Some(now);
            }
        }
        if end > self.sent_end {
            if self.sends.len() == REMEMBERED_BURSTS {
                self.sends.pop_front();
            }
            self.sends.push_back(Sent {
                blocks: first.max(self.sent_end)..end,
                at: now,
            });
            self.sent_end = end;
        }
        self.next = end;
        // Silence begins with the last block of a window that takes its time, unless the window
        // breaks a silence.
        if !self.recovery.is_probe {
            self.timer.restart_interval(now);
        }
        self.burst_left = self.burst_left.saturating_sub(end - first);
        if self.burst_left == 0 || self.window_is_sent() {
            self.burst_left = self.pace.burst();
            if self.burst_left < self.window {
                self.burst_from = now + self.pace.gap(self.timer.round_trip());
            }
        }
        if self.window_is_sent() {
            self.repeats.answered = now;
            self.window_was_sent(now);
        }
    }

    /// From now on an answer is due, unless something goes out behind the window.
    fn window_was_sent(&mut self, now: Instant) {
        if self.recovery.is_probe && self.recovery.tails > 0 {
            self.recovery.tails -= 1;
            self.probe = Some(self.tail());
        } else {
            self.timer.arm_probe(now);
        }
        if self.is_all_sent() {
            self.timer.await_end();
        }
    }

    /// True once the peer has acknowledged something.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The last block of the file has been sent, and with it all others.
    pub fn is_all_sent(&self) -> bool {
        self.last.is_some_and(|last| self.sent_end > last)
    }

    /// The last block that the peer has acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// How block numbers look on the wire.
    pub fn rollover(&self) -> Rollover {
        self.rollover
    }

    /// True where the peer has been silent for longer than a first probe takes: a repeated request
    /// is not a late copy then.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.silence(now) > self.timer.probe_interval().unwrap_or(self.timer.interval())
    }

    fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.timer.silent_from())
    }

    /// Blocks sent again, so far.
    pub fn retransmits(&self) -> u64 {
        self.retransmits
    }

    /// Blocks that the pace lets out at once.
    pub fn burst(&self) -> u64 {
        self.pace.burst()
    }

    /// When the peer was last told from silence: its last progress, or the beginning.
    pub fn moved(&self) -> Instant {
        self.timer.silent_from()
    }

    /// Windows of which a part was lost, so far.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Smoothed round trip, where one was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.timer.round_trip()
    }
}
