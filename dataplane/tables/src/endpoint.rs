//! Local pods: by host-side interface (who sends) and by address (who receives).

use crate::Policy;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use wire::{Address, Identity, MacAddr};

/// A local pod as the packet path sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Endpoint {
    /// Node-local endpoint number, 1–65535.
    pub id: u16,
    /// Host-side interface index of its veth.
    pub ifindex: u32,
    /// The pod's link-layer address.
    pub mac: MacAddr,
    /// The pod's addresses; anything else it sends from is spoofed.
    pub addresses: Box<[Address]>,
    /// Its security identity.
    pub identity: Identity,
    /// What it may receive and send.
    pub policy: Arc<Policy>,
}

/// All local pods.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(Arc<Index>);

#[derive(Clone, Debug, Default)]
struct Index {
    by_id: BTreeMap<u16, Arc<Endpoint>>,
    by_ifindex: Map<u32>,
    by_address: Map<Address>,
}

type Map<K> = HashMap<K, Arc<Endpoint>, FixedState>;

impl Endpoints {
    /// The pod behind a host-side interface.
    pub fn by_ifindex(&self, ifindex: u32) -> Option<&Endpoint> {
        self.0.by_ifindex.get(&ifindex).map(Arc::as_ref)
    }

    /// The pod that owns an address.
    pub fn by_address(&self, address: Address) -> Option<&Endpoint> {
        self.0.by_address.get(&address).map(Arc::as_ref)
    }

    /// Adds or replaces the endpoint with this id; addresses and interface follow. Who already
    /// has one of its addresses or its interface loses it to the newcomer.
    pub fn upsert(&mut self, endpoint: Endpoint) {
        if self.0.by_id.get(&endpoint.id).is_some_and(|old| **old == endpoint) {
            return;
        }
        let index = Arc::make_mut(&mut self.0);
        index.remove(endpoint.id);
        let endpoint = Arc::new(endpoint);
        index.by_ifindex.insert(endpoint.ifindex, Arc::clone(&endpoint));
        for &address in &endpoint.addresses {
            index.by_address.insert(address, Arc::clone(&endpoint));
        }
        index.by_id.insert(endpoint.id, endpoint);
    }

    /// Removes an endpoint; false if it was not there.
    pub fn remove(&mut self, id: u16) -> bool {
        self.0.by_id.contains_key(&id) && Arc::make_mut(&mut self.0).remove(id)
    }

    /// All of them, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.by_id.values().map(Arc::as_ref)
    }

    /// The interfaces and the addresses behind which there is not the same endpoint in `other`.
    pub(crate) fn difference(&self, other: &Self) -> (Vec<u32>, Vec<Address>) {
        if self.same(other) {
            return Default::default();
        }
        (
            differing(&self.0.by_ifindex, &other.0.by_ifindex),
            differing(&self.0.by_address, &other.0.by_address),
        )
    }

    /// Whether this is an unedited clone of `other`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The keys that only one map has, or another endpoint for.
fn differing<K: Copy + Eq + Hash>(ours: &Map<K>, theirs: &Map<K>) -> Vec<K> {
    let same = |key| ours.get(key).map(Arc::as_ptr) == theirs.get(key).map(Arc::as_ptr);
    ours.keys().chain(theirs.keys()).filter(|key| !same(*key)).copied().collect()
}

impl Index {
    fn remove(&mut self, id: u16) -> bool {
        let Some(old) = self.by_id.remove(&id) else { return false };
        // Only what still is its own: a newcomer may have taken over interface or address.
        if self.by_ifindex.get(&old.ifindex).is_some_and(|owner| owner.id == id) {
            self.by_ifindex.remove(&old.ifindex);
        }
        for address in &old.addresses {
            if self.by_address.get(address).is_some_and(|owner| owner.id == id) {
                self.by_address.remove(address);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
