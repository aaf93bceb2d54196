//! Boot loaders: what they send, when they repeat it, and how they misbehave.
//!
//! The figures were measured on the wire with the versions named at each profile, unless it says
//! otherwise. Nothing of the library's own machines is used here: a rig that shared their mistakes
//! would not see them.

use super::now;
use crate::wire::{self, Options, Packet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Octets of a block where no size was agreed.
const PLAIN: usize = 512;

/// A boot loader. Made by one of the functions below, and changed where a test wants another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// What it is.
    pub name: &'static str,
    /// Where the figures come from.
    pub source: &'static str,
    /// Names that it asks for before the file; they may be missing.
    pub before: Vec<&'static str>,
    /// A first request that only wants to know the size.
    pub probe: Option<Probe>,
    /// Options of its request, in this order.
    pub options: Vec<(&'static str, String)>,
    /// All requests come from one port; else each has its own.
    pub one_port: bool,
    /// How long after the first request it is sent again, in the end once more to give up.
    pub requests: Vec<Duration>,
    /// It repeats its last ACK after so much silence.
    pub ack_after: Duration,
    /// So many ACKs in one silence, and it gives up.
    pub acks: u32,
    /// What it does about a block that is missing in a window.
    pub hole: Hole,
    /// It answers a block that comes again with its ACK again.
    pub answers_copies: bool,
    /// Most blocks that it can count.
    pub most_blocks: Option<u64>,
}

/// A request that is ended by an ERROR as soon as the OACK has told the size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its options.
    pub options: Vec<(&'static str, String)>,
    /// The ERROR's code.
    pub code: u16,
    /// The ERROR's text.
    pub text: &'static str,
}

/// What a loader does about a block that is missing in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hole {
    /// It says once where it stands, and then waits for its own timer.
    Once,
    /// It waits for its own timer.
    Never,
}

/// How a boot went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Boot {
    /// The file.
    pub content: Vec<u8>,
    /// The size that the probe was told, where the loader probes.
    pub size: Option<u64>,
    /// Names that were asked for before, and were missing.
    pub missing: u32,
    /// Request datagrams that were sent.
    pub requests: u32,
    /// ACKs that were sent again.
    pub repeated_acks: u32,
    /// DATA datagrams that had come before.
    pub copies: u32,
}

/// Why a loader gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootFailure {
    /// Nothing answered its requests.
    Unanswered,
    /// The server refused.
    Refused {
        /// The ERROR's code.
        code: u16,
        /// Its text.
        text: String,
    },
    /// The server fell silent behind this block.
    Silent {
        /// The last block that came.
        block: u64,
    },
    /// The probe was not told a size: firmware does not ask again.
    NoSize,
    /// The file has more blocks than it can count.
    TooLong,
    /// The server sent what it must not send.
    Broken(String),
}

impl fmt::Display for BootFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered => f.write_str("nobody answered"),
            Self::Refused { code, text } => write!(f, "refused: {text:?} (code {code})"),
            Self::Silent { block } => write!(f, "the server fell silent behind block {block}"),
            Self::NoSize => f.write_str("the size probe was not told a size"),
            Self::TooLong => f.write_str("the file has too many blocks"),
            Self::Broken(what) => write!(f, "the server broke the protocol: {what}"),
        }
    }
}

impl std::error::Error for BootFailure {}

fn options(pairs: &[(&'static str, u64)]) -> Vec<(&'static str, String)> {
    let pair = |(name, value): &(&'static str, u64)| (*name, value.to_string());
    pairs.iter().map(pair).collect()
}

fn millis(times: &[u64]) -> Vec<Duration> {
    times.iter().copied().map(Duration::from_millis).collect()
}

/// How long a hurried loader waits for a block.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

impl Profile {
    /// Every profile.
    pub fn all() -> [Self; 5] {
        [
            Self::edk2(),
            Self::ipxe(),
            Self::u_boot(),
            Self::pxelinux(),
            Self::raspberry_pi(),
        ]
    }

    /// UEFI network boot: MTFTP4 of EDK2. It asks for the size, ends that with ERROR 8, and asks
    /// again, with a window of 4. A server that does not tell the size is not asked again, so the
    /// boot fails.
    pub fn edk2() -> Self {
        Self {
            name: "EDK2",
            source: "measured: OVMF 2022.11",
            before: Vec::new(),
            probe: Some(Probe {
                options: options(&[("tsize", 0), ("blksize", 1468), ("windowsize", 4)]),
                code: 8,
                text: "User aborted the transfer",
            }),
            options: options(&[("blksize", 1468), ("windowsize", 4)]),
            one_port: false,
            requests: millis(&[4000, 8200, 12_200, 16_300, 20_300]),
            ack_after: Duration::from_secs(4),
            acks: 5,
            hole: Hole::Once,
            answers_copies: true,
            most_blocks: None,
        }
    }

    /// iPXE, ROM and `undionly.kpxe`. It repeats its request soon and often, and takes DATA without
    /// an OACK.
    pub fn ipxe() -> Self {
        Self {
            name: "iPXE",
            source: "measured: iPXE 1.0.0+git-20190125",
            before: Vec::new(),
            probe: None,
            options: options(&[("blksize", 1432), ("tsize", 0)]),
            one_port: false,
            requests: millis(&[250, 800, 1840, 3870, 7940]),
            ack_after: Duration::from_millis(240),
            acks: 6,
            hole: Hole::Once,
            answers_copies: true,
            most_blocks: None,
        }
    }

    /// U-Boot on ARM, with `tftpwindowsize` 8. It reports a hole once; then it repeats its ACK
    /// every 5 s, and wants an answer to each.
    pub fn u_boot() -> Self {
        Self {
            name: "U-Boot",
            source: "measured: U-Boot 2023.01 (qemu_arm64)",
            before: Vec::new(),
            probe: None,
            options: options(&[("timeout", 5), ("blksize", 1468), ("windowsize", 8)]),
            one_port: false,
            requests: (1..=10).map(|n| Duration::from_secs(5 * n)).collect(),
            ack_after: Duration::from_secs(5),
            acks: 10,
            hole: Hole::Once,
            answers_copies: true,
            most_blocks: None,
        }
    }

    /// `lpxelinux.0`: asks for ten names of its configuration before one exists, everything from
    /// one port, the next file a moment after the last ACK of the one before. The first file that
    /// `boot` asks for is its configuration.
    pub fn pxelinux() -> Self {
        Self {
            name: "PXELINUX",
            source: "measured: lpxelinux.0 6.04 (there the port is 49153)",
            before: vec![
                "pxelinux.cfg/01-52-54-00-12-34-56",
                "pxelinux.cfg/C0000207",
                "pxelinux.cfg/C000020",
                "pxelinux.cfg/C00002",
                "pxelinux.cfg/C0000",
                "pxelinux.cfg/C000",
                "pxelinux.cfg/C00",
                "pxelinux.cfg/C0",
                "pxelinux.cfg/C",
                "pxelinux.cfg/default",
            ],
            probe: None,
            options: options(&[("tsize", 0), ("blksize", 1408)]),
            one_port: true,
            requests: millis(&[1000, 3000, 7000, 15_000]),
            ack_after: Duration::from_secs(1),
            acks: 6,
            hole: Hole::Once,
            answers_copies: true,
            most_blocks: None,
        }
    }

    /// The boot ROM of a Raspberry Pi: asks for the size, ends that with ERROR 0, and cannot count
    /// past block 65535.
    ///
    /// Not measured: told from reports of its users (raspberrypi/firmware#1700,
    /// raspberrypi/rpi-eeprom#720). Its options and timers are likely ones.
    pub fn raspberry_pi() -> Self {
        Self {
            name: "Raspberry Pi",
            source: "reported: raspberrypi/firmware#1700, raspberrypi/rpi-eeprom#720",
            before: vec!["autoboot.txt"],
            probe: Some(Probe {
                options: options(&[("tsize", 0), ("blksize", 1024)]),
                code: 0,
                text: "Early terminate",
            }),
            options: options(&[("tsize", 0), ("blksize", 1024)]),
            one_port: false,
            requests: millis(&[1000, 2000, 3000, 4000, 5000]),
            ack_after: Duration::from_secs(1),
            acks: 5,
            hole: Hole::Never,
            answers_copies: true,
            most_blocks: Some(65535),
        }
    }

    /// With all its timers divided by this, for tests that do not want to wait for a real one. It
    /// repeats its ACKs for two seconds at least: a server gives a pause some 300 ms before it
    /// takes it for a loss.
    #[must_use]
    pub fn hurried(mut self, divisor: u32) -> Self {
        self.requests.iter_mut().for_each(|time| *time /= divisor);
        self.ack_after /= divisor;
        let least = LEAST_PATIENCE.as_micros() / self.ack_after.as_micros().max(1);
        self.acks = self.acks.max(u32::try_from(least).unwrap_or(u32::MAX));
        self
    }

    /// With another value for one of its options, or one option more.
    #[must_use]
    pub fn option(mut self, name: &'static str, value: u64) -> Self {
        match self.options.iter_mut().find(|(own, _)| *own == name) {
            Some(option) => option.1 = value.to_string(),
            None => self.options.push((name, value.to_string())),
        }
        self
    }

    /// Boots from a server: asks for what comes before, probes, and fetches the file. Blocks until
    /// that is over.
    ///
    /// # Errors
    /// [`BootFailure`], as the loader would see it.
    ///
    /// # Panics
    /// When the system refuses a socket.
    pub fn boot(&self, server: SocketAddr, name: &str) -> Result<Boot, BootFailure> {
        let mut boot = Boot::default();
        let mut socket = Loader::socket(server);
        let mut port = |loader: &mut Loader<'_>| {
            if !self.one_port {
                socket = Loader::socket(server);
            }
            loader.socket = socket.try_clone().expect("a socket");
        };
        let first = Loader::socket(server);
        let mut loader = Loader {
            profile: self,
            server,
            socket: first,
            buffer: vec![0; 65536],
            over: Vec::new(),
            boot: &mut boot,
        };
        for before in &self.before {
            port(&mut loader);
            match loader.fetch(before, &self.options, None) {
                Ok(_) => break,
                Err(BootFailure::Refused { .. }) => loader.boot.missing += 1,
                Err(failure) => return Err(failure),
            }
        }
        if let Some(probe) = &self.probe {
            port(&mut loader);
            loader.fetch(name, &probe.options, Some(probe))?;
        }
        port(&mut loader);
        let content = loader.fetch(name, &self.options, None)?;
        boot.content = content;
        Ok(boot)
    }
}

struct Loader<'a> {
    profile: &'a Profile,
    server: SocketAddr,
    socket: UdpSocket,
    buffer: Vec<u8>,
    /// Ports of the server whose transfers are over: late copies from there answer nothing.
    over: Vec<SocketAddr>,
    boot: &'a mut Boot,
}

/// A datagram of the transfer, as far as a loader tells them apart.
enum Answer {
    Data(u16, Vec<u8>),
    Oack(Options),
    Other,
}

impl Loader<'_> {
    fn socket(server: SocketAddr) -> UdpSocket {
        let own: IpAddr = match server.ip() {
            IpAddr::V4(to) if to.is_loopback() => [127, 0, 0, 1].into(),
            IpAddr::V4(_) => [0, 0, 0, 0].into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        UdpSocket::bind((own, 0)).expect("a socket")
    }

    /// One transfer. A probe ends it at the OACK, and brings nothing.
    fn fetch(
        &mut self,
        name: &str,
        options: &[(&'static str, String)],
        probe: Option<&Probe>,
    ) -> Result<Vec<u8>, BootFailure> {
        let pairs: Vec<_> = options
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let request = super::rrq(name, "octet", &pairs);
        let (tid, answer) = self.open(&request)?;
        let mut transfer = Transfer {
            tid,
            blksize: PLAIN,
            window: 1,
            received: 0,
            in_window: 0,
            hole_said: false,
            content: Vec::new(),
        };
        match answer {
            Answer::Oack(oack) => {
                if let Some(probe) = probe {
                    self.boot.size = oack.get(crate::wire::OptionName::Tsize);
                    let end = super::error(probe.code, probe.text);
                    let _ = self.socket.send_to(&end, tid);
                    return self
                        .boot
                        .size
                        .map(|_| Vec::new())
                        .ok_or(BootFailure::NoSize);
                }
                let agreed =
                    |name, plain: usize| oack.get(name).map_or(plain, |value| value as usize);
                transfer.blksize = agreed(crate::wire::OptionName::Blksize, PLAIN);
                transfer.window = agreed(crate::wire::OptionName::Windowsize, 1) as u64;
                self.ack(&transfer);
            }
            Answer::Data(..) if probe.is_some() => {
                let end = super::error(0, "no size");
                let _ = self.socket.send_to(&end, tid);
                return Err(BootFailure::NoSize);
            }
            Answer::Data(block, octets) => {
                if self.take(&mut transfer, block, octets)? {
                    return Ok(transfer.content);
                }
            }
            Answer::Other => return Err(BootFailure::Broken("no answer to a request".into())),
        }
        self.flow(transfer)
    }

    /// Asks, again and again, until something answers.
    fn open(&mut self, request: &[u8]) -> Result<(SocketAddr, Answer), BootFailure> {
        let start = now();
        for again in &self.profile.requests {
            self.boot.requests += 1;
            let _ = self.socket.send_to(request, self.server);
            while let Some((from, datagram)) = self.receive(start + *again) {
                let is_late = from != self.server && self.over.contains(&from);
                if from.ip() != self.server.ip() || is_late {
                    continue;
                }
                self.over.push(from);
                match understand(&datagram)? {
                    Answer::Data(1, octets) => return Ok((from, Answer::Data(1, octets))),
                    Answer::Oack(oack) => return Ok((from, Answer::Oack(oack))),
                    _ => {} // of an older transfer from this port
                }
            }
        }
        Err(BootFailure::Unanswered)
    }

    fn flow(&mut self, mut transfer: Transfer) -> Result<Vec<u8>, BootFailure> {
        let mut said = 0;
        let mut until = now() + self.profile.ack_after;
        loop {
            match self.receive(until) {
                Some((from, datagram)) if from == transfer.tid => {
                    let before = transfer.received;
                    if let Answer::Data(block, octets) = understand(&datagram)?
                        && self.take(&mut transfer, block, octets)?
                    {
                        return Ok(transfer.content);
                    }
                    if transfer.received > before {
                        (said, until) = (0, now() + self.profile.ack_after);
                    }
                }
                Some(_) => {}
                None if said == self.profile.acks => {
                    let block = transfer.received;
                    return Err(BootFailure::Silent { block });
                }
                None => {
                    said += 1;
                    self.boot.repeated_acks += 1;
                    transfer.in_window = 0;
                    self.ack(&transfer);
                    until = now() + self.profile.ack_after;
                }
            }
        }
    }

    /// Takes a block; true when it was the last.
    fn take(
        &mut self,
        transfer: &mut Transfer,
        block: u16,
        octets: Vec<u8>,
    ) -> Result<bool, BootFailure> {
        let ahead = block.wrapping_sub(transfer.received as u16);
        if octets.len() > transfer.blksize {
            return Err(BootFailure::Broken(format!("block {block} is too long")));
        }
        if ahead == 0 || ahead > 0x8000 {
            self.boot.copies += 1;
            if self.profile.answers_copies && transfer.window == 1 && ahead == 0 {
                self.boot.repeated_acks += 1;
                self.ack(transfer);
            }
            return Ok(false);
        }
        if ahead > 1 {
            if self.profile.hole == Hole::Once && !transfer.hole_said {
                transfer.hole_said = true;
                transfer.in_window = 0;
                self.ack(transfer);
            }
            return Ok(false);
        }
        transfer.received += 1;
        transfer.in_window += 1;
        transfer.hole_said = false;
        if self
            .profile
            .most_blocks
            .is_some_and(|most| transfer.received > most)
        {
            let _ = self
                .socket
                .send_to(&super::error(0, "file too long"), transfer.tid);
            return Err(BootFailure::TooLong);
        }
        transfer.content.extend_from_slice(&octets);
        let is_last = octets.len() < transfer.blksize;
        if is_last || transfer.in_window >= transfer.window {
            transfer.in_window = 0;
            self.ack(transfer);
        }
        Ok(is_last)
    }

    fn ack(&self, transfer: &Transfer) {
        let ack = wire::ack(transfer.received as u16);
        let _ = self.socket.send_to(&ack, transfer.tid);
    }

    /// The next datagram before an instant.
    fn receive(&mut self, until: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => return Some((from, self.buffer[..length].into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return None,
            }
        }
    }
}

struct Transfer {
    tid: SocketAddr,
    blksize: usize,
    window: u64,
    /// The last block in order, and how many of its window.
    received: u64,
    in_window: u64,
    hole_said: bool,
    content: Vec<u8>,
}

fn understand(datagram: &[u8]) -> Result<Answer, BootFailure> {
    match wire::parse(datagram) {
        Ok(Packet::Data { block, payload }) => Ok(Answer::Data(block, payload.into())),
        Ok(Packet::OptionAck(options)) => Ok(Answer::Oack(options)),
        Ok(Packet::Error { code, message }) => Err(BootFailure::Refused {
            code: code.0,
            text: String::from_utf8_lossy(message).into_owned(),
        }),
        Ok(_) => Ok(Answer::Other),
        Err(malformed) => Err(BootFailure::Broken(malformed.to_string())),
    }
}
