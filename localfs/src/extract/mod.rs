//! Entries become a tree on disk, and cannot lead out of it.
//!
//! Everything is done in an open directory, one name at a time, and no name is ever followed: what stands where
//! something is to be made is in the way, and is an error or is removed, never written through. Files and directories
//! are made for their owner alone and get their attributes when their contents are there. A file that is dropped before
//! it is finished is removed.
//!
//! Flags that forbid changes (immutable, append-only) are set at the very end: before, hard links to such a file or
//! entries in such a directory could not be made.

mod directory;
mod dress;
mod file;
mod flags;
mod remove;

pub use directory::OutDirectory;
pub use file::OutFile;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use diptych_format::{Error, Name, Result};
use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, ResolveFlags, StatxFlags, fstatvfs, makedev, open, openat, openat2, statx,
};
use rustix::io::Errno;

use crate::facts::{retry, words};

/// The directory that a tree is written into.
pub struct Target {
    shared: Arc<Shared>,
    root: Arc<OwnedFd>,
}

/// Which object something is, whatever its names are. An inode number is given to another file once its own is gone,
/// so the time of birth belongs to it where the file system knows that.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    born: Option<(i64, u32)>,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Identity {
    /// Which object an open file is.
    fn of_open(fd: impl AsFd) -> Result<Self, Errno> {
        Self::of(fd, b"", AtFlags::EMPTY_PATH)
    }

    /// Which object a name in a directory stands for, not following it.
    fn of_name(directory: impl AsFd, name: &Name) -> Result<Self, Errno> {
        Self::of(directory, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn of(fd: impl AsFd, name: &[u8], flags: AtFlags) -> Result<Self, Errno> {
        let stat = retry(|| statx(&fd, name, flags, StatxFlags::INO | StatxFlags::BTIME))?;
        let knows_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok(Self {
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: knows_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
        })
    }
}

impl Target {
    /// Opens the directory at `path`, made for its owner alone if it is not there. One that holds something is refused
    /// unless what is in the way may be replaced. Symbolic links are followed here and nowhere below.
    pub fn open(path: &Path, is_overwriting: bool) -> Result<Self> {
        let what = || format!("cannot write to {}", path.display());
        crate::scan::raise_descriptor_limit();
        if !path.exists() {
            make_target(path).map_err(|error| Error::io(what(), error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry(|| open(path, flags, Mode::empty())).map_err(cannot(what()))?;
        if !is_overwriting && !is_empty(&root).map_err(cannot(what()))? {
            let what =
                format!("{} is not empty: name another target, or --overwrite what is there", path.display());
            return Err(Error::io(what, std::io::ErrorKind::AlreadyExists.into()));
        }
        let shared = Shared {
            is_overwriting,
            born: OnceLock::new(),
            deferred: Mutex::default(),
            made: Mutex::default(),
            beside: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), root: Arc::new(root) })
    }

    /// The root, to be written and finished like any directory.
    pub fn root(&self) -> Result<OutDirectory> {
        Ok(OutDirectory::existing(Arc::clone(&self.shared), Arc::clone(&self.root), Vec::new()))
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

    /// Opens what this extraction made, following no link on the way, and makes sure that it is still the same.
    fn reopen(&self, deferred: &Deferred) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path: &[u8] = if deferred.path.is_empty() { b"." } else { &deferred.path };
        let fd = open_beneath(&self.root, path, flags)?;
        if Identity::of_open(&fd)? == deferred.identity { Ok(fd) } else { Err(Errno::STALE) }
    }
}

/// Makes a directory for its owner alone, and those above it as others make them.
fn make_target(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::DirBuilder::new().mode(0o700).create(path)
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

/// Opens a path of several names below a directory: at once where the kernel can be told not to follow links on
/// the way, else name by name.
fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match retry(|| openat2(root, path, flags, Mode::empty(), resolve)) {
        // A kernel without it, a filter that forbids it, a rename elsewhere, a path too long for it.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::NAMETOOLONG) => {}
        other => return other,
    }
    let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let Some(last) = names.pop() else { return Err(Errno::NOENT) };
    let mut at: Option<OwnedFd> = None;
    for name in names {
        let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = retry(|| openat(at.as_ref().unwrap_or(root), name, through, Mode::empty()))?;
        at = Some(next);
    }
    retry(|| openat(at.as_ref().unwrap_or(root), last, flags | OFlags::NOFOLLOW, Mode::empty()))
}
