//! Names, numbers, rates and times as people read them.

use crate::text::is_unseen;
use std::time::Duration;

/// A name of this machine in a line for people.
pub(super) fn shown(name: &str) -> String {
    name.chars()
        .map(|letter| if is_unseen(letter) { '?' } else { letter })
        .collect()
}

/// A whole number with this many decimal places: 1234 with 3 is `1.234`.
pub(super) fn decimal(number: u128, places: u32) -> String {
    let one = 10u128.pow(places);
    let width = places as usize;
    format!("{}.{:0width$}", number / one, number % one)
}

/// Bytes a second; `None` for none.
pub(super) fn rate(bytes: u64, time: Duration) -> Option<u64> {
    let micros = time.as_micros().max(1);
    let rate = u128::from(bytes) * 1_000_000 / micros;
    Some(u64::try_from(rate).unwrap_or(u64::MAX)).filter(|_| bytes > 0)
}

/// A number of bytes with the unit that suits it: `812 B`, `1.0 KiB`, `211.3 MiB`.
pub(super) fn binary(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let Some(last) = bytes
        .checked_ilog2()
        .map(|bits| bits as usize / 10)
        .filter(|unit| *unit > 0)
    else {
        return format!("{bytes} B");
    };
    let unit = last.min(units.len());
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{} {}", decimal(tenths, 1), units[unit - 1])
}

/// `0.05 ms`.
pub(super) fn millis(time: Duration) -> String {
    format!("{} ms", decimal(time.as_micros() / 10, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_places() {
        assert_eq!(decimal(1234, 3), "1.234");
        assert_eq!(decimal(5, 3), "0.005");
        assert_eq!(millis(Duration::from_micros(4550)), "4.55 ms");
        for (bytes, shown) in [
            (0, "0 B"),
            (1, "1 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (221_500_000, "211.2 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(binary(bytes), shown);
        }
        assert_eq!(rate(0, Duration::from_secs(1)), None);
        assert_eq!(rate(1000, Duration::from_millis(500)), Some(2000));
        assert_eq!(rate(8, Duration::ZERO), Some(8_000_000));
    }
}
