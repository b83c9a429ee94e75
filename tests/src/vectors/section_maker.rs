//! Sections column by column, right unless told otherwise: every field can be set to what it must not be.

use diptych_format::Digest;
use diptych_format::section::{Column, Tag};

/// A column as it will stand.
#[derive(Clone)]
pub struct ColumnMaker {
    /// Id in the descriptor.
    pub id: u16,
    /// Width in the descriptor.
    pub width: u16,
    /// Count in the descriptor.
    pub count: u32,
    /// The values.
    pub data: Vec<u8>,
    /// What the padding is made of.
    pub padding: u8,
}

/// A section as it will stand.
#[derive(Clone)]
pub struct SectionMaker {
    /// Its tag.
    pub tag: [u8; 4],
    /// Its rows.
    pub rows: u32,
    /// The reserved field.
    pub reserved: u16,
    /// What is added to the right length in the header.
    pub length_off: i64,
    /// Its columns, in the order in which they will stand.
    pub columns: Vec<ColumnMaker>,
    /// Bytes behind the last column that the length counts.
    pub rest: Vec<u8>,
}

fn least_width(all: u64) -> u16 {
    match all {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn least_signed_width(value: i64) -> u16 {
    match value {
        -0x80..=0x7f => 1,
        -0x8000..=0x7fff => 2,
        -0x8000_0000..=0x7fff_ffff => 4,
        _ => 8,
    }
}

impl SectionMaker {
    /// A section without columns.
    pub fn new(tag: Tag, rows: usize) -> Self {
        let (reserved, length_off) = (0, 0);
        Self { tag: tag.0, rows: rows as u32, reserved, length_off, columns: Vec::new(), rest: Vec::new() }
    }

    /// Puts a column of any width there, whatever its values are.
    pub fn ints_of_width(&mut self, column: Column, width: u16, values: &[u64]) -> &mut Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(width.into()));
        self.put(column.id, width, values.len(), bytes.collect())
    }

    /// Puts integers there in their least width, or leaves them out if all are zero.
    pub fn ints(&mut self, column: Column, values: &[u64]) -> &mut Self {
        match values.iter().fold(0, |all, value| all | value) {
            0 => self.remove(column),
            all => self.ints_of_width(column, least_width(all), values),
        }
    }

    /// Puts signed integers there, likewise.
    pub fn signed(&mut self, column: Column, values: &[i64]) -> &mut Self {
        if values.iter().all(|value| *value == 0) {
            return self.remove(column);
        }
        let width = values.iter().map(|value| least_signed_width(*value)).max().unwrap();
        let values: Vec<u64> = values.iter().map(|value| value.cast_unsigned()).collect();
        self.ints_of_width(column, width, &values)
    }

    /// Puts bytes there, if there are any.
    pub fn bytes(&mut self, column: Column, bytes: &[u8]) -> &mut Self {
        if bytes.is_empty() {
            return self.remove(column);
        }
        self.put(column.id, 1, bytes.len(), bytes.to_vec())
    }

    /// Puts parts there: a column of bytes and the one of ends that divides it.
    pub fn parts<T: AsRef<[u8]>>(&mut self, ends: Column, bytes: Column, parts: &[T]) -> &mut Self {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.as_ref().iter().copied()).collect();
        let sum = |sum: &mut u64, part: &T| {
            *sum += part.as_ref().len() as u64;
            Some(*sum)
        };
        let found: Vec<u64> = parts.iter().scan(0, sum).collect();
        self.ints(ends, &found).bytes(bytes, &whole)
    }

    /// Puts digests there, if there are any.
    pub fn digests(&mut self, column: Column, digests: &[Digest]) -> &mut Self {
        if digests.is_empty() {
            return self.remove(column);
        }
        let bytes = digests.iter().flat_map(|digest| digest.0).collect();
        self.put(column.id, 32, digests.len(), bytes)
    }

    /// Puts a column there in the order of ids; one of the same id goes.
    pub fn put(&mut self, id: u16, width: u16, count: usize, data: Vec<u8>) -> &mut Self {
        self.columns.retain(|column| column.id != id);
        let place = self.columns.partition_point(|column| column.id < id);
        self.columns.insert(place, ColumnMaker { id, width, count: count as u32, data, padding: 0 });
        self
    }

    /// Takes a column away.
    pub fn remove(&mut self, column: Column) -> &mut Self {
        self.columns.retain(|found| found.id != column.id);
        self
    }

    /// A column, to be spoiled.
    pub fn column(&mut self, column: Column) -> &mut ColumnMaker {
        self.columns.iter_mut().find(|found| found.id == column.id).expect(column.name)
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let padded = |column: &ColumnMaker| {
            let mut data = column.data.clone();
            data.resize(data.len().next_multiple_of(8), column.padding);
            data
        };
        let columns: Vec<u8> = self.columns.iter().flat_map(padded).collect();
        let length = 16 + 8 * self.columns.len() + columns.len() + self.rest.len();
        let length = (length as i64 + self.length_off) as u32;
        let mut out = self.tag.to_vec();
        out.extend(length.to_le_bytes());
        out.extend(self.rows.to_le_bytes());
        out.extend((self.columns.len() as u16).to_le_bytes());
        out.extend(self.reserved.to_le_bytes());
        for column in &self.columns {
            out.extend(column.id.to_le_bytes());
            out.extend(column.width.to_le_bytes());
            out.extend(column.count.to_le_bytes());
        }
        out.extend(columns);
        out.extend(&self.rest);
        out
    }
}
