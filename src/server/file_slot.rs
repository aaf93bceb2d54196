//! The workers that may run slow transfers at once, so that others are left for the lanes.

use super::shared::Shared;
use super::sync::Ordering;
use std::sync::Arc;

/// Held by a worker while it runs a slow transfer.
pub(super) struct FileSlot {
    shared: Arc<Shared>,
}

impl FileSlot {
    pub(super) fn take(shared: &Arc<Shared>) -> Option<Self> {
        let pool = &shared.pool;
        let most = pool.file_slots();
        let more = |taken| (taken < most).then_some(taken + 1);
        let taken = pool
            .in_files
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.is_ok().then(|| Self {
            shared: Arc::clone(shared),
        })
    }
}

impl Drop for FileSlot {
    fn drop(&mut self) {
        let pool = &self.shared.pool;
        pool.in_files.fetch_sub(1, Ordering::SeqCst);
        // A worker may have gone to sleep beside the queue.
        pool.idle.wake();
    }
}
