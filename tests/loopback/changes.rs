//! Files that change while they are sent, mapped and read ones.

use crate::rig::*;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tftpool::{Dir, Failure, Mode, OptionName, Server};

const SIZES: [usize; 2] = [10_000, 200_000]; // read, mapped

/// What the client has in the end, and how the server saw it.
type Outcome = (Result<Vec<u8>, (u16, String)>, Option<Failure>);

/// Fetches the first two blocks of a file, lets something happen to it, and fetches the rest.
fn during(length: usize, change: impl Fn(&Path)) -> Outcome {
    let scratch = Scratch::new();
    let path = scratch.file("file", &pattern(length));
    let server = calm(Dir::read_only(scratch.path()).expect("a directory"));
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

/// Many blocks leave in one call, straight from the mapping.
#[test]
fn in_windows_it_is_the_same() {
    type Change = fn(&Path);
    const LENGTH: usize = 199_500; // the last block is not full
    let cases: [(&str, bool, Change); 5] = [
        ("truncated", false, |path| resize(path, 0)),
        ("cut inside a block", false, |path| {
            resize(path, LENGTH as u64 - 1)
        }),
        ("rewritten", false, |path| {
            fs::write(path, vec![7; LENGTH]).expect("a file");
        }),
        ("deleted", true, |path| {
            fs::remove_file(path).expect("a file");
        }),
        ("grown", true, |path| resize(path, 300_000)),
    ];
    for windowsize in [4, 64] {
        for (what, is_served, change) in cases {
            let scratch = Scratch::new();
            let path = scratch.file("file", &pattern(LENGTH));
            let server = start(builder(
                Dir::read_only(scratch.path()).expect("a directory"),
            ));
            let mut got = Vec::new();
            let store = |block: &[u8]| {
                if got.is_empty() {
                    change(&path);
                }
                got.extend_from_slice(block);
            };
            let options = [
                (OptionName::Blksize, 1000),
                (OptionName::Windowsize, windowsize),
            ];
            let client = Client::new(server.local_addr());
            let end = fetch_into(
                store,
                &client.socket,
                server.local_addr(),
                "file",
                Mode::Octet,
                &options,
            );
            let why = format!("{what}, {windowsize}: {} octets, {end:?}", got.len());
            if is_served {
                assert!(end.is_ok() && got == pattern(LENGTH), "{why}");
            } else {
                let told = Trouble::Told(0, "file changed during the transfer".into());
                assert_eq!(end, Err(told), "{why}");
                assert!(got.len() < LENGTH, "{why}");
            }
        }
    }
}

#[test]
fn grown_is_served_to_the_length_at_open() {
    for length in SIZES {
        let (got, failure) = during(length, |path| {
            let mut file = File::options().append(true).open(path).expect("a file");
            file.write_all(&[7; 50_000]).expect("a write");
        });
        assert!(got == Ok(pattern(length)) && failure.is_none());
    }
}

/// A known limit, and no promise: whether a file that got longer has grown or was rewritten is not
/// to be seen, and files that grow are served. Its octets are whatever was there when they were
/// sent.
#[test]
fn rewritten_by_a_longer_one_counts_as_grown_and_is_mixed() {
    for length in SIZES {
        let (got, failure) = during(length, |path| {
            // Without a moment in which the file is shorter.
            let mut file = File::options().write(true).open(path).expect("a file");
            file.write_all(&vec![7; length + 1]).expect("a write");
        });
        let mixed = [&pattern(length)[..2000], &vec![7; length - 2000]].concat();
        assert!(got == Ok(mixed) && failure.is_none());
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
        scratch.file("file", &pattern(length));
        let server = calm(Dir::read_only(scratch.path()).expect("a directory"));
        let mut client = Client::new(server.local_addr());
        client.ask("file", &[]);
        let mut got = client.data(1);
        let fresh = vec![7; length];
        fs::rename(scratch.file("new", &fresh), scratch.at("file")).expect("a rename");
        let mut second = Client::new(server.local_addr());
        assert!(second.get("file") == Ok(fresh));
        got.extend(client.rest(1, 512).expect("the rest"));
        assert!(got == pattern(length));
    }
}

/// Of a text whose length on the wire is another one, the first block is there.
fn begun_in_netascii(scratch: &Scratch, length: usize) -> (Server, Client) {
    scratch.file("text", &vec![b'\n'; length]);
    let server = calm(Dir::read_only(scratch.path()).expect("a directory"));
    let mut client = Client::new(server.local_addr());
    client.shout(&rrq("text", "netascii", &[("blksize", "1000")]));
    client.oack();
    client.ack(0);
    client.data(1);
    (server, client)
}

#[test]
fn netascii_of_a_truncated_file_ends_with_an_error() {
    let scratch = Scratch::new();
    for length in SIZES {
        let (_server, mut client) = begun_in_netascii(&scratch, length);
        resize(&scratch.at("text"), 9000);
        assert_eq!(
            client.rest(1, 1000),
            Err((0, "file changed during the transfer".into()))
        );
    }
}

/// Its length does not tell: only its time stamp does.
#[test]
fn netascii_of_a_file_rewritten_in_place_ends_with_an_error() {
    let scratch = Scratch::new();
    for length in SIZES {
        let (server, mut client) = begun_in_netascii(&scratch, length);
        let mut events = server.events();
        fs::write(scratch.at("text"), vec![b'.'; length]).expect("a file");
        assert_eq!(
            client.rest(1, 1000),
            Err((0, "file changed during the transfer".into()))
        );
        assert_eq!(failed(&mut events).1, Failure::FileChanged);
    }
}

#[test]
fn a_root_that_was_replaced_is_served_after_a_reload() {
    let scratch = Scratch::new();
    scratch.file("one/file", "one");
    scratch.file("two/file", "two");
    let link = scratch.at("current");
    std::os::unix::fs::symlink("one", &link).expect("a link");
    let server = calm(Dir::read_only(&link).expect("a directory"));
    let mut client = Client::new(server.local_addr());
    assert_eq!(client.get("file"), Ok("one".into()));
    fs::remove_file(&link).expect("a link");
    std::os::unix::fs::symlink("two", &link).expect("a link");
    assert_eq!(client.get("file"), Ok("one".into()));
    server.stopper().reload();
    // The reload is done by a worker, some time; until then it is the old one, and never anything
    // else.
    let end = now() + PATIENCE;
    loop {
        match client.get("file").expect("a file").as_slice() {
            b"two" => break,
            other => assert!(other == b"one" && now() < end),
        }
    }
}

/// Somebody who may write below the root swaps a file for a link that leads outside, as fast as he
/// can.
#[test]
fn a_link_swapped_in_a_tight_loop_never_brings_an_octet_from_outside() {
    let scratch = Scratch::new();
    scratch.file("root/inside", "inside");
    scratch.file("outside/secret", "secret");
    scratch.file("root/real/file", "inside");
    scratch.file("outside/real/file", "secret");
    let root = scratch.at("root");
    let server = calm(Dir::read_only(&root).expect("a directory"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let link = |target: &str, name: &str| {
                let _ = fs::remove_file(root.join(".new"));
                std::os::unix::fs::symlink(target, root.join(".new")).expect("a link");
                fs::rename(root.join(".new"), root.join(name)).expect("a rename");
            };
            while !over.load(Ordering::Relaxed) {
                link("inside", "file");
                link("real", "folder");
                link("../outside/secret", "file");
                link("../outside/real", "folder");
            }
        });
        // Also when something here panics, or the test would never end.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&over);
        let (mut served, mut refused) = (0, 0);
        let mut client = Client::new(server.local_addr());
        let end = now() + PATIENCE;
        let mut asked = 0;
        while asked < 2000 || (served == 0 || refused == 0) && now() < end {
            asked += 1;
            match client.get(["file", "folder/file"][asked % 2]) {
                Ok(octets) => {
                    assert_eq!(octets, b"inside");
                    served += 1;
                }
                // One answer for everything outside; before the first link there is nothing.
                Err((code @ (1 | 2), text)) => {
                    assert!(!text.contains("outside"), "{code} {text}");
                    refused += 1;
                }
                // The tree changed under every attempt.
                Err((code, text)) => assert_eq!(code, 0, "{text}"),
            }
        }
        assert!(
            served > 0 && refused > 0,
            "{served} served, {refused} refused"
        );
    });
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let scratch = Scratch::new();
    scratch.file("file", "octets");
    let pipe = scratch.at("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("a pipe");
    let _listener = std::os::unix::net::UnixListener::bind(scratch.at("socket")).expect("a socket");
    std::os::unix::fs::symlink("/dev/zero", scratch.at("device")).expect("a link");
    fs::create_dir(scratch.at("folder")).expect("a directory");
    let server = calm(Dir::read_only(scratch.path()).expect("a directory"));
    let mut client = Client::new(server.local_addr());
    for name in ["pipe", "socket", "device", "folder"] {
        let (code, text) = client.get(name).expect_err(name);
        assert_eq!(code, 2, "{name}: {text}");
    }
    assert_eq!(client.get("file"), Ok("octets".into()));
}
