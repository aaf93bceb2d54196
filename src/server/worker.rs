//! The pool: threads that open and run transfers. A worker owns the transfer it runs and nothing else; what comes of it
//! goes to the loop as a message.

use super::bucket::Bucket;
use super::desk::Tid;
use super::dispatch::Message;
use super::idle::{Idle, Woken};
use super::mailbox::Mailbox;
use super::memory::{Advice, Memory};
use super::reporter::Reporter;
use crate::error::{Failure, Refusal, plain};
use crate::event::{Event, Name, Summary, TransferId};
use crate::limits::{
    BUFFERED_BLKSIZE, DALLY, DATA_HEADER, DEFAULT_BLKSIZE, OPENINGS_PER_TURN, PATIENCE,
    RECEIVED_WINDOW_OCTETS, SPARE_IDLE, SPARE_WORKERS, STUCK_AFTER, UNCHECKED_BLKSIZE,
    UNPROVEN_DATA_SENDS,
};
use crate::proto::{self, Agreed, Policy, Sender, Terms, grant};
use crate::store::mappings::Mappings;
use crate::store::{Request, Sink, Store};
use crate::sys;
use crate::sys::udp::{SocketOptions, TransferSocket};
use crate::transfer::{
    Body, Buffers, End, Ending, Format, Origin, Outset, Scratch, Surroundings, Transfer, Trouble,
    Turn, now, tell,
};
use crate::wire::{self, Direction, ErrorCode, OptionName, Options, Packet};
use crossbeam_channel::Receiver;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request that was admitted.
pub(super) struct Opening {
    pub(super) id: TransferId,
    pub(super) tid: Tid,
    pub(super) datagram: Box<[u8]>,
    pub(super) arrived: Instant,
    /// Many peers have not answered: send the opening less often.
    pub(super) tense: bool,
    /// It is a WRQ that comes again from the TID whose upload is complete: a late copy, or the same once more. Only DATA tells.
    pub(super) may_be_copy: bool,
    /// It was sent to a broadcast address: a refusal is not told, because another server may have
    /// the file.
    pub(super) broadcast: bool,
    /// The port to answer from; 0 lets the system choose. Written before a worker gets the request.
    pub(super) port: AtomicU16,
    pub(super) stage: Mutex<Stage>,
}

/// How far the store is with a request. Worker and loop agree on it under a lock, because either may end the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No worker has it yet, or none any more.
    Queued,
    /// The store was asked then. `slow` where the call takes so long that its place in the store was given to others.
    Asked { since: Instant, slow: bool },
    /// The store has answered.
    Answered,
    /// The peer was told that there is no answer, or the request has made room for others. If an answer comes after all, nobody
    /// wants it.
    GivenUp { slow: bool },
}

impl Opening {
    /// What was asked.
    pub(super) fn request(&self) -> wire::Request<'_> {
        match wire::parse(&self.datagram) {
            Ok(Packet::Request(request)) => request,
            _ => unreachable!("only requests are admitted"),
        }
    }

    /// What is to be said of a request that ends without having become a transfer.
    pub(super) fn summary(&self) -> Summary {
        let wire::Request {
            direction, name, ..
        } = self.request();
        Summary {
            id: self.id,
            peer: self.tid.peer,
            local: self.tid.local,
            direction,
            name: Name::new(name),
            bytes: 0,
            duration: now().saturating_duration_since(self.arrived),
            retransmits: 0,
            torn: 0,
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            rtt: None,
        }
    }

    /// Where the request stands.
    pub(super) fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for it any more, if no worker has got to it; false if one has.
    pub(super) fn give_up(&self) -> bool {
        let mut stage = self.stage();
        let is_queued = *stage == Stage::Queued;
        if is_queued {
            *stage = Stage::GivenUp { slow: false };
        }
        is_queued
    }

    /// A worker is about to open a socket and to ask the store; false if it need not any more.
    fn ask(&self) -> bool {
        let mut stage = self.stage();
        let is_wanted = *stage == Stage::Queued;
        if is_wanted {
            let since = now();
            *stage = Stage::Asked { since, slow: false };
        }
        is_wanted
    }

    /// There was no socket, so the store was not asked. False where the request was given up
    /// meanwhile.
    fn wait_again(&self) -> bool {
        let mut stage = self.stage();
        let is_wanted = matches!(*stage, Stage::Asked { .. });
        if is_wanted {
            *stage = Stage::Queued;
        }
        is_wanted
    }

    /// The store has answered. Says whether anybody still waits, and whether the place in the store was given away.
    fn answered(&self) -> (bool, bool) {
        let mut stage = self.stage();
        match *stage {
            Stage::GivenUp { slow } => (false, slow),
            Stage::Asked { slow, .. } => {
                *stage = Stage::Answered;
                (true, slow)
            }
            Stage::Queued | Stage::Answered => unreachable!("asked once, answered once"),
        }
    }
}

/// What a worker tells the loop.
pub(super) enum Report {
    /// The peer is quiet: watch its socket, and the clock.
    Parked(Box<Transfer>, Instant),
    /// There was no socket for it. Where none was free, the request can be tried again.
    NoSocket(Arc<Opening>, io::Error),
    /// An upload is complete, and its last ACK is about to be sent.
    Complete(TransferId),
    /// The transfer is over, or never began.
    Ended {
        id: TransferId,
        /// Whether its peer had acknowledged anything.
        is_proven: bool,
        /// When the peer was last sent something new.
        answered: Instant,
    },
    /// The socket of a transfer that has ended in the loop was closed.
    Closed(TransferId),
    /// The worker of this number is gone.
    Left(usize),
}

/// What all workers share.
pub(super) struct Shared {
    pub(super) store: Box<dyn Store>,
    /// What the store said to that.
    pub(super) takes_uploads: bool,
    pub(super) mappings: Mappings,
    pub(super) reporter: Reporter,
    pub(super) buffers: Arc<Buffers>,
    /// ERROR replies to requests that were refused.
    pub(super) refusals: Mutex<Bucket>,
    /// What clients have taught; locked once when a transfer opens, and once when it ends.
    pub(super) memory: Option<Mutex<Memory>>,
    pub(super) terms: Terms,
    pub(super) policy: Policy,
    pub(super) fit_route: bool,
    pub(super) answer_broadcast: bool,
    pub(super) sockets: SocketOptions,
    /// Workers there may be inside the store at once, so that a slow one leaves the others to running transfers.
    pub(super) store_slots: usize,
    pub(super) in_store: AtomicUsize,
    /// Calls into it that were slow enough to lose their place, and the longest that any may take.
    pub(super) slow_calls: AtomicUsize,
    pub(super) store_deadline: Duration,
    /// Workers there may be, and are; more while some are stuck.
    pub(super) most_workers: usize,
    pub(super) workers: AtomicUsize,
    /// Workers that have nothing to do.
    pub(super) idle: Idle,
    /// Running transfers are to end at once.
    pub(super) stopping: AtomicBool,
    /// Transfers that the loop wants back from whoever runs them. It does not know who that is: all come when their turn is over.
    pub(super) recalled: AtomicUsize,
}

/// A worker's signs of life.
#[derive(Default)]
pub(super) struct Pulse {
    /// Counts on while the worker goes from step to step; stands still while it is inside a store, a read or a wait.
    pub(super) steps: AtomicU64,
    /// It waits for a peer.
    pub(super) listens: AtomicBool,
}

/// What one worker has: its ends of the queues, and the sign of life that the loop looks at.
pub(super) struct Queues {
    /// The worker's number.
    pub(super) number: usize,
    pub(super) pulse: Arc<Pulse>,
    pub(super) openings: Receiver<Arc<Opening>>,
    pub(super) ready: Receiver<Box<Transfer>>,
    pub(super) chores: Receiver<Chore>,
    pub(super) reports: Mailbox<Message>,
}

/// Work on files that belongs to no transfer, and must not be done by the loop.
pub(super) enum Chore {
    /// Let go of mappings that nobody uses.
    Sweep,
    /// Close a transfer's file and socket.
    Bury(Box<Transfer>),
    /// Look at the world anew.
    Reload,
}

/// Reports are handed over in batches of up to so many, one bell for all of them.
const BATCH: usize = 16;

/// A worker, for as long as its queues are open.
pub(super) struct Worker {
    place: Place,
    scratch: Scratch,
    reports: Vec<Report>,
    /// Since when the first of them waits.
    reported: Instant,
    /// Openings taken since the last continued transfer.
    openings_in_a_row: u32,
}

/// What surrounds a transfer that a worker runs.
struct Place {
    shared: Arc<Shared>,
    queues: Queues,
}

impl Surroundings for Place {
    fn others_wait(&self) -> bool {
        self.step();
        self.queues.have_work()
    }

    fn is_needed(&self) -> bool {
        self.shared.idle.count() == 0
    }

    fn listens(&self, listens: bool) {
        self.queues.pulse.listens.store(listens, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    fn may_refuse(&self) -> bool {
        self.shared.may_refuse(now())
    }

    fn completes(&self, id: TransferId) {
        let report = Report::Complete(id);
        self.queues.reports.post(Message::Reports(vec![report]));
    }
}

enum Work {
    Open(Arc<Opening>, StoreSlot),
    Continue(Box<Transfer>),
    Chore(Chore),
}

/// The loop has closed the queues, or has more workers than it should.
struct Closed;

/// The right to be inside the store.
struct StoreSlot {
    shared: Arc<Shared>,
    is_held: bool,
}

impl StoreSlot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let most = shared.store_slots;
        let more = |taken| (taken < most).then_some(taken + 1);
        // In one step: a count that is too high for a moment would send others to sleep beside a waiting request.
        let taken = shared
            .in_store
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.is_ok().then(|| Self {
            shared: Arc::clone(shared),
            is_held: true,
        })
    }

    /// The store has answered; where it took long, the loop has given the place to others already.
    fn give_back(mut self, is_slow: bool) {
        if is_slow {
            self.is_held = false;
            self.shared.slow_calls.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for StoreSlot {
    fn drop(&mut self) {
        if self.is_held {
            self.shared.free_slot();
        }
    }
}

impl Shared {
    /// One place in the store is free again.
    fn free_slot(&self) {
        if self.in_store.fetch_sub(1, Ordering::SeqCst) == self.store_slots {
            self.idle.wake(); // somebody may have turned away from the openings
        }
    }

    /// Gives a slow call's place to others, unless there are too many such calls.
    pub(super) fn give_place_away(&self) -> bool {
        // Only the loop counts up.
        let may = self.slow_calls.load(Ordering::SeqCst) < SPARE_WORKERS;
        if may {
            self.slow_calls.fetch_add(1, Ordering::SeqCst);
            self.free_slot();
        }
        may
    }

    /// Whether a worker may go that was stuck, or has had nothing to do: there are others.
    fn leave_to_others(&self) -> bool {
        let fewer = |workers| (workers > self.most_workers).then(|| workers - 1);
        self.workers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
            .is_ok()
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, queues: Queues) -> Self {
        let place = Place { shared, queues };
        Self {
            place,
            scratch: Scratch::new(),
            reports: Vec::with_capacity(BATCH),
            reported: now(),
            openings_in_a_row: 0,
        }
    }

    /// Works until the loop closes the queues.
    pub(super) fn run(mut self) {
        loop {
            let work = match self.at_hand() {
                Some(work) => work,
                None => {
                    self.flush();
                    match self.wait() {
                        Ok(()) => continue,
                        Err(Closed) => break,
                    }
                }
            };
            // What is parked is not watched until the loop knows: nobody waits for a store, or for more than a few quick turns.
            if !matches!(work, Work::Continue(_)) {
                self.flush();
            }
            self.place.step();
            let begun = now();
            if self.reports.is_empty() {
                self.reported = begun;
            }
            self.work(work);
            let time = now();
            if self.reports.len() >= BATCH || time - self.reported > PATIENCE {
                self.flush();
            }
            let elapsed = time - begun;
            if elapsed > STUCK_AFTER && self.place.shared.leave_to_others() {
                break;
            }
        }
        self.reports.push(Report::Left(self.place.queues.number));
        self.flush();
    }

    /// Takes work without waiting: openings first, but only a few per continued transfer.
    fn at_hand(&mut self) -> Option<Work> {
        if let Ok(chore) = self.place.queues.chores.try_recv() {
            return Some(Work::Chore(chore));
        }
        if self.openings_in_a_row < OPENINGS_PER_TURN
            && let Some(work) = self.opening()
        {
            self.openings_in_a_row += 1;
            return Some(work);
        }
        self.openings_in_a_row = 0;
        match self.place.queues.ready.try_recv() {
            Ok(transfer) => Some(Work::Continue(transfer)),
            Err(_) => self.opening(),
        }
    }

    fn opening(&self) -> Option<Work> {
        let Place { shared, queues } = &self.place;
        if queues.openings.is_empty() {
            return None;
        }
        let slot = StoreSlot::take(shared)?;
        let opening = queues.openings.try_recv().ok()?;
        Some(Work::Open(opening, slot))
    }

    /// Sleeps until there is something; the work may have gone to another worker by then.
    fn wait(&self) -> Result<(), Closed> {
        let Place { shared, queues } = &self.place;
        let surplus = shared.workers.load(Ordering::SeqCst) > shared.most_workers;
        // While the store is full of workers, this one is for running transfers only, until a place gets free.
        let has_work = || match shared.in_store.load(Ordering::SeqCst) < shared.store_slots {
            true => queues.have_work(),
            false => !queues.ready.is_empty() || !queues.chores.is_empty(),
        };
        match shared.idle.sleep(surplus.then_some(SPARE_IDLE), has_work) {
            Woken::ForWork => Ok(()),
            Woken::ByTime if !shared.leave_to_others() => Ok(()),
            Woken::ByTime | Woken::ForEver => Err(Closed),
        }
    }

    fn flush(&mut self) {
        if !self.reports.is_empty() {
            let reports = std::mem::replace(&mut self.reports, Vec::with_capacity(BATCH));
            self.place.queues.reports.post(Message::Reports(reports));
        }
    }

    fn work(&mut self, work: Work) {
        let shared = &self.place.shared;
        match work {
            Work::Continue(transfer) => self.go_on(transfer),
            Work::Open(opening, slot) => {
                if let Some(transfer) = self.open(opening, slot) {
                    self.go_on(transfer);
                }
            }
            Work::Chore(Chore::Bury(transfer)) => {
                let id = transfer.id();
                bury(transfer);
                self.reports.push(Report::Closed(id));
            }
            Work::Chore(Chore::Sweep) => shared.mappings.sweep(now()),
            Work::Chore(Chore::Reload) => {
                shared.mappings.clear();
                if guarded(|| shared.store.reload()).is_none() {
                    log::error!("the store panicked while it was reloaded");
                }
            }
        }
    }

    fn go_on(&mut self, mut transfer: Box<Transfer>) {
        let turn = loop {
            let turn = guarded(|| transfer.run(&mut self.scratch, &self.place));
            if transfer.is_complete() {
                // It may go on for a while, but the file is there.
                self.place.shared.conclude(&mut transfer, Ending::Completed);
            }
            match turn {
                Some(Turn::SliceUsed) if self.place.may_go_on() => self.flush(),
                turn => break turn,
            }
            self.place.tell_progress(&mut transfer);
        };
        self.place.tell_progress(&mut transfer);
        let ending = match turn {
            Some(Turn::Quiet(until)) => return self.reports.push(Report::Parked(transfer, until)),
            Some(Turn::SliceUsed) => return self.reports.push(Report::Parked(transfer, now())),
            Some(Turn::Done(ending)) => ending,
            None => {
                self.place.listens(false);
                transfer.leave("internal error", || self.place.may_refuse());
                Ending::Failed(Failure::Panicked)
            }
        };
        self.place.shared.conclude(&mut transfer, ending);
        self.reports.push(Report::Ended {
            id: transfer.id(),
            is_proven: transfer.is_proven(),
            answered: transfer.answered(),
        });
        bury(transfer);
    }

    /// Asks the store and makes the transfer; `None` when it has ended already, and that is reported.
    fn open(&mut self, opening: Arc<Opening>, slot: StoreSlot) -> Option<Box<Transfer>> {
        let Tid { peer, local } = opening.tid;
        if !opening.ask() {
            return None;
        }
        let mut from = local;
        from.set_port(opening.port.load(Ordering::Relaxed));
        let socket = match TransferSocket::open(from, peer, &self.place.shared.sockets) {
            Ok(socket) => socket,
            Err(error) => {
                self.reports.push(match opening.wait_again() {
                    true => Report::NoSocket(opening, error),
                    false => Report::Closed(opening.id),
                });
                return None;
            }
        };
        let request = opening.request();
        let granted = self.place.ask(&request, &opening);
        // The store lacks a descriptor: the request waits as it would for want of a socket, and
        // gives its own back.
        if granted.as_ref().is_err_and(Refusal::is_for_want) && opening.wait_again() {
            drop(socket);
            slot.give_back(false);
            self.reports
                .push(Report::NoSocket(opening, sys::no_descriptor()));
            return None;
        }
        let (is_wanted, is_slow) = opening.answered();
        slot.give_back(is_slow);
        if !is_wanted {
            bury((granted, socket));
            self.reports.push(Report::Closed(opening.id));
            return None;
        }
        // A copy of what was done is acknowledged and never refused: its sender may be busy with something else on that port.
        // What it would have been told is told to whoever really sends the file again.
        let granted = match granted {
            Err(refusal) if opening.may_be_copy => Ok(Granted::Write(Box::new(Refusing(refusal)))),
            granted => granted,
        };
        match granted {
            Ok(granted) => Some(self.place.begin(granted, &request, &opening, socket)),
            Err(refusal) => {
                let answered = now();
                if !opening.broadcast && self.place.shared.may_refuse(answered) {
                    tell(&socket, refusal.code(), refusal.text());
                }
                let (direction, name) = (request.direction, Name::new(request.name));
                let id = opening.id;
                self.place.shared.reporter.report(Event::Refused {
                    id: Some(id),
                    peer,
                    direction,
                    name,
                    refusal,
                });
                self.reports.push(Report::Ended {
                    id,
                    is_proven: false,
                    answered,
                });
                None
            }
        }
    }
}

/// What the store gave.
enum Granted {
    Read(Body),
    Write(Box<dyn Sink>),
}

/// Takes no octet of a file that the store has refused.
struct Refusing(Refusal);

impl Sink for Refusing {
    fn append(&mut self, _: &[u8]) -> Result<(), Refusal> {
        Err(self.0.clone())
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        Err(self.0)
    }
}

impl Queues {
    fn have_work(&self) -> bool {
        !self.ready.is_empty() || !self.openings.is_empty() || !self.chores.is_empty()
    }
}

impl Place {
    /// A sign of life.
    fn step(&self) {
        self.queues.pulse.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Another turn for the transfer that has just had one.
    fn may_go_on(&self) -> bool {
        !self.others_wait() && self.shared.recalled.load(Ordering::Relaxed) == 0
    }

    /// Costs one look at a flag while nobody reads events.
    fn tell_progress(&self, transfer: &mut Transfer) {
        if self.shared.reporter.is_heard()
            && let Some(progress) = transfer.progress()
        {
            self.shared.reporter.report(progress);
        }
    }

    /// Asks the store, whose code may panic.
    fn ask(&self, request: &wire::Request<'_>, opening: &Opening) -> Result<Granted, Refusal> {
        let wire::Request {
            direction,
            name,
            mode,
            options,
        } = *request;
        let Tid { peer, local } = opening.tid;
        let question = Request {
            peer,
            local,
            direction,
            name,
            mode,
            options,
        };
        let failed = |detail: String| {
            let text = match direction {
                Direction::Read => "read error",
                Direction::Write => "write error",
            };
            Refusal::new(ErrorCode::NOT_DEFINED, text).because(detail)
        };
        let store = &self.shared.store;
        let answer = guarded(|| {
            if direction == Direction::Write {
                return store.write(&question).map(Granted::Write);
            }
            let source = store.read(&question)?;
            let body = Body::new(source, mode, &self.shared.mappings, now());
            body.map(Granted::Read).map_err(|trouble| {
                failed(match trouble {
                    Trouble::Changed => "the file changed".into(),
                    Trouble::Read(cause) => cause,
                    Trouble::Network(error) => plain(&error),
                })
            })
        });
        answer.unwrap_or_else(|| Err(failed("the store panicked".into())))
    }

    /// The largest block size for this peer. One system call, and none for a peer that asks for small blocks.
    fn max_blksize(&self, asked: &Options, socket: &TransferSocket) -> u16 {
        let most = self.shared.terms.max_blksize;
        let wanted = [OptionName::Blksize, OptionName::Blksize2]
            .into_iter()
            .filter_map(|name| asked.get(name))
            .max();
        if !self.shared.fit_route || wanted.is_none_or(|size| size <= UNCHECKED_BLKSIZE.into()) {
            return most;
        }
        // Where the system does not say, nothing is held back.
        let room = socket
            .room()
            .unwrap_or(usize::MAX)
            .saturating_sub(DATA_HEADER);
        most.min(
            u16::try_from(room)
                .unwrap_or(u16::MAX)
                .max(UNCHECKED_BLKSIZE),
        )
    }

    /// Agrees on the options and makes the transfer.
    fn begin(
        &self,
        granted: Granted,
        request: &wire::Request<'_>,
        opening: &Opening,
        socket: TransferSocket,
    ) -> Box<Transfer> {
        let shared = &self.shared;
        let (size, in_flight, share) = match &granted {
            Granted::Read(body) => (body.length(), body.in_flight(), body.share(&shared.buffers)),
            Granted::Write(_) => (
                request.options.get(OptionName::Tsize),
                RECEIVED_WINDOW_OCTETS,
                u64::MAX,
            ),
        };
        let advice = shared.advise(opening.tid.peer, &request.options);
        let options = match advice.options {
            true => request.options,
            false => Options::default(),
        };
        let terms = Terms {
            in_flight: shared.terms.in_flight.min(in_flight).min(share),
            max_blksize: self
                .max_blksize(&options, &socket)
                .min(advice.max_blksize)
                .min(
                    u16::try_from(share)
                        .unwrap_or(u16::MAX)
                        .max(BUFFERED_BLKSIZE),
                ),
            max_windowsize: shared.terms.max_windowsize.min(advice.max_windowsize),
        };
        let (agreed, answer) = grant(&options, size, &terms);
        let mut policy = shared.policy;
        if opening.tense {
            policy.opening_sends = UNPROVEN_DATA_SENDS;
        }
        let (end, datagram) = match granted {
            Granted::Read(mut body) => {
                body.reserve(&shared.buffers, &agreed);
                answer_read(body, &agreed, &answer, &policy)
            }
            Granted::Write(sink) => {
                let machine = proto::Receiver::answering(&agreed, DALLY, &policy, now());
                let ack = || wire::ack(0).to_vec();
                let datagram = option_ack(&answer).unwrap_or_else(ack);
                (End::receiving(machine, sink, request.mode), datagram)
            }
        };
        let (blksize, windowsize) = (agreed.blksize, agreed.windowsize);
        shared.reporter.report(Event::Started {
            id: opening.id,
            blksize,
            windowsize,
            size,
            mapping_shared: end.is_shared(),
        });
        let local = socket.local_addr().unwrap_or(opening.tid.local);
        let origin = Origin {
            id: opening.id,
            name: Name::new(request.name),
            direction: request.direction,
            asked: request.options,
            arrived: opening.arrived,
        };
        Box::new(Transfer::answering(
            origin, end, socket, local, agreed, datagram,
        ))
    }
}

/// The sending end of an RRQ, and the datagram that opens it: an OACK, or none.
fn answer_read(
    body: Body,
    agreed: &Agreed,
    answer: &Options,
    policy: &Policy,
) -> (End<'static>, Vec<u8>) {
    let datagram = option_ack(answer);
    let last = body.last(Format {
        blksize: agreed.blksize,
        rollover: agreed.rollover,
    });
    let machine = Sender::answering(agreed, datagram.is_some(), last, policy, now());
    let end = End::sending(machine, body, agreed);
    (end, datagram.unwrap_or_default())
}

/// The OACK, if there is anything to say in it.
fn option_ack(answer: &Options) -> Option<Vec<u8>> {
    if answer.is_empty() {
        return None;
    }
    let mut datagram = Vec::new();
    wire::emit_option_ack(answer, &mut datagram);
    Some(datagram)
}

/// Runs an embedder's code; `None` where it panicked. What it threw is dropped here, and where that panics as well, the second
/// thing is left where it is.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    let thrown = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => return Some(value),
        Err(thrown) => thrown,
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
        std::mem::forget(again);
    }
    None
}

/// Closes a transfer's file and socket, or what the store gave too late. An embedder's source may panic even here.
fn bury<T>(ended: T) {
    if guarded(|| drop(ended)).is_none() {
        log::error!("a source panicked while it was closed");
    }
}

impl Shared {
    /// A transfer has ended: learns from it, then tells everybody. Once.
    pub(super) fn conclude(&self, transfer: &mut Transfer, ending: Ending) {
        if !transfer.conclude() {
            return;
        }
        let summary = transfer.summary();
        let peer = summary.peer;
        let learn = |memory: &Mutex<Memory>| {
            let course = transfer.course(&ending)?;
            // An ERROR from the right port is an answer too: its sender has seen the OACK.
            if !transfer.is_proven() && course.outset != Outset::Refused {
                return None;
            }
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.learn(peer, transfer.asked(), &course, now())
        };
        let lesson = self.memory.as_ref().and_then(learn);
        self.reporter.report(match ending {
            Ending::Completed => Event::Completed(summary),
            Ending::Probed => Event::Probe(summary),
            Ending::Failed(failure) => Event::Failed(summary, failure),
        });
        if let Some(lesson) = lesson {
            self.reporter.report(Event::Learned { peer, lesson });
        }
    }

    /// Whether one more ERROR may go to a peer that has not answered anything.
    pub(super) fn may_refuse(&self, now: Instant) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.take(now)
    }

    /// What this peer is granted at most.
    fn advise(&self, peer: SocketAddr, asked: &Options) -> Advice {
        let Some(memory) = self.memory.as_ref().filter(|_| !asked.is_empty()) else {
            return Advice::default();
        };
        let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.advise(peer, asked, now())
    }
}
