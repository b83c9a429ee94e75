//! All rows of an index at one moment, each with a number: whoever has something to remember of every chunk keeps a bit
//! for each row, which for a hundred million chunks is 12 MB.
//!
//! Spec: repository.md section 8.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use diptych_format::pack_index::{IndexPack, IndexRow};
use diptych_format::{Digest, Result};

use super::file::IndexFile;
use super::{Location, named, row};
use crate::pack::StoredChunk;

/// A place of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedChunk {
    /// The number of its row.
    pub row: u64,
    /// Where it is.
    pub location: Location,
}

/// What an index file says of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRows {
    /// The pack.
    pub pack: IndexPack,
    /// What its rows say, all in all.
    pub sum: PackSum,
}

/// What rows say of a pack, in whatever order they come: two that are equal say the same. Sums are made with a keyed
/// hasher: without its key nobody can make other rows of the same sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackSum {
    chunks: u64,
    sum: u128,
}

impl PackSum {
    /// Length of its bytes.
    pub const LENGTH: usize = 24;

    /// Its bytes.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.chunks.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    /// What [`PackSum::encode`] wrote.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Self {
        let (mut chunks, mut sum) = ([0; 8], [0; 16]);
        chunks.copy_from_slice(&bytes[..8]);
        sum.copy_from_slice(&bytes[8..]);
        Self { chunks: u64::from_le_bytes(chunks), sum: u128::from_le_bytes(sum) }
    }

    /// What a pack's own directory says.
    pub fn of(chunks: &[StoredChunk], mac: &blake3::Hasher) -> Result<Self> {
        let mut sum = Self::default();
        for chunk in chunks {
            sum.add(&row(chunk.header, 0, chunk.offset)?, mac);
        }
        Ok(sum)
    }

    /// Adds what one row says.
    pub fn add(&mut self, row: &IndexRow, mac: &blake3::Hasher) {
        let digest = mac.clone().update(&IndexRow { pack: 0, ..*row }.encode()).finalize();
        let part = digest.as_bytes().first_chunk().map_or(0, |part| u128::from_le_bytes(*part));
        self.chunks += 1;
        self.sum = self.sum.wrapping_add(part);
    }
}

/// All index files there were. Files that come and go later are of no concern to it.
pub struct IndexView {
    /// Each with the number of its first row.
    files: Vec<(u64, Digest, Arc<IndexFile>)>,
    rows: u64,
    mac: blake3::Hasher,
}

impl IndexView {
    pub(super) fn new(files: Vec<(Digest, Arc<IndexFile>)>, mac: blake3::Hasher) -> Self {
        let mut rows = 0;
        let numbered = files.into_iter().map(|(name, file)| {
            let first = rows;
            rows += file.chunks();
            (first, name, file)
        });
        let files = numbered.collect();
        Self { files, rows, mac }
    }

    /// Number of rows. Theirs are below it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What a pack's own directory says, to be compared with [`IndexView::packs`].
    pub fn sum_of(&self, chunks: &[StoredChunk]) -> Result<PackSum> {
        PackSum::of(chunks, &self.mac)
    }

    /// All places of a chunk, in packs that are not to be used as well.
    pub fn find(&self, id: &Digest) -> Result<Vec<PlacedChunk>> {
        let mut found = Vec::new();
        for (first, name, file) in &self.files {
            let each = |number: u64, row: IndexRow| {
                found.extend(placed(file, first + number, &row));
                None::<()>
            };
            file.find_numbered(id, each).map_err(|error| named(name, error))?;
        }
        Ok(found)
    }

    /// What each file says of each of its packs. Goes through all rows.
    pub fn packs(&self) -> Result<Vec<PackRows>> {
        let mut all = Vec::new();
        for (_, name, file) in &self.files {
            let sums = file.sums(&self.mac).map_err(|error| named(name, error))?;
            all.extend(file.packs().iter().zip(sums).map(|(pack, sum)| PackRows { pack: *pack, sum }));
        }
        Ok(all)
    }

    /// Calls `each` with every row and its number.
    pub fn for_each(&self, mut each: impl FnMut(PlacedChunk) -> Result<()>) -> Result<()> {
        for (first, name, file) in &self.files {
            for (number, row) in (*first..).zip(file.rows()) {
                let row = row.map_err(|error| named(name, error))?;
                placed(file, number, &row).map_or(Ok(()), &mut each)?;
            }
        }
        Ok(())
    }

    /// The rows of these packs, by their places in the pack. Goes through all rows.
    pub fn rows_of(&self, packs: &HashSet<Digest>) -> Result<HashMap<Digest, Vec<PlacedChunk>>> {
        let mut found: HashMap<Digest, Vec<PlacedChunk>> = HashMap::new();
        if packs.is_empty() {
            return Ok(found);
        }
        self.for_each(|placed| {
            if packs.contains(&placed.location.pack) {
                found.entry(placed.location.pack).or_default().push(placed);
            }
            Ok(())
        })?;
        found.values_mut().for_each(|rows| rows.sort_by_key(|placed| placed.location.chunk.offset));
        Ok(found)
    }
}

fn placed(file: &IndexFile, number: u64, row: &IndexRow) -> Option<PlacedChunk> {
    let pack = file.packs().get(row.pack as usize)?.name;
    let chunk = StoredChunk { offset: row.offset.into(), header: row.header };
    Some(PlacedChunk { row: number, location: Location { pack, chunk } })
}
