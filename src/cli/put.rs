//! `tftpool put`: files to a server.

use super::Exit;
use super::place::Place;
use super::settings::{Done, Outcome, Settings, Trouble};
use super::value::{self, Parser};
use crate::error::plain;
use crate::store::Source;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Put files onto a server
///
/// DEST is tftp://HOST[:PORT]/PATH or HOST:PATH. Ending in a slash, or empty behind the host, it is a directory and the
/// files keep their names. FILE may be `-` for stdin. The server decides whether it takes files at all.
///
/// Exit codes: 0, 1 other trouble, 2 usage, 7 port closed, 28 no answer in time, 68 to 74 as curl's: 68 not found, 69 access, 70 disk full,
/// 71 illegal operation, 72 unknown TID, 73 file exists, 74 no such user. The first failure of several decides.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Files, and where they go
    #[arg(value_name = "FILE… DEST", num_args = 2.., required = true)]
    places: Vec<String>,

    #[command(flatten)]
    settings: Settings,

    /// Wait this long for the ACK of the last block, 1s to 365d: a device may write its flash first
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = value::long_time as Parser<_>, help_heading = "Protocol")]
    final_timeout: Duration,
}

/// Runs the subcommand.
pub(super) fn main(arguments: &Arguments) -> Exit {
    let Some((destination, files)) = arguments.places.split_last() else {
        return Exit::usage("expected FILE… DEST");
    };
    let destination: Place = match destination.parse() {
        Ok(place) => place,
        Err(words) => return Exit::usage(&format!("{destination}: {words}")),
    };
    if files.len() > 1 && !destination.is_directory() {
        return Exit::usage("several files need a directory to go to: end DEST with a slash");
    }
    let mut all = Vec::new();
    for file in files {
        let name = Path::new(file).file_name().and_then(|name| name.to_str());
        match name.filter(|_| file != "-") {
            Some(name) => all.push((file, destination.with_name(name))),
            None if !destination.is_directory() => all.push((file, destination.clone())),
            None => return Exit::usage(&format!("{file} has no name: say one in DEST")),
        }
    }
    let mut exit = Exit::SUCCESS;
    for (file, place) in &all {
        let outcome = Outcome {
            verb: "put",
            place,
            file,
            result: put(arguments, file, place),
        };
        exit = exit.or(arguments.settings.report(&outcome, false));
    }
    exit
}

fn put(arguments: &Arguments, file: &str, place: &Place) -> Result<Done, Trouble> {
    let source = open(file).map_err(|cause| Trouble {
        words: format!("cannot read {file}: {}", plain(&cause)),
        exit: Exit::FAILURE,
    })?;
    let (client, bar) = arguments.settings.client(place, file)?;
    let client = client.final_timeout(arguments.final_timeout);
    let result = client.put(&place.path, source);
    drop(bar);
    Ok(Done {
        summary: result?,
        digest: None,
    })
}

fn open(file: &str) -> io::Result<Source> {
    if file == "-" {
        return Ok(Source::reader(io::stdin(), None));
    }
    let opened = File::open(file)?;
    let status = opened.metadata()?;
    if status.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(match status.is_file() {
        true => Source::file(opened),
        false => Source::reader(opened, None),
    })
}
