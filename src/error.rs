//! One error type per question: [`Malformed`](crate::wire::Malformed) (why is this no packet?),
//! [`Refusal`] (what does the peer get instead of the file?), [`TransferError`] (how did this
//! transfer of a server end badly, and whose fault was it?), [`Error`] (why can the server not
//! start?). A client has its own: `ClientError`.

use crate::limits::settings::InvalidSetting;
use crate::sys;
use crate::text::Name;
use crate::wire::ErrorCode;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::{fmt, io};

/// A request that is not granted: what the peer is told, and what only the log is told.
#[derive(Clone, Debug)]
pub struct Refusal {
    code: ErrorCode,
    text: Cow<'static, str>,
    detail: Option<String>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    is_scarce: bool,
}

/// The cause is not compared, but what it says is.
impl PartialEq for Refusal {
    fn eq(&self, other: &Self) -> bool {
        let told = |it: &Self| (it.code, it.is_scarce);
        told(self) == told(other) && self.text == other.text && self.detail == other.detail
    }
}

impl Eq for Refusal {}

impl Refusal {
    /// A refusal with a code of RFC 1350 and a short text for the peer. The text should name
    /// nothing of this machine: no path, no user, no system error.
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
            detail: None,
            cause: None,
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

    /// The same refusal with the error that is the reason, for the log, for events and for
    /// [`source`](std::error::Error::source); never for the peer.
    #[must_use]
    pub fn caused_by(mut self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error: Arc<dyn std::error::Error + Send + Sync> = Arc::from(error.into());
        self.detail = Some(match error.downcast_ref() {
            Some(error) => plain(error),
            None => error.to_string(),
        });
        self.cause = Some(error);
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

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.cause.as_deref()?;
        Some(cause)
    }
}

/// How a transfer ended before its last ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferError {
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
    NoRoute,
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
    Read(Cause),
    /// The sink did not take the file, or not all of it.
    Store(Refusal),
    /// The network could not be used.
    Network(Cause),
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

/// Whose fault a [`TransferError`] or a `ClientError` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The other end, or the way to it.
    Peer,
    /// This machine: files, network, an embedder's code.
    Local,
    /// No one's: the server was told to stop, or the client asked for something else.
    None,
}

impl TransferError {
    /// The error in one word, as [`Stats::failed_by_kind`](crate::Stats::failed_by_kind) counts it;
    /// a label for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::SilentAtRollover => "silent_at_rollover",
            Self::Unconfirmed => "unconfirmed",
            Self::Unanswered => "unanswered",
            Self::Unreachable => "unreachable",
            Self::NoRoute => "no_route",
            Self::Aborted { .. } => "aborted",
            Self::Protocol(_) => "protocol",
            Self::TooSlow => "too_slow",
            Self::TooLong => "too_long",
            Self::FileChanged => "file_changed",
            Self::Read(_) => "read",
            Self::Store(_) => "store",
            Self::Network(_) => "network",
            Self::Panicked => "panicked",
            Self::Superseded => "superseded",
            Self::Evicted => "evicted",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
        }
    }

    /// How requests end whose senders are not there: not worth a line each.
    pub(crate) fn is_common(&self) -> bool {
        matches!(self, Self::Unanswered | Self::Evicted | Self::NoRoute)
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Silent
            | Self::SilentAtRollover
            | Self::Unconfirmed
            | Self::Unanswered
            | Self::Unreachable
            | Self::NoRoute
            | Self::Aborted { .. }
            | Self::Protocol(_)
            | Self::TooSlow
            | Self::TooLong => Fault::Peer,
            Self::FileChanged
            | Self::Read(_)
            | Self::Store(_)
            | Self::Network(_)
            | Self::Panicked => Fault::Local,
            Self::Superseded | Self::Evicted | Self::Stopped | Self::Cancelled => Fault::None,
        }
    }
}

impl fmt::Display for TransferError {
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
            Self::NoRoute => f.write_str("no route to the peer"),
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
            Self::Panicked => f.write_str("the store panicked"),
            Self::Superseded => f.write_str("peer asked again"),
            Self::Evicted => f.write_str("made room for a newer request"),
            Self::Stopped => f.write_str("server stopped"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(cause) | Self::Network(cause) => Some(cause.as_io()),
            Self::Store(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// An error of the system, or of an embedder's reader, as the cause of another error. Unlike
/// [`io::Error`] it can be cloned and compared. `Display` writes it in lower case and without its
/// number, for the end of a sentence.
#[derive(Clone, Debug)]
pub struct Cause(Arc<io::Error>);

impl Cause {
    /// The error itself.
    pub fn as_io(&self) -> &io::Error {
        &self.0
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

/// An error without a system behind it.
impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        io::Error::other(text).into()
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind() == other.0.kind() && self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.0))
    }
}

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
    /// A setting has a value that it does not accept.
    Setting(InvalidSetting),
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
            Self::Setting(invalid) => invalid.fmt(f),
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
            Self::Overlap { .. } | Self::Setting(_) | Self::Crashed => None,
        }
    }
}

impl From<InvalidSetting> for Error {
    fn from(invalid: InvalidSetting) -> Self {
        Self::Setting(invalid)
    }
}

/// Why a [`Driver`](crate::Driver) or its [`Storage`](crate::Storage) did not do what it was told.
#[derive(Debug)]
#[non_exhaustive]
pub enum DriverError {
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

/// The name that programs know from other TFTP drivers.
pub type TftpError = DriverError;

impl From<Error> for DriverError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl fmt::Display for DriverError {
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

impl std::error::Error for DriverError {
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
            TransferError::Store(refusal.clone()).to_string(),
            "cannot store the file: disk full"
        );
        assert_eq!(
            TransferError::Store(refusal.because("no space left on device")).to_string(),
            "cannot store the file: no space left on device"
        );
    }

    #[test]
    fn errors_keep_their_cause() {
        use std::error::Error;
        let lost = || io::Error::from_raw_os_error(nix::libc::EIO);
        let is_it = |source: Option<&(dyn Error + 'static)>| {
            let error = source.and_then(|source| source.downcast_ref::<io::Error>());
            error.is_some_and(|error| error.raw_os_error() == Some(nix::libc::EIO))
        };
        let read = TransferError::Read(lost().into());
        assert!(is_it(read.source()));
        assert_eq!(read.to_string(), "cannot read the file: I/O error");
        assert_eq!(read, TransferError::Read(lost().into()));
        assert_ne!(read, TransferError::Read("other".into()));

        let refusal = Refusal::not_found().caused_by(lost());
        assert!(is_it(refusal.source()));
        assert_eq!(refusal, Refusal::not_found().because("I/O error"));
        let stored = TransferError::Store(refusal.clone());
        assert!(is_it(stored.source().and_then(Error::source)));
        assert_eq!(
            refusal.text(),
            "file not found",
            "the peer is told nothing of it"
        );
    }

    #[test]
    fn a_peers_text_cannot_move_the_cursor() {
        let failure = TransferError::Aborted {
            code: ErrorCode(0),
            text: Name::new(b"bad\x1b[2J\n\"x\""),
        };
        assert_eq!(
            failure.to_string(),
            r#"peer sent error 0 "bad\x1b[2J\n\"x\"""#
        );
    }
}
