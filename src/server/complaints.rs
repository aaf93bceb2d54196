//! What repeats is said once a minute, with a count: whoever causes it may be a stranger, and must not fill the log.

use crate::event::quoted;
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
