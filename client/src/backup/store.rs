//! Where a run's chunks go, and the partial snapshots on the way.

use diptych_format::map::SegmentRef;
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Result};
use diptych_repository::documents::{
    ArchiveRecord, Body, Clock, Report, Snapshot, SnapshotKind, StreamRecord,
};
use diptych_repository::{Repository, StoreWriter};

use super::{BackupOptions, Source};
use crate::commit::Lease;
use crate::create::pipeline::{Maps, write_maps};
use crate::create::{ChunkWriter, Partial, Storing, TOOL, WrittenChunks};

/// Puts chunks into the repository's packs.
pub(super) struct Store<'r> {
    repository: &'r Repository,
    options: &'r BackupOptions,
    writer: StoreWriter,
    /// None of a dry run. Held until the run is over.
    lease: Option<Lease<'r>>,
    /// What the run compares with.
    base: Option<Digest>,
    /// The archives that are whole.
    pub records: Vec<ArchiveRecord>,
    /// The one that is being made.
    pub current: Option<Current>,
    /// The last partial snapshot of this run.
    partial: Option<Digest>,
    /// Bytes stored for chunks that were not there.
    pub bytes: u64,
    /// Chunks that were not there.
    pub chunks: u64,
}

/// The archive that is being made.
pub(super) struct Current {
    pub source: Source,
    pub started: Clock,
    pub sample: u64,
}

impl<'r> Store<'r> {
    pub(super) fn new(
        repository: &'r Repository,
        options: &'r BackupOptions,
        lease: Option<Lease<'r>>,
        base: Option<Digest>,
    ) -> Self {
        Self {
            repository,
            options,
            writer: repository.writer(),
            lease,
            base,
            records: Vec::new(),
            current: None,
            partial: None,
            bytes: 0,
            chunks: 0,
        }
    }

    /// How chunks are made; what the index has is stored.
    pub(super) fn storing(&self) -> Storing<'r> {
        let reader = self.repository.reader();
        let keys = self.repository.chunk_keys().clone();
        Storing {
            compression: self.options.compression,
            keys: keys.clone(),
            padding: self.repository.config().padding,
            is_stored: Box::new(move |kind, id| reader.has(kind, id, &keys)),
        }
    }

    /// Makes all chunks durable, and finds them in the index.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.writer.flush()
    }

    /// What the snapshot is to say.
    pub(super) fn snapshot(&self, archives: Vec<ArchiveRecord>, report: Option<Report>) -> Snapshot {
        let identity = &self.options.identity;
        Snapshot {
            time: identity.time,
            host: identity.host.clone(),
            user: identity.user.clone(),
            tags: identity.tags.clone(),
            tool: TOOL.to_owned(),
            base: self.base,
            replaces: None,
            archives,
            report,
        }
    }

    /// The record of the archive that is being made.
    pub(super) fn record(&self, made: &Made<'_>) -> Option<ArchiveRecord> {
        let current = self.current.as_ref()?;
        let stream = |root: &SegmentRef| StreamRecord { root: root.id, length: root.length };
        Some(ArchiveRecord {
            name: current.source.name.clone(),
            path: current.source.recorded_path(),
            tree_id: made.finished.trailer.tree_id,
            complete: made.finished.trailer.is_complete(),
            entries: made.finished.trailer.entries,
            content_bytes: made.content_bytes,
            metadata: stream(&made.maps.metadata),
            payload: stream(&made.maps.payload),
            started: current.started,
            sparse_chunks: made.sparse.to_vec(),
            sample: current.sample,
        })
    }

    /// The last partial snapshot of this run.
    pub(super) fn partial(&self) -> Option<&Digest> {
        self.partial.as_ref()
    }

    /// Removes the partial snapshot of this run: there is a better one.
    pub(super) fn remove_partial(&mut self) -> Result<()> {
        self.partial.take().map_or(Ok(()), |partial| self.repository.remove_snapshot(&partial))
    }
}

/// What was made of an archive.
pub(super) struct Made<'m> {
    pub finished: &'m diptych_encoder::Finished,
    pub maps: &'m Maps,
    pub content_bytes: u64,
    pub sparse: &'m [Digest],
}

impl ChunkWriter for Store<'_> {
    fn append(&mut self, kind: ChunkKind, id: Digest, stored: &[u8]) -> Result<()> {
        if self.options.is_dry_run || self.writer.append(kind, id, stored)? {
            self.bytes += stored.len() as u64;
            self.chunks += 1;
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        partial: &Partial,
        written: &WrittenChunks,
        metadata: &[(Digest, u32)],
    ) -> Result<()> {
        if self.options.is_dry_run {
            return Ok(());
        }
        if let Some(lease) = &mut self.lease {
            lease.renew()?;
        }
        let maps = write_maps(&partial.payload, written, metadata, &self.storing(), true, self)?;
        self.flush()?;
        let made = Made {
            finished: &partial.finished,
            maps: &maps,
            content_bytes: partial.content_bytes,
            sparse: &[],
        };
        let records = self.records.iter().cloned().chain(self.record(&made)).collect();
        let body = Body::Snapshot(self.snapshot(records, None));
        let stored = self.repository.put_snapshot(SnapshotKind::Partial, body)?;
        // Where nothing was added since the last one, it is the same file.
        let before = self.partial.replace(stored.id).filter(|before| *before != stored.id);
        before.map_or(Ok(()), |before| self.repository.remove_snapshot(&before))
    }
}
