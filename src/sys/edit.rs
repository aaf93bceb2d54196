//! Changing what is in a directory that is held open.
//!
//! Invariant: a name given here is one component of the directory it is given with, and is never
//! followed where it is a link.

use super::fs::{HANDLE, LARGE, Status, open_path};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{
    AccessFlags, Gid, PathconfVar, Uid, UnlinkatFlags, faccessat, fchown, fpathconf, geteuid,
    linkat, unlinkat,
};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

/// What every file system of this kind of system allows, where it does not say.
const NAME_MAX: usize = 255;

/// Which file or directory it is, whatever becomes of its content: device, inode, and when it was
/// made. The number of an inode that was removed is given to the next one, so the time belongs to
/// it; `None` where the file system does not keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    device: u64,
    inode: u64,
    birth: Option<SystemTime>,
}

/// Says which one stands under a name; a link itself, not what it leads to.
pub(crate) fn origin(directory: &File, name: &OsStr) -> io::Result<Origin> {
    let flags = HANDLE | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let handle = fcntl::openat(directory, name, flags, Mode::empty()).map(File::from)?;
    let found = handle.metadata()?;
    Ok(Origin {
        device: found.dev(),
        inode: found.ino(),
        birth: found.created().ok(),
    })
}

/// Makes a directory that everybody may search, as far as the umask lets it.
pub(crate) fn make_directory(directory: &File, name: &OsStr) -> io::Result<()> {
    Ok(mkdirat(directory, name, Mode::from_bits_truncate(0o777))?)
}

/// Makes a file that was not there, for writing, with these permission bits as far as the umask
/// lets it have them.
pub(crate) fn make_file(directory: &File, name: &OsStr, permissions: u32) -> io::Result<File> {
    let flags = OFlag::O_WRONLY
        | OFlag::O_CREAT
        | OFlag::O_EXCL
        | OFlag::O_CLOEXEC
        | OFlag::O_NOFOLLOW
        | LARGE;
    let mode = Mode::from_bits_truncate(permissions);
    Ok(fcntl::openat(directory, name, flags, mode).map(File::from)?)
}

/// Opens a file that belongs to the user this process is; `None` for somebody else's. For writing,
/// as network file systems want it for a lock.
pub(crate) fn open_own(directory: &File, name: &OsStr) -> io::Result<Option<File>> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | LARGE;
    let file = fcntl::openat(directory, name, flags, Mode::empty()).map(File::from)?;
    let is_own = Status::of(&file)?.owner.0 == geteuid().as_raw();
    Ok(is_own.then_some(file))
}

/// Fails where this process may not write to a regular file of the directory: as for opening it, by
/// the ids and rights that the process has now.
pub(crate) fn check_may_write(directory: &File, name: &OsStr) -> io::Result<()> {
    Ok(faccessat(
        directory,
        name,
        AccessFlags::W_OK,
        AtFlags::AT_EACCESS,
    )?)
}

/// Opens a file that is there for writing from its beginning; its content stays until it is written
/// to.
pub(crate) fn open_in_place(directory: &File, name: &OsStr) -> io::Result<File> {
    // What the kernel protects in sticky directories (fs.protected_regular), it protects from an
    // open that may create the file. A file that has vanished meanwhile is made, without content.
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK;
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | LARGE;
    Ok(fcntl::openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)?)
}

/// Whether the sticky bit of a directory keeps this process from replacing a file of this owner in
/// it.
pub(crate) fn is_kept_by_sticky_bit(directory: &File, owner: u32) -> io::Result<bool> {
    const STICKY: u32 = 0o1000;
    let above = Status::of(directory)?;
    let own = geteuid();
    let is_own = own.is_root() || [owner, above.owner.0].contains(&own.as_raw());
    Ok(above.mode & STICKY != 0 && !is_own)
}

/// Gives a file to a user and a group, or to the group alone, as far as this process may.
pub(crate) fn give(file: &File, (user, group): (u32, u32)) {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    if fchown(file, Some(user), Some(group)).is_err() {
        let _ = fchown(file, None, Some(group));
    }
}

/// Bytes that a name in this directory may have.
pub(crate) fn longest_name(directory: &File) -> usize {
    let limit = fpathconf(directory, PathconfVar::NAME_MAX).ok().flatten();
    limit
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(NAME_MAX)
}

/// What the system says of a longer name.
pub(crate) fn name_too_long() -> io::Error {
    Errno::ENAMETOOLONG.into()
}

/// Returns when the disk has what was written to a file.
pub(crate) fn sync_file(file: &File) -> io::Result<()> {
    #[cfg(test)]
    super::calls::count(|calls| calls.file_syncs += 1);
    file.sync_all()
}

/// Returns when the disk has the names in a directory.
pub(crate) fn sync_directory(directory: &File) -> io::Result<()> {
    #[cfg(test)]
    super::calls::count(|calls| calls.directory_syncs += 1);
    directory.sync_all()
}

/// Makes a file without a name, for writing, which is gone when it is closed unless [`name_file`]
/// gives it one. Fails in a way that [`is_not_offered`] knows where the file system, or the kernel,
/// cannot do the one or the other.
#[cfg(target_os = "linux")]
pub(crate) fn make_nameless_file(directory: &File, permissions: u32) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC | LARGE;
    let mode = Mode::from_bits_truncate(permissions);
    let file = fcntl::openat(directory, ".", flags, mode).map(File::from)?;
    // Without /proc it would never get a name. Better to hear of it now than at the end.
    match std::fs::symlink_metadata(open_path(&file)) {
        Ok(_) => Ok(file),
        Err(_) => Err(Errno::EOPNOTSUPP.into()),
    }
}

/// Makes a file without a name; this system has no such thing.
#[cfg(not(target_os = "linux"))]
pub(crate) fn make_nameless_file(_: &File, _: u32) -> io::Result<File> {
    Err(Errno::EOPNOTSUPP.into())
}

/// Whether a file cannot be made without a name, and could be made with one.
pub(crate) fn is_not_offered(error: &io::Error) -> bool {
    // Kernels and file systems that do not know the flag see a directory that is opened for
    // writing.
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    matches!(errno, Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL)
}

/// Gives a file without a name one that nobody has.
pub(crate) fn name_file(file: &File, directory: &File, name: &OsStr) -> io::Result<()> {
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    let path = open_path(file);
    Ok(linkat(
        fcntl::AT_FDCWD,
        path.as_str(),
        directory,
        name,
        follow,
    )?)
}

/// Gives a file of this directory another name that nobody has.
pub(crate) fn rename_to_free(directory: &File, name: &OsStr, new: &OsStr) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let flags = fcntl::RenameFlags::RENAME_NOREPLACE;
        match fcntl::renameat2(directory, name, directory, new, flags) {
            // The file system does not know the flag.
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            result => return Ok(result?),
        }
    }
    linkat(directory, name, directory, new, AtFlags::empty())?;
    remove_file(directory, name)
}

/// Gives a file another name, in another directory perhaps; what had that name is gone.
pub(crate) fn rename(from: &File, name: &OsStr, to: &File, new: &OsStr) -> io::Result<()> {
    Ok(fcntl::renameat(from, name, to, new)?)
}

/// Takes the name of what is no directory.
pub(crate) fn remove_file(directory: &File, name: &OsStr) -> io::Result<()> {
    Ok(unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?)
}

/// Removes an empty directory.
pub(crate) fn remove_directory(directory: &File, name: &OsStr) -> io::Result<()> {
    Ok(unlinkat(directory, name, UnlinkatFlags::RemoveDir)?)
}

/// The names in a directory that was opened for reading, without `.` and `..`, in no order.
pub(crate) fn names(directory: &File) -> io::Result<Vec<OsString>> {
    names_up_to(directory, usize::MAX)
}

/// The same, but at most `most` names.
pub(crate) fn names_up_to(directory: &File, most: usize) -> io::Result<Vec<OsString>> {
    // A descriptor of its own: where it is in the list belongs to the descriptor.
    let own = super::fs::open_directory(directory, OsStr::new("."))?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(own.into())?.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            if names.len() == most {
                break;
            }
            names.push(name);
        }
    }
    Ok(names)
}

/// The error of a tree that is deeper than anybody goes.
pub(crate) fn too_deep() -> io::Error {
    io::Error::other("too many directories within directories")
}
