//! The protocol's machines in made-up worlds: two ends, one fake network, a seed and a clock that
//! jumps.
//!
//! `SEEDS=1000000 cargo test --test sim` runs more worlds, `SEED=17 TRACE=1` shows one, `BLESS=1`
//! writes the cost table anew.

#![allow(unreachable_pub)] // a test crate has no face

mod checks;
mod costs;
mod ends;
mod link;
mod quirks;
#[path = "../lab/receivers.rs"]
mod receivers;
mod rng;
mod world;

use quirks::Habit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tftpool::unversioned::proto::Outcome;
use tftpool::unversioned::wire::{Direction, OptionName, Options};
use world::{CLIENT, Counts, SERVER, World};

/// Worlds in an ordinary run.
const WORLDS: u64 = 4_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

#[test]
fn every_world_ends_well_or_honestly() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(WORLDS),
    };
    let trace = std::env::var_os("TRACE").is_some();
    for seed in seeds {
        let world = World::from_seed(seed);
        if trace {
            println!("{world:#?}");
        }
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let report = world.run(trace);
            checks::all(&world, &report);
        }));
        assert!(
            checked.is_ok(),
            "world {seed} failed; see it with SEED={seed} TRACE=1"
        );
    }
}

#[test]
fn a_world_runs_the_same_way_twice_and_early_wake_ups_change_nothing() {
    for seed in 0..300 {
        let quiet = World {
            nosy: false,
            ..World::from_seed(seed)
        };
        let nosy = World {
            nosy: true,
            ..quiet.clone()
        };
        assert_eq!(quiet.run(false), nosy.run(false), "world {seed}");
    }
}

#[test]
fn a_clean_link_costs_exactly_the_blocks_and_one_ack_a_window() {
    for direction in [Direction::Read, Direction::Write] {
        for window in [1, 2, 3, 16, 64, 100] {
            for octets in [0, 1, 511, 512, 513, 512 * 64, 512 * 300 - 1, 512 * 300] {
                for with_options in [false, true] {
                    exact_count(direction, window, octets, with_options);
                }
            }
        }
    }
}

fn exact_count(direction: Direction, window: u64, octets: u64, with_options: bool) {
    let options = if with_options {
        Options::default().with(OptionName::Windowsize, window)
    } else {
        Options::default()
    };
    let world = World::clean(direction, octets, options, Duration::from_millis(2));
    let report = world.run(false);
    checks::all(&world, &report);
    let window = u64::from(world.agreed().windowsize);
    let blocks = octets / 512 + 1;
    let acks = blocks.div_ceil(window);
    let sending = Counts {
        data: blocks,
        ..Counts::default()
    };
    let storing = Counts {
        acks,
        ..Counts::default()
    };
    let (mut client, mut server) = match direction {
        Direction::Read => (storing, sending),
        Direction::Write => (sending, storing),
    };
    client.opening += 1;
    server.opening += u64::from(with_options);
    match direction {
        Direction::Read => client.acks += u64::from(with_options), // ACK 0
        Direction::Write => server.acks += u64::from(!with_options),
    }
    let what = format!("{direction:?} {octets} octets, window {window}, options {with_options}");
    assert_eq!(report.packets[CLIENT], client, "client, {what}");
    assert_eq!(report.packets[SERVER], server, "server, {what}");
    assert_eq!(
        (report.client, report.server),
        (Outcome::Complete, Some(Outcome::Complete))
    );
}

/// Of a small file most packets are those that open the transfer, and few of them may be sent. Two
/// lost in a row, or three, are still no reason to fail: the first answer comes again, by the
/// client's own timer.
#[test]
fn small_files_arrive_whatever_is_lost_of_the_opening() {
    use receivers::Habit::{AckAgain, ReportNever, ReportOnce};
    let plain = Options::default();
    let timed = plain.with(OptionName::Timeout, 5);
    for (direction, habit) in [
        (Direction::Read, None),
        (Direction::Write, None),
        (Direction::Read, Some(Habit::Foreign(ReportOnce))),
        (Direction::Read, Some(Habit::Foreign(ReportNever))),
        (Direction::Read, Some(Habit::Foreign(AckAgain))),
    ] {
        for (seed, options) in (0..2000).flat_map(|seed| [(seed, plain), (seed, timed)]) {
            let mut world = World::clean(direction, 700, options, Duration::from_millis(2));
            (world.seed, world.habit) = (seed, habit);
            world.links.iter_mut().for_each(|link| link.loss = 50_000);
            let report = world.run(false);
            assert!(report.stored.complete, "{world:?}: {report:?}");
        }
    }
}

#[test]
fn past_4_gib_every_block_is_the_right_one() {
    let octets = (4 << 30) + 12_345;
    for (direction, blksize, window) in [(Direction::Read, 1428, 64), (Direction::Write, 8192, 16)]
    {
        let options = Options::default()
            .with(OptionName::Blksize, blksize)
            .with(OptionName::Windowsize, window)
            .with(
                OptionName::Tsize,
                if direction == Direction::Read {
                    0
                } else {
                    octets
                },
            );
        let mut world = World::clean(direction, octets, options, Duration::from_millis(1));
        for link in &mut world.links {
            link.loss = 20;
        }
        let report = world.run(false);
        checks::all(&world, &report);
        assert_eq!(
            (report.client, report.server),
            (Outcome::Complete, Some(Outcome::Complete))
        );
    }
}
