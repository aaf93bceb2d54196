//! Many slow boards and few threads, in a process of its own because threads are counted.
//! `make bench-c10k` does the same with ten thousand of them.
#![allow(clippy::disallowed_methods, dead_code)] // the crowd reads the clock; a part of its report is for the benchmark

#[path = "../benches/c10k/crowd.rs"]
mod crowd;

use std::time::Duration;
use tftpool::testing::{pattern, shelf};
use tftpool::{Driver, Server};

/// As many as fit an embedder's defaults.
const BOARDS: usize = 450;
const BLOCKS: usize = 8;

/// The server's threads, and no other's.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a process file system");
    let names = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("tftp-")).count()
}

fn crowd_at(server: std::net::SocketAddr) -> usize {
    let content = pattern(BLOCKS * 512);
    let pause = Duration::from_millis(100);
    let mut most = 0;
    let report = crowd::fetch(
        server,
        "slow",
        &content,
        (BOARDS, pause),
        Duration::from_secs(120),
        |_| {
            most = most.max(threads());
        },
    );
    let report = report.expect("a crowd");
    assert_eq!((report.complete, report.failed), (BOARDS, 0), "{report:?}");
    most.max(threads())
}

#[test]
fn hundreds_of_slow_boards_need_few_threads() {
    let pool = tftpool::unversioned::limits::DEFAULT_WORKERS;
    let server = Server::builder(shelf([("slow", pattern(BLOCKS * 512))]));
    let server = server
        .bind(([127, 0, 0, 1], 0).into())
        .start()
        .expect("a server");
    let used = crowd_at(server.local_addr());
    assert!(used <= pool + 3, "{used} threads");
    assert_eq!(
        server.stats().completed as usize + server.stats().active as usize,
        BOARDS
    );
    drop(server);

    // The driver is the same server.
    let root = std::env::temp_dir().join(format!("tftpool-c10k-{}", std::process::id()));
    let driver = Driver::builder().root(&root).host("127.0.0.1").port(0);
    let driver = driver.open().expect("a driver");
    driver
        .storage()
        .write("slow", pattern(BLOCKS * 512))
        .expect("a file");
    driver.start().expect("a start");
    let used = crowd_at((driver.host().expect("an address"), driver.port()).into());
    assert!(used <= pool + 3, "{used} threads");
    drop(driver);
    std::fs::remove_dir(root).expect("an empty root");
}
