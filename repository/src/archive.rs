//! The files of one archive: a metadata file, and a data file that is not touched before a payload byte is wanted.
//!
//! Spec: archive.md section 12.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use diptych_format::manifest::ArchiveManifest;
use diptych_format::pack::{ChunkKind, PackHolds};
use diptych_format::{Class, Digest, Error, ReadAt, Result, Stream};

use crate::chunk::{ChunkBytes, Decompressor, Verify};
use crate::counters::{Counted, Counters};
use crate::keys::ChunkKeys;
use crate::pack::{ChunkSource, PackReader};
use crate::stream::{CacheBudget, Caches, StreamReader};

/// An archive that is kept in one or two files.
pub struct ArchiveFiles {
    /// What the archive is.
    pub manifest: ArchiveManifest,
    /// The metadata stream.
    pub metadata: Arc<StreamReader>,
    /// The payload stream.
    pub payload: Arc<StreamReader>,
    /// What reading has cost so far.
    pub counters: Arc<Counters>,
    packs: Arc<Packs>,
}

impl ArchiveFiles {
    /// Opens the file that holds the metadata (or all) and reads the manifest. `data` is opened when it is needed;
    /// without it, whatever is in the metadata file can be read. Chunks are kept within `budget`.
    pub fn open(meta: Arc<dyn ReadAt>, data: Option<Arc<dyn ReadAt>>, budget: CacheBudget) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let count = |file| Arc::new(Counted::new(file, counters.clone()));
        let meta = PackReader::open_archive(count(meta))?;
        if meta.holds() == PackHolds::Payload {
            let what = "this file holds the payload alone, and no manifest: its metadata file is needed";
            return Err(Error::corrupt(what).at(Stream::Pack, 0));
        }
        let id = meta.manifest_id()?;
        let manifest = meta.read_chunk(ChunkKind::Manifest, &id, Verify::Id, &mut Decompressor::default())?;
        counters.chunk_decoded();
        let manifest = ArchiveManifest::decode(&manifest)?;
        let data = data.map(|file| LazyPack::new(count(file)));
        let packs = Arc::new(Packs { meta, data });
        let caches = Caches::new(budget, counters.clone(), ChunkKeys::plain());
        let stream = |kind, root| {
            Arc::new(StreamReader::new(packs.clone() as Arc<dyn ChunkSource>, kind, root, &caches))
        };
        Ok(Self {
            metadata: stream(ChunkKind::Metadata, manifest.metadata),
            payload: stream(ChunkKind::Payload, manifest.payload),
            manifest,
            counters,
            packs,
        })
    }

    /// The pack that holds the metadata, or all.
    pub fn metadata_pack(&self) -> &PackReader {
        &self.packs.meta
    }

    /// The pack that holds the payload, opened if it was not yet; none if the metadata's holds it, or it is not there.
    pub fn data_pack(&self) -> Result<Option<&PackReader>> {
        self.packs.data.as_ref().map(LazyPack::get).transpose()
    }
}

/// The packs of an archive as one source of chunks.
struct Packs {
    meta: PackReader,
    data: Option<LazyPack>,
}

impl ChunkSource for Packs {
    fn read_chunk(
        &self,
        kind: ChunkKind,
        id: &Digest,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Result<ChunkBytes> {
        let is_elsewhere = kind == ChunkKind::Payload && self.meta.holds() == PackHolds::Metadata;
        let (pack, name) = match &self.data {
            _ if !is_elsewhere => (&self.meta, "archive's metadata file"),
            Some(data) => (data.get()?, "archive's data file"),
            None => {
                return Err(Error::missing(format!(
                    "chunk {id} is in the archive's data file, which is not there"
                )));
            }
        };
        pack.read_chunk(kind, id, verify, decompressor).map_err(|error| match error.class {
            Class::Missing => Error::missing(format!("chunk {id} ({}) is not in the {name}", kind.word())),
            _ => error,
        })
    }
}

/// A pack that is opened by the first who wants a chunk of it.
struct LazyPack {
    file: Arc<dyn ReadAt>,
    pack: OnceLock<PackReader>,
    opening: Mutex<()>,
}

impl LazyPack {
    fn new(file: Arc<dyn ReadAt>) -> Self {
        Self { file, pack: OnceLock::new(), opening: Mutex::new(()) }
    }

    fn get(&self) -> Result<&PackReader> {
        if let Some(pack) = self.pack.get() {
            return Ok(pack);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = self.pack.get() {
            return Ok(pack);
        }
        let pack = PackReader::open_archive(self.file.clone())?;
        if pack.holds() != PackHolds::Payload {
            return Err(Error::corrupt("this is not the data file of an archive").at(Stream::Pack, 0));
        }
        Ok(self.pack.get_or_init(|| pack))
    }
}
