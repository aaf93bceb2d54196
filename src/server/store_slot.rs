//! How many workers may be inside the store at once.

use super::shared::Shared;
use super::sync::Ordering;
use std::sync::Arc;

/// The right to be inside the store.
pub(super) struct StoreSlot {
    shared: Arc<Shared>,
    is_held: bool,
}

impl StoreSlot {
    pub(super) fn take(shared: &Arc<Shared>) -> Option<Self> {
        let most = shared.pool.store_slots;
        let more = |taken| (taken < most).then_some(taken + 1);
        // In one step: a count that is too high for a moment would send others to sleep beside a
        // waiting request.
        let taken = shared
            .pool
            .in_store
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.is_ok().then(|| Self {
            shared: Arc::clone(shared),
            is_held: true,
        })
    }

    /// The store has answered; where it took long, the loop has given the place to others already.
    pub(super) fn give_back(mut self, is_slow: bool) {
        if is_slow {
            self.is_held = false;
            self.shared.pool.slow_calls.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for StoreSlot {
    fn drop(&mut self) {
        if self.is_held {
            self.shared.pool.free_slot();
        }
    }
}
