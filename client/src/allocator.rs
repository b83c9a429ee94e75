//! How large blocks of memory are had and given back. The only file of this crate that may hold `unsafe`.

#![allow(unsafe_code)]

/// Blocks from this size on are given back to the system when they are freed. In bytes.
#[cfg(target_env = "gnu")]
const GIVEN_BACK: i32 = 128 << 10;
/// What may lie unused at the end of a heap, in bytes.
#[cfg(target_env = "gnu")]
const SPARE: i32 = 1 << 20;

/// Has large blocks given back when they are freed. By itself glibc keeps blocks of the sizes that it has seen, in a heap for
/// each thread, and a cache of chunks comes to take several times what is in it.
///
/// And no block takes huge pages: each thread of a mount has a long buffer for requests, of which it uses the start.
pub(crate) fn give_back_large_blocks() {
    // Where the kernel knows no huge pages there is nothing to be done.
    let _ = nix::sys::prctl::set_thp_disable(true);
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, GIVEN_BACK), (libc::M_TRIM_THRESHOLD, SPARE)] {
        // SAFETY: it takes two numbers, and touches nothing but the allocator's own settings, under its lock. What it
        // refuses stays as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}
