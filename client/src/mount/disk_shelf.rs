//! Chunks of a repository far away, kept on this machine's disk up to a limit: sealed, where they are sealed there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use diptych_format::Digest;
use diptych_repository::Shelf;

use crate::error::{Error, Result};
use crate::remote::cache_directory;

/// When there is no more room, what was used longest ago goes until so many percent are in use.
const KEPT_PERCENT: u64 = 80;

/// The chunks of one location. Several processes may share them.
pub(super) struct DiskShelf {
    directory: PathBuf,
    limit: u64,
    /// Bytes in use, as far as this process knows.
    used: AtomicU64,
    clearing: Mutex<()>,
}

impl DiskShelf {
    /// In the user's cache directory; none where there is no place for one.
    pub(super) fn open(location: &str, limit: u64) -> Result<Option<Self>> {
        let Some(directory) = cache_directory(location).map(|path| path.with_extension("chunks")) else {
            return Ok(None);
        };
        let failed = |error| Error::io(directory.display().to_string(), "cannot be made", error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let shelf = Self { directory, limit, used: AtomicU64::new(0), clearing: Mutex::default() };
        shelf.clear();
        Ok(Some(shelf))
    }

    fn path(&self, id: &Digest) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// Counts what is there, and removes what is too much.
    fn clear(&self) {
        // One at a time; the others go on meanwhile.
        let Ok(_clearing) = self.clearing.try_lock() else { return };
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let known = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some((used, metadata.len(), entry.path()))
        };
        let mut files: Vec<_> = entries.flatten().filter_map(known).collect();
        let mut sum: u64 = files.iter().map(|(_, length, _)| length).sum();
        if sum > self.limit {
            files.sort();
            for (_, length, path) in files {
                if sum <= self.limit / 100 * KEPT_PERCENT {
                    break;
                }
                // Another process may have been faster.
                let _ = fs::remove_file(path);
                sum = sum.saturating_sub(length);
            }
        }
        self.used.store(sum, Ordering::Relaxed);
    }
}

impl Shelf for DiskShelf {
    fn get(&self, id: &Digest, buffer: &mut [u8]) -> bool {
        let Ok(mut file) = File::open(self.path(id)) else { return false };
        let is_whole = file.metadata().is_ok_and(|metadata| metadata.len() == buffer.len() as u64);
        // It was used just now; if that cannot be noted, it goes earlier.
        let _ = file.set_modified(SystemTime::now());
        is_whole && file.read_exact(buffer).is_ok()
    }

    fn put(&self, id: &Digest, stored: &[u8]) {
        let length = stored.len() as u64;
        if length > self.limit {
            return;
        }
        // Beside the name that it gets when it is whole. Whatever fails, the chunk is fetched again.
        let new = self.directory.join(format!(".{id}-{}", std::process::id()));
        let written = File::options().write(true).create_new(true).mode(0o600).open(&new);
        let written = written.and_then(|mut file| file.write_all(stored));
        if written.and_then(|()| fs::rename(&new, self.path(id))).is_err() {
            let _ = fs::remove_file(new);
            return;
        }
        if self.used.fetch_add(length, Ordering::Relaxed).saturating_add(length) > self.limit {
            self.clear();
        }
    }

    fn remove(&self, id: &Digest) {
        let _ = fs::remove_file(self.path(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = DiskShelf {
            directory: directory.path().to_owned(),
            limit: 1000,
            used: AtomicU64::new(0),
            clearing: Mutex::default(),
        };
        let id = |number: u8| Digest::of(&[number]);
        for number in 0..10 {
            shelf.put(&id(number), &[number; 100]);
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number.into());
            File::options().write(true).open(shelf.path(&id(number))).unwrap().set_modified(time).unwrap();
        }
        let mut buffer = [0; 100];
        assert!(shelf.get(&id(0), &mut buffer) && buffer == [0; 100]);
        shelf.put(&id(10), &[10; 100]);
        assert!(shelf.get(&id(0), &mut buffer), "it was used just now");
        assert!(!shelf.get(&id(1), &mut buffer) && !shelf.get(&id(2), &mut buffer));
        assert!(shelf.get(&id(9), &mut buffer) && shelf.get(&id(10), &mut buffer));
        assert!(!shelf.get(&id(9), &mut [0; 99]), "another length");
        shelf.put(&id(11), &[0; 1001]);
        assert!(!shelf.path(&id(11)).exists());
        shelf.remove(&id(9));
        assert!(!shelf.get(&id(9), &mut buffer));
    }
}
