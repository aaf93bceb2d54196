//! Files that change while they are sent, mapped and read ones.

use crate::rig::*;
use std::fs::{self, File};
use std::path::Path;
use tftpool::{Dir, Failure};

const SIZES: [usize; 2] = [10_000, 200_000]; // read, mapped

/// What the client has in the end, and how the server saw it.
type Outcome = (Result<Vec<u8>, (u16, String)>, Option<Failure>);

/// Fetches the first two blocks of a file, lets something happen to it, and fetches the rest.
fn during(length: usize, change: impl Fn(&Path)) -> Outcome {
    let scratch = Scratch::new();
    let path = scratch.file("file", pattern(length));
    let server = calm(Dir::read_only(scratch.path("")).expect("a directory"));
    let mut events = server.events();
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[("blksize", "1000")]);
    client.oack();
    client.ack(0);
    let mut got = client.data(1);
    client.ack(1);
    got.extend(client.data(2));
    change(&path);
    match client.rest(2, 1000) {
        Ok(rest) => {
            completed(&mut events);
            got.extend(rest);
            (Ok(got), None)
        }
        Err(told) => (Err(told), Some(failed(&mut events).1)),
    }
}

fn changed() -> Outcome {
    (
        Err((0, "file changed during the transfer".into())),
        Some(Failure::FileChanged),
    )
}

fn resize(path: &Path, length: u64) {
    let file = File::options().write(true).open(path).expect("a file");
    file.set_len(length).expect("another length");
}

#[test]
fn truncated_ends_with_an_error() {
    for length in SIZES {
        // Also inside the last page, where a mapping reads as zeros.
        for left in [0, 1, 2500, 8192, length as u64 - 1500, length as u64 - 1] {
            assert_eq!(
                during(length, |path| resize(path, left)),
                changed(),
                "{left} of {length}"
            );
        }
    }
}

#[test]
fn rewritten_in_place_ends_with_an_error() {
    for length in SIZES {
        assert_eq!(
            during(length, |path| fs::write(path, vec![7; length])
                .expect("a file")),
            changed()
        );
        assert_eq!(
            during(length, |path| fs::write(path, "short").expect("a file")),
            changed()
        );
    }
}

#[test]
fn grown_is_served_to_the_length_at_open() {
    for length in SIZES {
        let (got, failure) = during(length, |path| {
            use std::io::Write;
            let mut file = File::options().append(true).open(path).expect("a file");
            file.write_all(&[7; 50_000]).expect("a write");
        });
        assert!(got == Ok(pattern(length)) && failure.is_none());
    }
}

#[test]
fn deleted_is_served_to_the_end() {
    for length in SIZES {
        let (got, failure) = during(length, |path| fs::remove_file(path).expect("a file"));
        assert!(got == Ok(pattern(length)) && failure.is_none());
    }
}

#[test]
fn replaced_by_rename_is_served_to_the_end_and_fresh_to_the_next() {
    for length in SIZES {
        let scratch = Scratch::new();
        scratch.file("file", pattern(length));
        let server = calm(Dir::read_only(scratch.path("")).expect("a directory"));
        let mut client = Client::new(server.local_addr());
        client.ask("file", &[]);
        let mut got = client.data(1);
        let fresh = vec![7; length];
        fs::rename(scratch.file("new", &fresh), scratch.path("file")).expect("a rename");
        let mut second = Client::new(server.local_addr());
        assert!(second.get("file") == Ok(fresh));
        got.extend(client.rest(1, 512).expect("the rest"));
        assert!(got == pattern(length));
    }
}

#[test]
fn netascii_of_a_truncated_file_ends_with_an_error() {
    let scratch = Scratch::new();
    for length in SIZES {
        let path = scratch.file("text", vec![b'\n'; length]);
        let server = calm(Dir::read_only(scratch.path("")).expect("a directory"));
        let mut client = Client::new(server.local_addr());
        client.shout(&rrq("text", "netascii", &[("blksize", "1000")]));
        client.oack();
        client.ack(0);
        client.data(1);
        resize(&path, 9000);
        assert_eq!(
            client.rest(1, 1000),
            Err((0, "file changed during the transfer".into()))
        );
    }
}

#[test]
fn a_root_that_was_replaced_is_served_after_a_reload() {
    let scratch = Scratch::new();
    scratch.file("one/file", "one");
    scratch.file("two/file", "two");
    let link = scratch.path("current");
    std::os::unix::fs::symlink("one", &link).expect("a link");
    let server = calm(Dir::read_only(&link).expect("a directory"));
    let mut client = Client::new(server.local_addr());
    assert_eq!(client.get("file"), Ok("one".into()));
    fs::remove_file(&link).expect("a link");
    std::os::unix::fs::symlink("two", &link).expect("a link");
    assert_eq!(client.get("file"), Ok("one".into()));
    server.stopper().reload();
    // The reload is done by a worker, some time; until then it is the old one, and never anything else.
    let end = now() + PATIENCE;
    loop {
        match client.get("file").expect("a file").as_slice() {
            b"two" => break,
            other => assert!(other == b"one" && now() < end),
        }
    }
}
