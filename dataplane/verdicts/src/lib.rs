//! What was decided: finished verdicts about exact flows, the *verdict cache*.
//!
//! A verdict says everything about one direction of one flow that packets of it need: how they
//! must arrive, how they are rewritten and where they leave. Workers write it once a flow has
//! proved itself; from then on the kernel's tc programs (`bpf/src/bpf/verdict.h`) and the workers
//! themselves repeat it. Both read the same memory: an array map of BPF that is mapped into the
//! process, so that neither inserting, counting nor revoking takes a system call.
//!
//! # Which packets it is for
//!
//! A verdict holds for packets that arrive on [`Key::ifindex`] with [`Key::tuple`] and
//! - the link-layer addresses of [`Verdict::expect`],
//! - TCP with ACK and without SYN, FIN, RST and URG, or UDP; a whole L4 header,
//! - no fragment, no IPv4 options, no IPv6 extension header, no VLAN tag (but priorities on uplinks),
//! - lengths in IP (and UDP) that are those of the frame, but for what fills one of the network up
//!   to the least length of Ethernet, 60 bytes,
//! - a TTL or hop limit above 1, a right IPv4 header checksum, no zero UDP checksum over IPv6,
//! - no checksum left to the device that it would write anywhere but into the transport header's field,
//! - at most [`Verdict::mtu`] bytes from the IP header on (each segment of a GSO packet),
//! - less than [`Verdict::lifetime`] after the one before.
//!
//! Everything else is not covered, and goes the whole way through the pipeline.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod hit;
mod memory;
mod slot;
mod table;
mod walk;

pub use hit::{Hit, Rewrite};
pub use table::{Inserted, Probe, Table};
pub use walk::{Retired, Revalidated, Usage, VerdictId};

use flow::{FlowId, Side};
use wire::{MacAddr, Tuple};

/// Nanoseconds of the kernel's `CLOCK_MONOTONIC_COARSE`, which BPF programs read too.
pub type Nanoseconds = u64;

/// What packets of one direction of a flow have in common when they arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Interface: the host side of a pod's link, or an uplink.
    pub ifindex: u32,
    /// Addresses, ports and protocol (TCP or UDP) as received.
    pub tuple: Tuple,
}

/// Where packets leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Into the local pod behind the host-side interface `ifindex`.
    Pod {
        /// Interface index.
        ifindex: u32,
    },
    /// Out of an uplink.
    Uplink {
        /// Index into the node's uplinks.
        index: u8,
        /// Interface index.
        ifindex: u32,
    },
}

/// A finished verdict. One hop is taken from every packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Which packets it is about.
    pub key: Key,
    /// What they must have as link-layer address: the source of packets from a pod (whose
    /// destination must be the gateway), the destination of packets from an uplink.
    pub expect: MacAddr,
    /// Largest packet in bytes from the IP header on.
    pub mtu: u16,
    /// The tuple to leave with. It differs from the one received in the source (replies of a
    /// service) or in the destination (packets to a service), never in both.
    pub tuple: Tuple,
    /// Where to.
    pub exit: Exit,
    /// Link-layer destination to leave with.
    pub to: MacAddr,
    /// Link-layer source to leave with; the gateway's towards pods.
    pub from: MacAddr,
    /// The flow in conntrack.
    pub flow: FlowId,
    /// Which direction of it.
    pub side: Side,
    /// How long it stays good without packets.
    pub lifetime: Nanoseconds,
    /// [`Snapshot::generation`] that it was made or last confirmed under: a worker does not use
    /// an older one, the kernel does until the revalidator has seen it.
    ///
    /// [`Snapshot::generation`]: https://docs.rs/tables
    pub generation: u32,
}

/// Totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Slots in all.
    pub capacity: usize,
    /// Slots that hold a verdict.
    pub entries: usize,
    /// Slots whose verdict was taken back and that wait for [`Table::recycle`].
    pub retired: usize,
    /// Verdicts written so far.
    pub inserted: u64,
    /// Verdicts taken back so far, for whatever reason.
    pub removed: u64,
    /// Verdicts that found no room.
    pub full: u64,
}
