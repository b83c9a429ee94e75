//! The base: the earlier archive, followed in step with the scan.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use diptych_decoder::{Archive, ChildPieces, Found as Row};
use diptych_format::{Digest, Error, Result};
use diptych_repository::StreamReader;

use super::compare::Reused;
use super::key::ChangeKey;

/// Least part of a chunk, in percent, that must be in use for it to be used on.
pub const MIN_LIVE: u8 = 45;

/// Says whether a payload chunk can be had.
pub type HasChunk = Arc<dyn Fn(&Digest) -> Result<bool> + Send + Sync>;

/// The earlier archive that a run compares with.
#[derive(Clone)]
pub struct Base {
    /// Its tables.
    pub archive: Archive,
    /// Its payload, for its map.
    pub payload: Arc<StreamReader>,
    /// What counts as unchanged.
    pub key: ChangeKey,
    /// Chunks that are not to be used on.
    pub avoided: HashSet<Digest>,
    /// Whether a chunk is still there.
    pub has_chunk: HasChunk,
}

/// What a run compares with.
#[derive(Clone)]
pub struct Bases {
    /// The first that has an entry as it is gives it.
    pub in_order: Vec<Base>,
    /// Least part of a chunk, in percent, that must be in use for it to be used on.
    pub min_live: u8,
    /// What of the unchanged files is read all the same.
    pub sample: Sample,
}

/// A part of the chunks, another one in each run, whose files are read though they count as unchanged: so that what
/// changes without a trace is found at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// One in so many chunks; 0 is none.
    pub one_in: u64,
    /// Which of them: a number that each run adds one to.
    pub round: u64,
}

impl Sample {
    /// Whether a file is read for the chunk that it begins in.
    pub(super) fn takes(&self, reused: &Reused) -> bool {
        let first = reused.slices.first().map(|slice| slice.slice.chunk.leading());
        self.one_in > 0 && first.is_some_and(|first| first % self.one_in == self.round % self.one_in)
    }
}

/// The open directories of a scan, each with that of the base if it has one.
pub(super) struct BaseTree {
    archive: Archive,
    open: Vec<Option<OpenDirectory>>,
}

impl BaseTree {
    pub(super) fn new(archive: Archive) -> Self {
        Self { archive, open: Vec::new() }
    }

    /// A directory opens; the first is the root.
    pub(super) fn enter(&mut self, name: &[u8]) -> Result<()> {
        let row = match self.open.last_mut() {
            None => Some(self.archive.root()?),
            Some(None) => None,
            Some(Some(directory)) => directory.subdirectory(name)?,
        };
        let directory = row.filter(Row::is_directory).map(|row| OpenDirectory::new(&self.archive, &row));
        self.open.push(directory);
        Ok(())
    }

    /// Whether the base has the open directory.
    pub(super) fn has_directory(&self) -> bool {
        matches!(self.open.last(), Some(Some(_)))
    }

    /// The row of an entry that is no directory.
    pub(super) fn entry(&mut self, name: &[u8]) -> Result<Option<Row>> {
        match self.open.last_mut() {
            Some(Some(directory)) => directory.entry(name),
            Some(None) => Ok(None),
            None => Err(Error::corrupt("an entry comes before the root")),
        }
    }

    /// A piece of the open directory ends.
    pub(super) fn end_piece(&mut self) {
        if let Some(Some(directory)) = self.open.last_mut() {
            directory.end_piece();
        }
    }

    /// The open directory closes.
    pub(super) fn leave(&mut self) {
        self.open.pop();
    }
}

/// A directory's rows as far as the scan may still ask for them. In each piece the scan gives entries by name and then
/// subdirectories by name, so that two cursors go through the rows, and none is searched for.
struct OpenDirectory {
    pieces: ChildPieces,
    rows: VecDeque<Option<Row>>,
    has_more: bool,
    entries: usize,
    subdirectories: usize,
    /// The last name that was asked for.
    last: Box<[u8]>,
}

impl OpenDirectory {
    fn new(archive: &Archive, row: &Row) -> Self {
        Self {
            pieces: archive.child_pieces(row),
            rows: VecDeque::new(),
            has_more: true,
            entries: 0,
            subdirectories: 0,
            last: Box::default(),
        }
    }

    fn entry(&mut self, name: &[u8]) -> Result<Option<Row>> {
        let mut cursor = self.entries;
        let found = self.take(name, &mut cursor);
        self.entries = cursor;
        found
    }

    fn subdirectory(&mut self, name: &[u8]) -> Result<Option<Row>> {
        let mut cursor = self.subdirectories;
        let found = self.take(name, &mut cursor);
        self.subdirectories = cursor;
        found
    }

    /// Moves `cursor` to `name` and takes its row.
    fn take(&mut self, name: &[u8], cursor: &mut usize) -> Result<Option<Row>> {
        if *name > *self.last {
            self.last = name.into();
        }
        loop {
            match self.rows.get_mut(*cursor) {
                Some(None) => *cursor += 1,
                Some(place @ Some(_)) => {
                    match place.as_ref().map(|row| row.entry.name.as_bytes().cmp(name)) {
                        Some(std::cmp::Ordering::Equal) => {
                            *cursor += 1;
                            return Ok(place.take());
                        }
                        Some(std::cmp::Ordering::Less) => *cursor += 1,
                        _ => return Ok(None),
                    }
                }
                None if !self.has_more => return Ok(None),
                None => match self.pieces.next_piece()? {
                    Some(rows) => self.rows.extend(rows.into_iter().map(Some)),
                    None => self.has_more = false,
                },
            }
        }
    }

    /// Lets go of the rows up to the last name: the scan comes to none of them any more.
    fn end_piece(&mut self) {
        let last = &self.last;
        let is_past = |row: &Option<Row>| row.as_ref().is_none_or(|row| *row.entry.name.as_bytes() <= **last);
        while self.rows.front().is_some_and(is_past) {
            self.rows.pop_front();
        }
        (self.entries, self.subdirectories) = (0, 0);
    }
}
