//! The client: one file from a server or to it, in the caller's thread.
//!
//! A request asks for large blocks, a window and the file's size. A server that refuses options, or
//! is silent to them, is asked once more without any, as long as no octet of the file has moved;
//! one that ignores them is understood at once. What a server says is believed only as far as it
//! was asked: it never makes a block, a window or a file larger.
//!
//! A server that is not there yet is waited for. A closed port and a network that is down never
//! shorten the patience of a request: half of it belongs to the first attempt, half to the second.
//! The second attempt has no options, unless the network refused the last request of the first one:
//! then the silence was not the options' fault.

mod attempts;
mod cancel;
mod error;
mod guard;
mod later;
mod writer;

pub(crate) use self::writer::Writer;
#[cfg(feature = "cli")]
pub(crate) use self::writer::unwritten;

pub use self::cancel::CancelHandle;
pub use self::error::ClientError;

use self::attempts::Load;
use self::guard::Guard;
use self::later::resolved;
use crate::error::Cause;
use crate::event::Summary;
use crate::limits;
use crate::limits::settings::client as accepted;
use crate::store::mappings::Mappings;
use crate::store::{Sink, Source};
use crate::sys;
use crate::transfer::{Body, Link, NO_ANSWER, SocketOptions, Trouble, now};
use crate::wire::{Direction, Mode, OptionName, Options};
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Gets files from a TFTP server and puts them there. It blocks, on purpose, and starts no thread.
///
/// ```no_run
/// use tftpool::Client;
///
/// let client = Client::new(("tftp.lan", 69)).windowsize(64);
/// let config: Vec<u8> = client.get("boot/grub.cfg")?;
/// let summary = client.get_to("boot/vmlinuz", std::fs::File::create("vmlinuz")?)?;
/// println!("{} bytes in {:?}", summary.bytes, summary.duration);
/// client.put("reports/board7", "booted")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    servers: Result<Vec<SocketAddr>, Cause>,
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
    cancel: CancelHandle,
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
    /// A client of this server: an address, a list of addresses, or a name and a port, which is
    /// looked up now. A name that has no address is an error of the first transfer.
    ///
    /// Where there are several addresses, the next one is asked when one does not answer, and at
    /// once when its port is closed or no route leads to it; such an address is asked again after
    /// the others.
    pub fn new(server: impl ToSocketAddrs) -> Self {
        let servers = server.to_socket_addrs().map(Iterator::collect);
        Self {
            servers: servers.map_err(Cause::from),
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
            cancel: CancelHandle::new(),
            sample: None,
        }
    }

    /// Bytes in a block to ask for: 8 to 65464 (RFC 2348). Without it 1428, or what the route to
    /// the server carries in one piece, if that is less.
    #[must_use]
    pub fn blksize(mut self, bytes: u16) -> Self {
        self.blksize = Some(bytes);
        self
    }

    /// Blocks in a window to ask for: 1 to 32767 (RFC 7440). 16 without it. A download asks for no
    /// more than the socket's receive buffer holds.
    #[must_use]
    pub fn windowsize(mut self, blocks: u16) -> Self {
        self.windowsize = blocks;
        self
    }

    /// How octets are translated; [`Mode::Octet`], not at all, without it.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether options are asked for at all (RFC 2347). Without them blocks have 512 octets and
    /// each one is waited for.
    #[must_use]
    pub fn options(mut self, asks: bool) -> Self {
        self.asks_options = asks;
        self
    }

    /// Whether the server is asked for the file's size, and held to it; told, when it gets one (RFC
    /// 2349). For servers that say something wrong, such as one that counts in 32 bits.
    #[must_use]
    pub fn tsize(mut self, asks: bool) -> Self {
        self.asks_size = asks;
        self
    }

    /// Retransmission interval: 10ms to 255s. 1 s without it. Whole seconds are asked of the server
    /// as well (RFC 2349).
    #[must_use]
    pub fn timeout(mut self, interval: Duration) -> Self {
        self.timeout = Some(interval);
        self
    }

    /// Retransmissions into silence before the transfer is given up: 0 to 100. 5 without it. The
    /// waits are 1, 2 and from then on 4 intervals of [`timeout`](Self::timeout). A first request
    /// goes out once with options and once without, at least; both share the retransmissions: 14 s
    /// in all without other settings.
    #[must_use]
    pub fn retries(mut self, count: u32) -> Self {
        self.retries = count;
        self
    }

    /// The longest that one file may take, everything included: 1ms to 365d. Any time without it.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = Some(time);
        self
    }

    /// Shortest silence behind the last block of an upload that ends it: 0s to 365d. 60 s without
    /// it. A device may write the whole file to its flash before it acknowledges that block. Where
    /// [`retries`](Self::retries) allow a longer silence, they count.
    #[must_use]
    pub fn final_timeout(mut self, silence: Duration) -> Self {
        self.final_timeout = silence;
        self
    }

    /// Most bytes of a file that are taken: 1 to 16777215T. 16 GiB without it. A server that
    /// announces a size is held to that as well.
    #[must_use]
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = bytes;
        self
    }

    /// Local ports to choose from: 1 to 65535, the lower one first. The system chooses without it.
    #[must_use]
    pub fn local_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.sockets.ports = Some(ports);
        self
    }

    /// The local address to send from; the route decides without it. Servers of the other family
    /// are not asked. A link-local one is taken on the interface that the server's address names.
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

    /// Calls this some ten times a second, and once when the file is whole, in the thread that
    /// transfers. While it runs nothing is received.
    #[must_use]
    pub fn progress(mut self, watch: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Lets this handle end transfers of the client from another thread.
    #[must_use]
    pub fn cancelled_by(mut self, handle: &CancelHandle) -> Self {
        self.cancel = handle.clone();
        self
    }

    /// Gets a file (RRQ) into memory. [`max_size`](Self::max_size) limits how much.
    ///
    /// # Errors
    /// The [`ClientError`] says what went wrong; [`ClientError::Aborted`] holds what the server
    /// said.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Result<Vec<u8>, ClientError> {
        let mut content = Vec::new();
        self.get_to(name, &mut content)?;
        Ok(content)
    }

    /// Gets a file (RRQ) and writes it out in large pieces. What was written stays written when the
    /// transfer fails later. A `&mut` writer is a writer too.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_to(
        &self,
        name: impl AsRef<[u8]>,
        writer: impl Write + Send,
    ) -> Result<Summary, ClientError> {
        self.get_into(name, Box::new(Writer::new(writer)))
    }

    /// Gets a file (RRQ) into a [`Sink`], which is committed before the last ACK goes out.
    ///
    /// # Errors
    /// As [`get`](Self::get); a sink that is not committed is dropped.
    pub fn get_into(
        &self,
        name: impl AsRef<[u8]>,
        sink: Box<dyn Sink + '_>,
    ) -> Result<Summary, ClientError> {
        let guard = Guard::new(self.max_size, self.mode, self.cancel.clone());
        let size = (self.asks_size && self.mode == Mode::Octet).then_some(0);
        let mut load = Load::Sink(Some(sink));
        let outcome = self.ask_all(Direction::Read, name.as_ref(), size, &mut load, &guard);
        outcome.map_err(|failure| match (failure, guard.trouble.get()) {
            (ClientError::Store(_), Some(trouble)) => trouble.clone(),
            (failure, _) => failure,
        })
    }

    /// Puts a file (WRQ): bytes, text, an open file, or another [`Source`]. The server decides
    /// where, and whether it may replace another.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`ClientError::Read`] where the source cannot be read.
    pub fn put(
        &self,
        name: impl AsRef<[u8]>,
        source: impl Into<Source>,
    ) -> Result<Summary, ClientError> {
        let source = resolved(source.into(), self.max_time, &self.cancel)?;
        let mappings = Mappings::new(0, Duration::ZERO);
        let body = Body::new(source, self.mode, &mappings, now()).map_err(unreadable)?;
        let size = body.length();
        let guard = Guard::new(u64::MAX, self.mode, self.cancel.clone());
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
    ) -> Result<Summary, ClientError> {
        self.sample = Some((octets, time));
        self.get_to(name, io::sink())
    }

    /// Checks what was set: in one place for all, and as the server does.
    fn check(&self) -> Result<(), ClientError> {
        accepted::BLKSIZE.check_some(self.blksize)?;
        accepted::WINDOWSIZE.check(self.windowsize)?;
        accepted::TIMEOUT.check_some(self.timeout)?;
        accepted::RETRIES.check(self.retries)?;
        accepted::MAX_TIME.check_some(self.max_time)?;
        accepted::FINAL_TIMEOUT.check(self.final_timeout)?;
        accepted::MAX_SIZE.check(self.max_size)?;
        accepted::LOCAL_PORTS.check_range(self.sockets.ports.as_ref())?;
        Ok(())
    }

    /// Octets of a datagram that the route to this server carries in one piece; any number where
    /// there is no route yet.
    fn room(&self, server: SocketAddr) -> io::Result<usize> {
        let sockets = SocketOptions {
            interface: self.sockets.interface.clone(),
            ..SocketOptions::default()
        };
        match Link::open(self.local(server), server, &sockets) {
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
            // Such an address says nothing without an interface, and the server is reached by the
            // same one.
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

fn unreadable(trouble: Trouble) -> ClientError {
    match trouble {
        Trouble::Changed => ClientError::FileChanged,
        Trouble::Read(cause) => ClientError::Read(cause.into()),
        Trouble::Pending => ClientError::Read(NO_ANSWER.into()),
        Trouble::Network(error) => ClientError::Network(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Breaking = (&'static str, fn(Client) -> Client);

    /// One wrong value for each setting. They are errors of the call, before anything is sent.
    const BREAKING: &[Breaking] = &[
        ("blksize", |it| it.blksize(7)),
        ("windowsize", |it| it.windowsize(0)),
        ("timeout", |it| it.timeout(Duration::from_millis(9))),
        ("retries", |it| it.retries(101)),
        ("max_time", |it| it.max_time(Duration::ZERO)),
        ("final_timeout", |it| it.final_timeout(Duration::MAX)),
        ("max_size", |it| it.max_size(0)),
        ("local_ports", |it| it.local_ports(0..=9)),
    ];

    #[test]
    fn each_setting_of_the_table_is_checked() {
        let names: Vec<_> = BREAKING.iter().map(|(name, _)| *name).collect();
        let table: Vec<_> = accepted::ALL.iter().map(|it| it.name).collect();
        assert_eq!(names, table);
        let good = Client::new("127.0.0.1:69");
        assert_eq!(good.check(), Ok(()));
        for (name, set) in BREAKING {
            match set(good.clone()).put("file", "content") {
                Err(ClientError::Setting(wrong)) => assert_eq!(wrong.name(), *name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    /// The comment above each method says what the table says.
    #[test]
    fn each_comment_names_the_range() {
        let source = include_str!("mod.rs");
        for setting in accepted::ALL {
            let method = format!("    pub fn {}(", setting.name);
            let (before, _) = source.split_once(&method).expect("a method");
            let comment = before.rsplit("\n\n").next().unwrap_or_default();
            let comment = comment.replace("\n    /// ", " ");
            let range = setting.to_string();
            assert!(comment.contains(&range), "{}: {comment}", setting.name);
        }
    }

    #[test]
    fn a_name_without_an_address_is_an_error_of_the_transfer() {
        use std::error::Error;
        let error = Client::new("no port").get("file").expect_err("no server");
        assert!(matches!(error, ClientError::Lookup(_)), "{error}");
        assert!(error.source().is_some_and(|cause| cause.is::<io::Error>()));
    }

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
