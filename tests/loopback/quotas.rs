//! How many transfers there may be: in all, of one client, unproven, and by the range of ports.

use crate::rig::*;
use std::time::Duration;
use tftpool::{DropReason, Event, Events, Failure, Limits, Server, Source, store_fn};

fn limited(change: impl FnOnce(&mut Limits)) -> (Server, Events) {
    let server = start(calmly(builder(shelf([("file", pattern(2000))]))).limits(change));
    let events = server.events();
    (server, events)
}

fn dropped(events: &mut Events, wanted: DropReason) {
    let reason = wait_for(events, |event| match event {
        Event::Dropped { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, wanted);
}

/// Begins a transfer and proves its address.
fn proven(server: &Server) -> Client {
    let mut client = Client::new(server.local_addr());
    begin(&mut client);
    client
}

fn begin(client: &mut Client) {
    client.ask("file", &[]);
    client.data(1);
    client.ack(1);
    client.data(2);
}

/// The same at 127.0.0.`host`, however often there is no room.
fn proven_at_last(host: u8, server: &Server, events: &mut Events) -> Client {
    let mut client = Client::at(([127, 0, 0, host], 0).into(), server.local_addr());
    insist(&mut client, events, "file", &[]);
    client.data(1);
    client.ack(1);
    client.data(2);
    client
}

#[test]
fn no_more_transfers_than_there_may_be() {
    let (server, mut events) =
        limited(|limits| (limits.max_transfers, limits.max_unproven) = (2, Some(9)));
    let first = proven_at_last(2, &server, &mut events);
    let mut second = proven_at_last(3, &server, &mut events);
    let mut third = Client::new(server.local_addr());
    third.ask("file", &[]);
    dropped(&mut events, DropReason::Full);
    third.quiet();
    first.abort(3);
    // It is over a little later than its event; until then requests are dropped, and a client asks
    // again.
    failed(&mut events);
    let options = [];
    assert_eq!(
        fetch(server.local_addr(), "file", &options),
        Ok(pattern(2000))
    );
    assert_eq!(second.rest(2, 512).map(|rest| rest.len()), Ok(2000 - 1024));
}

#[test]
fn one_client_may_have_so_many_and_another_as_well() {
    let (server, mut events) = limited(|limits| limits.max_transfers_per_client = Some(2));
    let (_first, _second) = (proven(&server), proven(&server));
    let third = Client::new(server.local_addr());
    third.shout(&rrq("file", "octet", &[]));
    dropped(&mut events, DropReason::ClientFull);
    third.quiet();
    let mut neighbour = Client::at(([127, 0, 0, 2], 0).into(), server.local_addr());
    begin(&mut neighbour);
    assert!(neighbour.rest(2, 512).is_ok());
}

#[test]
fn the_oldest_that_never_answered_makes_room_after_its_chance() {
    let (server, mut events) = limited(|limits| limits.max_unproven = Some(3));
    let begun = now();
    let mut real = proven(&server);
    let mut silent: Vec<_> = (0..3).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut silent[..2] {
        client.ask("file", &[("blksize", "1000")]);
        client.oack();
    }
    // The one that is proven counts until the loop has heard of it: a client asks again.
    insist(&mut silent[2], &mut events, "file", &[("blksize", "1000")]);
    let mut last = Client::new(server.local_addr());
    last.ask("file", &[]);
    if now() - begun < Duration::from_millis(900) {
        dropped(&mut events, DropReason::UnprovenFull);
        last.quiet();
    }
    last.socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a timeout");
    let (summary, failure) = loop {
        match events.try_next() {
            Some(Event::Failed(summary, failure)) => break (summary, failure),
            Some(_) => {}
            None if last.socket.peek_from(&mut [0; 600]).is_err() => {
                last.shout(&rrq("file", "octet", &[]))
            }
            None => {}
        }
        assert!(now() < begun + PATIENCE);
    };
    assert!(now() - begun >= Duration::from_secs(1));
    assert_eq!(
        (Some(summary.local), failure),
        (silent[0].tid, Failure::Evicted),
        "the oldest"
    );
    last.data(1);
    silent[0].quiet(); // it went without a packet
    assert!(silent[1].rest(0, 1000).is_ok(), "the younger one lives");
    assert!(real.rest(2, 512).is_ok());
}

#[test]
fn transfers_stay_in_their_range_of_ports_and_wait_for_one() {
    let ports = free_ports(2);
    let (server, mut events) = limited(|limits| limits.ports = Some(ports.clone()));
    let first = proven_at_last(2, &server, &mut events);
    let second = proven_at_last(3, &server, &mut events);
    for client in [&first, &second] {
        assert!(ports.contains(&client.tid.expect("a TID").port()));
    }
    // Nothing gets free: after a second the request is refused, from the listening port.
    let mut third = Client::new(server.local_addr());
    let begun = now();
    insist(&mut third, &mut events, "file", &[]);
    assert_eq!(third.error(), (0, "server is busy".into()));
    assert!(now() - begun >= Duration::from_secs(1));
    assert_eq!(third.tid, Some(server.local_addr()));
    let refused = wait_for(&mut events, |event| match event {
        Event::Refused {
            id: Some(_), peer, ..
        } => Some(*peer),
        _ => None,
    });
    assert_eq!(refused, third.socket.local_addr().expect("an address"));
    assert_eq!(server.stats().refused, 1);
    // One gets free: the one that waits has it.
    third.ask("file", &[]);
    first.abort(0);
    third.data(1);
    assert_eq!(
        third.tid.map(|tid| tid.port()),
        first.tid.map(|tid| tid.port())
    );
    assert_eq!(server.stats().active, 2);
}

/// A forged request may have asked for the longest interval there is.
const SILENT: [(&str, &str); 1] = [("timeout", "255")];

#[test]
fn those_that_never_answer_have_half_of_a_range_of_ports() {
    let ports = free_ports(4);
    let (server, mut events) = limited(|limits| limits.ports = Some(ports));
    let mut silent: Vec<_> = (0..4).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut silent {
        insist(client, &mut events, "file", &SILENT);
    }
    let stats = server.stats();
    assert_eq!((stats.active, stats.failed), (2, 2));
    let mut honest = proven_at_last(1, &server, &mut events);
    assert!(honest.rest(2, 512).is_ok());
}

#[test]
fn where_ports_run_out_the_oldest_that_never_answered_gives_its_own() {
    let ports = free_ports(4);
    let (server, mut events) = limited(|limits| limits.ports = Some(ports));
    let mut running: Vec<_> = (2..5)
        .map(|host| proven_at_last(host, &server, &mut events))
        .collect();
    let mut silent = Client::at(([127, 0, 0, 5], 0).into(), server.local_addr());
    insist(&mut silent, &mut events, "file", &SILENT);
    silent.oack();
    let mut honest = Client::new(server.local_addr());
    insist(&mut honest, &mut events, "file", &[]);
    let (summary, failure) = failed(&mut events);
    assert_eq!(
        (Some(summary.local), failure),
        (silent.tid, Failure::Evicted)
    );
    assert_eq!(honest.data(1), pattern(512));
    assert_eq!(honest.tid, silent.tid, "the port that it had");
    running.push(honest);
    for (client, block) in running.iter_mut().zip([2, 2, 2, 1]) {
        assert!(client.rest(block, 512).is_ok());
    }
}

#[test]
fn requests_that_wait_for_the_store_make_room_for_newer_ones() {
    let gate = Gate::default();
    let inside = gate.clone();
    let store = store_fn(move |_| {
        inside.pass();
        Ok(Source::bytes(pattern(2000)))
    });
    let server = start(calmly(builder(store)).limits(|limits| {
        (limits.workers, limits.max_unproven) = (1, Some(3));
    }));
    let (mut events, all) = (server.events(), server.events());
    let mut clients: Vec<_> = (0..6).map(|_| Client::new(server.local_addr())).collect();
    insist(&mut clients[0], &mut events, "file", &[]);
    gate.wait_for(1);
    for client in &mut clients[1..] {
        insist(client, &mut events, "file", &[]);
    }
    let stats = server.stats();
    assert_eq!((stats.active, stats.failed), (3, 3));
    gate.open();
    clients[5].data(1);
    assert!(clients[5].rest(1, 512).is_ok());
    server.stop(tftpool::Stop::Now);
    // A call that takes long gives its place to others: which of the older ones had come so far is
    // open.
    let evicted = all.filter_map(|event| match event {
        Event::Failed(summary, Failure::Evicted) => Some(summary.peer),
        _ => None,
    });
    for peer in evicted {
        let own = |client: &&Client| client.socket.local_addr().is_ok_and(|own| own == peer);
        let client = clients.iter().find(own).expect("one of them");
        assert_eq!(client.at_hand(), None, "it went without a packet");
    }
}

#[test]
fn limits_are_checked() {
    let refused = |change: fn(&mut Limits)| builder(shelf([])).limits(change).start().is_err();
    assert!(refused(|limits| limits.workers = 0));
    assert!(refused(
        |limits| limits.store_deadline = Duration::from_millis(999)
    ));
    assert!(refused(|limits| limits.max_transfers = 0));
    assert!(refused(|limits| limits.max_unproven = Some(0)));
    assert!(refused(|limits| limits.max_unproven_per_client = Some(0)));
    assert!(refused(|limits| limits.max_unproven_per_network = Some(0)));
    assert!(refused(|limits| limits.max_buffered = 65_535));
    assert!(refused(|limits| limits.max_transfers_per_client = Some(0)));
    assert!(refused(|limits| limits.max_block_size = 7));
    assert!(refused(|limits| limits.max_window_size = 0));
    assert!(refused(|limits| limits.timeout = Duration::ZERO));
    assert!(refused(|limits| limits.retries = 101));
    assert!(refused(|limits| limits.min_progress = 65_536));
    assert!(refused(|limits| limits.max_time = Duration::ZERO));
    assert!(refused(|limits| limits.ports = Some(0..=9)));
    assert!(refused(
        |limits| limits.ports = Some(std::ops::RangeInclusive::new(9, 8))
    ));
    assert!(!refused(|_| {}));
}

/// A forged ACK 0 to every port draws one window of each transfer: the fewer the ports, the smaller
/// the window.
#[test]
fn windows_get_smaller_with_the_ports_that_answers_can_come_from() {
    for (count, most) in [(10, 64), (2000, 89)] {
        let ports = free_ports(count);
        let server = Server::builder(store_fn(|_| Ok(Source::bytes(vec![7; 10]))))
            .bind("127.0.0.1:0".parse().expect("an address"))
            .limits(|limits| limits.ports = Some(ports.clone()))
            .start()
            .expect("a server");
        let mut client = Client::new(server.local_addr());
        client.shout(&rrq(
            "file",
            "octet",
            &[("blksize", "1428"), ("windowsize", "32767")],
        ));
        let granted = format!("blksize=1428 windowsize={most}");
        assert_eq!(client.oack(), granted, "{count} ports");
    }
}
