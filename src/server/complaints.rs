//! What repeats is said once a minute, with a count: whoever causes it may be a stranger, and must not fill the log.

use crate::text::quoted;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The same complaint is logged this often.
const PAUSE: Duration = Duration::from_secs(60);

/// What was complained of, and when that was said last.
#[derive(Default)]
pub(super) struct Complaints {
    by_what: HashMap<&'static str, Complaint>,
    /// When one that waits is due.
    next: Option<Instant>,
}

#[derive(Default)]
struct Complaint {
    said: Option<Instant>,
    unsaid: u64,
    /// The latest reason.
    why: String,
}

impl Complaint {
    /// When it may be said; never later than in a pause.
    fn due(&self, time: Instant) -> Instant {
        self.said.map_or(time, |said| said + PAUSE)
    }

    fn say(&mut self, what: &str) {
        let why = quoted(&self.why);
        log::warn!("{what} count={} reason={why}", self.unsaid);
        self.unsaid = 0;
    }
}

impl Complaints {
    /// Says it, or counts it where it was said not long ago.
    pub(super) fn add(&mut self, time: Instant, what: &'static str, why: &str) {
        let complaint = self.by_what.entry(what).or_default();
        complaint.unsaid += 1;
        complaint.why.clear();
        complaint.why.push_str(why);
        let due = complaint.due(time);
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
        for (what, complaint) in &mut self.by_what {
            if complaint.unsaid == 0 {
                continue;
            }
            let due = complaint.due(time);
            if due > time {
                self.next = Some(self.next.map_or(due, |next| next.min(due)));
                continue;
            }
            complaint.say(what);
            complaint.said = Some(time);
        }
    }

    /// Says what is left, whenever it would be due.
    pub(super) fn say_all(&mut self) {
        for (what, complaint) in &mut self.by_what {
            if complaint.unsaid > 0 {
                complaint.say(what);
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
        let mut complaints = Complaints::default();
        let unsaid = |complaints: &Complaints, what| complaints.by_what[what].unsaid;
        complaints.add(start, "one", "why");
        assert_eq!((unsaid(&complaints, "one"), complaints.due()), (0, None));
        complaints.add(at(1), "one", "why");
        complaints.add(at(2), "one", "another reason");
        assert_eq!(unsaid(&complaints, "one"), 2);
        assert_eq!(complaints.due(), Some(at(60)));
        // Another one has a minute of its own.
        complaints.add(at(10), "two", "why");
        assert_eq!(unsaid(&complaints, "two"), 0);
        complaints.add(at(11), "two", "why");
        assert_eq!(complaints.due(), Some(at(60)), "the earlier of both");
        complaints.say(at(59));
        assert_eq!(unsaid(&complaints, "one"), 2);
        complaints.say(at(60));
        assert_eq!(
            (unsaid(&complaints, "one"), unsaid(&complaints, "two")),
            (0, 1)
        );
        assert_eq!(complaints.due(), Some(at(70)));
        complaints.say_all();
        assert_eq!(unsaid(&complaints, "two"), 0);
    }

    /// The order of a table is by chance: each time it is another one.
    #[test]
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn of_several_that_wait_the_first_is_due() {
        let start = Instant::now();
        for _ in 0..50 {
            let mut complaints = Complaints::default();
            for (seconds, what) in [(0, "a"), (5, "b"), (10, "c")] {
                let time = start + Duration::from_secs(seconds);
                complaints.add(time, what, "why");
                complaints.add(time, what, "why");
            }
            let time = start + Duration::from_secs(60);
            complaints.say(time);
            assert_eq!(complaints.due(), Some(time + Duration::from_secs(5)));
        }
    }
}
