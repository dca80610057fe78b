//! What is known of one cluster: raw values, checked before they are believed (`cilium-interop`
//! 2.3–2.7). A value that is refused is counted and leaves the last good one in force.

use super::keys::{self, Kind, Name};
use super::overlap::Nodes;
use super::store::{Change, Entry};
use crate::labels::{self, Labels};
use crate::records::{IpIdentity, Node, Service};
use crate::update::Update;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::IpAddr;
use wire::Identity;

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

/// A value in its typed form.
enum Value {
    Node(Box<Node>, Vec<IpNet>),
    Identity(Identity, Labels),
    Ip(IpNet, IpIdentity),
    Service(Service),
    /// There, but to be treated as if it were not.
    Withdrawn,
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

    fn check(&self, name: &Name, value: &[u8]) -> Result<Value, String> {
        match name {
            Name::Node(name) => self.check_node(name, json(value)?),
            Name::Identity(id) => self.check_identity(*id, value),
            Name::Ip(net) => self.check_ip(*net, json(value)?),
            Name::Service(namespace, name) => self.check_service(namespace, name, json(value)?),
        }
    }

    fn check_cluster(&self, field: &str, cluster: &str, id_field: &str, id: u32) -> Result<(), String> {
        if cluster != self.cluster {
            return Err(format!("{field} is '{cluster}', not '{}'", self.cluster));
        }
        if id != self.id {
            return Err(format!("{id_field} is {id}, not {}", self.id));
        }
        Ok(())
    }

    fn check_node(&self, name: &str, node: Node) -> Result<Value, String> {
        self.check_cluster("Cluster", &node.cluster, "ClusterID", node.cluster_id)?;
        if node.name != name {
            return Err(format!("Name is '{}', not that of the key", node.name));
        }
        for address in &node.ip_addresses {
            check_ip_text("IPAddresses", &address.ip)?;
        }
        let cidrs =
            node.pod_cidrs().map_err(|cidr| format!("pod CIDR {cidr} is not a prefix with a base64 mask"))?;
        Ok(Value::Node(Box::new(node), cidrs))
    }

    fn check_identity(&self, id: Identity, value: &[u8]) -> Result<Value, String> {
        if id.cluster() != self.id {
            return Err(format!(
                "number {} is outside of {}–{}",
                id.0,
                self.id << 16,
                (self.id << 16) + 0xffff
            ));
        }
        let text = std::str::from_utf8(value).map_err(|_| "labels are not UTF-8".to_owned())?;
        let labels = Labels::parse(text);
        match labels.0.get(labels::CLUSTER) {
            Some(label) if label.source == "k8s" && label.value == self.cluster => {
                Ok(Value::Identity(id, labels))
            }
            _ => Err(format!("labels '{text}' lack k8s:{}={}", labels::CLUSTER, self.cluster)),
        }
    }

    fn check_ip(&self, net: IpNet, mut record: IpIdentity) -> Result<Value, String> {
        if record.net() != Some(net) {
            return Err(format!("IP '{}' with Mask {:?} is not that of the key", record.ip, record.mask));
        }
        if net.trunc() != net {
            return Err(format!("the prefix has bits beyond its mask; {} would be right", net.trunc()));
        }
        check_ip_text("HostIP", &record.host_ip)?;
        let id = Identity(record.id);
        if !id.is_reserved() && id.cluster() != self.id {
            return Err(format!(
                "ID {} is neither reserved (below 256) nor in {}–{}",
                id.0,
                self.id << 16,
                (self.id << 16) + 0xffff
            ));
        }
        // Their host is not this host.
        if id == Identity::HOST {
            record.id = Identity::REMOTE_NODE.0;
        }
        Ok(Value::Ip(net, record))
    }

    fn check_service(&self, namespace: &str, name: &str, service: Service) -> Result<Value, String> {
        self.check_cluster("cluster", &service.cluster, "clusterID", service.cluster_id)?;
        if (service.namespace.as_str(), service.name.as_str()) != (namespace, name) {
            return Err(format!("it is {}/{}, not that of the key", service.namespace, service.name));
        }
        for ip in service.frontends.keys().chain(service.backends.keys()) {
            if ip.parse::<IpAddr>().is_err() {
                return Err(format!("'{ip}' among frontends and backends is not an address"));
            }
        }
        Ok(if service.shared && self.services_wanted { Value::Service(service) } else { Value::Withdrawn })
    }
}

fn json<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| format!("value is not the right JSON: {error}"))
}

/// Go's `net.IP`: an address, or nothing.
fn check_ip_text(field: &str, text: &str) -> Result<(), String> {
    match text.is_empty() || text.parse::<IpAddr>().is_ok() {
        true => Ok(()),
        false => Err(format!("{field} '{text}' is not an address")),
    }
}

#[cfg(test)]
mod tests;
