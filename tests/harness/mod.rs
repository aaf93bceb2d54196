//! What the tests of the binary share: a server process, a directory to serve, contents that can be
//! checked, and client programs that cannot hang.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test program uses its part"
)]

#[allow(clippy::duplicate_mod, reason = "some test programs take both rigs")]
#[path = "../../src/store/scratch.rs"]
mod scratch;

pub(crate) use scratch::{Scratch, mode, names};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Far more than anything here takes; reached only when something hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// Says loudly that something was not tested here; where `CI` is set nothing may be skipped.
#[track_caller]
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "must not be skipped where CI is set: {why}"
    );
    // Not by the macro, whose words nobody sees when a test succeeds.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// The binary under test, its stdin closed and its output piped.
pub fn tftpool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tftpool"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("RUST_LOG");
    command
}

/// Octets that repeat nowhere near a block's length (xorshift), the same ones for the same length.
pub fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ length as u64;
    let mut octets = Vec::with_capacity(length + 8);
    while octets.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes());
    }
    octets.truncate(length);
    octets
}

/// Fails with the first difference instead of printing megabytes.
#[track_caller]
pub fn assert_same(what: &str, got: &[u8], wanted: &[u8]) {
    if got != wanted {
        let at = got.iter().zip(wanted).position(|(a, b)| a != b);
        let at = at.unwrap_or(got.len().min(wanted.len()));
        panic!(
            "{what}: {} octets instead of {}, first difference at {at}",
            got.len(),
            wanted.len()
        );
    }
}

/// A running `tftpool serve`. Killed and reaped when dropped.
pub struct Server {
    child: Child,
    ended: Receiver<()>,
    lines: Option<Receiver<String>>,
    /// The line that said what is served where.
    pub banner: String,
    /// Lines that came before it.
    pub before: Vec<String>,
}

impl Server {
    /// Serves `root` on a free port of 127.0.0.1.
    pub fn start(root: &Path, options: &[&str]) -> Self {
        let mut command = tftpool();
        command
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .args(options)
            .arg(root);
        Self::spawn(command)
    }

    /// Runs `command`, a `tftpool serve`, and waits until it serves.
    pub fn spawn(command: Command) -> Self {
        let (mut server, stderr) = Self::spawn_unread(command);
        let (sender, lines) = channel();
        thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        server.lines = Some(lines);
        server
    }

    /// The same, but nobody reads stderr after the line that says what is served: that is left to
    /// the caller.
    pub fn spawn_unread(mut command: Command) -> (Self, BufReader<ChildStderr>) {
        let mut child = command.spawn().expect("the binary starts");
        let (sender, ended) = channel();
        let mut stdout = child.stdout.take().expect("piped");
        // The server never writes to stdout: its end is the end of the process.
        thread::spawn(move || {
            let _ = stdout.read_to_end(&mut Vec::new());
            let _ = sender.send(());
        });
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut before = Vec::new();
        let banner = loop {
            let mut line = String::new();
            if stderr.read_line(&mut line).expect("text") == 0 {
                let status = child.wait();
                panic!("tftpool ended before it served ({status:?}): {before:?}");
            }
            let line = line.trim_end().to_owned();
            if line.starts_with("tftpool: serving ") {
                break line;
            }
            before.push(line);
        };
        let server = Self {
            child,
            ended,
            lines: None,
            banner,
            before,
        };
        (server, stderr)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The addresses in the banner.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let (_, list) = self.banner.rsplit_once(" on ").expect("a banner");
        list.replace(" and ", ", ")
            .split(", ")
            .map(|address| address.parse().expect("an address"))
            .collect()
    }

    /// The first address.
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// The next line on stderr that holds `words`.
    pub fn line_with(&self, words: &str) -> String {
        let lines = self.lines.as_ref().expect("stderr is read");
        let mut seen = Vec::new();
        loop {
            match lines.recv_timeout(LONG) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with {words:?} after {seen:?}"),
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("our own child");
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            panic!("tftpool has not ended within {limit:?}");
        }
        self.child.wait().expect("our own child")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `work` on a thread of its own, in a network namespace whose only device is the loopback.
/// Programs that `work` starts are inside too. Skips where this process may not make a namespace.
pub fn in_a_network(work: impl FnOnce() + Send + 'static) {
    let inside = move || {
        let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
        let ip = |words: &str| {
            let status = Command::new("ip").args(words.split(' ')).status();
            status.is_ok_and(|status| status.success())
        };
        // tftpd-hpa starts only where some device has an address beside 127.0.0.0/8.
        if made.is_ok() && ip("link set lo up") && ip("address add 192.0.2.1/32 dev lo") {
            work();
        } else {
            skip("a network namespace of our own needs root and iproute2");
        }
    };
    thread::spawn(inside).join().expect("the work succeeds");
}

/// Packets that the loopback of the caller's network namespace loses.
pub struct Lost;

impl Lost {
    /// Loses the first ACK of block `number`, and every second one after it.
    pub fn ack(number: u16) -> Self {
        nft("add table inet lost");
        nft("add chain inet lost input { type filter hook input priority 0 ; }");
        // The UDP header is 64 bits long; opcode and block number follow.
        nft(&format!(
            "add rule inet lost input udp length 12 @th,64,16 4 @th,80,16 {number} \
             numgen inc mod 2 0 counter drop"
        ));
        Self
    }

    /// How many packets were lost so far.
    pub fn count(&self) -> u64 {
        let said = nft("list chain inet lost input");
        let (_, count) = said.split_once("counter packets ").expect("a counter");
        let count = count.split_whitespace().next().expect("a number");
        count.parse().expect("a number")
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        nft("delete table inet lost");
    }
}

/// Runs `nft` with these words.
fn nft(words: &str) -> String {
    let mut command = Command::new("nft");
    let output = command.args(words.split_whitespace()).output();
    let output = output.expect("the program nft (package nftables)");
    assert!(output.status.success(), "nft {words}: {}", text(&output));
    text(&output)
}

/// A client program that is ended when it takes longer than two minutes. Its arguments follow.
///
/// # Panics
/// When the program is not there: a client that was not run has proved nothing.
pub fn client(program: &str) -> Command {
    let package = match program {
        "tftp" => "tftp-hpa",
        other => other,
    };
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    assert!(
        found,
        "the client `{program}` is missing; install the package {package} (make tools)"
    );
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=1", "120", program])
        .stdin(Stdio::null());
    command
}

/// Runs a client to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("coreutils' timeout");
    assert_ne!(
        output.status.code(),
        Some(124),
        "took too long: {command:?}"
    );
    output
}

/// What a program wrote, for looking words up.
pub fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Sends a plain RRQ, again after each second of silence as any client does, and returns the first
/// answer.
pub fn ask(server: SocketAddr, name: impl AsRef<OsStr>) -> Vec<u8> {
    let own: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind((own, 0)).expect("a free port");
    let second = Duration::from_secs(1);
    socket.set_read_timeout(Some(second)).expect("a timeout");
    let mut request = vec![0, 1];
    request.extend_from_slice(name.as_ref().as_encoded_bytes());
    request.extend_from_slice(b"\0octet\0");
    let mut answer = vec![0; 1024];
    let (length, tid) = (0..10)
        .find_map(|_| {
            socket.send_to(&request, server).expect("sent");
            socket.recv_from(&mut answer).ok()
        })
        .expect("an answer");
    answer.truncate(length);
    // Nothing more is wanted: an ERROR from us ends the transfer.
    socket.send_to(b"\0\x05\0\0enough\0", tid).expect("sent");
    answer
}

/// The code and the text of an ERROR packet.
#[track_caller]
pub fn error(packet: &[u8]) -> (u16, String) {
    assert!(
        packet.starts_with(&[0, 5]),
        "not an ERROR: {:?}",
        packet.escape_ascii().to_string()
    );
    let code = u16::from_be_bytes([packet[2], packet[3]]);
    let text = packet[4..].strip_suffix(b"\0").expect("a NUL at the end");
    (code, String::from_utf8(text.to_vec()).expect("text"))
}

/// The payload of DATA 1.
#[track_caller]
pub fn first_block(packet: &[u8]) -> &[u8] {
    packet
        .strip_prefix(&[0, 3, 0, 1])
        .unwrap_or_else(|| panic!("not DATA 1: {:?}", packet.escape_ascii().to_string()))
}
