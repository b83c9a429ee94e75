//! Buffers that are used again: a fresh one costs a page fault for every 4 KiB.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept for the next use; more are freed.
const KEPT: usize = 16;

/// A stock of buffers, shared by all stages.
#[derive(Clone, Default)]
pub(super) struct Buffers {
    stock: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// An empty buffer with room for `capacity` bytes.
    pub(super) fn take(&self, capacity: usize) -> Vec<u8> {
        let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stock.iter().position(|buffer| buffer.capacity() >= capacity);
        match found {
            Some(index) => stock.swap_remove(index),
            None => Vec::with_capacity(capacity),
        }
    }

    /// Takes a buffer back.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
        if stock.len() < KEPT && buffer.capacity() > 0 {
            buffer.clear();
            stock.push(buffer);
        }
    }

    /// Takes bytes back: their buffer, if nobody else has a part of it.
    pub(super) fn give_bytes(&self, bytes: Bytes) {
        if let Ok(buffer) = Arc::try_unwrap(bytes.buffer) {
            self.give(buffer);
        }
    }
}

/// A range of a buffer that others have ranges of as well.
pub(super) struct Bytes {
    buffer: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Bytes {
    /// A range of `buffer`.
    pub(super) fn range(buffer: &Arc<Vec<u8>>, range: Range<usize>) -> Self {
        Self { buffer: Arc::clone(buffer), range }
    }

    /// All of `buffer`.
    pub(super) fn whole(buffer: Vec<u8>) -> Self {
        let range = 0..buffer.len();
        Self { buffer: Arc::new(buffer), range }
    }

    /// The bytes.
    pub(super) fn as_slice(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or(&[])
    }
}
