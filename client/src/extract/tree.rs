//! Directories under way: open while anything below them is, given their attributes when nothing is any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diptych_format::Entry;
use diptych_localfs::extract::OutDirectory;
use rustix::process::{Resource, getrlimit};

/// A directory that was made. Everything that goes into it holds it.
pub struct Directory {
    /// Its path below the target.
    pub path: Vec<u8>,
    /// Its attributes, to be applied at the end; none for one that was there and is only on the way.
    pub entry: Option<Entry>,
    /// The open directory.
    pub out: OutDirectory,
    parent: Option<Arc<Directory>>,
    live: Arc<AtomicUsize>,
}

impl Directory {
    /// A directory in `parent`; `live` counts those that are open.
    pub fn new(
        path: &[u8],
        entry: Option<Entry>,
        out: OutDirectory,
        parent: Option<Arc<Directory>>,
        live: &Arc<AtomicUsize>,
    ) -> Arc<Self> {
        live.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { path: path.to_vec(), entry, out, parent, live: Arc::clone(live) })
    }

    /// Lets go of a directory. Whoever is the last finishes it, and the directories above that waited for it alone.
    pub fn release(self: Arc<Self>, finish: impl Fn(&[u8], Option<Entry>, OutDirectory)) {
        let mut next = Some(self);
        while let Some(directory) = next {
            let Some(last) = Arc::into_inner(directory) else { return };
            finish(&last.path, last.entry, last.out);
            last.live.fetch_sub(1, Ordering::Relaxed);
            next = last.parent;
        }
    }
}

/// How many directories may be open before what waits is handed out.
pub fn live_directories_max() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 16);
    usize::try_from(limit / 4).unwrap_or(1 << 12).clamp(64, 1 << 12)
}
