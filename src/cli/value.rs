//! Values of options. A wrong one is answered with what would be accepted.

use crate::limits;
use crate::wire::Mode;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// What reads a value. Behind a pointer, so that clap's code for it is there once for each type and
/// not for each function.
pub(super) type Parser<T> = fn(&str) -> Result<T, String>;

/// Whole numbers within `range`.
pub(super) fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync,
{
    move |text| {
        text.parse()
            .ok()
            .filter(|value| range.contains(value))
            .ok_or_else(|| {
                format!(
                    "expected a number from {} to {}",
                    range.start(),
                    range.end()
                )
            })
    }
}

/// Octets in a block (RFC 2348).
pub(super) fn block_size(text: &str) -> Result<u16, String> {
    number(limits::MIN_BLKSIZE..=limits::MAX_BLKSIZE)(text)
}

/// Blocks in a window (RFC 7440).
pub(super) fn window_size(text: &str) -> Result<u16, String> {
    number(1..=limits::MAX_WINDOWSIZE)(text)
}

/// Resends into silence.
pub(super) fn retries(text: &str) -> Result<u32, String> {
    number(0..=limits::MAX_RETRIES)(text)
}

/// Transfers at once.
pub(super) fn transfers(text: &str) -> Result<usize, String> {
    number(1..=limits::MAX_TRANSFERS)(text)
}

/// Times between 10 ms and 255 s: `1`, `1.5`, `500ms`, `2s`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let (digits, unit_micros) = if let Some(digits) = text.strip_suffix("ms") {
        (digits, 1000)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1_000_000)
    };
    micros(digits, unit_micros)
        .map(Duration::from_micros)
        .filter(|time| limits::TIMEOUTS.contains(time))
        .ok_or_else(|| "expected a time from 10ms to 255s, such as 1, 1.5, 500ms or 2s".into())
}

/// `1.5` of a unit, in microseconds, cut below them.
fn micros(digits: &str, unit_micros: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let number = |text: &str| {
        let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| is_number)
    };
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(number(fraction)?) * u128::from(unit_micros) / u128::from(scale);
    number(whole)?
        .checked_mul(unit_micros)?
        .checked_add(u64::try_from(part).ok()?)
}

/// Times between 1 s and 365 days: `90`, `90s`, `5m`, `24h`, `7d`.
pub(super) fn long_time(text: &str) -> Result<Duration, String> {
    seconds(text)
        .filter(|time| limits::MAX_TIMES.contains(time))
        .ok_or_else(|| "expected a time from 1s to 365d, such as 90, 90s, 5m, 24h or 7d".into())
}

/// Times between 1 s and an hour.
pub(super) fn store_deadline(text: &str) -> Result<Duration, String> {
    seconds(text)
        .filter(|time| limits::STORE_DEADLINES.contains(time))
        .ok_or_else(|| "expected a time from 1s to 1h, such as 10, 10s or 2m".into())
}

/// Whole seconds, minutes, hours or days.
fn seconds(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];
    let (digits, unit_seconds) = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
        .unwrap_or((text, 1));
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit_seconds))
        .map(Duration::from_secs)
}

/// Permission bits in octal.
pub(super) fn umask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|bits| *bits <= 0o777 && !text.starts_with('+'))
        .ok_or_else(|| "expected permission bits from 000 to 777".into())
}

/// `LO:HI` or `LO-HI`, both included.
pub(super) fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    text.split_once([':', '-'])
        .and_then(|(low, high)| Some(low.parse().ok()?..=high.parse().ok()?))
        .filter(|range| *range.start() > 0 && !range.is_empty())
        .ok_or_else(|| "expected LO:HI or LO-HI with ports from 1 to 65535, LO not above HI".into())
}

/// One port, or `LO:HI` or `LO-HI`.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port..=port),
        _ => port_range(text).map_err(|_| {
            "expected a port from 1 to 65535, or LO:HI or LO-HI with LO not above HI".into()
        }),
    }
}

/// An address of this machine.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let bare = host(text)?;
    bare.parse()
        .map_err(|_| "expected an IPv4 or IPv6 address".into())
}

/// A transfer mode.
pub(super) fn mode(text: &str) -> Result<Mode, String> {
    [Mode::Octet, Mode::Netascii]
        .into_iter()
        .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| "expected the mode octet or netascii".into())
}

/// Octets: `1000`, `64K`, `512M`, `4G`, `1T`, by powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let (digits, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| {
            Some((text.strip_suffix([unit, unit.to_ascii_lowercase()])?, shift))
        })
        .unwrap_or((text, 0));
    digits
        .parse::<u64>()
        .ok()
        .filter(|count| *count > 0 && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|count| count.checked_mul(1 << shift))
        .ok_or_else(|| "expected a size from 1 to 16777215T, such as 1000, 64K, 512M or 4G".into())
}

/// A SHA-256 digest.
pub(super) fn digest(text: &str) -> Result<[u8; 32], String> {
    let mut octets = [0; 32];
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|letter| Some(letter.to_digit(16)? as u8))
        .collect();
    match digits {
        Some(digits) if digits.len() == 64 => {
            for (octet, pair) in octets.iter_mut().zip(digits.chunks(2)) {
                *octet = pair[0] << 4 | pair[1];
            }
            Ok(octets)
        }
        _ => Err("expected the 64 hexadecimal digits of a SHA-256 digest".into()),
    }
}

/// An address or a name, without its brackets. Names are looked up later.
pub(super) fn host(text: &str) -> Result<String, String> {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Err("expected an address or a name alone; the port goes into --port".into());
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if bare.is_empty() {
        return Err("expected an address or a name".into());
    }
    Ok(bare.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("1", 1000),
            ("1.5", 1500),
            ("500ms", 500),
            ("0.25", 250),
            ("10.5s", 10_500),
            ("2s", 2000),
            ("10ms", 10),
            ("255", 255_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in [
            "", "s", "9ms", "256", "-1", "+1", "1.", ".5", "1.-5", "1e0", "NaN", "inf", "1m",
            "1 h", "1.5.5",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_times_have_longer_units() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("5m", 300),
            ("24h", 86_400),
            ("365d", 31_536_000),
        ] {
            assert_eq!(long_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in [
            "",
            "0",
            "-1",
            "1.5h",
            "366d",
            "h",
            "1w",
            "99999999999999999999d",
        ] {
            assert!(long_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_umask_is_octal() {
        for (text, bits) in [("0", 0), ("022", 0o22), ("77", 0o77), ("0777", 0o777)] {
            assert_eq!(umask(text), Ok(bits), "{text}");
        }
        for wrong in ["", "8", "1000", "-1", "+7", "u=rw"] {
            assert!(umask(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn port_ranges_go_upwards() {
        assert_eq!(port_range("2000:3000"), Ok(2000..=3000));
        assert_eq!(port_range("2000:2000"), Ok(2000..=2000));
        assert_eq!(port_range("50-60"), Ok(50..=60));
        for wrong in [
            "", "1", "1:", "0:1", "2:1", "2-1", "1:65536", "1--2", "1-2:3", "-1",
        ] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, octets) in [
            ("1", 1),
            ("64K", 65_536),
            ("64k", 65_536),
            ("512M", 512 << 20),
            ("4G", 4 << 30),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(size(text), Ok(octets), "{text}");
        }
        for wrong in ["", "0", "-1", "+1", "1.5G", "K", "16777216T", "1KB", "1 K"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_or_a_range() {
        assert_eq!(ports("69"), Ok(69..=69));
        assert_eq!(ports("2000:3000"), Ok(2000..=3000));
        assert_eq!(ports("2000-3000"), Ok(2000..=3000));
        for wrong in ["0", "", "65536", "3:2", "x"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn digests_are_whole() {
        assert_eq!(digest(&"aF".repeat(32)), Ok([0xaf; 32]));
        for wrong in [
            "",
            "af",
            &"ag".repeat(32),
            &"a".repeat(63),
            &"af".repeat(33),
        ] {
            assert!(digest(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_lose_their_brackets() {
        assert_eq!(host("[::1]").as_deref(), Ok("::1"));
        assert_eq!(host("fe80::1%eth0").as_deref(), Ok("fe80::1%eth0"));
        assert_eq!(host("tftp.lan").as_deref(), Ok("tftp.lan"));
        for wrong in ["127.0.0.1:69", "[::1]:69", "", "[]"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_number_is_told_the_range() {
        let port = number(0..=u16::MAX);
        assert_eq!(port("69"), Ok(69));
        for wrong in ["", "x", "65536", "-1"] {
            assert_eq!(
                port(wrong),
                Err("expected a number from 0 to 65535".to_owned())
            );
        }
    }
}
