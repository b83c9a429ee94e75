//! The maps of snapshots, segment by segment: which chunks they name, without reading what was seen before.

use std::collections::HashSet;

use diptych_format::map::Segment;
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error, Result};
use diptych_repository::documents::{ArchiveRecord, Snapshot};
use diptych_repository::pack::ChunkSource;
use diptych_repository::{Decompressor, Repository, StoreReader, Verify};

/// Goes through maps that share most of their segments, and reads each segment once.
pub struct Maps {
    reader: StoreReader,
    decompressor: Decompressor,
    seen: HashSet<Digest>,
}

impl Maps {
    /// Of the snapshots of a repository.
    pub fn new(repository: &Repository) -> Self {
        let decompressor = Decompressor::new(repository.chunk_keys().clone());
        Self { reader: repository.reader(), decompressor, seen: HashSet::new() }
    }

    /// Calls `each` with every chunk that a snapshot names and that is not below a segment that was seen before: segments,
    /// report, and what the maps hold. A chunk may come more than once.
    pub fn visit(
        &mut self,
        snapshot: &Snapshot,
        each: &mut dyn FnMut(ChunkKind, &Digest) -> Result<()>,
    ) -> Result<()> {
        if let Some(report) = &snapshot.report {
            each(ChunkKind::Report, &report.id)?;
        }
        for ArchiveRecord { metadata, payload, .. } in &snapshot.archives {
            self.visit_map(metadata.root, ChunkKind::Metadata, each)?;
            self.visit_map(payload.root, ChunkKind::Payload, each)?;
        }
        Ok(())
    }

    fn visit_map(
        &mut self,
        root: Digest,
        kind: ChunkKind,
        each: &mut dyn FnMut(ChunkKind, &Digest) -> Result<()>,
    ) -> Result<()> {
        let mut open = vec![(root, None)];
        while let Some((id, expected)) = open.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            each(ChunkKind::Segment, &id)?;
            let bytes =
                self.reader.read_chunk(ChunkKind::Segment, &id, Verify::Id, &mut self.decompressor)?;
            let segment = Segment::parse(&bytes)?;
            let level = segment.level();
            // Levels descend, so that this ends.
            if expected.is_some_and(|expected| level != expected) {
                let what = format!("segment {id} is of another level than the one above it says");
                return Err(Error::corrupt(what));
            }
            for id in segment.ids() {
                match level.checked_sub(1) {
                    Some(below) => open.push((id, Some(below))),
                    None => each(kind, &id)?,
                }
            }
        }
        Ok(())
    }
}
