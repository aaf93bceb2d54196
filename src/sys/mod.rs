//! The operating system with a safe face. The only place where `unsafe` may stand, each block with its reason.
//! Uses no other floor.
#![allow(unsafe_code)]

pub(crate) mod fs;
pub(crate) mod mapping;
