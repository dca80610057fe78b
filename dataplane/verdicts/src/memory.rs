//! Memory for a table that nobody else sees.
#![allow(unsafe_code)]

use alloc::vec;
use core::sync::atomic::AtomicU64;

/// Words of a cache line.
const LINE: usize = 8;

/// `words` words of zeros that start a cache line and are never freed. Pages become resident when
/// they are written to.
pub(crate) fn zeroed(words: usize) -> &'static [AtomicU64] {
    let memory: &'static mut [u64] = vec![0; words + LINE].leak();
    let start = memory.as_ptr().align_offset(LINE * size_of::<u64>()).min(LINE);
    let words = &mut memory[start..start + words];
    let (pointer, length) = (words.as_mut_ptr().cast::<AtomicU64>(), words.len());
    // SAFETY: the slice is exclusively ours and lives forever; `AtomicU64` has the size of `u64`
    // and, where it exists, is at most aligned to its size, which the start of a line is too.
    unsafe { core::slice::from_raw_parts(pointer, length) }
}
