//! Hard links: the first name of a group that can be restored becomes the file, the others links to it.
//!
//! A name that comes while the file is still being written waits here with its whole task, so that it can take the
//! file's place if that turns out damaged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::links::{Group, PathKey};

/// What to do with a name of a group.
pub enum Admitted<T> {
    /// Restore it: it is to be the file.
    Restore(T),
    /// Link it to what stands at this path below the target.
    Link(T, Vec<u8>),
    /// Nothing now: it waits for the file.
    Waits,
}

enum State<T> {
    Pending(Vec<T>),
    Done(Vec<u8>),
}

/// The groups of which not every name has been seen.
pub struct Groups<T> {
    groups: Mutex<HashMap<PathKey, (State<T>, u64)>>,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { groups: Mutex::default() }
    }
}

impl<T> Groups<T> {
    /// A name of `group` comes by.
    pub fn admit(&self, group: Group, task: T) -> Admitted<T> {
        let mut groups = self.lock();
        let Some((state, left)) = groups.get_mut(&group.first) else {
            groups.insert(group.first, (State::Pending(Vec::new()), group.count.saturating_sub(1)));
            return Admitted::Restore(task);
        };
        *left = left.saturating_sub(1);
        let is_last = *left == 0;
        match state {
            State::Pending(waiting) => {
                waiting.push(task);
                Admitted::Waits
            }
            State::Done(path) => {
                let path = path.clone();
                if is_last {
                    groups.remove(&group.first);
                }
                Admitted::Link(task, path)
            }
        }
    }

    /// The file of `group` stands at `path`: gives those that waited for it.
    pub fn restored(&self, group: Group, path: &[u8]) -> Vec<T> {
        let mut groups = self.lock();
        let Some((state, left)) = groups.get_mut(&group.first) else { return Vec::new() };
        let is_over = *left == 0;
        let waiting = match std::mem::replace(state, State::Done(path.to_vec())) {
            State::Pending(waiting) => waiting,
            State::Done(_) => Vec::new(),
        };
        if is_over {
            groups.remove(&group.first);
        }
        waiting
    }

    /// The file of `group` could not be restored: gives the name that takes its place, if one waits.
    pub fn failed(&self, group: Group) -> Option<T> {
        let mut groups = self.lock();
        let (state, _) = groups.get_mut(&group.first)?;
        let State::Pending(waiting) = state else { return None };
        if waiting.is_empty() {
            // The next name that comes is the first again.
            groups.remove(&group.first);
            return None;
        }
        Some(waiting.remove(0))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathKey, (State<T>, u64)>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Group = Group { first: [1; 16], count: 4 };

    #[test]
    fn names_wait_then_link() {
        let groups = Groups::default();
        assert!(matches!(groups.admit(GROUP, 1), Admitted::Restore(1)));
        assert!(matches!(groups.admit(GROUP, 2), Admitted::Waits));
        assert_eq!(groups.restored(GROUP, b"a"), [2]);
        assert!(matches!(groups.admit(GROUP, 3), Admitted::Link(3, path) if path == b"a"));
        assert!(matches!(groups.admit(GROUP, 4), Admitted::Link(4, _)));
        assert!(groups.lock().is_empty());
    }

    #[test]
    fn another_name_takes_the_place_of_a_damaged_file() {
        let groups = Groups::default();
        assert!(matches!(groups.admit(GROUP, 1), Admitted::Restore(1)));
        assert!(matches!(groups.admit(GROUP, 2), Admitted::Waits));
        assert!(matches!(groups.admit(GROUP, 3), Admitted::Waits));
        assert_eq!(groups.failed(GROUP), Some(2));
        assert_eq!(groups.restored(GROUP, b"b"), [3]);
        let groups = Groups::default();
        assert!(matches!(groups.admit(GROUP, 1), Admitted::Restore(1)));
        assert_eq!(groups.failed(GROUP), None);
        assert!(matches!(groups.admit(GROUP, 2), Admitted::Restore(2)));
    }
}
