//! The endpoint by itself, with lanes made up for it.

mod rules;
mod world;
