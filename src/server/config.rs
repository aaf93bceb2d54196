//! What a server grants and how much it takes on.

use crate::error::Error;
use crate::limits;
use crate::limits::settings::server as accepted;
use crate::proto::Retransmit;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What a server grants and how much it takes on. [`Default`] is right for a room full of boards.
///
/// ```
/// let mut config = tftpool::ServerConfig::default();
/// config.workers = 4;
/// ```
///
/// A value out of its range is an error where the server starts:
/// [`ServerBuilder::listen`](crate::ServerBuilder::listen).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Threads that run transfers: 1 to 1024. They are started when they are needed.
    pub workers: usize,
    /// How long the store may take to answer a request before its client gets an ERROR: 1s to 1h.
    pub store_deadline: Duration,
    /// Transfers at once: 1 to 65536. Each holds a socket and perhaps a file: two descriptors. One
    /// client address has 15 of 16 places at most, and never the last of two or more: the rest is
    /// for addresses that have none.
    pub max_transfers: usize,
    /// Transfers at once of one client address: 1 to 65536, or `None` for no limit. Whole labs sit
    /// behind one address.
    pub max_transfers_per_client: Option<usize>,
    /// Half-open transfers at once: 1 to 65536. Their peers have not answered yet, so their
    /// addresses may be forged. At the limit, the oldest that is at least a second old makes room.
    /// `None` for as many as `max_transfers`; never more than half of the ports that one local
    /// address has.
    pub max_half_open: Option<usize>,
    /// Half-open transfers at once of one client address: 1 to 65536, or `None` for no limit of its
    /// own.
    pub max_half_open_per_client: Option<usize>,
    /// Half-open transfers at once of one network, an IPv4 /24 or an IPv6 /64: 1 to 65536, or
    /// `None` for no limit of its own.
    pub max_half_open_per_network: Option<usize>,
    /// Bytes that streams and netascii transfers may keep for retransmission, all together: 64K or
    /// more. When they are used up, windows and blocks get smaller.
    pub max_buffered: u64,
    /// Largest block size that is agreed, in bytes: 8 to 65464 (RFC 2348).
    pub max_block_size: u16,
    /// Agree to no block size that the route to the client does not carry in one piece.
    pub fit_route: bool,
    /// Largest window that is agreed, in blocks: 1 to 32767 (RFC 7440). The bytes in a window are
    /// limited too.
    pub max_window_size: u16,
    /// Retransmission interval where the client asks for none: 10ms to 255s. It doubles up to four
    /// times itself.
    pub timeout: Duration,
    /// Retransmissions in one silence, after which a transfer fails: 0 to 100.
    pub retries: u32,
    /// When to retransmit.
    pub retransmit: Retransmit,
    /// Blocks, or 4 KiB for each of them, that a client must get through in a minute: 0 to 65535. 0
    /// asks for none.
    pub min_progress: u32,
    /// The longest that a transfer may take: 1s to 365d.
    pub max_time: Duration,
    /// Ports for transfers (the server's TIDs): 1 to 65535, the lower one first. `None` leaves the
    /// choice to the system.
    pub ports: Option<RangeInclusive<u16>>,
    /// Remember for ten minutes which clients need smaller windows or blocks, or no options.
    pub client_history: bool,
    /// Forbid routers to fragment blocks.
    pub dont_fragment: bool,
    /// Listen also on an address that no interface has yet. The server takes requests there as soon
    /// as one has it. Linux only.
    pub freebind: bool,
    /// Answer read requests that are sent to an IPv4 broadcast address, from the address of the
    /// interface they come in by. RFC 1123 has them ignored. No ERROR goes to such a request:
    /// another server may have the file.
    pub answer_broadcast: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            workers: limits::DEFAULT_WORKERS,
            store_deadline: limits::STORE_DEADLINE,
            max_transfers: limits::DEFAULT_TRANSFERS,
            max_transfers_per_client: None,
            max_half_open: None,
            max_half_open_per_client: None,
            max_half_open_per_network: None,
            max_buffered: limits::BUFFERED_TOTAL_OCTETS,
            max_block_size: limits::MAX_BLKSIZE,
            fit_route: true,
            max_window_size: limits::MAX_WINDOWSIZE,
            timeout: limits::DEFAULT_TIMEOUT,
            retries: limits::DEFAULT_RETRIES,
            retransmit: Retransmit::Adaptive,
            min_progress: limits::MIN_PROGRESS,
            max_time: limits::MAX_TIME,
            ports: None,
            client_history: true,
            dont_fragment: false,
            freebind: false,
            answer_broadcast: false,
        }
    }
}

impl ServerConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        accepted::WORKERS.check(self.workers)?;
        accepted::STORE_DEADLINE.check(self.store_deadline)?;
        accepted::MAX_TRANSFERS.check(self.max_transfers)?;
        accepted::MAX_TRANSFERS_PER_CLIENT.check_some(self.max_transfers_per_client)?;
        accepted::MAX_HALF_OPEN.check_some(self.max_half_open)?;
        accepted::MAX_HALF_OPEN_PER_CLIENT.check_some(self.max_half_open_per_client)?;
        accepted::MAX_HALF_OPEN_PER_NETWORK.check_some(self.max_half_open_per_network)?;
        accepted::MAX_BUFFERED.check(self.max_buffered)?;
        accepted::MAX_BLOCK_SIZE.check(self.max_block_size)?;
        accepted::MAX_WINDOW_SIZE.check(self.max_window_size)?;
        accepted::TIMEOUT.check(self.timeout)?;
        accepted::RETRIES.check(self.retries)?;
        accepted::MIN_PROGRESS.check(self.min_progress)?;
        accepted::MAX_TIME.check(self.max_time)?;
        accepted::PORTS.check_range(self.ports.as_ref())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The changes that break one range each, by the names of the settings.
    type Breaking = (&'static str, fn(&mut ServerConfig));

    const BREAKING: &[Breaking] = &[
        ("workers", |it| it.workers = 1025),
        ("store_deadline", |it| it.store_deadline = Duration::ZERO),
        ("max_transfers", |it| it.max_transfers = 0),
        ("max_transfers_per_client", |it| {
            it.max_transfers_per_client = Some(0);
        }),
        ("max_half_open", |it| it.max_half_open = Some(65_537)),
        ("max_half_open_per_client", |it| {
            it.max_half_open_per_client = Some(0);
        }),
        ("max_half_open_per_network", |it| {
            it.max_half_open_per_network = Some(0);
        }),
        ("max_buffered", |it| it.max_buffered = 65_535),
        ("max_block_size", |it| it.max_block_size = 7),
        ("max_window_size", |it| it.max_window_size = 32_768),
        ("timeout", |it| it.timeout = Duration::from_secs(256)),
        ("retries", |it| it.retries = 101),
        ("min_progress", |it| it.min_progress = 65_536),
        ("max_time", |it| it.max_time = Duration::ZERO),
        ("ports", |it| it.ports = Some(0..=9)),
    ];

    #[test]
    fn each_setting_of_the_table_is_checked() {
        assert!(ServerConfig::default().check().is_ok());
        for (name, change) in BREAKING {
            let mut config = ServerConfig::default();
            change(&mut config);
            match config.check() {
                Err(Error::Setting(wrong)) => assert_eq!(wrong.name(), *name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let tried: BTreeSet<_> = BREAKING.iter().map(|(name, _)| *name).collect();
        let table: BTreeSet<_> = accepted::ALL.iter().map(|it| it.name).collect();
        assert_eq!(tried, table);
    }

    /// The comment above each field says what the table says.
    #[test]
    fn each_comment_names_the_range() {
        let source = include_str!("config.rs");
        for setting in accepted::ALL {
            let field = format!("    pub {}: ", setting.name);
            let (before, _) = source.split_once(&field).expect("a field");
            let comment: Vec<_> = before
                .lines()
                .rev()
                .map_while(|line| line.trim_start().strip_prefix("/// "))
                .collect();
            let comment = comment.into_iter().rev().collect::<Vec<_>>().join(" ");
            let range = setting.to_string();
            assert!(comment.contains(&range), "{}: {comment}", setting.name);
        }
    }
}
