//! A bound on memory: so many bytes may be promised at a time, and who wants more waits.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The bytes that are still free.
#[derive(Clone)]
pub(super) struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    total: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// Bytes that were promised; given back when it is dropped.
pub(super) struct Permit {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Budget {
    /// A budget of `total` bytes.
    pub(super) fn new(total: u64) -> Self {
        Self { shared: Arc::new(Shared { total, free: Mutex::new(total), freed: Condvar::new() }) }
    }

    /// Waits until `bytes` are free and takes them; one that wants more than there is takes all.
    pub(super) fn acquire(&self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.shared.total);
        let mut free = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            free = self.shared.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Permit { shared: Arc::clone(&self.shared), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.shared.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.shared.freed.notify_all();
    }
}
