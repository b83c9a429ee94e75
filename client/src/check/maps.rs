//! Maps: which chunks snapshots name, each segment read once however many snapshots share it.

use std::collections::{HashMap, HashSet};

use diptych_format::map::{Segment, SegmentRef, Slice};
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error as FormatError, Result as FormatResult};
use diptych_repository::documents::StreamRecord;
use diptych_repository::{ChunkSource, Decompressor, StoreReader, Verify};

use super::bits::Bits;
use super::{Check, Health, is_refused};
use crate::error::Result;

/// Chunks that no index file names, of which the ids are kept: some 50 MB. Beyond that, nobody counts them.
const UNINDEXED_MAX: usize = 1 << 20;

/// A segment in memory.
pub(super) enum Loaded {
    /// Slices of chunks.
    Leaf(Vec<Slice>),
    /// Segments below it.
    Node(Vec<SegmentRef>),
}

/// Reads and parses a segment.
pub(super) fn load(
    reader: &StoreReader,
    id: &Digest,
    decompressor: &mut Decompressor,
) -> FormatResult<(Loaded, Sums)> {
    let bytes = reader.read_chunk(ChunkKind::Segment, id, Verify::Id, decompressor)?;
    let segment = Segment::parse(&bytes)?;
    let sums = Sums { level: segment.level(), length: segment.length(), slices: segment.slice_count() };
    let rows = 0..segment.rows();
    let loaded = match segment.level() {
        0 => Loaded::Leaf(rows.map(|row| segment.slice(row)).collect()),
        _ => Loaded::Node(rows.map(|row| segment.below(row)).collect()),
    };
    Ok((loaded, sums))
}

/// What the segment above says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    level: u64,
    length: u64,
    slices: u64,
}

/// The chunks that maps name.
pub(super) struct Maps<'m> {
    check: &'m Check<'m>,
    health: &'m Health<'m>,
    named: &'m Bits,
    reader: StoreReader,
    decompressor: Decompressor,
    /// Those that were read, with what they say; none where one cannot be read.
    segments: HashMap<Digest, Option<Sums>>,
    /// Chunks that no index file names.
    pub unindexed: HashSet<Digest>,
    /// Chunks that are named, each counted once.
    pub chunks: u64,
}

impl<'m> Maps<'m> {
    pub(super) fn new(check: &'m Check<'m>, health: &'m Health<'m>, named: &'m Bits) -> Self {
        Self {
            check,
            health,
            named,
            reader: check.repository.reader(),
            decompressor: Decompressor::new(check.repository.chunk_keys().clone()),
            segments: HashMap::new(),
            unindexed: HashSet::new(),
            chunks: 0,
        }
    }

    /// A stream of the snapshot in `file`.
    pub(super) fn stream(&mut self, file: &str, kind: ChunkKind, record: &StreamRecord) -> Result<()> {
        let sums = self.segment(file, kind, &record.root)?;
        if let Some(sums) = sums.filter(|sums| sums.length != record.length) {
            let what = format!("its map covers {} bytes of a stream of {}", sums.length, record.length);
            self.check.damaged(file, &what);
        }
        Ok(())
    }

    /// A chunk that the snapshot names, or a segment or slice of it.
    pub(super) fn name(&mut self, kind: ChunkKind, id: &Digest) -> Result<()> {
        let mut is_new = None;
        for placed in self.check.view.find(id)? {
            if placed.location.chunk.header.kind == kind {
                let is_first = self.named.set(placed.row);
                is_new = Some(is_new.unwrap_or(false) || is_first);
            }
        }
        let is_new =
            is_new.unwrap_or_else(|| self.unindexed.len() < UNINDEXED_MAX && self.unindexed.insert(*id));
        self.chunks += u64::from(is_new);
        Ok(())
    }

    fn segment(&mut self, file: &str, kind: ChunkKind, id: &Digest) -> Result<Option<Sums>> {
        if let Some(known) = self.segments.get(id) {
            return Ok(*known);
        }
        self.check.go_on()?;
        self.name(ChunkKind::Segment, id)?;
        // Nothing leads back up: an id is that of bytes in which it cannot stand.
        let sums = match self.health.is_lost(ChunkKind::Segment, id)? {
            true => None,
            false => self.read(file, kind, id)?,
        };
        self.segments.insert(*id, sums);
        Ok(sums)
    }

    fn read(&mut self, file: &str, kind: ChunkKind, id: &Digest) -> Result<Option<Sums>> {
        let (loaded, sums) = match load(&self.reader, id, &mut self.decompressor) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.unreadable(file, id, &error)?;
                return Ok(None);
            }
        };
        match loaded {
            Loaded::Leaf(slices) => {
                let mut before = None;
                for slice in slices {
                    if before.replace(slice.chunk) != Some(slice.chunk) {
                        self.name(kind, &slice.chunk)?;
                    }
                }
            }
            Loaded::Node(below) => {
                for below in below {
                    let found = self.segment(file, kind, &below.id)?;
                    let is_wrong = |found: Sums| {
                        (found.level + 1, found.length, found.slices)
                            != (sums.level, below.length, below.slices)
                    };
                    if found.is_some_and(is_wrong) {
                        let what = format!("map segment {id} says other sums than {} has", below.id);
                        self.check.damaged(file, &what);
                    }
                }
            }
        }
        Ok(Some(sums))
    }

    /// A segment that the packs have whole and that is of no use.
    fn unreadable(&self, file: &str, id: &Digest, error: &FormatError) -> Result<()> {
        let what = format!("map segment {id} cannot be read: {error}");
        if is_refused(error) {
            self.check.unreadable(file, &what);
            return Ok(());
        }
        self.check.damaged(file, &what);
        for placed in self.check.view.find(id)? {
            self.health.bad.set(placed.row);
        }
        Ok(())
    }
}
