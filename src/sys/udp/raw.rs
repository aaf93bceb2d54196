//! The system calls that no crate wraps for us: socket options by their numbers, and `ppoll`.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

pub(super) fn number_option(
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

pub(super) fn set_option(
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

/// Waits until there is something to read. A time is exact to the clock of the system.
pub(crate) fn wait_for(source: &impl AsRawFd, timeout: Duration) -> io::Result<()> {
    poll(source.as_raw_fd(), libc::POLLIN, timeout).map(drop)
}

/// Waits for `events`, and returns those that are there and errors; none when the time has passed
/// or a signal handler ran. (nix has `ppoll` only together with its signal sets, which the library
/// does not need.)
pub(super) fn poll(
    descriptor: RawFd,
    events: libc::c_short,
    timeout: Duration,
) -> io::Result<libc::c_short> {
    let mut entry = libc::pollfd {
        fd: descriptor,
        events,
        revents: 0,
    };
    let timeout = nix::sys::time::TimeSpec::from_duration(timeout);
    #[cfg(test)]
    crate::sys::calls::count(|calls| calls.waits += 1);
    // SAFETY: one entry and a time, both alive during the call; no signal mask.
    let result = unsafe { libc::ppoll(&mut entry, 1, timeout.as_ref(), std::ptr::null()) };
    match Errno::result(result) {
        Ok(_) => Ok(entry.revents),
        Err(Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
