//! `copy`: snapshots of one repository become snapshots of another one.
//!
//! Chunks are read, proved, compressed and sealed anew, and found equal by the ids that they have in the other repository;
//! maps are written anew with these ids. Everything else in a snapshot names no chunk, so that trees keep their ids.
//!
//! Which id a chunk has there is known without reading it if an earlier snapshot was copied: its map and that of its copy
//! have the same slices. So a copy takes the time of what is new.
//!
//! Spec: repository.md sections 5, 9 and 11.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use diptych_format::pack::ChunkKind;
use diptych_format::{Class, Digest, Error as FormatError, Monitor, Problem, Result as FormatResult};
use diptych_repository::chunk::{Compression, Compressor};
use diptych_repository::documents::{ArchiveRecord, Body, Report, Snapshot, SnapshotKind, StreamRecord};
use diptych_repository::pack::ChunkSource;
use diptych_repository::stream::{Caches, StreamSlice};
use diptych_repository::{Decompressor, Location, Repository, StoreWriter, StreamReader, Verify};

use crate::backup::{host_name, user_name};
use crate::commit::{Lease, commit};
use crate::create::pipeline::write_map;
use crate::create::{ChunkWriter, Storing};
use crate::error::{Error, InPlace, Result};
use crate::progress::Losses;
use crate::snapshots::{self, Listed, source_of};

/// How much of a stream is looked at at once: its chunks are read in the order of packs.
const WINDOW: u64 = 512 << 20;
/// How often the lease is renewed.
const RENEWED_EVERY: Duration = Duration::from_secs(300);

/// How to copy.
pub struct CopyOptions<'o> {
    /// How chunks are compressed.
    pub compression: Compression,
    /// Threads that read and compress.
    pub threads: usize,
    /// Set from outside to end the job.
    pub interrupt: &'o AtomicBool,
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// It was copied, and is called this there.
    New(Digest),
    /// It was there already, and is called this.
    There(Digest),
    /// Something that it needs cannot be read: that was reported.
    Damaged,
}

/// What became of all.
#[derive(Clone, Debug, Default)]
pub struct CopyReport {
    /// The snapshots, with their ids here.
    pub snapshots: Vec<(Digest, Copied)>,
    /// Bytes stored for chunks that were not there.
    pub stored_bytes: u64,
    /// Chunks that were not there.
    pub stored_chunks: u64,
}

/// Copies snapshots, oldest first, from one repository into another. `listed` are all of the first one.
pub fn copy(
    from: &Repository,
    to: &Repository,
    listed: &[Listed],
    chosen: &[Listed],
    options: &CopyOptions<'_>,
    losses: &Losses<'_>,
) -> Result<CopyReport> {
    let lease = Lease::take(to, &host_name(), &user_name())?;
    let there = snapshots::list(to, losses)?;
    let twins = listed.iter().filter_map(|here| Some((here.id, twin_of(&here.snapshot, &there)?.clone())));
    let twins: HashMap<Digest, Listed> = twins.collect();
    let storing = Storing {
        compression: options.compression,
        keys: to.chunk_keys().clone(),
        padding: to.config().padding,
        is_stored: Box::new(|_, id| to.index().contains(id)),
    };
    let mut copier = Copier {
        from,
        to,
        options,
        storing: &storing,
        lease,
        renewed: Instant::now(),
        store: Store { writer: to.writer(), report: CopyReport::default() },
        caches: [snapshots::caches(from), snapshots::caches(to)],
        ids: (from.chunk_keys().is_sealed() || to.chunk_keys().is_sealed()).then(HashMap::new),
        names: twins.iter().map(|(here, twin)| (*here, twin.id)).collect(),
    };
    let mut chosen: Vec<&Listed> = chosen.iter().collect();
    chosen.sort_by_key(|chosen| (chosen.snapshot.time, chosen.id));
    for chosen in chosen {
        let copied = match twins.get(&chosen.id) {
            Some(twin) => Copied::There(twin.id),
            None => match copier.copy(chosen, listed, &twins, losses) {
                Ok(copied) => copied,
                Err(error) => {
                    copier.keep_what_there_is(chosen, losses);
                    return Err(error);
                }
            },
        };
        copier.store.report.snapshots.push((chosen.id, copied));
    }
    Ok(copier.store.report)
}

/// The copy of a snapshot, if it is there: forgotten ones count, for they were not wanted.
fn twin_of<'l>(snapshot: &Snapshot, there: &'l [Listed]) -> Option<&'l Listed> {
    let trees = |snapshot: &Snapshot| -> Vec<(Vec<u8>, Digest)> {
        snapshot.archives.iter().map(|archive| (archive.name.clone(), archive.tree_id)).collect()
    };
    there.iter().find(|other| {
        let other = &other.snapshot;
        (other.time, &other.host) == (snapshot.time, &snapshot.host) && trees(other) == trees(snapshot)
    })
}

struct Copier<'c> {
    from: &'c Repository,
    to: &'c Repository,
    options: &'c CopyOptions<'c>,
    storing: &'c Storing<'c>,
    lease: Lease<'c>,
    renewed: Instant,
    store: Store,
    caches: [Caches; 2],
    /// The ids that chunks have there, by those that they have here; none if they are the same.
    ids: Option<HashMap<Digest, Digest>>,
    /// The snapshots that are there, by their names here.
    names: HashMap<Digest, Digest>,
}

struct Store {
    writer: StoreWriter,
    report: CopyReport,
}

impl ChunkWriter for Store {
    fn append(&mut self, kind: ChunkKind, id: Digest, stored: &[u8]) -> FormatResult<()> {
        if self.writer.append(kind, id, stored)? {
            self.report.stored_bytes += stored.len() as u64;
            self.report.stored_chunks += 1;
        }
        Ok(())
    }
}

/// A chunk as it is in the other repository.
struct Moved {
    here: Digest,
    there: Digest,
    /// What is to be stored; none if it is there.
    stored: Option<Vec<u8>>,
}

impl Copier<'_> {
    fn copy(
        &mut self,
        chosen: &Listed,
        listed: &[Listed],
        twins: &HashMap<Digest, Listed>,
        losses: &Losses<'_>,
    ) -> Result<Copied> {
        self.learn(chosen, listed, twins);
        match self.snapshot(chosen) {
            Ok(id) => {
                self.names.insert(chosen.id, id);
                Ok(Copied::New(id))
            }
            // What is damaged here is no reason to leave others without a copy.
            Err(error) if error.class().is_some_and(is_damage) => {
                let path = chosen.snapshot.archives.first().map(source_of).unwrap_or_default();
                losses.loss(path, format!("snapshot {} cannot be copied: {error}", chosen.short_id()));
                Ok(Copied::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    /// The run ends early: what was copied of a snapshot need not be copied again.
    fn keep_what_there_is(&mut self, chosen: &Listed, losses: &Losses<'_>) {
        let copied =
            self.store.report.snapshots.iter().filter(|(_, copied)| matches!(copied, Copied::New(_)));
        let mut what = format!("{} snapshots were copied before it", copied.count());
        // After an error of the repository nothing more can be stored; that error is told.
        if self.store.report.stored_chunks > 0 && self.store.writer.flush().is_ok() {
            what.push_str(", and what was copied of it stays: the next run goes on from there");
        }
        let path = format!("snapshot {}", chosen.short_id()).into_bytes();
        losses.problem(Problem { path, what, is_loss: false });
    }

    fn snapshot(&mut self, chosen: &Listed) -> Result<Digest> {
        let place = format!("snapshot {}", chosen.short_id());
        let Snapshot { archives, report, base, .. } = &chosen.snapshot;
        let snapshot = Snapshot {
            archives: archives.iter().map(|archive| self.archive(archive, &place)).collect::<Result<_>>()?,
            report: report.as_ref().map(|report| self.report(report)).transpose().in_place(&place)?,
            replaces: None,
            base: base.as_ref().and_then(|base| self.names.get(base)).copied(),
            ..chosen.snapshot.clone()
        };
        self.store.writer.flush()?;
        if chosen.is_partial {
            return Ok(self.to.put_snapshot(SnapshotKind::Partial, Body::Snapshot(snapshot))?.id);
        }
        commit(self.to, snapshot)
    }

    fn archive(&mut self, record: &ArchiveRecord, place: &str) -> Result<ArchiveRecord> {
        let [caches, _] = &self.caches;
        let [metadata, payload] = self.from.streams(record, caches);
        let metadata = self.stream(&metadata, ChunkKind::Metadata, record.metadata, place)?;
        let payload = self.stream(&payload, ChunkKind::Payload, record.payload, place)?;
        // Of chunks that no slice uses any more nobody needs to know.
        let sparse_chunks = record.sparse_chunks.iter().filter_map(|id| self.id_there(id)).collect();
        Ok(ArchiveRecord { metadata, payload, sparse_chunks, ..record.clone() })
    }

    fn stream(
        &mut self,
        stream: &StreamReader,
        kind: ChunkKind,
        record: StreamRecord,
        place: &str,
    ) -> Result<StreamRecord> {
        for window in windows(record.length) {
            let mut known = HashSet::new();
            let slices = stream.slices(window).in_place(place)?;
            let chunks = slices.iter().map(|slice| slice.slice.chunk);
            let chunks: Vec<Digest> = chunks.filter(|id| known.insert(*id)).collect();
            self.chunks(kind, &chunks, place)?;
        }
        let ids = &self.ids;
        let slices = windows(record.length).flat_map(|window| match stream.slices(window) {
            Ok(slices) => slices.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        });
        let moved = slices.map(|found: FormatResult<StreamSlice>| {
            let StreamSlice { mut slice, chunk_length, .. } = found?;
            if let Some(ids) = ids {
                let there = ids.get(&slice.chunk).copied();
                slice.chunk = there.ok_or_else(|| FormatError::missing("a chunk was not copied"))?;
            }
            Ok((slice, chunk_length))
        });
        let root = write_map(moved, self.storing, &mut self.store).in_place(place)?;
        Ok(StreamRecord { root: root.id, length: record.length })
    }

    /// Stores of these chunks what is not there.
    fn chunks(&mut self, kind: ChunkKind, chunks: &[Digest], place: &str) -> Result<()> {
        if self.renewed.elapsed() > RENEWED_EVERY {
            self.lease.renew()?;
            self.renewed = Instant::now();
        }
        let mut wanted: Vec<Location> = Vec::new();
        for id in chunks {
            let is_there = match &self.ids {
                None => self.to.index().contains(id)?,
                Some(ids) => ids.contains_key(id),
            };
            if is_there {
                continue;
            }
            let location = self.from.index().find(id).in_place(place)?;
            let missing = || FormatError::missing(format!("chunk {id} is in no pack that the index names"));
            wanted.push(location.ok_or_else(missing).in_place(place)?);
        }
        wanted.sort_by_key(|location| (location.pack, location.chunk.offset));
        let threads = self.options.threads.max(1);
        let share = wanted.len().div_ceil(threads).max(1);
        let (sender, moved) = bounded(2 * threads);
        let (from, storing, interrupt) = (self.from, self.storing, self.options.interrupt);
        let Self { store, ids, .. } = self;
        std::thread::scope(|scope| {
            for part in wanted.chunks(share) {
                let sender = sender.clone();
                scope.spawn(move || move_chunks(from, kind, part, storing, interrupt, &sender));
            }
            drop(sender);
            for moved in moved {
                let Moved { here, there, stored } = moved?;
                if let Some(stored) = stored {
                    store.append(kind, there, &stored)?;
                }
                if let Some(ids) = ids {
                    ids.insert(here, there);
                }
            }
            Ok(())
        })
    }

    fn report(&mut self, report: &Report) -> FormatResult<Report> {
        let mut decompressor = Decompressor::new(self.from.chunk_keys().clone());
        let bytes =
            self.from.reader().read_chunk(ChunkKind::Report, &report.id, Verify::Id, &mut decompressor)?;
        let id = self.storing.keys.chunk_id(ChunkKind::Report, &bytes);
        if !self.to.index().contains(&id)? {
            let mut stored = Vec::new();
            self.storing.metadata_compressor().store(ChunkKind::Report, id, &bytes, &mut stored)?;
            self.store.append(ChunkKind::Report, id, &stored)?;
        }
        Ok(Report { id, ..*report })
    }

    /// What a chunk is called there, as far as that is known.
    fn id_there(&self, here: &Digest) -> Option<Digest> {
        match &self.ids {
            None => Some(*here),
            Some(ids) => ids.get(here).copied(),
        }
    }

    /// Learns ids from the copy of the snapshot before, which has most chunks in common. What cannot be learned is read.
    fn learn(&mut self, chosen: &Listed, listed: &[Listed], twins: &HashMap<Digest, Listed>) {
        if self.ids.is_none() {
            return;
        }
        for archive in &chosen.snapshot.archives {
            let same = |other: &ArchiveRecord| source_of(other) == source_of(archive);
            let pair = listed.iter().rev().find_map(|other| {
                let is_before = other.snapshot.host == chosen.snapshot.host
                    && other.snapshot.time <= chosen.snapshot.time;
                let twin = twins.get(&other.id).filter(|_| is_before)?;
                let here = other.snapshot.archives.iter().find(|archive| same(archive))?;
                Some((here, twin.snapshot.archives.iter().find(|archive| same(archive))?))
            });
            if let Some((here, there)) = pair {
                // Whatever is wrong with the pair, chunks can be read.
                let _ = self.learn_archive(here, there);
            }
        }
    }

    fn learn_archive(&mut self, here: &ArchiveRecord, there: &ArchiveRecord) -> FormatResult<()> {
        let [caches_here, caches_there] = &self.caches;
        let streams_here = self.from.streams(here, caches_here);
        let streams_there = self.to.streams(there, caches_there);
        let Some(ids) = &mut self.ids else { return Ok(()) };
        for (here, there) in streams_here.iter().zip(&streams_there) {
            for window in windows(diptych_format::ReadAt::len(&**here)) {
                let (here, there) = (here.slices(window.clone())?, there.slices(window)?);
                for (here, there) in here.iter().zip(&there) {
                    let place = |slice: &StreamSlice| (slice.position, slice.slice.start, slice.slice.length);
                    if place(here) != place(there) {
                        return Ok(());
                    }
                    if self.to.index().contains(&there.slice.chunk)? {
                        ids.insert(here.slice.chunk, there.slice.chunk);
                    }
                }
            }
        }
        Ok(())
    }
}

fn windows(length: u64) -> impl Iterator<Item = Range<u64>> {
    (0..length.div_ceil(WINDOW)).map(move |window| {
        let start = window * WINDOW;
        start..length.min(start.saturating_add(WINDOW))
    })
}

fn is_damage(class: Class) -> bool {
    matches!(class, Class::Missing | Class::Truncated | Class::Corrupt)
}

/// Reads chunks one after another, proves them, and makes of each what is stored there. Ends when nobody listens.
fn move_chunks(
    from: &Repository,
    kind: ChunkKind,
    chunks: &[Location],
    storing: &Storing<'_>,
    interrupt: &AtomicBool,
    sender: &Sender<Result<Moved>>,
) {
    let compression = match kind {
        ChunkKind::Payload => storing.compression,
        _ => storing.compression.for_metadata(),
    };
    let mut compressor = Compressor::new(compression, storing.keys.clone(), storing.padding);
    let mut decompressor = Decompressor::new(from.chunk_keys().clone());
    let mut ended = None;
    let run =
        from.reader().read_run(chunks, Verify::Id, &mut decompressor, |location, bytes, decompressor| {
            if interrupt.load(Ordering::Relaxed) {
                ended = Some(Error::Interrupted);
                return Err(FormatError::missing("interrupted"));
            }
            let bytes = bytes?;
            let (here, there) = (location.chunk.header.id, storing.keys.chunk_id(kind, &bytes));
            let mut stored = None;
            if !(storing.is_stored)(kind, &there)? {
                compressor.store(kind, there, &bytes, stored.insert(Vec::new()))?;
            }
            decompressor.recycle(bytes);
            let sent = sender.send(Ok(Moved { here, there, stored }));
            sent.map_err(|_| FormatError::missing("the writer stopped"))
        });
    if let Err(error) = run {
        // If nobody listens, the reason is known.
        let _ = sender.send(Err(ended.unwrap_or_else(|| error.into())));
    }
}
