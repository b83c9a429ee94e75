//! Which paths of an archive are names of one inode, for jobs that ask of every entry.
//!
//! The archive's link table answers as well, but reads a piece of it for each question. Here each path is a key of
//! 16 bytes of its digest, so that even millions of links take little memory.

use std::collections::HashMap;

use diptych_decoder::{Archive, Links};
use diptych_format::{Digest, Result};

/// What stands for a path: the first half of its digest.
pub type PathKey = [u8; 16];

/// The group of names that an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The key of its least path.
    pub first: PathKey,
    /// Paths in it.
    pub count: u64,
}

/// The link table in memory.
#[derive(Default)]
pub struct LinkIndex {
    groups: HashMap<PathKey, Group>,
    links: Option<Links>,
}

impl LinkIndex {
    /// Reads the link table of `archive`.
    pub fn load(archive: &Archive) -> Result<Self> {
        let links = archive.links();
        let mut groups = HashMap::new();
        links.for_each(&mut |path, first, count| {
            groups.insert(key_of(path), Group { first: key_of(first), count });
            Ok(())
        })?;
        Ok(Self { groups, links: Some(links) })
    }

    /// The group that `path` belongs to, if its inode has another name.
    pub fn group_of(&self, path: &[u8]) -> Option<Group> {
        if self.groups.is_empty() { None } else { self.groups.get(&key_of(path)).copied() }
    }

    /// The least path of the group that `path` belongs to, if that is another one.
    pub fn first_of(&self, path: &[u8]) -> Result<Option<Box<[u8]>>> {
        match (&self.links, self.group_of(path)) {
            (Some(links), Some(_)) => Ok(links.find(path)?.and_then(|link| link.first)),
            _ => Ok(None),
        }
    }

    /// Calls `visit` with each path that is a name of an inode with others.
    pub fn for_each(&self, visit: &mut dyn FnMut(&[u8], Group)) -> Result<()> {
        let Some(links) = self.links.as_ref().filter(|_| !self.groups.is_empty()) else { return Ok(()) };
        links.for_each(&mut |path, first, count| {
            visit(path, Group { first: key_of(first), count });
            Ok(())
        })
    }

    /// Number of paths that are names of an inode with others.
    pub fn len(&self) -> usize {
        self.groups.len()
    }
}

/// The key of a path.
pub fn key_of(path: &[u8]) -> PathKey {
    let Digest(digest) = Digest::of(path);
    let (half, _) = digest.split_at(16);
    half.try_into().unwrap_or_default()
}
