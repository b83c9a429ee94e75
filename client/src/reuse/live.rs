//! How much of each chunk is still in use, and what follows from it.
//!
//! A chunk is kept for the files that still need it while enough of it is needed. Otherwise a repository would fill with
//! chunks that are alive for a few bytes each, and prune could not remove them.

use std::collections::HashMap;
use std::ops::Range;

use diptych_format::{Digest, ReadAt, Result};
use diptych_repository::{StreamReader, StreamSlice};

use super::key::Reason;

/// How much of a base's map is looked at at once.
const MAP_WINDOW: u64 = 1 << 30;

/// What is to become of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody has asked yet whether it can be used.
    Unknown,
    /// Not decided yet.
    Open,
    /// It is used on.
    Kept,
    /// Its files are read again.
    Dropped(Reason),
}

struct Chunk {
    /// Its raw length, if it is known.
    length: Option<u32>,
    /// Distinct bytes in use.
    live: u32,
    /// Those bytes, ascending and apart; empty once the whole is in use.
    ranges: Vec<Range<u32>>,
    /// Which base uses it, and up to where: behind that nothing more of it will be seen.
    last: (usize, u64),
    fate: Fate,
}

impl Chunk {
    fn is_whole(&self) -> bool {
        self.length.is_some_and(|length| self.live >= length)
    }

    /// Counts `new`, but not what was counted before.
    fn add(&mut self, new: Range<u32>) {
        if self.is_whole() {
            return;
        }
        let at = self.ranges.partition_point(|range| range.end < new.start);
        let touched = self.ranges.get(at..).unwrap_or_default();
        let count = touched.iter().take_while(|range| range.start <= new.end).count();
        let mut joined = new;
        for range in touched.iter().take(count) {
            joined = joined.start.min(range.start)..joined.end.max(range.end);
        }
        self.ranges.splice(at..at + count, [joined]);
        self.live = self.ranges.iter().map(|range| range.end - range.start).sum();
        if self.is_whole() {
            self.ranges = Vec::new();
        }
    }

    fn has_enough(&self, min_live: u8) -> bool {
        let length = self.length.unwrap_or(self.live);
        u64::from(self.live) * 100 >= u64::from(length) * u64::from(min_live)
    }
}

/// The chunks that the run would use on.
pub(super) struct Live {
    chunks: HashMap<Digest, Chunk>,
    min_live: u8,
    /// Where in each base the scan is.
    cursors: Vec<u64>,
}

impl Live {
    /// Learns from the map of each base where its chunks are used last. Takes memory for each chunk that is used.
    pub(super) fn new<'b>(bases: impl Iterator<Item = &'b StreamReader>, min_live: u8) -> Result<Self> {
        let mut live = Self { chunks: HashMap::new(), min_live, cursors: Vec::new() };
        for (number, payload) in bases.enumerate() {
            live.cursors.push(0);
            let mut start = 0;
            while start < payload.len() {
                let end = payload.len().min(start.saturating_add(MAP_WINDOW));
                payload.slices(start..end)?.iter().for_each(|slice| live.expect(number, slice));
                start = end;
            }
        }
        Ok(live)
    }

    fn expect(&mut self, base: usize, slice: &StreamSlice) {
        let chunk = self.chunks.entry(slice.slice.chunk).or_insert(Chunk {
            length: slice.chunk_length,
            live: 0,
            ranges: Vec::new(),
            last: (base, 0),
            fate: Fate::Unknown,
        });
        chunk.last = (base, slice.position.saturating_add(slice.slice.length.into()));
    }

    /// Whether it was asked before if a chunk can be used.
    pub(super) fn knows(&self, chunk: &Digest) -> bool {
        self.chunks.get(chunk).is_some_and(|chunk| chunk.fate != Fate::Unknown)
    }

    /// A chunk that cannot or should not be used.
    pub(super) fn drop_chunk(&mut self, chunk: Digest, reason: Reason) {
        if let Some(chunk) = self.chunks.get_mut(&chunk) {
            chunk.fate = Fate::Dropped(reason);
        }
    }

    /// The run would use this slice of base number `base`.
    pub(super) fn add(&mut self, base: usize, slice: &StreamSlice) {
        if let Some(cursor) = self.cursors.get_mut(base) {
            *cursor = slice.position.max(*cursor);
        }
        if let Some(chunk) = self.chunks.get_mut(&slice.slice.chunk) {
            if chunk.fate == Fate::Unknown {
                chunk.fate = Fate::Open;
            }
            chunk.add(slice.slice.start..slice.slice.start.saturating_add(slice.slice.length));
        }
    }

    /// What is to become of a chunk; with `is_last` nothing more will be known before it must be decided.
    pub(super) fn fate(&mut self, chunk: &Digest, is_last: bool) -> Fate {
        let Some(chunk) = self.chunks.get_mut(chunk) else { return Fate::Dropped(Reason::Lost) };
        if chunk.fate == Fate::Open {
            let (base, last) = chunk.last;
            let is_seen = self.cursors.get(base).is_some_and(|cursor| *cursor >= last);
            chunk.fate = match chunk.has_enough(self.min_live) {
                true => Fate::Kept,
                false if is_seen || is_last => Fate::Dropped(Reason::Sparse),
                false => Fate::Open,
            };
        }
        chunk.fate
    }

    /// The window is too short to see the whole chunk: it is used on.
    pub(super) fn keep_chunk(&mut self, chunk: &Digest) {
        if let Some(chunk) = self.chunks.get_mut(chunk)
            && chunk.fate == Fate::Open
        {
            chunk.fate = Fate::Kept;
        }
    }

    /// The chunks that are used on though too little of them is.
    pub(super) fn sparse(&self) -> Vec<Digest> {
        let is_sparse = |chunk: &Chunk| chunk.fate == Fate::Kept && !chunk.has_enough(self.min_live);
        let mut sparse: Vec<Digest> =
            self.chunks.iter().filter(|(_, chunk)| is_sparse(chunk)).map(|(id, _)| *id).collect();
        sparse.sort_unstable();
        sparse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_format::map::Slice;

    fn slice(chunk: u8, position: u64, range: Range<u32>) -> StreamSlice {
        let slice = Slice { chunk: Digest([chunk; 32]), start: range.start, length: range.end - range.start };
        StreamSlice { position, slice, chunk_length: Some(100) }
    }

    fn live(expected: &[(u8, u64)]) -> Live {
        let mut live = Live { chunks: HashMap::new(), min_live: 75, cursors: vec![0] };
        expected.iter().for_each(|(chunk, position)| live.expect(0, &slice(*chunk, *position, 0..1)));
        live
    }

    #[test]
    fn bytes_count_once() {
        let mut live = live(&[(1, 0)]);
        for range in [10..20, 40..50, 15..45, 0..5, 10..20, 50..60] {
            live.add(0, &slice(1, 0, range));
        }
        let chunk = &live.chunks[&Digest([1; 32])];
        assert_eq!((chunk.live, &chunk.ranges[..]), (55, &[0..5, 10..60][..]));
    }

    #[test]
    fn a_chunk_is_kept_as_soon_as_enough_is_seen_and_dropped_when_all_is() {
        let mut live = live(&[(1, 0), (2, 150), (1, 500), (2, 600), (3, 700)]);
        let [a, b] = [Digest([1; 32]), Digest([2; 32])];
        live.add(0, &slice(1, 0, 0..74));
        assert_eq!(live.fate(&a, false), Fate::Open);
        live.add(0, &slice(2, 150, 0..74));
        live.add(0, &slice(1, 500, 99..100));
        assert_eq!(live.fate(&a, false), Fate::Kept);
        assert_eq!(live.fate(&b, false), Fate::Open);
        live.add(0, &slice(3, 601, 0..74));
        assert_eq!(live.fate(&b, false), Fate::Dropped(Reason::Sparse));
        assert_eq!(live.fate(&Digest([3; 32]), true), Fate::Dropped(Reason::Sparse));
    }

    #[test]
    fn what_had_to_be_kept_and_is_mostly_dead_is_told() {
        let mut live = live(&[(1, 0), (2, 0), (2, 900), (3, 950)]);
        live.add(0, &slice(1, 0, 0..10));
        live.keep_chunk(&Digest([1; 32]));
        live.add(0, &slice(2, 0, 0..10));
        live.keep_chunk(&Digest([2; 32]));
        live.add(0, &slice(2, 900, 10..90));
        assert_eq!(live.sparse(), [Digest([1; 32])]);
    }
}
