//! One direction of the fake network. Packets keep their order unless `reorder` says otherwise;
//! nothing that arrives was altered unnoticed, because UDP has a checksum.

use crate::rng::Rng;
use std::ops::Range;
use std::time::Duration;

/// What a link does to packets. Chances are in parts per million.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub delay: Duration,
    /// Up to this much is added to the delay; the order is kept.
    pub jitter: Duration,
    /// Octets a second; `None` is without limit.
    pub rate: Option<u64>,
    pub loss: u32,
    pub duplicate: u32,
    /// A packet is held back by up to the delay of the link, and overtaken.
    pub reorder: u32,
    /// A packet is held back by up to twice the delay of the link, and whatever comes behind it
    /// waits.
    pub stall: u32,
    /// The packet is replaced by something else: a part of its header, an opcode that does not
    /// exist, another's packet.
    pub junk: u32,
    /// Nothing passes in these times.
    pub blackouts: Vec<Range<Duration>>,
    /// The receiver has room for so many packets and takes one out every [`SERVICE`]; what comes to
    /// a full ring is lost.
    pub ring: Option<u32>,
}

/// See [`Spec::ring`].
pub const SERVICE: Duration = Duration::from_micros(20);

pub struct Link {
    spec: Spec,
    rng: Rng,
    free_from: Duration,
    last_arrival: Duration,
    ring: Ring,
}

#[derive(Default)]
struct Ring {
    filled: u32,
    at: Duration,
}

/// How one copy of a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Whole(Duration),
    Junk(Duration),
}

impl Link {
    pub fn new(spec: Spec, rng: Rng) -> Self {
        Self {
            spec,
            rng,
            free_from: Duration::ZERO,
            last_arrival: Duration::ZERO,
            ring: Ring::default(),
        }
    }

    /// Takes a packet at `now`; the copies that will arrive.
    pub fn carry(&mut self, now: Duration, octets: usize) -> [Option<Arrival>; 2] {
        let Spec {
            delay,
            jitter,
            rate,
            ..
        } = self.spec;
        let on_wire = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos((octets as u64 + 46) * 1_000_000_000 / rate)
        });
        self.free_from = self.free_from.max(now) + on_wire;
        if self.rng.chance(self.spec.loss)
            || self.spec.blackouts.iter().any(|times| times.contains(&now))
        {
            return [None, None];
        }
        let extra = Duration::from_nanos(self.rng.between(0, jitter.as_nanos() as u64));
        let mut arrival = (self.free_from + delay + extra).max(self.last_arrival);
        if self.spec.stall > 0 && self.rng.chance(self.spec.stall) {
            arrival += Duration::from_nanos(self.rng.between(0, 2 * delay.as_nanos() as u64));
        }
        if self.rng.chance(self.spec.reorder) {
            arrival += Duration::from_nanos(self.rng.between(0, delay.as_nanos() as u64));
        } else {
            self.last_arrival = arrival;
        }
        if self.rng.chance(self.spec.junk) {
            return [Some(Arrival::Junk(arrival)), None];
        }
        let again = self.rng.chance(self.spec.duplicate).then(|| {
            let later = self.rng.between(0, delay.as_nanos() as u64);
            Arrival::Whole(arrival + Duration::from_nanos(later * u64::from(self.rng.one_in(2))))
        });
        [Some(Arrival::Whole(arrival)), again]
    }

    /// True where the receiver's ring has room for a packet that arrives now.
    pub fn has_room(&mut self, now: Duration) -> bool {
        let Some(most) = self.spec.ring else {
            return true;
        };
        let taken_out = (now.saturating_sub(self.ring.at).as_nanos() / SERVICE.as_nanos()) as u32;
        if taken_out > 0 {
            self.ring.filled = self.ring.filled.saturating_sub(taken_out);
            self.ring.at = now;
        }
        let room = self.ring.filled < most;
        self.ring.filled += u32::from(room);
        room
    }

    /// A packet that nobody could have meant for this transfer's receiving side.
    pub fn junk(&mut self, original: &[u8]) -> Vec<u8> {
        match self.rng.between(0, 3) {
            // Two octets make an OACK without options.
            0 if original[1] == 6 => original[..1].to_vec(),
            0 => original[..self.rng.between(0, 3) as usize].to_vec(),
            1 => vec![0, self.rng.between(7, 255) as u8, 1, 2, 3],
            2 => vec![self.rng.between(1, 255) as u8; 7],
            _ => foreign(original),
        }
    }
}

/// DATA for an end that sends, ACK for one that receives.
fn foreign(original: &[u8]) -> Vec<u8> {
    match original.get(1) {
        Some(4) => [&[0, 3], &original[2..4], b"what is this?"].concat(),
        Some(3) => [&[0, 4], &original[2..4]].concat(),
        _ => Vec::new(),
    }
}
