//! How the server starts: with which rights, on which addresses, with what limits; what it says
//! when it cannot; and what each signal does to it.
//!
//! Most of these tests make a namespace of their own, for an `/etc` without users or a network
//! without addresses, and are skipped where this process may not.

mod harness;

use harness::{LONG, Scratch, Server, ask, assert_same, client, first_block, run, text, tftpool};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const TFTPOOL: &str = env!("CARGO_BIN_EXE_tftpool");

/// A shell script in namespaces of its own: `kinds` are options of `unshare`. `None`, and a word
/// about it, where this process may not make them.
fn namespace(kinds: &[&str], script: &str) -> Option<Command> {
    let command = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(kinds)
            .args(["sh", "-c", script])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let trial = match kinds.contains(&"--mount") {
        true => "mount -t tmpfs none /mnt",
        false => "ip link set lo up",
    };
    let may = command(trial).output();
    if !may.is_ok_and(|output| output.status.success()) {
        harness::skip("this user may not make namespaces");
        return None;
    }
    Some(command(script))
}

/// `tftpool serve` in a system whose `/etc` holds a user database with these lines, or none. It
/// starts with a supplementary group, 5, that no user of these tests has.
fn with_users(databases: Option<(&str, &str)>, arguments: &str) -> Option<Command> {
    let users = databases.map_or_else(String::new, |(passwd, group)| {
        format!("printf '{passwd}' >/etc/passwd; printf '{group}' >/etc/group;")
    });
    let script = format!(
        "mount -t tmpfs -o mode=755 none /etc; {users} exec setpriv --groups 5 {TFTPOOL} serve --host 127.0.0.1 --port 0 {arguments}"
    );
    namespace(&["--mount"], &script)
}

/// The server without capabilities that root usually has.
fn without(capabilities: &[&str], arguments: &[&str]) -> Option<Command> {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root can give up root's rights");
        return None;
    }
    let dropped: Vec<_> = capabilities.iter().map(|name| format!("-{name}")).collect();
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set={}", dropped.join(",")))
        .args([TFTPOOL, "serve"])
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

fn status(pid: u32, key: &str) -> Vec<String> {
    let all = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
    let line = all.lines().find_map(|line| line.strip_prefix(key));
    let words = line.expect("the key").split_whitespace();
    words.map(str::to_owned).collect()
}

/// Runs a server that does not come to serve: the exit code and its output.
fn fails(command: Command) -> (Option<i32>, String) {
    // One that serves all the same is ended, and `run` fails the test.
    let mut bounded = Command::new("timeout");
    bounded
        .args(["--kill-after=1", "60"])
        .arg(command.get_program())
        .args(command.get_args())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    let output = run(&mut bounded);
    (output.status.code(), text(&output))
}

fn words(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = tftpool();
    command.arg("serve").args(arguments);
    fails(command)
}

fn path(scratch: &Scratch) -> &str {
    scratch.path().to_str().expect("UTF-8")
}

// ---- rights -------------------------------------------------------------------------------------

#[test]
fn numeric_users_root_and_the_default_need_no_user_database() {
    let root = Scratch::new();
    root.file("file", b"content");
    for (option, uid, gid) in [
        ("--user 65533:65532", "65533", "65532"),
        ("--user root", "0", "0"),
        ("--user 0", "0", "0"),
        ("--user 0:0", "0", "0"),
        ("", "65534", "65534"),
    ] {
        let arguments = format!("{option} {}", path(&root));
        let Some(command) = with_users(None, &arguments) else {
            return;
        };
        let server = Server::spawn(command);
        assert_eq!(status(server.pid(), "Uid:"), [uid; 4], "{option}");
        assert_eq!(status(server.pid(), "Gid:"), [gid; 4], "{option}");
        assert_eq!(first_block(&ask(server.address(), "file")), b"content");
    }
    for (user, cause) in [
        ("boot", "no such user"),
        (
            "2000",
            "the user database has no group for this id; give UID:GID",
        ),
        ("2000:boot", "no such group; give UID:GID in numbers"),
    ] {
        let arguments = format!("--user {user} {}", path(&root));
        let command = with_users(None, &arguments).expect("as before");
        let wanted = format!("tftpool: cannot run as {user}: {cause}\n");
        assert_eq!(fails(command), (Some(1), wanted));
    }
}

/// A name, or the number of a user, brings the groups of that user; numbers for both bring none.
/// curl is the client.
#[test]
fn files_of_a_group_of_the_user_are_served() {
    let root = Scratch::new();
    root.file("file", b"for the lab");
    let file = root.at("file");
    harness::mode(&file, 0o640);
    if std::os::unix::fs::chown(&file, None, Some(3000)).is_err() {
        harness::skip("only root can give a file to a group");
        return;
    }
    let passwd = r"root:x:0:0::/:\nboot:x:2000:2001::/:\n";
    let group = r"root:x:0:\nboot:x:2001:\nother:x:3001:else\nlab:x:3000:boot\n";
    for (user, groups, readable) in [
        ("boot", &["3000"][..], true),
        ("2000", &["3000"], true),
        ("2000:2001", &[], false),
        ("2000:3000", &[], true),
    ] {
        let arguments = format!("--user {user} --serve-unreadable {}", path(&root));
        let Some(command) = with_users(Some((passwd, group)), &arguments) else {
            return;
        };
        let server = Server::spawn(command);
        assert_eq!(status(server.pid(), "Groups:"), groups, "{user}");
        assert_eq!(status(server.pid(), "Uid:"), ["2000"; 4], "{user}");
        let url = format!("tftp://{}/file", server.address());
        let output = run(client("curl").args(["-s", &url]));
        assert_eq!(output.status.success(), readable, "{user}");
        if readable {
            assert_same(user, &output.stdout, b"for the lab");
        }
    }
}

#[test]
fn root_in_another_group_has_that_group_and_no_other() {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root can change its group");
        return;
    }
    let root = Scratch::new();
    let server = Server::start(root.path(), &["--user", "0:100"]);
    assert_eq!(status(server.pid(), "Uid:"), ["0"; 4]);
    assert_eq!(status(server.pid(), "Gid:"), ["100"; 4]);
    assert_eq!(status(server.pid(), "Groups:"), [""; 0]);
}

#[test]
fn without_the_right_to_change_the_user_there_is_a_hint_and_root_works() {
    let root = Scratch::new();
    root.file("file", b"content");
    let arguments = |user: Option<&'static str>| {
        let user = user.map(|user| ["--user", user]);
        let common = ["-q", "--host", "127.0.0.1", "--port", "0", path(&root)];
        user.into_iter().flatten().chain(common).collect::<Vec<_>>()
    };
    for (capability, doing) in [
        ("setuid", "change the user"),
        ("setgid", "change the group"),
    ] {
        let Some(command) = without(&[capability], &arguments(None)) else {
            return;
        };
        let needed = capability.to_uppercase();
        let wanted = format!(
            "tftpool: cannot run as nobody: cannot {doing}: operation not permitted (this needs CAP_{needed}; --user root keeps the rights that there are)\n"
        );
        assert_eq!(fails(command), (Some(1), wanted));
    }
    for user in ["root", "0", "0:0"] {
        let command = without(&["setuid", "setgid"], &arguments(Some(user)));
        let server = Server::spawn(command.expect("as before"));
        assert_eq!(first_block(&ask(server.address(), "file")), b"content");
    }
}

/// As a unit with `User=` does, and a container with `--user`: the id is the right one already.
#[test]
fn the_user_that_the_process_is_already_needs_no_right() {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root can become another user for this");
        return;
    }
    let root = Scratch::new();
    let started = |user: &str| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "1234", "--regid", "1235", "--groups", "1236"])
            .args([TFTPOOL, "serve", "-q", "--host", "127.0.0.1", "--port", "0"])
            .args(["--user", user])
            .arg(root.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let server = Server::spawn(started("1234:1235"));
    assert_eq!(status(server.pid(), "Groups:"), ["1236"]);
    for user in ["nobody", "1234:1236", "root"] {
        let wanted = format!(
            "tftpool: cannot run as {user}: not started as root (start it as root, or leave --user out)\n"
        );
        assert_eq!(fails(started(user)), (Some(1), wanted));
    }
}

/// Ports that only root may have are no use after root's rights are gone: this is an error at the
/// start, not at each request.
#[test]
fn a_range_of_ports_that_the_user_may_not_have_is_refused_at_the_start() {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root may have ports below 1024");
        return;
    }
    let root = Scratch::new();
    let range = ["--port-range", "1000:1010"];
    let common = ["-q", "--host", "127.0.0.1", "--port", "0", path(&root)];
    let (code, said) = words(&[&range[..], &common].concat());
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        "tftpool: cannot bind 0.0.0.0:1000: permission denied (ports below 1024 need CAP_NET_BIND_SERVICE; choose another --port-range)\n"
    );
    let server = Server::start(root.path(), &[&range[..], &["--user", "root"]].concat());
    drop(server);
    let range = ["--port-range", "50000:50010"];
    Server::start(root.path(), &range);
}

// ---- directories --------------------------------------------------------------------------------

#[test]
fn a_file_in_place_of_the_directory_is_named() {
    let root = Scratch::new();
    root.file("file", b"");
    let file = root.at("file");
    let file = file.to_str().expect("UTF-8");
    let wanted = format!("tftpool: cannot open {file}: not a directory\n");
    assert_eq!(words(&["--port", "0", file]), (Some(1), wanted));
}

/// After root's rights are gone; an upload fails as the warning says. The line that says what is
/// served says it of uploads too.
#[test]
fn a_directory_that_takes_no_uploads_is_a_warning() {
    let root = Scratch::new();
    root.file("in/.keep", b"");
    let inside = root.at("in");
    let upload_dir = inside.to_str().expect("UTF-8");
    let served = root.path().display();
    for (mode, how) in [(0o555, "create"), (0o555, "overwrite"), (0o777, "unique")] {
        harness::mode(&inside, mode);
        let mut command = tftpool();
        if nix::unistd::geteuid().is_root() {
            command = Command::new(TFTPOOL);
            command.args(["serve", "--user", "65534:65534"]);
        } else {
            command.arg("serve");
        }
        command
            .args(["--host", "127.0.0.1", "--port", "0", "--write", how])
            .args(["--upload-dir", upload_dir])
            .arg(root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG");
        let server = Server::spawn(command);
        let address = server.address();
        assert_eq!(
            server.banner,
            format!("tftpool: serving {served} with uploads ({how}) to {upload_dir} on {address}")
        );
        let warning = format!(
            " WARN cannot store uploads in {upload_dir}: permission denied (let the server's user write there)"
        );
        let warned = server.before.iter().any(|line| line.ends_with(&warning));
        assert_eq!(warned, mode == 0o555, "{:?}", server.before);
        let url = format!("tftp://{address}/new");
        let put = run(client("curl").args(["-s", "-T", "Cargo.toml", &url]));
        assert_eq!(put.status.success(), !warned);
    }
    harness::mode(&inside, 0o755);
}

// ---- limits
// ---------------------------------------------------------------------------------------

#[test]
fn room_for_few_transfers_is_a_warning() {
    let root = Scratch::new();
    for (descriptors, options, warning) in [
        (160, &[][..], true),
        (200, &[], false),
        (160, &["--max-transfers", "5"], false),
        (200, &["--max-transfers", "1000"], true),
    ] {
        let script = format!("ulimit -n {descriptors} && exec \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh", TFTPOOL])
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .args(options)
            .arg(root.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let server = Server::spawn(command);
        let line = &server.before[0];
        let level = if warning { " WARN " } else { " INFO " };
        assert!(
            line.contains(&format!("{level}limits max_transfers=")),
            "{line}"
        );
        assert_eq!(line.ends_with("(raise LimitNOFILE or ulimit -n)"), warning);
    }
}

#[test]
fn where_the_port_is_taken_nothing_is_said_of_limits() {
    let root = Scratch::new();
    let other = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("bound");
    let port = address.port().to_string();
    let said = words(&["--host", "127.0.0.1", "--port", &port, path(&root)]);
    let wanted = format!(
        "tftpool: cannot bind {address}: address already in use (another program listens on this port; try --port 6969)\n"
    );
    assert_eq!(said, (Some(1), wanted));
}

/// `strace` makes a system call fail, as a sandbox or an old kernel would.
fn with_failing(call: &str, arguments: &[&str]) -> Option<Command> {
    let strace = |call: &str| {
        let mut command = Command::new("strace");
        command
            // The server is our child, and strace its own: it ends with the server.
            .args(["-D", "-f", "-o", "/dev/null"])
            .args(["-e", &format!("inject={call}")])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let may = strace("getpid:error=EPERM").arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        harness::skip("strace is missing, or may not trace");
        return None;
    }
    let mut command = strace(call);
    command.args([TFTPOOL, "serve"]).args(arguments);
    Some(command)
}

#[test]
fn where_the_descriptor_limit_is_a_secret_a_usual_one_is_assumed() {
    let root = Scratch::new();
    let arguments = ["--host", "127.0.0.1", "--port", "0", path(&root)];
    let Some(command) = with_failing("prlimit64:error=EPERM", &arguments) else {
        return;
    };
    let server = Server::spawn(command);
    let line = &server.before[0];
    let wanted = " WARN limits max_transfers=480 descriptors=1024 workers=16 room=480 (the system does not tell the descriptor limit)";
    assert!(line.ends_with(wanted), "{line}");
}

// ---- addresses
// --------------------------------------------------------------------------------------

/// A kernel without IPv6, which refuses the second socket.
#[test]
fn without_ipv6_there_is_a_line_and_ipv4_is_served() {
    let root = Scratch::new();
    root.file("file", b"content");
    let call = "socket:error=EAFNOSUPPORT:when=2";
    // Numbers need no user database, whose lookup may open a socket too.
    let user: &[_] = match nix::unistd::geteuid().is_root() {
        true => &["--user", "0:0"],
        false => &[],
    };
    let arguments = [user, &["--port", "0", path(&root)]].concat();
    let Some(command) = with_failing(call, &arguments) else {
        return;
    };
    let server = Server::spawn(command);
    let port = server.address().port();
    let wanted = format!(
        " WARN listening on IPv4 only: cannot bind [::]:{port}: address family not supported by protocol"
    );
    let warned = server.before.iter().any(|line| line.ends_with(&wanted));
    assert!(warned, "{:?}", server.before);
    assert_eq!(server.addresses().len(), 1);
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(first_block(&ask(server, "file")), b"content");
}

#[test]
fn two_addresses_of_which_one_covers_the_other_are_both_named() {
    let root = Scratch::new();
    for (first, second) in [
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("::", "::1"),
        ("::1", "::"),
    ] {
        // In a network of its own every port is free.
        let script = format!(
            "ip link set lo up; exec {TFTPOOL} serve -q --host {first} --host {second} --port 6969 {}",
            path(&root)
        );
        let Some(command) = namespace(&["--net"], &script) else {
            return;
        };
        let shown = |host: &str| match host.contains(':') {
            true => format!("[{host}]:6969"),
            false => format!("{host}:6969"),
        };
        let wanted = format!(
            "tftpool: cannot bind {}: address already in use by this server itself, which listens on {} (leave one of the two out)\n",
            shown(second),
            shown(first)
        );
        assert_eq!(fails(command), (Some(1), wanted));
    }
    // One port in both families is no overlap, nor is another address of the family.
    let script = format!(
        "ip link set lo up; exec {TFTPOOL} serve --host 127.0.0.1 --host 127.0.0.2 --host ::1 --port 6969 {}",
        path(&root)
    );
    let server = Server::spawn(namespace(&["--net"], &script).expect("as before"));
    assert_eq!(server.addresses().len(), 3);
}

/// Runs a program in the network of the server.
fn beside(server: &Server, program: &[&str]) -> Command {
    let mut command = client("nsenter");
    command
        .args(["--net", "--target", &server.pid().to_string()])
        .args(program);
    command
}

/// The unit starts before the network: the address comes later, and is then served, in both
/// families.
#[test]
fn an_address_that_is_not_there_yet_is_served_once_it_is() {
    let root = Scratch::new();
    let content = harness::content(100_000);
    root.file("file", &content);
    let serve = |options: &str| {
        let script = format!(
            "ip link set lo up; exec {TFTPOOL} serve --host 192.0.2.7 --host 2001:db8::7 --port 6969 {options} {}",
            path(&root)
        );
        namespace(&["--net"], &script)
    };
    let Some(command) = serve("") else {
        return;
    };
    assert_eq!(
        fails(command),
        (
            Some(1),
            "tftpool: cannot bind 192.0.2.7:6969: cannot assign requested address (no interface of this machine has this address; --freebind listens on it all the same)\n".to_owned()
        )
    );
    let server = Server::spawn(serve("--freebind").expect("as before"));
    for address in server.addresses() {
        let warning =
            format!(" WARN no interface of this machine has this address yet address={address}");
        let warned = server.before.iter().any(|line| line.ends_with(&warning));
        assert!(warned, "{warning} in {:?}", server.before);
    }
    for address in ["192.0.2.7/32", "2001:db8::7/128"] {
        let add = ["ip", "address", "add", address, "dev", "lo"];
        assert!(run(&mut beside(&server, &add)).status.success());
    }
    for host in ["192.0.2.7", "[2001:db8::7]"] {
        let url = format!("tftp://{host}:6969/file");
        let output = run(&mut beside(&server, &["curl", "-sg", &url]));
        assert_same(host, &output.stdout, &content);
    }
    // Where the address is there, the option changes nothing.
    let script = format!(
        "ip link set lo up; exec {TFTPOOL} serve -q --host 127.0.0.1 --port 0 --freebind {}",
        path(&root)
    );
    let server = Server::spawn(namespace(&["--net"], &script).expect("as before"));
    assert_eq!(server.before, [""; 0]);
}

// ---- signals
// ------------------------------------------------------------------------------------------

#[test]
fn sigusr1_logs_the_counters_whatever_the_log_level() {
    let root = Scratch::new();
    for options in [&[][..], &["-qq"], &["-v"]] {
        let server = Server::start(root.path(), options);
        ask(server.address(), "missing");
        // The answer may leave before it is counted.
        loop {
            server.signal(Signal::SIGUSR1);
            let line = server.line_with(" INFO counters ");
            let rest =
                "completed=0 failed=0 refused=1 probes=0 dropped=0 denied=0 bytes=0 retransmits=0";
            let held = server.line_with(" INFO gauges ");
            assert!(held.contains(" running=0 parked=0 "), "{held}");
            if line.ends_with(&format!(" INFO counters active=0 {rest}")) {
                break;
            }
            assert!(line.contains("refused=0"), "{line}");
        }
    }
}

#[test]
fn sigusr2_switches_debug_lines_on_and_off() {
    let root = Scratch::new();
    root.file("file", &harness::content(600));
    for (options, states) in [
        (&[][..], ["on", "off", "on"]),
        (&["-vv"], ["off", "on", "off"]),
        (&["-qq"], ["on", "off", "on"]),
    ] {
        let server = Server::start(root.path(), options);
        for state in states {
            server.signal(Signal::SIGUSR2);
            server.line_with(&format!(" INFO debug lines {state}"));
            // Each decision is a line at debug: see which there are before the next answer.
            ask(server.address(), "file");
            server.signal(Signal::SIGUSR1);
            let mut debug = false;
            loop {
                let line = server.line_with("");
                debug |= line.contains(" DEBUG ");
                if line.contains(" INFO counters ") {
                    break;
                }
            }
            assert_eq!(debug, state == "on", "{options:?}");
        }
    }
}

/// Sends a signal by its number: nix has no names for real-time signals.
fn send(server: &Server, signal: i32) {
    let pid = server.pid().to_string();
    let kill = Command::new("kill")
        .args([format!("-{signal}"), pid])
        .status();
    assert!(kill.is_ok_and(|status| status.success()), "{signal}");
}

#[test]
fn no_other_signal_ends_the_server() {
    let root = Scratch::new();
    root.file("file", b"content");
    let server = Server::start(root.path(), &[]);
    for signal in [
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
    ] {
        server.signal(signal);
        server.line_with(&format!(" INFO ignored signal={signal}"));
    }
    for signal in [
        Signal::SIGPIPE,
        Signal::SIGCHLD,
        Signal::SIGURG,
        Signal::SIGWINCH,
        Signal::SIGXFSZ,
        Signal::SIGCONT,
    ] {
        send(&server, signal as i32);
    }
    #[cfg(target_os = "linux")]
    for signal in [Signal::SIGPWR as i32, Signal::SIGSTKFLT as i32, 34, 50, 64] {
        send(&server, signal);
    }
    server.signal(Signal::SIGUSR1);
    server.line_with(" INFO counters ");
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
}

/// A transfer that is never continued holds up SIGTERM for seconds, and SIGQUIT not at all.
#[test]
fn sigquit_stops_at_once_with_a_line() {
    let root = Scratch::new();
    root.file("file", &harness::content(5000));
    let mut server = Server::start(root.path(), &["--timeout", "60"]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    peer.set_read_timeout(Some(LONG)).expect("a timeout");
    let mut packet = [0; 600];
    let mut next = || peer.recv_from(&mut packet).expect("a packet").1;
    peer.send_to(b"\0\x01file\0octet\0", server.address())
        .expect("sent");
    let tid = next();
    peer.send_to(&[0, 4, 0, 1], tid).expect("sent");
    next();
    server.signal(Signal::SIGQUIT);
    server.line_with(" INFO stopping signal=SIGQUIT");
    let line = server.line_with(" INFO failed ");
    assert!(line.ends_with(r#"reason="server stopped""#), "{line}");
    server.line_with(" INFO stopped ");
    assert_eq!(server.wait(LONG).code(), Some(0));
}

#[test]
fn the_signal_that_stops_is_named() {
    let root = Scratch::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGXCPU] {
        let mut server = Server::start(root.path(), &[]);
        server.signal(signal);
        server.line_with(&format!(" INFO stopping signal={signal}"));
        server.line_with(" INFO stopped ");
        assert_eq!(server.wait(LONG).code(), Some(0));
    }
}

/// Ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A name server that never answers holds up the start: the signal is heard all the same.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a bound for a test that would hang"
)]
fn a_signal_ends_a_server_that_has_not_come_to_serve() {
    let root = Scratch::new();
    let script = format!(
        "set -e
         ip link add lab type veth peer name far
         ip address add 198.51.100.1/24 dev lab
         ip link set dev lab up
         ip link set dev far up
         ip neighbor add 198.51.100.2 dev lab lladdr 02:00:00:00:00:01
         mount -t tmpfs none /etc && echo 'nameserver 198.51.100.2' >/etc/resolv.conf
         echo 'hosts: dns' >/etc/nsswitch.conf
         exec {TFTPOOL} serve --host tftp.example.org --port 0 {}",
        root.path().display()
    );
    let Some(mut command) = namespace(&["--net", "--mount"], &script) else {
        return;
    };
    let mut server = Ending(command.spawn().expect("unshare"));
    let pid = server.0.id();
    let end = Instant::now() + LONG;
    let comm = Path::new("/proc").join(pid.to_string()).join("comm");
    // Main thread, log and signals: once they are there, signals are heard.
    let threads = || status(pid, "Threads:")[0].parse::<u32>().expect("a number");
    while std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() != "tftpool") || threads() < 3
    {
        assert!(Instant::now() < end, "tftpool has not started");
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, Signal::SIGTERM).expect("our own child");
    let mut said = String::new();
    let stderr = server.0.stderr.take().expect("piped");
    std::io::Read::read_to_string(&mut { stderr }, &mut said).expect("text");
    assert!(said.ends_with(" INFO stopping signal=SIGTERM\n"), "{said}");
    assert_eq!(server.0.wait().expect("our own child").code(), Some(0));
}
