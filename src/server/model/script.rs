//! What stores and transfers do.

use crate::event::TransferId;
use std::time::Duration;

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
    /// There is no socket at first.
    NoSocketAtFirst,
}

/// What a transfer does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// It sends a block, and the answer arrives after this time.
    Block(Duration),
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
