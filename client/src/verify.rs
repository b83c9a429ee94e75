//! `verify`: every digest of an archive compared with what it stands for.
//!
//! The tables first, then every content, and then the chunks that no content uses. What is damaged is named by the paths
//! that it costs.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use diptych_decoder::{ContentMap, Part, VerifyEvent};
use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Error as FormatError, Monitor, Result as FormatResult};
use diptych_repository::pack::StoredChunk;
use diptych_repository::{Decompressor, PackReader, StreamReader, Verify};

use crate::batch::{Batch, Batcher, Lies};
use crate::content::{ContentReader, Nowhere, Readers, SLICE_LARGE};
use crate::error::Result;
use crate::open::OpenArchive;
use crate::pool::{self, Queue};
use crate::progress::{Losses, Progress};

/// How to verify.
pub struct VerifyOptions {
    /// Leave contents and the data file alone.
    pub is_metadata_only: bool,
    /// Threads that digest contents.
    pub threads: usize,
    /// Set from outside to end the job.
    pub interrupt: Arc<AtomicBool>,
}

/// What was verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyReport {
    /// The tree id that the archive tells.
    pub tree_id: Digest,
    /// Whether it stands for the whole tree.
    pub is_complete: bool,
    /// Entries, the root counted.
    pub entries: u64,
    /// Contents that were compared with their digests.
    pub contents: u64,
    /// Bytes of these.
    pub content_bytes: u64,
    /// Stored chunks that were compared with their ids.
    pub chunks: u64,
    /// Things that are not right; each was told to the monitor.
    pub damaged: u64,
}

/// Verifies an archive. What is wrong is reported to `progress`, as losses.
pub fn verify(open: &OpenArchive, options: &VerifyOptions, progress: &dyn Progress) -> Result<VerifyReport> {
    let losses = Losses::new(progress);
    let trailer = open.archive.trailer();
    let mut report = VerifyReport {
        tree_id: trailer.tree_id,
        is_complete: trailer.is_complete(),
        entries: trailer.entries,
        ..VerifyReport::default()
    };
    compare_manifest(open, &losses);
    let contents_at = if options.is_metadata_only { None } else { Some(open.payload()?) };
    progress.expect(trailer.entries, if contents_at.is_some() { trailer.payload_length } else { 0 });
    let used = verify_tree(open, contents_at.as_ref(), options, &losses, &mut report)?;
    let is_wanted = |chunk: &&StoredChunk| {
        !(chunk.header.kind == ChunkKind::Payload
            && (options.is_metadata_only || used.contains(&chunk.header.id)))
    };
    let mut packs = Vec::new();
    if let Some(files) = open.files() {
        packs.push(("metadata file", files.metadata_pack()));
        if contents_at.is_some()
            && let Some(data) = files.data_pack()?
        {
            packs.push(("data file", data));
        }
    }
    report.chunks = used.len() as u64;
    for (name, pack) in packs {
        let chunks: Vec<StoredChunk> = pack.chunks().iter().filter(is_wanted).copied().collect();
        report.chunks += chunks.len() as u64;
        verify_chunks(name, pack, &chunks, options, &losses)?;
    }
    report.damaged = losses.count();
    Ok(report)
}

/// What the manifest says of the archive must agree with the trailer. Spec: A-12-4.
fn compare_manifest(open: &OpenArchive, losses: &Losses<'_>) {
    let Some(files) = open.files() else { return };
    let (manifest, trailer) = (&files.manifest, open.archive.trailer());
    let mut differs = Vec::new();
    let mut compare = |what: &'static str, is_equal: bool| {
        if !is_equal {
            differs.push(what);
        }
    };
    compare("tree id", manifest.tree_id == trailer.tree_id);
    compare("completeness", manifest.complete == trailer.is_complete());
    compare("number of entries", manifest.entries == trailer.entries);
    compare("length of the metadata stream", manifest.metadata.length == trailer.stream_length);
    compare("length of the payload stream", manifest.payload.length == trailer.payload_length);
    if !differs.is_empty() {
        losses.loss(b"", format!("manifest and trailer disagree in {}", differs.join(", ")));
    }
}

/// A content to verify.
struct Item {
    path: Vec<u8>,
    digest: Digest,
    size: u64,
}

enum Task {
    Batch(Batch<Item>),
    Whole(Item, ContentMap),
}

/// Goes through all tables and, if there is a payload, all contents; gives the chunks that contents use.
fn verify_tree(
    open: &OpenArchive,
    payload: Option<&Arc<StreamReader>>,
    options: &VerifyOptions,
    losses: &Losses<'_>,
    report: &mut VerifyReport,
) -> Result<HashSet<Digest>> {
    let (contents, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let readers = payload.cloned().map(|payload| Readers::new(move || ContentReader::new(payload.clone())));
    let produce = |queue: &Queue<'_, Task>| {
        let mut walker = Walker {
            queue,
            losses,
            contents: payload.map(|payload| (Batcher::new(payload.clone()), payload.clone())),
            used: HashSet::new(),
            stopped: None,
        };
        let verified = diptych_decoder::verify(&open.archive, None, &mut |event| walker.event(event));
        if let Some(stopped) = walker.stopped.take() {
            return Err(stopped);
        }
        verified?;
        if let Some((batcher, _)) = &mut walker.contents {
            batcher.finish().try_for_each(|batch| queue.push(Task::Batch(batch)))?;
        }
        Ok(walker.used)
    };
    let work = |task: Task| {
        let Some(readers) = &readers else { return Ok(()) };
        let verified = |item: &Item, result: Result<Digest, &FormatError>| {
            match result {
                Ok(digest) if digest == item.digest => {}
                Ok(_) => losses.loss(&item.path, "the content has another digest than the archive says"),
                Err(error) => losses.loss(&item.path, format!("the content cannot be read: {error}")),
            }
            contents.fetch_add(1, Ordering::Relaxed);
            bytes.fetch_add(item.size, Ordering::Relaxed);
            losses.bytes(item.size);
        };
        readers.with(|reader| match task {
            Task::Whole(item, content) => {
                verified(&item, reader.read(&content, &mut Nowhere).as_ref().copied());
            }
            Task::Batch(batch) => verify_batch(reader, &batch, &verified),
        });
        Ok(())
    };
    let threads = options.threads.max(1);
    let used = pool::run(threads, threads * 2, &options.interrupt, produce, work)?;
    (report.contents, report.content_bytes) = (contents.into_inner(), bytes.into_inner());
    Ok(used)
}

fn verify_batch(
    reader: &mut ContentReader,
    batch: &Batch<Item>,
    verified: &dyn Fn(&Item, Result<Digest, &FormatError>),
) {
    let all = |chunk: &[u8]| {
        for (item, slice) in &batch.items {
            let bytes = slice.map_or(Ok(&[][..]), |slice| StreamReader::part(chunk, &slice));
            verified(item, bytes.as_ref().map(|bytes| Digest::of(bytes)));
        }
    };
    let read = match &batch.chunk {
        None => {
            all(&[]);
            Ok(())
        }
        Some(id) if batch.bytes < SLICE_LARGE => reader.payload().chunk(id).map(|chunk| all(&chunk)),
        Some(id) => reader.take_chunk(id).map(|chunk| {
            all(&chunk);
            reader.give_back(chunk);
        }),
    };
    if let Err(error) = read {
        for (item, slice) in &batch.items {
            // What has no bytes keeps them company in the batch, and has nothing to lose.
            verified(item, if slice.is_some() { Err(&error) } else { Ok(Digest::of(&[])) });
        }
    }
}

struct Walker<'w> {
    queue: &'w Queue<'w, Task>,
    losses: &'w Losses<'w>,
    contents: Option<(Batcher<Item>, Arc<StreamReader>)>,
    used: HashSet<Digest>,
    /// Why the queue takes nothing any more.
    stopped: Option<crate::Error>,
}

impl Walker<'_> {
    fn event(&mut self, event: VerifyEvent<'_>) -> FormatResult<()> {
        match event {
            VerifyEvent::Entry { path, kind } => self.losses.entry(path, kind),
            VerifyEvent::Damaged { path, error } => self.losses.loss(path, error.to_string()),
            VerifyEvent::Content { path, content } => return self.content(path, content),
        }
        if self.queue.check().is_err() {
            return self.stop(crate::Error::Interrupted);
        }
        Ok(())
    }

    fn stop(&mut self, error: crate::Error) -> FormatResult<()> {
        self.stopped = Some(error);
        Err(FormatError::missing("the job was told to end"))
    }

    fn push(&mut self, task: Task) -> FormatResult<()> {
        self.queue.push(task).or_else(|error| self.stop(error))
    }

    fn content(&mut self, path: &[u8], content: ContentMap) -> FormatResult<()> {
        let Some((batcher, payload)) = &mut self.contents else { return Ok(()) };
        let item = Item { path: path.to_vec(), digest: content.digest, size: content.size };
        let range = payload_range(&content);
        let slice = match batcher.locate(range.clone()) {
            Ok(Lies::Nowhere) if content.size == 0 => None,
            Ok(Lies::In(slice)) if !content.has_holes() => Some(slice),
            Ok(_) => {
                self.used.extend(chunks_of(payload, range));
                return self.push(Task::Whole(item, content));
            }
            Err(error) => {
                self.losses.loss(path, format!("the content cannot be read: {error}"));
                return Ok(());
            }
        };
        self.used.extend(slice.map(|slice| slice.chunk));
        match batcher.push(item, slice) {
            Some(batch) => self.push(Task::Batch(batch)),
            None => Ok(()),
        }
    }
}

/// The payload of a content: its data stand one behind the other.
pub(crate) fn payload_range(content: &ContentMap) -> Range<u64> {
    let start = content.parts.iter().find_map(|part| match part {
        Part::Data { payload_offset, .. } => Some(*payload_offset),
        Part::Hole { .. } => None,
    });
    let start = start.unwrap_or(0);
    start..start.saturating_add(content.payload_length())
}

fn chunks_of(payload: &StreamReader, range: Range<u64>) -> impl Iterator<Item = Digest> {
    // What cannot be looked up here fails again, and is told, when the content is read.
    payload.slices(range).unwrap_or_default().into_iter().map(|slice| slice.slice.chunk)
}

/// Compares stored chunks with their ids.
fn verify_chunks(
    name: &str,
    pack: &PackReader,
    chunks: &[StoredChunk],
    options: &VerifyOptions,
    losses: &Losses<'_>,
) -> Result<()> {
    const AT_ONCE: usize = 64;
    let work = |some: &[StoredChunk]| {
        let mut decompressor = Decompressor::default();
        for chunk in some {
            match pack.read_stored(chunk, Verify::Id, &mut decompressor) {
                Ok(bytes) => decompressor.recycle(bytes),
                Err(error) => losses.loss(b"", format!("{name}: {error}")),
            }
        }
        Ok(())
    };
    let threads = options.threads.max(1);
    pool::run(
        threads,
        threads * 2,
        &options.interrupt,
        |queue| chunks.chunks(AT_ONCE).try_for_each(|some| queue.push(some)),
        work,
    )
}
