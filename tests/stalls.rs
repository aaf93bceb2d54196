//! A sender whose own blocks are not there yet, and a receiver that cannot store more: what the
//! peer does meanwhile is no loss, and no clock of its silence runs.

use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{Agreed, Outcome, Policy, Receiver, Sender, Step, Verdict};
use tftpool::unversioned::wire::Packet;

const POLICY: Policy = Policy {
    timeout: Duration::from_secs(1),
    retries: 5,
    retransmit: tftpool::unversioned::proto::Retransmit::Adaptive,
    probe_floor: Duration::from_millis(20),
    opening_sends: 4,
    min_progress: 0,
    max_time: None,
    final_timeout: Duration::ZERO,
};
const HOUR: u64 = 3_600_000;

/// So many milliseconds after the start of all tests.
#[allow(clippy::disallowed_methods)] // the one real instant
fn at(millis: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(millis)
}

/// A sender, and the last block that its source has.
struct Stalling {
    sender: Sender,
    there: u64,
}

impl Stalling {
    /// The OACK was answered after 10 ms.
    fn flowing(window: u16, there: u64, policy: &Policy) -> Self {
        let agreed = Agreed {
            windowsize: window,
            ..Agreed::default()
        };
        let mut sender = Sender::answering(&agreed, true, Some(1000), policy, at(0));
        assert_eq!(sender.poll(at(0)), Step::Open);
        sender.opened(at(0));
        let mut this = Self { sender, there };
        this.ack(0, 10);
        this
    }

    fn ack(&mut self, block: u16, now: u64) {
        self.sender.handle(&Packet::Ack { block }, at(now));
    }

    /// What leaves at this instant.
    fn send(&mut self, now: u64) -> Vec<(u64, u64)> {
        let mut bursts = Vec::new();
        loop {
            match self.sender.poll(at(now)) {
                Step::Data { first, .. } if first > self.there => {
                    self.sender.stalled(at(now));
                    return bursts;
                }
                Step::Data { first, end } => {
                    let end = end.min(self.there + 1);
                    bursts.push((first, end - 1));
                    self.sender.sent(end, at(now));
                }
                _ => return bursts,
            }
        }
    }

    /// Blocks sent again, and losses seen.
    fn losses(&self) -> (u64, u64) {
        (self.sender.retransmits(), self.sender.lossy_windows())
    }

    /// The machine offers the next block, and does not wait or end.
    fn is_offered(&mut self, block: u64, now: u64) -> bool {
        matches!(self.sender.poll(at(now)), Step::Data { first, .. } if first == block)
    }
}

#[test]
fn a_peer_that_waits_for_a_block_is_not_silent_however_long_it_takes() {
    for window in [1, 8] {
        let mut stalling = Stalling::flowing(window, 0, &POLICY);
        assert_eq!(stalling.send(10), []);
        for second in 1..3600 {
            stalling.ack(0, 1000 * second);
            assert_eq!(stalling.send(1000 * second), [], "{second}");
        }
        assert!(stalling.is_offered(1, HOUR));
        stalling.there = 1;
        assert_eq!(stalling.send(HOUR), [(1, 1)]);
        assert_eq!(stalling.losses(), (0, 0));
        // It has the whole budget from then on.
        assert!(!stalling.sender.is_stalled() || window > 1);
    }
}

/// The silence before the stall and the one behind it are one silence.
#[test]
fn the_clocks_go_on_where_they_stood() {
    let ends_after = |stall: u64| {
        let mut stalling = Stalling::flowing(1, 1000, &POLICY);
        assert_eq!(stalling.send(10), [(1, 1)]);
        let mut now = 10;
        // The copy of block 1 cannot be had for a while.
        loop {
            match stalling.sender.poll(at(now)) {
                Step::Wait(until) => now = (until - at(0)).as_millis() as u64,
                Step::Data { .. } => break,
                step => panic!("{step:?}"),
            }
        }
        stalling.sender.stalled(at(now));
        assert!(stalling.is_offered(1, now + stall));
        now += stall;
        loop {
            match stalling.sender.poll(at(now)) {
                Step::Wait(until) => now = (until - at(0)).as_millis() as u64,
                Step::Data { end, .. } => stalling.sender.sent(end, at(now)),
                Step::Done(outcome) => break (now - stall, outcome),
                step => panic!("{step:?}"),
            }
        }
    };
    let (end, outcome) = ends_after(0);
    assert_eq!(outcome, Outcome::Silent);
    assert_eq!(ends_after(HOUR), (end, outcome));
}

#[test]
fn a_first_block_that_is_not_there_uses_no_budget() {
    let mut sender = Sender::answering(&Agreed::default(), false, None, &POLICY, at(0));
    assert!(matches!(sender.poll(at(0)), Step::Data { .. }));
    sender.stalled(at(0));
    for second in 1..3600 {
        let now = at(1000 * second);
        assert!(!sender.request_repeated(now), "no answer is there");
        assert!(!sender.is_silent(now), "it was sent nothing");
        assert!(matches!(sender.poll(now), Step::Data { .. }));
    }
    sender.sent(2, at(HOUR));
    assert_eq!((sender.retransmits(), sender.is_stalled()), (0, false));
    assert!(sender.request_repeated(at(HOUR + 500)));
}

#[test]
fn the_least_progress_does_not_count_a_stall_and_the_longest_time_does() {
    let policy = Policy {
        min_progress: 12,
        max_time: Some(Duration::from_secs(600)),
        ..POLICY
    };
    let mut stalling = Stalling::flowing(1, 0, &policy);
    assert_eq!(stalling.send(10), []);
    assert_eq!(stalling.sender.stalled(at(10)), Some(at(600_000)));
    stalling.there = 1;
    assert_eq!(stalling.send(300_000), [(1, 1)]);
    stalling.ack(1, 300_001);
    assert_eq!(stalling.send(300_001), []);
    assert!(stalling.is_offered(2, 599_999));
    let over = Step::Done(Outcome::TooLong);
    assert_eq!(stalling.sender.poll(at(600_000)), over);
    // Without the stall the same pause is too slow.
    let mut slow = Stalling::flowing(1, 1000, &policy);
    assert_eq!(slow.send(10), [(1, 1)]);
    slow.ack(1, 70_000);
    let too_slow = Step::Done(Outcome::TooSlow);
    assert_eq!(slow.sender.poll(at(70_000)), too_slow);
}

#[test]
fn what_a_receiver_says_about_a_part_of_a_window_is_no_loss() {
    let mut stalling = Stalling::flowing(8, 3, &POLICY);
    assert_eq!(stalling.send(10), [(1, 3)]);
    // Its own timer: it acknowledges the part.
    stalling.ack(3, 1010);
    assert_eq!(stalling.send(1010), []);
    assert_eq!((stalling.sender.acked(), stalling.losses()), (3, (0, 0)));
    assert_eq!(
        stalling.sender.round_trip(),
        Some(Duration::from_millis(10)),
        "that was no round trip"
    );
    // One that repeats its last ACK instead gets the part again, and no more often than that.
    stalling.there = 5;
    assert_eq!(stalling.send(1020), [(4, 5)]);
    let mut sends = 0;
    for second in 2..100 {
        stalling.ack(3, 1000 * second);
        let sent = stalling.send(1000 * second);
        sends += sent.len();
        assert!(sent.iter().all(|burst| *burst == (4, 5)), "{sent:?}");
    }
    assert_eq!(sends, 6, "retries + 1");
    assert_eq!(stalling.sender.lossy_windows(), 0);
    stalling.there = 1000;
    assert_eq!(stalling.send(100_000), [(6, 11)]);
}

#[test]
fn a_hole_that_is_reported_at_once_is_a_loss_all_the_same() {
    let mut stalling = Stalling::flowing(8, 3, &POLICY);
    assert_eq!(stalling.send(10), [(1, 3)]);
    stalling.ack(0, 20);
    assert_eq!(stalling.send(20), [(1, 3)]);
    assert_eq!(stalling.losses(), (3, 1));
}

#[test]
fn an_ack_that_crosses_the_end_of_a_stall_is_no_report_of_a_hole() {
    let mut stalling = Stalling::flowing(8, 3, &POLICY);
    assert_eq!(stalling.send(10), [(1, 3)]);
    assert_eq!(stalling.send(900), []);
    stalling.there = 1000;
    assert_eq!(stalling.send(1000), [(4, 8)]);
    stalling.ack(3, 1002);
    assert_eq!(stalling.send(1002), [(9, 11)], "the rest of the window");
    assert_eq!(stalling.losses(), (0, 0));
    // What comes as late as an answer is one.
    stalling.ack(5, 1012);
    assert_eq!(stalling.send(1012), [(6, 13)]);
    assert_eq!(stalling.losses(), (6, 1));
}

/// A lost block teaches the sender to probe early. A second ACK takes that back, unless it is that
/// of a receiver that waits.
#[test]
fn an_ack_that_is_repeated_in_a_stall_takes_no_loss_back() {
    let wait = |repeats_in_stall: bool, repeats_before: bool| {
        let mut stalling = Stalling::flowing(1, 1, &POLICY);
        assert_eq!(stalling.send(10), [(1, 1)]);
        let Step::Wait(probe) = stalling.sender.poll(at(10)) else {
            panic!("block 1 was sent");
        };
        let probe = (probe - at(0)).as_millis() as u64;
        assert_eq!(stalling.send(probe), [(1, 1)], "it was lost");
        stalling.ack(1, probe + 10);
        if repeats_before {
            stalling.ack(1, probe + 11);
        }
        assert_eq!(stalling.send(probe + 20), []);
        if repeats_in_stall {
            stalling.ack(1, probe + 1000);
        }
        stalling.there = 2;
        assert_eq!(stalling.send(5000), [(2, 2)]);
        match stalling.sender.poll(at(5000)) {
            Step::Wait(until) => until - at(5000),
            step => panic!("{step:?}"),
        }
    };
    let early = wait(false, false);
    assert_eq!(wait(true, false), early);
    assert!(wait(false, true) > early);
}

/// A server's WRQ, whose sink takes a block every 20 s.
#[test]
fn a_receiver_that_cannot_store_more_does_not_blame_the_sender() {
    let policy = Policy {
        min_progress: 12,
        max_time: Some(Duration::from_secs(1000)),
        ..POLICY
    };
    let dally = Duration::from_secs(3);
    let mut receiver = Receiver::answering(&Agreed::default(), dally, &policy, at(0));
    assert_eq!(receiver.poll(at(0)), Step::Open);
    receiver.sent(at(0));
    let full = [7; 512];
    let mut now = 0;
    for block in 1..=20 {
        assert_eq!(receiver.stalled(at(now)), Some(at(1_000_000)));
        assert!(receiver.is_stalled());
        now += 20_000;
        let data = Packet::Data {
            block,
            payload: &full,
        };
        // The block has lain unread.
        assert_eq!(receiver.handle(&data, at(now)), Verdict::Store);
        assert!(!receiver.is_stalled());
        assert_eq!(receiver.poll(at(now)), Step::Ack(u64::from(block)));
        receiver.sent(at(now));
        assert!(matches!(receiver.poll(at(now)), Step::Wait(_)));
    }
    assert_eq!((receiver.retransmits(), receiver.round_trip()), (0, None));
    // A stall after which nothing lies there: the silence goes on where it stood.
    receiver.stalled(at(now));
    now += 100_000;
    let Step::Wait(until) = receiver.poll(at(now)) else {
        panic!("no clock has run");
    };
    assert!(until > at(now));
    receiver.stalled(at(now));
    let over = Step::Done(Outcome::TooLong);
    assert_eq!(receiver.poll(at(1_000_000)), over);
}
