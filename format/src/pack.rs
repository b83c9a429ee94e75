//! Packs: how chunks lie in a file. A header, the chunks, a directory of them, a trailer.
//!
//! Everything here is one field or one table of the file; who writes, finds and decodes chunks is elsewhere.
//!
//! Spec: archive.md section 11.

use crate::digest::{
    CONTEXT_MANIFEST, CONTEXT_METADATA_CHUNK, CONTEXT_PACK_DIRECTORY, CONTEXT_SEGMENT, Digest,
};
use crate::error::{Error, Result, Stream};
use crate::limits;
use crate::section::{
    Digests, Ints, PACK_CHUNK_ID, PACK_DIRECTORY, PACK_KIND, PACK_STORED_LENGTH, Section, SectionBuilder,
};

/// First bytes of a pack.
pub const MAGIC: [u8; 8] = *b"\x89DPTP\r\n\x1a";
/// Last bytes of a pack.
pub const END_MAGIC: [u8; 8] = *b"DPTPEND\n";
/// The version that this crate reads and writes.
pub const VERSION: u16 = 1;
/// Length of a pack's header.
pub const HEADER_LENGTH: usize = 16;
/// Length of the header of a stored chunk.
pub const CHUNK_HEADER_LENGTH: usize = 40;
/// Length of what precedes the data of an unsealed chunk.
pub const INNER_HEADER_LENGTH: usize = 8;
/// Length of a pack's trailer.
pub const TRAILER_LENGTH: usize = 64;

/// Fields of the header: offset, size, name.
pub const HEADER_FIELDS: &[(u64, u64, &str)] =
    &[(0, 8, "magic"), (8, 2, "version"), (10, 1, "holds"), (11, 5, "reserved")];

/// Fields of the header of a stored chunk: offset, size, name.
pub const CHUNK_FIELDS: &[(u64, u64, &str)] =
    &[(0, 32, "id"), (32, 4, "stored_length"), (36, 1, "kind"), (37, 1, "seal"), (38, 2, "reserved")];

/// Fields of the trailer: offset, size, name.
pub const TRAILER_FIELDS: &[(u64, u64, &str)] = &[
    (0, 32, "directory_digest"),
    (32, 8, "directory_length"),
    (40, 8, "pack_length"),
    (48, 2, "version"),
    (50, 6, "reserved"),
    (56, 8, "magic"),
];

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
}

impl ChunkKind {
    /// All kinds with their numbers and words, as the specification lists them.
    pub const ALL: [(ChunkKind, u8, &'static str); 4] = [
        (ChunkKind::Payload, 1, "payload"),
        (ChunkKind::Metadata, 2, "metadata"),
        (ChunkKind::Segment, 3, "segment"),
        (ChunkKind::Manifest, 4, "manifest"),
    ];

    /// The number on disk.
    pub fn number(self) -> u8 {
        match self {
            ChunkKind::Payload => 1,
            ChunkKind::Metadata => 2,
            ChunkKind::Segment => 3,
            ChunkKind::Manifest => 4,
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
        }
    }

    /// The most bytes that a chunk of this kind may have. Spec: A-11-1.
    pub fn raw_length_max(self) -> usize {
        match self {
            ChunkKind::Payload => limits::PAYLOAD_CHUNK_MAX,
            _ => limits::METADATA_CHUNK_MAX,
        }
    }
}

/// Id of the chunk of `kind` whose bytes are `raw`. Spec: section 11.
pub fn chunk_id(kind: ChunkKind, raw: &[u8]) -> Digest {
    match kind {
        ChunkKind::Payload => Digest::of(raw),
        ChunkKind::Metadata => Digest::in_context(CONTEXT_METADATA_CHUNK, raw),
        ChunkKind::Segment => Digest::in_context(CONTEXT_SEGMENT, raw),
        ChunkKind::Manifest => Digest::in_context(CONTEXT_MANIFEST, raw),
    }
}

/// Which chunks a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackHolds {
    /// Those of payload streams.
    Payload,
    /// Those of metadata streams, segments and manifests.
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
    let at = |offset| move |error: Error| error.at(Stream::Pack, offset);
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
        return Err(Error::truncated("the pack ends inside its header")).map_err(at(0));
    };
    if header[..8] != MAGIC {
        return Err(Error::corrupt("this is no pack: its first bytes are others")).map_err(at(0));
    }
    validate_version([header[8], header[9]]).map_err(at(8))?;
    if header[11..] != [0; 5] {
        return Err(Error::corrupt("reserved bytes of a pack's header are not zero")).map_err(at(11));
    }
    let holds = PackHolds::ALL.iter().find(|(_, number, _)| *number == header[10]);
    holds
        .map(|(holds, _, _)| *holds)
        .ok_or_else(|| Error::corrupt("a pack's header does not say what the pack holds"))
        .map_err(at(10))
}

fn validate_version(bytes: [u8; 2]) -> Result<()> {
    match u16::from_le_bytes(bytes) {
        VERSION => Ok(()),
        version => Err(Error::unsupported(format!(
            "version {version} of the pack is not known: a newer diptych may read it"
        ))),
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
}

impl ChunkHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; CHUNK_HEADER_LENGTH] {
        let mut header = [0; CHUNK_HEADER_LENGTH];
        header[..32].copy_from_slice(&self.id.0);
        header[32..36].copy_from_slice(&self.stored_length.to_le_bytes());
        header[36] = self.kind.number();
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
        if seal != 0 {
            return Err(Error::unsupported(format!("seal {seal} of a chunk is not known")));
        }
        if [r0, r1] != [0; 2] {
            return Err(Error::corrupt("reserved bytes of a chunk's header are not zero"));
        }
        let stored_length = u32::from_le_bytes([l0, l1, l2, l3]);
        validate_stored_length(kind, u64::from(stored_length))?;
        Ok(Self { id: Digest(id.try_into().unwrap_or_default()), stored_length, kind })
    }

    /// Length of header and what follows it.
    pub fn whole_length(&self) -> u64 {
        CHUNK_HEADER_LENGTH as u64 + u64::from(self.stored_length)
    }
}

/// A stored chunk has an inner header and some data, which never takes more than the raw bytes would.
fn validate_stored_length(kind: ChunkKind, length: u64) -> Result<()> {
    let most = (INNER_HEADER_LENGTH + kind.raw_length_max()) as u64;
    if length > most {
        return Err(Error::limit("stored length of a chunk", length, most));
    }
    if length <= INNER_HEADER_LENGTH as u64 {
        return Err(Error::corrupt("a stored chunk has no data"));
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
        if raw_length == 0 {
            return Err(Error::corrupt("a chunk is empty"));
        }
        if *codec == Codec::Raw && data.len() as u64 != u64::from(raw_length) {
            return Err(Error::corrupt("a raw chunk's data has another length than its inner header says"));
        }
        Ok((Self { codec: *codec, raw_length }, data))
    }
}

/// The bytes of the directory of a pack with these chunks, in stored order.
pub fn encode_directory(chunks: &[ChunkHeader]) -> Result<Vec<u8>> {
    validate_count(chunks.len())?;
    let ids: Vec<Digest> = chunks.iter().map(|chunk| chunk.id).collect();
    let kinds: Vec<u64> = chunks.iter().map(|chunk| u64::from(chunk.kind.number())).collect();
    let lengths: Vec<u64> = chunks.iter().map(|chunk| u64::from(chunk.stored_length)).collect();
    let mut out = Vec::new();
    SectionBuilder::new(PACK_DIRECTORY, chunks.len())
        .digests(PACK_CHUNK_ID, &ids)
        .ints(PACK_KIND, &kinds)
        .ints(PACK_STORED_LENGTH, &lengths)
        .finish(&mut out)?;
    Ok(out)
}

fn validate_count(count: usize) -> Result<()> {
    if count as u64 > limits::PACK_CHUNKS_MAX {
        return Err(Error::limit("chunks of a pack", count as u64, limits::PACK_CHUNKS_MAX));
    }
    Ok(())
}

/// Digest of a pack's directory.
pub fn directory_digest(directory: &[u8]) -> Digest {
    Digest::in_context(CONTEXT_PACK_DIRECTORY, directory)
}

/// The directory of a pack where it lies, all its rules checked but that ids are distinct.
#[derive(Clone, Copy, Debug)]
pub struct PackDirectory<'a> {
    ids: Digests<'a>,
    kinds: Ints<'a>,
    lengths: Ints<'a>,
}

impl<'a> PackDirectory<'a> {
    /// Checks the directory that `bytes` are, which starts at `offset` of a pack. Spec: A-11-7 and A-11-10.
    pub fn parse(bytes: &'a [u8], holds: PackHolds, offset: u64) -> Result<Self> {
        Self::parse_unplaced(bytes, holds, offset).map_err(|error| error.at(Stream::Pack, offset))
    }

    fn parse_unplaced(bytes: &'a [u8], holds: PackHolds, offset: u64) -> Result<Self> {
        let section = Section::parse(bytes, PACK_DIRECTORY)?;
        if section.length() != bytes.len() {
            return Err(Error::corrupt("bytes follow a pack's directory"));
        }
        let rows = section.rows();
        validate_count(rows)?;
        let directory = Self {
            ids: section.digests(PACK_CHUNK_ID, rows)?,
            kinds: section.ints(PACK_KIND, rows)?,
            lengths: section.ints(PACK_STORED_LENGTH, rows)?,
        };
        let mut end = HEADER_LENGTH as u64;
        for row in 0..rows {
            let kind = ChunkKind::from_number(directory.kinds.get(row))?;
            let length = directory.lengths.get(row);
            validate_stored_length(kind, length)?;
            if !holds.admits(kind) {
                return Err(Error::corrupt(format!(
                    "a pack holds a {} chunk, which its header rules out",
                    kind.word()
                )));
            }
            // At most 2^27 rows of at most 2^26 bytes.
            end += CHUNK_HEADER_LENGTH as u64 + length;
        }
        if end != offset {
            return Err(Error::corrupt(format!(
                "a pack's chunks end at {end} and its directory starts at {offset}"
            )));
        }
        Ok(directory)
    }

    /// Number of chunks.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// The chunks in stored order with where the header of each stands in the pack.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, ChunkHeader)> + '_ {
        let mut next = HEADER_LENGTH as u64;
        (0..self.rows()).map_while(move |row| {
            let header = ChunkHeader {
                id: self.ids.get(row),
                stored_length: u32::try_from(self.lengths.get(row)).ok()?,
                kind: ChunkKind::from_number(self.kinds.get(row)).ok()?,
            };
            let offset = next;
            next += header.whole_length();
            Some((offset, header))
        })
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
        let at = |offset| move |error: Error| error.at(Stream::Pack, start + offset);
        let number = |from: usize| {
            let field = bytes.get(from..from + 8).and_then(|field| field.try_into().ok());
            field.map_or(0, u64::from_le_bytes)
        };
        if bytes[56..] != END_MAGIC {
            let what = "the pack has no end: it was cut off, or its writer did not finish";
            return Err(Error::truncated(what)).map_err(at(56));
        }
        validate_version([bytes[48], bytes[49]]).map_err(at(48))?;
        let trailer = Self {
            directory_digest: Digest(bytes[..32].try_into().unwrap_or_default()),
            directory_length: number(32),
            pack_length: number(40),
        };
        if trailer.pack_length != file_length {
            return Err(Error::truncated(format!(
                "the pack is {} bytes long, and {file_length} are there",
                trailer.pack_length
            )))
            .map_err(at(40));
        }
        if bytes[50..56] != [0; 6] {
            return Err(Error::corrupt("reserved bytes of a pack's trailer are not zero")).map_err(at(50));
        }
        trailer.directory_offset().map_err(at(32))?;
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
    fn chunk_headers_come_back_and_are_checked() {
        let header = ChunkHeader { id: Digest::of(b"x"), stored_length: 77, kind: ChunkKind::Segment };
        let bytes = header.encode();
        assert_eq!(ChunkHeader::decode(&bytes).unwrap(), header);
        let class = |at: usize, value: u8| {
            let mut changed = bytes;
            changed[at] = value;
            ChunkHeader::decode(&changed).map(|_| ()).unwrap_err().class
        };
        assert_eq!(class(35, 0xff), Class::Limit);
        assert_eq!(class(32, 8), Class::Corrupt);
        assert_eq!(class(36, 5), Class::Unsupported);
        assert_eq!(class(37, 1), Class::Unsupported);
        assert_eq!(class(39, 1), Class::Corrupt);
        assert_eq!(ChunkHeader::decode(&bytes[..39]).unwrap_err().class, Class::Truncated);
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
        assert_eq!(class(stored(1, 0, 0, b"abc")), Class::Corrupt);
        assert!(InnerHeader::split(ChunkKind::Metadata, &stored(1, 0, 36 << 20, b"abc")).is_ok());
    }

    #[test]
    fn directories_come_back_and_must_fit_their_place() {
        let chunks: Vec<ChunkHeader> = (0..300u32)
            .map(|n| ChunkHeader {
                id: Digest::of(&n.to_le_bytes()),
                stored_length: 9 + n,
                kind: ChunkKind::Payload,
            })
            .collect();
        let end = 16 + chunks.iter().map(ChunkHeader::whole_length).sum::<u64>();
        let bytes = encode_directory(&chunks).unwrap();
        let directory = PackDirectory::parse(&bytes, PackHolds::Payload, end).unwrap();
        assert_eq!(directory.chunks().map(|(_, chunk)| chunk).collect::<Vec<_>>(), chunks);
        assert_eq!(directory.chunks().nth(1).unwrap().0, 16 + 40 + 9);
        for (holds, offset) in [(PackHolds::Payload, end + 1), (PackHolds::Metadata, end)] {
            assert_eq!(PackDirectory::parse(&bytes, holds, offset).unwrap_err().class, Class::Corrupt);
        }
        assert!(PackDirectory::parse(&encode_directory(&[]).unwrap(), PackHolds::Both, 16).is_ok());
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
