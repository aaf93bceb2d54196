//! Words to stderr that never hold up the server.
//!
//! Whoever logs puts a line into a bounded queue; one thread writes them out. When nobody reads
//! stderr the queue fills, further lines are counted instead of kept, and the count is written as
//! soon as lines flow again. A closed stderr is no trouble: its lines are lost like the others.

use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Lines that may wait for stderr.
const QUEUE_LINES: usize = 4096;
/// Lines put into one write, at most.
const BATCH_LINES: usize = 64;
/// How long lines may gather before they are written: a thread that wakes for each line costs more
/// than the line.
const GATHER: Duration = Duration::from_millis(1);
/// How long the last lines may take to leave, twice over: once to get into the queue, once to get
/// out of it.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

/// `-v` and `-q`.
#[derive(clap::Args)]
#[command(next_help_heading = "Logging")]
pub(super) struct Verbosity {
    /// Log more: -v adds a line per decision, -vv one per burst and answer [default: one line per
    /// transfer]
    ///
    /// The log goes to stderr and never holds up the server: lines that nobody reads are dropped
    /// and counted. The variable RUST_LOG, where set, decides instead of -v and -q.
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,

    /// Log less: -q warnings and errors, -qq only errors
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,
}

impl Verbosity {
    fn level(&self) -> log::LevelFilter {
        match (self.verbose, self.quiet) {
            (0, 0) => log::LevelFilter::Info,
            (1, _) => log::LevelFilter::Debug,
            (2.., _) => log::LevelFilter::Trace,
            (_, 1) => log::LevelFilter::Warn,
            (_, 2..) => log::LevelFilter::Error,
        }
    }
}

/// The way to stderr. [`flush`](Self::flush) it before the process ends.
#[derive(Clone)]
pub(super) struct Log {
    queue: Queue,
    levels: &'static Levels,
}

impl Log {
    /// Starts the writing thread and sends the log of the whole process, panics included, through
    /// it.
    pub(super) fn start(verbosity: &Verbosity) -> io::Result<Self> {
        let queue = Queue::new(io::stderr())?;
        let mut asked = env_logger::Builder::new();
        match std::env::var("RUST_LOG") {
            Ok(filters) => asked.parse_filters(&filters),
            Err(_) => asked.filter_level(verbosity.level()),
        };
        let asked = build(asked, &queue);
        let has_debug = asked.filter() >= log::LevelFilter::Debug;
        let mut other = env_logger::Builder::new();
        other.filter_level(match has_debug {
            true => log::LevelFilter::Info,
            false => log::LevelFilter::Debug,
        });
        // Lives as long as the process, as every logger does.
        let levels: &'static Levels = Box::leak(Box::new(Levels {
            asked,
            other: build(other, &queue),
            is_toggled: AtomicBool::new(false),
        }));
        log::set_logger(levels).map_err(io::Error::other)?;
        log::set_max_level(levels.asked.filter());
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
        Ok(Self { queue, levels })
    }

    /// Switches debug lines on, or off where they are on; another call restores what the command
    /// line asked for. Returns whether they are on now.
    pub(super) fn toggle_debug(&self) -> bool {
        self.levels.is_toggled.fetch_xor(true, Ordering::Relaxed);
        let level = self.levels.current().filter();
        log::set_max_level(level);
        level >= log::LevelFilter::Debug
    }

    /// Logs a line at `info` that a person has just asked for, whatever the log level.
    pub(super) fn answer(&self, text: std::fmt::Arguments<'_>) {
        use log::Log as _;
        // This one lets info pass, always.
        let record = log::Record::builder()
            .level(log::Level::Info)
            .target(module_path!())
            .args(text)
            .build();
        self.levels.other.log(&record);
    }

    /// Waits a moment for the last lines.
    pub(super) fn flush(&self) {
        self.queue.flush();
    }

    /// Tells the operator something whatever the log level.
    pub(super) fn say(&self, text: impl std::fmt::Display) {
        self.queue.push(format!("tftpool: {text}\n").into());
    }
}

/// Two loggers of which one is in use: the one that the command line asks for, and one with debug
/// lines where that has none, or without them where it has.
struct Levels {
    asked: env_logger::Logger,
    other: env_logger::Logger,
    is_toggled: AtomicBool,
}

impl Levels {
    fn current(&self) -> &env_logger::Logger {
        match self.is_toggled.load(Ordering::Relaxed) {
            true => &self.other,
            false => &self.asked,
        }
    }
}

impl log::Log for Levels {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.current().enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        self.current().log(record);
    }

    fn flush(&self) {}
}

fn build(mut logger: env_logger::Builder, queue: &Queue) -> env_logger::Logger {
    logger
        .target(env_logger::Target::Pipe(Box::new(queue.clone())))
        .format(|line, record| {
            let time = line.timestamp();
            writeln!(line, "{time} {} {}", record.level(), record.args())
        })
        .build()
}

/// Lines on their way to a writer.
#[derive(Clone)]
struct Queue {
    entries: Sender<Entry>,
    lost: Arc<AtomicU64>,
}

/// What travels in the queue, in order.
enum Entry {
    Line(Vec<u8>),
    /// So many lines did not fit in here.
    Lost(u64),
    /// Everything before this has been written when the sender is dropped.
    Flush(Sender<()>),
}

impl Queue {
    fn new(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (entries, queued) = bounded(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let uncounted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_out(writer, &queued, &uncounted))?;
        Ok(Self { entries, lost })
    }

    fn push(&self, line: Vec<u8>) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && self.entries.try_send(Entry::Lost(lost)).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        } else if self.entries.try_send(Entry::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, but never long.
    fn flush(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = self.entries.send_timeout(Entry::Lost(lost), FLUSH_WAIT);
        }
        let (written, done) = bounded(0);
        if self
            .entries
            .send_timeout(Entry::Flush(written), FLUSH_WAIT)
            .is_ok()
        {
            let _ = done.recv_timeout(FLUSH_WAIT);
        }
    }
}

/// What env_logger writes to: one whole line a call.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.into());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writing thread. It may block as long as it likes.
#[allow(
    clippy::disallowed_methods,
    reason = "whatever ended this wait is what it is to bundle"
)]
fn write_out(mut writer: impl Write, queued: &Receiver<Entry>, lost: &AtomicU64) {
    let mut batch = Vec::new();
    while let Ok(first) = queued.recv() {
        std::thread::sleep(GATHER);
        let mut flushed = Vec::new();
        let mut lines = 0;
        for entry in std::iter::once(first).chain(queued.try_iter().take(BATCH_LINES - 1)) {
            match entry {
                Entry::Line(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Entry::Lost(count) => {
                    batch
                        .extend_from_slice(format!("tftpool: {count} log lines lost\n").as_bytes());
                }
                Entry::Flush(written) => flushed.push(written),
            }
        }
        if writer.write_all(&batch).is_err() {
            lost.fetch_add(lines, Ordering::Relaxed);
        }
        batch.clear();
    }
}
