//! Cancels transfers of a client from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends transfers of a [`Client`](crate::Client) from another thread: see
/// [`Client::cancelled_by`](crate::Client::cancelled_by). Clones cancel the same transfers.
///
/// ```no_run
/// use tftpool::{CancelHandle, Client};
///
/// let cancel = CancelHandle::new();
/// let client = Client::new("192.0.2.1:69").cancelled_by(&cancel);
/// let transfer = std::thread::spawn(move || client.get("boot/vmlinuz"));
/// cancel.cancel();
/// assert!(transfer.join().expect("no panic").is_err());
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<AtomicBool>);

impl CancelHandle {
    /// A handle that has not cancelled anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the transfers that run, within a tenth of a second, and all later ones at once. The
    /// server gets an ERROR, and the call of the client returns
    /// [`ClientError::Cancelled`](crate::ClientError::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once it has cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
