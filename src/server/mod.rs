//! The server: [`ServerBuilder`] → [`BoundServer`] → [`Server`].
//!
//! One loop on the listening sockets, a bounded pool of workers, and one transfer at a time in each
//! worker's hands.

mod access;
mod admitted;
mod bucket;
mod by_id;
mod config;
mod desk;
mod dispatch;
mod endpoint;
mod guarded;
mod handle;
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
mod waiting;
mod waker;
mod warnings;
mod worker;

pub use access::{Access, AccessRequest, AccessRule, AccessRuleError, AccessRules};
pub use config::ServerConfig;
pub use desk::{Desk, Quota, Scope, Tid, Verdict, patience};
pub use handle::ServerHandle;
pub use ports::{Lease, Ports, Supply};
pub use reporter::Events;

use crate::error::Error;
use crate::event::{Gauges, Stats, TransferId};
use crate::limits;
use crate::proto::{Policy, Terms};
use crate::store::Store;
use crate::store::mappings::Mappings;
use crate::sys::udp::{self, Listener, SocketOptions};
use crate::transfer::{self, Buffers, now};
use access::Gate;
use bucket::TokenBucket;
use dispatch::Loop;
use endpoint::Config;
use lane::Lane;
use mailbox::mailbox;
use memory::ClientHistory;
use pool_state::PoolState;
use reporter::Reporter;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that may wait for the loop; a worker with one more waits.
const MAIL: usize = 1024;

/// Sets up a server. Made by [`Server::builder`].
pub struct ServerBuilder {
    store: Box<dyn Store>,
    config: ServerConfig,
    access: Gate,
    targets: Vec<BindTarget>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("targets", &self.targets)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum BindTarget {
    Address(SocketAddr),
    AnyAddress(u16),
    Socket(UdpSocket),
}

impl ServerBuilder {
    /// Listens at this address. Port 0 lets the system choose. May be called several times; without
    /// any of these calls the server listens at port 69 of all addresses.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.targets.push(BindTarget::Address(address));
        self
    }

    /// Listens at all IPv4 and all IPv6 addresses, at one port. A machine without IPv6 gets a
    /// warning in the log.
    #[must_use]
    pub fn bind_any(mut self, port: u16) -> Self {
        self.targets.push(BindTarget::AnyAddress(port));
        self
    }

    /// Listens at a socket that is bound already.
    #[must_use]
    pub fn socket(mut self, socket: UdpSocket) -> Self {
        self.targets.push(BindTarget::Socket(socket));
        self
    }

    /// Uses this configuration instead of [`ServerConfig::default`].
    #[must_use]
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = config;
        self
    }

    /// Decides which clients may ask, such as [`AccessRules::decide`] does. A request that is
    /// denied takes no place, no port and no call of the store. The closure is called by the loop
    /// for each request: it must not block. If it panics, the request is ignored.
    #[must_use]
    pub fn access(
        mut self,
        decide: impl Fn(&AccessRequest) -> Access + Send + Sync + 'static,
    ) -> Self {
        self.access = Gate::new(decide);
        self
    }

    /// Binds the sockets. Nothing is answered before [`BoundServer::start`]: privileges can be
    /// dropped in between.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value out of its range, [`Error::Bind`] for an address that cannot
    /// be bound, [`Error::Overlap`] for one that this server listens on already.
    pub fn listen(mut self) -> Result<BoundServer, Error> {
        self.config.check()?;
        if self.targets.is_empty() {
            self.targets.push(BindTarget::AnyAddress(limits::PORT));
        }
        let mut listeners = Vec::new();
        for target in self.targets {
            match target {
                BindTarget::Address(address) => {
                    let listener = bind(address, self.config.freebind);
                    listeners.push(listener.map_err(|error| blame(error, &listeners))?);
                }
                BindTarget::AnyAddress(port) => {
                    let both = bind_any(port).map_err(|error| blame(error, &listeners))?;
                    listeners.extend(both);
                }
                BindTarget::Socket(socket) => {
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
        Ok(BoundServer {
            store: self.store,
            config: self.config,
            access: self.access,
            listeners,
            addresses,
        })
    }

    /// Binds the sockets and serves.
    ///
    /// # Errors
    /// Those of [`listen`](Self::listen) and [`BoundServer::start`].
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
pub struct BoundServer {
    store: Box<dyn Store>,
    config: ServerConfig,
    access: Gate,
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
}

impl fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundServer")
            .field("addresses", &self.addresses)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl BoundServer {
    /// Where it listens, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts the loop and the first worker.
    ///
    /// # Errors
    /// [`Error::System`] when the system refuses a thread or a descriptor, [`Error::Bind`] when it
    /// does not let this process use [`ServerConfig::ports`].
    pub fn start(self) -> Result<Server, Error> {
        let Self {
            store,
            config,
            access,
            listeners,
            addresses,
        } = self;
        check_ports(config.ports.as_ref(), &listeners)?;
        let system = |doing| move |cause| Error::System { doing, cause };
        let poll = mio::Poll::new().map_err(system("watch sockets"))?;
        let waker =
            mio::Waker::new(poll.registry(), dispatch::WAKER).map_err(system("watch sockets"))?;
        let (mailbox, mail) = mailbox(MAIL, waker);
        let supply = config
            .ports
            .clone()
            .map_or_else(Supply::of_the_system, Supply::Range);
        // One processor is for the loop, and for the network of the kernel.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = (processors - 1).clamp(1, config.workers);
        let lanes = (0..lanes)
            .map(|_| Lane::new())
            .collect::<io::Result<Arc<[_]>>>()
            .map_err(system("watch sockets"))?;
        let shared = Arc::new(shared::Shared {
            store,
            mappings: Mappings::new(limits::CACHED_MAPPINGS, limits::MAPPING_IDLE),
            memory: config
                .client_history
                .then(|| Mutex::new(ClientHistory::default())),
            buffers: Buffers::new(config.max_buffered),
            refusals: Mutex::new(TokenBucket::new(limits::REFUSALS_PER_SECOND, now())),
            reporter: Arc::default(),
            terms: Terms {
                max_blksize: config.max_block_size,
                max_windowsize: config.max_window_size,
                in_flight: most_in_flight(supply.len()),
            },
            policy: Policy {
                timeout: config.timeout,
                retries: config.retries,
                retransmit: config.retransmit,
                min_progress: config.min_progress,
                max_time: Some(config.max_time),
                ..Policy::default()
            },
            fit_route: config.fit_route,
            sockets: SocketOptions {
                ports: None, // each request has its own
                dont_fragment: config.dont_fragment,
                interface: None,
            },
            store_deadline: config.store_deadline,
            pool: PoolState::new(config.workers, config.workers.div_ceil(2), lanes),
            requests: AtomicUsize::new(0),
            half_open: AtomicUsize::new(0),
        });
        let quota = Quota {
            transfers: config.max_transfers,
            per_client: config.max_transfers_per_client,
            half_open: config.max_half_open.unwrap_or(config.max_transfers),
            half_open_per_client: config.max_half_open_per_client,
            half_open_per_network: config.max_half_open_per_network,
        };
        let endpoint = Config {
            quota,
            supply,
            access,
            takes_uploads: shared.store.takes_uploads(),
            answer_broadcast: config.answer_broadcast,
            store_deadline: config.store_deadline,
        };
        let ends = (mailbox.clone(), mail);
        let event_loop = Loop::new(
            poll,
            ends,
            Arc::clone(&shared),
            listeners,
            endpoint,
            config.workers,
        )?;
        let thread = std::thread::Builder::new()
            .name("tftp-loop".into())
            .spawn({
                let closing = CloseOnDrop(Arc::clone(&shared.reporter));
                move || {
                    let _closing = closing;
                    event_loop.run()
                }
            })
            .map_err(system("start a thread"))?;
        Ok(Server {
            handle: ServerHandle {
                addresses: addresses.into(),
                mailbox,
                reporter: Arc::clone(&shared.reporter),
                shared: Arc::downgrade(&shared),
            },
            thread: Some(thread),
            #[cfg(test)]
            shared,
        })
    }
}

/// Ends the queues of events when the loop is over, also where it panicked: no reader waits for a
/// server that is gone.
struct CloseOnDrop(Arc<Reporter>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Bytes in flight of one transfer where its answer can come from this many ports.
fn most_in_flight(ports: usize) -> u64 {
    let by_ports = limits::IN_FLIGHT_PER_PORT * ports as u64;
    by_ports.clamp(limits::LEAST_IN_FLIGHT, limits::IN_FLIGHT_OCTETS)
}

/// A running server. Dropping it stops it as [`Stop::Now`] does. Other threads observe and control
/// it through a [`ServerHandle`].
pub struct Server {
    handle: ServerHandle,
    thread: Option<JoinHandle<Result<(), Error>>>,
    #[cfg(test)]
    shared: Arc<shared::Shared>,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// Running transfers end with an ERROR.
    Now,
    /// No request is taken any more; running transfers have this long to end by themselves.
    Drain(Duration),
}

impl Server {
    /// Begins to set up a server for this store: a [`Dir`](crate::Dir), a closure, or any
    /// [`Store`].
    pub fn builder(store: impl Store + 'static) -> ServerBuilder {
        ServerBuilder {
            store: Box::new(store),
            config: ServerConfig::default(),
            access: Gate::default(),
            targets: Vec::new(),
        }
    }

    /// The first address that it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// The addresses that it listens on, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        self.handle.local_addrs()
    }

    /// False once it has stopped, by itself or because it was told to.
    pub fn is_running(&self) -> bool {
        self.handle.is_running()
    }

    /// What happens from now on: see [`ServerHandle::events`].
    pub fn events(&self) -> Events {
        self.handle.events()
    }

    /// What has happened so far, counted.
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// What it holds at the moment.
    pub fn gauges(&self) -> Gauges {
        self.handle.gauges()
    }

    /// A handle for another thread, such as one that waits for signals or exports the counters.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Asks it to stop; [`join`](Self::join) waits for it. A second call can only hasten the end.
    pub fn stop(&self, stop: Stop) {
        self.handle.stop(stop);
    }

    /// Reloads external state of the store: see [`ServerHandle::reload`].
    pub fn reload(&self) {
        self.handle.reload();
    }

    /// Ends one transfer, if it still runs: see [`ServerHandle::cancel`].
    pub fn cancel(&self, id: TransferId) {
        self.handle.cancel(id);
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

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.local_addrs())
            .finish_non_exhaustive()
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

    #[test]
    fn readers_of_events_come_to_an_end_where_the_loop_panics() {
        let reporter = Arc::new(Reporter::default());
        let mut events = reporter.listen();
        let closing = CloseOnDrop(Arc::clone(&reporter));
        let event_loop = std::thread::spawn(move || {
            let _closing = closing;
            panic!("on purpose");
        });
        assert!(event_loop.join().is_err());
        assert!(reporter.is_closed());
        assert!(events.next().is_none());
    }

    /// It sends nothing twice.
    fn start() -> Server {
        let server = Server::builder(store_fn(shelf)).bind(HERE);
        let config = ServerConfig {
            timeout: 2 * PATIENCE,
            ..ServerConfig::default()
        };
        server.config(config).start().expect("a server")
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
        while !is_wanted(&events.recv_timeout(PATIENCE).expect("an event")) {}
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
