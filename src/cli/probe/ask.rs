//! One question: a request with a socket of its own, or a download that is timed.

use super::WINDOWS;
use crate::client::Client;
use crate::event::Summary;
use crate::limits;
use crate::sys::udp;
use crate::text::Name;
use crate::transfer::now;
use crate::wire::{self, Direction, ErrorCode, Mode, OptionName, Options, Packet, Request};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A question is asked so often before silence is the answer.
const SENDS: u32 = 3;
/// How long one send is waited for; also the pause that ends a window.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Datagrams read for one question: the largest window and some copies.
const MOST_DATAGRAMS: usize = 512;
/// Octets, and time, after which a download that is timed is broken off.
const SAMPLE: (u64, Duration) = (64 << 20, Duration::from_millis(500));
/// What came back first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The time was over before this was asked.
    NotAsked,
    Silence,
    /// The port is closed, as ICMP says.
    Closed,
    /// This machine could not send it, or has heard that it cannot arrive: the cause.
    Trouble(String),
    Error(ErrorCode, Name),
    /// DATA 1 with this many bytes: the options were ignored, if there were any.
    Data(usize),
    Agreed(Options),
    /// The bytes that came with these settings, or the reason why none did.
    Timed(Result<Timing, String>),
    /// What makes no sense here.
    Strange,
}

/// How fast a download was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) blksize: u16,
    pub(super) windowsize: u16,
    pub(super) octets: u64,
    pub(super) time: Duration,
    pub(super) lossy_windows: u64,
}

impl Timing {
    pub(super) fn octets_per_second(&self) -> u128 {
        u128::from(self.octets) * 1_000_000 / self.time.as_micros().max(1)
    }
}

impl From<Summary> for Timing {
    fn from(summary: Summary) -> Self {
        Self {
            blksize: summary.blksize,
            windowsize: summary.windowsize,
            octets: summary.bytes,
            time: summary.duration,
            lossy_windows: summary.lossy_windows,
        }
    }
}

impl Answer {
    fn failed(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Closed,
            _ => Self::Trouble(crate::error::plain(error)),
        }
    }
}

/// One question and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What was asked for, as shown.
    pub(super) asked: String,
    pub(super) options: Options,
    pub(super) server: SocketAddr,
    pub(super) answer: Answer,
    pub(super) from: Option<SocketAddr>,
    pub(super) time: Duration,
    /// Blocks of the first window that came, and the octets of the first of them.
    pub(super) blocks: u16,
    pub(super) octets: usize,
    /// The last of them was shorter than agreed: the file ends there.
    pub(super) is_whole: bool,
}

impl Row {
    pub(super) fn new(asked: impl Into<String>, options: Options, server: SocketAddr) -> Self {
        Self {
            asked: asked.into(),
            options,
            server,
            answer: Answer::NotAsked,
            from: None,
            time: Duration::ZERO,
            blocks: 0,
            octets: 0,
            is_whole: false,
        }
    }

    /// Times a download with this block size and window, which ends `until` then.
    pub(super) fn time(
        mut self,
        name: &[u8],
        blksize: u16,
        windowsize: u16,
        until: Instant,
    ) -> Self {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return self;
        }
        let client = Client::new(self.server)
            .blksize(blksize)
            .windowsize(windowsize)
            .retries(1)
            .max_time(left.max(Duration::from_millis(1)));
        self.answer = Answer::Timed(match client.sample(name, SAMPLE.0, SAMPLE.1) {
            Ok(summary) => {
                (self.from, self.time) = (Some(summary.peer), summary.duration);
                Ok(summary.into())
            }
            Err(failure) => Err(failure.to_string()),
        });
        self
    }

    pub(super) fn timing(&self) -> Option<Timing> {
        match &self.answer {
            Answer::Timed(timing) => timing.as_ref().ok().copied(),
            _ => None,
        }
    }

    /// Asks, and waits no longer than `until`.
    pub(super) fn ask(mut self, name: &[u8], until: Instant) -> Self {
        if now() >= until {
            return self;
        }
        if let Some(words) = Client::new(self.server).lacks_interface(self.server) {
            self.answer = Answer::Trouble(words);
            return self;
        }
        let socket = match UdpSocket::bind((wildcard(self.server), 0)) {
            Ok(socket) => socket,
            Err(error) => {
                self.answer = Answer::failed(&error);
                return self;
            }
        };
        // What is lost is the network's doing then, not ours.
        udp::make_room(&socket, limits::DEFAULT_BLKSIZE, WINDOWS[WINDOWS.len() - 1]);
        // Otherwise ICMP does not reach it: the socket is not connected, since the answer comes
        // from another port.
        udp::hear_errors(&socket, self.server, true);
        let request = Request {
            direction: Direction::Read,
            name,
            mode: Mode::Octet,
            options: self.options.clone(),
        };
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        log::debug!("asking {} for {}", self.server, Name::new(&datagram));
        self.answer = Answer::Silence;
        let mut buffer = vec![0; limits::RECEIVE_OCTETS];
        for _ in 0..SENDS {
            let sent = now();
            let end = until.min(sent + ANSWER_WAIT);
            let asked = socket.send_to(&datagram, self.server);
            match asked.and_then(|_| receive(&socket, &mut buffer, end)) {
                Ok(Some((length, from))) => {
                    self.time = now().saturating_duration_since(sent);
                    self.from = Some(from);
                    self.first(&socket, from, &mut buffer, length, until);
                    break;
                }
                Ok(None) if now() >= until => break,
                Ok(None) => {}
                // A hint, which anybody can forge: it is asked again.
                Err(error) => self.answer = Answer::failed(&error),
            }
        }
        self
    }

    fn first(
        &mut self,
        socket: &UdpSocket,
        from: SocketAddr,
        buffer: &mut [u8],
        length: usize,
        until: Instant,
    ) {
        self.answer = match wire::parse(&buffer[..length]) {
            Ok(Packet::Error { code, message }) => {
                self.answer = Answer::Error(code, Name::new(message));
                return; // an ERROR is never answered
            }
            Ok(Packet::Data { block: 1, payload }) => Answer::Data(payload.len()),
            Ok(Packet::OptionAck(options)) => Answer::Agreed(options),
            _ => Answer::Strange,
        };
        if let Answer::Agreed(options) = &self.answer {
            let options = options.clone();
            self.window(socket, from, buffer, &options, until);
        }
        let mut farewell = Vec::new();
        wire::emit_error(ErrorCode::NOT_DEFINED, "probe is over", &mut farewell);
        let _ = socket.send_to(&farewell, from);
    }

    /// Confirms the OACK and counts what comes of the first window.
    fn window(
        &mut self,
        socket: &UdpSocket,
        from: SocketAddr,
        buffer: &mut [u8],
        agreed: &Options,
        until: Instant,
    ) {
        let number = |name| agreed.get(name).and_then(|value| u16::try_from(value).ok());
        let blksize = number(OptionName::Blksize).or_else(|| number(OptionName::Blksize2));
        let blksize = usize::from(blksize.unwrap_or(limits::DEFAULT_BLKSIZE));
        let window = number(OptionName::Windowsize).unwrap_or(1);
        for _ in 0..SENDS {
            let _ = socket.send_to(&wire::ack(0), from);
            let mut end = until.min(now() + ANSWER_WAIT);
            for _ in 0..MOST_DATAGRAMS {
                let Ok(Some((length, source))) = receive(socket, buffer, end) else {
                    break;
                };
                if source != from {
                    continue;
                }
                let Ok(Packet::Data { block, payload }) = wire::parse(&buffer[..length]) else {
                    continue;
                };
                if block == self.blocks + 1 {
                    self.blocks = block;
                    if block == 1 {
                        self.octets = payload.len();
                    }
                    self.is_whole = payload.len() < blksize;
                    end = until.min(now() + ANSWER_WAIT);
                }
                if self.blocks == window || self.is_whole {
                    return;
                }
            }
            if self.blocks > 0 {
                return;
            }
        }
    }

    pub(super) fn agreed(&self) -> Option<&Options> {
        match &self.answer {
            Answer::Agreed(options) => Some(options),
            _ => None,
        }
    }

    pub(super) fn granted(&self, name: OptionName) -> Option<u64> {
        self.agreed()?.get(name)
    }

    pub(super) fn is_heard(&self) -> bool {
        !matches!(
            self.answer,
            Answer::NotAsked | Answer::Silence | Answer::Closed | Answer::Trouble(_)
        )
    }
}

pub(super) fn wildcard(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The next datagram; `None` when none came in time.
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    end: Instant,
) -> io::Result<Option<(usize, SocketAddr)>> {
    let left = end.saturating_duration_since(now());
    socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    match socket.recv_from(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
impl Row {
    /// A question with these options that got this answer, from a port of its own.
    pub(super) fn answered(options: Options, answer: Answer) -> Self {
        Self {
            answer,
            from: Some(([192, 0, 2, 1], 4000).into()),
            ..Self::new("", options, ([192, 0, 2, 1], 69).into())
        }
    }
}
