//! What the loop and all workers share.

use super::bucket::TokenBucket;
use super::guarded::guarded;
use super::lane::Lane;
use super::memory::{Advice, ClientHistory};
use super::pool_state::PoolState;
use super::reporter::Reporter;
use crate::event::{Event, Gauges};
use crate::proto::{Policy, Terms};
use crate::store::Store;
use crate::store::mappings::Mappings;
use crate::transfer::{Buffers, Ending, Outset, SocketOptions, Transfer, now};
use crate::wire::Options;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// How long a source, or a block of it, may take.
    pub(super) store_deadline: Duration,
    pub(super) pool: PoolState,
    /// Requests that are no transfers yet, and half-open transfers, as the loop has counted them in
    /// its last turn.
    pub(super) requests: AtomicUsize,
    pub(super) half_open: AtomicUsize,
}

impl Shared {
    /// What the server holds.
    pub(super) fn gauges(&self) -> Gauges {
        let lanes = || self.pool.lanes.iter();
        let in_store = self.pool.in_store.load(Ordering::Relaxed)
            + self.pool.slow_calls.load(Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        Gauges {
            running: lanes().map(Lane::count).sum(),
            parked: lanes().map(Lane::parked).sum(),
            queued: requests.saturating_sub(in_store),
            half_open: self.half_open.load(Ordering::Relaxed),
            in_store,
            workers: self.pool.workers.load(Ordering::Relaxed),
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

    /// Reports how far a transfer is. Costs one look at a flag while nobody reads events.
    pub(super) fn tell_progress(&self, transfer: &mut Transfer) {
        if self.reporter.is_heard()
            && let Some(progress) = transfer.progress()
        {
            self.reporter.report(progress);
        }
    }

    /// Unmaps files that are not in use.
    pub(super) fn sweep(&self) {
        self.mappings.sweep(now());
    }

    /// Reloads external state, such as the root directory.
    pub(super) fn reload(&self) {
        self.mappings.clear();
        if guarded(|| self.store.reload()).is_none() {
            log::error!("the store panicked while it was reloaded");
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
