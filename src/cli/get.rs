//! `tftpool get`: files from a server.
//!
//! A new file appears under its name when it is whole and its digest is the one that was asked for;
//! until then an existing file of that name stays. [`Output`] says what is written to instead where
//! that cannot be.

use super::Exit;
use super::output::{Output, Written};
use super::place::Place;
use super::settings::{Done, Outcome, Settings, Trouble};
use super::value::{self, Parser};
use crate::client::Client;
use crate::error::{Failure, Refusal, plain};
use crate::event::Summary;
use crate::store::Sink;
use crate::wire::ErrorCode;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Get files from a server
///
/// SOURCE is tftp://HOST[:PORT]/PATH[;mode=netascii] or HOST:PATH. A file is written under a
/// temporary name and renamed when it is whole; an existing file is replaced then, not earlier.
/// Devices, FIFOs, mount points and files in a directory that takes no new file are written in
/// place; -v says so.
///
/// Exit codes: 0 success, 1 other failure, 2 wrong usage, 7 closed port, 28 no answer in time, 141
/// broken pipe, 68 to 74 as curl's: 68 not found, 69 access, 70 disk full, 71 illegal operation, 72
/// unknown TID, 73 file exists, 74 no such user. The first failure of several decides.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Files to get: tftp://HOST[:PORT]/PATH or HOST:PATH
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// File to write, a directory, or `-` for stdout [default: the last component of PATH, here]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<String>,

    /// Keep existing files: add a number to the name of the new one [default: replace existing
    /// files]
    #[arg(long, help_heading = "Output")]
    no_clobber: bool,

    /// Print the SHA-256 digest as sha256sum does; with HEX, keep the file only if that is its
    /// digest
    #[arg(
        long,
        value_name = "HEX",
        num_args = 0..=1,
        require_equals = true,
        value_parser = value::digest as Parser<_>,
        help_heading = "Output"
    )]
    sha256: Option<Option<[u8; 32]>>,

    /// Largest file to take, such as 512M or 4G; a server that announces a size is held to that too
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "16G",
        value_parser = value::size as Parser<_>,
        help_heading = "Protocol"
    )]
    max_size: u64,

    #[command(flatten)]
    settings: Settings,
}

/// Runs the subcommand.
pub(super) fn main(arguments: &Arguments) -> Exit {
    if let Err(refused) = arguments.settings.check() {
        return refused;
    }
    arguments.settings.start_log();
    let mut all = Vec::new();
    for source in &arguments.sources {
        let target = source.parse().and_then(|place: Place| {
            let target = arguments.target(&place)?;
            Ok((place, target))
        });
        match target {
            Ok(pair) => all.push(pair),
            Err(words) => return Exit::usage(&format!("{source}: {words}")),
        }
    }
    if let (Some(Some(_)), true) = (arguments.sha256, all.len() > 1) {
        return Exit::usage("--sha256 HEX checks one file");
    }
    let mut exit = Exit::SUCCESS;
    for (place, target) in &all {
        let got = arguments.get(place, target);
        let outcome = Outcome {
            verb: "got",
            preposition: "from",
            place,
            file: &got.file,
            result: got.result,
        };
        let settings = &arguments.settings;
        exit = exit.or(settings.report(&outcome, got.takes_stdout));
        if let (Ok(done), Some(None)) = (&outcome.result, arguments.sha256) {
            exit = exit.or(settings.print_digest(done, outcome.file, got.takes_stdout));
        }
        if got.takes_stdout && exit == Exit::BROKEN_PIPE {
            break;
        }
    }
    exit
}

/// What became of one file.
struct Got {
    result: Result<Done, Trouble>,
    /// What it is called here.
    file: String,
    /// Its bytes went to stdout.
    takes_stdout: bool,
}

/// Where a file goes.
enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    fn name(&self) -> &str {
        match self {
            Self::Stdout => "-",
            Self::File(path) => path.to_str().unwrap_or("?"),
        }
    }
}

impl Arguments {
    fn target(&self, place: &Place) -> Result<Target, String> {
        let missing = "there is no file name in PATH; say one with -o FILE";
        let named = |directory: &Path| {
            let name = place.file_name().ok_or(missing)?;
            Ok(Target::File(directory.join(name)))
        };
        if place.path.is_empty() {
            return Err("PATH is empty".into());
        }
        match self.output.as_deref() {
            Some("-") => Ok(Target::Stdout),
            Some("") => Err("-o wants a name".into()),
            None => named(Path::new("")),
            Some(output) if output.ends_with('/') || Path::new(output).is_dir() => {
                named(Path::new(output))
            }
            Some(_) if self.sources.len() > 1 => {
                Err("several files need a directory that exists, or `-`, after -o".into())
            }
            Some(output) => Ok(Target::File(output.into())),
        }
    }

    /// Gets one file.
    fn get(&self, place: &Place, target: &Target) -> Got {
        let mut got = Got {
            result: Err(Trouble::local("")),
            file: target.name().to_owned(),
            takes_stdout: matches!(target, Target::Stdout),
        };
        got.result = self.get_into(place, target, &mut got.file, &mut got.takes_stdout);
        got
    }

    /// Gets one file; corrects its name and whether it takes stdout once that is known.
    fn get_into(
        &self,
        place: &Place,
        target: &Target,
        file: &mut String,
        takes_stdout: &mut bool,
    ) -> Result<Done, Trouble> {
        // The host first: the open of a FIFO wakes its reader.
        let client = self.settings.client(place)?.max_size(self.max_size);
        let unwritable = |file: &str, cause: &io::Error| {
            Trouble::local(format!("cannot write {file}: {}", plain(cause)))
        };
        let output = match target {
            Target::Stdout => Output::Stdout,
            Target::File(path) => {
                Output::open(path, self.no_clobber).map_err(|cause| unwritable(file, &cause))?
            }
        };
        *takes_stdout = matches!(output, Output::Stdout);
        let bar = self.settings.bar(file, *takes_stdout);
        let (written, digest) = (Written::default(), OnceLock::new());
        let result = self.fetch(&bar.follow(client), place, output.sink(&written), &digest);
        drop(bar);
        if let Some(name) = written.name() {
            *file = name.display().to_string();
        }
        let digest = digest.into_inner();
        let failure = match result {
            Ok(summary) => return Ok(Done { summary, digest }),
            Err(failure) => failure,
        };
        let mut trouble = match (written.error.get(), digest) {
            (Some(cause), _) if cause.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Trouble::broken_pipe());
            }
            (Some(cause), _) => unwritable(file, cause),
            (None, Some(digest)) if self.is_unwanted(&digest) => Trouble::local(format!(
                "the SHA-256 digest is {digest}, not the one expected"
            )),
            _ => Trouble::from(failure),
        };
        if written.truncated.get().is_some() {
            let what = format!("; {file} was written in place and is not whole");
            trouble.words.push_str(&what);
        }
        Err(trouble)
    }

    fn is_unwanted(&self, digest: &str) -> bool {
        let wanted = self.sha256.flatten();
        wanted.is_some_and(|wanted| hexadecimal(&wanted) != digest)
    }

    /// Gets one file into a sink, through the digest where there is to be one.
    fn fetch(
        &self,
        client: &Client,
        place: &Place,
        sink: Box<dyn Sink + '_>,
        digest: &OnceLock<String>,
    ) -> Result<Summary, Failure> {
        let sink = match self.sha256 {
            None => sink,
            Some(wanted) => Box::new(Digesting {
                sink,
                hasher: Sha256::new(),
                wanted,
                digest,
            }),
        };
        client.get_into(&place.path, sink)
    }
}

/// A sink whose bytes go through the digest first.
struct Digesting<'a> {
    sink: Box<dyn Sink + 'a>,
    hasher: Sha256,
    wanted: Option<[u8; 32]>,
    digest: &'a OnceLock<String>,
}

impl Sink for Digesting<'_> {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.hasher.update(octets);
        self.sink.append(octets)
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        let digest: [u8; 32] = self.hasher.finalize().into();
        let _ = self.digest.set(hexadecimal(&digest));
        if self.wanted.is_some_and(|wanted| wanted != digest) {
            let text = "not the content that was expected";
            return Err(Refusal::new(ErrorCode::NOT_DEFINED, text));
        }
        self.sink.commit()
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}
