//! Counts the system calls that a transfer makes, for the tests that hold their number. Each thread
//! counts its own, so tests do not disturb each other. Compiled into tests only.

use std::cell::Cell;
use std::ops::Sub;

/// System calls by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// `send`, `sendmsg`, `sendmmsg`.
    pub(crate) sends: u64,
    /// `recvmsg`.
    pub(crate) receives: u64,
    /// `ppoll`.
    pub(crate) waits: u64,
    /// `fstat`.
    pub(crate) files: u64,
    /// `fsync` of a file.
    pub(crate) file_syncs: u64,
    /// `fsync` of a directory.
    pub(crate) directory_syncs: u64,
}

impl Sub for Calls {
    type Output = Calls;

    fn sub(self, earlier: Calls) -> Calls {
        Calls {
            sends: self.sends - earlier.sends,
            receives: self.receives - earlier.receives,
            waits: self.waits - earlier.waits,
            files: self.files - earlier.files,
            file_syncs: self.file_syncs - earlier.file_syncs,
            directory_syncs: self.directory_syncs - earlier.directory_syncs,
        }
    }
}

thread_local! {
    static CALLS: Cell<Calls> = const {
        Cell::new(Calls {
            sends: 0,
            receives: 0,
            waits: 0,
            files: 0,
            file_syncs: 0,
            directory_syncs: 0,
        })
    };
}

/// All calls of this thread so far.
pub(crate) fn so_far() -> Calls {
    CALLS.get()
}

/// Counts a call; stands beside it.
pub(super) fn count(add: impl FnOnce(&mut Calls)) {
    let mut calls = CALLS.get();
    add(&mut calls);
    CALLS.set(calls);
}
