//! What stores and transfers do.

use super::clock;
use super::sync::{AtomicBool, Ordering};
use crate::event::TransferId;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// What a source has, or has not yet.
#[derive(Clone)]
pub(super) struct News(Arc<AtomicBool>);

impl News {
    /// They come after this time, and then the source calls the waker.
    pub(super) fn after(time: Duration, waker: Waker) -> Self {
        let news = Self(Arc::new(AtomicBool::new(false)));
        let told = news.clone();
        clock::after(time, move || {
            told.0.store(true, Ordering::SeqCst);
            waker.wake();
        });
        news
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the store does with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum StoreScript {
    Answers,
    /// After a time.
    Takes(Duration),
    /// When another transfer is over.
    HeldBy(TransferId),
    Refuses,
    Panics,
    /// With a future, whose source is there after this time.
    Later(Duration),
    /// There is no socket at first.
    NoSocketAtFirst,
}

/// What a transfer does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// It sends a block, and the answer arrives after this time.
    Block(Duration),
    /// Its source has nothing for a time, and then wakes it.
    Source(Duration),
    /// It has nothing to do for a time.
    Pause(Duration),
    /// It uses its slice.
    Slice,
    /// It blocks in a file for a time.
    Held(Duration),
    /// It blocks in a sink, inside a receive, until another transfer is over.
    HeldBy(TransferId),
    /// Its file is stored, and its last ACK leaves.
    Complete,
    /// It waits for a packet that does not come.
    Wait,
    /// A source panics, inside what catches that.
    Panic,
    /// The worker itself panics behind this turn, which no code of an embedder can bring about.
    Die,
}
