//! Tables: the unit of the metadata stream. A body says what a directory is, a tail says where things are.
//!
//! Writing takes values and appends bytes; the position of the first byte is given, so that references can be
//! told as distances back. Reading checks a table whole once ([`DirectoryTable::parse`]) and can then look at the
//! same bytes again for next to nothing ([`DirectoryTable::view`]).
//!
//! Spec: archive.md section 7.

mod directory;
mod index;
mod link;
mod small;

pub use directory::{DirectoryRow, DirectoryTable, encode_directory_table};
pub use index::{IndexRow, IndexTable, encode_index_table};
pub use link::{LinkRow, LinkTable, encode_link_table};
pub use small::{
    Owners, decode_holes, decode_owners, decode_values, encode_holes, encode_owners, encode_values,
};

use crate::digest::{CONTEXT_BODY, Digest};
use crate::error::{Error, Result, Stream};
use crate::limits;
use crate::section::{self, Column, Ints, Section, SectionBuilder, Tag};
use crate::stream::HEADER_LENGTH;

/// A table as its referrer sees it: how far back it starts, and how long it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// From the start of the referring table back to the start of this one.
    pub distance: u64,
    /// Body and tail.
    pub length: u64,
}

impl Reference {
    /// Where the table stands, seen from a referrer at `from`; refuses what leads forward or out. Spec: A-7-4.
    pub fn resolve(self, from: u64) -> Result<u64> {
        if self.length > limits::TABLE_LENGTH_MAX {
            let error = Error::limit("table length", self.length, limits::TABLE_LENGTH_MAX);
            return Err(error.at(Stream::Metadata, from));
        }
        let room = from.saturating_sub(HEADER_LENGTH as u64);
        if self.distance < self.length || self.distance > room || self.length < 16 {
            return Err(Error::corrupt(format!(
                "a reference {} back, {} long, leads out of the stream or forward",
                self.distance, self.length
            ))
            .at(Stream::Metadata, from));
        }
        Ok(from - self.distance)
    }
}

/// What stands below a row: the top table of a directory, or a piece, with its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// Where the table starts in the metadata stream.
    pub position: u64,
    /// Its length, body and tail.
    pub length: u64,
    /// Digest of its body.
    pub digest: Digest,
    /// Payload of everything below.
    pub payload_length: u64,
    /// Entries below, at any depth.
    pub entries: u64,
}

impl Below {
    fn seen_from(&self, position: u64) -> Reference {
        Reference { distance: position.saturating_sub(self.position), length: self.length }
    }
}

/// Digest of a body. Spec: A-3.2-1.
pub fn body_digest(body: &[u8]) -> Digest {
    Digest::in_context(CONTEXT_BODY, body)
}

/// The kinds of table that a reference to names can lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Rows of a directory.
    Directory,
    /// Rows that are pieces.
    Index,
    /// Rows of the link table.
    Link,
}

/// What kind of table begins `bytes`.
pub fn kind_of(bytes: &[u8]) -> Result<TableKind> {
    match section::peek(bytes)?.0 {
        section::DIRECTORY_BODY => Ok(TableKind::Directory),
        section::INDEX_BODY => Ok(TableKind::Index),
        section::LINK_BODY => Ok(TableKind::Link),
        Tag(other) => {
            Err(Error::corrupt(format!("{:?} begins no table of names", String::from_utf8_lossy(&other))))
        }
    }
}

/// Parses body and tail of one table, which fill `bytes`; with `is_checked` they were found right before. Spec: A-7-1
/// to A-7-3.
fn parse_parts(bytes: &[u8], body: Tag, tail: Tag, is_checked: bool) -> Result<(Section<'_>, Section<'_>)> {
    if bytes.len() as u64 > limits::TABLE_LENGTH_MAX {
        return Err(Error::limit("table length", bytes.len() as u64, limits::TABLE_LENGTH_MAX));
    }
    let body = Section::parse(bytes, body)?;
    let rest = bytes.get(body.length()..).unwrap_or(&[]);
    let tail = Section::parse(rest, tail)?;
    if body.rows() != tail.rows() {
        return Err(Error::corrupt("body and tail of a table have different rows"));
    }
    if body.length() + tail.length() != bytes.len() {
        return Err(Error::corrupt("a table is shorter than the reference to it says"));
    }
    if body.rows() > limits::PIECE_ROWS_MAX {
        return Err(Error::limit("rows of a table", body.rows() as u64, limits::PIECE_ROWS_MAX as u64));
    }
    Ok(if is_checked { (body.checked(), tail.checked()) } else { (body, tail) })
}

/// References where they lie.
#[derive(Clone, Copy, Debug)]
struct References<'a> {
    distance: Ints<'a>,
    length: Ints<'a>,
}

impl<'a> References<'a> {
    fn read(tail: &Section<'a>, distance: Column, length: Column, count: usize) -> Result<Self> {
        Ok(Self { distance: tail.ints(distance, count)?, length: tail.ints(length, count)? })
    }

    fn get(&self, index: usize) -> Reference {
        Reference { distance: self.distance.get(index), length: self.length.get(index) }
    }

    fn len(&self) -> usize {
        self.distance.len()
    }
}

/// Adds references to a tail.
fn add_references<'t>(
    tail: &'t mut SectionBuilder,
    distance: Column,
    length: Column,
    references: &[Reference],
) -> &'t mut SectionBuilder {
    let column = |value: fn(&Reference) -> u64| -> Vec<u64> { references.iter().map(value).collect() };
    tail.ints(distance, &column(|reference| reference.distance))
        .ints(length, &column(|reference| reference.length))
}
