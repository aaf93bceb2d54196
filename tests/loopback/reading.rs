//! What a read looks like on the wire when nothing goes wrong, and when one packet is lost.

use crate::rig::*;
use tftpool::unversioned::wire;
use tftpool::{Mode, OptionName, Source, store_fn};

#[test]
fn a_plain_read_goes_in_lock_step() {
    let content = pattern(1300);
    let server = calm(shelf([("file", content.clone())]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    let mut got = client.data(1);
    fence(&server);
    client.quiet();
    client.ack(1);
    got.extend(client.data(2));
    client.ack(2);
    got.extend(client.data(3));
    client.ack(3);
    assert_eq!(got, content);
    let summary = completed(&mut events);
    assert_eq!(
        (summary.bytes, summary.blksize, summary.windowsize),
        (1300, 512, 1)
    );
    assert_eq!(
        summary.peer,
        client.socket.local_addr().expect("an address")
    );
    assert_eq!(Some(summary.local), client.tid);
    client.quiet();
}

#[test]
fn every_block_size_and_window_size_brings_the_same_octets() {
    let content = pattern(300_000);
    let whole = content.clone();
    let server = serve(store_fn(move |request| {
        let length: usize = std::str::from_utf8(request.name)
            .expect("a number")
            .parse()
            .expect("a number");
        Ok(Source::bytes(&whole[..length]))
    }));
    for blksize in [8, 9, 511, 512, 513, 1024, 1428, 8192, 65464] {
        for windowsize in [1, 2, 3, 16, 64, 1000] {
            let window = blksize * windowsize;
            for length in [
                0,
                1,
                blksize - 1,
                blksize,
                blksize + 1,
                window,
                window + 1,
                2 * window + blksize + 3,
            ] {
                if length > content.len() || length / blksize / windowsize > 50 {
                    continue;
                }
                let options = [
                    (OptionName::Blksize, blksize as u64),
                    (OptionName::Windowsize, windowsize as u64),
                ];
                let got = fetch(server.local_addr(), &length.to_string(), &options);
                assert!(
                    got.as_deref() == Ok(&content[..length]),
                    "{length} octets by {blksize} × {windowsize}"
                );
            }
        }
    }
    assert_eq!(server.stats().failed, 0);
}

#[test]
fn an_exact_multiple_ends_with_an_empty_block() {
    let server = calm(shelf([("two", pattern(1024)), ("none", Vec::new())]));
    let mut client = Client::new(server.local_addr());
    client.ask("two", &[]);
    assert_eq!(client.data(1).len(), 512);
    client.ack(1);
    assert_eq!(client.data(2).len(), 512);
    client.ack(2);
    assert_eq!(client.data(3).len(), 0);
    client.ack(3);
    client.ask("none", &[]);
    assert_eq!(client.data(1).len(), 0);
    client.ack(1);
}

#[test]
fn tsize_is_true_and_0_for_an_empty_file_but_not_to_curl() {
    let server = calm(shelf([("file", pattern(70_000)), ("none", Vec::new())]));
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("tsize", "0")]);
    assert_eq!(client.oack(), "tsize=70000");
    client.ask("file", &[("tsize", "12345")]);
    assert_eq!(client.oack(), "tsize=70000", "not an echo");
    client.ask(
        "none",
        &[("tsize", "0"), ("blksize", "512"), ("timeout", "6")],
    );
    assert_eq!(client.oack(), "blksize=512 timeout=6");
    client.ask("none", &[("tsize", "0")]);
    assert_eq!(client.oack(), "tsize=0");
    client.ack(0);
    assert_eq!(client.data(1), b"");
    client.ack(1);
    // Erlang's client and pack.ag/tftp fail without it.
    let mut client = Client::new(server.local_addr());
    client.ask(
        "none",
        &[("blksize", "512"), ("tsize", "0"), ("timeout", "6")],
    );
    assert_eq!(client.oack(), "tsize=0 blksize=512 timeout=6");
}

#[test]
fn options_that_nobody_knows_are_answered_with_data_1() {
    let server = calm(shelf([("file", pattern(700))]));
    let mut client = Client::new(server.local_addr());
    for options in [
        &[("multicast", "")][..],
        &[("x", "1"), ("y", "2")],
        &[("blksize", "7"), ("timeout", "3000")],
    ] {
        client.ask("file", options);
        assert_eq!(client.data(1).len(), 512, "{options:?}");
        client.abort(0);
    }
    client.ask("file", &[("multicast", ""), ("BlkSize", "600")]);
    assert_eq!(client.oack(), "blksize=600");
}

#[test]
fn an_oack_comes_first_and_no_data_before_its_ack() {
    let server = calm(shelf([("file", pattern(5000))]));
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("windowsize", "4"), ("blksize", "1000")]);
    assert_eq!(client.oack(), "blksize=1000 windowsize=4");
    fence(&server);
    client.quiet();
    client.ack(0);
    let got: Vec<u8> = (1..=4).flat_map(|block| client.data(block)).collect();
    assert_eq!(got, pattern(4000));
    fence(&server);
    client.quiet();
    client.ack(4);
    client.data(5);
    client.data(6);
    client.ack(6);
}

#[test]
fn a_lost_block_comes_again_octet_for_octet() {
    let scratch = Scratch::new();
    let (small, large) = (pattern(9_000), pattern(90_000));
    let (small_path, large_path) = (scratch.file("small", &small), scratch.file("large", &large));
    let store = std::sync::Arc::new(store_fn(move |request| {
        let open = |path| Source::file(std::fs::File::open(path).expect("a file"));
        let (at, stream) = (small.clone(), std::io::Cursor::new(small.clone()));
        Ok(match request.name {
            b"read" => open(&small_path),
            b"mapped" => open(&large_path),
            b"bytes" => Source::bytes(small.as_slice()),
            b"read_at" => Source::read_at(
                move |out, from| std::io::Read::read(&mut &at[from as usize..], out),
                9_000,
            ),
            _ => Source::reader(stream, None),
        })
    }));
    let same = std::sync::Arc::clone(&store);
    let (prompt, calm) = (serve(same), calm(store));
    for name in ["read", "mapped", "bytes", "read_at", "reader"] {
        // In lock step the timer sends it again.
        let mut client = Client::new(prompt.local_addr());
        client.ask(name, &[]);
        assert_eq!(client.data(1), large[..512]);
        client.ack(1);
        let once = client.data_at_last(2);
        assert_eq!(client.data_at_last(2), once, "{name}");
        assert_eq!(once, large[512..1024]);
        // In a window the client says where to start again.
        let mut client = Client::new(calm.local_addr());
        client.ask(name, &[("windowsize", "6"), ("blksize", "500")]);
        client.oack();
        client.ack(0);
        let once: Vec<_> = (1..=6).map(|block| client.data(block)).collect();
        client.ack(2);
        let again: Vec<_> = (3..=8).map(|block| client.data(block)).collect();
        assert_eq!(once[2..], again[..4], "{name}");
        assert_eq!(again.concat(), large[1000..4000], "{name}");
    }
}

#[test]
fn block_numbers_wrap_more_than_once() {
    let content = pattern(8 * 140_000 + 5);
    let server = serve(shelf([("file", content.clone())]));
    for rollover in [None, Some(0), Some(1)] {
        let mut options = vec![(OptionName::Blksize, 8), (OptionName::Windowsize, 64)];
        options.extend(rollover.map(|first| (OptionName::Rollover, first)));
        let got = fetch(server.local_addr(), "file", &options);
        assert!(got.as_ref() == Ok(&content), "rollover={rollover:?}");
    }
}

/// The last number is 65535, 0, 1 or 2, and the last block is empty or not.
#[test]
fn a_file_may_end_where_the_numbers_wrap() {
    let content = pattern(8 * 65_537 + 3);
    let whole = content.clone();
    let server = serve(store_fn(move |request| {
        let length = std::str::from_utf8(request.name).expect("a number");
        Ok(Source::bytes(&whole[..length.parse().expect("a number")]))
    }));
    for last in 65_535..=65_538 {
        for length in [8 * (last - 1), 8 * (last - 1) + 3] {
            for rollover in [0, 1] {
                let options = [
                    (OptionName::Blksize, 8),
                    (OptionName::Windowsize, 64),
                    (OptionName::Rollover, rollover),
                ];
                let got = fetch(server.local_addr(), &length.to_string(), &options);
                assert!(
                    got.as_deref() == Ok(&content[..length]),
                    "{length} octets, rollover={rollover}"
                );
            }
        }
    }
    assert_eq!(server.stats().failed, 0);
}

/// Sizes and offsets need more than 32 bits, and the block numbers wrap although blocks are as
/// large as they may be. The file is a hole but for marks around every border.
#[test]
fn a_file_past_4_gib_arrives_whole_and_in_its_place() {
    use std::os::unix::fs::FileExt;
    const LENGTH: u64 = 4_400_000_000;
    const BLOCK: u64 = 65_464;
    let marks = [
        0,
        BLOCK * 1000 - 50,
        (1 << 31) - 50,
        (1 << 32) - 50,
        BLOCK * 65_535 - 50, // the last octets of block 65535 and the first of block 0
        BLOCK * 65_536 - 50, // the same of blocks 0 and 1
        LENGTH - 100,
    ]
    .map(|at| (at, pattern(1100)[at as usize % 1000..][..100].to_vec()));
    let scratch = Scratch::new();
    let path = scratch.file("sparse", "");
    let file = std::fs::File::options()
        .write(true)
        .open(&path)
        .expect("a file");
    file.set_len(LENGTH).expect("a sparse file");
    for (at, mark) in &marks {
        file.write_all_at(mark, *at).expect("a mark");
    }
    let server = serve(tftpool::Dir::read_only(scratch.path()).expect("a directory"));
    let mut client = Client::new(server.local_addr());
    client.ask("sparse", &[("tsize", "0")]);
    assert_eq!(client.oack(), format!("tsize={LENGTH}"));
    client.abort(8);

    let socket = Client::new(server.local_addr()).socket;
    room_for_windows(&socket);
    let (mut at, mut blocks) = (0, 0u64);
    let mut expected = Vec::new();
    let check = |block: &[u8]| {
        expected.clear();
        expected.resize(block.len(), 0);
        for (from, mark) in &marks {
            for (place, octet) in (*from..).zip(mark) {
                if (at..at + block.len() as u64).contains(&place) {
                    expected[(place - at) as usize] = *octet;
                }
            }
        }
        assert!(block == expected, "block {} at octet {at}", blocks + 1);
        at += block.len() as u64;
        blocks += 1;
    };
    let options = [(OptionName::Blksize, BLOCK), (OptionName::Windowsize, 8)];
    let asked = server.local_addr();
    let got = fetch_into(check, &socket, asked, "sparse", Mode::Octet, &options);
    assert_eq!((got, at), (Ok(()), LENGTH));
    assert!(blocks > 65_536 + 1000, "{blocks} blocks: no wrap");
}

/// A receive buffer that holds some large blocks; where the system gives less, windows are torn and
/// come again.
fn room_for_windows(socket: &std::net::UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    const OCTETS: usize = 8 << 20;
    if setsockopt(socket, sockopt::RcvBufForce, &OCTETS).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &OCTETS);
    }
}

#[test]
fn netascii_is_translated_across_block_borders() {
    let text: Vec<u8> = pattern(20_000)
        .into_iter()
        .map(|octet| [b'a', b'\n', b'\r', 0][octet as usize % 4])
        .collect();
    let wanted: Vec<u8> = text
        .iter()
        .flat_map(|octet| match octet {
            b'\n' => &b"\r\n"[..],
            b'\r' => b"\r\0",
            0 => b"\0",
            _ => b"a",
        })
        .copied()
        .collect();
    let server = serve(shelf([("text", text.clone())]));
    let socket = Client::new(server.local_addr()).socket;
    for (blksize, windowsize) in [(8, 1), (9, 7), (511, 3), (1428, 1)] {
        let options = [
            (OptionName::Blksize, blksize),
            (OptionName::Windowsize, windowsize),
            (OptionName::Tsize, 0),
        ];
        let got = fetch_over(
            &socket,
            server.local_addr(),
            "text",
            Mode::Netascii,
            &options,
        );
        assert!(got.as_ref() == Ok(&wanted), "{blksize} × {windowsize}");
    }
    // The translated length is not known before the end, so it is not announced.
    let mut client = Client::new(server.local_addr());
    client.shout(&rrq(
        "text",
        "NetASCII",
        &[("tsize", "0"), ("blksize", "9"), ("windowsize", "3")],
    ));
    assert_eq!(client.oack(), "blksize=9 windowsize=3");
    client.ack(0);
    let once: Vec<_> = (1..=3).map(|block| client.data(block)).collect();
    client.ack(1);
    let again: Vec<_> = (2..=4).map(|block| client.data(block)).collect();
    assert_eq!(
        once[1..],
        again[..2],
        "a block that is sent again is the same"
    );
    assert_eq!(once[0], wanted[..9]);
    client.say(&wire::ack(4));
    client.data(5);
    client.abort(0);
}
