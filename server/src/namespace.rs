//! Namespaces: the repositories that a server offers, each under its name.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diptych_backend::{Backend, FileKind, FileName, Listed};
use diptych_format::{Digest, Error as FormatError, limits};
use diptych_repository::documents::{Config, RepositoryId};
use diptych_repository::repository::OpenError;
use diptych_repository::stream::{CacheBudget, Caches};
use diptych_repository::{DocumentKeys, IndexFile, KeptFile, Repository};

use crate::problem::{Problem, ProblemClass, Result};

/// What is kept in memory of the index files of a namespace that are open, in bytes: their packs and their fan-outs.
const INDEX_BYTES_MAX: usize = 32 << 20;
/// What is kept of a repository that is looked into.
const CACHE_BYTES: usize = 32 << 20;
/// Segments of a namespace of which it is known that all below them is there: some 10 MB.
const WHOLE_MAX: usize = 1 << 17;

/// Where the repositories are.
pub enum Namespaces {
    /// One, under a name.
    One(Arc<Namespace>),
    /// Each directory in a directory.
    Root {
        /// That directory.
        root: PathBuf,
        /// Those that were asked for.
        open: Mutex<HashMap<String, Arc<Namespace>>>,
    },
}

impl Namespaces {
    /// The namespace of a name. It need not be there yet. Spec: P-1-1.
    pub fn get(&self, name: &str) -> Result<Arc<Namespace>> {
        if !is_name(name) {
            return Err(Problem::missing(name));
        }
        match self {
            Self::One(namespace) if namespace.name == name => Ok(Arc::clone(namespace)),
            Self::One(_) => Err(Problem::missing(name)),
            Self::Root { root, open } => {
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(namespace) = open.get(name) {
                    return Ok(Arc::clone(namespace));
                }
                let backend = Arc::new(diptych_backend::Local::open(root.join(name))?);
                let namespace = Arc::new(Namespace::new(name, backend));
                // One that is not there is not remembered: anybody could ask for any number of those.
                if root.join(name).is_dir() {
                    open.insert(name.to_owned(), Arc::clone(&namespace));
                }
                Ok(namespace)
            }
        }
    }

    /// The names of all repositories.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let root = match self {
            Self::One(only) => return Ok(vec![only.name.clone()]),
            Self::Root { root, .. } => root,
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && is_name(&name)
                && entry.path().join("config").is_file()
            {
                found.push(name);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes what a server has left that was killed. If it cannot be removed, whoever sends is told why.
    pub fn remove_leftovers(&self) {
        for name in self.names().unwrap_or_default() {
            if let Ok(namespace) = self.get(&name) {
                let _ = namespace.backend.remove_leftovers();
            }
        }
    }
}

/// Whether this can be a namespace's name. No such name leads out of a directory, or is hidden in it. Spec: P-1-1.
pub fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_plain = |byte: u8| is_letter(byte) || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().next().is_some_and(is_letter) && name.bytes().all(is_plain)
}

/// A repository that is offered.
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Where its files are.
    pub backend: Arc<dyn Backend>,
    facts: Mutex<Option<Facts>>,
    indexes: Mutex<Indexes>,
    /// Segments under which all is there, for the tokens of a domain.
    whole: Mutex<HashSet<(String, Digest)>>,
    /// The index files that were there when somebody looked last.
    seen: Mutex<HashSet<Digest>>,
    /// To look into, where it is not encrypted.
    open: Mutex<Option<(Repository, Caches)>>,
}

/// Index files that are open, and the memory that they take.
#[derive(Default)]
struct Indexes {
    open: HashMap<Digest, Arc<IndexFile>>,
    bytes: usize,
}

/// What a repository is.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its id.
    pub id: RepositoryId,
    /// Whether only clients can open its chunks.
    pub is_encrypted: bool,
}

impl Namespace {
    /// The repository whose files `backend` keeps.
    pub fn new(name: &str, backend: Arc<dyn Backend>) -> Self {
        Self {
            name: name.to_owned(),
            backend,
            facts: Mutex::default(),
            indexes: Mutex::default(),
            whole: Mutex::default(),
            seen: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// What the repository is; *missing* where there is none.
    pub fn facts(&self) -> Result<Facts> {
        let mut known = lock(&self.facts);
        if let Some(facts) = *known {
            return Ok(facts);
        }
        let config = Config::decode(&self.read(&FileName::CONFIG)?)?;
        if !config.is_encrypted() {
            config.verify(&DocumentKeys::plain())?;
        }
        let facts = Facts { id: config.id, is_encrypted: config.is_encrypted() };
        *known = Some(facts);
        Ok(facts)
    }

    /// The repository, where it is not encrypted, with what is open by now.
    pub fn open_plain(&self) -> Result<(Repository, Caches)> {
        let mut open = lock(&self.open);
        if open.is_none() {
            let no_password = || Err(FormatError::missing("there is no password"));
            let repository = Repository::open(Arc::clone(&self.backend), false, no_password, |_| {});
            let repository = repository.map_err(|error| match error {
                OpenError::None(error) | OpenError::Failed(error) => Problem::from(error),
                OpenError::WrongPassword | OpenError::NotEncrypted => {
                    Problem::denied("the repository is encrypted")
                }
            })?;
            let caches =
                Caches::new(CacheBudget::of(CACHE_BYTES), Arc::default(), repository.chunk_keys().clone());
            *open = Some((repository, caches));
        }
        let Some((repository, caches)) = &*open else {
            return Err(Problem::missing(&self.name));
        };
        let opened = (repository.clone(), caches.clone());
        drop(open);
        opened.0.index().refresh()?;
        Ok(opened)
    }

    /// All bytes of a document.
    pub fn read(&self, name: &FileName) -> Result<Vec<u8>> {
        let length = self.backend.length(name)?;
        if length > limits::DOCUMENT_MAX {
            let what = format!("{name} is longer than any document");
            return Err(Problem::new(ProblemClass::Limit, what));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.backend.read_at(name, &mut bytes, 0)?;
        Ok(bytes)
    }

    /// An index file that is there.
    pub fn index(&self, name: &FileName) -> Result<Arc<IndexFile>> {
        let digest = Digest(*name.digest());
        if let Some(index) = lock(&self.indexes).open.get(&digest) {
            return Ok(Arc::clone(index));
        }
        let file = Arc::new(KeptFile::open(Arc::clone(&self.backend), *name)?);
        let index = Arc::new(IndexFile::open_unproved(file)?);
        let mut indexes = lock(&self.indexes);
        if indexes.bytes >= INDEX_BYTES_MAX {
            *indexes = Indexes::default();
        }
        if indexes.open.insert(digest, Arc::clone(&index)).is_none() {
            indexes.bytes += index.weight();
        }
        Ok(index)
    }

    /// These index files are there now. If one is gone that was there before, packs may be gone as well, by another server
    /// or by whoever works beside this one: what was concluded from them is concluded no more.
    pub fn note_indexes(&self, there: &[Listed]) {
        let there: HashSet<Digest> = there.iter().map(|listed| Digest(*listed.name.digest())).collect();
        let mut seen = lock(&self.seen);
        if !seen.is_subset(&there) {
            lock(&self.whole).clear();
        }
        *seen = there;
    }

    /// Whether all below a segment was found to be there.
    pub fn is_whole(&self, domain: &str, segment: &Digest) -> bool {
        lock(&self.whole).contains(&(domain.to_owned(), *segment))
    }

    /// Remembers that all below a segment is there.
    pub fn note_whole(&self, domain: &str, segment: &Digest) {
        let mut whole = lock(&self.whole);
        if whole.len() >= WHOLE_MAX {
            whole.clear();
        }
        whole.insert((domain.to_owned(), *segment));
    }

    /// A file is gone: what was concluded from it is concluded no more.
    pub fn forget(&self, name: &FileName) {
        if matches!(name.kind(), FileKind::Data | FileKind::Index) {
            lock(&self.whole).clear();
            *lock(&self.indexes) = Indexes::default();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in these is half done when a thread panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: P-1-1.
    #[test]
    fn names_lead_nowhere() {
        for name in ["main", "a", "0", "a.b-c_d", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".x", "a/b", "A", "a b", "a\0", "é", "-x", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
