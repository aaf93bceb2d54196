//! Where events go: the log, the counters, and whoever listens. Never waits for any of them.

use crate::event::{Event, Stats};
use crate::limits::EVENT_QUEUE;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::{Mutex, PoisonError};

/// Shared by the loop and the workers.
#[derive(Default)]
pub(super) struct Reporter(Mutex<State>);

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
        event.log();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.stats.apply(&event);
        state
            .listeners
            .retain_mut(|listener| listener.offer(&event));
    }

    pub(super) fn stats(&self) -> Stats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stats
    }

    pub(super) fn listen(&self) -> Events {
        // One place more, for the word that the end is missing.
        let (queue, events) = bounded(EVENT_QUEUE + 1);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.closed {
            state.listeners.push(Listener { queue, missed: 0 });
        }
        Events(events)
    }

    /// Nothing more will be delivered: readers, also later ones, come to an end.
    pub(super) fn close(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        for Listener { queue, missed } in state.listeners.drain(..) {
            if missed > 0 {
                let _ = queue.try_send(Event::Lagged { missed });
            }
        }
    }
}

impl Listener {
    /// False when nobody listens any more. The only sender, under the reporter's lock: what has room keeps it.
    fn offer(&mut self, event: &Event) -> bool {
        let room = EVENT_QUEUE.saturating_sub(self.queue.len());
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
    use crate::event::DropReason;

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
