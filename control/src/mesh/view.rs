//! What is known of one cluster: raw values, checked before they are believed. A value that is refused is counted and leaves the last good one in force.

use self::check::Value;
use super::keys::{self, Kind, Name};
use super::overlap::Nodes;
use super::store::{Change, Entry};
use crate::update::Update;
use std::collections::BTreeMap;

pub(super) struct View {
    cluster: String,
    id: u32,
    /// Services are only of use when they are another cluster's.
    services_wanted: bool,
    known: BTreeMap<Name, Known>,
    /// Number of the newest listing of each kind.
    listing: BTreeMap<Kind, u64>,
    /// Values refused so far.
    pub(super) refused: u64,
    pub(super) last_refusal: Option<String>,
}

/// The last good value of a key.
struct Known {
    value: Vec<u8>,
    /// The listing in which, or after which, the key was last seen.
    listing: u64,
}

impl View {
    pub(super) fn new(cluster: String, id: u32, services_wanted: bool) -> View {
        View {
            cluster,
            id,
            services_wanted,
            known: BTreeMap::new(),
            listing: BTreeMap::new(),
            refused: 0,
            last_refusal: None,
        }
    }

    /// Id of the cluster, 0 while it is not known.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// To be called only while nothing is known.
    pub(super) fn set_id(&mut self, id: u32) {
        self.id = id;
    }

    /// How much of a kind is known.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.known.keys().filter(|name| name.kind() == kind).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A new listing of a kind begins: all of the kind is suspect until it is seen again.
    pub(super) fn mark(&mut self, kind: Kind) {
        *self.listing.entry(kind).or_default() += 1;
    }

    /// What is suspect of a kind.
    pub(super) fn suspects(&self, kind: Kind) -> impl Iterator<Item = &Name> {
        let listing = self.listing.get(&kind).copied().unwrap_or_default();
        self.known
            .iter()
            .filter(move |(name, known)| name.kind() == kind && known.listing < listing)
            .map(|(n, _)| n)
    }

    /// The listing was complete: forgets what is still suspect.
    pub(super) fn sweep(&mut self, kind: Kind, nodes: &mut Nodes) -> Vec<Update> {
        let gone: Vec<_> = self.suspects(kind).cloned().collect();
        gone.iter().flat_map(|name| self.forget(name, nodes)).collect()
    }

    /// Applies one change, key given without the prefix of its kind; tells what it means.
    pub(super) fn apply(&mut self, kind: Kind, change: &Change, nodes: &mut Nodes) -> Vec<Update> {
        match change {
            Change::Put(entry) => self.put(kind, entry, nodes),
            Change::Delete(key) => match keys::parse(kind, key) {
                Ok(name) => self.forget(&name, nodes),
                Err(_) => vec![], // refused when it came
            },
        }
    }

    /// Forgets everything.
    pub(super) fn drain(&mut self, nodes: &mut Nodes) -> Vec<Update> {
        let names: Vec<_> = self.known.keys().cloned().collect();
        names.iter().flat_map(|name| self.forget(name, nodes)).collect()
    }

    fn put(&mut self, kind: Kind, entry: &Entry, nodes: &mut Nodes) -> Vec<Update> {
        let listing = self.listing.get(&kind).copied().unwrap_or_default();
        let checked = keys::parse(kind, &entry.key).and_then(|name| {
            if let Some(known) = self.known.get_mut(&name) {
                known.listing = listing;
            }
            self.check(&name, &entry.value).map(|value| (name, value))
        });
        let (name, value) = match checked {
            Ok((name, Value::Withdrawn)) => return self.forget(&name, nodes),
            Ok(checked) => checked,
            Err(problem) => {
                self.refuse(format!("{} {}/{}: {problem}", kind.name(), self.cluster, entry.key));
                return vec![];
            }
        };
        let known = Known { value: entry.value.clone(), listing };
        let before = self.known.insert(name, known);
        if before.is_some_and(|before| before.value == entry.value) {
            return vec![];
        }
        match value {
            Value::Node(node, cidrs) => nodes.upsert(*node, cidrs),
            Value::Identity(id, labels) => vec![Update::IdentityUpsert(id, labels)],
            Value::Ip(net, record) => vec![Update::IpUpsert(self.cluster.clone(), net, record)],
            Value::Service(service) => vec![Update::ServiceUpsert(service)],
            Value::Withdrawn => vec![],
        }
    }

    fn forget(&mut self, name: &Name, nodes: &mut Nodes) -> Vec<Update> {
        if self.known.remove(name).is_none() {
            return vec![];
        }
        let cluster = self.cluster.clone();
        match name {
            Name::Node(node) => nodes.delete(&cluster, node),
            Name::Identity(id) => vec![Update::IdentityDelete(*id)],
            Name::Ip(net) => vec![Update::IpDelete(cluster, *net)],
            Name::Service(namespace, name) => {
                vec![Update::ServiceDelete(cluster, namespace.clone(), name.clone())]
            }
        }
    }

    fn refuse(&mut self, refusal: String) {
        tracing::warn!("refused: {refusal}");
        self.refused += 1;
        self.last_refusal = Some(refusal);
    }
}

mod check;
#[cfg(test)]
mod tests;
