//! Opening files by paths whose links the kernel alone follows, as it protects them
//! (fs.protected_symlinks).

use nix::fcntl::{self, OFlag};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
