//! What one token may take of the server at once, over all its connections: so that none keeps the others out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limit::Limit;
use crate::problem::{Problem, ProblemClass, Result};

/// How long somebody waits for their turn.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Files of one token that arrive at once, and that wait for it, unread.
const ARRIVING_MAX: usize = 16;
const QUEUE_MAX: usize = 64;
/// Files of one token that are looked at at once: fewer than the server looks at in all.
const VALIDATING_MAX: usize = 3;
/// Answers with bytes of files that are under way to one token at once.
const READING_MAX: usize = 64;
/// Directories that are being taken away by one token at once: each keeps a thread.
const TAKING_MAX: usize = 4;

/// One token's share.
pub struct Share {
    /// How fast it may send, and fetch.
    pub rates: [Limit; 2],
    arriving: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
    validating: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    taking: Arc<Semaphore>,
}

/// A place in the queue of a token, given back when this is dropped.
pub struct Queued(Arc<AtomicUsize>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Share {
    /// The share of a token that may send and fetch so many bytes a second.
    pub fn new(rate: Option<u64>) -> Self {
        let permits = |count| Arc::new(Semaphore::new(count));
        Self {
            rates: [Limit::new(rate), Limit::new(rate)],
            arriving: permits(ARRIVING_MAX),
            queued: Arc::default(),
            validating: permits(VALIDATING_MAX),
            reading: permits(READING_MAX),
            taking: permits(TAKING_MAX),
        }
    }

    /// A place among those that wait: what they have sent already takes memory, so that there are only so many.
    pub fn queue(&self) -> Result<Queued> {
        let place = Queued(Arc::clone(&self.queued));
        if self.queued.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            return Err(busy("too many files of this token are waiting to arrive"));
        }
        Ok(place)
    }

    /// A turn to send a file. There are only so many that wait, and each for its own token's files: it has no end.
    pub async fn arriving(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.arriving).acquire_owned().await.ok()
    }

    /// A turn to have a file looked at: it has come whole, and is not sent away.
    pub async fn validating(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.validating).acquire_owned().await.ok()
    }

    /// A turn to fetch bytes.
    pub async fn reading(&self) -> Result<OwnedSemaphorePermit> {
        turn(&self.reading, "too much is under way to this token").await
    }

    /// A turn to take a directory away.
    pub fn taking(&self) -> Result<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.taking).try_acquire_owned();
        turn.map_err(|_| busy("this token takes too much away at once"))
    }
}

/// Waits for a permit, for some time.
pub async fn turn(permits: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit> {
    match tokio::time::timeout(WAIT_MAX, Arc::clone(permits).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(busy(what)),
    }
}

fn busy(what: &str) -> Problem {
    Problem::new(ProblemClass::Busy, format!("{what}: try again"))
}
