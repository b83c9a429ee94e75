//! What is likely to be read next, handed over before it is asked for.
//!
//! Whoever reads small files by name in one directory after another pays for each with a question to this process and an
//! answer: that takes longer than the reading. So once a directory is read in order, the contents of the files that
//! follow are put where the reader will find them. The first file of a directory is left out: that somebody asks for it
//! shows that what follows is wanted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Files that are handed over; longer ones are read in pieces, ahead of which the kernel asks by itself.
pub(crate) const SMALL_MAX: u64 = 128 << 10;
/// How much of one table is handed over at a time.
pub(crate) const BATCH_BYTES: u64 = 4 << 20;
/// Tables that are remembered.
const TABLES_MAX: usize = 64;
/// Batches that wait; more are not wanted.
const WAITING_MAX: usize = 64;
/// From this on directories are taken to be read when they are listed.
const SURE: u32 = 4;
/// No more than so many directories are foreseen in vain.
const SURE_MAX: u32 = 12;

/// Rows of a table that are to be handed over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch<T> {
    pub table: T,
    pub rows: Range<usize>,
}

/// Sees readers go through tables.
pub(crate) struct Foresight<T> {
    state: Mutex<State>,
    wanted: Sender<Batch<T>>,
    batches: Receiver<Batch<T>>,
}

#[derive(Default)]
struct State {
    tables: VecDeque<Known>,
    /// How often a directory was read from its first file on, of late.
    sureness: u32,
}

/// A table that is read.
struct Known {
    /// Where it stands.
    place: u64,
    /// The row of its first small file.
    first: usize,
    /// The first row that was not handed over.
    next: usize,
    /// The row behind the last one that was asked for.
    reached: usize,
}

impl<T> Default for Foresight<T> {
    fn default() -> Self {
        let (wanted, batches) = bounded(WAITING_MAX);
        Self { state: Mutex::default(), wanted, batches }
    }
}

impl<T> Foresight<T> {
    /// The batches, for those who hand them over.
    pub(crate) fn batches(&self) -> Receiver<Batch<T>> {
        self.batches.clone()
    }

    /// A table was listed whose first small file is `first`: says whether what follows that is to be handed over.
    pub(crate) fn listed(&self, place: u64, first: usize) -> bool {
        let mut state = self.lock();
        if state.sureness < SURE || state.find(place).is_some() {
            return false;
        }
        state.sureness -= 1;
        state.remember(place, first, first + 1);
        true
    }

    /// A small file was read at `row`; `first` is the first one of its table. Says from where on files are to be handed
    /// over, if they are.
    pub(crate) fn read(&self, place: u64, row: usize, first: usize) -> Option<usize> {
        let mut state = self.lock();
        if row == first {
            state.sureness = (state.sureness + 2).min(SURE_MAX);
        }
        let Some(known) = state.find(place) else {
            if row != first {
                state.sureness = 0;
            }
            // The next one shows that it goes on.
            state.remember(place, first, row + 1);
            return (row == first && state.sureness >= SURE).then_some(row + 1);
        };
        let known = state.tables.get_mut(known)?;
        known.reached = known.reached.max(row + 1);
        if row < known.next {
            return None;
        }
        known.next = row + 1;
        Some(known.next)
    }

    /// Whether a row is not to be handed over any more, for the reader has come further.
    pub(crate) fn is_late(&self, place: u64, row: usize) -> bool {
        let state = self.lock();
        state.find(place).and_then(|known| state.tables.get(known)).is_some_and(|known| row < known.reached)
    }

    /// The row of a table's first small file, if the table is known.
    pub(crate) fn first(&self, place: u64) -> Option<usize> {
        let state = self.lock();
        state.find(place).and_then(|known| state.tables.get(known)).map(|known| known.first)
    }

    /// Rows of a table whose first small file is `first` are about to be handed over.
    pub(crate) fn hand(&self, place: u64, first: usize, table: T, rows: Range<usize>) {
        let mut state = self.lock();
        state.remember(place, first, rows.end);
        drop(state);
        // If too many wait, readers ask for themselves.
        let _ = self.wanted.try_send(Batch { table, rows });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, place: u64) -> Option<usize> {
        self.tables.iter().position(|known| known.place == place)
    }

    fn remember(&mut self, place: u64, first: usize, next: usize) {
        match self.find(place).and_then(|known| self.tables.get_mut(known)) {
            Some(known) => known.next = next.max(known.next),
            None => {
                if self.tables.len() == TABLES_MAX {
                    self.tables.pop_front();
                }
                self.tables.push_back(Known { place, first, next, reached: 0 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_through_directories_is_foreseen_and_who_looks_here_and_there_is_not() {
        let foresight = Foresight::<()>::default();
        // Within a directory the second file shows it.
        assert_eq!(foresight.read(100, 5, 5), None);
        assert_eq!(foresight.read(100, 6, 5), Some(7));
        foresight.hand(100, 5, (), 7..20);
        assert_eq!(foresight.batches().try_recv().unwrap().rows, 7..20);
        assert_eq!(foresight.read(100, 8, 5), None);
        assert_eq!(foresight.read(100, 20, 5), Some(21));
        // After some directories the listing does.
        assert!(!foresight.listed(200, 0));
        assert_eq!(foresight.read(200, 0, 0), Some(1));
        assert!(foresight.listed(300, 3));
        // Who lists and does not read is soon found out.
        let foreseen = (0..100).filter(|number| foresight.listed(1000 + number, 0)).count();
        assert!(foreseen < SURE_MAX as usize);
        assert_eq!(foresight.read(5000, 7, 0), None);
        assert_eq!(foresight.read(6000, 0, 0), None);
    }
}
