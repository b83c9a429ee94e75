//! A stream as bytes that can be read at any offset: its map says which slices, a source gives the chunks.
//!
//! Segments are read when they are needed, chunks are decoded once and kept while there is room.
//!
//! Spec: archive.md section 10.3.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use diptych_format::manifest::StreamRoot;
use diptych_format::map::Slice;
use diptych_format::pack::ChunkKind;
use diptych_format::read_at::beyond_the_end;
use diptych_format::{Digest, Error, ReadAt, Result, Stream};

use crate::cache::Cache;
use crate::chunk::{ChunkBytes, Decompressor, Verify};
use crate::counters::Counters;
use crate::keys::ChunkKeys;
use crate::pack::{ChunkPlace, ChunkSource, EachChunk};
use crate::segments::{LoadedSegment, StreamMap};

/// Segments get this share of a cache, and no less than the least.
const SEGMENT_SHARE: usize = 8;
const SEGMENT_BYTES_MIN: usize = 4 << 20;
/// Decompressors at once, unless something else is said.
const DECODERS: usize = 16;

/// How much memory the streams of an archive take.
#[derive(Clone, Copy, Debug)]
pub struct CacheBudget {
    /// For what is kept, in bytes.
    pub bytes: usize,
    /// Chunks that are decoded at once, at most: each takes memory until it is done, and the next one waits.
    pub decoders: usize,
}

impl CacheBudget {
    /// So many bytes, where nobody counts what is under way.
    pub fn of(bytes: usize) -> Self {
        Self { bytes, decoders: DECODERS }
    }
}

/// What the streams of an archive share: memory, and counts.
#[derive(Clone)]
pub struct Caches {
    chunks: Arc<Cache<ChunkBytes>>,
    segments: Arc<Cache<LoadedSegment>>,
    decoders: Arc<Decoders>,
    counters: Arc<Counters>,
    keys: ChunkKeys,
}

impl Caches {
    /// Caches within `budget`, of chunks that `keys` open.
    pub fn new(budget: CacheBudget, counters: Arc<Counters>, keys: ChunkKeys) -> Self {
        let segment_bytes = (budget.bytes / SEGMENT_SHARE).max(SEGMENT_BYTES_MIN);
        let decoders = Decoders { most: budget.decoders.max(1), ..Decoders::default() };
        Self {
            chunks: Arc::new(Cache::new(budget.bytes)),
            segments: Arc::new(Cache::new(segment_bytes)),
            decoders: Arc::new(decoders),
            counters,
            keys,
        }
    }

    fn with_decompressor<T>(&self, work: impl FnOnce(&mut Decompressor) -> T) -> T {
        let mut lent = self.decoders.lend(&self.keys);
        work(&mut lent.decompressor)
    }
}

/// The decompressors that there are. Whoever holds one waits for no other one, and for no cache.
#[derive(Default)]
struct Decoders {
    most: usize,
    state: Mutex<Idle>,
    given_back: Condvar,
}

#[derive(Default)]
struct Idle {
    decompressors: Vec<Decompressor>,
    lent: usize,
}

impl Decoders {
    fn lend(&self, keys: &ChunkKeys) -> Lent<'_> {
        let idle = self.lock();
        let is_used_up = |idle: &mut Idle| idle.lent >= self.most;
        let mut idle = self.given_back.wait_while(idle, is_used_up).unwrap_or_else(PoisonError::into_inner);
        idle.lent += 1;
        let decompressor = idle.decompressors.pop();
        drop(idle);
        let decompressor = decompressor.unwrap_or_else(|| Decompressor::new(keys.clone()));
        Lent { decompressor, decoders: self }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A decompressor that goes back when this is dropped, by a panic too.
struct Lent<'a> {
    decompressor: Decompressor,
    decoders: &'a Decoders,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let decompressor = std::mem::take(&mut self.decompressor);
        let mut idle = self.decoders.lock();
        idle.decompressors.push(decompressor);
        idle.lent -= 1;
        drop(idle);
        self.decoders.given_back.notify_one();
    }
}

/// A slice, or the part of one that was asked for, and where it stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSlice {
    /// Where it starts in the stream.
    pub position: u64,
    /// Which bytes of which chunk.
    pub slice: Slice,
    /// The chunk's raw length, where the map tells it.
    pub chunk_length: Option<u32>,
}

/// One of an archive's two streams.
pub struct StreamReader {
    source: Arc<dyn ChunkSource>,
    kind: ChunkKind,
    map: StreamMap,
    caches: Caches,
}

impl StreamReader {
    /// A stream of chunks of `kind`, payload or metadata. Reads nothing yet.
    pub fn new(source: Arc<dyn ChunkSource>, kind: ChunkKind, root: StreamRoot, caches: &Caches) -> Self {
        let map = StreamMap::new(root.root, root.length, caches.segments.clone());
        Self { source, kind, map, caches: caches.clone() }
    }

    /// The slices that make up `range` of the stream, cut to it. Asked for any range it checks the root of the map.
    pub fn slices(&self, range: Range<u64>) -> Result<Vec<StreamSlice>> {
        let mut slices = Vec::new();
        self.for_each_slice(range, |position, slice, chunk_length| {
            slices.push(StreamSlice { position, slice, chunk_length });
            Ok(())
        })?;
        Ok(slices)
    }

    /// The first chunks of `range`, `most` of them at the most, each once where its slices follow each other.
    pub fn first_chunks(&self, range: Range<u64>, most: usize) -> Vec<Digest> {
        let mut chunks: Vec<Digest> = Vec::new();
        // What cannot be looked up ends the list, as its last one does.
        let _ = self.for_each_slice(range, |_, slice, _| {
            if chunks.last() != Some(&slice.chunk) {
                if chunks.len() >= most {
                    return Err(Error::missing("no more are wanted"));
                }
                chunks.push(slice.chunk);
            }
            Ok(())
        });
        chunks
    }

    /// A whole chunk, kept in the cache.
    pub fn chunk(&self, id: &Digest) -> Result<Arc<ChunkBytes>> {
        self.caches.chunks.get_or_make((self.kind, *id), || {
            let mut bytes = self
                .caches
                .with_decompressor(|decompressor| self.read_chunk(id, Verify::Id, decompressor))?;
            bytes.shrink();
            let weight = bytes.capacity();
            Ok((bytes, weight))
        })
    }

    /// The id that a chunk of this stream would have if it had these bytes.
    pub fn chunk_id(&self, bytes: &[u8]) -> Digest {
        self.caches.keys.chunk_id(self.kind, bytes)
    }

    /// A decompressor for this stream's chunks.
    pub fn decompressor(&self) -> Decompressor {
        Decompressor::new(self.caches.keys.clone())
    }

    /// A whole chunk past the cache: for whoever goes through the chunks once, with a decompressor of their own.
    pub fn read_chunk(
        &self,
        id: &Digest,
        verify: Verify,
        decompressor: &mut Decompressor,
    ) -> Result<ChunkBytes> {
        let bytes = self.source.read_chunk(self.kind, id, verify, decompressor)?;
        self.caches.counters.chunk_decoded();
        Ok(bytes)
    }

    /// Where a chunk lies, if that is worth knowing.
    pub fn place(&self, id: &Digest) -> Option<ChunkPlace> {
        self.source.place(self.kind, id)
    }

    /// Reads chunks past the cache, in this order, and hands each to `each`: for whoever has sorted them by place, or
    /// takes those that were stored together.
    pub fn read_chunks(
        &self,
        ids: &[Digest],
        verify: Verify,
        decompressor: &mut Decompressor,
        each: &mut EachChunk<'_>,
    ) -> Result<()> {
        self.source.read_chunks(self.kind, ids, verify, decompressor, &mut |id, bytes, decompressor| {
            self.caches.counters.chunk_decoded();
            each(id, bytes, decompressor)
        })
    }

    /// The bytes of a slice in its chunk.
    pub fn part<'a>(chunk: &'a [u8], slice: &Slice) -> Result<&'a [u8]> {
        usize::try_from(slice.end()).ok().and_then(|end| chunk.get(slice.start as usize..end)).ok_or_else(
            || {
                let what = format!("a slice ends at {} of a chunk of {} bytes", slice.end(), chunk.len());
                Error::corrupt(what)
            },
        )
    }

    fn for_each_slice(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(u64, Slice, Option<u32>) -> Result<()>,
    ) -> Result<()> {
        let start = range.start;
        if range.start > range.end || range.end > self.map.length() {
            let length = usize::try_from(range.end.saturating_sub(start)).unwrap_or(usize::MAX);
            return Err(self.at(start)(beyond_the_end(length, start, self.map.length())));
        }
        let load = |id: &Digest| {
            self.caches.with_decompressor(|decompressor| {
                let bytes = self.source.read_chunk(ChunkKind::Segment, id, Verify::Id, decompressor)?;
                self.caches.counters.chunk_decoded();
                let segment = LoadedSegment::parse(&bytes);
                decompressor.recycle(bytes);
                segment
            })
        };
        self.map
            .for_each(range, load, |position, slice, chunk_length| {
                each(position, slice, chunk_length).map_err(self.at(position))
            })
            .map_err(self.at(start))
    }

    fn at(&self, offset: u64) -> impl Fn(Error) -> Error {
        let stream = if self.kind == ChunkKind::Payload { Stream::Payload } else { Stream::Metadata };
        move |error| error.at(stream, offset)
    }
}

impl ReadAt for StreamReader {
    fn len(&self) -> u64 {
        self.map.length()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.is_empty() && offset <= self.len() {
            return Ok(());
        }
        let range = offset..offset.saturating_add(buf.len() as u64);
        let mut rest = buf;
        self.for_each_slice(range, |_, slice, _| {
            let chunk = self.chunk(&slice.chunk)?;
            let (now, later) = std::mem::take(&mut rest).split_at_mut(slice.length as usize);
            now.copy_from_slice(Self::part(&chunk, &slice)?);
            rest = later;
            Ok(())
        })
    }
}
