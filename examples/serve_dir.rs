//! Serves a directory: `cargo run --example serve_dir -- DIR [ADDRESS]`.

use tftpool::{Dir, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: serve_dir DIR [ADDRESS]")?;
    let address = arguments.next().unwrap_or("127.0.0.1:6969".into());

    let server = Server::builder(Dir::read_only(directory)?)
        .bind(address.parse()?)
        .start()?;
    let events = server.events(); // from here on: before the first client knows the address
    println!("serving on {}", server.local_addr());
    for event in events {
        println!("{event:?}");
    }
    println!("{:?}", server.join()?);
    Ok(())
}
