//! What the documents claim is there: tests, files, options of the command and targets of the
//! Makefile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Documents whose claims (sections of the third level) must each name a test, or say why there is
/// none; and the fewest claims that each document has.
const CLAIMS: [(&str, usize); 2] = [("docs/protocol.md", 120), ("docs/security.md", 35)];

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

/// Programs whose options are not ours.
const OTHER_PROGRAMS: [&str; 8] = [
    "cargo ",
    "systemctl ",
    "systemd-analyze ",
    "systemd-tmpfiles ",
    "podman ",
    "start-stop-daemon ",
    "dpkg-deb ",
    "apt-get ",
];

/// Long options, wherever they stand, but not those of another program on its own line.
fn options_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text
        .lines()
        .filter(|line| !OTHER_PROGRAMS.iter().any(|name| line.contains(name)))
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

/// The targets of links, as `file#heading`, `file` or `#heading`; not those outside.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

/// The anchors of the headings of a page, as GitHub and crates.io make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let words = headings.map(|line| line.trim_start_matches('#').trim());
    let letters = |words: &str| {
        let kept = words.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter
                .is_alphanumeric()
                .then(|| letter.to_ascii_lowercase()),
        });
        kept.collect()
    };
    words.map(letters).collect()
}

/// Links of a page that lead to no file or to no heading.
fn broken<'a>(page: &str, text: &'a str) -> Vec<&'a str> {
    let folder = Path::new(page).parent().expect("a file");
    let leads_nowhere = |target: &&str| {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = match file {
            "" => Path::new(page).to_path_buf(),
            _ => folder.join(file),
        };
        let is_there = root().join(&path).exists();
        !is_there || !heading.is_empty() && !anchors(&read(path)).contains(heading)
    };
    links(text).filter(leads_nowhere).collect()
}

#[test]
fn every_link_leads_to_a_heading() {
    for (text, name) in documents() {
        assert_eq!(broken(&name, &text), [""; 0], "{name}");
    }
    let text = "[a](docs/architecture.md#layers), [b](#top), [c](https://example.org/#x)";
    assert_eq!(broken("README.md", text), ["#top"]);
    let text = "[a](architecture.md#floors), [b](absent.md), [c](../README.md)";
    let expected = ["architecture.md#floors", "absent.md"];
    assert_eq!(broken("docs/protocol.md", text), expected);
}

/// The sections of the third level: each is one claim. A heading of any level ends a section.
fn claims(text: &str) -> Vec<&str> {
    let mut starts = Vec::new();
    let (mut at, mut is_fenced) = (0, false);
    for line in text.split_inclusive('\n') {
        is_fenced ^= line.starts_with("```");
        if !is_fenced && line.starts_with('#') {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([at]);
    let sections = starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| &text[start..end]);
    sections
        .filter(|section| section.starts_with("### "))
        .collect()
}

/// Claims whose list names no test and that do not say why.
fn untested(text: &str) -> Vec<&str> {
    let has_test = |section: &str| {
        let items = section.lines().filter(|line| line.starts_with("- `"));
        items.flat_map(tests_named).next().is_some()
    };
    let is_exempt = |section: &str| {
        let words: Vec<&str> = section.split_whitespace().collect();
        let text = words.join(" ").to_lowercase();
        text.contains("not implemented") || text.contains("not tested")
    };
    let claims = claims(text).into_iter();
    claims
        .filter(|section| !has_test(section) && !is_exempt(section))
        .collect()
}

/// Rows of tables that name tests: such a claim belongs into a section of its own.
fn rows_with_tests(text: &str) -> Vec<&str> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.filter(|row| tests_named(row).next().is_some())
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
fn every_claim_names_a_test() {
    for (name, fewest) in CLAIMS {
        let text = read(name);
        let count = claims(&text).len();
        assert!(count >= fewest, "{name} has only {count} claims");
        let sections = untested(&text);
        assert!(sections.is_empty(), "{name}:\n{}\n", sections.join("\n"));
        let rows = rows_with_tests(&text);
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

    let tested = format!("### A\n\nClaim.\n\nTests:\n\n- `{here}`\n");
    let exempt = "### B\n\nThis is not\nimplemented.\n";
    let document = format!("# Page\n\n## Group\n\nProse.\n\n{tested}\n{exempt}\n## End\n");
    assert_eq!(claims(&document).len(), 2);
    assert_eq!(untested(&document), [""; 0]);
    let untested_ones = [
        "### A\n\nTrust me.\n".to_owned(),
        format!("### A\n\nProse names `{here}`.\n"),
        format!("### A\n\n## Group\n\n- `{here}`\n"), // another section's
        format!("### A\n\n#### Deeper\n\n- `{here}`\n"),
    ];
    for bad in &untested_ones {
        assert_eq!(untested(bad).len(), 1, "{bad}");
    }
    let table = format!("| claim | tests |\n| --- | --- |\n| a | `{here}` |\n| b | `x` |\n");
    assert_eq!(rows_with_tests(&table).len(), 1);
}
