//! The walk: directories are made as they come, everything else becomes tasks.

use std::sync::Arc;

use diptych_decoder::{Archive, Descend, Row, Visitor};
use diptych_format::digest::LEAF_LENGTH;
use diptych_format::{Entry, Error as FormatError, Kind, Result as FormatResult, Status};
use diptych_repository::StreamReader;

use crate::batch::{Batcher, Lies};
use crate::error::{Error, Result};
use crate::links::LinkIndex;
use crate::pool::Queue;
use crate::select::{PathSelection, Verdict};

use super::Item;
use super::groups::Admitted;
use super::tree::Directory;
use super::work::{Extractor, Task};

/// Most leaves of a content that is written by several threads; beyond it, holes are what makes it long.
const LEAVES_MAX: u64 = 1 << 16;

/// Makes tasks.
pub struct Planner<'p> {
    extractor: &'p Extractor<'p>,
    queue: &'p Queue<'p, Task>,
    batcher: Batcher<Item>,
    links: &'p LinkIndex,
    selection: &'p mut PathSelection,
    /// Length of the path of the selected directory that the walk is in.
    selected_at: Option<usize>,
    /// The open path. Directories on the way to what is selected are made when something is.
    open: Vec<Open>,
    /// Why the job ends, if it is not the archive's fault.
    stopped: Option<Error>,
}

struct Open {
    path: Vec<u8>,
    state: State,
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
        payload: Arc<StreamReader>,
        links: &'p LinkIndex,
        selection: &'p mut PathSelection,
    ) -> Self {
        Self {
            extractor,
            queue,
            batcher: Batcher::new(payload),
            links,
            selection,
            selected_at: None,
            open: Vec::new(),
            stopped: None,
        }
    }

    /// Walks the archive.
    pub fn run(&mut self, archive: &Archive) -> Result<()> {
        let walked = archive.root().and_then(|root| archive.walk(&root, b"", self));
        // What is still open after an error must not be finished as if it were whole.
        if let Some(stopped) = self.stopped.take() {
            return Err(stopped);
        }
        walked?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let queue = self.queue;
        self.batcher.finish().try_for_each(|batch| queue.push(Task::Batch(batch)))
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
        let range = row.payload_start()..row.payload_start().saturating_add(row.payload_length());
        match self.batcher.locate(range) {
            Ok(Lies::Nowhere) if row.size() == 0 => self.batch(item, None),
            Ok(Lies::In(slice)) if !row.has_holes() => self.batch(item, Some(slice)),
            Ok(_) => {
                let mut item = item;
                if item.content.is_none() {
                    item.content = Some(Box::new(row.content()?));
                }
                let leaves = row.size().div_ceil(LEAF_LENGTH);
                if row.payload_length() > LEAF_LENGTH && leaves <= LEAVES_MAX {
                    self.plan_large(item, leaves)
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

    fn batch(&mut self, item: Item, slice: Option<diptych_format::map::Slice>) -> FormatResult<()> {
        let result = match self.batcher.push(item, slice) {
            Some(batch) => self.queue.push(Task::Batch(batch)),
            None => Ok(()),
        };
        self.stop_with(result)
    }
}

/// The root has no name, and its length is that of no other path.
fn verdict(planner: &mut Planner<'_>, path: &[u8], is_directory: bool) -> Verdict {
    match planner.selected_at {
        Some(_) => Verdict::Selected,
        None => planner.selection.verdict(path, is_directory),
    }
}

/// Why a name is no link, though the link table says so.
const OTHER_THAN_FIRST: &str =
    "the archive calls it another name of a file that holds something else: it is restored by itself";

impl Visitor for Planner<'_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<Descend> {
        let verdict = verdict(self, path, true);
        if verdict == Verdict::Passed {
            return Ok(Descend::Skip);
        }
        let entry = match row.to_entry() {
            Ok(entry) => entry,
            Err(error) => {
                self.extractor.lose_directory(path, &error);
                return Ok(Descend::Skip);
            }
        };
        let is_on_the_way = verdict == Verdict::OnTheWay;
        self.open.push(Open { path: path.to_vec(), state: State::Wanted(Box::new(entry), is_on_the_way) });
        if verdict == Verdict::Selected && self.here()?.is_none() {
            self.open.pop();
            return Ok(Descend::Skip);
        }
        if verdict == Verdict::Selected {
            self.selected_at.get_or_insert(path.len());
            if !row.status().is_complete() {
                self.extractor.note_status(path, row.status());
            }
        }
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        if verdict(self, path, false) != Verdict::Selected {
            return Ok(());
        }
        if row.status().has(Status::NOT_READ) {
            self.extractor.lose(path, "its content was not read when the archive was made");
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
        let group = self.links.group_of(path);
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
        if self.selected_at == Some(path.len()) {
            self.selected_at = None;
        }
        if let Some(Open { state: State::Made(directory), .. }) = self.open.pop() {
            self.extractor.release(directory);
        }
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: FormatError) -> FormatResult<()> {
        self.extractor.lose(path, &format!("part of what is in it cannot be restored: {error}"));
        Ok(())
    }
}
