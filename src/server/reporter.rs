//! Where events go: the log, the counters, and whoever listens. Never waits for any of them.

use super::bucket::Bucket;
use crate::error::Failure;
use crate::event::{Event, Stats};
use crate::limits::{EVENT_QUEUE, REFUSAL_LINES_PER_SECOND};
use crate::transfer::now;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by the loop and the workers.
#[derive(Default)]
pub(super) struct Reporter {
    state: Mutex<State>,
    /// Somebody reads events. Looked at without the lock, for events that are made for readers only.
    is_heard: AtomicBool,
    flood: Mutex<Flood>,
    /// The operator was warned of a client that stops at block 65535.
    is_rollover_known: AtomicBool,
}

/// Lines that anybody can bring about with a request: so many a second, the others are counted.
struct Flood {
    lines: Bucket,
    /// How many lines that begin with this word are missing.
    unsaid: [(&'static str, u64); 2],
}

impl Default for Flood {
    fn default() -> Self {
        Self {
            lines: Bucket::new(REFUSAL_LINES_PER_SECOND, now()),
            unsaid: [("refused", 0), ("failed", 0)],
        }
    }
}

impl Flood {
    /// Says how many lines are missing, if any are.
    fn catch_up(&mut self) {
        for (word, unsaid) in &mut self.unsaid {
            if *unsaid > 0 {
                log::info!("{word} count={unsaid} reason=\"too many to tell one by one\"");
                *unsaid = 0;
            }
        }
    }
}

/// The place in [`Flood::unsaid`] of what a request with a forged source can bring about: not one octet has got through.
fn is_cheap(event: &Event) -> Option<usize> {
    match event {
        Event::Refused { .. } => Some(0),
        Event::Failed(summary, failure) if summary.bytes == 0 && !failure.is_common() => Some(1),
        _ => None,
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

    /// Whoever asks for a line per decision gets it.
    fn log(&self, event: &Event) {
        if let Some(place) = is_cheap(event)
            && !log::log_enabled!(log::Level::Debug)
        {
            let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
            if !flood.lines.take(now()) {
                flood.unsaid[place].1 += 1;
                return;
            }
            flood.catch_up();
        }
        event.log();
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
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        flood.catch_up();
        let mut state = self.lock();
        state.closed = true;
        self.is_heard.store(false, Ordering::Relaxed);
        for Listener { queue, missed } in state.listeners.drain(..) {
            if missed > 0 {
                let _ = queue.try_send(Event::Lagged { missed });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// False when nobody listens any more. The only sender, under the reporter's lock: what has room keeps it.
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

/// A server's events from the moment it was asked for. Iterating waits for the next one and ends with the server. A
/// reader that is too slow finds an [`Event::Lagged`] where events are missing.
#[derive(Debug)]
pub struct Events(Receiver<Event>);

impl Events {
    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// The next event, waiting for it no longer than `patience`; `None` also when the server has ended.
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
    use crate::event::{DropReason, Name, Summary};
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
    fn a_flood_of_failures_before_the_first_block_is_a_few_lines_and_a_count() {
        assert_eq!(is_cheap(&failed(512, Failure::FileChanged)), None);
        assert_eq!(
            is_cheap(&failed(0, Failure::Evicted)),
            None,
            "it has no line"
        );
        let reporter = Reporter::default();
        let is_counted = || reporter.flood.lock().expect("no panic").unsaid[1].1 > 0;
        let flood = (0..1_000_000).any(|_| {
            reporter.report(failed(0, Failure::Read("no such disk".into())));
            is_counted()
        });
        assert!(flood);
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
