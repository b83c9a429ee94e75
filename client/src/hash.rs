//! The tree id of a directory on this machine, and its metadata stream for a comparison.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_format::{Digest, Monitor, Result};
use diptych_localfs::select::Selection;

use crate::create::metadata_of;

/// What a directory's tree id is.
#[derive(Clone, Copy, Debug)]
pub struct HashReport {
    /// The tree id.
    pub tree_id: Digest,
    /// Whether it stands for the whole tree: everything could be read.
    pub is_complete: bool,
    /// Entries, the root counted.
    pub entries: u64,
}

/// Computes the tree id of the directory at `root`, reading every content.
pub fn hash_directory(
    root: &Path,
    selection: Selection,
    threads: usize,
    interrupt: Arc<AtomicBool>,
    monitor: Arc<dyn Monitor>,
) -> Result<HashReport> {
    let finished = metadata_of(root, selection, threads, interrupt, monitor, &mut |_| Ok(()))?;
    Ok(HashReport {
        tree_id: finished.trailer.tree_id,
        is_complete: finished.trailer.is_complete(),
        entries: finished.trailer.entries,
    })
}

/// The metadata stream of the directory at `root`, as an archive of it would have.
pub fn scan_to_metadata(
    root: &Path,
    selection: Selection,
    threads: usize,
    interrupt: Arc<AtomicBool>,
    monitor: Arc<dyn Monitor>,
) -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    let mut keep = |chunk: Vec<u8>| {
        stream.extend_from_slice(&chunk);
        Ok(())
    };
    metadata_of(root, selection, threads, interrupt, monitor, &mut keep)?;
    Ok(stream)
}
