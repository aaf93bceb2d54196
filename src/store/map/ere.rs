//! Extended regular expressions, as the C library of tftpd-hpa's hosts reads them, in the syntax of
//! `regex-automata`.
//!
//! Invariant: every byte of the result is written by this file. Nothing of the expression is passed
//! on as it is, so no syntax of the other engine can leak into a map file.

use std::fmt::Write;

/// Groups inside groups.
const MAX_DEPTH: usize = 50;
/// The largest number in a repetition, `RE_DUP_MAX` of POSIX.
const MAX_REPEAT: u32 = 32_767;

/// What is wrong with an expression, and at which of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) why: &'static str,
}

/// An expression in the syntax of `regex-automata`, and what every match of it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// For bytes and without Unicode. Its groups have the same numbers.
    pub(super) expression: String,
    /// What the name begins with.
    pub(super) prefix: Vec<u8>,
    /// Bytes that are in the name.
    pub(super) bytes: Vec<u8>,
}

/// Translates an expression.
pub(super) fn translate(expression: &[u8]) -> Result<Translated, Wrong> {
    let mut translator = Translator {
        rest: expression,
        length: expression.len(),
        depth: 0,
        out: String::with_capacity(4 * expression.len()),
        prefix: Vec::new(),
        in_prefix: expression.first() == Some(&b'^'),
        bytes: Vec::new(),
        has_alternatives: false,
    };
    translator.alternatives()?;
    let Translator {
        out,
        prefix,
        bytes,
        has_alternatives,
        ..
    } = translator;
    Ok(match has_alternatives {
        false => Translated {
            expression: out,
            prefix,
            bytes,
        },
        true => Translated {
            expression: out,
            prefix: Vec::new(),
            bytes: Vec::new(),
        },
    })
}

struct Translator<'a> {
    rest: &'a [u8],
    length: usize,
    /// Open groups.
    depth: usize,
    out: String,
    /// Literals behind a first `^`, as long as nothing else has come.
    prefix: Vec<u8>,
    in_prefix: bool,
    /// Literals outside of groups that no repetition may leave out.
    bytes: Vec<u8>,
    /// There is a `|` outside of groups: a match may have none of those.
    has_alternatives: bool,
}

impl Translator<'_> {
    fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    fn wrong<T>(&self, at: usize, why: &'static str) -> Result<T, Wrong> {
        Err(Wrong { at, why })
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn takes(&mut self, wanted: u8) -> bool {
        let is_next = self.rest.first() == Some(&wanted);
        if is_next {
            self.rest = &self.rest[1..];
        }
        is_next
    }

    /// Up to the end of the expression, or of the group that is open.
    fn alternatives(&mut self) -> Result<(), Wrong> {
        loop {
            match self.rest.first() {
                None => return Ok(()),
                Some(b')') if self.depth > 0 => return Ok(()),
                Some(b'|') => {
                    self.rest = &self.rest[1..];
                    self.out.push('|');
                    self.has_alternatives |= self.depth == 0;
                }
                Some(_) => self.piece()?,
            }
        }
    }

    /// One atom with its repetitions, or one anchor.
    fn piece(&mut self) -> Result<(), Wrong> {
        let start = self.at();
        let from = self.out.len();
        let Some(first) = self.next() else {
            return Ok(());
        };
        let mut alone = None;
        match first {
            b'*' | b'+' | b'?' | b'{' => return self.wrong(start, "nothing to repeat"),
            b'^' => return self.anchor(r"\A"),
            b'$' => return self.anchor(r"\z"),
            b'.' => self.out.push('.'),
            b'[' => self.bracket(start)?,
            b'(' => self.group(start)?,
            b'\\' => match self.next() {
                None => return self.wrong(start, "backslash at the end"),
                Some(b'1'..=b'9') => {
                    return self.wrong(start, "back references are not supported");
                }
                Some(b'<') => return self.anchor(r"\b{start}"),
                Some(b'>') => return self.anchor(r"\b{end}"),
                Some(b'b') => return self.anchor(r"\b"),
                Some(b'B') => return self.anchor(r"\B"),
                Some(b'`') => return self.anchor(r"\A"),
                Some(b'\'') => return self.anchor(r"\z"),
                Some(b'w') => self.out.push_str("[0-9A-Za-z_]"),
                Some(b'W') => self.out.push_str("[^0-9A-Za-z_]"),
                Some(b's') => self.out.push_str(r"[\t-\r ]"),
                Some(b'S') => self.out.push_str(r"[^\t-\r ]"),
                Some(literal) => alone = Some(literal),
            },
            // A closing parenthesis without an open group stands for itself.
            literal => alone = Some(literal),
        }
        if let Some(literal) = alone {
            self.literal(literal);
        }
        let (is_repeated, is_needed) = self.repetitions(from)?;
        self.note(alone, is_repeated, is_needed);
        Ok(())
    }

    /// Notes what a match has for an atom; `alone` is a literal.
    fn note(&mut self, alone: Option<u8>, is_repeated: bool, is_needed: bool) {
        if self.depth > 0 {
            return;
        }
        let literal = alone.filter(|_| is_needed);
        self.bytes.extend(literal);
        if self.in_prefix {
            self.prefix.extend(literal);
        }
        self.in_prefix &= literal.is_some() && !is_repeated;
    }

    fn literal(&mut self, byte: u8) {
        let _ = write!(self.out, r"\x{byte:02x}");
    }

    /// An anchor takes no repetition.
    fn anchor(&mut self, translated: &str) -> Result<(), Wrong> {
        self.out.push_str(translated);
        match self.rest.first() {
            Some(b'*' | b'+' | b'?' | b'{') => self.wrong(self.at(), "nothing to repeat"),
            _ => Ok(()),
        }
    }

    fn group(&mut self, start: usize) -> Result<(), Wrong> {
        if self.depth == MAX_DEPTH {
            return self.wrong(start, "too many groups inside groups");
        }
        self.depth += 1;
        self.out.push('(');
        self.alternatives()?;
        if !self.takes(b')') {
            return self.wrong(start, "this group is not closed");
        }
        self.out.push(')');
        self.depth -= 1;
        Ok(())
    }

    /// Repetitions of the atom that begins at `from`: whether there are any, and whether they leave
    /// it there at least once. Each one takes all before it: `a+?` is an optional `a+`, not a lazy
    /// one.
    fn repetitions(&mut self, from: usize) -> Result<(bool, bool), Wrong> {
        let (mut is_repeated, mut is_needed) = (false, true);
        loop {
            let start = self.at();
            let counted;
            let repeat = match self.rest.first() {
                Some(b'*') => "*",
                Some(b'+') => "+",
                Some(b'?') => "?",
                Some(b'{') => {
                    self.rest = &self.rest[1..];
                    counted = self.counts(start)?;
                    &counted
                }
                _ => return Ok((is_repeated, is_needed)),
            };
            is_repeated = true;
            is_needed &= repeat != "*" && repeat != "?" && !repeat.starts_with("{0");
            if !repeat.starts_with('{') {
                self.rest = &self.rest[1..];
            }
            self.out.insert_str(from, "(?:");
            let _ = write!(self.out, "){repeat}");
        }
    }

    /// `{n}`, `{n,}`, `{n,m}` or `{,m}` behind its brace.
    fn counts(&mut self, start: usize) -> Result<String, Wrong> {
        let least = self.number()?;
        let has_comma = self.takes(b',');
        let most = if has_comma { self.number()? } else { least };
        if !self.takes(b'}') {
            return self.wrong(start, "this repetition is not closed");
        }
        match (least, most) {
            (None, _) if !has_comma => self.wrong(start, "a repetition without a number"),
            (least, Some(most)) if least.unwrap_or(0) > most => {
                self.wrong(start, "a repetition of more than its largest number")
            }
            (least, Some(most)) => Ok(format!("{{{},{most}}}", least.unwrap_or(0))),
            (least, None) => Ok(format!("{{{},}}", least.unwrap_or(0))),
        }
    }

    fn number(&mut self) -> Result<Option<u32>, Wrong> {
        let start = self.at();
        let mut value = None;
        while let Some(digit) = self.rest.first().filter(|byte| byte.is_ascii_digit()) {
            let so_far: u32 = value.unwrap_or(0);
            let longer = so_far * 10 + u32::from(digit - b'0');
            if longer > MAX_REPEAT {
                return self.wrong(start, "a repetition of more than 32767 times");
            }
            value = Some(longer);
            self.rest = &self.rest[1..];
        }
        Ok(value)
    }

    /// A bracket expression behind its `[`. A backslash has no meaning in it.
    fn bracket(&mut self, start: usize) -> Result<(), Wrong> {
        let open = Wrong {
            at: start,
            why: "this bracket is not closed",
        };
        let is_negated = self.takes(b'^');
        let mut members = [false; 256];
        let mut is_first = true;
        loop {
            let at = self.at();
            let byte = self.next().ok_or(open)?;
            match (byte, self.rest.first()) {
                (b']', _) if !is_first => break,
                (b'[', Some(b':')) => {
                    let name = self.enclosed(b':').ok_or(open)?;
                    let Some(is_member) = class(name) else {
                        return self.wrong(at, "unknown character class");
                    };
                    (0..=255)
                        .filter(is_member)
                        .for_each(|byte| members[usize::from(byte)] = true);
                }
                _ => {
                    let low = self.element(byte, open)?;
                    let is_range = self.rest.first() == Some(&b'-')
                        && self.rest.get(1).is_some_and(|after| *after != b']');
                    let high = if is_range {
                        self.rest = &self.rest[1..];
                        let byte = self.next().ok_or(open)?;
                        self.element(byte, open)?
                    } else {
                        low
                    };
                    if low > high {
                        return self.wrong(at, "a range that runs backwards");
                    }
                    (low..=high).for_each(|byte| members[usize::from(byte)] = true);
                }
            }
            is_first = false;
        }
        self.out.push_str(if is_negated { "[^" } else { "[" });
        for byte in (0..=255).filter(|byte| members[usize::from(*byte)]) {
            self.literal(byte);
        }
        self.out.push(']');
        Ok(())
    }

    /// One character of a bracket, whose first byte is taken: itself, `[.x.]` or `[=x=]`.
    fn element(&mut self, byte: u8, open: Wrong) -> Result<u8, Wrong> {
        let mark = match self.rest.first() {
            Some(mark @ (b'.' | b'=')) if byte == b'[' => *mark,
            _ => return Ok(byte),
        };
        match self.enclosed(mark).ok_or(open)? {
            [one] => Ok(*one),
            _ => self.wrong(self.at(), "a collating element of more than one byte"),
        }
    }

    /// What stands between `[:` and `:]`, and the like; the first bracket is taken.
    fn enclosed(&mut self, mark: u8) -> Option<&[u8]> {
        let inside = self.rest.get(1..)?;
        let end = inside.windows(2).position(|two| two == [mark, b']'])?;
        let (name, rest) = inside.split_at(end);
        self.rest = &rest[2..];
        Some(name)
    }
}

/// The members of a character class in the C locale.
fn class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alpha" => u8::is_ascii_alphabetic,
        b"digit" => u8::is_ascii_digit,
        b"alnum" => u8::is_ascii_alphanumeric,
        b"upper" => u8::is_ascii_uppercase,
        b"lower" => u8::is_ascii_lowercase,
        b"space" => |byte| matches!(byte, b'\t'..=b'\r' | b' '),
        b"blank" => |byte| matches!(byte, b'\t' | b' '),
        b"punct" => u8::is_ascii_punctuation,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"graph" => u8::is_ascii_graphic,
        b"cntrl" => u8::is_ascii_control,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_the_c_library_refuses_are_refused_where_they_are_wrong() {
        for (expression, at) in [
            ("*a", 0),
            ("a|*b", 2),
            ("(+a)", 1),
            ("^*", 1),
            ("$?", 1),
            (r"\b+", 2),
            ("{2}", 0),
            ("a(b", 1),
            ("((b)", 0),
            ("a[bc", 1),
            ("[]", 0),
            ("[^]", 0),
            ("[[:alpha]", 0),
            ("[[:nope:]]", 1),
            ("[z-a]", 1),
            ("a{2", 1),
            ("a{}", 1),
            ("a{3,2}", 1),
            ("a{32768}", 2),
            ("a{x}", 1),
            (r"ab\", 2),
            (r"(a)\1", 3),
        ] {
            let wrong = translate(expression.as_bytes()).map_err(|wrong| wrong.at);
            assert_eq!(wrong, Err(at), "{expression}");
        }
        let deep = "(".repeat(MAX_DEPTH + 1);
        assert_eq!(
            translate(deep.as_bytes()).map_err(|wrong| wrong.at),
            Err(MAX_DEPTH)
        );
    }
}
