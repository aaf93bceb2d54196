//! One transfer as a value: machine, body and socket, run by whoever holds it.
//!
//! [`Transfer::run`] is the one blocking loop. It does what the machine says, until the transfer is over, the peer is quiet,
//! or it has had its turn; then the value can be put aside, watched by somebody else, and run again by any thread.

mod body;
mod netascii;

pub(crate) use body::{Body, Format, Scratch, Trouble};

use crate::error::{Failure, plain};
use crate::event::{Event, Name, Summary, TransferId};
use crate::limits::{MAX_ERROR_TEXT, PATIENCE, PROGRESS_INTERVAL, SLICE};
use crate::proto::{Agreed, Outcome, Sender, Step};
use crate::sys;
use crate::sys::udp::{TransferSocket, Wait};
use crate::wire::{self, Direction, ErrorCode, OptionName, Options, Packet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Bursts of one long window that go out before the peer is listened to.
const BURSTS_UNHEARD: u32 = 4;
/// How long a full send buffer is waited for before the transfer is put aside.
const DRAIN: Duration = Duration::from_millis(2);

/// The clock. Read here and in the server's loop, nowhere below.
#[allow(clippy::disallowed_methods)] // floor 2 is where time is read and handed down
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What a peer is told when the server ends.
pub(crate) const STOPPING: &str = "server is stopping";
/// What a peer is told whose transfer somebody here ends.
pub(crate) const CANCELLED: &str = "transfer was cancelled";

/// Why `run` came back.
pub(crate) enum Turn {
    /// The transfer is over.
    Done(Ending),
    /// Nothing to do before this instant, unless a packet comes.
    Quiet(Instant),
    /// This one has had its turn; it may have another if nobody waits.
    SliceUsed,
}

/// How a transfer ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The last block was acknowledged.
    Completed,
    /// The peer asked for the size and left.
    Probed,
    /// Anything else.
    Failed(Failure),
}

/// How a transfer went, for whoever learns from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    /// When the request arrived.
    pub(crate) begun: Instant,
    /// When a block was acknowledged last.
    pub(crate) moved: Instant,
    pub(crate) outset: Outset,
    /// It did not come to its end, and not because the server stopped.
    pub(crate) failed: bool,
    pub(crate) blksize: u16,
    pub(crate) windowsize: u16,
    /// Blocks that were acknowledged.
    pub(crate) blocks: u64,
    /// Windows that came back torn, and how many blocks the pace let out at once in the end.
    pub(crate) torn: u64,
    pub(crate) burst: u16,
    pub(crate) retransmits: u64,
}

/// What became of the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outset {
    /// None were granted, or the OACK was never answered.
    Plain,
    /// The OACK was acknowledged.
    Agreed,
    /// The OACK was answered by an ERROR, and not because only the size was asked for.
    Refused,
}

/// What a transfer asks of the world around it, before it waits and between bursts.
pub(crate) trait Surroundings {
    /// Other transfers wait for this thread.
    fn others_wait(&self) -> bool;
    /// The server ends: tell the peer and go.
    fn is_stopping(&self) -> bool;
}

/// Who asked for what.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) id: TransferId,
    pub(crate) name: Name,
    pub(crate) direction: Direction,
    /// The options asked for.
    pub(crate) asked: Options,
    pub(crate) arrived: Instant,
}

/// A running transfer.
pub(crate) struct Transfer {
    origin: Origin,
    machine: Sender,
    body: Body,
    socket: TransferSocket,
    local: SocketAddr,
    agreed: Agreed,
    format: Format,
    /// The OACK; empty where none is sent.
    opening: Box<[u8]>,
    /// One past the highest block that was sent, and when that or the opening went out first.
    sent_end: u64,
    answered: Instant,
    /// When its progress was reported last.
    reported: Instant,
    /// What the last ERROR of the peer said.
    peer_text: Option<Name>,
    /// What the network said to the last send that failed.
    network: Option<io::Error>,
}

impl Transfer {
    /// Answers an RRQ that was granted. With an `opening` datagram, an OACK, the machine waits for its ACK.
    pub(crate) fn new(
        origin: Origin,
        machine: Sender,
        mut body: Body,
        socket: TransferSocket,
        local: SocketAddr,
        agreed: Agreed,
        opening: Vec<u8>,
    ) -> Self {
        let format = Format {
            blksize: agreed.blksize,
            rollover: agreed.rollover,
        };
        body.set_format(format, agreed.windowsize);
        let opening = opening.into();
        Self {
            origin,
            machine,
            body,
            socket,
            local,
            agreed,
            format,
            opening,
            sent_end: 1,
            answered: now(),
            reported: now(),
            peer_text: None,
            network: None,
        }
    }

    /// Runs until there is a reason to stop. Waits for a quiet peer only while nobody else waits, and not for long.
    pub(crate) fn run(&mut self, scratch: &mut Scratch, around: &impl Surroundings) -> Turn {
        let start = now();
        let mut time = start;
        let mut unheard = 0;
        loop {
            if around.is_stopping() {
                self.tell(ErrorCode::NOT_DEFINED, STOPPING);
                return Turn::Done(Ending::Failed(Failure::Stopped));
            }
            let step = self.machine.poll(time);
            if !matches!(step, Step::Wait(_) | Step::Done(_)) {
                log::trace!("send id={} {step:?}", self.origin.id);
            }
            match step {
                Step::Open => match self.socket.send(&self.opening) {
                    Ok(true) => self.machine.opened(time),
                    Ok(false) => return Turn::Quiet(time + DRAIN),
                    Err(error) => {
                        self.lost(error, time);
                        self.machine.opened(time);
                    }
                },
                Step::Data { first, end } => {
                    let burst = first..end.min(first + self.format.burst());
                    let mut is_cut = false;
                    let sent =
                        self.body
                            .send(&mut self.socket, burst.clone(), self.format, scratch);
                    let last = self.body.last(self.format);
                    if let Some(last) = last {
                        self.machine.set_last(last);
                    }
                    match sent {
                        Ok(sent_end) => {
                            is_cut = sent_end < burst.end;
                            if sent_end > self.sent_end {
                                (self.sent_end, self.answered) = (sent_end, time);
                            }
                            if sent_end > first {
                                self.machine.sent(sent_end, time);
                            } else if around.others_wait() || !self.drained() {
                                return Turn::Quiet(time + DRAIN);
                            }
                        }
                        Err(Trouble::Network(error)) if !sys::is_too_long(&error) => {
                            // Lost like any datagram; the timer goes on, and says so if it never gets better.
                            self.lost(error, time);
                            let end = last.map_or(burst.end, |last| burst.end.min(last + 1));
                            self.machine.sent(end, time);
                        }
                        Err(trouble) => return Turn::Done(Ending::Failed(self.broken(trouble))),
                    }
                    // A receiver with a hole says so while the rest of a long window is still going out, or cannot.
                    unheard += u32::from(burst.end < end);
                    if is_cut || unheard == BURSTS_UNHEARD {
                        unheard = 0;
                        time = self.take(Wait::No).unwrap_or_else(now);
                    }
                }
                Step::Wait(until) => {
                    let left = until.saturating_duration_since(time);
                    let wait = if around.others_wait() {
                        Wait::No
                    } else if left < PATIENCE {
                        Wait::Until(left)
                    } else {
                        Wait::Patience
                    };
                    let came = self.take(wait);
                    time = came.unwrap_or_else(now);
                    if came.is_none() && time < until {
                        return Turn::Quiet(until);
                    }
                }
                Step::Done(outcome) => return Turn::Done(self.ending(outcome)),
                Step::Ack(_) | Step::Error(..) => {
                    unreachable!("a sender sends no {step:?}")
                }
            }
            if time - start > SLICE {
                return Turn::SliceUsed;
            }
        }
    }

    /// Takes one packet and hands it to the machine; says when, or `None` if none came.
    fn take(&mut self, wait: Wait) -> Option<Instant> {
        // A sender is answered by ACK and ERROR only; what is longer is cut and means nothing to it.
        let mut buffer = [0; 4 + MAX_ERROR_TEXT + 1];
        let received = self.socket.recv(&mut buffer, wait).transpose()?;
        let time = now();
        match received {
            Ok(length) => {
                if let Ok(packet) = wire::parse(&buffer[..length.min(buffer.len())]) {
                    log::trace!("got id={} {packet:?}", self.origin.id);
                    if let Packet::Error { message, .. } = packet {
                        self.peer_text = Some(Name::new(message));
                    }
                    self.machine.handle(&packet, time);
                }
            }
            Err(error) => self.lost(error, time),
        }
        Some(time)
    }

    /// Waits a little for a full send buffer: the network is slower than we are. False if nothing moved.
    fn drained(&self) -> bool {
        self.socket
            .wait(true, true, DRAIN)
            .is_ok_and(|ready| ready.readable || ready.writable)
    }

    /// A send or receive failed. `ConnectionRefused` is ICMP's hint that nobody listens; anything else is remembered.
    fn lost(&mut self, error: io::Error, time: Instant) {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.machine.unreachable(time);
        } else {
            self.network = Some(error);
        }
    }

    /// The source failed; the peer is told once.
    fn broken(&mut self, trouble: Trouble) -> Failure {
        let (text, failure) = match trouble {
            Trouble::Changed => ("file changed during the transfer", Failure::FileChanged),
            Trouble::Read(cause) => ("read error", Failure::Read(cause)),
            Trouble::Network(error) => ("network error", Failure::Network(plain(&error))),
        };
        self.tell(ErrorCode::NOT_DEFINED, text);
        failure
    }

    fn ending(&mut self, outcome: Outcome) -> Ending {
        Ending::Failed(match outcome {
            Outcome::Complete => return Ending::Completed,
            // UEFI firmware asks for the size, and says 8 (or 0) to the OACK that holds it.
            Outcome::Aborted {
                code: ErrorCode(0 | 8),
                at_opening: true,
            } if self.asks_size() => return Ending::Probed,
            Outcome::Aborted { code, .. } => Failure::Aborted {
                code,
                text: self.peer_text.take().unwrap_or_else(|| Name::new(b"")),
            },
            Outcome::Silent | Outcome::Unanswered if self.network.is_some() => {
                Failure::Network(self.network.as_ref().map(plain).unwrap_or_default())
            }
            Outcome::Silent => Failure::Silent,
            Outcome::Unanswered => Failure::Unanswered,
            Outcome::Unreachable => Failure::Unreachable,
            Outcome::Protocol(what) => Failure::Protocol(what),
            Outcome::TooSlow => {
                self.tell(ErrorCode::NOT_DEFINED, "transfer is too slow");
                Failure::TooSlow
            }
            Outcome::TooLong => {
                self.tell(ErrorCode::NOT_DEFINED, "transfer took too long");
                Failure::TooLong
            }
        })
    }

    /// Only who asks for the size can be content with it.
    fn asks_size(&self) -> bool {
        self.origin.asked.is_present(OptionName::Tsize)
    }

    /// How it went.
    pub(crate) fn course(&self, ending: &Ending) -> Course {
        let refused = matches!(
            ending,
            Ending::Failed(Failure::Aborted {
                code: ErrorCode(0 | 4 | 8),
                ..
            })
        );
        let outset = if self.opening.is_empty() {
            Outset::Plain
        } else if self.is_proven() {
            Outset::Agreed
        } else if refused && !self.asks_size() {
            Outset::Refused
        } else {
            Outset::Plain
        };
        Course {
            begun: self.origin.arrived,
            moved: self.machine.moved(),
            outset,
            failed: !matches!(
                ending,
                Ending::Completed | Ending::Probed | Ending::Failed(Failure::Stopped)
            ),
            blksize: self.agreed.blksize,
            windowsize: self.agreed.windowsize,
            blocks: self.machine.acked(),
            torn: self.machine.torn(),
            burst: u16::try_from(self.machine.burst()).unwrap_or(u16::MAX),
            retransmits: self.machine.retransmits(),
        }
    }

    /// The options that its request asked for.
    pub(crate) fn asked(&self) -> &Options {
        &self.origin.asked
    }

    /// Sends an ERROR, once: it is never acknowledged and never repeated (RFC 1350 §2).
    pub(crate) fn tell(&mut self, code: ErrorCode, text: &str) {
        tell(&self.socket, code, text);
    }

    /// The peer has sent the same request again before it ever answered.
    pub(crate) fn request_repeated(&mut self) {
        self.machine.request_repeated(now());
    }

    /// True once the peer has acknowledged something.
    pub(crate) fn is_proven(&self) -> bool {
        self.machine.is_proven()
    }

    /// When something went out last that the peer had not been sent before: what it asked for earlier, it asked for without
    /// knowing that.
    pub(crate) fn answered(&self) -> Instant {
        self.answered
    }

    /// True where the peer has said nothing for so long that a repeated request is not a late copy.
    pub(crate) fn is_silent(&self) -> bool {
        self.machine.is_silent(now())
    }

    /// True where a datagram waits that was not looked at.
    pub(crate) fn has_mail(&self) -> bool {
        self.socket
            .wait(true, false, Duration::ZERO)
            .is_ok_and(|ready| ready.readable)
    }

    pub(crate) fn id(&self) -> TransferId {
        self.origin.id
    }

    /// How far it is, if that was not said for a while.
    pub(crate) fn progress(&mut self) -> Option<Event> {
        let time = now();
        if time < self.reported + PROGRESS_INTERVAL {
            return None;
        }
        self.reported = time;
        Some(Event::Progress {
            id: self.origin.id,
            bytes: self.bytes(),
        })
    }

    /// Octets of file that the peer has acknowledged.
    fn bytes(&self) -> u64 {
        self.body.octets_to(self.machine.acked(), self.format)
    }

    /// What there is to say about it.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            id: self.origin.id,
            peer: self.socket.peer(),
            local: self.local,
            direction: self.origin.direction,
            name: self.origin.name.clone(),
            bytes: self.bytes(),
            duration: now().saturating_duration_since(self.origin.arrived),
            retransmits: self.machine.retransmits(),
            torn: self.machine.torn(),
            blksize: self.agreed.blksize,
            windowsize: self.agreed.windowsize,
            rtt: self.machine.round_trip(),
        }
    }
}

impl AsRawFd for Transfer {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Sends an ERROR from a transfer's socket. Nothing can be done if it does not leave.
pub(crate) fn tell(socket: &TransferSocket, code: ErrorCode, text: &str) {
    let mut datagram = Vec::with_capacity(5 + text.len());
    wire::emit_error(code, text, &mut datagram);
    let _ = socket.send(&datagram);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Policy;
    use crate::store::Source;
    use crate::store::mappings::Mappings;
    use crate::sys::udp::SocketOptions;
    use crate::wire::Mode;
    use std::net::{Ipv4Addr, UdpSocket};

    struct Alone;

    impl Surroundings for Alone {
        fn others_wait(&self) -> bool {
            false
        }

        fn is_stopping(&self) -> bool {
            false
        }
    }

    /// A stream of 700 octets, two blocks, for which a large window and an OACK were agreed; and its peer.
    fn streaming() -> (Transfer, UdpSocket) {
        let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let peer = UdpSocket::bind(localhost).expect("a socket");
        let peer_address = peer.local_addr().expect("an address");
        let socket = TransferSocket::open(localhost, peer_address, &SocketOptions::default())
            .expect("a socket");
        let agreed = Agreed {
            windowsize: 32,
            ..Agreed::default()
        };
        let mappings = Mappings::new(0, Duration::ZERO);
        let source = Source::reader(io::Cursor::new(vec![7; 700]), None);
        let body = Body::new(source, Mode::Octet, &mappings, now()).expect("a body");
        let machine = Sender::answering(&agreed, true, None, &Policy::default(), now());
        let origin = Origin {
            id: TransferId(1),
            name: Name::new(b"stream"),
            direction: Direction::Read,
            asked: Options::default(),
            arrived: now(),
        };
        let oack = b"\0\x06windowsize\x0032\0".to_vec();
        let transfer = Transfer::new(origin, machine, body, socket, localhost, agreed, oack);
        (transfer, peer)
    }

    #[test]
    fn the_end_of_a_stream_is_known_although_its_block_could_not_be_sent() {
        let (mut transfer, _peer) = streaming();
        let mut scratch = Scratch::new();
        assert!(matches!(transfer.run(&mut scratch, &Alone), Turn::Quiet(_)));
        transfer.machine.handle(&Packet::Ack { block: 0 }, now());
        transfer.socket.stop_sending();
        assert!(matches!(transfer.run(&mut scratch, &Alone), Turn::Quiet(_)));
        assert!(transfer.network.is_some(), "the blocks did not leave");
        transfer.machine.handle(&Packet::Ack { block: 3 }, now());
        assert_eq!(transfer.machine.acked(), 0, "there is no block 3");
        transfer.machine.handle(&Packet::Ack { block: 2 }, now());
        assert!(matches!(
            transfer.run(&mut scratch, &Alone),
            Turn::Done(Ending::Completed)
        ));
    }
}
