//! A node's state, compiler and tables without a mesh, for the tests of this crate.

use crate::agent::{DropQuery, PolicyMode};
use crate::compile::Compiler;
use crate::labels::Labels;
use crate::manifests;
use crate::model::LocalEndpoint;
use crate::objects::{Object, ObjectEvent};
use crate::records::{IpIdentity, Node, NodeAddress};
use crate::state::{Own, State};
use crate::update::Update;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tables::{Decision, Direction, Publisher};
use wire::{Address, Identity, Protocol};

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) compiler: Compiler,
    pub(crate) publisher: Arc<Publisher>,
}

/// `a=1,b=2` as a map.
pub(crate) fn map(text: &str) -> BTreeMap<String, String> {
    let pairs =
        text.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').expect("k=v"));
    pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// The identity labels of a pod: cluster, namespace, labels.
pub(crate) fn labels(cluster: &str, namespace: &str, text: &str) -> Labels {
    let of_namespace = BTreeMap::from([("kubernetes.io/metadata.name".to_string(), namespace.to_string())]);
    crate::filter::identity_labels(cluster, namespace, &of_namespace, None, &map(text))
}

/// A node `node1` of `cluster1` (id 1): 10.0.1.1, pods in 10.1.1.0/24.
pub(crate) fn own() -> Own {
    Own {
        cluster: "cluster1".into(),
        cluster_id: 1,
        node: "node1".into(),
        addresses: vec!["10.0.1.1".parse().expect("address")],
        gateways: vec!["10.1.1.1".parse().expect("address")],
        pod_cidrs: vec!["10.1.1.0/24".parse().expect("prefix")],
        dual_stack: false,
    }
}

/// A local pod with its identity.
pub(crate) fn pod(
    id: u16,
    namespace: &str,
    name: &str,
    ip: &str,
    labels: &str,
    identity: u32,
) -> LocalEndpoint {
    LocalEndpoint {
        id,
        namespace: namespace.into(),
        name: name.into(),
        addresses: vec![ip.parse().expect("address")],
        labels: map(labels),
        service_account: None,
        named_ports: Vec::new(),
        ifindex: id.into(),
        mac: "02:00:00:00:00:01".into(),
        identity: Some(identity),
    }
}

/// A pod elsewhere: its identity and its address.
pub(crate) fn elsewhere(cluster: &str, namespace: &str, text: &str, identity: u32, ip: &str) -> [Update; 2] {
    let record =
        IpIdentity { ip: ip.into(), host_ip: "10.0.9.9".into(), id: identity, ..IpIdentity::default() };
    let prefix = ip.parse::<std::net::IpAddr>().expect("address").into();
    [
        Update::IdentityUpsert(Identity(identity), labels(cluster, namespace, text)),
        Update::IpUpsert(cluster.into(), prefix, record),
    ]
}

/// A node elsewhere.
pub(crate) fn node(cluster: &str, name: &str, ip: &str, cidr: &str) -> Node {
    let cidr: ipnet::IpNet = cidr.parse().expect("prefix");
    Node {
        name: name.into(),
        cluster: cluster.into(),
        ip_addresses: vec![NodeAddress { kind: "InternalIP".into(), ip: ip.into() }],
        ipv4_alloc_cidr: Some(cidr.into()),
        ..Node::default()
    }
}

/// All objects of a manifest, which must be right.
pub(crate) fn objects(text: &str) -> Vec<Object> {
    manifests::parse(text, "cluster1")
        .into_iter()
        .map(|document| document.object.expect("a good manifest"))
        .collect()
}

impl World {
    pub(crate) fn new() -> Self {
        World::with(own(), PolicyMode::Default)
    }

    pub(crate) fn with(own: Own, mode: PolicyMode) -> Self {
        let mut state = State::new(own);
        state.object(ObjectEvent::Synced);
        World { state, compiler: Compiler::new(mode), publisher: Publisher::new(1) }
    }

    pub(crate) fn updates(&mut self, updates: impl IntoIterator<Item = Update>) -> &mut Self {
        updates.into_iter().for_each(|update| self.state.update(update));
        self
    }

    pub(crate) fn pod(&mut self, pod: LocalEndpoint) -> &mut Self {
        self.state.upsert_endpoint(pod);
        self
    }

    pub(crate) fn manifest(&mut self, text: &str) -> &mut Self {
        for object in objects(text) {
            self.state.object(ObjectEvent::Upsert { object, source: "test".into() });
        }
        self
    }

    pub(crate) fn run(&mut self) -> &mut Self {
        self.run_at(Instant::now())
    }

    pub(crate) fn run_at(&mut self, now: Instant) -> &mut Self {
        self.compiler.run(&mut self.state, &self.publisher, now);
        self
    }

    pub(crate) fn decide(
        &self,
        pod: u16,
        direction: Direction,
        peer: u32,
        proto: Protocol,
        port: u16,
    ) -> Decision {
        let snapshot = self.publisher.current();
        let endpoint =
            snapshot.endpoints.iter().find(|endpoint| endpoint.id == pod).expect("a published pod");
        endpoint.policy.decide(direction, Identity(peer), proto, port)
    }

    pub(crate) fn allows(
        &self,
        pod: u16,
        direction: Direction,
        peer: u32,
        proto: Protocol,
        port: u16,
    ) -> bool {
        matches!(self.decide(pod, direction, peer, proto, port), Decision::Allow { .. })
    }

    pub(crate) fn explain(
        &self,
        endpoint: u16,
        direction: Direction,
        peer: u32,
        proto: Protocol,
        port: u16,
    ) -> String {
        let rule = match self.decide(endpoint, direction, peer, proto, port) {
            Decision::Allow { .. } => panic!("it is allowed"),
            Decision::Deny { rule, .. } => Some(rule),
            Decision::DefaultDeny => None,
        };
        let (peer, address) = (Identity(peer), std::net::Ipv4Addr::UNSPECIFIED.into());
        let query = DropQuery { direction, endpoint, peer, address, proto, port, rule };
        self.compiler.explain(&self.state, &query)
    }

    /// Why a packet from an address that the tables do not know is dropped.
    pub(crate) fn explain_stranger(&self, endpoint: u16, ip: &str) -> String {
        let query = DropQuery {
            direction: Direction::Ingress,
            endpoint,
            peer: Identity::UNKNOWN,
            address: ip.parse().expect("address"),
            proto: Protocol::TCP,
            port: 80,
            rule: None,
        };
        self.compiler.explain(&self.state, &query)
    }

    /// The identity and the next hop's node that an address resolves to.
    pub(crate) fn lookup(&self, ip: &str) -> (u32, Option<String>) {
        let snapshot = self.publisher.current();
        let address = Address::from(ip.parse::<std::net::IpAddr>().expect("address"));
        match snapshot.ipcache.lookup(address) {
            Some(entry) => (entry.identity.0, snapshot.hops.get(entry.hop).map(|hop| hop.node.to_string())),
            None => (0, None),
        }
    }
}
