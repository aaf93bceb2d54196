//! Text from outside that people read: quoted, escaped and cut.

use std::fmt;
use std::sync::Arc;

/// Octets that a peer sent and that people will read. `Display` quotes, escapes and cuts them, so
/// that no log or terminal can be written to from outside. A clone costs no copy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Octets shown at most.
    const SHOWN: usize = 200;

    /// Keeps a copy of the octets.
    pub fn new(octets: &[u8]) -> Self {
        Self(octets.into())
    }

    /// The octets as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let shown = &self.0[..self.0.len().min(Self::SHOWN)];
        f.write_char('"')?;
        for chunk in shown.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '"' | '\\' => write!(f, "\\{letter}")?,
                    '\n' => f.write_str("\\n")?,
                    _ if letter.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(letter))?,
                    _ if is_unseen(letter) => write!(f, "{}", letter.escape_unicode())?,
                    _ => f.write_char(letter)?,
                }
            }
            for octet in chunk.invalid() {
                write!(f, "\\x{octet:02x}")?;
            }
        }
        f.write_str(if shown.len() < self.0.len() {
            "\"..."
        } else {
            "\""
        })
    }
}

/// Controls, characters without a shape, spaces other than the usual one, and those that reverse
/// the reading direction: two names that differ must look different.
pub(crate) fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || letter.is_whitespace() && letter != ' '
        || matches!(
            letter,
            '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        )
        || matches!(
            letter,
            '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        )
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}')
        || matches!(letter, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(letter, '\u{e0000}'..='\u{e0fff}')
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A reason as one value of a log line: what a peer or a store put into it, quotes above all,
/// cannot look like another.
pub(crate) fn quoted(reason: &impl fmt::Display) -> Name {
    Name::new(reason.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_escaped_and_cut() {
        assert_eq!(
            Name::new("boot/\u{e4} x".as_bytes()).to_string(),
            "\"boot/\u{e4} x\""
        );
        assert_eq!(
            Name::new(b"a\xffb\x1b\r\n").to_string(),
            r#""a\xffb\x1b\x0d\n""#
        );
        assert_eq!(
            Name::new("\u{202e}gpj".as_bytes()).to_string(),
            r#""\u{202e}gpj""#
        );
        let unseen = [
            "\u{200b}",
            "\u{feff}",
            "\u{e0041}",
            "\u{85}",
            "\u{2028}",
            "\u{a0}",
            "\u{2003}",
            "\u{3000}",
            "\u{3164}",
            "\u{ffa0}",
            "\u{2800}",
            "\u{fff5}",
        ];
        for unseen in unseen {
            let shown = Name::new(unseen.as_bytes()).to_string();
            assert!(shown.is_ascii() && shown.starts_with(r#""\u{"#), "{shown}");
        }
        assert_eq!(Name::new(&[b'a'; 300]).to_string().len(), Name::SHOWN + 5);
    }
}
