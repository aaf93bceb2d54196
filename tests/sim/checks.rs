//! What must hold in every world.

use crate::quirks::Habit;
use crate::receivers::Habit::ReportNever;
use crate::world::{CLIENT, Report, SERVER, World};
use std::time::Duration;
use tftpool::unversioned::proto::{Outcome, Retransmit};

/// All of them; the message says which failed.
pub fn all(world: &World, report: &Report) {
    intact_or_an_honest_failure(world, report);
    both_ends_agree(world, report);
    gentle_worlds_complete(world, report);
    the_price_is_bounded(world, report);
}

fn sender(world: &World, report: &Report) -> Option<Outcome> {
    match world.sender() {
        CLIENT => Some(report.client),
        _ => report.server,
    }
}

fn receiver(world: &World, report: &Report) -> Option<Outcome> {
    match world.sender() {
        CLIENT => report.server,
        _ => Some(report.client),
    }
}

fn intact_or_an_honest_failure(world: &World, report: &Report) {
    assert!(
        !report.stored.damaged,
        "a block was stored that is not the file's"
    );
    let whole = report.stored.octets == world.ask.file.octets;
    assert!(
        whole || !report.stored.complete,
        "stored {} of {} octets and calls it complete",
        report.stored.octets,
        world.ask.file.octets
    );
    if receiver(world, report) == Some(Outcome::Complete) && world.habit != Some(Habit::SizeProbe) {
        assert!(
            report.stored.complete,
            "the receiver is content with too little"
        );
    }
}

fn both_ends_agree(world: &World, report: &Report) {
    if world.habit == Some(Habit::SizeProbe) {
        assert_eq!(
            report.packets[SERVER].data, 0,
            "DATA before the OACK was confirmed"
        );
        if let Some(outcome) = report.server {
            assert!(
                matches!(
                    outcome,
                    Outcome::Aborted {
                        at_opening: true,
                        ..
                    } | Outcome::Unanswered
                        | Outcome::Unreachable
                ),
                "a size probe is no failure: {outcome:?}"
            );
        }
        return;
    }
    let sent_all = sender(world, report) == Some(Outcome::Complete);
    if sent_all {
        assert!(
            report.stored.complete,
            "the sender believes in more than was stored"
        );
    } else {
        assert!(
            !report.final_ack_arrived,
            "the sender had the final ACK and ends with {:?}",
            sender(world, report)
        );
    }
}

/// An interval that was asked for may be shorter than the path: everything then goes out several
/// times, as agreed, and six intervals may be over before the first answer.
fn is_patient(world: &World) -> bool {
    let agreed = world.agreed().timeout.unwrap_or(Duration::from_secs(1));
    let longest = world
        .links
        .iter()
        .map(|link| link.delay + link.jitter)
        .max();
    // The clients of the field go by their own timers, whatever they ask for.
    let own = world
        .habit
        .map_or(Duration::ZERO, |_| Duration::from_secs(1));
    // And they give up after twelve of them: by the letter of a long interval, three losses take as
    // long.
    let by_the_letter = world.policies[SERVER].retransmit == Retransmit::Rfc;
    let many = world.habit.is_none() || !by_the_letter || agreed <= 2 * own;
    many && agreed >= own && agreed > 4 * longest.unwrap_or_default()
}

/// Where the network is good enough, nothing may fail.
fn gentle_worlds_complete(world: &World, report: &Report) {
    // Who says nothing of holes never gets a window that is always out of order.
    let mute = world.habit == Some(Habit::Foreign(ReportNever));
    let gentle = world.links.iter().all(|link| {
        link.loss <= 50_000
            && link.blackouts.is_empty()
            && link.ring.is_none_or(|ring| ring >= 4)
            && (!mute || link.reorder <= 10_000)
    });
    if gentle && is_patient(world) && world.habit != Some(Habit::SizeProbe) {
        assert!(
            report.stored.complete,
            "failed in a gentle world: {report:?}"
        );
    }
}

/// Bounded time and bounded packets, in terms of what the network did.
fn the_price_is_bounded(world: &World, report: &Report) {
    let agreed = world.agreed();
    let blocks = world.blocks();
    let window = u64::from(agreed.windowsize);
    let worst = world.links.iter().map(|link| link.loss).max().unwrap_or(0);
    let interval = agreed.timeout.unwrap_or(Duration::from_secs(4));
    let most = Duration::from_secs(120)
        + interval * 24
        + (interval * 2 + Duration::from_secs(1)) * blocks as u32;
    assert!(
        report.took < most,
        "took {:?}, {most:?} would be too long",
        report.took
    );
    // What is sent behind a hole is sent again.
    let trouble: u64 = world
        .links
        .iter()
        .map(|link| u64::from(link.loss + link.junk + link.reorder + link.duplicate / 20))
        .sum();
    let factor = 6 + window.min(blocks) * trouble / 500_000 + u64::from(worst) / 2_000;
    // A ring tears every window of a client that asked for more than it can keep.
    let ringed = world.links.iter().any(|link| link.ring.is_some());
    let factor = factor + if ringed { window.min(blocks) / 16 } else { 0 };
    let most = (blocks * factor) + 40 * window + 200;
    for counts in report.packets.iter().filter(|_| is_patient(world)) {
        assert!(
            counts.data < most,
            "{} DATA for {blocks} blocks of {window}",
            counts.data
        );
        assert!(
            counts.acks < most,
            "{} ACKs for {blocks} blocks of {window}",
            counts.acks
        );
    }
}
