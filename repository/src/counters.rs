//! Counts of what reading costs, for reports and for tests that hold it down.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_format::{ReadAt, Result};

/// What has been read and decoded so far. Shared by all that read the same files.
#[derive(Debug, Default)]
pub struct Counters {
    reads: AtomicU64,
    bytes_read: AtomicU64,
    chunks_decoded: AtomicU64,
}

impl Counters {
    /// How many reads there were.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How many bytes they got.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// How many chunks were decoded and checked, segments and manifests counted.
    pub fn chunks_decoded(&self) -> u64 {
        self.chunks_decoded.load(Ordering::Relaxed)
    }

    pub(crate) fn chunk_decoded(&self) {
        self.chunks_decoded.fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes whose reads are counted.
pub struct Counted {
    inner: Arc<dyn ReadAt>,
    counters: Arc<Counters>,
}

impl Counted {
    /// Counts the reads of `inner`.
    pub fn new(inner: Arc<dyn ReadAt>, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_exact_at(buf, offset)
    }

    fn hint(&self, ranges: &[Range<u64>]) {
        self.inner.hint(ranges);
    }
}
