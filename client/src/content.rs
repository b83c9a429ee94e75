//! Contents, read in order from the chunks that hold them, and digested on the way.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use diptych_decoder::{ContentMap, Part};
use diptych_format::digest::ContentHasher;
use diptych_format::{Digest, Error, Result, Stream};
use diptych_repository::{ChunkBytes, Decompressor, EachChunk, StreamReader, StreamSlice, Verify};

/// A slice of at least this length is likely to be most of its chunk, which then is not worth keeping.
pub const SLICE_LARGE: u64 = 128 << 10;

/// Most bytes of slices whose chunks are asked for at once.
const RUN_BYTES: u64 = 8 << 20;

/// Takes the bytes of a content, in order.
pub trait Sink {
    /// Bytes that stand at `offset` of the content.
    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// `length` bytes at `offset` that are zero and were stored nowhere.
    fn hole(&mut self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    /// What stands where `length` bytes at `offset` are to be: if it is the chunk that is wanted, that is not read, and
    /// the sink gets no data.
    fn standing(&mut self, _offset: u64, _length: usize) -> Result<Option<&[u8]>> {
        Ok(None)
    }
}

/// For those who only want the digest.
pub struct Nowhere;

impl Sink for Nowhere {
    fn data(&mut self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Reads contents, one after another, for one thread.
pub struct ContentReader {
    payload: Arc<StreamReader>,
    decompressor: Decompressor,
    verify: Verify,
}

impl ContentReader {
    /// A reader that proves every chunk before a byte of it goes to a sink.
    pub fn new(payload: Arc<StreamReader>) -> Self {
        Self { decompressor: payload.decompressor(), payload, verify: Verify::Id }
    }

    /// A reader whose caller compares digests before anything that a sink took counts: chunks are not proved besides.
    pub fn digests_compared(payload: Arc<StreamReader>) -> Self {
        Self { verify: Verify::Caller, ..Self::new(payload) }
    }

    /// Hands the whole content to `sink`; gives the digest of what was read.
    pub fn read(&mut self, content: &ContentMap, sink: &mut dyn Sink) -> Result<Digest> {
        let hasher = if content.has_holes() { ContentHasher::sparse() } else { ContentHasher::new() };
        self.digest(hasher, content.parts.iter().copied(), sink)
    }

    /// Hands a range of the content to `sink`; gives the digest of the range alone.
    pub fn read_range(
        &mut self,
        content: &ContentMap,
        range: Range<u64>,
        sink: &mut dyn Sink,
    ) -> Result<Digest> {
        self.digest(ContentHasher::sparse(), parts_within(content, range), sink)
    }

    fn digest(
        &mut self,
        mut hasher: ContentHasher,
        parts: impl Iterator<Item = Part>,
        sink: &mut dyn Sink,
    ) -> Result<Digest> {
        for part in parts {
            match part {
                Part::Data { content_offset, payload_offset, length } => {
                    let end = payload_offset.saturating_add(length);
                    let slices = self.payload.slices(payload_offset..end)?;
                    let offset_of =
                        |slice: &StreamSlice| content_offset.saturating_add(slice.position - payload_offset);
                    let mut rest = &slices[..];
                    while let Some((first, others)) = rest.split_first() {
                        let offset = offset_of(first);
                        if let Some(standing) = sink.standing(offset, first.slice.length as usize)?
                            && first.slice.start == 0
                            && self.payload.chunk_id(standing) == first.slice.chunk
                        {
                            hasher.update(standing);
                            rest = others;
                            continue;
                        }
                        let count = run_of(rest);
                        let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                        rest = later;
                        self.with_slices(now, &mut |slice, bytes| {
                            hasher.update(bytes);
                            sink.data(offset_of(slice), bytes)
                        })?;
                    }
                }
                Part::Hole { content_offset, length } => {
                    hasher.zeros(length);
                    sink.hole(content_offset, length)?;
                }
            }
        }
        Ok(hasher.finish())
    }

    /// Hands the bytes of slices to `take`, one after another: one from the cache, or several that are large.
    fn with_slices(
        &mut self,
        slices: &[StreamSlice],
        take: &mut dyn FnMut(&StreamSlice, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let at = |slice: &StreamSlice| {
            let position = slice.position;
            move |error: Error| error.at(Stream::Payload, position)
        };
        if let [slice] = slices
            && u64::from(slice.slice.length) < SLICE_LARGE
        {
            let chunk = self.payload.chunk(&slice.slice.chunk).map_err(at(slice))?;
            return take(slice, StreamReader::part(&chunk, &slice.slice).map_err(at(slice))?);
        }
        let ids: Vec<Digest> = slices.iter().map(|slice| slice.slice.chunk).collect();
        let mut next = slices.iter();
        self.payload.read_chunks(&ids, self.verify, &mut self.decompressor, &mut |_, chunk, decompressor| {
            let Some(slice) = next.next() else { return Ok(()) };
            let chunk = chunk.map_err(at(slice))?;
            StreamReader::part(&chunk, &slice.slice)
                .map_err(at(slice))
                .and_then(|bytes| take(slice, bytes))?;
            decompressor.recycle(chunk);
            Ok(())
        })
    }

    /// Reads a chunk past the cache; give it back when it is no longer needed.
    pub fn take_chunk(&mut self, chunk: &Digest) -> Result<ChunkBytes> {
        self.payload.read_chunk(chunk, self.verify, &mut self.decompressor)
    }

    /// Reads chunks past the cache, in this order; those that lie together at once.
    pub fn take_chunks(&mut self, ids: &[Digest], each: &mut EachChunk<'_>) -> Result<()> {
        self.payload.read_chunks(ids, self.verify, &mut self.decompressor, each)
    }

    /// Takes the memory of a chunk for the next one.
    pub fn give_back(&mut self, bytes: ChunkBytes) {
        self.decompressor.recycle(bytes);
    }

    /// The payload stream.
    pub fn payload(&self) -> &Arc<StreamReader> {
        &self.payload
    }
}

/// How many of the first slices are read at once: one, or those that are large, which are likely to have been stored one
/// after another.
fn run_of(slices: &[StreamSlice]) -> usize {
    let mut bytes = 0;
    let is_taken = |slice: &&StreamSlice| {
        let length = u64::from(slice.slice.length);
        bytes += length;
        length >= SLICE_LARGE && bytes <= RUN_BYTES
    };
    slices.iter().take_while(is_taken).count().max(1)
}

/// Readers for several threads, each with its buffers, kept from task to task.
pub struct Readers {
    make: Box<dyn Fn() -> ContentReader + Send + Sync>,
    idle: Mutex<Vec<ContentReader>>,
}

impl Readers {
    /// Readers that `make` makes when none is idle.
    pub fn new(make: impl Fn() -> ContentReader + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), idle: Mutex::default() }
    }

    /// Lends a reader to `work`.
    pub fn with<T>(&self, work: impl FnOnce(&mut ContentReader) -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = idle.unwrap_or_else(|| (self.make)());
        let result = work(&mut reader);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        result
    }
}

/// The parts of a content that lie within `range`, cut at its ends.
pub fn parts_within(content: &ContentMap, range: Range<u64>) -> impl Iterator<Item = Part> + '_ {
    // Parts are in order and without gaps: the first that reaches into the range is found by halving.
    let first = content.parts.partition_point(|part| {
        let (offset, length) = place(part);
        offset.saturating_add(length) <= range.start
    });
    content.parts.iter().skip(first).map_while(move |part| {
        let (offset, length) = place(part);
        let from = offset.max(range.start);
        let to = offset.saturating_add(length).min(range.end);
        let length = to.checked_sub(from).filter(|length| *length > 0)?;
        Some(match *part {
            Part::Data { payload_offset, .. } => {
                let payload_offset = payload_offset.saturating_add(from - offset);
                Part::Data { content_offset: from, payload_offset, length }
            }
            Part::Hole { .. } => Part::Hole { content_offset: from, length },
        })
    })
}

/// Offset and length of a part in its content.
fn place(part: &Part) -> (u64, u64) {
    match *part {
        Part::Data { content_offset, length, .. } | Part::Hole { content_offset, length } => {
            (content_offset, length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_at_the_ends_of_a_range() {
        let content = ContentMap {
            size: 100,
            digest: Digest::NONE,
            parts: vec![
                Part::Data { content_offset: 0, payload_offset: 1000, length: 40 },
                Part::Hole { content_offset: 40, length: 30 },
                Part::Data { content_offset: 70, payload_offset: 1040, length: 30 },
            ],
        };
        let parts: Vec<Part> = parts_within(&content, 30..75).collect();
        assert_eq!(
            parts,
            [
                Part::Data { content_offset: 30, payload_offset: 1030, length: 10 },
                Part::Hole { content_offset: 40, length: 30 },
                Part::Data { content_offset: 70, payload_offset: 1040, length: 5 },
            ]
        );
        assert_eq!(parts_within(&content, 40..70).count(), 1);
        assert_eq!(parts_within(&content, 100..120).count(), 0);
        assert_eq!(parts_within(&content, 0..100).count(), 3);
    }
}
