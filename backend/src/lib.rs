//! Where a repository's files live, and the few things that are done to them: they are written once, read in ranges,
//! listed and deleted.
//!
//! A file is named by the digest of its bytes, so it never changes, two writers of one name write the same, and
//! whoever holds it can check it; this crate leaves digests to those who know which. Reading order: [`FileName`], the
//! traits here, [`Local`]; [`memory`] and [`faulty`] are for tests of whatever stands on this.

#![forbid(unsafe_code)]

mod error;
pub mod faulty;
mod local;
pub mod memory;
mod name;

use std::io;
use std::sync::Arc;

pub use error::{Class, Error, Result};
pub use local::Local;
pub use name::{FileKind, FileName};

/// A file that a listing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name.
    pub name: FileName,
    /// Its length in bytes.
    pub length: u64,
}

/// A place that keeps a repository's files. All of it can be used by many threads, and beside other processes.
pub trait Backend: Send + Sync {
    /// The place, for messages.
    fn location(&self) -> String;

    /// What is seen of it from here is told apart by this: the place, and where not everybody sees all of it, who looks.
    fn view(&self) -> String {
        self.location()
    }

    /// Makes the directories for a repository that is not there yet. It refuses a place that holds anything else, and
    /// one where a repository is.
    fn make_layout(&self) -> Result<()>;

    /// Makes those of the directories of a repository again that are gone with all that was in them; for mending, as
    /// whoever lists them has to see that they are gone.
    fn mend_layout(&self) -> Result<()> {
        Ok(())
    }

    /// Begins a file. Its name is known when it is whole, for it comes from the bytes.
    fn create(&self, kind: FileKind) -> Result<Box<dyn NewFile>>;

    /// Fills all of `buf` with what is in the file from `offset` on; a file that ends before is truncated.
    fn read_at(&self, file: &FileName, buf: &mut [u8], offset: u64) -> Result<()>;

    /// The length of a file in bytes.
    fn length(&self, file: &FileName) -> Result<u64>;

    /// The files of a kind, sorted by name. A directory that is not there is an error and never an empty list: who
    /// believes that there are no snapshots removes their packs.
    fn list(&self, kind: FileKind) -> Result<Vec<Listed>>;

    /// What lies where files of a kind do and is none, as sorted paths for messages. Files that are being written are
    /// not among it. Spec: R-2-4.
    fn strangers(&self, kind: FileKind) -> Result<Vec<String>>;

    /// Deletes a file; one that is not there is missing. The file stays away after a crash, unless it is a pack: packs
    /// are deleted when nothing names them any more, so one that comes back does no harm.
    fn delete(&self, file: &FileName) -> Result<()>;

    /// Refuses whoever may see what is there and not read contents, before each content is refused by itself.
    fn may_read_contents(&self) -> Result<()> {
        Ok(())
    }

    /// Deletes a file that nobody waits to be gone, and that does no harm if it stays: where files are far away, not
    /// before this returns.
    fn delete_soon(&self, file: &FileName) {
        let _ = self.delete(file);
    }

    /// How many files it is worth to have on their way at once: more than one where each waits for somebody far away.
    fn writes_at_once(&self) -> usize {
        1
    }

    /// How many reads it is worth to have on their way at once.
    fn reads_at_once(&self) -> usize {
        1
    }

    /// Removes what writers left that were ended before they kept their files or dropped them, and says how many files
    /// that were. Nothing is taken from a writer that may be alive.
    fn remove_leftovers(&self) -> Result<u64>;
}

/// A file that is being written. Whoever drops it removes what was written.
///
/// An error of writing has no place in it; [`Error::io`] gives it one, and its class.
pub trait NewFile: io::Write + Send + Sync {
    /// Fills all of `buf` with what was written from `offset` on: whoever receives a file looks at it before it is kept.
    fn read_back(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes it durable under its name, which belongs to the kind that it was created as. It takes the place of a file
    /// that has this name already: that one has the same bytes, unless it was damaged. Only a configuration is refused
    /// then, as it may be another's.
    fn keep(self: Box<Self>, name: &FileName) -> Result<()>;
}

/// The place that `location` names: a path, as it is or behind `file:`. Nothing needs to be there yet.
///
/// Whatever has a colon before its first slash is no path: `./a:b` is one.
pub fn open(location: &str) -> Result<Arc<dyn Backend>> {
    let path = match location.split_once(':') {
        Some(("file", path)) => match path.strip_prefix("//") {
            // `file://host/path` is a file of another machine.
            Some(path) if !path.starts_with('/') => return Err(unsupported(location)),
            rest => rest.unwrap_or(path),
        },
        Some((scheme, _)) if !scheme.contains('/') => return Err(unsupported(location)),
        _ => location,
    };
    if path.is_empty() {
        let what = format!("'{location}': no location is named; name a directory");
        return Err(Error::new(Class::Unsupported, what));
    }
    Ok(Arc::new(Local::open(path)?))
}

fn unsupported(location: &str) -> Error {
    let what = format!(
        "{location}: this kind of location is not supported yet; name a directory (as ./{location} if this is one)"
    );
    Error::new(Class::Unsupported, what)
}

/// Refuses a name that is not of the kind that a file was begun as: it would lie in the wrong directory.
fn check_kind(location: &str, begun: FileKind, name: &FileName) -> Result<()> {
    if name.kind() == begun {
        return Ok(());
    }
    let what = format!("{location}: a file was begun as {begun:?} and cannot be kept as {name}");
    Err(Error::new(Class::Unsupported, what))
}

/// A configuration is never replaced.
fn config_exists(location: &str) -> Error {
    let what = format!("{location}: there is a repository here already; use it, or name another location");
    Error::new(Class::Exists, what)
}

/// A file that ends before what was asked of it.
fn truncated(place: &str, wanted: usize, offset: u64, length: u64) -> Error {
    let what = format!(
        "{place}: {wanted} bytes at {offset} are wanted, and it ends at {length}; check the repository"
    );
    Error::new(Class::Truncated, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(location: &str) -> String {
        let error = open(location).err().unwrap();
        assert_eq!(error.class, Class::Unsupported, "{location}");
        error.to_string()
    }

    #[test]
    fn paths_are_opened_whatever_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a:b");
        let path = path.to_str().unwrap();
        for location in [path.to_owned(), format!("file:{path}"), format!("file://{path}")] {
            assert_eq!(open(&location).unwrap().location(), path);
        }
        assert_eq!(open("./a:b").unwrap().location(), "./a:b");
    }

    #[test]
    fn other_kinds_of_locations_are_told() {
        for location in ["s3:bucket", "s3://bucket/x", "rest:https://x", "rclone:a:b", "sftp:u@h:/x", "u@h:x"]
        {
            assert!(refused(location).contains("this kind of location is not supported yet"), "{location}");
        }
        assert!(refused("file://host/x").contains("this kind of location is not supported yet"));
        for location in ["", "file:"] {
            assert!(refused(location).contains("name a directory"), "{location}");
        }
    }
}
