//! Opening files beneath a directory that is held open, and what `fstat` says of them.
//!
//! Invariant: a name given here is relative, and no call follows a link out of the directory it was
//! given. The type of a file is known before the file is opened: opening a FIFO or a device is an
//! event for the program at its other end. A call that was interrupted by a signal is made again.

use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// For the file itself: a FIFO must not block the open, a terminal must not become ours, and 32-bit
/// machines have files above 2 GiB too.
const READ: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(LARGE);

/// For a directory that is only a step on the way. `O_PATH` asks for no more than search
/// permission.
const STEP: OFlag = OFlag::O_CLOEXEC.union(OFlag::O_DIRECTORY).union(HANDLE);

#[cfg(target_os = "linux")]
pub(super) const HANDLE: OFlag = OFlag::O_PATH;
#[cfg(not(target_os = "linux"))]
pub(super) const HANDLE: OFlag = OFlag::O_RDONLY;
#[cfg(target_os = "linux")]
pub(super) const LARGE: OFlag = OFlag::O_LARGEFILE;
#[cfg(not(target_os = "linux"))]
pub(super) const LARGE: OFlag = OFlag::empty();

/// Opens a directory by its path, to look up names beneath it; fails if that would be denied.
pub(crate) fn open_root(path: &Path) -> io::Result<File> {
    let root = again(|| fcntl::open(path, STEP, Mode::empty())).map(File::from)?;
    // `O_PATH` alone succeeds on a directory that we may not search. Better to hear of it now than
    // at every request.
    open_step(&root, OsStr::new("."))?;
    Ok(root)
}

/// Whether this process may put new files into the directory; the error says why not.
pub(crate) fn may_add_to(directory: &File) -> io::Result<()> {
    use nix::unistd::{AccessFlags, faccessat};
    let (write, effective) = (
        AccessFlags::W_OK | AccessFlags::X_OK,
        fcntl::AtFlags::AT_EACCESS,
    );
    again(|| faccessat(directory, ".", write, effective))
}

/// What a caller does with the file that a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Reads it, if it is a regular file.
    File,
    /// Works in it; anything but a directory is an error.
    Directory,
    /// Reads its status.
    Status,
}

/// How an open ended that did not fail.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The regular file or the directory that was wanted.
    File(File, Status),
    /// The file was not opened: only its status was wanted, or it is no regular file.
    Seen(Status),
    /// A regular file that this call cannot open for reading; [`open_here`] finds out whether that
    /// is for want of /proc or of permission.
    Unreachable,
}

/// Opens a file in one step; links are followed by the kernel, as long as they stay beneath
/// `directory`.
///
/// A regular file takes four calls: a descriptor that reads nothing, its status, a second
/// descriptor through /proc for reading, and the end of the first.
#[cfg(target_os = "linux")]
pub(crate) fn open_beneath(directory: &File, name: &OsStr, want: Want) -> io::Result<Opened> {
    use nix::fcntl::{OpenHow, ResolveFlag};
    let flags = match want {
        Want::Directory => READ | OFlag::O_DIRECTORY,
        Want::File | Want::Status => HANDLE | OFlag::O_CLOEXEC,
    };
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found = again(|| fcntl::openat2(directory, name, how)).map(File::from)?;
    let status = Status::of(&found)?;
    match want {
        Want::Directory => Ok(Opened::File(found, status)),
        Want::File if status.kind == FoundKind::File => {
            match again(|| fcntl::open(open_path(&found).as_str(), READ, Mode::empty())) {
                Ok(file) => Ok(Opened::File(file.into(), status)),
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                    Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES => Ok(Opened::Unreachable),
                    _ => Err(error),
                },
            }
        }
        Want::File | Want::Status => Ok(Opened::Seen(status)),
    }
}

/// Opens a file in one step; this system has no such call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open_beneath(_: &File, _: &OsStr, _: Want) -> io::Result<Opened> {
    Err(Errno::ENOSYS.into())
}

/// Where an open descriptor stands among the files of this process.
pub(super) fn open_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Opens a file of this very directory, if it is no link. Needs no /proc; a writer in the directory
/// can put a FIFO in the place of the file between the two calls, and that is opened then, but not
/// read.
pub(crate) fn open_here(directory: &File, component: &OsStr, want: Want) -> io::Result<Opened> {
    if want == Want::Directory {
        let file = open_directory(directory, component)?;
        let status = Status::of(&file)?;
        return Ok(Opened::File(file, status));
    }
    let seen = look(directory, component)?;
    match seen.kind {
        FoundKind::Link => return Err(Errno::ELOOP.into()),
        FoundKind::File if want == Want::File => {}
        _ => return Ok(Opened::Seen(seen)),
    }
    let file = open_unless_link(directory, component)?;
    let status = Status::of(&file)?;
    Ok(match status.kind {
        FoundKind::File => Opened::File(file, status),
        _ => Opened::Seen(status),
    })
}

/// Opens what was seen to be a regular file. It may have become a link since.
fn open_unless_link(directory: &File, component: &OsStr) -> io::Result<File> {
    let flags = READ | OFlag::O_NOFOLLOW;
    again(|| fcntl::openat(directory, component, flags, Mode::empty())).map(File::from)
}

/// Opens a directory of this very directory, if it is no link, to read the names in it.
pub(crate) fn open_directory(directory: &File, component: &OsStr) -> io::Result<File> {
    let flags = READ | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    again(|| fcntl::openat(directory, component, flags, Mode::empty())).map(File::from)
}

/// Opens a directory of this very directory, if it is no link.
pub(crate) fn open_step(directory: &File, component: &OsStr) -> io::Result<File> {
    let flags = STEP | OFlag::O_NOFOLLOW;
    again(|| fcntl::openat(directory, component, flags, Mode::empty())).map(File::from)
}

/// Whether a name of this very directory is a mount point, which no rename can replace. A kernel
/// that cannot tell says no.
#[cfg(target_os = "linux")]
pub(crate) fn is_mount_point(directory: &File, component: &OsStr) -> bool {
    use nix::fcntl::{OpenHow, ResolveFlag};
    let how = OpenHow::new()
        .flags(HANDLE | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV);
    let opened = again(|| fcntl::openat2(directory, component, how)).map(File::from);
    opened.is_err_and(|error| trouble(&error) == Trouble::Leaves)
}

/// Whether a name of this very directory is a mount point; this system cannot tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_mount_point(_: &File, _: &OsStr) -> bool {
    false
}

/// Where a link of this very directory leads; `None` for everything that is no link.
pub(crate) fn read_link(directory: &File, component: &OsStr) -> io::Result<Option<OsString>> {
    match fcntl::readlinkat(directory, component) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The error of a path that leads through more links than anybody follows.
pub(crate) fn too_many_links() -> io::Error {
    Errno::ELOOP.into()
}

fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

/// What a failed open means to those who must not know error numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no such file.
    Missing,
    /// The name, or a component of it, is longer than the file system allows.
    TooLong,
    /// The way leads out of the directory.
    Leaves,
    /// A link where none is followed, or too many of them.
    Link,
    /// The system, or a sandbox around us, does not know the call.
    NotOffered,
    /// Somebody renames in the tree, or holds a lease on the file.
    Busy,
    /// No descriptors or memory left.
    Exhausted,
    /// The disk or its server fails.
    Broken,
    /// Everything else: permissions, sockets, devices that are not there.
    Denied,
}

/// Sorts the error of an open.
pub(crate) fn trouble(error: &io::Error) -> Trouble {
    match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::ENOENT | Errno::ENOTDIR => Trouble::Missing,
        Errno::ENAMETOOLONG => Trouble::TooLong,
        Errno::EXDEV => Trouble::Leaves,
        Errno::ELOOP => Trouble::Link,
        // Seccomp filters answer unknown calls with either.
        Errno::ENOSYS | Errno::EPERM => Trouble::NotOffered,
        Errno::EAGAIN => Trouble::Busy,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Trouble::Exhausted,
        Errno::EIO | Errno::ESTALE | Errno::ETIMEDOUT => Trouble::Broken,
        _ => Trouble::Denied,
    }
}

/// Which file it is, and which state of it. Two opens with equal identities read the same octets,
/// as far as the granularity of the file system's time stamps lets us see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Octets.
    pub(crate) size: u64,
    /// Last change of content: seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
}

impl Identity {
    /// The identity, and how many names the file has; none once it was deleted.
    pub(crate) fn of(file: &File) -> io::Result<(Self, u64)> {
        Status::of(file).map(|status| (status.identity, status.links))
    }
}

/// What the system says of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) identity: Identity,
    pub(crate) links: u64,
    pub(crate) kind: FoundKind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// User and group.
    pub(crate) owner: (u32, u32),
    /// Blocks of 512 bytes that the file has on a disk.
    pub(crate) blocks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundKind {
    File,
    Directory,
    Link,
    Other,
}

impl FoundKind {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types are others elsewhere"
    )]
    fn of(mode: u32) -> Self {
        match SFlag::from_bits_truncate(mode as _) & SFlag::S_IFMT {
            SFlag::S_IFREG => Self::File,
            SFlag::S_IFDIR => Self::Directory,
            SFlag::S_IFLNK => Self::Link,
            _ => Self::Other,
        }
    }
}

impl Status {
    /// One system call.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        #[cfg(test)]
        super::calls::count(|calls| calls.files += 1);
        Ok(file.metadata()?.into())
    }

    /// When the content changed last.
    pub(crate) fn modified(&self) -> SystemTime {
        let (seconds, nanoseconds) = self.identity.mtime;
        let fraction = Duration::from_nanos(nanoseconds.unsigned_abs());
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        let time = if seconds < 0 {
            epoch.checked_sub(whole)
        } else {
            epoch.checked_add(whole)
        };
        time.and_then(|time| time.checked_add(fraction))
            .unwrap_or(epoch)
    }
}

impl From<Metadata> for Status {
    fn from(found: Metadata) -> Self {
        Self {
            identity: Identity {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                mtime: (found.mtime(), found.mtime_nsec()),
            },
            links: found.nlink(),
            kind: FoundKind::of(found.mode()),
            mode: found.mode() & 0o7777,
            owner: (found.uid(), found.gid()),
            blocks: found.blocks(),
        }
    }
}

impl From<FileStat> for Status {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the fields have other types elsewhere"
    )]
    fn from(found: FileStat) -> Self {
        Self {
            identity: Identity {
                device: found.st_dev as u64,
                inode: found.st_ino as u64,
                size: found.st_size as u64,
                mtime: (found.st_mtime as i64, found.st_mtime_nsec as i64),
            },
            links: found.st_nlink as u64,
            kind: FoundKind::of(found.st_mode as u32),
            mode: found.st_mode as u32 & 0o7777,
            owner: (found.st_uid, found.st_gid),
            blocks: found.st_blocks as u64,
        }
    }
}

/// Looks at a name of this very directory; a link is looked at, not followed.
pub(crate) fn look(directory: &File, name: &OsStr) -> io::Result<Status> {
    let found = again(|| fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW))?;
    Ok(found.into())
}

/// Makes a FIFO, which std cannot.
#[cfg(test)]
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o644))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::Scratch;

    #[test]
    fn errors_are_sorted_by_what_they_mean() {
        for (errno, meaning) in [
            (Errno::ENOENT, Trouble::Missing),
            (Errno::ENOTDIR, Trouble::Missing),
            (Errno::ENAMETOOLONG, Trouble::TooLong),
            (Errno::EXDEV, Trouble::Leaves),
            (Errno::ELOOP, Trouble::Link),
            (Errno::ENOSYS, Trouble::NotOffered),
            (Errno::EPERM, Trouble::NotOffered),
            (Errno::EAGAIN, Trouble::Busy),
            (Errno::EMFILE, Trouble::Exhausted),
            (Errno::ENFILE, Trouble::Exhausted),
            (Errno::ENOMEM, Trouble::Exhausted),
            (Errno::EIO, Trouble::Broken),
            (Errno::EACCES, Trouble::Denied),
            (Errno::ENXIO, Trouble::Denied),
        ] {
            assert_eq!(trouble(&errno.into()), meaning, "{errno}");
        }
        assert_eq!(trouble(&io::Error::other("?")), Trouble::Denied);
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let mut answers = [Err(Errno::EINTR), Err(Errno::EINTR), Ok(7)].into_iter();
        assert_eq!(again(|| answers.next().expect("an answer")).ok(), Some(7));
        assert!(answers.next().is_none());
    }

    /// To open a socket is an error: one that is seen was not opened, and so are FIFOs and devices.
    #[test]
    fn only_a_regular_file_is_opened_to_be_read() {
        let scratch = Scratch::new();
        let directory = open_root(scratch.path()).expect("a directory");
        let socket = std::os::unix::net::UnixListener::bind(scratch.at("socket"));
        make_fifo(&scratch.at("fifo")).expect("a FIFO");
        scratch.directory("directory");
        scratch.file("file", "");
        type Open = fn(&File, &OsStr, Want) -> io::Result<Opened>;
        for open in [open_beneath as Open, open_here] {
            let here = open(&directory, ".".as_ref(), Want::Status);
            if here.is_err_and(|error| trouble(&error) == Trouble::NotOffered) {
                continue; // an old kernel, or a sandbox
            }
            for name in ["socket", "fifo", "directory"] {
                for want in [Want::File, Want::Status] {
                    let opened = open(&directory, name.as_ref(), want);
                    assert!(matches!(opened, Ok(Opened::Seen(_))), "{name}: {opened:?}");
                }
            }
            let file = open(&directory, "file".as_ref(), Want::Status);
            assert!(matches!(file, Ok(Opened::Seen(_))), "{file:?}");
            let file = open(&directory, "file".as_ref(), Want::File);
            assert!(matches!(file, Ok(Opened::File(..))), "{file:?}");
        }
        drop(socket);
    }

    #[test]
    fn no_step_follows_a_link() {
        let scratch = Scratch::new();
        let directory = open_root(scratch.path()).expect("a directory");
        scratch.file("file", "");
        scratch.directory("step");
        scratch.link("to-file", "file");
        scratch.link("to-step", "step");
        fn meaning<T>(result: io::Result<T>) -> Option<Trouble> {
            result.err().map(|error| trouble(&error))
        }
        let open = |name: &str, want| open_here(&directory, name.as_ref(), want);
        let step = |name: &str| open_step(&directory, name.as_ref());
        let target = |name: &str| read_link(&directory, name.as_ref()).ok().flatten();

        assert_eq!(meaning(open("file", Want::File)), None);
        assert_eq!(meaning(open("step", Want::Directory)), None);
        assert_eq!(meaning(step("step")), None);
        for link in ["to-file", "to-step"] {
            let unseen = open_unless_link(&directory, link.as_ref());
            assert_eq!(meaning(unseen), Some(Trouble::Link));
            assert_eq!(meaning(open(link, Want::File)), Some(Trouble::Link));
            assert_eq!(meaning(open(link, Want::Status)), Some(Trouble::Link));
            assert_eq!(meaning(open(link, Want::Directory)), Some(Trouble::Missing));
            assert_eq!(meaning(step(link)), Some(Trouble::Missing));
        }
        assert_eq!(meaning(step("file")), Some(Trouble::Missing));
        assert_eq!(target("to-file"), Some("file".into()));
        assert_eq!(target("file"), None);
    }
}
