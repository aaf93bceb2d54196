//! One error type per question: [`Malformed`](crate::wire::Malformed) (is this a packet?),
//! [`Refusal`] (what do we tell the peer?), [`Failure`] (how did this transfer end badly, and whose
//! fault was it?), [`Error`] (why can't the server start?).

use crate::sys;
use crate::text::Name;
use crate::wire::ErrorCode;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::{fmt, io};

/// A request that is not granted: what the peer is told, and what only the log is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: ErrorCode,
    text: Cow<'static, str>,
    detail: Option<String>,
    is_scarce: bool,
}

impl Refusal {
    /// A refusal with a code of RFC 1350 and a short text for the peer. The text should name
    /// nothing of this machine: no path, no user, no system error.
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
            detail: None,
            is_scarce: false,
        }
    }

    /// For want of a descriptor or of memory: another transfer may give way.
    pub(crate) fn for_want(mut self) -> Self {
        self.is_scarce = true;
        self
    }

    /// True where another transfer that ends may bring another answer.
    pub(crate) fn is_for_want(&self) -> bool {
        self.is_scarce
    }

    /// ERROR 1.
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NOT_FOUND, "file not found")
    }

    /// ERROR 2, with the one text that is used whatever the reason, so that nothing can be learned
    /// from it.
    pub fn access_violation() -> Self {
        Self::new(ErrorCode::ACCESS_VIOLATION, "access violation")
    }

    /// ERROR 2 to a WRQ where no uploads are taken.
    pub(crate) fn read_only() -> Self {
        Self::new(ErrorCode::ACCESS_VIOLATION, "server is read-only")
    }

    /// The same refusal with a reason that goes to the log and to events, never to the peer.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The code that the peer is told.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The text that the peer is told.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The reason for the operator, where there is one.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.text, self.code.0)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

/// How a transfer ended before its last ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The peer was silent through all retransmissions.
    Silent,
    /// The peer was silent from block 65535 on: it seems unable to continue with number 0.
    SilentAtRollover,
    /// The server acknowledged all of an upload but its last block: the file may be stored.
    Unconfirmed,
    /// The peer never answered at all: it may not exist.
    Unanswered,
    /// The peer was silent through all retransmissions, and its host said that the port is closed
    /// (ICMP port unreachable).
    Unreachable,
    /// Nothing leads back to the peer: its address may be forged.
    NoWayBack,
    /// The peer sent an ERROR.
    Aborted {
        /// Its code.
        code: ErrorCode,
        /// Its text, as sent; `Display` escapes it.
        text: Name,
    },
    /// The peer broke the protocol.
    Protocol(&'static str),
    /// The peer said too little for too long: less than the least progress.
    TooSlow,
    /// The transfer took longer than any may.
    TooLong,
    /// The file became shorter or was rewritten in place while it was sent.
    FileChanged,
    /// The source could not be read.
    Read(String),
    /// The sink did not take the file, or not all of it.
    Store(Refusal),
    /// The network could not be used.
    Network(String),
    /// A client's: the name is empty, too long for a request, or holds a NUL.
    Name,
    /// A client's: not the server that was asked has answered, but this one. It was not believed.
    AnsweredElsewhere(SocketAddr),
    /// A client's: the file has more octets than are taken.
    TooLarge {
        /// So many are.
        limit: u64,
    },
    /// A client's: the server announced a size, and sends another one.
    SizeDiffers {
        /// Octets that it announced.
        announced: u64,
        /// Octets that have come: all, or the first too many.
        received: u64,
    },
    /// An embedder's store or source panicked.
    Panicked,
    /// The peer asked again from the same port; the newer transfer took over.
    Superseded,
    /// Dropped without an answer to make room: the peer had never acknowledged anything.
    Evicted,
    /// The server was stopped.
    Stopped,
    /// This one transfer was cancelled ([`Server::cancel`](crate::Server::cancel)).
    Cancelled,
}

/// Whose fault a [`Failure`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The other end, or the way to it.
    Peer,
    /// This machine: files, network, an embedder's code.
    Here,
    /// Nobody's: the server was told to stop, or the client changed its mind.
    Nobody,
}

impl Failure {
    /// How requests end whose senders are not there: not worth a line each.
    pub(crate) fn is_common(&self) -> bool {
        matches!(self, Self::Unanswered | Self::Evicted | Self::NoWayBack)
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Silent
            | Self::SilentAtRollover
            | Self::Unconfirmed
            | Self::Unanswered
            | Self::Unreachable
            | Self::NoWayBack
            | Self::Aborted { .. }
            | Self::Protocol(_)
            | Self::TooSlow
            | Self::TooLong
            | Self::AnsweredElsewhere(_)
            | Self::TooLarge { .. }
            | Self::SizeDiffers { .. } => Fault::Peer,
            Self::FileChanged
            | Self::Read(_)
            | Self::Store(_)
            | Self::Network(_)
            | Self::Name
            | Self::Panicked => Fault::Here,
            Self::Superseded | Self::Evicted | Self::Stopped | Self::Cancelled => Fault::Nobody,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("peer fell silent"),
            Self::SilentAtRollover => f.write_str(
                "peer fell silent at block 65535 (it seems unable to go on past 65,535 blocks; larger blocks need fewer)",
            ),
            Self::Unconfirmed => f.write_str(
                "peer never acknowledged the last block (the file may be stored all the same)",
            ),
            Self::Unanswered => f.write_str("peer never answered"),
            Self::Unreachable => f.write_str("peer's port is closed"),
            Self::NoWayBack => f.write_str("no route to the peer"),
            Self::Aborted { code, text } => write!(f, "peer sent error {} {text}", code.0),
            Self::Protocol(what) => f.write_str(what),
            Self::TooSlow => f.write_str("peer was too slow"),
            Self::TooLong => f.write_str("transfer took too long"),
            Self::FileChanged => f.write_str("file changed while it was sent"),
            Self::Read(cause) => write!(f, "cannot read the file: {cause}"),
            // What happened here, not the code that the peer was sent for it.
            Self::Store(refusal) => {
                let cause = refusal.detail().unwrap_or(refusal.text());
                write!(f, "cannot store the file: {cause}")
            }
            Self::Network(cause) => write!(f, "cannot send: {cause}"),
            Self::Name => {
                let most = crate::limits::MAX_ASKED_NAME;
                write!(
                    f,
                    "invalid file name (empty, longer than {most} bytes or contains NUL)"
                )
            }
            Self::AnsweredElsewhere(other) => {
                write!(f, "the answer came from {other}, which was not asked")
            }
            Self::TooLarge { limit } => {
                write!(f, "file exceeds the limit of {limit} bytes")
            }
            Self::SizeDiffers {
                announced,
                received,
            } => {
                let more = if received > announced { " or more" } else { "" };
                write!(
                    f,
                    "server announced {announced} bytes and sent {received}{more}"
                )
            }
            Self::Panicked => f.write_str("the store panicked"),
            Self::Superseded => f.write_str("peer asked again"),
            Self::Evicted => f.write_str("made room for a newer request"),
            Self::Stopped => f.write_str("server stopped"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Failure {}

/// Why a server could not be set up, or how it died.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An address could not be bound.
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// An address could not be bound because another address of this server covers it.
    Overlap {
        /// The address that was asked for.
        address: SocketAddr,
        /// The address that the server had bound before it.
        bound: SocketAddr,
    },
    /// The root directory, or a tree that links may lead to, could not be opened.
    Directory {
        /// The path as it was given.
        path: std::path::PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A setting is out of its range.
    Setting {
        /// Its name.
        name: &'static str,
        /// What would be accepted.
        accepted: &'static str,
    },
    /// The system refused something else that the server needs.
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The server's own loop panicked: a defect of this library.
    Crashed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, cause } => {
                write!(f, "cannot bind {address}: {}", plain(cause))?;
                match cause.kind() {
                    io::ErrorKind::PermissionDenied if (1..1024).contains(&address.port()) => {
                        f.write_str(" (ports below 1024 need CAP_NET_BIND_SERVICE)")
                    }
                    io::ErrorKind::AddrInUse => {
                        f.write_str(" (another program listens on this port)")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        f.write_str(" (no interface of this machine has this address)")
                    }
                    _ => Ok(()),
                }
            }
            Self::Overlap { address, bound } => write!(
                f,
                "cannot bind {address}: address already in use by this server itself, which listens on {bound} (leave one of the two out)"
            ),
            Self::Directory { path, cause } => {
                write!(f, "cannot open {}: {}", path.display(), plain(cause))
            }
            Self::Setting { name, accepted } => write!(f, "{name} must be {accepted}"),
            Self::System { doing, cause } => write!(f, "cannot {doing}: {}", plain(cause)),
            Self::Crashed => f.write_str("the server loop panicked (please report this)"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { cause, .. }
            | Self::Directory { cause, .. }
            | Self::System { cause, .. } => Some(cause),
            Self::Overlap { .. } | Self::Setting { .. } | Self::Crashed => None,
        }
    }
}

/// Why a [`Driver`](crate::Driver) or its [`Storage`](crate::Storage) did not do what it was told.
#[derive(Debug)]
#[non_exhaustive]
pub enum TftpError {
    /// The server is not running.
    ServerNotRunning,
    /// The server could not be started, or died.
    Server(Error),
    /// The host to serve at has no address.
    Host {
        /// As it was given.
        host: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A name means nothing beneath the root.
    Name {
        /// As it was given.
        name: std::path::PathBuf,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A file or directory could not be used.
    File {
        /// What was being done.
        doing: &'static str,
        /// Its name beneath the root.
        name: std::path::PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl From<Error> for TftpError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl fmt::Display for TftpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerNotRunning => f.write_str("the server is not running (start it first)"),
            Self::Server(error) => error.fmt(f),
            Self::Host { host, cause } => {
                write!(f, "cannot serve at {}: {}", shown(host), plain(cause))
            }
            Self::Name { name, rule } => write!(f, "cannot use {}: {rule}", shown(name)),
            Self::File { doing, name, cause } => {
                write!(f, "cannot {doing} {}: {}", shown(name), plain(cause))
            }
        }
    }
}

impl std::error::Error for TftpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Server(error) => Some(error),
            Self::Host { cause, .. } | Self::File { cause, .. } => Some(cause),
            Self::ServerNotRunning | Self::Name { .. } => None,
        }
    }
}

/// A name as people may read it: quoted and escaped.
fn shown(name: &(impl AsRef<std::ffi::OsStr> + ?Sized)) -> Name {
    Name::new(name.as_ref().as_encoded_bytes())
}

/// An error in lower case, for the end of a sentence. An error of the system is described without
/// its number.
pub(crate) fn plain(cause: &io::Error) -> String {
    let text = match sys::description(cause) {
        Some(text) => text.to_owned(),
        None => cause.to_string(),
    };
    let mut letters = text.chars();
    match letters.next() {
        // "I/O error" is left as it is.
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_error_says_what_is_missing() {
        let denied = Error::Bind {
            address: "[::]:69".parse().expect("an address"),
            cause: io::Error::from_raw_os_error(nix::libc::EACCES),
        };
        assert_eq!(
            denied.to_string(),
            "cannot bind [::]:69: permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)"
        );
    }

    #[test]
    fn a_system_error_is_described_without_its_number() {
        let system = |errno| plain(&io::Error::from_raw_os_error(errno));
        assert_eq!(system(nix::libc::ENOENT), "no such file or directory");
        assert_eq!(system(nix::libc::EIO), "I/O error");
        assert_eq!(system(99_999), "unknown error 99999 (os error 99999)");
        assert_eq!(plain(&io::Error::other("Timed out")), "timed out");
        assert_eq!(plain(&io::Error::other("TLS failed")), "TLS failed");
        assert_eq!(plain(&io::Error::other("")), "");
    }

    /// An embedder has no command line: what helps there is the command's to add.
    #[test]
    fn a_text_of_the_library_names_no_option() {
        let address = "[::]:69".parse().expect("an address");
        let cause = io::Error::from_raw_os_error;
        let binds = [
            nix::libc::EACCES,
            nix::libc::EADDRINUSE,
            nix::libc::EADDRNOTAVAIL,
        ];
        let binds = binds.map(|errno| Error::Bind {
            address,
            cause: cause(errno),
        });
        let overlap = Error::Overlap {
            address,
            bound: address,
        };
        for error in binds.into_iter().chain([overlap]) {
            let text = error.to_string();
            assert!(!text.contains("--") && text.ends_with(')'), "{text}");
        }
    }

    #[test]
    fn a_local_write_error_has_no_code_of_the_protocol() {
        let refusal = Refusal::new(ErrorCode::DISK_FULL, "disk full");
        assert_eq!(
            Failure::Store(refusal.clone()).to_string(),
            "cannot store the file: disk full"
        );
        assert_eq!(
            Failure::Store(refusal.because("no space left on device")).to_string(),
            "cannot store the file: no space left on device"
        );
    }

    #[test]
    fn a_peers_text_cannot_move_the_cursor() {
        let failure = Failure::Aborted {
            code: ErrorCode(0),
            text: Name::new(b"bad\x1b[2J\n\"x\""),
        };
        assert_eq!(
            failure.to_string(),
            r#"peer sent error 0 "bad\x1b[2J\n\"x\"""#
        );
    }
}
