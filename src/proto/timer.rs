//! Two clocks for one silence.
//!
//! The *agreed interval* is the promise of RFC 2349 (or of `--timeout`): when it passes, everything goes out again, and
//! only progress resets its budget. The *probe* comes earlier, after the round trip that was measured (RFC 6298), and
//! doubles up to the agreed interval; it costs a block and finds out where the peer stands.

use super::{Policy, Retransmit};
use crate::limits::TIMEOUT_GROWTH;
use std::time::{Duration, Instant};

/// Blocks in a row without a clean sample after which an unclean one is taken: the round trip has grown over
/// the probe interval, or the link is very bad, and in both cases longer waits are right.
const UNSAMPLED_LIMIT: u32 = 3;

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
    /// Probes before the wait for an answer doubles; see [`Timer::has_two_questions`].
    questions: u32,

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
    /// Taken from the opening, where the peer's disk may have been in the way; the first block replaces it.
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

    /// RFC 6298 §2.3, without a lower limit. There the variation counts for no less than the granularity of the clock. Ours is
    /// fine, but a steady path must not bring a probe down to the very instant of the answer.
    fn longest(&self) -> Duration {
        self.smoothed + (4 * self.variation).max(self.smoothed / 8)
    }
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
            round_trip: None,
            unsampled: 0,
            silent_from: now,
            interval_from: now,
            resends: 0,
            probe_from: None,
            probes: 0,
        }
    }

    /// Until [`end_opening`](Self::end_opening) the interval is at least this long. Nothing is agreed before the peer has
    /// acknowledged the OACK: until then it cannot make the interval longer than our own, and be kept for longer.
    pub(super) fn begin_opening(&mut self, least: Duration) {
        self.opening = Some(least);
    }

    pub(super) fn end_opening(&mut self) {
        self.opening = None;
    }

    /// For an end whose peer knows better what is missing: its probe has two round trips to arrive before ours.
    pub(super) fn let_the_peer_go_first(&mut self) {
        self.patience = 2;
    }

    /// For an end whose second probe asks something else than the first: it need not wait any longer for its answer.
    pub(super) fn has_two_questions(&mut self) {
        self.questions = 2;
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

    /// The shortest round trip, where one was measured: nothing is an answer that comes much earlier.
    pub(super) fn shortest_round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|round_trip| round_trip.shortest)
    }

    /// The first probe of this silence comes this long after a send; `None` while nothing was measured.
    pub(super) fn probe_interval(&self) -> Option<Duration> {
        let round_trip = self.round_trip.filter(|_| self.probing)?;
        let earlier = (self.patience - 1) * round_trip.smoothed;
        Some((earlier + round_trip.longest()).max(self.floor))
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

    /// RFC 6298 §2.3, for a block that was sent once.
    pub(super) fn sample(&mut self, measured: Duration) {
        self.unsampled = 0;
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

    /// A block that was sent more than once came back: it can't be told which send was answered (Karn). The first send counts
    /// after a few in a row, or a grown round trip would never be learned; and where nothing but the guess of the opening is
    /// known and a few probes went out in vain: a window takes longer to pass than an opening, on a slow line.
    pub(super) fn ambiguous_sample(&mut self, since_first_send: Duration) {
        self.unsampled += 1;
        let is_guess = self.round_trip.is_none_or(|round_trip| round_trip.guess);
        if is_guess && self.probes >= UNSAMPLED_LIMIT && self.resends == 0 {
            self.guess(since_first_send);
        } else if self.unsampled >= UNSAMPLED_LIMIT {
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

    /// The interval starts anew without giving budget back: something was sent that is not an answer to silence.
    pub(super) fn restart_interval(&mut self, now: Instant) {
        self.interval_from = now;
    }

    /// A window may take longer to pass than the interval, on a slow line; only what was agreed does not give way.
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
            (1 << self.resends.min(16)).min(TIMEOUT_GROWTH)
        };
        self.interval_from + self.patient_interval().max(self.interval() * growth)
    }

    fn probe_end(&self) -> Option<Instant> {
        let doublings = (self.probes + 1).saturating_sub(self.questions).min(16);
        let doubled = self
            .probe_interval()?
            .saturating_mul(1 << doublings)
            .min(self.patient_interval());
        Some(self.probe_from? + doubled)
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
        timer.has_two_questions();
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
