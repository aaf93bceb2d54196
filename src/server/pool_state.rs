//! What the loop and the workers share about who works: the idle workers, the lanes, and how many
//! workers are inside the store.

use super::idle::Idle;
use super::lane::Lane;
use super::sync::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

/// Who works, and at what.
pub(super) struct PoolState {
    /// Workers there may be inside the store at once, so that a slow one leaves the others to
    /// running transfers.
    pub(super) store_slots: usize,
    pub(super) in_store: AtomicUsize,
    /// Calls into it that were slow enough to lose their store slot.
    pub(super) slow_calls: AtomicUsize,
    /// Workers there may be, and are; more while some are stuck.
    pub(super) most_workers: usize,
    pub(super) workers: AtomicUsize,
    /// Workers that have nothing to do.
    pub(super) idle: Idle,
    /// Running transfers are to end at once.
    pub(super) stopping: AtomicBool,
    /// Where transfers wait.
    pub(super) lanes: Arc<[Lane]>,
    /// The loop looks for workers that block while they run a lane.
    pub(super) is_watching: AtomicBool,
}

impl PoolState {
    pub(super) fn new(most_workers: usize, store_slots: usize, lanes: Arc<[Lane]>) -> Self {
        Self {
            store_slots,
            in_store: AtomicUsize::new(0),
            slow_calls: AtomicUsize::new(0),
            most_workers,
            workers: AtomicUsize::new(0),
            idle: Idle::default(),
            stopping: AtomicBool::new(false),
            lanes,
            is_watching: AtomicBool::new(false),
        }
    }

    /// One place in the store is free again.
    pub(super) fn free_slot(&self) {
        if self.in_store.fetch_sub(1, Ordering::SeqCst) == self.store_slots {
            self.wake_one(); // a worker may have gone to sleep beside the queue of requests
        }
    }

    /// Wakes a worker for what is in the queues. False where none sleeps.
    pub(super) fn wake_one(&self) -> bool {
        let has_free_lane = || self.lanes.iter().any(Lane::is_free);
        if self.idle.count() > 0 && has_free_lane() && self.idle.wake() {
            return true;
        }
        let asleep = self.lanes.iter().filter(|lane| lane.is_asleep());
        let least = asleep.min_by_key(|lane| lane.count());
        least.is_some_and(Lane::wake) || self.idle.wake()
    }

    /// Workers that have nothing to do, with those that wait for packets.
    pub(super) fn asleep(&self) -> usize {
        let lanes = self.lanes.iter().filter(|lane| lane.is_asleep());
        self.idle.count() + lanes.count()
    }

    /// A slow call has lost its store slot.
    pub(super) fn give_slot_away(&self) {
        self.slow_calls.fetch_add(1, Ordering::SeqCst);
        self.free_slot();
    }

    /// Whether a worker may go that was stuck, or has had nothing to do: there are others.
    pub(super) fn leave_to_others(&self) -> bool {
        let fewer = |workers| (workers > self.most_workers).then(|| workers - 1);
        self.workers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
            .is_ok()
    }
}
