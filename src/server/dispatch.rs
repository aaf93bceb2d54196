//! The loop: takes requests, hands work to the pool, watches the transfers whose peers are quiet.
//!
//! It owns the admission desk, the table and every parked transfer; a worker owns the one it runs; everything between
//! them is a message. The loop never waits for a file, a worker, a reader of events or a send.

use super::Stop;
use super::desk::{Desk, Quota, Tid, Verdict};
use super::mailbox::{Mail, Mailbox};
use super::worker::{self, Chore, Opening, Queues, Report, Shared, Worker};
use crate::error::{Error, Failure, Refusal, plain};
use crate::event::{DropReason, Event, Name, TransferId};
use crate::limits::{MAPPING_IDLE, MAX_REQUEST, PORT_WAIT};
use crate::sys::udp::{Listener, Received};
use crate::transfer::{Ending, Transfer, now};
use crate::wire::{self, Direction, ErrorCode, Malformed, Packet};
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What others tell the loop.
pub(super) enum Message {
    /// From a worker.
    Reports(Vec<Report>),
    /// From a handle.
    Stop(Stop),
    /// From a handle.
    Reload,
}

/// The waker's token; listeners have the numbers from 0, transfers those from [`FIRST_TRANSFER`].
pub(super) const WAKER: Token = Token(usize::MAX);
const FIRST_TRANSFER: u64 = 1 << 10;

/// Readiness events taken from the system at once.
const EVENTS: usize = 1024;
/// Requests taken from one listener before transfers get their turn again.
const REQUESTS_PER_TURN: usize = 256;
/// Unproven transfers looked at before a request gives up on finding room.
const ROOM_TRIES: usize = 8;
/// How soon a request without a free socket tries again.
const SOCKET_RETRY: Duration = Duration::from_millis(20);
/// How long a queue may stand, with every worker at work, before the pool grows past the number of processors.
const GROWTH_PAUSE: Duration = Duration::from_millis(5);
/// How long the end waits for workers that are inside a store or a read.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// The same complaint is logged this often, with a count.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct Loop {
    poll: Poll,
    mail: Mail<Message>,
    mailbox: Mailbox<Message>,
    shared: Arc<Shared>,
    listeners: Vec<Door>,
    desk: Desk,
    slots: HashMap<TransferId, Slot>,
    /// At most a few per transfer; those that are not due any more are skipped.
    timers: BinaryHeap<Reverse<(Instant, TransferId)>>,
    /// Requests that found no socket, oldest first.
    starved: Vec<Box<Opening>>,
    pool: Pool,
    digest: RandomState,
    next_sweep: Instant,
    stopping: Option<Stopping>,
    complaints: HashMap<&'static str, Complaint>,
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
    /// Its socket's descriptor, from the first parking on, and whether the system watches it for us.
    descriptor: Option<RawFd>,
    watched: bool,
    deadline: Instant,
    /// The earliest entry in the heap.
    timer: Option<Instant>,
    /// To be done when it comes back.
    repeat: bool,
    doubt: Option<Arrival>,
    supersede: bool,
}

/// A request that was read and looked well-formed.
struct Arrival {
    tid: Tid,
    digest: u64,
    datagram: Box<[u8]>,
    at: Instant,
}

struct Stopping {
    deadline: Instant,
    forced: bool,
}

#[derive(Default)]
struct Complaint {
    said: Option<Instant>,
    unsaid: u64,
}

/// The threads, and the queues that feed them. The queues have no bound of their own: what is in them is in the desk's
/// table, which has one.
struct Pool {
    most: usize,
    base: usize,
    threads: Vec<JoinHandle<()>>,
    left: usize,
    grown: Instant,
    openings: (Sender<Box<Opening>>, Receiver<Box<Opening>>),
    ready: (Sender<Box<Transfer>>, Receiver<Box<Transfer>>),
    chores: (Sender<Chore>, Receiver<Chore>),
}

impl Pool {
    fn new(most: usize) -> Self {
        let base = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(most);
        Self {
            most,
            base,
            threads: Vec::new(),
            left: 0,
            grown: now(),
            openings: unbounded(),
            ready: unbounded(),
            chores: unbounded(),
        }
    }

    fn has_work(&self) -> bool {
        !self.openings.1.is_empty() || !self.ready.1.is_empty() || !self.chores.1.is_empty()
    }

    fn grow(&mut self, shared: &Arc<Shared>, mailbox: &Mailbox<Message>) -> io::Result<()> {
        let queues = Queues {
            openings: self.openings.1.clone(),
            ready: self.ready.1.clone(),
            chores: self.chores.1.clone(),
            reports: mailbox.clone(),
        };
        let worker = Worker::new(Arc::clone(shared), queues);
        let name = format!("tftp-worker-{}", self.threads.len());
        self.threads.push(
            std::thread::Builder::new()
                .name(name)
                .spawn(move || worker.run())?,
        );
        self.grown = now();
        Ok(())
    }
}

impl Loop {
    pub(super) fn new(
        poll: Poll,
        (mailbox, mail): (Mailbox<Message>, Mail<Message>),
        shared: Arc<Shared>,
        listeners: Vec<Listener>,
        quota: Quota,
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
        let mut pool = Pool::new(workers);
        pool.grow(&shared, &mailbox)
            .map_err(system("start a thread"))?;
        Ok(Self {
            poll,
            mail,
            mailbox,
            shared,
            listeners: doors,
            desk: Desk::new(quota),
            slots: HashMap::new(),
            timers: BinaryHeap::new(),
            starved: Vec::new(),
            pool,
            digest: RandomState::new(),
            next_sweep: now() + MAPPING_IDLE / 2,
            stopping: None,
            complaints: HashMap::new(),
        })
    }

    /// Runs until the server is stopped and its transfers have ended.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(EVENTS);
        let result = loop {
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
            while let Some(message) = self.mail.take() {
                self.message(message);
            }
            let time = now();
            self.requests(time);
            self.deadlines(time);
            self.grow(time);
            if self.is_finished(time) {
                break Ok(());
            }
        };
        self.leave();
        result
    }

    // ---- time -------------------------------------------------------------------------------

    fn timeout(&self) -> Option<Duration> {
        let time = now();
        if self.listeners.iter().any(|door| door.open) {
            return Some(Duration::ZERO);
        }
        let growth = (self.pool.has_work() && self.pool.threads.len() < self.pool.most)
            .then(|| time + GROWTH_PAUSE);
        let deadlines = [
            self.timers.peek().map(|Reverse((deadline, _))| *deadline),
            (!self.starved.is_empty()).then(|| time + SOCKET_RETRY),
            self.shared
                .mappings
                .has_entries()
                .then_some(self.next_sweep),
            self.stopping.as_ref().map(|stopping| stopping.deadline),
            growth,
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
                continue;
            }
            if slot.deadline <= time {
                self.resume(id);
            } else if slot.timer.is_none() {
                slot.timer = Some(slot.deadline);
                self.timers.push(Reverse((slot.deadline, id)));
            }
        }
        for opening in std::mem::take(&mut self.starved) {
            self.hand_over(opening);
        }
        if time >= self.next_sweep {
            self.next_sweep = time + MAPPING_IDLE / 2;
            if self.shared.mappings.has_entries() {
                self.chore(Chore::Sweep);
            }
        }
    }

    fn grow(&mut self, time: Instant) {
        let Pool {
            most,
            base,
            ref threads,
            grown,
            ..
        } = self.pool;
        let is_short = self.pool.has_work()
            && self.shared.idle.load(Ordering::SeqCst) == 0
            && threads.len() < most;
        if is_short && (threads.len() < base || time >= grown + GROWTH_PAUSE) {
            if let Err(error) = self.pool.grow(&self.shared, &self.mailbox) {
                self.pool.grown = time;
                self.complain(time, "cannot start another worker", &plain(&error));
            }
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
                match self.listeners[index].listener.recv(&mut buffer) {
                    Ok(Some(received)) => {
                        let datagram = &buffer[..received.length];
                        if let Err(reason) = self.datagram(index, &received, datagram, time) {
                            self.dropped(received.peer, reason, time);
                        }
                    }
                    Ok(None) => {
                        self.listeners[index].open = false;
                        break;
                    }
                    Err(error) => {
                        self.listeners[index].open = false;
                        self.complain(time, "cannot receive requests", &plain(&error));
                        break;
                    }
                }
            }
        }
    }

    fn dropped(&mut self, peer: SocketAddr, reason: DropReason, time: Instant) {
        self.shared.reporter.report(Event::Dropped { peer, reason });
        match reason {
            DropReason::Full => self.complain(
                time,
                "requests dropped",
                "too many transfers (see --max-transfers)",
            ),
            DropReason::UnprovenFull => {
                self.complain(time, "requests dropped", "too many peers that never answer")
            }
            DropReason::ClientFull => {
                self.complain(
                    time,
                    "requests dropped",
                    "a client has too many (see --max-transfers-per-client)",
                );
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
        time: Instant,
    ) -> Result<(), DropReason> {
        let Received { peer, local, .. } = *received;
        if received.broadcast {
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
            Ok(request) if request.direction == Direction::Write => {
                let refusal = Refusal::new(ErrorCode::ACCESS_VIOLATION, "server is read-only");
                self.answer(door, local, peer, &refusal);
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
                let verdict = self.desk.arrive(tid, digest, time);
                self.arrival(
                    Arrival {
                        tid,
                        digest,
                        datagram: datagram.into(),
                        at: time,
                    },
                    verdict,
                )
            }
            Err(malformed) => {
                if malformed.is_request() {
                    let refusal = Refusal::new(ErrorCode::ILLEGAL_OPERATION, malformed.to_string());
                    self.answer(door, local, peer, &refusal);
                }
                Err(DropReason::Malformed(malformed))
            }
        }
    }

    /// Sends an ERROR from a listening port. Once: if it does not arrive, the client asks again.
    fn answer(&self, door: usize, local: SocketAddr, peer: SocketAddr, refusal: &Refusal) {
        let mut datagram = Vec::with_capacity(64);
        wire::emit_error(refusal.code(), refusal.text(), &mut datagram);
        let _ = self.listeners[door].listener.reply(&datagram, local, peer);
    }

    fn arrival(&mut self, arrival: Arrival, mut verdict: Verdict) -> Result<(), DropReason> {
        for _ in 0..ROOM_TRIES {
            match verdict {
                Verdict::Admit(id) => {
                    self.admit(id, arrival);
                    return Ok(());
                }
                Verdict::Repeat(id) => {
                    self.repeat(id);
                    return Ok(());
                }
                Verdict::Doubt(id) => return self.doubt(id, arrival),
                Verdict::Drop(reason) => return Err(reason),
                Verdict::MakeRoom(id) => self.make_room(id, arrival.at),
            }
            verdict = self.desk.admit(arrival.tid, arrival.digest, arrival.at);
        }
        Err(DropReason::UnprovenFull)
    }

    fn admit(&mut self, id: TransferId, arrival: Arrival) {
        let Arrival {
            tid, datagram, at, ..
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
            });
        }
        self.slots.insert(id, Slot::new(at));
        self.hand_over(Box::new(Opening {
            id,
            tid,
            datagram,
            arrived: at,
            tense: self.desk.is_tense(),
        }));
    }

    fn hand_over(&self, opening: Box<Opening>) {
        self.pool
            .openings
            .0
            .send(opening)
            .expect("the pool holds a receiver");
    }

    /// The peer has not answered, and asks again.
    fn repeat(&mut self, id: TransferId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        match &mut slot.parked {
            Some(transfer) => {
                transfer.request_repeated();
                self.resume(id);
            }
            None => slot.repeat = true,
        }
    }

    /// The same request in the middle of its transfer. Where the last ACK may still be on its way to us, the question is
    /// put off until the transfer has been looked at.
    fn doubt(&mut self, id: TransferId, arrival: Arrival) -> Result<(), DropReason> {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Err(DropReason::Duplicate);
        };
        match &slot.parked {
            Some(transfer) if transfer.has_mail() => {
                slot.doubt = Some(arrival);
                self.resume(id);
                Ok(())
            }
            Some(transfer) if transfer.is_silent() => {
                let verdict = self.desk.admit(arrival.tid, arrival.digest, arrival.at);
                self.arrival(arrival, verdict)
            }
            Some(_) => Err(DropReason::Duplicate),
            None => {
                slot.doubt = Some(arrival);
                Ok(())
            }
        }
    }

    /// An old unproven transfer goes, unless its answer is just being read.
    fn make_room(&mut self, id: TransferId, time: Instant) {
        let parked = self.slots.get(&id).and_then(|slot| slot.parked.as_ref());
        match parked {
            Some(transfer) if !transfer.has_mail() => self.end_parked(id, Failure::Evicted),
            _ => self.desk.spare(id, time),
        }
    }

    // ---- transfers --------------------------------------------------------------------------

    fn event(&mut self, token: Token) {
        if token == WAKER {
            return;
        }
        if let Some(door) = self.listeners.get_mut(token.0) {
            door.open = true;
            return;
        }
        let id = TransferId(token.0 as u64 - FIRST_TRANSFER);
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.parked.is_some() {
            self.resume(id);
        } else if let Some(descriptor) = slot.descriptor.filter(|_| slot.watched) {
            // A worker has it and reads for itself. Every packet would wake this loop: stop watching until it is
            // parked again. If its socket is closed already, its number belongs to nobody we watch.
            slot.watched = false;
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        }
    }

    /// A parked transfer goes to the pool.
    fn resume(&mut self, id: TransferId) {
        if let Some(transfer) = self.slots.get_mut(&id).and_then(|slot| slot.parked.take()) {
            self.pool
                .ready
                .0
                .send(transfer)
                .expect("the pool holds a receiver");
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Reports(reports) => reports.into_iter().for_each(|report| self.report(report)),
            Message::Reload => self.chore(Chore::Reload),
            Message::Stop(stop) => self.stop(stop),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Parked(transfer, until) => self.park(transfer, until),
            Report::NoSocket(opening, error) => self.starve(opening, &error),
            Report::Ended(id, is_proven) => {
                if is_proven {
                    self.prove(id);
                }
                self.desk.remove(id);
                if let Some(arrival) = self.slots.remove(&id).and_then(|slot| slot.doubt) {
                    // It was no late copy: the transfer had ended, and the client asks for the same again.
                    let peer = arrival.tid.peer;
                    let verdict = self.desk.arrive(arrival.tid, arrival.digest, arrival.at);
                    if let Err(reason) = self.arrival(arrival, verdict) {
                        self.dropped(peer, reason, now());
                    }
                }
            }
            Report::Left => self.pool.left += 1,
        }
    }

    fn park(&mut self, mut transfer: Box<Transfer>, until: Instant) {
        let id = transfer.id();
        if transfer.is_proven() {
            self.prove(id);
        }
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let doubt = slot.doubt.take();
        let is_silent = doubt.is_some() && transfer.is_silent();
        let repeat = std::mem::take(&mut slot.repeat);
        if repeat {
            transfer.request_repeated();
        }
        let descriptor = transfer.as_raw_fd();
        slot.descriptor = Some(descriptor);
        slot.deadline = until;
        slot.parked = Some(transfer);
        if self
            .stopping
            .as_ref()
            .is_some_and(|stopping| stopping.forced)
        {
            self.end_parked(id, Failure::Stopped);
        } else if slot.supersede {
            self.end_parked(id, Failure::Superseded);
        } else if repeat || until <= now() {
            self.resume(id);
        } else {
            if !slot.watched {
                let token = Token((id.0 + FIRST_TRANSFER) as usize);
                let watched = self.poll.registry().register(
                    &mut SourceFd(&descriptor),
                    token,
                    Interest::READABLE,
                );
                // Without the system's help the deadlines still find what came.
                slot.watched = watched.is_ok();
            }
            if slot.timer.is_none_or(|timer| timer > until) {
                slot.timer = Some(until);
                self.timers.push(Reverse((until, id)));
            }
        }
        if let Some(arrival) = doubt {
            let peer = arrival.tid.peer;
            let result = if is_silent {
                let verdict = self.desk.admit(arrival.tid, arrival.digest, arrival.at);
                self.arrival(arrival, verdict)
            } else {
                Err(DropReason::Duplicate)
            };
            if let Err(reason) = result {
                self.dropped(peer, reason, now());
            }
        }
    }

    /// The peer has answered this transfer: older ones of its TID are over, without a packet.
    fn prove(&mut self, id: TransferId) {
        for older in self.desk.proven(id) {
            match self.slots.get_mut(&older) {
                Some(Slot {
                    parked: Some(_), ..
                }) => self.end_parked(older, Failure::Superseded),
                Some(slot) => slot.supersede = true,
                None => {}
            }
        }
    }

    /// Ends a parked transfer without a worker; files are closed by one, since that may block.
    fn end_parked(&mut self, id: TransferId, failure: Failure) {
        let Some(mut transfer) = self.slots.remove(&id).and_then(|slot| slot.parked) else {
            return;
        };
        self.desk.remove(id);
        if failure == Failure::Stopped {
            transfer.tell(ErrorCode::NOT_DEFINED, "server is stopping");
        }
        self.shared
            .reporter
            .report(worker::ended(&transfer, Ending::Failed(failure)));
        self.chore(Chore::Bury(transfer));
    }

    /// No descriptor or port was free: the request waits a little, then is refused.
    fn starve(&mut self, opening: Box<Opening>, error: &io::Error) {
        let time = now();
        if time < opening.arrived + PORT_WAIT && self.stopping.is_none() {
            self.starved.push(opening);
            return;
        }
        self.complain(
            time,
            "requests refused",
            &format!("no socket for them: {}", plain(error)),
        );
        let Tid { peer, local } = opening.tid;
        if let Ok(Packet::Request(request)) = wire::parse(&opening.datagram) {
            let refusal =
                Refusal::new(ErrorCode::NOT_DEFINED, "server is busy").because(plain(error));
            if let Some(door) = self
                .listeners
                .iter()
                .position(|door| door.listener.serves(local))
            {
                self.answer(door, local, peer, &refusal);
            }
            let (direction, name) = (request.direction, Name::new(request.name));
            self.shared.reporter.report(Event::Refused {
                id: Some(opening.id),
                peer,
                direction,
                name,
                refusal,
            });
        }
        self.desk.remove(opening.id);
        self.slots.remove(&opening.id);
    }

    fn chore(&self, chore: Chore) {
        self.pool
            .chores
            .0
            .send(chore)
            .expect("the pool holds a receiver");
    }

    /// What repeats is said once a minute, with a count.
    fn complain(&mut self, time: Instant, what: &'static str, why: &str) {
        let complaint = self.complaints.entry(what).or_default();
        complaint.unsaid += 1;
        if complaint
            .said
            .is_none_or(|said| time >= said + COMPLAINT_PAUSE)
        {
            log::warn!("{what} count={} reason=\"{why}\"", complaint.unsaid);
            *complaint = Complaint {
                said: Some(time),
                unsaid: 0,
            };
        }
    }

    // ---- the end ----------------------------------------------------------------------------

    fn stop(&mut self, stop: Stop) {
        let time = now();
        let deadline = match stop {
            Stop::Now => time,
            Stop::Drain(patience) => time + patience,
        };
        // A second word can only hasten the end.
        let deadline = self
            .stopping
            .as_ref()
            .map_or(deadline, |before| before.deadline.min(deadline));
        self.stopping = Some(Stopping {
            deadline,
            forced: false,
        });
        // Nobody listens any more; what was asked for before is still answered.
        self.listeners.clear();
    }

    fn is_finished(&mut self, time: Instant) -> bool {
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        if self.slots.is_empty() {
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
        while let Ok(opening) = self.pool.openings.1.try_recv() {
            self.desk.remove(opening.id);
            self.slots.remove(&opening.id);
        }
        let ids: Vec<_> = self.slots.keys().copied().collect();
        ids.into_iter()
            .for_each(|id| self.end_parked(id, Failure::Stopped));
        self.slots.is_empty()
    }

    /// Closes the queues and waits for the workers, but not for one that is stuck.
    fn leave(self) {
        let Self {
            pool,
            mail,
            mailbox,
            shared,
            ..
        } = self;
        let Pool {
            threads,
            mut left,
            openings,
            ready,
            chores,
            ..
        } = pool;
        drop((openings, ready, chores, mailbox));
        let patience = now() + LAST_WAIT;
        while left < threads.len() {
            match mail.wait(patience.saturating_duration_since(now())) {
                Some(Message::Reports(reports)) => {
                    left += reports
                        .iter()
                        .filter(|report| matches!(report, Report::Left))
                        .count();
                }
                Some(_) => {}
                None => break,
            }
        }
        if left == threads.len() {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        } else {
            log::warn!(
                "{} workers are left behind inside the store",
                threads.len() - left
            );
        }
        shared.reporter.close();
    }
}

impl Slot {
    fn new(time: Instant) -> Self {
        Self {
            parked: None,
            descriptor: None,
            watched: false,
            deadline: time,
            timer: None,
            repeat: false,
            doubt: None,
            supersede: false,
        }
    }
}
