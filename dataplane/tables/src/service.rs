//! Services: frontend → backends, chosen per flow by Maglev.

use crate::maglev;
use crate::sharded::ShardedMap;
use std::sync::Arc;
use wire::{Address, Protocol, prefetch};

/// What clients connect to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Frontend {
    /// Virtual address (ClusterIP).
    pub address: Address,
    /// Service port.
    pub port: u16,
    /// Protocol.
    pub proto: Protocol,
}

/// Where a flow can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Backend {
    /// Pod address.
    pub address: Address,
    /// Target port.
    pub port: u16,
    /// Its part of the new flows, in proportion to the weights of the others. With 0 it only keeps
    /// the flows it has (terminating, or not preferred by affinity).
    pub weight: u32,
}

/// A service port before its Maglev ring is built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceSpec {
    /// Stable number shown to people and kept in conntrack.
    pub id: u32,
    /// What clients connect to.
    pub frontend: Frontend,
    /// All backends, in any order; duplicates are refused by the compiler of services.
    pub backends: Vec<Backend>,
}

/// A service port with its ring.
#[derive(Clone, Debug)]
pub struct Service {
    id: u32,
    frontend: Frontend,
    /// Sorted by address and port.
    backends: Box<[Backend]>,
    /// Slots of the Maglev ring: indices into `backends`. Empty if no backend has a weight.
    ring: Box<[u16]>,
}

impl Service {
    /// `spec.backends` must be sorted.
    fn new(spec: ServiceSpec) -> Service {
        let ServiceSpec { id, frontend, backends } = spec;
        let ring = maglev::ring(&backends);
        Service { id, frontend, backends: backends.into(), ring }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its frontend.
    pub fn frontend(&self) -> Frontend {
        self.frontend
    }

    /// All backends, sorted.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The backend for a new flow with this hash; `None` if no backend has a weight.
    pub fn select(&self, hash: u64) -> Option<&Backend> {
        let index = *self.ring.get(maglev::slot(hash, self.ring.len()))?;
        self.backends.get(usize::from(index))
    }

    /// Asks for what choosing a backend reads first.
    pub fn prefetch(&self) {
        prefetch(&self.id);
        prefetch(&self.ring);
    }

    /// Goes on after [`Service::prefetch`], with what [`Service::select`] will read for this hash.
    pub fn prefetch_choice(&self, hash: u64) {
        if let Some(slot) = self.ring.get(maglev::slot(hash, self.ring.len())) {
            prefetch(slot);
            self.backends.iter().step_by(2).take(8).for_each(prefetch);
        }
    }

    /// The backend with this address and port, if the service still has it.
    pub fn find(&self, address: Address, port: u16) -> Option<&Backend> {
        let found = self.backends.binary_search_by_key(&(address, port), |b| (b.address, b.port));
        found.ok().map(|index| &self.backends[index])
    }
}

/// All services of the node, by frontend.
#[derive(Clone, Debug, Default)]
pub struct Services {
    by_frontend: ShardedMap<Frontend, Arc<Service>>,
    /// How many services use an address.
    addresses: ShardedMap<Address, u32>,
}

impl Services {
    /// The service behind a frontend.
    pub fn lookup(&self, frontend: Frontend) -> Option<&Service> {
        self.by_frontend.get(&frontend).map(Arc::as_ref)
    }

    /// Asks for the memory that [`Services::lookup`] will read.
    pub fn prefetch(&self, frontend: Frontend) {
        self.by_frontend.prefetch(&frontend);
        self.addresses.prefetch(&frontend.address);
    }

    /// Whether any service uses this address, whatever the port.
    pub fn is_virtual(&self, address: Address) -> bool {
        self.addresses.get(&address).is_some()
    }

    /// Adds or replaces; true if something changed.
    pub fn upsert(&mut self, mut spec: ServiceSpec) -> bool {
        spec.backends.sort_unstable();
        let frontend = spec.frontend;
        if self.lookup(frontend).is_some_and(|old| old.id == spec.id && *old.backends == *spec.backends) {
            return false;
        }
        if self.by_frontend.insert(frontend, Arc::new(Service::new(spec))).is_none() {
            let users = self.addresses.get(&frontend.address).copied().unwrap_or(0);
            self.addresses.insert(frontend.address, users + 1);
        }
        true
    }

    /// Removes; true if it was there.
    pub fn remove(&mut self, frontend: Frontend) -> bool {
        if self.by_frontend.remove(&frontend).is_none() {
            return false;
        }
        match self.addresses.get(&frontend.address) {
            Some(&users) if users > 1 => self.addresses.insert(frontend.address, users - 1),
            _ => self.addresses.remove(&frontend.address),
        };
        true
    }

    /// All services in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.by_frontend.iter().map(|(_, service)| service.as_ref())
    }

    /// Calls `each` for every frontend that only one of both has, or that has changed.
    pub(crate) fn difference(&self, other: &Self, mut each: impl FnMut(&Frontend)) {
        self.by_frontend.difference(&other.by_frontend, Arc::ptr_eq, |frontend| each(frontend));
    }

    /// Whether this is an unedited clone of `other`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.by_frontend.same(&other.by_frontend)
    }
}

#[cfg(test)]
mod tests;
