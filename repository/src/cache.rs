//! A cache of what was read and decoded, bounded by bytes. Two threads that want the same thing make it once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use diptych_format::pack::ChunkKind;
use diptych_format::{Digest, Result};

/// What a chunk is known by: an id belongs to one kind, and this holds even where ids are not checked.
pub type Key = (ChunkKind, Digest);

/// Values by chunk, the least recently used of which go first.
pub struct Cache<V> {
    state: Mutex<State<V>>,
    /// Told whenever a value has been made, or could not be.
    made: Condvar,
    budget: usize,
}

struct State<V> {
    slots: HashMap<Key, Slot<V>>,
    by_age: BTreeMap<u64, Key>,
    next_age: u64,
    used: usize,
}

enum Slot<V> {
    Making,
    Ready { value: Arc<V>, weight: usize, age: u64 },
}

impl<V> Cache<V> {
    /// A cache of up to `budget` bytes. One value is kept however large it is.
    pub fn new(budget: usize) -> Self {
        let state = State { slots: HashMap::new(), by_age: BTreeMap::new(), next_age: 0, used: 0 };
        Self { state: Mutex::new(state), made: Condvar::new(), budget }
    }

    /// The value of `key`, made by `make` with its weight in bytes if it is not there.
    ///
    /// While one thread makes a value, others that want it wait; if it fails, the next of them tries.
    pub fn get_or_make(&self, key: Key, make: impl FnOnce() -> Result<(V, usize)>) -> Result<Arc<V>> {
        let mut state = self.lock();
        loop {
            match state.slots.get(&key) {
                None => break,
                Some(Slot::Ready { value, .. }) => {
                    let value = value.clone();
                    state.touch(&key);
                    return Ok(value);
                }
                Some(Slot::Making) => state = self.made.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        state.slots.insert(key, Slot::Making);
        drop(state);
        // Clears the slot on every way out on which nothing was made, a panic among them.
        let making = Making { cache: self, key };
        let (value, weight) = make()?;
        Ok(making.done(Arc::new(value), weight))
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    fn touch(&mut self, key: &Key) {
        let next = self.next_age;
        self.next_age += 1;
        if let Some(Slot::Ready { age, .. }) = self.slots.get_mut(key) {
            self.by_age.remove(age);
            *age = next;
            self.by_age.insert(next, *key);
        }
    }

    /// Takes out the oldest values until the rest fits.
    fn shrink(&mut self, budget: usize) -> Vec<Arc<V>> {
        let mut out = Vec::new();
        while self.used > budget && self.by_age.len() > 1 {
            let Some((_, key)) = self.by_age.pop_first() else { break };
            if let Some(Slot::Ready { value, weight, .. }) = self.slots.remove(&key) {
                self.used -= weight;
                out.push(value);
            }
        }
        out
    }
}

struct Making<'a, V> {
    cache: &'a Cache<V>,
    key: Key,
}

impl<V> Making<'_, V> {
    fn done(self, value: Arc<V>, weight: usize) -> Arc<V> {
        let mut state = self.cache.lock();
        state.used += weight;
        let ready = Slot::Ready { value: value.clone(), weight, age: u64::MAX };
        state.slots.insert(self.key, ready);
        state.touch(&self.key);
        let gone = state.shrink(self.cache.budget);
        drop(state);
        // Giving memory back takes time: not under the lock.
        drop(gone);
        value
    }
}

impl<V> Drop for Making<'_, V> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if matches!(state.slots.get(&self.key), Some(Slot::Making)) {
            state.slots.remove(&self.key);
        }
        drop(state);
        self.cache.made.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diptych_format::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key(n: u64) -> Key {
        (ChunkKind::Payload, Digest::of(&n.to_le_bytes()))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = Cache::new(3);
        let made = AtomicUsize::new(0);
        let get = |n| {
            let value = cache.get_or_make(key(n), || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok((n, 1))
            });
            assert_eq!(*value.unwrap(), n);
            made.load(Ordering::Relaxed)
        };
        assert_eq!([1, 2, 3, 1, 4, 1, 3, 2].map(get), [1, 2, 3, 3, 4, 4, 4, 5]);
        assert_eq!(cache.used(), 3);
        cache.get_or_make(key(9), || Ok((9, 100))).unwrap();
        assert_eq!(cache.used(), 100);
        assert_eq!(get(9), 5);
    }

    #[test]
    fn threads_that_want_the_same_make_it_once() {
        let cache = Cache::new(1000);
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for n in 0..50 {
                        let value = cache.get_or_make(key(n), || {
                            made.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                            Ok((n, 1))
                        });
                        assert_eq!(*value.unwrap(), n);
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 50);
    }

    #[test]
    fn a_failure_is_told_to_its_thread_and_the_next_tries_again() {
        let cache = Cache::<u8>::new(10);
        assert!(cache.get_or_make(key(1), || Err(Error::corrupt("x"))).is_err());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get_or_make(key(1), || std::panic::resume_unwind(Box::new(())))
        }));
        assert!(panicked.is_err());
        assert_eq!(*cache.get_or_make(key(1), || Ok((7, 1))).unwrap(), 7);
    }
}
