//! The operating system with a safe face. The only place where `unsafe` may stand, each block with
//! its reason. Uses no other floor.

mod burst;
#[cfg(feature = "cli")]
pub(crate) mod by_path;
#[cfg(test)]
pub(crate) mod calls;
#[cfg(feature = "cli")]
pub(crate) mod confine;
pub(crate) mod edit;
pub(crate) mod fs;
#[cfg(feature = "cli")]
pub(crate) mod inherited;
pub(crate) mod mapping;
pub(crate) mod neighbour;
#[cfg(feature = "cli")]
pub(crate) mod privileges;
#[cfg(feature = "cli")]
pub(crate) mod signal;
pub(crate) mod udp;

use nix::errno::Errno;

/// Whether the kernel could not read the memory that it was given: a mapping whose file has become
/// too short, or whose disk has failed.
pub(crate) fn is_bad_address(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EFAULT)
}

/// Whether a datagram was longer than the way to the peer allows in one piece.
pub(crate) fn is_too_long(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EMSGSIZE)
}

/// Whether the system lacked something that others hold, ports, descriptors or memory: it may have
/// some a little later.
pub(crate) fn is_scarce(error: &std::io::Error) -> bool {
    use nix::libc::{EADDRINUSE, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};

    let scarce = [EADDRINUSE, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM];
    match error.raw_os_error() {
        Some(number) => scarce.contains(&number),
        // A range of ports that is used up is our own word.
        None => error.kind() == std::io::ErrorKind::AddrInUse,
    }
}

/// What an error of the system means, in the same words with every C library; `None` for any other
/// error, and for a number without a name.
pub(crate) fn description(error: &std::io::Error) -> Option<&'static str> {
    let errno = Errno::from_raw(error.raw_os_error()?);
    (errno != Errno::UnknownErrno).then(|| errno.desc())
}

/// What the system says where a process has no descriptor left.
pub(crate) fn no_descriptor() -> std::io::Error {
    std::io::Error::from_raw_os_error(nix::libc::EMFILE)
}

/// Whether the network, or an interface, was not there: it may come up a little later.
pub(crate) fn is_network_down(error: &std::io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOBUFS};

    let down = [
        EADDRNOTAVAIL,
        EHOSTDOWN,
        EHOSTUNREACH,
        ENETDOWN,
        ENETUNREACH,
        ENOBUFS,
    ];
    let number = error.raw_os_error();
    number.is_some_and(|number| down.contains(&number))
}

/// Raises the soft limit of open descriptors to the hard one, and returns the limit that is then in
/// force. `None` where the system does not say it, as in a sandbox that denies the call.
#[cfg(feature = "cli")]
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

/// Microseconds of the monotonic clock, as other programs of this machine read it.
#[cfg(feature = "cli")]
pub(crate) fn monotonic_micros() -> std::io::Result<u64> {
    use nix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(std::time::Duration::from(time).as_micros() as u64)
}
