//! What the binary and its command line see of control: requests in, views out. All views are
//! JSON- and YAML-serialisable and are what `-o json` prints.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A local pod, as the endpoint manager made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LocalEndpoint {
    /// Endpoint number, 1–65535, unique on the node.
    pub id: u16,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Pod labels as the user gave them.
    pub labels: BTreeMap<String, String>,
    /// Service account, if any.
    pub service_account: Option<String>,
    /// Named container ports: name → (port, protocol).
    pub named_ports: Vec<crate::records::NamedPort>,
    /// Host-side interface index.
    pub ifindex: u32,
    /// Link-layer address of the pod, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Identity it had before a restart: kept if the labels still fit.
    pub identity: Option<u32>,
}

/// Control's view of a local endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointStatus {
    /// Endpoint number.
    pub id: u16,
    /// Numeric identity, once allocated.
    pub identity: Option<u32>,
    /// Identity labels, `source:key=value`.
    pub labels: Vec<String>,
    /// Ingress is in default deny.
    pub ingress_enforced: bool,
    /// Egress is in default deny.
    pub egress_enforced: bool,
    /// `waiting-for-identity`, `waiting-for-policies`, `ready`, `not-ready`.
    pub state: String,
    /// Why it is not ready.
    pub error: Option<String>,
}

/// A row of `node list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeView {
    /// `cluster/node`.
    pub name: String,
    /// Node address.
    pub ipv4_address: Option<IpAddr>,
    /// Pod CIDRs.
    pub ipv4_cidrs: Vec<String>,
    /// Node address.
    pub ipv6_address: Option<IpAddr>,
    /// Pod CIDRs.
    pub ipv6_cidrs: Vec<String>,
    /// `local`, `kvstore` (same cluster) or `clustermesh`.
    pub source: String,
}

/// A row of `identity list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IdentityView {
    /// Numeric identity.
    pub id: u32,
    /// `source:key=value`, sorted by key.
    pub labels: Vec<String>,
}

/// A row of `service list`: one frontend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceView {
    /// Number.
    pub id: u32,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ip:port/PROTO`; `None` if it has none here.
    pub frontend: String,
    /// `ClusterIP`.
    pub kind: String,
    /// It is a global service.
    pub global: bool,
    /// Only other clusters have it.
    pub remote: bool,
    /// Backends.
    pub backends: Vec<BackendView>,
}

/// A backend of a frontend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackendView {
    /// `ip:port/PROTO`.
    pub address: String,
    /// `active`, `terminating`, or `quarantined`: its cluster has been away for too long.
    pub state: String,
    /// The cluster it is in.
    pub cluster: String,
    /// It is of the side that new flows should go to.
    pub preferred: bool,
    /// The part of the new flows that it gets, in percent.
    pub share: f64,
}

/// A row of `policy list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyView {
    /// `CiliumNetworkPolicy`, `CiliumClusterwideNetworkPolicy` or `NetworkPolicy`.
    pub kind: String,
    /// Namespace, empty if cluster-wide.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Local endpoints it selects.
    pub endpoints: Vec<u16>,
    /// Directions it puts into default deny: `ingress`, `egress`.
    pub enforces: Vec<String>,
    /// Rules in it, ingress and egress, allow and deny.
    pub rules: usize,
    /// Where it was read from.
    pub source: String,
    /// The rules as given, for `-o json|yaml`.
    pub spec: serde_json::Value,
}

/// A row of `ipcache list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IpcacheView {
    /// Address or prefix.
    pub prefix: String,
    /// Numeric identity.
    pub identity: u32,
    /// Node that hosts it.
    pub tunnel_endpoint: Option<IpAddr>,
    /// Which source won: `local`, `kvstore`, `clustermesh`, `generated`, …
    pub source: String,
    /// Cluster it was learned from, if any.
    pub cluster: Option<String>,
    /// `namespace/pod`, if known.
    pub pod: Option<String>,
}

/// State of one remote cluster; JSON names are those of Cilium's status model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RemoteStatus {
    /// Cluster name.
    pub name: String,
    /// Connected, configured and synchronised.
    pub ready: bool,
    /// Its etcd answers.
    pub connected: bool,
    /// In words: what it is doing or why it is not ready.
    pub status: String,
    /// Its id, once known.
    pub cluster_id: Option<u32>,
    /// Data is read from kvstoremesh's cache.
    pub kvstoremesh: bool,
    /// It writes sync canaries.
    pub sync_canaries: bool,
    /// Nodes known.
    pub num_nodes: usize,
    /// ip → identity records known.
    pub num_endpoints: usize,
    /// Identities known.
    pub num_identities: usize,
    /// Services known.
    pub num_shared_services: usize,
    /// EndpointSlices known, of a cluster that exports only these.
    pub num_endpoint_slices: usize,
    /// Which kinds are complete: nodes, endpoints, identities, services.
    pub synced: BTreeMap<String, bool>,
    /// Failures so far.
    pub num_failures: u64,
    /// Seconds since the last failure.
    pub last_failure_seconds: Option<u64>,
    /// Seconds since all of its data was last confirmed.
    pub last_contact_seconds: Option<u64>,
    /// Records refused so far, and the newest refusal in words.
    pub refused: u64,
    /// Newest refusal.
    pub last_refusal: Option<String>,
    /// Certificates of this client and of the CAs it trusts.
    pub certificates: Vec<CertificateStatus>,
    /// Newest revision seen of its etcd.
    pub revision: Option<i64>,
    /// Seconds since everything was last listed again and compared.
    pub last_audit_seconds: Option<u64>,
    /// Differences that such audits had to repair.
    pub audit_repairs: u64,
    /// How often its data was dropped because it was away for too long.
    pub num_cache_revocations: u64,
}

/// A certificate of the client, or the CAs it trusts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateStatus {
    /// `cert-file` or `trusted-ca-file`.
    pub kind: String,
    /// Where it was read from.
    pub file: String,
    /// Distinguished name.
    pub subject: String,
    /// When it ends, RFC 3339: the first of a chain, the last of a bundle of CAs.
    pub expires: String,
    /// Seconds until then, negative if it has ended.
    pub expires_in_seconds: i64,
}

/// State of the own store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KvstoreStatus {
    /// `etcd` or `memory`.
    pub kind: String,
    /// It answers.
    pub connected: bool,
    /// In words.
    pub status: String,
    /// This agent publishes the cluster's services.
    pub leader: bool,
    /// Which kinds of keys are fully known.
    pub synced: BTreeMap<String, bool>,
    /// What this agent writes, by kind of keys.
    pub written: BTreeMap<String, WrittenStatus>,
    /// Certificates of this client and of the CAs it trusts.
    pub certificates: Vec<CertificateStatus>,
    /// Seconds since everything was last listed again and compared.
    pub last_audit_seconds: Option<u64>,
    /// Differences that such audits had to repair.
    pub audit_repairs: u64,
}

/// How far this agent is with writing one kind of keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WrittenStatus {
    /// Keys that are not yet in the store as they are to be.
    pub pending: usize,
    /// There was a time when none was pending.
    pub complete: bool,
}

/// A manifest file or document that was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ManifestError {
    /// File and document number, `policy.yaml#2`.
    pub source: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// An older good version of the same object is still in force.
    pub last_good_in_force: bool,
}

/// Control's part of `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControlStatus {
    /// Own store.
    pub kvstore: KvstoreStatus,
    /// Remote clusters.
    pub remotes: Vec<RemoteStatus>,
    /// Things that are wrong with the mesh as a whole: same id twice, overlapping pod CIDRs, …
    pub conflicts: Vec<String>,
    /// Refused manifests.
    pub manifest_errors: Vec<ManifestError>,
    /// Objects in force by kind.
    pub objects: BTreeMap<String, usize>,
    /// The first complete view is in (own store, manifests and reachable remotes).
    pub synced: bool,
}

/// What policies, pods and identities are called: what explanations of drops are made of, to be
/// used where the control plane is not at hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lexicon {
    /// Local pods by endpoint number.
    pub pods: BTreeMap<u16, PodFacts>,
    /// Identities by number: labels and cluster, a prefix, or a reserved name.
    pub identities: BTreeMap<u32, String>,
    /// Rules by number, `rule 2 of default/deny-x (ingressDeny)`.
    pub rules: BTreeMap<u32, String>,
}

/// A local pod in explanations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PodFacts {
    /// `namespace/name`.
    pub name: String,
    /// Rules selecting it that allow something: ingress, egress.
    pub allows: [usize; 2],
}
