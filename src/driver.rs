//! One server inside a larger program, with the files that it serves: started and stopped any
//! number of times, and leaving nothing behind.
//!
//! There is no second way to serve in here: a [`Driver`] is a [`Server`] on a [`Dir`], and a
//! [`Storage`] for the same directory.

use crate::error::{Error, TftpError};
use crate::event::{Stats, TransferId};
use crate::limits;
use crate::server::{Events, Limits, Server, Stop};
use crate::store::{Dir, DirBuilder, Storage};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Served when no root is named.
const DEFAULT_ROOT: &str = "/var/lib/tftpboot";

/// A server with its files, for a program that puts them there: a hardware lab, a factory tool, a
/// test suite.
///
/// It can be shared between threads. One start, stop or close goes on at a time, and another waits
/// for its end; every question is answered meanwhile. The only code of yours that runs inside them
/// is your logger, which must not call them: it would wait for itself. Dropping it is
/// [`close`](Self::close).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = std::env::temp_dir().join(format!("tftpool-doc-{}", std::process::id()));
/// let driver = tftpool::Driver::builder()
///     .root(&root)
///     .host("127.0.0.1")
///     .port(0) // any free port
///     .open()?;
/// driver.storage().write("boot/kernel", "octets")?;
/// driver.start()?;
/// println!("boards boot from {}:{}", driver.host()?, driver.port());
/// driver.stop()?;
/// driver.close()?; // boot/kernel and boot are gone
/// # assert!(std::fs::remove_dir(&root).is_ok(), "nothing is left in it");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Driver {
    settings: DriverBuilder,
    dir: Dir,
    storage: Storage,
    /// Held through a whole start, stop or close, and taken before `server`.
    life: Mutex<()>,
    /// Held for a moment only.
    server: Mutex<Option<Server>>,
}

/// What a [`Driver`] serves, and where; made by [`Driver::builder`].
#[derive(Clone, Debug)]
pub struct DriverBuilder {
    directory: DirBuilder,
    root: PathBuf,
    host: String,
    port: u16,
    remove_created_on_close: bool,
    drain: Duration,
    limits: Limits,
}

impl DriverBuilder {
    /// The directory to serve; made, with those above it, where it is missing. Default:
    /// `/var/lib/tftpboot`.
    #[must_use]
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = root.into();
        self
    }

    /// The address, or the name, to serve at; a link-local one with its interface (`fe80::1%eth0`).
    /// Default: `""`, the address that this machine reaches the rest of the world from; all IPv4
    /// addresses where it has no route there.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self
    }

    /// The port to serve at; 0 takes a free one at each start. Default: 69.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Whether [`Driver::close`] removes what was created through [`Driver::storage`]. Default: it
    /// does.
    #[must_use]
    pub fn remove_created_on_close(mut self, remove: bool) -> Self {
        self.remove_created_on_close = remove;
        self
    }

    /// How long [`Driver::stop`] lets running transfers go on. Default: 5 s.
    #[must_use]
    pub fn drain(mut self, patience: Duration) -> Self {
        self.drain = patience;
        self
    }

    /// Changes how the directory is served, as [`Dir::builder`] allows.
    #[must_use]
    pub fn directory(mut self, change: impl FnOnce(DirBuilder) -> DirBuilder) -> Self {
        self.directory = change(self.directory);
        self
    }

    /// Changes limits of the server.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Makes the root where it is missing, and opens it. Nothing is served yet.
    ///
    /// # Errors
    /// [`TftpError::Server`] with an [`Error::Directory`].
    pub fn open(self) -> Result<Driver, TftpError> {
        make_root(&self.root)?;
        let dir = self.directory.clone().at(&self.root).open()?;
        Ok(Driver {
            storage: Storage::new(dir.clone()),
            dir,
            settings: self,
            life: Mutex::new(()),
            server: Mutex::new(None),
        })
    }
}

impl Driver {
    /// Begins to set up a driver.
    pub fn builder() -> DriverBuilder {
        DriverBuilder {
            directory: Dir::builder(DEFAULT_ROOT),
            root: DEFAULT_ROOT.into(),
            host: String::new(),
            port: limits::PORT,
            remove_created_on_close: true,
            drain: limits::DRIVER_DRAIN,
            limits: Limits::default(),
        }
    }

    /// Serves. Returns when the socket is bound. A second start warns and does nothing.
    ///
    /// # Errors
    /// [`TftpError::Host`] where the host has no address, [`TftpError::Server`] with the reason why
    /// the server could not start.
    pub fn start(&self) -> Result<(), TftpError> {
        let life = self.live();
        let running = self.running(Server::local_addr);
        if let Ok(address) = running {
            drop(life);
            log::warn!("already serving on {address}");
            return Ok(());
        }
        // A root that was replaced meanwhile is found by its path.
        make_root(&self.settings.root)?;
        self.dir.reopen()?;
        let address = self.settings.address()?;
        let started = Server::builder(self.dir.clone())
            .bind(address)
            .limits(|limits| limits.clone_from(&self.settings.limits))
            .start()?;
        let dead = self.lock().replace(started);
        drop(dead); // without the lock: it waits for its thread
        Ok(())
    }

    /// Takes no new requests, waits until running transfers have ended, but no longer than
    /// [`drain`](DriverBuilder::drain) and a moment to end the rest, and returns what has happened
    /// since the start, counted.
    ///
    /// # Errors
    /// [`TftpError::ServerNotRunning`], or [`TftpError::Server`] where it had died by itself.
    pub fn stop(&self) -> Result<Stats, TftpError> {
        let _life = self.live();
        self.end()
    }

    fn end(&self) -> Result<Stats, TftpError> {
        // Taken out first: nobody who asks meanwhile has to wait.
        let server = self.lock().take().ok_or(TftpError::ServerNotRunning)?;
        server.stop(Stop::Drain(self.settings.drain));
        Ok(server.join()?)
    }

    /// The address that is served at, or would be. A link-local one comes without its interface,
    /// which is a name or number of this machine only: it stands in the
    /// [`host`](DriverBuilder::host) that was asked for.
    ///
    /// # Errors
    /// [`TftpError::Host`] where the host has no address.
    pub fn host(&self) -> Result<IpAddr, TftpError> {
        match &*self.lock() {
            Some(server) => Ok(server.local_addr().ip()),
            None => Ok(self.settings.address()?.ip()),
        }
    }

    /// The port that is served at; while it is not running, the one that was asked for.
    pub fn port(&self) -> u16 {
        let port = |server: &Server| server.local_addr().port();
        self.lock().as_ref().map_or(self.settings.port, port)
    }

    /// The directory that is served.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it serves.
    pub fn is_running(&self) -> bool {
        self.lock().as_ref().is_some_and(Server::is_running)
    }

    /// The files beneath the root.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// What happens from now on until it is stopped; see [`Server::events`].
    ///
    /// # Errors
    /// [`TftpError::ServerNotRunning`].
    pub fn events(&self) -> Result<Events, TftpError> {
        self.running(Server::events)
    }

    /// What has happened since the start, counted; also how often a file was found mapped
    /// ([`Stats::mapping_hit_rate`]).
    ///
    /// # Errors
    /// [`TftpError::ServerNotRunning`].
    pub fn stats(&self) -> Result<Stats, TftpError> {
        self.running(Server::stats)
    }

    /// Ends one transfer; see [`Server::cancel`].
    ///
    /// # Errors
    /// [`TftpError::ServerNotRunning`].
    pub fn cancel(&self, id: TransferId) -> Result<(), TftpError> {
        self.running(|server| server.cancel(id))
    }

    /// Stops it where it runs, and removes what was created through [`storage`](Self::storage),
    /// unless [told otherwise](DriverBuilder::remove_created_on_close). It can be used and started
    /// again.
    ///
    /// # Errors
    /// [`TftpError::Server`] where the server had died by itself, [`TftpError::File`] where
    /// something could not be removed. The rest is done all the same.
    pub fn close(&self) -> Result<(), TftpError> {
        // A stop that another thread has begun is waited for: what it still serves has to stay
        // until then.
        let _life = self.live();
        let stopped = match self.end() {
            Ok(_) | Err(TftpError::ServerNotRunning) => Ok(()),
            Err(error) => Err(error),
        };
        let removed = match self.settings.remove_created_on_close {
            true => self.storage.remove_created(),
            false => Ok(()),
        };
        stopped.and(removed)
    }

    fn running<T>(&self, ask: impl FnOnce(&Server) -> T) -> Result<T, TftpError> {
        let server = self.lock();
        let server = server.as_ref().filter(|server| server.is_running());
        server.map(ask).ok_or(TftpError::ServerNotRunning)
    }

    fn live(&self) -> MutexGuard<'_, ()> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::warn!("{error}");
        }
    }
}

impl DriverBuilder {
    /// Where to serve; with the interface, where a link-local address names one (`fe80::1%eth0`).
    fn address(&self) -> Result<SocketAddr, TftpError> {
        if self.host.is_empty() {
            return Ok(SocketAddr::new(own_address(), self.port));
        }
        let host = |cause| TftpError::Host {
            host: self.host.clone(),
            cause,
        };
        let mut found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(host)?;
        let none = || host(io::Error::other("the name has no address"));
        found.next().ok_or_else(none)
    }
}

/// The address that the default route starts from. Connecting a UDP socket sends nothing; the
/// targets are addresses that are kept for documentation (RFC 5737, RFC 3849), which no route but
/// the default one covers.
fn own_address() -> IpAddr {
    let towards = |own: IpAddr, target: IpAddr| {
        let socket = UdpSocket::bind((own, 0)).ok()?;
        socket.connect((target, limits::PORT)).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified()).then_some(address)
    };
    let v4 = || {
        towards(
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        )
    };
    let v6 = || {
        let target = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        towards(Ipv6Addr::UNSPECIFIED.into(), target.into())
    };
    v4().or_else(v6).unwrap_or_else(|| {
        log::warn!("this machine has no default route: serving at all its IPv4 addresses");
        Ipv4Addr::UNSPECIFIED.into()
    })
}

fn make_root(root: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(root).map_err(|cause| Error::Directory {
        path: root.to_owned(),
        cause,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_interface() {
        // By its number, which the loopback has everywhere.
        let of = |host| Driver::builder().host(host).port(6969).address();
        let Ok(SocketAddr::V6(found)) = of("fe80::1%1") else {
            panic!("no IPv6 address");
        };
        assert_eq!((found.scope_id(), found.port()), (1, 6969));
        assert_eq!(found.ip().to_string(), "fe80::1");
        assert_eq!(of("192.0.2.7").ok(), Some(([192, 0, 2, 7], 6969).into()));
    }
}
