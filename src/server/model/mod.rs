//! The threads of the server under a scheduler with a seed.
//!
//! The files that decide which thread does what are compiled here once more: the idle workers, the
//! mailbox, the lanes, the pool, the workers. What they import from `super` is this module's:
//! threads, locks, queues and time of `shuttle`, and scripts in place of sockets and stores. One
//! test runs once for each seed, and the seed decides which thread goes on at each lock, atomic and
//! channel. A schedule in which no thread can go on is a failure: a wake-up was lost.
//!
//! The tests of those files run here as well, each under many schedules.
#![allow(
    clippy::duplicate_mod,
    reason = "each file means two modules on purpose"
)]
#![allow(dead_code, reason = "each file is used as far as the tests reach")]

#[path = "../admitted.rs"]
mod admitted;
#[path = "../guarded.rs"]
mod guarded;
#[path = "../idle.rs"]
mod idle;
#[path = "../lane.rs"]
mod lane;
#[path = "../lanes.rs"]
mod lanes;
#[path = "../mailbox.rs"]
mod mailbox;
#[path = "../message.rs"]
mod message;
#[path = "../pool.rs"]
mod pool;
#[path = "../pool_state.rs"]
mod pool_state;
#[path = "../store_slot.rs"]
mod store_slot;
#[path = "../waiting.rs"]
mod waiting;
#[path = "../waker.rs"]
mod waker;
#[path = "../worker.rs"]
mod worker;

mod clock;
mod network;
mod opening;
mod parts;
mod pending;
mod poller;
mod record;
mod scheduler;
mod script;
mod set;
mod shared;
mod sync;
mod transfer;
mod world;

use super::{Stop, by_id, desk, endpoint};
