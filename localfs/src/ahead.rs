//! Look-ahead: helpers list the directories that the scan is about to reach, as far as the bounds allow.
//!
//! Work waits in the order of the traversal. A helper takes what comes first; the scan takes what it needs, and
//! does it itself if no helper has begun it, so that it never waits for work that waits for it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use diptych_format::{Error, Problem, Result};

use crate::facts::join;
use crate::listing::{Context, Head, Notes, Opened, Pieces, Unopened};
use crate::scan::Found;

/// Names that helpers may have listed and the scan not taken.
const ROWS_AHEAD: usize = 64 << 10;
/// Directories that helpers may hold open ahead of the scan.
const HANDLES_AHEAD: usize = 512;

/// A path that sorts where the traversal comes by: a directory before what is in it, and that before its
/// neighbours, whatever bytes their names have below `/`.
#[derive(Clone)]
struct PathKey(Arc<[u8]>);

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        // No name has the byte 0, so it can stand for what ends one.
        let weigh = |path: &Arc<[u8]>, at: usize| path.get(at).map(|b| if *b == b'/' { 0 } else { *b });
        let shared = self.0.iter().zip(&*other.0).take_while(|(a, b)| a == b).count();
        weigh(&self.0, shared).cmp(&weigh(&other.0, shared))
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathKey {}

/// What can be done ahead.
pub(crate) enum Work {
    /// Open a directory and give its first piece.
    Open(Unopened),
    /// Give the next piece of a directory.
    Next(Box<Pieces>),
}

/// Work that was done.
pub(crate) struct Ready {
    /// What it begins with.
    pub head: Head,
    /// The files of the piece.
    pub files: VecDeque<Vec<Found>>,
    /// The subdirectories of the piece.
    pub directories: VecDeque<Arc<Job>>,
    /// The next piece, if there is one.
    pub next: Option<Arc<Job>>,
    /// What went wrong on the way.
    pub problems: Vec<Problem>,
    /// Whether a name was left out that the archive should have.
    pub is_short: bool,
    rows: usize,
}

impl Ready {
    /// Descriptors that it keeps.
    fn handles(&self) -> usize {
        usize::from(matches!(self.head, Head::Opened(_)))
    }
}

/// Work that someone does once.
pub(crate) struct Job {
    key: PathKey,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    Waiting(Work),
    Running,
    Done(Result<Ready>),
    Taken,
}

struct Queue {
    waiting: BTreeMap<PathKey, Arc<Job>>,
    rows: usize,
    handles: usize,
    is_over: bool,
}

struct Shared {
    context: Context,
    queue: Mutex<Queue>,
    wake: Condvar,
    has_helpers: bool,
}

/// The helpers of a scan and what they share with it.
pub(crate) struct Ahead {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl Ahead {
    /// Starts `helpers` threads. With none, the scan does everything itself.
    pub fn start(context: Context, helpers: usize) -> Self {
        let queue = Queue { waiting: BTreeMap::new(), rows: 0, handles: 0, is_over: false };
        let queue = Mutex::new(queue);
        let shared = Arc::new(Shared { context, queue, wake: Condvar::new(), has_helpers: helpers > 0 });
        let spawn = |number| {
            let shared = Arc::clone(&shared);
            // A thread that cannot be had is one helper less.
            std::thread::Builder::new().name(format!("scan-{number}")).spawn(move || shared.help()).ok()
        };
        let helpers = (0..helpers).filter_map(spawn).collect();
        Self { shared, helpers }
    }

    /// The first piece of a directory that is open already: the root.
    pub fn begin(&self, opened: Opened, notes: Notes) -> Result<Ready> {
        self.shared.ready(opened.head, opened.pieces, notes)
    }

    /// The result of a job, which is done now if nobody has begun it.
    pub fn take(&self, job: &Job) -> Result<Ready> {
        let mut state = lock(&job.state);
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Waiting(work) => {
                    drop(state);
                    return self.shared.run_now(job, work);
                }
                State::Done(ready) => {
                    self.shared.settle(&ready);
                    return ready;
                }
                State::Running => {
                    *state = State::Running;
                    state = job.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                State::Taken => return Err(Error::missing("a part of the scan was asked for twice")),
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        lock(&self.shared.queue).is_over = true;
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper that panicked has told so; there is nothing left of it to wait for.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// A helper's life: what comes first in the traversal, as long as the bounds allow.
    fn help(&self) {
        while let Some(job) = self.first_waiting() {
            let mut state = lock(&job.state);
            let work = match std::mem::replace(&mut *state, State::Running) {
                State::Waiting(work) => work,
                other => {
                    *state = other;
                    continue;
                }
            };
            drop(state);
            let _lost = LostOnPanic(&job);
            let (next, added) = match self.run(work, false) {
                // No descriptor is left for looking ahead; the scan waits for one when it gets there.
                Err(unopened) => (State::Waiting(Work::Open(unopened)), None),
                Ok(ready) => {
                    let added = ready.as_ref().ok().map(|r| (r.rows, r.handles()));
                    (State::Done(ready), added)
                }
            };
            if let Some((rows, handles)) = added {
                let mut queue = lock(&self.queue);
                queue.rows += rows;
                queue.handles += handles;
            }
            *lock(&job.state) = next;
            job.changed.notify_all();
        }
    }

    /// Waits for work and for room to do it ahead.
    fn first_waiting(&self) -> Option<Arc<Job>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.is_over {
                return None;
            }
            if queue.rows < ROWS_AHEAD
                && queue.handles < HANDLES_AHEAD
                && let Some((_, job)) = queue.waiting.pop_first()
            {
                return Some(job);
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run_now(&self, job: &Job, work: Work) -> Result<Ready> {
        if self.has_helpers {
            lock(&self.queue).waiting.remove(&job.key);
        }
        match self.run(work, true) {
            Ok(ready) => ready,
            Err(unopened) => {
                Err(Error::missing(format!("no descriptor for {}", String::from_utf8_lossy(&unopened.path))))
            }
        }
    }

    /// Gives back the room that a result took ahead of the scan.
    fn settle(&self, ready: &Result<Ready>) {
        let Ok(ready) = ready else { return };
        let mut queue = lock(&self.queue);
        let was_full = queue.rows >= ROWS_AHEAD || queue.handles >= HANDLES_AHEAD;
        queue.rows = queue.rows.saturating_sub(ready.rows);
        queue.handles = queue.handles.saturating_sub(ready.handles());
        drop(queue);
        if was_full {
            self.wake.notify_all();
        }
    }

    /// Does a piece of work, or gives it back for want of descriptors.
    fn run(&self, work: Work, may_wait: bool) -> Result<Result<Ready>, Unopened> {
        let mut notes = Notes::default();
        match work {
            Work::Next(pieces) => Ok(self.ready(Head::Continued, Some(pieces), notes)),
            Work::Open(unopened) => {
                let opened = unopened.open(&self.context, may_wait, &mut notes)?;
                Ok(opened.and_then(|opened| self.ready(opened.head, opened.pieces, notes)))
            }
        }
    }

    /// Makes the next piece and jobs of what comes after it.
    fn ready(&self, head: Head, pieces: Option<Box<Pieces>>, mut notes: Notes) -> Result<Ready> {
        let (files, directories, rows, next, is_short) = match pieces {
            None => (VecDeque::new(), VecDeque::new(), 0, None, false),
            Some(mut pieces) => {
                let piece = pieces.next(&self.context, &mut notes)?;
                let directories = piece.directories.into_iter().map(|row| {
                    let here = pieces.here();
                    let path: Arc<[u8]> = join(&here.path, row.name.as_bytes()).into();
                    let unopened = Unopened {
                        above: Arc::clone(here),
                        path: Arc::clone(&path),
                        name: row.name,
                        facts: row.facts,
                    };
                    Job::new(path, Work::Open(unopened))
                });
                let directories: VecDeque<_> = directories.collect();
                let rows = piece.rows + pieces.left();
                let next = pieces.next_name().map(|name| join(&pieces.here().path, name.as_bytes()).into());
                let next = next.map(|path| Job::new(path, Work::Next(pieces)));
                (piece.files, directories, rows, next, piece.is_short)
            }
        };
        self.offer(directories.iter().chain(&next));
        Ok(Ready { head, files, directories, next, problems: notes.0, is_short, rows })
    }

    /// Lets helpers begin jobs.
    fn offer<'a>(&self, jobs: impl Iterator<Item = &'a Arc<Job>>) {
        if !self.has_helpers {
            return;
        }
        let mut queue = lock(&self.queue);
        let before = queue.waiting.len();
        queue.waiting.extend(jobs.map(|job| (job.key.clone(), Arc::clone(job))));
        if queue.waiting.len() > before {
            drop(queue);
            self.wake.notify_all();
        }
    }
}

impl Job {
    fn new(path: Arc<[u8]>, work: Work) -> Arc<Self> {
        Arc::new(Self {
            key: PathKey(path),
            state: Mutex::new(State::Waiting(work)),
            changed: Condvar::new(),
        })
    }
}

/// Wakes the scan with an error if a helper ends in the middle of a job.
struct LostOnPanic<'a>(&'a Job);

impl Drop for LostOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *lock(&self.0.state) = State::Done(Err(Error::missing("a helper of the scan failed")));
            self.0.changed.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_the_traversal_goes() {
        let order = ["", "a", "a/b", "a/b/c", "a/\u{1}", "a\u{1}", "a!", "a!/x", "a0", "b"];
        let mut sorted = order.map(|path| PathKey(path.as_bytes().into()));
        sorted.reverse();
        sorted.sort();
        let mut expected = order;
        expected.sort_by_key(|path| path.replace('/', "\0"));
        assert_eq!(
            sorted.map(|key| String::from_utf8_lossy(&key.0).into_owned()),
            expected.map(str::to_owned)
        );
    }
}
