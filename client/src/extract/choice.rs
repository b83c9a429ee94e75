//! Which entries a walk takes: those that PATH arguments select and patterns leave.

use crate::patterns::Patterns;
use crate::select::{PathSelection, Verdict};

/// A choice for one walk; a second walk needs another one.
pub struct Choice<'c> {
    paths: &'c mut PathSelection,
    patterns: &'c Patterns,
    /// What patterns are told from, as a path to the root of the walk.
    prefix: &'c [u8],
    /// Length of the path of the directory that PATH arguments select and that the walk is in.
    selected_at: Option<usize>,
}

impl<'c> Choice<'c> {
    /// Takes what both take. `prefix` leads from where patterns are told to where paths are.
    pub fn new(paths: &'c mut PathSelection, patterns: &'c Patterns, prefix: &'c [u8]) -> Self {
        Self { paths, patterns, prefix, selected_at: None }
    }

    /// Whether everything is taken.
    pub fn is_everything(&self) -> bool {
        self.paths.is_everything() && self.patterns.is_everything()
    }

    /// Says of an entry whether it is taken.
    pub fn entry(&mut self, path: &[u8]) -> bool {
        self.verdict(path, false) == Verdict::Selected
    }

    /// Says of a directory whether it is taken; if it is not passed, the walk enters it.
    pub fn enter(&mut self, path: &[u8]) -> Verdict {
        self.verdict(path, true)
    }

    /// The walk leaves a directory.
    pub fn leave(&mut self, path: &[u8]) {
        if self.selected_at == Some(path.len()) {
            self.selected_at = None;
        }
    }

    fn verdict(&mut self, path: &[u8], is_directory: bool) -> Verdict {
        let by_path = match self.selected_at {
            Some(_) => Verdict::Selected,
            None => self.paths.verdict(path, is_directory),
        };
        let verdict = match (by_path, self.patterns.is_everything()) {
            (Verdict::Passed, _) => return Verdict::Passed,
            (by_path, true) => by_path,
            (by_path, false) => match self.patterns.verdict(&joined(self.prefix, path), is_directory) {
                Verdict::Selected => by_path,
                by_pattern => by_pattern,
            },
        };
        // The root has no name, and its length is that of no other path.
        if is_directory && by_path == Verdict::Selected && verdict != Verdict::Passed {
            self.selected_at.get_or_insert(path.len());
        }
        verdict
    }
}

/// A path below `prefix`, where either may be empty.
pub fn joined(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    match (prefix, path) {
        (prefix, b"") => prefix.to_vec(),
        (prefix, path) => crate::names::join(prefix, path),
    }
}
