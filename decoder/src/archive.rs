//! An open archive: its ends, its root, and what is looked up in it.
//!
//! Spec: archive.md sections 8 and 14.

use std::sync::Arc;

use diptych_format::entry::Holds;
use diptych_format::error::{Error, Result, Stream};
use diptych_format::stream::{HEADER_LENGTH, TRAILER_LENGTH, Trailer, tree_id, validate_header};
use diptych_format::table::{
    Below, DirectoryTable, IndexTable, LinkTable, Owners, TableKind, body_digest, decode_owners, kind_of,
};
use diptych_format::{Digest, ReadAt};

use crate::content::ContentMap;
use crate::finder::Finder;
use crate::found::Found;
use crate::links::Links;
use crate::pieces::{Floor, Piece, Pieces};
use crate::row::{Row, below_of, no_content, payload_start_of};
use crate::source::{Source, at, moved};
use crate::walk::{Plain, Visitor, Walk};

/// An archive whose metadata stream can be read. A clone is the same archive.
#[derive(Clone)]
pub struct Archive(Arc<Inner>);

struct Inner {
    source: Source,
    trailer: Trailer,
    /// The root table: one row.
    root: Vec<u8>,
    root_position: u64,
    /// The top link table.
    links: Vec<u8>,
    links_top: Piece,
}

impl Archive {
    /// Opens the archive of a metadata stream: reads its two ends, the root table and the top link table, and
    /// checks them against the tree id. Spec: A-8.1-1 to A-8.3-5, A-3.2-2.
    pub fn open(metadata: Arc<dyn ReadAt>) -> Result<Archive> {
        let source = Source::new(metadata);
        let Some(trailer_position) =
            source.len().checked_sub(TRAILER_LENGTH as u64).filter(|at| *at >= HEADER_LENGTH as u64)
        else {
            let error = Error::truncated("the stream is shorter than its two ends");
            return Err(error.at(Stream::Metadata, 0));
        };
        let mut header = [0; HEADER_LENGTH];
        source.read_end(&mut header, 0)?;
        validate_header(&header)?;
        let mut trailer = [0; TRAILER_LENGTH];
        source.read_end(&mut trailer, trailer_position)?;
        let trailer = Trailer::decode(&trailer, source.len())?;

        let (root_position, root) = source.read_referred(trailer.root, trailer_position)?;
        let (root_digest, sums) = check_root(&root).map_err(moved(root_position))?;
        if sums != (trailer.entries, trailer.payload_length) {
            let error = Error::corrupt("the trailer says other sums than the root has");
            return Err(error.at(Stream::Metadata, trailer_position));
        }
        let (links_position, links) = source.read_referred(trailer.links, trailer_position)?;
        let below = links_below(&links).map_err(moved(links_position))?;
        if tree_id(&root_digest, &below.digest) != trailer.tree_id {
            let error = Error::corrupt("the tree id is not that of the root and link tables");
            return Err(error.at(Stream::Metadata, trailer_position));
        }
        let below = Below { position: links_position, length: links.len() as u64, ..below };
        let links_top = Piece::top(below, 0);
        let archive = Archive(Arc::new(Inner { source, trailer, root, root_position, links, links_top }));
        archive.root_top()?;
        Ok(archive)
    }

    /// What the end of the stream says of the whole.
    pub fn trailer(&self) -> &Trailer {
        &self.0.trailer
    }

    /// Names of users and groups; none if the archive has no owner table.
    pub fn owners(&self) -> Result<Owners> {
        let Some(reference) = self.0.trailer.owners else { return Ok(Owners::default()) };
        let (position, bytes) = self.source().read_referred(reference, self.trailer_position())?;
        decode_owners(&bytes).map_err(moved(position))
    }

    /// The root directory.
    pub fn root(&self) -> Result<Found> {
        let table = DirectoryTable::view(&self.0.root).map_err(moved(self.0.root_position))?;
        self.found(&table, 0, &self.root_piece())
    }

    /// The root directory without extended attributes that stand in a value table.
    pub(crate) fn bare_root(&self) -> Result<Found> {
        let table = DirectoryTable::view(&self.0.root).map_err(moved(self.0.root_position))?;
        let below = self.root_top()?.below;
        let entry = table.entry(0, Vec::new(), None).map_err(at(self.0.root_position))?;
        Ok(Found { entry, payload_start: 0, payload_length: below.payload_length, below: Some(below) })
    }

    /// The entry at `path`, names joined by `/`; the root for the empty path. Reads the tables along the path.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Found>> {
        if path.is_empty() {
            return self.root().map(Some);
        }
        Finder::new(self).find(path, |table, row, piece| self.found(table, row, piece))
    }

    /// The entries of a directory, by name; none for what is no directory. For large trees, [`Archive::walk`].
    pub fn children(&self, directory: &Found) -> Result<Vec<Found>> {
        let mut pieces = self.child_pieces(directory);
        let mut children = Vec::new();
        while let Some(mut piece) = pieces.next_piece()? {
            children.append(&mut piece);
        }
        Ok(children)
    }

    /// The entries of a directory piece by piece, so that the largest one takes the memory of a piece.
    pub fn child_pieces(&self, directory: &Found) -> ChildPieces {
        let top = directory.below.map(|below| Piece::top(below, directory.payload_start));
        ChildPieces {
            archive: self.clone(),
            pieces: top.map(Pieces::new),
            floor: Floor::default(),
            buffer: Vec::new(),
        }
    }

    /// Goes through `from` and all below it in archive order, which is that of the payload stream; `path` is that
    /// of `from`. Reads each table once.
    pub fn walk(&self, from: &Found, path: &[u8], visitor: &mut dyn Visitor) -> Result<()> {
        Walk::new(self, path, &mut Plain(visitor)).run(from)
    }

    /// The link table.
    pub fn links(&self) -> Links {
        Links::new(self.clone())
    }

    /// Where the bytes of a content are. Content that the archive never had is *missing*.
    pub fn content(&self, found: &Found) -> Result<ContentMap> {
        let Holds::Content { size, digest } = found.entry.holds else { return Err(no_content()) };
        ContentMap::new((size, digest), &found.entry.holes, found.entry.status, found.payload_start)
    }

    /// How many bytes of the tables on the open path a walk or comparison keeps, of this archive and its clones. Beyond
    /// that, which takes very large directories inside each other, it reads them a second time: so no archive takes
    /// more memory than this, whatever its tables claim. 256 MiB unless it is said.
    pub fn keep_at_most(&self, bytes: u64) {
        self.source().keep_at_most(bytes);
    }

    /// Tables read so far, by whatever clone.
    pub fn tables_read(&self) -> u64 {
        self.source().tables_read()
    }

    /// Bytes of the metadata stream read so far.
    pub fn bytes_read(&self) -> u64 {
        self.source().bytes_read()
    }

    pub(crate) fn source(&self) -> &Source {
        &self.0.source
    }

    pub(crate) fn trailer_position(&self) -> u64 {
        self.source().len().saturating_sub(TRAILER_LENGTH as u64)
    }

    /// The root table's bytes, and the table as a piece.
    pub(crate) fn root_table(&self) -> (&[u8], Piece) {
        (&self.0.root, self.root_piece())
    }

    /// The top link table's bytes, which were not yet checked against anything but the tree id, and its place.
    pub(crate) fn links_top(&self) -> (&[u8], &Piece) {
        (&self.0.links, &self.0.links_top)
    }

    fn root_piece(&self) -> Piece {
        let length = self.0.root.len() as u64;
        Piece::top(Below { position: self.0.root_position, length, ..Below::default() }, 0)
    }

    /// The top table of the root directory.
    /// Bytes of memory that it takes as long as it is open, roughly.
    pub fn weight(&self) -> usize {
        size_of::<Inner>() + self.0.root.len() + self.0.links.len()
    }

    pub(crate) fn root_top(&self) -> Result<Piece> {
        let table = DirectoryTable::view(&self.0.root).map_err(moved(self.0.root_position))?;
        let below = below_of(&table, 0, &self.root_piece())?;
        let below = below.ok_or_else(|| at(self.0.root_position)(not_a_root()))?;
        Ok(Piece::top(below, 0))
    }

    pub(crate) fn found(&self, table: &DirectoryTable<'_>, row: usize, piece: &Piece) -> Result<Found> {
        let below = below_of(table, row, piece)?;
        let start = payload_start_of(table, row, piece);
        Row::of_table(self, (table, row), piece.below.position, below.as_ref(), start).found()
    }

    /// Goes down from a top table to the piece that holds `name`, if any does, and fills `buffer` with its bytes,
    /// which are not yet checked. Spec: A-7.2-6.
    pub(crate) fn piece_for(&self, top: Piece, name: &[u8], buffer: &mut Vec<u8>) -> Result<Option<Piece>> {
        let mut piece = top;
        loop {
            self.source().read_table(piece.below.position, piece.below.length, buffer)?;
            // Levels descend strictly, so that this ends.
            if kind_of(buffer).map_err(moved(piece.below.position))? != TableKind::Index {
                return Ok(Some(piece));
            }
            let table = piece.check_index(buffer)?;
            let Some(row) = table.find(name) else { return Ok(None) };
            let before = (0..row).map(|row| table.payload_length(row));
            let start = before.fold(piece.payload_start, u64::saturating_add);
            piece = piece.of_index(&table, row, start)?;
        }
    }
}

/// The entries of a directory, a piece at a time.
pub struct ChildPieces {
    archive: Archive,
    pieces: Option<Pieces>,
    floor: Floor,
    buffer: Vec<u8>,
}

impl ChildPieces {
    /// The next entries, by name; none behind the last.
    pub fn next_piece(&mut self) -> Result<Option<Vec<Found>>> {
        let Some(pieces) = &mut self.pieces else { return Ok(None) };
        let source = self.archive.source();
        let Some(piece) = pieces.next_piece(source, &mut self.floor, &mut (), &mut self.buffer)? else {
            return Ok(None);
        };
        let table = piece.check_directory(&self.buffer)?;
        let starts = table.payload_starts();
        let mut directories = table.directories().peekable();
        let mut children = Vec::with_capacity(starts.len());
        for (row, start) in starts.into_iter().enumerate() {
            let reference = directories.next_if(|(directory, ..)| *directory == row);
            let below = match reference {
                None => None,
                Some((_, reference, entries)) => Some(Below {
                    position: reference.resolve(piece.below.position)?,
                    length: reference.length,
                    digest: table.digest(row),
                    payload_length: table.payload_length(row),
                    entries,
                }),
            };
            children.push(Found {
                entry: source.entry(&table, row, piece.below.position)?,
                payload_start: piece.payload_start.saturating_add(start),
                payload_length: table.payload_length(row),
                below,
            });
        }
        self.floor.pass(&piece.below);
        Ok(Some(children))
    }
}

/// The digest of the root table's body; entries and payload of all. Spec: A-8.2-1, A-8.3-2, A-8.3-3.
fn check_root(bytes: &[u8]) -> Result<(Digest, (u64, u64))> {
    let table = DirectoryTable::parse(bytes)?;
    if table.rows() != 1 || !table.name(0).is_empty() || !table.is_directory(0) {
        return Err(not_a_root());
    }
    Ok((body_digest(table.body_bytes()), (table.entries_total(), table.payload_total())))
}

fn not_a_root() -> Error {
    Error::corrupt("the root table is not one directory without a name")
}

/// The top link table as if a row had led to it: there is none, and the tree id stands for its digest.
fn links_below(bytes: &[u8]) -> Result<Below> {
    let (body, entries) = match kind_of(bytes)? {
        TableKind::Index => {
            let table = IndexTable::parse(bytes)?;
            let entries = (0..table.rows()).map(|row| table.entries(row)).fold(0, u64::saturating_add);
            (table.body_bytes(), entries)
        }
        _ => {
            let table = LinkTable::parse(bytes)?;
            (table.body_bytes(), table.rows() as u64)
        }
    };
    Ok(Below { digest: body_digest(body), entries, ..Below::default() })
}
