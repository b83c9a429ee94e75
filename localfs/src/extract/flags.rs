//! File flags (`chattr`): those that forbid changes come last, those that only empty things can take come first.

use std::os::fd::OwnedFd;

use diptych_format::limits::FLAGS_MASK;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
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
