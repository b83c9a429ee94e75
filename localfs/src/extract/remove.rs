//! Removing what is in the way of something that is to be made.

use std::os::fd::OwnedFd;

use diptych_format::{Name, Result};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::cannot;
use super::flags::Lifted;
use crate::facts::retry;

/// Makes something called `name`; when overwriting, what has that name is removed first.
pub(super) fn make<T>(
    directory: &OwnedFd,
    name: &Name,
    is_overwriting: bool,
    mut make: impl FnMut() -> Result<T, Errno>,
) -> Result<T> {
    match retry(&mut make) {
        Err(Errno::EXIST) if is_overwriting => {
            remove(directory, name)?;
            retry(make).map_err(cannot("cannot be made"))
        }
        Err(Errno::EXIST) => Err(cannot("something is there already")(Errno::EXIST)),
        made => made.map_err(cannot("cannot be made")),
    }
}

/// Removes any entry, but a directory only if it is empty. What it is is not followed.
pub(super) fn remove(directory: &OwnedFd, name: &Name) -> Result<()> {
    let unlink = |flags| unlinkat(directory, name.as_bytes(), flags);
    let removed = by_force(directory, name, || match unlink(AtFlags::empty()) {
        Err(Errno::ISDIR) => unlink(AtFlags::REMOVEDIR),
        other => other,
    });
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(cannot(
            "a directory that is not empty is in the way: move it away or delete it, then extract this path again",
        )(Errno::NOTEMPTY)),
        Err(error) => Err(cannot("what is there cannot be replaced")(error)),
    }
}

/// Does what takes `name` from what has it; flags that forbid that are lifted for as long.
pub(super) fn by_force(
    directory: &OwnedFd,
    name: &Name,
    mut call: impl FnMut() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match retry(&mut call) {
        Err(Errno::PERM) => match Lifted::of_name(directory, name) {
            Some(_lifted) => retry(call),
            None => Err(Errno::PERM),
        },
        done => done,
    }
}
