//! A whole server in virtual time: the endpoint, the tables of the lanes, threads under a seeded
//! scheduler, and the real machines; clients of several kinds, a store that is slow, hangs, refuses
//! or panics, sources and sinks that have or take nothing until they are woken, and a network that
//! loses packets.
//!
//! `SEEDS=1000000 cargo test --release --lib whole_servers` runs more worlds, from `FIRST` on;
//! `SEED=17 TRACE=1` shows one.

use super::super::*;
use crate::limits::DALLY;
use crate::proto::{Agreed, Outcome, Policy, Receiver, Sender, Step, Verdict};
use crate::server::lane::Table;
use crate::transfer;
use std::collections::{BTreeMap, BTreeSet};

const WORLDS: u64 = 2_000;
const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);
const BLKSIZE: usize = 512;
/// A world that lasts longer has got stuck.
const LONG: Duration = Duration::from_secs(3600);
/// Packets that a client repeats without an answer.
const PATIENCE: u32 = 24;
/// A turn that blocks loses its lane after this.
const HELD_UP: Duration = Duration::from_millis(15);

/// A generator of our own (splitmix64), so that a seed means the same for ever.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + Duration::from_nanos(self.below((high - low).as_nanos() as u64))
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Fetches a file of this many blocks.
    Reads(u64),
    /// Stores one.
    Writes(u64),
    /// Sends its request, and no more.
    Silent,
    /// Acknowledges one block, and no more.
    AckOnce,
    /// Breaks off with an ERROR behind this many blocks.
    BreaksOff(u64),
}

#[derive(Debug)]
struct Client {
    habit: Habit,
    name: &'static [u8],
    /// A client that starts again takes another one.
    port: u16,
    tid: Option<TransferId>,
    /// Blocks that it has, or that were acknowledged.
    blocks: u64,
    /// The most it has had in any attempt.
    most: u64,
    /// Requests or packets that it may still repeat.
    patience: u32,
    is_served: bool,
    /// It was told an ERROR, or has given up.
    is_over: bool,
    /// Counts its timers: an older one means nothing.
    timer: u64,
}

impl Client {
    /// A client that gets further is patient again.
    fn encourage(&mut self) {
        if self.blocks > self.most {
            (self.most, self.patience) = (self.blocks, PATIENCE);
        }
    }
}

enum Machine {
    /// The store has answered with a source that is not there yet.
    Waits(Arc<AdmittedRequest>),
    Sends(Box<Sender>, u64),
    Receives(Box<Receiver>),
}

/// A transfer as the lanes hold it.
struct Sim {
    id: TransferId,
    tid: Tid,
    machine: Machine,
    answered: Instant,
    told_end: u64,
    /// Its end was reported.
    is_concluded: bool,
    /// The block that the source does not have, or the sink does not take, and since when; 0 stands
    /// for the source itself.
    pending: Option<(u64, Instant)>,
    /// All blocks of an upload have come, and the sink has not stored them all.
    is_whole: bool,
}

enum Turn {
    Quiet(Instant),
    Done,
}

/// What a thread does until an instant.
enum Task {
    Turn(usize, Sim, Turn),
    Store(Arc<AdmittedRequest>, u16),
    Close(TransferId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Request(usize),
    ToTransfer(TransferId, u16, Kind),
    ToClient(usize, u16, TransferId, Kind, u64),
    Timer(usize, u64),
    /// The source of a transfer has blocks up to this one, and its waker is called.
    Wake(TransferId, u64),
    Cancel(u64),
    Stop(bool),
    Mail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Data(bool),
    Ack,
    Error,
}

/// The lanes, the threads, and what passes between them and the network.
struct Server {
    lanes: Vec<Table<Sim>>,
    /// Unread packets, by transfer: its socket.
    sockets: BTreeMap<TransferId, VecDeque<(u16, Kind)>>,
    threads: Vec<Option<(Instant, Instant, Task)>>,
    openings: VecDeque<(Arc<AdmittedRequest>, u16)>,
    jobs: VecDeque<TransferId>,
    mail: Vec<Report>,
    /// Packets that leave.
    sent: Vec<(Tid, TransferId, Kind, u64)>,
    ends: BTreeMap<TransferId, u32>,
    ended: BTreeMap<TransferId, Instant>,
    /// Blocks that a source has, where it does not have all.
    there: BTreeMap<TransferId, u64>,
    store_deadline: Duration,
    now: Instant,
    completed: BTreeSet<TransferId>,
    in_store: usize,
    store_slots: usize,
    slow_calls: usize,
    is_stopping: bool,
}

impl Server {
    fn conclude(&mut self, id: TransferId) {
        *self.ends.entry(id).or_default() += 1;
        self.ended.insert(id, self.now);
    }

    /// As [`Shared::conclude`](crate::server::shared::Shared::conclude), once for each transfer.
    fn conclude_transfer(&mut self, sim: &mut Sim) {
        if !std::mem::replace(&mut sim.is_concluded, true) {
            self.conclude(sim.id);
        }
    }

    fn is_unread(&self, id: TransferId) -> bool {
        self.sockets.get(&id).is_some_and(|queue| !queue.is_empty())
    }

    /// The last block that a source has, or that a sink takes.
    fn there(&self, id: TransferId) -> u64 {
        self.there.get(&id).copied().unwrap_or(u64::MAX)
    }
}

impl Sim {
    fn is_established(&self) -> bool {
        match &self.machine {
            Machine::Waits(_) => false,
            Machine::Sends(machine, _) => machine.is_proven(),
            Machine::Receives(machine) => machine.is_proven(),
        }
    }

    fn is_complete(&self) -> bool {
        match &self.machine {
            Machine::Waits(_) | Machine::Sends(..) => false,
            Machine::Receives(machine) => machine.is_complete(),
        }
    }

    /// True while its sink does not take what lies unread, or has not stored all.
    fn waits_for_sink(&self, server: &Server) -> bool {
        match &self.machine {
            Machine::Receives(machine) => {
                let block = machine.received() + u64::from(!self.is_whole);
                (self.is_whole || !machine.is_complete()) && block > server.there(self.id)
            }
            _ => false,
        }
    }

    /// The turn of a transfer whose sink does not take more.
    fn wait_for_sink(&mut self, server: &mut Server, now: Instant) -> Option<Turn> {
        if !self.waits_for_sink(server) {
            return None;
        }
        let Machine::Receives(machine) = &mut self.machine else {
            return None;
        };
        let (block, over) = (machine.received(), machine.stalled(now));
        match self.wait_for_source(block, server.store_deadline, now) {
            Some(until) => Some(Turn::Quiet(over.map_or(until, |over| over.min(until)))),
            None => {
                server.sent.push((self.tid, self.id, Kind::Error, 0));
                Some(Turn::Done)
            }
        }
    }

    /// Its source does not have this block: until when the transfer waits, if it does.
    fn wait_for_source(&mut self, block: u64, deadline: Duration, now: Instant) -> Option<Instant> {
        let since = match self.pending {
            Some((missing, since)) if missing == block => since,
            _ => now,
        };
        self.pending = Some((block, since));
        Some(since + deadline).filter(|until| now < *until)
    }

    /// The answer of the store, where it was not there at once.
    fn resolve(&mut self, server: &mut Server, now: Instant) -> Option<Turn> {
        let Machine::Waits(opening) = &self.machine else {
            return None;
        };
        let opening = Arc::clone(opening);
        let is_there = server.there(self.id) > 0;
        let until = self.wait_for_source(0, server.store_deadline, now);
        if is_there && opening.asked.name.as_bytes() != b"denied" {
            self.machine = sends(&opening, now);
            return None;
        }
        match until.filter(|_| !is_there) {
            Some(until) => Some(Turn::Quiet(until)),
            None => {
                server.sent.push((self.tid, self.id, Kind::Error, 0));
                Some(Turn::Done)
            }
        }
    }

    /// One turn, as [`Transfer::run`](crate::transfer::Transfer::run) has it.
    fn turn(&mut self, server: &mut Server, now: Instant) -> Turn {
        if server.is_stopping {
            return Turn::Done;
        }
        if let Some(turn) = self.resolve(server, now) {
            return turn;
        }
        if let Some(turn) = self.wait_for_sink(server, now) {
            return turn;
        }
        while let Some((block, kind)) = server
            .sockets
            .get_mut(&self.id)
            .and_then(VecDeque::pop_front)
        {
            let payload = [0; BLKSIZE];
            let packet = match kind {
                Kind::Ack => Packet::Ack { block },
                Kind::Data(last) => Packet::Data {
                    block,
                    payload: &payload[..if last { 100 } else { BLKSIZE }],
                },
                Kind::Error => Packet::Error {
                    code: ErrorCode(0),
                    message: b"",
                },
            };
            match &mut self.machine {
                Machine::Waits(_) => unreachable!("it was resolved"),
                Machine::Sends(machine, _) => machine.handle(&packet, now),
                Machine::Receives(machine) => {
                    self.is_whole |= machine.handle(&packet, now) == Verdict::StoreLast;
                }
            }
            if self.waits_for_sink(server) {
                break;
            }
        }
        loop {
            if self.is_whole {
                if let Some(turn) = self.wait_for_sink(server, now) {
                    return turn;
                }
                self.is_whole = false;
            }
            let step = match &mut self.machine {
                Machine::Waits(_) => unreachable!("it was resolved"),
                Machine::Sends(machine, _) => machine.poll(now),
                Machine::Receives(machine) => machine.poll(now),
            };
            if let Step::Data { first, .. } = step
                && first > server.there(self.id)
            {
                let Some(until) = self.wait_for_source(first, server.store_deadline, now) else {
                    server.sent.push((self.tid, self.id, Kind::Error, 0));
                    return Turn::Done;
                };
                if let Machine::Sends(machine, _) = &mut self.machine {
                    let over = machine.stalled(now);
                    return Turn::Quiet(over.map_or(until, |over| over.min(until)));
                }
            }
            let there = server.there(self.id);
            let mut say = |kind, block| server.sent.push((self.tid, self.id, kind, block));
            match (&mut self.machine, step) {
                (_, Step::Wait(until)) => {
                    let waits = self.wait_for_sink(server, now);
                    return waits.unwrap_or(Turn::Quiet(until.max(now + US)));
                }
                (_, Step::Done(outcome)) => {
                    if outcome == Outcome::Complete {
                        server.completed.insert(self.id);
                    }
                    return Turn::Done;
                }
                (Machine::Sends(machine, last), Step::Data { first, end }) => {
                    let end = end.min(*last + 1).min(there.saturating_add(1));
                    for block in first..end {
                        say(Kind::Data(block == *last), block);
                    }
                    machine.sent(end, now);
                    if end > self.told_end {
                        (self.told_end, self.answered) = (end, now);
                    }
                }
                (Machine::Receives(machine), Step::Ack(block)) => {
                    say(Kind::Ack, block);
                    machine.sent(now);
                    if block + 1 > self.told_end {
                        (self.told_end, self.answered) = (block + 1, now);
                    }
                }
                (Machine::Receives(machine), Step::Open) => {
                    say(Kind::Ack, 0);
                    machine.sent(now);
                }
                (Machine::Sends(machine, _), Step::Open) => machine.opened(now),
                (Machine::Receives(machine), Step::Error(..)) => {
                    say(Kind::Error, 0);
                    machine.sent(now);
                }
                (_, step) => unreachable!("{step:?}"),
            }
        }
    }
}

/// The sending end of an RRQ.
fn sends(opening: &AdmittedRequest, now: Instant) -> Machine {
    let (agreed, policy) = (Agreed::default(), Policy::default());
    let last = last_block(opening);
    let machine = Sender::answering(&agreed, false, Some(last), &policy, now);
    Machine::Sends(Box::new(machine), last)
}

fn last_block(opening: &AdmittedRequest) -> u64 {
    1 + (opening.tid.peer.port() as u64 + opening.id.0) % 30
}

impl LaneAccess for Server {
    fn facts(&self, lane: usize, id: TransferId, now: Instant) -> Option<Facts> {
        let sim = self.lanes[lane].seats.get(&id)?.transfer.as_ref()?;
        let (moved, blocks, is_silent) = match &sim.machine {
            Machine::Waits(_) => (sim.answered, 0, false),
            Machine::Sends(it, _) if it.is_stalled() => (now, it.acked(), it.is_silent(now)),
            Machine::Sends(it, _) => (it.moved(), it.acked(), it.is_silent(now)),
            Machine::Receives(it) if it.is_stalled() => (now, it.received(), it.is_silent(now)),
            Machine::Receives(it) => (it.moved(), it.received(), it.is_silent(now)),
        };
        Some(Facts {
            is_complete: sim.is_complete(),
            is_established: sim.is_established(),
            is_silent,
            answered: sim.answered,
            moved: (moved, blocks),
        })
    }

    fn has_unread(&self, lane: usize, id: TransferId) -> bool {
        let seat = self.lanes[lane].seats.get(&id);
        let waits = seat
            .and_then(|seat| seat.transfer.as_ref())
            .is_some_and(|sim| sim.waits_for_sink(self));
        !waits && self.is_unread(id)
    }

    fn repeat_request(&mut self, lane: usize, id: TransferId, now: Instant) -> Option<bool> {
        let sim = self.lanes[lane].get(id)?;
        let is_answered = match &mut sim.machine {
            Machine::Waits(_) => false,
            Machine::Sends(machine, _) => machine.request_repeated(now),
            Machine::Receives(machine) => machine.request_repeated(now),
        };
        self.lanes[lane].recall(id, false);
        Some(is_answered)
    }

    fn recall(&mut self, lane: usize, id: TransferId) {
        self.lanes[lane].recall(id, true);
    }

    fn end(&mut self, lane: usize, id: TransferId, _: TransferError) -> Option<Instant> {
        if self.lanes[lane].get(id).is_none() {
            self.lanes[lane].recall(id, true);
            return None;
        }
        let mut sim = self.lanes[lane].remove(id).flatten()?;
        if sim.is_complete() {
            self.completed.insert(id);
        }
        self.conclude_transfer(&mut sim);
        self.jobs.push_back(id);
        Some(sim.answered)
    }

    fn abandon(&mut self, id: TransferId) {
        for lane in &mut self.lanes {
            if let Some(Some(sim)) = lane.remove(id) {
                assert!(sim.is_concluded, "{id} was abandoned before its end");
                self.jobs.push_back(id);
            }
        }
    }

    fn end_turns(&mut self) {
        self.is_stopping = true;
    }

    fn may_give_slot_away(&self) -> bool {
        self.slow_calls < 4
    }

    fn give_slot_away(&mut self) {
        self.slow_calls += 1;
        self.in_store -= 1;
    }

    fn is_hopeless(&self) -> bool {
        self.threads.iter().all(Option::is_some)
    }
}

struct World {
    seed: u64,
    rng: Rng,
    now: Instant,
    endpoint: Endpoint,
    server: Server,
    clients: Vec<Client>,
    events: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    happened: u64,
    quota: Quota,
    loss: u64,
    latency: Duration,
    /// One in this many sockets is refused; 0 for none.
    no_socket: u64,
    asked: BTreeSet<TransferId>,
    /// Transfers, not requests, that were cancelled, and when.
    cancelled: Vec<(TransferId, Instant)>,
    /// The listening socket is closed.
    is_closed: bool,
    is_finished: bool,
    has_stop: bool,
    has_cancels: bool,
    has_slow_store: bool,
    trace: u64,
    show: bool,
}

impl World {
    fn new(seed: u64, show: bool) -> Self {
        let mut rng = Rng(seed);
        let now = transfer::now();
        let lanes = 1 + rng.below(3) as usize;
        let threads = lanes + rng.below(4) as usize;
        let count = 1 + match rng.below(3) {
            0 => rng.below(6),
            1 => rng.below(40),
            _ => rng.below(200),
        };
        let transfers = 4 + rng.below(120) as usize;
        let quota = Quota {
            transfers,
            per_client: None,
            half_open: 2 + rng.below(transfers as u64) as usize,
            half_open_per_client: None,
            half_open_per_network: None,
        };
        let supply = match rng.below(3) {
            0 => Supply::Range(40_000..=40_004 + rng.below(60) as u16),
            _ => Supply::System(10 + rng.below(1000) as usize),
        };
        let config = Config {
            quota,
            supply,
            access: Gate::default(),
            takes_uploads: !rng.one_in(4),
            answer_broadcast: false,
            store_deadline: rng.between(Duration::from_secs(2), Duration::from_secs(12)),
        };
        let stores = rng.below(6);
        let store_deadline = config.store_deadline;
        let mut world = Self {
            seed,
            now,
            endpoint: Endpoint::new(config, rng.next(), now),
            server: Server {
                lanes: (0..lanes).map(|_| Table::default()).collect(),
                sockets: BTreeMap::new(),
                threads: (0..threads).map(|_| None).collect(),
                openings: VecDeque::new(),
                jobs: VecDeque::new(),
                mail: Vec::new(),
                sent: Vec::new(),
                ends: BTreeMap::new(),
                ended: BTreeMap::new(),
                there: BTreeMap::new(),
                store_deadline,
                now,
                completed: BTreeSet::new(),
                in_store: 0,
                store_slots: threads.div_ceil(2),
                slow_calls: 0,
                is_stopping: false,
            },
            clients: Vec::new(),
            events: BinaryHeap::new(),
            happened: 0,
            quota,
            loss: if rng.one_in(2) { 0 } else { 10 + rng.below(90) },
            latency: rng.between(10 * US, 5 * MS),
            no_socket: if rng.one_in(5) { 2 + rng.below(10) } else { 0 },
            asked: BTreeSet::new(),
            cancelled: Vec::new(),
            is_closed: false,
            is_finished: false,
            has_stop: rng.one_in(3),
            has_cancels: rng.one_in(4),
            has_slow_store: stores <= 2,
            trace: 0,
            show,
            rng,
        };
        for number in 0..count as usize {
            let habit = match world.rng.below(10) {
                0 | 1 => Habit::Silent,
                2 => Habit::AckOnce,
                3 => Habit::BreaksOff(world.rng.below(4)),
                4 | 5 => Habit::Writes(1 + world.rng.below(12)),
                _ => Habit::Reads(1 + world.rng.below(30)),
            };
            let name: &[u8] = match (stores, world.rng.below(12)) {
                (_, 4 | 5) => b"later",
                (_, 6 | 7) => b"stalls",
                (0..=2, 8) => b"never",
                (0..=3, 9) => b"denied",
                (0, 0) => b"hangs",
                (0..=2, 1) => b"slow",
                (0..=3, 2) => b"missing",
                (0..=3, 3) => b"panics",
                _ => b"file",
            };
            world.clients.push(Client {
                habit,
                name,
                port: 2000,
                tid: None,
                blocks: 0,
                most: 0,
                patience: PATIENCE,
                is_served: false,
                is_over: false,
                timer: 0,
            });
            let at = world.rng.between(Duration::ZERO, Duration::from_secs(3));
            world.happen(at, Happening::Request(number));
        }
        if world.has_stop {
            let at = world.rng.between(Duration::ZERO, Duration::from_secs(6));
            let is_drain = world.rng.one_in(2);
            world.happen(at, Happening::Stop(is_drain));
        }
        if world.has_cancels {
            for _ in 0..count {
                let at = world.rng.between(Duration::ZERO, Duration::from_secs(4));
                let id = 1 + world.rng.below(count);
                world.happen(at, Happening::Cancel(id));
            }
        }
        world
    }

    fn happen(&mut self, after: Duration, what: Happening) {
        self.happened += 1;
        let entry = (self.now + after, self.happened, what);
        self.events.push(Reverse(entry));
    }

    fn tid(number: usize, port: u16) -> Tid {
        let ip = [10, 0, (number / 250) as u8, 1 + (number % 250) as u8];
        Tid {
            peer: (ip, port).into(),
            local: ([10, 9, 9, 9], 69).into(),
        }
    }

    /// Runs until nothing happens any more; returns a digest of all that has happened.
    fn run(mut self) -> u64 {
        let start = self.now;
        loop {
            self.threads();
            self.leave();
            let lanes = self.server.lanes.iter();
            let times = [
                self.events.peek().map(|Reverse((at, _, _))| *at),
                self.endpoint
                    .next_timeout(self.now)
                    .filter(|_| !self.is_finished),
                lanes.filter_map(Table::due).min(),
                self.server
                    .threads
                    .iter()
                    .flatten()
                    .map(|task| task.1)
                    .min(),
            ];
            let Some(next) = times.into_iter().flatten().min() else {
                break;
            };
            self.now = self.now.max(next);
            self.server.now = self.now;
            assert!(self.now < start + LONG, "it never ends");
            for number in 0..self.server.threads.len() {
                let is_due = |task: &(Instant, Instant, Task)| task.1 <= self.now;
                if self.server.threads[number].as_ref().is_some_and(is_due) {
                    let (_, _, task) = self.server.threads[number].take().expect("a task");
                    self.done(task);
                }
            }
            if self
                .events
                .peek()
                .is_some_and(|Reverse((at, _, _))| *at <= self.now)
            {
                let Reverse((_, _, what)) = self.events.pop().expect("an event");
                self.note(&what);
                self.take(what);
            }
            for lane in &mut self.server.lanes {
                if lane.due().is_some_and(|due| due <= self.now) {
                    lane.expire(self.now);
                }
            }
            self.turn_of_the_loop();
        }
        self.check();
        self.trace
    }

    fn note(&mut self, what: &impl std::fmt::Debug) {
        let text = format!("{what:?}");
        if self.show {
            println!("{:?} {text}", self.happened);
        }
        for byte in text.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn turn_of_the_loop(&mut self) {
        if self.is_finished {
            return;
        }
        self.endpoint.timeout(self.now, &mut self.server);
        self.act();
        self.is_finished = self.endpoint.is_finished(self.now, &mut self.server);
        self.act();
        assert!(
            self.endpoint.len() <= self.quota.transfers,
            "too many transfers"
        );
        assert!(self.server.in_store <= self.server.store_slots);
    }

    fn act(&mut self) {
        while let Some(action) = self.endpoint.poll_action() {
            match action {
                Action::Open(opening, port) => self.server.openings.push_back((opening, port)),
                Action::Reply(tid, _) | Action::ReplyWithin(tid, _) => {
                    self.server.sent.push((tid, TransferId(0), Kind::Error, 0));
                }
                Action::Report(event) => {
                    let end = match &event {
                        Event::Request { id, .. } => {
                            assert!(self.asked.insert(*id), "a number was used twice");
                            None
                        }
                        Event::Refused { id, .. } => *id,
                        Event::Failed(summary, _) => Some(summary.id),
                        _ => None,
                    };
                    if let Some(id) = end {
                        self.server.conclude(id);
                    }
                }
                Action::Warn(..) => {}
            }
        }
    }

    // ---- threads ----------------------------------------------------------------------------

    /// Gives idle threads something to do, in any order.
    fn threads(&mut self) {
        let count = self.server.threads.len();
        let first = self.rng.below(count as u64) as usize;
        for number in (0..count).map(|number| (first + number) % count) {
            if self.server.threads[number].is_none()
                && let Some((time, task)) = self.task()
            {
                self.server.threads[number] = Some((self.now, self.now + time, task));
            }
        }
    }

    fn task(&mut self) -> Option<(Duration, Task)> {
        let quick = self.rng.between(5 * US, 200 * US);
        if let Some(id) = self.server.jobs.pop_front() {
            return Some((quick, Task::Close(id)));
        }
        if self.server.in_store < self.server.store_slots
            && (self.rng.one_in(2) || !self.has_ready())
        {
            while let Some((opening, port)) = self.server.openings.pop_front() {
                if opening.ask(self.now) {
                    self.server.in_store += 1;
                    let time = match opening.asked.name.as_bytes() {
                        b"hangs" => Duration::from_secs(40),
                        b"slow" => self.rng.between(10 * MS, Duration::from_secs(3)),
                        _ => quick,
                    };
                    return Some((time, Task::Store(opening, port)));
                }
            }
        }
        // A lane has one runner, unless that is held up.
        let is_run = |lane: usize| {
            let tasks = self.server.threads.iter().flatten();
            let turns = tasks.filter(|(since, _, task)| {
                matches!(task, Task::Turn(other, ..) if *other == lane)
                    && self.now < *since + HELD_UP
            });
            turns.count() > 0
        };
        let lanes = self.server.lanes.len();
        let lane =
            (0..lanes).find(|lane| self.server.lanes[*lane].has_ready() && !is_run(*lane))?;
        let next = match self.server.lanes[lane].next() {
            Some(sim) => Some(sim),
            None => {
                self.server.lanes[lane].expire(self.now);
                self.server.lanes[lane].next()
            }
        };
        let mut sim = next?;
        let turn = sim.turn(&mut self.server, self.now);
        let time = match self.rng.one_in(200) {
            true => self.rng.between(10 * MS, 300 * MS), // a page that is not in memory
            false => quick / 4,
        };
        Some((time, Task::Turn(lane, sim, turn)))
    }

    fn has_ready(&self) -> bool {
        self.server.lanes.iter().any(Table::has_ready)
    }

    fn done(&mut self, task: Task) {
        match task {
            Task::Close(id) => {
                self.server.sockets.remove(&id);
                self.server.mail.push(Report::Closed(id));
            }
            Task::Store(opening, port) => self.answered(opening, port),
            Task::Turn(lane, sim, turn) => self.turned(lane, sim, turn),
        }
        if !self.server.mail.is_empty() {
            let late = self.rng.between(Duration::ZERO, 300 * US);
            self.happen(late, Happening::Mail);
        }
    }

    fn answered(&mut self, opening: Arc<AdmittedRequest>, _port: u16) {
        let id = opening.id;
        let give_back = |server: &mut Server, is_slow: bool| match is_slow {
            true => server.slow_calls -= 1,
            false => server.in_store -= 1,
        };
        if self.no_socket > 0 && self.rng.one_in(self.no_socket) {
            let queued = opening.wait_again();
            give_back(
                &mut self.server,
                queued.unwrap_or_else(|| opening.answered().1),
            );
            self.server.mail.push(match queued {
                Some(_) => Report::NoSocket(opening, crate::sys::no_descriptor()),
                None => Report::Closed(id),
            });
            return;
        }
        let (is_wanted, is_slow) = opening.answered();
        give_back(&mut self.server, is_slow);
        if !is_wanted {
            return self.server.mail.push(Report::Closed(id));
        }
        if matches!(opening.asked.name.as_bytes(), b"missing" | b"panics") {
            self.server.sent.push((opening.tid, id, Kind::Error, 0));
            self.server.conclude(id);
            return self.server.mail.push(Report::Ended {
                id,
                is_proven: false,
                answered: self.now,
            });
        }
        let name = opening.asked.name.clone();
        let machine = match (opening.asked.direction, name.as_bytes()) {
            (Direction::Read, b"later" | b"never" | b"denied") => {
                self.server.there.insert(id, 0);
                Machine::Waits(Arc::clone(&opening))
            }
            (Direction::Read, b"stalls") => {
                let first = self.rng.below(last_block(&opening));
                self.server.there.insert(id, first);
                sends(&opening, self.now)
            }
            (Direction::Read, _) => sends(&opening, self.now),
            (Direction::Write, name) => {
                if matches!(name, b"later" | b"stalls" | b"never") {
                    let first = match name {
                        b"stalls" => self.rng.below(8),
                        _ => 0,
                    };
                    self.server.there.insert(id, first);
                }
                let (agreed, policy) = (Agreed::default(), Policy::default());
                let machine = Receiver::answering(&agreed, DALLY, &policy, self.now);
                Machine::Receives(Box::new(machine))
            }
        };
        if self.server.there.contains_key(&id) && name.as_bytes() != b"never" {
            let last = match opening.asked.direction {
                Direction::Read => last_block(&opening),
                Direction::Write => 20, // more than any client sends
            };
            self.wake_some_time(id, last);
        }
        let lane = self.rng.below(self.server.lanes.len() as u64) as usize;
        self.server.lanes[lane].enter(id, self.now);
        self.server.sockets.insert(id, VecDeque::new());
        self.server.mail.push(Report::Opened(id, lane));
        let sim = Sim {
            id,
            tid: opening.tid,
            machine,
            answered: self.now,
            told_end: 1,
            is_concluded: false,
            pending: None,
            is_whole: false,
        };
        // Its first turn, by this thread.
        self.turned(lane, sim, Turn::Quiet(self.now));
    }

    /// The source has its blocks in parts, and its waker is called at any time, also for nothing.
    fn wake_some_time(&mut self, id: TransferId, last: u64) {
        let mut there = self.server.there(id);
        let mut time = Duration::ZERO;
        while there < last {
            time += match self.rng.below(3) {
                0 => self.rng.between(Duration::ZERO, 500 * US),
                1 => self.rng.between(Duration::ZERO, 20 * MS),
                _ => self.rng.between(Duration::ZERO, 700 * MS),
            };
            there += self.rng.below(1 + 3 * last);
            self.happen(time, Happening::Wake(id, there));
        }
        if self.rng.one_in(4) {
            let late = self.rng.between(Duration::ZERO, Duration::from_secs(3));
            self.happen(late, Happening::Wake(id, 0));
        }
    }

    fn turned(&mut self, lane: usize, mut sim: Sim, turn: Turn) {
        let (id, now) = (sim.id, self.now);
        let turn = match turn {
            Turn::Quiet(until) if until <= now || self.server.is_stopping => {
                sim.turn(&mut self.server, now)
            }
            turn => turn,
        };
        if sim.is_complete() {
            self.server.conclude_transfer(&mut sim);
        }
        match turn {
            Turn::Quiet(until) => {
                if sim.is_established() {
                    self.server.mail.push(Report::Established(id));
                }
                if sim.is_complete() {
                    self.server.mail.push(Report::Complete(id));
                }
                match self.server.lanes[lane].park(id, sim, Some(until)) {
                    Ok(parked) if parked.is_recalled => self.server.mail.push(Report::Parked(id)),
                    Ok(_) => {}
                    Err(sim) => {
                        assert!(sim.is_concluded, "{id} was abandoned before its end");
                        self.server.sockets.remove(&id);
                        self.server.mail.push(Report::Closed(id));
                    }
                }
                self.check_queued(id);
            }
            Turn::Done => {
                self.server.conclude_transfer(&mut sim);
                let _ = self.server.lanes[lane].remove(id);
                self.server.sockets.remove(&id);
                self.server.mail.push(Report::Ended {
                    id,
                    is_proven: sim.is_established(),
                    answered: sim.answered,
                });
            }
        }
    }

    /// A parked transfer has read everything and sent what its source has, or will have its turn.
    fn check_queued(&self, id: TransferId) {
        let is_unread = self.server.is_unread(id);
        let mut seats = self
            .server
            .lanes
            .iter()
            .filter_map(|lane| lane.seats.get(&id));
        let Some(seat) = seats.find(|seat| seat.transfer.is_some() && !seat.is_queued) else {
            return;
        };
        let sim = seat.transfer.as_ref();
        let waits = sim.is_some_and(|sim| sim.waits_for_sink(&self.server));
        assert!(!is_unread || waits, "{id} sleeps beside its packets");
        let stalls = sim.is_some_and(
            |sim| matches!(&sim.machine, Machine::Receives(machine) if machine.is_stalled()),
        );
        assert!(waits || !stalls, "{id} sleeps, and its sink takes more");
        let pending = seat.transfer.as_ref().and_then(|sim| match &sim.machine {
            Machine::Waits(_) => Some(1),
            Machine::Sends(machine, _) if machine.is_stalled() => sim.pending.map(|it| it.0),
            _ => None,
        });
        let is_there = pending.is_some_and(|block| block <= self.server.there(id));
        assert!(!is_there, "{id} sleeps, and its source has more");
    }

    // ---- the network ------------------------------------------------------------------------

    /// What was sent arrives some time, or is lost.
    fn leave(&mut self) {
        for (tid, id, kind, block) in std::mem::take(&mut self.server.sent) {
            let [_, _, high, low] = match tid.peer.ip() {
                std::net::IpAddr::V4(ip) => ip.octets(),
                std::net::IpAddr::V6(_) => unreachable!("clients have IPv4 addresses"),
            };
            let number = usize::from(high) * 250 + usize::from(low) - 1;
            let port = tid.peer.port();
            self.travel(Happening::ToClient(number, port, id, kind, block));
        }
    }

    fn travel(&mut self, what: Happening) {
        if self.rng.below(1000) >= self.loss {
            let time = self.latency + self.rng.between(Duration::ZERO, self.latency / 2 + US);
            self.happen(time, what);
        }
    }

    fn take(&mut self, what: Happening) {
        match what {
            Happening::Request(number) => self.request(number),
            Happening::ToTransfer(id, block, kind) => {
                if let Some(socket) = self.server.sockets.get_mut(&id) {
                    socket.push_back((block, kind));
                    for lane in &mut self.server.lanes {
                        lane.notify(id);
                    }
                    self.check_queued(id);
                }
            }
            Happening::ToClient(number, port, id, kind, block) => {
                if self.clients[number].port == port {
                    self.hear(number, id, kind, block);
                }
            }
            Happening::Timer(number, timer) => {
                if self.clients[number].timer == timer {
                    self.repeat(number);
                }
            }
            Happening::Wake(id, there) => {
                if let Some(before) = self.server.there.get_mut(&id) {
                    *before = there.max(*before);
                }
                for lane in &mut self.server.lanes {
                    lane.recall(id, false);
                }
                self.check_queued(id);
            }
            Happening::Cancel(id) => {
                // Often one that is in its turn.
                let in_turn = self
                    .server
                    .threads
                    .iter()
                    .flatten()
                    .find_map(|task| match &task.2 {
                        Task::Turn(_, sim, Turn::Quiet(_)) => Some(sim.id.0),
                        _ => None,
                    });
                let id = in_turn.filter(|_| self.rng.one_in(2)).unwrap_or(id);
                if !self.is_finished {
                    let slot = self.endpoint.slots.get(&TransferId(id));
                    if slot.is_some_and(|slot| slot.lane.is_some()) {
                        self.cancelled.push((TransferId(id), self.now));
                    }
                    self.endpoint
                        .cancel(TransferId(id), self.now, &mut self.server);
                    self.act();
                }
            }
            Happening::Stop(is_drain) => {
                let stop = match is_drain {
                    true => Stop::Drain(Duration::from_secs(5)),
                    false => Stop::Now,
                };
                self.endpoint.stop(stop, self.now);
                self.is_closed = true;
            }
            Happening::Mail => {
                for report in std::mem::take(&mut self.server.mail) {
                    self.endpoint.report(report, self.now, &mut self.server);
                    self.act();
                }
            }
        }
    }

    // ---- clients ----------------------------------------------------------------------------

    /// A request arrives at the listening socket.
    fn request(&mut self, number: usize) {
        let client = &self.clients[number];
        let opcode = match client.habit {
            Habit::Writes(_) => b"\0\x02",
            _ => b"\0\x01",
        };
        let bytes = [opcode, client.name, b"\0octet\0"].concat();
        let port = client.port;
        if !self.is_closed {
            let datagram = Datagram {
                tid: Self::tid(number, port),
                bytes: &bytes,
                is_cut: false,
                broadcast: None,
            };
            let tid = datagram.tid;
            if let Err(reason) = self.endpoint.datagram(datagram, self.now, &mut self.server) {
                self.endpoint.dropped(tid.peer, reason);
            }
            self.act();
        }
        if self.clients[number].habit != Habit::Silent {
            self.wait(number);
        }
    }

    fn wait(&mut self, number: usize) {
        self.clients[number].timer += 1;
        let timer = self.clients[number].timer;
        let time = self.rng.between(900 * MS, 1100 * MS);
        self.happen(time, Happening::Timer(number, timer));
    }

    fn repeat(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.is_over || client.is_served {
            return;
        }
        client.patience -= 1;
        if client.patience == 0 {
            client.is_over = true;
            return;
        }
        if client.patience.is_multiple_of(5) {
            // Its transfer may have made room for others: it starts again.
            (client.tid, client.blocks) = (None, 0);
            client.port += 1;
        }
        match (client.habit, client.tid) {
            (_, None) => self.travel(Happening::Request(number)),
            (Habit::AckOnce | Habit::Silent, _) => {}
            (Habit::Writes(_), Some(id)) => self.say(number, id),
            (_, Some(id)) => self.say(number, id),
        }
        self.wait(number);
    }

    /// The client sends its ACK, or its next block.
    fn say(&mut self, number: usize, id: TransferId) {
        let client = &self.clients[number];
        let (block, kind) = match client.habit {
            Habit::Writes(last) => (client.blocks + 1, Kind::Data(client.blocks + 1 == last)),
            _ => (client.blocks, Kind::Ack),
        };
        self.travel(Happening::ToTransfer(id, block as u16, kind));
    }

    fn hear(&mut self, number: usize, id: TransferId, kind: Kind, block: u64) {
        let client = &mut self.clients[number];
        if client.is_over || client.habit == Habit::Silent {
            return;
        }
        if kind == Kind::Error {
            // A server that is busy is asked again.
            let is_refused =
                client.tid.is_none() && !matches!(client.name, b"file" | b"later" | b"stalls");
            client.is_over |= is_refused || client.tid == Some(id);
            return;
        }
        if *client.tid.get_or_insert(id) != id {
            return; // from another port
        }
        match (client.habit, kind) {
            (Habit::Writes(last), Kind::Ack)
                if block == client.blocks || block == client.blocks + 1 =>
            {
                // The block before the first one to be sent was acknowledged, or the one that was
                // sent.
                client.blocks = block;
                client.encourage();
                client.is_served = block == last;
                if !client.is_served {
                    self.say(number, id);
                    self.wait(number);
                }
            }
            (Habit::Reads(_) | Habit::AckOnce | Habit::BreaksOff(_), Kind::Data(is_last)) => {
                let is_new = block == client.blocks + 1;
                if is_new {
                    client.blocks = block;
                    client.encourage();
                }
                match client.habit {
                    Habit::AckOnce if block > 1 => return,
                    Habit::BreaksOff(blocks) if client.blocks > blocks => {
                        client.is_over = true;
                        return self.travel(Happening::ToTransfer(id, 0, Kind::Error));
                    }
                    _ => {}
                }
                client.is_served |= is_last && is_new;
                self.say(number, id);
                self.wait(number);
            }
            _ => {}
        }
    }

    // ---- what must hold at the end ----------------------------------------------------------

    fn check(&mut self) {
        let Self { server, seed, .. } = self;
        assert!(server.mail.is_empty() && server.jobs.is_empty());
        for id in &self.asked {
            let ends = server.ends.get(id).copied().unwrap_or_default();
            assert_eq!(ends, 1, "world {seed}: transfer {id} has ended so often");
        }
        assert_eq!(
            server.ends.len(),
            self.asked.len(),
            "an end without a request"
        );
        assert!(
            server.lanes.iter().all(|lane| lane.seats.is_empty()),
            "a seat is left"
        );
        assert!(server.sockets.is_empty(), "a socket is left");
        assert_eq!(
            (server.in_store, server.slow_calls),
            (0, 0),
            "a store slot is lost"
        );
        for (id, at) in &self.cancelled {
            let late = server.ended[id].saturating_duration_since(*at);
            assert!(late < Duration::from_secs(1), "world {seed}: {id} went on");
        }
        // Calls that were left behind have returned by now.
        assert!(
            self.endpoint.is_empty(),
            "world {seed}: something is left: {:?}",
            self.endpoint
        );
        if self.has_stop || self.has_cancels || self.has_slow_store || self.no_socket > 0 {
            return;
        }
        // Places for twice as many as will use theirs, whatever the others do.
        let honest = |client: &&Client| matches!(client.habit, Habit::Reads(_) | Habit::Writes(_));
        let honest = self.clients.iter().filter(honest).count();
        let ports = self.endpoint.config.supply.len();
        if 2 * honest > self.quota.transfers.min(ports / 2) || self.quota.half_open < 8 {
            return;
        }
        for (number, client) in self.clients.iter().enumerate() {
            let is_honest = matches!(client.habit, Habit::Reads(_) | Habit::Writes(_));
            let takes =
                self.endpoint.config.takes_uploads || matches!(client.habit, Habit::Reads(_));
            let is_woken = matches!(client.name, b"file" | b"later" | b"stalls");
            if is_honest && takes && is_woken {
                assert!(
                    client.is_served,
                    "world {seed}: client {number} was not served: {client:?}"
                );
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

#[test]
fn whole_servers_lose_nothing_and_leave_nothing() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("FIRST").unwrap_or(0);
            first..first + number("SEEDS").unwrap_or(WORLDS)
        }
    };
    let show = std::env::var_os("TRACE").is_some();
    for seed in seeds {
        let run = || World::new(seed, show).run();
        let Ok(trace) = std::panic::catch_unwind(run) else {
            panic!("world {seed} failed; see it with SEED={seed} TRACE=1");
        };
        assert_eq!(
            World::new(seed, false).run(),
            trace,
            "world {seed} the second time"
        );
    }
}
