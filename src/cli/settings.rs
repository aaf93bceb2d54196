//! What `get` and `put` have in common: the options that describe a client, and what is said about
//! a file at its end.

use super::bar::Bar;
use super::format::{binary, decimal, millis, rate, shown};
use super::place::{Family, Place};
use super::value::{self, Parser};
use super::{Exit, json};
use crate::client::Client;
use crate::error::Failure;
use crate::event::Summary;
use crate::limits;
use crate::text::Name;
use crate::wire::{ErrorCode, Mode};
use std::io::IsTerminal;
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
    /// Refused: TFTP cannot continue a file
    #[arg(
        short = 'c',
        short_alias = 'C',
        long = "continue",
        aliases = ["resume", "continue-at"],
        hide = true
    )]
    resume: bool,

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

    /// Ask for no options: blocks of 512 octets, one at a time [default: options, where the server
    /// knows them]
    #[arg(long)]
    no_options: bool,

    /// Neither ask for the file's size nor tell it; for servers that get it wrong [default: sizes
    /// are compared]
    #[arg(long)]
    no_tsize: bool,

    /// Wait this long for an answer before sending again, 10ms to 255s; whole seconds that are
    /// given here are asked of the server too [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = value::time as Parser<_>)]
    timeout: Option<Duration>,

    /// Retransmissions into silence, 0 to 100; with 5 of them, a server that never answers is given
    /// up after 14s
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
    /// Print one JSON object per file to stdout, or to stderr where the file itself goes to stdout
    /// [default: lines for people, on stderr]
    #[arg(long)]
    json: bool,

    /// Print errors only [default: one line per file, and a bar on a terminal]
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    #[command(flatten)]
    verbosity: super::Verbosity,
}

impl Settings {
    /// Refuses to continue a file that was transferred in part.
    pub(super) fn check(&self) -> Result<(), Exit> {
        if self.resume {
            return Err(Exit::usage(
                "TFTP cannot continue a transfer: a file is always sent whole, from its first byte (leave --continue out)",
            ));
        }
        Ok(())
    }

    /// Sends the log to stderr, if it is wanted.
    pub(super) fn start_log(&self) {
        self.output.verbosity.start();
    }

    /// A client of the server at `place`.
    pub(super) fn client(&self, place: &Place) -> Result<Client, Trouble> {
        let servers = place.addresses(self.families.family());
        let servers = servers.map_err(Trouble::local)?;
        log::debug!("{place} resolves to {servers:?}");
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
        Ok(client)
    }

    /// The bar of one file. Log lines, and a file that goes to the terminal itself, leave no place
    /// for it.
    pub(super) fn bar(&self, label: &str, takes_stdout: bool) -> Bar {
        let output = &self.output;
        let is_alone = !(takes_stdout && std::io::stdout().is_terminal());
        let is_wanted = !output.json && !output.quiet && !output.verbosity.is_wanted();
        Bar::new(label, is_wanted && is_alone)
    }

    /// Prints the line of `sha256sum`, where JSON does not hold the digest already.
    pub(super) fn print_digest(&self, done: &Done, file: &str, takes_stdout: bool) -> Exit {
        match &done.digest {
            Some(digest) if !self.output.json => {
                let line = format!("{digest}  {}\n", shown(file));
                super::print_beside(&line, takes_stdout)
            }
            _ => Exit::SUCCESS,
        }
    }

    /// Says how one file went, and answers with its exit code. Where the bytes of a file go to
    /// stdout, JSON goes to stderr.
    pub(super) fn report(&self, outcome: &Outcome<'_>, takes_stdout: bool) -> Exit {
        let exit = match &outcome.result {
            Ok(_) => Exit::SUCCESS,
            Err(trouble) => trouble.exit,
        };
        if self.output.json {
            return exit.or(super::print_beside(&outcome.json(exit), takes_stdout));
        }
        match &outcome.result {
            Ok(_) if self.output.quiet => {}
            Ok(done) => super::say(&outcome.line(done)),
            // The reader has seen enough and wants no word about it.
            Err(_) if exit == Exit::BROKEN_PIPE => {}
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

impl Trouble {
    /// Trouble of this machine.
    pub(super) fn local(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            exit: Exit::FAILURE,
        }
    }

    /// The reader of a pipe has left.
    pub(super) fn broken_pipe() -> Self {
        Self {
            words: "broken pipe".into(),
            exit: Exit::BROKEN_PIPE,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let exit = match &failure {
            Failure::Aborted { code, .. } => Exit::of(*code),
            Failure::Silent
            | Failure::SilentAtRollover
            | Failure::Unconfirmed
            | Failure::Unanswered
            | Failure::TooSlow
            | Failure::TooLong => Exit::TIMED_OUT,
            Failure::Unreachable => Exit::PORT_CLOSED,
            _ => Exit::FAILURE,
        };
        let words = match &failure {
            Failure::Aborted { code, text } => said(*code, text),
            Failure::Silent => "the server fell silent".into(),
            Failure::Unconfirmed => {
                "the server never acknowledged the last block (the file may be stored there)".into()
            }
            Failure::Unanswered => "the server never answered".into(),
            Failure::Unreachable => "the server's port is closed (no TFTP server there)".into(),
            Failure::NoWayBack => "no route to the server".into(),
            Failure::TooSlow => "the server was too slow".into(),
            Failure::AnsweredElsewhere(_) => format!("{failure} (try tftpool probe)"),
            Failure::SizeDiffers { .. } => {
                format!("{failure} (if the server counts wrongly, try --no-tsize)")
            }
            Failure::TooLarge { .. } => format!("{failure} (see --max-size)"),
            _ => failure.to_string(),
        };
        Self { words, exit }
    }
}

/// What the server said in an ERROR, without quotes and without what a terminal would obey.
fn said(code: ErrorCode, text: &Name) -> String {
    let quoted = text.to_string();
    let text = quoted.strip_prefix('"').unwrap_or(&quoted);
    let text = match text.strip_suffix("\"...") {
        Some(start) => format!("{start}..."),
        None => text.strip_suffix('"').unwrap_or(text).to_owned(),
    };
    match text.is_empty() {
        true => format!("server sent error {} without a text", code.0),
        false => format!("server said: {text} (error {})", code.0),
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
    /// `from` or `to`.
    pub(super) preposition: &'static str,
    pub(super) place: &'a Place,
    /// What it is called here.
    pub(super) file: &'a str,
    pub(super) result: Result<Done, Trouble>,
}

impl Outcome<'_> {
    fn line(&self, done: &Done) -> String {
        let summary = &done.summary;
        let mut line = format!(
            "{} {} {} {}: {} bytes in {} s",
            self.verb,
            shown(self.file),
            self.preposition,
            self.place,
            summary.bytes,
            decimal(summary.duration.as_millis(), 3),
        );
        if let Some(rate) = rate(summary.bytes, summary.duration) {
            line.push_str(&format!(", {}/s", binary(rate)));
        }
        line.push_str(&format!(
            ", blksize {}, window {}",
            summary.blksize, summary.windowsize
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_the_clients_side() {
        let aborted = |code, text: &[u8]| Failure::Aborted {
            code: ErrorCode(code),
            text: Name::new(text),
        };
        for (failure, words, code) in [
            (
                aborted(1, b"file not found"),
                "server said: file not found (error 1)",
                68,
            ),
            (
                aborted(0, b"\x1b[2J\"x\""),
                r#"server said: \x1b[2J\"x\" (error 0)"#,
                1,
            ),
            (aborted(2, b""), "server sent error 2 without a text", 69),
            (
                Failure::Unreachable,
                "the server's port is closed (no TFTP server there)",
                7,
            ),
            (
                Failure::Unconfirmed,
                "the server never acknowledged the last block (the file may be stored there)",
                28,
            ),
            (Failure::Unanswered, "the server never answered", 28),
        ] {
            let trouble = Trouble::from(failure);
            assert_eq!((&*trouble.words, trouble.exit.code()), (words, code));
        }
        let long = said(ErrorCode(0), &Name::new(&[b'x'; 300]));
        assert_eq!(
            long,
            format!("server said: {}... (error 0)", "x".repeat(200))
        );
    }
}
