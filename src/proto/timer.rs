//! Two clocks for one silence.
//!
//! The *agreed interval* is the promise of RFC 2349 (or of `--timeout`): when it passes, everything
//! goes out again, and only progress resets its budget. The *probe* comes earlier, after the round
//! trip that was measured (RFC 6298), and doubles up to the agreed interval; it costs a block and
//! finds out where the peer stands. A sender probes early only where it has seen losses; until then
//! a silence is taken for a pause of the peer, see
//! [`limits::PAUSE_FLOOR`](crate::limits::PAUSE_FLOOR).

use super::{Policy, Retransmit};
use crate::limits::{FINAL_TIMEOUT_GROWTH, PAUSE_FLOOR, TIMEOUT_GROWTH};
use std::time::{Duration, Instant};

/// Blocks in a row without a clean sample after which an unclean one is taken: the round trip has
/// grown over the probe interval, or the link is very bad, and in both cases longer waits are
/// right.
const UNSAMPLED_LIMIT: u32 = 3;
/// An answer that proves a loss says little of the round trip: so many of them count as one of the
/// others.
const PROVEN_LOSSES: u32 = 3;

/// The retransmission timer of one transfer.
#[derive(Clone, Debug)]
pub(super) struct Timer {
    interval: Duration,
    agreed: bool,
    /// The interval that nobody has asked for.
    own: Duration,
    /// While an OACK waits for its answer the interval is not shorter than this.
    opening: Option<Duration>,
    retries: u32,
    /// The shortest silence that ends the transfer, and what it becomes behind the last block.
    least_silence: Duration,
    final_silence: Duration,
    probing: bool,
    floor: Duration,
    /// Round trips that a first probe waits for at least; see [`Timer::let_the_peer_go_first`].
    patience: u32,
    /// Probes before the wait for an answer doubles; see [`Timer::has_questions`].
    questions: u32,

    /// A probe comes early only where losses were seen; see
    /// [`Timer::probe_early_after_losses_only`].
    careful: bool,
    /// Losses that were seen, and resends that turned out to be needless because the peer had only
    /// paused.
    losses: u32,
    pauses: u32,
    /// The longest time after which the peer answered something that was not lost.
    longest_pause: Duration,
    /// What the last answer to a resend was taken for, until a second one takes it back.
    verdict: Option<Verdict>,

    round_trip: Option<RoundTrip>,
    unsampled: u32,

    silent_from: Instant,
    interval_from: Instant,
    resends: u32,
    probe_from: Option<Instant>,
    probes: u32,
}

/// SRTT and RTTVAR of RFC 6298 §2.
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    /// The shortest seen: the path with little of the time that a window takes to pass.
    shortest: Duration,
    /// Taken from the opening, where the peer's disk may have been in the way; the first block
    /// replaces it.
    guess: bool,
}

impl RoundTrip {
    /// RFC 6298 §2.2.
    fn first(measured: Duration) -> Self {
        Self {
            smoothed: measured,
            variation: measured / 2,
            shortest: measured,
            guess: false,
        }
    }

    /// RFC 6298 §2.3, without a lower limit. There the variation counts for no less than the
    /// granularity of the clock. Ours is fine, but a steady path must not bring a probe down to the
    /// very instant of the answer.
    fn longest(&self) -> Duration {
        self.smoothed + (4 * self.variation).max(self.smoothed / 8)
    }
}

/// What an answer to a resend was taken for, and how long after the first send it came. A second
/// answer shows that the peer had paused and answers each copy.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Loss(Duration),
    /// On a path that loses packets, a late answer may have been brought by the peer's own timer,
    /// because several answers were lost.
    Unknown(Duration),
}

/// What the passing of time asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// Nothing yet.
    Nothing,
    /// The measured round trip has passed; the number of probes in this silence, from 1.
    Probe(u32),
    /// The agreed interval has passed: send everything again.
    Resend,
    /// It has passed once too often.
    Exhausted,
}

impl Timer {
    pub(super) fn new(policy: &Policy, agreed: Option<Duration>, now: Instant) -> Self {
        Self {
            interval: agreed.unwrap_or(policy.timeout),
            agreed: agreed.is_some(),
            own: policy.timeout,
            opening: None,
            retries: policy.retries,
            least_silence: Duration::ZERO,
            final_silence: policy.final_timeout,
            probing: policy.retransmit == Retransmit::Adaptive,
            floor: policy.probe_floor,
            patience: 1,
            questions: 1,
            careful: false,
            losses: 0,
            pauses: 0,
            longest_pause: Duration::ZERO,
            verdict: None,
            round_trip: None,
            unsampled: 0,
            silent_from: now,
            interval_from: now,
            resends: 0,
            probe_from: None,
            probes: 0,
        }
    }

    /// Until [`end_opening`](Self::end_opening) the interval is at least this long. Nothing is
    /// agreed before the peer has acknowledged the OACK: until then it cannot make the interval
    /// longer than our own, and be kept for longer.
    pub(super) fn begin_opening(&mut self, least: Duration) {
        self.opening = Some(least);
    }

    pub(super) fn end_opening(&mut self) {
        self.opening = None;
    }

    /// For an end whose peer knows better what is missing: its probe has two round trips to arrive
    /// before ours.
    pub(super) fn let_the_peer_go_first(&mut self) {
        self.patience = 2;
    }

    /// For an end whose first probes each ask something else: the later ones need not wait any
    /// longer for their answers.
    pub(super) fn has_questions(&mut self, questions: u32) {
        self.questions = questions;
    }

    /// For an end whose probe is a second copy of something: as long as nothing shows that packets
    /// get lost, a silence is taken for a pause of the peer.
    pub(super) fn probe_early_after_losses_only(&mut self) {
        self.careful = true;
    }

    /// A loss was seen: the peer reported a hole.
    pub(super) fn lost(&mut self) {
        self.losses = self.losses.saturating_add(1);
    }

    /// What looked like a loss was none: a second answer came.
    pub(super) fn refute_loss(&mut self) {
        match self.verdict.take() {
            Some(Verdict::Loss(pause)) => {
                self.losses -= 1;
                self.paused(pause);
            }
            Some(Verdict::Unknown(pause)) => self.paused(pause),
            None => {}
        }
    }

    /// In a window, where a copy of a block harms no receiver, one loss is enough for early probes,
    /// and pauses do not count.
    fn paused(&mut self, pause: Duration) {
        self.pauses += u32::from(self.questions == 1);
        self.longest_pause = self.longest_pause.max(pause);
    }

    /// Silence means loss: more losses were seen than pauses that looked like one.
    fn expects_loss(&self) -> bool {
        !self.careful || self.losses > self.pauses
    }

    /// True where an answer that comes so long after a resend cannot be the answer to it.
    pub(super) fn is_too_soon(&self, since_resend: Duration) -> bool {
        self.shortest_round_trip()
            .is_some_and(|shortest| since_resend < shortest - shortest / 8)
    }

    /// Smoothed round trip, where one was measured.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|round_trip| round_trip.smoothed)
    }

    /// The agreed interval, before any growth.
    pub(super) fn interval(&self) -> Duration {
        match self.opening {
            Some(least) => self.interval.min(self.own).max(least),
            None => self.interval,
        }
    }

    /// The round trip of a block was measured, not only that of the opening.
    pub(super) fn has_sample(&self) -> bool {
        self.round_trip.is_some_and(|round_trip| !round_trip.guess)
    }

    /// The shortest round trip, where one was measured: nothing is an answer that comes much
    /// earlier.
    pub(super) fn shortest_round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|round_trip| round_trip.shortest)
    }

    /// The first probe of this silence comes this long after a send; `None` while nothing was
    /// measured.
    pub(super) fn probe_interval(&self) -> Option<Duration> {
        let round_trip = self.round_trip.filter(|_| self.probing)?;
        let earlier = (self.patience - 1) * round_trip.smoothed;
        // Where losses were seen, a hiccup of a scheduler is the less likely reason for a silence.
        let floor = match self.careful && self.expects_loss() {
            true => self.floor / 2,
            false => self.floor,
        };
        Some((earlier + round_trip.longest()).max(floor))
    }

    /// Answers come within this time, or not at all.
    pub(super) fn answer_time(&self) -> Duration {
        self.round_trip
            .map_or(self.interval, |round_trip| round_trip.longest())
    }

    /// Since when nothing has moved.
    pub(super) fn silent_from(&self) -> Instant {
        self.silent_from
    }

    /// Probes sent in this silence.
    pub(super) fn probes(&self) -> u32 {
        self.probes
    }

    /// In this silence something was sent again by one of the clocks.
    pub(super) fn is_resending(&self) -> bool {
        self.probes + self.resends > 0
    }

    /// RFC 6298 §2.3, for a block that was sent once.
    pub(super) fn sample(&mut self, measured: Duration) {
        self.unsampled = 0;
        self.verdict = None;
        self.longest_pause = self.longest_pause.max(measured);
        let shortest = self.shortest_round_trip().unwrap_or(measured).min(measured);
        self.round_trip = Some(match self.round_trip {
            Some(RoundTrip {
                smoothed,
                variation,
                guess: false,
                ..
            }) => RoundTrip {
                variation: (3 * variation + smoothed.abs_diff(measured)) / 4,
                smoothed: (7 * smoothed + measured) / 8,
                shortest,
                guess: false,
            },
            _ => RoundTrip {
                shortest,
                ..RoundTrip::first(measured)
            },
        });
    }

    /// Blocks that were resent by a clock were answered: so long after the first send, after the
    /// first block and after the last block of the last resend. The answer proves a loss only where
    /// it comes neither sooner than a round trip after the resend began nor later than answers do:
    /// otherwise the peer had paused (RFC 3522 judges by timestamps, which TFTP lacks). Where
    /// silence means loss, a late answer alone proves no pause.
    pub(super) fn resend_was_answered(
        &mut self,
        since_first: Duration,
        since_resend: Duration,
        since_last: Duration,
    ) {
        // Where the opening was sent twice, no round trip is known: the path is taken for a short
        // one.
        let prompt = since_last <= self.probe_interval().unwrap_or(self.floor);
        let too_soon = self.is_too_soon(since_resend);
        if prompt && !too_soon {
            self.unclean_sample(since_first, 1);
            self.lost();
            // A peer whose own timer has the same interval speaks twice.
            self.verdict = (self.resends == 0).then_some(Verdict::Loss(since_first));
            return;
        }
        if !too_soon && self.expects_loss() {
            self.verdict = Some(Verdict::Unknown(since_first));
        } else {
            self.paused(since_first);
        }
        if !prompt && !self.has_sample() && self.resends == 0 {
            // What was guessed from the opening is too short for a window.
            self.guess(since_first);
        } else if too_soon && self.probes + self.resends == 1 {
            self.sample(since_first);
        } else {
            self.ambiguous_sample(since_first);
        }
    }

    /// A block that was sent more than once came back: it can't be told which send was answered
    /// (Karn). The first send counts after a few in a row, or a grown round trip would never be
    /// learned; and where nothing but the guess of the opening is known and a few probes went out
    /// in vain: a window takes longer to pass than an opening, on a slow line.
    pub(super) fn ambiguous_sample(&mut self, since_first_send: Duration) {
        self.unclean_sample(since_first_send, PROVEN_LOSSES);
    }

    fn unclean_sample(&mut self, since_first_send: Duration, weight: u32) {
        self.unsampled += weight;
        let is_guess = self.round_trip.is_none_or(|round_trip| round_trip.guess);
        if is_guess && self.probes >= UNSAMPLED_LIMIT && self.resends == 0 {
            self.guess(since_first_send);
        } else if self.unsampled >= UNSAMPLED_LIMIT * PROVEN_LOSSES {
            self.sample(since_first_send);
        }
    }

    /// The time from an opening that was sent once to its answer.
    pub(super) fn guess(&mut self, measured: Duration) {
        self.round_trip = Some(RoundTrip {
            guess: true,
            ..RoundTrip::first(measured)
        });
    }

    /// The peer moved on: a new silence begins with a full budget.
    pub(super) fn progress(&mut self, now: Instant) {
        self.silent_from = now;
        self.interval_from = now;
        self.resends = 0;
        self.probes = 0;
        self.probe_from = None;
    }

    /// The last block of the file is under way: its receiver may need long for the ACK.
    pub(super) fn await_end(&mut self) {
        self.least_silence = self.final_silence;
    }

    /// Agreed intervals that have passed in this silence.
    pub(super) fn resends(&self) -> u32 {
        self.resends
    }

    /// Everything that may be sent has been: from now on an answer is due.
    pub(super) fn arm_probe(&mut self, now: Instant) {
        self.probe_from = Some(now);
    }

    /// No probe until something is sent again.
    pub(super) fn disarm_probe(&mut self) {
        self.probe_from = None;
    }

    /// The interval starts anew without giving budget back: something was sent that is not an
    /// answer to silence.
    pub(super) fn restart_interval(&mut self, now: Instant) {
        self.interval_from = now;
    }

    /// A window may take longer to pass than the interval, on a slow line; only what was agreed
    /// does not give way.
    fn patient_interval(&self) -> Duration {
        match self.probing && !self.agreed {
            true => self
                .interval()
                .max(self.answer_time().min(self.own * TIMEOUT_GROWTH)),
            false => self.interval(),
        }
    }

    fn interval_end(&self) -> Instant {
        let growth = if self.agreed && self.opening.is_none() {
            1
        } else {
            let most = match self.least_silence.is_zero() {
                true => TIMEOUT_GROWTH,
                false => FINAL_TIMEOUT_GROWTH,
            };
            (1 << self.resends.min(16)).min(most)
        };
        self.interval_from + self.patient_interval().max(self.interval() * growth)
    }

    /// A silence that has outlasted an interval is left to the interval: probes would find out
    /// nothing more.
    fn probe_end(&self) -> Option<Instant> {
        let from = self.probe_from.filter(|_| self.resends == 0)?;
        let early = self.probe_interval()?;
        let wait = if self.expects_loss() {
            let doublings = (self.probes + 1).saturating_sub(self.questions).min(16);
            early.saturating_mul(1 << doublings)
        } else {
            // A pause gets few copies: one question in lock step, two in a window, and then a much
            // longer wait.
            let doublings = (self.probes + 1)
                .saturating_sub(self.questions.min(2))
                .min(8);
            let pause = self.longest_pause + self.longest_pause / 4;
            let quiet = early.max(PAUSE_FLOOR).max(pause);
            quiet.saturating_mul(1 << (2 * doublings))
        };
        Some(from + wait.min(self.patient_interval()))
    }

    /// The next instant at which [`expire`](Self::expire) has something to say.
    pub(super) fn deadline(&self) -> Instant {
        let end = self.interval_end();
        self.probe_end().map_or(end, |probe| probe.min(end))
    }

    /// Compares `now` with both clocks.
    pub(super) fn expire(&mut self, now: Instant) -> Expiry {
        if now >= self.interval_end() {
            if self.resends >= self.retries && now >= self.silent_from + self.least_silence {
                return Expiry::Exhausted;
            }
            self.resends += 1;
            self.interval_from = now;
            self.probe_from = None;
            return Expiry::Resend;
        }
        if self.probe_end().is_some_and(|end| now >= end) {
            self.probes += 1;
            self.probe_from = None;
            return Expiry::Probe(self.probes);
        }
        Expiry::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[allow(clippy::disallowed_methods)] // any instant will do
    fn timer(policy: &Policy, agreed: Option<Duration>) -> (Timer, Instant) {
        let now = Instant::now();
        (Timer::new(policy, agreed, now), now)
    }

    /// The instants, in milliseconds, of all resends; ends with the instant of giving up.
    fn resends(mut timer: Timer, start: Instant) -> Vec<u128> {
        let mut instants = Vec::new();
        loop {
            let now = timer.deadline();
            assert_eq!(
                timer.expire(now - MS / 10),
                Expiry::Nothing,
                "an early wake-up does nothing"
            );
            let expiry = timer.expire(now);
            instants.push((now - start).as_millis());
            match expiry {
                Expiry::Resend => {}
                Expiry::Exhausted => return instants,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn own_interval_doubles_to_four_times_and_ends_after_the_last_resend() {
        let (timer, start) = timer(&Policy::default(), None);
        assert_eq!(
            resends(timer, start),
            [1000, 3000, 7000, 11000, 15000, 19000]
        );
    }

    #[test]
    fn agreed_interval_is_kept_constant() {
        let (timer, start) = timer(
            &Policy {
                retries: 3,
                ..Policy::default()
            },
            Some(5000 * MS),
        );
        assert_eq!(resends(timer, start), [5000, 10000, 15000, 20000]);
    }

    #[test]
    fn probes_double_from_the_floor_and_never_move_the_interval() {
        let (mut timer, start) = timer(&Policy::default(), None);
        timer.sample(MS);
        timer.progress(start);
        timer.arm_probe(start);
        let mut seen = Vec::new();
        loop {
            let now = timer.deadline();
            let expiry = timer.expire(now);
            seen.push((now - start).as_millis());
            match expiry {
                Expiry::Probe(_) => timer.arm_probe(now),
                Expiry::Resend => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [20, 60, 140, 300, 620, 1000]);
    }

    #[test]
    fn the_second_of_two_questions_waits_no_longer_than_the_first() {
        let (mut timer, start) = timer(&Policy::default(), None);
        timer.has_questions(2);
        timer.sample(MS);
        timer.progress(start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..4 {
            timer.arm_probe(now);
            waits.push((timer.deadline() - now).as_millis());
            now = timer.deadline();
            assert!(matches!(timer.expire(now), Expiry::Probe(_)));
        }
        assert_eq!(waits, [20, 20, 40, 80]);
    }

    /// The instants, in milliseconds, of all that a silence brings before `end`.
    fn silence(timer: &mut Timer, start: Instant, end: u64) -> Vec<u128> {
        let mut seen = Vec::new();
        loop {
            let now = timer.deadline();
            if now >= start + Duration::from_millis(end) {
                return seen;
            }
            seen.push((now - start).as_millis());
            if timer.expire(now) != Expiry::Exhausted {
                timer.arm_probe(now);
            }
        }
    }

    #[test]
    fn a_silence_that_outlasts_an_interval_is_left_to_the_interval() {
        let (mut timer, start) = timer(&Policy::default(), None);
        timer.sample(MS);
        timer.progress(start);
        timer.arm_probe(start);
        let seen = silence(&mut timer, start, 15_000);
        assert_eq!(seen, [20, 60, 140, 300, 620, 1000, 3000, 7000, 11_000]);
    }

    /// An agreed interval of five seconds, as U-Boot has it: one lost copy must not cost all of it.
    #[test]
    fn without_a_loss_probes_are_few_and_late() {
        let (mut timer, start) = timer(&Policy::default(), Some(5000 * MS));
        timer.probe_early_after_losses_only();
        timer.sample(MS);
        timer.progress(start);
        timer.arm_probe(start);
        let mut window = timer.clone();
        assert_eq!(silence(&mut timer, start, 9000), [300, 1500, 5000]);
        window.has_questions(3);
        assert_eq!(silence(&mut window, start, 9000), [300, 600, 1800, 5000]);
    }

    #[test]
    fn early_probes_go_on_while_more_losses_than_pauses_were_seen() {
        let (mut timer, start) = timer(&Policy::default(), None);
        timer.probe_early_after_losses_only();
        timer.sample(4 * MS);
        let mut is_early = |since_first: u32, since_last: u32| {
            let last = since_last * MS;
            timer.sample(4 * MS);
            timer.resend_was_answered(since_first * MS, last, last);
            timer.progress(start);
            timer.arm_probe(start);
            timer.deadline() < start + PAUSE_FLOOR
        };
        assert!(is_early(304, 4), "a loss");
        assert!(!is_early(303, 3), "a pause: too soon");
        assert!(is_early(304, 4) && is_early(304, 4), "two losses more");
        assert!(is_early(600, 300), "late: no proof of a pause");
        assert!(is_early(303, 3), "one more pause");
        assert!(!is_early(303, 3), "as many pauses as losses");
        assert!(!is_early(600, 300), "late, where a pause is expected");
    }

    #[test]
    fn in_a_window_one_loss_is_enough_for_early_probes() {
        let (mut timer, start) = timer(&Policy::default(), None);
        timer.probe_early_after_losses_only();
        timer.has_questions(3);
        timer.sample(4 * MS);
        for lost in [false, true] {
            timer.resend_was_answered(302 * MS, MS, MS);
            (0..8).for_each(|_| timer.sample(4 * MS));
            timer.progress(start);
            timer.arm_probe(start);
            assert_eq!(timer.deadline() < start + PAUSE_FLOOR, lost);
            timer.lost();
        }
    }

    /// Three answers in vain, but nine that prove losses.
    #[test]
    fn losses_hardly_make_the_round_trip_grow() {
        for (prompt, count) in [(false, 3), (true, 9)] {
            let (mut timer, _) = timer(&Policy::default(), None);
            timer.sample(4 * MS);
            let last = if prompt { 4 * MS } else { 100 * MS };
            for _ in 1..count {
                timer.resend_was_answered(300 * MS, last, last);
                assert_eq!(timer.round_trip(), Some(4 * MS));
            }
            timer.resend_was_answered(300 * MS, last, last);
            assert_eq!(timer.round_trip(), Some(41 * MS));
        }
    }

    /// Nobody asked for one second, and a window takes longer to pass.
    #[test]
    fn an_interval_that_was_not_agreed_gives_way_to_a_slow_line() {
        let rfc = Policy {
            retransmit: Retransmit::Rfc,
            ..Policy::default()
        };
        for (policy, agreed, wait) in [
            (Policy::default(), None, 2250),
            (Policy::default(), Some(1000 * MS), 1000),
            (rfc, None, 1000),
        ] {
            let (mut timer, start) = timer(&policy, agreed);
            (0..100).for_each(|_| timer.sample(2000 * MS));
            timer.progress(start);
            timer.arm_probe(start);
            assert_eq!((timer.deadline() - start).as_millis(), wait);
        }
    }

    #[test]
    fn rfc_mode_never_probes() {
        let (mut timer, start) = timer(
            &Policy {
                retransmit: Retransmit::Rfc,
                ..Policy::default()
            },
            None,
        );
        timer.sample(MS);
        timer.arm_probe(start);
        assert_eq!(timer.deadline(), start + 1000 * MS);
    }

    #[test]
    fn a_grown_round_trip_is_learned_although_every_block_is_probed() {
        let (mut timer, _) = timer(&Policy::default(), None);
        timer.sample(MS);
        for _ in 0..UNSAMPLED_LIMIT - 1 {
            timer.ambiguous_sample(200 * MS);
            assert!(timer.probe_interval() < Some(25 * MS));
        }
        timer.ambiguous_sample(200 * MS);
        assert!(timer.probe_interval() > Some(200 * MS));
    }

    #[test]
    fn the_guess_of_the_opening_is_replaced_by_the_first_block() {
        let (mut timer, _) = timer(&Policy::default(), None);
        timer.guess(900 * MS);
        assert_eq!(timer.round_trip(), Some(900 * MS));
        timer.sample(2 * MS);
        assert_eq!(timer.round_trip(), Some(2 * MS));
    }

    /// One probe may have been lost, or answered; a few were not, so the window takes its time.
    #[test]
    fn probes_in_vain_say_that_the_guess_was_too_short() {
        for (probes, round_trip) in [(2, 2), (3, 700)] {
            let (mut timer, mut now) = timer(&Policy::default(), None);
            timer.guess(2 * MS);
            timer.progress(now);
            for _ in 0..probes {
                timer.arm_probe(now);
                now = timer.deadline();
                assert!(matches!(timer.expire(now), Expiry::Probe(_)));
            }
            timer.ambiguous_sample(700 * MS);
            assert_eq!(timer.round_trip(), Some(round_trip * MS));
        }
    }
}
