//! UDP sockets: a [`Listener`] that takes requests and answers from the very address that was
//! asked, and one [`TransferSocket`] per transfer, connected to its peer.
//!
//! Invariants: nothing here waits unless the caller says for how long; what a [`TransferSocket`]
//! receives is from its peer; a datagram is counted as sent only if it left this socket, and no
//! datagram is sent twice.

mod address;
mod listener;
mod options;
mod raw;
mod readable;
mod transfer;

pub(crate) use self::listener::Listener;
pub(crate) use self::options::ephemeral_ports;
#[cfg(feature = "cli")]
pub(crate) use self::options::{hear_errors, make_room};
pub(crate) use self::raw::wait_for;
pub(crate) use self::readable::Readable;
pub(crate) use self::transfer::{Readiness, Reply, SocketOptions, Taken, TransferSocket, Wait};
pub(crate) use super::burst::{Block, Offload, Payload};

use super::burst;

#[cfg(test)]
pub(crate) mod tests;
