//! What of a repository on a server is kept on this machine: files that never change and that every run needs. They
//! are there as they are on the server, sealed if they are sealed there.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Mutex, PoisonError};

use diptych_backend::{Backend, Error, FileKind, FileName, Listed, Local, NewFile, Result};
use diptych_format::pack::PackHolds;

/// The cache of one location.
pub(super) struct Cache {
    local: Local,
    holds: Mutex<HashMap<FileName, PackHolds>>,
    /// Of a machine without a place for caches: it goes with the process.
    _temporary: Option<tempfile::TempDir>,
}

impl Cache {
    /// In the user's cache directory, or else in a temporary one.
    pub fn open(location: &str) -> Result<std::sync::Arc<Self>> {
        let kept = super::cache_directory(location);
        let made =
            kept.filter(|path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).is_ok());
        let (path, temporary) = match made {
            Some(path) => (path, None),
            None => {
                let failed = |error| Error::io("no directory for what is fetched can be made", error);
                let made = tempfile::tempdir().map_err(failed)?;
                (made.path().to_owned(), Some(made))
            }
        };
        let local = Local::open(path)?;
        match local.make_layout() {
            // It holds what earlier runs have fetched.
            Err(error) if error.class == diptych_backend::Class::Exists => {}
            made => made?,
        }
        Ok(std::sync::Arc::new(Self { local, holds: Mutex::default(), _temporary: temporary }))
    }

    /// Whether a file is here.
    pub fn has(&self, name: &FileName) -> bool {
        self.local.length(name).is_ok()
    }

    pub fn create(&self, kind: FileKind) -> Result<Box<dyn NewFile>> {
        self.local.create(kind)
    }

    pub fn read_at(&self, name: &FileName, buf: &mut [u8], offset: u64) -> Result<()> {
        self.local.read_at(name, buf, offset)
    }

    pub fn length(&self, name: &FileName) -> Result<u64> {
        self.local.length(name)
    }

    /// What does not go can stay: it is no longer asked for.
    pub fn remove(&self, name: &FileName) {
        let _ = self.local.delete(name);
    }

    /// Removes what the server has no more.
    pub fn retain(&self, kind: FileKind, listed: &[Listed]) {
        for here in self.local.list(kind).unwrap_or_default() {
            if listed.binary_search_by_key(&here.name, |listed| listed.name).is_err() {
                self.remove(&here.name);
            }
        }
    }

    /// What is known of a pack.
    pub fn holds(&self, name: &FileName) -> Option<PackHolds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub fn note_holds(&self, name: &FileName, holds: PackHolds) {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).insert(*name, holds);
    }
}
