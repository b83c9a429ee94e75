//! The directory of a pack: which chunks it has, in the order in which they lie.
//!
//! Spec: archive.md section 11.

use super::chunk::{ChunkHeader, ChunkKind, Seal, validate_stored_length};
use super::{CHUNK_HEADER_LENGTH, HEADER_LENGTH, PackHolds};
use crate::digest::{CONTEXT_PACK_DIRECTORY, Digest};
use crate::error::{Error, Result, Stream};
use crate::limits;
use crate::section::{
    Digests, Ints, PACK_CHUNK_ID, PACK_DIRECTORY, PACK_KIND, PACK_SALT, PACK_SEAL, PACK_STORED_LENGTH,
    Section, SectionBuilder,
};

/// The bytes of the directory of a pack with these chunks, in stored order. A `salt` other than zero gives the pack
/// another name than the same chunks had before.
pub fn encode_directory(chunks: &[ChunkHeader], salt: u64) -> Result<Vec<u8>> {
    validate_count(chunks.len())?;
    let ids: Vec<Digest> = chunks.iter().map(|chunk| chunk.id).collect();
    let kinds: Vec<u64> = chunks.iter().map(|chunk| u64::from(chunk.kind.number())).collect();
    let lengths: Vec<u64> = chunks.iter().map(|chunk| u64::from(chunk.stored_length)).collect();
    let seals: Vec<u64> = chunks.iter().map(|chunk| u64::from(chunk.seal.number())).collect();
    let mut out = Vec::new();
    SectionBuilder::new(PACK_DIRECTORY, chunks.len())
        .digests(PACK_CHUNK_ID, &ids)
        .ints(PACK_KIND, &kinds)
        .ints(PACK_STORED_LENGTH, &lengths)
        .ints(PACK_SEAL, &seals)
        .ints(PACK_SALT, &[salt])
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
    seals: Ints<'a>,
}

impl<'a> PackDirectory<'a> {
    /// Checks the directory that `bytes` are, which starts at `offset` of a pack. Spec: A-11-7 and A-11-10.
    pub fn parse(bytes: &'a [u8], holds: PackHolds, offset: u64) -> Result<Self> {
        let parsed = Self::parse_unplaced(bytes, holds, offset, |_, _| true);
        parsed.map_err(|error| error.at(Stream::Pack, offset))
    }

    /// The same of an archive file, where kinds and seals of repositories are not known. Spec: A-11-4.
    pub fn parse_archive(bytes: &'a [u8], holds: PackHolds, offset: u64) -> Result<Self> {
        let is_known = |kind, seal| kind != ChunkKind::Report && seal == Seal::None;
        let parsed = Self::parse_unplaced(bytes, holds, offset, is_known);
        parsed.map_err(|error| error.at(Stream::Pack, offset))
    }

    fn parse_unplaced(
        bytes: &'a [u8],
        holds: PackHolds,
        offset: u64,
        is_known: impl Fn(ChunkKind, Seal) -> bool,
    ) -> Result<Self> {
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
            seals: section.ints(PACK_SEAL, rows)?,
        };
        // It says nothing, but is checked as all known columns are.
        section.ints(PACK_SALT, 1)?;
        let mut end = HEADER_LENGTH as u64;
        for row in 0..rows {
            let kind = ChunkKind::from_number(directory.kinds.get(row))?;
            let length = directory.lengths.get(row);
            let seal = Seal::from_number(directory.seals.get(row), kind)?;
            if !is_known(kind, seal) {
                return Err(Error::unsupported(format!(
                    "a {} chunk (seal {}) is one of a repository, and this is an archive file",
                    kind.word(),
                    seal.number()
                )));
            }
            validate_stored_length(kind, seal, length)?;
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
            let kind = ChunkKind::from_number(self.kinds.get(row)).ok()?;
            let header = ChunkHeader {
                id: self.ids.get(row),
                stored_length: u32::try_from(self.lengths.get(row)).ok()?,
                kind,
                seal: Seal::from_number(self.seals.get(row), kind).ok()?,
            };
            let offset = next;
            next += header.whole_length();
            Some((offset, header))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    #[test]
    fn directories_come_back_and_must_fit_their_place() {
        let chunks: Vec<ChunkHeader> = (0..300u32)
            .map(|n| ChunkHeader {
                id: Digest::of(&n.to_le_bytes()),
                stored_length: 9 + n,
                kind: ChunkKind::Payload,
                seal: if n % 2 == 0 { Seal::None } else { Seal::Sealed },
            })
            .collect();
        let end = 16 + chunks.iter().map(ChunkHeader::whole_length).sum::<u64>();
        let bytes = encode_directory(&chunks, 0).unwrap();
        let directory = PackDirectory::parse(&bytes, PackHolds::Payload, end).unwrap();
        let salted = encode_directory(&chunks, 7).unwrap();
        assert_ne!(salted, bytes);
        let again = PackDirectory::parse(&salted, PackHolds::Payload, end).unwrap();
        assert!(again.chunks().eq(directory.chunks()));
        assert_eq!(directory.chunks().map(|(_, chunk)| chunk).collect::<Vec<_>>(), chunks);
        assert_eq!(directory.chunks().nth(1).unwrap().0, 16 + 40 + 9);
        for (holds, offset) in [(PackHolds::Payload, end + 1), (PackHolds::Metadata, end)] {
            assert_eq!(PackDirectory::parse(&bytes, holds, offset).unwrap_err().class, Class::Corrupt);
        }
        assert!(PackDirectory::parse(&encode_directory(&[], 0).unwrap(), PackHolds::Both, 16).is_ok());
    }
}
