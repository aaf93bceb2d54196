//! The threads, locks, queues and clock of the files that decide which thread does what.
//!
//! Those files take these names from `super::sync`. The tests in `model` compile the same files
//! again beside a `sync` of their own, in which `shuttle` decides which thread goes on.

pub(super) use crate::transfer::now;
pub(super) use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
pub(super) use mio::Waker;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};
pub(super) use std::thread;

/// Runs a test once; its counterpart in `model` runs it under many schedules.
#[cfg(test)]
pub(super) fn explore(test: impl Fn() + Send + Sync + 'static) {
    test();
}
