//! A request that was admitted, and the one word that the loop and a worker share about it: how far
//! the store is.

use super::desk::Tid;
use super::sync::{AtomicU64, Ordering};
use crate::event::{Name, Summary, TransferId};
use crate::limits::DEFAULT_BLKSIZE;
use crate::wire::{self, Direction, Mode, Options};
use std::time::{Duration, Instant};

/// What was asked. Owned: the datagram is parsed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) direction: Direction,
    pub(super) name: Name,
    pub(super) mode: Mode,
    pub(super) options: Options,
}

impl From<&wire::Request<'_>> for Asked {
    fn from(request: &wire::Request<'_>) -> Self {
        Self {
            direction: request.direction,
            name: Name::new(request.name),
            mode: request.mode,
            options: request.options.clone(),
        }
    }
}

/// A request that was admitted.
#[derive(Debug)]
pub(super) struct AdmittedRequest {
    pub(super) id: TransferId,
    pub(super) tid: Tid,
    pub(super) asked: Asked,
    pub(super) arrived: Instant,
    /// Many peers have not answered: send the opening less often.
    pub(super) tense: bool,
    /// It is a WRQ that comes again from the TID whose upload is complete: a late copy, or the same
    /// once more. Only DATA tells.
    pub(super) may_be_copy: bool,
    /// It was sent to a broadcast address: a refusal is not told, because another server may have
    /// the file.
    pub(super) broadcast: bool,
    /// See [`StoreCall`]: its kind, [`SLOW`], and when the call began in microseconds after the
    /// request arrived.
    call: AtomicU64,
}

/// How far the store is with a request. The first of the two, the loop or a worker, ends the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreCall {
    /// No worker has the request.
    Queued,
    /// The store was asked then. `slow` where the call lost its store slot to others.
    Running { since: Instant, slow: bool },
    /// The store has answered.
    Done,
    /// The peer was told that there is no answer, or the request has made room for others. A late
    /// answer is thrown away.
    Abandoned { slow: bool },
}

const QUEUED: u64 = 0;
const RUNNING: u64 = 1;
const DONE: u64 = 2;
const ABANDONED: u64 = 3;
const KIND: u64 = 3;
const SLOW: u64 = 4;
const SINCE: u32 = 3;

impl AdmittedRequest {
    pub(super) fn new(id: TransferId, tid: Tid, asked: Asked, arrived: Instant) -> Self {
        Self {
            id,
            tid,
            asked,
            arrived,
            tense: false,
            may_be_copy: false,
            broadcast: false,
            call: AtomicU64::new(QUEUED),
        }
    }

    /// What is to be said of a request that ends without having become a transfer.
    pub(super) fn summary(&self, now: Instant) -> Summary {
        Summary {
            id: self.id,
            peer: self.tid.peer,
            local: self.tid.local,
            direction: self.asked.direction,
            name: self.asked.name.clone(),
            bytes: 0,
            duration: now.saturating_duration_since(self.arrived),
            retransmits: 0,
            lossy_windows: 0,
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            rtt: None,
        }
    }

    /// Where the request stands.
    pub(super) fn call(&self) -> StoreCall {
        let word = self.call.load(Ordering::SeqCst);
        let slow = word & SLOW != 0;
        match word & KIND {
            QUEUED => StoreCall::Queued,
            RUNNING => StoreCall::Running {
                since: self.arrived + Duration::from_micros(word >> SINCE),
                slow,
            },
            DONE => StoreCall::Done,
            _ => StoreCall::Abandoned { slow },
        }
    }

    /// Replaces the word where it is of this kind; returns the old one.
    fn change(&self, kind: u64, change: impl Fn(u64) -> u64) -> Option<u64> {
        let change = |word| (word & KIND == kind).then(|| change(word));
        let call = &self.call;
        call.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change)
            .ok()
    }

    // ---- the loop ---------------------------------------------------------------------------

    /// Abandons a request that no worker has got to; false if one has.
    pub(super) fn give_up(&self) -> bool {
        self.change(QUEUED, |_| ABANDONED).is_some()
    }

    /// Abandons a call that runs; false if the store has answered.
    pub(super) fn abandon(&self) -> bool {
        let abandoned = |word| ABANDONED | (word & SLOW);
        self.change(RUNNING, abandoned).is_some()
    }

    /// The call has lost its store slot; false if the store has answered.
    pub(super) fn is_slow(&self) -> bool {
        self.change(RUNNING, |word| word | SLOW).is_some()
    }

    // ---- a worker ---------------------------------------------------------------------------

    /// A worker is about to open a socket and to ask the store; false if it need not any more.
    pub(super) fn ask(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.arrived).as_micros() as u64;
        self.change(QUEUED, |_| RUNNING | since << SINCE).is_some()
    }

    /// There was no socket, so the request goes back into the queue. `None` where it was abandoned
    /// meanwhile; otherwise whether the call has lost its store slot.
    pub(super) fn wait_again(&self) -> Option<bool> {
        let before = self.change(RUNNING, |_| QUEUED)?;
        Some(before & SLOW != 0)
    }

    /// The store has answered. Says whether the answer is wanted, and whether the call has lost its
    /// store slot.
    pub(super) fn answered(&self) -> (bool, bool) {
        let before = self.change(RUNNING, |word| DONE | (word & SLOW));
        let word = before.unwrap_or_else(|| self.call.load(Ordering::SeqCst));
        (before.is_some(), word & SLOW != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::{explore, now};
    use super::*;

    fn opening() -> AdmittedRequest {
        let asked = Asked {
            direction: Direction::Read,
            name: Name::new(b"file"),
            mode: Mode::Octet,
            options: Options::default(),
        };
        let tid = Tid {
            peer: ([127, 0, 0, 1], 1000).into(),
            local: ([127, 0, 0, 1], 69).into(),
        };
        AdmittedRequest::new(TransferId(1), tid, asked, now())
    }

    #[test]
    fn a_call_is_ended_once() {
        explore(|| {
            let opening = opening();
            let since = opening.arrived + Duration::from_micros(1_234_567);
            assert!(!opening.abandon() && !opening.is_slow(), "it does not run");
            assert!(opening.ask(since) && !opening.ask(since));
            let slow = false;
            assert_eq!(opening.call(), StoreCall::Running { since, slow });
            assert!(!opening.give_up(), "a worker has it");
            assert_eq!(opening.answered(), (true, false));
            assert_eq!(opening.call(), StoreCall::Done);
            assert!(!opening.abandon());
        });
    }

    #[test]
    fn a_slow_call_stays_slow_until_it_ends() {
        explore(|| {
            let opening = opening();
            assert!(opening.ask(opening.arrived) && opening.is_slow());
            let (since, slow) = (opening.arrived, true);
            assert_eq!(opening.call(), StoreCall::Running { since, slow });
            assert!(opening.abandon());
            assert_eq!(opening.call(), StoreCall::Abandoned { slow });
            assert_eq!(opening.answered(), (false, true));
        });
    }

    #[test]
    fn a_request_without_a_socket_is_queued_again_unless_it_was_abandoned() {
        explore(|| {
            let opening = opening();
            assert!(opening.ask(opening.arrived));
            assert_eq!(opening.wait_again(), Some(false));
            assert_eq!(opening.call(), StoreCall::Queued);
            assert!(opening.ask(opening.arrived) && opening.is_slow());
            assert_eq!(opening.wait_again(), Some(true));
            assert!(opening.give_up() && !opening.ask(opening.arrived));
            assert_eq!(opening.wait_again(), None);
        });
    }
}
