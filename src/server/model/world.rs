//! Whole servers: the loop, its workers and lanes, requests that follow scripts, a handle.

use super::admitted::{AdmittedRequest, Asked, StoreCall};
use super::desk::Tid;
use super::endpoint::LaneAccess;
use super::lane::Lane;
use super::lanes::Lanes;
use super::mailbox::{Mail, mailbox};
use super::message::{Job, Message, Report};
use super::poller::{Poller, poller};
use super::pool::Pool;
use super::pool_state::PoolState;
use super::scheduler::Rng;
use super::script::{Deed, StoreScript};
use super::shared::Shared;
use super::sync::{Ordering, explore, now, thread};
use super::{clock, network, opening, record};
use crate::error::TransferError;
use crate::event::{Name, TransferId};
use crate::limits::{STORE_DEADLINE, STUCK_AFTER};
use crate::wire::{Direction, Mode, Options};
use shuttle::rand::RngCore;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// What a server has to do.
struct Plan {
    workers: usize,
    lanes: usize,
    capacity: usize,
    requests: BTreeMap<TransferId, RequestPlan>,
    /// When the handle asks for reloads.
    reloads: Vec<Duration>,
    /// When files that are not used are unmapped.
    sweeps: Vec<Duration>,
    /// When the server ends all transfers.
    stop: Option<Duration>,
    /// A worker panics: its reports are lost.
    is_deadly: bool,
}

struct RequestPlan {
    arrives: Duration,
    /// When the handle cancels it.
    cancel: Option<Duration>,
    store: StoreScript,
    script: Vec<Deed>,
}

impl Plan {
    fn random(rng: &mut Rng) -> Self {
        let requests = 1 + rng.below(5) as u64;
        let requests = 1 + rng.below(requests as usize) as u64;
        let requests = (1..=requests).map(|id| (TransferId(id), RequestPlan::random(id, rng)));
        let requests = requests.collect();
        let some = |rng: &mut Rng| (0..rng.below(3)).map(|_| moment(rng)).collect();
        Self {
            workers: 1 + rng.below(3),
            lanes: 1 + rng.below(2),
            capacity: 1 + rng.below(4),
            requests,
            reloads: some(rng),
            sweeps: some(rng),
            stop: rng.one_in(4).then(|| moment(rng)),
            is_deadly: false,
        }
    }

    /// The runner of a lane gets a packet when the loop has been watching in vain for a while, and
    /// blocks until the other transfer of the lane is over.
    fn quiet(rng: &mut Rng) -> Self {
        let request = |script| RequestPlan {
            arrives: Duration::ZERO,
            cancel: None,
            store: StoreScript::Answers,
            script,
        };
        let quiet = 5 * MS * (18 + rng.below(6) as u32);
        let one = vec![Deed::Block(quiet), Deed::HeldBy(TransferId(2))];
        let other = vec![Deed::Block(2 * quiet)];
        let requests = [
            (TransferId(1), request(one)),
            (TransferId(2), request(other)),
        ];
        Self {
            workers: 2,
            lanes: 1,
            capacity: 4,
            requests: requests.into(),
            reloads: Vec::new(),
            sweeps: Vec::new(),
            stop: None,
            is_deadly: false,
        }
    }

    /// The only worker has something to report when it blocks until that is heard.
    fn unsent(rng: &mut Rng) -> Self {
        let mut plan = Self::quiet(rng);
        let moment = MS * (1 + rng.below(3) as u32);
        let [one, two] = [1, 2].map(TransferId);
        let first = plan.requests.get_mut(&one).expect("it is planned");
        first.store = StoreScript::NoSocketAtFirst;
        first.arrives = moment;
        first.script.clear();
        let second = plan.requests.get_mut(&two).expect("it is planned");
        second.script = vec![Deed::Block(moment), Deed::HeldBy(one)];
        Self { workers: 1, ..plan }
    }

    /// The worker of the first transfer panics; the others are served.
    fn deadly(rng: &mut Rng) -> Self {
        let mut plan = Self::random(rng);
        let first = plan.requests.values_mut().next().expect("a request");
        first.store = StoreScript::Answers;
        first.script = vec![Deed::Block(moment(rng)), Deed::Die];
        for request in plan.requests.values_mut() {
            request.cancel = None;
            request.script.retain(|deed| !matches!(deed, Deed::Wait));
        }
        Self {
            stop: None,
            is_deadly: true,
            ..plan
        }
    }
}

impl RequestPlan {
    fn random(id: u64, rng: &mut Rng) -> Self {
        // None waits for a younger one, so that they do not wait for each other.
        let older = TransferId(1 + rng.below(id as usize) as u64);
        let is_oldest = older == TransferId(id);
        let store = match rng.below(16) {
            0 => StoreScript::Takes(moment(rng)),
            1 if rng.one_in(3) => StoreScript::Takes(STUCK_AFTER + 200 * MS),
            2 if !is_oldest => StoreScript::HeldBy(older),
            3 => StoreScript::Refuses,
            4 => StoreScript::Panics,
            5 => StoreScript::NoSocketAtFirst,
            6 | 7 => StoreScript::Later(moment(rng)),
            8 if rng.one_in(3) => StoreScript::Later(STORE_DEADLINE + 200 * MS),
            _ => StoreScript::Answers,
        };
        let deeds = rng.below(6);
        let deed = |rng: &mut Rng| match rng.below(16) {
            0 => Deed::Pause(moment(rng)),
            1 => Deed::Slice,
            2 => Deed::Held(moment(rng)),
            3 if rng.one_in(4) => Deed::Held(STUCK_AFTER + 200 * MS),
            4 | 5 if !is_oldest => Deed::HeldBy(older),
            6 => Deed::Complete,
            7 => Deed::Panic,
            8 | 9 => Deed::Source(moment(rng)),
            _ => Deed::Block(moment(rng) / 4),
        };
        let mut script: Vec<_> = (0..deeds).map(|_| deed(rng)).collect();
        let cancel = rng.one_in(6).then(|| moment(rng));
        if cancel.is_some() && rng.one_in(2) {
            script.push(Deed::Wait);
        }
        Self {
            arrives: moment(rng),
            script,
            cancel,
            store,
        }
    }
}

/// Up to 40 ms, often none.
fn moment(rng: &mut Rng) -> Duration {
    match rng.below(3) {
        0 => Duration::ZERO,
        1 => Duration::from_micros(rng.below(4_000) as u64),
        _ => Duration::from_micros(rng.below(40_000) as u64),
    }
}

struct Request {
    admitted: Arc<AdmittedRequest>,
    lane: Option<usize>,
    /// Why it is to end.
    failure: Option<TransferError>,
    is_over: bool,
    /// A worker will say that its socket is closed.
    is_open: bool,
}

/// The loop. The endpoint is tested elsewhere: this one does with workers and lanes what it does.
struct Loop {
    lanes: Lanes,
    mail: Mail<Message>,
    poller: Poller,
    begun: Instant,
    requests: BTreeMap<TransferId, Request>,
    arrivals: Vec<(Duration, TransferId)>,
    sweeps: Vec<Duration>,
    swept: usize,
    reloads: usize,
    stop: Option<Duration>,
    is_deadly: bool,
    /// Requests that have not arrived yet.
    cancelled_early: BTreeSet<TransferId>,
    rng: Rng,
}

fn serve(plan: Plan, rng: Rng) {
    record::reset();
    network::reset();
    opening::reset();
    let (poller, _, waker) = poller().expect("a poller");
    let (mailbox, mail) = mailbox(plan.capacity, waker.clone());
    let lanes = (0..plan.lanes).map(|_| Lane::new().expect("a lane"));
    let slots = plan.workers.div_ceil(2);
    let scripts = plan.requests.iter();
    let scripts = scripts.map(|(id, plan)| (*id, (plan.store, plan.script.clone())));
    let shared = Arc::new(Shared {
        pool: PoolState::new(plan.workers, slots, lanes.collect()),
        store_deadline: STORE_DEADLINE,
        waker,
        is_deadly: plan.is_deadly,
        scripts: scripts.collect(),
    });
    let handle = mailbox.clone();
    let pool = Pool::start(plan.workers, Arc::clone(&shared), mailbox).expect("a thread");
    let mut arrivals: Vec<_> = plan
        .requests
        .iter()
        .map(|(id, it)| (it.arrives, *id))
        .collect();
    arrivals.sort();
    let event_loop = Loop {
        lanes: Lanes { shared, pool },
        mail,
        poller,
        begun: now(),
        requests: BTreeMap::new(),
        arrivals,
        sweeps: plan.sweeps,
        swept: 0,
        reloads: plan.reloads.len(),
        stop: plan.stop,
        is_deadly: plan.is_deadly,
        cancelled_early: BTreeSet::new(),
        rng,
    };
    let mut orders: Vec<(Duration, Option<TransferId>)> = Vec::new();
    orders.extend(plan.reloads.iter().map(|time| (*time, None)));
    let cancels = plan.requests.iter();
    orders.extend(cancels.filter_map(|(id, plan)| Some((plan.cancel?, Some(*id)))));
    orders.sort();
    let handle = thread::spawn(move || {
        let begun = now();
        for (time, order) in orders {
            clock::sleep((begun + time).saturating_duration_since(now()));
            handle.post(match order {
                None => Message::Reload(Box::new(|| {})),
                Some(id) => Message::Cancel(id),
            });
        }
    });
    event_loop.run();
    handle.join().expect("no panic");
}

impl Loop {
    fn run(mut self) {
        loop {
            let timeout = self.mail.before_sleep(|| self.timeout());
            record::trace(|| format!("sleeps for {timeout:?}"));
            self.poller.wait(timeout);
            self.mail.after_sleep();
            self.read_mail();
            let time = now();
            self.begin(time);
            self.end(time);
            self.repeat(time);
            self.lanes.pool.adjust(time).expect("a thread");
            let reports = self.lanes.pool.take_reports();
            if !reports.is_empty() {
                self.read_mail();
                self.message(Message::Reports(reports));
            }
            if self.is_finished() {
                break;
            }
        }
        self.leave();
    }

    fn timeout(&self) -> Option<Duration> {
        let time = now();
        let arrival = self.arrivals.first().map(|(due, _)| self.begun + *due);
        let sweep = self.sweeps.first().map(|due| self.begun + *due);
        let stop = self.stop.map(|due| self.begun + due);
        let calls = self.requests.values().filter(|request| !request.is_over);
        let call = calls.filter_map(|request| match request.admitted.call() {
            StoreCall::Running { since, slow: false } if self.lanes.may_give_slot_away() => {
                Some(since + STUCK_AFTER)
            }
            StoreCall::Running { since, .. } => Some(since + STORE_DEADLINE),
            _ => None,
        });
        let call = call.min();
        let pool = self.lanes.pool.due(time);
        let times = [arrival, sweep, stop, call, pool];
        let next = times.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(time))
    }

    fn read_mail(&mut self) {
        while let Some(message) = self.mail.take() {
            self.message(message);
        }
    }

    /// Requests arrive, files are to be unmapped.
    fn begin(&mut self, time: Instant) {
        while self
            .sweeps
            .first()
            .is_some_and(|due| time >= self.begun + *due)
        {
            self.sweeps.remove(0);
            self.swept += 1;
            self.lanes.pool.job(Job::Sweep);
        }
        while let Some((due, id)) = self.arrivals.first().copied()
            && time >= self.begun + due
        {
            self.arrivals.remove(0);
            let asked = Asked {
                direction: Direction::Read,
                name: Name::new(b"file"),
                mode: Mode::Octet,
                options: Options::default(),
            };
            let tid = Tid {
                peer: ([127, 0, 0, 1], 1000).into(),
                local: ([127, 0, 0, 1], 69).into(),
            };
            let admitted = Arc::new(AdmittedRequest::new(id, tid, asked, time));
            self.lanes.pool.open(Arc::clone(&admitted), 0);
            let request = Request {
                admitted,
                lane: None,
                failure: self
                    .cancelled_early
                    .remove(&id)
                    .then_some(TransferError::Cancelled),
                is_over: false,
                is_open: false,
            };
            self.requests.insert(id, request);
        }
    }

    /// Ends what is to end, and store calls that take long.
    fn end(&mut self, time: Instant) {
        if self.stop.is_some_and(|due| time >= self.begun + due) {
            self.stop = None;
            // None may wait for a transfer that does not come any more.
            let arrivals = std::mem::take(&mut self.arrivals);
            arrivals.into_iter().for_each(|(_, id)| record::ended(id));
            self.lanes.end_turns();
            let alive = self
                .requests
                .values_mut()
                .filter(|request| !request.is_over);
            alive.for_each(|request| request.failure = Some(TransferError::Stopped));
            for id in self.requests.keys().copied().collect::<Vec<_>>() {
                self.end_one(id);
            }
        }
        for request in self.requests.values_mut() {
            let StoreCall::Running { since, slow } = request.admitted.call() else {
                continue;
            };
            if request.is_over {
                continue;
            }
            if time >= since + STUCK_AFTER
                && !slow
                && self.lanes.may_give_slot_away()
                && request.admitted.is_slow()
            {
                self.lanes.give_slot_away();
            }
            if time >= since + STORE_DEADLINE && request.admitted.abandon() {
                request.is_open = true;
                request.finish();
                record::ended(request.admitted.id);
            }
        }
    }

    /// Now and then a peer asks again before it was answered.
    fn repeat(&mut self, time: Instant) {
        if !self.rng.one_in(8) {
            return;
        }
        let id = TransferId(1 + self.rng.below(8) as u64);
        let request = self.requests.get(&id).filter(|request| !request.is_over);
        if let Some(lane) = request.and_then(|request| request.lane) {
            self.lanes.has_unread(lane, id);
            self.lanes.repeat_request(lane, id, time);
        }
    }

    /// Ends one request that is to end, if it can be now.
    fn end_one(&mut self, id: TransferId) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if request.is_over {
            return;
        }
        let Some(failure) = request.failure.clone() else {
            return;
        };
        if let Some(lane) = request.lane {
            if self.lanes.end(lane, id, failure).is_some() {
                request.is_open = true;
                request.finish();
            }
        } else if request.admitted.give_up() {
            request.finish();
            record::ended(id);
        }
    }

    fn message(&mut self, message: Message) {
        record::trace(|| match &message {
            Message::Cancel(id) => format!("{id:?} is to end"),
            _ => String::from("a message"),
        });
        match message {
            Message::Reports(reports) => reports.into_iter().for_each(|it| self.report(it)),
            Message::Reload(done) => self.lanes.pool.job(Job::Reload(done)),
            Message::Check(done) => self.lanes.pool.job(Job::Check(done)),
            Message::Cancel(id) => match self.requests.get_mut(&id) {
                Some(request) => {
                    request.failure.get_or_insert(TransferError::Cancelled);
                    self.end_one(id);
                }
                None => _ = self.cancelled_early.insert(id),
            },
            Message::Stop(_) => unreachable!("no handle stops this server"),
        }
    }

    fn report(&mut self, report: Report) {
        record::trace(|| match &report {
            Report::Opened(id, lane) => format!("{id:?} was opened in lane {lane}"),
            Report::Parked(id) => format!("{id:?} is parked"),
            Report::Ended { id, .. } => format!("{id:?} has ended"),
            Report::Closed(id) => format!("{id:?} is closed"),
            Report::Left(number) => format!("worker {number} has left"),
            _ => String::from("another report"),
        });
        match report {
            Report::Opened(id, lane) => {
                let request = self.requests.get_mut(&id).expect("it was admitted");
                request.lane = Some(lane);
                if !request.is_over && request.failure.is_some() {
                    self.lanes.recall(lane, id);
                }
            }
            Report::Parked(id) => self.end_one(id),
            Report::Established(_) => {}
            Report::Complete(id) => {
                // It makes room for others: sometimes at once.
                let request = self.requests.get_mut(&id).expect("it was admitted");
                if id.0 % 2 == 0 && !request.is_over {
                    request.is_open = true;
                    request.finish();
                    self.lanes.abandon(id);
                }
            }
            Report::NoSocket(opening, _) => {
                let id = opening.id;
                self.lanes.pool.open(opening, 0);
                self.end_one(id);
            }
            Report::Ended { id, .. } => {
                let request = self.requests.get_mut(&id).expect("it was admitted");
                match request.is_over {
                    // It came to its end before it was parked.
                    true if request.is_open => request.is_open = false,
                    _ => request.finish(),
                }
            }
            Report::Closed(id) => {
                let request = self.requests.get_mut(&id).expect("it was admitted");
                assert!(request.is_over && request.is_open, "{id:?} was closed");
                request.is_open = false;
            }
            Report::Left(number) => self.lanes.pool.left(number),
        }
    }

    fn is_finished(&self) -> bool {
        self.arrivals.is_empty()
            && self.sweeps.is_empty()
            && self.requests.values().all(|it| self.is_gone(it))
            && record::sweeps() == self.swept
            && record::reloads() == self.reloads
    }

    fn is_gone(&self, request: &Request) -> bool {
        match self.is_deadly {
            true => request.is_over || record::ends(request.admitted.id) > 0,
            false => request.is_over && !request.is_open,
        }
    }

    /// Nothing may be left behind.
    fn leave(self) {
        let Lanes { shared, pool } = self.lanes;
        if self.is_deadly {
            // It is one that does not say that it goes.
            let left = pool.close(&self.mail, 2 * STUCK_AFTER);
            assert!(left >= 1);
            return;
        }
        let left = pool.close(&self.mail, clock::NEVER);
        assert_eq!(left, 0, "workers are left behind");
        for (id, request) in &self.requests {
            assert_eq!(
                record::ends(*id),
                1,
                "{id:?} has ended {:?}",
                request.admitted
            );
        }
        for lane in shared.pool.lanes.iter() {
            assert_eq!((lane.count(), lane.has_parked()), (0, false));
            assert!(lane.is_free(), "a worker that has left runs a lane");
        }
        assert_eq!(shared.pool.in_store.load(Ordering::SeqCst), 0);
        assert_eq!(shared.pool.slow_calls.load(Ordering::SeqCst), 0);
    }
}

impl Request {
    fn finish(&mut self) {
        assert!(!self.is_over, "it ends once");
        self.is_over = true;
    }
}

#[test]
fn no_schedule_leaves_a_transfer_or_a_job_behind() {
    explore(|| {
        let mut rng = Rng(shuttle::rand::thread_rng().next_u64());
        serve(Plan::random(&mut rng), rng);
    });
}

#[test]
fn a_worker_that_panics_holds_up_its_own_transfer_only() {
    explore(|| {
        let mut rng = Rng(shuttle::rand::thread_rng().next_u64());
        serve(Plan::deadly(&mut rng), rng);
    });
}

#[test]
fn a_watch_that_ends_overlooks_no_runner() {
    explore(|| {
        let mut rng = Rng(shuttle::rand::thread_rng().next_u64());
        serve(Plan::quiet(&mut rng), rng);
    });
}

#[test]
fn reports_of_a_worker_that_blocks_reach_the_loop() {
    explore(|| {
        let mut rng = Rng(shuttle::rand::thread_rng().next_u64());
        serve(Plan::unsent(&mut rng), rng);
    });
}
