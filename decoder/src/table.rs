//! Tables one at a time, for those who come back to them: a file system, above all.
//!
//! A [`TableRef`] says where a table of a directory stands, and what it has to be; [`Archive::read`] reads it and checks
//! it whole. What is read is kept by whoever asked for it.
//!
//! Spec: archive.md section 7.

use std::ops::ControlFlow;

use diptych_format::error::{Error, Result};
use diptych_format::stream::HEADER_LENGTH;
use diptych_format::table::{Below, DirectoryTable, TableKind, kind_of};

use crate::archive::Archive;
use crate::pieces::Piece;
use crate::row::{Row, below_of_nth};
use crate::source::moved;

/// A table of a directory that was not read yet: its top table, or one below an index table.
///
/// Tables stand in post-order, so that all below this one stands between its floor and its end. The floors and ends of
/// any two are checked to lie one in the other or apart: no table has two referrers that are both read, and a position in
/// the stream leads down from the root to the one table that stands there. Spec: sections 2 and 8.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRef {
    piece: Piece,
    /// Where the first table below it can stand.
    floor: u64,
}

impl TableRef {
    /// What `piece` tells of, where whatever comes before it ends at `floor`.
    fn new(piece: Piece, floor: u64) -> Result<Self> {
        if piece.below.position < floor {
            let what = "a table stands before one that comes earlier: it is shared or out of order";
            return Err(moved(piece.below.position)(Error::corrupt(what)));
        }
        Ok(Self { piece, floor })
    }

    /// Where it stands in the metadata stream: no other table of the archive stands there.
    pub fn position(&self) -> u64 {
        self.piece.below.position
    }

    /// Where it ends. Whatever is below it ends before its position.
    pub fn end(&self) -> u64 {
        self.piece.below.position.saturating_add(self.piece.below.length)
    }

    /// Whether `name` stands in it or behind it, if the directory has it at all.
    pub fn begins_by(&self, name: &[u8]) -> bool {
        self.piece.first.as_deref().is_none_or(|first| first <= name)
    }

    /// Bytes of memory that it takes, roughly.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.piece.names_length()
    }
}

/// What a [`TableRef`] leads to.
#[derive(Debug)]
pub enum Read {
    /// Names.
    Names(Table),
    /// The tables that the names are in, by name.
    Index(Vec<TableRef>),
}

/// Names of one directory with all that is said of them: all of its names, or a piece of them.
pub struct Table {
    archive: Archive,
    reference: TableRef,
    bytes: Box<[u8]>,
    rows: usize,
    /// Where the payload of each row starts, seen from that of the table.
    starts: Box<[u64]>,
    /// The rows that are directories, ascending.
    directories: Box<[u32]>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("at", &self.position()).field("rows", &self.rows).finish()
    }
}

impl Archive {
    /// The top table of the root directory.
    pub fn root_ref(&self) -> Result<TableRef> {
        TableRef::new(self.root_top()?, HEADER_LENGTH as u64)
    }

    /// Reads a table and checks it.
    pub fn read(&self, reference: &TableRef) -> Result<Read> {
        let TableRef { piece, floor } = reference;
        let mut bytes = Vec::new();
        self.source().read_table(piece.below.position, piece.below.length, &mut bytes)?;
        let mut floor = *floor;
        if kind_of(&bytes).map_err(moved(piece.below.position))? == TableKind::Index {
            let table = piece.check_index(&bytes)?;
            let mut start = piece.payload_start;
            let references = (0..table.rows()).map(|row| {
                let below = piece.of_index(&table, row, start)?;
                start = start.saturating_add(below.below.payload_length);
                let reference = TableRef::new(below, floor)?;
                floor = reference.end();
                Ok(reference)
            });
            return Ok(Read::Index(references.collect::<Result<_>>()?));
        }
        let table = piece.check_directory(&bytes)?;
        let mut directories = Vec::new();
        for (row, below, _) in table.directories() {
            let position = below.resolve(piece.below.position)?;
            if position < floor {
                let what = "a table stands before one that comes earlier: it is shared or out of order";
                return Err(moved(position)(Error::corrupt(what)));
            }
            floor = position.saturating_add(below.length);
            directories.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        let (rows, starts) = (table.rows(), table.payload_starts().into());
        Ok(Read::Names(Table {
            archive: self.clone(),
            reference: reference.clone(),
            bytes: bytes.into(),
            rows,
            starts,
            directories: directories.into(),
        }))
    }
}

impl Table {
    /// Where it stands in the metadata stream.
    pub fn position(&self) -> u64 {
        self.reference.position()
    }

    /// Its length there, in bytes.
    pub fn length(&self) -> u64 {
        self.reference.piece.below.length
    }

    /// Number of names.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that it takes, roughly.
    pub fn weight(&self) -> usize {
        let lists = size_of_val(&*self.starts) + size_of_val(&*self.directories);
        size_of::<Self>() + self.bytes.len() + lists + self.reference.piece.names_length()
    }

    /// The row of a name.
    pub fn find(&self, name: &[u8]) -> Result<Option<usize>> {
        Ok(self.view()?.find(name))
    }

    /// Lends one row.
    pub fn row<T>(&self, row: usize, take: impl FnOnce(&Row<'_>) -> Result<T>) -> Result<T> {
        let table = self.view()?;
        self.lend(&table, row, take)
    }

    /// Lends the rows from `first` on, with their numbers, until `each` has enough.
    pub fn rows_from(
        &self,
        first: usize,
        mut each: impl FnMut(usize, &Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let table = self.view()?;
        for row in first..self.rows {
            if self.lend(&table, row, |row_there| each(row, row_there))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The top table of the directory at `row`; nothing for other kinds.
    pub fn directory(&self, row: usize) -> Result<Option<TableRef>> {
        let table = self.view()?;
        self.check_row(row)?;
        let Some(index) = self.directory_index(row) else { return Ok(None) };
        let Some(below) = self.below(&table, row)? else { return Ok(None) };
        let floor = match index.checked_sub(1) {
            Some(before) => self.end_of(&table, before)?,
            None => self.reference.floor,
        };
        TableRef::new(Piece::top(below, self.start(row)), floor).map(Some)
    }

    /// The row of the directory that `position` in the stream is below of, if it is below any of this table's.
    pub fn directory_around(&self, position: u64) -> Result<Option<usize>> {
        let table = self.view()?;
        let (mut low, mut high) = (0, self.directories.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.end_of(&table, middle)? > position {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(self.directories.get(low).map(|row| *row as usize))
    }

    /// Where the top table of a directory ends, of the one with this number among them.
    fn end_of(&self, table: &DirectoryTable<'_>, index: usize) -> Result<u64> {
        let (below, _) = table.nth_directory(index);
        Ok(below.resolve(self.position())?.saturating_add(below.length))
    }

    fn directory_index(&self, row: usize) -> Option<usize> {
        self.directories.binary_search(&u32::try_from(row).ok()?).ok()
    }

    fn below(&self, table: &DirectoryTable<'_>, row: usize) -> Result<Option<Below>> {
        let Some(index) = self.directory_index(row) else { return Ok(None) };
        below_of_nth(table, (index, row), &self.reference.piece).map(Some)
    }

    fn lend<T>(
        &self,
        table: &DirectoryTable<'_>,
        row: usize,
        take: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_row(row)?;
        let below = self.below(table, row)?;
        take(&Row::of_table(&self.archive, (table, row), self.position(), below.as_ref(), self.start(row)))
    }

    fn start(&self, row: usize) -> u64 {
        self.reference.piece.payload_start.saturating_add(self.starts.get(row).copied().unwrap_or(0))
    }

    fn check_row(&self, row: usize) -> Result<()> {
        if row < self.rows {
            return Ok(());
        }
        Err(moved(self.position())(Error::missing(format!("row {row} of a table of {} rows", self.rows))))
    }

    fn view(&self) -> Result<DirectoryTable<'_>> {
        DirectoryTable::view(&self.bytes).map_err(moved(self.position()))
    }
}
