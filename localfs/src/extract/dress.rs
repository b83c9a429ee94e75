//! Setting attributes, in the order that works: ownership first, for it clears set-id bits and capabilities; extended
//! attributes while the owner may still write; then mode, project and times; flags last, for they may forbid the rest.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use diptych_format::{Attributes, Entry, Kind, Time};
use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat, fchmod,
    fchown, fgetxattr, fremovexattr, fsetxattr, fstat, futimens, ioctl_getflags, ioctl_setflags, lsetxattr, openat,
    statat, utimensat,
};
use rustix::io::Errno;

use crate::facts::{retry, words};
use crate::syscalls;

/// Flags that forbid changes.
const FORBIDDING: u32 = IFlags::IMMUTABLE.bits() | IFlags::APPEND.bits();
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
/// Seconds that every file system can hold.
const ANY_SECONDS: std::ops::RangeInclusive<i64> = -0x8000_0000..=0x7fff_ffff;

/// What a new file below the target has without being told.
pub(super) struct Defaults {
    uid: u32,
    gid: u32,
    /// Flags that it inherits.
    flags: u32,
    project: u32,
    inherits_acls: bool,
    /// Whether there may be anything: in a target that was there before.
    is_unknown: bool,
}

impl Defaults {
    /// What is inherited below `root`.
    pub(super) fn below(root: &OwnedFd, is_overwriting: bool) -> Result<Self, Errno> {
        let stat = fstat(root)?;
        let inherits_group = stat.st_mode & 0o2000 != 0;
        let mut none = [0u8; 0];
        let inherits_acls = !matches!(
            fgetxattr(root, ACLS[1], &mut none[..]),
            Err(Errno::NODATA | Errno::OPNOTSUPP)
        );
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: if inherits_group { stat.st_gid } else { rustix::process::getegid().as_raw() },
            flags: ioctl_getflags(root).map_or(0, |flags| flags.bits()) & diptych_format::limits::FLAGS_MASK,
            project: syscalls::project(root.as_fd()).unwrap_or(0),
            inherits_acls,
            is_unknown: is_overwriting,
        })
    }
}

/// Dresses an open file or directory. Gives what could not be set, and the flags that are to be set at the end.
pub(super) fn dress_open(fd: &OwnedFd, entry: &Entry, defaults: &Defaults) -> (Vec<String>, u32) {
    let mut problems = Vec::new();
    let attributes = &entry.attributes;
    let mut note = |what: &str, done: Result<(), Errno>| {
        if let Err(error) = done {
            problems.push(format!("{what} cannot be set: {}", words(error)));
        }
    };
    if defaults.is_unknown || (attributes.uid, attributes.gid) != (defaults.uid, defaults.gid) {
        note(&owner_words(attributes), retry(|| fchown(fd, owner(attributes), group(attributes))));
    }
    if defaults.inherits_acls || defaults.is_unknown {
        remove_inherited(fd, attributes);
    }
    for xattr in &attributes.xattrs {
        let set = || fsetxattr(fd, &xattr.name[..], &xattr.value, XattrFlags::empty());
        note(&xattr_words(&xattr.name), retry(set));
    }
    note("the mode", retry(|| fchmod(fd, Mode::from_raw_mode(attributes.mode & 0o7777))));
    if attributes.project != defaults.project || defaults.is_unknown && attributes.project != 0 {
        note("the project id", syscalls::set_project(fd.as_fd(), attributes.project));
    }
    note("the time", retry(|| futimens(fd, &times(entry.mtime))));
    if !ANY_SECONDS.contains(&entry.mtime.seconds) && fstat(fd).is_ok_and(|stat| !has_time(&stat, entry.mtime)) {
        problems.push("the file system cannot hold its time".to_owned());
    }
    let forbidding = attributes.flags & FORBIDDING;
    if forbidding == 0 && (attributes.flags != defaults.flags || defaults.is_unknown) {
        problems.extend(set_flags(fd, attributes.flags));
    }
    (problems, if forbidding == 0 { 0 } else { attributes.flags })
}

/// Sets the flags that can be set, leaving the others as they are. Gives the problem, if there is one.
pub(super) fn set_flags(fd: &OwnedFd, flags: u32) -> Option<String> {
    let set = || {
        let now = match ioctl_getflags(fd) {
            // A file system without flags is right for a file without any.
            Err(_) if flags == 0 => return Ok(()),
            now => now?.bits(),
        };
        let wanted = now & !diptych_format::limits::FLAGS_MASK | flags;
        if wanted == now { Ok(()) } else { ioctl_setflags(fd, IFlags::from_bits_retain(wanted)) }
    };
    retry(set).err().map(|error| format!("the file flags {flags:#x} cannot be set: {}", words(error)))
}

/// Dresses a link, device, pipe or socket by its name. Gives what could not be set.
pub(super) fn dress_name(directory: BorrowedFd<'_>, entry: &Entry) -> Vec<String> {
    let mut problems = Vec::new();
    let attributes = &entry.attributes;
    let name = entry.name.as_bytes();
    let is_link = matches!(entry.kind(), Ok(Kind::Symlink));
    let mut note = |what: &str, done: Result<(), Errno>| {
        if let Err(error) = done {
            problems.push(format!("{what} cannot be set: {}", words(error)));
        }
    };
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    let owns = statat(directory, name, no_follow)
        .is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (attributes.uid, attributes.gid));
    if !owns {
        let set = || chownat(directory, name, owner(attributes), group(attributes), no_follow);
        note(&owner_words(attributes), retry(set));
    }
    for xattr in &attributes.xattrs {
        note(&xattr_words(&xattr.name), set_xattr_by_name(directory, name, &xattr.name, &xattr.value));
    }
    // It was made with its mode, of which a change of ownership takes the set-id bits.
    if !is_link && !owns && attributes.mode & 0o6000 != 0 {
        note("the mode", set_mode_by_name(directory, name, attributes.mode));
    }
    note("the time", retry(|| utimensat(directory, name, &times(entry.mtime), no_follow)));
    if !ANY_SECONDS.contains(&entry.mtime.seconds)
        && statat(directory, name, no_follow).is_ok_and(|stat| !has_time(&stat, entry.mtime))
    {
        problems.push("the file system cannot hold its time".to_owned());
    }
    problems
}

fn set_xattr_by_name(directory: BorrowedFd<'_>, name: &[u8], xattr: &[u8], value: &[u8]) -> Result<(), Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    retry(|| lsetxattr(&path, xattr, value, XattrFlags::empty()))
}

fn set_mode_by_name(directory: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Errno> {
    let fd = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(mode & 0o7777))
}

/// What a directory handed down that the entry does not have: ACLs.
fn remove_inherited(fd: &OwnedFd, attributes: &Attributes) {
    for acl in ACLS {
        if !attributes.xattrs.iter().any(|xattr| &*xattr.name == acl.as_bytes()) {
            // Most have none, and that is what was wanted.
            let _ = fremovexattr(fd, acl);
        }
    }
}

fn owner(attributes: &Attributes) -> Option<Uid> {
    Some(Uid::from_raw(attributes.uid))
}

fn group(attributes: &Attributes) -> Option<Gid> {
    Some(Gid::from_raw(attributes.gid))
}

fn owner_words(attributes: &Attributes) -> String {
    format!("the owner {}:{}", attributes.uid, attributes.gid)
}

fn xattr_words(name: &[u8]) -> String {
    format!("the extended attribute {}", String::from_utf8_lossy(name))
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

fn has_time(stat: &Stat, mtime: Time) -> bool {
    stat.st_mtime == mtime.seconds && stat.st_mtime_nsec == u64::from(mtime.nanoseconds)
}
