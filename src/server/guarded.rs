//! Runs and drops an embedder's code, which may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an embedder's code; `None` where it panicked. What it threw is dropped here, and where that
/// panics as well, the second thing is left where it is.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    let thrown = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => return Some(value),
        Err(thrown) => thrown,
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
        std::mem::forget(again);
    }
    None
}

/// Closes a transfer's file and socket, or what the store gave too late. An embedder's source may
/// panic even here.
pub(super) fn close<T>(ended: T) {
    if guarded(|| drop(ended)).is_none() {
        log::error!("a source panicked while it was closed");
    }
}
