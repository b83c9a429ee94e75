//! Packs: how chunks lie in a file. A header, the chunks, a directory of them, a trailer.
//!
//! Everything here is one field or one table of the file; who writes, finds and decodes chunks is elsewhere.
//!
//! Spec: archive.md section 11.

mod chunk;
mod directory;

pub(crate) use chunk::validate_stored_length;
pub use chunk::{
    CHUNK_FIELDS, CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind, Codec, INNER_HEADER_LENGTH, InnerHeader, Seal,
    chunk_id,
};
pub use directory::{PackDirectory, directory_digest, encode_directory};

use crate::digest::Digest;
use crate::error::{Error, Result, Stream};

/// First bytes of a pack.
pub const MAGIC: [u8; 8] = *b"\x89DPTP\r\n\x1a";
/// Last bytes of a pack.
pub const END_MAGIC: [u8; 8] = *b"DPTPEND\n";
/// The version that this crate reads and writes.
pub const VERSION: u16 = 1;
/// Length of a pack's header.
pub const HEADER_LENGTH: usize = 16;
/// Length of a pack's trailer.
pub const TRAILER_LENGTH: usize = 64;

/// Fields of the header: offset, size, name.
pub const HEADER_FIELDS: &[(u64, u64, &str)] =
    &[(0, 8, "magic"), (8, 2, "version"), (10, 1, "holds"), (11, 5, "reserved")];

/// Fields of the trailer: offset, size, name.
pub const TRAILER_FIELDS: &[(u64, u64, &str)] = &[
    (0, 32, "directory_digest"),
    (32, 8, "directory_length"),
    (40, 8, "pack_length"),
    (48, 2, "version"),
    (50, 6, "reserved"),
    (56, 8, "magic"),
];

/// Which chunks a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackHolds {
    /// Those of payload streams.
    Payload,
    /// All but those of payload streams.
    Metadata,
    /// All.
    Both,
}

impl PackHolds {
    /// All values with their numbers and words, as the specification lists them.
    pub const ALL: [(PackHolds, u8, &'static str); 3] = [
        (PackHolds::Payload, 1, "payload"),
        (PackHolds::Metadata, 2, "metadata"),
        (PackHolds::Both, 3, "both"),
    ];

    /// The number on disk.
    pub fn number(self) -> u8 {
        match self {
            PackHolds::Payload => 1,
            PackHolds::Metadata => 2,
            PackHolds::Both => 3,
        }
    }

    /// Whether a chunk of `kind` may stand in such a pack.
    pub fn admits(self, kind: ChunkKind) -> bool {
        match self {
            PackHolds::Payload => kind == ChunkKind::Payload,
            PackHolds::Metadata => kind != ChunkKind::Payload,
            PackHolds::Both => true,
        }
    }
}

/// The header of a pack.
pub fn encode_header(holds: PackHolds) -> [u8; HEADER_LENGTH] {
    let mut header = [0; HEADER_LENGTH];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10] = holds.number();
    header
}

/// Reads the header of a pack.
pub fn decode_header(bytes: &[u8]) -> Result<PackHolds> {
    let at = |error: Error| error.at(Stream::Pack, 0);
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
        return Err(at(Error::truncated("the pack ends inside its header")));
    };
    if header[..8] != MAGIC {
        return Err(at(Error::corrupt("this is no pack: its first bytes are others")));
    }
    validate_version([header[8], header[9]]).map_err(at)?;
    if header[11..] != [0; 5] {
        return Err(at(Error::corrupt("reserved bytes of a pack's header are not zero")));
    }
    let holds = PackHolds::ALL.iter().find(|(_, number, _)| *number == header[10]);
    holds
        .map(|(holds, _, _)| *holds)
        .ok_or_else(|| Error::corrupt("a pack's header does not say what the pack holds"))
        .map_err(at)
}

fn validate_version(bytes: [u8; 2]) -> Result<()> {
    match u16::from_le_bytes(bytes) {
        VERSION => Ok(()),
        version => Err(Error::unsupported(format!(
            "version {version} of the pack is not known: a newer diptych may read it"
        ))),
    }
}

/// The end of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackTrailer {
    /// Digest of the directory.
    pub directory_digest: Digest,
    /// Its length.
    pub directory_length: u64,
    /// Length of the whole file.
    pub pack_length: u64,
}

impl PackTrailer {
    /// The trailer's bytes.
    pub fn encode(&self) -> [u8; TRAILER_LENGTH] {
        let mut trailer = [0; TRAILER_LENGTH];
        trailer[..32].copy_from_slice(&self.directory_digest.0);
        trailer[32..40].copy_from_slice(&self.directory_length.to_le_bytes());
        trailer[40..48].copy_from_slice(&self.pack_length.to_le_bytes());
        trailer[48..50].copy_from_slice(&VERSION.to_le_bytes());
        trailer[56..].copy_from_slice(&END_MAGIC);
        trailer
    }

    /// Reads the last bytes of a file of `file_length` bytes. Spec: A-11-8.
    pub fn decode(bytes: &[u8; TRAILER_LENGTH], file_length: u64) -> Result<Self> {
        let start = file_length.saturating_sub(TRAILER_LENGTH as u64);
        let at = |error: Error| error.at(Stream::Pack, start);
        let number = |from: usize| {
            let field = bytes.get(from..from + 8).and_then(|field| field.try_into().ok());
            field.map_or(0, u64::from_le_bytes)
        };
        if bytes[56..] != END_MAGIC {
            let what = "the pack has no end: it was cut off, or its writer did not finish";
            return Err(at(Error::truncated(what)));
        }
        validate_version([bytes[48], bytes[49]]).map_err(at)?;
        let trailer = Self {
            directory_digest: Digest(bytes[..32].try_into().unwrap_or_default()),
            directory_length: number(32),
            pack_length: number(40),
        };
        if trailer.pack_length != file_length {
            return Err(at(Error::truncated(format!(
                "the pack is {} bytes long, and {file_length} are there",
                trailer.pack_length
            ))));
        }
        if bytes[50..56] != [0; 6] {
            return Err(at(Error::corrupt("reserved bytes of a pack's trailer are not zero")));
        }
        trailer.directory_offset().map_err(at)?;
        Ok(trailer)
    }

    /// Where the directory starts.
    pub fn directory_offset(&self) -> Result<u64> {
        self.pack_length
            .checked_sub(TRAILER_LENGTH as u64)
            .and_then(|end| end.checked_sub(self.directory_length))
            .filter(|start| *start >= HEADER_LENGTH as u64)
            .ok_or_else(|| Error::corrupt("a pack's directory is longer than the pack"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn fields_fill_their_structures() {
        for (fields, length) in [
            (HEADER_FIELDS, HEADER_LENGTH),
            (CHUNK_FIELDS, CHUNK_HEADER_LENGTH),
            (TRAILER_FIELDS, TRAILER_LENGTH),
        ] {
            let end = fields.iter().fold(0, |end, (offset, size, name)| {
                assert_eq!(end, *offset, "{name}");
                end + size
            });
            assert_eq!(end, length as u64);
        }
    }

    #[test]
    fn numbers_come_back() {
        for (kind, number, word) in ChunkKind::ALL {
            assert_eq!((kind.number(), kind.word()), (number, word));
            assert_eq!(ChunkKind::from_number(number.into()).unwrap(), kind);
        }
        PackHolds::ALL.iter().for_each(|(holds, number, _)| assert_eq!(holds.number(), *number));
        Codec::ALL.iter().for_each(|(codec, number, _)| assert_eq!(codec.number(), *number));
    }

    #[test]
    fn every_flip_in_a_header_is_found_or_stays_in_its_field() {
        let header = encode_header(PackHolds::Metadata);
        assert_eq!(decode_header(&header).unwrap(), PackHolds::Metadata);
        for bit in 0..header.len() * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            match decode_header(&flipped) {
                Ok(holds) => assert_eq!((bit / 8, holds), (10, PackHolds::Both)),
                Err(error) if bit / 8 == 8 || bit / 8 == 9 => assert_eq!(error.class, Class::Unsupported),
                Err(error) => assert_eq!(error.class, Class::Corrupt),
            }
        }
        assert_eq!(decode_header(&header[..15]).unwrap_err().class, Class::Truncated);
    }

    #[test]
    fn trailers_come_back_and_are_checked() {
        let trailer = PackTrailer {
            directory_digest: Digest::of(b"d"),
            directory_length: 24,
            pack_length: 16 + 24 + 64,
        };
        let bytes = trailer.encode();
        assert_eq!(PackTrailer::decode(&bytes, 104).unwrap(), trailer);
        assert_eq!(trailer.directory_offset().unwrap(), 16);
        assert_eq!(PackTrailer::decode(&bytes, 105).unwrap_err().class, Class::Truncated);
        let class = |at: usize, value: u8| {
            let mut changed = bytes;
            changed[at] = value;
            PackTrailer::decode(&changed, 104).unwrap_err().class
        };
        assert_eq!(class(32, 25), Class::Corrupt);
        assert_eq!(class(39, 0xff), Class::Corrupt);
        assert_eq!(class(48, 2), Class::Unsupported);
        assert_eq!(class(55, 1), Class::Corrupt);
        assert_eq!(class(63, 1), Class::Truncated);
    }
}
