//! The command line: what was typed becomes a builder, what happened becomes words and an exit code.
//!
//! Exit codes: 0 after success or a graceful stop, 1 when the work failed, 2 when the command line is wrong.

mod log;
mod serve;
mod value;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A TFTP server that boots every board
#[derive(Parser)]
#[command(name = "tftpool", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
}

/// Reads the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::main(arguments),
    }
}
