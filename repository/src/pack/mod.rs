//! Packs: one immutable file that holds many chunks.
//!
//! Spec: archive.md section 11.

mod reader;
mod rebuild;
mod writer;

pub use reader::{PackReader, StoredChunk};
pub use rebuild::{RebuiltDirectory, rebuild_directory};
pub use writer::{PackStats, PackWriter};

use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Result};

use crate::chunk::{ChunkBytes, Decompressor, Verify};

/// Where chunks come from: a pack, the files of an archive, a repository.
pub trait ChunkSource: Send + Sync {
    /// Reads and opens the chunk of `kind` with this id; *missing* where it is not.
    fn read_chunk(
        &self,
        kind: ChunkKind,
        id: &Digest,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Result<ChunkBytes>;

    /// Where a chunk lies, if that is worth knowing: whoever needs many reads them in this order.
    fn place(&self, _kind: ChunkKind, _id: &Digest) -> Option<ChunkPlace> {
        None
    }

    /// Reads chunks in this order and hands each to `each`; neighbours are read at once where that takes less. An error
    /// that `each` gives ends it.
    fn read_chunks(
        &self,
        kind: ChunkKind,
        ids: &[Digest],
        verify: Verify,
        decompressor: &mut Decompressor,
        each: &mut EachChunk<'_>,
    ) -> Result<()> {
        ids.iter().try_for_each(|id| {
            let bytes = self.read_chunk(kind, id, verify, decompressor);
            each(id, bytes, decompressor)
        })
    }
}

/// Takes chunks one after another.
pub type EachChunk<'e> = dyn FnMut(&Digest, Result<ChunkBytes>, &mut Decompressor) -> Result<()> + 'e;

/// Bytes between two chunks that are read with them: on a disk as well as over a network, reading these takes less
/// than asking again.
const GAP_MAX: u64 = 128 << 10;
/// Bytes that are read at once, unless one chunk is longer.
const RUN_MAX: u64 = 8 << 20;

/// Where a chunk lies: in which pack, and from where to where. In this order packs are read from front to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkPlace {
    /// The pack's name.
    pub pack: Digest,
    /// Where its header starts.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

impl ChunkPlace {
    /// Whether it is read together with what is between this chunk's start and `next`'s.
    pub fn runs_into(&self, next: &Self, run_start: u64) -> bool {
        self.pack == next.pack
            && next.start >= self.end
            && next.start - self.end <= GAP_MAX
            && next.end - run_start <= RUN_MAX
    }
}
