//! `mount`: archives, snapshots and repositories as file systems. The one place where chunks meet `diptych-mount`, which
//! knows of none.

mod ahead;
mod disk_shelf;
mod shelves;

use std::path::Path;
use std::sync::{Arc, Mutex};

use diptych_mount::{Forest, Memory, Tree};
use diptych_repository::Repository;
use diptych_repository::stream::CacheBudget;

use crate::error::{Error, InPlace, Result};
use crate::names;
use crate::open::OpenArchive;
use crate::progress::Progress;
use crate::remote::address::Address;
use crate::snapshots::{self, Filter, Listed};
use ahead::Decoders;
use disk_shelf::DiskShelf;
use shelves::Shelves;

/// This part of a cache is for the tables of directories.
const TABLE_SHARE: u64 = 4;
/// What a chunk takes that is being decoded, in bytes: what is stored of it, and what becomes of that.
const DECODER_BYTES: usize = 8 << 20;
/// Chunks under way beside a cache, and those that a thread of each kind keeps under way: one that somebody waits for, one
/// ahead of readers, one whose files are handed over.
const DECODERS_FREE: usize = 2;
const DECODERS_PER_THREAD: usize = 3;

/// How a file system keeps and decodes what it reads.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Memory for what is kept, in bytes.
    pub cache_bytes: u64,
    /// Threads that decode ahead of readers.
    pub threads: usize,
}

impl Means {
    fn tables(self) -> u64 {
        self.cache_bytes / TABLE_SHARE
    }

    /// For chunks, and those of them that are under way: what the first few of these take is not counted, and up to half
    /// is for others.
    fn chunks(self) -> CacheBudget {
        // A ninth is for the segments of stream maps, which have a share of their own beside the chunks.
        let bytes = usize::try_from((self.cache_bytes - self.tables()) / 9 * 8).unwrap_or(usize::MAX);
        let more = (bytes / 2 / DECODER_BYTES)
            .min((DECODERS_PER_THREAD * self.threads).saturating_sub(DECODERS_FREE));
        CacheBudget { bytes: bytes - more * DECODER_BYTES, decoders: DECODERS_FREE + more }
    }
}

/// The same repository, keeping chunks that were fetched on this machine's disk, in up to `bytes`. Where it is on this
/// machine itself, or there is no place for what is kept, it is as it was.
pub fn with_disk_cache(repository: Repository, bytes: u64) -> Result<Repository> {
    let location = repository.backend().location();
    if bytes == 0 || Address::parse(&location).is_none() {
        return Ok(repository);
    }
    Ok(match DiskShelf::open(&location, bytes)? {
        Some(shelf) => repository.with_shelf(Arc::new(shelf)),
        None => repository,
    })
}

/// An archive that an ARCHIVE argument names.
pub fn archive_tree(argument: &Path, means: Means) -> Result<Tree> {
    let open = OpenArchive::open_with(argument, means.chunks())?;
    tree(&open, &argument.display().to_string(), means)
}

/// A directory of a snapshot, or its only archive.
pub fn snapshot_tree(
    repository: &Repository,
    listed: &Listed,
    path: Option<&Path>,
    means: Means,
) -> Result<Tree> {
    let caches = snapshots::caches_of(repository, means.chunks());
    let located = snapshots::locate_with(repository, listed, path, &caches)?;
    let place = names::show(&snapshots::prefix_of(&located.record));
    let tree = tree(&located.open, &place, means)?;
    tree.below(&located.path).in_place(&place)?.ok_or_else(|| {
        let advice = format!("`diptych ls {}` shows what is there.", listed.short_id());
        Error::missing(place, &format!("{} is no directory in it", names::show(&located.path)), &advice)
    })
}

/// The snapshots of a repository that pass `filter`, those that are made later among them. The directories that they stand
/// in belong to user and group `owner`.
pub fn snapshots_forest(
    repository: Repository,
    filter: Filter,
    owner: (u32, u32),
    means: Means,
    progress: Arc<dyn Progress>,
) -> Result<Forest> {
    let caches = snapshots::caches_of(&repository, means.chunks());
    let place = repository.backend().location();
    let decoders = Decoders::start(means.threads);
    let shelves = Shelves { repository, filter, caches, decoders, progress, state: Mutex::default() };
    Forest::new(Box::new(shelves), Memory::new(means.tables()), owner).in_place(place)
}

fn tree(open: &OpenArchive, place: &str, means: Means) -> Result<Tree> {
    let payload = Decoders::start(means.threads).serve(open.payload()?);
    Tree::new(open.archive.clone(), payload, &Memory::new(means.tables()), 0).in_place(place)
}
