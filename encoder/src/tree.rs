//! The tree as tables: directories open, take rows, end pieces and close; each table is written once whatever is
//! below it has been.
//!
//! Memory is that of the open path: the rows of one piece for each open directory, and the paths of hard links.
//!
//! Spec: archive.md sections 7 and 8.

use std::collections::HashMap;

use diptych_format::pieces::CutRule;
use diptych_format::stream::{TRAILER_LENGTH, Trailer, encode_header, tree_id};
use diptych_format::table::{
    Below, DirectoryRow, IndexRow, LinkRow, Owners, Reference, encode_directory_table, encode_link_table,
    encode_owners,
};
use diptych_format::{Entry, Error, Kind, Result, Status};

use crate::cut::Cuts;
use crate::metadata::{MetadataChunk, MetadataStream};
use crate::pieces::Pieces;

/// What tells that two names are one inode: the device and inode number of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// Device.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// What a finished metadata stream is.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The trailer that was written.
    pub trailer: Trailer,
}

/// Writes the metadata stream of one archive.
///
/// Calls follow the archive's order: [`enter`](Self::enter) the root; in each piece of a directory its entries by name,
/// then its subdirectories by name; [`end_piece`](Self::end_piece) between pieces; [`leave`](Self::leave); then
/// [`finish`](Self::finish). An encoder that is dropped before leaves a stream without a trailer, which every reader
/// refuses as truncated.
#[derive(Clone)]
pub struct TreeEncoder {
    stream: MetadataStream,
    open: Vec<OpenDirectory>,
    root: Option<DirectoryRow>,
    links: HashMap<LinkKey, Vec<Box<[u8]>>>,
    is_incomplete: bool,
}

#[derive(Clone)]
struct OpenDirectory {
    entry: Entry,
    rows: Vec<DirectoryRow>,
    pieces: Pieces,
    cuts: CutCheck,
    /// Length of the path below the root, for the paths of hard links.
    path_length: usize,
}

impl TreeEncoder {
    /// Starts a stream whose chunks end as `cuts` says.
    pub fn new(cuts: Cuts) -> Self {
        let mut stream = MetadataStream::new(cuts);
        stream.out().extend_from_slice(&encode_header());
        Self { stream, open: Vec::new(), root: None, links: HashMap::new(), is_incomplete: false }
    }

    /// Opens a directory; the first is the root, whose name is empty. Its digest is found when it closes.
    pub fn enter(&mut self, entry: Entry) -> Result<()> {
        entry.validate()?;
        if entry.kind()? != Kind::Directory || self.root.is_some() {
            return Err(Error::corrupt("only a directory can be entered, and the root once"));
        }
        if entry.name.as_bytes().is_empty() != self.open.is_empty() {
            return Err(Error::corrupt("the root's name is empty, and that of no other directory"));
        }
        let path_length = match self.open.last_mut() {
            None => 0,
            Some(parent) => {
                // Tables below the piece follow: its first name, of a file or of this directory, is known now.
                let first_file = parent.rows.first().map(|row| &row.entry.name);
                let first_name = first_file.map_or(&entry.name, |name| name.min(&entry.name));
                parent.pieces.begin(first_name.as_bytes(), &mut self.stream)?;
                parent.path_length + usize::from(parent.path_length > 0) + entry.name.as_bytes().len()
            }
        };
        self.open.push(OpenDirectory {
            entry,
            rows: Vec::new(),
            pieces: Pieces::default(),
            cuts: CutCheck::default(),
            path_length,
        });
        Ok(())
    }

    /// Takes an entry of the open directory that is no directory itself. With `link` it is one name of an inode that
    /// may have more.
    pub fn entry(&mut self, entry: Entry, link: Option<LinkKey>) -> Result<()> {
        if entry.kind()? == Kind::Directory || entry.name.as_bytes().is_empty() {
            return Err(Error::corrupt("a directory is entered, and only the root has no name"));
        }
        if let Some(key) = link {
            let path = self.path_of(entry.name.as_bytes());
            self.links.entry(key).or_default().push(path);
        }
        self.push_row(DirectoryRow { entry, below: None })
    }

    /// Says that a name which the scan saw is not in the tree any more: nothing is missing, unless the directory was
    /// cut into pieces elsewhere because of it, which [`leave`](Self::leave) finds.
    pub fn vanished(&mut self, name: &[u8]) {
        if let Some(directory) = self.open.last_mut() {
            directory.cuts.absent.push(name.into());
        }
    }

    /// Says that there is no entry of a name that the tree has: the directory counts as not read whole.
    pub fn lost(&mut self, name: &[u8]) {
        self.vanished(name);
        if let Some(directory) = self.open.last_mut() {
            directory.entry.status = directory.entry.status.with(Status::NOT_READ);
        }
    }

    /// Ends a piece of the open directory: another follows.
    pub fn end_piece(&mut self) -> Result<()> {
        let Some(mut directory) = self.open.pop() else {
            return Err(Error::corrupt("no directory is open"));
        };
        let ended = self.write_piece(&mut directory, true);
        self.open.push(directory);
        ended.map(drop)
    }

    /// Closes the open directory. `status` adds what was found out while its entries were read.
    ///
    /// Gives *not-read*, which it adds itself, if names that vanished have moved the cuts between pieces: the table is
    /// then another one than the names in it make, which only an incomplete archive may have. Spec: A-7.2-7.
    pub fn leave(&mut self, status: Status) -> Result<Status> {
        let Some(mut directory) = self.open.pop() else {
            return Err(Error::corrupt("no directory is open"));
        };
        let below = if directory.pieces.is_empty() {
            self.write_piece(&mut directory, false)?
        } else {
            self.write_piece(&mut directory, true)?;
            std::mem::take(&mut directory.pieces).finish(&mut self.stream).map(Some)?
        };
        let found = if directory.cuts.have_moved { Status::NOT_READ } else { Status::COMPLETE };
        directory.entry.status = directory.entry.status.with(status).with(found);
        let row = DirectoryRow { entry: directory.entry, below };
        if self.open.is_empty() {
            self.is_incomplete |= !row.entry.status.is_complete();
            self.root = Some(row);
        } else {
            self.push_row(row)?;
        }
        Ok(found)
    }

    /// Writes the root, the links, the owners and the trailer.
    pub fn finish(&mut self, owners: &Owners) -> Result<Finished> {
        self.close(owners, false)
    }

    /// What would close the stream here as a partial archive, as the chunks that follow those taken so far. The
    /// encoder itself goes on as if nothing had been.
    pub fn checkpoint(&self, owners: &Owners) -> Result<(Vec<MetadataChunk>, Finished)> {
        let mut branch = self.clone();
        if branch.open.is_empty() && branch.root.is_none() {
            return Err(Error::corrupt("there is nothing to make a checkpoint of"));
        }
        branch.stream.take_chunks();
        while !branch.open.is_empty() {
            branch.leave(Status::NOT_READ)?;
        }
        let finished = branch.close(owners, true)?;
        Ok((branch.take_chunks(), finished))
    }

    /// The chunks of the stream that have been finished since the last call.
    pub fn take_chunks(&mut self) -> Vec<MetadataChunk> {
        self.stream.take_chunks()
    }

    fn push_row(&mut self, row: DirectoryRow) -> Result<()> {
        self.is_incomplete |= !row.entry.status.is_complete();
        let Some(directory) = self.open.last_mut() else {
            return Err(Error::corrupt("no directory is open"));
        };
        directory.rows.push(row);
        Ok(())
    }

    fn path_of(&self, name: &[u8]) -> Box<[u8]> {
        let mut path = Vec::with_capacity(self.open.last().map_or(0, |d| d.path_length) + 1 + name.len());
        for directory in self.open.iter().skip(1) {
            path.extend_from_slice(directory.entry.name.as_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path.into()
    }

    /// Writes the rows so far as one table. As a piece among several it goes under an index; else it is the
    /// directory's own.
    fn write_piece(
        &mut self,
        directory: &mut OpenDirectory,
        is_one_of_several: bool,
    ) -> Result<Option<Below>> {
        let mut rows = std::mem::take(&mut directory.rows);
        // Entries came by name, then subdirectories by name: two runs, which this sort merges.
        rows.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
        directory.cuts.check(&rows)?;
        if rows.is_empty() && is_one_of_several {
            return Ok(None);
        }
        let first_name: Box<[u8]> =
            rows.first().map(|row| row.entry.name.as_bytes().into()).unwrap_or_default();
        directory.pieces.begin(&first_name, &mut self.stream)?;
        let position = self.stream.position();
        let below = encode_directory_table(&rows, position, self.stream.out())?;
        self.stream.table_ends(&below);
        if !is_one_of_several {
            return Ok(Some(below));
        }
        directory.pieces.add(IndexRow { first_name, below })?;
        Ok(None)
    }

    fn close(&mut self, owners: &Owners, is_partial: bool) -> Result<Finished> {
        if !self.open.is_empty() {
            return Err(Error::corrupt("a directory is still open"));
        }
        let Some(root) = self.root.take() else {
            return Err(Error::corrupt("the root was never closed"));
        };
        let position = self.stream.position();
        let root = encode_directory_table(&[root], position, self.stream.out())?;
        let links = self.write_links()?;
        let position = self.stream.position();
        let owner_length =
            if owners.is_empty() { 0 } else { encode_owners(owners, self.stream.out())? as u64 };
        let end = self.stream.position();
        let seen = |below: Below| Reference { distance: end - below.position, length: below.length };
        let trailer = Trailer {
            root: seen(root),
            links: seen(links),
            owners: (owner_length > 0)
                .then_some(Reference { distance: end - position, length: owner_length }),
            tree_id: tree_id(&root.digest, &links.digest),
            entries: root.entries,
            payload_length: root.payload_length,
            stream_length: end + TRAILER_LENGTH as u64,
            is_partial,
            is_incomplete: self.is_incomplete,
        };
        self.stream.out().extend_from_slice(&trailer.encode());
        self.stream.end_chunk();
        Ok(Finished { trailer })
    }

    fn write_links(&mut self) -> Result<Below> {
        let mut pieces = Pieces::default();
        let mut rule = CutRule::new(0);
        let mut rows: Vec<LinkRow> = Vec::new();
        for row in link_rows(std::mem::take(&mut self.links)) {
            if rule.cuts_before_with(&row.path, row.first.len()) {
                self.write_link_piece(&std::mem::take(&mut rows), &mut pieces)?;
            }
            rows.push(row);
        }
        self.write_link_piece(&rows, &mut pieces)?;
        pieces.finish(&mut self.stream)
    }

    fn write_link_piece(&mut self, rows: &[LinkRow], pieces: &mut Pieces) -> Result<()> {
        let first_name = rows.first().map(|row| row.path.clone()).unwrap_or_default();
        pieces.begin(&first_name, &mut self.stream)?;
        let position = self.stream.position();
        let below = encode_link_table(rows, position, self.stream.out())?;
        self.stream.table_ends(&below);
        pieces.add(IndexRow { first_name, below })
    }
}

/// Checks the cuts between the pieces of one directory: the scan made them by the same rule, the first name of all but
/// the first piece begins one.
#[derive(Clone)]
struct CutCheck {
    /// The rule on the names that the scan saw.
    seen: CutRule,
    /// The rule on the names that have a row, from the first piece on that lacks one: until then it is the same.
    kept: Option<CutRule>,
    /// Names of the open piece that the scan saw and that have no row.
    absent: Vec<Box<[u8]>>,
    has_piece: bool,
    has_rows: bool,
    /// Whether the names that have a row are cut elsewhere than they alone say.
    have_moved: bool,
}

impl Default for CutCheck {
    fn default() -> Self {
        Self {
            seen: CutRule::new(0),
            kept: None,
            absent: Vec::new(),
            has_piece: false,
            has_rows: false,
            have_moved: false,
        }
    }
}

impl CutCheck {
    /// Takes the rows of the next piece, in order.
    fn check(&mut self, rows: &[DirectoryRow]) -> Result<()> {
        let mut names: Vec<&[u8]> = rows.iter().map(|row| row.entry.name.as_bytes()).collect();
        let absent = std::mem::take(&mut self.absent);
        if !absent.is_empty() {
            self.kept.get_or_insert_with(|| self.seen.clone());
        }
        if let Some(rule) = &mut self.kept {
            for (index, name) in names.iter().enumerate() {
                self.have_moved |= rule.cuts_before(name) != (index == 0 && self.has_rows);
            }
        }
        self.has_rows |= !rows.is_empty();
        if !absent.is_empty() {
            names.extend(absent.iter().map(|name| &name[..]));
            names.sort_unstable();
        }
        for (index, name) in names.iter().enumerate() {
            if self.seen.cuts_before(name) != (index == 0 && self.has_piece) {
                return Err(Error::corrupt("a directory was cut into pieces elsewhere than its names say"));
            }
        }
        self.has_piece = true;
        Ok(())
    }
}

/// The groups with more than one path, as rows by path.
fn link_rows(groups: HashMap<LinkKey, Vec<Box<[u8]>>>) -> Vec<LinkRow> {
    let mut rows = Vec::new();
    for (_, mut paths) in groups.into_iter().filter(|(_, paths)| paths.len() > 1) {
        paths.sort();
        let count = paths.len() as u64;
        let first = paths.first().cloned().unwrap_or_default();
        rows.extend(paths.into_iter().enumerate().map(|(index, path)| LinkRow {
            path,
            first: if index == 0 { Box::default() } else { first.clone() },
            count,
        }));
    }
    rows.sort();
    rows
}
