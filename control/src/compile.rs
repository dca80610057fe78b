//! State → tables, as far as it changed.

use crate::agent::PolicyMode;
use crate::ipcache::Resolved;
use crate::objects::Readiness;
use crate::policy::{Peer, Peers};
use crate::records;
use crate::services::{self, LocalBackend, Merged};
use crate::state::{Endpoint, Name, State};
use ipnet::IpNet;
use rules::{EndpointPolicy, Registry};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tables::{Backend, Frontend, HopId, IpEntry, Policy, Publisher, ServiceSpec, Snapshot};
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
    pub(crate) ipcache: BTreeMap<IpNet, Resolved>,
    pub(crate) endpoints: BTreeMap<u16, Published>,
    pub(crate) services: BTreeMap<Name, Vec<Merged>>,
    /// Numbers of frontends, and the services that have them; the one that had it first counts.
    pub(crate) frontends: BTreeMap<Frontend, (u32, Vec<Name>)>,
    last_service_id: u32,
    /// What the backends in this cluster are; the export follows from it.
    local_backends: BTreeMap<Name, BTreeSet<LocalBackend>>,
}

/// A local pod in the tables.
#[derive(Debug)]
pub(crate) struct Published {
    endpoint: tables::Endpoint,
    pub(crate) policy: Arc<EndpointPolicy>,
}

/// Edits that make the tables equal to the state.
#[derive(Debug, Default)]
struct Edits {
    prefixes: Vec<(IpNet, Option<Resolved>)>,
    endpoints: Vec<tables::Endpoint>,
    gone_endpoints: Vec<u16>,
    services: Vec<ServiceSpec>,
    gone_services: Vec<Frontend>,
}

impl Compiler {
    /// Nothing was published yet.
    pub fn new(mode: PolicyMode) -> Self {
        Compiler {
            mode,
            rules: Registry::default(),
            ipcache: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            services: BTreeMap::new(),
            frontends: BTreeMap::new(),
            last_service_id: 0,
            local_backends: BTreeMap::new(),
        }
    }

    /// Publishes what changed in one step, so that no packet sees an address with an identity that
    /// the policies do not know yet.
    pub fn run(&mut self, state: &mut State, publisher: &Publisher) {
        let dirty = std::mem::take(&mut state.dirty);
        if dirty.policies || !dirty.services.is_empty() {
            self.select(state);
        }
        if dirty.policies {
            self.rules.forget_all_but(state.policies.keys());
        }
        let changed = state.selectors.take_changed();
        let moved = state.ipcache.take_moved();
        let mut edits = Edits::default();
        self.prefixes(state, &mut edits);
        self.policies(state, &mut edits, dirty.policies, &changed, &moved);
        self.services(state, &mut edits, dirty.services, &changed, &moved);
        edits.publish(publisher);
    }

    /// All services that this cluster offers to others.
    pub fn exports(&self, state: &State) -> BTreeMap<Name, records::Service> {
        let own = &state.own;
        let none = BTreeSet::new();
        let export = |(name, service): (&Name, _)| {
            let local = self.local_backends.get(name).unwrap_or(&none);
            Some((name.clone(), services::export(service, &own.cluster, own.cluster_id, local)?))
        };
        state.services.iter().filter_map(export).collect()
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

    fn prefixes(&mut self, state: &mut State, edits: &mut Edits) {
        for prefix in state.ipcache.take_changed() {
            let new = state.ipcache.resolve(prefix);
            if self.ipcache.get(&prefix) != new.as_ref() {
                match new.clone() {
                    Some(new) => self.ipcache.insert(prefix, new),
                    None => self.ipcache.remove(&prefix),
                };
                edits.prefixes.push((prefix, new));
            }
        }
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

    fn services(
        &mut self,
        state: &State,
        edits: &mut Edits,
        mut dirty: BTreeSet<Name>,
        changed: &HashSet<Arc<Peer>>,
        moved: &HashSet<Identity>,
    ) {
        for (name, service) in state.services.iter().filter(|(name, _)| !state.slices.contains_key(*name)) {
            let Some(peer) = services::pods(service, &state.own.cluster) else { continue };
            let selects =
                |identity| state.selectors.labels(identity).is_some_and(|labels| peer.matches(labels));
            if changed.contains(&peer) || moved.iter().any(|identity| selects(*identity)) {
                dirty.insert(name.clone());
            }
        }
        let none = BTreeMap::new();
        let mut touched = BTreeSet::new();
        for name in dirty {
            let local = services::local_backends(state, &name);
            let merged = state.services.get(&name).map(|service| {
                let remote = state.remote_services.get(&name).unwrap_or(&none);
                services::merge(service, &state.own.cluster, &local, remote, &state.stale)
            });
            let old = match &merged {
                Some(merged) => self.services.insert(name.clone(), merged.clone()),
                None => self.services.remove(&name),
            };
            match state.services.contains_key(&name) {
                true => self.local_backends.insert(name.clone(), local),
                false => self.local_backends.remove(&name),
            };
            let (old, merged) = (old.unwrap_or_default(), merged.unwrap_or_default());
            let changed = old.iter().filter(|old| !merged.contains(old));
            touched.extend(changed.chain(merged.iter().filter(|new| !old.contains(new))).map(|m| m.frontend));
            let kept: HashSet<_> = merged.iter().map(|new| new.frontend).collect();
            for gone in old.iter().map(|old| old.frontend).filter(|frontend| !kept.contains(frontend)) {
                if let Some((_, names)) = self.frontends.get_mut(&gone) {
                    names.retain(|other| *other != name);
                }
            }
            for new in kept {
                let (_, names) = self.frontends.entry(new).or_insert_with(|| {
                    self.last_service_id += 1;
                    (self.last_service_id, Vec::new())
                });
                if !names.contains(&name) {
                    names.push(name.clone());
                }
            }
        }
        for frontend in touched {
            match self.service(frontend) {
                Some(service) => edits.services.push(service),
                None => {
                    self.frontends.remove(&frontend);
                    edits.gone_services.push(frontend);
                }
            }
        }
    }

    /// What the tables get to see of a frontend; `None` if no service has it.
    fn service(&self, frontend: Frontend) -> Option<ServiceSpec> {
        let (id, names) = self.frontends.get(&frontend)?;
        let merged = self.services.get(names.first()?)?.iter().find(|merged| merged.frontend == frontend)?;
        let backend = |(&(address, port), backend): (&_, &services::MergedBackend)| Backend {
            address: Address::from(address),
            port,
            selectable: backend.selectable,
        };
        Some(ServiceSpec { id: *id, frontend, backends: merged.backends.iter().map(backend).collect() })
    }

    /// Frontends that more than one service has.
    pub(crate) fn contested_frontends(&self) -> impl Iterator<Item = String> {
        self.frontends.iter().filter_map(|(frontend, (_, names))| {
            let mut names = names.iter().map(|(namespace, name)| format!("{namespace}/{name}"));
            let (first, second) = (names.next()?, names.next()?);
            let Frontend { address, port, proto } = frontend;
            Some(format!(
                "service {second}: {address}:{port}/{proto} is that of service {first} already; \
                 every service needs its own clusterIP"
            ))
        })
    }
}

impl Edits {
    fn publish(self, publisher: &Publisher) {
        let nothing = self.prefixes.is_empty()
            && self.endpoints.is_empty()
            && self.gone_endpoints.is_empty()
            && self.services.is_empty()
            && self.gone_services.is_empty();
        if !nothing {
            publisher.edit(|snapshot| self.apply(snapshot));
        }
    }

    fn apply(self, snapshot: &mut Snapshot) {
        for (prefix, entry) in self.prefixes {
            match entry {
                Some(Resolved { identity, host, .. }) => {
                    let hop = host.map_or(HopId::NONE, |host| snapshot.hops.intern(Address::from(host)));
                    snapshot.ipcache.upsert(prefix, IpEntry { identity, hop });
                }
                None => {
                    snapshot.ipcache.remove(prefix);
                }
            }
        }
        for id in self.gone_endpoints {
            snapshot.endpoints.remove(id);
        }
        for endpoint in self.endpoints {
            snapshot.endpoints.upsert(endpoint);
        }
        for frontend in self.gone_services {
            snapshot.services.remove(frontend);
        }
        for service in self.services {
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

/// The name of a backend's state in `service list`.
pub(crate) fn state_name(state: Readiness) -> &'static str {
    match state {
        Readiness::Ready => "active",
        Readiness::Terminating => "terminating",
        Readiness::NotReady => "not-ready",
    }
}
