//! See `map::map`.
#![no_main]

#[path = "../map.rs"]
mod map;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| map::map(octets));
