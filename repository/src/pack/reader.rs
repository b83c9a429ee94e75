//! Reads chunks of a pack by their ids.
//!
//! Spec: archive.md section 11.

use std::sync::Arc;

use diptych_format::pack::{
    CHUNK_HEADER_LENGTH, ChunkHeader, ChunkKind, HEADER_LENGTH, PackDirectory, PackHolds, PackTrailer,
    TRAILER_LENGTH, decode_header, directory_digest,
};
use diptych_format::{Digest, Error, ReadAt, Result, Stream};

use super::ChunkSource;
use crate::chunk::{ChunkBytes, Decompressor, Verify};

/// What is read from the end at once: trailer and, of most packs, the directory.
const TAIL_LENGTH: u64 = 64 << 10;

/// A chunk and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// Where its header starts in the pack.
    pub offset: u64,
    /// What the header says.
    pub header: ChunkHeader,
}

impl StoredChunk {
    /// Where it ends in the pack.
    pub fn end(&self) -> u64 {
        self.offset + self.header.whole_length()
    }
}

/// How the directory is read: as an archive file's or as any pack's.
type ParseDirectory = for<'a> fn(&'a [u8], PackHolds, u64) -> Result<PackDirectory<'a>>;

/// An open pack.
pub struct PackReader {
    file: Arc<dyn ReadAt>,
    holds: PackHolds,
    /// In stored order.
    chunks: Vec<StoredChunk>,
    /// Places in `chunks` in ascending order of ids.
    by_id: Vec<u32>,
}

impl PackReader {
    /// Reads trailer, header and directory. Spec: A-11-6 to A-11-10.
    pub fn open(file: Arc<dyn ReadAt>) -> Result<Self> {
        Self::open_by(file, |bytes, holds, start| PackDirectory::parse(bytes, holds, start))
    }

    /// The same of an archive file, where kinds and seals of repositories are not known.
    pub fn open_archive(file: Arc<dyn ReadAt>) -> Result<Self> {
        Self::open_by(file, |bytes, holds, start| PackDirectory::parse_archive(bytes, holds, start))
    }

    fn open_by(file: Arc<dyn ReadAt>, parse: ParseDirectory) -> Result<Self> {
        let length = file.len();
        let at = |offset| move |error: Error| error.at(Stream::Pack, offset);
        let mut header = [0; HEADER_LENGTH];
        if length < HEADER_LENGTH as u64 {
            return Err(Error::truncated("the pack ends inside its header")).map_err(at(0));
        }
        file.read_exact_at(&mut header, 0).map_err(at(0))?;
        let holds = decode_header(&header)?;
        if length < (HEADER_LENGTH + TRAILER_LENGTH) as u64 {
            return Err(Error::truncated("the pack has no end")).map_err(at(0));
        }
        let tail_start = length - length.min(TAIL_LENGTH);
        let tail = read(&*file, tail_start, length).map_err(at(tail_start))?;
        let (before, trailer) =
            tail.split_last_chunk::<TRAILER_LENGTH>().ok_or_else(|| Error::truncated("no end"))?;
        let trailer = PackTrailer::decode(trailer, length)?;
        let start = trailer.directory_offset()?;
        let (chunks, by_id) = match start
            .checked_sub(tail_start)
            .and_then(|start| usize::try_from(start).ok())
        {
            Some(inside) => index(before.get(inside..).unwrap_or_default(), &trailer, holds, start, parse)?,
            None => {
                let directory = read(&*file, start, length - TRAILER_LENGTH as u64).map_err(at(start))?;
                index(&directory, &trailer, holds, start, parse)?
            }
        };
        Ok(Self { file, holds, chunks, by_id })
    }

    /// Which chunks the pack may hold.
    pub fn holds(&self) -> PackHolds {
        self.holds
    }

    /// All chunks in stored order.
    pub fn chunks(&self) -> &[StoredChunk] {
        &self.chunks
    }

    /// Where a chunk stands.
    pub fn locate(&self, id: &Digest) -> Option<StoredChunk> {
        let chunk = |place: &u32| self.chunks.get(*place as usize);
        let found =
            self.by_id.binary_search_by_key(&Some(id), |place| chunk(place).map(|chunk| &chunk.header.id));
        found.ok().and_then(|found| self.by_id.get(found)).and_then(chunk).copied()
    }

    /// Id of the manifest: the last chunk, and no other is one. Spec: A-12-1 and A-12-2.
    pub fn manifest_id(&self) -> Result<Digest> {
        let is_manifest = |chunk: &&StoredChunk| chunk.header.kind == ChunkKind::Manifest;
        let first = self.chunks.iter().find(is_manifest);
        let Some((first, last)) = first.zip(self.chunks.last()) else {
            return Err(Error::corrupt("the pack has no manifest: it is not the metadata of an archive")
                .at(Stream::Pack, 0));
        };
        if first.header.id != last.header.id {
            let error = Error::corrupt("a manifest is not the last chunk of its pack");
            return Err(error.at(Stream::Pack, first.offset));
        }
        Ok(first.header.id)
    }

    /// Reads and opens a chunk that this pack has.
    pub fn read_stored(
        &self,
        chunk: &StoredChunk,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Result<ChunkBytes> {
        let fill = |buffer: &mut [u8]| self.file.read_exact_at(buffer, chunk.offset);
        decompressor
            .read_chunk(&chunk.header, verify, fill)
            .map_err(|error| error.at(Stream::Pack, chunk.offset))
    }

    /// What is stored of a chunk, header included, as it lies: for copying it elsewhere.
    pub fn read_unopened(&self, chunk: &StoredChunk, out: &mut Vec<u8>) -> Result<()> {
        out.resize(CHUNK_HEADER_LENGTH + chunk.header.stored_length as usize, 0);
        self.file.read_exact_at(out, chunk.offset).map_err(|error| error.at(Stream::Pack, chunk.offset))
    }
}

impl ChunkSource for PackReader {
    fn read_chunk(
        &self,
        kind: ChunkKind,
        id: &Digest,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Result<ChunkBytes> {
        let Some(chunk) = self.locate(id) else {
            return Err(Error::missing(format!("chunk {id} is not in the pack")));
        };
        if chunk.header.kind != kind {
            return Err(Error::corrupt(format!(
                "chunk {id} is of kind {} where {} is expected",
                chunk.header.kind.word(),
                kind.word()
            ))
            .at(Stream::Pack, chunk.offset));
        }
        self.read_stored(&chunk, verify, decompressor)
    }
}

fn read(file: &dyn ReadAt, start: u64, end: u64) -> Result<Vec<u8>> {
    // Both lie inside the file.
    let length = end.saturating_sub(start);
    let length =
        usize::try_from(length).map_err(|_| Error::limit("bytes at once", length, usize::MAX as u64))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

fn index(
    directory: &[u8],
    trailer: &PackTrailer,
    holds: PackHolds,
    start: u64,
    parse: ParseDirectory,
) -> Result<(Vec<StoredChunk>, Vec<u32>)> {
    let at = |error: Error| error.at(Stream::Pack, start);
    if directory_digest(directory) != trailer.directory_digest {
        return Err(at(Error::corrupt("a pack's directory has another digest than its trailer says")));
    }
    let directory = parse(directory, holds, start)?;
    let chunks: Vec<StoredChunk> =
        directory.chunks().map(|(offset, header)| StoredChunk { offset, header }).collect();
    let id = |place: &u32| chunks.get(*place as usize).map(|chunk| &chunk.header.id);
    // A directory has at most 2^27 rows.
    let mut by_id: Vec<u32> = (0..u32::try_from(chunks.len()).unwrap_or(u32::MAX)).collect();
    by_id.sort_unstable_by_key(id);
    if by_id.array_windows().any(|[a, b]| id(a) == id(b)) {
        return Err(at(Error::corrupt("a pack has a chunk twice")));
    }
    Ok((chunks, by_id))
}
