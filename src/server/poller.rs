//! Where the runner of a lane waits for packets: mio's poller with identifiers of transfers.

use crate::event::TransferId;
use crate::limits::LOOP_TICK;
use crate::sys::udp::wait_for;
use crate::transfer::Transfer;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::os::fd::AsRawFd;
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
            let _ = wait_for(self.poll.as_raw_fd(), short);
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
    /// Has the poller wait for packets of this transfer.
    pub(super) fn register(&self, transfer: &Transfer) {
        let descriptor = transfer.as_raw_fd();
        let token = Token(transfer.id().0 as usize);
        // Where the system refuses, the timers still find what came.
        let _ = self
            .0
            .register(&mut SourceFd(&descriptor), token, Interest::READABLE);
    }
}
