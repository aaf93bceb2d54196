//! The server: [`Builder`] → [`Listening`] → [`Server`].
//!
//! One loop on the listening sockets, a bounded pool of workers, and one transfer at a time in each
//! worker's hands.

mod admitted;
mod bucket;
mod by_id;

mod desk;
mod dispatch;
mod endpoint;
mod guarded;
mod idle;
mod lane;
mod lanes;
mod mailbox;
mod memory;
mod message;
#[cfg(test)]
mod model;
mod opening;
mod pending;
mod poller;
mod pool;
mod pool_state;
mod ports;
mod reporter;
mod shared;
mod store_slot;
mod sync;
mod waker;
mod warnings;
mod worker;

pub use desk::{Desk, Quota, Scope, Tid, Verdict, patience};
pub use ports::{Lease, Ports, Supply};
pub use reporter::Events;

use crate::error::Error;
use crate::event::{Stats, TransferId};
use crate::limits;
use crate::proto::{Policy, Retransmit, Terms};
use crate::store::Store;
use crate::store::mappings::Mappings;
use crate::sys::udp::{self, Listener, SocketOptions};
use crate::transfer::{self, Buffers, now};
use bucket::TokenBucket;
use dispatch::Loop;
use endpoint::Config;
use lane::Lane;
use mailbox::{Mailbox, mailbox};
use memory::Memory;
use message::Message;
use pool_state::PoolState;
use reporter::Reporter;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that may wait for the loop; a worker with one more waits.
const MAIL: usize = 1024;

/// What a server grants and how much it takes on. [`Default`] is right for a room full of boards.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Threads that run transfers, 1 to 1024. They are started when they are needed.
    pub workers: usize,
    /// How long the store may take to answer a request before its client gets an ERROR: 1 s to an
    /// hour.
    pub store_deadline: Duration,
    /// Transfers at once, 1 to 65,536. Each holds a socket and perhaps a file: two descriptors. One
    /// client address has 15 of 16 places at most, and never the last of two or more: the rest is
    /// for addresses that have none.
    pub max_transfers: usize,
    /// Transfers at once of one client address; `None` for no limit. Whole labs sit behind one
    /// address.
    pub max_transfers_per_client: Option<usize>,
    /// Transfers at once whose peers have not answered yet: their addresses may be forged. When
    /// there are so many, the oldest that has had a second makes room. `None` for as many as
    /// `max_transfers`; never more than half of the ports that one local address has.
    pub max_unproven: Option<usize>,
    /// The same of one client address; `None` for no limit of its own.
    pub max_unproven_per_client: Option<usize>,
    /// The same of one network, an IPv4 /24 or an IPv6 /64; `None` for no limit of its own.
    pub max_unproven_per_network: Option<usize>,
    /// Octets that streams and netascii transfers may keep for resending, all together: 64 KiB or
    /// more. When they are used up, windows and blocks get smaller.
    pub max_buffered: u64,
    /// Largest block size that is agreed, in octets: 8 to 65464 (RFC 2348).
    pub max_block_size: u16,
    /// Agree to no block size that the route to the client does not carry in one piece.
    pub fit_route: bool,
    /// Largest window that is agreed, in blocks: 1 to 32767 (RFC 7440). The octets in a window are
    /// limited too.
    pub max_window_size: u16,
    /// Retransmission interval where the client asks for none: 10 ms to 255 s. It doubles up to
    /// four times itself.
    pub timeout: Duration,
    /// Resends in one silence, after which a transfer fails: up to 100.
    pub retries: u32,
    /// When to send again.
    pub retransmit: Retransmit,
    /// Blocks that a client must get through in a minute, or 4 KiB for each of them: up to 65,535;
    /// 0 asks for none.
    pub min_progress: u32,
    /// The longest that a transfer may take: 1 s to 365 days.
    pub max_time: Duration,
    /// Ports for transfers (the server's TIDs); `None` leaves the choice to the system.
    pub ports: Option<RangeInclusive<u16>>,
    /// Remember for ten minutes which clients need smaller windows or blocks, or no options.
    pub client_memory: bool,
    /// Forbid routers to fragment blocks.
    pub dont_fragment: bool,
    /// Listen also on an address that no interface has yet. The server takes requests there as soon
    /// as one has it. Linux only.
    pub freebind: bool,
    /// Answer read requests that are sent to an IPv4 broadcast address, from the address of the
    /// interface they come in by. RFC 1123 has them ignored. No ERROR goes to such a request:
    /// another server may have the file.
    pub answer_broadcast: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: limits::DEFAULT_WORKERS,
            store_deadline: limits::STORE_DEADLINE,
            max_transfers: limits::DEFAULT_TRANSFERS,
            max_transfers_per_client: None,
            max_unproven: None,
            max_unproven_per_client: None,
            max_unproven_per_network: None,
            max_buffered: limits::BUFFERED_TOTAL_OCTETS,
            max_block_size: limits::MAX_BLKSIZE,
            fit_route: true,
            max_window_size: limits::MAX_WINDOWSIZE,
            timeout: limits::DEFAULT_TIMEOUT,
            retries: limits::DEFAULT_RETRIES,
            retransmit: Retransmit::Adaptive,
            min_progress: limits::MIN_PROGRESS,
            max_time: limits::MAX_TIME,
            ports: None,
            client_memory: true,
            dont_fragment: false,
            freebind: false,
            answer_broadcast: false,
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), Error> {
        let checks = [
            (
                (1..=limits::MAX_WORKERS).contains(&self.workers),
                "workers",
                "from 1 to 1024",
            ),
            (
                limits::STORE_DEADLINES.contains(&self.store_deadline),
                "store_deadline",
                "from 1 s to 1 h",
            ),
            (
                (1..=limits::MAX_TRANSFERS).contains(&self.max_transfers),
                "max_transfers",
                "from 1 to 65536",
            ),
            (
                self.max_transfers_per_client != Some(0),
                "max_transfers_per_client",
                "1 or more",
            ),
            (self.max_unproven != Some(0), "max_unproven", "1 or more"),
            (
                self.max_unproven_per_client != Some(0),
                "max_unproven_per_client",
                "1 or more",
            ),
            (
                self.max_unproven_per_network != Some(0),
                "max_unproven_per_network",
                "1 or more",
            ),
            (
                self.max_buffered >= limits::MIN_BUFFERED_TOTAL_OCTETS,
                "max_buffered",
                "64 KiB or more",
            ),
            (
                (limits::MIN_BLKSIZE..=limits::MAX_BLKSIZE).contains(&self.max_block_size),
                "max_block_size",
                "from 8 to 65464 octets",
            ),
            (
                (1..=limits::MAX_WINDOWSIZE).contains(&self.max_window_size),
                "max_window_size",
                "from 1 to 32767 blocks",
            ),
            (
                limits::TIMEOUTS.contains(&self.timeout),
                "timeout",
                "from 10 ms to 255 s",
            ),
            (
                self.retries <= limits::MAX_RETRIES,
                "retries",
                "at most 100",
            ),
            (
                self.min_progress <= limits::MAX_MIN_PROGRESS,
                "min_progress",
                "at most 65535 blocks a minute",
            ),
            (
                limits::MAX_TIMES.contains(&self.max_time),
                "max_time",
                "from 1 s to 365 days",
            ),
            (
                self.ports
                    .as_ref()
                    .is_none_or(|ports| *ports.start() > 0 && !ports.is_empty()),
                "ports",
                "a range within 1 to 65535",
            ),
        ];
        match checks.into_iter().find(|(is_good, ..)| !is_good) {
            Some((_, name, accepted)) => Err(Error::Setting { name, accepted }),
            None => Ok(()),
        }
    }
}

/// Sets up a server. Made by [`Server::builder`].
pub struct Builder {
    store: Box<dyn Store>,
    limits: Limits,
    doors: Vec<DoorPlan>,
}

enum DoorPlan {
    Address(SocketAddr),
    AnyAddress(u16),
    Socket(UdpSocket),
}

impl Builder {
    /// Listens at this address. Port 0 lets the system choose. May be called several times; without
    /// any of these calls the server listens at port 69 of all addresses.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.doors.push(DoorPlan::Address(address));
        self
    }

    /// Listens at all IPv4 and all IPv6 addresses, at one port. A machine without IPv6 gets a
    /// warning in the log.
    #[must_use]
    pub fn bind_any(mut self, port: u16) -> Self {
        self.doors.push(DoorPlan::AnyAddress(port));
        self
    }

    /// Listens at a socket that is bound already.
    #[must_use]
    pub fn socket(mut self, socket: UdpSocket) -> Self {
        self.doors.push(DoorPlan::Socket(socket));
        self
    }

    /// Changes limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Binds the sockets. Nothing is answered before [`Listening::start`]: privileges can be
    /// dropped in between.
    ///
    /// # Errors
    /// [`Error::Setting`] for a limit out of its range, [`Error::Bind`] for an address that cannot
    /// be bound, [`Error::Overlap`] for one that this server listens on already.
    pub fn listen(mut self) -> Result<Listening, Error> {
        self.limits.check()?;
        if self.doors.is_empty() {
            self.doors.push(DoorPlan::AnyAddress(limits::PORT));
        }
        let mut listeners = Vec::new();
        for door in self.doors {
            match door {
                DoorPlan::Address(address) => {
                    let listener = bind(address, self.limits.freebind);
                    listeners.push(listener.map_err(|error| blame(error, &listeners))?);
                }
                DoorPlan::AnyAddress(port) => {
                    let both = bind_any(port).map_err(|error| blame(error, &listeners))?;
                    listeners.extend(both);
                }
                DoorPlan::Socket(socket) => {
                    listeners.push(Listener::from_socket(socket).map_err(|cause| {
                        Error::System {
                            doing: "use the given socket",
                            cause,
                        }
                    })?)
                }
            }
        }
        for listener in &listeners {
            if let Some(bytes) = listener.small_buffer() {
                log::debug!(
                    "small receive buffer address={} bytes={bytes} wanted={} (raise net.core.rmem_max or grant CAP_NET_ADMIN)",
                    listener.local_addr(),
                    limits::REQUEST_BUFFER_OCTETS
                );
            }
        }
        let addresses = listeners.iter().map(Listener::local_addr).collect();
        Ok(Listening {
            store: self.store,
            limits: self.limits,
            listeners,
            addresses,
        })
    }

    /// Binds the sockets and serves.
    ///
    /// # Errors
    /// Those of [`listen`](Self::listen) and [`Listening::start`].
    pub fn start(self) -> Result<Server, Error> {
        self.listen()?.start()
    }
}

fn bind(address: SocketAddr, freebind: bool) -> Result<Listener, Error> {
    match Listener::bind(address) {
        Err(cause) if freebind && cause.kind() == io::ErrorKind::AddrNotAvailable => {
            let listener = Listener::bind_early(address);
            if listener.is_ok() {
                log::warn!("no interface of this machine has this address yet address={address}");
            }
            listener
        }
        bound => bound,
    }
    .map_err(|cause| Error::Bind { address, cause })
}

/// Two sockets, not one for both families: what a mixed one does depends on the system.
fn bind_any(port: u16) -> Result<Vec<Listener>, Error> {
    const TRIES: usize = 16;
    let mut attempt = 1;
    loop {
        let v4 = bind((Ipv4Addr::UNSPECIFIED, port).into(), false)?;
        let port_of_both = v4.local_addr().port();
        match bind((Ipv6Addr::UNSPECIFIED, port_of_both).into(), false) {
            Ok(v6) => return Ok(vec![v4, v6]),
            // The system chose a port that is free in one family only.
            Err(error) if is_in_use(&error) && port == 0 && attempt < TRIES => attempt += 1,
            Err(error) if is_in_use(&error) => return Err(error),
            Err(error) => {
                log::warn!("listening on IPv4 only: {error}");
                return Ok(vec![v4]);
            }
        }
    }
}

fn is_in_use(error: &Error) -> bool {
    matches!(error, Error::Bind { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse)
}

/// The same error, unless the address is in use by a listener of this server.
fn blame(error: Error, listeners: &[Listener]) -> Error {
    match error {
        Error::Bind { address, .. } if is_in_use(&error) => listeners
            .iter()
            .find(|listener| listener.overlaps(address))
            .map(|listener| Error::Overlap {
                address,
                bound: listener.local_addr(),
            })
            .unwrap_or(error),
        _ => error,
    }
}

/// Whether a transfer may use the ports of its range: a process that has lost root's rights may
/// have none below 1024.
fn check_ports(ports: Option<&RangeInclusive<u16>>, listeners: &[Listener]) -> Result<(), Error> {
    let (Some(ports), Some(listener)) = (ports, listeners.first()) else {
        return Ok(());
    };
    let wildcard = match listener.local_addr() {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // The system protects the lowest ports.
    let address = SocketAddr::new(wildcard, *ports.start());
    match Listener::bind(address) {
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::Bind { address, cause })
        }
        // Another program may have it, or the server itself.
        _ => Ok(()),
    }
}

impl Supply {
    /// What the system has at each address, without what is left to others.
    fn of_the_system() -> Self {
        let count = udp::ephemeral_ports();
        Self::System((count - count / limits::PORT_HEADROOM).max(1))
    }
}

/// A server whose sockets are bound, and which does not serve yet.
pub struct Listening {
    store: Box<dyn Store>,
    limits: Limits,
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
}

impl Listening {
    /// Where it listens, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts the loop and the first worker.
    ///
    /// # Errors
    /// [`Error::System`] when the system refuses a thread or a descriptor, [`Error::Bind`] when it
    /// does not let this process use [`Limits::ports`].
    pub fn start(self) -> Result<Server, Error> {
        let Self {
            store,
            limits,
            listeners,
            addresses,
        } = self;
        check_ports(limits.ports.as_ref(), &listeners)?;
        let system = |doing| move |cause| Error::System { doing, cause };
        let poll = mio::Poll::new().map_err(system("watch sockets"))?;
        let waker =
            mio::Waker::new(poll.registry(), dispatch::WAKER).map_err(system("watch sockets"))?;
        let (mailbox, mail) = mailbox(MAIL, waker);
        let supply = limits
            .ports
            .clone()
            .map_or_else(Supply::of_the_system, Supply::Range);
        // One processor is for the loop, and for the network of the kernel.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = (processors - 1).clamp(1, limits.workers);
        let lanes = (0..lanes)
            .map(|_| Lane::new())
            .collect::<io::Result<Arc<[_]>>>()
            .map_err(system("watch sockets"))?;
        let shared = Arc::new(shared::Shared {
            store,
            mappings: Mappings::new(limits::CACHED_MAPPINGS, limits::MAPPING_IDLE),
            memory: limits.client_memory.then(|| Mutex::new(Memory::default())),
            buffers: Buffers::new(limits.max_buffered),
            refusals: Mutex::new(TokenBucket::new(limits::REFUSALS_PER_SECOND, now())),
            reporter: Reporter::default(),
            terms: Terms {
                max_blksize: limits.max_block_size,
                max_windowsize: limits.max_window_size,
                in_flight: most_in_flight(supply.len()),
            },
            policy: Policy {
                timeout: limits.timeout,
                retries: limits.retries,
                retransmit: limits.retransmit,
                min_progress: limits.min_progress,
                max_time: Some(limits.max_time),
                ..Policy::default()
            },
            fit_route: limits.fit_route,
            sockets: SocketOptions {
                ports: None, // each request has its own
                dont_fragment: limits.dont_fragment,
                interface: None,
            },
            store_deadline: limits.store_deadline,
            pool: PoolState::new(limits.workers, limits.workers.div_ceil(2), lanes),
        });
        let quota = Quota {
            transfers: limits.max_transfers,
            per_client: limits.max_transfers_per_client,
            unproven: limits.max_unproven.unwrap_or(limits.max_transfers),
            unproven_per_client: limits.max_unproven_per_client,
            unproven_per_network: limits.max_unproven_per_network,
        };
        let config = Config {
            quota,
            supply,
            takes_uploads: shared.store.takes_uploads(),
            answer_broadcast: limits.answer_broadcast,
            store_deadline: limits.store_deadline,
        };
        let ends = (mailbox.clone(), mail);
        let event_loop = Loop::new(
            poll,
            ends,
            Arc::clone(&shared),
            listeners,
            config,
            limits.workers,
        )?;
        let thread = std::thread::Builder::new()
            .name("tftp-loop".into())
            .spawn(move || event_loop.run())
            .map_err(system("start a thread"))?;
        Ok(Server {
            addresses,
            shared,
            mailbox,
            thread: Some(thread),
        })
    }
}

/// Bytes in flight of one transfer where its answer can come from this many ports.
fn most_in_flight(ports: usize) -> u64 {
    let by_ports = limits::IN_FLIGHT_PER_PORT * ports as u64;
    by_ports.clamp(limits::LEAST_IN_FLIGHT, limits::IN_FLIGHT_OCTETS)
}

/// A running server. Dropping it stops it as [`Stop::Now`] does.
pub struct Server {
    addresses: Vec<SocketAddr>,
    shared: Arc<shared::Shared>,
    mailbox: Mailbox<Message>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Running transfers end with an ERROR.
    Now,
    /// No request is taken any more; running transfers have this long to end by themselves.
    Drain(Duration),
}

impl Server {
    /// Begins to set up a server for this store: a [`Dir`](crate::Dir), a closure, or any
    /// [`Store`].
    pub fn builder(store: impl Store + 'static) -> Builder {
        Builder {
            store: Box::new(store),
            limits: Limits::default(),
            doors: Vec::new(),
        }
    }

    /// Where it listens first, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where it listens, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// False once it has stopped, by itself or because it was told to.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// What happens from now on. Bounded: a reader that is too slow misses events and is told so;
    /// the server never waits for it.
    pub fn events(&self) -> Events {
        self.shared.reporter.listen()
    }

    /// What has happened so far, counted.
    pub fn stats(&self) -> Stats {
        self.shared.reporter.stats()
    }

    /// A handle for another thread, such as one that waits for signals.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            mailbox: self.mailbox.clone(),
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Asks it to stop; [`join`](Self::join) waits for it.
    pub fn stop(&self, stop: Stop) {
        self.mailbox.post(Message::Stop(stop));
    }

    /// Ends one transfer, if it still runs: the peer is told with ERROR 0, and
    /// [`Event::Failed`](crate::Event::Failed) says
    /// [`Failure::Cancelled`](crate::Failure::Cancelled). A request that is still inside the store
    /// ends when the store has answered.
    pub fn cancel(&self, id: TransferId) {
        self.mailbox.post(Message::Cancel(id));
    }

    /// Waits until it has stopped; returns what happened until then, counted.
    ///
    /// # Errors
    /// [`Error::System`] when the loop could not go on, [`Error::Crashed`] when it panicked.
    pub fn join(mut self) -> Result<Stats, Error> {
        self.finish()?;
        Ok(self.stats())
    }

    fn finish(&mut self) -> Result<(), Error> {
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or(Err(Error::Crashed)),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop(Stop::Now);
            if let Err(error) = self.finish() {
                log::error!("{error}");
            }
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Stops or reloads a [`Server`], or cancels its transfers, from any thread.
#[derive(Clone)]
pub struct Stopper {
    mailbox: Mailbox<Message>,
    /// Weak: a handle that outlives its server holds no store open.
    shared: Weak<shared::Shared>,
}

impl Stopper {
    /// Asks the server to stop. A second call can only hasten the end.
    pub fn stop(&self, stop: Stop) {
        self.mailbox.post(Message::Stop(stop));
    }

    /// Ends one transfer, as [`Server::cancel`] does.
    pub fn cancel(&self, id: TransferId) {
        self.mailbox.post(Message::Cancel(id));
    }

    /// Lets the store look at the world anew ([`Store::reload`]) and forgets mapped files that are
    /// not in use.
    pub fn reload(&self) {
        self.mailbox.post(Message::Reload);
    }

    /// What has happened so far, counted; `None` once the server is gone.
    pub fn stats(&self) -> Option<Stats> {
        self.shared.upgrade().map(|shared| shared.reporter.stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;
    use crate::event::Event;
    use crate::store::{Request, Source, store_fn};

    const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A file that cannot be read, one whose source panics, one that is not there, and one that is.
    fn shelf(request: &Request<'_>) -> Result<Source, Refusal> {
        Ok(match request.name {
            b"broken" => Source::read_at(|_, _| Err(io::ErrorKind::Other.into()), 100),
            b"panics" => Source::read_at(|_, _| panic!("on purpose"), 100),
            b"missing" => return Err(Refusal::not_found()),
            _ => Source::bytes(vec![7; 100]),
        })
    }

    #[test]
    fn all_addresses_are_those_of_both_families_or_an_error() {
        let both = bind_any(0).expect("a port that is free in both");
        let ports: Vec<_> = both.iter().map(|it| it.local_addr().port()).collect();
        assert!(ports.len() == 1 || ports[0] == ports[1], "{ports:?}");
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let Ok(taken) = Listener::bind(any) else {
            return; // no IPv6 here
        };
        let address = taken.local_addr();
        let error = bind_any(address.port()).map(drop).expect_err("taken");
        assert!(is_in_use(&error), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        // It is ours: the text blames no other program.
        let error = blame(error, &[taken]);
        assert!(matches!(error, Error::Overlap { bound, .. } if bound == address));
    }

    /// It sends nothing twice.
    fn start() -> Server {
        let server = Server::builder(store_fn(shelf)).bind(HERE);
        let server = server.limits(|limits| limits.timeout = 2 * PATIENCE);
        server.start().expect("a server")
    }

    fn budget(server: &Server, errors: u32) {
        let mut bucket = server.shared.refusals.lock().expect("no panic");
        *bucket = TokenBucket::new(errors, now());
    }

    fn ask(server: &Server, name: &str, options: &str) -> UdpSocket {
        let client = UdpSocket::bind(HERE).expect("a port");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!("\0\x01{name}\0octet\0{options}");
        let server = server.local_addr();
        client.send_to(request.as_bytes(), server).expect("sent");
        client
    }

    fn hear(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 600];
        let (length, tid) = client.recv_from(&mut buffer).expect("a packet");
        (buffer[..length].to_vec(), tid)
    }

    fn hears_nothing(client: &UdpSocket) -> bool {
        client.set_nonblocking(true).expect("a socket");
        client.recv(&mut [0; 600]).is_err()
    }

    fn wait_for(events: &mut Events, is_wanted: impl Fn(&Event) -> bool) {
        while !is_wanted(&events.next_within(PATIENCE).expect("an event")) {}
    }

    /// Whoever asked may have forged its address: all ERRORs to such peers come out of one budget,
    /// whatever went wrong.
    #[test]
    fn who_never_answered_is_told_why_a_transfer_ends_only_within_the_budget() {
        let server = start();
        let mut events = server.events();
        let mut ended = || wait_for(&mut events, |event| matches!(event, Event::Failed(..)));

        for (name, words) in [("broken", "read error"), ("panics", "internal error")] {
            budget(&server, 0);
            let client = ask(&server, name, "");
            ended();
            assert!(hears_nothing(&client), "{name}: nothing was left");
            // One that has answered is told all the same.
            let client = ask(&server, name, "blksize\x001000\0");
            let (oack, tid) = hear(&client);
            assert_eq!(oack[..2], [0, 6]);
            client.send_to(&[0, 4, 0, 0], tid).expect("sent");
            let told = format!("\0\x05\0\0{words}\0").into_bytes();
            assert_eq!(hear(&client).0, told);
            ended();
            budget(&server, limits::REFUSALS_PER_SECOND);
            assert_eq!(hear(&ask(&server, name, "")).0, told);
            ended();
        }

        let silent = ask(&server, "file", "");
        assert_eq!(hear(&silent).0[..4], [0, 3, 0, 1]);
        budget(&server, 0);
        server.stop(Stop::Now);
        server.join().expect("an end");
        assert!(hears_nothing(&silent));
    }

    #[test]
    fn what_the_store_refuses_is_said_only_within_the_budget() {
        let server = start();
        let mut events = server.events();
        let mut refused = || wait_for(&mut events, |event| matches!(event, Event::Refused { .. }));
        budget(&server, 0);
        let client = ask(&server, "missing", "");
        refused();
        assert!(hears_nothing(&client), "nothing was left");
        budget(&server, limits::REFUSALS_PER_SECOND);
        let told = b"\0\x05\0\x01file not found\0";
        assert_eq!(hear(&ask(&server, "missing", "")).0, told);
        refused();
    }
}
