//! The protocol as two pure machines: [`Sender`] holds the data, [`Receiver`] stores it.
//!
//! # The contract
//! Packets and instants go in, [`Step`]s come out. A machine counts blocks and never sees a socket,
//! a clock, a thread or an octet of the file, so both serve every role (server and client, RRQ and
//! WRQ), the simulator and the fuzzer.
//!
//! 1. Hand a packet that came from the right TID to `handle`.
//! 2. Then call `poll` and do what it says, until it says [`Step::Wait`] or [`Step::Done`].
//! 3. Poll again when the instant of `Wait` has come, or earlier: an early poll does nothing.
//!
//! A step that sends is an offer, repeated by `poll` until it is confirmed with `sent`. So a full
//! send buffer loses nothing: confirm what left, wait, poll again.

mod block;
mod negotiate;
mod opening;
mod pace;
mod progress;
mod receiver;
mod sender;
mod timer;

pub use block::Rollover;
pub use negotiate::{Agreed, Terms, accept, grant};
pub use receiver::{Receiver, Verdict};
pub use sender::Sender;

use crate::limits;
use crate::wire::ErrorCode;
use std::time::{Duration, Instant};

/// What a machine wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the opening datagram, first or again: OACK or ACK 0 for a server, the request for a
    /// client.
    Open,
    /// Send the blocks from `first` up to, not including, `end`.
    Data {
        /// First block.
        first: u64,
        /// One past the last block.
        end: u64,
    },
    /// Send an ACK of this block.
    Ack(u64),
    /// Send this ERROR once; `Done` follows whether it left or not.
    Error(ErrorCode, &'static str),
    /// Nothing to do before this instant, unless a packet comes.
    Wait(Instant),
    /// The transfer is over.
    Done(Outcome),
}

/// How a transfer ended, as far as the protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The last block was acknowledged.
    Complete,
    /// The peer was silent through all retransmissions.
    Silent,
    /// The peer never answered at all.
    Unanswered,
    /// Silence through all retransmissions, and ICMP said that the peer's port is closed.
    Unreachable,
    /// The peer sent an ERROR.
    Aborted {
        /// Its code.
        code: ErrorCode,
        /// True where it answered the OACK: with code 8 or 0 a size probe, no failure.
        at_opening: bool,
    },
    /// The peer broke the protocol; it was told so.
    Protocol(&'static str),
    /// The peer said too little for too long. It is still to be told.
    TooSlow,
    /// The transfer has had all its time. The peer is still to be told.
    TooLong,
}

/// When to send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Retransmit {
    /// Probe on the measured round trip; the agreed interval is the upper bound.
    #[default]
    Adaptive,
    /// Only when the interval of RFC 2349 has passed, to the letter.
    Rfc,
}

/// The local settings of one transfer.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Retransmission interval where the peer asked for none.
    pub timeout: Duration,
    /// Resends in one silence before the transfer ends.
    pub retries: u32,
    /// Whether to probe earlier.
    pub retransmit: Retransmit,
    /// Earliest probe; a sender that has seen losses halves it.
    pub probe_floor: Duration,
    /// Sends of the opening datagram to a peer that has not answered; plain DATA 1 is sent
    /// [`limits::UNPROVEN_DATA_SENDS`] times at most.
    pub opening_sends: u32,
    /// Blocks that must get through in a minute, or 4 KiB for each; 0 asks for none, as a client
    /// does.
    pub min_progress: u32,
    /// The longest that a transfer may take; `None` for any time.
    pub max_time: Option<Duration>,
    /// The shortest silence behind the last block that ends the transfer of a sender, where
    /// `retries` would end it sooner: a receiver may write the whole file before it acknowledges
    /// that block.
    pub final_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout: limits::DEFAULT_TIMEOUT,
            retries: limits::DEFAULT_RETRIES,
            retransmit: Retransmit::Adaptive,
            probe_floor: limits::PROBE_FLOOR,
            opening_sends: limits::UNPROVEN_OACK_SENDS,
            min_progress: 0,
            max_time: None,
            final_timeout: Duration::ZERO,
        }
    }
}

impl Policy {
    /// How long silence lasts until so many `retries` are used up, where no interval is agreed and
    /// no round trip is known.
    pub fn patience(&self, retries: u32) -> Duration {
        let growth = |resends: u32| (1 << resends.min(16)).min(limits::TIMEOUT_GROWTH);
        self.timeout * (0..=retries).map(growth).sum()
    }
}
