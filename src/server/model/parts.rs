//! The smallest parts by themselves.

use super::admitted::{AdmittedRequest, Asked, StoreCall};
use super::desk::Tid;
use super::idle::{Idle, Wake};
use super::lane::Lane;
use super::mailbox::mailbox;
use super::network::Link;
use super::poller::poller;
use super::scheduler::Rng;
use super::sync::{Ordering, bounded, explore, now, thread, unbounded};
use super::transfer::Transfer;
use super::waiting::Waiting;
use super::{clock, network};
use crate::event::{Name, TransferId};
use crate::limits::LOOP_TICK;
use crate::wire::{Direction, Mode, Options};
use shuttle::rand::RngCore;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

fn admitted() -> Arc<AdmittedRequest> {
    let asked = Asked {
        direction: Direction::Read,
        name: Name::new(b"file"),
        mode: Mode::Octet,
        options: Options::default(),
    };
    let tid = Tid {
        peer: ([127, 0, 0, 1], 1000).into(),
        local: ([127, 0, 0, 1], 69).into(),
    };
    Arc::new(AdmittedRequest::new(TransferId(1), tid, asked, now()))
}

/// Tries every order of the steps of two threads.
fn in_every_order(test: impl Fn() + Send + Sync + 'static) {
    shuttle::check_dfs(test, None);
}

#[test]
fn a_store_call_is_ended_by_one_side_and_its_slot_is_given_back_once() {
    in_every_order(|| {
        let request = admitted();
        assert!(request.ask(request.arrived));
        let shared = Arc::clone(&request);
        let worker = thread::spawn(move || shared.answered());
        let has_lost_slot = request.is_slow();
        let is_abandoned = request.abandon();
        let (is_wanted, is_slow) = worker.join().expect("no panic");
        assert_ne!(is_wanted, is_abandoned);
        assert_eq!(is_slow, has_lost_slot, "the slot is given back by one");
        let ended = request.call();
        assert_eq!(ended == StoreCall::Done, is_wanted, "{ended:?}");
    });
}

#[test]
fn a_request_is_given_up_or_asked_for() {
    in_every_order(|| {
        let request = admitted();
        let shared = Arc::clone(&request);
        let worker = thread::spawn(move || {
            let is_asked = shared.ask(shared.arrived);
            // Without a socket it goes back into the queue.
            is_asked && shared.wait_again().is_none()
        });
        let is_given_up = request.give_up();
        assert!(
            !worker.join().expect("no panic"),
            "a queued request is not abandoned"
        );
        let stays = request.call() == StoreCall::Queued;
        assert_ne!(is_given_up, stays);
    });
}

#[test]
fn a_mailbox_loses_no_message_and_no_bell() {
    explore(|| {
        let (mut poller, _, waker) = poller().expect("a poller");
        let (mailbox, mail) = mailbox(2, waker);
        let senders = (0..2).map(|sender| {
            let mailbox = mailbox.clone();
            thread::spawn(move || (0..2).for_each(|number| mailbox.post((sender, number))))
        });
        let mut threads: Vec<_> = senders.collect();
        // What the loop looks at before it sleeps changes without a message.
        let news = Arc::new(AtomicBool::new(false));
        let (bell, flag) = (mailbox.clone(), Arc::clone(&news));
        threads.push(thread::spawn(move || {
            flag.store(true, Ordering::SeqCst);
            bell.ring();
        }));
        let (mut next, mut has_news) = ([0; 2], false);
        while next != [2; 2] || !has_news {
            let timeout = mail.before_sleep(|| {
                has_news |= news.load(Ordering::SeqCst);
                has_news.then_some(Duration::from_millis(5))
            });
            poller.wait(timeout);
            mail.after_sleep();
            while let Some((sender, number)) = mail.take() {
                assert_eq!(next[sender], number, "in their order");
                next[sender] += 1;
            }
        }
        let join = |it: thread::JoinHandle<()>| it.join().expect("no panic");
        threads.into_iter().for_each(join);
        // Nothing is waited for when the loop has gone.
        drop(mail);
        (0..3).for_each(|_| mailbox.post((0, 0)));
    });
}

#[test]
fn a_bell_without_a_message_ends_every_sleep() {
    const ROUNDS: usize = 4;
    explore(|| {
        let (mut poller, _, waker) = poller().expect("a poller");
        let (mailbox, mail) = mailbox::<()>(1, waker);
        let (news, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (told, heard) = (Arc::clone(&news), Arc::clone(&seen));
        let bell = thread::spawn(move || {
            for round in 1..=ROUNDS {
                told.store(round, Ordering::SeqCst);
                mailbox.ring();
                while heard.load(Ordering::SeqCst) < round {
                    thread::yield_now();
                }
            }
        });
        let mut known = 0;
        while known < ROUNDS {
            let has_news = || news.load(Ordering::SeqCst) > known;
            let timeout = mail.before_sleep(|| has_news().then_some(Duration::ZERO));
            poller.wait(timeout);
            mail.after_sleep();
            known = news.load(Ordering::SeqCst);
            seen.store(known, Ordering::SeqCst);
        }
        bell.join().expect("no panic");
    });
}

#[test]
fn every_job_finds_a_worker_and_every_worker_hears_of_the_end() {
    explore(|| {
        let idle = Arc::new(Idle::default());
        let (jobs, queue) = unbounded();
        let (done, results) = bounded(1);
        let workers = (0..3).map(|worker| {
            let (idle, queue, done) = (Arc::clone(&idle), queue.clone(), done.clone());
            thread::spawn(move || {
                loop {
                    while let Ok(job) = queue.try_recv() {
                        done.send(job).expect("a receiver");
                    }
                    // One has little patience and comes back at once.
                    let most = (worker == 0).then_some(LOOP_TICK);
                    if idle.sleep(most, || !queue.is_empty()) == Wake::Shutdown {
                        break;
                    }
                }
            })
        });
        let workers: Vec<_> = workers.collect();
        let mut wanted = 0;
        for job in 1..=3 {
            jobs.send(job).expect("a receiver");
            idle.wake();
            wanted += job;
        }
        let mut sum = 0;
        while sum < wanted {
            sum += results.recv_timeout(clock::NEVER).expect("a result");
        }
        idle.close();
        workers
            .into_iter()
            .for_each(|it| it.join().expect("no panic"));
    });
}

/// A transfer without a script, for a lane.
fn parked(id: TransferId) -> Waiting {
    let transfer = Transfer::new(id, Link::open(id), Waker::noop().clone(), Vec::new());
    Waiting::Transfer(Box::new(transfer))
}

/// A lane whose runner hears of nothing but packets, timers and wake-ups: no loop looks after it.
#[test]
fn a_runner_gives_every_transfer_its_turn_and_takes_every_job() {
    const TRANSFERS: u64 = 3;
    const JOB: u64 = 100;
    const SOON: Duration = Duration::from_millis(5);
    explore(|| {
        network::reset();
        let lane = Arc::new(Lane::new().expect("a lane"));
        let (jobs, queue) = unbounded();
        let (turns, results) = unbounded();
        let is_over = Arc::new(AtomicBool::new(false));
        for id in (1..=TRANSFERS).map(TransferId) {
            lane.enter(id);
            // The first two are parked before, and the last one by the other thread.
            if id.0 < TRANSFERS {
                let until = now() + clock::NEVER;
                let parked = lane.park(parked(id), Some(until));
                assert!(matches!(parked, Ok(false)));
            }
        }
        let runner = {
            let (lane, is_over) = (Arc::clone(&lane), Arc::clone(&is_over));
            thread::spawn(move || {
                assert!(lane.claim(0));
                while !is_over.load(Ordering::SeqCst) {
                    while let Ok(job) = queue.try_recv() {
                        turns.send(TransferId(job)).expect("a receiver");
                    }
                    while let Some(transfer) = lane.next() {
                        let id = transfer.id();
                        let until = now() + clock::NEVER;
                        assert!(lane.park(transfer, Some(until)).is_ok());
                        turns.send(id).expect("a receiver");
                    }
                    lane.poll(0, || !queue.is_empty() || is_over.load(Ordering::SeqCst));
                }
            })
        };
        let mut last = Some(parked(TransferId(TRANSFERS)));
        let mut rng = Rng(shuttle::rand::thread_rng().next_u64());
        let mut wanted = vec![1, 2, TRANSFERS, JOB];
        while !wanted.is_empty() {
            let id = wanted.swap_remove(rng.below(wanted.len()));
            match id {
                1 => network::arrive(TransferId(1)),
                2 => lane.resume(TransferId(2)),
                TRANSFERS => {
                    // A timer that comes before all others.
                    let last = last.take().expect("it is parked once");
                    assert!(lane.park(last, Some(now() + SOON)).is_ok());
                }
                _ => {
                    jobs.send(JOB).expect("a receiver");
                    lane.wake();
                }
            }
            let turn = results.recv_timeout(clock::NEVER).expect("a turn");
            assert_eq!(turn, TransferId(id));
        }
        // One that is in its turn is ended behind it.
        let ended = lane.take_or_recall(TransferId(1)).is_some() || {
            while lane.look(TransferId(1), |_| ()).is_none() {
                thread::yield_now();
            }
            lane.take_or_recall(TransferId(1)).is_some()
        };
        is_over.store(true, Ordering::SeqCst);
        lane.wake();
        runner.join().expect("no panic");
        assert!(ended && lane.count() == 2);
    });
}
