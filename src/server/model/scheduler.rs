//! The scheduler: a seed is a schedule.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use std::collections::BTreeMap;

/// A generator of our own (splitmix64), so that a seed means the same for ever.
#[derive(Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// How the next thread is chosen.
#[derive(Clone, Copy, Debug)]
enum Temper {
    /// Any that can go on.
    Even,
    /// The same one goes on for this many steps or so.
    Sticky(usize),
    /// The one of the highest priority. A thread that yields gets the lowest, and so does the
    /// running one after this many steps or so (probabilistic concurrency testing).
    Priorities(usize),
}

/// Runs one schedule.
#[derive(Debug)]
pub(super) struct Seeded {
    rng: Rng,
    temper: Temper,
    /// Time passes only while all threads wait.
    is_ideal: bool,
    is_used: bool,
    priorities: BTreeMap<usize, u64>,
    lowest: u64,
}

/// The thread of the clock is the first that is started.
const CLOCK: usize = 1;
/// One choice in this number also considers threads whose wait may end for no reason.
const SPURIOUS: usize = 24;

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let temper = match rng.below(4) {
            0 => Temper::Even,
            1 => Temper::Sticky(2 + rng.below(30)),
            _ => Temper::Priorities(20 << rng.below(8)),
        };
        let is_ideal = rng.one_in(2);
        Self {
            rng,
            temper,
            is_ideal,
            is_used: false,
            priorities: BTreeMap::new(),
            lowest: 1 << 32,
        }
    }

    fn priority(&mut self, task: usize) -> u64 {
        let rng = &mut self.rng;
        let random = || rng.next() >> 33;
        *self.priorities.entry(task).or_insert_with(random)
    }
}

impl Scheduler for Seeded {
    fn new_execution(&mut self) -> Option<Schedule> {
        let is_used = std::mem::replace(&mut self.is_used, true);
        (!is_used).then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        tasks: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let is_spurious = self.rng.one_in(SPURIOUS);
        let clock = TaskId::from(CLOCK);
        let awake = tasks.iter().filter(|task| is_spurious || task.runnable());
        let mut candidates: Vec<TaskId> = awake.map(|task| task.id()).collect();
        if self.is_ideal && candidates.len() > 1 {
            let is_other = |task: &&Task| task.runnable() && task.id() != clock;
            if tasks.iter().any(is_other) {
                candidates.retain(|task| *task != clock);
            }
        }
        let any = |rng: &mut Rng| candidates[rng.below(candidates.len())];
        let current = current.filter(|current| candidates.contains(current));
        let next = match (self.temper, current) {
            (Temper::Even, _) => any(&mut self.rng),
            (Temper::Sticky(steps), Some(current)) if !is_yielding => {
                match self.rng.one_in(steps) {
                    true => any(&mut self.rng),
                    false => current,
                }
            }
            (Temper::Sticky(_), _) => any(&mut self.rng),
            (Temper::Priorities(steps), current) => {
                if let Some(current) = current
                    && (is_yielding || self.rng.one_in(steps))
                {
                    self.lowest += 1;
                    self.priorities.insert(current.into(), self.lowest);
                }
                let rank = |task: &TaskId| self.priority((*task).into());
                candidates.iter().copied().min_by_key(rank)?
            }
        };
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next()
    }
}
