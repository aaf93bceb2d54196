//! `tftpool get` and `put` against servers of other people and our own, every file compared octet
//! by octet.
//!
//! The servers are Debian's, unpacked by `make tools`. tftpd-hpa and atftpd need `--user root` to
//! serve a directory as root; dnsmasq listens on port 69 whatever one says, so each run takes an
//! address of its own beneath 127.0.0.0/8.

#![allow(
    clippy::disallowed_methods,
    reason = "a file that others write has a deadline"
)]

mod harness;

use harness::{LONG, Scratch, Server as Own, assert_same, content, run, text, tftpool};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Hpa,
    Atftpd,
    Dnsmasq,
}

/// Those of these servers that can be run here: the other people's need root, to become the user
/// they are told to be and for port 69.
fn runnable<const COUNT: usize>(kinds: [Kind; COUNT]) -> impl Iterator<Item = Kind> {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root && kinds.iter().any(|kind| *kind != Kind::Own) {
        harness::skip("tftpd-hpa, atftpd and dnsmasq need root here (sudo make test)");
    }
    let can_run = move |kind: &Kind| is_root || *kind == Kind::Own;
    kinds.into_iter().filter(can_run)
}

/// A running server over a directory. Killed and reaped when dropped.
struct Server {
    kind: Kind,
    address: SocketAddr,
    child: Option<Child>,
    _own: Option<Own>,
}

impl Server {
    fn start(kind: Kind, root: &Path) -> Self {
        if kind == Kind::Own {
            let own = Own::start(root, &["--write", "overwrite"]);
            return Self {
                kind,
                address: own.address(),
                child: None,
                _own: Some(own),
            };
        }
        Self::start_at(address_for(kind), kind, root)
    }

    /// Another project's server, at this address.
    fn start_at(address: SocketAddr, kind: Kind, root: &Path) -> Self {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let path = root.to_str().expect("UTF-8").to_owned();
        let root = path.clone();
        let (program, arguments): (_, Vec<String>) = match kind {
            Kind::Hpa => (
                "in.tftpd.hpa",
                [
                    "-L",
                    "-4",
                    "--address",
                    &format!("{ip}:{port}"),
                    "--secure",
                    "--create",
                    "--user",
                    "root",
                    &root,
                ]
                .map(str::to_owned)
                .into(),
            ),
            Kind::Atftpd => (
                "atftpd",
                [
                    "--daemon",
                    "--no-fork",
                    "--bind-address",
                    &ip,
                    "--port",
                    &port,
                    "--user",
                    "root.root",
                    "--logfile",
                    "/dev/null",
                    &root,
                ]
                .map(str::to_owned)
                .into(),
            ),
            _ => (
                "dnsmasq",
                [
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--enable-tftp",
                    &format!("--tftp-root={root}"),
                    "--user=root",
                    "--keep-in-foreground",
                    &format!("--listen-address={ip}"),
                    "--bind-interfaces",
                    "--pid-file=",
                    "--log-facility=/dev/null",
                ]
                .map(str::to_owned)
                .into(),
            ),
        };
        let mut child = fetched(program)
            .args(arguments)
            .current_dir(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|cause| panic!("{program}: {cause}"));
        if let Err(cause) = answers(address) {
            let status = child.try_wait();
            let _ = child.kill();
            panic!("{program} does not answer at {address}: {cause} ({status:?})");
        }
        Self {
            kind,
            address,
            child: Some(child),
            _own: None,
        }
    }

    fn url(&self, name: &str) -> String {
        format!("tftp://{}/{name}", self.address)
    }

    /// Puts a file, under its own name.
    #[track_caller]
    fn put(&self, file: &Path, options: &[&str]) {
        let mut command = tftpool();
        command.arg("put").args(options).arg(file);
        let output = run(command.arg(self.url("")));
        let what = format!("{:?}: put {} {options:?}", self.kind, file.display());
        assert_eq!(output.status.code(), Some(0), "{what}: {}", text(&output));
    }

    /// Gets a file and compares what came.
    #[track_caller]
    fn get(&self, name: &str, wanted: &[u8], options: &[&str]) {
        let what = format!("{:?}: get {name} {options:?}", self.kind);
        let scratch = Scratch::new();
        let file = scratch.path().join("got");
        let mut command = tftpool();
        command.arg("get").args(options).arg("-o").arg(&file);
        let output = run(command.arg(self.url(name)));
        assert_eq!(output.status.code(), Some(0), "{what}: {}", text(&output));
        assert_same(&what, &fs::read(&file).expect("the file"), wanted);
    }
}

/// Waits until this file is whole: other servers than ours acknowledge the last block before it is
/// in the file.
#[track_caller]
fn assert_stored(kind: Kind, file: &Path, wanted: &[u8]) {
    let stored = || fs::read(file).expect("the file");
    let end = Instant::now() + Duration::from_secs(20);
    while kind != Kind::Own && stored().len() < wanted.len() && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_same(&format!("{kind:?}"), &stored(), wanted);
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program that `tests/servers.sh` has unpacked.
///
/// # Panics
/// When it is not there: a server that was not run has proved nothing.
fn fetched(program: &str) -> Command {
    let servers = Path::new(env!("CARGO_TARGET_TMPDIR")).join("servers/deb");
    let path = servers.join("usr/sbin").join(program);
    assert!(
        path.is_file(),
        "{} is missing; fetch it with: make tools",
        path.display()
    );
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = ["usr/lib", "lib"].map(|below| servers.join(below).join(&triple));
    let libraries = libraries.map(|path: PathBuf| path.display().to_string());
    let mut command = Command::new(path);
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command
}

fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("bound")
}

fn address_for(kind: Kind) -> SocketAddr {
    match kind {
        Kind::Dnsmasq => own_address(),
        _ => free_address(),
    }
}

/// An address where port 69 is free, whoever else serves on this machine.
fn own_address() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 70 + COUNT.fetch_add(1, Ordering::Relaxed), high, low);
    let probe = UdpSocket::bind((ip, 69));
    assert!(
        probe.is_ok(),
        "dnsmasq serves at port 69 only, which needs root or CAP_NET_BIND_SERVICE: {probe:?}"
    );
    (IpAddr::from(ip), 69).into()
}

/// Asks for a file that is not there until the ERROR comes.
fn answers(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let wait = Duration::from_millis(100);
    socket.set_read_timeout(Some(wait))?;
    for _ in 0..LONG.as_millis() / wait.as_millis() {
        socket.send_to(b"\0\x01absent\0octet\0", address)?;
        if socket.recv(&mut [0; 600]).is_ok() {
            return Ok(());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Around every border of the block sizes that are used.
fn sizes() -> Vec<usize> {
    let around = |block: usize| [block - 1, block, block + 1, 2 * block, 10 * block];
    let blocks = [512, 1024, 1428, 8192].into_iter().flat_map(around);
    [0, 1].into_iter().chain(blocks).collect()
}

/// The settings that are tried: the defaults, old ones, and large ones.
const SETTINGS: [&[&str]; 5] = [
    &[],
    &["--no-options"],
    &["--blksize", "1024", "--windowsize", "1"],
    &["--windowsize", "64"],
    &["--blksize", "8192", "--windowsize", "4", "--timeout", "2"],
];

fn every_size_comes_from(kind: Kind) {
    if runnable([kind]).next().is_none() {
        return;
    }
    let root = Scratch::new();
    for size in sizes() {
        root.file(format!("{size}.bin"), &content(size));
    }
    let large = content(5_000_000);
    root.file("large.bin", &large);
    let server = Server::start(kind, root.path());
    for options in SETTINGS {
        for size in sizes() {
            server.get(&format!("{size}.bin"), &content(size), options);
        }
        server.get("large.bin", &large, options);
    }
}

#[test]
fn every_size_comes_from_our_own_server() {
    every_size_comes_from(Kind::Own);
}

#[test]
fn every_size_comes_from_tftpd_hpa() {
    every_size_comes_from(Kind::Hpa);
}

#[test]
fn every_size_comes_from_atftpd() {
    every_size_comes_from(Kind::Atftpd);
}

#[test]
fn every_size_comes_from_dnsmasq() {
    every_size_comes_from(Kind::Dnsmasq);
}

/// 40 MiB at 512 octets a block: the 16-bit block number passes 65535.
#[test]
fn block_numbers_wrap_with_every_server() {
    let wanted = content(40 << 20);
    let root = Scratch::new();
    root.file("large.bin", &wanted);
    for kind in runnable([Kind::Own, Kind::Hpa, Kind::Atftpd, Kind::Dnsmasq]) {
        let server = Server::start(kind, root.path());
        server.get("large.bin", &wanted, &["--no-options"]);
        server.get("large.bin", &wanted, &["--blksize", "512"]);
    }
}

/// 33 MiB in blocks of 512 bytes: the block number of an upload passes 65535.
#[test]
fn block_numbers_wrap_in_uploads_to_every_server() {
    let wanted = content(33 << 20);
    let here = Scratch::new();
    let file = here.file("large.bin", &wanted);
    for kind in runnable([Kind::Own, Kind::Hpa, Kind::Atftpd]) {
        let root = Scratch::new();
        harness::mode(root.path(), 0o777);
        let server = Server::start(kind, root.path());
        server.put(&file, &["--no-options"]);
        assert_stored(kind, &root.path().join("large.bin"), &wanted);
    }
}

/// tftpd-hpa answers a repeated DATA for a second after it has stored the file. The client must
/// repeat its last block within that second. atftpd is left out: it closes its port at once.
#[test]
fn the_last_ack_of_an_upload_may_be_lost() {
    if runnable([Kind::Hpa]).next().is_none() {
        return;
    }
    harness::in_a_network(|| {
        let wanted = content(10 * 512 + 100);
        let here = Scratch::new();
        let file = here.file("file", &wanted);
        for kind in [Kind::Own, Kind::Hpa] {
            let root = Scratch::new();
            harness::mode(root.path(), 0o777);
            let server = Server::start(kind, root.path());
            let lost = harness::Lost::ack(11);
            server.put(&file, &["--no-options"]);
            assert_eq!(lost.count(), 1, "{kind:?}");
            assert_stored(kind, &root.path().join("file"), &wanted);
        }
    });
}

/// dnsmasq takes no uploads.
#[test]
fn every_size_goes_to_the_servers_that_take_files() {
    for kind in runnable([Kind::Own, Kind::Hpa, Kind::Atftpd]) {
        let (root, here) = (Scratch::new(), Scratch::new());
        harness::mode(root.path(), 0o777);
        let server = Server::start(kind, root.path());
        for (number, options) in SETTINGS.iter().enumerate() {
            let mut wanted: Vec<usize> = sizes();
            wanted.push(2_000_000);
            for size in wanted {
                let name = format!("{number}-{size}.bin");
                let sent = content(size);
                let file = here.file(&name, &sent);
                server.put(&file, options);
                assert_stored(kind, &root.path().join(&name), &sent);
            }
        }
    }
    if runnable([Kind::Dnsmasq]).next().is_none() {
        return;
    }
    let root = Scratch::new();
    let server = Server::start(Kind::Dnsmasq, root.path());
    let file = root.file("file", b"content");
    let output = run(tftpool().arg("put").arg(&file).arg(server.url("new")));
    assert_ne!(output.status.code(), Some(0), "{}", text(&output));
}

/// The client starts first. Until the server does, its host answers each request by "port
/// unreachable".
#[test]
fn a_server_that_starts_late_is_waited_for() {
    let wanted = content(100_000);
    let here = Scratch::new();
    let file = here.file("new", &wanted);
    for kind in runnable([Kind::Hpa, Kind::Atftpd, Kind::Dnsmasq]) {
        let root = Scratch::new();
        harness::mode(root.path(), 0o777);
        root.file("file", &wanted);
        let commands: &[&str] = match kind {
            Kind::Dnsmasq => &["get"],
            _ => &["get", "put"],
        };
        for command in commands {
            let address = address_for(kind);
            let mut client = tftpool();
            // A half of 15 retransmissions is 27 intervals.
            client.args([command, "--timeout", "200ms", "--retries", "15"]);
            match *command {
                "get" => client.arg("-o").arg(here.path().join("got")),
                _ => client.arg(&file),
            };
            let name = if *command == "get" { "file" } else { "new" };
            client.arg(format!("tftp://{address}/{name}"));
            let waiting = std::thread::spawn(move || run(&mut client));
            std::thread::park_timeout(Duration::from_secs(1));
            assert!(!waiting.is_finished(), "{kind:?}: {command} has given up");
            let _server = Server::start_at(address, kind, root.path());
            let output = waiting.join().expect("it ran");
            let what = format!("{kind:?}: {command} {}", text(&output));
            assert_eq!(output.status.code(), Some(0), "{what}");
            if *command == "get" {
                let got = fs::read(here.path().join("got")).expect("the file");
                assert_same(&what, &got, &wanted);
                // Options were not given up for a silence that had another cause.
                let is_large = text(&output).contains("blksize 1428");
                assert!(is_large, "{what}");
            }
        }
    }
}

#[test]
fn what_is_not_there_has_curls_exit_code() {
    let root = Scratch::new();
    for kind in runnable([Kind::Own, Kind::Hpa, Kind::Atftpd, Kind::Dnsmasq]) {
        let server = Server::start(kind, root.path());
        let output = run(tftpool().args(["get", "-o", "/dev/null", &server.url("absent")]));
        assert_eq!(
            output.status.code(),
            Some(68),
            "{kind:?}: {}",
            text(&output)
        );
    }
}

/// The table ends with settings that the server bears.
#[test]
fn every_server_is_probed() {
    let root = Scratch::new();
    root.file("file", &content(1 << 20));
    for kind in runnable([Kind::Own, Kind::Hpa, Kind::Atftpd, Kind::Dnsmasq]) {
        let server = Server::start(kind, root.path());
        let output = run(tftpool().args(["probe", &server.url("file")]));
        let table = text(&output);
        println!("{table}");
        assert_eq!(output.status.code(), Some(0), "{kind:?}: {table}");
        assert!(table.contains("\ntimed: blksize=1428"), "{kind:?}: {table}");
        let (_, best) = table.split_once("best settings: ").expect("the best");
        let options: Vec<&str> = best.split_whitespace().collect();
        server.get("file", &content(1 << 20), &options);
        let knows_windows = !table.contains("server ignores windowsize");
        assert_eq!(
            knows_windows,
            matches!(kind, Kind::Own | Kind::Atftpd),
            "{kind:?}: {table}"
        );
    }
}
