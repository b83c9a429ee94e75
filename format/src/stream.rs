//! The two ends of a metadata stream: the header says how to read it, the trailer where to begin and that it is whole.
//!
//! Spec: archive.md section 8.

use crate::digest::{CONTEXT_TREE, Digest};
use crate::error::{Error, Result, Stream};
use crate::table::Reference;

/// First bytes of a metadata stream.
pub const MAGIC: [u8; 8] = *b"\x89DPTM\r\n\x1a";
/// Last bytes of a metadata stream.
pub const END_MAGIC: [u8; 8] = *b"DPTMEND\n";
/// The version that this crate reads and writes.
pub const VERSION: u16 = 1;
/// Length of the header.
pub const HEADER_LENGTH: usize = 32;
/// Length of the trailer.
pub const TRAILER_LENGTH: usize = 128;

/// Fields of the header: offset, size, name.
pub const HEADER_FIELDS: [(u64, u64, &str); 6] = [
    (0, 8, "magic"),
    (8, 2, "version"),
    (10, 2, "reserved"),
    (12, 4, "required"),
    (16, 4, "ignorable"),
    (20, 12, "reserved"),
];

/// Fields of the trailer: offset, size, name.
pub const TRAILER_FIELDS: [(u64, u64, &str); 14] = [
    (0, 8, "root_distance"),
    (8, 8, "root_length"),
    (16, 8, "link_distance"),
    (24, 8, "link_length"),
    (32, 8, "owner_distance"),
    (40, 8, "owner_length"),
    (48, 32, "tree_id"),
    (80, 8, "entries"),
    (88, 8, "payload_length"),
    (96, 8, "stream_length"),
    (104, 2, "version"),
    (106, 2, "flags"),
    (108, 12, "reserved"),
    (120, 8, "magic"),
];

const PARTIAL: u16 = 1;
const INCOMPLETE: u16 = 2;

/// The header that every writer of this version writes.
pub fn encode_header() -> [u8; HEADER_LENGTH] {
    let mut header = [0; HEADER_LENGTH];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// Checks a header. Spec: A-8.1-1 to A-8.1-4.
pub fn validate_header(bytes: &[u8]) -> Result<()> {
    let at = |error: Error| error.at(Stream::Metadata, 0);
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
        return Err(at(Error::truncated("the stream ends inside its header")));
    };
    if header[..8] != MAGIC {
        return Err(at(Error::corrupt("this is no metadata stream: its first bytes are others")));
    }
    if header[8..10] != VERSION.to_le_bytes() {
        let version = u16::from_le_bytes([header[8], header[9]]);
        let what = format!("version {version} of the format is not known: a newer diptych may read it");
        return Err(at(Error::unsupported(what)));
    }
    if header[12..16] != [0; 4] {
        return Err(at(Error::unsupported("the stream needs a feature that is not known")));
    }
    if header[10..12] != [0; 2] || header[20..] != [0; 12] {
        return Err(at(Error::corrupt("reserved bytes of the header are not zero")));
    }
    Ok(())
}

/// The trailer's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// The root table, seen from the trailer.
    pub root: Reference,
    /// The top link table.
    pub links: Reference,
    /// The owner table.
    pub owners: Option<Reference>,
    /// The tree id.
    pub tree_id: Digest,
    /// Entries, the root counted.
    pub entries: u64,
    /// Length of the payload stream.
    pub payload_length: u64,
    /// Length of the metadata stream, the trailer counted.
    pub stream_length: u64,
    /// Whether this is a checkpoint of an archive that goes on.
    pub is_partial: bool,
    /// Whether some entry was not captured whole.
    pub is_incomplete: bool,
}

impl Trailer {
    /// Whether the tree id stands for the whole tree. Spec: A-3.2-3.
    pub fn is_complete(&self) -> bool {
        !self.is_partial && !self.is_incomplete
    }

    /// The trailer's bytes.
    pub fn encode(&self) -> [u8; TRAILER_LENGTH] {
        let owners = self.owners.unwrap_or_default();
        let flags =
            if self.is_partial { PARTIAL } else { 0 } | if self.is_incomplete { INCOMPLETE } else { 0 };
        let mut bytes = [0; TRAILER_LENGTH];
        let numbers = [
            (0, self.root.distance),
            (8, self.root.length),
            (16, self.links.distance),
            (24, self.links.length),
            (32, owners.distance),
            (40, owners.length),
            (80, self.entries),
            (88, self.payload_length),
            (96, self.stream_length),
        ];
        for (offset, number) in numbers {
            bytes[offset..offset + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[48..80].copy_from_slice(&self.tree_id.0);
        bytes[104..106].copy_from_slice(&VERSION.to_le_bytes());
        bytes[106..108].copy_from_slice(&flags.to_le_bytes());
        bytes[120..].copy_from_slice(&END_MAGIC);
        bytes
    }

    /// Reads the trailer of a stream of `stream_length` bytes from its last bytes. Spec: A-8.3-1, A-8.3-5.
    pub fn decode(bytes: &[u8; TRAILER_LENGTH], stream_length: u64) -> Result<Self> {
        let position = stream_length.saturating_sub(TRAILER_LENGTH as u64);
        let at = |error: Error| error.at(Stream::Metadata, position);
        let number = |offset: usize| {
            bytes.get(offset..offset + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        if bytes[120..] != END_MAGIC || number(96) != stream_length {
            return Err(at(Error::truncated(
                "the stream has no trailer at its end: it was never finished or was cut off",
            )));
        }
        if bytes[104..106] != VERSION.to_le_bytes() {
            return Err(at(Error::unsupported("the trailer has a version that is not known")));
        }
        let flags = u16::from_le_bytes([bytes[106], bytes[107]]);
        if flags & !(PARTIAL | INCOMPLETE) != 0 {
            return Err(at(Error::unsupported("the trailer has flags that are not known")));
        }
        if bytes[108..120] != [0; 12] {
            return Err(at(Error::corrupt("reserved bytes of the trailer are not zero")));
        }
        let reference = |offset| Reference { distance: number(offset), length: number(offset + 8) };
        let mut tree_id = [0; 32];
        tree_id.copy_from_slice(&bytes[48..80]);
        let owners = reference(32);
        Ok(Self {
            root: reference(0),
            links: reference(16),
            owners: (owners != Reference::default()).then_some(owners),
            tree_id: Digest(tree_id),
            entries: number(80),
            payload_length: number(88),
            stream_length,
            is_partial: flags & PARTIAL != 0,
            is_incomplete: flags & INCOMPLETE != 0,
        })
    }
}

/// The tree id, from the digests of the bodies of the root table and the top link table. Spec: A-3.2-2.
pub fn tree_id(root_body: &Digest, link_body: &Digest) -> Digest {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&root_body.0);
    both[32..].copy_from_slice(&link_body.0);
    Digest::in_context(CONTEXT_TREE, &both)
}
