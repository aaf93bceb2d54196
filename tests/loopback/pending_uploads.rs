//! Sinks that do not take more yet: their transfers wait without a thread until they are woken.

use crate::backend::*;
use crate::rig::*;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use tftpool::{
    Direction, ErrorCode, Event, Refusal, Request, Server, Sink, Source, Stop, Store, TransferError,
};

/// Takes the bytes of upload `number` up to what the [`Backend`] has given, and is done when that
/// is [`ALL`].
struct Slow {
    backend: Backend,
    number: usize,
    waker: Waker,
    bytes: Vec<u8>,
    /// From then on it takes no more.
    is_finishing: bool,
    files: Files,
}

type Files = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// Given to a sink that refuses, or panics.
const REFUSED: usize = ALL + 1;
const PANICS: usize = ALL + 2;

impl Slow {
    fn look(&self, is_done: impl FnOnce(usize) -> bool) -> Poll<Result<(), Refusal>> {
        match self.backend.look(self.number, &self.waker) {
            REFUSED => Poll::Ready(Err(Refusal::new(ErrorCode::DISK_FULL, "disk full"))),
            PANICS => panic!("on purpose"),
            there if is_done(there) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

impl Sink for Slow {
    fn poll_ready(&mut self) -> Poll<Result<(), Refusal>> {
        self.look(|there| there > self.bytes.len() && !self.is_finishing)
    }

    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.bytes.extend(octets);
        Ok(())
    }

    fn poll_finish(&mut self) -> Poll<Result<(), Refusal>> {
        self.is_finishing = true;
        self.look(|there| there == ALL)
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        let mut files = self.files.lock().expect("no panic");
        files.push((self.number, self.bytes));
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Slots {
    backend: Backend,
    files: Files,
}

impl Store for Slots {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        match request.name {
            b"file" => Ok(Source::bytes(pattern(5000))),
            _ => Err(Refusal::not_found()),
        }
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        assert_eq!(request.direction, Direction::Write);
        let name = String::from_utf8_lossy(request.name);
        Ok(Box::new(Slow {
            backend: self.backend.clone(),
            number: name.parse().map_err(|_| Refusal::not_found())?,
            waker: request.waker().clone(),
            bytes: Vec::new(),
            is_finishing: false,
            files: Arc::clone(&self.files),
        }))
    }
}

impl Slots {
    fn server(&self) -> Server {
        start(calmly(builder(self.clone())).limits(|limits| {
            limits.workers = 2;
            limits.store_deadline = 2 * PATIENCE;
        }))
    }

    fn stored(&self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut *self.files.lock().expect("no panic"))
    }
}

#[test]
fn a_sink_takes_bytes_when_it_is_woken_and_the_client_repeats_itself_for_nothing() {
    let slots = Slots::default();
    let server = slots.server();
    let mut events = server.events();
    let file = pattern(1100);
    let mut client = Client::new(server.local_addr());
    client.offer("1", &[]);
    client.acked(0);
    for (block, bytes) in (1..).zip(file.chunks(512)) {
        for _ in 0..5 {
            client.send(block, bytes);
            client.shout(&wrq("1", "octet", &[]));
            fence(&server);
        }
        client.quiet();
        // Each packet is worth a look at the sink, and the repeated requests bring no more.
        let asked = slots.backend.asked();
        (0..20).for_each(|_| fence(&server));
        let more = slots.backend.asked() - asked;
        assert!(more <= 4, "{more} turns of a transfer that waits");
        slots.backend.give(1, usize::from(block) * 512);
        if bytes.len() == 512 {
            client.acked(block);
            fence(&server);
            client.quiet();
        }
    }
    // All bytes were taken, and the file is not stored.
    client.send(3, &file[1024..]);
    fence(&server);
    client.quiet();
    assert!(slots.stored().is_empty());
    slots.backend.give(1, ALL);
    client.acked(3);
    assert_eq!(slots.stored(), [(1, file)]);
    let summary = completed(&mut events);
    assert_eq!((summary.bytes, summary.lossy_windows), (1100, 0));
    assert_eq!((server.stats().failed, server.stats().active), (0, 0));
}

#[test]
fn a_window_lies_unread_until_the_sink_takes_it() {
    let slots = Slots::default();
    let server = slots.server();
    let mut events = server.events();
    let file = pattern(8 * 512 + 100);
    let mut client = Client::new(server.local_addr());
    client.offer("7", &[("windowsize", "4")]);
    client.oack();
    for (window, blocks) in file.chunks(4 * 512).enumerate() {
        let first = window as u16 * 4 + 1;
        for (block, bytes) in (first..).zip(blocks.chunks(512)) {
            client.send(block, bytes);
        }
        fence(&server);
        client.quiet();
        slots
            .backend
            .give(7, file.len().min((window + 1) * 2048) + 1);
        if blocks.len() == 2048 {
            client.acked(first + 3);
        }
    }
    fence(&server);
    client.quiet();
    slots.backend.give(7, ALL);
    client.acked(9);
    assert_eq!(slots.stored(), [(7, file)]);
    let summary = completed(&mut events);
    assert_eq!((summary.retransmits, summary.lossy_windows), (0, 0));
}

/// On a pool of two threads.
#[test]
fn uploads_that_wait_cost_no_thread_and_no_turn() {
    const WAITING: usize = 40;
    let slots = Slots::default();
    let server = slots.server();
    let mut events = server.events();
    let mut clients: Vec<_> = (0..WAITING)
        .map(|number| {
            let mut client = Client::new(server.local_addr());
            client.offer(&number.to_string(), &[]);
            client.acked(0);
            client.send(1, &pattern(100 + number));
            client
        })
        .collect();
    let mut other = Client::new(server.local_addr());
    let mut turns = 0;
    for number in 0..60 {
        assert_eq!(other.get("file"), Ok(pattern(5000)));
        completed(&mut events);
        if number == 20 {
            turns = slots.backend.asked();
        }
    }
    assert_eq!(
        slots.backend.asked(),
        turns,
        "one that waits has had a turn"
    );
    for number in 0..WAITING {
        slots.backend.give(number, ALL);
    }
    for client in &mut clients {
        client.acked(1);
    }
    let mut stored = slots.stored();
    stored.sort();
    let expected = (0..WAITING).map(|number| (number, pattern(100 + number)));
    assert!(stored.into_iter().eq(expected));
}

#[test]
fn a_sink_that_waits_may_refuse_or_panic_before_and_behind_the_last_byte() {
    let slots = Slots::default();
    let server = slots.server();
    let mut events = server.events();
    for is_whole in [false, true] {
        for (what, told) in [(REFUSED, (3, "disk full")), (PANICS, (0, "internal error"))] {
            let mut client = Client::new(server.local_addr());
            slots.backend.give(3, 0);
            client.offer("3", &[]);
            client.acked(0);
            if is_whole {
                slots.backend.give(3, 600);
            }
            client.send(1, b"bytes");
            fence(&server);
            client.quiet();
            slots.backend.give(3, what);
            assert_eq!(client.error(), (told.0, told.1.into()));
            let failure = failed(&mut events).1;
            match what {
                REFUSED => assert!(matches!(failure, TransferError::Store(_)), "{failure:?}"),
                _ => assert_eq!(failure, TransferError::Panicked),
            }
            slots.backend.wake(3);
        }
    }
    assert!(slots.stored().is_empty());
}

#[test]
fn a_sink_that_never_takes_more_fails_and_the_client_is_told() {
    let slots = Slots::default();
    let server = start(calmly(builder(slots.clone())).limits(|limits| {
        limits.workers = 2;
        limits.store_deadline = Duration::from_secs(1);
    }));
    let mut events = server.events();
    let mut clients: Vec<_> = [0, 600]
        .into_iter()
        .enumerate()
        .map(|(number, there)| {
            slots.backend.give(number, there);
            let mut client = Client::new(server.local_addr());
            client.offer(&number.to_string(), &[]);
            client.acked(0);
            client.send(1, b"bytes");
            client
        })
        .collect();
    for client in &mut clients {
        assert_eq!(client.error(), (0, "write error".into()));
        let TransferError::Store(refusal) = failed(&mut events).1 else {
            panic!("the sink's fault");
        };
        assert_eq!(refusal.detail(), Some("the sink does not answer"));
    }
    assert!(slots.stored().is_empty());
}

#[test]
fn a_cancel_or_a_stop_ends_an_upload_that_waits_for_its_sink() {
    for is_stop in [true, false] {
        let slots = Slots::default();
        let server = slots.server();
        let mut events = server.events();
        slots.backend.give(1, 600);
        let mut clients = [
            Client::new(server.local_addr()),
            Client::new(server.local_addr()),
        ];
        for (number, client) in clients.iter_mut().enumerate() {
            client.offer(&number.to_string(), &[]);
            client.acked(0);
            client.send(1, b"bytes");
        }
        let ids = [0, 1].map(|_| {
            wait_for(&mut events, |event| match event {
                Event::Request { id, .. } => Some(*id),
                _ => None,
            })
        });
        fence(&server);
        let words = match is_stop {
            true => {
                server.stop(Stop::Now);
                assert_eq!(server.join().expect("an end").active, 0);
                "server is stopping"
            }
            false => {
                ids.into_iter().for_each(|id| server.cancel(id));
                "transfer was cancelled"
            }
        };
        for client in &mut clients {
            assert_eq!(client.error(), (0, words.into()));
        }
        assert!(slots.stored().is_empty());
    }
}
