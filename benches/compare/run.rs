//! The runs themselves: every server afresh for every run, the servers interleaved, so that a machine that grows slower
//! or faster does so for all.

use crate::Settings;
use crate::affinity::Pinned;
use crate::client::Fetch;
use crate::contenders::{self, Contender, Ready, Role};
use crate::load::{self, Crowd, Report, percentile};
use crate::machine::{self, Others};
use crate::pattern::Pattern;
use crate::process::{self, Peak};
use crate::report::{Entry, Figure, Sample, Table};
use crate::rows::{self, Row, Work};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// A run is repeated where others took more than this share of the machine meanwhile; so often in all.
const DISTURBED: f64 = 0.1;
const ATTEMPTS: usize = 4;

/// Everything a run needs.
struct Bench {
    pattern: Pattern,
    directory: PathBuf,
    scratch: PathBuf,
}

/// Runs the matrix and prints it.
pub(crate) fn compare(settings: &Settings) -> io::Result<()> {
    let _alone = machine::lock()?;
    raise_descriptor_limit();
    println!("{}", machine::description());
    let bench = Bench::new(&settings.target)?;
    let wanted = |list: &[String], name: &str| {
        let name = name.to_lowercase();
        list.is_empty() || list.iter().any(|word| name.contains(word.as_str()))
    };
    let contenders: Vec<Contender> = contenders::all(settings.peers.as_deref())?
        .into_iter()
        .filter(|contender| wanted(&settings.only, contender.name))
        .filter(
            |contender| match contender.start(&bench.directory, &bench.pattern) {
                Ok(_) => true,
                Err(why) => {
                    eprintln!("{}: {why}; left out", contender.name);
                    false
                }
            },
        )
        .collect();
    let mut objects = Vec::new();
    for row in rows::all(settings.quick, settings.spread) {
        if !wanted(&settings.rows, &row.name) {
            continue;
        }
        let table = bench.row(&row, &contenders, settings.runs)?;
        print!("{}", table.markdown());
        objects.push(table.json());
        let json = format!("[{}]\n", objects.join(",\n"));
        fs::write(settings.target.join("bench.json"), json)?;
    }
    Ok(())
}

impl Bench {
    fn new(target: &Path) -> io::Result<Self> {
        let scratch = target.join("bench");
        let directory = scratch.join("files");
        fs::create_dir_all(&directory)?;
        let pattern = Pattern::new();
        pattern.write(&directory.join(contenders::SMALL), 1024)?;
        Ok(Self {
            pattern,
            directory,
            scratch,
        })
    }

    fn row(&self, row: &Row, contenders: &[Contender], runs: usize) -> io::Result<Table> {
        self.pattern
            .write(&self.directory.join(&row.fetch.name), row.fetch.size)?;
        let takes_part = |contender: &&Contender| match row.work {
            Work::Single => contender.windows || !row.needs_windows(),
            Work::Crowd(_) => contender.crowds,
            Work::Idle => contender.role != Role::Limit,
        };
        let contenders: Vec<&Contender> = contenders.iter().filter(takes_part).collect();
        let mut entries: Vec<Entry> = contenders
            .iter()
            .map(|contender| Entry {
                server: contender.name,
                role: contender.role,
                samples: Vec::new(),
            })
            .collect();
        for run in 0..runs {
            for (contender, entry) in contenders.iter().zip(&mut entries) {
                eprintln!(
                    "{} · run {} of {runs} · {}",
                    row.name,
                    run + 1,
                    contender.name
                );
                let mut sample = self.undisturbed_sample(row, contender)?;
                if run == 0 && matches!(row.work, Work::Single) && !sample.figures.is_empty() {
                    self.count_calls(row, contender, &mut sample);
                }
                entry.samples.push(sample);
            }
        }
        Ok(Table {
            row: row.name.clone(),
            entries,
        })
    }

    /// One run, repeated a few times where others were busy meanwhile; the last one counts as it is.
    fn undisturbed_sample(&self, row: &Row, contender: &Contender) -> io::Result<Sample> {
        let mut sample = self.sample(row, contender)?;
        for _ in 1..ATTEMPTS {
            if sample.others <= DISTURBED {
                break;
            }
            thread::sleep(Duration::from_secs(1));
            sample = self.sample(row, contender)?;
        }
        Ok(sample)
    }

    /// One run of one server.
    fn sample(&self, row: &Row, contender: &Contender) -> io::Result<Sample> {
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
        if let Work::Idle = row.work {
            return Ok(idle(contender, &server));
        }
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
        let cpu = server.running.cpu().saturating_sub(before);
        let others = others.share(cpu + own_cpu() - own);
        Ok(Sample {
            others,
            ..figures(row, report, cpu, peak)
        })
    }

    fn load(&self, row: &Row, server: &Ready) -> io::Result<Report> {
        match row.work {
            Work::Single => load::single(&row.fetch, &self.pattern, server.address, row.limit),
            Work::Crowd(crowd) => {
                load::crowd(crowd, &row.fetch, &self.pattern, server.address, row.limit)
            }
            Work::Idle => Ok(Report::default()),
        }
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
            Figure::FirstReplyP99Millis,
            millis(percentile(&mut report.first_replies, 99)),
        );
        match crowd {
            Crowd::Storm(_) => {
                set(Figure::LastMillis, millis(report.elapsed));
                let blocks = (report.done * row.fetch.blocks()) as f64;
                set(
                    Figure::WastedPercent,
                    100.0 * report.ignored as f64 / blocks,
                );
            }
            Crowd::Endless(..) => {
                set(Figure::TransfersPerSecond, report.done as f64 / seconds);
                set(
                    Figure::CpuMicrosPerTransfer,
                    cpu.as_secs_f64() * 1e6 / report.done as f64,
                );
                return sample;
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

fn idle(contender: &Contender, server: &Ready) -> Sample {
    let mut sample = Sample::default();
    let size = fs::metadata(&contender.program).map_or(0, |found| found.len());
    let Peak { private, threads } = server.running.usage();
    sample.figures.extend([
        (Figure::IdlePrivateMib, private as f64 / MIB),
        (Figure::Threads, threads as f64),
        (Figure::BinaryMib, size as f64 / MIB),
        (
            Figure::FirstAnswerMillis,
            server.first_answer.as_secs_f64() * 1e3,
        ),
    ]);
    sample
}

/// CPU time of the load generator so far.
fn own_cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::from_micros(time.num_microseconds().unsigned_abs()))
        .iter()
        .sum()
}

/// Thousands of clients need a socket each. Servers inherit the limit, which can only help them.
fn raise_descriptor_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
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

/// The generator against the limits: files that arrive are counted, files that differ are not. Nothing here is timed.
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
    println!("self-check: the load generator tells right from wrong");
    Ok(())
}
