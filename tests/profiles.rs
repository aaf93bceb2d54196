//! The boot loaders of `tftpool::testing` against our own server, and the rig itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tftpool::testing::*;
use tftpool::{Event, Server, Source, store_fn};

/// Loaders whose timers make no test wait.
fn hurried() -> impl Iterator<Item = Profile> {
    Profile::all()
        .into_iter()
        .map(|profile| profile.hurried(20))
}

fn booted(profile: &Profile, server: SocketAddr) -> Boot {
    let boot = profile.boot(server, "file");
    let boot = boot.unwrap_or_else(|failure| panic!("{}: {failure}", profile.name));
    assert!(boot.content == pattern(50_000), "{}", profile.name);
    boot
}

fn server() -> Server {
    serve(shelf([
        ("file", pattern(50_000)),
        ("whole", pattern(1468 * 1432 / 4)),
        ("empty", Vec::new()),
        ("pxelinux.cfg/default", pattern(300)),
    ]))
}

#[test]
fn every_loader_boots() {
    let server = server();
    let events = server.events();
    for profile in hurried() {
        let boot = booted(&profile, server.local_addr());
        assert_eq!(
            boot.size,
            profile.probe.is_some().then_some(50_000),
            "{}",
            profile.name
        );
        let missing = profile
            .before
            .iter()
            .filter(|name| **name != "pxelinux.cfg/default");
        assert_eq!(boot.missing as usize, missing.count(), "{}", profile.name);
        // The file is complete when its last ACK was read. The event of the probe, which another
        // worker may tell, may come behind that.
        let wanted = u32::from(profile.probe.is_some());
        let (mut probes, mut is_complete) = (0, false);
        while !is_complete || probes < wanted {
            match events.recv_timeout(PATIENCE).expect("an event") {
                Event::Probe(_) => probes += 1,
                Event::Completed(it) => is_complete |= it.name.as_bytes() == b"file",
                Event::Failed(summary, failure) => panic!("{}: {summary} {failure}", profile.name),
                _ => {}
            }
        }
        assert_eq!(probes, wanted, "{}", profile.name);
    }
    assert_eq!(server.stats().failed, 0);
}

#[test]
fn files_that_end_with_a_full_block_and_empty_ones() {
    let server = server();
    for profile in hurried() {
        let content = profile
            .boot(server.local_addr(), "whole")
            .map(|boot| boot.content);
        assert_eq!(content, Ok(pattern(1468 * 1432 / 4)), "{}", profile.name);
        let empty = profile
            .boot(server.local_addr(), "empty")
            .map(|boot| boot.content);
        // Firmware that probes boots it too: it is told the size.
        assert_eq!(empty, Ok(Vec::new()), "{}", profile.name);
        let missing = profile.boot(server.local_addr(), "missing");
        assert!(
            matches!(missing, Err(BootFailure::Refused { code: 1, .. })),
            "{}",
            profile.name
        );
    }
}

#[test]
fn every_loader_boots_where_packets_are_lost() {
    let server = server();
    for profile in hurried() {
        let relay = Relay::start(server.local_addr(), lose_blocks([1, 2, 5, 17, 33]));
        booted(&profile, relay.address());

        // One in seven, both ways, whatever it is.
        let mut number = 0u32;
        let relay = Relay::start(server.local_addr(), move |_| {
            number += 1;
            if number % 7 == 3 {
                Fate::Lose
            } else {
                Fate::Pass
            }
        });
        booted(&profile, relay.address());
    }
}

/// The Sorcerer's Apprentice: where every packet comes twice, no block is sent for the second ACK.
#[test]
fn copies_are_not_multiplied() {
    let files = [
        ("file", pattern(50_000)),
        ("pxelinux.cfg/default", pattern(300)),
    ];
    let mut config = tftpool::ServerConfig::default();
    // Nothing is sent twice because this machine is slow.
    config.retransmit = tftpool::Retransmit::Rfc;
    config.timeout = 2 * PATIENCE;
    let server = Server::builder(shelf(files))
        .bind(([127, 0, 0, 1], 0).into())
        .config(config)
        .start()
        .expect("a server");
    let lock_step = |profile: &Profile| profile.options.iter().all(|it| it.0 != "windowsize");
    for profile in Profile::all().into_iter().filter(lock_step) {
        let sent = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&sent);
        let relay = Relay::start(server.local_addr(), move |passing| {
            count.fetch_add(u32::from(passing.data().is_some()), Ordering::Relaxed);
            // Not the request: a late copy of that is another file's, to a loader with one port.
            match passing.datagram {
                [0, 3 | 4, ..] => Fate::Twice,
                _ => Fate::Pass,
            }
        });
        let boot = booted(&profile, relay.address());
        assert!(boot.copies > 0, "{}", profile.name);
        let blksize = profile.options.iter().find(|it| it.0 == "blksize");
        let blksize: usize = blksize.expect("a size").1.parse().expect("a number");
        let before = usize::from(profile.name == "PXELINUX");
        let blocks = 50_000 / blksize + 1 + before;
        let sent = sent.load(Ordering::Relaxed);
        assert_eq!(sent as usize, blocks, "{}", profile.name);
    }
}

#[test]
fn a_loader_that_hears_nothing_gives_up_after_its_requests() {
    for profile in Profile::all()
        .into_iter()
        .map(|profile| profile.hurried(1000))
    {
        let deaf = Relay::start(([127, 0, 0, 1], 9).into(), |_| Fate::Lose);
        let failure = profile.boot(deaf.address(), "file");
        assert_eq!(failure, Err(BootFailure::Unanswered), "{}", profile.name);
    }
}

#[test]
fn firmware_that_is_not_told_the_size_does_not_boot() {
    let stream = || Source::reader(std::io::Cursor::new(pattern(3000)), None);
    let server = serve(store_fn(move |_| Ok(stream())));
    let failure = Profile::edk2().boot(server.local_addr(), "file");
    assert_eq!(failure, Err(BootFailure::NoSize));
    let boot = Profile::ipxe().boot(server.local_addr(), "file");
    assert_eq!(boot.map(|boot| boot.content), Ok(pattern(3000)));
}

#[test]
fn a_rom_that_cannot_count_so_far_says_so() {
    let server = serve(shelf([("huge", vec![7; 600_000])]));
    let mut profile = Profile::raspberry_pi().option("blksize", 8);
    profile.before.clear();
    let failure = profile.boot(server.local_addr(), "huge");
    assert_eq!(failure, Err(BootFailure::TooLong));
}

#[test]
fn a_silent_server_is_noticed() {
    let server = server();
    let relay = Relay::start(server.local_addr(), |passing| match passing.data() {
        Some(20..) => Fate::Lose,
        _ => Fate::Pass,
    });
    let profile = Profile::u_boot().hurried(500);
    let failure = profile.boot(relay.address(), "file");
    assert_eq!(failure, Err(BootFailure::Silent { block: 19 }));
    assert!(profile.ack_after <= Duration::from_millis(10));
}
