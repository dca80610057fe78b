//! Next hops: how to reach another node over an uplink.

use crate::sharded::ShardedMap;
use std::sync::Arc;
use wire::{Address, MacAddr};

/// Names a next hop inside one snapshot; [`HopId::NONE`] where there is none.
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

/// All next hops.
#[derive(Clone, Debug, Default)]
pub struct Hops {
    /// The hop with id `n` stands at `n - 1`; `None`: that id is free.
    hops: Arc<Vec<Option<Hop>>>,
    free: Arc<Vec<HopId>>,
    ids: ShardedMap<Address, HopId>,
}

impl Hops {
    /// The hop with this id; `None` for [`HopId::NONE`].
    pub fn get(&self, id: HopId) -> Option<&Hop> {
        self.hops.get((id.0 as usize).checked_sub(1)?)?.as_ref()
    }

    /// The id for a node address, if it has one.
    pub fn id(&self, node: Address) -> Option<HopId> {
        self.ids.get(&node).copied()
    }

    /// The id for a node address, allocating an unresolved hop on first use.
    pub fn intern(&mut self, node: Address) -> HopId {
        if let Some(id) = self.id(node) {
            return id;
        }
        let (hops, hop) = (Arc::make_mut(&mut self.hops), Some(Hop { node, next: None }));
        let id = match self.free.last() {
            Some(&id) => {
                Arc::make_mut(&mut self.free).pop();
                hops[id.0 as usize - 1] = hop;
                id
            }
            None => {
                hops.push(hop);
                HopId(hops.len() as u32)
            }
        };
        self.ids.insert(node, id);
        id
    }

    /// Forgets a hop that no entry of the snapshot has any more; its id may become another node's.
    pub fn remove(&mut self, id: HopId) {
        if let Some(&Hop { node, .. }) = self.get(id) {
            self.ids.remove(&node);
            Arc::make_mut(&mut self.hops)[id.0 as usize - 1] = None;
            Arc::make_mut(&mut self.free).push(id);
        }
    }

    /// Sets what is known of the way to a node; false if nothing changed or nobody asked for it.
    pub fn resolve(&mut self, node: Address, next: Option<NextHop>) -> bool {
        let Some(id) = self.id(node) else { return false };
        if self.get(id).is_none_or(|hop| hop.next == next) {
            return false;
        }
        Arc::make_mut(&mut self.hops)[id.0 as usize - 1] = Some(Hop { node, next });
        true
    }

    /// All hops.
    pub fn iter(&self) -> impl Iterator<Item = &Hop> {
        self.hops.iter().flatten()
    }

    /// Whether this is an unedited clone of `other`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hops, &other.hops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_nodes_that_are_gone_are_given_again() {
        let [one, two, three] = [1, 2, 3].map(Address::v4);
        let mut hops = Hops::default();
        let ids = [hops.intern(one), hops.intern(two)];
        assert_eq!(hops.intern(one), ids[0]);
        let before = hops.clone();
        hops.remove(ids[0]);
        hops.remove(ids[0]);
        assert_eq!((hops.get(ids[0]), hops.id(one), hops.iter().count()), (None, None, 1));
        assert!(!hops.resolve(one, None) && !hops.same(&before));
        assert_eq!((hops.intern(three), hops.get(ids[0]).unwrap().node), (ids[0], three));
        assert_ne!(hops.intern(one), ids[0]);
        assert_eq!(before.get(ids[0]).unwrap().node, one, "readers keep what they have");
    }
}
