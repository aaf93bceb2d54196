//! Exchanges of real clients, packet by packet, against the wire format, the negotiation and the
//! sender.
//!
//! A file in `tests/golden` is a transcript: the millisecond, who, and the packet. What the client
//! sends is taken from it; what the server sends is worked out and must stand there, at that time
//! and in that order. `BLESS=1` writes the server's lines anew.

#![allow(dead_code, unreachable_pub)] // the ends belong to the simulator

#[path = "sim/ends.rs"]
mod ends;
#[path = "sim/rng.rs"]
mod rng;

use ends::{Ask, End, File, Outbox, Rest, Sending};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{Outcome, Policy, Retransmit, Terms};
use tftpool::unversioned::wire::{ErrorCode, Packet, ack, emit_error, parse};

#[test]
fn real_clients_get_what_they_need() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    names.sort();
    assert!(names.len() >= 8, "only {} transcripts", names.len());
    for name in names {
        let written = std::fs::read_to_string(&name).expect("readable");
        let played = play(&written);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&name, &played).expect("writable");
            continue;
        }
        for (line, (expected, got)) in written.lines().zip(played.lines()).enumerate() {
            assert_eq!(expected, got, "{} line {}", name.display(), line + 1);
        }
        assert_eq!(written, played, "{}: not the same length", name.display());
    }
}

/// A transcript with the server's lines worked out.
fn play(written: &str) -> String {
    let mut server = Server::new();
    for line in written.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["#", ..] | [] => server.line(line),
            ["file", octets] => {
                server.file.octets = octets.parse().expect("a number");
                server.line(line);
            }
            ["policy", "rfc"] => {
                server.policy.retransmit = Retransmit::Rfc;
                server.line(line);
            }
            [millis, "client", ref packet @ ..] => {
                server.run_until(millis.parse().expect("a time in milliseconds"));
                server.line(line);
                server.receive(packet);
            }
            [_, "server", ..] => {}
            _ => panic!("what is this? {line}"),
        }
    }
    server.run_until(u64::MAX);
    server.transcript
}

struct Server {
    base: Instant,
    now: Duration,
    file: File,
    policy: Policy,
    transfer: Option<Sending>,
    request: Vec<u8>,
    wake: Option<Duration>,
    transcript: String,
}

impl Server {
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn new() -> Self {
        Self {
            base: Instant::now(),
            now: Duration::ZERO,
            file: File { octets: 0 },
            policy: Policy::default(),
            transfer: None,
            request: Vec::new(),
            wake: None,
            transcript: String::new(),
        }
    }

    fn line(&mut self, line: &str) {
        self.transcript.push_str(line);
        self.transcript.push('\n');
    }

    fn says(&mut self, what: &str) {
        let _ = writeln!(
            self.transcript,
            "{:>7}  server  {what}",
            self.now.as_millis()
        );
    }

    /// Lets time pass, and the server do what falls due.
    fn run_until(&mut self, millis: u64) {
        while let Some(wake) = self
            .wake
            .filter(|wake| wake.as_millis() < u128::from(millis))
        {
            self.now = wake;
            self.poll();
        }
        if millis < u64::MAX {
            self.now = Duration::from_millis(millis);
        }
    }

    fn receive(&mut self, packet: &[&str]) {
        let datagram = datagram(packet);
        let now = self.base + self.now;
        if let Ok(Packet::Request(request)) = parse(&datagram)
            && (self.wake.is_none() || datagram != self.request)
        {
            let ask = Ask {
                direction: request.direction,
                options: request.options,
                file: self.file,
            };
            self.transfer = Some(Sending::server(&ask, &Terms::default(), &self.policy, now));
            self.request = datagram;
        } else if let Some(transfer) = &mut self.transfer {
            transfer.receive(&datagram, now);
        }
        self.poll();
    }

    fn poll(&mut self) {
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        let mut out = Outbox {
            datagrams: Vec::new(),
            room: usize::MAX,
            spare: Vec::new(),
        };
        let was_over = self.wake.is_none() && transfer.machine.acked() > 0;
        let rest = transfer.poll(self.base + self.now, &mut out);
        for datagram in out.datagrams {
            let text = describe(&datagram.octets);
            self.says(&text);
        }
        match rest {
            Rest::Until(until) => self.wake = Some(until - self.base),
            Rest::Full => unreachable!("there is room"),
            Rest::Done(outcome) => {
                self.wake = None;
                if !was_over {
                    self.says(&format!("ends: {}", ending(outcome)));
                }
            }
        }
    }
}

fn ending(outcome: Outcome) -> String {
    match outcome {
        Outcome::Aborted { code, at_opening } => {
            let place = if at_opening {
                "at the opening"
            } else {
                "in the middle"
            };
            format!("aborted {place} with code {}", code.0)
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

/// `RRQ name mode option=value ...`, `ACK n`, `ERROR code text ...`, with the options in the order
/// of the client.
fn datagram(words: &[&str]) -> Vec<u8> {
    match words {
        ["RRQ", name, mode, options @ ..] => {
            let mut out = vec![0, 1];
            let pairs = options.iter().flat_map(|pair| pair.split('='));
            for word in [*name, *mode].into_iter().chain(pairs) {
                out.extend_from_slice(word.as_bytes());
                out.push(0);
            }
            out
        }
        ["ACK", block] => ack(block.parse().expect("a block number")).to_vec(),
        ["ERROR", code, text @ ..] => {
            let mut out = Vec::new();
            let code = ErrorCode(code.parse().expect("a code"));
            emit_error(code, &text.join(" "), &mut out);
            out
        }
        other => panic!("no such packet: {other:?}"),
    }
}

fn describe(datagram: &[u8]) -> String {
    match parse(datagram).expect("we send packets") {
        Packet::Data { block, payload } => format!("DATA {block} ({})", payload.len()),
        Packet::OptionAck(options) => format!("OACK {options}"),
        other => panic!("a sending server has no {other:?}"),
    }
}
