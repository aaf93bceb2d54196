//! Bad links over real sockets: a server and its clients in namespaces of their own, with a bad
//! network between them. Every transfer ends whole, in every world, and every world has done what
//! it is named for; how long it takes is up to the machine and not asked.

mod bed;
mod receivers;
mod relay;
#[path = "../loopback/rig.rs"]
#[allow(clippy::duplicate_mod)]
mod rig;

use bed::{CLIENT, Lab, or_skip, server_address};
use relay::Link;
use rig::*;
use std::thread;
use std::time::Duration;
use tftpool::{Event, Mode, OptionName, Server, Stats};

const WINDOWS: [u64; 4] = [1, 4, 16, 64];
const BLKSIZE: u64 = 1428;

/// Serves one file in the server's namespace.
fn serving(lab: &Lab, content: &[u8]) -> Server {
    lab.server.inside(|| {
        let builder = builder(shelf([("file", content.to_vec())])).bind(server_address());
        start(builder)
    })
}

/// So many fetches with each window, all at the same time, each whole. A client asks until it is
/// answered. Returns what the server counted once all of them were over for it too.
fn fetched_whole(lab: &Lab, times: usize, length: usize) -> Stats {
    let content = pattern(length);
    let server = serving(lab, &content);
    let mut events = server.events();
    lab.clients.inside(|| {
        thread::scope(|scope| {
            for window in WINDOWS {
                for _ in 0..times {
                    let content = &content;
                    scope.spawn(move || {
                        let options = [
                            (OptionName::Blksize, BLKSIZE),
                            (OptionName::Windowsize, window),
                        ];
                        let client = Client::at((CLIENT, 0).into(), server_address());
                        let got = fetch_over(
                            &client.socket,
                            server_address(),
                            "file",
                            Mode::Octet,
                            &options,
                        );
                        assert!(
                            got.as_ref() == Ok(content),
                            "window {window}: {:?}",
                            got.err()
                        );
                    });
                }
            }
        });
    });
    for _ in 0..times * WINDOWS.len() {
        wait_for(&mut events, |event| {
            // Where the last ACK was lost, nobody is there any more to repeat it.
            matches!(event, Event::Completed(_) | Event::Failed(..)).then_some(())
        });
    }
    server.stats()
}

fn lossy(loss: u32) -> Link {
    Link {
        delay: Duration::from_millis(1),
        loss,
        ..Link::default()
    }
}

/// The same chance both ways.
fn both_ways(link: Link) -> Option<Lab> {
    or_skip(Lab::relayed(link, link, 1350))
}

#[test]
fn loss_of_so_many_in_a_thousand_each_way() {
    for per_mille in [0, 1, 10, 50] {
        let Some(lab) = both_ways(lossy(per_mille * 1000)) else {
            return;
        };
        let stats = fetched_whole(&lab, 2, 200_000);
        let lost = lab.counts().lost();
        assert_eq!(lost > 0, per_mille > 0, "{lost} lost of {per_mille} ‰");
        assert!(per_mille < 10 || stats.retransmits > 0, "{stats:?}");
    }
}

/// Where every third round trip fails, a fixed number of tries would not do: only silence ends a
/// transfer.
#[test]
fn a_fifth_lost_each_way() {
    let Some(lab) = both_ways(lossy(200_000)) else {
        return;
    };
    let stats = fetched_whole(&lab, 5, 50_000);
    assert!(
        lab.counts().lost() > 0 && stats.retransmits > 0,
        "{stats:?}"
    );
}

#[test]
fn packets_that_overtake_each_other() {
    let link = Link {
        reorder: 100_000,
        ..lossy(0)
    };
    let Some(lab) = both_ways(link) else { return };
    fetched_whole(&lab, 2, 200_000);
    assert!(lab.counts().overtaken() > 0, "{:?}", lab.counts());
}

#[test]
fn packets_that_come_twice() {
    let link = Link {
        duplicate: 200_000,
        ..lossy(0)
    };
    let Some(lab) = both_ways(link) else { return };
    fetched_whole(&lab, 2, 200_000);
    assert!(lab.counts().doubled() > 0, "{:?}", lab.counts());
}

#[test]
fn everything_at_once() {
    let link = Link {
        duplicate: 50_000,
        reorder: 50_000,
        ..lossy(50_000)
    };
    let Some(lab) = both_ways(link) else { return };
    let stats = fetched_whole(&lab, 2, 100_000);
    let counts = lab.counts();
    let all = [counts.lost(), counts.doubled(), counts.overtaken()];
    assert!(all.iter().all(|count| *count > 0), "{counts:?}");
    assert!(stats.retransmits > 0, "{stats:?}");
}

#[test]
fn receivers_that_keep_the_head_of_a_burst() {
    for room in [4, 8, 32] {
        let ring = Link {
            ring: Some(room),
            ..lossy(0)
        };
        let Some(lab) = or_skip(Lab::relayed(lossy(0), ring, 1350)) else {
            return;
        };
        let stats = fetched_whole(&lab, 1, 200_000);
        // A large ring may be emptied as fast as a busy machine fills it.
        let overrun = lab.counts().overrun();
        assert!(
            room > 8 || overrun > 0 && stats.retransmits > 0,
            "room for {room}, {overrun} found none, {stats:?}"
        );
    }
}

/// Bursts leave as one `sendmsg` with `UDP_SEGMENT`, cross the kernel's own devices, and are
/// dropped by its own filter.
#[test]
fn a_cable_that_drops() {
    for per_mille in [0, 10, 50] {
        let Some(lab) = or_skip(Lab::cabled(per_mille * 1000)) else {
            return;
        };
        let stats = fetched_whole(&lab, 2, 200_000);
        if per_mille > 0 {
            let dropped = lab.dropped();
            assert!(dropped > 0 && stats.retransmits > 0, "{dropped}, {stats:?}");
        }
    }
}

/// Receivers of the field, which report a hole once, never, or with every packet.
#[test]
fn receivers_that_report_holes_in_their_own_ways() {
    let content = pattern(200_000);
    for (loss, window) in [(0, 16), (10_000, 16), (50_000, 16), (50_000, 1)] {
        let Some(lab) = both_ways(lossy(loss)) else {
            return;
        };
        let server = serving(&lab, &content);
        lab.clients.inside(|| {
            thread::scope(|scope| {
                for (name, habit) in receivers::HABITS {
                    let content = &content;
                    scope.spawn(move || {
                        let client = Client::at((CLIENT, 0).into(), server_address());
                        let mut got = Vec::new();
                        let result = receivers::fetch(
                            habit,
                            &client.socket,
                            server_address(),
                            ("file", BLKSIZE, window),
                            Duration::from_secs(120),
                            |octets| got.extend_from_slice(octets),
                        );
                        assert!(
                            result.is_ok() && got == *content,
                            "{name}, window {window}: {result:?}, {} octets",
                            got.len()
                        );
                    });
                }
            });
        });
        assert_eq!(lab.counts().lost() > 0, loss > 0);
        drop(server);
    }
}
