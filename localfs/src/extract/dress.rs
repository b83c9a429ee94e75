//! Setting attributes, in the order that works: ownership first, for it clears set-id bits and capabilities; extended
//! attributes while the owner may still write; then mode, project and times. Flags come after all of it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use diptych_format::{Attributes, Entry, Kind, Time};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat,
    fchmod, fchown, fgetxattr, fremovexattr, fsetxattr, fstat, futimens, ioctl_getflags, openat, setxattr,
    statat, utimensat,
};
use rustix::io::Errno;

use super::Shared;
use crate::attributes;
use crate::facts::{retry, words};
use crate::syscalls;

const ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";
const PROJECT_INHERIT: u32 = rustix::fs::IFlags::PROJECT_INHERIT.bits();
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
/// Seconds that every file system can hold.
const ANY_SECONDS: std::ops::RangeInclusive<i64> = -0x8000_0000..=0x7fff_ffff;

/// What a directory hands down to what is made in it, and that to what is made below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inherited {
    /// Whether new entries get ACLs.
    pub acls: bool,
    /// Whether new entries may get flags.
    pub flags: bool,
    /// The project that they get.
    pub project: u32,
}

/// The owner that a new file has without being told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Born {
    pub uid: u32,
    pub gid: u32,
}

impl Inherited {
    /// What an existing directory hands down.
    pub fn from(directory: &OwnedFd) -> Self {
        let mut none = [0u8; 0];
        let acl = retry(|| fgetxattr(directory, DEFAULT_ACL, &mut none[..]));
        let flags = ioctl_getflags(directory).map_or(0, |flags| flags.bits());
        let flags = flags & diptych_format::limits::FLAGS_MASK;
        let project =
            if flags & PROJECT_INHERIT == 0 { 0 } else { syscalls::project(directory).unwrap_or(0) };
        Self { acls: acl.is_ok(), flags: flags != 0, project }
    }

    /// Takes from a new directory the ACLs that were handed down to it, which may forbid even its owner to fill it, and
    /// gives what it hands down then.
    pub fn without_acls(self, directory: &OwnedFd, mode: Mode) -> Self {
        if !self.acls {
            return self;
        }
        let done = remove(directory, DEFAULT_ACL)
            .and_then(|()| remove(directory, ACL))
            .and_then(|()| retry(|| fchmod(directory, mode)));
        Self { acls: done.is_err(), ..self }
    }
}

impl Shared {
    /// The owner that new things have: all alike in a target that is ours alone, and learnt from the first one.
    pub fn born(&self, made: &OwnedFd) -> Option<Born> {
        if let Some(born) = self.born.get() {
            return Some(*born);
        }
        let stat = fstat(made).ok()?;
        Some(*self.born.get_or_init(|| Born { uid: stat.st_uid, gid: stat.st_gid }))
    }
}

/// What could not be set, in words.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, what: &str, done: Result<(), Errno>) {
        if let Err(error) = done {
            self.0.push(format!("{what} cannot be set: {}", words(error)));
        }
    }
}

/// Dresses an open file or directory, all but its flags, and gives what could not be set. `inherited` is what it has
/// without being told; none if it was there before.
pub(super) fn dress_open(
    fd: &OwnedFd,
    entry: &Entry,
    shared: &Shared,
    inherited: Option<&Inherited>,
) -> Vec<String> {
    let mut problems = Problems::default();
    let attributes = &entry.attributes;
    let mode = set_owner(fd, attributes, shared, inherited.is_none(), &mut problems);
    match inherited {
        None => remove_others(fd, attributes),
        Some(inherited) if inherited.acls => remove_acls(fd, attributes),
        Some(_) => {}
    }
    for xattr in &attributes.xattrs {
        let set = || fsetxattr(fd, &xattr.name[..], &xattr.value, XattrFlags::empty());
        problems.note(&xattr_words(&xattr.name), retry(set));
    }
    // An ACL has set the group's bits to its mask, which is what they were when it was read.
    problems.note("the mode", retry(|| fchmod(fd, Mode::from_raw_mode(mode))));
    let project = inherited.map_or_else(|| syscalls::project(fd).unwrap_or(0), |inherited| inherited.project);
    if attributes.project != project {
        problems.note(&project_words(attributes), syscalls::set_project(fd, attributes.project));
    }
    problems.note("the time", retry(|| futimens(fd, &times(entry.mtime))));
    if !ANY_SECONDS.contains(&entry.mtime.seconds) {
        check_time(fstat(fd), entry.mtime, &mut problems);
    }
    problems.0
}

/// Sets the owner where it may differ, and gives the mode that is safe with the owner that came of it.
fn set_owner(
    fd: &OwnedFd,
    attributes: &Attributes,
    shared: &Shared,
    is_existing: bool,
    problems: &mut Problems,
) -> u32 {
    let mode = attributes.mode & 0o7777;
    if !is_existing && !shared.is_overwriting {
        let born = shared.born(fd);
        if born.is_some_and(|born| (born.uid, born.gid) == (attributes.uid, attributes.gid)) {
            return mode;
        }
    }
    let (owner, group) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    let Err(error) = retry(|| fchown(fd, Some(owner), Some(group))) else { return mode };
    // Who may not give files away may still give them to a group of his.
    let _ = retry(|| fchown(fd, None, Some(group)));
    let stat = fstat(fd);
    if stat.as_ref().is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (attributes.uid, attributes.gid)) {
        return mode;
    }
    problems.note(&owner_words(attributes), Err(error));
    let safe = safe_mode(attributes, stat.ok().as_ref());
    if safe != mode {
        problems.0.push("set-id bits are left out, for they would speak for another owner".to_owned());
    }
    safe
}

/// The mode without those set-id bits that would lend the rights of someone who is not the archived owner.
fn safe_mode(attributes: &Attributes, stat: Option<&Stat>) -> u32 {
    let mut mode = attributes.mode & 0o7777;
    if matches!(attributes.kind(), Ok(Kind::Directory)) {
        return mode;
    }
    if stat.is_none_or(|stat| stat.st_uid != attributes.uid) {
        mode &= !SET_UID;
    }
    if stat.is_none_or(|stat| stat.st_gid != attributes.gid) {
        mode &= !SET_GID;
    }
    mode
}

/// Dresses a link, device, pipe or socket by its name. Gives what could not be set.
///
/// It is opened as a place first, and what is done is done to that, whatever takes the name meanwhile.
pub(super) fn dress_name(directory: BorrowedFd<'_>, entry: &Entry, inherited: &Inherited) -> Vec<String> {
    let mut problems = Problems::default();
    let attributes = &entry.attributes;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = retry(|| openat(directory, entry.name.as_bytes(), flags, Mode::empty()));
    let stat = place.as_ref().map_err(|error| *error).and_then(fstat);
    let (place, stat) = match (place, stat) {
        (Ok(place), Ok(stat)) => (place, stat),
        (Err(error), _) | (_, Err(error)) => {
            problems.note("the attributes", Err(error));
            return problems.0;
        }
    };
    if stat.st_mode & 0o170000 != attributes.mode & 0o170000 {
        problems.note("the attributes", Err(Errno::STALE));
        return problems.0;
    }
    let stat = set_owner_of_place(&place, attributes, stat, &mut problems);
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    for xattr in &attributes.xattrs {
        // The path leads to the place itself, a link included, and not beyond.
        let set = || setxattr(&path[..], &xattr.name[..], &xattr.value, XattrFlags::empty());
        problems.note(&xattr_words(&xattr.name), retry(set));
    }
    if !matches!(entry.kind(), Ok(Kind::Symlink)) {
        if inherited.acls && !has(attributes, ACL) {
            let _ = rustix::fs::removexattr(&path[..], ACL);
        }
        let mode = safe_mode(attributes, Some(&stat));
        problems.note("the mode", retry(|| chmod(&path[..], Mode::from_raw_mode(mode))));
    }
    set_time_of_place(directory, &place, entry, &mut problems);
    problems.0
}

/// Sets the owner where it differs, and gives what is so then.
fn set_owner_of_place(place: &OwnedFd, attributes: &Attributes, stat: Stat, problems: &mut Problems) -> Stat {
    if (stat.st_uid, stat.st_gid) == (attributes.uid, attributes.gid) {
        return stat;
    }
    let (owner, group) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    let set = |owner| retry(|| chownat(place, c"", owner, Some(group), AtFlags::EMPTY_PATH));
    if let Err(error) = set(Some(owner)) {
        let _ = set(None);
        problems.note(&owner_words(attributes), Err(error));
    }
    fstat(place).unwrap_or(stat)
}

fn set_time_of_place(directory: BorrowedFd<'_>, place: &OwnedFd, entry: &Entry, problems: &mut Problems) {
    let times = times(entry.mtime);
    let set = match retry(|| utimensat(place, c"", &times, AtFlags::EMPTY_PATH)) {
        // Kernels before 5.8 take a name only.
        Err(Errno::INVAL | Errno::BADF | Errno::NOENT) => {
            retry(|| utimensat(directory, entry.name.as_bytes(), &times, AtFlags::SYMLINK_NOFOLLOW))
        }
        other => other,
    };
    problems.note("the time", set);
    if !ANY_SECONDS.contains(&entry.mtime.seconds) {
        check_time(statat(place, c"", AtFlags::EMPTY_PATH), entry.mtime, problems);
    }
}

/// What a directory handed down that the entry does not have. Most have none, and that is what is wanted.
fn remove_acls(fd: &OwnedFd, attributes: &Attributes) {
    for acl in [ACL, DEFAULT_ACL] {
        if !has(attributes, acl) {
            let _ = remove(fd, acl.as_bytes());
        }
    }
}

/// What something that was there before has and the entry does not. Labels that the system gives stay.
fn remove_others(fd: &OwnedFd, attributes: &Attributes) {
    for name in attributes::xattr_names(fd) {
        let is_ours = [&b"user."[..], b"trusted.", b"system.posix_acl_", b"security.capability"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if is_ours && !attributes.xattrs.iter().any(|xattr| *xattr.name == *name) {
            // What cannot be removed shows when the copy is compared; nothing of the entry is missing.
            let _ = remove(fd, &name[..]);
        }
    }
}

fn remove(fd: &OwnedFd, xattr: impl AsRef<[u8]>) -> Result<(), Errno> {
    match retry(|| fremovexattr(fd, xattr.as_ref())) {
        Err(Errno::NODATA) => Ok(()),
        done => done,
    }
}

fn has(attributes: &Attributes, xattr: &str) -> bool {
    attributes.xattrs.iter().any(|x| &*x.name == xattr.as_bytes())
}

fn owner_words(attributes: &Attributes) -> String {
    format!("the owner {}:{}", attributes.uid, attributes.gid)
}

fn project_words(attributes: &Attributes) -> String {
    format!("the quota project {}", attributes.project)
}

fn xattr_words(name: &[u8]) -> String {
    format!("the extended attribute {}", name.escape_ascii())
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

/// File systems hold a range of times, and take the nearest one for what lies outside without a word.
fn check_time(stat: Result<Stat, Errno>, mtime: Time, problems: &mut Problems) {
    let holds =
        |stat: &Stat| stat.st_mtime == mtime.seconds && stat.st_mtime_nsec == u64::from(mtime.nanoseconds);
    if stat.is_ok_and(|stat| !holds(&stat)) {
        problems.0.push("the file system cannot hold its time".to_owned());
    }
}
