//! Packs: whether those that the index names are there, say of themselves what the index says, and can be read.
//!
//! Packs of metadata are always read to their ends, as they are small; packs of payload where it is asked for. What is
//! wrong with a pack as a whole is found first; then every chunk that the index has in it is tried by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use diptych_backend::{FileKind, FileName};
use diptych_format::pack::PackHolds;
use diptych_format::{Class, Digest, Error as FormatError};
use diptych_repository::index::{PackRows, PlacedChunk};
use diptych_repository::store::verify_pack;
use diptych_repository::{Decompressor, KeptFile, PackReader};

use super::bits::Bits;
use super::{Check, is_refused};
use crate::error::{Error, Result};
use crate::pool;

/// Chunks that a thread tries in one go.
const AT_ONCE: usize = 64;

/// What is wrong with a pack.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault {
    /// In words.
    pub what: String,
    /// Nothing of it may be read: it may be whole.
    pub is_refused: bool,
    /// It is not there.
    pub is_gone: bool,
    /// Its end does not say what it holds: without the index it would be lost.
    pub is_frail: bool,
    /// Chunks in it that cannot be read.
    pub damaged: u64,
}

/// What was found.
#[derive(Default)]
pub(super) struct Packs {
    /// The packs that are not as they should be.
    pub faults: BTreeMap<Digest, Fault>,
    /// Whether all of it was done.
    pub is_interrupted: bool,
}

struct Task {
    name: Digest,
    /// What index files say of it.
    rows: Vec<PackRows>,
    length: u64,
    reads: bool,
}

/// What is under way.
struct Pass<'p> {
    check: &'p Check<'p>,
    faults: Mutex<BTreeMap<Digest, Fault>>,
    read: Mutex<HashSet<Digest>>,
}

/// Goes through all packs. `always` are read whatever else is; `bad` gets the rows of chunks that cannot be read.
pub(super) fn check_packs(check: &Check<'_>, always: &HashSet<Digest>, bad: &Bits) -> Result<Packs> {
    let listed = check.list(FileKind::Data)?;
    let there: HashMap<Digest, u64> = listed.iter().map(|(name, length)| (*name, *length)).collect();
    let mut named: BTreeMap<Digest, Vec<PackRows>> = BTreeMap::new();
    for rows in check.view.packs()? {
        named.entry(rows.pack.name).or_default().push(rows);
    }
    let leftovers = listed.iter().filter(|(name, _)| !named.contains_key(name));
    let (count, bytes) = leftovers.fold((0, 0), |(count, sum), (_, length)| (count + 1, sum + length));
    let holds_payload = |rows: &[PackRows]| rows.iter().all(|rows| rows.pack.holds == PackHolds::Payload);
    let payload: Vec<(Digest, u64)> = named
        .iter()
        .filter(|(_, rows)| holds_payload(rows))
        .filter_map(|(name, _)| Some((*name, *there.get(name)?)))
        .collect();
    let cursor = check.cursor();
    let last = if check.options.read_data.goes_on() { cursor.load() } else { None };
    let selected = check.options.read_data.select(&payload, last.as_ref());
    let mut to_read: HashSet<Digest> = selected.iter().copied().collect();
    to_read.extend(always);
    check.count(|report| {
        (report.packs, report.payload_packs) = (named.len() as u64, payload.len() as u64);
        report.payload_bytes = payload.iter().map(|(_, length)| length).sum();
        (report.leftover_packs, report.leftover_bytes) = (count, bytes);
    });

    let pass = Pass { check, faults: Mutex::default(), read: Mutex::default() };
    let tasks: Vec<Task> = named
        .into_iter()
        .filter_map(|(name, rows)| {
            let Some(&length) = there.get(&name) else {
                let what = "the pack is not there".to_owned();
                pass.fault(name, Fault { what, is_gone: true, ..Fault::default() });
                return None;
            };
            let reads = !holds_payload(&rows) || to_read.contains(&name);
            Some(Task { name, rows, length, reads })
        })
        .collect();
    check.progress.expect(0, tasks.iter().filter(|task| task.reads).map(|task| task.length).sum());
    let done = pass.run(tasks);
    let read = std::mem::take(&mut *pass.read.lock().unwrap_or_else(PoisonError::into_inner));
    let of_payload: Vec<&(Digest, u64)> = payload.iter().filter(|(name, _)| read.contains(name)).collect();
    check.count(|report| {
        report.packs_read = of_payload.len() as u64;
        report.bytes_read = of_payload.iter().map(|(_, length)| length).sum();
    });
    if check.options.read_data.goes_on()
        && let Some(last) = selected.iter().take_while(|name| read.contains(name)).last()
        && let Err(error) = cursor.store(last)
    {
        check.harmless("", &format!("the next run begins where this one did: {error}"));
    }
    let mut packs = Packs {
        faults: pass.faults.into_inner().unwrap_or_else(PoisonError::into_inner),
        is_interrupted: false,
    };
    match done.and_then(|()| try_chunks(check, &mut packs, bad)) {
        Err(Error::Interrupted) => packs.is_interrupted = true,
        done => done?,
    }
    Ok(packs)
}

impl Pass<'_> {
    fn run(&self, tasks: Vec<Task>) -> Result<()> {
        let options = self.check.options;
        let produce = |queue: &pool::Queue<'_, Task>| tasks.into_iter().try_for_each(|task| queue.push(task));
        let work = |task: Task| {
            if let Err(fault) = self.look_at(&task) {
                // A read that was broken off is no fault.
                self.check.go_on()?;
                self.fault(task.name, fault);
            }
            if task.reads {
                self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(task.name);
            }
            Ok(())
        };
        pool::run(options.threads, options.threads * 2, &options.interrupt, produce, work)
    }

    fn fault(&self, name: Digest, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).insert(name, fault);
    }

    fn look_at(&self, task: &Task) -> Result<(), Fault> {
        let repository = self.check.repository;
        let name = FileName::new(FileKind::Data, task.name.0);
        let frail = |error: FormatError| Fault { is_frail: true, ..Fault::of(&error) };
        if let Some(rows) = task.rows.iter().find(|rows| rows.pack.length != task.length) {
            let what = format!("the pack has {} bytes, and had {}", task.length, rows.pack.length);
            return Err(Fault { what, is_frail: true, ..Fault::default() });
        }
        let file = Arc::new(KeptFile::open(Arc::clone(repository.backend()), name).map_err(frail)?);
        let pack = PackReader::open(file.clone()).map_err(frail)?;
        let sum = self.check.view.sum_of(pack.chunks()).map_err(frail)?;
        if task.rows.iter().any(|rows| rows.sum != sum) {
            let what = "the pack holds other chunks than the index says".to_owned();
            return Err(Fault { what, is_frail: true, ..Fault::default() });
        }
        if task.reads {
            let mut decompressor = Decompressor::new(repository.chunk_keys().clone());
            let read = |count| {
                self.check.progress.bytes(count);
                self.check.go_on().map_err(|_| FormatError::missing("the job was told to end"))
            };
            verify_pack(&*file, &task.name, &pack, &mut decompressor, read)
                .map_err(|error| Fault::of(&error))?;
        }
        Ok(())
    }
}

impl Fault {
    fn of(error: &FormatError) -> Self {
        Self {
            what: error.to_string(),
            is_refused: is_refused(error),
            is_gone: error.class == Class::Missing,
            ..Self::default()
        }
    }
}

/// Tries every chunk of the packs that are not as they should be.
fn try_chunks(check: &Check<'_>, packs: &mut Packs, bad: &Bits) -> Result<()> {
    let is_tried = |fault: &Fault| !fault.is_refused && !fault.is_gone;
    let tried = packs.faults.iter().filter(|(_, fault)| is_tried(fault)).map(|(name, _)| *name).collect();
    let rows = check.view.rows_of(&tried)?;
    let reader = check.repository.reader();
    let damaged: Mutex<HashMap<Digest, u64>> = Mutex::default();
    let work = |some: &[PlacedChunk]| {
        let mut decompressor = Decompressor::new(check.repository.chunk_keys().clone());
        for placed in some {
            match reader.read_place(&placed.location, &mut decompressor) {
                Ok(bytes) => decompressor.recycle(bytes),
                // It was not refused a moment ago, when its pack was opened.
                Err(error) if is_refused(&error) => return Err(error.into()),
                Err(_) => {
                    bad.set(placed.row);
                    let mut damaged = damaged.lock().unwrap_or_else(PoisonError::into_inner);
                    *damaged.entry(placed.location.pack).or_default() += 1;
                }
            }
        }
        Ok(())
    };
    let options = check.options;
    let produce = |queue: &pool::Queue<'_, _>| {
        rows.values().flat_map(|rows| rows.chunks(AT_ONCE)).try_for_each(|some| queue.push(some))
    };
    pool::run(options.threads, options.threads * 2, &options.interrupt, produce, work)?;
    let damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (name, fault) in &mut packs.faults {
        if !is_tried(fault) {
            continue;
        }
        fault.damaged = damaged.get(name).copied().unwrap_or(0);
        // Something is wrong with it, and it is none of the chunks.
        fault.is_frail |= fault.damaged == 0;
        let rows = rows.get(name).map_or(0, Vec::len);
        let some = format!("; {} of {rows} chunks cannot be read", fault.damaged);
        fault.what += if fault.damaged == 0 { "; all its chunks are whole" } else { &some };
    }
    Ok(())
}
