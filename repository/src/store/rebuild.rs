//! Makes the index anew from the packs that are there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use diptych_backend::{Backend, FileKind, FileName};
use diptych_format::pack::ChunkKind;
use diptych_format::pack_index::{IndexPack, IndexRow};
use diptych_format::{Class, Digest, Error, ReadAt, Result, limits};

use crate::index::{IndexFile, Input, PackSum, merge, row, write_index};
use crate::pack::{PackReader, rebuild_directory};
use crate::place::{KeptFile, told};

/// Chunks whose rows are kept in memory before they are written: some 50 MB.
const ROWS_MAX: usize = 1 << 20;
/// How much of a pack is read at once to digest it.
const READ_AT_ONCE: usize = 1 << 20;

/// What a new index was made of.
#[derive(Debug, Default)]
pub struct RebuiltIndex {
    /// Packs that it names.
    pub packs: u64,
    /// Chunks, those that are in several packs counted for each.
    pub chunks: u64,
    /// Packs whose directory was damaged: their chunks are where an earlier index or their headers say, and may be
    /// damaged too.
    pub damaged: Vec<(FileName, Error)>,
    /// Packs in which no chunk was found.
    pub left_out: Vec<(FileName, Error)>,
    /// Index files that could not be used, and were removed.
    pub removed: Vec<(FileName, Error)>,
}

/// Reads the directory of every pack, or what an earlier index or headers say where one has none, and writes an index
/// file that replaces all that were there. Others may write meanwhile: what they index stays.
pub fn rebuild_index(backend: &Arc<dyn Backend>, mac: &blake3::Hasher) -> Result<RebuiltIndex> {
    let list = |kind| backend.list(kind).map_err(told);
    let open = |name: &FileName| {
        KeptFile::open(backend.clone(), *name).and_then(|file| IndexFile::open(Arc::new(file), mac))
    };
    let mut rebuilt = RebuiltIndex::default();
    let mut replaces = Vec::new();
    let mut old = Vec::new();
    // Before the packs: what these files name is durable, and so is found.
    for listed in list(FileKind::Index)? {
        match open(&listed.name) {
            Ok(file) => old.push(file),
            Err(error) if error.class == Class::Missing => continue,
            Err(error) if matches!(error.class, Class::Io | Class::Unsupported) => return Err(error),
            Err(error) => {
                // Now, for what is written may be the same file again, and one that is there is kept as it is.
                remove(&**backend, &listed.name)?;
                rebuilt.removed.push((listed.name, error));
                continue;
            }
        }
        replaces.push(Digest(*listed.name.digest()));
    }
    let known = Known::read(&old, mac)?;
    let mut of_old: HashSet<Digest> = HashSet::new();
    let mut part = Part::default();
    let mut parts: Vec<Digest> = Vec::new();
    for listed in list(FileKind::Data)? {
        let name = Digest(*listed.name.digest());
        match read_pack(backend, &listed.name) {
            Ok(Some(Read { pack, rows, damage })) => {
                let is_known = known.has(&name, listed.length);
                let damage = match damage {
                    None if is_known && !known.says(&name, &rows, mac) => {
                        unless_whole(backend, &listed.name)?
                    }
                    damage => damage,
                };
                let is_damaged = damage.is_some();
                rebuilt.damaged.extend(damage.map(|error| (listed.name, error)));
                if is_damaged && is_known {
                    // The earlier index has chunks as well that stand behind a damaged header, and whoever can change a
                    // pack's directory may not be able to change what it says.
                    of_old.insert(name);
                } else {
                    part.add(pack, rows);
                }
            }
            Ok(None) => {}
            Err(error) if error.class == Class::Io => return Err(error),
            Err(error) if known.has(&name, listed.length) => {
                of_old.insert(name);
                rebuilt.damaged.push((listed.name, error));
            }
            Err(error) => rebuilt.left_out.push((listed.name, error)),
        }
        if part.rows >= ROWS_MAX {
            parts.push(std::mem::take(&mut part).write(&**backend, mac)?);
        }
    }
    parts.push(part.write(&**backend, mac)?);
    let files: Vec<IndexFile> =
        parts.iter().map(|part| open(&FileName::new(FileKind::Index, part.0))).collect::<Result<_>>()?;
    let all = files.iter().map(|file| Input::new(file, |_| true));
    let some = old.iter().map(|file| Input::new(file, |pack| of_old.contains(&pack.name)));
    let inputs: Vec<Input<'_>> = all.chain(some).collect();
    replaces.extend(parts);
    replaces.sort_unstable();
    replaces.dedup();
    let name = merge(&**backend, mac, &inputs, &replaces)?;
    let written = open(&FileName::new(FileKind::Index, name.0))?;
    (rebuilt.packs, rebuilt.chunks) = (written.packs().len() as u64, written.chunks());
    replaces.iter().try_for_each(|name| remove(&**backend, &FileName::new(FileKind::Index, name.0)))?;
    Ok(rebuilt)
}

/// What earlier index files say of packs.
struct Known {
    lengths: HashSet<(Digest, u64)>,
    /// What they say of each pack; none where they differ.
    rows: HashMap<Digest, Option<PackSum>>,
}

impl Known {
    fn read(files: &[IndexFile], mac: &blake3::Hasher) -> Result<Self> {
        let mut known = Self { lengths: HashSet::new(), rows: HashMap::new() };
        for file in files {
            for (pack, sum) in file.packs().iter().zip(file.sums(mac)?) {
                known.lengths.insert((pack.name, pack.length));
                let said = known.rows.entry(pack.name).or_insert(Some(sum));
                if *said != Some(sum) {
                    *said = None;
                }
            }
        }
        Ok(known)
    }

    fn has(&self, name: &Digest, length: u64) -> bool {
        self.lengths.contains(&(*name, length))
    }

    /// Whether the files say these very rows of the pack.
    fn says(&self, name: &Digest, rows: &[IndexRow], mac: &blake3::Hasher) -> bool {
        let mut sum = PackSum::default();
        rows.iter().for_each(|row| sum.add(row, mac));
        self.rows.get(name) == Some(&Some(sum))
    }
}

/// What is wrong with a pack whose directory says otherwise than an index: nothing if all its bytes are those of its name.
fn unless_whole(backend: &Arc<dyn Backend>, name: &FileName) -> Result<Option<Error>> {
    let file = KeptFile::open(backend.clone(), *name)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_AT_ONCE];
    let mut offset = 0;
    while offset < file.len() {
        let count = (file.len() - offset).min(READ_AT_ONCE as u64);
        let part = buffer.get_mut(..count as usize).unwrap_or_default();
        file.read_exact_at(part, offset)?;
        hasher.update(part);
        offset += count;
    }
    let is_whole = hasher.finalize() == *name.digest();
    Ok((!is_whole).then(|| {
        Error::corrupt("its directory says otherwise than the index, and its bytes are not those of its name")
    }))
}

fn remove(backend: &dyn Backend, name: &FileName) -> Result<()> {
    match backend.delete(name) {
        Err(error) if error.class != diptych_backend::Class::Missing => Err(told(error)),
        _ => Ok(()),
    }
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

/// What a pack holds.
struct Read {
    pack: IndexPack,
    rows: Vec<IndexRow>,
    /// What is wrong with its directory, where headers had to do.
    damage: Option<Error>,
}

/// Nothing if the pack has been removed meanwhile.
fn read_pack(backend: &Arc<dyn Backend>, name: &FileName) -> Result<Option<Read>> {
    let file = match KeptFile::open(backend.clone(), *name) {
        Err(error) if error.class == Class::Missing => return Ok(None),
        file => Arc::new(file?),
    };
    if file.len() > limits::PACK_LENGTH_MAX {
        return Err(Error::limit("length of a pack", file.len(), limits::PACK_LENGTH_MAX));
    }
    let mut damage = None;
    let (holds, mut chunks) = match PackReader::open(file.clone()) {
        Ok(pack) => (pack.holds(), pack.chunks().to_vec()),
        Err(error) if error.class == Class::Io => return Err(error),
        Err(error) => {
            let found = rebuild_directory(&*file)?;
            damage = Some(error);
            (found.holds, found.chunks)
        }
    };
    // A damaged pack may seem to have a chunk twice, or what no repository has.
    chunks.retain(|chunk| chunk.header.kind != ChunkKind::Manifest);
    chunks.sort_by_key(|chunk| chunk.header.id);
    chunks.dedup_by_key(|chunk| chunk.header.id);
    let rows = chunks.iter().map(|chunk| row(chunk.header, 0, chunk.offset)).collect::<Result<Vec<_>>>()?;
    let length = file.len();
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let pack = IndexPack { name: Digest(*name.digest()), length, chunks: count, holds };
    Ok(Some(Read { pack, rows, damage }))
}
