//! The machine between the lines: who else was busy, and whether another comparison runs.

use std::fs::{self, File};
use std::io;
use std::time::{Duration, Instant};

/// Held while a comparison runs: two at once would measure each other.
pub(crate) fn lock() -> io::Result<File> {
    let file = File::create(std::env::temp_dir().join("tftpool-bench.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(io::Error::other(
            "another comparison is running on this machine",
        )),
    }
}

/// One line for the head of the tables.
pub(crate) fn description() -> String {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    format!(
        "Linux {}, {} CPUs, load before the first run {}",
        read("/proc/sys/kernel/osrelease"),
        cpus(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

/// All CPUs of the machine, also those that this thread is kept away from.
fn cpus() -> u32 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let lines = stat
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("cpu"));
    lines.map(|_| 1).sum::<u32>().max(1)
}

/// From here on, how busy were others?
pub(crate) struct Others {
    started: Instant,
    busy: Duration,
}

impl Others {
    pub(crate) fn watch() -> Self {
        Self {
            started: Instant::now(),
            busy: busy(),
        }
    }

    /// The share of all CPU time that went neither to `ours` nor to nobody, the host's theft included.
    pub(crate) fn share(&self, ours: Duration) -> f64 {
        let all = self.started.elapsed() * cpus();
        let others = (busy() - self.busy).saturating_sub(ours);
        others.as_secs_f64() / all.as_secs_f64()
    }
}

/// CPU time of everybody since boot: user, nice, system, interrupts and what the host took, without idle and I/O wait.
fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6, 7].map(|index| fields.get(index).copied().unwrap_or(0));
    Duration::from_millis(10 * busy.iter().sum::<u64>()) // ticks of 10 ms
}
