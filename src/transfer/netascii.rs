//! netascii (RFC 1350 §1, RFC 764): on the wire LF is CR LF and CR is CR NUL; everything else
//! stays.
//!
//! The translation is of the stream, so a pair may be cut by the end of a block or of a read.

use std::io::{self, Read};
use std::ops::Range;

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const NUL: u8 = 0;

/// Bytes that are read at once, at the least.
const LEAST_READ: usize = 512;
/// And at most.
const MOST_READ: usize = 8 << 10;

/// Bytes that a [`Netascii`] holds at most where blocks of this size are read from it: a request
/// that may be forged makes it read one block, and the buffer is no larger than that block.
pub(super) fn held(blksize: usize) -> usize {
    blksize.clamp(LEAST_READ, MOST_READ)
}

/// Translates what it reads for the wire.
pub(super) struct Netascii<R> {
    reader: R,
    /// Octets read but not translated yet.
    buffer: Vec<u8>,
    taken: usize,
    /// The second octet of a pair whose first has been delivered.
    second: Option<u8>,
}

impl<R: Read> Netascii<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            taken: 0,
            second: None,
        }
    }
}

impl<R: Read> Read for Netascii<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < out.len() {
            if let Some(second) = self.second.take() {
                out[written] = second;
                written += 1;
                continue;
            }
            if self.taken == self.buffer.len() {
                if written > 0 {
                    break;
                }
                self.buffer.clear();
                self.buffer.reserve_exact(held(out.len()));
                self.buffer.resize(held(out.len()), 0);
                self.taken = 0;
                let length = self.reader.read(&mut self.buffer);
                self.buffer.truncate(*length.as_ref().unwrap_or(&0));
                if length? == 0 {
                    break;
                }
            }
            let octet = self.buffer[self.taken];
            self.taken += 1;
            (out[written], self.second) = match octet {
                LF => (CR, Some(LF)),
                CR => (CR, Some(NUL)),
                other => (other, None),
            };
            written += 1;
        }
        Ok(written)
    }
}

/// Translates back what came from the wire. A CR before anything else stays what it is.
#[derive(Default)]
pub(super) struct Decoder {
    /// The last octet was a CR; what it means depends on the next one.
    after_cr: bool,
}

impl Decoder {
    /// Translates the octets in `range` and puts them down from `to` on, which lies before them: a
    /// CR that was held back needs a place. Returns one past the last octet put down.
    pub(super) fn decode(&mut self, buffer: &mut [u8], range: Range<usize>, to: usize) -> usize {
        debug_assert!(to < range.start);
        let mut end = to;
        for index in range {
            let octet = buffer[index];
            let after_cr = std::mem::replace(&mut self.after_cr, octet == CR);
            if after_cr && octet != LF {
                buffer[end] = CR;
                end += 1;
            }
            if octet != CR && !(after_cr && octet == NUL) {
                buffer[end] = octet;
                end += 1;
            }
        }
        end
    }

    /// What the end of the stream brings: a CR that nothing follows.
    pub(super) fn finish(&mut self) -> Option<u8> {
        std::mem::take(&mut self.after_cr).then_some(CR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Translated back in blocks of this size, each behind a header as on the wire.
    fn decoded(wire: &[u8], size: usize) -> Vec<u8> {
        let mut decoder = Decoder::default();
        let mut text = Vec::new();
        for block in wire.chunks(size) {
            let mut buffer = [&[0xee; 4], block].concat();
            let range = 4..buffer.len();
            let end = decoder.decode(&mut buffer, range, 0);
            text.extend_from_slice(&buffer[..end]);
        }
        text.extend(decoder.finish());
        text
    }

    #[test]
    fn what_was_translated_comes_back_whatever_the_blocks() {
        for text in [
            &b""[..],
            b"a\nb\n",
            b"a\rb",
            b"\r\n\r\r\n\n",
            b"\r\0\0\r",
            b"\0\xff\t",
        ] {
            let wire = translated(text);
            for size in 1..6 {
                assert_eq!(decoded(&wire, size), text, "blocks of {size}");
            }
        }
    }

    #[test]
    fn a_carriage_return_without_a_partner_stays() {
        for size in 1..6 {
            assert_eq!(decoded(b"a\rb\r\r\nc\r", size), b"a\rb\r\nc\r");
        }
    }

    /// What is counted is what is held, whatever was read before.
    #[test]
    fn the_buffer_is_as_large_as_a_block() {
        for blksize in [8, 512, 1428, 8192, 65464] {
            let mut reader = Netascii::new(io::repeat(LF));
            let mut block = vec![0; blksize];
            for _ in 0..20 {
                reader.read_exact(&mut block).expect("it never ends");
                assert!(reader.buffer.capacity() <= held(blksize), "{blksize}");
            }
        }
        assert_eq!([0, 512, 1428, 65464].map(held), [512, 512, 1428, 8192]);
    }

    /// Translated with reads of every small size on both sides.
    fn translated(text: &[u8]) -> Vec<u8> {
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let most = out.len().min(3);
                self.0.read(&mut out[..most])
            }
        }
        let mut whole = Vec::new();
        Netascii::new(text)
            .read_to_end(&mut whole)
            .expect("a slice can be read");
        for size in 1..5 {
            let mut reader = Netascii::new(Dribble(text));
            let mut parts = Vec::new();
            let mut part = vec![0; size];
            loop {
                let length = reader.read(&mut part).expect("a slice can be read");
                if length == 0 {
                    break;
                }
                parts.extend_from_slice(&part[..length]);
            }
            assert_eq!(parts, whole, "reads of {size}");
        }
        whole
    }

    #[test]
    fn line_ends_and_carriage_returns() {
        assert_eq!(translated(b""), b"");
        assert_eq!(translated(b"a\nb"), b"a\r\nb");
        assert_eq!(translated(b"a\rb"), b"a\r\0b");
        assert_eq!(translated(b"a\r\nb"), b"a\r\0\r\nb");
        assert_eq!(translated(b"\n\n\r\r"), b"\r\n\r\n\r\0\r\0");
        assert_eq!(translated(b"\0\xff\t"), b"\0\xff\t");
    }
}
