//! The link table: which paths are names of one inode.
//!
//! Spec: archive.md section 7.3.

use diptych_format::error::Result;
use diptych_format::table::{LinkTable, TableKind, kind_of};

use crate::archive::Archive;
use crate::pieces::{Floor, Piece, Pieces, Watch};
use crate::source::moved;

/// What the link table says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The least path of the group; nothing if it is the path itself.
    pub first: Option<Box<[u8]>>,
    /// Paths in the group.
    pub count: u64,
}

/// Takes a path, the least path of its group, and the number of paths in the group.
pub type LinkVisitor<'v> = dyn FnMut(&[u8], &[u8], u64) -> Result<()> + 'v;

/// The link table of an archive.
#[derive(Clone)]
pub struct Links {
    archive: Archive,
}

impl Links {
    pub(crate) fn new(archive: Archive) -> Self {
        Self { archive }
    }

    /// Whether no inode has more than one path. Reads nothing.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.archive.links_top().1.below.entries == 0)
    }

    /// Number of paths in the table. Reads nothing.
    pub fn paths(&self) -> u64 {
        self.archive.links_top().1.below.entries
    }

    /// What the table says of `path`: nothing if its inode has no other. Reads one table of each level below the top.
    pub fn find(&self, path: &[u8]) -> Result<Option<Link>> {
        let (bytes, top) = self.archive.links_top();
        let at_top = moved(top.below.position);
        if kind_of(bytes).map_err(&at_top)? != TableKind::Index {
            return Ok(find_in(&LinkTable::view(bytes).map_err(at_top)?, path));
        }
        let mut buffer = Vec::new();
        let Some(piece) = self.archive.piece_for(top.clone(), path, &mut buffer)? else { return Ok(None) };
        Ok(find_in(&piece.check_links(&buffer)?, path))
    }

    /// The part of the table that `path` is in, if it is in any: for who asks for many paths that come in order.
    pub fn part_for(&self, path: &[u8]) -> Result<Option<LinkPart>> {
        let (bytes, top) = self.archive.links_top();
        if kind_of(bytes).map_err(moved(top.below.position))? != TableKind::Index {
            return Ok(Some(LinkPart { piece: top.clone(), bytes: bytes.into() }));
        }
        let mut buffer = Vec::new();
        let Some(piece) = self.archive.piece_for(top.clone(), path, &mut buffer)? else { return Ok(None) };
        piece.check_links(&buffer)?;
        Ok(Some(LinkPart { piece, bytes: buffer.into() }))
    }

    /// Calls `visit` for each path, ascending, with the least path of its group (itself, if it is that one) and the
    /// number of paths in the group.
    pub fn for_each(&self, visit: &mut LinkVisitor<'_>) -> Result<()> {
        self.for_each_piece(&mut (), &mut |table| {
            (0..table.rows()).try_for_each(|row| {
                let path = table.path(row);
                let first = match table.first(row) {
                    [] => path,
                    first => first,
                };
                visit(path, first, table.count(row))
            })
        })
    }

    pub(crate) fn for_each_piece(
        &self,
        watch: &mut impl Watch,
        visit: &mut dyn FnMut(&LinkTable<'_>) -> Result<()>,
    ) -> Result<()> {
        let (_, top) = self.archive.links_top();
        let mut pieces = Pieces::new(top.clone());
        let (mut floor, mut buffer) = (Floor::default(), Vec::new());
        while let Some(piece) = pieces.next_piece(self.archive.source(), &mut floor, watch, &mut buffer)? {
            let table = piece.check_links(&buffer)?;
            watch.links(&piece, &table);
            visit(&table)?;
            floor.pass(&piece.below);
            watch.passed(&piece);
        }
        Ok(())
    }
}

/// A part of a link table, checked and kept.
pub struct LinkPart {
    piece: Piece,
    bytes: Box<[u8]>,
}

impl LinkPart {
    /// Whether `path` is in this part, if it is in the table at all.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.piece.covers(path)
    }

    /// What it says of `path`.
    pub fn find(&self, path: &[u8]) -> Result<Option<Link>> {
        let table = LinkTable::view(&self.bytes).map_err(moved(self.piece.below.position))?;
        Ok(find_in(&table, path))
    }
}

fn find_in(table: &LinkTable<'_>, path: &[u8]) -> Option<Link> {
    let row = table.find(path)?;
    let first = table.first(row);
    Some(Link { first: (!first.is_empty()).then(|| first.into()), count: table.count(row) })
}
