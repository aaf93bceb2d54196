//! Which CPUs a measurement may use.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps this thread, and the processes it starts, on one CPU while it lives.
pub(crate) struct Pinned;

impl Pinned {
    pub(crate) fn to_one_cpu() -> Self {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let last = (0..CpuSet::count())
            .rev()
            .find(|&cpu| allowed.is_set(cpu) == Ok(true));
        let mut one = CpuSet::new();
        if last.is_some_and(|cpu| one.set(cpu).is_ok()) {
            let _ = sched_setaffinity(Pid::from_raw(0), &one);
        }
        Self
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        unpin();
    }
}

/// Gives this thread all CPUs back; the kernel leaves out those that are not there.
pub(crate) fn unpin() {
    let mut every = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        let _ = every.set(cpu);
    }
    let _ = sched_setaffinity(Pid::from_raw(0), &every);
}
