//! The pieces of one directory, or of the link table, in order: through whatever index tables stand above them.
//!
//! Spec: archive.md section 7.2.

use diptych_format::error::{Error, Result, Stream};
use diptych_format::stream::HEADER_LENGTH;
use diptych_format::table::{Below, DirectoryTable, IndexTable, LinkTable, TableKind, body_digest, kind_of};

use crate::source::{Source, moved};

/// What those who look on while tables are read are told.
pub(crate) trait Watch {
    /// An index table was read and found right.
    fn index(&mut self, _: &Piece, _: &IndexTable<'_>) {}

    /// A directory table was read and found right.
    fn directory(&mut self, _: &Piece, _: &DirectoryTable<'_>) {}

    /// A link table was read and found right.
    fn links(&mut self, _: &Piece, _: &LinkTable<'_>) {}

    /// A table that was read, and all below it, has been dealt with.
    fn passed(&mut self, _: &Piece) {}

    /// A table was passed over, with all below it.
    fn skipped(&mut self, _: &Below) {}

    /// Time to tell what was found amiss, in the directory at `path`.
    fn settle(&mut self, _path: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Nobody looks on.
impl Watch for () {}

/// How far into the stream the reader has been. Tables stand in post-order, so that whatever is read next stands
/// behind whatever was left last: no table is gone through twice, and no archive takes longer than its length
/// allows. Spec: sections 2 and 8.2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor(u64);

impl Default for Floor {
    fn default() -> Self {
        Self(HEADER_LENGTH as u64)
    }
}

impl Floor {
    /// Refuses a table before one that was left already.
    fn admit(self, below: &Below) -> Result<()> {
        if below.position < self.0 {
            let error =
                Error::corrupt("a table stands before one that comes earlier: it is shared or out of order");
            return Err(error.at(Stream::Metadata, below.position));
        }
        Ok(())
    }

    /// A table and all below it were left.
    pub(crate) fn pass(&mut self, below: &Below) {
        self.0 = self.0.max(below.position.saturating_add(below.length));
    }
}

/// A table of names as its referrer tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) below: Below,
    /// Where its payload starts in the payload stream.
    pub(crate) payload_start: u64,
    /// Its level; any for a top table.
    pub(crate) level: Option<u64>,
    /// Its first name; any for a top table.
    pub(crate) first: Option<Box<[u8]>>,
    /// The name that it ends before, if one follows.
    before: Option<Box<[u8]>>,
}

impl Piece {
    /// The top table of a directory.
    pub(crate) fn top(below: Below, payload_start: u64) -> Self {
        Self { below, payload_start, level: None, first: None, before: None }
    }

    /// Bytes of memory that its names take.
    pub(crate) fn names_length(&self) -> usize {
        [&self.first, &self.before].into_iter().flatten().map(|name| name.len()).sum()
    }

    /// Piece `row` of an index table.
    pub(crate) fn of_index(&self, table: &IndexTable<'_>, row: usize, payload_start: u64) -> Result<Self> {
        let reference = table.reference(row);
        let position = reference.resolve(self.below.position)?;
        let before = match row + 1 < table.rows() {
            true => Some(table.first_name(row + 1).into()),
            false => self.before.clone(),
        };
        let below = Below {
            position,
            length: reference.length,
            digest: table.digest(row),
            payload_length: table.payload_length(row),
            entries: table.entries(row),
        };
        let level = Some(table.level().saturating_sub(1));
        Ok(Self { below, payload_start, level, first: Some(table.first_name(row).into()), before })
    }

    /// Checks that `bytes` are the index table that the referrer told of. Spec: A-7.2-4 to A-7.2-7, A-14-1.
    pub(crate) fn check_index<'a>(&self, bytes: &'a [u8]) -> Result<IndexTable<'a>> {
        let check = || {
            let table = IndexTable::parse(bytes)?;
            self.check_body(table.body_bytes())?;
            if self.level.is_none() && table.rows() < 2 {
                return Err(Error::corrupt("an index table stands above a single piece"));
            }
            if self.level.is_some_and(|level| level != table.level()) {
                return Err(Error::corrupt("an index table is on another level than the one above it says"));
            }
            self.check_names(table.rows(), |row| table.first_name(row))?;
            let rows = 0..table.rows();
            let payload_length =
                rows.clone().map(|row| table.payload_length(row)).fold(0, u64::saturating_add);
            let entries = rows.map(|row| table.entries(row)).fold(0, u64::saturating_add);
            self.check_sums(payload_length, entries)?;
            Ok(table)
        };
        check().map_err(moved(self.below.position))
    }

    /// Checks that `bytes` are the directory table that the referrer told of.
    pub(crate) fn check_directory<'a>(&self, bytes: &'a [u8]) -> Result<DirectoryTable<'a>> {
        let check = || {
            let table = DirectoryTable::parse(bytes)?;
            self.check_leaf(table.body_bytes(), table.rows(), |row| table.name(row))?;
            if table.rows() == 1 && table.name(0).is_empty() {
                return Err(Error::corrupt("a name is empty that is not the root's"));
            }
            self.check_sums(table.payload_total(), table.entries_total())?;
            Ok(table)
        };
        check().map_err(moved(self.below.position))
    }

    /// Checks that `bytes` are the link table that the referrer told of.
    pub(crate) fn check_links<'a>(&self, bytes: &'a [u8]) -> Result<LinkTable<'a>> {
        let check = || {
            let table = LinkTable::parse(bytes)?;
            self.check_leaf(table.body_bytes(), table.rows(), |row| table.path(row))?;
            self.check_sums(0, table.rows() as u64)?;
            Ok(table)
        };
        check().map_err(moved(self.below.position))
    }

    /// Whether `name` belongs here, if it is in the directory at all.
    pub(crate) fn covers(&self, name: &[u8]) -> bool {
        self.first.as_deref().is_none_or(|first| first <= name)
            && self.before.as_deref().is_none_or(|before| name < before)
    }

    fn check_body(&self, body: &[u8]) -> Result<()> {
        if body_digest(body) != self.below.digest {
            return Err(Error::corrupt("a table has another digest than the row that leads to it says"));
        }
        Ok(())
    }

    /// What holds of every table that is no index table.
    fn check_leaf<'a>(&self, body: &[u8], rows: usize, name: impl Fn(usize) -> &'a [u8]) -> Result<()> {
        self.check_body(body)?;
        if self.level.is_some_and(|level| level != 0) {
            return Err(Error::corrupt("a table of names stands where an index table should"));
        }
        self.check_names(rows, name)
    }

    fn check_names<'a>(&self, rows: usize, name: impl Fn(usize) -> &'a [u8]) -> Result<()> {
        if let Some(first) = &self.first
            && (rows == 0 || name(0) != &first[..])
        {
            return Err(Error::corrupt("a piece begins with another name than its index says"));
        }
        if let (Some(before), Some(last)) = (&self.before, rows.checked_sub(1))
            && name(last) >= &before[..]
        {
            return Err(Error::corrupt("a piece reaches into the next one"));
        }
        Ok(())
    }

    fn check_sums(&self, payload_length: u64, entries: u64) -> Result<()> {
        if payload_length != self.below.payload_length || entries != self.below.entries {
            return Err(Error::corrupt("a table has other sums than the row that leads to it says"));
        }
        Ok(())
    }
}

struct OpenIndex {
    bytes: Vec<u8>,
    piece: Piece,
    next: usize,
    next_payload: u64,
}

/// Goes through the pieces under one top table. After an error the next call goes on behind what was at fault.
pub(crate) struct Pieces {
    next: Option<Piece>,
    open: Vec<OpenIndex>,
}

impl Pieces {
    pub(crate) fn new(top: Piece) -> Self {
        Self { next: Some(top), open: Vec::new() }
    }

    /// The table that is read next: an index table, or a piece.
    pub(crate) fn peek(
        &mut self,
        source: &Source,
        floor: &mut Floor,
        watch: &mut impl Watch,
    ) -> Result<Option<&Piece>> {
        while self.next.is_none() {
            let Some(index) = self.open.last_mut() else { return Ok(None) };
            if index.bytes.is_empty() {
                source.read_table(index.piece.below.position, index.piece.below.length, &mut index.bytes)?;
                index.piece.check_index(&index.bytes)?;
            }
            let table = IndexTable::view(&index.bytes)?;
            let row = index.next;
            if row < table.rows() {
                let payload_start = index.next_payload;
                index.next += 1;
                index.next_payload = payload_start.saturating_add(table.payload_length(row));
                self.next = Some(index.piece.of_index(&table, row, payload_start)?);
            } else if let Some(index) = self.open.pop() {
                floor.pass(&index.piece.below);
                watch.passed(&index.piece);
            }
        }
        Ok(self.next.as_ref())
    }

    /// Passes over the table that would be read next.
    pub(crate) fn skip(&mut self, floor: &mut Floor, watch: &mut impl Watch) {
        if let Some(piece) = self.next.take() {
            floor.pass(&piece.below);
            watch.skipped(&piece.below);
        }
    }

    /// Reads the next table; gives it if it is a piece, and keeps it if it is an index table.
    pub(crate) fn descend(
        &mut self,
        source: &Source,
        floor: &mut Floor,
        watch: &mut impl Watch,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Piece>> {
        let Some(piece) = self.next.take() else { return Ok(None) };
        let result = Self::read(&piece, source, *floor, buffer);
        let is_index = result.map(|kind| kind == TableKind::Index).and_then(|is_index| {
            if is_index {
                let table = piece.check_index(buffer)?;
                hint_pieces(source, &piece, &table);
                watch.index(&piece, &table);
            }
            Ok(is_index)
        });
        match is_index {
            Ok(true) => {
                let next_payload = piece.payload_start;
                self.open.push(OpenIndex { bytes: std::mem::take(buffer), piece, next: 0, next_payload });
                Ok(None)
            }
            Ok(false) => Ok(Some(piece)),
            Err(error) => {
                floor.pass(&piece.below);
                watch.skipped(&piece.below);
                Err(error)
            }
        }
    }

    /// The next piece, whose bytes fill `buffer`; they are not yet checked.
    pub(crate) fn next_piece(
        &mut self,
        source: &Source,
        floor: &mut Floor,
        watch: &mut impl Watch,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Piece>> {
        while self.peek(source, floor, watch)?.is_some() {
            if let Some(piece) = self.descend(source, floor, watch, buffer)? {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Bytes of tables that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.open.iter().map(|index| index.bytes.len()).sum()
    }

    /// Lets go of what is kept: it is read again when it is needed.
    pub(crate) fn let_go(&mut self) {
        self.open.iter_mut().for_each(|index| index.bytes = Vec::new());
    }

    fn read(piece: &Piece, source: &Source, floor: Floor, buffer: &mut Vec<u8>) -> Result<TableKind> {
        floor.admit(&piece.below)?;
        source.read_table(piece.below.position, piece.below.length, buffer)?;
        kind_of(buffer).map_err(moved(piece.below.position))
    }
}

/// The ranges of tables, for a hint; neighbours are one range.
pub(crate) fn push_range(ranges: &mut Vec<std::ops::Range<u64>>, below: &Below) {
    let end = below.position.saturating_add(below.length);
    match ranges.last_mut() {
        Some(last) if last.end == below.position => last.end = end,
        _ => ranges.push(below.position..end),
    }
}

fn hint_pieces(source: &Source, piece: &Piece, table: &IndexTable<'_>) {
    let mut ranges = Vec::new();
    for row in 0..table.rows() {
        let reference = table.reference(row);
        // One that leads nowhere is refused when it is followed.
        let Ok(position) = reference.resolve(piece.below.position) else { return };
        push_range(&mut ranges, &Below { position, length: reference.length, ..Below::default() });
    }
    source.hint(&ranges);
}
