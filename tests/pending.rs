//! Many transfers that wait for a slow backend, in a process of its own because threads are
//! counted.

#[path = "loopback/backend.rs"]
mod backend;
#[path = "loopback/rig.rs"]
mod rig;

use backend::*;
use rig::*;
use tftpool::Stop;

/// The threads of the pool.
fn workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a process file system");
    let names = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("tftp-worker")).count()
}

fn name(number: usize) -> String {
    format!("{}/{number}", KINDS[number % 3])
}

/// 1,000 transfers wait for a backend on a pool of 4 threads, some of them for the answer itself,
/// the others for their bytes. They cost no thread and no turn while others are served; then all of
/// them complete, and each gets its own file.
#[test]
fn a_thousand_transfers_that_wait_cost_no_thread_and_no_turn() {
    const WAITING: usize = 1000;
    const OTHERS: usize = 300;
    let backend = Backend::default();
    let server = start(calmly(builder(backend.store())).limits(|limits| {
        limits.workers = 4;
        limits.max_transfers = 2 * WAITING;
        limits.store_deadline = 4 * PATIENCE;
    }));
    let mut events = server.events();
    let mut clients: Vec<_> = (0..WAITING)
        .map(|number| {
            let mut client = Client::new(server.local_addr());
            client.ask(&name(number), &[]);
            client
        })
        .collect();
    // A request that found the socket of the server full comes again.
    let end = now() + PATIENCE;
    loop {
        fence(&server);
        let wakers = backend.0.wakers.lock().expect("no panic");
        let missing: Vec<_> = (0..WAITING)
            .filter(|number| !wakers.contains_key(number))
            .collect();
        drop(wakers);
        if missing.is_empty() {
            break;
        }
        assert!(now() < end, "{} requests did not arrive", missing.len());
        for number in missing {
            clients[number].shout(&rrq(&name(number), "octet", &[]));
        }
    }
    let mut others: Vec<_> = (0..4).map(|_| Client::new(server.local_addr())).collect();
    let mut turns = 0;
    for number in 0..OTHERS {
        assert_eq!(others[number % 4].get("file"), Ok(pattern(5000)));
        completed(&mut events);
        if number == OTHERS / 10 {
            turns = backend.asked(); // the last turn of those that wait is over
        }
    }
    assert_eq!(backend.asked(), turns, "one that waits has had a turn");
    let threads = workers();
    assert!(threads <= 4, "{threads} threads for a pool of 4");
    assert_eq!(server.stats().active as usize, WAITING);

    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..WAITING {
                backend.give(number, ALL);
            }
        });
        for (number, client) in clients.iter_mut().enumerate() {
            let first = client.data(1);
            let rest = client.rest(1, 512).expect("the rest");
            assert!([first, rest].concat() == content(number), "{number}");
        }
    });
    server.stop(Stop::Drain(PATIENCE));
    let stats = server.join().expect("an end");
    assert_eq!(stats.completed as usize, WAITING + OTHERS);
    assert_eq!((stats.failed, stats.active), (0, 0));
}
