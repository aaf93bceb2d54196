//! A warning that repeats is logged once a minute, with a count: a stranger may cause it, and must
//! not fill the log.

use crate::text::quoted;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The same warning is logged this often.
const PAUSE: Duration = Duration::from_secs(60);

/// The warnings, and when each was logged last.
#[derive(Default)]
pub(super) struct ThrottledWarnings {
    by_what: HashMap<&'static str, ThrottledWarning>,
    /// When one that waits is due.
    next: Option<Instant>,
}

#[derive(Default)]
struct ThrottledWarning {
    said: Option<Instant>,
    suppressed: u64,
    /// The latest reason.
    why: String,
}

impl ThrottledWarning {
    /// When it may be said; never later than in a pause.
    fn due(&self, time: Instant) -> Instant {
        self.said.map_or(time, |said| said + PAUSE)
    }

    fn say(&mut self, what: &str) {
        let why = quoted(&self.why);
        log::warn!("{what} count={} reason={why}", self.suppressed);
        self.suppressed = 0;
    }
}

impl ThrottledWarnings {
    /// Says it, or counts it where it was said not long ago.
    pub(super) fn add(&mut self, time: Instant, what: &'static str, why: &str) {
        let warning = self.by_what.entry(what).or_default();
        warning.suppressed += 1;
        warning.why.clear();
        warning.why.push_str(why);
        let due = warning.due(time);
        if self.next.is_none_or(|next| due < next) {
            self.next = Some(due);
        }
        self.say(time);
    }

    /// When there is something to [`say`](Self::say).
    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Says what is due.
    pub(super) fn say(&mut self, time: Instant) {
        if self.next.is_none_or(|next| next > time) {
            return;
        }
        self.next = None;
        for (what, warning) in &mut self.by_what {
            if warning.suppressed == 0 {
                continue;
            }
            let due = warning.due(time);
            if due > time {
                self.next = Some(self.next.map_or(due, |next| next.min(due)));
                continue;
            }
            warning.say(what);
            warning.said = Some(time);
        }
    }

    /// Says what is left, whenever it would be due.
    pub(super) fn say_all(&mut self) {
        for (what, warning) in &mut self.by_what {
            if warning.suppressed > 0 {
                warning.say(what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn the_same_complaint_waits_a_minute_and_is_counted_meanwhile() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut warnings = ThrottledWarnings::default();
        let suppressed = |warnings: &ThrottledWarnings, what| warnings.by_what[what].suppressed;
        warnings.add(start, "one", "why");
        assert_eq!((suppressed(&warnings, "one"), warnings.due()), (0, None));
        warnings.add(at(1), "one", "why");
        warnings.add(at(2), "one", "another reason");
        assert_eq!(suppressed(&warnings, "one"), 2);
        assert_eq!(warnings.due(), Some(at(60)));
        // Another one has a minute of its own.
        warnings.add(at(10), "two", "why");
        assert_eq!(suppressed(&warnings, "two"), 0);
        warnings.add(at(11), "two", "why");
        assert_eq!(warnings.due(), Some(at(60)), "the earlier of both");
        warnings.say(at(59));
        assert_eq!(suppressed(&warnings, "one"), 2);
        warnings.say(at(60));
        assert_eq!(
            (suppressed(&warnings, "one"), suppressed(&warnings, "two")),
            (0, 1)
        );
        assert_eq!(warnings.due(), Some(at(70)));
        warnings.say_all();
        assert_eq!(suppressed(&warnings, "two"), 0);
    }

    /// The order of a table is by chance: each time it is another one.
    #[test]
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn of_several_that_wait_the_first_is_due() {
        let start = Instant::now();
        for _ in 0..50 {
            let mut warnings = ThrottledWarnings::default();
            for (seconds, what) in [(0, "a"), (5, "b"), (10, "c")] {
                let time = start + Duration::from_secs(seconds);
                warnings.add(time, what, "why");
                warnings.add(time, what, "why");
            }
            let time = start + Duration::from_secs(60);
            warnings.say(time);
            assert_eq!(warnings.due(), Some(time + Duration::from_secs(5)));
        }
    }
}
