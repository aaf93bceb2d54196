//! A thread of the pool: it opens transfers, and runs a lane. What comes of it goes to the loop as
//! a message.

use super::admitted::{AdmittedRequest, Asked};
use super::desk::Tid;
use super::idle::Wake;
use super::lane::{Lane, Waiting};
use super::mailbox::Mailbox;
use super::message::{Done, Job, Message, Report};
use super::pending::PendingRequest;
use super::shared::Shared;
use super::store_slot::StoreSlot;
use super::waker::TransferWaker;
use crate::error::{Refusal, TransferError};
use crate::event::{Event, Name, TransferId};
use crate::limits::{
    BUFFERED_BLKSIZE, DALLY, DATA_HEADER, HALF_OPEN_DATA_SENDS, OPENINGS_PER_TURN, PATIENCE,
    RECEIVED_WINDOW_OCTETS, SPARE_IDLE, STUCK_AFTER, UNCHECKED_BLKSIZE,
};
use crate::proto::{self, Agreed, Policy, Sender, Terms, grant};
use crate::store::{Kind, Later, Request, Sink, Source};
use crate::sys;
use crate::transfer::{
    Body, End, Ending, Format, Link, NO_ANSWER, Origin, STOPPING, Scratch, Surroundings, Transfer,
    Trouble, Turn, now, tell,
};
use crate::wire::{self, Direction, ErrorCode, Mode, OptionName, Options};
use crossbeam_channel::Receiver;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// A worker's signs of life.
#[derive(Default)]
pub(super) struct Heartbeat {
    /// Counts on while the worker goes from step to step; stands still while it is inside a store,
    /// a read or a wait.
    pub(super) steps: AtomicU64,
    /// It waits for a peer.
    pub(super) listens: AtomicBool,
}

/// A request, and the port to answer it from.
pub(super) type Admitted = (Arc<AdmittedRequest>, u16);

/// What one worker has: its ends of the queues, and the sign of life that the loop looks at.
pub(super) struct Queues {
    /// The worker's number.
    pub(super) number: usize,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) openings: Receiver<Admitted>,
    pub(super) jobs: Receiver<Job>,
    pub(super) reports: Mailbox<Message>,
}

/// Reports are handed over in batches of up to so many, one bell for all of them.
const BATCH: usize = 16;

/// A worker, for as long as its queues are open.
pub(super) struct Worker {
    context: WorkerContext,
    scratch: Scratch,
    reports: Vec<Report>,
    /// Since when the first of them waits.
    reported: Instant,
    /// The clock, as it was read last.
    time: Instant,
    /// Openings taken since the last continued transfer.
    openings_in_a_row: u32,
}

/// What surrounds a transfer that a worker runs.
struct WorkerContext {
    shared: Arc<Shared>,
    queues: Queues,
    /// The number of the lane that this worker runs. Another worker may have taken it over.
    lane: Option<usize>,
}

impl Surroundings for WorkerContext {
    fn others_wait(&self) -> bool {
        self.step();
        self.has_others() || self.queues.have_work()
    }

    fn is_needed(&self) -> bool {
        self.shared.asleep() == 0
    }

    fn listens(&self, listens: bool) {
        self.queues
            .heartbeat
            .listens
            .store(listens, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    fn may_refuse(&self) -> bool {
        self.shared.may_refuse(now())
    }

    fn source_deadline(&self) -> Duration {
        self.shared.store_deadline
    }

    fn completes(&self, id: TransferId) {
        let report = Report::Complete(id);
        self.queues.reports.post(Message::Reports(vec![report]));
    }
}

enum Work {
    Open(Admitted, StoreSlot),
    Continue(Waiting, usize),
    Job(Job),
}

/// The loop has closed the queues, or has more workers than it should.
struct Closed;

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, queues: Queues) -> Self {
        let context = WorkerContext {
            shared,
            queues,
            lane: None,
        };
        Self {
            context,
            scratch: Scratch::new(),
            reports: Vec::with_capacity(BATCH),
            reported: now(),
            time: now(),
            openings_in_a_row: 0,
        }
    }

    /// Works until the loop closes the queues.
    pub(super) fn run(mut self) {
        loop {
            if self.context.shared.idle.is_closed() {
                break;
            }
            self.context.choose_lane();
            let work = match self.at_hand() {
                Some(work) => work,
                None => match self.rest() {
                    Ok(()) => {
                        self.time = now();
                        continue;
                    }
                    Err(Closed) => break,
                },
            };
            // The loop does not wait for a store call, or for more than a few quick turns.
            if !matches!(work, Work::Continue(..)) {
                self.flush();
                self.context.leave_lane_to_others();
            }
            self.context.step();
            let begun = self.time;
            if self.reports.is_empty() {
                self.reported = begun;
            }
            self.work(work);
            self.time = now();
            if self.reports.len() >= BATCH || self.time - self.reported > PATIENCE {
                self.flush();
            }
            let elapsed = self.time - begun;
            if elapsed > STUCK_AFTER && self.context.shared.leave_to_others() {
                break;
            }
        }
        self.context.release_lane();
        self.reports.push(Report::Left(self.context.queues.number));
        self.flush();
    }

    /// Takes work without waiting: openings first, but only a few per continued transfer.
    fn at_hand(&mut self) -> Option<Work> {
        if let Ok(job) = self.context.queues.jobs.try_recv() {
            return Some(Work::Job(job));
        }
        if self.openings_in_a_row < OPENINGS_PER_TURN
            && let Some(work) = self.opening()
        {
            self.openings_in_a_row += 1;
            return Some(work);
        }
        self.openings_in_a_row = 0;
        let ready = self.context.lane().and_then(|(number, lane)| {
            let waiting = lane.next()?;
            Some(Work::Continue(waiting, number))
        });
        ready.or_else(|| self.opening())
    }

    fn opening(&self) -> Option<Work> {
        let WorkerContext { shared, queues, .. } = &self.context;
        if queues.openings.is_empty() {
            return None;
        }
        let slot = StoreSlot::take(shared)?;
        let admitted = queues.openings.try_recv().ok()?;
        Some(Work::Open(admitted, slot))
    }

    /// Waits for the packets of its lane, or without one until there is work; another worker may
    /// have taken that by then.
    fn rest(&mut self) -> Result<(), Closed> {
        if let Some((number, lane)) = self.context.lane()
            && lane.count() > 0
        {
            self.flush();
            let WorkerContext { shared, queues, .. } = &self.context;
            let lane = &shared.lanes[number];
            lane.poll(queues.number, || self.context.has_work_to_take());
            if lane.count() > 1 {
                self.context.have_lanes_watched();
            }
            return Ok(());
        }
        self.context.release_lane();
        self.flush();
        let shared = &self.context.shared;
        let surplus = shared.workers.load(Ordering::SeqCst) > shared.most_workers;
        let has_work = || {
            let is_unattended = shared.lanes.iter().any(Lane::is_unattended);
            is_unattended || self.context.has_work_to_take()
        };
        match shared.idle.sleep(surplus.then_some(SPARE_IDLE), has_work) {
            Wake::Work => Ok(()),
            Wake::Timeout if !shared.leave_to_others() => Ok(()),
            Wake::Timeout | Wake::Shutdown => Err(Closed),
        }
    }

    fn flush(&mut self) {
        if !self.reports.is_empty() {
            let reports = std::mem::replace(&mut self.reports, Vec::with_capacity(BATCH));
            self.context.queues.reports.post(Message::Reports(reports));
        }
    }

    fn work(&mut self, work: Work) {
        let shared = &self.context.shared;
        match work {
            Work::Continue(waiting, lane) => self.go_on(waiting, lane),
            Work::Open(admitted, slot) => {
                let waker = TransferWaker::new(&shared.lanes, admitted.0.id);
                if let Some(waiting) = self.open(admitted, slot, &Arc::clone(&waker).into()) {
                    let lane = self.enter(waiting.id());
                    waker.enters(lane);
                    self.go_on(waiting, lane);
                }
            }
            Work::Job(Job::Close(waiting)) => {
                let id = waiting.id();
                close(waiting);
                self.reports.push(Report::Closed(id));
            }
            Work::Job(Job::Sweep) => shared.mappings.sweep(now()),
            Work::Job(Job::Reload(done)) => {
                shared.mappings.clear();
                if guarded(|| shared.store.reload()).is_none() {
                    log::error!("the store panicked while it was reloaded");
                }
                call(done);
            }
            Work::Job(Job::Check(done)) => call(done),
        }
    }

    /// Gives a new transfer its lane: this worker's, or else the one with the fewest transfers.
    fn enter(&mut self, id: TransferId) -> usize {
        self.context.choose_lane();
        let lanes = &self.context.shared.lanes;
        let number = self.context.lane.unwrap_or_else(|| {
            let numbers = 0..lanes.len();
            numbers
                .min_by_key(|number| lanes[*number].count())
                .unwrap_or(0)
        });
        lanes[number].enter(id);
        self.reports.push(Report::Opened(id, number));
        number
    }

    fn go_on(&mut self, waiting: Waiting, lane: usize) {
        match waiting {
            Waiting::Transfer(transfer) => self.turn(transfer, lane),
            Waiting::Request(request) => self.resolve(request, lane),
        }
    }

    /// Gives a transfer its turn.
    fn turn(&mut self, mut transfer: Box<Transfer>, lane: usize) {
        let id = transfer.id();
        let was_proven = transfer.is_proven();
        let turn = loop {
            let turn = guarded(|| transfer.run(&mut self.scratch, &self.context));
            if transfer.is_complete() {
                // It may go on for a while, but the file is there.
                self.context
                    .shared
                    .conclude(&mut transfer, Ending::Completed);
            }
            match turn {
                // Nothing that is parked may be left behind where all are to end.
                Some(Turn::Quiet(_) | Turn::SliceUsed) if self.context.is_stopping() => {}
                turn => break turn,
            }
        };
        self.context.tell_progress(&mut transfer);
        let until = match turn {
            Some(Turn::Quiet(until)) => Ok(Some(until)),
            Some(Turn::SliceUsed) => Ok(None),
            Some(Turn::Done(ending)) => Err(ending),
            None => {
                self.context.listens(false);
                transfer.leave("internal error", || self.context.may_refuse());
                Err(Ending::Failed(TransferError::Panicked))
            }
        };
        match until {
            Ok(until) => {
                if transfer.is_proven() && !was_proven {
                    self.reports.push(Report::Established(id));
                }
                self.park(Waiting::Transfer(transfer), until, lane);
            }
            Err(ending) => {
                self.context.shared.conclude(&mut transfer, ending);
                let _ = self.context.shared.lanes[lane].abandon(id);
                self.reports.push(Report::Ended {
                    id,
                    is_proven: transfer.is_proven(),
                    answered: transfer.answered(),
                });
                close(transfer);
            }
        }
    }

    fn park(&mut self, waiting: Waiting, until: Option<Instant>, lane: usize) {
        let id = waiting.id();
        let own = self.context.lane().map(|(number, _)| number);
        let is_own = own == Some(lane);
        let lane = &self.context.shared.lanes[lane];
        match lane.park(waiting, until) {
            Ok(true) => self.reports.push(Report::Parked(id)),
            Ok(false) => {}
            Err(waiting) => {
                close(waiting);
                self.reports.push(Report::Closed(id));
            }
        }
        // The runner of another lane may be held up, and the loop may not have seen before that
        // transfers wait for it.
        if !is_own {
            self.context.have_lanes_watched();
        }
        // The loop may have looked for parked transfers just before.
        if self.context.is_stopping() {
            lane.resume(id);
        }
    }

    /// Asks for the source of a request, and makes the transfer if it is there.
    fn resolve(&mut self, mut request: Box<PendingRequest>, lane: usize) {
        let mode = request.opening.asked.mode;
        let answer = guarded(|| {
            let source = match request.poll(now()) {
                Poll::Ready(source) => source,
                Poll::Pending => return Poll::Pending,
            };
            Poll::Ready(source.and_then(|source| self.context.granted(source, mode)))
        });
        let panicked = || Poll::Ready(Err(failed_read().because(PANICKED)));
        match answer.unwrap_or_else(panicked) {
            Poll::Pending if !self.context.is_stopping() => {
                let until = request.until;
                self.park(Waiting::Request(request), Some(until), lane);
            }
            Poll::Pending => {
                request.end(Some(STOPPING), || self.context.may_refuse());
                let summary = request.opening.summary(now());
                let event = Event::Failed(summary, TransferError::Stopped);
                self.context.shared.reporter.report(event);
                self.end_request(*request, lane);
            }
            Poll::Ready(Ok(granted)) => {
                let PendingRequest {
                    opening,
                    link,
                    source,
                    ..
                } = *request;
                close(source);
                let transfer = self.context.begin(granted, &opening, link);
                self.turn(transfer, lane);
            }
            Poll::Ready(Err(refusal)) => {
                self.context
                    .refuse(&request.opening, &request.link, refusal);
                self.end_request(*request, lane);
            }
        }
    }

    /// A request has ended that never became a transfer.
    fn end_request(&mut self, request: PendingRequest, lane: usize) {
        let (id, answered) = (request.opening.id, now());
        let _ = self.context.shared.lanes[lane].abandon(id);
        close(request);
        self.reports.push(Report::Ended {
            id,
            is_proven: false,
            answered,
        });
    }

    /// Asks the store and makes the transfer; `None` when it has ended already, and that is
    /// reported.
    fn open(
        &mut self,
        (opening, port): Admitted,
        slot: StoreSlot,
        waker: &Waker,
    ) -> Option<Waiting> {
        let Tid { peer, local } = opening.tid;
        if !opening.ask(now()) {
            return None;
        }
        let mut from = local;
        from.set_port(port);
        let link = match Link::open(from, peer, &self.context.shared.sockets) {
            Ok(link) => link,
            Err(error) => {
                self.no_socket(opening, slot, error);
                return None;
            }
        };
        let granted = self.context.ask(&opening, waker);
        // The store lacks a descriptor: the request waits as it would for want of a socket, and
        // gives its own back.
        if granted.as_ref().is_err_and(Refusal::is_for_want) {
            drop(link);
            self.no_socket(opening, slot, sys::no_descriptor());
            return None;
        }
        let (is_wanted, is_slow) = opening.answered();
        slot.give_back(is_slow);
        if !is_wanted {
            close((granted, link));
            self.reports.push(Report::Closed(opening.id));
            return None;
        }
        // A copy of what was done is acknowledged and never refused: its sender may be busy with
        // something else on that port. What it would have been told is told to whoever really sends
        // the file again.
        let granted = match granted {
            Err(refusal) if opening.may_be_copy => {
                let sink = Box::new(Refusing(refusal));
                Ok(Answer::Now(Granted::Write(sink, None)))
            }
            granted => granted,
        };
        match granted {
            Ok(Answer::Later(source, name)) => {
                let since = now();
                Some(Waiting::Request(Box::new(PendingRequest {
                    opening,
                    link,
                    source,
                    name,
                    waker: waker.clone(),
                    since,
                    until: since + self.context.shared.store_deadline,
                })))
            }
            Ok(Answer::Now(granted)) => {
                let transfer = self.context.begin(granted, &opening, link);
                Some(Waiting::Transfer(transfer))
            }
            Err(refusal) => {
                let answered = self.context.refuse(&opening, &link, refusal);
                self.reports.push(Report::Ended {
                    id: opening.id,
                    is_proven: false,
                    answered,
                });
                None
            }
        }
    }

    /// There was no socket for a request, or no descriptor for its file.
    fn no_socket(&mut self, opening: Arc<AdmittedRequest>, slot: StoreSlot, error: io::Error) {
        let queued = opening.wait_again();
        let is_slow = queued.unwrap_or_else(|| opening.answered().1);
        slot.give_back(is_slow);
        self.reports.push(match queued {
            Some(_) => Report::NoSocket(opening, error),
            None => Report::Closed(opening.id),
        });
    }
}

/// What the store gave.
enum Granted {
    /// With the name that it has in the store.
    Read(Body, Option<Name>),
    Write(Box<dyn Sink>, Option<Name>),
}

/// When it did.
enum Answer {
    Now(Granted),
    /// With the name that it has in the store.
    Later(Later, Option<Name>),
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
        !self.openings.is_empty() || !self.jobs.is_empty()
    }
}

impl WorkerContext {
    /// A sign of life.
    fn step(&self) {
        // Only this worker counts.
        let steps = &self.queues.heartbeat.steps;
        steps.store(steps.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The lane that this worker runs.
    fn lane(&self) -> Option<(usize, &Lane)> {
        let number = self.lane?;
        let lane = &self.shared.lanes[number];
        lane.is_run_by(self.queues.number).then_some((number, lane))
    }

    /// Runs a lane that has transfers and no runner, or else the free one with the fewest.
    fn choose_lane(&mut self) {
        if self.lane().is_some() {
            return;
        }
        let lanes = self.shared.lanes.iter().enumerate();
        let free = lanes.filter(|(_, lane)| lane.is_free());
        let first = free.min_by_key(|(_, lane)| (lane.count() == 0, lane.count()));
        self.lane = first
            .filter(|(_, lane)| lane.claim(self.queues.number))
            .map(|(number, _)| number);
    }

    /// The loop notices where a turn or a store call blocks, unless the loop sleeps.
    fn have_lanes_watched(&self) {
        let is_watching = &self.shared.is_watching;
        if !is_watching.load(Ordering::SeqCst) && !is_watching.swap(true, Ordering::SeqCst) {
            self.queues.reports.ring();
        }
    }

    /// What comes next may take long: others may use a lane that is empty, and take over one that
    /// is not.
    fn leave_lane_to_others(&mut self) {
        match self.lane().map(|(_, lane)| lane.count()) {
            Some(0) => self.release_lane(),
            Some(_) => self.have_lanes_watched(),
            None => {}
        }
    }

    fn release_lane(&mut self) {
        if let Some(number) = self.lane.take() {
            self.shared.lanes[number].release(self.queues.number);
        }
    }

    /// True where the lane has other transfers, or is run by another worker.
    fn has_others(&self) -> bool {
        self.lane().is_none_or(|(_, lane)| lane.count() > 1)
    }

    /// True where the queues hold what this worker may take: while the store is full of workers, no
    /// requests.
    fn has_work_to_take(&self) -> bool {
        let Shared {
            in_store,
            store_slots,
            idle,
            ..
        } = &*self.shared;
        let has_work = match in_store.load(Ordering::SeqCst) < *store_slots {
            true => self.queues.have_work(),
            false => !self.queues.jobs.is_empty(),
        };
        has_work || idle.is_closed()
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
    fn ask(&self, opening: &AdmittedRequest, waker: &Waker) -> Result<Answer, Refusal> {
        let Asked {
            direction,
            ref name,
            mode,
            ref options,
        } = opening.asked;
        let Tid { peer, local } = opening.tid;
        let question = Request {
            peer,
            local,
            direction,
            name: name.as_bytes(),
            mode,
            options,
            waker,
        };
        let store = &self.shared.store;
        let answer = guarded(|| match direction {
            Direction::Write => {
                let sink = store.write(&question)?;
                let served = sink.name().map(Name::new);
                Ok(Answer::Now(Granted::Write(sink, served)))
            }
            Direction::Read => match store.read(&question)? {
                Source(Kind::Later(source), name) => Ok(Answer::Later(source, name)),
                source => self.granted(source, mode).map(Answer::Now),
            },
        });
        answer.unwrap_or_else(|| {
            let refusal = match direction {
                Direction::Read => failed_read(),
                Direction::Write => Refusal::new(ErrorCode::NOT_DEFINED, "write error"),
            };
            Err(refusal.because(PANICKED))
        })
    }

    /// Opens what the store has given.
    fn granted(&self, source: Source, mode: Mode) -> Result<Granted, Refusal> {
        let served = source.1.clone();
        match Body::new(source, mode, &self.shared.mappings, now()) {
            Ok(body) => Ok(Granted::Read(body, served)),
            Err(Trouble::Changed) => Err(failed_read().because("the file changed")),
            Err(Trouble::Pending) => Err(failed_read().because(NO_ANSWER)),
            Err(Trouble::Read(error) | Trouble::Network(error)) => {
                Err(failed_read().caused_by(error))
            }
        }
    }

    /// Tells the peer of a refusal, within the budget, and reports it. Returns when.
    fn refuse(&self, opening: &AdmittedRequest, link: &Link, refusal: Refusal) -> Instant {
        let answered = now();
        if !opening.broadcast && self.shared.may_refuse(answered) {
            tell(link, refusal.code(), refusal.text());
        }
        self.shared.reporter.report(Event::Refused {
            id: Some(opening.id),
            peer: opening.tid.peer,
            direction: opening.asked.direction,
            name: opening.asked.name.clone(),
            refusal,
        });
        answered
    }

    /// The largest block size for this peer. One system call, and none for a peer that asks for
    /// small blocks.
    fn max_blksize(&self, asked: &Options, link: &Link) -> u16 {
        let most = self.shared.terms.max_blksize;
        let wanted = [OptionName::Blksize, OptionName::Blksize2]
            .into_iter()
            .filter_map(|name| asked.get(name))
            .max();
        if !self.shared.fit_route || wanted.is_none_or(|size| size <= UNCHECKED_BLKSIZE.into()) {
            return most;
        }
        // Where the system does not say, nothing is held back.
        let room = link
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
    fn begin(&self, granted: Granted, opening: &AdmittedRequest, link: Link) -> Box<Transfer> {
        let (shared, request) = (&self.shared, &opening.asked);
        let (size, in_flight, share) = match &granted {
            Granted::Read(body, _) => {
                (body.length(), body.in_flight(), body.share(&shared.buffers))
            }
            Granted::Write(..) => (
                request.options.get(OptionName::Tsize),
                RECEIVED_WINDOW_OCTETS,
                u64::MAX,
            ),
        };
        let advice = shared.advise(opening.tid.peer, &request.options);
        let options = match advice.options {
            true => &request.options,
            false => &Options::NONE,
        };
        let terms = Terms {
            in_flight: shared.terms.in_flight.min(in_flight).min(share),
            max_blksize: self
                .max_blksize(options, &link)
                .min(advice.max_blksize)
                .min(
                    u16::try_from(share)
                        .unwrap_or(u16::MAX)
                        .max(BUFFERED_BLKSIZE),
                ),
            max_windowsize: shared.terms.max_windowsize.min(advice.max_windowsize),
        };
        let (agreed, answer) = grant(options, size, &terms);
        let mut policy = shared.policy;
        if opening.tense {
            policy.opening_sends = HALF_OPEN_DATA_SENDS;
        }
        let mut served = request.name.clone();
        let (end, datagram) = match granted {
            Granted::Read(mut body, name) => {
                served = name.unwrap_or(served);
                body.reserve(&shared.buffers, &agreed);
                answer_read(body, &agreed, &answer, &policy)
            }
            Granted::Write(sink, name) => {
                served = name.unwrap_or(served);
                let machine = proto::Receiver::answering(&agreed, DALLY, &policy, now());
                let ack = || wire::ack(0).to_vec();
                let datagram = option_ack(&answer).unwrap_or_else(ack);
                (End::receiving(machine, sink, request.mode), datagram)
            }
        };
        let (blksize, windowsize) = (agreed.blksize, agreed.windowsize);
        shared.reporter.report(Event::Started {
            id: opening.id,
            name: request.name.clone(),
            served,
            blksize,
            windowsize,
            size,
            mapping_shared: end.is_shared(),
        });
        let local = link.local_addr().unwrap_or(opening.tid.local);
        let origin = Origin {
            id: opening.id,
            name: request.name.clone(),
            direction: request.direction,
            asked: request.options.clone(),
            arrived: opening.arrived,
        };
        Box::new(Transfer::new(origin, end, link, local, agreed, datagram))
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

fn failed_read() -> Refusal {
    Refusal::new(ErrorCode::NOT_DEFINED, "read error")
}

/// Why a request is refused whose store panicked.
const PANICKED: &str = "the store panicked";

/// Runs an embedder's code; `None` where it panicked. What it threw is dropped here, and where that
/// panics as well, the second thing is left where it is.
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

/// Calls what an embedder has left to be called when a job is done.
fn call(done: Done) {
    if guarded(done).is_none() {
        log::error!("a callback panicked after a job");
    }
}

/// Closes a transfer's file and socket, or what the store gave too late. An embedder's source may
/// panic even here.
fn close<T>(ended: T) {
    if guarded(|| drop(ended)).is_none() {
        log::error!("a source panicked while it was closed");
    }
}
