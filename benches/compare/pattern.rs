//! What stands in the files: octets that follow from their offset, so that every block can be
//! checked without the file.
//!
//! The pattern repeats after a prime number of octets. A block that was put in the wrong place,
//! even one off by a whole turn of the block numbers, differs; and the pattern fits the cache, so
//! that checking costs little.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

const PERIOD: usize = 99_991;
const LONGEST_BLOCK: usize = 65_536;

/// The octets of every file, as one slice per block.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut octets: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        octets.extend_from_within(..LONGEST_BLOCK);
        Self(octets)
    }

    /// True where `octets` are those at `offset`.
    pub(crate) fn matches(&self, offset: u64, octets: &[u8]) -> bool {
        let start = (offset % PERIOD as u64) as usize;
        self.0.get(start..start + octets.len()) == Some(octets)
    }

    /// True where the file has `size` octets, each the right one.
    pub(crate) fn check(&self, path: &Path, size: u64) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; LONGEST_BLOCK];
        let mut offset = 0;
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(offset == size);
            }
            if !self.matches(offset, &buffer[..length]) {
                return Ok(false);
            }
            offset += length as u64;
        }
    }

    /// Writes a file of `size` octets, unless it is there from an earlier run.
    pub(crate) fn write(&self, path: &Path, size: u64) -> io::Result<()> {
        if fs::metadata(path).is_ok_and(|found| found.len() == size) {
            return Ok(());
        }
        let mut file = BufWriter::new(File::create(path)?);
        let mut left = size;
        while left > 0 {
            let chunk = left.min(PERIOD as u64) as usize;
            file.write_all(&self.0[..chunk])?;
            left -= chunk as u64;
        }
        file.flush()
    }
}
