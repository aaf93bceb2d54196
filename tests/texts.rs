//! What the library says, and what the documentation says about its settings.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use tftpool::unversioned::limits::settings::{Setting, client, directory, server};
use tftpool::{Mode, Retransmit, WriteMode};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources of the library: all but the command and the rig for tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str());
        match name.expect("ASCII") {
            "cli" | "main.rs" | "testing" | "tests" | "tests.rs" => {}
            _ if path.is_dir() => sources(&path, found),
            _ => found.push(path),
        }
    }
}

/// The string literals of a source, but not those of its tests.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next();
    let mut rest = source.unwrap_or_default();
    let mut found = Vec::new();
    while let Some(start) = rest.find(['"', '/', '\'']) {
        let token = &rest[start..];
        rest = if token.starts_with("//") {
            token.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(after) = token.strip_prefix("'\"'") {
            after
        } else if let Some(text) = token.strip_prefix('"') {
            let hashes = rest[..start].len() - rest[..start].trim_end_matches('#').len();
            let is_raw = rest[..start - hashes].ends_with('r');
            let end = match is_raw {
                true => text.find(&format!("\"{}", "#".repeat(hashes))),
                false => end_of(text),
            };
            let end = end.expect("a string that ends");
            found.push(text[..end].to_owned());
            &text[end + 1..]
        } else {
            &token[1..]
        };
    }
    found
}

/// Where a string with escapes ends.
fn end_of(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

fn names_an_option(text: &str) -> bool {
    text.match_indices("--").any(|(at, _)| {
        let after = text[at + 2..].chars().next();
        after.is_some_and(|letter| letter.is_ascii_alphabetic())
    })
}

/// An embedder has no command line: the command adds what helps there.
#[test]
fn no_text_of_the_library_names_an_option_of_the_command() {
    let mut paths = Vec::new();
    sources(&root().join("src"), &mut paths);
    assert!(paths.len() > 50);
    let mut count = 0;
    for path in paths {
        let source = fs::read_to_string(&path).expect("text");
        for text in literals(&source) {
            count += 1;
            assert!(!names_an_option(&text), "{}: {text:?}", path.display());
        }
    }
    assert!(count > 300, "{count} literals");
}

#[test]
fn literals_are_found_and_comments_are_not() {
    let source = concat!(
        "/// say \"--no\"\nlet a = \"x \\\" --yes\"; // '\"' \"--no\"\n",
        "let b = r#\"raw \" --yes\"#; let c = '\"'; let d = b\"--yes\"; let e = 1 / 2;\n",
        "fn f<'a>(it: &'a str) -> &'a str { \"plain\" }\n",
        "#[cfg(test)]\nmod tests {\n\"--no\"\n}",
    );
    let all = literals(source);
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(all.iter().filter(|text| names_an_option(text)).count(), 3);
    assert!(!names_an_option("a -- b"));
}

#[test]
fn modes_are_words_both_ways() {
    for mode in [WriteMode::Create, WriteMode::Overwrite, WriteMode::Unique] {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    for when in [Retransmit::Adaptive, Retransmit::Rfc] {
        assert_eq!(when.to_string().parse(), Ok(when));
    }
    for mode in [Mode::Octet, Mode::Netascii] {
        assert_eq!(mode.to_string().to_uppercase().parse(), Ok(mode));
    }
    let error = "append".parse::<WriteMode>().expect_err("no such mode");
    assert_eq!(error.to_string(), "expected create, overwrite or unique");
}

/// Rows of the page, as the tables of the library make them.
fn rows(owner: &str, settings: &[Setting]) -> String {
    let mut rows = format!("| {owner} | accepts |\n| --- | --- |\n");
    for setting in settings {
        let _ = writeln!(rows, "| `{}` | {setting} |", setting.name);
    }
    rows
}

#[test]
fn the_page_of_settings_says_what_the_tables_say() {
    let page = fs::read_to_string(root().join("docs/settings.md")).expect("the page");
    for (owner, settings) in [
        ("`ServerConfig`", server::ALL),
        ("`DirBuilder`", directory::ALL),
        ("`Client`", client::ALL),
    ] {
        let rows = rows(owner, settings);
        assert!(page.contains(&rows), "docs/settings.md lacks:\n{rows}");
    }
}
