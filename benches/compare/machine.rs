//! The machine between the lines: who else was busy, and whether another comparison runs.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How many processes were busy in the last minute, on average.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0.0)
}

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
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "Linux {}, {} CPUs ({}), load before the first run {}",
        read("/proc/sys/kernel/osrelease"),
        cpus(),
        model.map_or("unknown", |(_, model)| model),
        load(),
    )
}

/// Memory that the kernel uses for what programs hold open: sockets, files, page tables, stacks of
/// threads. In octets. What `/proc/net/sockstat` calls memory is what sockets may still fill.
pub(crate) fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let ours = ["Slab:", "PageTables:", "KernelStack:", "Percpu:"];
    let lines = text
        .lines()
        .filter(|line| ours.iter().any(|name| line.starts_with(name)));
    lines.filter_map(kib).sum::<u64>() << 10
}

/// What is compared, as JSON members: the commit and the versions of the rivals.
pub(crate) fn versions(peers: Option<&Path>) -> Vec<String> {
    let mut versions = vec![format!("tftpool {}", env!("CARGO_PKG_VERSION"))];
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    if let Ok(commit) = commit
        .as_ref()
        .map(|output| String::from_utf8_lossy(&output.stdout))
    {
        versions.push(format!("commit {}", commit.trim()));
    }
    let Some(peers) = peers else {
        return versions;
    };
    let packages = fs::read_dir(peers.join("packages"))
        .into_iter()
        .flatten()
        .flatten();
    let mut packages: Vec<String> = packages
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains("tftpd") || name.contains("dnsmasq"))
        .collect();
    packages.sort();
    versions.append(&mut packages);
    let crates = fs::read_to_string(peers.join(".crates.toml")).unwrap_or_default();
    let named = |line: &str| Some(line.strip_prefix('"')?.split_once(" (")?.0.to_owned());
    versions.extend(crates.lines().filter_map(named));
    versions
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

    /// The share of all CPU time that went neither to `ours` nor to nobody, the host's theft
    /// included.
    pub(crate) fn share(&self, ours: Duration) -> f64 {
        let all = self.started.elapsed() * cpus();
        let others = (busy() - self.busy).saturating_sub(ours);
        others.as_secs_f64() / all.as_secs_f64()
    }
}

/// CPU time of everybody since boot: user, nice, system, interrupts and what the host took, without
/// idle and I/O wait.
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
