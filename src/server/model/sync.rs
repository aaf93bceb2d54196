//! The counterpart of `server/sync.rs`: the same names, and `shuttle` behind them.

use super::clock;
use super::scheduler::Seeded;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(super) use super::clock::now;
pub(super) use super::set::Waker;
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Schedules of each test that `cargo test` runs.
const SCHEDULES: u64 = 300;
/// A schedule with more steps does not come to its end.
const STEPS: usize = 400_000;
const STACK: usize = 256 << 10;

/// Runs a test under many schedules. `SCHEDULES=100000` runs more, from `FIRST` on; `SEED=17` runs
/// one.
pub(super) fn explore(test: impl Fn() + Send + Sync + 'static) {
    let number = |name| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("FIRST").unwrap_or(0);
            first..first + number("SCHEDULES").unwrap_or(SCHEDULES)
        }
    };
    let test = Arc::new(test);
    for seed in seeds {
        let mut config = Config::new();
        config.failure_persistence = FailurePersistence::None;
        config.max_steps = MaxSteps::FailAfter(STEPS);
        config.stack_size = STACK;
        config.silence_warnings = true;
        let test = Arc::clone(&test);
        let runner = Runner::new(Seeded::new(seed), config);
        let run = || runner.run(move || clock::run(|| test()));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            eprintln!("SEED={seed} shows it again");
            resume_unwind(panic);
        }
    }
}

pub(super) mod thread {
    use super::super::clock;
    pub(in super::super) use shuttle::thread::{
        JoinHandle, Thread, ThreadId, current, park, spawn, yield_now,
    };
    use std::num::NonZeroUsize;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    pub(in super::super) fn park_timeout(time: Duration) {
        clock::park(Some(time));
    }

    pub(in super::super) fn available_parallelism() -> std::io::Result<NonZeroUsize> {
        Ok(NonZeroUsize::new(2).expect("not zero"))
    }

    /// A thread that panics ends, as one of the system does.
    #[derive(Default)]
    pub(in super::super) struct Builder(shuttle::thread::Builder);

    impl Builder {
        pub(in super::super) fn new() -> Self {
            Self::default()
        }

        pub(in super::super) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(in super::super) fn spawn(
            self,
            work: impl FnOnce() + Send + 'static,
        ) -> std::io::Result<JoinHandle<()>> {
            self.0.spawn(|| _ = catch_unwind(AssertUnwindSafe(work)))
        }
    }
}

// ---- channels -----------------------------------------------------------------------------------

struct Channel<T> {
    capacity: usize,
    state: Mutex<Queue<T>>,
    /// There is room, or the receivers have gone.
    taken: Condvar,
}

struct Queue<T> {
    messages: VecDeque<T>,
    /// A receiver that waits.
    waiter: Option<thread::Thread>,
    senders: usize,
    receivers: usize,
}

pub(super) struct Sender<T>(Arc<Channel<T>>);
pub(super) struct Receiver<T>(Arc<Channel<T>>);

/// The other ends have gone.
#[derive(Debug)]
pub(super) struct Disconnected;

pub(super) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        capacity,
        state: Mutex::new(Queue {
            messages: VecDeque::new(),
            waiter: None,
            senders: 1,
            receivers: 1,
        }),
        taken: Condvar::new(),
    });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

pub(super) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Channel<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    pub(super) fn send(&self, message: T) -> Result<(), Disconnected> {
        let mut queue = self.0.lock();
        while queue.receivers > 0 && queue.messages.len() >= self.0.capacity {
            let waited = self.0.taken.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if queue.receivers == 0 {
            return Err(Disconnected);
        }
        queue.messages.push_back(message);
        let waiter = queue.waiter.take();
        drop(queue);
        if let Some(waiter) = waiter {
            waiter.unpark();
        }
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub(super) fn try_recv(&self) -> Result<T, Disconnected> {
        let message = self.0.lock().messages.pop_front();
        self.0.taken.notify_one();
        message.ok_or(Disconnected)
    }

    pub(super) fn recv_timeout(&self, time: Duration) -> Result<T, Disconnected> {
        let until = now() + time;
        loop {
            let mut queue = self.0.lock();
            let message = queue.messages.pop_front();
            if message.is_some() || queue.senders == 0 || now() >= until {
                drop(queue);
                self.0.taken.notify_one();
                return message.ok_or(Disconnected);
            }
            queue.waiter = Some(thread::current());
            drop(queue);
            clock::park(Some(until - now()));
        }
    }

    pub(super) fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.lock().receivers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.senders -= 1;
        let waiter = queue.waiter.take();
        drop(queue);
        if let Some(waiter) = waiter {
            waiter.unpark();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.receivers -= 1;
        let left = match queue.receivers {
            0 => std::mem::take(&mut queue.messages),
            _ => VecDeque::new(),
        };
        drop(queue);
        drop(left);
        self.0.taken.notify_all();
    }
}
