//! `diff`: what differs between two trees, each an archive or a directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_decoder::{Archive, Difference};
use diptych_localfs::select::Selection;

use crate::error::{InPlace, Result};
use crate::hash::scan_to_metadata;
use crate::open::open_metadata;
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

/// Opens what is to be compared: a directory is read whole, contents and all, and becomes metadata in memory.
pub fn open_side(path: &Path, options: &DiffOptions, progress: Arc<dyn Progress>) -> Result<Archive> {
    if !path.is_dir() {
        return open_metadata(path);
    }
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

/// Hands each difference between `before` and `after` to `sink`, in the order of paths within a directory.
pub fn diff(
    before: &Archive,
    after: &Archive,
    sink: &mut dyn FnMut(&Difference) -> diptych_format::Result<()>,
) -> Result<DiffReport> {
    let mut report = DiffReport {
        is_complete: before.trailer().is_complete() && after.trailer().is_complete(),
        ..DiffReport::default()
    };
    diptych_decoder::diff(before, after, &mut |difference| {
        match &difference.kind {
            diptych_decoder::Change::Added => report.added += 1,
            diptych_decoder::Change::Removed => report.removed += 1,
            diptych_decoder::Change::Changed { .. } => report.changed += 1,
        }
        sink(&difference)
    })?;
    Ok(report)
}
