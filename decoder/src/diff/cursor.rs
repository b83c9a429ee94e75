//! Two directories, or two link tables, piece by piece beside each other; pieces that are equal are not read.
//!
//! Spec: archive.md section 7.2.

use std::cmp::Ordering;

use diptych_format::error::Result;
use diptych_format::table::{Below, DirectoryTable, Reference};

use crate::archive::Archive;
use crate::pieces::{Floor, Piece, Pieces};

/// What stands in the pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Entries of a directory.
    Entries,
    /// Paths of the link table.
    Links,
}

/// A piece that is being compared.
pub(super) struct Leaf {
    pub(super) piece: Piece,
    pub(super) bytes: Vec<u8>,
    /// The next row.
    pub(super) row: usize,
    /// How many there are.
    rows: usize,
    /// The rows that are directories, with their top tables.
    pub(super) children: Children,
}

/// The rows of a piece that are directories, with their top tables.
pub(super) struct Children(std::vec::IntoIter<(usize, Below)>);

impl Children {
    fn of(table: &DirectoryTable<'_>, piece: &Piece) -> Result<Self> {
        let below = |(row, reference, entries): (usize, Reference, u64)| {
            let position = reference.resolve(piece.below.position)?;
            let (length, digest) = (reference.length, table.digest(row));
            let payload_length = table.payload_length(row);
            Ok((row, Below { position, length, digest, payload_length, entries }))
        };
        Ok(Self(table.directories().map(below).collect::<Result<Vec<_>>>()?.into_iter()))
    }

    /// The top table of the directory at `row`, if it is one; rows are asked for in order.
    pub(super) fn take(&mut self, row: usize) -> Option<Below> {
        let (first, below) = *self.0.as_slice().first()?;
        if first != row {
            return None;
        }
        self.0.next();
        Some(below)
    }
}

/// One of the two.
pub(super) struct Cursor<'a> {
    archive: &'a Archive,
    pieces: Option<Pieces>,
    pub(super) leaf: Option<Leaf>,
}

impl<'a> Cursor<'a> {
    /// Goes through what is under `top`; through nothing if there is none.
    pub(super) fn new(archive: &'a Archive, top: Option<Piece>) -> Self {
        Self { archive, pieces: top.map(Pieces::new), leaf: None }
    }

    /// Bytes of tables that are kept.
    pub(super) fn kept(&self) -> usize {
        let leaf = self.leaf.as_ref().map_or(0, |leaf| leaf.bytes.len());
        leaf + self.pieces.as_ref().map_or(0, Pieces::kept)
    }

    /// Lets go of what is kept: it is read again when it is needed.
    pub(super) fn let_go(&mut self) {
        if let Some(leaf) = &mut self.leaf {
            leaf.bytes = Vec::new();
        }
        if let Some(pieces) = &mut self.pieces {
            pieces.let_go();
        }
    }

    /// Reads a piece again that was let go of.
    fn restore(&mut self, names: Names) -> Result<()> {
        let Some(Leaf { piece, bytes, .. }) = &mut self.leaf else { return Ok(()) };
        if bytes.is_empty() {
            self.archive.source().read_table(piece.below.position, piece.below.length, bytes)?;
            match names {
                Names::Entries => piece.check_directory(bytes).map(|_| ())?,
                Names::Links => piece.check_links(bytes).map(|_| ())?,
            }
        }
        Ok(())
    }

    /// Leaves a piece that is done.
    fn close_leaf(&mut self, floor: &mut Floor) {
        if let Some(leaf) = self.leaf.take_if(|leaf| leaf.row >= leaf.rows) {
            floor.pass(&leaf.piece.below);
        }
    }

    /// Whether there is a table to be read before names can be compared.
    fn is_waiting(&self) -> bool {
        self.leaf.is_none() && self.pieces.is_some()
    }

    /// The next table: its digest and level, if that is known. Notes when there is none.
    fn peek(&mut self, floor: &mut Floor) -> Result<Option<(Below, Option<u64>)>> {
        let Some(pieces) = &mut self.pieces else { return Ok(None) };
        let next =
            pieces.peek(self.archive.source(), floor, &mut ())?.map(|piece| (piece.below, piece.level));
        if next.is_none() {
            self.pieces = None;
        }
        Ok(next)
    }

    fn skip(&mut self, floor: &mut Floor) {
        if let Some(pieces) = &mut self.pieces {
            pieces.skip(floor, &mut ());
        }
    }

    /// Reads the next table: an index table, or a piece to be compared.
    fn descend(&mut self, names: Names, floor: &mut Floor) -> Result<()> {
        let Some(pieces) = &mut self.pieces else { return Ok(()) };
        let mut bytes = Vec::new();
        let Some(piece) = pieces.descend(self.archive.source(), floor, &mut (), &mut bytes)? else {
            return Ok(());
        };
        let (rows, children) = match names {
            Names::Entries => {
                let table = piece.check_directory(&bytes)?;
                (table.rows(), Children::of(&table, &piece)?)
            }
            Names::Links => (piece.check_links(&bytes)?.rows(), Children(Vec::new().into_iter())),
        };
        self.leaf = Some(Leaf { piece, bytes, row: 0, rows, children });
        Ok(())
    }
}

/// Which of two names comes first, where a side that is at its end comes last. Each is nothing for such a side, and
/// `Some(None)` for a piece that is done, so that more must be read before anything can be said.
pub(super) fn order(a: Option<Option<&[u8]>>, b: Option<Option<&[u8]>>) -> Option<Ordering> {
    match (a, b) {
        (Some(None), _) | (_, Some(None)) | (None, None) => None,
        (Some(Some(a)), Some(Some(b))) => Some(a.cmp(b)),
        (Some(Some(_)), None) => Some(Ordering::Less),
        (None, Some(Some(_))) => Some(Ordering::Greater),
    }
}

/// Reads on until both sides have a piece to be compared or are at their end. Where both are between pieces, equal
/// ones are passed over.
pub(super) fn fill(sides: &mut [Cursor<'_>; 2], floors: &mut [Floor; 2], names: Names) -> Result<()> {
    let ([a, b], [floor_a, floor_b]) = (sides, floors);
    a.close_leaf(floor_a);
    b.close_leaf(floor_b);
    loop {
        let (next_a, next_b) = match (a.is_waiting(), b.is_waiting()) {
            (false, false) => {
                a.restore(names)?;
                return b.restore(names);
            }
            (waits_a, waits_b) => {
                (if waits_a { a.peek(floor_a)? } else { None }, if waits_b { b.peek(floor_b)? } else { None })
            }
        };
        let (down_a, down_b) = match (next_a, next_b) {
            (Some((below_a, _)), Some((below_b, _))) if below_a.digest == below_b.digest => {
                a.skip(floor_a);
                b.skip(floor_b);
                continue;
            }
            // The higher one is opened first, so that both come to stand on one level.
            (Some((_, Some(level_a))), Some((_, Some(level_b)))) => (level_a >= level_b, level_b >= level_a),
            (next_a, next_b) => (next_a.is_some(), next_b.is_some()),
        };
        if down_a {
            a.descend(names, floor_a)?;
        }
        if down_b {
            b.descend(names, floor_b)?;
        }
    }
}
