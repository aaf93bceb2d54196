//! One client of the load: a socket, the crate's own receiving machine, and a check of every octet.

use crate::pattern::Pattern;
use crate::sys;
use std::io::ErrorKind;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{
    self, Agreed, Outcome, Policy, Receiver, Retransmit, Step, Verdict,
};
use tftpool::unversioned::wire::{self, Direction, Mode, OptionName, Options, Packet, Request};

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) blksize: u16,
    pub(crate) windowsize: u16,
    /// Whether the client takes runs of datagrams in one call (UDP_GRO).
    pub(crate) coalesce: bool,
}

impl Fetch {
    fn options(&self) -> Options {
        let options = Options::default().with(OptionName::Blksize, self.blksize.into());
        if self.windowsize == 1 {
            return options;
        }
        options.with(OptionName::Windowsize, self.windowsize.into())
    }

    /// The RRQ.
    pub(crate) fn request(&self) -> Vec<u8> {
        let mut datagram = Vec::new();
        Request {
            direction: Direction::Read,
            name: self.name.as_bytes(),
            mode: Mode::Octet,
            options: self.options(),
        }
        .emit(&mut datagram);
        datagram
    }

    /// Blocks on the wire.
    pub(crate) fn blocks(&self) -> u64 {
        self.size / u64::from(self.blksize) + 1
    }

    /// Room for a window, at what the kernel charges for a small datagram.
    fn buffer(&self) -> usize {
        let charged = usize::from(self.blksize) + 2048;
        4 * charged * usize::from(self.windowsize)
    }
}

/// Why a transfer brought no file.
pub(crate) type Failure = String;

/// One transfer, seen from the client.
pub(crate) struct Client<'a> {
    fetch: &'a Fetch,
    pattern: &'a Pattern,
    server: SocketAddrV4,
    socket: UdpSocket,
    /// The server's TID, once it answered.
    peer: Option<SocketAddrV4>,
    connected: bool,
    machine: Receiver,
    agreed: Agreed,
    offset: u64,
    ignored: u64,
    failure: Option<Failure>,
    started: Instant,
    first_reply: Option<Duration>,
}

/// What a client says after each turn.
pub(crate) enum Progress {
    /// It waits for a packet, or until then.
    Waiting(Instant),
    /// It is done.
    Finished(Result<Fetched, Failure>),
}

/// A file that arrived intact.
pub(crate) struct Fetched {
    pub(crate) first_reply: Duration,
    pub(crate) completion: Duration,
    pub(crate) agreed: Agreed,
    /// Blocks that came but brought nothing: sent again, or behind a hole.
    pub(crate) ignored: u64,
}

/// A plain client: it repeats itself after one second of silence, then after two and four; nothing
/// cleverer.
const POLICY: Policy = Policy {
    timeout: Duration::from_secs(1),
    retries: 5,
    retransmit: Retransmit::Rfc,
    probe_floor: Duration::from_secs(1),
    opening_sends: 6,
    min_progress: 0,
    max_time: None,
    final_timeout: Duration::ZERO,
};

impl<'a> Client<'a> {
    pub(crate) fn new(
        fetch: &'a Fetch,
        pattern: &'a Pattern,
        server: SocketAddrV4,
        nonblocking: bool,
        now: Instant,
    ) -> std::io::Result<Self> {
        let socket = sys::udp_socket(nonblocking)?;
        if fetch.buffer() > 200 << 10 && fetch.size > fetch.blksize.into() {
            sys::receive_buffer(&socket, fetch.buffer())?;
        }
        if fetch.coalesce {
            sys::coalesce(&socket)?;
        }
        Ok(Self {
            fetch,
            pattern,
            server,
            socket,
            peer: None,
            connected: false,
            machine: Receiver::requesting(Duration::ZERO, &POLICY, now),
            agreed: Agreed::default(),
            offset: 0,
            ignored: 0,
            failure: None,
            started: now,
            first_reply: None,
        })
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Whether the server has answered the request.
    pub(crate) fn is_answered(&self) -> bool {
        self.first_reply.is_some()
    }

    /// Receives once and takes in what came. Nothing there is no error.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) {
        // In lock step the plain call is the cheaper one.
        let received = if self.connected && !self.fetch.coalesce {
            self.socket.recv(buffer).map(|length| sys::Received {
                length,
                segment: length.max(1),
                from: self.peer.unwrap_or(self.server),
            })
        } else {
            sys::receive(&self.socket, buffer)
        };
        match received {
            Ok(received) => {
                let now = Instant::now();
                for datagram in buffer[..received.length].chunks(received.segment) {
                    self.take(datagram, received.from, now);
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                ErrorKind::ConnectionRefused => self.machine.unreachable(Instant::now()),
                _ => self.fail(format!("receive: {error}")),
            },
        }
    }

    fn take(&mut self, datagram: &[u8], from: SocketAddrV4, now: Instant) {
        if self.peer.is_some_and(|peer| peer != from) || self.failure.is_some() {
            return;
        }
        let packet = match wire::parse(datagram) {
            Ok(packet) => packet,
            Err(why) => return self.fail(format!("malformed packet: {why}")),
        };
        if self.peer.is_none() && !self.open(&packet, from, now) {
            return;
        }
        if let Packet::Error { code, message } = packet {
            return self.fail(format!("ERROR {} {}", code.0, message.escape_ascii()));
        }
        let verdict = self.machine.handle(&packet, now);
        let Packet::Data { payload, .. } = packet else {
            return;
        };
        if verdict == Verdict::Ignore {
            self.ignored += 1;
            return;
        }
        if !self.pattern.matches(self.offset, payload) {
            return self.fail(format!("wrong octets at offset {}", self.offset));
        }
        self.offset += payload.len() as u64;
        if verdict == Verdict::StoreLast && self.offset != self.fetch.size {
            self.fail(format!(
                "{} octets instead of {}",
                self.offset, self.fetch.size
            ));
        }
    }

    /// The first answer decides who the peer is and what was agreed.
    fn open(&mut self, packet: &Packet<'_>, from: SocketAddrV4, now: Instant) -> bool {
        self.first_reply = Some(now - self.started);
        match packet {
            Packet::OptionAck(oack) => match proto::accept(&self.fetch.options(), oack) {
                Ok(agreed) => {
                    self.agreed = agreed;
                    self.machine.agree(&agreed, true, &POLICY, now);
                }
                Err(why) => {
                    self.fail(format!("OACK: {why}"));
                    return false;
                }
            },
            Packet::Data { .. } => self.machine.agree(&self.agreed, false, &POLICY, now),
            _ => return true,
        }
        self.peer = Some(from);
        // A few packets are not worth the call.
        if self.fetch.blocks() > 8 {
            self.connected = self.socket.connect(from).is_ok();
        }
        true
    }

    fn fail(&mut self, why: Failure) {
        self.failure.get_or_insert(why);
    }

    /// Sends what is due and says how things stand.
    pub(crate) fn drive(&mut self, now: Instant) -> Progress {
        loop {
            if let Some(why) = self.failure.take() {
                return Progress::Finished(Err(why));
            }
            match self.machine.poll(now) {
                Step::Open => {
                    let request = self.fetch.request();
                    self.send(&request, self.server);
                }
                Step::Ack(block) => {
                    let ack = wire::ack(self.machine.rollover().to_wire(block));
                    self.send(&ack, self.peer.unwrap_or(self.server));
                }
                Step::Wait(_) | Step::Done(Outcome::Complete) if self.machine.is_complete() => {
                    return Progress::Finished(Ok(self.fetched(now)));
                }
                Step::Wait(until) => return Progress::Waiting(until),
                Step::Error(_, text) => return Progress::Finished(Err(text.to_owned())),
                Step::Done(outcome) => return Progress::Finished(Err(format!("{outcome:?}"))),
                Step::Data { .. } => unreachable!("a receiver sends no data"),
            }
            self.machine.sent(now);
        }
    }

    /// An ICMP answer to an earlier datagram is reported by the next send, which then did not
    /// happen.
    fn send(&mut self, datagram: &[u8], to: SocketAddrV4) {
        for _ in 0..2 {
            let sent = if self.connected {
                self.socket.send(datagram)
            } else {
                self.socket.send_to(datagram, to)
            };
            match sent {
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return self.fail(format!("send: {error}")),
            }
        }
    }

    fn fetched(&self, now: Instant) -> Fetched {
        Fetched {
            first_reply: self.first_reply.unwrap_or_default(),
            completion: now - self.started,
            agreed: self.agreed,
            ignored: self.ignored,
        }
    }
}
