//! Replies come from the address that was asked, whatever the server is bound to.

use crate::rig::*;
use std::net::{SocketAddr, UdpSocket};
use tftpool::{Event, Failure, Server};

fn store() -> impl tftpool::Store {
    shelf([("file", pattern(1000))])
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Asks for a file, a missing one, and to write: a transfer's socket answers the first two, the
/// listening one the third.
fn answers_come_from(asked: SocketAddr) {
    let mut client = Client::new(asked);
    assert_eq!(client.get("file"), Ok(pattern(1000)));
    assert_eq!(client.tid.map(|tid| tid.ip()), Some(asked.ip()));
    assert_eq!(client.get("missing").map_err(|told| told.0), Err(1));
    assert_eq!(client.tid.map(|tid| tid.ip()), Some(asked.ip()));
    client.tid = None;
    client.shout(b"\0\x02file\0octet\0");
    assert_eq!(client.error().0, 2);
    assert_eq!(client.tid, Some(asked));
}

fn has_ipv6() -> bool {
    let found = UdpSocket::bind("[::1]:0").is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "no IPv6 here");
        eprintln!("skipped: no IPv6 here");
    }
    found
}

#[test]
fn a_wildcard_server_answers_from_the_address_that_was_asked() {
    let server = start(calmly(Server::builder(store()).bind(address("0.0.0.0:0"))));
    for host in [1, 5, 77] {
        answers_come_from(([127, 0, 0, host], server.local_addr().port()).into());
    }
}

#[test]
fn ipv6_is_served_too() {
    if has_ipv6() {
        for bound in ["[::1]:0", "[::]:0"] {
            let server = start(calmly(Server::builder(store()).bind(address(bound))));
            answers_come_from((std::net::Ipv6Addr::LOCALHOST, server.local_addr().port()).into());
        }
    }
}

#[test]
fn every_address_of_a_server_with_several_is_served() {
    let server = start(calmly(
        builder(store())
            .bind(address("127.0.0.3:0"))
            .bind(address("127.0.0.3:0")),
    ));
    assert_eq!(server.local_addrs().len(), 3);
    assert_eq!(server.local_addrs()[0], server.local_addr());
    server
        .local_addrs()
        .iter()
        .for_each(|asked| answers_come_from(*asked));
}

#[test]
fn bind_any_means_both_families_at_one_port() {
    let server = start(calmly(Server::builder(store()).bind_any(0)));
    let port = server.local_addr().port();
    answers_come_from(([127, 0, 0, 1], port).into());
    if has_ipv6() {
        answers_come_from((std::net::Ipv6Addr::LOCALHOST, port).into());
    }
}

#[test]
fn a_socket_may_be_handed_in() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let (asked, copy) = (
        socket.local_addr().expect("an address"),
        socket.try_clone().expect("a copy"),
    );
    let server = start(calmly(Server::builder(store()).socket(socket)));
    assert_eq!(server.local_addr(), asked);
    answers_come_from(asked);
    // Whoever keeps a copy keeps the port open, also while the server drains.
    let mut client = Client::new(asked);
    client.ask("file", &[]);
    client.data(1);
    server.stop(tftpool::Stop::Drain(PATIENCE));
    let end = now() + PATIENCE;
    let stranger = Client::new(asked);
    copy.set_nonblocking(true).expect("a socket");
    loop {
        // Taken by the server until it stops listening, and by this end of the socket then.
        stranger.shout(&rrq("x", "octet", &[]));
        if copy.recv(&mut [0; 100]).is_ok() {
            break;
        }
        assert!(now() < end, "it still listens");
    }
    assert!(client.rest(1, 512).is_ok());
    server.join().expect("a server that stops in peace");
}

#[test]
fn two_servers_live_in_one_process() {
    let (one, two) = (
        calm(shelf([("file", pattern(600))])),
        calm(shelf([("file", pattern(1700))])),
    );
    let (mut from_one, mut from_two) =
        (Client::new(one.local_addr()), Client::new(two.local_addr()));
    from_one.ask("file", &[]);
    from_two.ask("file", &[]);
    assert_eq!(from_one.data(1), from_two.data(1));
    assert_eq!(from_two.rest(1, 512).map(|rest| rest.len()), Ok(1188));
    drop(two);
    assert_eq!(from_one.rest(1, 512).map(|rest| rest.len()), Ok(88));
    assert_eq!(one.stats().requests, 1);
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let server = calm(store());
    let second = Server::builder(store()).bind(server.local_addr()).start();
    assert!(
        matches!(second, Err(tftpool::Error::Bind { address, .. }) if address == server.local_addr())
    );
}

#[test]
fn every_transfer_has_a_port_of_its_own_that_follows_no_rule() {
    let server = calm(store());
    let mut clients: Vec<_> = (0..24).map(|_| Client::new(server.local_addr())).collect();
    let ports: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            client.ask("file", &[]);
            client.data(1);
            client.tid.expect("a TID").port()
        })
        .collect();
    let mut different = ports.clone();
    different.push(server.local_addr().port());
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 25, "{ports:?}");
    let mut steps: Vec<_> = ports
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    steps.sort_unstable();
    steps.dedup();
    assert!(steps.len() > 12, "{ports:?}");
}

/// Runs on a thread of its own, in a network of its own whose only link, the loopback, carries
/// packets of `mtu` octets. Threads that are started inside belong to that network too.
fn in_network_with(mtu: u16, run: impl FnOnce() + Send + 'static) {
    let inside = move || {
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: no network of our own: {error}");
            return;
        }
        let set = format!("link set lo mtu {mtu} up");
        let done = std::process::Command::new("ip")
            .args(set.split(' '))
            .status();
        if done.is_ok_and(|status| status.success()) {
            run();
        } else {
            assert!(std::env::var_os("CI").is_none(), "no ip command");
            eprintln!("skipped: no ip command");
        }
    };
    std::thread::spawn(inside).join().expect("a test that ends");
}

#[test]
fn a_block_fits_the_route_unless_told_otherwise() {
    in_network_with(1400, || {
        for (bound, room) in [("127.0.0.1:0", "1368"), ("[::1]:0", "1348")] {
            if bound.starts_with('[') && !has_ipv6() {
                continue;
            }
            let bound = address(bound);
            let fitting = start(calmly(Server::builder(store()).bind(bound)));
            let mut client = Client::new(fitting.local_addr());
            for (asked, size, granted) in [
                ("blksize", "1428", room),
                ("blksize", "65464", room),
                ("blksize", "1300", "1300"),
                ("blksize", "512", "512"),
                ("blksize2", "8192", "1024"),
            ] {
                client.ask("file", &[(asked, size)]);
                assert_eq!(client.oack(), format!("{asked}={granted}"));
                let granted = granted.parse().expect("a number");
                assert_eq!(client.rest(0, granted), Ok(pattern(1000)));
            }
            // Told otherwise, the datagram travels in fragments.
            let told = start(
                calmly(Server::builder(shelf([("file", pattern(3000))])).bind(bound))
                    .limits(|limits| limits.fit_route = false),
            );
            let mut client = Client::new(told.local_addr());
            client.ask("file", &[("blksize", "2500")]);
            assert_eq!(client.oack(), "blksize=2500");
            assert_eq!(client.rest(0, 2500), Ok(pattern(3000)));
        }
    });
}

/// What is forged may come from where nothing leads to. Such a request holds no place, and nobody
/// is told.
#[test]
fn a_request_without_a_way_back_is_dropped_at_once() {
    in_network_with(1500, || {
        let address = |change: &str| {
            let arguments = ["address", change, "192.0.2.9/32", "dev", "lo"];
            let done = std::process::Command::new("ip").args(arguments).status();
            assert!(done.expect("an ip command").success());
        };
        let listening = calmly(builder(store())).listen().expect("a server");
        address("add");
        let forged = Client::at(([192, 0, 2, 9], 0).into(), listening.local_addrs()[0]);
        forged.shout(&rrq("file", "octet", &[]));
        address("del");
        let server = listening.start().expect("a server");
        let mut events = server.events();
        // The server may have been faster than this reader.
        if server.stats().failed == 0 {
            let failure = wait_for(&mut events, |event| match event {
                Event::Failed(_, failure) => Some(failure.clone()),
                Event::Refused { .. } => panic!("it was not dropped: {event:?}"),
                _ => None,
            });
            assert_eq!(failure, Failure::NoWayBack);
        }
        let stats = server.stats();
        assert_eq!((stats.failed, stats.active, stats.refused), (1, 0, 0));
        assert_eq!(fetch(server.local_addr(), "file", &[]), Ok(pattern(1000)));
    });
}
