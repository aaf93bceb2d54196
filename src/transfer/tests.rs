use super::*;
use crate::error::Refusal;
use crate::limits::{BURST_GAP, LOOP_TICK};
use crate::proto::{Policy, Receiver, Sender, Terms, grant};
use crate::store::mappings::Mappings;
use crate::store::{Kind, Sink, Source};
use crate::sys::fs::Status;
use crate::wire::{Mode, OptionName, Request};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct Alone;

impl Surroundings for Alone {
    fn others_wait(&self) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

/// A stream of 700 octets, two blocks, for which a large window and an OACK were agreed; and its
/// peer.
fn streaming() -> (Transfer, UdpSocket) {
    stream(io::Cursor::new(vec![7; 700]), 32)
}

fn stream(octets: impl io::Read + Send + 'static, windowsize: u16) -> (Transfer, UdpSocket) {
    let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let peer = UdpSocket::bind(localhost).expect("a socket");
    let peer_address = peer.local_addr().expect("an address");
    let socket = Link::open(localhost, peer_address, &SocketOptions::default()).expect("a socket");
    let agreed = Agreed {
        windowsize,
        ..Agreed::default()
    };
    let mappings = Mappings::new(0, Duration::ZERO);
    let source = Source::reader(octets, None);
    let body = Body::new(source, Mode::Octet, &mappings, now()).expect("a body");
    let machine = Sender::answering(&agreed, true, None, &Policy::default(), now());
    let end = End::sending(machine, body, &agreed);
    let origin = Origin {
        id: TransferId(1),
        name: Name::new(b"stream"),
        direction: Direction::Read,
        asked: Options::default(),
        arrived: now(),
    };
    let oack = b"\0\x06windowsize\x0032\0".to_vec();
    let transfer = Transfer::new(origin, end, socket, localhost, agreed, oack);
    (transfer, peer)
}

#[test]
fn the_end_of_a_stream_is_known_although_its_block_could_not_be_sent() {
    let (mut transfer, _peer) = streaming();
    let mut scratch = Scratch::new();
    assert!(matches!(transfer.run(&mut scratch, &Alone), Turn::Quiet(_)));
    transfer.end.handle(&Packet::Ack { block: 0 }, now());
    transfer.link.stop_sending();
    assert!(matches!(transfer.run(&mut scratch, &Alone), Turn::Quiet(_)));
    assert!(transfer.network.is_some(), "the blocks did not leave");
    transfer.end.handle(&Packet::Ack { block: 3 }, now());
    assert_eq!(transfer.end.octets(), 0, "there is no block 3");
    transfer.end.handle(&Packet::Ack { block: 2 }, now());
    assert!(matches!(
        transfer.run(&mut scratch, &Alone),
        Turn::Done(Ending::Completed)
    ));
}

/// A server's thread that is the only free one, or not; and how often it waited for the peer.
struct Thread {
    is_needed: bool,
    waits: std::cell::Cell<u32>,
}

impl Surroundings for Thread {
    fn others_wait(&self) -> bool {
        false
    }

    fn is_needed(&self) -> bool {
        self.is_needed
    }

    fn listens(&self, listens: bool) {
        self.waits.set(self.waits.get() + u32::from(listens));
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

/// Thousands may be silent; while threads wait for them, those that talk wait for a thread.
#[test]
fn a_thread_waits_for_those_that_talk() {
    let mut scratch = Scratch::new();
    for (is_needed, waits) in [(false, 1), (true, 0)] {
        let thread = Thread {
            is_needed,
            waits: 0.into(),
        };
        let (mut transfer, peer) = streaming();
        assert!(matches!(
            transfer.run(&mut scratch, &thread),
            Turn::Quiet(_)
        ));
        assert_eq!(thread.waits.get(), waits, "for the first answer");
        assert!(matches!(
            transfer.run(&mut scratch, &thread),
            Turn::Quiet(_)
        ));
        assert_eq!(thread.waits.get(), waits, "for one that said nothing");
        let server = transfer.link.local_addr().expect("an address");
        peer.send_to(&wire::ack(0), server).expect("an ACK");
        assert!(matches!(
            transfer.run(&mut scratch, &thread),
            Turn::Quiet(_)
        ));
        // Where it was waited for in vain, it has become known as one whose answers take longer
        // than that.
        let more = u32::from(is_needed);
        assert_eq!(thread.waits.get(), waits + more, "for one that answered");
    }
}

#[test]
fn who_talked_in_one_turn_is_waited_for_in_the_next() {
    let (mut transfer, peer) = stream(io::repeat(7), 1);
    let thread = Thread {
        is_needed: true,
        waits: 0.into(),
    };
    let server = transfer.link.local_addr().expect("an address");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut datagram = [0; 516];
            peer.set_read_timeout(Some(DRAIN)).expect("a socket");
            while !is_over.load(Ordering::Relaxed) {
                if peer.recv(&mut datagram).is_ok() {
                    let is_data = datagram[1] == 3;
                    let block =
                        [datagram[2], datagram[3]].map(|octet| if is_data { octet } else { 0 });
                    let ack = wire::ack(u16::from_be_bytes(block));
                    peer.send_to(&ack, server).expect("an ACK");
                }
            }
        });
        let mut scratch = Scratch::new();
        while !matches!(transfer.run(&mut scratch, &thread), Turn::SliceUsed) {}
        is_over.store(true, Ordering::Relaxed);
        // A busy machine may have made the round trip long, which does not matter for so short a
        // pause.
        assert!(transfer.is_expected(BURST_GAP, &thread));
    });
}

/// A peer that is 20 ms away is not waited for, but the loop's clock is too coarse for the pauses
/// of a window that is spread.
#[test]
fn a_thread_waits_for_what_the_loop_cannot_measure() {
    let (mut transfer, _peer) = stream(io::repeat(7), 16);
    let asked = now();
    transfer.end.opened(asked);
    transfer
        .end
        .handle(&Packet::Ack { block: 0 }, asked + Duration::from_millis(20));
    transfer.is_talking = true;
    for (left, waits) in [(BURST_GAP, true), (LOOP_TICK, false)] {
        assert_eq!(transfer.is_expected(left, &Alone), waits, "{left:?}");
    }
}

// ---- a client's two roles ---------------------------------------------------------------------

/// A sink that shows what became of the octets, and may refuse.
#[derive(Clone, Default)]
struct Shelf {
    octets: Arc<Mutex<Vec<u8>>>,
    fate: Arc<Mutex<&'static str>>,
    refuses: &'static str,
}

impl Shelf {
    fn octets(&self) -> Vec<u8> {
        self.octets.lock().expect("no panic").clone()
    }

    fn fate(&self) -> &'static str {
        *self.fate.lock().expect("no panic")
    }

    fn ask(&self, call: &'static str) -> Result<(), Refusal> {
        if self.refuses == call {
            return Err(Refusal::new(ErrorCode::DISK_FULL, "disk full"));
        }
        Ok(())
    }
}

impl Sink for Shelf {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.ask("append")?;
        self.octets
            .lock()
            .expect("no panic")
            .extend_from_slice(octets);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        self.ask("commit")?;
        *self.fate.lock().expect("no panic") = "committed";
        Ok(())
    }
}

/// The sink as a transfer holds it: its end is seen.
struct Held(Shelf);

impl Sink for Held {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.0.append(octets)
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        Box::new(self.0.clone()).commit()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut fate = self.0.fate.lock().expect("no panic");
        if fate.is_empty() {
            *fate = "discarded";
        }
    }
}

const DALLY: Duration = Duration::from_secs(5);

fn asking<'a>(server: SocketAddr, request: &Request<'_>, end: End<'a>) -> Dial<'a> {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = Link::asking(local, server, &SocketOptions::default()).expect("a socket");
    Dial::new(
        origin(request),
        end,
        socket,
        local,
        request,
        &Policy::default(),
    )
}

fn origin(request: &Request<'_>) -> Origin {
    Origin {
        id: TransferId(1),
        name: Name::new(request.name),
        direction: request.direction,
        asked: request.options.clone(),
        arrived: now(),
    }
}

/// The status was taken before another program wrote to the file, or cut it.
#[test]
fn a_file_that_changes_between_its_status_and_its_first_read_is_no_file_without_a_size() {
    let scratch = crate::store::scratch::Scratch::new();
    let path = scratch.file("file", "");
    let file = || std::fs::File::open(&path).expect("a file");
    let resize = |length| {
        let file = std::fs::File::options().write(true).open(&path);
        file.and_then(|file| file.set_len(length))
            .expect("a length");
    };
    for (before, after) in [(0, 700), (700, 0), (700, 20)] {
        resize(before);
        let stale = Status::of(&file()).expect("a status");
        resize(after);
        let source = Source(Kind::File(file(), Some(stale)), None);
        let mappings = Mappings::new(0, Duration::ZERO);
        let body = Body::new(source, Mode::Octet, &mappings, now()).expect("a body");
        assert_eq!(body.length(), Some(after), "{before}");
    }
}

fn body(file: &[u8], mode: Mode) -> Body {
    let mappings = Mappings::new(0, Duration::ZERO);
    Body::new(Source::bytes(file), mode, &mappings, now()).expect("a body")
}

fn request(direction: Direction, mode: Mode, options: &[(OptionName, u64)]) -> Request<'static> {
    Request {
        direction,
        name: b"file",
        mode,
        options: options
            .iter()
            .fold(Options::default(), |all, (name, value)| {
                all.with(*name, *value)
            }),
    }
}

fn get(
    server: SocketAddr,
    mode: Mode,
    options: &[(OptionName, u64)],
    shelf: &Shelf,
) -> Dial<'static> {
    let machine = Receiver::requesting(DALLY, &Policy::default(), now());
    let end = End::receiving(machine, Box::new(Held(shelf.clone())), mode);
    asking(server, &request(Direction::Read, mode, options), end)
}

fn put(
    server: SocketAddr,
    mode: Mode,
    options: &[(OptionName, u64)],
    file: &[u8],
) -> Dial<'static> {
    let machine = Sender::requesting(&Policy::default(), now());
    let end = End::sending(machine, body(file, mode), &Agreed::default());
    asking(server, &request(Direction::Write, mode, options), end)
}

/// A client's thread.
struct Caller;

impl Surroundings for Caller {
    fn others_wait(&self) -> bool {
        false
    }

    fn is_dedicated(&self) -> bool {
        true
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

/// Waits for the first answer; the transfer that it makes, and how that ends where it is over at
/// once.
fn answered(
    dial: &mut Option<Dial<'static>>,
    scratch: &mut Scratch,
) -> Result<(Transfer, Option<Ending>), TransferError> {
    loop {
        let waiting = dial.as_mut().expect("no answer yet");
        match waiting.run(scratch) {
            Dialed::Quiet(until) => waiting.mail_until(until),
            Dialed::Failed(failure) => return Err(failure),
            Dialed::Answered(answer) => {
                let dial = dial.take().expect("no answer yet");
                return Ok(dial.accept(&answer, scratch, |_| Ok(())));
            }
        }
    }
}

/// Runs a request until it is over, or until a file is whole.
fn finish(dial: Dial<'static>) -> (Option<Transfer>, Ending) {
    let mut scratch = Scratch::new();
    match answered(&mut Some(dial), &mut scratch) {
        Err(failure) => (None, Ending::Failed(failure)),
        Ok((transfer, Some(ending))) => (Some(transfer), ending),
        Ok((mut transfer, None)) => {
            let ending = complete(&mut transfer, &mut scratch);
            (Some(transfer), ending)
        }
    }
}

fn complete(transfer: &mut Transfer, scratch: &mut Scratch) -> Ending {
    loop {
        match transfer.run(scratch, &Caller) {
            Turn::Done(ending) => return ending,
            _ if transfer.is_complete() => return Ending::Completed,
            Turn::Quiet(until) => _ = transfer.mail_until(until),
            Turn::SliceUsed => {}
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Answers one request as a server does: with this file, or by taking one. Dallies until the client
/// is done.
fn serve(door: &UdpSocket, file: &[u8], shelf: &Shelf, done: &AtomicBool) {
    let mut datagram = [0; 600];
    let (length, client) = door.recv_from(&mut datagram).expect("a request");
    let Ok(Packet::Request(request)) = wire::parse(&datagram[..length]) else {
        panic!("no request");
    };
    let size = request.options.get(OptionName::Tsize);
    let (agreed, answer) = grant(&request.options, size, &Terms::default());
    let policy = Policy::default();
    let mut opening = Vec::new();
    if !answer.is_empty() {
        wire::emit_option_ack(&answer, &mut opening);
    }
    let end = match request.direction {
        Direction::Read => {
            let body = body(file, request.mode);
            let is_oack = !answer.is_empty();
            let last = body.last(Format {
                blksize: agreed.blksize,
                rollover: agreed.rollover,
            });
            let machine = Sender::answering(&agreed, is_oack, last, &policy, now());
            End::sending(machine, body, &agreed)
        }
        Direction::Write => {
            if answer.is_empty() {
                opening = wire::ack(0).to_vec();
            }
            let machine = Receiver::answering(&agreed, DALLY, &policy, now());
            End::receiving(machine, Box::new(Held(shelf.clone())), request.mode)
        }
    };
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = Link::open(local, client, &SocketOptions::default()).expect("a socket");
    let origin = origin(&request);
    let mut transfer = Transfer::new(origin, end, socket, local, agreed, opening);
    let mut scratch = Scratch::new();
    while !done.load(Ordering::SeqCst) {
        match transfer.run(&mut scratch, &Alone) {
            Turn::Done(ending) => return assert!(matches!(ending, Ending::Completed)),
            Turn::Quiet(_) | Turn::SliceUsed => {}
        }
    }
}

#[test]
fn files_go_both_ways_whatever_was_agreed() {
    use OptionName::{Blksize, Rollover, Tsize, Windowsize};
    let text = b"one\ntwo\rthree\r\n\0\n".repeat(100);
    let asked: [&[(OptionName, u64)]; 5] = [
        &[],
        &[(Tsize, 5)],
        &[(Blksize, 1428), (Windowsize, 16), (Tsize, 0)],
        &[(Blksize, 8), (Windowsize, 64)],
        &[(Windowsize, 7), (Rollover, 1)],
    ];
    let mut cases = vec![(Mode::Netascii, text)];
    cases.extend([0, 1, 511, 512, 513, 1428 * 32, 60_000].map(|size| (Mode::Octet, pattern(size))));
    for (mode, file) in &cases {
        for options in asked {
            for direction in [Direction::Read, Direction::Write] {
                let shelf = Shelf::default();
                let door = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                let server = door.local_addr().expect("an address");
                let dial = match direction {
                    Direction::Read => get(server, *mode, options, &shelf),
                    Direction::Write => put(server, *mode, options, file),
                };
                let done = AtomicBool::new(false);
                let (transfer, ending) = std::thread::scope(|scope| {
                    scope.spawn(|| serve(&door, file, &shelf, &done));
                    let finished = finish(dial);
                    done.store(true, Ordering::SeqCst);
                    finished
                });
                let transfer = transfer.expect("an answer");
                let why = format!("{direction:?} {} octets {mode:?} {options:?}", file.len());
                assert!(matches!(ending, Ending::Completed), "{why}: {ending:?}");
                assert!(shelf.octets() == *file, "{why}");
                assert_eq!(shelf.fate(), "committed", "{why}");
                assert_eq!(
                    transfer.summary().bytes,
                    wire_octets(direction, file, *mode)
                );
                let windowsize = options.iter().find(|(name, _)| *name == Windowsize);
                let windowsize = windowsize.map_or(1, |(_, blocks)| *blocks);
                assert_eq!(u64::from(transfer.agreed().windowsize), windowsize);
            }
        }
    }
}

/// A sender counts what goes over the wire, a receiver what it stores.
fn wire_octets(direction: Direction, file: &[u8], mode: Mode) -> u64 {
    let pairs = file.iter().filter(|octet| matches!(octet, b'\r' | b'\n'));
    let is_counted = direction == Direction::Write && mode == Mode::Netascii;
    file.len() as u64 + if is_counted { pairs.count() as u64 } else { 0 }
}

/// A server by hand: the port that is asked, and the one that answers.
struct ByHand {
    door: UdpSocket,
    tid: UdpSocket,
}

impl ByHand {
    fn new() -> Self {
        let bind = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let patience = Duration::from_secs(10);
            socket
                .set_read_timeout(Some(patience))
                .expect("a patient socket");
            socket
        };
        Self {
            door: bind(),
            tid: bind(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.door.local_addr().expect("an address")
    }

    /// Takes the request.
    fn asked(&self) -> SocketAddr {
        let mut buffer = [0; 600];
        self.door.recv_from(&mut buffer).expect("a request").1
    }

    fn heard(&self) -> Vec<u8> {
        let mut buffer = [0; 600];
        let length = self.tid.recv(&mut buffer).expect("an answer");
        buffer[..length].to_vec()
    }

    fn say(&self, client: SocketAddr, datagram: &[u8]) {
        self.tid.send_to(datagram, client).expect("a datagram");
    }
}

/// What a client makes of a server that answers by these datagrams in a row, each after the
/// client's last.
fn answered_by(
    options: &[(OptionName, u64)],
    shelf: &Shelf,
    datagrams: &[&[u8]],
) -> (Ending, Vec<Vec<u8>>) {
    let server = ByHand::new();
    let dial = get(server.address(), Mode::Octet, options, shelf);
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let client = server.asked();
            let answer = |datagram: &&[u8]| {
                server.say(client, datagram);
                server.heard()
            };
            datagrams.iter().map(answer).collect()
        });
        let (_, ending) = finish(dial);
        (ending, answers.join().expect("no panic"))
    })
}

const DATA_1: &[u8] = b"\0\x03\0\x01hello";

#[test]
fn a_server_that_ignores_options_is_taken_at_its_word() {
    let shelf = Shelf::default();
    let options = [(OptionName::Blksize, 1428), (OptionName::Windowsize, 8)];
    let (ending, heard) = answered_by(&options, &shelf, &[DATA_1]);
    assert!(matches!(ending, Ending::Completed), "{ending:?}");
    assert_eq!(
        (&shelf.octets()[..], shelf.fate()),
        (&b"hello"[..], "committed")
    );
    assert_eq!(heard, [b"\0\x04\0\x01"]);
}

#[test]
fn an_oack_with_what_was_never_asked_is_refused() {
    for oack in [
        &b"\0\x06windowsize\x004\0"[..],
        b"\0\x06blksize\x001429\0",
        b"\0\x06colour\x00red\0",
    ] {
        let shelf = Shelf::default();
        let (ending, heard) = answered_by(&[(OptionName::Blksize, 1428)], &shelf, &[oack]);
        let is_told = matches!(ending, Ending::Failed(TransferError::Protocol(_)));
        assert!(
            is_told && heard[0].starts_with(b"\0\x05\0\x08"),
            "{ending:?} {heard:?}"
        );
        assert_eq!(shelf.fate(), "discarded");
    }
}

#[test]
fn a_block_longer_than_agreed_ends_it() {
    let shelf = Shelf::default();
    let data = [b"\0\x03\0\x01", &[7; 513][..]].concat();
    let (ending, heard) = answered_by(&[], &shelf, &[&data]);
    assert!(
        matches!(ending, Ending::Failed(TransferError::Protocol(_))),
        "{ending:?}"
    );
    assert!(heard[0].starts_with(b"\0\x05\0\x04"), "{heard:?}");
    assert_eq!((shelf.octets().len(), shelf.fate()), (0, "discarded"));
}

#[test]
fn a_sink_that_refuses_ends_it_and_the_server_is_told() {
    for refuses in ["append", "commit"] {
        let shelf = Shelf {
            refuses,
            ..Shelf::default()
        };
        let (ending, heard) = answered_by(&[], &shelf, &[DATA_1]);
        assert!(
            matches!(ending, Ending::Failed(TransferError::Store(_))),
            "{ending:?}"
        );
        assert_eq!(heard, [b"\0\x05\0\x03disk full\0"], "{refuses}");
        assert_eq!(shelf.fate(), "discarded");
    }
}

#[test]
fn the_first_answer_of_the_servers_address_makes_the_peer() {
    let (server, late) = (ByHand::new(), ByHand::new());
    let stranger = UdpSocket::bind("127.0.0.2:0").expect("a socket");
    let shelf = Shelf::default();
    let mut dial = get(server.address(), Mode::Octet, &[], &shelf);
    let mut scratch = Scratch::new();
    let transfer = std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = server.asked();
            let block = [b"\0\x03\0\x01", &[1; 512][..]].concat();
            let other = [b"\0\x03\0\x01", &[9; 512][..]].concat();
            stranger.send_to(&other, client).expect("a datagram");
            server.say(client, &block);
            assert_eq!(server.heard(), b"\0\x04\0\x01");
            // Another port of the same address, once the peer is known. Its own socket hears of
            // nothing.
            late.say(client, b"\0\x03\0\x02wrong");
            server.say(client, b"\0\x03\0\x02right");
            assert_eq!(server.heard(), b"\0\x04\0\x02");
        });
        let answer = loop {
            match dial.run(&mut scratch) {
                Dialed::Quiet(until) => dial.mail_until(until),
                Dialed::Failed(failure) => panic!("{failure:?}"),
                Dialed::Answered(answer) => break answer,
            }
        };
        assert_eq!(dial.stranger(), stranger.local_addr().ok());
        let (mut transfer, ending) = dial.accept(&answer, &mut scratch, |_| Ok(()));
        assert!(ending.is_none(), "{ending:?}");
        let ending = complete(&mut transfer, &mut scratch);
        assert!(matches!(ending, Ending::Completed), "{ending:?}");
        transfer
    });
    assert_eq!(told(&stranger).as_deref(), Some(UNKNOWN));
    let peer = server.tid.local_addr().expect("an address");
    assert_eq!(transfer.summary().peer, peer);
    assert_eq!(shelf.octets(), [&[1; 512][..], b"right"].concat());
}

const UNKNOWN: &[u8] = b"\0\x05\0\x05unknown transfer ID\0";

/// What lies there for it.
fn told(stranger: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 600];
    stranger.set_nonblocking(true).expect("a socket");
    let length = stranger.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

/// A request that came twice may be answered twice. The first answer counts, and the second gets an
/// ERROR (RFC 1350 §4).
#[test]
fn a_second_answer_is_refused() {
    let (server, late, mistaken) = (ByHand::new(), ByHand::new(), ByHand::new());
    let shelf = Shelf::default();
    let mut dial = get(server.address(), Mode::Octet, &[], &shelf);
    let mut scratch = Scratch::new();
    assert!(matches!(dial.run(&mut scratch), Dialed::Quiet(_)));
    let client = server.asked();
    // All of them lie there when the client is connected to the first.
    server.say(client, &[b"\0\x03\0\x01", &[1; 512][..]].concat());
    late.say(client, &[b"\0\x03\0\x01", &[9; 512][..]].concat());
    mistaken.say(client, b"\0\x05\0\x04what?\0");
    mistaken.say(client, b"what?");
    let answered = answered(&mut Some(dial), &mut scratch);
    let Ok((mut transfer, None)) = answered else {
        panic!("no answer");
    };
    assert!(matches!(
        transfer.run(&mut scratch, &Caller),
        Turn::Quiet(_)
    ));
    assert_eq!(server.heard(), b"\0\x04\0\x01");
    server.say(client, b"\0\x03\0\x02right");
    let ending = complete(&mut transfer, &mut scratch);
    assert!(matches!(ending, Ending::Completed), "{ending:?}");
    assert_eq!(told(&late.tid).as_deref(), Some(UNKNOWN));
    assert_eq!(told(&mistaken.tid), None, "an answer to an ERROR");
    assert_eq!(shelf.octets(), [&[1; 512][..], b"right"].concat());
}

/// RFC 1350 §6 encourages a receiver to wait for a copy of the last block. Nothing says that one
/// comes where nothing was lost, and the caller waits.
#[test]
fn a_client_dallies_only_where_something_was_lost() {
    let block = [b"\0\x03\0\x01", &[1; 512][..]].concat();
    for is_repeated in [false, true] {
        let (server, shelf) = (ByHand::new(), Shelf::default());
        let dial = get(server.address(), Mode::Octet, &[], &shelf);
        let mut scratch = Scratch::new();
        let mut dial = Some(dial);
        let waiting = dial.as_mut().expect("a request");
        assert!(matches!(waiting.run(&mut scratch), Dialed::Quiet(_)));
        let client = server.asked();
        server.say(client, &block);
        let Ok((mut transfer, None)) = answered(&mut dial, &mut scratch) else {
            panic!("no answer");
        };
        assert!(matches!(
            transfer.run(&mut scratch, &Caller),
            Turn::Quiet(_)
        ));
        if is_repeated {
            server.say(client, &block);
            assert!(matches!(
                transfer.run(&mut scratch, &Caller),
                Turn::Quiet(_)
            ));
        }
        server.say(client, b"\0\x03\0\x02last");
        let turn = transfer.run(&mut scratch, &Caller);
        assert_eq!(shelf.fate(), "committed");
        assert_eq!(matches!(turn, Turn::Quiet(_)), is_repeated);
        assert_eq!(matches!(turn, Turn::Done(Ending::Completed)), !is_repeated);
    }
}

#[test]
fn an_error_ends_a_request_with_its_words() {
    let server = ByHand::new();
    let dial = put(server.address(), Mode::Octet, &[], b"hello");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = server.asked();
            server.say(client, b"\0\x05\0\x08no options here\0");
        });
        match finish(dial).1 {
            Ending::Failed(TransferError::Aborted { code, text }) => {
                assert_eq!(code, ErrorCode::OPTION_REFUSED);
                assert_eq!(text.as_bytes(), b"no options here");
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Another transfer waits for the thread, or none.
struct Crowd(bool);

impl Surroundings for Crowd {
    fn others_wait(&self) -> bool {
        self.0
    }

    fn is_stopping(&self) -> bool {
        false
    }
}

/// A large window is a long turn: those who wait behind many of them would wait for all of each.
#[test]
fn a_window_larger_than_a_slice_takes_several_turns_beside_others() {
    const BLKSIZE: u16 = 32768;
    const WINDOW: u16 = 16;
    let mut scratch = Scratch::new();
    for (others, turns) in [(true, 4), (false, 1)] {
        let agreed = Agreed {
            blksize: BLKSIZE,
            windowsize: WINDOW,
            ..Agreed::default()
        };
        let localhost = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let peer = UdpSocket::bind(localhost).expect("a socket");
        let address = peer.local_addr().expect("an address");
        let options = SocketOptions::default();
        let socket = Link::open(localhost, address, &options).expect("a socket");
        let mappings = Mappings::new(0, Duration::ZERO);
        let source = Source::reader(io::repeat(7), None);
        let mut body = Body::new(source, Mode::Octet, &mappings, now()).expect("a body");
        let format = Format {
            blksize: BLKSIZE,
            rollover: agreed.rollover,
        };
        body.set_format(format, WINDOW);
        // It has taken windows before, so nothing is paced.
        let mut machine = Sender::answering(&agreed, false, None, &Policy::default(), now());
        let mut window = 0;
        while window < 8 {
            match machine.poll(now()) {
                Step::Data { end, .. } => machine.sent(end, now()),
                Step::Wait(_) => {
                    window += 1;
                    let block = window * WINDOW;
                    machine.handle(&Packet::Ack { block }, now());
                }
                step => panic!("{step:?}"),
            }
        }
        let end = End::sending(machine, body, &agreed);
        let request = Request {
            direction: Direction::Read,
            name: b"f",
            mode: Mode::Octet,
            options: Options::default(),
        };
        let mut transfer =
            Transfer::new(origin(&request), end, socket, localhost, agreed, Vec::new());
        let mut used = 1;
        while matches!(transfer.run(&mut scratch, &Crowd(others)), Turn::SliceUsed) {
            used += 1;
        }
        assert_eq!(used, turns, "others wait: {others}");
    }
}

/// A packet behind the one that began the turn makes no readiness of its own.
#[test]
fn a_transfer_that_waits_for_its_source_has_read_all_its_packets() {
    struct Nothing;
    impl io::Read for Nothing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    let (mut transfer, peer) = stream(Nothing, 1);
    let mut scratch = Scratch::new();
    assert!(matches!(transfer.run(&mut scratch, &Alone), Turn::Quiet(_)));
    let server = transfer.link.local_addr().expect("an address");
    peer.send_to(&wire::ack(0), server).expect("an ACK");
    let begun = now();
    let Turn::Quiet(until) = transfer.run(&mut scratch, &Alone) else {
        panic!("there is no block 1");
    };
    assert!(until >= begun + STORE_DEADLINE, "no clock of the peer runs");
    peer.send_to(&wire::ack(0), server).expect("an ACK");
    let error = error(ErrorCode::ILLEGAL_OPERATION, "no");
    peer.send_to(&error, server).expect("an ERROR");
    let turn = transfer.run(&mut scratch, &Alone);
    assert!(matches!(
        turn,
        Turn::Done(Ending::Failed(TransferError::Aborted { .. }))
    ));
}
