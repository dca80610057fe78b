//! What a worker counts. Counting never decides anything.

use crate::DropReason;
use core::sync::atomic::{AtomicU64, Ordering};
use tables::Direction;

/// Counters of one worker; it alone writes, anyone reads. Aligned so that two workers never
/// share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    drops: [[Cell; 2]; DropReason::COUNT],
    forwarded: [Cell; 2],
}

#[derive(Debug)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Cell {
    #[allow(clippy::declare_interior_mutable_const)]
    const ZERO: Cell = Cell { packets: AtomicU64::new(0), bytes: AtomicU64::new(0) };

    fn add(&self, bytes: usize) {
        // One writer per cell, so load + store is enough and cheaper than a locked add.
        self.packets.store(self.packets.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.bytes.store(self.bytes.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    }
}

impl Counters {
    /// All zero.
    pub const fn new() -> Counters {
        Counters { drops: [const { [Cell::ZERO; 2] }; DropReason::COUNT], forwarded: [Cell::ZERO; 2] }
    }

    /// Counts a dropped frame of `bytes` length.
    pub fn dropped(&self, reason: DropReason, direction: Direction, bytes: usize) {
        self.drops[reason.index()][side(direction)].add(bytes);
    }

    /// Counts a frame that is sent on.
    pub fn forwarded(&self, direction: Direction, bytes: usize) {
        self.forwarded[side(direction)].add(bytes);
    }

    /// (packets, bytes) dropped for a reason.
    pub fn read_dropped(&self, reason: DropReason, direction: Direction) -> (u64, u64) {
        self.drops[reason.index()][side(direction)].read()
    }

    /// (packets, bytes) sent on.
    pub fn read_forwarded(&self, direction: Direction) -> (u64, u64) {
        self.forwarded[side(direction)].read()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
