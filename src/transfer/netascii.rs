//! netascii (RFC 1350 §1, RFC 764): LF becomes CR LF, CR becomes CR NUL, everything else stays.
//!
//! The translation is of the stream, so a pair may be cut by the end of a block or of a read.

use std::io::{self, Read};

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const NUL: u8 = 0;

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
    const BUFFER: usize = 8 << 10;

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
                self.buffer.resize(Self::BUFFER, 0);
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

#[cfg(test)]
mod tests {
    use super::*;

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
