//! All services as they were published last, so that only what changed is made anew.

use super::{LocalBackend, Merged, Sources, export, local_backends, merge, pods};
use crate::policy::Peer;
use crate::records;
use crate::state::{Name, State};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use tables::{Backend, Frontend, ServiceSpec};
use wire::{Address, Identity};

/// Services that get the next step of a gradual shift, or other preferences, at a time: when a cluster joins or
/// stays away all are due at once, and others wait for the lock meanwhile.
pub(super) const STEPS_PER_TURN: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Catalog {
    pub(super) merged: BTreeMap<Name, Vec<Merged>>,
    /// Numbers of frontends, and the services that have them; the one that had it first counts.
    pub(crate) frontends: BTreeMap<Frontend, (u32, Vec<Name>)>,
    last_id: u32,
    /// Services that find their backends by a selector.
    selections: BTreeMap<Name, Selection>,
    by_peer: HashMap<Arc<Peer>, BTreeSet<Name>>,
    by_identity: HashMap<Identity, BTreeSet<Name>>,
    /// When these are due for the next step of a gradual shift, or to be looked at again.
    steps: BTreeMap<Name, Instant>,
    exports: BTreeMap<Name, records::Service>,
    /// The exports are what [`Catalog::take_exports`] gave the last time.
    exports_taken: bool,
}

/// The pods that a service selects.
#[derive(Debug)]
struct Selection {
    peer: Arc<Peer>,
    identities: Arc<[Identity]>,
}

/// What has to be edited in the tables.
#[derive(Debug, Default)]
pub struct Edits {
    /// Services that are new or other than before.
    pub changed: Vec<ServiceSpec>,
    /// Frontends that no service has any more.
    pub gone: Vec<Frontend>,
}

impl Catalog {
    /// Makes anew what follows from `dirty` services, from selectors whose members `changed`, from
    /// identities whose addresses `moved` and from the time.
    pub(crate) fn update(
        &mut self,
        state: &State,
        mut dirty: BTreeSet<Name>,
        changed: &HashSet<Arc<Peer>>,
        moved: &HashSet<Identity>,
        now: Instant,
    ) -> Edits {
        dirty.extend(changed.iter().filter_map(|peer| self.by_peer.get(peer)).flatten().cloned());
        dirty.extend(moved.iter().filter_map(|identity| self.by_identity.get(identity)).flatten().cloned());
        dirty.extend(self.due(now));
        let mut touched = BTreeSet::new();
        for name in dirty {
            self.select(state, &name);
            let local = local_backends(state, &name);
            self.export(state, &name, &local);
            let old = self.merged.remove(&name).unwrap_or_default();
            let merged = self.merge(state, &name, &local, &old, now);
            let changed = old.iter().filter(|old| !merged.contains(old));
            touched.extend(changed.chain(merged.iter().filter(|new| !old.contains(new))).map(|m| m.frontend));
            self.number(&name, &old, &merged);
            if state.services.contains_key(&name) {
                self.merged.insert(name, merged);
            }
        }
        let mut edits = Edits::default();
        for frontend in touched {
            match self.spec(frontend) {
                Some(service) => edits.changed.push(service),
                None => {
                    self.frontends.remove(&frontend);
                    edits.gone.push(frontend);
                }
            }
        }
        edits
    }

    /// Has services made anew soon, a few at a time.
    pub(crate) fn defer(&mut self, names: BTreeSet<Name>, now: Instant) {
        self.steps.extend(names.into_iter().map(|name| (name, now)));
    }

    /// Services whose next step is due, those that wait for the longest time first; not all at once.
    fn due(&self, now: Instant) -> impl Iterator<Item = Name> {
        let mut due: Vec<_> =
            self.steps.iter().filter(|(_, due)| **due <= now).map(|(name, due)| (*due, name)).collect();
        due.sort_unstable();
        due.into_iter().take(STEPS_PER_TURN).map(|(_, name)| name.clone())
    }

    /// When there is something to be done although nothing has changed.
    pub(crate) fn next_step(&self) -> Option<Instant> {
        self.steps.values().min().copied()
    }

    /// All services that this cluster offers to others, if they are not what they were at the last call.
    pub(crate) fn take_exports(&mut self) -> Option<&BTreeMap<Name, records::Service>> {
        (!std::mem::replace(&mut self.exports_taken, true)).then_some(&self.exports)
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

    /// Notes which pods a service selects, if slices do not name its backends.
    fn select(&mut self, state: &State, name: &Name) {
        fn remove<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<Name>>, key: &K, name: &Name) {
            if let Some(names) = index.get_mut(key) {
                names.remove(name);
                if names.is_empty() {
                    index.remove(key);
                }
            }
        }
        if let Some(old) = self.selections.remove(name) {
            remove(&mut self.by_peer, &old.peer, name);
            old.identities.iter().for_each(|identity| remove(&mut self.by_identity, identity, name));
        }
        let service = state.services.get(name).filter(|_| !state.slices.contains_key(name));
        if let Some(peer) = service.and_then(|service| pods(service, &state.own.cluster)) {
            let identities = state.selectors.members(&peer);
            self.by_peer.entry(peer.clone()).or_default().insert(name.clone());
            for identity in identities.iter() {
                self.by_identity.entry(*identity).or_default().insert(name.clone());
            }
            self.selections.insert(name.clone(), Selection { peer, identities });
        }
    }

    fn export(&mut self, state: &State, name: &Name, local: &[LocalBackend]) {
        let own = &state.own;
        let service = state.services.get(name);
        let new = service.and_then(|service| export(service, &own.cluster, own.cluster_id, local));
        if self.exports.get(name) != new.as_ref() {
            self.exports_taken = false;
            match new {
                Some(new) => self.exports.insert(name.clone(), new),
                None => self.exports.remove(name),
            };
        }
    }

    fn merge(
        &mut self,
        state: &State,
        name: &Name,
        local: &[LocalBackend],
        old: &[Merged],
        now: Instant,
    ) -> Vec<Merged> {
        let none = BTreeMap::new();
        let remote = state.remote_services.get(name).unwrap_or(&none);
        let sources =
            |service| Sources { service, own: &state.own.cluster, local, remote, stale: &state.stale };
        let service = state.services.get(name);
        let merged = service.map(|service| merge(&sources(service), old, now)).unwrap_or_default();
        match merged.iter().filter_map(|merged| merged.shift.next_step(now)).min() {
            Some(due) => self.steps.insert(name.clone(), due),
            None => self.steps.remove(name),
        };
        merged
    }

    /// Gives a number to every frontend that is new; those that the service has lost may be
    /// another one's too.
    fn number(&mut self, name: &Name, old: &[Merged], merged: &[Merged]) {
        let kept: HashSet<_> = merged.iter().map(|new| new.frontend).collect();
        for gone in old.iter().map(|old| old.frontend).filter(|frontend| !kept.contains(frontend)) {
            if let Some((_, names)) = self.frontends.get_mut(&gone) {
                names.retain(|other| other != name);
            }
        }
        for new in merged.iter().map(|new| new.frontend) {
            let (_, names) = self.frontends.entry(new).or_insert_with(|| {
                self.last_id += 1;
                (self.last_id, Vec::new())
            });
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }

    /// What the tables get to see of a frontend; `None` if no service has it.
    fn spec(&self, frontend: Frontend) -> Option<ServiceSpec> {
        let (id, names) = self.frontends.get(&frontend)?;
        let merged = self.merged.get(names.first()?)?.iter().find(|merged| merged.frontend == frontend)?;
        let backends = merged.backends.iter().map(|(&(address, port), backend)| Backend {
            address: Address::from(address),
            port,
            weight: backend.weight,
        });
        Some(ServiceSpec { id: *id, frontend, backends: backends.collect() })
    }
}
