//! Local pods: by host-side interface (who sends) and by address (who receives).

use crate::Policy;
use std::sync::Arc;
use wire::{Address, Identity, MacAddr};

/// A local pod as the packet path sees it.
#[derive(Clone, Debug)]
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
pub struct Endpoints {}

impl Endpoints {
    /// The pod behind a host-side interface.
    pub fn by_ifindex(&self, _ifindex: u32) -> Option<&Endpoint> {
        todo!()
    }
    /// The pod that owns an address.
    pub fn by_address(&self, _address: Address) -> Option<&Endpoint> {
        todo!()
    }
    /// Adds or replaces the endpoint with this id; addresses and interface follow.
    pub fn upsert(&mut self, _endpoint: Endpoint) {
        todo!()
    }
    /// Removes an endpoint; false if it was not there.
    pub fn remove(&mut self, _id: u16) -> bool {
        todo!()
    }
    /// All of them, by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        std::iter::empty::<&Endpoint>()
    }
}
