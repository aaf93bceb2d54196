//! `tftpool serve`: a server in the foreground until a signal ends it.
//!
//! The order matters. Signals are blocked before there is a second thread. The directory and the
//! port are opened with the rights that the process was started with. Those rights are given up,
//! and the directory is opened once more without them, before the first packet is read.

use super::log::{Log, Verbosity};
use super::value::{self, Parser};
use crate::error::{Error, plain};
use crate::event::Stats;
use crate::limits;
use crate::proto::Retransmit;
use crate::server::{Builder, Listening, Server, Stop, Stopper};
use crate::store::{Dir, WriteMode};
use crate::sys;
use crate::sys::privileges::{self, Account};
use crate::sys::signal::{Signal, Signals};
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Served when no directory is named, the first that exists. Never the current directory: it would
/// surprise.
const DEFAULT_DIRECTORIES: [&str; 2] = ["/srv/tftp", "/var/lib/tftpboot"];
/// Descriptors that are assumed where the system does not say how many there may be: the usual soft
/// limit.
const ASSUMED_DESCRIPTORS: u64 = 1024;
/// Fewer transfers at once than this deserve a warning: a room of boards that is switched on asks
/// for more.
const FEW_TRANSFERS: usize = 64;
/// How long running transfers may go on after the first SIGTERM or SIGINT.
const DRAIN: Duration = Duration::from_secs(5);

/// Serve a directory, read-only unless told otherwise, until SIGTERM or SIGINT
///
/// Running transfers get 5 seconds to finish; a second signal ends them. SIGHUP opens DIR again,
/// for a release that was swapped in by a symbolic link. SIGUSR1 logs the counters, SIGUSR2
/// switches debug lines on and off, and SIGQUIT stops at once.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Directory to serve [default: /srv/tftp or /var/lib/tftpboot, the first that exists]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,

    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    uploads: Uploads,

    #[command(flatten)]
    network: Network,

    #[command(flatten)]
    protocol: Protocol,

    #[command(flatten)]
    capacity: Capacity,

    /// Serve as this user, a name, UID or UID:GID; `root` keeps root's rights [default: nobody,
    /// when started as root]
    ///
    /// A name or UID brings the supplementary groups of that user; UID:GID brings none, and needs
    /// no user database.
    #[arg(long, value_name = "NAME", help_heading = "Rights")]
    user: Option<String>,

    #[command(flatten)]
    verbosity: Verbosity,
}

/// What is served.
#[derive(clap::Args)]
#[command(next_help_heading = "Files")]
struct Files {
    /// Same as DIR
    #[arg(long, value_name = "DIR", conflicts_with = "directory")]
    file_directory: Option<PathBuf>,

    /// Serve files that are not world-readable too, as far as the server's user may read them
    /// [default: refused]
    #[arg(long)]
    serve_unreadable: bool,

    /// Follow symbolic links that lead into this tree; repeatable [default: only within DIR]
    #[arg(long, value_name = "DIR")]
    allow_symlink_target: Vec<PathBuf>,

    /// Absolute symbolic links: `host` paths are those of this host; `root` also looks up beneath
    /// DIR what leads into no served tree, as links made for a server in a chroot need it
    #[arg(
        long,
        value_name = "FROM",
        value_enum,
        default_value = "root",
        hide_possible_values = true
    )]
    absolute_links: AbsoluteLinks,
}

/// What is taken.
#[derive(clap::Args)]
#[command(next_help_heading = "Uploads")]
struct Uploads {
    /// Take uploads: `create` only under new names, `overwrite` replaces files, `unique` puts a
    /// number behind a name that is taken
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value = "none",
        hide_possible_values = true
    )]
    write: Write,

    /// Directory for uploads [default: DIR]
    #[arg(long, value_name = "DIR")]
    upload_dir: Option<PathBuf>,

    /// Largest upload, in octets or with K, M, G or T behind the number, 1 to 16777215T
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = value::size as Parser<_>)]
    max_upload: u64,

    /// Permission bits that uploads don't get, in octal, 000 to 777
    #[arg(long, value_name = "BITS", default_value = "022", value_parser = value::umask as Parser<_>)]
    umask: u32,

    /// Acknowledge an upload when the disk has it [default: when the system has it]
    #[arg(long)]
    durable: bool,
}

/// Where it listens, and what it sends from.
#[derive(clap::Args)]
#[command(next_help_heading = "Network")]
struct Network {
    /// Address or name to listen on; repeatable [default: all IPv4 and IPv6 addresses]
    #[arg(long, value_name = "ADDR", value_parser = value::host as Parser<_>)]
    host: Vec<String>,

    /// UDP port; 0 takes a free one
    #[arg(long, default_value_t = limits::PORT, value_parser = value::number(0..=u16::MAX))]
    port: u16,

    /// Listen also on an address that no interface has yet, as before the network is up [default:
    /// fail]
    #[arg(long)]
    freebind: bool,

    /// Ports to answer from, for firewalls, such as 2000:3000 [default: any free port]
    #[arg(long, value_name = "LO:HI", value_parser = value::port_range as Parser<_>)]
    port_range: Option<RangeInclusive<u16>>,

    /// Forbid routers to fragment what is sent [default: allowed]
    #[arg(long)]
    dont_fragment: bool,

    /// Answer read requests sent to an IPv4 broadcast address [default: drop them]
    ///
    /// The answer comes from the address of the interface that the request came in by. No ERROR is
    /// sent to such a request, because another server may have the file. Needs a wildcard --host:
    /// sockets of one address get no broadcasts.
    #[arg(long)]
    answer_broadcast: bool,
}

/// What is agreed to, and how long a peer is waited for.
#[derive(clap::Args)]
#[command(next_help_heading = "Protocol")]
struct Protocol {
    /// Largest block size to agree to, in octets, 8 to 65464, even if it travels in fragments
    /// [default: what the route to the client carries in one piece]
    #[arg(long, value_name = "OCTETS", value_parser = value::block_size as Parser<_>)]
    max_block_size: Option<u16>,

    /// Largest window to agree to, in blocks, 1 to 32767
    #[arg(long, value_name = "BLOCKS", default_value_t = limits::MAX_WINDOWSIZE, value_parser = value::window_size as Parser<_>)]
    max_window_size: u16,

    /// Wait this long for an answer before sending again, unless the client asks otherwise; 10ms to
    /// 255s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::time as Parser<_>)]
    timeout: Duration,

    /// Resends into silence before a transfer is given up, 0 to 100
    #[arg(long, value_name = "COUNT", default_value_t = limits::DEFAULT_RETRIES, value_parser = value::retries as Parser<_>)]
    retries: u32,

    /// When to send again: `adaptive` probes after the measured round trip, `rfc` only after the
    /// timeout
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value = "adaptive",
        hide_possible_values = true
    )]
    retransmit: When,

    /// Blocks that a client must get through in a minute, or 4 KiB for each, 0 to 65535; 0 asks for
    /// none
    #[arg(
        long,
        value_name = "BLOCKS",
        default_value_t = limits::MIN_PROGRESS,
        value_parser = value::number(0..=limits::MAX_MIN_PROGRESS),
    )]
    min_progress: u32,

    /// The longest that a transfer may take, 1s to 365d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = value::long_time as Parser<_>)]
    max_time: Duration,

    /// Forget what clients taught: offer whole windows, large blocks and options to those that
    /// failed with them [default: smaller ones for 10 minutes]
    #[arg(long)]
    no_client_memory: bool,
}

/// How much at once.
#[derive(clap::Args)]
#[command(next_help_heading = "Capacity")]
struct Capacity {
    /// Threads that run transfers, 1 to 1024; waiting clients cost none
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = limits::DEFAULT_WORKERS,
        value_parser = value::number(1..=limits::MAX_WORKERS),
    )]
    workers: usize,

    /// How long opening a file may take, on a disk or file server that hangs, before the client is
    /// told, 1s to 1h
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = value::store_deadline as Parser<_>)]
    store_deadline: Duration,

    /// Transfers at once [default: what the descriptor limit allows, at most 65536]
    #[arg(long, value_name = "COUNT", value_parser = value::transfers as Parser<_>)]
    max_transfers: Option<usize>,

    /// Transfers at once for one client address [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = value::transfers as Parser<_>)]
    max_transfers_per_client: Option<usize>,

    /// Transfers at once whose clients have not answered yet, as forged addresses never do
    /// [default: all of them]
    #[arg(long, value_name = "COUNT", value_parser = value::transfers as Parser<_>)]
    max_unproven: Option<usize>,

    /// The same for one client address; whole labs may sit behind one [default: no limit of its
    /// own]
    #[arg(long, value_name = "COUNT", value_parser = value::transfers as Parser<_>)]
    max_unproven_per_client: Option<usize>,

    /// The same for one network, an IPv4 /24 or an IPv6 /64 [default: no limit of its own]
    #[arg(long, value_name = "COUNT", value_parser = value::transfers as Parser<_>)]
    max_unproven_per_network: Option<usize>,
}

/// What absolute links mean, as typed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AbsoluteLinks {
    Root,
    Host,
}

/// When to send again, as typed.
#[derive(Clone, Copy, clap::ValueEnum)]
enum When {
    Adaptive,
    Rfc,
}

/// What uploads may do, as typed.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Write {
    None,
    Create,
    Overwrite,
    Unique,
}

impl Write {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Create => "create",
            Self::Overwrite => "overwrite",
            Self::Unique => "unique",
        }
    }

    fn mode(self) -> Option<WriteMode> {
        match self {
            Self::None => None,
            Self::Create => Some(WriteMode::Create),
            Self::Overwrite => Some(WriteMode::Overwrite),
            Self::Unique => Some(WriteMode::Unique),
        }
    }
}

/// Runs the subcommand.
pub(super) fn main(arguments: Arguments) -> ExitCode {
    let ready =
        Signals::block().and_then(|signals| Ok((signals, Log::start(&arguments.verbosity)?)));
    let (signals, log) = match ready {
        Ok(ready) => ready,
        Err(cause) => {
            eprintln!("tftpool: cannot start: {}", plain(&cause));
            return ExitCode::FAILURE;
        }
    };
    let code = match serve(arguments, signals, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble { words, code }) => {
            log.say(words);
            ExitCode::from(code)
        }
    };
    log.flush();
    code
}

/// Why there is no server, in the operator's words.
struct Trouble {
    words: String,
    code: u8,
}

impl From<String> for Trouble {
    fn from(words: String) -> Self {
        Self { words, code: 1 }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let way_out = match &error {
            Error::Bind { cause, address } => match cause.kind() {
                ErrorKind::PermissionDenied if (1..1024).contains(&address.port()) => TRY_PORT,
                ErrorKind::AddrInUse => TRY_PORT,
                ErrorKind::AddrNotAvailable => "--freebind listens on it all the same",
                _ => "",
            },
            _ => "",
        };
        with_way_out(&error.to_string(), way_out).into()
    }
}

const TRY_PORT: &str = "try --port 6969";

/// Puts an option that helps into the parentheses at the end of an error: the library names no
/// options.
fn with_way_out(text: &str, way_out: &str) -> String {
    match text.strip_suffix(')') {
        _ if way_out.is_empty() => text.to_owned(),
        Some(text) => format!("{text}; {way_out})"),
        None => format!("{text} ({way_out})"),
    }
}

fn serve(arguments: Arguments, signals: Signals, log: &Log) -> Result<(), Trouble> {
    let control = Arc::new(OnceLock::new());
    obey(signals, Arc::clone(&control), log.clone())?;
    let user = next_user(arguments.user.as_deref())?;
    let directory = arguments.directory()?;
    let dir = arguments.open(&directory)?;
    if arguments.uploads.upload_dir.is_some() && arguments.uploads.write.mode().is_none() {
        return Err(Trouble {
            words: "--upload-dir needs --write create, overwrite or unique".into(),
            code: 2,
        });
    }
    let room = arguments.room();
    let listening = arguments.listen(dir.clone(), room.transfers)?;
    if let Some((name, account)) = user {
        step_down(&name, &account, &dir)?;
    }
    room.log(arguments.capacity.workers);
    dir.prepare_uploads();
    let addresses = join(listening.local_addrs());
    let server = listening.start().map_err(|error| match error {
        Error::Bind { .. } => {
            with_way_out(&error.to_string(), "choose another --port-range").into()
        }
        error => Trouble::from(error),
    })?;
    let _ = control.set(server.stopper());
    let directory = directory.display();
    // Scripts take the address behind the last " on ".
    match arguments.uploads.write {
        Write::None => log.say(format_args!("serving {directory} on {addresses}")),
        how => log.say(format_args!(
            "serving {directory} with uploads ({}) to {} on {addresses}",
            how.name(),
            dir.upload_path().display()
        )),
    }
    let totals = server.join()?;
    log::info!("stopped {}", Counters(&totals));
    Ok(())
}

impl Arguments {
    /// The directory that was named, or the usual one.
    fn directory(&self) -> Result<PathBuf, Trouble> {
        let named = self
            .files
            .file_directory
            .as_ref()
            .or(self.directory.as_ref());
        let usual = || {
            DEFAULT_DIRECTORIES
                .iter()
                .map(Path::new)
                .find(|path| path.is_dir())
        };
        named
            .cloned()
            .or_else(|| usual().map(Path::to_owned))
            .ok_or_else(|| Trouble {
                words: format!(
                    "no directory to serve: neither {} exists (name one: tftpool serve DIR)",
                    DEFAULT_DIRECTORIES.join(" nor ")
                ),
                code: 2,
            })
    }

    fn open(&self, directory: &Path) -> Result<Dir, Error> {
        let Self { files, uploads, .. } = self;
        let mut dir = Dir::builder(directory)
            .serve_unreadable(files.serve_unreadable)
            .absolute_links_from_root(files.absolute_links == AbsoluteLinks::Root)
            .max_upload(uploads.max_upload)
            .umask(uploads.umask)
            .durable(uploads.durable);
        if let Some(mode) = uploads.write.mode() {
            dir = dir.uploads(mode);
        }
        if let Some(directory) = &uploads.upload_dir {
            dir = dir.upload_dir(directory);
        }
        files
            .allow_symlink_target
            .iter()
            .fold(dir, |dir, tree| dir.allow_symlink_target(tree))
            .open_only()
    }

    fn listen(&self, dir: Dir, max_transfers: usize) -> Result<Listening, Trouble> {
        let Self {
            network,
            protocol,
            capacity,
            ..
        } = self;
        let builder = Server::builder(dir).limits(|limits| {
            limits.workers = capacity.workers;
            limits.store_deadline = capacity.store_deadline;
            limits.max_transfers = max_transfers;
            limits.max_transfers_per_client = capacity.max_transfers_per_client;
            limits.max_unproven = capacity.max_unproven;
            limits.max_unproven_per_client = capacity.max_unproven_per_client;
            limits.max_unproven_per_network = capacity.max_unproven_per_network;
            if let Some(octets) = protocol.max_block_size {
                (limits.max_block_size, limits.fit_route) = (octets, false);
            }
            limits.max_window_size = protocol.max_window_size;
            limits.timeout = protocol.timeout;
            limits.retries = protocol.retries;
            limits.ports.clone_from(&network.port_range);
            limits.retransmit = match protocol.retransmit {
                When::Adaptive => Retransmit::Adaptive,
                When::Rfc => Retransmit::Rfc,
            };
            limits.min_progress = protocol.min_progress;
            limits.max_time = protocol.max_time;
            limits.client_memory = !protocol.no_client_memory;
            limits.dont_fragment = network.dont_fragment;
            limits.freebind = network.freebind;
            limits.answer_broadcast = network.answer_broadcast;
        });
        if network.host.is_empty() {
            return Ok(builder.bind_any(network.port).listen()?);
        }
        let addresses = self.addresses()?;
        Ok(addresses
            .into_iter()
            .fold(builder, Builder::bind)
            .listen()?)
    }

    /// What the hosts that were named stand for, each address once.
    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = Vec::new();
        for host in &self.network.host {
            let found = (host.as_str(), self.network.port)
                .to_socket_addrs()
                .map_err(|cause| format!("cannot find host {host}: {}", plain(&cause)))?;
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Ok(addresses)
    }

    /// How many transfers are taken at once: what was asked for, or what the descriptors allow.
    fn room(&self) -> Room {
        let each = match self.uploads.write.mode() {
            None => limits::DESCRIPTORS_PER_TRANSFER,
            Some(_) => limits::DESCRIPTORS_PER_UPLOAD,
        };
        Room::new(
            sys::raise_descriptor_limit(),
            each,
            self.capacity.max_transfers,
        )
    }
}

/// Transfers, and the descriptors for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// `None` where the system does not say it.
    descriptors: Option<u64>,
    /// Transfers that the descriptors allow.
    room: usize,
    /// Transfers at once.
    transfers: usize,
}

impl Room {
    fn new(descriptors: Option<u64>, each: usize, asked: Option<usize>) -> Room {
        let known = descriptors.unwrap_or(ASSUMED_DESCRIPTORS);
        let spare = usize::try_from(known)
            .unwrap_or(usize::MAX)
            .saturating_sub(limits::SPARE_DESCRIPTORS);
        let room = (spare / each).max(1);
        let transfers = asked.unwrap_or(room.min(limits::MAX_TRANSFERS));
        Room {
            descriptors,
            room,
            transfers,
        }
    }

    /// Why the operator should look at it, where there is a reason.
    fn complaint(&self) -> Option<&'static str> {
        if self.descriptors.is_none() {
            Some("the system does not tell the descriptor limit")
        } else if self.transfers > self.room
            || self.transfers == self.room && self.room < FEW_TRANSFERS
        {
            Some("raise LimitNOFILE or ulimit -n")
        } else {
            None
        }
    }

    fn log(&self, workers: usize) {
        let Self {
            room, transfers, ..
        } = self;
        let descriptors = self.descriptors.unwrap_or(ASSUMED_DESCRIPTORS);
        match self.complaint() {
            Some(why) => log::warn!(
                "limits max_transfers={transfers} descriptors={descriptors} workers={workers} room={room} ({why})"
            ),
            None => log::info!(
                "limits max_transfers={transfers} descriptors={descriptors} workers={workers}"
            ),
        }
    }
}

/// Whose rights to take, with the name that was asked for; `None` keeps the rights that the process
/// has.
fn next_user(asked: Option<&str>) -> Result<Option<(String, Account)>, String> {
    let is_root = privileges::is_root();
    let (name, account) = match asked {
        Some(name) => (name, Account::find(name)),
        None if is_root => ("nobody", Account::nobody()),
        None => return Ok(None),
    };
    let account = account.map_err(|cause| format!("cannot run as {name}: {}", plain(&cause)))?;
    if !is_root && !account.is_current() {
        return Err(format!(
            "cannot run as {name}: not started as root (start it as root, or leave --user out)"
        ));
    }
    Ok(Some((name.to_owned(), account)))
}

/// Gives up root's rights and makes sure that the directory can be read without them.
fn step_down(name: &str, account: &Account, dir: &Dir) -> Result<(), String> {
    privileges::drop_to(account).map_err(|cause| {
        let way_out = match cause.kind() {
            ErrorKind::PermissionDenied => "--user root keeps the rights that there are",
            _ => "",
        };
        let cause = with_way_out(&plain(&cause), way_out);
        format!("cannot run as {name}: {cause}")
    })?;
    log::debug!("running as {account}");
    dir.reopen().map_err(|error| {
        format!("{error} (as user {name}; let that user read it, or choose another with --user)")
    })
}

/// Listens to signals for as long as the process lives: also while the server is being set up,
/// which a host name or a file server can hold up for long.
fn obey(signals: Signals, control: Arc<OnceLock<Stopper>>, log: Log) -> Result<(), String> {
    let mut next_stop = Stop::Drain(DRAIN);
    let listen = move || loop {
        let (signal, name) = signals.wait();
        let server = control.get();
        match (signal, server) {
            (Signal::Terminate, Some(server)) => {
                log::info!("stopping signal={name}");
                server.stop(std::mem::replace(&mut next_stop, Stop::Now));
            }
            (Signal::Quit, Some(server)) => {
                log::info!("stopping signal={name}");
                server.stop(Stop::Now);
            }
            (Signal::Terminate | Signal::Quit, None) => {
                log::info!("stopping signal={name}");
                log.flush();
                std::process::exit(0);
            }
            (Signal::Reload, Some(server)) => {
                log::info!("reloading");
                server.reload();
            }
            (Signal::Report, server) => {
                let counters = server.and_then(Stopper::stats).unwrap_or_default();
                log.answer(format_args!(
                    "counters active={} {}",
                    counters.active,
                    Counters(&counters)
                ));
            }
            (Signal::Debug, _) => {
                let state = if log.toggle_debug() { "on" } else { "off" };
                log.answer(format_args!("debug lines {state}"));
            }
            (Signal::Reload, None) | (Signal::Other, _) => log::info!("ignored signal={name}"),
        }
    };
    match std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)
    {
        Ok(_) => Ok(()),
        Err(cause) => Err(format!("cannot listen to signals: {}", plain(&cause))),
    }
}

/// What has happened, as `key=value`.
struct Counters<'a>(&'a Stats);

impl std::fmt::Display for Counters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stats = self.0;
        write!(
            f,
            "completed={} failed={} refused={} probes={} dropped={} bytes={} retransmits={}",
            stats.completed,
            stats.failed,
            stats.refused,
            stats.probes,
            stats.dropped,
            stats.bytes,
            stats.retransmits
        )
    }
}

/// `a`, `a and b`, `a, b and c`.
fn join(addresses: &[SocketAddr]) -> String {
    let mut words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() {
        last
    } else {
        format!("{} and {last}", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_bounded_by_descriptors() {
        let room = |descriptors, asked| Room::new(descriptors, 2, asked);
        let spare = limits::SPARE_DESCRIPTORS as u64;
        assert_eq!(room(Some(spare + 200), None).transfers, 100);
        assert_eq!(room(Some(spare + 200), None).complaint(), None);
        assert_eq!(room(Some(spare + 128), None).complaint(), None);
        assert!(room(Some(spare + 127), None).complaint().is_some());
        // A number that the operator has chosen is no reason for a complaint, unless there is no
        // room for it.
        assert_eq!(room(Some(spare + 100), Some(49)).complaint(), None);
        assert!(room(Some(spare + 200), Some(101)).complaint().is_some());
        assert_eq!(room(Some(0), None).transfers, 1);
        assert_eq!(room(Some(u64::MAX), None).transfers, limits::MAX_TRANSFERS);
        let unknown = room(None, None);
        assert_eq!(
            unknown,
            Room {
                descriptors: None,
                ..room(Some(1024), None)
            }
        );
        assert!(unknown.complaint().is_some());
    }

    #[test]
    fn an_option_that_helps_stands_beside_the_cause() {
        assert_eq!(with_way_out("no (why)", "try this"), "no (why; try this)");
        assert_eq!(with_way_out("no", "try this"), "no (try this)");
        assert_eq!(with_way_out("no (why)", ""), "no (why)");
    }

    #[test]
    fn addresses_read_as_a_sentence() {
        let addresses: Vec<SocketAddr> = ["0.0.0.0:69", "[::]:69", "127.0.0.1:69"]
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        assert_eq!(join(&addresses[..1]), "0.0.0.0:69");
        assert_eq!(join(&addresses[..2]), "0.0.0.0:69 and [::]:69");
        assert_eq!(join(&addresses), "0.0.0.0:69, [::]:69 and 127.0.0.1:69");
    }
}
