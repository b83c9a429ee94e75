//! An archive, or a directory in one, as a file system.
//!
//! The number of an inode is the place of its row: where its table stands in the metadata stream, and which row of it
//! it is. A row takes at least a byte, so no two have the same; and whoever mounts the archive again finds the same
//! numbers. So nothing has to be remembered of an inode: tables stand in post-order, and from the root each of them leads
//! on towards the one that a number lies in, if the cache has let go of that.
//!
//! All names of an inode have the number of the first of them, by path: the link table tells which that is.

use std::ops::ControlFlow;
use std::sync::Arc;

use diptych_decoder::{Archive, ContentMap, Found, Link, Links, Part, Read, Row, Table, TableRef};
use diptych_format::{Entry, Error, Kind, ReadAt, Result, Status};

use crate::ahead::Ahead;
use crate::files::{Attributes, Files, Ino, Listed, Seek, Totals};
use crate::foresight::{BATCH_BYTES, Batch, SMALL_MAX};
use crate::memory::{Cached, Foreseen, Memory};

/// Where a list goes on behind `.` and `..`: no table stands so early.
const BEHIND_SELF: u64 = 1;
const BEHIND_PARENT: u64 = 2;

/// The archive's own root, as other inodes are numbered here.
const ARCHIVE_ROOT: u64 = 1;

/// An archive as a file system. Its inode numbers mean nothing to another one. A clone is the same file system.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

struct Inner {
    /// Which of the trees that share memory it is.
    number: u32,
    archive: Archive,
    payload: Arc<dyn ReadAt>,
    memory: Memory,
    root: Found,
    links: Option<Links>,
    /// What is mounted.
    top: u64,
    ahead: Ahead,
}

/// An inode, found.
enum Node {
    /// The archive's root.
    Root,
    /// Row of a table.
    Row(Names, usize),
}

/// A table of names.
#[derive(Clone)]
struct Names(Arc<Cached>);

impl Names {
    fn table(&self) -> Result<&Table> {
        match &self.0.read {
            Read::Names(table) => Ok(table),
            Read::Index(_) => Err(Error::corrupt("an index table stands where names should")),
        }
    }

    /// The row that an inode is, if it is one of this table's.
    fn row_of(&self, id: u64) -> Option<usize> {
        let table = self.table().ok()?;
        let row = usize::try_from(id.checked_sub(table.position())?).ok()?;
        (row < table.rows()).then_some(row)
    }

    /// The directory that it is of.
    fn directory(&self) -> u64 {
        self.0.directory
    }
}

impl Tree {
    /// The archive from its root on. `number` is another one for each tree that shares `memory`, and part of its inodes'
    /// numbers: 0 if it is the only one.
    pub fn new(archive: Archive, payload: Arc<dyn ReadAt>, memory: &Memory, number: u32) -> Result<Self> {
        let links = archive.links();
        let links = if links.is_empty()? { None } else { Some(links) };
        if archive.trailer().stream_length > Ino::LOCAL_MAX {
            return Err(Error::limit("length of a stream", archive.trailer().stream_length, Ino::LOCAL_MAX));
        }
        Ok(Self(Arc::new(Inner {
            number,
            root: archive.root()?,
            archive,
            payload,
            memory: memory.clone(),
            links,
            top: ARCHIVE_ROOT,
            ahead: Ahead::default(),
        })))
    }

    /// The same from the directory at `path` on; none if there is none.
    pub fn below(self, path: &[u8]) -> Result<Option<Self>> {
        let Some(top) = self.id_of(path)? else { return Ok(None) };
        let is_directory = match self.node(top)? {
            Node::Root => true,
            Node::Row(names, row) => names.table()?.directory(row)?.is_some(),
        };
        // Nobody else has it yet.
        let inner = Arc::into_inner(self.0).filter(|_| is_directory);
        Ok(inner.map(|inner| Self(Arc::new(Inner { top, ..inner }))))
    }

    /// Bytes of memory that it takes beside the memory that it shares, roughly.
    pub(crate) fn weight(&self) -> usize {
        // The root stands twice: as it was read, and as it is told of.
        2 * self.0.archive.weight() + size_of::<Inner>()
    }

    /// The number that an inode is known by outside. What is mounted and the archive's root change theirs, for what is
    /// mounted has one that is agreed on.
    fn ino(&self, id: u64) -> Ino {
        Ino::of(self.0.number, self.swap(id))
    }

    /// The other way round.
    fn id(&self, ino: Ino) -> u64 {
        self.swap(ino.local())
    }

    fn swap(&self, number: u64) -> u64 {
        match number {
            _ if number == self.0.top => ARCHIVE_ROOT,
            ARCHIVE_ROOT => self.0.top,
            other => other,
        }
    }

    fn key(&self, number: u64) -> (u32, u64) {
        (self.0.number, number)
    }

    fn node(&self, id: u64) -> Result<Node> {
        if id == ARCHIVE_ROOT {
            return Ok(Node::Root);
        }
        let (names, row) = self.row_of(id)?;
        Ok(Node::Row(names, row))
    }

    /// The table that an inode is a row of, and the row.
    fn row_of(&self, id: u64) -> Result<(Names, usize)> {
        self.find_row(id)?.ok_or_else(|| unknown(id))
    }

    /// The same; none if it is no inode.
    fn find_row(&self, id: u64) -> Result<Option<(Names, usize)>> {
        let near = self.0.memory.0.tables.before(self.key(id)).map(Names);
        if let Some((names, row)) = near.and_then(|names| names.row_of(id).map(|row| (names, row))) {
            return Ok(Some((names, row)));
        }
        // From the root down. What is below a table stands before it, so that each step goes backwards, and the steps end.
        let (mut reference, mut directory) = (self.0.archive.root_ref()?, ARCHIVE_ROOT);
        loop {
            let read = self.read_table(&reference, directory)?;
            let next = match &read.read {
                Read::Names(table) => {
                    if let Some(row) = Names(Arc::clone(&read)).row_of(id) {
                        return Ok(Some((Names(read), row)));
                    }
                    let Some(row) = table.directory_around(id)? else { return Ok(None) };
                    directory = id_of_row(table, row);
                    table.directory(row)?
                }
                Read::Index(below) => below.get(below.partition_point(|below| below.end() <= id)).cloned(),
            };
            match next {
                Some(next) => reference = next,
                None => return Ok(None),
            }
        }
    }

    /// The directory that an inode stands in.
    fn directory_of(&self, id: u64) -> Result<u64> {
        self.row_of(id).map(|(names, _)| names.directory())
    }

    /// The top table of a directory; none of what is no directory.
    fn top_of(&self, id: u64) -> Result<Option<TableRef>> {
        match self.node(id)? {
            Node::Root => self.0.archive.root_ref().map(Some),
            Node::Row(names, row) => names.table()?.directory(row),
        }
    }

    /// Reads a table of a directory, or takes it from the cache.
    fn read_table(&self, reference: &TableRef, directory: u64) -> Result<Arc<Cached>> {
        self.0.memory.0.tables.get_or_read(self.key(reference.position()), || {
            Ok(Cached { directory, read: self.0.archive.read(reference)? })
        })
    }

    /// The piece of a directory that has `name`, if any has.
    fn piece_for(&self, top: &TableRef, directory: u64, name: &[u8]) -> Result<Option<Names>> {
        let mut reference = top.clone();
        loop {
            let read = self.read_table(&reference, directory)?;
            let Read::Index(below) = &read.read else { return Ok(Some(Names(read))) };
            let behind = below.partition_point(|below| below.begins_by(name));
            let Some(next) = behind.checked_sub(1).and_then(|place| below.get(place)) else {
                return Ok(None);
            };
            reference = next.clone();
        }
    }

    /// The first piece under `reference` that stands behind `place`.
    fn piece_behind(&self, reference: &TableRef, directory: u64, place: u64) -> Result<Option<Names>> {
        let read = self.read_table(reference, directory)?;
        let Read::Index(below) = &read.read else {
            return Ok((reference.position() > place).then_some(Names(read)));
        };
        // Levels descend strictly, so that this ends.
        for below in below.iter().skip_while(|below| below.position() < place) {
            if let Some(found) = self.piece_behind(below, directory, place)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A name in a directory, as the row that it is.
    fn find(&self, directory: u64, name: &[u8]) -> Result<Option<(Names, usize)>> {
        let top = self.top_of(directory)?.ok_or_else(|| Error::missing("no directory"))?;
        let Some(names) = self.piece_for(&top, directory, name)? else { return Ok(None) };
        let row = names.table()?.find(name)?;
        Ok(row.map(|row| (names, row)))
    }

    /// The inode at a path below the archive's root.
    fn id_of(&self, path: &[u8]) -> Result<Option<u64>> {
        let mut id = ARCHIVE_ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if self.top_of(id)?.is_none() {
                return Ok(None);
            }
            match self.find(id, name)? {
                Some((names, row)) => id = id_of_row(names.table()?, row),
                None => return Ok(None),
            }
        }
        Ok(Some(id))
    }

    /// The path of an inode below the archive's root.
    fn path_of(&self, mut id: u64) -> Result<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        while id != ARCHIVE_ROOT {
            let (table, row) = self.row_of(id)?;
            names.push(table.table()?.row(row, |row| Ok(row.name().to_vec()))?);
            id = table.directory();
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// What the link table says of a path. Where it cannot be read, nothing: then each name is an inode of its own.
    fn link(&self, links: &Links, path: &[u8]) -> Option<Link> {
        let kept = &self.0.memory.0;
        let part = match kept.link_part(self.0.number, path) {
            Some(part) => part,
            None => {
                let part = Arc::new(links.part_for(path).ok()??);
                kept.keep_link_part(self.0.number, Arc::clone(&part));
                part
            }
        };
        part.find(path).ok()?
    }

    /// The attributes of a row at `path`, which the links are looked up by. All names of an inode show those of the
    /// first.
    fn attributes_of(
        &self,
        id: u64,
        row: &Row<'_>,
        path: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Attributes> {
        let own = |count| Attributes::of_row(row, self.ino(id), count);
        let Some(links) = self.0.links.as_ref().filter(|_| row.kind() != Kind::Directory) else {
            return Ok(own(1));
        };
        let Some(Link { first, count }) = self.link(links, &path()?) else { return Ok(own(1)) };
        let Some(first) = first else { return Ok(own(count)) };
        let what = |row: &Row<'_>| (row.kind(), row.size(), row.digest(), row.device());
        let is_one = |other: &Row<'_>| what(other) == what(row) && other.target() == row.target();
        match self.id_of(&first)? {
            Some(first) if first != ARCHIVE_ROOT => self.with_row(first, |other| match is_one(other) {
                true => Ok(Attributes::of_row(other, self.ino(first), count)),
                // What the table says is not so.
                false => Ok(own(1)),
            }),
            _ => Ok(own(1)),
        }
    }

    /// Lends the row of an inode that is not the archive's root.
    fn with_row<T>(&self, id: u64, take: impl FnOnce(&Row<'_>) -> Result<T>) -> Result<T> {
        match self.node(id)? {
            Node::Root => Err(Error::missing("the root is a directory")),
            Node::Row(names, row) => names.table()?.row(row, take),
        }
    }

    /// An inode with all that is kept of it; the extended attributes of most are known to be none without that.
    fn entry(&self, id: u64) -> Result<Option<Entry>> {
        match self.node(id)? {
            Node::Root => Ok(Some(self.0.root.entry.clone())),
            Node::Row(names, row) => names.table()?.row(row, |row| match row.has_xattrs() {
                true => row.to_entry().map(Some),
                false => Ok(None),
            }),
        }
    }

    /// Where the bytes of a content are: from where in the payload stream, or by a map if it has holes; and its size.
    fn content(&self, id: u64) -> Result<(u64, Whereabouts)> {
        let (size, start) = self.with_row(id, |row| {
            if row.kind() != Kind::File {
                return Err(Error::missing("what is no file has no content"));
            }
            if row.status().has(Status::NOT_READ) {
                return Err(Error::missing("the content was not read when the archive was made"));
            }
            Ok((row.size(), (!row.has_holes()).then(|| row.payload_start())))
        })?;
        let whereabouts = match start {
            Some(start) => Whereabouts::From(start),
            None => Whereabouts::Map(self.0.memory.0.maps.get_or_insert_with(&self.key(id), || {
                self.with_row(id, |row| row.content()).map(Arc::new)
            })?),
        };
        Ok((size, whereabouts))
    }

    /// A small file was read, or a directory listed (without `row`): whoever does so may go on with what follows.
    fn note(&self, names: &Names, row: Option<usize>) -> Result<()> {
        let table = names.table()?;
        let place = table.position();
        let known = self.ino(place).0;
        let is_small = |row: &Row<'_>| row.kind() == Kind::File && (1..=SMALL_MAX).contains(&row.size());
        let foresight = &self.0.memory.0.foresight;
        let mut first = foresight.first(known);
        if first.is_none() {
            let _ = table.rows_from(0, |number, row| {
                first = is_small(row).then_some(number);
                Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        let Some(first) = first else { return Ok(()) };
        let from = match row {
            None => foresight.listed(known, first).then_some(first + 1),
            Some(row) => foresight.read(known, row, first),
        };
        let Some(from) = from.filter(|from| *from < table.rows()) else { return Ok(()) };
        let (mut end, mut bytes) = (from, 0u64);
        let _ = table.rows_from(from, |number, row| {
            if is_small(row) {
                bytes += row.size();
            }
            if bytes > BATCH_BYTES {
                return Ok(ControlFlow::Break(()));
            }
            end = number + 1;
            Ok(ControlFlow::Continue(()))
        })?;
        if bytes > 0 {
            foresight.hand(known, first, Foreseen { tree: self.clone(), place }, from..end);
        }
        Ok(())
    }

    /// Hands over the small files of a batch.
    pub(crate) fn give(&self, batch: &Batch<Foreseen>, give: &dyn Fn(Ino, &[u8])) -> Result<()> {
        let (names, _) = self.row_of(batch.table.place)?;
        let table = names.table()?;
        let path = if self.0.links.is_some() { self.path_of(names.directory())? } else { Vec::new() };
        let mut buffer = Vec::new();
        let _ = table.rows_from(batch.rows.start, |number, row| {
            if number >= batch.rows.end {
                return Ok(ControlFlow::Break(()));
            }
            let is_whole = !row.has_holes() && !row.status().has(Status::NOT_READ);
            if row.kind() == Kind::File
                && (1..=SMALL_MAX).contains(&row.size())
                && is_whole
                && !self.0.memory.0.foresight.is_late(self.ino(table.position()).0, number)
            {
                buffer.resize(usize::try_from(row.size()).unwrap_or(0), 0);
                self.0.payload.read_exact_at(&mut buffer, row.payload_start())?;
                let own = id_of_row(table, number);
                let attributes = self.attributes_of(own, row, || Ok(joined(&path, row.name())))?;
                // Of several names the first one's bytes are the inode's.
                if attributes.ino == self.ino(own) {
                    give(attributes.ino, &buffer);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(())
    }

    fn read_payload(&self, buffer: &mut [u8], start: u64) -> Result<()> {
        let range = start..start.saturating_add(buffer.len() as u64);
        if let Some(ahead) = self.0.ahead.note(range, self.0.payload.len()) {
            self.0.payload.hint(&[ahead]);
        }
        self.0.payload.read_exact_at(buffer, start)
    }
}

/// Where the bytes of a content are.
enum Whereabouts {
    /// All of them, from there on in the payload stream.
    From(u64),
    /// Here and there.
    Map(Arc<ContentMap>),
}

fn id_of_row(table: &Table, row: usize) -> u64 {
    table.position().saturating_add(row as u64)
}

fn unknown(id: u64) -> Error {
    Error::missing(format!("inode {id} was never given to anybody"))
}

impl Files for Tree {
    fn lookup(&self, directory: Ino, name: &[u8]) -> Result<Option<Attributes>> {
        let directory = self.id(directory);
        let Some((names, row)) = self.find(directory, name)? else { return Ok(None) };
        let table = names.table()?;
        let path = || Ok(joined(&self.path_of(directory)?, name));
        table.row(row, |there| self.attributes_of(id_of_row(table, row), there, path)).map(Some)
    }

    fn attributes(&self, ino: Ino) -> Result<Attributes> {
        let id = self.id(ino);
        match self.node(id)? {
            Node::Root => Ok(Attributes::of_directory(&self.0.root.entry, ino)),
            Node::Row(names, row) => {
                names.table()?.row(row, |row| self.attributes_of(id, row, || self.path_of(id)))
            }
        }
    }

    fn list(
        &self,
        directory: Ino,
        from: u64,
        each: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let id = self.id(directory);
        if from < BEHIND_PARENT {
            let own = self.attributes(directory)?;
            let above = match id == self.0.top || id == ARCHIVE_ROOT {
                true => own,
                false => self.attributes(self.ino(self.directory_of(id)?))?,
            };
            let dots = [(&b"."[..], own, BEHIND_SELF), (b"..", above, BEHIND_PARENT)];
            for (name, attributes, next) in dots.into_iter().filter(|(.., next)| *next > from) {
                if each(Listed { name, attributes, next }).is_break() {
                    return Ok(());
                }
            }
        }
        let top = self.top_of(id)?.ok_or_else(|| Error::missing("no directory"))?;
        let path = if self.0.links.is_some() { self.path_of(id)? } else { Vec::new() };
        // Behind a row of a table, or from the first one on.
        let (mut names, mut first, mut place) = match from > BEHIND_PARENT {
            true => {
                // Whoever seeks in a directory may name any place: what is not of this one is its end.
                let Some((names, row)) = self.find_row(from)? else { return Ok(()) };
                if names.directory() != id {
                    return Ok(());
                }
                // By now the kernel knows the names that it was told before.
                self.note(&names, None)?;
                let place = names.table()?.position();
                (Some(names), row.saturating_add(1), place)
            }
            false => (self.piece_behind(&top, id, 0)?, 0, 0),
        };
        while let Some(there) = names {
            let table = there.table()?;
            place = place.max(table.position());
            let flow = table.rows_from(first, |number, row| {
                let own = id_of_row(table, number);
                let attributes = self.attributes_of(own, row, || Ok(joined(&path, row.name())))?;
                Ok(each(Listed { name: row.name(), attributes, next: own }))
            })?;
            if flow.is_break() {
                return Ok(());
            }
            names = self.piece_behind(&top, id, place)?;
            first = 0;
        }
        Ok(())
    }

    fn target(&self, ino: Ino) -> Result<Vec<u8>> {
        self.with_row(self.id(ino), |row| match row.kind() {
            Kind::Symlink => Ok(row.target().to_vec()),
            _ => Err(Error::missing("what is no symbolic link has no target")),
        })
    }

    fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let xattrs = self.entry(self.id(ino))?.map(|entry| entry.attributes.xattrs).unwrap_or_default();
        Ok(xattrs.into_iter().map(|xattr| xattr.name.into()).collect())
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let xattrs = self.entry(self.id(ino))?.map(|entry| entry.attributes.xattrs).unwrap_or_default();
        Ok(xattrs.into_iter().find(|xattr| xattr.name[..] == *name).map(|xattr| xattr.value.into()))
    }

    fn flags(&self, ino: Ino) -> Result<(u32, u32)> {
        let of = |entry: &Entry| (entry.attributes.flags, entry.attributes.project);
        match self.node(self.id(ino))? {
            Node::Root => Ok(of(&self.0.root.entry)),
            Node::Row(names, row) => names.table()?.row(row, |row| Ok(of(&row.to_entry()?))),
        }
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let id = self.id(ino);
        let (size, whereabouts) = self.content(id)?;
        if offset == 0
            && size <= SMALL_MAX
            && let Node::Row(names, row) = self.node(id)?
        {
            self.note(&names, Some(row))?;
        }
        let length = size.saturating_sub(offset).min(buffer.len() as u64);
        let Some(wanted) = usize::try_from(length).ok().and_then(|length| buffer.get_mut(..length)) else {
            return Ok(0);
        };
        match whereabouts {
            _ if wanted.is_empty() => {}
            Whereabouts::From(start) => self.read_payload(wanted, start.saturating_add(offset))?,
            Whereabouts::Map(map) => {
                let end = offset.saturating_add(length);
                for part in parts_from(&map, offset) {
                    let (start, part_end) = bounds(part);
                    if start >= end {
                        break;
                    }
                    let range = start.max(offset)..part_end.min(end);
                    let within = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
                    let Some(wanted) = wanted.get_mut(within(range.start)..within(range.end)) else { break };
                    match part {
                        Part::Hole { .. } => wanted.fill(0),
                        Part::Data { payload_offset, .. } => {
                            self.read_payload(wanted, payload_offset.saturating_add(range.start - start))?;
                        }
                    }
                }
            }
        }
        Ok(wanted.len())
    }

    fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<Option<u64>> {
        let (size, whereabouts) = self.content(self.id(ino))?;
        if offset >= size {
            return Ok(None);
        }
        let Whereabouts::Map(map) = whereabouts else {
            return Ok(Some(if what == Seek::Data { offset } else { size }));
        };
        let found = parts_from(&map, offset).find(|part| match part {
            Part::Data { .. } => what == Seek::Data,
            Part::Hole { .. } => what == Seek::Hole,
        });
        Ok(match found {
            Some(part) => Some(bounds(part).0.max(offset)),
            None => (what == Seek::Hole).then_some(size),
        })
    }

    fn foresee(&self, give: &dyn Fn(Ino, &[u8]), is_wanted: &dyn Fn() -> bool) {
        self.0.memory.foresee(give, is_wanted);
    }

    fn totals(&self) -> Totals {
        let trailer = self.0.archive.trailer();
        Totals { entries: trailer.entries, bytes: trailer.payload_length }
    }

    fn path(&self, ino: Ino) -> Vec<u8> {
        // What cannot be told of a damaged archive goes without saying.
        self.path_of(self.id(ino)).unwrap_or_default()
    }
}

/// The parts of a content from the one on that `offset` is in.
fn parts_from(map: &ContentMap, offset: u64) -> impl Iterator<Item = &Part> {
    let first = map.parts.partition_point(|part| bounds(part).1 <= offset);
    map.parts.get(first..).unwrap_or_default().iter()
}

/// Where a part starts and ends in the content.
fn bounds(part: &Part) -> (u64, u64) {
    let (Part::Data { content_offset, length, .. } | Part::Hole { content_offset, length }) = *part;
    (content_offset, content_offset.saturating_add(length))
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory.is_empty() {
        true => name.to_vec(),
        false => [directory, b"/", name].concat(),
    }
}
