//! What waits in a lane: a transfer, or a request that may become one.

use super::pending::PendingRequest;
use super::transfer::Transfer;
use crate::event::TransferId;

/// What waits in a lane.
pub(super) enum Waiting {
    Transfer(Box<Transfer>),
    /// A request whose source is not there yet.
    Request(Box<PendingRequest>),
}

impl Waiting {
    pub(super) fn id(&self) -> TransferId {
        match self {
            Self::Transfer(transfer) => transfer.id(),
            Self::Request(request) => request.opening.id,
        }
    }
}
