//! See `map::map`.
#![no_main]

#[path = "../map.rs"]
mod map;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| map::map(bytes));
