//! The options of RFC 2347 and their numbers. Values are strict decimals: a wrong one is *present
//! without a value*, which a server leaves out and a client refuses. [`passed_over`] says for logs
//! what was not understood.

use super::split_string;
use crate::limits::{MAX_OPTION_NAME, MAX_OPTIONS};
use std::fmt;

/// The options that this implementation knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OptionName {
    /// Octets in a block (RFC 2348).
    Blksize,
    /// As `blksize`, but a power of two is agreed (tftp-hpa).
    Blksize2,
    /// Retransmission interval in seconds (RFC 2349).
    Timeout,
    /// Retransmission interval in microseconds (tftp-hpa).
    Utimeout,
    /// Size of the file in octets (RFC 2349).
    Tsize,
    /// Blocks that are sent before an ACK is awaited (RFC 7440).
    Windowsize,
    /// The block number that follows 65535: 0 or 1 (tftp-hpa).
    Rollover,
}

impl OptionName {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 7] = [
        Self::Tsize,
        Self::Blksize,
        Self::Blksize2,
        Self::Windowsize,
        Self::Timeout,
        Self::Utimeout,
        Self::Rollover,
    ];

    /// The name on the wire; RFC 2347 compares it without regard to case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blksize => "blksize",
            Self::Blksize2 => "blksize2",
            Self::Timeout => "timeout",
            Self::Utimeout => "utimeout",
            Self::Tsize => "tsize",
            Self::Windowsize => "windowsize",
            Self::Rollover => "rollover",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    fn place(self) -> usize {
        Self::ALL
            .iter()
            .position(|name| *name == self)
            .unwrap_or(Self::ALL.len())
    }

    fn from_wire(name: &[u8]) -> Option<Self> {
        if name.len() > MAX_OPTION_NAME {
            return None;
        }
        Self::ALL
            .into_iter()
            .find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
    }
}

/// The options of one RRQ, WRQ or OACK: each at most once, each with at most one number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Options {
    values: [Option<u64>; OptionName::ALL.len()],
    present: u8,
    unknown: u8,
    /// The known options came in another order than that of [`OptionName::ALL`].
    shuffled: bool,
}

/// The name/value pairs of an option list, as they stand there. The list ends before an empty name
/// and before what forms no complete pair: that is padding.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_string(self.0)?;
        let (value, rest) = split_string(rest)?;
        if name.is_empty() {
            return None;
        }
        self.0 = rest;
        Some((name, value))
    }
}

impl Options {
    /// Reads name/value pairs. What does not form a complete pair, and everything from the first
    /// empty name on, is padding. An option stands there once (RFC 2347): of a repeated one the
    /// first counts.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        let mut last = 0;
        for (name, value) in Pairs(bytes).take(MAX_OPTIONS) {
            match OptionName::from_wire(name) {
                None => options.unknown += 1,
                Some(name) if options.is_present(name) => {}
                Some(name) => {
                    options.present |= 1 << name as u8;
                    options.values[name as usize] = decimal(value);
                    let place = name.place();
                    options.shuffled |= place < last;
                    last = place;
                }
            }
        }
        options
    }

    /// True of the options that curl asks for a file with, and no other client that is known:
    /// `tsize=0`, `blksize` and `timeout`, in this order and with nothing else. curl takes
    /// `tsize=0` in the answer for an error.
    pub(crate) fn are_curls(&self) -> bool {
        use OptionName::{Blksize, Timeout, Tsize};
        let names = [Tsize, Blksize, Timeout];
        let present = names.iter().fold(0, |all, name| all | 1 << *name as u8);
        self.present == present && self.unknown == 0 && !self.shuffled && self.get(Tsize) == Some(0)
    }

    /// The same options and this one.
    #[must_use]
    pub fn with(mut self, name: OptionName, value: u64) -> Self {
        self.present |= 1 << name as u8;
        self.values[name as usize] = Some(value);
        self
    }

    /// The number given for an option, if the option is there and its value is a number.
    pub fn get(&self, name: OptionName) -> Option<u64> {
        self.values[name as usize]
    }

    /// True where the option is there, whatever its value.
    pub fn is_present(&self, name: OptionName) -> bool {
        self.present & (1 << name as u8) != 0
    }

    /// How many options were there that this implementation does not know.
    pub fn unknown(&self) -> u8 {
        self.unknown
    }

    /// True where no known option is present.
    pub fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// The options that have a number, in the order in which they are written.
    pub fn iter(&self) -> impl Iterator<Item = (OptionName, u64)> + '_ {
        OptionName::ALL
            .into_iter()
            .filter_map(|name| Some((name, self.get(name)?)))
    }

    /// Appends the pairs as they stand in a packet.
    pub fn emit(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            out.extend_from_slice(name.as_str().as_bytes());
            out.push(0);
            out.extend_from_slice(value.to_string().as_bytes());
            out.push(0);
        }
    }
}

impl fmt::Display for Options {
    /// `blksize=1428 tsize=0`, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{}={value}", name.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({self}, {} unknown)", self.unknown)
    }
}

/// What [`Options::parse`] makes nothing of, as `name=value` with spaces between: unknown options,
/// values that are no numbers, repeated options, those past the limit, and what forms no complete
/// pair. `None` where there is nothing but padding. Not escaped, and as long as the octets that it
/// is made of.
pub(crate) fn passed_over(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut pairs = Pairs(bytes);
    let mut seen = Options::default();
    for (index, (name, value)) in pairs.by_ref().enumerate() {
        let number = decimal(value).filter(|_| index < MAX_OPTIONS);
        if let (Some(known), Some(number)) = (OptionName::from_wire(name), number)
            && !seen.is_present(known)
        {
            seen = seen.with(known, number);
            continue;
        }
        if let Some(known) = OptionName::from_wire(name) {
            seen.present |= 1 << known as u8;
        }
        for part in [b" ".as_slice(), name, b"=", value] {
            text.extend_from_slice(part);
        }
    }
    let rest = pairs.0;
    if let Some(end) = rest.iter().rposition(|octet| *octet != 0) {
        text.push(b' ');
        text.extend_from_slice(&rest[..=end]);
    }
    (!text.is_empty()).then(|| text.split_off(1))
}

/// ASCII digits only, checked before any narrowing: no sign, no space, nothing behind, no wrap.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, octet| {
        let digit = octet.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_strict_decimals() {
        let good: [(&[u8], u64); 4] = [
            (b"0", 0),
            (b"512", 512),
            (b"00512", 512),
            (b"18446744073709551615", u64::MAX),
        ];
        for (text, number) in good {
            assert_eq!(decimal(text), Some(number));
        }
        let bad: [&[u8]; 10] = [
            b"",
            b"-1",
            b"+1",
            b" 1",
            b"1 ",
            b"0x10",
            b"1e3",
            b"512a",
            b"18446744073709551616",
            b"99999999999999999999999",
        ];
        for text in bad {
            assert_eq!(decimal(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_repeated_option_counts_once_even_when_the_first_is_wrong() {
        let options =
            Options::parse(b"blksize\x00abc\0BLKSIZE\x001024\0timeout\x003\0timeout\x004\0");
        assert_eq!(options.get(OptionName::Blksize), None);
        assert!(options.is_present(OptionName::Blksize));
        assert_eq!(options.get(OptionName::Timeout), Some(3));
    }

    #[test]
    fn options_past_the_limit_are_not_looked_at() {
        let mut bytes = b"x\0y\0".repeat(MAX_OPTIONS);
        bytes.extend_from_slice(b"blksize\x001024\0");
        let options = Options::parse(&bytes);
        assert_eq!(options.get(OptionName::Blksize), None);
        assert_eq!(usize::from(options.unknown()), MAX_OPTIONS);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let over = |bytes: &[u8]| {
            passed_over(bytes).map(|text| String::from_utf8_lossy(&text).into_owned())
        };
        let cases: [(&[u8], Option<&str>); 9] = [
            (b"", None),
            (b"blksize\x00512\0tsize\x000\0", None),
            (b"blksize\x00512\0\0\0\0\0", None),
            (b"multicast\0\0BLKSIZE\x001024\0", Some("multicast=")),
            (b"blksize\x001e3\0x\0y\0", Some("blksize=1e3 x=y")),
            (b"blksize\x00512\0blksize\x001024\0", Some("blksize=1024")),
            (
                b"blksize\0-1\0blksize\x001024\0",
                Some("blksize=-1 blksize=1024"),
            ),
            (b"tsize\x000\0blksize\x001468", Some("blksize\0\x31468")),
            (b"tsize\x000\0\0junk\0\0", Some("\0junk")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(over(bytes).as_deref(), expected, "{bytes:?}");
        }
        let mut many = b"x\0y\0".repeat(MAX_OPTIONS);
        many.extend_from_slice(b"blksize\x001024\0");
        assert!(
            over(&many)
                .expect("all of them")
                .ends_with(" x=y blksize=1024")
        );
    }

    /// A log line is as long as the request at most, whatever is in it.
    #[test]
    fn what_is_not_understood_is_no_longer_than_what_came() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words: [&[u8]; 6] = [b"\0", b"blksize", b"1", b"x", b"tsize\x000\0", b"\xff"];
        for round in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..round % 40 {
                state = state.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d) ^ round;
                bytes.extend_from_slice(words[(state >> 32) as usize % words.len()]);
            }
            if let Some(text) = passed_over(&bytes) {
                assert!(!text.is_empty() && text.len() <= bytes.len(), "{bytes:?}");
            }
        }
    }

    #[test]
    fn the_options_of_curl_are_known_by_their_values_and_their_order() {
        let are_curls = |bytes: &[u8]| Options::parse(bytes).are_curls();
        assert!(are_curls(b"tsize\x000\0blksize\x00512\0timeout\x006\0"));
        assert!(are_curls(b"tsize\x000\0blksize\x001468\0timeout\x003600\0"));
        let others: [&[u8]; 7] = [
            b"",
            b"tsize\x000\0",
            b"tsize\x000\0blksize\x00512\0",
            b"tsize\x001\0blksize\x00512\0timeout\x006\0",
            b"blksize\x00512\0tsize\x000\0timeout\x006\0",
            b"tsize\x000\0blksize\x00512\0timeout\x006\0windowsize\x004\0",
            b"tsize\x000\0blksize\x00512\0timeout\x006\0multicast\0\0",
        ];
        for bytes in others {
            assert!(!are_curls(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn display_names_what_was_asked() {
        let options = Options::default()
            .with(OptionName::Blksize, 1428)
            .with(OptionName::Tsize, 0);
        assert_eq!(options.to_string(), "tsize=0 blksize=1428");
    }
}
