//! What those who hold a server can do with one transfer: follow it, and end it.

use crate::rig::*;
use std::time::Duration;
use tftpool::{Dir, Event, Events, OptionName, Source, Stop, TransferError, TransferId, store_fn};

fn started(events: &mut Events) -> TransferId {
    wait_for(events, |event| match event {
        Event::Started { id, .. } => Some(*id),
        _ => None,
    })
}

#[test]
fn a_waiting_transfer_is_cancelled_and_its_neighbour_goes_on() {
    let server = calm(shelf([("file", pattern(3000))]));
    let mut events = server.events();
    let [(mut first, id), (mut second, _)] = [(); 2].map(|()| {
        let mut client = Client::new(server.local_addr());
        client.ask("file", &[]);
        client.data(1);
        client.ack(1);
        client.data(2);
        (client, started(&mut events))
    });
    fence(&server);
    server.cancel(id);
    assert_eq!(first.error(), (0, "transfer was cancelled".into()));
    let (summary, failure) = failed(&mut events);
    assert_eq!((summary.id, failure), (id, TransferError::Cancelled));
    server.cancel(id); // nobody any more
    assert!(second.rest(2, 512).is_ok());
    completed(&mut events);
    assert_eq!(server.stats().active, 0);
}

/// One that is never quiet stays with its worker, and comes back when it is wanted.
#[test]
fn a_transfer_that_never_rests_is_cancelled() {
    let endless = store_fn(|_| Ok(Source::read_at(|out, _| Ok(out.len()), 1 << 50)));
    let server = serve(endless);
    let (asked, stopper) = (server.local_addr(), server.handle());
    let mut events = server.events();
    let client = std::thread::spawn(move || {
        let socket = Client::new(asked).socket;
        let options = [(OptionName::Blksize, 1428), (OptionName::Windowsize, 8)];
        fetch_into(
            |_| {},
            &socket,
            asked,
            "endless",
            tftpool::Mode::Octet,
            &options,
        )
    });
    let id = started(&mut events);
    stopper.cancel(id);
    let (summary, failure) = failed(&mut events);
    assert_eq!((summary.id, failure), (id, TransferError::Cancelled));
    let told = Err(Trouble::Told(0, "transfer was cancelled".into()));
    assert_eq!(client.join().expect("a client"), told);
}

#[test]
fn a_transfer_that_is_cancelled_inside_the_store_ends_behind_it() {
    let (open, door) = std::sync::mpsc::channel::<()>();
    let door = std::sync::Mutex::new(door);
    let server = calm(store_fn(move |_| {
        let _ = door.lock().expect("one request").recv();
        Ok(Source::bytes(pattern(3000)))
    }));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    let id = wait_for(&mut events, |event| match event {
        Event::Request { id, .. } => Some(*id),
        _ => None,
    });
    server.cancel(id);
    drop(open);
    client.data(1);
    assert_eq!(client.error(), (0, "transfer was cancelled".into()));
    assert_eq!(failed(&mut events).1, TransferError::Cancelled);
}

#[test]
fn progress_is_told_now_and_then_to_those_who_listen() {
    let endless = store_fn(|_| Ok(Source::read_at(|out, _| Ok(out.len()), 1 << 50)));
    let server = calm(endless);
    let mut events = server.events();
    let begun = now();
    let mut client = Client::new(server.local_addr());
    client.ask("endless", &[]);
    client.data(1);
    let id = started(&mut events);
    let mut told = Vec::new();
    let mut block = 0u64;
    while told.len() < 2 {
        assert!(now() < begun + PATIENCE, "only {told:?}");
        block += 1;
        client.ack(block as u16);
        client.data((block + 1) as u16);
        told.extend(
            std::iter::from_fn(|| events.try_recv()).map(|event| match event {
                Event::Progress { id: of, bytes } if of == id => bytes,
                other => panic!("{other:?}"),
            }),
        );
    }
    assert!(0 < told[0] && told[0] < told[1] && told[1] <= block * 512);
    assert!(now() >= begun + Duration::from_secs(2), "too often");
    server.stop(Stop::Now);
    server.join().expect("a server that stops in peace");
    assert!(matches!(
        events.last(),
        Some(Event::Failed(_, TransferError::Stopped))
    ));
}

#[test]
fn the_counters_are_a_fold_over_the_events_and_know_the_mappings() {
    let scratch = Scratch::new();
    scratch.file("mapped", &pattern(200_000));
    scratch.file("small", &pattern(2000));
    let server = serve(Dir::read_only(scratch.path()).expect("a directory"));
    let events = server.events();
    assert_eq!(server.stats().mapping_hit_rate(), None);
    for name in ["mapped", "small", "mapped", "missing", "mapped", "mapped"] {
        let got = fetch(server.local_addr(), name, &[]);
        assert_eq!(got.is_ok(), name != "missing");
    }
    Client::new(server.local_addr()).shout(b"what?");
    fence(&server);
    server.stop(Stop::Drain(PATIENCE));
    let stats = server.join().expect("a server that stops in peace");
    assert_eq!(stats, fold(&events.collect::<Vec<_>>()));
    assert_eq!((stats.mapping_misses, stats.mapping_hits), (1, 3));
    assert_eq!(stats.mapping_hit_rate(), Some(0.75));
}
