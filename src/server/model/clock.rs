//! Time that passes when the scheduler says so: a thread that sets the clock to the next timer and
//! rings it.

use shuttle::thread::{self, Thread};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A time that does not come: there is no timer for it.
pub(super) const NEVER: Duration = Duration::from_secs(1 << 20);

thread_local! {
    // All threads of a schedule are run by one thread of the system, so there is one clock for
    // each.
    static CLOCK: RefCell<Clock> = RefCell::default();
}

#[derive(Default)]
struct Clock {
    elapsed: Duration,
    timers: BTreeMap<Timer, Box<dyn FnOnce()>>,
    next: u64,
    keeper: Option<Thread>,
    is_over: bool,
}

/// When a timer rings, and its number.
pub(super) type Timer = (Duration, u64);

fn with<T>(look: impl FnOnce(&mut Clock) -> T) -> T {
    CLOCK.with_borrow_mut(look)
}

/// The clock of this schedule.
#[allow(clippy::disallowed_methods)] // where the virtual time begins does not matter
pub(super) fn now() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + with(|clock| clock.elapsed)
}

/// The time that has passed.
pub(super) fn elapsed() -> Duration {
    with(|clock| clock.elapsed)
}

/// Calls `ring` after a time, in the thread of the clock.
pub(super) fn after(time: Duration, ring: impl FnOnce() + 'static) -> Option<Timer> {
    if time >= NEVER / 2 {
        return None;
    }
    let is_over = with(|clock| {
        if clock.is_over {
            clock.elapsed += time;
        }
        clock.is_over
    });
    if is_over {
        // For threads that are left behind: there is no keeper any more.
        ring();
        return None;
    }
    let (timer, keeper) = with(|clock| {
        clock.next += 1;
        let timer = (clock.elapsed + time, clock.next);
        clock.timers.insert(timer, Box::new(ring));
        (timer, clock.keeper.clone())
    });
    if let Some(keeper) = keeper {
        keeper.unpark();
    }
    Some(timer)
}

/// Removes a timer.
pub(super) fn cancel(timer: Option<Timer>) {
    let removed = timer.and_then(|timer| with(|clock| clock.timers.remove(&timer)));
    drop(removed);
}

/// Waits to be unparked, no longer than a time. May come back early.
pub(super) fn park(time: Option<Duration>) {
    let me = thread::current();
    let timer = time.and_then(|time| after(time, move || me.unpark()));
    thread::park();
    cancel(timer);
}

/// Lets a time pass.
pub(super) fn sleep(time: Duration) {
    let until = now() + time;
    while now() < until {
        park(Some(until - now()));
    }
}

/// Runs `test` with a clock of its own.
pub(super) fn run(test: impl FnOnce()) {
    with(|clock| *clock = Clock::default());
    let keeper = thread::spawn(keep);
    with(|clock| clock.keeper = Some(keeper.thread().clone()));
    test();
    with(|clock| clock.is_over = true);
    keeper.thread().unpark();
    keeper.join().expect("the clock does not panic");
}

fn keep() {
    loop {
        // The timer that is next may be another one by the time that the scheduler comes back.
        thread::yield_now();
        let due = with(|clock| {
            let due = clock.timers.pop_first();
            if due.is_none() && clock.is_over {
                return Err(());
            }
            if let Some(((time, _), _)) = &due {
                clock.elapsed = clock.elapsed.max(*time);
            }
            Ok(due)
        });
        match due {
            Err(()) => break,
            Ok(Some((_, ring))) => ring(),
            Ok(None) => thread::park(),
        }
    }
}
