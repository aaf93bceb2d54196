//! `tftpool get`: files from a server.
//!
//! A file appears under its name when it is whole, and its digest is the one that was asked for; until then a file of that name
//! stays as it is. What is no regular file (a FIFO, `/dev/null`, stdout) gets the octets as they come.

use super::Exit;
use super::place::Place;
use super::settings::{Done, Outcome, Settings, Trouble};
use super::value::{self, Parser};
use crate::client::{Client, Writer, unwritten};
use crate::error::{Refusal, plain};
use crate::event::Summary;
use crate::store::landing::{Landing, Rules};
use crate::store::{Sink, WriteMode};
use crate::sys::fs;
use crate::wire::ErrorCode;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Get files from a server
///
/// SOURCE is tftp://HOST[:PORT]/PATH[;mode=netascii] or HOST:PATH. A file is written under a temporary name and renamed when it
/// is whole; an existing file is replaced then, not earlier.
///
/// Exit codes: 0, 1 other trouble, 2 usage, 7 port closed, 28 no answer in time, 68 to 74 as curl's: 68 not found, 69 access, 70 disk full,
/// 71 illegal operation, 72 unknown TID, 73 file exists, 74 no such user. The first failure of several decides.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What to get
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,

    /// File to write, a directory, or `-` for stdout [default: the last component of PATH, here]
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<String>,

    /// Do not replace files: a number is added to the name [default: files are replaced]
    #[arg(long, help_heading = "Output")]
    no_clobber: bool,

    /// Print the SHA-256 digest as sha256sum does; with HEX, keep the file only if that is its digest
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
        let result = arguments.get(place, target);
        let (file, result) = match result {
            Ok((done, file)) => (file, Ok(done)),
            Err(trouble) => (target.name().to_owned(), Err(trouble)),
        };
        let outcome = Outcome {
            verb: "got",
            place,
            file: &file,
            result,
        };
        let is_stdout_taken = matches!(target, Target::Stdout);
        exit = exit.or(arguments.settings.report(&outcome, is_stdout_taken));
        if let Ok(done) = &outcome.result
            && arguments.sha256 == Some(None)
        {
            arguments
                .settings
                .print_digest(done, outcome.file, is_stdout_taken);
        }
    }
    exit
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

    /// Gets one file: how it went, and what it is called here.
    fn get(&self, place: &Place, target: &Target) -> Result<(Done, String), Trouble> {
        let (client, bar) = self.settings.client(place, target.name())?;
        let client = client.max_size(self.max_size);
        let digest = OnceLock::new();
        let result = match target {
            Target::Stdout => {
                let mut stdout = io::stdout();
                self.fetch(&client, place, Box::new(Writer::new(&mut stdout)), &digest)
                    .map(|summary| (summary, target.name().to_owned()))
            }
            Target::File(path) => self.land(&client, place, path, &digest),
        };
        drop(bar);
        let digest = digest.into_inner();
        match result {
            Ok((summary, file)) => Ok((Done { summary, digest }, file)),
            Err(trouble) => Err(match digest.filter(|digest| self.is_unwanted(digest)) {
                Some(digest) => Trouble {
                    words: format!("the SHA-256 digest is {digest}, not the one expected"),
                    exit: Exit::FAILURE,
                },
                None => trouble,
            }),
        }
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
    ) -> Result<Summary, Trouble> {
        let sink = match self.sha256 {
            None => sink,
            Some(wanted) => Box::new(Digesting {
                sink,
                hasher: Sha256::new(),
                wanted,
                digest,
            }),
        };
        Ok(client.get_into(&place.path, sink)?)
    }

    /// Gets one file under its name here.
    fn land(
        &self,
        client: &Client,
        place: &Place,
        path: &Path,
        digest: &OnceLock<String>,
    ) -> Result<(Summary, String), Trouble> {
        let trouble = |cause: io::Error| Trouble {
            words: format!("cannot write {}: {}", path.display(), plain(&cause)),
            exit: Exit::FAILURE,
        };
        // Through links: it is the file at their end that is replaced.
        let is_link = !self.no_clobber
            && std::fs::symlink_metadata(path).is_ok_and(|status| status.is_symlink());
        let real = is_link.then(|| std::fs::canonicalize(path)).transpose();
        let real = real.map_err(trouble)?;
        let path = real.as_deref().unwrap_or(path);
        if std::fs::metadata(path).is_ok_and(|status| !status.is_file()) {
            let mut file = OpenOptions::new().write(true).open(path).map_err(trouble)?;
            let sink = Box::new(Writer::new(&mut file));
            let summary = self.fetch(client, place, sink, digest)?;
            return Ok((summary, path.display().to_string()));
        }
        // A file that only some may read stays so.
        let permissions = std::fs::metadata(path)
            .ok()
            .filter(|_| !self.no_clobber)
            .map(|status| status.permissions().mode() & 0o777);
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let directory = fs::open_root(parent.unwrap_or(Path::new("."))).map_err(trouble)?;
        let component = path.file_name().unwrap_or(path.as_os_str());
        let rules = Rules {
            mode: match self.no_clobber {
                true => WriteMode::Unique,
                false => WriteMode::Overwrite,
            },
            permissions,
            durable: false,
        };
        let landing = Landing::begin(directory, component.into(), rules).map_err(trouble)?;
        let name = OnceLock::new();
        let fresh = Fresh {
            file: Writer::new(landing),
            name: &name,
        };
        let summary = self.fetch(client, place, Box::new(fresh), digest)?;
        let name = name
            .get()
            .map_or(path.to_owned(), |name| path.with_file_name(name));
        Ok((summary, name.display().to_string()))
    }
}

/// A file that is not whole yet, and the name that it gets.
struct Fresh<'a> {
    file: Writer<Landing>,
    name: &'a OnceLock<OsString>,
}

impl Sink for Fresh<'_> {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.file.append(octets)
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        let landing = self.file.finish()?;
        let name = landing.commit().map_err(|cause| unwritten(&cause))?;
        let _ = self.name.set(name);
        Ok(())
    }
}

/// Octets on their way through the digest.
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
