//! The server as its clients see it: real sockets, real threads, one address of this machine.
//! Nothing here sleeps: tests wait for a packet or an event, and that something does *not* come is
//! known when a later request has been answered.

mod access;
mod addresses;
mod again;
mod backend;
mod changes;
mod crowd;
mod floods;
mod handles;
mod memory;
mod observed;
mod pending;
mod pending_uploads;
mod quotas;
mod reading;
mod requests;
mod rig;
mod room;
mod silence;
mod sources;
mod stopping;
mod stores;
mod uploads;
mod watchdog;
