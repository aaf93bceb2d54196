//! Messages to the loop, and jobs of the loop for a worker.

use super::Stop;
use super::admitted::AdmittedRequest;
use super::waiting::Waiting;
use crate::event::TransferId;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// A message to the loop.
pub(super) enum Message {
    /// From a worker.
    Reports(Vec<Report>),
    /// From a handle.
    Stop(Stop),
    /// From a handle.
    Cancel(TransferId),
    /// From a handle.
    Reload(Done),
    /// From a handle.
    Check(Done),
}

/// What a worker calls when it has done a job.
pub(super) type Done = Box<dyn FnOnce() + Send>;

/// A message from a worker.
pub(super) enum Report {
    /// The request is a transfer now, in the lane of this number.
    Opened(TransferId, usize),
    /// The peer has acknowledged something.
    Established(TransferId),
    /// The file of an upload is stored, and its last ACK is about to be sent.
    Complete(TransferId),
    /// A transfer that was recalled is parked.
    Parked(TransferId),
    /// There was no socket for it. Where none was free, the request can be tried again.
    NoSocket(Arc<AdmittedRequest>, io::Error),
    /// The transfer is over, or never began.
    Ended {
        id: TransferId,
        /// Whether its peer had acknowledged anything.
        is_proven: bool,
        /// When the peer was last sent something new.
        answered: Instant,
    },
    /// The socket of a transfer that has ended in the loop was closed.
    Closed(TransferId),
    /// The worker of this number is gone.
    Left(usize),
}

/// Work on files that belongs to no transfer, and must not be done by the loop.
pub(super) enum Job {
    /// Unmap files that are not in use.
    Sweep,
    /// Close a transfer's file and socket.
    Close(Waiting),
    /// Reload external state, such as the root directory.
    Reload(Done),
    /// Show that a worker gets to its jobs.
    Check(Done),
}
