//! What is known of one cluster: values, checked before they are believed. A value that is refused is
//! counted and leaves the last good one in force.

mod check;
mod held;
mod refusals;
#[cfg(test)]
mod tests;

use self::check::Value;
use self::held::{Held, Key};
use self::refusals::Refusals;
use super::keys::{self, Kind, Name};
use super::overlap::Nodes;
use super::persist::Journal;
use super::slices::Slices;
use super::store::{Change, Entry};
use crate::update::Update;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

pub(super) struct View {
    cluster: String,
    id: u32,
    /// Services are only of use when they are another cluster's.
    services_wanted: bool,
    held: BTreeMap<Kind, Held>,
    slices: Slices,
    /// Digests are of this view alone, so that nobody can make values that have the same.
    digests: RandomState,
    /// Where what is held is written down, if anywhere.
    journal: Option<Journal>,
    refusals: Refusals,
}

impl View {
    pub(super) fn new(cluster: String, id: u32, services_wanted: bool) -> View {
        View {
            cluster,
            id,
            services_wanted,
            held: BTreeMap::new(),
            slices: Slices::default(),
            digests: RandomState::new(),
            journal: None,
            refusals: Refusals::default(),
        }
    }

    /// Id of the cluster, 0 while it is not known.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// To be called only while nothing is known.
    pub(super) fn set_id(&mut self, id: u32) {
        self.id = id;
        self.journal.iter().for_each(|journal| journal.begin(id));
    }

    /// From now on writes down what is held.
    pub(super) fn write_to(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// How much of a kind is known.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.held.get(&kind).map_or(0, Held::len)
    }

    /// How many services are known, in whatever form.
    pub(super) fn services(&self) -> usize {
        self.count(Kind::Services) + self.slices.len()
    }

    /// How many values were refused so far, and the newest refusal.
    pub(super) fn refused(&self) -> (u64, Option<&str>) {
        (self.refusals.count, self.refusals.newest.as_deref())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.values().all(|held| held.len() == 0)
    }

    /// A new listing of a kind begins: all of the kind is suspect until it is seen again.
    pub(super) fn mark(&mut self, kind: Kind) {
        self.held.entry(kind).or_default().mark();
        self.refusals.mark(kind);
    }

    /// How much is suspect of a kind.
    pub(super) fn suspects(&self, kind: Kind) -> usize {
        self.held.get(&kind).map_or(0, Held::suspects)
    }

    /// The listing was complete: forgets what is still suspect.
    pub(super) fn sweep(&mut self, kind: Kind, nodes: &mut Nodes) -> Vec<Update> {
        self.refusals.sweep(kind);
        let gone = self.held.entry(kind).or_default().sweep();
        let gone = gone.iter().filter_map(|key| key.name(kind));
        let mut updates: Vec<_> = gone.flat_map(|name| self.gone(&name, nodes)).collect();
        updates.extend(self.settle());
        updates.extend(kind.other_form().into_iter().flat_map(|form| self.retire(form)));
        updates
    }

    /// A cluster offers its services in another form from now on: forgets this one. What is there in
    /// both stays without a gap.
    fn retire(&mut self, form: Kind) -> Vec<Update> {
        let held = self.held.remove(&form).unwrap_or_default();
        let names: Vec<_> = held.into_keys().iter().filter_map(|key| key.name(form)).collect();
        self.journal.iter().for_each(|journal| names.iter().for_each(|name| journal.delete(name)));
        let services = match form {
            Kind::EndpointSlices => {
                self.slices.drain().into_iter().map(|(of, name)| Name::Service(of, name)).collect()
            }
            _ => names,
        };
        let other = self.held.get(&Kind::Services);
        let mut updates = Vec::new();
        for service in services {
            let offered = other.is_some_and(|held| held.contains(&Key::of(&service)));
            let Name::Service(namespace, name) = service else { continue };
            let service = (namespace, name);
            if !offered && !self.slices.contains(&service) {
                updates.push(Update::ServiceDelete(self.cluster.clone(), service.0, service.1));
            }
        }
        updates
    }

    /// Applies one change, key given without the prefix of its kind; tells what it means, or `None` if
    /// nothing. What slices mean is told by [`View::settle`].
    pub(super) fn apply(&mut self, kind: Kind, change: &Change, nodes: &mut Nodes) -> Option<Vec<Update>> {
        match change {
            Change::Put(entry) => self.put(kind, entry, nodes),
            Change::Delete(key) => {
                self.refusals.remove(kind, key);
                // A key that is none was refused when it came.
                self.forget(&keys::parse(kind, key).ok()?, nodes)
            }
        }
    }

    /// To be called after changes of slices: tells what they mean for services.
    pub(super) fn settle(&mut self) -> Vec<Update> {
        self.slices.settle(&self.cluster)
    }

    /// To be called after a listing of a kind, or changes that came together.
    pub(super) fn sum_up(&mut self, kind: Kind) {
        self.refusals.sum_up(kind, &self.cluster);
    }

    /// Forgets everything.
    pub(super) fn drain(&mut self, nodes: &mut Nodes) -> Vec<Update> {
        let journal = self.journal.take();
        let mut updates = Vec::new();
        for (kind, held) in std::mem::take(&mut self.held) {
            for name in held.into_keys().iter().filter_map(|key| key.name(kind)) {
                updates.extend(self.gone(&name, nodes));
            }
        }
        updates.extend(self.settle());
        self.refusals.forget();
        journal.iter().for_each(|journal| journal.begin(self.id));
        self.journal = journal;
        updates
    }

    fn put(&mut self, kind: Kind, entry: &Entry, nodes: &mut Nodes) -> Option<Vec<Update>> {
        // Two values of 64 bits are the same by chance once in 10^19 changes.
        let digest = self.digests.hash_one(&entry.value);
        let checked = keys::parse(kind, &entry.key).and_then(|name| {
            if self.held.entry(kind).or_default().see(&Key::of(&name)) == Some(digest) {
                return Ok(None);
            }
            self.check(&name, &entry.value).map(|value| Some((name, value)))
        });
        if checked.is_ok() {
            self.refusals.remove(kind, &entry.key);
        }
        let (name, value) = match checked {
            Ok(None) => return None,
            Ok(Some((name, Value::Withdrawn))) => return self.forget(&name, nodes),
            Ok(Some(checked)) => checked,
            Err(problem) => {
                let why = || format!("{} {}/{}: {problem}", kind.name(), self.cluster, entry.key);
                self.refusals.add(kind, &entry.key, digest, why);
                return None;
            }
        };
        self.journal.iter().for_each(|journal| journal.put(&name, &entry.value));
        self.held.entry(kind).or_default().put(Key::of(&name), digest);
        Some(match value {
            Value::Node(node, cidrs) => nodes.upsert(*node, cidrs),
            Value::Identity(id, labels) => vec![Update::IdentityUpsert(id, labels)],
            Value::Ip(net, record) => vec![Update::IpUpsert(self.cluster.clone(), net, record)],
            Value::Service(service) => vec![Update::ServiceUpsert(service)],
            Value::EndpointSlice(slice, contribution) => {
                self.slices.put(slice, contribution);
                vec![]
            }
            Value::Withdrawn => vec![],
        })
    }

    fn forget(&mut self, name: &Name, nodes: &mut Nodes) -> Option<Vec<Update>> {
        let held = self.held.entry(name.kind()).or_default().remove(&Key::of(name));
        held.then(|| self.gone(name, nodes))
    }

    /// What it means that something is not held any more.
    fn gone(&mut self, name: &Name, nodes: &mut Nodes) -> Vec<Update> {
        self.journal.iter().for_each(|journal| journal.delete(name));
        let cluster = self.cluster.clone();
        match name {
            Name::Node(node) => nodes.delete(&cluster, node),
            Name::Identity(id) => vec![Update::IdentityDelete(*id)],
            Name::Ip(net) => vec![Update::IpDelete(cluster, *net)],
            Name::Service(namespace, name) => {
                vec![Update::ServiceDelete(cluster, namespace.clone(), name.clone())]
            }
            Name::EndpointSlice(namespace, name) => {
                self.slices.remove(&(namespace.clone(), name.clone()));
                vec![]
            }
        }
    }
}
