//! The configuration file: TOML whose keys are the long options of `tftpool serve`.
//!
//! This file knows TOML, places in a file and nothing of the options.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A line and a column of a file, from 1, as editors count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    fn of(text: &str, offset: usize) -> Self {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
        }
    }
}

/// What stands behind a key, as the option would have it on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Switch(bool),
    One(String),
    Many(Vec<String>),
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Position,
    /// Or what was expected.
    pub(super) value: Result<Value, &'static str>,
    pub(super) value_at: Position,
}

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileError {
    pub(super) file: PathBuf,
    pub(super) at: Option<Position>,
    pub(super) text: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.text)
    }
}

/// Reads a file, in the order of its lines.
///
/// # Errors
/// The file is not TOML.
pub(super) fn read(file: &Path, text: &str) -> Result<Vec<Entry>, FileError> {
    let start = |span: Range<usize>| Position::of(text, span.start);
    let table = DeTable::parse(text).map_err(|error| FileError {
        file: file.to_owned(),
        at: Some(start(error.span().unwrap_or_default())),
        text: one_line(error.message()),
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.into_inner() {
        let key_at = start(key.span());
        let value_at = start(value.span());
        entries.push(Entry {
            key: key.into_inner().into_owned(),
            key_at,
            value: read_value(&value),
            value_at,
        });
    }
    entries.sort_by_key(|entry| (entry.key_at.line, entry.key_at.column));
    Ok(entries)
}

fn read_value(value: &Spanned<DeValue<'_>>) -> Result<Value, &'static str> {
    match value.get_ref() {
        DeValue::Boolean(switch) => Ok(Value::Switch(*switch)),
        DeValue::Array(list) => {
            let texts = list.iter().map(|value| read_text(value.get_ref()));
            let texts = texts.map(|text| text.map(Cow::into_owned));
            texts.collect::<Result<_, _>>().map(Value::Many)
        }
        value => read_text(value).map(|text| Value::One(text.into_owned())),
    }
}

fn read_text<'a>(value: &'a DeValue<'_>) -> Result<Cow<'a, str>, &'static str> {
    match value {
        DeValue::String(text) => Ok(Cow::Borrowed(text)),
        DeValue::Integer(number) if number.radix() == 10 => Ok(Cow::Borrowed(number.as_str())),
        DeValue::Float(number) => Ok(Cow::Borrowed(number.as_str())),
        _ => Err("expected a string, a decimal number, true, false or a list of these"),
    }
}

/// TOML's parser explains some errors in several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value as TOML: a number, or a string in quotes.
pub(super) fn write_text(text: &str) -> String {
    let is_number = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
        && text.parse::<i64>().is_ok();
    if is_number {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", u32::from(control)));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (String, Result<Value, &'static str>);

    fn entries(text: &str) -> Result<Vec<Read>, String> {
        let read = read(Path::new("f"), text).map_err(|error| error.to_string())?;
        Ok(read.into_iter().map(|it| (it.key, it.value)).collect())
    }

    #[test]
    fn values_are_what_the_command_line_would_have() {
        let one = |text: &str| Value::One(text.into());
        let text = "port = 6_969\ntimeout = 1.5\nuser = \"tftp\"\nfreebind = true\n\
                    umask = \"022\"\nhost = [\"::1\", '127.0.0.1']\n";
        let want = [
            ("port", one("6969")),
            ("timeout", one("1.5")),
            ("user", one("tftp")),
            ("freebind", Value::Switch(true)),
            ("umask", one("022")),
            ("host", Value::Many(vec!["::1".into(), "127.0.0.1".into()])),
        ];
        let want = want.map(|(key, value)| (key.to_owned(), Ok(value)));
        assert_eq!(entries(text), Ok(want.into()));
    }

    #[test]
    fn a_value_that_no_option_has_is_an_error_of_its_own() {
        for value in ["0x45", "1979-05-27", "{}", "[[1]]"] {
            let entries = entries(&format!("key = {value}\nport = 69\n")).expect("TOML");
            assert!(entries[0].1.is_err(), "{value}");
            assert_eq!(entries[1].1, Ok(Value::One("69".into())));
        }
    }

    #[test]
    fn errors_name_line_and_column() {
        let error = |text| entries(text).expect_err("an error");
        assert!(error("port = 69\nport = 70\n").starts_with("f:2:1: duplicate key"));
        let broken = error("# ä\nkey = \"ä\ny = 1");
        assert!(
            broken.starts_with("f:2:9: invalid basic string"),
            "{broken}"
        );
        assert_eq!(broken.lines().count(), 1);
        let read = read(Path::new("f"), "\n  host = [1979-05-27]").expect("TOML");
        let at = |line, column| Position { line, column };
        assert_eq!((read[0].key_at, read[0].value_at), (at(2, 3), at(2, 10)));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "",
            "69",
            "022",
            "-1",
            "1.5",
            "a\"b\\c\n\u{1}ä",
            "99999999999999999999",
        ] {
            let line = format!("key = {}", write_text(text));
            let read = entries(&line).expect("TOML");
            let value = Ok(Value::One(text.into()));
            assert_eq!(read, [("key".to_owned(), value)], "{line}");
        }
    }
}
