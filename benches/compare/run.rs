//! The runs themselves: every server afresh for every run, the servers interleaved, so that a
//! machine that grows slower or faster does so for all.

use crate::Settings;
use crate::affinity::Pinned;
use crate::client::Fetch;
use crate::contenders::{self, Contender, Ready, Role};
use crate::load::{self, Crowd, Report, percentile};
use crate::machine::{self, Others};
use crate::pattern::Pattern;
use crate::process::{self, Peak};
use crate::report::{self, Entry, Figure, Sample, Table};
use crate::results::Results;
use crate::rows::{self, Row, Work};
use crate::tools;
use nix::sys::resource::{Resource, UsageWho, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// A run is repeated where others took more than this share of the machine meanwhile; so often in
/// all.
const DISTURBED: f64 = 0.1;
const ATTEMPTS: usize = 4;

/// Everything a run needs.
pub(crate) struct Bench {
    pub(crate) pattern: Pattern,
    pub(crate) directory: PathBuf,
    pub(crate) scratch: PathBuf,
    /// Repeats what was disturbed, and counts instructions.
    patient: bool,
    /// Instructions of each server until it has served the small file.
    before_first_block: BTreeMap<&'static str, f64>,
}

/// A rival that has taken this long in a row is not run again there, so that the slowest do not
/// take the day.
const RIVALS_BUDGET: Duration = Duration::from_secs(12);
/// Starts that one figure of "exec to answer" is the median of.
const STARTS: usize = 15;
/// How long a server may take to end under valgrind and to write its counts.
const VALGRIND_END: Duration = Duration::from_secs(10);

/// Runs the matrix and prints it.
pub(crate) fn compare(settings: &Settings) -> io::Result<()> {
    let _alone = machine::lock()?;
    raise_descriptor_limit();
    let started = Instant::now();
    let base = settings.base.as_deref().map(Results::read).transpose()?;
    let head = machine::description();
    println!("{head}");
    if machine::load() > 0.3 {
        eprintln!("compare: others are busy on this machine; figures taken now are worth little");
    }
    let mut bench = Bench::new(&settings.target)?;
    bench.patient = !settings.quick;
    let contenders = contenders::present(settings, &bench.directory, &bench.pattern)?;
    let mut tables = Vec::new();
    for row in rows::all(settings.quick, settings.spread) {
        if !settings.wants_row(&row.name) || (row.on_request && settings.rows.is_empty()) {
            continue;
        }
        let table = match row.work {
            Work::Tools(server) => bench.tool_row(&row, server, &contenders, settings.runs)?,
            _ => {
                let mut all: Vec<&Contender> = contenders.iter().collect();
                // Ratios are to a limit, so the limits are there whatever `ONLY` says.
                all.retain(|one| one.role == Role::Limit || settings.wants_server(one.name));
                // On a curve, a rival that has lost clients once is not asked about more of them.
                let fallen = |contender: &&Contender| {
                    let steps = tables.iter().filter(|table: &&Table| table.is_on_curve());
                    row.on_request
                        && contender.role == Role::Rival
                        && steps
                            .into_iter()
                            .any(|step| !step.served_all(contender.name))
                };
                all.retain(|contender| !fallen(contender));
                Some(bench.row(&row, &all, settings.runs)?)
            }
        };
        let Some(table) = table else {
            continue;
        };
        print!("{}", table.markdown());
        print!("{}", table.before_and_after(base.as_ref()));
        tables.push(table);
        let versions = machine::versions(settings.peers.as_deref());
        let json = report::document(&head, &versions, settings.runs, &tables);
        fs::write(settings.target.join("bench.json"), json)?;
    }
    print!("{}{}", report::curve(&tables), report::crowds(&tables));
    println!("\nall rows: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

impl Bench {
    pub(crate) fn new(target: &Path) -> io::Result<Self> {
        let scratch = target.join("bench");
        let directory = scratch.join("files");
        fs::create_dir_all(&directory)?;
        let pattern = Pattern::new();
        pattern.write(&directory.join(contenders::SMALL), 1024)?;
        Ok(Self {
            pattern,
            directory,
            scratch,
            patient: true,
            before_first_block: BTreeMap::new(),
        })
    }

    fn row(&mut self, row: &Row, contenders: &[&Contender], runs: usize) -> io::Result<Table> {
        let started = Instant::now();
        let (all, rivals) = (row, row.for_rival());
        for row in [all, &rivals] {
            self.pattern
                .write(&self.directory.join(&row.fetch.name), row.fetch.size)?;
        }
        let takes_part = |contender: &&Contender| match row.work {
            Work::Single => contender.windows || !row.needs_windows(),
            Work::Crowd(_) => contender.crowds,
            _ => contender.role != Role::Limit,
        };
        let contenders = contenders.iter().copied().filter(takes_part);
        let mut entries: Vec<(&Contender, Entry, Duration)> = contenders
            .map(|contender| {
                (
                    contender,
                    Entry::new(contender.name, contender.role),
                    Duration::ZERO,
                )
            })
            .collect();
        for run in 0..runs {
            for (contender, entry, spent) in &mut entries {
                let is_rival = contender.role == Role::Rival;
                let row = if is_rival { &rivals } else { all };
                let has_lost = matches!(row.work, Work::Crowd(_)) && !entry.is_whole();
                if is_rival && run > 0 && (*spent > RIVALS_BUDGET || has_lost) {
                    continue;
                }
                eprintln!(
                    "{} · run {} of {runs} · {}",
                    row.name,
                    run + 1,
                    contender.name
                );
                let (mut sample, took) = self.undisturbed_sample(row, contender)?;
                *spent += took;
                if run == 0 && matches!(row.work, Work::Single) && !sample.figures.is_empty() {
                    contender.at_home(|| {
                        self.count_calls(row, contender, &mut sample);
                        if self.patient {
                            self.count_instructions(row, contender, &mut sample);
                        }
                    });
                }
                entry.samples.push(sample);
            }
        }
        Ok(Table {
            row: row.name.clone(),
            entries: entries.into_iter().map(|(_, entry, _)| entry).collect(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// A row whose entries are clients; `None` where the server or this crate's client is missing,
    /// which it tells.
    fn tool_row(
        &self,
        row: &Row,
        server: &str,
        contenders: &[Contender],
        runs: usize,
    ) -> io::Result<Option<Table>> {
        let started = Instant::now();
        let left_out = |why: &str| {
            println!("\n### {}\n\nleft out: {why}", row.name);
            Ok(None)
        };
        let Some(server) = contenders.iter().find(|contender| contender.name == server) else {
            return left_out(&format!(
                "no {server} here (`make bench-peers` fetches what Debian has)"
            ));
        };
        let tools = if row.fetch.windowsize > 1 {
            tools::with_windows()?
        } else {
            tools::at_defaults()
        };
        if tools.is_empty() {
            return left_out("this crate's command has no `get`");
        }
        let Fetch { name, size, .. } = &row.fetch;
        self.pattern.write(&self.directory.join(name), *size)?;
        let mut entries: Vec<Entry> = tools
            .iter()
            .map(|tool| Entry::new(tool.name, tool.role))
            .collect();
        for run in 0..runs {
            for (tool, entry) in tools.iter().zip(&mut entries) {
                eprintln!("{} · run {} of {runs} · {}", row.name, run + 1, tool.name);
                let _pinned = row.pinned.then(Pinned::to_one_cpu);
                let server = server
                    .start(&self.directory, &self.pattern)
                    .map_err(io::Error::other)?;
                load::single(&row.fetch, &self.pattern, server.address, row.limit)?; // into the page cache
                let before = server.running.cpu();
                let (others, own) = (Others::watch(), own_cpu());
                let mut sample =
                    tool.fetch(server.address, name, *size, &self.scratch, &self.pattern)?;
                let seconds = sample
                    .figures
                    .get(&Figure::CpuSecondsPerGib)
                    .copied()
                    .unwrap_or(0.0);
                let tool = Duration::from_secs_f64(seconds * *size as f64 / GIB);
                let server = server.running.cpu().saturating_sub(before);
                sample.others = others.share(server + tool + own_cpu() - own);
                entry.samples.push(sample);
            }
        }
        Ok(Some(Table {
            row: row.name.clone(),
            entries,
            seconds: started.elapsed().as_secs_f64(),
        }))
    }

    /// One run, repeated a few times where others were busy meanwhile; the last one counts as it
    /// is. Returns how long that one took.
    fn undisturbed_sample(
        &self,
        row: &Row,
        contender: &Contender,
    ) -> io::Result<(Sample, Duration)> {
        for attempt in 1.. {
            let started = Instant::now();
            let sample = self.sample(row, contender)?;
            if sample.others <= DISTURBED || !self.patient || attempt == ATTEMPTS {
                return Ok((sample, started.elapsed()));
            }
            thread::sleep(Duration::from_secs(1));
        }
        unreachable!("the last attempt returns")
    }

    /// One run of one server.
    fn sample(&self, row: &Row, contender: &Contender) -> io::Result<Sample> {
        contender.at_home(|| self.sample_at_home(row, contender))
    }

    fn sample_at_home(&self, row: &Row, contender: &Contender) -> io::Result<Sample> {
        let _pinned = row.pinned.then(Pinned::to_one_cpu);
        let server = match contender.start(&self.directory, &self.pattern) {
            Ok(server) => server,
            Err(note) => {
                return Ok(Sample {
                    note,
                    ..Sample::default()
                });
            }
        };
        match row.work {
            Work::Idle => return self.idle(contender, server),
            Work::Parked(count) => return self.parked(count, row, &server),
            _ => {}
        }
        let _silent = match self.silence(row, &server)? {
            Ok(sockets) => sockets,
            Err(note) => {
                return Ok(Sample {
                    note,
                    ..Sample::default()
                });
            }
        };
        if let Work::Single = row.work {
            self.load(row, &server)?; // maps and page tables are there from then on
        }
        let before = server.running.cpu();
        let (others, own) = (Others::watch(), own_cpu());
        let every = match row.work {
            Work::Crowd(_) => Duration::from_millis(250),
            _ => Duration::from_millis(50),
        };
        let (report, peak) = server.running.watch(every, || self.load(row, &server));
        let report = report?;
        let peak = peak.max(server.running.usage(true));
        let cpu = server.running.cpu().saturating_sub(before);
        let others = others.share(cpu + own_cpu() - own);
        Ok(Sample {
            others,
            ..figures(row, report, cpu, peak)
        })
    }

    /// Brings the server its silent clients, which stay until their sockets are dropped; or says
    /// that it did not answer all of them.
    pub(crate) fn silence(
        &self,
        row: &Row,
        server: &Ready,
    ) -> io::Result<Result<Vec<UdpSocket>, String>> {
        let (parked, sockets) =
            load::park(row.silent, 1, &row.fetch, server.address, row.limit, || {})?;
        Ok(match parked == row.silent {
            true => Ok(sockets),
            false => Err(format!("answered only {parked} of {}", row.silent)),
        })
    }

    pub(crate) fn load(&self, row: &Row, server: &Ready) -> io::Result<Report> {
        match row.work {
            Work::Single => load::single(&row.fetch, &self.pattern, server.address, row.limit),
            Work::Crowd(crowd) => {
                load::crowd(crowd, &row.fetch, &self.pattern, server.address, row.limit)
            }
            Work::Idle | Work::Parked(_) | Work::Tools(_) => Ok(Report::default()),
        }
    }

    /// What a server costs that nobody asks, and how soon it answers.
    fn idle(&self, contender: &Contender, server: Ready) -> io::Result<Sample> {
        let mut sample = Sample::default();
        let peak = server.running.usage(true);
        let mut answers = vec![server.first_answer];
        drop(server);
        while answers.len() < STARTS {
            let again = contender.start(&self.directory, &self.pattern);
            answers.push(again.map_err(io::Error::other)?.first_answer);
        }
        sample.figures.extend([
            (Figure::IdlePrivateMib, peak.private as f64 / MIB),
            (Figure::IdleProportionalMib, peak.proportional as f64 / MIB),
            (Figure::Threads, peak.threads as f64),
            (
                Figure::BinaryMib,
                self.stripped_size(&contender.program)? as f64 / MIB,
            ),
            (
                Figure::FirstAnswerMillis,
                percentile(&mut answers, 50).as_secs_f64() * 1e3,
            ),
        ]);
        Ok(sample)
    }

    /// Octets of a program without its symbols; as it is, where there is no `strip`.
    fn stripped_size(&self, program: &Path) -> io::Result<u64> {
        let stripped = self.scratch.join("stripped");
        let strip = Command::new("strip")
            .arg("-o")
            .arg(&stripped)
            .arg(program)
            .status();
        let is_stripped = strip.is_ok_and(|status| status.success());
        Ok(fs::metadata(if is_stripped { &stripped } else { program })?.len())
    }

    /// What transfers cost that wait for their clients: memory of the server, and of the kernel.
    fn parked(&self, count: usize, row: &Row, server: &Ready) -> io::Result<Sample> {
        // Everything that belongs to the file and not to a transfer is there from then on, page
        // tables too.
        load::single(&row.fetch, &self.pattern, server.address, row.limit)?;
        let mut before = (Peak::default(), 0);
        let (parked, sockets) =
            load::park(count, 0, &row.fetch, server.address, row.limit, || {
                before = (server.running.usage(true), machine::kernel_memory());
            })?;
        let after = server.running.usage(true);
        let kernel = machine::kernel_memory().saturating_sub(before.1);
        drop(sockets);
        let mut sample = Sample::default();
        if parked < count {
            sample.note = format!("only {parked} of {count} were answered");
        }
        if parked > 0 {
            let each = |octets: u64| octets as f64 / 1024.0 / parked as f64;
            sample.figures.extend([
                (Figure::Served, 100.0 * parked as f64 / count as f64),
                (Figure::PrivateMib, after.private as f64 / MIB),
                (Figure::ProportionalMib, after.proportional as f64 / MIB),
                (Figure::PageTablesKib, after.tables as f64 / 1024.0),
                (Figure::Threads, after.threads as f64),
                (
                    Figure::UserPerTransfer,
                    each(after.private.saturating_sub(before.0.private)),
                ),
                (Figure::KernelPerTransfer, each(kernel)),
            ]);
        }
        Ok(sample)
    }

    /// Instructions in user space, counted by valgrind on a small file in a run of its own.
    fn count_instructions(&mut self, row: &Row, contender: &Contender, sample: &mut Sample) {
        let mut row = row.clone();
        let blksize = u64::from(row.fetch.blksize);
        let most = (64 * MIB as u64 / blksize).min(8192);
        let blocks = (8 * u64::from(row.fetch.windowsize)).clamp(2000.min(most), most);
        row.fetch.size = blocks * blksize - 1;
        row.fetch.name = format!("f-{}", row.fetch.size);
        let file = self.directory.join(&row.fetch.name);
        if self.pattern.write(&file, row.fetch.size).is_err() {
            return;
        }
        let before = self.before_first_block.get(contender.name).copied();
        let before = before.or_else(|| self.instructions(&row, contender, false));
        let _ = fs::remove_file(&file); // after the last use below, where there is one
        let Some(before) = before else {
            return;
        };
        self.before_first_block.insert(contender.name, before);
        if self.pattern.write(&file, row.fetch.size).is_ok()
            && let Some(after) = self.instructions(&row, contender, true)
        {
            let each = (after - before).max(0.0) / blocks as f64;
            sample.figures.insert(Figure::InstructionsPerBlock, each);
        }
        let _ = fs::remove_file(&file);
    }

    /// All instructions of a server that serves the small file, and then that of the row or
    /// nothing.
    fn instructions(&self, row: &Row, contender: &Contender, serve: bool) -> Option<f64> {
        let counts = self.scratch.join("callgrind");
        let _ = fs::remove_dir_all(&counts);
        fs::create_dir_all(&counts).ok()?;
        let wrapper = [
            "valgrind".to_owned(),
            "--tool=callgrind".to_owned(),
            format!("--callgrind-out-file={}/callgrind.%p", counts.display()),
        ];
        let started = contender.start_under(&wrapper, &self.directory, &self.pattern);
        let mut server = started.ok()?;
        if serve {
            let report = self.load(row, &server).ok()?;
            if report.done == 0 || report.windowsize != row.fetch.windowsize {
                return None;
            }
        }
        server.running.ask_to_end();
        server.running.wait(VALGRIND_END)?;
        process::counted_instructions(&counts)
    }

    /// System calls in a run of its own, because counting them costs time.
    fn count_calls(&self, row: &Row, contender: &Contender, sample: &mut Sample) {
        let Ok(server) = contender.start(&self.directory, &self.pattern) else {
            return;
        };
        let mut blocks = 0.0;
        let counts = process::count_calls(&server.running, &self.scratch, || {
            if let Ok(report) = self.load(row, &server)
                && report.done == 1
            {
                blocks = (row.fetch.size / u64::from(report.blksize) + 1) as f64;
            }
        });
        let Some(counts) = counts.filter(|_| blocks > 0.0) else {
            return;
        };
        let sends: u64 = ["sendto", "sendmsg", "sendmmsg"]
            .iter()
            .filter_map(|name| counts.get(*name))
            .sum();
        let all = counts.get("all").copied().unwrap_or(0);
        sample
            .figures
            .insert(Figure::CallsPerBlock, all as f64 / blocks);
        if sends > 0 {
            sample
                .figures
                .insert(Figure::BlocksPerSend, blocks / sends as f64);
        }
        eprintln!(
            "{} · calls · {} · {}",
            row.name,
            contender.name,
            most_frequent(&counts)
        );
    }
}

fn most_frequent(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_unstable_by(|a, b| b.1.cmp(a.1));
    let parts: Vec<String> = counts
        .iter()
        .take(8)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    parts.join(", ")
}

fn figures(row: &Row, mut report: Report, cpu: Duration, peak: Peak) -> Sample {
    let mut sample = Sample {
        note: notes(row, &report),
        ..Sample::default()
    };
    let asked = report.done + report.failed();
    if report.done == 0 {
        return sample;
    }
    let octets = (report.done * row.fetch.size) as f64;
    let seconds = report.elapsed.as_secs_f64();
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut set = |figure, value| {
        sample.figures.insert(figure, value);
    };
    set(Figure::PrivateMib, peak.private as f64 / MIB);
    set(Figure::ProportionalMib, peak.proportional as f64 / MIB);
    set(Figure::PageTablesKib, peak.tables as f64 / 1024.0);
    set(Figure::Threads, peak.threads as f64);
    if let Work::Crowd(crowd) = row.work {
        set(Figure::Served, 100.0 * report.done as f64 / asked as f64);
        set(
            Figure::P50Millis,
            millis(percentile(&mut report.completions, 50)),
        );
        set(
            Figure::P99Millis,
            millis(percentile(&mut report.completions, 99)),
        );
        set(
            Figure::FirstReplyP50Millis,
            millis(percentile(&mut report.first_replies, 50)),
        );
        set(
            Figure::FirstReplyP99Millis,
            millis(percentile(&mut report.first_replies, 99)),
        );
        set(
            Figure::LoadPercent,
            100.0 * report.cpu.as_secs_f64() / seconds,
        );
        let each = cpu.as_secs_f64() * 1e6 / report.done as f64;
        match crowd {
            Crowd::Storm(_) => {
                set(Figure::CpuMicrosPerTransfer, each);
                set(Figure::LastMillis, millis(report.elapsed));
                let blocks = (report.done * row.fetch.blocks()) as f64;
                set(
                    Figure::WastedPercent,
                    100.0 * report.ignored as f64 / blocks,
                );
            }
            Crowd::Endless(..) if row.counts_transfers() => {
                set(Figure::CpuMicrosPerTransfer, each);
                set(Figure::TransfersPerSecond, report.done as f64 / seconds);
                return sample;
            }
            Crowd::Endless(..) => {
                set(Figure::MibPerSecond, octets / MIB / seconds);
            }
        }
    } else {
        set(Figure::MibPerSecond, octets / MIB / seconds);
    }
    set(Figure::CpuSecondsPerGib, cpu.as_secs_f64() * GIB / octets);
    sample
}

fn notes(row: &Row, report: &Report) -> String {
    let mut notes: Vec<String> = report
        .failures
        .iter()
        .map(|(why, count)| format!("{count} × {why}"))
        .collect();
    if matches!(row.work, Work::Single) && report.done > 0 {
        for (option, granted, asked) in [
            ("blksize", report.blksize, row.fetch.blksize),
            ("windowsize", report.windowsize, row.fetch.windowsize),
        ] {
            if granted != asked {
                notes.push(format!("granted {option} {granted}"));
            }
        }
    }
    notes.join("; ")
}

/// CPU time of the load generator so far, all its threads included.
fn own_cpu() -> Duration {
    load::cpu(UsageWho::RUSAGE_SELF)
}

/// Thousands of clients need a socket each. Servers inherit the limit, which can only help them.
pub(crate) fn raise_descriptor_limit() {
    const ENOUGH: u64 = 1 << 16;
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && (most >= ENOUGH || setrlimit(Resource::RLIMIT_NOFILE, ENOUGH, ENOUGH).is_err())
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Fetches one file several times from a server that runs already, and says how fast.
pub(crate) fn fetch(
    address: &str,
    [blksize, windowsize, size, times]: [&str; 4],
) -> io::Result<()> {
    let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let address = address
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fetch = Fetch {
        name: format!("f-{size}"),
        size: size.parse().map_err(wrong)?,
        blksize: blksize.parse().map_err(wrong)?,
        windowsize: windowsize.parse().map_err(wrong)?,
        coalesce: windowsize != "1",
    };
    let pattern = Pattern::new();
    for _ in 0..times.parse().map_err(wrong)? {
        let report = load::single(&fetch, &pattern, address, Duration::from_secs(30))?;
        let mib = (report.done * fetch.size) as f64 / MIB;
        println!(
            "{:.0} MiB/s {:?}",
            mib / report.elapsed.as_secs_f64(),
            report.failures
        );
    }
    Ok(())
}

/// The generator against the limits: files that arrive are counted, files that differ are not.
/// Nothing here is timed.
pub(crate) fn self_check(settings: &Settings) -> io::Result<()> {
    let bench = Bench::new(&settings.target.join("self-check"))?;
    let row = |size: u64, blksize, windowsize, coalesce, work| -> io::Result<Row> {
        let mut row = rows::all(true, true).swap_remove(0);
        row.fetch.name = format!("f-{size}");
        row.fetch = Fetch {
            size,
            blksize,
            windowsize,
            coalesce,
            ..row.fetch
        };
        row.work = work;
        bench
            .pattern
            .write(&bench.directory.join(&row.fetch.name), size)?;
        Ok(row)
    };
    let storm = Work::Crowd(Crowd::Storm(20));
    let cases = [
        row(0, 512, 1, false, Work::Single)?,
        row(512, 512, 1, false, Work::Single)?,
        row(100_000, 512, 16, true, Work::Single)?,
        row(100_000_000, 1428, 64, true, Work::Single)?, // the numbers turn over
        row(1_000_000, 1428, 64, false, Work::Single)?,
        row(1_000_000, 65464, 16, true, Work::Single)?,
        row(300_000, 1428, 16, true, storm)?,
        Row {
            silent: 20,
            ..row(100_000, 512, 1, false, storm)?
        },
    ];
    let bad = bench.directory.join("f-70000");
    bench.pattern.write(&bad, 0)?; // what an earlier check has spoilt
    bench.pattern.write(&bad, 70_000)?;
    let mut octets = fs::read(&bad)?;
    octets[69_999] ^= 1;
    fs::write(&bad, octets)?;
    let spoilt = row(70_000, 1428, 16, true, Work::Single)?;
    for contender in contenders::all(None)?
        .iter()
        .filter(|contender| contender.role == Role::Limit)
    {
        let server = contender
            .start(&bench.directory, &bench.pattern)
            .map_err(io::Error::other)?;
        for case in &cases {
            if matches!(case.work, Work::Crowd(_)) && !contender.crowds {
                continue;
            }
            let silent = bench.silence(case, &server)?;
            assert_eq!(silent.map(|all| all.len()), Ok(case.silent));
            let report = bench.load(case, &server)?;
            assert_eq!(
                report.failed(),
                0,
                "{}: {:?} {:?}",
                contender.name,
                case.fetch,
                report.failures
            );
            assert!(report.done > 0);
        }
        let report = bench.load(&spoilt, &server)?;
        assert_eq!(
            (report.done, report.failed()),
            (0, 1),
            "{}: a wrong octet was not seen",
            contender.name
        );
    }
    check_alone(&bench)?;
    check_report();
    crate::check_filter();
    Ok(())
}

/// Load and server meet in another network namespace than ours, where one may be made.
fn check_alone(bench: &Bench) -> io::Result<()> {
    let mut all = contenders::all(None)?;
    all.retain(|one| one.role == Role::Limit && one.crowds);
    for one in all.into_iter().map(contenders::alone) {
        if one.is_alone() {
            one.at_home(|| {
                let server = one.start(&bench.directory, &bench.pattern)?;
                let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
                match network(&server.running.id().to_string()) != network("self") {
                    true => Ok(()),
                    false => Err("the server is not alone".to_owned()),
                }
            })
            .map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// What is written down is what is read back, and drawn.
fn check_report() {
    let mut entry = Entry::new("tftpool", Role::Own);
    for value in [3.0, 100.0, 2.5] {
        let figures = BTreeMap::from([(Figure::MibPerSecond, value)]);
        entry.samples.push(Sample {
            figures,
            note: "a \"note\"\n".to_owned(),
            ..Sample::default()
        });
    }
    let table = Table {
        row: "1428 x 16".to_owned(),
        entries: vec![entry],
        seconds: 1.0,
    };
    let json = report::document("a machine", &["tftpool".to_owned()], 3, &[table]);
    let results = Results::parse(&json).expect("our own JSON");
    let figures = results
        .figures("1428 x 16", "tftpool")
        .expect("our own row");
    assert_eq!(figures.get("mib_per_second"), Some(&3.0), "the median");
    let svg = crate::plot::svg(&results);
    assert!(
        svg.contains(">3.00</text>"),
        "the dot's value is in the picture"
    );
    for broken in ["", "{", "{\"rows\":[}", "[1,2", "{\"rows\":[]} x"] {
        assert!(Results::parse(broken).is_none(), "{broken}");
    }
}
