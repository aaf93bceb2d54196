//! A file's pages, for the kernel to read: a mapping has a length and no way to look inside, so a file that shrinks under
//! it cannot kill us.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;

/// Pages of a file, mapped for reading.
pub(crate) struct Mapping(MmapRaw);

impl Mapping {
    /// Maps the first `length` octets.
    pub(crate) fn map(file: &File, length: usize) -> io::Result<Self> {
        MmapOptions::new()
            .len(length)
            .map_raw_read_only(file)
            .map(Self)
    }

    /// Octets mapped.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
