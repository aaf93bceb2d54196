//! The loop: takes requests, hands work to the pool, watches the transfers whose peers are quiet.
//!
//! It owns the admission desk, the table and every parked transfer; a worker owns the one it runs; everything between
//! them is a message. The loop never waits for a file, a worker, a reader of events or a send.

use super::bucket::Bucket;
use super::complaints::Complaints;
use super::desk::{ById, Desk, Quota, Scope, Tid, Verdict, patience};
use super::mailbox::{Mail, Mailbox};
use super::pool::Pool;
use super::ports::{Lease, Supply};
use super::worker::{Chore, Opening, Report, Shared, Stage};
use super::{MAIL, Stop};
use crate::error::{Error, Failure, Refusal, plain};
use crate::event::{DropReason, Event, Name, TransferId};
use crate::limits::{
    ERRORS_PER_SECOND, MAPPING_IDLE, MAX_REQUEST, PORT_WAIT, SPARE_WORKERS, STUCK_AFTER,
    UNPROVEN_CHANCE,
};
use crate::sys::is_scarce;
use crate::sys::udp::{Listener, Received};
use crate::transfer::{CANCELLED, Ending, STOPPING, Transfer, now};
use crate::wire::{self, Direction, ErrorCode, Malformed, Packet};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What others tell the loop.
pub(super) enum Message {
    /// From a worker.
    Reports(Vec<Report>),
    /// From a handle.
    Stop(Stop),
    /// From a handle.
    Cancel(TransferId),
    /// From a handle.
    Reload,
}

/// The waker's token; listeners have the numbers from 0, transfers those from [`FIRST_TRANSFER`].
pub(super) const WAKER: Token = Token(usize::MAX);
const FIRST_TRANSFER: u64 = 1 << 10;

/// Readiness events taken from the system at once.
const EVENTS: usize = 1024;
/// Entries in the heap per transfer before those that are not due any more are cleared out.
const TIMERS_PER_SLOT: usize = 4;
/// Requests taken from one listener before transfers get their turn again.
const REQUESTS_PER_TURN: usize = 256;
/// Transfers looked at before a request gives up on finding room.
const ROOM_TRIES: usize = 8;
/// Requests for which the system had no socket try again when a socket is closed. Other programs
/// close theirs unseen: for that reason a few requests try again after this time. An attempt
/// without success may take the system a millisecond.
const SOCKET_RETRY: Duration = Duration::from_millis(100);
const RETRIES_AT_ONCE: usize = 4;
/// How long the loop lets things gather while workers are busy. They are for longer than that.
const GATHER: Duration = Duration::from_micros(200);
/// How long the end waits for workers that are inside a store or a read.
const LAST_WAIT: Duration = Duration::from_secs(2);
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub(super) struct Loop {
    poll: Poll,
    mail: Mail<Message>,
    shared: Arc<Shared>,
    listeners: Vec<Door>,
    desk: Desk,
    slots: ById<Slot>,
    /// A few per transfer; those that are not due any more are skipped, and cleared out when they outnumber the rest.
    timers: BinaryHeap<Reverse<(Instant, TransferId)>>,
    /// Requests for which the system had no socket, and when the next of them try again.
    starved: VecDeque<Arc<Opening>>,
    next_retry: Instant,
    /// The ports of transfers that were ended here and whose sockets a worker has still to close.
    closing: ById<Lease>,
    /// Of these, sockets that are closed as soon as a worker is free.
    burying: usize,
    pool: Pool,
    digest: RandomState,
    /// Random numbers that were drawn.
    drawn: u64,
    /// When unused mappings are looked for; `None` while nothing was asked for since there were none.
    next_sweep: Option<Instant>,
    stopping: Option<Stopping>,
    complaints: Complaints,
    /// ERROR replies to what starts nothing.
    errors: Bucket,
}

struct Door {
    listener: Listener,
    /// The system has said that there is something, and not yet that there is nothing.
    open: bool,
}

/// One transfer, as the loop sees it.
struct Slot {
    /// The transfer, while it is parked; `None` while a worker or a queue has it.
    parked: Option<Box<Transfer>>,
    /// The request, until the transfer is parked for the first time: the store may never answer.
    opening: Option<Arc<Opening>>,
    /// Its socket's descriptor, from the first parking on, and whether the system watches it for us.
    descriptor: Option<RawFd>,
    watched: bool,
    /// The system said once that there was something while a worker had it.
    rung: bool,
    /// The desk knows that the peer has answered.
    proven: bool,
    /// An upload whose file is stored. Only a worker that is about to return it has it, or it is
    /// parked.
    is_complete: bool,
    deadline: Instant,
    /// The earliest entry in the heap.
    timer: Option<Instant>,
    /// To be looked at when it comes back: the same request once more, and why it is to end. A parked
    /// transfer has neither.
    again: Option<Arrival>,
    doomed: Option<Failure>,
}

/// A request that was read and looked well-formed.
struct Arrival {
    tid: Tid,
    digest: u64,
    datagram: Box<[u8]>,
    /// When it had been received; never earlier.
    at: Instant,
    /// The same was asked before, and done: see [`Opening::may_be_copy`].
    may_be_copy: bool,
    broadcast: bool,
}

struct Stopping {
    deadline: Instant,
    forced: bool,
}

impl Loop {
    pub(super) fn new(
        poll: Poll,
        (mailbox, mail): (Mailbox<Message>, Mail<Message>),
        shared: Arc<Shared>,
        listeners: Vec<Listener>,
        (quota, supply): (Quota, Supply),
        workers: usize,
    ) -> Result<Self, Error> {
        let system = |doing| move |cause| Error::System { doing, cause };
        let mut doors = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let descriptor = listener.as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&descriptor), Token(index), Interest::READABLE)
                .map_err(system("watch a listening socket"))?;
            doors.push(Door {
                listener,
                open: true,
            });
        }
        let pool =
            Pool::start(workers, Arc::clone(&shared), mailbox).map_err(system("start a thread"))?;
        Ok(Self {
            poll,
            mail,
            shared,
            listeners: doors,
            desk: Desk::new(quota, supply),
            slots: ById::default(),
            timers: BinaryHeap::new(),
            starved: VecDeque::new(),
            next_retry: now(),
            closing: ById::default(),
            burying: 0,
            pool,
            digest: RandomState::new(),
            drawn: 0,
            next_sweep: None,
            stopping: None,
            complaints: Complaints::default(),
            errors: Bucket::new(ERRORS_PER_SECOND, now()),
        })
    }

    /// Runs until the server is stopped and its transfers have ended.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(EVENTS);
        let result = loop {
            self.gather();
            let timeout = self.mail.before_sleep(self.timeout());
            let polled = self.poll.poll(&mut events, timeout);
            self.mail.after_sleep();
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => {
                    break Err(Error::System {
                        doing: "wait for packets",
                        cause,
                    });
                }
            }
            for event in &events {
                self.event(event.token());
            }
            // What workers say comes before new requests: a client's last ACK may stand between two of its RRQs.
            self.read_mail();
            let time = now();
            self.requests(time);
            self.deadlines(time);
            if let Err(error) = self.pool.tend(time) {
                self.complaints
                    .add(time, "cannot start another worker", &plain(&error));
            }
            if self.is_finished(time) {
                break Ok(());
            }
        };
        self.leave();
        result
    }

    /// Takes the messages that are there. False where there is none.
    fn read_mail(&mut self) -> bool {
        for taken in 0..MAIL {
            let Some(message) = self.mail.take() else {
                return taken > 0;
            };
            self.message(message);
        }
        true
    }

    // ---- time -------------------------------------------------------------------------------

    /// While workers have enough to do anyway, lets packets and reports come together: a loop that wakes for each of them takes the
    /// processor from those who answer them.
    #[allow(
        clippy::disallowed_methods,
        reason = "whatever ended this wait is what it is to bundle"
    )]
    fn gather(&self) {
        let is_drained = self.listeners.iter().all(|door| !door.open);
        if is_drained && self.pool.is_busy() {
            std::thread::sleep(GATHER);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let time = now();
        if self.listeners.iter().any(|door| door.open) {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.timers.peek().map(|Reverse((deadline, _))| *deadline),
            self.lacks_sockets().then_some(self.next_retry),
            self.desk.due(),
            self.next_sweep,
            self.complaints.due(),
            self.shared.reporter.due(),
            self.stopping.as_ref().map(|stopping| stopping.deadline),
            self.pool.due(time),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(time))
    }

    fn deadlines(&mut self, time: Instant) {
        while let Some(&Reverse((due, id))) = self.timers.peek() {
            if due > time {
                break;
            }
            self.timers.pop();
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            if slot.timer == Some(due) {
                slot.timer = None;
            }
            if slot.parked.is_none() {
                self.unanswered(id, time);
                continue;
            }
            if slot.deadline <= time {
                self.resume(id);
            } else if slot.timer.is_none() {
                slot.timer = Some(slot.deadline);
                self.timers.push(Reverse((slot.deadline, id)));
            }
        }
        if self.lacks_sockets() && time >= self.next_retry {
            self.next_retry = time + SOCKET_RETRY;
            for _ in 0..RETRIES_AT_ONCE {
                self.retry_starved();
            }
            // Transfers that had to stay may go by now.
            for scope in self.desk.short_of_ports() {
                self.free_a_port(scope, time);
            }
        }
        self.open_granted(time);
        self.complaints.say(time);
        self.shared.reporter.catch_up(time);
        if self.next_sweep.is_some_and(|sweep| time >= sweep) {
            let is_needed = self.shared.mappings.has_entries();
            self.next_sweep = is_needed.then(|| time + MAPPING_IDLE / 2);
            if is_needed {
                self.pool.chore(Chore::Sweep);
            }
        }
    }

    /// A request is with the store, or on its way to it, for a while. When its call is slow others may enter in its place; when it takes
    /// too long the peer is told.
    fn unanswered(&mut self, id: TransferId, time: Instant) {
        let Some(opening) = self.slots.get(&id).and_then(|slot| slot.opening.clone()) else {
            return;
        };
        let deadline = self.shared.store_deadline;
        let mut stage = opening.stage();
        let is_asked = matches!(*stage, Stage::Asked { .. });
        // Whoever waits for long has no right to the place; also one whose time is up before this was noticed.
        if let Stage::Asked { since, slow } = &mut *stage
            && !*slow
            && time >= *since + STUCK_AFTER
        {
            *slow = self.shared.give_place_away();
        }
        let next = match *stage {
            Stage::Answered | Stage::GivenUp { .. } => None,
            Stage::Queued if self.desk.waits(id) => {
                drop(stage);
                return self.portless(&opening, time);
            }
            Stage::Queued if time >= opening.arrived + deadline && self.is_hopeless() => {
                *stage = Stage::GivenUp { slow: false };
                None
            }
            Stage::Asked { since, slow } if time >= since + deadline => {
                *stage = Stage::GivenUp { slow };
                None
            }
            Stage::Asked { since, slow: true } => Some(since + deadline),
            Stage::Asked { since, .. } if time < since + STUCK_AFTER => Some(since + STUCK_AFTER),
            Stage::Queued | Stage::Asked { .. } => Some(time + STUCK_AFTER),
        };
        let is_given_up = matches!(*stage, Stage::GivenUp { .. });
        drop(stage);
        if let Some(next) = next {
            self.watch_the_clock(id, next);
        } else if is_given_up {
            let why = "the store does not answer";
            self.complaints.add(time, "requests refused", why);
            // A worker that is inside the store has a socket for it.
            self.refuse(&opening, "server is busy", why.into(), is_asked);
        }
    }

    /// True where no worker and no place in the store will get free for a request that waits.
    fn is_hopeless(&self) -> bool {
        let Shared {
            slow_calls,
            in_store,
            store_slots,
            ..
        } = &*self.shared;
        let no_worker = self.pool.is_exhausted();
        let no_place = slow_calls.load(Ordering::SeqCst) >= SPARE_WORKERS
            && in_store.load(Ordering::SeqCst) >= *store_slots;
        no_worker || no_place
    }

    fn watch_the_clock(&mut self, id: TransferId, due: Instant) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.timer = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }

    // ---- requests ---------------------------------------------------------------------------

    fn requests(&mut self, time: Instant) {
        let mut buffer = [0; MAX_REQUEST];
        for index in 0..self.listeners.len() {
            if !self.listeners[index].open {
                continue;
            }
            for _ in 0..REQUESTS_PER_TURN {
                let Some(door) = self.listeners.get(index).filter(|door| door.open) else {
                    break;
                };
                match door.listener.recv(&mut buffer) {
                    Ok(Some(received)) => {
                        let datagram = &buffer[..received.length];
                        let mut result = self.datagram(index, &received, datagram);
                        // A worker may have made room since the last message was taken: a client
                        // sends its next request as soon as it has its last ACK.
                        if result.is_err_and(DropReason::is_shortage) && self.read_mail() {
                            result = match self.stopping {
                                Some(_) => Err(DropReason::Stopping),
                                None => self.datagram(index, &received, datagram),
                            };
                        }
                        if let Err(reason) = result {
                            self.dropped(received.peer, reason, time);
                        }
                    }
                    Ok(None) => {
                        self.listeners[index].open = false;
                        break;
                    }
                    Err(error) => {
                        self.listeners[index].open = false;
                        self.complaints
                            .add(time, "cannot receive requests", &plain(&error));
                        break;
                    }
                }
            }
        }
    }

    fn dropped(&mut self, peer: SocketAddr, reason: DropReason, time: Instant) {
        self.shared.reporter.report(Event::Dropped { peer, reason });
        match reason {
            DropReason::Full => self.complaints.add(
                time,
                "requests dropped",
                "too many transfers (see --max-transfers)",
            ),
            DropReason::UnprovenFull => {
                self.complaints
                    .add(time, "requests dropped", "too many peers that never answer")
            }
            DropReason::ClientFull => {
                self.complaints.add(
                    time,
                    "requests dropped",
                    "a client has too many (see --max-transfers-per-client)",
                );
            }
            DropReason::ClientUnprovenFull => self.complaints.add(
                time,
                "requests dropped",
                "a client never answers (see --max-unproven-per-client)",
            ),
            DropReason::NetworkUnprovenFull => self.complaints.add(
                time,
                "requests dropped",
                "a network never answers (see --max-unproven-per-network)",
            ),
            DropReason::Malformed(_) | DropReason::NotARequest => {
                self.complaints
                    .add(time, "datagrams ignored", "not requests");
            }
            _ => {}
        }
    }

    /// One datagram at a listening socket.
    fn datagram(
        &mut self,
        door: usize,
        received: &Received,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let Received { peer, local, .. } = *received;
        let broadcast = received.broadcast;
        if broadcast && !(self.shared.answer_broadcast && received.answerable) {
            return Err(DropReason::Broadcast);
        }
        if peer.port() == 0 || peer == local {
            return Err(DropReason::NoReturn);
        }
        let request = match wire::parse(datagram) {
            Ok(Packet::Request(_)) if received.truncated => Err(Malformed::LongRequest),
            Ok(Packet::Request(request)) => Ok(request),
            // ERROR above all is never answered: two servers would never stop (RFC 1350 §2).
            Ok(_) => return Err(DropReason::NotARequest),
            Err(malformed) => Err(malformed),
        };
        match request {
            // RFC 1123 §4.2.3.5; what is answered at all is a read.
            Err(_) if broadcast => Err(DropReason::Broadcast),
            Ok(request) if broadcast && request.direction == Direction::Write => {
                Err(DropReason::Broadcast)
            }
            Ok(request) if request.direction == Direction::Write && !self.shared.takes_uploads => {
                let refusal = Refusal::read_only();
                self.turn_away(door, local, peer, &refusal);
                let (direction, name) = (request.direction, Name::new(request.name));
                self.shared.reporter.report(Event::Refused {
                    id: None,
                    peer,
                    direction,
                    name,
                    refusal,
                });
                Ok(())
            }
            Ok(_) => {
                let tid = Tid { peer, local };
                let digest = self.digest.hash_one(datagram);
                let at = now();
                let datagram = datagram.into();
                let arrival = Arrival {
                    tid,
                    digest,
                    datagram,
                    at,
                    may_be_copy: false,
                    broadcast,
                };
                self.arrival(arrival)
            }
            Err(malformed) => {
                if malformed.is_request() {
                    let refusal = Refusal::new(ErrorCode::ILLEGAL_OPERATION, malformed.to_string());
                    self.turn_away(door, local, peer, &refusal);
                }
                Err(DropReason::Malformed(malformed))
            }
        }
    }

    /// The answer to what starts nothing, where not too many were given: its source may be forged.
    fn turn_away(&mut self, door: usize, local: SocketAddr, peer: SocketAddr, refusal: &Refusal) {
        if self.errors.take(now()) {
            self.answer(door, local, peer, refusal);
        }
    }

    /// Sends an ERROR from a listening port. Once: if it does not arrive, the client asks again.
    fn answer(&self, door: usize, local: SocketAddr, peer: SocketAddr, refusal: &Refusal) {
        let mut datagram = Vec::with_capacity(64);
        wire::emit_error(refusal.code(), refusal.text(), &mut datagram);
        let _ = self.listeners[door].listener.reply(&datagram, local, peer);
    }

    fn arrival(&mut self, arrival: Arrival) -> Result<(), DropReason> {
        match self.desk.current(&arrival.tid, arrival.digest) {
            Some(id) => self.again(id, arrival),
            None => self.new_transfer(arrival),
        }
    }

    fn new_transfer(&mut self, arrival: Arrival) -> Result<(), DropReason> {
        let Arrival {
            tid, digest, at, ..
        } = arrival;
        for _ in 0..ROOM_TRIES {
            let random = self.random();
            match self.desk.admit(tid, digest, random, at) {
                Verdict::Admit(id, port) => {
                    self.admit(id, port, arrival);
                    self.give_up_older(&tid);
                    return Ok(());
                }
                Verdict::Drop(reason) => return Err(reason),
                Verdict::MakeRoom(id) => _ = self.make_room(id, at),
            }
        }
        Err(DropReason::Full)
    }

    /// Ends half-open transfers of this TID whose client asks for something else by now, unless an
    /// answer lies unread.
    fn give_up_older(&mut self, tid: &Tid) {
        for id in self.desk.given_up(tid) {
            let parked = self.slots.get(&id).and_then(|slot| slot.parked.as_ref());
            if !parked.is_some_and(|transfer| transfer.has_mail()) {
                self.doom(id, Failure::Superseded);
            }
        }
    }

    /// A number that no client can foresee.
    fn random(&mut self) -> u64 {
        self.drawn += 1;
        self.digest.hash_one(self.drawn)
    }

    fn admit(&mut self, id: TransferId, port: Option<u16>, arrival: Arrival) {
        let Arrival {
            tid,
            datagram,
            at,
            may_be_copy,
            broadcast,
            ..
        } = arrival;
        if let Ok(Packet::Request(request)) = wire::parse(&datagram) {
            self.shared.reporter.report(Event::Request {
                id,
                peer: tid.peer,
                local: tid.local,
                direction: request.direction,
                name: Name::new(request.name),
                mode: request.mode,
                options: request.options,
                ignored: wire::options_passed_over(&datagram).map(|text| Name::new(&text)),
            });
        }
        let opening = Arc::new(Opening {
            id,
            tid,
            datagram,
            arrived: at,
            tense: self.desk.is_tense(&tid),
            may_be_copy,
            broadcast,
            port: AtomicU16::new(0),
            stage: Mutex::new(Stage::Queued),
        });
        self.slots.insert(id, Slot::new(at, Arc::clone(&opening)));
        self.watch_the_clock(id, at + STUCK_AFTER);
        self.next_sweep.get_or_insert(at + MAPPING_IDLE / 2);
        match port {
            Some(port) => self.open_at(opening, port),
            None if self.next_retry <= at => self.next_retry = at + SOCKET_RETRY,
            None => {} // others wait, too
        }
    }

    /// A request that has a port goes to the pool.
    fn open_at(&self, opening: Arc<Opening>, port: u16) {
        opening.port.store(port, Ordering::Relaxed);
        self.pool.open(opening);
    }

    /// Requests that have waited for a port and have one now go to the pool.
    fn open_granted(&mut self, time: Instant) {
        while let Some((id, port)) = self.desk.granted(time) {
            if let Some(opening) = self.slots.get(&id).and_then(|slot| slot.opening.clone()) {
                self.open_at(opening, port);
            }
        }
    }

    /// The same request while its transfer lives. What it means depends on what the peer has said by now, and that may lie
    /// unread in the transfer's socket or be in a worker's hands: then the question waits until the transfer is back.
    fn again(&mut self, id: TransferId, mut arrival: Arrival) -> Result<(), DropReason> {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Err(DropReason::Duplicate);
        };
        let Some(transfer) = slot.parked.as_mut().filter(|parked| !parked.has_mail()) else {
            let earlier = slot.again.replace(arrival);
            self.resume(id);
            return earlier.map_or(Ok(()), |_| Err(DropReason::Duplicate));
        };
        if arrival.at < transfer.answered() {
            return Err(DropReason::Duplicate); // what went out since then is the answer
        }
        let is_complete = transfer.is_complete();
        if !is_complete && !transfer.is_proven() {
            if !transfer.request_repeated() {
                return Err(DropReason::Duplicate);
            }
            self.resume(id);
            return Ok(());
        }
        // Most likely a late copy; but a peer that says nothing else may have started anew.
        if !is_complete && !transfer.is_silent() {
            return Err(DropReason::Duplicate);
        }
        if self.stopping.is_some() {
            return Err(DropReason::Stopping);
        }
        arrival.may_be_copy = is_complete;
        self.new_transfer(arrival)
    }

    /// This transfer goes, if it may: it is parked, and its peer has been silent for too long; or
    /// no worker has got to its request. False where it stays.
    fn make_room(&mut self, id: TransferId, time: Instant) -> bool {
        let Some(slot) = self.slots.get(&id) else {
            return false;
        };
        let spared_until = match (&slot.parked, &slot.opening) {
            (Some(transfer), _) if transfer.is_complete() => None,
            (None, _) if slot.is_complete => {
                self.over_but_open(id, time, true);
                return true;
            }
            (Some(transfer), _) => {
                let (moved, windows) = transfer.moved();
                let until = moved + patience(windows);
                let is_early = transfer.is_proven() && until > time;
                // Its answer may lie unread.
                match is_early {
                    true => Some(until),
                    false => transfer.has_mail().then_some(time + UNPROVEN_CHANCE),
                }
            }
            (None, Some(opening)) if opening.give_up() => {
                let opening = Arc::clone(opening);
                self.forget(&opening, Failure::Evicted);
                return true;
            }
            (None, _) => Some(time + UNPROVEN_CHANCE),
        };
        match spared_until {
            Some(until) => self.desk.spare(id, until),
            None => self.end_parked(id, Failure::Evicted),
        }
        spared_until.is_none()
    }

    /// A request has waited for a port for a while. Where a port is about to come back the request
    /// goes on waiting, but not for long.
    fn portless(&mut self, opening: &Arc<Opening>, time: Instant) {
        let patience = match self.free_a_port(opening.tid.address(), time) {
            true => 2 * PORT_WAIT,
            false => PORT_WAIT,
        };
        if time < opening.arrived + patience {
            self.watch_the_clock(opening.id, opening.arrived + patience);
        } else if opening.give_up() {
            self.refuse_without_socket(opening, "no port is free".into());
        }
    }

    /// Where more requests wait for a port of an address than ports are about to come back, a
    /// transfer goes. False where none can.
    fn free_a_port(&mut self, scope: Scope, time: Instant) -> bool {
        !self.desk.is_short_of_ports(scope) || self.one_goes(scope, time)
    }

    /// A transfer goes for the sake of its socket. False where none can.
    fn free_a_socket(&mut self, scope: Scope, time: Instant) -> bool {
        // One that is being closed for each that waits is enough.
        self.burying > self.starved.len() || self.one_goes(scope, time)
    }

    /// True where the socket of this transfer can be closed now, or soon.
    fn can_close(&self, id: TransferId) -> bool {
        self.slots
            .get(&id)
            .is_some_and(|slot| slot.parked.is_some() || slot.is_complete)
    }

    fn one_goes(&mut self, scope: Scope, time: Instant) -> bool {
        for _ in 0..ROOM_TRIES {
            match self.desk.makes_room(scope, time) {
                None => return false,
                // A request that no worker has got to has a port, and nothing else that could be
                // given up.
                Some(id) if scope == Scope::All && !self.can_close(id) => {
                    self.desk.spare(id, time + UNPROVEN_CHANCE);
                }
                Some(id) if self.make_room(id, time) => return true,
                Some(_) => {}
            }
        }
        false
    }

    // ---- transfers --------------------------------------------------------------------------

    fn event(&mut self, token: Token) {
        if token == WAKER {
            return;
        }
        if let Some(door) = self.listeners.get_mut(token.0) {
            door.open = self.stopping.is_none();
            return;
        }
        // A listening socket that was closed may still report, where the one who handed it in kept a copy.
        let Some(id) = (token.0 as u64).checked_sub(FIRST_TRANSFER).map(TransferId) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.parked.is_some() {
            self.resume(id);
        } else if let Some(descriptor) = slot.descriptor.filter(|_| slot.watched) {
            // A worker has it and reads for itself, or its report is on the way. If that goes on, every packet would wake this
            // loop: stop watching until it is parked again. If its socket is closed already, its number belongs to nobody we watch.
            if slot.rung {
                slot.watched = false;
                let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
            }
            slot.rung = !slot.rung;
        }
    }

    /// A parked transfer goes to the pool.
    fn resume(&mut self, id: TransferId) {
        if let Some(transfer) = self.slots.get_mut(&id).and_then(|slot| slot.parked.take()) {
            self.pool.resume(transfer);
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Reports(reports) => reports.into_iter().for_each(|report| self.report(report)),
            Message::Reload => self.pool.chore(Chore::Reload),
            Message::Stop(stop) => self.stop(stop),
            Message::Cancel(id) => self.doom(id, Failure::Cancelled),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Parked(transfer, until) => self.park(transfer, until),
            Report::NoSocket(opening, error) => self.starve(opening, &error),
            Report::Ended {
                id,
                is_proven,
                answered,
            } => {
                if !self.slots.contains_key(&id) {
                    return self.closed(id); // it has made room
                }
                if is_proven {
                    self.prove(id);
                }
                self.over(id, answered);
            }
            Report::Complete(id) => self.complete(id),
            Report::Closed(id) => self.closed(id),
            Report::Left(number) => self.pool.left(number),
        }
    }

    /// The socket of a transfer that has ended here is closed.
    fn closed(&mut self, id: TransferId) {
        if let Some(lease) = self.closing.remove(&id) {
            self.burying -= usize::from(lease.is_closing());
            self.socket_closed(Some(lease));
        }
    }

    /// An upload is complete: from now on it makes room for others, even before its worker returns
    /// it.
    fn complete(&mut self, id: TransferId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.is_complete = true;
        if !slot.proven {
            slot.proven = true;
            self.prove(id);
        }
        let time = now();
        self.desk.finished(id, time);
        // Requests that wait for a port or a socket can have its own.
        self.next_retry = self.next_retry.min(time);
    }

    fn park(&mut self, transfer: Box<Transfer>, until: Instant) {
        let id = transfer.id();
        let Some(slot) = self.slots.get_mut(&id) else {
            self.pool.chore(Chore::Bury(transfer)); // it has made room
            return;
        };
        slot.opening = None;
        if transfer.is_proven() && !slot.proven {
            slot.proven = true;
            self.prove(id);
        }
        let is_forced = self.stopping.as_ref().is_some_and(|it| it.forced);
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let descriptor = transfer.as_raw_fd();
        slot.descriptor = Some(descriptor);
        slot.deadline = until;
        slot.parked = Some(transfer);
        if is_forced {
            return self.end_parked(id, Failure::Stopped);
        }
        if let Some(failure) = slot.doomed.clone() {
            return self.end_parked(id, failure);
        }
        if until <= now() {
            return self.resume(id);
        }
        if !slot.watched || slot.rung {
            let token = Token((id.0 + FIRST_TRANSFER) as usize);
            let source = &mut SourceFd(&descriptor);
            let registry = self.poll.registry();
            // What it rang for may lie unread: to be watched anew is to be asked again.
            let watched = if slot.watched {
                registry.reregister(source, token, Interest::READABLE)
            } else {
                registry.register(source, token, Interest::READABLE)
            };
            // Without the system's help the deadlines still find what came.
            slot.watched = watched.is_ok();
            slot.rung = false;
        }
        if slot.timer.is_none_or(|timer| timer > until) {
            slot.timer = Some(until);
            self.timers.push(Reverse((until, id)));
        }
        if let Some(arrival) = slot.again.take() {
            let peer = arrival.tid.peer;
            if let Err(reason) = self.again(id, arrival) {
                self.dropped(peer, reason, now());
            }
        }
    }

    /// A transfer has ended, and its socket is closed.
    fn over(&mut self, id: TransferId, answered: Instant) {
        let lease = self.desk.remove(id);
        self.socket_closed(lease);
        self.ended(id, answered);
    }

    /// A transfer has ended. A worker closes its socket, and [reports](Report::Closed) that: soon,
    /// or when a call returns that may never return.
    fn over_but_open(&mut self, id: TransferId, answered: Instant, soon: bool) {
        if let Some(mut lease) = self.desk.remove(id) {
            if soon {
                self.desk.is_closing(&mut lease);
                self.burying += 1;
            }
            self.closing.insert(id, lease);
        }
        self.ended(id, answered);
    }

    /// A socket was closed: requests that have waited for a port, or for a socket at all, get
    /// theirs.
    fn socket_closed(&mut self, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.desk.give_back(lease);
            self.open_granted(now());
        }
        self.retry_starved();
    }

    /// What its peer asked for again after the last thing it was sent is a new request.
    fn ended(&mut self, id: TransferId, answered: Instant) {
        let slot = self.slots.remove(&id);
        if slot.as_ref().is_some_and(|slot| slot.doomed.is_some()) {
            self.shared.recalled.fetch_sub(1, Ordering::Relaxed);
        }
        // What an aborted transfer with a long interval leaves behind must not outgrow the table.
        if self.timers.len() > TIMERS_PER_SLOT * self.slots.len() + EVENTS {
            let slots = &self.slots;
            self.timers.retain(|Reverse((due, id))| {
                let slot = slots.get(id);
                slot.is_some_and(|slot| slot.timer == Some(*due))
            });
        }
        // Nor must requests that were given up while they waited for a worker.
        if self.pool.waiting() > 2 * self.slots.len() + EVENTS {
            let waiting = self.pool.take_waiting();
            let is_wanted = |opening: &Arc<Opening>| self.slots.contains_key(&opening.id);
            waiting
                .into_iter()
                .filter(is_wanted)
                .for_each(|opening| self.pool.open(opening));
        }
        let Some(arrival) = slot.and_then(|slot| slot.again) else {
            return;
        };
        let peer = arrival.tid.peer;
        let result = if arrival.at < answered {
            Err(DropReason::Duplicate)
        } else if self.stopping.is_some() {
            Err(DropReason::Stopping)
        } else {
            self.arrival(arrival)
        };
        if let Err(reason) = result {
            self.dropped(peer, reason, now());
        }
    }

    /// The peer has answered this transfer: older ones of its TID are over, without a packet.
    fn prove(&mut self, id: TransferId) {
        for older in self.desk.proven(id, now()) {
            self.doom(older, Failure::Superseded);
        }
    }

    /// Ends a transfer, at once where it is parked, else as soon as it comes back.
    fn doom(&mut self, id: TransferId, failure: Failure) {
        match self.slots.get_mut(&id) {
            Some(slot) if slot.parked.is_some() => self.end_parked(id, failure),
            Some(slot) if slot.doomed.is_none() => {
                slot.doomed = Some(failure);
                self.shared.recalled.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Ends a parked transfer without a worker; files are closed by one, since that may block.
    fn end_parked(&mut self, id: TransferId, failure: Failure) {
        let Some(mut transfer) = self.slots.get_mut(&id).and_then(|slot| slot.parked.take()) else {
            return;
        };
        match failure {
            // Its peer has all it needs, or will ask in vain for one more ACK.
            _ if transfer.is_complete() => {}
            Failure::Stopped => transfer.leave(STOPPING, || self.shared.may_refuse(now())),
            Failure::Cancelled => transfer.leave(CANCELLED, || self.shared.may_refuse(now())),
            _ => {}
        }
        self.shared.conclude(&mut transfer, Ending::Failed(failure));
        self.over_but_open(id, transfer.answered(), true);
        self.pool.chore(Chore::Bury(transfer));
    }

    /// There was no socket for a request. Where another program holds its port, the request gets
    /// another port. Where no descriptor, memory or port was free, another transfer gives way, and
    /// the request waits a little, then is refused.
    fn starve(&mut self, opening: Arc<Opening>, error: &io::Error) {
        let time = now();
        if !self.slots.contains_key(&opening.id) {
            return; // it was given up
        }
        if !is_scarce(error) {
            // No route leads back, or a rule forbids it: the source may be forged, and waiting would change nothing.
            let why = format!("no way back to the client: {}", plain(error));
            self.complaints.add(time, "requests dropped", &why);
            return self.forget(&opening, Failure::NoWayBack);
        }
        let is_held = error.kind() == io::ErrorKind::AddrInUse;
        if is_held && self.desk.has_chosen_port(opening.id) {
            let random = self.random();
            if let Some(port) = self.desk.is_taken(opening.id, random, time) {
                self.open_at(opening, port);
            }
            return; // or it waits in line
        }
        let scope = match is_held {
            true => opening.tid.address(),
            false => Scope::All,
        };
        let patience = match self.free_a_socket(scope, time) {
            true => 2 * PORT_WAIT,
            false => PORT_WAIT,
        };
        if time < opening.arrived + patience && self.stopping.is_none() {
            if !self.lacks_sockets() {
                self.next_retry = time + SOCKET_RETRY;
            }
            self.starved.push_back(opening);
            return;
        }
        self.refuse_without_socket(&opening, plain(error));
    }

    fn refuse_without_socket(&mut self, opening: &Opening, cause: String) {
        let why = format!("no socket for them: {cause}");
        self.complaints.add(now(), "requests refused", &why);
        self.refuse(opening, "server is busy", cause, false);
    }

    /// True while requests wait for sockets or ports.
    fn lacks_sockets(&self) -> bool {
        !self.starved.is_empty() || self.desk.has_waiting()
    }

    fn retry_starved(&mut self) {
        while let Some(opening) = self.starved.pop_front() {
            if self.slots.contains_key(&opening.id) {
                return self.pool.open(opening);
            }
        }
    }

    /// Refuses a request that never became a transfer. It is told from the listening port, if that
    /// is still open. A worker may have a socket for it all the same, and closes it some time.
    fn refuse(&mut self, opening: &Opening, text: &'static str, detail: String, has_socket: bool) {
        if !self.slots.contains_key(&opening.id) {
            return; // it was given up while it waited
        }
        let Tid { peer, local } = opening.tid;
        let refusal = Refusal::new(ErrorCode::NOT_DEFINED, text).because(detail);
        let answered = now();
        let mut doors = self.listeners.iter();
        if !opening.broadcast
            && let Some(door) = doors.position(|door| door.listener.serves(local))
            && self.shared.may_refuse(answered)
        {
            self.answer(door, local, peer, &refusal);
        }
        let request = opening.request();
        let (direction, name) = (request.direction, Name::new(request.name));
        self.shared.reporter.report(Event::Refused {
            id: Some(opening.id),
            peer,
            direction,
            name,
            refusal,
        });
        match has_socket {
            true => self.over_but_open(opening.id, answered, false),
            false => self.over(opening.id, answered),
        }
    }

    /// Ends a request that never became a transfer, without a packet.
    fn forget(&mut self, opening: &Opening, failure: Failure) {
        let event = Event::Failed(opening.summary(), failure);
        self.shared.reporter.report(event);
        self.over(opening.id, now());
    }

    // ---- the end ----------------------------------------------------------------------------

    fn stop(&mut self, stop: Stop) {
        let time = now();
        let deadline = match stop {
            Stop::Now => time,
            // What is beyond the clock's end is as good as for ever.
            Stop::Drain(patience) => time.checked_add(patience).unwrap_or(time + FOR_EVER),
        };
        match &mut self.stopping {
            Some(stopping) if stopping.forced => {}
            // A second word can only hasten the end.
            Some(stopping) => stopping.deadline = stopping.deadline.min(deadline),
            None => {
                self.stopping = Some(Stopping {
                    deadline,
                    forced: false,
                });
            }
        }
        // No more requests are read; those that were admitted are still answered.
        for door in &mut self.listeners {
            door.open = false;
            let descriptor = door.listener.as_raw_fd();
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        }
        self.close_doors();
    }

    /// Closes the listening sockets of a server that stops. A request without a socket of its own
    /// may still have to be refused from them, so they stay until there is none.
    fn close_doors(&mut self) {
        let needs_door = |slot: &Slot| {
            let stage = slot.opening.as_ref().map(|opening| *opening.stage());
            matches!(stage, Some(Stage::Queued | Stage::Asked { .. }))
        };
        if !self.listeners.is_empty() && !self.slots.values().any(needs_door) {
            self.listeners.clear();
        }
    }

    fn is_finished(&mut self, time: Instant) -> bool {
        if self.stopping.is_some() {
            self.close_doors();
        }
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        // What only waits to repeat its last ACK, or for a peer that may not be there, does not hold up the end.
        let is_done = |slot: &Slot| {
            let parked = slot.parked.as_ref();
            parked.is_some_and(|it| it.is_complete() || (!it.is_proven() && it.is_silent()))
        };
        if self.slots.values().all(is_done) {
            let ids: Vec<_> = self.slots.keys().copied().collect();
            ids.into_iter()
                .for_each(|id| self.end_parked(id, Failure::Stopped));
            return true;
        }
        if time < stopping.deadline {
            return false;
        }
        if stopping.forced {
            return true; // what is left is inside a store that does not return
        }
        *stopping = Stopping {
            deadline: time + LAST_WAIT,
            forced: true,
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // What workers hold comes back by itself: each transfer sees that flag.
        let queued = self.pool.take_waiting();
        let waits = |id: &TransferId| self.desk.waits(*id);
        let waiting = self.slots.iter().filter(|(id, _)| waits(id));
        let waiting = waiting.filter_map(|(_, slot)| slot.opening.clone());
        let openings: Vec<_> = self
            .starved
            .drain(..)
            .chain(queued)
            .chain(waiting)
            .collect();
        for opening in openings {
            self.refuse(&opening, STOPPING, "the server was stopped".into(), false);
        }
        let ids: Vec<_> = self.slots.keys().copied().collect();
        ids.into_iter()
            .for_each(|id| self.end_parked(id, Failure::Stopped));
        self.slots.is_empty()
    }

    /// Waits for the workers, but not for one that is stuck.
    fn leave(mut self) {
        self.complaints.say_all();
        let left = self.pool.close(&self.mail, LAST_WAIT);
        if left > 0 {
            log::warn!("{left} workers are left behind inside the store");
        }
        self.shared.reporter.close();
    }
}

impl Slot {
    fn new(time: Instant, opening: Arc<Opening>) -> Self {
        Self {
            parked: None,
            opening: Some(opening),
            descriptor: None,
            watched: false,
            rung: false,
            proven: false,
            is_complete: false,
            deadline: time,
            timer: None,
            again: None,
            doomed: None,
        }
    }
}

/// A loop that takes the steps it is told, and no others.
#[cfg(test)]
mod tests {
    use super::super::idle::Idle;
    use super::super::mailbox::mailbox;
    use super::super::reporter::Reporter;
    use super::*;
    use crate::limits::{MAX_BLKSIZE, REFUSALS_PER_SECOND, UNPROVEN_CHANCE};
    use crate::proto::{Policy, Terms};
    use crate::store::mappings::Mappings;
    use crate::store::{Request, Source};
    use crate::sys::udp::SocketOptions;
    use crate::transfer::Buffers;
    use std::net::UdpSocket;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    const PATIENCE: Duration = Duration::from_secs(30);
    const QUOTA: Quota = Quota {
        transfers: 100,
        per_client: None,
        unproven: 1,
        unproven_per_client: None,
        unproven_per_network: None,
    };

    fn here() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    /// One unproven transfer at once, and one worker. With no place in the store all requests stay in their queue.
    fn still(store_slots: usize) -> Loop {
        limited(store_slots, (QUOTA, Supply::System(1000)))
    }

    fn limited(store_slots: usize, limits: (Quota, Supply)) -> Loop {
        with_mailbox(store_slots, limits).0
    }

    fn with_mailbox(store_slots: usize, limits: (Quota, Supply)) -> (Loop, Mailbox<Message>) {
        let shared = Shared {
            store: Box::new(|_: &Request<'_>| Ok(Source::bytes(vec![7; 2000]))),
            takes_uploads: false,
            mappings: Mappings::new(0, MAPPING_IDLE),
            reporter: Reporter::default(),
            buffers: Buffers::new(0),
            refusals: Mutex::new(Bucket::new(REFUSALS_PER_SECOND, now())),
            memory: None,
            terms: Terms {
                in_flight: u64::MAX,
                max_blksize: MAX_BLKSIZE,
                max_windowsize: 1,
            },
            policy: Policy::default(),
            fit_route: false,
            answer_broadcast: false,
            sockets: SocketOptions::default(),
            store_slots,
            in_store: AtomicUsize::new(0),
            slow_calls: AtomicUsize::new(0),
            store_deadline: PATIENCE,
            most_workers: 1,
            workers: AtomicUsize::new(0),
            idle: Idle::default(),
            stopping: AtomicBool::new(false),
            recalled: AtomicUsize::new(0),
        };
        let poll = Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), WAKER).expect("a waker");
        let listeners = vec![Listener::bind(here()).expect("a listening socket")];
        let ends = mailbox(MAIL, waker);
        let mailbox = ends.0.clone();
        let event_loop = Loop::new(poll, ends, Arc::new(shared), listeners, limits, 1);
        (event_loop.expect("a loop"), mailbox)
    }

    impl Loop {
        /// A request arrives.
        fn ask(&mut self, peer: SocketAddr, at: Instant) -> Result<(), DropReason> {
            let datagram = b"\0\x01file\0octet\0blksize\x001000\0";
            let local = self.listeners[0].listener.local_addr();
            let arrival = Arrival {
                tid: Tid { peer, local },
                digest: self.digest.hash_one(datagram),
                datagram: datagram.as_slice().into(),
                at,
                may_be_copy: false,
                broadcast: false,
            };
            self.arrival(arrival)
        }

        /// Hears its worker out until the transfer is quiet.
        fn parked(&mut self, id: u64) -> &Transfer {
            let end = now() + PATIENCE;
            let id = TransferId(id);
            while self.slots[&id].parked.is_none() {
                self.pool.tend(now()).expect("a thread");
                if let Some(message) = self.mail.wait(Duration::from_millis(1)) {
                    self.message(message);
                }
                assert!(now() < end, "it never was");
            }
            self.slots[&id].parked.as_ref().expect("one that is parked")
        }
    }

    fn client() -> (UdpSocket, SocketAddr) {
        client_at(1)
    }

    /// At 127.0.0.`host`.
    fn client_at(host: u8) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, host], 0))).expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let address = socket.local_addr().expect("an address");
        (socket, address)
    }

    /// The loop reads many requests at once: what came to other sockets meanwhile it has not been told yet.
    #[test]
    fn one_whose_answer_lies_unread_makes_no_room() {
        let mut event_loop = still(1);
        let (honest, address) = client();
        let start = now();
        assert_eq!(event_loop.ask(address, start), Ok(()));
        event_loop.parked(1);
        let (_, tid) = honest.recv_from(&mut [0; 600]).expect("an OACK");
        honest.send_to(&wire::ack(0), tid).expect("an answer");
        let transfer = event_loop.parked(1);
        assert!(transfer.mail_until(now() + PATIENCE));
        let (_silent, other) = client();
        let later = start + UNPROVEN_CHANCE;
        let full = Err(DropReason::UnprovenFull);
        assert_eq!(event_loop.ask(other, later), full);
        // Once it was read there is room.
        event_loop.resume(TransferId(1));
        assert!(event_loop.parked(1).is_proven());
        assert_eq!(event_loop.ask(other, later), Ok(()));
        // Who has said nothing does make room.
        event_loop.parked(2);
        let (_silent, third) = client();
        assert_eq!(event_loop.ask(third, later), full, "it has its chance");
        let later = later + UNPROVEN_CHANCE;
        assert_eq!(event_loop.ask(third, later), Ok(()));
        let mut ids: Vec<_> = event_loop.slots.keys().map(|id| id.0).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 3]);
        event_loop.leave();
    }

    #[test]
    fn who_never_answered_is_told_that_the_server_is_busy_only_within_the_budget() {
        let mut event_loop = still(0);
        let (socket, address) = client();
        let refuse = |event_loop: &mut Loop, id| {
            assert_eq!(event_loop.ask(address, now()), Ok(()));
            let opening = event_loop.slots[&TransferId(id)].opening.clone();
            let opening = opening.expect("one that waits");
            event_loop.refuse(&opening, "server is busy", "the reason".into(), false);
            assert!(event_loop.slots.is_empty());
        };
        let budget = |event_loop: &Loop, errors| {
            let mut refusals = event_loop.shared.refusals.lock().expect("no panic");
            *refusals = Bucket::new(errors, now());
        };
        budget(&event_loop, 0);
        refuse(&mut event_loop, 1);
        budget(&event_loop, REFUSALS_PER_SECOND);
        refuse(&mut event_loop, 2);
        let mut buffer = [0; 600];
        let (length, _) = socket.recv_from(&mut buffer).expect("an ERROR");
        assert_eq!(&buffer[..length], b"\0\x05\0\0server is busy\0");
        socket.set_nonblocking(true).expect("a socket");
        assert!(socket.recv(&mut buffer).is_err(), "one of the two was told");
        event_loop.leave();
    }

    /// Another server may have the file.
    #[test]
    fn a_broadcast_is_not_told_that_the_server_is_busy() {
        let mut event_loop = still(0);
        let (socket, address) = client();
        for (id, broadcast) in [(1, true), (2, false)] {
            assert_eq!(event_loop.ask(address, now()), Ok(()));
            let waiting = event_loop.slots[&TransferId(id)].opening.clone();
            let waiting = waiting.expect("one that waits");
            let opening = Opening {
                id: waiting.id,
                tid: waiting.tid,
                datagram: waiting.datagram.clone(),
                arrived: waiting.arrived,
                tense: false,
                may_be_copy: false,
                broadcast,
                port: AtomicU16::new(0),
                stage: Mutex::new(Stage::Queued),
            };
            event_loop.refuse(&opening, "server is busy", "the reason".into(), false);
        }
        let mut buffer = [0; 600];
        socket.recv_from(&mut buffer).expect("an ERROR");
        socket.set_nonblocking(true).expect("a socket");
        assert!(socket.recv(&mut buffer).is_err(), "one of the two was told");
        event_loop.leave();
    }

    /// A worker is inside the store and has a socket at that port.
    #[test]
    fn the_port_of_a_request_that_the_store_never_answered_comes_back_with_the_worker() {
        let mut event_loop = still(0);
        let (client, address) = client();
        let start = now();
        assert_eq!(event_loop.ask(address, start), Ok(()));
        let id = TransferId(1);
        let opening = event_loop.slots[&id].opening.clone();
        let opening = opening.expect("one that waits");
        *opening.stage() = Stage::Asked {
            since: start,
            slow: true,
        };
        event_loop.unanswered(id, start + PATIENCE);
        client.recv(&mut [0; 600]).expect("an ERROR");
        assert!(event_loop.slots.is_empty());
        assert!(!event_loop.desk.is_empty(), "its port is in use");
        event_loop.report(Report::Closed(id));
        assert!(event_loop.desk.is_empty() && event_loop.closing.is_empty());
        event_loop.leave();
    }

    /// Transfers that could not make room when the request came may go a little later.
    #[test]
    fn one_transfer_goes_for_each_request_that_waits_for_a_port() {
        let quota = Quota {
            unproven: 100,
            ..QUOTA
        };
        let mut event_loop = limited(1, (quota, Supply::System(5)));
        let (start, mut clients) = (now(), Vec::new());
        for number in 1..=5 {
            let (socket, address) = client_at(1 + number as u8);
            assert_eq!(event_loop.ask(address, start), Ok(()));
            event_loop.parked(number);
            if number <= 3 {
                event_loop.prove(TransferId(number));
            }
            clients.push(socket);
        }
        let (waits, address) = client_at(1);
        let begun = start + UNPROVEN_CHANCE - SOCKET_RETRY;
        assert_eq!(event_loop.ask(address, begun), Ok(()));
        assert!(event_loop.desk.waits(TransferId(6)));
        assert_eq!(event_loop.slots.len(), 6, "none may go yet");
        for time in [
            start + UNPROVEN_CHANCE,
            start + 2 * UNPROVEN_CHANCE - SOCKET_RETRY,
        ] {
            event_loop.deadlines(time);
            assert_eq!(event_loop.slots.len(), 5, "one for one");
            assert!(event_loop.desk.waits(TransferId(6)), "not closed yet");
        }
        event_loop.parked(6);
        assert_eq!(waits.recv(&mut [0; 600]).expect("an OACK"), 15);
        event_loop.leave();
    }

    #[test]
    fn a_request_finds_the_place_of_an_upload_that_was_completed_since_the_mail_was_read() {
        let quota = Quota {
            transfers: 1,
            ..QUOTA
        };
        let (mut event_loop, mailbox) = with_mailbox(0, (quota, Supply::System(1000)));
        let (_uploader, address) = client_at(1);
        assert_eq!(event_loop.ask(address, now()), Ok(()));
        let complete = Report::Complete(TransferId(1));
        mailbox.post(Message::Reports(vec![complete]));
        let (reader, _) = client_at(2);
        let server = event_loop.listeners[0].listener.local_addr();
        let request = b"\0\x01file\0octet\0";
        reader.send_to(request, server).expect("a send");
        event_loop.requests(now());
        let ids: Vec<_> = event_loop.slots.keys().map(|id| id.0).collect();
        assert_eq!(ids, [2]);
        assert_eq!(event_loop.burying, 1, "a worker still has its socket");
        event_loop.report(Report::Closed(TransferId(1)));
        assert!(event_loop.burying == 0 && event_loop.closing.is_empty());
        event_loop.leave();
    }

    /// Each of them leaves an entry in the heap and one in the queue of a pool that does not get to it.
    #[test]
    fn requests_that_made_room_for_others_are_cleared_out() {
        let mut event_loop = still(0);
        let start = now();
        let port = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(event_loop.ask(port(1), start), Ok(()));
        event_loop.prove(TransferId(1)); // this one stays
        let rounds = 4 * EVENTS as u32;
        for round in 1..=rounds {
            let at = start + round * UNPROVEN_CHANCE;
            assert_eq!(event_loop.ask(port(1 + round as u16), at), Ok(()));
            assert_eq!(event_loop.slots.len(), 2, "the one before has gone");
            assert!(event_loop.timers.len() <= EVENTS + 2 * TIMERS_PER_SLOT);
            assert!(event_loop.pool.waiting() <= EVENTS + 2 * 2);
        }
        // Those that live are still to be served, and watched.
        let waiting = event_loop.pool.take_waiting();
        for id in [1, u64::from(rounds) + 1].map(TransferId) {
            assert!(waiting.iter().any(|opening| opening.id == id));
            let mut timers = event_loop.timers.iter();
            assert!(timers.any(|Reverse((_, other))| *other == id));
        }
        event_loop.leave();
    }
}
