//! Deletes what a directory has and should not have: never through a link, and never on another file system that is
//! mounted below.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use diptych_format::{Name, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, makedev, openat, statx};
use rustix::io::Errno;

use super::directory::{Had, open};
use super::remove::remove;
use super::{OutDirectory, Target, again, cannot};
use crate::facts::{Facts, join, retry, words};
use crate::handle::patiently;
use crate::place::Place;

/// Room for the names that are read at once.
const LISTING_BUFFER: usize = 32 << 10;

/// Whether something may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayGo {
    /// Yes, with all below it that may.
    Yes,
    /// Not itself, but perhaps something below it.
    Below,
    /// No, nor anything below.
    No,
}

/// What became of something that was to be deleted.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone, or would be.
    Gone {
        /// Whether it was a directory.
        is_directory: bool,
    },
    /// It stays, and why.
    Stays(String),
}

/// How to delete.
pub struct Deletion<'d> {
    /// Whether what is at a path below the target may go; the second says if it is a directory.
    pub may_go: &'d dyn Fn(&[u8], bool) -> MayGo,
    /// Takes the path of each thing that is deleted, or should have been.
    pub told: &'d dyn Fn(&[u8], Deleted),
    /// Whether to say only what would be deleted.
    pub is_dry: bool,
    /// The mount that is not left.
    pub mount: Mount,
}

/// Which mount something is on; by its device where the kernel does not tell mounts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    device: u64,
    id: Option<u64>,
}

impl Mount {
    fn of(fd: impl AsFd) -> Result<Self, Errno> {
        let stat = retry(|| statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID))?;
        let id = (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id);
        Ok(Self { device: makedev(stat.stx_dev_major, stat.stx_dev_minor), id })
    }
}

impl Target {
    /// The mount that the target is on.
    pub fn mount(&self) -> Result<Mount> {
        Mount::of(&*self.root).map_err(cannot("cannot tell which file system it is on"))
    }
}

/// A directory that is being emptied.
struct Level {
    place: Arc<Place>,
    had: Option<Had>,
    /// What it holds and has not been dealt with.
    rest: Vec<(Vec<u8>, bool)>,
    /// Whether it is to go itself when it is empty, and may still become so.
    goes: bool,
}

impl OutDirectory {
    /// Deletes all that has a name which `keeps` does not want.
    pub fn delete_others(&self, keeps: &dyn Fn(&[u8]) -> bool, deletion: &Deletion<'_>) -> Result<()> {
        let here = again(&self.place)?;
        let path = self.place.path();
        let mount = Mount::of(&*here).map_err(cannot("cannot tell which file system it is on"))?;
        let mut names = list(&here).map_err(cannot("cannot list what is there"))?;
        names.retain(|(name, _)| !keeps(name));
        if mount != deletion.mount {
            let others = names
                .iter()
                .any(|(name, is_directory)| (deletion.may_go)(&join(path, name), *is_directory) != MayGo::No);
            if others {
                (deletion.told)(path, Deleted::Stays(ELSEWHERE.to_owned()));
            }
            return Ok(());
        }
        empty(Level { place: Arc::clone(&self.place), had: None, rest: names, goes: false }, deletion);
        Ok(())
    }

    /// Deletes what is called `name` with all below it.
    pub fn delete_name(&self, name: &Name, deletion: &Deletion<'_>) -> Result<()> {
        self.delete_others(&|other| other != name.as_bytes(), deletion)
    }
}

/// Why something on another mount stays.
const ELSEWHERE: &str = "another file system is mounted there: nothing on it is deleted";

/// Deletes what a level holds, with all below: level by level, so that depth costs neither stack nor descriptors.
fn empty(top: Level, deletion: &Deletion<'_>) {
    let mut levels = vec![top];
    while let Some(level) = levels.last_mut() {
        let Some((name, is_directory)) = level.rest.pop() else {
            let Some(done) = levels.pop() else { return };
            if let Some(above) = levels.last_mut() {
                leave(done, above, deletion);
            }
            continue;
        };
        let path = join(level.place.path(), &name);
        let may_go = (deletion.may_go)(&path, is_directory);
        let result = match may_go {
            MayGo::No => {
                level.goes = false;
                continue;
            }
            _ if is_directory => enter(level, &name, &path, may_go == MayGo::Yes, deletion).map(Some),
            _ => delete(level, &name, &path, false, deletion).map(|()| None),
        };
        match result {
            Ok(Some(below)) => levels.push(below),
            Ok(None) => {}
            Err(why) => {
                level.goes = false;
                (deletion.told)(&path, Deleted::Stays(why));
            }
        }
    }
}

/// Opens a directory whose entries are to go.
fn enter(
    level: &Level,
    name: &[u8],
    path: &[u8],
    goes: bool,
    deletion: &Deletion<'_>,
) -> Result<Level, String> {
    let not_opened = |error| format!("not deleted: it cannot be opened: {}", words(error));
    let name = Name::try_new(name).map_err(|error| error.to_string())?;
    let here = patiently(|| level.place.fd()).map_err(not_opened)?;
    let fd = open(&here, &name).map_err(not_opened)?;
    if Mount::of(&fd).map_err(not_opened)? != deletion.mount {
        return Err(ELSEWHERE.to_owned());
    }
    let had = (!deletion.is_dry).then(|| Had::open_up(&fd));
    let rest = list(&fd).map_err(|error| format!("not deleted: it cannot be listed: {}", words(error)))?;
    Ok(Level { place: level.place.tree().add(path.into(), fd), had, rest, goes })
}

/// Removes a directory of which all is gone; one that stays gets back what it had.
fn leave(done: Level, above: &mut Level, deletion: &Deletion<'_>) {
    let path = Arc::clone(done.place.path());
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let why = if done.goes {
        match delete(above, name, &path, true, deletion) {
            Ok(()) => return,
            Err(why) => Some(why),
        }
    } else {
        None
    };
    above.goes = false;
    if let (Some(had), Ok(fd)) = (done.had, done.place.fd()) {
        had.give_back(&fd);
    }
    if let Some(why) = why {
        (deletion.told)(&path, Deleted::Stays(why));
    }
}

fn delete(
    level: &Level,
    name: &[u8],
    path: &[u8],
    is_directory: bool,
    deletion: &Deletion<'_>,
) -> Result<(), String> {
    if !deletion.is_dry {
        let name = Name::try_new(name).map_err(|error| error.to_string())?;
        let here = again(&level.place).map_err(|error| error.to_string())?;
        remove(&here, &name).map_err(|error| format!("not deleted: {error}"))?;
    }
    (deletion.told)(path, Deleted::Gone { is_directory });
    Ok(())
}

/// The names in a directory, and whether they are those of directories, the last first.
fn list(directory: &OwnedFd) -> Result<Vec<(Vec<u8>, bool)>, Errno> {
    // Opened anew, for the place up to which names were read belongs to the open directory.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = patiently(|| retry(|| openat(directory, c".", flags, Mode::empty())))?;
    let mut buffer = Vec::with_capacity(LISTING_BUFFER);
    let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => {
                Facts::of_name(&fd, name).is_ok_and(|facts| facts.kind == diptych_format::Kind::Directory)
            }
            kind => kind == FileType::Directory,
        };
        names.push((name.to_vec(), is_directory));
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}
