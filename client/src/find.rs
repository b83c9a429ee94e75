//! `find`: the entries of snapshots whose names match, without reading what an earlier snapshot had as well.
//!
//! The digest of a directory stands for everything below it. So what was found in one is found at once wherever it comes
//! again: a search through a hundred snapshots reads little more than one through the first.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use diptych_decoder::{Archive, Descend, Row, Visitor};
use diptych_format::{Digest, Error as FormatError, Kind, Result as FormatResult, Time};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::names::join;
use crate::progress::Losses;

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
    /// What matches below a directory, paths told from it, by its digest and, where paths are compared, its own path.
    known: HashMap<(Digest, Vec<u8>), Vec<Match>>,
}

impl<'p> Finder<'p> {
    /// Looks for `patterns`.
    pub fn new(patterns: &'p Patterns) -> Self {
        Self { patterns, known: HashMap::new() }
    }

    /// What matches in an archive, in its order; `source` is the path of its root on the source. What cannot be read is
    /// reported.
    pub fn search(&mut self, archive: &Archive, source: &[u8], losses: &Losses<'_>) -> Result<Vec<Match>> {
        // Joined to a name, the path of the root of all would have a slash too many.
        let (lead, source): (&[u8], &[u8]) = if source == b"/" { (b"/", b"") } else { (b"", source) };
        let mut search = Search { finder: self, lead, open: Vec::new(), found: Vec::new(), losses };
        archive.walk(&archive.root()?, source, &mut search)?;
        let mut found = search.found;
        for found in found.iter_mut().filter(|_| !lead.is_empty()) {
            found.path.splice(..0, lead.iter().copied());
        }
        Ok(found)
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
    found: Vec<Match>,
    losses: &'s Losses<'s>,
}

/// A directory that is being searched.
struct Open {
    /// Where what is found in it begins.
    first: usize,
    /// Whether all of it could be read.
    is_whole: bool,
}

impl Search<'_, '_> {
    fn test(&mut self, path: &[u8], row: &Row<'_>) {
        if self.finder.patterns.take(&[self.lead, path].concat()) {
            let (kind, size, mtime) = (row.kind(), row.size(), row.mtime());
            self.found.push(Match { path: path.to_vec(), kind, size, mtime });
        }
    }
}

impl Visitor for Search<'_, '_> {
    fn enter(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<Descend> {
        self.test(path, row);
        if let Some(known) = self.finder.known.get(&self.finder.key(path, row.digest())) {
            let here = known.iter().map(|found| Match { path: join(path, &found.path), ..found.clone() });
            self.found.extend(here);
            return Ok(Descend::Skip);
        }
        self.open.push(Open { first: self.found.len(), is_whole: true });
        Ok(Descend::Enter)
    }

    fn entry(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        self.test(path, row);
        Ok(())
    }

    fn leave(&mut self, path: &[u8], row: &Row<'_>) -> FormatResult<()> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        if open.is_whole {
            let below = |found: &Match| {
                let from = if path.is_empty() { 0 } else { path.len() + 1 };
                let path = found.path.get(from..).unwrap_or_default().to_vec();
                Match { path, ..found.clone() }
            };
            let found = self.found.get(open.first..).unwrap_or_default().iter().map(below).collect();
            self.finder.known.insert(self.finder.key(path, row.digest()), found);
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
