//! `extract`: the tree of an archive, or parts of it, written into a directory.
//!
//! One thread walks the tables in order, makes directories and forms tasks; several threads read contents, prove them
//! and write files. Small files go by the chunk that holds them, so that each chunk is decoded once; a file longer than
//! a leaf of its digest is written by several threads at once. A directory gets its attributes when the last entry below
//! it is there: whoever is done with that entry sees to it. Memory is bounded by the queue and by the open path.

mod groups;
mod large;
mod owners;
mod plan;
mod space;
mod tree;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_decoder::ContentMap;
use diptych_format::Entry;
use diptych_localfs::extract::Target;
use diptych_repository::StreamReader;

use crate::content::{ContentReader, Readers};
use crate::error::Result;
use crate::links::{Group, LinkIndex};
use crate::open::OpenArchive;
use crate::pool::{self, Queue};
use crate::progress::{Losses, Progress};
use crate::select::PathSelection;

use plan::Planner;
use tree::Directory;
use work::{Extractor, Task};

/// What to extract, and how.
pub struct ExtractOptions {
    /// The directory to write into.
    pub target: PathBuf,
    /// What to write.
    pub selection: PathSelection,
    /// Whether the directory may hold something, which is replaced where names are the same.
    pub is_overwriting: bool,
    /// Threads that restore contents.
    pub threads: usize,
    /// Set from outside to end the job.
    pub interrupt: Arc<AtomicBool>,
}

/// What was extracted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtractReport {
    /// Entries that were written.
    pub entries: u64,
    /// Bytes of contents, holes counted.
    pub content_bytes: u64,
    /// What could not be restored faithfully; each was told to the monitor.
    pub losses: u64,
}

/// An entry to restore, and the directory that it goes into.
struct Item {
    path: Vec<u8>,
    entry: Entry,
    directory: Arc<Directory>,
    /// Where its bytes are; only for contents that may have to be read apart from a batch.
    content: Option<Box<ContentMap>>,
    /// The names that its inode has.
    group: Option<Group>,
}

/// Extracts what is selected of an archive. What cannot be restored is reported to `progress`, as losses.
pub fn extract(
    open: &OpenArchive,
    mut options: ExtractOptions,
    progress: &dyn Progress,
) -> Result<ExtractReport> {
    let losses = Losses::new(progress);
    options.selection.check(&open.archive)?;
    let payload = open.payload()?;
    let links = LinkIndex::load(&open.archive)?;
    let totals = space::totals(&open.archive, &links, &mut options.selection)?;
    progress.expect(totals.entries, totals.content_bytes);
    let place = options.target.display().to_string();
    let target = Target::open(&options.target, options.is_overwriting)?;
    let report = space::check(&target, &totals, &place)
        .and_then(|()| fill(&target, open, &payload, &links, &mut options, &losses));
    if report.is_err() {
        target.give_up();
    }
    report
}

/// Writes what is selected.
fn fill(
    target: &Target,
    open: &OpenArchive,
    payload: &Arc<StreamReader>,
    links: &LinkIndex,
    options: &mut ExtractOptions,
    losses: &Losses<'_>,
) -> Result<ExtractReport> {
    let readers = {
        let payload = Arc::clone(payload);
        Readers::new(move || ContentReader::digests_compared(payload.clone()))
    };
    let extractor = Extractor::new(target, losses, readers);
    let threads = options.threads.max(1);
    let selection = &mut options.selection;
    let produce = |queue: &Queue<'_, Task>| {
        let mut planner = Planner::new(&extractor, queue, Arc::clone(payload), links, selection);
        planner.run(&open.archive)
    };
    pool::run(threads, threads * 4, &options.interrupt, produce, |task| extractor.work(task))?;
    extractor.finish();
    let (entries, content_bytes) = extractor.counts();
    options.selection.finish()?;
    Ok(ExtractReport { entries, content_bytes, losses: losses.count() })
}
