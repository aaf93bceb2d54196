//! Where one thread waits for a wake-up or for packets.

use crate::event::TransferId;
use shuttle::sync::{Mutex, MutexGuard, PoisonError};
use shuttle::thread::Thread;
use std::io;
use std::sync::Arc;

/// What the sleeper waits for.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) is_woken: bool,
    /// Transfers for which packets have come since the last wait.
    pub(super) arrived: Vec<TransferId>,
    pub(super) sleeper: Option<Thread>,
}

pub(super) type Set = Arc<Mutex<Inner>>;

#[derive(Clone)]
pub(super) struct Waker(pub(super) Set);

pub(super) fn lock(set: &Set) -> MutexGuard<'_, Inner> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes what a sleeper waits for, and ends its sleep.
pub(super) fn change(set: &Set, change: impl FnOnce(&mut Inner)) {
    let mut inner = lock(set);
    change(&mut inner);
    let sleeper = inner.sleeper.take();
    drop(inner);
    if let Some(sleeper) = sleeper {
        sleeper.unpark();
    }
}

impl Waker {
    pub(super) fn wake(&self) -> io::Result<()> {
        change(&self.0, |inner| inner.is_woken = true);
        Ok(())
    }
}
