//! What the fuzz targets do with their octets. `tests/fuzz_corpus.rs` runs the same over the
//! committed corpus, and `tests/properties.rs` over random octets.

#[allow(dead_code)] // tests take other parts of it
#[path = "../src/store/scratch.rs"]
mod scratch;

use scratch::Scratch;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tftpool::unversioned::admission::{
    Desk, Lease, Quota, Supply, Tid, Verdict as Admitted, patience,
};
use tftpool::unversioned::limits::{
    HALF_OPEN_CHANCE, HALF_OPEN_MIN_AGE, HALF_OPEN_PER_TID, PORT_ASIDE, TRANSFERS_PER_TID,
};
use tftpool::unversioned::proto::{
    Agreed, Outcome, Policy, Receiver, Retransmit, Rollover, Sender, Step, Terms, Verdict, accept,
    grant,
};
use tftpool::unversioned::wire::{
    Options, Packet, ack, data_header, emit_error, emit_option_ack, parse,
};
use tftpool::{Dir, Entry, EntryKind, Storage, TransferId};

/// A datagram never panics, and what was understood says the same when it is written and read
/// again.
pub fn packet(octets: &[u8]) {
    let Ok(packet) = parse(octets) else {
        return;
    };
    let mut out = Vec::new();
    match packet {
        Packet::Request(ref request) => request.emit(&mut out),
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
        Packet::OptionAck(ref options) => emit_option_ack(options, &mut out),
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

/// Whatever is asked: nothing is granted that was not asked for or is more than was asked for, and
/// a client of ours accepts every answer of ours and understands the same by it.
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

/// Packets, silences and requests in any order: a machine never panics, always comes to a `Wait` in
/// the future or an end, and stays ended.
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

/// What a server says to a client's request and after it, as datagrams of any octets: the first
/// octet of the input chooses what was asked for, then each datagram stands behind its length and a
/// pause. Nothing panics, a client never agrees to more than it asked for, and never stores a block
/// twice, out of order, or longer than agreed.
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
                Packet::OptionAck(ref oack) => accept(&asked, oack).ok(),
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

/// Names of any octets are mapped to files, and what stands there is read, written, moved and
/// removed: one line of the input is what is done and the name that it is done to. Nothing outside
/// the root is ever read or changed, what was written is read by the same name, and no message
/// carries a control character of the name.
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

/// The admission of requests, driven by one byte for an action and one for its object: requests of
/// a few clients, ACKs, complete uploads, ends, sockets that close late, ports that other programs
/// hold, and the clock. No budget is exceeded, a transfer makes room only when its time is up, no
/// port is leased twice, and nothing is left when all transfers are over.
#[allow(clippy::disallowed_methods)] // any instant will do
pub fn admission(octets: &[u8]) {
    let (head, actions) = octets.split_at(octets.len().min(6));
    let byte = |index: usize| head.get(index).copied().unwrap_or_default();
    let some = |index: usize| (byte(index) & 7 != 0).then_some(usize::from(byte(index) & 7));
    let quota = Quota {
        transfers: 1 + usize::from(byte(0) % 64),
        per_client: some(1),
        half_open: 1 + usize::from(byte(2) % 64),
        half_open_per_client: some(3),
        half_open_per_network: some(4),
    };
    let most = 1 + byte(5) % 32;
    let supply = match byte(5) & 128 {
        0 => Supply::Range(40_000..=40_000 + u16::from(most) - 1),
        _ => Supply::System(most.into()),
    };
    let mut world = Admission {
        desk: Desk::new(quota, supply),
        quota,
        ports: most.into(),
        now: Instant::now(),
        transfers: BTreeMap::new(),
        closing: Vec::new(),
    };
    for few in actions.chunks(16) {
        for action in few.chunks_exact(2) {
            world.act(action[0], action[1]);
        }
        world.check();
    }
    world.end();
}

/// What the loop knows, kept as plainly as can be.
struct Admission {
    desk: Desk,
    quota: Quota,
    /// Of each address.
    ports: usize,
    now: Instant,
    transfers: BTreeMap<TransferId, Begun>,
    closing: Vec<Lease>,
}

struct Begun {
    tid: Tid,
    /// Until then it may not make room.
    safe_until: Instant,
    is_established: bool,
    is_complete: bool,
    /// `None` while it waits.
    port: Option<u16>,
}

impl Admission {
    fn act(&mut self, action: u8, object: u8) {
        match action % 8 {
            0 | 1 => self.request(object),
            2 => {
                if let Some(id) = self.any(object) {
                    self.acknowledged(id, u64::from(action / 8));
                }
            }
            3 => {
                let id = self.any(object);
                if let Some((id, begun)) =
                    id.and_then(|id| Some((id, self.transfers.get_mut(&id)?)))
                    && begun.is_established
                {
                    begun.is_complete = true;
                    self.desk.finished(id, self.now);
                }
            }
            4 => {
                if let Some(id) = self.any(object) {
                    self.over(id, action & 8 != 0);
                }
            }
            5 => {
                if !self.closing.is_empty() {
                    let lease = self
                        .closing
                        .swap_remove(usize::from(object) % self.closing.len());
                    self.desk.give_back(lease);
                }
            }
            6 => {
                // Another program holds the port.
                if let Some(id) = self.any(object)
                    && self.desk.has_chosen_port(id)
                {
                    let port = self.desk.is_taken(id, u64::from(action), self.now);
                    self.transfers.get_mut(&id).expect("any").port = port;
                }
            }
            _ => self.now += Duration::from_millis(10 * u64::from(object)),
        }
        while let Some((id, port)) = self.desk.granted(self.now) {
            let begun = self.transfers.get_mut(&id).expect("it waits");
            assert_eq!(begun.port.replace(port), None, "it has a port");
            begun.safe_until = self.now + HALF_OPEN_CHANCE;
        }
    }

    fn any(&self, object: u8) -> Option<TransferId> {
        let nth = usize::from(object) % self.transfers.len().max(1);
        self.transfers.keys().nth(nth).copied()
    }

    fn request(&mut self, object: u8) {
        let tid = Tid {
            peer: (
                [10, 0, object >> 6, 1 + (object >> 4 & 3)],
                1000 + u16::from(object & 7),
            )
                .into(),
            local: ([10, 1, 0, 1 + (object >> 3 & 1)], 69).into(),
        };
        let digest = self.transfers.len() as u64;
        if let Some(id) = self.desk.current(&tid, digest) {
            assert_eq!(self.transfers[&id].tid, tid);
        }
        for _ in 0..8 {
            match self.desk.admit(tid, digest, u64::from(object), self.now) {
                Admitted::Admit(id, port) => {
                    let begun = Begun {
                        tid,
                        safe_until: self.now + HALF_OPEN_CHANCE,
                        is_established: false,
                        is_complete: false,
                        port,
                    };
                    let before = self.transfers.insert(id, begun);
                    assert!(before.is_none(), "a number that was used before");
                    for older in self.desk.given_up(&tid) {
                        assert!(older < id && self.transfers[&older].tid == tid);
                        self.over(older, object & 1 != 0);
                    }
                    return;
                }
                Admitted::MakeRoom(id) => {
                    let victim = &self.transfers[&id];
                    let is_given_up = victim.tid == tid && !victim.is_established;
                    let early = self.now + HALF_OPEN_CHANCE - HALF_OPEN_MIN_AGE;
                    let has_had_least = !victim.is_established && victim.safe_until <= early;
                    let is_due = victim.safe_until <= self.now || has_had_least;
                    if victim.is_complete || is_given_up || is_due {
                        self.over(id, object & 1 != 0);
                    } else {
                        // Only an established one may have got further since the desk heard of it
                        // last.
                        assert!(victim.is_established, "it had no time");
                        self.desk.spare(id, victim.safe_until);
                    }
                }
                Admitted::Drop(_) => return,
            }
        }
    }

    fn acknowledged(&mut self, id: TransferId, windows: u64) {
        let begun = self.transfers.get_mut(&id).expect("any");
        if begun.port.is_none() || begun.is_complete {
            return; // no worker has answered it yet
        }
        begun.is_established = true;
        let tid = begun.tid;
        begun.safe_until = begun.safe_until.max(self.now + patience(1 + windows));
        for older in self.desk.proven(id, self.now) {
            assert!(older < id && self.transfers[&older].tid == tid);
            self.over(older, false);
        }
    }

    /// A transfer is over; its socket is closed at once, or later.
    fn over(&mut self, id: TransferId, is_closed: bool) {
        let begun = self.transfers.remove(&id).expect("it runs");
        let lease = self.desk.remove(id);
        // One that waited may have got a port a moment ago.
        let port = lease.as_ref().map(Lease::port);
        assert!(begun.port.is_none() || begun.port == port);
        match lease {
            Some(lease) if is_closed => self.desk.give_back(lease),
            Some(mut lease) => {
                self.desk.is_closing(&mut lease);
                self.closing.push(lease);
            }
            None => {}
        }
    }

    fn check(&self) {
        let count = |wanted: &dyn Fn(&Begun) -> bool| {
            let all = self.transfers.values();
            all.filter(|begun| wanted(begun)).count()
        };
        let quota = &self.quota;
        assert!(self.transfers.len() <= quota.transfers);
        assert!(count(&|it| !it.is_established) <= quota.half_open);
        for begun in self.transfers.values() {
            let client = begun.tid.peer.ip();
            let of_client = |it: &Begun| it.tid.peer.ip() == client;
            let most = |most: Option<usize>| most.unwrap_or(usize::MAX);
            let held = count(&|it| of_client(it) && !it.is_complete);
            assert!(held <= most(quota.per_client));
            let half_open = count(&|it| of_client(it) && !it.is_established);
            assert!(half_open <= most(quota.half_open_per_client));
            let of_tid = |it: &Begun| it.tid == begun.tid;
            assert!(count(&of_tid) <= TRANSFERS_PER_TID);
            assert!(count(&|it| of_tid(it) && !it.is_established) <= HALF_OPEN_PER_TID);
        }
        for local in [1, 2].map(|host| SocketAddr::from(([10, 1, 0, host], 69))) {
            let here = |it: &Begun| it.tid.local == local;
            let half_open = count(&|it| here(it) && !it.is_established);
            assert!(half_open <= self.ports.div_ceil(2));
            let held = self.transfers.values().filter(|it| here(it));
            let mut ports: Vec<_> = held.filter_map(|it| it.port).collect();
            let closing = self
                .closing
                .iter()
                .filter(|lease| lease.address().ip() == local.ip());
            ports.extend(closing.map(Lease::port));
            assert!(ports.len() <= self.ports, "more ports than there are");
            ports.retain(|port| *port != 0);
            ports.sort_unstable();
            assert!(ports.windows(2).all(|two| two[0] != two[1]), "leased twice");
        }
        for (id, begun) in &self.transfers {
            assert_eq!(self.desk.waits(*id), begun.port.is_none());
        }
    }

    fn end(mut self) {
        while let Some(id) = self.any(0) {
            self.over(id, true);
            self.act(7, 0);
        }
        for lease in std::mem::take(&mut self.closing) {
            self.desk.give_back(lease);
        }
        self.now += PORT_ASIDE;
        assert_eq!(self.desk.granted(self.now), None);
        assert!(self.desk.is_empty(), "{:?}", self.desk);
    }
}
