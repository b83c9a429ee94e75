//! A file that is being written.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use diptych_format::{Entry, Name, Result};
use rustix::fs::{AtFlags, FallocateFlags, IFlags, fallocate, ftruncate, ioctl_ficlone, renameat, unlinkat};
use rustix::io::{Errno, pwrite};

use super::remove::by_force;
use super::standing::read_at;
use super::{Deferred, Shared, again, cannot, dress, flags, lock};
use crate::facts::retry;
use crate::place::{Identity, Place};

/// How many zeros are written at once.
const ZEROS: usize = 64 << 10;

/// A file that is being written; removed if it is dropped before it is finished.
pub struct OutFile {
    shared: Arc<Shared>,
    directory: Arc<Place>,
    name: Name,
    path: Vec<u8>,
    fd: OwnedFd,
    inherited: dress::Inherited,
    /// The name that it takes, from another file, when it is finished.
    replaces: Option<Name>,
    /// Whether it was there before, and stays whatever happens.
    is_old: bool,
    /// The flags that kept it from being changed.
    had: Option<IFlags>,
    is_finished: bool,
}

impl OutFile {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: Arc<Place>,
        name: Name,
        path: Vec<u8>,
        fd: OwnedFd,
        inherited: dress::Inherited,
    ) -> Self {
        Self {
            shared,
            directory,
            name,
            path,
            fd,
            inherited,
            replaces: None,
            is_old: false,
            had: None,
            is_finished: false,
        }
    }

    /// The same file, which takes over `name` when it is finished.
    pub(super) fn replacing(mut self, name: Name) -> Self {
        self.replaces = Some(name);
        self
    }

    /// The same file, which was there before and had `had`.
    pub(super) fn changing(mut self, had: Option<IFlags>) -> Self {
        (self.is_old, self.had) = (true, had);
        self
    }

    /// Makes it a clone of `old`; says whether the file system can.
    pub(super) fn clone_of(&self, old: &OwnedFd) -> bool {
        retry(|| ioctl_ficlone(&self.fd, old)).is_ok()
    }

    /// Reads at `offset` what is there until `bytes` is full or the file ends; says how many there were. Only of a file
    /// that is changed.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<usize> {
        read_at(&self.fd, bytes, offset)
    }

    /// Makes a range of a file that is changed read as zeros, without taking room where that can be had.
    pub fn clear(&self, offset: u64, length: u64) -> Result<()> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match retry(|| fallocate(&self.fd, punch, offset, length)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; ZEROS];
                let end = offset.saturating_add(length);
                let mut at = offset;
                while at < end {
                    let count = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
                    self.write_at(zeros.get(..count).unwrap_or(&zeros), at)?;
                    at += count as u64;
                }
                Ok(())
            }
            done => done.map_err(cannot("cannot make a hole")),
        }
    }

    /// Whether a problem leaves what was there changed in part: it was there before, and is no clone.
    pub fn is_old(&self) -> bool {
        self.is_old
    }

    /// Prepares the empty file for what it is to hold: says how, where a file system decides that beforehand.
    pub fn prepare(&self, entry: &Entry) {
        flags::set_early(&self.fd, entry.attributes.flags);
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        while !bytes.is_empty() {
            let written = retry(|| pwrite(&self.fd, bytes, offset)).map_err(cannot("cannot write"))?;
            if written == 0 {
                return Err(cannot("cannot write")(Errno::IO));
            }
            bytes = bytes.get(written..).unwrap_or(&[]);
            offset = offset.saturating_add(written as u64);
        }
        Ok(())
    }

    /// Makes the file `length` bytes long; what is not written is a hole.
    pub fn set_length(&self, length: u64) -> Result<()> {
        retry(|| ftruncate(&self.fd, length)).map_err(cannot("cannot set the length"))
    }

    /// Its device and inode. A link to it is made only to this very object from now on.
    pub fn identity(&self) -> Result<(u64, u64)> {
        let identity = Identity::of_open(&self.fd).map_err(cannot("cannot tell which file it is"))?;
        lock(&self.shared.made).insert(self.path.clone(), identity);
        Ok((identity.device, identity.inode))
    }

    /// Gives the file its attributes, when its content is there; says which could not be set.
    pub fn finish(mut self, entry: &Entry) -> Result<Vec<String>> {
        let mut problems =
            dress::dress_open(&self.fd, entry, &self.shared, (!self.is_old).then_some(&self.inherited));
        if let Some(name) = &self.replaces {
            let directory = again(&self.directory)?;
            let rename = || renameat(&directory, self.name.as_bytes(), &directory, name.as_bytes());
            by_force(&directory, name, rename).map_err(cannot("what is there cannot be replaced"))?;
        }
        let may_have_others = self.inherited.flags || self.is_old;
        self.shared.set_or_defer(&self.fd, &self.path, entry, may_have_others, &mut problems);
        self.is_finished = true;
        Ok(problems)
    }

    /// Removes the file: what it holds turned out not to be what it should.
    pub fn discard(self) {
        drop(self);
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if self.is_old {
            if let Some(had) = self.had {
                // Nobody is there to be told.
                let _ = flags::give_back(&self.fd, had);
            }
            return;
        }
        // Only what was made here is removed: another may have taken the name since.
        let Ok(directory) = again(&self.directory) else { return };
        let there = Identity::of_name(&directory, &self.name);
        if let (Ok(made), Ok(there)) = (Identity::of_open(&self.fd), there)
            && made == there
        {
            let _ = unlinkat(&directory, self.name.as_bytes(), AtFlags::empty());
        }
    }
}

impl Shared {
    /// A name for a file that is to replace another: no other file of this extraction has it.
    pub(super) fn name_beside(&self) -> Result<Name> {
        let number = self.beside.fetch_add(1, Ordering::Relaxed);
        Name::try_new(format!(".diptych-{}-{number}", std::process::id()).as_bytes())
    }

    /// Sets the flags of what is finished, or leaves them to the end if they forbid what is still to come.
    pub(super) fn set_or_defer(
        &self,
        fd: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        may_have_others: bool,
        problems: &mut Vec<String>,
    ) {
        let wanted = entry.attributes.flags;
        if !flags::forbid_changes(wanted) {
            if wanted != 0 || may_have_others {
                problems.extend(flags::set(fd, wanted));
            }
            return;
        }
        match Identity::of_open(fd) {
            Ok(identity) => {
                lock(&self.deferred).push(Deferred { path: path.to_vec(), identity, flags: wanted })
            }
            Err(error) => {
                problems.push(format!("the file flags cannot be set: {}", crate::facts::words(error)))
            }
        }
    }
}
