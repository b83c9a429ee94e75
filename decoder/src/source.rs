//! Tables, read where a reference says and never beyond what it says.
//!
//! Spec: archive.md sections 7 and 14.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::digest::CONTEXT_VALUES;
use diptych_format::error::{Error, Result, Stream};
use diptych_format::table::{DirectoryTable, Reference, decode_holes, decode_values};
use diptych_format::{Digest, Entry, Hole, ReadAt, Xattr, limits};

/// The metadata stream, and a count of what was read of it.
pub(crate) struct Source {
    metadata: Arc<dyn ReadAt>,
    length: u64,
    tables: AtomicU64,
    bytes: AtomicU64,
    kept_max: AtomicU64,
}

/// How many bytes of the tables on an open path are kept, if nobody says otherwise: more than any real tree needs.
const KEPT_MAX: u64 = 256 << 20;

impl Source {
    pub(crate) fn new(metadata: Arc<dyn ReadAt>) -> Self {
        let length = metadata.len();
        let (tables, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { metadata, length, tables, bytes, kept_max: AtomicU64::new(KEPT_MAX) }
    }

    /// Length of the stream.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Tables read so far.
    pub(crate) fn tables_read(&self) -> u64 {
        self.tables.load(Ordering::Relaxed)
    }

    /// Bytes of the stream read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many bytes of the tables on an open path are kept.
    pub(crate) fn kept_max(&self) -> u64 {
        self.kept_max.load(Ordering::Relaxed)
    }

    pub(crate) fn keep_at_most(&self, bytes: u64) {
        self.kept_max.store(bytes, Ordering::Relaxed);
    }

    /// Says which ranges will be read soon.
    pub(crate) fn hint(&self, ranges: &[std::ops::Range<u64>]) {
        if !ranges.is_empty() {
            self.metadata.hint(ranges);
        }
    }

    /// Fills `buffer` from `position`: the header and the trailer.
    pub(crate) fn read_end(&self, buffer: &mut [u8], position: u64) -> Result<()> {
        self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.metadata.read_exact_at(buffer, position).map_err(at(position))
    }

    /// Reads a table into `buffer`, which then holds it alone. Nothing is allocated before the length was compared
    /// with the limit and with the stream's. Spec: A-7-1, A-13-1.
    pub(crate) fn read_table(&self, position: u64, length: u64, buffer: &mut Vec<u8>) -> Result<()> {
        if length > limits::TABLE_LENGTH_MAX {
            let error = Error::limit("table length", length, limits::TABLE_LENGTH_MAX);
            return Err(error.at(Stream::Metadata, position));
        }
        if position.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Error::truncated("the stream ends inside a table").at(Stream::Metadata, position));
        }
        self.tables.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(length, Ordering::Relaxed);
        buffer.resize(usize::try_from(length).unwrap_or(0), 0);
        self.metadata.read_exact_at(buffer, position).map_err(at(position))
    }

    /// Reads a hole, value or owner table that a table at `from` refers to; says where it stands.
    pub(crate) fn read_referred(&self, reference: Reference, from: u64) -> Result<(u64, Vec<u8>)> {
        let position = reference.resolve(from)?;
        let mut bytes = Vec::new();
        self.read_table(position, reference.length, &mut bytes)?;
        Ok((position, bytes))
    }

    /// The holes of `row` of a directory table at `from`.
    pub(crate) fn holes(&self, table: &DirectoryTable<'_>, row: usize, from: u64) -> Result<Vec<Hole>> {
        let Some(reference) = table.holes(row) else { return Ok(Vec::new()) };
        let (position, bytes) = self.read_referred(reference, from)?;
        let holes = decode_holes(&bytes, table.size(row)).map_err(moved(position))?;
        let sum = holes.iter().try_fold(0u64, |sum, hole| sum.checked_add(hole.length));
        if sum.and_then(|sum| table.size(row).checked_sub(sum)) != Some(table.payload_length(row)) {
            let error = Error::corrupt("a content's holes do not fit its payload length");
            return Err(error.at(Stream::Metadata, position));
        }
        Ok(holes)
    }

    /// The extended attributes of a value table. Spec: A-7.1-7.
    pub(crate) fn values(&self, reference: Reference, digest: &Digest, from: u64) -> Result<Vec<Xattr>> {
        let (position, bytes) = self.read_referred(reference, from)?;
        let values = decode_values(&bytes).map_err(moved(position))?;
        if Digest::in_context(CONTEXT_VALUES, &bytes) != *digest {
            let error = Error::corrupt("a value table has another digest than its set says");
            return Err(error.at(Stream::Metadata, position));
        }
        Ok(values)
    }

    /// The whole entry of `row` of a directory table at `from`.
    pub(crate) fn entry(&self, table: &DirectoryTable<'_>, row: usize, from: u64) -> Result<Entry> {
        let holes = self.holes(table, row, from)?;
        let external = match table.external(row) {
            Some((reference, digest)) => Some(self.values(reference, &digest, from)?),
            None => None,
        };
        table.entry(row, holes, external).map_err(at(from))
    }
}

/// Gives an error without a place this one in the metadata stream.
pub(crate) fn at(position: u64) -> impl Fn(Error) -> Error {
    move |error| error.at(Stream::Metadata, position)
}

/// Turns a place in a table into one in the metadata stream.
pub(crate) fn moved(position: u64) -> impl Fn(Error) -> Error {
    move |error| error.moved(Stream::Metadata, position)
}
