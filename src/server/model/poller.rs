//! The counterpart of `server/poller.rs`.

use super::set::{Set, Waker, lock};
use super::waiting::Waiting;
use super::{clock, network};
use crate::event::TransferId;
use shuttle::thread;
use std::io;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Poller {
    set: Set,
    ready: Vec<TransferId>,
}

pub(super) struct Registry(Set);

pub(super) fn poller() -> io::Result<(Poller, Registry, Waker)> {
    let set = Set::default();
    let poller = Poller {
        set: Arc::clone(&set),
        ready: Vec::new(),
    };
    Ok((poller, Registry(Arc::clone(&set)), Waker(set)))
}

impl Poller {
    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        let until = timeout.map(|timeout| clock::now() + timeout);
        loop {
            let mut inner = lock(&self.set);
            self.ready = std::mem::take(&mut inner.arrived);
            let is_woken = std::mem::take(&mut inner.is_woken);
            let now = clock::now();
            if is_woken || !self.ready.is_empty() || until.is_some_and(|until| now >= until) {
                inner.sleeper = None;
                return;
            }
            inner.sleeper = Some(thread::current());
            drop(inner);
            clock::park(until.map(|until| until - now));
        }
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = TransferId> {
        self.ready.iter().copied()
    }
}

impl Registry {
    pub(super) fn register(&self, waiting: &Waiting) {
        network::register(waiting.id(), &self.0);
    }
}
