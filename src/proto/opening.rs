//! The budget of the datagram that opens a transfer, for a peer that has not answered. Its address
//! may be forged: each request brings one answer at most, and a stream of requests brings one
//! answer a second.
//!
//! Invariant: the budget bounds what is sent, and it refills. A request is never left without an
//! answer for longer than [`REPEAT_REFILL`], however many answers the peer has missed before. How
//! long an answer is waited for is the timer's rule.

use crate::limits::{REPEAT_REFILL, REPEATED_REQUESTS, REQUEST_SPREAD};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub(super) struct Opening {
    sends: u32,
    most: u32,
    /// When the answers that repeated requests have brought are paid for: each costs one
    /// [`REPEAT_REFILL`].
    paid: Option<Instant>,
    /// The first and the last send.
    sent: Option<(Instant, Instant)>,
}

impl Opening {
    /// The datagram goes out `most` times at most, and once more for each repeat that
    /// [`asked_again`](Self::asked_again) takes.
    pub(super) fn new(most: u32) -> Self {
        Self {
            sends: 0,
            most,
            paid: None,
            sent: None,
        }
    }

    pub(super) fn may_be_sent(&self) -> bool {
        self.sends < self.most
    }

    pub(super) fn was_sent(&mut self, now: Instant) {
        self.sends += 1;
        self.sent = Some(self.sent.map_or((now, now), |(first, _)| (first, now)));
    }

    pub(super) fn was_resent(&self) -> bool {
        self.sends > 1
    }

    /// The request came again: one more copy, unless one has just gone out or the budget is used
    /// up.
    pub(super) fn asked_again(&mut self, now: Instant) -> bool {
        let is_late = self
            .sent
            .is_none_or(|(_, last)| now >= last + REQUEST_SPREAD);
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + REPEAT_REFILL;
        if !is_late || paid > now + REPEAT_REFILL * REPEATED_REQUESTS {
            return false;
        }
        self.paid = Some(paid);
        self.most = self.most.saturating_add(1);
        true
    }

    /// From the only send to its answer `now`; `None` where it can't be told which send was
    /// answered (Karn).
    pub(super) fn round_trip(&self, now: Instant) -> Option<Duration> {
        let (first, _) = self.sent?;
        (self.sends == 1).then(|| now - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repeats every 50 ms between two instants, in milliseconds: how many are answered.
    fn answered(opening: &mut Opening, start: Instant, millis: std::ops::Range<u64>) -> u32 {
        let repeats = millis
            .step_by(50)
            .map(|at| start + Duration::from_millis(at));
        repeats
            .filter(|now| {
                let is_answered = opening.asked_again(*now);
                if is_answered {
                    opening.was_sent(*now);
                }
                is_answered
            })
            .count() as u32
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn the_budget_is_a_burst_and_refills_to_no_more_than_that() {
        let start = Instant::now();
        let mut opening = Opening::new(1);
        opening.was_sent(start);
        assert_eq!(answered(&mut opening, start, 50..1000), REPEATED_REQUESTS);
        assert_eq!(answered(&mut opening, start, 1000..11_000), 10);
        // An hour without a request saves nothing up.
        let later = 3_600_000;
        let second = later..later + 1000;
        assert_eq!(answered(&mut opening, start, second), REPEATED_REQUESTS);
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn a_request_right_behind_a_send_is_a_copy_and_costs_nothing() {
        let start = Instant::now();
        let mut opening = Opening::new(1);
        opening.was_sent(start);
        for _ in 0..100 {
            assert!(!opening.asked_again(start + REQUEST_SPREAD - Duration::from_millis(1)));
        }
        assert_eq!(answered(&mut opening, start, 50..1000), REPEATED_REQUESTS);
    }
}
