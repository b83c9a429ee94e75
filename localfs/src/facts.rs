//! Facts: what one `statx` says of an entry.

use std::os::fd::AsFd;

use diptych_format::{Change, Kind, Time};
use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

/// What one `statx` says of an entry. The archive keeps most of it; the rest tells a later run what has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; of a regular file, its content's.
    pub size: u64,
    /// Blocks of 512 bytes that it takes.
    pub blocks: u64,
    /// When the content last changed.
    pub mtime: Time,
    /// When the inode last changed.
    pub ctime: Time,
    /// Inode number.
    pub inode: u64,
    /// The device that it is on.
    pub device: u64,
    /// How many names it has.
    pub links: u32,
    /// Of a device, its major number.
    pub rdev_major: u32,
    /// Of a device, its minor number.
    pub rdev_minor: u32,
}

impl Facts {
    /// What is known of `name` in a directory, not following a symbolic link and not mounting anything.
    pub(crate) fn of_name(directory: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        Self::from_statx(&retry(|| statx(&directory, name, flags, StatxFlags::BASIC_STATS))?)
    }

    /// What is known of an open file, as the file system has it now.
    pub(crate) fn of_open(fd: impl AsFd) -> Result<Self, Errno> {
        Self::from_statx(&retry(|| statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS))?)
    }

    fn from_statx(s: &Statx) -> Result<Self, Errno> {
        let mode = u32::from(s.stx_mode);
        Ok(Self {
            // A type that the format does not know (a door, a whiteout of another system) cannot be kept.
            kind: Kind::from_mode(mode).map_err(|_| Errno::NOTSUP)?,
            mode,
            uid: s.stx_uid,
            gid: s.stx_gid,
            size: s.stx_size,
            blocks: s.stx_blocks,
            mtime: time(&s.stx_mtime),
            ctime: time(&s.stx_ctime),
            inode: s.stx_ino,
            device: makedev(s.stx_dev_major, s.stx_dev_minor),
            links: s.stx_nlink,
            rdev_major: s.stx_rdev_major,
            rdev_minor: s.stx_rdev_minor,
        })
    }

    /// What of it a later run compares.
    pub fn change(&self) -> Change {
        Change { ctime: self.ctime, inode: self.inode }
    }
}

fn time(t: &StatxTimestamp) -> Time {
    Time { seconds: t.tv_sec, nanoseconds: t.tv_nsec }
}

/// Repeats a system call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What the operating system's error number says, in words.
pub(crate) fn words(error: Errno) -> std::io::Error {
    error.into()
}

/// `parent/name`, or the name alone below the root.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    if !parent.is_empty() {
        path.extend_from_slice(parent);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
