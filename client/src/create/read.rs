//! Reading: batches of files become entries with digests, and the bytes of their contents.
//!
//! A dispatcher takes the scan's steps in order and cuts the files into batches. Readers on several threads work on
//! batches ahead of the assembler, which takes the results in the scan's order. A large file is a batch of its own,
//! whose chunks come through a channel while it is still being read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use diptych_encoder::LinkKey;
use diptych_encoder::cut::{Cuts, LARGE_MIN};
use diptych_format::digest::ContentHasher;
use diptych_format::limits::PAYLOAD_CHUNK_MAX;
use diptych_format::{Digest, Entry, Error, Holds, Kind, Monitor, Name, Problem, Result};
use diptych_localfs::capture::{Absent, Content, Part, capture};
use diptych_localfs::scan::{Directory, Found, Left, Scan, Step};

use super::budget::{Budget, Permit};
use super::buffers::{Buffers, Bytes};
use crate::reuse::compare::{Compare, Decided, FileWork, Reused, Work};
use crate::reuse::{Bases, Reason};

/// Files of a batch at most, and bytes of theirs.
const BATCH_FILES: usize = 128;
const BATCH_BYTES: u64 = 1 << 20;
/// What a large file is read into; chunks are ranges of it.
const WINDOW: usize = 2 * PAYLOAD_CHUNK_MAX;
/// How much of a large file is read at a time: it is digested while it is in the processor's cache.
const READ_AT_ONCE: usize = 512 << 10;
/// What a large file may hold in memory: a window that is filled, one whose chunks are stored, one to come.
const LARGE_COST: u64 = 3 * WINDOW as u64;
/// Steps that go to the assembler at once.
const BUNDLE_ITEMS: usize = 64;
/// Chunks of a large file that wait for the assembler.
const CHUNKS_AHEAD: usize = 4;

/// A step of the scan with what was read for it.
pub(super) enum Item {
    /// A directory opens.
    Enter(Box<Directory>),
    /// Files follow.
    Files(Receiver<FileBatch>),
    /// Files follow of which none is read.
    Unread(Vec<FileRead>),
    /// A piece ends, and another follows.
    EndPiece,
    /// A directory closes.
    Leave(Left),
    /// A directory is not there any more.
    Vanished(Name),
    /// The scan failed.
    Failed(Error),
}

/// What became of the files of a batch, in order.
pub(super) struct FileBatch {
    /// The contents one after another.
    pub contents: Vec<u8>,
    /// The files.
    pub files: Vec<FileRead>,
    /// The memory that the contents were promised; given back when they have been taken.
    pub _permit: Permit,
}

/// A file, and what became of it.
pub(super) struct FileRead {
    /// Where it was found.
    pub found: Found,
    /// Its device and inode, if it has more names.
    pub link: Option<LinkKey>,
    /// Why it was read, if it was.
    pub reason: Option<Reason>,
    /// What the base has, if it was read for a sample.
    pub expected: Option<Box<Reused>>,
    /// The rest.
    pub outcome: Outcome,
}

/// What became of a file.
pub(super) enum Outcome {
    /// An entry with all there is, and where its payload stands in the batch's contents.
    Whole(Entry, Range<usize>),
    /// A large content: its chunks come while it is read.
    Large(Receiver<LargePart>),
    /// A further name of an inode that comes earlier: nothing was read.
    Repeated,
    /// It is as the base has it: nothing was read.
    Reused(Box<Reused>),
    /// There is nothing to make an entry of.
    Absent(Absent),
}

/// A part of a large content.
pub(super) enum LargePart {
    /// A chunk.
    Chunk(Bytes),
    /// All chunks have come: the entry.
    Whole(Box<Entry>),
}

/// Work for a reader.
pub(super) struct Job {
    files: Vec<FileWork>,
    done: Sender<FileBatch>,
    permit: Permit,
}

/// Takes the scan's steps to readers and assembler.
pub(super) struct Dispatcher<'d> {
    /// To the readers.
    pub jobs: Sender<Job>,
    /// To the assembler: the same files as promises, and all other steps, in bundles.
    pub items: Sender<Vec<Item>>,
    /// The bundle that is being made: waking the assembler for every directory would cost more than its work.
    pub bundle: Vec<Item>,
    /// Memory for what is read.
    pub budget: Budget,
    /// What is told of a base that is damaged.
    pub monitor: &'d dyn Monitor,
}

impl Dispatcher<'_> {
    /// Runs the scan to its end and hands its steps out in order. Gives the chunks of the base that are used though too
    /// little of them is.
    pub(super) fn run(mut self, scan: Scan, bases: Option<Bases>) -> Vec<Digest> {
        let compare = bases.map(Compare::new).transpose().unwrap_or_else(|error| {
            // Without a base that can be read, a run reads everything: it must not fail for it.
            let what = format!("the map of the base cannot be read, and everything is read again: {error}");
            self.monitor.problem(Problem { path: Vec::new(), what, is_loss: false });
            None
        });
        match compare {
            None => {
                self.run_plain(scan);
                Vec::new()
            }
            Some(compare) => self.run_compared(scan, compare),
        }
    }

    fn run_plain(&mut self, mut scan: Scan) {
        let mut seen = HashMap::new();
        loop {
            let sent = match scan.next() {
                Ok(None) => {
                    self.flush();
                    return;
                }
                Ok(Some(Step::Entries(found))) => {
                    let work = found.into_iter().map(|found| {
                        let (link, is_repeated) = link_of(&found, &mut seen);
                        let work = if is_repeated { Work::Repeated } else { Work::Read(Reason::NoBase) };
                        FileWork { found, link, work }
                    });
                    self.send_files(work)
                }
                Ok(Some(step)) => self.send_step(step),
                Err(error) => self.send_failure(error),
            };
            if !sent || self.budget.is_closed() {
                return;
            }
        }
    }

    fn run_compared(&mut self, mut scan: Scan, mut compare: Compare) -> Vec<Digest> {
        let mut seen = HashMap::new();
        loop {
            let mut is_last = false;
            match scan.next() {
                Ok(None) => is_last = true,
                Ok(Some(Step::Entries(found))) => {
                    for found in found {
                        let (link, is_repeated) = link_of(&found, &mut seen);
                        compare.file(found, link, is_repeated, self.monitor);
                    }
                }
                Ok(Some(step)) => compare.step(step, self.monitor),
                Err(error) => {
                    self.send_failure(error);
                    return Vec::new();
                }
            }
            let sent = compare.decided(is_last, |decided| match decided {
                Decided::Step(step) => self.send_step(step),
                Decided::Files(files) => self.send_files(files.into_iter()),
            });
            if is_last || !sent || self.budget.is_closed() {
                self.flush();
                return compare.sparse();
            }
        }
    }

    fn send_step(&mut self, step: Step) -> bool {
        self.send(match step {
            Step::Enter(directory) => Item::Enter(Box::new(directory)),
            Step::EndPiece => Item::EndPiece,
            Step::Leave(left) => Item::Leave(left),
            Step::Vanished(name) => Item::Vanished(name),
            // Files go their own way.
            Step::Entries(_) => return true,
        })
    }

    fn send_failure(&mut self, error: Error) -> bool {
        self.bundle.push(Item::Failed(error));
        self.flush();
        false
    }

    fn send(&mut self, item: Item) -> bool {
        self.bundle.push(item);
        self.bundle.len() < BUNDLE_ITEMS || self.flush()
    }

    fn flush(&mut self) -> bool {
        self.bundle.is_empty() || self.items.send(std::mem::take(&mut self.bundle)).is_ok()
    }

    /// Cuts files into batches and sends them both to the readers and, as promises, to the assembler.
    fn send_files(&mut self, files: impl Iterator<Item = FileWork>) -> bool {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for file in files {
            let facts = &file.found.facts;
            let is_read = matches!(file.work, Work::Read(_) | Work::Sample(_)) && facts.kind == Kind::File;
            let size = if is_read { facts.size } else { 0 };
            let is_large = size >= LARGE_MIN;
            if !batch.is_empty() && (is_large || batch.len() >= BATCH_FILES || bytes + size > BATCH_BYTES) {
                if !self.send_batch(std::mem::take(&mut batch), bytes) {
                    return false;
                }
                bytes = 0;
            }
            batch.push(file);
            bytes += size;
            if is_large {
                if !self.send_batch(std::mem::take(&mut batch), LARGE_COST) {
                    return false;
                }
                bytes = 0;
            }
        }
        batch.is_empty() || self.send_batch(batch, bytes)
    }

    fn send_batch(&mut self, files: Vec<FileWork>, cost: u64) -> bool {
        if files.iter().all(|file| matches!(file.work, Work::Reuse(_) | Work::Repeated)) {
            let unread = |FileWork { found, link, work }: FileWork| {
                let outcome = match work {
                    Work::Reuse(reused) => Outcome::Reused(reused),
                    _ => Outcome::Repeated,
                };
                FileRead { found, link, reason: None, expected: None, outcome }
            };
            return self.send(Item::Unread(files.into_iter().map(unread).collect()));
        }
        // Memory is promised in the order in which the assembler gives it back, so that no one waits for a later one;
        // and what comes before must have gone to where it is given back.
        if !self.flush() {
            return false;
        }
        let permit = self.budget.acquire(cost);
        let (done, promise) = bounded(1);
        // At once, too: a reader of a large file waits for the assembler to take what it has.
        self.bundle.push(Item::Files(promise));
        self.flush() && self.jobs.send(Job { files, done, permit }).is_ok()
    }
}

/// The inode of a file with more names, and whether one of them came before.
fn link_of(found: &Found, seen: &mut HashMap<LinkKey, u64>) -> (Option<LinkKey>, bool) {
    let link = link_key(found);
    (link, link.is_some_and(|key| is_repeated(seen, key, found.facts.links.into())))
}

fn link_key(found: &Found) -> Option<LinkKey> {
    let facts = &found.facts;
    (facts.links > 1).then_some(LinkKey { device: facts.device, inode: facts.inode })
}

/// Whether an inode was seen before; forgets it once all its names have been.
fn is_repeated(seen: &mut HashMap<LinkKey, u64>, key: LinkKey, links: u64) -> bool {
    let Some(left) = seen.get_mut(&key) else {
        seen.insert(key, links.saturating_sub(1));
        return false;
    };
    *left = left.saturating_sub(1);
    if *left == 0 {
        seen.remove(&key);
    }
    true
}

/// A reader's life: jobs until there are none.
pub(super) fn read_jobs(
    jobs: &Receiver<Job>,
    cuts: &Cuts,
    buffers: &Buffers,
    monitor: &dyn Monitor,
    keeps_contents: bool,
) {
    for job in jobs {
        let mut contents = buffers.take(0);
        let mut files = Vec::with_capacity(job.files.len());
        let mut large = None;
        for FileWork { found, link, work } in job.files {
            let mut read = || read_file(&found, &mut contents, monitor, &mut large);
            let (reason, expected, outcome) = match work {
                Work::Repeated => (None, None, Outcome::Repeated),
                Work::Reuse(reused) => (None, None, Outcome::Reused(reused)),
                Work::Read(reason) => (Some(reason), None, read()),
                Work::Sample(reused) => (Some(Reason::Sample), Some(reused), read()),
            };
            files.push(FileRead { found, link, reason, expected, outcome });
        }
        // A failed send means that the assembler has given up; the next job will find its channel closed as well. The
        // sender goes at once: a batch that nobody takes then goes with it, and with that the large file's channel.
        let _ = job.done.send(FileBatch { contents, files, _permit: job.permit });
        drop(job.done);
        if let Some(large) = large {
            let _ = large.read(cuts, buffers, monitor, keeps_contents);
        }
    }
}

fn read_file(
    found: &Found,
    contents: &mut Vec<u8>,
    monitor: &dyn Monitor,
    large: &mut Option<LargeRead>,
) -> Outcome {
    let captured = match capture(found, monitor) {
        Ok(captured) => captured,
        Err(absent) => return Outcome::Absent(absent),
    };
    let Some(content) = captured.content else { return Outcome::Whole(captured.entry, 0..0) };
    if content.size() >= LARGE_MIN {
        let (parts, receiver) = bounded(CHUNKS_AHEAD);
        *large = Some(LargeRead { entry: captured.entry, content, parts });
        return Outcome::Large(receiver);
    }
    let start = contents.len();
    let (entry, _) = read_small(captured.entry, content, contents, monitor);
    Outcome::Whole(entry, start..contents.len())
}

/// Reads a content whole, behind what `contents` holds.
fn read_small(
    mut entry: Entry,
    mut content: Content,
    contents: &mut Vec<u8>,
    monitor: &dyn Monitor,
) -> (Entry, u64) {
    let start = contents.len();
    let most = usize::try_from(content.size()).unwrap_or(usize::MAX).max(1);
    let mut sparse: Option<ContentHasher> = None;
    loop {
        let before = contents.len();
        match content.read(contents, most) {
            Part::Data(_) => {
                if let Some(hasher) = &mut sparse {
                    hasher.update(contents.get(before..).unwrap_or(&[]));
                }
            }
            Part::Hole(length) => {
                let hasher = sparse.get_or_insert_with(|| {
                    let mut hasher = ContentHasher::sparse();
                    hasher.update(contents.get(start..).unwrap_or(&[]));
                    hasher
                });
                hasher.zeros(length);
            }
            Part::End => break,
        }
    }
    let digest = match sparse {
        Some(hasher) => hasher.finish(),
        None => Digest::of(contents.get(start..).unwrap_or(&[])),
    };
    let payload = (contents.len() - start) as u64;
    complete(&mut entry, content, digest, monitor);
    (entry, payload)
}

/// Puts into the entry what is known only when its content has been read.
fn complete(entry: &mut Entry, content: Content, digest: Digest, monitor: &dyn Monitor) {
    let outcome = content.finish(monitor);
    entry.status = entry.status.with(outcome.status);
    entry.holes = outcome.holes;
    entry.holds = Holds::Content { size: outcome.size, digest };
}

/// A large file that is being read.
struct LargeRead {
    entry: Entry,
    content: Content,
    parts: Sender<LargePart>,
}

impl LargeRead {
    /// Reads, digests and cuts the content. Fails only when nobody wants it any more.
    fn read(
        mut self,
        cuts: &Cuts,
        buffers: &Buffers,
        monitor: &dyn Monitor,
        keeps_contents: bool,
    ) -> Result<(), ()> {
        let mut hasher =
            if self.content.is_sparse() { ContentHasher::sparse() } else { ContentHasher::new() };
        let mut window = buffers.take(WINDOW);
        loop {
            let before = window.len();
            match self.content.read(&mut window, READ_AT_ONCE) {
                Part::Data(_) => hasher.update(window.get(before..).unwrap_or(&[])),
                Part::Hole(length) => hasher.zeros(length),
                Part::End => break,
            }
            if !keeps_contents {
                window.clear();
            } else if window.len() + READ_AT_ONCE > WINDOW {
                window = self.send_chunks(window, false, cuts, buffers)?;
            }
        }
        self.send_chunks(window, true, cuts, buffers)?;
        complete(&mut self.entry, self.content, hasher.finish(), monitor);
        self.parts.send(LargePart::Whole(Box::new(self.entry))).map_err(drop)
    }

    /// Sends the chunks that can be cut off, and gives a window that begins with the rest.
    fn send_chunks(
        &self,
        window: Vec<u8>,
        is_end: bool,
        cuts: &Cuts,
        buffers: &Buffers,
    ) -> Result<Vec<u8>, ()> {
        let window = Arc::new(window);
        let mut start = 0;
        loop {
            let rest = window.get(start..).unwrap_or(&[]);
            if rest.is_empty() || !is_end && rest.len() < PAYLOAD_CHUNK_MAX {
                let mut next = buffers.take(WINDOW);
                next.extend_from_slice(rest);
                return Ok(next);
            }
            let end = start + cuts.large_cut(rest.get(..PAYLOAD_CHUNK_MAX).unwrap_or(rest));
            let chunk = Bytes::range(&window, start..end);
            self.parts.send(LargePart::Chunk(chunk)).map_err(drop)?;
            start = end;
        }
    }
}
