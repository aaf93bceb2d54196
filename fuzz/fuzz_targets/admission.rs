//! See `bodies::admission`.
#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code)]
mod bodies;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| bodies::admission(octets));
