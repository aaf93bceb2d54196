//! What happened, once: log lines, counters, progress and embedders all read the same [`Event`], so
//! they cannot disagree.

use crate::error::{Failure, Fault, Refusal};
pub(crate) use crate::text::Name;
use crate::text::quoted;
use crate::wire::{Direction, Malformed, Mode, Options};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One transfer, for as long as the server lives. Numbers are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub(crate) u64);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Something that the server did or saw.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A request was admitted; a worker will look at it.
    Request {
        /// The transfer it became.
        id: TransferId,
        /// Who asked.
        peer: SocketAddr,
        /// The address that was asked.
        local: SocketAddr,
        /// Which way the file goes.
        direction: Direction,
        /// The name as it came.
        name: Name,
        /// The transfer mode.
        mode: Mode,
        /// The options asked for.
        options: Options,
        /// What was not understood of the options, as `name=value` with spaces between: unknown
        /// ones, and values that are no numbers.
        ignored: Option<Name>,
    },
    /// The store granted the request; the first packet is on its way.
    Started {
        /// The transfer.
        id: TransferId,
        /// Agreed octets per block.
        blksize: u16,
        /// Agreed blocks per window.
        windowsize: u16,
        /// Octets of the file, where known.
        size: Option<u64>,
        /// For a file that is mapped: whether an earlier transfer's mapping was found. `None` for
        /// small files and other sources.
        mapping_shared: Option<bool>,
    },
    /// A transfer goes on: at most one such event a second for each, and none while nobody reads
    /// events. It gives way: a reader whose queue is half full gets none, and misses nothing that
    /// [`Event::Lagged`] would count.
    Progress {
        /// The transfer.
        id: TransferId,
        /// Octets of file that were acknowledged so far.
        bytes: u64,
    },
    /// The request was answered with an ERROR.
    Refused {
        /// The transfer, where the request had been admitted as one.
        id: Option<TransferId>,
        /// Who asked.
        peer: SocketAddr,
        /// Which way the file was to go.
        direction: Direction,
        /// The name as it came.
        name: Name,
        /// What the peer was told, and why.
        refusal: Refusal,
    },
    /// The last block was acknowledged.
    Completed(Summary),
    /// The peer found out what it wanted to know and left with ERROR 8 or 0, which is no failure.
    /// UEFI firmware asks for the size at every boot and refuses the OACK; `tftpool probe` leaves
    /// before it acknowledges a second block.
    Probe(Summary),
    /// The transfer ended before its last ACK.
    Failed(Summary, Failure),
    /// A datagram was thrown away.
    Dropped {
        /// Who sent it.
        peer: SocketAddr,
        /// Why.
        reason: DropReason,
    },
    /// A client showed what it cannot do; its next requests with the same options are granted less.
    /// Forgotten after ten minutes.
    Learned {
        /// Who taught it.
        peer: SocketAddr,
        /// What was learned.
        lesson: Lesson,
    },
    /// The reader was slow; so many events were not delivered to it.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Why a datagram at the listening port was thrown away without starting a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Not a packet of TFTP. Where it looked like a request, ERROR 4 was sent.
    Malformed(Malformed),
    /// DATA, ACK, OACK or ERROR at a port where only requests make sense.
    NotARequest,
    /// Sent to a broadcast or multicast address (RFC 1123 §4.2.3.5), and not a read request that
    /// may be answered.
    Broadcast,
    /// From port 0, or from this very socket: there is nobody to answer.
    NoReturn,
    /// The same request again, while its transfer makes progress.
    Duplicate,
    /// The server has as many transfers as it may have.
    Full,
    /// This address has as many transfers as it may have.
    ClientFull,
    /// Too many peers that never answered, and none old enough to be let go.
    UnprovenFull,
    /// Too many transfers of this address that were never answered.
    ClientUnprovenFull,
    /// Too many transfers of this network (an IPv4 /24, an IPv6 /64) that were never answered.
    NetworkUnprovenFull,
    /// The server is stopping.
    Stopping,
}

impl DropReason {
    /// True where the request would be admitted if another transfer ended.
    pub(crate) fn is_shortage(self) -> bool {
        matches!(
            self,
            Self::Full
                | Self::ClientFull
                | Self::UnprovenFull
                | Self::ClientUnprovenFull
                | Self::NetworkUnprovenFull
        )
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "malformed: {why}"),
            Self::NotARequest => f.write_str("not a request"),
            Self::Broadcast => f.write_str("sent to a broadcast address"),
            Self::NoReturn => f.write_str("no address to answer to"),
            Self::Duplicate => f.write_str("duplicate of a running transfer"),
            Self::Full => f.write_str("too many transfers"),
            Self::ClientFull => f.write_str("too many transfers of this client"),
            Self::UnprovenFull => f.write_str("too many peers that never answered"),
            Self::ClientUnprovenFull => {
                f.write_str("too many transfers that this client never answered")
            }
            Self::NetworkUnprovenFull => {
                f.write_str("too many transfers that this network never answered")
            }
            Self::Stopping => f.write_str("server is stopping"),
        }
    }
}

/// What a client that has answered taught the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lesson {
    /// Its windows came back torn: it gets none larger than so many blocks.
    Window(u16),
    /// Its first block never arrived: it gets none larger than so many octets.
    Blksize(u16),
    /// It refused two OACKs that answered no size probe: it gets none.
    NoOptions,
}

impl fmt::Display for Lesson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(blocks) => {
                write!(f, "window={blocks} reason=\"windows came back torn\"")
            }
            Self::Blksize(octets) => {
                write!(f, "blksize={octets} reason=\"first block never arrived\"")
            }
            Self::NoOptions => f.write_str("options=none reason=\"option replies were refused\""),
        }
    }
}

/// A finished transfer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The transfer.
    pub id: TransferId,
    /// The client.
    pub peer: SocketAddr,
    /// The server's end: the address that was asked, and the TID.
    pub local: SocketAddr,
    /// Which way the file went.
    pub direction: Direction,
    /// The name as it was asked for.
    pub name: Name,
    /// Octets of file that were acknowledged.
    pub bytes: u64,
    /// From the request's arrival to the end.
    pub duration: Duration,
    /// Blocks (on reading) or ACKs (on writing) that were sent again.
    pub retransmits: u64,
    /// Windows of which a part was lost.
    pub torn: u64,
    /// Agreed octets per block.
    pub blksize: u16,
    /// Agreed blocks per window.
    pub windowsize: u16,
    /// Smoothed round trip, where one was measured.
    pub rtt: Option<Duration>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "peer={} {}={} bytes={} ms={} retransmits={} blksize={} window={}",
            self.peer,
            match self.direction {
                Direction::Read => "file",
                Direction::Write => "upload",
            },
            self.name,
            self.bytes,
            self.duration.as_millis(),
            self.retransmits,
            self.blksize,
            self.windowsize
        )
    }
}

impl Event {
    /// Writes the event's log line, if it has one at the level in force.
    pub(crate) fn log(&self) {
        match self {
            Self::Completed(summary) => log::info!("done {summary}"),
            Self::Probe(summary) => log::info!("probe {summary}"),
            Self::Failed(summary, failure) if failure.is_common() => {
                log::debug!("failed {summary} reason={}", quoted(failure));
            }
            Self::Failed(summary, failure) => {
                let level = match failure.fault() {
                    Fault::Here => log::Level::Warn,
                    Fault::Peer | Fault::Nobody => log::Level::Info,
                };
                log::log!(level, "failed {summary} reason={}", quoted(failure));
            }
            Self::Refused {
                peer,
                direction,
                name,
                refusal,
                ..
            } => {
                let verb = match direction {
                    Direction::Read => "read",
                    Direction::Write => "write",
                };
                log::info!(
                    "refused peer={peer} {verb}={name} reason={}",
                    quoted(refusal)
                );
            }
            Self::Request {
                id,
                peer,
                direction,
                name,
                mode,
                options,
                ignored,
                ..
            } => {
                let mode = mode.as_str();
                let (gap, ignored): (_, &dyn fmt::Display) = match ignored {
                    Some(ignored) => (" ignored=", ignored),
                    None => ("", &""),
                };
                log::debug!(
                    "request id={id} peer={peer} {direction:?} file={name} mode={mode} options=\"{options}\"{gap}{ignored}"
                );
            }
            Self::Started {
                id,
                blksize,
                windowsize,
                size,
                mapping_shared: _,
            } => {
                log::debug!("started id={id} blksize={blksize} window={windowsize} size={size:?}");
            }
            Self::Progress { id, bytes } => log::trace!("progress id={id} bytes={bytes}"),
            Self::Dropped { peer, reason } => {
                log::debug!("dropped peer={peer} reason={}", quoted(reason));
            }
            Self::Learned { peer, lesson } => {
                log::info!("learned peer={} {lesson}", peer.ip());
            }
            Self::Lagged { missed } => log::debug!("lagged events={missed}"),
        }
    }
}

/// Counters since the server started: a fold over its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that became a transfer.
    pub requests: u64,
    /// Transfers that are under way now.
    pub active: u64,
    /// Requests answered with an ERROR.
    pub refused: u64,
    /// Transfers whose last block was acknowledged.
    pub completed: u64,
    /// Probes: requests whose client broke off before the second block.
    pub probes: u64,
    /// Transfers that ended before their last ACK.
    pub failed: u64,
    /// Datagrams thrown away.
    pub dropped: u64,
    /// Octets of file that were acknowledged.
    pub bytes: u64,
    /// Blocks that were sent again.
    pub retransmits: u64,
    /// Transfers that found their file mapped already.
    pub mapping_hits: u64,
    /// Transfers whose file had to be mapped for them. Small files and other sources than files
    /// count in neither.
    pub mapping_misses: u64,
}

impl Stats {
    /// The share of transfers of mapped files that found the mapping made: 0 to 1; `None` before
    /// the first of them.
    pub fn mapping_hit_rate(&self) -> Option<f64> {
        let all = self.mapping_hits + self.mapping_misses;
        (all > 0).then(|| self.mapping_hits as f64 / all as f64)
    }

    /// Takes one event into account.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Request { .. } => {
                self.requests += 1;
                self.active += 1;
            }
            Event::Refused { id, .. } => {
                self.refused += 1;
                if id.is_some() {
                    self.active = self.active.saturating_sub(1);
                }
            }
            Event::Completed(summary) => {
                self.completed += 1;
                self.finish(summary);
            }
            Event::Probe(summary) => {
                self.probes += 1;
                self.finish(summary);
            }
            Event::Failed(summary, _) => {
                self.failed += 1;
                self.finish(summary);
            }
            Event::Dropped { .. } => self.dropped += 1,
            Event::Started { mapping_shared, .. } => match mapping_shared {
                Some(true) => self.mapping_hits += 1,
                Some(false) => self.mapping_misses += 1,
                None => {}
            },
            Event::Progress { .. } | Event::Learned { .. } | Event::Lagged { .. } => {}
        }
    }

    fn finish(&mut self, summary: &Summary) {
        self.active = self.active.saturating_sub(1);
        self.bytes += summary.bytes;
        self.retransmits += summary.retransmits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_value_whatever_the_peer_says() {
        let code = crate::wire::ErrorCode(0);
        let text = Name::new(b"bye\" file=\"x");
        assert_eq!(
            quoted(&Failure::Aborted { code, text }).to_string(),
            r#""peer sent error 0 \"bye\\\" file=\\\"x\"""#
        );
    }
}
