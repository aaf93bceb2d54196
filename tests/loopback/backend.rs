//! A slow backend for tests, and a store on it.
#![allow(dead_code)] // each test binary uses its part

use crate::rig::*;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use tftpool::{Object, Refusal, Request, Source, Store, store_fn};

pub(crate) const KINDS: [&str; 3] = ["future", "reader", "object"];
/// More than any file has.
pub(crate) const ALL: usize = 1 << 20;

/// A backend whose answers come when the test says so. It counts how often it is asked.
#[derive(Clone, Default)]
pub(crate) struct Backend(pub(crate) Arc<State>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) asked: AtomicUsize,
    /// Bytes that are there, by the number of the file.
    there: Mutex<HashMap<usize, usize>>,
    pub(crate) wakers: Mutex<HashMap<usize, Waker>>,
}

/// The content of a file.
pub(crate) fn content(number: usize) -> Vec<u8> {
    let mut content = pattern(1300 + number % 500);
    content[..8].copy_from_slice(&number.to_be_bytes());
    content
}

impl Backend {
    /// Bytes that are there.
    pub(crate) fn look(&self, number: usize, waker: &Waker) -> usize {
        // Before it looks: what comes in between is not missed.
        let mut wakers = self.0.wakers.lock().expect("no panic");
        wakers.insert(number, waker.clone());
        drop(wakers);
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let there = self.0.there.lock().expect("no panic");
        there.get(&number).copied().unwrap_or(0)
    }

    /// So many bytes are there from now on.
    pub(crate) fn give(&self, number: usize, bytes: usize) {
        self.0.there.lock().expect("no panic").insert(number, bytes);
        self.wake(number);
    }

    pub(crate) fn wake(&self, number: usize) {
        let waker = self
            .0
            .wakers
            .lock()
            .expect("no panic")
            .get(&number)
            .cloned();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn future(&self, number: usize) -> Source {
        let backend = self.clone();
        Source::future(poll_fn(move |context| {
            match backend.look(number, context.waker()) {
                0 => Poll::Pending,
                _ => Poll::Ready(Ok(Source::bytes(content(number)))),
            }
        }))
    }

    pub(crate) fn reader(&self, number: usize, request: &Request<'_>) -> Source {
        let backend = self.clone();
        let waker = request.waker().clone();
        Source::reader(
            Slow {
                content: content(number),
                number,
                backend,
                waker,
                offset: 0,
            },
            None,
        )
    }
}

struct Slow {
    content: Vec<u8>,
    number: usize,
    backend: Backend,
    waker: Waker,
    offset: usize,
}

impl Read for Slow {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = Object::read_at(self, out, self.offset as u64)?;
        self.offset += length;
        Ok(length)
    }
}

impl Object for Slow {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = offset as usize;
        let there = self.backend.look(self.number, &self.waker);
        let end = there.min(self.content.len()).min(offset + out.len());
        if end <= offset && offset < self.content.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = end.saturating_sub(offset);
        out[..length].copy_from_slice(&self.content[offset..offset + length]);
        Ok(length)
    }

    fn len(&self) -> u64 {
        self.content.len() as u64
    }

    /// Known when one more byte than there are is there.
    fn unchanged(&self) -> io::Result<bool> {
        match self.backend.look(self.number, &self.waker) > self.content.len() {
            true => Ok(true),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Backend {
    /// `future/N`, `reader/N` and `object/N` wait for file N; anything else does not.
    pub(crate) fn store(&self) -> impl Store + use<> {
        let backend = self.clone();
        store_fn(move |request| {
            let name = String::from_utf8_lossy(request.name).into_owned();
            let (kind, number) = name.split_once('/').unwrap_or((&name, "0"));
            let number = number.parse().map_err(|_| Refusal::not_found())?;
            Ok(match kind {
                "future" => backend.future(number),
                "reader" => backend.reader(number, request),
                "object" => Source::object(Slow {
                    content: content(number),
                    number,
                    backend: backend.clone(),
                    waker: request.waker().clone(),
                    offset: 0,
                }),
                _ => Source::bytes(pattern(5000)),
            })
        })
    }
}

/// Returns when the backend was asked so often, and not only by the store: what was asked is
/// parked, or about to be.
pub(crate) fn until_asked(backend: &Backend, more_than: usize) {
    let end = now() + PATIENCE;
    while backend.asked() <= more_than {
        assert!(now() < end, "the source is never asked");
        std::thread::yield_now();
    }
}
