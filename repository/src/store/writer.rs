//! Puts chunks into packs, and what is where into the index.
//!
//! Spec: repository.md sections 7 and 11.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use diptych_backend::FileKind;
use diptych_format::pack::{ChunkHeader, ChunkKind, PackHolds};
use diptych_format::pack_index::IndexPack;
use diptych_format::{Digest, Error, Result, limits};

use super::keeper::{EndedPack, Keeper};
use crate::index::Index;
use crate::keys::random;
use crate::pack::{PackWriter, StoredChunk};
use crate::place::{NamedFile, told_at};

/// Chunks that may be in durable packs before an index file names them: some 30 MB of memory, and what a run that ends
/// early stores again.
const UNINDEXED_MAX: u64 = 1 << 18;

/// What was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Packs that were ended.
    pub packs: u64,
    /// Their length in bytes.
    pub pack_bytes: u64,
    /// Chunks in all packs.
    pub chunks: u64,
    /// Stored bytes of the chunks, headers counted.
    pub stored_bytes: u64,
}

/// Stores the chunks of a run. Dropped without [`StoreWriter::finish`] it indexes the packs that are whole, so that the next
/// run need not store their chunks again, and removes those that are not.
pub struct StoreWriter {
    index: Arc<Index>,
    pack_size: u64,
    payload: Option<OpenPack>,
    metadata: Option<OpenPack>,
    keeper: Keeper,
    /// Packs that were begun and are in no index file yet.
    begun: HashSet<u64>,
    stats: StoreStats,
    /// Chunks may be lost that the caller takes for stored: nothing may name them.
    failed: bool,
}

struct OpenPack {
    number: u64,
    writer: PackWriter<NamedFile>,
}

impl StoreWriter {
    /// Packs are ended when they have `pack_size` bytes. Spec: R-7-1.
    pub fn new(index: Arc<Index>, pack_size: u64) -> Self {
        Self {
            keeper: Keeper::new(index.clone()),
            index,
            pack_size,
            payload: None,
            metadata: None,
            begun: HashSet::new(),
            stats: StoreStats::default(),
            failed: false,
        }
    }

    /// Appends a chunk, header and all, unless this run has stored it; says whether it did. What earlier runs have
    /// stored, the caller asks [`Index::contains`] before it compresses anything.
    pub fn append(&mut self, kind: ChunkKind, id: Digest, stored: &[u8]) -> Result<bool> {
        self.unless_failed(|writer| writer.append_chunk(kind, id, stored))
    }

    /// What was stored so far.
    pub fn stats(&self) -> StoreStats {
        self.stats
    }

    /// A checkpoint: ends the open packs, waits until all are durable, and indexes their chunks. Spec: R-11-1 and
    /// R-11-2.
    pub fn flush(&mut self) -> Result<()> {
        self.unless_failed(|writer| {
            let open = [writer.payload.take(), writer.metadata.take()];
            open.into_iter().flatten().try_for_each(|pack| writer.end(pack))?;
            writer.keeper.wait()?;
            writer.index_kept()
        })
    }

    /// The last [`StoreWriter::flush`]. What was stored may be named then.
    pub fn finish(mut self) -> Result<StoreStats> {
        self.flush()?;
        Ok(self.stats)
    }

    fn unless_failed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.failed {
            let what = "nothing more can be stored after the error before; run this again";
            return Err(Error::io(what, io::ErrorKind::Other.into()));
        }
        let result = work(self);
        self.failed = result.is_err();
        result
    }

    fn append_chunk(&mut self, kind: ChunkKind, id: Digest, stored: &[u8]) -> Result<bool> {
        self.keeper.check()?;
        if self.index.is_fresh(&id) {
            return Ok(false);
        }
        // Spec: R-7-1.
        let (place, holds) = match kind {
            ChunkKind::Payload => (&mut self.payload, PackHolds::Payload),
            _ => (&mut self.metadata, PackHolds::Metadata),
        };
        let open = match place {
            Some(open) => open,
            None => {
                let file = NamedFile::create(&**self.index.backend(), FileKind::Data)?;
                let number = self.index.begin_pack();
                self.begun.insert(number);
                place.insert(OpenPack { number, writer: PackWriter::new(file, holds)? })
            }
        };
        let header = ChunkHeader::decode(stored)?;
        let chunk = StoredChunk { offset: open.writer.length(), header };
        let at = |error| told_at(&**self.index.backend(), error);
        open.writer.append(id, kind, stored).map_err(at)?;
        self.index.add_fresh(open.number, chunk);
        self.stats.chunks += 1;
        self.stats.stored_bytes += stored.len() as u64;
        if open.writer.length() >= self.pack_size
            && let Some(full) = place.take()
        {
            self.end(full)?;
            if self.index.kept_chunks() >= UNINDEXED_MAX {
                self.index_kept()?;
            }
        }
        Ok(true)
    }

    /// Hands a pack to those who make it durable; its directory was read back. Spec: R-7-2.
    fn end(&mut self, mut open: OpenPack) -> Result<()> {
        if self.index.leaves_packs_out() {
            // The same chunks in the same order make the same pack: whoever removes it goes by its name, and one that is
            // damaged stays as it is.
            // Spec: R-7-3.
            open.writer.set_salt(u64::from_le_bytes(random()?));
        }
        let backend = &**self.index.backend();
        let holds = open.writer.holds();
        let (file, stats) = open.writer.finish().map_err(|error| told_at(backend, error))?;
        if stats.pack_length > limits::PACK_LENGTH_MAX {
            return Err(Error::limit("length of a pack", stats.pack_length, limits::PACK_LENGTH_MAX));
        }
        let name = file.name();
        let chunks = u32::try_from(stats.chunks).unwrap_or(u32::MAX);
        let pack = IndexPack { name, length: stats.pack_length, chunks, holds };
        self.stats.packs += 1;
        self.stats.pack_bytes += stats.pack_length;
        self.keeper.push(EndedPack { number: open.number, file, pack })
    }

    fn index_kept(&mut self) -> Result<()> {
        self.index.write_fresh()
    }
}

impl Drop for StoreWriter {
    /// What is not durable is no longer there for anybody. What is stays of use, whatever ended the run.
    fn drop(&mut self) {
        // First, for on a full disk this makes the room for the index.
        self.payload = None;
        self.metadata = None;
        // An error has no chunk that anybody may name.
        let _ = self.keeper.wait();
        self.index.forget_begun(&self.begun);
        if self.index.kept_chunks() > 0 {
            // Without an index file these packs are there for nobody, until the index is made anew.
            let _ = self.index.write_fresh();
        }
    }
}
