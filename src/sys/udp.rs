//! UDP sockets: a [`Listener`] that takes requests and answers from the very address that was
//! asked, and one [`TransferSocket`] per transfer, connected to its peer.
//!
//! Invariants: nothing here waits unless the caller says for how long; what a [`TransferSocket`]
//! receives is from its peer; a datagram is counted as sent only if it left this socket, and no
//! datagram is sent twice.
#![allow(unsafe_code)]

pub(crate) use super::burst::{Block, Offload, Payload};

use super::burst;
use crate::limits;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockFlag,
    SockType, SockaddrStorage, sockopt,
};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

// ---- the main socket ------------------------------------------------------------------------

/// A non-blocking socket for requests.
pub(crate) struct Listener {
    socket: UdpSocket,
    /// Where it is bound; the address may be a wildcard.
    local: SocketAddr,
}

/// What is known about a datagram besides its octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Octets that were written to the buffer.
    pub(crate) length: usize,
    /// Whether the datagram was longer than the buffer.
    pub(crate) truncated: bool,
    /// Who sent it. A link-local address carries its interface as the scope.
    pub(crate) peer: SocketAddr,
    /// The address that was asked, with our port; a link-local one with the arriving interface as
    /// its scope. Of a broadcast that is `answerable` it is the address of the interface that it
    /// came in by; of others it is not ours.
    pub(crate) local: SocketAddr,
    /// Index of the interface it came in by; 0 when unknown.
    pub(crate) interface: u32,
    /// Whether it was sent to a broadcast or multicast address.
    pub(crate) broadcast: bool,
    /// A broadcast over IPv4, and the address to answer it from is known.
    pub(crate) answerable: bool,
}

impl Listener {
    /// Opens a socket at `address`; port 0 lets the system choose. One at an IPv6 address takes no
    /// IPv4 packets.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Listener> {
        Self::bind_with(address, false)
    }

    /// The same at an address that no interface needs to have yet.
    pub(crate) fn bind_early(address: SocketAddr) -> io::Result<Listener> {
        Self::bind_with(address, true)
    }

    fn bind_with(address: SocketAddr, freebind: bool) -> io::Result<Listener> {
        let socket = open(address, SockFlag::SOCK_NONBLOCK)?;
        if address.is_ipv6() {
            socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        // Before the first packet can arrive: each is queued with what was asked for by then.
        prepare(&socket, address)?;
        if freebind {
            allow_any_address(&socket, family(address))?;
        }
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        Ok(Listener { socket, local })
    }

    /// Takes a bound socket that somebody else opened. One that takes both families shows IPv4
    /// peers as such.
    pub(crate) fn from_socket(socket: UdpSocket) -> io::Result<Listener> {
        let local = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        prepare(&socket, local)?;
        Ok(Listener { socket, local })
    }

    /// Where it is bound, with the real port.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether another socket at this address is in the way of this one.
    pub(crate) fn overlaps(&self, address: SocketAddr) -> bool {
        let (own, other) = (self.local.ip(), address.ip());
        let one_family = own.is_ipv4() == other.is_ipv4();
        let is_wildcard = own.is_unspecified() || other.is_unspecified();
        // A given socket at [::] may take IPv4 as well.
        let both = own.is_ipv6()
            && own.is_unspecified()
            && socket::getsockopt(&self.socket, sockopt::Ipv6V6Only) == Ok(false);
        self.local.port() == address.port() && (own == other || one_family && is_wildcard || both)
    }

    /// The bytes of requests that the kernel keeps, where it keeps fewer than it was asked for.
    pub(crate) fn small_buffer(&self) -> Option<usize> {
        // Linux reports twice what it was asked for, for its own accounting.
        let bytes = socket::getsockopt(&self.socket, sockopt::RcvBuf).ok()? / 2;
        (bytes < limits::REQUEST_BUFFER_OCTETS).then_some(bytes)
    }

    /// Takes the next datagram; `None` when there is none.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut errors = 0;
        loop {
            let mut control = Control([0; _]);
            let mut parts = [IoSliceMut::new(buffer)];
            let received = socket::recvmsg::<SockaddrStorage>(
                self.as_raw_fd(),
                &mut parts,
                Some(&mut control.0),
                MsgFlags::MSG_DONTWAIT,
            );
            match received {
                Ok(message) => return self.describe(&message).map(Some),
                Err(Errno::EAGAIN) => return Ok(None),
                // Mostly news about something we sent, which each call takes away. Giving up with
                // `None` would strand the datagrams behind it: an edge-triggered poll does not
                // report them again.
                Err(_) if errors < limits::LISTENER_ERRORS => errors += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn describe(&self, message: &RecvMsg<'_, '_, SockaddrStorage>) -> io::Result<Received> {
        let peer = message.address.as_ref().and_then(address_of);
        let peer = peer.ok_or(io::ErrorKind::InvalidData)?;
        let mut asked = Asked {
            address: self.local.ip().to_canonical(),
            interface: 0,
            broadcast: false,
            answerable: false,
        };
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => asked = Asked::v4(&info),
                // A socket for both families tells it twice for an IPv4 packet, and here without
                // the local address.
                ControlMessageOwned::Ipv6PacketInfo(info) if peer.is_ipv6() => {
                    asked = Asked::v6(&info);
                }
                _ => {}
            }
        }
        Ok(Received {
            length: message.bytes,
            truncated: message.flags.contains(MsgFlags::MSG_TRUNC),
            peer,
            local: asked.local(self.local.port()),
            interface: asked.interface,
            broadcast: asked.broadcast,
            answerable: asked.answerable,
        })
    }

    /// Whether a request to this address of ours came in here.
    pub(crate) fn serves(&self, local: SocketAddr) -> bool {
        let bound = self.local;
        let is_wildcard = bound.ip().is_unspecified() && bound.is_ipv4() == local.is_ipv4();
        bound.port() == local.port() && (is_wildcard || bound.ip() == local.ip())
    }

    /// Sends a datagram to `peer` from the address `local`, the one that was asked.
    pub(crate) fn reply(
        &self,
        datagram: &[u8],
        local: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<()> {
        let send = |peer: SocketAddr, control: &[ControlMessage<'_>]| {
            socket::sendmsg(
                self.as_raw_fd(),
                &[IoSlice::new(datagram)],
                control,
                MsgFlags::MSG_DONTWAIT,
                Some(&SockaddrStorage::from(peer)),
            )
        };
        // The interface is left to the route, except where the address says nothing without it.
        match (local, self.local) {
            (SocketAddr::V4(local), SocketAddr::V4(_)) => {
                let source = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr(*local.ip()),
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                send(peer, &[ControlMessage::Ipv4PacketInfo(&source)])?;
            }
            (local, _) => {
                let local = to_v6(local);
                let source = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: local.ip().octets(),
                    },
                    ipi6_ifindex: local.scope_id(),
                };
                let peer = to_v6(peer).into();
                send(peer, &[ControlMessage::Ipv6PacketInfo(&source)])?;
            }
        }
        Ok(())
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Room for what the kernel tells with a datagram, aligned as its headers must be. A socket for
/// both families hears of an IPv4 packet twice.
#[repr(align(8))]
struct Control(
    [u8; socket::cmsg_space::<libc::in_pktinfo>() + socket::cmsg_space::<libc::in6_pktinfo>()],
);

/// Where a datagram was sent to.
struct Asked {
    address: IpAddr,
    interface: u32,
    broadcast: bool,
    answerable: bool,
}

impl Asked {
    fn v4(info: &libc::in_pktinfo) -> Asked {
        let sent_to = ipv4(info.ipi_addr);
        let ours = ipv4(info.ipi_spec_dst);
        // Ours is missing in what was queued before the option was set, as by the packet that made
        // systemd start us.
        let known = !ours.is_unspecified();
        let is_ours = known && sent_to == ours;
        Asked {
            address: if known { ours } else { sent_to }.into(),
            interface: info.ipi_ifindex as u32,
            broadcast: sent_to.is_multicast() || sent_to.is_broadcast() || (known && !is_ours),
            // The kernel gives the address that it would answer from: that of the interface.
            answerable: known && !is_ours && !sent_to.is_multicast(),
        }
    }

    fn v6(info: &libc::in6_pktinfo) -> Asked {
        let sent_to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        Asked {
            address: sent_to.into(),
            interface: info.ipi6_ifindex,
            broadcast: sent_to.is_multicast(),
            answerable: false,
        }
    }

    fn local(&self, port: u16) -> SocketAddr {
        match self.address {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                SocketAddrV6::new(ip, port, 0, self.interface).into()
            }
            ip => SocketAddr::new(ip, port),
        }
    }
}

// ---- one transfer's socket --------------------------------------------------------------------

/// A socket that is connected to one peer; or, at a client, will be as soon as a server has
/// answered.
pub(crate) struct TransferSocket {
    socket: UdpSocket,
    peer: SocketAddr,
    is_connected: bool,
    /// Datagrams of strangers, which came before the socket was connected, may lie in its queue.
    has_strangers: Cell<bool>,
    /// The system has been told how long a blocking receive may take.
    is_patient: Cell<bool>,
    offload: Offload,
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

    fn bound(local: SocketAddr, options: &SocketOptions) -> io::Result<UdpSocket> {
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

    fn connect(socket: UdpSocket, peer: SocketAddr) -> io::Result<TransferSocket> {
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
        socket::shutdown(self.as_raw_fd(), socket::Shutdown::Write).expect("a connected socket");
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
        super::calls::count(|calls| calls.receives += 1);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        match socket::recv(self.as_raw_fd(), buffer, flags) {
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
            super::calls::count(|calls| calls.receives += 1);
            // With MSG_TRUNC as an argument the kernel returns the length of the datagram, not of
            // what fitted.
            let received = socket::recvmsg::<SockaddrStorage>(
                self.as_raw_fd(),
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
                socket::recvmsg::<SockaddrStorage>(self.as_raw_fd(), &mut [], None, flags);
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
        let found = poll(self.as_raw_fd(), events, timeout)?;
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
            super::calls::count(|calls| calls.sends += 1);
            let sent = match to.map(SockaddrStorage::from) {
                None => socket::send(self.as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT),
                Some(to) => socket::sendto(self.as_raw_fd(), datagram, &to, MsgFlags::MSG_DONTWAIT),
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

impl AsRawFd for TransferSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
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
fn are_even<'a>(mut blocks: impl ExactSizeIterator<Item = Block<'a>>) -> bool {
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

// ---- options and addresses ----------------------------------------------------------------------

fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn open(local: SocketAddr, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    Ok(socket::socket(
        family(local),
        SockType::Datagram,
        flags,
        None,
    )?)
}

/// Sets what every main socket needs.
fn prepare(socket: &impl AsFd, local: SocketAddr) -> io::Result<()> {
    // Only root may go beyond the system's limit; less room than wished is no reason not to serve.
    let octets = limits::REQUEST_BUFFER_OCTETS;
    let _ = socket::setsockopt(socket, sockopt::RcvBufForce, &octets)
        .or_else(|_| socket::setsockopt(socket, sockopt::RcvBuf, &octets));
    if local.is_ipv6() {
        socket::setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        set_fragments(socket, AddressFamily::Inet6, true)?;
    }
    // Also for IPv6: the socket may take both families.
    socket::setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    set_fragments(socket, AddressFamily::Inet, true)
}

// The values are the same numbers for both families, so only the option has to be chosen.
const _: () = assert!(libc::IP_PMTUDISC_DONT == libc::IPV6_PMTUDISC_DONT);
const _: () = assert!(libc::IP_PMTUDISC_DO == libc::IPV6_PMTUDISC_DO);

/// Says whether the way to the peer may cut a datagram into pieces. Linux forbids it unless it is
/// told otherwise, and then a block larger than some link on the way never arrives.
fn set_fragments(socket: &impl AsFd, family: AddressFamily, allowed: bool) -> io::Result<()> {
    let (level, option) = match family {
        AddressFamily::Inet6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        _ => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    };
    let value = match allowed {
        true => libc::IP_PMTUDISC_DONT,
        false => libc::IP_PMTUDISC_DO,
    };
    set_option(socket, level, option, value)
}

/// Octets before a UDP payload.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// Says whether a socket that is not connected, of the family of `peer`, is told of ICMP messages,
/// as a connected one is. Each stays in a queue of its own and keeps the socket readable; switching
/// off empties that queue.
pub(crate) fn hear_errors(socket: &impl AsFd, peer: SocketAddr, wanted: bool) {
    #[cfg(target_os = "linux")]
    let _ = match peer {
        SocketAddr::V4(_) => socket::setsockopt(socket, sockopt::Ipv4RecvErr, &wanted),
        SocketAddr::V6(_) => socket::setsockopt(socket, sockopt::Ipv6RecvErr, &wanted),
    };
}

fn number_option(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets, which is what `value` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(value)
}

fn set_option(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads as many octets as the value has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// Lets a socket be bound to an address that no interface has.
#[cfg(target_os = "linux")]
fn allow_any_address(socket: &OwnedFd, family: AddressFamily) -> io::Result<()> {
    match family {
        AddressFamily::Inet6 => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1),
        _ => Ok(socket::setsockopt(socket, sockopt::IpFreebind, &true)?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allow_any_address(_: &OwnedFd, _: AddressFamily) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn bind_to_interface(socket: &OwnedFd, name: &str) -> io::Result<()> {
    Ok(socket::setsockopt(
        socket,
        sockopt::BindToDevice,
        &name.into(),
    )?)
}

#[cfg(not(target_os = "linux"))]
fn bind_to_interface(_: &OwnedFd, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Asks for room for a window of blocks, of which a receiver would lose the end. Returns how many
/// of them the kernel keeps while nothing is received, 1 at least.
pub(crate) fn make_room(socket: &impl AsFd, blksize: u16, windowsize: u16) -> u16 {
    let charge = buffer_charge(blksize.into());
    let (least, most) = (
        limits::RECEIVE_BUFFER_OCTETS,
        limits::MAX_RECEIVE_BUFFER_OCTETS,
    );
    // Linux doubles what is asked for, and tells the doubled number: the one that it counts
    // against.
    let wanted = (charge.saturating_mul(windowsize.into()) / 2).clamp(least, most);
    let _ = socket::setsockopt(socket, sockopt::RcvBuf, &wanted);
    if wanted > least && room(socket) < wanted * 2 {
        // Only root may go beyond the system's limit.
        let _ = socket::setsockopt(socket, sockopt::RcvBufForce, &wanted);
    }
    u16::try_from((room(socket) / charge).max(1)).unwrap_or(u16::MAX)
}

/// Octets of memory that may wait in a receive buffer.
fn room(socket: &impl AsFd) -> usize {
    socket::getsockopt(socket, sockopt::RcvBuf).unwrap_or(0)
}

/// What a block counts for in a receive buffer: the kernel counts memory, which it takes in powers
/// of two, with headers and its own description of the packet in front and behind.
fn buffer_charge(blksize: usize) -> usize {
    const AROUND_DATA: usize = 448;
    const DESCRIPTION: usize = 256;
    (blksize + AROUND_DATA).next_power_of_two() + DESCRIPTION
}

/// Binds to the address and port of `local`. Port 0 is any port of the range, the search for one
/// starting anywhere in it; without a range the kernel chooses, randomly as well, so that a number
/// seldom comes twice in a short time (RFC 1350 §4). A search takes a client that opens one socket;
/// a server chooses its ports itself.
fn bind_in(
    socket: &OwnedFd,
    local: SocketAddr,
    ports: Option<&RangeInclusive<u16>>,
) -> io::Result<()> {
    let bind = |port| {
        let mut local = local;
        local.set_port(port);
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(local))
    };
    let Some(ports) = ports.filter(|_| local.port() == 0) else {
        return Ok(bind(local.port())?);
    };
    // Each RandomState has keys of its own, from the system's source of randomness.
    let random = RandomState::new().hash_one(()) as usize;
    let start = random % ports.len().max(1);
    for port in ports.clone().skip(start).chain(ports.clone().take(start)) {
        match bind(port) {
            Err(Errno::EADDRINUSE) => {}
            result => return Ok(result?),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// How many ports the system gives to sockets that ask for any, at each address. It chooses at
/// random, so that a number seldom comes twice in a short time (RFC 1350 §4). Linux says it in a
/// file; others are assumed to follow RFC 6335.
pub(crate) fn ephemeral_ports() -> usize {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.ok().and_then(|text| {
        let mut numbers = text
            .split_whitespace()
            .map(|number| number.parse::<u16>().ok());
        Some((numbers.next()??, numbers.next()??))
    });
    let (first, last) = range.unwrap_or((49_152, 65_535));
    (first..=last).len()
}

/// Waits until there is something to read. A time is exact to the clock of the system.
pub(crate) fn wait_for(descriptor: RawFd, timeout: Duration) -> io::Result<()> {
    poll(descriptor, libc::POLLIN, timeout).map(drop)
}

/// Waits for `events`, and returns those that are there and errors; none when the time has passed
/// or a signal handler ran. (nix has `ppoll` only together with its signal sets, which the library
/// does not need.)
fn poll(descriptor: RawFd, events: libc::c_short, timeout: Duration) -> io::Result<libc::c_short> {
    let mut entry = libc::pollfd {
        fd: descriptor,
        events,
        revents: 0,
    };
    let timeout = nix::sys::time::TimeSpec::from_duration(timeout);
    #[cfg(test)]
    super::calls::count(|calls| calls.waits += 1);
    // SAFETY: one entry and a time, both alive during the call; no signal mask.
    let result = unsafe { libc::ppoll(&mut entry, 1, timeout.as_ref(), std::ptr::null()) };
    match Errno::result(result) {
        Ok(_) => Ok(entry.revents),
        Err(Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The address in our terms: IPv4 as such also when it came over an IPv6 socket.
fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some((*v4).into());
    }
    let v6 = SocketAddrV6::from(*storage.as_sockaddr_in6()?);
    Some(match v6.ip().to_ipv4_mapped() {
        Some(ip) => SocketAddr::new(ip.into(), v6.port()),
        None => v6.into(),
    })
}

/// The address as an IPv6 socket knows it.
fn to_v6(address: SocketAddr) -> SocketAddrV6 {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
        SocketAddr::V6(v6) => v6,
    }
}

/// Whether both are one peer. The scope is not compared: a socket connected to a link-local address
/// hears one interface only.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

fn ipv4(address: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}

fn in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(address.octets()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
