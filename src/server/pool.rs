//! The pool, as the loop sees it: the workers' threads, the queues that feed them, and how many of
//! them are awake.
//!
//! It starts with one worker and grows while work waits, nobody is idle and too few can take a
//! step. Workers that sleep are woken for as much as waits; workers that are stuck in a file or a
//! store are replaced, up to a limit.

use super::admitted::AdmittedRequest;
use super::lane::Lane;
use super::mailbox::{Mail, Mailbox};
use super::message::{Job, Message, Report};
use super::shared::Shared;
use super::sync::thread::JoinHandle;
use super::sync::{Ordering, Receiver, Sender, now, thread, unbounded};
use super::worker::{Admitted, Heartbeat, Queues, Worker};
use crate::limits::{SPARE_WORKERS, STUCK_AFTER};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// While work waits and no worker is idle, the pool is looked at this often.
const GROWTH_PAUSE: Duration = Duration::from_millis(5);
/// When the system has refused a thread, it is asked again after this.
const THREAD_RETRY: Duration = Duration::from_secs(1);
/// Things to do that are worth another worker, and how soon one comes that the awake ones have not
/// got to.
const WORTH_WAKING: usize = 8;
const WAKE_PAUSE: Duration = Duration::from_millis(1);
/// A worker that has not taken a step for so long is in a file or a store. One that only waits for
/// a processor takes one sooner.
const BLOCKED_AFTER: Duration = Duration::from_millis(15);

/// While a runner is in a turn, the lanes are looked at this often.
const WATCH_PAUSE: Duration = Duration::from_millis(5);
/// After this many looks in a row at runners that wait, the watch ends.
const QUIET_LOOKS: u32 = 20;

/// The threads and their queues. The queues have no bound of their own: what is in them is in the
/// desk's table, which has one.
pub(super) struct Pool {
    shared: Arc<Shared>,
    mailbox: Mailbox<Message>,
    most: usize,
    /// Workers that should be free to take steps: one for each processor. More would only take
    /// turns.
    base: usize,
    /// By number.
    threads: BTreeMap<usize, Thread>,
    next: usize,
    looked: Instant,
    /// The system refused a thread: none is asked for until then.
    spawn_blocked_until: Option<Instant>,
    /// When the backlog was last looked at, and how many steps all workers had taken.
    backlog_seen: Option<(Instant, u64)>,
    /// When the runners of lanes were looked at last, and how often in a row all of them were
    /// waiting.
    watched: Instant,
    quiet: u32,
    /// Reports of workers that block.
    taken: Vec<Report>,
    openings: Queue<Admitted>,
    jobs: Queue<Job>,
}

/// Both ends of a queue; each worker has another receiving one.
struct Queue<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
}

impl<T> Queue<T> {
    fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver }
    }

    fn push(&self, work: T) {
        self.sender.send(work).expect("we hold a receiver");
    }
}

/// One worker.
struct Thread {
    handle: JoinHandle<()>,
    heartbeat: Arc<Heartbeat>,
    /// How many steps there were when it was looked at last, and since when there were so many.
    seen: u64,
    since: Instant,
}

impl Pool {
    /// A pool of one worker, for now, and of `most` when there is work for them.
    pub(super) fn start(
        most: usize,
        shared: Arc<Shared>,
        mailbox: Mailbox<Message>,
    ) -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut pool = Self {
            shared,
            mailbox,
            most,
            base: processors.min(most),
            threads: BTreeMap::new(),
            next: 0,
            looked: now(),
            spawn_blocked_until: None,
            backlog_seen: None,
            watched: now(),
            quiet: 0,
            taken: Vec::new(),
            openings: Queue::new(),
            jobs: Queue::new(),
        };
        pool.start_worker()?;
        Ok(pool)
    }

    // ---- work -------------------------------------------------------------------------------

    /// A request that was admitted.
    pub(super) fn open(&self, opening: Arc<AdmittedRequest>, port: u16) {
        self.openings.push((opening, port));
        self.shared.pool.is_watching.store(true, Ordering::SeqCst);
    }

    pub(super) fn job(&self, job: Job) {
        self.jobs.push(job);
    }

    /// Requests that no worker has got to.
    pub(super) fn waiting(&self) -> usize {
        self.openings.receiver.len()
    }

    /// Removes those that are not wanted.
    pub(super) fn keep_waiting(&self, is_wanted: impl Fn(&AdmittedRequest) -> bool) {
        let waiting: Vec<_> = self.openings.receiver.try_iter().collect();
        let wanted = waiting
            .into_iter()
            .filter(|(opening, _)| is_wanted(opening));
        wanted.for_each(|admitted| self.openings.push(admitted));
    }

    fn has_work(&self) -> bool {
        self.waiting() > 0 || !self.jobs.receiver.is_empty()
    }

    /// What a free worker could take now: no openings while the store is full of workers.
    fn backlog(&self) -> usize {
        let is_full =
            self.shared.pool.in_store.load(Ordering::SeqCst) >= self.shared.pool.store_slots;
        let openings = if is_full { 0 } else { self.waiting() };
        openings + self.jobs.receiver.len()
    }

    /// True where workers have enough to do for a while.
    pub(super) fn is_busy(&self) -> bool {
        self.backlog() >= WORTH_WAKING
    }

    // ---- workers ----------------------------------------------------------------------------

    /// Wakes and starts workers for the work that waits.
    ///
    /// # Errors
    /// Where one was needed and the system refused a thread.
    pub(super) fn adjust(&mut self, time: Instant) -> io::Result<()> {
        self.watch(time);
        self.wake_for_backlog(time);
        self.grow(time)
    }

    /// When [`adjust`](Self::adjust) has something to do, if nothing happens before.
    pub(super) fn due(&self, time: Instant) -> Option<Instant> {
        let growth = self.is_short().then(|| time + self.pause());
        let is_left = self.shared.pool.asleep() > 0 && self.backlog() > 0;
        let wake = is_left.then(|| self.backlog_seen.map_or(time, |(since, _)| since) + WAKE_PAUSE);
        let is_watching = self.shared.pool.is_watching.load(Ordering::SeqCst);
        let watch = is_watching.then(|| self.watched + WATCH_PAUSE);
        growth.into_iter().chain(wake).chain(watch).min()
    }

    /// Looks for lanes whose runner is held up in a store, a file or a sink, and has idle workers
    /// take them over, and takes the reports of such a worker. Stops looking where all runners have
    /// been waiting for packets for a while.
    fn watch(&mut self, time: Instant) {
        let shared = Arc::clone(&self.shared);
        if !shared.pool.is_watching.load(Ordering::SeqCst) || time < self.watched + WATCH_PAUSE {
            return;
        }
        self.watched = time;
        self.look(time);
        let mut is_quiet = true;
        for thread in self.threads.values() {
            let mut unsent = thread.heartbeat.unsent();
            is_quiet &= unsent.is_empty();
            if time >= thread.since + BLOCKED_AFTER {
                self.taken.append(&mut unsent);
            }
        }
        for lane in shared.pool.lanes.iter() {
            if let Some(number) = lane.busy_runner() {
                if !lane.has_parked() {
                    continue;
                }
                is_quiet = false;
                let thread = self.threads.get(&number);
                // One that waits for a peer does so for a shorter time.
                let is_held_up = thread.is_none_or(|thread| time >= thread.since + BLOCKED_AFTER);
                if is_held_up && lane.busy_runner() == Some(number) {
                    lane.release(number);
                }
            }
            if lane.is_unattended() {
                is_quiet = false;
                shared.pool.idle.wake();
            }
        }
        self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
        if self.quiet >= QUIET_LOOKS {
            self.quiet = 0;
            shared.pool.is_watching.store(false, Ordering::SeqCst);
            // A runner that has come out of its poller since may have seen that the loop watches.
            let is_busy = |lane: &Lane| lane.busy_runner().is_some() && lane.has_parked();
            let has_unsent = |thread: &Thread| !thread.heartbeat.unsent().is_empty();
            if shared.pool.lanes.iter().any(is_busy) || self.threads.values().any(has_unsent) {
                shared.pool.is_watching.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Reports of workers that block, as of the last [`adjust`](Self::adjust).
    pub(super) fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.taken)
    }

    /// Wakes as many of the sleeping workers as the backlog is worth. A worker that takes small
    /// things one after the other is cheaper than two that are woken for each; but if none has
    /// taken a step since the last look, those that are awake are held up.
    fn wake_for_backlog(&mut self, time: Instant) {
        let backlog = self.backlog();
        if backlog == 0 {
            self.backlog_seen = None;
            return;
        }
        let asleep = self.shared.pool.asleep();
        if asleep == 0 {
            return;
        }
        let listens = |thread: &&Thread| thread.heartbeat.listens.load(Ordering::Relaxed);
        let listening = self.threads.values().filter(listens).count();
        // Whoever is inside a slow store or a slow read is of no help here.
        let (still, _) = self.look(time);
        let away = still.max(asleep + listening);
        let awake = self.threads.len().saturating_sub(away);
        let steps = |thread: &Thread| thread.heartbeat.steps.load(Ordering::Relaxed);
        let steps = self.threads.values().map(steps).fold(0, u64::wrapping_add);
        let (since, before) = *self.backlog_seen.get_or_insert((time, steps));
        let mut wanted = backlog.div_ceil(WORTH_WAKING);
        if time >= since + WAKE_PAUSE {
            if before == steps {
                wanted = wanted.max(awake + 1);
            }
            self.backlog_seen = Some((time, steps));
        }
        for _ in awake..wanted {
            if !self.shared.pool.wake_one() {
                break;
            }
        }
    }

    /// Starts a worker where work waits, nobody is idle, and too few can take a step.
    fn grow(&mut self, time: Instant) -> io::Result<()> {
        if !self.is_short() || self.spawn_blocked_until.is_some_and(|until| time < until) {
            return Ok(());
        }
        let threads = self.threads.len();
        if threads >= self.base {
            if time < self.looked + self.pause() {
                return Ok(());
            }
            self.looked = time;
            let (still, stuck) = self.look(time);
            if threads - still >= self.base || threads >= self.most + stuck {
                return Ok(());
            }
        }
        self.start_worker()
            .inspect_err(|_| self.spawn_blocked_until = Some(time + THREAD_RETRY))
    }

    fn start_worker(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let heartbeat = Arc::new(Heartbeat::default());
        let number = self.next;
        let queues = Queues {
            number,
            heartbeat: Arc::clone(&heartbeat),
            openings: self.openings.receiver.clone(),
            jobs: self.jobs.receiver.clone(),
            reports: self.mailbox.clone(),
        };
        let worker = Worker::new(Arc::clone(shared), queues);
        // Counted before it begins: it asks for the number itself.
        shared.pool.workers.fetch_add(1, Ordering::SeqCst);
        let handle = thread::Builder::new()
            .name(format!("tftp-worker-{number}"))
            .spawn(move || worker.run())
            .inspect_err(|_| {
                shared.pool.workers.fetch_sub(1, Ordering::SeqCst);
            })?;
        let thread = Thread {
            handle,
            heartbeat,
            seen: 0,
            since: now(),
        };
        self.threads.insert(number, thread);
        self.next += 1;
        Ok(())
    }

    /// Looks at all workers: how many have taken no step for a while, and how many for so long that
    /// others may be started in their place.
    fn look(&mut self, time: Instant) -> (usize, usize) {
        let (mut still, mut stuck) = (0, 0);
        for thread in self.threads.values_mut() {
            let steps = thread.heartbeat.steps.load(Ordering::Relaxed);
            if std::mem::replace(&mut thread.seen, steps) != steps {
                thread.since = time;
                continue;
            }
            still += usize::from(time >= thread.since + BLOCKED_AFTER);
            stuck += usize::from(time >= thread.since + STUCK_AFTER);
        }
        (still, stuck.min(SPARE_WORKERS))
    }

    /// True where work waits, nobody is idle, and there may be more workers.
    fn is_short(&self) -> bool {
        self.threads.len() < self.most + SPARE_WORKERS
            && match self.shared.pool.lanes.iter().any(Lane::is_unattended) {
                true => self.shared.pool.idle.count() == 0,
                false => self.has_work() && self.shared.pool.asleep() == 0,
            }
    }

    /// True where no more workers will come, and none that is there has nothing to do.
    pub(super) fn is_exhausted(&self) -> bool {
        self.threads.len() >= self.most + SPARE_WORKERS && self.shared.pool.asleep() == 0
    }

    /// How often it is looked at while work waits and nobody is idle.
    fn pause(&self) -> Duration {
        if self.threads.len() < self.most {
            GROWTH_PAUSE
        } else {
            STUCK_AFTER / 4
        }
    }

    /// A worker has said that it goes: it was stuck, and others work in its place.
    pub(super) fn left(&mut self, number: usize) {
        self.threads.remove(&number);
    }

    /// Closes the queues and waits for the workers to say that they go, but not for longer than
    /// `patience`. Says how many are left.
    pub(super) fn close(self, mail: &Mail<Message>, patience: Duration) -> usize {
        let Self {
            shared,
            mailbox,
            mut threads,
            openings,
            jobs,
            ..
        } = self;
        drop((openings, jobs, mailbox));
        shared.pool.idle.close();
        for lane in shared.pool.lanes.iter() {
            lane.wake();
        }
        let end = now() + patience;
        while !threads.is_empty() {
            let Some(message) = mail.wait(end.saturating_duration_since(now())) else {
                break;
            };
            let Message::Reports(reports) = message else {
                continue;
            };
            for report in reports {
                if let Report::Left(number) = report
                    && let Some(thread) = threads.remove(&number)
                {
                    let _ = thread.handle.join();
                }
            }
        }
        threads.len()
    }
}
