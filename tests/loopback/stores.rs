//! Stores and sources that panic, or do not return.

use crate::rig::*;
use std::io::{self, Read};
use std::time::Duration;
use tftpool::{Event, Failure, Mode, Refusal, Request, Source, Stop, Store, store_fn};

/// "slow" waits at the gate, "file" does not.
fn gated(gate: &Gate) -> impl Store + use<> {
    let gate = gate.clone();
    store_fn(move |request| match request.name {
        b"slow" => {
            gate.pass();
            Ok(Source::bytes(pattern(700)))
        }
        b"file" => Ok(Source::bytes(pattern(5000))),
        _ => Err(Refusal::not_found()),
    })
}

#[test]
fn a_store_that_panics_fails_one_request() {
    /// What is thrown panics once more where it is dropped.
    struct Thrown;
    impl Drop for Thrown {
        fn drop(&mut self) {
            panic!("on purpose")
        }
    }
    let server = start(
        calmly(builder(store_fn(|request| match request.name {
            b"bad" => panic!("on purpose"),
            b"worse" => std::panic::panic_any(Thrown),
            _ => Ok(Source::bytes(pattern(700))),
        })))
        .limits(|limits| limits.workers = 1),
    );
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    for name in ["bad", "worse", "bad", "worse"] {
        assert_eq!(client.get(name), Err((0, "read error".into())));
        let refusal = wait_for(&mut events, |event| match event {
            Event::Refused { refusal, .. } => Some(refusal.clone()),
            _ => None,
        });
        assert_eq!(refusal.detail(), Some("the store panicked"));
        assert_eq!(client.get("good"), Ok(pattern(700)));
    }
}

#[test]
fn a_source_that_panics_fails_one_transfer() {
    struct Bad;
    impl Read for Bad {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("on purpose")
        }
    }
    /// Even the drop panics.
    struct Worse;
    impl Read for Worse {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }
    impl Drop for Worse {
        fn drop(&mut self) {
            panic!("on purpose")
        }
    }
    let server = start(
        calmly(builder(store_fn(|request| {
            Ok(match request.name {
                b"reader" => Source::reader(Bad, None),
                b"read_at" => Source::read_at(|_, _| panic!("on purpose"), 100),
                b"drop" => Source::reader(Worse, None),
                _ => Source::bytes(pattern(700)),
            })
        })))
        .limits(|limits| limits.workers = 1),
    );
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    for name in ["reader", "read_at"] {
        assert_eq!(client.get(name), Err((0, "internal error".into())));
        assert_eq!(failed(&mut events).1, Failure::Panicked);
        assert_eq!(client.get("good"), Ok(pattern(700)));
    }
    assert_eq!(client.get("drop"), Ok(Vec::new()));
    assert_eq!(client.get("good"), Ok(pattern(700)));
    server.stop(Stop::Now);
    server.join().expect("a server that stops in peace");
}

#[test]
fn while_a_store_blocks_transfers_go_on_and_half_of_the_pool_serves_others() {
    let gate = Gate::default();
    let server = start(calmly(builder(gated(&gate))).limits(|limits| limits.workers = 4));
    let mut running = Client::new(server.local_addr());
    running.ask("file", &[]);
    running.data(1);
    let mut slow: Vec<_> = (0..3).map(|_| Client::new(server.local_addr())).collect();
    slow[0].ask("slow", &[]);
    gate.wait_for(1);
    // One of the two that may be inside the store is: the other serves.
    let mut other = Client::new(server.local_addr());
    for _ in 0..20 {
        assert_eq!(other.get("file"), Ok(pattern(5000)));
    }
    slow[1].ask("slow", &[]);
    gate.wait_for(2);
    // Now nobody else can be, but what runs goes on.
    slow[2].ask("slow", &[]);
    assert!(running.rest(1, 512) == Ok(pattern(5000)[512..].to_vec()));
    slow.iter().for_each(Client::quiet);
    gate.open();
    for client in &mut slow {
        assert_eq!(client.data(1), pattern(512));
        assert!(client.rest(1, 512).is_ok());
    }
    assert_eq!(other.get("file"), Ok(pattern(5000)));
}

/// What a worker has put aside belongs to the loop before that worker enters the store.
#[test]
fn no_transfer_is_left_with_a_worker_inside_the_store() {
    for _ in 0..20 {
        let gate = Gate::default();
        let server = start(calmly(builder(gated(&gate))).limits(|limits| limits.workers = 2));
        let mut running: Vec<_> = (0..8).map(|_| Client::new(server.local_addr())).collect();
        running
            .iter_mut()
            .for_each(|client| client.ask("file", &[]));
        let slow = Client::new(server.local_addr());
        slow.shout(&rrq("slow", "octet", &[]));
        for client in &mut running {
            assert!(client.data(1) == pattern(512));
        }
        gate.wait_for(1);
        for client in &mut running {
            assert!(client.rest(1, 512).is_ok());
        }
        gate.open();
    }
}

#[test]
fn a_stop_does_not_wait_for_a_store_for_ever() {
    let gate = Gate::default();
    let server = start(calmly(builder(gated(&gate))).limits(|limits| limits.workers = 2));
    let mut events = server.events();
    let mut slow = Client::new(server.local_addr());
    slow.ask("slow", &[]);
    gate.wait_for(1);
    let queued = Client::new(server.local_addr());
    queued.shout(&rrq("file", "octet", &[]));
    wait_for(&mut events, |event| match event {
        Event::Request { name, .. } if name.as_bytes() == b"file" => Some(()),
        _ => None,
    });
    let begun = now();
    server.stop(Stop::Now);
    server.join().expect("a server that stops in peace");
    assert!(now() - begun < PATIENCE);
    // The one that waited for the store is refused; the one inside it is told when it comes out.
    let refused = wait_for(&mut events, |event| match event {
        Event::Refused {
            id: Some(_), name, ..
        } => Some(name.clone()),
        _ => None,
    });
    assert_eq!(refused.as_bytes(), b"file");
    gate.open();
    assert_eq!(slow.error(), (0, "server is stopping".into()));
}

/// A file server that hangs: its clients are told in the end, and everybody else is served
/// meanwhile.
#[test]
fn a_store_that_never_returns_for_more_requests_than_there_are_workers() {
    // The shorter one is over when a call's place would be given away.
    for deadline in [1, 2] {
        a_store_that_never_returns(Duration::from_secs(deadline));
    }
}

fn a_store_that_never_returns(deadline: Duration) {
    let gate = Gate::default();
    let server = start(calmly(builder(gated(&gate))).limits(|limits| {
        limits.workers = 2;
        limits.store_deadline = deadline;
    }));
    let mut events = server.events();
    let mut running = Client::new(server.local_addr());
    running.ask("file", &[]);
    running.data(1);
    let mut slow: Vec<_> = (0..4).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut slow {
        client.ask("slow", &[]);
    }
    gate.wait_for(1);
    let mut other = Client::new(server.local_addr());
    assert_eq!(
        other.get("file"),
        Ok(pattern(5000)),
        "behind four that hang"
    );
    assert!(running.rest(1, 512) == Ok(pattern(5000)[512..].to_vec()));
    for client in &mut slow {
        assert_eq!(client.error(), (0, "server is busy".into()));
        assert_eq!(client.tid, Some(server.local_addr()));
    }
    for _ in &slow {
        let refusal = wait_for(&mut events, |event| match event {
            Event::Refused { refusal, .. } => Some(refusal.clone()),
            _ => None,
        });
        assert_eq!(refusal.detail(), Some("the store does not answer"));
    }
    // An answer that nobody waits for is thrown away.
    gate.open();
    assert_eq!(other.get("slow"), Ok(pattern(700)));
    slow.iter().for_each(Client::quiet);
    server.stop(Stop::Drain(PATIENCE));
    let stats = server.join().expect("a server that stops in peace");
    assert_eq!((stats.active, stats.refused), (0, 4));
}

/// A slow store is no dead one: whoever is answered before the deadline gets the file.
#[test]
fn a_call_that_lost_its_place_in_the_store_is_still_good() {
    let gate = Gate::default();
    let server = start(calmly(builder(gated(&gate))).limits(|limits| {
        limits.workers = 2;
        limits.store_deadline = 2 * PATIENCE;
    }));
    let mut slow: Vec<_> = (0..3).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut slow {
        client.ask("slow", &[]);
    }
    gate.wait_for(3); // one place, and given on twice
    gate.open();
    for client in &mut slow {
        assert_eq!(client.data(1), pattern(512));
        assert!(client.rest(1, 512).is_ok());
    }
    let mut other = Client::new(server.local_addr());
    assert_eq!(other.get("file"), Ok(pattern(5000)));
}

/// The same where the store has answered, and the octets do not come.
#[test]
fn sources_that_never_return_for_more_transfers_than_there_are_workers() {
    let gate = Gate::default();
    let inside = gate.clone();
    let store = store_fn(move |request| {
        let gate = inside.clone();
        Ok(match request.name {
            b"dead" => Source::read_at(
                move |buffer, _| {
                    gate.pass();
                    Ok(buffer.len())
                },
                700,
            ),
            _ => Source::bytes(pattern(5000)),
        })
    });
    let server = start(calmly(builder(store)).limits(|limits| limits.workers = 2));
    let mut dead: Vec<_> = (0..5).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut dead {
        client.ask("dead", &[]);
    }
    gate.wait_for(2);
    let mut other = Client::new(server.local_addr());
    assert_eq!(other.get("file"), Ok(pattern(5000)));
    gate.open();
    for client in &mut dead {
        assert_eq!(client.data(1).len(), 512);
        assert!(client.rest(1, 512).is_ok());
    }
}

/// One that implements `write` takes uploads, as those in `tests/loopback/uploads.rs` do.
#[test]
fn a_store_that_only_reads_refuses_uploads() {
    struct Reads;
    impl Store for Reads {
        fn read(&self, _: &Request<'_>) -> Result<Source, Refusal> {
            Ok(Source::bytes(*b"content"))
        }
    }
    let server = serve(Reads);
    let refused = Err(Trouble::Told(2, "server is read-only".into()));
    let put = put(server.local_addr(), "file", Mode::Octet, &[], b"x");
    assert_eq!(put, refused);
    assert_eq!(
        fetch(server.local_addr(), "file", &[]),
        Ok(b"content".to_vec())
    );
}
