//! What a transfer sends and receives through. Nothing above it knows of a socket or a descriptor.
//!
//! There is one kind of link: a socket of its own, connected to the peer. Another one, such as the
//! listening socket that all transfers share, is another variant behind the same methods. They are
//! called directly: a trait object would cost each block a call that is not inlined.

pub(crate) use crate::sys::udp::{Block, Payload, Readable, SocketOptions, Taken, Wait};

use crate::sys::udp::{Readiness, Reply, TransferSocket};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The way to one peer; or, at a client, to all that may answer, until the first has.
pub(crate) struct Link {
    own: TransferSocket,
}

impl Link {
    /// A link from `local`, where port 0 is any port, to `peer`.
    ///
    /// # Errors
    /// `AddrInUse` when the port is taken, or all that may be chosen.
    pub(crate) fn open(
        local: SocketAddr,
        peer: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        let own = TransferSocket::open(local, peer, options)?;
        Ok(Self { own })
    }

    /// A link that sends to `server`, and hears all hosts until [`connect_to`](Self::connect_to).
    ///
    /// # Errors
    /// As those of [`open`](Self::open).
    pub(crate) fn asking(
        local: SocketAddr,
        server: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        let own = TransferSocket::asking(local, server, options)?;
        Ok(Self { own })
    }

    /// From now on this is the peer, and no other host is heard.
    pub(crate) fn connect_to(&mut self, peer: SocketAddr) -> io::Result<()> {
        self.own.connect_to(peer)
    }

    // ---- the path of a block ----------------------------------------------------------------

    /// Sends one packet; false where the send buffer is full.
    ///
    /// # Errors
    /// `ConnectionRefused` when ICMP messages kept it from leaving twice in a row.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<bool> {
        self.own.send(datagram)
    }

    /// Sends each block as one datagram, in as few system calls as the system allows. Returns how
    /// many left: fewer where the send buffer is full, or where the next one met an error, which
    /// the next call reports. All payloads but the last are of one length.
    ///
    /// # Errors
    /// Only when no block left. `EFAULT` when a mapped file has become too short.
    pub(crate) fn send_blocks<'a>(
        &mut self,
        blocks: impl ExactSizeIterator<Item = Block<'a>> + Clone,
    ) -> io::Result<usize> {
        self.own.send_blocks(blocks)
    }

    /// Takes a datagram of the peer; `None` when none came in time. Returns its length, which is
    /// larger than the buffer where only its beginning fitted.
    ///
    /// # Errors
    /// `ConnectionRefused` is a hint of ICMP, which any host can forge.
    pub(crate) fn recv(&self, buffer: &mut [u8], wait: Wait) -> io::Result<Option<usize>> {
        self.own.recv(buffer, wait)
    }

    /// Takes one datagram, or as many as the system has together after
    /// [`expect_windows`](Self::expect_windows). Otherwise as [`recv`](Self::recv).
    pub(crate) fn recv_blocks(&self, buffer: &mut [u8], wait: Wait) -> io::Result<Option<Taken>> {
        self.own.recv_blocks(buffer, wait)
    }

    /// True while datagrams that are not the peer's may wait to be received.
    pub(crate) fn has_strangers(&self) -> bool {
        self.own.has_strangers()
    }

    // ---- waiting ----------------------------------------------------------------------------

    /// Waits until there is something to receive, or room to send, whichever is asked for.
    pub(crate) fn wait(
        &self,
        readable: bool,
        writable: bool,
        timeout: Duration,
    ) -> io::Result<Readiness> {
        self.own.wait(readable, writable, timeout)
    }

    /// What a poller watches to learn that there is something to receive.
    pub(crate) fn readable(&self) -> Readable<'_> {
        self.own.readable()
    }

    // ---- other hosts ------------------------------------------------------------------------

    /// From now on other hosts that send something are told this.
    pub(crate) fn tell_strangers(&mut self, reply: Reply) {
        self.own.tell_strangers(reply);
    }

    /// Tells another host that this is not its peer, where there is an answer to what it has sent.
    pub(crate) fn turn_away(&self, stranger: SocketAddr, datagram: &[u8]) {
        self.own.turn_away(stranger, datagram);
    }

    // ---- addresses and room -----------------------------------------------------------------

    /// Its own address; the port is this end's TID.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.own.local_addr()
    }

    /// The peer, or the server that is asked.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.own.peer()
    }

    /// The largest payload that leaves in one piece by the route to the peer, as far as the system
    /// knows.
    pub(crate) fn room(&self) -> io::Result<usize> {
        self.own.room()
    }

    /// Prepares for windows of blocks: room for one, and many blocks in one receive.
    pub(crate) fn expect_windows(&self, blksize: u16, windowsize: u16) {
        self.own.expect_windows(blksize, windowsize);
    }

    /// Asks for room for a window of blocks. Returns how many blocks are kept while none is
    /// received, 1 at least.
    pub(crate) fn make_room(&self, blksize: u16, windowsize: u16) -> u16 {
        self.own.make_room(blksize, windowsize)
    }

    /// Lets every send from now on fail, with `EPIPE`.
    #[cfg(test)]
    pub(crate) fn stop_sending(&self) {
        self.own.stop_sending();
    }
}
