//! Two servers that do less than any real one may, as limits to measure against.
//!
//! The *bare sender* serves one client at a time and blocks on it: one receive, one `sendmsg` with
//! UDP_SEGMENT a window straight from a mapping. The *floor* serves a crowd from one thread and one
//! epoll, each client from its own port. Both read the options `blksize` and `windowsize` and check
//! nothing: no sizes, no addresses, no limits, no timers.

use crate::load;
use crate::sys::{self, Mapping};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tftpool::unversioned::wire::{self, ErrorCode, OptionName, Options, Packet, Request};

/// Serves `directory` as the bare sender until the process is ended.
pub(crate) fn serve_bare(listen: SocketAddrV4, directory: &Path) -> io::Result<()> {
    let mut desk = Desk::bind(listen, directory)?;
    let mut buffer = [0; 2048];
    loop {
        let (length, peer) = desk.socket.recv_from(&mut buffer)?;
        let Some(mut transfer) = desk.open(&buffer[..length], peer)? else {
            continue;
        };
        transfer
            .socket
            .set_read_timeout(Some(Duration::from_secs(1)))?;
        while transfer.step(&mut buffer) == Turn::Again {}
    }
}

/// Serves `directory` as the floor until the process is ended.
pub(crate) fn serve_floor(listen: SocketAddrV4, directory: &Path) -> io::Result<()> {
    const DESK: u64 = u64::MAX;
    let mut desk = Desk::bind(listen, directory)?;
    desk.socket.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&desk.socket, EpollEvent::new(EpollFlags::EPOLLIN, DESK))?;
    let mut transfers: Vec<Option<Transfer>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = vec![EpollEvent::empty(); 1024];
    let mut buffer = [0; 2048];
    loop {
        let ready = load::wait(&epoll, &mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            if event.data() != DESK {
                let seat = event.data() as usize;
                let transfer = transfers[seat].as_mut();
                if transfer.is_some_and(|transfer| transfer.step(&mut buffer) == Turn::Over) {
                    transfers[seat] = None;
                    free.push(seat);
                }
                continue;
            }
            while let Ok((length, peer)) = desk.socket.recv_from(&mut buffer) {
                if let Some(transfer) = desk.open(&buffer[..length], peer)? {
                    let seat = free.pop().unwrap_or(transfers.len());
                    epoll.add(
                        &transfer.socket,
                        EpollEvent::new(EpollFlags::EPOLLIN, seat as u64),
                    )?;
                    transfer.socket.set_nonblocking(true)?;
                    if seat == transfers.len() {
                        transfers.push(None);
                    }
                    transfers[seat] = Some(transfer);
                }
            }
        }
    }
}

/// The main socket and the files, mapped at their first request.
struct Desk {
    socket: UdpSocket,
    directory: PathBuf,
    files: HashMap<Vec<u8>, Rc<Mapping>>,
}

impl Desk {
    fn bind(listen: SocketAddrV4, directory: &Path) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen)?;
        sys::receive_buffer(&socket, 16 << 20)?;
        Ok(Self {
            socket,
            directory: directory.to_owned(),
            files: HashMap::new(),
        })
    }

    /// Answers a request from a new port, with OACK or with the first window.
    fn open(&mut self, datagram: &[u8], peer: SocketAddr) -> io::Result<Option<Transfer>> {
        let Ok(Packet::Request(request)) = wire::parse(datagram) else {
            return Ok(None);
        };
        let Some(file) = self.file(&request) else {
            let mut answer = Vec::new();
            wire::emit_error(ErrorCode::NOT_FOUND, "file not found", &mut answer);
            self.socket.send_to(&answer, peer)?;
            return Ok(None);
        };
        let blksize = request.options.get(OptionName::Blksize);
        let window = request.options.get(OptionName::Windowsize);
        let mut oack = Options::default();
        for (name, value) in [
            (OptionName::Blksize, blksize),
            (OptionName::Windowsize, window),
        ] {
            if let Some(value) = value {
                oack = oack.with(name, value);
            }
        }
        let blksize = blksize.unwrap_or(512) as u16;
        let transfer = Transfer {
            socket: sys::udp_socket(false)?,
            last: file.last_block(blksize),
            file,
            blksize,
            window: window.unwrap_or(1),
            acked: 0,
        };
        transfer.socket.connect(peer)?;
        if oack.is_empty() {
            transfer.send_window();
        } else {
            let mut answer = Vec::new();
            wire::emit_option_ack(&oack, &mut answer);
            transfer.socket.send(&answer)?;
        }
        Ok(Some(transfer))
    }

    fn file(&mut self, request: &Request<'_>) -> Option<Rc<Mapping>> {
        if let Some(file) = self.files.get(request.name) {
            return Some(Rc::clone(file));
        }
        let name = std::str::from_utf8(request.name).ok()?;
        let file = Rc::new(Mapping::open(&self.directory.join(name)).ok()?);
        self.files.insert(request.name.to_owned(), Rc::clone(&file));
        Some(file)
    }
}

struct Transfer {
    socket: UdpSocket,
    file: Rc<Mapping>,
    blksize: u16,
    window: u64,
    acked: u64,
    last: u64,
}

#[derive(PartialEq, Eq)]
enum Turn {
    Again,
    Over,
}

impl Transfer {
    /// Receives one ACK and sends the window behind it.
    fn step(&mut self, buffer: &mut [u8]) -> Turn {
        match self.socket.recv(buffer) {
            Ok(length) => match wire::parse(&buffer[..length]) {
                Ok(Packet::Ack { block }) => {
                    self.acked += u64::from(block.wrapping_sub(self.acked as u16));
                    if self.acked >= self.last {
                        return Turn::Over;
                    }
                    self.send_window();
                    Turn::Again
                }
                _ => Turn::Over,
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => Turn::Again,
            Err(_) => Turn::Over,
        }
    }

    /// What cannot be sent now is lost, as on a wire: the client asks again.
    fn send_window(&self) {
        let end = (self.acked + self.window).min(self.last) + 1;
        let _ = self
            .file
            .send(&self.socket, self.blksize, self.acked + 1..end);
    }
}
