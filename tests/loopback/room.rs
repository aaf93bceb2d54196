//! Which transfers make room for others, and for what: places, ports, quotas.

use crate::rig::*;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use tftpool::unversioned::admission::patience;
use tftpool::unversioned::limits::HALF_OPEN_CHANCE;
use tftpool::{
    Dir, DropReason, Event, Events, Server, ServerConfig, Source, Stop, TransferError, WriteMode,
    store_fn,
};

fn limited(change: impl FnOnce(&mut ServerConfig)) -> (Server, Events) {
    let server = start(calmly(builder(shelf([("file", pattern(2000))]))).limits(change));
    let events = server.events();
    (server, events)
}

/// A block takes no longer from a server to its client here, unless this machine halts.
const MOMENT: Duration = Duration::from_millis(500);

/// A client at 127.0.0.`host`.
fn at(host: u8, server: &Server) -> Client {
    Client::at(([127, 0, 0, host], 0).into(), server.local_addr())
}

/// Begins a transfer that is left at block 2.
fn established(mut client: Client, events: &mut Events) -> Client {
    insist(&mut client, events, "file", &[]);
    client.data(1);
    client.ack(1);
    client.data(2);
    client
}

/// Begins a transfer that is left at block 1.
fn half_open(mut client: Client) -> Client {
    client.ask("file", &[]);
    client.data(1);
    client
}

/// Asks until the request is admitted, and returns the address of the transfer that was evicted for
/// it.
fn admitted_for(client: &mut Client, events: &mut Events) -> SocketAddr {
    let own = client.socket.local_addr().expect("an address");
    let mut evicted = None;
    loop {
        client.ask("file", &[]);
        let is_admitted = wait_for(events, |event| match event {
            Event::Request { peer, .. } if *peer == own => Some(true),
            Event::Dropped { peer, .. } if *peer == own => Some(false),
            Event::Failed(summary, TransferError::Evicted) => {
                evicted = Some(summary.local);
                None
            }
            _ => None,
        });
        if is_admitted {
            return evicted.expect("one that made room");
        }
        pass_for_no_copy();
    }
}

/// Asks until a block comes, however often the server is busy; the port that it comes from.
fn served_at(client: &mut Client, events: &mut Events) -> u16 {
    let end = now() + PATIENCE;
    loop {
        insist(client, events, "file", &[]);
        match client.next() {
            Reply::Data(1, _) => return client.tid.expect("a TID").port(),
            Reply::Error(0, text) if text == "server is busy" && now() < end => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn complete_uploads_give_their_ports_to_the_next_request() {
    let scratch = Scratch::new();
    scratch.file("file", &pattern(700));
    let store = Dir::builder(scratch.path()).uploads(WriteMode::Create);
    let ports = free_ports(4);
    let server = start(
        calmly(builder(store.open().expect("a directory")))
            .limits(|limits| limits.ports = Some(ports.clone())),
    );
    let mut events = server.events();
    let mut uploads = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let mut client = Client::new(server.local_addr());
        client.offer(name, &[]);
        client.acked(0);
        client.send(1, b"octets");
        client.acked(1);
        completed(&mut events);
        uploads.push(client);
    }
    // All four ports are held by transfers that only wait to repeat their last ACK. The next
    // request has one at once.
    let mut reader = Client::new(server.local_addr());
    insist(&mut reader, &mut events, "file", &[]);
    assert_eq!(reader.data(1), pattern(512));
    let tid = reader.tid;
    assert_eq!(tid, uploads[0].tid, "of the one that was complete first");
    assert!(reader.rest(1, 512).is_ok());
    assert_eq!(server.stats().refused, 0);
}

/// One of two places or ports is held by a transfer that goes on, the other one by an upload. A
/// request follows the last ACK of that upload at once.
#[test]
fn a_request_right_behind_the_last_ack_of_an_upload_is_never_dropped() {
    let places: fn(&mut ServerConfig) = |limits| limits.max_transfers = 2;
    let ports: fn(&mut ServerConfig) = |limits| limits.ports = Some(free_ports(2));
    for change in [places, ports] {
        let scratch = Scratch::new();
        scratch.file("file", &pattern(1024));
        let store = Dir::builder(scratch.path()).uploads(WriteMode::Overwrite);
        let store = store.open().expect("a directory");
        let server = start(calmly(builder(store)).limits(change));
        let mut events = server.events();
        let mut running = established(at(1, &server), &mut events);
        for round in 0..100 {
            let mut uploader = at(2, &server);
            offered(&mut uploader, &mut events);
            let mut reader = at(3 + round, &server);
            uploader.send(1, b"bytes");
            uploader.acked(1);
            reader.ask("file", &[]);
            assert_eq!(reader.data(1), pattern(512));
            reader.abort(0);
        }
        assert!(running.rest(2, 512).is_ok());
        assert_eq!(server.stats().refused, 0);
    }
}

/// Offers a file until the server takes it: the transfer before it may not be over yet.
fn offered(client: &mut Client, events: &mut Events) {
    let own = client.socket.local_addr().expect("an address");
    loop {
        client.offer("upload", &[]);
        let is_admitted = wait_for(events, |event| match event {
            Event::Request { peer, .. } if *peer == own => Some(true),
            Event::Dropped { peer, .. } if *peer == own => Some(false),
            _ => None,
        });
        if is_admitted {
            return client.acked(0);
        }
    }
}

/// Forged requests, or those of a ROM that was reset.
#[test]
fn a_client_that_is_over_a_quota_evicts_its_own_half_open_transfer() {
    let per_client: fn(&mut ServerConfig) = |limits| limits.max_transfers_per_client = Some(2);
    let per_half_open: fn(&mut ServerConfig) = |limits| limits.max_half_open_per_client = Some(2);
    let network: fn(&mut ServerConfig) = |limits| limits.max_half_open_per_network = Some(3);
    for change in [per_client, per_half_open, network] {
        let (server, mut events) = limited(change);
        // The oldest of all belongs to another network.
        let _elsewhere = half_open(Client::at(([127, 0, 9, 1], 0).into(), server.local_addr()));
        let silent = [0, 1].map(|_| half_open(at(5, &server)));
        let _neighbour = half_open(at(6, &server));
        let mut honest = at(5, &server);
        let evicted = admitted_for(&mut honest, &mut events);
        assert_eq!(Some(evicted), silent[0].tid);
        assert_eq!(honest.data(1), pattern(512));
        assert!(honest.rest(1, 512).is_ok());
        assert_eq!(server.stats().failed, 1);
    }
}

#[test]
fn a_client_that_is_over_its_quota_keeps_its_established_transfers() {
    let (server, mut events) = limited(|limits| limits.max_transfers_per_client = Some(2));
    let mut running = [0, 1].map(|_| established(at(5, &server), &mut events));
    let begun = now();
    let mut third = at(5, &server);
    // Both have acknowledged one block, and may be silent for two seconds.
    while now() < begun + HALF_OPEN_CHANCE {
        third.ask("file", &[]);
        let reason = wait_for(&mut events, |event| match event {
            Event::Dropped { reason, .. } => Some(*reason),
            Event::Failed(..) => panic!("{event:?}"),
            _ => None,
        });
        assert_eq!(reason, DropReason::ClientFull);
        pass_for_no_copy();
    }
    for client in &mut running {
        assert!(client.rest(2, 512).is_ok());
    }
}

/// Two packets buy a place for two seconds, where places are short.
#[test]
fn transfers_that_were_acknowledged_once_and_are_silent_make_room() {
    let (server, mut events) = limited(|limits| limits.max_transfers = 3);
    let begun = now();
    let silent = [5, 7, 8].map(|host| established(at(host, &server), &mut events));
    let mut honest = at(6, &server);
    let evicted = admitted_for(&mut honest, &mut events);
    assert!(now() >= begun + 2 * HALF_OPEN_CHANCE);
    assert!(silent.iter().any(|client| client.tid == Some(evicted)));
    assert!(honest.data(1) == pattern(512) && honest.rest(1, 512).is_ok());
}

#[test]
fn a_transfer_that_has_got_further_may_be_silent_for_longer() {
    let (server, mut events) = limited(|limits| limits.max_transfers = 1);
    let mut board = established(at(5, &server), &mut events);
    for block in 2..=3 {
        board.ack(block);
        board.data(block + 1);
    }
    let begun = now();
    let mut honest = at(6, &server);
    let evicted = admitted_for(&mut honest, &mut events);
    assert!(now() + MOMENT >= begun + patience(3));
    assert_eq!(Some(evicted), board.tid);
}

#[test]
fn one_address_leaves_places_to_others_and_a_crowd_behind_it_goes_on() {
    let (server, mut events) = limited(|limits| limits.max_transfers = 48);
    let mut lab: Vec<_> = (0..45)
        .map(|_| established(at(5, &server), &mut events))
        .collect();
    let mut more = at(5, &server);
    more.ask("file", &[]);
    let reason = wait_for(&mut events, |event| match event {
        Event::Dropped { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, DropReason::Full);
    let mut others = [6, 7, 8].map(|host| at(host, &server));
    for other in &mut others {
        assert_eq!(other.get("file"), Ok(pattern(2000)));
    }
    // Whoever goes on is not evicted, and whoever ends leaves its place to the next.
    assert!(lab.iter_mut().all(|board| board.rest(2, 512).is_ok()));
    insist(&mut more, &mut events, "file", &[]);
    assert!(more.data(1) == pattern(512) && more.rest(1, 512).is_ok());
    assert_eq!(server.stats().failed, 0);
}

#[test]
fn a_port_of_the_range_that_another_program_holds_is_skipped_and_used_later() {
    let ports = free_ports(2);
    let (server, mut events) = limited(|limits| limits.ports = Some(ports.clone()));
    let holder = UdpSocket::bind(("127.0.0.1", *ports.start())).expect("a free port");
    let mut first = at(1, &server);
    assert_eq!(served_at(&mut first, &mut events), *ports.end());
    first.ack(1);
    first.data(2);
    drop(holder);
    let mut second = at(2, &server);
    assert_eq!(served_at(&mut second, &mut events), *ports.start());
    for (client, block) in [(&mut first, 2), (&mut second, 1)] {
        assert!(client.rest(block, 512).is_ok());
    }
    completed(&mut events);
}

/// The port belongs to a socket that a worker has, inside a store that has not returned. It is not
/// leased twice, and it comes back.
#[test]
fn the_port_of_a_request_that_was_given_up_comes_back_with_its_socket() {
    let gate = Gate::default();
    let inside = gate.clone();
    let store = store_fn(move |request| {
        if request.name == b"hangs" {
            inside.pass();
        }
        Ok(Source::bytes(pattern(2000)))
    });
    let ports = free_ports(1);
    let server = start(calmly(builder(store)).limits(|limits| {
        limits.ports = Some(ports.clone());
        limits.workers = 4;
        limits.store_deadline = Duration::from_secs(1);
    }));
    let mut events = server.events();
    let mut hangs = at(1, &server);
    hangs.ask("hangs", &[]);
    gate.wait_for(1);
    assert_eq!(hangs.error(), (0, "server is busy".into()));
    let mut waits = at(2, &server);
    waits.ask("file", &[]);
    assert_eq!(waits.error(), (0, "server is busy".into()));
    gate.open();
    let mut next = at(3, &server);
    assert_eq!(served_at(&mut next, &mut events), *ports.start());
    assert!(next.rest(1, 512).is_ok());
    let mut last = at(3, &server);
    assert_eq!(served_at(&mut last, &mut events), *ports.start());
}

#[test]
fn requests_that_wait_for_a_port_are_refused_when_the_server_stops() {
    let ports = free_ports(1);
    let (server, mut events) = limited(|limits| limits.ports = Some(ports));
    let running = established(at(1, &server), &mut events);
    let mut waits = at(2, &server);
    insist(&mut waits, &mut events, "file", &[]);
    let address = server.local_addr();
    server.stop(Stop::Now);
    let stats = server.join().expect("an end");
    assert_eq!((stats.refused, stats.failed), (1, 1));
    assert_eq!(stats.active, 0);
    assert!(matches!(running.at_hand(), Some(Reply::Error(0, _))));
    // From the listening port, since it has no other.
    assert_eq!(waits.error(), (0, "server is stopping".into()));
    assert_eq!(waits.tid, Some(address));
}

/// A drain keeps the listening socket for as long as a request may have to be refused from it.
#[test]
fn a_request_that_waits_for_a_port_during_a_drain_gets_its_error_and_the_port_is_free_afterwards() {
    let ports = free_ports(1);
    let (server, mut events) = limited(|limits| limits.ports = Some(ports));
    let mut running = established(at(1, &server), &mut events);
    let mut waits = at(2, &server);
    insist(&mut waits, &mut events, "file", &[]);
    let address = server.local_addr();
    server.stop(Stop::Drain(Duration::MAX));
    assert_eq!(waits.error(), (0, "server is busy".into()));
    assert_eq!(waits.tid, Some(address));
    let end = now() + PATIENCE;
    while UdpSocket::bind(address).is_err() {
        assert!(now() < end, "the listening socket stays open");
        std::thread::yield_now();
    }
    assert!(running.rest(2, 512).is_ok());
    let stats = server.join().expect("an end");
    assert_eq!((stats.refused, stats.completed), (1, 1));
}
