//! A repository in memory that remembers each change, so that a test can see what a crash between any two leaves.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Class, Error, Result};
use crate::name::{FileKind, FileName};
use crate::{Backend, Listed, NewFile, check_kind, config_exists, truncated};

/// Something that changed what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The layout was made.
    Layout,
    /// A file was begun: until it is kept or dropped, a crash leaves it.
    Created(FileKind),
    /// A file was kept, with these bytes.
    Kept(FileName, Arc<[u8]>),
    /// A file was dropped.
    Dropped(FileKind),
    /// A file was deleted.
    Deleted(FileName),
    /// So many files that writers had left were removed.
    Removed(u64),
}

/// A repository in memory. Clones of it are the same repository.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    has_layout: bool,
    files: BTreeMap<FileName, Arc<[u8]>>,
    /// Files that were begun and neither kept nor dropped.
    begun: u64,
    /// As many of them had a writer that is gone.
    left: u64,
    log: Vec<Change>,
}

impl Memory {
    /// One without a layout.
    pub fn new() -> Self {
        Self::default()
    }

    /// All changes so far.
    pub fn log(&self) -> Vec<Change> {
        self.lock().log.clone()
    }

    /// What would be there if everything had ended after the first `count` changes: a repository of its own, with
    /// those in its log.
    #[must_use]
    pub fn after(&self, count: usize) -> Self {
        let mut state = State::default();
        self.log().into_iter().take(count).for_each(|change| state.apply(change));
        state.left = state.begun;
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, if there is a place for it.
    fn laid_out(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.has_layout {
            return Ok(state);
        }
        let what = format!("{}: no repository is here; make the layout first", self.location());
        Err(Error::new(Class::Missing, what))
    }

    fn find(&self, file: &FileName) -> Result<Arc<[u8]>> {
        self.laid_out()?.files.get(file).cloned().ok_or_else(|| self.missing(file))
    }

    fn missing(&self, file: &FileName) -> Error {
        Error::new(Class::Missing, format!("{}: there is no such file", self.place(file)))
    }

    fn place(&self, file: &FileName) -> String {
        format!("{}/{file}", self.location())
    }
}

impl State {
    /// Carries out a change: the first time as well as when the log is followed anew.
    fn apply(&mut self, change: Change) {
        match &change {
            Change::Layout => self.has_layout = true,
            Change::Created(_) => self.begun += 1,
            Change::Kept(name, bytes) => {
                self.begun -= 1;
                self.files.insert(*name, bytes.clone());
            }
            Change::Dropped(_) => self.begun -= 1,
            Change::Deleted(name) => {
                self.files.remove(name);
            }
            Change::Removed(count) => {
                self.begun -= count;
                self.left = 0;
            }
        }
        self.log.push(change);
    }
}

impl Backend for Memory {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn make_layout(&self) -> Result<()> {
        let mut state = self.lock();
        if state.files.contains_key(&FileName::CONFIG) {
            return Err(config_exists(&self.location()));
        }
        if let Some(first) = state.files.keys().next() {
            let what = format!("{}: it is not empty, it holds {first}; use another", self.location());
            return Err(Error::new(Class::Exists, what));
        }
        if !state.has_layout {
            state.apply(Change::Layout);
        }
        Ok(())
    }

    fn create(&self, kind: FileKind) -> Result<Box<dyn NewFile>> {
        self.laid_out()?.apply(Change::Created(kind));
        Ok(Box::new(MemoryFile { memory: self.clone(), kind, bytes: Vec::new(), has_name: false }))
    }

    fn read_at(&self, file: &FileName, buf: &mut [u8], offset: u64) -> Result<()> {
        let bytes = self.find(file)?;
        let wanted = buf.len();
        if wanted == 0 {
            return Ok(());
        }
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(wanted)?));
        let found = range.and_then(|range| bytes.get(range));
        let found = found.ok_or_else(|| truncated(&self.place(file), wanted, offset, bytes.len() as u64))?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn length(&self, file: &FileName) -> Result<u64> {
        Ok(self.find(file)?.len() as u64)
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>> {
        let state = self.laid_out()?;
        let files = state.files.iter().filter(|(name, _)| name.kind() == kind);
        Ok(files.map(|(name, bytes)| Listed { name: *name, length: bytes.len() as u64 }).collect())
    }

    /// There are none: nobody else reaches this memory.
    fn strangers(&self, _: FileKind) -> Result<Vec<String>> {
        self.laid_out().map(|_| Vec::new())
    }

    fn delete(&self, file: &FileName) -> Result<()> {
        let mut state = self.laid_out()?;
        if !state.files.contains_key(file) {
            return Err(self.missing(file));
        }
        state.apply(Change::Deleted(*file));
        Ok(())
    }

    fn remove_leftovers(&self) -> Result<u64> {
        let mut state = self.laid_out()?;
        let left = state.left;
        if left > 0 {
            state.apply(Change::Removed(left));
        }
        Ok(left)
    }
}

struct MemoryFile {
    memory: Memory,
    kind: FileKind,
    bytes: Vec<u8>,
    has_name: bool,
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for MemoryFile {
    fn read_back(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let part = start.and_then(|start| self.bytes.get(start..)?.get(..buf.len()));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn keep(mut self: Box<Self>, name: &FileName) -> Result<()> {
        let location = self.memory.location();
        check_kind(&location, self.kind, name)?;
        let memory = self.memory.clone();
        let mut state = memory.lock();
        if self.kind == FileKind::Config && state.files.contains_key(name) {
            // The lock is not held when the file is dropped, which takes it.
            drop(state);
            return Err(config_exists(&location));
        }
        self.has_name = true;
        state.apply(Change::Kept(*name, std::mem::take(&mut self.bytes).into()));
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if !self.has_name {
            self.memory.lock().apply(Change::Dropped(self.kind));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FileName = FileName::CONFIG;

    fn snapshot() -> FileName {
        FileName::new(FileKind::Snapshot, [7; 32])
    }

    fn keep(memory: &Memory, name: &FileName, bytes: &[u8]) {
        let mut file = memory.create(name.kind()).unwrap();
        file.write_all(bytes).unwrap();
        file.keep(name).unwrap();
    }

    #[test]
    fn a_crash_can_be_tried_at_every_point() {
        let memory = Memory::new();
        memory.make_layout().unwrap();
        keep(&memory, &A, b"config");
        keep(&memory, &snapshot(), b"one");
        drop(memory.create(FileKind::Snapshot).unwrap());
        memory.delete(&snapshot()).unwrap();
        use Change::{Created, Deleted, Dropped, Kept, Layout};
        let log = [
            Layout,
            Created(FileKind::Config),
            Kept(A, b"config"[..].into()),
            Created(FileKind::Snapshot),
            Kept(snapshot(), b"one"[..].into()),
            Created(FileKind::Snapshot),
            Dropped(FileKind::Snapshot),
            Deleted(snapshot()),
        ];
        assert_eq!(memory.log(), log);
        assert_eq!(memory.after(0).list(FileKind::Config).unwrap_err().class, Class::Missing);
        let counts = |count| {
            let state = memory.after(count);
            assert_eq!(state.log(), log[..count]);
            let files = [FileKind::Config, FileKind::Snapshot].map(|kind| state.list(kind).unwrap().len());
            (files, state.remove_leftovers().unwrap())
        };
        let expected = [
            ([0, 0], 0),
            ([0, 0], 1),
            ([1, 0], 0),
            ([1, 0], 1),
            ([1, 1], 0),
            ([1, 1], 1),
            ([1, 1], 0),
            ([1, 0], 0),
        ];
        assert_eq!((1..=log.len()).map(counts).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_comes_after_a_crash_is_a_history_of_its_own() {
        let memory = Memory::new();
        memory.make_layout().unwrap();
        let begun = memory.create(FileKind::Data).unwrap();
        let crashed = memory.after(2);
        drop(begun);
        keep(&crashed, &A, b"config");
        assert_eq!(memory.list(FileKind::Config).unwrap(), []);
        assert_eq!(crashed.remove_leftovers().unwrap(), 1);
        assert_eq!(crashed.remove_leftovers().unwrap(), 0);
        let again = crashed.after(crashed.log().len());
        assert_eq!(again.remove_leftovers().unwrap(), 0);
        assert_eq!(again.list(FileKind::Config).unwrap(), crashed.list(FileKind::Config).unwrap());
    }
}
