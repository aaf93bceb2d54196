//! What the fuzz targets do with their octets. `tests/fuzz_corpus.rs` runs the same over the committed corpus, and
//! `tests/properties.rs` over random octets.

#[allow(dead_code)] // tests take other parts of it
#[path = "../src/store/scratch.rs"]
mod scratch;

use scratch::Scratch;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tftpool::unversioned::proto::{
    Agreed, Outcome, Policy, Receiver, Retransmit, Rollover, Sender, Step, Terms, Verdict, accept,
    grant,
};
use tftpool::unversioned::wire::{
    Options, Packet, ack, data_header, emit_error, emit_option_ack, parse,
};
use tftpool::{Dir, Entry, EntryKind, Storage};

/// A datagram never panics, and what was understood says the same when it is written and read again.
pub fn packet(octets: &[u8]) {
    let Ok(packet) = parse(octets) else {
        return;
    };
    let mut out = Vec::new();
    match packet {
        Packet::Request(request) => request.emit(&mut out),
        Packet::Data { block, payload } => {
            out.extend_from_slice(&data_header(block));
            out.extend_from_slice(payload);
        }
        Packet::Ack { block } => out.extend_from_slice(&ack(block)),
        Packet::Error { code, message } => {
            let Ok(text) = std::str::from_utf8(message) else {
                return;
            };
            emit_error(code, text, &mut out);
        }
        Packet::OptionAck(options) => emit_option_ack(&options, &mut out),
    }
    let again = parse(&out).expect("what we write can be read");
    match (packet, again) {
        // Options without a number, and unknown ones, are not written.
        (Packet::Request(one), Packet::Request(two)) => {
            assert_eq!(
                (one.direction, one.name, one.mode),
                (two.direction, two.name, two.mode)
            );
            assert!(one.options.iter().eq(two.options.iter()));
        }
        (Packet::OptionAck(one), Packet::OptionAck(two)) => assert!(one.iter().eq(two.iter())),
        (one, two) => assert_eq!(one, two),
    }
}

/// Whatever is asked: nothing is granted that was not asked for or is more than was asked for, and a client of ours
/// accepts every answer of ours and understands the same by it.
pub fn options(octets: &[u8]) {
    let (head, pairs) = octets.split_at(octets.len().min(8));
    let byte = |index: usize| head.get(index).copied().unwrap_or_default();
    let terms = Terms {
        max_blksize: u16::from_be_bytes([byte(0), byte(1)]),
        max_windowsize: u16::from_be_bytes([byte(2), byte(3)]),
        in_flight: u64::from(byte(4)) << (byte(5) % 30),
    };
    let size = (byte(6) > 0).then(|| u64::from(byte(7)) << (byte(6) % 50));
    check_grant(&Options::parse(pairs), size, &terms);
}

pub fn check_grant(asked: &Options, size: Option<u64>, terms: &Terms) {
    use tftpool::unversioned::wire::OptionName::{Blksize, Blksize2, Tsize, Utimeout, Windowsize};
    let (agreed, oack) = grant(asked, size, terms);
    assert!((8..=65464).contains(&agreed.blksize));
    assert!((1..=32767).contains(&agreed.windowsize));
    for (name, value) in oack.iter() {
        let wanted = asked
            .get(name)
            .expect("only what was asked for, and only numbers");
        assert!(
            value <= wanted || name == Tsize,
            "{name:?} was raised to {value}"
        );
        assert!(!matches!(name, Utimeout) || (10_000..=255_000_000).contains(&value));
    }
    for (name, most) in [
        (Blksize, terms.max_blksize.max(8)),
        (Blksize2, terms.max_blksize.max(8)),
        (Windowsize, terms.max_windowsize.max(1)),
    ] {
        assert!(oack.get(name) <= Some(most.into()), "more than the terms");
    }
    let accepted = accept(asked, &oack).expect("our client accepts what our server says");
    assert_eq!(accepted, agreed);
    let mut out = Vec::new();
    emit_option_ack(&oack, &mut out);
    assert_eq!(parse(&out), Ok(Packet::OptionAck(oack)));
}

/// Packets, silences and requests in any order: a machine never panics, always comes to a `Wait` in the future or an end,
/// and stays ended.
#[allow(clippy::disallowed_methods)] // any instant will do
pub fn session(octets: &[u8]) {
    let mut octets = octets.iter().copied();
    let mut next = move || octets.next();
    let (Some(kind), Some(window), Some(length)) = (next(), next(), next()) else {
        return;
    };
    let agreed = Agreed {
        windowsize: [1, 1, 2, 4, 16, 64, 1000, 32767][usize::from(window % 8)],
        timeout: (window & 8 != 0).then_some(Duration::from_secs(5)),
        rollover: if window & 16 != 0 {
            Rollover::One
        } else {
            Rollover::Zero
        },
        ..Agreed::default()
    };
    let policy = Policy {
        retransmit: if window & 32 != 0 {
            Retransmit::Rfc
        } else {
            Retransmit::Adaptive
        },
        ..Policy::default()
    };
    let mut now = Instant::now();
    let last = 1 + u64::from(length) * if window & 64 != 0 { 1000 } else { 1 };
    let plain = Agreed::default();
    let mut machine = match kind % 6 {
        0 => Machine::sends(Sender::answering(&agreed, true, Some(last), &policy, now)),
        1 => Machine::sends(Sender::answering(&plain, false, Some(last), &policy, now)),
        4 => {
            let mut client = Sender::requesting(&policy, now);
            client.agree(&agreed, Some(last), &policy, now);
            Machine::sends(client)
        }
        // A stream: where it ends is known when that block is read.
        5 => Machine::Sends {
            sender: Sender::answering(&agreed, true, None, &policy, now),
            ends: Some(last),
        },
        2 => Machine::Stores(Receiver::answering(
            &agreed,
            Duration::from_secs(1),
            &policy,
            now,
        )),
        _ => {
            let mut client = Receiver::requesting(Duration::from_secs(1), &policy, now);
            client.agree(&agreed, true, &policy, now);
            Machine::Stores(client)
        }
    };
    let mut ended = machine.drain(now, usize::MAX);
    while let (Some(action), Some(value)) = (next(), next()) {
        match action % 8 {
            0 => now += Duration::from_micros(u64::from(value) * 10),
            1 => now += Duration::from_millis(u64::from(value) * u64::from(value)),
            2 => machine.unreachable(now),
            3 if value < 128 => machine.request_repeated(now),
            // The machine was suspended, or halted by a debugger.
            3 => now += Duration::from_secs(3600 * u64::from(value)),
            action => machine.packet(action, value, now),
        }
        let room = if action & 64 != 0 { 1 } else { usize::MAX };
        let end = machine.drain(now, room);
        assert!(
            ended.is_none() || ended == end,
            "the end is the end: {ended:?}, {end:?}"
        );
        ended = end;
    }
}

/// What a server says to a client's request and after it, as datagrams of any octets: the first octet of the input chooses what
/// was asked for, then each datagram stands behind its length and a pause. Nothing panics, a client never agrees to more than
/// it asked for, and never stores a block twice, out of order, or longer than agreed.
#[allow(clippy::disallowed_methods)] // any instant will do
pub fn client(octets: &[u8]) {
    use tftpool::unversioned::wire::OptionName::{Blksize, Tsize, Windowsize};
    let Some((&kind, mut rest)) = octets.split_first() else {
        return;
    };
    let mut asked = Options::default();
    if kind & 1 != 0 {
        let window = [2, 16, 64, 1000][usize::from(kind >> 1) % 4];
        asked = asked
            .with(Tsize, 0)
            .with(Blksize, 1428)
            .with(Windowsize, window);
    }
    let policy = Policy::default();
    let mut now = Instant::now();
    let gets = kind & 8 == 0;
    let mut machine = match gets {
        true => Machine::Stores(Receiver::requesting(Duration::from_secs(1), &policy, now)),
        false => Machine::Sends {
            sender: Sender::requesting(&policy, now),
            ends: None,
        },
    };
    let mut agreed = None;
    let mut ended = machine.drain(now, usize::MAX);
    while let [length, pause, tail @ ..] = rest {
        let (datagram, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = tail;
        now += Duration::from_micros(u64::from(*pause) * u64::from(*pause) * 50);
        let Ok(packet) = parse(datagram) else {
            continue;
        };
        if agreed.is_none() {
            let offer = match packet {
                Packet::OptionAck(oack) => accept(&asked, &oack).ok(),
                Packet::Data { block: 1, .. } if gets => Some(Agreed::default()),
                Packet::Ack { block: 0 } if !gets => Some(Agreed::default()),
                Packet::Error { .. } => {
                    machine.hand(&packet, 512, now);
                    None
                }
                _ => None,
            };
            if let Some(offer) = offer {
                let most = |name| asked.get(name).unwrap_or(0);
                assert!(u64::from(offer.blksize) <= most(Blksize).max(512));
                assert!(u64::from(offer.windowsize) <= most(Windowsize).max(1));
                let is_oack = matches!(packet, Packet::OptionAck(_));
                machine.agree(&offer, is_oack, &policy, now);
                agreed = Some(offer);
                if !is_oack {
                    machine.hand(&packet, offer.blksize, now);
                }
            }
        } else if let Some(agreed) = agreed {
            machine.hand(&packet, agreed.blksize, now);
        }
        let end = machine.drain(now, usize::MAX);
        assert!(ended.is_none() || ended == end, "the end is the end");
        ended = end;
    }
}

/// Names of any octets are mapped to files, and what stands there is read, written, moved and removed: one line of the input is
/// what is done and the name that it is done to. Nothing outside the root is ever read or changed, what was written is read by
/// the same name, and no message carries a control character of the name.
pub fn names(octets: &[u8]) {
    let house = house();
    let storage = Storage::new(Dir::read_only(house.at("root")).expect("a directory"));
    let mut last = Path::new("file");
    for line in octets.split(|&octet| octet == b'\n') {
        let Some((&what, name)) = line.split_first() else {
            continue;
        };
        let name = Path::new(OsStr::from_bytes(name));
        let result = match what {
            b'w' => storage.write(name, "ours").map(|()| {
                let written = storage.read(name).expect("what was written is there");
                assert_eq!(written, b"ours", "{name:?}");
            }),
            b'l' => storage
                .list(name)
                .map(|entries| entries.iter().for_each(check_inside)),
            b's' => storage.stat(name).map(|entry| check_inside(&entry)),
            b'm' => storage.create_dir(name),
            b'd' => storage.delete(name),
            b'x' => storage.remove_all(name),
            b'c' => storage.copy(last, name).map(|_| ()),
            b'n' => storage.rename(last, name),
            _ => storage.read(name).map(|content| {
                assert_ne!(content, OUTSIDE, "{name:?} leads out");
            }),
        };
        if let Err(error) = result {
            let text = error.to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        last = name;
    }
    if storage.remove_created().is_ok() {
        assert_eq!(storage.created(), Vec::<PathBuf>::new());
    }
    check_untouched(&house);
}

/// No file inside is as long as this one.
const OUTSIDE: &[u8] = b"outside";

fn check_inside(entry: &Entry) {
    let is_outside = entry.kind == EntryKind::File && entry.size == OUTSIDE.len() as u64;
    assert!(!is_outside, "{entry:?}");
}

/// A root with links of every kind, and beside it what nobody may reach.
fn house() -> Scratch {
    let house = Scratch::new();
    house.directory("root/a/b");
    house.file("root/file", "inside");
    let secret = house.file("beside/secret", OUTSIDE);
    for (link, target) in [
        ("in", "a/b"),
        ("to", "file"),
        ("out", "../beside"),
        ("a/b/up", "../../../beside/secret"),
        ("round", "round"),
    ] {
        house.link(Path::new("root").join(link), target);
    }
    house.link("root/far", secret.parent().expect("a directory"));
    house
}

fn check_untouched(house: &Scratch) {
    assert_eq!(house.names(), ["beside", "root"]);
    assert_eq!(scratch::names(house.at("beside")), ["secret"]);
    let secret = std::fs::read(house.at("beside/secret"));
    assert_eq!(secret.expect("still there"), OUTSIDE);
}

#[allow(clippy::large_enum_variant)] // there is one at a time
enum Machine {
    Sends { sender: Sender, ends: Option<u64> },
    Stores(Receiver),
}

impl Machine {
    fn agree(&mut self, agreed: &Agreed, oack: bool, policy: &Policy, now: Instant) {
        match self {
            Self::Sends { sender, .. } => sender.agree(agreed, Some(5), policy, now),
            Self::Stores(receiver) => receiver.agree(agreed, oack, policy, now),
        }
    }

    /// Hands over a packet that holds real octets.
    fn hand(&mut self, packet: &Packet<'_>, blksize: u16, now: Instant) {
        match self {
            Self::Sends { sender, .. } => sender.handle(packet, now),
            Self::Stores(receiver) => {
                let before = receiver.received();
                let verdict = receiver.handle(packet, now);
                let taken = u64::from(verdict != Verdict::Ignore);
                assert_eq!(receiver.received(), before + taken);
                if let (Packet::Data { block, payload }, 1) = (packet, taken) {
                    assert_eq!(*block, receiver.rollover().to_wire(before + 1));
                    assert!(
                        payload.len() <= blksize.into(),
                        "a block too long was taken"
                    );
                    let is_last = payload.len() < blksize.into();
                    assert_eq!(verdict == Verdict::StoreLast, is_last);
                }
            }
        }
    }

    fn sends(sender: Sender) -> Self {
        Self::Sends { sender, ends: None }
    }

    fn packet(&mut self, action: u8, value: u8, now: Instant) {
        let near = match self {
            Self::Sends { sender, .. } => sender.rollover().to_wire(sender.acked()),
            Self::Stores(receiver) => receiver.rollover().to_wire(receiver.received()),
        };
        let payload = [0; 600];
        let block = near.wrapping_add(u16::from(value)).wrapping_sub(8);
        let far = u16::from(value).wrapping_mul(257);
        let packet = match action {
            4 => Packet::Ack { block },
            5 => Packet::Data {
                block,
                payload: &payload[..512],
            },
            6 if value & 1 == 0 => Packet::Ack { block: far },
            6 => Packet::Data {
                block: far,
                payload: &payload[..512],
            },
            _ => match value {
                0..32 => Packet::OptionAck(Options::default()),
                32..64 => Packet::Data {
                    block,
                    payload: &payload[..usize::from(value)],
                },
                64 => Packet::Data {
                    block,
                    payload: &payload,
                },
                65 => parse(b"\0\x05\0\0\0").expect("an ERROR"),
                _ => parse(b"\0\x01f\0octet\0").expect("an RRQ"),
            },
        };
        match self {
            Self::Sends { sender, .. } => sender.handle(&packet, now),
            Self::Stores(receiver) => {
                let before = receiver.received();
                let verdict = receiver.handle(&packet, now);
                let taken = u64::from(verdict != Verdict::Ignore);
                assert_eq!(receiver.received(), before + taken);
            }
        }
    }

    fn unreachable(&mut self, now: Instant) {
        match self {
            Self::Sends { sender, .. } => sender.unreachable(now),
            Self::Stores(receiver) => receiver.unreachable(now),
        }
    }

    fn request_repeated(&mut self, now: Instant) {
        match self {
            Self::Sends { sender, .. } => sender.request_repeated(now),
            Self::Stores(receiver) => receiver.request_repeated(now),
        };
    }

    /// Polls until there is nothing to do, or the send buffer is full.
    fn drain(&mut self, now: Instant, room: usize) -> Option<Outcome> {
        for _ in 0..room.min(100) {
            let step = match self {
                Self::Sends { sender, .. } => sender.poll(now),
                Self::Stores(receiver) => receiver.poll(now),
            };
            match (step, &mut *self) {
                (Step::Wait(until), _) => {
                    assert!(until > now, "a wake-up in the past");
                    return None;
                }
                (Step::Done(outcome), _) => return Some(outcome),
                (Step::Open, Self::Sends { sender, .. }) => sender.opened(now),
                (Step::Data { first, end }, Self::Sends { sender, ends }) => {
                    assert!(first < end && end - first <= 32767 && first > sender.acked());
                    let mut end = end.min(first.saturating_add(room as u64));
                    if let Some(last) = ends.take_if(|last| *last < end) {
                        assert!(first <= last, "a block behind the last one");
                        sender.set_last(last);
                        end = last + 1;
                    }
                    sender.sent(end, now);
                }
                (Step::Open | Step::Ack(_) | Step::Error(..), Self::Stores(receiver)) => {
                    receiver.sent(now);
                }
                (step, _) => panic!("not for this end: {step:?}"),
            }
        }
        assert!(room < 100, "a machine that never rests");
        None
    }
}
