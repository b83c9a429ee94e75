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
}
