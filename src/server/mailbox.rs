//! Messages to the loop, which sleeps in `poll` and not on a channel: a queue with a bell.

use super::sync::{AtomicBool, Ordering, Receiver, Sender, Waker, bounded};
use std::sync::Arc;
use std::time::Duration;

/// The sending end, one per thread.
pub(super) struct Mailbox<T> {
    queue: Sender<T>,
    bell: Arc<Bell>,
}

/// The loop's end.
pub(super) struct Mail<T> {
    queue: Receiver<T>,
    bell: Arc<Bell>,
}

struct Bell {
    waker: Waker,
    /// The loop is about to sleep, or sleeps: only then the bell costs a system call.
    asleep: AtomicBool,
}

/// A queue of `capacity` messages; a sender waits when it is full.
pub(super) fn mailbox<T>(capacity: usize, waker: Waker) -> (Mailbox<T>, Mail<T>) {
    let (sender, receiver) = bounded(capacity);
    let bell = Arc::new(Bell {
        waker,
        asleep: AtomicBool::new(false),
    });
    (
        Mailbox {
            queue: sender,
            bell: Arc::clone(&bell),
        },
        Mail {
            queue: receiver,
            bell,
        },
    )
}

impl<T> Mailbox<T> {
    /// Posts a message. Without a loop it goes nowhere, which is what the end of the server means.
    pub(super) fn post(&self, message: T) {
        if self.queue.send(message).is_ok() {
            self.ring();
        }
    }
}

impl<T> Mailbox<T> {
    /// Wakes the loop without a message.
    pub(super) fn ring(&self) {
        // Fails only where the descriptor is broken; the loop's own timeout comes then.
        if self.bell.asleep.swap(false, Ordering::SeqCst) {
            let _ = self.bell.waker.wake();
        }
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<T> Mail<T> {
    /// The next message that is there.
    pub(super) fn take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// The next message, waiting for it no longer than `patience`: for when there is nothing else
    /// to wait for.
    pub(super) fn wait(&self, patience: Duration) -> Option<T> {
        self.queue.recv_timeout(patience).ok()
    }

    /// Call before sleeping; returns zero if there is mail after all. A message posted and a bell
    /// rung from now on end the sleep. What `timeout` looks at may have changed just before, so it
    /// is asked afterwards how long to sleep.
    pub(super) fn before_sleep(
        &self,
        timeout: impl FnOnce() -> Option<Duration>,
    ) -> Option<Duration> {
        self.bell.asleep.store(true, Ordering::SeqCst);
        let timeout = timeout();
        if self.queue.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        }
    }

    /// Call after sleeping.
    pub(super) fn after_sleep(&self) {
        self.bell.asleep.store(false, Ordering::SeqCst);
    }
}
