//! The protocol without our threads: one socket, one thread, one loop, and a machine for each
//! client. For programs that have an event loop already:
//! `cargo run --example own_event_loop -- FILE [ADDRESS]`.
//!
//! Everything goes through the port that was asked, so a client is known by its address and port.
//! The machine decides what is sent and when; this loop brings the packets, the clock and the
//! octets.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use tftpool::Direction;
use tftpool::unversioned::proto::{Agreed, Outcome, Policy, Sender, Step, Terms, grant};
use tftpool::unversioned::wire::{self, ErrorCode, Packet, Request};

/// One client and what it fetches.
struct Session {
    machine: Sender,
    agreed: Agreed,
    /// The OACK; empty where none is sent.
    opening: Vec<u8>,
}

impl Session {
    fn new(request: &Request<'_>, content: &[u8], now: Instant) -> Self {
        let size = Some(content.len() as u64).filter(|size| *size > 0);
        let (agreed, answer) = grant(&request.options, size, &Terms::default());
        let mut opening = Vec::new();
        if !answer.is_empty() {
            wire::emit_option_ack(&answer, &mut opening);
        }
        let last = content.len() as u64 / u64::from(agreed.blksize) + 1;
        let policy = Policy::default();
        Self {
            machine: Sender::answering(&agreed, !answer.is_empty(), Some(last), &policy, now),
            agreed,
            opening,
        }
    }

    /// Does what the machine says, until it says when to come back, or that it is over.
    fn run(
        &mut self,
        content: &[u8],
        now: Instant,
        send: impl Fn(&[u8]) -> io::Result<usize>,
    ) -> Result<Instant, Outcome> {
        loop {
            match self.machine.poll(now) {
                Step::Open => {
                    let _ = send(&self.opening); // what is lost is sent again
                    self.machine.opened(now);
                }
                Step::Data { first, end } => {
                    for block in first..end {
                        let size = usize::from(self.agreed.blksize);
                        let start = (block as usize - 1) * size;
                        let octets = &content[start..content.len().min(start + size)];
                        let number = self.machine.rollover().to_wire(block);
                        let _ = send(&[&wire::data_header(number), octets].concat());
                    }
                    self.machine.sent(end, now);
                }
                Step::Wait(until) => return Ok(until),
                Step::Done(outcome) => return Err(outcome),
                Step::Ack(_) => unreachable!("a sender acknowledges nothing"),
                Step::Error(code, text) => {
                    let mut datagram = Vec::new();
                    wire::emit_error(code, text, &mut datagram);
                    let _ = send(&datagram);
                }
            }
        }
    }
}

fn refuse(socket: &UdpSocket, peer: SocketAddr, code: ErrorCode, text: &str) {
    let mut datagram = Vec::new();
    wire::emit_error(code, text, &mut datagram);
    let _ = socket.send_to(&datagram, peer);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .ok_or("usage: own_event_loop FILE [ADDRESS]")?;
    let address = arguments.next().unwrap_or("127.0.0.1:6969".into());
    let content = std::fs::read(file)?;

    let socket = UdpSocket::bind(address)?;
    println!("serving on {}", socket.local_addr()?);
    let mut sessions: HashMap<SocketAddr, (Session, Instant)> = HashMap::new();
    let mut buffer = [0; 2048];
    loop {
        // Sleep until a packet comes, or until the first machine wants to be asked.
        let next = sessions.values().map(|(_, until)| *until).min();
        let patience = next.map(|until| until.saturating_duration_since(clock()));
        let patience = patience.map(|patience| patience.max(Duration::from_millis(1)));
        socket.set_read_timeout(patience)?;
        let received = socket.recv_from(&mut buffer);
        let now = clock();
        if let Ok((length, peer)) = received {
            match wire::parse(&buffer[..length]) {
                Ok(Packet::Request(request)) if request.direction == Direction::Read => {
                    match sessions.get_mut(&peer) {
                        Some((session, until)) => {
                            session.machine.request_repeated(now);
                            *until = now;
                        }
                        None => {
                            let session = Session::new(&request, &content, now);
                            sessions.insert(peer, (session, now));
                        }
                    }
                }
                Ok(Packet::Request(_)) => {
                    refuse(&socket, peer, ErrorCode::ACCESS_VIOLATION, "read-only");
                }
                Ok(packet) => {
                    if let Some((session, until)) = sessions.get_mut(&peer) {
                        session.machine.handle(&packet, now);
                        *until = now;
                    }
                }
                Err(malformed) => println!("{peer} sent no packet of TFTP: {malformed}"),
            }
        }
        // An early call is harmless, but only those that are due have something to say.
        sessions.retain(|peer, (session, until)| {
            if *until > now {
                return true;
            }
            match session.run(&content, now, |datagram| socket.send_to(datagram, peer)) {
                Ok(later) => *until = later,
                Err(outcome) => println!("{peer} {outcome:?}"),
            }
            *until > now
        });
    }
}

#[allow(clippy::disallowed_methods)] // the loop is what reads the clock
fn clock() -> Instant {
    Instant::now()
}
