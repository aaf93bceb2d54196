//! The files beneath a directory, for the program that put them there: what the server serves by a
//! name, [`Storage`] reads, writes and removes by the same name.
//!
//! Invariant: every name goes through the rules and the lookup of [`Dir`]; what is changed is one
//! component of a directory that was found that way, and is never followed where it is a link. What
//! is removed at the end was made here, and is still the same file or directory.

use super::dir::Dir;
use super::landing::{Landing, Rules, WriteMode};
use super::names::{components, names_directory};
use super::tree::Found;
use crate::error::TftpError;
use crate::limits::MAX_TREE_DEPTH;
use crate::sys::edit::{self, Origin};
use crate::sys::fs::{self, FoundKind, Status, Trouble, Want};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The files beneath a directory. Names are those that clients ask for: a leading `/` means the
/// directory itself, `..` may not climb above it, and no link leads out. Clones share what they
/// know.
///
/// What is created here is remembered, and can be removed again with
/// [`remove_created`](Self::remove_created).
///
/// All errors are [`TftpError::Name`] for a name that breaks the rules, or [`TftpError::File`] with
/// what the system said.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    dir: Dir,
    created: Mutex<Created>,
}

/// What was made here, by cleaned name. A directory comes before what is in it.
type Created = BTreeMap<OsString, Origin>;

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name beneath the root, without a leading `/`.
    pub name: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Octets of a file; for anything else what the file system says.
    pub size: u64,
    /// When its content changed last.
    pub modified: SystemTime,
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, in a list; [`Storage::stat`] follows it.
    Link,
    /// A FIFO, a device, a socket: nothing that is served.
    Other,
}

/// A directory that is held open, and a component in it.
struct Place {
    directory: File,
    component: OsString,
}

impl Storage {
    /// Manages the files of a directory that is served.
    pub fn new(dir: Dir) -> Self {
        Self(Arc::new(Inner {
            dir,
            created: Mutex::new(BTreeMap::new()),
        }))
    }

    /// Writes a file, with the directories above it; see [`write_from`](Self::write_from).
    ///
    /// # Errors
    /// See [`Storage`].
    pub fn write(
        &self,
        name: impl AsRef<Path>,
        content: impl AsRef<[u8]>,
    ) -> Result<(), TftpError> {
        self.write_from(name, content.as_ref()).map(|_| ())
    }

    /// Writes a file from a reader to its end, with the directories above it, and returns how many
    /// octets that were. The file appears under its name when it is complete, readable by
    /// everybody; a file that was there is served until then. On an error nothing of it stays. A
    /// link that has the name is neither followed nor replaced: that is an error, as is a file that
    /// this process may not write to. One that no new file can replace is written in place, as
    /// [`WriteMode::Overwrite`] says.
    ///
    /// # Errors
    /// See [`Storage`]; those of the reader as well.
    pub fn write_from(
        &self,
        name: impl AsRef<Path>,
        mut reader: impl Read,
    ) -> Result<u64, TftpError> {
        let name = clean_file(name.as_ref())?;
        let doing = blame("write", &name);
        let place = self.make_place(&name).map_err(&doing)?;
        let mut landing = place.land().map_err(&doing)?;
        let written = io::copy(&mut reader, &mut landing).map_err(&doing)?;
        let mut created = self.lock();
        let was_there = fs::look(&place.directory, &place.component).is_ok();
        landing.commit().map_err(&doing)?;
        // Also where a file of ours was replaced: what has to go later is the new one.
        if !was_there || created.contains_key(&name) {
            remember(&mut created, name.clone(), &place).map_err(&doing)?;
        }
        Ok(written)
    }

    /// Reads a whole file into memory.
    ///
    /// # Errors
    /// See [`Storage`].
    pub fn read(&self, name: impl AsRef<Path>) -> Result<Vec<u8>, TftpError> {
        let name = clean_file(name.as_ref())?;
        let mut content = Vec::new();
        self.open(&name)
            .and_then(|mut file| file.read_to_end(&mut content))
            .map_err(blame("read", &name))?;
        Ok(content)
    }

    /// What is in a directory, by name; `""` and `"/"` are the root. Links are not followed.
    ///
    /// # Errors
    /// See [`Storage`].
    pub fn list(&self, name: impl AsRef<Path>) -> Result<Vec<Entry>, TftpError> {
        let name = clean_or_root(name.as_ref())?;
        let doing = blame("list", &name);
        let directory = self.find_directory(&name).map_err(&doing)?;
        let mut entries = Vec::new();
        for component in edit::names(&directory).map_err(&doing)? {
            match fs::look(&directory, &component) {
                Ok(found) => entries.push(entry(Path::new(&name).join(component), &found)),
                Err(error) if is_missing(&error) => {} // removed since
                Err(error) => return Err(doing(error)),
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// What stands under a name; a link is followed, as the server does.
    ///
    /// # Errors
    /// See [`Storage`].
    pub fn stat(&self, name: impl AsRef<Path>) -> Result<Entry, TftpError> {
        let name = clean_or_root(name.as_ref())?;
        let found = self.status(&name).map_err(blame("look at", &name))?;
        Ok(entry(name.into(), &found))
    }

    /// Whether something stands under a name. A link that leads out, or nowhere, does not count.
    ///
    /// # Errors
    /// See [`Storage`]; that it is missing is none.
    pub fn exists(&self, name: impl AsRef<Path>) -> Result<bool, TftpError> {
        let name = clean_or_root(name.as_ref())?;
        match self.status(&name) {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) || is_outside(&error) => Ok(false),
            Err(error) if fs::trouble(&error) == Trouble::TooLong => Ok(false),
            Err(error) => Err(blame("look at", &name)(error)),
        }
    }

    /// Deletes a file, a link, or an empty directory.
    ///
    /// # Errors
    /// See [`Storage`]; one that is missing is an error.
    pub fn delete(&self, name: impl AsRef<Path>) -> Result<(), TftpError> {
        let name = clean(name.as_ref())?;
        let mut created = self.lock();
        self.place(&name)
            .and_then(|place| place.remove())
            .map_err(blame("delete", &name))?;
        created.remove(&name);
        Ok(())
    }

    /// Copies a file; what stands under the new name is replaced when the copy is complete. Returns
    /// its octets.
    ///
    /// # Errors
    /// See [`Storage`].
    pub fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<u64, TftpError> {
        let from = clean_file(from.as_ref())?;
        let file = self.open(&from).map_err(blame("copy", &from))?;
        self.write_from(to, file)
    }

    /// Gives a file or a directory another name; a file that has it is replaced. Directories above
    /// the new name are made.
    ///
    /// # Errors
    /// See [`Storage`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), TftpError> {
        let (from, to) = (clean(from.as_ref())?, clean(to.as_ref())?);
        let doing = blame("rename", &from);
        let old = self.place(&from).map_err(&doing)?;
        fs::look(&old.directory, &old.component).map_err(&doing)?;
        let new = self.make_place(&to).map_err(blame("write", &to))?;
        let mut created = self.lock();
        let was_there = fs::look(&new.directory, &new.component).is_ok();
        edit::rename(
            &old.directory,
            &old.component,
            &new.directory,
            &new.component,
        )
        .map_err(&doing)?;
        // What was ours stays ours under the new name, and so does what is in it; the name of
        // somebody else's file does not.
        let is_ours = !was_there || created.contains_key(&to);
        for (name, origin) in taken(&mut created, &from) {
            let rest = &name.as_bytes()[from.len()..];
            if is_ours || !rest.is_empty() {
                let name = [to.as_bytes(), rest].concat();
                created.insert(OsString::from_vec(name), origin);
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it; one that is there is as good.
    ///
    /// # Errors
    /// See [`Storage`].
    pub fn create_dir(&self, name: impl AsRef<Path>) -> Result<(), TftpError> {
        let name = clean(name.as_ref())?;
        let doing = blame("make directory", &name);
        self.make_directories(&name).map_err(&doing)?;
        match self.status(&name).map_err(&doing)?.kind {
            FoundKind::Directory => Ok(()),
            _ => Err(doing(io::ErrorKind::AlreadyExists.into())),
        }
    }

    /// Removes a file, or a directory with all that is in it, whoever put it there. Links are
    /// removed, not followed. What is missing is as good.
    ///
    /// # Errors
    /// See [`Storage`]. The root itself is not removed, nor what is deeper than 64 directories.
    pub fn remove_all(&self, name: impl AsRef<Path>) -> Result<(), TftpError> {
        let name = clean(name.as_ref())?;
        let mut created = self.lock();
        let removed = self
            .place(&name)
            .and_then(|place| remove_tree(&place.directory, &place.component, MAX_TREE_DEPTH));
        match removed {
            Err(error) if !is_missing(&error) => Err(blame("remove", &name)(error)),
            _ => {
                taken(&mut created, &name);
                Ok(())
            }
        }
    }

    /// The SHA-256 of a file, as 64 hexadecimal digits.
    ///
    /// # Errors
    /// See [`Storage`].
    #[cfg(feature = "sha256")]
    pub fn hash(&self, name: impl AsRef<Path>) -> Result<String, TftpError> {
        use sha2::{Digest, Sha256};
        use std::fmt::Write;
        let name = clean_file(name.as_ref())?;
        let doing = blame("read", &name);
        let mut file = self.open(&name).map_err(&doing)?;
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => digest.update(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(doing(error)),
            }
        }
        let hexadecimal = |mut text: String, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        };
        Ok(digest
            .finalize()
            .into_iter()
            .fold(String::new(), hexadecimal))
    }

    /// The names that were created here and not deleted since.
    pub fn created(&self) -> Vec<PathBuf> {
        self.lock().keys().map(PathBuf::from).collect()
    }

    /// Removes what was created here: files, and directories that are empty then. What somebody
    /// else has put under such a name since, or into such a directory, stays. A file that was there
    /// before and was overwritten stays too.
    ///
    /// # Errors
    /// See [`Storage`]: the first thing that could not be removed; the others are removed all the
    /// same. What could not is tried again by the next call.
    pub fn remove_created(&self) -> Result<(), TftpError> {
        let mut created = self.lock();
        let mut result = Ok(());
        let names: Vec<_> = created.keys().rev().cloned().collect();
        for name in names {
            match self.remove_ours(&name, created[&name]) {
                Err(error) if is_missing(&error) || is_outside(&error) => {}
                // Full of what others have put there, or else of what has just failed to go.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    if is_above_any(&created, &name) {
                        continue;
                    }
                }
                Err(error) => {
                    result = result.and(Err(blame("remove", &name)(error)));
                    continue;
                }
                Ok(()) => {}
            }
            created.remove(&name);
        }
        result
    }

    fn remove_ours(&self, name: &OsStr, origin: Origin) -> io::Result<()> {
        let place = self.place(name)?;
        match edit::origin(&place.directory, &place.component)? == origin {
            true => place.remove(),
            false => Ok(()),
        }
    }

    /// Opens a regular file for reading.
    fn open(&self, name: &OsStr) -> io::Result<File> {
        match self.find(name, Want::File)? {
            Found::File(file, _) => Ok(file),
            Found::Seen(found) if found.kind == FoundKind::Directory => {
                Err(io::ErrorKind::IsADirectory.into())
            }
            _ => Err(io::Error::other("not a regular file")),
        }
    }

    fn find_directory(&self, name: &OsStr) -> io::Result<File> {
        match self.find(name, Want::Directory)? {
            Found::File(directory, _) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// What stands under a cleaned name; nothing is opened.
    fn status(&self, name: &OsStr) -> io::Result<Status> {
        match self.find(name, Want::Status)? {
            Found::File(_, status) | Found::Seen(status) => Ok(status),
            Found::Outside(_) => Err(outside()),
        }
    }

    /// Looks up a cleaned name.
    fn find(&self, name: &OsStr, want: Want) -> io::Result<Found> {
        let name = if name.is_empty() {
            OsStr::new(".")
        } else {
            name
        };
        match self.0.dir.look_up(name, want)? {
            Found::Outside(_) => Err(outside()),
            found => Ok(found),
        }
    }

    fn place(&self, name: &OsStr) -> io::Result<Place> {
        let (above, component) = split(name);
        Ok(Place {
            directory: self.find_directory(above)?,
            component: component.to_owned(),
        })
    }

    /// The same where the directories above may be missing.
    fn make_place(&self, name: &OsStr) -> io::Result<Place> {
        match self.place(name) {
            Err(error) if is_missing(&error) => {
                self.make_directories(split(name).0)?;
                self.place(name)
            }
            result => result,
        }
    }

    /// Makes a directory and those above it, and remembers those that it has made.
    fn make_directories(&self, name: &OsStr) -> io::Result<()> {
        let octets = name.as_bytes();
        let slashes = (0..octets.len()).filter(|at| octets[*at] == b'/');
        for end in slashes.chain([octets.len()]) {
            let name = OsStr::from_bytes(&octets[..end]);
            let place = self.place(name)?;
            let mut created = self.lock();
            match edit::make_directory(&place.directory, &place.component) {
                Ok(()) => remember(&mut created, name.to_owned(), &place)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Created> {
        let created = self.0.created.lock();
        created.unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Storage").field(&self.0.dir).finish()
    }
}

impl Place {
    /// Begins a file that replaces what is there, and that everybody may read.
    fn land(&self) -> io::Result<Landing> {
        let rules = Rules {
            mode: WriteMode::Overwrite,
            permissions: Some(0o644),
            durable: false,
        };
        Landing::begin(self.directory.try_clone()?, self.component.clone(), rules)
    }

    fn remove(&self) -> io::Result<()> {
        match fs::look(&self.directory, &self.component)?.kind {
            FoundKind::Directory => edit::remove_directory(&self.directory, &self.component),
            _ => edit::remove_file(&self.directory, &self.component),
        }
    }
}

/// Removes what stands under a name, `depth` directories deep at most.
fn remove_tree(directory: &File, name: &OsStr, depth: usize) -> io::Result<()> {
    if fs::look(directory, name)?.kind != FoundKind::Directory {
        return edit::remove_file(directory, name);
    }
    if depth == 0 {
        return Err(edit::too_deep());
    }
    let inside = fs::open_directory(directory, name)?;
    for component in edit::names(&inside)? {
        match remove_tree(&inside, &component, depth - 1) {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
    }
    edit::remove_directory(directory, name)
}

fn remember(created: &mut Created, name: OsString, place: &Place) -> io::Result<()> {
    let origin = edit::origin(&place.directory, &place.component)?;
    created.insert(name, origin);
    Ok(())
}

/// Takes a name, and what is below it, out of the list.
fn taken(created: &mut Created, name: &OsStr) -> Vec<(OsString, Origin)> {
    let is_taken = |other: &OsString| other == name || is_below(other, name);
    let names: Vec<_> = created.keys().filter(|it| is_taken(it)).cloned().collect();
    let take = |name| created.remove_entry(&name);
    names.into_iter().filter_map(take).collect()
}

fn is_above_any(created: &Created, name: &OsStr) -> bool {
    created.keys().any(|other| is_below(other, name))
}

fn is_below(name: &OsStr, directory: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(directory.as_bytes());
    rest.is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn clean(name: &Path) -> Result<OsString, TftpError> {
    let cleaned = clean_or_root(name)?;
    if cleaned.is_empty() {
        return Err(TftpError::Name {
            name: name.to_owned(),
            rule: "the name is the root itself",
        });
    }
    Ok(cleaned)
}

/// The name of a file, which a slash at its end would make a directory's.
fn clean_file(name: &Path) -> Result<OsString, TftpError> {
    let cleaned = clean(name)?;
    if names_directory(name.as_os_str().as_bytes()) {
        return Err(TftpError::Name {
            name: name.to_owned(),
            rule: "the name is a directory's",
        });
    }
    Ok(cleaned)
}

/// As a request's name is cleaned; empty for the root itself.
fn clean_or_root(name: &Path) -> Result<OsString, TftpError> {
    match components(name.as_os_str().as_bytes()) {
        Ok(kept) => Ok(OsString::from_vec(kept.join(&b'/'))),
        Err(rule) => Err(TftpError::Name {
            name: name.to_owned(),
            rule,
        }),
    }
}

/// A cleaned name as the directory and the component in it.
fn split(name: &OsStr) -> (&OsStr, &OsStr) {
    let octets = name.as_bytes();
    match octets.iter().rposition(|octet| *octet == b'/') {
        Some(at) => (
            OsStr::from_bytes(&octets[..at]),
            OsStr::from_bytes(&octets[at + 1..]),
        ),
        None => (OsStr::new(""), name),
    }
}

fn entry(name: PathBuf, found: &Status) -> Entry {
    Entry {
        name,
        kind: match found.kind {
            FoundKind::File => EntryKind::File,
            FoundKind::Directory => EntryKind::Directory,
            FoundKind::Link => EntryKind::Link,
            FoundKind::Other => EntryKind::Other,
        },
        size: found.identity.size,
        modified: found.modified(),
    }
}

fn blame(doing: &'static str, name: &OsStr) -> impl Fn(io::Error) -> TftpError {
    let name = PathBuf::from(if name.is_empty() {
        OsStr::new("/")
    } else {
        name
    });
    move |cause| TftpError::File {
        doing,
        name: name.clone(),
        cause,
    }
}

fn is_missing(error: &io::Error) -> bool {
    fs::trouble(error) == Trouble::Missing
}

fn outside() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "a link leaves the directory",
    )
}

fn is_outside(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}
