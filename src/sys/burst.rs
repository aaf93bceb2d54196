//! Many blocks, few system calls: the one place where `sendmsg` and `sendmmsg` are called by hand.
//!
//! nix takes `IoSlice`, that is a `&[u8]`, which must not exist over a mapped file that others may
//! change; and it allocates per call. Here the kernel gets raw pointers to what lies on the stack,
//! in the caller's buffers, or in a mapping. Invariant: a call says how many blocks left, counted
//! from the first; after an error none of them did.
#![allow(unsafe_code)]

use super::mapping::MappedSlice;
use crate::limits::{BURST_OCTETS, BURST_SEGMENTS, DATA_HEADER};
use nix::errno::Errno;
use nix::libc;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// One DATA packet, not yet in one piece.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    /// Opcode and block number.
    pub(crate) header: [u8; DATA_HEADER],
    /// The octets of the file.
    pub(crate) payload: Payload<'a>,
}

/// Where the octets of a block are.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// In memory of our own.
    Bytes(&'a [u8]),
    /// In a mapped file.
    Mapped(MappedSlice<'a>),
}

impl Payload<'_> {
    /// Octets in the block, without its header.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Mapped(slice) => slice.len(),
        }
    }
}

/// How several blocks leave, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    /// As one datagram that the kernel or the device cuts into segments (`UDP_SEGMENT`).
    Segments,
    /// As a list of datagrams (`sendmmsg`).
    Batch,
    /// One by one.
    Single,
}

impl Offload {
    /// How many of `blocks`, of which the first has `payload` octets, go into the next call, and
    /// how.
    pub(super) fn plan(self, blocks: usize, payload: usize) -> (Offload, usize) {
        let most = match self {
            Self::Segments => BURST_SEGMENTS.min(BURST_OCTETS / (DATA_HEADER + payload)),
            Self::Batch => BURST_SEGMENTS,
            Self::Single => 1,
        };
        match most.min(blocks) {
            // Alone, a block needs no help; and one of which two don't fit into a burst always is
            // alone.
            0 | 1 => (Self::Single, 1),
            count => (self, count),
        }
    }

    /// What to try instead after this error; `None` when it has nothing to do with the way of
    /// sending.
    pub(super) fn instead(self, error: Errno) -> Option<Offload> {
        match (self, error) {
            // EMSGSIZE and EINVAL: a segment is larger than the route's MTU, or the kernel knows no
            // segments. EIO: the device cannot compute their checksums, or IPsec is in the way.
            (
                Self::Segments,
                Errno::EMSGSIZE
                | Errno::EINVAL
                | Errno::EIO
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP,
            ) => Some(Self::Batch),
            // Sandboxes know `sendmsg` but not always its younger brother.
            (Self::Batch, Errno::ENOSYS | Errno::EINVAL) => Some(Self::Single),
            _ => None,
        }
    }
}

/// Sends up to [`BURST_SEGMENTS`] blocks to the socket's peer without waiting, and says how many
/// left.
pub(super) fn send<'a>(
    socket: BorrowedFd<'_>,
    how: Offload,
    blocks: impl ExactSizeIterator<Item = Block<'a>>,
) -> Result<usize, Errno> {
    let mut headers = [MaybeUninit::uninit(); BURST_SEGMENTS];
    let mut parts = [const { MaybeUninit::uninit() }; 2 * BURST_SEGMENTS];
    let count = blocks.len();
    let parts = gather(blocks, &mut headers, &mut parts);
    match how {
        Offload::Segments => send_segments(socket, parts),
        Offload::Batch => return send_batch(socket, parts),
        Offload::Single => send_message(socket, &message(parts)),
    }
    .map(|()| count)
}

/// Writes down where the kernel finds each block: a header and a payload per block. The result
/// borrows both.
fn gather<'b, 'a: 'b>(
    blocks: impl ExactSizeIterator<Item = Block<'a>>,
    headers: &'b mut [MaybeUninit<[u8; DATA_HEADER]>],
    parts: &'b mut [MaybeUninit<libc::iovec>],
) -> &'b mut [libc::iovec] {
    let mut count = 0;
    for ((block, header), pair) in blocks.zip(headers).zip(parts.chunks_exact_mut(2)) {
        let start = match block.payload {
            Payload::Bytes(bytes) => bytes.as_ptr(),
            Payload::Mapped(slice) => slice.start,
        };
        let header = header.write(block.header);
        pair[0].write(libc::iovec {
            iov_base: header.as_mut_ptr().cast(),
            iov_len: DATA_HEADER,
        });
        pair[1].write(libc::iovec {
            iov_base: start.cast_mut().cast(),
            iov_len: block.payload.len(),
        });
        count += 1;
    }
    // SAFETY: the loop wrote both halves of the first `count` pairs.
    unsafe { parts[..2 * count].assume_init_mut() }
}

/// A message to the connected peer, without control data.
fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a msghdr is integers and pointers, for which zero is a value: no name, no control
    // data. (It can't be written as a literal, because some C libraries hide padding in it.)
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message
}

/// The control message that says how long each segment is, laid out as `CMSG_SPACE` would.
#[repr(C)]
struct SegmentSize {
    head: libc::cmsghdr,
    octets: u16,
}

// SAFETY: the two only compute numbers.
const SEGMENT_SPACE: usize = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as usize;
const SEGMENT_LENGTH: usize = unsafe { libc::CMSG_LEN(size_of::<u16>() as u32) } as usize;
const _: () = assert!(size_of::<SegmentSize>() == SEGMENT_SPACE);
const _: () = assert!(offset_of!(SegmentSize, octets) + size_of::<u16>() == SEGMENT_LENGTH);
// A segment is at most half of a burst, so its size fits.
const _: () = assert!(BURST_OCTETS <= u16::MAX as usize);

fn send_segments(socket: BorrowedFd<'_>, parts: &mut [libc::iovec]) -> Result<(), Errno> {
    // SAFETY: integers, for which zero is a value.
    let mut size: SegmentSize = unsafe { std::mem::zeroed() };
    size.head.cmsg_len = SEGMENT_LENGTH as _;
    size.head.cmsg_level = libc::SOL_UDP;
    size.head.cmsg_type = libc::UDP_SEGMENT;
    size.octets = (parts[0].iov_len + parts[1].iov_len) as u16;

    let mut message = message(parts);
    message.msg_control = (&raw mut size).cast();
    message.msg_controllen = size_of::<SegmentSize>() as _;
    send_message(socket, &message)
}

fn send_message(socket: BorrowedFd<'_>, message: &libc::msghdr) -> Result<(), Errno> {
    #[cfg(test)]
    super::calls::count(|calls| calls.sends += 1);
    // SAFETY: the message was made by this file: its parts point to headers, buffers or mappings
    // that the callers borrow until this returns, and its control data to a value of theirs. The
    // kernel only reads, and answers a page that is gone with EFAULT.
    let result = unsafe { libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_DONTWAIT) };
    // A datagram leaves as a whole or not at all, so the number of octets says nothing new.
    Errno::result(result).map(drop)
}

fn send_batch(socket: BorrowedFd<'_>, parts: &mut [libc::iovec]) -> Result<usize, Errno> {
    let mut messages = [const { MaybeUninit::uninit() }; BURST_SEGMENTS];
    let mut count = 0;
    for (slot, pair) in messages.iter_mut().zip(parts.chunks_exact_mut(2)) {
        slot.write(libc::mmsghdr {
            msg_hdr: message(pair),
            msg_len: 0,
        });
        count += 1;
    }
    #[cfg(test)]
    super::calls::count(|calls| calls.sends += 1);
    // SAFETY: the loop wrote the first `count` messages; what they point to lives as in
    // `send_message`.
    let result = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            count,
            libc::MSG_DONTWAIT as _,
        )
    };
    Errno::result(result).map(|sent| sent as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_fits_one_system_call() {
        use Offload::{Batch, Segments, Single};
        // As many as fit into one IPv4 datagram, or as the kernel cuts.
        assert_eq!(Segments.plan(1000, 1428), (Segments, 45));
        assert_eq!(Segments.plan(1000, 512), (Segments, 64));
        assert_eq!(Segments.plan(44, 1428), (Segments, 44));
        assert_eq!(Segments.plan(2, 32749), (Segments, 2));
        // Alone, or so large that it stays alone.
        assert_eq!(Segments.plan(1, 1428), (Single, 1));
        assert_eq!(Segments.plan(2, 32750), (Single, 1));
        assert_eq!(Segments.plan(9, 65464), (Single, 1));
        assert_eq!(Batch.plan(1000, 1428), (Batch, 64));
        assert_eq!(Batch.plan(9, 65464), (Batch, 9));
        assert_eq!(Batch.plan(1, 1428), (Single, 1));
        assert_eq!(Single.plan(1000, 1428), (Single, 1));
    }

    #[test]
    fn only_an_error_about_the_way_of_sending_changes_it() {
        use Offload::{Batch, Segments, Single};
        let about_segments = [
            Errno::EMSGSIZE,
            Errno::EINVAL,
            Errno::EIO,
            Errno::ENOPROTOOPT,
            Errno::EOPNOTSUPP,
        ];
        for error in about_segments {
            assert_eq!(Segments.instead(error), Some(Batch));
            assert_eq!(Single.instead(error), None);
        }
        for error in [Errno::ENOSYS, Errno::EINVAL] {
            assert_eq!(Batch.instead(error), Some(Single));
        }
        for error in [Errno::EFAULT, Errno::EAGAIN, Errno::ECONNREFUSED] {
            assert_eq!(Segments.instead(error), None);
            assert_eq!(Batch.instead(error), None);
        }
        assert_eq!(Batch.instead(Errno::EMSGSIZE), None);
    }
}
