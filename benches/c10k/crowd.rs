//! Thousands of boards that take their time: each acknowledges a block so long after it came. One
//! thread, one epoll.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Who hears nothing asks, or acknowledges, again after this: far longer than a board takes.
const REPEAT: Duration = Duration::from_secs(2);
/// Boards that begin at once, and how long it takes until the next do: a lab is not switched on
/// within a millisecond.
const BATCH: usize = 200;
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// How often a board asks again after an ERROR.
const ATTEMPTS: u32 = 3;

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Boards that have the whole file, octet for octet.
    pub(crate) complete: usize,
    /// Those that got something else, or were told an ERROR too often.
    pub(crate) failed: usize,
    /// ERRORs that made a board ask again from another port, as a loader does.
    pub(crate) again: usize,
    /// The last of them.
    pub(crate) error: String,
    /// From the first request to the last ACK.
    pub(crate) elapsed: Duration,
    /// Blocks that came, copies included.
    pub(crate) blocks: u64,
    /// Blocks that had come before.
    pub(crate) copies: u64,
}

struct Board {
    socket: UdpSocket,
    /// The transfer's port, once it has answered.
    tid: Option<SocketAddr>,
    /// The last block in order.
    block: u64,
    /// An ACK waits for its time.
    is_thinking: bool,
    heard: Instant,
    /// How often it may ask again.
    attempts: u32,
}

/// So many boards fetch a file in lock step, in blocks of 512 octets, and wait `pause` before each
/// ACK. `watch` is called now and then with the number of boards that are in the middle of it. Ends
/// after `limit` at the latest.
pub(crate) fn fetch(
    server: SocketAddr,
    name: &str,
    content: &[u8],
    (boards, pause): (usize, Duration),
    limit: Duration,
    mut watch: impl FnMut(usize),
) -> io::Result<Report> {
    let request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let start = Instant::now();
    let mut report = Report::default();
    let mut seats: Vec<Option<Board>> = Vec::with_capacity(boards);
    // Every ACK waits equally long, so they fall due in order.
    let mut acks: VecDeque<(Instant, usize)> = VecDeque::new();
    let mut events = vec![EpollEvent::empty(); 1024];
    let mut buffer = [0; 600];
    let (mut next_batch, mut next_look) = (start, start + REPEAT);
    while report.complete + report.failed < boards {
        let now = Instant::now();
        if now - start > limit {
            report.failed = boards - report.complete;
            break;
        }
        if seats.len() < boards && now >= next_batch {
            next_batch = now + BATCH_PAUSE;
            for seat in seats.len()..boards.min(seats.len() + BATCH) {
                let board = Board::ask(&epoll, seat, &request, server, ATTEMPTS)?;
                seats.push(Some(board));
            }
        }
        while let Some(&(due, seat)) = acks.front() {
            if due > now {
                break;
            }
            acks.pop_front();
            if let Some(board) = &mut seats[seat] {
                board.is_thinking = false;
                board.heard = now;
                board.acknowledge();
                if board.block > content.len() as u64 / 512 {
                    seats[seat] = None;
                    report.complete += 1;
                    report.elapsed = start.elapsed();
                }
            }
        }
        if now >= next_look {
            next_look = now + REPEAT / 4;
            watch(
                seats
                    .iter()
                    .flatten()
                    .filter(|board| board.block > 0)
                    .count(),
            );
            for board in seats.iter_mut().flatten() {
                if !board.is_thinking && now >= board.heard + REPEAT {
                    board.heard = now;
                    match board.tid {
                        Some(_) => board.acknowledge(),
                        None => _ = board.socket.send_to(&request, server),
                    }
                }
            }
        }
        let ready = epoll.wait(&mut events, EpollTimeout::from(1u8))?;
        let now = Instant::now();
        for event in &events[..ready] {
            let seat = event.data() as usize;
            let Some(board) = &mut seats[seat] else {
                continue;
            };
            // One call for each: if there is more, the socket is reported again.
            let Ok((length, from)) = board.socket.recv_from(&mut buffer) else {
                continue;
            };
            report.blocks += 1;
            // Another server may still answer an earlier client of this port.
            if from.ip() != server.ip() {
                continue;
            }
            match board.take(content, &buffer[..length], from) {
                Some(true) => {
                    board.is_thinking = true;
                    acks.push_back((now + pause, seat));
                }
                Some(false) => report.copies += 1,
                None if buffer[..2] == [0, 5] && board.attempts > 0 => {
                    report.again += 1;
                    report.error = String::from_utf8_lossy(&buffer[2..length]).into_owned();
                    let attempts = board.attempts - 1;
                    *board = Board::ask(&epoll, seat, &request, server, attempts)?;
                }
                None => {
                    seats[seat] = None;
                    report.failed += 1;
                }
            }
        }
    }
    Ok(report)
}

impl Board {
    fn ask(
        epoll: &Epoll,
        seat: usize,
        request: &[u8],
        server: SocketAddr,
        attempts: u32,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let _ = socket.send_to(request, server);
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, seat as u64))?;
        Ok(Self {
            socket,
            tid: None,
            block: 0,
            is_thinking: false,
            heard: Instant::now(),
            attempts,
        })
    }

    /// True for the next block, false for one that came before; `None` where something is wrong.
    fn take(&mut self, content: &[u8], datagram: &[u8], from: SocketAddr) -> Option<bool> {
        let [0, 3, high, low, payload @ ..] = datagram else {
            return None;
        };
        if self.tid.is_none() {
            // The crowd must be cheap: a connected socket needs no route for each ACK.
            self.socket.connect(from).ok()?;
            self.tid = Some(from);
        }
        if self.tid != Some(from) {
            return Some(false);
        }
        let number = u16::from_be_bytes([*high, *low]);
        if number != (self.block + 1) as u16 {
            return Some(false);
        }
        let start = self.block as usize * 512;
        let wanted = &content[start..content.len().min(start + 512)];
        self.block += 1;
        (payload == wanted).then_some(true)
    }

    fn acknowledge(&self) {
        if self.tid.is_some() {
            let [high, low] = (self.block as u16).to_be_bytes();
            let _ = self.socket.send(&[0, 4, high, low]);
        }
    }
}
