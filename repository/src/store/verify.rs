//! Reads a pack from front to back, and finds every byte of it right or says what is not.
//!
//! Spec: repository.md sections 2 and 5.

use diptych_format::{Digest, Error, ReadAt, Result, Stream};

use crate::chunk::{Decompressor, Verify};
use crate::pack::{PackReader, StoredChunk};

/// Bytes that are read at once, unless one chunk is longer.
const RUN_MAX: u64 = 4 << 20;

/// Reads all of a pack once: its bytes must have the digest that is its name, and each chunk must open and have the
/// bytes that its id says. The first fault is the error; it says nothing of what lies behind it. `read` is told how
/// much was read, and can end it. Spec: R-2-1 and R-5-8.
pub fn verify_pack(
    file: &dyn ReadAt,
    name: &Digest,
    pack: &PackReader,
    decompressor: &mut Decompressor,
    mut read: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    let mut offset = 0;
    let mut fill = |buffer: &mut Vec<u8>, start: u64, end: u64| {
        // A run, or what lies beside the chunks.
        buffer.resize(usize::try_from(end - start).unwrap_or(usize::MAX), 0);
        file.read_exact_at(buffer, start).map_err(|error| error.at(Stream::Pack, start))?;
        hasher.update(buffer);
        read(end - start)
    };
    let mut rest = pack.chunks();
    while let Some(first) = rest.first() {
        let start = first.offset;
        let is_near = |chunk: &&StoredChunk| chunk.end() - start <= RUN_MAX;
        let count = rest.iter().take_while(is_near).count().max(1);
        let (run, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = later;
        if offset < start {
            fill(&mut buffer, offset, start)?;
        }
        offset = run.last().map_or(start, StoredChunk::end);
        fill(&mut buffer, start, offset)?;
        for chunk in run {
            let bytes = usize::try_from(chunk.offset - start).ok().and_then(|at| buffer.get(at..));
            let fill = |out: &mut [u8]| bytes.unwrap_or_default().read_exact_at(out, 0);
            let opened = decompressor.read_chunk(&chunk.header, Verify::Id, fill);
            decompressor.recycle(opened.map_err(|error| error.at(Stream::Pack, chunk.offset))?);
        }
    }
    while offset < file.len() {
        let end = file.len().min(offset + RUN_MAX);
        fill(&mut buffer, offset, end)?;
        offset = end;
    }
    if hasher.finalize() == name.0 {
        Ok(())
    } else {
        Err(Error::corrupt("the file has other bytes than its name says"))
    }
}
