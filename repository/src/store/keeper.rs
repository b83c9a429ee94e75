//! Makes packs durable while the next ones are filled.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use diptych_format::pack_index::IndexPack;
use diptych_format::{Error, Result};

use crate::index::Index;
use crate::place::NamedFile;

/// Packs that may wait while one is made durable: a disk that is slower than the reading of files holds that up, and
/// no more is lost with the machine than this.
const WAITING_MAX: usize = 2;

/// A pack that is whole and not durable yet.
pub(super) struct EndedPack {
    pub(super) number: u64,
    pub(super) file: NamedFile,
    pub(super) pack: IndexPack,
}

/// The thread that does it, if there is anything to do.
pub(super) struct Keeper {
    index: Arc<Index>,
    running: Option<(SyncSender<EndedPack>, JoinHandle<Result<()>>)>,
}

impl Keeper {
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self { index, running: None }
    }

    /// Hands a pack over. An error may be that of an earlier one.
    pub(super) fn push(&mut self, ended: EndedPack) -> Result<()> {
        if self.running.is_none() {
            self.running = Some(start(self.index.clone())?);
        }
        let sent = self.running.as_ref().is_some_and(|(queue, _)| queue.send(ended).is_ok());
        // The thread takes no more packs only if one could not be made durable.
        if sent { Ok(()) } else { self.wait() }
    }

    /// Gives the error of a pack that could not be made durable, without waiting for those that may be.
    pub(super) fn check(&mut self) -> Result<()> {
        match &self.running {
            Some((_, thread)) if thread.is_finished() => self.wait(),
            _ => Ok(()),
        }
    }

    /// Waits until all packs are durable.
    pub(super) fn wait(&mut self) -> Result<()> {
        let Some((queue, thread)) = self.running.take() else { return Ok(()) };
        drop(queue);
        thread.join().unwrap_or_else(|_| {
            let what = "cannot make packs durable: this is a fault of diptych, please report it";
            Err(Error::io(what, io::Error::other("the thread panicked")))
        })
    }
}

fn start(index: Arc<Index>) -> Result<(SyncSender<EndedPack>, JoinHandle<Result<()>>)> {
    let (queue, ended) = sync_channel::<EndedPack>(WAITING_MAX);
    let work = move || {
        for EndedPack { number, file, pack } in ended {
            file.keep()?;
            index.keep_pack(number, pack);
        }
        Ok(())
    };
    let thread = std::thread::Builder::new().name("keep packs".to_owned()).spawn(work);
    Ok((queue, thread.map_err(|error| Error::io("cannot start a thread", error))?))
}
