//! Options of `tftpool serve` from a file and from the environment, beneath the command line.
//!
//! The options are declared once, for clap. A key of the file is the long name of an option, and a
//! variable is the same name in capitals behind `TFTPOOL_`; their values go through the parsers of
//! the command line. So ranges, errors and defaults are the same everywhere, and a new option is a
//! new key.

mod command;
mod file;

pub(super) use command::{Arguments, main, serve_command};
use file::{Entry, FileError, Position, Value};

use crate::error::plain;
use clap::builder::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::mem::discriminant;
use std::path::{Path, PathBuf};

/// Read when no other file is named, if it exists.
const DEFAULT_FILE: &str = "/etc/tftpool/tftpool.toml";
/// Begins the names of variables.
const PREFIX: &str = "TFTPOOL_";
/// Names the file where no option does.
const FILE_VARIABLE: &str = "TFTPOOL_CONFIG";
/// Options that a file cannot set.
const NOT_IN_FILE: [&str; 4] = ["config", "no-config", "help", "version"];

/// Which file is read.
#[derive(clap::Args)]
#[command(next_help_heading = "Configuration")]
pub(super) struct Choice {
    /// Read options from this TOML file; options of the command line win [default:
    /// /etc/tftpool/tftpool.toml, if it exists]
    ///
    /// The keys are the long options without their dashes. `tftpool config default` prints a file
    /// with all of them. The variable TFTPOOL_CONFIG names the file where no option does. SIGHUP
    /// reads the file again and logs what needs a restart.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Read no file [default: the file above]
    #[arg(long, conflicts_with = "config")]
    no_config: bool,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    File(PathBuf, Position),
    Variable(String),
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, at) => write!(f, "{}:{}", file.display(), at.line),
            Self::Variable(name) => f.write_str(name),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Switch,
    /// A switch that may be given several times.
    Count,
    One,
    Many,
}

/// One option, as clap has it.
struct Setting<'a> {
    argument: &'a Arg,
    long: &'a str,
    kind: Kind,
}

impl<'a> Setting<'a> {
    /// All options that a file may set, in the order of the help text.
    fn all(command: &'a Command) -> impl Iterator<Item = Setting<'a>> {
        command.get_arguments().filter_map(|argument| {
            let long = argument.get_long()?;
            let is_known = !NOT_IN_FILE.contains(&long) && !argument.is_hide_set();
            let kind = match argument.get_action() {
                ArgAction::SetTrue => Kind::Switch,
                ArgAction::Count => Kind::Count,
                ArgAction::Append => Kind::Many,
                _ => Kind::One,
            };
            is_known.then_some(Setting {
                argument,
                long,
                kind,
            })
        })
    }

    /// The option's name in a file. The directory has its name on the command line only for
    /// scripts that were written for another server.
    fn key(&self) -> &'a str {
        match self.long {
            "file-directory" => "directory",
            long => long,
        }
    }

    fn variable(&self) -> String {
        let name = self.key().to_ascii_uppercase().replace('-', "_");
        format!("{PREFIX}{name}")
    }

    /// The value as it would be typed; the error says what is expected.
    fn typed(&self, command: &Command, value: &Value) -> Result<Vec<OsString>, String> {
        let long = self.long;
        let option = |text: &str| -> Result<OsString, String> {
            let option = OsString::from(format!("--{long}={text}"));
            let line = [OsString::from("serve"), option.clone()];
            match command.clone().try_get_matches_from(line) {
                Ok(_) => Ok(option),
                Err(error) => Err(format!(
                    "{}, found {}",
                    reason(&error),
                    file::write_text(text)
                )),
            }
        };
        match (self.kind, value) {
            (Kind::Switch, Value::Switch(is_on)) => {
                let switch = is_on.then(|| format!("--{long}").into());
                Ok(switch.into_iter().collect())
            }
            (Kind::Switch, _) => Err("expected true or false".into()),
            (Kind::Count, Value::One(text)) => {
                let count = text.parse().ok().filter(|count| *count <= 2usize);
                let count = count.ok_or("expected a number from 0 to 2")?;
                Ok(vec![format!("--{long}").into(); count])
            }
            (Kind::One | Kind::Many, Value::One(text)) => Ok(vec![option(text)?]),
            (Kind::Many, Value::Many(texts)) => texts.iter().map(|text| option(text)).collect(),
            (Kind::Count, _) => Err("expected a number from 0 to 2".into()),
            (_, Value::Many(_)) => Err("expected one value, found a list".into()),
            (_, Value::Switch(_)) => Err("expected a value, found true or false".into()),
        }
    }

    /// The value of a variable; `None` for one that Kubernetes sets for a service of this name.
    fn of_variable(&self, text: &str) -> Option<Result<Value, String>> {
        if self.long == "port" && (text.starts_with("tcp://") || text.starts_with("udp://")) {
            return None;
        }
        Some(match self.kind {
            Kind::Switch => match text {
                "1" | "true" => Ok(Value::Switch(true)),
                "0" | "false" | "" => Ok(Value::Switch(false)),
                _ => Err("expected true or false".into()),
            },
            Kind::Count | Kind::One => Ok(Value::One(text.into())),
            Kind::Many => Ok(Value::Many(
                text.split(',').map(|part| part.trim().into()).collect(),
            )),
        })
    }
}

/// What is wrong with a value, without clap's frame.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    if let (ErrorKind::InvalidValue, Some(ContextValue::Strings(values))) =
        (error.kind(), error.get(ContextKind::ValidValue))
        && !values.is_empty()
    {
        return format!("expected one of {}", values.join(", "));
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}

/// The options of one server, and where they came from.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    /// What the file and the environment add to the command line.
    added: Vec<OsString>,
    /// By the names of options; those that have their defaults are absent.
    origins: BTreeMap<String, Origin>,
    /// Switches that a source sets to what they are by default, so weaker ones cannot.
    off: BTreeSet<String>,
}

/// What a command line is completed from.
struct Sources<'a> {
    command: &'a Command,
    typed: &'a ArgMatches,
    variables: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Sources<'_> {
    /// Adds to what was typed.
    ///
    /// # Errors
    /// All that is wrong, in the order in which it was read.
    fn merge(&self) -> Result<Merged, Vec<String>> {
        let mut errors = Vec::new();
        let (file, entries) = match self.file() {
            None => Default::default(),
            Some((file, is_named)) => {
                let entries = self.read_file(&file, is_named).unwrap_or_else(|error| {
                    errors.push(error.to_string());
                    Vec::new()
                });
                (file, entries)
            }
        };
        let mut merged = Merged {
            added: Vec::new(),
            origins: BTreeMap::new(),
            off: BTreeSet::new(),
        };
        for setting in Setting::all(self.command) {
            if self.is_typed(setting.argument) {
                let long = setting.long.to_owned();
                merged.origins.insert(long, Origin::CommandLine);
            }
        }
        for setting in Setting::all(self.command) {
            let name = setting.variable();
            let Some(text) = (self.variables)(&name) else {
                continue;
            };
            let text = text.to_string_lossy();
            match setting.of_variable(&text) {
                None => {}
                Some(value) => {
                    let typed = value.and_then(|value| setting.typed(self.command, &value));
                    let origin = Origin::Variable(name.clone());
                    let added =
                        typed.and_then(|typed| self.add(&mut merged, &setting, typed, origin));
                    if let Err(text) = added {
                        errors.push(format!("{name}: {text}"));
                    }
                }
            }
        }
        for entry in entries {
            let fail = |at, text: &str| FileError {
                file: file.clone(),
                at: Some(at),
                text: format!("{}: {text}", entry.key),
            };
            let mut settings = Setting::all(self.command);
            let Some(setting) = settings.find(|setting| setting.key() == entry.key) else {
                let text = self.unknown(&entry.key);
                errors.push(fail(entry.key_at, &text).to_string());
                continue;
            };
            let value = entry.value.as_ref().map_err(|text| (*text).to_owned());
            let typed = value.and_then(|value| setting.typed(self.command, value));
            let origin = Origin::File(file.clone(), entry.key_at);
            let added = typed.and_then(|typed| self.add(&mut merged, &setting, typed, origin));
            if let Err(text) = added {
                errors.push(fail(entry.value_at, &text).to_string());
            }
        }
        match errors.is_empty() {
            true => Ok(merged),
            false => Err(errors),
        }
    }

    /// Adds an option, unless a stronger source has set it, or an option that excludes it.
    ///
    /// # Errors
    /// The same source has set an option that excludes it.
    fn add(
        &self,
        merged: &mut Merged,
        setting: &Setting<'_>,
        typed: Vec<OsString>,
        origin: Origin,
    ) -> Result<(), String> {
        if merged.origins.contains_key(setting.long) {
            return Ok(());
        }
        if typed.is_empty() {
            merged.off.insert(setting.long.to_owned());
            merged.origins.insert(setting.long.to_owned(), origin);
            return Ok(());
        }
        let excludes = |one: &Arg, other: &Arg| {
            let mut excluded = self.command.get_arg_conflicts_with(one).into_iter();
            excluded.any(|excluded| excluded == other)
        };
        for other in self.command.get_arguments() {
            if !excludes(other, setting.argument) && !excludes(setting.argument, other) {
                continue;
            }
            let is_on = |long: &&str| !merged.off.contains(*long);
            let long = other.get_long().filter(is_on);
            let set_by = long.and_then(|long| merged.origins.get(long));
            match set_by {
                Some(by) if discriminant(by) == discriminant(&origin) => {
                    let other = other.get_long().unwrap_or_default();
                    return Err(format!("cannot be combined with {other}"));
                }
                Some(_) => return Ok(()),
                None if self.is_typed(other) => return Ok(()),
                None => {}
            }
        }
        merged.added.extend(typed);
        merged.origins.insert(setting.long.to_owned(), origin);
        Ok(())
    }

    fn is_typed(&self, argument: &Arg) -> bool {
        let source = self.typed.value_source(argument.get_id().as_str());
        source == Some(ValueSource::CommandLine)
    }

    /// The file to read, and whether it was named: by an option, or by a variable that is empty for
    /// no file.
    fn file(&self) -> Option<(PathBuf, bool)> {
        if self.typed.get_flag("no_config") {
            return None;
        }
        if let Some(file) = self.typed.get_one::<PathBuf>("config") {
            return Some((file.clone(), true));
        }
        match (self.variables)(FILE_VARIABLE) {
            Some(file) if file.is_empty() => None,
            Some(file) => Some((file.into(), true)),
            None => Some((DEFAULT_FILE.into(), false)),
        }
    }

    fn read_file(&self, path: &Path, is_named: bool) -> Result<Vec<Entry>, FileError> {
        match std::fs::read_to_string(path) {
            Ok(text) => file::read(path, &text),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && !is_named => Ok(Vec::new()),
            Err(cause) => Err(FileError {
                file: path.to_owned(),
                at: None,
                text: format!("cannot read it: {}", plain(&cause)),
            }),
        }
    }

    /// What to say about a key that is no option, with the one that was probably meant.
    fn unknown(&self, key: &str) -> String {
        if NOT_IN_FILE.contains(&key) {
            return "this option is for the command line only".into();
        }
        let line = ["serve".to_owned(), format!("--{key}")];
        let error = self.command.clone().try_get_matches_from(line).err();
        let meant =
            error
                .as_ref()
                .and_then(|error| match error.get(ContextKind::SuggestedArg)? {
                    ContextValue::String(long) => Some(long.trim_start_matches('-')),
                    _ => None,
                });
        match meant {
            Some("file-directory") => "unknown key (did you mean directory?)".into(),
            Some(meant) => format!("unknown key (did you mean {meant}?)"),
            None => "unknown key (`tftpool config default` lists all keys)".into(),
        }
    }
}

/// A command line that is completed from the file and the environment, again where they change.
pub(super) struct CommandLine {
    /// What it was read from.
    file: Option<PathBuf>,
    /// Of the program, down to the subcommand that takes the options of `serve`.
    start: Vec<OsString>,
    rest: Vec<OsString>,
    merged: Merged,
    command: Command,
}

impl CommandLine {
    /// Splits a command line behind `depth` subcommands, whose options are in `typed`.
    ///
    /// # Errors
    /// All that is wrong in the file and in the environment, one line each.
    pub(super) fn complete(
        command: &Command,
        typed: &ArgMatches,
        mut line: Vec<OsString>,
        depth: usize,
    ) -> Result<Self, Vec<String>> {
        let rest = line.split_off((1 + depth).min(line.len()));
        let mut command = command.clone();
        command.build();
        let merged = merge(&command, typed)?;
        let file = sources(&command, typed).file().map(|(file, _)| file);
        Ok(Self {
            file,
            start: line,
            rest,
            merged,
            command,
        })
    }

    /// The file that is read, if there is one.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.file.clone().filter(|file| file.exists())
    }

    /// What clap reads.
    pub(super) fn arguments(&self) -> impl Iterator<Item = OsString> {
        let parts = [&self.start, &self.merged.added, &self.rest];
        parts.into_iter().flatten().cloned()
    }

    /// Reads the file again, and logs what a restart would change.
    pub(super) fn reread(&mut self) {
        let line = std::iter::once(OsString::from("serve")).chain(self.rest.iter().cloned());
        let typed = self.command.clone().try_get_matches_from(line);
        let Ok(typed) = typed else {
            return; // it was read before
        };
        match merge(&self.command, &typed) {
            Err(errors) => {
                for error in errors {
                    log::error!("{error}; the options that were read at the start stay");
                }
            }
            Ok(merged) => {
                for key in self.merged.differences(&merged) {
                    log::warn!("option changed key={key} (restart the server to apply it)");
                }
                // A change is logged once.
                self.merged = merged;
            }
        }
    }
}

fn sources<'a>(command: &'a Command, typed: &'a ArgMatches) -> Sources<'a> {
    Sources {
        command,
        typed,
        variables: &|name| std::env::var_os(name),
    }
}

fn merge(command: &Command, typed: &ArgMatches) -> Result<Merged, Vec<String>> {
    sources(command, typed).merge()
}

impl Merged {
    /// The options that have another value in `other`.
    fn differences(&self, other: &Self) -> Vec<String> {
        let sorted = |merged: &Self| {
            let mut values: BTreeMap<String, Vec<OsString>> = BTreeMap::new();
            for option in &merged.added {
                let text = option.to_string_lossy();
                let name = text.trim_start_matches('-').split('=').next();
                let name = name.unwrap_or_default().to_owned();
                values.entry(name).or_default().push(option.clone());
            }
            values
        };
        let (ours, others) = (sorted(self), sorted(other));
        let mut names: Vec<_> = ours.keys().chain(others.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names.retain(|name| ours.get(name) != others.get(name));
        names
    }
}
