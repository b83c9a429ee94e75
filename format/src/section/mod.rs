//! Sections: columns of fixed-width values, read where they lie.
//!
//! A section is a header, a descriptor for each column, and the columns. Looking a value up is an index
//! computation; nothing is parsed into other memory. [`Section::parse`] checks the frame (lengths, ids, widths);
//! whoever takes a column states its count, so a column of the wrong length cannot be had.
//!
//! Spec: archive.md section 6.

mod builder;
mod parser;
mod values;

pub use builder::SectionBuilder;
pub use parser::{Section, peek};
pub use values::{Digests, Divided, Ends, Ints, SignedInts};

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
    SEGMENT_CHUNK_LENGTH = SEGMENT_CHUNKS 0x8001 "CHUNK_LENGTH" Int;
    SLICE_CHUNK = SEGMENT_SLICES 0x01 "CHUNK" Int;
    SLICE_START = SEGMENT_SLICES 0x02 "START" Int;
    SLICE_LENGTH = SEGMENT_SLICES 0x03 "LENGTH" Int;
    SLICE_SLICES = SEGMENT_SLICES 0x04 "SLICES" Int;
    SLICE_LEVEL = SEGMENT_SLICES 0x05 "LEVEL" Int;
    PACK_CHUNK_ID = PACK_DIRECTORY 0x01 "CHUNK_ID" Digest;
    PACK_KIND = PACK_DIRECTORY 0x02 "KIND" Int;
    PACK_STORED_LENGTH = PACK_DIRECTORY 0x03 "STORED_LENGTH" Int;
    PACK_SEAL = PACK_DIRECTORY 0x04 "SEAL" Int;
    PACK_SALT = PACK_DIRECTORY 0x8001 "SALT" Int;
}

const HEADER_LENGTH: usize = 16;
const DESCRIPTOR_LENGTH: usize = 8;
/// More columns than any section has, ignorable ones of the future counted.
const COLUMNS_MAX: usize = 64;

/// Where a column ends, padding and all.
fn pad8(length: usize) -> usize {
    length.next_multiple_of(8)
}

/// The least width that holds an integer; 0 for zero, which takes no column.
#[inline]
fn int_width(value: u64) -> u16 {
    match value {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// The same for a signed integer.
#[inline]
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
