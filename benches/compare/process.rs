//! A server under measurement: started in a control group of its own, so that its CPU time counts
//! every thread and every child to the microsecond; without control groups, by the clock ticks of
//! /proc.

use crate::{affinity, sys};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A running server; dropping it ends it and all its children.
pub(crate) struct Running {
    child: Child,
    group: Option<Group>,
}

/// What a server took, at most, while it was watched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// Octets of memory that are its own: no file pages, nothing shared with children.
    pub(crate) private: u64,
    /// Octets of memory in all, its share of what others use too: the pages of a mapped file as
    /// well.
    pub(crate) proportional: u64,
    /// Octets of page tables.
    pub(crate) tables: u64,
    pub(crate) threads: u64,
}

impl Peak {
    /// The larger of each.
    pub(crate) fn max(self, other: Peak) -> Peak {
        Peak {
            private: self.private.max(other.private),
            proportional: self.proportional.max(other.proportional),
            tables: self.tables.max(other.tables),
            threads: self.threads.max(other.threads),
        }
    }
}

impl Running {
    /// Starts `command`; its output goes to `log`.
    pub(crate) fn start(
        command: &[String],
        environment: &[(String, String)],
        directory: &Path,
        log: &Path,
    ) -> io::Result<Self> {
        let group = Group::create();
        let output = File::create(log)?;
        if let Some(group) = &group {
            group.enter()?; // a child is born where its parent is
        }
        let mut process = Command::new(&command[0]);
        process
            .args(&command[1..])
            .envs(environment.iter().cloned())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        sys::end_with_parent(&mut process);
        let child = process.spawn();
        if let Some(group) = &group {
            group.leave()?;
        }
        let child = child?;
        Ok(Self { child, group })
    }

    /// True once the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The server and its children; without control groups, the server alone.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let group = self.group.as_ref().map(Group::processes);
        group.unwrap_or_else(|| vec![self.child.id()])
    }

    /// CPU time of the server so far, children included.
    pub(crate) fn cpu(&self) -> Duration {
        match &self.group {
            Some(group) => group.cpu(),
            None => ticks(self.child.id()),
        }
    }

    /// Waits until the process has ended by itself, for as long as `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Err(_) => return None,
                Ok(None) if started.elapsed() > limit => return None,
                Ok(None) => thread::sleep(Duration::from_micros(500)),
            }
        }
    }

    /// Asks the process to end.
    pub(crate) fn ask_to_end(&self) {
        let id = Pid::from_raw(self.child.id() as i32);
        let _ = kill(id, Signal::SIGTERM);
    }

    /// Memory and threads now. The share of file pages means a look at every page, so of a lone
    /// process it is only taken `fully`, when nothing is measured.
    pub(crate) fn usage(&self, fully: bool) -> Peak {
        let processes = self.processes();
        let mut sum = Peak::default();
        for &process in &processes {
            let status = fields(&format!("/proc/{process}/status"));
            let of = |fields: &BTreeMap<String, u64>, name| fields.get(name).copied().unwrap_or(0);
            let alone = processes.len() == 1;
            let rollup = match fully || !alone {
                true => fields(&format!("/proc/{process}/smaps_rollup")),
                false => BTreeMap::new(),
            };
            // Forked children share pages: each page once.
            let kib = if alone {
                of(&status, "RssAnon")
            } else {
                of(&rollup, "Pss_Anon")
            };
            sum.private += kib << 10;
            sum.proportional += of(&rollup, "Pss") << 10;
            sum.tables += of(&status, "VmPTE") << 10;
            sum.threads += of(&status, "Threads");
        }
        sum
    }

    /// Runs `work` and looks at the server every `every` meanwhile.
    pub(crate) fn watch<T>(&self, every: Duration, work: impl FnOnce() -> T) -> (T, Peak) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                affinity::unpin();
                let mut peak = Peak::default();
                while !over.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    peak = peak.max(self.usage(false));
                    // A crowd of children takes long to look at: never more than a twentieth of the
                    // time.
                    thread::park_timeout(every.max(20 * started.elapsed()));
                }
                peak
            });
            let result = work();
            over.store(true, Ordering::Relaxed);
            watcher.thread().unpark();
            let peak = watcher.join().unwrap_or_default();
            (result, peak)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
        }
        if let Some(group) = &self.group {
            let _ = fs::write(group.path.join("cgroup.kill"), "1");
        }
        let _ = self.child.wait();
    }
}

/// How the name of each group begins.
const GROUP: &str = "tftpool-bench";

/// A control group (version 2), removed when dropped. No controller is needed: CPU time is always
/// counted.
struct Group {
    path: PathBuf,
    /// The group that this process belongs to.
    home: PathBuf,
}

impl Group {
    fn create() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut parts = line.split(' ').skip(1);
            let path = parts.next()?;
            (parts.next()? == "cgroup2").then_some(path)
        })?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let home = Path::new(mount).join(own);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        guard(&home);
        let path = home.join(format!("{GROUP}-{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self { path, home };
        // Not everybody who may make a group may also move into it.
        let enters = group.enter().and_then(|()| group.leave());
        enters.is_ok().then_some(group)
    }

    fn enter(&self) -> io::Result<()> {
        fs::write(
            self.path.join("cgroup.procs"),
            std::process::id().to_string(),
        )
    }

    fn leave(&self) -> io::Result<()> {
        fs::write(
            self.home.join("cgroup.procs"),
            std::process::id().to_string(),
        )
    }

    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(self.path.join("cpu.stat")).unwrap_or_default();
        let micros = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        Duration::from_micros(micros.unwrap_or(0))
    }

    fn processes(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last children may take a moment to die.
        for _ in 0..200 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts a process that outlives this one by a moment, and ends the servers that are left then.
/// `end_with_parent` alone does not do it: the kernel forgets that wish when a server becomes
/// another user.
fn guard(home: &Path) {
    const SCRIPT: &str = r#"
        trap '' HUP INT TERM
        read -r _
        for group in "$0-$1"-*; do
            [ -d "$group" ] || continue
            echo 1 >"$group/cgroup.kill"
            for _ in 1 2 3 4 5 6 7 8 9 10; do
                rmdir "$group" 2>/dev/null && break
                sleep 0.1
            done
        done"#;
    static GUARD: OnceLock<io::Result<Child>> = OnceLock::new();
    GUARD.get_or_init(|| {
        Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(home.join(GROUP))
            .arg(std::process::id().to_string())
            .stdin(Stdio::piped()) // closed when we end, however that comes about
            .spawn()
    });
}

/// `Name:  number` lines.
pub(crate) fn fields(path: &str) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((
                name.to_owned(),
                value.split_whitespace().next()?.parse().ok()?,
            ))
        })
        .collect()
}

/// User and system time of a process and its waited-for children, in ticks of 10 ms.
fn ticks(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(10 * ticks)
}

/// System calls by name, counted by the kernel's tracepoints while `work` runs; `None` where `perf`
/// may not.
pub(crate) fn count_calls(
    server: &Running,
    scratch: &Path,
    work: impl FnOnce(),
) -> Option<BTreeMap<String, u64>> {
    const NAMES: [&str; 33] = [
        "sendto",
        "sendmsg",
        "sendmmsg",
        "recvfrom",
        "recvmsg",
        "recvmmsg",
        "read",
        "pread64",
        "lseek",
        "write",
        "epoll_wait",
        "epoll_pwait",
        "epoll_ctl",
        "poll",
        "ppoll",
        "select",
        "pselect6",
        "futex",
        "openat",
        "openat2",
        "close",
        "socket",
        "mmap",
        "munmap",
        "setsockopt",
        "clock_nanosleep",
        "bind",
        "connect",
        "getsockname",
        "getsockopt",
        "fcntl",
        "statx",
        "sched_yield",
    ];
    let (control, answer, output) = (
        scratch.join("perf.ctl"),
        scratch.join("perf.ack"),
        scratch.join("perf.out"),
    );
    for fifo in [&control, &answer] {
        let _ = fs::remove_file(fifo);
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU).ok()?;
    }
    let mut events = vec!["raw_syscalls:sys_enter".to_owned()];
    events.extend(
        NAMES
            .iter()
            .map(|name| format!("syscalls:sys_enter_{name}")),
    );
    let mut perf = Command::new("perf")
        .args(["stat", "-x,", "-D", "-1", "-o"])
        .arg(&output)
        .arg("--control")
        .arg(format!("fifo:{},{}", control.display(), answer.display()))
        .args(["-e", &events.join(","), "-p", &server.id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let enabled = enable(&mut perf, &control, &answer);
    if enabled {
        work();
    }
    let ended = Command::new("kill")
        .args(["-INT", &perf.id().to_string()])
        .status();
    if ended.is_err() {
        let _ = perf.kill();
    }
    let _ = perf.wait();
    if !enabled {
        return None;
    }
    let text = fs::read_to_string(&output).ok()?;
    let counts = text.lines().filter_map(|line| {
        let mut parts = line.split(',');
        let count = parts.next()?.parse().ok()?;
        let event = parts.nth(1)?;
        Some((
            event
                .rsplit_once("sys_enter_")
                .map_or("all", |(_, name)| name)
                .to_owned(),
            count,
        ))
    });
    Some(counts.filter(|(_, count)| *count > 0).collect())
}

/// Instructions in user space that every process has run which wrote its count for `valgrind` into
/// `directory`.
pub(crate) fn counted_instructions(directory: &Path) -> Option<f64> {
    let mut sum = None;
    for entry in fs::read_dir(directory).ok()?.flatten() {
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with("callgrind.")
        {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let totals = text
            .lines()
            .filter_map(|line| line.strip_prefix("summary: ")?.trim().parse::<f64>().ok());
        *sum.get_or_insert(0.0) += totals.sum::<f64>();
    }
    sum
}

/// Starts counting and waits until `perf` confirms it.
fn enable(perf: &mut Child, control: &Path, answer: &Path) -> bool {
    // Opened for both ways, a pipe neither blocks nor ends when perf is not there.
    let both = |path: &Path| File::options().read(true).write(true).open(path);
    let (Ok(mut control), Ok(answer)) = (both(control), both(answer)) else {
        return false;
    };
    if control.write_all(b"enable\n").is_err() {
        return false;
    }
    let mut readable = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
    poll(&mut readable, 5000u16).is_ok_and(|ready| ready == 1)
        && matches!(perf.try_wait(), Ok(None))
}
