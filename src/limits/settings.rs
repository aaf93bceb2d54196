//! What each setting accepts, declared once: the library checks values by these tables, the command
//! parses and describes its options by them, and a test compares the documentation with them.

use std::fmt;
use std::time::Duration;

/// A setting that has a range: its name, which is that of the field or method, and what it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name of the field or method that takes the value.
    pub name: &'static str,
    least: u64,
    most: u64,
    kind: Kind,
}

/// How the values of a setting are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    /// Bytes, as `64K` or `1T`.
    Size,
    /// Milliseconds, as `10ms` or `365d`.
    Time,
    /// Permission bits, in octal.
    Bits,
    /// Two port numbers.
    Ports,
}

/// A value as a [`Setting`] compares it: a number, or a time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Rounded down.
    down: u64,
    /// Rounded up.
    up: u64,
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self {
            down: number,
            up: number,
        }
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        u64::from(number).into()
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        u64::from(number).into()
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        u64::try_from(number).unwrap_or(u64::MAX).into()
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        let millis = |nanos: u128| u64::try_from(nanos / 1_000_000).unwrap_or(u64::MAX);
        let nanos = time.as_nanos();
        Self {
            down: millis(nanos),
            up: millis(nanos.saturating_add(999_999)),
        }
    }
}

impl Setting {
    /// A whole number.
    pub const fn number(name: &'static str, least: u64, most: u64) -> Self {
        Self::of(Kind::Number, name, least, most)
    }

    const fn size(name: &'static str, least: u64, most: u64) -> Self {
        Self::of(Kind::Size, name, least, most)
    }

    /// A time, in whole milliseconds.
    pub const fn time(name: &'static str, least: Duration, most: Duration) -> Self {
        let (least, most) = (least.as_millis() as u64, most.as_millis() as u64);
        Self::of(Kind::Time, name, least, most)
    }

    const fn ports(name: &'static str) -> Self {
        Self::of(Kind::Ports, name, 1, u16::MAX as u64)
    }

    const fn of(kind: Kind, name: &'static str, least: u64, most: u64) -> Self {
        Self {
            name,
            least,
            most,
            kind,
        }
    }

    /// True where the setting accepts this value.
    pub fn accepts(&self, value: impl Into<Value>) -> bool {
        let Value { down, up } = value.into();
        self.least <= down && up <= self.most
    }

    /// Checks a value.
    ///
    /// # Errors
    /// [`InvalidSetting`] for a value out of the range.
    pub fn check(&self, value: impl Into<Value>) -> Result<(), InvalidSetting> {
        match self.accepts(value) {
            true => Ok(()),
            false => Err(InvalidSetting(*self)),
        }
    }

    /// Checks a value where there is one.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_some(&self, value: Option<impl Into<Value>>) -> Result<(), InvalidSetting> {
        value.map_or(Ok(()), |value| self.check(value))
    }

    /// Checks both ends of a range, and that it is not empty.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_range<T>(
        &self,
        range: Option<&std::ops::RangeInclusive<T>>,
    ) -> Result<(), InvalidSetting>
    where
        T: Into<Value> + PartialOrd + Copy,
    {
        let Some(range) = range else {
            return Ok(());
        };
        self.check(*range.start())?;
        self.check(*range.end())?;
        match range.is_empty() {
            true => Err(InvalidSetting(*self)),
            false => Ok(()),
        }
    }
}

/// What the setting accepts: `1 to 1024`, `10ms to 255s`, `64K or more`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.write(f, self.least)?;
        match self.most {
            u64::MAX => f.write_str(" or more"),
            most => {
                f.write_str(" to ")?;
                self.kind.write(f, most)
            }
        }?;
        match self.kind {
            Kind::Ports => f.write_str(", the lower one first"),
            _ => Ok(()),
        }
    }
}

impl Kind {
    /// In the largest unit that leaves no fraction.
    fn write(self, f: &mut fmt::Formatter<'_>, value: u64) -> fmt::Result {
        let units: &[(u64, &str)] = match self {
            Self::Number | Self::Ports => &[],
            Self::Size => &[
                (1 << 40, "T"),
                (1 << 30, "G"),
                (1 << 20, "M"),
                (1 << 10, "K"),
            ],
            Self::Time => &[
                (24 * 60 * 60 * 1000, "d"),
                (60 * 60 * 1000, "h"),
                (1000, "s"),
                (1, "ms"),
            ],
            Self::Bits => return write!(f, "{value:03o}"),
        };
        let is_whole = |(unit, _): &&(u64, &str)| value > 0 && value.is_multiple_of(*unit);
        match units.iter().find(is_whole) {
            Some((unit, name)) => write!(f, "{}{name}", value / unit),
            None if self == Self::Time => write!(f, "{value}s"), // 0
            None => write!(f, "{value}"),
        }
    }
}

/// A setting has a value that it does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSetting(Setting);

impl InvalidSetting {
    /// The name of the setting: that of the field or method that took the value.
    pub fn name(&self) -> &'static str {
        self.0.name
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(setting) = self;
        write!(f, "{} must be {setting}", setting.name)
    }
}

impl std::error::Error for InvalidSetting {}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The largest number of T that fits into 64 bits.
const LARGEST: u64 = ((1 << 24) - 1) << 40;

/// Of a server: see `ServerConfig`.
pub mod server {
    use super::*;

    /// Threads.
    pub const WORKERS: Setting = Setting::number("workers", 1, 1024);
    /// Time for one call of the store.
    pub const STORE_DEADLINE: Setting = Setting::time("store_deadline", SECOND, HOUR);
    /// Transfers at once. One address has no more ports.
    pub const MAX_TRANSFERS: Setting = transfers("max_transfers");
    /// Transfers at once of one client.
    pub const MAX_TRANSFERS_PER_CLIENT: Setting = transfers("max_transfers_per_client");
    /// Half-open transfers at once.
    pub const MAX_HALF_OPEN: Setting = transfers("max_half_open");
    /// Half-open transfers at once of one client.
    pub const MAX_HALF_OPEN_PER_CLIENT: Setting = transfers("max_half_open_per_client");
    /// Half-open transfers at once of one network.
    pub const MAX_HALF_OPEN_PER_NETWORK: Setting = transfers("max_half_open_per_network");
    /// Bytes kept for retransmission. The least is one large block.
    pub const MAX_BUFFERED: Setting = Setting::size("max_buffered", 64 << 10, u64::MAX);
    /// Bytes in a block (RFC 2348).
    pub const MAX_BLOCK_SIZE: Setting = block_size("max_block_size");
    /// Blocks in a window.
    pub const MAX_WINDOW_SIZE: Setting = window_size("max_window_size");
    /// Retransmission interval, as tftp-hpa's.
    pub const TIMEOUT: Setting = super::TIMEOUT;
    /// Retransmissions into silence.
    pub const RETRIES: Setting = super::RETRIES;
    /// Blocks in a minute.
    pub const MIN_PROGRESS: Setting = Setting::number("min_progress", 0, 65_535);
    /// Time for one transfer.
    pub const MAX_TIME: Setting = Setting::time("max_time", SECOND, YEAR);
    /// Ports of transfers.
    pub const PORTS: Setting = Setting::ports("ports");

    /// All of them.
    pub const ALL: &[Setting] = &[
        WORKERS,
        STORE_DEADLINE,
        MAX_TRANSFERS,
        MAX_TRANSFERS_PER_CLIENT,
        MAX_HALF_OPEN,
        MAX_HALF_OPEN_PER_CLIENT,
        MAX_HALF_OPEN_PER_NETWORK,
        MAX_BUFFERED,
        MAX_BLOCK_SIZE,
        MAX_WINDOW_SIZE,
        TIMEOUT,
        RETRIES,
        MIN_PROGRESS,
        MAX_TIME,
        PORTS,
    ];

    const fn transfers(name: &'static str) -> Setting {
        Setting::number(name, 1, crate::limits::MAX_TRANSFERS as u64)
    }
}

/// Of a client: see `Client`.
pub mod client {
    use super::*;

    /// Bytes in a block (RFC 2348).
    pub const BLKSIZE: Setting = block_size("blksize");
    /// Blocks in a window.
    pub const WINDOWSIZE: Setting = window_size("windowsize");
    /// Retransmission interval.
    pub const TIMEOUT: Setting = super::TIMEOUT;
    /// Retransmissions into silence.
    pub const RETRIES: Setting = super::RETRIES;
    /// Time for one file.
    pub const MAX_TIME: Setting = Setting::time("max_time", MILLISECOND, YEAR);
    /// Silence behind the last block of an upload.
    pub const FINAL_TIMEOUT: Setting = Setting::time("final_timeout", Duration::ZERO, YEAR);
    /// Bytes of a file.
    pub const MAX_SIZE: Setting = Setting::size("max_size", 1, LARGEST);
    /// Local ports.
    pub const LOCAL_PORTS: Setting = Setting::ports("local_ports");

    /// All of them.
    pub const ALL: &[Setting] = &[
        BLKSIZE,
        WINDOWSIZE,
        TIMEOUT,
        RETRIES,
        MAX_TIME,
        FINAL_TIMEOUT,
        MAX_SIZE,
        LOCAL_PORTS,
    ];
}

/// Of a directory: see `DirBuilder`.
pub mod directory {
    use super::*;

    /// Bytes of an upload.
    pub const MAX_UPLOAD: Setting = Setting::size("max_upload", 1, LARGEST);
    /// Permission bits that uploads do not get.
    pub const UMASK: Setting = Setting::of(Kind::Bits, "umask", 0, 0o777);

    /// All of them.
    pub const ALL: &[Setting] = &[MAX_UPLOAD, UMASK];
}

const TIMEOUT: Setting = Setting::time(
    "timeout",
    Duration::from_millis(10),
    Duration::from_secs(255),
);
const RETRIES: Setting = Setting::number("retries", 0, 100);

const fn block_size(name: &'static str) -> Setting {
    let (least, most) = (crate::limits::MIN_BLKSIZE, crate::limits::MAX_BLKSIZE);
    Setting::number(name, least as u64, most as u64)
}

const fn window_size(name: &'static str) -> Setting {
    Setting::number(name, 1, crate::limits::MAX_WINDOWSIZE as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_their_values_are_typed() {
        let all = [
            (server::WORKERS, "1 to 1024"),
            (server::STORE_DEADLINE, "1s to 1h"),
            (server::MAX_BUFFERED, "64K or more"),
            (server::TIMEOUT, "10ms to 255s"),
            (server::RETRIES, "0 to 100"),
            (server::MAX_TIME, "1s to 365d"),
            (server::PORTS, "1 to 65535, the lower one first"),
            (client::FINAL_TIMEOUT, "0s to 365d"),
            (client::MAX_SIZE, "1 to 16777215T"),
            (directory::UMASK, "000 to 777"),
        ];
        for (setting, text) in all {
            assert_eq!(setting.to_string(), text, "{}", setting.name);
        }
        let error = server::WORKERS.check(0_usize).expect_err("out of range");
        assert_eq!(error.to_string(), "workers must be 1 to 1024");
    }

    #[test]
    fn both_ends_belong_to_a_range_and_nothing_beyond_them() {
        let time = |nanos| server::TIMEOUT.accepts(Duration::from_nanos(nanos));
        assert!(!time(9_999_999) && time(10_000_000));
        assert!(time(255_000_000_000) && !time(255_000_000_001));
        assert!(!server::MAX_TIME.accepts(Duration::MAX));
        let workers = |count: usize| server::WORKERS.accepts(count);
        assert!(!workers(0) && workers(1) && workers(1024) && !workers(1025));
        assert!(server::MAX_BUFFERED.accepts(u64::MAX));
        assert!(directory::UMASK.accepts(0o777_u32) && !directory::UMASK.accepts(0o1000_u32));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    fn a_range_of_ports_goes_upwards_and_begins_above_0() {
        let check = |ports| server::PORTS.check_range::<u16>(Some(&ports)).is_ok();
        assert!(check(1..=65535) && check(69..=69));
        assert!(!check(0..=69) && !check(70..=69));
        assert!(server::PORTS.check_range::<u16>(None).is_ok());
    }

    #[test]
    fn no_table_has_a_name_twice() {
        for table in [server::ALL, client::ALL, directory::ALL] {
            let mut names: Vec<_> = table.iter().map(|setting| setting.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.len());
        }
    }
}
