//! Comparing: each step of the scan with the base, in a window that is long enough to see whole chunks.

use std::collections::VecDeque;

use diptych_decoder::Found as Row;
use diptych_encoder::LinkKey;
use diptych_format::{Digest, Monitor, Problem, Result};
use diptych_localfs::scan::{Found, Step};
use diptych_repository::StreamSlice;

use super::base::{Base, BaseTree};
use super::key::Reason;
use super::live::{Fate, Live};

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

/// Compares a scan with a base.
pub(crate) struct Compare {
    base: Base,
    /// None once the base has proved to be damaged.
    tree: Option<BaseTree>,
    live: Live,
    waiting: VecDeque<Waiting>,
    files: usize,
    directories: usize,
}

enum Waiting {
    Step(Step),
    File(FileWork),
}

impl Compare {
    pub(crate) fn new(base: Base) -> Self {
        let tree = Some(BaseTree::new(base.archive.clone()));
        let live = Live::new(base.min_live);
        Self { base, tree, live, waiting: VecDeque::new(), files: 0, directories: 0 }
    }

    /// Takes a step that is not about files.
    pub(crate) fn step(&mut self, step: Step, monitor: &dyn Monitor) {
        match (&step, &mut self.tree) {
            (Step::Enter(directory), Some(tree)) => {
                let entered = tree.enter(directory.entry.name.as_bytes());
                self.unless_damaged(entered, monitor);
            }
            (Step::EndPiece, Some(tree)) => tree.end_piece(),
            (Step::Leave, Some(tree)) => tree.leave(),
            _ => {}
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
        let compared = if is_repeated { Ok(Work::Repeated) } else { self.compare(&found) };
        let work = self.unless_damaged(compared, monitor).unwrap_or(Work::Read(Reason::NoBase));
        self.files += 1;
        self.waiting.push_back(Waiting::File(FileWork { found, link, work }));
    }

    /// Without a base that can be read, a run reads everything: it must not fail for it.
    fn unless_damaged<T>(&mut self, result: Result<T>, monitor: &dyn Monitor) -> Option<T> {
        result
            .inspect_err(|error| {
                self.tree = None;
                let what = format!("the base cannot be read any further, and files are read again: {error}");
                monitor.problem(Problem { path: Vec::new(), what, is_loss: false });
            })
            .ok()
    }

    fn compare(&mut self, found: &Found) -> Result<Work> {
        let Some(tree) = &mut self.tree else { return Ok(Work::Read(Reason::NoBase)) };
        let Some(row) = tree.entry(found.name.as_bytes())? else { return Ok(Work::Read(Reason::New)) };
        if let Some(reason) = self.base.key.difference(&found.facts, &row) {
            return Ok(Work::Read(reason));
        }
        let end = row.payload_start.saturating_add(row.payload_length);
        let slices =
            if row.payload_length == 0 { Vec::new() } else { self.base.payload.slices(row.payload_start..end)? };
        for slice in &slices {
            let chunk = slice.slice.chunk;
            if self.live.knows(&chunk) {
                continue;
            }
            if self.base.avoided.contains(&chunk) {
                self.live.drop_chunk(chunk, Reason::Sparse);
            } else if !(self.base.has_chunk)(&chunk)? {
                self.live.drop_chunk(chunk, Reason::Lost);
            }
        }
        slices.iter().for_each(|slice| self.live.add(slice));
        Ok(Work::Reuse(Box::new(Reused { row, slices })))
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
        let Work::Reuse(reused) = &file.work else { return true };
        let mut dropped = None;
        for slice in &reused.slices {
            let chunk = &slice.slice.chunk;
            if is_full {
                self.live.keep_chunk(chunk);
            }
            match self.live.fate(chunk, is_last) {
                Fate::Open => return false,
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
