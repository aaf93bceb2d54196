//! What `get` and `put` have in common: the options that describe a client, and what is said about a file at its end.

use super::bar::Bar;
use super::place::{Family, Place};
use super::value::{self, Parser};
use super::{Exit, json};
use crate::client::Client;
use crate::error::Failure;
use crate::event::Summary;
use crate::limits;
use crate::wire::Mode;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Which addresses of a host are used.
#[derive(clap::Args)]
#[command(next_help_heading = "Network")]
pub(super) struct Families {
    /// Use IPv4 addresses only [default: every address, in the resolver's order]
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,

    /// Use IPv6 addresses only
    #[arg(short = '6', long)]
    ipv6: bool,
}

impl Families {
    pub(super) fn family(&self) -> Family {
        match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        }
    }
}

/// The options of a client.
#[derive(clap::Args)]
pub(super) struct Settings {
    #[command(flatten)]
    protocol: Protocol,

    #[command(flatten)]
    network: Network,

    #[command(flatten)]
    families: Families,

    #[command(flatten)]
    output: Output,
}

/// What is asked for, and how long it is waited for.
#[derive(clap::Args)]
#[command(next_help_heading = "Protocol")]
struct Protocol {
    /// Block size to ask for, in octets, 8 to 65464 [default: 1428, or what the route carries]
    #[arg(long, value_name = "OCTETS", value_parser = value::block_size as Parser<_>)]
    blksize: Option<u16>,

    /// Window to ask for, in blocks, 1 to 32767
    #[arg(long, value_name = "BLOCKS", default_value_t = limits::CLIENT_WINDOWSIZE, value_parser = value::window_size as Parser<_>)]
    windowsize: u16,

    /// Transfer mode, octet or netascii [default: what the URL says, or octet]
    #[arg(long, value_name = "MODE", value_parser = value::mode as Parser<_>)]
    mode: Option<Mode>,

    /// Ask for no options: blocks of 512 octets, one at a time [default: options, where the server knows them]
    #[arg(long)]
    no_options: bool,

    /// Neither ask for the file's size nor tell it; for servers that get it wrong [default: sizes are compared]
    #[arg(long)]
    no_tsize: bool,

    /// Wait this long for an answer before sending again, 10ms to 255s; whole seconds that are given here are asked of the
    /// server too [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = value::time as Parser<_>)]
    timeout: Option<Duration>,

    /// Retransmissions into silence, 0 to 100; with 5 of them, a server that never answers is given up after 14s
    #[arg(long, value_name = "COUNT", default_value_t = limits::DEFAULT_RETRIES, value_parser = value::retries as Parser<_>)]
    retries: u32,

    /// The longest that one file may take, 1s to 365d [default: any time]
    #[arg(long, value_name = "TIME", value_parser = value::long_time as Parser<_>)]
    max_time: Option<Duration>,
}

/// Which way packets go.
#[derive(clap::Args)]
#[command(next_help_heading = "Network")]
struct Network {
    /// Local port, or ports such as 2000:3000, for firewalls [default: any free port]
    #[arg(long, value_name = "PORT", value_parser = value::ports as Parser<_>)]
    local_port: Option<RangeInclusive<u16>>,

    /// Local address to send from [default: the route's]
    #[arg(long, value_name = "ADDR", value_parser = value::address as Parser<_>)]
    bind: Option<IpAddr>,

    /// Network interface to use [default: the route's]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
}

/// What is said.
#[derive(clap::Args)]
#[command(next_help_heading = "Output")]
struct Output {
    /// One JSON object for each file on stdout, nothing else [default: lines for people, on stderr]
    #[arg(long)]
    json: bool,

    /// Say nothing but errors [default: one line for each file, and a bar on a terminal]
    #[arg(short, long)]
    quiet: bool,
}

impl Settings {
    /// A client of the server at `place`, and the bar that follows it.
    pub(super) fn client(&self, place: &Place, label: &str) -> Result<(Client, Bar), Trouble> {
        let servers = place.addresses(self.families.family());
        let servers = servers.map_err(|words| Trouble {
            words,
            exit: Exit::FAILURE,
        })?;
        let Self {
            protocol, network, ..
        } = self;
        let mut client = Client::with_addresses(servers)
            .windowsize(protocol.windowsize)
            .retries(protocol.retries)
            .options(!protocol.no_options)
            .tsize(!protocol.no_tsize)
            .mode(protocol.mode.or(place.mode).unwrap_or(Mode::Octet));
        if let Some(interval) = protocol.timeout {
            client = client.timeout(interval);
        }
        if let Some(octets) = protocol.blksize {
            client = client.blksize(octets);
        }
        if let Some(time) = protocol.max_time {
            client = client.max_time(time);
        }
        if let Some(ports) = &network.local_port {
            client = client.local_ports(ports.clone());
        }
        if let Some(address) = network.bind {
            client = client.bind(address);
        }
        if let Some(interface) = &network.interface {
            client = client.interface(interface);
        }
        let bar = Bar::new(label, !self.output.json && !self.output.quiet);
        let client = match bar.watcher() {
            Some(watch) => client.progress(watch),
            None => client,
        };
        Ok((client, bar))
    }

    /// The line of `sha256sum`, where JSON does not hold the digest already.
    pub(super) fn print_digest(&self, done: &Done, file: &str, is_stdout_taken: bool) {
        if let (Some(digest), false) = (&done.digest, self.output.json) {
            let line = format!("{digest}  {}\n", shown(file));
            match is_stdout_taken {
                true => eprint!("{line}"),
                false => super::print(&line),
            }
        }
    }

    /// Says how one file went, and answers with the exit code that is its own. Where octets of a file go to stdout, JSON goes
    /// to stderr.
    pub(super) fn report(&self, outcome: &Outcome<'_>, is_stdout_taken: bool) -> Exit {
        let exit = match &outcome.result {
            Ok(_) => Exit::SUCCESS,
            Err(trouble) => trouble.exit,
        };
        if self.output.json {
            let line = outcome.json(exit);
            match is_stdout_taken {
                true => eprint!("{line}"),
                false => super::print(&line),
            }
            return exit;
        }
        match &outcome.result {
            Ok(_) if self.output.quiet => {}
            Ok(done) => super::say(&outcome.line(done)),
            Err(trouble) => {
                let place = outcome.place;
                super::say(&format!("{place}: {}", trouble.words));
            }
        }
        exit
    }
}

/// Why a file was not transferred, in words for people.
pub(super) struct Trouble {
    pub(super) words: String,
    pub(super) exit: Exit,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let exit = match &failure {
            Failure::Aborted { code, .. } => Exit::of(*code),
            Failure::Silent
            | Failure::SilentAtRollover
            | Failure::Unanswered
            | Failure::TooSlow
            | Failure::TooLong => Exit::TIMED_OUT,
            Failure::Unreachable => Exit::PORT_CLOSED,
            _ => Exit::FAILURE,
        };
        let hint = match &failure {
            Failure::AnsweredElsewhere(_) => " (tftpool probe says more)",
            Failure::SizeDiffers { .. } => " (a server that counts wrongly? try --no-tsize)",
            Failure::TooLarge { .. } => " (see --max-size)",
            _ => "",
        };
        Self {
            words: format!("{failure}{hint}"),
            exit,
        }
    }
}

/// A file that was transferred.
pub(super) struct Done {
    pub(super) summary: Summary,
    /// In hexadecimal, where it was asked for.
    pub(super) digest: Option<String>,
}

/// How one file went.
pub(super) struct Outcome<'a> {
    /// `got` or `put`.
    pub(super) verb: &'static str,
    pub(super) place: &'a Place,
    /// What it is called here.
    pub(super) file: &'a str,
    pub(super) result: Result<Done, Trouble>,
}

impl Outcome<'_> {
    fn line(&self, done: &Done) -> String {
        let summary = &done.summary;
        let micros = summary.duration.as_micros();
        let rate = (u128::from(summary.bytes) * 10_000_000 / micros.max(1)) >> 20;
        let mut line = format!(
            "{} {}: {} octets in {} s, {} MiB/s, blksize {}, window {}",
            self.verb,
            shown(self.file),
            summary.bytes,
            decimal(micros / 1000, 3),
            decimal(rate, 1),
            summary.blksize,
            summary.windowsize,
        );
        if let Some(rtt) = summary.rtt {
            line.push_str(&format!(", rtt {}", millis(rtt)));
        }
        if summary.retransmits > 0 {
            line.push_str(&format!(", {} resent", summary.retransmits));
        }
        line
    }

    fn json(&self, exit: Exit) -> String {
        let mut object = json::Object::new();
        object
            .text("url", &self.place.to_string())
            .text("file", self.file)
            .boolean("ok", self.result.is_ok())
            .number("exit", exit.code());
        match &self.result {
            Ok(Done { summary, digest }) => {
                object
                    .text("server", &summary.peer.to_string())
                    .number("bytes", summary.bytes)
                    .number("us", summary.duration.as_micros())
                    .number("blksize", summary.blksize)
                    .number("windowsize", summary.windowsize)
                    .number("retransmits", summary.retransmits);
                if let Some(rtt) = summary.rtt {
                    object.number("rtt_us", rtt.as_micros());
                }
                if let Some(digest) = digest {
                    object.text("sha256", digest);
                }
            }
            Err(trouble) => {
                object.text("error", &trouble.words);
            }
        }
        object.line()
    }
}

/// A name of this machine in a line for people.
pub(super) fn shown(name: &str) -> String {
    name.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

/// A whole number with this many decimal places: 1234 with 3 is `1.234`.
fn decimal(number: u128, places: u32) -> String {
    let one = 10u128.pow(places);
    let width = places as usize;
    format!("{}.{:0width$}", number / one, number % one)
}

/// `0.05 ms`.
pub(super) fn millis(time: Duration) -> String {
    format!("{} ms", decimal(time.as_micros() / 10, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_places() {
        assert_eq!(decimal(1234, 3), "1.234");
        assert_eq!(decimal(5, 3), "0.005");
        assert_eq!(millis(Duration::from_micros(4550)), "4.55 ms");
    }
}
