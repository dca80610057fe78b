//! The allocator keeps what was freed for the next one who asks. After a burst of changes that is a lot,
//! and nobody asks.
#![allow(unsafe_code)]

/// Gives free memory back to the system; takes some milliseconds, in which other threads that allocate
/// may wait.
pub(crate) fn trim() {
    // SAFETY: may be called at any time by any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
