//! How a window is spread over time.
//!
//! A negotiated window may not be shortened (the receiver would wait for the rest), but it may go out in bursts with gaps
//! between. A client whose windows come back whole gets each in one burst; torn windows make bursts smaller and then gaps
//! longer, and both recover when windows come back whole again.

use crate::limits::{BURST_GAP, BURST_GAP_MAX, FIRST_BURST, SMALLEST_BURST};
use std::time::Duration;

/// Loss is a moving average over windows, in units of 1/256.
const ALWAYS: u32 = 256;
/// Above this share of torn windows the bursts get smaller: well over what 1 % of random loss does to 16 blocks.
const TOO_MUCH: u32 = ALWAYS / 4;
/// Whole windows before a larger burst is tried again; doubles when the try fails.
const HOLD_FIRST: u32 = 8;
const HOLD_MOST: u32 = 1024;

#[derive(Clone, Debug)]
pub(super) struct Pace {
    window: u64,
    burst: u64,
    gap: Duration,
    torn: u32,
    whole_in_a_row: u32,
    hold: u32,
    /// True from a growth until it has held for as long as was waited for it.
    trying: bool,
}

impl Pace {
    pub(super) fn new(window: u64) -> Self {
        let burst = window.min(FIRST_BURST);
        Self {
            window,
            burst,
            gap: BURST_GAP,
            torn: 0,
            whole_in_a_row: 0,
            hold: HOLD_FIRST,
            trying: false,
        }
    }

    /// Blocks that may go out at once.
    pub(super) fn burst(&self) -> u64 {
        self.burst
    }

    /// The pause after a burst. Never longer than half a round trip, where the round trip is not tiny: a window
    /// should not take many times as long as its answer.
    pub(super) fn gap(&self, round_trip: Option<Duration>) -> Duration {
        self.gap
            .min(round_trip.unwrap_or_default() / 2)
            .max(BURST_GAP)
    }

    /// A whole window was acknowledged at its end.
    pub(super) fn whole(&mut self) {
        self.torn -= self.torn / 8;
        if self.burst == self.window {
            return;
        }
        if self.torn == 0 && self.hold == HOLD_FIRST {
            // Nothing was ever lost: the first large window has come back, there is no reason to be careful.
            self.burst = self.window;
            return;
        }
        self.whole_in_a_row += 1;
        if self.whole_in_a_row >= self.hold {
            self.whole_in_a_row = 0;
            self.trying = true;
            if self.gap > BURST_GAP {
                self.gap /= 2;
            } else {
                self.burst = (self.burst * 2).min(self.window);
            }
        }
    }

    /// A part of a window was lost.
    pub(super) fn torn(&mut self) {
        self.torn += (ALWAYS - self.torn) / 8;
        self.whole_in_a_row = 0;
        if self.torn <= TOO_MUCH {
            return;
        }
        if self.trying {
            self.trying = false;
            self.hold = (self.hold * 2).min(HOLD_MOST);
        }
        self.torn = TOO_MUCH / 2; // judge the new pace by what comes now
        if self.burst > SMALLEST_BURST.min(self.window) {
            self.burst = (self.burst / 2).max(SMALLEST_BURST).min(self.window);
        } else {
            self.gap = (self.gap * 2).min(BURST_GAP_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_large_window_is_spread_and_the_next_is_not() {
        let mut pace = Pace::new(64);
        assert_eq!(pace.burst(), 16);
        pace.whole();
        assert_eq!(pace.burst(), 64);
        assert_eq!(Pace::new(16).burst(), 16);
    }

    #[test]
    fn a_receiver_that_drops_the_tail_of_bursts_gets_small_ones() {
        // The receiver keeps 8 blocks of a burst.
        let mut pace = Pace::new(32);
        let mut torn = 0;
        for _ in 0..2000 {
            if pace.burst() > 8 {
                torn += 1;
                pace.torn();
            } else {
                pace.whole();
            }
        }
        assert!(torn < 60, "torn {torn} windows of 2000");
    }

    #[test]
    fn pace_recovers_when_loss_ends() {
        let mut pace = Pace::new(64);
        (0..100).for_each(|_| pace.torn());
        assert_eq!(pace.burst(), SMALLEST_BURST);
        assert!(pace.gap(Some(Duration::from_secs(1))) > BURST_GAP);
        (0..1000).for_each(|_| pace.whole());
        assert_eq!(pace.burst(), 64);
    }

    #[test]
    fn a_rare_loss_changes_nothing() {
        let mut pace = Pace::new(16);
        for _ in 0..100 {
            pace.torn();
            (0..9).for_each(|_| pace.whole());
        }
        assert_eq!(pace.burst(), 16);
    }
}
