//! The octets of a transfer: from where they are to the socket, without a copy where the kernel can
//! fetch them itself.
//!
//! Invariant: the same block always goes out with the same octets, and the last block of a file
//! only after the file was found to be what was opened.

use super::netascii::{self, Netascii};
use crate::error::plain;
use crate::limits::{
    BUFFERED_OCTETS, BUFFERED_SHARE, BURST_OCTETS, BURST_SEGMENTS, DATA_HEADER, IN_FLIGHT_OCTETS,
    PROBED_OCTETS, RECEIVE_OCTETS,
};
use crate::proto::{Agreed, Rollover};
use crate::store::mappings::{Mappings, OpenFile};
use crate::store::{Kind, Object, Source};
use crate::sys;
use crate::sys::fs::Status;
use crate::sys::udp::{Block, Payload, TransferSocket};
use crate::wire::{self, Mode};
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Where the octets of one transfer come from.
pub(crate) enum Body {
    /// A file, mapped or read.
    File(Arc<OpenFile>),
    /// Memory.
    Bytes(Arc<[u8]>),
    /// An object that is read at any offset, and its length when it was opened.
    Object(Box<dyn Object>, u64),
    /// A stream, of which a window is kept.
    Stream(Stream),
}

/// The memory that all transfers together may keep for resending.
pub(crate) struct Buffers {
    most: u64,
    held: AtomicU64,
}

impl Buffers {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self {
            most,
            held: AtomicU64::new(0),
        })
    }

    /// What one more transfer may have.
    fn share(&self) -> u64 {
        let left = self.most.saturating_sub(self.held.load(Ordering::Relaxed));
        left / BUFFERED_SHARE
    }
}

/// A part of the [`Buffers`], given back when it is dropped.
struct Reservation {
    buffers: Arc<Buffers>,
    octets: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.buffers.held.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

/// Memory that a worker lends to the transfer it runs: for blocks that must be read before they are
/// sent, and for those that are received.
pub(crate) struct Scratch(pub(super) Box<[u8]>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(vec![0; RECEIVE_OCTETS].into())
    }
}

/// Why blocks could not be sent.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The file is not what was opened.
    Changed,
    /// The source failed.
    Read(String),
    /// The socket failed.
    Network(io::Error),
}

/// How blocks are cut and numbered.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    pub(crate) blksize: u16,
    pub(crate) rollover: Rollover,
}

impl Format {
    fn header(self, block: u64) -> [u8; DATA_HEADER] {
        wire::data_header(self.rollover.to_wire(block))
    }

    fn offset(self, block: u64) -> u64 {
        (block - 1) * u64::from(self.blksize)
    }

    /// Blocks that leave in one system call at best.
    pub(crate) fn burst(self) -> u64 {
        (BURST_OCTETS / (DATA_HEADER + usize::from(self.blksize))).clamp(1, BURST_SEGMENTS) as u64
    }

    /// The last block of a file of this length; a multiple of the block size ends with an empty one
    /// (RFC 1350 §6).
    pub(crate) fn last(self, length: u64) -> u64 {
        length / u64::from(self.blksize) + 1
    }

    fn blocks(
        self,
        octets: &[u8],
        numbers: Range<u64>,
    ) -> impl ExactSizeIterator<Item = Block<'_>> + Clone {
        let size = usize::from(self.blksize);
        Count(numbers).map(move |(block, index)| {
            let start = (index * size).min(octets.len());
            let end = (start + size).min(octets.len());
            Block {
                header: self.header(block),
                payload: Payload::Bytes(&octets[start..end]),
            }
        })
    }
}

/// Block numbers with their place in the burst. `Range<u64>` is not an `ExactSizeIterator`.
#[derive(Clone)]
struct Count(Range<u64>);

impl Count {
    fn map<'a, F>(self, mut make: F) -> impl ExactSizeIterator<Item = Block<'a>> + Clone
    where
        F: FnMut((u64, usize)) -> Block<'a> + Clone,
    {
        let first = self.0.start;
        (0..(self.0.end - first) as usize).map(move |index| make((first + index as u64, index)))
    }
}

impl Body {
    /// Makes a body of what the store gave.
    pub(crate) fn new(
        source: Source,
        mode: Mode,
        mappings: &Mappings,
        now: Instant,
    ) -> Result<Self, Trouble> {
        let body = match source.0 {
            Kind::File(file, status) => match probe(&file, status).map_err(read_trouble)? {
                (status, None) => {
                    let file = mappings.open(file, Some(status.identity), now);
                    Self::File(file.map_err(read_trouble)?)
                }
                (_, Some(first)) => {
                    let offset = first.len() as u64;
                    let rest = Unsized { file, offset };
                    let reader = io::Cursor::new(first).chain(rest);
                    Self::Stream(Stream::new(Box::new(reader), None))
                }
            },
            Kind::Bytes(bytes) => Self::Bytes(bytes),
            Kind::Object(object) => {
                let length = object.len();
                Self::Object(object, length)
            }
            Kind::Reader(reader, length) => Self::Stream(Stream::new(reader, length)),
        };
        Ok(match mode {
            Mode::Octet => body,
            Mode::Netascii => Self::Stream(body.translated()),
        })
    }

    /// From the beginning, where the peer has acknowledged nothing: then all that a stream has
    /// given is still kept.
    pub(crate) fn rewound(self) -> Self {
        match self {
            Self::Stream(stream) => Self::Stream(stream.rewound()),
            anywhere => anywhere,
        }
    }

    fn translated(self) -> Stream {
        let reader: Box<dyn Read + Send> = match self {
            Self::File(file) => {
                let length = file.identity.size;
                Box::new(Netascii::new(Forward::new(file, length)))
            }
            Self::Bytes(bytes) => Box::new(Netascii::new(io::Cursor::new(bytes))),
            Self::Object(object, length) => Box::new(Netascii::new(Forward::new(object, length))),
            Self::Stream(Stream {
                reader,
                announced: None,
                ..
            }) => Box::new(Netascii::new(reader)),
            // The announced length is that of the stream before its translation: check it there.
            Self::Stream(stream) => Box::new(Netascii::new(stream.checked())),
        };
        Stream {
            translates: true,
            ..Stream::new(reader, None)
        }
    }

    /// Octets on the wire, where they are known before they are sent.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::File(file) => Some(file.identity.size),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Object(_, length) => Some(*length),
            Self::Stream(stream) => stream.announced,
        }
    }

    /// Whether the file was mapped already; asked once.
    pub(crate) fn is_shared(&self) -> Option<bool> {
        match self {
            Self::File(file) => file.is_shared(),
            _ => None,
        }
    }

    /// Octets that may be kept of it for resending; without bound where nothing has to be kept.
    pub(crate) fn share(&self, buffers: &Buffers) -> u64 {
        match self {
            Self::Stream(_) => buffers.share(),
            _ => u64::MAX,
        }
    }

    /// Takes what was agreed out of the common memory, for as long as this body lives.
    pub(crate) fn reserve(&mut self, buffers: &Arc<Buffers>, agreed: &Agreed) {
        if let Self::Stream(stream) = self {
            let octets = stream.held(agreed);
            buffers.held.fetch_add(octets, Ordering::Relaxed);
            stream.reserved = Some(Reservation {
                buffers: Arc::clone(buffers),
                octets,
            });
        }
    }

    /// The last block, where it is known: of a stream, once it was read.
    pub(crate) fn last(&self, format: Format) -> Option<u64> {
        match self {
            Self::Stream(stream) => stream.last,
            _ => self.length().map(|length| format.last(length)),
        }
    }

    /// Octets that may be in flight: what must be kept for resending is kept small.
    pub(crate) fn in_flight(&self) -> u64 {
        match self {
            Self::Stream(_) => BUFFERED_OCTETS,
            _ => IN_FLIGHT_OCTETS,
        }
    }

    /// Sets the window that a stream keeps. Called once, before the first send.
    pub(crate) fn set_format(&mut self, format: Format, windowsize: u16) {
        if let Self::Stream(stream) = self {
            stream.blksize = format.blksize.into();
            stream.window = windowsize.into();
        }
    }

    /// Octets of the file in the blocks up to `block`.
    pub(crate) fn octets_to(&self, block: u64, format: Format) -> u64 {
        let octets = block * u64::from(format.blksize);
        match self {
            Self::Stream(stream) => octets.min(stream.total),
            _ => octets.min(self.length().unwrap_or(octets)),
        }
    }

    /// Sends blocks, at most [`Format::burst`] of them, and returns one past the last that left:
    /// fewer leave when the socket's buffer is full, or when the end of a stream is found, which
    /// [`last`](Self::last) knows from then on, also where the send failed.
    pub(crate) fn send(
        &mut self,
        socket: &mut TransferSocket,
        blocks: Range<u64>,
        format: Format,
        scratch: &mut Scratch,
    ) -> Result<u64, Trouble> {
        let Range {
            start: first,
            mut end,
        } = blocks;
        debug_assert!(first < end && end - first <= format.burst());
        let left = match self {
            Self::File(file) => {
                // The kernel reads a mapping while it sends: a check before would race with a
                // writer.
                match &file.mapping {
                    Some(mapping) if end <= format.last(file.identity.size) => {
                        let blocks = Count(first..end).map(|(block, _)| {
                            let start = format.offset(block) as usize;
                            let stop = start + usize::from(format.blksize);
                            Block {
                                header: format.header(block),
                                payload: Payload::Mapped(mapping.slice(start..stop)),
                            }
                        });
                        socket
                            .send_blocks(blocks)
                            .map_err(|error| send_trouble(error, file))
                    }
                    _ => {
                        let length = file.identity.size;
                        send_object(&**file, length, socket, first..end, format, scratch)
                    }
                }
            }
            Self::Bytes(bytes) => {
                let octets = &bytes[format.offset(first) as usize..];
                socket
                    .send_blocks(format.blocks(octets, first..end))
                    .map_err(Trouble::Network)
            }
            Self::Object(object, length) => {
                send_object(&**object, *length, socket, first..end, format, scratch)
            }
            Self::Stream(stream) => {
                let last = stream.read_to(end - 1)?;
                end = last.map_or(end, |last| end.min(last + 1));
                let stream = &*stream;
                let blocks = Count(first..end).map(|(block, _)| Block {
                    header: format.header(block),
                    payload: Payload::Bytes(stream.block(block)),
                });
                socket.send_blocks(blocks).map_err(Trouble::Network)
            }
        }?;
        Ok(first + left as u64)
    }
}

/// Finds out whether a file has as many bytes as the system says. Files of procfs say 0, those of
/// sysfs 4096, and those of FUSE what they like; none of them has blocks on a disk. Returns the
/// status, anew if the file has just changed; and where the size is wrong, the first bytes.
fn probe(file: &File, status: Option<Status>) -> io::Result<(Status, Option<Vec<u8>>)> {
    let status = match status {
        Some(status) => status,
        None => Status::of(file)?,
    };
    let size = status.identity.size;
    if size > 0 && status.blocks > 0 {
        return Ok((status, None));
    }
    let mut first = vec![0; PROBED_OCTETS];
    // The last byte, and what is behind it.
    let (wanted, offset) = match size {
        0 => (0, 0),
        _ => (1, size - 1),
    };
    let room = if size == 0 { PROBED_OCTETS } else { 2 };
    let length = loop {
        match file.read_at(&mut first[..room], offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if length == wanted {
        return Ok((status, None));
    }
    let now = Status::of(file)?;
    if now.identity != status.identity {
        return Ok((now, None));
    }
    first.truncate(if size == 0 { length } else { 0 });
    Ok((status, Some(first)))
}

/// Reads blocks and sends them; returns how many left. An object whose last block is among them is
/// checked after the read, so that the bytes that were read are the bytes that were opened.
fn send_object(
    object: &(impl Object + ?Sized),
    length: u64,
    socket: &mut TransferSocket,
    blocks: Range<u64>,
    format: Format,
    scratch: &mut Scratch,
) -> Result<usize, Trouble> {
    let offset = format.offset(blocks.start);
    let wanted = (blocks.end - blocks.start) * u64::from(format.blksize);
    let wanted = wanted.min(length - offset) as usize;
    let octets = &mut scratch.0[..wanted];
    let mut filled = 0;
    while filled < wanted {
        match object.read_at(&mut octets[filled..], offset + filled as u64) {
            Ok(0) => return Err(Trouble::Changed),
            Ok(more) => filled += more.min(wanted - filled),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_trouble(error)),
        }
    }
    if blocks.end > format.last(length) && !object.unchanged().map_err(read_trouble)? {
        return Err(Trouble::Changed);
    }
    socket
        .send_blocks(format.blocks(octets, blocks))
        .map_err(Trouble::Network)
}

/// The error of a source, in words; a file that ended early has changed.
fn read_trouble(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Trouble::Changed,
        _ => Trouble::Read(plain(&error)),
    }
}

fn send_trouble(error: io::Error, file: &OpenFile) -> Trouble {
    if !sys::is_bad_address(&error) {
        return Trouble::Network(error);
    }
    match file.unchanged() {
        Ok(true) => Trouble::Read("input/output error".into()),
        Ok(false) => Trouble::Changed,
        Err(error) => read_trouble(error),
    }
}

/// A source that is read once, in order. The blocks of one window are kept, each in its slot.
pub(crate) struct Stream {
    reader: Box<dyn Read + Send>,
    /// Octets that the store promised.
    announced: Option<u64>,
    blksize: usize,
    window: usize,
    /// Block `n` lies in slot `(n - 1) % window`. Grows to a window, no further.
    slots: Vec<u8>,
    /// Blocks read so far.
    read: u64,
    /// Octets read so far.
    total: u64,
    last: Option<u64>,
    /// The reader translates, and has a buffer for it.
    translates: bool,
    /// Its part of the memory for resending.
    reserved: Option<Reservation>,
}

impl Stream {
    fn new(reader: Box<dyn Read + Send>, announced: Option<u64>) -> Self {
        Self {
            reader,
            announced,
            blksize: 512,
            window: 1,
            slots: Vec::new(),
            read: 0,
            total: 0,
            last: None,
            translates: false,
            reserved: None,
        }
    }

    /// Bytes of memory that it holds at most: a window, and what its translation has read ahead.
    fn held(&self, agreed: &Agreed) -> u64 {
        let window = u64::from(agreed.blksize) * u64::from(agreed.windowsize);
        match self.translates {
            true => window + netascii::held(agreed.blksize.into()) as u64,
            false => window,
        }
    }

    fn rewound(mut self) -> Self {
        debug_assert!(self.read <= self.window as u64);
        self.slots.truncate(self.total as usize);
        let reader = io::Cursor::new(self.slots).chain(self.reader);
        Self {
            translates: self.translates,
            ..Self::new(Box::new(reader), self.announced)
        }
    }

    fn checked(self) -> impl Read + Send {
        Checked {
            reader: self.reader,
            left: self.announced.unwrap_or(0),
        }
    }

    fn slot(&self, block: u64) -> usize {
        ((block - 1) % self.window as u64) as usize * self.blksize
    }

    /// Reads on until `block` is there, or the end; returns the last block once the end was found.
    fn read_to(&mut self, block: u64) -> Result<Option<u64>, Trouble> {
        while self.read < block && self.last.is_none() {
            let start = self.slot(self.read + 1);
            let end = start + self.blksize;
            if self.slots.len() < end {
                // One block for a peer that may not have answered yet, then the whole window, and
                // never more.
                let most = if self.read == 0 { 1 } else { self.window };
                let room = (self.blksize * most).max(end);
                self.slots.reserve_exact(room - self.slots.len());
                self.slots.resize(end, 0);
            }
            let mut filled = start;
            while filled < end {
                match self.reader.read(&mut self.slots[filled..end]) {
                    Ok(0) => break,
                    Ok(more) => filled += more.min(end - filled),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(read_trouble(error)),
                }
            }
            self.read += 1;
            self.total += (filled - start) as u64;
            if filled < end {
                self.last = Some(self.read);
            }
        }
        match self.announced {
            Some(announced)
                if self.total > announced || (self.last.is_some() && self.total != announced) =>
            {
                Err(Trouble::Changed)
            }
            _ => Ok(self.last),
        }
    }

    fn block(&self, block: u64) -> &[u8] {
        debug_assert!(
            block <= self.read && self.read - block < self.window as u64,
            "block {block} of {}",
            self.read
        );
        let start = self.slot(block);
        let length = if self.last == Some(block) {
            self.total % self.blksize as u64
        } else {
            self.blksize as u64
        };
        &self.slots[start..start + length as usize]
    }
}

/// Reads a file to its end, wherever that is.
struct Unsized {
    file: File,
    offset: u64,
}

impl Read for Unsized {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(out, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Reads an object from its beginning to its end, once.
struct Forward<P> {
    object: P,
    length: u64,
    offset: u64,
}

impl<P> Forward<P> {
    fn new(object: P, length: u64) -> Self {
        Self {
            object,
            length,
            offset: 0,
        }
    }
}

impl<P> Read for Forward<P>
where
    P: Deref,
    P::Target: Object,
{
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = (self.length - self.offset).min(out.len() as u64) as usize;
        if most == 0 {
            // The last block goes out only when the bytes that were read are those that were
            // opened.
            return if out.is_empty() || self.object.unchanged()? {
                Ok(0)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        match self.object.read_at(&mut out[..most], self.offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            more => {
                self.offset += more.min(most) as u64;
                Ok(more.min(most))
            }
        }
    }
}

/// A reader that must have exactly so many octets.
struct Checked {
    reader: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Checked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(out)? as u64;
        if length > self.left || (length == 0 && self.left > 0 && !out.is_empty()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length;
        Ok(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(mode: Mode, agreed: &Agreed, buffers: &Arc<Buffers>) -> Body {
        let source = Source::reader(io::repeat(b'\n').take(1 << 20), None);
        let mappings = Mappings::new(0, std::time::Duration::ZERO);
        let body = Body::new(source, mode, &mappings, crate::transfer::now());
        let mut body = body.expect("a body");
        body.reserve(buffers, agreed);
        let format = Format {
            blksize: agreed.blksize,
            rollover: agreed.rollover,
        };
        body.set_format(format, agreed.windowsize);
        body
    }

    /// What a transfer may keep is taken out of the common memory, the buffer of a translation
    /// included, and given back.
    #[test]
    fn all_that_a_stream_holds_is_counted() {
        for (blksize, windowsize, window, buffer) in [
            (512, 1, 512, 512),
            (1428, 64, 1428 * 64, 1428),
            (65464, 2, 65464 * 2, 8192),
        ] {
            let agreed = Agreed {
                blksize,
                windowsize,
                ..Agreed::default()
            };
            let buffers = Buffers::new(1 << 20);
            for (mode, held) in [(Mode::Octet, window), (Mode::Netascii, window + buffer)] {
                let body = stream(mode, &agreed, &buffers);
                assert_eq!(buffers.held.load(Ordering::Relaxed), held, "{mode:?}");
                let Body::Stream(mut stream) = body else {
                    panic!("no stream");
                };
                stream.read_to(1).expect("a block");
                assert_eq!(stream.slots.capacity(), usize::from(blksize), "an opening");
                let blocks = 3 * u64::from(windowsize);
                stream.read_to(blocks).expect("more");
                assert!(stream.slots.capacity() as u64 <= window, "{mode:?}");
                drop(stream);
                assert_eq!(buffers.held.load(Ordering::Relaxed), 0);
            }
        }
    }
}
