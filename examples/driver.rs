//! Puts files into a directory, serves them until one client has fetched each, and cleans up:
//! `cargo run --example driver -- ROOT FILE...`.

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use tftpool::{Driver, Event};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let root = arguments.next().ok_or("usage: driver ROOT FILE...")?;
    let driver = Driver::builder()
        .root(root)
        .host("127.0.0.1")
        .port(0)
        .open()?;

    let mut wanted = HashSet::new();
    for source in arguments {
        let source = Path::new(&source);
        let name = source.file_name().ok_or("a file without a name")?;
        driver.storage().write_from(name, File::open(source)?)?;
        wanted.insert(name.as_encoded_bytes().to_vec());
    }
    driver.start()?;
    let mut events = driver.events()?; // from here on: before the first client knows the address
    println!("serving on {}:{}", driver.host()?, driver.port());

    while !wanted.is_empty() {
        let Some(event) = events.next() else { break };
        if let Event::Completed(summary) = event {
            println!("{} has {}", summary.peer, summary.name);
            wanted.remove(summary.name.as_bytes());
        }
    }
    let stats = driver.stop()?;
    println!("{} files, {} octets", stats.completed, stats.bytes);
    driver.close()?; // the files are gone
    Ok(())
}
