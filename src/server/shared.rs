//! What the loop and all workers share.

use super::bucket::TokenBucket;
use super::idle::Idle;
use super::lane::Lane;
use super::memory::{Advice, ClientHistory};
use super::reporter::Reporter;
use crate::event::{Event, Gauges};
use crate::proto::{Policy, Terms};
use crate::store::Store;
use crate::store::mappings::Mappings;
use crate::transfer::{Buffers, Ending, Outset, SocketOptions, Transfer, now};
use crate::wire::Options;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What all workers share.
pub(super) struct Shared {
    pub(super) store: Box<dyn Store>,
    pub(super) mappings: Mappings,
    /// Outlives the rest where a handle does.
    pub(super) reporter: Arc<Reporter>,
    pub(super) buffers: Arc<Buffers>,
    /// ERROR replies to requests that were refused.
    pub(super) refusals: Mutex<TokenBucket>,
    /// What clients have taught; locked once when a transfer opens, and once when it ends.
    pub(super) memory: Option<Mutex<ClientHistory>>,
    pub(super) terms: Terms,
    pub(super) policy: Policy,
    pub(super) fit_route: bool,
    pub(super) sockets: SocketOptions,
    /// Workers there may be inside the store at once, so that a slow one leaves the others to
    /// running transfers.
    pub(super) store_slots: usize,
    pub(super) in_store: AtomicUsize,
    /// How long a source, or a block of it, may take.
    pub(super) store_deadline: Duration,
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
    /// Requests that are no transfers yet, and half-open transfers, as the loop has counted them in
    /// its last turn.
    pub(super) requests: AtomicUsize,
    pub(super) half_open: AtomicUsize,
}

impl Shared {
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

impl Shared {
    /// What the server holds.
    pub(super) fn gauges(&self) -> Gauges {
        let lanes = || self.lanes.iter();
        let in_store =
            self.in_store.load(Ordering::Relaxed) + self.slow_calls.load(Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        Gauges {
            running: lanes().map(Lane::count).sum(),
            parked: lanes().map(Lane::parked).sum(),
            queued: requests.saturating_sub(in_store),
            half_open: self.half_open.load(Ordering::Relaxed),
            in_store,
            workers: self.workers.load(Ordering::Relaxed),
            buffered_bytes: self.buffers.held(),
        }
    }

    /// A transfer has ended: learns from it, then tells everybody. Once.
    pub(super) fn conclude(&self, transfer: &mut Transfer, ending: Ending) {
        if !transfer.conclude() {
            return;
        }
        let summary = transfer.summary();
        let peer = summary.peer;
        let learn = |memory: &Mutex<ClientHistory>| {
            let course = transfer.course(&ending)?;
            // An ERROR from the right port is an answer too: its sender has seen the OACK.
            if !transfer.is_proven() && course.outset != Outset::Refused {
                return None;
            }
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.learn(peer, transfer.asked(), &course, now())
        };
        let learned = self.memory.as_ref().and_then(learn);
        self.reporter.report(match ending {
            Ending::Completed => Event::Completed(summary),
            Ending::Probed => Event::Probe(summary),
            Ending::Failed(failure) => Event::Failed(summary, failure),
        });
        if let Some(limit) = learned {
            self.reporter.report(Event::ClientLimited { peer, limit });
        }
    }

    /// Whether one more ERROR may go to a peer that has not answered anything.
    pub(super) fn may_refuse(&self, now: Instant) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.take(now)
    }

    /// What this peer is granted at most.
    pub(super) fn advise(&self, peer: SocketAddr, asked: &Options) -> Advice {
        let Some(memory) = self.memory.as_ref().filter(|_| !asked.is_empty()) else {
            return Advice::default();
        };
        let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.advise(peer, asked, now())
    }
}
