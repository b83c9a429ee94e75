//! Building a section, with every column in the one form that a reader takes.
//!
//! Spec: archive.md section 6.

use crate::digest::Digest;
use crate::error::{Error, Result};

use super::{Column, HEADER_LENGTH, Tag, int_width, pad8, signed_width};

/// Builds a section column by column, in ascending order of ids.
pub struct SectionBuilder {
    tag: Tag,
    rows: u32,
    descriptors: Vec<u8>,
    columns: Vec<u8>,
    count: u16,
}

impl SectionBuilder {
    /// Starts a section of `rows` rows.
    pub fn new(tag: Tag, rows: usize) -> Self {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        Self { tag, rows, descriptors: Vec::new(), columns: Vec::new(), count: 0 }
    }

    /// Adds integers in the least width that holds them; leaves the column out when all are zero.
    pub fn ints(&mut self, column: Column, values: &[u64]) -> &mut Self {
        let width = int_width(values.iter().fold(0, |all, value| all | value));
        self.push_ints(column, width, values.iter().copied())
    }

    /// Adds signed integers likewise.
    pub fn signed(&mut self, column: Column, values: &[i64]) -> &mut Self {
        let width = values.iter().map(|value| signed_width(*value)).max().unwrap_or(0);
        self.push_ints(column, width, values.iter().map(|value| value.cast_unsigned()))
    }

    /// Adds bytes; leaves the column out when there are none.
    pub fn bytes(&mut self, column: Column, bytes: &[u8]) -> &mut Self {
        if !bytes.is_empty() {
            self.describe(column, 1, bytes.len());
            self.columns.extend_from_slice(bytes);
            self.pad();
        }
        self
    }

    /// Adds strings of bytes as two columns: where each ends, and all of them.
    pub fn divided<'s>(
        &mut self,
        ends: Column,
        bytes: Column,
        strings: impl Iterator<Item = &'s [u8]>,
    ) -> &mut Self {
        let (mut string_ends, mut all) = (Vec::new(), Vec::new());
        for string in strings {
            all.extend_from_slice(string);
            string_ends.push(all.len() as u64);
        }
        self.ints(ends, &string_ends).bytes(bytes, &all)
    }

    /// Adds digests; leaves the column out when there are none.
    pub fn digests(&mut self, column: Column, digests: &[Digest]) -> &mut Self {
        if !digests.is_empty() {
            self.describe(column, 32, digests.len());
            digests.iter().for_each(|digest| self.columns.extend_from_slice(&digest.0));
            self.pad();
        }
        self
    }

    /// Appends the section to `out` and says how many bytes it took.
    pub fn finish(&self, out: &mut Vec<u8>) -> Result<usize> {
        let length = HEADER_LENGTH + self.descriptors.len() + self.columns.len();
        let length_field = u32::try_from(length)
            .map_err(|_| Error::limit("section length", length as u64, u64::from(u32::MAX)))?;
        out.reserve(length);
        out.extend_from_slice(&self.tag.0);
        out.extend_from_slice(&length_field.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.descriptors);
        out.extend_from_slice(&self.columns);
        Ok(length)
    }

    fn describe(&mut self, column: Column, width: u16, count: usize) {
        debug_assert_eq!(column.tag, self.tag);
        self.descriptors.extend_from_slice(&column.id.to_le_bytes());
        self.descriptors.extend_from_slice(&width.to_le_bytes());
        // A count beyond u32 makes the section longer than its length field can say: `finish` refuses it.
        self.descriptors.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        self.count += 1;
    }

    fn push_ints(
        &mut self,
        column: Column,
        width: u16,
        values: impl ExactSizeIterator<Item = u64>,
    ) -> &mut Self {
        if width == 0 {
            return self;
        }
        self.describe(column, width, values.len());
        let values = values.map(u64::to_le_bytes);
        match width {
            1 => self.columns.extend(values.map(|[first, ..]| first)),
            2 => values.for_each(|v| self.columns.extend_from_slice(v.split_at(2).0)),
            4 => values.for_each(|v| self.columns.extend_from_slice(v.split_at(4).0)),
            _ => values.for_each(|v| self.columns.extend_from_slice(&v)),
        }
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.columns.resize(pad8(self.columns.len()), 0);
    }
}
