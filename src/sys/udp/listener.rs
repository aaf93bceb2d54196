//! The socket that requests come to. It answers from the very address that was asked.

use super::Readable;
use super::address::{address_of, in_addr, ipv4, to_v6};
use super::options::{allow_any_address, family, open, prepare, receive_buffer};
use crate::limits;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockFlag, SockaddrStorage,
    sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

/// A non-blocking socket for requests.
pub(crate) struct Listener {
    pub(super) socket: UdpSocket,
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

    /// What a poller watches to learn that requests have come.
    pub(crate) fn readable(&self) -> Readable<'_> {
        Readable(self.socket.as_fd())
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
        let bytes = receive_buffer(&self.socket)?;
        (bytes < limits::REQUEST_BUFFER_OCTETS).then_some(bytes)
    }

    /// Takes the next datagram; `None` when there is none.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut errors = 0;
        loop {
            let mut control = Control([0; _]);
            let mut parts = [IoSliceMut::new(buffer)];
            let received = socket::recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
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
                self.socket.as_raw_fd(),
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

/// Room for what the kernel tells with a datagram, aligned as its headers must be. A socket for
/// both families hears of an IPv4 packet twice.
#[repr(align(8))]
struct Control(
    [u8; socket::cmsg_space::<libc::in_pktinfo>() + socket::cmsg_space::<libc::in6_pktinfo>()],
);

/// Where a datagram was sent to.
pub(super) struct Asked {
    pub(super) address: IpAddr,
    pub(super) interface: u32,
    pub(super) broadcast: bool,
    pub(super) answerable: bool,
}

impl Asked {
    pub(super) fn v4(info: &libc::in_pktinfo) -> Asked {
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

    pub(super) fn v6(info: &libc::in6_pktinfo) -> Asked {
        let sent_to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        Asked {
            address: sent_to.into(),
            interface: info.ipi6_ifindex,
            broadcast: sent_to.is_multicast(),
            answerable: false,
        }
    }

    pub(super) fn local(&self, port: u16) -> SocketAddr {
        match self.address {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                SocketAddrV6::new(ip, port, 0, self.interface).into()
            }
            ip => SocketAddr::new(ip, port),
        }
    }
}
