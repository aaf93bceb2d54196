//! `compare profile`: where a crowd's time goes in the server, without a profiler. For each
//! transfer: CPU time and context switches of each kind of thread, as `/proc` counts them, and in a
//! run of its own the system calls by name, as `strace` counts them, and `perf` where it may. One
//! run each: this is for finding causes, not for comparing figures.

use crate::contenders::{self, Contender, Role};
use crate::load::{Crowd, Report};
use crate::process::{self, Running, fields};
use crate::report::number;
use crate::rows::{self, Row, Work};
use crate::run::{Bench, raise_descriptor_limit};
use crate::{Settings, is_wanted, machine, sys};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The rows that are looked at where `ROWS` names none.
const ROWS: [&str; 2] = ["1 kib", "storm 100 x"];
/// Transfers in a row of storms at least, because CPU time comes in ticks.
const IN_STORMS: usize = 1000;
/// In which `/proc` counts CPU time.
const TICK: Duration = Duration::from_millis(10);
/// How long a load may take under `strace`, which makes every system call many times slower.
const TRACED_LIMIT: Duration = Duration::from_secs(120);
/// How long `strace` may take to attach, and to write its table.
const STRACE_LIMIT: Duration = Duration::from_secs(10);

/// Looks at the rows, and prints Markdown.
pub(crate) fn compare(settings: &Settings) -> io::Result<()> {
    let _alone = machine::lock()?;
    raise_descriptor_limit();
    println!("{}", machine::description());
    let bench = Bench::new(&settings.target)?;
    let mut contenders = contenders::present(settings, &bench.directory, &bench.pattern)?;
    contenders.retain(|one| one.crowds && settings.wants_server(one.name));
    let words = match &settings.rows[..] {
        [] => ROWS.map(String::from).to_vec(),
        asked => asked.to_vec(),
    };
    for row in rows::all(settings.quick, settings.spread) {
        if matches!(row.work, Work::Crowd(_)) && is_wanted(&words, &row.name) {
            bench
                .pattern
                .write(&bench.directory.join(&row.fetch.name), row.fetch.size)?;
            let row_of = |one: &Contender| match one.role {
                Role::Rival => row.for_rival(),
                _ => row.clone(),
            };
            println!("\n### {}\n\nFor each transfer:\n", row.name);
            print_threads(&bench, &contenders, row_of)?;
            print_calls(&bench, &contenders, row_of)?;
        }
    }
    Ok(())
}

/// What threads of one name have used so far.
#[derive(Clone, Copy, Default)]
struct Used {
    threads: u64,
    cpu: Duration,
    /// The part of `cpu` that was the kernel's.
    kernel: Duration,
    /// Context switches because there was nothing to do.
    voluntary: u64,
    /// Context switches because it was another's turn.
    involuntary: u64,
}

impl Used {
    fn add(&mut self, other: Used) {
        self.threads += other.threads;
        self.cpu += other.cpu;
        self.kernel += other.kernel;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }

    fn since(self, before: Used) -> Used {
        Used {
            threads: self.threads,
            cpu: self.cpu.saturating_sub(before.cpu),
            kernel: self.kernel.saturating_sub(before.kernel),
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
        }
    }
}

fn print_threads(
    bench: &Bench,
    contenders: &[Contender],
    row_of: impl Fn(&Contender) -> Row + Sync,
) -> io::Result<()> {
    println!(
        "| server | threads | | CPU µs | in the kernel µs | share % | switches, nothing to do | switches, another's turn | note |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    );
    for contender in contenders {
        eprintln!("threads · {}", contender.name);
        contender.at_home(|| print_threads_of(bench, contender, &row_of(contender)))?;
    }
    Ok(())
}

fn print_threads_of(bench: &Bench, contender: &Contender, row: &Row) -> io::Result<()> {
    let server = match contender.start(&bench.directory, &bench.pattern) {
        Ok(server) => server,
        Err(why) => {
            println!("| {} | {why} |", contender.name);
            return Ok(());
        }
    };
    let _silent = bench.silence(row, &server)?.map_err(io::Error::other)?;
    bench.load(row, &server)?; // threads and maps are there from then on
    let times = match row.work {
        Work::Crowd(Crowd::Storm(clients)) => (IN_STORMS / clients).max(1),
        _ => 1,
    };
    let (before, cpu_before) = (threads(&server.running), server.running.cpu());
    let (mut done, mut failed) = (0, 0);
    for _ in 0..times {
        let report = bench.load(row, &server)?;
        done += report.done;
        failed += report.failed();
    }
    let cpu = server.running.cpu().saturating_sub(cpu_before);
    let mut kinds: BTreeMap<String, Used> = BTreeMap::new();
    for (id, (name, after)) in threads(&server.running) {
        let before = before.get(&id).map(|(_, used)| *used).unwrap_or_default();
        kinds.entry(name).or_default().add(after.since(before));
    }
    let mut all = Used::default();
    kinds.values().for_each(|used| all.add(*used));
    let gone = cpu.saturating_sub(all.cpu);
    let each = |count: f64| number(Some(count / done.max(1) as f64));
    let micros = |time: Duration| each(time.as_secs_f64() * 1e6);
    let note = match failed {
        0 => String::new(),
        _ => format!(", {failed} failed"),
    };
    println!(
        "| {} | all | {} | {} | | | {} | {} | {done} transfers{note} |",
        contender.name,
        all.threads,
        micros(cpu),
        each(all.voluntary as f64),
        each(all.involuntary as f64),
    );
    let share = |part: Duration| number(Some(100.0 * part.as_secs_f64() / cpu.as_secs_f64()));
    for (name, used) in &kinds {
        println!(
            "| | {name} | {} | {} | {} | {} | {} | {} | |",
            used.threads,
            micros(used.cpu),
            micros(used.kernel),
            share(used.cpu),
            each(used.voluntary as f64),
            each(used.involuntary as f64),
        );
    }
    // Less is the difference between ticks and the clock.
    if gone > (cpu / 20).max(TICK * (1 + all.threads as u32)) {
        println!(
            "| | ended meanwhile | | {} | | {} | | | their switches are not counted |",
            micros(gone),
            share(gone)
        );
    }
    Ok(())
}

/// All threads of a server and its children now, by their numbers: names without the number at
/// their end, and what they have used.
fn threads(server: &Running) -> BTreeMap<u32, (String, Used)> {
    let mut threads = BTreeMap::new();
    for process in server.processes() {
        for id in tasks(process) {
            let task = format!("/proc/{process}/task/{id}");
            let stat = fs::read_to_string(format!("{task}/stat")).unwrap_or_default();
            let Some((start, rest)) = stat.rsplit_once(") ") else {
                continue; // it has ended
            };
            let (_, name) = start.split_once('(').unwrap_or_default();
            let ticks: Vec<u64> = rest
                .split(' ')
                .skip(11)
                .take(2)
                .filter_map(|field| field.parse().ok())
                .collect();
            let time = |index| TICK * *ticks.get(index).unwrap_or(&0) as u32;
            let status = fields(&format!("{task}/status"));
            let switches = |kind| status.get(kind).copied().unwrap_or(0);
            let used = Used {
                threads: 1,
                cpu: time(0) + time(1),
                kernel: time(1),
                voluntary: switches("voluntary_ctxt_switches"),
                involuntary: switches("nonvoluntary_ctxt_switches"),
            };
            let name = name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-');
            threads.insert(id, (name.to_owned(), used));
        }
    }
    threads
}

fn tasks(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let names = tasks.into_iter().flatten().flatten();
    names
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// How often one system call was made, and how often it failed where that is known.
type Calls = BTreeMap<String, (u64, Option<u64>)>;

fn print_calls(
    bench: &Bench,
    contenders: &[Contender],
    row_of: impl Fn(&Contender) -> Row + Sync,
) -> io::Result<()> {
    let mut columns = Vec::new();
    for contender in contenders {
        for counter in [Counter::Strace, Counter::Perf] {
            let name = format!("{}, {}", contender.name, counter.name());
            eprintln!("system calls · {name}");
            let row = Row {
                limit: TRACED_LIMIT,
                ..row_of(contender)
            };
            match contender.at_home(|| calls_of(bench, contender, &row, counter)) {
                Ok((calls, done)) => columns.push((name, calls, done)),
                Err(why) => println!("\n{name}: nothing counted: {why}"),
            }
        }
    }
    if columns.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
    println!("\n| system call | {} |", names.join(" | "));
    println!("| --- |{}", " ---: |".repeat(names.len()));
    let calls: BTreeSet<&String> = columns
        .iter()
        .flat_map(|(_, calls, _)| calls.keys())
        .collect();
    for call in calls {
        let counts = columns
            .iter()
            .map(|(_, calls, done)| (calls.get(call), *done));
        // Once in a hundred transfers is not what makes them slow.
        let is_often = |(count, done): (Option<&(u64, _)>, f64)| {
            count.is_some_and(|(count, _)| *count as f64 > done / 100.0)
        };
        if !counts.clone().any(is_often) {
            continue;
        }
        let cells: Vec<String> = counts
            .map(|(count, done)| {
                let each = |count: u64| number(Some(count as f64 / done));
                match count {
                    None => String::new(),
                    Some((count, None | Some(0))) => each(*count),
                    Some((count, Some(failed))) => {
                        format!("{} ({} fail)", each(*count), each(*failed))
                    }
                }
            })
            .collect();
        println!("| {call} | {} |", cells.join(" | "));
    }
    Ok(())
}

/// What counts system calls.
#[derive(Clone, Copy, PartialEq)]
enum Counter {
    /// Stops the server at each call: it knows which fail, but a server that is slowed down finds
    /// more to do at once.
    Strace,
    /// Disturbs nothing, but knows only those calls by name that it was told before.
    Perf,
}

impl Counter {
    fn name(self) -> &'static str {
        match self {
            Self::Strace => "strace",
            Self::Perf => "perf",
        }
    }
}

/// All calls of one load, and how many transfers it was.
fn calls_of(
    bench: &Bench,
    contender: &Contender,
    row: &Row,
    counter: Counter,
) -> io::Result<(Calls, f64)> {
    let server = contender
        .start(&bench.directory, &bench.pattern)
        .map_err(io::Error::other)?;
    let _silent = bench.silence(row, &server)?.map_err(io::Error::other)?;
    bench.load(row, &server)?;
    let mut report = Ok(Report::default());
    let load = || report = bench.load(row, &server);
    let calls = match counter {
        Counter::Strace => traced(&server.running, &bench.scratch, load)?,
        Counter::Perf => process::count_calls(&server.running, &bench.scratch, load)
            .ok_or_else(|| io::Error::other("perf may not, or is not here"))?
            .into_iter()
            .map(|(name, count)| (name, (count, None)))
            .collect(),
    };
    match report?.done {
        0 => Err(io::Error::other("nobody was served")),
        done => Ok((calls, done as f64)),
    }
}

/// System calls of all threads and children while `work` runs.
fn traced(server: &Running, scratch: &Path, work: impl FnOnce()) -> io::Result<Calls> {
    let (output, log) = (scratch.join("strace.out"), scratch.join("strace.log"));
    let mut command = Command::new("strace");
    command
        .args(["-f", "-c", "-o"])
        .arg(&output)
        .args(["-p", &server.id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    sys::end_with_parent(&mut command);
    let mut strace = command
        .spawn()
        .map_err(|why| io::Error::new(why.kind(), format!("cannot start strace: {why}")))?;
    let tracer = u64::from(strace.id());
    let is_traced = |id: u32| {
        let status = fields(&format!("/proc/{}/task/{id}/status", server.id()));
        status.get("TracerPid") == Some(&tracer)
    };
    let until = Instant::now() + STRACE_LIMIT;
    while !tasks(server.id()).into_iter().all(is_traced) {
        if strace.try_wait()?.is_some() || Instant::now() > until {
            let _ = strace.kill();
            strace.wait()?;
            let why = fs::read_to_string(&log)?;
            return Err(io::Error::other(why.trim().to_owned()));
        }
        thread::sleep(Duration::from_millis(1));
    }
    work();
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT)?;
    let until = Instant::now() + STRACE_LIMIT;
    while strace.try_wait()?.is_none() {
        if Instant::now() > until {
            strace.kill()?;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let table = fs::read_to_string(&output)?;
    Ok(table.lines().filter_map(counted).collect())
}

/// A line of `strace -c`: share, seconds, microseconds a call, calls, errors if any, name.
fn counted(line: &str) -> Option<(String, (u64, Option<u64>))> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, numbers) = words.split_last()?;
    let calls = numbers.get(3)?.parse().ok()?;
    let errors = numbers
        .get(4)
        .map_or(Some(0), |errors| errors.parse().ok())?;
    let name = if *name == "total" { "all" } else { name };
    Some((name.to_owned(), (calls, Some(errors))))
}

/// Lines as `strace` writes them.
pub(crate) fn check() {
    let line = " 39.02    0.000016           1        14         2 recvmsg";
    assert_eq!(counted(line), Some(("recvmsg".to_owned(), (14, Some(2)))));
    let line = "100.00    0.000041           0        54           total";
    assert_eq!(counted(line), Some(("all".to_owned(), (54, Some(0)))));
    for head in [
        "% time     seconds  usecs/call     calls    errors syscall",
        "------ --- --- --- --- ---",
        "",
    ] {
        assert_eq!(counted(head), None);
    }
}
