//! The files of other file systems and other owners, by the binary and with clients that are not
//! ours: raw sockets and curl. What needs root is skipped for other users.

mod harness;

use harness::{
    LONG, Scratch, Server, assert_same, client, content, mode, run, skip, text, tftpool,
};
use std::ffi::OsStr;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// The code of an ERROR and its text.
type Told = (u16, String);

/// A socket that knows its server's TID once it has an answer.
struct Raw {
    socket: UdpSocket,
    tid: Option<SocketAddr>,
}

impl Raw {
    fn ask(server: SocketAddr, opcode: u8, name: &[u8], options: &[u8]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(LONG)).expect("a timeout");
        let request = [&[0, opcode], name, b"\0octet\0", options].concat();
        socket.send_to(&request, server).expect("sent");
        Self { socket, tid: None }
    }

    fn answer(&mut self) -> Result<Vec<u8>, Told> {
        let mut packet = vec![0; 2048];
        let (length, from) = self.socket.recv_from(&mut packet).expect("an answer");
        packet.truncate(length);
        self.tid = Some(from);
        match packet.starts_with(&[0, 5]) {
            true => Err(harness::error(&packet)),
            false => Ok(packet),
        }
    }

    fn say(&self, packet: &[u8]) {
        let tid = self.tid.expect("an answer came");
        self.socket.send_to(packet, tid).expect("sent");
    }
}

/// Fetches a file in lock step.
fn fetch(server: SocketAddr, name: impl AsRef<[u8]>) -> Result<Vec<u8>, Told> {
    let mut raw = Raw::ask(server, 1, name.as_ref(), b"");
    let (mut file, mut number) = (Vec::new(), 0u16);
    loop {
        let packet = raw.answer()?;
        if packet[..2] == [0, 3] && packet[2..4] == (number + 1).to_be_bytes() {
            number += 1;
            file.extend_from_slice(&packet[4..]);
            raw.say(&[[0, 4], number.to_be_bytes()].concat());
            if packet.len() < 516 {
                return Ok(file);
            }
        }
    }
}

/// Puts one block, the only one if it is short.
fn offer(server: SocketAddr, name: impl AsRef<[u8]>, block: &[u8]) -> Result<Raw, Told> {
    let mut raw = Raw::ask(server, 2, name.as_ref(), b"");
    assert_eq!(raw.answer()?, [0, 4, 0, 0]);
    raw.say(&[&[0, 3, 0, 1], block].concat());
    assert_eq!(raw.answer()?, [0, 4, 0, 1]);
    Ok(raw)
}

fn put(server: SocketAddr, name: impl AsRef<[u8]>, block: &[u8]) -> Result<(), Told> {
    offer(server, name, block).map(drop)
}

fn violation() -> Result<(), Told> {
    Err((2, "access violation".into()))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn read(at: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(at).expect("a file")
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("needs root");
    }
    is_root
}

/// Serves from a mount namespace that a script has prepared; `None` where this user may not make
/// one.
fn in_namespace(prepare: &str, serve: &str) -> Option<Server> {
    let script = format!(
        "{prepare} && exec {} serve --host 127.0.0.1 --port 0 {serve}",
        env!("CARGO_BIN_EXE_tftpool")
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]);
    let trial = Command::new("unshare")
        .args(["--mount", "sh", "-ec", prepare])
        .stderr(Stdio::null())
        .status();
    if !trial.is_ok_and(|status| status.success()) {
        skip("this user may not mount what the test needs");
        return None;
    }
    command.arg(script).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(Server::spawn(command))
}

/// Names of procfs, whose files say that they are empty, and of sysfs, whose files say that they
/// have 4096 bytes.
const PROC: [&str; 3] = ["sys/kernel/ostype", "version", "filesystems"];
const SYS: [&str; 2] = ["kernel/fscaps", "kernel/mm/transparent_hugepage/enabled"];

#[test]
fn files_that_misreport_their_size_are_served_whole() {
    let scratch = Scratch::new();
    for (root, names) in [("/proc", &PROC[..]), ("/sys", &SYS[..])] {
        let server = Server::start(Path::new(root), &[]);
        for name in names {
            let file = Path::new(root).join(name);
            if !file.exists() {
                skip(&format!("{} is missing", file.display()));
                continue;
            }
            let wanted = read(&file);
            assert_ne!(
                wanted.len() as u64,
                std::fs::metadata(&file).expect("it").len()
            );
            assert_eq!(fetch(server.address(), name), Ok(wanted.clone()), "{name}");
            let copy = scratch.at("copy");
            let url = format!("tftp://{}/{name}", server.address());
            let curl = run(client("curl").args(["-s", "-S", "-o", path(&copy), &url]));
            assert!(curl.status.success(), "{}", text(&curl));
            assert_same(name, &read(&copy), &wanted);
            let got = run(tftpool().args(["get", "-o", path(&copy), &url]));
            assert!(got.status.success(), "{}", text(&got));
            assert_same(name, &read(&copy), &wanted);
        }
    }
}

#[test]
fn files_that_misreport_their_size_are_put_whole() {
    let scratch = Scratch::new();
    mode(scratch.path(), 0o777);
    let server = Server::start(scratch.path(), &["--write", "create"]);
    let proc = PROC.iter().map(|name| Path::new("/proc").join(name));
    let files = proc.chain(SYS.iter().map(|name| Path::new("/sys").join(name)));
    for (number, file) in files.filter(|file| file.exists()).enumerate() {
        let url = format!("tftp://{}/{number}", server.address());
        let put = run(tftpool().args(["put", path(&file), &url]));
        assert!(put.status.success(), "{}", text(&put));
        assert_same(
            path(&file),
            &read(scratch.at(number.to_string())),
            &read(&file),
        );
    }
    // Truly empty files stay what they are, with their size.
    let empty = scratch.file("empty", "");
    let url = format!("tftp://{}/copy", server.address());
    let put = run(tftpool().args(["put", path(&empty), &url]));
    assert!(put.status.success(), "{}", text(&put));
    assert_eq!(read(scratch.at("copy")), b"");
}

/// tmpfs reports no blocks for a file that is a hole, and an overlay hands out files of two file
/// systems.
#[test]
fn files_of_tmpfs_and_overlay_are_served_and_replaced() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let root = path(scratch.path());
    let prepare = format!(
        "mount -t tmpfs none {root} && cd {root} && mkdir lower upper work all && \
         truncate -s 5000 lower/hole && seq 1000 > lower/numbers && touch lower/empty && \
         chmod -R a+rwX . && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none all"
    );
    let serve = format!("--write overwrite {root}");
    let Some(server) = in_namespace(&prepare, &serve) else {
        return;
    };
    let numbers: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    for tree in ["lower", "all"] {
        let get = |name: &str| fetch(server.address(), format!("{tree}/{name}"));
        assert_eq!(get("hole"), Ok(vec![0; 5000]), "{tree}");
        assert_eq!(get("numbers"), Ok(numbers.clone().into_bytes()), "{tree}");
        assert_eq!(get("empty"), Ok(Vec::new()), "{tree}");
    }
    for name in ["all/numbers", "all/new", "upper/new"] {
        assert_eq!(put(server.address(), name, b"short"), Ok(()), "{name}");
        assert_eq!(fetch(server.address(), name), Ok(b"short".to_vec()));
    }
    let lower = fetch(server.address(), "lower/numbers");
    assert_eq!(lower, Ok(numbers.into_bytes()));
}

/// Root's server becomes nobody, who may make files in the directory.
#[test]
fn overwriting_needs_permission_to_write_to_the_old_file() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    mode(scratch.path(), 0o777);
    for (name, bits) in [("golden", 0o444), ("private", 0o644), ("shared", 0o666)] {
        mode(&scratch.file(name, "old"), bits);
    }
    let server = Server::start(scratch.path(), &["--write", "overwrite"]);
    let address = server.address();
    for name in ["golden", "private"] {
        assert_eq!(put(address, name, b"new"), violation(), "{name}");
        assert_eq!(read(scratch.at(name)), b"old", "{name}");
    }
    assert_eq!(put(address, "shared", b"new"), Ok(()));
    assert_eq!(read(scratch.at("shared")), b"new");
    let bits = |name| std::fs::metadata(scratch.at(name)).expect("a file").mode() & 0o7777;
    assert_eq!((bits("shared"), bits("golden")), (0o666, 0o444));
    assert_eq!(put(address, "fresh", b"new"), Ok(()));
    assert_eq!(bits("fresh"), 0o644);
    // The server's own files may be read-only, too.
    mode(&scratch.at("fresh"), 0o444);
    assert_eq!(put(address, "fresh", b"newer"), violation());
}

#[test]
fn a_file_that_is_replaced_keeps_its_mode_and_owner() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    for (name, bits, owner) in [("a", 0o640, 1234), ("b", 0o6755, 1234), ("c", 0o6755, 0)] {
        let file = scratch.file(name, "old");
        chown(&file, Some(owner), Some(owner)).expect("as root");
        mode(&file, bits);
    }
    let server = Server::start(scratch.path(), &["--write", "overwrite", "--user", "root"]);
    for (name, bits, owner) in [("a", 0o640, 1234), ("b", 0o755, 1234), ("c", 0o755, 0)] {
        assert_eq!(put(server.address(), name, b"new"), Ok(()));
        let found = std::fs::metadata(scratch.at(name)).expect("a file");
        assert_eq!((found.uid(), found.gid()), (owner, owner), "{name}");
        assert_eq!(found.mode() & 0o7777, bits, "{name}: no set-user-ID bit");
        assert_eq!(read(scratch.at(name)), b"new");
    }
}

/// The directory is root's, or it is sticky and the file is root's: nobody's server cannot put a
/// new file there.
#[test]
fn a_file_that_cannot_be_replaced_is_written_in_place() {
    if !is_root() {
        return;
    }
    for (bits, new) in [(0o755, violation()), (0o1777, Ok(()))] {
        let scratch = Scratch::new();
        mode(scratch.path(), bits);
        mode(&scratch.file("file", "the old content"), 0o666);
        let before = std::fs::metadata(scratch.at("file")).expect("a file");
        let server = Server::start(scratch.path(), &["--write", "overwrite"]);
        let address = server.address();
        // Nothing is lost before the first block.
        let mut asked = Raw::ask(address, 2, b"file", b"");
        assert_eq!(asked.answer(), Ok(vec![0, 4, 0, 0]));
        assert_eq!(read(scratch.at("file")), b"the old content");
        asked.say(&[&[0, 3, 0, 1], &content(512)[..]].concat());
        assert_eq!(asked.answer(), Ok(vec![0, 4, 0, 1]));
        let busy = put(address, "file", b"new");
        assert_eq!(busy, Err((0, "file is busy".into())));
        asked.say(b"\0\x05\0\0enough\0");
        let line = server.line_with("incomplete");
        assert!(
            line.contains("\"file\" is incomplete: it was written in place"),
            "{line}"
        );

        assert_eq!(put(address, "file", b"new"), Ok(()));
        assert_eq!(read(scratch.at("file")), b"new");
        let after = std::fs::metadata(scratch.at("file")).expect("a file");
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
        assert_eq!(put(address, "other", b"new"), new);
        let left = 1 + usize::from(new.is_ok());
        assert_eq!(scratch.names().len(), left, "{:?}", scratch.names());
    }
}

/// Root, the owner of the file and the owner of the directory may replace a file in a sticky
/// directory.
#[test]
fn a_sticky_directory_keeps_its_files_from_others_only() {
    if !is_root() {
        return;
    }
    const NOBODY: u32 = 65_534;
    for (user, directory, file) in [
        ("65534:65534", NOBODY, 1234),
        ("65534:65534", 1234, NOBODY),
        ("root", 1234, 2345),
    ] {
        let scratch = Scratch::new();
        let old = scratch.file("file", "old");
        mode(&old, 0o666);
        chown(&old, Some(file), None).expect("as root");
        chown(scratch.path(), Some(directory), None).expect("as root");
        mode(scratch.path(), 0o1777);
        let before = std::fs::metadata(&old).expect("a file");
        let options = ["--write", "overwrite", "--user", user];
        let server = Server::start(scratch.path(), &options);
        // While it is open no other file gets its number.
        let keeper = std::fs::File::open(&old).expect("a file");
        assert_eq!(put(server.address(), "file", b"new"), Ok(()));
        let after = std::fs::metadata(&old).expect("a file");
        let case = format!("{user}, {directory}, {file}");
        assert_ne!(after.ino(), before.ino(), "{case}: not replaced");
        assert_eq!(read(&old), b"new", "{case}");
        drop(keeper);
    }
}

/// As containers mount single files.
#[test]
fn a_file_that_is_a_mount_point_is_written_in_place() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let outside = Scratch::new();
    mode(scratch.path(), 0o777);
    let inner = outside.file("inner", "old");
    mode(&inner, 0o666);
    scratch.file("mounted", "");
    let prepare = format!(
        "mount --bind {} {}",
        path(&inner),
        path(&scratch.at("mounted"))
    );
    let serve = format!("--write overwrite {}", path(scratch.path()));
    let Some(server) = in_namespace(&prepare, &serve) else {
        return;
    };
    assert_eq!(put(server.address(), "mounted", b"new"), Ok(()));
    assert_eq!(read(&inner), b"new");
    assert_eq!(fetch(server.address(), "mounted"), Ok(b"new".to_vec()));
    assert_eq!(scratch.names(), ["mounted"]);
}

/// Whether a process sleeps; it has to have a name without spaces.
fn sleeps(process: u32) -> bool {
    let stat = read(format!("/proc/{process}/stat"));
    let state = stat.split(|&byte| byte == b' ').nth(2);
    state == Some(b"S")
}

/// A writer that waits for its real reader is not woken: by a request for the FIFO, by one for a
/// file beneath it, nor by an upload to it.
#[test]
fn a_fifo_is_not_opened_by_any_request() {
    let scratch = Scratch::new();
    let without_proc = "mount -t tmpfs none /proc";
    mode(scratch.path(), 0o777);
    let fifo = scratch.at("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a FIFO");
    mode(&fifo, 0o666);
    let options = ["--write", "overwrite"];
    let mut servers = vec![Server::start(scratch.path(), &options)];
    if nix::unistd::geteuid().is_root() {
        let serve = format!("--write overwrite {}", path(scratch.path()));
        servers.extend(in_namespace(without_proc, &serve));
    }
    let mut writer = Command::new("sh")
        .args(["-c", "echo precious > \"$0\"", path(&fifo)])
        .spawn()
        .expect("a shell");
    // It sleeps in its open.
    while !sleeps(writer.id()) {
        std::thread::yield_now();
    }
    for server in &servers {
        let violation = Err((2, "access violation".to_owned()));
        assert_eq!(fetch(server.address(), "fifo"), violation);
        let missing = (1, "file not found".to_owned());
        assert_eq!(fetch(server.address(), "fifo/x"), Err(missing.clone()));
        assert_eq!(put(server.address(), "fifo", b"x"), violation.map(drop));
        assert_eq!(put(server.address(), "fifo/x", b"x"), Err(missing));
    }
    drop(servers);
    assert!(sleeps(writer.id()), "it was woken");
    assert_eq!(read(&fifo), b"precious\n");
    assert!(writer.wait().expect("our own child").success());
}

#[test]
fn files_are_served_and_taken_without_proc() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    mode(scratch.path(), 0o777);
    scratch.file("deep/small", &content(3000));
    scratch.file("large", &content(200_000));
    mode(&scratch.file("secret", "x"), 0o600);
    symlink("deep/small", scratch.at("link")).expect("a link");
    // Once there is nothing, and once nothing that may be looked at.
    for hide in [
        "mount -t tmpfs none /proc",
        "mount -t tmpfs -o mode=0 none /proc",
    ] {
        let serve = format!("--write overwrite {}", path(scratch.path()));
        let Some(server) = in_namespace(hide, &serve) else {
            return;
        };
        let address = server.address();
        for (name, length) in [("deep/small", 3000), ("link", 3000), ("large", 200_000)] {
            let got = fetch(address, name).expect("a file");
            assert_same(name, &got, &content(length));
        }
        assert_eq!(fetch(address, "secret").map(drop), violation());
        assert_eq!(put(address, "new", b"new"), Ok(()));
        assert_eq!(read(scratch.at("new")), b"new");
    }
}

#[test]
fn a_name_with_a_byte_0xff_is_served_as_what_stands_before_it() {
    let scratch = Scratch::new();
    scratch.file("boot/x.efi", "loader");
    scratch.file(OsStr::from_bytes(b"real\xff"), "exact");
    scratch.file("real", "short");
    let secret = scratch.file(OsStr::from_bytes(b"secret\xff"), "x");
    mode(&secret, 0o600);
    scratch.file("secret", "short");
    let server = Server::start(scratch.path(), &["--write", "create"]);
    let address = server.address();
    let long = [b"boot/x.efi\xff".to_vec(), vec![b'z'; 300]].concat();
    for name in [
        &b"boot/x.efi\xff"[..],
        b"boot\\x.efi\xff\xff\x01",
        b"/boot/x.efi\xff\x06y\n",
        &long,
    ] {
        let got = fetch(address, name);
        assert_eq!(got, Ok(b"loader".to_vec()), "{}", name.escape_ascii());
    }
    let line = server.line_with("0xff");
    assert!(
        line.contains(r#"file="boot/x.efi\xff" as="boot/x.efi""#),
        "{line}"
    );
    assert_eq!(fetch(address, b"real\xff"), Ok(b"exact".to_vec()));
    assert_eq!(
        fetch(address, b"real\xfe"),
        Err((1, "file not found".into()))
    );
    for (name, code) in [
        (&b"other\xff"[..], 1),
        (b"\xff", 1),
        (b"../x\xff", 2),
        (b"secret\xff", 2),
        (b"boot\xff", 2),
        // A separator behind the byte makes the name a path: it means another file.
        (b"real\xff/..", 2),
        (b"real\xff\\..", 2),
        (b"real\xff\\..\\boot", 2),
        (b"boot/x.efi\xff/", 2),
        (b"boot/x.efi\xff/y", 1),
        (b"boot/x.efi\xff\xff\\y", 1),
        (b"boot/x.efi\xff/../x.img\xff", 1),
    ] {
        let told = fetch(address, name).map_err(|told| told.0);
        assert_eq!(told, Err(code), "{}", name.escape_ascii());
    }
}

#[test]
fn names_that_are_too_long_or_a_directorys_are_refused_as_such() {
    let scratch = Scratch::new();
    mode(scratch.path(), 0o777);
    scratch.file("file", "old");
    for how in ["create", "overwrite", "unique"] {
        let server = Server::start(scratch.path(), &["--write", how]);
        let address = server.address();
        let too_long = (4, "file name too long".to_owned());
        for name in [
            "n".repeat(256),
            "n".repeat(600),
            format!("n/{}", "n".repeat(1100)),
        ] {
            assert_eq!(fetch(address, &name), Err(too_long.clone()));
            assert_eq!(put(address, &name, b"x"), Err(too_long.clone()), "{how}");
        }
        for name in ["file/", "file/.", "/file//", "new/", "file/x/.."] {
            assert_eq!(fetch(address, name).map(drop), violation(), "{name}");
            assert_eq!(put(address, name, b"x"), violation(), "{name} {how}");
        }
        assert_eq!(fetch(address, "file"), Ok(b"old".to_vec()));
    }
    assert_eq!(scratch.names(), ["file"]);
}

#[test]
fn absolute_links_mean_the_directory_unless_told_otherwise() {
    let scratch = Scratch::new();
    scratch.file("root/images/kernel", "kernel");
    symlink("/images/kernel", scratch.at("root/link")).expect("a link");
    let missing = Err((2, "access violation".to_owned()));
    for (options, answer) in [
        (&[][..], Ok(b"kernel".to_vec())),
        (&["--absolute-links", "root"], Ok(b"kernel".to_vec())),
        (&["--absolute-links", "host"], missing),
    ] {
        let server = Server::start(&scratch.at("root"), options);
        assert_eq!(fetch(server.address(), "link"), answer, "{options:?}");
    }
}

/// A hundred descriptors for two hundred directories beside each other.
#[test]
fn a_wide_tree_is_searched_for_leftovers_with_few_descriptors() {
    let scratch = Scratch::new();
    let is_root = nix::unistd::geteuid().is_root();
    for number in 0..200 {
        scratch.file(format!("{number}/.tftpool-0123456789abcdef"), "half");
    }
    let user = if is_root { "--user root" } else { "" };
    let script = format!(
        "ulimit -n 100; exec {} serve --host 127.0.0.1 --port 0 {user} --write create {}",
        env!("CARGO_BIN_EXE_tftpool"),
        path(scratch.path())
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Server::spawn(command);
    let said = server.before.join("\n");
    assert!(said.contains("count=200"), "{said}");
    assert!(!said.contains("may be left"), "{said}");
}

#[test]
fn a_search_for_leftovers_that_is_cut_warns() {
    let scratch = Scratch::new();
    scratch.directory("d/".repeat(70));
    let serve = format!(
        "exec {} serve --host 127.0.0.1 --port 0 --write create {}",
        env!("CARGO_BIN_EXE_tftpool"),
        path(scratch.path())
    );
    for (prepare, reason) in [
        ("", "the tree is too deep"),
        ("ulimit -n 40;", "no descriptor or memory is left"),
    ] {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{prepare} {serve}"));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let server = Server::spawn(command);
        let said = server.before.join("\n");
        let wanted = format!("may be left: {reason}");
        assert!(said.contains("WARN"), "{said}");
        assert!(said.contains(&wanted), "{said}");
    }
}
