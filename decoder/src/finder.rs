//! Looking paths up, one after another: the tables along the last path are kept, so that paths which come in
//! order read most tables once.
//!
//! Spec: archive.md sections 7.2 and 14.

use diptych_format::error::Result;
use diptych_format::limits;
use diptych_format::table::DirectoryTable;

use crate::archive::Archive;
use crate::pieces::Piece;
use crate::row::{below_of, payload_start_of};
use crate::source::moved;

/// A directory along the last path.
struct Level {
    /// Length of its own path.
    path_length: usize,
    top: Piece,
    /// The piece that was looked in last, checked.
    piece: Option<Piece>,
    bytes: Vec<u8>,
}

/// Looks paths up in an archive.
pub(crate) struct Finder<'a> {
    archive: &'a Archive,
    path: Vec<u8>,
    levels: Vec<Level>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(archive: &'a Archive) -> Self {
        Self { archive, path: Vec::new(), levels: Vec::new() }
    }

    /// What `take` makes of the row at `path`, which is not the root's.
    pub(crate) fn find<T>(
        &mut self,
        path: &[u8],
        take: impl FnOnce(&DirectoryTable<'_>, usize, &Piece) -> Result<T>,
    ) -> Result<Option<T>> {
        let depth = path.split(|byte| *byte == b'/').count();
        if path.len() > limits::PATH_LENGTH_MAX || depth > limits::DEPTH_MAX {
            return Ok(None);
        }
        self.keep_common(path);
        if self.levels.is_empty() {
            self.push(0, self.archive.root_top()?);
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let rest = match level.path_length {
                0 => path,
                length => path.get(length + 1..).unwrap_or(&[]),
            };
            let end = rest.iter().position(|byte| *byte == b'/');
            let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or(&[]);
            if !level.load(self.archive, name)? {
                return Ok(None);
            }
            let Some(piece) = &level.piece else { return Ok(None) };
            let table = DirectoryTable::view(&level.bytes).map_err(moved(piece.below.position))?;
            let Some(row) = table.find(name) else { return Ok(None) };
            if end.is_none() {
                return take(&table, row, piece).map(Some);
            }
            let Some(below) = below_of(&table, row, piece)? else { return Ok(None) };
            let top = Piece::top(below, payload_start_of(&table, row, piece));
            let path_length = path.len() - rest.len() + name.len();
            self.path.clear();
            self.path.extend_from_slice(path.get(..path_length).unwrap_or(&[]));
            self.push(path_length, top);
        }
    }

    /// Forgets the directories that do not lead to `path`.
    fn keep_common(&mut self, path: &[u8]) {
        while let Some(level) = self.levels.last() {
            let leads = match level.path_length {
                0 => true,
                length => path.get(..length) == self.path.get(..length) && path.get(length) == Some(&b'/'),
            };
            if leads {
                return;
            }
            self.levels.pop();
        }
    }

    fn push(&mut self, path_length: usize, top: Piece) {
        self.levels.push(Level { path_length, top, piece: None, bytes: Vec::new() });
    }
}

impl Level {
    /// Has the piece for `name` in `bytes`; says whether there is one.
    fn load(&mut self, archive: &Archive, name: &[u8]) -> Result<bool> {
        if self.piece.as_ref().is_some_and(|piece| piece.covers(name)) {
            return Ok(true);
        }
        self.piece = None;
        let Some(piece) = archive.piece_for(self.top.clone(), name, &mut self.bytes)? else {
            return Ok(false);
        };
        piece.check_directory(&self.bytes)?;
        self.piece = Some(piece);
        Ok(true)
    }
}
