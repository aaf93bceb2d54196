//! The server as its clients see it: real sockets, real threads, one address of this machine.
//! Nothing here sleeps: tests wait for a packet or an event, and that something does *not* come is
//! known when a later request has been answered.

mod addresses;
mod again;
mod changes;
mod crowd;
mod floods;
mod handles;
mod memory;
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
