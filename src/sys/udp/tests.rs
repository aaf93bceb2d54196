//! Sockets on the loopback interface, with ports that the system chooses. Nothing sleeps: what was
//! sent there is in the receiver's queue when the call returns.

use super::*;
use crate::sys::mapping::Mapping;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A file without a name.
pub(crate) fn file_of(octets: &[u8]) -> File {
    let file = File::from(memfd_create("test", MFdFlags::MFD_CLOEXEC).expect("a file"));
    file.write_all_at(octets, 0).expect("room");
    file
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A peer's socket. It waits long enough to outlast a busy machine, so that a lost datagram is an
/// error.
fn peer(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("a socket");
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).expect("a timeout");
    socket
}

fn open_to(peer: &UdpSocket) -> TransferSocket {
    let peer = peer.local_addr().expect("bound");
    let mut local = peer;
    local.set_port(0);
    TransferSocket::open(local, peer, &SocketOptions::default()).expect("a transfer socket")
}

/// The only skipped tests: a machine may be without IPv6.
fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

fn next(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let length = socket.recv(&mut buffer).expect("a datagram");
    buffer.truncate(length);
    buffer
}

fn nothing_more(socket: &UdpSocket) {
    socket.set_nonblocking(true).expect("non-blocking");
    let error = socket.recv(&mut [0; 16]).expect_err("nothing more");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

// ---- blocks -------------------------------------------------------------------------------------

/// Octets that tell where in the file they are.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at ^ at >> 7) as u8).collect()
}

/// The blocks of a file of `length` octets, numbered from 1; `payload` cuts out each.
fn blocks<'a>(
    length: usize,
    blksize: usize,
    payload: impl Fn(std::ops::Range<usize>) -> Payload<'a> + Clone,
) -> impl ExactSizeIterator<Item = Block<'a>> + Clone {
    (0..length / blksize + 1).map(move |at| {
        let [high, low] = (at as u16 + 1).to_be_bytes();
        Block {
            header: [0, 3, high, low],
            payload: payload(at * blksize..length.min((at + 1) * blksize)),
        }
    })
}

fn assert_arrives(socket: &UdpSocket, file: &[u8], blksize: usize) {
    for at in 0..file.len() / blksize + 1 {
        let datagram = next(socket);
        let (header, payload) = datagram.split_at(4);
        let [high, low] = (at as u16 + 1).to_be_bytes();
        assert_eq!(header, [0, 3, high, low]);
        let expected = &file[at * blksize..file.len().min((at + 1) * blksize)];
        assert!(
            payload == expected,
            "block {} of {blksize} octets differs",
            at + 1
        );
    }
    nothing_more(socket);
}

const WAYS: [Offload; 3] = [Offload::Segments, Offload::Batch, Offload::Single];

#[test]
fn every_way_sends_the_same_octets() {
    // More blocks than one call takes; a last block that is empty, of one octet, full but for one;
    // one block alone.
    for (length, blksize) in [
        (70 * 512, 512),
        (70 * 512 + 1, 512),
        (71 * 512 - 1, 512),
        (50 * 1428 + 700, 1428),
        (99, 100),
        (0, 100),
        (8 * 200 + 3, 8),
    ] {
        let octets = pattern(length);
        let file = file_of(&octets);
        let mapping = Mapping::map(&file, length).expect("a mapping");
        for way in WAYS {
            let peer = peer("127.0.0.1:0");
            let mut socket = open_to(&peer);
            socket.set_offload(way);
            let bytes = blocks(length, blksize, |range| Payload::Bytes(&octets[range]));
            let count = bytes.len();
            assert_eq!(socket.send_blocks(bytes).expect("sent"), count);
            assert_arrives(&peer, &octets, blksize);

            peer.set_nonblocking(false).expect("blocking");
            let mapped = blocks(length, blksize, |range| {
                Payload::Mapped(mapping.slice(range))
            });
            assert_eq!(socket.send_blocks(mapped).expect("sent"), count);
            assert_arrives(&peer, &octets, blksize);
            assert_eq!(socket.offload, way, "the way that was asked for works");
        }
    }
}

#[test]
fn blocks_travel_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let octets = pattern(50 * 1428);
    let peer = peer("[::1]:0");
    let mut socket = open_to(&peer);
    let blocks = blocks(octets.len(), 1428, |range| Payload::Bytes(&octets[range]));
    assert_eq!(socket.send_blocks(blocks).expect("sent"), 51);
    assert_arrives(&peer, &octets, 1428);
    assert_eq!(socket.offload, Offload::Segments);
}

#[test]
fn what_cannot_be_segmented_is_sent_as_a_list_and_only_once() {
    let octets = pattern(100 * 512 + 5);
    let peer = peer("127.0.0.1:0");
    let mut socket = open_to(&peer);
    // The kernel refuses to segment for a socket that sends no checksums, as it does for devices
    // that can't.
    set_option(&socket.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("no checksums");
    let blocks = blocks(octets.len(), 512, |range| Payload::Bytes(&octets[range]));
    assert_eq!(socket.send_blocks(blocks.clone().take(1)).expect("sent"), 1);
    assert_eq!(socket.offload, Offload::Segments, "one block tells nothing");
    assert_eq!(next(&peer).len(), 516);
    assert_eq!(socket.send_blocks(blocks).expect("sent"), 101);
    assert_eq!(socket.offload, Offload::Batch);
    assert_arrives(&peer, &octets, 512);
}

#[test]
fn the_largest_blocks_go_alone_without_giving_segments_up() {
    let octets = pattern(65464 + 9);
    let peer = peer("127.0.0.1:0");
    let mut socket = open_to(&peer);
    let blocks = blocks(octets.len(), 65464, |range| Payload::Bytes(&octets[range]));
    assert_eq!(socket.send_blocks(blocks).expect("sent"), 2);
    assert_eq!(socket.offload, Offload::Segments);
    assert_arrives(&peer, &octets, 65464);
}

#[test]
fn no_blocks_are_no_datagrams() {
    let peer = peer("127.0.0.1:0");
    let sent = open_to(&peer).send_blocks(std::iter::empty());
    assert_eq!(sent.expect("nothing to do"), 0);
    nothing_more(&peer);
}

#[test]
fn a_truncated_file_is_an_error_and_no_signal() {
    // As large as any page, so that the second half loses its pages.
    const HALF: usize = 64 << 10;
    for way in WAYS {
        let file = file_of(&pattern(2 * HALF));
        let mapping = Mapping::map(&file, 2 * HALF).expect("a mapping");
        file.set_len(HALF as u64).expect("truncated");
        let peer = peer("127.0.0.1:0");
        let mut socket = open_to(&peer);
        socket.set_offload(way);
        // Two blocks before the new end, two after it.
        let start = HALF - 2048;
        let blocks = blocks(4095, 1024, |range| {
            Payload::Mapped(mapping.slice(start + range.start..start + range.end))
        });
        if way != Offload::Segments {
            assert_eq!(socket.send_blocks(blocks.clone()).expect("a part"), 2);
        }
        let error = socket.send_blocks(blocks.clone().skip(2));
        let error = error.expect_err("the octets are gone");
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert_eq!(socket.offload, way);
        if way == Offload::Segments {
            let error = socket.send_blocks(blocks).expect_err("all or nothing");
            assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        }
    }
}

#[test]
fn only_the_last_block_may_be_shorter() {
    let of = |lengths: &[usize]| {
        let octets = pattern(9);
        let blocks = lengths.iter().map(|&length| Block {
            header: [0; 4],
            payload: Payload::Bytes(&octets[..length]),
        });
        are_even(blocks)
    };
    assert!(of(&[]) && of(&[0]) && of(&[3]) && of(&[3, 3]) && of(&[3, 3, 2]) && of(&[3, 0]));
    assert!(!of(&[3, 4]) && !of(&[3, 2, 3]) && !of(&[3, 3, 4]) && !of(&[3, 2, 2]));
}

#[test]
fn a_list_that_was_cut_short_is_taken_up_where_it_ended() {
    // Each datagram to a closed port is answered before the next leaves, which ends the list.
    let gone = peer("127.0.0.12:0");
    let mut socket = open_to(&gone);
    drop(gone);
    socket.set_offload(Offload::Batch);
    let octets = pattern(9 * 64 + 1);
    let blocks = blocks(octets.len(), 64, |range| Payload::Bytes(&octets[range]));
    // On a busy machine an answer may come late and refuse the second attempt too, but not every
    // time.
    let mut rounds = (0..100).map(|_| socket.send_blocks(blocks.clone()));
    assert!(rounds.any(|sent| sent.is_ok_and(|sent| sent == 10)));
}

// ---- one transfer's socket ----------------------------------------------------------------------

#[test]
fn each_way_of_waiting_ends() {
    let peer = peer("127.0.0.1:0");
    let socket = open_to(&peer);
    let local = socket.local_addr().expect("bound");
    assert_eq!(socket.peer(), peer.local_addr().expect("bound"));
    let ways = [
        Wait::No,
        Wait::Patience,
        Wait::Until(Duration::ZERO),
        Wait::Until(Duration::from_millis(2)),
    ];
    for wait in ways {
        let mut buffer = [0; 4];
        assert_eq!(socket.recv(&mut buffer, wait).expect("silence"), None);
        for datagram in [b"\0\x04\0\x01".as_slice(), b"", b"longer than the buffer"] {
            peer.send_to(datagram, local).expect("sent");
            let length = socket.recv(&mut buffer, wait).expect("a datagram");
            assert_eq!(length, Some(datagram.len()));
            let kept = datagram.len().min(buffer.len());
            assert_eq!(buffer[..kept], datagram[..kept]);
        }
    }
}

#[test]
fn a_datagram_ends_the_wait() {
    let peer = peer("127.0.0.1:0");
    let socket = open_to(&peer);
    let local = socket.local_addr().expect("bound");
    std::thread::scope(|threads| {
        threads.spawn(|| {
            assert_eq!(next(&peer), b"ready");
            peer.send_to(b"answer", local).expect("sent");
        });
        assert!(socket.send(b"ready").expect("sent"));
        let forever = Wait::Until(Duration::from_secs(3600));
        let length = socket.recv(&mut [0; 16], forever).expect("a datagram");
        assert_eq!(length, Some(6));
    });
}

#[test]
fn readiness_is_told_for_what_was_asked() {
    let peer = peer("127.0.0.1:0");
    let socket = open_to(&peer);
    let ready = |readable, writable| {
        let readiness = socket.wait(readable, writable, Duration::from_millis(1));
        let readiness = readiness.expect("a poll");
        (readiness.readable, readiness.writable)
    };
    assert_eq!(ready(true, false), (false, false));
    assert_eq!(ready(true, true), (false, true));
    peer.send_to(b"x", socket.local_addr().expect("bound"))
        .expect("sent");
    assert_eq!(ready(true, true), (true, true));
    assert_eq!(ready(true, false), (true, false));
    assert_eq!(ready(false, true), (false, true));
}

#[test]
fn strangers_who_came_before_connect_are_passed_over() {
    let here = address("127.0.0.1:0");
    let bound = TransferSocket::bound(here, &SocketOptions::default()).expect("bound");
    let local = bound.local_addr().expect("bound");
    let (peer, stranger) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    for _ in 0..limits::STRANGERS_SKIPPED {
        stranger.send_to(b"foreign", local).expect("sent");
    }
    peer.send_to(b"yours", local).expect("sent");
    // One more than is passed over at once.
    for _ in 0..=limits::STRANGERS_SKIPPED {
        stranger.send_to(b"foreign", local).expect("sent");
    }
    peer.send_to(b"yours too", local).expect("sent");

    let them = peer.local_addr().expect("bound");
    let socket = TransferSocket::connect(bound, them).expect("connected");
    let mut buffer = [0; 16];
    let mut receive = || socket.recv(&mut buffer, Wait::No).expect("no error");
    assert_eq!(receive(), Some(5));
    assert_eq!(receive(), None);
    assert_eq!(receive(), Some(9));
    assert_eq!(receive(), None);
}

/// Says who is not meant, to everything but one word.
fn not_you(datagram: &[u8]) -> Option<Vec<u8>> {
    (datagram != b"bye").then(|| [b"not you: ", datagram].concat())
}

#[test]
fn strangers_are_told_a_few_times_and_the_peer_hears_nothing_of_it() {
    let here = address("127.0.0.1:0");
    let bound = TransferSocket::bound(here, &SocketOptions::default()).expect("bound");
    let local = bound.local_addr().expect("bound");
    let (peer, stranger, last) = (
        peer("127.0.0.1:0"),
        peer("127.0.0.1:0"),
        peer("127.0.0.2:0"),
    );
    for datagram in [b"bye", b"one"] {
        stranger.send_to(datagram, local).expect("sent");
    }
    last.send_to(b"more than the buffer holds", local)
        .expect("sent");
    for _ in 0..limits::STRANGERS_TOLD {
        last.send_to(b"two", local).expect("sent");
    }
    peer.send_to(b"yours", local).expect("sent");

    let them = peer.local_addr().expect("bound");
    let mut socket = TransferSocket::connect(bound, them).expect("connected");
    socket.tell_strangers(not_you);
    let taken = socket.recv(&mut [0; 8], Wait::No).expect("no error");
    assert_eq!(taken, Some(5));
    nothing_more(&peer);
    let mut buffer = [0; 64];
    let (length, from) = stranger.recv_from(&mut buffer).expect("a word");
    assert_eq!(
        (&buffer[..length], from),
        (b"not you: one".as_slice(), local)
    );
    nothing_more(&stranger);
    assert_eq!(next(&last), b"not you: more tha");
    for _ in 2..limits::STRANGERS_TOLD {
        assert_eq!(next(&last), b"not you: two");
    }
    nothing_more(&last);
}

/// Its port is closed by the time that it is told something.
#[test]
fn a_stranger_that_is_gone_is_no_news_of_the_server() {
    let server = peer("127.0.0.1:0");
    // At an address that no other test uses, so that none takes the port.
    let gone = peer("127.0.0.13:0");
    let there = gone.local_addr().expect("bound");
    drop(gone);
    let ask = |server: &UdpSocket| {
        let server = server.local_addr().expect("bound");
        let mut socket =
            TransferSocket::asking(address("127.0.0.1:0"), server, &SocketOptions::default())
                .expect("a socket");
        socket.tell_strangers(not_you);
        socket
    };
    let is_readable = |socket: &TransferSocket, limit: Duration| {
        let ready = socket.wait(true, false, limit);
        ready.expect("a poll").readable
    };
    let long = Duration::from_secs(10);

    // It is heard of when something is received...
    let mut socket = ask(&server);
    socket.turn_away(there, b"one");
    assert!(is_readable(&socket, long), "the port is not closed");
    let heard = socket.recv_blocks(&mut [0; 16], Wait::No);
    assert_eq!(heard.expect("no error"), None);
    assert!(!is_readable(&socket, Duration::ZERO));
    // ... or sent ...
    socket.turn_away(there, b"two");
    assert!(is_readable(&socket, long));
    assert!(socket.send(b"request").expect("sent"));
    assert!(!is_readable(&socket, Duration::ZERO));
    assert_eq!(next(&server), b"request");
    // ... or not before the server has answered.
    socket.turn_away(there, b"three");
    assert!(is_readable(&socket, long));
    let tid = peer("127.0.0.1:0");
    socket
        .connect_to(tid.local_addr().expect("bound"))
        .expect("connected");
    assert!(!is_readable(&socket, Duration::ZERO));
    assert_eq!(socket.recv(&mut [0; 16], Wait::No).expect("no error"), None);

    // Of the server it is heard all the same.
    drop(server);
    let closed = peer("127.0.0.14:0");
    let socket = ask(&closed);
    drop(closed);
    socket.turn_away(there, b"one");
    assert!(is_readable(&socket, long));
    assert!(socket.send(b"request").expect("sent"));
    assert!(is_readable(&socket, long));
    let error = socket.recv_blocks(&mut [0; 16], Wait::No);
    let error = error.expect_err("port closed");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_refusal_is_a_hint_and_the_next_datagram_still_leaves() {
    // At an address that no other test uses, so that none takes the port.
    let gone = peer("127.0.0.11:0");
    let mut socket = open_to(&gone);
    let there = gone.local_addr().expect("bound");
    drop(gone);
    assert!(socket.send(b"one").expect("sent"));
    for (readable, writable) in [(true, false), (false, true), (true, true)] {
        let ready = socket.wait(readable, writable, Duration::from_secs(10));
        let expected = Readiness { readable, writable };
        assert_eq!(ready.expect("a poll"), expected);
    }
    let error = socket
        .recv(&mut [0; 16], Wait::No)
        .expect_err("port closed");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

    assert!(socket.send(b"two").expect("sent"));
    let back = UdpSocket::bind(there).expect("the port is free again");
    // The refusal of "two" is reported in place of this one, which goes out all the same.
    assert!(socket.send(b"three").expect("sent"));
    assert_eq!(next(&back), b"three");
    drop(back);

    for way in WAYS {
        socket.set_offload(way);
        assert!(socket.send(b"four").expect("sent"));
        let back = peer(&there.to_string());
        let octets = pattern(9 * 64 + 1);
        let blocks = blocks(octets.len(), 64, |range| Payload::Bytes(&octets[range]));
        assert_eq!(socket.send_blocks(blocks).expect("sent"), 10);
        assert_arrives(&back, &octets, 64);
        assert_eq!(socket.offload, way);
    }
}

#[test]
fn ports_are_taken_from_the_range_until_none_is_left() {
    // Holding this port at another address keeps it away from everyone who asks for all addresses.
    let holder = UdpSocket::bind("127.0.0.9:0").expect("a socket");
    let first = holder.local_addr().expect("bound").port();
    let range = first..=first.saturating_add(3);
    let options = SocketOptions {
        ports: Some(range.clone()),
        dont_fragment: false,
        ..SocketOptions::default()
    };
    let peer = address("127.0.0.1:9");
    let open = || TransferSocket::open(address("127.0.0.10:0"), peer, &options);

    let mut held = Vec::new();
    let error = loop {
        match open() {
            Ok(socket) => held.push(socket),
            Err(error) => break error,
        }
        assert!(held.len() <= range.len());
    };
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let port = |socket: &TransferSocket| socket.local_addr().expect("bound").port();
    let mut ports: Vec<u16> = held.iter().map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), held.len());
    assert!(ports.contains(&first) && ports.iter().all(|port| range.contains(port)));

    // A port that comes free is found again, wherever the search starts.
    let freed = port(&held.remove(0));
    assert_eq!(port(&open().expect("one is free")), freed);
}

#[test]
fn a_socket_is_bound_to_the_port_that_is_asked_for_or_to_any() {
    let peer = address("127.0.0.1:9");
    let open = |local| TransferSocket::open(local, peer, &SocketOptions::default());
    let port = |socket: &TransferSocket| socket.local_addr().expect("bound").port();
    // At an address that no other test uses, so that none takes the port.
    let any = open(address("127.0.0.15:0")).expect("a socket");
    let mut taken = address("127.0.0.15:0");
    taken.set_port(port(&any));
    let error = open(taken).err().expect("one socket, one port");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(any);
    assert_eq!(port(&open(taken).expect("it is free again")), taken.port());
    assert!(ephemeral_ports() > 0);
}

#[test]
fn fragments_are_allowed_unless_asked_otherwise() {
    for (dont_fragment, expected) in [
        (false, libc::IP_PMTUDISC_DONT),
        (true, libc::IP_PMTUDISC_DO),
    ] {
        let options = SocketOptions {
            ports: None,
            dont_fragment,
            ..SocketOptions::default()
        };
        let socket = TransferSocket::open(address("127.0.0.1:0"), address("127.0.0.1:9"), &options)
            .expect("a transfer socket");
        assert_eq!(
            option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            expected
        );
        if has_ipv6() {
            let socket = TransferSocket::open(address("[::1]:0"), address("[::1]:9"), &options)
                .expect("a transfer socket");
            assert_eq!(
                option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
                expected
            );
        }
    }
    let listener = Listener::bind(address("127.0.0.1:0")).expect("a listener");
    assert_eq!(
        option(&listener, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        libc::IP_PMTUDISC_DONT
    );
}

fn option(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int) -> libc::c_int {
    let mut value: libc::c_int = -1;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets, which is the size of `value`.
    let result = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, value, &mut length)
    };
    Errno::result(result).expect("an option");
    value
}

// ---- the main socket ----------------------------------------------------------------------------

fn ask(listener: &Listener, client: &UdpSocket, at: &str) -> Received {
    let to = SocketAddr::new(at.parse().expect("an IP"), listener.local_addr().port());
    client.send_to(b"request", to).expect("sent");
    let mut buffer = [0; 64];
    let received = listener
        .recv(&mut buffer)
        .expect("no error")
        .expect("a request");
    assert_eq!(&buffer[..received.length], b"request");
    assert!(!received.truncated);
    assert_eq!(received.local.port(), listener.local_addr().port());
    received
}

fn assert_replies(listener: &Listener, client: &UdpSocket, to: &Received) {
    listener.reply(b"reply", to.local, to.peer).expect("sent");
    let mut buffer = [0; 16];
    let (length, source) = client.recv_from(&mut buffer).expect("a reply");
    assert_eq!((&buffer[..length], source), (b"reply".as_slice(), to.local));
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked() {
    let listener = Listener::bind(address("0.0.0.0:0")).expect("a listener");
    let client = peer("127.0.0.1:0");
    assert_eq!(listener.recv(&mut [0; 64]).expect("silence"), None);
    for at in ["127.0.0.5", "127.0.0.1"] {
        let received = ask(&listener, &client, at);
        assert_eq!(received.local.ip().to_string(), at);
        assert_eq!(received.peer, client.local_addr().expect("bound"));
        assert!(!received.broadcast && received.interface != 0);
        assert_replies(&listener, &client, &received);
    }
    assert_eq!(listener.recv(&mut [0; 64]).expect("silence"), None);
}

#[test]
fn a_reply_over_ipv6_comes_from_the_address_that_was_asked() {
    if !has_ipv6() {
        return;
    }
    let listener = Listener::bind(address("[::]:0")).expect("a listener");
    let client = peer("[::1]:0");
    let received = ask(&listener, &client, "::1");
    assert_eq!(received.local.ip().to_string(), "::1");
    assert_eq!(received.peer, client.local_addr().expect("bound"));
    assert!(!received.broadcast);
    assert_replies(&listener, &client, &received);
    // IPv4 is another socket's, which may have the same port, unless somebody else on this machine
    // has it.
    let both = || {
        let listener = Listener::bind(address("[::]:0")).expect("a listener");
        let mut other = listener.local_addr();
        other.set_ip(Ipv4Addr::UNSPECIFIED.into());
        Listener::bind(other).is_ok()
    };
    assert!((0..16).any(|_| both()));
}

#[test]
fn a_broadcast_is_recognised() {
    let listener = Listener::bind(address("0.0.0.0:0")).expect("a listener");
    let client = peer("127.0.0.1:0");
    client.set_broadcast(true).expect("allowed");
    assert!(ask(&listener, &client, "127.255.255.255").broadcast);
    assert!(!ask(&listener, &client, "127.0.0.1").broadcast);
}

#[test]
fn a_long_request_is_marked() {
    let listener = Listener::bind(address("127.0.0.1:0")).expect("a listener");
    let client = peer("127.0.0.1:0");
    client
        .send_to(b"12345", listener.local_addr())
        .expect("sent");
    let received = listener.recv(&mut [0; 4]).expect("no error");
    let received = received.expect("a request");
    assert_eq!((received.length, received.truncated), (4, true));
}

#[test]
fn a_socket_for_both_families_can_be_handed_in() {
    if !has_ipv6() {
        return;
    }
    let socket = UdpSocket::bind("[::]:0").expect("a socket");
    if option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) != 0 {
        return; // this machine separates the families by default
    }
    let mut at = socket.local_addr().expect("bound");
    at.set_ip(Ipv4Addr::new(127, 0, 0, 5).into());
    let client = peer("127.0.0.1:0");
    client.send_to(b"the reason to start", at).expect("sent");

    let listener = Listener::from_socket(socket).expect("a listener");
    let early = listener.recv(&mut [0; 64]).expect("no error");
    let early = early.expect("a request from before");
    assert_eq!((early.local, early.broadcast), (at, false));
    assert_replies(&listener, &client, &early);

    let received = ask(&listener, &client, "127.0.0.6");
    assert_eq!(received.peer, client.local_addr().expect("bound"));
    assert_eq!(received.local.ip().to_string(), "127.0.0.6");
    assert!(!received.broadcast);
    assert_replies(&listener, &client, &received);
    client.set_broadcast(true).expect("allowed");
    assert!(ask(&listener, &client, "127.255.255.255").broadcast);

    let client = peer("[::1]:0");
    let received = ask(&listener, &client, "::1");
    assert_eq!(received.peer, client.local_addr().expect("bound"));
    assert_replies(&listener, &client, &received);
}

#[test]
fn a_link_local_address_is_told_with_its_interface() {
    let asked = |ip: &str| {
        let ip: Ipv6Addr = ip.parse().expect("an IP");
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: ip.octets(),
            },
            ipi6_ifindex: 7,
        };
        Asked::v6(&info)
    };
    assert_eq!(asked("fe80::1").local(69), address("[fe80::1%7]:69"));
    assert_eq!(asked("2001:db8::1").local(69), address("[2001:db8::1]:69"));
    assert!(asked("ff02::1").broadcast && !asked("fe80::1").broadcast);
    let peer = address("[fe80::2%7]:2070");
    assert_eq!(address_of(&SockaddrStorage::from(peer)), Some(peer));
}

#[test]
fn a_broadcast_is_recognised_without_the_local_address() {
    let asked = |sent_to: &str, ours: &str| {
        Asked::v4(&libc::in_pktinfo {
            ipi_ifindex: 2,
            ipi_spec_dst: in_addr(ours.parse().expect("an IP")),
            ipi_addr: in_addr(sent_to.parse().expect("an IP")),
        })
    };
    assert!(asked("255.255.255.255", "0.0.0.0").broadcast);
    assert!(asked("224.0.1.1", "0.0.0.0").broadcast);
    assert!(asked("192.0.2.255", "192.0.2.1").broadcast);
    assert!(!asked("192.0.2.1", "192.0.2.1").broadcast);
    // Only a broadcast is answered, and only from an address that is known.
    for sent_to in ["192.0.2.255", "255.255.255.255"] {
        assert!(asked(sent_to, "192.0.2.1").answerable);
        assert!(!asked(sent_to, "0.0.0.0").answerable);
        assert_eq!(
            asked(sent_to, "192.0.2.1").local(69),
            address("192.0.2.1:69")
        );
    }
    assert!(!asked("224.0.1.1", "192.0.2.1").answerable);
    assert!(!asked("192.0.2.1", "192.0.2.1").answerable);
    let early = asked("192.0.2.1", "0.0.0.0");
    assert!(!early.broadcast);
    assert_eq!(early.local(69), address("192.0.2.1:69"));
}

#[test]
fn listeners_overlap_where_one_would_take_the_others_packets() {
    let free = |local: &str| Listener::bind(address(local)).expect("a listener");
    let overlaps = |listener: &Listener, host: &str, further: u16| {
        let ip = host.parse::<IpAddr>().expect("an address");
        listener.overlaps(SocketAddr::new(ip, listener.local_addr().port() ^ further))
    };
    let loopback = free("127.0.0.1:0");
    assert!(overlaps(&loopback, "127.0.0.1", 0));
    assert!(overlaps(&loopback, "0.0.0.0", 0));
    for (host, further) in [("127.0.0.1", 1), ("127.0.0.2", 0), ("::", 0), ("::1", 0)] {
        assert!(!overlaps(&loopback, host, further), "{host}");
    }
    let any = free("0.0.0.0:0");
    assert!(overlaps(&any, "127.0.0.1", 0) && !overlaps(&any, "::1", 0));
    let only_v6 = free("[::]:0");
    assert!(overlaps(&only_v6, "::1", 0) && !overlaps(&only_v6, "127.0.0.1", 0));
    // A socket that the embedder has opened may take both families.
    let both = UdpSocket::bind("[::]:0").expect("a socket");
    let both = Listener::from_socket(both).expect("a listener");
    assert!(overlaps(&both, "127.0.0.1", 0) && overlaps(&both, "::1", 0));
    let local = UdpSocket::bind("[::1]:0").expect("a socket");
    let local = Listener::from_socket(local).expect("a listener");
    assert!(!overlaps(&local, "127.0.0.1", 0));
}

#[test]
fn only_an_early_listener_takes_an_address_that_no_interface_has() {
    for local in ["192.0.2.7:0", "[2001:db8::7]:0"] {
        let refused = Listener::bind(address(local)).map(drop);
        let cause = refused.expect_err("no interface has it").kind();
        assert_eq!(cause, io::ErrorKind::AddrNotAvailable, "{local}");
        #[cfg(target_os = "linux")]
        Listener::bind_early(address(local)).expect("a listener");
    }
}

#[test]
fn a_listener_knows_that_its_buffer_is_small() {
    let listener = Listener::bind(address("127.0.0.1:0")).expect("a listener");
    socket::setsockopt(&listener.socket, sockopt::RcvBuf, &8192).expect("a size");
    assert_eq!(listener.small_buffer(), Some(8192));
}

// ---- the receive buffer
// ---------------------------------------------------------------------------

/// No thread reads meanwhile, as where the receiver is busy. The kernel's limit must not matter:
/// some machines allow little.
#[test]
fn as_many_blocks_as_are_said_to_fit_are_kept() {
    for blksize in [8, 512, 1428, 8192, 20_000, 32_768, limits::MAX_BLKSIZE] {
        for windowsize in [2, 16, 256] {
            let client = peer("127.0.0.1:0");
            let socket = open_to(&client);
            let fitting = socket.make_room(blksize, windowsize);
            assert!(fitting > 0);
            let at = socket.local_addr().expect("bound");
            let sent = fitting.min(windowsize);
            let block = vec![7; usize::from(blksize) + limits::DATA_HEADER];
            for _ in 0..sent {
                client.send_to(&block, at).expect("sent");
            }
            let mut buffer = vec![0; limits::RECEIVE_OCTETS];
            let mut kept = 0;
            while let Some(length) = socket.recv(&mut buffer, Wait::No).expect("no error") {
                assert_eq!(length, block.len());
                kept += 1;
            }
            assert_eq!(kept, sent, "{blksize} x {windowsize}");
        }
    }
}

/// The default window is asked for whole on every system.
#[test]
fn the_usual_window_fits_into_the_usual_buffer() {
    let usual = 212_992;
    let charge = buffer_charge(limits::CLIENT_BLKSIZE.into());
    assert!(charge * usize::from(limits::CLIENT_WINDOWSIZE) < usual);
}
