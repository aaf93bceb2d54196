//! tftpool.
mod error;
mod event;
mod limits;
mod store;
mod sys;
mod wire;
