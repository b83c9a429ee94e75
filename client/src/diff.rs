//! `diff`: what differs between two trees, each an archive or a directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_decoder::{Archive, Difference};
use diptych_localfs::select::Selection;

use crate::error::{InPlace, Result};
use crate::hash::scan_to_metadata;
use crate::progress::Progress;

/// How directories are read.
pub struct DiffOptions {
    /// What of them.
    pub selection: Selection,
    /// Threads that read.
    pub threads: usize,
    /// Set from outside to end the job.
    pub interrupt: Arc<AtomicBool>,
}

/// What differs, counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiffReport {
    /// Entries that only the second has.
    pub added: u64,
    /// Entries that only the first has.
    pub removed: u64,
    /// Entries that both have and that differ.
    pub changed: u64,
    /// Whether the tree ids stand for both trees as a whole.
    pub is_complete: bool,
}

impl DiffReport {
    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        self.added + self.removed + self.changed > 0
    }
}

/// One of the two trees.
pub struct Side {
    /// The archive that it is in.
    pub archive: Archive,
    /// The directory in it that is compared; empty for the root.
    pub path: Vec<u8>,
}

impl Side {
    /// An archive as a whole.
    pub fn whole(archive: Archive) -> Self {
        Self { archive, path: Vec::new() }
    }
}

/// Opens a directory: it is read whole, contents and all, and becomes metadata in memory.
pub fn open_directory(path: &Path, options: &DiffOptions, progress: Arc<dyn Progress>) -> Result<Archive> {
    let stream = scan_to_metadata(
        path,
        options.selection.clone(),
        options.threads,
        options.interrupt.clone(),
        progress,
    )
    .in_place(path.display())?;
    Archive::open(Arc::new(stream)).in_place(path.display())
}

/// Hands each difference between `before` and `after` to `sink`, in the order of paths within a directory. Paths are told
/// from the directories that are compared.
pub fn diff(
    before: &Side,
    after: &Side,
    sink: &mut dyn FnMut(&Difference) -> diptych_format::Result<()>,
) -> Result<DiffReport> {
    let is_complete = |side: &Side| side.archive.trailer().is_complete();
    let mut report =
        DiffReport { is_complete: is_complete(before) && is_complete(after), ..DiffReport::default() };
    let mut count = |mut difference: Difference| {
        match &difference.kind {
            diptych_decoder::Change::Added => report.added += 1,
            diptych_decoder::Change::Removed => report.removed += 1,
            diptych_decoder::Change::Changed { .. } => report.changed += 1,
        }
        if !before.path.is_empty() {
            difference.path.drain(..difference.path.len().min(before.path.len() + 1));
        }
        sink(&difference)
    };
    if before.path.is_empty() && after.path.is_empty() {
        diptych_decoder::diff(&before.archive, &after.archive, &mut count)?;
    } else {
        let (a, b) = ((&before.archive, &before.path[..]), (&after.archive, &after.path[..]));
        diptych_decoder::diff_below(a, b, &mut count)?;
    }
    Ok(report)
}
