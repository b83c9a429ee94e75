//! Files below directories that were moved: their inodes are the same, their paths are not.

use std::collections::HashMap;

use diptych_decoder::{Archive, Descend, Found, Row, Visitor};
use diptych_format::Result;

/// Where in the base each inode is. An inode and a number take 16 bytes, so that a million files take 16 MB.
pub(super) struct Moved {
    /// Inodes, ascending, and the number of the directory that has them.
    inodes: Vec<(u64, u32)>,
    /// Paths of directories.
    directories: Vec<Box<[u8]>>,
    /// The rows of the directory that was asked for last, by inode: what was moved comes together.
    open: Option<(u32, HashMap<u64, Found>)>,
}

impl Moved {
    /// Goes through the base.
    pub(super) fn of(archive: &Archive) -> Result<Self> {
        let mut moved = Self { inodes: Vec::new(), directories: Vec::new(), open: None };
        let mut collector = Collector { moved: &mut moved, path: Vec::new() };
        archive.walk(&archive.root()?, b"", &mut collector)?;
        moved.inodes.sort_unstable();
        Ok(moved)
    }

    /// The row of an inode, of whatever name.
    pub(super) fn find(&mut self, archive: &Archive, inode: u64) -> Result<Option<Found>> {
        let place = self.inodes.partition_point(|(found, _)| *found < inode);
        let Some((_, directory)) = self.inodes.get(place).filter(|(found, _)| *found == inode).copied()
        else {
            return Ok(None);
        };
        if self.open.as_ref().is_none_or(|(number, _)| *number != directory) {
            let path = self.directories.get(directory as usize).map_or(&[][..], |path| path);
            let children = match archive.lookup(path)? {
                Some(found) => archive.children(&found)?,
                None => Vec::new(),
            };
            let rows = children.into_iter().filter(|row| !row.is_directory());
            self.open = Some((directory, rows.map(|row| (row.entry.change.inode, row)).collect()));
        }
        Ok(self.open.as_mut().and_then(|(_, rows)| rows.remove(&inode)))
    }
}

struct Collector<'m> {
    moved: &'m mut Moved,
    /// Numbers of the directories that are open.
    path: Vec<u32>,
}

impl Visitor for Collector<'_> {
    fn enter(&mut self, path: &[u8], _: &Row<'_>) -> Result<Descend> {
        // Beyond 2^32 directories none is found, which costs a reading.
        self.path.push(u32::try_from(self.moved.directories.len()).unwrap_or(u32::MAX));
        self.moved.directories.push(path.into());
        Ok(Descend::Enter)
    }

    fn entry(&mut self, _: &[u8], row: &Row<'_>) -> Result<()> {
        let directory = self.path.last().copied().unwrap_or(u32::MAX);
        self.moved.inodes.push((row.change().inode, directory));
        Ok(())
    }

    fn leave(&mut self, _: &[u8], _: &Row<'_>) -> Result<()> {
        self.path.pop();
        Ok(())
    }
}
