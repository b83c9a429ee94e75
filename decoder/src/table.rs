//! Tables one at a time, for those who come back to them: a file system, above all.
//!
//! A [`TableRef`] says where a table of a directory stands, and what it has to be; [`Archive::read`] reads it and checks
//! it whole. What is read is kept by whoever asked for it.
//!
//! Spec: archive.md section 7.

use std::ops::ControlFlow;

use diptych_format::error::{Error, Result};
use diptych_format::table::{DirectoryTable, TableKind, kind_of};

use crate::archive::Archive;
use crate::pieces::Piece;
use crate::row::{Row, below_of};
use crate::source::moved;

/// A table of a directory that was not read yet: its top table, or one below an index table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRef(Piece);

impl TableRef {
    /// Where it stands in the metadata stream: no other table of the archive stands there.
    pub fn position(&self) -> u64 {
        self.0.below.position
    }

    /// Whether `name` stands in it or behind it, if the directory has it at all.
    pub fn begins_by(&self, name: &[u8]) -> bool {
        self.0.first.as_deref().is_none_or(|first| first <= name)
    }

    /// Bytes of memory that it takes, roughly.
    pub fn weight(&self) -> usize {
        let names = self.0.first.as_ref().map_or(0, |name| 2 * name.len());
        size_of::<Self>() + names
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
    piece: Piece,
    bytes: Box<[u8]>,
    rows: usize,
    /// Where the payload of each row starts, seen from that of the piece.
    starts: Box<[u64]>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("at", &self.position()).field("rows", &self.rows).finish()
    }
}

impl Archive {
    /// The top table of the root directory.
    pub fn root_ref(&self) -> Result<TableRef> {
        self.root_top().map(TableRef)
    }

    /// Reads a table and checks it.
    pub fn read(&self, reference: &TableRef) -> Result<Read> {
        let TableRef(piece) = reference;
        let mut bytes = Vec::new();
        self.source().read_table(piece.below.position, piece.below.length, &mut bytes)?;
        if kind_of(&bytes).map_err(moved(piece.below.position))? == TableKind::Index {
            let table = piece.check_index(&bytes)?;
            let mut start = piece.payload_start;
            let references = (0..table.rows()).map(|row| {
                let below = piece.of_index(&table, row, start)?;
                start = start.saturating_add(below.below.payload_length);
                Ok(TableRef(below))
            });
            let references: Vec<TableRef> = references.collect::<Result<_>>()?;
            // In the order of their names, as everything stands in the stream.
            if !references.is_sorted_by(|a, b| a.position() < b.position()) {
                let error =
                    Error::corrupt("the pieces of a directory stand in another order than their names");
                return Err(moved(piece.below.position)(error));
            }
            return Ok(Read::Index(references));
        }
        let table = piece.check_directory(&bytes)?;
        let (rows, starts) = (table.rows(), table.payload_starts().into());
        Ok(Read::Names(Table {
            archive: self.clone(),
            piece: piece.clone(),
            bytes: bytes.into(),
            rows,
            starts,
        }))
    }
}

impl Table {
    /// Where it stands in the metadata stream.
    pub fn position(&self) -> u64 {
        self.piece.below.position
    }

    /// Its length there, in bytes.
    pub fn length(&self) -> u64 {
        self.piece.below.length
    }

    /// Number of names.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that it takes, roughly.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + size_of_val(&*self.starts)
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
        let below = below_of(&table, row, &self.piece)?;
        Ok(below.map(|below| TableRef(Piece::top(below, self.start(row)))))
    }

    fn lend<T>(
        &self,
        table: &DirectoryTable<'_>,
        row: usize,
        take: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.check_row(row)?;
        let below = below_of(table, row, &self.piece)?;
        take(&Row::of_table(&self.archive, (table, row), self.position(), below.as_ref(), self.start(row)))
    }

    fn start(&self, row: usize) -> u64 {
        self.piece.payload_start.saturating_add(self.starts.get(row).copied().unwrap_or(0))
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
