//! What a server says is not believed: what may come is compared with what was announced.

use super::cancel::CancelHandle;
use super::error::ClientError;
use crate::error::Refusal;
use crate::proto::Agreed;
use crate::store::Sink;
use crate::transfer::{GIVEN_UP, Surroundings};
use crate::wire::{Direction, ErrorCode, Mode};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the server may send, and what it says about it. Shared by the sink and the loop around it.
pub(super) struct Guard {
    most: u64,
    /// Sizes count octets as they are sent.
    is_exact: bool,
    /// Octets of the file, as announced; [`UNKNOWN`] where they were not.
    size: AtomicU64,
    /// Why the sink took no more.
    pub(super) trouble: OnceLock<ClientError>,
    cancel: CancelHandle,
}

const UNKNOWN: u64 = u64::MAX;

impl Guard {
    pub(super) fn new(most: u64, mode: Mode, cancel: CancelHandle) -> Self {
        Self {
            most,
            is_exact: mode == Mode::Octet,
            size: AtomicU64::new(UNKNOWN),
            trouble: OnceLock::new(),
            cancel,
        }
    }

    /// 0 is what servers say that do not know, and nothing to hold an empty file to.
    pub(super) fn announce(&self, size: Option<u64>) {
        let size = size.filter(|size| *size > 0);
        let size = size.map_or(UNKNOWN, |size| size.min(UNKNOWN - 1));
        self.size.store(size, Ordering::Relaxed);
    }

    pub(super) fn announced(&self) -> Option<u64> {
        let size = self.size.load(Ordering::Relaxed);
        (size != UNKNOWN).then_some(size)
    }

    /// Whether what the server offers will do.
    pub(super) fn agreed(&self, agreed: &Agreed, direction: Direction) -> Result<(), Refusal> {
        if direction == Direction::Read {
            self.announce(agreed.tsize);
            if self.announced().is_some_and(|size| size > self.most) {
                return Err(self.too_large());
            }
        }
        Ok(())
    }

    fn refuse(&self, failure: ClientError, text: &'static str) -> Refusal {
        let _ = self.trouble.set(failure);
        Refusal::new(ErrorCode::DISK_FULL, text)
    }

    fn too_large(&self) -> Refusal {
        self.refuse(
            ClientError::TooLarge { limit: self.most },
            "file is too large",
        )
    }

    /// Whether `received` octets may have come so far, or are the whole file.
    fn check(&self, received: u64, is_whole: bool) -> Result<(), Refusal> {
        if received > self.most {
            return Err(self.too_large());
        }
        match self.announced().filter(|_| self.is_exact) {
            Some(announced) if received > announced || (is_whole && received < announced) => {
                let failure = ClientError::SizeDiffers {
                    announced,
                    received,
                };
                Err(self.refuse(failure, "not the size that was announced"))
            }
            _ => Ok(()),
        }
    }
}

impl Surroundings for Guard {
    fn others_wait(&self) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn farewell(&self) -> &'static str {
        GIVEN_UP
    }

    fn is_dedicated(&self) -> bool {
        true
    }
}

/// A sink that takes what may come, and leaves the caller's for the next attempt.
pub(super) struct Guarded<'a, 'b> {
    pub(super) sink: &'a mut Option<Box<dyn Sink + 'b>>,
    pub(super) guard: &'a Guard,
    pub(super) total: u64,
}

impl Sink for Guarded<'_, '_> {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.total = self.total.saturating_add(octets.len() as u64);
        self.guard.check(self.total, false)?;
        match self.sink {
            Some(sink) => sink.append(octets),
            None => Ok(()),
        }
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        self.guard.check(self.total, true)?;
        match self.sink.take() {
            Some(sink) => sink.commit(),
            None => Ok(()),
        }
    }
}
