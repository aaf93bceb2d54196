//! Clients for tests: one that can be told to do anything, packet by packet, and [`fetch`], which
//! gets a whole file.
#![allow(dead_code)] // each test binary uses its part

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tftpool::unversioned::limits::REQUEST_SPREAD;
use tftpool::unversioned::proto::{self, Outcome, Policy, Receiver, Step};
use tftpool::unversioned::wire::{self, Packet};
use tftpool::{
    Builder, Event, Events, Failure, Listening, Mode, OptionName, Options, Retransmit, Server,
    Stats, Store, Summary,
};

#[allow(clippy::duplicate_mod, reason = "some test programs take both rigs")]
#[path = "../../src/store/scratch.rs"]
mod scratch;

#[allow(unused_imports)] // each test binary uses its part
pub(crate) use scratch::{Scratch, mode};
#[allow(unused_imports)] // each test binary uses its part
pub(crate) use tftpool::testing::{
    PATIENCE, Peer as Client, Reply, error, pattern, rrq, serve, shelf, wrq,
};

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

/// At a port of the system's choice.
pub(crate) fn builder(store: impl Store + 'static) -> Builder {
    Server::builder(store).bind(([127, 0, 0, 1], 0).into())
}

pub(crate) fn start(builder: Builder) -> Server {
    builder
        .listen()
        .and_then(Listening::start)
        .expect("a server")
}

/// A server that sends nothing twice by itself, however slow this machine is: for tests that count
/// packets.
pub(crate) fn calm(store: impl Store + 'static) -> Server {
    start(calmly(builder(store)))
}

pub(crate) fn calmly(builder: Builder) -> Builder {
    builder.limits(|limits| {
        limits.retransmit = Retransmit::Rfc;
        limits.timeout = 2 * PATIENCE;
    })
}

/// A transfer of `file` in lock step that was left at block 2.
pub(crate) fn begun(server: &Server) -> Client {
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    client.data(1);
    client.ack(1);
    client.data(2);
    client
}

/// Returns when the loop has dealt with everything that was sent to it before.
pub(crate) fn fence(server: &Server) {
    let mut client = Client::new(server.local_addr());
    client.ask("/no such file/", &[]);
    client.error();
}

/// Asks, and once more whenever there is no room, until the request is admitted.
pub(crate) fn insist(
    client: &mut Client,
    events: &mut Events,
    name: &str,
    options: &[(&str, &str)],
) {
    let own = client.socket.local_addr().expect("an address");
    let end = now() + PATIENCE;
    loop {
        client.ask(name, options);
        let is_admitted = wait_for(events, |event| match event {
            Event::Request { peer, .. } if *peer == own => Some(true),
            Event::Dropped { peer, .. } if *peer == own => Some(false),
            _ => None,
        });
        if is_admitted {
            return;
        }
        assert!(now() < end, "there is never room");
    }
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
    let direction = wire::Direction::Read;
    let mut call = Call::new(socket, server, direction, name, mode, options);
    let policy = patient();
    let mut machine = Receiver::requesting(Duration::ZERO, &policy, now());
    let mut buffer = vec![0; 65536];
    loop {
        let until = match machine.poll(now()) {
            Step::Open => {
                call.open();
                machine.sent(now());
                continue;
            }
            Step::Ack(block) => {
                call.send(&wire::ack(machine.rollover().to_wire(block)));
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
        let is_first = call.tid.is_none();
        let Some(packet) = call.hear(&mut buffer, until)? else {
            continue;
        };
        match packet {
            Packet::OptionAck(oack) if is_first => {
                machine.agree(&call.agreed(&oack), true, &policy, now());
                continue;
            }
            _ if is_first => machine.agree(&proto::Agreed::default(), false, &policy, now()),
            _ => {}
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
    let direction = wire::Direction::Write;
    let mut call = Call::new(&socket, server, direction, name, mode, options);
    let policy = patient();
    let mut machine = proto::Sender::requesting(&policy, now());
    let mut agreed = proto::Agreed::default();
    let mut buffer = vec![0; 600];
    loop {
        let until = match machine.poll(now()) {
            Step::Open => {
                call.open();
                machine.opened(now());
                continue;
            }
            Step::Data { first, end } => {
                let size = usize::from(agreed.blksize);
                for block in first..end {
                    let start = (block as usize - 1) * size;
                    let octets = &content[start..content.len().min(start + size)];
                    let header = wire::data_header(agreed.rollover.to_wire(block));
                    call.send(&[&header, octets].concat());
                }
                machine.sent(end, now());
                continue;
            }
            Step::Done(Outcome::Complete) => return Ok(()),
            Step::Done(outcome) => return Err(Trouble::Ended(outcome)),
            Step::Ack(_) | Step::Error(..) => unreachable!("a sender does not"),
            Step::Wait(until) => until,
        };
        let Some(packet) = call.hear(&mut buffer, until)? else {
            continue;
        };
        if let Packet::OptionAck(oack) = packet {
            agreed = call.agreed(&oack);
        }
        if let Packet::OptionAck(_) | Packet::Ack { block: 0 } = packet {
            let last = content.len() as u64 / u64::from(agreed.blksize) + 1;
            machine.agree(&agreed, Some(last), &policy, now());
        }
        machine.handle(&packet, now());
    }
}

/// Not given up while a slow machine gets there.
fn patient() -> Policy {
    Policy {
        retries: 20,
        ..Policy::default()
    }
}

/// What a good client sends and hears, whichever way the file goes.
struct Call<'a> {
    socket: &'a UdpSocket,
    server: SocketAddr,
    asked: Options,
    request: Vec<u8>,
    /// Who has answered.
    tid: Option<SocketAddr>,
}

impl<'a> Call<'a> {
    fn new(
        socket: &'a UdpSocket,
        server: SocketAddr,
        direction: wire::Direction,
        name: &str,
        mode: Mode,
        options: &[(OptionName, u64)],
    ) -> Self {
        let none = Options::default();
        let options = options
            .iter()
            .fold(none, |all, (name, value)| all.with(*name, *value));
        let mut request = Vec::new();
        wire::Request {
            direction,
            name: name.as_bytes(),
            mode,
            options,
        }
        .emit(&mut request);
        Self {
            socket,
            server,
            asked: options,
            request,
            tid: None,
        }
    }

    fn open(&self) {
        let _ = self.socket.send_to(&self.request, self.server);
    }

    fn send(&self, datagram: &[u8]) {
        let to = self.tid.unwrap_or(self.server);
        let _ = self.socket.send_to(datagram, to);
    }

    fn agreed(&self, oack: &Options) -> proto::Agreed {
        proto::accept(&self.asked, oack).expect("an OACK that was asked for")
    }

    /// What the server says until then, if anything. An ERROR is the end.
    fn hear<'b>(
        &mut self,
        buffer: &'b mut [u8],
        until: Instant,
    ) -> Result<Option<Packet<'b>>, Trouble> {
        let wait = until.saturating_duration_since(now());
        let wait = wait.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(wait)).expect("a timeout");
        let Ok((length, from)) = self.socket.recv_from(buffer) else {
            return Ok(None);
        };
        if self.tid.is_some_and(|tid| tid != from) {
            return Ok(None);
        }
        let Ok(packet) = wire::parse(&buffer[..length]) else {
            panic!("no packet of TFTP: {:?}", &buffer[..length]);
        };
        match packet {
            Packet::Error { code, message } => {
                let text = String::from_utf8_lossy(message).into_owned();
                return Err(Trouble::Told(code.0, text));
            }
            // A late block for who had this port before.
            Packet::Data { payload, .. }
                if self.tid.is_none() && payload.len() > 512 && !self.asked.is_empty() =>
            {
                return Ok(None);
            }
            _ => {}
        }
        self.tid = Some(from);
        Ok(Some(packet))
    }
}

/// A request that comes again sooner than this is taken for a copy that the network made.
#[allow(
    clippy::disallowed_methods,
    reason = "no event says that this time is over"
)]
pub(crate) fn pass_for_no_copy() {
    std::thread::sleep(REQUEST_SPREAD);
}
