//! The fidelity report: what was not captured whole, and why, kept with the snapshot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use diptych_format::limits::METADATA_CHUNK_MAX;
use diptych_format::{Kind, Monitor, Problem};
use serde_json::json;

use super::Source;
use crate::error::{Error, Result};
use crate::names;
use crate::progress::Progress;

/// Room for the line that says how many were left out.
const LAST_LINE: usize = 200;

/// Passes everything on, and keeps the problems.
pub(super) struct Recorder {
    inner: Arc<dyn Progress>,
    state: Mutex<State>,
    losses: AtomicU64,
    changed: AtomicU64,
}

#[derive(Default)]
struct State {
    archive: String,
    root: Vec<u8>,
    lines: Vec<u8>,
    left_out: u64,
}

impl Recorder {
    pub(super) fn new(inner: Arc<dyn Progress>) -> Self {
        Self { inner, state: Mutex::default(), losses: AtomicU64::new(0), changed: AtomicU64::new(0) }
    }

    /// What follows is about this archive.
    pub(super) fn begin(&self, source: &Source) {
        let mut state = self.lock();
        state.archive = names::show(&source.name);
        state.root = source.recorded_path().unwrap_or_else(|| source.name.clone());
    }

    /// A path as it is on the source: a run may have several trees.
    fn on_the_source(&self, path: &[u8]) -> Vec<u8> {
        let root = self.lock().root.clone();
        if path.is_empty() { root } else { names::join(&root, path) }
    }

    /// Entries that were not captured whole.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Entries that changed while they were read.
    pub(super) fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }

    /// The report, a JSON object on each line; none if there is nothing to report.
    pub(super) fn encode(&self) -> Result<Option<Vec<u8>>> {
        let state = self.lock();
        if state.lines.is_empty() {
            return Ok(None);
        }
        let mut bytes = state.lines.clone();
        if state.left_out > 0 {
            let line = json!({ "left_out": state.left_out });
            serde_json::to_writer(&mut bytes, &line)
                .map_err(|error| Error::io("the report", "cannot be written", error.into()))?;
            bytes.push(b'\n');
        }
        Ok(Some(bytes))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor for Recorder {
    fn entry(&self, path: &[u8], kind: Kind) {
        self.inner.entry(path, kind);
    }

    fn bytes(&self, count: u64) {
        self.inner.bytes(count);
    }

    fn read(&self, path: &[u8], why: &'static str) {
        self.inner.read(&self.on_the_source(path), why);
    }

    fn problem(&self, problem: Problem) {
        if problem.is_loss {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        if problem.what.contains("changed while") {
            self.changed.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.lock();
        let line = json!({
            "archive": state.archive,
            "path": names::show(&problem.path),
            "what": problem.what,
            "loss": problem.is_loss,
        })
        .to_string();
        if state.lines.len() + line.len() + LAST_LINE < METADATA_CHUNK_MAX {
            state.lines.extend_from_slice(line.as_bytes());
            state.lines.push(b'\n');
        } else {
            state.left_out += 1;
        }
        drop(state);
        let path = self.on_the_source(&problem.path);
        self.inner.problem(Problem { path, ..problem });
    }
}

impl Progress for Recorder {
    fn expect(&self, entries: u64, bytes: u64) {
        self.inner.expect(entries, bytes);
    }
}
