//! Where events go: the log, the counters, and whoever listens. Never waits for any of them.

use crate::error::{Failure, Fault};
use crate::event::{Event, Stats};
use crate::limits::{EVENT_QUEUE, REFUSAL_LINES_PER_SECOND};
use crate::transfer::now;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A line that is missing is counted in the log within this time; counts are as far apart.
const COUNT_AFTER: Duration = Duration::from_secs(1);

/// Shared by the loop and the workers.
#[derive(Default)]
pub(super) struct Reporter {
    state: Mutex<State>,
    /// Somebody reads events. Looked at without the lock, for events that are made for readers
    /// only.
    is_heard: AtomicBool,
    flood: Mutex<Flood>,
    /// The operator was warned of a client that stops at block 65535.
    is_rollover_known: AtomicBool,
}

/// Log lines that any host can bring about with a request. In no second there are more than
/// [`REFUSAL_LINES_PER_SECOND`] of them; the others are counted, and a count is at most a second
/// old.
#[derive(Default)]
struct Flood {
    /// When the last of these lines were written, oldest first.
    said: VecDeque<Instant>,
    /// Lines that are missing, in the order of [`Cheap::WORDS`], since when, and whether one of
    /// them is a warning.
    unsaid: [u64; Cheap::WORDS.len()],
    since: Option<Instant>,
    has_warning: bool,
}

/// What a request with a forged source can bring about: not one byte has got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cheap {
    place: usize,
    is_warning: bool,
}

impl Cheap {
    /// How their lines begin.
    const WORDS: [&'static str; 3] = ["refused", "failed", "probe"];

    /// `None` for a line that takes a client which has received something, and where there is no
    /// line.
    fn of(event: &Event) -> Option<Self> {
        let (place, is_warning) = match event {
            Event::Refused { .. } => (0, false),
            Event::Failed(summary, failure) if summary.bytes == 0 && !failure.is_common() => {
                (1, failure.fault() == Fault::Here)
            }
            Event::Probe(_) => (2, false),
            _ => return None,
        };
        Some(Self { place, is_warning })
    }
}

impl Flood {
    /// Whether one more line may be written; otherwise it counts as missing.
    fn take(&mut self, cheap: Cheap, now: Instant) -> bool {
        if self.said.len() == REFUSAL_LINES_PER_SECOND as usize {
            let is_over = |oldest: &Instant| now >= *oldest + COUNT_AFTER;
            if self.said.pop_front_if(|oldest| is_over(oldest)).is_none() {
                self.unsaid[cheap.place] += 1;
                self.has_warning |= cheap.is_warning;
                self.since.get_or_insert(now);
                return false;
            }
        }
        self.said.push_back(now);
        true
    }

    /// When the count of missing lines is to be written.
    fn due(&self) -> Option<Instant> {
        Some(self.since? + COUNT_AFTER)
    }

    /// How many lines are missing, and the level to say it at; from then on none is.
    fn count(&mut self) -> Option<(log::Level, String)> {
        self.since.take()?;
        let unsaid = std::mem::take(&mut self.unsaid);
        let counts = Cheap::WORDS
            .iter()
            .zip(unsaid)
            .filter(|(_, count)| *count > 0);
        let counts: Vec<_> = counts
            .map(|(word, count)| format!("{word}={count}"))
            .collect();
        let level = match std::mem::take(&mut self.has_warning) {
            true => log::Level::Warn,
            false => log::Level::Info,
        };
        Some((level, counts.join(" ")))
    }

    fn say(&mut self) {
        if let Some((level, counts)) = self.count() {
            log::log!(
                level,
                "suppressed {counts} reason=\"more than {REFUSAL_LINES_PER_SECOND} lines a second\""
            );
        }
    }
}

#[derive(Default)]
struct State {
    stats: Stats,
    listeners: Vec<Listener>,
    closed: bool,
}

struct Listener {
    queue: Sender<Event>,
    missed: u64,
}

impl Reporter {
    pub(super) fn report(&self, event: Event) {
        self.log(&event);
        let mut state = self.lock();
        state.stats.apply(&event);
        state
            .listeners
            .retain_mut(|listener| listener.offer(&event));
        let is_heard = !state.listeners.is_empty();
        self.is_heard.store(is_heard, Ordering::Relaxed);
    }

    /// Where a line per decision is asked for, none is missing.
    fn log(&self, event: &Event) {
        let cheap = Cheap::of(event).filter(|_| !log::log_enabled!(log::Level::Debug));
        if cheap.is_none_or(|cheap| self.flood().take(cheap, now())) {
            event.log();
        }
        if let Event::Failed(summary, Failure::SilentAtRollover) = event
            && !self.is_rollover_known.swap(true, Ordering::Relaxed)
        {
            log::warn!(
                "client {} stopped at block 65535 of {}: files for such clients need larger blocks (blksize), or fewer than 65,536 of them; further ones are logged as failed only",
                summary.peer.ip(),
                summary.name
            );
        }
    }

    /// When there is something to [`catch_up`](Self::catch_up) with. What makes lines go missing is
    /// followed by a message to the loop, or done by it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.flood().due()
    }

    /// Says how many lines are missing, if that is due.
    pub(super) fn catch_up(&self, time: Instant) {
        let mut flood = self.flood();
        if flood.due().is_some_and(|due| time >= due) {
            flood.say();
        }
    }

    pub(super) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self) -> Stats {
        self.lock().stats
    }

    pub(super) fn listen(&self) -> Events {
        // One place more, for the word that the end is missing.
        let (queue, events) = bounded(EVENT_QUEUE + 1);
        let mut state = self.lock();
        if !state.closed {
            state.listeners.push(Listener { queue, missed: 0 });
            self.is_heard.store(true, Ordering::Relaxed);
        }
        Events(events)
    }

    /// Nothing more will be delivered: readers, also later ones, come to an end.
    pub(super) fn close(&self) {
        self.flood().say();
        let mut state = self.lock();
        state.closed = true;
        self.is_heard.store(false, Ordering::Relaxed);
        for Listener { queue, missed } in state.listeners.drain(..) {
            if missed > 0 {
                let _ = queue.try_send(Event::Lagged { missed });
            }
        }
    }

    fn flood(&self) -> MutexGuard<'_, Flood> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// False when nobody listens any more. The only sender, under the reporter's lock: what has
    /// room keeps it.
    fn offer(&mut self, event: &Event) -> bool {
        let room = EVENT_QUEUE.saturating_sub(self.queue.len());
        if matches!(event, Event::Progress { .. }) && room < EVENT_QUEUE / 2 {
            return true; // the next one says more
        }
        let missed = std::mem::take(&mut self.missed);
        if room < 1 + usize::from(missed > 0) {
            self.missed = missed + 1;
            return true;
        }
        let lagged = (missed > 0).then_some(Event::Lagged { missed });
        let mut events = lagged.into_iter().chain([event.clone()]);
        events.all(|event| self.queue.try_send(event).is_ok())
    }
}

/// A server's events from the moment it was asked for. Iterating waits for the next one and ends
/// with the server. A reader that is too slow finds an [`Event::Lagged`] where events are missing.
#[derive(Debug)]
pub struct Events(Receiver<Event>);

impl Events {
    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// The next event, waiting for it no longer than `patience`; `None` also when the server has
    /// ended.
    pub fn next_within(&mut self, patience: std::time::Duration) -> Option<Event> {
        self.0.recv_timeout(patience).ok()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{DropReason, Summary};
    use crate::text::Name;
    use crate::wire::Direction;

    #[test]
    fn progress_gives_way_and_is_not_missed() {
        let reporter = Reporter::default();
        assert!(!reporter.is_heard());
        let mut events = reporter.listen();
        assert!(reporter.is_heard());
        let progress = |bytes| Event::Progress {
            id: crate::TransferId(1),
            bytes,
        };
        (0..EVENT_QUEUE as u64).for_each(|bytes| reporter.report(progress(bytes)));
        (0..EVENT_QUEUE / 2 - 1).for_each(|_| reporter.report(dropped()));
        let read = std::iter::from_fn(|| events.try_next()).collect::<Vec<_>>();
        assert_eq!(read.len(), EVENT_QUEUE, "half of them progress");
        assert!(!read.iter().any(|it| matches!(it, Event::Lagged { .. })));
        drop(events);
        reporter.report(progress(0));
        assert!(!reporter.is_heard());
    }

    fn failed(bytes: u64, failure: Failure) -> Event {
        let peer = ([127, 0, 0, 1], 1).into();
        let summary = Summary {
            id: crate::TransferId(1),
            peer,
            local: peer,
            direction: Direction::Read,
            name: Name::new(b"file"),
            bytes,
            duration: std::time::Duration::ZERO,
            retransmits: 0,
            torn: 0,
            blksize: 512,
            windowsize: 1,
            rtt: None,
        };
        Event::Failed(summary, failure)
    }

    #[test]
    fn lines_that_any_host_can_bring_about_are_known() {
        let cheap = |place, is_warning| Some(Cheap { place, is_warning });
        assert_eq!(Cheap::of(&failed(512, Failure::FileChanged)), None);
        let no_line = failed(0, Failure::Evicted);
        assert_eq!(Cheap::of(&no_line), None);
        assert_eq!(
            Cheap::of(&failed(0, Failure::Read("x".into()))),
            cheap(1, true)
        );
        assert_eq!(Cheap::of(&failed(0, Failure::TooLong)), cheap(1, false));
        let Event::Failed(summary, _) = failed(1000, Failure::Silent) else {
            unreachable!("it was just made");
        };
        assert_eq!(Cheap::of(&Event::Probe(summary)), cheap(2, false));
        assert_eq!(Cheap::of(&dropped()), None);
    }

    /// 700 lines a second for ten seconds, of which 200 may be written.
    #[test]
    fn a_flood_is_200_lines_a_second_and_a_count_a_second() {
        let start = now();
        let mut flood = Flood::default();
        let refused = Cheap {
            place: 0,
            is_warning: false,
        };
        let (mut lines, mut counts) = (Vec::new(), Vec::new());
        let mut missing = 0;
        for tick in 0..12_000 {
            let time = start + Duration::from_millis(tick);
            if tick < 10_000 && tick % 10 < 7 {
                match flood.take(refused, time) {
                    true => lines.push(tick),
                    false => missing += 1,
                }
            }
            if flood.due().is_some_and(|due| time >= due) {
                let (level, text) = flood.count().expect("what is due is there");
                assert_eq!(level, log::Level::Info);
                let count = text.strip_prefix("refused=").expect("one word");
                counts.push((tick, count.parse::<u64>().expect("a number")));
            }
        }
        for (index, line) in lines.iter().enumerate().skip(200) {
            assert!(line - lines[index - 200] >= 1000, "201 lines in a second");
        }
        assert!((2000..=2200).contains(&lines.len()), "{}", lines.len());
        assert!(counts.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 1000));
        assert!(counts.len() >= 9, "{counts:?}");
        let last = counts.last().expect("at least one").0;
        assert!(last < 10_000 + 1000, "the last one came at {last}");
        let counted: u64 = counts.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, missing);
        assert_eq!((flood.due(), flood.count()), (None, None));
    }

    #[test]
    fn a_count_is_written_when_it_is_due_and_not_before() {
        let reporter = Reporter::default();
        assert_eq!(reporter.due(), None);
        let failed = failed(0, Failure::Read("no such disk".into()));
        let begun = now();
        while reporter.due().is_none() {
            reporter.report(failed.clone());
        }
        let due = reporter.due().expect("it was just asked");
        assert!(due >= begun + COUNT_AFTER);
        reporter.catch_up(due - Duration::from_millis(1));
        assert_eq!(reporter.due(), Some(due));
        reporter.catch_up(due);
        assert_eq!(reporter.due(), None);
    }

    #[test]
    fn a_count_names_what_is_missing_and_is_a_warning_where_a_line_was() {
        let time = now();
        let mut flood = Flood::default();
        let cheap = |place, is_warning| Cheap { place, is_warning };
        let refused = cheap(0, false);
        assert!((0..REFUSAL_LINES_PER_SECOND).all(|_| flood.take(refused, time)));
        for missing in [refused, cheap(2, false), cheap(1, true), refused] {
            assert!(!flood.take(missing, time));
        }
        let said = (log::Level::Warn, "refused=2 failed=1 probe=1".to_owned());
        assert_eq!(flood.count(), Some(said));
        assert!(!flood.take(refused, time));
        assert_eq!(
            flood.count().map(|(level, _)| level),
            Some(log::Level::Info)
        );
    }

    fn dropped() -> Event {
        Event::Dropped {
            peer: ([127, 0, 0, 1], 1).into(),
            reason: DropReason::Broadcast,
        }
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed_and_stops_nobody() {
        let reporter = Reporter::default();
        let mut events = reporter.listen();
        (0..EVENT_QUEUE + 5).for_each(|_| reporter.report(dropped()));
        assert_eq!(reporter.stats().dropped, EVENT_QUEUE as u64 + 5);
        for _ in 0..EVENT_QUEUE {
            assert!(matches!(events.try_next(), Some(Event::Dropped { .. })));
        }
        reporter.report(dropped());
        assert!(matches!(
            events.try_next(),
            Some(Event::Lagged { missed: 5 })
        ));
        assert!(matches!(events.try_next(), Some(Event::Dropped { .. })));
        reporter.close();
        assert!(events.next().is_none());
    }
}
