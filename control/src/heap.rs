//! How the process holds memory. Packets' way allocates nothing; what is learned of clusters is allocated by
//! many threads and kept for long, beside much that is not.
#![allow(unsafe_code)]

use std::time::Instant;

/// Has all threads allocate from one arena, so that what one of them frees is there for all: of a mesh of a
/// million addresses that saves a fifth. To be called before there are other threads.
pub fn share() {
    // SAFETY: may be called at any time by any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the system, which the allocator would keep; takes some milliseconds, in which
/// other threads that allocate may wait.
pub(crate) fn trim() {
    let begun = Instant::now();
    // SAFETY: may be called at any time by any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
    tracing::debug!("gave free memory back in {:?}", begun.elapsed());
}
