//! Workers that sleep until there is work: a stack, so that few of them stay busy and the rest stay
//! asleep. A thread that is woken for every small thing costs more than the thing.

use super::sync::thread::{Thread, ThreadId};
use super::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, now, thread};
use std::time::Duration;

/// Who sleeps. Shared by the loop, which wakes, and the workers.
#[derive(Default)]
pub(super) struct Idle {
    state: Mutex<State>,
    /// How many there are, to be read without the lock.
    count: AtomicUsize,
    /// The server ends.
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The one that went to sleep last is at the end.
    sleepers: Vec<Thread>,
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// There is, or was, something to do.
    Work,
    /// Nobody had work in all that time.
    Timeout,
    /// The server ends.
    Shutdown,
}

impl Idle {
    /// Workers that sleep.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// True once the server ends.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Sleeps until woken, or for `most`. Work that was queued before the sleeper could be seen is
    /// asked for with `has_work`, so that it waits for nobody.
    pub(super) fn sleep(&self, most: Option<Duration>, has_work: impl Fn() -> bool) -> Wake {
        let me = thread::current();
        {
            let mut state = self.lock();
            state.sleepers.push(me.clone());
            self.count.store(state.sleepers.len(), Ordering::SeqCst);
        }
        if has_work() {
            self.leave(me.id());
            return Wake::Work;
        }
        let until = most.map(|most| now() + most);
        loop {
            let state = self.lock();
            if self.is_closed() {
                return Wake::Shutdown;
            }
            if !state.sleepers.iter().any(|sleeper| sleeper.id() == me.id()) {
                return Wake::Work;
            }
            drop(state);
            match until.map(|until| until.saturating_duration_since(now())) {
                None => thread::park(),
                Some(Duration::ZERO) if self.leave(me.id()) => return Wake::Timeout,
                Some(left) => thread::park_timeout(left),
            }
        }
    }

    /// Wakes the worker that went to sleep last; false where none sleeps. Queue the work first.
    pub(super) fn wake(&self) -> bool {
        if self.count() == 0 {
            return false;
        }
        let mut state = self.lock();
        let sleeper = state.sleepers.pop();
        self.count.store(state.sleepers.len(), Ordering::SeqCst);
        drop(state);
        sleeper.map(|sleeper| sleeper.unpark()).is_some()
    }

    /// Wakes everybody, and nobody sleeps again.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        self.closed.store(true, Ordering::SeqCst);
        state
            .sleepers
            .drain(..)
            .for_each(|sleeper| sleeper.unpark());
        self.count.store(0, Ordering::SeqCst);
    }

    /// True where the sleeper had not been woken.
    fn leave(&self, id: ThreadId) -> bool {
        let mut state = self.lock();
        let before = state.sleepers.len();
        state.sleepers.retain(|sleeper| sleeper.id() != id);
        self.count.store(state.sleepers.len(), Ordering::SeqCst);
        state.sleepers.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::explore;
    use super::*;
    use std::sync::Arc;

    const NEVER: Option<Duration> = None;
    const MOMENT: Option<Duration> = Some(Duration::from_millis(5));

    fn sleeper(idle: &Arc<Idle>) -> thread::JoinHandle<Wake> {
        let before = idle.count();
        let shared = Arc::clone(idle);
        let sleeper = thread::spawn(move || shared.sleep(NEVER, || false));
        while idle.count() == before {
            thread::yield_now();
        }
        sleeper
    }

    #[test]
    fn who_slept_last_is_woken_first() {
        explore(|| {
            let idle = Arc::new(Idle::default());
            assert!(!idle.wake(), "nobody sleeps");
            let (first, second) = (sleeper(&idle), sleeper(&idle));
            assert!(idle.wake());
            assert_eq!(second.join().expect("no panic"), Wake::Work);
            assert_eq!(idle.count(), 1);
            assert!(idle.wake());
            assert_eq!(first.join().expect("no panic"), Wake::Work);
            assert!(!idle.wake());
        });
    }

    #[test]
    fn work_that_came_first_is_not_slept_on() {
        explore(|| {
            let idle = Idle::default();
            assert_eq!(idle.sleep(NEVER, || true), Wake::Work);
            assert_eq!(idle.count(), 0);
            // It was woken for it too: then nobody else is.
            let woken = idle.sleep(NEVER, || idle.wake());
            assert_eq!(woken, Wake::Work);
            assert_eq!(idle.count(), 0);
            // The token of that wake-up is spent in vain, and no reason to come back.
            assert_eq!(idle.sleep(MOMENT, || false), Wake::Timeout);
        });
    }

    #[test]
    fn who_left_in_time_is_not_woken() {
        explore(|| {
            let idle = Arc::new(Idle::default());
            let shared = Arc::clone(&idle);
            let sleeper = thread::spawn(move || shared.sleep(MOMENT, || false));
            assert_eq!(sleeper.join().expect("no panic"), Wake::Timeout);
            assert!(!idle.wake());
        });
    }

    #[test]
    fn a_close_wakes_all_and_for_ever() {
        explore(|| {
            let idle = Arc::new(Idle::default());
            let sleepers = [sleeper(&idle), sleeper(&idle)];
            idle.close();
            for sleeper in sleepers {
                assert_eq!(sleeper.join().expect("no panic"), Wake::Shutdown);
            }
            assert_eq!(idle.sleep(NEVER, || false), Wake::Shutdown);
        });
    }
}
