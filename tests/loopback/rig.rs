//! Clients for tests: one that can be told to do anything, packet by packet, and [`fetch`], which gets a whole file.
#![allow(dead_code)] // each test binary uses its part

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{self, Outcome, Policy, Receiver, Step};
use tftpool::unversioned::wire::{self, Packet};
use tftpool::{
    Builder, Event, Events, Failure, Listening, Mode, OptionName, Options, Refusal, Request,
    Retransmit, Server, Source, Stats, Store, Summary,
};

/// How long a test waits for what must come. Only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[allow(clippy::disallowed_methods)] // a client's clock
pub(crate) fn now() -> Instant {
    Instant::now()
}

// ---- waiting ---------------------------------------------------------------------------------

/// A door that is shut until the test opens it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    pub(crate) fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().expect("a gate");
        state.0 += 1;
        changed.notify_all();
        drop(
            changed
                .wait_while(state, |(_, open)| !*open)
                .expect("a gate"),
        );
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().expect("a gate").1 = true;
        self.0.1.notify_all();
    }

    /// Returns when so many stand before it.
    pub(crate) fn wait_for(&self, many: usize) {
        let (state, changed) = &*self.0;
        let state = state.lock().expect("a gate");
        let (_state, timeout) = changed
            .wait_timeout_while(state, PATIENCE, |(inside, _)| *inside < many)
            .expect("a gate");
        assert!(!timeout.timed_out(), "{many} never came");
    }
}

// ---- servers ----------------------------------------------------------------------------------

/// Octets that repeat nowhere near.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (1..=length as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// Serves these files from memory.
pub(crate) fn shelf<const N: usize>(files: [(&str, Vec<u8>); N]) -> impl Store {
    let files: HashMap<Vec<u8>, Vec<u8>> = files
        .into_iter()
        .map(|(name, octets)| (name.into(), octets))
        .collect();
    move |request: &Request<'_>| match files.get(request.name) {
        Some(octets) => Ok(Source::bytes(octets.as_slice())),
        None => Err(Refusal::not_found()),
    }
}

/// At a port of the system's choice.
pub(crate) fn builder(store: impl Store) -> Builder {
    Server::builder(store).bind(([127, 0, 0, 1], 0).into())
}

pub(crate) fn start(builder: Builder) -> Server {
    builder
        .listen()
        .and_then(Listening::start)
        .expect("a server")
}

pub(crate) fn serve(store: impl Store) -> Server {
    start(builder(store))
}

/// A server that sends nothing twice by itself, however slow this machine is: for tests that count packets.
pub(crate) fn calm(store: impl Store) -> Server {
    start(calmly(builder(store)))
}

pub(crate) fn calmly(builder: Builder) -> Builder {
    builder.limits(|limits| {
        limits.retransmit = Retransmit::Rfc;
        limits.timeout = 2 * PATIENCE;
    })
}

/// Returns when the loop has dealt with everything that was sent to it before.
pub(crate) fn fence(server: &Server) {
    let mut client = Client::new(server.local_addr());
    client.ask("/no such file/", &[]);
    client.error();
}

/// Waits for the first event that this makes something of.
pub(crate) fn wait_for<T>(events: &mut Events, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let end = now() + PATIENCE;
    loop {
        let event = events.next_within(end.saturating_duration_since(now()));
        let event = event.expect("an event that never came");
        if let Some(found) = wanted(&event) {
            return found;
        }
    }
}

pub(crate) fn completed(events: &mut Events) -> Summary {
    wait_for(events, |event| match event {
        Event::Completed(summary) => Some(summary.clone()),
        _ => None,
    })
}

pub(crate) fn failed(events: &mut Events) -> (Summary, Failure) {
    wait_for(events, |event| match event {
        Event::Failed(summary, failure) => Some((summary.clone(), failure.clone())),
        _ => None,
    })
}

/// What the counters should be.
pub(crate) fn fold(events: &[Event]) -> Stats {
    let mut stats = Stats::default();
    events.iter().for_each(|event| stats.apply(event));
    stats
}

/// Ports below those that the system hands out by itself.
pub(crate) fn free_ports(count: u16) -> std::ops::RangeInclusive<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first =
        10_000 + (std::process::id() % 1000) as u16 * 20 + NEXT.fetch_add(count, Ordering::Relaxed);
    let is_free = |ports: std::ops::Range<u16>| {
        ports
            .into_iter()
            .all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
    };
    let start = (first..)
        .step_by(usize::from(count))
        .find(|start| is_free(*start..start + count));
    let start = start.expect("free ports");
    start..=start + count - 1
}

// ---- one packet at a time -----------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Data(u16, Vec<u8>),
    Ack(u16),
    Oack(String),
    Error(u16, String),
    Other(Vec<u8>),
}

/// A client that does what it is told.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    pub(crate) server: SocketAddr,
    /// Where the last answer to a request came from.
    pub(crate) tid: Option<SocketAddr>,
}

impl Client {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let local = match server {
            SocketAddr::V4(_) => ([127, 0, 0, 1], 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::LOCALHOST, 0).into(),
        };
        Self::at(local, server)
    }

    pub(crate) fn at(local: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            server,
            tid: None,
        }
    }

    /// Asks for a file; the next answer decides the TID.
    pub(crate) fn ask(&mut self, name: &str, options: &[(&str, &str)]) {
        self.tid = None;
        self.shout(&rrq(name, "octet", options));
    }

    /// Offers a file; the next answer decides the TID.
    pub(crate) fn offer(&mut self, name: &str, options: &[(&str, &str)]) {
        self.tid = None;
        self.shout(&wrq(name, "octet", options));
    }

    /// A block to the transfer's port.
    pub(crate) fn send(&self, block: u16, octets: &[u8]) {
        self.say(&[&wire::data_header(block), octets].concat());
    }

    /// The ACK of this block is next.
    pub(crate) fn acked(&mut self, block: u16) {
        assert_eq!(self.next(), Reply::Ack(block));
    }

    /// To the listening port.
    pub(crate) fn shout(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.server).expect("a send");
    }

    /// To the transfer's port.
    pub(crate) fn say(&self, datagram: &[u8]) {
        self.socket
            .send_to(datagram, self.tid.expect("a TID"))
            .expect("a send");
    }

    pub(crate) fn ack(&self, block: u16) {
        self.say(&wire::ack(block));
    }

    pub(crate) fn abort(&self, code: u16) {
        self.say(&error(code, "no more"));
    }

    pub(crate) fn next_from(&self) -> (SocketAddr, Reply) {
        let mut buffer = vec![0; 65536];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => return (from, reply(&buffer[..length])),
                // A machine that was halted and goes on interrupts a call with a timeout.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("an answer that never came: {error}"),
            }
        }
    }

    /// The next packet, which must come from the transfer's port.
    pub(crate) fn next(&mut self) -> Reply {
        let (from, reply) = self.next_from();
        assert_eq!(
            *self.tid.get_or_insert(from),
            from,
            "{reply:?} from another port"
        );
        reply
    }

    pub(crate) fn data(&mut self, block: u16) -> Vec<u8> {
        match self.next() {
            Reply::Data(number, octets) if number == block => octets,
            other => panic!("wanted block {block}, got {other:?}"),
        }
    }

    /// The same where the server may have sent earlier blocks again, because this machine was slow.
    pub(crate) fn data_at_last(&mut self, block: u16) -> Vec<u8> {
        loop {
            match self.next() {
                Reply::Data(number, octets) if number == block => return octets,
                Reply::Data(number, _) if number < block => {}
                other => panic!("wanted block {block}, got {other:?}"),
            }
        }
    }

    pub(crate) fn oack(&mut self) -> String {
        match self.next() {
            Reply::Oack(options) => options,
            other => panic!("wanted an OACK, got {other:?}"),
        }
    }

    pub(crate) fn error(&mut self) -> (u16, String) {
        match self.next() {
            Reply::Error(code, text) => (code, text),
            other => panic!("wanted an ERROR, got {other:?}"),
        }
    }

    /// Nothing more has come.
    pub(crate) fn quiet(&self) {
        if let Some(reply) = self.at_hand() {
            panic!("{reply:?} came");
        }
    }

    pub(crate) fn at_hand(&self) -> Option<Reply> {
        let mut buffer = vec![0; 65536];
        self.socket.set_nonblocking(true).expect("a socket");
        let received = self.socket.recv(&mut buffer);
        self.socket.set_nonblocking(false).expect("a socket");
        received.ok().map(|length| reply(&buffer[..length]))
    }

    /// Goes on in lock step behind block `block`: acknowledges it, and so on to the end. A block that comes again was
    /// answered already.
    pub(crate) fn rest(
        &mut self,
        mut block: u16,
        blksize: usize,
    ) -> Result<Vec<u8>, (u16, String)> {
        let mut content = Vec::new();
        loop {
            self.ack(block);
            block = block.wrapping_add(1);
            let octets = loop {
                match self.next() {
                    Reply::Data(number, octets) if number == block => break octets,
                    Reply::Data(number, _) if number == block.wrapping_sub(1) => {}
                    Reply::Error(code, text) => return Err((code, text)),
                    other => panic!("wanted block {block}, got {other:?}"),
                }
            };
            content.extend_from_slice(&octets);
            if octets.len() < blksize {
                self.ack(block);
                return Ok(content);
            }
        }
    }

    /// Asks without options and fetches to the end, in lock step.
    pub(crate) fn get(&mut self, name: &str) -> Result<Vec<u8>, (u16, String)> {
        self.ask(name, &[]);
        let first = match self.next() {
            Reply::Data(1, octets) => octets,
            Reply::Error(code, text) => return Err((code, text)),
            other => panic!("wanted block 1, got {other:?}"),
        };
        if first.len() < 512 {
            self.ack(1);
            return Ok(first);
        }
        Ok([first, self.rest(1, 512)?].concat())
    }
}

pub(crate) fn rrq(name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut datagram = format!("\0\x01{name}\0{mode}\0").into_bytes();
    for (option, value) in options {
        datagram.extend_from_slice(format!("{option}\0{value}\0").as_bytes());
    }
    datagram
}

pub(crate) fn wrq(name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    [b"\0\x02", &rrq(name, mode, options)[2..]].concat()
}

pub(crate) fn error(code: u16, text: &str) -> Vec<u8> {
    let mut datagram = Vec::new();
    wire::emit_error(wire::ErrorCode(code), text, &mut datagram);
    datagram
}

fn reply(datagram: &[u8]) -> Reply {
    match wire::parse(datagram) {
        Ok(Packet::Data { block, payload }) => Reply::Data(block, payload.into()),
        Ok(Packet::Ack { block }) => Reply::Ack(block),
        Ok(Packet::OptionAck(options)) => Reply::Oack(options.to_string()),
        Ok(Packet::Error { code, message }) => {
            Reply::Error(code.0, String::from_utf8_lossy(message).into_owned())
        }
        _ => Reply::Other(datagram.into()),
    }
}

// ---- whole files --------------------------------------------------------------------------------

/// What went wrong: the server's ERROR, or the client's own end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Told(u16, String),
    Ended(Outcome),
}

/// Fetches a file as a good client does: repeats its request, reports holes, and so on.
pub(crate) fn fetch(
    server: SocketAddr,
    name: &str,
    options: &[(OptionName, u64)],
) -> Result<Vec<u8>, Trouble> {
    fetch_over(
        &Client::new(server).socket,
        server,
        name,
        Mode::Octet,
        options,
    )
}

pub(crate) fn fetch_over(
    socket: &UdpSocket,
    server: SocketAddr,
    name: &str,
    mode: Mode,
    options: &[(OptionName, u64)],
) -> Result<Vec<u8>, Trouble> {
    let mut content = Vec::new();
    let store = |block: &[u8]| content.extend_from_slice(block);
    fetch_into(store, socket, server, name, mode, options).map(|()| content)
}

/// The same for files that do not fit into memory: each block is handed over once, in order.
pub(crate) fn fetch_into(
    mut store: impl FnMut(&[u8]),
    socket: &UdpSocket,
    server: SocketAddr,
    name: &str,
    mode: Mode,
    options: &[(OptionName, u64)],
) -> Result<(), Trouble> {
    let asked = options
        .iter()
        .fold(Options::default(), |all, (name, value)| {
            all.with(*name, *value)
        });
    let mut request = Vec::new();
    let direction = wire::Direction::Read;
    wire::Request {
        direction,
        name: name.as_bytes(),
        mode,
        options: asked,
    }
    .emit(&mut request);
    let policy = Policy {
        retries: 20,
        ..Policy::default()
    };
    let mut machine = Receiver::requesting(Duration::ZERO, &policy, now());
    let mut tid = None;
    let mut buffer = vec![0; 65536];
    loop {
        let until = match machine.poll(now()) {
            Step::Open => {
                let _ = socket.send_to(&request, server);
                machine.sent(now());
                continue;
            }
            Step::Ack(block) => {
                let ack = wire::ack(machine.rollover().to_wire(block));
                let _ = socket.send_to(&ack, tid.unwrap_or(server));
                machine.sent(now());
                continue;
            }
            Step::Error(..) => {
                machine.sent(now());
                continue;
            }
            Step::Done(Outcome::Complete) => return Ok(()),
            Step::Done(outcome) => return Err(Trouble::Ended(outcome)),
            Step::Data { .. } => unreachable!("a receiver sends no data"),
            Step::Wait(until) => until,
        };
        let wait = until
            .saturating_duration_since(now())
            .max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Ok(packet) = wire::parse(&buffer[..length]) else {
            panic!("no packet of TFTP: {:?}", &buffer[..length]);
        };
        if let Packet::Error { code, message } = packet {
            return Err(Trouble::Told(
                code.0,
                String::from_utf8_lossy(message).into_owned(),
            ));
        }
        if tid.is_none() {
            tid = Some(from);
            match packet {
                Packet::OptionAck(oack) => {
                    let agreed = proto::accept(&asked, &oack).expect("an OACK that was asked for");
                    machine.agree(&agreed, true, &policy, now());
                    continue;
                }
                _ => machine.agree(&proto::Agreed::default(), false, &policy, now()),
            }
        }
        if tid != Some(from) {
            continue;
        }
        match machine.handle(&packet, now()) {
            proto::Verdict::Store | proto::Verdict::StoreLast => {
                if let Packet::Data { payload, .. } = packet {
                    store(payload);
                }
            }
            proto::Verdict::Ignore => {}
        }
    }
}

/// Puts a file as a good client does: in windows, again where it has to be.
pub(crate) fn put(
    server: SocketAddr,
    name: &str,
    mode: Mode,
    options: &[(OptionName, u64)],
    content: &[u8],
) -> Result<(), Trouble> {
    let socket = Client::new(server).socket;
    let asked = options
        .iter()
        .fold(Options::default(), |all, (name, value)| {
            all.with(*name, *value)
        });
    let mut request = Vec::new();
    wire::Request {
        direction: wire::Direction::Write,
        name: name.as_bytes(),
        mode,
        options: asked,
    }
    .emit(&mut request);
    let policy = Policy {
        retries: 20,
        ..Policy::default()
    };
    let mut machine = proto::Sender::requesting(&policy, now());
    let mut agreed = proto::Agreed::default();
    let mut tid = None;
    let mut buffer = vec![0; 600];
    loop {
        let until = match machine.poll(now()) {
            Step::Open => {
                let _ = socket.send_to(&request, server);
                machine.opened(now());
                continue;
            }
            Step::Data { first, end } => {
                let size = usize::from(agreed.blksize);
                for block in first..end {
                    let start = (block as usize - 1) * size;
                    let octets = &content[start..content.len().min(start + size)];
                    let header = wire::data_header(agreed.rollover.to_wire(block));
                    let _ = socket.send_to(&[&header, octets].concat(), tid.unwrap_or(server));
                }
                machine.sent(end, now());
                continue;
            }
            Step::Done(Outcome::Complete) => return Ok(()),
            Step::Done(outcome) => return Err(Trouble::Ended(outcome)),
            Step::Ack(_) | Step::Error(..) => unreachable!("a sender does not"),
            Step::Wait(until) => until,
        };
        let wait = until.saturating_duration_since(now());
        let wait = wait.max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let packet = wire::parse(&buffer[..length]).expect("a packet");
        if let Packet::Error { code, message } = packet {
            let text = String::from_utf8_lossy(message).into_owned();
            return Err(Trouble::Told(code.0, text));
        }
        if *tid.get_or_insert(from) != from {
            continue;
        }
        match packet {
            Packet::OptionAck(oack) => {
                agreed = proto::accept(&asked, &oack).expect("an OACK that was asked for");
                let last = content.len() as u64 / u64::from(agreed.blksize) + 1;
                machine.agree(&agreed, Some(last), &policy, now());
            }
            Packet::Ack { block: 0 } => {
                let last = content.len() as u64 / u64::from(agreed.blksize) + 1;
                machine.agree(&agreed, Some(last), &policy, now());
                machine.handle(&packet, now());
            }
            _ => machine.handle(&packet, now()),
        }
    }
}

// ---- files on disk --------------------------------------------------------------------------------

/// A directory for one test, gone when the test is over.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("tftpool-loopback-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, as if an hour ago: every later change shows in its time stamp.
    pub(crate) fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, content).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .expect("permissions");
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("a file");
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        file.set_modified(epoch + Duration::from_secs(1_000_000_000))
            .expect("a time stamp");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
