//! The service manager, as systemd speaks: sockets that it has opened (sd_listen_fds(3)), what it
//! is told about the state of this process, and its watchdog (sd_notify(3)).
//!
//! Without the variables that such a manager sets, nothing here does anything.

use crate::error::plain;
use crate::server::ServerHandle;
use crate::sys;
use std::net::UdpSocket;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, io};

/// How long a message may wait for a service manager that reads none.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The sockets that the service manager has passed; none without one. Call it once, before this
/// process has opened any descriptor.
pub(super) fn sockets() -> io::Result<Vec<UdpSocket>> {
    let count = match variable("LISTEN_FDS", "LISTEN_PID") {
        None => return Ok(Vec::new()),
        Some(count) => count.parse().map_err(|_| {
            let text = format!("LISTEN_FDS={count} is not a number of descriptors");
            io::Error::other(text)
        })?,
    };
    sys::inherited::take_sockets(count)
}

/// A variable of the service manager, unless another one says that it is meant for another
/// process: a parent, say, that leaves its environment to this one.
fn variable(name: &str, pid: &str) -> Option<String> {
    let value = env::var(name).ok()?;
    is_ours(env::var(pid).ok().as_deref()).then_some(value)
}

fn is_ours(pid: Option<&str>) -> bool {
    pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()))
}

/// The way to the service manager; without one it leads nowhere.
#[derive(Clone)]
pub(super) struct Manager(Option<Arc<UnixDatagram>>);

impl Manager {
    /// Connects to the socket that NOTIFY_SOCKET names. A failure is logged, not fatal.
    pub(super) fn connect() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else {
            return Self(None);
        };
        match connect(name.as_bytes()) {
            Ok(socket) => Self(Some(Arc::new(socket))),
            Err(cause) => {
                log::warn!("cannot reach the service manager: {}", plain(&cause));
                Self(None)
            }
        }
    }

    /// The server takes requests, or has reloaded.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The server has begun to reload; [`ready`](Self::ready) follows.
    pub(super) fn reloading(&self) {
        // systemd ignores the state where the time is missing, and waits for READY=1 in vain.
        if let Ok(micros) = sys::monotonic_micros() {
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping, running transfers may finish");
    }

    /// Tells the watchdog, where there is one, at each half of its time that the server works: the
    /// message leaves a worker that the loop has given the task. A loop that does not turn, or
    /// workers that are all blocked, send none.
    pub(super) fn watch(&self, server: ServerHandle, status: impl Fn() -> String + Send + 'static) {
        let Some(time) = variable("WATCHDOG_USEC", "WATCHDOG_PID") else {
            return;
        };
        if self.0.is_none() {
            return;
        }
        let Some(pause) = pause(&time) else {
            log::warn!("no watchdog: WATCHDOG_USEC={time} is not a number of microseconds");
            return;
        };
        let manager = self.clone();
        let watch = move || {
            // One task at a time, so that none pile up in front of blocked workers.
            let is_asked = Arc::new(AtomicBool::new(false));
            loop {
                if !is_asked.swap(true, Ordering::SeqCst) {
                    let (manager, is_asked) = (manager.clone(), Arc::clone(&is_asked));
                    let status = status();
                    server.check(move || {
                        manager.send(&format!("WATCHDOG=1\nSTATUS={status}"));
                        is_asked.store(false, Ordering::SeqCst);
                    });
                }
                #[allow(clippy::disallowed_methods, reason = "time is all that it waits for")]
                std::thread::sleep(pause);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into());
        if let Err(cause) = thread.spawn(watch) {
            log::warn!("no watchdog: {}", plain(&cause));
        }
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.0
            && let Err(cause) = socket.send(text.as_bytes())
        {
            log::debug!("cannot reach the service manager: {}", plain(&cause));
        }
    }
}

/// The interval of the messages for a watchdog of this many microseconds.
fn pause(micros: &str) -> Option<Duration> {
    let micros: u64 = micros.parse().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros) / 2)
}

fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name {
        // An abstract name, with an @ in place of its NUL.
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?
        }
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        _ => return Err(io::Error::other("NOTIFY_SOCKET names no socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_another_process_are_not_ours() {
        assert!(is_ours(None));
        assert!(is_ours(Some(&std::process::id().to_string())));
        assert!(!is_ours(Some("1")));
        assert!(!is_ours(Some("")));
    }

    #[test]
    fn a_watchdog_gets_two_messages_in_its_time() {
        assert_eq!(pause("30000000"), Some(Duration::from_secs(15)));
        assert_eq!(pause("0"), None);
        assert_eq!(pause("-1"), None);
    }

    #[test]
    fn a_name_that_is_no_path_is_refused() {
        assert!(connect(b"relative").is_err());
        assert!(connect(b"/nowhere/at/all").is_err());
    }
}
