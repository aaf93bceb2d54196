//! `tftpool get`, `put` and `probe` as people meet them: help, wrong values, names, digests, lines
//! for machines, exit codes.

mod harness;

use harness::{Scratch, Server, run, text, tftpool};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};

/// Runs `tftpool` with these arguments to its end: the exit code and what it said.
fn said(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(tftpool().args(arguments));
    (output.status.code(), text(&output))
}

#[test]
fn the_clients_help_names_every_option_with_its_default() {
    let settings = [
        (
            "--blksize <OCTETS>",
            "[default: 1428, or what the route carries]",
        ),
        ("--windowsize <BLOCKS>", "[default: 16]"),
        ("--mode <MODE>", "[default: what the URL says, or octet]"),
        (
            "--no-options",
            "[default: options, where the server knows them]",
        ),
        ("--no-tsize", "[default: sizes are compared]"),
        ("--timeout <TIME>", "[default: 1s]"),
        ("--retries <COUNT>", "after 14s [default: 5]"),
        ("--max-time <TIME>", "[default: any time]"),
        ("--local-port <PORT>", "[default: any free port]"),
        ("--bind <ADDR>", "[default: the route's]"),
        ("--interface <NAME>", "[default: the route's]"),
        (
            "--ipv4",
            "[default: every address, in the resolver's order]",
        ),
        ("--ipv6", ""),
        ("--json", "[default: lines for people, on stderr]"),
        ("--verbose...", "[default: none]"),
        (
            "--quiet",
            "[default: one line per file, and a bar on a terminal]",
        ),
    ];
    let get = [
        (
            "--output <FILE>",
            "[default: the last component of PATH, here]",
        ),
        ("--no-clobber", "[default: replace existing files]"),
        ("--sha256[=<HEX>]", ""),
        ("--max-size <SIZE>", "[default: 16G]"),
    ];
    let put = [("--final-timeout <TIME>", "[default: 60s]")];
    let probe = [
        ("--max-time <TIME>", "[default: 60s]"),
        ("--json", "[default: a table]"),
        ("--verbose...", "[default: none]"),
        ("--ipv4", ""),
        ("--ipv6", ""),
    ];
    for (command, options) in [
        ("get", [&settings[..], &get].concat()),
        ("put", [&settings[..], &put].concat()),
        ("probe", probe.to_vec()),
    ] {
        let (code, help) = said(&[command, "--help"]);
        assert_eq!(code, Some(0));
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (option, default) in options {
            let (_, after) = help
                .split_once(option)
                .unwrap_or_else(|| panic!("no {option} in {help}"));
            let own = after.split(" --").next().unwrap_or_default();
            assert!(own.contains(default), "{option} without {default}: {own}");
        }
    }
}

#[test]
fn the_client_is_told_what_is_accepted() {
    let wrong = |arguments: &[&str], accepted: &str| {
        let (code, words) = said(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {words}");
        assert!(words.contains(accepted), "{arguments:?}: {words}");
    };
    for (option, value, accepted) in [
        ("--blksize", "7", "from 8 to 65464"),
        ("--windowsize", "0", "from 1 to 32767"),
        ("--mode", "mail", "octet or netascii"),
        ("--timeout", "9ms", "from 10ms to 255s"),
        ("--retries", "101", "from 0 to 100"),
        ("--max-time", "0s", "from 1s to 365d"),
        ("--max-size", "0", "a size from 1"),
        ("--local-port", "0", "from 1 to 65535"),
        ("--bind", "name", "IPv4 or IPv6 address"),
    ] {
        wrong(&["get", "h:f", option, value], accepted);
    }
    wrong(&["get", "h:f", "--sha256=12"], "64 hexadecimal digits");
    wrong(&["get", "-4", "-6", "h:f"], "cannot be used with");
    wrong(&["get"], "SOURCE");
    wrong(&["get", "file"], "tftp://HOST[:PORT]/PATH or HOST:PATH");
    wrong(
        &["get", "http://h/f"],
        "unsupported URL scheme (expected tftp://)",
    );
    wrong(&["get", "h:dir/"], "-o FILE");
    wrong(&["get", "-o", "/no/file", "h:a", "h:b"], "a directory");
    wrong(
        &["put", "file"],
        "file: the destination is missing (add tftp://",
    );
    wrong(&["put", "h:f"], "h:f: the FILE to put there is missing");
    wrong(&["put", "a", "Cargo.toml"], "the destination is missing");
    wrong(&["put", "file", "dest"], "tftp://HOST[:PORT]/PATH");
    wrong(&["put", "a", "b", "h:f"], "end DEST with a slash");
    wrong(&["put", "-", "h:"], "say one in DEST");
    wrong(&["probe", "file"], "HOST:PATH");
    wrong(&["probe", "tftp://h"], "PATH is empty");
    wrong(&["probe", "h:7010", "f"], "write tftp://h:7010/f");
    wrong(&["probe", "a", "b", "c"], "expected one SOURCE");
    for command in ["get", "probe"] {
        wrong(
            &[command, "h:7010"],
            "write tftp://h:7010/PATH for port 7010",
        );
        wrong(&[command, "tftp://h:0/f"], "from 1 to 65535");
    }
    wrong(
        &["put", "Cargo.toml", "h:7010"],
        "write tftp://h:7010/PATH for port 7010",
    );
    wrong(&["probe", "h:f", "--max-time", "0"], "from 1s to 365d");
}

/// A file in a directory that is served, and a directory to get it into.
struct Pair {
    server: Server,
    root: Scratch,
    here: Scratch,
}

const DIGEST: &str = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53";

impl Pair {
    fn new() -> Self {
        let root = Scratch::new();
        root.file("file", b"content\n");
        root.file("boot/other", b"other\n");
        Self {
            server: Server::start(root.path(), &[]),
            root,
            here: Scratch::new(),
        }
    }

    fn url(&self, name: &str) -> String {
        format!("tftp://{}/{name}", self.server.address())
    }

    /// Runs `tftpool get` in the directory.
    fn get(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = tftpool();
        command.arg("get").args(arguments);
        let output = run(command.current_dir(self.here.path()));
        let text = |octets| String::from_utf8(octets).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.here.path().join(name)).ok()
    }
}

#[test]
fn files_get_their_names() {
    let pair = Pair::new();
    let (file, other) = (pair.url("file"), pair.url("boot/other"));
    let (code, stdout, words) = pair.get(&[&file, &other]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{words}");
    assert!(
        words.starts_with(&format!("tftpool: got file from {file}: 8 bytes in ")),
        "{words}"
    );
    assert_eq!(words.lines().count(), 2, "{words}");
    assert_eq!(pair.here.names(), ["file", "other"]);
    assert_eq!(pair.read("file").as_deref(), Some("content\n"));

    pair.here.directory("sub");
    assert_eq!(pair.get(&["-q", "-o", "sub", &file, &other]).2, "");
    assert_eq!(pair.read("sub/other").as_deref(), Some("other\n"));
    assert_eq!(pair.get(&["-q", "-o", "named", &file]).0, Some(0));
    assert_eq!(pair.read("named").as_deref(), Some("content\n"));

    // To stdout one behind the other, and nothing else with them.
    let (code, stdout, _) = pair.get(&["-o", "-", &file, &other]);
    assert_eq!((code, stdout.as_str()), (Some(0), "content\nother\n"));
    // What is no file stays what it is.
    assert_eq!(pair.get(&["-o", "/dev/null", &file]).0, Some(0));
    assert!(!std::fs::metadata("/dev/null").expect("there").is_file());
}

#[test]
fn an_existing_file_stays_until_the_new_one_is_whole() {
    let pair = Pair::new();
    pair.here.file("file", b"old");
    let (code, _, words) = pair.get(&["-o", "file", &pair.url("absent")]);
    assert_eq!(code, Some(68), "{words}");
    assert!(
        words.contains("server said: file not found (error 1)"),
        "{words}"
    );
    let wrong = "0".repeat(64);
    let (code, _, words) = pair.get(&["--sha256", &wrong, &pair.url("file")]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains(&format!("digest is {DIGEST}")), "{words}");
    let (code, _, words) = pair.get(&["--max-size", "7", &pair.url("file")]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("--max-size"), "{words}");
    assert_eq!(pair.read("file").as_deref(), Some("old"));
    assert_eq!(pair.here.names(), ["file"], "something was left behind");
    let (code, _, words) = pair.get(&[&pair.url("file")]);
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(pair.read("file").as_deref(), Some("content\n"));
    let (code, _, words) = pair.get(&["--no-clobber", &pair.url("file")]);
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("got file.1 from "), "{words}");
    assert_eq!(pair.read("file.1").as_deref(), Some("content\n"));
    // Who may read it does not change.
    harness::mode(&pair.here.path().join("file"), 0o600);
    assert_eq!(pair.get(&[&pair.url("file")]).0, Some(0));
    let bits = std::fs::metadata(pair.here.path().join("file")).expect("the file");
    assert_eq!(bits.permissions().mode() & 0o777, 0o600);
    // Through a link: the file at its end is the one that is replaced.
    symlink("file", pair.here.path().join("link")).expect("a link");
    let (code, _, words) = pair.get(&["-o", "link", &pair.url("boot/other")]);
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(pair.read("file").as_deref(), Some("other\n"));
    let (code, _, words) = pair.get(&["--no-clobber", "-o", "link", &pair.url("boot/other")]);
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(pair.here.names(), ["file", "file.1", "link", "link.1"]);
}

#[test]
fn a_link_that_leads_nowhere_is_no_place_to_write_to() {
    let pair = Pair::new();
    symlink("nowhere", pair.here.path().join("link")).expect("a link");
    let (code, _, words) = pair.get(&["-o", "link", &pair.url("file")]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("cannot write link: no such file"), "{words}");
    assert_eq!(pair.here.names(), ["link"]);
    // A name that is taken, all the same.
    let (code, _, words) = pair.get(&["--no-clobber", "-o", "link", &pair.url("file")]);
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(pair.here.names(), ["link", "link.1"]);
}

#[test]
fn a_time_is_asked_of_the_server_when_it_was_typed() {
    let request = |options: &[&str]| {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let url = format!("tftp://{}/file", server.local_addr().expect("bound"));
        let mut arguments = vec!["get", "-o", "-", &url];
        arguments.extend(options);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| said(&arguments));
            let mut buffer = [0; 2048];
            let wait = Some(std::time::Duration::from_secs(60));
            server.set_read_timeout(wait).expect("a time");
            let (length, peer) = server.recv_from(&mut buffer).expect("a request");
            server.send_to(b"\0\x05\0\x01no\0", peer).expect("sent");
            assert_eq!(client.join().expect("an end").0, Some(68));
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        })
    };
    assert!(request(&["--timeout", "1s"]).contains("\0timeout\x001\0"));
    assert!(request(&["--timeout", "3"]).contains("\0timeout\x003\0"));
    assert!(!request(&["--timeout", "1.5"]).contains("timeout"));
    assert!(!request(&[]).contains("timeout"));
}

#[test]
fn digests_are_printed_and_checked() {
    let pair = Pair::new();
    let url = pair.url("file");
    let (code, stdout, _) = pair.get(&["--sha256", &url]);
    assert_eq!(code, Some(0));
    assert_eq!(stdout, format!("{DIGEST}  file\n"));
    assert_eq!(pair.get(&["--sha256", DIGEST, &url]).0, Some(0));
    let (_, stdout, words) = pair.get(&["--sha256", "-o", "-", &url]);
    assert_eq!(stdout, "content\n");
    assert!(words.contains(DIGEST), "{words}");
}

#[test]
fn json_is_one_line_for_each_file() {
    let pair = Pair::new();
    let (file, absent) = (pair.url("file"), pair.url("absent"));
    let (code, stdout, words) = pair.get(&["--json", "--sha256", &file, &absent]);
    assert_eq!((code, words.as_str()), (Some(68), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    let start =
        format!("{{\"url\":\"{file}\",\"file\":\"file\",\"ok\":true,\"exit\":0,\"server\":");
    assert!(lines[0].starts_with(&start), "{stdout}");
    assert!(lines[0].contains("\"bytes\":8,"), "{stdout}");
    assert!(
        lines[0].ends_with(&format!("\"sha256\":\"{DIGEST}\"}}")),
        "{stdout}"
    );
    assert!(
        lines[1].contains("\"ok\":false,\"exit\":68,\"error\":\""),
        "{stdout}"
    );
    // What was asked for is told whole.
    let text = format!("{file};mode=netascii");
    let (_, stdout, words) = pair.get(&["--json", "-o", "text", &text]);
    let start = format!("{{\"url\":\"{text}\",\"file\":\"text\",\"ok\":true,");
    assert!(stdout.starts_with(&start), "{stdout}{words}");
}

#[test]
fn nobody_there_ends_with_curls_code_for_time() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let url = format!("tftp://{}/file", silent.local_addr().expect("bound"));
    let arguments = [
        "get",
        "-o",
        "-",
        "--timeout",
        "10ms",
        "--retries",
        "1",
        &url,
    ];
    let (code, words) = said(&arguments);
    assert_eq!(code, Some(28), "{words}");
    assert_eq!(
        words,
        format!("tftpool: {url}: the server never answered\n")
    );
    let (code, words) = said(&["get", "-o", "-", "tftp://no-such-host.invalid/file"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(
        words.contains("cannot find host \"no-such-host.invalid\""),
        "{words}"
    );
}

#[test]
fn a_server_without_uploads_refuses_them() {
    let pair = Pair::new();
    let file = pair.here.file("new", b"new");
    let path = file.to_str().expect("UTF-8");
    let (code, words) = said(&["put", path, &pair.url("")]);
    assert_eq!(code, Some(69), "{words}");
    assert!(words.contains("server is read-only"), "{words}");
    let (code, words) = said(&["put", "/no/such/file", &pair.url("")]);
    assert_eq!(code, Some(1), "{words}");
    assert!(
        words.contains("cannot read /no/such/file: no such file"),
        "{words}"
    );
}

#[test]
fn both_directions_go_over_ipv6() {
    if UdpSocket::bind("[::1]:0").is_err() {
        assert!(std::env::var_os("CI").is_none(), "no IPv6 on the loopback");
        eprintln!("SKIPPED: this machine has no IPv6");
        return;
    }
    let (root, here) = (Scratch::new(), Scratch::new());
    harness::mode(root.path(), 0o777);
    let mut serve = tftpool();
    serve.args(["serve", "--port", "0", "--host", "::1", "--write", "create"]);
    serve.arg(root.path());
    let server = Server::spawn(serve);
    let wanted = harness::content(100_000);
    let file = here.file("file", &wanted);
    let url = format!("tftp://{}/file", server.address());
    assert!(url.starts_with("tftp://[::1]:"), "{url}");
    let (code, words) = said(&["put", file.to_str().expect("UTF-8"), &url]);
    assert_eq!(code, Some(0), "{words}");
    let back = here.path().join("back");
    let (code, words) = said(&["get", "-o", back.to_str().expect("UTF-8"), &url]);
    assert_eq!(code, Some(0), "{words}");
    harness::assert_same(&url, &std::fs::read(back).expect("the file"), &wanted);
    let (code, table) = said(&["probe", &url]);
    assert_eq!(code, Some(0), "{table}");
}

/// `script` is a part of every Debian; it gives a program a terminal.
#[test]
fn a_terminal_shows_a_bar_and_a_pipe_does_not() {
    let pair = Pair::new();
    pair.root.file("large", &harness::content(20_000_000));
    let url = pair.url("large");
    let slow = ["-o", "/dev/null", "--blksize", "512", "--windowsize", "1"];
    let (_, _, words) = pair.get(&[&slow[..], &[&url]].concat());
    assert!(!words.contains("ETA"), "{words}");
    let program = env!("CARGO_BIN_EXE_tftpool");
    let line = format!("stty cols 100; {program} get {} {url}", slow.join(" "));
    let mut script = harness::client("script");
    script.env("TERM", "xterm");
    let output = run(script.args(["-q", "-e", "-c", &line, "/dev/null"]));
    let words = text(&output);
    assert!(output.status.success(), "{words}");
    for part in ["/dev/null [", "iB/s", "ETA", "rtt ", "got "] {
        assert!(words.contains(part), "no {part} in {words:?}");
    }
}

#[test]
fn a_probe_says_what_a_server_can_do() {
    let pair = Pair::new();
    let address = pair.server.address();
    let (code, table) = said(&["probe", &pair.url("file")]);
    assert_eq!(code, Some(0), "{table}");
    for line in [
        &format!("{address}, no options"),
        "OACK tsize=8",
        "the file has 8 octets",
        "the file is too small to show it",
        "best settings: --",
    ] {
        assert!(table.contains(line), "no {line} in {table}");
    }
    let (code, lines) = said(&["probe", "--json", &pair.url("file")]);
    assert_eq!(code, Some(0), "{lines}");
    assert!(
        lines
            .lines()
            .all(|line| line.starts_with('{') && line.ends_with('}'))
    );
    let last = lines.lines().last().expect("lines");
    assert!(last.starts_with("{\"works\":true,\"blksize\":"), "{lines}");
    let (code, table) = said(&["probe", &pair.url("absent")]);
    assert_eq!(code, Some(68), "{table}");
    assert!(table.contains("server does not have this file"), "{table}");
}

/// A probe breaks each of its transfers off. The server's log names them as probes, and the server
/// grants the next client of that address as much as before.
#[test]
fn a_probe_is_no_failure_in_the_log_of_the_server() {
    let pair = Pair::new();
    pair.root.file("large", &harness::content(3 << 20));
    let (code, table) = said(&["probe", &pair.url("large")]);
    assert_eq!(code, Some(0), "{table}");
    pair.server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut probes = 0;
    loop {
        let line = pair.server.line_with("");
        assert!(
            !line.contains("failed peer=") && !line.contains("learned"),
            "{line}"
        );
        probes += u32::from(line.contains(" probe peer="));
        if line.contains(" stopped completed=") {
            break;
        }
    }
    assert!(probes > 10, "{probes}");
}

#[test]
fn a_probe_of_a_host_that_is_not_there_is_a_line_for_machines_too() {
    let (code, line) = said(&["probe", "--json", "no-such-host.invalid:file"]);
    assert_eq!(code, Some(1), "{line}");
    let start = "{\"works\":false,\"error\":\"cannot find host \\\"no-such-host.invalid\\\": ";
    assert!(line.starts_with(start) && line.ends_with("\"}\n"), "{line}");
}

/// The cell of a table's column in its first line of answers.
fn cell(table: &str, column: &str) -> String {
    let mut lines = table
        .lines()
        .skip_while(|line| !line.starts_with("asked for"));
    let (head, line) = (lines.next(), lines.next());
    let at = head.and_then(|head| head.find(column)).expect(table);
    let rest = line.and_then(|line| line.get(at..)).expect(table);
    rest.split("  ").next().unwrap_or_default().to_owned()
}

#[test]
fn a_probe_shows_who_answers() {
    let pair = Pair::new();
    let (_, table) = said(&["probe", &pair.url("file")]);
    let from: std::net::SocketAddr = cell(&table, "from").parse().expect(&table);
    assert_eq!(from.ip(), pair.server.address().ip(), "{table}");
    assert_ne!(from, pair.server.address(), "{table}");
}

#[test]
fn a_probe_tells_a_closed_port_from_a_way_that_is_not_there() {
    let closed = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let url = format!("tftp://{}/file", closed.local_addr().expect("bound"));
    drop(closed);
    let (code, table) = said(&["probe", &url]);
    assert_eq!(code, Some(7), "{table}");
    assert_eq!(cell(&table, "got"), "port is closed", "{table}");
    assert_eq!(cell(&table, "verdict"), "no server at this port", "{table}");
    assert_eq!(cell(&table, "from"), "-", "{table}");
    // Broadcasts are not allowed to leave, unless a program asks for them.
    let (code, table) = said(&["probe", "tftp://255.255.255.255/file"]);
    assert_eq!(code, Some(1), "{table}");
    assert_eq!(cell(&table, "got"), "no way there", "{table}");
    assert!(table.contains("  cannot be asked: "), "{table}");
}

/// A closed port is known as such after the whole patience, and is not "no answer in time".
#[test]
fn a_closed_port_has_an_exit_code_of_its_own() {
    let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let url = format!("tftp://{}/file", address.expect("a free port"));
    let (code, words) = said(&["get", "--timeout", "20ms", "-o", "/dev/null", &url]);
    assert_eq!(code, Some(7), "{words}");
    assert!(words.contains("port is closed"), "{words}");
}

/// `probe` times the pairs that work, and says how fast each is. What it downloads it breaks off.
#[test]
fn a_probe_recommends_a_pair_that_it_has_timed() {
    let pair = Pair::new();
    pair.root.file("large", &harness::content(3 << 20));
    let (code, table) = said(&["probe", &pair.url("large")]);
    assert_eq!(code, Some(0), "{table}");
    let usual = "timed: blksize=1428 windowsize=16 ";
    assert!(table.contains(usual), "{table}");
    let (_, best) = table.split_once("best settings: ").expect("the best");
    let words: Vec<&str> = best.split_whitespace().collect();
    let [_, size, _, window] = words[..] else {
        panic!("{best}");
    };
    let rates: Vec<&str> = table
        .lines()
        .filter(|line| line.contains("MiB/s"))
        .collect();
    assert!((4..=9).contains(&rates.len()), "{table}");
    let is_best = |line: &&&str| {
        let asked = format!("timed: blksize={size} windowsize={window} ");
        let granted = format!("with blksize {size}, window {window}");
        line.starts_with(&asked) || line.ends_with(&granted)
    };
    assert!(rates.iter().any(|line| is_best(&line)), "{table}");
    let (_, lines) = said(&["probe", "--json", &pair.url("large")]);
    assert!(
        lines.contains("\"asked\":\"blksize=1428 windowsize=16\""),
        "{lines}"
    );
}
