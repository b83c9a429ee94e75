//! Owners that cannot be set: without root that is what happens to every entry, and one line says it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::progress::Losses;

/// How a problem with an owner begins.
const OWNER: &str = "the owner ";

/// Counts entries whose owner could not be set by a user who is not root.
pub struct Owners {
    is_root: bool,
    count: AtomicU64,
    first: Mutex<Option<(Vec<u8>, String)>>,
}

impl Default for Owners {
    fn default() -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self { is_root, count: AtomicU64::new(0), first: Mutex::default() }
    }
}

impl Owners {
    /// Whether this is such a problem, which then is counted and told at the end.
    pub fn takes(&self, path: &[u8], what: &str) -> bool {
        if self.is_root || !what.starts_with(OWNER) {
            return false;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            *first = Some((path.to_vec(), what.to_owned()));
        }
        true
    }

    /// Tells how many there were.
    pub fn finish(&self, losses: &Losses<'_>) {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((path, what)) = first else { return };
        match self.count.load(Ordering::Relaxed) {
            1 => losses.loss(&path, what),
            count => losses.loss(&path, format!("{what}; nor that of {} more entries", count - 1)),
        }
    }
}
