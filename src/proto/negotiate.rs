//! Which options are agreed (RFC 2347, 2348, 2349, 7440). A server grants what it can keep and
//! leaves the rest out; a client accepts only what it asked for.

use super::Rollover;
use crate::limits::{
    DEFAULT_BLKSIZE, IN_FLIGHT_OCTETS, MAX_BLKSIZE, MAX_TIMEOUT_SECONDS, MAX_WINDOWSIZE,
    MIN_BLKSIZE, UTIMEOUT_MICROS,
};
use crate::wire::{OptionName, Options};
use std::time::Duration;

/// What both ends go by from the answer to the request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Octets in every block but the last (RFC 2348).
    pub blksize: u16,
    /// Blocks sent before an ACK is awaited (RFC 7440).
    pub windowsize: u16,
    /// The retransmission interval, where it was agreed (RFC 2349).
    pub timeout: Option<Duration>,
    /// What follows block 65535.
    pub rollover: Rollover,
    /// Octets of the file, where the sender told (RFC 2349).
    pub tsize: Option<u64>,
}

impl Default for Agreed {
    /// What holds without options (RFC 1350).
    fn default() -> Self {
        Self {
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            timeout: None,
            rollover: Rollover::Zero,
            tsize: None,
        }
    }
}

/// The most that a server grants.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Octets in a block.
    pub max_blksize: u16,
    /// Blocks in a window.
    pub max_windowsize: u16,
    /// Octets in a window.
    pub in_flight: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            max_blksize: MAX_BLKSIZE,
            max_windowsize: MAX_WINDOWSIZE,
            in_flight: IN_FLIGHT_OCTETS,
        }
    }
}

/// A server's answer to the options of a request: what holds, and the OACK that says so. If the
/// OACK is empty, none is sent.
///
/// `size` goes into `tsize`, where it was asked for: the bytes of the file on RRQ, the announced
/// ones on WRQ. Leave it out where the number of bytes on the wire is not known. An empty file has
/// `tsize=0` (RFC 2349); only curl, which takes that for an error, gets none.
pub fn grant(asked: &Options, size: Option<u64>, terms: &Terms) -> (Agreed, Options) {
    use OptionName::{
        Blksize, Blksize2, Rollover as RolloverOption, Timeout, Tsize, Utimeout, Windowsize,
    };
    let mut agreed = Agreed::default();
    let mut answer = Options::default();

    // RFC 2348: the answer "must be less than or equal to the value specified by the client";
    // raising one under 8 is therefore not possible, and it is left out.
    let fits = |size: &u64| *size >= u64::from(MIN_BLKSIZE);
    let most = u64::from(terms.max_blksize.clamp(MIN_BLKSIZE, MAX_BLKSIZE));
    if let Some(size) = asked.get(Blksize).filter(fits) {
        agreed.blksize = size.min(most) as u16;
        answer = answer.with(Blksize, agreed.blksize.into());
    } else if let Some(size) = asked.get(Blksize2).filter(fits) {
        agreed.blksize = 1 << size.min(most).ilog2();
        answer = answer.with(Blksize2, agreed.blksize.into());
    }

    if let Some(blocks) = asked.get(Windowsize).filter(|blocks| *blocks > 0) {
        let most = u64::from(terms.max_windowsize.min(MAX_WINDOWSIZE))
            .min(terms.in_flight / u64::from(agreed.blksize));
        agreed.windowsize = blocks.min(most).max(1) as u16;
        answer = answer.with(Windowsize, agreed.windowsize.into());
    }

    // RFC 2349: an accepted timeout is acknowledged with the same value; any other is left out.
    if let Some(seconds) = asked
        .get(Timeout)
        .filter(|seconds| (1..=MAX_TIMEOUT_SECONDS).contains(seconds))
    {
        agreed.timeout = Some(Duration::from_secs(seconds));
        answer = answer.with(Timeout, seconds);
    }
    if let Some(micros) = asked
        .get(Utimeout)
        .filter(|micros| UTIMEOUT_MICROS.contains(micros))
    {
        let interval = Duration::from_micros(micros);
        if *agreed.timeout.get_or_insert(interval) == interval {
            answer = answer.with(Utimeout, micros);
        }
    }

    if let (Some(_), Some(size)) = (asked.get(Tsize), size)
        && !(size == 0 && asked.are_curls())
    {
        agreed.tsize = Some(size);
        answer = answer.with(Tsize, size);
    }

    if let Some(first @ (0 | 1)) = asked.get(RolloverOption) {
        agreed.rollover = if first == 0 {
            Rollover::Zero
        } else {
            Rollover::One
        };
        answer = answer.with(RolloverOption, first);
    }
    (agreed, answer)
}

/// A client's check of an OACK against what it asked for.
///
/// # Errors
/// What is wrong with the OACK, as the text of an ERROR 8.
pub fn accept(asked: &Options, oack: &Options) -> Result<Agreed, &'static str> {
    use OptionName::{
        Blksize, Blksize2, Rollover as RolloverOption, Timeout, Tsize, Utimeout, Windowsize,
    };
    // RFC 2347: an option that was not requested is not to be in the OACK.
    if oack.unknown() > 0
        || OptionName::ALL
            .into_iter()
            .any(|name| oack.is_present(name) && !asked.is_present(name))
    {
        return Err("option was not asked for");
    }
    if OptionName::ALL
        .into_iter()
        .any(|name| oack.is_present(name) && oack.get(name).is_none())
    {
        return Err("option value is not a number");
    }
    let at_most_asked = |name| match (oack.get(name), asked.get(name)) {
        (Some(granted), Some(wanted)) if granted > wanted => Err("option value was raised"),
        (granted, _) => Ok(granted),
    };
    let mut agreed = Agreed {
        tsize: oack.get(Tsize),
        ..Agreed::default()
    };
    for name in [Blksize, Blksize2] {
        if let Some(size) = at_most_asked(name)? {
            if !(u64::from(MIN_BLKSIZE)..=u64::from(MAX_BLKSIZE)).contains(&size) {
                return Err("block size out of range");
            }
            agreed.blksize = size as u16;
        }
    }
    if let Some(blocks) = at_most_asked(Windowsize)? {
        agreed.windowsize = u16::try_from(blocks)
            .ok()
            .filter(|blocks| *blocks > 0)
            .ok_or("window size out of range")?;
    }
    for (name, interval) in [
        (Timeout, Duration::from_secs as fn(u64) -> Duration),
        (Utimeout, Duration::from_micros),
    ] {
        if let Some(value) = oack.get(name) {
            if asked.get(name) != Some(value) {
                return Err("timeout was changed");
            }
            agreed.timeout = Some(interval(value));
        }
    }
    match oack.get(RolloverOption) {
        Some(first) if asked.get(RolloverOption) != Some(first) => {
            return Err("rollover was changed");
        }
        Some(1) => agreed.rollover = Rollover::One,
        _ => {}
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use OptionName::*;

    fn asked(options: &[(OptionName, u64)]) -> Options {
        options
            .iter()
            .fold(Options::default(), |options, (name, value)| {
                options.with(*name, *value)
            })
    }

    fn answer(options: &[(OptionName, u64)], size: Option<u64>) -> String {
        grant(
            &asked(options),
            size,
            &Terms {
                max_blksize: 8192,
                max_windowsize: 64,
                in_flight: 1 << 20,
            },
        )
        .1
        .to_string()
    }

    #[test]
    fn blksize_is_lowered_never_raised() {
        assert_eq!(answer(&[(Blksize, 8)], None), "blksize=8");
        assert_eq!(answer(&[(Blksize, 1468)], None), "blksize=1468");
        assert_eq!(answer(&[(Blksize, 65464)], None), "blksize=8192");
        assert_eq!(answer(&[(Blksize, u64::MAX)], None), "blksize=8192");
        assert_eq!(answer(&[(Blksize, 7)], None), "");
        assert_eq!(answer(&[(Blksize, 0)], None), "");
    }

    #[test]
    fn blksize2_is_a_power_of_two_and_gives_way_to_blksize() {
        assert_eq!(answer(&[(Blksize2, 1500)], None), "blksize2=1024");
        assert_eq!(answer(&[(Blksize2, 1 << 30)], None), "blksize2=8192");
        assert_eq!(
            answer(&[(Blksize2, 1500), (Blksize, 1428)], None),
            "blksize=1428"
        );
        assert_eq!(
            answer(&[(Blksize2, 1500), (Blksize, 3)], None),
            "blksize2=1024"
        );
    }

    #[test]
    fn a_window_is_bounded_in_blocks_and_octets() {
        assert_eq!(answer(&[(Windowsize, 0)], None), "");
        assert_eq!(answer(&[(Windowsize, 1)], None), "windowsize=1");
        assert_eq!(answer(&[(Windowsize, 65535)], None), "windowsize=64");
        assert_eq!(answer(&[(Windowsize, 1 << 20)], None), "windowsize=64");
        let terms = Terms {
            in_flight: 100_000,
            ..Terms::default()
        };
        let (agreed, _) = grant(&asked(&[(Blksize, 65464), (Windowsize, 64)]), None, &terms);
        assert_eq!(agreed.windowsize, 1);
        let terms = Terms {
            in_flight: 1000,
            ..Terms::default()
        };
        let (agreed, _) = grant(&asked(&[(Blksize, 1428), (Windowsize, 64)]), None, &terms);
        assert_eq!(agreed.windowsize, 1, "one block is always granted");
        let (agreed, _) = grant(
            &asked(&[(Blksize, 8), (Windowsize, 65535)]),
            None,
            &Terms::default(),
        );
        assert_eq!(agreed.windowsize, MAX_WINDOWSIZE);
    }

    #[test]
    fn timeouts_are_kept_to_the_letter_or_left_out() {
        for (seconds, text) in [
            (0, ""),
            (1, "timeout=1"),
            (255, "timeout=255"),
            (256, ""),
            (3000, ""),
        ] {
            assert_eq!(answer(&[(Timeout, seconds)], None), text);
        }
        for (micros, text) in [(9_999, ""), (10_000, "utimeout=10000"), (255_000_001, "")] {
            assert_eq!(answer(&[(Utimeout, micros)], None), text);
        }
        assert_eq!(
            answer(&[(Timeout, 2), (Utimeout, 50_000)], None),
            "timeout=2"
        );
        assert_eq!(
            answer(&[(Timeout, 2), (Utimeout, 2_000_000)], None),
            "timeout=2 utimeout=2000000"
        );
    }

    #[test]
    fn tsize_is_the_true_size_and_rollover_is_0_or_1() {
        assert_eq!(answer(&[(Tsize, 0)], Some(1 << 33)), "tsize=8589934592");
        assert_eq!(answer(&[(Tsize, 5)], Some(7)), "tsize=7");
        assert_eq!(answer(&[(Tsize, 0)], None), "");
        assert_eq!(answer(&[(Tsize, 0)], Some(0)), "tsize=0");
        assert_eq!(
            answer(&[(Tsize, 0), (Blksize, 512)], Some(0)),
            "tsize=0 blksize=512"
        );
        let curls = [(Tsize, 0), (Blksize, 512), (Timeout, 6)];
        assert_eq!(answer(&curls, Some(0)), "blksize=512 timeout=6");
        assert_eq!(answer(&curls, Some(1)), "tsize=1 blksize=512 timeout=6");
        assert_eq!(answer(&[], Some(7)), "", "nothing that was not asked for");
        assert_eq!(answer(&[(Rollover, 2)], None), "");
        assert_eq!(
            grant(&asked(&[(Rollover, 1)]), None, &Terms::default())
                .0
                .rollover,
            super::Rollover::One
        );
    }

    #[test]
    fn a_client_refuses_what_it_did_not_ask_for() {
        let wanted = asked(&[(Blksize, 1428), (Windowsize, 16), (Tsize, 0), (Timeout, 3)]);
        let good = accept(
            &wanted,
            &asked(&[(Blksize, 1024), (Windowsize, 8), (Tsize, 99)]),
        )
        .expect("fine");
        assert_eq!(
            (good.blksize, good.windowsize, good.tsize),
            (1024, 8, Some(99))
        );
        for bad in [
            asked(&[(Blksize, 1429)]),
            asked(&[(Blksize, 7)]),
            asked(&[(Windowsize, 17)]),
            asked(&[(Windowsize, 0)]),
            asked(&[(Timeout, 4)]),
            asked(&[(Rollover, 0)]),
            Options::parse(b"blksize\x001e3\0"),
            Options::parse(b"colour\x001\0"),
        ] {
            assert!(accept(&wanted, &bad).is_err(), "{bad}");
        }
        for (asked_for, answered) in [(0, 1), (1, 0), (1, 2)] {
            let oack = asked(&[(Rollover, answered)]);
            assert!(accept(&asked(&[(Rollover, asked_for)]), &oack).is_err());
        }
    }
}
