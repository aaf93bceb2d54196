//! Serves contents that are made up when they are asked for:
//! `cargo run --example serve_memory -- [ADDRESS]`.

use std::sync::atomic::{AtomicU64, Ordering};
use tftpool::{Refusal, Request, Server, Source, store_fn};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// `store_fn` makes a store of a closure or function like this one. The call runs on a worker
/// thread and may block.
fn answer(request: &Request<'_>) -> Result<Source, Refusal> {
    match request.name {
        b"whoami" => Ok(Source::bytes(format!("{}\n", request.peer).into_bytes())),
        b"count" => {
            let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(Source::bytes(format!("{count}\n").into_bytes()))
        }
        // A million zeros that nobody keeps: each block is made when it is sent.
        b"zeros" => Ok(Source::read_at(
            |out, _| {
                out.fill(b'0');
                Ok(out.len())
            },
            1_000_000,
        )),
        _ => Err(Refusal::not_found()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:6969".into());
    let server = Server::builder(store_fn(answer))
        .bind(address.parse()?)
        .start()?;
    println!("serving on {}", server.local_addr());
    server.join()?;
    Ok(())
}
