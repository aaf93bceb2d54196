//! What happened, once: log lines, counters, progress and embedders all read the same [`Event`], so
//! they cannot disagree.

use crate::error::{Fault, Refusal, TransferError};
pub(crate) use crate::text::Name;
use crate::text::quoted;
use crate::wire::{Direction, ErrorCode, Malformed, Mode, Options};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One transfer, for as long as the server lives. Numbers are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub(crate) u64);

impl TransferId {
    /// The number, for logs and metrics of an embedder.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

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
        /// The name as it was asked for.
        name: Name,
        /// The name that the store has served: another one where a layer of the store renames, or a
        /// directory does. See [`Source::with_name`](crate::Source::with_name).
        served: Name,
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
    Failed(Summary, TransferError),
    /// A datagram was thrown away.
    Dropped {
        /// Who sent it.
        peer: SocketAddr,
        /// Why.
        reason: DropReason,
    },
    /// A client showed what it cannot do; its next requests with the same options are granted less.
    /// Forgotten after ten minutes.
    ClientLimited {
        /// The client.
        peer: SocketAddr,
        /// What it gets at most.
        limit: ClientLimit,
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
    NoReturnAddress,
    /// The same request again, while its transfer makes progress.
    Duplicate,
    /// The server has as many transfers as it may have.
    Full,
    /// This address has as many transfers as it may have.
    ClientFull,
    /// Too many peers that never answered, and none old enough to be let go.
    HalfOpenFull,
    /// Too many transfers of this address that were never answered.
    ClientHalfOpenFull,
    /// Too many transfers of this network (an IPv4 /24, an IPv6 /64) that were never answered.
    NetworkHalfOpenFull,
    /// The access rules do not let this client ask. Where they say so, ERROR 2 was sent.
    Denied,
    /// The server is stopping.
    Stopping,
}

impl DropReason {
    /// The reason in one word, as [`Stats::dropped_by_kind`] counts it; a label for metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::NotARequest => "not_a_request",
            Self::Broadcast => "broadcast",
            Self::NoReturnAddress => "no_return_address",
            Self::Duplicate => "duplicate",
            Self::Full => "full",
            Self::ClientFull => "client_full",
            Self::HalfOpenFull => "half_open_full",
            Self::ClientHalfOpenFull => "client_half_open_full",
            Self::NetworkHalfOpenFull => "network_half_open_full",
            Self::Denied => "denied",
            Self::Stopping => "stopping",
        }
    }

    /// True where the request would be admitted if another transfer ended.
    pub(crate) fn is_shortage(self) -> bool {
        matches!(
            self,
            Self::Full
                | Self::ClientFull
                | Self::HalfOpenFull
                | Self::ClientHalfOpenFull
                | Self::NetworkHalfOpenFull
        )
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "malformed: {why}"),
            Self::NotARequest => f.write_str("not a request"),
            Self::Broadcast => f.write_str("sent to a broadcast address"),
            Self::NoReturnAddress => f.write_str("no address to answer to"),
            Self::Duplicate => f.write_str("duplicate of a running transfer"),
            Self::Full => f.write_str("too many transfers"),
            Self::ClientFull => f.write_str("too many transfers of this client"),
            Self::HalfOpenFull => f.write_str("too many peers that never answered"),
            Self::ClientHalfOpenFull => {
                f.write_str("too many transfers that this client never answered")
            }
            Self::NetworkHalfOpenFull => {
                f.write_str("too many transfers that this network never answered")
            }
            Self::Denied => f.write_str("denied by the access rules"),
            Self::Stopping => f.write_str("server is stopping"),
        }
    }
}

/// What a client that has answered cannot do, as its transfers have shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientLimit {
    /// It lost parts of its windows: its next ones have no more blocks than this.
    Window(u16),
    /// Its first block never arrived: its next blocks have no more bytes than this.
    Blksize(u16),
    /// It refused two OACKs that answered no size probe: its requests are answered without options.
    NoOptions,
}

impl fmt::Display for ClientLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(blocks) => {
                write!(f, "window={blocks} reason=\"lossy windows\"")
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
    pub lossy_windows: u64,
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
                    Fault::Local => log::Level::Warn,
                    Fault::Peer | Fault::None => log::Level::Info,
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
                name,
                served,
                blksize,
                windowsize,
                size,
                mapping_shared: _,
            } => {
                let (gap, other): (_, &dyn fmt::Display) = match served == name {
                    true => ("", &""),
                    false => (" served=", served),
                };
                log::debug!(
                    "started id={id} blksize={blksize} window={windowsize} size={size:?}{gap}{other}"
                );
            }
            Self::Progress { id, bytes } => log::trace!("progress id={id} bytes={bytes}"),
            Self::Dropped { peer, reason } => {
                log::debug!("dropped peer={peer} reason={}", quoted(reason));
            }
            Self::ClientLimited { peer, limit } => {
                log::info!("client-limit peer={} {limit}", peer.ip());
            }
            Self::Lagged { missed } => log::debug!("lagged events={missed}"),
        }
    }
}

/// Counters since the server started: a fold over its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that became a transfer.
    pub requests: u64,
    /// Transfers that are under way now.
    pub active: u64,
    /// Requests answered with an ERROR.
    pub refused: u64,
    /// The same by the code of the ERROR. Their sum is `refused`.
    pub refused_by_code: BTreeMap<ErrorCode, u64>,
    /// Transfers whose last block was acknowledged.
    pub completed: u64,
    /// Probes: requests whose client broke off before the second block.
    pub probes: u64,
    /// Transfers that ended before their last ACK.
    pub failed: u64,
    /// The same by [`TransferError::kind`]. Their sum is `failed`.
    pub failed_by_kind: BTreeMap<&'static str, u64>,
    /// Datagrams thrown away.
    pub dropped: u64,
    /// The same by [`DropReason::kind`]. Their sum is `dropped`.
    pub dropped_by_kind: BTreeMap<&'static str, u64>,
    /// Of these, requests that the access rules deny.
    pub denied: u64,
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
            Event::Refused { id, refusal, .. } => {
                self.refused += 1;
                *self.refused_by_code.entry(refusal.code()).or_default() += 1;
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
            Event::Failed(summary, error) => {
                self.failed += 1;
                *self.failed_by_kind.entry(error.kind()).or_default() += 1;
                self.finish(summary);
            }
            Event::Dropped { reason, .. } => {
                self.dropped += 1;
                *self.dropped_by_kind.entry(reason.kind()).or_default() += 1;
                self.denied += u64::from(*reason == DropReason::Denied);
            }
            Event::Started { mapping_shared, .. } => match mapping_shared {
                Some(true) => self.mapping_hits += 1,
                Some(false) => self.mapping_misses += 1,
                None => {}
            },
            Event::Progress { .. } | Event::ClientLimited { .. } | Event::Lagged { .. } => {}
        }
    }

    fn finish(&mut self, summary: &Summary) {
        self.active = self.active.saturating_sub(1);
        self.bytes += summary.bytes;
        self.retransmits += summary.retransmits;
    }
}

/// What a server holds at the moment. The values are read one after the other, and those of the
/// loop are of its last turn: they may differ from each other by what happens meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gauges {
    /// Transfers, from the answer of the store to the end.
    pub running: usize,
    /// Of these, transfers that wait for a packet, for time or for a worker.
    pub parked: usize,
    /// Requests that were admitted and that the store has not been asked for yet. They wait for a
    /// worker, a port or a socket.
    pub queued: usize,
    /// Requests that are inside the store.
    pub in_store: usize,
    /// Requests and transfers whose peers have not answered yet.
    pub half_open: usize,
    /// Threads of the pool.
    pub workers: usize,
    /// Bytes that streams and netascii transfers have set aside for retransmission.
    pub buffered_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_value_whatever_the_peer_says() {
        let code = crate::wire::ErrorCode(0);
        let text = Name::new(b"bye\" file=\"x");
        assert_eq!(
            quoted(&TransferError::Aborted { code, text }).to_string(),
            r#""peer sent error 0 \"bye\\\" file=\\\"x\"""#
        );
    }
}
