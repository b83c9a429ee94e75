//! `extract`: the tree of an archive, or parts of it, written into a directory.
//!
//! One thread walks the tables in order, makes directories and forms tasks; several threads read contents, prove them
//! and write files. Small files go by the chunk that holds them, so that each chunk is decoded once, and in the order in
//! which packs hold the chunks; a file longer than a leaf of its digest is written by several threads at once. A directory gets its attributes when the last entry below
//! it is there: whoever is done with that entry sees to it. Memory is bounded by the queue and by the open path.

pub(crate) mod choice;
mod groups;
mod large;
mod owners;
pub(crate) mod part;
mod plan;
pub(crate) mod rules;
pub(crate) mod space;
mod tree;
mod window;
mod work;

pub use rules::Overwrite;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_decoder::ContentMap;
use diptych_format::Entry;
use diptych_localfs::extract::Target;

use crate::content::{ContentReader, Readers};
use crate::error::Result;
use crate::links::Group;
use crate::open::OpenArchive;
use crate::patterns::Patterns;
use crate::pool::{self, Queue};
use crate::progress::{Losses, Progress};
use crate::select::PathSelection;

use choice::Choice;
use part::Part;
use plan::Planner;
use rules::Rules;
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

/// What was done to a target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Entries that are as they should be.
    pub entries: u64,
    /// Bytes of their contents, holes counted.
    pub content_bytes: u64,
    /// Entries of them that were there, and got attributes alone.
    pub kept: u64,
    /// Entries that were there and stay as they are.
    pub skipped: u64,
    /// Things that were deleted.
    pub deleted: u64,
    /// Entries that the archive does not have whole, where that is counted and no loss.
    pub incomplete: u64,
}

/// What it is if the archive does not have an entry whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incomplete {
    /// A loss like any other.
    IsLoss,
    /// It is counted apart: the snapshot's report has it.
    IsCounted,
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
    let patterns = Patterns::default();
    options.selection.check(&open.archive)?;
    let Some(part) = Part::open(open, b"")? else { return Ok(ExtractReport::default()) };
    let totals = space::totals(&part, Choice::new(&mut options.selection, &patterns, b""))?;
    progress.expect(totals.entries, totals.content_bytes);
    let place = options.target.display().to_string();
    let target = Target::open(&options.target, options.is_overwriting)?;
    let counts = space::check(&target, &totals, &place).and_then(|()| {
        let overwrite = if options.is_overwriting { Overwrite::Always } else { Overwrite::Refuse };
        let rules = Rules::new(overwrite, false, None, Some(&target), &part)?;
        let job = Job {
            target: &target,
            part: &part,
            rules: &rules,
            incomplete: Incomplete::IsLoss,
            threads: options.threads,
            interrupt: &options.interrupt,
        };
        let counts = job.run(Choice::new(&mut options.selection, &patterns, b""), &losses)?;
        options.selection.finish()?;
        Ok(counts)
    });
    if counts.is_err() {
        target.give_up();
    }
    let Counts { entries, content_bytes, .. } = counts?;
    Ok(ExtractReport { entries, content_bytes, losses: losses.count() })
}

/// What writes one part of an archive into one target.
pub(crate) struct Job<'j> {
    /// Where to.
    pub target: &'j Target,
    /// What.
    pub part: &'j Part<'j>,
    /// How what is there is dealt with.
    pub rules: &'j Rules<'j>,
    /// What it is if the archive does not have an entry whole.
    pub incomplete: Incomplete,
    /// Threads that restore contents.
    pub threads: usize,
    /// Set from outside to end the job.
    pub interrupt: &'j AtomicBool,
}

impl Job<'_> {
    /// Writes what is chosen.
    pub fn run(&self, choice: Choice<'_>, losses: &Losses<'_>) -> Result<Counts> {
        let readers = {
            let payload = Arc::clone(&self.part.payload);
            Readers::new(move || ContentReader::digests_compared(payload.clone()))
        };
        let extractor = Extractor::new(self.target, self.rules, losses, self.incomplete, readers);
        let threads = self.threads.max(1);
        let produce = |queue: &Queue<'_, Task>| Planner::new(&extractor, queue, self.part, choice).run();
        pool::run(threads, threads * 4, self.interrupt, produce, |task| extractor.work(task))?;
        extractor.finish();
        Ok(extractor.counts())
    }
}
