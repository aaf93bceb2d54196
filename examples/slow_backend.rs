//! Files of a slow backend, which cost no thread while they are waited for:
//! `cargo run --example slow_backend -- [ADDRESS]`.
//!
//! One thread stands for a backend that is far away. Ten times a second it says of each file that
//! was asked for whether it exists, and then brings the next lines of it. `lines/300` is a file of
//! 300 lines; no other exists. Any number of clients may wait for such files beside each other.

use std::future::poll_fn;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use tftpool::{Refusal, Request, Server, Source, store_fn};

const PACE: Duration = Duration::from_millis(100);
const LINES_AT_ONCE: u32 = 100;

/// A file as far as it is known, shared by the backend and the transfer that waits for it.
#[derive(Clone)]
struct File(Arc<Mutex<State>>);

struct State {
    /// Whether it exists, once the backend has said so.
    exists: Option<bool>,
    /// Bytes that no block has taken.
    bytes: Vec<u8>,
    is_whole: bool,
    waker: Waker,
}

impl File {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The bytes of a file. Where there is none yet, `WouldBlock` parks the transfer.
impl Read for File {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.with(|state| {
            if state.bytes.is_empty() && !state.is_whole {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = state.bytes.len().min(out.len());
            out[..length].copy_from_slice(&state.bytes[..length]);
            state.bytes.drain(..length);
            Ok(length)
        })
    }
}

type Question = (Vec<u8>, File);

/// Asks the backend, and does not wait for what it says.
fn answer(request: &Request<'_>, backend: &Sender<Question>) -> Source {
    let file = File(Arc::new(Mutex::new(State {
        exists: None,
        bytes: Vec::new(),
        is_whole: false,
        waker: request.waker().clone(),
    })));
    let _ = backend.send((request.name.to_vec(), file.clone()));
    Source::future(poll_fn(move |_| match file.with(|state| state.exists) {
        None => Poll::Pending,
        Some(false) => Poll::Ready(Err(Refusal::not_found())),
        Some(true) => Poll::Ready(Ok(Source::reader(file.clone(), None))),
    }))
}

fn backend(questions: &Receiver<Question>) {
    let mut files: Vec<(u32, u32, File)> = Vec::new();
    loop {
        match questions.recv_timeout(PACE) {
            Ok((name, file)) => {
                let lines = name.strip_prefix(b"lines/").map(String::from_utf8_lossy);
                let lines = lines.and_then(|lines| lines.parse().ok());
                file.with(|state| state.exists = Some(lines.is_some()));
                files.push((0, lines.unwrap_or(0), file));
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        files.retain_mut(|(first, lines, file)| {
            let end = (*first + LINES_AT_ONCE).min(*lines);
            let text: String = (*first..end).map(|line| format!("line {line}\n")).collect();
            *first = end;
            let is_whole = end == *lines;
            let waker = file.with(|state| {
                state.bytes.extend(text.as_bytes());
                state.is_whole = is_whole;
                state.waker.clone()
            });
            // The transfer goes on, or the call is for nothing where it is over.
            waker.wake();
            !is_whole
        });
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:6969".into());
    let (sender, questions) = channel();
    std::thread::spawn(move || backend(&questions));
    let store = store_fn(move |request| Ok(answer(request, &sender)));
    let server = Server::builder(store).bind(address.parse()?).start()?;
    println!("serving on {}", server.local_addr());
    server.join()?;
    Ok(())
}
