//! What other threads hold of a running server.

use super::Stop;
use super::mailbox::Mailbox;
use super::message::Message;
use super::reporter::{Events, Reporter};
use super::shared::Shared;
use crate::event::{Gauges, Stats, TransferId};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// Observes and controls a [`Server`](crate::Server) from any thread, also while another thread
/// joins it. Made by [`Server::handle`](crate::Server::handle).
///
/// A handle may outlive its server. It keeps the counters, and nothing else: no store, no socket,
/// no thread.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) addresses: Arc<[SocketAddr]>,
    pub(super) mailbox: Mailbox<Message>,
    pub(super) reporter: Arc<Reporter>,
    /// Weak: see above.
    pub(super) shared: Weak<Shared>,
}

impl ServerHandle {
    /// The first address that the server listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The addresses that the server listens on, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// False once the server has stopped, by itself or because it was told to.
    pub fn is_running(&self) -> bool {
        !self.reporter.is_closed()
    }

    /// What happens from now on. The queue is bounded: a reader that is too slow misses events and
    /// finds an [`Event::Lagged`](crate::Event::Lagged) instead; the server never waits for it.
    pub fn events(&self) -> Events {
        self.reporter.listen()
    }

    /// What has happened so far, counted. After the server has stopped, the last counts.
    pub fn stats(&self) -> Stats {
        self.reporter.stats()
    }

    /// What the server holds at the moment; all zero once it has stopped.
    pub fn gauges(&self) -> Gauges {
        let shared = self.shared.upgrade().filter(|_| self.is_running());
        shared.map(|shared| shared.gauges()).unwrap_or_default()
    }

    /// Asks the server to stop; [`Server::join`](crate::Server::join) waits for it. A second call
    /// can only hasten the end.
    pub fn stop(&self, stop: Stop) {
        self.mailbox.post(Message::Stop(stop));
    }

    /// Reloads external state of the store ([`Store::reload`](crate::Store::reload)) and forgets
    /// mapped files that are not in use.
    pub fn reload(&self) {
        self.reload_then(|| {});
    }

    /// Reloads, as [`reload`](Self::reload) does, and calls `done` from a worker when the store has
    /// reloaded. A server that stops first drops `done`.
    pub fn reload_then(&self, done: impl FnOnce() + Send + 'static) {
        self.mailbox.post(Message::Reload(Box::new(done)));
    }

    /// Calls `answer` from a worker as soon as the loop and that worker get to it: the check of a
    /// watchdog. `answer` is not called while the loop does not turn, nor while every worker is
    /// blocked in a file or the store. A server that has stopped drops `answer`.
    pub fn check(&self, answer: impl FnOnce() + Send + 'static) {
        self.mailbox.post(Message::Check(Box::new(answer)));
    }

    /// Ends one transfer, if it still runs. The peer gets ERROR 0, and
    /// [`Event::Failed`](crate::Event::Failed) says
    /// [`TransferError::Cancelled`](crate::TransferError::Cancelled). A request that is still
    /// inside the store ends when the store has answered.
    pub fn cancel(&self, id: TransferId) {
        self.mailbox.post(Message::Cancel(id));
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("addresses", &self.addresses)
            .field("is_running", &self.is_running())
            .finish_non_exhaustive()
    }
}
