//! Signals as values. They are blocked in every thread, and one thread waits for them: no signal
//! handler ever runs, and no system call of a transfer is interrupted.
//!
//! Every signal whose default action ends a process without a word is blocked, real-time signals
//! included. Three kinds keep their default: faults of the program itself, which shall dump core;
//! SIGABRT, by which a watchdog asks for that dump; and job control.

use nix::sys::signal::{SigSet, Signal as Number};
use std::io;

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT or SIGTERM; SIGXCPU, which says that the processor time that the process may use is
    /// over: stop.
    Terminate,
    /// SIGQUIT: stop at once.
    Quit,
    /// SIGHUP: open the root again.
    Reload,
    /// SIGUSR1: report the counters.
    Report,
    /// SIGUSR2: log more, or as before.
    Debug,
    /// Another signal, which has no meaning here.
    Other,
}

/// Blocked, and waited for.
const AWAITED: [(Number, Signal); 11] = [
    (Number::SIGINT, Signal::Terminate),
    (Number::SIGTERM, Signal::Terminate),
    (Number::SIGXCPU, Signal::Terminate),
    (Number::SIGQUIT, Signal::Quit),
    (Number::SIGHUP, Signal::Reload),
    (Number::SIGUSR1, Signal::Report),
    (Number::SIGUSR2, Signal::Debug),
    (Number::SIGALRM, Signal::Other),
    (Number::SIGVTALRM, Signal::Other),
    (Number::SIGPROF, Signal::Other),
    (Number::SIGIO, Signal::Other),
];

/// Not blocked. SIGSEGV and SIGBUS have handlers of the standard library, which report a stack
/// overflow.
const DEFAULT: [Number; 11] = [
    Number::SIGSEGV,
    Number::SIGBUS,
    Number::SIGFPE,
    Number::SIGILL,
    Number::SIGTRAP,
    Number::SIGSYS,
    Number::SIGABRT,
    Number::SIGTSTP,
    Number::SIGTTIN,
    Number::SIGTTOU,
    Number::SIGCONT,
];

/// The signals that this process waits for. Made first in `main`, so that every thread inherits the
/// mask.
pub(crate) struct Signals {
    set: SigSet,
}

impl Signals {
    /// Blocks the signals in the calling thread and in every thread it starts from now on.
    ///
    /// The rest, such as SIGXFSZ, which comes beside an error where a file would grow over its
    /// limit, stays pending for good.
    pub(crate) fn block() -> io::Result<Signals> {
        let mut blocked = SigSet::all();
        DEFAULT.iter().for_each(|number| blocked.remove(*number));
        blocked.thread_block()?;
        let set = AWAITED.iter().map(|(number, _)| *number).collect();
        Ok(Signals { set })
    }

    /// Sleeps until one of them comes; its name as well.
    pub(crate) fn wait(&self) -> (Signal, &'static str) {
        loop {
            // sigwait fails only when the set names no signal, and ours does; Linux may still
            // interrupt it.
            let Ok(came) = self.set.wait() else { continue };
            let meaning = AWAITED.iter().find(|(number, _)| *number == came);
            return (meaning.map_or(Signal::Other, |(_, m)| *m), came.as_str());
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
        for (number, meaning) in AWAITED {
            // Goes to this thread only; unblocked it would end the test run.
            raise(number).expect("a signal");
            assert_eq!(signals.wait(), (meaning, number.as_str()));
        }
    }

    #[test]
    fn signals_without_a_meaning_end_nothing() {
        let signals = Signals::block().expect("a signal mask");
        for number in [Number::SIGPIPE, Number::SIGXFSZ, Number::SIGCHLD] {
            raise(number).expect("a signal");
        }
        #[cfg(target_os = "linux")]
        for number in [Number::SIGPWR, Number::SIGSTKFLT] {
            raise(number).expect("a signal");
        }
        raise(Number::SIGUSR1).expect("a signal");
        assert_eq!(signals.wait(), (Signal::Report, "SIGUSR1"));
    }
}
