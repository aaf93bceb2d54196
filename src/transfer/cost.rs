//! What a block costs in system calls, as a table that does not move by accident: a receive and a
//! send for each window, in lock step as well, and nothing else; no look at the clock of a socket,
//! no wait, no look at the file.
//!
//! Nothing is timed and nothing can come late: the peer answers from the same thread, just before
//! the transfer waits.

use super::{End, Ending, Origin, Scratch, Surroundings, Transfer, Turn, now};
use crate::event::TransferId;
use crate::proto::{Agreed, Policy, Sender};
use crate::store::Source;
use crate::store::mappings::Mappings;
use crate::sys::calls::{self, Calls};
use crate::sys::udp::{SocketOptions, TransferSocket, tests::file_of};
use crate::text::Name;
use crate::transfer::{Body, Format};
use crate::wire::{self, Direction, Mode, Options, Packet};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Windows in a transfer. A first large one is spread until the peer has shown that it can take it,
/// the second waits for the last gap of that, and the last one is checked against the file; those
/// between are the path of a block.
const WINDOWS: u64 = 13;
const SPREAD: u64 = 2;

/// A peer that acknowledges each window as soon as the transfer would wait for it.
struct Peer {
    socket: UdpSocket,
    window: u64,
    last: u64,
    /// Other transfers wait for the thread.
    others: bool,
    received: Cell<u64>,
    acked: Cell<u64>,
    /// The calls up to the end of the spread windows, and up to the end of the last but one.
    early: Cell<Option<Calls>>,
    late: Cell<Option<Calls>>,
}

impl Peer {
    fn take_all(&self) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let packet = wire::parse(&buffer[..length]).expect("a packet");
            let Packet::Data { block, .. } = packet else {
                panic!("unexpected {packet:?}");
            };
            assert_eq!(u64::from(block), self.received.get() + 1, "out of order");
            self.received.set(u64::from(block));
        }
    }

    /// Acknowledges a window that is complete.
    fn answer(&self) {
        self.take_all();
        let (received, acked) = (self.received.get(), self.acked.get());
        let window_is_full = received == acked + self.window || received == self.last;
        if received > acked && window_is_full {
            if received == self.window * SPREAD {
                self.early.set(Some(calls::so_far()));
            } else if received == self.window * (WINDOWS - 1) {
                self.late.set(Some(calls::so_far()));
            }
            self.acked.set(received);
            let ack = wire::ack(received as u16);
            self.socket.send(&ack).expect("an ACK leaves");
        }
    }
}

impl Surroundings for Peer {
    fn others_wait(&self) -> bool {
        if !self.others {
            self.answer();
        }
        self.others
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

/// What the windows between the spread ones and the last cost.
fn cost(blksize: u16, windowsize: u16, others: bool) -> Calls {
    let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let peer = UdpSocket::bind(localhost).expect("a socket");
    let peer_address = peer.local_addr().expect("an address");
    let socket =
        TransferSocket::open(localhost, peer_address, &SocketOptions::default()).expect("a socket");
    let local = socket.local_addr().expect("an address");
    peer.connect(local).expect("connected");
    peer.set_nonblocking(true).expect("never waits");

    // The last window is full too, and its last block is not.
    let last = u64::from(windowsize) * WINDOWS;
    let size = last * u64::from(blksize) - 1;
    let source = Source::file(file_of(&vec![7; size as usize]));
    let mappings = Mappings::new(1, Duration::ZERO);
    let body = Body::new(source, Mode::Octet, &mappings, now()).expect("a body");
    let agreed = Agreed {
        blksize,
        windowsize,
        ..Agreed::default()
    };
    let format = Format {
        blksize,
        rollover: agreed.rollover,
    };
    assert_eq!(body.last(format), Some(last));
    let patient = Policy {
        timeout: Duration::from_secs(3600), // however slow this machine is
        probe_floor: Duration::from_secs(3600),
        ..Policy::default()
    };
    let machine = Sender::answering(&agreed, false, Some(last), &patient, now());
    let origin = Origin {
        id: TransferId(1),
        name: Name::new(b"file"),
        direction: Direction::Read,
        asked: Options::default(),
        arrived: now(),
    };
    let mut transfer = Transfer::answering(
        origin,
        End::sending(machine, body, &agreed),
        socket,
        local,
        agreed,
        Vec::new(),
    );
    let peer = Peer {
        socket: peer,
        window: windowsize.into(),
        last,
        others,
        received: Cell::new(0),
        acked: Cell::new(0),
        early: Cell::new(None),
        late: Cell::new(None),
    };
    let mut scratch = Scratch::new();
    loop {
        match transfer.run(&mut scratch, &peer) {
            Turn::Done(Ending::Completed) => break,
            Turn::Done(ending) => panic!("{ending:?}"),
            // The answer comes while the others have their turns.
            Turn::Quiet(_) if others => peer.answer(),
            Turn::Quiet(_) | Turn::SliceUsed => {}
        }
    }
    assert_eq!(peer.acked.get(), last);
    let (early, late) = (peer.early.get(), peer.late.get());
    late.expect("a late window") - early.expect("an early window")
}

#[test]
fn a_window_costs_one_receive_and_as_few_sends_as_its_octets_need() {
    // Block size, window, and how many calls its octets need: a call carries 64 blocks or 65,507
    // octets.
    const TABLE: [(u16, u16, u64); 8] = [
        (512, 1, 1),
        (1428, 1, 1),
        (8192, 1, 1),
        (65464, 1, 1),
        (512, 16, 1),
        (1428, 16, 1),
        (512, 64, 1),
        (1428, 64, 2),
    ];
    for (blksize, window, sends) in TABLE {
        let windows = WINDOWS - SPREAD - 1;
        let expected = Calls {
            sends: sends * windows,
            receives: windows,
            waits: 0,
            ..Calls::default()
        };
        assert_eq!(
            cost(blksize, window, false),
            expected,
            "{blksize} x {window}"
        );
    }
}

/// In a crowd no receive finds nothing: a turn ends when the next block has left.
#[test]
fn a_block_in_lock_step_beside_other_transfers_costs_one_receive_and_one_send() {
    let blocks = WINDOWS - SPREAD - 1;
    let expected = Calls {
        sends: blocks,
        receives: blocks,
        waits: 0,
        ..Calls::default()
    };
    for blksize in [512, 1428] {
        assert_eq!(cost(blksize, 1, true), expected, "{blksize}");
    }
}
