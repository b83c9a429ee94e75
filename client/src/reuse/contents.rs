//! Contents of the base by their digests: a file that was copied or renamed is read, and stored no second time.

use std::collections::HashMap;

use diptych_decoder::{Archive, Descend, Row, Visitor};
use diptych_encoder::cut::LARGE_MIN;
use diptych_format::{Digest, Kind, Result};
use diptych_repository::StreamSlice;

use super::base::Base;

/// The base is gone through for the contents of new files when there is one for so many of its entries: reading a file takes
/// as long as going through some hundred rows.
const ENTRIES_FOR_EACH: u64 = 1024;

/// Where the base has which small content. Large ones need it not: they are cut into the same chunks again.
pub(crate) struct Contents {
    base: Base,
    new_files: u64,
    most: usize,
    /// Start of the payload; none while the base has not been gone through.
    starts: Option<HashMap<(Digest, u64), u64>>,
}

impl Contents {
    /// Contents of `base`, `most` of them at most.
    pub(crate) fn new(base: Base, most: usize) -> Self {
        Self { base, new_files: 0, most, starts: None }
    }

    /// Where the base has a content, if it has it and all of it can be had. A base that cannot be read has none.
    pub(crate) fn find(&mut self, digest: &Digest, length: u64) -> Vec<StreamSlice> {
        self.new_files = self.new_files.saturating_add(1);
        let is_worth_it =
            self.new_files.saturating_mul(ENTRIES_FOR_EACH) >= self.base.archive.trailer().entries;
        if !is_worth_it || length == 0 || length >= LARGE_MIN {
            return Vec::new();
        }
        let (archive, most) = (&self.base.archive, self.most);
        let starts = self.starts.get_or_insert_with(|| collect(archive, most).unwrap_or_default());
        let Some(start) = starts.get(&(*digest, length)).copied() else { return Vec::new() };
        let slices = self.base.payload.slices(start..start.saturating_add(length)).unwrap_or_default();
        let can_be_had = |slice: &StreamSlice| (self.base.has_chunk)(&slice.slice.chunk).unwrap_or(false);
        if slices.iter().all(can_be_had) { slices } else { Vec::new() }
    }
}

fn collect(archive: &Archive, most: usize) -> Result<HashMap<(Digest, u64), u64>> {
    let mut collector = Collector { starts: HashMap::new(), most };
    archive.walk(&archive.root()?, b"", &mut collector)?;
    Ok(collector.starts)
}

struct Collector {
    starts: HashMap<(Digest, u64), u64>,
    most: usize,
}

impl Visitor for Collector {
    fn enter(&mut self, _: &[u8], _: &Row<'_>) -> Result<Descend> {
        Ok(Descend::Enter)
    }

    fn entry(&mut self, _: &[u8], row: &Row<'_>) -> Result<()> {
        let length = row.payload_length();
        // With holes its payload is not its content.
        let is_small = row.kind() == Kind::File && length == row.size() && length > 0 && length < LARGE_MIN;
        if is_small && row.status().is_complete() && self.starts.len() < self.most {
            self.starts.entry((row.digest(), length)).or_insert(row.payload_start());
        }
        Ok(())
    }
}
