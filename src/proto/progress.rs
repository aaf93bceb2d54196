//! How slow a peer may be, and how long a transfer may take at all.
//!
//! Silence is the timer's business. This is about a peer that says just enough to be kept: one ACK every few seconds.

use super::{Outcome, Policy};
use crate::limits::{PROGRESS_BLOCK_OCTETS, PROGRESS_PERIOD};
use std::time::{Duration, Instant};

/// The blocks of a period, and the end of the transfer's time.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Blocks that a period must bring; 0 asks for none.
    least: u64,
    since: Instant,
    /// Blocks there were then.
    blocks: u64,
    end: Option<Instant>,
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
        }
    }

    /// The peer has answered: its first period begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    /// How long a period is. Where a lost block comes again only after the agreed `interval`, one loss must not be the end.
    fn period(interval: Option<Duration>) -> Duration {
        interval.map_or(PROGRESS_PERIOD, |interval| {
            PROGRESS_PERIOD.max(interval + PROGRESS_PERIOD / 2)
        })
    }

    /// The next instant at which [`expire`](Self::expire) has something to say.
    pub(super) fn deadline(&self, interval: Option<Duration>) -> Option<Instant> {
        let period = (self.least > 0).then(|| self.since + Self::period(interval));
        period.into_iter().chain(self.end).min()
    }

    /// Looks at how many `blocks` are through; says how the transfer ends if that is too little, or too late.
    pub(super) fn expire(
        &mut self,
        blocks: u64,
        interval: Option<Duration>,
        now: Instant,
    ) -> Option<Outcome> {
        if self.end.is_some_and(|end| now >= end) {
            return Some(Outcome::TooLong);
        }
        if self.least == 0 || now < self.since + Self::period(interval) {
            return None;
        }
        if blocks - self.blocks < self.least {
            return Some(Outcome::TooSlow);
        }
        (self.since, self.blocks) = (now, blocks);
        None
    }
}
