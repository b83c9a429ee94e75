//! Two trees, gone through together by name.
//!
//! The stack holds a frame for each open directory; of what is below a directory that one archive alone has, the other
//! side is empty. What was left behind is not gone back to, on either side.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use diptych_format::error::{Error, Result};
use diptych_format::limits;
use diptych_format::table::{DirectoryTable, body_digest};

use crate::archive::Archive;
use crate::pieces::{Floor, Piece};

use super::compare::aspects;
use super::cursor::{Cursor, Leaf, Names, fill, order};
use super::{Aspect, Change, Difference, DifferenceSink};

/// A directory that is open in either archive or both.
struct Frame<'m> {
    sides: [Cursor<'m>; 2],
    path_length: usize,
}

/// A comparison under way.
pub(super) struct Merge<'m, 's> {
    archives: [&'m Archive; 2],
    floors: [Floor; 2],
    frames: Vec<Frame<'m>>,
    told: Told<'m, 's>,
}

/// What is told, and what it takes to tell it.
struct Told<'m, 's> {
    archives: [&'m Archive; 2],
    path: Vec<u8>,
    /// Paths whose links differ and that were not told of yet.
    relinked: &'m mut BTreeSet<Box<[u8]>>,
    sink: &'m mut DifferenceSink<'s>,
}

/// A row of a table, where that stands.
type At<'t> = (&'t DirectoryTable<'t>, usize, u64);

impl<'m, 's> Merge<'m, 's> {
    pub(super) fn new(
        a: &'m Archive,
        b: &'m Archive,
        relinked: &'m mut BTreeSet<Box<[u8]>>,
        sink: &'m mut DifferenceSink<'s>,
    ) -> Self {
        let archives = [a, b];
        let told = Told { archives, path: Vec::new(), relinked, sink };
        Self { archives, floors: [Floor::default(); 2], frames: Vec::new(), told }
    }

    pub(super) fn run(mut self) -> Result<()> {
        let [a, b] = self.archives;
        let ((bytes_a, piece_a), (bytes_b, piece_b)) = (a.root_table(), b.root_table());
        let (table_a, table_b) = (DirectoryTable::view(bytes_a)?, DirectoryTable::view(bytes_b)?);
        if body_digest(table_a.body_bytes()) == body_digest(table_b.body_bytes()) {
            return Ok(());
        }
        let row_a = (&table_a, 0, piece_a.below.position);
        self.told.row(Some(row_a), Some((&table_b, 0, piece_b.below.position)))?;
        if table_a.digest(0) != table_b.digest(0) {
            self.open([Some(a.root_top()?), Some(b.root_top()?)])?;
        }
        self.go_on()
    }

    /// Compares what is below two directories with these top tables; `path` is how the first one is told.
    pub(super) fn run_below(mut self, path: &[u8], [top_a, top_b]: [Piece; 2]) -> Result<()> {
        if top_a.below.digest == top_b.below.digest {
            return Ok(());
        }
        self.told.path = path.to_vec();
        self.open([Some(top_a), Some(top_b)])?;
        self.go_on()
    }

    fn go_on(mut self) -> Result<()> {
        while !self.frames.is_empty() {
            self.step()?;
        }
        Ok(())
    }

    fn open(&mut self, [top_a, top_b]: [Option<Piece>; 2]) -> Result<()> {
        let depth = self.frames.len() + 1;
        let is_filled = |top: &Option<Piece>| top.as_ref().is_some_and(|top| top.below.entries > 0);
        if depth > limits::DEPTH_MAX && (is_filled(&top_a) || is_filled(&top_b)) {
            return Err(Error::limit("path depth", depth as u64, limits::DEPTH_MAX as u64));
        }
        let [a, b] = self.archives;
        let sides = [Cursor::new(a, top_a), Cursor::new(b, top_b)];
        self.let_go();
        self.frames.push(Frame { sides, path_length: self.told.path.len() });
        Ok(())
    }

    /// Keeps no more than is allowed of what the comparison will come back to.
    fn let_go(&mut self) {
        let kept: usize = self.frames.iter().flat_map(|frame| &frame.sides).map(Cursor::kept).sum();
        if kept as u64 > self.archives[0].source().kept_max() {
            self.frames.iter_mut().flat_map(|frame| &mut frame.sides).for_each(Cursor::let_go);
        }
    }

    /// Compares the innermost directory on, until it is done or something below it must come first.
    fn step(&mut self) -> Result<()> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        self.told.path.truncate(frame.path_length);
        fill(&mut frame.sides, &mut self.floors, Names::Entries)?;
        let [a, b] = &mut frame.sides;
        if a.leaf.is_none() && b.leaf.is_none() {
            self.frames.pop();
            return Ok(());
        }
        match rows(a.leaf.as_mut(), b.leaf.as_mut(), &mut self.told)? {
            Some(tops) => self.open(tops),
            None => Ok(()),
        }
    }
}

/// Compares rows until a piece is done, or until there are tops of subdirectories to be compared first.
fn rows(
    a: Option<&mut Leaf>,
    b: Option<&mut Leaf>,
    told: &mut Told<'_, '_>,
) -> Result<Option<[Option<Piece>; 2]>> {
    let (mut side_a, mut side_b) = (a.map(Side::new).transpose()?, b.map(Side::new).transpose()?);
    let path_length = told.path.len();
    loop {
        let order = order(side_a.as_ref().map(Side::name), side_b.as_ref().map(Side::name));
        let Some(order) = order else { return Ok(None) };
        let one = side_a.as_mut().filter(|_| order != Ordering::Greater).map(Side::next);
        let other = side_b.as_mut().filter(|_| order != Ordering::Less).map(Side::next);
        let tables = (side_a.as_ref().map(|side| &side.table), side_b.as_ref().map(|side| &side.table));
        let at_a = tables.0.zip(one.as_ref()).map(|(table, next)| (table, next.row, next.position));
        let at_b = tables.1.zip(other.as_ref()).map(|(table, next)| (table, next.row, next.position));
        if let Some((table, row, _)) = at_a.or(at_b) {
            told.push(table.name(row))?;
        }
        told.row(at_a, at_b)?;
        let tops = [one.and_then(|next| next.top), other.and_then(|next| next.top)];
        let is_same = match &tops {
            [None, None] => true,
            [Some(a), Some(b)] => a.below.digest == b.below.digest,
            _ => false,
        };
        if !is_same {
            return Ok(Some(tops));
        }
        told.path.truncate(path_length);
    }
}

/// A piece of one side, open.
struct Side<'l> {
    table: DirectoryTable<'l>,
    position: u64,
    row: &'l mut usize,
    children: &'l mut super::cursor::Children,
}

/// A row that is being compared, and what is below it.
struct Next {
    row: usize,
    position: u64,
    top: Option<Piece>,
}

impl<'l> Side<'l> {
    fn new(leaf: &'l mut Leaf) -> Result<Self> {
        Ok(Self {
            table: DirectoryTable::view(&leaf.bytes)?,
            position: leaf.piece.below.position,
            row: &mut leaf.row,
            children: &mut leaf.children,
        })
    }

    /// The next name; nothing when the piece is done.
    fn name(&self) -> Option<&'l [u8]> {
        (*self.row < self.table.rows()).then(|| self.table.name(*self.row))
    }

    fn next(&mut self) -> Next {
        let row = *self.row;
        *self.row += 1;
        // Where payloads start is of no concern to a comparison.
        let top = self.children.take(row).map(|below| Piece::top(below, 0));
        Next { row, position: self.position, top }
    }
}

impl Told<'_, '_> {
    fn push(&mut self, name: &[u8]) -> Result<()> {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        if self.path.len() > limits::PATH_LENGTH_MAX {
            let (found, most) = (self.path.len() as u64, limits::PATH_LENGTH_MAX as u64);
            return Err(Error::limit("path length", found, most));
        }
        Ok(())
    }

    /// Tells of one path, if there is anything to be told.
    fn row(&mut self, before: Option<At<'_>>, after: Option<At<'_>>) -> Result<()> {
        let kind = match (before, after) {
            (Some((a, row_a, _)), Some((b, row_b, _))) => {
                let mut what = aspects((a, row_a), (b, row_b))?;
                if !self.relinked.is_empty() && self.relinked.remove(&self.path[..]) {
                    what.push(Aspect::Links);
                }
                if what.is_empty() {
                    return Ok(());
                }
                Change::Changed { what }
            }
            (Some(_), None) => Change::Removed,
            (None, Some(_)) => Change::Added,
            (None, None) => return Ok(()),
        };
        let [a, b] = self.archives;
        let entry = |archive: &Archive, at: Option<At<'_>>| {
            at.map(|(table, row, position)| archive.source().entry(table, row, position)).transpose()
        };
        let (before, after) = (entry(a, before)?, entry(b, after)?);
        (self.sink)(Difference { path: self.path.clone(), kind, before, after })
    }
}
