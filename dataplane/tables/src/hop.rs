//! Next hops: how to reach another node over an uplink.

use crate::sharded::ShardedMap;
use std::sync::Arc;
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
pub struct Hops {
    /// The hop with id `n` stands at `n - 1`.
    hops: Arc<Vec<Hop>>,
    ids: ShardedMap<Address, HopId>,
}

impl Hops {
    /// The hop with this id; `None` for [`HopId::NONE`].
    pub fn get(&self, id: HopId) -> Option<&Hop> {
        self.hops.get((id.0 as usize).checked_sub(1)?)
    }

    /// The id for a node address, allocating an unresolved hop on first use.
    pub fn intern(&mut self, node: Address) -> HopId {
        if let Some(&id) = self.ids.get(&node) {
            return id;
        }
        let hops = Arc::make_mut(&mut self.hops);
        hops.push(Hop { node, next: None });
        let id = HopId(hops.len() as u32);
        self.ids.insert(node, id);
        id
    }

    /// Sets what is known of the way to a node; false if nothing changed or nobody asked for it.
    pub fn resolve(&mut self, node: Address, next: Option<NextHop>) -> bool {
        let Some(&id) = self.ids.get(&node) else { return false };
        if self.get(id).is_none_or(|hop| hop.next == next) {
            return false;
        }
        Arc::make_mut(&mut self.hops)[id.0 as usize - 1].next = next;
        true
    }

    /// All hops.
    pub fn iter(&self) -> impl Iterator<Item = &Hop> {
        self.hops.iter()
    }

    /// Whether this is an unedited clone of `other`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hops, &other.hops)
    }
}
