//! The rules of a map file: from text to [`MapRules`], and from a name to what it means.
//!
//! The semantics are those of `tftpd.8` of tftp-hpa 5.2 with the additions of 7.x. Pure: whether a
//! file exists is asked through a closure, and nothing else is. The rules are the operator's and
//! the names are not, so what one name can cost has a limit: [`MAP_STEPS`], [`MAP_PROBES`], and the
//! length of a name at every step.

use super::pattern::{Match, Pattern, Scratch, Subject};
use super::template::Template;
use crate::limits::{MAP_FILE_BYTES, MAP_PROBES, MAP_RULES, MAP_STEPS, MAX_NAME};
use crate::wire::Direction;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// The rules of a map file, in the syntax of tftpd-hpa. See `docs/names.md` for what each letter
/// means.
///
/// ```
/// use tftpool::{Direction, MapOutcome, MapRequest, MapRules};
///
/// let rules = MapRules::parse(br"
/// rg  \\          /           # slashes for backslashes
/// ri  ^/?boot/    images/
/// ")?;
/// let request = MapRequest {
///     name: br"\Boot\BCD",
///     client: [192, 0, 2, 7].into(),
///     direction: Direction::Read,
/// };
/// let outcome = rules.apply(&request, |_| false, |_| {});
/// assert_eq!(outcome, MapOutcome::Name(b"images/BCD".to_vec()));
/// # Ok::<(), tftpool::MapSyntaxError>(())
/// ```
#[derive(Default)]
pub struct MapRules {
    rules: Vec<Rule>,
    /// The rule behind each label.
    labels: HashMap<Vec<u8>, usize>,
}

/// A request, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest<'a> {
    /// The name as it was asked for.
    pub name: &'a [u8],
    /// The client's address. One that is IPv4 inside IPv6 counts as IPv4.
    pub client: IpAddr,
    /// Which way the file goes.
    pub direction: Direction,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapOutcome {
    /// This name; it may be the one that was asked for.
    Name(Vec<u8>),
    /// The rule in this line refuses the request.
    Refused {
        /// The line of the rule.
        line: usize,
        /// The text for the client, where the rule has one.
        text: Option<Vec<u8>>,
    },
    /// The rules come to no end with this name, so the request is to be refused.
    Failed {
        /// The line of the rule that was looked at last.
        line: usize,
        /// Why.
        why: &'static str,
    },
}

/// A rule has fired.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MapStep<'a> {
    /// Its line.
    pub line: usize,
    /// The name before it.
    pub before: &'a [u8],
    /// The name after it, the same where it does not rewrite.
    pub after: &'a [u8],
}

/// What is wrong with a map file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapSyntaxError {
    /// The line, from 1 on.
    pub line: usize,
    /// The byte in the line, from 1 on.
    pub column: usize,
    /// What is wrong there.
    pub why: String,
}

impl fmt::Display for MapSyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.why)
    }
}

impl std::error::Error for MapSyntaxError {}

struct Rule {
    line: usize,
    pattern: Pattern,
    /// `~`: it fires where the pattern does not match.
    is_inverse: bool,
    applies: Applies,
    rewrites: Option<Repeat>,
    then: Then,
    template: Template,
}

/// Which requests a rule is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Applies {
    /// `G` and `P`: with both of them a rule never fires.
    reads_only: bool,
    writes_only: bool,
    /// `4` and `6`, likewise.
    v4_only: bool,
    v6_only: bool,
}

impl Applies {
    fn to(self, direction: Direction, client: IpAddr) -> bool {
        let direction_fits = match direction {
            Direction::Read => !self.writes_only,
            Direction::Write => !self.reads_only,
        };
        let family_fits = match client {
            IpAddr::V4(_) => !self.v6_only,
            IpAddr::V6(_) => !self.v4_only,
        };
        direction_fits && family_fits
    }
}

/// How often a rule rewrites a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Once,
    /// `g`: from the start of the new name each time.
    UntilNoMatch,
    /// `gg`: behind the replacement each time.
    Along,
}

/// What comes after a rule that has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Next,
    /// `e`
    End,
    /// `E`
    EndIfFile,
    /// `s`
    Restart,
    /// `a`
    Refuse,
    /// `j`
    Jump,
}

/// A word of a line, and where it stands.
struct Word<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Splits a line at white space that no backslash precedes. A hash mark without one begins a
/// comment. Backslashes stay.
struct Words<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let line = self.line;
        while line.get(self.at).is_some_and(|byte| is_space(*byte)) {
            self.at += 1;
        }
        let start = self.at;
        let mut is_escaped = false;
        while let Some(byte) = line.get(self.at) {
            if !is_escaped && (is_space(*byte) || *byte == b'#') {
                break;
            }
            is_escaped = !is_escaped && *byte == b'\\';
            self.at += 1;
        }
        let bytes = &line[start..self.at];
        (!bytes.is_empty()).then_some(Word { bytes, at: start })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// An error, and its byte in the line from 0 on.
type Located<T> = Result<T, (usize, String)>;

impl MapRules {
    /// Reads the text of a map file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column.
    pub fn parse(text: &[u8]) -> Result<Self, MapSyntaxError> {
        let error = |line, (at, why)| MapSyntaxError {
            line,
            column: at + 1,
            why,
        };
        let mut found = Self::default();
        let mut jumps = Vec::new();
        if text.len() > MAP_FILE_BYTES {
            let why = format!("more than {MAP_FILE_BYTES} bytes in the file");
            return Err(error(1, (0, why)));
        }
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let mut words = Words { line, at: 0 };
            let Some(first) = words.next() else {
                continue;
            };
            let label = first.bytes.strip_prefix(b":").map(|label| match label {
                b"" => words.next().map(|word| word.bytes).unwrap_or_default(),
                label => label,
            });
            if let Some(label) = label {
                let next = found.rules.len();
                found.labels.entry(label.to_vec()).or_insert(next);
                continue;
            }
            if found.rules.len() == MAP_RULES {
                let why = format!("more than {MAP_RULES} rules in the file");
                return Err(error(number, (first.at, why)));
            }
            let (rule, jump_at) =
                rule(number, &first, &mut words).map_err(|it| error(number, it))?;
            if let Some(at) = jump_at {
                jumps.push((number, at, found.rules.len()));
            }
            found.rules.push(rule);
        }
        for (line, at, index) in jumps {
            let label = found.rules[index].template.constant();
            if let Some(label) = label.filter(|label| !found.labels.contains_key(*label)) {
                let why = format!("no label \"{}\" in the file", label.escape_ascii());
                return Err(error(line, (at, why)));
            }
        }
        Ok(found)
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True where there is no rule: every name means itself.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the name of a request means. `exists` says whether a name leads to a file that can be
    /// transferred; it is asked by rules with `E` only. `trace` hears of each rule that fires.
    pub fn apply(
        &self,
        request: &MapRequest<'_>,
        mut exists: impl FnMut(&[u8]) -> bool,
        mut trace: impl FnMut(MapStep<'_>),
    ) -> MapOutcome {
        let client = request.client.to_canonical();
        let mut subject = Subject::new(request.name.to_vec());
        // Each rule may be looked at once, whatever the limit is.
        let mut budget = Budget {
            steps: MAP_STEPS + self.rules.len(),
            probes: MAP_PROBES,
        };
        let mut next = 0;
        while let Some(rule) = self.rules.get(next) {
            next += 1;
            if !rule.applies.to(request.direction, client) {
                continue;
            }
            let fired = match rule.fire(&subject, client, &mut budget) {
                Ok(None) => continue,
                Ok(Some(fired)) => fired,
                Err(why) => {
                    return MapOutcome::Failed {
                        line: rule.line,
                        why,
                    };
                }
            };
            let after = fired.rewritten.as_deref().unwrap_or(&subject.name);
            if rule.then == Then::EndIfFile {
                if budget.probes == 0 {
                    let why = "too many names were looked up";
                    return MapOutcome::Failed {
                        line: rule.line,
                        why,
                    };
                }
                budget.probes -= 1;
                if !exists(after) {
                    continue; // as if it had not matched
                }
            }
            trace(MapStep {
                line: rule.line,
                before: &subject.name,
                after,
            });
            match rule.then {
                Then::Next => {}
                Then::End | Then::EndIfFile => {
                    return MapOutcome::Name(fired.rewritten.unwrap_or(subject.name));
                }
                Then::Restart => next = 0,
                Then::Refuse => {
                    let text = rule.text(&subject.name, &fired.found, client);
                    let text = Some(text).filter(|text| !text.is_empty());
                    return MapOutcome::Refused {
                        line: rule.line,
                        text,
                    };
                }
                Then::Jump => {
                    let label = rule.text(&subject.name, &fired.found, client);
                    match self.labels.get(&label) {
                        Some(index) => next = *index,
                        None => {
                            let why = "the label of the jump is missing";
                            return MapOutcome::Failed {
                                line: rule.line,
                                why,
                            };
                        }
                    }
                }
            }
            if let Some(rewritten) = fired.rewritten {
                subject = Subject::new(rewritten);
            }
        }
        MapOutcome::Name(subject.name)
    }
}

impl fmt::Debug for MapRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapRules")
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

/// What is left of the limits for one name.
struct Budget {
    steps: usize,
    probes: usize,
}

impl Budget {
    fn step(&mut self) -> Result<(), &'static str> {
        let left = self.steps.checked_sub(1);
        self.steps = left.ok_or("the rules come to no end")?;
        Ok(())
    }
}

/// What a rule that fires has found, and made of the name.
struct Fired {
    found: Match,
    rewritten: Option<Vec<u8>>,
}

impl Rule {
    /// `None` where it does not fire; an error where the name brings it to no end.
    fn fire(
        &self,
        subject: &Subject,
        client: IpAddr,
        budget: &mut Budget,
    ) -> Result<Option<Fired>, &'static str> {
        budget.step()?;
        let mut scratch = Scratch::default();
        let needs_span = self.rewrites.is_some() || self.template.has_groups();
        let found = if self.is_inverse || !needs_span {
            let fires = self.pattern.is_match(subject) != self.is_inverse;
            fires.then(Match::default)
        } else {
            self.pattern.find(subject, &mut scratch)
        };
        let Some(mut found) = found else {
            return Ok(None);
        };
        let Some(repeat) = self.rewrites else {
            return Ok(Some(Fired {
                found,
                rewritten: None,
            }));
        };
        let mut name = std::borrow::Cow::Borrowed(&subject.name[..]);
        loop {
            let span = found.span();
            let mut new = name[..span.start].to_vec();
            let fits = self.template.expand(&name, &found, client, &mut new);
            let mut behind = new.len();
            new.extend_from_slice(&name[span.end..]);
            if !fits || new.len() > MAX_NAME {
                return Err("the name gets too long");
            }
            // An empty match is not found again at its place.
            if span.is_empty() {
                behind += 1;
            }
            name = new.into();
            let from = match repeat {
                Repeat::Once => break,
                Repeat::UntilNoMatch => 0,
                Repeat::Along => behind,
            };
            if from > name.len() {
                break;
            }
            match self.pattern.find_from(&name, from, &mut scratch) {
                Some(next) => found = next,
                None => break,
            }
            budget.step()?;
        }
        Ok(Some(Fired {
            found,
            rewritten: Some(name.into_owned()),
        }))
    }

    /// The third word by itself, cut where it gets too long.
    fn text(&self, name: &[u8], found: &Match, client: IpAddr) -> Vec<u8> {
        let mut text = Vec::new();
        let _ = self.template.expand(name, found, client, &mut text);
        text
    }
}

/// A rule, whose letters are taken already, and where its label stands if it jumps.
fn rule<'a>(
    line: usize,
    letters: &Word<'_>,
    words: &mut impl Iterator<Item = Word<'a>>,
) -> Located<(Rule, Option<usize>)> {
    let has = |letter: u8| letters.bytes.contains(&letter);
    let is_known = |letter: &u8| b"rgeEsaji~46GP".contains(letter);
    if let Some(at) = letters.bytes.iter().position(|letter| !is_known(letter)) {
        let letter = letters.bytes[at].escape_ascii();
        let why = format!(
            "unknown letter \"{letter}\" (expected r, g, i, e, E, s, a, j, G, P, 4, 6 or ~)"
        );
        return Err((letters.at + at, why));
    }
    for pair in ["r~", "rj", "aj", "ej", "sj", "Ej", "eE", "aE", "sE"] {
        if pair.bytes().all(has) {
            let (one, other) = pair.split_at(1);
            let why = format!("{one} and {other} cannot be combined");
            return Err((letters.at, why));
        }
    }
    let end = letters.at + letters.bytes.len();
    let expression = words
        .next()
        .ok_or((end, "the expression is missing".to_owned()))?;
    let pattern = Pattern::new(expression.bytes, has(b'i'));
    let pattern = pattern.map_err(|wrong| (expression.at + wrong.at, wrong.why.to_owned()))?;
    let third = words.next();
    let template = third.as_ref().map(|word| Template::new(word.bytes));
    let template = template.unwrap_or_default();
    // The order in which tftpd-hpa 5.2 looks at them, where a rule has several.
    let then = match () {
        () if has(b'a') => Then::Refuse,
        () if has(b'e') => Then::End,
        () if has(b's') => Then::Restart,
        () if has(b'E') => Then::EndIfFile,
        () if has(b'j') => Then::Jump,
        () => Then::Next,
    };
    let jump_at = (then == Then::Jump).then(|| third.as_ref().map_or(end, |word| word.at));
    if jump_at.is_some() && template.is_empty() {
        return Err((end, "the label to jump to is missing".to_owned()));
    }
    let repeat = match letters
        .bytes
        .iter()
        .filter(|letter| **letter == b'g')
        .count()
    {
        0 => Repeat::Once,
        1 => Repeat::UntilNoMatch,
        _ => Repeat::Along,
    };
    let rule = Rule {
        line,
        pattern,
        is_inverse: has(b'~'),
        applies: Applies {
            reads_only: has(b'G'),
            writes_only: has(b'P'),
            v4_only: has(b'4'),
            v6_only: has(b'6'),
        },
        rewrites: (has(b'r') && then != Then::Refuse).then_some(repeat),
        then,
        template,
    };
    Ok((rule, jump_at))
}

#[cfg(test)]
mod tests;
