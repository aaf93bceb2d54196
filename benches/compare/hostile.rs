//! `compare hostile`: what bad links and hostile peers do to each server. Beside `compare`, because
//! most of it is waiting: all servers run at the same time where nothing but the clock is measured.

use crate::bed::{Lab, SERVER};
use crate::client::Fetch;
use crate::contenders::{self, Contender, Ready, Role};
use crate::load::{self, Crowd, percentile};
use crate::pattern::Pattern;
use crate::receivers::{self, HABITS, Habit};
use crate::relay::Link;
use crate::{Settings, machine};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// A rival that takes longer has failed.
const LOSSY_LIMIT: Duration = Duration::from_secs(120);
/// Nothing more comes from a server that has been quiet for so long.
const QUIET: Duration = Duration::from_secs(20);
const REFLECTION_LIMIT: Duration = Duration::from_secs(100);

/// Runs all of it, or the parts whose names `ROWS` gives, and prints Markdown.
pub(crate) fn compare(settings: &Settings) -> io::Result<()> {
    let _alone = machine::lock()?;
    println!("{}", machine::description());
    let bench = Bench::new(settings)?;
    type Part = fn(&Bench) -> io::Result<()>;
    let parts: [(&str, Part); 6] = [
        ("reflection", Bench::reflection),
        ("loss", Bench::loss),
        ("receivers", Bench::receivers),
        ("silent", Bench::silent),
        ("flood", Bench::flood),
        ("highest", Bench::highest_rate),
    ];
    for (name, part) in parts {
        if settings.wants_row(name) {
            part(&bench)?;
        }
    }
    Ok(())
}

struct Bench {
    contenders: Vec<Contender>,
    directory: PathBuf,
    pattern: Pattern,
    runs: usize,
}

impl Bench {
    fn new(settings: &Settings) -> io::Result<Self> {
        let directory = settings.target.join("bench/files");
        std::fs::create_dir_all(&directory)?;
        let pattern = Pattern::new();
        pattern.write(&directory.join(contenders::SMALL), 1024)?;
        let mut contenders = contenders::present(settings, &directory, &pattern)?;
        contenders.retain(|one| one.crowds && settings.wants_server(one.name));
        Ok(Self {
            contenders,
            directory,
            pattern,
            runs: settings.runs,
        })
    }

    /// A file, and how it is fetched.
    fn file(&self, size: u64, windowsize: u16) -> io::Result<Fetch> {
        let name = format!("f-{size}");
        self.pattern.write(&self.directory.join(&name), size)?;
        Ok(Fetch {
            name,
            size,
            blksize: 1428,
            windowsize,
            coalesce: windowsize > 1,
        })
    }

    /// Those with timers: the limits have none.
    fn real(&self) -> impl Iterator<Item = &Contender> {
        self.contenders.iter().filter(|one| one.role != Role::Limit)
    }

    /// Seconds for one file, over a relay that loses and delays, each server in a lab of its own.
    fn loss(&self) -> io::Result<()> {
        println!("\n### Loss\n");
        println!("Seconds for one file, the median of {} runs.\n", self.runs);
        header("loss each way, RTT, file", self.real().map(|one| one.name));
        let some = &[0, 1, 5][..];
        for (mib, window, rtt_millis, losses) in [
            (8, 16, 2, some),
            (8, 16, 20, some),
            (1, 1, 2, some),
            (1, 16, 2, &[20]),
        ] {
            let fetch = self.file(mib * MIB, window)?;
            for percent in losses {
                let link = Link {
                    delay: Duration::from_millis(rtt_millis) / 2,
                    loss: percent * 10_000,
                    ..Link::default()
                };
                let cells = thread::scope(|scope| {
                    let running: Vec<_> = self
                        .real()
                        .map(|one| scope.spawn(|| self.lossy_cell(one, &fetch, link)))
                        .collect();
                    running
                        .into_iter()
                        .map(|cell| cell.join().unwrap_or_else(|_| Ok("panicked".to_owned())))
                        .collect::<io::Result<Vec<_>>>()
                })?;
                println!(
                    "| {percent} %, {rtt_millis} ms, {mib} MiB 1428 × {window} | {} |",
                    cells.join(" | ")
                );
            }
        }
        Ok(())
    }

    fn lossy_cell(&self, contender: &Contender, fetch: &Fetch, link: Link) -> io::Result<String> {
        if fetch.windowsize > 1 && !contender.windows {
            return Ok("no windows".to_owned());
        }
        let (mut times, mut failures) = (Vec::new(), Vec::new());
        for run in 0..self.runs {
            let lab = Lab::relayed(link, link, run as u64)?;
            // A server ends with the thread that has started it.
            let report = lab.server.inside(|| {
                let server = self.start_in_lab(contender)?;
                lab.clients
                    .inside(|| load::single(fetch, &self.pattern, server.address, LOSSY_LIMIT))
                    .map_err(|cause| cause.to_string())
            });
            let report = match report {
                Ok(report) => report,
                Err(why) => return Ok(why),
            };
            eprintln!(
                "loss · {link:?} · {} · {:?} {:?}",
                contender.name, report.elapsed, report.failures
            );
            match report.done {
                1 => times.push(report.elapsed),
                _ => failures.extend(report.failures.into_keys()),
            }
        }
        let mut cell = match times.len() {
            0 => String::new(),
            _ => format!("{:.2}", percentile(&mut times, 50).as_secs_f64()),
        };
        if !failures.is_empty() {
            failures.sort_unstable();
            failures.dedup();
            cell += &format!(
                " {} of {} failed: {}",
                self.runs - times.len(),
                self.runs,
                failures.join("; ")
            );
        }
        Ok(cell)
    }

    /// Receivers of the field, which report holes in their own ways, and this crate's server.
    fn receivers(&self) -> io::Result<()> {
        println!("\n### Receivers\n");
        println!("Seconds for one file, the median of {} runs.\n", self.runs);
        let foreign = HABITS.map(|(name, habit)| (name, Some(habit)));
        let receivers = [("proto::Receiver", None)].into_iter().chain(foreign);
        let receivers: Vec<_> = receivers.collect();
        header(
            "loss each way, RTT, file",
            receivers.iter().map(|(name, _)| *name),
        );
        let Some(own) = self.real().find(|one| one.role == Role::Own) else {
            return Ok(());
        };
        for (mib, window, rtt_millis) in [(8, 16, 2), (8, 16, 20), (1, 1, 2)] {
            let fetch = self.file(mib * MIB, window)?;
            for percent in [0, 1, 5] {
                let link = Link {
                    delay: Duration::from_millis(rtt_millis) / 2,
                    loss: percent * 10_000,
                    ..Link::default()
                };
                // One after the other: five relays on two processors would measure each other.
                let cells = receivers
                    .iter()
                    .map(|(_, habit)| match habit {
                        None => self.lossy_cell(own, &fetch, link),
                        Some(habit) => self.received_cell(own, *habit, &fetch, link),
                    })
                    .collect::<io::Result<Vec<_>>>()?;
                println!(
                    "| {percent} %, {rtt_millis} ms, {mib} MiB 1428 × {window} | {} |",
                    cells.join(" | ")
                );
            }
        }
        Ok(())
    }

    fn received_cell(
        &self,
        contender: &Contender,
        habit: Habit,
        fetch: &Fetch,
        link: Link,
    ) -> io::Result<String> {
        let mut times = Vec::new();
        for run in 0..self.runs {
            let lab = Lab::relayed(link, link, run as u64)?;
            let time = lab.server.inside(|| {
                let server = self.start_in_lab(contender).map_err(io::Error::other)?;
                lab.clients
                    .inside(|| self.received(habit, fetch, server.address))
            });
            eprintln!("receivers · {link:?} · {habit:?} · {time:?}");
            match time {
                Ok(time) => times.push(time),
                Err(cause) => return Ok(format!("failed: {cause}")),
            }
        }
        Ok(format!("{:.2}", percentile(&mut times, 50).as_secs_f64()))
    }

    fn received(&self, habit: Habit, fetch: &Fetch, server: SocketAddrV4) -> io::Result<Duration> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let (mut offset, mut is_right) = (0, true);
        let file = (&*fetch.name, fetch.blksize.into(), fetch.windowsize.into());
        let time = receivers::fetch(habit, &socket, server.into(), file, LOSSY_LIMIT, |octets| {
            is_right &= self.pattern.matches(offset, octets);
            offset += octets.len() as u64;
        })?;
        match is_right && offset == fetch.size {
            true => Ok(time),
            false => Err(io::Error::other("wrong octets")),
        }
    }

    /// What a request with a forged source brings on its victim.
    fn reflection(&self) -> io::Result<()> {
        let name = "big";
        self.pattern.write(&self.directory.join(name), MIB)?;
        println!("\n### Reflection\n");
        println!(
            "Octets that a request which is never answered sends to its source, UDP payload only.\n"
        );
        println!(
            "| server | request | packets | largest | octets out ÷ in | for s |\n| --- | --- | ---: | ---: | ---: | ---: |"
        );
        let plain = b"\0\x01big\0octet\0".to_vec();
        let options = b"\0\x01big\0octet\0blksize\x001428\0windowsize\x0016\0tsize\x000\0".to_vec();
        let lines = thread::scope(|scope| {
            let mut running = Vec::new();
            for one in &self.contenders {
                for (what, request) in [("plain", &plain), ("options", &options)] {
                    running.push(scope.spawn(move || self.reflected(one, what, request)));
                }
            }
            running
                .into_iter()
                .map(|line| {
                    line.join()
                        .unwrap_or_else(|_| Ok("| panicked |".to_owned()))
                })
                .collect::<io::Result<Vec<_>>>()
        })?;
        lines.iter().for_each(|line| println!("{line}"));
        Ok(())
    }

    fn reflected(&self, contender: &Contender, what: &str, request: &[u8]) -> io::Result<String> {
        // Where two of one server cannot have the same port, each has a network of its own.
        let lab = Lab::relayed(Link::default(), Link::default(), 0)?;
        lab.server.inside(|| {
            let server = self.start_in_lab(contender).map_err(io::Error::other)?;
            lab.clients
                .inside(|| answers(contender.name, what, request, server.address))
        })
    }

    fn start_in_lab(&self, contender: &Contender) -> Result<Ready, String> {
        // This whole process visits the control group of each server that it starts.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let at = contender.at(SocketAddrV4::new(SERVER, 69));
        at.start(&self.directory, &self.pattern)
    }

    /// 2000 that ask and never answer, beside 20 that fetch without pause.
    fn silent(&self) -> io::Result<()> {
        let fetch = self.file(MIB, 16)?;
        println!("\n### 2000 silent peers beside 20 honest ones, 20 s\n");
        println!(
            "| server | transfers | failed | p99 ms | first reply p99 ms | private MiB | threads |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
        );
        for contender in &self.contenders {
            let time = Duration::from_secs(20);
            let crowd = Crowd::Endless(20, time);
            let silent = Silent {
                peers: 2000,
                per_second: 400, // each asks again after five seconds
                request: b"\0\x01f-1048576\0octet\0blksize\x001428\0windowsize\x0016\0".to_vec(),
            };
            contender.at_home(|| self.beside(contender, &silent, crowd, &fetch))?;
        }
        Ok(())
    }

    /// 10,000 silent peers, 2000 a second, while 50 fetch.
    fn flood(&self) -> io::Result<()> {
        let fetch = self.file(MIB, 16)?;
        println!("\n### 10,000 silent peers at 2000 a second beside 50 honest ones, 5 s\n");
        println!(
            "| server | transfers | failed | p99 ms | first reply p99 ms | private MiB | threads |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
        );
        for contender in &self.contenders {
            let silent = Silent {
                peers: 10_000,
                per_second: 2000,
                request: b"\0\x01f-1048576\0octet\0".to_vec(),
            };
            let crowd = Crowd::Endless(50, Duration::from_secs(5));
            contender.at_home(|| self.beside(contender, &silent, crowd, &fetch))?;
        }
        Ok(())
    }

    fn beside(
        &self,
        contender: &Contender,
        silent: &Silent,
        crowd: Crowd,
        fetch: &Fetch,
    ) -> io::Result<()> {
        let server = match contender.start(&self.directory, &self.pattern) {
            Ok(server) => server,
            Err(why) => {
                println!("| {} | {why} |", contender.name);
                return Ok(());
            }
        };
        let over = AtomicBool::new(false);
        let (report, peak) = thread::scope(|scope| {
            let asking = scope.spawn(|| silent.ask(server.address, &over));
            let watched = server.running.watch(Duration::from_millis(250), || {
                load::crowd(
                    crowd,
                    fetch,
                    &self.pattern,
                    server.address,
                    Duration::from_secs(40),
                )
            });
            over.store(true, Ordering::Relaxed);
            asking
                .join()
                .map_err(|_| io::Error::other("the silent peers"))??;
            Ok::<_, io::Error>(watched)
        })?;
        let mut report = report?;
        let millis = |values: &mut [Duration]| percentile(values, 99).as_secs_f64() * 1e3;
        println!(
            "| {} | {} | {} | {:.0} | {:.1} | {:.1} | {} |",
            contender.name,
            report.done,
            report.failed(),
            millis(&mut report.completions),
            millis(&mut report.first_replies),
            peak.private as f64 / MIB as f64,
            peak.threads,
        );
        Ok(())
    }

    /// One running transfer, alone and beside as many forged requests as one thread can send.
    fn highest_rate(&self) -> io::Result<()> {
        let fetch = self.file(512 * MIB, 16)?;
        println!("\n### One transfer beside forged requests at the highest rate of one thread\n");
        println!(
            "| server | alone MiB/s | flooded MiB/s | ratio | requests/s | note |\n| --- | ---: | ---: | ---: | ---: | --- |"
        );
        for contender in self.contenders.iter().filter(|one| one.windows) {
            let mut speeds = Vec::new();
            let (sent, mut note) = (AtomicU64::new(0), String::new());
            for flooded in [false, true] {
                let Ok(server) = contender.start(&self.directory, &self.pattern) else {
                    continue;
                };
                let over = AtomicBool::new(false);
                let report = thread::scope(|scope| {
                    if flooded {
                        scope.spawn(|| flood(server.address, &over, &sent));
                    }
                    let report = load::single(
                        &fetch,
                        &self.pattern,
                        server.address,
                        Duration::from_secs(60),
                    );
                    over.store(true, Ordering::Relaxed);
                    report
                })?;
                let seconds = report.elapsed.as_secs_f64();
                speeds.push((report.done * 512) as f64 / seconds);
                if flooded {
                    sent.store(
                        (sent.load(Ordering::Relaxed) as f64 / seconds) as u64,
                        Ordering::Relaxed,
                    );
                }
                note.extend(report.failures.into_keys());
            }
            let [alone, flooded] = speeds[..] else {
                continue;
            };
            println!(
                "| {} | {alone:.0} | {flooded:.0} | {:.2} | {} | {note} |",
                contender.name,
                flooded / alone,
                sent.load(Ordering::Relaxed)
            );
        }
        Ok(())
    }
}

/// Asks once and counts what comes.
fn answers(name: &str, what: &str, request: &[u8], server: SocketAddrV4) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(QUIET))?;
    let begun = Instant::now();
    socket.send_to(request, server)?;
    let (mut packets, mut octets, mut largest, mut last) = (0, 0, 0, begun);
    let mut buffer = [0; 65536];
    while begun.elapsed() < REFLECTION_LIMIT
        && let Ok(length) = socket.recv(&mut buffer)
    {
        (packets, octets) = (packets + 1, octets + length);
        largest = largest.max(length);
        last = Instant::now();
    }
    let more = if begun.elapsed() >= REFLECTION_LIMIT {
        "+"
    } else {
        ""
    };
    Ok(format!(
        "| {} | {what}, {} octets | {packets}{more} | {largest} | {:.1} | {:.1}{more} |",
        name,
        request.len(),
        octets as f64 / request.len() as f64,
        (last - begun).as_secs_f64()
    ))
}

fn header<'a>(first: &str, names: impl Iterator<Item = &'a str>) {
    let names: Vec<&str> = names.collect();
    println!("| {first} | {} |", names.join(" | "));
    println!("| --- |{}", " ---: |".repeat(names.len()));
}

/// Peers that ask and never say a word again, each from an address of its own.
struct Silent {
    peers: u32,
    per_second: u32,
    request: Vec<u8>,
}

impl Silent {
    fn ask(&self, server: SocketAddrV4, over: &AtomicBool) -> io::Result<()> {
        let socket = forging_socket()?;
        let begun = Instant::now();
        for count in 0u32.. {
            let due = begun + Duration::from_secs(1) * count / self.per_second;
            if over.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            send_as(&socket, forged(count % self.peers), server, &self.request)?;
        }
        Ok(())
    }
}

fn flood(server: SocketAddrV4, over: &AtomicBool, sent: &AtomicU64) -> io::Result<()> {
    let socket = forging_socket()?;
    for count in 0u32.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        send_as(
            &socket,
            forged(count % (1 << 20)),
            server,
            b"\0\x01f-1024\0octet\0",
        )?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Takes answers to every address and never reads them, so that nobody hears "port unreachable".
fn forging_socket() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
}

fn forged(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 128, 0, 1)) + number)
}

/// Sends from an address of our choice.
fn send_as(
    socket: &UdpSocket,
    source: Ipv4Addr,
    to: SocketAddrV4,
    datagram: &[u8],
) -> io::Result<()> {
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from(source).to_be(),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(datagram)],
        &[ControlMessage::Ipv4PacketInfo(&source)],
        MsgFlags::empty(),
        Some(&SockaddrIn::from(to)),
    )?;
    Ok(())
}
