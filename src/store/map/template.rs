//! The third word of a rule: what the part of the name that has matched is replaced with, the label
//! that is jumped to, or the text of a refusal.

use super::pattern::Match;
use crate::limits::MAX_NAME;
use crate::store::roots::hexadecimal;
use std::net::IpAddr;

#[derive(Debug, Default)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    /// `\0` to `\9`.
    Group(u8),
    /// `\i`, the client's address.
    Address,
    /// `\x`, the same in hexadecimal.
    AddressHex,
    /// `\U`, `\L` and `\E`.
    Case(Case),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Upper,
    Lower,
    Kept,
}

impl Case {
    /// ASCII only, as in the C locale.
    fn apply(self, out: &mut [u8]) {
        match self {
            Self::Upper => out.make_ascii_uppercase(),
            Self::Lower => out.make_ascii_lowercase(),
            Self::Kept => {}
        }
    }
}

impl Template {
    pub(super) fn new(word: &[u8]) -> Self {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut rest = word.iter();
        while let Some(&byte) = rest.next() {
            let escaped = match byte {
                b'\\' => rest.next(),
                _ => None,
            };
            let part = match escaped {
                Some(digit @ b'0'..=b'9') => Part::Group(digit - b'0'),
                Some(b'i') => Part::Address,
                Some(b'x') => Part::AddressHex,
                Some(b'U') => Part::Case(Case::Upper),
                Some(b'L') => Part::Case(Case::Lower),
                Some(b'E') => Part::Case(Case::Kept),
                other => {
                    text.push(*other.unwrap_or(&byte));
                    continue;
                }
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part);
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Self(parts)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it needs to be known what has matched where.
    pub(super) fn has_groups(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Group(_)))
    }

    /// The text, where it is the same for every name and client.
    pub(super) fn constant(&self) -> Option<&[u8]> {
        match &self.0[..] {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the text for this match of a name. False where a name gets too long: then not all of
    /// it was appended.
    #[must_use]
    pub(super) fn expand(
        &self,
        name: &[u8],
        found: &Match,
        client: IpAddr,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut case = Case::Kept;
        for part in &self.0 {
            let start = out.len();
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Group(number) => {
                    let span = found.group(*number).unwrap_or_default();
                    out.extend_from_slice(&name[span]);
                }
                Part::Address => out.extend_from_slice(client.to_string().as_bytes()),
                Part::AddressHex => out.extend_from_slice(hexadecimal(client).as_bytes()),
                Part::Case(next) => case = *next,
            }
            case.apply(&mut out[start..]);
            if out.len() > MAX_NAME {
                return false;
            }
        }
        true
    }
}
