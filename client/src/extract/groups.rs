//! Hard links: the first name of a group that can be restored becomes the file, the others links to it.
//!
//! A name that comes while the file is still being written waits here with its whole task, so that it can take the
//! file's place if that turns out damaged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use diptych_format::Holds;

use crate::links::{Group, PathKey};

/// What to do with a name of a group.
pub enum Admitted<T> {
    /// Restore it: it is to be the file.
    Restore(T),
    /// Link it to what stands at this path below the target.
    Link(T, Vec<u8>),
    /// Nothing now: it waits for the file.
    Waits,
    /// Restore it by itself: it holds something else than the first of its group, whatever the link table says.
    Apart(T),
}

enum State<T> {
    Pending(Vec<T>),
    Done(Vec<u8>),
}

/// The groups of which not every name has been seen.
pub struct Groups<T> {
    groups: Mutex<HashMap<PathKey, Names<T>>>,
}

/// The names of a group.
struct Names<T> {
    state: State<T>,
    /// How many are still to come by.
    left: u64,
    /// What all of them hold.
    holds: Holds,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { groups: Mutex::default() }
    }
}

impl<T> Groups<T> {
    /// A name of `group` comes by, which holds so much. Spec: A-7.3-3.
    pub fn admit(&self, group: Group, holds: &Holds, task: T) -> Admitted<T> {
        let mut groups = self.lock();
        let Some(names) = groups.get_mut(&group.first) else {
            let left = group.count.saturating_sub(1);
            let names = Names { state: State::Pending(Vec::new()), left, holds: holds.clone() };
            groups.insert(group.first, names);
            return Admitted::Restore(task);
        };
        names.left = names.left.saturating_sub(1);
        if names.holds != *holds {
            return Admitted::Apart(task);
        }
        let is_last = names.left == 0;
        match &mut names.state {
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
        let Some(names) = groups.get_mut(&group.first) else { return Vec::new() };
        let is_over = names.left == 0;
        let waiting = match std::mem::replace(&mut names.state, State::Done(path.to_vec())) {
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
        let State::Pending(waiting) = &mut groups.get_mut(&group.first)?.state else { return None };
        if waiting.is_empty() {
            // The next name that comes is the first again.
            groups.remove(&group.first);
            return None;
        }
        Some(waiting.remove(0))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathKey, Names<T>>> {
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
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 1), Admitted::Restore(1)));
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 2), Admitted::Waits));
        assert_eq!(groups.restored(GROUP, b"a"), [2]);
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 3), Admitted::Link(3, path) if path == b"a"));
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 4), Admitted::Link(4, _)));
        assert!(groups.lock().is_empty());
    }

    #[test]
    fn a_name_that_holds_something_else_stands_by_itself() {
        let groups = Groups::default();
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 1), Admitted::Restore(1)));
        let other = Holds::Target((*b"/etc/passwd").into());
        assert!(matches!(groups.admit(GROUP, &other, 2), Admitted::Apart(2)));
    }

    #[test]
    fn another_name_takes_the_place_of_a_damaged_file() {
        let groups = Groups::default();
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 1), Admitted::Restore(1)));
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 2), Admitted::Waits));
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 3), Admitted::Waits));
        assert_eq!(groups.failed(GROUP), Some(2));
        assert_eq!(groups.restored(GROUP, b"b"), [3]);
        let groups = Groups::default();
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 1), Admitted::Restore(1)));
        assert_eq!(groups.failed(GROUP), None);
        assert!(matches!(groups.admit(GROUP, &Holds::Nothing, 2), Admitted::Restore(2)));
    }
}
