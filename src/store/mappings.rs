//! Open files, shared: a thousand boards that fetch one kernel share one mapping of it.
//!
//! Invariant: a mapping is found only by the identity of a file that was just opened, so it is never stale. The lock is
//! held for a look at a short list; opening, mapping, unmapping and `fstat`, which a dead file server can block, happen
//! without it. What a transfer holds stays valid, whatever is forgotten here.

use crate::limits::MAP_FROM_OCTETS;
use crate::sys::fs::Identity;
use crate::sys::mapping::Mapping;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An open file with the identity it had at open, and its mapping where one is possible.
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) identity: Identity,
    pub(crate) mapping: Option<Mapping>,
}

impl OpenFile {
    fn new(file: File, identity: Identity) -> Self {
        // Where mmap fails (`ENODEV` on some file systems, too large for a 32-bit machine), the file is read instead.
        let mapping = (identity.size >= MAP_FROM_OCTETS)
            .then(|| Mapping::map(&file, usize::try_from(identity.size).ok()?).ok())
            .flatten();
        Self {
            file,
            identity,
            mapping,
        }
    }

    /// Whether the octets from the first to the length at open are still those that were opened. A file that has only
    /// grown counts as unchanged.
    pub(crate) fn unchanged(&self) -> io::Result<bool> {
        let (now, _) = Identity::of(&self.file)?;
        Ok(now == self.identity || now.size > self.identity.size)
    }

    /// Reads some octets; 0 at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Fills the buffer; a file that ends before is an `UnexpectedEof`.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// The mapped files, shared by all workers.
pub(crate) struct Mappings {
    capacity: usize,
    idle: Duration,
    /// Least recently opened first. Short enough to be searched from end to end.
    entries: Mutex<Vec<Entry>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Entry {
    file: Arc<OpenFile>,
    /// When it was last opened, or seen in use.
    used: Instant,
}

impl Entry {
    /// New owners come only from here, under the lock; so this cannot turn false while the lock is held.
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
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The shared one if a file of this identity is mapped already (the descriptor passed in is closed then), else maps
    /// it. Small files and those that cannot be mapped are not shared. The lock is taken once for a hit, twice for a
    /// miss.
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
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(shared);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let fresh = Arc::new(OpenFile::new(file, identity));
        if fresh.mapping.is_none() || self.capacity == 0 {
            return Ok(fresh);
        }
        let mut entries = self.lock();
        // Another worker may have mapped it meanwhile.
        if let Some(shared) = take_shared(&mut entries, identity, now) {
            drop(entries); // before `fresh` is unmapped
            return Ok(shared);
        }
        let evicted = (entries.len() >= self.capacity).then(|| {
            let unused = entries.iter().position(Entry::is_unused);
            entries.remove(unused.unwrap_or(0))
        });
        entries.push(Entry {
            file: Arc::clone(&fresh),
            used: now,
        });
        drop(entries);
        drop(evicted);
        Ok(fresh)
    }

    /// Whether there is anything to sweep.
    pub(crate) fn has_entries(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Forgets what was unused for longer than the idle time, and files that were deleted or rewritten: nobody can ask
    /// for those again, and they must not pin the disk. Asks the file system, so it may block.
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

    /// How many opens found a mapping, and how many made one.
    pub(crate) fn counters(&self) -> (u64, u64) {
        (
            self.hits.load(Ordering::Relaxed),
            self.misses.load(Ordering::Relaxed),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds an entry and makes it the most recently used one.
fn take_shared(
    entries: &mut Vec<Entry>,
    identity: Identity,
    now: Instant,
) -> Option<Arc<OpenFile>> {
    let at = entries
        .iter()
        .position(|entry| entry.file.identity == identity)?;
    entries[at].used = now;
    entries[at..].rotate_left(1);
    entries.last().map(|entry| Arc::clone(&entry.file))
}
