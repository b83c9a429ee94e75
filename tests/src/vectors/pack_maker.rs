//! Packs chunk by chunk, and archive files of one pack: right unless told otherwise, like the streams.

use diptych_format::digest::{
    CONTEXT_MANIFEST, CONTEXT_METADATA_CHUNK, CONTEXT_PACK_DIRECTORY, CONTEXT_SEGMENT, Digest,
};
use diptych_format::section as c;

use super::section_maker::SectionMaker;
use super::stream_maker::{Edit, Stream};

/// Number of the kind of chunk that is payload.
pub const PAYLOAD: u8 = 1;
/// Metadata.
pub const METADATA: u8 = 2;
/// A segment.
pub const SEGMENT: u8 = 3;
/// The manifest.
pub const MANIFEST: u8 = 4;

/// A stored chunk.
pub struct ChunkMaker {
    /// Its id.
    pub id: Digest,
    /// Its kind.
    pub kind: u8,
    /// Its seal.
    pub seal: u8,
    /// The reserved field of its header.
    pub reserved: u16,
    /// What is added to the length in its header.
    pub length_off: i64,
    /// What follows the header.
    pub stored: Vec<u8>,
}

/// The id of a chunk.
pub fn chunk_id(kind: u8, raw: &[u8]) -> Digest {
    match kind {
        METADATA => Digest::in_context(CONTEXT_METADATA_CHUNK, raw),
        SEGMENT => Digest::in_context(CONTEXT_SEGMENT, raw),
        MANIFEST => Digest::in_context(CONTEXT_MANIFEST, raw),
        _ => Digest::of(raw),
    }
}

/// What stands before the data of an unsealed chunk.
pub fn inner(codec: u8, raw_length: u32, data: &[u8]) -> Vec<u8> {
    [&[codec, 0, 0, 0][..], &raw_length.to_le_bytes(), data].concat()
}

/// A zstd frame of `length` times `byte`, made of blocks that repeat it.
pub fn zstd_run(byte: u8, length: usize) -> Vec<u8> {
    // A frame that tells its length in four bytes, without a checksum, its window as long as itself.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend((length as u32).to_le_bytes());
    let blocks = length.div_ceil(128 << 10).max(1);
    for block in 0..blocks {
        let part = (length - block * (128 << 10)).min(128 << 10) as u32;
        let header = part << 3 | 1 << 1 | u32::from(block + 1 == blocks);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(byte);
    }
    frame
}

impl ChunkMaker {
    /// A chunk as it is.
    pub fn raw(kind: u8, raw: &[u8]) -> Self {
        Self::stored(chunk_id(kind, raw), kind, inner(0, raw.len() as u32, raw))
    }

    /// A payload chunk of one byte again and again, compressed.
    pub fn run(byte: u8, length: usize) -> Self {
        let id = chunk_id(PAYLOAD, &vec![byte; length]);
        Self::stored(id, PAYLOAD, inner(1, length as u32, &zstd_run(byte, length)))
    }

    /// A chunk of which these bytes are stored.
    pub fn stored(id: Digest, kind: u8, stored: Vec<u8>) -> Self {
        Self { id, kind, seal: 0, reserved: 0, length_off: 0, stored }
    }
}

/// Fields of a pack's trailer.
pub struct PackTrailerMaker {
    /// Digest of the directory.
    pub digest: Digest,
    /// Its length.
    pub directory_length: u64,
    /// What is added to the pack's length.
    pub length_off: i64,
    /// Version.
    pub version: u16,
    /// The last reserved byte.
    pub reserved: u8,
    /// The magic.
    pub magic: [u8; 8],
}

/// A pack.
pub struct PackMaker<'e> {
    /// The header.
    pub header: [u8; 16],
    /// Its chunks.
    pub chunks: Vec<ChunkMaker>,
    /// Spoils the directory.
    pub spoil_directory: Edit<'e, SectionMaker>,
    /// Spoils the trailer.
    pub spoil_trailer: Edit<'e, PackTrailerMaker>,
}

impl PackMaker<'_> {
    /// A pack of these chunks; `holds` says of which kinds.
    pub fn new(holds: u8, chunks: Vec<ChunkMaker>) -> Self {
        let mut header = *b"\x89DPTP\r\n\x1a\x01\0\0\0\0\0\0\0";
        header[10] = holds;
        Self { header, chunks, spoil_directory: None, spoil_trailer: None }
    }

    /// Where chunk `index` stands.
    pub fn offset(&self, index: usize) -> u64 {
        16 + self.chunks[..index].iter().map(|chunk| 40 + chunk.stored.len() as u64).sum::<u64>()
    }

    /// Where the directory stands.
    pub fn directory_offset(&self) -> u64 {
        self.offset(self.chunks.len())
    }

    /// The bytes.
    pub fn encode(mut self) -> Vec<u8> {
        let mut out = self.header.to_vec();
        for chunk in &self.chunks {
            out.extend(chunk.id.0);
            out.extend(((chunk.stored.len() as i64 + chunk.length_off) as u32).to_le_bytes());
            out.extend([chunk.kind, chunk.seal]);
            out.extend(chunk.reserved.to_le_bytes());
            out.extend(&chunk.stored);
        }
        let column = |value: fn(&ChunkMaker) -> u64| self.chunks.iter().map(value).collect::<Vec<u64>>();
        let ids: Vec<Digest> = self.chunks.iter().map(|chunk| chunk.id).collect();
        let mut directory = SectionMaker::new(c::PACK_DIRECTORY, ids.len());
        directory.digests(c::PACK_CHUNK_ID, &ids).ints(c::PACK_KIND, &column(|chunk| chunk.kind.into()));
        directory.ints(c::PACK_STORED_LENGTH, &column(|chunk| chunk.stored.len() as u64));
        if let Some(spoil) = self.spoil_directory.take() {
            spoil(&mut directory);
        }
        let directory = directory.encode();
        let mut trailer = PackTrailerMaker {
            digest: Digest::in_context(CONTEXT_PACK_DIRECTORY, &directory),
            directory_length: directory.len() as u64,
            length_off: 0,
            version: 1,
            reserved: 0,
            magic: *b"DPTPEND\n",
        };
        if let Some(spoil) = self.spoil_trailer.take() {
            spoil(&mut trailer);
        }
        out.extend(&directory);
        let length = (out.len() as u64 + 64).wrapping_add_signed(trailer.length_off);
        out.extend(trailer.digest.0);
        out.extend(trailer.directory_length.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(trailer.version.to_le_bytes());
        out.extend([0, 0, 0, 0, 0, trailer.reserved]);
        out.extend(trailer.magic);
        out
    }
}

/// A segment: the chunk ids, then slices as index of the id, start, length and slices below.
pub struct SegmentMaker {
    /// The chunk ids.
    pub ids: SectionMaker,
    /// The slices.
    pub slices: SectionMaker,
    /// Bytes behind both.
    pub rest: Vec<u8>,
}

impl SegmentMaker {
    /// A segment of slices.
    pub fn new(ids: &[Digest], slices: &[(u64, u64, u64)]) -> Self {
        let slices: Vec<_> =
            slices.iter().map(|(chunk, start, length)| (*chunk, *start, *length, 0)).collect();
        Self::of_level(0, ids, &slices)
    }

    /// A segment of segments.
    pub fn of_level(level: u64, ids: &[Digest], rows: &[(u64, u64, u64, u64)]) -> Self {
        let mut chunks = SectionMaker::new(c::SEGMENT_CHUNKS, ids.len());
        chunks.digests(c::SEGMENT_CHUNK_ID, ids);
        let column = |value: fn(&(u64, u64, u64, u64)) -> u64| rows.iter().map(value).collect::<Vec<u64>>();
        let mut slices = SectionMaker::new(c::SEGMENT_SLICES, rows.len());
        slices.ints(c::SLICE_CHUNK, &column(|row| row.0)).ints(c::SLICE_START, &column(|row| row.1));
        slices.ints(c::SLICE_LENGTH, &column(|row| row.2)).ints(c::SLICE_SLICES, &column(|row| row.3));
        slices.ints(c::SLICE_LEVEL, &[level]);
        Self { ids: chunks, slices, rest: Vec::new() }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        [self.ids.encode(), self.slices.encode(), self.rest.clone()].concat()
    }
}

/// An archive file of one pack before it is written.
pub struct ArchiveMaker<'e> {
    /// The metadata stream.
    pub stream: Stream,
    /// Chunks of the payload.
    pub payload: Vec<ChunkMaker>,
    /// The payload's map.
    pub payload_map: SegmentMaker,
    /// Further segments that the payload's map leads to.
    pub segments: Vec<Vec<u8>>,
    /// Length of the payload stream in the manifest.
    pub payload_length: u64,
    /// Changes the manifest's text.
    pub spoil_manifest: Edit<'e, String>,
    /// Changes the chunks of the pack: payload, metadata, both maps, the manifest.
    pub spoil_chunks: Edit<'e, Vec<ChunkMaker>>,
}

impl ArchiveMaker<'_> {
    /// An archive of `stream` whose payload is one chunk.
    pub fn new(stream: Stream, payload: &[u8]) -> Self {
        let length = payload.len() as u64;
        let (chunks, map) = if payload.is_empty() {
            (vec![], SegmentMaker::new(&[], &[]))
        } else {
            let chunk = ChunkMaker::raw(PAYLOAD, payload);
            let map = SegmentMaker::new(&[chunk.id], &[(0, 0, length)]);
            (vec![chunk], map)
        };
        Self::of_parts(stream, chunks, map, length)
    }

    /// An archive of `stream` with these chunks of payload and this map of them.
    pub fn of_parts(stream: Stream, payload: Vec<ChunkMaker>, map: SegmentMaker, length: u64) -> Self {
        Self {
            stream,
            payload,
            payload_map: map,
            segments: Vec::new(),
            payload_length: length,
            spoil_manifest: None,
            spoil_chunks: None,
        }
    }

    /// The pack.
    pub fn pack<'p>(self) -> PackMaker<'p> {
        let metadata = ChunkMaker::raw(METADATA, &self.stream.bytes);
        let length = self.stream.bytes.len() as u64;
        let map = SegmentMaker::new(&[metadata.id], &[(0, 0, length)]).encode();
        let map = ChunkMaker::raw(SEGMENT, &map);
        let payload_map = ChunkMaker::raw(SEGMENT, &self.payload_map.encode());
        let mut manifest = manifest(&self.stream, (map.id, length), (payload_map.id, self.payload_length));
        if let Some(spoil) = self.spoil_manifest {
            spoil(&mut manifest);
        }
        let mut chunks = self.payload;
        chunks.push(metadata);
        chunks.extend(self.segments.iter().map(|segment| ChunkMaker::raw(SEGMENT, segment)));
        chunks.extend([map, payload_map, ChunkMaker::raw(MANIFEST, manifest.as_bytes())]);
        if let Some(spoil) = self.spoil_chunks {
            spoil(&mut chunks);
        }
        PackMaker::new(3, chunks)
    }
}

/// The text of a manifest.
pub fn manifest(stream: &Stream, metadata: (Digest, u64), payload: (Digest, u64)) -> String {
    format!(
        "{{\"format\":\"diptych-archive\",\"version\":1,\"tree_id\":\"{}\",\"complete\":{},\"entries\":{},\
         \"metadata\":{{\"root\":\"{}\",\"length\":{}}},\"payload\":{{\"root\":\"{}\",\"length\":{}}},\
         \"tool\":\"vectors\"}}",
        stream.tree_id,
        stream.flags == 0,
        stream.entries,
        metadata.0,
        metadata.1,
        payload.0,
        payload.1
    )
}
