//! Rights that a thread gives up for good: capabilities, those that a program could get by being
//! executed, and, by Landlock, files.
//!
//! All of this is per thread, and a thread passes it on to the threads that it starts. Landlock
//! knows files by where they lie beneath a directory that was open when the rules were made; it has
//! no effect on descriptors that are open already.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

// ---- capabilities -------------------------------------------------------------------------------

/// A capability, by its number in linux/capability.h.
pub(crate) type Capability = u32;

/// Changing groups and users.
pub(crate) const CHANGE_USER: [Capability; 2] = [6, 7];
/// Ports below 1024.
pub(crate) const LOW_PORTS: Capability = 10;
/// Files of other users: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID.
pub(crate) const FILES_OF_OTHERS: [Capability; 5] = [0, 1, 2, 3, 4];

/// `struct __user_cap_header_struct`, version 3.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`; the second one holds the numbers from 32.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Clears the bounding set of this thread: no capability comes back by executing a program. Needs
/// CAP_SETPCAP; a thread without it keeps the set.
pub(crate) fn clear_bounding_set() {
    for number in 0..=63 {
        // The first unknown number ends the list.
        if control(libc::PR_CAPBSET_READ, number).is_err()
            || control(libc::PR_CAPBSET_DROP, number).is_err()
        {
            return;
        }
    }
}

/// Gives up all capabilities of this thread but these.
pub(crate) fn keep_capabilities(kept: &[Capability]) -> io::Result<()> {
    let mask = kept.iter().fold(0_u64, |mask, number| mask | 1 << number);
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut sets = [CapabilitySets::default(); 2];
    // SAFETY: both point to what capget(2) asks for with version 3: a header, and two structures.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(read)?;
    let before = sets.map(|set| set.permitted | set.effective | set.inheritable);
    for (set, mask) in sets.iter_mut().zip([mask as u32, (mask >> 32) as u32]) {
        set.permitted &= mask;
        set.effective &= mask;
        set.inheritable = 0;
    }
    // A filter of system calls may forbid the change. Nothing is left to change in that case.
    if before == [0, 0] {
        return Ok(());
    }
    // SAFETY: as before; the kernel only reads.
    let written = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(written)?;
    Ok(())
}

/// No program that this thread executes gets rights by its file (setuid, file capabilities).
pub(crate) fn forbid_new_privileges() -> io::Result<()> {
    Ok(control(libc::PR_SET_NO_NEW_PRIVS, 1)?)
}

/// Calls prctl(2) with an operation that takes one number.
fn control(operation: libc::c_int, number: libc::c_ulong) -> Result<(), Errno> {
    let none: libc::c_ulong = 0;
    // SAFETY: the operations of this file take numbers and touch no memory.
    Errno::result(unsafe { libc::prctl(operation, number, none, none, none) }).map(drop)
}

// ---- Landlock -----------------------------------------------------------------------------------

/// What a rule allows beneath its directory, or of its file: bits of linux/landlock.h.
#[derive(Clone, Copy)]
pub(crate) struct Access(u64);

const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const TRUNCATE: u64 = 1 << 14;

impl Access {
    /// Reading one file.
    pub(crate) const FILE: Self = Self(READ_FILE);
    /// Reading files and directories.
    pub(crate) const READ: Self = Self(READ_FILE | READ_DIR);
    /// Reading, writing, making, replacing and removing files.
    pub(crate) const WRITE: Self =
        Self(READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | REMOVE_FILE | TRUNCATE);
}

/// `struct landlock_ruleset_attr`. Older kernels know only its beginning.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// What this kernel can forbid: the version of its Landlock. `None` where it has none.
pub(crate) fn landlock_version() -> Option<u32> {
    // SAFETY: with this flag the call reads no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttributes>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Rules in the making: what is not allowed will be forbidden. That is every access to files, TCP,
/// and signals and abstract sockets beyond this process, as far as this version of Landlock knows
/// them.
pub(crate) struct Rules {
    ruleset: OwnedFd,
    handled: u64,
}

impl Rules {
    pub(crate) fn new(version: u32) -> io::Result<Self> {
        let handled = match version {
            1 => (1 << 13) - 1,
            2 => (1 << 14) - 1,
            3 | 4 => (1 << 15) - 1,
            _ => (1 << 16) - 1,
        };
        let attributes = RulesetAttributes {
            handled_access_fs: handled,
            // Binding and connecting.
            handled_access_net: if version >= 4 { 0b11 } else { 0 },
            // Abstract sockets and signals.
            scoped: if version >= 6 { 0b11 } else { 0 },
        };
        let size: usize = match version {
            ..4 => 8,
            4 | 5 => 16,
            _ => 24,
        };
        // SAFETY: the attributes are valid for `size` bytes, and the kernel only reads them.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size,
                0_u32,
            )
        };
        let descriptor = Errno::result(descriptor)?;
        let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
        Ok(Self {
            // SAFETY: the kernel has just made this descriptor for us.
            ruleset: unsafe { OwnedFd::from_raw_fd(descriptor) },
            handled,
        })
    }

    /// Allows this access to a file, or beneath a directory.
    pub(crate) fn allow(&self, path: &Path, access: Access) -> io::Result<()> {
        let mut options = File::options();
        let parent = options.read(true).custom_flags(libc::O_PATH).open(path)?;
        let rule = PathBeneath {
            allowed_access: access.0 & self.handled,
            parent_fd: parent.as_raw_fd(),
        };
        // SAFETY: the rule is valid for the call, and the kernel only reads it.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.ruleset.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0_u32,
            )
        };
        Errno::result(added)?;
        Ok(())
    }

    /// Enforces the rules on this thread. [`forbid_new_privileges`] must have come first.
    pub(crate) fn enforce(self) -> io::Result<()> {
        // SAFETY: takes numbers and touches no memory.
        let enforced = unsafe {
            libc::syscall(
                libc::SYS_landlock_restrict_self,
                self.ruleset.as_raw_fd(),
                0_u32,
            )
        };
        Errno::result(enforced)?;
        Ok(())
    }
}
