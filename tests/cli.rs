//! The command line as people meet it: help, wrong values, error texts, signals, a log that nobody
//! reads.

mod harness;

use harness::{LONG, Scratch, Server, ask, assert_same, first_block, names, run, text, tftpool};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs `tftpool` with these arguments to its end: the exit code and what it said.
fn said(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(tftpool().args(arguments));
    (output.status.code(), text(&output))
}

#[test]
fn help_names_every_option_with_its_default() {
    let (code, help) = said(&["serve", "--help"]);
    assert_eq!(code, Some(0));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (option, default) in [
        ("--file-directory <DIR>", ""),
        ("--serve-unreadable", "[default: refused]"),
        ("--allow-symlink-target <DIR>", "[default: only within DIR]"),
        ("--absolute-links <FROM>", "[default: root]"),
        ("--write <HOW>", "[default: none]"),
        ("--upload-dir <DIR>", "[default: DIR]"),
        ("--max-upload <SIZE>", "[default: 1G]"),
        ("--umask <BITS>", "[default: 022]"),
        ("--durable", "[default: when the system has it]"),
        ("--host <ADDR>", "[default: all IPv4 and IPv6 addresses]"),
        ("--port <PORT>", "[default: 69]"),
        ("--freebind", "[default: fail]"),
        ("--port-range <LO:HI>", "[default: any free port]"),
        ("--dont-fragment", "[default: allowed]"),
        (
            "--max-block-size <OCTETS>",
            "[default: what the route to the client carries in one piece]",
        ),
        ("--max-window-size <BLOCKS>", "[default: 32767]"),
        ("--timeout <TIME>", "[default: 1s]"),
        ("--retries <COUNT>", "[default: 5]"),
        ("--retransmit <WHEN>", "[default: adaptive]"),
        ("--min-progress <BLOCKS>", "[default: 16]"),
        ("--max-time <TIME>", "[default: 24h]"),
        (
            "--no-client-memory",
            "[default: smaller ones for 10 minutes]",
        ),
        ("--workers <COUNT>", "[default: 16]"),
        ("--store-deadline <TIME>", "[default: 10s]"),
        (
            "--max-transfers <COUNT>",
            "[default: what the descriptor limit allows, at most 65536]",
        ),
        ("--max-transfers-per-client <COUNT>", "[default: no limit]"),
        ("--max-unproven <COUNT>", "[default: all of them]"),
        (
            "--max-unproven-per-client <COUNT>",
            "[default: no limit of its own]",
        ),
        (
            "--max-unproven-per-network <COUNT>",
            "[default: no limit of its own]",
        ),
        ("--user <NAME>", "[default: nobody, when started as root]"),
        ("--verbose", "[default: one line per transfer]"),
        ("--quiet", ""),
    ] {
        let (_, after) = help
            .split_once(option)
            .unwrap_or_else(|| panic!("no {option} in {help}"));
        let own = after.split(" --").next().unwrap_or_default();
        assert!(own.contains(default), "{option} without {default}: {own}");
    }
}

#[test]
fn wrong_values_are_told_what_is_accepted() {
    for (option, value, accepted) in [
        ("--port", "65536", "from 0 to 65535"),
        ("--port", "tftp", "from 0 to 65535"),
        ("--max-block-size", "7", "from 8 to 65464"),
        ("--max-block-size", "65465", "from 8 to 65464"),
        ("--max-window-size", "0", "from 1 to 32767"),
        ("--timeout", "9ms", "from 10ms to 255s"),
        ("--timeout", "256", "from 10ms to 255s"),
        ("--retries", "101", "from 0 to 100"),
        ("--min-progress", "65536", "from 0 to 65535"),
        ("--max-time", "0s", "from 1s to 365d"),
        ("--max-time", "366d", "from 1s to 365d"),
        ("--workers", "0", "from 1 to 1024"),
        ("--store-deadline", "2h", "from 1s to 1h"),
        ("--max-transfers", "0", "from 1 to 65536"),
        ("--max-transfers-per-client", "0", "from 1 to 65536"),
        ("--max-unproven", "0", "from 1 to 65536"),
        ("--max-unproven-per-client", "0", "from 1 to 65536"),
        ("--max-unproven-per-network", "65537", "from 1 to 65536"),
        ("--port-range", "3000:2000", "from 1 to 65535"),
        ("--retransmit", "never", "adaptive, rfc"),
        ("--host", "127.0.0.1:69", "--port"),
        ("--write", "append", "none, create, overwrite, unique"),
        ("--absolute-links", "chroot", "root, host"),
        ("--max-upload", "0", "from 1 to 16777215T"),
        ("--umask", "1000", "from 000 to 777"),
        ("--umask", "8", "from 000 to 777"),
    ] {
        let (code, words) = said(&["serve", "/", option, value]);
        assert_eq!(code, Some(2), "{option} {value}: {words}");
        assert!(words.contains(accepted), "{option} {value}: {words}");
    }
    let (code, words) = said(&["serve", "/tmp", "--file-directory", "/tmp"]);
    assert_eq!(code, Some(2), "{words}");
}

#[test]
fn a_place_for_uploads_without_uploads_is_a_mistake() {
    let (code, words) = said(&["serve", "--port", "0", "/tmp", "--upload-dir", "/tmp"]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("--write"), "{words}");
}

/// Puts a file block by block; an ERROR, once one comes.
fn put(server: SocketAddr, name: &str, content: &[u8]) -> Result<(), (u16, String)> {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    let request = format!("\0\x02{name}\0octet\0");
    peer.send_to(request.as_bytes(), server).expect("sent");
    let (answer, tid) = next_datagram(&peer);
    if answer.starts_with(&[0, 5]) {
        return Err(harness::error(&answer));
    }
    assert_eq!(answer, [0, 4, 0, 0]);
    for number in 1..=(content.len() / 512 + 1) as u16 {
        let start = usize::from(number - 1) * 512;
        let block = &content[start..content.len().min(start + 512)];
        let number = number.to_be_bytes();
        let data = [&[0, 3], &number[..], block].concat();
        peer.send_to(&data, tid).expect("sent");
        let (answer, _) = next_datagram(&peer);
        if answer.starts_with(&[0, 5]) {
            return Err(harness::error(&answer));
        }
        assert_eq!(answer, [&[0, 4], &number[..]].concat());
    }
    Ok(())
}

/// A disk that is full, once by its size and once by the limit for one file, which comes with a
/// signal.
#[test]
fn a_full_disk_is_error_3_and_nothing_is_left() {
    let root = Scratch::new();
    harness::mode(root.path(), 0o777);
    let path = root.path().to_str().expect("UTF-8");
    let serve = format!(
        "exec {} serve --host 127.0.0.1 --port 0 --write create {path}",
        env!("CARGO_BIN_EXE_tftpool")
    );
    let small_disk =
        format!("mount -t tmpfs -o size=64k,mode=777 none {path} && {serve} --user root");
    let mount = ["--mount", "sh", "-c"];
    let may_mount = Command::new("unshare")
        .args(mount)
        .arg(format!("mount -t tmpfs none {path}"))
        .stderr(Stdio::null())
        .status();
    for (is_disk, script) in [
        (true, small_disk),
        (false, format!("ulimit -f 100; {serve}")),
    ] {
        let mut command;
        if is_disk {
            if !may_mount.as_ref().is_ok_and(|status| status.success()) {
                harness::skip("this user may not mount a small disk");
                continue;
            }
            command = Command::new("unshare");
            command.args(mount).arg(script);
        } else {
            command = Command::new("sh");
            command.arg("-c").arg(script);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(Stdio::null());
        let server = Server::spawn(command);
        let large = harness::content(200_000);
        for _ in 0..2 {
            let result = put(server.address(), "large", &large);
            assert_eq!(result, Err((3, "disk full".to_owned())));
        }
        let line = server.line_with("failed");
        assert!(line.contains("upload=\"large\""), "{line}");
        // There is room again, and the name is free.
        let fitting = put(server.address(), "large", &large[..40_000]);
        assert_eq!(fitting, Ok(()), "a small disk: {is_disk}");
        assert!(server.line_with("done").contains("bytes=40000"));
        let root = format!("/proc/{}/root{path}", server.pid());
        let names = std::fs::read_dir(root).expect("the server's own view");
        assert_eq!(names.count(), 1);
    }
}

/// Killed in mid-transfer where files have names from the beginning, as without `/proc`: the next
/// start removes the leftover, and nothing else.
#[test]
fn leftovers_of_a_crash_are_removed_at_the_next_start() {
    let root = Scratch::new();
    root.file("inside/.tftpool-mine", b"no such name");
    let mut left = vec![".tftpool-mine".to_owned()];
    if nix::unistd::geteuid().is_root() {
        // Root's, while the server is nobody.
        root.file("inside/.tftpool-0123456789abcdef", b"somebody else's");
        left.insert(0, ".tftpool-0123456789abcdef".to_owned());
    }
    harness::mode(&root.path().join("inside"), 0o777);
    let path = root.path().to_str().expect("UTF-8");
    let script = format!(
        "mount -t tmpfs none /proc &&
         exec {} serve --host 127.0.0.1 --port 0 --write create {path}",
        env!("CARGO_BIN_EXE_tftpool")
    );
    let mount = ["--mount", "sh", "-c"];
    let may_mount = Command::new("unshare")
        .args(mount)
        .arg("mount -t tmpfs none /proc")
        .stderr(Stdio::null())
        .status();
    if !may_mount.is_ok_and(|status| status.success()) {
        harness::skip("this user may not mount anything over /proc");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(mount).arg(script).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut killed = Server::spawn(command);

    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    let request = b"\0\x02inside/file\0octet\0";
    peer.send_to(request, killed.address()).expect("sent");
    let (answer, tid) = next_datagram(&peer);
    assert_eq!(answer, [0, 4, 0, 0]);
    let data = [&[0, 3, 0, 1], &harness::content(512)[..]].concat();
    peer.send_to(&data, tid).expect("sent");
    assert_eq!(next_datagram(&peer).0, [0, 4, 0, 1]);
    let begun = names(root.at("inside"));
    assert_eq!(begun.len(), left.len() + 1, "{begun:?}");

    // One that starts beside it sees that it is still written.
    let server = Server::start(root.path(), &["--write", "create"]);
    assert_eq!(names(root.at("inside")), begun);
    drop(server);
    killed.signal(Signal::SIGKILL);
    killed.wait(LONG);
    assert_eq!(names(root.at("inside")), begun);
    drop(Server::start(root.path(), &[]));
    assert_eq!(names(root.at("inside")), begun);

    let server = Server::start(root.path(), &["--write", "create"]);
    assert_eq!(names(root.at("inside")), left);
    let said = server.before.iter().any(|line| line.contains("count=1"));
    assert!(said, "{:?}", server.before);
}

#[test]
fn a_missing_directory_is_named() {
    let (code, words) = said(&["serve", "--port", "0", "/no/such/directory"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        words,
        "tftpool: cannot open /no/such/directory: no such file or directory\n"
    );
}

#[test]
fn without_a_directory_there_is_a_hint() {
    let usual = ["/srv/tftp", "/var/lib/tftpboot"];
    if let Some(usual) = usual.iter().find(|path| Path::new(path).is_dir()) {
        // This machine has one: that is served.
        let mut command = tftpool();
        command.args(["serve", "--host", "127.0.0.1", "--port", "0"]);
        let banner = Server::spawn(command).banner.clone();
        assert!(banner.contains(&format!("serving {usual} on")), "{banner}");
        return;
    }
    let (code, words) = said(&["serve", "--port", "0"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        words,
        "tftpool: no directory to serve: neither /srv/tftp nor /var/lib/tftpboot exists (name one: tftpool serve DIR)\n"
    );
}

#[test]
fn a_taken_port_is_explained() {
    let root = Scratch::new();
    let other = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("bound");
    let port = address.port().to_string();
    let path = root.path().to_str().expect("UTF-8");
    let (code, words) = said(&["serve", "-q", "--host", "127.0.0.1", "--port", &port, path]);
    assert_eq!(code, Some(1));
    assert!(
        words.starts_with(&format!(
            "tftpool: cannot bind {address}: address already in use ("
        )),
        "{words}"
    );
}

#[test]
fn an_unknown_host_or_user_is_named() {
    let root = Scratch::new();
    let path = root.path().to_str().expect("UTF-8");
    let (code, words) = said(&["serve", "-q", "--host", "no-such-host.invalid", path]);
    assert_eq!(code, Some(1));
    assert!(
        words.starts_with("tftpool: cannot find host no-such-host.invalid: "),
        "{words}"
    );
    let (code, words) = said(&[
        "serve",
        "-q",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--user",
        "no-such-user",
        path,
    ]);
    assert_eq!(code, Some(1));
    assert!(
        words.starts_with("tftpool: cannot run as no-such-user: "),
        "{words}"
    );
}

/// A directory that only root can read is refused at the start, not at the first request.
#[test]
fn a_directory_that_the_new_user_cannot_read_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root can give up root's rights");
        return;
    }
    let root = Scratch::new();
    harness::mode(root.path(), 0o700);
    let path = root.path().to_str().expect("UTF-8");
    let (code, words) = said(&["serve", "-q", "--host", "127.0.0.1", "--port", "0", path]);
    assert_eq!(code, Some(1));
    assert_eq!(
        words,
        format!(
            "tftpool: cannot open {path}: permission denied (as user nobody; let that user read it, or choose another with --user)\n"
        )
    );
}

#[test]
fn the_banner_is_one_line_at_every_log_level() {
    let root = Scratch::new();
    let path = root.path().display();
    for level in ["-qq", "-q", "-v"] {
        let server = Server::start(root.path(), &[level]);
        let address = server.address();
        assert_ne!(address.port(), 0);
        assert_eq!(
            server.banner,
            format!("tftpool: serving {path} on {address}")
        );
        assert_eq!(
            server.before.is_empty(),
            level != "-v",
            "{:?}",
            server.before
        );
    }
}

#[test]
fn every_burst_and_answer_is_logged_when_asked_for() {
    let root = Scratch::new();
    root.file("file", &harness::content(600));
    let server = Server::start(root.path(), &["-vv"]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    peer.send_to(b"\0\x01file\0octet\0", server.address())
        .expect("sent");
    let (_, tid) = next_datagram(&peer);
    server.line_with(" TRACE send id=1 Data { first: 1, end: 2 }");
    peer.send_to(&[0, 4, 0, 1], tid).expect("sent");
    server.line_with(" TRACE got id=1 Ack { block: 1 }");
    server.line_with(" TRACE send id=1 Data { first: 2, end: 3 }");
}

#[test]
fn sigterm_and_sigint_stop_gracefully_and_count() {
    let root = Scratch::new();
    root.file("file", b"content");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(root.path(), &[]);
        ask(server.address(), "missing");
        server.signal(signal);
        let totals = server.line_with(" INFO stopped ");
        assert!(
            totals.contains(" completed=0 failed=0 refused=1 "),
            "{totals}"
        );
        assert_eq!(server.wait(LONG).code(), Some(0));
    }
}

/// The next datagram and who sent it. A machine that was halted and goes on interrupts a call with
/// a timeout.
fn next_datagram(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut datagram = vec![0; 600];
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((length, sender)) => return (datagram[..length].to_vec(), sender),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

/// Asks for a file with these options; the OACK, and a socket that is connected to who sent it.
fn offered(server: SocketAddr, options: &[u8]) -> (Vec<u8>, UdpSocket) {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    let request = [b"\0\x01file\0octet\0", options].concat();
    peer.send_to(&request, server).expect("sent");
    let (oack, tid) = next_datagram(&peer);
    peer.connect(tid).expect("a peer");
    (oack, peer)
}

/// What an operator reads when a client is granted less than it asks for.
#[test]
fn what_is_learned_about_a_client_is_one_line() {
    let root = Scratch::new();
    root.file("file", &harness::content(2000));
    let wanted = b"blksize\x001000\0";
    let oack = b"\0\x06blksize\x001000\0";
    let refuse_twice = |server: &Server| {
        for _ in 0..2 {
            // It has fetched something, and refuses what was never asked for a size.
            let (first, peer) = offered(server.address(), b"blksize\x002000\0");
            assert_eq!(first, b"\0\x06blksize\x002000\0");
            for block in 0..=1 {
                peer.send(&[0, 4, 0, block]).expect("sent");
                next_datagram(&peer);
            }
            peer.send(&[0, 4, 0, 2]).expect("sent");
            server.line_with(" done peer=");
            let (first, peer) = offered(server.address(), wanted);
            assert_eq!(first, oack);
            peer.send(b"\0\x05\0\x08no\0").expect("sent");
            server.line_with(" failed peer=");
        }
    };
    let server = Server::start(root.path(), &[]);
    refuse_twice(&server);
    let line = server.line_with(" learned ");
    let words = r#" INFO learned peer=127.0.0.1 options=none reason="option replies were refused""#;
    assert!(line.ends_with(words), "{line}");
    assert_eq!(first_block(&offered(server.address(), wanted).0).len(), 512);

    let server = Server::start(root.path(), &["--no-client-memory"]);
    refuse_twice(&server);
    assert_eq!(offered(server.address(), wanted).0, oack);
    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGINT);
    loop {
        let line = server.line_with("");
        assert!(!line.contains(" learned "), "{line}");
        if line.contains(" stopped completed=2 ") {
            break;
        }
    }

    let server = Server::start(root.path(), &["--timeout", "0.01", "--retries", "4"]);
    let (_, peer) = offered(server.address(), b"blksize\x002000\0");
    peer.send(&[0, 4, 0, 0]).expect("sent");
    let line = server.line_with(" learned ");
    let words = r#" INFO learned peer=127.0.0.1 blksize=1428 reason="first block never arrived""#;
    assert!(line.ends_with(words), "{line}");
}

/// A transfer that nobody continues holds up the first signal for a while, the second not at all.
#[test]
fn a_second_signal_stops_at_once() {
    let root = Scratch::new();
    root.file("file", &harness::content(5000));
    let mut server = Server::start(root.path(), &["-v", "--timeout", "60"]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    peer.send_to(b"\0\x01file\0octet\0", server.address())
        .expect("sent");
    let (_, tid) = next_datagram(&peer);
    peer.send_to(&[0, 4, 0, 1], tid).expect("sent");
    next_datagram(&peer);
    server.signal(Signal::SIGTERM);
    server.line_with(" INFO stopping");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(Duration::from_secs(4)).code(), Some(0));
}

#[test]
fn sighup_serves_a_release_that_was_swapped_in() {
    let scratch = Scratch::new();
    scratch.file("first/file", b"first");
    scratch.file("second/file", b"second");
    let current = scratch.path().join("current");
    symlink("first", &current).expect("a link");
    let server = Server::start(&current, &["-v"]);
    assert_eq!(first_block(&ask(server.address(), "file")), b"first");
    std::fs::remove_file(&current).expect("own link");
    symlink("second", &current).expect("a link");
    assert_eq!(first_block(&ask(server.address(), "file")), b"first");
    server.signal(Signal::SIGHUP);
    server.line_with(" INFO reloading");
    // The loop takes the reload and the requests in its own order: ask until the new release is
    // there.
    let fresh = (0..1000).any(|_| first_block(&ask(server.address(), "file")) == b"second");
    assert!(fresh);
}

/// More log lines than pipe and queue hold: transfers go on, and so does the exit.
#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let root = Scratch::new();
    root.file("file", b"content");
    let mut command = tftpool();
    command
        .args(["serve", "--host", "127.0.0.1", "--port", "0", "-vvv"])
        .arg(root.path());
    let (mut server, unread) = Server::spawn_unread(command);
    let long = "x".repeat(200);
    for _ in 0..6000 {
        ask(server.address(), &long);
    }
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(LONG).code(), Some(0));
    drop(unread);
}

#[test]
fn lost_lines_are_counted_once_lines_flow_again() {
    use std::io::BufRead;
    let root = Scratch::new();
    let mut command = tftpool();
    command
        .args(["serve", "--host", "127.0.0.1", "--port", "0", "-vvv"])
        .arg(root.path());
    let (mut server, unread) = Server::spawn_unread(command);
    let long = "x".repeat(200);
    for _ in 0..6000 {
        ask(server.address(), &long);
    }
    let reader =
        std::thread::spawn(move || unread.lines().map_while(Result::ok).collect::<Vec<_>>());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(LONG).code(), Some(0));
    let lines = reader.join().expect("read");
    let lost: u64 = lines
        .iter()
        .filter_map(|line| {
            line.strip_prefix("tftpool: ")?
                .strip_suffix(" log lines lost")
        })
        .map(|count| count.parse::<u64>().expect("a number"))
        .sum();
    let refused = lines
        .iter()
        .filter(|line| line.contains(" refused peer="))
        .count() as u64;
    assert!(
        lost > 0 && lost + refused >= 6000,
        "{lost} lost, {refused} kept"
    );
}

#[test]
fn a_closed_stderr_is_no_trouble() {
    let root = Scratch::new();
    root.file("file", b"content");
    let mut command = tftpool();
    command
        .args(["serve", "--host", "127.0.0.1", "--port", "0"])
        .arg(root.path());
    let (mut server, stderr) = Server::spawn_unread(command);
    drop(stderr);
    for _ in 0..100 {
        ask(server.address(), "missing");
    }
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(LONG).code(), Some(0));
}

/// The server with so many descriptors.
fn limited_to(descriptors: u32, root: &Path, options: &[&str]) -> Command {
    limited(
        &format!("ulimit -n {descriptors}"),
        env!("CARGO_BIN_EXE_tftpool"),
        root,
        options,
    )
}

/// The server after a word of the shell.
fn limited(limit: &str, program: &str, root: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{limit} && exec \"$@\"")])
        .args(["sh", program])
        .args(["serve", "--host", "127.0.0.1", "--port", "0"])
        .args(options)
        .arg(root)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What the server says it can take at once, it can: a small file costs a transfer two descriptors.
#[test]
fn there_are_descriptors_for_all_the_transfers_there_may_be() {
    let root = Scratch::new();
    root.file("file", &harness::content(2000));
    let server = Server::spawn(limited_to(164, root.path(), &["--timeout", "60"]));
    let limits = &server.before[0];
    assert!(limits.contains("max_transfers=50 "), "{limits}");
    let peers: Vec<_> = (0..50)
        .map(|number| {
            // The last places are for addresses that have none.
            let address = [127, 0, 0, 1 + number];
            let peer = UdpSocket::bind(SocketAddr::from((address, 0))).expect("a free port");
            peer.set_read_timeout(Some(LONG)).expect("a timeout");
            peer.send_to(b"\0\x01file\0octet\0", server.address())
                .expect("sent");
            let (first, tid) = next_datagram(&peer);
            assert_eq!(first_block(&first).len(), 512);
            peer.send_to(&[0, 4, 0, 1], tid).expect("sent");
            assert_eq!(next_datagram(&peer).0[..4], [0, 3, 0, 2]);
            (peer, tid)
        })
        .collect();
    for (peer, tid) in peers {
        peer.send_to(b"\0\x05\0\0enough\0", tid).expect("sent");
    }
}

/// Half-open transfers give their descriptors to a request whose file cannot be opened for want of
/// one.
#[test]
fn half_open_transfers_give_their_descriptors_to_the_next_request() {
    let root = Scratch::new();
    root.file("file", &harness::content(2000));
    let options = ["--timeout", "60", "--max-transfers", "100"];
    let server = Server::spawn(limited_to(120, root.path(), &options));
    let silent: Vec<_> = (0..60)
        .map(|_| {
            let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            peer.set_read_timeout(Some(LONG)).expect("a timeout");
            let request = b"\0\x01file\0octet\0";
            peer.send_to(request, server.address()).expect("sent");
            peer
        })
        .collect();
    // Each was answered, or told that the server is busy after it had waited for a second.
    for peer in &silent {
        next_datagram(peer);
    }
    assert_eq!(first_block(&ask(server.address(), "file")).len(), 512);
}

/// More transfers than descriptors: those that find no socket are refused after a while, the others
/// go on to their end, and when they are over there is room again.
#[test]
fn running_out_of_descriptors_is_survived() {
    let root = Scratch::new();
    root.file("file", &harness::content(2000));
    let options = ["--timeout", "60", "--max-transfers", "200"];
    let command = limited_to(60, root.path(), &options);
    let mut server = Server::spawn(command);
    let asking = || {
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        peer.set_read_timeout(Some(LONG)).expect("a timeout");
        peer.send_to(b"\0\x01file\0octet\0", server.address())
            .expect("sent");
        peer
    };
    // The transfer's port and its first block, which is acknowledged, or nothing where it is
    // refused.
    let begin = |peer: &UdpSocket| {
        let (first, tid) = next_datagram(peer);
        if first.starts_with(&[0, 5]) {
            // No socket was left, or one for the transfer but none for its file.
            let (code, words) = harness::error(&first);
            let busy = ["server is busy", "server out of resources"];
            assert!(code == 0 && busy.contains(&&*words), "{code} {words}");
            return None;
        }
        assert_eq!(first_block(&first).len(), 512);
        peer.send_to(&[0, 4, 0, 1], tid).expect("sent");
        Some((tid, first[4..].to_vec()))
    };
    let peers: Vec<_> = (0..100).map(|_| asking()).collect();
    let (mut served, mut refused) = (Vec::new(), 0);
    // Whoever is answered acknowledges at once, so that nobody has to make room for another.
    let mut waiting: Vec<_> = peers.iter().collect();
    while !waiting.is_empty() {
        waiting.retain(|peer| {
            peer.set_nonblocking(true).expect("a socket");
            let is_answered = peer.peek_from(&mut [0; 600]).is_ok();
            peer.set_nonblocking(false).expect("a socket");
            if !is_answered {
                return true;
            }
            match begin(peer) {
                Some((tid, first)) => {
                    served.push((peer.try_clone().expect("a socket"), tid, first))
                }
                None => refused += 1,
            }
            false
        });
        std::thread::yield_now();
    }
    served.retain_mut(|(peer, _, got)| {
        // On a machine that stood still for a second it may have been too late for some.
        peer.set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        let mut next = [0; 600];
        let Ok(length) = peer.recv(&mut next) else {
            return false;
        };
        assert_eq!(next[..4], [0, 3, 0, 2]);
        got.extend_from_slice(&next[4..length]);
        true
    });
    assert!(refused > 30 && served.len() > 20, "{refused} refused");
    // It goes on before it has been silent for so long that it makes room.
    let (peer, tid, mut got) = served.swap_remove(0);
    peer.send_to(&[0, 4, 0, 2], tid).expect("sent");
    for block in 3..=4 {
        // Earlier ones have come again meanwhile.
        let octets = loop {
            let (data, _) = next_datagram(&peer);
            assert_eq!(data[..3], [0, 3, 0]);
            if data[3] == block {
                break data[4..].to_vec();
            }
        };
        got.extend(octets);
        peer.send_to(&[0, 4, 0, block], tid).expect("sent");
    }
    assert_same("without a descriptor left", &got, &harness::content(2000));
    for (peer, tid, _) in served {
        peer.send_to(b"\0\x05\0\0enough\0", tid).expect("sent");
    }
    // The last ones may not have been read yet: whoever asks meanwhile is told to come later.
    let again = (0..100).any(|_| ask(server.address(), "file").starts_with(&[0, 3, 0, 1]));
    assert!(again, "there is no room any more");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(LONG).code(), Some(0));
}

/// From the wire to the line: what a peer says moves no cursor and fakes no line.
#[test]
fn no_peer_writes_to_the_log_or_the_terminal() {
    let root = Scratch::new();
    root.file("file", &harness::content(2000));
    let server = Server::start(root.path(), &["-vv"]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    let evil = b"x\x1b[2J\r\n2026 INFO done peer=0\" bytes=1\x07\x9b\xff\xe2\x80\xae\xc2\x9b";
    let send = |parts: &[&[u8]], to| peer.send_to(&parts.concat(), to).expect("sent");
    // As a name, as a mode, as an option, and as the text of an ERROR.
    send(&[b"\0\x01", evil, b"\0octet\0"], server.address());
    assert_eq!(next_datagram(&peer).0[..2], [0, 5]);
    send(&[b"\0\x02", evil, b"\0octet\0"], server.address());
    assert_eq!(next_datagram(&peer).0[..2], [0, 5]);
    send(&[b"\0\x01file\0", evil, b"\0"], server.address());
    assert_eq!(next_datagram(&peer).0[..2], [0, 5]);
    let options: [&[u8]; 5] = [
        b"\0\x01file\0octet\0",
        evil,
        b"\0",
        evil,
        b"\0blksize\x001000\0",
    ];
    send(&options, server.address());
    let (_, tid) = next_datagram(&peer);
    send(&[b"\0\x05\0\0", evil, b"\0"], tid);
    let mut lines = Vec::new();
    loop {
        let line = server.line_with("");
        let is_last = line.contains("peer sent error 0");
        lines.push(line);
        if is_last {
            break;
        }
    }
    assert!(lines.len() > 5, "{lines:?}");
    let ignored = lines
        .iter()
        .find_map(|line| line.split_once(" ignored=\"x\\x1b[2J"));
    assert!(ignored.is_some(), "{lines:?}");
    for line in &lines {
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(
            !line.contains('\u{202e}') && !line.contains('\u{fffd}'),
            "{line:?}"
        );
        assert!(!line.starts_with("2026 INFO done"), "{line:?}");
    }
    assert!(
        lines
            .iter()
            .any(|line| line.contains(r#"read="x\x1b[2J\x0d\n2026"#)),
        "{lines:?}"
    );
}

/// One line a datagram would let anybody fill a disk.
#[test]
fn a_flood_of_refusals_is_a_few_lines_and_a_count() {
    let root = Scratch::new();
    root.file("file", &harness::content(100));
    let server = Server::start(root.path(), &[]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let count = 3000;
    for sent in 1..=count {
        peer.send_to(b"\0\x02file\0octet\0", server.address())
            .expect("sent");
        if sent % 100 == 0 {
            ask(server.address(), "file"); // no faster than they are taken in
        }
    }
    // Nothing else happens any more: the last count comes by itself.
    let (mut lines, mut counted) = (0, 0);
    while lines + counted < count {
        let line = server.line_with("");
        if line.contains("refused peer=") {
            lines += 1;
        } else if let Some((_, rest)) = line.split_once("suppressed refused=") {
            let (number, reason) = rest.split_once(' ').expect("a reason");
            assert!(reason.ends_with("reason=\"more than 200 lines a second\""));
            counted += number.parse::<u32>().expect("a number");
        }
    }
    server.signal(Signal::SIGTERM);
    let line = server.line_with(" stopped completed=");
    assert!(line.contains("refused=3000 "), "{line}");
    assert_eq!(lines + counted, count);
    assert!(
        lines >= 100 && counted > 0,
        "{lines} lines, {counted} counted"
    );
}

/// A loop with nothing else to do wakes for the count of the lines that are missing.
#[test]
fn the_last_count_of_a_flood_comes_by_itself() {
    let root = Scratch::new();
    let server = Server::start(root.path(), &[]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let count = 250;
    for _ in 0..count {
        peer.send_to(b"\0\x02file\0octet\0", server.address())
            .expect("sent");
    }
    let (mut lines, mut counted) = (0, 0);
    while lines + counted < count {
        let line = server.line_with("refused");
        match line.split_once("suppressed refused=") {
            None => lines += 1,
            Some((_, rest)) => {
                let (number, _) = rest.split_once(' ').expect("a reason");
                counted += number.parse::<u32>().expect("a number");
            }
        }
    }
    assert_eq!(lines + counted, count);
}

/// Five threads are the least: the first one, log, signals, the loop, one worker. Without a second
/// worker the first does everything; without the loop there is no server, and a reason.
#[test]
fn where_no_thread_can_be_started_the_others_go_on() {
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root can become a user who has no threads yet");
        return;
    }
    let root = Scratch::new();
    root.file("file", &harness::content(60_000));
    let program = root.path().join("tftpool");
    std::fs::copy(env!("CARGO_BIN_EXE_tftpool"), &program).expect("a copy that anybody can run");
    harness::mode(&program, 0o755);
    let program = program.to_str().expect("UTF-8");
    let with_threads = |count: u32, user: u32| {
        let mut command = limited(
            &format!("{{ ulimit -u {count} 2>&- || ulimit -p {count}; }}"),
            program,
            root.path(),
            &[],
        );
        command.uid(user).gid(user);
        command
    };

    let mut server = Server::spawn(with_threads(5, 54_321));
    let (done, refused) = std::sync::mpsc::channel();
    let address = server.address();
    let storm = std::thread::spawn(move || {
        // Until the loop has seen that one worker is not enough.
        while refused.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let peers: Vec<_> = (0..50)
                .map(|_| {
                    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
                    peer.set_read_timeout(Some(LONG)).expect("a timeout");
                    let rrq = b"\0\x01file\0octet\0";
                    peer.send_to(rrq, address).expect("sent");
                    peer
                })
                .collect();
            for peer in &peers {
                let (first, tid) = next_datagram(peer);
                assert_eq!(first_block(&first).len(), 512);
                peer.send_to(&[0, 4, 0, 1], tid).expect("sent");
                assert_eq!(next_datagram(peer).0[..4], [0, 3, 0, 2]);
                peer.send_to(b"\0\x05\0\0enough\0", tid).expect("sent");
            }
        }
    });
    server.line_with("cannot start another worker count=1 ");
    done.send(()).expect("a storm");
    storm.join().expect("everybody was served");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(LONG).code(), Some(0));

    let output = run(&mut with_threads(3, 54_322));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = text(&output);
    assert!(
        words.contains("tftpool: cannot start a thread: "),
        "{words}"
    );
}

/// A file that the address space has no room for is read instead of mapped.
#[test]
fn where_memory_is_short_files_are_read() {
    let root = Scratch::new();
    let path = root.file("big", b"");
    let big = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("a file");
    big.set_len(8 << 30).expect("a file with holes");
    root.file("small", &harness::content(300));
    let short = "ulimit -v 2000000"; // kilobytes
    let mut server = Server::spawn(limited(
        short,
        env!("CARGO_BIN_EXE_tftpool"),
        root.path(),
        &[],
    ));
    let peers: Vec<_> = (0..50)
        .map(|_| {
            let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            peer.set_read_timeout(Some(LONG)).expect("a timeout");
            let rrq = b"\0\x01big\0octet\0blksize\x0065464\0windowsize\x0064\0";
            peer.send_to(rrq, server.address()).expect("sent");
            let (oack, tid) = next_datagram(&peer);
            assert_eq!(oack[..2], [0, 6]);
            peer.send_to(&[0, 4, 0, 0], tid).expect("sent");
            peer
        })
        .collect();
    for peer in &peers {
        assert_eq!(next_datagram(peer).0[..4], [0, 3, 0, 1]);
    }
    assert_eq!(
        first_block(&ask(server.address(), "small")),
        harness::content(300)
    );
    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait(LONG).code(), Some(0));
}

/// Takes the windows of `file` up to block 65535, acknowledges that one and falls silent.
fn stop_at_65535(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_read_timeout(Some(LONG)).expect("a timeout");
    let request = b"\0\x01file\0octet\0blksize\x008\0windowsize\x0064\0";
    socket.send_to(request, server).expect("sent");
    let (oack, tid) = next_datagram(&socket);
    assert_eq!(oack, b"\0\x06blksize\x008\0windowsize\x0064\0");
    for last in (0..65535).step_by(64) {
        socket
            .send_to(&[&[0, 4][..], &u16::to_be_bytes(last)].concat(), tid)
            .expect("sent");
        let next = last.saturating_add(64);
        while next_datagram(&socket).0[2..4] != next.to_be_bytes() {}
    }
    socket.send_to(b"\0\x04\xff\xff", tid).expect("sent");
    socket
}

/// Each has its line, but a laboratory full of such devices is one warning.
#[test]
fn a_client_that_stops_at_block_65535_is_a_warning_once() {
    let root = Scratch::new();
    root.file("file", &harness::content(8 * 66_000));
    let mut serve = tftpool();
    serve.args(["serve", "--port", "0", "--host", "127.0.0.1"]);
    serve
        .args(["--timeout", "50ms", "--retries", "1"])
        .arg(root.path());
    let (mut server, log) = Server::spawn_unread(serve);
    let _silent = [(); 2].map(|()| stop_at_65535(server.address()));
    let (mut failed, mut warnings) = (0, 0);
    for line in std::io::BufRead::lines(log) {
        let line = line.expect("UTF-8");
        failed += usize::from(line.contains("reason=\"peer fell silent at block 65535 "));
        warnings += usize::from(line.contains(" WARN client 127.0.0.1 stopped at block 65535 of"));
        if failed == 2 {
            server.signal(Signal::SIGTERM);
        }
    }
    assert_eq!((failed, warnings), (2, 1));
    assert_eq!(server.wait(LONG).code(), Some(0));
}
