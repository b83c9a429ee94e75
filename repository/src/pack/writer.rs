//! Writes a pack from front to back. Nothing is written twice and nothing is read back from the file, so that it
//! can be a pipe.
//!
//! Spec: archive.md section 11.

use std::collections::HashSet;
use std::io::{BufWriter, Write};

use diptych_format::pack::{
    ChunkHeader, ChunkKind, HEADER_LENGTH, PackDirectory, PackHolds, PackTrailer, TRAILER_LENGTH,
    directory_digest, encode_directory, encode_header,
};
use diptych_format::{Digest, Error, Result, Stream, limits};

/// Small chunks are gathered to writes of this length; larger ones are written from where they are.
const BUFFER_LENGTH: usize = 256 << 10;

/// What a pack has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackStats {
    /// Number of chunks.
    pub chunks: u64,
    /// Length of the whole pack.
    pub pack_length: u64,
}

/// A pack that is being written.
pub struct PackWriter<W: Write> {
    out: BufWriter<W>,
    holds: PackHolds,
    chunks: Vec<ChunkHeader>,
    present: HashSet<Digest>,
    offset: u64,
    salt: u64,
}

impl<W: Write> PackWriter<W> {
    /// Begins a pack.
    pub fn new(out: W, holds: PackHolds) -> Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_LENGTH, out);
        let mut writer = Self { out, holds, chunks: Vec::new(), present: HashSet::new(), offset: 0, salt: 0 };
        writer.write(&encode_header(holds))?;
        Ok(writer)
    }

    /// Appends a chunk; `stored` is what [`crate::chunk::Compressor::store`] made of it, header included.
    pub fn append(&mut self, id: Digest, kind: ChunkKind, stored: &[u8]) -> Result<()> {
        let at = |error: Error| error.at(Stream::Pack, self.offset);
        let header = ChunkHeader::decode(stored).map_err(at)?;
        if (header.id, header.kind) != (id, kind) || header.whole_length() != stored.len() as u64 {
            return Err(at(Error::corrupt("what is stored of a chunk does not fit it")));
        }
        if !self.holds.admits(kind) {
            return Err(at(Error::corrupt(format!("a {} chunk has no place in this pack", kind.word()))));
        }
        if self.chunks.len() as u64 >= limits::PACK_CHUNKS_MAX {
            return Err(Error::limit(
                "chunks of a pack",
                limits::PACK_CHUNKS_MAX + 1,
                limits::PACK_CHUNKS_MAX,
            ));
        }
        if !self.present.insert(id) {
            return Err(at(Error::corrupt(format!("chunk {id} is in the pack already"))));
        }
        self.chunks.push(header);
        self.write(stored)
    }

    /// Which chunks the pack may hold.
    pub fn holds(&self) -> PackHolds {
        self.holds
    }

    /// Number of chunks so far.
    pub fn chunks(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// Length of the pack so far.
    pub fn length(&self) -> u64 {
        self.offset
    }

    /// Makes the pack differ from others of the same chunks, but for those with the same salt.
    pub fn set_salt(&mut self, salt: u64) {
        self.salt = salt;
    }

    /// Writes directory and trailer and gives back what was written to, flushed; making it durable is the caller's.
    pub fn finish(mut self) -> Result<(W, PackStats)> {
        let directory = encode_directory(&self.chunks, self.salt)?;
        self.validate_directory(&directory)?;
        let pack_length = self.offset + (directory.len() + TRAILER_LENGTH) as u64;
        let trailer = PackTrailer {
            directory_digest: directory_digest(&directory),
            directory_length: directory.len() as u64,
            pack_length,
        };
        self.write(&directory)?;
        self.write(&trailer.encode())?;
        let stats = PackStats { chunks: self.chunks.len() as u64, pack_length };
        let out =
            self.out.into_inner().map_err(|error| Error::io("cannot write a pack", error.into_error()))?;
        Ok((out, stats))
    }

    /// Reads the directory as a reader will: what it does not say is lost.
    fn validate_directory(&self, directory: &[u8]) -> Result<()> {
        let read = PackDirectory::parse(directory, self.holds, self.offset)?;
        let mut offset = HEADER_LENGTH as u64;
        let is_same = read.rows() == self.chunks.len()
            && read.chunks().zip(&self.chunks).all(|((found_offset, found), chunk)| {
                let is_same = found == *chunk && found_offset == offset;
                offset += chunk.whole_length();
                is_same
            });
        if is_same {
            Ok(())
        } else {
            Err(Error::corrupt("a pack's directory does not come back as it was written"))
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| Error::io("cannot write a pack", error))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Compression, Compressor};
    use crate::keys::{ChunkKeys, Padding};
    use diptych_format::Class;
    use diptych_format::pack::chunk_id;

    #[test]
    fn what_does_not_belong_is_refused() {
        let mut stored = Vec::new();
        let id = chunk_id(ChunkKind::Payload, b"abc");
        Compressor::new(Compression::None, ChunkKeys::plain(), Padding::None)
            .store(ChunkKind::Payload, id, b"abc", &mut stored)
            .unwrap();
        let class = |holds, id, kind, stored: &[u8]| {
            PackWriter::new(Vec::new(), holds).unwrap().append(id, kind, stored).unwrap_err().class
        };
        assert_eq!(class(PackHolds::Metadata, id, ChunkKind::Payload, &stored), Class::Corrupt);
        assert_eq!(class(PackHolds::Both, id, ChunkKind::Metadata, &stored), Class::Corrupt);
        assert_eq!(class(PackHolds::Both, Digest::NONE, ChunkKind::Payload, &stored), Class::Corrupt);
        assert_eq!(class(PackHolds::Both, id, ChunkKind::Payload, &stored[..50]), Class::Corrupt);
        let mut writer = PackWriter::new(Vec::new(), PackHolds::Both).unwrap();
        writer.append(id, ChunkKind::Payload, &stored).unwrap();
        assert_eq!(writer.append(id, ChunkKind::Payload, &stored).unwrap_err().class, Class::Corrupt);
        assert_eq!((writer.chunks(), writer.length()), (1, 16 + 51));
        let (bytes, stats) = writer.finish().unwrap();
        assert_eq!(bytes.len() as u64, stats.pack_length);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let writer = PackWriter::new(full, PackHolds::Both).unwrap();
        assert_eq!(writer.finish().map(|_| ()).unwrap_err().class, Class::Io);
    }
}
