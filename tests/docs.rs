//! What the documents claim is there: tests, files, options of the command and targets of the
//! Makefile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a line must say which test proves it, or that there is none.
const TABLES_OF_PROOF: [&str; 2] = ["docs/protocol.md", "docs/security.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// Everything that people read: the documents at the top, and all in `docs`.
fn documents() -> Vec<(String, String)> {
    let mut names = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(str::to_owned)
        .to_vec();
    for entry in std::fs::read_dir(root().join("docs")).expect("the folder is there") {
        let name = entry.expect("readable").file_name();
        names.push(format!("docs/{}", name.to_str().expect("ASCII")));
    }
    names.sort();
    for name in ["architecture", "protocol", "security"] {
        assert!(names.contains(&format!("docs/{name}.md")), "no {name}.md");
    }
    names.into_iter().map(|it| (read(&it), it)).collect()
}

/// What there is to be named.
struct House {
    /// Below `src` and `tests`, folders too.
    paths: BTreeSet<String>,
    /// As `file::test`.
    tests: BTreeSet<String>,
    options: BTreeSet<String>,
    targets: BTreeSet<String>,
}

impl House {
    fn new() -> Self {
        let mut paths = BTreeSet::new();
        for folder in ["src", "tests"] {
            list(&root().join(folder), &mut paths);
        }
        let tests = paths
            .iter()
            .filter(|path| path.ends_with(".rs"))
            .flat_map(|path| tests_in(path, &read(path)))
            .collect();
        let help: String = ["serve", "get", "put", "probe"].map(help_of).concat();
        Self {
            paths,
            tests,
            options: options_in(&help).map(str::to_owned).collect(),
            targets: targets_of(&read("Makefile")),
        }
    }

    /// What a document names and is not there.
    fn complaints(&self, text: &str) -> Vec<String> {
        let tests = tests_named(text).filter(|test| !self.tests.contains(*test));
        let tests = tests.map(|test| format!("no test {test}"));
        let paths = paths_named(text).filter(|path| !self.has(path));
        let paths = paths.map(|path| format!("no file {path}"));
        let options = options_in(text).filter(|option| !self.options.contains(*option));
        let options = options.map(|option| format!("no option {option}"));
        let targets = targets_named(text).filter(|target| !self.targets.contains(*target));
        let targets = targets.map(|target| format!("no target {target}"));
        tests.chain(paths).chain(options).chain(targets).collect()
    }

    /// A path from the top of the repository, or a file's bare name.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let is_last = |known: &String| known.rsplit('/').next() == Some(path);
        self.paths.contains(path) || !path.contains('/') && self.paths.iter().any(is_last)
    }
}

fn help_of(subcommand: &str) -> String {
    let help = Command::new(env!("CARGO_BIN_EXE_tftpool"))
        .args([subcommand, "--help"])
        .output()
        .expect("the binary starts");
    String::from_utf8(help.stdout).expect("text")
}

fn list(folder: &Path, paths: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let found = entries.map(|entry| entry.expect("readable").path());
    for path in found.chain([PathBuf::from(folder)]) {
        let inside = path.strip_prefix(root()).expect("below the top");
        paths.insert(inside.to_str().expect("ASCII").to_owned());
        if path.is_dir() && path != folder {
            list(&path, paths);
        }
    }
}

/// Doctests run it, unless its fence says otherwise.
#[test]
fn the_example_of_the_readme_runs_as_it_stands() {
    let readme = read("README.md");
    let fences: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("```rust"))
        .collect();
    assert_eq!(fences, ["```rust"]);
    assert!(read("src/lib.rs").contains(r#"include_str!("../README.md")"#));
}

/// The functions with `#[test]` above them.
fn tests_in(path: &str, source: &str) -> Vec<String> {
    let mut is_test = false;
    let mut found = Vec::new();
    for line in source.lines().map(str::trim_start) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ")
            && std::mem::take(&mut is_test)
        {
            let name = rest.split('(').next().unwrap_or_default();
            found.push(format!("{path}::{name}"));
        }
    }
    found
}

/// The targets that have rules.
fn targets_of(makefile: &str) -> BTreeSet<String> {
    let rules = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.']) && !line.contains('='))
        .filter_map(|line| line.split_once(':'));
    rules.map(|(target, _)| target.trim().to_owned()).collect()
}

/// What stands in backticks, and the lines of fenced blocks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let mut is_fenced = false;
    text.lines().flat_map(move |line| {
        let is_fence = line.starts_with("```");
        is_fenced ^= is_fence;
        let spans: Vec<&str> = match is_fenced || is_fence {
            true => vec![line],
            false => line.split('`').skip(1).step_by(2).collect(),
        };
        spans
    })
}

fn tests_named(text: &str) -> impl Iterator<Item = &str> {
    code(text).filter(|span| span.contains(".rs::"))
}

/// Paths below `src` and `tests`, and bare names of sources.
fn paths_named(text: &str) -> impl Iterator<Item = &str> {
    let paths = code(text).flat_map(|span| span.split([' ', '(', ')', ',', '"']));
    paths.filter(|word| {
        let is_below = word.starts_with("src/") || word.starts_with("tests/");
        !word.contains("::") && (is_below || word.ends_with(".rs") && !word.contains('/'))
    })
}

/// Long options, wherever they stand, but not those of another program on its own line.
fn options_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text
        .lines()
        .filter(|line| !line.contains("cargo "))
        .flat_map(|line| {
            line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
        });
    words.filter(|word| {
        let name = word.strip_prefix("--").unwrap_or_default();
        name.starts_with(|letter: char| letter.is_ascii_lowercase())
    })
}

fn targets_named(text: &str) -> impl Iterator<Item = &str> {
    code(text).filter_map(|span| {
        let command = span.trim_start_matches(['$', ' ']).strip_prefix("make ")?;
        command.split_whitespace().next()
    })
}

/// Rows whose last cell names no test and that do not say why.
fn unproven(text: &str) -> Vec<&str> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.filter(|row| !row.starts_with("| ---") && !row.ends_with("| proof |"))
        .filter(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            let is_proven = cells
                .last()
                .is_some_and(|cell| tests_named(cell).count() > 0);
            !is_proven && !row.contains("not implemented") && !row.contains("not tested")
        })
        .collect()
}

#[test]
fn what_the_documents_name_is_there() {
    let house = House::new();
    assert!(house.paths.len() > 50 && house.tests.len() > 100);
    assert!(house.options.len() > 10 && house.targets.len() > 5);
    let mut wrong = Vec::new();
    for (text, name) in documents() {
        let all = house.complaints(&text);
        wrong.extend(all.into_iter().map(|what| format!("{name}: {what}")));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_claim_names_its_proof() {
    for name in TABLES_OF_PROOF {
        let text = read(name);
        assert!(tests_named(&text).count() > 20, "{name} names no tests");
        let rows = unproven(&text);
        assert!(rows.is_empty(), "{name}:\n{}\n", rows.join("\n"));
    }
}

/// The checks themselves, on a document made up for them.
#[test]
fn a_false_claim_is_noticed() {
    let house = House::new();
    let here = "tests/docs.rs::a_false_claim_is_noticed";
    for good in [
        format!("see `{here}` and `tests/docs.rs`, `docs.rs`, `src/wire/`"),
        "`--port`, `tftpool serve --workers 2`, --user".into(),
        "`make test` or\n```\n$ make sim SEED=1 # a world\n```\n".into(),
        "to make it short -- as it is".into(),
        "`cargo test --test docs`".into(),
    ] {
        assert_eq!(house.complaints(&good), [""; 0], "{good}");
    }
    for bad in [
        "`tests/docs.rs::no_such_test`",
        "`tests/docs.rs::root`", // a function, but no test
        "`tests/cli.rs::a_false_claim_is_noticed`",
        "`tests/absent.rs`",
        "`src/absent/`",
        "`absent.rs`",
        "```\nmake absent\n```",
        "`make absent`",
        "`tftpool serve --absent`",
        "--ports",
    ] {
        assert_eq!(house.complaints(bad).len(), 1, "{bad}");
    }
    assert_eq!(
        tests_in("x.rs", "#[test]\n/// a\nfn a(n: u8) {}\nfn b() {}"),
        ["x.rs::a"]
    );

    let head = "| claim | proof |\n| --- | --- |\n";
    let proven = format!("{head}| a | `{here}` |\n| b: not implemented | |\n");
    assert_eq!(unproven(&proven), [""; 0]);
    let elsewhere = format!("{head}| `{here}` | |\n| b | trust me |\n");
    assert_eq!(unproven(&elsewhere).len(), 2);
}
