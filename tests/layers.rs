//! Stairs go down only: reads the paths that the sources mention and fails where a floor uses one
//! above it.
//!
//! ```text
//! 4  main cli testing  clap, env_logger, serde_json, percent-encoding
//! 3  server driver client    mio, crossbeam-channel
//! 2  transfer store event error text     log
//! 1  proto             nothing
//! 0  wire limits       nothing
//!    sys               the operating system: used by floors 2 to 4, uses the numbers of `limits`
//! ```
//!
//! Comments, strings and test modules may speak of everything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of a module at the top of the crate.
fn floor(module: &str) -> Option<u8> {
    Some(match module {
        "wire" | "limits" => 0,
        "proto" => 1,
        "sys" | "transfer" | "store" | "event" | "error" | "text" => 2,
        "server" | "client" | "driver" => 3,
        "main" | "cli" | "testing" => 4,
        _ => return None,
    })
}

/// The lowest floor that may name a crate; `None` leaves it to `sys`.
fn lowest_floor_of_crate(name: &str) -> Option<u8> {
    match name {
        "log" => Some(2),
        "mio" | "crossbeam_channel" => Some(3),
        "clap" | "env_logger" | "percent_encoding" | "serde" | "serde_json" => Some(4),
        _ => None,
    }
}

const CRATES: [&str; 11] = [
    "log",
    "mio",
    "crossbeam_channel",
    "clap",
    "env_logger",
    "percent_encoding",
    "serde",
    "serde_json",
    "nix",
    "memmap2",
    "libc",
];

/// What floors 0 and 1 never name: they are handed octets and instants.
const NOT_PURE: [&str; 8] = [
    "std::net",
    "std::fs",
    "std::io",
    "std::thread",
    "std::sync",
    "std::os",
    "std::process",
    "std::env",
];

/// Files of the server that decide and do nothing: they know addresses and the errors of the
/// system, and are handed instants.
const DECIDING: [&str; 6] = [
    "server::endpoint",
    "server::desk",
    "server::ports",
    "server::by_id",
    "server::bucket",
    "server::memory",
];

/// What those never name.
const NOT_DECIDING: [&str; 11] = [
    "mio",
    "crossbeam_channel",
    "std::fs",
    "std::thread",
    "std::os",
    "std::process",
    "std::env",
    "std::net::UdpSocket",
    "crate::store",
    "crate::sys::udp",
    "crate::transfer::now",
];

#[test]
fn stairs_go_down_only() {
    let files = sources();
    let exports = root_exports(&files);
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| complaints(file, &exports))
        .collect();
    assert!(files.len() > 10, "the sources were not found");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The check itself, on sources made up for it.
#[test]
fn a_step_up_is_noticed() {
    let exports = vec![("Server".to_owned(), "server".to_owned())];
    let found = |path: &str, text: &str| complaints(&Source::new(path, text), &exports).len();

    assert_eq!(
        found("proto/mod.rs", "use crate::{limits::A, wire::{B, C}};"),
        0
    );
    assert_eq!(
        found("proto/mod.rs", "use crate::{limits::A, store::Dir};"),
        1
    );
    assert_eq!(
        found("proto/sender.rs", "use super::super::transfer::Link;"),
        1
    );
    assert_eq!(found("proto/sender.rs", "use super::timer::Timer;"), 0);
    assert_eq!(found("store/mod.rs", "fn f(s: crate::Server) {}"), 1);
    assert_eq!(
        found(
            "store/mod.rs",
            "// crate::Server\nconst A: &str = \"crate::server\";"
        ),
        0
    );
    assert_eq!(
        found(
            "proto/mod.rs",
            "use std::{net::UdpSocket, time::{Duration, Instant}};"
        ),
        1
    );
    assert_eq!(found("proto/mod.rs", "let now = Instant :: now ();"), 1);
    assert_eq!(
        found("wire/mod.rs", "static A: Mutex<u8> = Mutex::new(0);"),
        1
    );
    assert_eq!(found("event.rs", "use mio::Poll;"), 1);
    assert_eq!(found("server/mod.rs", "nix::unistd::fork()"), 1);
    assert_eq!(
        found("sys/udp.rs", "use crate::error::Error; use nix::libc;"),
        1
    );
    assert_eq!(
        found("server/endpoint.rs", "use crate::sys::udp::Listener;"),
        1
    );
    assert_eq!(found("server/endpoint.rs", "use crate::sys::is_scarce;"), 0);
    assert_eq!(
        found("server/desk.rs", "use crate::transfer::{now, Transfer};"),
        1
    );
    assert_eq!(
        found("server/ports.rs", "static A: Mutex<u8> = Mutex::new(0);"),
        1
    );
    assert_eq!(found("server/dispatch.rs", "use mio::Poll;"), 0);
    assert_eq!(found("store/mod.rs", "unsafe { f() }"), 1);
    assert_eq!(found("sys/udp.rs", "unsafe { f() }"), 0);
    assert_eq!(
        found(
            "wire/mod.rs",
            "#[cfg(test)]\nmod tests {\n    use std::fs;\n}"
        ),
        0
    );
}

/// Two files that import each other are one file in two places. A module and its submodules are one
/// by design.
#[test]
fn no_two_files_import_each_other() {
    let mut found = Vec::new();
    for root in ["src", "benches/compare", "benches/c10k"] {
        found.extend(circles(&sources_of(root)));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_circle_is_noticed() {
    let found = |files: &[(&str, &str)]| -> Vec<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| Source::new(path, text))
            .collect();
        let pairs = circles(&files).into_iter();
        pairs.map(|(one, other)| format!("{one} {other}")).collect()
    };
    let (one, other) = ("use super::b::B; struct A;", "fn b(a: super::a::A) {}");
    let circle = found(&[("s/mod.rs", ""), ("s/a.rs", one), ("s/b.rs", other)]);
    assert_eq!(circle, ["s::a s::b"]);
    let straight = found(&[("s/mod.rs", ""), ("s/a.rs", one), ("s/b.rs", "struct B;")]);
    assert!(straight.is_empty(), "{straight:?}");
    // Through what a module above re-exports.
    let other = "use crate::{A}; struct B;";
    let circle = found(&[
        ("lib.rs", "pub use s::A;"),
        ("s/mod.rs", "mod a; pub use self::a::A;"),
        ("s/a.rs", one),
        ("s/b.rs", other),
    ]);
    assert_eq!(circle, ["s::a s::b"]);
    let parent = found(&[
        ("s/mod.rs", "use a::A; struct S;"),
        ("s/a.rs", "use super::S;"),
    ]);
    assert!(parent.is_empty(), "{parent:?}");
}

/// A source file, as far as this check looks at it.
struct Source {
    /// Modules from the top of the crate: `["server", "desk"]`.
    module: Vec<String>,
    /// Words and marks without comments, strings and the test module.
    tokens: Vec<String>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let text = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        Self {
            module: module.split('/').map(str::to_owned).collect(),
            tokens: tokens(text),
        }
    }

    /// The module of the file; none at the root of the crate.
    fn place(&self) -> &[String] {
        match self.top() {
            "lib" | "main" => &[],
            _ => &self.module,
        }
    }

    fn top(&self) -> &str {
        &self.module[0]
    }

    /// Every path that is mentioned, use trees spelled out: `std::net::UdpSocket`,
    /// `crate::wire::Packet`.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let starts = at == 0 || self.tokens[at - 1] != "::";
            at = match starts && is_word(&self.tokens[at]) {
                true => self.tree(at, &[], &mut paths),
                false => at + 1,
            };
        }
        paths
    }

    /// Reads one path or use tree at `at`; returns where it ends.
    fn tree(&self, mut at: usize, above: &[String], paths: &mut Vec<Vec<String>>) -> usize {
        let token = |at: usize| self.tokens.get(at).map_or("", String::as_str);
        let mut path = above.to_vec();
        while is_word(token(at)) {
            path.push(token(at).to_owned());
            at += 1;
            if token(at) != "::" {
                paths.push(path);
                return at;
            }
            at += 1;
        }
        if token(at) == "{" && !path.is_empty() {
            at += 1;
            while !matches!(token(at), "}" | "") {
                at = match is_word(token(at)) || token(at) == "{" {
                    true => self.tree(at, &path, paths),
                    false => at + 1,
                };
            }
            return at + 1;
        }
        paths.push(path);
        at + 1
    }

    /// The top module that a path leads to, where it stays in this crate.
    fn target(&self, path: &[String], exports: &[(String, String)]) -> Option<String> {
        let supers = path.iter().take_while(|word| *word == "super").count();
        let next = match path[0].as_str() {
            "crate" => path.get(1)?,
            "super" if supers >= self.module.len() => path.get(supers)?,
            _ => return None,
        };
        let export = exports.iter().find(|(name, _)| name == next);
        Some(export.map_or(next, |(_, module)| module).clone())
    }
}

/// The pairs of files that import each other, by their modules.
fn circles(files: &[Source]) -> Vec<(String, String)> {
    let files = Files(files);
    let mut edges = BTreeSet::new();
    for file in files.0 {
        let own = file.place();
        for path in file.paths() {
            if let Some(target) = files.target(own, &path, 0)
                && !own.starts_with(target)
                && !target.starts_with(own)
            {
                edges.insert((own.join("::"), target.join("::")));
            }
        }
    }
    let is_circle = |(one, other): &&(String, String)| {
        one < other && edges.contains(&(other.clone(), one.clone()))
    };
    edges.iter().filter(is_circle).cloned().collect()
}

/// The files of one crate.
struct Files<'a>(&'a [Source]);

impl<'a> Files<'a> {
    fn at(&self, module: &[String]) -> Option<&'a Source> {
        self.0.iter().find(|file| file.place() == module)
    }

    /// The file that defines what a path in the file of `own` leads to, re-exports followed.
    fn target(&self, own: &[String], path: &[String], depth: u8) -> Option<&'a [String]> {
        let supers = path.iter().take_while(|word| *word == "super").count();
        let (mut module, mut rest) = match path[0].as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (own.to_vec(), &path[1..]),
            "super" => (
                own[..own.len().checked_sub(supers)?].to_vec(),
                &path[supers..],
            ),
            _ => (own.to_vec(), path),
        };
        while let Some((word, further)) = rest.split_first() {
            let below = [&module[..], std::slice::from_ref(word)].concat();
            if self.at(&below).is_none() {
                break;
            }
            (module, rest) = (below, further);
        }
        let file = self.at(&module)?;
        if module == own {
            return None;
        }
        let exported = |path: &Vec<String>| {
            let is_it = path.len() > 1 && path.last() == rest.first();
            is_it.then(|| self.target(&module, path, depth + 1))?
        };
        let found = file.paths().iter().filter(|_| depth < 8).find_map(exported);
        Some(found.unwrap_or(file.place()))
    }
}

/// Everything that is wrong with one file.
fn complaints(file: &Source, exports: &[(String, String)]) -> Vec<String> {
    let (top, name) = (file.top(), file.module.join("::"));
    if top == "lib" {
        return Vec::new(); // names every module by its nature
    }
    let Some(own) = floor(top) else {
        return vec![format!(
            "{name}: on no floor; say in tests/layers.rs where it belongs"
        )];
    };
    let pure = own < 2;
    let mut wrong = Vec::new();
    for path in file.paths() {
        let written = path.join("::");
        if let Some(target) = file.target(&path, exports)
            && let Some(other) = floor(&target)
        {
            let allowed = match top {
                "sys" => matches!(target.as_str(), "sys" | "limits"),
                _ => other <= own,
            };
            if !allowed {
                wrong.push(format!("{name}: {written} is above it"));
            }
        }
        if path.len() > 1 && CRATES.contains(&path[0].as_str()) {
            let lowest = lowest_floor_of_crate(&path[0]);
            if top != "sys" && lowest.is_none_or(|lowest| own < lowest) {
                wrong.push(format!("{name}: {written} is a crate of another floor"));
            }
        }
        if pure
            && NOT_PURE
                .iter()
                .any(|banned| written == *banned || written.starts_with(&format!("{banned}::")))
        {
            wrong.push(format!("{name}: {written} is the outside world"));
        }
        let decides = DECIDING.contains(&name.as_str());
        let is_banned =
            |banned: &&str| written == **banned || written.starts_with(&format!("{banned}::"));
        if decides && NOT_DECIDING.iter().any(is_banned) {
            wrong.push(format!("{name}: {written} is for those that act"));
        }
        if (pure || decides) && written.ends_with("Instant::now") {
            wrong.push(format!(
                "{name}: {written} reads the clock; take `now` as an argument"
            ));
        }
    }
    if (pure || DECIDING.contains(&name.as_str()))
        && file
            .tokens
            .iter()
            .any(|word| word == "Mutex" || word == "RwLock")
    {
        wrong.push(format!("{name}: a lock"));
    }
    if top != "sys" && file.tokens.iter().any(|word| word == "unsafe") {
        wrong.push(format!("{name}: unsafe outside src/sys"));
    }
    wrong
}

/// What `lib.rs` re-exports: the name and the module that it comes from.
fn root_exports(files: &[Source]) -> Vec<(String, String)> {
    let lib = files
        .iter()
        .find(|file| file.top() == "lib")
        .expect("lib.rs");
    let name = |path: &Vec<String>| Some((path.last()?.clone(), path[0].clone()));
    lib.paths()
        .iter()
        .filter(|path| path.len() > 1 && floor(&path[0]).is_some())
        .filter_map(name)
        .collect()
}

fn sources() -> Vec<Source> {
    sources_of("src")
}

fn sources_of(root: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![root.clone()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let inside = path.strip_prefix(&root).expect("below src");
            found.push(Source::new(inside.to_str().expect("ASCII"), &text));
        }
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Splits Rust into words, `::` and single marks; comments, strings and character literals are left
/// out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if is_word(rest) {
            let end = |letter: char| !letter.is_alphanumeric() && letter != '_';
            let length = rest.find(end).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the string or character literal that `text` starts with.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            rest.starts_with(['"', '\'']) || (prefix.ends_with('r') && rest.starts_with("#"))
        })
    })?;
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let marks = body.len() - body.trim_start_matches('#').len();
        let inside = body[marks..].strip_prefix('"')?;
        let end = inside.find(&format!("\"{}", "#".repeat(marks)))?;
        return Some(prefix.len() + marks + 1 + end + 1 + marks);
    }
    let quote = body.chars().next()?;
    let mut escaped = false;
    for (at, letter) in body.char_indices().skip(1) {
        // 'a is a lifetime unless a quote follows its first letter.
        if quote == '\'' && !escaped && at > 1 && letter != '\'' && !body.starts_with("'\\") {
            return None;
        }
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    None
}
