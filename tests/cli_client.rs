//! `tftpool get` and `put` and the files of this machine: outputs that cannot be replaced, pipes
//! and devices, failed writes, and the bar in a narrow terminal.

mod harness;

use harness::{LONG, Scratch, Server, content, mode, run, text, tftpool};
use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

/// A server with a file, and a directory to get it into.
struct Rig {
    server: Server,
    here: Scratch,
    _root: Scratch,
}

const BYTES: &[u8] = b"content\n";

impl Rig {
    fn new() -> Self {
        let root = Scratch::new();
        root.file("file", BYTES);
        root.file("empty", b"");
        root.file("large", &content(1_000_000));
        Self {
            server: Server::start(root.path(), &[]),
            here: Scratch::new(),
            _root: root,
        }
    }

    fn url(&self, name: &str) -> String {
        format!("tftp://{}/{name}", self.server.address())
    }

    /// `tftpool get` in the directory.
    fn get(&self, arguments: &[&str]) -> Command {
        let mut command = tftpool();
        command.arg("get").args(arguments);
        command.current_dir(self.here.path());
        command
    }

    /// A shell in the directory, with the program as `$0` and the URL of the file as `$1`.
    fn shell(&self, line: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", line, env!("CARGO_BIN_EXE_tftpool"), &self.url("file")]);
        run(command.current_dir(self.here.path()))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.here.at(name)).expect("a file")
    }
}

/// Not as root, whom no permission stops.
fn unprivileged(command: &mut Command) -> &mut Command {
    match nix::unistd::geteuid().is_root() {
        true => command.uid(65_534).gid(65_534),
        false => command,
    }
}

/// Runs a shell that may mount what nothing outside of it sees; `None` where this process may not.
fn in_own_mounts(rig: &Rig, line: &str) -> Option<Output> {
    let map = match nix::unistd::geteuid().is_root() {
        true => "--mount",
        false => "--mount --map-root-user",
    };
    let unshare =
        |line: &str| rig.shell(&format!("exec unshare {map} sh -c '{line}' \"$0\" \"$1\""));
    if !unshare("mount -t tmpfs tmpfs .").status.success() {
        harness::skip("no mount namespaces here");
        return None;
    }
    Some(unshare(line))
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[test]
fn an_output_that_is_stdout_gets_the_bytes_of_the_file() {
    let rig = Rig::new();
    let url = rig.url("file");
    for path in ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"] {
        for as_json in [&[][..], &["--json"]] {
            let arguments = [as_json, &["--sha256", "-o", path, &url]].concat();
            let output = run(&mut rig.get(&arguments));
            assert_success(&output);
            assert_eq!(output.stdout, BYTES, "{path}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                said.lines().any(|line| line.starts_with('{')),
                !as_json.is_empty()
            );
            assert!(said.contains("434728a410a7"), "{path}: {said}");
        }
        // The shell's file is neither replaced nor truncated.
        let line = format!("{{ echo before; \"$0\" get -q -o {path} \"$1\"; echo after; }} > out");
        assert_success(&rig.shell(&line));
        assert_eq!(rig.read("out"), "before\ncontent\nafter\n", "{path}");
    }
}

#[test]
fn the_size_limit_of_files_is_an_error_and_not_a_signal() {
    let rig = Rig::new();
    let output = rig.shell("ulimit -f 0; exec \"$0\" get -o out \"$1\" 2>&1 | cat");
    let said = text(&output);
    assert!(said.contains("file too large"), "{said}");
    assert!(!rig.here.at("out").exists(), "nothing is left");
}

#[test]
fn an_open_file_is_written_and_not_its_name() {
    let rig = Rig::new();
    rig.here.file("out", b"something that is longer");
    let inode = fs::metadata(rig.here.at("out")).expect("a file").ino();
    let output = rig.shell("\"$0\" get -v -o /dev/fd/7 \"$1\" 7<> out");
    assert_success(&output);
    assert!(
        text(&output).contains("in place: the path names an open file"),
        "{}",
        text(&output)
    );
    assert_eq!(rig.read("out"), "content\n");
    assert_eq!(
        fs::metadata(rig.here.at("out")).expect("a file").ino(),
        inode
    );
    // Without a reason nothing is written in place.
    let output = run(&mut rig.get(&["-v", "-o", "out", &rig.url("empty")]));
    assert_success(&output);
    assert!(!text(&output).contains("in place"), "{}", text(&output));
    assert_eq!(rig.read("out"), "");
    assert_ne!(
        fs::metadata(rig.here.at("out")).expect("a file").ino(),
        inode
    );
}

#[test]
fn a_writable_file_in_a_directory_that_takes_no_other_is_written_in_place() {
    let rig = Rig::new();
    let url = rig.url("file");
    let directory = rig.here.directory("closed");
    for (bits, reason) in [
        (0o755, "in place: its directory takes no new file"),
        (
            0o1777,
            "in place: its directory is sticky and the file is another user's",
        ),
    ] {
        if bits == 0o1777 && !nix::unistd::geteuid().is_root() {
            continue;
        }
        let file = rig.here.file("closed/file", b"a longer old content");
        mode(&file, 0o666);
        mode(
            &directory,
            if nix::unistd::geteuid().is_root() {
                bits
            } else {
                0o555
            },
        );
        let get = |arguments: &[&str]| {
            let output = run(unprivileged(&mut rig.get(arguments)));
            (output.status.code(), text(&output))
        };
        let absent = rig.url("absent");
        let (code, words) = get(&["-o", "closed/file", &absent]);
        assert_eq!(code, Some(68), "{words}");
        assert_eq!(rig.read("closed/file"), "a longer old content");
        let (code, words) = get(&["-o", "closed/file", "--max-size", "3", &url]);
        assert_eq!(code, Some(1), "{words}");
        assert_eq!(rig.read("closed/file"), "a longer old content");
        let (code, words) = get(&["-v", "-o", "closed/file", &url]);
        assert_eq!(code, Some(0), "{words}");
        assert!(words.contains(reason), "{words}");
        assert_eq!(rig.read("closed/file"), "content\n");
        let wrong = "0".repeat(64);
        let (code, words) = get(&["--sha256", &wrong, "-o", "closed/file", &rig.url("large")]);
        assert_eq!(code, Some(1), "{words}");
        assert!(
            words.contains("not the one expected; closed/file was written in place and"),
            "{words}"
        );
        let (code, words) = get(&["-o", "closed/file", &rig.url("empty")]);
        assert_eq!(code, Some(0), "{words}");
        assert_eq!(rig.read("closed/file"), "");
        mode(&directory, 0o755);
    }
}

/// The owner of a sticky directory may replace every file in it.
#[test]
fn a_sticky_directory_of_ones_own_takes_new_files() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let rig = Rig::new();
    let directory = rig.here.directory("sticky");
    let file = rig.here.file("sticky/file", b"old");
    chown(&directory, Some(65_534), None).expect("as root");
    mode(&directory, 0o1755);
    mode(&file, 0o646);
    let arguments = ["-v", "-o", "sticky/file", &rig.url("file")];
    let output = run(unprivileged(&mut rig.get(&arguments)));
    assert_success(&output);
    assert!(!text(&output).contains("in place"), "{}", text(&output));
    assert_eq!(rig.read("sticky/file"), "content\n");
    let found = fs::metadata(&file).expect("a file");
    assert_eq!((found.uid(), found.mode() & 0o777), (65_534, 0o646));
}

#[test]
fn a_mounted_file_is_written_in_place_and_a_link_is_followed_by_the_kernel_alone() {
    let rig = Rig::new();
    rig.here.file("behind", b"a longer old content");
    rig.here.file("target", b"");
    let line = "mount --bind behind target && \"$0\" get -v -o target \"$1\"";
    let Some(output) = in_own_mounts(&rig, line) else {
        return;
    };
    assert_success(&output);
    assert!(
        text(&output).contains("writing file=\"target\" in place: it is a mount point"),
        "{}",
        text(&output)
    );
    assert_eq!(rig.read("behind"), "content\n");

    // Such a mount stands for every rule by which the kernel does not follow a link, as
    // fs.protected_symlinks.
    rig.here.file("secret", b"old");
    rig.here.directory("links");
    let line = "mount -t tmpfs -o nosymfollow tmpfs links && ln -s ../secret links/link && \
                \"$0\" get -o links/link \"$1\"";
    let output = in_own_mounts(&rig, line).expect("as before");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("cannot write links/link: "),
        "{}",
        text(&output)
    );
    assert_eq!(rig.read("secret"), "old");
}

/// The files of procfs can be written, and its directories take no new one, whatever their
/// permissions.
#[test]
fn a_file_system_that_takes_no_new_file_is_written_in_place() {
    let rig = Rig::new();
    let output = run(&mut rig.get(&["-v", "-o", "/proc/self/comm", &rig.url("file")]));
    assert_success(&output);
    let words = text(&output);
    assert!(words.contains("in place: its directory "), "{words}");
}

/// The rules of the kernel for FIFOs and files of other users, which hold for `O_CREAT` alone.
#[test]
fn what_the_kernel_protects_in_sticky_directories_is_not_written() {
    let rule = |name: &str| {
        let value = fs::read_to_string(format!("/proc/sys/fs/{name}"));
        value.is_ok_and(|value| value.trim() != "0")
    };
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let rig = Rig::new();
    mode(&rig.here.directory("sticky"), 0o1777);
    rig.here.file("secret", b"old");
    symlink("../secret", rig.here.at("sticky/link")).expect("a link");
    let owner = "mkfifo sticky/fifo; chmod 666 sticky/*; chown -h 65534 sticky/link sticky/fifo";
    assert_success(&rig.shell(owner));
    for (name, protection) in [
        ("sticky/link", "protected_symlinks"),
        ("sticky/fifo", "protected_fifos"),
    ] {
        if !rule(protection) {
            println!("fs.{protection} is off on this machine: not tried");
            continue;
        }
        let output = run(&mut rig.get(&["-o", name, &rig.url("file")]));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            text(&output).contains("permission denied"),
            "{}",
            text(&output)
        );
    }
    assert_eq!(rig.read("secret"), "old");
}

/// A server that must not be asked.
#[test]
fn an_output_that_cannot_be_written_is_found_before_the_transfer() {
    let rig = Rig::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    let url = format!("tftp://{}/file", socket.local_addr().expect("bound"));
    let closed = rig.here.directory("closed");
    mode(&rig.here.file("closed/read-only", b"old"), 0o444);
    mode(&rig.here.file("read-only", b"old"), 0o444);
    symlink("nowhere", rig.here.at("dangling")).expect("a link");
    mode(&closed, 0o555);
    mode(rig.here.path(), 0o777);
    for (output, reason) in [
        ("closed/new", "permission denied"),
        ("closed/read-only", "permission denied"),
        ("read-only", "permission denied"),
        ("absent/new", "no such file or directory"),
        ("dangling", "no such file or directory"),
        (&"x".repeat(256), "file name too long"),
    ] {
        let result = run(unprivileged(&mut rig.get(&["-o", output, &url])));
        let words = text(&result);
        assert_eq!(result.status.code(), Some(1), "{words}");
        let wanted = format!("tftpool: {url}: cannot write {output}: {reason}\n");
        assert_eq!(words, wanted);
    }
    mode(&closed, 0o755);
    let asked = socket.recv(&mut [0; 16]);
    assert!(asked.is_err(), "the server was asked");
    assert_eq!(rig.read("closed/read-only"), "old");
    assert_eq!(rig.read("read-only"), "old");
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let rig = Rig::new();
    let url = rig.url("large");
    let unasked = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    unasked.set_nonblocking(true).expect("a socket");
    let second = format!("tftp://{}/file", unasked.local_addr().expect("bound"));
    for arguments in [
        &["-o", "-", &url, &second][..],
        &["-o", "/dev/stdout", &url],
    ] {
        let mut child = rig.get(arguments).spawn().expect("the binary");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(141), "{}", text(&output));
        assert_eq!(text(&output), "");
    }
    let asked = unasked.recv(&mut [0; 16]);
    assert!(asked.is_err(), "a file was asked for that has no reader");
    let mut child = rig
        .get(&["--json", "-o", "out", &url])
        .spawn()
        .expect("the binary");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(141), "{}", text(&output));
    assert_eq!(text(&output), "");
}

#[test]
fn a_failed_write_is_told_with_its_cause() {
    let rig = Rig::new();
    let url = rig.url("large");
    let full = || {
        fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("a device")
    };
    let output = run(rig.get(&["-o", "-", &url]).stdout(full()));
    assert_eq!(output.status.code(), Some(1));
    let wanted = format!("tftpool: {url}: cannot write -: no space left on device\n");
    assert_eq!(text(&output), wanted);
    let output = run(&mut rig.get(&["-o", "/dev/full", &url]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output), wanted.replace(" -:", " /dev/full:"));
    for arguments in [&["get", "--json", "-o", "out"][..], &["probe"]] {
        let mut command = tftpool();
        command
            .args(arguments)
            .arg(&url)
            .current_dir(rig.here.path());
        let output = run(command.stdout(full()));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let wanted = "tftpool: cannot write to stdout: no space left on device\n";
        assert_eq!(text(&output), wanted);
    }
}

#[test]
fn an_empty_file_has_no_rate_and_a_small_one_a_legible_rate() {
    let rig = Rig::new();
    let words = |name: &str| text(&run(&mut rig.get(&[&rig.url(name)])));
    let empty = words("empty");
    assert!(empty.contains(": 0 bytes in "), "{empty}");
    assert!(!empty.contains("B/s"), "{empty}");
    let small = words("file");
    assert!(small.contains("B/s"), "{small}");
    assert!(!small.contains(", 0.0 "), "{small}");
}

#[test]
fn a_fifo_and_a_device_are_written_and_read_as_they_are() {
    let rig = Rig::new();
    assert_success(
        &rig.shell("mkfifo fifo && { \"$0\" get -q -o fifo \"$1\" & cat fifo > out; wait; }"),
    );
    assert_eq!(rig.read("out"), "content\n");
    assert!(!fs::metadata(rig.here.at("fifo")).expect("there").is_file());

    let root = Scratch::new();
    mode(root.path(), 0o777);
    let server = Server::start(root.path(), &["--write", "create"]);
    let put = |line: &str, name: &str| {
        let url = format!("tftp://{}/{name}", server.address());
        let output = rig.shell(&line.replace("URL", &url));
        assert_success(&output);
        assert!(
            text(&output).contains(&format!(" to {url}: ")),
            "{}",
            text(&output)
        );
        fs::read(root.at(name)).expect("a file")
    };
    assert_eq!(
        put("{ echo bytes > fifo & \"$0\" put fifo URL; }", "a"),
        b"bytes\n"
    );
    assert_eq!(put("\"$0\" put /dev/null URL", "b"), b"");
    assert_eq!(put("echo bytes | \"$0\" put - URL", "c"), b"bytes\n");
    assert_eq!(put(": > empty; \"$0\" put empty URL", "d"), b"");
    // Its size is said to be 0.
    let version = fs::read("/proc/version").expect("procfs");
    assert_eq!(put("\"$0\" put /proc/version URL", "e"), version);
}

/// An open FIFO wakes the program at its other end, whose bytes are lost then.
#[test]
fn a_fifo_stays_closed_where_the_host_is_not_found() {
    let rig = Rig::new();
    assert_success(&rig.shell("mkfifo fifo"));
    let fifo = rig.here.at("fifo");
    let mut writer = Command::new("sh")
        .args(["-c", "echo bytes > \"$0\"", fifo.to_str().expect("UTF-8")])
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let mut command = tftpool();
    command
        .args(["put"])
        .arg(&fifo)
        .arg("no-such-host.invalid:f");
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    // Does not wait for a writer that is gone.
    let mut options = fs::File::options();
    let options = options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let mut reader = options.open(&fifo).expect("a FIFO");
    assert!(writer.wait().expect("an end").success());
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("a FIFO");
    assert_eq!(bytes, b"bytes\n");
}

#[test]
fn every_command_has_a_version_and_the_clients_tell_more_with_v() {
    let rig = Rig::new();
    let url = rig.url("file");
    for command in ["get", "put", "probe", "serve"] {
        let output = run(tftpool().args([command, "-V"]));
        assert_success(&output);
        assert!(
            text(&output).contains(env!("CARGO_PKG_VERSION")),
            "{}",
            text(&output)
        );
    }
    let address = rig.server.address().to_string();
    for arguments in [
        &["get", "-v", "-o", "-"][..],
        &["put", "-v", "/dev/null"],
        &["probe", "-v"],
    ] {
        let output = run(tftpool().args(arguments).arg(&url));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = said.lines().next().expect("a line");
        assert!(
            line.starts_with("tftpool: ") && line.contains(&address),
            "{said}"
        );
    }
    let quiet = run(tftpool().args(["get", "-o", "-", &url]));
    assert_eq!(String::from_utf8_lossy(&quiet.stderr).lines().count(), 1);
}

#[test]
fn a_transfer_cannot_be_continued() {
    for arguments in [
        &["get", "--continue", "h:f"][..],
        &["get", "-c", "h:f"],
        &["get", "-C", "-", "h:f"],
        &["get", "--resume", "h:f"],
        &["put", "--continue", "f", "h:f"],
    ] {
        let output = run(tftpool().args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let words = text(&output);
        assert!(
            words.starts_with("tftpool: TFTP cannot continue a transfer: "),
            "{words}"
        );
    }
}

/// A server that answers a request only when it is told to.
#[test]
fn the_bar_stays_within_the_terminal_and_says_that_it_waits() {
    let here = Scratch::new();
    for columns in [40, 80, 200] {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(LONG)).expect("a time");
        let url = format!("tftp://{}/file", socket.local_addr().expect("bound"));
        let mut script = harness::client("script");
        let name = "bzImage-6.12.41-arm64-lts";
        let program = env!("CARGO_BIN_EXE_tftpool");
        let line =
            format!("stty rows 24 cols {columns}; exec {program} get -o {name} --no-options {url}");
        script.args(["-q", "-e", "-c", &line, "/dev/null"]);
        script.env("TERM", "xterm").current_dir(here.path());
        let mut child = script.stdout(Stdio::piped()).spawn().expect("script");
        let mut screen = child.stdout.take().expect("piped");
        let mut drawn = Vec::new();
        let mut read_until = |words: &str| {
            let mut bytes = [0; 4096];
            while !String::from_utf8_lossy(&drawn).contains(words) {
                match screen.read(&mut bytes).expect("a terminal") {
                    0 => panic!("no {words:?} in {:?}", String::from_utf8_lossy(&drawn)),
                    length => drawn.extend_from_slice(&bytes[..length]),
                }
            }
        };
        read_until("waiting for an answer");
        let mut buffer = [0; 1024];
        let (_, peer) = socket.recv_from(&mut buffer).expect("a request");
        let mut block = vec![0, 3, 0, 1];
        block.resize(516, b'x');
        socket.send_to(&block, peer).expect("sent");
        read_until("512 B");
        socket.send_to(b"\0\x03\0\x02end", peer).expect("sent");
        read_until("tftpool: got ");
        assert!(child.wait().expect("an end").success());
        let drawn = String::from_utf8(drawn).expect("text");
        let mut draws = drawn.split("\r\x1b[J").skip(1).collect::<Vec<_>>();
        let after = draws.pop().expect("an end");
        assert!(after.starts_with("tftpool: got "), "{drawn:?}");
        assert!(draws.len() > 1, "{drawn:?}");
        for draw in draws {
            let line = draw.strip_suffix('\r').expect("the cursor goes back");
            assert!(line.chars().count() < columns, "{columns}: {line:?}");
            assert!(!line.contains(['\r', '\n', '\x1b']), "{line:?}");
        }
    }
}

/// A terminal that cannot erase, log lines, and a file that goes to the terminal itself leave no
/// room for a bar.
#[test]
fn some_outputs_have_no_bar() {
    let rig = Rig::new();
    let program = env!("CARGO_BIN_EXE_tftpool");
    for (term, options, is_shown) in [
        ("xterm", "-o out", true),
        ("dumb", "-o out", false),
        ("xterm", "-o -", false),
        ("xterm", "-o /dev/stdout", false),
        ("xterm", "-o - > out", true),
        ("xterm", "-o out -v", false),
        ("xterm", "-o out --json", false),
        ("xterm", "-o out --quiet", false),
    ] {
        let line = format!("{program} get {} {options}", rig.url("file"));
        let mut script = harness::client("script");
        script.args(["-q", "-e", "-c", &line, "/dev/null"]);
        let output = run(script.env("TERM", term).current_dir(rig.here.path()));
        assert_success(&output);
        let words = text(&output);
        assert_eq!(
            words.contains('\x1b'),
            is_shown,
            "{term} {options}: {words:?}"
        );
    }
}
