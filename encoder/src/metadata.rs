//! The metadata stream as it grows: bytes behind a position, cut into chunks at table ends.
//!
//! Spec: archive.md section 10.2.

use diptych_format::table::Below;

use crate::cut::Cuts;

/// A chunk ends after the next table once it is so long.
const CHUNK_FULL: usize = 1 << 20;

/// A finished chunk of the metadata stream.
pub type MetadataChunk = Vec<u8>;

/// Collects tables into chunks.
#[derive(Clone, Debug)]
pub(crate) struct MetadataStream {
    cuts: Cuts,
    /// The open chunk.
    open: Vec<u8>,
    /// Bytes of the stream before the open chunk.
    before: u64,
    ready: Vec<MetadataChunk>,
}

impl MetadataStream {
    /// An empty stream.
    pub(crate) fn new(cuts: Cuts) -> Self {
        Self { cuts, open: Vec::new(), before: 0, ready: Vec::new() }
    }

    /// Where the next byte will stand.
    pub(crate) fn position(&self) -> u64 {
        self.before + self.open.len() as u64
    }

    /// The open chunk, to append to.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.open
    }

    /// A table was appended: the chunk may end here.
    pub(crate) fn table_ends(&mut self, below: &Below) {
        if self.open.len() >= CHUNK_FULL || self.cuts.ends_metadata_chunk(&below.digest, below.length) {
            self.end_chunk();
        }
    }

    /// Ends the open chunk, if there is anything in it.
    pub(crate) fn end_chunk(&mut self) {
        if !self.open.is_empty() {
            self.before += self.open.len() as u64;
            self.ready.push(std::mem::take(&mut self.open));
        }
    }

    /// The chunks that have been finished since the last call.
    pub(crate) fn take_chunks(&mut self) -> Vec<MetadataChunk> {
        std::mem::take(&mut self.ready)
    }
}
