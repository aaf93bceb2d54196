//! `tftpool serve`: a server in the foreground until a signal ends it.
//!
//! The order matters. Signals are blocked before there is a second thread. The directory and the
//! port are opened with the rights that the process was started with. Those rights are given up,
//! and the directory is opened once more without them, before the first packet is read.

use super::access::Access;
use super::log::{Log, Verbosity};
use super::names::{Layers, Names};
use super::sandbox::{self, Confined, Plan};
use super::service::{self, Manager};
use super::value::{self, Parser};
use super::{Exit, print, say};
use crate::error::{Error, plain};
use crate::event::{Gauges, Stats};
use crate::limits;
use crate::limits::settings::{Setting, directory, server as accepted};
use crate::proto::Retransmit;
use crate::server::{BoundServer, Server, ServerBuilder, ServerConfig, ServerHandle, Stop};
use crate::store::{Dir, WriteMode};
use crate::sys;
use crate::sys::privileges::{self, Account};
use crate::sys::signal::{Signal, Signals};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
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
/// The port to listen on.
const PORT: Setting = Setting::number("port", 0, u16::MAX as u64);
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

    #[cfg(feature = "config")]
    #[command(flatten)]
    _config: super::config::Choice,

    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    names: Names,

    #[command(flatten)]
    access: Access,

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

    /// Confine the server to its files, by Landlock and without capabilities, before the first
    /// request: `off`, `best-effort` as far as the kernel can, `require` fails where it cannot
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value = "best-effort",
        hide_possible_values = true,
        help_heading = "Rights"
    )]
    sandbox: sandbox::Mode,

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

    /// Largest upload, in bytes or with K, M, G or T behind the number, {range}
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = value::size(directory::MAX_UPLOAD))]
    max_upload: u64,

    /// Permission bits that uploads don't get, in octal, {range}
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

    /// UDP port; 0 takes a free one [default: 69]
    #[arg(long, value_parser = value::number::<u16>(PORT))]
    port: Option<u16>,

    /// Listen also on an address that no interface has yet, as before the network is up [default:
    /// fail]
    #[arg(long)]
    freebind: bool,

    /// Ports to answer from, for firewalls, such as 2000:3000; {range} [default: any free port]
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

impl Network {
    fn port(&self) -> u16 {
        self.port.unwrap_or(limits::PORT)
    }

    /// An option that says where to listen, if one was given.
    fn binding_option(&self) -> Option<&'static str> {
        let given = [
            (!self.host.is_empty(), "--host"),
            (self.port.is_some(), "--port"),
            (self.freebind, "--freebind"),
        ];
        given.into_iter().find_map(|(is, name)| is.then_some(name))
    }
}

/// What is agreed to, and how long a peer is waited for.
#[derive(clap::Args)]
#[command(next_help_heading = "Protocol")]
struct Protocol {
    /// Largest block size to agree to, in bytes, {range}, even if it travels in fragments [default:
    /// what the route to the client carries in one piece]
    #[arg(long, value_name = "BYTES", value_parser = value::number::<u16>(accepted::MAX_BLOCK_SIZE))]
    max_block_size: Option<u16>,

    /// Largest window to agree to, in blocks, {range}
    #[arg(long, value_name = "BLOCKS", default_value_t = limits::MAX_WINDOWSIZE, value_parser = value::number::<u16>(accepted::MAX_WINDOW_SIZE))]
    max_window_size: u16,

    /// Retransmission interval, {range}, unless the client asks for another
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::time(accepted::TIMEOUT))]
    timeout: Duration,

    /// Retransmissions into silence before a transfer is given up, {range}
    #[arg(long, value_name = "COUNT", default_value_t = limits::DEFAULT_RETRIES, value_parser = value::number::<u32>(accepted::RETRIES))]
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

    /// Abort transfers slower than this many blocks, or this many times 4 KiB, per minute, {range};
    /// 0 disables
    #[arg(
        long,
        value_name = "BLOCKS",
        default_value_t = limits::MIN_PROGRESS,
        value_parser = value::number::<u32>(accepted::MIN_PROGRESS),
    )]
    min_progress: u32,

    /// The longest that a transfer may take, {range}
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = value::time(accepted::MAX_TIME))]
    max_time: Duration,

    /// Do not reduce options for clients that recently failed with them [default: reduce for 10
    /// minutes]
    #[arg(long)]
    no_client_history: bool,
}

/// How much at once.
#[derive(clap::Args)]
#[command(next_help_heading = "Capacity")]
struct Capacity {
    /// Threads that run transfers, {range}; waiting clients cost none
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = limits::DEFAULT_WORKERS,
        value_parser = value::number::<usize>(accepted::WORKERS),
    )]
    workers: usize,

    /// Time for opening a file, {range}; after it, the client gets an ERROR
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = value::time(accepted::STORE_DEADLINE))]
    store_deadline: Duration,

    /// Transfers at once, {range} [default: what the descriptor limit allows, at most 65536]
    #[arg(long, value_name = "COUNT", value_parser = value::number::<usize>(accepted::MAX_TRANSFERS))]
    max_transfers: Option<usize>,

    /// Transfers at once for one client address, {range} [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = value::number::<usize>(accepted::MAX_TRANSFERS_PER_CLIENT))]
    max_transfers_per_client: Option<usize>,

    /// Half-open transfers at once, {range}: their clients have not answered yet, as forged
    /// addresses never do [default: all of them]
    #[arg(long, value_name = "COUNT", value_parser = value::number::<usize>(accepted::MAX_HALF_OPEN))]
    max_half_open: Option<usize>,

    /// Half-open transfers at once for one client address, {range}; whole labs may sit behind one
    /// [default: no limit of its own]
    #[arg(long, value_name = "COUNT", value_parser = value::number::<usize>(accepted::MAX_HALF_OPEN_PER_CLIENT))]
    max_half_open_per_client: Option<usize>,

    /// Half-open transfers at once for one network (IPv4 /24, IPv6 /64), {range} [default: no limit
    /// of its own]
    #[arg(long, value_name = "COUNT", value_parser = value::number::<usize>(accepted::MAX_HALF_OPEN_PER_NETWORK))]
    max_half_open_per_network: Option<usize>,
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
    fn mode(self) -> Option<WriteMode> {
        match self {
            Self::None => None,
            Self::Create => Some(WriteMode::Create),
            Self::Overwrite => Some(WriteMode::Overwrite),
            Self::Unique => Some(WriteMode::Unique),
        }
    }
}

/// The options, with what each accepts in its help.
pub(super) fn with_ranges(command: clap::Command) -> clap::Command {
    value::with_ranges(command, &[accepted::ALL, directory::ALL])
}

/// What reads the options again on SIGHUP, and what it reads them from.
pub(super) struct Reread {
    pub(super) files: Vec<PathBuf>,
    pub(super) read: Box<dyn FnMut() + Send>,
}

/// Runs the subcommand.
pub(super) fn main(arguments: Arguments, reread: Reread) -> ExitCode {
    // Before anything is opened.
    let sockets = service::sockets();
    let mode = arguments.sandbox;
    // Before there is a second thread.
    sandbox::prepare(mode);
    let prepare = move || sandbox::confine_helper(mode, &[]);
    let ready = Signals::block()
        .and_then(|signals| Ok((signals, Log::start(&arguments.verbosity, prepare)?)));
    let (signals, log) = match ready {
        Ok(ready) => ready,
        Err(cause) => {
            eprintln!("tftpool: cannot start: {}", plain(&cause));
            return ExitCode::FAILURE;
        }
    };
    let code = match serve(arguments, sockets, signals, &log, reread) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble { words, code }) => {
            log.say(words);
            ExitCode::from(code)
        }
    };
    log.flush();
    code
}

/// Prints what a server with these arguments may do.
pub(super) fn print_sandbox(arguments: &Arguments) -> Exit {
    let plan = arguments
        .directory()
        .and_then(|directory| arguments.plan(&directory));
    match plan {
        Ok(plan) => print(&sandbox::describe(&plan, arguments.sandbox)),
        Err(Trouble { words, code }) => {
            say(&words);
            Exit::from_code(code)
        }
    }
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

fn serve(
    arguments: Arguments,
    sockets: io::Result<Vec<UdpSocket>>,
    signals: Signals,
    log: &Log,
    reread: Reread,
) -> Result<(), Trouble> {
    let manager = Manager::connect();
    let running = Arc::new(OnceLock::new());
    let obedient = (manager.clone(), log.clone());
    obey(
        signals,
        Arc::clone(&running),
        obedient,
        arguments.sandbox,
        reread,
    )?;
    let sockets = sockets.map_err(|cause| {
        format!(
            "cannot use the sockets of the service manager: {}",
            plain(&cause)
        )
    })?;
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
    let plan = arguments.plan(&directory)?;
    let mut layers = arguments.names.over(dir.clone())?;
    let map = layers.map.clone();
    layers.store = Box::new(Confined::new(layers.store, plan.clone()));
    let listening = arguments.listen(layers, room.transfers, sockets)?;
    if let Some((name, account)) = user {
        step_down(&name, &account, &dir)?;
        if let Some(map) = map {
            map.reopen().map_err(|error| let_read(&error, &name))?;
        }
    }
    plan.enforce(arguments.sandbox).map_err(|why| {
        with_way_out(
            &format!("cannot confine the server: {why}"),
            "--sandbox best-effort starts all the same",
        )
    })?;
    room.log(arguments.capacity.workers);
    dir.prepare_uploads();
    let addresses = join(listening.local_addrs());
    let server = listening.start().map_err(|error| match error {
        Error::Bind { .. } => {
            with_way_out(&error.to_string(), "choose another --port-range").into()
        }
        error => Trouble::from(error),
    })?;
    let directory = directory.display();
    // Scripts take the address behind the last " on ".
    let banner = match arguments.uploads.write.mode() {
        None => format!("serving {directory} on {addresses}"),
        Some(mode) => format!(
            "serving {directory} with uploads ({mode}) to {} on {addresses}",
            dir.upload_path().display()
        ),
    };
    let handle = server.handle();
    let _ = running.set(Running {
        server: handle.clone(),
        banner: banner.clone(),
    });
    log.say(&banner);
    manager.ready(&banner);
    manager.watch(handle.clone(), move || {
        let stats = handle.stats();
        format!("{banner}; active={} {}", stats.active, Counters(&stats))
    });
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
            .ignore_case(self.names.ignore_case)
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

    /// What the process may do once it serves this directory.
    fn plan(&self, directory: &Path) -> Result<Plan, Trouble> {
        let mut read = vec![directory.to_owned()];
        read.extend_from_slice(&self.files.allow_symlink_target);
        let write = self.uploads.write.mode().map(|_| {
            let named = self.uploads.upload_dir.as_deref();
            named.unwrap_or(directory).to_owned()
        });
        let ports = self.network.port_range.as_ref();
        let low_ports = ports.is_some_and(|ports| *ports.start() < 1024);
        let files = self.names.map_file.iter().cloned().collect();
        Plan::new(read, files, write, low_ports).map_err(|cause| {
            let directory = directory.display();
            format!("cannot open {directory}: {}", plain(&cause)).into()
        })
    }

    /// Listens on the sockets of the service manager, where it has passed any.
    fn listen(
        &self,
        layers: Layers,
        max_transfers: usize,
        sockets: Vec<UdpSocket>,
    ) -> Result<BoundServer, Trouble> {
        let Self {
            network,
            protocol,
            capacity,
            ..
        } = self;
        let config = ServerConfig {
            workers: capacity.workers,
            store_deadline: capacity.store_deadline,
            max_transfers,
            max_transfers_per_client: capacity.max_transfers_per_client,
            max_half_open: capacity.max_half_open,
            max_half_open_per_client: capacity.max_half_open_per_client,
            max_half_open_per_network: capacity.max_half_open_per_network,
            max_block_size: protocol.max_block_size.unwrap_or(limits::MAX_BLKSIZE),
            // An explicit size is wanted even if it travels in fragments.
            fit_route: protocol.max_block_size.is_none(),
            max_window_size: protocol.max_window_size,
            timeout: protocol.timeout,
            retries: protocol.retries,
            retransmit: match protocol.retransmit {
                When::Adaptive => Retransmit::Adaptive,
                When::Rfc => Retransmit::Rfc,
            },
            min_progress: protocol.min_progress,
            max_time: protocol.max_time,
            ports: network.port_range.clone(),
            client_history: !protocol.no_client_history,
            dont_fragment: network.dont_fragment,
            freebind: network.freebind,
            answer_broadcast: network.answer_broadcast,
            ..ServerConfig::default()
        };
        let builder = Server::builder(layers.store).config(config);
        let builder = match self.access.rules() {
            Some(rules) => builder.access(move |request| rules.decide(request)),
            None => builder,
        };
        if !sockets.is_empty() {
            if let Some(option) = network.binding_option() {
                return Err(Trouble {
                    words: format!(
                        "{option} has no effect on the sockets of the service manager (change the socket unit, or disable it)"
                    ),
                    code: 2,
                });
            }
            return Ok(sockets
                .into_iter()
                .fold(builder, ServerBuilder::socket)
                .listen()?);
        }
        if network.host.is_empty() {
            return Ok(builder.bind_any(network.port()).listen()?);
        }
        let addresses = self.addresses()?;
        Ok(addresses
            .into_iter()
            .fold(builder, ServerBuilder::bind)
            .listen()?)
    }

    /// What the hosts that were named stand for, each address once.
    fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = Vec::new();
        for host in &self.network.host {
            let found = (host.as_str(), self.network.port())
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
    dir.reopen().map_err(|error| let_read(&error, name))
}

/// What was readable with the rights of the start, and is not for this user.
fn let_read(error: &impl std::fmt::Display, name: &str) -> String {
    format!("{error} (as user {name}; let that user read it, or choose another with --user)")
}

/// A server that takes requests.
struct Running {
    server: ServerHandle,
    /// The line that says what is served where.
    banner: String,
}

/// Listens to signals for as long as the process lives: also while the server is being set up,
/// which a host name or a file server can hold up for long.
fn obey(
    signals: Signals,
    running: Arc<OnceLock<Running>>,
    (manager, log): (Manager, Log),
    sandbox: sandbox::Mode,
    mut reread: Reread,
) -> Result<(), String> {
    let mut next_stop = Stop::Drain(DRAIN);
    let mut obey_one = move || {
        let (signal, name) = signals.wait();
        match (signal, running.get()) {
            (Signal::Terminate, Some(Running { server, .. })) => {
                log::info!("stopping signal={name}");
                manager.stopping();
                server.stop(std::mem::replace(&mut next_stop, Stop::Now));
            }
            (Signal::Quit, Some(Running { server, .. })) => {
                log::info!("stopping signal={name}");
                manager.stopping();
                server.stop(Stop::Now);
            }
            (Signal::Terminate | Signal::Quit, None) => {
                log::info!("stopping signal={name}");
                log.flush();
                std::process::exit(0);
            }
            (Signal::Reload, Some(Running { server, banner })) => {
                log::info!("reloading");
                manager.reloading();
                (reread.read)();
                let (manager, banner) = (manager.clone(), banner.clone());
                server.reload_then(move || manager.ready(&banner));
            }
            (Signal::Report, running) => {
                let server = running.map(|running| &running.server);
                let counters = server.map(ServerHandle::stats).unwrap_or_default();
                log.answer(format_args!(
                    "counters active={} {}",
                    counters.active,
                    Counters(&counters)
                ));
                let gauges = server.map(ServerHandle::gauges).unwrap_or_default();
                log.answer(format_args!("gauges {}", Held(&gauges)));
            }
            (Signal::Debug, _) => {
                let state = if log.toggle_debug() { "on" } else { "off" };
                log.answer(format_args!("debug lines {state}"));
            }
            (Signal::Reload, None) | (Signal::Other, _) => log::info!("ignored signal={name}"),
        }
    };
    let listen = move || {
        sandbox::confine_helper(sandbox, &reread.files);
        loop {
            obey_one();
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
            "completed={} failed={} refused={} probes={} dropped={} denied={} bytes={} retransmits={}",
            stats.completed,
            stats.failed,
            stats.refused,
            stats.probes,
            stats.dropped,
            stats.denied,
            stats.bytes,
            stats.retransmits
        )
    }
}

/// What the server holds, as `key=value`.
struct Held<'a>(&'a Gauges);

impl std::fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Gauges {
            running,
            parked,
            queued,
            in_store,
            half_open,
            workers,
            buffered_bytes,
        } = self.0;
        write!(
            f,
            "running={running} parked={parked} queued={queued} in_store={in_store} half_open={half_open} workers={workers} buffered_bytes={buffered_bytes}"
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
