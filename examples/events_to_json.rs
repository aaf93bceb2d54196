//! Serves a directory and prints what happens as JSON, one object a line: `cargo run --example events_to_json -- DIR [ADDRESS]`.

use std::fmt::{Display, Write};
use tftpool::{Dir, Event, Server, Summary};

/// One line, member by member.
struct Line(String);

impl Line {
    fn new(event: &str) -> Self {
        Self(format!(r#"{{"event":"{event}""#))
    }

    fn number(mut self, key: &str, value: impl Display) -> Self {
        let _ = write!(self.0, r#","{key}":{value}"#);
        self
    }

    fn text(mut self, key: &str, value: impl Display) -> Self {
        let _ = write!(self.0, r#","{key}":""#);
        for letter in value.to_string().chars() {
            let _ = match letter {
                '"' | '\\' => write!(self.0, "\\{letter}"),
                _ if letter.is_control() => write!(self.0, "\\u{:04x}", u32::from(letter)),
                _ => write!(self.0, "{letter}"),
            };
        }
        self.0.push('"');
        self
    }

    fn summary(self, it: &Summary) -> Self {
        let line = self
            .number("id", it.id)
            .text("peer", it.peer)
            .text("file", String::from_utf8_lossy(it.name.as_bytes()))
            .number("bytes", it.bytes)
            .number("ms", it.duration.as_millis())
            .number("retransmits", it.retransmits)
            .number("torn", it.torn);
        match it.rtt {
            Some(rtt) => line.number("rtt_us", rtt.as_micros()),
            None => line,
        }
    }
}

fn line(event: &Event) -> Line {
    match event {
        Event::Request {
            id,
            peer,
            name,
            options,
            ..
        } => Line::new("request")
            .number("id", id)
            .text("peer", peer)
            .text("file", String::from_utf8_lossy(name.as_bytes()))
            .text("options", options),
        Event::Started {
            id,
            blksize,
            windowsize,
            size,
            ..
        } => {
            let line = Line::new("started")
                .number("id", id)
                .number("blksize", blksize)
                .number("windowsize", windowsize);
            match size {
                Some(size) => line.number("size", size),
                None => line,
            }
        }
        Event::Progress { id, bytes } => Line::new("progress")
            .number("id", id)
            .number("bytes", bytes),
        Event::Refused {
            peer,
            name,
            refusal,
            ..
        } => Line::new("refused")
            .text("peer", peer)
            .text("file", String::from_utf8_lossy(name.as_bytes()))
            .number("code", refusal.code().0)
            .text("reason", refusal),
        Event::Completed(summary) => Line::new("completed").summary(summary),
        Event::Probe(summary) => Line::new("probe").summary(summary),
        Event::Failed(summary, failure) => Line::new("failed")
            .summary(summary)
            .text("reason", failure)
            .text("fault", format!("{:?}", failure.fault())),
        Event::Dropped { peer, reason } => Line::new("dropped")
            .text("peer", peer)
            .text("reason", reason),
        Event::Lagged { missed } => Line::new("lagged").number("missed", missed),
        other => Line::new("other").text("what", format!("{other:?}")),
    }
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
    println!(
        "{}}}",
        Line::new("listening")
            .text("address", server.local_addr())
            .0
    );
    for event in events {
        println!("{}}}", line(&event).0);
    }
    Ok(())
}
