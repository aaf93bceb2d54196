//! Files that clients put.

use crate::rig::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tftpool::{
    Dir, DirBuilder, Direction, Event, Failure, Mode, OptionName, Refusal, Request, Sink, Source,
    Stop, Store, WriteMode,
};

fn taking(scratch: &Scratch, mode: WriteMode) -> DirBuilder {
    Dir::builder(scratch.path()).uploads(mode)
}

fn open(builder: DirBuilder) -> Dir {
    builder.open().expect("a directory")
}

fn content(scratch: &Scratch, name: &str) -> Vec<u8> {
    std::fs::read(scratch.at(name)).expect("a file")
}

fn told(code: u16, text: &str) -> Result<(), Trouble> {
    Err(Trouble::Told(code, text.into()))
}

#[test]
fn files_of_every_size_arrive_whatever_was_agreed() {
    use OptionName::{Blksize, Rollover, Timeout, Tsize, Windowsize};
    let scratch = Scratch::new();
    let server = serve(open(taking(&scratch, WriteMode::Overwrite)));
    let mut events = server.events();
    let asked: [&[(OptionName, u64)]; 6] = [
        &[],
        &[(Tsize, 7), (Timeout, 5)],
        &[(Blksize, 1428), (Windowsize, 16)],
        &[(Blksize, 8192), (Windowsize, 4)],
        &[(Blksize, 8), (Windowsize, 64)],
        &[(Windowsize, 32767), (Rollover, 1)],
    ];
    for size in [0, 1, 511, 512, 513, 1428 * 16, 8192 * 8, 100_000] {
        for options in asked {
            let file = pattern(size);
            let put = put(server.local_addr(), "file", Mode::Octet, options, &file);
            assert_eq!(put, Ok(()), "{size} {options:?}");
            let summary = completed(&mut events);
            assert_eq!(summary.bytes, size as u64);
            assert_eq!(summary.direction, Direction::Write);
            assert!(content(&scratch, "file") == file, "{size} {options:?}");
        }
    }
    assert_eq!(scratch.names(), ["file"]);
    let bits = std::fs::metadata(scratch.at("file")).expect("a file");
    assert_eq!(bits.permissions().mode() & 0o777, 0o644);
}

#[test]
fn text_is_translated_back() {
    let scratch = Scratch::new();
    let server = serve(open(taking(&scratch, WriteMode::Create).umask(0o077)));
    let wire = b"one\r\ntwo\r\0three\r\n".repeat(100);
    let text = b"one\ntwo\rthree\n".repeat(100);
    let options = [(OptionName::Windowsize, 3), (OptionName::Blksize, 9)];
    let address = server.local_addr();
    assert_eq!(
        put(address, "text", Mode::Netascii, &options, &wire),
        Ok(())
    );
    assert_eq!(content(&scratch, "text"), text);
    let bits = std::fs::metadata(scratch.at("text")).expect("a file");
    assert_eq!(bits.permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_is_there_is_kept_replaced_or_numbered() {
    for (mode, result, left) in [
        (WriteMode::Create, told(6, "file exists"), vec!["file"]),
        (WriteMode::Overwrite, Ok(()), vec!["file"]),
        (WriteMode::Unique, Ok(()), vec!["file", "file.1"]),
    ] {
        let scratch = Scratch::new();
        scratch.file("file", "old");
        let server = serve(open(taking(&scratch, mode).durable(true)));
        let put = put(server.local_addr(), "file", Mode::Octet, &[], b"new");
        assert_eq!(put, result, "{mode:?}");
        assert_eq!(scratch.names(), left, "{mode:?}");
        let new = left.last().filter(|_| result.is_ok());
        if let Some(name) = new {
            assert_eq!(content(&scratch, name), b"new", "{mode:?}");
        }
        if mode != WriteMode::Overwrite {
            assert_eq!(content(&scratch, "file"), b"old", "{mode:?}");
        }
    }
}

/// Names of up to 255 bytes are stored here; a suffix takes one at least.
#[test]
fn a_long_name_gets_a_short_suffix_or_is_refused_before_its_first_block() {
    let scratch = Scratch::new();
    let server = serve(open(taking(&scratch, WriteMode::Unique)));
    let name = "n".repeat(254);
    for suffix in ["", "1", "2"] {
        let put = put(server.local_addr(), &name, Mode::Octet, &[], b"new");
        assert_eq!(put, Ok(()), "{suffix}");
        assert_eq!(content(&scratch, &format!("{name}{suffix}")), b"new");
    }
    for number in 3..=9 {
        scratch.file(format!("{name}{number}"), "old");
    }
    for (name, code, text) in [
        ("n".repeat(255), 4, "file name too long"),
        ("n".repeat(254), 6, "file exists"),
    ] {
        let mut client = Client::new(server.local_addr());
        client.offer(&name, &[]);
        assert_eq!(client.error(), (code, text.into()), "{}", name.len());
    }
    assert_eq!(scratch.names().len(), 10);
}

#[test]
fn uploads_land_where_they_are_told_to_and_nowhere_else() {
    let (reads, scratch, outside) = (Scratch::new(), Scratch::new(), Scratch::new());
    std::fs::create_dir(scratch.at("inside")).expect("a directory");
    scratch.file("target", "safe");
    symlink("target", scratch.at("link")).expect("a link");
    symlink("inside", scratch.at("way in")).expect("a link");
    symlink(outside.path(), scratch.at("way out")).expect("a link");
    let dir = Dir::builder(reads.path())
        .allow_symlink_target(outside.path())
        .uploads(WriteMode::Overwrite)
        .upload_dir(scratch.path());
    let server = serve(open(dir));
    let violation = || told(2, "access violation");
    for (name, result) in [
        ("/inside//a", Ok(())),
        ("inside/../b", Ok(())),
        ("way in/c", Ok(())),
        ("new/d", told(1, "file not found")),
        ("target/e", told(1, "file not found")),
        ("../f", violation()),
        ("way out/g", violation()),
        ("link", violation()),
        ("inside", violation()),
        (".", violation()),
        ("h\u{7}", violation()),
        (".tftpool-0123456789abcdef", violation()),
    ] {
        let put = put(server.local_addr(), name, Mode::Octet, &[], b"new");
        assert_eq!(put, result, "{name}");
    }
    let top = ["b", "inside", "link", "target", "way in", "way out"];
    assert_eq!(scratch.names(), top);
    for name in ["inside/a", "b", "inside/c"] {
        assert_eq!(content(&scratch, name), b"new", "{name}");
    }
    assert_eq!(content(&scratch, "target"), b"safe");
    assert!(outside.names().is_empty() && reads.names().is_empty());
    let asked = fetch(server.local_addr(), "b", &[]);
    assert_eq!(asked, Err(Trouble::Told(1, "file not found".into())));
}

#[test]
fn backslashes_are_slashes_where_the_name_is_missing_otherwise() {
    let scratch = Scratch::new();
    for directory in ["boot", "boot/deep"] {
        std::fs::create_dir(scratch.at(directory)).expect("a directory");
    }
    scratch.file(r"boot\literal", "old");
    let server = serve(open(taking(&scratch, WriteMode::Overwrite)));
    for (name, result) in [
        (r"boot\a", Ok(())),
        (r"\boot\deep\b", Ok(())),
        (r"boot/deep\c", Ok(())),
        (r"boot\literal", Ok(())),
        (r"new\d", Ok(())),
        (r"new/e\f", told(1, "file not found")),
        (r"..\g", told(2, "access violation")),
        (r"boot\", told(2, "access violation")),
        (
            r"boot\.tftpool-0123456789abcdef",
            told(2, "access violation"),
        ),
    ] {
        let file = name.as_bytes();
        let put = put(server.local_addr(), name, Mode::Octet, &[], file);
        assert_eq!(put, result, "{name}");
        if result.is_ok() {
            // What was put comes back under the same name.
            let got = fetch(server.local_addr(), name, &[]);
            assert_eq!(got, Ok(file.to_vec()), "{name}");
        }
    }
    assert_eq!(scratch.names(), ["boot", r"boot\literal", r"new\d"]);
    for (name, file) in [
        ("boot/a", r"boot\a"),
        ("boot/deep/b", r"\boot\deep\b"),
        ("boot/deep/c", r"boot/deep\c"),
    ] {
        assert_eq!(content(&scratch, name), file.as_bytes(), "{name}");
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_as_early_as_can_be() {
    let scratch = Scratch::new();
    let server = serve(open(taking(&scratch, WriteMode::Create).max_upload(1000)));
    let mut events = server.events();
    let address = server.local_addr();
    let refused = || told(3, "file is too large");
    let announced = [(OptionName::Tsize, 1001)];
    assert_eq!(put(address, "a", Mode::Octet, &announced, b"x"), refused());
    wait_for(&mut events, |event| {
        matches!(event, Event::Refused { .. }).then_some(())
    });
    // Silence, or a lie, helps no more.
    for options in [&[][..], &[(OptionName::Tsize, 1)]] {
        let put = put(address, "b", Mode::Octet, options, &pattern(1001));
        assert_eq!(put, refused());
        let (summary, failure) = failed(&mut events);
        assert!(matches!(failure, Failure::Store(_)), "{failure}");
        assert_eq!(summary.bytes, 512);
    }
    assert!(scratch.names().is_empty());
    assert_eq!(put(address, "c", Mode::Octet, &[], &pattern(1000)), Ok(()));
    assert_eq!(scratch.names(), ["c"]);
}

#[test]
fn nothing_is_left_of_a_file_that_is_not_whole() {
    let scratch = Scratch::new();
    let server = calm(open(taking(&scratch, WriteMode::Create)));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.offer("file", &[]);
    client.acked(0);
    client.send(1, &pattern(512));
    client.acked(1);
    assert!(!scratch.at("file").exists());
    client.abort(0);
    let (summary, failure) = failed(&mut events);
    assert!(matches!(failure, Failure::Aborted { .. }), "{failure}");
    assert_eq!(summary.bytes, 512);

    client.offer("file", &[]);
    client.acked(0);
    client.send(1, &pattern(512));
    client.acked(1);
    server.stop(Stop::Now);
    assert_eq!(client.error(), (0, "server is stopping".into()));
    server.join().expect("a clean end");
    assert!(scratch.names().is_empty());
}

#[test]
fn a_request_that_comes_again_is_acknowledged_again() {
    let scratch = Scratch::new();
    let server = calm(open(taking(&scratch, WriteMode::Create)));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    for (options, is_agreed) in [(&[][..], false), (&[("blksize", "100")], true)] {
        let name = if is_agreed { "agreed" } else { "plain" };
        client.offer(name, options);
        for _ in 0..3 {
            match client.next() {
                Reply::Ack(0) if !is_agreed => {}
                Reply::Oack(oack) if is_agreed => assert_eq!(oack, "blksize=100"),
                other => panic!("{other:?}"),
            }
            pass_for_no_copy();
            client.shout(&wrq(name, "octet", options));
        }
        let _ = client.next();
        client.send(1, b"short");
        client.acked(1);
        assert_eq!(completed(&mut events).bytes, 5);
        // Its last block once more: the ACK was lost.
        client.send(1, b"short");
        client.acked(1);
    }
    assert_eq!(server.stats().requests, 2);
    assert_eq!(content(&scratch, "plain"), b"short");
}

/// Its upload is complete. It may be a late copy, and the client busy with something else on that
/// port: an ERROR would end that.
#[test]
fn a_request_that_comes_again_behind_the_end_is_refused_only_with_its_data() {
    let scratch = Scratch::new();
    let server = calm(open(taking(&scratch, WriteMode::Create)));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    for (name, options) in [("plain", &[][..]), ("agreed", &[("blksize", "100")])] {
        for again in [false, true] {
            client.offer(name, options);
            match client.next() {
                Reply::Ack(0) if options.is_empty() => {}
                Reply::Oack(oack) if oack == "blksize=100" => {}
                other => panic!("{other:?}"),
            }
            client.send(1, if again { b"other" } else { b"first" });
            if again {
                assert_eq!(client.error(), (6, "file exists".into()));
                assert!(matches!(failed(&mut events).1, Failure::Store(_)));
            } else {
                client.acked(1);
                assert_eq!(completed(&mut events).bytes, 5);
            }
        }
        assert_eq!(content(&scratch, name), b"first");
    }
    // From another port it is no copy.
    let mut other = Client::new(server.local_addr());
    other.offer("plain", &[]);
    assert_eq!(other.error(), (6, "file exists".into()));
}

/// Its client has ended, so nobody answers.
#[test]
fn a_late_copy_of_a_request_leaves_nothing_behind() {
    for mode in [WriteMode::Create, WriteMode::Unique, WriteMode::Overwrite] {
        let scratch = Scratch::new();
        let builder = builder(open(taking(&scratch, mode)));
        let server = start(builder.limits(|limits| limits.timeout = Duration::from_millis(10)));
        let mut events = server.events();
        let mut client = Client::new(server.local_addr());
        client.offer("file", &[]);
        client.acked(0);
        client.send(1, b"content");
        client.acked(1);
        assert_eq!(completed(&mut events).bytes, 7);
        client.shout(&wrq("file", "octet", &[]));
        drop(client);
        assert_eq!(failed(&mut events).0.bytes, 0);
        assert_eq!(server.stats().requests, 2, "a request of its own");
        assert_eq!(scratch.names(), ["file"], "{mode:?}");
        assert_eq!(content(&scratch, "file"), b"content", "{mode:?}");
    }
}

#[test]
fn of_two_writers_of_one_name_both_are_whole_and_one_wins() {
    for (mode, second) in [
        (WriteMode::Overwrite, Reply::Ack(2)),
        (WriteMode::Create, Reply::Error(6, "file exists".into())),
        (WriteMode::Unique, Reply::Ack(2)),
    ] {
        let scratch = Scratch::new();
        let server = calm(open(taking(&scratch, mode)));
        let mut clients = [b'a', b'b'].map(|letter| (Client::new(server.local_addr()), letter));
        for (client, _) in &mut clients {
            client.offer("file", &[]);
            client.acked(0);
        }
        for (client, letter) in &mut clients {
            client.send(1, &[*letter; 512]);
            client.acked(1);
        }
        let [(first, _), (late, _)] = &mut clients;
        first.send(2, b"a");
        first.acked(2);
        assert_eq!(content(&scratch, "file"), [b'a'; 513], "{mode:?}");
        late.send(2, b"b");
        assert_eq!(late.next(), second, "{mode:?}");
        let winner = if mode == WriteMode::Overwrite {
            b'b'
        } else {
            b'a'
        };
        assert_eq!(content(&scratch, "file"), [winner; 513], "{mode:?}");
        let count = 1 + usize::from(mode == WriteMode::Unique);
        assert_eq!(scratch.names().len(), count, "{mode:?}");
    }
}

#[test]
fn a_window_is_acknowledged_once_and_a_hole_is_told() {
    let scratch = Scratch::new();
    let server = calm(open(taking(&scratch, WriteMode::Create)));
    let mut client = Client::new(server.local_addr());
    client.offer("file", &[("blksize", "8"), ("windowsize", "4")]);
    assert_eq!(client.oack(), "blksize=8 windowsize=4");
    let file = pattern(45);
    let block = |number: u16| {
        let start = usize::from(number - 1) * 8;
        &file[start..file.len().min(start + 8)]
    };
    for number in [1, 2, 4] {
        client.send(number, block(number));
    }
    client.acked(2);
    for number in 3..=6 {
        client.send(number, block(number));
    }
    client.acked(6);
    assert_eq!(content(&scratch, "file"), file);
}

#[test]
fn a_client_that_was_served_holds_no_thread_and_no_end() {
    let scratch = Scratch::new();
    let builder = builder(open(taking(&scratch, WriteMode::Overwrite)));
    let server = start(calmly(builder).limits(|limits| {
        limits.workers = 1;
        limits.max_transfers = 4;
        limits.max_transfers_per_client = Some(2);
    }));
    // Each stays to repeat its last ACK; none stands in the way of the next.
    for round in 0..20u8 {
        let name = format!("file {}", round % 3);
        let put = put(server.local_addr(), &name, Mode::Octet, &[], &[round]);
        assert_eq!(put, Ok(()), "round {round}");
    }
    // Nor in the way of the end, however much time that has.
    server.stop(Stop::Drain(100 * PATIENCE));
    let stats = server.join().expect("a clean end");
    assert_eq!((stats.completed, stats.failed, stats.active), (20, 0, 0));
}

#[test]
fn unproven_uploaders_are_few_and_cost_little() {
    let scratch = Scratch::new();
    let builder = builder(open(taking(&scratch, WriteMode::Create)));
    let server = start(calmly(builder).limits(|limits| limits.max_unproven = Some(2)));
    let mut events = server.events();
    let mut clients: Vec<_> = (0..2).map(|_| Client::new(server.local_addr())).collect();
    for client in &mut clients {
        client.offer("file", &[]);
        client.acked(0);
    }
    Client::new(server.local_addr()).offer("file", &[]);
    let reason = wait_for(&mut events, |event| match event {
        Event::Dropped { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, tftpool::DropReason::UnprovenFull);
    assert!(scratch.names().is_empty());
}

// ---- embedders' sinks ---------------------------------------------------------------------------

/// What a sink does at its calls.
#[derive(Clone)]
struct Custom {
    does: &'static str,
    gate: Gate,
    log: Arc<Mutex<Vec<String>>>,
}

impl Custom {
    fn new(does: &'static str) -> Self {
        Self {
            does,
            gate: Gate::default(),
            log: Arc::default(),
        }
    }

    fn call(&self, call: &'static str) -> Result<(), Refusal> {
        self.log.lock().expect("a log").push(call.into());
        match self.does.split_once(" in ") {
            Some(("err", at)) if at == call => {
                Err(Refusal::new(tftpool::ErrorCode::DISK_FULL, "shelf is full")
                    .because("a secret"))
            }
            Some(("panic", at)) if at == call => panic!("on purpose"),
            Some(("block", at)) if at == call => {
                self.gate.pass();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().expect("a log").clone()
    }
}

impl Store for Custom {
    fn read(&self, _: &Request<'_>) -> Result<Source, Refusal> {
        Ok(Source::bytes(pattern(700)))
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        assert_eq!(request.direction, Direction::Write);
        match request.name {
            b"other" => Ok(Box::new(Held(Self::new("nothing")))),
            _ => self.call("write").map(|()| {
                let sink: Box<dyn Sink> = Box::new(Held(self.clone()));
                sink
            }),
        }
    }
}

struct Held(Custom);

impl Sink for Held {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        assert!(!octets.is_empty());
        self.0.call("append")
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        self.0.call("commit")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.call("drop");
    }
}

#[test]
fn a_sink_that_errs_ends_its_upload() {
    for (does, calls) in [
        ("err in write", &["write"][..]),
        ("err in append", &["write", "append", "drop"]),
        ("err in commit", &["write", "append", "commit", "drop"]),
    ] {
        let store = Custom::new(does);
        let server = serve(store.clone());
        let put = put(server.local_addr(), "file", Mode::Octet, &[], b"hello");
        assert_eq!(put, told(3, "shelf is full"), "{does}");
        server.stop(Stop::Now);
        let stats = server.join().expect("a clean end");
        assert_eq!((stats.completed, stats.active), (0, 0), "{does}");
        assert_eq!(store.log(), calls, "{does}");
    }
}

#[test]
fn a_sink_that_panics_fails_one_upload() {
    for does in [
        "panic in write",
        "panic in append",
        "panic in commit",
        "panic in drop",
    ] {
        let store = Custom::new(does);
        let server = calm(store.clone());
        let mut events = server.events();
        let mut client = Client::new(server.local_addr());
        client.offer("file", &[]);
        if does == "panic in write" {
            assert_eq!(client.error(), (0, "write error".into()));
        } else {
            client.acked(0);
            client.send(1, &pattern(512));
            if does == "panic in append" {
                assert_eq!(client.error(), (0, "internal error".into()));
            } else {
                client.acked(1);
                match does {
                    "panic in drop" => client.abort(0),
                    _ => {
                        client.send(2, b"");
                        assert_eq!(client.error(), (0, "internal error".into()));
                    }
                }
            }
            let (_, failure) = failed(&mut events);
            assert_eq!(failure, Failure::Panicked, "{does}");
        }
        let put = put(server.local_addr(), "other", Mode::Octet, &[], b"hello");
        assert_eq!(put, Ok(()), "{does}");
        assert_eq!(completed(&mut events).bytes, 5);
    }
}

#[test]
fn a_sink_that_blocks_holds_up_its_own_upload_only() {
    for does in ["block in append", "block in commit"] {
        let store = Custom::new(does);
        let server = start(builder(store.clone()).limits(|limits| limits.workers = 2));
        let address = server.local_addr();
        let slow = std::thread::spawn(move || {
            let options = [(OptionName::Timeout, 30)];
            put(address, "file", Mode::Octet, &options, b"hello")
        });
        store.gate.wait_for(1);
        for _ in 0..3 {
            assert_eq!(fetch(address, "file", &[]), Ok(pattern(700)));
            assert_eq!(put(address, "other", Mode::Octet, &[], b"hello"), Ok(()));
        }
        store.gate.open();
        assert_eq!(slow.join().expect("no panic"), Ok(()), "{does}");
    }
}
