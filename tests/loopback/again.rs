//! Requests that come again, and requests for something else, from one port.

use crate::rig::*;
use std::sync::atomic::{AtomicBool, Ordering};
use tftpool::unversioned::limits::REPEATED_REQUESTS;
use tftpool::{DropReason, Event, Failure, Source, store_fn};

fn duplicates(events: &mut tftpool::Events) {
    wait_for(events, |event| match event {
        Event::Dropped {
            reason: DropReason::Duplicate,
            ..
        } => Some(()),
        _ => None,
    });
}

#[test]
fn before_the_first_ack_the_same_transfer_answers_again() {
    let server = calm(shelf([("file", pattern(2000))]));
    for options in [&[][..], &[("blksize", "1000")]] {
        let mut client = Client::new(server.local_addr());
        client.ask("file", options);
        let first = client.next();
        for _ in 0..5 {
            pass_for_no_copy();
            client.shout(&rrq("file", "octet", options));
            assert_eq!(client.next(), first); // and from the same port
        }
        client.abort(8);
    }
    assert_eq!(server.stats().requests, 2);
}

#[test]
fn asking_without_end_brings_a_few_copies_and_then_one_a_second() {
    let server = calm(shelf([("file", pattern(2000))]));
    for (options, own) in [(&[][..], 2), (&[("blksize", "1000")], 4)] {
        let mut client = Client::new(server.local_addr());
        client.ask("file", options);
        let first = client.next();
        let begun = now();
        for _ in 0..200 {
            for _ in 0..100 {
                client.shout(&rrq("file", "octet", options));
            }
            fence(&server); // no faster than they are taken in
        }
        let more: Vec<_> = std::iter::from_fn(|| client.at_hand()).collect();
        let refilled = begun.elapsed().as_secs() as usize + 1;
        let most = own + REPEATED_REQUESTS as usize + refilled;
        assert!(more.len() < most, "{more:?}");
        assert!(more.iter().all(|reply| *reply == first));
        client.abort(8);
    }
}

#[test]
fn while_a_transfer_moves_its_request_is_a_late_copy() {
    let server = calm(shelf([("file", pattern(20_000))]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("blksize", "1000")]);
    client.oack();
    client.ack(0);
    let mut got = client.data(1);
    client.shout(&rrq("file", "octet", &[("blksize", "1000")]));
    duplicates(&mut events);
    client.quiet();
    got.extend(client.rest(1, 1000).expect("the rest"));
    assert_eq!(got, pattern(20_000));
    completed(&mut events);
    fence(&server);
    client.quiet();
    assert_eq!(server.stats().requests, 2, "the file, and the fence");
}

#[test]
fn a_silent_peer_that_asks_again_has_started_anew() {
    let server = serve(shelf([("file", pattern(2000))]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    client.data(1);
    client.ack(1);
    client.data_at_last(2);
    let old = client.tid;
    // Not a word to block 2, until the server has noticed: then a request is no late copy.
    for _ in 0..3 {
        client.data_at_last(2);
    }
    client.ask("file", &[]);
    loop {
        let (from, reply) = client.next_from();
        if Some(from) != old {
            assert_eq!(reply, Reply::Data(1, pattern(512)));
            client.tid = Some(from);
            break;
        }
    }
    client.ack(1);
    let (summary, failure) = failed(&mut events);
    assert_eq!((Some(summary.local), failure), (old, Failure::Superseded));
}

/// `tftp-hpa -R 40000:40000` does this. The client never repeats a request here, so one that is
/// lost fails the test.
#[test]
fn right_behind_the_last_ack_the_same_request_is_a_new_transfer() {
    for workers in [1, 2, 8] {
        let store = shelf([("one", pattern(100)), ("three", pattern(1100))]);
        let server = start(calmly(builder(store)).limits(|limits| limits.workers = workers));
        let mut client = Client::new(server.local_addr());
        for _ in 0..200 {
            assert_eq!(client.get("one"), Ok(pattern(100)));
        }
        for _ in 0..100 {
            assert_eq!(client.get("three"), Ok(pattern(1100)));
        }
        for _ in 0..100 {
            client.ask("three", &[("blksize", "600"), ("tsize", "0")]);
            client.oack();
            assert_eq!(client.rest(0, 600), Ok(pattern(1100)));
        }
        assert_eq!(server.stats().requests, 400);
    }
}

/// Ends the noise also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The same where the transfer lies with the loop, and the loop is so busy with other packets that
/// it may read the request before it hears of the ACK.
#[test]
fn a_last_ack_that_nobody_has_read_yet_counts() {
    let server = calm(shelf([("file", pattern(100))]));
    let asked = server.local_addr();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (babbler, mut sent) = (Client::new(asked), 0);
            while !done.load(Ordering::Relaxed) {
                // Not more than the listening socket holds.
                if sent < server.stats().dropped + 500 {
                    babbler.shout(b"nonsense");
                    sent += 1;
                }
            }
        });
        let _end = End(&done);
        let mut client = Client::new(asked);
        for _ in 0..100 {
            client.ask("file", &[]);
            client.data(1);
            // Longer than a worker waits for a quiet peer.
            let parked = now() + 4 * tftpool::unversioned::limits::PATIENCE;
            while now() < parked {
                std::thread::yield_now();
            }
            client.ack(1);
        }
    });
    assert_eq!(
        server.stats().requests,
        100,
        "an old transfer's block is no answer"
    );
}

#[test]
fn right_behind_an_error_the_same_request_gets_its_error_too() {
    let server = calm(shelf([("file", pattern(100))]));
    let mut client = Client::new(server.local_addr());
    for _ in 0..200 {
        assert_eq!(client.get("missing"), Err((1, "file not found".into())));
    }
}

#[test]
fn another_request_from_the_same_port_is_a_new_transfer_at_once() {
    let server = calm(shelf([("a", pattern(5000)), ("b", pattern(3000))]));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("a", &[]);
    let a = client.data(1);
    client.ack(1);
    client.data(2);
    let old = client.tid;
    client.ask("b", &[("blksize", "1000")]);
    client.oack();
    assert_ne!(client.tid, old);
    // Nothing is proven yet: the old transfer lives.
    let new = std::mem::replace(&mut client.tid, old);
    client.ack(2);
    assert_eq!(client.data(3), pattern(5000)[1024..1536]);
    client.tid = new;
    assert_eq!(client.rest(0, 1000), Ok(pattern(3000)));
    let (summary, failure) = failed(&mut events);
    assert_eq!(
        (Some(summary.local), failure, summary.bytes),
        (old, Failure::Superseded, 2 * a.len() as u64)
    );
}

/// lpxelinux uses port 49153 for all its requests, names that are missing among them.
#[test]
fn a_boot_loader_may_use_one_port_for_everything() {
    let server = calm(shelf([
        ("ldlinux.c32", pattern(120_000)),
        ("pxelinux.cfg/default", pattern(900)),
        ("kernel", pattern(700_000)),
        ("initrd", pattern(300_000)),
    ]));
    let mut client = Client::new(server.local_addr());
    let mut boot = |name: &str, wanted: Option<usize>| {
        client.ask(name, &[("tsize", "0"), ("blksize", "1408")]);
        match wanted {
            None => assert_eq!(client.error().0, 1),
            Some(length) => {
                assert_eq!(client.oack(), format!("tsize={length} blksize=1408"));
                assert!(client.rest(0, 1408) == Ok(pattern(length)), "{name}");
            }
        }
    };
    boot("ldlinux.c32", Some(120_000));
    boot("pxelinux.cfg/01-52-54-00-12-34-56", None);
    for digits in (1..=8).rev() {
        boot(&format!("pxelinux.cfg/{}", &"C0000201"[..digits]), None);
    }
    boot("pxelinux.cfg/default", Some(900));
    boot("pxelinux.cfg/default", Some(900));
    boot("kernel", Some(700_000));
    boot("initrd", Some(300_000));
    assert_eq!(server.stats().requests, 14);
    assert_eq!(server.stats().dropped, 0);
}

/// A store that is slow gets the request several times before it has answered.
#[test]
fn copies_that_came_before_the_answer_are_answered_by_it() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let server = calm(store_fn(move |request| match request.name {
        b"file" => {
            let _ = gate.lock().expect("a lock").recv();
            Ok(tftpool::Source::bytes(pattern(100)))
        }
        _ => Err(tftpool::Refusal::not_found()),
    }));
    let mut client = Client::new(server.local_addr());
    for _ in 0..4 {
        client.ask("file", &[("blksize", "512")]);
    }
    fence(&server);
    release.send(()).expect("a store");
    client.oack();
    assert_eq!(client.rest(0, 512), Ok(pattern(100)));
    let end = now() + PATIENCE;
    while server.stats().dropped < 3 {
        fence(&server);
        assert!(now() < end);
    }
    client.quiet();
}

/// PXELINUX uses one port for all its requests, and answers may be lost. A client asks again until
/// it hears of the file that it wants; nothing is acknowledged.
#[test]
fn other_files_asked_from_one_port_are_answered_however_many_went_unanswered() {
    let server = start(builder(store_fn(|request| {
        Ok(Source::bytes(request.name.to_vec()))
    })));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let interval = std::time::Duration::from_millis(100);
    client.set_read_timeout(Some(interval)).expect("a timeout");
    for number in 0..10 {
        let name = format!("file{number}");
        let end = now() + 50 * interval;
        let mut answer = [0; 600];
        'asking: loop {
            assert!(now() < end, "no answer for {name}");
            let request = rrq(&name, "octet", &[]);
            client.send_to(&request, server.local_addr()).expect("sent");
            while let Ok(length) = client.recv(&mut answer) {
                if answer[..length].ends_with(name.as_bytes()) {
                    break 'asking;
                }
            }
        }
    }
}
