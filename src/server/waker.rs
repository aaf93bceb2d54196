//! The waker of a request: an embedder keeps it and calls it from any thread when a source has
//! more.
//!
//! Invariant: no wake-up is lost. A call finds the transfer parked, and gives it a turn; or in its
//! turn, and gives it another one; or not in its lane yet, and then its first turn asks the source.

use super::lane::Lane;
use super::sync::{AtomicUsize, Ordering};
use crate::event::TransferId;
use std::sync::{Arc, Weak};
use std::task::Wake;

/// The lane of a request that has none.
const NO_LANE: usize = usize::MAX;

/// Wakes one transfer.
pub(super) struct TransferWaker {
    /// Weak: a waker that outlives its server holds nothing of it.
    lanes: Weak<[Lane]>,
    id: TransferId,
    lane: AtomicUsize,
}

impl TransferWaker {
    pub(super) fn new(lanes: &Arc<[Lane]>, id: TransferId) -> Arc<Self> {
        Arc::new(Self {
            lanes: Arc::downgrade(lanes),
            id,
            lane: AtomicUsize::new(NO_LANE),
        })
    }

    /// The transfer is in this lane, and has its first turn after this call.
    pub(super) fn enters(&self, lane: usize) {
        self.lane.store(lane, Ordering::SeqCst);
    }
}

impl Wake for TransferWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let lane = self.lane.load(Ordering::SeqCst);
        if let Some(lanes) = self.lanes.upgrade()
            && let Some(lane) = lanes.get(lane)
        {
            lane.resume(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::explore;
    use super::*;
    use std::task::Waker;

    /// The moments at which an embedder's call may come, one after the other.
    #[test]
    fn a_waker_does_nothing_before_and_after_its_transfer() {
        explore(|| {
            let lane = || Lane::new().expect("a lane");
            let lanes: Arc<[Lane]> = Arc::new([lane(), lane()]);
            let id = TransferId(1);
            let own = TransferWaker::new(&lanes, id);
            let waker = Waker::from(Arc::clone(&own));
            waker.wake_by_ref(); // the store is asked
            lanes[1].enter(id);
            waker.wake_by_ref();
            own.enters(1);
            waker.wake_by_ref(); // its first turn
            assert!(lanes[1].abandon(id).is_none(), "nothing is parked");
            waker.wake_by_ref(); // it is over
            drop(lanes);
            assert!(own.lanes.upgrade().is_none(), "a waker holds no lane");
            waker.wake();
        });
    }
}
