//! The server under a service manager: sockets that are passed to it, what it says of its state,
//! and the units that are installed.
//!
//! The manager is this program: it passes descriptors as `sd_listen_fds(3)` describes, and reads
//! the socket of `sd_notify(3)`. Where systemd is installed its own tools are asked as well.

mod harness;

use harness::{LONG, Scratch, Server, ask, error, first_block, run, text, tftpool};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A root with one file.
fn root() -> Scratch {
    let root = Scratch::new();
    root.file("file", b"content");
    root
}

/// A server with these sockets as descriptors 3, 4 and so on, and LISTEN_PID as its own. `before`
/// is put in front of its command.
fn activated(sockets: &[&dyn AsFd], before: &str, arguments: &str) -> Command {
    let mut moves = String::new();
    for (index, socket) in sockets.iter().enumerate() {
        let number = socket.as_fd().as_raw_fd();
        // The shell must not overwrite one that it has yet to move.
        assert!(number >= LOW, "{number}");
        moves += &format!("{}<&{number} ", index + 3);
        let inherit = FcntlArg::F_SETFD(FdFlag::empty());
        fcntl(socket.as_fd(), inherit).expect("a descriptor");
    }
    let count = sockets.len();
    let tftpool = env!("CARGO_BIN_EXE_tftpool");
    let script = format!(
        "exec {moves}; export LISTEN_FDS={count} LISTEN_PID=$$; exec {before} {tftpool} serve {arguments}"
    );
    let mut command = Command::new("bash"); // dash knows descriptors below 10 only
    command
        .args(["-c", &script])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Descriptors below are those that are passed.
const LOW: i32 = 8;

/// A copy of a descriptor that is above those that are passed.
fn raised(socket: impl Into<OwnedFd>) -> OwnedFd {
    let mut copies = vec![socket.into()];
    loop {
        let copy = copies[0].try_clone().expect("a descriptor");
        if copy.as_raw_fd() >= LOW {
            return copy;
        }
        copies.push(copy);
    }
}

fn socket(address: &str) -> UdpSocket {
    raised(UdpSocket::bind(address).expect("a free port")).into()
}

fn fails(mut command: Command) -> (Option<i32>, String) {
    let output = run(&mut command);
    (output.status.code(), text(&output))
}

// ---- sockets ------------------------------------------------------------------------------------

#[test]
fn sockets_that_were_passed_are_served() {
    let root = root();
    let four = socket("127.0.0.1:0");
    let six = socket("[::1]:0");
    // One for both families, as `ListenDatagram=69` makes it.
    let both = socket("[::]:0");
    let path = root.path().display().to_string();
    let server = Server::spawn(activated(&[&four, &six, &both], "", &path));
    let wanted: Vec<_> = [&four, &six, &both]
        .map(|socket| socket.local_addr().expect("bound"))
        .to_vec();
    assert_eq!(server.addresses(), wanted);
    let port = wanted[2].port();
    for address in [
        wanted[0],
        wanted[1],
        SocketAddr::from(([127, 0, 0, 1], port)),
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
    ] {
        assert_eq!(first_block(&ask(address, "file")), b"content", "{address}");
    }
}

/// Port 69 without root and without any capability.
#[test]
fn a_passed_socket_needs_no_capability() {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root may have port 69");
        return;
    }
    harness::in_a_network(|| {
        let root = root();
        let port = socket("127.0.0.1:69");
        let before = "setpriv --reuid 65533 --regid 65533 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs";
        let path = root.path().display().to_string();
        let server = Server::spawn(activated(&[&port], before, &path));
        let capabilities = harness_status(server.pid(), "Cap");
        assert!(!capabilities.is_empty());
        assert!(
            capabilities
                .iter()
                .all(|line| line.ends_with("0000000000000000")),
            "{capabilities:?}"
        );
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 69));
        assert_eq!(first_block(&ask(address, "file")), b"content");
    });
}

fn harness_status(pid: u32, key: &str) -> Vec<String> {
    let all = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc");
    let lines = all.lines().filter(|line| line.starts_with(key));
    lines.map(str::to_owned).collect()
}

#[test]
fn descriptors_that_are_no_udp_sockets_are_named() {
    let cannot = "tftpool: cannot use the sockets of the service manager: ";
    let good = socket("127.0.0.1:0");
    let stream = raised(TcpListener::bind("127.0.0.1:0").expect("a free port"));
    assert_eq!(
        fails(activated(&[&good, &stream], "", "/")),
        (
            Some(1),
            format!("{cannot}descriptor 4 is no bound UDP socket\n")
        )
    );
    let mut closed = Command::new("sh");
    let script = format!(
        "exec 3<&-; export LISTEN_FDS=1 LISTEN_PID=$$; exec {} serve /",
        env!("CARGO_BIN_EXE_tftpool")
    );
    closed.args(["-c", &script]).stdin(Stdio::null());
    assert_eq!(
        fails(closed),
        (Some(1), format!("{cannot}descriptor 3 is not open\n"))
    );
    let mut nonsense = tftpool();
    nonsense.args(["serve", "/"]).env("LISTEN_FDS", "some");
    assert_eq!(
        fails(nonsense),
        (
            Some(1),
            format!("{cannot}LISTEN_FDS=some is not a number of descriptors\n")
        )
    );
}

/// A parent that was activated may leave its environment to its children.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let root = root();
    let mut command = tftpool();
    command
        .args(["serve", "--host", "127.0.0.1", "--port", "0"])
        .arg(root.path())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1");
    let server = Server::spawn(command);
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
}

#[test]
fn options_that_say_where_to_listen_do_not_go_with_passed_sockets() {
    let good = socket("127.0.0.1:0");
    for option in ["--port 6969", "--host 127.0.0.1", "--freebind"] {
        let name = option.split(' ').next().expect("a word");
        assert_eq!(
            fails(activated(&[&good], "", &format!("{option} /"))),
            (
                Some(2),
                format!(
                    "tftpool: {name} has no effect on the sockets of the service manager (change the socket unit, or disable it)\n"
                )
            )
        );
    }
}

/// systemd makes room for as many requests as the unit says; the server must not take it away.
#[test]
fn a_passed_socket_keeps_its_larger_buffer() {
    use nix::sys::socket::{getsockopt, setsockopt, sockopt};

    let root = root();
    let given = socket("127.0.0.1:0");
    let octets = 8 << 20;
    if setsockopt(&given, sockopt::RcvBufForce, &octets).is_err() {
        harness::skip("only root may make a socket's buffer larger than the system allows");
        return;
    }
    let before = getsockopt(&given, sockopt::RcvBuf).expect("a size");
    let path = root.path().display().to_string();
    let _server = Server::spawn(activated(&[&given], "", &path));
    let after = getsockopt(&given, sockopt::RcvBuf).expect("a size");
    assert_eq!(after, before);
}

// ---- state --------------------------------------------------------------------------------------

/// The end of the service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(scratch: &Scratch) -> Self {
        Self::new(UnixDatagram::bind(scratch.at("notify")).expect("a socket"))
    }

    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(LONG)).expect("a timeout");
        Self(socket)
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    /// The next message that starts with this word.
    fn next_with(&self, word: &str) -> String {
        loop {
            let message = self.next();
            if message.starts_with(word) {
                return message;
            }
        }
    }
}

fn notifying(scratch: &Scratch, served: &std::path::Path) -> Command {
    let mut command = tftpool();
    command
        .args(["serve", "--host", "127.0.0.1", "--port", "0"])
        .arg(served)
        .env("NOTIFY_SOCKET", scratch.at("notify"));
    command
}

fn micros() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now).as_micros() as u64
}

#[test]
fn the_manager_is_told_ready_reloading_and_stopping() {
    let scratch = Scratch::new();
    scratch.file("one/file", b"old");
    scratch.file("two/file", b"new");
    scratch.link("current", "one");
    let manager = Manager::at(&scratch);
    let mut server = Server::spawn(notifying(&scratch, &scratch.at("current")));
    let banner = server.banner.strip_prefix("tftpool: ").expect("a prefix");
    let ready = format!("READY=1\nSTATUS={banner}");
    assert_eq!(manager.next(), ready);
    assert_eq!(first_block(&ask(server.address(), "file")), b"old");

    std::fs::remove_file(scratch.at("current")).expect("removed");
    scratch.link("current", "two");
    let before = micros();
    server.signal(Signal::SIGHUP);
    let reloading = manager.next();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let time: u64 = time.expect(&reloading).parse().expect("a number");
    assert!((before..=micros()).contains(&time), "{before} {time}");
    assert_eq!(manager.next(), ready);
    // Not a moment later: what READY=1 says has happened.
    assert_eq!(first_block(&ask(server.address(), "file")), b"new");

    server.signal(Signal::SIGTERM);
    assert_eq!(
        manager.next(),
        "STOPPING=1\nSTATUS=stopping, running transfers may finish"
    );
    assert!(server.wait(LONG).success());
}

#[test]
fn an_abstract_socket_is_told_too() {
    let root = root();
    let name = format!("tftpool-test-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).expect("a name");
    let manager = Manager::new(UnixDatagram::bind_addr(&address).expect("a socket"));
    let mut command = notifying(&root, root.path());
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let _server = Server::spawn(command);
    assert!(manager.next().starts_with("READY=1\n"));
}

#[test]
fn a_watchdog_hears_of_the_server_while_it_works() {
    let root = root();
    let manager = Manager::at(&root);
    let mut command = notifying(&root, root.path());
    command.env("WATCHDOG_USEC", "20000");
    let server = Server::spawn(command);
    assert!(manager.next().starts_with("READY=1\n"));
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
    for _ in 0..3 {
        let message = manager.next_with("WATCHDOG=1\nSTATUS=serving ");
        assert!(message.contains(" active="), "{message}");
    }
}

#[test]
fn a_manager_that_cannot_be_reached_is_a_warning() {
    let root = root();
    let server = Server::spawn(notifying(&root, root.path()));
    assert!(
        server
            .before
            .iter()
            .any(|line| line.contains("cannot reach the service manager: ")),
        "{:?}",
        server.before
    );
    let (code, words) = error(&ask(server.address(), "missing"));
    assert_eq!((code, words.as_str()), (1, "file not found"));
}

// ---- systemd's own tools ------------------------------------------------------------------------

/// Whether a program of systemd is installed.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        // Not everywhere where tests must run: the rest of this file stands for it.
        eprintln!("skipped: no {program} here");
    }
    found
}

#[test]
fn systemd_passes_a_socket_that_is_served() {
    if !has("systemd-socket-activate") {
        return;
    }
    let root = root();
    // A port that is free now.
    let address = socket("127.0.0.1:0").local_addr().expect("bound");
    let mut child = Command::new("systemd-socket-activate")
        .args(["-d", "-l", &address.to_string()])
        .args([env!("CARGO_BIN_EXE_tftpool"), "serve"])
        .arg(root.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let answer = ask(address, "file");
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(first_block(&answer), b"content");
}

#[test]
fn the_unit_is_confined() {
    if !has("systemd-analyze") {
        return;
    }
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");
    let output = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15"])
        .arg(format!("{units}/tftpool.service")));
    assert!(output.status.success(), "{}", text(&output));
}
