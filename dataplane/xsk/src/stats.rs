//! What a socket counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Declares the counters once: field, name in metrics, meaning.
macro_rules! stats {
    ($($field:ident: $doc:literal,)+) => {
        /// Counters of one socket. The thread that owns the socket writes, anyone reads.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Stats { $(#[doc = $doc] pub $field: Counter,)+ }

        impl Stats {
            /// (name, meaning, value) of every counter.
            pub fn read(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $doc, self.$field.get()),)+].into_iter()
            }
        }
    };
}

stats! {
    rx_frames: "Frames received.",
    tx_frames: "Frames put on the TX ring.",
    completed: "Frames the kernel gave back after transmission.",
    kicks: "System calls that asked the kernel to transmit.",
    tx_ring_full: "Frames dropped because the TX ring stayed full.",
    tx_oversize: "Frames dropped because they do not fit their chunk.",
    tx_device_dropped: "Frames that the device refused and the kernel dropped.",
    tx_deferred: "Wakeups that ended with frames left on the TX ring; they go with the next one.",
    tx_down: "Wakeups while the device was down.",
    pool_empty: "Times the fill ring could not be filled because no frame was free.",
    unknown_address: "Ring entries with an address that was not the kernel's to give; ignored.",
    rx_dropped: "Frames the kernel dropped on receive (too large for a frame, or socket unready).",
    rx_ring_full: "Frames the kernel dropped because the RX ring was full.",
    rx_fill_ring_empty: "Frames the kernel dropped because the fill ring was empty.",
    rx_invalid_descs: "Fill ring entries the kernel refused.",
    tx_invalid_descs: "TX ring entries the kernel refused.",
}

/// A counter with one writer: load and store suffice and are cheaper than a locked add.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.set(self.get() + n);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}
