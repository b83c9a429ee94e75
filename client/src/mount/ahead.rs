//! A payload stream whose chunks are decoded before they are asked for.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use diptych_format::{Digest, ReadAt, Result};
use diptych_repository::StreamReader;

/// Chunks that wait to be decoded ahead: more are not remembered.
const WAITING_MAX: usize = 64;

/// Threads decode what a hint names; a read that comes too early waits for them, and no chunk is decoded twice.
pub(super) struct Ahead {
    stream: Arc<StreamReader>,
    /// The threads end when this is dropped.
    wanted: Sender<Digest>,
}

impl Ahead {
    /// With so many threads. One that cannot be had is one less.
    pub(super) fn new(stream: Arc<StreamReader>, threads: usize) -> Self {
        let (wanted, work) = bounded::<Digest>(WAITING_MAX);
        for number in 0..threads.max(1) {
            let (stream, work) = (Arc::clone(&stream), work.clone());
            let work = move || {
                for id in work {
                    // Whoever reads the chunk is told what is wrong with it.
                    drop(stream.chunk(&id));
                }
            };
            drop(std::thread::Builder::new().name(format!("ahead-{number}")).spawn(work));
        }
        Self { stream, wanted }
    }
}

impl ReadAt for Ahead {
    fn len(&self) -> u64 {
        self.stream.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.stream.read_exact_at(buf, offset)
    }

    fn hint(&self, ranges: &[Range<u64>]) {
        let mut last = None;
        for range in ranges {
            for slice in self.stream.slices(range.clone()).unwrap_or_default() {
                let id = slice.slice.chunk;
                // A group of small files is one chunk with many slices.
                if last.replace(id) != Some(id) && self.wanted.try_send(id).is_err() {
                    return;
                }
            }
        }
    }
}
