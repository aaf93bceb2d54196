//! Access rules, as a denied client and an embedder see them.

use crate::rig::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tftpool::{AccessRules, DropReason, Event, Source, store_fn};

/// Denies the address 127.0.0.2 and no other.
fn rules() -> AccessRules {
    AccessRules::default().deny("127.0.0.2").expect("a rule")
}

/// A client of the address 127.0.0.2.
fn denied_client() -> std::net::UdpSocket {
    let socket = std::net::UdpSocket::bind("127.0.0.2:0").expect("an address of loopback");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

#[test]
fn an_ignored_client_gets_nothing_and_the_store_is_not_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let store = store_fn(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Source::bytes(pattern(100)))
    });
    let rules = rules();
    let server = start(calmly(builder(store)).access(move |request| rules.decide(request)));
    let mut events = server.events();
    let client = denied_client();
    for request in [rrq("file", "octet", &[]), wrq("file", "octet", &[])] {
        client.send_to(&request, server.local_addr()).expect("sent");
        let reason = wait_for(&mut events, |event| match event {
            Event::Dropped { reason, .. } => Some(*reason),
            Event::Request { .. } => panic!("it was admitted"),
            _ => None,
        });
        assert_eq!(reason, DropReason::Denied);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!((server.stats().denied, server.stats().dropped), (2, 2));
    assert_eq!(server.stats().requests, 0);
    // Another client is served meanwhile, and the denied one has still heard nothing.
    let mut other = Client::new(server.local_addr());
    other.ask("file", &[]);
    other.data(1);
    client.set_nonblocking(true).expect("a socket");
    assert!(client.recv(&mut [0; 600]).is_err());
}

#[test]
fn a_refused_client_gets_error_2() {
    let rules = rules().refuse(true);
    let server = calmly(builder(shelf([("file", pattern(100))])));
    let server = start(server.access(move |request| rules.decide(request)));
    let client = denied_client();
    let request = rrq("file", "octet", &[]);
    client.send_to(&request, server.local_addr()).expect("sent");
    let mut answer = [0; 600];
    let length = client.recv(&mut answer).expect("an answer");
    assert_eq!(&answer[..length], b"\0\x05\0\x02access violation\0");
    assert_eq!(server.stats().requests, 0);
}
