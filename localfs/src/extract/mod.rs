//! Entries become a tree on disk, and cannot lead out of it.
//!
//! Everything is done in an open directory, one name at a time, and no name is ever followed: what stands where
//! something is to be made is in the way, and is an error or is removed, never written through. Files and directories
//! are made for their owner alone and get their attributes when their contents are there. A file that is dropped before
//! it is finished is removed.
//!
//! Where something may be there already, [`OutDirectory::standing`] and [`OldFile`] tell what, `delete` removes what
//! should not be there, and [`OutDirectory::change_file`] changes a file where it lies.
//!
//! Flags that forbid changes (immutable, append-only) are set at the very end: before, hard links to such a file or
//! entries in such a directory could not be made.

mod delete;
mod directory;
mod dress;
mod file;
mod flags;
mod remove;
mod standing;

pub use delete::{Deleted, Deletion, MayGo, Mount};
pub use directory::OutDirectory;
pub use file::OutFile;
pub use standing::{OldFile, Standing, in_the_way};

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use diptych_format::{Error, Name, Result};
use rustix::fs::{Mode, OFlags, RawDir, fstatvfs, mkdirat, open, openat};
use rustix::io::Errno;

use crate::facts::{retry, words};
use crate::handle::patiently;
use crate::place::{Identity, Place, Places, open_beneath, raise_descriptor_limit};

/// The directory that a tree is written into.
pub struct Target {
    shared: Arc<Shared>,
    root: Arc<OwnedFd>,
    place: Arc<Place>,
    /// The directories that were made for it, the outermost first.
    made: Vec<PathBuf>,
    /// Whether it held nothing when it was opened.
    was_empty: bool,
}

/// What all parts of an extraction share.
struct Shared {
    is_overwriting: bool,
    /// The owner that files and directories have when they have been made, learnt from the first one.
    born: OnceLock<dress::Born>,
    /// What must not change any more, to be told so at the end.
    deferred: Mutex<Vec<Deferred>>,
    /// Objects that were made at paths to which links may be made.
    made: Mutex<HashMap<Vec<u8>, Identity>>,
    /// Files so far that were written beside the one that they replace.
    beside: AtomicU64,
}

/// Flags to be set at the end.
struct Deferred {
    path: Vec<u8>,
    identity: Identity,
    flags: u32,
}

fn cannot(what: impl Into<String>) -> impl FnOnce(Errno) -> Error {
    move |error| Error::io(what, words(error))
}

/// The descriptor of a directory that was open before.
fn again(place: &Arc<Place>) -> Result<Arc<OwnedFd>> {
    patiently(|| place.fd()).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => {
            cannot("its directory was moved or replaced by another while it was written")(error)
        }
        error => cannot("cannot open its directory again")(error),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// Opens the directory at `path`, made for its owner alone if it is not there. One that holds something is refused
    /// unless what is in the way may be replaced. Symbolic links are followed here and nowhere below.
    pub fn open(path: &Path, is_overwriting: bool) -> Result<Self> {
        let what = || format!("cannot write to {}", path.display());
        raise_descriptor_limit();
        let mut made = Vec::new();
        if !path.exists()
            && let Err(error) = make_target(path, &mut made)
        {
            remove_empty(&made);
            return Err(Error::io(what(), error));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry(|| open(path, flags, Mode::empty())).map_err(cannot(what()))?;
        let was_empty = is_empty(&root).map_err(cannot(what()))?;
        if !is_overwriting && !was_empty {
            let what =
                format!("{} is not empty: name another target, or --overwrite what is there", path.display());
            return Err(Error::io(what, std::io::ErrorKind::AlreadyExists.into()));
        }
        Self::at(root, is_overwriting, was_empty, made).map_err(cannot(what()))
    }

    /// Opens the directory at `path` as it is, to be looked at; none if there is none.
    pub fn look(path: &Path) -> Result<Option<Self>> {
        let what = || format!("cannot look at {}", path.display());
        raise_descriptor_limit();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match retry(|| open(path, flags, Mode::empty())) {
            Ok(root) => {
                let was_empty = is_empty(&root).map_err(cannot(what()))?;
                Self::at(root, false, was_empty, Vec::new()).map(Some).map_err(cannot(what()))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(cannot(what())(error)),
        }
    }

    /// A target of its own at `path` below this one, no link followed on the way. What is missing is made if
    /// `is_made`, as anybody makes directories; else there is none.
    pub fn below(&self, path: &[u8], is_made: bool, is_overwriting: bool) -> Result<Option<Self>> {
        let what = || format!("cannot open the directory {}", String::from_utf8_lossy(path));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = retry(|| openat(&self.root, c".", flags, Mode::empty())).map_err(cannot(what()))?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            // A path comes from whoever wrote the snapshot: `..` would lead out.
            Name::try_new(name)?;
            if is_made {
                match retry(|| mkdirat(&at, name, Mode::RWXU | Mode::RWXG | Mode::RWXO)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(cannot(what())(error)),
                }
            }
            at = match retry(|| openat(&at, name, flags, Mode::empty())) {
                Ok(next) => next,
                Err(Errno::NOENT) if !is_made => return Ok(None),
                Err(error) => return Err(cannot(what())(error)),
            };
        }
        let was_empty = is_empty(&at).map_err(cannot(what()))?;
        Self::at(at, is_overwriting, was_empty, Vec::new()).map(Some).map_err(cannot(what()))
    }

    fn at(root: OwnedFd, is_overwriting: bool, was_empty: bool, made: Vec<PathBuf>) -> Result<Self, Errno> {
        let shared = Shared {
            is_overwriting,
            born: OnceLock::new(),
            deferred: Mutex::default(),
            made: Mutex::default(),
            beside: AtomicU64::new(0),
        };
        let place = Places::new(root).root();
        let root = place.fd()?;
        Ok(Self { shared: Arc::new(shared), root, place, made, was_empty })
    }

    /// Whether it held nothing when it was opened.
    pub fn was_empty(&self) -> bool {
        self.was_empty
    }

    /// The root, to be written and finished like any directory.
    pub fn root(&self) -> Result<OutDirectory> {
        OutDirectory::existing(Arc::clone(&self.shared), Arc::clone(&self.place))
    }

    /// Bytes that may still be written on the file system of the target.
    pub fn free_bytes(&self) -> Result<u64> {
        let stat = retry(|| fstatvfs(&self.root)).map_err(cannot("cannot ask for the space that is left"))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Sets the flags that forbid changes, when everything else is done. Gives the paths where that failed, and why.
    pub fn finish(&self) -> Vec<(Vec<u8>, String)> {
        let deferred = std::mem::take(&mut *lock(&self.shared.deferred));
        let failed = deferred.into_iter().filter_map(|deferred| {
            let why = match self.reopen(&deferred) {
                Ok(fd) => flags::set(&fd, deferred.flags)?,
                Err(error) => format!("the file flags cannot be set: {}", words(error)),
            };
            Some((deferred.path, why))
        });
        failed.collect()
    }

    /// Takes back what opening it made, for an extraction that failed: the directories that hold nothing.
    pub fn give_up(self) {
        remove_empty(&self.made);
    }

    /// Opens what this extraction made, following no link on the way, and makes sure that it is still the same.
    fn reopen(&self, deferred: &Deferred) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path: &[u8] = if deferred.path.is_empty() { b"." } else { &deferred.path };
        let fd = open_beneath(&self.root, path, flags)?;
        if Identity::of_open(&fd)? == deferred.identity { Ok(fd) } else { Err(Errno::STALE) }
    }
}

/// Makes a directory for its owner alone, and those above it as others make them; notes those that were not there.
fn make_target(path: &Path, made: &mut Vec<PathBuf>) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let above = path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let missing: Vec<&Path> = above.collect();
    for above in missing.into_iter().rev() {
        match std::fs::create_dir(above) {
            Ok(()) => made.push(above.to_owned()),
            // Another has made it in the meantime, or the path leads back and forth.
            Err(_) if above.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    made.push(path.to_owned());
    Ok(())
}

fn remove_empty(made: &[PathBuf]) {
    for directory in made.iter().rev() {
        // One that holds something stays, whoever put it there.
        if std::fs::remove_dir(directory).is_err() {
            return;
        }
    }
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
