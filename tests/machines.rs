//! The rules that live in the machines, one test each. Packets are handed in by hand, the clock is
//! a number of milliseconds, and what a machine does is written down as steps.

use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tftpool::unversioned::limits::{SILENT_BYTES, SILENT_BYTES_PER_ACK};
use tftpool::unversioned::proto::{
    Agreed, Outcome, Policy, Receiver, Retransmit, Rollover, Sender, Step, Verdict,
};
use tftpool::unversioned::wire::{ErrorCode, Options, Packet};

const ADAPTIVE: Policy = Policy {
    timeout: Duration::from_secs(1),
    retries: 5,
    retransmit: Retransmit::Adaptive,
    probe_floor: Duration::from_millis(20),
    opening_sends: 4,
    min_progress: 0,
    max_time: None,
    final_timeout: Duration::ZERO,
};
const RFC: Policy = Policy {
    retransmit: Retransmit::Rfc,
    ..ADAPTIVE
};
const DALLY: Duration = Duration::from_secs(3);
const REFUSED: Packet<'static> = Packet::Error {
    code: ErrorCode::OPTION_REFUSED,
    message: b"no",
};

/// So many milliseconds after the start of all tests.
#[allow(clippy::disallowed_methods)] // the one real instant
fn at(millis: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(millis)
}

fn millis(instant: Instant) -> u128 {
    (instant - at(0)).as_millis()
}

fn windows_of(windowsize: u16) -> Agreed {
    Agreed {
        windowsize,
        ..Agreed::default()
    }
}

fn ack(block: u16) -> Packet<'static> {
    Packet::Ack { block }
}

fn data(block: u16, payload: &[u8]) -> Packet<'_> {
    Packet::Data { block, payload }
}

fn full(block: u16) -> Packet<'static> {
    data(block, &[7; 512])
}

/// Does what the sender says until it waits: the bursts that left, and the last step.
fn drain(sender: &mut Sender, now: Instant) -> (Vec<(u64, u64)>, Step) {
    let mut bursts = Vec::new();
    loop {
        match sender.poll(now) {
            Step::Open => {
                bursts.push((0, 0));
                sender.opened(now);
            }
            Step::Data { first, end } => {
                bursts.push((first, end - 1));
                sender.sent(end, now);
            }
            last => return (bursts, last),
        }
    }
}

/// The bursts that leave at this instant, as (first, last). An opening datagram is (0, 0).
fn bursts(sender: &mut Sender, now: u64) -> Vec<(u64, u64)> {
    drain(sender, at(now)).0
}

/// The bursts that leave from one instant up to another, without a packet coming in.
fn bursts_until(sender: &mut Sender, from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut now = at(from);
    let mut all = Vec::new();
    loop {
        let (bursts, last) = drain(sender, now);
        all.extend(bursts);
        match last {
            Step::Wait(until) if until <= at(to) => now = until,
            _ => return all,
        }
    }
}

/// Goes from deadline to deadline in silence: when what was sent, and how it ended.
fn silence(sender: &mut Sender, from: u64) -> (Vec<(u128, u64, u64)>, u128, Outcome) {
    let mut all = Vec::new();
    let mut now = at(from);
    loop {
        let (bursts, last) = drain(sender, now);
        all.extend(
            bursts
                .iter()
                .map(|(first, last)| (millis(now), *first, *last)),
        );
        match last {
            Step::Wait(until) => now = until,
            Step::Done(outcome) => return (all, millis(now), outcome),
            other => panic!("{other:?}"),
        }
    }
}

/// A server's RRQ whose OACK was answered after `round_trip`: windows flow from then on.
fn flowing(window: u16, last: u64, round_trip: u64, policy: &Policy) -> Sender {
    let mut sender = Sender::answering(&windows_of(window), true, Some(last), policy, at(0));
    assert_eq!(bursts(&mut sender, 0), [(0, 0)]);
    sender.handle(&ack(0), at(round_trip));
    sender
}

/// A server's WRQ. The steps that need sending are returned as text.
fn answers(receiver: &mut Receiver, now: u64) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let step = receiver.poll(at(now));
        match step {
            Step::Open => all.push("open".into()),
            Step::Ack(block) => all.push(format!("ack {block}")),
            Step::Error(code, _) => all.push(format!("error {}", code.0)),
            Step::Wait(_) | Step::Done(_) => return all,
            Step::Data { .. } => panic!("a receiver has no data"),
        }
        receiver.sent(at(now));
    }
}

fn receiving(window: u16) -> Receiver {
    let mut receiver = Receiver::answering(&windows_of(window), DALLY, &ADAPTIVE, at(0));
    assert_eq!(answers(&mut receiver, 0), ["open"]);
    receiver
}

/// Hands in a full block; the answers to it.
fn block(receiver: &mut Receiver, number: u16, now: u64) -> Vec<String> {
    let _ = receiver.handle(&full(number), at(now));
    answers(receiver, now)
}

// ---- the sender: windows and repeated ACKs ------------------------------------------------

#[test]
fn sorcerers_apprentice_a_repeated_ack_moves_nothing_in_lock_step() {
    let mut sender = flowing(1, 9, 2, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 2), [(1, 1)]);
    sender.handle(&ack(1), at(4));
    assert_eq!(bursts(&mut sender, 4), [(2, 2)]);
    let deadline = sender.poll(at(4));
    for now in [5, 10, 15, 20] {
        sender.handle(&ack(1), at(now));
        sender.handle(&ack(0), at(now));
        assert_eq!(sender.poll(at(now)), deadline, "a stale ACK moves no clock");
    }
    assert_eq!(deadline, Step::Wait(at(304)));
    assert_eq!(bursts(&mut sender, 304), [(2, 2)], "only the timer resends");
}

#[test]
fn a_repeated_ack_0_without_an_oack_brings_no_second_data_1() {
    let mut sender = Sender::answering(&Agreed::default(), false, Some(3), &ADAPTIVE, at(0));
    assert_eq!(bursts(&mut sender, 0), [(1, 1)]);
    for now in 1..900 {
        sender.handle(&ack(0), at(now));
        assert!(bursts(&mut sender, now).is_empty());
    }
    assert!(!sender.is_proven(), "ACK 0 acknowledges nothing here");
}

#[test]
fn an_ack_inside_the_window_is_answered_from_the_next_block_with_a_whole_window() {
    let mut sender = flowing(8, 100, 2, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 2), [(1, 8)]);
    sender.handle(&ack(3), at(4));
    assert_eq!(bursts(&mut sender, 4), [(4, 11)]);
    assert_eq!(
        (sender.acked(), sender.torn(), sender.retransmits()),
        (3, 1, 5)
    );
}

/// Nothing but ACKs can move this one: a window of 8, and an interval without end.
fn moved_by_acks_only() -> Sender {
    let agreed = Agreed {
        timeout: Some(Duration::from_secs(255)),
        ..windows_of(8)
    };
    let mut sender = Sender::answering(&agreed, true, Some(100), &RFC, at(0));
    bursts(&mut sender, 0);
    sender.handle(&ack(0), at(10));
    assert_eq!(bursts(&mut sender, 10), [(1, 8)]);
    sender
}

#[test]
fn a_repeated_ack_in_a_window_is_answered_again_but_not_often() {
    let mut sender = moved_by_acks_only();
    sender.handle(&ack(8), at(20));
    assert_eq!(bursts(&mut sender, 20), [(9, 16)]);
    let mut answered = Vec::new();
    for now in 21..4000 {
        sender.handle(&ack(8), at(now));
        let all = bursts(&mut sender, now);
        answered.extend(all.first().filter(|burst| burst.0 == 9).map(|_| now));
    }
    assert_eq!(
        answered[..2],
        [25, 35],
        "half a round trip at first, then a whole one"
    );
    assert_eq!(answered.len(), 6, "retries + 1 at one position");
    let apart = answered[1..].windows(2).map(|pair| pair[1] - pair[0]);
    assert!(apart.min() >= Some(200), "{answered:?}");
}

/// RTT 20 ms, of which one sample says little: answers may take 60. The window leaves at 40, its
/// ACK is late, a probe leaves, and two ACKs come for one window.
#[test]
fn the_answer_to_a_probe_that_was_not_needed_brings_no_window() {
    let mut sender = flowing(4, 100, 20, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 20), [(1, 4)]);
    sender.handle(&ack(4), at(40));
    assert_eq!(bursts_until(&mut sender, 40, 341), [(5, 8), (8, 8)]);
    sender.handle(&ack(8), at(342));
    assert_eq!(bursts(&mut sender, 342), [(9, 12)]);
    for echo in [360, 361, 380] {
        sender.handle(&ack(8), at(echo));
        assert_eq!(bursts(&mut sender, echo), [], "at {echo}");
    }
    sender.handle(&ack(8), at(1000));
    assert_eq!(bursts(&mut sender, 1000)[0], (9, 12), "asked again");
}

/// Block 2 was only late. So what goes out again for it arrives twice, and whatever goes out for
/// the answers to that does too.
#[test]
fn going_back_for_nothing_comes_to_an_end() {
    let mut sender = flowing(4, 100, 20, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 20), [(1, 4)]);
    for (now, block, window) in [(40, 1, (2, 5)), (60, 2, (3, 6)), (80, 5, (6, 9))] {
        sender.handle(&ack(block), at(now));
        assert_eq!(bursts(&mut sender, now), [window]);
    }
    // Twice in a row just what was sent again has arrived: the rest of this window is under way.
    sender.handle(&ack(6), at(100));
    assert_eq!(bursts(&mut sender, 100), [(10, 10)]);
    let mut torn = sender.clone();
    torn.handle(&ack(6), at(111));
    assert_eq!(bursts(&mut torn, 111), [(7, 10)], "or so it looked");
    sender.handle(&ack(10), at(120));
    assert_eq!(bursts(&mut sender, 120), [(11, 14)]);
}

/// A hole that was taken for an echo is found by a probe; without probes it would cost a whole
/// interval.
#[test]
fn by_the_letter_nothing_is_taken_for_an_echo() {
    let mut sender = flowing(4, 100, 20, &RFC);
    assert_eq!(bursts(&mut sender, 20), [(1, 4)]);
    for (now, block, window) in [
        (40, 1, (2, 5)),
        (60, 2, (3, 6)),
        (80, 5, (6, 9)),
        (100, 6, (7, 10)),
    ] {
        sender.handle(&ack(block), at(now));
        assert_eq!(bursts(&mut sender, now), [window]);
    }
}

#[test]
fn u_boot_repeats_its_ack_every_5_s_and_is_answered_with_a_whole_window_every_time() {
    let mut sender = moved_by_acks_only();
    for repeat in 1..=6u64 {
        let now = repeat * 5000;
        sender.handle(&ack(0), at(now));
        let all = bursts_until(&mut sender, now, now + 4000);
        assert_eq!(all.first().map(|burst| burst.0), Some(1), "repeat {repeat}");
        assert_eq!(all.last().map(|burst| burst.1), Some(8), "repeat {repeat}");
        let longest = all.iter().map(|(first, last)| last - first + 1).max();
        assert!(
            longest <= Some(8 >> (repeat - 1).min(2)),
            "bursts get smaller"
        );
    }
    sender.handle(&ack(0), at(35_000));
    assert!(bursts_until(&mut sender, 35_000, 39_000).is_empty());
    sender.handle(&ack(5), at(39_001));
    assert_eq!(bursts(&mut sender, 39_001)[0].0, 6, "progress begins anew");
}

#[test]
fn a_report_that_the_first_block_of_a_window_is_missing_is_heard_although_it_comes_early() {
    // The round trip of whole windows is ten times that of a single packet, as on a slow link.
    let mut sender = flowing(8, 1000, 2, &ADAPTIVE);
    let mut now = 2;
    bursts(&mut sender, now);
    for window in 1..=20 {
        now += 20;
        sender.handle(&ack(window * 8), at(now));
        bursts(&mut sender, now);
    }
    sender.handle(&ack(160), at(now + 3));
    assert_eq!(bursts(&mut sender, now + 3), [(161, 168)]);
}

#[test]
fn an_ack_beyond_what_was_sent_or_long_passed_is_no_position() {
    let mut sender = flowing(4, 100, 2, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 2), [(1, 4)]);
    sender.handle(&ack(4), at(4));
    assert_eq!(bursts(&mut sender, 4), [(5, 8)]);
    let before = sender.poll(at(5));
    for wire in [9, 10, 100, 3, 1, 0, 65535, 40_000] {
        sender.handle(&ack(wire), at(5));
        assert_eq!(sender.poll(at(5)), before, "ACK {wire}");
    }
    assert_eq!(sender.acked(), 4);
}

#[test]
fn a_late_ack_of_the_window_before_skips_nothing_even_in_the_largest_window() {
    let window = tftpool::unversioned::limits::MAX_WINDOWSIZE;
    let mut sender = flowing(window, 1 << 20, 2, &ADAPTIVE);
    let mut now = at(2);
    for expected in [0, u64::from(window)] {
        loop {
            match drain(&mut sender, now).1 {
                Step::Wait(until) if until < now + Duration::from_millis(10) => now = until,
                _ => break,
            }
        }
        assert_eq!(sender.acked(), expected);
        sender.handle(&ack(0), now);
        assert_eq!(sender.acked(), expected, "the copy of ACK 0 is stale");
        if expected == 0 {
            sender.handle(&ack(window), now);
        }
    }
}

#[test]
fn silence_begins_with_the_last_block_of_a_window_that_takes_its_time() {
    let mut sender = flowing(64, 1000, 2, &RFC);
    assert_eq!(bursts(&mut sender, 2), [(1, 16)]);
    // The driver could not send for a while: three bursts are still to go.
    for (now, burst) in [(702, (17, 32)), (1402, (33, 48)), (2102, (49, 64))] {
        assert_eq!(bursts(&mut sender, now), [burst], "at {now}");
    }
    assert_eq!(sender.poll(at(2103)), Step::Wait(at(3102)));
}

#[test]
fn the_first_large_window_goes_in_bursts_of_16_and_the_next_at_once() {
    let mut sender = flowing(64, 1000, 2, &ADAPTIVE);
    let mut now = at(2);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let (bursts, last) = drain(&mut sender, now);
        seen.extend(bursts);
        match last {
            Step::Wait(until) => now = until,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [(1, 16), (17, 32), (33, 48), (49, 64)]);
    sender.handle(&ack(64), at(10));
    assert_eq!(bursts(&mut sender, 10), [(65, 128)]);
}

// ---- the sender: silence ------------------------------------------------------------------

/// A sender whose path has lost a block: blocks 1 to 16 in windows of `window`, block 17 on in
/// flight since 1000.
fn lossy(window: u16) -> Sender {
    let mut sender = flowing(window, 1000, 2, &ADAPTIVE);
    let mut now = 2;
    for block in (window..=16).step_by(window.into()) {
        bursts(&mut sender, now);
        now += 2;
        if block == window {
            now += 300; // the probe finds out that the ACK was lost
            bursts_until(&mut sender, now - 300, now - 2);
        }
        sender.handle(&ack(block), at(now));
    }
    assert_eq!(bursts(&mut sender, 1000)[0].0, 17);
    sender
}

fn blocks_of(all: &[(u128, u64, u64)]) -> Vec<(u64, u64)> {
    all.iter().map(|(_, first, last)| (*first, *last)).collect()
}

#[test]
fn a_silent_window_is_probed_by_its_last_block_then_by_the_window() {
    let mut sender = lossy(4);
    let (all, end, outcome) = silence(&mut sender, 1000);
    let early: Vec<_> = all.into_iter().filter(|(now, ..)| *now < 2000).collect();
    let window = [(17, 20), (20, 20)];
    assert_eq!(blocks_of(&early)[0], (20, 20));
    assert_eq!(blocks_of(&early)[1..3], window, "its last block twice");
    let starts: Vec<_> = early
        .iter()
        .enumerate()
        .filter(|(index, (_, first, _))| *index == 0 || *first == 17)
        .map(|(_, burst)| burst)
        .map(|(now, ..)| now - 1000)
        .collect();
    assert_eq!(starts[..3], [10, 20, 30], "half of the floor, three times");
    let beyond: Vec<_> = early
        .iter()
        .filter(|(_, first, _)| *first > 20)
        .map(|(_, first, last)| (*first, *last))
        .collect();
    let one = [(21, 21), (21, 21)];
    assert_eq!(beyond[..2], one, "where the window brought nothing twice");
    assert!(
        beyond.len() > 2 && beyond[2..].iter().all(|burst| *burst == (21, 22)),
        "then two, and no more: {beyond:?}"
    );
    assert_eq!(outcome, Outcome::Silent);
    assert!(
        (20_000..20_100).contains(&end),
        "1 + 2 + 4 + 4 + 4 + 4 s, not {end}"
    );
}

#[test]
fn a_window_that_was_reported_broken_and_stays_silent_goes_out_whole_at_once() {
    let mut sender = lossy(8);
    sender.handle(&ack(18), at(1002));
    assert_eq!(bursts(&mut sender, 1002), [(19, 26)]);
    // U-Boot has reported this hole, and is silent where block 19 is lost again.
    assert_eq!(bursts_until(&mut sender, 1002, 1012), [(19, 26), (26, 26)]);
    sender.handle(&ack(26), at(1014));
    assert_eq!(bursts(&mut sender, 1014), [(27, 34)]);
    // Nothing was reported of the next one: its last block comes first.
    assert_eq!(bursts_until(&mut sender, 1015, 1025), [(34, 34)]);
}

/// A receiver that never reports leaves the probes of the last block unanswered; then they are left
/// out.
#[test]
fn a_receiver_that_answers_no_probes_gets_windows_at_once() {
    let mut sender = lossy(8);
    let (mut block, mut now) = (17, 1000);
    let mut probed = Vec::new();
    for _ in 0..3 {
        // The whole window brings the answer, whether the last block went out before or not.
        let mut all = Vec::new();
        while all.last() != Some(&(block + 7, block + 7)) || all.len() < 2 {
            now += 1;
            assert!(now < 5000, "{all:?}");
            all.extend(bursts(&mut sender, now));
        }
        probed.push(all[0].0 - block);
        now += 2;
        block += 8;
        sender.handle(&ack(block as u16 - 1), at(now));
        assert_eq!(bursts(&mut sender, now), [(block, block + 7)]);
    }
    assert_eq!(probed, [7, 7, 0]);
    // This time the window was not needed: its answer comes too soon.
    let mut all = Vec::new();
    while all.is_empty() {
        now += 1;
        assert!(now < 5000);
        all = bursts(&mut sender, now);
    }
    assert_eq!(all[0], (block, block + 7));
    sender.handle(&ack(block as u16 + 7), at(now + 1));
    bursts(&mut sender, now + 1);
    let next = bursts_until(&mut sender, now + 2, now + 200);
    assert_eq!(next[0], (block + 15, block + 15), "the last block again");
}

#[test]
fn what_was_agreed_is_left_only_where_the_end_of_the_file_is_known() {
    let mut stream = Sender::answering(&windows_of(4), true, None, &ADAPTIVE, at(0));
    bursts(&mut stream, 0);
    stream.handle(&ack(0), at(2));
    bursts(&mut stream, 2);
    stream.handle(&ack(2), at(4));
    let (all, ..) = silence(&mut stream, 4);
    assert!(all.iter().all(|(_, _, last)| *last <= 6), "{all:?}");
    let mut end = flowing(4, 6, 2, &ADAPTIVE);
    bursts(&mut end, 2);
    end.handle(&ack(2), at(4));
    let (all, ..) = silence(&mut end, 4);
    assert!(all.iter().all(|(_, _, last)| *last <= 6), "{all:?}");
}

/// The block beyond the window arrived: all of it did.
#[test]
fn an_ack_of_the_block_beyond_the_window_goes_on_behind_it() {
    let mut sender = lossy(4);
    let mut now = 1000;
    let mut sent = Vec::new();
    while !sent.contains(&(21, 21)) {
        now += 1;
        assert!(now < 5000);
        sent = bursts(&mut sender, now);
    }
    let beyond = sent.iter().filter(|burst| **burst == (21, 21)).count();
    assert_eq!(beyond, 2, "the second copy is the one that is answered");
    let mut all_of_it = sender.clone();
    all_of_it.handle(&ack(20), at(now + 2));
    assert_eq!(bursts(&mut all_of_it, now + 2)[0].0, 21);
    let torn = sender.torn();
    sender.handle(&ack(21), at(now + 2));
    assert_eq!(bursts(&mut sender, now + 2)[0].0, 22);
    assert_eq!(sender.torn(), torn, "nothing was lost");
}

/// The first ACK inside the window looks like a report of a hole. Those that follow come too soon
/// to be answers to what it brought.
#[test]
fn a_receiver_that_acknowledges_every_block_gets_each_block_once() {
    let mut sender = flowing(8, 1000, 20, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 20), [(1, 8)]);
    sender.handle(&ack(1), at(40));
    assert_eq!(bursts(&mut sender, 40), [(2, 9)]);
    for block in 2..=8 {
        sender.handle(&ack(block), at(40));
        let next = u64::from(block) + 8;
        assert_eq!(bursts(&mut sender, 40), [(next, next)]);
    }
    for block in 9..=100 {
        let now = 60 + (u64::from(block) - 9) / 8 * 20;
        sender.handle(&ack(block), at(now));
        let next = u64::from(block) + 8;
        assert_eq!(bursts(&mut sender, now), [(next, next)]);
    }
    assert_eq!(sender.retransmits(), 7);
    // A hole is reported right behind the last ACK.
    sender.handle(&ack(100), at(280));
    assert_eq!(bursts(&mut sender, 280), [(101, 108)]);
}

// ---- the sender: a pause is not a loss ----------------------------------------------------

/// Hands in the ACK of each block after its round trip, or after its pause. The copies that went
/// out.
fn copies_with_pauses(sender: &mut Sender, round_trip: u64, pauses: &[(u16, u64)]) -> u64 {
    let mut now = round_trip;
    for block in 1..=100 {
        bursts(sender, now);
        let pause = pauses.iter().find(|(at, _)| *at == block);
        let until = now + pause.map_or(round_trip, |(_, pause)| *pause);
        bursts_until(sender, now, until - 1);
        now = until;
        sender.handle(&ack(block), at(now));
    }
    sender.retransmits()
}

#[test]
fn a_pause_brings_no_copy_where_nothing_was_lost() {
    for (pauses, copies) in [
        (&[(10, 30), (50, 100), (90, 200)][..], 0),
        (&[(10, 200), (11, 200), (12, 200), (90, 250)], 0),
        (&[(10, 299), (50, 299)], 0),
        (&[(10, 900)], 1),
        (&[(10, 900), (40, 900), (70, 950)], 1),
        (&[(10, 400), (40, 450), (70, 400)], 1),
        (&[(10, 900), (40, 1900)], 2),
    ] {
        for round_trip in [1, 10] {
            let mut sender = flowing(1, 1000, round_trip, &ADAPTIVE);
            let sent = copies_with_pauses(&mut sender, round_trip, pauses);
            assert_eq!(sent, copies, "{pauses:?}, {round_trip} ms");
        }
    }
}

/// The block is lost at 1000, and its first copy is answered after a round trip.
#[test]
fn a_prompt_answer_to_a_copy_proves_a_loss_and_the_next_probe_is_early() {
    let mut sender = flowing(1, 1000, 4, &ADAPTIVE);
    bursts(&mut sender, 4);
    sender.handle(&ack(1), at(8));
    assert_eq!(bursts_until(&mut sender, 8, 308), [(2, 2), (2, 2)]);
    sender.handle(&ack(2), at(312));
    assert_eq!(bursts_until(&mut sender, 312, 324), [(3, 3), (3, 3)]);
}

#[test]
fn an_answer_that_no_copy_can_have_brought_proves_a_pause() {
    // The copy leaves at 308: too soon, or later than answers come.
    for (answer, early) in [
        (311, false),
        (312, true),
        (328, true),
        (330, false),
        (600, false),
    ] {
        let mut sender = flowing(1, 1000, 4, &ADAPTIVE);
        bursts(&mut sender, 4);
        sender.handle(&ack(1), at(8));
        assert_eq!(bursts_until(&mut sender, 8, 308), [(2, 2), (2, 2)]);
        sender.handle(&ack(2), at(answer));
        let sent = bursts_until(&mut sender, answer, answer + 299);
        assert_eq!(sent.len() > 1, early, "answered at {answer}: {sent:?}");
    }
}

/// Two ACKs for two copies: both had arrived.
#[test]
fn a_second_answer_takes_the_proof_of_a_loss_back() {
    let mut sender = flowing(1, 1000, 4, &ADAPTIVE);
    bursts(&mut sender, 4);
    sender.handle(&ack(1), at(8));
    assert_eq!(bursts_until(&mut sender, 8, 308), [(2, 2), (2, 2)]);
    sender.handle(&ack(2), at(312));
    assert_eq!(bursts(&mut sender, 312), [(3, 3)]);
    sender.handle(&ack(2), at(313));
    sender.handle(&ack(2), at(314));
    assert_eq!(bursts_until(&mut sender, 314, 312 + 379), []);
    assert_eq!(
        bursts(&mut sender, 312 + 380),
        [(3, 3)],
        "304 ms and a quarter"
    );
}

/// U-Boot reports once: the ACK and the report were lost, and its own timer brings the next ACK. A
/// device that had paused answers each copy, and the second answer says so.
#[test]
fn a_late_answer_on_a_path_with_losses_is_no_pause_until_a_second_one_comes() {
    for has_paused in [false, true] {
        let mut sender = lossy(1);
        bursts_until(&mut sender, 1000, 1900);
        sender.handle(&ack(17), at(1900));
        assert_eq!(bursts(&mut sender, 1900), [(18, 18)]);
        if has_paused {
            sender.handle(&ack(17), at(1900));
        }
        let sent = bursts_until(&mut sender, 1900, 2100);
        assert_eq!(sent.is_empty(), has_paused, "{sent:?}");
    }
}

/// U-Boot's timer has the interval that it asked for: when the copy comes, its ACK goes out again
/// anyway, and once more for the copy.
#[test]
fn two_answers_to_a_copy_of_the_interval_are_no_proof_of_a_pause() {
    let mut sender = Sender::answering(&windows_of(1), true, Some(1000), &ADAPTIVE, at(0));
    assert_eq!(bursts_until(&mut sender, 0, 1000), [(0, 0), (0, 0)]);
    sender.handle(&ack(0), at(1002));
    assert_eq!(bursts_until(&mut sender, 1002, 2002), [(1, 1), (1, 1)]);
    sender.handle(&ack(1), at(2004));
    assert_eq!(bursts(&mut sender, 2004), [(2, 2)]);
    sender.handle(&ack(1), at(2004));
    sender.handle(&ack(2), at(2006));
    assert_eq!(bursts_until(&mut sender, 2006, 2030), [(3, 3), (3, 3)]);
}

/// Where the OACK went out twice, no round trip is known. The first block is lost too, and its copy
/// is answered at once.
#[test]
fn a_loss_behind_a_repeated_opening_is_not_taken_for_a_pause() {
    let mut sender = Sender::answering(&windows_of(1), true, Some(1000), &ADAPTIVE, at(0));
    assert_eq!(bursts_until(&mut sender, 0, 1000), [(0, 0), (0, 0)]);
    sender.handle(&ack(0), at(1002));
    assert_eq!(bursts_until(&mut sender, 1002, 2002), [(1, 1), (1, 1)]);
    for block in 1..=10 {
        let now = 2002 + 2 * u64::from(block);
        sender.handle(&ack(block), at(now));
        assert_eq!(bursts(&mut sender, now).len(), 1);
    }
    assert_eq!(bursts_until(&mut sender, 2022, 2050)[0], (11, 11), "lost");
}

#[test]
fn a_device_that_writes_its_flash_before_the_last_ack_gets_few_copies() {
    // A probe and five intervals; in a window a probe of the last block, one of the window, and
    // five intervals.
    for (window, most) in [(1, 6), (8, 1 + 9 + 5 * 8)] {
        let mut sender = flowing(window, u64::from(window), 2, &ADAPTIVE);
        bursts(&mut sender, 2);
        let copies = bursts_until(&mut sender, 3, 15_001);
        let blocks: u64 = copies.iter().map(|(first, last)| last - first + 1).sum();
        assert!(blocks <= most, "{blocks} blocks: {copies:?}");
        sender.handle(&ack(window), at(15_002));
        assert_eq!(sender.poll(at(15_002)), Step::Done(Outcome::Complete));
    }
    // Also where something was lost before.
    let mut sender = lossy(1);
    let copies = bursts_until(&mut sender, 1000, 16_000);
    assert!(copies.len() <= 11, "{copies:?}");
}

/// Answers take 20 ms, and 60 at most. A receiver's own timer says nothing of the path.
#[test]
fn an_ack_from_inside_the_window_that_comes_late_is_no_round_trip() {
    // In time; late, before a probe; behind the probe of the last block; behind that of the window.
    for (answer, is_sample) in [(70, true), (240, false), (400, false), (700, false)] {
        let mut sender = flowing(8, 1000, 20, &ADAPTIVE);
        assert_eq!(bursts(&mut sender, 20), [(1, 8)]);
        sender.handle(&ack(8), at(40));
        bursts_until(&mut sender, 40, answer);
        let before = sender.round_trip();
        sender.handle(&ack(11), at(answer));
        let after = sender.round_trip();
        assert_eq!(before != after, is_sample, "at {answer}: {after:?}");
    }
}

/// A receiver that was taken for one that acknowledges every block reports a hole after all.
#[test]
fn whole_windows_end_the_belief_that_every_block_is_acknowledged() {
    let mut sender = flowing(8, 1000, 20, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 20), [(1, 8)]);
    sender.handle(&ack(1), at(40));
    assert_eq!(bursts(&mut sender, 40), [(2, 9)]);
    for block in 2..=4 {
        sender.handle(&ack(block), at(40));
        bursts(&mut sender, 40);
    }
    sender.handle(&ack(12), at(60));
    assert_eq!(bursts(&mut sender, 60), [(13, 20)]);
    sender.handle(&ack(20), at(80));
    assert_eq!(bursts(&mut sender, 80), [(21, 28)]);
    sender.handle(&ack(21), at(100));
    assert_eq!(bursts(&mut sender, 100), [(22, 29)], "block 22 is missing");
}

/// So does a silence.
#[test]
fn a_silence_ends_the_belief_that_every_block_is_acknowledged() {
    let mut sender = flowing(8, 1000, 20, &ADAPTIVE);
    bursts(&mut sender, 20);
    for block in 1..=4 {
        sender.handle(&ack(block), at(40));
        bursts(&mut sender, 40);
    }
    let probed = (41..200).find(|now| !bursts(&mut sender, *now).is_empty());
    let now = probed.expect("a probe") + 25;
    sender.handle(&ack(5), at(now));
    assert_eq!(bursts(&mut sender, now), [(6, 13)], "block 6 is missing");
}

/// Block 11 is lost, and each block behind it brings ACK 10 again, over a slow line.
#[test]
fn the_acks_of_one_hole_bring_one_window() {
    let mut sender = flowing(8, 1000, 20, &ADAPTIVE);
    bursts(&mut sender, 20);
    sender.handle(&ack(8), at(40));
    bursts(&mut sender, 40);
    sender.handle(&ack(10), at(60));
    assert_eq!(bursts(&mut sender, 60), [(11, 18)]);
    for now in [62, 66, 70, 72, 74, 76] {
        sender.handle(&ack(10), at(now));
        assert_eq!(bursts(&mut sender, now), [], "at {now}");
    }
    sender.handle(&ack(10), at(80));
    assert_eq!(bursts(&mut sender, 80), [(11, 18)], "lost again");
}

/// That windows have holes says nothing of a receiver's room.
#[test]
fn windows_that_a_silent_receiver_needed_twice_keep_their_bursts() {
    let mut sender = flowing(16, 1000, 2, &ADAPTIVE);
    for (now, block) in [(2, 16), (4, 20), (6, 36)] {
        bursts(&mut sender, now);
        sender.handle(&ack(block), at(now + 2));
    }
    let mut now = 8;
    bursts(&mut sender, now);
    for window in 1..=20u64 {
        let before = sender.retransmits();
        while sender.retransmits() < before + 16 {
            now += 1;
            assert!(now < 5000);
            bursts(&mut sender, now);
        }
        now += 2;
        sender.handle(&ack((36 + 16 * window) as u16), at(now));
        bursts(&mut sender, now);
        assert_eq!(sender.burst(), 16, "window {window}");
    }
}

/// Two may have had holes; three in a row that bring nothing may have found no room.
#[test]
fn the_third_window_of_a_silence_goes_out_in_smaller_bursts() {
    let mut sender = lossy(8);
    let mut seen = Vec::new();
    for now in 1000..1100 {
        bursts(&mut sender, now);
        seen.push((now, sender.burst()));
    }
    seen.dedup_by_key(|(_, burst)| *burst);
    assert_eq!(seen[..2], [(1000, 8), (1050, 4)]);
}

/// The ACKs were lost, not the windows: one silence among many windows slows nothing down. A second
/// one that follows at once takes one step.
#[test]
fn a_silence_behind_which_the_whole_window_had_arrived_leaves_the_bursts_alone() {
    let mut sender = flowing(16, 1000, 2, &ADAPTIVE);
    let (mut now, mut block) = (6, 36);
    for (now, block) in [(2, 16), (4, 20)] {
        bursts(&mut sender, now);
        sender.handle(&ack(block), at(now + 2)); // the second has a hole: silence means loss now
    }
    let mut whole = |sender: &mut Sender, now: &mut u64, count: u32| {
        for _ in 0..count {
            bursts(sender, *now);
            *now += 2;
            sender.handle(&ack(block), at(*now));
            block += 16;
        }
    };
    whole(&mut sender, &mut now, 12);
    for after in [16, 8] {
        bursts_until(&mut sender, now, now + 700);
        assert!(sender.burst() < 8, "{} in the silence", sender.burst());
        now += 700;
        whole(&mut sender, &mut now, 1);
        assert_eq!(sender.burst(), after);
    }
}

/// The opening took 2 ms, and a window takes 700. Its last block is all that goes out twice.
#[test]
fn a_window_that_takes_longer_than_the_opening_is_not_queued_behind_itself() {
    let mut sender = flowing(16, 1000, 2, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 2), [(1, 16)]);
    assert_eq!(bursts_until(&mut sender, 3, 700), [(16, 16), (16, 16)]);
    sender.handle(&ack(16), at(702));
    assert_eq!(sender.round_trip(), Some(Duration::from_millis(700)));
    assert_eq!(bursts_until(&mut sender, 702, 1800), [(17, 32)]);
}

#[test]
fn rfc_mode_has_no_probes_and_keeps_the_agreed_interval() {
    let agreed = Agreed {
        timeout: Some(Duration::from_secs(3)),
        ..windows_of(2)
    };
    let mut sender = Sender::answering(&agreed, true, Some(9), &RFC, at(0));
    bursts(&mut sender, 0);
    sender.handle(&ack(0), at(5));
    let (all, end, outcome) = silence(&mut sender, 5);
    let starts: Vec<_> = all
        .iter()
        .filter(|(_, first, _)| *first == 1)
        .map(|it| it.0)
        .collect();
    assert_eq!(starts, [5, 3005, 6005, 9005, 12_005, 15_005]);
    assert_eq!((end, outcome), (18_005, Outcome::Silent));
}

#[test]
fn the_budget_counts_silence_and_not_packets() {
    // Every block needs four resends of the timer, and still the transfer ends well.
    let mut sender = flowing(1, 40, 2, &RFC);
    let mut now = at(2);
    for block in 1..=40u16 {
        for _ in 0..5 {
            match drain(&mut sender, now).1 {
                Step::Wait(until) => now = until,
                other => panic!("block {block}: {other:?}"),
            }
        }
        sender.handle(&ack(block), now);
    }
    assert_eq!(sender.poll(now), Step::Done(Outcome::Complete));
    assert_eq!(sender.retransmits(), 160);
}

#[test]
fn progress_gives_the_whole_budget_back_and_a_stale_ack_gives_nothing() {
    let mut sender = flowing(1, 9, 2, &RFC);
    bursts(&mut sender, 2);
    sender.handle(&ack(1), at(900));
    bursts(&mut sender, 900);
    let mut now = 901;
    while !matches!(sender.poll(at(now)), Step::Done(_)) {
        bursts(&mut sender, now);
        sender.handle(&ack(1), at(now)); // a babbling client
        now += 50;
        assert!(
            now < 25_000,
            "a babbling client keeps a dead transfer alive"
        );
    }
    assert_eq!(sender.poll(at(now)), Step::Done(Outcome::Silent));
}

#[test]
fn the_last_block_is_probed_like_any_other_and_nothing_follows_its_ack() {
    let mut sender = flowing(1, 1, 2, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 2), [(1, 1)]);
    assert_eq!(bursts(&mut sender, 302), [(1, 1)]);
    sender.handle(&ack(1), at(304));
    assert_eq!(
        drain(&mut sender, at(304)),
        (vec![], Step::Done(Outcome::Complete))
    );
    sender.handle(&REFUSED, at(305));
    assert_eq!(sender.poll(at(99_999)), Step::Done(Outcome::Complete));
}

/// When blocks go out, in milliseconds, until the end of the transfer, which comes last.
fn sends_into_silence(sender: &mut Sender, mut now: u64) -> (Vec<u64>, u64, Outcome) {
    let mut sends = Vec::new();
    loop {
        let (blocks, last) = drain(sender, at(now));
        if !blocks.is_empty() {
            sends.push(now);
        }
        match last {
            Step::Wait(until) => now = (until - at(0)).as_micros().div_ceil(1000) as u64,
            Step::Done(outcome) => return (sends, now, outcome),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn icmp_is_a_hint_that_a_valid_ack_clears() {
    let mut sender = flowing(1, 9, 2, &ADAPTIVE);
    assert_eq!(bursts(&mut sender, 2), [(1, 1)]);
    sender.unreachable(at(3));
    let mut alive = sender.clone();
    let (sends, end, outcome) = sends_into_silence(&mut sender, 3);
    assert_eq!(sends, [1002, 3002, 7002, 11002, 15002], "no probes");
    assert_eq!((end, outcome), (19002, Outcome::Unreachable));

    alive.handle(&ack(1), at(500));
    assert_eq!(bursts(&mut alive, 500), [(2, 2)]);
    let (_, end, outcome) = sends_into_silence(&mut alive, 500);
    assert!((19_500..20_500).contains(&end), "a whole budget: {end}");
    assert_eq!(outcome, Outcome::Silent);
}

/// scapy has no socket: its kernel answers each DATA by ICMP, before scapy answers by an ACK.
#[test]
fn a_slow_client_without_a_socket_gets_every_block_once() {
    let mut sender = flowing(1, 40, 2, &ADAPTIVE);
    for block in 1..=40 {
        let now = 900 * block;
        assert_eq!(bursts(&mut sender, now), [(block, block)]);
        sender.unreachable(at(now + 1));
        assert_eq!(bursts(&mut sender, now + 899), [], "block {block}");
        sender.handle(&ack(block as u16), at(now + 900));
    }
    assert_eq!(sender.poll(at(99_999)), Step::Done(Outcome::Complete));
    assert_eq!(sender.retransmits(), 0);
}

/// A router answers "port unreachable" until its boot loader listens.
#[test]
fn icmp_takes_nothing_of_the_patience_of_a_first_request() {
    let client = Policy {
        retries: 7,
        ..ADAPTIVE
    };
    let wanted = client.patience(7).as_millis() as u64;
    assert_eq!(wanted, 27_000);
    let mut sender = Sender::requesting(&client, at(0));
    let mut receiver = Receiver::requesting(DALLY, &client, at(0));
    let mut asked = (0, 0);
    for now in 0..wanted {
        while let Step::Open = sender.poll(at(now)) {
            asked.0 += 1;
            sender.opened(at(now));
            sender.unreachable(at(now));
        }
        while let Step::Open = receiver.poll(at(now)) {
            asked.1 += 1;
            receiver.sent(at(now));
            receiver.unreachable(at(now));
        }
        assert!(matches!(sender.poll(at(now)), Step::Wait(_)), "{now}");
        assert!(matches!(receiver.poll(at(now)), Step::Wait(_)), "{now}");
    }
    assert_eq!(asked, (8, 8));
    let closed = Step::Done(Outcome::Unreachable);
    assert_eq!(sender.poll(at(wanted)), closed);
    assert_eq!(receiver.poll(at(wanted)), closed);
}

/// The end of its time says less than a closed port, and "too slow" says more.
#[test]
fn what_icmp_said_is_told_whatever_ends_the_silence() {
    let limits = Policy {
        min_progress: 16,
        max_time: Some(Duration::from_secs(5)),
        ..ADAPTIVE
    };
    let mut unanswered = Sender::requesting(&limits, at(0));
    unanswered.opened(at(0));
    unanswered.unreachable(at(1));
    assert_eq!(unanswered.poll(at(5000)), Step::Done(Outcome::Unreachable));
    let mut answered = flowing(1, 9, 2, &limits);
    answered.unreachable(at(3));
    assert_eq!(answered.poll(at(5000)), Step::Done(Outcome::TooLong));
}

/// A device writes its flash before the last ACK: 25 s were seen.
#[test]
fn behind_the_last_block_silence_lasts_longer() {
    let client = Policy {
        final_timeout: Duration::from_secs(60),
        ..ADAPTIVE
    };
    for window in [1, 4] {
        let mut sender = flowing(window, 8, 2, &client);
        let mut now = 2;
        for last in (window..8).step_by(window.into()) {
            let (_, end, outcome) = sends_into_silence(&mut sender.clone(), now);
            let began = now + if last == window { 0 } else { 1 };
            assert_eq!(outcome, Outcome::Silent, "{last}");
            assert!(end < began + 19_100, "block {last} in the middle: {end}");
            bursts(&mut sender, now);
            now += 1;
            sender.handle(&ack(last), at(now));
        }
        let mut late = sender.clone();
        let (_, end, outcome) = sends_into_silence(&mut sender, now);
        assert_eq!(outcome, Outcome::Silent);
        assert!((60_000..65_000).contains(&end), "{end}");
        bursts(&mut late, now);
        let copies = bursts_until(&mut late, now + 1, 55_000);
        let copies = copies.iter().filter(|(_, last)| *last == 8).count();
        assert!(copies <= 9, "{copies} copies of the last block");
        late.handle(&ack(8), at(55_000));
        assert_eq!(late.poll(at(55_000)), Step::Done(Outcome::Complete));
    }
    let longer = Policy {
        final_timeout: Duration::from_secs(1),
        ..ADAPTIVE
    };
    let mut sender = flowing(1, 1, 2, &longer);
    let (_, end, _) = sends_into_silence(&mut sender, 2);
    assert!(end >= 19_002, "no setting makes it shorter: {end}");
}

#[test]
fn a_request_that_comes_again_proves_that_somebody_listens() {
    let mut sender = Sender::answering(&windows_of(4), true, Some(9), &ADAPTIVE, at(0));
    bursts(&mut sender, 0);
    sender.unreachable(at(1));
    sender.request_repeated(at(500));
    assert_eq!(bursts(&mut sender, 500), [(0, 0)]);
    assert!(matches!(sender.poll(at(1001)), Step::Wait(_)));
}

// ---- the sender: opening ------------------------------------------------------------------

#[test]
fn an_oack_is_sent_4_times_at_most_and_never_within_a_second() {
    let agreed = Agreed {
        timeout: Some(Duration::from_millis(10)),
        ..windows_of(4)
    };
    for agreed in [agreed, windows_of(4)] {
        let mut sender = Sender::answering(&agreed, true, Some(9), &ADAPTIVE, at(0));
        let (all, _, outcome) = silence(&mut sender, 0);
        assert_eq!(all.len(), 4);
        assert!(
            all.windows(2).all(|pair| pair[1].0 >= pair[0].0 + 1000),
            "{all:?}"
        );
        assert_eq!(outcome, Outcome::Unanswered);
    }
}

#[test]
fn a_data_1_to_an_unproven_peer_is_sent_twice_at_most() {
    let mut sender = Sender::answering(&Agreed::default(), false, Some(9), &ADAPTIVE, at(0));
    let (all, _, outcome) = silence(&mut sender, 0);
    assert_eq!(all, [(0, 1, 1), (1000, 1, 1)]);
    assert_eq!(outcome, Outcome::Unanswered);
}

#[test]
fn a_repeated_request_brings_one_more_copy_and_no_more() {
    for (oack, bound) in [(true, 4 + 1), (false, 2 + 1)] {
        let mut sender = Sender::answering(&windows_of(1), oack, Some(9), &ADAPTIVE, at(0));
        assert_eq!(bursts(&mut sender, 0).len(), 1);
        sender.request_repeated(at(100));
        assert_eq!(bursts(&mut sender, 100).len(), 1, "at once");
        let (all, ..) = silence(&mut sender, 101);
        assert_eq!(2 + all.len(), bound, "OACK {oack}");
    }
    let mut sender = flowing(1, 9, 2, &ADAPTIVE);
    bursts(&mut sender, 2);
    sender.request_repeated(at(3));
    assert!(
        bursts(&mut sender, 3).is_empty(),
        "the peer is proven: a late copy"
    );
}

/// A forged source that repeats one request every 7 ms for a minute: the opening itself, its
/// resends, a burst of eight, and one answer a second.
#[test]
fn asking_without_end_brings_a_burst_and_then_one_answer_a_second() {
    let forged = |now: u64| now.is_multiple_of(7);
    let bound = |times: &[u64], own: usize| {
        let in_all = 8 + 59;
        assert!(
            (in_all + 1..=in_all + own).contains(&times.len()),
            "{times:?}"
        );
        assert!(times.iter().is_sorted_by(|one, next| *one + 50 <= **next));
        // In any ten seconds after the burst there are ten answers, and no more.
        for start in (10_000..50_000).step_by(500) {
            let window = start..start + 10_000;
            let answers = times.iter().filter(|at| window.contains(*at)).count();
            assert!((9..=11).contains(&answers), "{answers} from {start} on");
        }
    };
    for (oack, own) in [(true, 4), (false, 2)] {
        let mut sender = Sender::answering(&windows_of(1), oack, Some(9), &SERVER, at(0));
        let mut times = Vec::new();
        for now in 0..60_000 {
            let answered = forged(now) && sender.request_repeated(at(now));
            let sent = bursts(&mut sender, now).len();
            assert!(!answered || sent == 1);
            times.extend(vec![now; sent]);
        }
        bound(&times, own);
        assert_eq!(sender.poll(at(60_000)), Step::Done(Outcome::Unanswered));
    }
    let mut receiver = Receiver::answering(&windows_of(1), DALLY, &SERVER, at(0));
    let sent = (0..60_000).filter(|now| {
        let _ = forged(*now) && receiver.request_repeated(at(*now));
        !answers(&mut receiver, *now).is_empty()
    });
    bound(&sent.collect::<Vec<_>>(), 4);
}

/// A board whose receive path is not ready repeats one request from one port
/// (raspberrypi/rpi-eeprom#74). Each request is answered, however many answers were lost before.
#[test]
fn a_request_that_comes_every_second_is_answered_every_time() {
    for oack in [true, false] {
        let mut sender = Sender::answering(&windows_of(1), oack, Some(9), &SERVER, at(0));
        bursts(&mut sender, 0);
        for second in 1..60 {
            let now = second * 1000 - 100;
            assert!(sender.request_repeated(at(now)), "at {now}");
            assert_eq!(bursts_until(&mut sender, now, now + 1).len(), 1);
            bursts_until(&mut sender, now + 1, now + 900);
        }
    }
    let mut receiver = Receiver::answering(&windows_of(1), DALLY, &SERVER, at(0));
    assert_eq!(answers(&mut receiver, 0), ["open"]);
    for second in 1..60 {
        let now = second * 1000 - 100;
        assert!(receiver.request_repeated(at(now)), "at {now}");
        assert_eq!(answers(&mut receiver, now), ["open"]);
    }
}

/// The first answer of a client is lost as often as any packet. Most repeat it every five seconds,
/// some after seven, and do not ask anew: they have heard from us.
#[test]
fn an_answer_that_comes_again_late_is_still_waited_for() {
    for late in [5000, 7200, 14_400, 18_900] {
        let mut plain = Sender::answering(&Agreed::default(), false, Some(9), &SERVER, at(0));
        assert_eq!(
            bursts_until(&mut plain, 0, late).len(),
            2,
            "DATA 1, and one copy"
        );
        plain.handle(&ack(1), at(late));
        assert_eq!(bursts(&mut plain, late), [(2, 2)]);

        let asked = Agreed {
            timeout: Some(Duration::from_secs(5)),
            ..windows_of(1)
        };
        let mut sender = Sender::answering(&asked, true, Some(9), &SERVER, at(0));
        bursts_until(&mut sender, 0, late);
        sender.handle(&ack(0), at(late));
        assert_eq!(bursts(&mut sender, late), [(1, 1)]);

        let mut receiver = Receiver::answering(&asked, DALLY, &SERVER, at(0));
        (0..late).for_each(|now| drop(answers(&mut receiver, now)));
        assert_eq!(receiver.handle(&full(1), at(late)), Verdict::Store);
        assert_eq!(answers(&mut receiver, late), ["ack 1"]);
    }
}

#[test]
fn no_data_before_the_oack_is_confirmed() {
    let mut sender = Sender::answering(&windows_of(16), true, Some(99), &ADAPTIVE, at(0));
    bursts(&mut sender, 0);
    sender.handle(&ack(1), at(1));
    assert!(bursts(&mut sender, 999).is_empty());
    sender.handle(&ack(0), at(999));
    assert_eq!(bursts(&mut sender, 999), [(1, 16)]);
}

#[test]
fn an_error_ends_at_once_and_is_never_answered() {
    let mut probe = Sender::answering(&windows_of(4), true, Some(9), &ADAPTIVE, at(0));
    bursts(&mut probe, 0);
    probe.handle(&REFUSED, at(1));
    let aborted = |at_opening| {
        Step::Done(Outcome::Aborted {
            code: ErrorCode::OPTION_REFUSED,
            at_opening,
        })
    };
    assert_eq!(drain(&mut probe, at(1)), (vec![], aborted(true)));
    let mut sender = flowing(4, 9, 2, &ADAPTIVE);
    sender.handle(&REFUSED, at(3));
    assert_eq!(drain(&mut sender, at(3)), (vec![], aborted(false)));
    let mut receiver = receiving(4);
    assert_eq!(receiver.handle(&REFUSED, at(1)), Verdict::Ignore);
    assert_eq!(receiver.poll(at(1)), aborted(true));
    assert!(answers(&mut receiver, 1).is_empty());
}

#[test]
fn a_client_repeats_its_wrq_and_goes_on_with_what_was_agreed() {
    let mut sender = Sender::requesting(&ADAPTIVE, at(0));
    assert_eq!(bursts(&mut sender, 0), [(0, 0)]);
    assert_eq!(bursts(&mut sender, 1000), [(0, 0)]);
    sender.agree(&windows_of(2), Some(3), &ADAPTIVE, at(1002));
    assert_eq!(bursts(&mut sender, 1002), [(1, 2)]);
    assert_eq!(
        sender.round_trip(),
        None,
        "two requests, one answer: nothing is measured"
    );
    sender.handle(&ack(2), at(1004));
    assert_eq!(bursts(&mut sender, 1004), [(3, 3)]);
    let mut sender = Sender::requesting(&ADAPTIVE, at(0));
    bursts(&mut sender, 0);
    sender.agree(&windows_of(2), Some(3), &ADAPTIVE, at(7));
    assert_eq!(sender.round_trip(), Some(Duration::from_millis(7)));
}

/// A server waits for DATA 1 a few seconds; by the letter of an agreed interval it would come
/// later.
#[test]
fn an_oack_that_comes_again_brings_data_1_again_but_a_copy_does_not() {
    let mut sender = Sender::requesting(&RFC, at(0));
    assert_eq!(bursts(&mut sender, 0), [(0, 0)]);
    let agreed = Agreed {
        timeout: Some(Duration::from_secs(10)),
        ..Agreed::default()
    };
    sender.agree(&agreed, Some(9), &RFC, at(10));
    assert_eq!(bursts(&mut sender, 10), [(1, 1)]);
    let oack = Packet::OptionAck(Options::default());
    sender.handle(&oack, at(12));
    assert_eq!(bursts(&mut sender, 12), []);
    sender.handle(&oack, at(1010));
    assert_eq!(bursts(&mut sender, 1010), [(1, 1)]);
    let mut hostile = sender.clone();
    sender.handle(&oack, at(1011));
    assert_eq!(bursts(&mut sender, 1011), []);
    sender.handle(&ack(1), at(1020));
    assert_eq!(bursts(&mut sender, 1020), [(2, 2)]);
    sender.handle(&oack, at(2030));
    assert_eq!(bursts(&mut sender, 2030), []);
    let answered = (2000..9000)
        .map(|now| {
            hostile.handle(&oack, at(now));
            bursts(&mut hostile, now).len()
        })
        .sum::<usize>();
    assert_eq!(answered, 5, "as many as retries, with the first");
}

#[test]
fn a_full_send_buffer_loses_nothing() {
    let mut sender = flowing(8, 20, 2, &ADAPTIVE);
    assert_eq!(sender.poll(at(2)), Step::Data { first: 1, end: 9 });
    sender.sent(4, at(2));
    assert_eq!(sender.poll(at(3)), Step::Data { first: 4, end: 9 });
    sender.sent(9, at(3));
    assert_eq!(sender.poll(at(3)), Step::Wait(at(303)));
}

#[test]
fn numbers_wrap_outside_and_never_inside() {
    for rollover in [Rollover::Zero, Rollover::One] {
        let agreed = Agreed {
            rollover,
            ..windows_of(1)
        };
        let mut sender = Sender::answering(&agreed, true, Some(200_000), &ADAPTIVE, at(0));
        bursts(&mut sender, 0);
        sender.handle(&ack(0), at(1));
        for block in 1..=200_000 {
            assert_eq!(bursts(&mut sender, 1), [(block, block)]);
            sender.handle(&ack(rollover.to_wire(block)), at(1));
        }
        assert_eq!(sender.poll(at(1)), Step::Done(Outcome::Complete));
    }
}

// ---- the receiver -------------------------------------------------------------------------

#[test]
fn one_ack_a_window_and_one_at_the_end() {
    let mut receiver = receiving(4);
    for number in 1..=3 {
        assert!(block(&mut receiver, number, 1).is_empty());
    }
    assert_eq!(block(&mut receiver, 4, 1), ["ack 4"]);
    assert!(block(&mut receiver, 5, 2).is_empty());
    assert_eq!(receiver.handle(&data(6, b"end"), at(2)), Verdict::StoreLast);
    assert!(receiver.is_complete());
    assert_eq!(answers(&mut receiver, 2), ["ack 6"]);
}

#[test]
fn one_ack_per_hole_until_the_sender_goes_back_to_it() {
    let mut receiver = receiving(8);
    block(&mut receiver, 1, 1);
    assert_eq!(block(&mut receiver, 3, 1), ["ack 1"]);
    for number in 4..=8 {
        assert!(block(&mut receiver, number, 1).is_empty(), "told once");
        assert!(
            block(&mut receiver, number, 1).is_empty(),
            "copies are no questions"
        );
    }
    // The window again, and block 2 is lost again.
    assert_eq!(block(&mut receiver, 3, 30), ["ack 1"]);
    assert!(block(&mut receiver, 4, 30).is_empty());
    // A probe: the last block once more.
    assert!(
        block(&mut receiver, 8, 60).is_empty(),
        "not behind the last one seen"
    );
    assert_eq!(block(&mut receiver, 8, 90), ["ack 1"]);
    assert_eq!(receiver.holes(), 3);
    // Filled; the next hole is a new one.
    block(&mut receiver, 2, 91);
    assert_eq!(block(&mut receiver, 4, 91), ["ack 2"]);
}

#[test]
fn a_window_that_comes_again_is_acknowledged_once() {
    let mut receiver = receiving(4);
    for number in 1..=4 {
        block(&mut receiver, number, 1);
    }
    let mut acks = Vec::new();
    for number in 1..=4 {
        acks.extend(block(&mut receiver, number, 30));
    }
    assert_eq!(acks, ["ack 4"]);
    assert_eq!(block(&mut receiver, 4, 60), ["ack 4"], "a probe");
    assert_eq!(block(&mut receiver, 1, 90), ["ack 4"], "and another");
}

#[test]
fn copies_of_flowing_blocks_bring_no_ack_in_mid_window() {
    let mut receiver = receiving(4);
    for number in 1..=3 {
        assert!(block(&mut receiver, number, 1).is_empty());
        assert!(block(&mut receiver, number, 1).is_empty());
    }
    assert_eq!(block(&mut receiver, 4, 1), ["ack 4"]);
    assert!(block(&mut receiver, 4, 1).is_empty());
}

#[test]
fn in_lock_step_every_repeated_block_is_acknowledged_again_and_no_other() {
    let mut receiver = receiving(1);
    assert_eq!(block(&mut receiver, 1, 1), ["ack 1"]);
    assert_eq!(block(&mut receiver, 1, 1), ["ack 1"]);
    for other in [3, 4, 500, 30_000] {
        assert_eq!(receiver.handle(&full(other), at(2)), Verdict::Ignore);
        assert!(answers(&mut receiver, 2).is_empty(), "DATA {other}");
    }
    assert_eq!(receiver.received(), 1);
}

#[test]
fn the_last_block_is_acknowledged_again_during_a_bounded_dally() {
    let mut receiver = receiving(1);
    assert_eq!(receiver.handle(&data(1, b"all"), at(1)), Verdict::StoreLast);
    // Storing took longer than the dally, which begins when the ACK leaves.
    assert_eq!(answers(&mut receiver, 4001), ["ack 1"]);
    for now in [4500, 6000, 7000] {
        assert_eq!(receiver.handle(&data(1, b"all"), at(now)), Verdict::Ignore);
        assert_eq!(answers(&mut receiver, now), ["ack 1"]);
    }
    assert_eq!(
        receiver.poll(at(7000)),
        Step::Wait(at(7001)),
        "repeats do not prolong it"
    );
    assert_eq!(receiver.poll(at(7001)), Step::Done(Outcome::Complete));
}

#[test]
fn a_whole_file_stays_whole_whatever_comes_behind_it() {
    for packet in [REFUSED, data(1, &[0; 600]), data(2, b"more"), ack(7)] {
        let mut receiver = receiving(1);
        assert_eq!(receiver.handle(&data(1, b"all"), at(1)), Verdict::StoreLast);
        answers(&mut receiver, 1);
        assert_eq!(receiver.handle(&packet, at(2)), Verdict::Ignore);
        assert!(receiver.is_complete());
        answers(&mut receiver, 2);
        assert_eq!(receiver.poll(at(9000)), Step::Done(Outcome::Complete));
    }
}

#[test]
fn a_block_longer_than_agreed_is_error_4() {
    let mut receiver = receiving(1);
    assert_eq!(receiver.handle(&data(1, &[0; 513]), at(1)), Verdict::Ignore);
    assert_eq!(answers(&mut receiver, 1), ["error 4"]);
    assert!(matches!(
        receiver.poll(at(1)),
        Step::Done(Outcome::Protocol(_))
    ));
}

#[test]
fn an_empty_file_and_an_exact_multiple_end_with_an_empty_block() {
    let mut receiver = receiving(1);
    assert_eq!(receiver.handle(&data(1, b""), at(1)), Verdict::StoreLast);
    let mut receiver = receiving(1);
    assert_eq!(receiver.handle(&full(1), at(1)), Verdict::Store);
    answers(&mut receiver, 1);
    assert!(!receiver.is_complete());
    assert_eq!(receiver.handle(&data(2, b""), at(1)), Verdict::StoreLast);
}

#[test]
fn an_oack_for_a_wrq_is_bounded_like_one_for_an_rrq() {
    let agreed = Agreed {
        timeout: Some(Duration::from_millis(10)),
        ..windows_of(4)
    };
    let mut receiver = Receiver::answering(&agreed, DALLY, &ADAPTIVE, at(0));
    let sent: Vec<u64> = (0..19_000)
        .filter(|now| !answers(&mut receiver, *now).is_empty())
        .collect();
    assert_eq!(sent, [0, 1000, 3000, 7000]);
    assert_eq!(receiver.poll(at(19_000)), Step::Done(Outcome::Unanswered));
    let mut receiver = receiving(1);
    assert!(receiver.request_repeated(at(100)));
    assert_eq!(answers(&mut receiver, 100), ["open"]);
    receiver.unreachable(at(199));
    assert!(receiver.request_repeated(at(200)));
    let more = (200..60_000).filter(|now| !answers(&mut receiver, *now).is_empty());
    assert_eq!(more.count(), 1 + 3, "4, and one for each repeat");
    assert_eq!(receiver.poll(at(60_000)), Step::Done(Outcome::Unanswered));
}

#[test]
fn a_block_behind_a_lost_data_1_proves_the_peer_and_stops_the_oack() {
    let mut receiver = receiving(4);
    assert_eq!(block(&mut receiver, 2, 5), ["ack 0"]);
    assert!(receiver.is_proven());
    receiver.request_repeated(at(6));
    assert!(answers(&mut receiver, 6).is_empty());
}

#[test]
fn a_lost_ack_0_is_repeated_when_the_oack_comes_again() {
    let mut receiver = Receiver::requesting(DALLY, &ADAPTIVE, at(0));
    assert_eq!(answers(&mut receiver, 0), ["open"]);
    receiver.agree(&windows_of(4), true, &ADAPTIVE, at(2));
    assert_eq!(answers(&mut receiver, 2), ["ack 0"]);
    let oack = Packet::OptionAck(Options::default());
    assert_eq!(receiver.handle(&oack, at(100)), Verdict::Ignore);
    assert_eq!(answers(&mut receiver, 100), ["ack 0"]);
    block(&mut receiver, 1, 102);
    let _ = receiver.handle(&oack, at(103));
    assert!(
        answers(&mut receiver, 103).is_empty(),
        "late, and of no use"
    );
}

#[test]
fn the_receiver_lets_the_sender_go_first() {
    let mut receiver = Receiver::requesting(DALLY, &ADAPTIVE, at(0));
    answers(&mut receiver, 0);
    receiver.agree(&windows_of(1), true, &ADAPTIVE, at(300));
    answers(&mut receiver, 300);
    let mut now = 300;
    for number in 1..=30 {
        now += 300;
        assert_eq!(block(&mut receiver, number, now), [format!("ack {number}")]);
    }
    assert!(
        answers(&mut receiver, now + 600).is_empty(),
        "two round trips at least"
    );
    assert_eq!(answers(&mut receiver, now + 700), ["ack 30"]);
}

// ---- slow peers
// -----------------------------------------------------------------------------------

const SERVER: Policy = Policy {
    min_progress: 16,
    max_time: Some(Duration::from_secs(600)),
    ..ADAPTIVE
};

/// Acknowledges a block every `pause` milliseconds, or every so many, for as long as it is let.
fn ends_slowly(mut sender: Sender, pause: u64, step: u64) -> (Outcome, u128) {
    let (mut now, mut block) = (0, 0);
    loop {
        let end = now + pause;
        // Wakes up where the machine says so, and is not told of anything else.
        loop {
            let (_, last) = drain(&mut sender, at(now));
            match last {
                Step::Wait(until) if until <= at(end) => now = millis(until) as u64,
                Step::Wait(_) => break,
                Step::Done(outcome) => return (outcome, millis(at(now))),
                other => panic!("{other:?}"),
            }
        }
        now = end;
        block += step;
        sender.handle(&ack(block as u16), at(now));
    }
}

#[test]
fn a_peer_that_acknowledges_too_little_in_a_minute_is_too_slow() {
    let agreed = |timeout, blksize| Agreed {
        timeout: Some(Duration::from_secs(timeout)),
        blksize,
        ..Agreed::default()
    };
    let sender = |timeout, blksize, policy: &Policy| {
        let mut sender = Sender::answering(&agreed(timeout, blksize), true, None, policy, at(0));
        drain(&mut sender, at(0));
        sender.handle(&ack(0), at(0));
        sender
    };
    // Twelve blocks a minute are too few, twenty are enough until all time is used up.
    assert_eq!(
        ends_slowly(sender(255, 512, &SERVER), 5000, 1),
        (Outcome::TooSlow, 60_000)
    );
    assert_eq!(
        ends_slowly(sender(255, 512, &SERVER), 3000, 1),
        (Outcome::TooLong, 600_000)
    );
    // With blocks of 32 KiB two in a minute are 64 KiB.
    assert_eq!(
        ends_slowly(sender(255, 32_768, &SERVER), 25_000, 1).0,
        Outcome::TooLong
    );
    assert_eq!(
        ends_slowly(sender(255, 32_768, &SERVER), 35_000, 1).0,
        Outcome::TooSlow
    );
    // Whoever asks for none keeps such a peer.
    let patient = Policy {
        min_progress: 0,
        ..SERVER
    };
    assert_eq!(
        ends_slowly(sender(255, 512, &patient), 5000, 1),
        (Outcome::TooLong, 600_000)
    );
}

/// Each minute counts for itself: what got through before is not saved up.
#[test]
fn a_peer_that_was_quick_before_is_too_slow_all_the_same() {
    let mut sender = Sender::answering(&Agreed::default(), false, None, &SERVER, at(0));
    drain(&mut sender, at(0));
    for block in 1..=100 {
        let now = u64::from(block) * 10;
        sender.handle(&ack(block), at(now));
        drain(&mut sender, at(now));
    }
    let mut block = 100;
    for now in (10_000..120_000).step_by(10_000) {
        bursts_until(&mut sender, now - 9000, now);
        block += 1;
        sender.handle(&ack(block), at(now));
        drain(&mut sender, at(now));
    }
    let Step::Done(outcome) = sender.poll(at(120_001)) else {
        panic!("it is kept");
    };
    assert_eq!(outcome, Outcome::TooSlow);
}

/// A peer that says just enough to be kept asks for a long `timeout`, and repeats its request so
/// that no round trip is measured. By the letter of that interval nothing goes out before it has
/// passed. The minute is the same.
#[test]
fn no_timeout_and_no_repeated_request_makes_the_minute_longer() {
    let rfc = Policy {
        retransmit: Retransmit::Rfc,
        ..SERVER
    };
    let agreed = Agreed {
        timeout: Some(Duration::from_secs(255)),
        ..Agreed::default()
    };
    for policy in [SERVER, rfc] {
        for repeats in [0, 1, 3] {
            let mut sender = Sender::answering(&agreed, true, None, &policy, at(0));
            bursts(&mut sender, 0);
            for repeat in 1..=repeats {
                assert!(sender.request_repeated(at(repeat * 100)));
                bursts(&mut sender, repeat * 100);
            }
            sender.handle(&ack(0), at(400));
            bursts(&mut sender, 400);
            let (_, end, outcome) = silence(&mut sender, 401);
            assert_eq!((end, outcome), (60_400, Outcome::TooSlow));

            let mut receiver = Receiver::answering(&agreed, DALLY, &policy, at(0));
            answers(&mut receiver, 0);
            for repeat in 1..=repeats {
                assert!(receiver.request_repeated(at(repeat * 100)));
                answers(&mut receiver, repeat * 100);
            }
            block(&mut receiver, 1, 400);
            for now in (1000..60_400).step_by(100) {
                answers(&mut receiver, now);
            }
            assert!(matches!(
                receiver.poll(at(60_399)),
                Step::Wait(_) | Step::Ack(_)
            ));
            assert_eq!(receiver.poll(at(60_400)), Step::Done(Outcome::TooSlow));
        }
    }
}

/// One loss costs the agreed interval by the letter, and need not be the end.
#[test]
fn one_loss_within_the_minute_is_not_too_slow_by_the_letter() {
    let agreed = Agreed {
        timeout: Some(Duration::from_secs(45)),
        ..Agreed::default()
    };
    let policy = Policy {
        retransmit: Retransmit::Rfc,
        ..SERVER
    };
    let mut sender = Sender::answering(&agreed, true, None, &policy, at(0));
    assert_eq!(bursts(&mut sender, 0), [(0, 0)]);
    sender.handle(&ack(0), at(1));
    assert_eq!(bursts(&mut sender, 1), [(1, 1)]);
    assert_eq!(bursts_until(&mut sender, 2, 45_001), [(1, 1)]);
    for block in 1..=20 {
        sender.handle(&ack(block), at(45_000 + u64::from(block)));
        drain(&mut sender, at(45_000 + u64::from(block)));
    }
    assert!(matches!(
        sender.poll(at(60_002)),
        Step::Data { .. } | Step::Wait(_)
    ));
}

/// Who may be forged is not kept for longer because it asked for a long interval: nothing is agreed
/// before it has answered.
#[test]
fn an_unanswered_opening_lasts_no_longer_than_any_other_whatever_was_asked() {
    for seconds in [1, 5, 255] {
        let agreed = Agreed {
            timeout: Some(Duration::from_secs(seconds)),
            ..Agreed::default()
        };
        let mut silent = Sender::answering(&agreed, true, None, &SERVER, at(0));
        let (_, end, outcome) = silence(&mut silent, 0);
        assert_eq!((end, outcome), (19_000, Outcome::Unanswered));
        let mut answering = Receiver::answering(&agreed, DALLY, &SERVER, at(0));
        for now in [0, 1000, 3000, 7000] {
            assert_eq!(answers(&mut answering, now), ["open"]);
        }
        for now in [11_000, 15_000] {
            assert!(answers(&mut answering, now).is_empty());
        }
        assert_eq!(answering.poll(at(19_000)), Step::Done(Outcome::Unanswered));
    }
}

#[test]
fn an_upload_that_trickles_is_too_slow() {
    let mut receiver = Receiver::answering(&windows_of(1), DALLY, &SERVER, at(0));
    assert_eq!(answers(&mut receiver, 0), ["open"]);
    for number in 1..=12 {
        let now = u64::from(number) * 5000 - 4000;
        assert_eq!(block(&mut receiver, number, now), [format!("ack {number}")]);
    }
    assert!(matches!(
        receiver.poll(at(60_999)),
        Step::Wait(_) | Step::Ack(_)
    ));
    assert_eq!(receiver.poll(at(61_000)), Step::Done(Outcome::TooSlow));
}

/// A host that forges an ACK 0 to every port draws one window from each transfer. The silence that
/// follows brings little more, and each further window costs it another ACK.
#[test]
fn one_forged_ack_draws_one_window_and_little_more() {
    const WINDOW: u16 = 2000;
    let blksize = Agreed::default().blksize;
    let free = (SILENT_BYTES + SILENT_BYTES_PER_ACK) / u64::from(blksize);
    for acks in [1, 2, 5] {
        let mut sender = flowing(WINDOW, 1 << 20, 2, &ADAPTIVE);
        let mut blocks = 0;
        let count = |sends: Vec<(u64, u64)>| -> u64 {
            sends.iter().map(|(first, last)| last - first + 1).sum()
        };
        for number in 1..acks {
            blocks += count(bursts_until(&mut sender, 500 * number, 500 * number + 400));
            sender.handle(&ack(number as u16 * WINDOW), at(500 * (number + 1)));
        }
        blocks += count(bursts_until(&mut sender, 500 * acks, 500 * acks + 25_000));
        let windows = acks * u64::from(WINDOW);
        let more = acks * free;
        assert!(blocks >= windows, "{acks}: {blocks}");
        assert!(blocks <= windows + more + 20, "{acks}: {blocks}, {windows}");
    }
}

/// The windows that clients ask for go out again whole, in every second window of a lossy path.
#[test]
fn usual_windows_go_out_again_whole() {
    for window in [4, 16, 64] {
        let mut sender = flowing(window, 1 << 20, 2, &ADAPTIVE);
        let mut now = 2;
        for number in 1..=50 {
            bursts(&mut sender, now);
            bursts_until(&mut sender, now, now + 1);
            sender.handle(&ack((2 * number - 1) * window), at(now + 2));
            let sends = bursts_until(&mut sender, now + 2, now + 1_500);
            let blocks: u64 = sends.iter().map(|(first, last)| last - first + 1).sum();
            assert!(
                blocks >= 2 * u64::from(window),
                "{window}: {number}: {sends:?}"
            );
            now += 1_500;
            sender.handle(&ack(2 * number * window), at(now));
        }
    }
}
