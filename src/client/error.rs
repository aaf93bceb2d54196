//! Why a client did not transfer a file.

use crate::error::{Cause, Fault, Refusal, TransferError};
use crate::limits::settings::InvalidSetting;
use crate::text::Name;
use crate::wire::ErrorCode;
use std::fmt;
use std::net::SocketAddr;

/// Why a [`Client`](crate::Client) did not transfer a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting of the client has a value that it does not accept.
    Setting(InvalidSetting),
    /// The server's name has no address.
    Lookup(Cause),
    /// The name of the file is empty, too long for a request, or holds a NUL.
    InvalidName,
    /// The server never answered.
    Unanswered,
    /// The server's host said that the port is closed (ICMP port unreachable).
    Unreachable,
    /// Another host than the one that was asked has answered. The client did not believe it.
    AnsweredElsewhere(SocketAddr),
    /// The server sent an ERROR.
    Aborted {
        /// Its code.
        code: ErrorCode,
        /// Its text, as sent; `Display` escapes it.
        text: Name,
    },
    /// The server broke the protocol.
    Protocol(&'static str),
    /// The server was silent through all retransmissions.
    Silent,
    /// The server was silent from block 65535 on: it seems unable to continue with number 0.
    SilentAtRollover,
    /// The server acknowledged all of an upload but its last block: the file may be stored.
    Unconfirmed,
    /// The server was slower than the least progress.
    TooSlow,
    /// The transfer took longer than [`max_time`](crate::Client::max_time).
    TooLong,
    /// The file has more bytes than [`max_size`](crate::Client::max_size).
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The server announced a size and sent another one.
    SizeDiffers {
        /// Bytes that it announced.
        announced: u64,
        /// Bytes that have come: all, or the first too many.
        received: u64,
    },
    /// The file became shorter or was rewritten in place while it was sent.
    FileChanged,
    /// The source could not be read.
    Read(Cause),
    /// The sink or writer did not take the file, or not all of it.
    Store(Refusal),
    /// The network could not be used.
    Network(Cause),
    /// The transfer was [cancelled](crate::CancelHandle::cancel).
    Cancelled,
}

impl ClientError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unanswered
            | Self::Unreachable
            | Self::AnsweredElsewhere(_)
            | Self::Aborted { .. }
            | Self::Protocol(_)
            | Self::Silent
            | Self::SilentAtRollover
            | Self::Unconfirmed
            | Self::TooSlow
            | Self::TooLong
            | Self::TooLarge { .. }
            | Self::SizeDiffers { .. } => Fault::Peer,
            Self::Setting(_)
            | Self::Lookup(_)
            | Self::InvalidName
            | Self::FileChanged
            | Self::Read(_)
            | Self::Store(_)
            | Self::Network(_) => Fault::Local,
            Self::Cancelled => Fault::None,
        }
    }
}

impl From<TransferError> for ClientError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Silent => Self::Silent,
            TransferError::SilentAtRollover => Self::SilentAtRollover,
            TransferError::Unconfirmed => Self::Unconfirmed,
            TransferError::Unanswered => Self::Unanswered,
            TransferError::Unreachable => Self::Unreachable,
            TransferError::Aborted { code, text } => Self::Aborted { code, text },
            TransferError::Protocol(what) => Self::Protocol(what),
            TransferError::TooSlow => Self::TooSlow,
            TransferError::TooLong => Self::TooLong,
            TransferError::FileChanged => Self::FileChanged,
            TransferError::Read(cause) => Self::Read(cause),
            TransferError::Store(refusal) => Self::Store(refusal),
            TransferError::Network(cause) => Self::Network(cause),
            TransferError::Stopped
            | TransferError::Cancelled
            // The others are ends that only a server makes.
            | TransferError::NoRoute
            | TransferError::Panicked
            | TransferError::Superseded
            | TransferError::Evicted => Self::Cancelled,
        }
    }
}

impl From<InvalidSetting> for ClientError {
    fn from(invalid: InvalidSetting) -> Self {
        Self::Setting(invalid)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(invalid) => invalid.fmt(f),
            Self::Lookup(cause) => write!(f, "cannot find the server: {cause}"),
            Self::InvalidName => {
                let most = crate::limits::MAX_ASKED_NAME;
                write!(
                    f,
                    "invalid file name (empty, longer than {most} bytes or contains NUL)"
                )
            }
            Self::Unanswered => f.write_str("the server never answered"),
            Self::Unreachable => {
                f.write_str("the server's port is closed (no TFTP server there)")
            }
            Self::AnsweredElsewhere(other) => {
                write!(f, "the answer came from {other}, which was not asked")
            }
            Self::Aborted { code, text } => write!(f, "the server sent error {} {text}", code.0),
            Self::Protocol(what) => f.write_str(what),
            Self::Silent => f.write_str("the server fell silent"),
            Self::SilentAtRollover => f.write_str(
                "the server fell silent at block 65535 (it seems unable to go on past 65,535 blocks; larger blocks need fewer)",
            ),
            Self::Unconfirmed => f.write_str(
                "the server never acknowledged the last block (the file may be stored there)",
            ),
            Self::TooSlow => f.write_str("the server was too slow"),
            Self::TooLong => f.write_str("transfer took too long"),
            Self::TooLarge { limit } => write!(f, "file exceeds the limit of {limit} bytes"),
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
            Self::FileChanged => f.write_str("file changed while it was sent"),
            Self::Read(cause) => write!(f, "cannot read the file: {cause}"),
            // What happened here, not the code that the server was sent for it.
            Self::Store(refusal) => {
                let cause = refusal.detail().unwrap_or(refusal.text());
                write!(f, "cannot store the file: {cause}")
            }
            Self::Network(cause) => write!(f, "cannot send: {cause}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lookup(cause) | Self::Read(cause) | Self::Network(cause) => Some(cause.as_io()),
            Self::Store(refusal) => Some(refusal),
            _ => None,
        }
    }
}
