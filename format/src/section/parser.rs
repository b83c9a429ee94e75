//! Parsing a section: its frame whole, and each column when it is taken.
//!
//! Spec: archive.md section 6.

use crate::error::{Error, Result};

use super::values::{Digests, Divided, Ends, Ints, SignedInts, read_u16, read_u32};
use super::{
    COLUMNS, COLUMNS_MAX, Column, ColumnKind, DESCRIPTOR_LENGTH, HEADER_LENGTH, IGNORABLE, Tag, int_width,
    pad8, signed_width,
};

/// Reads the tag and the whole length of the section that begins `bytes`, checking nothing else.
pub fn peek(bytes: &[u8]) -> Result<(Tag, u64)> {
    let Some((header, _)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::truncated("a section ends inside its header"));
    };
    let [a, b, c, d, l0, l1, l2, l3] = *header;
    Ok((Tag([a, b, c, d]), u64::from(u32::from_le_bytes([l0, l1, l2, l3]))))
}

#[derive(Clone, Copy, Debug, Default)]
struct Descriptor {
    id: u16,
    width: u16,
    count: u32,
    start: usize,
}

/// A section whose frame has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    bytes: &'a [u8],
    tag: Tag,
    rows: u32,
    descriptors: [Descriptor; 32],
    columns: usize,
    /// Whether values were checked when these bytes were first parsed.
    is_checked: bool,
}

impl<'a> Section<'a> {
    /// Checks the frame of the section that begins `bytes`, which may hold more behind it. Spec: A-6-1 to A-6-12.
    pub fn parse(bytes: &'a [u8], tag: Tag) -> Result<Self> {
        let (found, length) = peek(bytes)?;
        if found != tag {
            return Err(Error::corrupt(format!(
                "section tag is {:?} where {:?} is expected",
                String::from_utf8_lossy(&found.0),
                String::from_utf8_lossy(&tag.0)
            )));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < HEADER_LENGTH || length % 8 != 0 {
            return Err(Error::corrupt(format!("section length {length} is not a multiple of 8 above 8")));
        }
        let Some(bytes) = bytes.get(..length) else {
            return Err(Error::truncated(format!(
                "section is {length} bytes long, and only {} are there",
                bytes.len()
            )));
        };
        let rows = read_u32(bytes, 8);
        let columns = usize::from(read_u16(bytes, 12));
        if read_u16(bytes, 14) != 0 {
            return Err(Error::corrupt("reserved bytes of a section are not zero"));
        }
        if columns > COLUMNS_MAX {
            return Err(Error::limit("columns of a section", columns as u64, COLUMNS_MAX as u64));
        }
        let descriptors = [Descriptor::default(); 32];
        let mut section = Self { bytes, tag, rows, descriptors, columns: 0, is_checked: false };
        section.parse_descriptors(columns)?;
        Ok(section)
    }

    /// The same section, whose columns were taken and checked before: taking them again checks their counts alone.
    #[must_use]
    pub fn checked(mut self) -> Self {
        self.is_checked = true;
        self
    }

    fn parse_descriptors(&mut self, columns: usize) -> Result<()> {
        let mut start = HEADER_LENGTH + DESCRIPTOR_LENGTH * columns;
        if start > self.bytes.len() {
            return Err(Error::corrupt("a section's descriptors reach beyond its end"));
        }
        let mut previous = None;
        for index in 0..columns {
            let at = HEADER_LENGTH + DESCRIPTOR_LENGTH * index;
            let descriptor = Descriptor {
                id: read_u16(self.bytes, at),
                width: read_u16(self.bytes, at + 2),
                count: read_u32(self.bytes, at + 4),
                start,
            };
            if previous.is_some_and(|id| id >= descriptor.id) {
                return Err(Error::corrupt("column ids do not ascend"));
            }
            previous = Some(descriptor.id);
            if descriptor.count == 0 {
                return Err(Error::corrupt("a column has no values"));
            }
            let length = usize::from(descriptor.width)
                .checked_mul(descriptor.count as usize)
                .filter(|length| *length <= self.bytes.len() - start);
            let Some(length) = length else {
                return Err(Error::corrupt("a column reaches beyond the end of its section"));
            };
            self.keep(descriptor)?;
            let end = start + pad8(length);
            match self.bytes.get(start + length..end) {
                Some(padding) if padding.iter().all(|byte| *byte == 0) => {}
                _ => return Err(Error::corrupt("a column's padding is not zero or is cut off")),
            }
            start = end;
        }
        if start != self.bytes.len() {
            return Err(Error::corrupt("a section's columns do not fill its length"));
        }
        Ok(())
    }

    /// Keeps a known column, skips one that may be ignored, refuses any other.
    fn keep(&mut self, descriptor: Descriptor) -> Result<()> {
        let known = COLUMNS.iter().find(|c| c.tag == self.tag && c.id == descriptor.id);
        let Some(column) = known else {
            let is_body = self.tag.0[3] == b'B';
            if descriptor.id >= IGNORABLE && is_body {
                return Err(Error::corrupt("a body holds a column that may be ignored"));
            }
            if descriptor.id >= IGNORABLE {
                return Ok(());
            }
            return Err(Error::unsupported(format!("column {:#x} is not known", descriptor.id)));
        };
        let fits = match column.kind {
            ColumnKind::Bytes => descriptor.width == 1,
            ColumnKind::Digest => descriptor.width == 32,
            _ => matches!(descriptor.width, 1 | 2 | 4 | 8),
        };
        if !fits {
            return Err(Error::corrupt(format!(
                "column {} has a width of {}",
                column.name, descriptor.width
            )));
        }
        let Some(slot) = self.descriptors.get_mut(self.columns) else {
            return Err(Error::corrupt("a section has more columns than there are"));
        };
        *slot = descriptor;
        self.columns += 1;
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Whole length in bytes.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// All bytes of the section: what a digest of it covers.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there is any column that this reader knows.
    pub fn has_columns(&self) -> bool {
        self.columns > 0
    }

    /// How many values a column has; 0 when it is absent.
    pub fn count(&self, column: Column) -> usize {
        self.find(column).map_or(0, |d| d.count as usize)
    }

    fn find(&self, column: Column) -> Option<&Descriptor> {
        debug_assert_eq!(column.tag, self.tag);
        self.descriptors.iter().take(self.columns).find(|d| d.id == column.id)
    }

    /// Where the values of a column lie in the section's bytes; nowhere if it is absent.
    pub fn place(&self, column: Column) -> std::ops::Range<usize> {
        let length = |found: &Descriptor| usize::from(found.width) * found.count as usize;
        self.find(column).map_or(0..0, |found| found.start..found.start + length(found))
    }

    fn data(&self, column: Column, count: usize) -> Result<Option<(&'a [u8], u16)>> {
        let Some(found) = self.find(column) else { return Ok(None) };
        if found.count as usize != count {
            return Err(Error::corrupt(format!(
                "column {} has {} values where {count} are expected",
                column.name, found.count
            )));
        }
        let length = usize::from(found.width) * count;
        let data = self.bytes.get(found.start..found.start + length);
        data.map(|data| Some((data, found.width))).ok_or_else(|| Error::corrupt("a column is cut off"))
    }

    /// A column of `count` integers; zeros where it is absent. Checks width and that it is not needlessly there.
    pub fn ints(&self, column: Column, count: usize) -> Result<Ints<'a>> {
        let Some((data, width)) = self.data(column, count)? else {
            return Ok(Ints { data: &[], width: 0, count });
        };
        let ints = Ints { data, width, count };
        if self.is_checked {
            return Ok(ints);
        }
        if width != int_width(ints.iter().fold(0, |all, value| all | value)) {
            return Err(Error::corrupt(format!("column {} is wider than its values need", column.name)));
        }
        Ok(ints)
    }

    /// A column of `count` signed integers, likewise.
    pub fn signed(&self, column: Column, count: usize) -> Result<SignedInts<'a>> {
        let Some((data, width)) = self.data(column, count)? else {
            return Ok(SignedInts(Ints { data: &[], width: 0, count }));
        };
        let ints = SignedInts(Ints { data, width, count });
        if self.is_checked {
            return Ok(ints);
        }
        let needs = (0..count).map(|index| signed_width(ints.get(index))).max().unwrap_or(0);
        if needs != width {
            return Err(Error::corrupt(format!("column {} is wider than its values need", column.name)));
        }
        Ok(ints)
    }

    /// A column that divides another into `count` parts, checked to never descend and to end at `total`.
    pub fn ends(&self, column: Column, count: usize, total: usize) -> Result<Ends<'a>> {
        let ends = Ends(self.ints(column, count)?);
        if self.is_checked {
            return Ok(ends);
        }
        let mut previous = 0;
        for index in 0..count {
            let end = ends.0.get(index);
            if end < previous {
                return Err(Error::corrupt(format!("column {} descends", column.name)));
            }
            previous = end;
        }
        if previous != total as u64 {
            return Err(Error::corrupt(format!(
                "column {} does not end where what it divides ends",
                column.name
            )));
        }
        Ok(ends)
    }

    /// `count` strings of bytes: a column of their ends, and the column that those divide.
    pub fn divided(&self, ends: Column, bytes: Column, count: usize) -> Result<Divided<'a>> {
        let bytes = self.bytes(bytes)?;
        Ok(Divided { ends: self.ends(ends, count, bytes.len())?, bytes })
    }

    /// All bytes of a column of bytes.
    pub fn bytes(&self, column: Column) -> Result<&'a [u8]> {
        let count = self.count(column);
        Ok(self.data(column, count)?.map_or(&[][..], |(data, _)| data))
    }

    /// A column of `count` digests; it is there whenever `count` is not 0.
    pub fn digests(&self, column: Column, count: usize) -> Result<Digests<'a>> {
        match self.data(column, count)? {
            Some((data, _)) => Ok(Digests(data)),
            None if count == 0 => Ok(Digests(&[])),
            None => Err(Error::corrupt(format!("column {} is absent", column.name))),
        }
    }
}
