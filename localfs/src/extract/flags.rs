//! File flags (`chattr`): those that forbid changes come last, those that only empty things can take come first.

use std::os::fd::{AsRawFd, OwnedFd};

use diptych_format::Name;
use diptych_format::limits::FLAGS_MASK;
use rustix::fs::{FileType, IFlags, Mode, OFlags, fstat, ioctl_getflags, ioctl_setflags, open, openat};
use rustix::io::Errno;

use crate::facts::{retry, words};

/// Flags that forbid changes.
const FORBIDDING: u32 = IFlags::IMMUTABLE.bits() | IFlags::APPEND.bits();
/// Flags that change how contents or names are kept, and that what holds any does not take.
const EARLY: u32 = IFlags::NOCOW.bits() | IFlags::COMPRESSED.bits() | CASEFOLD;
const CASEFOLD: u32 = 0x4000_0000;

/// Whether flags would forbid what is still to be done.
pub(super) fn forbid_changes(flags: u32) -> bool {
    flags & FORBIDDING != 0
}

/// Takes away the flags that forbid changes, if there are any and that can be done; gives what was there.
pub(super) fn lift(fd: &OwnedFd) -> Option<IFlags> {
    let had = retry(|| ioctl_getflags(fd)).ok().filter(|flags| forbid_changes(flags.bits()))?;
    retry(|| ioctl_setflags(fd, retain(had.bits() & !FORBIDDING))).ok().map(|()| had)
}

/// Sets the flags that were there.
pub(super) fn give_back(fd: &OwnedFd, had: IFlags) -> Result<(), Errno> {
    retry(|| ioctl_setflags(fd, had))
}

/// Something whose flags are lifted so that one of its names can go. What has other names, which may lie outside the
/// target, or what stays after all, gets them back.
pub(super) struct Lifted {
    fd: OwnedFd,
    had: IFlags,
}

impl Lifted {
    /// Lifts the flags of what a name stands for, if it has any that forbid changes.
    pub fn of_name(directory: &OwnedFd, name: &Name) -> Option<Self> {
        // As a place first: what cannot have flags may be a device, which must not be opened.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = retry(|| openat(directory, name.as_bytes(), flags, Mode::empty())).ok()?;
        let kind = FileType::from_raw_mode(fstat(&place).ok()?.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return None;
        }
        let path = format!("/proc/self/fd/{}", place.as_raw_fd());
        let fd = retry(|| open(&path[..], OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())).ok()?;
        lift(&fd).map(|had| Self { fd, had })
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        if fstat(&self.fd).is_ok_and(|stat| stat.st_nlink > 0) {
            // Who could take them away can set them; and nobody is there to be told otherwise.
            let _ = give_back(&self.fd, self.had);
        }
    }
}

/// Sets those flags that can be set only while there is nothing in it. What fails is told when all are set.
pub(super) fn set_early(fd: &OwnedFd, flags: u32) {
    let early = flags & EARLY;
    if early != 0 {
        let _ =
            retry(|| ioctl_getflags(fd)).and_then(|now| retry(|| ioctl_setflags(fd, now | retain(early))));
    }
}

/// Makes the flags what they are to be, leaving alone those that are the file system's own. Gives the problem, if
/// there is one.
pub(super) fn set(fd: &OwnedFd, flags: u32) -> Option<String> {
    let flags = flags & FLAGS_MASK;
    let now = match retry(|| ioctl_getflags(fd)) {
        Ok(now) => now.bits(),
        // A file system without flags is right for a file without any.
        Err(_) if flags == 0 => return None,
        Err(error) => return Some(problem(flags, error)),
    };
    let wanted = now & !FLAGS_MASK | flags;
    if wanted == now {
        return None;
    }
    match retry(|| ioctl_setflags(fd, retain(wanted))) {
        // Some file systems take what they do not have, and leave it out.
        Ok(()) => check(fd, flags),
        Err(Errno::OPNOTSUPP | Errno::INVAL) => set_one_by_one(fd, now, flags),
        Err(error) => Some(problem(flags ^ now & FLAGS_MASK, error)),
    }
}

/// One flag that a file system does not have must not cost the others.
fn set_one_by_one(fd: &OwnedFd, now: u32, flags: u32) -> Option<String> {
    let wrong = (flags ^ now) & FLAGS_MASK;
    let (mut now, mut left, mut why) = (now, 0, None);
    for bit in (0..32).map(|shift| 1u32 << shift).filter(|bit| wrong & bit != 0) {
        match retry(|| ioctl_setflags(fd, retain(now ^ bit))) {
            Ok(()) => now ^= bit,
            Err(error) => {
                left |= bit;
                why = Some(error);
            }
        }
    }
    why.map(|error| problem(left, error))
}

fn check(fd: &OwnedFd, flags: u32) -> Option<String> {
    let now = retry(|| ioctl_getflags(fd)).map_or(flags, |now| now.bits() & FLAGS_MASK);
    (now != flags).then(|| problem(now ^ flags, Errno::OPNOTSUPP))
}

fn problem(flags: u32, error: Errno) -> String {
    format!("the file flags {flags:#x} cannot be set: {}", words(error))
}

fn retain(bits: u32) -> IFlags {
    IFlags::from_bits_retain(bits)
}
