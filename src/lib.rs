//! tftpool.
mod error;
mod event;
mod limits;
mod proto;
mod store;
mod sys;
mod wire;

/// The protocol's machines and packets, for own event loops, fuzzers and test rigs. Outside semantic versioning:
/// these may change in any release.
pub mod unversioned {
    pub use crate::{limits, proto, wire};
}
