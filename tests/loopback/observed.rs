//! A server is observed and controlled from other threads, while one of them joins it.

use crate::rig::*;
use std::io;
use std::thread;
use std::time::Duration;
use tftpool::{
    DropReason, Event, Gauges, Refusal, Request, Server, ServerHandle, Sink, Source, Stop, Store,
    store_fn,
};

fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}

/// Waits until the gauges say this. The loop publishes them at the end of its turn, which may be
/// after the packet that a test has waited for.
fn wait_until(handle: &ServerHandle, is_reached: impl Fn(&Gauges) -> bool) {
    let end = now() + PATIENCE;
    loop {
        let gauges = handle.gauges();
        if is_reached(&gauges) {
            return;
        }
        assert!(now() < end, "{gauges:?}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_server_is_observed_while_another_thread_joins_it() {
    let server = calm(shelf([("file", pattern(1000))]));
    let handle = server.handle();
    is_shared(&handle);
    let mut events = handle.events();
    let joined = thread::spawn(move || server.join());

    assert!(handle.is_running());
    let mut client = Client::new(handle.local_addr());
    assert_eq!(client.get("file"), Ok(pattern(1000)));
    completed(&mut events);
    assert_eq!(handle.stats().completed, 1);

    handle.stop(Stop::Now);
    let stats = joined.join().expect("no panic").expect("a quiet end");
    assert!(!handle.is_running());
    assert_eq!(handle.stats(), stats);
    assert_eq!(handle.gauges(), Gauges::default());
    assert!(handle.events().next().is_none());
}

/// Readers of events come to an end with the server, also where it is dropped.
#[test]
fn events_of_a_handle_end_with_the_server() {
    let server = serve(shelf([]));
    let handle = server.handle();
    let reader = thread::spawn(move || handle.events().count());
    drop(server);
    reader.join().expect("no panic");
}

#[test]
fn counters_name_the_reasons() {
    let server: Server = calm(store_fn(|request| match request.name {
        b"file" => Ok(Source::bytes(pattern(3000))),
        b"secret" => Err(Refusal::access_violation()),
        _ => Err(Refusal::not_found()),
    }));
    let mut events = server.events();
    for (name, code) in [("none", 1), ("secret", 2), ("none", 1)] {
        let mut client = Client::new(server.local_addr());
        client.ask(name, &[]);
        assert_eq!(client.error().0, code);
    }
    let client = Client::new(server.local_addr());
    client.shout(b"\0\x04\0\x01");
    client.shout(b"\0\x09");
    wait_for(&mut events, |event| match event {
        Event::Dropped { reason, .. } => matches!(reason, DropReason::Malformed(_)).then_some(()),
        _ => None,
    });
    let mut client = begun(&server);
    let id = wait_for(&mut events, |event| match event {
        Event::Started { id, .. } => Some(*id),
        _ => None,
    });
    server.cancel(id);
    client.error();
    failed(&mut events);

    let stats = server.stats();
    let codes: Vec<_> = stats
        .refused_by_code
        .iter()
        .map(|(code, n)| (code.0, *n))
        .collect();
    assert_eq!(codes, [(1, 2), (2, 1)]);
    assert_eq!(stats.refused, 3);
    let drops: Vec<_> = stats.dropped_by_kind.into_iter().collect();
    assert_eq!(drops, [("malformed", 1), ("not_a_request", 1)]);
    assert_eq!(stats.dropped, 2);
    let failures: Vec<_> = stats.failed_by_kind.into_iter().collect();
    assert_eq!(failures, [("cancelled", 1)]);
    assert_eq!(stats.failed, 1);
}

#[test]
fn gauges_follow_a_transfer_from_half_open_to_its_end() {
    let server = calm(shelf([("file", pattern(1000))]));
    let handle = server.handle();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    client.data(1);
    wait_until(&handle, |it| {
        it.half_open == 1 && it.running == 1 && it.parked == 1
    });
    assert!(handle.gauges().workers >= 1);
    client.ack(1);
    client.data(2);
    fence(&server); // the loop has heard by then that the peer has answered
    wait_until(&handle, |it| it.half_open == 0 && it.running == 1);
    client.ack(2);
    wait_until(&handle, |it| {
        it.running == 0 && it.parked == 0 && it.queued == 0
    });
}

#[test]
fn gauges_tell_requests_inside_the_store_from_those_that_wait_for_it() {
    let gate = Gate::default();
    let inside = gate.clone();
    let store = store_fn(move |_: &Request<'_>| {
        inside.pass();
        Err(Refusal::not_found())
    });
    // Half of the workers may be inside the store.
    let server = start(calmly(builder(store)).limits(|limits| limits.workers = 2));
    let handle = server.handle();
    let mut clients: Vec<_> = (0..3).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut clients {
        client.ask("file", &[]);
    }
    gate.wait_for(1);
    wait_until(&handle, |it| {
        it.in_store == 1 && it.queued == 2 && it.half_open == 3
    });
    gate.open();
    for client in &mut clients {
        client.error();
    }
    wait_until(&handle, |it| {
        (it.in_store, it.queued, it.half_open) == (0, 0, 0)
    });
}

#[test]
fn gauges_count_the_bytes_that_streams_have_set_aside() {
    let server = calm(store_fn(|_| Ok(Source::reader(io::repeat(7), None))));
    let handle = server.handle();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("blksize", "1000"), ("windowsize", "4")]);
    client.oack();
    assert!(handle.gauges().buffered_bytes >= 4000);
    client.abort(0);
    wait_until(&handle, |it| it.running == 0);
    wait_until(&handle, |it| it.buffered_bytes == 0);
}

#[test]
fn a_store_sees_the_options_that_the_server_does_not_know() {
    let store = store_fn(
        |request| match request.options.unknown().collect::<Vec<_>>()[..] {
            [(b"x-board", b"rev 7")] => Ok(Source::bytes(*b"seven")),
            _ => Err(Refusal::not_found()),
        },
    );
    let server = calm(store);
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("x-board", "rev 7"), ("blksize", "512")]);
    assert_eq!(client.oack(), "blksize=512");
    let options = wait_for(&mut events, |event| match event {
        Event::Request { options, .. } => Some(options.clone()),
        _ => None,
    });
    assert!(options.has_unknown());
    assert!(Client::new(server.local_addr()).get("file").is_err());
}

/// A layer that asks the store below for another name.
struct Below<S>(S);

impl<S: Store> Store for Below<S> {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        let name = [b"below/", request.name].concat();
        self.0.read(&request.with_name(&name))
    }

    fn takes_uploads(&self) -> bool {
        self.0.takes_uploads()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        let name = [b"below/", request.name].concat();
        self.0.write(&request.with_name(&name))
    }
}

#[test]
fn the_start_of_an_upload_names_what_was_asked_and_where_it_goes() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.at("below")).expect("a directory");
    let dir = tftpool::Dir::builder(scratch.path()).uploads(tftpool::WriteMode::Create);
    let server = calm(Below(dir.open().expect("a directory")));
    let mut events = server.events();
    let client = tftpool::Client::new(server.local_addr());
    client.put("file", "content").expect("stored");
    let (id, name, served) = wait_for(&mut events, |event| match event {
        Event::Started {
            id, name, served, ..
        } => Some((*id, name.clone(), served.clone())),
        _ => None,
    });
    assert_eq!(id.as_u64().to_string(), id.to_string());
    assert_eq!(
        (name.as_bytes(), served.as_bytes()),
        (&b"file"[..], &b"below/file"[..])
    );
    let stored = std::fs::read(scratch.at("below/file")).expect("the file");
    assert_eq!(stored, b"content");
}

#[test]
fn a_start_names_what_was_asked_and_what_is_served() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.at("below")).expect("a directory");
    scratch.file("below/file", &pattern(100));
    let dir = tftpool::Dir::read_only(scratch.path()).expect("a directory");
    let closure = store_fn(|request| match request.name {
        b"below/file" => Ok(Source::bytes(pattern(100))),
        _ => Err(Refusal::not_found()),
    });
    let renamed: [Box<dyn Store>; 2] = [Box::new(Below(dir)), Box::new(Below(closure))];
    let same: Box<dyn Store> = Box::new(shelf([("file", pattern(100))]));
    let own: Box<dyn Store> = Box::new(store_fn(|_| {
        Ok(Source::bytes(pattern(100)).with_name("revision 7"))
    }));
    let later: Box<dyn Store> = Box::new(Below(store_fn(|_| {
        Ok(Source::future(async { Ok(Source::bytes(pattern(100))) }))
    })));
    let later_own: Box<dyn Store> = Box::new(store_fn(|_| {
        Ok(Source::future(async {
            Ok(Source::bytes(pattern(100)).with_name("revision 8"))
        }))
    }));
    let names = [
        "below/file",
        "below/file",
        "file",
        "revision 7",
        "below/file",
        "revision 8",
    ];
    let stores = renamed.into_iter().chain([same, own, later, later_own]);
    for (store, expected) in stores.zip(names) {
        let server = calm(store);
        let mut events = server.events();
        assert!(Client::new(server.local_addr()).get("file").is_ok());
        let (name, served) = wait_for(&mut events, |event| match event {
            Event::Started { name, served, .. } => Some((name.clone(), served.clone())),
            _ => None,
        });
        assert_eq!(name.as_bytes(), b"file");
        assert_eq!(served.as_bytes(), expected.as_bytes());
    }
}
