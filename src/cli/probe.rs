//! `tftpool probe`: asks one server for one file in many ways, and says in words what it can do.
//!
//! Every question is one request with a socket of its own, answered by its first window at most and
//! then ended with an ERROR; there are at most 16 of them, and one more for each further address of
//! the host, none overlaps another, and all of them together have a time limit. This looks at
//! single packets, which [`Client`] hides on purpose.
//!
//! What works is then timed: up to 9 pairs of block size and window, each by a download of the
//! [`Client`] that is broken off after half a second. The probe recommends the fastest of these
//! pairs, not the largest that works.

use super::Exit;
use super::json;
use super::place::{Family, Place};
use super::settings::Families;
use super::value::{self, Parser};
use crate::client::Client;
use crate::event::Summary;
use crate::limits;
use crate::sys::udp::{self, SocketOptions, TransferSocket};
use crate::text::Name;
use crate::transfer::now;
use crate::wire::{self, Direction, ErrorCode, Mode, OptionName, Options, Packet, Request};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Addresses of one host that are asked.
const MOST_ADDRESSES: usize = 8;
/// A question is asked so often before silence is the answer.
const SENDS: u32 = 3;
/// How long one send is waited for; also the pause that ends a window.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Datagrams read for one question: the largest window and some copies.
const MOST_DATAGRAMS: usize = 512;
/// Block sizes that are tried: 1428 fits through IPv6, VLAN and PPPoE on Ethernet, 1468 through plain Ethernet, 8192 through
/// jumbo frames; what is larger travels in fragments.
const BLOCK_SIZES: [u16; 6] = [1024, 1428, 1468, 8192, 32768, limits::MAX_BLKSIZE];
/// Windows that are tried, in blocks.
const WINDOWS: [u16; 4] = [4, 16, 64, 256];

/// Octets, and time, after which a download that is timed is broken off.
const SAMPLE: (u64, Duration) = (64 << 20, Duration::from_millis(500));
/// A shorter file is over before its rate says anything.
const LEAST_SAMPLE: u64 = 256 << 10;

/// Find out what a server can do, and the fastest settings for it
///
/// Asks for one file without options at up to 8 addresses of the host, and at the first that serves
/// it in up to 15 more ways: with each option, and with growing blocks and windows. Then up to 9
/// pairs of both are timed, each for half a second. Nothing is stored. A file of a few MiB shows
/// most.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// File to ask for: tftp://HOST[:PORT]/PATH or HOST:PATH
    #[arg(value_name = "SOURCE", num_args = 1.., required = true)]
    place: Vec<String>,

    /// Stop asking after this time, 1s to 1h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = value::long_time as Parser<_>)]
    max_time: Duration,

    #[command(flatten)]
    families: Families,

    /// Print one JSON object per line [default: a table]
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    verbosity: super::Verbosity,
}

/// Runs the subcommand.
pub(super) fn main(arguments: &Arguments) -> Exit {
    arguments.verbosity.start();
    let source = match &arguments.place[..] {
        [source] => source,
        [host, path] => {
            let words = format!("expected one SOURCE: write tftp://{host}/{path}");
            return Exit::usage(&words);
        }
        _ => return Exit::usage("expected one SOURCE: a probe asks for one file"),
    };
    let place: Place = match source.parse() {
        Ok(place) => place,
        Err(words) => return Exit::usage(&format!("{source}: {words}")),
    };
    if place.path.is_empty() {
        return Exit::usage("PATH is empty: a probe needs a file that the server has");
    }
    match probe(&place, arguments.families.family(), arguments.max_time) {
        Ok(report) => {
            let printed = super::print(&if arguments.json {
                report.json()
            } else {
                report.table(&place)
            });
            report.exit().or(printed)
        }
        Err(words) => {
            if arguments.json {
                let mut line = json::Object::new();
                line.boolean("works", false).text("error", &words);
                return Exit::FAILURE.or(super::print(&line.line()));
            }
            super::say(&words);
            Exit::FAILURE
        }
    }
}

// ---- one question -------------------------------------------------------------------------------

/// What came back first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The time was over before this was asked.
    NotAsked,
    Silence,
    /// Nobody listens: ICMP said so.
    Closed,
    /// This machine could not send it, or has heard that it cannot arrive: the cause.
    Trouble(String),
    Error(ErrorCode, Name),
    /// DATA 1 with so many octets: the options were ignored, if there were any.
    Data(usize),
    Agreed(Options),
    /// So many octets came with these settings, or none for this reason.
    Timed(Result<Timing, String>),
    /// What makes no sense here.
    Strange,
}

/// How fast a download was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timing {
    blksize: u16,
    windowsize: u16,
    octets: u64,
    time: Duration,
    lossy_windows: u64,
}

impl Timing {
    fn octets_per_second(&self) -> u128 {
        u128::from(self.octets) * 1_000_000 / self.time.as_micros().max(1)
    }
}

impl From<Summary> for Timing {
    fn from(summary: Summary) -> Self {
        Self {
            blksize: summary.blksize,
            windowsize: summary.windowsize,
            octets: summary.bytes,
            time: summary.duration,
            lossy_windows: summary.torn,
        }
    }
}

impl Answer {
    fn failed(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Closed,
            _ => Self::Trouble(crate::error::plain(error)),
        }
    }
}

/// One question and what became of it.
#[derive(Clone, Debug)]
struct Row {
    /// What was asked for, as shown.
    asked: String,
    options: Options,
    server: SocketAddr,
    answer: Answer,
    from: Option<SocketAddr>,
    time: Duration,
    /// Blocks of the first window that came, and the octets of the first of them.
    blocks: u16,
    octets: usize,
    /// The last of them was shorter than agreed: the file ends there.
    is_whole: bool,
}

impl Row {
    fn new(asked: impl Into<String>, options: Options, server: SocketAddr) -> Self {
        Self {
            asked: asked.into(),
            options,
            server,
            answer: Answer::NotAsked,
            from: None,
            time: Duration::ZERO,
            blocks: 0,
            octets: 0,
            is_whole: false,
        }
    }

    /// Times a download with this block size and window, which ends `until` then.
    fn time(mut self, name: &[u8], blksize: u16, windowsize: u16, until: Instant) -> Self {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return self;
        }
        let client = Client::new(self.server)
            .blksize(blksize)
            .windowsize(windowsize)
            .retries(1)
            .max_time(left);
        self.answer = Answer::Timed(match client.sample(name, SAMPLE.0, SAMPLE.1) {
            Ok(summary) => {
                (self.from, self.time) = (Some(summary.peer), summary.duration);
                Ok(summary.into())
            }
            Err(failure) => Err(failure.to_string()),
        });
        self
    }

    fn timing(&self) -> Option<Timing> {
        match &self.answer {
            Answer::Timed(timing) => timing.as_ref().ok().copied(),
            _ => None,
        }
    }

    /// Asks, and waits no longer than `until`.
    fn ask(mut self, name: &[u8], until: Instant) -> Self {
        if now() >= until {
            return self;
        }
        if let Some(words) = Client::new(self.server).lacks_interface(self.server) {
            self.answer = Answer::Trouble(words);
            return self;
        }
        let socket = match UdpSocket::bind((wildcard(self.server), 0)) {
            Ok(socket) => socket,
            Err(error) => {
                self.answer = Answer::failed(&error);
                return self;
            }
        };
        // What is lost is the network's doing then, not ours.
        udp::make_room(&socket, limits::DEFAULT_BLKSIZE, WINDOWS[WINDOWS.len() - 1]);
        // Otherwise nobody tells it that a port is closed: it is not connected, because the answer comes from another one.
        udp::hear_errors(&socket, self.server, true);
        let request = Request {
            direction: Direction::Read,
            name,
            mode: Mode::Octet,
            options: self.options,
        };
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        log::debug!("asking {} for {}", self.server, Name::new(&datagram));
        self.answer = Answer::Silence;
        let mut buffer = vec![0; limits::RECEIVE_OCTETS];
        for _ in 0..SENDS {
            let sent = now();
            let end = until.min(sent + ANSWER_WAIT);
            let asked = socket.send_to(&datagram, self.server);
            match asked.and_then(|_| receive(&socket, &mut buffer, end)) {
                Ok(Some((length, from))) => {
                    self.time = now().saturating_duration_since(sent);
                    self.from = Some(from);
                    self.first(&socket, from, &mut buffer, length, until);
                    break;
                }
                Ok(None) if now() >= until => break,
                Ok(None) => {}
                // A hint, which anybody can forge: it is asked again.
                Err(error) => self.answer = Answer::failed(&error),
            }
        }
        self
    }

    fn first(
        &mut self,
        socket: &UdpSocket,
        from: SocketAddr,
        buffer: &mut [u8],
        length: usize,
        until: Instant,
    ) {
        self.answer = match wire::parse(&buffer[..length]) {
            Ok(Packet::Error { code, message }) => {
                self.answer = Answer::Error(code, Name::new(message));
                return; // an ERROR is never answered
            }
            Ok(Packet::Data { block: 1, payload }) => Answer::Data(payload.len()),
            Ok(Packet::OptionAck(options)) => Answer::Agreed(options),
            _ => Answer::Strange,
        };
        if let Answer::Agreed(options) = self.answer {
            self.window(socket, from, buffer, &options, until);
        }
        let mut farewell = Vec::new();
        wire::emit_error(ErrorCode::NOT_DEFINED, "probe is over", &mut farewell);
        let _ = socket.send_to(&farewell, from);
    }

    /// Confirms the OACK and counts what comes of the first window.
    fn window(
        &mut self,
        socket: &UdpSocket,
        from: SocketAddr,
        buffer: &mut [u8],
        agreed: &Options,
        until: Instant,
    ) {
        let number = |name| agreed.get(name).and_then(|value| u16::try_from(value).ok());
        let blksize = number(OptionName::Blksize).or_else(|| number(OptionName::Blksize2));
        let blksize = usize::from(blksize.unwrap_or(limits::DEFAULT_BLKSIZE));
        let window = number(OptionName::Windowsize).unwrap_or(1);
        for _ in 0..SENDS {
            let _ = socket.send_to(&wire::ack(0), from);
            let mut end = until.min(now() + ANSWER_WAIT);
            for _ in 0..MOST_DATAGRAMS {
                let Ok(Some((length, source))) = receive(socket, buffer, end) else {
                    break;
                };
                if source != from {
                    continue;
                }
                let Ok(Packet::Data { block, payload }) = wire::parse(&buffer[..length]) else {
                    continue;
                };
                if block == self.blocks + 1 {
                    self.blocks = block;
                    if block == 1 {
                        self.octets = payload.len();
                    }
                    self.is_whole = payload.len() < blksize;
                    end = until.min(now() + ANSWER_WAIT);
                }
                if self.blocks == window || self.is_whole {
                    return;
                }
            }
            if self.blocks > 0 {
                return;
            }
        }
    }

    fn agreed(&self) -> Option<Options> {
        match self.answer {
            Answer::Agreed(options) => Some(options),
            _ => None,
        }
    }

    fn granted(&self, name: OptionName) -> Option<u64> {
        self.agreed()?.get(name)
    }

    fn is_heard(&self) -> bool {
        !matches!(
            self.answer,
            Answer::NotAsked | Answer::Silence | Answer::Closed | Answer::Trouble(_)
        )
    }

    /// What came, in the words of the protocol.
    fn got(&self) -> String {
        match &self.answer {
            Answer::NotAsked => "-".into(),
            Answer::Silence => "nothing".into(),
            Answer::Closed => "port is closed".into(),
            Answer::Trouble(_) => "no way there".into(),
            Answer::Error(code, text) => format!("ERROR {} {text}", code.0),
            Answer::Data(octets) => format!("DATA, {octets} octets"),
            Answer::Agreed(options) => format!("OACK {options}"),
            Answer::Timed(Ok(timing)) => format!("{} octets", timing.octets),
            Answer::Timed(Err(_)) => "no file".into(),
            Answer::Strange => "no TFTP".into(),
        }
    }

    /// What it means, at a server that knows some options or none.
    fn verdict(&self, knows_options: bool) -> String {
        let asked: Vec<_> = self.options.iter().collect();
        match &self.answer {
            Answer::NotAsked => return "not tried: the time was over".into(),
            Answer::Silence if asked.is_empty() => {
                return "no answer: wrong address, a firewall, or no server".into();
            }
            Answer::Silence => return "no answer to a request with this option".into(),
            Answer::Closed => return "no server at this port".into(),
            Answer::Trouble(cause) => return format!("cannot be asked: {cause}"),
            Answer::Strange => return "something else than TFTP answers here".into(),
            Answer::Error(ErrorCode(1), _) => return "server does not have this file".into(),
            Answer::Error(ErrorCode(8), _) => return "server refuses this option".into(),
            Answer::Error(..) => return "server refuses".into(),
            Answer::Data(_) if asked.is_empty() => return self.origin().into(),
            Answer::Data(_) if !knows_options => return "server ignores options".into(),
            Answer::Timed(Err(cause)) => return format!("cannot be timed: {cause}"),
            Answer::Timed(Ok(timing)) => return self.pace(timing),
            Answer::Data(_) => {}
            Answer::Agreed(_) => {}
        }
        let Some(&(name, wanted)) = asked.last() else {
            return "an OACK that nobody asked for".into();
        };
        let Some(granted) = self.granted(name) else {
            return format!("server ignores {}", name.as_str());
        };
        match name {
            _ if self.blocks == 0 => {
                if granted > u64::from(limits::DEFAULT_BLKSIZE) && name == OptionName::Blksize {
                    format!("blocks of {granted} never arrive: MTU or fragments")
                } else {
                    "agreed, but no data comes".into()
                }
            }
            OptionName::Tsize => format!("the file has {granted} octets"),
            _ if granted > wanted => "more than was asked for: a broken server".into(),
            OptionName::Blksize | OptionName::Blksize2 => {
                let full = self.octets as u64 == granted;
                match (granted == wanted, full) {
                    (true, true) => "works".into(),
                    (false, true) => format!("lowered to {granted}, works"),
                    (_, false) => "agreed; the file is too small to show it".into(),
                }
            }
            OptionName::Windowsize => {
                let lowered = if granted == wanted { "" } else { "lowered, " };
                match u64::from(self.blocks) == granted {
                    true => format!("{lowered}whole window arrives"),
                    false if self.is_whole => {
                        format!("{lowered}agreed; the file is too small to show it")
                    }
                    false => format!("{} of {granted} blocks arrive: loss", self.blocks),
                }
            }
            _ => "works".into(),
        }
    }

    /// The rate, and what differs from the settings that were asked for.
    fn pace(&self, timing: &Timing) -> String {
        let tenths = (timing.octets_per_second() * 10) >> 20;
        let mut words = format!("{}.{} MiB/s", tenths / 10, tenths % 10);
        let asked = |name| self.options.get(name).unwrap_or(1);
        let (size, window) = (asked(OptionName::Blksize), asked(OptionName::Windowsize));
        let (blksize, windowsize) = (timing.blksize, timing.windowsize);
        if (u64::from(blksize), u64::from(windowsize)) != (size, window) {
            let _ = write!(words, " with blksize {blksize}, window {windowsize}");
        }
        if timing.octets < LEAST_SAMPLE {
            words.push_str("; the file is too small to show it");
        }
        if timing.lossy_windows > 0 {
            let _ = write!(words, "; {} windows with loss", timing.lossy_windows);
        }
        words
    }

    /// Who answered, seen from who was asked.
    fn origin(&self) -> &'static str {
        match self.from {
            Some(from) if from.ip() != self.server.ip() => {
                "answers from another address: NAT or multi-homing"
            }
            Some(from) if from.port() == self.server.port() => {
                "answers from the port that was asked: single-port mode"
            }
            _ => "works",
        }
    }

    /// Blocks of this size came through.
    fn block_works(&self) -> bool {
        self.granted(OptionName::Blksize) == Some(self.octets as u64)
    }

    /// A window of this size came through whole, or as far as the file goes.
    fn window_works(&self) -> bool {
        let granted = self.granted(OptionName::Windowsize);
        self.blocks > 0 && (granted == Some(self.blocks.into()) || self.is_whole)
    }
}

/// Of these numbers the `usual` one, or the largest below it, and the two largest, in order.
fn chosen(numbers: impl Iterator<Item = u16>, usual: u16) -> Vec<u16> {
    let mut all: Vec<u16> = numbers.collect();
    all.sort_unstable();
    all.dedup();
    let below = all.iter().filter(|number| **number <= usual).count();
    all.drain(..below.saturating_sub(1));
    if all.len() > 3 {
        all.drain(1..all.len() - 2);
    }
    all
}

/// These, or what holds without options where there are none.
fn or_plain(numbers: Vec<u16>, plain: u16) -> Vec<u16> {
    match numbers.is_empty() {
        true => vec![plain],
        false => numbers,
    }
}

fn wildcard(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The next datagram; `None` when none came in time.
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    end: Instant,
) -> io::Result<Option<(usize, SocketAddr)>> {
    let left = end.saturating_duration_since(now());
    socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    match socket.recv_from(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

// ---- all of them ----------------------------------------------------------------------------------

struct Report {
    rows: Vec<Row>,
    /// The largest block that the route to the server carries in one piece, as far as this machine knows.
    room: Option<usize>,
}

fn probe(place: &Place, family: Family, most: Duration) -> Result<Report, String> {
    let until = now() + most;
    let addresses = place.addresses(family)?;
    let mut rows = Vec::new();
    for &server in addresses.iter().take(MOST_ADDRESSES) {
        let row = Row::new(format!("{server}, no options"), Options::default(), server);
        rows.push(row.ask(&place.path, until));
    }
    let works = |row: &&Row| matches!(row.answer, Answer::Data(_));
    let Some(server) = rows.iter().find(works).map(|row| row.server) else {
        return Ok(Report { rows, room: None });
    };
    let option = |name: OptionName, value: u64| Options::default().with(name, value);
    let single = [
        option(OptionName::Tsize, 0),
        option(OptionName::Timeout, 3),
        option(OptionName::Utimeout, 500_000),
        option(OptionName::Rollover, 0),
        option(OptionName::Blksize2, 1024),
    ];
    let sizes = BLOCK_SIZES.map(|size| option(OptionName::Blksize, size.into()));
    let windows = WINDOWS.map(|window| option(OptionName::Windowsize, window.into()));
    for options in single.into_iter().chain(sizes).chain(windows) {
        let row = Row::new(options.to_string(), options, server);
        rows.push(row.ask(&place.path, until));
    }
    let local = SocketAddr::new(wildcard(server), 0);
    let room = TransferSocket::open(local, server, &SocketOptions::default())
        .and_then(|socket| socket.room())
        .ok();
    let mut report = Report {
        rows,
        room: room.map(|octets| octets.saturating_sub(limits::DATA_HEADER)),
    };
    let (sizes, windows) = (report.sizes(), report.windows());
    if (&sizes[..], &windows[..]) == (&[limits::DEFAULT_BLKSIZE], &[1]) {
        return Ok(report); // there is nothing to choose
    }
    for size in sizes {
        for &window in &windows {
            let mut options = Options::default().with(OptionName::Blksize, size.into());
            if window > 1 {
                options = options.with(OptionName::Windowsize, window.into());
            }
            let row = Row::new(format!("timed: {options}"), options, server);
            let row = row.time(&place.path, size, window, until);
            let is_lowered = (row.timing()).is_some_and(|timing| timing.windowsize < window);
            report.rows.push(row);
            if is_lowered {
                break; // a larger one would come out the same
            }
        }
    }
    Ok(report)
}

impl Report {
    fn knows_options(&self) -> bool {
        self.rows.iter().any(|row| row.agreed().is_some())
    }

    /// Block sizes to time: the client's own, and the two largest that come through and stay within
    /// the route's MTU.
    fn sizes(&self) -> Vec<u16> {
        let room = self.room.unwrap_or(usize::MAX);
        let works = |row: &&Row| row.block_works() && row.octets <= room;
        let all = self.rows.iter().filter(works);
        let sizes = chosen(all.map(|row| row.octets as u16), limits::CLIENT_BLKSIZE);
        or_plain(sizes, limits::DEFAULT_BLKSIZE)
    }

    /// Windows to time: the client's own, and the two largest that come through.
    fn windows(&self) -> Vec<u16> {
        let granted = |row: &Row| u16::try_from(row.granted(OptionName::Windowsize)?).ok();
        let all = self.rows.iter().filter(|row| row.window_works());
        or_plain(
            chosen(all.filter_map(granted), limits::CLIENT_WINDOWSIZE),
            1,
        )
    }

    /// The fastest block size and window. Larger ones must be a tenth faster than smaller ones:
    /// less is noise.
    fn best(&self) -> (u16, u16) {
        let timings = self.rows.iter().filter_map(Row::timing);
        let timed = timings.filter(|timing| timing.octets >= LEAST_SAMPLE);
        let best = timed.reduce(|best, next| {
            let is_faster = 10 * next.octets_per_second() > 11 * best.octets_per_second();
            if is_faster { next } else { best }
        });
        match best {
            Some(timing) => (timing.blksize, timing.windowsize),
            // Nothing was timed: what works, up to what a client asks for on its own.
            None => (self.sizes()[0], self.windows()[0]),
        }
    }

    /// The best settings as options of `tftpool get`; `None` where nothing works.
    fn advice(&self) -> Option<String> {
        self.rows
            .iter()
            .find(|row| matches!(row.answer, Answer::Data(_)) && row.options.is_empty())?;
        Some(match self.best() {
            (limits::DEFAULT_BLKSIZE, 1) => "--no-options".into(),
            (size, window) => format!("--blksize {size} --windowsize {window}"),
        })
    }

    fn exit(&self) -> Exit {
        let mut exits = self.rows.iter().map(|row| match &row.answer {
            Answer::Error(code, _) => Exit::of(*code),
            Answer::Trouble(_) => Exit::FAILURE,
            Answer::Closed => Exit::PORT_CLOSED,
            _ if row.is_heard() => Exit::SUCCESS,
            _ => Exit::TIMED_OUT,
        });
        match self.advice() {
            Some(_) => Exit::SUCCESS,
            None => exits.next().unwrap_or(Exit::FAILURE),
        }
    }

    fn table(&self, place: &Place) -> String {
        let mut cells = vec![["asked for", "got", "from", "time", "verdict"].map(str::to_owned)];
        for row in &self.rows {
            let heard = |text: &dyn Fn(SocketAddr) -> String| row.from.map_or("-".into(), text);
            cells.push([
                row.asked.clone(),
                row.got(),
                heard(&|from| from.to_string()),
                heard(&|_| super::format::millis(row.time)),
                row.verdict(self.knows_options()),
            ]);
        }
        let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
        let mut table = format!("{place}\n\n");
        for [asked, got, from, time, verdict] in &cells {
            let _ = writeln!(
                table,
                "{asked:first$}  {got:second$}  {from:third$}  {time:>fourth$}  {verdict}"
            );
        }
        table.push('\n');
        if let Some(room) = self.room {
            let _ = writeln!(
                table,
                "the route carries blocks of {room} octets in one piece"
            );
        }
        match self.advice() {
            Some(best) => {
                let _ = writeln!(table, "best settings: {best}");
            }
            None => table.push_str("nothing works here\n"),
        }
        table
    }

    fn json(&self) -> String {
        let mut lines = String::new();
        for row in &self.rows {
            let mut line = json::Object::new();
            line.text("asked", &row.options.to_string())
                .text("server", &row.server.to_string())
                .text("got", &row.got())
                .text("verdict", &row.verdict(self.knows_options()));
            if let Some(from) = row.from {
                line.text("from", &from.to_string())
                    .number("us", row.time.as_micros());
                match row.timing() {
                    Some(timing) => line
                        .number("octets", timing.octets)
                        .number("blksize", timing.blksize)
                        .number("windowsize", timing.windowsize),
                    None => line
                        .number("blocks", row.blocks)
                        .number("octets", row.octets),
                };
            }
            lines.push_str(&line.line());
        }
        let mut line = json::Object::new();
        let (size, window) = self.best();
        line.boolean("works", self.advice().is_some())
            .number("blksize", size)
            .number("windowsize", window);
        if let Some(room) = self.room {
            line.number("room", room);
        }
        lines.push_str(&line.line());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(options: Options, answer: Answer) -> Row {
        Row {
            answer,
            from: Some(([192, 0, 2, 1], 4000).into()),
            ..Row::new("", options, ([192, 0, 2, 1], 69).into())
        }
    }

    fn asked(name: OptionName, value: u64) -> Options {
        Options::default().with(name, value)
    }

    #[test]
    fn verdicts_are_words() {
        let (size, window) = (OptionName::Blksize, OptionName::Windowsize);
        let plain = |answer| row(Options::default(), answer);
        assert_eq!(plain(Answer::Data(512)).verdict(true), "works");
        let other = Row {
            from: Some(([192, 0, 2, 2], 4000).into()),
            ..plain(Answer::Data(512))
        };
        assert_eq!(
            other.verdict(true),
            "answers from another address: NAT or multi-homing"
        );
        let single = Row {
            from: Some(([192, 0, 2, 1], 69).into()),
            ..plain(Answer::Data(512))
        };
        assert_eq!(
            single.verdict(true),
            "answers from the port that was asked: single-port mode"
        );
        let ignored = row(asked(size, 1428), Answer::Data(512));
        assert_eq!(ignored.verdict(false), "server ignores options");
        let granted =
            |name, wanted, got| row(asked(name, wanted), Answer::Agreed(asked(name, got)));
        assert_eq!(
            granted(size, 8192, 8192).verdict(true),
            "blocks of 8192 never arrive: MTU or fragments"
        );
        let with = |row: Row, blocks, octets| Row {
            blocks,
            octets,
            ..row
        };
        assert_eq!(
            with(granted(size, 8192, 8192), 1, 8192).verdict(true),
            "works"
        );
        assert_eq!(
            with(granted(size, 8192, 1432), 1, 1432).verdict(true),
            "lowered to 1432, works"
        );
        assert_eq!(
            with(granted(size, 8192, 9000), 1, 9000).verdict(true),
            "more than was asked for: a broken server"
        );
        assert_eq!(
            with(granted(window, 64, 32), 32, 512).verdict(true),
            "lowered, whole window arrives"
        );
        assert_eq!(
            with(granted(window, 64, 64), 9, 512).verdict(true),
            "9 of 64 blocks arrive: loss"
        );
        let tsize = with(granted(OptionName::Tsize, 0, 70_000), 1, 512);
        assert_eq!(tsize.verdict(true), "the file has 70000 octets");
        let refused = row(
            asked(size, 1428),
            Answer::Error(ErrorCode(8), Name::new(b"no")),
        );
        assert_eq!(refused.verdict(true), "server refuses this option");
    }

    fn report(sizes: &[u16], windows: &[u16]) -> Report {
        let agreed = |name, number: u16, blocks, octets: u16| Row {
            blocks,
            octets: octets.into(),
            ..row(
                asked(name, number.into()),
                Answer::Agreed(asked(name, number.into())),
            )
        };
        let size = |size: &u16| agreed(OptionName::Blksize, *size, 1, *size);
        let window = |window: &u16| agreed(OptionName::Windowsize, *window, (*window).min(64), 512);
        let plain = row(Options::default(), Answer::Data(512));
        let rows = [plain].into_iter();
        let rows = rows.chain(sizes.iter().map(size));
        Report {
            rows: rows.chain(windows.iter().map(window)).collect(),
            room: Some(8192),
        }
    }

    #[test]
    fn the_usual_pair_and_the_largest_within_the_mtu_are_timed() {
        let all = report(&[1024, 1428, 1468, 8192, 32768], &[4, 16, 64, 256]);
        assert_eq!(all.sizes(), [1428, 1468, 8192]);
        assert_eq!(all.windows(), [16, 64], "256 lost blocks");
        let few = report(&[1024], &[4]);
        assert_eq!((few.sizes(), few.windows()), (vec![1024], vec![4]));
        let large = report(&[8192], &[]);
        assert_eq!((large.sizes(), large.windows()), (vec![8192], vec![1]));
        assert_eq!(chosen([9, 1, 2, 3, 4, 5, 3].into_iter(), 3), [3, 5, 9]);
    }

    /// Each pair with its mebibytes a second, of which so many came.
    fn timed(report: &mut Report, timings: &[(u16, u16, u64)], octets: u64) {
        report
            .rows
            .extend(timings.iter().map(|&(blksize, windowsize, rate)| {
                let timing = Timing {
                    blksize,
                    windowsize,
                    octets,
                    time: Duration::from_micros(octets * 1_000_000 / (rate << 20)),
                    lossy_windows: 0,
                };
                row(Options::default(), Answer::Timed(Ok(timing)))
            }));
    }

    #[test]
    fn the_fastest_pair_is_recommended_and_not_the_largest() {
        let mut report = report(&[1024, 1428, 8192], &[16, 64]);
        assert_eq!(
            report.advice().as_deref(),
            Some("--blksize 1428 --windowsize 16"),
            "nothing was timed"
        );
        let timings = [
            (1428, 16, 400),
            (1428, 64, 430),
            (8192, 16, 900),
            (8192, 64, 70),
        ];
        timed(&mut report, &timings, LEAST_SAMPLE - 1);
        assert_eq!(report.best(), (1428, 16), "the file is too small");
        let verdict = report.rows.last().map(|row| row.verdict(true));
        assert_eq!(
            verdict.as_deref(),
            Some("70.0 MiB/s with blksize 8192, window 64; the file is too small to show it")
        );
        timed(&mut report, &timings, 16 << 20);
        assert_eq!(
            report.advice().as_deref(),
            Some("--blksize 8192 --windowsize 16")
        );
        let mut noise = super::tests::report(&[1428], &[16, 64]);
        timed(&mut noise, &timings[..2], 16 << 20);
        assert_eq!(noise.best(), (1428, 16), "not a tenth faster");
        let old = super::tests::report(&[], &[]);
        assert_eq!(old.advice().as_deref(), Some("--no-options"));
    }

    #[test]
    fn what_a_server_says_cannot_move_the_cursor() {
        let text = Name::new(b"\x1b[2Jgone\r\n");
        let report = Report {
            rows: vec![row(Options::default(), Answer::Error(ErrorCode(1), text))],
            room: None,
        };
        let place = "h:f".parse().expect("a place");
        let shown = report.table(&place) + &report.json();
        assert!(!shown.contains(['\x1b', '\r']), "{shown:?}");
        assert_eq!(report.exit(), Exit::of(ErrorCode(1)));
    }
}
