//! The sandbox of `serve`: what the process may do once its sockets are bound and root's rights are
//! given up. It reads below the directories that are served, writes below the one that takes
//! uploads, and nothing else; it executes nothing, and has no capability that it does not need.
//!
//! Confinement is per thread. Threads that are older than the sandbox, which log and wait for
//! signals, confine themselves when they start: they need no file at all.

use crate::error::{Refusal, plain};
use crate::store::{Request, Sink, Source, Store};
use crate::sys::confine::{self, Access, Capability, Rules};
use crate::sys::privileges;
use std::fmt::{self, Write as _};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What this process reads about its machine: the ports that transfers may use, and how many
/// processors its cgroup has.
const SYSTEM_FILES: [&str; 4] = [
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/sys/fs/cgroup",
];

const NO_LANDLOCK: &str = "no Landlock here (an old kernel, or a filter of system calls)";

/// `--sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    Off,
    BestEffort,
    Require,
}

/// What the process may do from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Directories below which files are read.
    read: Vec<PathBuf>,
    /// Files outside of them that are read again on a reload.
    files: Vec<PathBuf>,
    /// Where a link may lead after a reload: read as well.
    after_reload: Vec<PathBuf>,
    /// Below which uploads are written.
    write: Option<PathBuf>,
    /// What root keeps.
    root: Vec<Capability>,
    /// What other users keep.
    others: Vec<Capability>,
}

impl Plan {
    /// For a server of these directories. `low_ports` says that transfers use ports below 1024.
    pub(super) fn new(
        read: Vec<PathBuf>,
        files: Vec<PathBuf>,
        write: Option<PathBuf>,
        low_ports: bool,
    ) -> io::Result<Self> {
        let absolute = |path: PathBuf| std::path::absolute(path);
        let read: Vec<_> = read.into_iter().map(absolute).collect::<Result<_, _>>()?;
        let after_reload = read.iter().filter_map(|path| releases(path)).collect();
        let others: Vec<_> = low_ports
            .then_some(confine::LOW_PORTS)
            .into_iter()
            .collect();
        let root = others.iter().copied().chain(confine::FILES_OF_OTHERS);
        Ok(Self {
            read,
            files,
            after_reload,
            write: write.map(absolute).transpose()?,
            root: root.collect(),
            others,
        })
    }

    /// Confines this thread and the threads that it starts from now on. Root's rights must have
    /// been given up before.
    ///
    /// # Errors
    /// Why the process is not confined, where `mode` requires that. With
    /// [`Mode::BestEffort`] that is a line in the log.
    pub(super) fn enforce(&self, mode: Mode) -> Result<(), String> {
        if mode == Mode::Off {
            return Ok(());
        }
        let kept = match privileges::is_root() {
            true => &self.root,
            false => &self.others,
        };
        let capabilities = confine::keep_capabilities(kept)
            .and_then(|()| confine::forbid_new_privileges())
            .map_err(|cause| plain(&cause).to_string());
        // Each as far as it goes.
        let landlock = self.landlock();
        let enforced = capabilities.and(landlock);
        match enforced {
            Ok(version) => {
                log::debug!("sandbox landlock={version}");
                Ok(())
            }
            Err(why) if mode == Mode::Require => Err(why),
            Err(why) => {
                log::info!("the server is confined by file permissions only: {why}");
                Ok(())
            }
        }
    }

    fn landlock(&self) -> Result<u32, String> {
        let Some(version) = confine::landlock_version() else {
            return Err(NO_LANDLOCK.into());
        };
        let failed =
            |path: &Path, cause: &io::Error| format!("{}: {}", path.display(), plain(cause));
        let rules = Rules::new(version).map_err(|cause| plain(&cause).to_string())?;
        let read = self.read.iter().chain(&self.after_reload);
        let read = read.map(|path| (path.as_path(), Access::READ));
        let write = self
            .write
            .iter()
            .map(|path| (path.as_path(), Access::WRITE));
        for (path, access) in read.chain(write) {
            rules
                .allow(path, access)
                .map_err(|cause| failed(path, &cause))?;
        }
        for file in &self.files {
            let (path, access) = around(file);
            rules
                .allow(&path, access)
                .map_err(|cause| failed(&path, &cause))?;
        }
        for path in SYSTEM_FILES.map(Path::new) {
            let access = if path.is_dir() {
                Access::READ
            } else {
                Access::FILE
            };
            // The kernel, or a mount of /proc, may lack it.
            if let Err(cause) = rules.allow(path, access) {
                log::debug!("{}", failed(path, &cause));
            }
        }
        rules.enforce().map_err(|cause| plain(&cause).to_string())?;
        Ok(version)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for path in &self.read {
            writeln!(f, "read   {}", path.display())?;
        }
        for path in &self.after_reload {
            writeln!(
                f,
                "read   {} (a link may lead there after a reload)",
                path.display()
            )?;
        }
        for file in &self.files {
            writeln!(f, "read   {}", around(file).0.display())?;
        }
        if let Some(path) = &self.write {
            writeln!(f, "write  {}", path.display())?;
        }
        for path in SYSTEM_FILES {
            writeln!(f, "read   {path}")?;
        }
        f.write_str("execute, TCP, new privileges: nothing\n")
    }
}

/// What `tftpool sandbox print` says.
pub(super) fn describe(plan: &Plan, mode: Mode) -> String {
    let mut text = match (mode, confine::landlock_version()) {
        (Mode::Off, _) => return "the sandbox is off\n".into(),
        (_, Some(version)) => format!("landlock {version}\n"),
        (Mode::BestEffort, None) => {
            return format!("{NO_LANDLOCK}: file permissions confine the server\n");
        }
        (Mode::Require, None) => {
            return format!("{NO_LANDLOCK}: the server will not start\n");
        }
    };
    let _ = write!(text, "{plan}");
    text
}

/// Makes sure that no thread of this process gets more rights than it has, by executing a program.
/// Call it before there is a second thread, and while root's rights are there: they are needed for
/// that. They can be given up afterwards as before.
pub(super) fn prepare(mode: Mode) {
    if mode != Mode::Off {
        confine::clear_bounding_set();
        // A failure is found out again by `enforce`, which reports it.
        let _ = confine::forbid_new_privileges();
    }
}

/// Confines a thread that is older than the sandbox and reads no files but these. While root's
/// rights are there to be given up, the thread keeps what that takes: the change is one of all
/// threads.
pub(super) fn confine_helper(mode: Mode, files: &[PathBuf]) {
    if mode == Mode::Off {
        return;
    }
    let kept: &[Capability] = match privileges::is_root() {
        true => &confine::CHANGE_USER,
        false => &[],
    };
    // A failure is that of the main thread, too, which reports it.
    let _ = confine::keep_capabilities(kept);
    let Some(Ok(rules)) = confine::landlock_version().map(Rules::new) else {
        return;
    };
    for file in files {
        let (path, access) = around(file);
        // A file that is not there cannot be read later either.
        let _ = rules.allow(&path, access);
    }
    let _ = rules.enforce();
}

/// What a rule has to allow so that a file can be read again after it was replaced: its directory,
/// but no directory right below the root, such as `/etc`; then the file alone.
fn around(file: &Path) -> (PathBuf, Access) {
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    match file.parent() {
        Some(parent) if parent.components().count() > 2 => (parent.to_owned(), Access::READ),
        _ => (file, Access::FILE),
    }
}

/// The directory that the next release will lie in, where a path is a link to a release: the one
/// that holds the link's target. Not the root of the file system nor a directory right below it,
/// such as `/etc`, unless the link itself lies there.
fn releases(path: &Path) -> Option<PathBuf> {
    if !path.is_symlink() {
        return None;
    }
    let target = path.canonicalize().ok()?;
    let parent = target.parent()?;
    let of_link = path.parent()?.canonicalize().ok()?;
    let depth = parent.components().count();
    let is_narrow = depth > 2 || depth == 2 && parent == of_link;
    is_narrow.then(|| parent.to_owned())
}

/// A directory in a sandbox: it is opened again only where the rules still fit.
pub(super) struct Confined {
    store: Box<dyn Store>,
    plan: Plan,
    /// The upload directory that the rules were made for.
    uploads: Option<(u64, u64)>,
}

impl Confined {
    pub(super) fn new(store: Box<dyn Store>, plan: Plan) -> Self {
        let uploads = plan.write.as_deref().and_then(identity);
        Self {
            store,
            plan,
            uploads,
        }
    }

    /// A directory that the sandbox has no rule for.
    fn outside(&self) -> Option<&Path> {
        let moved = self.plan.write.as_ref();
        let moved = moved.filter(|path| identity(path).is_some_and(|it| Some(it) != self.uploads));
        let denied = |path: &&PathBuf| {
            // Where permissions are the reason, the directory itself says so.
            File::open(path).is_err_and(|cause| cause.kind() == ErrorKind::PermissionDenied)
                && privileges::may_read(path)
        };
        let denied = self.plan.read.iter().find(denied);
        moved.or(denied).map(PathBuf::as_path)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let status = |it: Metadata| (it.dev(), it.ino());
    path.metadata().map(status).ok()
}

impl Store for Confined {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        self.store.read(request)
    }

    fn takes_uploads(&self) -> bool {
        self.store.takes_uploads()
    }

    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        self.store.write(request)
    }

    fn reload(&self) {
        match self.outside() {
            None => self.store.reload(),
            Some(path) => log::warn!(
                "{} is another directory now, outside the sandbox (restart the server to serve it); what was served before is served on",
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Server;
    use crate::store::scratch::{self, Scratch};
    use crate::store::store_fn;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    /// Does what no store should do, and says what came of it.
    fn misbehave(name: &[u8], root: &Path, uploads: &Path, tcp: std::net::SocketAddr) -> String {
        let passwd = || File::open("/etc/passwd").map(drop);
        let done = match name {
            b"read" => std::fs::read(root.join("file")).map(drop),
            b"upload" => std::fs::write(uploads.join("new"), b"x"),
            b"replace" => std::fs::rename(uploads.join("new"), uploads.join("other")),
            b"passwd" => passwd(),
            b"passwd by another thread" => std::thread::spawn(passwd).join().expect("no panic"),
            b"passwd by a path through the root" => {
                File::open(root.join("../../../../../../etc/passwd")).map(drop)
            }
            b"list /" => std::fs::read_dir("/").map(drop),
            b"create" => std::fs::write(root.join("new"), b"x"),
            b"overwrite" => std::fs::write(root.join("file"), b"x"),
            b"remove" => std::fs::remove_file(root.join("file")),
            b"take away" => std::fs::rename(root.join("file"), uploads.join("file")),
            b"directory" => std::fs::create_dir(uploads.join("new directory")),
            b"execute" => Command::new("/bin/true").status().map(drop),
            b"execute an upload" => Command::new(uploads.join("program")).status().map(drop),
            b"connect" => TcpStream::connect(tcp).map(drop),
            b"listen" => TcpListener::bind("127.0.0.1:0").map(drop),
            _ => unreachable!(),
        };
        match done {
            Ok(()) => "done".into(),
            Err(cause) if cause.kind() == ErrorKind::PermissionDenied => "denied".into(),
            // Between directories with different rules.
            Err(cause) if cause.kind() == ErrorKind::CrossesDevices => "denied".into(),
            Err(cause) => cause.to_string(),
        }
    }

    /// Runs as root as well, which file permissions do not hold up.
    #[test]
    fn a_store_that_misbehaves_reaches_its_own_directories_only() {
        let Some(version) = confine::landlock_version() else {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        };
        let scratch = Scratch::new();
        scratch.file("root/file", b"content");
        scratch.file("uploads/program", b"#!/bin/sh\n");
        scratch::mode(&scratch.at("uploads/program"), 0o755);
        let (root, uploads) = (scratch.at("root"), scratch.at("uploads"));
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let tcp = (tcp.local_addr().expect("bound"), tcp).0;
        let plan =
            Plan::new(vec![root.clone()], Vec::new(), Some(uploads.clone()), false).expect("paths");
        // Confinement is per thread, so the rest of the tests is not concerned.
        let confined = std::thread::spawn(move || {
            plan.enforce(Mode::Require).expect("a sandbox");
            let store = store_fn(move |request| {
                let text = misbehave(request.name, &root, &uploads, tcp);
                Ok(Source::bytes(text.into_bytes()))
            });
            let server = Server::builder(store).bind(([127, 0, 0, 1], 0).into());
            server.start().expect("a server")
        });
        let server = confined.join().expect("a server");
        let ask = |name: &str| {
            let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let patience = Duration::from_secs(30);
            client.set_read_timeout(Some(patience)).expect("a timeout");
            let request = format!("\0\x01{name}\0octet\0");
            let sent = client.send_to(request.as_bytes(), server.local_addr());
            sent.expect("sent");
            let mut buffer = [0; 600];
            let (length, tid) = client.recv_from(&mut buffer).expect("an answer");
            client.send_to(&[0, 4, 0, 1], tid).expect("sent");
            String::from_utf8_lossy(&buffer[4..length]).into_owned()
        };
        for name in ["read", "upload", "replace"] {
            assert_eq!(ask(name), "done", "{name}");
        }
        for name in [
            "passwd",
            "passwd by another thread",
            "passwd by a path through the root",
            "list /",
            "create",
            "overwrite",
            "remove",
            "take away",
            "directory",
            "execute",
            "execute an upload",
        ] {
            assert_eq!(ask(name), "denied", "{name}");
        }
        for name in ["connect", "listen"] {
            let is_known = version >= 4;
            assert!(!is_known || ask(name) == "denied", "{name}");
        }
        assert_eq!(
            std::fs::read(scratch.at("root/file")).expect("a file"),
            b"content"
        );
    }

    /// The threads that log and wait for signals.
    #[test]
    fn a_helper_opens_no_file() {
        if confine::landlock_version().is_none() {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        }
        let opened = std::thread::spawn(|| {
            prepare(Mode::Require);
            confine_helper(Mode::Require, &[]);
            [
                File::open("/etc/passwd").map(drop),
                Command::new("/bin/true").status().map(drop),
                std::fs::write(std::env::temp_dir().join("tftpool-helper"), b"x"),
            ]
        });
        for result in opened.join().expect("no panic") {
            let cause = result.expect_err("denied");
            assert_eq!(cause.kind(), ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn the_next_release_lies_beside_this_one() {
        let scratch = Scratch::new();
        scratch.file("releases/1/file", b"");
        scratch.link("current", "releases/1");
        scratch.link("outside", "/etc/ssl");
        scratch.link("top", "/etc");
        let top = scratch.path().canonicalize().expect("a path");
        assert_eq!(releases(&scratch.at("current")), Some(top.join("releases")));
        // Not all of /etc, and not all of /.
        assert_eq!(releases(&scratch.at("outside")), None);
        assert_eq!(releases(&scratch.at("top")), None);
        assert_eq!(releases(&scratch.at("releases/1")), None);
        assert_eq!(releases(&scratch.at("missing")), None);
    }

    #[test]
    fn a_server_that_must_have_a_sandbox_says_what_is_in_the_way() {
        let missing = PathBuf::from("/no/such/directory");
        let plan = Plan::new(vec![missing], Vec::new(), None, false).expect("paths");
        if confine::landlock_version().is_none() {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        }
        let enforced = std::thread::spawn(move || plan.enforce(Mode::Require)).join();
        let why = "/no/such/directory: no such file or directory".to_owned();
        assert_eq!(enforced.expect("no panic"), Err(why));
    }
}
