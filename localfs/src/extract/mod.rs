//! Entries become a tree on disk, and cannot lead out of it.
//!
//! Everything is done in an open directory, one name at a time, and no name is ever followed: what stands where
//! something is to be made is in the way, and is an error or is removed, never written through. Files and directories
//! are made for their owner alone and get their attributes when their contents are there. A file that is dropped before
//! it is finished is removed.
//!
//! Flags that forbid changes (immutable, append-only) are set at the very end: before, hard links to such a file or
//! entries in such a directory could not be made.

mod dress;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use diptych_format::{Entry, Error, Holds, Kind, Name, Result};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, fstatvfs, ftruncate, linkat, makedev, mkdirat, mknodat, open,
    openat, openat2, symlinkat, unlinkat,
};
use rustix::io::{Errno, pwrite};

use crate::facts::{join, retry, words};

/// Mode of what is not finished yet.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;

/// The directory that a tree is written into.
pub struct Target {
    shared: Arc<Shared>,
    root: Arc<OwnedFd>,
}

/// What all parts of an extraction share.
struct Shared {
    is_overwriting: bool,
    /// What a new file gets without being told.
    defaults: dress::Defaults,
    /// Paths and flags of what must not change any more, to be set at the end.
    deferred: Mutex<Vec<(Vec<u8>, u32)>>,
}

/// A directory that is being written.
pub struct OutDirectory {
    shared: Arc<Shared>,
    fd: Arc<OwnedFd>,
    path: Vec<u8>,
}

/// A file that is being written; removed if it is dropped before it is finished.
pub struct OutFile {
    shared: Arc<Shared>,
    directory: Arc<OwnedFd>,
    name: Name,
    path: Vec<u8>,
    fd: OwnedFd,
    is_finished: bool,
}

fn cannot(what: impl Into<String>) -> impl FnOnce(Errno) -> Error {
    move |error| Error::io(what, words(error))
}

impl Target {
    /// Opens the directory at `path`, made if it is not there. One that holds something is refused unless what
    /// is in the way may be replaced.
    pub fn open(path: &Path, is_overwriting: bool) -> Result<Self> {
        let what = || format!("cannot write to {}", path.display());
        // All that is made is made with the mode that it is to have.
        rustix::process::umask(Mode::empty());
        crate::scan::raise_descriptor_limit();
        if !path.exists() {
            use std::os::unix::fs::DirBuilderExt;
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| Error::io(what(), error))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry(|| open(path, flags, Mode::empty())).map_err(cannot(what()))?;
        let is_empty = std::fs::read_dir(path).map_err(|error| Error::io(what(), error))?.next().is_none();
        if !is_empty && !is_overwriting {
            let what = format!("{} is not empty: name another target, or --overwrite what is there", path.display());
            return Err(Error::io(what, std::io::ErrorKind::AlreadyExists.into()));
        }
        let defaults = dress::Defaults::below(&root, is_overwriting).map_err(cannot(what()))?;
        let shared = Shared { is_overwriting, defaults, deferred: Mutex::default() };
        Ok(Self { shared: Arc::new(shared), root: Arc::new(root) })
    }

    /// The root, to be written and finished like any directory.
    pub fn root(&self) -> Result<OutDirectory> {
        Ok(OutDirectory { shared: Arc::clone(&self.shared), fd: Arc::clone(&self.root), path: Vec::new() })
    }

    /// Bytes that may still be written on the file system of the target.
    pub fn free_bytes(&self) -> Result<u64> {
        let stat = retry(|| fstatvfs(&self.root)).map_err(cannot("cannot ask for the space that is left"))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Sets the flags that forbid changes, when everything else is done. Gives the paths where that failed, and why.
    pub fn finish(&self) -> Vec<(Vec<u8>, String)> {
        let deferred = std::mem::take(&mut *self.shared.deferred.lock().unwrap_or_else(PoisonError::into_inner));
        let mut failed = Vec::new();
        for (path, flags) in deferred {
            let set = self.reopen(&path).map_err(|error| words(error).to_string());
            let problem = set.map_or_else(Some, |fd| dress::set_flags(&fd, flags));
            failed.extend(problem.map(|problem| (path, problem)));
        }
        failed
    }

    /// Opens what this extraction made at `path`, following no link on the way.
    fn reopen(&self, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if path.is_empty() {
            return self.root.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE));
        }
        open_beneath(&self.root, path, flags)
    }
}

/// Opens a path of several names below a directory: at once where the kernel can be told not to follow links on
/// the way, else name by name.
fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = retry(|| openat2(root, path, flags, Mode::empty(), resolve));
    match opened {
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

impl OutDirectory {
    /// Makes a directory in it. When overwriting, a directory that is there is entered, and anything else removed.
    pub fn create_directory(&self, name: &Name) -> Result<OutDirectory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || retry(|| openat(&self.fd, name.as_bytes(), flags, Mode::empty()));
        let make = || retry(|| mkdirat(&self.fd, name.as_bytes(), PRIVATE_DIRECTORY));
        let opened = match make() {
            Ok(()) => open(),
            Err(Errno::EXIST) if self.shared.is_overwriting => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.remove(name)?;
                    make().and_then(|()| open())
                }
                other => other,
            },
            Err(error) => Err(error),
        };
        let fd = opened.map_err(cannot("cannot make the directory"))?;
        let path = join(&self.path, name.as_bytes());
        Ok(OutDirectory { shared: Arc::clone(&self.shared), fd: Arc::new(fd), path })
    }

    /// Makes an empty file in it.
    pub fn create_file(&self, name: &Name) -> Result<OutFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.make(name, || openat(&self.fd, name.as_bytes(), flags, PRIVATE_FILE))?;
        Ok(OutFile {
            shared: Arc::clone(&self.shared),
            directory: Arc::clone(&self.fd),
            name: name.clone(),
            path: join(&self.path, name.as_bytes()),
            fd,
            is_finished: false,
        })
    }

    /// Makes what is neither file nor directory, with its attributes; says which of them could not be set.
    pub fn create_special(&self, entry: &Entry) -> Result<Vec<String>> {
        let name = entry.name.as_bytes();
        let mode = Mode::from_raw_mode(entry.attributes.mode);
        match (&entry.holds, entry.kind()?) {
            (Holds::Target(target), _) => self.make(&entry.name, || symlinkat(&target[..], &self.fd, name))?,
            (Holds::Device { major, minor }, kind) => {
                let kind = if kind == Kind::BlockDevice { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.make(&entry.name, || mknodat(&self.fd, name, kind, mode, makedev(*major, *minor)))?;
            }
            (_, Kind::Fifo) => self.make(&entry.name, || mknodat(&self.fd, name, FileType::Fifo, mode, 0))?,
            (_, Kind::Socket) => self.make(&entry.name, || mknodat(&self.fd, name, FileType::Socket, mode, 0))?,
            _ => return Err(Error::corrupt("a file or directory is no special entry")),
        }
        Ok(dress::dress_name(self.fd.as_fd(), entry))
    }

    /// Makes `name` another name of what this extraction made at `first`, a path below the target.
    pub fn link(&self, name: &Name, target: &Target, first: &[u8]) -> Result<()> {
        let (parent, last) = match first.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (first.get(..slash).unwrap_or(&[]), first.get(slash + 1..).unwrap_or(&[])),
            None => (&[][..], first),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened;
        let parent = if parent.is_empty() {
            &*target.root
        } else {
            opened = open_beneath(&target.root, parent, flags).map_err(cannot("cannot open what it links to"))?;
            &opened
        };
        // Without a flag that says so, a link is not followed: the link itself gets another name.
        self.make(name, || linkat(parent, last, &self.fd, name.as_bytes(), AtFlags::empty()))
    }

    /// Gives the directory its attributes, when all that is in it is done; says which could not be set.
    pub fn finish(&self, entry: &Entry) -> Result<Vec<String>> {
        let (problems, deferred) = dress::dress_open(&self.fd, entry, &self.shared.defaults);
        defer(&self.shared, &self.path, deferred);
        Ok(problems)
    }

    /// Makes something; when overwriting, what is in the way is removed first.
    fn make<T>(&self, name: &Name, mut make: impl FnMut() -> std::result::Result<T, Errno>) -> Result<T> {
        match retry(&mut make) {
            Err(Errno::EXIST) if self.shared.is_overwriting => {
                self.remove(name)?;
                retry(make).map_err(cannot("cannot be made"))
            }
            Err(Errno::EXIST) => Err(cannot("something is there already")(Errno::EXIST)),
            made => made.map_err(cannot("cannot be made")),
        }
    }

    /// Removes what is in the way: any entry, but a directory only if it is empty.
    fn remove(&self, name: &Name) -> Result<()> {
        let removed = match retry(|| unlinkat(&self.fd, name.as_bytes(), AtFlags::empty())) {
            Err(Errno::ISDIR) => retry(|| unlinkat(&self.fd, name.as_bytes(), AtFlags::REMOVEDIR)),
            other => other,
        };
        removed.map_err(cannot("what is there cannot be replaced"))
    }
}

impl OutFile {
    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            let written = retry(|| pwrite(&self.fd, bytes, offset)).map_err(cannot("cannot write"))?;
            if written == 0 {
                return Err(cannot("cannot write")(Errno::IO));
            }
            bytes = bytes.get(written..).unwrap_or(&[]);
            offset += written as u64;
        }
        Ok(())
    }

    /// Makes the file `length` bytes long; what is not written is a hole.
    pub fn set_length(&self, length: u64) -> Result<()> {
        retry(|| ftruncate(&self.fd, length)).map_err(cannot("cannot set the length"))
    }

    /// Gives the file its attributes, when its content is there; says which could not be set.
    pub fn finish(mut self, entry: &Entry) -> Result<Vec<String>> {
        let (problems, deferred) = dress::dress_open(&self.fd, entry, &self.shared.defaults);
        defer(&self.shared, &self.path, deferred);
        self.is_finished = true;
        Ok(problems)
    }
}

fn defer(shared: &Shared, path: &[u8], flags: u32) {
    if flags != 0 {
        shared.deferred.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_vec(), flags));
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // Only what was made here is removed: another may have taken the name since.
        let made = fstat(&self.fd).map(|stat| (stat.st_dev, stat.st_ino));
        let there = rustix::fs::statat(&self.directory, self.name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        if let (Ok(made), Ok(there)) = (made, there)
            && made == (there.st_dev, there.st_ino)
        {
            let _ = unlinkat(&self.directory, self.name.as_bytes(), AtFlags::empty());
        }
    }
}
