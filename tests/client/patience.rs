//! Servers that are not there yet, that need long for their last ACK, or that count no further than
//! 65535.

use crate::rig::{PATIENCE, now, pattern, serve, shelf};
use crate::script::{hasty, play};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;
use tftpool::unversioned::wire::{self, Packet};
use tftpool::{Client, ClientError, Source};

/// A port that no socket has. Its host answers each request by "port unreachable".
fn closed() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.4:0").expect("a free port");
    socket.local_addr().expect("bound")
}

fn get(client: &Client) -> Result<(u64, u16), ClientError> {
    let summary = client.get_to("file", Vec::new());
    summary.map(|it| (it.bytes, it.blksize))
}

/// The first request to come, and the socket that answers it.
fn first_request(socket: &UdpSocket) -> (tftpool::Options, SocketAddr) {
    let mut buffer = [0; 600];
    let (length, peer) = socket.recv_from(&mut buffer).expect("a request");
    match wire::parse(&buffer[..length]) {
        Ok(Packet::Request(request)) => (request.options, peer),
        other => panic!("no request: {other:?}"),
    }
}

/// The upload starts first, then the router is switched on. Its loader listens in the second half
/// of the patience, and is asked for options all the same: the silence before had another cause.
#[test]
fn a_server_whose_port_opens_late_gets_options() {
    let address = closed();
    let interval = Duration::from_millis(100);
    let client = Client::new(address).timeout(interval);
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| {
            // The first half of 14 intervals has gone by.
            std::thread::park_timeout(8 * interval);
            let socket = UdpSocket::bind(address).expect("the port is free");
            let (options, peer) = first_request(&socket);
            assert!(!options.is_empty(), "a request without options");
            socket.send_to(b"\0\x04\0\0", peer).expect("sent");
            let mut block = [0; 600];
            let (length, peer) = socket.recv_from(&mut block).expect("a block");
            socket.send_to(b"\0\x04\0\x01", peer).expect("sent");
            assert_eq!(block[4..length], pattern(100));
        });
        let result = client.put("file", Source::bytes(pattern(100)));
        assert_eq!(result.map(|it| it.bytes), Ok(100));
        loader.join().expect("the loader went to its end");
    });
}

/// 14 intervals by default, whether the port is closed or the server is silent; more with more
/// retransmissions.
#[test]
fn the_patience_of_a_first_request_is_kept_whatever_the_network_says() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().expect("bound");
    let interval = Duration::from_millis(20);
    for (retries, options, intervals) in [
        (5, true, 14),
        (5, false, 19),
        (0, true, 2),
        (1, true, 2),
        (15, true, 54),
    ] {
        for (address, wanted) in [
            (closed(), ClientError::Unreachable),
            (silent, ClientError::Unanswered),
        ] {
            let client = hasty(address).retries(retries).options(options);
            let begun = now();
            assert_eq!(get(&client), Err(wanted));
            let took = now() - begun;
            assert!(took >= interval * intervals, "{retries}: {took:?}");
        }
    }
}

/// Requests with options, and without.
fn requests(retries: u32) -> (usize, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let client = hasty(socket.local_addr().expect("bound")).retries(retries);
    assert_eq!(get(&client), Err(ClientError::Unanswered));
    socket.set_nonblocking(true).expect("a socket");
    let mut buffer = [0; 600];
    let (mut with, mut without) = (0, 0);
    while let Ok(length) = socket.recv(&mut buffer) {
        match wire::parse(&buffer[..length]) {
            Ok(Packet::Request(request)) if request.options.is_empty() => without += 1,
            Ok(Packet::Request(_)) => with += 1,
            other => panic!("no request: {other:?}"),
        }
    }
    (with, without)
}

#[test]
fn both_attempts_share_the_retransmissions() {
    assert_eq!(requests(0), (1, 1), "each attempt needs a request");
    assert_eq!(requests(1), (1, 1));
    assert_eq!(requests(4), (3, 2));
    assert_eq!(requests(5), (3, 3));
}

/// `localhost` often has an IPv6 address at which no server listens.
#[test]
fn a_closed_port_is_not_waited_for_while_another_address_is_left() {
    let wanted = pattern(5000);
    let server = serve(shelf([("file", wanted)]));
    let addresses = [closed(), closed(), server.local_addr()];
    let client = Client::new(&addresses[..]).timeout(Duration::from_secs(255));
    assert_eq!(get(&client), Ok((5000, 1428)));
    // The first one comes back, and is asked again.
    let late = closed();
    let client = Client::new(&[late, closed()][..]).timeout(Duration::from_millis(50));
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| {
            std::thread::park_timeout(Duration::from_millis(100));
            let socket = UdpSocket::bind(late).expect("the port is free");
            let (_, peer) = first_request(&socket);
            socket.send_to(b"\0\x03\0\x01all", peer).expect("sent");
        });
        assert_eq!(get(&client), Ok((3, 512)));
        loader.join().expect("the loader went to its end");
    });
}

/// What was heard first is told in the end, not the silence or the limit of time behind it.
#[test]
fn a_closed_port_is_said_although_the_time_was_over() {
    let client = Client::new(closed()).max_time(Duration::from_millis(200));
    assert_eq!(get(&client), Err(ClientError::Unreachable));
    let address = closed();
    let client = Client::new(address).timeout(Duration::from_millis(100));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Behind the last request of the first attempt, before the first of the second one.
            std::thread::park_timeout(Duration::from_millis(500));
            let socket = UdpSocket::bind(address).expect("the port is free");
            let _ = first_request(&socket);
            // The port stays open, and silent, until the client has ended.
            std::thread::park_timeout(Duration::from_millis(1500));
        });
        assert_eq!(get(&client), Err(ClientError::Unreachable));
    });
}

/// The port opens before the last request of the first attempt. From then on the silence is about
/// options.
#[test]
fn a_server_that_opens_late_and_is_silent_to_options_is_asked_without() {
    let address = closed();
    let client = Client::new(address).timeout(Duration::from_millis(100));
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| {
            std::thread::park_timeout(Duration::from_millis(150));
            let socket = UdpSocket::bind(address).expect("the port is free");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let peer = loop {
                let (options, peer) = first_request(&socket);
                if options.is_empty() {
                    break peer;
                }
            };
            socket.send_to(b"\0\x03\0\x01all", peer).expect("sent");
        });
        assert_eq!(get(&client), Ok((3, 512)));
        loader.join().expect("the loader went to its end");
    });
}

/// An address that no interface has yet is waited for, and asked from then on. Nothing else could
/// make it appear here.
#[test]
fn an_address_of_ours_that_is_not_there_is_waited_for() {
    let server = serve(shelf([("file", pattern(9))]));
    let interval = Duration::from_millis(20);
    let client = Client::new(server.local_addr()).timeout(interval);
    let begun = now();
    let result = get(&client.bind(Ipv4Addr::new(198, 51, 100, 7).into()));
    let Err(ClientError::Network(words)) = result else {
        panic!("{result:?}");
    };
    assert!(words.to_string().contains("cannot assign"), "{words}");
    assert!(now() - begun >= 14 * interval);
}

#[test]
fn a_link_local_address_without_an_interface_asks_for_it() {
    let at = |address: &str| address.parse::<SocketAddr>().expect("an address");
    let own = "fe80::2".parse().expect("an address");
    for client in [
        Client::new(at("[fe80::1]:69")),
        Client::new(at("[::1]:69")).bind(own),
    ] {
        let begun = now();
        let result = get(&client.timeout(Duration::from_secs(255)));
        assert!(now() - begun < Duration::from_secs(255), "it waited");
        let Err(ClientError::Network(words)) = result else {
            panic!("{result:?}");
        };
        assert!(words.to_string().ends_with("%eth0"), "{words}");
    }
}

/// A device writes its flash before it acknowledges the last block: longer than any other silence
/// may last.
#[test]
fn the_last_ack_of_an_upload_may_take_its_time() {
    let write_time = Duration::from_secs(1);
    let upload = |silence: Duration| {
        let open = Mutex::new(None);
        play(
            |port| {
                // The socket stays open until the client has ended.
                let mut open = open.lock().expect("sound");
                let call = open.insert(port.call());
                call.send(b"\0\x04\0\0");
                assert_eq!(call.recv()[..4], [0, 3, 0, 1]);
                call.send(b"\0\x04\0\x01");
                let begun = now();
                while now() - begun < write_time {
                    assert_eq!(call.recv()[..4], [0, 3, 0, 2]);
                    if silence < write_time {
                        return; // the client gives up sooner
                    }
                }
                call.send(b"\0\x04\0\x02");
            },
            |at| {
                let client = hasty(at).retries(1).final_timeout(silence);
                client.put("file", Source::bytes(pattern(600)))
            },
        )
        .map(|it| it.bytes)
    };
    assert_eq!(upload(10 * write_time), Ok(600));
    assert_eq!(upload(Duration::ZERO), Err(ClientError::Unconfirmed));
}

/// The server has all of the file, or all but a part: it is silent, or its port is closed.
#[test]
fn behind_the_last_block_the_client_says_that_the_file_may_be_stored() {
    for (bytes, stays_open, failure) in [
        (600, true, ClientError::Unconfirmed),
        (600, false, ClientError::Unconfirmed),
        (5000, true, ClientError::Silent),
        (5000, false, ClientError::Unreachable),
    ] {
        let open = Mutex::new(None);
        let result = play(
            |port| {
                let call = port.call();
                call.send(b"\0\x04\0\0");
                assert_eq!(call.recv()[..4], [0, 3, 0, 1]);
                call.send(b"\0\x04\0\x01");
                assert_eq!(call.recv()[..4], [0, 3, 0, 2]);
                if stays_open {
                    *open.lock().expect("sound") = Some(call);
                }
            },
            |at| {
                let client = hasty(at).retries(1).final_timeout(Duration::ZERO);
                client.put("file", Source::bytes(pattern(bytes)))
            },
        );
        assert_eq!(result.err(), Some(failure), "{bytes}, {stays_open}");
    }
    let words = ClientError::Unconfirmed.to_string();
    assert!(words.contains("may be stored"), "{words}");
}

/// What the receive buffer cannot hold would be lost at the end of each window.
#[test]
fn no_window_is_asked_for_that_the_receive_buffer_cannot_hold() {
    for (blksize, windowsize) in [(65464, 32767), (8, 32767), (1428, 16), (512, 2)] {
        let result = play(
            |port| {
                let call = port.call();
                let asked = call.options();
                let window = asked.get(tftpool::OptionName::Windowsize).unwrap_or(1);
                let fits = match blksize {
                    // No system lets a program have 2 GiB.
                    65464 => (1..=256).contains(&window),
                    8 => (100..32767).contains(&window),
                    _ => window == windowsize,
                };
                assert!(fits, "{asked}");
                call.error(1, "no");
            },
            |at| {
                let client = Client::new(at).blksize(blksize);
                get(&client.windowsize(windowsize as u16))
            },
        );
        assert!(result.is_err());
    }
    // What the server's buffer holds is for the server to say.
    let result = play(
        |port| {
            let call = port.call();
            let asked = call.options();
            assert!(asked.to_string().ends_with("windowsize=32767"), "{asked}");
            call.error(1, "no");
        },
        |at| {
            let client = Client::new(at).blksize(65464).windowsize(32767);
            client.put("file", Source::bytes(pattern(9)))
        },
    );
    assert!(result.is_err());
}

/// Many devices count blocks with 16 bits and stop there.
#[test]
fn a_peer_that_stops_at_block_65535_is_said_to_be_unable_to_go_on() {
    let stops_at = |last: u32, blocks: usize| {
        let open = Mutex::new(None);
        play(
            |port| {
                // The socket stays open until the client has ended.
                let mut open = open.lock().expect("sound");
                let call = open.insert(port.call_without_options());
                call.send(b"\0\x04\0\0");
                for block in 1..=last {
                    let block = block as u16;
                    // A block that comes again is acknowledged again.
                    while call.recv()[2..4] != block.to_be_bytes() {}
                    call.send(&wire::ack(block));
                }
            },
            |at| {
                let client = hasty(at).options(false).retries(1);
                let client = client.final_timeout(Duration::ZERO);
                client.put("file", Source::bytes(vec![7; 512 * blocks]))
            },
        )
        .map(|it| it.bytes)
    };
    assert_eq!(stops_at(65535, 65540), Err(ClientError::SilentAtRollover));
    assert_eq!(stops_at(100, 200), Err(ClientError::Silent));
    assert_eq!(
        stops_at(65540, 65600),
        Err(ClientError::Silent),
        "it goes on"
    );
    let words = ClientError::SilentAtRollover.to_string();
    assert!(words.contains("65,535 blocks"), "{words}");
}

/// What the network said once explains no silence after the server was heard.
#[test]
fn an_old_error_of_the_network_is_forgotten_once_the_server_answers() {
    let address = closed();
    let client = Client::new(address).timeout(Duration::from_millis(50));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::park_timeout(Duration::from_millis(100));
            let socket = UdpSocket::bind(address).expect("the port is free");
            let (_, peer) = first_request(&socket);
            socket.send_to(b"\0\x04\0\0", peer).expect("sent");
            let _ = socket.recv(&mut [0; 600]).expect("a block");
            socket.send_to(b"\0\x04\0\x01", peer).expect("sent");
            // The port stays open, and silent, until the client has ended.
            std::thread::park_timeout(Duration::from_secs(2));
        });
        let client = client.final_timeout(Duration::ZERO);
        let result = client.put("file", Source::bytes(pattern(600)));
        assert_eq!(result.map(|it| it.bytes), Err(ClientError::Unconfirmed));
    });
}
