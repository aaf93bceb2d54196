//! How often the datagram that opens a transfer goes out to a peer that has not answered. Its address may be forged: what it
//! brings is counted, and asking again and again brings a bounded number more.
//!
//! Only what is sent is bounded here. How long the answer is waited for is the timer's to say, for these as for all: an
//! ACK that was lost comes again after as much as seven seconds, and its peer does not ask anew.

use crate::limits::{REPEATED_REQUESTS, REQUEST_SPREAD};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub(super) struct Opening {
    sends: u32,
    most: u32,
    /// Copies that repeated requests may still bring.
    repeats: u32,
    /// The first and the last send.
    sent: Option<(Instant, Instant)>,
}

impl Opening {
    /// Goes out `most` times at most.
    pub(super) fn new(most: u32) -> Self {
        Self {
            sends: 0,
            most,
            repeats: REPEATED_REQUESTS,
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

    /// The request came again: one more copy, unless one has just gone out, or enough have.
    pub(super) fn asked_again(&mut self, now: Instant) -> bool {
        let is_late = self
            .sent
            .is_none_or(|(_, last)| now >= last + REQUEST_SPREAD);
        if !is_late || self.repeats == 0 {
            return false;
        }
        self.repeats -= 1;
        self.most = self.most.saturating_add(1);
        true
    }

    /// From the only send to its answer `now`; `None` where it can't be told which send was answered (Karn).
    pub(super) fn round_trip(&self, now: Instant) -> Option<Duration> {
        let (first, _) = self.sent?;
        (self.sends == 1).then(|| now - first)
    }
}
