//! A row as visitors see it: read where it lies, at no cost but for what is asked.

use diptych_format::error::{Error, Result};
use diptych_format::table::{Below, DirectoryTable};
use diptych_format::{Change, Digest, Entry, Holds, Kind, Status, Time};

use crate::archive::Archive;
use crate::content::ContentMap;
use crate::found::Found;
use crate::pieces::Piece;

/// An entry in its table. Nothing allocates but [`Row::to_entry`], [`Row::found`] and [`Row::content`], which
/// may also read a hole table or a value table.
pub struct Row<'t> {
    archive: &'t Archive,
    of: Of<'t>,
    payload_start: u64,
}

#[derive(Clone, Copy)]
enum Of<'t> {
    Table { table: &'t DirectoryTable<'t>, row: usize, position: u64, below: Option<&'t Below> },
    Found(&'t Found),
}

impl<'t> Row<'t> {
    /// Row `row` of a table that stands at `position`.
    pub(crate) fn of_table(
        archive: &'t Archive,
        (table, row): (&'t DirectoryTable<'t>, usize),
        position: u64,
        below: Option<&'t Below>,
        payload_start: u64,
    ) -> Self {
        Self { archive, of: Of::Table { table, row, position, below }, payload_start }
    }

    /// What was looked up, as a row.
    pub(crate) fn of_found(archive: &'t Archive, found: &'t Found) -> Self {
        Self { archive, of: Of::Found(found), payload_start: found.payload_start }
    }

    /// Name in its directory; empty for the root.
    pub fn name(&self) -> &'t [u8] {
        match self.of {
            Of::Table { table, row, .. } => table.name(row),
            Of::Found(found) => found.entry.name.as_bytes(),
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        // The type bits were checked with the table.
        Kind::from_mode(self.mode()).unwrap_or(Kind::File)
    }

    /// Type and permission bits.
    pub fn mode(&self) -> u32 {
        match self.of {
            Of::Table { table, row, .. } => table.mode(row),
            Of::Found(found) => found.entry.attributes.mode,
        }
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        match self.of {
            Of::Table { table, row, .. } => table.uid(row),
            Of::Found(found) => found.entry.attributes.uid,
        }
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        match self.of {
            Of::Table { table, row, .. } => table.gid(row),
            Of::Found(found) => found.entry.attributes.gid,
        }
    }

    /// Length of a content, holes counted; 0 for all else.
    pub fn size(&self) -> u64 {
        match self.of {
            Of::Table { table, row, .. } => table.size(row),
            Of::Found(found) => match found.entry.holds {
                Holds::Content { size, .. } => size,
                _ => 0,
            },
        }
    }

    /// When content or directory last changed.
    pub fn mtime(&self) -> Time {
        match self.of {
            Of::Table { table, row, .. } => table.mtime(row),
            Of::Found(found) => found.entry.mtime,
        }
    }

    /// Digest of a content or of a directory; zeros for all else.
    pub fn digest(&self) -> Digest {
        match self.of {
            Of::Table { table, row, .. } => table.digest(row),
            Of::Found(found) => match found.entry.holds {
                Holds::Content { digest, .. } | Holds::Entries { digest } => digest,
                _ => Digest::NONE,
            },
        }
    }

    /// Target of a symbolic link; empty for all else.
    pub fn target(&self) -> &'t [u8] {
        match self.of {
            Of::Table { table, row, .. } => table.target(row),
            Of::Found(found) => match &found.entry.holds {
                Holds::Target(target) => target,
                _ => &[],
            },
        }
    }

    /// Major and minor number of a device; zeros for all else.
    pub fn device(&self) -> (u32, u32) {
        match self.of {
            Of::Table { table, row, .. } => match self.kind() {
                Kind::BlockDevice | Kind::CharDevice => table.device(row),
                _ => (0, 0),
            },
            Of::Found(found) => match found.entry.holds {
                Holds::Device { major, minor } => (major, minor),
                _ => (0, 0),
            },
        }
    }

    /// How faithfully it was captured.
    pub fn status(&self) -> Status {
        match self.of {
            Of::Table { table, row, .. } => table.status(row),
            Of::Found(found) => found.entry.status,
        }
    }

    /// What the scan saw of the inode.
    pub fn change(&self) -> Change {
        match self.of {
            Of::Table { table, row, .. } => table.change(row),
            Of::Found(found) => found.entry.change,
        }
    }

    /// Where its payload starts in the payload stream.
    pub fn payload_start(&self) -> u64 {
        self.payload_start
    }

    /// Payload of a content, or of all below a directory.
    pub fn payload_length(&self) -> u64 {
        match self.of {
            Of::Table { table, row, .. } => table.payload_length(row),
            Of::Found(found) => found.payload_length,
        }
    }

    /// Whether it has extended attributes.
    pub fn has_xattrs(&self) -> bool {
        match self.of {
            Of::Table { table, row, .. } => table.has_xattrs(row),
            Of::Found(found) => !found.entry.attributes.xattrs.is_empty(),
        }
    }

    /// Whether its content has holes.
    pub fn has_holes(&self) -> bool {
        match self.of {
            Of::Table { table, row, .. } => table.holes(row).is_some(),
            Of::Found(found) => !found.entry.holes.is_empty(),
        }
    }

    /// Entries below a directory, at any depth; 0 for all else.
    pub fn entries_below(&self) -> u64 {
        self.below().map_or(0, |below| below.entries)
    }

    /// The entry, complete.
    pub fn to_entry(&self) -> Result<Entry> {
        match self.of {
            Of::Table { table, row, position, .. } => self.archive.source().entry(table, row, position),
            Of::Found(found) => Ok(found.entry.clone()),
        }
    }

    /// The entry, complete, with what it takes to go on from there.
    pub fn found(&self) -> Result<Found> {
        Ok(Found {
            entry: self.to_entry()?,
            payload_start: self.payload_start,
            payload_length: self.payload_length(),
            below: self.below(),
        })
    }

    /// Where the bytes of its content are; reads the hole table alone.
    pub fn content(&self) -> Result<ContentMap> {
        match self.of {
            Of::Table { table, row, position, .. } => {
                if self.kind() != Kind::File {
                    return Err(no_content());
                }
                let holes = self.archive.source().holes(table, row, position)?;
                let what = (table.size(row), table.digest(row));
                ContentMap::new(what, &holes, table.status(row), self.payload_start)
            }
            Of::Found(found) => self.archive.content(found),
        }
    }

    fn below(&self) -> Option<Below> {
        match self.of {
            Of::Table { below, .. } => below.copied(),
            Of::Found(found) => found.below,
        }
    }
}

pub(crate) fn no_content() -> Error {
    Error::missing("an entry that is no regular file has no content")
}

/// The top table of the directory at `row` of `table`, which is `piece`; nothing for other kinds.
pub(crate) fn below_of(table: &DirectoryTable<'_>, row: usize, piece: &Piece) -> Result<Option<Below>> {
    let index = table.directories().position(|(found, ..)| found == row);
    index.map(|index| below_of_nth(table, (index, row), piece)).transpose()
}

/// The top table of a directory, by its number among the directories of `table` and its row.
pub(crate) fn below_of_nth(
    table: &DirectoryTable<'_>,
    (index, row): (usize, usize),
    piece: &Piece,
) -> Result<Below> {
    let (reference, entries) = table.nth_directory(index);
    Ok(Below {
        position: reference.resolve(piece.below.position)?,
        length: reference.length,
        digest: table.digest(row),
        payload_length: table.payload_length(row),
        entries,
    })
}

/// Where the payload of `row` of `table` starts, which is `piece`. Spec: A-9-2.
pub(crate) fn payload_start_of(table: &DirectoryTable<'_>, row: usize, piece: &Piece) -> u64 {
    let is_directory = table.is_directory(row);
    let before = (0..table.rows()).filter(|other| match table.is_directory(*other) {
        same if same == is_directory => *other < row,
        is_other_directory => !is_other_directory,
    });
    before.fold(piece.payload_start, |sum, other| sum.saturating_add(table.payload_length(other)))
}
