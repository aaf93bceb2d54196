//! A request that was admitted, and how far the store is with it.

use super::desk::Tid;
use crate::event::{Name, Summary, TransferId};
use crate::limits::DEFAULT_BLKSIZE;
use crate::transfer::now;
use crate::wire::{self, Packet};
use std::sync::atomic::AtomicU16;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A request that was admitted.
pub(super) struct Opening {
    pub(super) id: TransferId,
    pub(super) tid: Tid,
    pub(super) datagram: Box<[u8]>,
    pub(super) arrived: Instant,
    /// Many peers have not answered: send the opening less often.
    pub(super) tense: bool,
    /// It is a WRQ that comes again from the TID whose upload is complete: a late copy, or the same once more. Only DATA tells.
    pub(super) may_be_copy: bool,
    /// It was sent to a broadcast address: a refusal is not told, because another server may have
    /// the file.
    pub(super) broadcast: bool,
    /// The port to answer from; 0 lets the system choose. Written before a worker gets the request.
    pub(super) port: AtomicU16,
    pub(super) stage: Mutex<Stage>,
}

/// How far the store is with a request. Worker and loop agree on it under a lock, because either may end the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No worker has it yet, or none any more.
    Queued,
    /// The store was asked then. `slow` where the call takes so long that its place in the store was given to others.
    Asked { since: Instant, slow: bool },
    /// The store has answered.
    Answered,
    /// The peer was told that there is no answer, or the request has made room for others. If an answer comes after all, nobody
    /// wants it.
    GivenUp { slow: bool },
}

impl Opening {
    /// What was asked.
    pub(super) fn request(&self) -> wire::Request<'_> {
        match wire::parse(&self.datagram) {
            Ok(Packet::Request(request)) => request,
            _ => unreachable!("only requests are admitted"),
        }
    }

    /// What is to be said of a request that ends without having become a transfer.
    pub(super) fn summary(&self) -> Summary {
        let wire::Request {
            direction, name, ..
        } = self.request();
        Summary {
            id: self.id,
            peer: self.tid.peer,
            local: self.tid.local,
            direction,
            name: Name::new(name),
            bytes: 0,
            duration: now().saturating_duration_since(self.arrived),
            retransmits: 0,
            torn: 0,
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            rtt: None,
        }
    }

    /// Where the request stands.
    pub(super) fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for it any more, if no worker has got to it; false if one has.
    pub(super) fn give_up(&self) -> bool {
        let mut stage = self.stage();
        let is_queued = *stage == Stage::Queued;
        if is_queued {
            *stage = Stage::GivenUp { slow: false };
        }
        is_queued
    }

    /// A worker is about to open a socket and to ask the store; false if it need not any more.
    pub(super) fn ask(&self) -> bool {
        let mut stage = self.stage();
        let is_wanted = *stage == Stage::Queued;
        if is_wanted {
            let since = now();
            *stage = Stage::Asked { since, slow: false };
        }
        is_wanted
    }

    /// There was no socket, so the store was not asked. False where the request was given up
    /// meanwhile.
    pub(super) fn wait_again(&self) -> bool {
        let mut stage = self.stage();
        let is_wanted = matches!(*stage, Stage::Asked { .. });
        if is_wanted {
            *stage = Stage::Queued;
        }
        is_wanted
    }

    /// The store has answered. Says whether anybody still waits, and whether the place in the store was given away.
    pub(super) fn answered(&self) -> (bool, bool) {
        let mut stage = self.stage();
        match *stage {
            Stage::GivenUp { slow } => (false, slow),
            Stage::Asked { slow, .. } => {
                *stage = Stage::Answered;
                (true, slow)
            }
            Stage::Queued | Stage::Answered => unreachable!("asked once, answered once"),
        }
    }
}
