//! `make soak MINUTES=30`: a server that many clients use for a long time over a bad link, while
//! its files are replaced and clients die. Every file that arrives is whole, and in the end the
//! server holds what it held in the beginning.
//!
//! Ignored in an ordinary run, because it takes as long as it is told to.

#![allow(clippy::disallowed_methods, reason = "a soak takes time")]

#[path = "lab/bed.rs"]
mod bed;
mod harness;
#[path = "lab/relay.rs"]
mod relay;
#[path = "loopback/rig.rs"]
mod rig;

use bed::{CLIENT, Lab, SERVER, or_skip, server_address};
use harness::{Scratch, Server, content, tftpool};
use relay::Link;
use rig::{Client, Trouble, fetch_over, now};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tftpool::unversioned::limits::DEFAULT_WORKERS;
use tftpool::unversioned::proto::Outcome;
use tftpool::{Mode, OptionName};

/// Clients at a time.
const CLIENTS: u64 = 12;
/// Between two looks at the server.
const LOOK: Duration = Duration::from_secs(10);
/// Memory that may come and go: allocators keep a little.
const SLACK_KIB: u64 = 2048;

/// The pool, the loop, the log, signals, and the thread that started them.
const THREADS: u64 = DEFAULT_WORKERS as u64 + 4;

/// What is left of a file that is cut short.
const SHRUNK: usize = 100_000;

/// What the server holds now.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: u64,
    threads: u64,
    /// Anonymous memory.
    kib: u64,
}

fn held(process: u32) -> Held {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the server runs");
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.split_whitespace().next());
        value.and_then(|value| value.parse().ok()).expect(name)
    };
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("our own child");
    Held {
        descriptors: descriptors.count() as u64,
        threads: field("Threads:"),
        kib: field("RssAnon:"),
    }
}

#[derive(Default)]
struct Tally {
    whole: AtomicU64,
    octets: AtomicU64,
    changed: AtomicU64,
    died: AtomicU64,
    replaced: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// The versions of a replaced file differ in length, and with it in every octet.
fn version(number: u64) -> usize {
    150_000 + (number % 16) as usize
}

/// Each client goes through ports of its own. What is still on its way to one that died would be
/// the first answer to the next with its port.
fn port(seed: u64, turn: u64) -> u16 {
    const EACH: u64 = 50_000 / CLIENTS;
    (10_000 + seed % CLIENTS * EACH + turn % EACH) as u16
}

/// One client's life: fetch after fetch, each a little different, some of them cut off.
fn live(seed: u64, over: &AtomicBool, tally: &Tally) {
    for turn in (seed * 1009).. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let blksize = [512, 1428, 1428, 8192][(turn % 4) as usize];
        let windowsize = [1, 4, 16, 64][(turn / 4 % 4) as usize];
        let client = Client::at((CLIENT, port(seed, turn)).into(), server_address());
        if turn % 7 == 0 {
            die(client, blksize, windowsize);
            add(&tally.died, 1);
            continue;
        }
        let name = ["steady", "replaced", "shrinking", "small"][(turn / 16 % 4) as usize];
        let options = [
            (OptionName::Blksize, blksize),
            (OptionName::Windowsize, windowsize),
        ];
        let options = if turn % 11 == 0 {
            &[][..]
        } else {
            &options[..]
        };
        let got = fetch_over(&client.socket, server_address(), name, Mode::Octet, options);
        match (got, name) {
            (Ok(octets), _) => {
                assert!(
                    is_whole(name, &octets),
                    "{name}: {} octets, and not the right ones",
                    octets.len()
                );
                add(&tally.whole, 1);
                add(&tally.octets, octets.len() as u64);
            }
            // The ERROR is sent once, and may be lost.
            (Err(trouble), "shrinking") if is_honest(&trouble) => add(&tally.changed, 1),
            (Err(trouble), _) => panic!("{name}, {options:?}: {trouble:?}"),
        }
    }
}

fn is_honest(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Told(_, text) => text.starts_with("file changed"),
        Trouble::Ended(outcome) => *outcome == Outcome::Silent,
    }
}

/// Begins to fetch and is gone in the middle.
fn die(mut client: Client, blksize: u64, windowsize: u64) {
    let (blksize, windowsize) = (blksize.to_string(), windowsize.to_string());
    client.ask(
        "steady",
        &[("blksize", &blksize), ("windowsize", &windowsize)],
    );
    client
        .socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    let mut packet = [0; 9000];
    if let Ok((_, tid)) = client.socket.recv_from(&mut packet) {
        client.tid = Some(tid);
        client.ack(0);
        let _ = client.socket.recv_from(&mut packet);
    }
}

fn is_whole(name: &str, octets: &[u8]) -> bool {
    match name {
        "steady" => octets == content(1_000_000),
        "small" => octets == content(700),
        // Opened after it was cut short: then that is all there is.
        "shrinking" if octets.len() == SHRUNK => {
            (0..16).any(|number| content(version(number)).starts_with(octets))
        }
        _ => {
            (0..16).any(|number| octets.len() == version(number)) && octets == content(octets.len())
        }
    }
}

/// Somebody who works on the served files.
fn replace(scratch: &Scratch, over: &AtomicBool, tally: &Tally) {
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let new = content(version(number));
        for name in ["replaced", "shrinking"] {
            let path = scratch.file(".new", &new);
            fs::rename(path, scratch.path().join(name)).expect("a rename");
        }
        thread::sleep(Duration::from_millis(700));
        // Whoever fetches it now must not think that it has all of it.
        let file = fs::File::options()
            .write(true)
            .open(scratch.path().join("shrinking"));
        file.and_then(|file| file.set_len(SHRUNK as u64))
            .expect("a shorter file");
        add(&tally.replaced, 1);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "make soak MINUTES=30"]
fn soak() {
    let minutes = std::env::var("MINUTES")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = Duration::from_secs_f64(60.0 * minutes.unwrap_or(1.0));
    let link = Link {
        delay: Duration::from_millis(1),
        loss: 10_000,
        duplicate: 2_000,
        reorder: 5_000,
        ring: Some(48),
    };
    let Some(lab) = or_skip(Lab::relayed(link, link, 1350)) else {
        return;
    };
    let scratch = Scratch::new();
    scratch.file("steady", &content(1_000_000));
    scratch.file("small", &content(700));
    scratch.file("replaced", &content(version(0)));
    scratch.file("shrinking", &content(version(0)));
    let mut command = tftpool();
    command
        .args(["serve", "--host", &SERVER.to_string(), "--port", "69"])
        .arg(scratch.path());
    let server = lab.server.inside(|| Server::spawn(command));
    let begun = now();
    let (over, tally) = (AtomicBool::new(false), Tally::default());
    let mut looks = Vec::new();
    println!("minute  descriptors  threads  memory KiB  whole  MiB  changed  died  replaced");
    let print = |held: Held| {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "{:6.1}  {:11}  {:7}  {:10}  {:5}  {:3}  {:7}  {:4}  {:8}",
            (now() - begun).as_secs_f64() / 60.0,
            held.descriptors,
            held.threads,
            held.kib,
            count(&tally.whole),
            count(&tally.octets) >> 20,
            count(&tally.changed),
            count(&tally.died),
            count(&tally.replaced),
        );
    };
    let idle = held(server.pid());
    print(idle);
    thread::scope(|scope| {
        // Also when something here panics, the others end.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&over);
        scope.spawn(|| replace(&scratch, &over, &tally));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|seed| {
                let (lab, over, tally) = (&lab, &over, &tally);
                scope.spawn(move || lab.clients.inside(|| live(seed, over, tally)))
            })
            .collect();
        while now() - begun < time && clients.iter().all(|client| !client.is_finished()) {
            thread::sleep(LOOK.min(time / 10));
            let look = held(server.pid());
            print(look);
            looks.push(look);
        }
    });
    // The dead are noticed within the retry budget; mapped files that nobody uses are let go.
    let descriptors = loop {
        let look = held(server.pid());
        if look.descriptors <= idle.descriptors || now() - begun > time + Duration::from_secs(120) {
            break look;
        }
        thread::sleep(Duration::from_secs(1));
    };
    print(descriptors);
    assert!(
        descriptors.descriptors <= idle.descriptors,
        "descriptors are left: {idle:?}, {descriptors:?}"
    );
    let (early, late) = looks.split_at(looks.len() / 2);
    let most = |looks: &[Held], of: fn(&Held) -> u64| looks.iter().map(of).max().expect("looks");
    let threads = most(&looks, |held| held.threads);
    println!("most threads {threads}");
    assert!(threads <= THREADS, "{threads} threads");
    for (what, of, slack) in [
        ("KiB", (|held| held.kib) as fn(&Held) -> u64, SLACK_KIB),
        ("descriptors", |held| held.descriptors, CLIENTS * 8),
    ] {
        let (before, after) = (most(early, of), most(late, of));
        println!("most {what} in the first half {before}, in the second {after}");
        assert!(
            after <= before + slack,
            "{what} grow: {before}, then {after}"
        );
    }
    println!(
        "{} files whole, each octet compared",
        tally.whole.load(Ordering::Relaxed)
    );
    // Of everything that this is for, something was there.
    for (what, counter) in [
        ("file was whole", &tally.whole),
        ("file changed under way", &tally.changed),
        ("client died", &tally.died),
        ("file was replaced", &tally.replaced),
    ] {
        assert!(counter.load(Ordering::Relaxed) > 0, "no {what}");
    }
    let done = lab.counts();
    println!("{done:?}");
    let all = [done.lost(), done.doubled(), done.overtaken()];
    assert!(all.iter().all(|count| *count > 0), "{done:?}");
}
