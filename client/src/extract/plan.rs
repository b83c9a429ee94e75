//! The walk: directories are made as they come, everything else becomes tasks.

use std::collections::HashSet;
use std::sync::Arc;

use diptych_decoder::{Descend, Row, Visitor};
use diptych_format::digest::LEAF_LENGTH;
use diptych_format::{Entry, Error as FormatError, Kind, Result as FormatResult, Status};

use crate::batch::{Batch, Batcher, Lies};
use crate::error::{Error, Result};
use crate::links::{PathKey, key_of};
use crate::pool::Queue;
use crate::select::Verdict;

use super::Item;
use super::choice::Choice;
use super::groups::Admitted;
use super::part::Part;
use super::tree::Directory;
use super::window::Window;
use super::work::{Extractor, Task};

/// Most leaves of a content that is written by several threads; beyond it, holes are what makes it long.
const LEAVES_MAX: u64 = 1 << 16;

/// Makes tasks.
pub struct Planner<'p> {
    extractor: &'p Extractor<'p>,
    queue: &'p Queue<'p, Task>,
    batcher: Batcher<Item>,
    window: Window<Item>,
    part: &'p Part<'p>,
    choice: Choice<'p>,
    /// The open path. Directories on the way to what is selected are made when something is.
    open: Vec<Open>,
    /// Why the job ends, if it is not the archive's fault.
    stopped: Option<Error>,
}

struct Open {
    path: Vec<u8>,
    state: State,
    /// Keys of the names that were seen in it, where those that the archive does not have are deleted; none if it is not
    /// known which those are.
    names: Option<HashSet<PathKey>>,
}

enum State {
    /// Not made yet; whether it is only on the way to what is selected.
    Wanted(Box<Entry>, bool),
    Made(Arc<Directory>),
}

impl<'p> Planner<'p> {
    /// A planner that hands tasks to `queue`.
    pub fn new(
        extractor: &'p Extractor<'p>,
        queue: &'p Queue<'p, Task>,
        part: &'p Part<'p>,
        choice: Choice<'p>,
    ) -> Self {
        let batcher = Batcher::new(Arc::clone(&part.payload));
        let window = Window::default();
        Self { extractor, queue, batcher, window, part, choice, open: Vec::new(), stopped: None }
    }

    /// Walks what is extracted.
    pub fn run(&mut self) -> Result<()> {
        if !self.part.found.is_directory() {
            // An entry by itself goes into the target, which is nobody's and keeps its attributes.
            let root = Directory::new(b"", None, self.extractor.root()?, None);
            self.open.push(Open { path: Vec::new(), state: State::Made(root), names: None });
        }
        let part = self.part;
        let walked = part.walk(self);
        if self.stopped.is_none() && !part.found.is_directory() {
            self.close(b"");
        }
        // What is still open after an error must not be finished as if it were whole.
        if let Some(stopped) = self.stopped.take() {
            return Err(stopped);
        }
        walked?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let batches: Vec<Batch<Item>> = self.batcher.finish().collect();
        batches.into_iter().try_for_each(|batch| self.send(batch))?;
        let runs = self.window.flush();
        self.send_runs(runs)
    }

    /// Lets a batch wait for its neighbours, if it is known which those are.
    fn send(&mut self, batch: Batch<Item>) -> Result<()> {
        let place = batch.chunk.and_then(|chunk| self.part.payload.place(&chunk));
        let runs = self.window.push(place, batch);
        self.send_runs(runs)
    }

    fn send_runs(&self, runs: Vec<Vec<Batch<Item>>>) -> Result<()> {
        runs.into_iter().try_for_each(|run| self.queue.push(Task::Run(run)))
    }

    /// Keeps an error that ends the job, and ends the walk.
    fn stop_with(&mut self, result: Result<()>) -> FormatResult<()> {
        result.map_err(|error| {
            self.stopped = Some(error);
            FormatError::missing("the job was told to end")
        })
    }

    /// The directory that the walk is in, made if it was not yet.
    fn here(&mut self) -> FormatResult<Option<Arc<Directory>>> {
        let first_wanted = self
            .open
            .iter()
            .position(|open| matches!(open.state, State::Wanted(..)))
            .unwrap_or(self.open.len());
        for level in first_wanted..self.open.len() {
            let parent = match level.checked_sub(1).and_then(|above| self.open.get(above)) {
                Some(Open { state: State::Made(parent), .. }) => Some(Arc::clone(parent)),
                _ => None,
            };
            let Some(open) = self.open.get_mut(level) else { break };
            let State::Wanted(entry, is_on_the_way) = &open.state else { continue };
            let made = self.extractor.make_directory(&open.path, entry, *is_on_the_way, parent);
            match made {
                Ok(Some(directory)) => open.state = State::Made(directory),
                Ok(None) => return Ok(None),
                Err(error) => return self.stop_with(Err(error)).map(|()| None),
            }
        }
        Ok(match self.open.last() {
            Some(Open { state: State::Made(directory), .. }) => Some(Arc::clone(directory)),
            _ => None,
        })
    }

    fn plan(&mut self, item: Item, row: &Row<'_>) -> FormatResult<()> {
        if row.kind() != Kind::File {
            return self.batch(item, None);
        }
        let is_large = row.payload_length() > LEAF_LENGTH && row.size().div_ceil(LEAF_LENGTH) <= LEAVES_MAX;
        let range = row.payload_start()..row.payload_start().saturating_add(row.payload_length());
        match self.batcher.locate(range) {
            Ok(Lies::Nowhere) if row.size() == 0 => self.batch(item, None),
            Ok(Lies::In(slice)) if !row.has_holes() => self.batch(item, Some(slice)),
            Ok(_) => {
                let mut item = item;
                if item.content.is_none() {
                    item.content = Some(Box::new(row.content()?));
                }
                if is_large && self.extractor.rules.is_quick(&item.directory.out, &item.entry) {
                    self.plan_large(item, row.size().div_ceil(LEAF_LENGTH))
                } else {
                    let pushed = self.queue.push(Task::Whole(item));
                    self.stop_with(pushed)
                }
            }
            Err(error) => {
                let failed = self.extractor.fail(item, &error);
                self.stop_with(failed)
            }
        }
    }

    fn plan_large(&mut self, item: Item, leaves: u64) -> FormatResult<()> {
        let large = match self.extractor.begin_large(item, leaves) {
            Ok(Some(large)) => Arc::new(large),
            Ok(None) => return Ok(()),
            Err(error) => return self.stop_with(Err(error)),
        };
        for leaf in 0..leaves {
            let pushed = self.queue.push(Task::Leaf(Arc::clone(&large), leaf));
            self.stop_with(pushed)?;
        }
        let let_go = self.extractor.let_go_of(large);
        self.stop_with(let_go)
    }

    /// Notes a name of the directory that the walk is in.
    fn note_name(&mut self, path: &[u8]) {
        if let Some(names) = self.open.last_mut().and_then(|open| open.names.as_mut()) {
            names.insert(key_of(last_name(path)));
        }
    }

    /// Leaves the directory at `path`, below the target.
    fn close(&mut self, path: &[u8]) {
        self.choice.leave(path);
        if let Some(Open { state: State::Made(directory), names, .. }) = self.open.pop() {
            if let Some(names) = names {
                // It was empty until now: nobody else sets it.
                let _ = directory.names.set(names);
            }
            self.extractor.release(directory);
        }
    }

    fn batch(&mut self, item: Item, slice: Option<diptych_format::map::Slice>) -> FormatResult<()> {
        let result = match self.batcher.push(item, slice) {
            Some(batch) => self.send(batch),
            None => Ok(()),
        };
        self.stop_with(result)
    }
}

/// The last name of a path.
fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Why a name is no link, though the link table says so.
const OTHER_THAN_FIRST: &str =
    "the archive calls it another name of a file that holds something else: it is restored by itself";

impl Visitor for Planner<'_> {
    fn enter(&mut self, whole_path: &[u8], row: &Row<'_>) -> FormatResult<Descend> {
        let path = self.part.inside(whole_path);
        if !path.is_empty() {
            self.note_name(path);
        }
        let verdict = self.choice.enter(path);
        if verdict == Verdict::Passed {
            return Ok(Descend::Skip);
        }
        let entry = match row.to_entry() {
            Ok(entry) => entry,
            Err(error) => {
                self.extractor.lose_directory(path, &error);
                self.choice.leave(path);
                return Ok(Descend::Skip);
            }
        };
        let is_on_the_way = verdict == Verdict::OnTheWay;
        // Of a directory that was not listed to its end it is not known what else was in it.
        let is_listed = self.extractor.rules.deletion.is_some() && !row.status().has(Status::NOT_READ);
        let names = is_listed.then(HashSet::new);
        let state = State::Wanted(Box::new(entry), is_on_the_way);
        self.open.push(Open { path: path.to_vec(), state, names });
        if verdict == Verdict::Selected && self.here()?.is_none() {
            self.open.pop();
            self.choice.leave(path);
            return Ok(Descend::Skip);
        }
        if verdict == Verdict::Selected && !row.status().is_complete() {
            self.extractor.note_status(path, row.status());
        }
        Ok(Descend::Enter)
    }

    fn entry(&mut self, whole_path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        let path = self.part.inside(whole_path);
        self.note_name(path);
        if !self.choice.entry(path) {
            return Ok(());
        }
        if row.status().has(Status::NOT_READ) {
            self.extractor.lose_unread(path);
            return Ok(());
        }
        let entry = match row.to_entry() {
            Ok(entry) => entry,
            Err(error) => {
                self.extractor.lose(path, &error.to_string());
                return Ok(());
            }
        };
        if !row.status().is_complete() {
            self.extractor.note_status(path, row.status());
        }
        // A directory on the way that could not be made was told; so is what it costs.
        let Some(directory) = self.here()? else {
            self.extractor.lose(path, "its directory could not be made");
            return Ok(());
        };
        let group = self.part.links.group_of(whole_path);
        let content = match group {
            Some(_) if row.kind() == Kind::File => Some(Box::new(row.content()?)),
            _ => None,
        };
        let item = Item { path: path.to_vec(), entry, directory, content, group };
        let Some(group) = group else { return self.plan(item, row) };
        let holds = item.entry.holds.clone();
        match self.extractor.groups.admit(group, &holds, item) {
            Admitted::Apart(item) => {
                self.extractor.lose(path, OTHER_THAN_FIRST);
                self.plan(Item { group: None, ..item }, row)
            }
            Admitted::Restore(item) => self.plan(item, row),
            Admitted::Link(item, first) => {
                let pushed = self.queue.push(Task::Link(item, first));
                self.stop_with(pushed)
            }
            Admitted::Waits => Ok(()),
        }
    }

    fn leave(&mut self, path: &[u8], _: &Row<'_>) -> FormatResult<()> {
        self.close(self.part.inside(path));
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: FormatError) -> FormatResult<()> {
        let path = self.part.inside(path);
        for open in self.open.iter_mut().filter(|open| open.path == path) {
            open.names = None;
        }
        self.extractor.lose(path, &format!("part of what is in it cannot be restored: {error}"));
        Ok(())
    }
}
