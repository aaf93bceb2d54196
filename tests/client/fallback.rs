//! Servers that refuse options, ignore them, or are silent to them; and those that are not there.

use crate::rig::{PATIENCE, pattern, serve, shelf};
use crate::script::{Call, Port, hasty, play};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tftpool::{Client, ErrorCode, Failure, OptionName, Source};

/// Octets, and what was agreed.
type Agreed = (u64, u16, u16);

fn get(client: &Client) -> (Result<Agreed, Failure>, Vec<u8>) {
    let mut got = Vec::new();
    let result = client.get("file", &mut got);
    let agreed = result.map(|it| (it.bytes, it.blksize, it.windowsize));
    (agreed, got)
}

#[test]
fn the_first_request_asks_for_size_blocks_and_a_window() {
    let asked = play(
        |port| {
            let call = port.call();
            let options = call.options();
            assert_eq!(options.to_string(), "tsize=0 blksize=1428 windowsize=16");
            call.error(1, "no");
        },
        |at| get(&Client::new(at)),
    );
    assert!(asked.0.is_err());
    // Whole seconds are asked of the server too.
    let second = Duration::from_secs(1);
    let asked = play(
        |port| {
            let call = port.call();
            assert_eq!(call.options().to_string(), "blksize=8 timeout=2");
            call.error(1, "no");
        },
        |at| {
            let client = Client::new(at).tsize(false).blksize(1).windowsize(0);
            get(&client.timeout(2 * second))
        },
    );
    assert!(asked.0.is_err());
}

#[test]
fn a_server_that_refuses_options_is_asked_without() {
    let wanted = pattern(1500);
    for code in [0, 4, 8] {
        let (result, got) = play(
            |port| {
                let call = port.call();
                assert!(call.options().is_present(OptionName::Blksize));
                call.error(code, "no options here");
                let call = port.call();
                assert!(call.options().is_empty());
                call.serve(&wanted);
            },
            |at| get(&Client::new(at)),
        );
        assert_eq!(result, Ok((1500, 512, 1)), "code {code}");
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_server_that_has_no_such_file_is_asked_once() {
    let (result, _) = play(
        |port| port.call().error(1, "no such file"),
        |at| get(&Client::new(at)),
    );
    let Err(Failure::Aborted { code, text }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(code, ErrorCode::NOT_FOUND);
    assert_eq!(text.as_bytes(), b"no such file");
}

#[test]
fn a_server_that_is_silent_to_options_is_asked_without() {
    let wanted = pattern(1024);
    let (result, got) = play(
        |port| port.call_without_options().serve(&wanted),
        |at| get(&hasty(at)),
    );
    assert_eq!((result, got), (Ok((1024, 512, 1)), wanted));
}

/// Blocks of the size that was agreed never arrive: a tunnel on the way, say.
#[test]
fn a_server_whose_blocks_never_arrive_is_asked_without() {
    let wanted = pattern(1024);
    let (result, got) = play(
        |port: &Port| {
            let call = port.call();
            call.oack("blksize\x001428\0");
            call.acked(0);
            port.call_without_options().serve(&wanted);
        },
        |at| get(&hasty(at).retries(1)),
    );
    assert_eq!((result, got), (Ok((1024, 512, 1)), wanted));
}

#[test]
fn a_server_that_ignores_options_is_understood_at_once() {
    let wanted = pattern(1024);
    let (result, got) = play(
        |port| port.call().serve(&wanted),
        |at| get(&Client::new(at)),
    );
    assert_eq!((result, got), (Ok((1024, 512, 1)), wanted));
}

#[test]
fn what_a_server_grants_is_used() {
    let wanted = pattern(1000);
    let (result, got) = play(
        |port| {
            let call = port.call();
            call.oack("blksize\x00100\0WindowSize\x003\0");
            call.acked(0);
            for (block, payload) in (1..).zip(wanted.chunks(100)) {
                call.data(block, payload);
                if block % 3 == 0 {
                    call.acked(block);
                }
            }
            call.data(11, b"");
            call.acked(11);
        },
        |at| get(&Client::new(at)),
    );
    assert_eq!((result, got), (Ok((1000, 100, 3)), wanted));
}

/// Takes an upload in lock step.
fn three_blocks(call: &Call) -> Vec<u8> {
    call.send(b"\0\x04\0\0");
    let mut got = Vec::new();
    for block in 1..=3 {
        let packet = call.recv();
        assert_eq!(packet[..4], [0, 3, 0, block]);
        got.extend_from_slice(&packet[4..]);
        call.send(&[0, 4, 0, block]);
    }
    got
}

/// What was sent in vain is sent again from its beginning, whatever it comes from; and an OACK that
/// makes no sense is like none.
#[test]
fn an_upload_begins_anew_where_its_blocks_never_arrive_or_the_oack_is_wrong() {
    let wanted = pattern(1100);
    let sources: [fn(Vec<u8>) -> Source; 3] = [
        Source::bytes,
        |octets| Source::reader(std::io::Cursor::new(octets), None),
        |octets| Source::reader(std::io::Cursor::new(octets), Some(1100)),
    ];
    for oack in ["blksize\x00100\0windowsize\x003\0", "blksize\x009999\0"] {
        for source in sources {
            let sent = source(wanted.clone());
            let result = play(
                |port| {
                    let silent = port.call();
                    silent.oack(oack);
                    assert_eq!(three_blocks(&port.call_without_options()), wanted);
                },
                |at| hasty(at).retries(1).put("file", sent),
            );
            let result = result.map(|it| (it.bytes, it.blksize));
            assert_eq!(result, Ok((1100, 512)), "{oack:?}");
        }
    }
}

#[test]
fn uploads_fall_back_too() {
    let wanted = pattern(1100);
    let sent = wanted.clone();
    let result = play(
        |port| {
            let call = port.call();
            assert_eq!(
                call.options().to_string(),
                "tsize=1100 blksize=1428 windowsize=16"
            );
            call.error(8, "no");
            let call = port.call();
            assert!(call.options().is_empty());
            assert_eq!(three_blocks(&call), wanted);
        },
        |at| Client::new(at).put("file", Source::bytes(sent)),
    );
    assert_eq!(result.map(|it| (it.bytes, it.blksize)), Ok((1100, 512)));
}

/// An address where nobody listens.
fn closed() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.3:0").expect("a free port");
    socket.local_addr().expect("bound")
}

#[test]
fn every_address_is_tried() {
    let wanted = pattern(5000);
    let server = serve(shelf([("file", wanted.clone())]));
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let addresses = [
        closed(),
        silent.local_addr().expect("bound"),
        server.local_addr(),
    ];
    let client = Client::with_addresses(addresses).timeout(Duration::from_millis(50));
    let (result, got) = get(&client);
    assert_eq!((result, got), (Ok((5000, 1428, 16)), wanted));
}

/// From 127.0.0.1 no route leads to another machine, nor to those that RFC 5737 keeps for
/// documentation. The limit of time is over long before a second request would go out.
#[test]
fn an_address_without_a_route_is_not_waited_for() {
    let wanted = pattern(5000);
    let server = serve(shelf([("file", wanted.clone())]));
    let away = [
        ([198, 51, 100, 1], 69).into(),
        ([203, 0, 113, 1], 69).into(),
    ];
    let client = |addresses: &[SocketAddr]| {
        Client::with_addresses(addresses.iter().copied())
            .bind(Ipv4Addr::LOCALHOST.into())
            .timeout(Duration::from_secs(255))
            .max_time(PATIENCE)
    };
    let (result, got) = get(&client(&[away[0], away[1], server.local_addr()]));
    assert_eq!((result, got), (Ok((5000, 1428, 16)), wanted));
    let (result, _) = get(&client(&away));
    assert!(matches!(result, Err(Failure::Network(_))), "{result:?}");
}

#[test]
fn nobody_there_is_said_in_the_end() {
    let (result, _) = get(&hasty(closed()));
    assert_eq!(result, Err(Failure::Unreachable));
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let client = hasty(silent.local_addr().expect("bound"));
    let (result, _) = get(&client);
    assert_eq!(result, Err(Failure::Unanswered));
    let (result, _) = get(&Client::with_addresses([]));
    assert!(matches!(result, Err(Failure::Network(_))), "{result:?}");
}

#[test]
fn names_that_no_request_can_hold_are_refused_here() {
    let client = Client::new(closed());
    for name in [&b""[..], b"a\0b", &[b'x'; 401]] {
        let result = client.get(name, &mut Vec::new());
        assert_eq!(result.map(|it| it.bytes), Err(Failure::Name));
    }
}
