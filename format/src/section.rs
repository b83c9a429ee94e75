//! Sections: columns of fixed-width values, read where they lie.
//!
//! A section is a header, a descriptor for each column, and the columns. Looking a value up is an index
//! computation; nothing is parsed into other memory. [`Section::parse`] checks the frame (lengths, ids, widths);
//! whoever takes a column states its count, so a column of the wrong length cannot be had.
//!
//! Spec: archive.md section 6.

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Which kind of section: four ASCII letters, its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub [u8; 4]);

/// Body of a directory table.
pub const DIRECTORY_BODY: Tag = Tag(*b"DIRB");
/// Tail of a directory table.
pub const DIRECTORY_TAIL: Tag = Tag(*b"DIRT");
/// Body of an index table.
pub const INDEX_BODY: Tag = Tag(*b"IDXB");
/// Tail of an index table.
pub const INDEX_TAIL: Tag = Tag(*b"IDXT");
/// Body of a link table.
pub const LINK_BODY: Tag = Tag(*b"LNKB");
/// Tail of a link table.
pub const LINK_TAIL: Tag = Tag(*b"LNKT");
/// Hole table.
pub const HOLES: Tag = Tag(*b"HOLE");
/// Value table.
pub const VALUES: Tag = Tag(*b"VALU");
/// Owner table.
pub const OWNERS: Tag = Tag(*b"OWNR");
/// Chunk ids of a segment.
pub const SEGMENT_CHUNKS: Tag = Tag(*b"SEGC");
/// Slices of a segment.
pub const SEGMENT_SLICES: Tag = Tag(*b"SEGS");
/// Directory of a pack.
pub const PACK_DIRECTORY: Tag = Tag(*b"PDIR");

/// All tags, as the specification lists them.
pub const TAGS: [Tag; 12] = [
    DIRECTORY_BODY,
    DIRECTORY_TAIL,
    INDEX_BODY,
    INDEX_TAIL,
    LINK_BODY,
    LINK_TAIL,
    HOLES,
    VALUES,
    OWNERS,
    SEGMENT_CHUNKS,
    SEGMENT_SLICES,
    PACK_DIRECTORY,
];

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Unsigned integers of the least width.
    Int,
    /// Signed integers of the least width.
    Signed,
    /// Integers that never descend and divide another column.
    Ends,
    /// Bytes.
    Bytes,
    /// Digests.
    Digest,
}

impl ColumnKind {
    /// The word in the specification.
    pub fn word(self) -> &'static str {
        match self {
            ColumnKind::Int => "int",
            ColumnKind::Signed => "signed",
            ColumnKind::Ends => "ends",
            ColumnKind::Bytes => "bytes",
            ColumnKind::Digest => "digest",
        }
    }
}

/// A column that a kind of section may have.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The section.
    pub tag: Tag,
    /// The id.
    pub id: u16,
    /// The name in the specification.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
}

/// Ids from here on may be ignored by readers that do not know them.
pub const IGNORABLE: u16 = 0x8000;

macro_rules! columns {
    ($($name:ident = $tag:ident $id:literal $text:literal $kind:ident;)*) => {
        $(
            #[doc = concat!("Column ", $text, " of the section tagged `", stringify!($tag), "`.")]
            pub const $name: Column = Column { tag: $tag, id: $id, name: $text, kind: ColumnKind::$kind };
        )*
        /// All columns, as the specification lists them.
        pub const COLUMNS: &[Column] = &[$($name),*];
    };
}

columns! {
    BODY_NAME_END = DIRECTORY_BODY 0x01 "NAME_END" Ends;
    BODY_NAMES = DIRECTORY_BODY 0x02 "NAMES" Bytes;
    BODY_SET = DIRECTORY_BODY 0x03 "SET" Int;
    BODY_MTIME_SECONDS = DIRECTORY_BODY 0x04 "MTIME_SECONDS" Signed;
    BODY_MTIME_NANOSECONDS = DIRECTORY_BODY 0x05 "MTIME_NANOSECONDS" Int;
    BODY_SIZE = DIRECTORY_BODY 0x06 "SIZE" Int;
    BODY_DIGEST = DIRECTORY_BODY 0x07 "DIGEST" Digest;
    BODY_TARGET_ROW = DIRECTORY_BODY 0x08 "TARGET_ROW" Int;
    BODY_TARGET_END = DIRECTORY_BODY 0x09 "TARGET_END" Ends;
    BODY_TARGETS = DIRECTORY_BODY 0x0a "TARGETS" Bytes;
    BODY_DEVICE_ROW = DIRECTORY_BODY 0x0b "DEVICE_ROW" Int;
    BODY_DEVICE_MAJOR = DIRECTORY_BODY 0x0c "DEVICE_MAJOR" Int;
    BODY_DEVICE_MINOR = DIRECTORY_BODY 0x0d "DEVICE_MINOR" Int;
    BODY_SET_MODE = DIRECTORY_BODY 0x10 "SET_MODE" Int;
    BODY_SET_UID = DIRECTORY_BODY 0x11 "SET_UID" Int;
    BODY_SET_GID = DIRECTORY_BODY 0x12 "SET_GID" Int;
    BODY_SET_FLAGS = DIRECTORY_BODY 0x13 "SET_FLAGS" Int;
    BODY_SET_PROJECT = DIRECTORY_BODY 0x14 "SET_PROJECT" Int;
    BODY_SET_XATTR_END = DIRECTORY_BODY 0x15 "SET_XATTR_END" Ends;
    BODY_XATTR_NAME_END = DIRECTORY_BODY 0x16 "XATTR_NAME_END" Ends;
    BODY_XATTR_NAMES = DIRECTORY_BODY 0x17 "XATTR_NAMES" Bytes;
    BODY_XATTR_VALUE_END = DIRECTORY_BODY 0x18 "XATTR_VALUE_END" Ends;
    BODY_XATTR_VALUES = DIRECTORY_BODY 0x19 "XATTR_VALUES" Bytes;
    BODY_EXTERNAL_SET = DIRECTORY_BODY 0x1a "EXTERNAL_SET" Int;
    BODY_EXTERNAL_DIGEST = DIRECTORY_BODY 0x1b "EXTERNAL_DIGEST" Digest;
    TAIL_PAYLOAD_LENGTH = DIRECTORY_TAIL 0x01 "PAYLOAD_LENGTH" Int;
    TAIL_DISTANCE = DIRECTORY_TAIL 0x02 "DISTANCE" Int;
    TAIL_LENGTH = DIRECTORY_TAIL 0x03 "LENGTH" Int;
    TAIL_ENTRIES = DIRECTORY_TAIL 0x04 "ENTRIES" Int;
    TAIL_HOLE_ROW = DIRECTORY_TAIL 0x05 "HOLE_ROW" Int;
    TAIL_HOLE_DISTANCE = DIRECTORY_TAIL 0x06 "HOLE_DISTANCE" Int;
    TAIL_HOLE_LENGTH = DIRECTORY_TAIL 0x07 "HOLE_LENGTH" Int;
    TAIL_EXTERNAL_DISTANCE = DIRECTORY_TAIL 0x08 "EXTERNAL_DISTANCE" Int;
    TAIL_EXTERNAL_LENGTH = DIRECTORY_TAIL 0x09 "EXTERNAL_LENGTH" Int;
    TAIL_STATUS = DIRECTORY_TAIL 0x0a "STATUS" Int;
    TAIL_CTIME_SECONDS = DIRECTORY_TAIL 0x8001 "CTIME_SECONDS" Signed;
    TAIL_CTIME_NANOSECONDS = DIRECTORY_TAIL 0x8002 "CTIME_NANOSECONDS" Int;
    TAIL_INODE = DIRECTORY_TAIL 0x8003 "INODE" Int;
    INDEX_NAME_END = INDEX_BODY 0x01 "NAME_END" Ends;
    INDEX_NAMES = INDEX_BODY 0x02 "NAMES" Bytes;
    INDEX_DIGEST = INDEX_BODY 0x07 "DIGEST" Digest;
    INDEX_LEVEL = INDEX_BODY 0x0e "LEVEL" Int;
    INDEX_PAYLOAD_LENGTH = INDEX_TAIL 0x01 "PAYLOAD_LENGTH" Int;
    INDEX_DISTANCE = INDEX_TAIL 0x02 "DISTANCE" Int;
    INDEX_LENGTH = INDEX_TAIL 0x03 "LENGTH" Int;
    INDEX_ENTRIES = INDEX_TAIL 0x04 "ENTRIES" Int;
    LINK_NAME_END = LINK_BODY 0x01 "NAME_END" Ends;
    LINK_NAMES = LINK_BODY 0x02 "NAMES" Bytes;
    LINK_FIRST_END = LINK_BODY 0x03 "FIRST_END" Ends;
    LINK_FIRSTS = LINK_BODY 0x04 "FIRSTS" Bytes;
    LINK_COUNT = LINK_BODY 0x05 "COUNT" Int;
    HOLE_START = HOLES 0x01 "START" Int;
    HOLE_LENGTH = HOLES 0x02 "LENGTH" Int;
    VALUE_XATTR_NAME_END = VALUES 0x16 "XATTR_NAME_END" Ends;
    VALUE_XATTR_NAMES = VALUES 0x17 "XATTR_NAMES" Bytes;
    VALUE_XATTR_VALUE_END = VALUES 0x18 "XATTR_VALUE_END" Ends;
    VALUE_XATTR_VALUES = VALUES 0x19 "XATTR_VALUES" Bytes;
    OWNER_UID = OWNERS 0x01 "UID" Int;
    OWNER_USER_END = OWNERS 0x02 "USER_END" Ends;
    OWNER_USERS = OWNERS 0x03 "USERS" Bytes;
    OWNER_GID = OWNERS 0x04 "GID" Int;
    OWNER_GROUP_END = OWNERS 0x05 "GROUP_END" Ends;
    OWNER_GROUPS = OWNERS 0x06 "GROUPS" Bytes;
    OWNER_USER_COUNT = OWNERS 0x07 "USER_COUNT" Int;
    OWNER_GROUP_COUNT = OWNERS 0x08 "GROUP_COUNT" Int;
    SEGMENT_CHUNK_ID = SEGMENT_CHUNKS 0x01 "CHUNK_ID" Digest;
    SLICE_CHUNK = SEGMENT_SLICES 0x01 "CHUNK" Int;
    SLICE_START = SEGMENT_SLICES 0x02 "START" Int;
    SLICE_LENGTH = SEGMENT_SLICES 0x03 "LENGTH" Int;
    SLICE_SLICES = SEGMENT_SLICES 0x04 "SLICES" Int;
    SLICE_LEVEL = SEGMENT_SLICES 0x05 "LEVEL" Int;
    PACK_CHUNK_ID = PACK_DIRECTORY 0x01 "CHUNK_ID" Digest;
    PACK_KIND = PACK_DIRECTORY 0x02 "KIND" Int;
    PACK_STORED_LENGTH = PACK_DIRECTORY 0x03 "STORED_LENGTH" Int;
}

const HEADER_LENGTH: usize = 16;
const DESCRIPTOR_LENGTH: usize = 8;
/// More columns than any section has, ignorable ones of the future counted.
const COLUMNS_MAX: usize = 64;

fn pad8(length: usize) -> usize {
    length.next_multiple_of(8)
}

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
        let all = values.iter().fold(0, |sum, value| sum | value);
        let width = match all {
            0 => return self,
            1..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        self.describe(column, width, values.len());
        self.push_ints(values.iter().copied(), width);
        self
    }

    /// Adds signed integers likewise.
    pub fn signed(&mut self, column: Column, values: &[i64]) -> &mut Self {
        if values.iter().all(|value| *value == 0) {
            return self;
        }
        let fits = |low: i64, high: i64| values.iter().all(|value| (low..=high).contains(value));
        let width = if fits(i8::MIN.into(), i8::MAX.into()) {
            1
        } else if fits(i16::MIN.into(), i16::MAX.into()) {
            2
        } else if fits(i32::MIN.into(), i32::MAX.into()) {
            4
        } else {
            8
        };
        self.describe(column, width, values.len());
        self.push_ints(values.iter().map(|value| value.cast_unsigned()), width);
        self
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

    fn push_ints(&mut self, values: impl Iterator<Item = u64>, width: u16) {
        let values = values.map(u64::to_le_bytes);
        match width {
            1 => self.columns.extend(values.map(|[first, ..]| first)),
            2 => values.for_each(|v| self.columns.extend_from_slice(v.split_at(2).0)),
            4 => values.for_each(|v| self.columns.extend_from_slice(v.split_at(4).0)),
            _ => values.for_each(|v| self.columns.extend_from_slice(&v)),
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.columns.resize(pad8(self.columns.len()), 0);
    }
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

/// Reads the tag and the whole length of the section that begins `bytes`, checking nothing else.
pub fn peek(bytes: &[u8]) -> Result<(Tag, u64)> {
    let Some((header, _)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::truncated("a section ends inside its header"));
    };
    let [a, b, c, d, l0, l1, l2, l3] = *header;
    Ok((Tag([a, b, c, d]), u64::from(u32::from_le_bytes([l0, l1, l2, l3]))))
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
        let all = (0..count).fold(0, |sum, index| sum | ints.get(index));
        let least = match all {
            0 => 0,
            1..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        if width != least {
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

fn signed_width(value: i64) -> u16 {
    if value == 0 {
        0
    } else if i8::try_from(value).is_ok() {
        1
    } else if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Integers where they lie. An index beyond the end gives 0; the count was checked when the column was taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ints<'a> {
    data: &'a [u8],
    width: u16,
    count: usize,
}

impl Ints<'_> {
    /// The value at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        match self.width {
            0 => 0,
            1 => self.data.get(index).copied().map_or(0, u64::from),
            2 => u64::from(read_u16(self.data, index * 2)),
            4 => u64::from(read_u32(self.data, index * 4)),
            _ => self
                .data
                .get(index * 8..index * 8 + 8)
                .and_then(|b| b.try_into().ok())
                .map_or(0, u64::from_le_bytes),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.count).map(|index| self.get(index))
    }

    /// The index of `value` in an ascending column.
    pub fn search(&self, value: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(&value) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Signed integers where they lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignedInts<'a>(Ints<'a>);

impl SignedInts<'_> {
    /// The value at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> i64 {
        let raw = self.0.get(index).cast_signed();
        let unused = 64 - 8 * u32::from(self.0.width);
        if self.0.width == 0 { 0 } else { raw << unused >> unused }
    }
}

/// Ends that divide another column: element i reaches from end i-1 to end i.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends<'a>(Ints<'a>);

impl Ends<'_> {
    /// The range of element `index`.
    #[inline]
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = if index == 0 { 0 } else { self.0.get(index - 1) };
        // Both are at most the count of the divided column, which fits.
        usize::try_from(start).unwrap_or(0)..usize::try_from(self.0.get(index)).unwrap_or(0)
    }

    /// Element `index` of `data`, the column that is divided.
    #[inline]
    pub fn part<'d>(&self, index: usize, data: &'d [u8]) -> &'d [u8] {
        data.get(self.range(index)).unwrap_or(&[])
    }
}

/// Digests where they lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digests<'a>(&'a [u8]);

impl Digests<'_> {
    /// The digest at `index`; all zeros beyond the end.
    #[inline]
    pub fn get(&self, index: usize) -> Digest {
        let bytes = self.0.get(index * 32..index * 32 + 32).and_then(|b| b.try_into().ok());
        Digest(bytes.unwrap_or_default())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() / 32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
