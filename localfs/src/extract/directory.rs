//! A directory that is being written.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use diptych_format::{Entry, Error, Holds, Kind, Name, Result};
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, fchmod, fstat, linkat, makedev, mkdirat, mknodat, openat,
    statat, symlinkat,
};
use rustix::io::Errno;

use super::remove::{make, remove};
use super::{OutFile, Shared, Target, again, cannot, dress, flags, lock};
use crate::facts::{join, retry, words};
use crate::handle::patiently;
use crate::place::{Identity, Place, open_beneath};

/// Mode of what is not finished yet.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o777;

/// A directory that is being written.
pub struct OutDirectory {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Arc<Place>,
    /// What is handed down to what is made in it.
    pub(super) inherited: dress::Inherited,
    /// Whether it was there before, with whatever attributes.
    is_existing: bool,
    /// What was changed of one that was there before, and not given back yet.
    had: Mutex<Had>,
}

/// What a directory had that kept it from being written.
#[derive(Default)]
pub(super) struct Had {
    mode: Option<Mode>,
    flags: Option<IFlags>,
}

impl Had {
    /// Makes a directory one that can be written.
    pub(super) fn open_up(fd: &OwnedFd) -> Self {
        let flags = flags::lift(fd);
        // An owner who is not root may have shut himself out.
        let mode = fstat(fd).ok().map(|stat| stat.st_mode & 0o7777).filter(|mode| mode & 0o700 != 0o700);
        let changed = mode.is_some_and(|mode| fchmod(fd, Mode::from_raw_mode(mode | 0o700)).is_ok());
        Self { mode: mode.filter(|_| changed).map(Mode::from_raw_mode), flags }
    }

    /// Gives it back what it had; says what could not be.
    pub(super) fn give_back(self, fd: &OwnedFd) -> Vec<String> {
        let mode = self.mode.and_then(|mode| retry(|| fchmod(fd, mode)).err());
        let flags = self.flags.and_then(|flags| flags::give_back(fd, flags).err());
        let say = |what: &str, error| format!("{what} that it had cannot be given back: {}", words(error));
        let problems =
            [mode.map(|error| say("the mode", error)), flags.map(|error| say("the file flags", error))];
        problems.into_iter().flatten().collect()
    }
}

impl OutDirectory {
    /// A directory that was there before.
    pub(super) fn existing(shared: Arc<Shared>, place: Arc<Place>) -> Result<Self> {
        let fd = again(&place)?;
        let had = Mutex::new(if shared.is_overwriting { Had::open_up(&fd) } else { Had::default() });
        let inherited = dress::Inherited::from(&fd);
        Ok(Self { shared, place, inherited, is_existing: true, had })
    }

    /// Whether it is one that was there and into which more is written.
    pub fn was_there(&self) -> bool {
        self.is_existing && self.shared.is_overwriting
    }

    pub(super) fn path_of(&self, name: &Name) -> Vec<u8> {
        join(self.place.path(), name.as_bytes())
    }

    /// Makes a directory in it. When overwriting, a directory that is there is entered, and anything else removed.
    pub fn create_directory(&self, name: &Name) -> Result<OutDirectory> {
        let here = again(&self.place)?;
        let make = || retry(|| mkdirat(&here, name.as_bytes(), PRIVATE_DIRECTORY));
        let shared = Arc::clone(&self.shared);
        let place = |fd| self.place.tree().add(self.path_of(name).into(), fd);
        let made = match make() {
            Err(Errno::EXIST) if self.shared.is_overwriting => match open(&here, name) {
                Ok(fd) => return OutDirectory::existing(shared, place(fd)),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    remove(&here, name)?;
                    make()
                }
                Err(error) => Err(error),
            },
            made => made,
        };
        let fd = made.and_then(|()| open(&here, name)).map_err(cannot("cannot make the directory"))?;
        self.check_fresh(&fd)?;
        let inherited = self.inherited.without_acls(&fd, PRIVATE_DIRECTORY);
        Ok(OutDirectory { shared, place: place(fd), inherited, is_existing: false, had: Mutex::default() })
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
        // Without it they are set when the directory is finished, or that says why not.
        if let Ok(fd) = again(&self.place) {
            flags::set_early(&fd, entry.attributes.flags);
        }
    }

    /// Makes an empty file in it.
    ///
    /// When overwriting, one that is there stays until the new one is finished, and is replaced by it at once: what
    /// turns out damaged costs nothing that was whole.
    pub fn create_file(&self, name: &Name) -> Result<OutFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = again(&self.place)?;
        let (shared, place, path) = (Arc::clone(&self.shared), Arc::clone(&self.place), self.path_of(name));
        if self.shared.is_overwriting && holds_another_file(&here, name) {
            let beside = self.shared.name_beside()?;
            let made = patiently(|| retry(|| openat(&here, beside.as_bytes(), flags, PRIVATE_FILE)));
            let fd = made.map_err(cannot("cannot be made"))?;
            let file = OutFile::new(shared, place, beside, path, fd, self.inherited);
            return Ok(file.replacing(name.clone()));
        }
        let make = || patiently(|| openat(&here, name.as_bytes(), flags, PRIVATE_FILE));
        let fd = self.make(&here, name, make)?;
        Ok(OutFile::new(shared, place, name.clone(), path, fd, self.inherited))
    }

    /// Opens the regular file called `name`, to change what differs in it. Where the file system can clone files, a clone
    /// is changed, which takes its place when it is finished; else the file itself is.
    pub fn change_file(&self, name: &Name) -> Result<OutFile> {
        let here = again(&self.place)?;
        let (shared, place, path) = (Arc::clone(&self.shared), Arc::clone(&self.place), self.path_of(name));
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags| patiently(|| retry(|| openat(&here, name.as_bytes(), flags, PRIVATE_FILE)));
        let not_opened = || cannot("what is there cannot be opened to be changed");
        let old = open(flags | OFlags::RDONLY).map_err(not_opened())?;
        let stat = fstat(&old).map_err(not_opened())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_opened()(Errno::STALE));
        }
        let beside = self.shared.name_beside()?;
        let new = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(clone) = patiently(|| retry(|| openat(&here, beside.as_bytes(), new, PRIVATE_FILE))) {
            // Dropped without being finished, it is removed.
            let file = OutFile::new(
                Arc::clone(&shared),
                Arc::clone(&place),
                beside,
                path.clone(),
                clone,
                self.inherited,
            );
            if file.clone_of(&old) {
                return Ok(file.replacing(name.clone()));
            }
        }
        let had = flags::lift(&old);
        let fd = open(flags | OFlags::RDWR).map_err(not_opened())?;
        Ok(OutFile::new(shared, place, name.clone(), path, fd, self.inherited).changing(had))
    }

    /// Makes what is neither file nor directory, with its attributes; says which of them could not be set.
    pub fn create_special(&self, entry: &Entry) -> Result<Vec<String>> {
        let here = again(&self.place)?;
        let name = entry.name.as_bytes();
        let node = |kind, device| mknodat(&here, name, kind, PRIVATE_FILE, device);
        match (&entry.holds, entry.kind()?) {
            (Holds::Target(target), Kind::Symlink) => {
                self.make(&here, &entry.name, || symlinkat(&target[..], &here, name))?;
            }
            (Holds::Device { major, minor }, Kind::BlockDevice) => {
                self.make(&here, &entry.name, || node(FileType::BlockDevice, makedev(*major, *minor)))?;
            }
            (Holds::Device { major, minor }, Kind::CharDevice) => {
                self.make(&here, &entry.name, || node(FileType::CharacterDevice, makedev(*major, *minor)))?;
            }
            (_, Kind::Fifo) => self.make(&here, &entry.name, || node(FileType::Fifo, 0))?,
            (_, Kind::Socket) => self.make(&here, &entry.name, || node(FileType::Socket, 0))?,
            _ => return Err(Error::corrupt("what the entry holds does not fit its kind")),
        }
        Ok(dress::dress_name(here.as_fd(), entry, &self.inherited))
    }

    /// The device and inode of what this extraction made here under `name` without opening it. A link to it is made
    /// only to this very object from now on.
    pub fn identity(&self, name: &Name) -> Result<(u64, u64)> {
        let here = again(&self.place)?;
        let identity = Identity::of_name(&here, name).map_err(cannot("cannot tell which entry it is"))?;
        lock(&self.shared.made).insert(self.path_of(name), identity);
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
        let here = again(&self.place)?;
        let wanted = lock(&self.shared.made).get(first).copied();
        if wanted.is_some() && Identity::of_name(&here, name).ok() == wanted {
            return Ok(());
        }
        // Without a flag that says so, a link is not followed: the link itself gets another name.
        self.make(&here, name, || linkat(parent, last, &here, name.as_bytes(), AtFlags::empty()))?;
        self.check_link(&here, name, first)
    }

    /// Takes a link back that was not made to what it should be. Looking first would leave time for an exchange.
    fn check_link(&self, here: &OwnedFd, name: &Name, first: &[u8]) -> Result<()> {
        let Some(wanted) = lock(&self.shared.made).get(first).copied() else { return Ok(()) };
        if Identity::of_name(here, name).is_ok_and(|linked| linked == wanted) {
            return Ok(());
        }
        remove(here, name)?;
        Err(Error::io("something else has taken the place of what it links to", Errno::STALE.into()))
    }

    /// Gives the directory its attributes, when all that is in it is done; says which could not be set.
    pub fn finish(&self, entry: &Entry) -> Result<Vec<String>> {
        let inherited = (!self.is_existing).then_some(&self.inherited);
        let fd = again(&self.place)?;
        *lock(&self.had) = Had::default();
        let mut problems = dress::dress_open(&fd, entry, &self.shared, inherited);
        let may_have_others = self.is_existing || self.inherited.flags;
        self.shared.set_or_defer(&fd, self.place.path(), entry, may_have_others, &mut problems);
        Ok(problems)
    }

    /// Leaves a directory that was there with the attributes that it had; says which could not be given back.
    pub fn leave(&self) -> Result<Vec<String>> {
        let had = std::mem::take(&mut *lock(&self.had));
        if had.mode.is_none() && had.flags.is_none() {
            return Ok(Vec::new());
        }
        Ok(had.give_back(&*again(&self.place)?))
    }

    fn make<T>(&self, here: &OwnedFd, name: &Name, call: impl FnMut() -> Result<T, Errno>) -> Result<T> {
        make(here, name, self.shared.is_overwriting, call)
    }
}

impl Drop for OutDirectory {
    fn drop(&mut self) {
        // One that is finished or left has nothing to be given back; nobody is there to be told of any other.
        let _ = self.leave();
    }
}

pub(super) fn open(directory: &OwnedFd, name: &Name) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    patiently(|| retry(|| openat(directory, name.as_bytes(), flags, Mode::empty())))
}

/// Whether something other than a directory has the name.
fn holds_another_file(directory: &OwnedFd, name: &Name) -> bool {
    let stat = retry(|| statat(directory, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW));
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
}
