//! Chunks and what is stored of them: compression and seal, and the way back with every check on it.
//!
//! One [`Compressor`] or [`Decompressor`] serves one thread at a time and keeps its context and buffers.
//!
//! A chunk is sealed and opened where it lies: nothing is copied for it.
//!
//! Spec: archive.md section 11, repository.md section 5.

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::{Deref, Range};

use diptych_format::map::place_of_ids;
use diptych_format::pack::{
    CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind, Codec, INNER_HEADER_LENGTH, InnerHeader, Seal,
};
use diptych_format::{Digest, Error, Result};

use crate::keys::{ChunkKeys, NONCE_LENGTH, Padding, TAG_LENGTH};

/// Length of the count of ids that a sealed segment has in clear, and of each id.
const COUNT_LENGTH: usize = 4;
const ID_LENGTH: usize = 32;

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
    keys: ChunkKeys,
    padding: Padding,
    /// Made when it is first needed; the error of making it belongs to the chunk that needs it.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// A compressor for one thread.
    pub fn new(compression: Compression, keys: ChunkKeys, padding: Padding) -> Self {
        Self { compression, keys, padding, zstd: None }
    }

    /// Appends header, inner header and data of the chunk whose bytes are `raw` to `out`, sealed where there are keys.
    ///
    /// Data that compression does not make at least a sixteenth smaller is stored as it is. Spec: R-5-3 to R-5-6.
    pub fn store(&mut self, kind: ChunkKind, id: Digest, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let most = kind.raw_length_max() as u64;
        let raw_length = u32::try_from(raw.len()).ok().filter(|length| u64::from(*length) <= most);
        let Some(raw_length) = raw_length else {
            return Err(Error::limit("raw length of a chunk", raw.len() as u64, most));
        };
        if raw_length == 0 {
            return Err(Error::corrupt("a chunk is empty"));
        }
        let seal = self.keys.seal_of(kind);
        if seal != Seal::None && kind == ChunkKind::Manifest {
            return Err(Error::corrupt("a manifest is no chunk of a repository"));
        }
        let (raw, clear) = if seal == Seal::Segment { without_ids(raw)? } else { (raw.into(), Vec::new()) };
        let start = out.len();
        let clear_start = start + CHUNK_HEADER_LENGTH;
        let seal_start = clear_start + clear.len();
        let inner_start = seal_start + if seal == Seal::None { 0 } else { NONCE_LENGTH };
        let data_start = inner_start + INNER_HEADER_LENGTH;
        // Room for the longest outcome: nothing is moved when padding and tag are appended.
        out.reserve(data_start - start + self.padding.padded(INNER_HEADER_LENGTH + raw.len()) + TAG_LENGTH);
        out.resize(data_start, 0);
        let codec = if self.compress(&raw, out, data_start)? {
            Codec::Zstd
        } else {
            out.truncate(data_start);
            out.extend_from_slice(&raw);
            Codec::Raw
        };
        if seal != Seal::None {
            out.resize(inner_start + self.padding.padded(out.len() - inner_start) + TAG_LENGTH, 0);
        }
        let stored_length = u32::try_from(out.len() - clear_start).unwrap_or(u32::MAX);
        let header = ChunkHeader { id, stored_length, kind, seal }.encode();
        put(out, start, &header);
        put(out, clear_start, &clear);
        put(out, inner_start, &InnerHeader { codec, raw_length }.encode());
        if let Some((key, chunk)) = self.keys.seal_key().zip(out.get_mut(start..)) {
            let (aad, place) = chunk.split_at_mut(seal_start - start);
            key.seal(place, aad)?;
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

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A segment with zeros for its chunk ids, and what stands of them in clear.
fn without_ids(segment: &[u8]) -> Result<(Cow<'_, [u8]>, Vec<u8>)> {
    let (place, count) = place_of_ids(segment)?;
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let ids = segment.get(place.clone()).unwrap_or_default();
    let clear = [&count.to_le_bytes()[..], ids].concat();
    let mut segment = segment.to_vec();
    segment.get_mut(place).unwrap_or_default().fill(0);
    Ok((segment.into(), clear))
}

/// Puts the ids that stood in clear back into their segment. Spec: R-5-4.
fn put_ids(segment: &mut [u8], ids: &[u8]) -> Result<()> {
    let (place, _) = place_of_ids(segment)?;
    match segment.get_mut(place) {
        Some(place) if place.len() == ids.len() && place.iter().all(|byte| *byte == 0) => {
            place.copy_from_slice(ids);
            Ok(())
        }
        _ => Err(Error::corrupt("a sealed segment has other chunk ids than stand before it")),
    }
}

/// The ids that a segment names, for whoever has no key: `stored` is what follows its header. Spec: R-5-4.
pub fn ids_in_clear(header: &ChunkHeader, stored: &[u8]) -> Result<Vec<Digest>> {
    if header.seal != Seal::Segment {
        return Err(Error::corrupt(format!("chunk {} is no sealed segment", header.id)));
    }
    let mut stored = stored.to_vec();
    let (clear, _) = split_clear(header, &mut stored)?;
    let (ids, _) = clear.get(COUNT_LENGTH..).unwrap_or_default().as_chunks::<ID_LENGTH>();
    Ok(ids.iter().map(|id| Digest(*id)).collect())
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

/// Gets the bytes of chunks back. The default is one for chunks that are not sealed.
#[derive(Default)]
pub struct Decompressor {
    keys: ChunkKeys,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    stored: Vec<u8>,
    spare: Vec<u8>,
}

impl Decompressor {
    /// A decompressor for one thread.
    pub fn new(keys: ChunkKeys) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Whether chunks are sealed, so that none opens that was changed.
    pub fn opens_seals(&self) -> bool {
        self.keys.is_sealed()
    }

    /// Gives the bytes of the chunk of which `stored` is what follows its header, in `out` or in `stored` itself,
    /// where it is opened. Spec: A-11-1 to A-11-5.
    pub fn open_chunk<'a>(
        &mut self,
        header: &ChunkHeader,
        stored: &'a mut [u8],
        verify: Verify,
        out: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        let place = self.open(header, stored, verify, out)?;
        Ok(place.map_or(&out[..], |place| stored.get(place).unwrap_or_default()))
    }

    /// The same; gives where in `stored` the bytes lie, none if they lie in `out`.
    fn open(
        &mut self,
        header: &ChunkHeader,
        stored: &mut [u8],
        verify: Verify,
        out: &mut Vec<u8>,
    ) -> Result<Option<Range<usize>>> {
        validate_seal(&self.keys, header)?;
        let (clear, sealed) = split_clear(header, stored)?;
        let nonce_length = if self.keys.is_sealed() { NONCE_LENGTH } else { 0 };
        let start = clear.len() + nonce_length + INNER_HEADER_LENGTH;
        let inner = match self.keys.seal_key() {
            None => sealed,
            Some(key) => {
                let bytes = header.encode();
                let aad: Cow<'_, [u8]> =
                    if clear.is_empty() { (&bytes[..]).into() } else { [&bytes[..], clear].concat().into() };
                key.open(sealed, &aad).ok_or_else(|| does_not_open(header))?
            }
        };
        let (fields, data) = match header.seal {
            Seal::None => InnerHeader::split(header.kind, inner)?,
            Seal::Sealed | Seal::Segment => split_padding(header.kind, inner)?,
        };
        let (raw, place) = match fields.codec {
            Codec::Raw => {
                let length = data.len();
                let raw = inner.get_mut(INNER_HEADER_LENGTH..INNER_HEADER_LENGTH + length);
                (raw.unwrap_or_default(), Some(start..start + length))
            }
            Codec::Zstd => {
                self.decode(data, fields.raw_length, out)?;
                (&mut out[..], None)
            }
        };
        if header.seal == Seal::Segment {
            put_ids(raw, clear.get(COUNT_LENGTH..).unwrap_or_default())?;
        }
        if verify == Verify::Id && self.keys.chunk_id(header.kind, raw) != header.id {
            return Err(Error::corrupt(format!("chunk {} has other bytes than its id says", header.id)));
        }
        Ok(place)
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
        validate_header(&self.keys, &stored, expected)?;
        let mut out = std::mem::take(&mut self.spare);
        let data = stored.get_mut(CHUNK_HEADER_LENGTH..).unwrap_or_default();
        if let Some(place) = self.open(expected, data, verify, &mut out)? {
            self.spare = out;
            let (start, end) = (CHUNK_HEADER_LENGTH + place.start, CHUNK_HEADER_LENGTH + place.end);
            // What lies behind it is no part of the chunk.
            stored.truncate(end);
            return Ok(ChunkBytes { buffer: stored, start });
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
fn validate_header(keys: &ChunkKeys, stored: &[u8], expected: &ChunkHeader) -> Result<()> {
    if stored.starts_with(&expected.encode()) {
        return Ok(());
    }
    // Of this chunk it may say something that is not known; anywhere else nothing that is there counts.
    if stored.starts_with(&expected.id.0) {
        validate_seal(keys, &ChunkHeader::decode(stored)?)?;
    }
    Err(Error::corrupt("a chunk's header says something else than the directory"))
}

/// Whoever has a key takes nothing that was not sealed with it; whoever has none cannot open anything sealed.
/// Spec: R-5-7.
fn validate_seal(keys: &ChunkKeys, header: &ChunkHeader) -> Result<()> {
    match header.seal {
        seal if seal == keys.seal_of(header.kind) => Ok(()),
        Seal::None => {
            let what = "is not sealed, as all chunks of an encrypted repository are";
            Err(Error::corrupt(format!("chunk {} {what}", header.id)))
        }
        _ => Err(Error::unsupported(format!("chunk {} is sealed, and there is no key here", header.id))),
    }
}

fn does_not_open(header: &ChunkHeader) -> Error {
    let what = "does not open: it was changed, or another repository's key sealed it";
    Error::corrupt(format!("sealed chunk {} {what}", header.id))
}

/// Splits off what stands in clear before the seal.
fn split_clear<'a>(header: &ChunkHeader, stored: &'a mut [u8]) -> Result<(&'a [u8], &'a mut [u8])> {
    let length = match header.seal {
        Seal::None | Seal::Sealed => Some(0),
        Seal::Segment => {
            let count = stored.first_chunk().map(|count| u32::from_le_bytes(*count));
            let count = count.and_then(|count| usize::try_from(count).ok());
            count.and_then(|count| count.checked_mul(ID_LENGTH)?.checked_add(COUNT_LENGTH))
        }
    };
    let parts = length.and_then(|length| stored.split_at_mut_checked(length));
    parts.map(|(clear, sealed)| (&*clear, sealed)).ok_or_else(|| does_not_open(header))
}

/// Splits inner header, data and padding of a chunk that was sealed. Spec: R-5-5.
fn split_padding(kind: ChunkKind, inner: &[u8]) -> Result<(InnerHeader, &[u8])> {
    let (fields, rest) = InnerHeader::split_padded(kind, inner)?;
    let length = match fields.codec {
        Codec::Raw => usize::try_from(fields.raw_length).ok(),
        Codec::Zstd => zstd::zstd_safe::find_frame_compressed_size(rest).ok(),
    };
    match length.and_then(|length| rest.split_at_checked(length)) {
        Some((data, padding)) if padding.iter().all(|byte| *byte == 0) => Ok((fields, data)),
        _ => Err(Error::corrupt("a sealed chunk has other data than its inner header says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_format::Class;
    use diptych_format::pack::chunk_id;
    use std::io::Write;

    const KIND: ChunkKind = ChunkKind::Payload;

    fn compressor(compression: Compression) -> Compressor {
        Compressor::new(compression, ChunkKeys::plain(), Padding::None)
    }

    fn store(compression: Compression, raw: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        compressor(compression).store(KIND, chunk_id(KIND, raw), raw, &mut out).unwrap();
        assert_eq!(out.drain(..6).collect::<Vec<_>>(), b"before");
        out
    }

    fn open(stored: &[u8]) -> Result<Vec<u8>> {
        let header = ChunkHeader::decode(stored)?;
        let mut out = Vec::new();
        Decompressor::default()
            .open_chunk(&header, &mut stored[CHUNK_HEADER_LENGTH..].to_vec(), Verify::Id, &mut out)
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
        compressor(Compression::Zstd(1)).store(KIND, chunk_id(KIND, &raw), &raw, &mut out).unwrap();
        assert_eq!(out, store(Compression::Zstd(1), &raw));
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let mut out = Vec::new();
        let mut compressor = compressor(Compression::None);
        let mut class = |raw: &[u8]| compressor.store(KIND, Digest::NONE, raw, &mut out).unwrap_err().class;
        assert_eq!(class(&[]), Class::Corrupt);
        assert_eq!(class(&vec![0; KIND.raw_length_max() + 1]), Class::Limit);
    }

    fn stored_as(codec: u8, raw_length: u32, data: &[u8], id: Digest) -> Vec<u8> {
        let mut stored =
            ChunkHeader { id, stored_length: 8 + data.len() as u32, kind: KIND, seal: Seal::None }
                .encode()
                .to_vec();
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
            assert!(Decompressor::default().read_chunk(&header, Verify::Id, fill).unwrap().is_empty());
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
        let mut decompressor = Decompressor::default();
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
