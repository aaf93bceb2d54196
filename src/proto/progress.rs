//! Decides when to give up on a slow, silent or unreachable peer. Shared by `Sender` and
//! `Receiver`.
//!
//! The timer measures silence. This module adds the least progress of a period, the longest time of
//! a transfer, and what ICMP says. An ICMP message names the reason of a silence and never ends it:
//! a board that starts answers "port unreachable" until its loader listens, and a client without a
//! socket causes one message for each block that it takes.

use super::timer::{Expiry, Timer};
use super::{Outcome, Policy};
use crate::limits::{PROGRESS_BLOCK_OCTETS, PROGRESS_PERIOD};
use std::time::Instant;

/// The blocks of a period, the end of the transfer's time, and what ICMP said.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Blocks that a period must bring; 0 asks for none.
    least: u64,
    since: Instant,
    /// Blocks there were then.
    blocks: u64,
    end: Option<Instant>,
    /// ICMP said that the peer's port is closed, and nothing valid came since.
    is_unreachable: bool,
}

impl Progress {
    pub(super) fn new(policy: &Policy, blksize: u16, now: Instant) -> Self {
        let blocks = u64::from(policy.min_progress);
        // Large blocks count for more: the same number of them in a minute would be no slow peer.
        let in_octets = (blocks * PROGRESS_BLOCK_OCTETS).div_ceil(u64::from(blksize.max(1)));
        Self {
            least: blocks.min(in_octets),
            since: now,
            blocks: 0,
            end: policy.max_time.and_then(|most| now.checked_add(most)),
            is_unreachable: false,
        }
    }

    /// The peer has answered: its first period begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// ICMP said that the peer's port is closed. The message may be old, or forged.
    pub(super) fn unreachable(&mut self) {
        self.is_unreachable = true;
    }

    /// Something valid came all the same.
    pub(super) fn reachable(&mut self) {
        self.is_unreachable = false;
    }

    /// The next instant at which [`expire`](Self::expire) has something to say.
    pub(super) fn deadline(&self, timer: &Timer) -> Instant {
        let period = (self.least > 0).then(|| self.since + PROGRESS_PERIOD);
        period
            .into_iter()
            .chain(self.end)
            .fold(timer.deadline(), Instant::min)
    }

    /// Looks at the clocks, and at how many `blocks` are through; says what is due, or how the
    /// transfer ends, which is never left to [`Expiry::Exhausted`]. A closed port gets what the
    /// interval brings, and no probes before.
    pub(super) fn expire(
        &mut self,
        timer: &mut Timer,
        blocks: u64,
        heard: bool,
        now: Instant,
    ) -> Result<Expiry, Outcome> {
        let silent = match (self.is_unreachable, heard) {
            (true, _) => Outcome::Unreachable,
            (false, true) => Outcome::Silent,
            (false, false) => Outcome::Unanswered,
        };
        if let Some(outcome) = self.expire_period(blocks, now) {
            return Err(if heard { outcome } else { silent });
        }
        match timer.expire(now) {
            Expiry::Exhausted => Err(silent),
            Expiry::Probe(_) if self.is_unreachable => Ok(Expiry::Nothing),
            due => Ok(due),
        }
    }

    /// A period has the same length for every peer: nothing that a peer asks for, and no request
    /// that it repeats, makes it longer. With an agreed interval of more than a period one lost
    /// block may be the end.
    fn expire_period(&mut self, blocks: u64, now: Instant) -> Option<Outcome> {
        if self.end.is_some_and(|end| now >= end) {
            return Some(Outcome::TooLong);
        }
        if self.least == 0 || now < self.since + PROGRESS_PERIOD {
            return None;
        }
        if blocks - self.blocks < self.least {
            return Some(Outcome::TooSlow);
        }
        (self.since, self.blocks) = (now, blocks);
        None
    }
}
