//! `find`: the entries of snapshots whose names match, without reading what an earlier snapshot had as well.
//!
//! The digest of a directory stands for everything below it. So what was found in one is found at once wherever it comes
//! again: a search through a hundred snapshots reads little more than one through the first.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use diptych_decoder::{Archive, Descend, Row, Visitor};
use diptych_format::{Digest, Error as FormatError, Kind, Result as FormatResult, Time};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::names::join;
use crate::progress::Losses;

/// How much is remembered of what was found: some 100 MB. What does not fit is read again where it comes again.
const REMEMBERED_MAX: usize = 1 << 20;

/// What is looked for.
pub struct Patterns {
    /// Of names, wherever they are.
    names: GlobSet,
    /// Of whole paths.
    paths: GlobSet,
}

impl Patterns {
    /// Reads patterns: * ? [...] {a,b} match within a name, ** across names. One without a slash is compared with names
    /// alone, one with a slash with paths as they were on the source.
    pub fn new(patterns: &[String], ignores_case: bool) -> Result<Self> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let is_path = pattern.contains('/');
            let glob =
                GlobBuilder::new(pattern).literal_separator(true).case_insensitive(ignores_case).build();
            let glob =
                glob.map_err(|error| Error::Usage(format!("{pattern:?} is no pattern: {}", error.kind())))?;
            if is_path {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        let built = |set: GlobSetBuilder| {
            set.build().map_err(|error| Error::Usage(format!("the patterns cannot be used: {error}")))
        };
        Ok(Self { names: built(names)?, paths: built(paths)? })
    }

    fn take(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        self.names.is_match(std::ffi::OsStr::from_bytes(name))
            || !self.paths.is_empty() && self.paths.is_match(std::ffi::OsStr::from_bytes(path))
    }
}

/// An entry that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Where it was on the source.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Length of its content; 0 of all but files.
    pub size: u64,
    /// When it last changed.
    pub mtime: Time,
}

/// Searches archives one after another, and remembers what it found where.
pub struct Finder<'p> {
    patterns: &'p Patterns,
    /// What matches below a directory, by its digest and, where paths are compared, its own path.
    known: HashMap<(Digest, Vec<u8>), Arc<Below>>,
    /// How much of it there is.
    remembered: usize,
}

/// What matches below a directory: a tree, for the same directory may come again and again, in itself as well.
#[derive(Default)]
struct Below {
    entries: Vec<Remembered>,
}

/// An entry that matches, or has something below it that does.
struct Remembered {
    name: Vec<u8>,
    found: Option<Found>,
    below: Arc<Below>,
}

/// What is told of an entry that matches.
#[derive(Clone, Copy)]
struct Found {
    kind: Kind,
    size: u64,
    mtime: Time,
}

impl<'p> Finder<'p> {
    /// Looks for `patterns`.
    pub fn new(patterns: &'p Patterns) -> Self {
        Self { patterns, known: HashMap::new(), remembered: 0 }
    }

    /// Tells `each` what matches in an archive, in its order; `source` is the path of its root on the source. What cannot
    /// be read is reported. The first error of `each` ends the search.
    pub fn search(
        &mut self,
        archive: &Archive,
        source: &[u8],
        losses: &Losses<'_>,
        each: &mut dyn FnMut(&Match) -> Result<()>,
    ) -> Result<()> {
        // Joined to a name, the path of the root of all would have a slash too many.
        let (lead, source): (&[u8], &[u8]) = if source == b"/" { (b"/", b"") } else { (b"", source) };
        let mut search = Search { finder: self, lead, open: Vec::new(), losses, each, failure: None };
        let walked = archive.walk(&archive.root()?, source, &mut search);
        match search.failure {
            Some(error) => Err(error),
            None => Ok(walked?),
        }
    }

    fn key(&self, path: &[u8], digest: Digest) -> (Digest, Vec<u8>) {
        (digest, if self.patterns.paths.is_empty() { Vec::new() } else { path.to_vec() })
    }
}

struct Search<'s, 'p> {
    finder: &'s mut Finder<'p>,
    /// What stands before each path.
    lead: &'s [u8],
    open: Vec<Open>,
    losses: &'s Losses<'s>,
    each: &'s mut dyn FnMut(&Match) -> Result<()>,
    /// What ended the search.
    failure: Option<Error>,
}

/// A directory that is being searched.
struct Open {
    /// What it is itself, if it matches.
    found: Option<Found>,
    below: Below,
    /// Whether all of it could be read, and is remembered.
    is_whole: bool,
}

impl Search<'_, '_> {
    fn test(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<Option<Found>> {
        if !self.finder.patterns.take(&[self.lead, path].concat()) {
            return Ok(None);
        }
        let found = Found { kind: row.kind(), size: row.size(), mtime: row.mtime() };
        self.tell(path, found)?;
        Ok(Some(found))
    }

    fn tell(&mut self, path: &[u8], found: Found) -> FormatResult<()> {
        let Found { kind, size, mtime } = found;
        let told = (self.each)(&Match { path: [self.lead, path].concat(), kind, size, mtime });
        told.map_err(|error| {
            self.failure = Some(error);
            // Nobody reads it: it ends the walk.
            FormatError::missing("the search has ended")
        })
    }

    fn tell_below(&mut self, path: &[u8], below: &Below) -> FormatResult<()> {
        for entry in &below.entries {
            let path = join(path, &entry.name);
            if let Some(found) = entry.found {
                self.tell(&path, found)?;
            }
            self.tell_below(&path, &entry.below)?;
        }
        Ok(())
    }

    /// Remembers what was found at `path` in the directory that is open, as far as there is room.
    fn remember(&mut self, path: &[u8], found: Option<Found>, below: Arc<Below>) {
        let Some(open) = self.open.last_mut() else { return };
        if found.is_none() && below.entries.is_empty() {
            return;
        }
        if self.finder.remembered >= REMEMBERED_MAX {
            open.is_whole = false;
            return;
        }
        self.finder.remembered += 1;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
        open.below.entries.push(Remembered { name, found, below });
    }
}

impl Visitor for Search<'_, '_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<Descend> {
        let found = self.test(path, row)?;
        if let Some(below) = self.finder.known.get(&self.finder.key(path, row.digest())).cloned() {
            self.tell_below(path, &below)?;
            self.remember(path, found, below);
            return Ok(Descend::Skip);
        }
        self.open.push(Open { found, below: Below::default(), is_whole: true });
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        let found = self.test(path, row)?;
        self.remember(path, found, Arc::default());
        Ok(())
    }

    fn leave(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        if open.is_whole {
            let below = Arc::new(open.below);
            if self.finder.known.len() < REMEMBERED_MAX {
                self.finder.known.insert(self.finder.key(path, row.digest()), below.clone());
            }
            self.remember(path, open.found, below);
        } else if let Some(above) = self.open.last_mut() {
            above.is_whole = false;
        }
        Ok(())
    }

    fn damaged(&mut self, path: &[u8], error: FormatError) -> FormatResult<()> {
        if let Some(open) = self.open.last_mut() {
            open.is_whole = false;
        }
        self.losses.loss(path, format!("what is in it cannot be searched: {error}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn takes(patterns: &[&str], ignores_case: bool, cases: &[(&str, bool)]) {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let patterns = Patterns::new(&patterns, ignores_case).unwrap();
        for (path, expected) in cases {
            assert_eq!(patterns.take(path.as_bytes()), *expected, "{path}");
        }
    }

    #[test]
    fn a_pattern_without_a_slash_is_of_names() {
        takes(
            &["*.rs", "[ab]"],
            false,
            &[("/x/y.rs", true), ("/x.rs/y", false), ("/a", true), ("/x/A", false)],
        );
        takes(&["*.RS"], true, &[("/x/y.rs", true)]);
    }

    #[test]
    fn a_pattern_with_a_slash_is_of_paths() {
        let cases = [("/x/a.rs", true), ("/x/y/a.rs", false), ("/z/x/a.rs", false), ("a.rs", false)];
        takes(&["/x/*.rs"], false, &cases);
        takes(&["**/y/*.rs"], false, &[("/x/y/a.rs", true), ("/x/a.rs", false)]);
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        let error = Patterns::new(&["a[b".to_owned()], false).err().unwrap().to_string();
        assert!(error.contains("unclosed character class"), "{error}");
    }
}
