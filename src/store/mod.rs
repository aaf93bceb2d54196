//! Where the octets come from and where they go: the [`Store`] that is asked for a name, the
//! [`Source`] that it answers an RRQ with, and the [`Sink`] that it answers a WRQ with.

mod case;
mod compose;
mod convert;
mod dir;
pub(crate) mod landing;
#[cfg(feature = "map")]
mod map;
pub(crate) mod mappings;
mod names;
mod prefix;
mod roots;
#[cfg(test)]
pub(crate) mod scratch;
mod storage;
mod tree;
mod uploads;

pub use compose::{StoreFn, store_fn};
pub use dir::{Dir, DirBuilder};
pub use landing::WriteMode;
#[cfg(feature = "map")]
pub use map::{
    MapError, MapFile, MapOutcome, MapRequest, MapRules, MapStep, MapSyntaxError, Mapped,
};
pub use prefix::{Prefix, PrefixError, StripPrefix};
pub use roots::{PerClientRoot, RootTemplate, RootTemplateError};
pub use storage::{Entry, EntryKind, Storage};

use crate::error::Refusal;
use crate::sys::fs::Status;
use crate::text::Name;
use crate::wire::{Direction, Mode, Options};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

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
    /// The options asked for, with those that the server does not know ([`Options::unknown`]).
    pub options: &'a Options,
    pub(crate) waker: &'a Waker,
}

static NO_OPTIONS: Options = Options::NONE;

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
            options: &NO_OPTIONS,
            waker: Waker::noop(),
        }
    }

    /// The same request for another name. A store that wraps a store passes it on.
    #[must_use]
    pub fn with_name<'b>(&self, name: &'b (impl AsRef<[u8]> + ?Sized)) -> Request<'b>
    where
        'a: 'b,
    {
        Request {
            name: name.as_ref(),
            ..*self
        }
    }

    /// Wakes the transfer that comes of this request, after its source has said
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), or its [`Sink`] `Pending`. They keep a clone. It
    /// may be called from any thread, at any time, and any number of times; a call that is not
    /// needed costs a turn of the transfer and nothing else. The waker of a request that no server
    /// has made does nothing.
    pub fn waker(&self) -> &'a Waker {
        self.waker
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
    /// [`ServerHandle::reload`](crate::ServerHandle::reload).
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

    /// The name that the store has for the file, for [`Event::Started`](crate::Event::Started).
    /// `None` leaves it at the name that was asked for; a sink that wraps a sink passes it on.
    fn name(&self) -> Option<&[u8]> {
        None
    }

    /// Whether the sink takes bytes. The server asks before it reads from the peer. `Pending` parks
    /// the transfer without a thread, and what the peer sends lies unread, until [the waker of its
    /// request](Request::waker) is called. The sink must be ready again within the server's
    /// `store_deadline`. Otherwise the transfer fails, and the peer gets an ERROR.
    ///
    /// A [`Client`](crate::Client) does not ask: it calls [`append`](Self::append), which may
    /// block.
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR and ends the transfer.
    fn poll_ready(&mut self) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    /// Whether the whole file is stored, so that [`commit`](Self::commit) need not wait for it. The
    /// server asks when all bytes were appended, and waits as for [`poll_ready`](Self::poll_ready).
    ///
    /// # Errors
    /// The [`Refusal`] is sent to the peer as an ERROR instead of the last ACK.
    fn poll_finish(&mut self) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

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
    /// An error fails the transfer. `Interrupted` is tried again. `WouldBlock` says that the bytes
    /// are not there yet; see [`Source`].
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The length in bytes. Asked once, when the request is granted.
    fn len(&self) -> u64;

    /// Whether [`read_at`](Self::read_at) still gives the bytes that were opened. The server asks
    /// after it has read the last block and before it sends it, so that a client never completes a
    /// file that is made of two versions. True where the bytes cannot change.
    ///
    /// # Errors
    /// An error fails the transfer. `WouldBlock` says that the answer is not known yet.
    fn unchanged(&self) -> io::Result<bool>;
}

/// What is sent for a granted RRQ.
///
/// # Sources that are not there yet
/// A source of a slow backend costs no thread while it waits. The transfer is parked, other
/// transfers are served, and a [`Waker`] says when to go on:
/// - a [`reader`](Self::reader) or an [`object`](Self::object) returns an error of kind
///   [`WouldBlock`](io::ErrorKind::WouldBlock) where it has no bytes yet, and has
///   [the waker of its request](Request::waker) called when it has some;
/// - a [`future`](Self::future) stands for the whole answer of a store, where the backend has to
///   be asked whether it has the file at all.
///
/// The peer is sent nothing meanwhile, and what it repeats is no loss. Each block, and the answer
/// of a future, must be there within the server's `store_deadline`. Otherwise the transfer fails,
/// and the peer gets an ERROR.
///
/// A [`Client`](crate::Client) waits for a future in the caller's thread. After a `WouldBlock` it
/// asks again ten times a second.
pub struct Source(pub(crate) Kind, pub(crate) Option<Name>);

/// The answer of a store that is not known yet.
pub(crate) type Later = Pin<Box<dyn Future<Output = Result<Source, Refusal>> + Send>>;

pub(crate) enum Kind {
    /// With its status, where the store has asked for that already.
    File(File, Option<Status>),
    Bytes(Arc<[u8]>),
    Object(Box<dyn Object>),
    Reader(Box<dyn Read + Send>, Option<u64>),
    Later(Later),
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
        Self(Kind::File(file, None), None)
    }

    /// Octets in memory.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Kind::Bytes(bytes.into()), None)
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
        Self(Kind::Object(Box::new(object)), None)
    }

    /// A stream that is read once, in order. With a `length`, that is what `tsize` announces, and a
    /// stream of another length fails the transfer. The blocks of one window are kept for
    /// resending, so windows are smaller than for other sources.
    pub fn reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        Self(Kind::Reader(Box::new(reader), length), None)
    }

    /// The same source with the name of what it is, for [`Event::Started`](crate::Event::Started).
    /// A name that was given before stays: the innermost store knows best. A [`Dir`] and the store
    /// of a closure give the name that they were asked for, so a layer that passes on another name
    /// need not.
    #[must_use]
    pub fn with_name(mut self, name: impl AsRef<[u8]>) -> Self {
        self.1.get_or_insert_with(|| Name::new(name.as_ref()));
        self
    }

    /// A source that is not known yet, or a refusal: what the future returns. The server polls it
    /// on a worker thread when the store has returned it, and again whenever it is woken. A poll
    /// must not block. The future is dropped when the client is answered, or has given up.
    ///
    /// Any future will do that another thread or a runtime completes. See
    /// `examples/slow_backend.rs` for one that needs no runtime.
    pub fn future(source: impl Future<Output = Result<Source, Refusal>> + Send + 'static) -> Self {
        Self(Kind::Later(Box::pin(source)), None)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Kind::File(..) => "file",
            Kind::Bytes(_) => "bytes",
            Kind::Object(_) => "object",
            Kind::Reader(..) => "reader",
            Kind::Later(_) => "future",
        };
        write!(f, "Source({kind})")
    }
}
