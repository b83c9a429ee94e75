//! What of an archive is extracted: all of it, or what stands at one path.

use std::sync::Arc;

use diptych_decoder::{Archive, Found, Visitor};
use diptych_repository::StreamReader;

use crate::error::Result;
use crate::links::LinkIndex;
use crate::open::OpenArchive;

/// A directory of an archive that becomes a target, or an entry that goes into one.
pub struct Part<'a> {
    /// The archive.
    pub archive: &'a Archive,
    /// Its payload stream.
    pub payload: Arc<StreamReader>,
    /// Its hard links.
    pub links: LinkIndex,
    /// What is extracted.
    pub found: Found,
    path: Vec<u8>,
    /// How much of paths is above the target, the slash counted.
    above: usize,
}

impl<'a> Part<'a> {
    /// The part at `path`, told from the archive's root; none if nothing is there.
    pub fn open(open: &'a OpenArchive, path: &[u8]) -> Result<Option<Self>> {
        let Some(found) = open.archive.lookup(path)? else { return Ok(None) };
        let above = match path.iter().rposition(|byte| *byte == b'/') {
            _ if path.is_empty() => 0,
            _ if found.is_directory() => path.len() + 1,
            Some(slash) => slash + 1,
            None => 0,
        };
        let links = LinkIndex::load(&open.archive)?;
        let payload = open.payload()?;
        Ok(Some(Self { archive: &open.archive, payload, links, found, path: path.to_vec(), above }))
    }

    /// The path below the target of what has a path in the archive; none for what is elsewhere.
    pub fn below<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        if path == self.path && self.found.is_directory() {
            return Some(b"");
        }
        let is_inside = path == self.path
            || self.path.is_empty()
            || path.strip_prefix(&self.path[..]).is_some_and(|rest| rest.starts_with(b"/"));
        path.get(self.above..).filter(|_| is_inside)
    }

    /// The same of a path that is inside.
    pub fn inside<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.above..).unwrap_or_default()
    }

    /// Whether it is the whole archive.
    pub fn is_whole(&self) -> bool {
        self.path.is_empty()
    }

    /// Goes through it.
    pub fn walk(&self, visitor: &mut dyn Visitor) -> diptych_format::Result<()> {
        self.archive.walk(&self.found, &self.path, visitor)
    }
}
