//! The sandbox of `tftpool serve`, from outside: what its threads have left of their rights, what
//! is served and stored all the same, and what a reload may lead to.

mod harness;

use harness::{Scratch, Server, ask, client, error, first_block, run, text, tftpool};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether this kernel has Landlock, as the binary finds it.
fn has_landlock() -> bool {
    let printed = run(tftpool().args(["sandbox", "print", "/"]));
    let has = text(&printed).starts_with("landlock ");
    if !has {
        harness::skip("this kernel has no Landlock");
    }
    has
}

/// The lines of every thread's status that start with this word.
fn of_all_threads(pid: u32, key: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("/proc");
    let status = threads.map(|thread| {
        let thread = thread.expect("readable").path();
        let text = std::fs::read_to_string(thread.join("status")).expect("/proc");
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.expect("the key").trim().to_owned()
    });
    status.collect()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

const NOTHING: &str = "0000000000000000";

#[test]
fn no_thread_keeps_a_capability_or_gets_one() {
    if !is_root() {
        harness::skip("only root has capabilities to lose");
        return;
    }
    let root = Scratch::new();
    root.file("file", b"content");
    let server = Server::start(root.path(), &[]);
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
    let all = |key, wanted: &str| {
        let found = of_all_threads(server.pid(), key);
        assert!(found.len() >= 4, "{found:?}");
        let is_wanted = |value: &String| value == wanted;
        assert!(found.iter().all(is_wanted), "{key} {found:?}");
    };
    for key in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        all(key, NOTHING);
    }
    all("NoNewPrivs:", "1");

    let server = Server::start(root.path(), &["--sandbox", "off"]);
    let found = of_all_threads(server.pid(), "NoNewPrivs:");
    assert!(found.iter().all(|value| value == "0"), "{found:?}");
}

/// `--user root` keeps the right to files of others, and nothing of the rest.
#[test]
fn root_keeps_its_files_and_no_other_right() {
    if !is_root() || !has_landlock() {
        return;
    }
    let root = Scratch::new();
    root.file("file", b"content");
    harness::mode(&root.at("file"), 0o600);
    std::os::unix::fs::chown(root.at("file"), Some(4321), None).expect("root may");
    let server = Server::start(root.path(), &["--user", "root", "--serve-unreadable"]);
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
    let mut found = of_all_threads(server.pid(), "CapEff:");
    found.sort();
    found.dedup();
    // CHOWN to FSETID of the threads that serve; SETGID and SETUID of those that log and wait.
    assert_eq!(found, ["000000000000001f", "00000000000000c0"]);
}

#[test]
fn uploads_and_links_work_within_the_sandbox() {
    if !has_landlock() {
        return;
    }
    let scratch = Scratch::new();
    scratch.file("root/file", b"content");
    scratch.file("images/kernel", b"kernel");
    scratch.link("root/kernel", scratch.at("images/kernel"));
    scratch.link("root/passwd", "/etc/passwd");
    let images = scratch.at("images");
    let uploads = scratch.directory("uploads");
    harness::mode(&uploads, 0o777);
    std::fs::write(scratch.at("source"), b"uploaded").expect("written");
    for how in ["create", "overwrite", "unique"] {
        let options = [
            ["--sandbox", "require"],
            ["--write", how],
            ["--upload-dir", uploads.to_str().expect("UTF-8")],
            ["--allow-symlink-target", images.to_str().expect("UTF-8")],
        ];
        let server = Server::start(&scratch.at("root"), &options.concat());
        let address = server.address();
        assert_eq!(first_block(&ask(address, "kernel")), b"kernel");
        let (code, _) = error(&ask(address, "passwd"));
        assert!(code == 1 || code == 2, "{code}");
        let url = format!("tftp://{address}/{how}");
        for _ in 0..if how == "create" { 1 } else { 2 } {
            let source = scratch.at("source");
            let output = run(client("curl").arg("-sT").arg(source).arg(&url));
            assert!(output.status.success(), "{how}: {}", text(&output));
        }
        let stored = std::fs::read(uploads.join(how)).expect("stored");
        assert_eq!(stored, b"uploaded");
    }
    let stored = harness::names(&uploads);
    assert_eq!(stored.len(), 4, "{stored:?}");
}

#[test]
fn a_release_beside_this_one_is_served_after_a_reload() {
    if !has_landlock() {
        return;
    }
    let scratch = Scratch::new();
    scratch.file("releases/1/file", b"one");
    scratch.link("current", "releases/1");
    let server = Server::start(&scratch.at("current"), &["--sandbox", "require", "-v"]);
    assert_eq!(first_block(&ask(server.address(), "file")), b"one");
    // It was not there when the rules were made.
    scratch.file("releases/2/file", b"two");
    swap(&scratch, "releases/2");
    reload(&server);
    until(&server, b"two");

    // Elsewhere: the server says so, and serves what it has.
    scratch.file("elsewhere/file", b"three");
    swap(&scratch, "elsewhere");
    server.signal(Signal::SIGHUP);
    let line = server.line_with("outside the sandbox (restart the server to serve it)");
    assert!(line.contains("/current is another directory now"), "{line}");
    assert_eq!(first_block(&ask(server.address(), "file")), b"two");
}

fn swap(scratch: &Scratch, target: &str) {
    std::fs::remove_file(scratch.at("current")).expect("removed");
    scratch.link("current", target);
}

fn reload(server: &Server) {
    server.signal(Signal::SIGHUP);
    server.line_with("reloading");
}

/// A worker reloads a moment after the line.
fn until(server: &Server, wanted: &[u8]) {
    let mut last = Vec::new();
    for _ in 0..1000 {
        last = first_block(&ask(server.address(), "file")).to_vec();
        if last == wanted {
            return;
        }
    }
    panic!("{last:?}");
}

#[test]
fn a_directory_that_was_replaced_is_named() {
    if !has_landlock() {
        return;
    }
    let scratch = Scratch::new();
    scratch.file("root/file", b"old");
    scratch.file("new/file", b"new");
    let server = Server::start(&scratch.at("root"), &["--sandbox", "require"]);
    assert_eq!(first_block(&ask(server.address(), "file")), b"old");
    std::fs::rename(scratch.at("root"), scratch.at("old")).expect("renamed");
    std::fs::rename(scratch.at("new"), scratch.at("root")).expect("renamed");
    server.signal(Signal::SIGHUP);
    server.line_with("outside the sandbox (restart the server to serve it)");
    assert_eq!(first_block(&ask(server.address(), "file")), b"old");
}

/// `strace` makes the call fail, as an old kernel does.
fn without_landlock(how: &str, root: &Path) -> Option<Command> {
    let strace = || {
        let mut command = Command::new("strace");
        command
            // The server is our child, and strace its own: it ends with the server.
            .args(["-D", "-f", "-o", "/dev/null"])
            .args(["-e", "inject=landlock_create_ruleset:error=ENOSYS"])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let may = strace().arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        harness::skip("strace is missing, or may not trace");
        return None;
    }
    let mut command = strace();
    command
        .arg(env!("CARGO_BIN_EXE_tftpool"))
        .args(["serve", "--host", "127.0.0.1", "--port", "0"])
        .args(["--sandbox", how])
        .arg(root);
    Some(command)
}

#[test]
fn a_kernel_without_landlock_is_named_and_ends_a_server_that_requires_it() {
    let root = Scratch::new();
    root.file("file", b"content");
    let Some(mut command) = without_landlock("require", root.path()) else {
        return;
    };
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output),
        "tftpool: cannot confine the server: no Landlock here (an old kernel, or a filter of system calls; --sandbox best-effort starts all the same)\n"
    );
    let command = without_landlock("best-effort", root.path()).expect("as before");
    let server = Server::spawn(command);
    let words = "the server is confined by file permissions only: no Landlock here (an old kernel, or a filter of system calls)";
    assert!(
        server.before.iter().any(|line| line.ends_with(words)),
        "{:?}",
        server.before
    );
    assert_eq!(first_block(&ask(server.address(), "file")), b"content");
}

#[test]
fn the_sandbox_is_printed() {
    if !has_landlock() {
        return;
    }
    let scratch = Scratch::new();
    scratch.file("releases/1/file", b"");
    scratch.link("current", "releases/1");
    let (current, uploads) = (scratch.at("current"), scratch.at("in"));
    let printed = run(tftpool()
        .args(["sandbox", "print", "--write", "create", "--upload-dir"])
        .args([&uploads, &current]));
    let releases = scratch
        .path()
        .canonicalize()
        .expect("a path")
        .join("releases");
    let said = text(&printed);
    for line in [
        format!("read   {}\n", current.display()),
        format!(
            "read   {} (a link may lead there after a reload)\n",
            releases.display()
        ),
        format!("write  {}\n", uploads.display()),
        "execute, TCP, new privileges: nothing\n".into(),
    ] {
        assert!(said.contains(&line), "{line:?} is not in {said}");
    }
    let off = run(tftpool().args(["sandbox", "print", "--sandbox", "off", "/"]));
    assert_eq!(text(&off), "the sandbox is off\n");
}
