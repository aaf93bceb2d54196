//! A file on its way: it appears under its name when it is whole, and leaves nothing behind
//! otherwise.
//!
//! Until then it has no name at all where the file system can do that, else a hidden one in the
//! same directory. Only where a file is to be overwritten that no new one can replace, that file
//! itself is written. Invariant: everything happens in one directory that is held open, and no link
//! is ever followed.

use crate::limits::{
    HIDDEN_NAMES_TRIED, LEFTOVERS_LOOKED_AT, MAX_TREE_DEPTH, UNIQUE_NAMES_TRIED, UNIQUE_SEARCHES,
};
use crate::sys::edit;
use crate::sys::fs::{self, FoundKind, Status, Trouble};
use crate::text::Name;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

/// What a file that arrives may do to one that has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteMode {
    /// Nothing: only names are taken that nobody has.
    Create,
    /// Replace it, when the new one is whole. The process must have permission to write to the old
    /// file; the new one keeps its permission bits, and its owner where the process may set that.
    ///
    /// Where no new file can be put in the place of the old one (a directory that the process may
    /// not write to, a file that is a mount point), the old one is written in place. Then a
    /// transfer that breaks off leaves the file incomplete.
    Overwrite,
    /// Nothing: the new one gets a number behind its name. A name that has no room for a number is
    /// refused at the start.
    Unique,
}

/// How files are put down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) mode: WriteMode,
    /// Permission bits; `None` for what the process gives every new file.
    pub(crate) permissions: Option<u32>,
    /// The disk has the file before anybody is told so.
    pub(crate) durable: bool,
}

/// A file that is not whole yet. Dropped, it is gone.
pub(crate) struct Landing {
    file: File,
    directory: File,
    name: OsString,
    at: At,
    rules: Rules,
}

/// Where the file is until it is whole.
enum At {
    /// Without a name.
    Nameless,
    /// Under this hidden name.
    Hidden(OsString),
    /// Under its own name: it is written in place. `begun` once the old content is gone.
    InPlace { begun: bool },
    /// It is whole.
    Done,
}

impl Landing {
    /// Begins a file that is to get this name, one component, in this directory.
    ///
    /// # Errors
    /// `AlreadyExists` and `IsADirectory` where something stands in the way (of which
    /// `IsADirectory` means anything but a regular file); else what the system says.
    pub(crate) fn begin(directory: File, name: OsString, rules: Rules) -> io::Result<Self> {
        let old = check(&directory, &name, rules.mode)?;
        let obstacle = old.as_ref().map(|old| obstacle(&directory, &name, old));
        let (file, at) = match obstacle.transpose()?.flatten() {
            Some(reason) => open_in_place(&directory, &name, reason)?,
            None => match make_file(&directory, &rules) {
                Err(error) if old.is_some() && error.kind() == io::ErrorKind::PermissionDenied => {
                    open_in_place(&directory, &name, "its directory takes no new file")?
                }
                made => made?,
            },
        };
        Ok(Self {
            file,
            directory,
            name,
            at,
            rules,
        })
    }

    /// The old content of a file that is written in place is gone.
    #[cfg(feature = "cli")]
    pub(crate) fn has_truncated(&self) -> bool {
        matches!(self.at, At::InPlace { begun: true })
    }

    /// The file is whole: it gets its name. Returns that, which may have got a number.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin). The file is gone then, unless it has replaced another one,
    /// which would not come back.
    pub(crate) fn commit(mut self) -> io::Result<OsString> {
        let is_in_place = matches!(self.at, At::InPlace { .. });
        match self.rules.permissions {
            _ if is_in_place => self.begin_in_place()?,
            Some(bits) => self.file.set_permissions(Permissions::from_mode(bits))?,
            None => {}
        }
        if self.rules.durable {
            edit::sync_file(&self.file)?;
        }
        match self.rules.mode {
            _ if is_in_place => {}
            WriteMode::Create => {
                let name = self.name.clone();
                self.take_name(&name)?;
            }
            WriteMode::Overwrite => self.replace()?,
            WriteMode::Unique => self.take_free_name()?,
        }
        self.at = At::Done;
        if self.rules.durable
            && !is_in_place
            && let Err(error) = edit::sync_directory(&self.directory)
        {
            self.take_back();
            return Err(error);
        }
        Ok(std::mem::take(&mut self.name))
    }

    /// Takes the name away that the file just got: a client that hears of an error may send the
    /// file again.
    fn take_back(&self) {
        let own = Status::of(&self.file).map(|found| found.identity);
        let named = fs::look(&self.directory, &self.name).map(|found| found.identity);
        let is_ours = matches!((own, named), (Ok(own), Ok(named)) if own == named);
        if is_ours && self.rules.mode != WriteMode::Overwrite {
            let _ = edit::remove_file(&self.directory, &self.name);
        }
    }

    /// Takes a name that nobody has.
    fn take_name(&self, name: &OsStr) -> io::Result<()> {
        match &self.at {
            At::Hidden(hidden) => edit::rename_to_free(&self.directory, hidden, name),
            _ => edit::name_file(&self.file, &self.directory, name),
        }
    }

    fn replace(&mut self) -> io::Result<()> {
        if matches!(self.at, At::Nameless) {
            // A name can be taken over by another name only.
            let name = |hidden: &OsStr| edit::name_file(&self.file, &self.directory, hidden);
            self.at = At::Hidden(with_hidden_name(name)?.1);
        }
        let At::Hidden(hidden) = &self.at else {
            unreachable!("a file that replaces another one has a name of its own");
        };
        if let Some(old) = check(&self.directory, &self.name, WriteMode::Overwrite)? {
            let own = Status::of(&self.file)?.owner;
            if own != old.owner {
                edit::give(&self.file, old.owner);
            }
        }
        edit::rename(&self.directory, hidden, &self.directory, &self.name)
    }

    /// Takes the name, or one with a number behind it.
    fn take_free_name(&mut self) -> io::Result<()> {
        let result = self.take_name(&self.name);
        if !is_taken(&result) {
            return result;
        }
        let suffixes = Suffixes::of(&self.directory, &self.name)?;
        // What else may be wrong with a name, the attempt to take it says.
        let look = |name: &OsStr| fs::look(&self.directory, name).is_ok();
        let take = |name: &OsStr| self.take_name(name);
        self.name = take_number(&self.name, suffixes, look, take)?;
        Ok(())
    }

    /// Makes room for the new content of a file that is written in place.
    ///
    /// # Errors
    /// `ResourceBusy` where another transfer writes it.
    fn begin_in_place(&mut self) -> io::Result<()> {
        if let At::InPlace { begun: false } = self.at {
            if let Err(TryLockError::WouldBlock) = self.file.try_lock() {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            self.file.set_len(0)?;
            self.at = At::InPlace { begun: true };
        }
        Ok(())
    }
}

impl Write for Landing {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.begin_in_place()?;
        self.file.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        match &self.at {
            At::Hidden(hidden) => _ = edit::remove_file(&self.directory, hidden),
            At::InPlace { begun: true } => {
                let name = Name::new(self.name.as_bytes());
                log::warn!("file={name} is incomplete: it was written in place");
            }
            At::Nameless | At::InPlace { begun: false } | At::Done => {}
        }
    }
}

/// Makes the new file, without a name where the file system can do that.
fn make_file(directory: &File, rules: &Rules) -> io::Result<(File, At)> {
    // Nobody else may look at it before it is whole.
    let permissions = rules.permissions.map_or(0o666, |_| 0o600);
    match edit::make_nameless_file(directory, permissions) {
        Ok(file) => {
            // For the hidden name that it may get at the end.
            let _ = file.try_lock();
            Ok((file, At::Nameless))
        }
        Err(error) if edit::is_not_offered(&error) => {
            let (file, hidden) = make_hidden_file(directory, permissions)?;
            Ok((file, At::Hidden(hidden)))
        }
        Err(error) => Err(error),
    }
}

fn open_in_place(directory: &File, name: &OsStr, reason: &str) -> io::Result<(File, At)> {
    let file = edit::open_in_place(directory, name)?;
    if Status::of(&file)?.kind != FoundKind::File {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let name = Name::new(name.as_bytes());
    log::debug!("writing file={name} in place: {reason}");
    Ok((file, At::InPlace { begun: false }))
}

/// Why a rename would fail at the end, although a new file can be made in the directory.
fn obstacle(directory: &File, name: &OsStr, old: &Status) -> io::Result<Option<&'static str>> {
    Ok(if fs::is_mount_point(directory, name) {
        Some("it is a mount point")
    } else if edit::is_kept_by_sticky_bit(directory, old.owner.0)? {
        Some("its directory is sticky and the file is another user's")
    } else {
        None
    })
}

/// Whether what stands under a name may be there; says what it is where it is to be replaced.
fn check(directory: &File, name: &OsStr, mode: WriteMode) -> io::Result<Option<Status>> {
    let suffixes = match mode {
        WriteMode::Unique => Some(Suffixes::of(directory, name)?),
        WriteMode::Create | WriteMode::Overwrite => None,
    };
    match (fs::look(directory, name), mode) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        (Err(error), _) => Err(error),
        (Ok(_), WriteMode::Unique) => {
            let is_taken = |name: &OsStr| fs::look(directory, name).is_ok();
            match suffixes.is_some_and(|it| it.are_taken(name, is_taken)) {
                true => Err(io::ErrorKind::AlreadyExists.into()),
                false => Ok(None),
            }
        }
        (Ok(_), WriteMode::Create) => Err(io::ErrorKind::AlreadyExists.into()),
        // A link is neither followed nor replaced.
        (Ok(found), WriteMode::Overwrite) if found.kind != FoundKind::File => {
            Err(io::ErrorKind::IsADirectory.into())
        }
        (Ok(found), WriteMode::Overwrite) => {
            edit::check_may_write(directory, name)?;
            Ok(Some(found))
        }
    }
}

// ---- numbers behind a name --------------------------------------------------------------------

fn is_taken(result: &io::Result<()>) -> bool {
    let error = result.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

/// The suffixes that a name has room for: a dot and a number, or one digit where only one byte is
/// left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suffixes {
    has_dot: bool,
    /// The numbers are those from 1 on.
    last: u32,
}

impl Suffixes {
    /// # Errors
    /// The name is too long, or no byte is left for a suffix.
    fn of(directory: &File, name: &OsStr) -> io::Result<Self> {
        let room = edit::longest_name(directory).saturating_sub(name.len());
        let suffixes = Self::within(room).ok_or_else(edit::name_too_long)?;
        // Some file systems count characters and not bytes.
        match fs::look(directory, &suffixes.behind(name, 1)) {
            Err(error) if fs::trouble(&error) == Trouble::TooLong => Err(error),
            _ => Ok(suffixes),
        }
    }

    fn within(room: usize) -> Option<Self> {
        let has_dot = room > 1;
        let digits = u32::try_from(room - usize::from(has_dot)).unwrap_or(u32::MAX);
        let last = 10u32.checked_pow(digits).map_or(u32::MAX, |end| end - 1);
        (room > 0).then_some(Self { has_dot, last })
    }

    fn behind(self, name: &OsStr, number: u32) -> OsString {
        let mut name = name.to_owned();
        name.push(if self.has_dot { "." } else { "" });
        name.push(number.to_string());
        name
    }

    /// True where there are few suffixes and all are taken.
    fn are_taken(self, name: &OsStr, is_taken: impl Fn(&OsStr) -> bool) -> bool {
        let mut names = (1..=self.last).map(|number| self.behind(name, number));
        self.last < MANY_SUFFIXES && names.all(|name| is_taken(&name))
    }

    fn random(self) -> u32 {
        1 + (random() % u64::from(self.last)) as u32
    }
}

/// Fewer suffixes are looked at one by one.
const MANY_SUFFIXES: u32 = 100;

/// Takes a name with a free number behind it, and returns it. `look` says whether a name is taken.
fn take_number(
    wanted: &OsStr,
    suffixes: Suffixes,
    look: impl Fn(&OsStr) -> bool,
    mut take: impl FnMut(&OsStr) -> io::Result<()>,
) -> io::Result<OsString> {
    let name_with = |number| suffixes.behind(wanted, number);
    for attempt in 0..UNIQUE_NAMES_TRIED {
        // Others take numbers at the same moment, the same ones: then chance decides.
        let number = match attempt {
            0..UNIQUE_SEARCHES => free_number(suffixes, |number| look(&name_with(number))),
            _ => suffixes.random(),
        };
        let name = name_with(number);
        let result = take(&name);
        if !is_taken(&result) {
            return result.map(|()| name);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A number that is free, found in about twice as many steps as the lowest one has bits. Where the
/// numbers have gaps it need not be the lowest. Where all numbers may be taken, a random one.
fn free_number(suffixes: Suffixes, mut is_taken: impl FnMut(u32) -> bool) -> u32 {
    if suffixes.last < MANY_SUFFIXES {
        let free = (1..=suffixes.last).find(|number| !is_taken(*number));
        return free.unwrap_or_else(|| suffixes.random());
    }
    let (mut taken, mut free) = (0, 1);
    while is_taken(free) {
        taken = free;
        free = match free.checked_mul(2) {
            Some(more) if more <= suffixes.last => more,
            _ => return suffixes.random(),
        };
    }
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        match is_taken(middle) {
            true => taken = middle,
            false => free = middle,
        }
    }
    free
}

fn random() -> u64 {
    // Each RandomState has keys of its own, from the system's source of randomness.
    RandomState::new().hash_one(())
}

// ---- hidden names ---------------------------------------------------------------------------

const HIDDEN: &[u8] = b".tftpool-";
/// Hexadecimal digits behind that.
const HIDDEN_DIGITS: usize = 16;

/// True for names that files have here only while they are on their way.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    let digits = name.as_bytes().strip_prefix(HIDDEN);
    digits.is_some_and(|digits| {
        digits.len() == HIDDEN_DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

/// Does something with a hidden name that nobody has.
fn with_hidden_name<T>(mut make: impl FnMut(&OsStr) -> io::Result<T>) -> io::Result<(T, OsString)> {
    for _ in 0..HIDDEN_NAMES_TRIED {
        let number = random();
        let mut name = OsStr::from_bytes(HIDDEN).to_owned();
        name.push(format!("{number:0HIDDEN_DIGITS$x}"));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|made| (made, name)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Makes a file with such a name.
fn make_hidden_file(directory: &File, permissions: u32) -> io::Result<(File, OsString)> {
    with_hidden_name(|hidden| edit::make_file(directory, hidden, permissions).and_then(keep))
}

/// Tells other servers that start meanwhile that a file with a hidden name is no leftover. Where
/// the file system has no locks, they remove none.
///
/// # Errors
/// `AlreadyExists` where such a start came before the lock: the file has lost its name, or is about
/// to.
fn keep(file: File) -> io::Result<File> {
    let is_taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    let (_, names) = fs::Identity::of(&file)?;
    match is_taken || names == 0 {
        true => Err(io::ErrorKind::AlreadyExists.into()),
        false => Ok(file),
    }
}

/// How a search for leftovers ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Search {
    /// Files that were removed.
    pub(crate) removed: usize,
    /// Why it has not looked at the whole tree.
    pub(crate) cut: Option<&'static str>,
}

/// Removes what a crash has left beneath a directory; links are not followed, and what others own
/// is left alone. It holds a descriptor for each level of the tree, however wide the tree is.
///
/// # Errors
/// Only of the directory itself. What is deeper and may not be read is left alone.
pub(crate) fn remove_leftovers(directory: &File) -> io::Result<Search> {
    search_for_leftovers(directory, LEFTOVERS_LOOKED_AT)
}

/// Looks at `left` names at most.
fn search_for_leftovers(directory: &File, mut left: usize) -> io::Result<Search> {
    let mut search = Search::default();
    let mut levels = vec![Level::open(directory, OsStr::new("."), 0, &mut left)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        match fs::look(&level.directory, &name).map(|found| found.kind) {
            Ok(FoundKind::Directory) if level.depth == MAX_TREE_DEPTH => {
                search.cut = Some("the tree is too deep");
            }
            Ok(FoundKind::Directory) => {
                match Level::open(&level.directory, &name, level.depth + 1, &mut left) {
                    Ok(inside) => levels.push(inside),
                    Err(error) if fs::trouble(&error) == Trouble::Exhausted => {
                        search.cut = Some("no descriptor or memory is left");
                    }
                    Err(_) => {}
                }
            }
            Ok(FoundKind::File) if is_hidden(&name) => {
                search.removed += usize::from(remove_leftover(&level.directory, &name));
            }
            _ => {}
        }
    }
    if left == 0 {
        search.cut = Some("the tree has too many names");
    }
    Ok(search)
}

/// A directory on the way down, and the names in it that the search has yet to look at.
struct Level {
    directory: File,
    names: Vec<OsString>,
    /// Levels above it.
    depth: usize,
}

impl Level {
    /// Reads the names, and counts them.
    fn open(above: &File, name: &OsStr, depth: usize, left: &mut usize) -> io::Result<Self> {
        let directory = fs::open_directory(above, name)?;
        let names = edit::names_up_to(&directory, *left)?;
        *left -= names.len();
        Ok(Self {
            directory,
            names,
            depth,
        })
    }
}

/// Removes a file that belongs to us and that no server is writing any more. True if it did.
fn remove_leftover(directory: &File, name: &OsStr) -> bool {
    match edit::open_own(directory, name) {
        // The lock is held until the name is gone, so that who makes the file at this moment sees
        // the one or the other.
        Ok(Some(file)) if file.try_lock().is_ok() => edit::remove_file(directory, name).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use crate::sys::calls;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn rules(mode: WriteMode) -> Rules {
        Rules {
            mode,
            permissions: Some(0o640),
            durable: true,
        }
    }

    /// The two ways to be without a name.
    fn begin(scratch: &Scratch, name: &str, mode: WriteMode, hidden: bool) -> io::Result<Landing> {
        let directory = fs::open_directory(&fs::open_root(scratch.path())?, OsStr::new("."))?;
        if !hidden {
            return Landing::begin(directory, name.into(), rules(mode));
        }
        check(&directory, OsStr::new(name), mode)?;
        let (file, hidden) = make_hidden_file(&directory, 0o600)?;
        Ok(Landing {
            file,
            directory,
            name: name.into(),
            at: At::Hidden(hidden),
            rules: rules(mode),
        })
    }

    fn leftovers(root: &File) -> usize {
        let search = remove_leftovers(root).expect("a directory");
        assert_eq!(search.cut, None);
        search.removed
    }

    fn content(scratch: &Scratch, name: &str) -> String {
        std::fs::read_to_string(scratch.at(name)).expect("a file")
    }

    #[test]
    fn a_file_appears_when_it_is_whole_and_not_before() {
        for hidden in [false, true] {
            let scratch = Scratch::new();
            let mut landing =
                begin(&scratch, "file", WriteMode::Create, hidden).expect("a landing");
            landing.write_all(b"first ").expect("room");
            landing.write_all(b"second").expect("room");
            assert!(!scratch.names().contains(&"file".to_owned()));
            assert_eq!(landing.commit().expect("a name"), "file");
            assert_eq!(scratch.names(), ["file"], "hidden: {hidden}");
            assert_eq!(content(&scratch, "file"), "first second");
            let bits = std::fs::metadata(scratch.at("file"));
            assert_eq!(bits.expect("a file").permissions().mode() & 0o777, 0o640);
        }
    }

    #[test]
    fn what_is_dropped_is_gone() {
        for hidden in [false, true] {
            let scratch = Scratch::new();
            let mut landing =
                begin(&scratch, "file", WriteMode::Overwrite, hidden).expect("a landing");
            landing.write_all(b"half").expect("room");
            drop(landing);
            assert!(scratch.names().is_empty(), "hidden: {hidden}");
        }
    }

    #[test]
    fn what_is_there_is_kept_replaced_or_numbered() {
        for hidden in [false, true] {
            let scratch = Scratch::new();
            scratch.file("file", "old");
            let error = begin(&scratch, "file", WriteMode::Create, hidden).err();
            let kind = error.map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::AlreadyExists));

            let put = |name, mode| {
                let mut landing = begin(&scratch, name, mode, hidden).expect("a landing");
                landing.write_all(b"new").expect("room");
                landing.commit()
            };
            assert_eq!(put("file", WriteMode::Unique).expect("a name"), "file.1");
            assert_eq!(put("file", WriteMode::Unique).expect("a name"), "file.2");
            assert_eq!(content(&scratch, "file"), "old");
            assert_eq!(put("file", WriteMode::Overwrite).expect("a name"), "file");
            assert_eq!(content(&scratch, "file"), "new");
            assert_eq!(scratch.names(), ["file", "file.1", "file.2"]);

            // Two at once: the second finds out at the end.
            let late = begin(&scratch, "race", WriteMode::Create, hidden).expect("a landing");
            put("race", WriteMode::Create).expect("a name");
            let kind = late.commit().map_err(|error| error.kind());
            assert_eq!(kind, Err(io::ErrorKind::AlreadyExists));
            assert_eq!(content(&scratch, "race"), "new");
            assert_eq!(scratch.names().len(), 4, "nothing is left behind");
        }
    }

    #[test]
    fn links_and_directories_are_neither_followed_nor_replaced() {
        let scratch = Scratch::new();
        scratch.file("target", "safe");
        scratch.link("link", "target");
        scratch.directory("directory");
        for name in ["link", "directory"] {
            let error = begin(&scratch, name, WriteMode::Overwrite, false).err();
            let kind = error.map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::IsADirectory), "{name}");
        }
        assert_eq!(content(&scratch, "target"), "safe");
    }

    #[test]
    fn leftovers_are_removed_unless_somebody_still_writes_them() {
        let scratch = Scratch::new();
        let left = ".tftpool-0123456789abcdef";
        let inside = "inside/.tftpool-00000000000000ff";
        let others = [".tftpool-x", ".tftpool-0123456789abcdefg", "file"];
        for name in [left, inside].iter().chain(&others) {
            scratch.file(name, "half");
        }
        let outside = Scratch::new();
        outside.file(left, "somebody else's");
        scratch.link("link", outside.path());
        let mut running = begin(&scratch, "new", WriteMode::Create, true).expect("a landing");

        let root = fs::open_root(scratch.path()).expect("a directory");
        assert_eq!(leftovers(&root), 2);
        assert!(outside.at(left).exists());
        for name in others {
            assert!(scratch.at(name).exists(), "{name}");
        }
        running.write_all(b"whole").expect("room");
        running.commit().expect("a name");
        assert_eq!(content(&scratch, "new"), "whole");

        // Somebody else's stay, whatever root might do.
        if std::fs::metadata(scratch.path()).is_ok_and(|it| it.uid() == 0) {
            scratch.file(left, "half");
            let path = scratch.at(left);
            std::os::unix::fs::chown(path, Some(65_534), None).expect("as root");
            assert_eq!(leftovers(&root), 0);
        }
    }

    /// Between its making and its lock a file looks like a leftover.
    #[test]
    fn who_looks_for_leftovers_takes_no_file_that_is_just_begun() {
        let scratch = Scratch::new();
        let root = fs::open_root(scratch.path()).expect("a directory");
        let name = OsStr::new(".tftpool-0123456789abcdef");
        let make = || edit::make_file(&root, name, 0o600).expect("a file");
        let kind = |kept: io::Result<File>| kept.map(drop).map_err(|error| error.kind());

        let kept = keep(make()).expect("a lock");
        assert_eq!(leftovers(&root), 0);
        drop((kept, edit::remove_file(&root, name)));

        let removed = make();
        assert_eq!(leftovers(&root), 1);
        assert_eq!(kind(keep(removed)), Err(io::ErrorKind::AlreadyExists));

        let about_to_be_removed = make();
        let other = edit::open_own(&root, name).expect("a file").expect("ours");
        other.try_lock().expect("a lock");
        let kept = keep(about_to_be_removed);
        assert_eq!(kind(kept), Err(io::ErrorKind::AlreadyExists));
    }

    /// However the two meet, no upload loses its name.
    #[test]
    fn uploads_survive_servers_that_start_beside_them() {
        let scratch = Scratch::new();
        let root = fs::open_root(scratch.path()).expect("a directory");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    remove_leftovers(&root).expect("a directory");
                }
            });
            let kinds: Vec<_> = (0..300)
                .map(|_| {
                    let landing = begin(&scratch, "file", WriteMode::Overwrite, true);
                    landing.and_then(Landing::commit).map(drop)
                })
                .collect();
            is_over.store(true, Ordering::Relaxed);
            for result in kinds {
                result.expect("a name");
            }
        });
    }

    #[test]
    fn durable_files_are_on_the_disk_before_anybody_is_told() {
        for hidden in [false, true] {
            for mode in [WriteMode::Create, WriteMode::Overwrite, WriteMode::Unique] {
                for durable in [false, true] {
                    let scratch = Scratch::new();
                    let mut landing = begin(&scratch, "file", mode, hidden).expect("a landing");
                    landing.rules.durable = durable;
                    landing.write_all(b"content").expect("room");
                    let before = calls::so_far();
                    landing.commit().expect("a name");
                    let made = calls::so_far() - before;
                    let syncs = (made.file_syncs, made.directory_syncs);
                    let wanted = (u64::from(durable), u64::from(durable));
                    assert_eq!(syncs, wanted, "{mode:?}, hidden: {hidden}");
                }
            }
        }
    }

    #[test]
    fn a_new_name_that_is_not_on_the_disk_is_taken_back() {
        for hidden in [false, true] {
            for (mode, left) in [
                (WriteMode::Create, &["other"][..]),
                (WriteMode::Unique, &["other"]),
                (WriteMode::Overwrite, &["file", "other"]),
            ] {
                let scratch = Scratch::new();
                scratch.file("other", "");
                let mut landing = begin(&scratch, "file", mode, hidden).expect("a landing");
                // This descriptor cannot be synced.
                landing.directory = fs::open_root(scratch.path()).expect("a directory");
                landing.write_all(b"content").expect("room");
                landing.commit().expect_err("no sync");
                assert_eq!(scratch.names(), left, "{mode:?}, hidden: {hidden}");
            }
        }
    }

    /// Between the name and the answer another program may put its own file there.
    #[test]
    fn a_name_that_belongs_to_another_file_is_not_taken_back() {
        for hidden in [false, true] {
            let scratch = Scratch::new();
            scratch.file("other", "another program's");
            let landing = begin(&scratch, "file", WriteMode::Create, hidden).expect("a landing");
            landing.take_name(OsStr::new("file")).expect("a name");
            std::fs::rename(scratch.at("other"), scratch.at("file")).expect("a rename");
            landing.take_back();
            assert_eq!(content(&scratch, "file"), "another program's");

            std::fs::remove_file(scratch.at("file")).expect("a file");
            std::fs::create_dir(scratch.at("file")).expect("a directory");
            landing.take_back();
            assert!(scratch.at("file").is_dir());
        }
    }

    #[test]
    fn a_file_that_is_overwritten_keeps_its_owner() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for hidden in [false, true] {
            let scratch = Scratch::new();
            let path = scratch.file("file", "old");
            std::os::unix::fs::chown(&path, Some(1234), Some(2345)).expect("as root");
            let landing = begin(&scratch, "file", WriteMode::Overwrite, hidden);
            landing.and_then(Landing::commit).expect("a name");
            let found = std::fs::metadata(&path).expect("a file");
            assert_eq!((found.uid(), found.gid(), found.size()), (1234, 2345, 0));
            assert_eq!(found.mode() & 0o7777, 0o640);
        }
    }

    #[test]
    fn a_free_number_is_found_in_few_steps() {
        let search = |is_taken: &dyn Fn(u32) -> bool| {
            let mut steps = 0;
            let number = free_number(ALL, |number| {
                steps += 1;
                is_taken(number)
            });
            (number, steps)
        };
        for taken in [0, 1, 2, 3, 7, 8, 9_999, 1_000_000] {
            let (number, steps) = search(&|number| number <= taken);
            assert_eq!(number, taken + 1);
            assert!(steps <= 42, "{steps} for {taken}");
        }
        // A number below that was given back may be left out.
        let is_taken = |number| number < 1000 && number != 50;
        assert_eq!(search(&is_taken).0, 1000);
        // An adversary takes every number that a search looks at.
        let (one, steps) = search(&|_| true);
        let (other, _) = search(&|_| true);
        assert_eq!(steps, 32);
        assert_ne!(one, other, "left to chance");
    }

    /// The suffixes of a short name.
    const ALL: Suffixes = Suffixes {
        has_dot: true,
        last: u32::MAX,
    };

    #[test]
    fn a_suffix_takes_the_bytes_that_a_name_leaves_and_no_more() {
        let suffixes = |room| Suffixes::within(room).map(|it| (it.has_dot, it.last));
        assert_eq!(suffixes(0), None);
        assert_eq!(suffixes(1), Some((false, 9)));
        assert_eq!(suffixes(2), Some((true, 9)));
        assert_eq!(suffixes(3), Some((true, 99)));
        assert_eq!(suffixes(10), Some((true, 999_999_999)));
        assert_eq!(suffixes(11), Some((true, u32::MAX)));
        assert_eq!(suffixes(254), Some((true, u32::MAX)));
        // A full hundred is taken: a number is left to chance, and none is too large.
        let few = Suffixes::within(4).expect("some");
        assert!((0..100).all(|_| (1..=999).contains(&free_number(few, |_| true))));
    }

    #[test]
    fn a_name_that_is_taken_is_never_cut_and_is_refused_where_no_suffix_is_left() {
        for hidden in [false, true] {
            for (length, names) in [
                (255, 0),
                (254, 1 + 9),
                (253, 1 + 9),
                (252, 1 + 99),
                (251, 1 + 102),
            ] {
                let scratch = Scratch::new();
                let name = "n".repeat(length);
                let put = || begin(&scratch, &name, WriteMode::Unique, hidden)?.commit();
                for number in 0..names {
                    let suffix = match (number, length) {
                        (0, _) => String::new(),
                        (_, 254) => format!("{number}"),
                        _ => format!(".{number}"),
                    };
                    assert_eq!(put().expect("a name"), *(name.clone() + &suffix));
                }
                let refused = begin(&scratch, &name, WriteMode::Unique, hidden).err();
                let kind = refused.as_ref().map(io::Error::kind);
                match length {
                    255 => {
                        let trouble = refused.as_ref().map(fs::trouble);
                        assert_eq!(trouble, Some(Trouble::TooLong));
                    }
                    251 => assert_eq!(kind, None, "many suffixes are left"),
                    _ => assert_eq!(kind, Some(io::ErrorKind::AlreadyExists), "{length}"),
                }
                assert_eq!(scratch.names().len(), names);
            }
        }
    }

    /// All powers of two are taken, and then the free number that the search finds, too.
    #[test]
    fn a_name_is_found_whatever_others_take() {
        let scratch = Scratch::new();
        scratch.file("file", "");
        for bit in 0..32 {
            scratch.file(format!("file.{}", 1u32 << bit), "");
        }
        let landing = begin(&scratch, "file", WriteMode::Unique, false).expect("a landing");
        let name = landing.commit().expect("a name");
        let number = name.to_str().and_then(|name| name.strip_prefix("file."));
        assert!(
            number.is_some_and(|it| it.parse::<u32>().is_ok()),
            "{name:?}"
        );
        assert_eq!(scratch.names().len(), 34);
    }

    /// Others always come first.
    #[test]
    fn a_number_that_is_taken_again_and_again_is_left_to_chance() {
        let mut asked = Vec::new();
        let taken = take_number(
            OsStr::new("file"),
            ALL,
            |_| false,
            |name| {
                asked.push(name.to_owned());
                Err(io::ErrorKind::AlreadyExists.into())
            },
        );
        let kind = taken.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::AlreadyExists));
        let (searched, random) = asked.split_at(UNIQUE_SEARCHES as usize);
        assert!(searched.iter().all(|name| name == "file.1"), "{asked:?}");
        assert_eq!(random.len(), 8);
        assert!(random.iter().all(|name| name != "file.1"), "{asked:?}");

        let denied = |_: &OsStr| Err(io::ErrorKind::PermissionDenied.into());
        let result = take_number(OsStr::new("file"), ALL, |_| false, denied);
        let kind = result.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::PermissionDenied));
    }

    /// A file that no rename can replace; the mount points are in `tests/files.rs`.
    fn in_place(scratch: &Scratch) -> Landing {
        let directory = fs::open_root(scratch.path()).expect("a directory");
        let (file, at) = open_in_place(&directory, OsStr::new("file"), "test").expect("a file");
        Landing {
            file,
            directory,
            name: "file".into(),
            at,
            rules: rules(WriteMode::Overwrite),
        }
    }

    #[test]
    fn a_file_that_is_written_in_place_loses_its_content_with_the_first_byte() {
        let scratch = Scratch::new();
        let path = scratch.file("file", "the old content");
        super::super::scratch::mode(&path, 0o604);
        let before = std::fs::metadata(&path).expect("a file");
        drop(in_place(&scratch));
        assert_eq!(content(&scratch, "file"), "the old content");

        let mut first = in_place(&scratch);
        let mut second = in_place(&scratch);
        first.write_all(b"new").expect("room");
        let error = second.write_all(b"newer").expect_err("one at a time");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(second);
        first.write_all(b" one").expect("room");
        assert_eq!(first.commit().expect("a name"), "file");
        assert_eq!(content(&scratch, "file"), "new one");

        in_place(&scratch).commit().expect("a name");
        assert_eq!(content(&scratch, "file"), "");
        let after = std::fs::metadata(&path).expect("a file");
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
        assert_eq!(scratch.names(), ["file"]);
    }

    #[test]
    fn only_a_regular_file_is_written_in_place() {
        let scratch = Scratch::new();
        scratch.file("target", "safe");
        scratch.link("link", "target");
        scratch.directory("directory");
        fs::make_fifo(&scratch.at("fifo")).expect("a FIFO");
        let mut reader = std::fs::File::options();
        let reader = reader.read(true).write(true).open(scratch.at("fifo"));
        let _reader = reader.expect("a FIFO that is read");
        let directory = fs::open_root(scratch.path()).expect("a directory");
        for name in ["link", "directory", "fifo"] {
            let opened = open_in_place(&directory, OsStr::new(name), "test");
            assert!(opened.is_err(), "{name}");
        }
        assert_eq!(content(&scratch, "target"), "safe");
    }

    #[test]
    fn a_wide_tree_is_searched_with_few_descriptors() {
        const SIBLINGS: usize = 200;
        let scratch = Scratch::new();
        for number in 0..SIBLINGS {
            scratch.file(format!("{number}/.tftpool-0123456789abcdef"), "half");
        }
        let root = fs::open_root(scratch.path()).expect("a directory");
        let mut left = LEFTOVERS_LOOKED_AT;
        let top = Level::open(&root, OsStr::new("."), 0, &mut left).expect("a directory");
        assert_eq!(top.names.len(), SIBLINGS);
        assert_eq!(left, LEFTOVERS_LOOKED_AT - SIBLINGS);
        let mut few = 7;
        let some = Level::open(&root, OsStr::new("."), 0, &mut few).expect("a directory");
        assert_eq!((some.names.len(), few), (7, 0));
        assert_eq!(leftovers(&root), SIBLINGS);
    }

    #[test]
    fn a_search_that_was_cut_says_so() {
        let scratch = Scratch::new();
        let deep = "d/".repeat(MAX_TREE_DEPTH);
        scratch.file(format!("{deep}.tftpool-0123456789abcdef"), "half");
        let root = fs::open_root(scratch.path()).expect("a directory");
        assert_eq!(leftovers(&root), 1);
        scratch.file(format!("{deep}d/.tftpool-0123456789abcdef"), "half");
        let search = remove_leftovers(&root).expect("a directory");
        assert_eq!(
            (search.removed, search.cut),
            (0, Some("the tree is too deep"))
        );

        let scratch = Scratch::new();
        for number in 0..6 {
            scratch.file(format!(".tftpool-000000000000000{number}"), "half");
        }
        let root = fs::open_root(scratch.path()).expect("a directory");
        let search = search_for_leftovers(&root, 4).expect("a directory");
        let cut = Some("the tree has too many names");
        assert_eq!((search.removed, search.cut), (4, cut));
        assert_eq!(leftovers(&root), 2);
    }
}
