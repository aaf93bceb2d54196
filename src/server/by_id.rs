//! A table of transfers by their numbers.

use crate::event::TransferId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table of transfers. The server numbers them one after the other, so a client cannot make them
/// collide.
pub(super) type ById<T> = HashMap<TransferId, T, BuildHasherDefault<Spread>>;

/// Spreads numbers that follow each other over all bits.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, octets: &[u8]) {
        octets
            .iter()
            .for_each(|octet| self.write_u64((*octet).into()));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
