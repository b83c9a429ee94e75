//! Index tables: the pieces of a large directory, or of the link table.
//!
//! Spec: archive.md section 7.2.

use crate::digest::Digest;
use crate::entry::validate_name;
use crate::error::{Error, Result};
use crate::limits;
use crate::section::{self, Digests, Divided, Ints, SectionBuilder};

use super::{Below, Reference, References, add_references, body_digest, parse_parts};

/// A piece: its first name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// First name (or path, in the link table).
    pub first_name: Box<[u8]>,
    /// The piece.
    pub below: Below,
}

/// Appends an index table that starts at `position`, and says how its referrer sees it.
pub fn encode_index_table(rows: &[IndexRow], level: u64, position: u64, out: &mut Vec<u8>) -> Result<Below> {
    let names = rows.iter().map(|row| &row.first_name[..]);
    let digests: Vec<Digest> = rows.iter().map(|row| row.below.digest).collect();
    let start = out.len();
    let body_length = SectionBuilder::new(section::INDEX_BODY, rows.len())
        .divided(section::INDEX_NAME_END, section::INDEX_NAMES, names)
        .digests(section::INDEX_DIGEST, &digests)
        .ints(section::INDEX_LEVEL, &[level])
        .finish(out)?;
    let column =
        |value: fn(&Below) -> u64| -> Vec<u64> { rows.iter().map(|row| value(&row.below)).collect() };
    let references: Vec<Reference> = rows.iter().map(|row| row.below.seen_from(position)).collect();
    let mut tail = SectionBuilder::new(section::INDEX_TAIL, rows.len());
    tail.ints(section::INDEX_PAYLOAD_LENGTH, &column(|below| below.payload_length));
    add_references(&mut tail, section::INDEX_DISTANCE, section::INDEX_LENGTH, &references);
    let tail_length = tail.ints(section::INDEX_ENTRIES, &column(|below| below.entries)).finish(out)?;
    let bytes = out.get(start..).unwrap_or(&[]);
    let table = IndexTable::parse(bytes)?;
    Ok(Below {
        position,
        length: (body_length + tail_length) as u64,
        digest: body_digest(bytes.get(..body_length).unwrap_or(&[])),
        payload_length: table.sum(table.payload_length)?,
        entries: table.sum(table.entries)?,
    })
}

/// An index table where it lies.
#[derive(Clone, Copy, Debug)]
pub struct IndexTable<'a> {
    body_bytes: &'a [u8],
    rows: usize,
    names: Divided<'a>,
    digest: Digests<'a>,
    level: u64,
    payload_length: Ints<'a>,
    references: References<'a>,
    entries: Ints<'a>,
}

impl<'a> IndexTable<'a> {
    /// Checks the table that fills `bytes`. Spec: A-7.2-2, A-7.2-3, A-4-3.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let table = Self::read(bytes, false)?;
        table.validate()?;
        Ok(table)
    }

    /// The same bytes again, after [`IndexTable::parse`] found them right.
    pub fn view(bytes: &'a [u8]) -> Result<Self> {
        Self::read(bytes, true)
    }

    fn read(bytes: &'a [u8], is_checked: bool) -> Result<Self> {
        let (body, tail) = parse_parts(bytes, section::INDEX_BODY, section::INDEX_TAIL, is_checked)?;
        let rows = body.rows();
        Ok(Self {
            body_bytes: body.as_bytes(),
            rows,
            names: body.divided(section::INDEX_NAME_END, section::INDEX_NAMES, rows)?,
            digest: body.digests(section::INDEX_DIGEST, rows)?,
            level: body.ints(section::INDEX_LEVEL, 1)?.get(0),
            payload_length: tail.ints(section::INDEX_PAYLOAD_LENGTH, rows)?,
            references: References::read(&tail, section::INDEX_DISTANCE, section::INDEX_LENGTH, rows)?,
            entries: tail.ints(section::INDEX_ENTRIES, rows)?,
        })
    }

    fn validate(&self) -> Result<()> {
        if self.rows == 0 {
            return Err(Error::corrupt("an index table has no pieces"));
        }
        if self.level == 0 {
            return Err(Error::corrupt("an index table is on level 0"));
        }
        if self.level > limits::INDEX_LEVEL_MAX {
            return Err(Error::limit("level of an index table", self.level, limits::INDEX_LEVEL_MAX));
        }
        for row in 0..self.rows {
            let name = self.first_name(row);
            // In the link table these are paths: each of their names is checked where the rows are.
            for part in name.split(|byte| *byte == b'/') {
                validate_name(part)?;
            }
            if row > 0 && self.first_name(row - 1) >= name {
                return Err(Error::corrupt("first names of pieces do not ascend"));
            }
        }
        self.sum(self.payload_length)?;
        self.sum(self.entries)?;
        Ok(())
    }

    fn sum(&self, column: Ints<'_>) -> Result<u64> {
        let sum = column.iter().try_fold(0u64, |sum, value| sum.checked_add(value));
        sum.ok_or_else(|| Error::corrupt("the sums of an index table do not fit 64 bits"))
    }

    /// Number of pieces.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many levels of tables are below: 1 when the pieces are directory or link tables.
    pub fn level(&self) -> u64 {
        self.level
    }

    /// First name of piece `row`.
    pub fn first_name(&self, row: usize) -> &'a [u8] {
        self.names.get(row)
    }

    /// Digest of the body of piece `row`.
    pub fn digest(&self, row: usize) -> Digest {
        self.digest.get(row)
    }

    /// Where piece `row` stands.
    pub fn reference(&self, row: usize) -> Reference {
        self.references.get(row)
    }

    /// Payload of piece `row`.
    pub fn payload_length(&self, row: usize) -> u64 {
        self.payload_length.get(row)
    }

    /// Entries of piece `row` and below.
    pub fn entries(&self, row: usize) -> u64 {
        self.entries.get(row)
    }

    /// The piece that holds `name`, if any does: the last whose first name is not above it.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.names.search_last(name)
    }

    /// The bytes of the body: what its digest covers.
    pub fn body_bytes(&self) -> &'a [u8] {
        self.body_bytes
    }
}
