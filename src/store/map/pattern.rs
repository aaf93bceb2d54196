//! One compiled expression: whether it matches a name, and where.
//!
//! POSIX has the leftmost match, and of these the longest; the engine behind [`meta::Regex`] has
//! the first alternative that fits. So that one says whether and where a match begins, and a second
//! engine, anchored there, goes on to the longest end. Both take time in proportion to the length
//! of the name, whatever the expression.

use super::ere::{self, Translated, Wrong};
use regex_automata::nfa::thompson::{self, pikevm};
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind, meta};
use std::ops::Range;

/// Bytes that one expression may take in either engine.
const SIZE_LIMIT: usize = 256 << 10;
/// The whole match, and the groups that a replacement can name.
const GROUPS: usize = 10;

pub(super) struct Pattern {
    ignores_case: bool,
    /// What a name begins with that matches, and bytes that are in it; in lower case where that is
    /// ignored.
    prefix: Vec<u8>,
    bytes: Bytes,
    search: meta::Regex,
    longest: pikevm::PikeVM,
}

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes([u64; 4]);

impl Bytes {
    fn of(text: &[u8]) -> Self {
        let mut set = Self::default();
        for byte in text {
            set.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
        set
    }

    fn has(&self, other: &Self) -> bool {
        let mut words = self.0.iter().zip(other.0);
        words.all(|(own, other)| other & !own == 0)
    }
}

/// A name, and what tells cheaply that most of a thousand patterns do not match it.
pub(super) struct Subject {
    pub(super) name: Vec<u8>,
    bytes: Bytes,
    /// In lower case.
    folded: Bytes,
}

impl Subject {
    pub(super) fn new(name: Vec<u8>) -> Self {
        Self {
            bytes: Bytes::of(&name),
            folded: Bytes::of(&name.to_ascii_lowercase()),
            name,
        }
    }
}

/// Where an expression has matched.
#[derive(Clone, Debug, Default)]
pub(super) struct Match([Option<Range<usize>>; GROUPS]);

impl Match {
    /// The whole match.
    pub(super) fn span(&self) -> Range<usize> {
        self.0[0].clone().unwrap_or_default()
    }

    /// A group, where it has taken part.
    pub(super) fn group(&self, number: u8) -> Option<Range<usize>> {
        self.0.get(usize::from(number))?.clone()
    }
}

/// Memory for [`Pattern::find`], to be used again for the same pattern.
#[derive(Default)]
pub(super) struct Scratch(Option<pikevm::Cache>);

impl Pattern {
    pub(super) fn new(expression: &[u8], ignores_case: bool) -> Result<Self, Wrong> {
        let Translated {
            expression: translated,
            mut prefix,
            mut bytes,
        } = ere::translate(expression)?;
        if ignores_case {
            prefix.make_ascii_lowercase();
            bytes.make_ascii_lowercase();
        }
        let syntax = syntax::Config::new()
            .case_insensitive(ignores_case)
            .dot_matches_new_line(true)
            .unicode(false)
            .utf8(false);
        let search = meta::Regex::builder()
            .syntax(syntax)
            .configure(
                meta::Config::new()
                    .utf8_empty(false)
                    .nfa_size_limit(Some(SIZE_LIMIT))
                    .hybrid_cache_capacity(SIZE_LIMIT),
            )
            .build(&translated);
        let longest = pikevm::PikeVM::builder()
            .syntax(syntax)
            .configure(pikevm::Config::new().match_kind(MatchKind::All))
            .thompson(
                thompson::Config::new()
                    .utf8(false)
                    .nfa_size_limit(Some(SIZE_LIMIT)),
            )
            .build(&translated);
        match (search, longest) {
            (Ok(search), Ok(longest)) => Ok(Self {
                ignores_case,
                prefix,
                bytes: Bytes::of(&bytes),
                search,
                longest,
            }),
            // Its syntax is right, since it was translated.
            _ => Err(Wrong {
                at: 0,
                why: "the expression is too large",
            }),
        }
    }

    /// False for most names that the pattern does not match.
    fn may_match(&self, subject: &Subject) -> bool {
        let start = subject.name.get(..self.prefix.len());
        start.is_some_and(|start| match self.ignores_case {
            true => start.eq_ignore_ascii_case(&self.prefix) && subject.folded.has(&self.bytes),
            false => start == self.prefix && subject.bytes.has(&self.bytes),
        })
    }

    pub(super) fn is_match(&self, subject: &Subject) -> bool {
        self.may_match(subject) && self.search.is_match(Input::new(&subject.name))
    }

    /// The leftmost and longest match.
    pub(super) fn find(&self, subject: &Subject, scratch: &mut Scratch) -> Option<Match> {
        match self.may_match(subject) {
            true => self.find_from(&subject.name, 0, scratch),
            false => None,
        }
    }

    /// The leftmost and longest match that begins at `from` or later.
    pub(super) fn find_from(
        &self,
        name: &[u8],
        from: usize,
        scratch: &mut Scratch,
    ) -> Option<Match> {
        let start = self.search.find(Input::new(name).range(from..))?.start();
        let cache = scratch.0.get_or_insert_with(|| self.longest.create_cache());
        let input = Input::new(name).range(start..).anchored(Anchored::Yes);
        let mut slots: [Option<NonMaxUsize>; 2 * GROUPS] = [None; 2 * GROUPS];
        let known = self.longest.get_nfa().group_info().slot_len();
        let known = known.min(slots.len());
        self.longest
            .search_slots(cache, &input, &mut slots[..known])?;
        let mut found = Match::default();
        for (group, ends) in found.0.iter_mut().zip(slots.chunks_exact(2)) {
            *group = ends[0]
                .zip(ends[1])
                .map(|(low, high)| low.get()..high.get());
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole match and the groups, as text.
    fn found(expression: &str, name: &str) -> Option<Vec<String>> {
        let (expression, ignores_case) = match expression.strip_prefix("(i)") {
            Some(rest) => (rest, true),
            None => (expression, false),
        };
        let pattern = Pattern::new(expression.as_bytes(), ignores_case);
        let pattern = pattern.unwrap_or_else(|wrong| panic!("{expression}: {wrong:?}"));
        let subject = Subject::new(name.into());
        let found = pattern.find(&subject, &mut Scratch::default());
        let slowly = pattern.find_from(&subject.name, 0, &mut Scratch::default());
        assert_eq!(found.is_some(), slowly.is_some(), "{expression} in {name}");
        assert_eq!(found.is_some(), pattern.is_match(&subject));
        let found = found?;
        let text = |group: &Option<Range<usize>>| group.clone().map_or("-", |it| &name[it]);
        let groups: Vec<_> = found.0.iter().map(text).map(str::to_owned).collect();
        let used = groups.iter().rposition(|group| group != "-");
        Some(groups[..=used?].to_vec())
    }

    #[test]
    fn a_match_is_leftmost_and_longest() {
        let mut wrong = Vec::new();
        for (expression, name, wanted) in [
            // POSIX: the longest alternative, not the first.
            ("a|ab|abc", "xabcd", "abc"),
            ("a*(ab)?", "ab", "ab ab"),
            ("(a|ab)(c|bcd)", "abcd", "abcd a bcd"),
            ("b|a", "ab", "a"),
            ("(a|b)*", "abc", "ab b"),
            ("a+?", "aaa", "aaa"),
            ("a**", "aaa", "aaa"),
            ("(a+|b)?c", "aac", "aac aa"),
            ("x*", "aaa", ""),
            ("()b", "ab", "b "),
            ("a||b", "b", "b"),
            ("a||b", "c", ""),
            ("(b|(c))d", "bd", "bd b"),
            // Anchors are anchors wherever they stand.
            ("^a", "ba", "none"),
            ("a^", "a^", "none"),
            ("a$", "a\n", "none"),
            (r"\`b|a\'", "ba", "b"),
            (r"\<in", "main in", "in"),
            (r"in\>", "inner in", "in"),
            (r"\bin\b", "inner in", "in"),
            // A name is bytes, and a dot is any of them.
            ("a.c", "a\nc", "a\nc"),
            (r"\.", "a.b", "."),
            (r"\d", "5d", "d"),
            (r"\#", "a#b", "#"),
            (r"\w+", "-ab_1-", "ab_1"),
            (r"\S+", " ab ", "ab"),
            ("a)", "a)", "a)"),
            ("a}", "a}", "a}"),
            ("a{2}", "aaa", "aa"),
            ("a{2,}", "aaa", "aaa"),
            ("a{,2}", "aaa", "aa"),
            ("(ab){1,2}", "ababab", "abab ab"),
            // Brackets.
            ("[abc]+", "xcabx", "cab"),
            ("[^/]+", "ab/c", "ab"),
            ("[]a]+", "x]a", "]a"),
            ("[^]]", "]a", "a"),
            ("[a-]+", "x-a", "-a"),
            (r"[\]", r"a\b", r"\"),
            (r"[\.]+", r"a\.b", r"\."),
            ("[[:digit:]x]+", "a1x2", "1x2"),
            ("[[.-.]a]+", "b-a", "-a"),
            ("[[=a=]]", "ba", "a"),
            ("[0-9a-f]+", "g0f", "0f"),
            ("[a-c-]+", "-b", "-b"),
            ("[[]", "a[", "["),
            // Case.
            ("(i)abc", "xAbC", "AbC"),
            ("(i)[a-c]+", "ABC", "ABC"),
            ("(i)[^a]", "Ab", "b"),
            ("(i)[[:upper:]]+", "aB", "aB"),
            ("abc", "ABC", "none"),
            // Syntax of the other engine has no meaning.
            ("(?i)a", "", "wrong"),
            ("a\\z", "az", "az"),
            ("[a&&b]+", "&a&", "&a&"),
            ("[a~~b]+", "~", "~"),
            ("\u{e4}", "x\u{e4}", "\u{e4}"),
        ] {
            if wanted == "wrong" {
                assert!(
                    Pattern::new(expression.as_bytes(), false).is_err(),
                    "{expression}"
                );
                continue;
            }
            let got = found(expression, name).map_or("none".into(), |groups| groups.join(" "));
            if got != wanted {
                wrong.push(format!("{expression} in {name}: {got}, not {wanted}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn what_every_match_has_is_known_of_common_expressions() {
        for (expression, prefix, bytes) in [
            ("^/boot/(.*)$", "/boot/", "/boot/"),
            (r"^a\.b", "a.b", "a.b"),
            ("^ab*c", "a", "ac"),
            ("^ab+c", "ab", "abc"),
            ("^ab{0,2}c", "a", "ac"),
            ("^ab{2}c", "ab", "abc"),
            ("^a(b)c", "a", "ac"),
            ("^a[b]c", "a", "ac"),
            ("ab", "", "ab"),
            ("^ab|c", "", ""),
            ("^(a|b)c", "", "c"),
            ("a^b", "", "ab"),
        ] {
            let found = ere::translate(expression.as_bytes()).expect("an expression");
            let wanted = (prefix.as_bytes(), Bytes::of(bytes.as_bytes()));
            assert_eq!(
                (&*found.prefix, Bytes::of(&found.bytes)),
                wanted,
                "{expression}"
            );
        }
    }

    /// Engines that step back would take longer than the universe has been there.
    #[test]
    fn no_expression_takes_more_than_its_length_times_that_of_the_name() {
        let name = [b'a'; 1024];
        for expression in ["(a+)+b", "(a|aa)+$x", "(a|a)*b", "(.*)(.*)(.*)(.*)(.*)b"] {
            let pattern = Pattern::new(expression.as_bytes(), false);
            let pattern = pattern.unwrap_or_else(|wrong| panic!("{expression}: {wrong:?}"));
            assert!(
                !pattern.is_match(&Subject::new(name.to_vec())),
                "{expression}"
            );
        }
        for expression in ["(a{1000}){1000}", "((((a{99}){99}){99}){99}){99}"] {
            let too_large = Pattern::new(expression.as_bytes(), false).err();
            let why = too_large.map(|wrong| wrong.why);
            assert_eq!(why, Some("the expression is too large"), "{expression}");
        }
    }
}
