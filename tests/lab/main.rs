//! Bad links over real sockets: a server and its clients in namespaces of their own, with a bad network between them.
//! Every transfer ends whole, in every world; how long it takes is up to the machine and not asked.

mod bed;
mod relay;
#[path = "../loopback/rig.rs"]
#[allow(clippy::duplicate_mod)]
mod rig;

use bed::{CLIENT, Lab, or_skip, server_address};
use relay::Link;
use rig::*;
use std::thread;
use std::time::Duration;
use tftpool::{Mode, OptionName, Server};

const WINDOWS: [u64; 4] = [1, 4, 16, 64];
const BLKSIZE: u64 = 1428;

/// Serves one file in the server's namespace.
fn serving(lab: &Lab, content: &[u8]) -> Server {
    lab.server.inside(|| {
        let builder = builder(shelf([("file", content.to_vec())])).bind(server_address());
        start(builder)
    })
}

/// So many fetches with each window, all at the same time, each whole. A client asks until it is answered.
fn fetched_whole(lab: &Lab, times: usize, length: usize) {
    let content = pattern(length);
    let _server = serving(lab, &content);
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
        fetched_whole(&lab, 2, 200_000);
    }
}

/// Where every third round trip fails, a fixed number of tries would not do: only silence ends a transfer.
#[test]
fn a_fifth_lost_each_way() {
    let Some(lab) = both_ways(lossy(200_000)) else {
        return;
    };
    fetched_whole(&lab, 5, 50_000);
}

#[test]
fn packets_that_overtake_each_other() {
    let link = Link {
        reorder: 100_000,
        ..lossy(0)
    };
    let Some(lab) = both_ways(link) else { return };
    fetched_whole(&lab, 2, 200_000);
}

#[test]
fn packets_that_come_twice() {
    let link = Link {
        duplicate: 200_000,
        ..lossy(0)
    };
    let Some(lab) = both_ways(link) else { return };
    fetched_whole(&lab, 2, 200_000);
}

#[test]
fn everything_at_once() {
    let link = Link {
        duplicate: 50_000,
        reorder: 50_000,
        ..lossy(50_000)
    };
    let Some(lab) = both_ways(link) else { return };
    fetched_whole(&lab, 2, 100_000);
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
        fetched_whole(&lab, 1, 200_000);
    }
}

/// Bursts leave as one `sendmsg` with `UDP_SEGMENT`, cross the kernel's own devices, and are dropped by its own filter.
#[test]
fn a_cable_that_drops() {
    for per_mille in [0, 10, 50] {
        let Some(lab) = or_skip(Lab::cabled(per_mille * 1000)) else {
            return;
        };
        fetched_whole(&lab, 2, 200_000);
    }
}
