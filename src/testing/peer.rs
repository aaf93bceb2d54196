//! A client that can be told to do anything, packet by packet.

use super::PATIENCE;
use crate::wire::{self, Packet};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

/// What a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// DATA: block and payload.
    Data(u16, Vec<u8>),
    /// An ACK of this block.
    Ack(u16),
    /// An OACK: its options as `name=value`, separated by blanks.
    Oack(String),
    /// An ERROR: code and text.
    Error(u16, String),
    /// Anything else, octet by octet.
    Other(Vec<u8>),
}

/// A client that does what it is told. What does not come within [`PATIENCE`], or is not what was
/// wanted, is a panic.
pub struct Peer {
    /// Its socket.
    pub socket: UdpSocket,
    /// Where requests go.
    pub server: SocketAddr,
    /// Where the last answer to a request came from.
    pub tid: Option<SocketAddr>,
}

impl Peer {
    /// At a free port of this machine.
    pub fn new(server: SocketAddr) -> Self {
        let local = match server {
            SocketAddr::V4(_) => ([127, 0, 0, 1], 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        Self::at(local, server)
    }

    /// At this address.
    pub fn at(local: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            socket,
            server,
            tid: None,
        }
    }

    /// Asks for a file; the next answer decides the TID.
    pub fn ask(&mut self, name: &str, options: &[(&str, &str)]) {
        self.tid = None;
        self.shout(&rrq(name, "octet", options));
    }

    /// Offers a file; the next answer decides the TID.
    pub fn offer(&mut self, name: &str, options: &[(&str, &str)]) {
        self.tid = None;
        self.shout(&wrq(name, "octet", options));
    }

    /// A block to the transfer's port.
    pub fn send(&self, block: u16, octets: &[u8]) {
        self.say(&[&wire::data_header(block), octets].concat());
    }

    /// The next packet, which must be the ACK of this block.
    pub fn acked(&mut self, block: u16) {
        assert_eq!(self.next(), Reply::Ack(block));
    }

    /// To the listening port.
    pub fn shout(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.server).expect("a send");
    }

    /// To the transfer's port.
    pub fn say(&self, datagram: &[u8]) {
        self.socket
            .send_to(datagram, self.tid.expect("a TID"))
            .expect("a send");
    }

    /// An ACK to the transfer's port.
    pub fn ack(&self, block: u16) {
        self.say(&wire::ack(block));
    }

    /// An ERROR to the transfer's port.
    pub fn abort(&self, code: u16) {
        self.say(&error(code, "no more"));
    }

    /// The next packet, and where it came from.
    pub fn next_from(&self) -> (SocketAddr, Reply) {
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
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> Reply {
        let (from, reply) = self.next_from();
        assert_eq!(
            *self.tid.get_or_insert(from),
            from,
            "{reply:?} from another port"
        );
        reply
    }

    /// The next packet, which must be this block; its payload.
    pub fn data(&mut self, block: u16) -> Vec<u8> {
        match self.next() {
            Reply::Data(number, octets) if number == block => octets,
            other => panic!("wanted block {block}, got {other:?}"),
        }
    }

    /// The same where the server may have sent earlier blocks again, because this machine was slow.
    pub fn data_at_last(&mut self, block: u16) -> Vec<u8> {
        loop {
            match self.next() {
                Reply::Data(number, octets) if number == block => return octets,
                Reply::Data(number, _) if number < block => {}
                other => panic!("wanted block {block}, got {other:?}"),
            }
        }
    }

    /// The next packet, which must be an OACK; its options.
    pub fn oack(&mut self) -> String {
        match self.next() {
            Reply::Oack(options) => options,
            other => panic!("wanted an OACK, got {other:?}"),
        }
    }

    /// The next packet, which must be an ERROR; code and text.
    pub fn error(&mut self) -> (u16, String) {
        match self.next() {
            Reply::Error(code, text) => (code, text),
            other => panic!("wanted an ERROR, got {other:?}"),
        }
    }

    /// Nothing more has come.
    pub fn quiet(&self) {
        if let Some(reply) = self.at_hand() {
            panic!("{reply:?} came");
        }
    }

    /// A packet that has come already.
    pub fn at_hand(&self) -> Option<Reply> {
        let mut buffer = vec![0; 65536];
        self.socket.set_nonblocking(true).expect("a socket");
        let received = self.socket.recv(&mut buffer);
        self.socket.set_nonblocking(false).expect("a socket");
        received.ok().map(|length| reply(&buffer[..length]))
    }

    /// Goes on in lock step behind block `block`: acknowledges it, and so on to the end. A block
    /// that comes again was answered already.
    ///
    /// # Errors
    /// The server's ERROR.
    pub fn rest(&mut self, mut block: u16, blksize: usize) -> Result<Vec<u8>, (u16, String)> {
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
    ///
    /// # Errors
    /// The server's ERROR.
    pub fn get(&mut self, name: &str) -> Result<Vec<u8>, (u16, String)> {
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

/// The datagram of an RRQ.
pub fn rrq(name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut datagram = format!("\0\x01{name}\0{mode}\0").into_bytes();
    for (option, value) in options {
        datagram.extend_from_slice(format!("{option}\0{value}\0").as_bytes());
    }
    datagram
}

/// The datagram of a WRQ.
pub fn wrq(name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    [b"\0\x02", &rrq(name, mode, options)[2..]].concat()
}

/// The datagram of an ERROR.
pub fn error(code: u16, text: &str) -> Vec<u8> {
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
