//! What a server leaves behind, and what it costs while nobody asks: nothing. In a process of its
//! own, because descriptors and threads are counted.

#[path = "loopback/rig.rs"]
mod rig;

use rig::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tftpool::{Dir, OptionName, Stop, store_fn};

/// One test at a time: the whole process is looked at.
static ALONE: Mutex<()> = Mutex::new(());

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("a process file system")
        .count()
}

/// Threads of servers; those of the test harness come and go as they like.
fn threads() -> usize {
    switches().len()
}

/// A thread that was joined may take a moment to vanish from the list.
fn settles_at(what: &str, count: impl Fn() -> usize, wanted: usize) {
    let end = now() + PATIENCE;
    while count() > wanted {
        assert!(now() < end, "{} {what}, not {wanted}", count());
        std::thread::yield_now();
    }
}

#[test]
fn a_hundred_servers_leave_nothing_behind() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let scratch = Scratch::new();
    scratch.file("mapped", &pattern(200_000));
    let cycle = |round: usize| {
        let server = serve(Dir::read_only(scratch.path()).expect("a directory"));
        let asked = server.local_addr();
        assert!(fetch(asked, "mapped", &[(OptionName::Windowsize, 16)]).is_ok());
        assert!(fetch(asked, "missing", &[]).is_err());
        // Some in the middle of a transfer, some before their first word.
        let mut client = Client::new(asked);
        client.ask("mapped", &[]);
        client.data(1);
        client.ack(1);
        let other = Client::new(asked);
        other.shout(&rrq("mapped", "netascii", &[("blksize", "100")]));
        match round % 3 {
            0 => drop(server),
            1 => {
                server.stop(Stop::Now);
                server.join().expect("a server that stops in peace");
            }
            _ => {
                let (stopper, events) = (server.stopper(), server.events());
                drop(server);
                assert_eq!(
                    events
                        .filter(|event| matches!(event, tftpool::Event::Lagged { .. }))
                        .count(),
                    0
                );
                stopper.stop(Stop::Now);
            }
        }
        std::net::UdpSocket::bind(asked).expect("a free port");
    };
    cycle(0);
    let open = descriptors();
    (1..=100).for_each(cycle);
    settles_at("threads", threads, 0);
    settles_at("descriptors", descriptors, open);
}

#[test]
fn a_thousand_starts_and_stops_leave_nothing_behind() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let cycle = |_| {
        let server = serve(shelf([("file", pattern(100))]));
        let asked = server.local_addr();
        assert_eq!(Client::new(asked).get("file"), Ok(pattern(100)));
        server.stop(Stop::Now);
        let stats = server.join().expect("a server that stops in peace");
        assert_eq!(stats.requests, 1);
        std::net::UdpSocket::bind(asked).expect("a free port");
    };
    cycle(0);
    let open = descriptors();
    (1..1000).for_each(cycle);
    settles_at("threads", threads, 0);
    settles_at("descriptors", descriptors, open);
}

/// How often each of the server's threads has gone to sleep.
fn switches() -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .expect("a process file system")
        .flatten();
    let statuses =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    statuses
        .filter(|status| status.contains("Name:\ttftp-"))
        .map(|status| {
            let field = |name| {
                status
                    .lines()
                    .find_map(|line: &str| line.strip_prefix(name))
                    .expect("a field")
                    .trim()
            };
            let name = format!("{} {}", field("Name:"), field("Pid:"));
            (
                name,
                field("voluntary_ctxt_switches:").parse().expect("a number"),
            )
        })
        .collect()
}

/// Waits, on a socket that nobody writes to.
fn pause() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .set_read_timeout(Some(std::time::Duration::from_millis(300)))
        .expect("a timeout");
    assert!(socket.recv(&mut [0]).is_err());
}

#[test]
fn an_idle_server_sleeps() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let server = serve(shelf([("file", pattern(9000))]));
    let asked = server.local_addr();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert!(fetch(asked, "file", &[]).is_ok()));
        }
    });
    // Timers of transfers that are over may still be in the heap: give them time to run out.
    let end = now() + PATIENCE;
    loop {
        let before = switches();
        assert!(before.len() >= 2, "a loop and a worker: {before:?}");
        pause();
        if switches() == before {
            break;
        }
        assert!(now() < end, "it never sleeps: {before:?}, {:?}", switches());
    }
}

/// A thousand peers that wait for their timers cost a thread nothing either.
#[test]
fn quiet_transfers_hold_no_thread_awake() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let server = calm(shelf([("file", pattern(9000))]));
    let clients: Vec<_> = (0..100).map(|_| begun(&server)).collect();
    let end = now() + PATIENCE;
    loop {
        let before = switches();
        pause();
        if switches() == before {
            break;
        }
        assert!(now() < end, "it never sleeps: {before:?}, {:?}", switches());
    }
    clients.iter().for_each(Client::quiet);
}

/// A request that finds no free port tries again now and then; it does not go round between loop
/// and worker.
#[test]
fn waiting_for_a_port_costs_little() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let ports = free_ports(1);
    let store = shelf([("file", pattern(9000))]);
    let server = start(calmly(builder(store)).limits(|limits| limits.ports = Some(ports)));
    let mut events = server.events();
    let mut first = Client::new(server.local_addr());
    first.ask("file", &[]);
    first.data(1);
    first.ack(1);
    first.data(2);
    let sleeps = || switches().values().sum::<u64>();
    let before = sleeps();
    let mut second = Client::at(([127, 0, 0, 2], 0).into(), server.local_addr());
    insist(&mut second, &mut events, "file", &[]);
    assert_eq!(second.error(), (0, "server is busy".into()));
    let sleeps = sleeps() - before;
    assert!(sleeps < 1000, "{sleeps} times asleep within a second");
}

/// Workers that were started in place of stuck ones are there as long as those are stuck.
#[test]
fn threads_in_place_of_stuck_ones_go_again() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let gate = Gate::default();
    let inside = gate.clone();
    let server = start(
        builder(store_fn(move |request| {
            if request.name == b"slow" {
                inside.pass();
            }
            Ok(tftpool::Source::bytes(pattern(700)))
        }))
        .limits(|limits| limits.workers = 2),
    );
    let slow: Vec<_> = (0..5).map(|_| Client::new(server.local_addr())).collect();
    for client in &slow {
        client.shout(&rrq("slow", "octet", &[]));
    }
    gate.wait_for(5);
    assert_eq!(fetch(server.local_addr(), "file", &[]), Ok(pattern(700)));
    let loop_and_workers = 1 + 2;
    assert!(threads() > loop_and_workers);
    gate.open();
    settles_at("threads", threads, loop_and_workers);
    assert_eq!(fetch(server.local_addr(), "file", &[]), Ok(pattern(700)));
    drop(server);
    settles_at("threads", threads, 0);
}
