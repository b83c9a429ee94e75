//! Assembling: what was read, in the scan's order, becomes the two streams.
//!
//! One thread, for here order matters: it feeds the encoder, fills groups of small contents and hands chunks on. All
//! heavy work is done before (reading, digesting) or after (compressing, writing).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use diptych_encoder::payload::Stream;
use diptych_encoder::{Cuts, Finished, LinkKey, Payload, Place, TreeEncoder};
use diptych_format::limits::PAYLOAD_CHUNK_MAX;
use diptych_format::table::Owners;
use diptych_format::{Class, Digest, Entry, Error, Holds, Kind, Monitor, Name, Problem, Result, Status};
use diptych_localfs::capture::{Absent, capture};
use diptych_localfs::scan::{Found, Scan};

use super::MEMORY_MIN;
use super::budget::Budget;
use super::buffers::{Buffers, Bytes};
use super::read::{Dispatcher, FileRead, Item, LargePart, Outcome, read_jobs};
use crate::names;
use crate::owners;
use crate::reuse::compare::Reused;
use crate::reuse::contents::Contents;
use crate::reuse::{Bases, Counts, Reason};

/// What the streams become.
pub(crate) trait Sink {
    /// Whether contents are wanted at all; a tree id needs their digests alone.
    fn keeps_contents(&self) -> bool;
    /// Takes the next chunk of the metadata stream.
    fn metadata(&mut self, chunk: Vec<u8>) -> Result<()>;
    /// Takes chunk `number` of the payload stream.
    fn payload(&mut self, number: u64, chunk: Bytes) -> Result<()>;
    /// Takes what would end the streams here, as a partial archive; they go on as if nothing had been.
    fn checkpoint(&mut self, branch: Vec<Vec<u8>>, partial: Partial) -> Result<()> {
        let _ = (branch, partial);
        Ok(())
    }
}

/// What there is of an archive whose run is under way.
#[derive(Debug)]
pub(crate) struct Partial {
    /// The end of its metadata stream.
    pub finished: Finished,
    /// Its payload stream.
    pub payload: Stream,
    /// Bytes of contents, holes counted.
    pub content_bytes: u64,
}

/// How to assemble.
pub(crate) struct Assembly {
    /// Threads that read.
    pub threads: usize,
    /// Bytes of contents in memory.
    pub window: u64,
    /// Small contents remembered for deduplication.
    pub known_max: usize,
    /// Whether what cannot be captured whole ends the run.
    pub is_strict: bool,
    /// The earlier archives that the tree is compared with.
    pub bases: Option<Bases>,
    /// How often what there is so far is handed on as a partial archive; it is on an interruption, too.
    pub checkpoint_every: Option<Duration>,
    /// Set from outside to end the run.
    pub interrupt: Arc<AtomicBool>,
}

/// What a known content costs in the table for deduplication, the table's spare room counted.
const KNOWN_COST: u64 = 120;

impl Assembly {
    /// With `memory` bytes for contents and tables.
    pub(crate) fn new(threads: usize, memory: u64, is_strict: bool, interrupt: &Arc<AtomicBool>) -> Self {
        let memory = memory.max(MEMORY_MIN);
        Self {
            threads: threads.max(1),
            window: memory / 4,
            known_max: usize::try_from(memory / 4 / KNOWN_COST).unwrap_or(usize::MAX),
            is_strict,
            bases: None,
            checkpoint_every: None,
            interrupt: Arc::clone(interrupt),
        }
    }
}

impl Assembly {
    /// An error if somebody asked for the end.
    pub(crate) fn check_interrupt(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Error::io("the run", std::io::ErrorKind::Interrupted.into()));
        }
        Ok(())
    }
}

/// The streams, assembled.
pub(crate) struct Assembled {
    /// The end of the metadata stream.
    pub finished: Finished,
    /// The payload stream as slices of numbered chunks.
    pub payload: Stream,
    /// Bytes of contents, holes counted.
    pub content_bytes: u64,
    /// What was read and what was not.
    pub counts: Counts,
    /// Chunks of the base that are used though too little of them is.
    pub sparse: Vec<Digest>,
}

/// Runs a scan through readers and encoder into `sink`.
pub(crate) fn assemble(
    scan: Scan,
    assembly: &Assembly,
    cuts: &Cuts,
    buffers: &Buffers,
    monitor: &Arc<dyn Monitor>,
    sink: &mut dyn Sink,
) -> Result<Assembled> {
    let budget = Budget::new(assembly.window);
    let keeps_contents = sink.keeps_contents();
    let (item_sender, items) = bounded::<Vec<Item>>(32);
    let (job_sender, jobs) = bounded(64);
    std::thread::scope(|scope| {
        let budget = &budget;
        let dispatcher = Dispatcher {
            jobs: job_sender,
            items: item_sender,
            bundle: Vec::new(),
            budget: budget.clone(),
            monitor: &**monitor,
        };
        let bases = assembly.bases.clone();
        let dispatching = scope.spawn(move || dispatcher.run(scan, bases));
        for _ in 0..assembly.threads.max(1) {
            let jobs = jobs.clone();
            scope.spawn(move || read_jobs(&jobs, cuts, buffers, &**monitor, keeps_contents));
        }
        drop(jobs);
        let assembler = Assembler {
            tree: TreeEncoder::new(cuts.clone()),
            payload: Payload::new(cuts.clone(), assembly.known_max),
            group: Vec::new(),
            linked: HashMap::new(),
            users: BTreeSet::new(),
            groups: BTreeSet::new(),
            content_bytes: 0,
            counts: Counts::default(),
            // The last one is the newest that is whole.
            contents: assembly
                .bases
                .as_ref()
                .and_then(|bases| bases.in_order.last().cloned())
                .map(|base| Contents::new(base, assembly.known_max)),
            path: Vec::new(),
            buffers,
            monitor: &**monitor,
            sink,
        };
        let assembled = assembler.run(&items, assembly);
        // On an early end nobody may be left waiting: not the dispatcher for memory, not a reader for its chunks to be
        // taken. What is under way is taken and dropped, until the dispatcher has hung up.
        budget.close();
        for item in items.into_iter().flatten() {
            if let Item::Files(promise) = item {
                drop(promise.recv());
            }
        }
        let sparse = dispatching.join().map_err(|_| Error::corrupt("the scan stopped"))?;
        assembled.map(|assembled| Assembled { sparse, ..assembled })
    })
}

struct Assembler<'a> {
    tree: TreeEncoder,
    payload: Payload,
    /// The open group of small contents.
    group: Vec<u8>,
    linked: HashMap<LinkKey, Linked>,
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    content_bytes: u64,
    counts: Counts,
    contents: Option<Contents>,
    path: Vec<u8>,
    buffers: &'a Buffers,
    monitor: &'a dyn Monitor,
    sink: &'a mut dyn Sink,
}

/// An inode with more names to come.
struct Linked {
    entry: Entry,
    names_left: u64,
}

impl Assembler<'_> {
    fn run(mut self, items: &Receiver<Vec<Item>>, assembly: &Assembly) -> Result<Assembled> {
        let mut is_whole = false;
        let mut depth = 0usize;
        let mut last_checkpoint = Instant::now();
        for item in items.iter().flatten() {
            if assembly.checkpoint_every.is_some_and(|every| last_checkpoint.elapsed() >= every) && depth > 0
            {
                self.checkpoint()?;
                last_checkpoint = Instant::now();
            }
            let is_interrupted = assembly.interrupt.load(Ordering::Relaxed);
            if is_interrupted && assembly.checkpoint_every.is_some() && depth > 0 {
                self.checkpoint()?;
            }
            assembly.check_interrupt()?;
            match item {
                Item::Enter(directory) => {
                    depth += 1;
                    self.monitor.entry(&directory.path, Kind::Directory);
                    self.note_owner(&directory.entry);
                    self.refuse_loss(assembly, directory.entry.status, &directory.path)?;
                    self.tree.enter(directory.entry)?;
                }
                Item::Files(batch) => {
                    let batch = batch.recv().map_err(|_| Error::corrupt("a reader stopped"))?;
                    self.take_files(batch.files, &batch.contents, assembly)?;
                    self.buffers.give(batch.contents);
                }
                Item::Unread(files) => self.take_files(files, &[], assembly)?,
                Item::EndPiece => self.tree.end_piece()?,
                Item::Leave(left) => {
                    self.refuse_loss(assembly, left.status, &left.path)?;
                    let moved = self.tree.leave(left.status)?;
                    if !moved.is_complete() {
                        let what = "names of this large directory vanished while scanning, and its table still \
                            shows it: it counts as not read whole";
                        self.problem(&left.path, what);
                        self.refuse_loss(assembly, moved, &left.path)?;
                    }
                    depth -= 1;
                    is_whole = depth == 0;
                }
                Item::Vanished(name) => self.tree.vanished(name.as_bytes()),
                Item::Failed(error) => return Err(error),
            }
            self.hand_metadata_on()?;
        }
        if !is_whole {
            return Err(Error::corrupt("the scan ended before the tree did"));
        }
        self.end_group()?;
        let owners = owners::look_up(&self.users, &self.groups);
        self.finish(&owners)
    }

    /// Hands on what would end the streams here. The open group ends, so that its bytes are there.
    fn checkpoint(&mut self) -> Result<()> {
        self.end_group()?;
        self.hand_metadata_on()?;
        let owners = owners::look_up(&self.users, &self.groups);
        let (branch, finished) = self.tree.checkpoint(&owners)?;
        let partial = Partial { finished, payload: self.payload.so_far(), content_bytes: self.content_bytes };
        self.sink.checkpoint(branch, partial)
    }

    fn finish(mut self, owners: &Owners) -> Result<Assembled> {
        let finished = self.tree.finish(owners)?;
        self.hand_metadata_on()?;
        let payload = self.payload.finish();
        if payload.length != finished.trailer.payload_length {
            return Err(Error::corrupt("the payload stream is not as long as the tables say"));
        }
        Ok(Assembled {
            finished,
            payload,
            content_bytes: self.content_bytes,
            counts: self.counts,
            sparse: Vec::new(),
        })
    }

    /// Takes files whose payloads stand in `contents`.
    fn take_files(&mut self, files: Vec<FileRead>, contents: &[u8], assembly: &Assembly) -> Result<()> {
        for file in files {
            let FileRead { found, link, reason, expected, outcome } = file;
            let mark = self.payload.mark();
            if let Some(reason) = reason {
                self.counts.read(reason, &found);
                if reason != Reason::NoBase {
                    self.monitor.read(&self.path_of(&found), reason.word());
                }
            }
            let entry = match outcome {
                Outcome::Reused(reused) => {
                    self.counts.reused += 1;
                    self.counts.reused_bytes += reused.row.payload_length;
                    self.take_reused(*reused)
                }
                Outcome::Whole(entry, range) => match expected {
                    Some(expected) if self.is_as_expected(&found, &entry, &expected) => {
                        self.take_reused(*expected)
                    }
                    _ => {
                        let is_known = reason == Some(Reason::New) && self.take_from_base(&entry);
                        if !is_known {
                            self.take_small(&entry, contents.get(range).unwrap_or(&[]))?;
                        }
                        entry
                    }
                },
                Outcome::Large(parts) => {
                    let entry = self.take_large(&parts)?;
                    if let Some(expected) = expected {
                        self.is_as_expected(&found, &entry, &expected);
                    }
                    entry
                }
                Outcome::Repeated => match self.repeat(&found, link) {
                    Ok(entry) => entry,
                    Err(absent) => {
                        self.take_absent(&found, absent, assembly)?;
                        continue;
                    }
                },
                Outcome::Absent(absent) => {
                    self.take_absent(&found, absent, assembly)?;
                    continue;
                }
            };
            self.report(&found, &entry, assembly)?;
            if let Some(key) = link
                && found.facts.links > 1
                && !self.linked.contains_key(&key)
            {
                if self.sink.keeps_contents() {
                    self.payload.remember_link(key, mark);
                }
                let names_left = u64::from(found.facts.links).saturating_sub(1);
                self.linked.insert(key, Linked { entry: entry.clone(), names_left });
            }
            self.tree.entry(entry, link)?;
        }
        Ok(())
    }

    /// A file that there is no entry of.
    fn take_absent(&mut self, found: &Found, absent: Absent, assembly: &Assembly) -> Result<()> {
        match absent {
            Absent::Vanished => {
                self.tree.vanished(found.name.as_bytes());
                Ok(())
            }
            Absent::Lost => {
                self.tree.lost(found.name.as_bytes());
                self.refuse_loss(assembly, Status::NOT_READ, &self.path_of(found))
            }
        }
    }

    /// Whether a file that counted as unchanged was. If not, other files like it may have been missed.
    fn is_as_expected(&mut self, found: &Found, read: &Entry, expected: &Reused) -> bool {
        let digest = |entry: &Entry| match entry.holds {
            Holds::Content { digest, .. } => Some(digest),
            _ => None,
        };
        if digest(read) == digest(&expected.row.entry) || !read.status.is_complete() {
            return digest(read) == digest(&expected.row.entry);
        }
        self.counts.missed += 1;
        let what = "its content has changed and nothing else has: others may have without being noticed; \
            run this again with --force";
        self.problem(&found.path(), what);
        false
    }

    /// A file that is as the base has it.
    fn take_reused(&mut self, reused: Reused) -> Entry {
        let entry = reused.row.entry;
        for slice in &reused.slices {
            self.payload.reuse(&slice.slice, slice.chunk_length);
        }
        entry
    }

    /// A content that the base has under another name: nothing is stored. False if it has not.
    fn take_from_base(&mut self, entry: &Entry) -> bool {
        let (Some(contents), Holds::Content { digest, .. }) = (&mut self.contents, &entry.holds) else {
            return false;
        };
        let slices = contents.find(digest, entry.payload_length());
        slices.iter().for_each(|slice| self.payload.reuse(&slice.slice, slice.chunk_length));
        self.note_deduplicated(if slices.is_empty() { 0 } else { entry.payload_length() });
        !slices.is_empty()
    }

    fn note_deduplicated(&mut self, bytes: u64) {
        self.counts.deduplicated.0 += u64::from(bytes > 0);
        self.counts.deduplicated.1 += bytes;
    }

    /// A content that was read whole: into the open group, or nowhere if it is known.
    fn take_small(&mut self, entry: &Entry, bytes: &[u8]) -> Result<()> {
        let Holds::Content { digest, .. } = entry.holds else { return Ok(()) };
        if entry.status.has(Status::NOT_READ) {
            return Ok(());
        }
        if !self.sink.keeps_contents() {
            self.payload.skip(bytes.len() as u64);
            return Ok(());
        }
        let length = u32::try_from(bytes.len()).map_err(|_| Error::corrupt("a small content is large"))?;
        match self.payload.small(digest, length) {
            Place::Known => self.note_deduplicated(bytes.len() as u64),
            Place::Group { ended, chunk, ends_after } => {
                if let Some(ended) = ended {
                    self.hand_group_on(ended)?;
                }
                if self.group.capacity() == 0 {
                    self.group = self.buffers.take(PAYLOAD_CHUNK_MAX / 2);
                }
                self.group.extend_from_slice(bytes);
                if ends_after {
                    self.hand_group_on(chunk)?;
                }
            }
        }
        Ok(())
    }

    /// A large content: its chunks as they come. One whose payload turns out small is grouped as such.
    fn take_large(&mut self, parts: &Receiver<LargePart>) -> Result<Entry> {
        let mut first: Option<Bytes> = None;
        let mut is_large = false;
        for part in parts {
            match part {
                LargePart::Chunk(chunk) if is_large => self.take_chunk(chunk)?,
                LargePart::Chunk(chunk) => match first.take() {
                    // A content below the least size of a large one comes as one chunk.
                    None if (chunk.as_slice().len() as u64) < diptych_encoder::cut::LARGE_MIN => {
                        first = Some(chunk)
                    }
                    held => {
                        is_large = true;
                        self.end_group()?;
                        if let Some(held) = held {
                            self.take_chunk(held)?;
                        }
                        self.take_chunk(chunk)?;
                    }
                },
                LargePart::Whole(entry) => {
                    if let Some(small) = first {
                        self.take_small(&entry, small.as_slice())?;
                        self.buffers.give_bytes(small);
                    } else if !self.sink.keeps_contents() {
                        self.payload.skip(entry.payload_length());
                    }
                    return Ok(*entry);
                }
            }
        }
        Err(Error::corrupt("a reader stopped in a large file"))
    }

    fn take_chunk(&mut self, chunk: Bytes) -> Result<()> {
        let length =
            u32::try_from(chunk.as_slice().len()).map_err(|_| Error::corrupt("a chunk is too long"))?;
        let number = self.payload.large_chunk(length);
        self.sink.payload(number, chunk)
    }

    /// A further name of an inode: the entry of the first under this name. If the first could not be had, this one is
    /// read here and now.
    fn repeat(&mut self, found: &Found, link: Option<LinkKey>) -> std::result::Result<Entry, Absent> {
        if let Some(key) = link
            && let Some(linked) = self.linked.get_mut(&key)
        {
            let entry = Entry { name: found.name.clone(), ..linked.entry.clone() };
            if !self.payload.repeat_link(key) {
                self.payload.skip(entry.payload_length());
            }
            linked.names_left = linked.names_left.saturating_sub(1);
            if linked.names_left == 0 {
                self.linked.remove(&key);
                self.payload.forget_link(key);
            }
            return Ok(entry);
        }
        let captured = capture(found, self.monitor)?;
        let mut entry = captured.entry;
        if captured.content.is_some() {
            let problem = "its other name changed during the run, and this one was not read again";
            self.problem(&self.path_of(found), problem);
            entry.status = entry.status.with(Status::NOT_READ);
        }
        Ok(entry)
    }

    fn report(&mut self, found: &Found, entry: &Entry, assembly: &Assembly) -> Result<()> {
        self.note_owner(entry);
        if let Holds::Content { size, .. } = entry.holds {
            self.content_bytes = self.content_bytes.saturating_add(size);
            self.monitor.bytes(size);
        }
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        path.extend_from_slice(&found.parent_path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(found.name.as_bytes());
        self.monitor.entry(&path, entry.kind()?);
        let kept = self.refuse_loss(assembly, entry.status, &path);
        self.path = path;
        kept
    }

    /// With `--strict` the first thing that is not captured whole ends the run. What is wrong with it was told.
    fn refuse_loss(&self, assembly: &Assembly, status: Status, path: &[u8]) -> Result<()> {
        if assembly.is_strict && !status.is_complete() {
            let words: Vec<&str> = status.words().collect();
            return Err(refused(path, &words.join(", ")));
        }
        Ok(())
    }

    fn path_of(&self, found: &Found) -> Vec<u8> {
        join_path(&found.parent_path, &found.name)
    }

    fn problem(&self, path: &[u8], what: &str) {
        self.monitor.problem(Problem { path: path.to_vec(), what: what.to_owned(), is_loss: true });
    }

    fn note_owner(&mut self, entry: &Entry) {
        self.users.insert(entry.attributes.uid);
        self.groups.insert(entry.attributes.gid);
    }

    fn end_group(&mut self) -> Result<()> {
        self.payload.end_group().map_or(Ok(()), |number| self.hand_group_on(number))
    }

    /// Hands on the group that has ended.
    fn hand_group_on(&mut self, number: u64) -> Result<()> {
        let group = std::mem::take(&mut self.group);
        self.sink.payload(number, Bytes::whole(group))
    }

    fn hand_metadata_on(&mut self) -> Result<()> {
        self.tree.take_chunks().into_iter().try_for_each(|chunk| self.sink.metadata(chunk))
    }
}

fn refused(path: &[u8], why: &str) -> Error {
    let path = names::show(path);
    Error::new(Class::Io, format!("{path} could not be captured whole ({why}), and --strict was given"))
}

/// A path of a name below a directory's path.
fn join_path(parent: &[u8], name: &Name) -> Vec<u8> {
    let mut path = parent.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}
