//! One transfer as a value: machine, body and link, run by the thread that holds it.
//!
//! [`Transfer::run`] is the one blocking loop. It does what the machine says, until the transfer is
//! over, the peer is quiet, or it has had its turn; then the value can be put aside, watched by
//! somebody else, and run again by any thread.

mod body;
#[cfg(test)]
mod cost;
mod dial;
mod ends;
mod link;
mod netascii;

pub(crate) use body::{Body, Buffers, Format, Scratch, Trouble};
pub(crate) use dial::{Answer, Dial, Dialed};
pub(crate) use ends::End;
pub(crate) use link::{Link, SocketOptions};

use self::link::{Readable, Taken, Wait};
use crate::error::{Cause, Refusal, TransferError};
use crate::event::{Event, Name, Summary, TransferId};
use crate::limits::{
    LOOP_TICK, MAX_ERROR_TEXT, PATIENCE, PROGRESS_INTERVAL, SLICE, SLICE_BYTES, STORE_DEADLINE,
};
use crate::proto::{Agreed, Outcome, Step};
use crate::sys;
use crate::wire::{self, Direction, ErrorCode, OptionName, Options, Packet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bursts of one long window that go out before the peer is listened to.
const BURSTS_UNHEARD: u32 = 4;
/// How long a full send buffer is waited for before the transfer is put aside.
const DRAIN: Duration = Duration::from_millis(2);

/// The first block whose number does not fit into 16 bits.
const ROLLOVER: u64 = 1 << 16;
/// A client that breaks off before it has acknowledged this many blocks wanted to know something,
/// and not the file.
const PROBED_BLOCKS: u64 = 2;

/// The clock. Read here and in the server's loop, nowhere below.
#[allow(clippy::disallowed_methods)] // floor 2 is where time is read and handed down
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What a peer is told when the server ends.
pub(crate) const STOPPING: &str = "server is stopping";
/// What a peer is told whose transfer somebody here ends.
pub(crate) const CANCELLED: &str = "transfer was cancelled";
/// What a server is told when its client is cancelled.
pub(crate) const GIVEN_UP: &str = "transfer given up";
/// The cause of a failed read where a source goes on to have nothing.
pub(crate) const NO_ANSWER: &str = "the source does not answer";
/// What a peer is told whose transfer has had all its time.
const TOO_LONG: &str = "transfer took too long";

/// Why `run` came back.
pub(crate) enum Turn {
    /// The transfer is over.
    Done(Ending),
    /// Nothing to do before this instant, unless a packet comes.
    Quiet(Instant),
    /// This one has had its turn; it may have another if nobody waits.
    SliceUsed,
}

/// How a transfer ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The last block was acknowledged.
    Completed,
    /// The peer found out what it wanted to know, and left.
    Probed,
    /// Anything else.
    Failed(TransferError),
}

/// How a transfer went, for whoever learns from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    /// When the request arrived.
    pub(crate) begun: Instant,
    /// When a block was acknowledged last.
    pub(crate) moved: Instant,
    pub(crate) outset: Outset,
    /// It did not come to its end, and not because the server stopped.
    pub(crate) failed: bool,
    /// The client ended it with an ERROR.
    pub(crate) aborted: bool,
    pub(crate) blksize: u16,
    pub(crate) windowsize: u16,
    /// Blocks that were acknowledged.
    pub(crate) blocks: u64,
    /// Windows that came back torn, and how many blocks the pace let out at once in the end.
    pub(crate) lossy_windows: u64,
    pub(crate) burst: u16,
    pub(crate) retransmits: u64,
}

/// What became of the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outset {
    /// None were granted, or the OACK was never answered.
    Plain,
    /// The OACK was acknowledged.
    Agreed,
    /// The OACK was answered by an ERROR, and not because only the size was asked for.
    Refused,
}

/// What a transfer asks of the world around it, before it waits and between bursts.
pub(crate) trait Surroundings {
    /// Other transfers wait for this thread.
    fn others_wait(&self) -> bool;
    /// Nobody else is free: what comes next would have to wait for this thread.
    fn is_needed(&self) -> bool {
        false
    }
    /// From now on this thread only waits for the peer, or does so no more: meanwhile it takes no
    /// other work.
    fn listens(&self, _listens: bool) {}
    /// The server ends, or the client is cancelled: tell the peer and go.
    fn is_stopping(&self) -> bool;
    /// What the peer is told then.
    fn farewell(&self) -> &'static str {
        STOPPING
    }
    /// How long a source may have no more bytes before the transfer fails.
    fn source_deadline(&self) -> Duration {
        STORE_DEADLINE
    }
    /// Whether one more ERROR may go to peers that have never answered: their addresses may be
    /// forged.
    fn may_refuse(&self) -> bool {
        true
    }
    /// The file of this upload is stored, and its last ACK is about to be sent. The peer may send
    /// its next request as soon as it has that ACK.
    fn completes(&self, _id: TransferId) {}
    /// This thread serves this transfer only, and its caller waits for the end.
    fn is_dedicated(&self) -> bool {
        false
    }
}

/// Who asked for what.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) id: TransferId,
    pub(crate) name: Name,
    pub(crate) direction: Direction,
    /// The options asked for.
    pub(crate) asked: Options,
    pub(crate) arrived: Instant,
}

/// A running transfer: it sends or receives, for a server that was asked or for a client whose
/// [`Dial`] was answered.
pub(crate) struct Exchange<'a> {
    origin: Origin,
    end: End<'a>,
    link: Link,
    local: SocketAddr,
    agreed: Agreed,
    /// The OACK, or the ACK of a WRQ without options; empty where DATA opens, and at a client.
    opening: Box<[u8]>,
    /// One past the highest block that was sent or acknowledged, and when that or the opening went
    /// out first.
    told_end: u64,
    answered: Instant,
    /// When its progress was reported last.
    reported: Instant,
    /// When the file was whole.
    completed: Option<Instant>,
    /// Its end was told.
    is_concluded: bool,
    /// What the last ERROR of the peer said.
    peer_text: Option<Name>,
    /// The block that its source does not have, or behind which its sink takes no more, and since
    /// when.
    pending: Option<(u64, Instant)>,
    /// The last error of the network, until the peer is heard again.
    network: Option<Cause>,
    /// It has run before, and was put aside.
    rested: bool,
    /// The peer has said something since it was quiet last.
    is_talking: bool,
}

/// A transfer that owns all it needs.
pub(crate) type Transfer = Exchange<'static>;

impl<'a> Exchange<'a> {
    /// A request was granted. With an `opening` datagram the machine waits for its answer.
    pub(crate) fn new(
        origin: Origin,
        end: End<'a>,
        mut link: Link,
        local: SocketAddr,
        agreed: Agreed,
        opening: Vec<u8>,
    ) -> Self {
        link.tell_strangers(to_stranger);
        if matches!(end, End::Receiving(_)) && agreed.windowsize > 1 {
            link.expect_windows(agreed.blksize, agreed.windowsize);
        }
        Self {
            origin,
            end,
            link,
            local,
            agreed,
            opening: opening.into(),
            told_end: 1,
            answered: now(),
            reported: now(),
            completed: None,
            is_concluded: false,
            peer_text: None,
            pending: None,
            network: None,
            rested: false,
            is_talking: false,
        }
    }

    /// Runs until there is a reason to stop. Waits for a quiet peer only while nobody else waits,
    /// and not for long.
    pub(crate) fn run(&mut self, scratch: &mut Scratch, around: &impl Surroundings) -> Turn {
        let turn = self.turn(scratch, around).unwrap_or_else(Turn::Done);
        self.rested = true;
        match turn {
            Turn::Done(_) => self.end.discard(),
            Turn::Quiet(_) => self.is_talking = false,
            Turn::SliceUsed => {}
        }
        turn
    }

    fn turn(&mut self, scratch: &mut Scratch, around: &impl Surroundings) -> Result<Turn, Ending> {
        let mut unheard = 0;
        let told_before = self.told_end;
        let stored_before = self.end.octets();
        let mut bytes_sent = 0;
        let mut came = None;
        if self.rested {
            // The peer has had time. Where many transfers wait for their turn a deadline may be
            // over although the answer is here.
            let has_waited = self.end.waits_for_sink();
            match self.wait_for_sink(around)? {
                Some(until) if !around.is_stopping() => return Ok(Turn::Quiet(until)),
                Some(_) => {}
                None => came = self.take(scratch, Wait::No)?,
            }
            // What the peer has repeated meanwhile is answered once.
            while has_waited
                && self.wait_for_sink(around)?.is_none()
                && self.take(scratch, Wait::No)?.is_some()
            {}
            self.is_talking |= came.is_some();
        }
        let start = came.unwrap_or_else(now);
        let mut time = start;
        loop {
            if around.is_stopping() {
                if self.is_complete() {
                    return Err(Ending::Completed);
                }
                self.leave(around.farewell(), || around.may_refuse());
                return Err(Ending::Failed(TransferError::Stopped));
            }
            if let Some(until) = self.wait_for_file(around)? {
                return Ok(Turn::Quiet(until));
            }
            let step = self.end.poll(time);
            if !matches!(step, Step::Wait(_) | Step::Done(_)) {
                log::trace!("send id={} {step:?}", self.origin.id);
            }
            match step {
                Step::Open => match self.link.send(&self.opening) {
                    Ok(true) => self.end.opened(time),
                    Ok(false) => return Ok(Turn::Quiet(time + DRAIN)),
                    Err(error) => {
                        self.lost(error, time);
                        self.end.opened(time);
                    }
                },
                Step::Data { .. } if bytes_sent >= SLICE_BYTES && around.others_wait() => {
                    return Ok(Turn::SliceUsed);
                }
                Step::Data { first, end } => {
                    let End::Sending(sending) = &mut self.end else {
                        unreachable!("a receiver sends no {step:?}")
                    };
                    let burst = first..end.min(first + sending.burst());
                    let mut is_cut = false;
                    match sending.send(&mut self.link, burst.clone(), scratch, time) {
                        Ok(sent_end) => {
                            is_cut = sent_end < burst.end;
                            bytes_sent += (sent_end - first) * u64::from(self.agreed.blksize);
                            self.told(sent_end, time);
                            if sent_end == first && (around.others_wait() || !self.drained()) {
                                return Ok(Turn::Quiet(time + DRAIN));
                            }
                        }
                        Err(Trouble::Network(error)) if !sys::is_too_long(&error) => {
                            // Said only if it never gets better.
                            self.lost(error, time);
                        }
                        // What the peer has said comes first: it may have broken off.
                        Err(Trouble::Pending) => match self.take(scratch, Wait::No)? {
                            Some(came) => time = came,
                            None => return self.wait_for_store(first, around).map(Turn::Quiet),
                        },
                        Err(trouble) => return Err(Ending::Failed(self.broken(trouble, around))),
                    }
                    // A receiver with a hole says so while the rest of a long window is still going
                    // out, or cannot.
                    unheard += u32::from(burst.end < end);
                    if is_cut || unheard == BURSTS_UNHEARD {
                        unheard = 0;
                        time = self.take(scratch, Wait::No)?.unwrap_or_else(now);
                    }
                }
                Step::Ack(_) | Step::Error(..) => {
                    if self.completed.is_none() && self.is_complete() {
                        around.completes(self.origin.id);
                    }
                    if !self.reply(step, time) {
                        return Ok(Turn::Quiet(time + DRAIN));
                    }
                    if around.is_dedicated() && self.may_leave() {
                        return Err(Ending::Completed);
                    }
                    let stored = self.end.octets() - stored_before;
                    if stored >= SLICE_BYTES && around.others_wait() {
                        return Ok(Turn::SliceUsed);
                    }
                }
                Step::Wait(until) => {
                    if let Some(until) = self.wait_for_sink(around)? {
                        return Ok(Turn::Quiet(until));
                    }
                    let left = until.saturating_duration_since(time);
                    let others_wait = around.others_wait();
                    // In lock step the answer to a new block cannot be here yet. What else may be
                    // here is older than it.
                    let has_news = self.told_end > told_before && self.agreed.windowsize == 1;
                    if others_wait && has_news && !self.link.has_strangers() {
                        return Ok(Turn::Quiet(until));
                    }
                    let wait = if others_wait || !self.is_expected(left, around) {
                        Wait::No
                    } else if left < PATIENCE {
                        Wait::Until(left)
                    } else {
                        Wait::Patience
                    };
                    unheard = 0;
                    around.listens(wait != Wait::No);
                    let came = self.take(scratch, wait);
                    around.listens(false);
                    let came = came?;
                    self.is_talking |= came.is_some();
                    time = came.unwrap_or_else(now);
                    if came.is_none() && time < until {
                        return Ok(Turn::Quiet(until));
                    }
                }
                Step::Done(outcome) => return Err(self.ending(outcome, around)),
            }
            if time - start > SLICE {
                return Ok(Turn::SliceUsed);
            }
        }
    }

    /// Its source does not have this block, or its sink does not take more behind it. The transfer
    /// waits without a thread until its waker is called, but not for ever.
    fn wait_for_store(
        &mut self,
        block: u64,
        around: &impl Surroundings,
    ) -> Result<Instant, Ending> {
        let time = now();
        let since = match self.pending {
            Some((missing, since)) if missing == block => since,
            _ => time,
        };
        self.pending = Some((block, since));
        let until = since + around.source_deadline();
        if time >= until {
            return Err(match &self.end {
                End::Sending(_) => Ending::Failed(self.broken(Trouble::Pending, around)),
                End::Receiving(_) => {
                    let refusal = Refusal::new(ErrorCode::NOT_DEFINED, "write error");
                    self.refused(refusal.because("the sink does not answer"))
                }
            });
        }
        let over = self.end.stalled(time);
        Ok(over.map_or(until, |over| over.min(until)))
    }

    /// Until when its sink takes no bytes, unless its waker is called.
    fn wait_for_sink(&mut self, around: &impl Surroundings) -> Result<Option<Instant>, Ending> {
        let End::Receiving(receiving) = &mut self.end else {
            return Ok(None);
        };
        let is_ready = receiving.is_ready();
        self.wait_unless(is_ready, around)
    }

    /// The same for a whole file that the sink has not stored yet.
    fn wait_for_file(&mut self, around: &impl Surroundings) -> Result<Option<Instant>, Ending> {
        let End::Receiving(receiving) = &mut self.end else {
            return Ok(None);
        };
        let is_stored = receiving.finish();
        self.wait_unless(is_stored, around)
    }

    fn wait_unless(
        &mut self,
        is_done: Result<bool, Refusal>,
        around: &impl Surroundings,
    ) -> Result<Option<Instant>, Ending> {
        match is_done {
            Ok(true) => Ok(None),
            Ok(false) => self.wait_for_store(self.end.blocks(), around).map(Some),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// The sink has refused.
    fn refused(&mut self, refusal: Refusal) -> Ending {
        // Gone before the peer hears of it, who may want to use the room.
        self.end.discard();
        self.tell(refusal.code(), refusal.text());
        Ending::Failed(TransferError::Store(refusal))
    }

    /// Whether this thread should wait for the peer, who may answer at once, or for the rest of a
    /// pause that is too short for the loop's clock. It should not for those that are silent, of
    /// whom there may be thousands: while threads wait for them, those that talk wait for a thread.
    fn is_expected(&self, left: Duration, around: &impl Surroundings) -> bool {
        // The place of a complete upload goes to other requests.
        if !around.is_dedicated() && self.is_complete() {
            return false;
        }
        if self.is_talking || around.is_dedicated() {
            left < LOOP_TICK || self.end.round_trip().is_none_or(|rtt| rtt < PATIENCE)
        } else {
            !self.rested && !around.is_needed()
        }
    }

    /// Sends what a receiver says. False if the send buffer is full.
    fn reply(&mut self, step: Step, time: Instant) -> bool {
        let End::Receiving(receiving) = &mut self.end else {
            unreachable!("a sender sends no {step:?}")
        };
        match step {
            Step::Ack(block) => {
                let sent = self.link.send(&receiving.ack(block));
                if let Ok(false) = sent {
                    return false;
                }
                receiving.sent(time);
                self.told(block + 1, time);
                if let Err(error) = sent {
                    self.lost(error, time);
                }
                if self.end.is_complete() {
                    self.completed.get_or_insert(time);
                }
            }
            Step::Error(code, text) => {
                receiving.sent(time);
                self.tell(code, text);
            }
            _ => unreachable!("{step:?} is no reply"),
        }
        true
    }

    /// A client that has lost nothing does not dally (RFC 1350 §6 encourages it): its last ACK will
    /// not be lost either, and somebody waits for it to end.
    fn may_leave(&self) -> bool {
        self.end.is_complete() && self.end.retransmits() == 0 && self.end.lossy_windows() == 0
    }

    fn told(&mut self, end: u64, time: Instant) {
        if end > self.told_end {
            (self.told_end, self.answered) = (end, time);
        }
    }

    /// Takes what has come and hands it to the machine; says when, or `None` if nothing came. Fails
    /// where that ends it.
    fn take(&mut self, scratch: &mut Scratch, wait: Wait) -> Result<Option<Instant>, Ending> {
        let End::Receiving(_) = &self.end else {
            return Ok(self.take_short(wait));
        };
        let Some(taken) = self.link.recv_blocks(&mut scratch.0, wait).transpose() else {
            return Ok(None);
        };
        let time = now();
        match taken {
            Ok(taken) => {
                self.network = None;
                self.take_blocks(&taken, scratch, time)?;
            }
            Err(error) => self.lost(error, time),
        }
        Ok(Some(time))
    }

    /// A sender is answered by ACK and ERROR only; what is longer is cut and means nothing to it.
    fn take_short(&mut self, wait: Wait) -> Option<Instant> {
        let mut buffer = [0; 4 + MAX_ERROR_TEXT + 1];
        let received = self.link.recv(&mut buffer, wait).transpose()?;
        let time = now();
        match received {
            Ok(length) => {
                self.network = None;
                if let Ok(packet) = wire::parse(&buffer[..length.min(buffer.len())]) {
                    hear(&self.origin, &mut self.peer_text, &packet);
                    self.end.handle(&packet, time);
                }
            }
            Err(error) => self.lost(error, time),
        }
        Some(time)
    }

    fn take_blocks(
        &mut self,
        taken: &Taken,
        scratch: &mut Scratch,
        time: Instant,
    ) -> Result<(), Ending> {
        let End::Receiving(receiving) = &mut self.end else {
            return Ok(());
        };
        let length = taken.length.min(scratch.0.len());
        let (origin, text) = (&self.origin, &mut self.peer_text);
        let hear = |packet: &Packet<'_>| hear(origin, text, packet);
        receiving
            .take(&mut scratch.0[..length], taken.segment, time, hear)
            .map_err(|refusal| self.refused(refusal))
    }

    /// Waits a little for a full send buffer: the network is slower than we are. False if nothing
    /// moved.
    fn drained(&self) -> bool {
        self.link
            .wait(true, true, DRAIN)
            .is_ok_and(|ready| ready.readable || ready.writable)
    }

    /// A send or receive failed. `ConnectionRefused` is ICMP's hint that the port is closed;
    /// anything else is remembered.
    fn lost(&mut self, error: io::Error, time: Instant) {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.end.unreachable(time);
        } else {
            self.network = Some(error.into());
        }
    }

    /// The source failed; the peer is told once.
    fn broken(&mut self, trouble: Trouble, around: &impl Surroundings) -> TransferError {
        let (text, failure) = match trouble {
            Trouble::Changed => (
                "file changed during the transfer",
                TransferError::FileChanged,
            ),
            Trouble::Read(cause) => ("read error", TransferError::Read(cause.into())),
            Trouble::Pending => ("read error", TransferError::Read(NO_ANSWER.into())),
            Trouble::Network(error) => ("network error", TransferError::Network(error.into())),
        };
        self.leave(text, || around.may_refuse());
        failure
    }

    fn ending(&mut self, outcome: Outcome, around: &impl Surroundings) -> Ending {
        Ending::Failed(match outcome {
            Outcome::Complete => return Ending::Completed,
            Outcome::Aborted {
                code: code @ ErrorCode(0 | 8),
                at_opening,
            } if self.is_probe(at_opening) => {
                let text = self.peer_text.take().unwrap_or_else(|| Name::new(b""));
                log::debug!("probe id={} error={} text={text}", self.origin.id, code.0);
                return Ending::Probed;
            }
            Outcome::Aborted { code, .. } => TransferError::Aborted {
                code,
                text: self.peer_text.take().unwrap_or_else(|| Name::new(b"")),
            },
            Outcome::Silent | Outcome::Unreachable if self.stands_at_rollover() => {
                TransferError::SilentAtRollover
            }
            Outcome::Silent | Outcome::Unreachable if self.awaits_the_last_ack() => {
                TransferError::Unconfirmed
            }
            Outcome::Silent => self
                .network
                .take()
                .map_or(TransferError::Silent, TransferError::Network),
            Outcome::Unanswered => {
                let network = self.network.take();
                network.map_or(TransferError::Unanswered, TransferError::Network)
            }
            Outcome::Unreachable => TransferError::Unreachable,
            Outcome::Protocol(what) => TransferError::Protocol(what),
            Outcome::TooSlow => {
                self.leave("transfer is too slow", || around.may_refuse());
                TransferError::TooSlow
            }
            Outcome::TooLong => {
                self.leave(TOO_LONG, || around.may_refuse());
                TransferError::TooLong
            }
        })
    }

    /// All of an upload is under way, and nothing is missing but the ACK of its last block or
    /// window.
    fn awaits_the_last_ack(&self) -> bool {
        match &self.end {
            End::Sending(sending) => self.is_upload() && sending.machine().is_all_sent(),
            End::Receiving(_) => false,
        }
    }

    /// The end that sends is a client's where the request was a WRQ.
    fn is_upload(&self) -> bool {
        self.origin.direction == Direction::Write
    }

    /// True where the next acknowledgement would need a block number above 65535.
    fn stands_at_rollover(&self) -> bool {
        let passed = self.end.blocks();
        passed < ROLLOVER && passed + u64::from(self.agreed.windowsize) >= ROLLOVER
    }

    /// Whether a client that breaks off with ERROR 0 or 8 has learned what it asked for. UEFI
    /// firmware asks for the size and refuses the OACK that holds it; an OACK without a size that
    /// is refused is a client that cannot use options. Programs that find out what a server can do
    /// take a window and leave: fewer than two blocks are acknowledged then.
    fn is_probe(&self, at_opening: bool) -> bool {
        match &self.end {
            End::Sending(_) if self.is_upload() => false,
            End::Sending(_) if at_opening => self.origin.asked.is_present(OptionName::Tsize),
            End::Sending(sending) => sending.machine().acked() < PROBED_BLOCKS,
            End::Receiving(_) => false,
        }
    }

    /// How it went, where this end has sent the file.
    pub(crate) fn course(&self, ending: &Ending) -> Option<Course> {
        let End::Sending(sending) = &self.end else {
            return None;
        };
        // Whether the client's ERROR may be about the options.
        let aborted = match ending {
            Ending::Failed(TransferError::Aborted { code, .. }) => {
                Some(matches!(code.0, 0 | 4 | 8))
            }
            _ => None,
        };
        let outset = if self.opening.is_empty() {
            Outset::Plain
        } else if self.is_proven() {
            Outset::Agreed
        } else if aborted == Some(true) && !self.is_probe(true) {
            Outset::Refused
        } else {
            Outset::Plain
        };
        let machine = sending.machine();
        Some(Course {
            begun: self.origin.arrived,
            moved: machine.moved(),
            outset,
            failed: !matches!(
                ending,
                Ending::Completed | Ending::Failed(TransferError::Stopped)
            ),
            aborted: aborted.is_some() || matches!(ending, Ending::Probed),
            blksize: self.agreed.blksize,
            windowsize: self.agreed.windowsize,
            blocks: machine.acked(),
            lossy_windows: machine.lossy_windows(),
            burst: u16::try_from(machine.burst()).unwrap_or(u16::MAX),
            retransmits: machine.retransmits(),
        })
    }

    /// The options that its request asked for.
    pub(crate) fn asked(&self) -> &Options {
        &self.origin.asked
    }

    /// Sends an ERROR, once: it is never acknowledged and never repeated (RFC 1350 §2).
    fn tell(&self, code: ErrorCode, text: &str) {
        tell(&self.link, code, text);
    }

    /// Tells the peer why this ends, which is not for anything that it has just sent. One that has
    /// never answered is told only if that may be.
    pub(crate) fn leave(&self, text: &str, may_refuse: impl FnOnce() -> bool) {
        if self.is_proven() || may_refuse() {
            self.tell(ErrorCode::NOT_DEFINED, text);
        }
    }

    /// The peer has sent the same request again before it ever answered. False where that brings
    /// nothing.
    pub(crate) fn request_repeated(&mut self) -> bool {
        self.end.request_repeated(now())
    }

    /// True once the peer has acknowledged something, or has sent DATA.
    pub(crate) fn is_proven(&self) -> bool {
        self.end.is_proven()
    }

    /// When something went out last that the peer had not been sent before: what it asked for
    /// earlier, it asked for without knowing that.
    pub(crate) fn answered(&self) -> Instant {
        self.answered
    }

    /// When its peer moved on last, and how many windows it has got through by then.
    pub(crate) fn moved(&self) -> (Instant, u64) {
        let (moved, blocks) = self.end.moved(now());
        (
            moved,
            blocks.div_ceil(u64::from(self.agreed.windowsize.max(1))),
        )
    }

    /// True where the peer has said nothing for so long that a repeated request is not a late copy.
    pub(crate) fn is_silent(&self) -> bool {
        self.end.is_silent(now())
    }

    /// True once the whole file is stored and acknowledged. Its last ACK is repeated on demand for
    /// a while.
    pub(crate) fn is_complete(&self) -> bool {
        self.end.is_complete()
    }

    /// What was to be sent, for another attempt.
    pub(crate) fn into_body(self) -> Option<Body> {
        self.end.into_body()
    }

    /// What both ends go by.
    #[cfg(test)]
    pub(crate) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// True where a datagram waits that was not looked at. One that waits for the sink was left
    /// there.
    pub(crate) fn has_mail(&self) -> bool {
        !self.end.waits_for_sink() && self.mail_until(now())
    }

    /// Waits for a datagram; true where there is one. For whoever runs one transfer only.
    pub(crate) fn mail_until(&self, until: Instant) -> bool {
        self.link
            .wait(true, false, until.saturating_duration_since(now()))
            .is_ok_and(|ready| ready.readable)
    }

    /// What a poller watches for it.
    pub(crate) fn readable(&self) -> Readable<'_> {
        self.link.readable()
    }

    pub(crate) fn id(&self) -> TransferId {
        self.origin.id
    }

    /// True the first time: of several ends that are found, as when an upload that is complete goes
    /// on to repeat its last ACK, one is told.
    pub(crate) fn conclude(&mut self) -> bool {
        !std::mem::replace(&mut self.is_concluded, true)
    }

    /// How far it is, if that was not said for a while.
    pub(crate) fn progress(&mut self) -> Option<Event> {
        let time = now();
        if self.is_concluded || time < self.reported + PROGRESS_INTERVAL {
            return None;
        }
        self.reported = time;
        Some(Event::Progress {
            id: self.origin.id,
            bytes: self.end.octets(),
        })
    }

    /// What there is to say about it.
    pub(crate) fn summary(&self) -> Summary {
        let end = self.completed.unwrap_or_else(now);
        summary_of(
            &self.origin,
            &self.end,
            &self.link,
            self.local,
            &self.agreed,
            end,
        )
    }
}

fn summary_of(
    origin: &Origin,
    end: &End<'_>,
    link: &Link,
    local: SocketAddr,
    agreed: &Agreed,
    until: Instant,
) -> Summary {
    Summary {
        id: origin.id,
        peer: link.peer(),
        local,
        direction: origin.direction,
        name: origin.name.clone(),
        bytes: end.octets(),
        duration: until.saturating_duration_since(origin.arrived),
        retransmits: end.retransmits(),
        lossy_windows: end.lossy_windows(),
        blksize: agreed.blksize,
        windowsize: agreed.windowsize,
        rtt: end.round_trip(),
    }
}

fn hear(origin: &Origin, text: &mut Option<Name>, packet: &Packet<'_>) {
    match packet {
        Packet::Data { block, payload } => {
            log::trace!(
                "got id={} Data({block}, {} octets)",
                origin.id,
                payload.len()
            );
        }
        _ => log::trace!("got id={} {packet:?}", origin.id),
    }
    if let Packet::Error { message, .. } = packet {
        *text = Some(Name::new(message));
    }
}

/// Sends an ERROR. Nothing can be done if it does not leave.
pub(crate) fn tell(link: &Link, code: ErrorCode, text: &str) {
    let _ = link.send(&error(code, text));
}

fn error(code: ErrorCode, text: &str) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(5 + text.len());
    wire::emit_error(code, text, &mut datagram);
    datagram
}

/// What somebody is told who is not the peer, beside the transfer (RFC 1350 §4). Only an answer to
/// what belongs into a transfer: never to an ERROR (§2), nor to nonsense.
fn to_stranger(datagram: &[u8]) -> Option<Vec<u8>> {
    match wire::parse(datagram) {
        Ok(Packet::Data { .. } | Packet::Ack { .. } | Packet::OptionAck(_)) => {
            Some(error(ErrorCode::UNKNOWN_TID, "unknown transfer ID"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
