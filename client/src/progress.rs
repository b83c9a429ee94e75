//! What a job tells whoever watches it, beyond what any library tells.

use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::{Kind, Monitor, Problem};

/// A monitor that may also be told how much there is to do. Call it from any thread.
pub trait Progress: Monitor {
    /// So many entries and bytes of contents are to come, all in all.
    fn expect(&self, _entries: u64, _bytes: u64) {}

    /// This would be done to what is at a path, if it were not only asked for.
    fn planned(&self, _act: Act, _path: &[u8], _is_directory: bool) {}

    /// What was at a path was deleted.
    fn deleted(&self, _path: &[u8], _is_directory: bool) {}

    /// The entry at a path was restored, or left out, as it is in the snapshot, which does not have it whole.
    fn incomplete(&self, _path: &[u8], _what: &str) {}
}

/// What may be done to a path of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing is there, and something is made.
    Create,
    /// What is there is replaced, or changed.
    Replace,
    /// What is there is deleted.
    Delete,
}

impl Act {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }
}

impl Progress for diptych_format::monitor::Silent {}

/// Counts losses on their way to another monitor, so that a job can say how it went.
pub struct Losses<'p> {
    inner: &'p dyn Progress,
    losses: AtomicU64,
}

impl<'p> Losses<'p> {
    /// Passes everything on to `inner`.
    pub fn new(inner: &'p dyn Progress) -> Self {
        Self { inner, losses: AtomicU64::new(0) }
    }

    /// Losses so far.
    pub fn count(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Reports something that was lost.
    pub fn loss(&self, path: &[u8], what: impl Into<String>) {
        self.problem(Problem { path: path.to_vec(), what: what.into(), is_loss: true });
    }

    /// Reports something that costs nothing.
    pub fn notice(&self, path: &[u8], what: impl Into<String>) {
        self.problem(Problem { path: path.to_vec(), what: what.into(), is_loss: false });
    }
}

impl Monitor for Losses<'_> {
    fn entry(&self, path: &[u8], kind: Kind) {
        self.inner.entry(path, kind);
    }

    fn bytes(&self, count: u64) {
        self.inner.bytes(count);
    }

    fn problem(&self, problem: Problem) {
        if problem.is_loss {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.problem(problem);
    }
}

impl Progress for Losses<'_> {
    fn expect(&self, entries: u64, bytes: u64) {
        self.inner.expect(entries, bytes);
    }

    fn planned(&self, act: Act, path: &[u8], is_directory: bool) {
        self.inner.planned(act, path, is_directory);
    }

    fn deleted(&self, path: &[u8], is_directory: bool) {
        self.inner.deleted(path, is_directory);
    }

    fn incomplete(&self, path: &[u8], what: &str) {
        self.inner.incomplete(path, what);
    }
}
