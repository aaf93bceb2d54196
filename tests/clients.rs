//! Real clients against the real binary, every file compared octet by octet.
//!
//! busybox comes first: it is what half of the boards have. tftp-hpa says 0 when it failed, so only
//! the file counts; busybox wants the name to fit into its block size; atftp gives up on a second
//! OACK.

mod harness;

use harness::{Scratch, Server, ask, assert_same, client, content, error, first_block, run, text};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, os::unix::fs::symlink};

/// The clients, each with the block sizes that it is asked to try. `None` is a request without that
/// option.
const CLIENTS: [(Client, &[Option<u16>]); 4] = [
    (Client::Busybox, &[None, Some(1024), Some(1428), Some(8192)]),
    (Client::Hpa, &[None]),
    (Client::Atftp, &[None, Some(1024), Some(1428), Some(8192)]),
    (
        Client::Curl,
        &[None, Some(512), Some(1024), Some(1428), Some(8192)],
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Busybox,
    Hpa,
    Atftp,
    Curl,
}

/// From the server, or to it.
#[derive(Clone, Copy)]
enum Way {
    Get,
    Put,
}

impl Way {
    fn of<T>(self, get: T, put: T) -> T {
        match self {
            Self::Get => get,
            Self::Put => put,
        }
    }
}

impl Client {
    /// The command that fetches `name` into `file`.
    fn get(self, server: SocketAddr, name: &str, file: &Path, block: Option<u16>) -> Command {
        self.command(Way::Get, server, name, file, block)
    }

    /// The command that puts `file` there as `name`.
    fn put(self, server: SocketAddr, name: &str, file: &Path, block: Option<u16>) -> Command {
        self.command(Way::Put, server, name, file, block)
    }

    fn command(
        self,
        way: Way,
        server: SocketAddr,
        name: &str,
        file: &Path,
        block: Option<u16>,
    ) -> Command {
        let host = server.ip().to_string();
        let port = server.port().to_string();
        let block = block.map(|octets| octets.to_string());
        let mut command;
        match self {
            Self::Busybox => {
                command = client("busybox");
                command.args(["tftp", way.of("-g", "-p"), "-r", name, "-l"]);
                command.arg(file);
                command.args(block.iter().flat_map(|octets| ["-b", octets]));
                command.args([host, port]);
            }
            Self::Hpa => {
                assert_eq!(block, None, "tftp-hpa sends no options");
                let (name, file) = (OsStr::new(name), file.as_os_str());
                command = client("tftp");
                command.args(["-m", "binary", &host, &port, "-c", way.of("get", "put")]);
                command.args(way.of([name, file], [file, name]));
            }
            Self::Atftp => {
                command = client("atftp");
                command.args([way.of("--get", "--put"), "-r", name, "-l"]);
                command.arg(file);
                if let Some(octets) = block {
                    command.arg("--option").arg(format!("blksize {octets}"));
                    command.args(["--option", "tsize 0", "--option", "windowsize 16"]);
                }
                command.args([host, port]);
            }
            Self::Curl => {
                command = client("curl");
                command.args(["-sS", "--path-as-is", way.of("-o", "-T")]);
                command.arg(file);
                match &block {
                    Some(octets) => command.args(["--tftp-blksize", octets]),
                    None => command.arg("--tftp-no-options"),
                };
                command.arg(format!("tftp://{server}//{}", percent_encoded(name)));
            }
        }
        command
    }

    /// Fetches `name` and compares what came.
    #[track_caller]
    fn fetch(self, server: &Server, name: &str, wanted: &[u8], block: Option<u16>) {
        let what = format!("{self:?} fetching {name:?} with block size {block:?}");
        let scratch = Scratch::new();
        let file = scratch.path().join("got");
        let output = run(&mut self.get(server.address(), name, &file, block));
        assert!(output.status.success(), "{what}: {}", text(&output));
        let got =
            fs::read(&file).unwrap_or_else(|cause| panic!("{what}: {cause}: {}", text(&output)));
        assert_same(&what, &got, wanted);
    }
}

fn percent_encoded(name: &str) -> String {
    name.bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'/' => {
                char::from(octet).to_string()
            }
            _ => format!("%{octet:02x}"),
        })
        .collect()
}

/// Nothing, one octet, one block and its neighbours, exact multiples.
fn sizes() -> Vec<usize> {
    let blocks = [512, 1024, 1428, 8192];
    let around = |block: usize| [block - 1, block, block + 1, 2 * block, 10 * block];
    [0, 1]
        .into_iter()
        .chain(blocks.into_iter().flat_map(around))
        .collect()
}

fn block_sizes(client: Client) -> &'static [Option<u16>] {
    let mut listed = CLIENTS.into_iter();
    let found = listed.find(|(one, _)| *one == client);
    found.expect("listed").1
}

/// Files around every border.
fn every_size(client: Client) {
    let sizes = sizes();
    let root = Scratch::new();
    for &size in &sizes {
        root.file(format!("{size}.bin"), &content(size));
    }
    let server = Server::start(root.path(), &[]);
    for &block in block_sizes(client) {
        for &size in &sizes {
            client.fetch(&server, &format!("{size}.bin"), &content(size), block);
        }
    }
}

#[test]
fn busybox_fetches_files_of_every_size() {
    every_size(Client::Busybox);
}

#[test]
fn tftp_hpa_fetches_files_of_every_size() {
    every_size(Client::Hpa);
}

#[test]
fn atftp_fetches_files_of_every_size() {
    every_size(Client::Atftp);
}

#[test]
fn curl_fetches_files_of_every_size() {
    every_size(Client::Curl);
}

/// curl takes `tsize=0` in an OACK for an error, and asks for it unless told otherwise: the server
/// leaves it out for curl alone.
#[test]
fn curl_fetches_an_empty_file_with_every_set_of_options() {
    let root = Scratch::new();
    root.file("empty", b"");
    let server = Server::start(root.path(), &["-v"]);
    let kept = root.path().join("got");
    for options in [&[][..], &["--tftp-blksize", "1468"], &["--tftp-no-options"]] {
        let mut curl = client("curl");
        curl.args(["-sS", "-o"]).arg(&kept).args(options);
        let output = run(curl.arg(format!("tftp://{}//empty", server.address())));
        assert!(output.status.success(), "{options:?}: {}", text(&output));
        let got = fs::read(&kept).unwrap_or_default();
        assert_eq!(got, b"", "{options:?}");
        let asked = server.line_with("request id=");
        let asks = options.first() != Some(&"--tftp-no-options");
        assert_eq!(asked.contains("tsize=0"), asks, "{asked}");
        server.line_with("done peer=");
    }
}

/// A directory that the server may write to, whoever it has become.
fn writable() -> Scratch {
    let root = Scratch::new();
    harness::mode(root.path(), 0o777);
    root
}

/// Nothing is replaced: whoever comes second gets a number, and the log says which.
#[test]
fn a_name_that_is_taken_gets_a_number() {
    let (root, local) = (writable(), Scratch::new());
    let server = Server::start(root.path(), &["--write", "unique"]);
    for (content, name) in [("one", "log"), ("two", "log.1"), ("three", "log.2")] {
        let file = local.file("file", content.as_bytes());
        let output = run(&mut Client::Curl.put(server.address(), "log", &file, None));
        assert!(output.status.success(), "{name}: {}", text(&output));
        let stored = fs::read(root.path().join(name)).expect(name);
        assert_same(name, &stored, content.as_bytes());
        if name != "log" {
            server.line_with(&format!("stored file=\"/log\" as=\"{name}\""));
        }
    }
}

/// The same the other way, and a file that takes many windows.
fn every_size_up(client: Client) {
    let (root, local) = (writable(), Scratch::new());
    let server = Server::start(root.path(), &["--write", "overwrite"]);
    for &block in block_sizes(client) {
        for size in sizes().into_iter().chain([3_000_000]) {
            let what = format!("{client:?} putting {size} octets with block size {block:?}");
            let wanted = content(size);
            let file = local.file("file", &wanted);
            let name = format!("{size}.bin");
            let output = run(&mut client.put(server.address(), &name, &file, block));
            assert!(output.status.success(), "{what}: {}", text(&output));
            let stored = fs::read(root.path().join(&name));
            let stored =
                stored.unwrap_or_else(|cause| panic!("{what}: {cause}: {}", text(&output)));
            assert_same(&what, &stored, &wanted);
        }
    }
    let names = fs::read_dir(root.path()).expect("the root");
    let mut names = names.map(|entry| entry.expect("an entry").file_name());
    assert!(
        names.all(|name| !name.as_encoded_bytes().starts_with(b".")),
        "something is left"
    );
}

#[test]
fn busybox_puts_files_of_every_size() {
    every_size_up(Client::Busybox);
}

#[test]
fn tftp_hpa_puts_files_of_every_size() {
    every_size_up(Client::Hpa);
}

#[test]
fn atftp_puts_files_of_every_size() {
    every_size_up(Client::Atftp);
}

#[test]
fn curl_puts_files_of_every_size() {
    every_size_up(Client::Curl);
}

/// 33 MiB in blocks of 512 bytes: the block number of an upload passes 65535.
#[test]
fn block_numbers_wrap_in_uploads() {
    let wanted = content(33 << 20);
    let (root, local) = (writable(), Scratch::new());
    let file = local.file("large", &wanted);
    let server = Server::start(root.path(), &["--write", "create"]);
    for (number, (client, _)) in CLIENTS.into_iter().enumerate() {
        let name = number.to_string();
        let output = run(&mut client.put(server.address(), &name, &file, None));
        let stored = fs::read(root.path().join(&name));
        let stored = stored.unwrap_or_else(|cause| panic!("{client:?}: {cause}"));
        assert!(output.status.success(), "{client:?}: {}", text(&output));
        assert_same(&format!("{client:?}"), &stored, &wanted);
    }
}

/// The client repeats its last DATA after its own interval: 5 s in tftp-hpa and atftp. The server
/// must answer by an ACK, although the file is stored. curl is left out: its interval is 72 s
/// unless a limit of time is given, and the server does not stay that long.
#[test]
fn the_last_ack_of_an_upload_may_be_lost() {
    harness::in_a_network(|| {
        let wanted = content(10 * 512 + 100);
        let (root, local) = (writable(), Scratch::new());
        let file = local.file("file", &wanted);
        let server = Server::start(root.path(), &["--write", "create"]);
        for client in [Client::Busybox, Client::Hpa, Client::Atftp] {
            let name = format!("{client:?}");
            let lost = harness::Lost::ack(11);
            let output = run(&mut client.put(server.address(), &name, &file, None));
            let said = text(&output);
            assert_eq!(lost.count(), 1, "{client:?}: {said}");
            let quiet = !said.contains("timed out") && !said.contains("rror");
            assert!(output.status.success() && quiet, "{client:?}: {said}");
            let stored = fs::read(root.path().join(&name)).expect("the file");
            assert_same(&format!("{client:?}"), &stored, &wanted);
        }
    });
}

#[test]
fn tftp_hpa_puts_text() {
    let text_file = b"one\ntwo\rthree\n\n".repeat(200);
    let (root, local) = (writable(), Scratch::new());
    let server = Server::start(root.path(), &["--write", "create", "--umask", "027"]);
    let file = local.file("text", &text_file);
    let (host, port) = (server.address().ip(), server.address().port());
    let mut hpa = client("tftp");
    hpa.args(["-m", "ascii", &host.to_string(), &port.to_string()]);
    hpa.args(["-c", "put"]).arg(&file).arg("stored");
    let output = run(&mut hpa);
    let stored = root.path().join("stored");
    let got = fs::read(&stored).unwrap_or_else(|cause| panic!("{cause}: {}", text(&output)));
    assert_same("tftp-hpa", &got, &text_file);
    let bits = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(stored).expect("the file").permissions(),
    );
    assert_eq!(bits & 0o777, 0o640);
}

/// What may not be put: each client notices, and what was there stays.
#[test]
fn uploads_that_are_refused_leave_everything_as_it_was() {
    let root = writable();
    root.file("there", b"old");
    let local = Scratch::new();
    let small = local.file("small", b"new");
    let large = local.file("large", &content(100_000));
    let options = ["--write", "create", "--max-upload", "64K"];
    let server = Server::start(root.path(), &options);
    for (client, exists, too_large) in [
        (Client::Busybox, "(6)", "(3)"),
        (Client::Hpa, "Error code 6", "Error code 3"),
        (Client::Atftp, "ile exists", "too large"),
        (Client::Curl, "(73)", "(70)"),
    ] {
        for (name, file, words) in [("there", &small, exists), ("new", &large, too_large)] {
            let said = text(&run(&mut client.put(server.address(), name, file, None)));
            assert!(
                said.contains(words),
                "{client:?} putting {name:?} said: {said}"
            );
        }
    }
    assert_eq!(
        fs::read(root.path().join("there")).expect("the file"),
        b"old"
    );
    let names = fs::read_dir(root.path()).expect("the root");
    assert_eq!(names.count(), 1, "nothing is left");
}

/// 66 MiB at 512 octets a block: the 16-bit block number passes 65535 twice.
#[test]
fn block_numbers_wrap_more_than_once() {
    let wanted = content(66 << 20);
    let root = Scratch::new();
    root.file("large.bin", &wanted);
    let server = Server::start(root.path(), &[]);
    for (client, _) in CLIENTS {
        client.fetch(&server, "large.bin", &wanted, None);
    }
}

#[test]
fn names_reach_their_files() {
    let root = Scratch::new();
    let server = Server::start(root.path(), &[]);
    for (name, stored) in [
        ("plain.bin", "plain.bin"),
        ("two words.bin", "two words.bin"),
        ("grüße-日本.bin", "grüße-日本.bin"),
        ("/absolute.bin", "absolute.bin"),
        ("//twice.bin", "twice.bin"),
        ("boot/grub/x86/core.bin", "boot/grub/x86/core.bin"),
        ("boot//grub/./twice.bin", "boot/grub/twice.bin"),
        ("pxe/../boot/dots.bin", "boot/dots.bin"),
        ("boot\\windows\\bcd.bin", "boot/windows/bcd.bin"),
        ("literal\\back.bin", "literal\\back.bin"),
    ] {
        let wanted = content(1000 + name.len());
        root.file(stored, &wanted);
        for (client, _) in CLIENTS {
            client.fetch(&server, name, &wanted, None);
        }
    }
}

#[test]
fn netascii_translates_line_ends_across_block_borders() {
    let mut wanted = b"\rlone\r\nboth\nonly\n\r\r\n".repeat(100);
    // CR and LF on both sides of the first border, after translation and before it.
    wanted.resize(511, b'x');
    wanted.extend_from_slice(b"\n\r\n\n\r");
    wanted.extend(content(5000).iter().map(|octet| octet % 16));
    let root = Scratch::new();
    root.file("text", &wanted);
    let server = Server::start(root.path(), &[]);
    let address = server.address();
    let scratch = Scratch::new();

    let file = scratch.path().join("hpa");
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut hpa = client("tftp");
    hpa.args(["-m", "ascii", &host, &port, "-c", "get", "text"])
        .arg(&file);
    let output = run(&mut hpa);
    assert!(file.exists(), "{}", text(&output));
    assert_same("tftp-hpa", &fs::read(file).expect("the file"), &wanted);
}

#[test]
fn sixty_clients_share_two_workers() {
    let root = Scratch::new();
    let wanted = content(300_000);
    root.file("shared.bin", &wanted);
    let server = Server::start(root.path(), &["--workers", "2"]);
    let scratch = Scratch::new();
    let fetches: Vec<_> = (0..60)
        .map(|number| {
            let (client, _) = CLIENTS[number % CLIENTS.len()];
            let file = scratch.path().join(number.to_string());
            let mut command = client.get(server.address(), "shared.bin", &file, None);
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            (client, file, child.expect("the client starts"))
        })
        .collect();
    for (client, file, mut child) in fetches {
        let status = child.wait().expect("our own child");
        assert!(status.success(), "{client:?}: {status}");
        assert_same(
            &format!("{client:?}"),
            &fs::read(file).expect("the file"),
            &wanted,
        );
    }
}

/// What may not be had: the code on the wire, and that each client notices.
#[test]
fn refusals_carry_the_right_code() {
    let outside = Scratch::new();
    outside.file("secret", b"secret");
    let scratch = Scratch::new();
    let root = scratch.directory("root");
    scratch.file("root/readable", b"readable");
    scratch.file("beside", b"secret");
    let private = scratch.file("root/private", b"secret");
    harness::mode(&private, 0o600);
    scratch.directory("root/directory");
    nix::unistd::mkfifo(&root.join("fifo"), Mode::from_bits_truncate(0o644)).expect("a FIFO");
    symlink(outside.path().join("secret"), root.join("absolute")).expect("a link");
    symlink("../beside", root.join("climbing")).expect("a link");
    symlink("readable", root.join("inside")).expect("a link");
    symlink("/nonexistent", root.join("dangling")).expect("a link");
    let server = Server::start(&root, &[]);

    for (name, code) in [
        ("missing", 1),
        ("readable/missing", 1),
        ("directory", 2),
        ("fifo", 2),
        ("private", 2),
        ("../beside", 2),
        ("directory/../../beside", 2),
        ("absolute", 2),
        ("climbing", 2),
        ("dangling", 2),
        ("line\nfeed", 2),
    ] {
        let (got, words) = error(&ask(server.address(), name));
        assert_eq!(got, code, "{name:?}: {words}");
        let path = root.to_str().expect("UTF-8");
        assert!(
            !words.contains(path) && !words.contains("os error"),
            "{name:?}: {words}"
        );
        // For people: there is something to read, and nothing of theirs comes back.
        let is_plain = words.chars().all(|it| it == ' ' || it.is_ascii_graphic());
        assert!(is_plain && (1..=60).contains(&words.len()), "{words:?}");
        assert!(!words.contains(name), "{words:?}");
    }
    assert_eq!(first_block(&ask(server.address(), "inside")), b"readable");

    for (client, missing, denied) in [
        (Client::Busybox, "(1)", "(2)"),
        (Client::Hpa, "Error code 1", "Error code 2"),
        (Client::Atftp, "ile not found", "ccess violation"),
        (Client::Curl, "(68)", "(69)"),
    ] {
        for (name, words) in [("missing", missing), ("private", denied), ("fifo", denied)] {
            let output =
                run(&mut client.get(server.address(), name, &scratch.path().join("got"), None));
            let said = text(&output);
            assert!(
                said.contains(words),
                "{client:?} asking for {name:?} said: {said}"
            );
        }
    }
}

#[test]
fn private_files_and_allowed_trees_are_served_when_asked() {
    let outside = Scratch::new();
    outside.file("shared", b"shared");
    let root = Scratch::new();
    let private = root.file("private", b"private");
    // Readable for the server's user, whoever that is, but not for the world.
    harness::mode(&private, 0o640);
    let status = fs::metadata(&private).expect("the file");
    if nix::unistd::geteuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody")
            .expect("users")
            .expect("nobody");
        nix::unistd::chown(&private, Some(nobody.uid), None).expect("as root");
    } else {
        assert!(std::os::unix::fs::MetadataExt::uid(&status) != 0);
    }
    symlink(outside.path().join("shared"), root.path().join("link")).expect("a link");
    let tree = outside.path().to_str().expect("UTF-8");
    let server = Server::start(
        root.path(),
        &["--serve-unreadable", "--allow-symlink-target", tree],
    );
    assert_eq!(first_block(&ask(server.address(), "private")), b"private");
    assert_eq!(first_block(&ask(server.address(), "link")), b"shared");
}

#[test]
fn every_interface_is_served_over_both_protocols() {
    let root = Scratch::new();
    root.file("file", b"content");
    let mut command = harness::tftpool();
    command.args(["serve", "--port", "0"]).arg(root.path());
    let server = Server::spawn(command);
    let addresses = server.addresses();
    assert_eq!(addresses[0].ip().to_string(), "0.0.0.0");
    let port = addresses[0].port();
    assert_eq!(
        first_block(&ask(([127, 0, 0, 1], port).into(), "file")),
        b"content"
    );
    match addresses.get(1) {
        Some(six) => {
            assert_eq!(six.to_string(), format!("[::]:{port}"));
            let six = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
            assert_eq!(first_block(&ask(six, "file")), b"content");
            let scratch = Scratch::new();
            let file = scratch.path().join("got");
            run(&mut Client::Busybox.get(six, "file", &file, None));
            assert_eq!(fs::read(file).expect("the file"), b"content");
        }
        None => harness::skip("this machine has no IPv6"),
    }
}

/// Root's rights are gone when the banner appears, before any request is read.
#[test]
fn root_becomes_nobody_before_the_first_request() {
    if !nix::unistd::geteuid().is_root() {
        harness::skip("only root can give up root's rights");
        return;
    }
    let root = Scratch::new();
    root.file("file", b"content");
    let server = Server::start(root.path(), &["--user", "nobody"]);
    let nobody = nix::unistd::User::from_name("nobody")
        .expect("users")
        .expect("nobody");
    let status = |server: &Server, key: &str| {
        let all = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("/proc");
        let line = all
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .expect("the key");
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(status(&server, "Uid:"), [&*nobody.uid.to_string(); 4]);
    assert_eq!(status(&server, "Gid:"), [&*nobody.gid.to_string(); 4]);
    assert_eq!(status(&server, "Groups:"), [""; 0]);
    for set in ["CapEff:", "CapPrm:"] {
        assert_eq!(status(&server, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");

    let kept = Server::start(root.path(), &["--user", "root"]);
    assert_eq!(status(&kept, "Uid:"), ["0"; 4]);
}
