//! Opening files beneath a directory that is held open, and what `fstat` says of them.
//!
//! Invariant: a name given here is relative, and no call follows a link out of the directory it was given. A call that was
//! interrupted by a signal is made again.

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// For the file itself: a FIFO must not block the open, a terminal must not become ours, and 32-bit machines have files
/// above 2 GiB too.
const READ: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(LARGE);

/// For a directory that is only a step on the way. `O_PATH` asks for no more than search permission.
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
    // `O_PATH` alone succeeds on a directory that we may not search. Better to hear of it now than at every request.
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

/// Opens a file in one step; links are followed by the kernel, as long as they stay beneath `directory`.
#[cfg(target_os = "linux")]
pub(crate) fn open_beneath(directory: &File, name: &OsStr) -> io::Result<File> {
    use nix::fcntl::{OpenHow, ResolveFlag};
    let how = OpenHow::new()
        .flags(READ)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    again(|| fcntl::openat2(directory, name, how)).map(File::from)
}

/// Opens a file in one step; this system has no such call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn open_beneath(_: &File, _: &OsStr) -> io::Result<File> {
    Err(Errno::ENOSYS.into())
}

/// Opens a file of this very directory, if it is no link.
pub(crate) fn open_here(directory: &File, component: &OsStr) -> io::Result<File> {
    let flags = READ | OFlag::O_NOFOLLOW;
    again(|| fcntl::openat(directory, component, flags, Mode::empty())).map(File::from)
}

/// Opens a directory of this very directory, if it is no link.
pub(crate) fn open_step(directory: &File, component: &OsStr) -> io::Result<File> {
    let flags = STEP | OFlag::O_NOFOLLOW;
    again(|| fcntl::openat(directory, component, flags, Mode::empty())).map(File::from)
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
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => Trouble::Missing,
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

/// Which file it is, and which state of it. Two opens with equal identities read the same octets, as far as the
/// granularity of the file system's time stamps lets us see.
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

/// What the system says of an open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) identity: Identity,
    pub(crate) links: u64,
    pub(crate) regular: bool,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl Status {
    /// One system call.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        #[cfg(test)]
        super::calls::count(|calls| calls.files += 1);
        let found = file.metadata()?;
        Ok(Self {
            identity: Identity {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                mtime: (found.mtime(), found.mtime_nsec()),
            },
            links: found.nlink(),
            regular: found.is_file(),
            mode: found.mode() & 0o7777,
        })
    }
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
            (Errno::ENAMETOOLONG, Trouble::Missing),
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

    #[test]
    fn no_step_follows_a_link() {
        let scratch = Scratch::new();
        let directory = open_root(scratch.path()).expect("a directory");
        scratch.file("file", "");
        scratch.directory("step");
        scratch.link("to-file", "file");
        scratch.link("to-step", "step");
        let meaning = |result: io::Result<File>| result.err().map(|error| trouble(&error));
        let target = |name: &str| read_link(&directory, name.as_ref()).ok().flatten();

        assert_eq!(meaning(open_here(&directory, "file".as_ref())), None);
        assert_eq!(meaning(open_step(&directory, "step".as_ref())), None);
        for (open, link) in [
            (open_here(&directory, "to-file".as_ref()), Trouble::Link),
            (open_here(&directory, "to-step".as_ref()), Trouble::Link),
            (open_step(&directory, "to-step".as_ref()), Trouble::Missing),
            (open_step(&directory, "file".as_ref()), Trouble::Missing),
        ] {
            assert_eq!(meaning(open), Some(link));
        }
        assert_eq!(target("to-file"), Some("file".into()));
        assert_eq!(target("file"), None);
    }
}
