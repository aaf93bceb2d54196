//! Whether the turns of a transfer block their thread, as reads from a disk or a file server do,
//! or a sink that stores.

use super::sync::{AtomicUsize, Ordering};
use std::time::Duration;

/// A turn that takes this long has probably blocked: a turn sends 128 KiB at most.
const SLOW_TURN: Duration = Duration::from_millis(2);
/// Turns in a row that do not block before a slow transfer is quick again. A disk is read ahead, so
/// most turns of a transfer that waits for one are quick.
const SLOW_TURNS: u8 = 32;

/// What is known about the next turn of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speed {
    #[default]
    Quick,
    /// Its last turn took long, perhaps because its thread waited for a processor.
    Suspect,
    /// Its turns block. So many quick ones in a row make it quick.
    Slow(u8),
}

impl Speed {
    /// True where a lane must not be held during its turn.
    pub(super) fn is_slow(self) -> bool {
        matches!(self, Self::Slow(_))
    }

    /// After a turn of this length, during which the thread of a suspect has slept, or has not.
    #[must_use]
    pub(super) fn after(self, length: Duration, has_slept: bool) -> Self {
        match self {
            Self::Slow(left) if length < SLOW_TURN && left > 1 => Self::Slow(left - 1),
            _ if length < SLOW_TURN => Self::Quick,
            Self::Quick => Self::Suspect,
            Self::Suspect if !has_slept => Self::Suspect,
            Self::Suspect | Self::Slow(_) => Self::Slow(SLOW_TURNS),
        }
    }
}

/// The speed of something that several threads do. What one of them overwrites is seen again.
#[derive(Default)]
pub(super) struct SharedSpeed(AtomicUsize);

impl SharedSpeed {
    const SUSPECT: usize = 1;
    const SLOW: usize = 2;

    pub(super) fn get(&self) -> Speed {
        match self.0.load(Ordering::SeqCst) {
            0 => Speed::Quick,
            Self::SUSPECT => Speed::Suspect,
            code => Speed::Slow(u8::try_from(code - Self::SLOW).unwrap_or(u8::MAX)),
        }
    }

    pub(super) fn set(&self, speed: Speed) {
        let code = match speed {
            Speed::Quick => 0,
            Speed::Suspect => Self::SUSPECT,
            Speed::Slow(left) => Self::SLOW + usize::from(left),
        };
        if self.0.load(Ordering::SeqCst) != code {
            self.0.store(code, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = SLOW_TURN;
    const SHORT: Duration = Duration::from_micros(10);

    #[test]
    fn two_turns_that_block_make_a_transfer_slow() {
        let suspect = Speed::Quick.after(LONG, true);
        assert_eq!(suspect, Speed::Suspect);
        assert!(suspect.after(LONG, true).is_slow());
        assert_eq!(suspect.after(SHORT, true), Speed::Quick);
        // Its thread has waited for a processor only.
        assert_eq!(suspect.after(LONG, false), Speed::Suspect);
        assert_eq!(Speed::Quick.after(SHORT, true), Speed::Quick);
    }

    #[test]
    fn a_shared_speed_is_what_was_set() {
        super::super::sync::explore(|| {
            let shared = SharedSpeed::default();
            for speed in [
                Speed::Quick,
                Speed::Suspect,
                Speed::Slow(1),
                Speed::Slow(32),
            ] {
                shared.set(speed);
                assert_eq!(shared.get(), speed);
            }
        });
    }

    #[test]
    fn a_slow_transfer_is_quick_after_many_quick_turns_in_a_row() {
        let mut speed = Speed::Slow(SLOW_TURNS);
        for _ in 1..SLOW_TURNS {
            speed = speed.after(SHORT, false);
            assert!(speed.is_slow());
        }
        assert_eq!(speed.after(LONG, false), Speed::Slow(SLOW_TURNS));
        assert_eq!(speed.after(SHORT, false), Speed::Quick);
    }
}
