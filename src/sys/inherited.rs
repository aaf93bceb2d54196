//! Sockets that this process was started with, such as those of a socket unit.
#![allow(unsafe_code)]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The first descriptor that a service manager passes: SD_LISTEN_FDS_START of sd_listen_fds(3).
const FIRST: RawFd = 3;

/// Takes the first `count` descriptors after stderr. Call it once, before this process has opened
/// any descriptor.
///
/// # Errors
/// The text names a descriptor that is not there, or that is no UDP socket.
pub(crate) fn take_sockets(count: u16) -> io::Result<Vec<UdpSocket>> {
    (FIRST..FIRST + RawFd::from(count)).map(take).collect()
}

fn take(descriptor: RawFd) -> io::Result<UdpSocket> {
    let failed = |what: &str| io::Error::other(format!("descriptor {descriptor} is {what}"));
    // SAFETY: the number is borrowed for this one call, which fails where no descriptor has it.
    let is_open = fcntl(
        unsafe { BorrowedFd::borrow_raw(descriptor) },
        FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC),
    );
    if is_open.is_err() {
        return Err(failed("not open"));
    }
    // SAFETY: the descriptor is open, and it came with the process: nothing here owns it yet.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let is_datagram = getsockopt(&descriptor, sockopt::SockType) == Ok(SockType::Datagram);
    let socket = UdpSocket::from(descriptor);
    // Fails for a family beside IPv4 and IPv6.
    match socket.local_addr() {
        Ok(address) if is_datagram && address.port() > 0 => Ok(socket),
        _ => Err(failed("no bound UDP socket")),
    }
}
