//! Many clients and few threads.

use crate::rig::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tftpool::{OptionName, Server};

fn crowd(workers: usize, clients: usize) {
    let store = shelf([
        ("small", pattern(300)),
        ("medium", pattern(20_000)),
        ("large", pattern(200_000)),
    ]);
    let server = start(builder(store).limits(|limits| {
        limits.workers = workers;
        limits.max_transfers = 1000;
        limits.max_unproven = Some(1000);
    }));
    let mut events = server.events();
    let asked = server.local_addr();
    thread::scope(|scope| {
        for number in 0..clients {
            let fetching = move || {
                let (name, length) =
                    [("small", 300), ("medium", 20_000), ("large", 200_000)][number % 3];
                let options = [(OptionName::Blksize, 1428), (OptionName::Windowsize, 8)];
                let got = fetch(asked, name, &options[..number / 3 % 3]);
                assert!(
                    got.as_ref() == Ok(&pattern(length)),
                    "{name}: {:?}",
                    got.err()
                );
            };
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn_scoped(scope, fetching)
                .expect("a thread");
        }
    });
    for _ in 0..clients {
        completed(&mut events);
    }
    assert_eq!(server.stats().active, 0);
    assert_eq!(server.stats().failed, 0);
}

#[test]
fn fifty_clients_and_two_workers() {
    crowd(2, 50);
}

#[test]
fn five_hundred_clients_and_two_workers() {
    crowd(2, 500);
}

#[test]
fn one_worker_is_enough() {
    crowd(1, 30);
}

/// Clients that are fast and ask for huge windows, over and over until all others have what they
/// want.
fn hogged(workers: usize, hogs: usize) {
    let store = shelf([("huge", pattern(8 << 20)), ("file", pattern(50_000))]);
    let server: Server = start(builder(store).limits(|limits| limits.workers = workers));
    let asked = server.local_addr();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..hogs {
            scope.spawn(|| {
                let options = [(OptionName::Blksize, 1428), (OptionName::Windowsize, 64)];
                while !done.load(Ordering::Relaxed) {
                    assert!(fetch(asked, "huge", &options).is_ok());
                }
            });
        }
        let others: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(move || assert_eq!(fetch(asked, "file", &[]), Ok(pattern(50_000))))
            })
            .collect();
        let results: Vec<_> = others.into_iter().map(|other| other.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
}

#[test]
fn hogs_starve_nobody() {
    hogged(1, 1);
    hogged(2, 3);
}
