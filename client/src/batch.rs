//! Small contents are dealt with by the chunk: all that lie in one go to one thread together, so that it is decoded once.
//!
//! A chunk of small contents is met in one run, with detours: a content that is there twice lies in another chunk. So a
//! few batches are open at a time, and the run's own is not broken off by a detour.

use std::ops::Range;
use std::sync::Arc;

use diptych_format::map::Slice;
use diptych_format::{Digest, Result};
use diptych_repository::{StreamReader, StreamSlice};

/// Most contents of a batch.
const ITEMS_MAX: usize = 1024;
/// Most bytes of contents of a batch: as much as the largest chunk has.
const BYTES_MAX: u64 = 4 << 20;
/// Most batches that are open.
const OPEN_MAX: usize = 16;
/// How much of the stream map is looked up at once.
const WINDOW: u64 = 32 << 20;

/// Contents of one chunk, and entries without any content.
pub struct Batch<T> {
    /// The chunk; none if nothing in the batch has a content.
    pub chunk: Option<Digest>,
    /// Each with its slice of the chunk.
    pub items: Vec<(T, Option<Slice>)>,
    /// Bytes of all slices.
    pub bytes: u64,
}

/// Where the payload of a content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// It has none.
    Nowhere,
    /// In one chunk.
    In(Slice),
    /// In several.
    Across,
}

/// Forms batches.
pub struct Batcher<T> {
    payload: Arc<StreamReader>,
    window: Vec<StreamSlice>,
    window_end: u64,
    next: usize,
    /// The least recently used first.
    open: Vec<Batch<T>>,
}

impl<T> Batcher<T> {
    /// For contents in `payload`.
    pub fn new(payload: Arc<StreamReader>) -> Self {
        Self { payload, window: Vec::new(), window_end: 0, next: 0, open: Vec::new() }
    }

    /// Where a range of the payload stream lies. Fast for ranges that ascend.
    pub fn locate(&mut self, range: Range<u64>) -> Result<Lies> {
        if range.is_empty() {
            return Ok(Lies::Nowhere);
        }
        let starts_before = self.window.get(self.next).is_some_and(|slice| slice.position <= range.start);
        if !starts_before || range.end > self.window_end {
            let length = diptych_format::ReadAt::len(&*self.payload);
            let end = range.start.saturating_add(WINDOW).min(length).max(range.end);
            self.window.clear();
            self.next = 0;
            self.window = self.payload.slices(range.start..end)?;
            self.window_end = end;
        }
        while let Some(slice) = self.window.get(self.next) {
            let slice_end = slice.position.saturating_add(slice.slice.length.into());
            if slice_end <= range.start {
                self.next += 1;
                continue;
            }
            if range.end > slice_end {
                return Ok(Lies::Across);
            }
            // Both lie inside the slice, whose start and length are of 32 bits.
            let inside = u32::try_from(range.start - slice.position).unwrap_or(0);
            let length = u32::try_from(range.end - range.start).unwrap_or(0);
            let start = slice.slice.start.saturating_add(inside);
            return Ok(Lies::In(Slice { start, length, ..slice.slice }));
        }
        Ok(Lies::Across)
    }

    /// Adds an item; gives a batch that is full.
    pub fn push(&mut self, item: T, slice: Option<Slice>) -> Option<Batch<T>> {
        let chunk = slice.map(|slice| slice.chunk);
        let bytes = slice.map_or(0, |slice| slice.length.into());
        // What has no content goes with whatever comes next.
        let found = match chunk {
            Some(_) => {
                let place = |wanted| self.open.iter().position(|batch| batch.chunk == wanted);
                place(chunk).or_else(|| place(None))
            }
            None => self.open.len().checked_sub(1),
        };
        let mut batch = match found {
            Some(place) => self.open.remove(place),
            None => Batch { chunk, items: Vec::new(), bytes: 0 },
        };
        batch.chunk = batch.chunk.or(chunk);
        batch.items.push((item, slice));
        batch.bytes += bytes;
        if batch.items.len() >= ITEMS_MAX || batch.bytes >= BYTES_MAX {
            return Some(batch);
        }
        self.open.push(batch);
        (self.open.len() > OPEN_MAX).then(|| self.open.remove(0))
    }

    /// Gives the batches that are left.
    pub fn finish(&mut self) -> impl Iterator<Item = Batch<T>> + '_ {
        self.open.drain(..)
    }
}
