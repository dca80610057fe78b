//! Asking for memory ahead of its use, so that the wait for one packet's memory is the wait for a
//! whole burst's.
#![allow(unsafe_code)]

/// Asks the CPU to bring the cache line that `value` starts in near. Changes nothing but time.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let address: *const T = value;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction (SSE), and it neither faults nor reads for the
    // program.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: `prfm` is in the base instruction set, and neither faults nor reads for the program.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
