//! A file whose bytes go to the disk while more are written: making a whole archive durable at its end would take as long
//! as the disk takes for all of it, with nothing else to do meanwhile.

use std::fs::File;
use std::io::{self, Write};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};

/// So many bytes are asked for at a time.
const SYNC_EVERY: usize = 64 << 20;

/// A file that is written from its start to its end.
pub(super) struct WriteBehind {
    file: File,
    /// Bytes since the disk was asked last.
    unsynced: usize,
    asks: Sender<()>,
    syncing: JoinHandle<io::Result<()>>,
}

impl WriteBehind {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let same = file.try_clone()?;
        let (asks, asked) = bounded::<()>(1);
        // An error is told once for all descriptors of the file, so that it must not be lost here.
        let syncing = std::thread::spawn(move || asked.iter().try_for_each(|()| same.sync_data()));
        Ok(Self { file, unsynced: 0, asks, syncing })
    }

    /// Waits until all is durable.
    pub(super) fn sync(self) -> io::Result<()> {
        drop(self.asks);
        let synced = self.syncing.join().unwrap_or_else(|_| Err(io::Error::other("a thread stopped")));
        synced.and_then(|()| self.file.sync_all())
    }
}

impl Write for WriteBehind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        // If the disk is still at work with what came before, it is asked again later.
        if self.unsynced >= SYNC_EVERY && self.asks.try_send(()).is_ok() {
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
