//! The walk: everything below a directory, in archive order, each table read once.
//!
//! The stack holds a frame for each open directory, so that depth costs memory of the open path alone and nothing
//! recurses. Nothing is allocated for a row: the path is one buffer, and the subdirectories that are still to come
//! wait in one list for all frames.
//!
//! Spec: archive.md sections 8.2 and 9.

use diptych_format::error::{Error, Result};
use diptych_format::limits;
use diptych_format::table::{Below, DirectoryTable};

use crate::archive::Archive;
use crate::found::Found;
use crate::pieces::{Floor, Piece, Pieces, Watch, push_range};
use crate::row::Row;
use crate::source::moved;

/// Larger buffers are not kept for other tables.
const SPARE_MAX: usize = 1 << 20;

/// Whether a walk goes on below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// Yes.
    Enter,
    /// No: what is below is passed over, and the directory is not left.
    Skip,
}

/// Sees what a walk comes by. An error that it returns ends the walk.
pub trait Visitor {
    /// A directory opens: the one from which the walk goes, or one below it.
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> Result<Descend>;

    /// Anything but a directory, by name within its piece.
    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<()>;

    /// A directory that was entered is done, be it that something in it was damaged.
    fn leave(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        let _ = (path, row);
        Ok(())
    }

    /// Part of the directory at `path` cannot be had: a table of it is missing, corrupt or beyond a limit. After `Ok`
    /// the walk goes on with what comes behind that table; as it stands, the error ends the walk.
    fn damaged(&mut self, path: &[u8], error: Error) -> Result<()> {
        let _ = path;
        Err(error)
    }
}

/// A subdirectory that is still to be entered.
struct Child {
    row: usize,
    below: Below,
    payload_start: u64,
}

/// An open directory.
struct Frame {
    pieces: Pieces,
    /// The piece whose subdirectories are being entered, and its bytes.
    piece: Option<Piece>,
    bytes: Vec<u8>,
    /// Where this piece's subdirectories start in the list of all frames.
    base: usize,
    /// The next of them.
    next: usize,
    /// The one that is being walked.
    open: Option<usize>,
    /// Length of the directory's path.
    path_length: usize,
}

impl Frame {
    /// Bytes of tables that are kept.
    fn kept(&self) -> usize {
        self.pieces.kept() + self.bytes.len()
    }

    /// Lets go of what is kept: it is read again when the walk comes back.
    fn let_go(&mut self) {
        self.pieces.let_go();
        self.bytes = Vec::new();
    }
}

/// A visitor of whom no one but the walk knows, and who does not look on.
pub(crate) struct Plain<'v>(pub(crate) &'v mut dyn Visitor);

impl Visitor for Plain<'_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> Result<Descend> {
        self.0.enter(path, row)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        self.0.entry(path, row)
    }

    fn leave(&mut self, path: &[u8], row: &Row<'_>) -> Result<()> {
        self.0.leave(path, row)
    }

    fn damaged(&mut self, path: &[u8], error: Error) -> Result<()> {
        self.0.damaged(path, error)
    }
}

impl Watch for Plain<'_> {}

/// A walk under way.
pub(crate) struct Walk<'w, V: Visitor + Watch> {
    archive: &'w Archive,
    visitor: &'w mut V,
    path: Vec<u8>,
    depth_above: usize,
    frames: Vec<Frame>,
    children: Vec<Child>,
    spare: Vec<Vec<u8>>,
    ranges: Vec<std::ops::Range<u64>>,
    floor: Floor,
}

impl<'w, V: Visitor + Watch> Walk<'w, V> {
    pub(crate) fn new(archive: &'w Archive, path: &[u8], visitor: &'w mut V) -> Self {
        let names = path.split(|byte| *byte == b'/').count();
        Self {
            archive,
            visitor,
            path: path.to_vec(),
            depth_above: if path.is_empty() { 0 } else { names },
            frames: Vec::new(),
            children: Vec::new(),
            spare: Vec::new(),
            ranges: Vec::new(),
            floor: Floor::default(),
        }
    }

    pub(crate) fn run(mut self, from: &Found) -> Result<()> {
        let row = Row::of_found(self.archive, from);
        let Some(below) = from.below else { return self.visitor.entry(&self.path, &row) };
        if self.visitor.enter(&self.path, &row)? == Descend::Skip {
            return Ok(());
        }
        self.open_directory(below, from.payload_start)?;
        while !self.frames.is_empty() {
            self.step()?;
        }
        self.visitor.leave(&self.path, &row)
    }

    /// Leaves a directory that is done and enters the next one; or reads the next piece; or closes the frame.
    fn step(&mut self) -> Result<()> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        self.path.truncate(frame.path_length);
        let Some(piece) = &frame.piece else { return self.next_piece() };
        if frame.open.is_none() && frame.next >= self.children.len() {
            return self.close_piece();
        }
        if frame.bytes.is_empty() {
            self.archive.source().read_table(piece.below.position, piece.below.length, &mut frame.bytes)?;
            piece.check_directory(&frame.bytes)?;
        }
        // One view serves the directory that is left and the one that is entered.
        let position = piece.below.position;
        let table = DirectoryTable::view(&frame.bytes).map_err(moved(position))?;
        if let Some(done) = frame.open.take().and_then(|index| self.children.get(index)) {
            push_name(&mut self.path, table.name(done.row));
            let row = (&table, done.row);
            let row = Row::of_table(self.archive, row, position, Some(&done.below), done.payload_start);
            self.visitor.leave(&self.path, &row)?;
            self.path.truncate(frame.path_length);
        }
        let Some(child) = self.children.get(frame.next) else { return Ok(()) };
        push_name(&mut self.path, table.name(child.row));
        let row = Row::of_table(
            self.archive,
            (&table, child.row),
            position,
            Some(&child.below),
            child.payload_start,
        );
        let descend = self.visitor.enter(&self.path, &row)?;
        let index = frame.next;
        frame.next += 1;
        match descend {
            Descend::Skip => {
                self.floor.pass(&child.below);
                self.visitor.skipped(&child.below);
                Ok(())
            }
            Descend::Enter => {
                frame.open = Some(index);
                let (below, payload_start) = (child.below, child.payload_start);
                self.open_directory(below, payload_start)
            }
        }
    }

    /// Opens the directory at the present path, unless what is below lies too deep. Spec: A-4-4.
    fn open_directory(&mut self, below: Below, payload_start: u64) -> Result<()> {
        let depth = self.depth_above + self.frames.len() + 1;
        if depth > limits::DEPTH_MAX && below.entries > 0 {
            self.floor.pass(&below);
            self.visitor.skipped(&below);
            let error = Error::limit("path depth", depth as u64, limits::DEPTH_MAX as u64);
            return self.visitor.damaged(&self.path, moved(below.position)(error));
        }
        let base = self.children.len();
        self.frames.push(Frame {
            pieces: Pieces::new(Piece::top(below, payload_start)),
            piece: None,
            bytes: self.spare.pop().unwrap_or_default(),
            base,
            next: base,
            open: None,
            path_length: self.path.len(),
        });
        Ok(())
    }

    fn close_piece(&mut self) -> Result<()> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        self.children.truncate(frame.base);
        frame.next = frame.base;
        if let Some(piece) = frame.piece.take() {
            self.floor.pass(&piece.below);
            self.visitor.passed(&piece);
            self.visitor.settle(&self.path)?;
        }
        Ok(())
    }

    /// Reads the next piece of the innermost directory, hands out its rows, and keeps its subdirectories for later.
    fn next_piece(&mut self) -> Result<()> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let source = self.archive.source();
        let next = frame.pieces.next_piece(source, &mut self.floor, self.visitor, &mut frame.bytes);
        self.visitor.settle(&self.path)?;
        let piece = match next {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                let frame = self.frames.pop();
                self.spare
                    .extend(frame.map(|frame| frame.bytes).filter(|bytes| bytes.capacity() <= SPARE_MAX));
                return Ok(());
            }
            Err(error) => return self.visitor.damaged(&self.path, error),
        };
        let bytes = std::mem::take(&mut frame.bytes);
        let result = self.rows(&piece, &bytes);
        if let Some(frame) = self.frames.last_mut() {
            frame.bytes = bytes;
            frame.piece = matches!(result, Ok(true)).then_some(piece);
        }
        self.let_go();
        result.map(|_| ())
    }

    /// Keeps no more than is allowed of what the walk will come back to.
    fn let_go(&mut self) {
        let kept: usize = self.frames.iter().map(Frame::kept).sum();
        if kept as u64 > self.archive.source().kept_max()
            && let Some((_, outer)) = self.frames.split_last_mut()
        {
            outer.iter_mut().for_each(Frame::let_go);
        }
    }

    /// Hands out the rows of a piece; says whether they could be had.
    fn rows(&mut self, piece: &Piece, bytes: &[u8]) -> Result<bool> {
        let base = self.children.len();
        let checked = piece.check_directory(bytes).and_then(|table| {
            check_lengths(&table, self.path.len()).map_err(moved(piece.below.position))?;
            collect_children(&table, piece, &mut self.children)?;
            Ok(table)
        });
        let table = match checked {
            Ok(table) => table,
            Err(error) => {
                self.children.truncate(base);
                self.floor.pass(&piece.below);
                self.visitor.skipped(&piece.below);
                self.visitor.damaged(&self.path, error)?;
                return Ok(false);
            }
        };
        self.visitor.directory(piece, &table);
        self.visitor.settle(&self.path)?;
        self.announce(base);
        let (position, path_length) = (piece.below.position, self.path.len());
        let mut payload_start = piece.payload_start;
        for row in 0..table.rows() {
            if table.is_directory(row) {
                continue;
            }
            push_name(&mut self.path, table.name(row));
            let of = Row::of_table(self.archive, (&table, row), position, None, payload_start);
            self.visitor.entry(&self.path, &of)?;
            self.path.truncate(path_length);
            payload_start = payload_start.saturating_add(table.payload_length(row));
        }
        for child in self.children.iter_mut().skip(base) {
            child.payload_start = payload_start;
            payload_start = payload_start.saturating_add(child.below.payload_length);
        }
        Ok(true)
    }

    /// Says which tables will be read next.
    fn announce(&mut self, base: usize) {
        if self.children.len() > base {
            self.ranges.clear();
            for child in self.children.iter().skip(base) {
                push_range(&mut self.ranges, &child.below);
            }
            self.archive.source().hint(&self.ranges);
        }
    }
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Checks that no name makes a path too long, in a directory whose path has `path_length` bytes. Spec: A-4-4.
fn check_lengths(table: &DirectoryTable<'_>, path_length: usize) -> Result<()> {
    if path_length < limits::PATH_LENGTH_MAX - limits::NAME_LENGTH_MAX {
        return Ok(());
    }
    let longest = (0..table.rows()).map(|row| table.name(row).len()).max().unwrap_or(0);
    let (length, most) = ((path_length + 1 + longest) as u64, limits::PATH_LENGTH_MAX as u64);
    if length > most {
        return Err(Error::limit("path length", length, most));
    }
    Ok(())
}

/// Lists the subdirectories of a piece.
fn collect_children(table: &DirectoryTable<'_>, piece: &Piece, children: &mut Vec<Child>) -> Result<()> {
    for (row, reference, entries) in table.directories() {
        let below = Below {
            position: reference.resolve(piece.below.position)?,
            length: reference.length,
            digest: table.digest(row),
            payload_length: table.payload_length(row),
            entries,
        };
        children.push(Child { row, below, payload_start: 0 });
    }
    Ok(())
}
