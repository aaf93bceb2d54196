//! Servers that do what a test tells them.

use crate::rig::PATIENCE;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use tftpool::unversioned::wire::{self, Packet};
use tftpool::{Client, ErrorCode, Options};

/// A server's port for requests.
pub(crate) struct Port(UdpSocket);

/// One request, and the socket that answers it.
pub(crate) struct Call {
    pub(crate) socket: UdpSocket,
    pub(crate) peer: SocketAddr,
    pub(crate) request: Vec<u8>,
}

/// Runs a client against a script, and both to their ends.
pub(crate) fn play<T>(
    script: impl FnOnce(&Port) + Send,
    client: impl FnOnce(SocketAddr) -> T,
) -> T {
    let port = Port(socket(Ipv4Addr::LOCALHOST.into()));
    let address = port.0.local_addr().expect("bound");
    std::thread::scope(|scope| {
        // The port stays open until the client has ended, as a server's does.
        let script = scope.spawn(|| script(&port));
        let result = client(address);
        script.join().expect("the script went to its end");
        result
    })
}

/// A client that is quick to ask again, for scripts that are silent.
pub(crate) fn hasty(server: SocketAddr) -> Client {
    Client::new(server).timeout(Duration::from_millis(20))
}

fn socket(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

impl Port {
    /// The next request, answered from 127.0.0.1.
    pub(crate) fn call(&self) -> Call {
        self.call_from(Ipv4Addr::LOCALHOST.into())
    }

    /// The next request, answered from this address.
    pub(crate) fn call_from(&self, ip: IpAddr) -> Call {
        let mut buffer = [0; 2048];
        let (length, peer) = self.0.recv_from(&mut buffer).expect("a request");
        Call {
            socket: socket(ip),
            peer,
            request: buffer[..length].into(),
        }
    }

    /// The text of the ERROR that ends the request; copies of the request are passed over.
    pub(crate) fn given_up(&self) -> String {
        let mut buffer = [0; 600];
        loop {
            let length = self.0.recv(&mut buffer).expect("an ERROR");
            if let Ok(Packet::Error { message, .. }) = wire::parse(&buffer[..length]) {
                return String::from_utf8_lossy(message).into();
            }
        }
    }

    /// Reads requests and says nothing until one comes without options.
    pub(crate) fn call_without_options(&self) -> Call {
        loop {
            let call = self.call();
            if call.options().is_empty() {
                return call;
            }
        }
    }
}

impl Call {
    /// What was asked for.
    pub(crate) fn options(&self) -> Options {
        match wire::parse(&self.request) {
            Ok(Packet::Request(request)) => request.options,
            other => panic!("not a request: {other:?}"),
        }
    }

    pub(crate) fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.peer).expect("sent");
    }

    /// `"blksize\x001428\0"` and the like, as they stand in an OACK.
    pub(crate) fn oack(&self, pairs: &str) {
        self.send(&[b"\0\x06", pairs.as_bytes()].concat());
    }

    pub(crate) fn data(&self, block: u16, payload: &[u8]) {
        self.send(&[&wire::data_header(block), payload].concat());
    }

    pub(crate) fn error(&self, code: u16, text: &str) {
        let mut datagram = Vec::new();
        wire::emit_error(ErrorCode(code), text, &mut datagram);
        self.send(&datagram);
    }

    pub(crate) fn recv(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65536];
        let (length, peer) = self.socket.recv_from(&mut buffer).expect("a packet");
        assert_eq!(peer, self.peer);
        buffer.truncate(length);
        buffer
    }

    /// The next packet is the ACK of this block.
    #[track_caller]
    pub(crate) fn acked(&self, block: u16) {
        assert_eq!(self.recv(), wire::ack(block), "not ACK {block}");
    }

    /// An ERROR comes, perhaps behind ACKs: its code and text.
    #[track_caller]
    pub(crate) fn refused(&self) -> (u16, String) {
        loop {
            let packet = self.recv();
            match wire::parse(&packet) {
                Ok(Packet::Error { code, message }) => {
                    return (code.0, String::from_utf8_lossy(message).into());
                }
                Ok(Packet::Ack { .. }) => {}
                other => panic!("neither ERROR nor ACK: {other:?}"),
            }
        }
    }

    /// Sends a whole file in lock step, without options.
    pub(crate) fn serve(&self, content: &[u8]) {
        for (block, payload) in (1..).zip(content.chunks(512)) {
            self.data(block, payload);
            self.acked(block);
        }
        if content.len().is_multiple_of(512) {
            let block = (content.len() / 512 + 1) as u16;
            self.data(block, b"");
            self.acked(block);
        }
    }
}
