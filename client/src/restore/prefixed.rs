//! Tells of the paths of a part as they are below the directory that all parts go into.

use diptych_format::{Kind, Monitor, Problem};

use crate::extract::choice::joined;
use crate::progress::{Act, Progress};

/// Passes everything on, with a path before each path.
pub struct Prefixed<'p> {
    /// Who is told.
    pub inner: &'p dyn Progress,
    /// What stands before each path.
    pub prefix: &'p [u8],
}

impl Monitor for Prefixed<'_> {
    fn entry(&self, path: &[u8], kind: Kind) {
        self.inner.entry(&joined(self.prefix, path), kind);
    }

    fn bytes(&self, count: u64) {
        self.inner.bytes(count);
    }

    fn problem(&self, problem: Problem) {
        self.inner.problem(Problem { path: joined(self.prefix, &problem.path), ..problem });
    }
}

impl Progress for Prefixed<'_> {
    fn expect(&self, entries: u64, bytes: u64) {
        self.inner.expect(entries, bytes);
    }

    fn planned(&self, act: Act, path: &[u8], is_directory: bool) {
        self.inner.planned(act, &joined(self.prefix, path), is_directory);
    }

    fn deleted(&self, path: &[u8], is_directory: bool) {
        self.inner.deleted(&joined(self.prefix, path), is_directory);
    }

    fn incomplete(&self, path: &[u8], what: &str) {
        self.inner.incomplete(&joined(self.prefix, path), what);
    }
}
