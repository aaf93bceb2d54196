//! JSON for other programs: one object a line.

use serde::{Serialize, Serializer};

/// What a member can be. `serde_json::Value` would bring code for floats.
enum Value {
    Text(String),
    Number(u64),
    Boolean(bool),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Boolean(value) => serializer.serialize_bool(*value),
        }
    }
}

/// One line. Its members keep their order.
pub(super) struct Object(Vec<(&'static str, Value)>);

impl Object {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    fn member(&mut self, key: &'static str, value: Value) -> &mut Self {
        self.0.push((key, value));
        self
    }

    pub(super) fn text(&mut self, key: &'static str, text: &str) -> &mut Self {
        self.member(key, Value::Text(text.to_owned()))
    }

    pub(super) fn number(&mut self, key: &'static str, number: impl TryInto<u64>) -> &mut Self {
        let number = number.try_into().unwrap_or(u64::MAX);
        self.member(key, Value::Number(number))
    }

    pub(super) fn boolean(&mut self, key: &'static str, value: bool) -> &mut Self {
        self.member(key, Value::Boolean(value))
    }

    /// The finished line. Beyond what JSON demands, control characters that a terminal obeys are
    /// escaped; they occur only in strings, since the rest of a compact object is ASCII.
    pub(super) fn line(&self) -> String {
        let mut json = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut json);
        let members = self.0.iter().map(|(key, value)| (key, value));
        serializer
            .collect_map(members)
            .expect("strings and numbers, written to memory");
        let json = String::from_utf8(json).expect("JSON is UTF-8");
        let mut line = String::with_capacity(json.len() + 1);
        for letter in json.chars() {
            // All of them lie in the basic plane: four digits are enough.
            match letter.is_control() {
                true => line.push_str(&format!("\\u{:04x}", u32::from(letter))),
                false => line.push(letter),
            }
        }
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_one_line() {
        let mut object = Object::new();
        object
            .text("a", "x\"\\\n\u{1b}\u{7f}\u{9b}é")
            .number("b", 7)
            .boolean("c", true);
        assert_eq!(
            object.line(),
            "{\"a\":\"x\\\"\\\\\\n\\u001b\\u007f\\u009bé\",\"b\":7,\"c\":true}\n"
        );
        assert_eq!(Object::new().line(), "{}\n");
    }
}
