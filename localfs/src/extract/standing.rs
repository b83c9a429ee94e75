//! What stands in a directory before it is written: looked at, compared, and kept with other attributes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use diptych_format::{Entry, Error, Kind, Name, Result};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::{Errno, pread};

use super::directory::open;
use super::{OutDirectory, Shared, Target, again, cannot, dress, flags, lock};
use crate::facts::{Facts, retry};
use crate::handle::patiently;
use crate::place::{Identity, open_beneath};

/// What has a name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it is.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// How many names it has, wherever they are.
    pub links: u64,
    /// Its device and inode.
    pub inode: (u64, u64),
}

impl From<Facts> for Standing {
    fn from(facts: Facts) -> Self {
        let inode = (facts.device, facts.inode);
        Self { kind: facts.kind, size: facts.size, links: facts.links.into(), inode }
    }
}

impl OutDirectory {
    /// What has `name` in it, not followed; nothing if nothing has.
    pub fn standing(&self, name: &Name) -> Result<Option<Standing>> {
        match Facts::of_name(&*again(&self.place)?, name.as_bytes()) {
            Ok(facts) => Ok(Some(facts.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(cannot("cannot look at what is there")(error)),
        }
    }

    /// Opens the regular file that has `name`, to be compared and perhaps kept.
    pub fn open_standing(&self, name: &Name) -> Result<OldFile> {
        let here = again(&self.place)?;
        // Whatever takes the name meanwhile: no device is waited for, and no link is followed.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = patiently(|| retry(|| openat(&here, name.as_bytes(), flags, Mode::empty())))
            .map_err(cannot("cannot open what is there"))?;
        let facts = Facts::of_open(&fd).map_err(cannot("cannot look at what is there"))?;
        if facts.kind != Kind::File {
            return Err(cannot("cannot open what is there")(Errno::STALE));
        }
        Ok(OldFile { shared: Arc::clone(&self.shared), path: self.path_of(name), fd, standing: facts.into() })
    }

    /// Where the symbolic link called `name` leads.
    pub fn target_of(&self, name: &Name) -> Result<Vec<u8>> {
        let here = again(&self.place)?;
        let target = retry(|| readlinkat(&here, name.as_bytes(), Vec::new()));
        target.map(std::ffi::CString::into_bytes).map_err(cannot("cannot read the link that is there"))
    }

    /// Gives the symbolic link that is there the attributes of `entry`; says which could not be set.
    pub fn dress_standing(&self, entry: &Entry) -> Result<Vec<String>> {
        use std::os::fd::AsFd;
        Ok(dress::dress_name(again(&self.place)?.as_fd(), entry, &self.inherited))
    }

    /// The directory called `name`, as it is; nothing if there is none.
    pub fn enter(&self, name: &Name) -> Result<Option<OutDirectory>> {
        match open(&*again(&self.place)?, name) {
            Ok(fd) => {
                let place = self.place.tree().add(self.path_of(name).into(), fd);
                OutDirectory::existing(Arc::clone(&self.shared), place).map(Some)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(cannot("cannot open the directory")(error)),
        }
    }
}

impl Target {
    /// What stands at a path below the target, no link followed; nothing where nothing can be seen.
    pub fn standing(&self, path: &[u8]) -> Option<Standing> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = patiently(|| open_beneath(&self.root, path, flags)).ok()?;
        Facts::of_open(&fd).ok().map(Standing::from)
    }
}

/// A regular file that was there before.
pub struct OldFile {
    shared: Arc<Shared>,
    path: Vec<u8>,
    fd: OwnedFd,
    standing: Standing,
}

impl OldFile {
    /// What it is.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Reads at `offset` until `bytes` is full or the file ends; says how many there were.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize> {
        read_at(&self.fd, bytes, offset)
    }

    /// Notes that it stands for the first name of a group: links are made to this very file from now on.
    pub fn identity(&self) -> Result<()> {
        let identity = Identity::of_open(&self.fd).map_err(cannot("cannot tell which file it is"))?;
        lock(&self.shared.made).insert(self.path.clone(), identity);
        Ok(())
    }

    /// Keeps its content and gives it the attributes of `entry`; says which could not be set.
    pub fn keep(self, entry: &Entry) -> Vec<String> {
        flags::lift(&self.fd);
        let mut problems = dress::dress_open(&self.fd, entry, &self.shared, None);
        self.shared.set_or_defer(&self.fd, &self.path, entry, true, &mut problems);
        problems
    }
}

/// Reads at `offset` until `bytes` is full or the file ends.
pub(super) fn read_at(fd: &OwnedFd, bytes: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(done as u64);
        let got = retry(|| pread(fd, &mut *rest, at)).map_err(cannot("cannot read what is there"))?;
        if got == 0 {
            break;
        }
        done += got;
    }
    Ok(done)
}

/// What is in the way of a directory and must stay.
pub fn in_the_way(kind: Kind) -> Error {
    let what = format!("a {} is in its place, and is kept", kind.word());
    Error::io(what, std::io::ErrorKind::AlreadyExists.into())
}
