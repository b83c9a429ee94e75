//! Finds the chunks of a pack that lacks its end, from chunk header to chunk header.
//!
//! Spec: archive.md section 11.

use diptych_format::pack::{CHUNK_HEADER_LENGTH, ChunkHeader, HEADER_LENGTH, PackHolds, decode_header};
use diptych_format::section::{self, PACK_DIRECTORY};
use diptych_format::{Error, ReadAt, Result, Stream};

use super::StoredChunk;

/// What can be found without a directory. Headers alone were read: a chunk is whole once it has been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltDirectory {
    /// Which chunks the pack may hold.
    pub holds: PackHolds,
    /// The chunks that lie wholly inside the file, in stored order.
    pub chunks: Vec<StoredChunk>,
    /// Where the last of them ends: what follows is a directory, an unfinished chunk, or damage.
    pub end: u64,
}

/// Walks over the chunks of a pack up to the first place where none stands.
pub fn rebuild_directory(file: &dyn ReadAt) -> Result<RebuiltDirectory> {
    let length = file.len();
    let mut header = [0; HEADER_LENGTH];
    if length < HEADER_LENGTH as u64 {
        return Err(Error::truncated("the pack ends inside its header").at(Stream::Pack, 0));
    }
    file.read_exact_at(&mut header, 0).map_err(|error| error.at(Stream::Pack, 0))?;
    let mut found =
        RebuiltDirectory { holds: decode_header(&header)?, chunks: Vec::new(), end: HEADER_LENGTH as u64 };
    let mut bytes = [0; CHUNK_HEADER_LENGTH];
    while length - found.end >= CHUNK_HEADER_LENGTH as u64 {
        file.read_exact_at(&mut bytes, found.end).map_err(|error| error.at(Stream::Pack, found.end))?;
        let Ok(header) = ChunkHeader::decode(&bytes) else { break };
        let fits = header.whole_length() <= length - found.end && found.holds.admits(header.kind);
        if !fits || is_directory(&bytes, length - found.end) {
            break;
        }
        found.chunks.push(StoredChunk { offset: found.end, header });
        found.end += header.whole_length();
    }
    Ok(found)
}

/// Whether these bytes begin a directory that the file has room for rather than a chunk whose id looks like one.
fn is_directory(bytes: &[u8], room: u64) -> bool {
    section::peek(bytes).is_ok_and(|(tag, length)| tag == PACK_DIRECTORY && length % 8 == 0 && length <= room)
}
