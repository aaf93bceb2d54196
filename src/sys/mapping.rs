//! A mapped file that only the kernel reads.
//!
//! Whoever may write to a file may also truncate it while it is mapped, and reading such a page
//! from user space kills the process with SIGBUS. The kernel copes: `sendmsg` returns `EFAULT`. So
//! there is no way from a [`Mapping`] to its octets: a [`MappedSlice`] has a length, and a pointer
//! that never leaves `sys`.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;

/// The first octets of a file, mapped for reading.
pub(crate) struct Mapping {
    raw: MmapRaw,
}

impl Mapping {
    /// Maps the first `length` octets of `file`. The file may be shorter, now or later; sending
    /// what is missing fails.
    pub(crate) fn map(file: &File, length: usize) -> io::Result<Mapping> {
        let raw = MmapOptions::new().len(length).map_raw_read_only(file)?;
        Ok(Mapping { raw })
    }

    /// Octets that were mapped.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// A part of the file to be sent.
    ///
    /// # Panics
    ///
    /// When `range` is not inside the mapping: the kernel would read other memory and send it to a
    /// stranger.
    pub(crate) fn slice(&self, range: Range<usize>) -> MappedSlice<'_> {
        assert!(range.start <= range.end && range.end <= self.len());
        MappedSlice {
            // Only the address is computed, nothing is read; `wrapping_add` needs no promise about
            // the octets there.
            start: self.raw.as_ptr().wrapping_add(range.start),
            length: range.end - range.start,
            mapping: PhantomData,
        }
    }
}

/// A part of a [`Mapping`], which it keeps alive. Its octets can be sent but not read.
#[derive(Clone, Copy)]
pub(crate) struct MappedSlice<'a> {
    /// Stays mapped for `'a`, but may fault when read: for the kernel only.
    pub(super) start: *const u8,
    length: usize,
    mapping: PhantomData<&'a Mapping>,
}

impl MappedSlice<'_> {
    /// Octets that it stands for.
    pub(crate) fn len(self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::udp::tests::file_of;

    /// Seven octets in a mapped file that has no name any more.
    fn seven() -> Mapping {
        let file = file_of(b"0123456");
        Mapping::map(&file, 7).expect("a mapping")
    }

    #[test]
    fn threads_may_share_a_mapping() {
        fn shared<T: Send + Sync>(_: &T) {}
        shared(&seven());
    }

    #[test]
    fn a_slice_knows_its_length() {
        let mapping = seven();
        assert_eq!(mapping.len(), 7);
        assert_eq!(mapping.slice(2..7).len(), 5);
        assert_eq!(mapping.slice(7..7).len(), 0);
    }

    #[test]
    #[should_panic(expected = "range.end <= self.len()")]
    fn a_slice_ends_inside_its_mapping() {
        seven().slice(3..8);
    }

    #[test]
    fn an_empty_file_can_be_mapped() {
        let file = file_of(b"");
        let mapping = Mapping::map(&file, 0).expect("a mapping");
        assert_eq!(mapping.slice(0..0).len(), 0);
    }
}
