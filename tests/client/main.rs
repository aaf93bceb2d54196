//! The client over real sockets: against servers that do what a test tells them, packet by packet,
//! and against our own.

#[path = "../loopback/rig.rs"]
mod rig;

mod fallback;
mod hostile;
mod patience;
mod script;
mod whole;
