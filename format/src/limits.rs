//! Every bound of the format, each with its reason. A reader checks them before it reads or allocates.
//!
//! Spec: archive.md section 13 and repository.md section 12; a test compares their tables with [`ALL`] and
//! [`REPOSITORY`].

/// Longest name in bytes. Linux file systems allow 255; some foreign ones reach 765 in UTF-8.
pub const NAME_LENGTH_MAX: usize = 1024;
/// Deepest nesting below the root. Bounds every reader's stack of open directories.
pub const DEPTH_MAX: usize = 2048;
/// Longest path in bytes, names joined with `/`. Bounds the rows of the link table.
pub const PATH_LENGTH_MAX: usize = 65_536;
/// Longest target of a symbolic link (`PATH_MAX` of Linux).
pub const TARGET_LENGTH_MAX: usize = 4096;
/// Longest name of an extended attribute (`XATTR_NAME_MAX` of Linux).
pub const XATTR_NAME_MAX: usize = 255;
/// Longest value of an extended attribute (`XATTR_SIZE_MAX` of Linux).
pub const XATTR_VALUE_MAX: usize = 65_536;
/// Most bytes of extended attributes, names and values, that one entry may have.
pub const XATTR_TOTAL_MAX: u64 = 16 << 20;
/// Most bytes of extended attributes that stand in the table itself; what is larger stands in a value table.
pub const XATTR_INLINE_MAX: u64 = 2048;
/// Largest content: what a signed 64-bit file offset can address.
pub const SIZE_MAX: u64 = i64::MAX as u64;
/// Most holes of one content; a content with more keeps the rest as zeros in the payload.
pub const HOLES_MAX: usize = 524_288;
/// Fewest rows of a piece before a name may end it.
pub const PIECE_ROWS_MIN: usize = 512;
/// Most rows of a piece.
pub const PIECE_ROWS_MAX: usize = 4096;
/// Most bytes of names in a piece.
pub const PIECE_NAMES_MAX: usize = 1 << 20;
/// Deepest nesting of index tables: 512 rows at least on each level, and on one of names, are more than 2^53 names.
pub const INDEX_LEVEL_MAX: u64 = 5;
/// Longest table in bytes: 4096 rows with every field at its longest stay below it.
pub const TABLE_LENGTH_MAX: u64 = 32 << 20;
/// Most names in the owner table, users and groups each.
pub const OWNERS_MAX: usize = 65_536;
/// Largest payload chunk before compression.
pub const PAYLOAD_CHUNK_MAX: usize = 4 << 20;
/// Largest chunk of any other kind before compression: a full metadata chunk and one more table.
pub const METADATA_CHUNK_MAX: usize = 36 << 20;
/// Fewest slices of a segment before a chunk id may end it.
pub const SEGMENT_ROWS_MIN: usize = 256;
/// Most slices of a segment.
pub const SEGMENT_ROWS_MAX: usize = 4096;
/// Deepest nesting of segments.
pub const SEGMENT_LEVEL_MAX: u64 = 6;
/// Most chunks of one pack file.
pub const PACK_CHUNKS_MAX: u64 = 1 << 26;
/// The `chattr` flags that can be set again: what the file system alone decides (extents, encryption, verity
/// and the like) is left out, so that a copy on another file system can be equal.
pub const FLAGS_MASK: u32 = 0x6283_C4FF;
/// Most bytes of a repository's document.
pub const DOCUMENT_MAX: u64 = 16 << 20;
/// Most KiB of memory that opening a key file may take.
pub const KDF_MEMORY_MAX: u64 = 4 << 20;
/// Most passes over that memory.
pub const KDF_PASSES_MAX: u64 = 64;
/// Most lanes of that memory.
pub const KDF_LANES_MAX: u64 = 64;
/// Most bits of an index's fan-out: 64 MiB.
pub const FAN_BITS_MAX: u64 = 24;
/// Most bytes that a sealed chunk is longer than it could be unsealed: ids of a segment, padding, nonce and tag.
pub const SEALED_MAX: u64 = 8 << 20;
/// Longest pack of a repository: offsets in it are `u32` in its index.
pub const PACK_LENGTH_MAX: u64 = u32::MAX as u64;
/// Most rows of an index file: its fan-out counts them in `u32`.
pub const INDEX_CHUNKS_MAX: u64 = u32::MAX as u64;

/// The limits by name, for the comparison with the specification.
pub const ALL: [(&str, u64); 23] = [
    ("NAME_LENGTH_MAX", NAME_LENGTH_MAX as u64),
    ("DEPTH_MAX", DEPTH_MAX as u64),
    ("PATH_LENGTH_MAX", PATH_LENGTH_MAX as u64),
    ("TARGET_LENGTH_MAX", TARGET_LENGTH_MAX as u64),
    ("XATTR_NAME_MAX", XATTR_NAME_MAX as u64),
    ("XATTR_VALUE_MAX", XATTR_VALUE_MAX as u64),
    ("XATTR_TOTAL_MAX", XATTR_TOTAL_MAX),
    ("XATTR_INLINE_MAX", XATTR_INLINE_MAX),
    ("SIZE_MAX", SIZE_MAX),
    ("HOLES_MAX", HOLES_MAX as u64),
    ("PIECE_ROWS_MIN", PIECE_ROWS_MIN as u64),
    ("PIECE_ROWS_MAX", PIECE_ROWS_MAX as u64),
    ("PIECE_NAMES_MAX", PIECE_NAMES_MAX as u64),
    ("INDEX_LEVEL_MAX", INDEX_LEVEL_MAX),
    ("TABLE_LENGTH_MAX", TABLE_LENGTH_MAX),
    ("OWNERS_MAX", OWNERS_MAX as u64),
    ("PAYLOAD_CHUNK_MAX", PAYLOAD_CHUNK_MAX as u64),
    ("METADATA_CHUNK_MAX", METADATA_CHUNK_MAX as u64),
    ("SEGMENT_ROWS_MIN", SEGMENT_ROWS_MIN as u64),
    ("SEGMENT_ROWS_MAX", SEGMENT_ROWS_MAX as u64),
    ("SEGMENT_LEVEL_MAX", SEGMENT_LEVEL_MAX),
    ("PACK_CHUNKS_MAX", PACK_CHUNKS_MAX),
    ("FLAGS_MASK", FLAGS_MASK as u64),
];

/// The limits of a repository by name, for the comparison with its specification.
pub const REPOSITORY: [(&str, u64); 8] = [
    ("DOCUMENT_MAX", DOCUMENT_MAX),
    ("KDF_MEMORY_MAX", KDF_MEMORY_MAX),
    ("KDF_PASSES_MAX", KDF_PASSES_MAX),
    ("KDF_LANES_MAX", KDF_LANES_MAX),
    ("FAN_BITS_MAX", FAN_BITS_MAX),
    ("SEALED_MAX", SEALED_MAX),
    ("PACK_LENGTH_MAX", PACK_LENGTH_MAX),
    ("INDEX_CHUNKS_MAX", INDEX_CHUNKS_MAX),
];
