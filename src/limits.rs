//! Limits, times and sizes, each with its reason. Units are in the names where the type does not
//! carry them.

pub mod settings;

use std::time::Duration;

// ---- wire ---------------------------------------------------------------------------------

/// Block size when none is agreed (RFC 1350 §2).
pub const DEFAULT_BLKSIZE: u16 = 512;
/// Smallest block size that may be agreed (RFC 2348).
pub const MIN_BLKSIZE: u16 = 8;
/// Largest block size that may be agreed (RFC 2348).
pub const MAX_BLKSIZE: u16 = 65464;
/// Largest window that is ever agreed, in blocks. RFC 7440 allows 65535, but numbers are compared
/// modulo 65536: with half of them in flight a late ACK of the window before looks like one of this
/// window, and data would be skipped.
pub const MAX_WINDOWSIZE: u16 = 32767;
/// Octets before the payload of a DATA packet.
pub const DATA_HEADER: usize = 4;
/// Longest file name taken from a request, in octets. RFC 2347 ends a whole request at 512;
/// firmware that ignores it stays under this.
pub const MAX_NAME: usize = 1024;
/// Longest file name that a client of ours asks for: with mode and every option the request stays
/// within the 512 octets of RFC 2347.
pub const MAX_ASKED_NAME: usize = 400;
/// Option pairs looked at in one packet; the standard ones are seven. Later ones count as unknown.
pub const MAX_OPTIONS: usize = 16;
/// Bytes of unknown options that are kept of one request: more than any known client sends. They
/// are held for as long as the transfer.
pub const MAX_UNKNOWN_OPTION_BYTES: usize = 256;
/// Longest option name that is compared at all.
pub const MAX_OPTION_NAME: usize = 32;
/// Receive buffer for requests. A longer datagram arrives truncated and is refused.
pub const MAX_REQUEST: usize = 2048;
/// Longest ERROR text that is sent, and kept of one received. Keeps an ERROR near the size of a
/// request.
pub const MAX_ERROR_TEXT: usize = 127;
/// `timeout` in seconds (RFC 2349): 1 to this.
pub const MAX_TIMEOUT_SECONDS: u64 = 255;
/// `utimeout` in microseconds, the range tftp-hpa agrees to.
pub const UTIMEOUT_MICROS: std::ops::RangeInclusive<u64> = 10_000..=255_000_000;

// ---- protocol machines --------------------------------------------------------------------

/// First retransmission interval when the peer asked for none (RFC 1123 §4.2.3.2 wants it adaptive:
/// see `proto::timer`).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// The unagreed interval doubles up to this many times itself.
pub const TIMEOUT_GROWTH: u32 = 4;
/// The same behind the last block of an upload, whose ACK may take as long as writing the flash of
/// a device: seven copies in a minute.
pub const FINAL_TIMEOUT_GROWTH: u32 = 16;
/// Resends after which silence ends a transfer.
pub const DEFAULT_RETRIES: u32 = 5;
/// Earliest probe after a send: below this a scheduler hiccup looks like a loss. A sender that has
/// seen losses halves it.
pub const PROBE_FLOOR: Duration = Duration::from_millis(20);
/// Until a loss was seen on a transfer, a silence is not probed earlier than this. Boards pause for
/// up to a quarter of a second while they store what they have, and some of them count DATA packets
/// instead of comparing block numbers (raspberrypi/firmware#1631).
pub const PAUSE_FLOOR: Duration = Duration::from_millis(300);
/// An OACK is not repeated earlier than this on our own account: atftp aborts on a second one.
pub const OACK_INTERVAL: Duration = Duration::from_secs(1);
/// Sends of a DATA 1 to a peer that has never answered: its address may be forged.
pub const HALF_OPEN_DATA_SENDS: u32 = 2;
/// Sends of an OACK to a peer that has never answered while the server is calm. An OACK is about as
/// long as the request.
pub const HALF_OPEN_OACK_SENDS: u32 = 4;
/// Answers that a client gets at once by repeating its request from the same port. busybox repeats
/// most often, eight times in 5 s.
pub const REPEATED_REQUESTS: u32 = 8;
/// That budget refills by one answer in this time. A board whose receive path is not ready yet
/// repeats one request every two seconds for minutes (the EEPROM of a Raspberry Pi 4), and hears an
/// answer whenever its path gets ready.
pub const REPEAT_REFILL: Duration = Duration::from_secs(1);
/// A request that comes again this soon behind the answer is a copy: no client asks faster
/// (busybox: 100 ms).
pub const REQUEST_SPREAD: Duration = Duration::from_millis(50);
/// From the third repeat of one ACK on, a window is sent again at most this often.
pub const REPEATED_ACK_INTERVAL: Duration = Duration::from_millis(200);
/// Blocks a burst may hold until a window larger than this has come back whole: U-Boot on virtio
/// has 32 receive buffers, and iPXE's drivers have fewer.
pub const FIRST_BURST: u64 = 16;
/// Smallest burst that pacing goes down to.
pub const SMALLEST_BURST: u64 = 2;
/// Gap between two bursts of one window: 16 blocks of 1468 octets take 200 µs on gigabit Ethernet.
pub const BURST_GAP: Duration = Duration::from_micros(250);
/// The gap doubles up to this when bursts keep getting lost.
pub const BURST_GAP_MAX: Duration = Duration::from_millis(4);
/// Octets in flight per transfer. More makes nothing faster (a round trip of 30 ms at 1 Gbit/s
/// fills as much), costs more to repeat when its first block is lost, and lets one client fill the
/// kernel's queues.
pub const IN_FLIGHT_OCTETS: u64 = 4 << 20;
/// Bytes in flight for each port that the answer can come from. The client's first ACK proves its
/// address weakly: a host that sees no answer can send ACK 0 to every port, 32 bytes of IPv4 each,
/// and draws one window of each half-open transfer of the TID.
pub const IN_FLIGHT_PER_PORT: u64 = 64;
/// Where there are few ports, this much is granted all the same: windows of 64 blocks of 1428
/// bytes.
pub const LEAST_IN_FLIGHT: u64 = 64 * 1428;
/// Bytes beyond one block a time that timers may send again into silence, at first; each ACK that
/// moves on adds
/// [`SILENT_BYTES_PER_ACK`]. An ACK that is forged blindly costs its sender a sweep of all ports.
pub const SILENT_BYTES: u64 = 96 << 10;
/// See [`SILENT_BYTES`].
pub const SILENT_BYTES_PER_ACK: u64 = 64 << 10;
/// The most that a transfer saves of it: every window a few times.
pub const SILENT_BYTES_MOST: u64 = 4 * IN_FLIGHT_OCTETS;
/// Octets in flight when they must be kept in memory (streams, netascii).
pub const BUFFERED_OCTETS: u64 = 1 << 20;

/// What a server asks of its peers: so many blocks in a minute. 136 octets a second is less than
/// any boot ROM or flash chip takes, and more than one who only wants to be kept will send.
pub const MIN_PROGRESS: u32 = 16;
/// Instead of a block so many octets count, where blocks are larger: 16 blocks or 64 KiB.
pub const PROGRESS_BLOCK_OCTETS: u64 = 4 << 10;
/// How often progress is looked at.
pub const PROGRESS_PERIOD: Duration = Duration::from_secs(60);
/// The longest that a transfer may take. 4 GiB at the least progress of 64 KiB a minute would take
/// weeks; a day is more than any boot.
pub const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// What streams and netascii transfers may keep for resending, all together: 64 large windows.
pub const BUFFERED_TOTAL_OCTETS: u64 = 64 << 20;
/// One transfer takes no more than this part of what is left of it, so that many find some.
pub const BUFFERED_SHARE: u64 = 8;
/// Its block size is not pressed below this: a window of one such block is always granted.
pub const BUFFERED_BLKSIZE: u16 = 1428;

// ---- sending ------------------------------------------------------------------------------

/// Segments one `sendmsg` with `UDP_SEGMENT` may carry (`UDP_MAX_SEGMENTS` of older kernels).
pub const BURST_SEGMENTS: usize = 64;
/// Octets one `sendmsg` may carry: the largest UDP payload over IPv4.
pub const BURST_OCTETS: usize = 65507;
/// Datagrams of strangers that one receive passes over. They can only have come between `bind` and
/// `connect`.
pub const STRANGERS_SKIPPED: usize = 16;
/// ERRORs (RFC 1350 §4) that one transfer sends to strangers, 24 octets each. A server that has
/// answered twice needs one; with a forged source there is nothing to gain.
pub const STRANGERS_TOLD: u32 = 3;
/// Errors in a row that the listening socket may report (ICMP answers to replies) before they are
/// passed up.
pub const LISTENER_ERRORS: usize = 16;

/// Smallest block size for which the route's MTU is asked: every IPv6 link carries it in one piece
/// (RFC 8200 §5), and smaller IPv4 links are as good as gone.
pub const UNCHECKED_BLKSIZE: u16 = 1280 - 40 - 8 - DATA_HEADER as u16;

// ---- receiving ----------------------------------------------------------------------------

/// Octets one receive may bring: a datagram of the largest size, or several that the kernel has put
/// together.
pub const RECEIVE_OCTETS: usize = 64 << 10;
/// Kernel receive buffer asked for, at least, where windows are received. The kernel gives what it
/// may (twice 208 KiB by default) and counts about 1280 bytes for a block of 512.
pub const RECEIVE_BUFFER_OCTETS: usize = 512 << 10;
/// Largest receive buffer asked for: the bytes in flight of one transfer, with what the kernel
/// counts for them.
pub const MAX_RECEIVE_BUFFER_OCTETS: usize = 8 << 20;
/// Octets in one window that is granted to an upload: so many fit into that buffer even where
/// blocks are small and the receiver is busy. A larger window would be torn at its end.
pub const RECEIVED_WINDOW_OCTETS: u64 = 128 << 10;
/// How long the last ACK of an upload is repeated on demand (RFC 1350 §6). tftp-hpa, atftp and
/// U-Boot send their last block again after 5 s.
pub const DALLY: Duration = Duration::from_secs(6);
// ---- client -------------------------------------------------------------------------------

/// Block size that a client asks for: it fits into one packet of Ethernet also over IPv6, VLAN tags
/// and PPPoE.
pub const CLIENT_BLKSIZE: u16 = 1428;
/// Window that a client asks for, in blocks: with blocks of 1428 octets within what every system's
/// receive buffer holds.
pub const CLIENT_WINDOWSIZE: u16 = 16;
/// Octets of a file that a client takes unless told otherwise: more than any boot image, less than
/// most disks.
pub const MAX_DOWNLOAD: u64 = 16 << 30;
/// How long a client repeats its last ACK on demand (RFC 1350 §6), where packets were lost. Most
/// servers send their last block again after a second.
pub const CLIENT_DALLY: Duration = Duration::from_millis(1500);
/// Silence behind the last block of a client's upload until it is given up: a device may write its
/// flash before it acknowledges that block. 25 s were seen.
pub const CLIENT_FINAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a client tells its progress, at most.
pub const CLIENT_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Octets that a client collects before it writes them out: fewer system calls than blocks.
pub const WRITE_OCTETS: usize = 256 << 10;

// ---- files that arrive --------------------------------------------------------------------

/// Largest file that is taken, unless asked otherwise: larger than any configuration, log or crash
/// dump of a board, and not a disk.
pub const MAX_UPLOAD: u64 = 1 << 30;
/// Bits that no uploaded file gets, unless asked otherwise: everybody may read it, as a server
/// wants it that serves it again.
pub const UMASK: u32 = 0o022;
/// Numbers tried behind a name that others take at the same moment.
pub const UNIQUE_NAMES_TRIED: u32 = 16;
/// The first of them are searched for; a search costs a system call or two for each bit of the
/// number. The others are random.
pub const UNIQUE_SEARCHES: u32 = 8;
/// Hidden names tried, of 64 random bits each. A name is lost only to a server that starts at this
/// moment and takes the new file for a leftover.
pub const HIDDEN_NAMES_TRIED: usize = 64;
/// Names looked at while leftovers are searched for at the start: a tenth of a second.
pub const LEFTOVERS_LOOKED_AT: usize = 100_000;

// ---- server -------------------------------------------------------------------------------

/// The port of TFTP requests (RFC 1350 §4).
pub const PORT: u16 = 69;
/// Threads that run transfers, unless asked otherwise. They block on files and on a lone client's
/// socket; waiting clients cost none.
pub const DEFAULT_WORKERS: usize = 16;
/// Most transfers at once that can be asked for; there are no more ports on one address.
pub const MAX_TRANSFERS: usize = 65_536;
/// Descriptors that one transfer may hold: its socket, and its file where that is too small to be
/// mapped and shared.
pub const DESCRIPTORS_PER_TRANSFER: usize = 2;
/// Descriptors that an upload holds: its socket, its file, and the directory in which that gets its
/// name.
pub const DESCRIPTORS_PER_UPLOAD: usize = 3;
/// Descriptors kept back from transfers: listening sockets, the poll, log, root, mapped files.
pub const SPARE_DESCRIPTORS: usize = 64;
/// Transfers at once for an embedder who says nothing: most systems let a process have 1024
/// descriptors. The command raises that limit and sizes itself by it.
pub const DEFAULT_TRANSFERS: usize = (1024 - SPARE_DESCRIPTORS) / DESCRIPTORS_PER_TRANSFER;
/// How long a worker waits on a quiet peer's own socket before it hands the transfer back.
pub const PATIENCE: Duration = Duration::from_millis(4);
/// What the loop's clock counts in. A transfer that pauses for less, between two bursts of a
/// window, keeps its thread.
pub const LOOP_TICK: Duration = Duration::from_millis(1);
/// How long one transfer may keep a worker while others wait.
pub const SLICE: Duration = Duration::from_millis(20);
/// Bytes that one transfer may send or store in one turn while others wait; a burst that has begun
/// is sent whole. A window may hold 4 MiB, and a round of many such windows takes half a second.
pub const SLICE_BYTES: u64 = 128 * 1024;
/// A worker that has taken no step for so long is stuck, in a store or in a file whose disk does
/// not answer: another one may be started in its place, and what it has of the store's places goes
/// to others.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);
/// Workers that may be started in place of stuck ones. Each costs a stack, of which a stuck one
/// uses a page or two.
pub const SPARE_WORKERS: usize = 64;
/// A worker that was started in place of a stuck one goes after so long without work: those that
/// hang may do so for hours.
pub const SPARE_IDLE: Duration = Duration::from_secs(10);
/// How long the store may take to answer a request before the client is told. Long enough for a
/// disk that has to spin up first; a client that has asked for so long will not ask much longer.
pub const STORE_DEADLINE: Duration = Duration::from_secs(10);
/// Openings handed out per continued transfer while both wait.
pub const OPENINGS_PER_TURN: u32 = 4;
/// How long a request waits for a free port or descriptor; twice as long where one is just being
/// closed for it.
pub const PORT_WAIT: Duration = Duration::from_secs(1);
/// A port of the range that another program holds is tried again after this.
pub const PORT_ASIDE: Duration = Duration::from_millis(500);
/// One port in this many of the system's range is left to other programs, and to the kernel's
/// search for a free one.
pub const PORT_HEADROOM: usize = 16;
/// How long an unanswered transfer is left alone before it may make room for a new one.
pub const HALF_OPEN_CHANCE: Duration = Duration::from_secs(1);
/// How long at least, where unanswered transfers have taken all that there is for them. A board in
/// the same network answers within a few milliseconds.
pub const HALF_OPEN_MIN_AGE: Duration = Duration::from_millis(50);
/// Each window that a peer has acknowledged lets its transfer be silent for this much longer before
/// it may make room. An address that sends two packets for each transfer does not hold places for
/// as long as a board that boots.
pub const SILENCE_PER_WINDOW: Duration = Duration::from_secs(1);
/// No transfer may be silent for longer than this without being one of those that may make room.
pub const MOST_SILENCE: Duration = Duration::from_secs(60);
/// An address that has a transfer gets another one only if this many transfers, or fewer, come to
/// each place that stays free. So one place in 16, and at least one of two or more, is kept for
/// addresses that have no transfer.
pub const SHARE_PER_FREE_PLACE: usize = 15;
/// How long something learned about a client is remembered: longer than a boot that is tried again,
/// shorter than a repair.
pub const CLIENT_HISTORY_TIME: Duration = Duration::from_secs(10 * 60);
/// Addresses about which something is remembered, and sets of options for each: a few megabytes at
/// most.
pub const CLIENT_HISTORY_CLIENTS: usize = 4096;
/// See [`CLIENT_HISTORY_CLIENTS`].
pub const CLIENT_LIMITS_PER_CLIENT: usize = 4;
/// Transfers from two ports of one address that make progress beside each other for so long belong
/// to two clients. Shorter is a last ACK that was handled late.
pub const CLIENT_HISTORY_OVERLAP: Duration = Duration::from_millis(100);
/// Torn windows in one transfer that teach something; fewer are bad luck.
pub const CLIENT_LIMIT_LOSSY_WINDOWS: u64 = 4;
/// No smaller window is offered for that: it would cost more than it saves.
pub const CLIENT_LIMIT_WINDOW: u16 = 4;
/// OACKs refused in a row before none is sent any more. One may be a user who changed his mind.
pub const CLIENT_LIMIT_REFUSALS: u32 = 2;
/// Copies of the first block that must have been lost before it counts as too large.
pub const CLIENT_LIMIT_OPENING_RESENDS: u64 = 3;
/// What is then agreed instead: what fits a VLAN in a VPN, what fits most tunnels, what always
/// fits.
pub const CLIENT_LIMIT_BLKSIZES: [u16; 3] = [1428, 1024, DEFAULT_BLKSIZE];
/// Transfers one TID may have at once: the current one and those it replaces.
pub const TRANSFERS_PER_TID: usize = 4;
/// Half-open transfers that one TID may have: a client that asks for another file from the same
/// port has given the older request up. The second is for requests that overtake each other. A
/// forged ACK to every port reaches all transfers of its TID.
pub const HALF_OPEN_PER_TID: usize = 2;
/// Kernel receive buffer of the listening sockets: a thousand boards ask within a millisecond.
pub const REQUEST_BUFFER_OCTETS: usize = 4 << 20;
/// ERROR replies a second, in all, to what starts nothing: malformed requests and uploads to a
/// server that takes none. A person with a mistyped command gets one; a flood with a forged source
/// is not passed on.
pub const ERRORS_PER_SECOND: u32 = 100;
/// ERROR replies a second, in all, to requests that the store refused. 5,000 boards ask for eight
/// names each before the one that exists, and each must be told at once; an ERROR is about as long
/// as its request.
pub const REFUSALS_PER_SECOND: u32 = 20_000;
/// Log lines in any second about requests that were refused, were probes, or failed before a byte
/// got through: any host can send those. Further ones are counted. With -v there is no limit.
pub const REFUSAL_LINES_PER_SECOND: u32 = 200;
/// Events an embedder may leave unread; later ones are counted in `Event::Lagged`.
pub const EVENT_QUEUE: usize = 16_384;
/// How long a driver that is told to stop lets running transfers go on.
pub const DRIVER_DRAIN: Duration = Duration::from_secs(5);
/// A transfer that goes on says so this often, to readers of events.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Mapped files kept while unused, and how long.
pub const CACHED_MAPPINGS: usize = 64;
/// See [`CACHED_MAPPINGS`].
pub const MAPPING_IDLE: Duration = Duration::from_secs(30);
/// Files up to this size are read, not mapped: a page-table entry costs more than a copy.
pub const MAP_FROM_OCTETS: u64 = 64 << 10;
/// Bytes read of a file that says it is empty: procfs has more, and most of its files fit.
pub const PROBED_OCTETS: usize = 4 << 10;
/// Symbolic links followed by hand for one name: as many as Linux follows by itself, so that both
/// ways agree.
pub const MAX_LINKS: usize = 40;
/// Directories within directories that are removed as one tree, or that a name leads down where it
/// is looked up by hand: each level holds a descriptor meanwhile.
pub const MAX_TREE_DEPTH: usize = 64;
/// `openat2` answers `EAGAIN` while somebody renames in the tree; so often it is asked again.
pub const OPEN_ATTEMPTS: usize = 32;

// ---- names --------------------------------------------------------------------------------

/// Names of one directory that are looked at for one in another case.
pub const MAX_LISTED: usize = 100_000;
/// Bytes of a map file. A thousand rules take 50 KiB.
pub const MAP_FILE_BYTES: usize = 1 << 20;
/// Rules of a map file: each holds a compiled expression.
pub const MAP_RULES: usize = 10_000;
/// Steps that one name may take through the rules, beside one for each rule: the limit of
/// tftpd-hpa.
pub const MAP_STEPS: usize = 4096;
/// Names that the rules may look up for one request: each is a call into the store.
pub const MAP_PROBES: usize = 256;
