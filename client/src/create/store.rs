//! Storing: chunks are digested and compressed on several threads, and written in the order in which they came.
//!
//! Which of two equal chunks is kept does not depend on which thread is faster: it is the one that came first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use diptych_encoder::Cuts;
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error, Result};
use diptych_repository::chunk::{Compression, Compressor};
use diptych_repository::pack::PackWriter;
use diptych_repository::{ChunkKeys, Padding};

use super::assemble::{Partial, Sink};
use super::buffers::{Buffers, Bytes};

/// What a chunk is to the archive.
#[derive(Debug)]
enum Use {
    /// The payload chunk of this number.
    Payload(u64),
    /// The next one of the metadata stream.
    Metadata,
    /// One of those that end the metadata stream of a partial archive.
    Branch,
    /// No chunk: the partial archive that the chunks of a branch ended.
    Checkpoint(Box<Partial>),
}

impl Use {
    fn kind(&self) -> ChunkKind {
        match self {
            Use::Payload(_) => ChunkKind::Payload,
            _ => ChunkKind::Metadata,
        }
    }
}

/// A chunk to store.
pub(crate) struct StoreJob {
    sequence: u64,
    usage: Use,
    bytes: Bytes,
}

/// A chunk that was digested, and compressed unless it is known.
pub(crate) struct StoredChunk {
    sequence: u64,
    usage: Use,
    id: Digest,
    raw_length: u32,
    stored: Result<Option<Vec<u8>>>,
}

/// Numbers the chunks and hands them to the compressing threads.
pub(crate) struct StoreSink {
    jobs: Sender<StoreJob>,
    next: u64,
}

impl StoreSink {
    /// A sink for `jobs`.
    pub(crate) fn new(jobs: Sender<StoreJob>) -> Self {
        Self { jobs, next: 0 }
    }

    fn send(&mut self, usage: Use, bytes: Bytes) -> Result<()> {
        let job = StoreJob { sequence: self.next, usage, bytes };
        self.next += 1;
        self.jobs.send(job).map_err(|_| Error::corrupt("the writer stopped"))
    }
}

impl Sink for StoreSink {
    fn keeps_contents(&self) -> bool {
        true
    }

    fn metadata(&mut self, chunk: Vec<u8>) -> Result<()> {
        self.send(Use::Metadata, Bytes::whole(chunk))
    }

    fn payload(&mut self, number: u64, chunk: Bytes) -> Result<()> {
        self.send(Use::Payload(number), chunk)
    }

    fn checkpoint(&mut self, branch: Vec<Vec<u8>>, partial: Partial) -> Result<()> {
        branch.into_iter().try_for_each(|chunk| self.send(Use::Branch, Bytes::whole(chunk)))?;
        self.send(Use::Checkpoint(Box::new(partial)), Bytes::whole(Vec::new()))
    }
}

/// The chunks that were given to the compressing threads, by id, with the number of the first.
#[derive(Default)]
pub(crate) struct Known {
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

/// How chunks are stored.
pub(crate) struct Storing<'s> {
    /// How they are compressed.
    pub compression: Compression,
    /// What they are identified and sealed with.
    pub keys: ChunkKeys,
    /// Whether their length is hidden.
    pub padding: Padding,
    /// Whether one is stored already, before this run.
    pub is_stored: Box<dyn Fn(ChunkKind, &Digest) -> Result<bool> + Send + Sync + 's>,
}

impl Storing<'_> {
    /// Where what is stored is cut.
    pub(crate) fn cuts(&self) -> Cuts {
        self.keys.cut_key().map_or_else(Cuts::plain, Cuts::keyed)
    }

    /// What compresses metadata, maps and manifests.
    pub(crate) fn metadata_compressor(&self) -> Compressor {
        Compressor::new(self.compression.for_metadata(), self.keys.clone(), self.padding)
    }
}

/// A compressing thread's life.
pub(crate) fn compress_jobs(
    jobs: &Receiver<StoreJob>,
    done: &Sender<StoredChunk>,
    known: &Known,
    buffers: &Buffers,
    how: &Storing<'_>,
) {
    let Storing { compression, keys, padding, is_stored } = how;
    let mut payload = Compressor::new(*compression, keys.clone(), *padding);
    let mut metadata = how.metadata_compressor();
    for job in jobs {
        let raw = job.bytes.as_slice();
        let kind = job.usage.kind();
        let is_chunk = !matches!(job.usage, Use::Checkpoint(_));
        let id = if is_chunk { keys.chunk_id(kind, raw) } else { Digest::NONE };
        let stored = if !is_chunk || known.has_earlier(id, job.sequence) {
            Ok(None)
        } else {
            let compressor = if kind == ChunkKind::Payload { &mut payload } else { &mut metadata };
            is_stored(kind, &id).and_then(|is_stored| {
                if is_stored {
                    return Ok(None);
                }
                let mut out = buffers.take(0);
                compressor.store(kind, id, raw, &mut out).map(|()| Some(out))
            })
        };
        // No chunk is as long: the kinds' limits are below 4 GiB.
        let raw_length = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        buffers.give_bytes(job.bytes);
        let chunk = StoredChunk { sequence: job.sequence, usage: job.usage, id, raw_length, stored };
        if done.send(chunk).is_err() {
            return;
        }
    }
}

/// What takes stored chunks, in order.
pub(crate) trait ChunkWriter {
    /// Takes one that was not there yet; `stored` has its header.
    fn append(&mut self, kind: ChunkKind, id: Digest, stored: &[u8]) -> Result<()>;
    /// All chunks of a partial archive have come: `metadata` are those of its metadata stream, with their lengths.
    fn checkpoint(
        &mut self,
        partial: &Partial,
        written: &WrittenChunks,
        metadata: &[(Digest, u32)],
    ) -> Result<()> {
        let _ = (partial, written, metadata);
        Ok(())
    }
}

/// What was written: the ids of both streams' chunks, and lengths.
#[derive(Default)]
pub(crate) struct WrittenChunks {
    /// Ids of the metadata stream's chunks in order, with their lengths.
    pub metadata: Vec<(Digest, u32)>,
    /// Ids and lengths of the fresh payload chunks, by number.
    payload: Vec<Option<(Digest, u32)>>,
    /// The same of the branch that ends a partial archive.
    branch: Vec<(Digest, u32)>,
    /// Bytes stored for the metadata stream.
    pub stored_metadata: u64,
    /// Bytes stored for the payload.
    pub stored_payload: u64,
}

impl WrittenChunks {
    /// Id and length of a fresh payload chunk.
    pub(crate) fn payload(&self, number: u64) -> Option<(Digest, u32)> {
        usize::try_from(number).ok().and_then(|number| self.payload.get(number).copied().flatten())
    }

    fn note(&mut self, chunk: &StoredChunk, stored: u64) {
        let found = (chunk.id, chunk.raw_length);
        match &chunk.usage {
            Use::Metadata => {
                self.metadata.push(found);
                self.stored_metadata += stored;
            }
            Use::Branch => {
                self.branch.push(found);
                self.stored_metadata += stored;
            }
            Use::Checkpoint(_) => {}
            Use::Payload(number) => {
                // Numbers are given one after another, so that the list is as long as there are chunks.
                let number = usize::try_from(*number).unwrap_or(usize::MAX);
                if self.payload.len() <= number {
                    self.payload.resize(number + 1, None);
                }
                if let Some(place) = self.payload.get_mut(number) {
                    *place = Some(found);
                }
                self.stored_payload += stored;
            }
        }
    }
}

/// Takes chunks as they are done and writes them in order.
pub(crate) fn write_all(
    writer: &mut dyn ChunkWriter,
    done: &Receiver<StoredChunk>,
    buffers: &Buffers,
) -> Result<WrittenChunks> {
    let mut written = WrittenChunks::default();
    let mut present = HashSet::new();
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for chunk in done {
        waiting.insert(chunk.sequence, chunk);
        while let Some(mut chunk) = waiting.remove(&next) {
            next += 1;
            let stored = std::mem::replace(&mut chunk.stored, Ok(None))?;
            let mut length = 0;
            if let Some(stored) = stored {
                if present.insert(chunk.id) {
                    writer.append(chunk.usage.kind(), chunk.id, &stored)?;
                    length = stored.len() as u64;
                }
                buffers.give(stored);
            }
            written.note(&chunk, length);
            if let Use::Checkpoint(partial) = &chunk.usage {
                let branch = std::mem::take(&mut written.branch);
                let metadata = [&written.metadata[..], &branch].concat();
                writer.checkpoint(partial, &written, &metadata)?;
            }
        }
    }
    Ok(written)
}

/// The packs of an archive: two files, or one that holds all.
pub(crate) struct Packs<W: Write> {
    /// What holds the metadata, maps and manifest.
    pub metadata: PackWriter<W>,
    /// What holds the payload; none if the other holds it as well.
    pub payload: Option<PackWriter<W>>,
}

impl<W: Write> ChunkWriter for Packs<W> {
    fn append(&mut self, kind: ChunkKind, id: Digest, stored: &[u8]) -> Result<()> {
        let pack = match (&mut self.payload, kind) {
            (Some(payload), ChunkKind::Payload) => payload,
            _ => &mut self.metadata,
        };
        pack.append(id, kind, stored)
    }
}
