//! Replies come from the address that was asked, whatever the server is bound to.

use crate::rig::*;
use std::net::{SocketAddr, UdpSocket};
use tftpool::Server;

fn store() -> impl tftpool::Store {
    shelf([("file", pattern(1000))])
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Asks for a file, a missing one, and to write: a transfer's socket answers the first two, the listening one the third.
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
