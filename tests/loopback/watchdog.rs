//! What a service manager is told rests on: a reload that has been done, and a check that goes
//! through the loop and a worker.

use crate::rig::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use tftpool::{Refusal, Request, Source, Store, store_fn};

fn thread_name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

/// The loop alone could answer while every worker is blocked.
#[test]
fn a_check_is_answered_by_a_worker() {
    let server = serve(store_fn(|_| Ok(Source::bytes(vec![1; 100]))));
    let (sender, answers) = channel();
    let stopper = server.handle();
    stopper.check(move || sender.send(thread_name()).expect("a reader"));
    let thread = answers.recv_timeout(PATIENCE).expect("an answer");
    assert!(thread.starts_with("tftp-worker-"), "{thread}");
}

/// The only worker that there may be is blocked for good: another one takes its place.
#[test]
fn a_check_is_answered_while_one_worker_of_one_is_blocked() {
    let gate = Gate::default();
    let inside = gate.clone();
    let store = store_fn(move |_| {
        inside.pass();
        Ok(Source::bytes(vec![1; 100]))
    });
    let server = start(builder(store).limits(|limits| limits.workers = 1));
    let mut client = Client::new(server.local_addr());
    client.ask("file", &[]);
    gate.wait_for(1);
    let (sender, answers) = channel();
    server.handle().check(move || {
        let _ = sender.send(());
    });
    answers.recv_timeout(PATIENCE).expect("an answer");
    gate.open();
}

struct Slow {
    gate: Gate,
    is_reloaded: Arc<AtomicBool>,
}

impl Store for Slow {
    fn read(&self, _: &Request<'_>) -> Result<Source, Refusal> {
        Err(Refusal::not_found())
    }

    fn reload(&self) {
        self.gate.pass();
        self.is_reloaded.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_reload_is_reported_when_it_has_been_done() {
    let (gate, is_reloaded) = (Gate::default(), Arc::new(AtomicBool::new(false)));
    let server = serve(Slow {
        gate: gate.clone(),
        is_reloaded: Arc::clone(&is_reloaded),
    });
    let (sender, done) = channel();
    let stopper = server.handle();
    stopper.reload_then(move || {
        let _ = sender.send(is_reloaded.load(Ordering::SeqCst));
    });
    gate.wait_for(1);
    gate.open();
    assert_eq!(done.recv_timeout(PATIENCE), Ok(true));
    // A callback that panics ends no worker.
    stopper.reload_then(|| panic!("on purpose"));
    let (sender, answers) = channel();
    stopper.check(move || {
        let _ = sender.send(());
    });
    answers.recv_timeout(PATIENCE).expect("an answer");
}
