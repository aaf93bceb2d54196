//! tftpool.

mod error;
mod event;
mod limits;
mod proto;
mod server;
mod store;
mod sys;
mod transfer;
mod wire;

pub use error::{Error, Failure, Fault, Refusal};
pub use event::{DropReason, Event, Name, Stats, Summary, TransferId};
pub use proto::Retransmit;
pub use server::{Builder, Events, Limits, Listening, Server, Stop, Stopper};
pub use store::{Dir, DirBuilder, Request, Source, Store};
pub use wire::{Direction, ErrorCode, Malformed, Mode, OptionName, Options};

/// The protocol's machines and packets, for own event loops, fuzzers and test rigs. Outside semantic versioning:
/// these may change in any release.
pub mod unversioned {
    /// Every number in the house.
    pub mod limits {
        pub use crate::limits::*;
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
