//! A way between client and server that loses what a script says.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

/// Clients, and ports of the server for each, that one relay knows.
const FLOWS: usize = 1024;

/// Where a datagram is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Towards {
    /// To the server.
    Server,
    /// To the client.
    Client,
}

/// A datagram that passes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Passing<'a> {
    /// Where it goes.
    pub towards: Towards,
    /// The client that sends or gets it.
    pub client: SocketAddr,
    /// Its octets.
    pub datagram: &'a [u8],
}

impl Passing<'_> {
    /// The number of a DATA block.
    pub fn data(&self) -> Option<u16> {
        match *self.datagram {
            [0, 3, high, low, ..] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It is lost.
    Lose,
    /// It arrives twice.
    Twice,
}

/// A script that loses the first copy of each of these blocks, for each client.
pub fn lose_blocks<const N: usize>(
    blocks: [u16; N],
) -> impl FnMut(&Passing<'_>) -> Fate + Send + 'static {
    let mut lost = std::collections::HashSet::new();
    move |passing| match passing.data() {
        Some(block) if blocks.contains(&block) && lost.insert((passing.client, block)) => {
            Fate::Lose
        }
        _ => Fate::Pass,
    }
}

/// Stands between clients and a server, on 127.0.0.1. To a client it looks like the server, with a
/// port of its own for each transfer; to the server each client has one port, however often it
/// asks. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Begins to pass on what comes for this server; the script decides about each datagram.
    ///
    /// # Panics
    /// When the system refuses a socket or a thread.
    pub fn start(
        server: SocketAddr,
        script: impl FnMut(&Passing<'_>) -> Fate + Send + 'static,
    ) -> Self {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(usize::MAX)).expect("a waker");
        let mut ways = Ways {
            poll,
            server,
            script: Box::new(script),
            sockets: HashMap::new(),
            inner: HashMap::new(),
            outer: HashMap::new(),
        };
        let door = ways.open(Role::Door).expect("a socket");
        let address = ways.sockets[&door].0.local_addr().expect("an address");
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("tftp-relay".into())
            .spawn(move || ways.run(&seen))
            .expect("a thread");
        Self {
            address,
            ended,
            waker,
            thread: Some(thread),
        }
    }

    /// Where clients ask.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a socket is for.
#[derive(Clone, Copy)]
enum Role {
    /// Requests of all clients.
    Door,
    /// This client, as the server sees it.
    Inner(SocketAddr),
    /// A port of the server, as this client sees it.
    Outer { client: SocketAddr, tid: SocketAddr },
}

/// A script.
type Script = Box<dyn FnMut(&Passing<'_>) -> Fate + Send>;

struct Ways {
    poll: Poll,
    server: SocketAddr,
    script: Script,
    sockets: HashMap<RawFd, (UdpSocket, Role)>,
    inner: HashMap<SocketAddr, RawFd>,
    outer: HashMap<(SocketAddr, SocketAddr), RawFd>,
}

impl Ways {
    fn open(&mut self, role: Role) -> io::Result<RawFd> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let descriptor = socket.as_raw_fd();
        self.poll.registry().register(
            &mut SourceFd(&descriptor),
            Token(descriptor as usize),
            Interest::READABLE,
        )?;
        self.sockets.insert(descriptor, (socket, role));
        Ok(descriptor)
    }

    fn run(mut self, ended: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; 65536];
        while !ended.load(Ordering::SeqCst) {
            if self.poll.poll(&mut events, None).is_err() {
                continue; // interrupted
            }
            for event in &events {
                let descriptor = event.token().0 as RawFd;
                while let Some((socket, role)) = self.sockets.get(&descriptor) {
                    let role = *role;
                    match socket.recv_from(&mut buffer) {
                        Ok((length, from)) => self.pass(role, from, &buffer[..length]),
                        // ICMP's answer to an earlier datagram.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                        Err(_) => break,
                    }
                }
            }
        }
    }

    /// Passes a datagram on, as often as the script says. Where there is no room, it is lost.
    fn pass(&mut self, role: Role, from: SocketAddr, datagram: &[u8]) {
        let (towards, client) = match role {
            Role::Door => (Towards::Server, from),
            Role::Inner(client) => (Towards::Client, client),
            Role::Outer { client, .. } if client == from => (Towards::Server, client),
            Role::Outer { .. } => return,
        };
        let passing = Passing {
            towards,
            client,
            datagram,
        };
        let copies = match (self.script)(&passing) {
            Fate::Pass => 1,
            Fate::Lose => 0,
            Fate::Twice => 2,
        };
        let (way, to) = match role {
            Role::Door => (self.inner(client), self.server),
            Role::Inner(_) => (self.outer(client, from), client),
            Role::Outer { tid, .. } => (self.inner(client), tid),
        };
        if let Some((socket, _)) = way.and_then(|way| self.sockets.get(&way)) {
            (0..copies).for_each(|_| drop(socket.send_to(datagram, to)));
        }
    }

    fn inner(&mut self, client: SocketAddr) -> Option<RawFd> {
        if let Some(way) = self.inner.get(&client) {
            return Some(*way);
        }
        let way = self.room()?.open(Role::Inner(client)).ok()?;
        self.inner.insert(client, way);
        Some(way)
    }

    fn outer(&mut self, client: SocketAddr, tid: SocketAddr) -> Option<RawFd> {
        if let Some(way) = self.outer.get(&(client, tid)) {
            return Some(*way);
        }
        let way = self.room()?.open(Role::Outer { client, tid }).ok()?;
        self.outer.insert((client, tid), way);
        Some(way)
    }

    fn room(&mut self) -> Option<&mut Self> {
        (self.sockets.len() < FLOWS).then_some(self)
    }
}
