//! A thread of the pool: it opens transfers, and runs a lane. What comes of it goes to the loop as
//! a message.

use super::admitted::AdmittedRequest;
use super::guarded::{close, guarded};
use super::idle::Wake;
use super::lane::Lane;
use super::mailbox::Mailbox;
use super::message::{Done, Job, Message, Report};
use super::opening::{Resolved, ask, resolve};
use super::pending::PendingRequest;
use super::pool_state::PoolState;
use super::shared::Shared;
use super::store_slot::StoreSlot;
use super::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, Receiver, now};
use super::transfer::{Ending, Scratch, Surroundings, Transfer, Turn};
use super::waiting::Waiting;
use super::waker::TransferWaker;
use crate::error::TransferError;
use crate::event::TransferId;
use crate::limits::{OPENINGS_PER_TURN, PATIENCE, SPARE_IDLE, STUCK_AFTER};
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// A worker's signs of life.
#[derive(Default)]
pub(super) struct Heartbeat {
    /// Counts on while the worker goes from step to step; stands still while it is inside a store,
    /// a read or a wait.
    pub(super) steps: AtomicU64,
    /// It waits for a peer.
    pub(super) listens: AtomicBool,
    /// Reports that the worker has not sent yet. The loop takes them from a worker that blocks.
    unsent: Mutex<Vec<Report>>,
}

impl Heartbeat {
    pub(super) fn unsent(&self) -> MutexGuard<'_, Vec<Report>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// Reports since the last batch was sent.
    unsent: usize,
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
        self.shared.pool.asleep() == 0
    }

    fn listens(&self, listens: bool) {
        self.queues
            .heartbeat
            .listens
            .store(listens, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.shared.pool.stopping.load(Ordering::Relaxed)
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
            unsent: 0,
            reported: now(),
            time: now(),
            openings_in_a_row: 0,
        }
    }

    /// Works until the loop closes the queues.
    pub(super) fn run(mut self) {
        loop {
            if self.context.shared.pool.idle.is_closed() {
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
            } else if self.unsent > 0 {
                // Where this turn blocks, the loop takes what was not sent.
                self.context.have_lanes_watched();
            }
            self.context.step();
            let begun = self.time;
            if self.unsent == 0 {
                self.reported = begun;
            }
            self.work(work);
            self.time = now();
            if self.unsent >= BATCH || self.time - self.reported > PATIENCE {
                self.flush();
            }
            let elapsed = self.time - begun;
            if elapsed > STUCK_AFTER && self.context.shared.pool.leave_to_others() {
                break;
            }
        }
        self.context.release_lane();
        self.report(Report::Left(self.context.queues.number));
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
            let lane = &shared.pool.lanes[number];
            lane.poll(queues.number, || self.context.has_work_to_take());
            if lane.count() > 1 {
                self.context.have_lanes_watched();
            }
            return Ok(());
        }
        self.context.release_lane();
        self.flush();
        let shared = &self.context.shared;
        let surplus = shared.pool.workers.load(Ordering::SeqCst) > shared.pool.most_workers;
        let has_work = || {
            let is_unattended = shared.pool.lanes.iter().any(Lane::is_unattended);
            is_unattended || self.context.has_work_to_take()
        };
        match shared
            .pool
            .idle
            .sleep(surplus.then_some(SPARE_IDLE), has_work)
        {
            Wake::Work => Ok(()),
            Wake::Timeout if !shared.pool.leave_to_others() => Ok(()),
            Wake::Timeout | Wake::Shutdown => Err(Closed),
        }
    }

    fn report(&mut self, report: Report) {
        self.context.queues.heartbeat.unsent().push(report);
        self.unsent += 1;
    }

    fn flush(&mut self) {
        if self.unsent == 0 {
            return;
        }
        self.unsent = 0;
        let Queues {
            heartbeat, reports, ..
        } = &self.context.queues;
        let unsent = std::mem::take(&mut *heartbeat.unsent());
        if !unsent.is_empty() {
            reports.post(Message::Reports(unsent));
        }
    }

    fn work(&mut self, work: Work) {
        let shared = &self.context.shared;
        match work {
            Work::Continue(waiting, lane) => self.go_on(waiting, lane),
            Work::Open(admitted, slot) => {
                let waker = TransferWaker::new(&shared.pool.lanes, admitted.0.id);
                if let Some(waiting) = self.open(admitted, slot, &Arc::clone(&waker).into()) {
                    let lane = self.enter(waiting.id());
                    waker.enters(lane);
                    self.go_on(waiting, lane);
                }
            }
            Work::Job(Job::Close(waiting)) => {
                let id = waiting.id();
                close(waiting);
                self.report(Report::Closed(id));
            }
            Work::Job(Job::Sweep) => shared.sweep(),
            Work::Job(Job::Reload(done)) => {
                shared.reload();
                call(done);
            }
            Work::Job(Job::Check(done)) => call(done),
        }
    }

    /// Gives a new transfer its lane: this worker's, or else the one with the fewest transfers.
    fn enter(&mut self, id: TransferId) -> usize {
        self.context.choose_lane();
        let lanes = &self.context.shared.pool.lanes;
        let number = self.context.lane.unwrap_or_else(|| {
            let numbers = 0..lanes.len();
            numbers
                .min_by_key(|number| lanes[*number].count())
                .unwrap_or(0)
        });
        lanes[number].enter(id);
        self.report(Report::Opened(id, number));
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
        self.context.shared.tell_progress(&mut transfer);
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
                    self.report(Report::Established(id));
                }
                self.park(Waiting::Transfer(transfer), until, lane);
            }
            Err(ending) => {
                self.context.shared.conclude(&mut transfer, ending);
                let _ = self.context.shared.pool.lanes[lane].abandon(id);
                self.report(Report::Ended {
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
        match self.context.shared.pool.lanes[lane].park(waiting, until) {
            Ok(true) => self.report(Report::Parked(id)),
            Ok(false) => {}
            Err(waiting) => {
                close(waiting);
                self.report(Report::Closed(id));
            }
        }
        // The runner of another lane may be held up, and the loop may not have seen before that
        // transfers wait for it.
        if own != Some(lane) {
            self.context.have_lanes_watched();
        }
        // The loop may have looked for parked transfers just before.
        if self.context.is_stopping() {
            self.context.shared.pool.lanes[lane].resume(id);
        }
    }

    /// Asks for the source of a request, and makes the transfer if it is there.
    fn resolve(&mut self, request: Box<PendingRequest>, lane: usize) {
        let is_stopping = self.context.is_stopping();
        match resolve(&self.context.shared, request, is_stopping) {
            Resolved::Pending(request) => {
                let until = request.until;
                self.park(Waiting::Request(request), Some(until), lane);
            }
            Resolved::Begun(transfer) => self.turn(transfer, lane),
            Resolved::Ended(request) => self.end_request(request, lane),
        }
    }

    /// A request has ended that never became a transfer.
    fn end_request(&mut self, request: Box<PendingRequest>, lane: usize) {
        let (id, answered) = (request.opening.id, now());
        let _ = self.context.shared.pool.lanes[lane].abandon(id);
        close(request);
        self.report(Report::Ended {
            id,
            is_proven: false,
            answered,
        });
    }

    /// Asks the store and makes the transfer, or a request that waits for its source; `None` when
    /// it has ended already, and that is reported.
    fn open(
        &mut self,
        (opening, port): Admitted,
        slot: StoreSlot,
        waker: &Waker,
    ) -> Option<Waiting> {
        if !opening.ask(now()) {
            return None;
        }
        let shared = &self.context.shared;
        let answer = match ask(shared, &opening, port, waker) {
            Ok(answer) => answer,
            Err(error) => {
                self.no_socket(opening, slot, error);
                return None;
            }
        };
        let (is_wanted, is_slow) = opening.answered();
        slot.give_back(is_slow);
        if !is_wanted {
            close(answer);
            self.report(Report::Closed(opening.id));
            return None;
        }
        answer
            .begin(shared, &opening, waker)
            .inspect_err(|answered| {
                self.report(Report::Ended {
                    id: opening.id,
                    is_proven: false,
                    answered: *answered,
                });
            })
            .ok()
    }

    /// There was no socket for a request, or no descriptor for its file.
    fn no_socket(&mut self, opening: Arc<AdmittedRequest>, slot: StoreSlot, error: io::Error) {
        let queued = opening.wait_again();
        let is_slow = queued.unwrap_or_else(|| opening.answered().1);
        slot.give_back(is_slow);
        self.report(match queued {
            Some(_) => Report::NoSocket(opening, error),
            None => Report::Closed(opening.id),
        });
    }
}

/// Calls what an embedder has left to be called when a job is done.
fn call(done: Done) {
    if guarded(done).is_none() {
        log::error!("a callback panicked after a job");
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
        let lane = &self.shared.pool.lanes[number];
        lane.is_run_by(self.queues.number).then_some((number, lane))
    }

    /// Runs a lane that has transfers and no runner, or else the free one with the fewest.
    fn choose_lane(&mut self) {
        if self.lane().is_some() {
            return;
        }
        let lanes = self.shared.pool.lanes.iter().enumerate();
        let free = lanes.filter(|(_, lane)| lane.is_free());
        let first = free.min_by_key(|(_, lane)| (lane.count() == 0, lane.count()));
        self.lane = first
            .filter(|(_, lane)| lane.claim(self.queues.number))
            .map(|(number, _)| number);
    }

    /// The loop notices where a turn or a store call blocks, unless the loop sleeps.
    fn have_lanes_watched(&self) {
        let is_watching = &self.shared.pool.is_watching;
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
            self.shared.pool.lanes[number].release(self.queues.number);
        }
    }

    /// True where the lane has other transfers, or is run by another worker.
    fn has_others(&self) -> bool {
        self.lane().is_none_or(|(_, lane)| lane.count() > 1)
    }

    /// True where the queues hold what this worker may take: while the store is full of workers, no
    /// requests.
    fn has_work_to_take(&self) -> bool {
        let PoolState {
            in_store,
            store_slots,
            idle,
            ..
        } = &self.shared.pool;
        let has_work = match in_store.load(Ordering::SeqCst) < *store_slots {
            true => self.queues.have_work(),
            false => !self.queues.jobs.is_empty(),
        };
        has_work || idle.is_closed()
    }
}
