//! Packet + tables + conntrack + time in, verdict out. No I/O, no clock, no allocation.
#![no_std]

pub mod counters;
pub mod event;
pub mod reason;

pub use counters::Counters;
pub use event::{Event, EventKind, Sink};
pub use reason::DropReason;

use flow::{Seconds, Table};
use tables::Snapshot;

/// Where a frame was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// The hub: pods and the host's stack; [`wire::hub::Origin`] says which.
    Hub,
    /// Uplink by index into [`tables::Node::uplinks`].
    Uplink(u8),
}

/// A frame in its buffer; the free bytes on both sides let answers and errors be built in place.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The whole chunk.
    pub buf: &'a mut [u8],
    /// Where the Ethernet header starts.
    pub head: usize,
    /// Length of the frame in bytes.
    pub len: usize,
}

/// What becomes of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Send it (changed in place) out of this port.
    Transmit(Port),
    /// Discard it; it is counted and reported already.
    Drop(DropReason),
}

/// Everything outside the packet that a verdict depends on.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Tables, pinned for the burst.
    pub tables: &'a Snapshot,
    /// Conntrack.
    pub flows: &'a Table,
    /// Seconds since boot.
    pub now: Seconds,
    /// Which events somebody listens to (drops are always reported).
    pub interest: event::Interest,
}

/// One worker's pipeline: the state that packets leave behind apart from conntrack.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// A pipeline with empty fragment table. About 200 KiB: box it.
    pub const fn new() -> Engine {
        Engine {}
    }

    /// Decides about one frame and edits it in place.
    pub fn process(
        &mut self,
        _ctx: &Context<'_>,
        _counters: &Counters,
        _port: Port,
        _frame: &mut Frame<'_>,
        _sink: &mut impl Sink,
    ) -> Verdict {
        todo!()
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}
