//! Chunks and what is stored of them: compression, and the way back with every check on it.
//!
//! One [`Compressor`] or [`Decompressor`] serves one thread at a time and keeps its context and buffers.
//!
//! Spec: archive.md section 11.

use std::io::Cursor;
use std::ops::Deref;

use diptych_format::pack::{
    CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind, Codec, INNER_HEADER_LENGTH, InnerHeader, chunk_id,
};
use diptych_format::{Digest, Error, Result};

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// With zstd at this level.
    Zstd(i32),
}

impl Default for Compression {
    fn default() -> Self {
        Compression::Zstd(1)
    }
}

impl Compression {
    /// Metadata is small and read often: it deserves a higher level where contents are compressed at all.
    #[must_use]
    pub fn for_metadata(self) -> Self {
        match self {
            Compression::None => Compression::None,
            Compression::Zstd(level) => Compression::Zstd(level.max(3)),
        }
    }
}

/// Makes what is stored of chunks.
pub struct Compressor {
    compression: Compression,
    /// Made when it is first needed; the error of making it belongs to the chunk that needs it.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// A compressor for one thread.
    pub fn new(compression: Compression) -> Self {
        Self { compression, zstd: None }
    }

    /// Appends header, inner header and data of the chunk whose bytes are `raw` to `out`.
    ///
    /// Data that compression does not make at least a sixteenth smaller is stored as it is.
    pub fn store(&mut self, kind: ChunkKind, id: Digest, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let most = kind.raw_length_max() as u64;
        let raw_length = u32::try_from(raw.len()).ok().filter(|length| u64::from(*length) <= most);
        let Some(raw_length) = raw_length else {
            return Err(Error::limit("raw length of a chunk", raw.len() as u64, most));
        };
        if raw_length == 0 {
            return Err(Error::corrupt("a chunk is empty"));
        }
        let start = out.len();
        let inner_start = start + CHUNK_HEADER_LENGTH;
        let data_start = inner_start + INNER_HEADER_LENGTH;
        out.reserve(data_start - start + raw.len());
        out.resize(data_start, 0);
        let codec = if self.compress(raw, out, data_start)? {
            Codec::Zstd
        } else {
            out.truncate(data_start);
            out.extend_from_slice(raw);
            Codec::Raw
        };
        let stored_length = u32::try_from(out.len() - inner_start).unwrap_or(u32::MAX);
        let header = ChunkHeader { id, stored_length, kind }.encode();
        let inner = InnerHeader { codec, raw_length }.encode();
        if let Some(place) = out.get_mut(start..inner_start) {
            place.copy_from_slice(&header);
        }
        if let Some(place) = out.get_mut(inner_start..data_start) {
            place.copy_from_slice(&inner);
        }
        Ok(())
    }

    /// Appends the compressed bytes to `out`, whose capacity holds the raw ones, and says whether that was worth it.
    fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>, data_start: usize) -> Result<bool> {
        let Compression::Zstd(level) = self.compression else { return Ok(false) };
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            None => {
                let new = zstd::bulk::Compressor::new(level);
                self.zstd.insert(new.map_err(|error| Error::io("cannot set up compression", error))?)
            }
        };
        // The one error that can happen is that the result takes more room than there is.
        let mut place = Cursor::new(out);
        place.set_position(data_start as u64);
        let worth = raw.len() - raw.len() / 16;
        Ok(zstd.compress_to_buffer(raw, &mut place).is_ok_and(|length| length < worth))
    }
}

/// Whether a chunk's id is checked when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It is.
    Id,
    /// The caller has a digest of the bytes that it checks before it hands any of them out.
    Caller,
}

/// The bytes of a chunk. Where they were stored as they are, they lie behind what was stored before them.
#[derive(Debug, Default)]
pub struct ChunkBytes {
    buffer: Vec<u8>,
    start: usize,
}

impl ChunkBytes {
    /// The memory that they take.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back memory that they do not need: a buffer that is reused is as large as the largest chunk before.
    pub fn shrink(&mut self) {
        if self.buffer.capacity() > 2 * self.buffer.len() {
            self.buffer.shrink_to_fit();
        }
    }
}

impl Deref for ChunkBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }
}

/// Gets the bytes of chunks back.
#[derive(Default)]
pub struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    stored: Vec<u8>,
    spare: Vec<u8>,
}

impl Decompressor {
    /// A decompressor for one thread.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the bytes of the chunk of which `stored` is what follows its header, in `out` or in `stored` itself.
    /// Spec: A-11-1 to A-11-5.
    pub fn open_chunk<'a>(
        &mut self,
        header: &ChunkHeader,
        stored: &'a [u8],
        verify: Verify,
        out: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        let (inner, data) = InnerHeader::split(header.kind, stored)?;
        let raw = match inner.codec {
            Codec::Raw => data,
            Codec::Zstd => {
                self.decode(data, inner.raw_length, out)?;
                out
            }
        };
        if verify == Verify::Id && chunk_id(header.kind, raw) != header.id {
            return Err(Error::corrupt(format!("chunk {} has other bytes than its id says", header.id)));
        }
        Ok(raw)
    }

    /// Reads a stored chunk by `fill`, which gets a buffer of the length of header and data, and opens it.
    ///
    /// `expected` is what the directory says of it; the chunk's own header must say the same.
    pub fn read_chunk(
        &mut self,
        expected: &ChunkHeader,
        verify: Verify,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<ChunkBytes> {
        let whole = CHUNK_HEADER_LENGTH + expected.stored_length as usize;
        let mut stored = std::mem::take(&mut self.stored);
        if stored.capacity() < whole {
            stored = vec![0; whole];
        }
        stored.resize(whole, 0);
        fill(&mut stored)?;
        validate_header(&stored, expected)?;
        let mut out = std::mem::take(&mut self.spare);
        let data = stored.get(CHUNK_HEADER_LENGTH..).unwrap_or_default();
        let length = self.open_chunk(expected, data, verify, &mut out)?.len();
        if out.is_empty() {
            self.spare = out;
            return Ok(ChunkBytes { buffer: stored, start: whole - length });
        }
        self.stored = stored;
        Ok(ChunkBytes { buffer: out, start: 0 })
    }

    /// Takes the memory of a chunk that is no longer needed, for the next one.
    pub fn recycle(&mut self, bytes: ChunkBytes) {
        let mut buffer = bytes.buffer;
        if bytes.start == 0 {
            buffer.clear();
            self.spare = buffer;
        } else {
            self.stored = buffer;
        }
    }

    fn decode(&mut self, data: &[u8], raw_length: u32, out: &mut Vec<u8>) -> Result<()> {
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            None => {
                let new = zstd::bulk::Decompressor::new();
                self.zstd.insert(new.map_err(|error| Error::io("cannot set up decompression", error))?)
            }
        };
        if zstd::zstd_safe::find_frame_compressed_size(data) != Ok(data.len()) {
            return Err(Error::corrupt("a chunk's data is not one zstd frame"));
        }
        out.clear();
        // Within the limit of the chunk's kind, which splitting off the inner header has checked.
        out.reserve_exact(raw_length as usize);
        match zstd.decompress_to_buffer(data, out) {
            Ok(length) if length == raw_length as usize => Ok(()),
            Ok(length) => {
                Err(Error::corrupt(format!("a chunk decodes to {length} bytes instead of {raw_length}")))
            }
            Err(error) => Err(Error::corrupt(format!("a chunk cannot be decoded: {error}"))),
        }
    }
}

/// A chunk's own header must say what the directory says.
fn validate_header(stored: &[u8], expected: &ChunkHeader) -> Result<()> {
    if stored.starts_with(&expected.encode()) {
        return Ok(());
    }
    // Of this chunk it may say something that is not known; anywhere else nothing that is there counts.
    match ChunkHeader::decode(stored) {
        Err(error) if stored.starts_with(&expected.id.0) => Err(error),
        _ => Err(Error::corrupt("a chunk's header says something else than the directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_format::Class;
    use std::io::Write;

    const KIND: ChunkKind = ChunkKind::Payload;

    fn store(compression: Compression, raw: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        Compressor::new(compression).store(KIND, chunk_id(KIND, raw), raw, &mut out).unwrap();
        assert_eq!(out.drain(..6).collect::<Vec<_>>(), b"before");
        out
    }

    fn open(stored: &[u8]) -> Result<Vec<u8>> {
        let header = ChunkHeader::decode(stored)?;
        let mut out = Vec::new();
        Decompressor::new()
            .open_chunk(&header, &stored[CHUNK_HEADER_LENGTH..], Verify::Id, &mut out)
            .map(<[u8]>::to_vec)
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u64).map(|n| Digest::of(&n.to_le_bytes()).0[0]).collect()
    }

    #[test]
    fn chunks_come_back_with_or_without_compression() {
        for raw in
            [vec![7; 1], vec![7; 14], vec![7; 100_000], noise(50_000), [noise(900), vec![0; 9000]].concat()]
        {
            for compression in
                [Compression::None, Compression::Zstd(1), Compression::Zstd(-3), Compression::Zstd(19)]
            {
                let stored = store(compression, &raw);
                assert!(stored.len() <= 48 + raw.len());
                assert_eq!(open(&stored).unwrap(), raw);
            }
        }
        assert!(store(Compression::Zstd(1), &[7; 100_000]).len() < 200);
        assert_eq!(store(Compression::Zstd(1), &noise(50_000)).len(), 50_048);
    }

    #[test]
    fn a_dirty_buffer_with_room_gives_the_same_bytes() {
        let raw = noise(30_000);
        let mut out = Vec::with_capacity(1 << 20);
        out.resize(70_000, 9);
        out.clear();
        Compressor::new(Compression::Zstd(1)).store(KIND, chunk_id(KIND, &raw), &raw, &mut out).unwrap();
        assert_eq!(out, store(Compression::Zstd(1), &raw));
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let mut out = Vec::new();
        let mut compressor = Compressor::new(Compression::None);
        let mut class = |raw: &[u8]| compressor.store(KIND, Digest::NONE, raw, &mut out).unwrap_err().class;
        assert_eq!(class(&[]), Class::Corrupt);
        assert_eq!(class(&vec![0; KIND.raw_length_max() + 1]), Class::Limit);
    }

    fn stored_as(codec: u8, raw_length: u32, data: &[u8], id: Digest) -> Vec<u8> {
        let mut stored =
            ChunkHeader { id, stored_length: 8 + data.len() as u32, kind: KIND }.encode().to_vec();
        stored.extend([codec, 0, 0, 0]);
        stored.extend(raw_length.to_le_bytes());
        stored.extend(data);
        stored
    }

    #[test]
    fn wrong_frames_lengths_and_ids_are_refused() {
        let raw = vec![5; 1000];
        let id = chunk_id(KIND, &raw);
        let frame = zstd::bulk::compress(&raw, 1).unwrap();
        assert_eq!(open(&stored_as(1, 1000, &frame, id)).unwrap(), raw);
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &frame].concat();
        for (length, data) in [
            (999, frame.clone()),
            (1001, frame.clone()),
            (1000, [&frame[..], &[0]].concat()),
            (1000, frame[..frame.len() - 1].to_vec()),
            (2000, [&frame[..], &frame].concat()),
            (1000, skippable),
            (1000, skippable_only()),
            (1000, b"not zstd".to_vec()),
        ] {
            assert_eq!(open(&stored_as(1, length, &data, id)).unwrap_err().class, Class::Corrupt);
        }
        assert_eq!(open(&stored_as(0, 1000, &raw, Digest::NONE)).unwrap_err().class, Class::Corrupt);
    }

    #[test]
    fn an_empty_chunk_that_someone_stored_opens_to_nothing() {
        let frame = zstd::bulk::compress(&[], 1).unwrap();
        for stored in
            [stored_as(0, 0, &[], chunk_id(KIND, &[])), stored_as(1, 0, &frame, chunk_id(KIND, &[]))]
        {
            let header = ChunkHeader::decode(&stored).unwrap();
            let fill = |buffer: &mut [u8]| {
                buffer.copy_from_slice(&stored);
                Ok(())
            };
            assert!(Decompressor::new().read_chunk(&header, Verify::Id, fill).unwrap().is_empty());
        }
    }

    fn skippable_only() -> Vec<u8> {
        [&[0x50, 0x2a, 0x4d, 0x18][..], &4u32.to_le_bytes(), b"skip"].concat()
    }

    #[test]
    fn a_frame_that_does_not_tell_its_length_is_one_too() {
        let raw = noise(5000).repeat(3);
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        raw.chunks(7).for_each(|part| encoder.write_all(part).unwrap());
        let frame = encoder.finish().unwrap();
        assert_eq!(open(&stored_as(1, 15_000, &frame, chunk_id(KIND, &raw))).unwrap(), raw);
    }

    #[test]
    fn buffers_are_reused_and_never_leak_bytes() {
        let mut decompressor = Decompressor::new();
        for round in 0..20_u8 {
            let raw = if round % 3 == 0 {
                noise(1000 + usize::from(round))
            } else {
                vec![round; 3000 - 100 * usize::from(round)]
            };
            let stored = store(Compression::Zstd(1), &raw);
            let header = ChunkHeader::decode(&stored).unwrap();
            let fill = |buffer: &mut [u8]| {
                buffer.copy_from_slice(&stored);
                Ok(())
            };
            let bytes = decompressor.read_chunk(&header, Verify::Id, fill).unwrap();
            assert_eq!(&bytes[..], raw);
            if round % 2 == 0 {
                decompressor.recycle(bytes);
            }
        }
    }
}
