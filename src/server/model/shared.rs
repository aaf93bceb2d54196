//! The counterpart of `server/shared.rs`: the real pool, and scripts in place of a store.

use super::pool_state::PoolState;
use super::record;
use super::script::{Deed, StoreScript};
use super::set::Waker;
use super::transfer::{Ending, Transfer};
use crate::event::TransferId;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

pub(super) struct Shared {
    pub(super) pool: PoolState,
    pub(super) store_deadline: Duration,
    /// Wakes the loop, which does not hear of all jobs and ends otherwise.
    pub(super) waker: Waker,
    /// A worker panics.
    pub(super) is_deadly: bool,
    pub(super) scripts: BTreeMap<TransferId, (StoreScript, Vec<Deed>)>,
}

impl Shared {
    pub(super) fn conclude(&self, transfer: &mut Transfer, _: Ending) {
        if transfer.conclude() {
            record::ended(transfer.id());
            if self.is_deadly {
                // The report of a worker that panics afterwards is lost.
                let _ = self.waker.wake();
            }
        }
    }

    pub(super) fn may_refuse(&self, _: Instant) -> bool {
        true
    }

    pub(super) fn tell_progress(&self, transfer: &mut Transfer) {
        if transfer.is_deadly {
            record::ended(transfer.id());
            let _ = self.waker.wake();
            resume_unwind(Box::new("a worker panics"));
        }
    }

    pub(super) fn sweep(&self) {
        record::swept();
        let _ = self.waker.wake();
    }

    pub(super) fn reload(&self) {
        record::reloaded();
        let _ = self.waker.wake();
    }
}
