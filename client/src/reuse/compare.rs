//! Comparing: each step of the scan with the base, in a window that is long enough to see whole chunks.

use std::collections::VecDeque;

use diptych_decoder::Found as Row;
use diptych_encoder::LinkKey;
use diptych_format::{Digest, Error, Monitor, Problem, Result};
use diptych_localfs::scan::{Found, Step};
use diptych_repository::StreamSlice;

use super::base::{Base, BaseTree, Bases, Sample};
use super::key::Reason;
use super::live::{Fate, Live};
use super::moved::Moved;

/// Files that wait for a decision at most.
const WINDOW_FILES: usize = 4096;
/// Directories among them: each may hold a descriptor.
const WINDOW_DIRECTORIES: usize = 256;

/// What is to be done with a file.
#[derive(Debug)]
pub(crate) enum Work {
    /// Read it.
    Read(Reason),
    /// Take it from the base.
    Reuse(Box<Reused>),
    /// Read it, to see whether it is as the base has it.
    Sample(Box<Reused>),
    /// A further name of an inode that came before.
    Repeated,
}

/// What is taken from the base.
#[derive(Debug)]
pub(crate) struct Reused {
    /// The entry.
    pub row: Row,
    /// Where its content is.
    pub slices: Vec<StreamSlice>,
}

/// A file of the scan with what is to be done with it.
#[derive(Debug)]
pub(crate) struct FileWork {
    /// The file.
    pub found: Found,
    /// Its inode, if it has more names.
    pub link: Option<LinkKey>,
    /// What to do.
    pub work: Work,
}

/// A step of the scan, decided.
pub(crate) enum Decided {
    /// A directory opens, a piece ends, a directory closes.
    Step(Step),
    /// Files.
    Files(Vec<FileWork>),
}

/// Compares a scan with bases: the first that has an entry as it is gives it.
pub(crate) struct Compare {
    bases: Vec<OpenBase>,
    live: Live,
    sample: Sample,
    waiting: VecDeque<Waiting>,
    files: usize,
    directories: usize,
}

struct OpenBase {
    base: Base,
    /// None once the base has proved to be damaged.
    tree: Option<BaseTree>,
    /// Where files of directories that were moved are found; made when one is looked for.
    moved: Option<Moved>,
}

enum Waiting {
    Step(Step),
    File(FileWork),
}

impl Compare {
    /// Begins to compare. A base whose map cannot be read is an error.
    pub(crate) fn new(bases: Bases) -> Result<Self> {
        let open = |base: Base| {
            let tree = Some(BaseTree::new(base.archive.clone()));
            OpenBase { base, tree, moved: None }
        };
        Ok(Self {
            live: Live::new(bases.in_order.iter().map(|base| &*base.payload), bases.min_live)?,
            sample: bases.sample,
            bases: bases.in_order.into_iter().map(open).collect(),
            waiting: VecDeque::new(),
            files: 0,
            directories: 0,
        })
    }

    /// Takes a step that is not about files.
    pub(crate) fn step(&mut self, step: Step, monitor: &dyn Monitor) {
        for base in &mut self.bases {
            let Some(tree) = &mut base.tree else { continue };
            match &step {
                Step::Enter(directory) => {
                    if let Err(error) = tree.enter(directory.entry.name.as_bytes()) {
                        base.give_up(&error, monitor);
                    }
                }
                Step::EndPiece => tree.end_piece(),
                Step::Leave(_) => tree.leave(),
                Step::Vanished(_) | Step::Entries(_) => {}
            }
        }
        self.directories += usize::from(matches!(step, Step::Enter(_)));
        self.waiting.push_back(Waiting::Step(step));
    }

    /// Takes a file. `is_repeated`: a name of the same inode came before.
    pub(crate) fn file(
        &mut self,
        found: Found,
        link: Option<LinkKey>,
        is_repeated: bool,
        monitor: &dyn Monitor,
    ) {
        let work = if is_repeated { Work::Repeated } else { self.compare(&found, monitor) };
        self.files += 1;
        self.waiting.push_back(Waiting::File(FileWork { found, link, work }));
    }

    /// Looks for the file in one base after another. Why it is read, the last one says that knows it.
    fn compare(&mut self, found: &Found, monitor: &dyn Monitor) -> Work {
        let mut why = Reason::NoBase;
        for (number, base) in self.bases.iter_mut().enumerate() {
            match base.find(found, &mut self.live) {
                Ok(Ok(reused)) => {
                    reused.slices.iter().for_each(|slice| self.live.add(number, slice));
                    let is_sampled = self.sample.takes(&reused);
                    let reused = Box::new(reused);
                    return if is_sampled { Work::Sample(reused) } else { Work::Reuse(reused) };
                }
                Ok(Err(reason)) => why = reason,
                Err(error) => base.give_up(&error, monitor),
            }
        }
        Work::Read(why)
    }

    /// What is decided by now, in the scan's order; with `is_last` all that is left.
    pub(crate) fn decided(&mut self, is_last: bool, mut each: impl FnMut(Decided) -> bool) -> bool {
        let mut files = Vec::new();
        loop {
            let is_full = self.files > WINDOW_FILES || self.directories > WINDOW_DIRECTORIES;
            if !self.decide_front(is_full, is_last) {
                break;
            }
            match self.waiting.pop_front() {
                None => break,
                Some(Waiting::File(file)) => {
                    self.files -= 1;
                    files.push(file);
                }
                Some(Waiting::Step(step)) => {
                    self.directories -= usize::from(matches!(step, Step::Enter(_)));
                    let files = std::mem::take(&mut files);
                    if !files.is_empty() && !each(Decided::Files(files)) || !each(Decided::Step(step)) {
                        return false;
                    }
                }
            }
        }
        files.is_empty() || each(Decided::Files(files))
    }

    /// Decides the first that waits, if that can be done by now.
    fn decide_front(&mut self, is_full: bool, is_last: bool) -> bool {
        let Some(Waiting::File(file)) = self.waiting.front_mut() else { return true };
        let (Work::Reuse(reused) | Work::Sample(reused)) = &file.work else { return true };
        let mut dropped = None;
        for slice in &reused.slices {
            let chunk = &slice.slice.chunk;
            if is_full {
                self.live.keep_chunk(chunk);
            }
            match self.live.fate(chunk, is_last) {
                Fate::Unknown | Fate::Open => return false,
                Fate::Kept => {}
                Fate::Dropped(reason) => dropped = Some(reason),
            }
        }
        if let Some(reason) = dropped {
            file.work = Work::Read(reason);
        }
        true
    }

    /// Chunks that the run uses though too little of them is in use: the next one should not.
    pub(crate) fn sparse(&self) -> Vec<Digest> {
        self.live.sparse()
    }
}

impl OpenBase {
    /// Without a base that can be read, a run reads everything: it must not fail for it.
    fn give_up(&mut self, error: &Error, monitor: &dyn Monitor) {
        self.tree = None;
        let what = format!("the base cannot be read any further, and files are read again: {error}");
        monitor.problem(Problem { path: Vec::new(), what, is_loss: false });
    }

    /// What can be taken of the file; or why it has to be read.
    fn find(&mut self, found: &Found, live: &mut Live) -> Result<Result<Reused, Reason>> {
        let Some(tree) = &mut self.tree else { return Ok(Err(Reason::NoBase)) };
        let key = &self.base.key;
        let mut row = tree.entry(found.name.as_bytes())?;
        if row.is_none() && !tree.has_directory() && key.knows_inodes() {
            // The directory may have been moved: what is below it has kept inode and ctime.
            let moved = match &mut self.moved {
                Some(moved) => moved,
                none => none.insert(Moved::of(&self.base.archive)?),
            };
            row = moved.find(&self.base.archive, found.facts.inode)?;
            if let Some(row) = &mut row {
                row.entry.name = found.name.clone();
            }
            if row.as_ref().is_some_and(|row| key.difference(&found.facts, row).is_some()) {
                row = None;
            }
        }
        let Some(row) = row else { return Ok(Err(Reason::New)) };
        if let Some(reason) = key.difference(&found.facts, &row) {
            return Ok(Err(reason));
        }
        let end = row.payload_start.saturating_add(row.payload_length);
        let slices = match row.payload_length {
            0 => Vec::new(),
            _ => self.base.payload.slices(row.payload_start..end)?,
        };
        for slice in &slices {
            let chunk = slice.slice.chunk;
            if live.knows(&chunk) {
                continue;
            }
            if self.base.avoided.contains(&chunk) {
                live.drop_chunk(chunk, Reason::Sparse);
            } else if !(self.base.has_chunk)(&chunk)? {
                live.drop_chunk(chunk, Reason::Lost);
            }
        }
        Ok(Ok(Reused { row, slices }))
    }
}
