//! Chunks stored in a repository and found again: after crashes, merges, losses and repairs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use diptych_backend::faulty::{Faulty, Operation};
use diptych_backend::memory::{Change, Memory};
use diptych_backend::{Backend, FileKind, FileName, Listed, NewFile};
use diptych_format::pack::{
    ChunkHeader, ChunkKind, PackTrailer, TRAILER_LENGTH, directory_digest, encode_directory,
};
use diptych_format::{Class, Digest, Result};
use diptych_repository::pack::{PackReader, StoredChunk};
use diptych_repository::store::rebuild_index;
use diptych_repository::{
    ChunkKeys, ChunkSource, Compression, Compressor, Decompressor, DocumentKeys, Index, Location, MasterKey,
    Padding, StoreReader, StoreWriter, Verify,
};

type Chunks = BTreeMap<Digest, (ChunkKind, Vec<u8>)>;

const PACK_SIZE: u64 = 4000;
const KINDS: [ChunkKind; 4] =
    [ChunkKind::Payload, ChunkKind::Metadata, ChunkKind::Segment, ChunkKind::Report];

fn keys() -> DocumentKeys {
    DocumentKeys::plain()
}

fn memory() -> Memory {
    let memory = Memory::new();
    memory.make_layout().unwrap();
    memory
}

fn open(backend: impl Backend + 'static) -> Arc<Index> {
    Arc::new(Index::open(Arc::new(backend), keys().index_hasher()).unwrap())
}

/// Chunks of all kinds that are told apart by a number.
fn chunks(numbers: std::ops::Range<u32>) -> Chunks {
    let chunk = |n: u32| {
        let kind = KINDS[n as usize % 4];
        let raw: Vec<u8> = (0..20 + n % 30).flat_map(|part| Digest::of(&[n as u8, part as u8]).0).collect();
        let raw = [&n.to_le_bytes(), &raw[..]].concat();
        (ChunkKeys::plain().chunk_id(kind, &raw), (kind, raw))
    };
    numbers.map(chunk).collect()
}

fn stored(kind: ChunkKind, id: Digest, raw: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    Compressor::new(Compression::None, ChunkKeys::plain(), Padding::None)
        .store(kind, id, raw, &mut stored)
        .unwrap();
    stored
}

fn append(writer: &mut StoreWriter, chunks: &Chunks) -> Result<()> {
    for (id, (kind, raw)) in chunks {
        writer.append(*kind, *id, &stored(*kind, *id, raw))?;
    }
    Ok(())
}

/// A run that stores these chunks in packs of this size.
fn store_in(index: &Arc<Index>, chunks: &Chunks, pack_size: u64) {
    let mut writer = StoreWriter::new(index.clone(), pack_size);
    append(&mut writer, chunks).unwrap();
    writer.finish().unwrap();
}

fn store(index: &Arc<Index>, chunks: &Chunks) {
    store_in(index, chunks, PACK_SIZE);
}

fn read(index: &Arc<Index>, kind: ChunkKind, id: &Digest) -> Result<Vec<u8>> {
    let reader = StoreReader::new(index.clone());
    reader.read_chunk(kind, id, Verify::Id, &mut Decompressor::default()).map(|bytes| bytes.to_vec())
}

#[track_caller]
fn assert_all_readable(index: &Arc<Index>, chunks: &Chunks) {
    for (id, (kind, raw)) in chunks {
        assert_eq!(read(index, *kind, id).unwrap(), *raw);
    }
}

fn names(backend: &dyn Backend, kind: FileKind) -> Vec<FileName> {
    backend.list(kind).unwrap().into_iter().map(|listed| listed.name).collect()
}

/// Spec: R-2-1, R-7-1.
#[test]
fn chunks_come_back_from_packs_of_their_kind() {
    let memory = memory();
    let all = chunks(0..60);
    let index = open(memory.clone());
    let mut writer = StoreWriter::new(index.clone(), PACK_SIZE);
    append(&mut writer, &all).unwrap();
    for (id, (kind, raw)) in &all {
        assert!(index.contains(id).unwrap());
        assert!(!writer.append(*kind, *id, &stored(*kind, *id, raw)).unwrap());
    }
    let stats = writer.finish().unwrap();
    assert_eq!(stats.chunks, 60);
    assert_eq!(stats.packs, names(&memory, FileKind::Data).len() as u64);
    assert_all_readable(&index, &all);
    assert_all_readable(&open(memory.clone()), &all);
    assert!(stats.packs > 6);
    for pack in index.packs() {
        assert!(pack.length < PACK_SIZE + 4000);
    }
    for change in memory.log() {
        if let Change::Kept(name, bytes) = change {
            assert_eq!(*name.digest(), Digest::of(&bytes).0);
            if name.kind() == FileKind::Data {
                assert!(bytes[10] == 1 || bytes[10] == 2, "a pack holds both kinds");
            }
        }
    }
}

#[test]
fn sealed_chunks_come_back() {
    let memory = memory();
    let master = MasterKey::from_bytes([7; 32]);
    let (keys, mac) = (ChunkKeys::of(&master), DocumentKeys::of(&master).index_hasher());
    let index = Arc::new(Index::open(Arc::new(memory.clone()), mac.clone()).unwrap());
    let mut writer = StoreWriter::new(index, PACK_SIZE);
    let mut compressor = Compressor::new(Compression::default(), keys.clone(), Padding::Padme);
    let raws: Vec<Vec<u8>> = (1..40_u8).map(|n| vec![n; 100 * usize::from(n)]).collect();
    for raw in &raws {
        let mut stored = Vec::new();
        let id = keys.chunk_id(ChunkKind::Payload, raw);
        compressor.store(ChunkKind::Payload, id, raw, &mut stored).unwrap();
        assert!(writer.append(ChunkKind::Payload, id, &stored).unwrap());
    }
    writer.finish().unwrap();
    let reader = StoreReader::new(Arc::new(Index::open(Arc::new(memory.clone()), mac).unwrap()));
    let mut decompressor = Decompressor::new(keys.clone());
    for raw in &raws {
        let id = keys.chunk_id(ChunkKind::Payload, raw);
        let bytes = reader.read_chunk(ChunkKind::Payload, &id, Verify::Id, &mut decompressor).unwrap();
        assert_eq!(bytes[..], raw[..]);
    }
    // Without the key, no index file is believed.
    let without = open(memory);
    assert_eq!(without.take_damaged().len(), 1);
    assert!(without.packs().is_empty());
}

#[test]
fn what_is_not_there_is_missing_and_another_kind_corrupt() {
    let index = open(memory());
    let all = chunks(0..1);
    store(&index, &all);
    let error = read(&index, ChunkKind::Payload, &Digest::of(b"another")).unwrap_err();
    assert_eq!(error.class, Class::Missing);
    assert!(error.to_string().contains("diptych check"), "{error}");
    let id = all.keys().next().unwrap();
    assert_eq!(read(&index, ChunkKind::Metadata, id).unwrap_err().class, Class::Corrupt);
}

/// Spec: R-2-3, R-11-1 to R-11-4.
#[test]
fn wherever_a_run_ends_what_an_index_names_is_there() {
    let memory = memory();
    let index = open(memory.clone());
    let mut checkpoints = Vec::new();
    let mut writer = StoreWriter::new(index.clone(), PACK_SIZE);
    for part in 0..10 {
        append(&mut writer, &chunks(part * 20..part * 20 + 20)).unwrap();
        writer.flush().unwrap();
        checkpoints.push(memory.log().len());
    }
    writer.finish().unwrap();
    assert_eq!(index.merge_levels().unwrap(), 1);
    let all = chunks(0..200);
    for count in 1..=memory.log().len() {
        let crashed = open(memory.after(count));
        let durable = checkpoints.iter().filter(|checkpoint| **checkpoint <= count).count() as u32;
        let durable = chunks(0..durable * 20);
        for (id, (kind, raw)) in &all {
            match crashed.find(id).unwrap() {
                Some(_) => assert_eq!(read(&crashed, *kind, id).unwrap(), *raw),
                None => assert!(!durable.contains_key(id), "lost after {count} changes"),
            }
        }
        assert!(crashed.leave_out_absent().unwrap().is_empty());
    }
    assert_eq!(checkpoints.len(), 10);
}

/// Spec: R-11-3.
#[test]
fn an_error_anywhere_is_told_and_nothing_is_named_that_is_not_there() {
    let all = chunks(0..80);
    let mut tried = BTreeSet::new();
    for operation in [Operation::Create, Operation::Write, Operation::Keep] {
        for before in 0.. {
            let memory = memory();
            let faulty =
                Faulty::new(Arc::new(memory.clone()), Some(operation), before, diptych_backend::Class::Full);
            let index = open(faulty);
            let mut writer = StoreWriter::new(index.clone(), PACK_SIZE);
            let result = append(&mut writer, &all).and_then(|()| writer.flush());
            let told = match result {
                Ok(()) => false,
                Err(error) => {
                    assert_eq!(error.class, Class::Io);
                    assert_eq!(error.source.as_ref().unwrap().kind(), ErrorKind::StorageFull, "{error}");
                    assert!(error.to_string().contains("make room there"), "{error}");
                    assert!(writer.flush().is_err(), "what was lost counts as stored");
                    assert!(writer.append(ChunkKind::Payload, Digest::of(b"x"), &[]).is_err());
                    true
                }
            };
            drop(writer);
            let begun = memory.log().iter().filter(|change| matches!(change, Change::Created(_))).count();
            let ended = |change: &&Change| matches!(change, Change::Kept(..) | Change::Dropped(_));
            assert_eq!(memory.log().iter().filter(ended).count(), begun, "half a file is left");
            for index in [index, open(memory)] {
                for (id, (kind, raw)) in &all {
                    assert_eq!(index.contains(id).unwrap(), index.find(id).unwrap().is_some());
                    if index.contains(id).unwrap() {
                        assert_eq!(read(&index, *kind, id).unwrap(), *raw);
                    } else {
                        assert!(told, "a chunk is lost and nobody was told");
                    }
                }
            }
            if !told {
                break;
            }
            tried.insert((format!("{operation:?}"), before));
        }
    }
    assert!(tried.len() > 30, "{tried:?}");
}

#[test]
fn what_is_dropped_is_not_taken_for_stored() {
    let memory = memory();
    let index = open(memory.clone());
    let all = chunks(0..4);
    let mut writer = StoreWriter::new(index.clone(), 1 << 20);
    append(&mut writer, &all).unwrap();
    assert!(index.contains(all.keys().next().unwrap()).unwrap());
    drop(writer);
    for id in all.keys() {
        assert!(!index.contains(id).unwrap());
    }
    assert!(names(&memory, FileKind::Data).is_empty());
}

/// Two runs that know nothing of each other store the same chunks, in packs of different sizes.
fn stored_twice() -> (Memory, Chunks, Vec<FileName>) {
    let memory = memory();
    let all = chunks(0..40);
    let [first, second] = [open(memory.clone()), open(memory.clone())];
    store_in(&first, &all, PACK_SIZE);
    let of_first = names(&memory, FileKind::Data);
    store_in(&second, &all, 1 << 20);
    (memory, all, of_first)
}

/// Spec: R-8-7.
#[test]
fn a_chunk_that_is_in_two_packs_survives_the_loss_of_one() {
    for is_merged in [false, true] {
        let (memory, all, of_first) = stored_twice();
        let id = all.keys().next().unwrap();
        let index = open(memory.clone());
        if is_merged {
            // As many files of the same size.
            (1..7).for_each(|run| store(&index, &chunks(1000 * run..1000 * run + 40)));
            assert_eq!(index.merge_levels().unwrap(), 1);
            assert_eq!(names(&memory, FileKind::Index).len(), 1);
        }
        assert_eq!(index.find_all(id).unwrap().len(), 2);
        of_first.iter().for_each(|name| memory.delete(name).unwrap());
        assert_all_readable(&index, &all);
        let index = open(memory);
        assert_all_readable(&index, &all);
        assert_eq!(index.leave_out_absent().unwrap().len(), of_first.len());
        assert_eq!(index.find_all(id).unwrap().len(), 1);
        assert_all_readable(&index, &all);
    }
}

/// A place of the disk that cannot be read costs nothing where another pack has the chunk.
#[test]
fn a_chunk_that_is_in_two_packs_survives_a_read_that_fails() {
    let (memory, all, _) = stored_twice();
    let (id, (kind, raw)) = all.iter().next().unwrap();
    let mut survived = 0;
    for before in 0..40 {
        let class = diptych_backend::Class::Io;
        let faulty = Faulty::new(Arc::new(memory.clone()), Some(Operation::Read), before, class);
        let watch = faulty.watch();
        let Ok(index) = Index::open(Arc::new(faulty), keys().index_hasher()) else { continue };
        if watch.has_struck() {
            continue;
        }
        // What fails may be the look-up, which has no other place.
        if read(&Arc::new(index), *kind, id).is_ok_and(|read| read == *raw) && watch.has_struck() {
            survived += 1;
        }
    }
    assert!(survived > 0);
}

/// As many runs, each with an index file of twelve chunks.
fn store_many(index: &Arc<Index>, runs: u32) {
    (0..runs).for_each(|run| store(index, &chunks(1000 + 12 * run..1012 + 12 * run)));
}

/// Spec: R-8-8.
#[test]
fn files_of_about_the_same_size_become_one() {
    let memory = memory();
    let index = open(memory.clone());
    let other = open(memory.clone());
    store_many(&index, 7);
    assert_eq!(index.merge_levels().unwrap(), 0);
    store(&index, &chunks(0..200));
    assert_eq!(index.merge_levels().unwrap(), 0);
    store_many(&other, 8);
    index.refresh().unwrap();
    assert_eq!(names(&memory, FileKind::Index).len(), 9);
    assert_eq!(index.merge_levels().unwrap(), 1);
    // The seven files of the same runs were the same in both.
    assert_eq!(names(&memory, FileKind::Index).len(), 2);
    // It has files open that are gone, and lists again.
    for index in [other, index, open(memory)] {
        assert_all_readable(&index, &chunks(1000..1096));
        assert_all_readable(&index, &chunks(0..200));
    }
}

/// Spec: R-8-8.
#[test]
fn replaced_files_that_are_still_there_are_left_out_and_removed() {
    let memory = memory();
    let index = open(memory.clone());
    store_many(&index, 8);
    index.merge_levels().unwrap();
    let first_deletion = memory.log().iter().position(|change| matches!(change, Change::Deleted(_))).unwrap();
    let crashed = memory.after(first_deletion + 3);
    assert_eq!(names(&crashed, FileKind::Index).len(), 6);
    let index = open(crashed.clone());
    assert_all_readable(&index, &chunks(1000..1096));
    let id = *chunks(1000..1001).keys().next().unwrap();
    assert_eq!(index.find_all(&id).unwrap().len(), 1);
    assert_eq!(index.merge_levels().unwrap(), 0);
    assert_eq!(names(&crashed, FileKind::Index).len(), 1);
    assert_all_readable(&index, &chunks(1000..1096));
}

/// Spec: R-2-2.
#[test]
fn a_damaged_index_file_is_told_and_not_there() {
    let memory = memory();
    let index = open(memory.clone());
    store(&index, &chunks(0..10));
    let mut bytes = file(&memory, &names(&memory, FileKind::Index)[0]);
    memory.delete(&names(&memory, FileKind::Index)[0]).unwrap();
    bytes[200] ^= 1;
    put(&memory, FileKind::Index, &bytes);
    store(&open(memory.clone()), &chunks(10..20));
    let index = open(memory.clone());
    let damaged = index.take_damaged();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].error.class, Class::Corrupt);
    assert!(damaged[0].error.to_string().contains(&damaged[0].name.encode()), "{}", damaged[0].error);
    assert_all_readable(&index, &chunks(10..20));
    assert!(!index.contains(chunks(0..10).keys().next().unwrap()).unwrap());
}

fn file(backend: &dyn Backend, name: &FileName) -> Vec<u8> {
    let mut bytes = vec![0; backend.length(name).unwrap() as usize];
    backend.read_at(name, &mut bytes, 0).unwrap();
    bytes
}

fn put(backend: &dyn Backend, kind: FileKind, bytes: &[u8]) -> FileName {
    let name = FileName::new(kind, Digest::of(bytes).0);
    put_as(backend, &name, bytes);
    name
}

fn put_as(backend: &dyn Backend, name: &FileName, bytes: &[u8]) {
    let mut file = backend.create(name.kind()).unwrap();
    file.write_all(bytes).unwrap();
    file.keep(name).unwrap();
}

/// Spec: R-8-7.
#[test]
fn a_pack_that_is_gone_is_stored_again() {
    let memory = memory();
    let all = chunks(0..12);
    store(&open(memory.clone()), &all);
    let gone = names(&memory, FileKind::Data)[0];
    memory.delete(&gone).unwrap();
    let index = open(memory.clone());
    assert_eq!(index.leave_out_absent().unwrap(), [Digest(*gone.digest())]);
    let lost: Chunks = all
        .iter()
        .filter(|(id, _)| !index.contains(id).unwrap())
        .map(|(id, chunk)| (*id, chunk.clone()))
        .collect();
    assert!(!lost.is_empty() && lost.len() < all.len());
    // The same chunks make the same pack, so what it held is there again.
    store(&index, &lost);
    assert_eq!(names(&memory, FileKind::Data).len(), index.packs().len());
    assert_all_readable(&index, &all);
    assert_all_readable(&open(memory), &all);
}

/// Spec: R-7-3, R-8-8.
#[test]
fn a_pack_that_was_cut_is_stored_again_and_stays_indexed() {
    let memory = memory();
    let all = chunks(0..4);
    store(&open(memory.clone()), &all);
    let (rows, packs) = (all.len(), names(&memory, FileKind::Data));
    for name in &packs {
        let bytes = file(&memory, name);
        memory.delete(name).unwrap();
        put_as(&memory, name, &bytes[..bytes.len() - 1]);
    }
    let index = open(memory.clone());
    assert_eq!(index.leave_out_absent().unwrap().len(), packs.len());
    assert!(all.keys().all(|id| !index.contains(id).unwrap()));
    // The same chunks would have made the packs that are there.
    store(&index, &all);
    assert_eq!(names(&memory, FileKind::Data).len(), 2 * packs.len());
    assert_all_readable(&index, &all);
    // What is left of a pack may be all that there is of a chunk.
    for number in 1..9 {
        store(&index, &chunks(number * 10..number * 10 + 1));
    }
    assert!(index.merge_levels().unwrap() > 0);
    let view = open(memory).view();
    let places: usize = all.keys().map(|id| view.find(id).unwrap().len()).sum();
    assert_eq!(places, 2 * rows);
}

/// Spec: R-10-4.
#[test]
fn no_damaged_chunk_is_taken_from_its_pack() {
    let memory = memory();
    let all = chunks(0..12);
    let index = open(memory.clone());
    store(&index, &all);
    let (id, _) = all.first_key_value().unwrap();
    let damaged = index.find(id).unwrap().unwrap();
    index.leave_out_chunks([damaged.pack], [*id]);
    let left: Vec<&Digest> = all.keys().filter(|id| !index.contains(id).unwrap()).collect();
    assert_eq!(left, [id]);
    let before = names(&memory, FileKind::Data).len();
    store(&index, &all.iter().take(1).map(|(id, chunk)| (*id, chunk.clone())).collect());
    assert_eq!(names(&memory, FileKind::Data).len(), before + 1);
    assert_ne!(index.find(id).unwrap().unwrap().pack, damaged.pack);
}

/// Spec: R-7-3, R-10-2.
#[test]
fn no_chunk_is_taken_from_a_condemned_pack() {
    let memory = memory();
    let all = chunks(0..12);
    let index = open(memory.clone());
    store(&index, &all);
    index.leave_out(names(&memory, FileKind::Data).iter().map(|name| Digest(*name.digest())));
    for id in all.keys() {
        assert!(!index.contains(id).unwrap());
    }
    let condemned = names(&memory, FileKind::Data);
    store(&index, &all);
    assert_all_readable(&index, &all);
    // The same chunks would have made packs of the same names.
    condemned.iter().for_each(|name| memory.delete(name).unwrap());
    assert_all_readable(&index, &all);
    assert_all_readable(&open(memory), &all);
}

/// Spec: R-11-1.
#[test]
fn what_this_run_stored_and_is_doomed_is_stored_again() {
    let memory = memory();
    let index = open(memory.clone());
    let all = chunks(0..12);
    let mut writer = StoreWriter::new(index.clone(), PACK_SIZE);
    append(&mut writer, &all).unwrap();
    writer.flush().unwrap();
    let more = chunks(12..20);
    append(&mut writer, &more).unwrap();
    let doomed = names(&memory, FileKind::Data);
    // A pack has its name a moment before the index knows it.
    let is_known = |name: &FileName| {
        let found = all.keys().chain(more.keys()).filter_map(|id| index.find(id).unwrap());
        found.into_iter().any(|location| location.pack.0 == *name.digest())
    };
    while !doomed.iter().all(is_known) {
        std::thread::yield_now();
    }
    index.leave_out(doomed.iter().map(|name| Digest(*name.digest())));
    append(&mut writer, &all).unwrap();
    writer.finish().unwrap();
    doomed.iter().for_each(|name| memory.delete(name).unwrap());
    assert_all_readable(&index, &chunks(0..20));
    assert_all_readable(&open(memory), &chunks(0..20));
}

/// A backend around another: counts the reads of packs, and does something when the index has been listed.
struct Watched {
    inner: Memory,
    pack_reads: Arc<AtomicU64>,
    when_listed: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Watched {
    fn new(inner: &Memory) -> Self {
        Self { inner: inner.clone(), pack_reads: Arc::default(), when_listed: Mutex::new(None) }
    }
}

impl Backend for Watched {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn make_layout(&self) -> diptych_backend::Result<()> {
        self.inner.make_layout()
    }

    fn create(&self, kind: FileKind) -> diptych_backend::Result<Box<dyn NewFile>> {
        self.inner.create(kind)
    }

    fn read_at(&self, file: &FileName, buf: &mut [u8], offset: u64) -> diptych_backend::Result<()> {
        if file.kind() == FileKind::Data {
            self.pack_reads.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.read_at(file, buf, offset)
    }

    fn length(&self, file: &FileName) -> diptych_backend::Result<u64> {
        self.inner.length(file)
    }

    fn list(&self, kind: FileKind) -> diptych_backend::Result<Vec<Listed>> {
        let listed = self.inner.list(kind);
        if let Some(work) = self.when_listed.lock().unwrap().take() {
            work();
        }
        listed
    }

    fn strangers(&self, kind: FileKind) -> diptych_backend::Result<Vec<String>> {
        self.inner.strangers(kind)
    }

    fn delete(&self, file: &FileName) -> diptych_backend::Result<()> {
        self.inner.delete(file)
    }

    fn remove_leftovers(&self) -> diptych_backend::Result<u64> {
        self.inner.remove_leftovers()
    }
}

/// Spec: R-8-9.
#[test]
fn an_index_file_that_vanishes_after_it_was_listed_is_looked_for_again() {
    let memory = memory();
    let other = open(memory.clone());
    store_many(&other, 8);
    let watched = Watched::new(&memory);
    *watched.when_listed.lock().unwrap() =
        Some(Box::new(move || assert_eq!(other.merge_levels().unwrap(), 1)));
    let index = open(watched);
    assert_all_readable(&index, &chunks(1000..1096));
    assert!(index.take_damaged().is_empty());
}

#[test]
fn neighbours_in_a_pack_are_read_at_once() {
    let memory = memory();
    let all = chunks(0..400);
    store_in(&open(memory.clone()), &all, 1 << 30);
    let watched = Watched::new(&memory);
    let reads = watched.pack_reads.clone();
    let index = open(watched);
    let mut locations: Vec<Location> = all.keys().map(|id| index.find(id).unwrap().unwrap()).collect();
    locations.sort_by_key(|location| (location.pack, location.chunk.offset));
    // The metadata pack is read without a part in its middle, which is longer than is worth reading.
    let payload = |location: &Location| location.chunk.header.kind == ChunkKind::Payload;
    let is_left_out =
        |location: &Location| !payload(location) && (50_000..250_000).contains(&location.chunk.offset);
    locations.retain(|location| !is_left_out(location));
    let mut found = Chunks::new();
    let mut take = |location: &Location, bytes: Result<_>, decompressor: &mut Decompressor| {
        let bytes: diptych_repository::ChunkBytes = bytes?;
        let header = location.chunk.header;
        found.insert(header.id, (header.kind, bytes.to_vec()));
        decompressor.recycle(bytes);
        Ok(())
    };
    let reader = StoreReader::new(index.clone());
    reader.read_run(&locations, Verify::Id, &mut Decompressor::default(), &mut take).unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 3);
    let ids: BTreeSet<Digest> = locations.iter().map(|location| location.chunk.header.id).collect();
    let expected: Chunks = all.into_iter().filter(|(id, _)| ids.contains(id)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_damaged_neighbour_costs_itself_alone() {
    let memory = memory();
    let all = chunks(0..40);
    store_in(&open(memory.clone()), &all, 1 << 30);
    let index = open(memory.clone());
    let mut locations: Vec<Location> = all.keys().map(|id| index.find(id).unwrap().unwrap()).collect();
    locations.sort_by_key(|location| (location.pack, location.chunk.offset));
    let broken = locations[5];
    let name = FileName::new(FileKind::Data, broken.pack.0);
    let mut bytes = file(&memory, &name);
    bytes[broken.chunk.offset as usize + 60] ^= 1;
    memory.delete(&name).unwrap();
    put_as(&memory, &name, &bytes);
    let mut errors = Vec::new();
    let take = |location: &Location, bytes: Result<diptych_repository::ChunkBytes>, _: &mut Decompressor| {
        match bytes {
            Ok(bytes) => assert_eq!(bytes[..], all[&location.chunk.header.id].1[..]),
            Err(error) => errors.push((*location, error)),
        }
        Ok(())
    };
    StoreReader::new(index).read_run(&locations, Verify::Id, &mut Decompressor::default(), take).unwrap();
    let [(location, error)] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((*location, error.class), (broken, Class::Corrupt));
    assert!(error.to_string().contains(&name.path()), "{error}");
}

#[test]
fn an_index_is_made_anew_from_the_packs() {
    let memory = memory();
    let all = chunks(0..100);
    let index = open(memory.clone());
    store(&index, &chunks(0..50));
    store(&index, &chunks(50..100));
    let packs = names(&memory, FileKind::Data).len() as u64;
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    // Once beside the files that are there, once without them.
    for is_lost in [false, true] {
        if is_lost {
            names(&memory, FileKind::Index).iter().for_each(|name| memory.delete(name).unwrap());
        }
        let rebuilt = rebuild_index(&backend, &keys().index_hasher()).unwrap();
        assert_eq!((rebuilt.packs, rebuilt.chunks), (packs, 100));
        assert!(rebuilt.damaged.is_empty() && rebuilt.left_out.is_empty());
        assert_eq!(names(&memory, FileKind::Index).len(), 1);
        assert_all_readable(&open(memory.clone()), &all);
        assert_all_readable(&index, &all);
    }
}

#[test]
fn packs_without_an_end_give_what_they_have() {
    let memory = memory();
    let all = chunks(0..40);
    store_in(&open(memory.clone()), &all, 1 << 30);
    let [cut, no_pack] = names(&memory, FileKind::Data)[..] else { panic!("two packs are expected") };
    let bytes = file(&memory, &cut);
    let location = |id| open(memory.clone()).find(id).unwrap().unwrap();
    let mut in_cut: Vec<Location> =
        all.keys().map(location).filter(|found| found.pack.0 == *cut.digest()).collect();
    in_cut.sort_by_key(|location| location.chunk.offset);
    let lost = in_cut.pop().unwrap();
    [cut, no_pack].iter().for_each(|name| memory.delete(name).unwrap());
    put_as(&memory, &cut, &bytes[..lost.chunk.offset as usize + 100]);
    put_as(&memory, &no_pack, b"something else");
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    let rebuilt = rebuild_index(&backend, &keys().index_hasher()).unwrap();
    assert_eq!((rebuilt.packs, rebuilt.chunks), (1, in_cut.len() as u64));
    let [(damaged, error)] = &rebuilt.damaged[..] else { panic!("{rebuilt:?}") };
    assert_eq!((*damaged, error.class), (cut, Class::Truncated));
    assert_eq!(rebuilt.left_out.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [no_pack]);
    let index = open(memory);
    for location in in_cut {
        let header = location.chunk.header;
        assert_eq!(read(&index, header.kind, &header.id).unwrap(), all[&header.id].1);
    }
    assert!(!index.contains(&lost.chunk.header.id).unwrap());
}

/// Whoever can write packs can give one another directory that fits its bytes. The earlier index is believed then.
#[test]
fn a_directory_that_was_exchanged_is_believed_less_than_the_index() {
    let memory = memory();
    let all = chunks(0..40);
    store_in(&open(memory.clone()), &all, 1 << 30);
    let name = names(&memory, FileKind::Data)[0];
    let bytes = file(&memory, &name);
    // Two chunks under each other's ids.
    let pack = PackReader::open(Arc::new(bytes.clone())).unwrap();
    let mut chunks: Vec<StoredChunk> = pack.chunks().to_vec();
    let end = chunks.last().unwrap().end() as usize;
    let (first, second) = (chunks[0].header.id, chunks[1].header.id);
    (chunks[0].header.id, chunks[1].header.id) = (second, first);
    let headers: Vec<ChunkHeader> = chunks.iter().map(|chunk| chunk.header).collect();
    let directory = encode_directory(&headers, 0).unwrap();
    let mut forged = [&bytes[..end], &directory].concat();
    let pack_length = (forged.len() + TRAILER_LENGTH) as u64;
    let trailer = PackTrailer {
        directory_digest: directory_digest(&directory),
        directory_length: directory.len() as u64,
        pack_length,
    };
    forged.extend_from_slice(&trailer.encode());
    assert_eq!(forged.len(), bytes.len());
    PackReader::open(Arc::new(forged.clone())).unwrap();
    memory.delete(&name).unwrap();
    put_as(&memory, &name, &forged);
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    let rebuilt = rebuild_index(&backend, &keys().index_hasher()).unwrap();
    let [(damaged, error)] = &rebuilt.damaged[..] else { panic!("{rebuilt:?}") };
    assert_eq!((*damaged, error.class), (name, Class::Corrupt));
    assert_all_readable(&open(memory), &all);
}

/// What was lost and is stored again is in the index, though an index file said of one like it that it replaces it.
/// Spec: R-8-8.
#[test]
fn what_is_stored_again_after_a_repair_is_found() {
    let (memory, all) = (memory(), chunks(0..40));
    store(&open(memory.clone()), &all);
    names(&memory, FileKind::Data).iter().for_each(|name| memory.delete(name).unwrap());
    let backend: Arc<dyn Backend> = Arc::new(memory.clone());
    rebuild_index(&backend, &keys().index_hasher()).unwrap();
    store(&open(memory.clone()), &all);
    let index = open(memory);
    for (id, (kind, raw)) in &all {
        assert_eq!(read(&index, *kind, id).unwrap(), *raw);
    }
}
