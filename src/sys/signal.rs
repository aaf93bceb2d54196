//! Signals as values. They are blocked in every thread, and one thread waits for them: nothing ever runs in a signal
//! handler, and no system call of a transfer is interrupted.

use nix::sys::signal::{SigSet, Signal as Number};
use std::io;

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT or SIGTERM: stop.
    Terminate,
    /// SIGHUP: open the root again.
    Reload,
}

/// The signals that this process waits for. Made first in `main`, so that every thread inherits the mask.
pub(crate) struct Signals {
    set: SigSet,
}

impl Signals {
    /// Blocks the signals in the calling thread and in every thread it starts from now on.
    pub(crate) fn block() -> io::Result<Signals> {
        let set = SigSet::from_iter([Number::SIGINT, Number::SIGTERM, Number::SIGHUP]);
        set.thread_block()?;
        // Comes beside the error where a file would grow over its limit, and would end the process.
        SigSet::from(Number::SIGXFSZ).thread_block()?;
        Ok(Signals { set })
    }

    /// Sleeps until one of them comes.
    pub(crate) fn wait(&self) -> Signal {
        loop {
            match self.set.wait() {
                Ok(Number::SIGHUP) => return Signal::Reload,
                Ok(_) => return Signal::Terminate,
                // sigwait fails only when the set names no signal, and ours does; Linux may still interrupt it.
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn a_signal_waits_to_be_asked_for() {
        let signals = Signals::block().expect("a signal mask");
        for (number, meaning) in [
            (Number::SIGHUP, Signal::Reload),
            (Number::SIGTERM, Signal::Terminate),
            (Number::SIGINT, Signal::Terminate),
        ] {
            // Goes to this thread only; unblocked it would end the test run.
            raise(number).expect("a signal");
            assert_eq!(signals.wait(), meaning);
        }
    }
}
