//! `make bench`: this crate's server beside the limits of the machine and beside other servers, in
//! one run.
//!
//! `ROWS=text` runs the rows whose name contains it (several with commas), `RUNS=n` takes medians
//! of so many runs (3), `QUICK=1` makes small runs, `PEERS=dir` adds the rivals that
//! `benches/peers.sh` fetched, `ONLY=names` picks servers, `SPREAD=1` pins nothing to one CPU,
//! `ROWS=curve` storms with 1 to 10,000 clients. `BASE=program` measures another build of `tftpool`
//! in the same run, `BASE=file.json` prints what an older run measured; both are compared figure by
//! figure. In `ROWS` and `ONLY` a hyphen matches a space, and a number matches a whole number:
//! `ROWS=crowd-20` is both rows of 20 lock-step clients. The limits are measured whatever `ONLY`
//! says. The tables go to the standard output, and as JSON to `target/bench.json`. See
//! `docs/performance.md`.
//!
//! For a profiler: `serve-bare ADDRESS PORT DIR`, `serve-floor ADDRESS PORT DIR`, and
//! `fetch ADDRESS:PORT BLKSIZE WINDOWSIZE SIZE TIMES`, which fetches the file `f-SIZE` so many
//! times.
//!
//! `plot FILE.json OUT.svg` draws the picture of `docs/performance.md`;
//! `receive ADDRESS:PORT BLKSIZE WINDOWSIZE NAME OUT` is the bare receiver.
//!
//! `hostile` is the comparison under loss and attack (`make bench-hostile`), `profile` tells where
//! the time of a crowd goes (`make bench-profile`).
//!
//! Without `--bench`, as `cargo test --benches` runs it, it only checks that the load generator
//! tells a file that arrived from one that did not.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock; that is what it is for

mod affinity;
#[path = "../../tests/lab/bed.rs"]
mod bed;
mod client;
mod contenders;
mod hostile;
mod limit;
mod load;
mod machine;
mod pattern;
mod plot;
mod process;
mod profile;
#[path = "../../tests/lab/receivers.rs"]
mod receivers;
#[path = "../../tests/lab/relay.rs"]
mod relay;
mod report;
mod results;
mod rows;
mod run;
mod sys;
mod tools;

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["serve-bare", address, port, directory] => {
            serve(limit::serve_bare, address, port, directory)
        }
        ["serve-floor", address, port, directory] => {
            serve(limit::serve_floor, address, port, directory)
        }
        ["fetch", address, blksize, windowsize, size, times] => {
            run::fetch(address, [blksize, windowsize, size, times])
        }
        ["receive", server, blksize, window, file, out] => {
            tools::receive([server, blksize, window, file, out])
        }
        ["plot", json, svg] => results::Results::read(Path::new(json))
            .and_then(|results| std::fs::write(svg, plot::svg(&results))),
        ["profile", ..] => profile::compare(&Settings::from_environment()),
        ["hostile", ..] => hostile::compare(&Settings::from_environment()),
        _ if words.contains(&"--bench") => run::compare(&Settings::from_environment()),
        _ => run::self_check(&Settings::from_environment()).map(|()| {
            profile::check();
            println!("self-check: the load generator tells right from wrong");
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

type Limit = fn(SocketAddrV4, &Path) -> std::io::Result<()>;

fn serve(limit: Limit, address: &str, port: &str, directory: &str) -> std::io::Result<()> {
    let wrong = |error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
    let listen = format!("{address}:{port}").parse().map_err(wrong)?;
    limit(listen, Path::new(directory))
}

/// What the environment asks for.
struct Settings {
    runs: usize,
    quick: bool,
    spread: bool,
    rows: Vec<String>,
    only: Vec<String>,
    peers: Option<PathBuf>,
    /// The JSON of an older run.
    base: Option<PathBuf>,
    /// Another build of this crate's command, to be measured in the same run.
    base_program: Option<PathBuf>,
    /// `target`, where the files and the results go.
    target: PathBuf,
}

impl Settings {
    fn wants_row(&self, name: &str) -> bool {
        is_wanted(&self.rows, name)
    }

    fn wants_server(&self, name: &str) -> bool {
        is_wanted(&self.only, name)
    }

    fn from_environment() -> Self {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        // Cargo runs a benchmark in the directory of the package, where `make` was called too.
        let path = |name| text(name).map(|path| std::path::absolute(&path).unwrap_or(path.into()));
        let list = |name| -> Vec<String> {
            let text = text(name).unwrap_or_default();
            let words = text.split(',').map(|word| word.trim().to_lowercase());
            words.filter(|word| !word.is_empty()).collect()
        };
        let quick = text("QUICK").is_some();
        // CARGO_TARGET_TMPDIR is `target/tmp`.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap_or(Path::new("target"));
        let (base, base_program) = match path("BASE") {
            Some(base) if base.extension().is_some_and(|end| end == "json") => (Some(base), None),
            program => (None, program),
        };
        Self {
            runs: text("RUNS")
                .and_then(|runs| runs.parse().ok())
                .unwrap_or(if quick { 1 } else { 3 }),
            quick,
            spread: text("SPREAD").is_some(),
            rows: list("ROWS"),
            only: list("ONLY"),
            peers: path("PEERS"),
            base,
            base_program,
            target: target.to_owned(),
        }
    }
}

/// Whether one of the words, all of them in lower case, is in the name. No words want everything.
/// A hyphen matches a space. A number in a word matches a whole number only: "crowd-20" does not
/// select "crowd 200".
fn is_wanted(words: &[String], name: &str) -> bool {
    let spaced = |text: &str| text.to_lowercase().replace('-', " ");
    let name = spaced(name);
    let is_in_name = |word: &String| {
        let word = spaced(word);
        let cuts_number = |at: usize| {
            let digit = |index: usize| name.as_bytes().get(index).is_some_and(u8::is_ascii_digit);
            at > 0 && digit(at - 1) && digit(at)
        };
        let mut found = name.match_indices(&word);
        found.any(|(start, _)| !cuts_number(start) && !cuts_number(start + word.len()))
    };
    words.is_empty() || words.iter().any(is_in_name)
}

/// Which rows a word selects.
fn check_filter() {
    for (word, name, selects) in [
        ("crowd-20", "crowd 20 blksize 512", true),
        ("crowd-20", "crowd 200 blksize 512", false),
        ("20 blksize", "crowd 20 blksize 512", true),
        ("0 blksize", "crowd 20 blksize 512", false),
        ("crowd", "crowd 200 blksize 512", true),
        ("tftpd-hpa", "tftpd-hpa", true),
        ("storm", "crowd 20 blksize 512", false),
    ] {
        assert_eq!(
            is_wanted(&[word.to_owned()], name),
            selects,
            "{word} {name}"
        );
    }
    assert!(is_wanted(&[], "anything"), "no words select everything");
}
