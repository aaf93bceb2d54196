//! The command line: what was typed becomes a builder, what happened becomes words and an exit code.

mod bar;
mod get;
mod json;
mod log;
mod place;
mod probe;
mod put;
mod serve;
mod settings;
mod value;

use crate::wire::ErrorCode;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// A TFTP server that boots every board, and a client
#[derive(Parser)]
#[command(name = "tftpool", version, arg_required_else_help = true)]
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

/// Prints what was asked for. Whoever closed the pipe does not want it.
fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

/// `--sha256 HEX` means `--sha256=HEX`, but only a digest is one: what follows may be the first source.
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
