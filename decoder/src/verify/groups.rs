//! Whether the link table fits the tree.
//!
//! Spec: archive.md section 7.3.

use std::collections::HashMap;

use diptych_format::error::{Error, Result, Stream};
use diptych_format::table::LinkTable;
use diptych_format::{Digest, Kind};

use crate::archive::Archive;
use crate::finder::Finder;

/// Groups of links of which not all paths were seen. Paths ascend, so that the first of a group comes first.
pub(super) struct Groups<'a> {
    archive: &'a Archive,
    finder: Finder<'a>,
    open: HashMap<Box<[u8]>, Group>,
    /// Whether tables are known to be damaged: then what cannot be looked up is no news.
    is_damaged: bool,
}

struct Group {
    count: u64,
    seen: u64,
    /// Nothing where the tree could not be read.
    what: Option<What>,
}

type What = (Kind, u64, Digest);

impl<'a> Groups<'a> {
    pub(super) fn new(archive: &'a Archive, is_damaged: bool) -> Self {
        Self { archive, finder: Finder::new(archive), open: HashMap::new(), is_damaged }
    }

    /// Takes the next row; adds what is wrong with it to `faults`.
    pub(super) fn row(&mut self, table: &LinkTable<'_>, row: usize, faults: &mut Vec<Error>) {
        let (path, first, count) = (table.path(row), table.first(row), table.count(row));
        let found = self
            .finder
            .find(path, |table, row, _| Ok((table.kind(row)?, table.size(row), table.digest(row))));
        let what = match found {
            Ok(Some(what)) => Some(what),
            Ok(None) => {
                faults.push(self.fault("a path of the link table is not in the archive"));
                None
            }
            Err(_) if self.is_damaged => None,
            Err(error) => {
                faults.push(error);
                None
            }
        };
        if what.is_some_and(|(kind, ..)| kind == Kind::Directory) {
            faults.push(self.fault("a directory stands in the link table"));
        }
        if first.is_empty() {
            // Paths that lead nowhere, of which a table can hold any number, are told and not kept.
            if what.is_some() || self.is_damaged {
                self.open.insert(path.into(), Group { count, seen: 1, what });
            }
            return;
        }
        let Some(group) = self.open.get_mut(first) else {
            faults.push(
                self.fault("the first path of a group of links is not in the link table, or not its first"),
            );
            return;
        };
        group.seen += 1;
        let is_same = group.count == count
            && match (group.what, what) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            };
        if group.seen == group.count {
            self.open.remove(first);
        }
        if !is_same {
            faults.push(
                self.fault("paths of a group of links lead to different contents, or count them differently"),
            );
        }
    }

    /// All rows have come: reports the groups of which some did not.
    pub(super) fn finish(mut self, report: &mut dyn FnMut(&[u8], Error) -> Result<()>) -> Result<()> {
        let open = std::mem::take(&mut self.open);
        let mut firsts: Vec<Box<[u8]>> = open.into_keys().collect();
        firsts.sort_unstable();
        let what = "a group of links has fewer paths than it says";
        firsts.iter().try_for_each(|first| report(first, self.fault(what)))
    }

    fn fault(&self, what: &str) -> Error {
        Error::corrupt(what).at(Stream::Metadata, self.archive.links_top().1.below.position)
    }
}
