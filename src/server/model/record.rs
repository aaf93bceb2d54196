//! What has happened in a schedule. Threads may wait for it.

use super::clock;
use super::sync::thread::{self, Thread};
use crate::event::TransferId;
use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static RECORD: RefCell<Record> = RefCell::default();
}

#[derive(Default)]
struct Record {
    /// How often each transfer or request has ended.
    ends: BTreeMap<TransferId, usize>,
    sweeps: usize,
    reloads: usize,
    waiting: Vec<Thread>,
}

fn with<T>(look: impl FnOnce(&mut Record) -> T) -> T {
    RECORD.with_borrow_mut(look)
}

/// Tells one thing that happens, where `TRACE` is set.
pub(super) fn trace(what: impl FnOnce() -> String) {
    thread_local! {
        static IS_HEARD: bool = std::env::var_os("TRACE").is_some();
    }
    if IS_HEARD.with(|is_heard| *is_heard) {
        let name = thread::current().name().unwrap_or("loop").to_owned();
        eprintln!("{:>12?} {name:14} {}", clock::elapsed(), what());
    }
}

pub(super) fn reset() {
    RECORD.take();
}

pub(super) fn ended(id: TransferId) {
    let waiting = with(|record| {
        *record.ends.entry(id).or_default() += 1;
        std::mem::take(&mut record.waiting)
    });
    for thread in waiting {
        thread.unpark();
    }
}

pub(super) fn ends(id: TransferId) -> usize {
    with(|record| record.ends.get(&id).copied().unwrap_or(0))
}

/// Waits for the end of another transfer.
pub(super) fn wait_for_end(id: TransferId) {
    while with(|record| {
        let is_over = record.ends.contains_key(&id);
        if !is_over {
            record.waiting.push(thread::current());
        }
        !is_over
    }) {
        thread::park();
    }
}

pub(super) fn swept() {
    with(|record| record.sweeps += 1);
}

pub(super) fn sweeps() -> usize {
    with(|record| record.sweeps)
}

pub(super) fn reloaded() {
    with(|record| record.reloads += 1);
}

pub(super) fn reloads() -> usize {
    with(|record| record.reloads)
}
