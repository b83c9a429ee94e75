//! Finds slices in a stream map: from its root to the segment that covers an offset, reading no other.
//!
//! Spec: archive.md section 10.3.

use std::ops::Range;
use std::sync::Arc;

use diptych_format::map::{Segment, SegmentRef, Slice};
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error, Result};

use crate::cache::Cache;

/// A segment in memory.
pub(crate) struct LoadedSegment {
    level: u64,
    rows: Rows,
    /// The raw length of each slice's chunk, 0 where the segment does not tell it.
    chunk_lengths: Vec<u32>,
    /// Where each row ends, counted from the start of the segment.
    ends: Vec<u64>,
    slice_count: u64,
}

enum Rows {
    Slices(Vec<Slice>),
    Segments(Vec<SegmentRef>),
}

impl LoadedSegment {
    /// Checks a segment and takes it into memory.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let segment = Segment::parse(bytes)?;
        let rows = 0..segment.rows();
        let mut sum = 0;
        let mut add = |length: u64| {
            // Parsing has checked that the sum can be told.
            sum += length;
            sum
        };
        // No chunk is 4 GiB long; one that is said to be is of unknown length.
        let chunk_length =
            |row| segment.chunk_length_of(row).and_then(|l| u32::try_from(l).ok()).unwrap_or(0);
        let chunk_lengths =
            if segment.level() == 0 { rows.clone().map(chunk_length).collect() } else { Vec::new() };
        let (rows, ends) = if segment.level() == 0 {
            let rows: Vec<Slice> = rows.map(|row| segment.slice(row)).collect();
            let ends = rows.iter().map(|slice| add(u64::from(slice.length))).collect();
            (Rows::Slices(rows), ends)
        } else {
            let rows: Vec<SegmentRef> = rows.map(|row| segment.below(row)).collect();
            let ends = rows.iter().map(|below| add(below.length)).collect();
            (Rows::Segments(rows), ends)
        };
        Ok(Self { level: segment.level(), rows, chunk_lengths, ends, slice_count: segment.slice_count() })
    }

    pub(crate) fn weight(&self) -> usize {
        let row = if self.level == 0 { size_of::<Slice>() } else { size_of::<SegmentRef>() };
        size_of::<Self>() + self.ends.len() * (row + size_of::<u64>() + size_of::<u32>())
    }

    fn length(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn start_of(&self, row: usize) -> u64 {
        row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }
}

/// The map of one stream.
pub(crate) struct StreamMap {
    root: Digest,
    length: u64,
    cache: Arc<Cache<LoadedSegment>>,
}

impl StreamMap {
    pub(crate) fn new(root: Digest, length: u64, cache: Arc<Cache<LoadedSegment>>) -> Self {
        Self { root, length, cache }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Calls `each` with every slice of `range`, cut to it, and where it stands in the stream. The range lies in
    /// the stream. `load` reads a segment.
    pub(crate) fn for_each(
        &self,
        range: Range<u64>,
        load: impl Fn(&Digest) -> Result<LoadedSegment>,
        mut each: impl FnMut(u64, Slice, Option<u32>) -> Result<()>,
    ) -> Result<()> {
        if range.is_empty() {
            return self.root(&load).map(drop);
        }
        let mut at = range.start;
        while at < range.end {
            let (leaf, base) = self.leaf_at(at, &load)?;
            let Rows::Slices(slices) = &leaf.rows else { return Err(wrong_sums()) };
            let first = leaf.ends.partition_point(|end| *end <= at - base);
            for (row, slice) in slices.iter().enumerate().skip(first) {
                let start = base + leaf.start_of(row);
                let end = start + u64::from(slice.length);
                if start >= range.end {
                    break;
                }
                let (from, to) = (start.max(range.start), end.min(range.end));
                let chunk_length = leaf.chunk_lengths.get(row).copied().filter(|length| *length > 0);
                each(from, cut(slice, from - start, to - from)?, chunk_length)?;
                at = end;
            }
        }
        Ok(())
    }

    /// The root, which must cover the stream. Spec: A-10.3-6.
    fn root(&self, load: &impl Fn(&Digest) -> Result<LoadedSegment>) -> Result<Arc<LoadedSegment>> {
        let root = self.get(&self.root, load)?;
        if root.length() != self.length {
            let what = format!("a map covers {} bytes of a stream of {}", root.length(), self.length);
            return Err(Error::corrupt(what));
        }
        if root.level > 0 && root.ends.len() < 2 {
            return Err(Error::corrupt(
                "the root of a map has one segment below it, which could be the root",
            ));
        }
        Ok(root)
    }

    /// The leaf that covers `offset`, which lies in the stream, and where it starts.
    fn leaf_at(
        &self,
        offset: u64,
        load: &impl Fn(&Digest) -> Result<LoadedSegment>,
    ) -> Result<(Arc<LoadedSegment>, u64)> {
        let mut segment = self.root(load)?;
        let mut base = 0;
        loop {
            let Rows::Segments(below) = &segment.rows else { return Ok((segment, base)) };
            let row = segment.ends.partition_point(|end| *end <= offset - base);
            let Some(expected) = below.get(row) else { return Err(wrong_sums()) };
            base += segment.start_of(row);
            let found = self.get(&expected.id, load)?;
            let sums = (found.level + 1, found.length(), found.slice_count);
            if sums != (segment.level, expected.length, expected.slices) {
                return Err(wrong_sums());
            }
            segment = found;
        }
    }

    fn get(
        &self,
        id: &Digest,
        load: &impl Fn(&Digest) -> Result<LoadedSegment>,
    ) -> Result<Arc<LoadedSegment>> {
        self.cache.get_or_make((ChunkKind::Segment, *id), || {
            let segment = load(id)?;
            let weight = segment.weight();
            Ok((segment, weight))
        })
    }
}

fn wrong_sums() -> Error {
    Error::corrupt("a segment has other sums or another level than the one above it says")
}

fn cut(slice: &Slice, skip: u64, length: u64) -> Result<Slice> {
    let numbers = u32::try_from(u64::from(slice.start) + skip).ok().zip(u32::try_from(length).ok());
    let (start, length) = numbers.ok_or_else(wrong_sums)?;
    Ok(Slice { chunk: slice.chunk, start, length })
}
