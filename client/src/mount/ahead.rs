//! Payload streams whose chunks are decoded before they are asked for.

use std::ops::Range;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use diptych_format::{Digest, ReadAt, Result};
use diptych_repository::StreamReader;

/// Chunks that wait to be decoded ahead: more are not remembered.
const WAITING_MAX: usize = 64;

/// Threads that decode what a hint names. A read that comes too early waits for them, and no chunk is decoded twice.
#[derive(Clone)]
pub(super) struct Decoders {
    /// The threads end when the last of these is dropped.
    wanted: Sender<(Arc<StreamReader>, Digest)>,
}

impl Decoders {
    /// So many threads. One that cannot be had is one less.
    pub(super) fn start(threads: usize) -> Self {
        let (wanted, work) = bounded::<(Arc<StreamReader>, Digest)>(WAITING_MAX);
        for number in 0..threads.max(1) {
            let work = work.clone();
            let work = move || {
                for (stream, id) in work {
                    // Whoever reads the chunk is told what is wrong with it.
                    drop(stream.chunk(&id));
                }
            };
            drop(std::thread::Builder::new().name(format!("decode-{number}")).spawn(work));
        }
        Self { wanted }
    }

    /// A stream whose hints they follow.
    pub(super) fn serve(&self, stream: Arc<StreamReader>) -> Arc<dyn ReadAt> {
        Arc::new(Ahead { stream, decoders: self.clone() })
    }
}

struct Ahead {
    stream: Arc<StreamReader>,
    decoders: Decoders,
}

impl ReadAt for Ahead {
    fn len(&self) -> u64 {
        self.stream.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.stream.read_exact_at(buf, offset)
    }

    fn hint(&self, ranges: &[Range<u64>]) {
        for range in ranges {
            for id in self.stream.first_chunks(range.clone(), WAITING_MAX) {
                if self.decoders.wanted.try_send((Arc::clone(&self.stream), id)).is_err() {
                    return;
                }
            }
        }
    }
}
