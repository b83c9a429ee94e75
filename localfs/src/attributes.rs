//! What an entry has beyond its facts: extended attributes, `chattr` flags, quota project.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use diptych_format::limits::{FLAGS_MASK, XATTR_TOTAL_MAX, XATTR_VALUE_MAX};
use diptych_format::{Attributes, Xattr};
use rustix::buffer::spare_capacity;
use rustix::fs::{fgetxattr, flistxattr, ioctl_getflags, lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::facts::{Facts, retry, words};
use crate::handle::{Feature, FileSystem};
use crate::syscalls;

/// Room for names and values on the stack; what is longer goes to the heap.
const SMALL: usize = 1024;

/// Attributes as far as they could be read.
pub(crate) struct Read {
    pub attributes: Attributes,
    /// What could not be read and why; empty if all could.
    pub missing: Vec<String>,
    /// Whether something could not be read, reported or not.
    pub is_incomplete: bool,
}

/// The attributes of an open file or directory. `file_system` is what is known of the one that it is on.
pub(crate) fn of_open(fd: BorrowedFd<'_>, facts: &Facts, file_system: Option<&FileSystem>) -> Read {
    let mut read = plain(facts);
    if let Some(flags) = ask(file_system, Feature::Flags, &mut read.missing, "file flags", || {
        ioctl_getflags(fd).map(|flags| flags.bits())
    }) {
        read.attributes.flags = flags & FLAGS_MASK;
    }
    let project = || syscalls::project(fd);
    if let Some(project) = ask(file_system, Feature::Projects, &mut read.missing, "quota project", project) {
        read.attributes.project = project;
    }
    read_xattrs(&Place::Open(fd), file_system, &mut read);
    read
}

/// The attributes of what must not be opened: symbolic links, devices, pipes and sockets.
pub(crate) fn of_name(
    directory: BorrowedFd<'_>,
    name: &[u8],
    facts: &Facts,
    known: Option<&FileSystem>,
) -> Read {
    let mut read = plain(facts);
    if known.is_some_and(|fs| fs.lacks(Feature::Xattrs)) {
        return read;
    }
    if !has_proc() {
        // Once for each file system is enough: there is nothing in particular about one link or another.
        if known.is_none_or(|fs| !fs.told_of_proc.swap(true, Ordering::Relaxed)) {
            let what = "extended attributes of links, devices, pipes and sockets: /proc is not mounted";
            read.missing.push(what.to_owned());
        }
        read.is_incomplete = true;
        return read;
    }
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    read_xattrs(&Place::Named(&path), known, &mut read);
    read
}

/// The attributes that `statx` gave.
pub(crate) fn plain(facts: &Facts) -> Read {
    let Facts { mode, uid, gid, .. } = *facts;
    Read {
        attributes: Attributes { mode, uid, gid, ..Attributes::default() },
        missing: Vec::new(),
        is_incomplete: false,
    }
}

/// Whether open files can be named through `/proc`, which names beside them need.
pub(crate) fn has_proc() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| rustix::fs::access("/proc/self/fd", rustix::fs::Access::EXISTS).is_ok())
}

/// Asks for something that not every file system has.
fn ask<T>(
    file_system: Option<&FileSystem>,
    feature: Feature,
    missing: &mut Vec<String>,
    what: &str,
    call: impl FnMut() -> Result<T, Errno>,
) -> Option<T> {
    if file_system.is_some_and(|fs| fs.lacks(feature)) {
        return None;
    }
    match retry(call) {
        Ok(value) => Some(value),
        Err(error) if is_lack(error) => {
            if let Some(fs) = file_system {
                fs.remember_lack(feature);
            }
            None
        }
        Err(error) => {
            missing.push(format!("{what}: {}", words(error)));
            None
        }
    }
}

/// The ways in which file systems say that they do not have something.
pub(crate) fn is_lack(error: Errno) -> bool {
    matches!(error, Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
}

/// Where extended attributes are read from.
enum Place<'a> {
    Open(BorrowedFd<'a>),
    Named(&'a [u8]),
}

impl Place<'_> {
    /// The names, each with a NUL behind it. Most files have none, and that costs no allocation.
    fn list(&self) -> Result<Vec<u8>, Errno> {
        let mut small = [MaybeUninit::<u8>::uninit(); SMALL];
        let listed = match self {
            Place::Open(fd) => flistxattr(fd, &mut small),
            Place::Named(path) => llistxattr(*path, &mut small),
        };
        match listed {
            Ok((names, _)) => Ok(names.to_vec()),
            Err(Errno::RANGE) => self.list_long(),
            Err(error) => Err(error),
        }
    }

    fn list_long(&self) -> Result<Vec<u8>, Errno> {
        read_whole(|buffer| match self {
            Place::Open(fd) => flistxattr(fd, spare_capacity(buffer)),
            Place::Named(path) => llistxattr(*path, spare_capacity(buffer)),
        })
    }

    fn value(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        read_whole(|buffer| match self {
            Place::Open(fd) => fgetxattr(fd, name, spare_capacity(buffer)),
            Place::Named(path) => lgetxattr(*path, name, spare_capacity(buffer)),
        })
    }
}

/// Reads what may be up to 64 KiB long and usually is a few bytes.
fn read_whole(mut call: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(SMALL);
    loop {
        match call(&mut buffer) {
            Ok(_) => return Ok(buffer),
            Err(Errno::RANGE) if buffer.capacity() < XATTR_VALUE_MAX => {
                buffer = Vec::with_capacity(XATTR_VALUE_MAX);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_xattrs(place: &Place<'_>, file_system: Option<&FileSystem>, read: &mut Read) {
    let names = ask(file_system, Feature::Xattrs, &mut read.missing, "extended attributes", || place.list());
    for name in names.unwrap_or_default().split(|b| *b == 0).filter(|name| !name.is_empty()) {
        match place.value(name) {
            Ok(value) => {
                read.attributes.xattrs.push(Xattr { name: name.into(), value: value.into() });
            }
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => {
                // It may hold anything, control characters included, and ends up on a terminal.
                let name = name.escape_ascii();
                read.missing.push(format!("extended attribute {name}: {}", words(error)));
            }
        }
    }
    read.attributes.xattrs.sort_unstable();
    read.attributes.xattrs.dedup_by(|a, b| a.name == b.name);
    if read.attributes.xattr_bytes() > XATTR_TOTAL_MAX {
        let bytes = read.attributes.xattr_bytes();
        read.attributes.xattrs.clear();
        read.missing
            .push(format!("extended attributes: {bytes} bytes are above the limit of {XATTR_TOTAL_MAX}"));
    }
    read.is_incomplete |= !read.missing.is_empty();
}

/// The names of an open file's extended attributes, as far as they can be had.
pub(crate) fn xattr_names(fd: &std::os::fd::OwnedFd) -> Vec<Vec<u8>> {
    let names = Place::Open(fd.as_fd()).list().unwrap_or_default();
    names.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}
