//! A TFTP server to embed, synchronous on purpose: a bounded pool of threads, no async runtime,
//! five crates.
//!
//! ```no_run
//! use std::time::Duration;
//! use tftpool::{Dir, Server, Stop};
//!
//! # fn main() -> Result<(), tftpool::Error> {
//! let server = Server::builder(Dir::read_only("/srv/tftp")?)
//!     .bind("[::1]:6969".parse().expect("an address"))
//!     .limits(|limits| limits.workers = 4)
//!     .start()?; // bound and serving, or an error that says why
//!
//! println!("serving on {}", server.local_addr()); // the real port where 0 was asked for
//! let events = server.events(); // bounded; never blocks the server
//! std::thread::spawn(move || events.for_each(|event| println!("{event:?}")));
//!
//! server.stop(Stop::Drain(Duration::from_secs(5)));
//! let totals = server.join()?;
//! println!("{} files, {} octets", totals.completed, totals.bytes);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Store`] decides what is served: a [`Dir`], or a closure that answers a [`Request`] with a
//! [`Source`]. Stores wrap stores: see [`Store`] and `examples/layers.rs`.
//!
//! ```
//! use tftpool::{Refusal, Server, Source, store_fn};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = store_fn(|request| match request.name {
//!     b"hello" => Ok(Source::bytes(format!("hello {}\n", request.peer.ip()).into_bytes())),
//!     _ => Err(Refusal::not_found()),
//! });
//! let server = Server::builder(store).bind("127.0.0.1:0".parse()?).start()?;
//! assert_ne!(server.local_addr().port(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! The protocol is that of RFC 1350 with the options of RFC 2347, 2348, 2349 and 7440; see
//! `docs/protocol.md` for each requirement and the test that proves it, and `docs/architecture.md`
//! for the way through the sources.

mod client;
mod driver;
mod error;
mod event;
mod limits;
mod proto;
mod server;
mod store;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
mod text;
mod transfer;
mod wire;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use client::{Client, Progress};
pub use driver::{Driver, DriverBuilder};
pub use error::{Error, Failure, Fault, Refusal, TftpError};
pub use event::{DropReason, Event, Lesson, Stats, Summary, TransferId};
pub use proto::Retransmit;
pub use server::{Builder, Events, Limits, Listening, Server, Stop, Stopper};
pub use store::{
    Dir, DirBuilder, Entry, EntryKind, Object, Request, Sink, Source, Storage, Store, StoreFn,
    WriteMode, store_fn,
};
pub use text::Name;
pub use wire::{Direction, ErrorCode, Malformed, Mode, OptionName, Options};

/// The protocol's machines and packets, for own event loops, fuzzers and test rigs. Outside
/// semantic versioning: these may change in any release.
pub mod unversioned {
    /// Every number in the house.
    pub mod limits {
        pub use crate::limits::*;
    }
    /// Which requests become transfers, and which transfers make room for them.
    pub mod admission {
        pub use crate::server::{Desk, Lease, Ports, Quota, Scope, Supply, Tid, Verdict, patience};
    }
    /// The two machines.
    pub mod proto {
        pub use crate::proto::*;
    }
    /// Bytes and packets.
    pub mod wire {
        pub use crate::wire::*;
    }
}

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
