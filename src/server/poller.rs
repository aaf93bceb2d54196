//! Where the runner of a lane waits for packets: mio's poller with identifiers of transfers.

use super::waiting::Waiting;
use crate::event::TransferId;
use crate::limits::LOOP_TICK;
use crate::sys::udp::wait_for;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::time::Duration;

/// The waker's token; transfers have the numbers of their identifiers.
const WAKER: Token = Token(usize::MAX);
/// Readiness events taken from the system at once.
const EVENTS: usize = 1024;

/// The end that waits.
pub(super) struct Poller {
    poll: Poll,
    events: Events,
}

/// The end that adds transfers.
pub(super) struct Registry(mio::Registry);

/// A poller without transfers, and what ends its sleep.
pub(super) fn poller() -> io::Result<(Poller, Registry, Waker)> {
    let poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let waker = Waker::new(&registry, WAKER)?;
    let events = Events::with_capacity(EVENTS);
    Ok((Poller { poll, events }, Registry(registry), waker))
}

impl Poller {
    /// Waits for packets or the waker, no longer than `timeout`.
    pub(super) fn wait(&mut self, mut timeout: Option<Duration>) {
        // mio counts in milliseconds, rounded up.
        if let Some(short) = timeout.filter(|time| !time.is_zero() && *time < LOOP_TICK) {
            let _ = wait_for(&self.poll, short);
            timeout = Some(Duration::ZERO);
        }
        if self.poll.poll(&mut self.events, timeout).is_err() {
            self.events.clear(); // interrupted by a signal
        }
    }

    /// The transfers for which packets have come, as of the last wait.
    pub(super) fn ready(&self) -> impl Iterator<Item = TransferId> {
        let transfers = self.events.iter().filter(|event| event.token() != WAKER);
        transfers.map(|event| TransferId(event.token().0 as u64))
    }
}

impl Registry {
    /// Has the poller wait for packets of what waits in a lane.
    pub(super) fn register(&self, waiting: &Waiting) {
        let token = Token(waiting.id().0 as usize);
        let mut readable = match waiting {
            Waiting::Transfer(transfer) => transfer.readable(),
            Waiting::Request(request) => request.link.readable(),
        };
        // Where the system refuses, the timers still find what came.
        let _ = self.0.register(&mut readable, token, Interest::READABLE);
    }
}
