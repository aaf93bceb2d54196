//! Every kind of source, honest ones and liars.

use crate::rig::*;
use std::io::{self, Read};
use tftpool::{Event, Failure, Object, OptionName, Source, store_fn};

const LENGTH: usize = 100_000;

/// Reads `content` in small, odd portions.
struct Dribble(io::Cursor<Vec<u8>>);

impl Read for Dribble {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(977);
        self.0.read(&mut out[..most])
    }
}

fn dribble(length: usize) -> Dribble {
    Dribble(io::Cursor::new(pattern(length)))
}

/// An object of a store with versions.
struct Versioned<F> {
    content: Vec<u8>,
    is_current: F,
}

impl<F: Fn() -> bool + Send> Object for Versioned<F> {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        (&self.content[offset as usize..]).take(977).read(out)
    }

    fn len(&self) -> u64 {
        self.content.len() as u64
    }

    fn unchanged(&self) -> io::Result<bool> {
        Ok((self.is_current)())
    }
}

#[test]
fn every_kind_of_source_brings_its_octets() {
    let scratch = Scratch::new();
    let large = scratch.file("large", &pattern(LENGTH));
    let small = scratch.file("small", &pattern(60_000));
    let server = serve(store_fn(move |request| {
        let content = pattern(LENGTH);
        Ok(match request.name {
            b"mapped" => Source::file(std::fs::File::open(&large).expect("a file")),
            b"read" => Source::file(std::fs::File::open(&small).expect("a file")),
            b"bytes" => Source::bytes(content),
            b"read_at" => Source::read_at(
                move |out, from| (&content[from as usize..]).take(977).read(out),
                LENGTH as u64,
            ),
            b"object" => Source::object(Versioned {
                content,
                is_current: || true,
            }),
            b"reader" => Source::reader(dribble(LENGTH), None),
            b"reader with length" => Source::reader(dribble(LENGTH), Some(LENGTH as u64)),
            _ => return Err(tftpool::Refusal::not_found()),
        })
    }));
    for (name, length, has_size) in [
        ("mapped", LENGTH, true),
        ("read", 60_000, true),
        ("bytes", LENGTH, true),
        ("read_at", LENGTH, true),
        ("object", LENGTH, true),
        ("reader", LENGTH, false),
        ("reader with length", LENGTH, true),
    ] {
        for (blksize, windowsize) in [(512, 1), (1000, 7), (1428, 64), (65464, 2)] {
            let options = [
                (OptionName::Blksize, blksize),
                (OptionName::Windowsize, windowsize),
                (OptionName::Tsize, 0),
            ];
            let got = fetch(server.local_addr(), name, &options);
            assert!(
                got == Ok(pattern(length)),
                "{name} by {blksize} × {windowsize}"
            );
        }
        let mut client = Client::new(server.local_addr());
        client.ask(name, &[("tsize", "0"), ("blksize", "1000")]);
        let size = if has_size {
            format!("tsize={length} ")
        } else {
            String::new()
        };
        assert_eq!(client.oack(), format!("{size}blksize=1000"));
        client.abort(8);
    }
}

/// procfs says that a file is empty, sysfs that it has 4096 bytes.
#[test]
fn a_file_that_misreports_its_size_is_read_to_its_end() {
    let [proc, sys] = ["/proc/filesystems", "/sys/kernel/fscaps"];
    let server = serve(store_fn(|request| {
        let name = std::str::from_utf8(request.name).expect("text");
        let file = std::fs::File::open(name).map_err(|_| tftpool::Refusal::not_found())?;
        Ok(Source::file(file))
    }));
    for name in [proc, sys] {
        let Ok(content) = std::fs::read(name) else {
            continue; // no such kernel
        };
        for blksize in [8, 512, 65464] {
            let options = [(OptionName::Blksize, blksize), (OptionName::Windowsize, 3)];
            let got = fetch(server.local_addr(), name, &options);
            assert_eq!(got, Ok(content.clone()), "{name} by {blksize}");
        }
        let mut client = Client::new(server.local_addr());
        client.ask(name, &[("tsize", "0"), ("blksize", "1000")]);
        assert_eq!(client.oack(), "blksize=1000", "{name}");
        client.abort(8);
        let mut client = Client::new(server.local_addr());
        client.shout(&rrq(name, "netascii", &[]));
        let text = String::from_utf8(content)
            .expect("text")
            .replace('\n', "\r\n");
        let first = &text.as_bytes()[..text.len().min(512)];
        assert_eq!(client.data(1), first, "{name}");
        client.abort(8);
    }
    // A hole has no blocks either, and ends where it says.
    let scratch = Scratch::new();
    let hole = scratch.file("hole", "");
    let file = std::fs::File::options().write(true).open(&hole);
    file.and_then(|file| file.set_len(70_000)).expect("a hole");
    let mut client = Client::new(server.local_addr());
    let name = hole.to_str().expect("UTF-8");
    client.ask(name, &[("tsize", "0"), ("blksize", "1000")]);
    assert_eq!(client.oack(), "tsize=70000 blksize=1000");
    client.abort(8);
    assert_eq!(fetch(server.local_addr(), name, &[]), Ok(vec![0; 70_000]));
}

/// Fetches by 1000 octets to the end that the server finds: how much came, what the client was
/// told, and the event.
fn broken(
    source: impl Fn() -> Source + Send + Sync + 'static,
    mode: &str,
) -> (usize, (u16, String), Failure) {
    let server = calm(store_fn(move |_| Ok(source())));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.shout(&rrq("file", mode, &[("blksize", "1000")]));
    client.oack();
    let (mut block, mut came) = (0, 0);
    let told = loop {
        client.ack(block);
        block += 1;
        match client.next() {
            Reply::Data(number, octets) => {
                assert_eq!(
                    (number, octets.len()),
                    (block, 1000),
                    "no block that looks final"
                );
                came += octets.len();
            }
            Reply::Error(code, text) => break (code, text),
            other => panic!("{other:?}"),
        }
    };
    let (_, failure) = failed(&mut events);
    assert!(
        !told.1.contains("secret"),
        "the peer is told nothing of this machine: {told:?}"
    );
    assert_eq!(server.stats().active, 0);
    (came, told, failure)
}

fn changed() -> (u16, String) {
    (0, "file changed during the transfer".into())
}

#[test]
fn a_reader_with_another_length_than_promised_fails() {
    for mode in ["octet", "netascii"] {
        for (has, promised) in [
            (2500, 9000),
            (9000, 2500),
            (2000, 2001),
            (2001, 2000),
            (2000, 3000),
        ] {
            let source = move || Source::reader(io::Cursor::new(vec![b'x'; has]), Some(promised));
            let (came, told, failure) = broken(source, mode);
            assert_eq!(
                (told, failure),
                (changed(), Failure::FileChanged),
                "{has} of {promised} {mode}"
            );
            assert!(came <= has.min(promised as usize));
        }
    }
}

#[test]
fn a_read_at_that_ends_early_fails() {
    let content = pattern(2500);
    let source = move || {
        let content = content.clone();
        Source::read_at(
            move |out, from| content.get(from as usize..).unwrap_or_default().read(out),
            9000,
        )
    };
    assert_eq!(
        broken(source, "octet"),
        (2000, changed(), Failure::FileChanged)
    );
}

#[test]
fn a_read_error_in_the_middle_is_told_without_its_text() {
    let wrong = || io::Error::other("/secret/disk fell off");
    let told = (0, "read error".to_owned());
    let failure = Failure::Read("/secret/disk fell off".into());
    let at = move || {
        let read = move |out: &mut [u8], from: u64| match from {
            0..3000 => {
                let most = out.len().min(3000 - from as usize);
                out[..most].fill(b'x');
                Ok(most)
            }
            _ => Err(wrong()),
        };
        Source::read_at(read, 9000)
    };
    assert_eq!(broken(at, "octet"), (3000, told.clone(), failure.clone()));
    assert_eq!(
        broken(at, "netascii"),
        (3000, told.clone(), failure.clone())
    );

    struct Faulty(u64);
    impl Read for Faulty {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match io::repeat(b'x').take(self.0).read(out)? {
                0 => Err(io::Error::other("/secret/disk fell off")),
                length => {
                    self.0 -= length as u64;
                    Ok(length)
                }
            }
        }
    }
    let reader = || Source::reader(Faulty(3000), None);
    assert_eq!(
        broken(reader, "octet"),
        (3000, told.clone(), failure.clone())
    );
    assert_eq!(broken(reader, "netascii"), (3000, told, failure));
}

/// An object is asked before its last block goes out, and in netascii before its end is known. An
/// object that cannot say is one that cannot be read.
#[test]
fn an_object_that_is_another_version_at_the_end_fails_its_transfer() {
    for (mode, came) in [("octet", 2000), ("netascii", 2000)] {
        for length in [2500, 3000] {
            let source = move || {
                Source::object(Versioned {
                    content: vec![b'x'; length],
                    is_current: || false,
                })
            };
            let came = came + (length - 2500) * 2;
            let wanted = (came, changed(), Failure::FileChanged);
            assert_eq!(broken(source, mode), wanted, "{length} {mode}");
        }
    }

    struct Gone;
    impl Object for Gone {
        fn read_at(&self, out: &mut [u8], _: u64) -> io::Result<usize> {
            out.fill(b'x');
            Ok(out.len())
        }

        fn len(&self) -> u64 {
            2500
        }

        fn unchanged(&self) -> io::Result<bool> {
            Err(io::Error::other("secret backend is gone"))
        }
    }
    let told = (0, "read error".to_owned());
    let failure = Failure::Read("secret backend is gone".into());
    let wanted = (2000, told, failure);
    assert_eq!(broken(|| Source::object(Gone), "octet"), wanted);
}

#[test]
fn what_fails_before_the_first_block_is_an_error_too() {
    let server = calm(store_fn(|_| {
        Ok(Source::read_at(|_, _| Err(io::Error::other("no")), 10))
    }));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    assert_eq!(client.error(), (0, "read error".into()));
    assert_eq!(failed(&mut events).1, Failure::Read("no".into()));
}

#[test]
fn a_directory_as_a_file_is_refused_or_fails_honestly() {
    let server = calm(store_fn(|_| {
        Ok(Source::file(std::fs::File::open("/").expect("a directory")))
    }));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    assert_eq!(client.error().0, 0);
    wait_for(&mut events, |event| {
        matches!(event, Event::Refused { .. } | Event::Failed(..)).then_some(())
    });
}
