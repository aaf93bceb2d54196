//! The command line: what was typed becomes a builder, what happened becomes words and an exit
//! code.

mod bar;
mod format;
mod get;
mod json;
mod log;
mod output;
mod place;
mod probe;
mod put;
mod serve;
mod settings;
mod value;

use crate::error::plain;
use crate::wire::ErrorCode;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// A TFTP server that boots every board, and a client
#[derive(Parser)]
#[command(
    name = "tftpool",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Get(get::Arguments),
    Put(put::Arguments),
    Probe(probe::Arguments),
}

/// Reads the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    match Arguments::parse_from(joined(std::env::args_os())).command {
        Command::Serve(arguments) => serve::main(arguments),
        Command::Get(arguments) => get::main(&arguments).into(),
        Command::Put(arguments) => put::main(&arguments).into(),
        Command::Probe(arguments) => probe::main(&arguments).into(),
    }
}

/// How a process ends, as a number for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exit(u8);

impl Exit {
    const SUCCESS: Self = Self(0);
    /// The work failed.
    const FAILURE: Self = Self(1);
    /// The server's port is closed. As curl's for a connection that fails.
    const PORT_CLOSED: Self = Self(7);
    /// Nothing came in time. As curl's.
    const TIMED_OUT: Self = Self(28);
    /// The reader of the output has left. As a shell reports the end by SIGPIPE.
    const BROKEN_PIPE: Self = Self(141);

    /// The command line is wrong: says so.
    fn usage(words: &str) -> Self {
        say(words);
        Self(2)
    }

    /// For an ERROR of the other end: curl's numbers for the codes 1 to 7.
    fn of(code: ErrorCode) -> Self {
        match code.0 {
            1..=7 => Self(67 + code.0 as u8),
            _ => Self::FAILURE,
        }
    }

    /// The first failure of several stays.
    fn or(self, other: Self) -> Self {
        if self == Self::SUCCESS { other } else { self }
    }

    fn code(self) -> u8 {
        self.0
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Says something to people.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "tftpool: {words}");
}

/// Prints what was asked for to stdout.
#[must_use]
fn print(text: &str) -> Exit {
    print_to(&mut std::io::stdout(), "stdout", text)
}

/// Prints to stdout, or to stderr where stdout is taken by the bytes of a file.
#[must_use]
fn print_beside(text: &str, is_stdout_taken: bool) -> Exit {
    match is_stdout_taken {
        true => print_to(&mut std::io::stderr(), "stderr", text),
        false => print(text),
    }
}

fn print_to(stream: &mut dyn Write, name: &str, text: &str) -> Exit {
    let written = stream.write_all(text.as_bytes());
    match written.and_then(|()| stream.flush()) {
        Ok(()) => Exit::SUCCESS,
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Exit::BROKEN_PIPE,
        Err(cause) => {
            say(&format!("cannot write to {name}: {}", plain(&cause)));
            Exit::FAILURE
        }
    }
}

/// `-v` of the commands that are no servers.
#[derive(clap::Args)]
struct Verbosity {
    /// Print a line per decision, such as each address that is asked; -vv a line per packet
    /// [default: none]
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Output")]
    verbose: u8,
}

impl Verbosity {
    fn is_wanted(&self) -> bool {
        self.verbose > 0
    }

    /// Sends the log of this process to stderr. The variable RUST_LOG, where set, decides instead
    /// of -v.
    fn start(&self) {
        let mut logger = env_logger::Builder::new();
        match (std::env::var("RUST_LOG"), self.verbose) {
            (Ok(filters), _) => logger.parse_filters(&filters),
            (Err(_), 0) => return,
            (Err(_), 1) => logger.filter_level(::log::LevelFilter::Debug),
            (Err(_), _) => logger.filter_level(::log::LevelFilter::Trace),
        };
        logger
            .format(|line, record| writeln!(line, "tftpool: {}", record.args()))
            .init();
    }
}

/// `--sha256 HEX` means `--sha256=HEX`, but only a digest is one: what follows may be the first
/// source.
fn joined(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    for argument in arguments {
        match all.last_mut() {
            Some(last) if last == "--sha256" && is_digest(&argument) => {
                last.push("=");
                last.push(argument);
            }
            _ => all.push(argument),
        }
    }
    all
}

fn is_digest(argument: &OsString) -> bool {
    argument
        .to_str()
        .is_some_and(|text| value::digest(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_belongs_to_its_option() {
        let joined = |arguments: &[&str]| {
            let all = arguments.iter().map(OsString::from);
            let all = joined(all).into_iter().map(|it| it.into_string());
            all.collect::<Result<Vec<_>, _>>().expect("text")
        };
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(
            joined(&["get", "--sha256", &hex, "h:f"]),
            ["get", &format!("--sha256={hex}"), "h:f"]
        );
        let kept = ["get", "--sha256", "h:f", &hex];
        assert_eq!(joined(&kept), kept);
    }

    #[test]
    fn exit_codes_are_curls() {
        let exits = (0..=8).map(|code| Exit::of(ErrorCode(code)).code());
        assert_eq!(
            exits.collect::<Vec<_>>(),
            [1, 68, 69, 70, 71, 72, 73, 74, 1]
        );
        assert_eq!(Exit(68).or(Exit(69)), Exit(68));
        assert_eq!(Exit::SUCCESS.or(Exit(69)), Exit(69));
    }
}
