//! Bytes that are received go to a writer in large pieces.

use crate::error::Refusal;
use crate::limits;
use crate::store::Sink;
use crate::wire::ErrorCode;
use std::io::{self, Write};

/// Octets on their way to a writer, in pieces that are worth a system call.
pub(crate) struct Writer<W> {
    writer: W,
    waiting: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(writer: W) -> Self {
        let waiting = Vec::new();
        Self { writer, waiting }
    }

    /// Writes what is left, and gives the writer back.
    pub(crate) fn finish(mut self) -> Result<W, Refusal> {
        self.write_out()?;
        self.writer.flush().map_err(unwritten)?;
        Ok(self.writer)
    }

    fn write_out(&mut self) -> Result<(), Refusal> {
        let written = self.writer.write_all(&self.waiting);
        self.waiting.clear();
        written.map_err(unwritten)
    }
}

impl<W: Write + Send> Sink for Writer<W> {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        if self.waiting.is_empty() {
            // Blocks are most often far smaller; once this is full they fit without growing it.
            self.waiting
                .reserve(limits::WRITE_OCTETS + limits::RECEIVE_OCTETS);
        }
        self.waiting.extend_from_slice(octets);
        match self.waiting.len() < limits::WRITE_OCTETS {
            true => Ok(()),
            false => self.write_out(),
        }
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        self.finish().map(drop)
    }
}

/// The text of the ERROR for the server, and the text for people here.
pub(crate) fn unwritten(cause: io::Error) -> Refusal {
    Refusal::new(ErrorCode::DISK_FULL, "cannot write").caused_by(cause)
}
