//! The client: one file from a server or to it, in the caller's thread.
//!
//! A request asks for large blocks, a window and the file's size. A server that refuses options, or is silent to them, is
//! asked once more without any, as long as no octet of the file has moved; one that ignores them is understood at once. What
//! a server says is believed only as far as it was asked: it never makes a block, a window or a file larger.
//!
//! A server that is not there yet is waited for. A closed port and a network that is down never
//! shorten the patience of a request: half of it belongs to the first attempt, half to the second.
//! The second attempt has no options, unless the network refused the last request of the first one:
//! then the silence was not the options' fault.

use crate::error::{Failure, Refusal, plain};
use crate::event::{Name, Summary, TransferId};
use crate::limits;
use crate::proto::{Agreed, Policy, Receiver, Sender};
use crate::store::mappings::Mappings;
use crate::store::{Sink, Source};
use crate::sys;
use crate::sys::udp::{SocketOptions, TransferSocket};
use crate::transfer::{
    Body, End, Ending, Exchange, Origin, Scratch, Surroundings, Trouble, Turn, now,
};
use crate::wire::{Direction, ErrorCode, Mode, OptionName, Options, Request};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Gets files from a TFTP server and puts them there. It blocks, on purpose, and starts no thread.
///
/// ```no_run
/// use tftpool::Client;
///
/// let client = Client::new("192.0.2.1:69".parse()?).windowsize(64);
/// let mut kernel = Vec::new();
/// let summary = client.get("boot/vmlinuz", &mut kernel)?;
/// println!("{} octets in {:?}", summary.bytes, summary.duration);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    servers: Vec<SocketAddr>,
    /// As asked for; `None` leaves it to the route.
    blksize: Option<u16>,
    windowsize: u16,
    mode: Mode,
    asks_options: bool,
    asks_size: bool,
    timeout: Option<Duration>,
    retries: u32,
    max_time: Option<Duration>,
    final_timeout: Duration,
    max_size: u64,
    local: Option<IpAddr>,
    sockets: SocketOptions,
    watch: Option<Watch>,
    /// Bytes, and time, after which a transfer is broken off as if it were complete.
    sample: Option<(u64, Duration)>,
}

type Watch = Arc<dyn Fn(&Progress) + Send + Sync>;

/// How far a client's transfer is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Octets of the file that have arrived, at this end or the other.
    pub bytes: u64,
    /// Octets of the whole file, where they are known.
    pub size: Option<u64>,
    /// Since the call of [`Client::get`] or [`Client::put`].
    pub elapsed: Duration,
    /// Smoothed round trip, where one was measured.
    pub rtt: Option<Duration>,
    /// Packets that were sent again.
    pub retransmits: u64,
}

impl Client {
    /// A client of this server.
    pub fn new(server: SocketAddr) -> Self {
        Self::with_addresses([server])
    }

    /// A client of a server that has several addresses. The next one is asked when one does not
    /// answer, and at once when its port is closed or no route leads to it; such an address is
    /// asked again after the others.
    pub fn with_addresses(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            blksize: None,
            windowsize: limits::CLIENT_WINDOWSIZE,
            mode: Mode::Octet,
            asks_options: true,
            asks_size: true,
            timeout: None,
            retries: limits::DEFAULT_RETRIES,
            max_time: None,
            final_timeout: limits::CLIENT_FINAL_TIMEOUT,
            max_size: limits::MAX_DOWNLOAD,
            local: None,
            sockets: SocketOptions::default(),
            watch: None,
            sample: None,
        }
    }

    /// Octets in a block to ask for, 8 to 65464 (RFC 2348); others are moved into that range. Without it 1428, or what the
    /// route to the server carries in one piece, if that is less.
    #[must_use]
    pub fn blksize(mut self, octets: u16) -> Self {
        self.blksize = Some(octets.clamp(limits::MIN_BLKSIZE, limits::MAX_BLKSIZE));
        self
    }

    /// Blocks in a window to ask for, 1 to 32767 (RFC 7440); others are moved into that range. 16
    /// without it. A download asks for no more than the socket's receive buffer holds.
    #[must_use]
    pub fn windowsize(mut self, blocks: u16) -> Self {
        self.windowsize = blocks.clamp(1, limits::MAX_WINDOWSIZE);
        self
    }

    /// How octets are translated; [`Mode::Octet`], not at all, without it.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether options are asked for at all (RFC 2347). Without them blocks have 512 octets and each one is waited for.
    #[must_use]
    pub fn options(mut self, asks: bool) -> Self {
        self.asks_options = asks;
        self
    }

    /// Whether the server is asked for the file's size, and held to it; told, when it gets one (RFC 2349). For servers that
    /// say something wrong, such as one that counts in 32 bits.
    #[must_use]
    pub fn tsize(mut self, asks: bool) -> Self {
        self.asks_size = asks;
        self
    }

    /// How long an answer is waited for before something is sent again; 1 s without it. Whole seconds from 1 to 255 are asked
    /// of the server as well (RFC 2349).
    #[must_use]
    pub fn timeout(mut self, interval: Duration) -> Self {
        let (least, most) = (*limits::TIMEOUTS.start(), *limits::TIMEOUTS.end());
        self.timeout = Some(interval.clamp(least, most));
        self
    }

    /// Retransmissions into silence before the transfer is given up, at most 100; 5 without it. The
    /// waits are 1, 2 and from then on 4 intervals of [`timeout`](Self::timeout). A first request
    /// goes out once with options and once without, at least; both share the retransmissions: 14 s
    /// in all without other settings.
    #[must_use]
    pub fn retries(mut self, count: u32) -> Self {
        self.retries = count.min(limits::MAX_RETRIES);
        self
    }

    /// The longest that one file may take, everything included; any time without it.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// Shortest silence behind the last block of an upload that ends it; 60 s without it. A device
    /// may write the whole file to its flash before it acknowledges that block. Where
    /// [`retries`](Self::retries) allow a longer silence, they count.
    #[must_use]
    pub fn final_timeout(mut self, silence: Duration) -> Self {
        self.final_timeout = silence;
        self
    }

    /// Most octets of a file that are taken; 16 GiB without it. A server that announces a size is held to that as well.
    #[must_use]
    pub fn max_size(mut self, octets: u64) -> Self {
        self.max_size = octets;
        self
    }

    /// Local ports to choose from; the system chooses without it.
    #[must_use]
    pub fn local_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.sockets.ports = Some(ports);
        self
    }

    /// The local address to send from; the route decides without it. Servers of the other family are not asked. A link-local
    /// one is taken on the interface that the server's address names.
    #[must_use]
    pub fn bind(mut self, address: IpAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// The network interface to use, by its name; the route decides without it.
    #[must_use]
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.sockets.interface = Some(name.into());
        self
    }

    /// Calls this some ten times a second, and once when the file is whole, in the thread that transfers. While it runs
    /// nothing is received.
    #[must_use]
    pub fn progress(mut self, watch: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Gets a file (RRQ) and writes it out in large pieces. What was written stays written when the transfer
    /// fails later.
    ///
    /// # Errors
    /// The [`Failure`] says what went wrong, and whose fault it is; [`Failure::Aborted`] holds what the server said.
    pub fn get<W>(&self, name: impl AsRef<[u8]>, into: &mut W) -> Result<Summary, Failure>
    where
        W: Write + Send + ?Sized,
    {
        self.get_into(name, Box::new(Writer::new(into)))
    }

    /// Gets a file (RRQ) into a [`Sink`], which is committed before the server is told that the file has arrived.
    ///
    /// # Errors
    /// As [`get`](Self::get); a sink that is not committed is dropped.
    pub fn get_into(
        &self,
        name: impl AsRef<[u8]>,
        sink: Box<dyn Sink + '_>,
    ) -> Result<Summary, Failure> {
        let guard = Guard::new(self.max_size, self.mode);
        let size = (self.asks_size && self.mode == Mode::Octet).then_some(0);
        let mut load = Load::Sink(Some(sink));
        let outcome = self.ask_all(Direction::Read, name.as_ref(), size, &mut load, &guard);
        outcome.map_err(|failure| match (failure, guard.trouble.get()) {
            (Failure::Store(_), Some(trouble)) => trouble.clone(),
            (failure, _) => failure,
        })
    }

    /// Puts a file (WRQ). The server decides where, and whether it may replace another.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Failure::Read`] where the source cannot be read.
    pub fn put(&self, name: impl AsRef<[u8]>, source: Source) -> Result<Summary, Failure> {
        let mappings = Mappings::new(0, Duration::ZERO);
        let body = Body::new(source, self.mode, &mappings, now()).map_err(unreadable)?;
        let size = body.length();
        let guard = Guard::new(u64::MAX, self.mode);
        guard.announce(size);
        let size = size.filter(|_| self.asks_size);
        let mut load = Load::Body(Some(body));
        self.ask_all(Direction::Write, name.as_ref(), size, &mut load, &guard)
    }

    /// Gets the beginning of a file, breaks off with an ERROR and says how it went: after so many
    /// `octets`, or so much `time`, whichever comes first.
    #[cfg(feature = "cli")]
    pub(crate) fn sample(
        mut self,
        name: &[u8],
        octets: u64,
        time: Duration,
    ) -> Result<Summary, Failure> {
        self.sample = Some((octets, time));
        self.get(name, &mut io::sink())
    }

    /// Asks the addresses one after the other: all of them with options, and without where that may help.
    fn ask_all(
        &self,
        direction: Direction,
        name: &[u8],
        size: Option<u64>,
        load: &mut Load<'_>,
        guard: &Guard,
    ) -> Result<Summary, Failure> {
        if name.is_empty() || name.len() > limits::MAX_ASKED_NAME || name.contains(&0) {
            return Err(Failure::Name);
        }
        let start = now();
        let servers = self.servers.iter().filter(|server| {
            self.local
                .is_none_or(|local| local.is_ipv4() == server.is_ipv4())
        });
        let mut queue: VecDeque<Address> = servers
            .map(|server| Address {
                server: *server,
                asks: self.asks_options,
                is_second: !self.asks_options,
                is_asked: false,
                refused: None,
            })
            .collect();
        let mut last = Failure::Network("there is no address to ask".into());
        while let Some(mut address) = queue.pop_front() {
            let others = queue.iter().any(|other| !other.is_asked);
            let attempt = Attempt {
                client: self,
                server: address.server,
                asks: address.asks,
                resends: self.opening_resends(address.is_second),
                may_wait: !others,
                start,
                direction,
                name,
                size,
            };
            let lost = match attempt.make(load, guard) {
                Ok(summary) => return Ok(summary),
                Err(lost) => lost,
            };
            log::debug!(
                "client server={} options={} failure=\"{}\"",
                address.server,
                address.asks,
                lost.failure
            );
            let then = lost.then(&address, attempt.may_wait);
            let failure = match (lost.failure, &address.refused) {
                // Silence, or the end of the time, says less than what was heard before.
                (Failure::Unanswered | Failure::TooLong, Some(refused)) if !lost.is_answered => {
                    refused.clone()
                }
                (failure, _) => failure,
            };
            address.is_asked = true;
            address.refused = lost.is_refused.then(|| failure.clone()).or(address.refused);
            match then {
                Then::Plain => queue.push_front(address.second(false)),
                Then::Second => queue.push_back(address.second(lost.is_refused)),
                Then::Later => queue.push_back(address),
                Then::NextAddress => {}
                Then::GiveUp => return Err(failure),
            }
            last = failure;
        }
        Err(last)
    }

    /// Where two requests may be needed, they share the retransmissions.
    fn opening_resends(&self, is_second: bool) -> u32 {
        let requests = self.retries + 1;
        let share = match (self.asks_options, is_second) {
            (false, _) => requests,
            (true, false) => requests.div_ceil(2),
            (true, true) => requests / 2,
        };
        share.saturating_sub(1)
    }

    /// Octets of a datagram that the route to this server carries in one piece; any number where
    /// there is no route yet.
    fn room(&self, server: SocketAddr) -> io::Result<usize> {
        let sockets = SocketOptions {
            interface: self.sockets.interface.clone(),
            ..SocketOptions::default()
        };
        match TransferSocket::open(self.local(server), server, &sockets) {
            Ok(socket) => Ok(socket.room().unwrap_or(usize::MAX)),
            Err(error) if sys::is_network_down(&error) => Ok(usize::MAX),
            Err(error) => Err(error),
        }
    }

    /// The block size to ask for, where the route carries so much.
    fn wished_blksize(&self, room: usize) -> u16 {
        self.blksize.unwrap_or_else(|| {
            room.saturating_sub(limits::DATA_HEADER).clamp(
                limits::DEFAULT_BLKSIZE.into(),
                limits::CLIENT_BLKSIZE.into(),
            ) as u16
        })
    }

    fn wishes(&self, blksize: u16, windowsize: u16, size: Option<u64>) -> Options {
        let mut options = Options::default();
        if let Some(size) = size {
            options = options.with(OptionName::Tsize, size);
        }
        if blksize != limits::DEFAULT_BLKSIZE {
            options = options.with(OptionName::Blksize, blksize.into());
        }
        if windowsize > 1 {
            options = options.with(OptionName::Windowsize, windowsize.into());
        }
        match self.timeout {
            Some(time) if time.subsec_nanos() == 0 && time >= Duration::from_secs(1) => {
                options.with(OptionName::Timeout, time.as_secs())
            }
            _ => options,
        }
    }

    /// What to say where an address means nothing without an interface, and none is named.
    pub(crate) fn lacks_interface(&self, server: SocketAddr) -> Option<String> {
        let is_lacking = |address: &SocketAddr| match address {
            SocketAddr::V6(it) => it.ip().is_unicast_link_local() && it.scope_id() == 0,
            SocketAddr::V4(_) => false,
        };
        let all = [server, self.local(server)];
        let found = all.iter().find(|address| is_lacking(address))?.ip();
        self.sockets
            .interface
            .is_none()
            .then(|| format!("{found} is link-local and needs its interface, as in {found}%eth0"))
    }

    fn local(&self, server: SocketAddr) -> SocketAddr {
        let wildcard: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        match (self.local.unwrap_or(wildcard), server) {
            // Such an address says nothing without an interface, and the server is reached by the same one.
            (IpAddr::V6(own), SocketAddr::V6(server)) if own.is_unicast_link_local() => {
                SocketAddrV6::new(own, 0, 0, server.scope_id()).into()
            }
            (own, _) => SocketAddr::new(own, 0),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("servers", &self.servers)
            .field("blksize", &self.blksize)
            .field("windowsize", &self.windowsize)
            .finish_non_exhaustive()
    }
}

/// What a transfer takes its octets from or gives them to, kept for the next attempt while none has moved.
enum Load<'a> {
    Sink(Option<Box<dyn Sink + 'a>>),
    Body(Option<Body>),
}

// ---- one request ------------------------------------------------------------------------------

/// One address of the server, and how far the asking is.
struct Address {
    server: SocketAddr,
    /// With options.
    asks: bool,
    /// In its second attempt.
    is_second: bool,
    is_asked: bool,
    /// What the network said to a request.
    refused: Option<Failure>,
}

impl Address {
    fn second(self, asks: bool) -> Self {
        Self {
            asks,
            is_second: true,
            ..self
        }
    }
}

/// One request to one address, and the transfer that comes of it.
struct Attempt<'a> {
    client: &'a Client,
    server: SocketAddr,
    /// With options.
    asks: bool,
    /// Retransmissions of the request.
    resends: u32,
    /// False where another address comes first if the network refuses the request.
    may_wait: bool,
    /// When the caller called.
    start: Instant,
    direction: Direction,
    name: &'a [u8],
    size: Option<u64>,
}

/// An attempt that came to nothing.
struct Lost {
    failure: Failure,
    /// The server has answered with something else than an ERROR.
    is_answered: bool,
    /// The network, or ICMP, refused the last request.
    is_refused: bool,
    /// Octets of the file that have moved.
    bytes: u64,
}

/// What to do after that.
enum Then {
    /// The same server may understand a request without options.
    Plain,
    /// It is asked a second time, but first the others.
    Second,
    /// It is asked again as if it had not been, but first the others.
    Later,
    NextAddress,
    GiveUp,
}

impl Lost {
    fn then(&self, address: &Address, has_waited: bool) -> Then {
        let asks = address.asks;
        match &self.failure {
            // Old servers refuse with whatever code they have.
            Failure::Aborted {
                code:
                    ErrorCode::NOT_DEFINED | ErrorCode::ILLEGAL_OPERATION | ErrorCode::OPTION_REFUSED,
                ..
            } if asks && !self.is_answered => Then::Plain,
            // Its OACK was wrong, or what was agreed does not come through: large blocks, say.
            Failure::Protocol(_) | Failure::Silent | Failure::Unconfirmed
                if asks && self.bytes == 0 =>
            {
                Then::Plain
            }
            _ if self.is_answered => Then::GiveUp,
            Failure::Unreachable | Failure::Network(_) if self.is_refused && !has_waited => {
                Then::Later
            }
            Failure::Unanswered | Failure::Unreachable | Failure::Network(_)
                if !address.is_second && (self.is_refused || asks) =>
            {
                Then::Second
            }
            Failure::Unanswered
            | Failure::Unreachable
            | Failure::AnsweredElsewhere(_)
            | Failure::Network(_) => Then::NextAddress,
            _ => Then::GiveUp,
        }
    }
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            is_answered: false,
            is_refused: false,
            bytes: 0,
        }
    }
}

impl Attempt<'_> {
    fn make(&self, load: &mut Load<'_>, guard: &Guard) -> Result<Summary, Lost> {
        let client = self.client;
        let network = |error: io::Error| Failure::Network(plain(&error));
        if let Some(words) = client.lacks_interface(self.server) {
            return Err(Failure::Network(words).into());
        }
        let (socket, resends) = self.socket()?;
        let local = socket.local_addr().map_err(network)?;
        let room = client.room(self.server).map_err(network)?;
        let request = Request {
            direction: self.direction,
            name: self.name,
            mode: client.mode,
            options: match self.asks {
                true => self.wishes(room, &socket),
                false => Options::default(),
            },
        };
        let policy = self.policy()?;
        let opening = Policy {
            retries: resends,
            ..policy
        };
        let end = match load {
            Load::Sink(sink) => {
                let machine = Receiver::requesting(limits::CLIENT_DALLY, &opening, now());
                let intake = Box::new(Guarded {
                    sink,
                    guard,
                    total: 0,
                });
                End::receiving(machine, intake, client.mode)
            }
            Load::Body(body) => {
                let body = body.take().ok_or(Failure::Unanswered)?;
                End::sending(
                    Sender::requesting(&opening, now()),
                    body,
                    &Agreed::default(),
                )
            }
        };
        let origin = Origin {
            id: TransferId(0),
            name: Name::new(self.name),
            direction: self.direction,
            asked: request.options,
            arrived: self.start,
        };
        let exchange = Exchange::asking(origin, end, socket, local, &request, &policy);
        let (exchange, ending) = self.run(exchange, guard);
        let summary = exchange.summary();
        let failure = match ending {
            Ending::Completed | Ending::Probed => {
                self.tell(&summary, guard);
                return Ok(summary);
            }
            Ending::Failed(failure) => failure,
        };
        let (is_answered, bytes) = (exchange.is_answered(), summary.bytes);
        let is_refused = exchange.refused().is_some();
        let failure = match (failure, exchange.stranger()) {
            (Failure::Unanswered | Failure::Unreachable, Some(stranger)) => {
                Failure::AnsweredElsewhere(stranger)
            }
            (failure, _) => failure,
        };
        let returned = exchange.into_body();
        if let Load::Body(body) = load
            && bytes == 0
        {
            *body = returned.map(Body::rewound);
        }
        Err(Lost {
            failure,
            is_answered,
            is_refused,
            bytes,
        })
    }

    /// The socket, and how many retransmissions are left. An interface may get its address later:
    /// the time until then is part of the request's.
    fn socket(&self) -> Result<(TransferSocket, u32), Lost> {
        let client = self.client;
        let policy = self.policy()?;
        let begun = now();
        let patience = policy.patience(self.resends);
        let end = begun + policy.max_time.map_or(patience, |most| most.min(patience));
        loop {
            let local = client.local(self.server);
            let error = match TransferSocket::asking(local, self.server, &client.sockets) {
                Ok(socket) => {
                    let left = patience.saturating_sub(now().saturating_duration_since(begun));
                    let resends = (0..self.resends).find(|count| policy.patience(*count) >= left);
                    return Ok((socket, resends.unwrap_or(self.resends)));
                }
                Err(error) => error,
            };
            let left = end.saturating_duration_since(now());
            let is_down = sys::is_network_down(&error);
            if !is_down || !self.may_wait || left.is_zero() {
                return Err(Lost {
                    is_refused: is_down,
                    ..Failure::Network(plain(&error)).into()
                });
            }
            std::thread::park_timeout(left.min(limits::CLIENT_PROGRESS_INTERVAL));
        }
    }

    /// The options to ask for: a window that is received is not larger than the socket's buffer.
    fn wishes(&self, room: usize, socket: &TransferSocket) -> Options {
        let client = self.client;
        let blksize = client.wished_blksize(room);
        let mut windowsize = client.windowsize;
        if self.direction == Direction::Read && windowsize > 1 {
            windowsize = windowsize.min(socket.make_room(blksize, windowsize));
        }
        if windowsize < client.windowsize {
            log::debug!(
                "client windowsize={windowsize} blksize={blksize} reason=\"receive buffer holds no more\""
            );
        }
        client.wishes(blksize, windowsize, self.size)
    }

    /// Until the end of the transfer: the caller's thread waits here for the server.
    fn run<'b>(&self, mut exchange: Exchange<'b>, guard: &Guard) -> (Exchange<'b>, Ending) {
        let mut scratch = Scratch::new();
        let mut told = self.start;
        loop {
            let turn = exchange.run(&mut scratch, guard);
            let time = now();
            if let Turn::Done(ending) = turn {
                return (exchange, ending);
            }
            if !self.may_wait
                && !exchange.is_answered()
                && let Some(refused) = exchange.refused()
            {
                return (exchange, Ending::Failed(refused));
            }
            if self.is_sampled(&exchange, time) {
                exchange.leave("probe is over", || true);
                return (exchange, Ending::Completed);
            }
            if time >= told + limits::CLIENT_PROGRESS_INTERVAL {
                told = time;
                self.tell(&exchange.summary(), guard);
            }
            if let Turn::Quiet(until) = turn {
                exchange.mail_until(until.min(told + limits::CLIENT_PROGRESS_INTERVAL));
            }
        }
    }

    fn tell(&self, summary: &Summary, guard: &Guard) {
        if let Some(watch) = &self.client.watch {
            watch(&Progress {
                bytes: summary.bytes,
                size: guard.announced(),
                elapsed: summary.duration,
                rtt: summary.rtt,
                retransmits: summary.retransmits,
            });
        }
    }

    fn policy(&self) -> Result<Policy, Failure> {
        let client = self.client;
        let spent = now().saturating_duration_since(self.start);
        let max_time = match client.max_time.map(|most| most.saturating_sub(spent)) {
            Some(Duration::ZERO) => return Err(Failure::TooLong),
            left => left,
        };
        Ok(Policy {
            timeout: client.timeout.unwrap_or(limits::DEFAULT_TIMEOUT),
            retries: client.retries,
            max_time,
            final_timeout: client.final_timeout,
            ..Policy::default()
        })
    }

    fn is_sampled(&self, exchange: &Exchange<'_>, time: Instant) -> bool {
        let Some((octets, most)) = self.client.sample.filter(|_| exchange.is_answered()) else {
            return false;
        };
        time >= self.start + most || exchange.summary().bytes >= octets
    }
}

fn unreadable(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Changed => Failure::FileChanged,
        Trouble::Read(cause) => Failure::Read(cause),
        Trouble::Network(error) => Failure::Network(plain(&error)),
    }
}

// ---- what comes is not believed -----------------------------------------------------------------

/// What the server may send, and what it says about it. Shared by the sink and the loop around it.
struct Guard {
    most: u64,
    /// Sizes count octets as they are sent.
    is_exact: bool,
    /// Octets of the file, as announced; [`UNKNOWN`] where they were not.
    size: AtomicU64,
    /// Why the sink took no more.
    trouble: OnceLock<Failure>,
}

const UNKNOWN: u64 = u64::MAX;

impl Guard {
    fn new(most: u64, mode: Mode) -> Self {
        Self {
            most,
            is_exact: mode == Mode::Octet,
            size: AtomicU64::new(UNKNOWN),
            trouble: OnceLock::new(),
        }
    }

    /// 0 is what servers say that do not know, and nothing to hold an empty file to.
    fn announce(&self, size: Option<u64>) {
        let size = size.filter(|size| *size > 0).unwrap_or(UNKNOWN);
        self.size.store(size, Ordering::Relaxed);
    }

    fn announced(&self) -> Option<u64> {
        let size = self.size.load(Ordering::Relaxed);
        (size != UNKNOWN).then_some(size)
    }

    fn refuse(&self, failure: Failure, text: &'static str) -> Refusal {
        let _ = self.trouble.set(failure);
        Refusal::new(ErrorCode::DISK_FULL, text)
    }

    fn too_large(&self) -> Refusal {
        self.refuse(Failure::TooLarge { limit: self.most }, "file is too large")
    }

    /// Whether `received` octets may have come so far, or are the whole file.
    fn check(&self, received: u64, is_whole: bool) -> Result<(), Refusal> {
        if received > self.most {
            return Err(self.too_large());
        }
        match self.announced().filter(|_| self.is_exact) {
            Some(announced) if received > announced || (is_whole && received < announced) => {
                let failure = Failure::SizeDiffers {
                    announced,
                    received,
                };
                Err(self.refuse(failure, "not the size that was announced"))
            }
            _ => Ok(()),
        }
    }
}

impl Surroundings for Guard {
    fn others_wait(&self) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn agreed(&self, agreed: &Agreed, direction: Direction) -> Result<(), Refusal> {
        if direction == Direction::Read {
            self.announce(agreed.tsize);
            if self.announced().is_some_and(|size| size > self.most) {
                return Err(self.too_large());
            }
        }
        Ok(())
    }
}

/// A sink that takes what may come, and leaves the caller's for the next attempt.
struct Guarded<'a, 'b> {
    sink: &'a mut Option<Box<dyn Sink + 'b>>,
    guard: &'a Guard,
    total: u64,
}

impl Sink for Guarded<'_, '_> {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.total = self.total.saturating_add(octets.len() as u64);
        self.guard.check(self.total, false)?;
        match self.sink {
            Some(sink) => sink.append(octets),
            None => Ok(()),
        }
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        self.guard.check(self.total, true)?;
        match self.sink.take() {
            Some(sink) => sink.commit(),
            None => Ok(()),
        }
    }
}

/// Octets on their way to a writer, in pieces that are worth a system call.
pub(crate) struct Writer<W> {
    writer: W,
    waiting: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(writer: W) -> Self {
        let waiting = Vec::new();
        Self { writer, waiting }
    }

    /// Writes what is left, and gives the writer back.
    pub(crate) fn finish(mut self) -> Result<W, Refusal> {
        self.write_out()?;
        self.writer.flush().map_err(|cause| unwritten(&cause))?;
        Ok(self.writer)
    }

    fn write_out(&mut self) -> Result<(), Refusal> {
        let written = self.writer.write_all(&self.waiting);
        self.waiting.clear();
        written.map_err(|cause| unwritten(&cause))
    }
}

impl<W: Write + Send> Sink for Writer<W> {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        if self.waiting.is_empty() {
            // Blocks are most often far smaller; once this is full they fit without growing it.
            self.waiting
                .reserve(limits::WRITE_OCTETS + limits::RECEIVE_OCTETS);
        }
        self.waiting.extend_from_slice(octets);
        match self.waiting.len() < limits::WRITE_OCTETS {
            true => Ok(()),
            false => self.write_out(),
        }
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        self.finish().map(drop)
    }
}

/// What a server is told, and what people here are.
pub(crate) fn unwritten(cause: &io::Error) -> Refusal {
    Refusal::new(ErrorCode::DISK_FULL, "cannot write").because(plain(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_taken_on_the_servers_interface() {
        let at = |ip: &str, scope| -> SocketAddr {
            SocketAddrV6::new(ip.parse().expect("an address"), 69, 0, scope).into()
        };
        for (own, server, wanted) in [
            ("fe80::2", at("fe80::1", 7), 7),
            ("2001:db8::2", at("fe80::1", 7), 0),
            ("fe80::2", at("2001:db8::1", 0), 0),
        ] {
            let client = Client::new(server).bind(own.parse().expect("an address"));
            let SocketAddr::V6(local) = client.local(server) else {
                panic!("no IPv6 address");
            };
            assert_eq!(
                (local.ip().to_string().as_str(), local.scope_id()),
                (own, wanted)
            );
            assert_eq!(local.port(), 0);
        }
    }
}
