//! tftpool
fn main() {}
