//! What we saw: a fixed-capacity lock-free connection tracking table over plain memory words.
//!
//! The memory can be a private box or a file mapping, so the table survives the process
//! (SIGKILL included) and the next one attaches to it.
use std::sync::atomic::AtomicU64;
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

/// Connection state, see `cilium-interop` 6.5.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// TCP flags seen in the original direction, ORed (RFC 9293 §3.1 bit order).
    pub original_flags: u8,
    /// TCP flags seen in the reply direction, ORed.
    pub reply_flags: u8,
    /// A packet came back.
    pub replied: bool,
    /// A TCP segment without SYN was seen.
    pub seen_non_syn: bool,
    /// FIN or RST was seen from the initiator.
    pub original_closing: bool,
    /// FIN or RST was seen from the responder.
    pub reply_closing: bool,
}

/// Why a flow could not be created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// No free slot and nothing in reach that may be evicted.
    Full,
    /// Another worker was changing the same bucket or created the same flow; look it up again.
    Busy,
}

/// The table. All methods are lock-free and bounded; `now` never goes backwards.
#[derive(Debug)]
pub struct Table {}

impl Table {
    /// Memory words needed for about `flows` entries (rounded up to whole buckets).
    pub fn words_for(_flows: usize) -> usize {
        todo!()
    }
    /// Uses `words` as the table. Zeroed memory becomes an empty table; memory of an earlier
    /// process is taken over after half-written slots are cleared; memory of another layout or
    /// another boot (`epoch` differs) is emptied. Returns the table and the number of flows
    /// taken over.
    pub fn attach(_words: &'static [AtomicU64], _epoch: u64, _seed: u64, _now: Seconds) -> (Table, usize) {
        todo!()
    }
    /// A private table on the heap, for tests and tools.
    pub fn boxed(_flows: usize, _seed: u64) -> Table {
        todo!()
    }
    /// Brings the bucket of a tuple into the cache.
    pub fn prefetch(&self, _tuple: &Tuple) {
        todo!()
    }
    /// The flow a packet belongs to, and on which side it is.
    pub fn lookup(&self, _tuple: &Tuple, _now: Seconds) -> Option<(Flow, Side)> {
        todo!()
    }
    /// The backend a client's flow to a service frontend was given: (address, port, service id).
    pub fn lookup_service(&self, _client: &Tuple, _now: Seconds) -> Option<(FlowId, Address, u16, u32)> {
        todo!()
    }
    /// Creates a flow.
    pub fn insert(&self, _flow: &NewFlow, _now: Seconds) -> Result<FlowId, InsertError> {
        todo!()
    }
    /// Remembers the backend chosen for `client` (tuple with the frontend as destination).
    pub fn insert_service(
        &self,
        _client: &Tuple,
        _backend: (Address, u16),
        _service: u32,
        _now: Seconds,
    ) -> Result<FlowId, InsertError> {
        todo!()
    }
    /// Counts a packet and advances TCP state and lifetime. `tcp_flags` is 0 for other protocols.
    pub fn touch(&self, _id: FlowId, _side: Side, _tcp_flags: u8, _bytes: u32, _now: Seconds) {
        todo!()
    }
    /// Records that policy `generation` still allows the flow.
    pub fn restamp(&self, _id: FlowId, _generation: u32) {
        todo!()
    }
    /// Removes an entry; false if it was gone already.
    pub fn remove(&self, _id: FlowId) -> bool {
        todo!()
    }
    /// Removes expired entries of `buckets` buckets from position `from`; returns the next
    /// position (wraps to 0) and how many were removed.
    pub fn sweep(&self, _from: usize, _buckets: usize, _now: Seconds) -> (usize, usize) {
        todo!()
    }
    /// Calls `each` for every live flow (`true` for service entries, whose `tuple` is client →
    /// frontend and `translated_from` is the chosen backend).
    pub fn for_each(&self, _now: Seconds, _each: impl FnMut(&Flow, bool)) {
        todo!()
    }
    /// Empties the table; returns how many were removed.
    pub fn flush(&self) -> usize {
        todo!()
    }
    /// Live entries, evictions and failed inserts so far.
    pub fn stats(&self) -> Stats {
        todo!()
    }
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
