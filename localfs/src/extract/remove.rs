//! Removing what is in the way of something that is to be made.

use std::os::fd::OwnedFd;

use diptych_format::{Error, Name, Result};
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::cannot;
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

/// Removes any entry, but a directory only if it is empty. What it is is neither opened nor followed.
pub(super) fn remove(directory: &OwnedFd, name: &Name) -> Result<()> {
    let unlink = |flags| retry(|| unlinkat(directory, name.as_bytes(), flags));
    match unlink(AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => match unlink(AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                Err(Error::io("a directory that is not empty is in the way", Errno::NOTEMPTY.into()))
            }
            Err(error) => Err(cannot("the directory that is there cannot be replaced")(error)),
        },
        Err(error) => Err(cannot("what is there cannot be replaced")(error)),
    }
}
