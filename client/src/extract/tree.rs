//! Directories under way: kept while anything below them is, given their attributes when nothing is any more.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use diptych_format::Entry;
use diptych_localfs::extract::OutDirectory;

use crate::links::PathKey;

/// A directory that was made. Everything that goes into it holds it.
pub struct Directory {
    /// Its path below the target.
    pub path: Vec<u8>,
    /// Its attributes, to be applied at the end; none for one that was there and is only on the way.
    pub entry: Option<Entry>,
    /// The directory on disk.
    pub out: OutDirectory,
    /// Keys of the names that the archive has in it; nothing as long as they are not all known.
    pub names: OnceLock<HashSet<PathKey>>,
    parent: Option<Arc<Directory>>,
}

impl Directory {
    /// A directory in `parent`.
    pub fn new(
        path: &[u8],
        entry: Option<Entry>,
        out: OutDirectory,
        parent: Option<Arc<Directory>>,
    ) -> Arc<Self> {
        Arc::new(Self { path: path.to_vec(), entry, out, names: OnceLock::new(), parent })
    }

    /// Lets go of a directory. Whoever is the last finishes it, and the directories above that waited for it alone.
    pub fn release(self: Arc<Self>, finish: impl Fn(Directory)) {
        let mut next = Some(self);
        while let Some(directory) = next {
            let Some(mut last) = Arc::into_inner(directory) else { return };
            next = last.parent.take();
            finish(last);
        }
    }
}
