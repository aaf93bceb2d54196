//! A rig for tests of firmware, of other servers, and of this one (feature `testing`).
//!
//! - [`serve`] starts a server in this process, on a port of its own; [`shelf`] is a store in
//!   memory.
//! - [`Profile`] is a boot loader: it asks as the real one does, with its options, its ports, its
//!   timers and its faults, of any server.
//! - [`Peer`] is a client that does what it is told, packet by packet.
//! - [`Relay`] stands between a client and a server and loses what a script says.
//!
//! ```
//! use tftpool::testing::{Fate, Profile, Relay, lose_blocks, pattern, serve, shelf};
//!
//! let server = serve(shelf([("boot/kernel", pattern(20_000))]));
//! let relay = Relay::start(server.local_addr(), lose_blocks([3, 7]));
//! for profile in Profile::all() {
//!     let boot = profile.hurried(50).boot(relay.address(), "boot/kernel").expect("a boot");
//!     assert_eq!(boot.content, pattern(20_000));
//! }
//! ```
//!
//! What goes wrong in a rig, such as a socket that can't be had, is a panic: there is nothing else
//! that a test could do.

mod peer;
mod profile;
mod relay;

pub use peer::{Peer, Reply, error, rrq, wrq};
pub use profile::{Boot, BootFailure, Hole, Probe, Profile};
pub use relay::{Fate, Passing, Relay, Towards, lose_blocks};

use crate::error::Refusal;
use crate::server::Server;
use crate::store::{Source, Store, store_fn};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a rig waits for what must come. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[allow(clippy::disallowed_methods)] // a client's clock
fn now() -> Instant {
    Instant::now()
}

/// Octets that repeat nowhere near, the same ones for the same length.
pub fn pattern(length: usize) -> Vec<u8> {
    (1..=length as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// A store that serves these files from memory, and nothing else.
pub fn shelf<const N: usize>(files: [(&str, Vec<u8>); N]) -> impl Store + use<N> {
    let files: HashMap<Vec<u8>, Arc<[u8]>> = files
        .into_iter()
        .map(|(name, octets)| (name.into(), octets.into()))
        .collect();
    store_fn(move |request| match files.get(request.name) {
        Some(octets) => Ok(Source::bytes(Arc::clone(octets))),
        None => Err(Refusal::not_found()),
    })
}

/// A server in this process, at a port of the system's choice on 127.0.0.1. Dropping it stops it.
///
/// # Panics
/// When it cannot be started.
pub fn serve(store: impl Store + 'static) -> Server {
    Server::builder(store)
        .bind(([127, 0, 0, 1], 0).into())
        .start()
        .expect("a server")
}
