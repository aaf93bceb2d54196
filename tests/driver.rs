//! One server inside a larger program: its life, its files, and what it leaves behind.

#[path = "loopback/rig.rs"]
mod rig;

use rig::*;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tftpool::{Driver, DriverBuilder, EntryKind, Error, OptionName, TftpError};

fn at(scratch: &Scratch) -> DriverBuilder {
    Driver::builder()
        .root(scratch.at("root"))
        .host("127.0.0.1")
        .port(0)
}

fn open(scratch: &Scratch) -> Driver {
    at(scratch).open().expect("a driver")
}

fn address(driver: &Driver) -> std::net::SocketAddr {
    (driver.host().expect("an address"), driver.port()).into()
}

fn names(driver: &Driver, directory: &str) -> Vec<String> {
    let entries = driver.storage().list(directory).expect("a directory");
    let name = |entry: tftpool::Entry| entry.name.to_str().expect("text").to_owned();
    entries.into_iter().map(name).collect()
}

/// Everything below a directory, by name.
fn tree(path: PathBuf) -> Vec<PathBuf> {
    let (mut waiting, mut found) = (vec![path], Vec::new());
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(&path).expect("a directory").flatten() {
            found.push(entry.path());
            if entry.file_type().expect("a type").is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

// ---- its life -----------------------------------------------------------------------------------

#[test]
fn it_starts_and_stops_any_number_of_times() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    driver
        .storage()
        .write("file", pattern(700))
        .expect("a file");
    assert!(!driver.is_running());
    assert_eq!(driver.port(), 0, "as it was asked for");
    for _ in 0..20 {
        driver.start().expect("a start");
        assert!(driver.is_running());
        let asked = address(&driver);
        assert_ne!(asked.port(), 0, "the real port");
        driver.start().expect("a second start does nothing");
        assert_eq!(address(&driver), asked);
        assert_eq!(fetch(asked, "file", &[]), Ok(pattern(700)));
        let stats = driver.stop().expect("a stop");
        assert_eq!((stats.completed, stats.active), (1, 0));
        assert!(!driver.is_running());
        std::net::UdpSocket::bind(asked).expect("a free port");
    }
}

#[test]
fn what_needs_a_running_server_says_so() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    let not_running = |result: Result<(), TftpError>| {
        let error = result.expect_err("it does not run");
        assert!(matches!(error, TftpError::ServerNotRunning), "{error}");
    };
    not_running(driver.stop().map(drop));
    not_running(driver.stats().map(drop));
    not_running(driver.events().map(drop));
    driver.start().expect("a start");
    driver.stop().expect("a stop");
    not_running(driver.stop().map(drop));
    driver.close().expect("nothing to do");
}

#[test]
fn a_start_that_fails_says_the_real_cause_and_can_be_tried_again() {
    let scratch = Scratch::new();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = taken.local_addr().expect("an address").port();
    let driver = at(&scratch).port(port).open().expect("a driver");
    let error = driver.start().expect_err("the port is taken");
    match &error {
        TftpError::Server(Error::Bind { address, cause }) => {
            assert_eq!(address.port(), port);
            assert_eq!(cause.kind(), io::ErrorKind::AddrInUse);
        }
        other => panic!("{other}"),
    }
    assert!(!driver.is_running());
    drop(taken);
    driver.start().expect("the port is free now");
    assert_eq!(driver.port(), port);

    let nowhere = at(&scratch).host("no such host").open().expect("a driver");
    let error = nowhere.start().expect_err("no host");
    assert!(matches!(error, TftpError::Host { .. }), "{error}");

    scratch.file("file", "");
    let error = Driver::builder().root(scratch.at("file/x")).open();
    let error = error.expect_err("no directory");
    assert!(matches!(error, TftpError::Server(Error::Directory { .. })));
}

/// Where the default route starts, as `ip` says; unspecified without one, `None` where `ip` is
/// missing.
fn default_source() -> Option<std::net::IpAddr> {
    for target in ["192.0.2.1", "2001:db8::1"] {
        let route = std::process::Command::new("ip")
            .args(["route", "get", target])
            .output();
        let Ok(route) = route else {
            assert!(std::env::var_os("CI").is_none(), "no ip command");
            eprintln!("skipped: no ip command to compare the address with");
            return None;
        };
        let said = String::from_utf8_lossy(&route.stdout).into_owned();
        let mut words = said.split_whitespace();
        if words.any(|word| word == "src") {
            return Some(words.next()?.parse().expect("an address"));
        }
    }
    Some(std::net::Ipv4Addr::UNSPECIFIED.into())
}

#[test]
fn without_a_host_it_serves_where_others_reach_this_machine() {
    let scratch = Scratch::new();
    let driver = at(&scratch).host("").open().expect("a driver");
    let host = driver.host().expect("an address");
    if let Some(wanted) = default_source() {
        assert_eq!(host, wanted);
    }
    driver.start().expect("a start");
    assert_eq!(driver.host().expect("an address"), host);
    driver.storage().write("file", "x").expect("a file");
    let asked = match host.is_unspecified() {
        true => ([127, 0, 0, 1], driver.port()).into(), // no default route here
        false => address(&driver),
    };
    let socket = std::net::UdpSocket::bind((host, 0)).expect("a socket");
    let got = fetch_over(&socket, asked, "file", tftpool::Mode::Octet, &[]);
    assert_eq!(got, Ok(b"x".to_vec()));
    let named = at(&scratch).host("localhost").open().expect("a driver");
    assert!(named.host().expect("an address").is_loopback());
}

#[test]
fn a_stop_lets_running_transfers_end_but_not_for_ever() {
    let scratch = Scratch::new();
    let driver = at(&scratch)
        .drain(Duration::from_millis(10))
        .limits(|limits| limits.timeout = PATIENCE)
        .open()
        .expect("a driver");
    driver
        .storage()
        .write("file", pattern(2000))
        .expect("a file");
    driver.start().expect("a start");
    let mut client = Client::new(address(&driver));
    client.ask("file", &[]);
    client.data(1);
    assert_eq!(driver.stop().expect("a stop").failed, 1);
    assert_eq!(client.error(), (0, "server is stopping".into()));

    let driver = at(&scratch).drain(PATIENCE).open().expect("a driver");
    driver.start().expect("a start");
    let mut client = Client::new(address(&driver));
    client.ask("file", &[]);
    client.data(1);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| driver.stop().expect("a stop"));
        assert!(client.rest(1, 512).is_ok());
        assert_eq!(stop.join().expect("a thread").completed, 1);
    });
}

/// A driver with one file, and a client that has got the first block of it when another thread has
/// begun to stop the driver.
fn with_a_draining_stop(driver: &Driver, then: impl FnOnce(Client)) {
    driver.storage().write("file", pattern(2000)).expect("it");
    driver.start().expect("a start");
    let mut client = Client::new(address(driver));
    client.ask("file", &[]);
    client.data(1);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| driver.stop().expect("a stop"));
        while driver.is_running() {
            std::thread::yield_now();
        }
        then(client);
        assert_eq!(stop.join().expect("a thread").completed, 1);
    });
}

/// Long enough for what should not happen to happen; nothing waits for it in vain where all is
/// well.
const A_WHILE: Duration = Duration::from_millis(200);

#[test]
fn a_close_beside_a_draining_stop_keeps_the_files_until_its_end() {
    let scratch = Scratch::new();
    let driver = at(&scratch).drain(PATIENCE).open().expect("a driver");
    with_a_draining_stop(&driver, |mut client| {
        std::thread::scope(|scope| {
            let (tell, closed) = std::sync::mpsc::channel();
            let driver = &driver;
            scope.spawn(move || tell.send(driver.close()));
            assert!(closed.recv_timeout(A_WHILE).is_err(), "it is still served");
            assert!(scratch.at("root/file").exists());
            assert_eq!(driver.port(), 0, "whoever asks does not wait");
            assert!(client.rest(1, 512).is_ok());
            closed.recv().expect("an end").expect("a close");
        });
    });
    assert_eq!(tree(scratch.at("root")), Vec::<PathBuf>::new());
}

#[test]
fn a_start_beside_a_draining_stop_gets_the_same_port() {
    let scratch = Scratch::new();
    // An address of its own: nobody else takes the port meanwhile.
    let free = std::net::UdpSocket::bind("127.0.0.77:0").expect("a socket");
    let asked = free.local_addr().expect("an address");
    drop(free);
    let driver = at(&scratch)
        .host("127.0.0.77")
        .port(asked.port())
        .drain(PATIENCE)
        .open()
        .expect("a driver");
    with_a_draining_stop(&driver, |mut client| {
        std::thread::scope(|scope| {
            let (tell, started) = std::sync::mpsc::channel();
            let driver = &driver;
            scope.spawn(move || tell.send(driver.start()));
            assert!(started.recv_timeout(A_WHILE).is_err(), "the port is taken");
            assert!(client.rest(1, 512).is_ok());
            started.recv().expect("an end").expect("a start");
        });
    });
    assert_eq!(fetch(asked, "file", &[]), Ok(pattern(2000)));
}

#[test]
fn many_threads_may_have_it() {
    let scratch = Scratch::new();
    let driver = Arc::new(open(&scratch));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let driver = Arc::clone(&driver);
            scope.spawn(move || {
                for round in 0..20 {
                    driver.start().expect("a start");
                    let name = format!("of {number}/{round}");
                    driver.storage().write(&name, &name).expect("a file");
                    let _ = (driver.stop(), driver.stats(), driver.host());
                    assert_eq!(driver.storage().read(&name).ok(), Some(name.into()));
                }
            });
        }
    });
    driver.close().expect("a close");
    assert_eq!(tree(scratch.at("root")), Vec::<PathBuf>::new());
}

#[test]
fn its_counters_know_how_often_a_file_was_found_mapped() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    driver
        .storage()
        .write("kernel", pattern(300_000))
        .expect("a file");
    driver.start().expect("a start");
    let options = [(OptionName::Blksize, 1428), (OptionName::Windowsize, 16)];
    for _ in 0..4 {
        assert_eq!(
            fetch(address(&driver), "kernel", &options),
            Ok(pattern(300_000))
        );
    }
    let stats = driver.stats().expect("it runs");
    assert_eq!(stats.mapping_hit_rate(), Some(0.75));
    // Never stale: what is written anew is served anew.
    driver
        .storage()
        .write("kernel", pattern(400_000))
        .expect("a file");
    assert_eq!(
        fetch(address(&driver), "kernel", &options),
        Ok(pattern(400_000))
    );
}

// ---- its files ----------------------------------------------------------------------------------

#[test]
fn files_are_written_read_and_served_by_one_name() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    let storage = driver.storage();
    driver.start().expect("a start");
    let reader = io::Cursor::new(pattern(100_000));
    assert_eq!(
        storage.write_from("/boot//arm/./x/../kernel", reader).ok(),
        Some(100_000)
    );
    for name in [
        "boot/arm/kernel",
        "/boot/arm/kernel",
        "boot/../boot/arm/kernel",
    ] {
        assert_eq!(storage.read(name).ok(), Some(pattern(100_000)), "{name}");
        assert_eq!(
            fetch(address(&driver), name, &[]),
            Ok(pattern(100_000)),
            "{name}"
        );
        assert!(storage.exists(name).expect("an answer"));
    }
    let entry = storage.stat("boot/arm/kernel").expect("a file");
    assert_eq!((entry.size, entry.kind), (100_000, EntryKind::File));
    assert!(entry.modified.elapsed().expect("in the past") < PATIENCE);
    assert_eq!(
        storage.stat("/").expect("the root").kind,
        EntryKind::Directory
    );

    assert_eq!(storage.copy("boot/arm/kernel", "copy").ok(), Some(100_000));
    storage
        .rename("copy", "boot/old/kernel")
        .expect("a new name");
    storage.create_dir("empty/er").expect("a directory");
    storage.create_dir("empty").expect("it is there");
    assert_eq!(names(&driver, "/"), ["boot", "empty"]);
    assert_eq!(names(&driver, "boot"), ["boot/arm", "boot/old"]);
    assert_eq!(storage.read("boot/old/kernel").ok(), Some(pattern(100_000)));
    assert!(!storage.exists("copy").expect("an answer"));

    storage.delete("boot/old/kernel").expect("a file");
    storage.delete("empty/er").expect("an empty directory");
    assert!(storage.delete("boot").is_err(), "it is not empty");
    assert!(storage.delete("missing").is_err());
    storage.remove_all("boot").expect("a tree");
    storage.remove_all("boot").expect("nothing is as good");
    assert_eq!(names(&driver, ""), ["empty"]);
    assert!(matches!(storage.read("empty"), Err(TftpError::File { .. })));
    let error = storage.read("missing").expect_err("no file").to_string();
    assert_eq!(error, "cannot read \"missing\": no such file or directory");
}

#[cfg(feature = "sha256")]
#[test]
fn a_hash_is_that_of_the_standard() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    driver.storage().write("abc", "abc").expect("a file");
    let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(driver.storage().hash("abc").ok().as_deref(), Some(wanted));
    driver
        .storage()
        .write("long", pattern(200_000))
        .expect("a file");
    let (one, two) = (driver.storage().hash("long"), driver.storage().hash("abc"));
    assert_ne!(one.ok(), two.ok());
}

#[test]
fn a_file_appears_when_it_is_complete_and_nothing_stays_of_one_that_fails() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(out.len())
        }
    }
    let scratch = Scratch::new();
    let driver = open(&scratch);
    let storage = driver.storage();
    storage.write("dir/file", "old").expect("a file");
    let error = storage
        .write_from("dir/file", Broken(3))
        .expect_err("a broken reader");
    assert!(
        matches!(&error, TftpError::File { cause, .. } if cause.kind() == io::ErrorKind::BrokenPipe)
    );
    assert_eq!(storage.read("dir/file").ok(), Some(b"old".to_vec()));
    assert!(storage.write("dir", "x").is_err(), "a directory is no file");
    let root = scratch.at("root");
    assert_eq!(
        tree(root.clone()),
        [root.join("dir"), root.join("dir/file")]
    );
}

/// Nothing is opened to be looked at: a socket cannot be, and a FIFO must not.
#[test]
fn names_of_directories_long_names_and_sockets_are_seen_as_what_they_are() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    let storage = driver.storage();
    storage.write("dir/file", "content").expect("a file");
    for name in ["dir/file/", "new/", "dir/file/."] {
        let is_name = |error| matches!(error, TftpError::Name { .. });
        assert!(storage.write(name, "x").is_err_and(is_name), "{name}");
        assert!(storage.read(name).is_err_and(is_name), "{name}");
        assert!(storage.copy(name, "copy").is_err_and(is_name), "{name}");
    }
    assert_eq!(storage.list("dir/").expect("a directory").len(), 1);
    storage.create_dir("made/").expect("a directory");

    let long = "n".repeat(256);
    assert!(!storage.exists(&long).expect("an answer"));
    let error = storage.write(&long, "x").expect_err("too long");
    assert!(error.to_string().contains("name too long"), "{error}");

    let socket = std::os::unix::net::UnixListener::bind(scratch.at("root/socket"));
    let seen = storage.stat("socket").expect("an entry");
    assert_eq!(seen.kind, EntryKind::Other);
    assert!(storage.exists("socket").expect("an answer"));
    assert!(storage.read("socket").is_err());
    drop(socket);
}

#[test]
fn no_name_and_no_link_leads_out() {
    use std::os::unix::fs::symlink;
    let scratch = Scratch::new();
    let secret = scratch.file("secret", "secret");
    let outside = scratch.at("outside");
    std::fs::create_dir(&outside).expect("a directory");
    let driver = open(&scratch);
    let storage = driver.storage();
    for (target, link) in [
        (&secret, "link"),
        (&outside, "dir"),
        (&scratch.at("missing"), "dangling"),
    ] {
        symlink(target, scratch.at("root").join(link)).expect("a link");
    }
    storage.write("inside/file", "inside").expect("a file");
    symlink("inside", scratch.at("root/within")).expect("a link");
    for name in ["../secret", "a/../../secret", "..", "", "/", "x\ny"] {
        let error = storage.write(name, "x").expect_err(name);
        assert!(matches!(error, TftpError::Name { .. }), "{name:?}: {error}");
        assert!(storage.remove_all(name).is_err(), "{name:?}");
        assert!(storage.rename("inside", name).is_err(), "{name:?}");
    }
    for name in ["link", "dangling", "dir/x", "link/x"] {
        assert!(storage.read(name).is_err(), "{name}");
        assert!(!storage.exists(name).expect("an answer"), "{name}");
    }
    assert!(storage.write("dir/x", "x").is_err());
    assert!(storage.create_dir("dir/x").is_err());
    assert!(storage.rename("inside/file", "dir/x").is_err());
    assert!(storage.delete("dir/x").is_err());
    // A link is neither followed nor replaced by what is written; it is a name to be removed, and
    // what it leads to stays.
    assert!(storage.write("link", "mine").is_err());
    storage.delete("link").expect("a link");
    storage.write("link", "mine").expect("a file");
    storage.remove_all("dir").expect("a link");
    storage.delete("dangling").expect("a link");
    assert_eq!(std::fs::read(&secret).ok(), Some(b"secret".to_vec()));
    assert_eq!(tree(outside), Vec::<PathBuf>::new());
    // One that stays inside is followed, as the server follows it.
    assert_eq!(storage.read("within/file").ok(), Some(b"inside".to_vec()));
    storage.write("within/new", "new").expect("a file");
    assert_eq!(storage.read("inside/new").ok(), Some(b"new".to_vec()));
    let kinds = storage.list("").expect("the root");
    let kinds = kinds.iter().map(|entry| entry.kind).collect::<Vec<_>>();
    assert_eq!(
        kinds,
        [EntryKind::Directory, EntryKind::File, EntryKind::Link]
    );
}

#[test]
fn a_tree_that_is_too_deep_is_not_removed_halfway_into_the_stack() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    let deep = "d/".repeat(70);
    driver.storage().create_dir(&deep).expect("directories");
    let error = driver.storage().remove_all("d").expect_err("too deep");
    assert!(matches!(error, TftpError::File { .. }), "{error}");
    driver
        .storage()
        .remove_all("d/".repeat(20))
        .expect("a part of it");
    driver.storage().remove_all("d").expect("the rest");
}

// ---- what it leaves behind
// ------------------------------------------------------------------------

#[test]
fn a_close_removes_what_was_created_and_nothing_else() {
    let scratch = Scratch::new();
    let theirs = scratch.file("root/theirs/file", "theirs");
    let overwritten = scratch.file("root/overwritten", "before");
    let driver = open(&scratch);
    let storage = driver.storage();
    driver.start().expect("a start");
    for name in [
        "mine",
        "theirs/mine",
        "new/deep/er/mine",
        "shared/mine",
        "replaced",
    ] {
        storage.write(name, "mine").expect("a file");
    }
    storage.write("overwritten", "after").expect("a file");
    storage.write("mine", "mine again").expect("a file");
    storage.rename("mine", "renamed").expect("a new name");
    storage.rename("new/deep", "new/name").expect("a new name");
    storage.copy("renamed", "copied").expect("a copy");
    storage
        .rename("theirs/file", "theirs/renamed")
        .expect("a new name");
    storage.write("deleted", "x").expect("a file");
    storage.delete("deleted").expect("a file");
    // Others use the same directory.
    scratch.file("root/deleted", "theirs");
    scratch.file("root/shared/theirs", "theirs");
    let other = scratch.file("root/replacement", "theirs");
    std::fs::rename(other, scratch.at("root/replaced")).expect("a new name");
    let mine: Vec<_> = storage.created();
    assert!(mine.contains(&"new/name/er/mine".into()), "{mine:?}");

    let asked = address(&driver);
    driver.close().expect("a close");
    assert!(!driver.is_running());
    std::net::UdpSocket::bind(asked).expect("a free port");
    let root = scratch.at("root");
    let left = [
        "deleted",
        "overwritten",
        "replaced",
        "shared",
        "shared/theirs",
        "theirs",
        "theirs/renamed",
    ];
    assert_eq!(tree(root.clone()), left.map(|name| root.join(name)));
    assert!(!theirs.exists());
    assert_eq!(std::fs::read(overwritten).ok(), Some(b"after".to_vec()));

    // It goes on, and dropping it is a close.
    driver.start().expect("a start");
    driver
        .storage()
        .write("again/mine", "mine")
        .expect("a file");
    assert_eq!(
        fetch(address(&driver), "again/mine", &[]),
        Ok(b"mine".to_vec())
    );
    drop(driver);
    assert_eq!(tree(root.clone()), left.map(|name| root.join(name)));
}

#[test]
fn a_close_keeps_a_file_that_got_the_number_of_one_that_was_created() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    let driver = open(&scratch);
    driver.storage().write("file", "mine").expect("a file");
    let path = scratch.at("root/file");
    let look = |path: &PathBuf| std::fs::symlink_metadata(path).expect("a file");
    let mine = look(&path);
    let Ok(birth) = mine.created() else {
        eprintln!("SKIPPED: this file system does not say when a file was made");
        return;
    };
    std::fs::remove_file(&path).expect("a file");
    // Others may be quicker to get the number, and some file systems never give it again.
    for number in 0..1000 {
        let theirs = loop {
            let theirs = scratch.file(format!("root/{number}"), "theirs");
            // The clock of file systems ticks every few milliseconds; within a tick they cannot be
            // told apart.
            if look(&theirs).created().ok() != Some(birth) {
                break theirs;
            }
            std::fs::remove_file(&theirs).expect("a file");
        };
        if look(&theirs).ino() == mine.ino() {
            std::fs::rename(theirs, &path).expect("a new name");
            break;
        }
    }
    if !path.exists() {
        eprintln!("SKIPPED: nobody gets the number again");
        return;
    }
    driver.close().expect("a close");
    assert_eq!(std::fs::read(&path).ok(), Some(b"theirs".to_vec()));
}

#[test]
fn what_a_close_could_not_remove_is_removed_by_the_next() {
    let scratch = Scratch::new();
    scratch.file("root/way/theirs", "theirs");
    let driver = open(&scratch);
    driver.storage().write("way/in/file", "x").expect("a file");
    driver.storage().write("other", "x").expect("a file");
    // A link to itself leads nowhere, and that is not the same as a file that is gone.
    let (way, aside) = (scratch.at("root/way"), scratch.at("aside"));
    std::fs::rename(&way, &aside).expect("a new name");
    std::os::unix::fs::symlink("way", &way).expect("a link");
    let error = driver.close().expect_err("it cannot be reached");
    assert!(matches!(error, TftpError::File { .. }), "{error}");
    let waiting = ["way/in", "way/in/file"].map(PathBuf::from);
    assert_eq!(driver.storage().created(), waiting);
    std::fs::remove_file(&way).expect("a link");
    std::fs::rename(&aside, &way).expect("the old name");
    driver.close().expect("a close");
    assert_eq!(tree(scratch.at("root")), [way.clone(), way.join("theirs")]);
    assert_eq!(driver.storage().created(), Vec::<PathBuf>::new());
}

#[test]
fn a_close_removes_nothing_where_that_was_not_wanted() {
    let scratch = Scratch::new();
    let driver = at(&scratch).remove_created_on_close(false);
    let driver = driver.open().expect("a driver");
    driver.storage().write("boot/file", "x").expect("a file");
    driver.close().expect("a close");
    drop(driver);
    assert!(scratch.at("root/boot/file").exists());
}

#[test]
fn a_root_that_was_replaced_is_served_from_the_next_start_on() {
    let scratch = Scratch::new();
    let driver = open(&scratch);
    driver.start().expect("a start");
    driver.stop().expect("a stop");
    std::fs::remove_dir(scratch.at("root")).expect("an empty directory");
    driver.start().expect("a start makes it again");
    driver.storage().write("file", "x").expect("a file");
    assert_eq!(fetch(address(&driver), "file", &[]), Ok(b"x".to_vec()));
    assert!(scratch.at("root/file").exists());
}
