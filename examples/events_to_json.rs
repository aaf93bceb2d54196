//! Serves a directory and prints what happens as JSON, one object a line:
//! `cargo run --example events_to_json -- DIR [ADDRESS]`.

use serde_json::{Value, json};
use tftpool::{Dir, Event, Name, Server, Summary};

fn object(event: &Event) -> Value {
    match event {
        Event::Request {
            id,
            peer,
            name,
            options,
            ..
        } => json!({
            "event": "request",
            "id": id.to_string(),
            "peer": peer,
            "file": text(name),
            "options": options.to_string(),
        }),
        Event::Started {
            id,
            blksize,
            windowsize,
            size,
            ..
        } => json!({
            "event": "started",
            "id": id.to_string(),
            "blksize": blksize,
            "windowsize": windowsize,
            "size": size,
        }),
        Event::Progress { id, bytes } => json!({
            "event": "progress",
            "id": id.to_string(),
            "bytes": bytes,
        }),
        Event::Refused {
            peer,
            name,
            refusal,
            ..
        } => json!({
            "event": "refused",
            "peer": peer,
            "file": text(name),
            "code": refusal.code().0,
            "reason": refusal.to_string(),
        }),
        Event::Completed(summary) => ended("completed", summary),
        Event::Probe(summary) => ended("probe", summary),
        Event::Failed(summary, failure) => {
            let mut object = ended("failed", summary);
            object["reason"] = failure.to_string().into();
            object["fault"] = format!("{:?}", failure.fault()).into();
            object
        }
        Event::Dropped { peer, reason } => json!({
            "event": "dropped",
            "peer": peer,
            "reason": reason.to_string(),
        }),
        Event::Lagged { missed } => json!({ "event": "lagged", "missed": missed }),
        other => json!({ "event": "other", "what": format!("{other:?}") }),
    }
}

fn ended(event: &str, it: &Summary) -> Value {
    json!({
        "event": event,
        "id": it.id.to_string(),
        "peer": it.peer,
        "file": text(&it.name),
        "bytes": it.bytes,
        "ms": it.duration.as_millis() as u64,
        "retransmits": it.retransmits,
        "torn": it.torn,
        "rtt_us": it.rtt.map(|rtt| rtt.as_micros() as u64),
    })
}

fn text(name: &Name) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or("usage: events_to_json DIR [ADDRESS]")?;
    let address = arguments.next().unwrap_or("127.0.0.1:6969".into());

    let server = Server::builder(Dir::read_only(directory)?)
        .bind(address.parse()?)
        .start()?;
    let events = server.events();
    let address = server.local_addr();
    println!("{}", json!({ "event": "listening", "address": address }));
    for event in events {
        println!("{}", object(&event));
    }
    Ok(())
}
