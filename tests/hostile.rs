//! Peers that mean harm, in numbers, against the real binary: forged sources, peers that keep a transfer alive for nothing,
//! and a hundred thousand datagrams of nonsense. The server's memory, threads and descriptors are read from outside.

#![allow(
    clippy::disallowed_methods,
    reason = "a load has a rate, and another process no events"
)]

mod harness;
#[path = "loopback/rig.rs"]
mod rig;

use harness::{LONG, Scratch, Server, content};
use nix::libc;
use nix::sys::socket::sockopt::Ipv4PacketInfo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
};
use rig::{Client, Reply, fetch, now};
use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tftpool::OptionName;

/// Threads that a server has besides its pool: the loop, the log, signals, and the one it was started in.
const OTHER_THREADS: u64 = 5;
const WORKERS: u64 = 4;

fn serve(options: &[&str]) -> (Scratch, Server) {
    let scratch = Scratch::new();
    scratch.file("file", &content(200_000));
    scratch.file("small", &content(700));
    let workers = WORKERS.to_string();
    let options = [&["--workers", &workers], options].concat();
    let server = Server::start(scratch.path(), &options);
    (scratch, server)
}

fn status(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).expect(field)
}

fn descriptors(server: &Server) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid()));
    open.expect("our own child").count()
}

/// Waits until the server holds no more than it did.
fn wait_for_rest(server: &Server, descriptors_before: usize) {
    let end = now() + 2 * LONG;
    while descriptors(server) > descriptors_before {
        assert!(
            now() < end,
            "{} descriptors, {descriptors_before} before",
            descriptors(server)
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Many peers with one socket: it sends from any address of 127.0.0.0/8, and takes what is sent to any of them, so that
/// nobody hears "port unreachable".
struct Ghosts(UdpSocket);

impl Ghosts {
    fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        let second = Duration::from_secs(1);
        socket.set_read_timeout(Some(second)).expect("a timeout");
        setsockopt(&socket, Ipv4PacketInfo, &true).expect("Linux");
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

    /// The next packet within a second: for which of them, from where, and its opcode.
    fn hear(&self) -> Option<(u32, SocketAddr, u8)> {
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
        Some((ghost, from, octets[1]))
    }
}

/// Sets the flag also when the thread panics.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// So many clients fetch a file each, all at once.
fn honest(server: SocketAddr, clients: usize) {
    thread::scope(|scope| {
        for number in 0..clients {
            scope.spawn(move || {
                let options = [
                    (OptionName::Blksize, 1428),
                    (OptionName::Windowsize, [1, 4, 16, 64][number % 4]),
                ];
                let got = fetch(server, "file", &options[..number % 3]);
                assert!(got.as_ref() == Ok(&content(200_000)), "{:?}", got.err());
            });
        }
    });
}

/// One request from each of 10,000 addresses, 2,000 a second at most, while 50 clients fetch one file after the other.
#[test]
fn ten_thousand_forged_sources_hold_nobody_up_and_leave_nothing() {
    let (_scratch, server) = serve(&[]);
    honest(server.address(), 50);
    let (idle, mut kib) = (descriptors(&server), Vec::new());
    for _ in 0..2 {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (over, asked) = (&over, server.address());
            scope.spawn(move || {
                let _sets = Sets(over);
                let ghosts = Ghosts::new();
                for ghost in 0..10_000 {
                    ghosts.say(ghost, asked, b"\0\x01file\0octet\0");
                    if ghost % 20 == 0 {
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            });
            let mut most_threads = 0;
            while !over.load(Ordering::Relaxed) {
                honest(asked, 50);
                most_threads = most_threads.max(status(&server, "Threads:"));
            }
            assert!(
                most_threads <= WORKERS + OTHER_THREADS,
                "{most_threads} threads"
            );
        });
        wait_for_rest(&server, idle);
        kib.push(status(&server, "RssAnon:"));
    }
    // What a flood leaves is room for as many transfers as there were at once, and nothing for each source.
    let [first, second] = kib[..] else {
        unreachable!("two floods")
    };
    assert!(first < 64 << 10, "{first} KiB after the first flood");
    assert!(
        second <= first + 6 * 1024,
        "{first} KiB after the first flood, {second} after the second"
    );
}

/// They agree to an interval of 255 s and say one ACK; nothing but a limit of its own ends such a transfer.
#[test]
fn five_thousand_that_only_want_to_be_kept_are_kept_for_a_while_and_hold_nobody_up() {
    let (_scratch, server) = serve(&["--max-time", "30s"]);
    let idle = descriptors(&server);
    let ghosts = Ghosts::new();
    // As many as this machine's limits allow.
    let wanted = (descriptor_limit(&server).saturating_sub(200) / 2).min(5_000) as u32;
    let request = b"\0\x01file\0octet\0timeout\x00255\0";
    for first in (0..wanted).step_by(50) {
        // Whoever has heard an OACK says ACK 0, whoever has heard DATA 1 says ACK 1, and no more.
        let mut said: BTreeMap<u32, Option<u8>> =
            (first..first + 50).map(|ghost| (ghost, None)).collect();
        let end = now() + LONG;
        while said.values().any(|block| *block != Some(1)) {
            assert!(now() < end, "{said:?}");
            let unheard = said.iter().filter(|(_, block)| block.is_none());
            unheard.for_each(|(ghost, _)| ghosts.say(*ghost, server.address(), request));
            let asked = now();
            while let Some((ghost, tid, opcode)) = ghosts.hear()
                && said.values().any(|block| *block != Some(1))
                && now() < asked + Duration::from_secs(2)
            {
                // Those of earlier groups hear probes.
                if let Some(last) = said.get_mut(&ghost) {
                    let block = u8::from(opcode != 6);
                    ghosts.say(ghost, tid, &[0, 4, 0, block]);
                    *last = (*last).max(Some(block));
                }
            }
        }
    }
    honest(server.address(), 20);
    assert!(status(&server, "Threads:") <= WORKERS + OTHER_THREADS);
    wait_for_rest(&server, idle);
    honest(server.address(), 20);
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

/// A hundred thousand datagrams, to the listening port and to the ports of transfers that they have begun; the seed is
/// fixed. Every few hundred an honest client fetches a file, so that none is lost in a full buffer.
#[test]
fn a_hundred_thousand_datagrams_of_nonsense_change_nothing() {
    let (_scratch, server) = serve(&[]);
    let idle = descriptors(&server);
    let mut chance = Chance(1350);
    let babblers: Vec<_> = (0..32).map(|_| Client::new(server.address())).collect();
    let mut tids: Vec<(usize, SocketAddr)> = Vec::new();
    for round in 0..400 {
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
    assert!(status(&server, "Threads:") <= WORKERS + OTHER_THREADS);
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
