//! `tftpool put`: files to a server.

use super::Exit;
use super::place::{PLACES, Place};
use super::settings::{Done, Outcome, Settings, Trouble};
use super::value::{self, Parser};
use crate::error::plain;
use crate::store::Source;
use crate::sys::by_path;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// Put files onto a server
///
/// DEST is tftp://HOST[:PORT]/PATH or HOST:PATH. Ending in a slash, or empty behind the host, it is
/// a directory and the files keep their names. FILE may be `-` for stdin. The server decides
/// whether it takes files at all.
///
/// Exit codes: 0 success, 1 other failure, 2 wrong usage, 7 closed port, 28 no answer in time, 68
/// to 74 as curl's: 68 not found, 69 access, 70 disk full, 71 illegal operation, 72 unknown TID, 73
/// file exists, 74 no such user. The first failure of several decides.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Files to put, then where: tftp://HOST[:PORT]/PATH or HOST:PATH
    #[arg(value_name = "FILE… DEST", num_args = 1.., required = true)]
    places: Vec<String>,

    #[command(flatten)]
    settings: Settings,

    /// Wait this long for the ACK of the last block, 1s to 365d: a device may write its flash first
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = value::long_time as Parser<_>, help_heading = "Protocol")]
    final_timeout: Duration,
}

/// Runs the subcommand.
pub(super) fn main(arguments: &Arguments) -> Exit {
    if let Err(refused) = arguments.settings.check() {
        return refused;
    }
    let Some((last, files)) = arguments.places.split_last() else {
        return Exit::usage("expected FILE… DEST");
    };
    let destination: Place = match last.parse() {
        Ok(_) if files.is_empty() => {
            return Exit::usage(&format!("{last}: the FILE to put there is missing"));
        }
        Ok(place) => place,
        Err(_) if files.is_empty() || Path::new(last).exists() => {
            let words = format!("{last}: the destination is missing (add {PLACES})");
            return Exit::usage(&words);
        }
        Err(words) => return Exit::usage(&format!("{last}: {words}")),
    };
    if files.len() > 1 && !destination.is_directory() {
        return Exit::usage("several files need a directory to go to: end DEST with a slash");
    }
    arguments.settings.start_log();
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
            preposition: "to",
            place,
            file,
            result: put(arguments, file, place),
        };
        exit = exit.or(arguments.settings.report(&outcome, false));
    }
    exit
}

fn put(arguments: &Arguments, file: &str, place: &Place) -> Result<Done, Trouble> {
    let settings = &arguments.settings;
    // The host first: the open of a FIFO wakes its writer, whose bytes would be lost.
    let client = settings.client(place)?;
    let client = client.final_timeout(arguments.final_timeout);
    let source = open(file)
        .map_err(|cause| Trouble::local(format!("cannot read {file}: {}", plain(&cause))))?;
    let bar = settings.bar(file, false);
    let result = bar.follow(client).put(&place.path, source);
    drop(bar);
    Ok(Done {
        summary: result?,
        digest: None,
    })
}

/// Opens what is sent. A FIFO is waited for, and a device is read to its end, as curl does.
fn open(file: &str) -> io::Result<Source> {
    if file == "-" {
        return Ok(Source::reader(io::stdin(), None));
    }
    let mut file = by_path::open_source(Path::new(file))?;
    let status = file.metadata()?;
    if status.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if status.is_file() && status.len() > 0 {
        return Ok(Source::file(file));
    }
    if !status.is_file() {
        return Ok(Source::reader(file, None));
    }
    // Files of procfs report a size of 0 whatever they hold.
    let mut first = [0];
    Ok(match file.read(&mut first)? {
        0 => Source::bytes([]),
        _ => Source::reader(io::Cursor::new(first).chain(file), None),
    })
}
