//! How a server ends, and what it says meanwhile.

use crate::rig::*;
use std::time::Duration;
use tftpool::{Event, Server, Stop, TransferError};

fn server() -> Server {
    calm(shelf([("file", pattern(3000))]))
}

#[test]
fn stop_now_tells_every_running_transfer() {
    let server = server();
    let mut events = server.events();
    let mut clients: Vec<_> = (0..20).map(|_| begun(&server)).collect();
    server.stop(Stop::Now);
    for client in &mut clients {
        assert_eq!(client.error(), (0, "server is stopping".into()));
        assert_eq!(failed(&mut events).1, TransferError::Stopped);
    }
    server.join().expect("a server that stops in peace");
    assert!(events.next().is_none(), "events end with the server");
}

#[test]
fn stop_now_also_reaches_transfers_that_never_rest() {
    let server = serve(shelf([("huge", pattern(30 << 20))]));
    let asked = server.local_addr();
    let mut events = server.events();
    let options = [(tftpool::OptionName::Blksize, 512)];
    let clients: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || fetch(asked, "huge", &options)))
        .collect();
    for _ in 0..4 {
        wait_for(&mut events, |event| {
            matches!(event, Event::Started { .. }).then_some(())
        });
    }
    server.stop(Stop::Now);
    server.join().expect("a server that stops in peace");
    for client in clients {
        let told = Err(Trouble::Told(0, "server is stopping".into()));
        assert_eq!(client.join().expect("a client"), told);
    }
    let stopped = events.filter(|event| matches!(event, Event::Failed(_, TransferError::Stopped)));
    assert_eq!(stopped.count(), 4);
}

#[test]
fn a_drain_lets_transfers_finish_and_takes_no_new_ones() {
    let server = server();
    let mut events = server.events();
    let mut client = begun(&server);
    let asked = server.local_addr();
    server.stop(Stop::Drain(Duration::MAX)); // for as long as it takes
    let end = now() + PATIENCE;
    let successor = loop {
        // The port is free while the old server drains: another can take over.
        match Server::builder(shelf([("file", pattern(4))]))
            .bind(asked)
            .start()
        {
            Ok(server) => break server,
            Err(_) => assert!(now() < end),
        }
    };
    assert_eq!(Client::new(asked).get("file"), Ok(pattern(4)));
    assert!(client.rest(2, 512).is_ok());
    completed(&mut events);
    server.join().expect("a server that stops in peace");
    assert!(events.next().is_none());
    drop(successor);
}

#[test]
fn a_drain_does_not_wait_for_whoever_may_not_be_there() {
    let server = serve(shelf([("file", pattern(3000))]));
    let mut events = server.events();
    let mut forged = Client::new(server.local_addr());
    forged.ask("file", &[]);
    forged.data(1);
    server.stop(Stop::Drain(Duration::MAX));
    // Else it would be waited for until its time is up.
    assert_eq!(failed(&mut events).1, TransferError::Stopped);
    server.join().expect("a server that stops in peace");
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    let server = server();
    let mut client = begun(&server);
    server.stop(Stop::Drain(Duration::from_millis(10)));
    server.join().expect("a server that stops in peace");
    assert_eq!(client.error(), (0, "server is stopping".into()));
}

#[test]
fn a_second_word_hastens_the_end_and_never_delays_it() {
    let server = server();
    let stopper = server.handle();
    let mut client = begun(&server);
    stopper.stop(Stop::Drain(Duration::from_secs(3600)));
    for stop in [
        Stop::Now,
        Stop::Now,
        Stop::Drain(Duration::from_secs(3600)),
        Stop::Now,
    ] {
        stopper.stop(stop);
    }
    server.join().expect("a server that stops in peace");
    assert_eq!(client.error().0, 0);
    stopper.stop(Stop::Now); // to nobody
    stopper.reload();
}

#[test]
fn dropping_a_server_stops_it_and_frees_its_port() {
    let server = server();
    let asked = server.local_addr();
    let mut client = begun(&server);
    drop(server);
    assert_eq!(client.error(), (0, "server is stopping".into()));
    drop(std::net::UdpSocket::bind(asked).expect("a free port"));
}

#[test]
fn events_that_are_asked_for_after_the_end_are_none() {
    let server = server();
    let mut events = server.events();
    server.stop(Stop::Now);
    assert!(events.next().is_none());
    assert!(server.events().next().is_none());
}

#[test]
fn counters_are_a_fold_of_the_events() {
    let server = server();
    let events = server.events();
    let asked = server.local_addr();
    let mut client = Client::new(asked);
    assert!(client.get("file").is_ok());
    // Its last ACK must have been read before the server is told to stop.
    let end = now() + PATIENCE;
    while server.stats().completed == 0 {
        assert!(now() < end);
        std::thread::yield_now();
    }
    assert!(client.get("missing").is_err());
    client.shout(b"\0\x02file\0octet\0");
    client.shout(b"nonsense");
    let mut prober = Client::new(asked);
    prober.ask("file", &[("tsize", "0")]);
    prober.oack();
    prober.abort(8);
    let aborted = begun(&server);
    aborted.abort(3);
    let _running = begun(&server);
    server.stop(Stop::Now);
    let events: Vec<_> = events.collect();
    let stats = server.stats();
    assert_eq!(fold(&events), stats);
    assert_eq!(stats.requests, 5);
    assert_eq!(stats.active, 0);
    assert_eq!((stats.completed, stats.refused, stats.dropped), (1, 2, 1));
    assert_eq!(stats.probes + stats.failed, 3);
    // Each transfer begins once and ends once.
    let mut open = std::collections::HashSet::new();
    for event in &events {
        match event {
            Event::Request { id, .. } => assert!(open.insert(*id)),
            Event::Refused { id: Some(id), .. } => assert!(open.remove(id)),
            Event::Completed(it) | Event::Probe(it) | Event::Failed(it, _) => {
                assert!(open.remove(&it.id))
            }
            _ => {}
        }
    }
    assert!(open.is_empty());
}

#[test]
fn a_reader_that_is_too_slow_is_told_so_and_stops_nobody() {
    let server = server();
    let events = server.events();
    let client = Client::new(server.local_addr());
    let many = tftpool::unversioned::limits::EVENT_QUEUE + 1000;
    for round in 0..many / 100 + 1 {
        (0..100).for_each(|_| client.shout(b"nonsense"));
        let end = now() + PATIENCE;
        while server.stats().dropped < 100 * (round as u64 + 1) {
            assert!(now() < end);
            std::thread::yield_now();
        }
    }
    server.stop(Stop::Now);
    let (mut seen, mut missed) = (0, 0);
    for event in events {
        match event {
            Event::Lagged { missed: more } => missed += more,
            _ => seen += 1,
        }
    }
    assert!(missed > 0);
    assert_eq!(seen + missed, server.stats().dropped);
}
