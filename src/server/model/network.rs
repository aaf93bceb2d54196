//! The network: each transfer has a socket, on which packets arrive.

use super::clock;
use super::set::{Set, change};
use crate::event::TransferId;
use shuttle::thread::{self, Thread};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    static SOCKETS: RefCell<BTreeMap<TransferId, Socket>> = RefCell::default();
}

#[derive(Default)]
struct Socket {
    unread: usize,
    set: Option<Set>,
    /// The thread that waits for packets of this socket alone.
    reader: Option<Thread>,
}

fn sockets<T>(look: impl FnOnce(&mut BTreeMap<TransferId, Socket>) -> T) -> T {
    SOCKETS.with_borrow_mut(look)
}

/// Forgets all sockets.
pub(super) fn reset() {
    let sockets = SOCKETS.take();
    drop(sockets);
}

/// A packet arrives.
pub(super) fn arrive(id: TransferId) {
    let Some((set, reader)) = sockets(|sockets| {
        let socket = sockets.get_mut(&id)?;
        socket.unread += 1;
        Some((socket.set.clone(), socket.reader.take()))
    }) else {
        return;
    };
    if let Some(reader) = reader {
        reader.unpark();
    }
    if let Some(set) = set {
        change(&set, |inner| inner.arrived.push(id));
    }
}

/// The socket of a transfer, or of a request that becomes one.
pub(super) struct Link {
    id: TransferId,
}

impl Link {
    pub(super) fn open(id: TransferId) -> Self {
        sockets(|sockets| sockets.insert(id, Socket::default()));
        Self { id }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let socket = sockets(|sockets| sockets.remove(&self.id));
        drop(socket);
    }
}

pub(super) fn has_unread(id: TransferId) -> bool {
    sockets(|sockets| sockets.get(&id).is_some_and(|socket| socket.unread > 0))
}

/// Takes a packet that has arrived.
pub(super) fn receive(id: TransferId) -> bool {
    thread::sleep(Duration::ZERO); // others may run
    sockets(|sockets| {
        let Some(socket) = sockets.get_mut(&id).filter(|socket| socket.unread > 0) else {
            return false;
        };
        socket.unread -= 1;
        true
    })
}

/// Waits for a packet, no longer than a time.
pub(super) fn receive_within(id: TransferId, time: Duration) -> bool {
    let until = clock::now() + time;
    loop {
        if receive(id) {
            return true;
        }
        let now = clock::now();
        if now >= until {
            return false;
        }
        sockets(|sockets| {
            if let Some(socket) = sockets.get_mut(&id) {
                socket.reader = Some(thread::current());
            }
        });
        clock::park(Some(until - now));
    }
}

/// Has packets of this socket end the waits of a poller, also those that have come.
pub(super) fn register(id: TransferId, set: &Set) {
    let unread = sockets(|sockets| {
        let socket = sockets.entry(id).or_default();
        socket.set = Some(Arc::clone(set));
        socket.unread
    });
    if unread > 0 {
        change(set, |inner| inner.arrived.push(id));
    }
}
