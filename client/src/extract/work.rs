//! What the threads of an extraction do: read contents, prove them, write entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::map::Slice;
use diptych_format::{
    Digest, Entry, Error as FormatError, Holds, Kind, Monitor, Result as FormatResult, Status,
};
use diptych_localfs::extract::{OutDirectory, OutFile, Target};
use diptych_repository::StreamReader;

use crate::batch::Batch;
use crate::content::{ContentReader, Readers, SLICE_LARGE, Sink};
use crate::error::{InPlace, Result};
use crate::names;
use crate::progress::Losses;

use super::Item;
use super::groups::Groups;
use super::large::Large;
use super::owners::Owners;
use super::tree::Directory;

/// What a thread is given.
pub enum Task {
    /// Small contents of one chunk, and entries without any.
    Batch(Batch<Item>),
    /// A content of several chunks, or with holes.
    Whole(Item),
    /// One leaf of a long content.
    Leaf(Arc<Large>, u64),
    /// Another name of what stands at the path.
    Link(Item, Vec<u8>),
}

/// What all threads share.
pub struct Extractor<'x> {
    target: &'x Target,
    pub(super) losses: &'x Losses<'x>,
    readers: Readers,
    /// Hard links under way.
    pub groups: Groups<Item>,
    entries: AtomicU64,
    bytes: AtomicU64,
    owners: Owners,
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

impl<'x> Extractor<'x> {
    /// Writes below `target`.
    pub fn new(target: &'x Target, losses: &'x Losses<'x>, readers: Readers) -> Self {
        let (entries, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let owners = Owners::default();
        Self { target, losses, readers, groups: Groups::default(), entries, bytes, owners }
    }

    /// Entries and bytes of contents that were restored.
    pub fn counts(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Does a task.
    pub fn work(&self, task: Task) -> Result<()> {
        match task {
            Task::Batch(batch) => self.readers.with(|reader| self.batch(batch, reader)),
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

    /// What is restored is as good as what was archived, which was not whole.
    pub fn note_status(&self, path: &[u8], status: Status) {
        let words: Vec<&str> = status.words().collect();
        self.losses
            .loss(path, format!("restored as it was archived, which is not whole: {}", words.join(", ")));
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
        let made = match &parent {
            None => self.target.root(),
            Some(parent) => parent.out.create_directory(&entry.name),
        };
        match made {
            Ok(out) => {
                let keeps_attributes = is_on_the_way && out.was_there();
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
        directory.release(|path, entry, out: OutDirectory| {
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

    fn done(&self, path: &[u8], kind: Kind, size: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.losses.entry(path, kind);
    }

    fn batch(&self, batch: Batch<Item>, reader: &mut ContentReader) -> Result<()> {
        let Batch { chunk, items, bytes } = batch;
        let Some(id) = chunk else { return self.items(items, Ok(&[]), reader) };
        if bytes < SLICE_LARGE {
            let chunk = reader.payload().chunk(&id);
            let bytes = chunk.as_ref().map(|chunk| &chunk[..]);
            return self.items(items, bytes, reader);
        }
        match reader.take_chunk(&id) {
            Ok(chunk) => {
                let result = self.items(items, Ok(&chunk), reader);
                reader.give_back(chunk);
                result
            }
            Err(error) => self.items(items, Err(&error), reader),
        }
    }

    /// Restores the items of a batch, whose chunk's bytes are there or not.
    fn items(
        &self,
        items: Vec<(Item, Option<Slice>)>,
        chunk: Result<&[u8], &FormatError>,
        reader: &mut ContentReader,
    ) -> Result<()> {
        for (item, slice) in items {
            let bytes = match (slice, chunk) {
                (None, _) => Ok(&[][..]),
                (Some(slice), Ok(chunk)) => StreamReader::part(chunk, &slice),
                (Some(_), Err(error)) => Err(error.again()),
            };
            let written = bytes.and_then(|bytes| self.write_small(&item, bytes));
            self.settle(item, written, Some(reader))?;
        }
        Ok(())
    }

    /// Writes an entry whose bytes are all there.
    fn write_small(&self, item: &Item, bytes: &[u8]) -> FormatResult<Vec<String>> {
        let Holds::Content { digest, .. } = &item.entry.holds else {
            let problems = item.directory.out.create_special(&item.entry)?;
            if item.group.is_some() {
                item.directory.out.identity(&item.entry.name)?;
            }
            return Ok(problems);
        };
        if Digest::of(bytes) != *digest {
            return Err(other_digest());
        }
        let file = self.create_file(item)?;
        if !bytes.is_empty() {
            file.write_at(bytes, 0)?;
        }
        file.finish(&item.entry)
    }

    /// Makes the file of an item, ready for its bytes.
    pub(super) fn create_file(&self, item: &Item) -> FormatResult<OutFile> {
        let file = item.directory.out.create_file(&item.entry.name)?;
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
        let written = self.write_whole(&item, reader);
        self.settle(item, written, Some(reader))
    }

    /// Writes an entry, reading its content if it has one.
    fn write_whole(&self, item: &Item, reader: &mut ContentReader) -> FormatResult<Vec<String>> {
        let Some(content) = &item.content else { return self.write_small(item, &[]) };
        let file = self.create_file(item)?;
        if content.has_holes() {
            file.set_length(content.size)?;
        }
        let digest = reader.read(content, &mut ToFile { file: &file, losses: None })?;
        if digest != content.digest {
            return Err(other_digest());
        }
        file.finish(&item.entry)
    }

    /// An item was written, or not: tells it, and deals with the other names of its inode.
    pub(super) fn settle(
        &self,
        item: Item,
        written: FormatResult<Vec<String>>,
        reader: Option<&mut ContentReader>,
    ) -> Result<()> {
        self.settle_bytes(item, written, reader, true)
    }

    pub(super) fn settle_bytes(
        &self,
        item: Item,
        written: FormatResult<Vec<String>>,
        mut reader: Option<&mut ContentReader>,
        counts_bytes: bool,
    ) -> Result<()> {
        let mut next = Some((item, written));
        while let Some((item, written)) = next.take() {
            match written {
                Ok(problems) => {
                    let size = match item.entry.holds {
                        Holds::Content { size, .. } => size,
                        _ => 0,
                    };
                    self.report(&item.path, problems);
                    if counts_bytes {
                        self.losses.bytes(item.entry.payload_length());
                    }
                    self.done(&item.path, item.entry.kind().unwrap_or(Kind::File), size);
                    if let Some(group) = item.group {
                        for waiting in self.groups.restored(group, &item.path) {
                            self.link(waiting, &item.path)?;
                        }
                    }
                    self.release(item.directory);
                }
                Err(error) if is_fatal(&error) => return Err(error).in_place(names::show(&item.path)),
                Err(error) => {
                    self.lose(&item.path, &format!("not restored: {error}"));
                    let heir = item.group.and_then(|group| self.groups.failed(group));
                    self.release(item.directory);
                    next = heir.map(|heir| {
                        let written = match &mut reader {
                            Some(reader) => self.write_whole(&heir, reader),
                            None => self.readers.with(|reader| self.write_whole(&heir, reader)),
                        };
                        (heir, written)
                    });
                }
            }
        }
        Ok(())
    }

    /// An item cannot be restored.
    pub fn fail(&self, item: Item, error: &FormatError) -> Result<()> {
        self.settle(item, Err(error.again()), None)
    }

    fn link(&self, item: Item, first: &[u8]) -> Result<()> {
        match item.directory.out.link(&item.entry.name, self.target, first) {
            Ok(()) => {
                self.losses.bytes(item.entry.payload_length());
                self.done(&item.path, item.entry.kind().unwrap_or(Kind::File), 0);
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

/// Writes the data of a content to its file.
pub(super) struct ToFile<'f> {
    pub(super) file: &'f OutFile,
    /// Who is told of bytes as they are written.
    pub(super) losses: Option<&'f Losses<'f>>,
}

impl Sink for ToFile<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> FormatResult<()> {
        self.file.write_at(bytes, offset)?;
        if let Some(losses) = self.losses {
            losses.bytes(bytes.len() as u64);
        }
        Ok(())
    }
}
