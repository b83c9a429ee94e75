//! A monitor that remembers, so that a test can ask what a job reported.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::{Kind, Monitor, Problem};

/// Remembers what it is told.
#[derive(Default)]
pub struct TestMonitor {
    entries: AtomicU64,
    bytes: AtomicU64,
    problems: Mutex<Vec<Problem>>,
}

impl TestMonitor {
    /// One that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries were dealt with.
    pub fn entry_count(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// How many bytes of contents were dealt with.
    pub fn byte_count(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The problems so far, by path.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.lock().unwrap().clone();
        problems.sort_by(|a, b| (&a.path, &a.what).cmp(&(&b.path, &b.what)));
        problems
    }

    /// Fails when anything at all was reported.
    #[track_caller]
    pub fn assert_no_problems(&self) {
        assert_eq!(self.problems(), [], "problems were reported");
    }

    /// Fails unless losses were reported for these paths, in ascending order, and for no others.
    #[track_caller]
    pub fn assert_losses(&self, paths: &[&str]) {
        let mut found: Vec<_> = self.problems().into_iter().filter(|problem| problem.is_loss).collect();
        found.dedup_by(|a, b| a.path == b.path);
        let found_paths: Vec<_> =
            found.iter().map(|problem| String::from_utf8_lossy(&problem.path)).collect();
        assert_eq!(found_paths, paths, "{found:#?}");
    }
}

impl Monitor for TestMonitor {
    fn entry(&self, _: &[u8], _: Kind) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    fn bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    fn problem(&self, problem: Problem) {
        self.problems.lock().unwrap().push(problem);
    }
}
