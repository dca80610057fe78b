//! What an edit may have changed, and what it has not: decisions that rest on nothing else need not
//! be made again.

use crate::Snapshot;
use foldhash::fast::FixedState;
use hashbrown::HashSet;
use wire::Address;

/// What differs between two snapshots, as seen by a packet.
#[derive(Debug, Default)]
pub struct Difference {
    /// Something that may concern any packet.
    everything: bool,
    /// Host-side interfaces with another pod behind them, or with one that has changed.
    interfaces: HashSet<u32, FixedState>,
    /// Addresses of such pods, addresses with another entry in the ipcache, and addresses of services that
    /// came, went or changed.
    addresses: HashSet<Address, FixedState>,
}

impl Difference {
    /// What differs between `new` and `old`, of which it is an edited clone. Takes time in
    /// proportion to what was edited.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Difference {
        let mut found = Difference::default();
        let Difference { everything, interfaces, addresses } = &mut found;
        *everything = old.node != new.node || !old.hops.same(&new.hops);
        if *everything {
            return found;
        }
        let endpoints = new.endpoints.difference(&old.endpoints);
        interfaces.extend(endpoints.0);
        addresses.extend(endpoints.1);
        new.services.difference(&old.services, |frontend| {
            addresses.insert(frontend.address);
        });
        *everything = !new.ipcache.difference(&old.ipcache, |address| {
            addresses.insert(address);
        });
        found
    }

    /// Whether packets may be decided about otherwise than before that pass one of these interfaces
    /// and have these addresses, before and after translation.
    pub fn concerns(&self, interfaces: &[u32], addresses: &[Address]) -> bool {
        self.everything
            || interfaces.iter().any(|interface| self.interfaces.contains(interface))
            || addresses.iter().any(|address| self.addresses.contains(address))
    }
}

#[cfg(test)]
mod tests;
