//! What a transfer costs when packets get lost: a committed table that may only move on purpose.

use crate::checks;
use crate::link::Spec;
use crate::quirks::Habit;
use crate::receivers::HABITS;
use crate::receivers::Habit::{EveryBlock, ReportNever};
use crate::world::{CLIENT, SERVER, World};
use std::fmt::Write as _;
use std::time::Duration;
use tftpool::unversioned::wire::{Direction, OptionName, Options};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/costs.txt");

const HEAD: &str = "\
# 1000 blocks of 1428 octets, read; the mean of five seeds. Loss is each way, in percent; ring is the receiver's room for
# packets that come at once; ms is when the sender was done. Written by BLESS=1 cargo test --test sim.
#
# loss  rtt ms  window  ring |  DATA   ACKs      ms
";

const FOREIGN_HEAD: &str = "\
#
# The same file and other receivers; ms is when the receiver had it. Each has a timer of 1 s of its own.
#
# loss  rtt ms  window         receiver |  DATA   ACKs      ms
";

const SEEDS: u64 = 5;

#[test]
fn the_cost_table_has_not_moved() {
    let table = table();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(TABLE, &table).expect("the table can be written");
        return;
    }
    let committed = std::fs::read_to_string(TABLE).unwrap_or_default();
    let mut moved = String::new();
    for (old, new) in committed
        .lines()
        .zip(table.lines())
        .filter(|(old, new)| old != new)
    {
        let _ = writeln!(moved, "- {old}\n+ {new}");
    }
    assert!(
        moved.is_empty() && committed.lines().count() == table.lines().count(),
        "costs have moved; if on purpose, BLESS=1 and say why in the commit:\n{moved}"
    );
}

fn table() -> String {
    let mut table = String::from(HEAD);
    for loss in [0, 1_000, 10_000, 50_000, 200_000] {
        for micros in [200, 2_000, 20_000, 200_000] {
            for window in [1, 4, 16, 64] {
                for ring in [None, Some(8)] {
                    row(&mut table, loss, micros, window, ring);
                }
            }
        }
    }
    table.push_str(FOREIGN_HEAD);
    for (name, habit) in receivers() {
        for loss in [0, 10_000, 50_000] {
            for round_trip in [2, 20] {
                for window in [1, 16] {
                    foreign_row(&mut table, (name, habit), loss, round_trip, window);
                }
            }
        }
    }
    table
}

fn foreign_row(
    table: &mut String,
    (name, habit): (&str, Option<Habit>),
    loss: u32,
    round_trip: u64,
    window: u64,
) {
    let mut sum = [0; 3];
    for seed in 0..SEEDS {
        let octets = 1000 * 1428 - 1;
        let mut world = reading(octets, window, Duration::from_millis(round_trip), loss);
        (world.seed, world.habit) = (seed, habit);
        let report = world.run(false);
        checks::all(&world, &report);
        let [client, server] = report.packets;
        let stored = report.stored_at.expect("the file").as_millis() as u64;
        for (total, this) in sum.iter_mut().zip([server.data, client.acks, stored]) {
            *total += this;
        }
    }
    let [data, acks, millis] = sum.map(|total| total / SEEDS);
    let _ = writeln!(
        table,
        "{:>6} {round_trip:>7} {window:>7} {name:>16} | {data:>5} {acks:>6} {millis:>7}",
        f64::from(loss) / 10_000.0,
    );
}

fn row(table: &mut String, loss: u32, micros: u64, window: u64, ring: Option<u32>) {
    let round_trip = Duration::from_micros(micros);
    let [data, acks, millis] = mean(1000 * 1428 - 1, 1428, window, loss, round_trip, ring);
    let ring = ring.map_or("-".into(), |room| room.to_string());
    let _ = writeln!(
        table,
        "{:>6} {:>7} {window:>7} {ring:>5} | {data:>5} {acks:>6} {millis:>7}",
        f64::from(loss) / 10_000.0,
        micros as f64 / 1000.0,
    );
}

/// DATA, ACKs and milliseconds of a read, as the mean of some seeds.
fn mean(
    octets: u64,
    blksize: u64,
    window: u64,
    loss: u32,
    round_trip: Duration,
    ring: Option<u32>,
) -> [u64; 3] {
    let options = Options::default()
        .with(OptionName::Blksize, blksize)
        .with(OptionName::Windowsize, window);
    let mut sum = [0; 3];
    for seed in 0..SEEDS {
        let mut world = World::clean(Direction::Read, octets, options, round_trip);
        world.seed = seed;
        world.links[SERVER].ring = ring;
        for link in &mut world.links {
            link.loss = loss;
        }
        let report = world.run(false);
        checks::all(&world, &report);
        let [client, server] = report.packets;
        let millis = report.sender_done.as_millis() as u64;
        for (total, this) in sum.iter_mut().zip([server.data, client.acks, millis]) {
            *total += this;
        }
    }
    sum.map(|total| total / SEEDS)
}

/// The figures by which loss is judged against other servers; see docs/performance.md.
#[test]
fn loss_costs_a_round_trip_or_a_probe() {
    let cases = [
        (8 << 20, 1428, 16, 2, 10_000, 1_300),
        (8 << 20, 1428, 16, 2, 50_000, 4_000),
        (8 << 20, 1428, 16, 20, 10_000, 8_600),
        (8 << 20, 1428, 16, 20, 50_000, 13_000),
        (1 << 20, 1428, 1, 2, 10_000, 2_300),
        (1 << 20, 1428, 1, 2, 50_000, 5_000),
    ];
    for (octets, blksize, window, round_trip, loss, most) in cases {
        let round_trip = Duration::from_millis(round_trip);
        let [data, acks, millis] = mean(octets, blksize, window, loss, round_trip, None);
        let what =
            format!("{octets} octets, {blksize} x {window}, {round_trip:?}, loss {loss} ppm");
        println!("{what}: {data} DATA, {acks} ACKs, {millis} ms of {most}");
        assert!(millis <= most, "{what}: {millis} ms, {most} allowed");
    }
}

/// A median of so many seeds is compared with what recovery may cost.
const GOAL_SEEDS: u64 = 9;

/// Recovery costs about a round trip and a probe interval a hole, whatever habits the receiver has.
/// Milliseconds for the six cases below, the ends of the transfer being what the receiver sees.
#[test]
fn loss_costs_every_receiver_a_round_trip_or_a_probe() {
    const CASES: [(u64, u64, u64, u32); 6] = [
        (8 << 20, 16, 2, 10_000),
        (8 << 20, 16, 2, 50_000),
        (8 << 20, 16, 20, 10_000),
        (8 << 20, 16, 20, 50_000),
        (1 << 20, 1, 2, 10_000),
        (1 << 20, 1, 2, 50_000),
    ];
    for (name, habit) in receivers() {
        let goals = match habit {
            // A probe interval for each hole, and two longer ones before the sender knows that this
            // is a lossy path.
            Some(Habit::Foreign(ReportNever)) => [2_300, 10_000, 10_500, 33_000, 2_300, 5_000],
            // A round trip for each hole, also where a window has two.
            Some(Habit::Foreign(EveryBlock)) => [1_300, 4_000, 8_600, 18_000, 2_300, 5_000],
            _ => [1_300, 4_000, 8_600, 13_000, 2_300, 5_000],
        };
        for ((octets, window, round_trip, loss), most) in CASES.into_iter().zip(goals) {
            let mut times: Vec<_> = (0..GOAL_SEEDS)
                .map(|seed| {
                    let mut world =
                        reading(octets, window, Duration::from_millis(round_trip), loss);
                    (world.seed, world.habit) = (seed, habit);
                    // Nothing but its own timer brings the ACK of a receiver that never repeats
                    // one.
                    if habit == Some(Habit::Foreign(ReportNever)) {
                        world.links[CLIENT].loss = 0;
                    }
                    let report = world.run(false);
                    checks::all(&world, &report);
                    report.stored_at.expect("the file").as_millis() as u64
                })
                .collect();
            times.sort_unstable();
            let median = times[times.len() / 2];
            let what = format!("{name}: {octets} octets x {window}, {round_trip} ms, {loss} ppm");
            println!("{what}: {median} ms of {most}");
            assert!(
                median <= most,
                "{what}: {median} ms, {most} allowed, {times:?}"
            );
        }
    }
}

/// The library's own receiver, and those of the field.
fn receivers() -> impl Iterator<Item = (&'static str, Option<Habit>)> {
    let foreign = HABITS.map(|(name, habit)| (name, Some(Habit::Foreign(habit))));
    [("proto::Receiver", None)].into_iter().chain(foreign)
}

fn reading(octets: u64, window: u64, round_trip: Duration, loss: u32) -> World {
    let options = Options::default()
        .with(OptionName::Blksize, 1428)
        .with(OptionName::Windowsize, window);
    let mut world = World::clean(Direction::Read, octets, options, round_trip);
    world.links.iter_mut().for_each(|link| link.loss = loss);
    world
}

/// Windows, the round trip in milliseconds, what is wrong with the links, and the most that may be
/// sent, and may pass, in percent of what it takes without.
type Path = (&'static [u64], u64, fn(&mut Spec), u64, u64);

/// Where packets are late, probes and windows go out that are not needed. Their answers must not
/// bring more of them, or everything is sent twice from then on.
#[test]
fn paths_that_lose_nothing_do_not_cost_everything_twice() {
    // Stalls are 10 ms in the mean, half a round trip; each overtaken packet tears a window.
    let paths: [(&str, Path); 5] = [
        (
            "stalls",
            (&[4, 16, 64], 20, |link| link.stall = 1_000, 101, 106),
        ),
        (
            "stalls often",
            (&[4, 16, 64], 20, |link| link.stall = 10_000, 102, 135),
        ),
        (
            "copies",
            (&[4, 16, 64], 20, |link| link.duplicate = 10_000, 101, 101),
        ),
        (
            "overtakes",
            (&[4, 16], 20, |link| link.reorder = 10_000, 130, 140),
        ),
        (
            "1 Mbit/s",
            (&[4, 16, 64], 2, |link| link.rate = Some(125_000), 106, 110),
        ),
    ];
    for (name, (windows, round_trip, spoil, most_sent, most_time)) in paths {
        let round_trip = Duration::from_millis(round_trip);
        for window in windows {
            let (sent, time) = sent_in_time(*window, round_trip, spoil);
            let ideal = match name {
                // 1474 octets of each block pass, and what opens the transfer.
                "1 Mbit/s" => Duration::from_micros(735 * 11_800),
                _ => sent_in_time(*window, round_trip, |_| {}).1,
            };
            let percent = (time.as_micros() * 100).div_ceil(ideal.as_micros()) as u64;
            println!(
                "{name}, window {window}: {sent} DATA for 100 blocks, {percent} % of the time"
            );
            assert!(sent <= most_sent, "{name}, window {window}: {sent}");
            assert!(
                percent <= most_time,
                "{name}, window {window}: {percent} % of {ideal:?}"
            );
        }
    }
}

/// DATA for 100 blocks, and the time, as the mean of some seeds.
fn sent_in_time(window: u64, round_trip: Duration, spoil: fn(&mut Spec)) -> (u64, Duration) {
    let options = Options::default()
        .with(OptionName::Blksize, 1428)
        .with(OptionName::Windowsize, window);
    let (mut sent, mut blocks, mut time) = (0, 0, Duration::ZERO);
    for seed in 0..SEEDS {
        let mut world = World::clean(Direction::Read, 1 << 20, options, round_trip);
        world.seed = seed;
        world.links.iter_mut().for_each(spoil);
        let report = world.run(false);
        checks::all(&world, &report);
        sent += report.packets[SERVER].data;
        blocks += world.blocks();
        time += report.sender_done;
    }
    ((sent * 100).div_ceil(blocks), time / SEEDS as u32)
}
