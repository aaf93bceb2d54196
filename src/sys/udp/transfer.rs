//! The socket of one transfer, connected to its peer.

use super::address::{address_of, same};
use super::options::{
    IPV4_HEADER, IPV6_HEADER, UDP_HEADER, bind_in, bind_to_interface, family, hear_errors,
    make_room, open, set_fragments,
};
use super::raw::{number_option, poll};
use super::{Block, Offload, Readable, burst};
use crate::limits;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, RecvMsg, SockFlag, SockaddrStorage, sockopt,
};
use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// A socket that is connected to one peer; or, at a client, will be as soon as a server has
/// answered.
pub(crate) struct TransferSocket {
    pub(super) socket: UdpSocket,
    peer: SocketAddr,
    is_connected: bool,
    /// Datagrams of strangers, which came before the socket was connected, may lie in its queue.
    has_strangers: Cell<bool>,
    /// The system has been told how long a blocking receive may take.
    is_patient: Cell<bool>,
    pub(super) offload: Offload,
    reply: Option<Reply>,
    /// Strangers that were told something.
    told: Cell<u32>,
}

/// What to say to a stranger who has sent this datagram, or its beginning; nothing where there is
/// none.
pub(crate) type Reply = fn(&[u8]) -> Option<Vec<u8>>;

/// What one receive brought: a datagram, or several of one length behind each other (the last may
/// be shorter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Octets; more than the buffer holds if only their beginning fitted.
    pub(crate) length: usize,
    /// Octets of each datagram but the last.
    pub(crate) segment: usize,
    /// Who sent it.
    pub(crate) source: SocketAddr,
}

/// How transfer sockets are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketOptions {
    /// Local ports to choose from where port 0 is asked for; `None` leaves the choice to the
    /// system.
    pub(crate) ports: Option<RangeInclusive<u16>>,
    /// Whether routers are told not to fragment.
    pub(crate) dont_fragment: bool,
    /// The interface that packets leave and come by; `None` leaves it to the route.
    pub(crate) interface: Option<String>,
}

/// How long to wait for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// About [`limits::PATIENCE`], rounded up to the kernel's ticks; one system call whether
    /// something comes or not.
    Patience,
    /// This long, as precisely as the kernel can; one system call if something is there already,
    /// else two or three.
    Until(Duration),
}

/// What can be done without waiting. Both may be false, also before the time has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// A datagram or an error waits.
    pub(crate) readable: bool,
    /// The send buffer has room.
    pub(crate) writable: bool,
}

impl TransferSocket {
    /// Opens a socket at `local` and connects it to `peer`; port 0 is any port. Four system calls,
    /// and they are counted: this happens once for every board.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when the port is taken, or all that may be chosen.
    pub(crate) fn open(
        local: SocketAddr,
        peer: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<TransferSocket> {
        Self::connect(Self::bound(local, options)?, peer)
    }

    /// Opens a socket at `local`, where port 0 is any port, to ask `server`: it sends there, and
    /// hears everybody until
    /// [`connect_to`](Self::connect_to).
    ///
    /// # Errors
    ///
    /// As those of [`open`](Self::open).
    pub(crate) fn asking(
        local: SocketAddr,
        server: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<TransferSocket> {
        let socket = Self::unconnected(Self::bound(local, options)?, server)?;
        socket.hear_errors(true);
        Ok(socket)
    }

    fn hear_errors(&self, wanted: bool) {
        hear_errors(self, self.peer, wanted);
    }

    pub(super) fn bound(local: SocketAddr, options: &SocketOptions) -> io::Result<UdpSocket> {
        let socket = open(local, SockFlag::empty())?;
        set_fragments(&socket, family(local), !options.dont_fragment)?;
        if let Some(interface) = &options.interface {
            bind_to_interface(&socket, interface)?;
        }
        bind_in(&socket, local, options.ports.as_ref())?;
        Ok(UdpSocket::from(socket))
    }

    fn unconnected(socket: UdpSocket, peer: SocketAddr) -> io::Result<TransferSocket> {
        Ok(TransferSocket {
            socket,
            peer,
            is_connected: false,
            has_strangers: Cell::new(true),
            is_patient: Cell::new(false),
            offload: Offload::Segments,
            reply: None,
            told: Cell::new(0),
        })
    }

    pub(super) fn connect(socket: UdpSocket, peer: SocketAddr) -> io::Result<TransferSocket> {
        let mut socket = Self::unconnected(socket, peer)?;
        socket.socket.connect(peer)?;
        socket.is_connected = true;
        Ok(socket)
    }

    /// From now on this is the peer, and nobody else is heard.
    pub(crate) fn connect_to(&mut self, peer: SocketAddr) -> io::Result<()> {
        self.socket.connect(peer)?;
        self.hear_errors(false);
        // News about somebody else, which would now count as the peer's.
        let _ = self.socket.take_error();
        (self.peer, self.is_connected) = (peer, true);
        Ok(())
    }

    /// From now on strangers are told this, up to [`limits::STRANGERS_TOLD`] of them.
    pub(crate) fn tell_strangers(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    /// Tells a stranger that this is not its peer, if there is something to say to what it has
    /// sent.
    pub(crate) fn turn_away(&self, stranger: SocketAddr, datagram: &[u8]) {
        let told = self.told.get();
        if told < limits::STRANGERS_TOLD
            && let Some(words) = self.reply.and_then(|reply| reply(datagram))
        {
            self.told.set(told + 1);
            // Nothing can be done if it does not leave.
            let _ = self.send_as(&words, Some(stranger));
        }
    }

    /// Prepares for windows of blocks: room for one in the kernel, and many blocks in one receive.
    /// A system that has neither is slower, nothing else.
    pub(crate) fn expect_windows(&self, blksize: u16, windowsize: u16) {
        self.make_room(blksize, windowsize);
        #[cfg(target_os = "linux")]
        let _ = socket::setsockopt(self, sockopt::UdpGroSegment, &true);
    }

    /// Asks for room for a window of blocks. Returns how many blocks the kernel keeps while nothing
    /// is received, 1 at least.
    pub(crate) fn make_room(&self, blksize: u16, windowsize: u16) -> u16 {
        make_room(self, blksize, windowsize)
    }

    /// Its own address; the port is this end's TID.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The largest payload that leaves in one piece by the route to the peer, as far as the system
    /// knows.
    pub(crate) fn room(&self) -> io::Result<usize> {
        let (level, option, headers) = match family(self.peer) {
            AddressFamily::Inet6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU, IPV6_HEADER),
            _ => (libc::IPPROTO_IP, libc::IP_MTU, IPV4_HEADER),
        };
        let mtu = number_option(&self.socket, level, option)?;
        Ok(usize::try_from(mtu)
            .unwrap_or(0)
            .saturating_sub(headers + UDP_HEADER))
    }

    /// Whom it is connected to.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Chooses how blocks are sent. The socket starts with segments and steps down by itself.
    #[cfg(test)]
    pub(crate) fn set_offload(&mut self, offload: Offload) {
        self.offload = offload;
    }

    /// Lets every send from now on fail, with `EPIPE`.
    #[cfg(test)]
    pub(crate) fn stop_sending(&self) {
        socket::shutdown(self.socket.as_raw_fd(), socket::Shutdown::Write)
            .expect("a connected socket");
    }

    /// Takes a datagram of the peer; `None` when none came in time, or a signal handler ran.
    ///
    /// Returns the length of the datagram, which is larger than the buffer if only its beginning
    /// fitted.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` says that an ICMP message came. It is a hint, which anybody can forge,
    /// and not an end.
    pub(crate) fn recv(&self, buffer: &mut [u8], wait: Wait) -> io::Result<Option<usize>> {
        if wait == Wait::No && !self.has_strangers.get() {
            return self.take_known(buffer);
        }
        let taken = self.receive(wait, |flags| self.take(buffer, None, flags))?;
        Ok(taken.map(|taken| taken.length))
    }

    /// True while datagrams that are not the peer's may lie in the queue.
    pub(crate) fn has_strangers(&self) -> bool {
        self.has_strangers.get()
    }

    /// Takes one datagram where all are the peer's: its source is not asked for.
    fn take_known(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        #[cfg(test)]
        crate::sys::calls::count(|calls| calls.receives += 1);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        match socket::recv(self.socket.as_raw_fd(), buffer, flags) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes one datagram, or as many as the system hands over at once after
    /// [`expect_windows`](Self::expect_windows). Otherwise as [`recv`](Self::recv); before the
    /// socket is connected, anybody may be the source.
    pub(crate) fn recv_blocks(&self, buffer: &mut [u8], wait: Wait) -> io::Result<Option<Taken>> {
        let mut control = SegmentSize([0; _]);
        self.receive(wait, |flags| self.take(buffer, Some(&mut control.0), flags))
    }

    fn receive(
        &self,
        wait: Wait,
        mut take: impl FnMut(MsgFlags) -> io::Result<Option<Taken>>,
    ) -> io::Result<Option<Taken>> {
        let timeout = match wait {
            Wait::Patience => {
                if !self.is_patient.get() {
                    self.socket.set_read_timeout(Some(limits::PATIENCE))?;
                    self.is_patient.set(true);
                }
                return take(MsgFlags::empty());
            }
            Wait::No => return take(MsgFlags::MSG_DONTWAIT),
            Wait::Until(timeout) => timeout,
        };
        let early = take(MsgFlags::MSG_DONTWAIT)?;
        if early.is_some() || !self.wait(true, false, timeout)?.readable {
            return Ok(early);
        }
        take(MsgFlags::MSG_DONTWAIT)
    }

    /// Takes the first datagram that is the peer's. `connect` keeps strangers out only from then
    /// on; what came between it and `bind` is still in the queue.
    fn take(
        &self,
        buffer: &mut [u8],
        mut control: Option<&mut [u8]>,
        flags: MsgFlags,
    ) -> io::Result<Option<Taken>> {
        for _ in 0..=limits::STRANGERS_SKIPPED {
            let mut parts = [IoSliceMut::new(buffer)];
            #[cfg(test)]
            crate::sys::calls::count(|calls| calls.receives += 1);
            // With MSG_TRUNC as an argument the kernel returns the length of the datagram, not of
            // what fitted.
            let received = socket::recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut parts,
                control.as_deref_mut(),
                flags | MsgFlags::MSG_TRUNC,
            );
            match received {
                Ok(message) => {
                    let Some(source) = message.address.as_ref().and_then(address_of) else {
                        continue;
                    };
                    let taken = Taken {
                        length: message.bytes,
                        segment: segment_size(&message),
                        source,
                    };
                    if !self.is_connected || same(source, self.peer) {
                        return Ok(Some(taken));
                    }
                    let length = taken.length.min(taken.segment).min(buffer.len());
                    self.turn_away(source, &buffer[..length]);
                }
                // Waking up early is harmless: whoever waits compares the clock with a deadline of
                // its own.
                Err(error @ (Errno::EAGAIN | Errno::EINTR)) => {
                    // An empty queue of a connected socket fills with its peer's datagrams only.
                    if self.is_connected && error == Errno::EAGAIN {
                        self.has_strangers.set(false);
                    }
                    return Ok(None);
                }
                Err(_) if !self.is_connected && self.is_about_strangers() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Whether the ICMP messages that a socket has heard which is not connected are about others
    /// than its peer: strangers that were told something may be gone. Forgets them all.
    fn is_about_strangers(&self) -> bool {
        let mut found = false;
        #[cfg(target_os = "linux")]
        for _ in 0..=limits::STRANGERS_TOLD {
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            // Without room for octets it still comes with the address that they were sent to.
            let message =
                socket::recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut [], None, flags);
            let Ok(message) = message else {
                break;
            };
            let there = message.address.as_ref().and_then(address_of);
            found = !there.is_some_and(|there| same(there, self.peer));
            if !found {
                break;
            }
        }
        self.forget_errors();
        found
    }

    /// A socket that is not connected keeps each in a queue, and is readable while there is one.
    fn forget_errors(&self) {
        if !self.is_connected {
            self.hear_errors(false);
            self.hear_errors(true);
        }
    }

    /// What a poller watches to learn that a datagram has come.
    pub(crate) fn readable(&self) -> Readable<'_> {
        Readable(self.socket.as_fd())
    }

    /// Waits until the socket can be read or written, whichever is asked for.
    pub(crate) fn wait(
        &self,
        readable: bool,
        writable: bool,
        timeout: Duration,
    ) -> io::Result<Readiness> {
        let mut events = 0;
        if readable {
            events |= libc::POLLIN;
        }
        if writable {
            events |= libc::POLLOUT;
        }
        let found = poll(self.socket.as_raw_fd(), events, timeout)?;
        // An error counts as both: the call that is then made reports it.
        let ready = |event| events & event != 0 && found & (event | libc::POLLERR) != 0;
        Ok(Readiness {
            readable: ready(libc::POLLIN),
            writable: ready(libc::POLLOUT),
        })
    }

    /// Sends one packet; `false` when the send buffer is full.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` when ICMP messages kept it from leaving twice in a row.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<bool> {
        self.send_as(datagram, (!self.is_connected).then_some(self.peer))
    }

    /// Sends it to the peer that the socket is connected to, or to somebody else.
    fn send_as(&self, datagram: &[u8], to: Option<SocketAddr>) -> io::Result<bool> {
        let mut refused = false;
        loop {
            #[cfg(test)]
            crate::sys::calls::count(|calls| calls.sends += 1);
            let sent = match to.map(SockaddrStorage::from) {
                None => socket::send(self.socket.as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT),
                Some(to) => socket::sendto(
                    self.socket.as_raw_fd(),
                    datagram,
                    &to,
                    MsgFlags::MSG_DONTWAIT,
                ),
            };
            match sent {
                Ok(_) => return Ok(true),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(false),
                Err(Errno::EINTR) => {}
                // An earlier packet was refused; this one never left.
                Err(Errno::ECONNREFUSED) if !refused => {
                    refused = true;
                    self.forget_errors();
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends each block as one datagram, in as few system calls as the system allows, and returns
    /// how many left: fewer than were given when the send buffer is full or the next one met an
    /// error, which the next call reports.
    ///
    /// All payloads are of one length, except the last, which may be shorter.
    ///
    /// # Errors
    ///
    /// Only when no block left. `ConnectionRefused` as in [`send`](Self::send); `EFAULT` (as
    /// `raw_os_error`) when a mapped file has become too short.
    pub(crate) fn send_blocks<'a>(
        &mut self,
        blocks: impl ExactSizeIterator<Item = Block<'a>> + Clone,
    ) -> io::Result<usize> {
        debug_assert!(are_even(blocks.clone()));
        let mut rest = blocks;
        let mut sent = 0;
        let mut refused = false;
        while let Some(first) = rest.clone().next() {
            let (how, count) = self.offload.plan(rest.len(), first.payload.len());
            match burst::send(self.socket.as_fd(), how, rest.clone().take(count)) {
                Ok(left) => {
                    sent += left;
                    refused = false;
                    rest.by_ref().take(left).for_each(drop);
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNREFUSED) if !refused => refused = true,
                Err(error) => match how.instead(error) {
                    Some(lower) => self.offload = lower,
                    None if sent > 0 => break,
                    None => return Err(error.into()),
                },
            }
        }
        Ok(sent)
    }
}

impl AsFd for TransferSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for the length of the segments that came together, aligned as a control message must be.
#[repr(align(8))]
struct SegmentSize([u8; socket::cmsg_space::<i32>()]);

/// The length of each datagram but the last in what was received.
fn segment_size(message: &RecvMsg<'_, '_, SockaddrStorage>) -> usize {
    #[cfg(target_os = "linux")]
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::UdpGroSegments(size) = control {
            return usize::try_from(size).unwrap_or(message.bytes).max(1);
        }
    }
    message.bytes
}

/// Whether all payloads are as long as the first, and the last is not longer.
pub(super) fn are_even<'a>(mut blocks: impl ExactSizeIterator<Item = Block<'a>>) -> bool {
    let Some(length) = blocks.next().map(|first| first.payload.len()) else {
        return true;
    };
    let whole = blocks.len().saturating_sub(1);
    blocks
        .by_ref()
        .take(whole)
        .all(|b| b.payload.len() == length)
        && blocks.all(|last| last.payload.len() <= length)
}
