//! What comes to the listening port, and what strangers send to a transfer's.

use crate::rig::*;
use tftpool::unversioned::wire::Malformed;
use tftpool::{DropReason, Event, Failure, store_fn};

fn next_drop(events: &mut tftpool::Events) -> DropReason {
    wait_for(events, |event| match event {
        Event::Dropped { reason, .. } => Some(*reason),
        _ => None,
    })
}

#[test]
fn what_is_no_request_is_dropped_and_counted_never_answered() {
    let server = calm(shelf([("file", pattern(100))]));
    let mut events = server.events();
    let client = Client::new(server.local_addr());
    let cases: [(&[u8], DropReason); 9] = [
        (b"\0\x03\0\x01data", DropReason::NotARequest),
        (b"\0\x04\0\x01", DropReason::NotARequest),
        (b"\0\x05\0\x00text\0", DropReason::NotARequest),
        (b"\0\x06blksize\x00512\0", DropReason::NotARequest),
        (b"", DropReason::Malformed(Malformed::TooShort)),
        (b"\0", DropReason::Malformed(Malformed::TooShort)),
        (b"\0\x04\0", DropReason::Malformed(Malformed::TooShort)),
        (
            b"\0\0file\0octet\0",
            DropReason::Malformed(Malformed::Opcode(0)),
        ),
        (
            b"\x01\0file\0octet\0",
            DropReason::Malformed(Malformed::Opcode(256)),
        ),
    ];
    for (datagram, reason) in cases {
        client.shout(datagram);
        assert_eq!(next_drop(&mut events), reason);
    }
    fence(&server);
    client.quiet();
    assert_eq!(server.stats().dropped, cases.len() as u64);
}

#[test]
fn a_malformed_request_gets_error_4() {
    let server = calm(shelf([("file", pattern(100))]));
    let mut events = server.events();
    let oversize = [&rrq("file", "octet", &[])[..], &[b'x'; 3000]].concat();
    let unending = [&b"\0\x01"[..], &[b'x'; 3000]].concat();
    let long_name = rrq(&"x".repeat(1500), "octet", &[]);
    let cases: [(&[u8], Malformed); 10] = [
        (b"\0\x01", Malformed::UnterminatedName),
        (b"\0\x01file", Malformed::UnterminatedName),
        (b"\0\x01file\0octet", Malformed::UnterminatedMode),
        (b"\0\x01\0octet\0", Malformed::EmptyName),
        (b"\0\x01user\0mail\0", Malformed::UnknownMode),
        (b"\0\x01file\0octe\0", Malformed::UnknownMode),
        (b"\0\x02file\0", Malformed::UnterminatedMode),
        (&oversize, Malformed::LongRequest),
        (&unending, Malformed::UnterminatedName),
        (&long_name, Malformed::LongName),
    ];
    for (datagram, why) in cases {
        let mut client = Client::new(server.local_addr());
        client.shout(datagram);
        assert_eq!(client.error().0, 4, "{why}");
        assert_eq!(next_drop(&mut events), DropReason::Malformed(why));
        client.quiet();
    }
}

#[test]
fn a_write_request_gets_error_2() {
    let server = calm(shelf([("file", pattern(100))]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    for name in ["file", "new"] {
        client.tid = None;
        client.shout(format!("\0\x02{name}\0octet\0tsize\x0010\0").as_bytes());
        assert_eq!(client.error().0, 2);
        let code = wait_for(&mut events, |event| match event {
            Event::Refused {
                id: None, refusal, ..
            } => Some(refusal.code().0),
            _ => None,
        });
        assert_eq!(code, 2);
    }
    assert_eq!((server.stats().refused, server.stats().active), (2, 0));
}

/// By policy: neither the modes of files and directory nor the options of the request matter.
#[test]
fn a_write_request_touches_nothing_on_disk() {
    let scratch = Scratch::new();
    let path = scratch.file("open to all", &pattern(100));
    mode(&path, 0o666);
    mode(scratch.path(), 0o777);
    let before = std::fs::metadata(&path).expect("a file");
    let server = calm(tftpool::Dir::read_only(scratch.path()).expect("a directory"));
    let mut client = Client::new(server.local_addr());
    for name in ["open to all", "new", "new/er", "../up", "/tmp/x"] {
        for request in [
            rrq(name, "octet", &[]),
            rrq(name, "netascii", &[("blksize", "1000"), ("tsize", "5")]),
        ] {
            client.tid = None;
            client.shout(&[b"\0\x02", &request[2..]].concat());
            assert_eq!(client.error(), (2, "server is read-only".into()), "{name}");
            client.say(b"\0\x03\0\x01data");
        }
    }
    fence(&server);
    client.quiet();
    let after = std::fs::metadata(&path).expect("a file");
    assert_eq!(before.modified().ok(), after.modified().ok());
    assert_eq!(std::fs::read(&path).ok(), Some(pattern(100)));
    assert_eq!(scratch.names(), ["open to all"]);
}

/// RFC 2347 ends a request at 512 octets; what is longer is read as far as the buffer goes, and
/// refused beyond.
#[test]
fn a_request_of_any_length_is_answered() {
    let server = calm(store_fn(|_| Ok(tftpool::Source::bytes(pattern(100)))));
    let mut client = Client::new(server.local_addr());
    let many: Vec<_> = (0..12).map(|_| ("an option of somebody", "1")).collect();
    for name in [500, 512, 1000, 1024] {
        client.ask(&"x".repeat(name), &many);
        assert_eq!(client.data(1), pattern(100), "a name of {name}");
        client.ack(1);
    }
    for length in [2049, 65_507] {
        let mut longest = rrq("file", "octet", &[]);
        longest.resize(length, b'x');
        client.tid = None;
        client.shout(&longest);
        assert_eq!(client.error().0, 4, "{length} octets");
    }
    assert_eq!(client.get("file"), Ok(pattern(100)));
}

#[test]
fn an_option_is_granted_strictly_or_left_out() {
    let server = calm(shelf([("file", pattern(700))]));
    let mut client = Client::new(server.local_addr());
    for (options, granted) in [
        // In any order, in any case, once.
        (
            &[("WindowSize", "2"), ("BLKSIZE", "600")][..],
            "blksize=600 windowsize=2",
        ),
        (
            &[("blksize", "600"), ("windowsize", "2")],
            "blksize=600 windowsize=2",
        ),
        (&[("blksize", "600"), ("BlkSize", "900")], "blksize=600"),
        // Lowered, never cut to sixteen bits.
        (&[("blksize", "65465")], "blksize=65464"),
        (&[("blksize", "65536")], "blksize=65464"),
        (&[("blksize", "4294967808")], "blksize=65464"),
        (
            &[("windowsize", "65535"), ("blksize", "32")],
            "blksize=32 windowsize=32767",
        ),
        (
            &[("windowsize", "65537"), ("blksize", "32")],
            "blksize=32 windowsize=32767",
        ),
        // As asked for, or not at all.
        (&[("timeout", "255")], "timeout=255"),
        (&[("timeout", "256"), ("blksize", "8")], "blksize=8"),
        (&[("timeout", "4294967297"), ("blksize", "8")], "blksize=8"),
        (&[("utimeout", "9999"), ("blksize", "8")], "blksize=8"),
        (&[("rollover", "1")], "rollover=1"),
        (&[("rollover", "2"), ("blksize", "8")], "blksize=8"),
        (&[("blksize2", "1500")], "blksize2=1024"),
        (&[("multicast", ""), ("blksize", "8")], "blksize=8"),
    ] {
        client.ask("file", options);
        assert_eq!(client.oack(), granted, "{options:?}");
        client.abort(8);
    }
    for value in [
        "",
        "0",
        "7",
        "-8",
        "+512",
        " 512",
        "512 ",
        "0x200",
        "1e3",
        "512a",
        "512.0",
        "18446744073709552128",
    ] {
        client.ask("file", &[("blksize", value)]);
        assert_eq!(client.data(1).len(), 512, "{value:?}");
        client.abort(0);
    }
}

#[test]
fn padding_behind_a_request_is_ignored() {
    let server = calm(shelf([("file", pattern(100))]));
    let mut client = Client::new(server.local_addr());
    client.shout(&[&rrq("file", "OCTET", &[("blksize", "99")])[..], &[0; 60]].concat());
    assert_eq!(client.oack(), "blksize=99");
    // So are octets behind an ACK.
    client.say(b"\0\x04\0\0\0\0\0\0\0\0");
    assert_eq!(client.data(1), pattern(99));
}

#[test]
fn strangers_do_not_disturb_a_transfer() {
    let content = pattern(3000);
    let server = calm(shelf([("file", content.clone())]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    let mut got = client.data(1);
    let mut stranger = Client::new(server.local_addr());
    stranger.tid = client.tid;
    let neighbour = Client::at(([127, 0, 0, 9], 0).into(), client.tid.expect("a TID"));
    for datagram in [
        &b"\0\x04\0\x01"[..],
        &error(0, "die"),
        b"\0\x03\0\x01x",
        &rrq("file", "octet", &[]),
    ] {
        stranger.say(datagram);
        neighbour.shout(datagram);
    }
    fence(&server);
    client.quiet();
    stranger.quiet(); // the kernel keeps them out; nobody is left to say ERROR 5
    neighbour.quiet();
    got.extend(client.rest(1, 512).expect("the rest"));
    assert!(got == content);
    assert_eq!(completed(&mut events).bytes, 3000);
}

#[test]
fn an_error_from_the_client_ends_its_transfer_and_is_not_answered() {
    let server = calm(shelf([("file", pattern(3000))]));
    let mut events = server.events();
    let client = begun(&server);
    client.say(&error(3, "disk\nfull"));
    let (summary, failure) = failed(&mut events);
    assert_eq!(summary.bytes, 512);
    assert_eq!(failure.to_string(), r#"peer sent error 3 "disk\nfull""#);
    fence(&server);
    client.quiet();
}

#[test]
fn packets_that_make_no_sense_in_a_transfer_are_ignored() {
    let server = calm(shelf([("file", pattern(1500))]));
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    let mut got = client.data(1);
    for datagram in [
        &b""[..],
        b"\0",
        b"\0\x03\0\x01x",
        b"\0\x06\0",
        b"\0\x09\0\0",
        &rrq("file", "octet", &[]),
        b"\0\x04\0\x02",
        b"\0\x04\0\0",
        b"\0\x04\xff\xff",
        &[b'x'; 2000],
    ] {
        client.say(datagram);
    }
    got.extend(client.rest(1, 512).expect("the rest"));
    assert_eq!(got, pattern(1500));
    client.quiet();
}

/// UEFI firmware does this at every boot: it asks for the size, says ERROR 8 to the answer, and
/// comes back.
#[test]
fn a_size_probe_is_no_failure() {
    let server = calm(shelf([("bootx64.efi", pattern(10_000))]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask(
        "bootx64.efi",
        &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")],
    );
    assert_eq!(client.oack(), "tsize=10000 blksize=1468 windowsize=4");
    client.say(&error(8, "User aborted the transfer"));
    let bytes = wait_for(&mut events, |event| match event {
        Event::Probe(summary) => Some(summary.bytes),
        Event::Failed(..) => panic!("{event:?}"),
        _ => None,
    });
    assert_eq!(bytes, 0);
    client.quiet();
    let options = [
        (tftpool::OptionName::Blksize, 1468),
        (tftpool::OptionName::Windowsize, 4),
    ];
    assert_eq!(
        fetch(server.local_addr(), "bootx64.efi", &options),
        Ok(pattern(10_000))
    );
    completed(&mut events);
    assert_eq!((server.stats().probes, server.stats().failed), (1, 0));
}

#[test]
fn error_8_behind_the_second_block_is_a_failure() {
    let server = calm(shelf([("file", pattern(10_000))]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("blksize", "512")]);
    client.oack();
    for block in 0..=2 {
        client.ack(block);
        client.data(block + 1);
    }
    client.abort(8);
    assert!(matches!(failed(&mut events).1, Failure::Aborted { .. }));
}

#[test]
fn a_broadcast_is_dropped_and_counted() {
    let server = start(calmly(
        tftpool::Server::builder(shelf([("file", pattern(9))]))
            .bind("0.0.0.0:0".parse().expect("an address")),
    ));
    let mut events = server.events();
    let port = server.local_addr().port();
    let client = Client::new(([127, 255, 255, 255], port).into());
    client
        .socket
        .set_broadcast(true)
        .expect("a broadcast socket");
    client.shout(&rrq("file", "octet", &[]));
    assert_eq!(next_drop(&mut events), DropReason::Broadcast);
    client.quiet();
    assert_eq!(server.stats().requests, 0);
}

/// Where it is asked for, a read request to a broadcast address is answered from the address of its
/// interface. A server that does not have the file is silent: another one may have it.
#[test]
fn a_broadcast_is_answered_from_the_address_of_its_interface_where_asked_for() {
    let server = start(
        calmly(
            tftpool::Server::builder(shelf([("file", pattern(700))]))
                .bind("0.0.0.0:0".parse().expect("an address")),
        )
        .limits(|limits| limits.answer_broadcast = true),
    );
    let mut events = server.events();
    let port = server.local_addr().port();
    let asking = || {
        let client = Client::new(([127, 255, 255, 255], port).into());
        client.socket.set_broadcast(true).expect("allowed");
        client
    };
    let mut client = asking();
    client.ask("file", &[("blksize", "600")]);
    let (from, reply) = client.next_from();
    assert_eq!(from.ip(), std::net::Ipv4Addr::LOCALHOST);
    assert_eq!(reply, Reply::Oack("blksize=600".into()));
    client.tid = Some(from);
    assert_eq!(client.rest(0, 600), Ok(pattern(700)));
    assert_eq!(completed(&mut events).local.ip(), from.ip());
    // Neither a file that is not there, nor an upload, nor nonsense is told anything.
    let mut client = asking();
    client.ask("missing", &[]);
    wait_for(&mut events, |event| {
        matches!(event, Event::Refused { .. }).then_some(())
    });
    client.shout(&wrq("file", "octet", &[]));
    assert_eq!(next_drop(&mut events), DropReason::Broadcast);
    client.shout(b"\0\x01file\0mail\0");
    assert_eq!(next_drop(&mut events), DropReason::Broadcast);
    client.shout(&tftpool::unversioned::wire::ack(1));
    assert_eq!(next_drop(&mut events), DropReason::NotARequest);
    client.quiet();
}

#[test]
fn a_request_from_port_0_is_dropped() {
    forged(|_| 0);
}

/// An answer would be the next request, and so on.
#[test]
fn a_request_from_the_server_itself_is_dropped() {
    forged(|server| server);
}

/// Sends a request whose source port is made up from the server's.
fn forged(source: fn(u16) -> u16) {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
    };
    use std::os::fd::AsRawFd;
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::Udp,
    );
    let raw = match raw {
        Ok(raw) => raw,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "raw socket: {error}");
            eprintln!("skipped: raw sockets are for root");
            return;
        }
    };
    let server = calm(shelf([("file", pattern(9))]));
    let mut events = server.events();
    let request = rrq("file", "octet", &[]);
    let port = server.local_addr().port();
    let mut datagram = Vec::new();
    for field in [source(port), port, 8 + request.len() as u16, 0] {
        datagram.extend_from_slice(&field.to_be_bytes());
    }
    datagram.extend_from_slice(&request);
    sendto(
        raw.as_raw_fd(),
        &datagram,
        &SockaddrIn::new(127, 0, 0, 1, 0),
        MsgFlags::empty(),
    )
    .expect("a send");
    assert_eq!(next_drop(&mut events), DropReason::NoReturn);
    assert_eq!(server.stats().requests, 0);
}

/// The log of a request says what was not understood of it.
#[test]
fn options_that_are_not_understood_stand_in_the_event_of_the_request() {
    let server = calm(shelf([("file", pattern(100))]));
    let mut events = server.events();
    for (options, expected) in [
        (&[("blksize", "600")][..], None),
        (
            &[("multicast", ""), ("blksize", "1e3"), ("x\u{1b}", "\"")],
            Some("multicast= blksize=1e3 x\u{1b}=\""),
        ),
    ] {
        let mut client = Client::new(server.local_addr());
        client.ask("file", options);
        let ignored = wait_for(&mut events, |event| match event {
            Event::Request { ignored, .. } => Some(ignored.clone()),
            _ => None,
        });
        let text = ignored.as_ref().map(tftpool::Name::as_bytes);
        assert_eq!(text, expected.map(str::as_bytes));
    }
}
