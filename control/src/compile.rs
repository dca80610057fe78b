//! State → tables, as far as it changed.

use crate::agent::PolicyMode;
use crate::policy::{Peer, Peers};
use crate::services;
use crate::services::catalog::{self, Catalog};
use crate::state::{Endpoint, State};
use ipnet::IpNet;
use rules::{EndpointPolicy, Registry};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tables::{HopId, IpEntry, Policy, Publisher, Snapshot};
use wire::{Address, Identity, MacAddr};

pub mod explain;
pub mod rules;
#[cfg(test)]
mod tests;

/// What was published last, so that only differences are.
#[derive(Debug)]
pub struct Compiler {
    mode: PolicyMode,
    pub(crate) rules: Registry,
    pub(crate) endpoints: BTreeMap<u16, Published>,
    pub(crate) services: Catalog,
    /// How many prefixes are sent to a next hop.
    hops: HashMap<HopId, u32>,
}

/// A local pod in the tables.
#[derive(Debug)]
pub(crate) struct Published {
    endpoint: tables::Endpoint,
    pub(crate) policy: Arc<EndpointPolicy>,
}

/// Who is behind a prefix, and the node to send it to.
type Behind = (Identity, Option<IpAddr>);

/// Edits that make the tables equal to the state.
#[derive(Debug, Default)]
struct Edits {
    /// What is known of a prefix; `None`: nothing.
    prefixes: Vec<(IpNet, Option<Behind>)>,
    endpoints: Vec<tables::Endpoint>,
    gone_endpoints: Vec<u16>,
    services: catalog::Edits,
}

impl Compiler {
    /// Nothing was published yet.
    pub fn new(mode: PolicyMode) -> Self {
        Compiler {
            mode,
            rules: Registry::default(),
            endpoints: BTreeMap::new(),
            services: Catalog::default(),
            hops: HashMap::new(),
        }
    }

    /// Publishes what changed in one step, so that no packet sees an address with an identity that
    /// the policies do not know yet.
    pub fn run(&mut self, state: &mut State, publisher: &Publisher, now: Instant) {
        let dirty = std::mem::take(&mut state.dirty);
        if dirty.selectors {
            self.select(state);
        }
        if dirty.policies {
            self.rules.forget_all_but(state.policies.keys());
        }
        let changed = state.selectors.take_changed();
        let moved = state.ipcache.take_moved();
        let mut edits = Edits { prefixes: state.take_addresses(), ..Edits::default() };
        self.policies(state, &mut edits, dirty.policies, &changed, &moved);
        self.services.defer(dirty.preferences, now);
        edits.services = self.services.update(state, dirty.services, &changed, &moved, now);
        edits.publish(publisher, &mut self.hops);
    }

    /// Tells the state which selectors and prefixes are in use.
    fn select(&self, state: &mut State) {
        let mut peers: HashSet<Arc<Peer>> = HashSet::new();
        if self.mode != PolicyMode::Never {
            let rules = state.policies.values().flat_map(|(policy, _)| &policy.rules);
            for entry in rules.flat_map(|rule| &rule.entries) {
                if let Peers::Selected(selected) = &entry.peers {
                    peers.extend(selected.iter().cloned());
                }
            }
        }
        // In a cluster of one family the world has no label that tells it from the other one's.
        peers.retain(|peer| !matches!(&**peer, Peer::Cidr { net, .. } if !state.own.uses_family_of(net)));
        let mut cidrs = BTreeSet::new();
        for peer in &peers {
            if let Peer::Cidr { net, except } = &**peer {
                cidrs.extend(std::iter::once(net).chain(except).copied());
            }
        }
        peers.extend(
            state.services.values().filter_map(|service| services::pods(service, &state.own.cluster)),
        );
        state.selectors.retain(&peers);
        state.set_cidrs(&cidrs);
    }

    fn policies(
        &mut self,
        state: &State,
        edits: &mut Edits,
        all: bool,
        changed: &HashSet<Arc<Peer>>,
        moved: &HashSet<Identity>,
    ) {
        // Before the first policies are read a pod would be free to talk to anyone.
        if !state.objects_synced {
            return;
        }
        self.endpoints.retain(|id, _| {
            let stays = state.endpoints.get(id).is_some_and(|endpoint| endpoint.identity.is_some());
            if !stays {
                edits.gone_endpoints.push(*id);
            }
            stays
        });
        // Pods with the same labels share one policy.
        let mut fresh: Vec<(Arc<EndpointPolicy>, Arc<Policy>)> = Vec::new();
        for (&id, Endpoint { spec, named_ports, identity, .. }) in &state.endpoints {
            let Some((identity, labels)) = identity else { continue };
            let up_to_date = |old: &&Published| {
                !all && old.policy.is_for(labels, named_ports)
                    && old.policy.uses.is_disjoint(changed)
                    && (!old.policy.named_egress || moved.is_empty())
            };
            let old = self.endpoints.get(&id).filter(up_to_date);
            let known = old.map(|old| (old.policy.clone(), old.endpoint.policy.clone()));
            let known =
                known.or_else(|| fresh.iter().find(|(new, _)| new.is_for(labels, named_ports)).cloned());
            let (policy, table) = known.unwrap_or_else(|| {
                let policy = self.rules.resolve(state, labels, named_ports, self.mode);
                let table = Arc::new(Policy::compile(&policy.spec));
                fresh.push((Arc::new(policy), table));
                fresh[fresh.len() - 1].clone()
            });
            let endpoint = tables::Endpoint {
                id,
                ifindex: spec.ifindex,
                mac: parse_mac(&spec.mac),
                addresses: spec.addresses.iter().map(|address| Address::from(*address)).collect(),
                identity: *identity,
                policy: table,
            };
            if self.endpoints.get(&id).is_none_or(|old| !same(&old.endpoint, &endpoint)) {
                edits.endpoints.push(endpoint.clone());
            }
            self.endpoints.insert(id, Published { endpoint, policy });
        }
    }
}

impl Edits {
    fn publish(self, publisher: &Publisher, hops: &mut HashMap<HopId, u32>) {
        let nothing = self.prefixes.is_empty()
            && self.endpoints.is_empty()
            && self.gone_endpoints.is_empty()
            && self.services.changed.is_empty()
            && self.services.gone.is_empty();
        if !nothing {
            publisher.edit(|snapshot| self.apply(snapshot, hops));
        }
    }

    fn apply(self, snapshot: &mut Snapshot, hops: &mut HashMap<HopId, u32>) {
        let mut left = HashSet::new();
        for (prefix, entry) in self.prefixes {
            let old = match entry {
                Some((identity, host)) => {
                    let hop = host.map_or(HopId::NONE, |host| snapshot.hops.intern(Address::from(host)));
                    *hops.entry(hop).or_default() += 1;
                    snapshot.ipcache.upsert(prefix, IpEntry { identity, hop })
                }
                None => snapshot.ipcache.remove(prefix),
            };
            if let Some(IpEntry { hop, .. }) = old
                && let Some(uses) = hops.get_mut(&hop)
            {
                *uses -= 1;
                left.insert(hop);
            }
        }
        // A node that nothing is behind any more need not be looked for.
        for hop in left {
            if hops.get(&hop) == Some(&0) {
                hops.remove(&hop);
                snapshot.hops.remove(hop);
            }
        }
        for id in self.gone_endpoints {
            snapshot.endpoints.remove(id);
        }
        for endpoint in self.endpoints {
            snapshot.endpoints.upsert(endpoint);
        }
        for frontend in self.services.gone {
            snapshot.services.remove(frontend);
        }
        for service in self.services.changed {
            snapshot.services.upsert(service);
        }
    }
}

fn same(a: &tables::Endpoint, b: &tables::Endpoint) -> bool {
    a.ifindex == b.ifindex
        && a.mac == b.mac
        && a.addresses == b.addresses
        && a.identity == b.identity
        && Arc::ptr_eq(&a.policy, &b.policy)
}

/// All-zero if it cannot be read: nothing is delivered to that address.
fn parse_mac(text: &str) -> MacAddr {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        match parts.next().and_then(|part| u8::from_str_radix(part, 16).ok()) {
            Some(value) => *byte = value,
            None => return MacAddr::default(),
        }
    }
    MacAddr(mac)
}
