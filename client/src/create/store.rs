//! Storing: chunks are digested and compressed on several threads, and written in the order in which they came.
//!
//! Which of two equal chunks is kept does not depend on which thread is faster: it is the one that came first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error, Result};
use diptych_repository::chunk::{Compression, Compressor};
use diptych_repository::pack::PackWriter;
use diptych_repository::{ChunkKeys, Padding};

use super::assemble::Sink;
use super::buffers::{Buffers, Bytes};

/// A chunk to store.
pub(super) struct StoreJob {
    sequence: u64,
    kind: ChunkKind,
    bytes: Bytes,
}

/// A chunk that was digested, and compressed unless it is known.
pub(super) struct StoredChunk {
    sequence: u64,
    kind: ChunkKind,
    id: Digest,
    raw_length: u64,
    stored: Result<Option<Vec<u8>>>,
}

/// Numbers the chunks and hands them to the compressing threads.
pub(super) struct StoreSink {
    jobs: Sender<StoreJob>,
    next: u64,
}

impl StoreSink {
    /// A sink for `jobs`.
    pub(super) fn new(jobs: Sender<StoreJob>) -> Self {
        Self { jobs, next: 0 }
    }

    fn send(&mut self, kind: ChunkKind, bytes: Bytes) -> Result<()> {
        let job = StoreJob { sequence: self.next, kind, bytes };
        self.next += 1;
        self.jobs.send(job).map_err(|_| Error::corrupt("the writer stopped"))
    }
}

impl Sink for StoreSink {
    fn keeps_contents(&self) -> bool {
        true
    }

    fn metadata(&mut self, chunk: Vec<u8>) -> Result<()> {
        self.send(ChunkKind::Metadata, Bytes::whole(chunk))
    }

    fn payload(&mut self, _: u64, chunk: Bytes) -> Result<()> {
        self.send(ChunkKind::Payload, chunk)
    }
}

/// The chunks that were given to the compressing threads, by id, with the number of the first.
#[derive(Default)]
pub(super) struct Known {
    first: Mutex<HashMap<Digest, u64>>,
}

impl Known {
    /// Whether a chunk that came before `sequence` has this id.
    fn has_earlier(&self, id: Digest, sequence: u64) -> bool {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let known = first.entry(id).or_insert(sequence);
        if *known < sequence {
            return true;
        }
        *known = sequence;
        false
    }
}

/// A compressing thread's life.
pub(super) fn compress_jobs(
    jobs: &Receiver<StoreJob>,
    done: &Sender<StoredChunk>,
    known: &Known,
    buffers: &Buffers,
    compression: Compression,
) {
    let keys = ChunkKeys::plain();
    let mut payload = Compressor::new(compression, keys.clone(), Padding::None);
    let mut metadata = Compressor::new(compression.for_metadata(), keys.clone(), Padding::None);
    for job in jobs {
        let raw = job.bytes.as_slice();
        let id = keys.chunk_id(job.kind, raw);
        let stored = if known.has_earlier(id, job.sequence) {
            Ok(None)
        } else {
            let compressor = if job.kind == ChunkKind::Payload { &mut payload } else { &mut metadata };
            let mut out = buffers.take(0);
            compressor.store(job.kind, id, raw, &mut out).map(|()| Some(out))
        };
        let raw_length = raw.len() as u64;
        buffers.give_bytes(job.bytes);
        let chunk = StoredChunk { sequence: job.sequence, kind: job.kind, id, raw_length, stored };
        if done.send(chunk).is_err() {
            return;
        }
    }
}

/// The packs of an archive: two files, or one that holds all.
pub(super) struct Packs<W: Write> {
    /// What holds the metadata, maps and manifest.
    pub metadata: PackWriter<W>,
    /// What holds the payload; none if the other holds it as well.
    pub payload: Option<PackWriter<W>>,
}

/// What was written: the ids of both streams' chunks in order, and lengths.
#[derive(Default)]
pub(super) struct WrittenChunks {
    /// Ids of the metadata stream's chunks with their lengths.
    pub metadata: Vec<(Digest, u64)>,
    /// Ids of the payload chunks, by number.
    pub payload: Vec<Digest>,
    /// Bytes stored for the metadata stream.
    pub stored_metadata: u64,
    /// Bytes stored for the payload.
    pub stored_payload: u64,
}

impl<W: Write> Packs<W> {
    /// Takes chunks as they are done and writes them in order.
    pub(super) fn write_all(
        &mut self,
        done: &Receiver<StoredChunk>,
        buffers: &Buffers,
    ) -> Result<WrittenChunks> {
        let mut written = WrittenChunks::default();
        let mut present = HashSet::new();
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for chunk in done {
            waiting.insert(chunk.sequence, chunk);
            while let Some(chunk) = waiting.remove(&next) {
                next += 1;
                self.write(chunk, &mut present, &mut written, buffers)?;
            }
        }
        Ok(written)
    }

    fn write(
        &mut self,
        chunk: StoredChunk,
        present: &mut HashSet<Digest>,
        written: &mut WrittenChunks,
        buffers: &Buffers,
    ) -> Result<()> {
        let stored = chunk.stored?;
        let length = match &stored {
            Some(stored) if present.insert(chunk.id) => {
                self.pack_of(chunk.kind).append(chunk.id, chunk.kind, stored)?;
                stored.len() as u64
            }
            _ => 0,
        };
        stored.into_iter().for_each(|stored| buffers.give(stored));
        if chunk.kind == ChunkKind::Payload {
            written.payload.push(chunk.id);
            written.stored_payload += length;
        } else {
            written.metadata.push((chunk.id, chunk.raw_length));
            written.stored_metadata += length;
        }
        Ok(())
    }

    fn pack_of(&mut self, kind: ChunkKind) -> &mut PackWriter<W> {
        match (&mut self.payload, kind) {
            (Some(payload), ChunkKind::Payload) => payload,
            _ => &mut self.metadata,
        }
    }
}
