//! One thread that finds work and several that do it, with a bounded queue between them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Sender, bounded};

use crate::error::{Error, Result};

/// Takes work while there is somebody to do it.
pub struct Queue<'q, T> {
    sender: Sender<T>,
    stop: &'q Stop<'q>,
}

impl<T> Queue<'_, T> {
    /// Hands a task over; waits while the queue is full.
    pub fn push(&self, task: T) -> Result<()> {
        self.stop.check()?;
        // The workers outlive the queue unless they stopped, which the next line tells.
        self.sender.send(task).map_err(|_| Error::Interrupted)
    }

    /// Whether the job was told to end.
    pub fn check(&self) -> Result<()> {
        self.stop.check()
    }
}

struct Stop<'s> {
    interrupt: &'s AtomicBool,
    failed: AtomicBool,
}

impl Stop<'_> {
    fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Relaxed) || self.interrupt.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

/// Runs `produce` on this thread and `work` on `threads` others until all that was produced is done.
///
/// The first error of anyone ends the whole; so does `interrupt`. `capacity` bounds the tasks that wait.
pub fn run<T: Send, R>(
    threads: usize,
    capacity: usize,
    interrupt: &AtomicBool,
    produce: impl FnOnce(&Queue<'_, T>) -> Result<R>,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<R> {
    let stop = Stop { interrupt, failed: AtomicBool::new(false) };
    let first_error: Mutex<Option<Error>> = Mutex::new(None);
    let fail = |error: Error| {
        stop.failed.store(true, Ordering::Relaxed);
        if let Ok(mut slot) = first_error.lock() {
            // That one was told to stop is no reason; the reason is why.
            match &*slot {
                Some(before) if !matches!(before, Error::Interrupted) => {}
                _ => *slot = Some(error),
            }
        }
    };
    let produced = std::thread::scope(|scope| {
        let (sender, receiver) = bounded::<T>(capacity.max(1));
        for _ in 0..threads.max(1) {
            let receiver = receiver.clone();
            let (stop, work, fail) = (&stop, &work, &fail);
            scope.spawn(move || {
                // After a failure tasks are taken and dropped, so that the producer never waits for ever.
                for task in receiver {
                    if let Err(error) = stop.check().and_then(|()| work(task)) {
                        fail(error);
                    }
                }
            });
        }
        drop(receiver);
        let queue = Queue { sender, stop: &stop };
        let produced = produce(&queue);
        drop(queue);
        produced.map_err(&fail).ok()
    });
    let error = first_error.into_inner().ok().flatten();
    match (produced, error) {
        (Some(produced), None) => Ok(produced),
        (_, error) => Err(error.unwrap_or(Error::Interrupted)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn everything_is_done_once() {
        let sum = AtomicU64::new(0);
        let produce = |queue: &Queue<'_, u64>| (1..=1000).try_for_each(|task| queue.push(task));
        run(3, 4, &AtomicBool::new(false), produce, |task| {
            sum.fetch_add(task, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 500_500);
    }

    #[test]
    fn the_first_reason_is_told_and_nothing_hangs() {
        let produce = |queue: &Queue<'_, u64>| (1..=1000).try_for_each(|task| queue.push(task));
        let work = |task| if task == 5 { Err(Error::Usage("five".to_owned())) } else { Ok(()) };
        let error = run(2, 1, &AtomicBool::new(false), produce, work).unwrap_err();
        assert_eq!(error.to_string(), "five");
        let error = run(2, 1, &AtomicBool::new(true), produce, |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Interrupted));
    }
}
