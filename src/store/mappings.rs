//! Open files, shared: a thousand boards that fetch one kernel share one mapping of it.
//!
//! Invariant: a mapping is found only by the identity of a file that was just opened, so it is
//! never stale. The lock is held for a look at a short list; opening, mapping, unmapping and
//! `fstat`, which a dead file server can block, happen without it. What a transfer holds stays
//! valid, whatever is forgotten here.

use crate::limits::MAP_FROM_OCTETS;
use crate::store::Object;
use crate::sys::fs::Identity;
use crate::sys::mapping::Mapping;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An open file with the identity it had at open, and its mapping where one is possible.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) identity: Identity,
    pub(crate) mapping: Option<Mapping>,
    /// Some transfer has had it.
    used: AtomicBool,
}

impl OpenFile {
    fn new(file: File, identity: Identity) -> Self {
        // Where mmap fails (`ENODEV` on some file systems, too large for a 32-bit machine), the
        // file is read instead.
        let mapping = (identity.size >= MAP_FROM_OCTETS)
            .then(|| Mapping::map(&file, usize::try_from(identity.size).ok()?).ok())
            .flatten();
        Self {
            file,
            identity,
            mapping,
            used: AtomicBool::new(false),
        }
    }

    /// For the counters: whether the mapping was there before this transfer came; `None` where
    /// there is none. Asked once by each transfer.
    pub(crate) fn is_shared(&self) -> Option<bool> {
        let is_mapped = self.mapping.is_some();
        is_mapped.then(|| self.used.swap(true, Ordering::Relaxed))
    }
}

impl Object for OpenFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn len(&self) -> u64 {
        self.identity.size
    }

    /// A file that has only grown counts as unchanged: its bytes up to the length at open are
    /// served.
    fn unchanged(&self) -> io::Result<bool> {
        let (now, _) = Identity::of(&self.file)?;
        Ok(now == self.identity || now.size > self.identity.size)
    }
}

/// The mapped files, shared by all workers.
pub(crate) struct Mappings {
    capacity: usize,
    idle: Duration,
    /// Least recently opened first. Short enough to be searched from end to end.
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    file: Arc<OpenFile>,
    /// When it was last opened, or seen in use.
    used: Instant,
}

impl Entry {
    /// New owners come only from here, under the lock; so this cannot turn false while the lock is
    /// held.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.file) == 1
    }
}

impl Mappings {
    /// Keeps up to `capacity` mappings, unused ones for about as long as `idle`.
    pub(crate) fn new(capacity: usize, idle: Duration) -> Self {
        Self {
            capacity,
            idle,
            entries: Mutex::new(Vec::with_capacity(capacity)),
        }
    }

    /// The shared one if a file of this identity is mapped already (the descriptor passed in is
    /// closed then), else maps it. Small files and those that cannot be mapped are not shared. The
    /// lock is taken once for a hit, twice for a miss.
    pub(crate) fn open(
        &self,
        file: File,
        identity: Option<Identity>,
        now: Instant,
    ) -> io::Result<Arc<OpenFile>> {
        let identity = match identity {
            Some(identity) => identity,
            None => Identity::of(&file)?.0,
        };
        if identity.size < MAP_FROM_OCTETS {
            return Ok(Arc::new(OpenFile::new(file, identity)));
        }
        if let Some(shared) = take_shared(&mut self.lock(), identity, now) {
            return Ok(shared);
        }
        let fresh = Arc::new(OpenFile::new(file, identity));
        if fresh.mapping.is_none() || self.capacity == 0 {
            return Ok(fresh);
        }
        Ok(self.keep(fresh, now))
    }

    /// Shares a file from now on, unless another worker came first: then the other's is returned.
    fn keep(&self, fresh: Arc<OpenFile>, now: Instant) -> Arc<OpenFile> {
        let mut entries = self.lock();
        if let Some(shared) = take_shared(&mut entries, fresh.identity, now) {
            drop(entries); // before `fresh` is unmapped
            return shared;
        }
        let evicted = (entries.len() >= self.capacity).then(|| {
            let unused = entries.iter().position(Entry::is_unused);
            entries.remove(unused.unwrap_or(0))
        });
        entries.push(Entry {
            file: Arc::clone(&fresh),
            used: now,
        });
        drop(entries); // before `evicted` is unmapped
        drop(evicted);
        fresh
    }

    /// Whether there is anything to sweep.
    pub(crate) fn has_entries(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Forgets what was unused for longer than the idle time, and files that were deleted or
    /// rewritten: nobody can ask for those again, and they must not pin the disk. Asks the file
    /// system, so it may block.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut entries = self.lock();
        let idle = entries
            .extract_if(.., |entry| {
                if !entry.is_unused() {
                    entry.used = now;
                }
                now.saturating_duration_since(entry.used) > self.idle
            })
            .collect::<Vec<_>>();
        let rest = entries.iter().map(|entry| Arc::clone(&entry.file));
        let mut gone = rest.collect::<Vec<_>>();
        drop(entries);
        drop(idle);

        gone.retain(|open| {
            !matches!(Identity::of(&open.file), Ok((now, links)) if now == open.identity && links > 0)
        });
        if gone.is_empty() {
            return;
        }
        let mut entries = self.lock();
        entries.retain(|entry| !gone.iter().any(|open| Arc::ptr_eq(open, &entry.file)));
        drop(entries);
        drop(gone); // the last owners, where no transfer has one
    }

    /// Forgets everything; transfers keep what they have.
    pub(crate) fn clear(&self) {
        let forgotten = std::mem::take(&mut *self.lock());
        drop(forgotten); // unmapped without the lock
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds an entry and makes it the most recently used one.
fn take_shared(entries: &mut [Entry], identity: Identity, now: Instant) -> Option<Arc<OpenFile>> {
    let at = entries
        .iter()
        .position(|entry| entry.file.identity == identity)?;
    entries[at].used = now;
    entries[at..].rotate_left(1);
    entries.last().map(|entry| Arc::clone(&entry.file))
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::path::Path;

    const LARGE: usize = 1 << 17;
    const IDLE: Duration = Duration::from_secs(30);

    #[allow(clippy::disallowed_methods)] // where the tests' time starts
    fn start() -> Instant {
        Instant::now()
    }

    fn open(mappings: &Mappings, path: &Path, now: Instant) -> Arc<OpenFile> {
        let file = File::open(path).expect("a file");
        mappings.open(file, None, now).expect("an open file")
    }

    fn cached(mappings: &Mappings) -> usize {
        mappings.lock().len()
    }

    #[test]
    fn two_opens_of_one_file_share_its_mapping() {
        let scratch = Scratch::new();
        let path = scratch.file("kernel", &vec![7; LARGE]);
        let mappings = Mappings::new(4, IDLE);
        let one = open(&mappings, &path, start());
        let file = File::open(&path).expect("a file");
        let two = mappings
            .open(file, Some(one.identity), start())
            .expect("an open file");
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(one.mapping.as_ref().map(Mapping::len), Some(LARGE));
    }

    #[test]
    fn small_files_and_other_names_of_one_file() {
        let scratch = Scratch::new();
        let limit = usize::try_from(MAP_FROM_OCTETS).expect("a size");
        let small = scratch.file("small", &vec![0; limit - 1]);
        let large = scratch.file("large", &vec![0; limit]);
        std::fs::hard_link(&large, scratch.at("other")).expect("a hard link");
        let mappings = Mappings::new(4, IDLE);
        let one = open(&mappings, &small, start());
        assert!(one.mapping.is_none());
        assert!(!Arc::ptr_eq(&one, &open(&mappings, &small, start())));
        assert_eq!(cached(&mappings), 0);
        let one = open(&mappings, &large, start());
        let two = open(&mappings, &scratch.at("other"), start());
        assert!(Arc::ptr_eq(&one, &two));
    }

    #[test]
    fn what_cannot_be_mapped_is_read() {
        let scratch = Scratch::new();
        let path = scratch.file("file", "content");
        let file = File::options().write(true).open(&path).expect("a file");
        let (identity, _) = Identity::of(&file).expect("an identity");
        let mappings = Mappings::new(4, IDLE);
        // A descriptor without the right to read cannot be mapped.
        let large = Identity {
            size: LARGE as u64,
            ..identity
        };
        let unmapped = mappings.open(file, Some(large), start());
        assert!(unmapped.expect("an open file").mapping.is_none());
        assert_eq!(cached(&mappings), 0);
    }

    #[test]
    fn an_edited_file_is_fresh() {
        let scratch = Scratch::new();
        let path = scratch.file("kernel", &vec![7; LARGE]);
        let mappings = Mappings::new(4, IDLE);
        let now = start();
        let old = open(&mappings, &path, now);
        let writer = File::options().write(true).open(&path).expect("a file");
        let later = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        writer.set_modified(later).expect("a new time");
        let new = open(&mappings, &path, now);
        assert!(!Arc::ptr_eq(&old, &new));
        assert_eq!(cached(&mappings), 2);
        drop(old);
        mappings.sweep(now);
        assert_eq!(cached(&mappings), 1);
        assert!(Arc::ptr_eq(&new, &open(&mappings, &path, now)));
    }

    #[test]
    fn a_change_is_seen_and_growth_is_none() {
        let scratch = Scratch::new();
        let path = scratch.file("kernel", &vec![7; LARGE]);
        let mappings = Mappings::new(4, IDLE);
        let writer = File::options().write(true).open(&path).expect("a file");
        let unchanged = |open: &OpenFile| open.unchanged().expect("fstat");
        let before = open(&mappings, &path, start());
        assert!(unchanged(&before));
        writer.set_len(LARGE as u64 + 1).expect("a longer file");
        assert!(unchanged(&before));
        let longer = open(&mappings, &path, start());
        writer.set_len(LARGE as u64 - 1).expect("a shorter file");
        assert!(!unchanged(&before));
        assert!(!unchanged(&longer));

        let path = scratch.file("rewritten", &vec![7; LARGE]);
        let before = open(&mappings, &path, start());
        let writer = File::options().write(true).open(&path).expect("a file");
        let later = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        writer.set_modified(later).expect("a new time");
        assert!(!unchanged(&before));

        let path = scratch.file("replaced", &vec![7; LARGE]);
        let before = open(&mappings, &path, start());
        let new = scratch.file("new", &vec![8; LARGE]);
        std::fs::rename(new, &path).expect("a rename");
        assert!(unchanged(&before));
        let mut octets = [0; 3];
        assert_eq!(before.read_at(&mut octets, 9).expect("old octets"), 3);
        assert_eq!(octets, [7; 3]);
        let read = before.read_at(&mut octets, LARGE as u64 - 1);
        assert_eq!(read.expect("one octet"), 1);
    }

    #[test]
    fn the_least_recently_used_makes_room_but_not_while_it_is_used() {
        let scratch = Scratch::new();
        let paths: Vec<_> = (0..4)
            .map(|n| scratch.file(n.to_string(), &vec![n; LARGE]))
            .collect();
        let mappings = Mappings::new(3, IDLE);
        let now = start();
        let inode = |n: usize| {
            let file = File::open(&paths[n]).expect("a file");
            Identity::of(&file).expect("an identity").0.inode
        };
        let kept = || {
            let entries = mappings.lock();
            let inodes = entries.iter().map(|entry| entry.file.identity.inode);
            inodes.collect::<Vec<_>>()
        };
        let zero = open(&mappings, &paths[0], now);
        open(&mappings, &paths[1], now);
        open(&mappings, &paths[2], now);
        open(&mappings, &paths[1], now);
        assert_eq!(kept(), [0, 2, 1].map(inode));
        // 0 is older than 2, but in use.
        let three = open(&mappings, &paths[3], now);
        assert_eq!(kept(), [0, 1, 3].map(inode));
        let one = open(&mappings, &paths[1], now);
        assert_eq!(kept(), [0, 3, 1].map(inode));
        // All are in use: the oldest is forgotten, and its transfer goes on.
        let _two = open(&mappings, &paths[2], now);
        assert_eq!(kept(), [3, 1, 2].map(inode));
        assert!(zero.mapping.is_some());
        drop((one, three));

        let none = Mappings::new(0, IDLE);
        assert!(open(&none, &paths[0], now).mapping.is_some());
        assert_eq!(cached(&none), 0);
    }

    #[test]
    fn an_unused_mapping_goes_after_a_while() {
        let scratch = Scratch::new();
        let path = scratch.file("kernel", &vec![7; LARGE]);
        let mappings = Mappings::new(4, IDLE);
        let now = start();
        let used = open(&mappings, &path, now);
        mappings.sweep(now + 2 * IDLE);
        assert_eq!(cached(&mappings), 1);
        drop(used);
        // Idle since it was last seen in use.
        mappings.sweep(now + 3 * IDLE);
        assert_eq!(cached(&mappings), 1);
        mappings.sweep(now + 3 * IDLE + Duration::from_nanos(1));
        assert_eq!(cached(&mappings), 0);
    }

    #[test]
    fn a_deleted_file_is_forgotten_and_freed_with_its_last_transfer() {
        let scratch = Scratch::new();
        let path = scratch.file("kernel", &vec![7; LARGE]);
        let mappings = Mappings::new(4, IDLE);
        let now = start();
        let used = Arc::downgrade(&open(&mappings, &path, now));
        let transfer = used.upgrade();
        std::fs::remove_file(path).expect("a file");
        mappings.sweep(now);
        assert_eq!(cached(&mappings), 0);
        assert!(used.upgrade().is_some());
        drop(transfer);
        assert!(used.upgrade().is_none());
    }

    #[test]
    fn clear_forgets_everything_and_takes_nothing_away() {
        let scratch = Scratch::new();
        let path = scratch.file("kernel", &vec![7; LARGE]);
        let mappings = Mappings::new(4, IDLE);
        let now = start();
        let used = open(&mappings, &path, now);
        mappings.clear();
        assert_eq!(cached(&mappings), 0);
        assert!(used.mapping.is_some());
        assert!(!Arc::ptr_eq(&used, &open(&mappings, &path, now)));
    }

    #[test]
    fn two_workers_that_map_at_once_end_up_with_one_mapping() {
        let scratch = Scratch::new();
        let path = scratch.file("kernel", &vec![7; LARGE]);
        let mappings = Mappings::new(4, IDLE);
        let mapped = || {
            let file = File::open(&path).expect("a file");
            let (identity, _) = Identity::of(&file).expect("an identity");
            Arc::new(OpenFile::new(file, identity))
        };
        let (first, second) = (mapped(), mapped());
        let one = mappings.keep(first, start());
        let two = mappings.keep(second, start());
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(cached(&mappings), 1);
    }
}
