//! What the threads of an extraction do: read contents, prove them, write entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::map::Slice;
use diptych_format::{
    Digest, Entry, Error as FormatError, Holds, Kind, Monitor, Result as FormatResult, Status,
};
use diptych_localfs::extract::{Deletion, OutDirectory, OutFile, Target, in_the_way};
use diptych_repository::StreamReader;

use crate::batch::Batch;
use crate::content::{ContentReader, Readers, SLICE_LARGE, Sink};
use crate::error::{InPlace, Result};
use crate::links::key_of;
use crate::names;
use crate::progress::{Losses, Progress};

use super::Item;
use super::groups::Groups;
use super::large::Large;
use super::owners::Owners;
use super::rules::{Fate, Overwrite, Rules};
use super::tree::Directory;
use super::{Counts, Incomplete};

/// What a thread is given.
pub enum Task {
    /// Small contents of chunks that lie together, and entries without any.
    Run(Vec<Batch<Item>>),
    /// A content of several chunks, or with holes.
    Whole(Item),
    /// One leaf of a long content.
    Leaf(Arc<Large>, u64),
    /// Another name of what stands at the path.
    Link(Item, Vec<u8>),
}

/// What became of an entry.
pub(super) enum Done {
    /// It was written; these attributes could not be set.
    Restored(Vec<String>),
    /// What was there was right, and has its attributes now, but for these.
    Kept(Vec<String>),
    /// What was there stays as it was.
    Skipped,
}

/// What all threads share.
pub struct Extractor<'x> {
    target: &'x Target,
    /// How what is there is dealt with.
    pub rules: &'x Rules<'x>,
    pub(super) losses: &'x Losses<'x>,
    incomplete: Incomplete,
    readers: Readers,
    /// Hard links under way.
    pub groups: Groups<Item>,
    counters: Counters,
    owners: Owners,
}

#[derive(Default)]
struct Counters {
    entries: AtomicU64,
    bytes: AtomicU64,
    kept: AtomicU64,
    skipped: AtomicU64,
    deleted: AtomicU64,
    incomplete: AtomicU64,
}

/// Whether there is no use in going on: what fails for one file fails for all.
fn is_fatal(error: &FormatError) -> bool {
    use rustix::io::Errno;
    let number = error.source.as_ref().and_then(std::io::Error::raw_os_error);
    [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|fatal| number == Some(fatal.raw_os_error()))
}

/// The content is not what it should be.
pub(super) fn other_digest() -> FormatError {
    FormatError::corrupt("the content has another digest than the archive says")
}

/// The same error; if the file is not made anew, what is left is told.
pub(super) fn mixed(file: &OutFile, mut error: FormatError) -> FormatError {
    if file.is_old() {
        error.what.push_str(", and the file that was there is changed in part");
    }
    error
}

impl<'x> Extractor<'x> {
    /// Writes below `target`.
    pub fn new(
        target: &'x Target,
        rules: &'x Rules<'x>,
        losses: &'x Losses<'x>,
        incomplete: Incomplete,
        readers: Readers,
    ) -> Self {
        let (groups, counters, owners) = (Groups::default(), Counters::default(), Owners::default());
        Self { target, rules, losses, incomplete, readers, groups, counters, owners }
    }

    /// What was done.
    pub fn counts(&self) -> Counts {
        let Counters { entries, bytes, kept, skipped, deleted, incomplete } = &self.counters;
        let [entries, content_bytes, kept, skipped, deleted, incomplete] =
            [entries, bytes, kept, skipped, deleted, incomplete].map(|count| count.load(Ordering::Relaxed));
        Counts { entries, content_bytes, kept, skipped, deleted, incomplete }
    }

    /// The root of the target.
    pub fn root(&self) -> Result<OutDirectory> {
        Ok(self.target.root()?)
    }

    /// Does a task.
    pub fn work(&self, task: Task) -> Result<()> {
        match task {
            Task::Run(batches) => self.readers.with(|reader| self.run(batches, reader)),
            Task::Whole(item) => self.readers.with(|reader| self.whole(item, reader)),
            Task::Leaf(large, leaf) => {
                self.readers.with(|reader| self.leaf(&large, leaf, reader));
                self.let_go_of(large)
            }
            Task::Link(item, first) => self.link(item, &first),
        }
    }

    /// Something is lost.
    pub fn lose(&self, path: &[u8], what: &str) {
        self.losses.loss(path, what);
    }

    /// A directory is lost, with all that is below it.
    pub fn lose_directory(&self, path: &[u8], error: &FormatError) {
        self.losses.loss(path, format!("not restored, nor anything below it: {error}"));
    }

    /// The archive does not have what an entry held.
    pub fn lose_unread(&self, path: &[u8]) {
        match self.incomplete {
            Incomplete::IsLoss => self.lose(path, "its content was not read when the archive was made"),
            Incomplete::IsCounted => {
                self.counters.incomplete.fetch_add(1, Ordering::Relaxed);
                self.losses.incomplete(path, "not restored: its content was not read when it was backed up");
            }
        }
    }

    /// What is restored is as good as what was archived, which was not whole.
    pub fn note_status(&self, path: &[u8], status: Status) {
        let words: Vec<&str> = status.words().collect();
        let words = words.join(", ");
        match self.incomplete {
            Incomplete::IsLoss => {
                self.lose(path, &format!("restored as it was archived, which is not whole: {words}"));
            }
            Incomplete::IsCounted => {
                self.counters.incomplete.fetch_add(1, Ordering::Relaxed);
                self.losses
                    .incomplete(path, &format!("restored as it was backed up, which is not whole: {words}"));
            }
        }
    }

    /// Makes a directory; nothing if it could not be, which is told. One that was there and is only on the way to what
    /// is selected keeps its attributes.
    pub fn make_directory(
        &self,
        path: &[u8],
        entry: &Entry,
        is_on_the_way: bool,
        parent: Option<Arc<Directory>>,
    ) -> Result<Option<Arc<Directory>>> {
        let keeps_all = self.rules.overwrite == Overwrite::Never;
        let made = match &parent {
            None => self.target.root(),
            Some(parent) => match keeps_all.then(|| parent.out.standing(&entry.name)).transpose() {
                Ok(Some(Some(standing))) if standing.kind != Kind::Directory => {
                    Err(in_the_way(standing.kind))
                }
                Err(error) => Err(error),
                _ => parent.out.create_directory(&entry.name),
            },
        };
        match made {
            Ok(out) => {
                let is_new = !out.was_there() || parent.is_none() && self.target.was_empty();
                let keeps_attributes = is_on_the_way && out.was_there() || keeps_all && !is_new;
                let entry = (!keeps_attributes).then(|| entry.clone());
                if let Some(entry) = entry.as_ref().filter(|entry| entry.attributes.flags != 0) {
                    out.prepare(entry);
                }
                Ok(Some(Directory::new(path, entry, out, parent)))
            }
            Err(error) if is_fatal(&error) => Err(error).in_place(names::show(path)),
            Err(error) => {
                self.lose_directory(path, &error);
                if let Some(parent) = parent {
                    self.release(parent);
                }
                Ok(None)
            }
        }
    }

    /// Lets go of a directory; the last to do so finishes it.
    pub fn release(&self, directory: Arc<Directory>) {
        directory.release(|directory: Directory| {
            let Directory { path, entry, out, .. } = &directory;
            if let Some(names) = directory.names.get().filter(|_| out.was_there()) {
                let keeps = |name: &[u8]| names.contains(&key_of(name));
                if let Err(error) = self.delete(|deletion| out.delete_others(&keeps, deletion)) {
                    self.losses.loss(path, error.to_string());
                }
            }
            let finished = entry.as_ref().map_or_else(|| out.leave(), |entry| out.finish(entry));
            match finished {
                Ok(problems) => self.report(path, problems),
                Err(error) => self.losses.loss(path, error.to_string()),
            }
            if entry.is_some() {
                self.done(path, Kind::Directory, 0);
            }
        });
    }

    /// Lends `work` what it takes to delete, if anything is to be deleted.
    fn delete(&self, work: impl FnOnce(&Deletion<'_>) -> FormatResult<()>) -> FormatResult<()> {
        let count = || {
            self.counters.deleted.fetch_add(1, Ordering::Relaxed);
        };
        self.rules.delete(self.losses, &count, work)
    }

    fn done(&self, path: &[u8], kind: Kind, size: u64) {
        self.counters.entries.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(size, Ordering::Relaxed);
        self.losses.entry(path, kind);
    }

    /// Deals with an item of which what is there is right, or stays; gives back one that is to be written.
    pub(super) fn sift(
        &self,
        item: Item,
        reader: Option<&mut ContentReader>,
    ) -> Result<Option<(Item, Fate)>> {
        match self.judge(&item) {
            Ok(Judged::Write(fate)) => Ok(Some((item, fate))),
            Ok(Judged::Done(done)) => self.settle(item, Ok(done), reader).map(|()| None),
            Err(error) => self.settle(item, Err(error), reader).map(|()| None),
        }
    }

    fn judge(&self, item: &Item) -> FormatResult<Judged> {
        let out = &item.directory.out;
        Ok(Judged::Done(match self.rules.judge(out, &item.entry, item.group)? {
            Fate::Keep(old) => {
                if item.group.is_some() {
                    old.identity()?;
                }
                Done::Kept(old.keep(&item.entry))
            }
            Fate::KeepLink => {
                let problems = out.dress_standing(&item.entry)?;
                if item.group.is_some() {
                    out.identity(&item.entry.name)?;
                }
                Done::Kept(problems)
            }
            Fate::Skip => Done::Skipped,
            fate @ (Fate::Make(_) | Fate::Change) => return Ok(Judged::Write(fate)),
        }))
    }

    fn run(&self, batches: Vec<Batch<Item>>, reader: &mut ContentReader) -> Result<()> {
        let mut wanted: Vec<Wanted> = Vec::with_capacity(batches.len());
        for Batch { chunk, items, .. } in batches {
            let mut new = Wanted { chunk, items: Vec::with_capacity(items.len()), bytes: 0 };
            let of_chunk = match wanted.last_mut() {
                Some(last) if chunk.is_some() && last.chunk == chunk => last,
                _ => &mut new,
            };
            for (item, slice) in items {
                if let Some((item, fate)) = self.sift(item, Some(reader))? {
                    of_chunk.bytes += slice.map_or(0, |slice| u64::from(slice.length));
                    of_chunk.items.push((item, slice, fate));
                }
            }
            if !new.items.is_empty() {
                wanted.push(new);
            }
        }
        let (mut wanted, without): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|wanted| wanted.bytes > 0);
        for Wanted { items, .. } in without {
            self.items(items, Ok(&[]))?;
        }
        if let [Wanted { chunk: Some(id), bytes, .. }] = &wanted[..]
            && *bytes < SLICE_LARGE
        {
            let chunk = reader.payload().chunk(id);
            let items = wanted.pop().map_or_else(Vec::new, |wanted| wanted.items);
            return self.items(items, chunk.as_ref().map(|chunk| &chunk[..]));
        }
        let ids: Vec<Digest> = wanted.iter().filter_map(|wanted| wanted.chunk).collect();
        let mut wanted = wanted.into_iter();
        let mut stopped = None;
        let read = reader.take_chunks(&ids, &mut |_, chunk, decompressor| {
            let Some(Wanted { items, .. }) = wanted.next() else { return Ok(()) };
            let done = self.items(items, chunk.as_ref().map(|chunk| &chunk[..]));
            if let Ok(chunk) = chunk {
                decompressor.recycle(chunk);
            }
            done.map_err(|error| {
                stopped = Some(error);
                FormatError::missing("the job was told to end")
            })
        });
        match (stopped, read) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => {
                // Whatever is not to be had is told of every entry that needs it.
                wanted.try_for_each(|Wanted { items, .. }| self.items(items, Err(&error)))
            }
            (None, Ok(())) => Ok(()),
        }
    }

    /// Restores the items of a batch, whose chunk's bytes are there or not.
    fn items(
        &self,
        items: Vec<(Item, Option<Slice>, Fate)>,
        chunk: Result<&[u8], &FormatError>,
    ) -> Result<()> {
        for (item, slice, fate) in items {
            let bytes = match (slice, chunk) {
                (None, _) => Ok(&[][..]),
                (Some(slice), Ok(chunk)) => StreamReader::part(chunk, &slice),
                (Some(_), Err(error)) => Err(error.again()),
            };
            let written = bytes.and_then(|bytes| self.write_small(&item, &fate, bytes));
            self.settle(item, written.map(Done::Restored), None)?;
        }
        Ok(())
    }

    /// Writes an entry whose bytes are all there.
    fn write_small(&self, item: &Item, fate: &Fate, bytes: &[u8]) -> FormatResult<Vec<String>> {
        let Holds::Content { digest, .. } = &item.entry.holds else {
            self.clear(item, fate)?;
            let problems = item.directory.out.create_special(&item.entry)?;
            if item.group.is_some() {
                item.directory.out.identity(&item.entry.name)?;
            }
            return Ok(problems);
        };
        if Digest::of(bytes) != *digest {
            return Err(other_digest());
        }
        let file = self.create_file(item, fate)?;
        let is_change = matches!(fate, Fate::Change);
        let written = if is_change { file.set_length(bytes.len() as u64) } else { Ok(()) };
        if let Err(error) = written.and_then(|()| ToFile::new(&file, is_change, None).data(0, bytes)) {
            return Err(mixed(&file, error));
        }
        file.finish(&item.entry)
    }

    /// Deletes a directory that is where something else is to be made, if that may be.
    fn clear(&self, item: &Item, fate: &Fate) -> FormatResult<()> {
        match fate {
            Fate::Make(Some(Kind::Directory)) => {
                self.delete(|deletion| item.directory.out.delete_name(&item.entry.name, deletion))
            }
            _ => Ok(()),
        }
    }

    /// Makes the file of an item, ready for its bytes; or opens the one that is there.
    pub(super) fn create_file(&self, item: &Item, fate: &Fate) -> FormatResult<OutFile> {
        self.clear(item, fate)?;
        let file = match fate {
            Fate::Change => item.directory.out.change_file(&item.entry.name)?,
            _ => item.directory.out.create_file(&item.entry.name)?,
        };
        if item.entry.attributes.flags != 0 {
            file.prepare(&item.entry);
        }
        if item.group.is_some() {
            // Its other names will be links to this very file, and to nothing that takes its place.
            file.identity()?;
        }
        Ok(file)
    }

    fn whole(&self, item: Item, reader: &mut ContentReader) -> Result<()> {
        let Some((item, fate)) = self.sift(item, Some(reader))? else { return Ok(()) };
        let written = self.write_whole(&item, &fate, reader);
        self.settle(item, written.map(Done::Restored), Some(reader))
    }

    /// Restores an entry, reading its content if it has one and that is not there.
    fn restore(&self, item: &Item, reader: &mut ContentReader) -> FormatResult<Done> {
        match self.judge(item)? {
            Judged::Done(done) => Ok(done),
            Judged::Write(fate) => self.write_whole(item, &fate, reader).map(Done::Restored),
        }
    }

    /// Writes an entry, reading its content if it has one.
    fn write_whole(&self, item: &Item, fate: &Fate, reader: &mut ContentReader) -> FormatResult<Vec<String>> {
        let Some(content) = &item.content else { return self.write_small(item, fate, &[]) };
        let file = self.create_file(item, fate)?;
        let is_change = matches!(fate, Fate::Change);
        if content.has_holes() || is_change {
            file.set_length(content.size)?;
        }
        match reader.read(content, &mut ToFile::new(&file, is_change, None)) {
            Ok(digest) if digest == content.digest => file.finish(&item.entry),
            Ok(_) => Err(mixed(&file, other_digest())),
            Err(error) => Err(mixed(&file, error)),
        }
    }

    /// An item was written, or not: tells it, and deals with the other names of its inode.
    pub(super) fn settle(
        &self,
        item: Item,
        done: FormatResult<Done>,
        reader: Option<&mut ContentReader>,
    ) -> Result<()> {
        self.settle_bytes(item, done, reader, true)
    }

    pub(super) fn settle_bytes(
        &self,
        item: Item,
        done: FormatResult<Done>,
        mut reader: Option<&mut ContentReader>,
        counts_bytes: bool,
    ) -> Result<()> {
        let mut next = Some((item, done));
        while let Some((item, done)) = next.take() {
            let problems = match done {
                Ok(Done::Restored(problems)) => Some(problems),
                Ok(Done::Kept(problems)) => {
                    self.counters.kept.fetch_add(1, Ordering::Relaxed);
                    Some(problems)
                }
                Ok(Done::Skipped) => {
                    self.counters.skipped.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(error) if is_fatal(&error) => return Err(error).in_place(names::show(&item.path)),
                Err(error) => {
                    self.lose(&item.path, &format!("not restored: {error}"));
                    None
                }
            };
            if counts_bytes {
                self.losses.bytes(item.entry.payload_length());
            }
            if let Some(problems) = problems {
                let size = match item.entry.holds {
                    Holds::Content { size, .. } => size,
                    _ => 0,
                };
                self.report(&item.path, problems);
                self.done(&item.path, item.entry.kind().unwrap_or(Kind::File), size);
                if let Some(group) = item.group {
                    for waiting in self.groups.restored(group, &item.path) {
                        self.link(waiting, &item.path)?;
                    }
                }
                self.release(item.directory);
                return Ok(());
            }
            // Whatever is there under this name now, it is not the file that other names are links to.
            let heir = item.group.and_then(|group| self.groups.failed(group));
            self.release(item.directory);
            next = heir.map(|heir| {
                let done = match &mut reader {
                    Some(reader) => self.restore(&heir, reader),
                    None => self.readers.with(|reader| self.restore(&heir, reader)),
                };
                (heir, done)
            });
        }
        Ok(())
    }

    /// An item cannot be restored.
    pub fn fail(&self, item: Item, error: &FormatError) -> Result<()> {
        self.settle(item, Err(error.again()), None)
    }

    fn link(&self, item: Item, first: &[u8]) -> Result<()> {
        match self.make_link(&item, first) {
            Ok(is_made) => {
                self.losses.bytes(item.entry.payload_length());
                if is_made {
                    self.done(&item.path, item.entry.kind().unwrap_or(Kind::File), 0);
                } else {
                    self.counters.skipped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) if is_fatal(&error) => return Err(error).in_place(names::show(&item.path)),
            Err(error) => {
                let what = format!("not linked to {}: {error}", names::show(first));
                self.lose(&item.path, &what);
            }
        }
        self.release(item.directory);
        Ok(())
    }

    /// Makes a name a link to what stands at `first`; says whether it is one, for what is there may have to stay.
    fn make_link(&self, item: &Item, first: &[u8]) -> FormatResult<bool> {
        let (out, name) = (&item.directory.out, &item.entry.name);
        if matches!(self.rules.overwrite, Overwrite::Never) && out.standing(name)?.is_some() {
            return Ok(false);
        }
        if self.rules.deletion.is_some() {
            self.clear(item, &Fate::Make(out.standing(name)?.map(|standing| standing.kind)))?;
        }
        out.link(name, self.target, first).map(|()| true)
    }

    /// After everything else: flags that forbid changes are set.
    pub fn finish(&self) {
        for (path, what) in self.target.finish() {
            self.losses.loss(&path, what);
        }
        self.owners.finish(self.losses);
    }

    /// Tells what of an entry's attributes could not be set.
    fn report(&self, path: &[u8], problems: Vec<String>) {
        for what in problems {
            if !self.owners.takes(path, &what) {
                self.losses.loss(path, what);
            }
        }
    }
}

/// What is to be written of the contents in one chunk.
struct Wanted {
    chunk: Option<Digest>,
    items: Vec<(Item, Option<Slice>, Fate)>,
    /// Bytes of all of them.
    bytes: u64,
}

/// What was found out about an item.
enum Judged {
    Done(Done),
    Write(Fate),
}

/// Writes the data of a content to its file.
pub(super) struct ToFile<'f> {
    file: &'f OutFile,
    /// Whether the file held something before, of which what is right is left alone.
    is_change: bool,
    /// Who is told of bytes as they are written.
    losses: Option<&'f Losses<'f>>,
    /// What was read of the file last, and from where.
    found: Vec<u8>,
    found_at: Option<u64>,
}

impl<'f> ToFile<'f> {
    pub(super) fn new(file: &'f OutFile, is_change: bool, losses: Option<&'f Losses<'f>>) -> Self {
        Self { file, is_change, losses, found: Vec::new(), found_at: None }
    }

    /// What is in the file where `length` bytes are wanted; nothing if there are fewer.
    fn find(&mut self, offset: u64, length: usize) -> FormatResult<Option<&[u8]>> {
        if self.found_at != Some(offset) || self.found.len() != length {
            self.found.resize(length, 0);
            let got = self.file.read_at(&mut self.found, offset)?;
            self.found_at = (got == length).then_some(offset);
        }
        Ok(self.found_at.map(|_| &self.found[..]))
    }
}

impl Sink for ToFile<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> FormatResult<()> {
        if !self.is_change || self.find(offset, bytes.len())? != Some(bytes) {
            self.file.write_at(bytes, offset)?;
        }
        if let Some(losses) = self.losses {
            losses.bytes(bytes.len() as u64);
        }
        Ok(())
    }

    fn hole(&mut self, offset: u64, length: u64) -> FormatResult<()> {
        if self.is_change { self.file.clear(offset, length) } else { Ok(()) }
    }

    fn standing(&mut self, offset: u64, length: usize) -> FormatResult<Option<&[u8]>> {
        if self.is_change { self.find(offset, length) } else { Ok(None) }
    }
}
