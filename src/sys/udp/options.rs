//! What sockets are told and asked: families, fragments, buffers, interfaces and ports.

use super::raw::set_option;
use crate::limits;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub(super) fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(super) fn open(local: SocketAddr, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    Ok(socket::socket(
        family(local),
        SockType::Datagram,
        flags,
        None,
    )?)
}

/// The bytes of requests that the kernel keeps.
pub(super) fn receive_buffer(socket: &impl AsFd) -> Option<usize> {
    // Linux reports twice what it was asked for, for its own accounting.
    Some(socket::getsockopt(socket, sockopt::RcvBuf).ok()? / 2)
}

/// Sets what every main socket needs.
pub(super) fn prepare(socket: &impl AsFd, local: SocketAddr) -> io::Result<()> {
    // Only root may go beyond the system's limit; less room than wished is no reason not to serve.
    let octets = limits::REQUEST_BUFFER_OCTETS;
    // A given socket may have more room already than this process may ask for.
    if receive_buffer(socket).is_none_or(|current| current < octets) {
        let _ = socket::setsockopt(socket, sockopt::RcvBufForce, &octets)
            .or_else(|_| socket::setsockopt(socket, sockopt::RcvBuf, &octets));
    }
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
pub(super) fn set_fragments(
    socket: &impl AsFd,
    family: AddressFamily,
    allowed: bool,
) -> io::Result<()> {
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
pub(super) const IPV4_HEADER: usize = 20;
pub(super) const IPV6_HEADER: usize = 40;
pub(super) const UDP_HEADER: usize = 8;

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

/// Lets a socket be bound to an address that no interface has.
#[cfg(target_os = "linux")]
pub(super) fn allow_any_address(socket: &OwnedFd, family: AddressFamily) -> io::Result<()> {
    match family {
        AddressFamily::Inet6 => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1),
        _ => Ok(socket::setsockopt(socket, sockopt::IpFreebind, &true)?),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allow_any_address(_: &OwnedFd, _: AddressFamily) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
pub(super) fn bind_to_interface(socket: &OwnedFd, name: &str) -> io::Result<()> {
    Ok(socket::setsockopt(
        socket,
        sockopt::BindToDevice,
        &name.into(),
    )?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn bind_to_interface(_: &OwnedFd, _: &str) -> io::Result<()> {
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
pub(super) fn buffer_charge(blksize: usize) -> usize {
    const AROUND_DATA: usize = 448;
    const DESCRIPTION: usize = 256;
    (blksize + AROUND_DATA).next_power_of_two() + DESCRIPTION
}

/// Binds to the address and port of `local`. Port 0 is any port of the range, the search for one
/// starting anywhere in it; without a range the kernel chooses, randomly as well, so that a number
/// seldom comes twice in a short time (RFC 1350 §4). A search takes a client that opens one socket;
/// a server chooses its ports itself.
pub(super) fn bind_in(
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
