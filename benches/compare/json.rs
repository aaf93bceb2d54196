//! As much of JSON as `target/bench.json` needs: written by hand, read back for comparisons and pictures.

use std::fmt::Write as _;

/// One value. Numbers are what Rust's `f64` reads and prints.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nothing,
    Truth(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The first member of that name.
    pub(crate) fn at(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, it)| it),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The values of a list; none for anything else.
    pub(crate) fn list(&self) -> &[Value] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }

    /// Reads a whole document; `None` where it is none.
    pub(crate) fn parse(text: &str) -> Option<Value> {
        let mut rest = text;
        let value = value(&mut rest)?;
        rest.trim().is_empty().then_some(value)
    }
}

/// Takes `token` and the white space before it.
fn take(rest: &mut &str, token: &str) -> Option<()> {
    *rest = rest.trim_start().strip_prefix(token)?;
    Some(())
}

fn value(rest: &mut &str) -> Option<Value> {
    *rest = rest.trim_start();
    match rest.chars().next()? {
        '{' => {
            let mut members = Vec::new();
            items(rest, "{", "}", |rest| {
                let key = text(rest)?;
                take(rest, ":")?;
                members.push((key, value(rest)?));
                Some(())
            })?;
            Some(Value::Object(members))
        }
        '[' => {
            let mut values = Vec::new();
            items(rest, "[", "]", |rest| {
                values.push(value(rest)?);
                Some(())
            })?;
            Some(Value::List(values))
        }
        '"' => text(rest).map(Value::Text),
        _ => {
            let end = rest.find([',', ']', '}', '\n', ' ']).unwrap_or(rest.len());
            let (word, left) = rest.split_at(end);
            *rest = left;
            match word {
                "null" => Some(Value::Nothing),
                "true" => Some(Value::Truth(true)),
                "false" => Some(Value::Truth(false)),
                number => number.parse().ok().map(Value::Number),
            }
        }
    }
}

/// A list between `open` and `close`, with commas.
fn items(
    rest: &mut &str,
    open: &str,
    close: &str,
    mut item: impl FnMut(&mut &str) -> Option<()>,
) -> Option<()> {
    take(rest, open)?;
    if take(rest, close).is_some() {
        return Some(());
    }
    loop {
        item(rest)?;
        if take(rest, close).is_some() {
            return Some(());
        }
        take(rest, ",")?;
    }
}

fn text(rest: &mut &str) -> Option<String> {
    take(rest, "\"")?;
    let mut out = String::new();
    let mut letters = rest.chars();
    loop {
        match letters.next()? {
            '"' => break,
            '\\' => match letters.next()? {
                'u' => {
                    let code: String = letters.by_ref().take(4).collect();
                    out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                'n' => out.push('\n'),
                't' => out.push('\t'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    *rest = letters.as_str();
    Some(out)
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
