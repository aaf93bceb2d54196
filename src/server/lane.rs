//! Lanes: where transfers wait for packets and for time, and the thread that serves them.
//!
//! A lane is a poller, a table of transfers and their timers. One thread of the pool runs a lane:
//! it waits for readiness and gives each ready transfer its turn, with no other thread in between.
//! The lock of the table is held between turns only. A turn may block in a store, in a file or in a
//! sink; then another thread takes the lane over, and only that one transfer waits.

use super::by_id::ById;
use super::poller::{Poller, Registry, poller};
use super::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, Waker, now};
use super::waiting::Waiting;
use crate::event::TransferId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

/// Outdated entries of the queues that are kept, beside some for each transfer.
const OUTDATED_KEPT: usize = 1024;
/// Entries in the heap per transfer before outdated ones are removed.
const TIMERS_PER_SEAT: usize = 4;

/// Runs no lane.
const FREE: usize = 0;
/// Set in the word of a lane while its runner is in the poller.
const POLLING: usize = 1;

/// A poller, its transfers, and who serves them.
pub(super) struct Lane {
    poller: Mutex<Poller>,
    registry: Registry,
    waker: Waker,
    /// The runner sleeps in the poller, or is about to: only then a wake-up costs a system call.
    asleep: AtomicBool,
    /// [`FREE`], or the runner's number plus one, times two, and [`POLLING`].
    runner: AtomicUsize,
    /// Transfers that belong to this lane.
    count: AtomicUsize,
    table: Mutex<Table<Waiting>>,
}

impl Lane {
    pub(super) fn new() -> io::Result<Self> {
        let (poller, registry, waker) = poller()?;
        Ok(Self {
            poller: Mutex::new(poller),
            registry,
            waker,
            asleep: AtomicBool::new(false),
            runner: AtomicUsize::new(FREE),
            count: AtomicUsize::new(0),
            table: Mutex::new(Table::default()),
        })
    }

    // ---- the runner -------------------------------------------------------------------------

    /// Makes this worker the runner, if the lane has none.
    pub(super) fn claim(&self, worker: usize) -> bool {
        self.exchange(FREE, word(worker))
    }

    /// True while this worker is the runner.
    pub(super) fn is_run_by(&self, worker: usize) -> bool {
        self.runner.load(Ordering::SeqCst) & !POLLING == word(worker)
    }

    /// Takes the lane from its runner, or gives it back, unless the runner is in the poller.
    pub(super) fn release(&self, worker: usize) -> bool {
        self.exchange(word(worker), FREE)
    }

    /// The runner, if there is one and it is not in the poller.
    pub(super) fn busy_runner(&self) -> Option<usize> {
        match self.runner.load(Ordering::SeqCst) {
            FREE => None,
            state if state & POLLING != 0 => None,
            state => Some((state >> 1) - 1),
        }
    }

    /// True while no worker runs a lane that has transfers.
    pub(super) fn is_unattended(&self) -> bool {
        self.count() > 0 && self.is_free()
    }

    /// True while no worker runs it.
    pub(super) fn is_free(&self) -> bool {
        self.runner.load(Ordering::SeqCst) == FREE
    }

    fn exchange(&self, from: usize, to: usize) -> bool {
        self.runner
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Transfers that belong to this lane.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// True while the runner sleeps in the poller.
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Ends the sleep of the runner. False where it did not sleep.
    pub(super) fn wake(&self) -> bool {
        let was_asleep = self.asleep.swap(false, Ordering::SeqCst);
        if was_asleep {
            // A failed wake-up costs the time until the next timer.
            let _ = self.waker.wake();
        }
        was_asleep
    }

    /// Waits for packets and timers, and queues the transfers that they are for. Returns at once
    /// where a transfer is ready, where `has_work` says so, or where the lane was taken over.
    pub(super) fn poll(&self, worker: usize, has_work: impl Fn() -> bool) {
        if !self.exchange(word(worker), word(worker) | POLLING) {
            return;
        }
        let mut poller = lock(&self.poller);
        let mut timeout = Some(Duration::ZERO);
        if !self.table().has_ready() && !has_work() {
            // From here on a wake-up is seen. What came before is asked for once more.
            self.asleep.store(true, Ordering::SeqCst);
            let table = self.table();
            let is_idle = !table.has_ready() && !has_work();
            if is_idle {
                let until = |due: Instant| due.saturating_duration_since(now());
                timeout = table.due().map(until);
            }
        }
        poller.wait(timeout);
        self.asleep.store(false, Ordering::SeqCst);
        let mut table = self.table();
        for id in poller.ready() {
            table.notify(id);
        }
        table.expire(now());
        drop(table);
        drop(poller);
        self.runner.store(word(worker), Ordering::SeqCst);
    }

    /// The next transfer that is ready.
    pub(super) fn next(&self) -> Option<Waiting> {
        self.table().next()
    }

    // ---- transfers --------------------------------------------------------------------------

    /// A transfer of this identifier begins. Its first turn comes before it is parked.
    pub(super) fn enter(&self, id: TransferId) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.table().enter(id, now());
    }

    /// Puts a transfer aside until a packet comes for it, or until an instant; without one it goes
    /// on as soon as the others have had their turns. Returns true where the loop has
    /// [recalled](Self::take_or_recall) it.
    ///
    /// # Errors
    /// Returns the transfer where it was [abandoned](Self::abandon).
    pub(super) fn park(&self, transfer: Waiting, until: Option<Instant>) -> Result<bool, Waiting> {
        let id = transfer.id();
        let mut table = self.table();
        let parked = table.park(id, transfer, until)?;
        if parked.is_new
            && let Some(waiting) = table.get(id)
        {
            self.registry.register(waiting);
        }
        drop(table);
        if parked.is_sooner {
            self.wake();
        }
        Ok(parked.is_recalled)
    }

    /// Removes a transfer of this lane, if it is one. Where it was parked it is returned; one that
    /// is in its turn comes back to the worker that [parks](Self::park) it.
    pub(super) fn abandon(&self, id: TransferId) -> Option<Waiting> {
        let transfer = self.table().remove(id)?;
        self.count.fetch_sub(1, Ordering::SeqCst);
        transfer
    }

    /// Looks at a transfer that is not in its turn.
    pub(super) fn look<T>(
        &self,
        id: TransferId,
        look: impl FnOnce(&mut Waiting) -> T,
    ) -> Option<T> {
        self.table().get(id).map(look)
    }

    /// Gives a transfer a turn, and has it reported when it is parked afterwards.
    pub(super) fn recall(&self, id: TransferId) {
        if self.table().recall(id, true) {
            self.wake();
        }
    }

    /// Gives a transfer a turn.
    pub(super) fn resume(&self, id: TransferId) {
        if self.table().recall(id, false) {
            self.wake();
        }
    }

    /// Takes a transfer out of the lane. One that is in its turn stays, and is reported when it is
    /// parked.
    pub(super) fn take_or_recall(&self, id: TransferId) -> Option<Waiting> {
        let mut table = self.table();
        if table.get(id).is_none() {
            table.recall(id, true);
            return None;
        }
        let transfer = table.remove(id).flatten();
        drop(table);
        self.count.fetch_sub(1, Ordering::SeqCst);
        transfer
    }

    /// True while any transfer is not in its turn.
    pub(super) fn has_parked(&self) -> bool {
        self.parked() > 0
    }

    /// Transfers that are not in their turns.
    pub(super) fn parked(&self) -> usize {
        self.table().parked
    }

    fn table(&self) -> MutexGuard<'_, Table<Waiting>> {
        lock(&self.table)
    }
}

fn word(worker: usize) -> usize {
    (worker + 1) << 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The transfers of a lane, which of them are ready, and when the others are. It names no socket,
/// no thread and no clock.
pub(super) struct Table<T> {
    pub(super) seats: ById<Seat<T>>,
    /// Seats that hold a transfer.
    pub(super) parked: usize,
    ready: VecDeque<TransferId>,
    /// Transfers that go on behind those that the next poll finds. They have used their slice, or
    /// were woken: one that is woken in each of its turns must not keep the others from theirs.
    deferred: Vec<TransferId>,
    timers: BinaryHeap<Reverse<(Instant, TransferId)>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            seats: ById::default(),
            parked: 0,
            ready: VecDeque::new(),
            deferred: Vec::new(),
            timers: BinaryHeap::new(),
        }
    }
}

/// One transfer.
pub(super) struct Seat<T> {
    /// `None` while the transfer is in its turn.
    pub(super) transfer: Option<T>,
    /// It was parked before.
    is_known: bool,
    /// It is in one of the queues.
    pub(super) is_queued: bool,
    /// A packet came while it was in its turn.
    is_notified: bool,
    /// The loop waits for it to be parked.
    is_recalled: bool,
    deadline: Instant,
    /// Its earliest entry in the heap.
    timer: Option<Instant>,
}

/// What came of parking a transfer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parked {
    /// For the first time.
    pub(super) is_new: bool,
    pub(super) is_recalled: bool,
    /// It has to be looked at before everything that was there.
    pub(super) is_sooner: bool,
}

impl<T> Table<T> {
    pub(super) fn enter(&mut self, id: TransferId, now: Instant) {
        let seat = Seat {
            transfer: None,
            is_known: false,
            is_queued: false,
            is_notified: false,
            is_recalled: false,
            deadline: now,
            timer: None,
        };
        self.seats.insert(id, seat);
    }

    /// Returns the transfer where it has no seat any more.
    pub(super) fn park(
        &mut self,
        id: TransferId,
        transfer: T,
        until: Option<Instant>,
    ) -> Result<Parked, T> {
        let earliest = self.due();
        let Some(seat) = self.seats.get_mut(&id) else {
            return Err(transfer);
        };
        seat.transfer = Some(transfer);
        self.parked += 1;
        let is_new = !std::mem::replace(&mut seat.is_known, true);
        let is_recalled = std::mem::take(&mut seat.is_recalled);
        let mut is_sooner = true;
        let Some(until) = until else {
            seat.is_queued = true;
            self.deferred.push(id);
            return Ok(Parked {
                is_new,
                is_recalled,
                is_sooner,
            });
        };
        seat.deadline = until;
        if std::mem::take(&mut seat.is_notified) {
            seat.is_queued = true;
            self.deferred.push(id);
        } else if seat.timer.is_none_or(|timer| timer > until) {
            seat.timer = Some(until);
            self.timers.push(Reverse((until, id)));
            is_sooner = earliest.is_none_or(|due| until < due);
        } else {
            is_sooner = false;
        }
        Ok(Parked {
            is_new,
            is_recalled,
            is_sooner,
        })
    }

    pub(super) fn next(&mut self) -> Option<T> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.is_queued = false;
                if let Some(transfer) = seat.transfer.take() {
                    self.parked -= 1;
                    return Some(transfer);
                }
            }
        }
        None
    }

    /// True where [`poll`](Lane::poll) need not wait.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.deferred.is_empty()
    }

    /// A packet has come.
    pub(super) fn notify(&mut self, id: TransferId) {
        if let Some(seat) = self.seats.get_mut(&id) {
            match seat.transfer {
                Some(_) if seat.is_queued => {}
                Some(_) => {
                    seat.is_queued = true;
                    self.ready.push_back(id);
                }
                None => seat.is_notified = true,
            }
        }
    }

    /// Queues what is due, and what was deferred.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((due, id))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            let Some(seat) = self.seats.get_mut(&id) else {
                continue;
            };
            if seat.timer == Some(due) {
                seat.timer = None;
            }
            // In its turn it gets a new deadline.
            if seat.transfer.is_none() || seat.is_queued {
                continue;
            }
            if seat.deadline <= now {
                seat.is_queued = true;
                self.ready.push_back(id);
            } else if seat.timer.is_none() {
                seat.timer = Some(seat.deadline);
                self.timers.push(Reverse((seat.deadline, id)));
            }
        }
        self.ready.extend(self.deferred.drain(..));
    }

    /// When the next transfer is due. Early, where it has moved on since.
    pub(super) fn due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    pub(super) fn get(&mut self, id: TransferId) -> Option<&mut T> {
        self.seats.get_mut(&id)?.transfer.as_mut()
    }

    /// Queues a transfer; one that is in its turn has another one. True where it was not queued.
    pub(super) fn recall(&mut self, id: TransferId, is_reported: bool) -> bool {
        let Some(seat) = self.seats.get_mut(&id) else {
            return false;
        };
        seat.is_recalled |= is_reported;
        match seat.transfer {
            Some(_) if seat.is_queued => false,
            Some(_) => {
                seat.is_queued = true;
                self.deferred.push(id);
                true
            }
            None => {
                seat.is_notified = true;
                false
            }
        }
    }

    /// `None` where there is no such transfer; `Some(None)` where it is in its turn.
    pub(super) fn remove(&mut self, id: TransferId) -> Option<Option<T>> {
        let seat = self.seats.remove(&id)?;
        self.parked -= usize::from(seat.transfer.is_some());
        // What an aborted transfer with a long interval leaves behind must not outgrow the table.
        if self.timers.len() > TIMERS_PER_SEAT * self.seats.len() + OUTDATED_KEPT {
            let seats = &self.seats;
            self.timers.retain(|Reverse((due, id))| {
                let seat = seats.get(id);
                seat.is_some_and(|seat| seat.timer == Some(*due))
            });
        }
        if self.ready.len() + self.deferred.len() > 2 * self.seats.len() + OUTDATED_KEPT {
            let seats = &self.seats;
            self.ready.retain(|id| seats.contains_key(id));
            self.deferred.retain(|id| seats.contains_key(id));
        }
        Some(seat.transfer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::explore;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ONE: TransferId = TransferId(1);
    const TWO: TransferId = TransferId(2);

    /// Two transfers in their first turn.
    fn table(now: Instant) -> Table<&'static str> {
        let mut table = Table::default();
        table.enter(ONE, now);
        table.enter(TWO, now);
        table
    }

    fn parked(table: &mut Table<&'static str>, id: TransferId, until: Instant) {
        let name = if id == ONE { "one" } else { "two" };
        table.park(id, name, Some(until)).expect("a seat");
    }

    #[test]
    fn packets_and_timers_make_transfers_ready_in_their_order() {
        let now = now();
        let mut table = table(now);
        parked(&mut table, ONE, now + 5 * MS);
        parked(&mut table, TWO, now + 3 * MS);
        assert_eq!((table.due(), table.next()), (Some(now + 3 * MS), None));
        table.notify(TWO);
        table.notify(TWO);
        table.expire(now + 5 * MS);
        assert_eq!(table.next(), Some("two"));
        assert_eq!(table.next(), Some("one"));
        assert_eq!(table.next(), None, "each once");
        assert_eq!(table.parked, 0);
    }

    #[test]
    fn a_packet_that_comes_during_a_turn_brings_another_turn() {
        let now = now();
        let mut table = table(now);
        table.notify(ONE);
        assert_eq!(table.next(), None);
        parked(&mut table, ONE, now + MS);
        assert!(table.has_ready());
        table.expire(now);
        assert_eq!(table.next(), Some("one"));
        parked(&mut table, ONE, now + MS);
        table.expire(now);
        assert_eq!(table.next(), None, "it was told once");
    }

    #[test]
    fn a_transfer_that_has_used_its_slice_lets_others_go_first() {
        let now = now();
        let mut table = table(now);
        table.park(ONE, "one", None).expect("a seat");
        parked(&mut table, TWO, now + MS);
        assert!(table.has_ready());
        assert_eq!(table.next(), None, "the poller is asked first");
        table.notify(TWO);
        table.expire(now);
        assert_eq!(table.next(), Some("two"));
        assert_eq!(table.next(), Some("one"));
    }

    /// An embedder may call the waker of a transfer in each of its turns, or all the time.
    #[test]
    fn a_transfer_that_is_woken_again_and_again_lets_others_go_first() {
        let now = now();
        let mut table = table(now);
        parked(&mut table, TWO, now + 9 * MS);
        for _ in 0..3 {
            table.recall(ONE, false); // in its turn
            parked(&mut table, ONE, now + 9 * MS);
            assert!(!table.recall(ONE, false), "it is queued");
            assert_eq!(table.next(), None, "the poller is asked first");
            table.notify(TWO);
            table.expire(now);
            assert_eq!(table.next(), Some("two"));
            parked(&mut table, TWO, now + 9 * MS);
            assert_eq!(table.next(), Some("one"));
        }
    }

    #[test]
    fn a_deadline_that_has_moved_is_kept_to() {
        let now = now();
        let mut table = table(now);
        parked(&mut table, ONE, now + 2 * MS);
        table.notify(ONE);
        assert_eq!(table.next(), Some("one"));
        parked(&mut table, ONE, now + 9 * MS);
        assert_eq!(table.timers.len(), 1, "the earlier entry does for both");
        table.expire(now + 2 * MS);
        assert_eq!((table.next(), table.due()), (None, Some(now + 9 * MS)));
        table.expire(now + 9 * MS);
        assert_eq!(table.next(), Some("one"));
        // One that comes sooner than that has an entry of its own.
        parked(&mut table, ONE, now + 20 * MS);
        table.notify(ONE);
        table.next();
        let sooner = table.park(ONE, "one", Some(now + 12 * MS));
        assert!(sooner.is_ok_and(|parked| parked.is_sooner && !parked.is_new));
        table.expire(now + 12 * MS);
        assert_eq!(table.next(), Some("one"));
    }

    #[test]
    fn a_recall_is_answered_once_wherever_the_transfer_was() {
        let now = now();
        let mut table = table(now);
        let recalled = |parked: Result<Parked, _>| parked.ok().map(|parked| parked.is_recalled);
        table.recall(ONE, true);
        let first = table.park(ONE, "one", Some(now + MS));
        assert_eq!(recalled(first), Some(true));
        table.expire(now);
        assert_eq!(table.next(), Some("one"), "it has another turn");
        let second = table.park(ONE, "one", Some(now + MS));
        assert_eq!(recalled(second), Some(false));
        assert!(table.recall(ONE, true), "parked: it is queued");
        table.expire(now);
        assert_eq!(table.next(), Some("one"));
        assert_eq!(recalled(table.park(ONE, "one", Some(now + MS))), Some(true));
    }

    #[test]
    fn nothing_is_left_of_transfers_that_end() {
        let now = now();
        let mut table = Table::default();
        for number in 0..3 * OUTDATED_KEPT as u64 {
            let id = TransferId(number);
            table.enter(id, now);
            assert!(table.park(id, number, Some(now + MS * 1000)).is_ok());
            table.notify(id);
            assert_eq!(table.remove(id), Some(Some(number)));
        }
        assert!(table.timers.len() <= OUTDATED_KEPT + TIMERS_PER_SEAT);
        assert!(table.ready.len() <= OUTDATED_KEPT + 2);
        assert_eq!((table.parked, table.next()), (0, None));
        assert_eq!(table.park(ONE, 1, None), Err(1), "it has no seat");
    }

    #[test]
    fn a_lane_has_one_runner_and_only_a_busy_one_can_lose_it() {
        explore(|| {
            let lane = Lane::new().expect("a lane");
            assert!(lane.is_free() && lane.claim(3));
            assert!(!lane.claim(4), "it is run");
            assert_eq!(lane.busy_runner(), Some(3));
            assert!(lane.is_run_by(3) && !lane.is_run_by(4) && !lane.release(4));
            lane.poll(4, || panic!("not his"));
            lane.poll(3, || {
                assert_eq!(lane.busy_runner(), None);
                assert!(!lane.release(3), "in the poller it cannot be taken away");
                true
            });
            assert!(lane.release(3) && lane.is_free());
            lane.poll(3, || panic!("no longer his"));
        });
    }
}
