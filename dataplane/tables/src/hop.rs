//! Next hops: how to reach another node over an uplink.

use wire::{Address, MacAddr};

/// Names a next hop inside one snapshot lineage; [`HopId::NONE`] where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HopId(pub u32);

impl HopId {
    /// No next hop: the destination is local or the host's business.
    pub const NONE: HopId = HopId(0);
}

/// Link-layer details of a resolved next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// Index into [`crate::Node::uplinks`].
    pub uplink: u8,
    /// Destination MAC (the node's, or a router's on the way).
    pub mac: MacAddr,
    /// Largest packet in bytes that this way takes, Ethernet header not counted.
    pub mtu: u16,
}

/// A node that packets are sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The node's address.
    pub node: Address,
    /// `None` while its neighbour entry is not resolved.
    pub next: Option<NextHop>,
}

/// All next hops. Ids are never reused for another node address.
#[derive(Clone, Debug, Default)]
pub struct Hops {}

impl Hops {
    /// The hop with this id; `None` for [`HopId::NONE`].
    pub fn get(&self, _id: HopId) -> Option<&Hop> {
        todo!()
    }
    /// The id for a node address, allocating an unresolved hop on first use.
    pub fn intern(&mut self, _node: Address) -> HopId {
        todo!()
    }
    /// Sets what is known of the way to a node; false if nothing changed or nobody asked for it.
    pub fn resolve(&mut self, _node: Address, _next: Option<NextHop>) -> bool {
        todo!()
    }
    /// All hops.
    pub fn iter(&self) -> impl Iterator<Item = &Hop> {
        std::iter::empty::<&Hop>()
    }
}
