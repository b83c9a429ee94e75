//! Link tables: which paths are names of one inode.
//!
//! Spec: archive.md section 7.3.

use crate::entry::validate_name;
use crate::error::{Error, Result};
use crate::limits;
use crate::section::{self, Divided, Ints, SectionBuilder};

use super::{Below, body_digest, parse_parts};

/// One path of a hard-linked inode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkRow {
    /// The path.
    pub path: Box<[u8]>,
    /// The least path of the group; empty if that is this one.
    pub first: Box<[u8]>,
    /// Paths in the group.
    pub count: u64,
}

/// Appends a link table that starts at `position`, and says how its referrer sees it.
pub fn encode_link_table(rows: &[LinkRow], position: u64, out: &mut Vec<u8>) -> Result<Below> {
    let paths = rows.iter().map(|row| &row.path[..]);
    let firsts = rows.iter().map(|row| &row.first[..]);
    let counts: Vec<u64> = rows.iter().map(|row| row.count).collect();
    let start = out.len();
    let body_length = SectionBuilder::new(section::LINK_BODY, rows.len())
        .divided(section::LINK_NAME_END, section::LINK_NAMES, paths)
        .divided(section::LINK_FIRST_END, section::LINK_FIRSTS, firsts)
        .ints(section::LINK_COUNT, &counts)
        .finish(out)?;
    let tail_length = SectionBuilder::new(section::LINK_TAIL, rows.len()).finish(out)?;
    let bytes = out.get(start..).unwrap_or(&[]);
    LinkTable::parse(bytes)?;
    Ok(Below {
        position,
        length: (body_length + tail_length) as u64,
        digest: body_digest(bytes.get(..body_length).unwrap_or(&[])),
        payload_length: 0,
        entries: rows.len() as u64,
    })
}

/// A link table where it lies.
#[derive(Clone, Copy, Debug)]
pub struct LinkTable<'a> {
    body_bytes: &'a [u8],
    rows: usize,
    paths: Divided<'a>,
    firsts: Divided<'a>,
    count: Ints<'a>,
}

impl<'a> LinkTable<'a> {
    /// Checks the table that fills `bytes`. Spec: A-7.3-1, A-4-4.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let table = Self::read(bytes, false)?;
        table.validate()?;
        Ok(table)
    }

    /// The same bytes again, after [`LinkTable::parse`] found them right.
    pub fn view(bytes: &'a [u8]) -> Result<Self> {
        Self::read(bytes, true)
    }

    fn read(bytes: &'a [u8], is_checked: bool) -> Result<Self> {
        let (body, tail) = parse_parts(bytes, section::LINK_BODY, section::LINK_TAIL, is_checked)?;
        if tail.has_columns() {
            return Err(Error::corrupt("the tail of a link table holds something"));
        }
        let rows = body.rows();
        Ok(Self {
            body_bytes: body.as_bytes(),
            rows,
            paths: body.divided(section::LINK_NAME_END, section::LINK_NAMES, rows)?,
            firsts: body.divided(section::LINK_FIRST_END, section::LINK_FIRSTS, rows)?,
            count: body.ints(section::LINK_COUNT, rows)?,
        })
    }

    fn validate(&self) -> Result<()> {
        for row in 0..self.rows {
            let path = self.path(row);
            validate_path(path)?;
            if row > 0 && self.path(row - 1) >= path {
                return Err(Error::corrupt("paths of a link table do not ascend"));
            }
            if !self.first(row).is_empty() {
                validate_path(self.first(row))?;
                if self.first(row) >= path {
                    return Err(Error::corrupt("the first path of a group of links is not its least"));
                }
            }
            if self.count(row) < 2 {
                return Err(Error::corrupt("a group of links has fewer than two paths"));
            }
        }
        Ok(())
    }

    /// Number of paths.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The path of `row`.
    pub fn path(&self, row: usize) -> &'a [u8] {
        self.paths.get(row)
    }

    /// The least path of its group; empty if that is the row's own.
    pub fn first(&self, row: usize) -> &'a [u8] {
        self.firsts.get(row)
    }

    /// Paths in its group.
    pub fn count(&self, row: usize) -> u64 {
        self.count.get(row)
    }

    /// The row of `path`.
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.paths.search(path)
    }

    /// The bytes of the body: what its digest covers.
    pub fn body_bytes(&self) -> &'a [u8] {
        self.body_bytes
    }
}

/// Checks a path: names joined by `/`. Spec: A-4-4.
pub fn validate_path(path: &[u8]) -> Result<()> {
    if path.len() > limits::PATH_LENGTH_MAX {
        return Err(Error::limit("path length", path.len() as u64, limits::PATH_LENGTH_MAX as u64));
    }
    let mut depth = 0u64;
    for name in path.split(|byte| *byte == b'/') {
        validate_name(name)?;
        depth += 1;
    }
    if depth > limits::DEPTH_MAX as u64 {
        return Err(Error::limit("path depth", depth, limits::DEPTH_MAX as u64));
    }
    Ok(())
}
