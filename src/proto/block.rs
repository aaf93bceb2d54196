//! Block numbers: 64 bits inside, 16 on the wire.

/// The block number that follows 65535.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rollover {
    /// 0: what nearly every client expects.
    #[default]
    Zero,
    /// 1: the number 0 comes only once.
    One,
}

impl Rollover {
    /// The number that block `block` has on the wire.
    pub fn to_wire(self, block: u64) -> u16 {
        match self {
            Self::Zero => block as u16,
            Self::One if block == 0 => 0,
            Self::One => ((block - 1) % 65535 + 1) as u16,
        }
    }

    /// The first block from `from` on that has this number on the wire; `None` where no such block
    /// exists.
    pub fn from_wire(self, wire: u16, from: u64) -> Option<u64> {
        match self {
            Self::Zero => Some(from + u64::from(wire.wrapping_sub(from as u16))),
            Self::One if wire == 0 => (from == 0).then_some(0),
            Self::One => {
                let from = from.max(1);
                let ahead = (u64::from(wire) + 65535 - u64::from(self.to_wire(from))) % 65535;
                Some(from + ahead)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_65535() {
        assert_eq!(Rollover::Zero.to_wire(65536), 0);
        assert_eq!(Rollover::One.to_wire(65536), 1);
        assert_eq!(Rollover::One.to_wire(0), 0);
        assert_eq!(Rollover::One.to_wire(2 * 65535 + 1), 1);
    }

    #[test]
    fn every_number_is_found_again_through_several_wraps() {
        for rollover in [Rollover::Zero, Rollover::One] {
            for base in [
                0,
                1,
                2,
                65533,
                65534,
                65535,
                65536,
                65537,
                131_069,
                131_070,
                131_071,
                131_072,
                1 << 40,
            ] {
                for ahead in [0u64, 1, 2, 100, 32768, 65533] {
                    let block = base + ahead;
                    assert_eq!(
                        rollover.from_wire(rollover.to_wire(block), base),
                        Some(block),
                        "{rollover:?} {base}+{ahead}"
                    );
                }
            }
        }
        assert_eq!(Rollover::One.from_wire(0, 5), None);
        assert_eq!(Rollover::One.from_wire(65535, 0), Some(65535));
    }
}
