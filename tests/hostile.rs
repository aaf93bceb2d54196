//! Peers that mean harm, in numbers, against the real binary: forged sources, peers that keep a
//! transfer alive for nothing, and a hundred thousand datagrams of nonsense; and a system that
//! gives next to no memory. The server's memory, threads and descriptors are read from outside.

#![allow(
    clippy::disallowed_methods,
    reason = "a load has a rate, and another process no events"
)]

#[path = "harness/cgroup.rs"]
mod cgroup;
#[allow(dead_code, reason = "a part of its report is for the benchmark")]
#[path = "../benches/c10k/crowd.rs"]
mod crowd;
mod harness;
#[path = "loopback/rig.rs"]
mod rig;

use cgroup::MemoryGroup;
use harness::{LONG, Scratch, Server, content, tftpool};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::sockopt::{self, Ipv4PacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
};
use rig::{Client, Reply, fetch, fetch_into, now};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tftpool::unversioned::limits::SPARE_WORKERS;
use tftpool::{Mode, OptionName};

/// Threads that a server has besides its pool: the loop, the log, signals, and the one it was
/// started in.
const OTHER_THREADS: u64 = 4;
const WORKERS: u64 = 4;
/// Those it has at rest.
const THREADS: u64 = WORKERS + OTHER_THREADS;
/// Where this machine gives a worker no turn for a second, it counts as stuck, and others come in
/// its place for a while.
const MOST_THREADS: u64 = THREADS + SPARE_WORKERS as u64;
/// Those of a flood.
const SOURCES: u32 = 10_000;
/// The first one, and those after it from other sources.
const FLOODS: u32 = 5;
/// Private memory that another flood may add, once the tables have grown: 52 bytes for each of its
/// sources.
const SLACK_KIB: u64 = 512;
/// Peers that only want to be kept, all of them in CI.
const LORISES: u32 = 5_000;
/// Each of them says its next ACK after so long: twelve blocks a minute, where sixteen are asked
/// for.
const PAUSE: Duration = Duration::from_secs(5);

fn serve(options: &[&str]) -> (Scratch, Server) {
    serve_at("127.0.0.1", options)
}

fn serve_at(host: &str, options: &[&str]) -> (Scratch, Server) {
    let scratch = Scratch::new();
    scratch.file("file", &content(200_000));
    scratch.file("small", &content(700));
    let mut command = tftpool();
    command
        .args(["serve", "--host", host, "--port", "0", "--workers"])
        .arg(WORKERS.to_string())
        .args(options)
        .arg(scratch.path())
        // One heap for all threads: otherwise what it takes depends on who had a turn.
        .env("MALLOC_ARENA_MAX", "1");
    (scratch, Server::spawn(command))
}

/// Says it past the test harness, which shows nothing of a test that passes.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

fn status(server: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{server}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).expect(field)
}

fn descriptors(server: &Server) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid()));
    open.expect("our own child").count()
}

/// Waits until the server holds no more than it did. Nobody is told when another process closes a
/// descriptor or ends a thread, so it is looked at again and again.
fn wait_for_rest(server: &Server, descriptors_before: usize) {
    let end = now() + 2 * LONG;
    loop {
        let (open, threads) = (descriptors(server), status(server.pid(), "Threads:"));
        if open <= descriptors_before && threads <= THREADS {
            return;
        }
        assert!(
            now() < end,
            "{open} descriptors, {descriptors_before} before; {threads} threads of {THREADS}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Many peers with one socket: it sends from any address of 127.0.0.0/8, and takes what is sent to
/// any of them, so that nobody hears "port unreachable".
struct Ghosts(UdpSocket);

impl Ghosts {
    fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        let moment = Duration::from_millis(10);
        socket.set_read_timeout(Some(moment)).expect("a timeout");
        setsockopt(&socket, Ipv4PacketInfo, &true).expect("Linux");
        // Where this process may, room for what comes to all of them while it has no turn.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20));
        Self(socket)
    }

    fn say(&self, ghost: u32, to: SocketAddr, datagram: &[u8]) {
        let SocketAddr::V4(to) = to else {
            unreachable!("127.0.0.1")
        };
        let address = u32::from(Ipv4Addr::new(127, 128, 0, 1)) + ghost;
        let source = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: address.to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(*to.ip(), to.port()));
        let sent = sendmsg(
            self.0.as_raw_fd(),
            &[IoSlice::new(datagram)],
            &[ControlMessage::Ipv4PacketInfo(&source)],
            MsgFlags::empty(),
            Some(&to),
        );
        sent.expect("a send");
    }

    /// The next packet within a moment: for which of them, from where, its opcode and its block.
    fn hear(&self) -> Option<(u32, SocketAddr, u8, u16)> {
        let mut octets = [0; 2048];
        let mut parts = [IoSliceMut::new(&mut octets)];
        let mut control = nix::cmsg_space!(libc::in_pktinfo);
        let descriptor = self.0.as_raw_fd();
        let heard = recvmsg::<SockaddrIn>(
            descriptor,
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let heard = heard.ok()?;
        let from = heard.address?;
        let from = SocketAddrV4::new(from.ip(), from.port()).into();
        let info = heard.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        })?;
        let address = u32::from_be(info.ipi_addr.s_addr);
        let ghost = address - u32::from(Ipv4Addr::new(127, 128, 0, 1));
        let block = u16::from_be_bytes([octets[2], octets[3]]);
        Some((ghost, from, octets[1], block))
    }
}

/// Sets the flag also when the thread panics.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// So many clients fetch a file each, all at once. Returns how long those that asked for no option
/// waited for DATA 1.
fn honest(server: SocketAddr, clients: usize) -> Vec<Duration> {
    let fetch = |number: usize| {
        let options = [
            (OptionName::Blksize, 1428),
            (OptionName::Windowsize, [1, 4, 16, 64][number % 4]),
        ];
        let options = &options[..number % 3];
        let (mut got, mut first) = (Vec::new(), None);
        let store = |block: &[u8]| {
            first.get_or_insert_with(now);
            got.extend_from_slice(block);
        };
        let socket = Client::new(server).socket;
        let asked = now();
        let end = fetch_into(store, &socket, server, "file", Mode::Octet, options);
        assert!(end.is_ok() && got == content(200_000), "{end:?}");
        first.filter(|_| options.is_empty()).map(|at| at - asked)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|number| scope.spawn(move || fetch(number)))
            .collect();
        let waits = clients.into_iter().map(|client| client.join());
        waits
            .filter_map(|wait| wait.expect("a client that gets its file"))
            .collect()
    })
}

/// Looks at the server's threads until it is over; the most that were seen. The kernel keeps no
/// highest number.
fn most_threads(server: u32, over: &AtomicBool) -> u64 {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        most = most.max(status(server, "Threads:"));
        thread::sleep(Duration::from_millis(5));
    }
    most
}

/// One request from each of 10,000 addresses, 2,000 a second at most, while 50 clients fetch one
/// file after the other. Then the same from others, again and again: what is kept of each source
/// adds up.
#[test]
fn ten_thousand_forged_sources_hold_nobody_up_and_leave_nothing() {
    // Fewer than a flood brings before it is forgotten: each of them fills the table, and room is
    // made for all others.
    let (_scratch, server) = serve(&["--max-transfers", "5000"]);
    honest(server.address(), 50);
    let idle = descriptors(&server);
    let (mut kib, mut waits, mut most) = (Vec::new(), Vec::new(), Vec::new());
    for first in (0..FLOODS).map(|flood| flood * SOURCES) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (over, asked, process) = (&over, server.address(), server.pid());
            scope.spawn(move || {
                let _sets = Sets(over);
                let ghosts = Ghosts::new();
                for ghost in first..first + SOURCES {
                    ghosts.say(ghost, asked, b"\0\x01file\0octet\0");
                    if ghost % 20 == 0 {
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            });
            let threads = scope.spawn(move || most_threads(process, over));
            while !over.load(Ordering::Relaxed) {
                waits.extend(honest(asked, 50));
            }
            let threads = threads.join().expect("a look at the server");
            most.push(threads);
            assert!(threads <= MOST_THREADS, "{threads} threads");
        });
        wait_for_rest(&server, idle);
        kib.push(status(server.pid(), "RssAnon:"));
    }
    waits.sort_unstable();
    say(&format!(
        "{FLOODS} times {SOURCES} forged sources: {} honest clients had their first answer after {:?} (median), {:?} (p99); {kib:?} KiB, {most:?} threads at most",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
    ));
    // What a flood leaves is room for as many transfers as there were at once, and nothing for each
    // source: once the tables have grown, another flood adds nothing.
    let [first, .., settled, last] = kib[..] else {
        panic!("too few floods");
    };
    assert!(first < 64 << 10, "{first} KiB after the first flood");
    assert!(
        last <= settled + SLACK_KIB,
        "{settled} KiB after the flood before, {last} after the last"
    );
}

/// Ports of the range that the flood fills. Half-open transfers may have half of them.
const FEW_PORTS: u16 = 100;
/// Between two forged requests: ten times as many a second as there are half-open places.
const FLOOD_PAUSE: Duration = Duration::from_millis(2);
/// Requests of clients that answer at once.
const VISITORS: u32 = 60;

/// A flood that fills all half-open places several times a second. A client in the same network
/// answers within milliseconds, and is served at its first request.
#[test]
fn a_flood_that_fills_a_small_range_of_ports_leaves_clients_served() {
    let ports = rig::free_ports(FEW_PORTS);
    let range = format!("{}:{}", ports.start(), ports.end());
    let (_scratch, server) = serve(&["--port-range", &range]);
    let asked = server.address();
    let over = AtomicBool::new(false);
    let (filled, is_filled) = channel();
    let served = thread::scope(|scope| {
        let over = &over;
        let _sets = Sets(over);
        scope.spawn(move || {
            let ghosts = Ghosts::new();
            for ghost in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                ghosts.say(ghost, asked, b"\0\x01file\0octet\0");
                if ghost == u32::from(FEW_PORTS) {
                    filled.send(()).expect("a receiver");
                }
                thread::sleep(FLOOD_PAUSE);
            }
        });
        is_filled.recv().expect("a flood");
        let visits = (0..VISITORS).filter(|_| {
            thread::sleep(FLOOD_PAUSE);
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let patience = Duration::from_millis(900);
            socket.set_read_timeout(Some(patience)).expect("a timeout");
            let request = b"\0\x01file\0octet\0";
            socket.send_to(request, asked).expect("sent");
            let answer = socket.recv_from(&mut [0; 600]);
            answer.is_ok_and(|(_, tid)| socket.send_to(b"\0\x05\0\0enough\0", tid).is_ok())
        });
        visits.count()
    });
    say(&format!(
        "{FEW_PORTS} ports, a forged request each {FLOOD_PAUSE:?}: {served} of {VISITORS} clients were served at their first request"
    ));
    assert!(served > VISITORS as usize * 3 / 4, "{served} clients");
}

/// What a forged request makes the server hold is small, whatever it asks for: `docs/security.md`
/// has the table.
#[test]
fn a_half_open_transfer_holds_a_few_kib_whatever_was_asked() {
    const WARM: u32 = 100;
    const COUNTED: u32 = 300;
    const MOST: u64 = 5 << 10;
    let long = [b"x".repeat(900), b"\0y\0".to_vec()].concat();
    let requests: [(&str, Vec<u8>); 4] = [
        ("plain", b"\0\x01file\0octet\0".to_vec()),
        ("text", b"\0\x01file\0netascii\0".to_vec()),
        (
            "text in windows",
            b"\0\x01file\0netascii\0blksize\x0065464\0windowsize\x0064\0".to_vec(),
        ),
        (
            "long",
            [b"\0\x01".as_slice(), &[b'/'; 1000], b"file\0octet\0", &long].concat(),
        ),
    ];
    for (what, request) in requests {
        // Each stays until it was counted.
        let (_scratch, server) = serve(&["--timeout", "60s"]);
        let ghosts = Ghosts::new();
        let ask = |ghost| {
            ghosts.say(ghost, server.address(), &request);
            let end = now() + LONG;
            while ghosts.hear().is_none() {
                assert!(now() < end, "no answer");
            }
        };
        (0..WARM).for_each(ask);
        let before = status(server.pid(), "RssAnon:");
        (WARM..WARM + COUNTED).for_each(ask);
        let after = status(server.pid(), "RssAnon:");
        let each = after.saturating_sub(before) * 1024 / u64::from(COUNTED);
        say(&format!("{what}: {each} bytes for a half-open transfer"));
        assert!(each <= MOST, "{what}: {each} bytes");
    }
}

/// Places of a server, and the ports from which one address asks for more than all of them.
const PLACES: usize = 4000;
const HOG_PORTS: usize = 6000;
/// Honest boards behind another address, and the file that they want.
const LAB: usize = 5_000;
const LAB_FILE: usize = 3 * 512 + 100;
/// A board acknowledges a block after this time.
const LAB_PAUSE: Duration = Duration::from_millis(20);

/// One address that sends two packets for each transfer: a request and an ACK of block 1. Returns
/// how many it has begun.
fn hog(server: SocketAddr, over: &AtomicBool, begun: &Sender<()>) -> u64 {
    let hogs: Vec<_> = (0..HOG_PORTS)
        .map(|_| {
            let hog = UdpSocket::bind("127.66.0.1:0").expect("a socket");
            hog.set_nonblocking(true).expect("a socket");
            hog
        })
        .collect();
    let mut transfers = 0;
    for round in 0.. {
        let twenty = hogs.iter().cycle().skip(round * 20 % HOG_PORTS).take(20);
        for hog in twenty.clone() {
            while hog.recv(&mut [0; 600]).is_ok() {} // older transfers
            hog.send_to(b"\0\x01slow\0octet\0", server).expect("a send");
        }
        thread::sleep(Duration::from_millis(10));
        for hog in twenty {
            let mut buffer = [0; 600];
            while let Ok((_, tid)) = hog.recv_from(&mut buffer) {
                if buffer[..4] == [0, 3, 0, 1] {
                    hog.send_to(&[0, 4, 0, 1], tid).expect("a send");
                    transfers += 1;
                }
            }
        }
        if transfers > PLACES as u64 * 8 / 10 {
            let _ = begun.send(());
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    transfers
}

/// Single clients at addresses of their own, one after the other: how long each waits for its first
/// block.
fn passers_by(server: SocketAddr, over: &AtomicBool) -> Vec<Duration> {
    let mut waits = Vec::new();
    let content = content(LAB_FILE);
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let address = ([127, 67, 0, (number % 200) as u8], 0).into();
        let mut client = Client::at(address, server);
        let asked = now();
        client.shout(b"\0\x01slow\0octet\0");
        let first = client.data(1);
        waits.push(now() - asked);
        let rest = client.rest(1, 512).expect("the rest");
        assert!([first, rest].concat() == content);
        thread::sleep(Duration::from_millis(5));
    }
    waits.sort_unstable();
    waits
}

/// A lab boots behind one address, while another address tries to hold all places at a price of two
/// packets for each. Single clients find a place at once, and so do the boards of the lab.
#[test]
fn an_address_that_takes_all_it_can_get_leaves_places_to_a_lab_and_to_single_clients() {
    allow_descriptors((LAB + HOG_PORTS + 1000) as u64);
    // At an address of its own: what other servers here still send to earlier clients is not taken
    // for an answer.
    let options = ["--max-transfers", &PLACES.to_string()];
    let (scratch, server) = serve_at("127.68.0.1", &options);
    let content = content(LAB_FILE);
    scratch.file("slow", &content);
    let idle = descriptors(&server);
    let over = AtomicBool::new(false);
    let (begin, begun) = channel();
    let asked = server.address();
    let (report, waits, transfers) = thread::scope(|scope| {
        let sets = Sets(&over);
        let over = &over;
        let hog = scope.spawn(move || {
            let _sets = Sets(over);
            hog(asked, over, &begin)
        });
        begun.recv_timeout(LONG).expect("most places are taken");
        let passers_by = scope.spawn(|| passers_by(asked, over));
        let boards = (LAB, LAB_PAUSE);
        let report = crowd::fetch(asked, "slow", &content, boards, 2 * LONG, |_| {});
        drop(sets);
        let waits = passers_by.join().expect("clients that are served");
        let transfers = hog.join().expect("an adversary");
        (report.expect("a crowd"), waits, transfers)
    });
    say(&format!(
        "{} of {LAB} boards behind one address were served in {:?}, and {} single clients had their first answer after {:?} (median), {:?} (p99), {:?} (most), beside one address that began {transfers} transfers at {PLACES} places",
        report.complete,
        report.elapsed,
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1],
    ));
    assert_eq!((report.complete, report.failed), (LAB, 0), "{report:?}");
    // On a machine that is busy with other things a board may be silent for too long.
    assert!(report.again <= LAB / 100, "{report:?}");
    wait_for_rest(&server, idle);
}

/// One that agrees to an interval of 255 s and acknowledges a block every few seconds.
#[derive(Clone, Default)]
struct Loris {
    tid: Option<SocketAddr>,
    /// The newest block it has been sent.
    heard: u16,
    acked: u16,
    told: bool,
}

/// The life of all of them, in one thread: fifty at a time ask until they are served; then each is
/// slow until it is told to go. Says so when one has acknowledged a block, and returns how many
/// have had an ERROR of code 0.
fn be_slow(server: SocketAddr, count: u32, over: &AtomicBool, begun: &Sender<()>) -> u32 {
    let ghosts = Ghosts::new();
    let request = b"\0\x01file\0octet\0timeout\x00255\0";
    let mut lorises = vec![Loris::default(); count as usize];
    let mut asking: BTreeMap<u32, Instant> = BTreeMap::new();
    let (mut next, mut told) = (0, 0);
    // All wait equally long, so the first to have spoken is the first to speak again.
    let mut turns: VecDeque<(Instant, u32)> = VecDeque::new();
    while !over.load(Ordering::Relaxed) {
        let time = now();
        while asking.len() < 50 && next < count {
            asking.insert(next, time);
            next += 1;
        }
        for (ghost, at) in asking.iter_mut().filter(|(_, at)| **at <= time) {
            ghosts.say(*ghost, server, request);
            *at = time + Duration::from_secs(2);
        }
        while turns.front().is_some_and(|(at, _)| *at <= time) {
            let (_, ghost) = turns.pop_front().expect("looked at");
            let loris = &mut lorises[ghost as usize];
            if loris.told {
                continue;
            }
            if loris.heard == loris.acked + 1 {
                loris.acked += 1;
            }
            let [high, low] = loris.acked.to_be_bytes();
            let tid = loris.tid.expect("it has acknowledged a block");
            ghosts.say(ghost, tid, &[0, 4, high, low]);
            turns.push_back((time + PAUSE, ghost));
        }
        for _ in 0..100 {
            let Some((ghost, from, opcode, block)) = ghosts.hear() else {
                break;
            };
            let loris = &mut lorises[ghost as usize];
            match opcode {
                6 if loris.acked == 0 => {
                    loris.tid = Some(from);
                    ghosts.say(ghost, from, &[0, 4, 0, 0]);
                }
                3 if loris.tid == Some(from) => {
                    loris.heard = block;
                    if loris.acked == 0 {
                        loris.acked = 1;
                        ghosts.say(ghost, from, &[0, 4, 0, 1]);
                        turns.push_back((now() + PAUSE, ghost));
                        asking.remove(&ghost);
                        let _ = begun.send(());
                    }
                }
                5 if loris.tid == Some(from) && block == 0 && !loris.told => {
                    loris.told = true;
                    told += 1;
                }
                _ => {}
            }
        }
    }
    told
}

/// They are never silent, and the interval that they agree to would keep them for hours: only the
/// progress that is asked of everybody ends such a transfer.
#[test]
fn five_thousand_that_only_want_to_be_kept_are_kept_for_a_while_and_hold_nobody_up() {
    allow_descriptors(2 * u64::from(LORISES) + 1000);
    let (_scratch, server) = serve(&[]);
    // As many as this machine's limits allow.
    let wanted = (descriptor_limit(&server).saturating_sub(200) / 2).min(LORISES.into()) as u32;
    let is_ci = std::env::var_os("CI").is_some();
    assert!(!is_ci || wanted == LORISES, "descriptors for {wanted} only");
    let idle = descriptors(&server);
    let over = AtomicBool::new(false);
    let (begin, begun) = channel();
    let (asked, process) = (server.address(), server.pid());
    let (most, threads, told) = thread::scope(|scope| {
        let sets = Sets(&over);
        let over = &over;
        let lorises = scope.spawn(move || {
            let _sets = Sets(over);
            be_slow(asked, wanted, over, &begin)
        });
        let threads = scope.spawn(|| most_threads(process, over));
        let mut most = 0;
        for number in 0..wanted {
            let one = begun.recv_timeout(LONG);
            one.unwrap_or_else(|why| panic!("{number} of {wanted} have begun: {why}"));
            if number % 50 == 0 {
                most = most.max(descriptors(&server));
            }
        }
        honest(server.address(), 20);
        wait_for_rest(&server, idle);
        honest(server.address(), 20);
        drop(sets);
        let threads = threads.join().expect("a look at the server");
        assert!(threads <= MOST_THREADS, "{threads} threads");
        let told = lorises.join().expect("the life of them all");
        (most - idle, threads, told)
    });
    say(&format!(
        "{wanted} slow peers, up to {most} at the same time, {told} of them told to go; {threads} threads at most"
    ));
    // Each is told once, and may have been too busy to hear it.
    assert!(told > wanted / 2, "{told} of {wanted} were told to go");
    server.signal(Signal::SIGTERM);
    // Lines that found no room in the log's queue are counted there.
    let (mut slow, mut lost, mut other) = (0, 0, Vec::new());
    loop {
        let line = server.line_with("");
        if line.contains(" failed peer=") && line.contains(" peer=127.128.") {
            match line.contains(r#"reason="peer was too slow""#) {
                true => slow += 1,
                false => other.push(line),
            }
        } else if let Some((_, count)) = line.split_once("tftpool: ")
            && let Some((count, _)) = count.split_once(" log lines lost")
        {
            lost += count.parse::<u32>().expect("a number");
        } else if line.contains(" stopped completed=") {
            assert!(line.contains(" completed=40 "), "{line}");
            break;
        }
    }
    assert!(
        slow + lost >= wanted,
        "{slow} of {wanted} were too slow, {lost} lines lost; {other:?}"
    );
}

/// Raises the limit on descriptors that the server inherits, where this process may.
fn allow_descriptors(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if soft < wanted {
        let hard_too = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted));
        let _ = hard_too.or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted), hard));
    }
}

fn descriptor_limit(server: &Server) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("it runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let value = line.and_then(|line| line.split_whitespace().nth(3));
    value.and_then(|value| value.parse().ok()).unwrap_or(1024)
}

/// splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }
}

const SEEDS: [&[u8]; 12] = [
    b"\0\x01file\0octet\0",
    b"\0\x01small\0netascii\0tsize\x000\0blksize\x001428\0windowsize\x0016\0timeout\x001\0",
    b"\0\x01file\0octet\0blksize\x008\0windowsize\x0065535\0utimeout\x0010000\0rollover\x001\0",
    b"\0\x01../../etc/passwd\0octet\0",
    b"\0\x01%s%n\x1b[2J\r\nroot\0octet\0blksize2\x0099999999999999999999\0",
    b"\0\x02file\0octet\0tsize\x00123\0",
    b"\0\x03\0\x01some octets of data",
    b"\0\x04\0\0",
    b"\0\x04\0\x01",
    b"\0\x05\0\0go away\0",
    b"\0\x06blksize\x00512\0",
    b"\0\x01file\0mail\0multicast\0\0",
];

/// A packet with something wrong in it, or nothing.
fn mutated(chance: &mut Chance) -> Vec<u8> {
    let mut octets = SEEDS[chance.below(SEEDS.len())].to_vec();
    for _ in 0..chance.below(4) {
        let at = chance.below(octets.len().max(1));
        match chance.below(7) {
            0 if at < octets.len() => octets[at] = chance.below(256) as u8,
            1 if at < octets.len() => octets[at] ^= 1 << chance.below(8),
            2 => octets.truncate(at),
            3 => octets.insert(at.min(octets.len()), chance.below(256) as u8),
            4 => octets.extend_from_slice(SEEDS[chance.below(SEEDS.len())]),
            5 => octets.extend(std::iter::repeat_n(
                chance.below(256) as u8,
                chance.below(3000),
            )),
            _ if at < octets.len() => drop(octets.remove(at)),
            _ => {}
        }
    }
    octets
}

/// A hundred thousand datagrams, to the listening port and to the ports of transfers that they have
/// begun; the seed is fixed. Every few hundred an honest client fetches a file, so that none is
/// lost in a full buffer. The server has an address of its own: the port of a transfer that has
/// ended is soon that of another test's client.
#[test]
fn a_hundred_thousand_datagrams_of_nonsense_change_nothing() {
    let (_scratch, server) = serve_at("127.0.0.2", &[]);
    let idle = descriptors(&server);
    let mut chance = Chance(1350);
    let babblers: Vec<_> = (0..32).map(|_| Client::new(server.address())).collect();
    let mut tids: Vec<(usize, SocketAddr)> = Vec::new();
    let mut kib = Vec::new();
    for round in 0..400 {
        if round % 100 == 50 {
            kib.push(status(server.pid(), "RssAnon:"));
        }
        for _ in 0..250 {
            let octets = mutated(&mut chance);
            match tids.len() {
                many if many > 0 && chance.below(2) == 0 => {
                    let (babbler, tid) = tids[chance.below(many)];
                    // Sometimes somebody else's transfer.
                    let babbler = if chance.below(8) == 0 {
                        chance.below(32)
                    } else {
                        babbler
                    };
                    let _ = babblers[babbler].socket.send_to(&octets, tid);
                }
                _ => babblers[chance.below(32)].shout(&octets),
            }
        }
        for (number, babbler) in babblers.iter().enumerate() {
            babbler.socket.set_nonblocking(true).expect("a socket");
            while let Ok((_, tid)) = babbler.socket.recv_from(&mut [0; 2048]) {
                tids.push((number, tid));
            }
            babbler.socket.set_nonblocking(false).expect("a socket");
        }
        let old = tids.len().saturating_sub(64);
        tids.drain(..old);
        let got = fetch(server.address(), "small", &[]);
        assert!(
            got.as_ref() == Ok(&content(700)),
            "round {round}: {:?}",
            got.err()
        );
    }
    honest(server.address(), 8);
    drop(babblers);
    wait_for_rest(&server, idle);
    kib.push(status(server.pid(), "RssAnon:"));
    say(&format!(
        "a hundred thousand datagrams of nonsense: {kib:?} KiB"
    ));
    // Less than five octets for each.
    assert!(kib[4] <= kib[0] + SLACK_KIB, "{kib:?} KiB");
}

/// Whoever guesses the port of a transfer, or sees it, is still not its peer.
#[test]
fn forged_packets_to_the_port_of_a_transfer_do_not_disturb_it() {
    let (_scratch, server) = serve(&[]);
    let mut client = Client::new(server.address());
    client.ask("file", &[("blksize", "1428")]);
    client.oack();
    client.ack(0);
    let mut got = client.data(1);
    let ghosts = Ghosts::new();
    for block in 1u16.. {
        let tid = client.tid.expect("a TID");
        for (ghost, forged) in [
            &[0, 5, 0, 0, b'n', b'o', 0][..],
            &[0, 4, 0xff, 0xff],
            &[[0, 4], (block + 1).to_be_bytes()].concat(),
            &[0, 3, 0, 1, 1, 2, 3],
            &[0, 6, 0],
        ]
        .into_iter()
        .enumerate()
        {
            ghosts.say(ghost as u32, tid, forged);
        }
        if !got.len().is_multiple_of(1428) {
            client.ack(block);
            break;
        }
        client.ack(block);
        let more = client.data_at_last(block + 1);
        got.extend_from_slice(&more);
    }
    assert!(got == content(200_000));
    assert!(!matches!(client.at_hand(), Some(Reply::Error(..))));
}

/// What the server may have of the machine's memory, and a file that is several times as large.
const LITTLE: u64 = 32 << 20;
const MUCH: usize = 96 << 20;
/// Those that want it at the same time.
const BOARDS: usize = 16;

/// The kernel takes the pages of a mapped file away and brings them back; what the server needs for
/// itself is little.
///
/// Skipped also where `CI` is set: a container often has no memory cgroup to make another one in.
#[test]
fn a_file_larger_than_the_memory_there_is_goes_to_many_at_once() {
    let group = match MemoryGroup::new(LITTLE) {
        Ok(group) => group,
        Err(why) => return say(&format!("skipped: no cgroup with a memory limit: {why}")),
    };
    let scratch = Scratch::new();
    let wanted = content(MUCH);
    let file = fs::File::open(scratch.file("file", &wanted)).expect("a file");
    let medium = nix::sys::statfs::fstatfs(&file).expect("a file system");
    if medium.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC {
        return say("skipped: the directory for temporary files is memory itself");
    }
    // What is in memory already counts for whoever brought it there.
    file.sync_all().expect("on the disk");
    nix::fcntl::posix_fadvise(
        &file,
        0,
        0,
        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )
    .expect("a hint");
    let enter = format!("{} && exec \"$@\"", group.enter());
    let mut command = Command::new("sh");
    command
        .args(["-c", &enter, "sh", env!("CARGO_BIN_EXE_tftpool"), "serve"])
        // What is being read ahead cannot be taken away: 8 MiB for each worker, where a disk is set
        // to that.
        .args(["--host", "127.0.0.1", "--port", "0", "--workers", "2"])
        .arg(scratch.path())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = Server::spawn(command);
    let asked = server.address();
    let options = [(OptionName::Blksize, 8192), (OptionName::Windowsize, 8)];
    thread::scope(|scope| {
        for _ in 0..BOARDS {
            scope.spawn(|| {
                let mut rest = &wanted[..];
                let store = |block: &[u8]| {
                    let Some(behind) = rest.strip_prefix(block) else {
                        panic!("another octet, {} before the end", rest.len());
                    };
                    rest = behind;
                };
                let socket = Client::new(asked).socket;
                let end = fetch_into(store, &socket, asked, "file", Mode::Octet, &options);
                assert!(end.is_ok() && rest.is_empty(), "{end:?}, {}", rest.len());
            });
        }
    });
    let (hits, peak) = (group.hits(), group.peak());
    say(&format!(
        "{BOARDS} clients fetched {} MiB each from a server with {} MiB: {peak:?} octets at most, {hits} times at the limit",
        MUCH >> 20,
        LITTLE >> 20,
    ));
    assert!(hits > 0, "memory was never short");
    assert!(peak.is_none_or(|peak| peak <= LITTLE), "{peak:?}");
    assert_eq!(
        fetch(asked, "no such file", &[]).err().map(|_| ()),
        Some(())
    );
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(LONG).code(), Some(0));
}
