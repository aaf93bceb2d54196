//! What lies between two TUN devices: delay, loss, duplication, reordering, and receivers that keep
//! only the head of a burst. Chances come from a seed; when a packet arrives is up to the machine.
#![allow(dead_code)] // each program uses its part
#![allow(unsafe_code)] // `ioctl` for TUN devices and `ppoll`, for which nix has no face here

use nix::fcntl::OFlag;
use nix::libc;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What one direction does to packets. Chances are in parts per million.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    /// A packet is held back by up to twice [`HELD`], and overtaken.
    pub(crate) reorder: u32,
    /// So many packets are kept of those that come within [`AT_ONCE`].
    pub(crate) ring: Option<u32>,
}

/// See [`Link::reorder`].
const HELD: Duration = Duration::from_millis(1);
/// See [`Link::ring`].
const AT_ONCE: Duration = Duration::from_micros(100);
/// A packet may leave so much too early; see [`lateness`].
const EARLY: Duration = Duration::from_micros(30);
/// See [`lateness`].
const MOST_LATE: Duration = Duration::from_micros(200);
/// Looks this often whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);

/// Opens a TUN device of that name in the namespace of this thread. The descriptor can be used from
/// anywhere.
pub(crate) fn tun(name: &str) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open("/dev/net/tun")?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// What has been done to packets so far, both ways together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    lost: AtomicU64,
    doubled: AtomicU64,
    /// Delivered after a packet that had come later.
    overtaken: AtomicU64,
    /// Found no room in a ring.
    overrun: AtomicU64,
}

impl Counts {
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn doubled(&self) -> u64 {
        self.doubled.load(Ordering::Relaxed)
    }

    pub(crate) fn overtaken(&self) -> u64 {
        self.overtaken.load(Ordering::Relaxed)
    }

    pub(crate) fn overrun(&self) -> u64 {
        self.overrun.load(Ordering::Relaxed)
    }
}

fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A thread that carries packets until it is dropped.
pub(crate) struct Relay {
    pub(crate) counts: Arc<Counts>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// `links[0]` leads away from `ends[0]`, `links[1]` away from `ends[1]`.
    pub(crate) fn start(ends: [File; 2], links: [Link; 2], seed: u64) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let counts = Arc::new(Counts::default());
        let mut carrier = Carrier {
            ends,
            links,
            chance: [Chance::new(seed), Chance::new(!seed)],
            rings: [(None, 0); 2],
            under_way: BinaryHeap::new(),
            count: 0,
            newest: [0; 2],
            late: lateness(),
            counts: Arc::clone(&counts),
        };
        let thread = thread::Builder::new().spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                carrier.turn();
            }
        })?;
        Ok(Self {
            counts,
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if ended.is_some_and(|ended| ended.is_err()) && !thread::panicking() {
            panic!("the relay has failed");
        }
    }
}

struct Carrier {
    ends: [File; 2],
    links: [Link; 2],
    chance: [Chance; 2],
    /// Since when, and how many packets since then.
    rings: [(Option<Instant>, u32); 2],
    under_way: BinaryHeap<Packet>,
    count: u64,
    /// The highest number that each end was sent.
    newest: [u64; 2],
    /// How much later than it was told to the system wakes this thread.
    late: Duration,
    counts: Arc<Counts>,
}

struct Packet {
    due: Instant,
    number: u64,
    to: usize,
    octets: Vec<u8>,
}

impl Carrier {
    /// Takes what is there, delivers what is due, and waits for either.
    fn turn(&mut self) {
        for from in [0, 1] {
            self.take(from);
        }
        let now = now();
        while (self.under_way.peek()).is_some_and(|next| next.due <= now + EARLY) {
            let packet = self.under_way.pop().expect("peeked");
            self.deliver(&packet, now);
        }
        let wait = self.under_way.peek().map_or(GLANCE, |next| {
            next.due.saturating_duration_since(now + self.late)
        });
        let readable = self.ends.each_ref().map(|end| libc::pollfd {
            fd: end.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        wait_for(readable, wait.min(GLANCE));
    }

    fn take(&mut self, from: usize) {
        let mut buffer = [0; 2048];
        // The other direction has its turn, however much comes.
        for _ in 0..64 {
            let length = match (&self.ends[from]).read(&mut buffer) {
                Ok(length) => length,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return,
                Err(cause) => panic!("a TUN device: {cause}"),
            };
            let (link, chance) = (self.links[from], &mut self.chance[from]);
            let copies = match (chance.of(link.loss), chance.of(link.duplicate)) {
                (true, _) => {
                    one_more(&self.counts.lost);
                    0
                }
                (false, true) => {
                    one_more(&self.counts.doubled);
                    2
                }
                (false, false) => 1,
            };
            for _ in 0..copies {
                let mut due = now() + link.delay;
                if chance.of(link.reorder) {
                    due += HELD + HELD * chance.below(1000) / 1000;
                }
                self.count += 1;
                self.under_way.push(Packet {
                    due,
                    number: self.count,
                    to: 1 - from,
                    octets: buffer[..length].to_vec(),
                });
            }
        }
    }

    fn deliver(&mut self, packet: &Packet, now: Instant) {
        if let Some(room) = self.links[1 - packet.to].ring {
            let (since, count) = &mut self.rings[packet.to];
            if since.is_none_or(|since| now - since >= AT_ONCE) {
                (*since, *count) = (Some(now), 0);
            }
            *count += 1;
            if *count > room {
                one_more(&self.counts.overrun);
                return;
            }
        }
        let newest = &mut self.newest[packet.to];
        if packet.number < *newest {
            one_more(&self.counts.overtaken);
        }
        *newest = packet.number.max(*newest);
        // A device that is down, or full, loses the packet, as devices do.
        let _ = (&self.ends[packet.to]).write(&packet.octets);
    }
}

/// `ppoll`, because a millisecond is a long time on a short link.
fn wait_for<const N: usize>(mut ready: [libc::pollfd; N], time: Duration) {
    let time = libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos() as libc::c_long,
    };
    // SAFETY: N valid entries and one time, which live through the call; no signal set.
    unsafe {
        libc::ppoll(
            ready.as_mut_ptr(),
            N as libc::nfds_t,
            &raw const time,
            std::ptr::null(),
        )
    };
}

/// Virtual machines wake a thread a tenth of a millisecond after its time. Twice that for each
/// round trip would make every link longer than it says. A busy machine is later still, but not
/// always.
fn lateness() -> Duration {
    let mut late = [(); 9].map(|()| {
        let due = now() + Duration::from_millis(1);
        wait_for([], due - now());
        now().saturating_duration_since(due)
    });
    late.sort_unstable();
    late[late.len() / 2].min(MOST_LATE)
}

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number)) // the earliest is the greatest
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Packet {}

/// splitmix64.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    fn of(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < ppm
    }
}

#[allow(clippy::disallowed_methods)] // a network's clock
fn now() -> Instant {
    Instant::now()
}
