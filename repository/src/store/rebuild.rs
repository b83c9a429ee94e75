//! Makes the index anew from the packs that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use diptych_backend::{Backend, FileKind, FileName};
use diptych_format::pack::ChunkKind;
use diptych_format::pack_index::{IndexPack, IndexRow};
use diptych_format::{Class, Digest, Error, Result};

use crate::index::{IndexFile, merge, row, write_index};
use crate::pack::{PackReader, rebuild_directory};
use crate::place::{KeptFile, told};

/// Chunks whose rows are kept in memory before they are written: some 50 MB.
const ROWS_MAX: usize = 1 << 20;

/// What a new index was made of.
#[derive(Debug, Default)]
pub struct RebuiltIndex {
    /// Packs that it names.
    pub packs: u64,
    /// Chunks, those that are in several packs counted for each.
    pub chunks: u64,
    /// Packs whose directory was damaged: their chunks were found by headers, and may be damaged too.
    pub damaged: Vec<(FileName, Error)>,
    /// Packs in which no chunk was found.
    pub left_out: Vec<(FileName, Error)>,
}

/// Reads the directory of every pack, or what headers say where one has none, and writes an index file that replaces
/// all that were there. Others may write meanwhile: what they index stays.
pub fn rebuild_index(backend: &Arc<dyn Backend>, mac: &blake3::Hasher) -> Result<RebuiltIndex> {
    let list = |kind| backend.list(kind).map_err(told);
    // Before the packs: what these files name is durable, and so is found.
    let old = list(FileKind::Index)?.into_iter().map(|listed| Digest(*listed.name.digest()));
    let mut replaces: Vec<Digest> = old.collect();
    let mut rebuilt = RebuiltIndex::default();
    let mut part = Part::default();
    let mut parts: Vec<Digest> = Vec::new();
    for listed in list(FileKind::Data)? {
        match read_pack(backend, &listed.name, &mut rebuilt) {
            Ok(Some((pack, rows))) => part.add(pack, rows),
            Ok(None) => {}
            Err(error) if error.class == Class::Io => return Err(error),
            Err(error) => rebuilt.left_out.push((listed.name, error)),
        }
        if part.rows >= ROWS_MAX {
            parts.push(std::mem::take(&mut part).write(&**backend, mac)?);
        }
    }
    parts.push(part.write(&**backend, mac)?);
    let open = |name: &Digest| {
        KeptFile::open(backend.clone(), FileName::new(FileKind::Index, name.0))
            .and_then(|file| IndexFile::open(Arc::new(file), mac))
    };
    let files: Vec<IndexFile> = parts.iter().map(open).collect::<Result<_>>()?;
    rebuilt.packs = files.iter().map(|file| file.packs().len() as u64).sum();
    rebuilt.chunks = files.iter().map(IndexFile::chunks).sum();
    replaces.extend(parts);
    replaces.sort_unstable();
    replaces.dedup();
    merge(&**backend, mac, &files.iter().collect::<Vec<_>>(), &replaces, |_| true)?;
    for name in replaces {
        match backend.delete(&FileName::new(FileKind::Index, name.0)) {
            Err(error) if error.class != diptych_backend::Class::Missing => return Err(told(error)),
            _ => {}
        }
    }
    Ok(rebuilt)
}

/// Rows of some packs, for one index file.
#[derive(Default)]
struct Part {
    packs: BTreeMap<Digest, (IndexPack, Vec<IndexRow>)>,
    rows: usize,
}

impl Part {
    fn add(&mut self, pack: IndexPack, rows: Vec<IndexRow>) {
        self.rows += rows.len();
        self.packs.insert(pack.name, (pack, rows));
    }

    fn write(self, backend: &dyn Backend, mac: &blake3::Hasher) -> Result<Digest> {
        let (packs, rows): (Vec<IndexPack>, Vec<Vec<IndexRow>>) = self.packs.into_values().unzip();
        let of_pack =
            |(pack, rows): (u32, Vec<IndexRow>)| rows.into_iter().map(move |row| IndexRow { pack, ..row });
        let mut rows: Vec<IndexRow> = (0..).zip(rows).flat_map(of_pack).collect();
        rows.sort_unstable_by_key(IndexRow::key);
        write_index(backend, mac, &packs, &[], || Ok(rows.iter().copied().map(Ok)))
    }
}

/// What a pack holds; nothing if it has been removed meanwhile.
fn read_pack(
    backend: &Arc<dyn Backend>,
    name: &FileName,
    rebuilt: &mut RebuiltIndex,
) -> Result<Option<(IndexPack, Vec<IndexRow>)>> {
    let file = match KeptFile::open(backend.clone(), *name) {
        Err(error) if error.class == Class::Missing => return Ok(None),
        file => Arc::new(file?),
    };
    let (holds, mut chunks) = match PackReader::open(file.clone()) {
        Ok(pack) => (pack.holds(), pack.chunks().to_vec()),
        Err(error) if error.class == Class::Io => return Err(error),
        Err(error) => {
            let found = rebuild_directory(&*file)?;
            rebuilt.damaged.push((*name, error));
            (found.holds, found.chunks)
        }
    };
    // A damaged pack may seem to have a chunk twice, or what no repository has.
    chunks.retain(|chunk| chunk.header.kind != ChunkKind::Manifest);
    chunks.sort_by_key(|chunk| chunk.header.id);
    chunks.dedup_by_key(|chunk| chunk.header.id);
    let rows = chunks.iter().map(|chunk| row(chunk.header, 0, chunk.offset)).collect::<Result<Vec<_>>>()?;
    let length = diptych_format::ReadAt::len(&*file);
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let pack = IndexPack { name: Digest(*name.digest()), length, chunks: count, holds };
    Ok(Some((pack, rows)))
}
