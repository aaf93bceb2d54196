//! The command line: what was typed becomes a builder, what happened becomes words and an exit
//! code.

mod access;
mod bar;
#[cfg(feature = "config")]
mod config;
mod format;
mod get;
mod json;
mod log;
mod names;
mod output;
mod place;
mod probe;
mod put;
mod sandbox;
mod serve;
mod service;
mod settings;
mod value;

use crate::error::plain;
use crate::limits::settings as accepted;
use crate::wire::ErrorCode;
#[cfg(feature = "config")]
use clap::ArgMatches;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
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
    Serve(Box<serve::Arguments>),
    Get(get::Arguments),
    Put(put::Arguments),
    Probe(probe::Arguments),
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    #[cfg(feature = "config")]
    Config(config::Arguments),
}

/// The sandbox that `tftpool serve` runs in
#[derive(Subcommand)]
enum SandboxCommand {
    /// Print what a server with these options may do
    Print(Box<serve::Arguments>),
}

/// Reads the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    let line = joined(std::env::args_os());
    let matches = command().get_matches_from(&line);
    #[cfg(feature = "config")]
    let (matches, completed) = match complete(line, matches) {
        Ok(completed) => completed,
        Err(exit) => return exit.into(),
    };
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match arguments.command {
        #[cfg(feature = "config")]
        Command::Serve(arguments) => {
            let mut completed = completed;
            let files = completed.iter().filter_map(config::CommandLine::file);
            let reread = serve::Reread {
                files: files.collect(),
                read: Box::new(move || {
                    if let Some(line) = &mut completed {
                        line.reread();
                    }
                }),
            };
            serve::main(*arguments, reread)
        }
        #[cfg(not(feature = "config"))]
        Command::Serve(arguments) => {
            let reread = serve::Reread {
                files: Vec::new(),
                read: Box::new(|| {}),
            };
            serve::main(*arguments, reread)
        }
        Command::Get(arguments) => get::main(&arguments).into(),
        Command::Put(arguments) => put::main(&arguments).into(),
        Command::Probe(arguments) => probe::main(&arguments).into(),
        Command::Sandbox(SandboxCommand::Print(arguments)) => {
            serve::print_sandbox(&arguments).into()
        }
        #[cfg(feature = "config")]
        Command::Config(arguments) => {
            let matches = matches.subcommand_matches("config");
            config::main(&arguments, matches, completed.as_ref()).into()
        }
    }
}

/// Completes the options of `serve` from the configuration file and the environment.
#[cfg(feature = "config")]
fn complete(
    line: Vec<OsString>,
    matches: ArgMatches,
) -> Result<(ArgMatches, Option<config::CommandLine>), Exit> {
    let (options, depth) = match matches.subcommand() {
        Some(("serve", options)) => (options, 1),
        Some(("sandbox", sandbox)) => match sandbox.subcommand_matches("print") {
            Some(options) => (options, 2),
            None => return Ok((matches, None)),
        },
        Some(("config", config)) => match config.subcommand_matches("print") {
            Some(options) => (options, 2),
            None => return Ok((matches, None)),
        },
        _ => return Ok((matches, None)),
    };
    let serve = config::serve_command();
    let completed = config::CommandLine::complete(&serve, options, line, depth);
    let completed = completed.map_err(|errors| {
        errors.iter().for_each(|error| say(error));
        Exit(2)
    })?;
    let matches = command().get_matches_from(completed.arguments());
    Ok((matches, Some(completed)))
}

/// The command line, with what each option accepts in its help; also for manual pages and
/// completions.
pub fn command() -> clap::Command {
    let client = |command| value::with_ranges(command, &[accepted::client::ALL]);
    let command = Arguments::command()
        .mut_subcommand("serve", serve::with_ranges)
        .mut_subcommand("get", client)
        .mut_subcommand("put", client)
        .mut_subcommand("probe", |probe| {
            value::with_ranges(probe, &[&[probe::MAX_TIME]])
        });
    let command = command.mut_subcommand("sandbox", |sandbox| {
        sandbox.mut_subcommand("print", serve::with_ranges)
    });
    #[cfg(feature = "config")]
    let command = command.mut_subcommand("config", |config| {
        config.mut_subcommand("print", serve::with_ranges)
    });
    command
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

    fn from_code(code: u8) -> Self {
        Self(code)
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
    fn the_help_names_what_each_setting_accepts() {
        for name in ["serve", "get", "put", "probe"] {
            let mut command = command();
            let subcommand = command.find_subcommand_mut(name).expect("a subcommand");
            let help = subcommand.render_long_help().to_string();
            assert!(!help.contains("{range}"), "{name}: {help}");
        }
        let mut command = command();
        let serve = command.find_subcommand_mut("serve").expect("a subcommand");
        for setting in [accepted::server::ALL, accepted::directory::ALL].concat() {
            if setting == accepted::server::MAX_BUFFERED {
                continue; // has no option
            }
            let mut arguments = serve.get_arguments();
            let is_its = |arg: &&clap::Arg| {
                let id = arg.get_id().as_str();
                id == setting.name || (id, setting.name) == ("port_range", "ports")
            };
            let option = arguments.find(is_its).expect("an option");
            let help = option.get_help().expect("a help").to_string();
            assert!(
                help.contains(&setting.to_string()),
                "{}: {help}",
                setting.name
            );
        }
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
