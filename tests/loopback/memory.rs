//! What the server learns about a client from one transfer, and grants it in the next.

use crate::rig::*;
use std::time::Duration;
use tftpool::unversioned::limits::LESSONS_PER_CLIENT;
use tftpool::{Event, Events, Failure, Lesson, Server};

fn learned(events: &mut Events) -> Lesson {
    wait_for(events, |event| match event {
        Event::Learned { lesson, .. } => Some(*lesson),
        _ => None,
    })
}

fn shelves() -> impl tftpool::Store {
    shelf([("file", pattern(30 * 512 + 100))])
}

/// Asks, and refuses the OACK.
fn refuse(server: &Server, events: &mut Events, options: &[(&str, &str)]) {
    let mut client = Client::new(server.local_addr());
    client.ask("file", options);
    client.oack();
    client.abort(8);
    wait_for(events, |event| {
        matches!(event, Event::Failed(..) | Event::Probe(_)).then_some(())
    });
}

/// A client that refuses the OACK at every boot, and then asks without options.
#[test]
fn who_refused_two_oacks_gets_none_until_it_asks_for_something_else() {
    let server = calm(shelves());
    let mut events = server.events();
    let options = [("blksize", "1000")];
    // The first time it might be anybody.
    for _ in 0..2 {
        refuse(&server, &mut events, &options);
        assert!(fetch(server.local_addr(), "file", &[]).is_ok());
        completed(&mut events);
    }
    refuse(&server, &mut events, &options);
    assert_eq!(learned(&mut events), Lesson::NoOptions);
    let mut client = Client::new(server.local_addr());
    client.ask("file", &options);
    assert_eq!(client.data(1).len(), 512);
    assert!(client.rest(1, 512).is_ok());
    client.ask("file", &[("blksize", "1001")]);
    assert_eq!(client.oack(), "blksize=1001");
    // Another client has not refused anything.
    let mut other = Client::at(([127, 0, 0, 2], 0).into(), server.local_addr());
    other.ask("file", &options);
    assert_eq!(other.oack(), "blksize=1000");
}

/// Whoever forges an address asks in its name for what he likes. Only what is answered from there
/// counts.
#[test]
fn requests_that_nobody_answers_teach_nothing_and_push_no_lesson_out() {
    let server = calm(shelves());
    let mut events = server.events();
    let options = [("blksize", "1000")];
    assert!(fetch(server.local_addr(), "file", &[]).is_ok());
    completed(&mut events); // the last ACK may be on its way while the next request is answered
    for _ in 0..2 {
        refuse(&server, &mut events, &options);
    }
    assert_eq!(learned(&mut events), Lesson::NoOptions);
    // As many others as are remembered of one address.
    for number in 1..=LESSONS_PER_CLIENT {
        let mut forged = Client::new(server.local_addr());
        let own = forged.socket.local_addr().expect("an address");
        forged.ask("file", &[("blksize", &(1000 + number).to_string())]);
        forged.oack();
        let id = wait_for(&mut events, |event| match event {
            Event::Request { id, peer, .. } if *peer == own => Some(*id),
            _ => None,
        });
        server.cancel(id);
        assert_eq!(failed(&mut events).1, Failure::Cancelled);
    }
    let mut client = Client::new(server.local_addr());
    client.ask("file", &options);
    assert_eq!(client.data(1).len(), 512, "it is still known");
}

/// UEFI firmware asks for the size at every boot, refuses the OACK, and then wants its options.
#[test]
fn size_probes_are_no_refusals() {
    let server = calm(shelves());
    let mut events = server.events();
    for _ in 0..4 {
        refuse(&server, &mut events, &[("tsize", "0"), ("blksize", "1000")]);
    }
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("tsize", "0"), ("blksize", "1000")]);
    client.oack();
    client.ask("file", &[("blksize", "1000")]);
    client.oack();
}

#[test]
fn who_never_got_the_first_block_gets_a_smaller_one() {
    let server = start(builder(shelves()).limits(|limits| {
        limits.timeout = Duration::from_millis(10);
        limits.retries = 4;
    }));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    for (granted, lesson) in [
        ("2000", Some(1428)),
        ("1428", Some(1024)),
        ("1024", Some(512)),
        ("512", None),
    ] {
        client = Client::new(server.local_addr());
        client.ask("file", &[("blksize", "2000")]);
        assert_eq!(client.oack(), format!("blksize={granted}"));
        if let Some(octets) = lesson {
            client.ack(0);
            assert_eq!(learned(&mut events), Lesson::Blksize(octets));
        }
    }
    assert!(client.rest(0, 512).is_ok());
}

/// A program that finds out what a server can do takes the first window, looks at it while the
/// server sends it again, and leaves. That is a probe and no failure, and says nothing about the
/// path.
#[test]
fn a_client_that_leaves_before_the_second_block_teaches_nothing() {
    let server = start(builder(shelves()).limits(|limits| {
        limits.timeout = Duration::from_millis(10);
        limits.retries = 100;
    }));
    let mut events = server.events();
    let options = [("blksize", "2000"), ("windowsize", "4")];
    for code in [0, 8] {
        let mut client = Client::new(server.local_addr());
        client.ask("file", &options);
        assert_eq!(client.oack(), "blksize=2000 windowsize=4");
        client.ack(0);
        // Each window came at least four times.
        for _ in 0..6 {
            client.data_at_last(4);
        }
        client.abort(code);
        let retransmits = wait_for(&mut events, |event| match event {
            Event::Probe(summary) => Some(summary.retransmits),
            Event::Failed(..) | Event::Learned { .. } => panic!("{event:?}"),
            _ => None,
        });
        assert!(retransmits >= 3, "{retransmits}");
    }
    // Without options DATA 1 is all that a client needs to see.
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    client.data(1);
    client.abort(0);
    wait_for(&mut events, |event| {
        matches!(event, Event::Probe(_)).then_some(())
    });
    client = Client::new(server.local_addr());
    client.ask("file", &[]);
    client.data(1);
    client.ack(1);
    client.data_at_last(2);
    client.abort(0);
    wait_for(&mut events, |event| {
        matches!(event, Event::Probe(_)).then_some(())
    });
    // One that has acknowledged two blocks wanted the file; so did one that says what went wrong.
    for (acknowledged, code) in [(2, 0), (0, 3)] {
        let mut client = Client::new(server.local_addr());
        client.ask("file", &[("blksize", "600")]);
        client.oack();
        for block in 0..=acknowledged {
            client.ack(block);
            client.data_at_last(block + 1);
        }
        client.abort(code);
        assert!(matches!(failed(&mut events).1, Failure::Aborted { .. }));
    }
    assert_eq!(server.stats().probes, 4);
}

/// Takes the first two blocks of each window and loses the rest.
fn fetch_with_two_buffers(client: &mut Client) {
    let mut block = 0;
    loop {
        client.ack(block);
        block += 2;
        loop {
            match client.next() {
                Reply::Data(31, _) => return client.ack(31),
                Reply::Data(number, _) if number == block => break,
                Reply::Data(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn whose_windows_come_back_torn_gets_smaller_ones() {
    let server = calm(shelves());
    let mut events = server.events();
    let options = [("windowsize", "16")];
    for (granted, lesson) in [("16", Some(8)), ("8", Some(4)), ("4", None)] {
        let mut client = Client::new(server.local_addr());
        client.ask("file", &options);
        assert_eq!(client.oack(), format!("windowsize={granted}"));
        if let Some(blocks) = lesson {
            fetch_with_two_buffers(&mut client);
            assert_eq!(learned(&mut events), Lesson::Window(blocks));
        }
    }
    assert_eq!(server.stats().completed, 2);
}

#[test]
fn without_a_memory_nothing_is_learned() {
    let server = start(calmly(builder(shelves())).limits(|limits| limits.client_memory = false));
    let mut events = server.events();
    for _ in 0..4 {
        refuse(&server, &mut events, &[("blksize", "1000")]);
    }
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("windowsize", "16")]);
    client.oack();
    fetch_with_two_buffers(&mut client);
    completed(&mut events);
    // What came twice may still be on its way to the first port.
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("windowsize", "16")]);
    assert_eq!(client.oack(), "windowsize=16");
    assert!(
        events
            .try_next()
            .is_none_or(|event| !matches!(event, Event::Learned { .. }))
    );
}
