//! What a run has written and no index file names yet.

use std::collections::{BTreeMap, HashMap, HashSet};

use diptych_format::pack::ChunkHeader;
use diptych_format::pack_index::{IndexPack, IndexRow};
use diptych_format::{Digest, Error, Result};

use super::Location;
use crate::pack::StoredChunk;

/// Packs are known by a number until they are whole and have a name.
#[derive(Default)]
pub(super) struct Fresh {
    packs: BTreeMap<u64, Option<IndexPack>>,
    chunks: HashMap<Digest, (u64, StoredChunk)>,
    begun: u64,
}

impl Fresh {
    pub(super) fn begin_pack(&mut self) -> u64 {
        self.begun += 1;
        self.packs.insert(self.begun, None);
        self.begun
    }

    pub(super) fn add(&mut self, pack: u64, chunk: StoredChunk) {
        self.chunks.insert(chunk.header.id, (pack, chunk));
    }

    pub(super) fn contains(&self, id: &Digest) -> bool {
        self.chunks.contains_key(id)
    }

    /// The pack is durable.
    pub(super) fn keep_pack(&mut self, number: u64, pack: IndexPack) {
        self.packs.insert(number, Some(pack));
    }

    /// Where a chunk is; nowhere as long as its pack is not durable.
    pub(super) fn find(&self, id: &Digest) -> Option<Location> {
        let (number, chunk) = self.chunks.get(id)?;
        let pack = self.packs.get(number).copied().flatten()?;
        Some(Location { pack: pack.name, chunk: *chunk })
    }

    /// Number of chunks in durable packs.
    pub(super) fn kept_chunks(&self) -> u64 {
        self.packs.values().flatten().map(|pack| u64::from(pack.chunks)).sum()
    }

    /// Durable packs by name and their rows in order: what an index file needs.
    pub(super) fn kept(&self) -> Result<(Vec<IndexPack>, Vec<IndexRow>)> {
        let mut packs: Vec<(IndexPack, u64)> =
            self.packs.iter().filter_map(|(number, pack)| Some(((*pack)?, *number))).collect();
        packs.sort_unstable_by_key(|(pack, _)| pack.name);
        let places: HashMap<u64, u32> =
            (0..).zip(&packs).map(|(place, (_, number))| (*number, place)).collect();
        let mut rows = Vec::new();
        for (number, StoredChunk { offset, header }) in self.chunks.values() {
            let Some(&pack) = places.get(number) else { continue };
            rows.push(row(*header, pack, *offset)?);
        }
        rows.sort_unstable_by_key(IndexRow::key);
        Ok((packs.into_iter().map(|(pack, _)| pack).collect(), rows))
    }

    /// An index file names these packs now, or they are about to be removed.
    pub(super) fn forget_kept(&mut self, names: &HashSet<Digest>) {
        self.forget(|_, pack| pack.is_some_and(|pack| names.contains(&pack.name)));
    }

    /// These packs will never be durable.
    pub(super) fn forget_begun(&mut self, numbers: &HashSet<u64>) {
        self.forget(|number, pack| pack.is_none() && numbers.contains(&number));
    }

    fn forget(&mut self, is_gone: impl Fn(u64, Option<IndexPack>) -> bool) {
        self.packs.retain(|number, pack| !is_gone(*number, *pack));
        let packs = &self.packs;
        self.chunks.retain(|_, (number, _)| packs.contains_key(number));
        // The room is for the next ones, but not that of a whole run.
        self.chunks.shrink_to(1 << 12);
    }
}

/// A row of an index; no pack of a repository is longer than its offsets can say.
pub(crate) fn row(header: ChunkHeader, pack: u32, offset: u64) -> Result<IndexRow> {
    let offset = u32::try_from(offset)
        .map_err(|_| Error::limit("offset of a chunk in a pack", offset, u64::from(u32::MAX)))?;
    Ok(IndexRow { header, pack, offset })
}
