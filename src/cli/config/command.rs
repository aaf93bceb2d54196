//! `tftpool config`: checks and prints what a server would be started with.

use super::file::write_text;
use super::{CommandLine, DEFAULT_FILE, Kind, Origin, Setting};
use crate::cli::{Exit, print, say, serve};
use clap::builder::{Command, StyledStr};
use clap::{ArgMatches, Args as _};
use std::ffi::OsString;
use std::path::PathBuf;

/// Columns of the comments in the file that `default` prints.
const WIDTH: usize = 78;

/// Check, print or write the configuration file of `tftpool serve`
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub(in crate::cli) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Check a configuration file: prints what is wrong, a line each, and ends with code 1
    Check {
        /// File to check [default: /etc/tftpool/tftpool.toml]
        #[arg(default_value = DEFAULT_FILE, hide_default_value = true)]
        file: PathBuf,
    },
    /// Print the options that a server would have, and where each came from
    ///
    /// It takes the options of `tftpool serve`. What it prints is a configuration file.
    Print(Box<serve::Arguments>),
    /// Print a configuration file with all options, their meanings and their defaults
    Default,
}

/// Runs the subcommand, of whose `matches` those of `print` were made of the `completed` command
/// line.
pub(in crate::cli) fn main(
    arguments: &Arguments,
    matches: Option<&ArgMatches>,
    completed: Option<&CommandLine>,
) -> Exit {
    let command = serve_command();
    match &arguments.action {
        Action::Check { file } => check(&command, file),
        Action::Print(_) => {
            let matches = matches.and_then(|matches| matches.subcommand_matches("print"));
            let (Some(matches), Some(completed)) = (matches, completed) else {
                return Exit::FAILURE;
            };
            print(&result(&command, matches, completed))
        }
        Action::Default => print(&defaults(&command)),
    }
}

/// The options of `serve`, without a program around them.
pub(in crate::cli) fn serve_command() -> Command {
    serve::with_ranges(serve::Arguments::augment_args(Command::new("serve")))
}

fn check(command: &Command, file: &std::path::Path) -> Exit {
    let mut config = OsString::from("--config=");
    config.push(file);
    let line = vec![OsString::from("tftpool"), "serve".into(), config];
    let typed = command.clone().try_get_matches_from(&line[1..]);
    let completed = match typed {
        Ok(typed) => CommandLine::complete(command, &typed, line, 1),
        Err(error) => Err(vec![error.to_string()]),
    };
    match completed {
        Ok(_) => print(&format!("{}: ok\n", file.display())),
        Err(errors) => {
            errors.iter().for_each(|error| say(error));
            Exit::FAILURE
        }
    }
}

/// Every option with its value and its origin.
fn result(command: &Command, matches: &ArgMatches, completed: &CommandLine) -> String {
    let mut text = String::new();
    for setting in Setting::all(command) {
        let origin = match completed.merged.origins.get(setting.long) {
            Some(origin) => origin.to_string(),
            // The directory, behind the options.
            None if setting.key() == "directory" && matches.contains_id("directory") => {
                Origin::CommandLine.to_string()
            }
            None => "default".into(),
        };
        let line = match value(&setting, matches) {
            Some(value) => format!("{} = {value}  # {origin}\n", setting.key()),
            None => format!("# {} is not set\n", setting.key()),
        };
        text.push_str(&line);
    }
    text
}

fn value(setting: &Setting<'_>, matches: &ArgMatches) -> Option<String> {
    let id = setting.argument.get_id().as_str();
    match setting.kind {
        Kind::Switch => return Some(matches.get_flag(id).to_string()),
        Kind::Count => return Some(matches.get_count(id).to_string()),
        Kind::One | Kind::Many => {}
    }
    let raw = matches.get_raw(id).or_else(|| {
        let is_directory = setting.key() == "directory";
        is_directory.then(|| matches.get_raw("directory")).flatten()
    })?;
    let mut texts = raw.map(|text| write_text(&text.to_string_lossy()));
    match setting.kind {
        Kind::Many => Some(format!("[{}]", texts.collect::<Vec<_>>().join(", "))),
        _ => texts.next(),
    }
}

/// A file in which every key is a comment.
fn defaults(command: &Command) -> String {
    let mut text = format!(
        "# Configuration of `tftpool serve`, version {}.\n\
         #\n\
         # Each key is an option of the command without its dashes. An option on the command\n\
         # line, or in a variable such as TFTPOOL_PORT, wins over this file.\n\
         # `tftpool config check` checks this file, `tftpool config print` shows the result.\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut heading = None;
    for setting in Setting::all(command) {
        let next = setting.argument.get_help_heading().unwrap_or("Directory");
        if heading != Some(next) {
            heading = Some(next);
            text.push_str(&format!("\n# ---- {next} ----\n"));
        }
        text.push('\n');
        // On the command line the directory is an argument.
        let mut arguments = command.get_positionals();
        let explained = arguments.find(|argument| argument.get_id() == setting.key());
        let help = explained.unwrap_or(setting.argument).get_help();
        let help = help.map(StyledStr::to_string);
        for line in wrapped(&help.unwrap_or_default()) {
            text.push_str(&format!("# {line}\n"));
        }
        let names = setting.argument.get_value_names();
        let name = names.and_then(|names| names.first());
        let first = setting.argument.get_default_values().first();
        let first = first.map(|text| text.to_string_lossy().into_owned());
        let sample = match (setting.kind, first) {
            (Kind::Switch, _) => "false".to_owned(),
            (Kind::Count, _) => "0".to_owned(),
            (_, Some(default)) => write_text(&default),
            (kind, None) => {
                let name = write_text(name.map_or("VALUE", |name| name.as_str()));
                match kind {
                    Kind::Many => format!("[{name}]"),
                    _ => name,
                }
            }
        };
        text.push_str(&format!("#{} = {sample}\n", setting.key()));
    }
    text
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
