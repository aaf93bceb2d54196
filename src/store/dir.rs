//! A rooted directory: which names it serves, and what it says of the others.
//!
//! Invariant: a file that is served lies beneath the root or an allowed tree, is regular, and may be read by everybody
//! (unless that was waived). A refusal names nothing of this machine, and is the same whether or not there is something
//! outside.

use super::tree::{Found, Trees};
use super::{Kind, Request, Source, Store};
use crate::error::{Error, Refusal, plain};
use crate::sys::fs::{self, Status, Trouble};
use crate::wire::ErrorCode;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

/// Serves the files beneath one directory, for reading.
///
/// The directory is held open: names are looked up beneath what it was when it was opened, wherever its path leads
/// later, until [`reopen`](Self::reopen). Clones share it.
///
/// - A leading `/` means the directory itself. `.` and doubled slashes are skipped; `..` may go up, but not above it. A
///   missing name with backslashes is tried once more with slashes.
/// - Symbolic links are followed while they stay inside. One that leaves is followed only into a tree that was
///   [allowed](DirBuilder::allow_symlink_target).
/// - Only regular files are served, and only those that everybody may read, unless
///   [told otherwise](DirBuilder::serve_unreadable).
///
/// ```no_run
/// let store = tftpool::Dir::builder("/srv/tftp")
///     .allow_symlink_target("/srv/images")
///     .open()?;
/// # Ok::<(), tftpool::Error>(())
/// ```
#[derive(Clone)]
pub struct Dir(Arc<Shared>);

struct Shared {
    settings: DirBuilder,
    /// Locked only to copy or replace the `Arc`; never while a file is looked up.
    trees: RwLock<Arc<Trees>>,
    /// Set when `openat2` proves to be missing.
    by_hand: AtomicBool,
}

/// What a [`Dir`] serves; made by [`Dir::builder`].
#[derive(Clone, Debug)]
pub struct DirBuilder {
    root: PathBuf,
    allowed: Vec<PathBuf>,
    serve_unreadable: bool,
}

impl DirBuilder {
    /// Follows symbolic links that leave the directory, if they lead into this tree. A link is compared by its text,
    /// whole components at a time, with the tree's path as it is written here and as it is without links.
    #[must_use]
    pub fn allow_symlink_target(mut self, tree: impl Into<PathBuf>) -> Self {
        self.allowed.push(tree.into());
        self
    }

    /// Serves files, too, that this process may read but not everybody (mode without `o+r`).
    #[must_use]
    pub fn serve_unreadable(mut self, serve: bool) -> Self {
        self.serve_unreadable = serve;
        self
    }

    /// Opens the directory and the allowed trees.
    ///
    /// # Errors
    /// [`Error::Directory`] names the one that cannot be opened or searched.
    pub fn open(mut self) -> Result<Dir, Error> {
        // A daemon may change its working directory before it reopens.
        for path in std::iter::once(&mut self.root).chain(&mut self.allowed) {
            match std::path::absolute(&*path) {
                Ok(absolute) => *path = absolute,
                Err(cause) => {
                    return Err(Error::Directory {
                        path: path.clone(),
                        cause,
                    });
                }
            }
        }
        Ok(Dir(Arc::new(Shared {
            trees: RwLock::new(Arc::new(self.open_trees()?)),
            by_hand: AtomicBool::new(false),
            settings: self,
        })))
    }

    fn open_trees(&self) -> Result<Trees, Error> {
        let blame = |path: &PathBuf| {
            let path = path.clone();
            |cause| Error::Directory { path, cause }
        };
        let mut trees = Trees::open(&self.root).map_err(blame(&self.root))?;
        for tree in &self.allowed {
            trees.allow(tree).map_err(blame(tree))?;
        }
        Ok(trees)
    }
}

impl Dir {
    /// Opens a directory with the defaults: no link leaves it, and only files that everybody may read are served.
    ///
    /// # Errors
    /// [`Error::Directory`] if it cannot be opened or searched.
    pub fn read_only(root: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::builder(root).open()
    }

    /// Starts with the defaults of [`read_only`](Self::read_only).
    pub fn builder(root: impl Into<PathBuf>) -> DirBuilder {
        DirBuilder {
            root: root.into(),
            allowed: Vec::new(),
            serve_unreadable: false,
        }
    }

    /// The path of the directory, absolute, otherwise as it was given.
    pub fn path(&self) -> &Path {
        &self.0.settings.root
    }

    /// Opens the directory and the allowed trees anew by their paths: what a link there leads to now is served from now
    /// on, by all clones. Files that are open stay open.
    ///
    /// # Errors
    /// [`Error::Directory`] names the one that cannot be opened; what was served before is served on.
    pub fn reopen(&self) -> Result<(), Error> {
        let trees = Arc::new(self.0.settings.open_trees()?);
        let current = self.0.trees.write();
        *current.unwrap_or_else(PoisonError::into_inner) = trees;
        Ok(())
    }

    fn find(&self, name: &[u8]) -> Result<Source, Refusal> {
        let file = self.open(clean(name)?)?;
        let status = Status::of(&file).map_err(refuse)?;
        if !status.regular {
            return Err(Refusal::access_violation().because("not a regular file"));
        }
        if status.mode & 0o004 == 0 && !self.0.settings.serve_unreadable {
            let mode = status.mode;
            return Err(Refusal::access_violation()
                .because(format!("not readable by everybody (mode {mode:04o})")));
        }
        Ok(Source(Kind::File(file, Some(status.identity))))
    }

    fn open(&self, name: OsString) -> Result<File, Refusal> {
        let trees = {
            let current = self.0.trees.read();
            Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
        };
        match trees.find(&name, &self.0.by_hand).map_err(refuse)? {
            Found::File(file) => Ok(file),
            Found::Outside(host) => {
                let host = host.as_os_str().as_bytes().escape_ascii();
                Err(Refusal::access_violation().because(format!("a link leaves towards {host}")))
            }
        }
    }
}

impl Store for Dir {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        let name = request.name;
        match self.find(name) {
            Err(refusal) if refusal.code() == ErrorCode::NOT_FOUND && name.contains(&b'\\') => {
                let slash = |&octet| if octet == b'\\' { b'/' } else { octet };
                self.find(&name.iter().map(slash).collect::<Vec<_>>())
            }
            answer => answer,
        }
    }

    fn reload(&self) {
        if let Err(error) = self.reopen() {
            log::warn!("{error}; what was served before is served on");
        }
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dir").field(&self.0.settings).finish()
    }
}

/// The name beneath the root that a peer's name means: not empty, no leading slash, no `.`, no `..`.
fn clean(name: &[u8]) -> Result<OsString, Refusal> {
    if name.iter().any(u8::is_ascii_control) {
        return Err(Refusal::access_violation().because("control octet in the name"));
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in name.split(|&octet| octet == b'/') {
        match component {
            b"" | b"." => {}
            b".." if kept.pop().is_some() => {}
            b".." => {
                return Err(Refusal::access_violation().because("the name climbs above the root"));
            }
            _ => kept.push(component),
        }
    }
    if kept.is_empty() {
        return Err(Refusal::access_violation().because("the name is the root itself"));
    }
    Ok(OsString::from_vec(kept.join(&b'/')))
}

fn refuse(error: io::Error) -> Refusal {
    let refusal = match fs::trouble(&error) {
        // Nothing to explain, and boot loaders ask for ten names before one that exists.
        Trouble::Missing => return Refusal::not_found(),
        Trouble::Busy | Trouble::Exhausted => {
            Refusal::new(ErrorCode::NOT_DEFINED, "server out of resources")
        }
        Trouble::Broken => Refusal::new(ErrorCode::NOT_DEFINED, "read error"),
        Trouble::Leaves | Trouble::Link | Trouble::NotOffered | Trouble::Denied => {
            Refusal::access_violation()
        }
    };
    refusal.because(plain(&error))
}
