//! The lanes as the endpoint sees them, and the pool that runs them.

use super::endpoint::{Facts, LaneAccess};
use super::message::Job;
use super::opening::fail;
use super::pool::Pool;
use super::pool_state::PoolState;
use super::shared::Shared;
use super::sync::{Ordering, now};
use super::transfer::{CANCELLED, Ending, STOPPING};
use super::waiting::Waiting;
use crate::error::TransferError;
use crate::event::TransferId;
use crate::limits::SPARE_WORKERS;
use std::sync::Arc;
use std::time::Instant;

/// The real lanes, and the pool that runs them.
pub(super) struct Lanes {
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Pool,
}

impl LaneAccess for Lanes {
    fn facts(&self, lane: usize, id: TransferId, _: Instant) -> Option<Facts> {
        self.shared.pool.lanes[lane].look(id, |waiting| match waiting {
            Waiting::Transfer(transfer) => Facts {
                is_complete: transfer.is_complete(),
                is_established: transfer.is_proven(),
                is_silent: transfer.is_silent(),
                answered: transfer.answered(),
                moved: transfer.moved(),
            },
            Waiting::Request(request) => Facts {
                is_complete: false,
                is_established: false,
                is_silent: false,
                answered: request.since,
                moved: (request.since, 0),
            },
        })
    }

    fn has_unread(&self, lane: usize, id: TransferId) -> bool {
        let has_mail = |waiting: &mut Waiting| match waiting {
            Waiting::Transfer(transfer) => transfer.has_mail(),
            Waiting::Request(_) => false,
        };
        self.shared.pool.lanes[lane].look(id, has_mail) == Some(true)
    }

    fn repeat_request(&mut self, lane: usize, id: TransferId, _: Instant) -> Option<bool> {
        let lane = &self.shared.pool.lanes[lane];
        let is_answered = lane.look(id, |waiting| match waiting {
            Waiting::Transfer(transfer) => transfer.request_repeated(),
            Waiting::Request(_) => false,
        })?;
        if is_answered {
            lane.resume(id);
        }
        Some(is_answered)
    }

    fn recall(&mut self, lane: usize, id: TransferId) {
        self.shared.pool.lanes[lane].recall(id);
    }

    fn end(&mut self, lane: usize, id: TransferId, failure: TransferError) -> Option<Instant> {
        let shared = &self.shared;
        let mut waiting = shared.pool.lanes[lane].take_or_recall(id)?;
        let farewell = match failure {
            TransferError::Stopped => Some(STOPPING),
            TransferError::Cancelled => Some(CANCELLED),
            _ => None,
        };
        let answered = match &mut waiting {
            Waiting::Transfer(transfer) => {
                // The peer of a complete one has all it needs, or will ask in vain for one more
                // ACK.
                if let Some(words) = farewell.filter(|_| !transfer.is_complete()) {
                    transfer.leave(words, || shared.may_refuse(now()));
                }
                shared.conclude(transfer, Ending::Failed(failure));
                transfer.answered()
            }
            Waiting::Request(request) => {
                fail(shared, request, farewell, failure);
                request.since
            }
        };
        // Files are closed by a worker, since that may block.
        self.pool.job(Job::Close(waiting));
        Some(answered)
    }

    fn abandon(&mut self, id: TransferId) {
        // Its lane may not be known yet.
        let mut lanes = self.shared.pool.lanes.iter();
        if let Some(waiting) = lanes.find_map(|lane| lane.abandon(id)) {
            self.pool.job(Job::Close(waiting));
        }
    }

    fn end_turns(&mut self) {
        self.shared.pool.stopping.store(true, Ordering::SeqCst);
    }

    fn may_give_slot_away(&self) -> bool {
        // Only the loop counts up.
        self.shared.pool.slow_calls.load(Ordering::SeqCst) < SPARE_WORKERS
    }

    fn give_slot_away(&mut self) {
        self.shared.pool.give_slot_away();
    }

    fn is_hopeless(&self) -> bool {
        let PoolState {
            slow_calls,
            in_store,
            store_slots,
            ..
        } = &self.shared.pool;
        let no_slot = slow_calls.load(Ordering::SeqCst) >= SPARE_WORKERS
            && in_store.load(Ordering::SeqCst) >= *store_slots;
        self.pool.is_exhausted() || no_slot
    }
}
