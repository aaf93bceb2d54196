//! Receivers of the field, as small as their habits allow and without anything of the library's
//! machines: recovery that was proved against the library's own receiver only was slow for all
//! others. They serve the simulator, the lab and the load generator.
#![allow(dead_code)] // each program uses its part

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use tftpool::unversioned::wire::{
    self, Direction, Mode, OptionName, Options, Packet, Request, parse,
};

/// When a receiver acknowledges, apart from whole windows, the last block, and its own timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// U-Boot (`net/tftp.c`): one ACK for each position at which an unexpected block came. That ACK
    /// begins a window of its own, and that of the timer begins none. Only a block that is stored
    /// starts the timer again.
    ReportOnce,
    /// The receiver is silent about unexpected blocks, and about blocks that come twice.
    ReportNever,
    /// lwIP: the receiver answers each unexpected block with its last ACK.
    AckAgain,
    /// The receiver answers each block, expected or not, with the ACK of the last one in order,
    /// whatever window it asked for.
    EveryBlock,
}

pub(crate) const HABITS: [(&str, Habit); 4] = [
    ("report-once", Habit::ReportOnce),
    ("report-never", Habit::ReportNever),
    ("ack-again", Habit::AckAgain),
    ("every-block", Habit::EveryBlock),
];

/// What a receiver does about a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reaction {
    pub(crate) store: bool,
    pub(crate) ack: bool,
    /// The receiver's own timer starts again.
    pub(crate) restart: bool,
}

/// The state of a receiver: its position, and where its window began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    habit: Habit,
    window: u64,
    pub(crate) received: u64,
    window_from: u64,
    reported: Option<u64>,
}

impl Position {
    pub(crate) fn new(habit: Habit, window: u64) -> Self {
        Self {
            habit,
            window: if habit == Habit::EveryBlock {
                1
            } else {
                window
            },
            received: 0,
            window_from: 0,
            reported: None,
        }
    }

    /// A block came: the next one in order, or another.
    pub(crate) fn block(&mut self, is_next: bool, is_last: bool) -> Reaction {
        if is_next {
            self.received += 1;
            let is_full = self.received - self.window_from >= self.window;
            if is_full {
                self.window_from = self.received;
            }
            return Reaction {
                store: true,
                ack: is_full || is_last,
                restart: true,
            };
        }
        let ack = match self.habit {
            Habit::ReportOnce => self.reported != Some(self.received),
            Habit::ReportNever => false,
            Habit::AckAgain | Habit::EveryBlock => true,
        };
        if ack {
            self.reported = Some(self.received);
            self.window_from = self.received;
        }
        Reaction {
            store: false,
            ack,
            restart: ack && self.habit != Habit::ReportOnce,
        }
    }

    /// The receiver's own timer has run out; its ACK follows.
    pub(crate) fn timer(&mut self) {
        if self.habit != Habit::ReportOnce {
            self.window_from = self.received;
        }
    }
}

/// The receiver's own timer: U-Boot's is 5 s, others have 1 s.
const TIMER: Duration = Duration::from_secs(1);
/// Silence after which a receiver gives up.
const SILENCE: Duration = Duration::from_secs(20);

/// Fetches a file and hands each new block to `store`. Returns how long it took.
pub(crate) fn fetch(
    habit: Habit,
    socket: &UdpSocket,
    server: SocketAddr,
    (name, blksize, window): (&str, u64, u64),
    limit: Duration,
    mut store: impl FnMut(&[u8]),
) -> io::Result<Duration> {
    let mut options = Options::default().with(OptionName::Blksize, blksize);
    if window > 1 {
        options = options.with(OptionName::Windowsize, window);
    }
    let mut request = Vec::new();
    Request {
        direction: Direction::Read,
        name: name.as_bytes(),
        mode: Mode::Octet,
        options,
    }
    .emit(&mut request);
    let begun = clock();
    let mut position = Position::new(habit, window);
    let mut peer = None;
    let (mut wake, mut moved) = (begun, begun);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let now = clock();
        if now - moved > SILENCE || now - begun > limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if now >= wake {
            wake = now + TIMER;
            match peer {
                None => drop(socket.send_to(&request, server)?),
                Some(peer) => {
                    position.timer();
                    socket.send_to(&wire::ack(position.received as u16), peer)?;
                }
            }
        }
        socket.set_read_timeout(Some((wake - now).max(Duration::from_micros(1))))?;
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if is_nothing(&error) => continue,
            Err(error) => return Err(error),
        };
        if peer.is_some_and(|peer| peer != from) {
            continue;
        }
        let reaction = match parse(&buffer[..length]) {
            Ok(Packet::OptionAck(_)) if position.received == 0 => {
                peer = Some(from);
                Reaction {
                    store: false,
                    ack: true,
                    restart: true,
                }
            }
            Ok(Packet::Data { block, payload }) if peer.is_some() => {
                let is_next = block == (position.received + 1) as u16;
                let is_last = (payload.len() as u64) < blksize;
                let reaction = position.block(is_next, is_last);
                if reaction.store {
                    store(payload);
                    moved = clock();
                    if is_last {
                        socket.send_to(&wire::ack(block), from)?;
                        return Ok(begun.elapsed());
                    }
                }
                reaction
            }
            Ok(Packet::Error { message, .. }) => {
                let text = String::from_utf8_lossy(message).into_owned();
                return Err(io::Error::other(text));
            }
            _ => Reaction::default(),
        };
        if reaction.restart {
            wake = clock() + TIMER;
        }
        if reaction.ack {
            socket.send_to(&wire::ack(position.received as u16), from)?;
        }
    }
}

/// Nothing came in time, or ICMP told of something that was sent before.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        WouldBlock | TimedOut | Interrupted | ConnectionRefused
    )
}

#[allow(clippy::disallowed_methods)] // a real receiver has a real clock
fn clock() -> Instant {
    Instant::now()
}
