//! `mount`: archives and snapshots as file systems. The one place where chunks meet `diptych-mount`, which knows of none.

mod ahead;

use std::path::Path;
use std::sync::Arc;

use diptych_format::ReadAt;
use diptych_mount::Tree;
use diptych_repository::Repository;

use crate::error::{Error, InPlace, Result};
use crate::names;
use crate::open::OpenArchive;
use crate::snapshots::{self, Listed};
use ahead::Ahead;

/// This part of a cache is for the tables of directories.
const TABLE_SHARE: u64 = 4;

/// How much memory a mounted file system takes for what it keeps.
#[derive(Clone, Copy, Debug)]
pub struct CacheSize(pub u64);

impl CacheSize {
    fn tables(self) -> u64 {
        self.0 / TABLE_SHARE
    }

    fn chunks(self) -> usize {
        usize::try_from(self.0 - self.tables()).unwrap_or(usize::MAX)
    }
}

/// An archive that an ARCHIVE argument names.
pub fn archive_tree(argument: &Path, cache: CacheSize, threads: usize) -> Result<Tree> {
    let open = OpenArchive::open_with(argument, cache.chunks())?;
    tree(&open, &argument.display().to_string(), cache, threads)
}

/// A directory of a snapshot, or its only archive.
pub fn snapshot_tree(
    repository: &Repository,
    listed: &Listed,
    path: Option<&Path>,
    cache: CacheSize,
    threads: usize,
) -> Result<Tree> {
    let caches = snapshots::caches_of(repository, cache.chunks());
    let located = snapshots::locate_with(repository, listed, path, &caches)?;
    let place = names::show(&snapshots::prefix_of(&located.record));
    let tree = tree(&located.open, &place, cache, threads)?;
    tree.below(&located.path).in_place(&place)?.ok_or_else(|| {
        let advice = format!("`diptych ls {}` shows what is there.", listed.short_id());
        Error::missing(place, &format!("{} is no directory in it", names::show(&located.path)), &advice)
    })
}

fn tree(open: &OpenArchive, place: &str, cache: CacheSize, threads: usize) -> Result<Tree> {
    let payload: Arc<dyn ReadAt> = Arc::new(Ahead::new(open.payload()?, threads));
    Tree::new(open.archive.clone(), payload, cache.tables()).in_place(place)
}
