//! A bound on memory: so many bytes may be promised at a time, and who wants more waits. When the run ends early the
//! budget is closed, and nobody waits any more.

use std::sync::atomic::{AtomicBool, Ordering};
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
    is_closed: AtomicBool,
}

/// Bytes that were promised; given back when it is dropped.
pub(super) struct Permit {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Budget {
    /// A budget of `total` bytes.
    pub(super) fn new(total: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                total,
                free: Mutex::new(total),
                freed: Condvar::new(),
                is_closed: AtomicBool::new(false),
            }),
        }
    }

    /// Waits until `bytes` are free and takes them; one that wants more than there is takes all.
    pub(super) fn acquire(&self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.shared.total);
        let mut free = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes && !self.is_closed() {
            free = self.shared.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let bytes = bytes.min(*free);
        *free -= bytes;
        Permit { shared: Arc::clone(&self.shared), bytes }
    }
}

impl Budget {
    /// The run ends: whoever waits goes on, and finds that nobody wants what he brings.
    pub(super) fn close(&self) {
        // Under the lock, so that no one begins to wait between looking and being told.
        let _free = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.freed.notify_all();
    }

    /// Whether the run ends.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.is_closed.load(Ordering::SeqCst)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.shared.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.shared.freed.notify_all();
    }
}
