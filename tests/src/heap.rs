//! How much memory a piece of code holds at most: a counter between the program and the system's allocator.
//!
//! A test binary makes [`Counting`] its global allocator; without that, nothing is counted. Each thread counts for
//! itself, so that tests which run beside each other do not see each other.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
pub struct Counting;

thread_local! {
    // Both are initialised without code and dropped without code: an allocator can use them at any time.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(change: i64) {
    // A thread that ends may have given its counters back: then nobody asks any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().saturating_add(change));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn length(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

// SAFETY: every call goes to the system's allocator as it came, and what that gives is given back as it is; counting
// neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(length(layout.size()));
        // SAFETY: the caller keeps what the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-length(layout.size()));
        // SAFETY: the block came from the system's allocator with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(length(layout.size()));
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(length(size) - length(layout.size()));
        // SAFETY: as for `dealloc`, and the caller vouches for the new size.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// Runs `body` and says how many bytes this thread held at most beyond what it held before.
pub fn peak_of<T>(body: impl FnOnce() -> T) -> (T, u64) {
    let before = LIVE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let result = body();
    (result, PEAK.with(Cell::get).abs_diff(before))
}
