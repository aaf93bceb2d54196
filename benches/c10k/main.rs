//! `make bench-c10k`: ten thousand boards at once, each of which takes 100 ms for every ACK, on the
//! default pool; a fast client beside them; and what a waiting transfer costs. Once with the
//! command, once with a `Driver` in a program of its own.
//!
//! `CLIENTS=n` takes another number of boards. Without `--bench` it does nothing.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock; that is what it is for

mod crowd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tftpool::Driver;
use tftpool::testing::{Profile, pattern};

/// A file that takes 129 ACKs, and is mapped.
const SLOW: usize = 128 * 512;
const FAST: usize = 8 << 20;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the fast client is measured.
const SPAN: Duration = Duration::from_secs(4);
/// Room for the fast client, and for transfers that end while others begin.
const SPARE: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["embedded", root, transfers] => embedded(root, transfers.parse()?),
        ref words if words.contains(&"--bench") => bench(),
        _ => Ok(()),
    }
}

/// As many descriptors as are wanted, where root runs this, else as many as there may be.
fn raise_limit(wanted: u64) -> Result<u64, Box<dyn Error>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// The server as a part of a program: this one.
fn embedded(root: &str, transfers: usize) -> Result<(), Box<dyn Error>> {
    raise_limit(2 * transfers as u64 + 100)?;
    let driver = Driver::builder()
        .root(root)
        .host("127.0.0.1")
        .port(0)
        .limits(|limits| limits.max_transfers = transfers)
        .open()?;
    driver.start()?;
    eprintln!(
        "tftpool: serving {root} on {}:{}",
        driver.host()?,
        driver.port()
    );
    loop {
        std::thread::park();
    }
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(mut command: Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no output")?;
        let mut lines = BufReader::new(stderr).lines();
        let said = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(": serving ")));
        // Nobody may stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let line = said.ok_or("it does not serve")??;
        let address = line.rsplit(' ').next().ok_or("no address")?.parse()?;
        Ok(Self { child, address })
    }

    /// A line of its `/proc/PID/status`, as a number.
    fn status(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fetches the large file again and again; MiB a second.
fn fast(server: SocketAddr, until: impl Fn() -> bool) -> f64 {
    let client = Profile::ipxe()
        .option("blksize", 1428)
        .option("windowsize", 16);
    let start = Instant::now();
    let mut fetched = 0;
    while !until() {
        match client.boot(server, "fast") {
            Ok(boot) => fetched += boot.content.len(),
            Err(failure) => eprintln!("the fast client: {failure}"),
        }
    }
    fetched as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64()
}

fn bench() -> Result<(), Box<dyn Error>> {
    let clients: usize = match std::env::var("CLIENTS") {
        Ok(text) => text.parse()?,
        Err(_) => 10_000,
    };
    let wanted = 2 * (clients + SPARE) as u64;
    let limit = raise_limit(wanted)?;
    if limit < (clients + SPARE) as u64 {
        return Err(format!("{limit} descriptors are not enough for {clients} boards").into());
    }
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c10k");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("slow"), pattern(SLOW))?;
    std::fs::write(root.join("fast"), pattern(FAST))?;
    let root = root.to_str().ok_or("a path that is text")?.to_owned();
    // One address has 15 of 16 places at most.
    let transfers = (clients + clients / 15 + SPARE).to_string();

    println!(
        "{clients} boards, {} ms for each ACK, 129 blocks of 512 octets",
        PAUSE.as_millis()
    );
    println!(
        "| server | complete | took | blocks/s | again | threads | a parked transfer | fast client: alone | beside them | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tftpool"));
    command.args([
        "serve",
        "-qq",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--serve-unreadable",
        "--user",
        "root",
    ]);
    command.args(["--max-transfers", &transfers, &root]);
    row("tftpool serve", command, clients)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["embedded", &root, &transfers]);
    row("Driver", command, clients)
}

fn row(name: &str, command: Command, clients: usize) -> Result<(), Box<dyn Error>> {
    let server = Server::start(command)?;
    let asked = server.address;
    let start = Instant::now();
    let alone = fast(asked, || start.elapsed() > SPAN);
    let before = server.status("RssAnon");
    let (mut most, mut threads, mut parked) = (0, 0, 1);
    let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (report, beside) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            while !has_begun.load(Ordering::Relaxed) && !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let start = Instant::now();
            fast(asked, || {
                start.elapsed() > SPAN || is_over.load(Ordering::Relaxed)
            })
        });
        let limit = Duration::from_secs(120);
        let report = crowd::fetch(
            asked,
            "slow",
            &pattern(SLOW),
            (clients, PAUSE),
            limit,
            |running| {
                threads = threads.max(server.status("Threads"));
                if running >= clients * 9 / 10 {
                    has_begun.store(true, Ordering::Relaxed);
                    let now = server.status("RssAnon");
                    if now > most {
                        (most, parked) = (now, running);
                    }
                }
            },
        );
        is_over.store(true, Ordering::Relaxed);
        (report, beside.join().expect("the fast client"))
    });
    let report = report?;
    println!(
        "| {name} | {} of {clients} | {:.1} s | {:.0} | {} | {threads} | {} octets | {alone:.0} MiB/s | {beside:.0} MiB/s | {:.2} |",
        report.complete,
        report.elapsed.as_secs_f64(),
        report.blocks as f64 / report.elapsed.as_secs_f64(),
        report.copies,
        most.saturating_sub(before) * 1024 / parked as u64,
        beside / alone,
    );
    Ok(())
}
