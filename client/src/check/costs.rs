//! What damage costs: the snapshots and the paths that lose something.
//!
//! Newest snapshots first. A path is told once, with the newest snapshot that loses it; an older snapshot is gone through
//! only if it lacks a chunk that no newer one does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use diptych_decoder::{Archive, VerifyEvent};
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error as FormatError};
use diptych_repository::documents::{ArchiveRecord, StreamRecord};
use diptych_repository::stream::Caches;
use diptych_repository::{Decompressor, StoreReader};

use super::maps::{Loaded, load};
use super::{Check, Checked, Finding, Health};
use crate::error::Result;
use crate::snapshots::{caches, prefix_of, source_of};
use crate::verify::payload_range;

/// Lost chunks that are told apart: some 50 MB. Snapshots that lack others beyond are told without their paths.
const TOLD_MAX: usize = 1 << 20;

/// A part of a stream that cannot be read, and the chunk or segment that lacks.
type Gap = (Range<u64>, Digest);

/// A path that loses something.
struct Lost {
    snapshot: Digest,
    what: String,
    /// The chunk that it lacks.
    chunk: Option<Digest>,
}

pub(super) struct Costs<'c> {
    check: &'c Check<'c>,
    health: &'c Health<'c>,
    reader: StoreReader,
    decompressor: Decompressor,
    caches: Caches,
    /// Segments in which, or below which, nothing is lost.
    whole: HashSet<Digest>,
    /// In how many snapshots each lost chunk is named.
    told: HashMap<Digest, u64>,
    paths: BTreeMap<Vec<u8>, Lost>,
}

impl<'c> Costs<'c> {
    pub(super) fn new(check: &'c Check<'c>, health: &'c Health<'c>) -> Self {
        Self {
            check,
            health,
            reader: check.repository.reader(),
            decompressor: Decompressor::new(check.repository.chunk_keys().clone()),
            caches: caches(check.repository),
            whole: HashSet::new(),
            told: HashMap::new(),
            paths: BTreeMap::new(),
        }
    }

    /// What each of these snapshots, oldest first, loses.
    pub(super) fn tell(mut self, snapshots: &[Checked]) -> Result<()> {
        for checked in snapshots.iter().rev() {
            self.snapshot(checked)?;
        }
        for (path, Lost { snapshot, what, chunk }) in self.paths {
            let others = chunk.and_then(|chunk| self.told.get(&chunk)).map_or(0, |count| count - 1);
            self.check.tell(&Finding::Lost { path, what, snapshot, others });
        }
        Ok(())
    }

    fn snapshot(&mut self, checked: &Checked) -> Result<()> {
        let mut lacks: HashSet<Digest> = HashSet::new();
        let mut walks = Vec::new();
        for record in &checked.snapshot.archives {
            let metadata = self.gaps(ChunkKind::Metadata, &record.metadata)?;
            let payload = self.gaps(ChunkKind::Payload, &record.payload)?;
            let ids = metadata.iter().chain(&payload).map(|(_, id)| *id);
            let has_room = self.told.len() < TOLD_MAX;
            let is_new = has_room && ids.clone().any(|id| !self.told.contains_key(&id));
            lacks.extend(ids);
            if is_new {
                walks.push((record, metadata, payload));
            }
        }
        if let Some(report) = checked.snapshot.report
            && self.health.is_lost(ChunkKind::Report, &report.id)?
        {
            lacks.insert(report.id);
            self.check.damaged(&checked.file, "its report on what was not captured cannot be read");
        }
        if lacks.is_empty() {
            return Ok(());
        }
        let chunks = lacks.len() as u64;
        for id in lacks {
            if self.told.len() < TOLD_MAX || self.told.contains_key(&id) {
                *self.told.entry(id).or_default() += 1;
            }
        }
        self.check.tell(&Finding::Snapshot { id: checked.id, time: checked.snapshot.time, chunks });
        for (record, metadata, payload) in walks {
            self.walk(checked, record, &metadata, &payload)?;
        }
        Ok(())
    }

    /// The parts of a stream that cannot be read, in order.
    fn gaps(&mut self, kind: ChunkKind, record: &StreamRecord) -> Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        self.gaps_below(kind, &record.root, 0..record.length, &mut gaps)?;
        Ok(gaps)
    }

    fn gaps_below(
        &mut self,
        kind: ChunkKind,
        id: &Digest,
        range: Range<u64>,
        gaps: &mut Vec<Gap>,
    ) -> Result<()> {
        if self.whole.contains(id) {
            return Ok(());
        }
        self.check.go_on()?;
        let loaded = match self.health.is_lost(ChunkKind::Segment, id)? {
            true => None,
            false => load(&self.reader, id, &mut self.decompressor).ok(),
        };
        let before = gaps.len();
        let mut start = range.start;
        match loaded {
            None => gaps.push((range, *id)),
            Some((Loaded::Leaf(slices), _)) => {
                for slice in slices {
                    let end = start.saturating_add(slice.length.into());
                    if self.health.is_lost(kind, &slice.chunk)? {
                        gaps.push((start..end, slice.chunk));
                    }
                    start = end;
                }
            }
            Some((Loaded::Node(below), _)) => {
                for below in below {
                    let end = start.saturating_add(below.length);
                    self.gaps_below(kind, &below.id, start..end, gaps)?;
                    start = end;
                }
            }
        }
        if gaps.len() == before {
            self.whole.insert(*id);
        }
        Ok(())
    }

    fn walk(
        &mut self,
        checked: &Checked,
        record: &ArchiveRecord,
        metadata: &[Gap],
        payload: &[Gap],
    ) -> Result<()> {
        let prefix = prefix_of(record);
        let first = metadata.first().map(|(_, id)| *id);
        // The chunk that lacks has been told with its pack.
        let untold = |what: &str, error: &FormatError| match first {
            Some(_) => what.to_owned(),
            None => format!("{what}: {error}"),
        };
        let [stream, _] = self.check.repository.streams(record, &self.caches);
        let archive = match Archive::open(stream) {
            Ok(archive) => archive,
            Err(error) => {
                let what = untold("nothing of it can be told", &error);
                self.lose(checked, source_of(record).to_vec(), what, first);
                return Ok(());
            }
        };
        let mut each = |event: VerifyEvent<'_>| {
            self.check.go_on().map_err(|_| FormatError::missing("the job was told to end"))?;
            let full = |path: &[u8]| match path {
                [] => source_of(record).to_vec(),
                path => [&prefix[..], path].concat(),
            };
            match event {
                VerifyEvent::Entry { .. } => {}
                VerifyEvent::Damaged { path, error } => {
                    self.lose(checked, full(path), untold("what is in it cannot be told", &error), first);
                }
                VerifyEvent::Content { path, content } => {
                    let range = payload_range(&content);
                    let place = payload.partition_point(|(gap, _)| gap.end <= range.start);
                    if let Some((gap, id)) = payload.get(place)
                        && gap.start < range.end
                    {
                        self.lose(checked, full(path), "its content cannot be read".to_owned(), Some(*id));
                    }
                }
            }
            Ok(())
        };
        let walked = diptych_decoder::verify(&archive, None, &mut each);
        self.check.go_on()?;
        if let Err(error) = walked {
            let what = untold("what is in it cannot be told", &error);
            self.lose(checked, source_of(record).to_vec(), what, first);
        }
        Ok(())
    }

    /// The first to tell of a path is the newest snapshot.
    fn lose(&mut self, checked: &Checked, path: Vec<u8>, what: String, chunk: Option<Digest>) {
        self.paths.entry(path).or_insert(Lost { snapshot: checked.id, what, chunk });
    }
}
