//! tftpool.
mod error;
mod event;
mod limits;
mod proto;
mod store;
mod sys;
mod transfer;
mod wire;

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
