//! The options of RFC 2347 and their numbers. Values are strict decimals: a wrong one is *present
//! without a value*, which a server leaves out and a client refuses. Unknown options are kept as
//! they came, for stores and logs, up to a limit. [`passed_over`] says for logs what was not
//! understood.

use super::{UnknownWord, split_string};
use crate::limits::{MAX_OPTION_NAME, MAX_OPTIONS, MAX_UNKNOWN_OPTION_BYTES};
use std::fmt;
use std::str::FromStr;

/// Makes [`OptionName`] of one row for each option.
macro_rules! options {
    ($($(#[$comment:meta])* $name:ident $text:literal,)*) => {
        /// The options that this implementation knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum OptionName {
            $($(#[$comment])* $name,)*
        }

        impl OptionName {
            /// All of them, in the order in which they are written.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name on the wire; RFC 2347 compares it without regard to case.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

// The order is that in which they are written. What each of them means is a row of the table in
// `proto/negotiate.rs`.
options! {
    /// Size of the file in bytes (RFC 2349).
    Tsize "tsize",
    /// Bytes in a block (RFC 2348).
    Blksize "blksize",
    /// As `blksize`, but a power of two is agreed (tftp-hpa).
    Blksize2 "blksize2",
    /// Blocks that are sent before an ACK is awaited (RFC 7440).
    Windowsize "windowsize",
    /// Retransmission interval in seconds (RFC 2349).
    Timeout "timeout",
    /// Retransmission interval in microseconds (tftp-hpa).
    Utimeout "utimeout",
    /// The block number that follows 65535: 0 or 1 (tftp-hpa).
    Rollover "rollover",
}

impl OptionName {
    /// Its place in [`ALL`](Self::ALL).
    fn place(self) -> usize {
        self as usize
    }

    fn from_wire(name: &[u8]) -> Option<Self> {
        if name.len() > MAX_OPTION_NAME {
            return None;
        }
        let mut all = Self::ALL.iter().copied();
        all.find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
    }
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As in a request, without regard to case.
impl FromStr for OptionName {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::from_wire(text.as_bytes()).ok_or(UnknownWord("the name of an option"))
    }
}

/// The options of one RRQ, WRQ or OACK: each at most once, each with at most one number.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// By the places of the options.
    values: [Given; OptionName::ALL.len()],
    unknown: Unknown,
    /// The known options came in another order than that of [`OptionName::ALL`].
    shuffled: bool,
}

/// What was given for an option.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Given {
    #[default]
    Absent,
    /// A value that is no number.
    Invalid,
    Number(u64),
}

/// Options that this implementation does not know.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Unknown {
    /// The pairs as they came: each string with the NUL behind it. `None` where there is none,
    /// which costs no memory.
    pairs: Option<Box<[u8]>>,
    /// How many came, those that were not kept included.
    count: u8,
}

impl Unknown {
    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.count += 1;
        let before = self.pairs.as_deref().unwrap_or_default();
        if before.len() + name.len() + value.len() + 2 <= MAX_UNKNOWN_OPTION_BYTES {
            let pairs = [before, name, b"\0", value, b"\0"].concat();
            self.pairs = Some(pairs.into());
        }
    }
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
    /// No options.
    pub const NONE: Self = Self {
        values: [Given::Absent; OptionName::ALL.len()],
        unknown: Unknown {
            pairs: None,
            count: 0,
        },
        shuffled: false,
    };

    /// Reads name/value pairs. What does not form a complete pair, and everything from the first
    /// empty name on, is padding. An option stands there once (RFC 2347): of a repeated one the
    /// first counts.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        let mut last = 0;
        for (name, value) in Pairs(bytes).take(MAX_OPTIONS) {
            match OptionName::from_wire(name) {
                None => options.unknown.push(name, value),
                Some(name) if options.is_present(name) => {}
                Some(name) => {
                    let place = name.place();
                    options.values[place] = decimal(value).map_or(Given::Invalid, Given::Number);
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
        let is_its =
            |name: &OptionName| self.is_present(*name) == matches!(name, Tsize | Blksize | Timeout);
        OptionName::ALL.iter().all(is_its)
            && !self.has_unknown()
            && !self.shuffled
            && self.get(Tsize) == Some(0)
    }

    /// The same options and this one.
    #[must_use]
    pub fn with(mut self, name: OptionName, value: u64) -> Self {
        self.values[name.place()] = Given::Number(value);
        self
    }

    /// The same options without those that this implementation does not know.
    pub(crate) fn known(&self) -> Self {
        Self {
            values: self.values,
            shuffled: self.shuffled,
            ..Self::NONE
        }
    }

    /// The number given for an option, if the option is there and its value is a number.
    pub fn get(&self, name: OptionName) -> Option<u64> {
        match self.values[name.place()] {
            Given::Number(number) => Some(number),
            Given::Absent | Given::Invalid => None,
        }
    }

    /// True where the option is there, whatever its value.
    pub fn is_present(&self, name: OptionName) -> bool {
        self.values[name.place()] != Given::Absent
    }

    /// The options that this implementation does not know, as name and value, in the order in which
    /// they came. Neither is trusted, decoded or cleaned. At most 256 bytes of them are kept, which
    /// is more than any known client sends; [`has_unknown`](Self::has_unknown) counts all.
    pub fn unknown(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        Pairs(self.unknown.pairs.as_deref().unwrap_or_default())
    }

    /// True where there were options that this implementation does not know.
    pub fn has_unknown(&self) -> bool {
        self.unknown.count > 0
    }

    /// True where no known option is present.
    pub fn is_empty(&self) -> bool {
        self.values == Self::NONE.values
    }

    /// The options that have a number, in the order in which they are written.
    pub fn iter(&self) -> impl Iterator<Item = (OptionName, u64)> + '_ {
        let all = OptionName::ALL.iter().copied();
        all.filter_map(|name| Some((name, self.get(name)?)))
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
        write!(f, "Options({self}, {} unknown)", self.unknown.count)
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
        if let Some(known) = OptionName::from_wire(name)
            && !seen.is_present(known)
        {
            seen.values[known.place()] = Given::Invalid;
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
        assert_eq!(usize::from(options.unknown.count), MAX_OPTIONS);
    }

    #[test]
    fn unknown_options_are_kept_as_they_came_up_to_a_limit() {
        let options = Options::parse(b"multicast\0\0tsize\x000\0X-Board\0\xffrev 7\0");
        let unknown: Vec<_> = options.unknown().collect();
        let expected: [(&[u8], &[u8]); 2] = [(b"multicast", b""), (b"X-Board", b"\xffrev 7")];
        assert_eq!(unknown, expected);
        assert!(options.has_unknown() && !options.known().has_unknown());
        assert_eq!(options.known(), Options::NONE.with(OptionName::Tsize, 0));

        let long = [
            b"a\0".as_slice(),
            &[b'x'; 200],
            b"\0b\0",
            &[b'y'; 200],
            b"\0c\0z\0",
        ]
        .concat();
        let options = Options::parse(&long);
        let names: Vec<_> = options.unknown().map(|(name, _)| name).collect();
        assert_eq!(names, [b"a", b"c"], "what fits is kept");
        assert_eq!(options.unknown.count, 3);
        let kept = options.unknown.pairs.expect("two of them");
        assert!(kept.len() <= MAX_UNKNOWN_OPTION_BYTES);
        assert_eq!(Options::parse(b"tsize\x000\0").unknown.pairs, None);
    }

    #[test]
    fn names_of_options_are_words() {
        for name in OptionName::ALL {
            assert_eq!(name.to_string().to_uppercase().parse(), Ok(*name));
        }
        assert!("multicast".parse::<OptionName>().is_err());
        assert_eq!("Octet".parse(), Ok(crate::wire::Mode::Octet));
        assert!("mail".parse::<crate::wire::Mode>().is_err());
        assert_eq!(crate::wire::Mode::Netascii.to_string(), "netascii");
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
