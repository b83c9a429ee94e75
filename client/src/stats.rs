//! `stats`: how large snapshots are, and how little of that is stored.

use std::collections::HashSet;

use diptych_format::Digest;
use diptych_repository::Repository;

use crate::error::{InPlace, Result};
use crate::maps::Maps;
use crate::snapshots::Listed;

/// Sizes of snapshots, and of what they take in a repository.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Number of snapshots.
    pub snapshots: u64,
    /// Entries in all of them.
    pub entries: u64,
    /// Bytes of contents, holes counted.
    pub content_bytes: u64,
    /// Bytes of the payload streams: contents without holes.
    pub payload_bytes: u64,
    /// Bytes of the metadata streams.
    pub metadata_bytes: u64,
    /// Chunks that are stored for them.
    pub chunks: u64,
    /// What these take.
    pub stored_bytes: u64,
    /// Packs in the repository; of all snapshots alone.
    pub packs: Option<u64>,
}

impl Stats {
    /// How many bytes of contents there are for each that is stored.
    pub fn ratio(&self) -> f64 {
        if self.stored_bytes == 0 { 1.0 } else { self.content_bytes as f64 / self.stored_bytes as f64 }
    }

    fn of_sizes(snapshots: &[Listed]) -> Self {
        let mut stats = Self { snapshots: snapshots.len() as u64, ..Self::default() };
        for archive in snapshots.iter().flat_map(|listed| &listed.snapshot.archives) {
            // Documents may claim anything.
            let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
            add(&mut stats.entries, archive.entries);
            add(&mut stats.content_bytes, archive.content_bytes);
            add(&mut stats.payload_bytes, archive.payload.length);
            add(&mut stats.metadata_bytes, archive.metadata.length);
        }
        stats
    }

    /// Of all snapshots there are: what the repository stores. Whatever its size, only lists of packs are looked at.
    pub fn of_all(repository: &Repository, snapshots: &[Listed]) -> Self {
        let packs = repository.index().packs();
        Self {
            chunks: packs.iter().map(|pack| u64::from(pack.chunks)).sum(),
            stored_bytes: packs.iter().map(|pack| pack.length).sum(),
            packs: Some(packs.len() as u64),
            ..Self::of_sizes(snapshots)
        }
    }

    /// Of some of them: what is stored for these, be it for others as well.
    pub fn of_some(repository: &Repository, snapshots: &[Listed]) -> Result<Self> {
        let mut stats = Self::of_sizes(snapshots);
        let mut maps = Maps::new(repository);
        let mut known: HashSet<Digest> = HashSet::new();
        for listed in snapshots {
            let count = &mut |_, id: &Digest| {
                if known.insert(*id)
                    && let Some(location) = repository.index().find(id)?
                {
                    stats.chunks += 1;
                    stats.stored_bytes += location.chunk.header.whole_length();
                }
                Ok(())
            };
            maps.visit(&listed.snapshot, count).in_place(format!("snapshot {}", listed.short_id()))?;
        }
        Ok(stats)
    }
}
