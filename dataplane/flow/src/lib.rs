//! What we saw: a fixed-capacity lock-free connection tracking table over plain memory words.
//!
//! The memory can be a private box or a file mapping, so the table survives the process
//! (SIGKILL included) and the next one attaches to it.

mod lifetime;
mod memory;
mod slot;
mod table;
mod tcp;
mod walk;

pub use table::Table;
pub use tcp::State;

use wire::{Address, Identity, Tuple};

/// Seconds of a monotonic clock that counts from boot (conntrack survives the process, not the
/// machine).
pub type Seconds = u32;

/// Direction of a packet relative to the first packet of its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Same direction as the first packet.
    Original,
    /// The answering direction.
    Reply,
}

/// Names an entry until it is removed; a reused slot has another version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowId {
    /// Slot number.
    pub slot: u32,
    /// Version of the slot.
    pub version: u32,
}

/// What a new flow is created with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewFlow {
    /// The initiator's tuple after service translation (client → backend).
    pub tuple: Tuple,
    /// What the client had addressed, if the destination was translated.
    pub translated_from: Option<(Address, u16)>,
    /// Number of the service that translated it; 0 if none.
    pub service: u32,
    /// Initiator's identity.
    pub src_identity: Identity,
    /// Responder's identity.
    pub dst_identity: Identity,
    /// Policy generation the flow was allowed under.
    pub generation: u32,
}

/// A copy of an entry, consistent at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Its name.
    pub id: FlowId,
    /// What it was created with; `generation` is the newest stamp.
    pub new: NewFlow,
    /// What has been seen of TCP flags and closing.
    pub state: State,
    /// When it was created.
    pub created: Seconds,
    /// When its last packet passed.
    pub last_seen: Seconds,
    /// When it expires if nothing more comes.
    pub expires: Seconds,
    /// Packets and bytes in the original direction.
    pub original: Count,
    /// Packets and bytes in the reply direction.
    pub reply: Count,
}

/// Packets and bytes (L3 length).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Why a flow could not be created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// No free slot and nothing in reach that may be evicted.
    Full,
    /// Another worker was changing the same bucket or created the same flow; look it up again.
    Busy,
}

/// Totals since the table was attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Slots in all.
    pub capacity: usize,
    /// Slots in use (approximate while traffic runs).
    pub entries: usize,
    /// Unreplied flows evicted to make room.
    pub evicted: u64,
    /// Flows that found no room.
    pub full: u64,
}
