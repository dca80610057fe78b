//! Services: frontend → backends, chosen per flow by Maglev.

use wire::{Address, Protocol};

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
    /// May be chosen for new flows; otherwise it only keeps the flows it has (terminating, or
    /// not preferred by affinity).
    pub selectable: bool,
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
pub struct Service {}

impl Service {
    /// Its number.
    pub fn id(&self) -> u32 {
        todo!()
    }
    /// Its frontend.
    pub fn frontend(&self) -> Frontend {
        todo!()
    }
    /// All backends, sorted.
    pub fn backends(&self) -> &[Backend] {
        todo!()
    }
    /// The backend for a new flow with this hash; `None` if no backend is selectable.
    pub fn select(&self, _hash: u64) -> Option<&Backend> {
        todo!()
    }
    /// The backend with this address and port, if the service still has it.
    pub fn find(&self, _address: Address, _port: u16) -> Option<&Backend> {
        todo!()
    }
}

/// All services of the node, by frontend.
#[derive(Clone, Debug, Default)]
pub struct Services {}

impl Services {
    /// The service behind a frontend.
    pub fn lookup(&self, _frontend: Frontend) -> Option<&Service> {
        todo!()
    }
    /// Whether any service uses this address, whatever the port.
    pub fn is_virtual(&self, _address: Address) -> bool {
        todo!()
    }
    /// Adds or replaces; true if something changed.
    pub fn upsert(&mut self, _spec: ServiceSpec) -> bool {
        todo!()
    }
    /// Removes; true if it was there.
    pub fn remove(&mut self, _frontend: Frontend) -> bool {
        todo!()
    }
    /// All services in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        std::iter::empty::<&Service>()
    }
}
