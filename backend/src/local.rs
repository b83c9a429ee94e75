//! A repository in a directory of this machine.
//!
//! Everything is reached from one descriptor of that directory, so a repository that is moved, or whose path comes to
//! lead elsewhere, is still the one that was opened.

mod descriptors;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, RenameFlags, Stat, flock, fstat, fsync, linkat,
    mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, pread};

use crate::error::{Class, Error, Result};
use crate::name::{FileKind, FileName};
use crate::{Backend, Listed, NewFile, check_kind, config_exists, truncated};
use descriptors::Descriptors;

/// How the names of files begin that have no name of theirs yet. No name of a file begins like this.
const TEMPORARY: &str = ".new-";
/// Seconds that nothing was written for before a file counts as left. Where locks are known, no writer loses a file
/// even so.
const LEFT_AFTER: i64 = 24 * 60 * 60;
/// For the owner alone: what is not encrypted is as secret as what was archived.
const DIRECTORY_MODE: Mode = Mode::RWXU;
/// Not to be written by anybody: a file is made with its first bytes and never changes.
const FILE_MODE: Mode = Mode::RUSR;
/// Bytes of a directory that are read in one go.
const LISTED_AT_ONCE: usize = 32 << 10;
/// Every open of what is there: a link is no file of ours, and a pipe must not block.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A repository's directory.
pub struct Local {
    root: Arc<Root>,
    descriptors: Arc<Descriptors>,
}

impl Local {
    /// The directory at `path`, which need not be there yet.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let root = Root { path: path.into(), fd: OnceLock::new() };
        match root.fd() {
            Ok(_) => {}
            // It may be about to be made.
            Err(error) if error.class == Class::Missing => {}
            Err(error) => return Err(error),
        }
        Ok(Self { root: Arc::new(root), descriptors: Arc::default() })
    }

    fn begin(&self, kind: FileKind) -> Result<LocalFile> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.root.fd()?;
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = join(kind.directory(), &format!("{TEMPORARY}{}-{number}", std::process::id()));
            match retry(|| openat(fd, &path, flags, FILE_MODE)) {
                Ok(file) => {
                    // It shows that its writer is alive. Where locks are not known, age alone tells.
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    let file = File::from(file);
                    let (root, descriptors) = (self.root.clone(), self.descriptors.clone());
                    return Ok(LocalFile { root, descriptors, kind, path, file, has_name: false });
                }
                // Left by a process that had this number, or written by one on another machine.
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) if self.root.make_again(kind.directory())? => {}
                Err(error) => return Err(self.root.failed(kind.directory(), "cannot begin a file", error)),
            }
        }
    }

    /// All that lies where the files of a kind do.
    fn find(&self, kind: FileKind) -> Result<Found> {
        let mut found = Found::default();
        for directory in directories(kind) {
            self.find_in(kind, &directory, &mut found)?;
        }
        found.files.sort_unstable();
        found.strangers.sort_unstable();
        Ok(found)
    }

    fn find_in(&self, kind: FileKind, directory: &str, found: &mut Found) -> Result<()> {
        let what = "cannot be listed";
        let failed = |error| self.root.failed(directory, what, error);
        let opened = match self.root.open(directory, OFlags::DIRECTORY, what) {
            Err(error) if error.class == Class::Missing && self.root.may_be_lost(directory) => return Ok(()),
            Err(error) if error.class == Class::Missing && self.root.is_begun() => {
                let place = self.root.place(directory);
                let what = format!(
                    "{place}: a directory of the repository is missing; if it was empty and got lost when the \
                        repository was copied, `diptych check --repair-index` makes it again"
                );
                return Err(Error::new(Class::Missing, what));
            }
            opened => opened?,
        };
        // Raw, for the ready-made listing takes a directory that was removed while it was open for an empty one.
        let mut buffer = Vec::with_capacity(LISTED_AT_ONCE);
        let mut entries = RawDir::new(&opened, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                entry => entry.map_err(failed)?,
            };
            let text = entry.file_name().to_string_lossy();
            let path = join(directory, &text);
            if text == "." || text == ".." || is_layout(&path) {
                continue;
            }
            if text.starts_with(TEMPORARY) {
                found.temporary.push(path);
                continue;
            }
            // A pack in the directory of other digits would not be found when it is wanted.
            let Some(name) = FileName::decode(kind, &text).filter(|name| name.path() == path) else {
                found.strangers.push(path);
                continue;
            };
            match self.root.stat(&path) {
                Ok(stat) if is_file(&stat) => {
                    found.files.push(Listed { name, length: stat.st_size.unsigned_abs() });
                }
                Ok(_) => found.strangers.push(path),
                // Deleted since it was seen.
                Err(error) if error.class == Class::Missing => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn open_file(&self, name: &FileName) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.descriptors.get(name) {
            return Ok(fd);
        }
        let fd = Arc::new(self.root.open(&name.path(), OFlags::empty(), "cannot be opened")?);
        // Only a file that is named by its digest is the same file for ever.
        if name.kind() != FileKind::Config {
            self.descriptors.put(*name, fd.clone());
        }
        Ok(fd)
    }

    /// Whether a temporary file is an old one of a writer that is gone.
    fn is_left(&self, path: &str, now: i64) -> Result<bool> {
        let what = "cannot be looked at";
        let file = match self.root.open(path, OFlags::empty(), what) {
            // It has its name by now, or was dropped.
            Err(error) if error.class == Class::Missing => return Ok(false),
            opened => opened?,
        };
        let stat = retry(|| fstat(&file)).map_err(|error| self.root.failed(path, what, error))?;
        // The age comes first: a new file is never locked from here before its writer does it.
        let is_old = now.saturating_sub(stat.st_mtime) > LEFT_AFTER;
        let is_held = || flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
        Ok(is_file(&stat) && is_old && !is_held())
    }
}

impl Backend for Local {
    fn location(&self) -> String {
        self.root.path.display().to_string()
    }

    fn make_layout(&self) -> Result<()> {
        let is_new = self.root.make()?;
        let mut found = Found::default();
        for kind in FileKind::ALL {
            for directory in directories(kind) {
                match self.find_in(kind, &directory, &mut found) {
                    Err(error) if error.class == Class::Missing => {}
                    listed => listed?,
                }
            }
        }
        let location = self.location();
        if found.files.iter().any(|file| file.name == FileName::CONFIG) {
            return Err(config_exists(&location));
        }
        let files = found.files.iter().map(|file| file.name.path());
        if let Some(first) = found.strangers.into_iter().chain(files).min() {
            let what = format!(
                "{location}: the directory is not empty, it holds {first}; name an empty one, or one to be made"
            );
            return Err(Error::new(Class::Exists, what));
        }
        self.root.make_directories()?;
        if is_new { self.root.sync_above() } else { Ok(()) }
    }

    fn mend_layout(&self) -> Result<()> {
        // Where no repository is, none is begun.
        self.length(&FileName::CONFIG)?;
        self.root.make_directories()
    }

    fn create(&self, kind: FileKind) -> Result<Box<dyn NewFile>> {
        Ok(Box::new(self.begin(kind)?))
    }

    fn read_at(&self, file: &FileName, buf: &mut [u8], offset: u64) -> Result<()> {
        let fd = self.open_file(file)?;
        let wanted = buf.len();
        // What no file can reach is an invalid range for the system, and is beyond the end for us.
        let is_range = offset.checked_add(wanted as u64).is_some_and(|end| i64::try_from(end).is_ok());
        let mut done = 0;
        while done < wanted {
            let read =
                if is_range { retry(|| pread(&fd, &mut buf[done..], offset + done as u64)) } else { Ok(0) };
            match read {
                Ok(0) => {
                    let length = self.length(file)?;
                    return Err(truncated(&self.root.place(&file.path()), wanted, offset, length));
                }
                Ok(read) => done += read,
                Err(error) => return Err(self.root.failed(&file.path(), "cannot be read", error)),
            }
        }
        Ok(())
    }

    fn length(&self, file: &FileName) -> Result<u64> {
        let stat = self.root.stat(&file.path())?;
        if is_file(&stat) {
            return Ok(stat.st_size.unsigned_abs());
        }
        let what = format!("{}: this is no regular file; move it away", self.root.place(&file.path()));
        Err(Error::new(Class::Io, what))
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>> {
        Ok(self.find(kind)?.files)
    }

    fn strangers(&self, kind: FileKind) -> Result<Vec<String>> {
        Ok(self.find(kind)?.strangers)
    }

    fn delete(&self, file: &FileName) -> Result<()> {
        self.descriptors.forget(file);
        let path = file.path();
        let fd = self.root.fd()?;
        retry(|| unlinkat(fd, &path, AtFlags::empty()))
            .map_err(|error| self.root.failed(&path, "cannot be deleted", error))?;
        match file.kind() {
            FileKind::Data => Ok(()),
            _ => self.root.sync(&file.directory()),
        }
    }

    fn remove_leftovers(&self) -> Result<u64> {
        let mut removed = 0;
        for kind in FileKind::ALL {
            let temporary = self.find(kind)?.temporary;
            if temporary.is_empty() {
                continue;
            }
            // A file server has a clock of its own; a file that is made now shows it.
            let probe = self.begin(kind)?;
            let failed = |error| self.root.failed(&probe.path, "cannot be looked at", error);
            let now = retry(|| fstat(&probe.file)).map_err(failed)?.st_mtime;
            for path in temporary {
                if self.is_left(&path, now)? {
                    self.root.remove(&path)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// What lies in the directories of one kind.
#[derive(Default)]
struct Found {
    files: Vec<Listed>,
    strangers: Vec<String>,
    temporary: Vec<String>,
}

/// The directories of a kind, each behind the one that it is in.
fn directories(kind: FileKind) -> Vec<String> {
    let spread = (0..=u8::MAX).filter(|_| kind == FileKind::Data).map(|byte| format!("data/{byte:02x}"));
    std::iter::once(kind.directory().to_owned()).chain(spread).collect()
}

/// Whether this is the path of a directory that belongs here.
fn is_layout(path: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match path.strip_prefix("data/") {
        Some(digits) => digits.len() == 2 && digits.bytes().all(is_digit),
        // A repository may be all that a disk is for, and some file systems have this one from their birth.
        None => path == "lost+found" || FileKind::ALL.iter().any(|kind| kind.directory() == path),
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory == "." { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The repository's directory, opened when it is first needed and held from then on.
struct Root {
    path: PathBuf,
    fd: OnceLock<OwnedFd>,
}

impl Root {
    fn fd(&self) -> Result<&OwnedFd> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = retry(|| rustix::fs::open(&self.path, flags, Mode::empty())).map_err(|error| {
            let advice = match error {
                Errno::NOENT => "no repository is here; name another location, or mount what it is on",
                _ => "cannot be opened as a directory",
            };
            self.failed(".", advice, error)
        })?;
        // Another thread may have been faster: its descriptor is the one that counts.
        Ok(self.fd.get_or_init(|| opened))
    }

    /// Makes the directory, and says whether it was not there. The one above it has to be: what is not mounted is not
    /// made up.
    fn make(&self) -> Result<bool> {
        match self.fd() {
            Err(error) if error.class == Class::Missing => {}
            opened => return opened.map(|_| false),
        }
        match retry(|| rustix::fs::mkdir(&self.path, DIRECTORY_MODE)) {
            // Another process may have made it just now; it does the rest as well.
            Ok(()) | Err(Errno::EXIST) => self.fd().map(|_| true),
            Err(Errno::NOENT) => {
                let what =
                    "cannot be made as the directory above it is not there; make that first, or mount it";
                Err(self.failed(".", what, Errno::NOENT))
            }
            Err(error) => Err(self.failed(".", "cannot be made", error)),
        }
    }

    /// Directories that are there already are those of another process that makes this repository, or was to.
    fn make_directories(&self) -> Result<()> {
        let fd = self.fd()?;
        for directory in FileKind::ALL.into_iter().flat_map(directories).filter(|directory| directory != ".")
        {
            match retry(|| mkdirat(fd, &directory, DIRECTORY_MODE)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed(&directory, "cannot be made", error)),
            }
        }
        self.sync(FileKind::Data.directory())?;
        self.sync(".")
    }

    /// Whether a repository is here.
    fn is_begun(&self) -> bool {
        self.stat(&FileName::CONFIG.path()).is_ok()
    }

    /// Whether a directory may be missing without anything being wrong: tools that copy files leave empty ones out, and
    /// these are often empty.
    fn may_be_lost(&self, directory: &str) -> bool {
        let is_often_empty = directory == FileKind::Lease.directory() || directory.starts_with("data/");
        is_often_empty && self.is_begun()
    }

    /// Makes a directory again that got lost, and says whether it did.
    fn make_again(&self, directory: &str) -> Result<bool> {
        if !self.may_be_lost(directory) {
            return Ok(false);
        }
        let fd = self.fd()?;
        match retry(|| mkdirat(fd, directory, DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EXIST) => Ok(true),
            // The one that it is in is missing as well.
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed(directory, "cannot be made", error)),
        }
    }

    fn place(&self, below: &str) -> String {
        let path = if below == "." { self.path.clone() } else { self.path.join(below) };
        path.display().to_string()
    }

    fn failed(&self, below: &str, what: &str, error: Errno) -> Error {
        Error::io(format!("{}: {what}", self.place(below)), error)
    }

    /// Opens what is there, to do what an error says that cannot be done.
    fn open(&self, below: &str, more: OFlags, what: &str) -> Result<OwnedFd> {
        let fd = self.fd()?;
        let opened = retry(|| openat(fd, below, OPEN | more, Mode::empty()));
        opened.map_err(|error| self.failed(below, what, error))
    }

    fn stat(&self, below: &str) -> Result<Stat> {
        let fd = self.fd()?;
        let stat = retry(|| statat(fd, below, AtFlags::SYMLINK_NOFOLLOW));
        stat.map_err(|error| self.failed(below, "cannot be looked at", error))
    }

    /// Makes the names in a directory durable.
    fn sync(&self, directory: &str) -> Result<()> {
        let what = "cannot be made durable";
        let opened = self.open(directory, OFlags::DIRECTORY, what)?;
        sync_directory(opened).map_err(|error| self.failed(directory, what, error))
    }

    /// Makes the name of the directory itself durable.
    fn sync_above(&self) -> Result<()> {
        let above =
            self.path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = retry(|| rustix::fs::open(above, flags, Mode::empty()));
        let synced = opened.and_then(sync_directory);
        synced.map_err(|error| Error::io(format!("{}: cannot be made durable", above.display()), error))
    }

    fn remove(&self, path: &str) -> Result<()> {
        let fd = self.fd()?;
        match retry(|| unlinkat(fd, path, AtFlags::empty())) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed(path, "cannot be removed", error)),
        }
    }
}

/// A file that has no name of its own yet.
struct LocalFile {
    root: Arc<Root>,
    descriptors: Arc<Descriptors>,
    kind: FileKind,
    path: String,
    file: File,
    has_name: bool,
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for LocalFile {
    fn read_back(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn keep(mut self: Box<Self>, name: &FileName) -> Result<()> {
        let location = self.root.place(".");
        check_kind(&location, self.kind, name)?;
        let failed = |error| self.root.failed(&name.path(), "cannot be kept", error);
        retry(|| fsync(&self.file)).map_err(failed)?;
        let root = self.root.fd()?;
        let named = match name.kind() {
            FileKind::Config => rename_new(root, &self.path, &name.path()),
            _ => retry(|| renameat(root, &self.path, root, name.path())),
        };
        let named = match named {
            Err(Errno::NOENT) if self.root.make_again(&name.directory())? => {
                retry(|| renameat(root, &self.path, root, name.path()))
            }
            named => named,
        };
        match named {
            Ok(()) => self.has_name = true,
            Err(Errno::EXIST) => return Err(config_exists(&location)),
            Err(error @ Errno::ISDIR) => {
                let what = "cannot be kept, for a directory has its name; move that away";
                return Err(self.root.failed(&name.path(), what, error));
            }
            Err(error) => return Err(failed(error)),
        }
        // What was there may have been damaged, and is open no longer than it is there.
        self.descriptors.forget(name);
        self.root.sync(&name.directory())
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        if !self.has_name {
            // What cannot be removed now is a leftover, for which there is another way.
            let _ = self.root.remove(&self.path);
        }
    }
}

/// Gives a file another name, unless there is a file of that name.
fn rename_new(root: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    match retry(|| renameat_with(root, from, root, to, RenameFlags::NOREPLACE)) {
        // File systems on a network know no such renaming.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_new(root, from, to),
        other => other,
    }
}

/// The same by a link, which never replaces anything either.
fn link_new(root: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    retry(|| linkat(root, from, root, to, AtFlags::empty()))?;
    // The file is where it belongs; its other name, if it stays, is a leftover.
    let _ = retry(|| unlinkat(root, from, AtFlags::empty()));
    Ok(())
}

fn sync_directory(directory: OwnedFd) -> Result<(), Errno> {
    match retry(|| fsync(&directory)) {
        // File systems on a network that send each name at once have nothing to make durable here.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Repeats a system call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn neither_way_of_naming_replaces_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(File::open(directory.path()).unwrap());
        let path = |name: &str| directory.path().join(name);
        for name_it in [rename_new, link_new] {
            fs::write(path("to"), "old").unwrap();
            fs::write(path("from"), "new").unwrap();
            assert_eq!(name_it(&root, "from", "to"), Err(Errno::EXIST));
            assert_eq!(fs::read(path("to")).unwrap(), b"old");
            fs::remove_file(path("to")).unwrap();
            assert_eq!(name_it(&root, "from", "to"), Ok(()));
            assert_eq!(fs::read(path("to")).unwrap(), b"new");
            assert!(!path("from").exists());
            fs::remove_file(path("to")).unwrap();
        }
    }
}
