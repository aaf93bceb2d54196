//! How a window is spread over time.
//!
//! A negotiated window may not be shortened (the receiver would wait for the rest), but it may go
//! out in bursts with gaps between. A client whose windows come back whole gets each in one burst.
//! One that loses the tail of every burst gets bursts as long as what it kept, and now and then a
//! longer one to see whether it has changed. Loss that strikes anywhere is no reason to slow down:
//! smaller bursts would lose as much.

use crate::limits::{BURST_GAP, BURST_GAP_MAX, FIRST_BURST, SMALLEST_BURST};
use std::time::Duration;

/// Windows in a row that broke off at about the same place before they are spread wider.
const SUSPICIOUS: u32 = 3;
/// Windows in a row that were whole only after a probe of their last block before they are spread
/// wider.
const DOUBTFUL: u32 = 8;
/// Windows before a larger burst is tried again; doubles when the try fails at once.
const HOLD_FIRST: u32 = 8;
const HOLD_MOST: u32 = 1024;

#[derive(Clone, Debug)]
pub(super) struct Pace {
    window: u64,
    burst: u64,
    /// Bursts do not grow over this: [`FIRST_BURST`] until a window has come back whole.
    ceiling: u64,
    gap: Duration,
    /// Windows in a row that broke off alike, and the fewest and most blocks that arrived of them.
    alike: u32,
    shortest: u64,
    longest: u64,
    /// Windows in a row of which only the first block arrived.
    stuck: u32,
    /// Windows in a row that were whole after a probe.
    doubtful: u32,
    /// Windows since the pace was changed.
    windows: u32,
    hold: u32,
    /// The burst and the gap to go back to behind the silence that has changed them.
    before: Option<(u64, Duration)>,
}

impl Pace {
    pub(super) fn new(window: u64) -> Self {
        let burst = window.min(FIRST_BURST);
        Self {
            window,
            burst,
            ceiling: burst,
            gap: BURST_GAP,
            alike: 0,
            shortest: 0,
            longest: 0,
            stuck: 0,
            doubtful: 0,
            windows: 0,
            hold: HOLD_FIRST,
            before: None,
        }
    }

    /// Blocks that may go out at once.
    pub(super) fn burst(&self) -> u64 {
        self.burst
    }

    /// The pause after a burst. Never longer than half a round trip, where the round trip is not
    /// tiny: a window should not take many times as long as its answer.
    pub(super) fn gap(&self, round_trip: Option<Duration>) -> Duration {
        self.gap
            .min(round_trip.unwrap_or_default() / 2)
            .max(BURST_GAP)
    }

    /// A whole window was acknowledged at its end.
    pub(super) fn whole(&mut self) {
        self.alike = 0;
        self.stuck = 0;
        self.doubtful = 0;
        if self.burst == self.ceiling && self.gap == BURST_GAP {
            self.burst = self.window;
        }
        self.ceiling = self.window;
        self.window_is_over();
    }

    /// A whole window was acknowledged, but only after a probe: its very last block was lost, or
    /// nothing was and the receiver is slower than it used to be. A crowd of busy receivers must
    /// not be sent smaller bursts, which are more work for both sides; the timer learns how slow
    /// they are long before this is believed to be a loss.
    pub(super) fn doubtful(&mut self) {
        self.doubtful += 1;
        if self.doubtful == DOUBTFUL {
            self.slow_down(self.burst / 2);
        }
    }

    /// Of a window only the first `arrived` blocks did.
    pub(super) fn torn(&mut self, arrived: u64) {
        self.suspect(arrived);
        if self.alike == SUSPICIOUS && arrived < self.burst {
            self.slow_down(1 << self.shortest.ilog2());
        } else if self.alike == SUSPICIOUS || self.stuck == SUSPICIOUS {
            self.slow_down(self.burst / 2); // each burst found less room than the one before
        } else {
            self.window_is_over();
        }
    }

    /// A receiver without room breaks windows off at the same place, give or take a quarter. The
    /// first block finds room everywhere: if it is missing, something else was the matter. If only
    /// the first arrives, its buffers may be full of what came behind the hole; once in a while
    /// that happens to everybody (U-Boot tells of it when leftovers come in).
    fn suspect(&mut self, arrived: u64) {
        self.stuck = if arrived == 1 { self.stuck + 1 } else { 0 };
        if arrived <= 1 {
            return;
        }
        let shortest = self.shortest.min(arrived);
        let longest = self.longest.max(arrived);
        if self.alike > 0 && 4 * (longest - shortest) <= longest {
            self.alike += 1;
            (self.shortest, self.longest) = (shortest, longest);
        } else {
            self.alike = 1;
            (self.shortest, self.longest) = (arrived, arrived);
        }
    }

    /// Whole windows vanish.
    pub(super) fn vanished(&mut self) {
        self.slow_down(self.burst / 2);
    }

    /// A window has brought no answer in a silence: it may have vanished, or its answers were lost.
    /// All that is sent in one silence counts as one failure.
    pub(super) fn unanswered(&mut self) {
        if self.before.is_some() {
            self.spread(self.burst / 2);
            return;
        }
        let before = (self.burst, self.gap);
        let failed_at_once = self.failed_at_once();
        self.vanished();
        self.before = Some(match failed_at_once {
            true => (self.burst, self.gap),
            false => before,
        });
    }

    /// The silence is over. Where the receiver turns out to have the whole window, its answers were
    /// lost: the first such silence in a while is no reason to slow down, and the next slows down
    /// by one step.
    pub(super) fn answered(&mut self, whole: bool) {
        if let Some((burst, gap)) = self.before.take()
            && whole
        {
            (self.burst, self.gap) = (burst, gap);
        }
    }

    /// Since the pace was changed, hardly a window has come back.
    fn failed_at_once(&self) -> bool {
        self.windows <= HOLD_FIRST
    }

    fn spread(&mut self, burst: u64) {
        if self.burst > SMALLEST_BURST {
            self.burst = burst.clamp(SMALLEST_BURST, self.burst);
        } else {
            self.gap = (self.gap * 2).min(BURST_GAP_MAX);
        }
    }

    fn slow_down(&mut self, burst: u64) {
        self.spread(burst);
        self.hold = if self.failed_at_once() {
            (self.hold * 2).min(HOLD_MOST)
        } else {
            HOLD_FIRST
        };
        self.alike = 0;
        self.stuck = 0;
        self.doubtful = 0;
        self.windows = 0;
    }

    fn window_is_over(&mut self) {
        self.windows += 1;
        if self.windows < self.hold || (self.burst >= self.ceiling && self.gap == BURST_GAP) {
            return;
        }
        self.windows = 0;
        if self.gap > BURST_GAP {
            self.gap /= 2;
        } else {
            self.burst = (self.burst * 2).min(self.ceiling);
        }
        // One more window that breaks off where they did before settles it.
        self.alike = if self.shortest > 0 { SUSPICIOUS - 1 } else { 0 };
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
    fn until_a_window_has_come_back_whole_bursts_stay_small() {
        let mut pace = Pace::new(64);
        for window in 0..1000 {
            pace.torn(window * 37 % 64);
            assert!(pace.burst() <= 16);
        }
    }

    #[test]
    fn a_receiver_that_drops_the_tail_of_bursts_gets_what_it_can_keep() {
        for (keeps, burst) in [(2, 2), (3, 2), (8, 8), (9, 8), (15, 8), (31, 16)] {
            let mut pace = Pace::new(32);
            let mut torn = 0;
            for _ in 0..2000 {
                if pace.burst() > keeps {
                    torn += 1;
                    pace.torn(keeps);
                } else {
                    pace.whole();
                }
            }
            assert!(torn < 40, "keeps {keeps}: torn {torn} windows of 2000");
            assert!(pace.burst() == burst || pace.burst() == 2 * burst);
        }
    }

    #[test]
    fn a_receiver_that_is_slower_than_the_bursts_gets_shorter_ones() {
        // Room for 35 blocks, and 12 are taken out in a gap.
        let mut pace = Pace::new(1000);
        let mut torn = 0;
        while pace.burst() > 12 && torn < 10 {
            torn += 1;
            pace.torn(95);
        }
        assert_eq!(torn, 3);
    }

    #[test]
    fn a_receiver_that_takes_one_block_of_every_window_gets_shorter_bursts() {
        let mut pace = Pace::new(16);
        for burst in [8, 4, 2] {
            (0..3).for_each(|_| pace.torn(1));
            assert_eq!(pace.burst(), burst);
        }
        // U-Boot's leftovers in between hide nothing.
        let mut pace = Pace::new(16);
        [1, 6, 1, 6, 1, 6]
            .into_iter()
            .for_each(|arrived| pace.torn(arrived));
        assert_eq!(pace.burst(), 4);
    }

    #[test]
    fn vanished_windows_make_bursts_smaller_and_then_gaps_longer() {
        let mut pace = Pace::new(64);
        (0..100).for_each(|_| pace.vanished());
        assert_eq!(pace.burst(), SMALLEST_BURST);
        assert_eq!(pace.gap(Some(Duration::from_secs(1))), BURST_GAP_MAX);
        assert_eq!(
            pace.gap(Some(Duration::from_millis(2))),
            Duration::from_millis(1)
        );
    }

    #[test]
    fn pace_recovers_when_loss_ends() {
        let mut pace = Pace::new(64);
        (0..100).for_each(|_| pace.vanished());
        (0..20_000).for_each(|_| pace.whole());
        assert_eq!(pace.burst(), 64);
        assert_eq!(pace.gap(Some(Duration::from_secs(1))), BURST_GAP);
    }

    #[test]
    fn loss_that_strikes_anywhere_changes_nothing_for_long() {
        let mut pace = Pace::new(16);
        let mut slow = 0;
        for window in 0..1000u64 {
            match window * 7 % 31 {
                arrived @ 0..16 => pace.torn(arrived),
                _ => pace.whole(),
            }
            slow += u32::from(pace.burst() < 16);
        }
        assert!(slow < 100, "slow in {slow} windows of 1000");
    }
}
