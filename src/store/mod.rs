//! Where the octets come from and where they go: the [`Store`] that is asked for a name, the [`Source`] that it answers
//! an RRQ with, and the [`Sink`] that it answers a WRQ with.

mod dir;
pub(crate) mod landing;
pub(crate) mod mappings;
#[cfg(test)]
pub(crate) mod scratch;
mod storage;
mod tree;
mod uploads;

pub use dir::{Dir, DirBuilder};
pub use landing::WriteMode;
pub use storage::{Entry, EntryKind, Storage};

use crate::error::Refusal;
use crate::sys::fs::Status;
use crate::wire::{Direction, Mode, Options};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

/// A request as a store sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// Who asks.
    pub peer: SocketAddr,
    /// The address that was asked.
    pub local: SocketAddr,
    /// Which way the file goes.
    pub direction: Direction,
    /// The file name: any octets but NUL. Not decoded, not cleaned, not trusted.
    pub name: &'a [u8],
    /// The transfer mode.
    pub mode: Mode,
    /// The options asked for.
    pub options: Options,
}

/// Grants or refuses requests. Called on a worker thread; it may block, but holds that worker while it does. A panic is
/// caught and fails that one transfer.
///
/// A closure `Fn(&Request) -> Result<Source, Refusal>` is a store too.
pub trait Store: Send + Sync + 'static {
    /// Answers an RRQ.
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR.
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal>;

    /// Whether the server calls [`write`](Self::write) at all. The server asks once, when it
    /// starts. A store that refuses every upload may return false: a WRQ then costs no worker.
    fn takes_uploads(&self) -> bool {
        true
    }

    /// Answers a WRQ; refuses it unless it is implemented.
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR.
    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        let _ = request;
        Err(Refusal::read_only())
    }

    /// Looks at the world anew; called after [`Stopper::reload`](crate::Stopper::reload).
    fn reload(&self) {}
}

impl<F> Store for F
where
    F: Fn(&Request<'_>) -> Result<Source, Refusal> + Send + Sync + 'static,
{
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        self(request)
    }

    fn takes_uploads(&self) -> bool {
        false
    }
}

/// Takes the octets of one file. Called by one thread at a time, which may change; dropped without
/// [`commit`](Self::commit), it must leave nothing behind. A panic is caught and fails that one transfer.
pub trait Sink: Send {
    /// Takes the next octets of the file: from one to 64 KiB, each of them once and in order. In netascii they are
    /// translated already.
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR and ends the transfer.
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal>;

    /// The file is whole. Called before the last ACK goes out, so what the sender takes for stored is stored.
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR instead of the last ACK.
    fn commit(self: Box<Self>) -> Result<(), Refusal>;
}

/// What is sent for a granted RRQ.
pub struct Source(pub(crate) Kind);

/// Reads octets at an offset into a buffer; returns how many, 0 at the end.
pub(crate) type ReadAt = Box<dyn Fn(&mut [u8], u64) -> io::Result<usize> + Send>;

pub(crate) enum Kind {
    /// With its status, where the store has asked for that already.
    File(File, Option<Status>),
    Bytes(Arc<[u8]>),
    ReadAt(ReadAt, u64),
    Reader(Box<dyn Read + Send>, Option<u64>),
}

impl Source {
    /// An open regular file, from its first octet to the length it has now. It is mapped, shared
    /// with other transfers of the same file, and checked for changes before its last block goes
    /// out. A file whose length is not what the system says, as in procfs and sysfs, is read to its
    /// end like a [`reader`](Self::reader).
    pub fn file(file: File) -> Self {
        Self(Kind::File(file, None))
    }

    /// Octets in memory.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }

    /// `length` octets that can be read again at any offset. An end before `length` fails the transfer.
    pub fn read_at(
        read: impl Fn(&mut [u8], u64) -> io::Result<usize> + Send + 'static,
        length: u64,
    ) -> Self {
        Self(Kind::ReadAt(Box::new(read), length))
    }

    /// A stream that is read once, in order. With a `length`, that is what `tsize` announces, and a stream of another
    /// length fails the transfer. The blocks of one window are kept for resending, so windows are smaller than for
    /// other sources.
    pub fn reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        Self(Kind::Reader(Box::new(reader), length))
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Kind::File(..) => "file",
            Kind::Bytes(_) => "bytes",
            Kind::ReadAt(..) => "read_at",
            Kind::Reader(..) => "reader",
        };
        write!(f, "Source({kind})")
    }
}
