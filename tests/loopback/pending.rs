//! Sources that have nothing yet: their transfers wait without a thread until they are woken.

use crate::backend::*;
use crate::rig::*;
use std::future::poll_fn;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use tftpool::{Event, Refusal, Request, Source, Stop, Store, TransferError, store_fn};

/// A server on a backend; nothing is sent twice by itself.
fn waiting(backend: &Backend) -> tftpool::Server {
    start(calmly(builder(backend.store())).limits(|limits| {
        limits.workers = 2;
        limits.store_deadline = 2 * PATIENCE;
    }))
}

#[test]
fn a_source_that_has_nothing_yet_is_asked_again_when_it_is_woken() {
    let backend = Backend::default();
    let server = waiting(&backend);
    let mut events = server.events();
    for (number, kind) in KINDS.iter().enumerate() {
        let mut client = Client::new(server.local_addr());
        client.ask(&format!("{kind}/{number}"), &[]);
        until_asked(&backend, 0);
        // Woken for nothing, and woken twice.
        for _ in 0..3 {
            let asked = backend.asked();
            backend.wake(number);
            until_asked(&backend, asked);
        }
        client.quiet();
        backend.give(number, ALL);
        backend.wake(number);
        let first = client.data(1);
        let rest = client.rest(1, 512).expect("the rest");
        assert_eq!([first, rest].concat(), content(number), "{kind}");
        let summary = completed(&mut events);
        assert_eq!(
            (summary.retransmits, summary.lossy_windows),
            (0, 0),
            "{kind}"
        );
        // The transfer is over.
        backend.wake(number);
        backend.0.asked.store(0, Ordering::SeqCst);
    }
    assert_eq!(
        Client::new(server.local_addr()).get("file"),
        Ok(pattern(5000))
    );
    let wakers: Vec<_> = backend.0.wakers.lock().expect("no panic").drain().collect();
    server.stop(Stop::Now);
    assert_eq!(server.join().expect("an end").active, 0);
    // So is the server.
    wakers.into_iter().for_each(|(_, waker)| waker.wake());
}

/// The call to the waker comes before the transfer is parked, in every turn.
#[test]
fn a_wake_up_during_the_turn_is_not_lost() {
    struct Eager(usize, Waker);
    impl Read for Eager {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 % 2 == 1 {
                self.1.wake_by_ref();
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = out
                .len()
                .min(100)
                .min(50_000_usize.saturating_sub(50 * self.0));
            out[..length].fill(7);
            Ok(length)
        }
    }
    let server = start(calmly(builder(store_fn(|request| {
        let waker = request.waker().clone();
        // In the store, too, and from a future.
        waker.wake_by_ref();
        let mut polls = 0;
        Ok(Source::future(poll_fn(move |context| {
            polls += 1;
            context.waker().wake_by_ref();
            match polls < 3 {
                true => Poll::Pending,
                false => Poll::Ready(Ok(Source::reader(Eager(0, waker.clone()), None))),
            }
        })))
    }))));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let asked = server.local_addr();
            std::thread::spawn(move || Client::new(asked).get("file"))
        })
        .collect();
    for client in clients {
        let got = client.join().expect("no panic").expect("the file");
        assert_eq!(got, vec![7; got.len()]);
        assert!(got.len() > 40_000, "{}", got.len());
    }
}

/// A future that asks to be polled at once, as those do that yield. It costs its own turns only.
#[test]
fn a_source_that_wakes_itself_in_every_turn_holds_up_no_other() {
    let is_there = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_there);
    let server = start(
        calmly(builder(store_fn(move |request| {
            let flag = Arc::clone(&flag);
            Ok(match request.name {
                b"yields" => Source::future(poll_fn(move |context| {
                    context.waker().wake_by_ref();
                    match flag.load(Ordering::SeqCst) {
                        true => Poll::Ready(Ok(Source::bytes(pattern(700)))),
                        false => Poll::Pending,
                    }
                })),
                _ => Source::bytes(pattern(5000)),
            })
        })))
        .limits(|limits| limits.workers = 2),
    );
    let mut yielding: Vec<_> = (0..4).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut yielding {
        client.ask("yields", &[]);
    }
    let mut other = Client::new(server.local_addr());
    for _ in 0..20 {
        assert_eq!(other.get("file"), Ok(pattern(5000)));
    }
    is_there.store(true, Ordering::SeqCst);
    for client in &mut yielding {
        assert_eq!(client.data(1).len(), 512);
        assert!(client.rest(1, 512).is_ok());
    }
}

/// What a client repeats while it waits starts nothing, and is no loss.
#[test]
fn a_client_that_asks_again_while_it_waits_has_one_transfer_and_no_loss() {
    let backend = Backend::default();
    let server = waiting(&backend);
    let mut events = server.events();
    for (number, kind) in KINDS.iter().enumerate() {
        let name = format!("{kind}/{number}");
        let mut client = Client::new(server.local_addr());
        client.ask(&name, &[]);
        until_asked(&backend, 0);
        for _ in 0..5 {
            client.shout(&rrq(&name, "octet", &[]));
            fence(&server);
        }
        client.quiet();
        // The first block, and the one after it only later.
        backend.give(number, if *kind == "future" { ALL } else { 600 });
        assert_eq!(client.data(1), content(number)[..512]);
        if *kind != "future" {
            for _ in 0..5 {
                client.ack(1);
                fence(&server);
            }
            client.quiet();
            backend.give(number, ALL);
        } else {
            client.ack(1);
        }
        let second = client.data(2);
        client.ack(2);
        let third = client.data(3);
        client.ack(3);
        assert_eq!([second, third].concat(), content(number)[512..]);
        let summary = completed(&mut events);
        assert_eq!(
            (summary.retransmits, summary.lossy_windows),
            (0, 0),
            "{kind}"
        );
        backend.0.asked.store(0, Ordering::SeqCst);
    }
    assert_eq!(server.stats().requests - server.stats().refused, 3);
}

#[test]
fn windows_and_options_wait_as_well() {
    let backend = Backend::default();
    let server = waiting(&backend);
    let mut events = server.events();
    for (number, kind) in KINDS.iter().enumerate() {
        let mut client = Client::new(server.local_addr());
        let name = format!("{kind}/{number}");
        client.ask(
            &name,
            &[("windowsize", "8"), ("tsize", "0"), ("blksize", "100")],
        );
        let length = content(number).len();
        if *kind == "future" {
            until_asked(&backend, 0);
            client.quiet();
            backend.give(number, ALL);
        }
        let oack = client.oack();
        assert_eq!(
            oack.contains(&format!("tsize={length}")),
            *kind != "reader",
            "{oack}"
        );
        client.ack(0);
        let mut got = Vec::new();
        let last = length / 100 + 1;
        // As much of a window as there is.
        for block in 1..=last {
            if *kind != "future" && block <= 13 {
                client.quiet();
                backend.give(number, 100 * block + 50);
            } else {
                backend.give(number, ALL);
            }
            got.extend(client.data(block as u16));
            if block % 8 == 0 || block == last {
                client.ack(block as u16);
            }
        }
        assert_eq!(got, content(number), "{kind}");
        let summary = completed(&mut events);
        assert_eq!(
            (summary.retransmits, summary.lossy_windows),
            (0, 0),
            "{kind}"
        );
        backend.0.asked.store(0, Ordering::SeqCst);
    }
}

/// Its waker is never called, or is gone.
#[test]
fn a_source_that_never_has_anything_fails_and_the_client_is_told() {
    let backend = Backend::default();
    let server = start(calmly(builder(backend.store())).limits(|limits| {
        limits.workers = 2;
        limits.store_deadline = Duration::from_secs(1);
    }));
    let mut events = server.events();
    let mut clients = one_of_each_kind(&server);
    until_asked(&backend, KINDS.len() - 1);
    backend.0.wakers.lock().expect("no panic").clear();
    let told = clients.iter_mut().map(Client::error);
    let told: Vec<_> = told.collect();
    let expected = ["server is busy", "read error", "read error"];
    assert_eq!(told, expected.map(|text| (0, text.to_owned())));
    let mut ends: Vec<_> = KINDS
        .iter()
        .map(|_| {
            wait_for(&mut events, |event| match event {
                Event::Refused { refusal, .. } => refusal.detail().map(str::to_owned),
                Event::Failed(_, TransferError::Read(cause)) => Some(cause.to_string()),
                _ => None,
            })
        })
        .collect();
    ends.sort();
    let source = "the source does not answer";
    assert_eq!(ends, [source, source, "the store does not answer"]);
    assert_eq!(server.stats().active, 0);
}

#[test]
fn a_future_may_refuse_or_panic_and_the_server_goes_on() {
    /// Even the drop panics.
    struct Worse;
    impl Drop for Worse {
        fn drop(&mut self) {
            panic!("on purpose")
        }
    }
    let server = start(calmly(builder(store_fn(|request| {
        let mut is_woken = false;
        let name = request.name.to_vec();
        let worse = (request.name == b"worse").then(|| Worse);
        Ok(Source::future(poll_fn(move |context| {
            if !std::mem::replace(&mut is_woken, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let _ = &worse;
            Poll::Ready(match &name[..] {
                b"missing" => Err(Refusal::not_found()),
                b"panics" => panic!("on purpose"),
                _ => Ok(Source::bytes(pattern(700))),
            })
        })))
    }))));
    let mut events = server.events();
    let refused = |events: &mut tftpool::Events| {
        wait_for(events, |event| match event {
            Event::Refused { refusal, .. } => Some(refusal.clone()),
            _ => None,
        })
    };
    for _ in 0..3 {
        let mut client = Client::new(server.local_addr());
        assert_eq!(client.get("missing"), Err((1, "file not found".into())));
        assert_eq!(refused(&mut events), Refusal::not_found());
        assert_eq!(client.get("panics"), Err((0, "read error".into())));
        assert_eq!(refused(&mut events).detail(), Some("the store panicked"));
        assert_eq!(client.get("worse"), Ok(pattern(700)));
        assert_eq!(client.get("file"), Ok(pattern(700)));
    }
    server.stop(Stop::Drain(PATIENCE));
    let stats = server.join().expect("an end");
    assert_eq!((stats.active, stats.completed, stats.refused), (0, 6, 6));
}

/// A client for each kind of source, which has sent its request.
fn one_of_each_kind(server: &tftpool::Server) -> Vec<Client> {
    let kinds = KINDS.iter().enumerate();
    let ask = |(number, kind): (usize, &&str)| {
        let mut client = Client::new(server.local_addr());
        client.ask(&format!("{kind}/{number}"), &[]);
        client
    };
    kinds.map(ask).collect()
}

#[test]
fn a_cancel_or_a_stop_ends_what_waits_at_once_and_tells_the_client() {
    for is_stop in [true, false] {
        let backend = Backend::default();
        let server = waiting(&backend);
        let mut events = server.events();
        let mut clients = one_of_each_kind(&server);
        let ids = KINDS.map(|_| {
            wait_for(&mut events, |event| match event {
                Event::Request { id, .. } => Some(*id),
                _ => None,
            })
        });
        until_asked(&backend, KINDS.len() - 1);
        let (words, expected) = match is_stop {
            true => ("server is stopping", TransferError::Stopped),
            false => ("transfer was cancelled", TransferError::Cancelled),
        };
        let rest = match is_stop {
            true => {
                server.stop(Stop::Now);
                Some(server.join().expect("an end"))
            }
            false => {
                ids.into_iter().for_each(|id| server.cancel(id));
                None
            }
        };
        for client in &mut clients {
            assert_eq!(client.error(), (0, words.into()));
        }
        for _ in KINDS {
            assert_eq!(failed(&mut events).1, expected);
        }
        assert_eq!(rest.map_or(0, |stats| stats.active), 0);
        // A source that comes too late, when the transfer is over.
        for number in 0..KINDS.len() {
            backend.give(number, ALL);
        }
    }
}

#[test]
fn a_drain_waits_for_sources_that_have_nothing_yet() {
    let backend = Backend::default();
    let server = waiting(&backend);
    let mut events = server.events();
    let mut clients = one_of_each_kind(&server);
    until_asked(&backend, KINDS.len() - 1);
    server.stop(Stop::Drain(2 * PATIENCE));
    // The loop has read the stop when its port is free.
    let end = now() + PATIENCE;
    while std::net::UdpSocket::bind(server.local_addr()).is_err() {
        assert!(now() < end, "the server goes on to listen");
        std::thread::yield_now();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.quiet();
        backend.give(number, ALL);
        let first = client.data(1);
        let rest = client.rest(1, 512).expect("the rest");
        assert_eq!([first, rest].concat(), content(number));
        completed(&mut events);
    }
    let stats = server.join().expect("an end");
    assert_eq!((stats.completed, stats.failed), (3, 0));
}

/// A transfer that waits is half-open as long as its client has answered nothing: the request may
/// be forged. One whose client waits for the next block is not silent, however long that takes.
#[test]
fn half_open_transfers_that_wait_make_room_and_established_ones_do_not() {
    let backend = Backend::default();
    let server = start(calmly(builder(backend.store())).limits(|limits| {
        limits.workers = 2;
        limits.store_deadline = 2 * PATIENCE;
        limits.max_half_open = Some(2);
    }));
    let mut events = server.events();
    let mut established = Client::new(server.local_addr());
    backend.give(1, 512);
    established.ask("reader/1", &[]);
    assert_eq!(established.data(1), content(1)[..512]);
    let asked = backend.asked();
    established.ack(1);
    until_asked(&backend, asked);
    let mut waiting = [2, 3].map(|number| {
        let mut client = Client::new(server.local_addr());
        let name = format!("{}/{number}", KINDS[number % 2]);
        insist(&mut client, &mut events, &name, &[]);
        client
    });
    let mut other = Client::new(server.local_addr());
    // Asks until the chance of the others is over.
    let (summary, failure) = loop {
        other.ask("file", &[]);
        let ended = wait_for(&mut events, |event| match event {
            Event::Failed(summary, failure) => Some(Some((summary.clone(), failure.clone()))),
            Event::Dropped { .. } => Some(None),
            _ => None,
        });
        if let Some(ended) = ended {
            break ended;
        }
    };
    assert_eq!(failure, TransferError::Evicted);
    let oldest = waiting[0].socket.local_addr().expect("an address");
    assert_eq!(summary.peer, oldest);
    assert!(other.data(1).len() == 512 && other.rest(1, 512).is_ok());
    for number in [1, 2, 3] {
        backend.give(number, ALL);
    }
    assert_eq!(established.rest(1, 512).as_deref(), Ok(&content(1)[512..]));
    let first = waiting[1].data(1);
    let rest = waiting[1].rest(1, 512).expect("the rest");
    assert_eq!([first, rest].concat(), content(3));
    waiting[0].quiet();
}

#[test]
fn a_client_that_breaks_off_while_it_waits_is_heard_at_once() {
    let backend = Backend::default();
    let server = waiting(&backend);
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("reader/1", &[]);
    until_asked(&backend, 0);
    backend.give(1, 512);
    client.data(1);
    let asked = backend.asked();
    client.ack(1);
    until_asked(&backend, asked);
    client.abort(4);
    assert!(matches!(
        failed(&mut events).1,
        TransferError::Aborted { .. }
    ));
}

#[test]
fn a_translated_source_may_have_nothing_yet() {
    let backend = Backend::default();
    let server = waiting(&backend);
    let text: Vec<u8> = content(3);
    let mut client = Client::new(server.local_addr());
    client.tid = None;
    client.shout(&rrq("reader/3", "netascii", &[]));
    for bytes in (0..text.len()).step_by(100) {
        backend.give(3, bytes);
    }
    backend.give(3, ALL);
    let first = client.data(1);
    let rest = client.rest(1, 512).expect("the rest");
    let mut wire = Vec::new();
    for byte in text {
        match byte {
            b'\n' => wire.extend(b"\r\n"),
            b'\r' => wire.extend(b"\r\0"),
            other => wire.push(other),
        }
    }
    assert_eq!([first, rest].concat(), wire);
}

#[test]
fn an_upload_of_our_client_waits_for_its_source() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    struct Keeps(Arc<Mutex<Vec<u8>>>);
    impl Store for Keeps {
        fn read(&self, _: &Request<'_>) -> Result<Source, Refusal> {
            Err(Refusal::not_found())
        }

        fn write(&self, _: &Request<'_>) -> Result<Box<dyn tftpool::Sink>, Refusal> {
            Ok(Box::new(Keeps(Arc::clone(&self.0))))
        }
    }
    impl tftpool::Sink for Keeps {
        fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
            self.0.lock().expect("no panic").extend(octets);
            Ok(())
        }

        fn commit(self: Box<Self>) -> Result<(), Refusal> {
            Ok(())
        }
    }
    let server = start(builder(Keeps(Arc::clone(&taken))));
    let backend = Backend::default();
    let (uploading, asked) = (backend.clone(), server.local_addr());
    let upload = std::thread::spawn(move || {
        let request = Request::new(tftpool::Direction::Read, "none");
        let reader = uploading.reader(5, &request);
        let mut source = Some(reader);
        let later = uploading.clone();
        let future = Source::future(poll_fn(move |context| {
            match later.look(4, context.waker()) {
                0 => Poll::Pending,
                _ => Poll::Ready(Ok(source.take().expect("once"))),
            }
        }));
        tftpool::Client::new(asked).put("file", future)
    });
    until_asked(&backend, 0);
    let asked = backend.asked();
    backend.give(4, ALL);
    until_asked(&backend, asked + 2);
    backend.give(5, 700);
    until_asked(&backend, backend.asked() + 2);
    backend.give(5, ALL);
    let summary = upload.join().expect("no panic").expect("an upload");
    assert_eq!(summary.bytes, content(5).len() as u64);
    assert_eq!(*taken.lock().expect("no panic"), content(5));
}
