//! Makes packs durable while the next ones are filled.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
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

/// The threads that do it, if there is anything to do.
pub(super) struct Keeper {
    index: Arc<Index>,
    running: Option<Running>,
}

struct Running {
    queue: SyncSender<EndedPack>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Keeper {
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self { index, running: None }
    }

    /// Hands a pack over. An error may be that of an earlier one.
    pub(super) fn push(&mut self, ended: EndedPack) -> Result<()> {
        self.check()?;
        if self.running.is_none() {
            self.running = Some(start(&self.index)?);
        }
        let sent = self.running.as_ref().is_some_and(|running| running.queue.send(ended).is_ok());
        // No thread takes packs any more only if each had one that could not be made durable.
        if sent { Ok(()) } else { self.wait() }
    }

    /// Gives the error of a pack that could not be made durable, without waiting for those that may be.
    pub(super) fn check(&mut self) -> Result<()> {
        match &self.running {
            Some(running) if running.threads.iter().any(JoinHandle::is_finished) => self.wait(),
            _ => Ok(()),
        }
    }

    /// Waits until all packs are durable.
    pub(super) fn wait(&mut self) -> Result<()> {
        let Some(Running { queue, threads }) = self.running.take() else { return Ok(()) };
        drop(queue);
        let join = |thread: JoinHandle<Result<()>>| {
            thread.join().unwrap_or_else(|_| {
                let what = "cannot make packs durable: this is a fault of diptych, please report it";
                Err(Error::io(what, io::Error::other("the thread panicked")))
            })
        };
        // All of them, whatever the first one says.
        let results: Vec<Result<()>> = threads.into_iter().map(join).collect();
        results.into_iter().collect()
    }
}

fn start(index: &Arc<Index>) -> Result<Running> {
    let (queue, ended) = sync_channel::<EndedPack>(WAITING_MAX);
    let ended = Arc::new(Mutex::new(ended));
    let next = move || {
        // A thread that has panicked has taken its pack before.
        ended.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    };
    let mut threads = Vec::new();
    for _ in 0..index.backend().writes_at_once().max(1) {
        let (index, next) = (index.clone(), next.clone());
        let work = move || {
            while let Some(EndedPack { number, file, pack }) = next() {
                file.keep()?;
                index.keep_pack(number, pack);
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("keep packs".to_owned()).spawn(work);
        threads.push(thread.map_err(|error| Error::io("cannot start a thread", error))?);
    }
    Ok(Running { queue, threads })
}
