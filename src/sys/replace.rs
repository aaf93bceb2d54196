//! Whether another file can take a name, as far as that can be known before it is tried.
//!
//! A file that is written beside its target and renamed over it fails at its very end where the
//! name cannot be replaced. These are the reasons that the system tells earlier. They may change
//! meanwhile, so the rename has to be checked all the same.

use super::fs::HANDLE;
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Uid, faccessat};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Fails if this process may not write the existing file; links are followed by the kernel.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    // A program that runs could not be opened for writing, but it can be replaced: so its
    // permissions are asked for instead.
    let (here, write) = (fcntl::AT_FDCWD, AccessFlags::W_OK);
    Ok(faccessat(here, path, write, AtFlags::AT_EACCESS)?)
}

/// Why no other file can take the name of this existing file in its directory; `None` where nothing
/// is known against it.
pub(crate) fn obstacle(directory: &File, name: &OsStr) -> io::Result<Option<&'static str>> {
    let flags = HANDLE | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = fcntl::openat(directory, name, flags, Mode::empty()).map(File::from)?;
    let (above, found) = (directory.metadata()?, file.metadata()?);
    let user = Uid::effective();
    // Root is taken to have CAP_FOWNER.
    let is_owner = |owner: u32| user.is_root() || user.as_raw() == owner;
    if above.mode() & STICKY != 0 && !is_owner(above.uid()) && !is_owner(found.uid()) {
        return Ok(Some(
            "its directory is sticky and the file is another user's",
        ));
    }
    if mount(directory) != mount(&file) {
        return Ok(Some("it is a mount point"));
    }
    let writable = AccessFlags::W_OK | AccessFlags::X_OK;
    match faccessat(directory, ".", writable, AtFlags::AT_EACCESS) {
        Ok(()) => Ok(None),
        Err(Errno::EACCES | Errno::EPERM | Errno::EROFS) => Ok(Some("its directory is read-only")),
        Err(errno) => Err(errno.into()),
    }
}

/// Deletion is restricted to owners.
const STICKY: u32 = 0o1000;

/// The mount that an open file was reached through; `None` where the system does not tell.
fn mount(file: &File) -> Option<String> {
    use std::os::fd::AsRawFd;

    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let lines = std::fs::read_to_string(path).ok()?;
    let number = lines.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Some(number?.trim().to_owned())
}

/// Whether a path leads to its file by the descriptor of a process, as `/dev/stdout` and
/// `/proc/self/fd/1` do: then the open file is meant, not its name. True as well where the system
/// cannot tell.
#[cfg(target_os = "linux")]
pub(crate) fn leads_through_descriptor(path: &Path) -> bool {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};

    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(fcntl::AT_FDCWD, path, how).is_err()
}

/// Elsewhere such files are devices, whose open duplicates the descriptor.
#[cfg(not(target_os = "linux"))]
pub(crate) fn leads_through_descriptor(_: &Path) -> bool {
    false
}

/// Opens an existing file for writing and truncates nothing; links are followed by the kernel.
/// Waits for the reader of a FIFO.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    // `create` although the file is there: what the kernel protects in sticky directories
    // (fs.protected_regular, fs.protected_fifos), it protects from this flag.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    // A terminal must not become ours.
    options.custom_flags(nix::libc::O_NOCTTY).open(path)
}

/// Opens a file for reading; links are followed by the kernel. Waits for the writer of a FIFO.
pub(crate) fn open_source(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(nix::libc::O_NOCTTY);
    options.open(path)
}
