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

/// What an option means: one row of the table.
struct Rule {
    name: OptionName,
    /// A server's answer to the value that was asked for: what holds goes into the agreement, and
    /// the value into the OACK. `None` leaves the option out.
    grant: fn(&mut Negotiation<'_>, u64) -> Option<u64>,
    /// A client's look at the value that it asked for and at the one in the OACK: what holds goes
    /// into the agreement.
    ///
    /// # Errors
    /// What is wrong, as the text of an ERROR 8.
    accept: fn(&mut Agreed, asked: u64, granted: u64) -> Result<(), &'static str>,
}

/// What is granted so far.
struct Negotiation<'a> {
    asked: &'a Options,
    size: Option<u64>,
    terms: &'a Terms,
    agreed: Agreed,
    answer: Options,
}

/// The table. The order counts: a window is measured by the block size before it.
const RULES: &[Rule] = &[
    Rule {
        name: OptionName::Blksize,
        grant: |negotiation, size| {
            let blksize = negotiation.block_size(size)?;
            negotiation.agreed.blksize = blksize;
            Some(blksize.into())
        },
        accept: accept_block_size,
    },
    Rule {
        name: OptionName::Blksize2,
        grant: |negotiation, size| {
            if negotiation.answer.is_present(OptionName::Blksize) {
                return None;
            }
            let blksize = 1 << negotiation.block_size(size)?.ilog2();
            negotiation.agreed.blksize = blksize;
            Some(blksize.into())
        },
        accept: accept_block_size,
    },
    Rule {
        name: OptionName::Windowsize,
        grant: |negotiation, blocks| {
            let (terms, agreed) = (negotiation.terms, &mut negotiation.agreed);
            let most = u64::from(terms.max_windowsize.min(MAX_WINDOWSIZE))
                .min(terms.in_flight / u64::from(agreed.blksize));
            agreed.windowsize = match blocks {
                0 => return None,
                blocks => blocks.min(most).max(1) as u16,
            };
            Some(agreed.windowsize.into())
        },
        accept: |agreed, asked, granted| {
            let blocks = u16::try_from(not_raised(asked, granted)?).ok();
            let blocks = blocks.filter(|blocks| *blocks > 0);
            agreed.windowsize = blocks.ok_or("window size out of range")?;
            Ok(())
        },
    },
    // RFC 2349: an accepted timeout is acknowledged with the same value; any other is left out.
    Rule {
        name: OptionName::Timeout,
        grant: |negotiation, seconds| {
            let is_accepted = (1..=MAX_TIMEOUT_SECONDS).contains(&seconds);
            is_accepted.then(|| {
                negotiation.agreed.timeout = Some(Duration::from_secs(seconds));
                seconds
            })
        },
        accept: |agreed, asked, granted| {
            agreed.timeout = Some(Duration::from_secs(unchanged(asked, granted)?));
            Ok(())
        },
    },
    Rule {
        name: OptionName::Utimeout,
        grant: |negotiation, micros| {
            if !UTIMEOUT_MICROS.contains(&micros) {
                return None;
            }
            let interval = Duration::from_micros(micros);
            let agreed = negotiation.agreed.timeout.get_or_insert(interval);
            (*agreed == interval).then_some(micros)
        },
        accept: |agreed, asked, granted| {
            agreed.timeout = Some(Duration::from_micros(unchanged(asked, granted)?));
            Ok(())
        },
    },
    Rule {
        name: OptionName::Tsize,
        grant: |negotiation, _| {
            let is_error = |size: &u64| *size == 0 && negotiation.asked.are_curls();
            let size = negotiation.size.filter(|size| !is_error(size));
            negotiation.agreed.tsize = size;
            size
        },
        accept: |agreed, _, granted| {
            agreed.tsize = Some(granted);
            Ok(())
        },
    },
    Rule {
        name: OptionName::Rollover,
        grant: |negotiation, first| {
            negotiation.agreed.rollover = match first {
                0 => Rollover::Zero,
                1 => Rollover::One,
                _ => return None,
            };
            Some(first)
        },
        accept: |agreed, asked, granted| match granted {
            _ if granted != asked => Err("rollover was changed"),
            1 => {
                agreed.rollover = Rollover::One;
                Ok(())
            }
            _ => Ok(()),
        },
    },
];

impl Negotiation<'_> {
    /// RFC 2348: the answer "must be less than or equal to the value specified by the client";
    /// raising one under 8 is therefore not possible, and it is left out.
    fn block_size(&self, asked: u64) -> Option<u16> {
        let most = self.terms.max_blksize.clamp(MIN_BLKSIZE, MAX_BLKSIZE);
        let fits = asked >= u64::from(MIN_BLKSIZE);
        fits.then(|| asked.min(most.into()) as u16)
    }
}

fn accept_block_size(agreed: &mut Agreed, asked: u64, granted: u64) -> Result<(), &'static str> {
    let size = u16::try_from(not_raised(asked, granted)?).ok();
    let size = size.filter(|size| (MIN_BLKSIZE..=MAX_BLKSIZE).contains(size));
    agreed.blksize = size.ok_or("block size out of range")?;
    Ok(())
}

fn not_raised(asked: u64, granted: u64) -> Result<u64, &'static str> {
    match granted > asked {
        true => Err("option value was raised"),
        false => Ok(granted),
    }
}

fn unchanged(asked: u64, granted: u64) -> Result<u64, &'static str> {
    match granted == asked {
        true => Ok(granted),
        false => Err("timeout was changed"),
    }
}

/// A server's answer to the options of a request: what holds, and the OACK that says so. If the
/// OACK is empty, none is sent.
///
/// `size` goes into `tsize`, where it was asked for: the bytes of the file on RRQ, the announced
/// ones on WRQ. Leave it out where the number of bytes on the wire is not known. An empty file has
/// `tsize=0` (RFC 2349); only curl, which takes that for an error, gets none.
pub fn grant(asked: &Options, size: Option<u64>, terms: &Terms) -> (Agreed, Options) {
    let mut negotiation = Negotiation {
        asked,
        size,
        terms,
        agreed: Agreed::default(),
        answer: Options::NONE,
    };
    for rule in RULES {
        let wanted = asked.get(rule.name);
        if let Some(value) = wanted.and_then(|wanted| (rule.grant)(&mut negotiation, wanted)) {
            negotiation.answer = negotiation.answer.with(rule.name, value);
        }
    }
    (negotiation.agreed, negotiation.answer)
}

/// A client's check of an OACK against what it asked for.
///
/// # Errors
/// What is wrong with the OACK, as the text of an ERROR 8.
pub fn accept(asked: &Options, oack: &Options) -> Result<Agreed, &'static str> {
    // RFC 2347: an option that was not requested is not to be in the OACK.
    let is_uninvited = |name: &OptionName| oack.is_present(*name) && !asked.is_present(*name);
    if oack.has_unknown() || OptionName::ALL.iter().any(is_uninvited) {
        return Err("option was not asked for");
    }
    let is_invalid = |name: &OptionName| oack.is_present(*name) && oack.get(*name).is_none();
    if OptionName::ALL.iter().any(is_invalid) {
        return Err("option value is not a number");
    }
    let mut agreed = Agreed::default();
    for rule in RULES {
        if let (Some(asked), Some(granted)) = (asked.get(rule.name), oack.get(rule.name)) {
            (rule.accept)(&mut agreed, asked, granted)?;
        }
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
    fn each_option_has_one_rule() {
        for name in OptionName::ALL {
            let rules = RULES.iter().filter(|rule| rule.name == *name);
            assert_eq!(rules.count(), 1, "{name}");
        }
        assert_eq!(RULES.len(), OptionName::ALL.len());
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
