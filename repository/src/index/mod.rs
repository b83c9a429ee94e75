//! Which chunks of a repository are where: all its index files, and what this run has written beside them.
//!
//! [`IndexFile`] is one file, [`Index`] all of them. A look-up reads one place in each file, so files are merged when
//! many are about as large ([`Index::merge_levels`]), and there are never many.
//!
//! Spec: repository.md section 8.

mod file;
mod fresh;
mod merge;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use diptych_backend::{Backend, FileKind, FileName};
use diptych_format::pack_index::{IndexPack, IndexRow};
use diptych_format::{Class, Digest, Error, Result, limits};

pub use file::{IndexFile, IndexRows};
pub(crate) use fresh::row;
pub(crate) use merge::{Input, merge, write_index};
pub use view::{IndexView, PackRows, PackSum, PlacedChunk};

use crate::keys::random;
use crate::pack::{ChunkPlace, StoredChunk};
use crate::place::{KeptFile, told};
use fresh::Fresh;

/// Files that may not be removed are tried so often in a row, and no more.
const DENIED_MAX: usize = 4;
/// As many files of about the same size become one: a look-up reads fewer than this for each eightfold of chunks.
const MERGED_FILES: usize = 8;

/// How often files may vanish between being listed and being opened before that is an error: each time, somebody has
/// merged them.
const LISTINGS_MAX: u32 = 16;

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The pack's name.
    pub pack: Digest,
    /// The chunk in it.
    pub chunk: StoredChunk,
}

impl Location {
    /// Where it starts and ends.
    pub fn place(&self) -> ChunkPlace {
        ChunkPlace { pack: self.pack, start: self.chunk.offset, end: self.chunk.end() }
    }
}

/// An index file that is treated as not there. Spec: R-2-2.
#[derive(Debug)]
pub struct Damaged {
    /// Its name.
    pub name: FileName,
    /// What is wrong with it.
    pub error: Error,
}

/// The index of a repository. Threads share it.
pub struct Index {
    backend: Arc<dyn Backend>,
    mac: blake3::Hasher,
    state: RwLock<State>,
    /// Held by whoever changes which files there are, so that no listing undoes what came after it.
    changing: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The largest first: most chunks are there.
    files: Arc<Vec<OpenIndex>>,
    /// Files that are there and whose rows another one has.
    replaced: Vec<(Digest, Digest)>,
    damaged: Vec<Damaged>,
    /// Packs that are about to be removed. Spec: R-10-2.
    condemned: HashSet<Digest>,
    /// Packs that are not there. Spec: R-8-7.
    absent: HashSet<Digest>,
    /// Those of them that are there with another length: readers may find what they need in what is left.
    cut: HashSet<Digest>,
    damaged_chunks: Arc<DamagedChunks>,
    /// Chunks that could not be read: pack and offset.
    unreadable: HashSet<(Digest, u64)>,
    fresh: Fresh,
}

/// Chunks that cannot be read: those of both sets.
#[derive(Clone, Default)]
struct DamagedChunks {
    packs: HashSet<Digest>,
    ids: HashSet<Digest>,
}

impl DamagedChunks {
    fn has(&self, location: &Location) -> bool {
        self.ids.contains(&location.chunk.header.id) && self.packs.contains(&location.pack)
    }
}

#[derive(Clone)]
struct OpenIndex {
    name: Digest,
    file: Arc<IndexFile>,
    /// Of each pack, whether its chunks count.
    usable: Arc<[bool]>,
}

impl Index {
    /// Opens all index files there are. `mac` is the keyed hasher of the repository, or that of the context.
    pub fn open(backend: Arc<dyn Backend>, mac: blake3::Hasher) -> Result<Self> {
        let index = Self { backend, mac, state: RwLock::default(), changing: Mutex::default() };
        index.refresh()?;
        Ok(index)
    }

    /// Where the repository is.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// A place of a chunk, from which it can be read.
    pub fn find(&self, id: &Digest) -> Result<Option<Location>> {
        self.find_map(id, Some)
    }

    /// All places of a chunk.
    pub fn find_all(&self, id: &Digest) -> Result<Vec<Location>> {
        let mut found: Vec<Location> = Vec::new();
        self.find_map(id, |location| {
            if !found.contains(&location) {
                found.push(location);
            }
            None::<()>
        })?;
        Ok(found)
    }

    /// Whether a chunk need not be stored: it is indexed and was not found to be damaged, or this run has stored it.
    pub fn contains(&self, id: &Digest) -> Result<bool> {
        let is_sound = |location: Location| (!self.is_unreadable(&location)).then_some(());
        Ok(self.is_fresh(id) || self.find_map(id, is_sound)?.is_some())
    }

    /// Whether any chunk could not be read. Then others may be damaged that nobody has tried to read.
    pub fn is_damaged(&self) -> bool {
        !self.read().unreadable.is_empty()
    }

    /// A chunk could not be read here, so it has to be stored again by whoever needs it.
    pub(crate) fn note_unreadable(&self, location: &Location) {
        self.write().unreadable.insert((location.pack, location.chunk.offset));
    }

    fn is_unreadable(&self, location: &Location) -> bool {
        self.read().unreadable.contains(&(location.pack, location.chunk.offset))
    }

    /// Calls `each` with the places of a chunk until it gives something. Spec: R-8-7 and R-8-9.
    fn find_map<T>(&self, id: &Digest, mut each: impl FnMut(Location) -> Option<T>) -> Result<Option<T>> {
        let mut listings = 0;
        loop {
            match self.search(id, &mut each) {
                Err(error) if error.class == Class::Missing && listings < LISTINGS_MAX => self.refresh()?,
                other => return other,
            }
            listings += 1;
        }
    }

    fn search<T>(&self, id: &Digest, each: &mut impl FnMut(Location) -> Option<T>) -> Result<Option<T>> {
        let (fresh, files, damaged) = {
            let state = self.read();
            (state.fresh.find(id), state.files.clone(), state.damaged_chunks.clone())
        };
        let mut each = |location| if damaged.has(&location) { None } else { each(location) };
        if let Some(found) = fresh.and_then(&mut each) {
            return Ok(Some(found));
        }
        for open in files.iter() {
            let found = open.file.find_map(id, |row| open.location(&row).and_then(&mut each));
            if let Some(found) = found.map_err(|error| named(&open.name, error))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Lists again: files that are new are opened, files that are gone are closed. Spec: R-8-9.
    pub fn refresh(&self) -> Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LISTINGS_MAX {
            if self.list()? {
                return Ok(());
            }
        }
        Err(Error::missing(format!(
            "{}: index files vanish as soon as they are listed; see what else removes files there",
            self.backend.location()
        )))
    }

    /// Whether every file that was listed was there.
    fn list(&self) -> Result<bool> {
        let known = self.read().files.clone();
        let mut files = Vec::new();
        let mut damaged = Vec::new();
        for listed in self.backend.list(FileKind::Index).map_err(told)? {
            let name = Digest(*listed.name.digest());
            if let Some(open) = known.iter().find(|open| open.name == name) {
                files.push((name, open.file.clone()));
                continue;
            }
            match self.open_file(&listed.name) {
                Ok(file) => files.push((name, file)),
                Err(error) if error.class == Class::Missing => return Ok(false),
                Err(error) if error.class == Class::Io => return Err(error),
                Err(error) => damaged.push(Damaged { name: listed.name, error }),
            }
        }
        let mut replaced: Vec<(Digest, Digest)> =
            files.iter().flat_map(|(new, file)| file.replaces().iter().map(|old| (*old, *new))).collect();
        let of_others: HashSet<Digest> = replaced.iter().map(|(old, _)| *old).collect();
        let there: HashSet<Digest> = files.iter().map(|(name, _)| *name).collect();
        replaced.retain(|(old, _)| there.contains(old));
        files.retain(|(name, _)| !of_others.contains(name));
        let mut state = self.write();
        state.replaced = replaced;
        state.damaged = damaged;
        state.put(files);
        Ok(true)
    }

    fn open_file(&self, name: &FileName) -> Result<Arc<IndexFile>> {
        KeptFile::open(self.backend.clone(), *name)
            .and_then(|file| IndexFile::open(Arc::new(file), &self.mac))
            .map(Arc::new)
            .map_err(|error| named(&Digest(*name.digest()), error))
    }

    /// Index files that could not be used when they were listed last.
    pub fn take_damaged(&self) -> Vec<Damaged> {
        std::mem::take(&mut self.write().damaged)
    }

    /// The packs that index files name, with those that do not count.
    pub fn packs(&self) -> Vec<IndexPack> {
        let files = self.read().files.clone();
        let packs = files.iter().flat_map(|open| open.file.packs()).map(|pack| (pack.name, *pack));
        packs.collect::<HashMap<_, _>>().into_values().collect()
    }

    /// Takes no more chunks from these packs, in this run's own ones among them. Spec: R-10-2 and R-11-1.
    pub fn leave_out(&self, condemned: impl IntoIterator<Item = Digest>) {
        let mut state = self.write();
        state.condemned.extend(condemned);
        let State { fresh, condemned, .. } = &mut *state;
        fresh.forget_kept(condemned);
        state.sort_out();
    }

    /// Takes these chunks no more from these packs, where `check` has found them damaged. Spec: R-10-4.
    pub fn leave_out_chunks(
        &self,
        packs: impl IntoIterator<Item = Digest>,
        ids: impl IntoIterator<Item = Digest>,
    ) {
        let mut state = self.write();
        let damaged = Arc::make_mut(&mut state.damaged_chunks);
        damaged.packs.extend(packs);
        damaged.ids.extend(ids);
    }

    /// All rows there are now, each with a number.
    pub fn view(&self) -> IndexView {
        let files = self.read().files.iter().map(|open| (open.name, open.file.clone())).collect();
        IndexView::new(files, self.mac.clone())
    }

    /// Lists all packs and takes no chunk from one that is not there, or is there with another length; gives their
    /// names. Spec: R-8-7.
    pub fn leave_out_absent(&self) -> Result<Vec<Digest>> {
        // The files were listed before, so a pack that they name and that is not there now is no more.
        let files = self.read().files.clone();
        let listed = self.backend.list(FileKind::Data).map_err(told)?;
        let there: HashMap<&[u8; 32], u64> =
            listed.iter().map(|listed| (listed.name.digest(), listed.length)).collect();
        let packs = files.iter().flat_map(|open| open.file.packs());
        let absent: HashSet<Digest> = packs
            .filter(|pack| there.get(&pack.name.0) != Some(&pack.length))
            .map(|pack| pack.name)
            .collect();
        let cut = absent.iter().filter(|name| there.contains_key(&name.0)).copied().collect();
        let mut names: Vec<Digest> = absent.iter().copied().collect();
        names.sort_unstable();
        let mut state = self.write();
        state.cut = cut;
        state.absent = absent;
        state.sort_out();
        Ok(names)
    }

    /// Merges files while at least eight are about as large, and removes those that are merged: for the end of a run,
    /// when all is committed. Says how many were written. Spec: R-8-8.
    pub fn merge_levels(&self) -> Result<u64> {
        let mut written = 0;
        loop {
            match self.merge_level() {
                Ok(true) => written += 1,
                Ok(false) => return Ok(written),
                // Somebody else has merged them.
                Err(error) if error.class == Class::Missing => return self.refresh().map(|()| written),
                Err(error) => return Err(error),
            }
        }
    }

    fn merge_level(&self) -> Result<bool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_replaced()?;
        let files = self.read().files.clone();
        let level = |open: &OpenIndex| open.file.chunks().max(1).ilog2() / MERGED_FILES.ilog2();
        let mut levels: Vec<u32> = files.iter().map(level).collect();
        levels.sort_unstable();
        let full = levels.windows(MERGED_FILES).filter_map(|window| window.first().zip(window.last()));
        let Some(full) = full.filter(|(first, last)| first == last).map(|(first, _)| *first).next() else {
            return Ok(false);
        };
        let merged: Vec<&OpenIndex> = files.iter().filter(|open| level(open) == full).collect();
        let chunks: u64 = merged.iter().map(|open| open.file.chunks()).sum();
        if chunks > limits::INDEX_CHUNKS_MAX {
            return Ok(false);
        }
        self.replace(&merged.iter().map(|open| (open.name, open.file.clone())).collect::<Vec<_>>(), &[])?;
        Ok(true)
    }

    /// Writes one file of the rows of `files`, which replaces them and `others`, and removes those.
    /// Whoever calls this holds `changing`.
    fn replace(&self, files: &[(Digest, Arc<IndexFile>)], others: &[Digest]) -> Result<()> {
        let mut replaces: Vec<Digest> =
            files.iter().map(|(name, _)| *name).chain(others.iter().copied()).collect();
        replaces.sort_unstable();
        replaces.dedup();
        let gone: HashSet<Digest> = {
            let state = self.read();
            state.absent.difference(&state.cut).copied().collect()
        };
        let has = |pack: &IndexPack| !gone.contains(&pack.name);
        let inputs: Vec<Input<'_>> = files.iter().map(|(_, file)| Input::new(file, has)).collect();
        let name = merge(&*self.backend, &self.mac, &inputs, &replaces)?;
        self.add(name, replaces)?;
        self.remove_replaced()
    }

    /// Takes in a file that has just been written. Whoever calls this holds `changing`.
    fn add(&self, name: Digest, replaces: Vec<Digest>) -> Result<()> {
        let file = self.open_file(&FileName::new(FileKind::Index, name.0))?;
        let mut state = self.write();
        let kept = state.files.iter().filter(|open| open.name != name && !replaces.contains(&open.name));
        let mut files: Vec<_> = kept.map(|open| (open.name, open.file.clone())).collect();
        files.push((name, file));
        state.put(files);
        state.replaced.extend(replaces.into_iter().map(|old| (old, name)));
        Ok(())
    }

    fn remove_replaced(&self) -> Result<()> {
        self.remove_replaced_if(|_, _| true)
    }

    /// Removes files that others replace: the first of each pair is, by the second.
    pub fn remove_replaced_if(&self, may: impl Fn(&Digest, &Digest) -> bool) -> Result<()> {
        let replaced = std::mem::take(&mut self.write().replaced);
        let names: HashSet<Digest> =
            replaced.iter().filter(|(old, new)| may(old, new)).map(|(old, _)| *old).collect();
        let mut denied = 0;
        for name in names {
            match self.backend.delete(&FileName::new(FileKind::Index, name.0)) {
                Ok(()) => {}
                // Others remove them, too.
                Err(error) if error.class == diptych_backend::Class::Missing => {}
                // Where they may not be removed they do no harm, and whoever may removes them.
                Err(error) if error.class == diptych_backend::Class::Denied => {
                    denied += 1;
                    if denied >= DENIED_MAX {
                        return Ok(());
                    }
                }
                Err(error) => return Err(told(error)),
            }
        }
        Ok(())
    }

    pub(crate) fn begin_pack(&self) -> u64 {
        self.write().fresh.begin_pack()
    }

    pub(crate) fn add_fresh(&self, pack: u64, chunk: StoredChunk) {
        self.write().fresh.add(pack, chunk);
    }

    pub(crate) fn is_fresh(&self, id: &Digest) -> bool {
        self.read().fresh.contains(id)
    }

    /// Whether a pack that is stored again may be one that is there and not to be used. Spec: R-7-3.
    pub(crate) fn leaves_packs_out(&self) -> bool {
        let state = self.read();
        !state.cut.is_empty() || !state.condemned.is_empty() || !state.damaged_chunks.packs.is_empty()
    }

    /// A pack of this run is durable. It may be one that was missed: then all that it holds is there again.
    pub(crate) fn keep_pack(&self, number: u64, pack: IndexPack) {
        let mut state = self.write();
        state.fresh.keep_pack(number, pack);
        if state.absent.remove(&pack.name) {
            state.sort_out();
        }
    }

    pub(crate) fn kept_chunks(&self) -> u64 {
        self.read().fresh.kept_chunks()
    }

    pub(crate) fn forget_begun(&self, packs: &HashSet<u64>) {
        self.write().fresh.forget_begun(packs);
    }

    /// Writes an index file of all durable packs that none names yet. Spec: R-11-1 and R-11-4.
    pub(crate) fn write_fresh(&self) -> Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (packs, rows) = self.read().fresh.kept()?;
        if packs.is_empty() {
            return Ok(());
        }
        let again = || Ok(rows.iter().copied().map(Ok));
        // The same packs, stored again after they were lost, would make the file of the same name, which another one may
        // say that it replaces: it would be taken for replaced, and removed. A name that nobody has makes it another file.
        let is_replacing = self.read().files.iter().any(|open| !open.file.replaces().is_empty());
        let unlike = if is_replacing { vec![Digest(random()?)] } else { Vec::new() };
        let name = write_index(&*self.backend, &self.mac, &packs, &unlike, again)?;
        self.add(name, Vec::new())?;
        self.write().fresh.forget_kept(&packs.iter().map(|pack| pack.name).collect());
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, mut files: Vec<(Digest, Arc<IndexFile>)>) {
        files.sort_by_key(|(_, file)| std::cmp::Reverse(file.chunks()));
        let open = files.into_iter().map(|(name, file)| {
            let counts =
                |pack: &IndexPack| !self.condemned.contains(&pack.name) && !self.absent.contains(&pack.name);
            let usable = file.packs().iter().map(counts).collect();
            OpenIndex { name, file, usable }
        });
        self.files = Arc::new(open.collect());
    }

    /// Which packs count has changed.
    fn sort_out(&mut self) {
        self.put(self.files.iter().map(|open| (open.name, open.file.clone())).collect());
    }
}

impl OpenIndex {
    fn location(&self, row: &IndexRow) -> Option<Location> {
        let place = row.pack as usize;
        let pack = self.file.packs().get(place).filter(|_| self.usable.get(place) == Some(&true))?;
        let chunk = StoredChunk { offset: row.offset.into(), header: row.header };
        Some(Location { pack: pack.name, chunk })
    }
}

fn named(name: &Digest, mut error: Error) -> Error {
    error.what = format!("index/{name}: {}", error.what);
    error
}
