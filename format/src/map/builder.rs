//! Makes the segments of a whole map, from the leaves to the root, as the slices come.
//!
//! Spec: archive.md section 10.3.

use std::collections::{HashMap, HashSet};

use super::{SegmentCut, SegmentRef, Slice, encode_leaf_of, encode_node, segment_id};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// A segment that is ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltSegment {
    /// Its chunk id.
    pub id: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Makes the segments of a whole map from its slices, which it joins and cuts by the rules.
pub struct MapBuilder {
    pending: Option<Slice>,
    leaf: Vec<Slice>,
    /// Lengths of the open leaf's chunks, as far as they are known.
    chunk_lengths: HashMap<Digest, u64>,
    leaf_cut: SegmentCut,
    levels: Vec<Level>,
    built: Vec<BuiltSegment>,
    known: HashSet<Digest>,
    id: Box<dyn Fn(&[u8]) -> Digest + Send>,
}

impl Default for MapBuilder {
    fn default() -> Self {
        Self::with_ids(segment_id)
    }
}

/// The open segment of a level above 0.
#[derive(Default)]
struct Level {
    open: Vec<SegmentRef>,
    cut: SegmentCut,
    rows: u64,
}

impl MapBuilder {
    /// A builder of segments whose ids `id` gives: under a key they are others.
    pub fn with_ids(id: impl Fn(&[u8]) -> Digest + Send + 'static) -> Self {
        Self {
            pending: None,
            leaf: Vec::new(),
            chunk_lengths: HashMap::new(),
            leaf_cut: SegmentCut::default(),
            levels: Vec::new(),
            built: Vec::new(),
            known: HashSet::new(),
            id: Box::new(id),
        }
    }

    /// Takes the next slice of the stream with the length of its chunk, which the segment then tells. Spec: R-5-10.
    pub fn push_of(&mut self, slice: Slice, chunk_length: u64) -> Result<()> {
        self.push(slice)?;
        // Only now: the slice before it may have ended a leaf.
        self.chunk_lengths.insert(slice.chunk, chunk_length);
        Ok(())
    }

    /// Takes the next slice of the stream.
    pub fn push(&mut self, slice: Slice) -> Result<()> {
        if slice.length == 0 {
            return Err(Error::corrupt("a slice is empty"));
        }
        match self.pending.take() {
            None => self.pending = Some(slice),
            Some(pending) => match pending.join(slice) {
                Some(joined) => self.pending = Some(joined),
                None => {
                    self.pending = Some(slice);
                    self.place(pending)?;
                }
            },
        }
        Ok(())
    }

    /// The segments that have become ready since the last call: each comes after those below it, and once, however
    /// often the map has it.
    pub fn take_built(&mut self) -> Vec<BuiltSegment> {
        std::mem::take(&mut self.built)
    }

    /// Ends the map; gives the last segments and the root.
    pub fn finish(mut self) -> Result<(SegmentRef, Vec<BuiltSegment>)> {
        if let Some(slice) = self.pending.take() {
            self.place(slice)?;
        }
        if !self.leaf.is_empty() || self.levels.is_empty() {
            self.close_leaf()?;
        }
        let mut index = 0;
        while let Some(level) = self.levels.get(index) {
            if let ([root], 1) = (&level.open[..], level.rows) {
                return Ok((*root, self.built));
            }
            if !level.open.is_empty() {
                self.close_node(index)?;
            }
            index += 1;
        }
        Err(Error::corrupt("a map has no root"))
    }

    fn place(&mut self, slice: Slice) -> Result<()> {
        self.leaf.push(slice);
        if self.leaf_cut.ends_after(&slice.chunk) { self.close_leaf() } else { Ok(()) }
    }

    fn close_leaf(&mut self) -> Result<()> {
        let chunk_length = |chunk: &Digest| self.chunk_lengths.get(chunk).copied().unwrap_or_default();
        let bytes = encode_leaf_of(&self.leaf, chunk_length)?;
        let length = self.leaf.iter().map(|slice| u64::from(slice.length)).sum();
        let slices = self.leaf.len() as u64;
        self.leaf.clear();
        self.chunk_lengths.clear();
        self.keep(0, bytes, length, slices)
    }

    fn close_node(&mut self, index: usize) -> Result<()> {
        let Some(level) = self.levels.get_mut(index) else { return Ok(()) };
        let bytes = encode_node(index as u64 + 1, &level.open)?;
        let length = level.open.iter().map(|below| below.length).sum();
        let slices = level.open.iter().map(|below| below.slices).sum();
        level.open.clear();
        self.keep(index + 1, bytes, length, slices)
    }

    /// Keeps a segment and names it one level up.
    fn keep(&mut self, index: usize, bytes: Vec<u8>, length: u64, slices: u64) -> Result<()> {
        let id = (self.id)(&bytes);
        if self.known.insert(id) {
            self.built.push(BuiltSegment { id, bytes });
        }
        if self.levels.len() <= index {
            self.levels.resize_with(index + 1, Level::default);
        }
        let Some(level) = self.levels.get_mut(index) else { return Ok(()) };
        level.open.push(SegmentRef { id, length, slices });
        level.rows += 1;
        if level.cut.ends_after(&id) { self.close_node(index) } else { Ok(()) }
    }
}
