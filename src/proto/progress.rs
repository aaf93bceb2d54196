//! How long a peer is put up with: the same for one that sends and for one that receives.
//!
//! Silence is measured by the timer. This is also about a peer that says just enough to be kept, one ACK every few seconds, about
//! one whose port is closed, and about how long a transfer may take at all.

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
    /// Nobody listens at the peer's port since then.
    unreachable: Option<Instant>,
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
            unreachable: None,
        }
    }

    /// The peer has answered: its first period begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// ICMP said that nobody listens at the peer's port. A hint only: it may be old, or forged.
    pub(super) fn unreachable(&mut self, now: Instant) {
        self.unreachable.get_or_insert(now);
    }

    /// Something valid came all the same.
    pub(super) fn reachable(&mut self) {
        self.unreachable = None;
    }

    /// The next instant at which [`expire`](Self::expire) has something to say.
    pub(super) fn deadline(&self, timer: &Timer) -> Instant {
        let silence = match self.unreachable {
            None => timer.deadline(),
            Some(from) => from + timer.interval(),
        };
        let period = (self.least > 0).then(|| self.since + PROGRESS_PERIOD);
        period
            .into_iter()
            .chain(self.end)
            .fold(silence, Instant::min)
    }

    /// Looks at the clocks, and at how many `blocks` are through; says what is due, or how the transfer ends, which is never left
    /// to [`Expiry::Exhausted`]. Nothing is due while the port is closed.
    pub(super) fn expire(
        &mut self,
        timer: &mut Timer,
        blocks: u64,
        heard: bool,
        now: Instant,
    ) -> Result<Expiry, Outcome> {
        let answered = |outcome| if heard { outcome } else { Outcome::Unanswered };
        if let Some(outcome) = self.expire_period(blocks, now) {
            return Err(answered(outcome));
        }
        if let Some(from) = self.unreachable {
            return match now < from + timer.interval() {
                true => Ok(Expiry::Nothing),
                false => Err(Outcome::Unreachable),
            };
        }
        match timer.expire(now) {
            Expiry::Exhausted => Err(answered(Outcome::Silent)),
            due => Ok(due),
        }
    }

    /// A period has the same length for every peer: nothing that a peer asks for, and no request that it repeats, makes it
    /// longer. With an agreed interval of more than a period one lost block may be the end.
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
