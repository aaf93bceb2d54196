//! Reads that take long beside a client whose file is in memory.

use crate::rig::*;
use std::io::{self, Read};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tftpool::{Source, store_fn};

const READERS: usize = 8;
const BLOCKS: usize = 40;
/// Two of these are longer than a fetch of `BLOCKS` blocks takes on a slow machine.
const READ: Duration = Duration::from_millis(50);

/// As from a disk: each read takes its time, and is counted when it is over.
struct Disk(Arc<AtomicUsize>);

impl Read for Disk {
    #[allow(clippy::disallowed_methods, reason = "it is what a disk does")]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        thread::sleep(READ);
        self.0.fetch_add(1, Ordering::SeqCst);
        buffer.fill(7);
        Ok(buffer.len())
    }
}

/// A client that acknowledges every block at once, until the test is over.
fn read_on(server: std::net::SocketAddr, is_over: &AtomicBool) {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let tick = Duration::from_millis(100);
    socket.set_read_timeout(Some(tick)).expect("a timeout");
    socket
        .send_to(&rrq("disk", "octet", &[]), server)
        .expect("sent");
    let mut block = [0; 516];
    while !is_over.load(Ordering::SeqCst) {
        if let Ok((_, tid)) = socket.recv_from(&mut block) {
            let ack = [0, 4, block[2], block[3]];
            socket.send_to(&ack, tid).expect("sent");
        }
    }
}

/// If the thread that serves them all ran the slow reads too, one at least would come between two
/// blocks of the other client.
#[test]
fn transfers_that_block_do_not_hold_up_the_others() {
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    let server = start(builder(store_fn(move |request| match request.name {
        b"disk" => Ok(Source::reader(Disk(Arc::clone(&count)), None)),
        _ => Ok(Source::bytes(pattern(512 * BLOCKS))),
    })));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| read_on(server.local_addr(), &is_over));
        }
        // The server has to see first which transfers are slow.
        let has_passed = (0..20).any(|_| {
            let before = reads.load(Ordering::SeqCst);
            let got = Client::new(server.local_addr()).get("memory");
            got == Ok(pattern(512 * BLOCKS)) && reads.load(Ordering::SeqCst) - before < BLOCKS
        });
        is_over.store(true, Ordering::SeqCst);
        assert!(has_passed, "there was a slow read for each block");
    });
}
