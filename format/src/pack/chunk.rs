//! What is stored of one chunk: its kinds, the header before it, the inner header before its data.
//!
//! Spec: archive.md section 11; reports and seals are of repository.md section 5.

use crate::digest::{CONTEXT_MANIFEST, CONTEXT_METADATA_CHUNK, CONTEXT_REPORT_ID, CONTEXT_SEGMENT, Digest};
use crate::error::{Error, Result};
use crate::{limits, manifest};

/// Length of the header of a stored chunk.
pub const CHUNK_HEADER_LENGTH: usize = 40;
/// Length of what precedes the data of an unsealed chunk.
pub const INNER_HEADER_LENGTH: usize = 8;
/// Fields of the header of a stored chunk: offset, size, name.
pub const CHUNK_FIELDS: &[(u64, u64, &str)] =
    &[(0, 32, "id"), (32, 4, "stored_length"), (36, 1, "kind"), (37, 1, "seal"), (38, 2, "reserved")];

/// What a chunk is a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkKind {
    /// The payload stream.
    Payload,
    /// The metadata stream.
    Metadata,
    /// A stream map: one whole segment.
    Segment,
    /// A whole manifest.
    Manifest,
    /// What a run has to say of its losses: of repositories alone.
    Report,
}

impl ChunkKind {
    /// All kinds with their numbers and words, as the specification lists them.
    pub const ALL: [(ChunkKind, u8, &'static str); 5] = [
        (ChunkKind::Payload, 1, "payload"),
        (ChunkKind::Metadata, 2, "metadata"),
        (ChunkKind::Segment, 3, "segment"),
        (ChunkKind::Manifest, 4, "manifest"),
        (ChunkKind::Report, 5, "report"),
    ];

    /// The number on disk.
    pub fn number(self) -> u8 {
        match self {
            ChunkKind::Payload => 1,
            ChunkKind::Metadata => 2,
            ChunkKind::Segment => 3,
            ChunkKind::Manifest => 4,
            ChunkKind::Report => 5,
        }
    }

    /// The kind that a number names. Spec: A-11-4.
    pub fn from_number(number: u64) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, n, _)| u64::from(*n) == number);
        found
            .map(|(kind, _, _)| *kind)
            .ok_or_else(|| Error::unsupported(format!("chunk kind {number} is not known")))
    }

    /// The word for this kind in messages.
    pub fn word(self) -> &'static str {
        match self {
            ChunkKind::Payload => "payload",
            ChunkKind::Metadata => "metadata",
            ChunkKind::Segment => "segment",
            ChunkKind::Manifest => "manifest",
            ChunkKind::Report => "report",
        }
    }

    /// The most bytes that a chunk of this kind may have. Spec: A-11-1, R-5-1.
    pub fn raw_length_max(self) -> usize {
        match self {
            ChunkKind::Payload => limits::PAYLOAD_CHUNK_MAX,
            ChunkKind::Metadata | ChunkKind::Segment | ChunkKind::Report => limits::METADATA_CHUNK_MAX,
            ChunkKind::Manifest => manifest::LENGTH_MAX,
        }
    }
}

/// What protects a stored chunk from readers without the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Seal {
    /// Nothing.
    #[default]
    None,
    /// All that follows the header is sealed.
    Sealed,
    /// The chunk ids of a segment stand in clear, so that what is in use can be told without the key.
    Segment,
}

impl Seal {
    /// All seals with their numbers and words, as the specification lists them.
    pub const ALL: [(Seal, u8, &'static str); 3] =
        [(Seal::None, 0, "none"), (Seal::Sealed, 1, "sealed"), (Seal::Segment, 2, "segment")];

    /// The number on disk.
    pub fn number(self) -> u8 {
        match self {
            Seal::None => 0,
            Seal::Sealed => 1,
            Seal::Segment => 2,
        }
    }

    /// The seal that a number names, where a chunk of `kind` may have it. Spec: A-11-4.
    pub fn from_number(number: u64, kind: ChunkKind) -> Result<Self> {
        let found = Self::ALL.iter().find(|(_, n, _)| u64::from(*n) == number);
        let Some((seal, ..)) = found else {
            return Err(Error::unsupported(format!("seal {number} of a chunk is not known")));
        };
        if *seal != Seal::None && *seal != Seal::of(kind) {
            return Err(Error::corrupt(format!("seal {number} is not one of {} chunks", kind.word())));
        }
        Ok(*seal)
    }

    /// What chunks of `kind` have where they are sealed. Spec: R-5-3, R-5-4.
    pub fn of(kind: ChunkKind) -> Self {
        if kind == ChunkKind::Segment { Seal::Segment } else { Seal::Sealed }
    }
}

/// Id of the chunk of `kind` whose bytes are `raw`, where there is no key. Spec: section 11.
pub fn chunk_id(kind: ChunkKind, raw: &[u8]) -> Digest {
    match kind {
        ChunkKind::Payload => Digest::of(raw),
        ChunkKind::Metadata => Digest::in_context(CONTEXT_METADATA_CHUNK, raw),
        ChunkKind::Segment => Digest::in_context(CONTEXT_SEGMENT, raw),
        ChunkKind::Manifest => Digest::in_context(CONTEXT_MANIFEST, raw),
        ChunkKind::Report => Digest::in_context(CONTEXT_REPORT_ID, raw),
    }
}

/// What precedes a stored chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The chunk's id.
    pub id: Digest,
    /// Length of what follows the header.
    pub stored_length: u32,
    /// What the chunk is a piece of.
    pub kind: ChunkKind,
    /// What protects it.
    pub seal: Seal,
}

impl ChunkHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; CHUNK_HEADER_LENGTH] {
        let mut header = [0; CHUNK_HEADER_LENGTH];
        header[..32].copy_from_slice(&self.id.0);
        header[32..36].copy_from_slice(&self.stored_length.to_le_bytes());
        header[36] = self.kind.number();
        header[37] = self.seal.number();
        header
    }

    /// Reads the header that begins `bytes`, and checks its length against what a chunk of its kind can take.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((header, _)) = bytes.split_first_chunk::<CHUNK_HEADER_LENGTH>() else {
            return Err(Error::truncated("the pack ends inside a chunk's header"));
        };
        let (id, fields) = header.split_at(32);
        let &[l0, l1, l2, l3, kind, seal, r0, r1] = fields else {
            return Err(Error::truncated("the pack ends inside a chunk's header"));
        };
        let kind = ChunkKind::from_number(u64::from(kind))?;
        let seal = Seal::from_number(u64::from(seal), kind)?;
        if [r0, r1] != [0; 2] {
            return Err(Error::corrupt("reserved bytes of a chunk's header are not zero"));
        }
        let stored_length = u32::from_le_bytes([l0, l1, l2, l3]);
        validate_stored_length(kind, seal, u64::from(stored_length))?;
        Ok(Self { id: Digest(id.try_into().unwrap_or_default()), stored_length, kind, seal })
    }

    /// Length of header and what follows it.
    pub fn whole_length(&self) -> u64 {
        CHUNK_HEADER_LENGTH as u64 + u64::from(self.stored_length)
    }
}

/// A stored chunk has an inner header, and data that never takes more than the raw bytes may, unless it is sealed.
/// Spec: R-5-9.
pub(crate) fn validate_stored_length(kind: ChunkKind, seal: Seal, length: u64) -> Result<()> {
    let sealed = if seal == Seal::None { 0 } else { limits::SEALED_MAX };
    let most = (INNER_HEADER_LENGTH + kind.raw_length_max()) as u64 + sealed;
    if length > most {
        return Err(Error::limit("stored length of a chunk", length, most));
    }
    if length < INNER_HEADER_LENGTH as u64 {
        return Err(Error::corrupt("a stored chunk has no inner header"));
    }
    Ok(())
}

/// How the data of a chunk stands for its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// All codecs with their numbers and words, as the specification lists them.
    pub const ALL: [(Codec, u8, &'static str); 2] = [(Codec::Raw, 0, "raw"), (Codec::Zstd, 1, "zstd")];

    /// The number on disk.
    pub fn number(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        }
    }
}

/// What precedes the data of an unsealed chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerHeader {
    /// How the data stands for the bytes.
    pub codec: Codec,
    /// How many bytes they are.
    pub raw_length: u32,
}

impl InnerHeader {
    /// The inner header's bytes.
    pub fn encode(&self) -> [u8; INNER_HEADER_LENGTH] {
        let [l0, l1, l2, l3] = self.raw_length.to_le_bytes();
        [self.codec.number(), 0, 0, 0, l0, l1, l2, l3]
    }

    /// Splits what is stored of a chunk of `kind` into inner header and data, with all that can be known before
    /// decoding checked. Spec: A-11-1 to A-11-4.
    pub fn split(kind: ChunkKind, stored: &[u8]) -> Result<(Self, &[u8])> {
        let (inner, data) = Self::split_padded(kind, stored)?;
        if inner.codec == Codec::Raw && data.len() as u64 != u64::from(inner.raw_length) {
            return Err(Error::corrupt("a raw chunk's data has another length than its inner header says"));
        }
        Ok((inner, data))
    }

    /// The same where padding may follow the data.
    pub fn split_padded(kind: ChunkKind, stored: &[u8]) -> Result<(Self, &[u8])> {
        let Some((&[codec, r0, r1, r2, l0, l1, l2, l3], data)) = stored.split_first_chunk() else {
            return Err(Error::truncated("a stored chunk ends inside its inner header"));
        };
        let Some((codec, _, _)) = Codec::ALL.iter().find(|(_, number, _)| *number == codec) else {
            return Err(Error::unsupported(format!("codec {codec} of a chunk is not known")));
        };
        if [r0, r1, r2] != [0; 3] {
            return Err(Error::corrupt("reserved bytes of a chunk's inner header are not zero"));
        }
        let raw_length = u32::from_le_bytes([l0, l1, l2, l3]);
        let most = kind.raw_length_max() as u64;
        if u64::from(raw_length) > most {
            return Err(Error::limit("raw length of a chunk", u64::from(raw_length), most));
        }
        Ok((Self { codec: *codec, raw_length }, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn chunk_headers_come_back_and_are_checked() {
        let header = ChunkHeader {
            id: Digest::of(b"x"),
            stored_length: 77,
            kind: ChunkKind::Segment,
            seal: Seal::None,
        };
        let bytes = header.encode();
        assert_eq!(ChunkHeader::decode(&bytes).unwrap(), header);
        let class = |at: usize, value: u8| {
            let mut changed = bytes;
            changed[at] = value;
            ChunkHeader::decode(&changed).map(|_| ()).unwrap_err().class
        };
        assert_eq!(class(35, 0xff), Class::Limit);
        assert_eq!(class(32, 7), Class::Corrupt);
        assert_eq!(class(36, 6), Class::Unsupported);
        assert_eq!(class(37, 3), Class::Unsupported);
        assert_eq!(class(37, 1), Class::Corrupt);
        assert_eq!(class(39, 1), Class::Corrupt);
        assert_eq!(ChunkHeader::decode(&bytes[..39]).unwrap_err().class, Class::Truncated);
    }

    /// Spec: R-5-9
    #[test]
    fn a_sealed_chunk_may_be_longer_and_has_the_seal_of_its_kind() {
        for (kind, ..) in ChunkKind::ALL {
            for (seal, number, _) in Seal::ALL {
                let most = 8 + kind.raw_length_max() + if seal == Seal::None { 0 } else { 8 << 20 };
                let header = |more: usize| {
                    let stored_length = (most + more) as u32;
                    ChunkHeader { id: Digest::NONE, stored_length, kind, seal }.encode()
                };
                assert_eq!(header(0)[37], number);
                let is_of_kind = (number == 2) == (kind == ChunkKind::Segment) || number == 0;
                match ChunkHeader::decode(&header(0)) {
                    Ok(found) => assert_eq!((found.seal, is_of_kind), (seal, true)),
                    Err(error) => assert_eq!((error.class, is_of_kind), (Class::Corrupt, false)),
                }
                if is_of_kind {
                    assert_eq!(ChunkHeader::decode(&header(1)).unwrap_err().class, Class::Limit);
                }
            }
        }
    }

    #[test]
    fn inner_headers_are_checked_before_anything_is_decoded() {
        let stored = |codec: u8, reserved: u8, length: u32, data: &[u8]| {
            let mut stored = vec![codec, reserved, 0, 0];
            stored.extend(length.to_le_bytes());
            stored.extend(data);
            stored
        };
        let class =
            |stored: Vec<u8>| InnerHeader::split(ChunkKind::Payload, &stored).map(|_| ()).unwrap_err().class;
        let raw = stored(0, 0, 3, b"abc");
        let (inner, data) = InnerHeader::split(ChunkKind::Payload, &raw).unwrap();
        assert_eq!((inner, data), (InnerHeader { codec: Codec::Raw, raw_length: 3 }, &b"abc"[..]));
        assert_eq!(raw[..8], inner.encode());
        assert_eq!(class(stored(0, 0, 4, b"abc")), Class::Corrupt);
        assert_eq!(class(stored(0, 1, 3, b"abc")), Class::Corrupt);
        assert_eq!(class(stored(2, 0, 3, b"abc")), Class::Unsupported);
        assert_eq!(class(stored(1, 0, 4 << 20 | 1, b"abc")), Class::Limit);
        assert_eq!(class(stored(0, 0, 0, b"abc")), Class::Corrupt);
        assert!(InnerHeader::split(ChunkKind::Payload, &stored(0, 0, 0, b"")).is_ok());
        for (kind, most) in [(ChunkKind::Segment, 36 << 20), (ChunkKind::Manifest, 1 << 20)] {
            assert!(InnerHeader::split(kind, &stored(1, 0, most, b"abc")).is_ok());
            assert!(InnerHeader::split(kind, &stored(1, 0, most + 1, b"abc")).is_err());
        }
    }
}
