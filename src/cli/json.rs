//! JSON, one object a line, for other programs. Written only, and only what is needed: text, numbers, truth.

use std::fmt::{Display, Write};

/// One line.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".into())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{key}\":");
    }

    /// Escaped as RFC 8259 §7 wants, and beyond it whatever a terminal would obey.
    pub(super) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.key(key);
        self.0.push('"');
        for letter in text.chars() {
            match letter {
                '"' | '\\' => {
                    self.0.push('\\');
                    self.0.push(letter);
                }
                // All of them lie in the basic plane: four digits are enough.
                _ if letter.is_control() => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(letter));
                }
                _ => self.0.push(letter),
            }
        }
        self.0.push('"');
        self
    }

    pub(super) fn number(&mut self, key: &str, number: impl Display) -> &mut Self {
        self.key(key);
        let _ = write!(self.0, "{number}");
        self
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        self.number(key, value)
    }

    /// The finished line.
    pub(super) fn line(&self) -> String {
        format!("{}}}\n", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_one_line() {
        let mut object = Object::new();
        object
            .text("a", "x\"\\\n\u{1b}\u{9b}é")
            .number("b", 7)
            .boolean("c", true);
        assert_eq!(
            object.line(),
            "{\"a\":\"x\\\"\\\\\\u000a\\u001b\\u009bé\",\"b\":7,\"c\":true}\n"
        );
        assert_eq!(Object::new().line(), "{}\n");
    }
}
