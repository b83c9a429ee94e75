//! Where a tar stream goes, and where a content waits until it is proved.

use std::io::Write;

use diptych_format::{Error as FormatError, Result as FormatResult};

use crate::content::Sink;

/// The reader is gone, or the disk is full.
pub(super) fn cannot_write(error: std::io::Error) -> FormatError {
    FormatError::io("cannot write the tar stream", error)
}

/// Collects the data of a content; holes take no place in a tar stream.
pub(super) struct Collected<'b> {
    pub(super) bytes: &'b mut Vec<u8>,
}

impl Sink for Collected<'_> {
    fn data(&mut self, _: u64, bytes: &[u8]) -> FormatResult<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// The stream, and how long it has become.
pub(super) struct Counted<'o> {
    pub(super) out: &'o mut dyn Write,
    pub(super) count: u64,
}

impl Counted<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> FormatResult<()> {
        self.count += bytes.len() as u64;
        self.out.write_all(bytes).map_err(cannot_write)
    }

    pub(super) fn zeros(&mut self, count: u64) -> FormatResult<()> {
        self.count += count;
        let copied = std::io::copy(&mut std::io::Read::take(std::io::repeat(0), count), self.out);
        copied.map(drop).map_err(cannot_write)
    }
}

impl Sink for Counted<'_> {
    fn data(&mut self, _: u64, bytes: &[u8]) -> FormatResult<()> {
        self.write(bytes)
    }
}
