//! A directory that is being written.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use diptych_format::{Entry, Error, Holds, Kind, Name, Result};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fstat, linkat, makedev, mkdirat, mknodat, openat, statat,
    symlinkat,
};
use rustix::io::Errno;

use super::remove::{make, remove};
use super::{Identity, OutFile, Shared, Target, cannot, dress, flags, lock, open_beneath};
use crate::facts::{join, retry};
use crate::handle::patiently;

/// Mode of what is not finished yet.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o777;

/// A directory that is being written.
pub struct OutDirectory {
    shared: Arc<Shared>,
    fd: Arc<OwnedFd>,
    path: Vec<u8>,
    /// What is handed down to what is made in it.
    inherited: dress::Inherited,
    /// Whether it was there before, with whatever attributes.
    is_existing: bool,
}

impl OutDirectory {
    /// A directory that was there before.
    pub(super) fn existing(shared: Arc<Shared>, fd: Arc<OwnedFd>, path: Vec<u8>) -> Self {
        let inherited = dress::Inherited::from(&fd);
        Self { shared, fd, path, inherited, is_existing: true }
    }

    /// Makes a directory in it. When overwriting, a directory that is there is entered, and anything else removed.
    pub fn create_directory(&self, name: &Name) -> Result<OutDirectory> {
        let make = || retry(|| mkdirat(&self.fd, name.as_bytes(), PRIVATE_DIRECTORY));
        let made = match make() {
            Err(Errno::EXIST) if self.shared.is_overwriting => match self.open(name) {
                Ok(fd) => return Ok(self.enter_existing(name, fd)),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    remove(&self.fd, name)?;
                    make()
                }
                Err(error) => Err(error),
            },
            made => made,
        };
        let fd = made.and_then(|()| self.open(name)).map_err(cannot("cannot make the directory"))?;
        self.check_fresh(&fd)?;
        let inherited = self.inherited.without_acls(&fd, PRIVATE_DIRECTORY);
        let (shared, path) = (Arc::clone(&self.shared), join(&self.path, name.as_bytes()));
        Ok(OutDirectory { shared, fd: Arc::new(fd), path, inherited, is_existing: false })
    }

    fn open(&self, name: &Name) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        patiently(|| retry(|| openat(&self.fd, name.as_bytes(), flags, Mode::empty())))
    }

    fn enter_existing(&self, name: &Name, fd: OwnedFd) -> OutDirectory {
        // An owner who is not root may have shut himself out; the mode is set again at the end.
        if let Ok(stat) = fstat(&fd)
            && stat.st_mode & 0o700 != 0o700
        {
            let _ = fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700));
        }
        OutDirectory::existing(Arc::clone(&self.shared), Arc::new(fd), join(&self.path, name.as_bytes()))
    }

    /// Makes sure that what was opened is what was made, where others may write: they could have put a directory
    /// of their own in its place, to read what is private until it is finished.
    fn check_fresh(&self, fd: &OwnedFd) -> Result<()> {
        if !self.shared.is_overwriting {
            return Ok(());
        }
        let stat = fstat(fd).map_err(cannot("cannot look at the new directory"))?;
        let born = self.shared.born(fd);
        if stat.st_mode & PERMISSIONS & !PRIVATE_DIRECTORY.as_raw_mode() == 0
            && born.is_none_or(|b| b.uid == stat.st_uid)
        {
            return Ok(());
        }
        Err(Error::io(
            "another directory has taken the place of the new one",
            std::io::ErrorKind::AlreadyExists.into(),
        ))
    }

    /// Prepares the empty directory for what it is to hold: says how, where a file system decides that beforehand.
    pub fn prepare(&self, entry: &Entry) {
        flags::set_early(&self.fd, entry.attributes.flags);
    }

    /// Makes an empty file in it.
    ///
    /// When overwriting, one that is there stays until the new one is finished, and is replaced by it at once: what
    /// turns out damaged costs nothing that was whole.
    pub fn create_file(&self, name: &Name) -> Result<OutFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.shared.is_overwriting && self.holds_another_file(name) {
            let beside = self.shared.name_beside()?;
            let made = retry(|| openat(&self.fd, beside.as_bytes(), flags, PRIVATE_FILE));
            let fd = made.map_err(cannot("cannot be made"))?;
            let (shared, directory) = (Arc::clone(&self.shared), Arc::clone(&self.fd));
            let path = join(&self.path, name.as_bytes());
            return Ok(
                OutFile::new(shared, directory, beside, path, fd, self.inherited).replacing(name.clone())
            );
        }
        let fd = self.make(name, || patiently(|| openat(&self.fd, name.as_bytes(), flags, PRIVATE_FILE)))?;
        let (shared, directory) = (Arc::clone(&self.shared), Arc::clone(&self.fd));
        let path = join(&self.path, name.as_bytes());
        Ok(OutFile::new(shared, directory, name.clone(), path, fd, self.inherited))
    }

    /// Whether something other than a directory has the name.
    fn holds_another_file(&self, name: &Name) -> bool {
        let stat = retry(|| statat(&self.fd, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW));
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
    }

    /// Makes what is neither file nor directory, with its attributes; says which of them could not be set.
    pub fn create_special(&self, entry: &Entry) -> Result<Vec<String>> {
        let name = entry.name.as_bytes();
        let node = |kind, device| mknodat(&self.fd, name, kind, PRIVATE_FILE, device);
        match (&entry.holds, entry.kind()?) {
            (Holds::Target(target), Kind::Symlink) => {
                self.make(&entry.name, || symlinkat(&target[..], &self.fd, name))?;
            }
            (Holds::Device { major, minor }, Kind::BlockDevice) => {
                self.make(&entry.name, || node(FileType::BlockDevice, makedev(*major, *minor)))?;
            }
            (Holds::Device { major, minor }, Kind::CharDevice) => {
                self.make(&entry.name, || node(FileType::CharacterDevice, makedev(*major, *minor)))?;
            }
            (_, Kind::Fifo) => self.make(&entry.name, || node(FileType::Fifo, 0))?,
            (_, Kind::Socket) => self.make(&entry.name, || node(FileType::Socket, 0))?,
            _ => return Err(Error::corrupt("what the entry holds does not fit its kind")),
        }
        Ok(dress::dress_name(self.fd.as_fd(), entry, &self.inherited))
    }

    /// The device and inode of what this extraction made here under `name` without opening it. A link to it is made
    /// only to this very object from now on.
    pub fn identity(&self, name: &Name) -> Result<(u64, u64)> {
        let identity = Identity::of_name(&self.fd, name).map_err(cannot("cannot tell which entry it is"))?;
        lock(&self.shared.made).insert(join(&self.path, name.as_bytes()), identity);
        Ok((identity.device, identity.inode))
    }

    /// Makes `name` another name of what this extraction made at `first`, a path below the target. If its identity was
    /// noted then, nothing else is linked to, whatever has taken that path since.
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
            let open = || patiently(|| open_beneath(&target.root, parent, flags));
            opened = open().map_err(cannot("cannot open what it links to"))?;
            &opened
        };
        // Without a flag that says so, a link is not followed: the link itself gets another name.
        self.make(name, || linkat(parent, last, &self.fd, name.as_bytes(), AtFlags::empty()))?;
        self.check_link(name, first)
    }

    /// Takes a link back that was not made to what it should be. Looking first would leave time for an exchange.
    fn check_link(&self, name: &Name, first: &[u8]) -> Result<()> {
        let Some(wanted) = lock(&self.shared.made).get(first).copied() else { return Ok(()) };
        if Identity::of_name(&self.fd, name).is_ok_and(|linked| linked == wanted) {
            return Ok(());
        }
        remove(&self.fd, name)?;
        Err(Error::io("something else has taken the place of what it links to", Errno::STALE.into()))
    }

    /// Gives the directory its attributes, when all that is in it is done; says which could not be set.
    pub fn finish(&self, entry: &Entry) -> Result<Vec<String>> {
        let inherited = (!self.is_existing).then_some(&self.inherited);
        let mut problems = dress::dress_open(&self.fd, entry, &self.shared, inherited);
        let may_have_others = self.is_existing || self.inherited.flags;
        self.shared.set_or_defer(&self.fd, &self.path, entry, may_have_others, &mut problems);
        Ok(problems)
    }

    fn make<T>(&self, name: &Name, call: impl FnMut() -> Result<T, Errno>) -> Result<T> {
        make(&self.fd, name, self.shared.is_overwriting, call)
    }
}
