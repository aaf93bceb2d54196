//! Bytes of memory that half-open transfers leave behind, counted by the allocator of a process
//! of its own. The resident memory of a server also grows with what its allocator keeps, and
//! tells no leak.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]
#![allow(
    clippy::disallowed_methods,
    reason = "it waits for transfers that time out"
)]

#[path = "loopback/rig.rs"]
mod rig;

use rig::{PATIENCE, Scratch, builder, now, pattern, rrq, start, wrq};
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;
use tftpool::{Dir, Server, WriteMode};

/// The system's allocator, and how many blocks and bytes it has given out.
struct Counting;

static BLOCKS: AtomicIsize = AtomicIsize::new(0);
static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this trait.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
        BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the block came from the same allocator with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests in each round, and rounds after those that fill tables, queues and caches.
const REQUESTS: usize = 600;
const WARM_UP: usize = 2;
const ROUNDS: usize = 6;
/// A transfer that leaves something behind leaves a block, or an entry in a table. Blocks are
/// counted for one kind of request in six; of bytes, a table may double, and a worker may start in
/// place of one that was stuck.
const MOST_BLOCKS: isize = (ROUNDS * REQUESTS / 6) as isize / 4;
const MOST_BYTES: isize = (ROUNDS * REQUESTS) as isize * 100;

/// One round of requests of six kinds, each from an address and port of its own, none of them ever
/// answered. Returns when all have ended.
fn round(server: &Server, round: usize) {
    let before = server.stats().requests;
    for number in 0..REQUESTS {
        let upload = format!("upload{number}");
        let request = match number % 6 {
            0 => rrq("big", "octet", &[]),
            1 => rrq("small", "octet", &[]),
            2 => rrq("big", "netascii", &[]),
            3 => wrq(&upload, "octet", &[]),
            4 => rrq("big", "octet", &[("blksize", "1400"), ("windowsize", "64")]),
            _ => wrq(&upload, "octet", &[("tsize", "5")]),
        };
        let address = [
            127,
            1 + round as u8,
            (number / 250) as u8,
            (number % 250) as u8 + 1,
        ];
        let client = UdpSocket::bind(SocketAddr::from((address, 0))).expect("a socket");
        client
            .send_to(&request, server.local_addr())
            .expect("a send");
        // Requests that come faster than the loop reads them would be lost.
        let end = now() + PATIENCE;
        while server.stats().requests <= before + number as u64 {
            assert!(now() < end, "a request that was lost");
            std::thread::yield_now();
        }
    }
    let end = now() + PATIENCE;
    while server.stats().active > 0 {
        assert!(now() < end, "transfers that never end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Blocks and bytes. A worker that reports the last transfer may still hold something for a moment.
fn least_live() -> (isize, isize) {
    let samples = (0..50).map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        (
            BLOCKS.load(Ordering::Relaxed),
            BYTES.load(Ordering::Relaxed),
        )
    });
    samples.min().unwrap_or_default()
}

#[test]
fn half_open_transfers_of_all_kinds_leave_no_memory_behind() {
    let scratch = Scratch::new();
    scratch.file("big", &pattern(300_000));
    scratch.file("small", &pattern(100));
    let store = Dir::builder(scratch.path()).uploads(WriteMode::Create);
    let server = start(
        builder(store.open().expect("a directory")).limits(|limits| {
            // A worker has 64 KiB of its own, and is started when it is needed.
            limits.workers = 1;
            limits.max_transfers = 2 * REQUESTS;
            limits.timeout = Duration::from_millis(50);
            limits.retries = 1;
        }),
    );
    let mut live = Vec::new();
    for number in 0..WARM_UP + ROUNDS {
        round(&server, number);
        live.push(least_live());
    }
    let (first, last) = (live[WARM_UP - 1], live[WARM_UP + ROUNDS - 1]);
    let grown = (last.0 - first.0, last.1 - first.1);
    let is_kept = grown.0 < MOST_BLOCKS && grown.1 < MOST_BYTES;
    assert!(is_kept, "{grown:?} blocks and bytes more: {live:?}");
    assert_eq!(scratch.names(), ["big", "small"]);
}
