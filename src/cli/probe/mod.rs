//! `tftpool probe`: asks one server for one file in many ways, and says in words what it can do.
//!
//! Every question is one request with a socket of its own, answered by its first window at most and
//! then ended with an ERROR; there are at most 16 of them, and one more for each further address of
//! the host, none overlaps another, and all of them together have a time limit. This looks at
//! single packets, which `Client` hides on purpose.
//!
//! What works is then timed: up to 9 pairs of block size and window, each by a download of the
//! `Client` that is broken off after half a second. The probe recommends the fastest of these
//! pairs, not the largest that works.

mod ask;
mod report;
mod verdict;

use self::ask::{Answer, Row, wildcard};
use self::report::Report;
use super::Exit;
use super::json;
use super::place::{Family, Place};
use super::settings::Families;
use super::value;
use crate::limits;
use crate::limits::settings::Setting;
use crate::transfer::now;
use crate::transfer::{Link, SocketOptions};
use crate::wire::{OptionName, Options};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses of one host that are asked.
const MOST_ADDRESSES: usize = 8;
/// Block sizes that are tried: 1428 fits through IPv6, VLAN and PPPoE on Ethernet, 1468 through
/// plain Ethernet, 8192 through jumbo frames; what is larger travels in fragments.
const BLOCK_SIZES: [u16; 6] = [1024, 1428, 1468, 8192, 32768, limits::MAX_BLKSIZE];
/// Windows that are tried, in blocks.
const WINDOWS: [u16; 4] = [4, 16, 64, 256];

/// What the probe may take in all.
pub(super) const MAX_TIME: Setting = Setting::time(
    "max_time",
    Duration::from_secs(1),
    Duration::from_secs(60 * 60),
);
/// A shorter file is over before its rate says anything.
const LEAST_SAMPLE: u64 = 256 << 10;

/// Find out what a server can do, and the fastest settings for it
///
/// Asks for one file without options at up to 8 addresses of the host, and at the first that serves
/// it in up to 15 more ways: with each option, and with growing blocks and windows. Then up to 9
/// pairs of both are timed, each for half a second. Nothing is stored. A file of a few MiB shows
/// most.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// File to ask for: tftp://HOST[:PORT]/PATH or HOST:PATH
    #[arg(value_name = "SOURCE", num_args = 1.., required = true)]
    place: Vec<String>,

    /// Stop asking after this time, {range}
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = value::time(MAX_TIME))]
    max_time: Duration,

    #[command(flatten)]
    families: Families,

    /// Print one JSON object per line [default: a table]
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    verbosity: super::Verbosity,
}

/// Runs the subcommand.
pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments.verbosity.start();
    let source = match &arguments.place[..] {
        [source] => source,
        [host, path] => {
            let words = format!("expected one SOURCE: write tftp://{host}/{path}");
            return Exit::usage(&words);
        }
        _ => return Exit::usage("expected one SOURCE: a probe asks for one file"),
    };
    let place: Place = match source.parse() {
        Ok(place) => place,
        Err(words) => return Exit::usage(&format!("{source}: {words}")),
    };
    if place.path.is_empty() {
        return Exit::usage("PATH is empty: a probe needs a file that the server has");
    }
    match probe(&place, arguments.families.family(), arguments.max_time) {
        Ok(report) => {
            let printed = super::print(&if arguments.json {
                report.json()
            } else {
                report.table(&place)
            });
            report.exit().or(printed)
        }
        Err(words) => {
            if arguments.json {
                let mut line = json::Object::new();
                line.boolean("works", false).text("error", &words);
                return Exit::FAILURE.or(super::print(&line.line()));
            }
            super::say(&words);
            Exit::FAILURE
        }
    }
}

fn probe(place: &Place, family: Family, most: Duration) -> Result<Report, String> {
    let until = now() + most;
    let addresses = place.addresses(family)?;
    let mut rows = Vec::new();
    for &server in addresses.iter().take(MOST_ADDRESSES) {
        let row = Row::new(format!("{server}, no options"), Options::default(), server);
        rows.push(row.ask(&place.path, until));
    }
    let works = |row: &&Row| matches!(row.answer, Answer::Data(_));
    let Some(server) = rows.iter().find(works).map(|row| row.server) else {
        return Ok(Report { rows, room: None });
    };
    let option = |name: OptionName, value: u64| Options::default().with(name, value);
    let single = [
        option(OptionName::Tsize, 0),
        option(OptionName::Timeout, 3),
        option(OptionName::Utimeout, 500_000),
        option(OptionName::Rollover, 0),
        option(OptionName::Blksize2, 1024),
    ];
    let sizes = BLOCK_SIZES.map(|size| option(OptionName::Blksize, size.into()));
    let windows = WINDOWS.map(|window| option(OptionName::Windowsize, window.into()));
    for options in single.into_iter().chain(sizes).chain(windows) {
        let row = Row::new(options.to_string(), options, server);
        rows.push(row.ask(&place.path, until));
    }
    let local = SocketAddr::new(wildcard(server), 0);
    let room = Link::open(local, server, &SocketOptions::default())
        .and_then(|socket| socket.room())
        .ok();
    let mut report = Report {
        rows,
        room: room.map(|octets| octets.saturating_sub(limits::DATA_HEADER)),
    };
    let (sizes, windows) = (report.sizes(), report.windows());
    if (&sizes[..], &windows[..]) == (&[limits::DEFAULT_BLKSIZE], &[1]) {
        return Ok(report); // there is nothing to choose
    }
    for size in sizes {
        for &window in &windows {
            let mut options = Options::default().with(OptionName::Blksize, size.into());
            if window > 1 {
                options = options.with(OptionName::Windowsize, window.into());
            }
            let row = Row::new(format!("timed: {options}"), options, server);
            let row = row.time(&place.path, size, window, until);
            let is_lowered = (row.timing()).is_some_and(|timing| timing.windowsize < window);
            report.rows.push(row);
            if is_lowered {
                break; // a larger one would come out the same
            }
        }
    }
    Ok(report)
}
