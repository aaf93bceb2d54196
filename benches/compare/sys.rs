//! The few calls that neither `std` nor `nix` makes without copying or allocating: many blocks in
//! one `sendmsg`, many blocks in one `recvmsg`. The only module of the bench with `unsafe`; every
//! face is safe.
#![allow(unsafe_code)]

use memmap2::{MmapOptions, MmapRaw};
use nix::libc;
use std::fs::File;
use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use tftpool::unversioned::limits::{BURST_OCTETS, BURST_SEGMENTS, DATA_HEADER};
use tftpool::unversioned::wire;

/// Room for one control message that holds an `int`, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// A file in memory that only the kernel reads, so that a file cut short under us is an error and
/// no SIGBUS.
pub(crate) struct Mapping(MmapRaw);

impl Mapping {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        MmapOptions::new()
            .map_raw_read_only(&File::open(path)?)
            .map(Self)
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The last block: the first one that is not full, be it empty.
    pub(crate) fn last_block(&self, blksize: u16) -> u64 {
        self.len() / u64::from(blksize) + 1
    }

    /// Sends the blocks of `range` to the peer `socket` is connected to, as many per call as the
    /// kernel takes.
    pub(crate) fn send(
        &self,
        socket: &UdpSocket,
        blksize: u16,
        range: Range<u64>,
    ) -> io::Result<()> {
        let per_call =
            (BURST_OCTETS / (DATA_HEADER + usize::from(blksize))).clamp(1, BURST_SEGMENTS) as u64;
        let mut first = range.start;
        while first < range.end {
            let end = range.end.min(first + per_call);
            self.send_segments(socket, blksize, first..end)?;
            first = end;
        }
        Ok(())
    }

    fn send_segments(&self, socket: &UdpSocket, blksize: u16, range: Range<u64>) -> io::Result<()> {
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let mut headers = [[0u8; DATA_HEADER]; BURST_SEGMENTS];
        let mut parts = [empty; 2 * BURST_SEGMENTS];
        let count = (range.end - range.start) as usize;
        for (index, block) in range.enumerate() {
            let from = ((block - 1) * u64::from(blksize)).min(self.len());
            let to = (from + u64::from(blksize)).min(self.len());
            headers[index] = wire::data_header(block as u16);
            parts[2 * index] = libc::iovec {
                iov_base: headers[index].as_mut_ptr().cast(),
                iov_len: DATA_HEADER,
            };
            parts[2 * index + 1] = libc::iovec {
                iov_base: self.0.as_mut_ptr().wrapping_add(from as usize).cast(),
                iov_len: (to - from) as usize,
            };
        }
        let mut control = Control([0; 32]);
        // SAFETY: all-zero is a valid `msghdr`; its private padding on some targets forbids a
        // literal.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = 2 * count;
        if count > 1 {
            let segment = DATA_HEADER as u16 + blksize;
            message.msg_control = (&raw mut control).cast();
            // SAFETY: `control` is aligned and larger than CMSG_SPACE(2), so the first header and
            // its data lie in it.
            unsafe {
                message.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
                let header = libc::CMSG_FIRSTHDR(&message);
                (*header).cmsg_level = libc::SOL_UDP;
                (*header).cmsg_type = libc::UDP_SEGMENT;
                (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
                libc::CMSG_DATA(header)
                    .cast::<u16>()
                    .write_unaligned(segment);
            }
        }
        // SAFETY: every iovec points into `headers` or, clamped to its length, into the mapping;
        // both live through the call, and the kernel only reads them.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, 0) };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// What one call received: `length` octets, `segment` to a datagram (the last may be shorter).
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) segment: usize,
    pub(crate) from: SocketAddrV4,
}

/// Receives one datagram, or a run of equal ones from one sender where UDP_GRO is on.
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; 32]);
    // SAFETY: all-zero is a valid `sockaddr_in` and a valid `msghdr`.
    let (mut from, mut message): (libc::sockaddr_in, libc::msghdr) =
        unsafe { (zeroed(), zeroed()) };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as u32;
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: name, buffer and control are ours, exclusively borrowed, and their lengths are the
    // true ones.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, 0) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let length = length as usize;
    let mut segment = length;
    // SAFETY: the kernel has filled `control` and set its length; CMSG_FIRSTHDR is null where no
    // header fits, and a UDP_GRO message carries an `int`.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if !header.is_null()
            && (*header).cmsg_level == libc::SOL_UDP
            && (*header).cmsg_type == libc::UDP_GRO
        {
            segment = libc::CMSG_DATA(header)
                .cast::<libc::c_int>()
                .read_unaligned() as usize;
        }
    }
    let address = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
    Ok(Received {
        length,
        segment: segment.max(1),
        from: SocketAddrV4::new(address, u16::from_be(from.sin_port)),
    })
}

/// A UDP socket in one call: not bound, the first send picks its port.
pub(crate) fn udp_socket(nonblocking: bool) -> io::Result<UdpSocket> {
    let flags =
        libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    // SAFETY: no pointers; the descriptor is checked, fresh and owned by nobody else.
    unsafe {
        let descriptor = libc::socket(libc::AF_INET, flags, 0);
        if descriptor < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(UdpSocket::from_raw_fd(descriptor))
        }
    }
}

/// Asks the kernel to hand over runs of equal datagrams as one.
pub(crate) fn coalesce(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Makes the receive buffer this large; without the privilege to exceed `net.core.rmem_max`, as
/// large as that.
pub(crate) fn receive_buffer(socket: &UdpSocket, octets: usize) -> io::Result<()> {
    let octets = octets.min(512 << 20) as libc::c_int;
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, octets)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, octets))
}

fn set_option(socket: &UdpSocket, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option is an `int`, and so is what the pointer shows.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Lets the process that `command` starts end when the thread that starts it does, however that
/// comes about.
pub(crate) fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only this one system call is made; it allocates nothing and
    // takes no lock.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}
