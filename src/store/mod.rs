//! Where the octets come from and where they go: the [`Store`] that is asked for a name, the
//! [`Source`] that it answers an RRQ with, and the [`Sink`] that it answers a WRQ with.

mod compose;
mod dir;
pub(crate) mod landing;
pub(crate) mod mappings;
mod names;
#[cfg(test)]
pub(crate) mod scratch;
mod storage;
mod tree;
mod uploads;

pub use compose::{StoreFn, store_fn};
pub use dir::{Dir, DirBuilder};
pub use landing::WriteMode;
pub use storage::{Entry, EntryKind, Storage};

use crate::error::Refusal;
use crate::sys::fs::Status;
use crate::wire::{Direction, Mode, Options};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
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

impl<'a> Request<'a> {
    /// A request in octet mode, without options, from and to an unspecified address: for tests of a
    /// store, and for programs that ask a store themselves. The other fields can be assigned.
    ///
    /// ```
    /// use tftpool::{Direction, Request};
    ///
    /// let mut request = Request::new(Direction::Read, "boot/kernel");
    /// request.peer = "192.0.2.7:2070".parse().expect("an address");
    /// ```
    pub fn new(direction: Direction, name: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            peer: unspecified,
            local: unspecified,
            direction,
            name: name.as_ref(),
            mode: Mode::Octet,
            options: Options::default(),
        }
    }

    /// The same request for another name. A store that wraps a store passes it on.
    #[must_use]
    pub fn with_name<'b>(&self, name: &'b (impl AsRef<[u8]> + ?Sized)) -> Request<'b> {
        Request {
            name: name.as_ref(),
            ..*self
        }
    }
}

/// Grants or refuses requests. The server calls it on a worker thread: a call may block, but holds
/// that worker while it does. The worker catches a panic, which fails that one transfer.
///
/// [`store_fn`] makes a store of a closure. A store that wraps another store is a layer: it may
/// pass on [another name](Request::with_name), refuse requests, or ask a second store. `Box`, `Arc`
/// and references to stores are stores too, so layers nest, and stores can be shared.
pub trait Store: Send + Sync {
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

    /// Reloads external state, such as reopening the root directory. The server calls it after
    /// [`Stopper::reload`](crate::Stopper::reload).
    fn reload(&self) {}
}

/// Takes the octets of one file. Called by one thread at a time, which may change; dropped without
/// [`commit`](Self::commit), it must leave nothing behind. A panic is caught and fails that one
/// transfer.
pub trait Sink: Send {
    /// Takes the next octets of the file: from one to 64 KiB, each of them once and in order. In
    /// netascii they are translated already.
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR and ends the transfer.
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal>;

    /// The file is whole. Called before the last ACK goes out, so what the sender takes for stored
    /// is stored.
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR instead of the last ACK.
    fn commit(self: Box<Self>) -> Result<(), Refusal>;
}

/// Bytes that can be read at any offset, and that can be told from other bytes of the same name: a
/// version of an object in a database, a cache or a repository. See [`Source::object`].
#[expect(
    clippy::len_without_is_empty,
    reason = "the server needs the length; an empty object is no special case"
)]
pub trait Object: Send {
    /// Reads bytes at `offset` into `out` and returns how many. An end before [`len`](Self::len)
    /// fails the transfer.
    ///
    /// # Errors
    /// An error fails the transfer; `Interrupted` is tried again.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The length in bytes. Asked once, when the request is granted.
    fn len(&self) -> u64;

    /// Whether [`read_at`](Self::read_at) still gives the bytes that were opened. The server asks
    /// after it has read the last block and before it sends it, so that a client never completes a
    /// file that is made of two versions. True where the bytes cannot change.
    ///
    /// # Errors
    /// An error fails the transfer.
    fn unchanged(&self) -> io::Result<bool>;
}

/// What is sent for a granted RRQ.
pub struct Source(pub(crate) Kind);

pub(crate) enum Kind {
    /// With its status, where the store has asked for that already.
    File(File, Option<Status>),
    Bytes(Arc<[u8]>),
    Object(Box<dyn Object>),
    Reader(Box<dyn Read + Send>, Option<u64>),
}

/// A closure that reads at an offset, and a length.
struct ReadAt<F> {
    read: F,
    length: u64,
}

impl<F> Object for ReadAt<F>
where
    F: Fn(&mut [u8], u64) -> io::Result<usize> + Send,
{
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.read)(out, offset)
    }

    fn len(&self) -> u64 {
        self.length
    }

    fn unchanged(&self) -> io::Result<bool> {
        Ok(true)
    }
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

    /// Bytes that can be read again at any offset and do not change: an [`Object`] of a closure. An
    /// end before `length` fails the transfer.
    pub fn read_at(
        read: impl Fn(&mut [u8], u64) -> io::Result<usize> + Send + 'static,
        length: u64,
    ) -> Self {
        Self::object(ReadAt { read, length })
    }

    /// An object that says before its last block goes out whether it is still what was opened, like
    /// a [`file`](Self::file). If it is not, the transfer fails.
    pub fn object(object: impl Object + 'static) -> Self {
        Self(Kind::Object(Box::new(object)))
    }

    /// A stream that is read once, in order. With a `length`, that is what `tsize` announces, and a
    /// stream of another length fails the transfer. The blocks of one window are kept for
    /// resending, so windows are smaller than for other sources.
    pub fn reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        Self(Kind::Reader(Box::new(reader), length))
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Kind::File(..) => "file",
            Kind::Bytes(_) => "bytes",
            Kind::Object(_) => "object",
            Kind::Reader(..) => "reader",
        };
        write!(f, "Source({kind})")
    }
}
