//! Everything control was told, folded into one state: stores of all clusters, objects, local pods.
//!
//! The order in which things arrive does not matter for what comes out. What has to be compiled
//! anew is noted in [`Dirty`].

use crate::ipcache::{Claim, IpCache, Owner, Source};
use crate::labels::Labels;
use crate::model::{LocalEndpoint, ManifestError};
use crate::objects::{EndpointSlice, Namespace, Object, ObjectEvent, ObjectKey, Pod, Service};
use crate::policy::{PolicyObject, cidr};
use crate::records;
use crate::selectors::Selectors;
use crate::update::Update;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use wire::Identity;

mod addresses;
mod endpoints;
mod nodes;
#[cfg(test)]
mod tests;

/// Namespace and name.
pub type Name = (String, String);

/// The node that control runs on.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Its cluster.
    pub cluster: String,
    /// Number of the cluster.
    pub cluster_id: u32,
    /// Its name.
    pub node: String,
    /// Addresses that other nodes reach it by.
    pub addresses: Vec<IpAddr>,
    /// Gateway addresses of its pods.
    pub gateways: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<IpNet>,
    /// Both families are in use.
    pub dual_stack: bool,
}

impl Own {
    /// Whether packets of the family of this prefix are there at all.
    pub(crate) fn uses_family_of(&self, net: &IpNet) -> bool {
        self.dual_stack || self.pod_cidrs.iter().any(|own| own.addr().is_ipv4() == net.addr().is_ipv4())
    }
}

/// What has to be compiled anew.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Policies came, went or changed.
    pub policies: bool,
    /// Objects or records of these services changed.
    pub services: BTreeSet<Name>,
    /// Services of which only the preference among backends changed: many at once, but none is urgent.
    pub preferences: BTreeSet<Name>,
    /// Other selectors or prefixes may be in use: policies or services came, went or changed.
    pub selectors: bool,
}

/// A local pod.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// As the endpoint manager made it.
    pub spec: LocalEndpoint,
    /// The labels its identity should have.
    pub wanted: Labels,
    /// Its service account.
    pub service_account: Option<String>,
    /// Its named ports.
    pub named_ports: Vec<records::NamedPort>,
    /// The identity it has, and the labels that belong to it.
    pub identity: Option<(Identity, Labels)>,
    /// The allocator gave it, this time and not before a restart.
    pub confirmed: bool,
    /// Why it has no identity, or not the wanted one.
    pub error: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    pub(crate) own: Own,
    /// Numbers of the other clusters.
    clusters: BTreeMap<String, u32>,
    pub(crate) nodes: BTreeMap<Name, records::Node>,
    /// Identities as the stores have them.
    stored: HashMap<Identity, Labels>,
    pub(crate) selectors: Selectors,
    pub(crate) ipcache: IpCache,
    unlabelled: addresses::Unlabelled,
    /// What other clusters export, by service and cluster.
    pub(crate) remote_services: BTreeMap<Name, BTreeMap<String, records::Service>>,
    /// Clusters whose backends are a last resort.
    pub(crate) stale: BTreeSet<String>,
    pub(crate) endpoints: BTreeMap<u16, Endpoint>,
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<Name, Pod>,
    pub(crate) services: BTreeMap<Name, Service>,
    pub(crate) slices: BTreeMap<Name, BTreeMap<String, EndpointSlice>>,
    pub(crate) policies: BTreeMap<ObjectKey, (PolicyObject, String)>,
    pub(crate) manifest_errors: Vec<ManifestError>,
    /// What an earlier run knew is in.
    pub(crate) restored: bool,
    /// Clusters whose first complete view is in.
    pub(crate) synced: BTreeSet<String>,
    /// The first complete view of the objects is in.
    pub(crate) objects_synced: bool,
    pub(crate) dirty: Dirty,
}

impl State {
    /// Knows only its own node and the reserved identities.
    pub fn new(own: Own) -> Self {
        let mut state = State {
            ipcache: IpCache::new(own.dual_stack, own.pod_cidrs.clone()),
            clusters: BTreeMap::new(),
            nodes: BTreeMap::new(),
            stored: HashMap::new(),
            unlabelled: addresses::Unlabelled::default(),
            selectors: Selectors::default(),
            remote_services: BTreeMap::new(),
            stale: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            policies: BTreeMap::new(),
            manifest_errors: Vec::new(),
            restored: false,
            synced: BTreeSet::new(),
            objects_synced: false,
            dirty: Dirty::default(),
            own,
        };
        for (identity, labels) in reserved(state.own.dual_stack) {
            state.selectors.set(identity, Some(&labels));
        }
        for address in state.own.addresses.iter().chain(&state.own.gateways).copied().collect::<Vec<_>>() {
            let claim = Claim { identity: Identity::HOST, ..Claim::default() };
            state.ipcache.claim(address.into(), state.local_owner("node"), Some(claim));
        }
        state
    }

    /// Folds a change in a store.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::NodeUpsert(node) => self.set_node((node.cluster.clone(), node.name.clone()), Some(node)),
            Update::NodeDelete(cluster, name) => self.set_node((cluster, name), None),
            Update::IdentityUpsert(identity, labels) => {
                self.refuse_identity(identity, &labels);
                self.stored.insert(identity, labels);
                self.refresh_identity(identity);
            }
            Update::IdentityDelete(identity) => {
                self.stored.remove(&identity);
                self.refresh_identity(identity);
            }
            Update::IpUpsert(cluster, prefix, record) => {
                let owner = self.store_owner(&cluster, "ip");
                let host = record.host_ip.parse::<IpAddr>().ok();
                // What the store says of this node's pods is an echo, or from before a restart.
                let own =
                    owner.source == Source::Kvstore && host.is_some_and(|h| self.own.addresses.contains(&h));
                self.ipcache.claim(prefix, owner, (!own).then(|| claim_of(record, host)));
            }
            Update::IpDelete(cluster, prefix) => {
                self.ipcache.claim(prefix, self.store_owner(&cluster, "ip"), None);
            }
            Update::ServiceUpsert(service) if service.cluster == self.own.cluster => {}
            Update::ServiceUpsert(service) => {
                let name = (service.namespace.clone(), service.name.clone());
                self.dirty.services.insert(name.clone());
                self.remote_services.entry(name).or_default().insert(service.cluster.clone(), service);
            }
            Update::ServiceDelete(cluster, namespace, name) => {
                self.delete_service(&cluster, (namespace, name))
            }
            Update::ClusterServices { cluster, stale } => {
                let offered = self.remote_services.iter().filter(|(_, by)| by.contains_key(&cluster));
                self.dirty.preferences.extend(offered.map(|(name, _)| name.clone()));
                if stale {
                    self.stale.insert(cluster)
                } else {
                    self.stale.remove(&cluster)
                };
            }
            Update::Cluster(cluster, id) => _ = self.clusters.insert(cluster, id),
            Update::Restored => self.restored = true,
            Update::Synced(cluster) => {
                self.synced.insert(cluster);
            }
        }
    }

    /// Folds a change of an object.
    pub fn object(&mut self, event: ObjectEvent) {
        match event {
            ObjectEvent::Upsert { object, source } => self.upsert_object(object, source),
            ObjectEvent::Delete(key) => self.delete_object(key),
            ObjectEvent::Errors(errors) => self.manifest_errors = errors,
            ObjectEvent::Synced => self.objects_synced = true,
        }
    }

    /// The ip → identity records of the local pods, by key name.
    pub fn own_records(&self) -> BTreeMap<String, records::IpIdentity> {
        let v4 = self.own.addresses.iter().find(|address| address.is_ipv4());
        let host_ip = v4.or(self.own.addresses.first()).map(IpAddr::to_string).unwrap_or_default();
        let mut records = BTreeMap::new();
        for endpoint in self.endpoints.values() {
            let Some((identity, _)) = &endpoint.identity else { continue };
            for address in &endpoint.spec.addresses {
                let record = records::IpIdentity {
                    ip: address.to_string(),
                    host_ip: host_ip.clone(),
                    id: identity.0,
                    k8s_namespace: endpoint.spec.namespace.clone(),
                    k8s_pod_name: endpoint.spec.name.clone(),
                    k8s_service_account: endpoint.service_account.clone().unwrap_or_default(),
                    named_ports: endpoint.named_ports.clone(),
                    ..records::IpIdentity::default()
                };
                records.insert(address.to_string(), record);
            }
        }
        records
    }

    /// Makes these the prefixes that policies name.
    pub(crate) fn set_cidrs(&mut self, wanted: &BTreeSet<IpNet>) {
        let (new, gone) = self.ipcache.set_cidrs(wanted);
        for identity in gone {
            self.selectors.set(identity, None);
        }
        for (prefix, identity) in new {
            self.selectors.set(identity, Some(&cidr::labels(&prefix, self.own.dual_stack)));
        }
    }

    /// The labels of an identity: as stored, else as a local pod has it.
    fn refresh_identity(&mut self, identity: Identity) {
        if identity.is_reserved() {
            return;
        }
        let local = || {
            let mut held = self.endpoints.values().filter_map(|endpoint| endpoint.identity.as_ref());
            held.find(|(held, _)| *held == identity).map(|(_, labels)| labels)
        };
        let labels = self.stored.get(&identity).or_else(local);
        if labels.is_some() != self.selectors.labels(identity).is_some() {
            self.unlabelled.relabel(identity);
        }
        self.selectors.set(identity, labels);
    }

    fn delete_service(&mut self, cluster: &str, name: Name) {
        if let Some(clusters) = self.remote_services.get_mut(&name) {
            clusters.remove(cluster);
            if clusters.is_empty() {
                self.remote_services.remove(&name);
            }
            self.dirty.services.insert(name);
        }
    }

    fn upsert_object(&mut self, object: Object, source: String) {
        let key = object.key();
        let name = (key.namespace.clone(), key.name.clone());
        match object {
            Object::Namespace(namespace) => {
                self.namespaces.insert(key.name.clone(), namespace);
                self.rederive(&key.name);
            }
            Object::Pod(pod) => {
                self.pods.insert(name, pod);
                self.rederive(&key.namespace);
            }
            Object::Service(service) => {
                self.services.insert(name.clone(), service);
                self.dirty.services.insert(name);
                self.dirty.selectors = true;
            }
            Object::EndpointSlice(slice) => {
                self.delete_slice(&name);
                let service = (slice.namespace.clone(), slice.service.clone());
                self.slices.entry(service.clone()).or_default().insert(key.name, slice);
                self.dirty.services.insert(service);
            }
            Object::Policy(policy) => {
                self.policies.insert(key, (policy, source));
                (self.dirty.policies, self.dirty.selectors) = (true, true);
            }
        }
    }

    fn delete_object(&mut self, key: ObjectKey) {
        let name = (key.namespace.clone(), key.name.clone());
        match key.kind {
            "Namespace" => {
                self.namespaces.remove(&key.name);
                self.rederive(&key.name);
            }
            "Pod" => {
                self.pods.remove(&name);
                self.rederive(&key.namespace);
            }
            "Service" => {
                self.services.remove(&name);
                self.dirty.services.insert(name);
                self.dirty.selectors = true;
            }
            "EndpointSlice" => self.delete_slice(&name),
            _ => {
                self.policies.remove(&key);
                (self.dirty.policies, self.dirty.selectors) = (true, true);
            }
        }
    }

    /// A slice may change the service it belongs to, so it is looked for everywhere in its namespace.
    fn delete_slice(&mut self, (namespace, name): &Name) {
        let of_namespace = self.slices.iter_mut().filter(|((of, _), _)| of == namespace);
        for (service, slices) in of_namespace {
            if slices.remove(name).is_some() {
                self.dirty.services.insert(service.clone());
            }
        }
        self.slices.retain(|_, slices| !slices.is_empty());
    }

    /// Objects by kind.
    pub(crate) fn object_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::from([
            ("Namespace".to_string(), self.namespaces.len()),
            ("Pod".to_string(), self.pods.len()),
            ("Service".to_string(), self.services.len()),
            ("EndpointSlice".to_string(), self.slices.values().map(BTreeMap::len).sum()),
        ]);
        for key in self.policies.keys() {
            *counts.entry(key.kind.to_string()).or_default() += 1;
        }
        counts
    }

    fn local_owner(&self, part: &str) -> Owner {
        let (cluster_id, cluster) = (self.own.cluster_id, self.own.cluster.clone());
        Owner { source: Source::Local, cluster_id, cluster, part: part.into() }
    }

    fn store_owner(&self, cluster: &str, part: &str) -> Owner {
        let (source, cluster_id) = match self.clusters.get(cluster) {
            _ if cluster == self.own.cluster => (Source::Kvstore, self.own.cluster_id),
            id => (Source::Clustermesh, id.copied().unwrap_or_default()),
        };
        Owner { source, cluster_id, cluster: cluster.into(), part: part.into() }
    }
}

fn claim_of(record: records::IpIdentity, host: Option<IpAddr>) -> Claim {
    let pod = format!("{}/{}", record.k8s_namespace, record.k8s_pod_name);
    Claim {
        identity: Identity(record.id),
        host,
        pod: (!record.k8s_pod_name.is_empty()).then_some(pod),
        named_ports: record.named_ports,
    }
}

/// Identities with fixed numbers (`cilium-interop` 3.1).
fn reserved(dual_stack: bool) -> Vec<(Identity, Labels)> {
    let mut identities = vec![
        (1, vec!["host"]),
        (3, vec!["unmanaged"]),
        (4, vec!["health"]),
        (5, vec!["init"]),
        (6, vec!["remote-node"]),
        (7, vec!["kube-apiserver", "remote-node"]),
        (8, vec!["ingress"]),
    ];
    if dual_stack {
        identities.extend([(9, vec!["world-ipv4"]), (10, vec!["world-ipv6"])]);
    } else {
        identities.push((2, vec!["world"]));
    }
    let labels = |names: Vec<&str>| {
        let mut labels = Labels::default();
        names.into_iter().for_each(|name| labels.insert("reserved", name, ""));
        labels
    };
    identities.into_iter().map(|(number, names)| (Identity(number), labels(names))).collect()
}
