//! What goes over the API socket, and what `-o json|yaml` prints (views of control's own are in
//! [`control::model`]).

use control::model::{ControlStatus, EndpointStatus, LocalEndpoint};
use control::records::NamedPort;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// A pod to be connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EndpointAdd {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Network namespace: a name below `/run/netns`, or an absolute path.
    pub netns: String,
    /// Name of the interface inside the pod.
    #[serde(default = "default_ifname")]
    pub ifname: String,
    /// Wanted addresses, at most one per family; IPAM chooses where none is given.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Pod labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Named container ports.
    #[serde(default)]
    pub named_ports: Vec<NamedPort>,
    /// Service account.
    #[serde(default)]
    pub service_account: Option<String>,
}

fn default_ifname() -> String {
    "eth0".into()
}

/// A local pod with everything that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointInfo {
    /// What it was made with.
    #[serde(flatten)]
    pub endpoint: LocalEndpoint,
    /// Network namespace as given.
    pub netns: String,
    /// Name of the interface inside the pod.
    pub ifname: String,
    /// Name of the interface on the host's side.
    pub host_ifname: String,
    /// Identity, enforcement and state.
    pub status: EndpointStatus,
}

/// Everything `status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Cluster name.
    pub cluster_name: String,
    /// Cluster id.
    pub cluster_id: u8,
    /// Node name.
    pub node_name: String,
    /// Addresses of the node.
    pub node_addresses: Vec<IpAddr>,
    /// Client configuration of the own store, if it is an etcd.
    pub kvstore_config: Option<PathBuf>,
    /// Directory of the client configurations of remote clusters, if there may be any.
    pub clustermesh_config: Option<PathBuf>,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// Stores, clusters and manifests.
    pub control: ControlStatus,
    /// Address pools.
    pub ipam: Vec<PoolStatus>,
    /// Workers and links.
    pub datapath: DatapathStatus,
    /// Connection tracking.
    pub conntrack: ConntrackStatus,
    /// The verdict cache.
    pub offload: OffloadStatus,
    /// Number of endpoints by state.
    pub endpoints: BTreeMap<String, usize>,
    /// Number of identities known.
    pub identities: usize,
    /// What keeps the node from doing its work; it is fine if there is nothing here.
    pub problems: Vec<String>,
}

/// One pod CIDR of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PoolStatus {
    /// The pod CIDR.
    pub cidr: String,
    /// Addresses in use by pods.
    pub allocated: u64,
    /// Addresses that pods can have.
    pub capacity: u64,
}

/// Workers, their sockets and the links they serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatapathStatus {
    /// `adaptive` or `busy`.
    pub poll: String,
    /// Worker threads.
    pub workers: Vec<WorkerStatus>,
    /// The hub and the uplinks.
    pub links: Vec<LinkStatus>,
    /// Packets lost inside the kernel's programs, by cause.
    pub kernel_drops: BTreeMap<String, u64>,
}

/// One worker thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WorkerStatus {
    /// Number, from 0.
    pub index: usize,
    /// CPU it is pinned to, if any.
    pub cpu: Option<usize>,
    /// It runs.
    pub alive: bool,
    /// Why it does not run.
    pub error: Option<String>,
    /// Monitor events it could not queue.
    pub events_lost: u64,
    /// Frames dropped because the worker that serves the uplink had no room for them.
    pub handoff_full: u64,
    /// Frames dropped because the memory of the socket they were to leave by was full.
    pub no_frame: u64,
    /// Frames dropped because their uplink is gone.
    pub uplink_gone: u64,
    /// First packets that wait for the identity of a pod.
    pub hold: HoldStatus,
    /// Its AF_XDP sockets.
    pub sockets: Vec<SocketStatus>,
}

/// What became of first packets to or from pods that were not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HoldStatus {
    /// Packets that were held.
    pub held: u64,
    /// Those of them that newer tables decided about, whether they let them pass or not.
    pub decided: u64,
    /// Those of them that were dropped after a second.
    pub expired: u64,
    /// Packets that were dropped at once because there was no room, or their sender had its share.
    pub refused: u64,
}

/// One AF_XDP socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SocketStatus {
    /// Interface it is bound to.
    pub interface: String,
    /// Queue it is bound to.
    pub queue: u32,
    /// `zero-copy` or `copy`.
    pub mode: String,
    /// Its interface was removed.
    pub gone: bool,
    /// Frames received and sent, and every way one was lost, by name.
    pub counters: BTreeMap<String, u64>,
}

/// One link of the datapath.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkStatus {
    /// Interface name.
    pub name: String,
    /// `hub` or `uplink`.
    pub role: String,
    /// Largest packet in bytes, Ethernet header not counted.
    pub mtu: u16,
    /// AF_XDP mode: `zero-copy` or `copy`.
    pub mode: String,
    /// XDP mode: `native` or `generic`.
    pub xdp: String,
}

/// Connection tracking totals since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConntrackStatus {
    /// Entries in use.
    pub entries: usize,
    /// Entries there is room for.
    pub capacity: usize,
    /// Unreplied flows evicted to make room.
    pub evicted: u64,
    /// Flows that found no room.
    pub full: u64,
}

/// The verdict cache since the agent started: finished decisions about exact flows, one for each
/// direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OffloadStatus {
    /// Programs of the kernel use it; else only workers do.
    pub enabled: bool,
    /// Packets of a flow, both directions counted, until its verdicts are cached.
    pub after: u32,
    /// Verdicts in use.
    pub entries: usize,
    /// Verdicts there is room for.
    pub capacity: usize,
    /// Verdicts written.
    pub inserted: u64,
    /// Verdicts taken back, by cause.
    pub removed: BTreeMap<String, u64>,
    /// Verdicts that found no room.
    pub full: u64,
    /// Packets that cached verdicts forwarded.
    pub packets: u64,
    /// Bytes of these from the IP header on.
    pub bytes: u64,
}

/// One connection, or what a client of a service was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FlowView {
    /// `TCP`, `UDP`, `ICMP`, …
    pub protocol: String,
    /// `OUT` if a local pod opened it, `IN` if a local pod or the host was addressed, `SVC` if it
    /// remembers the backend of a service.
    pub kind: String,
    /// Who opened it.
    pub source: IpAddr,
    /// Its port.
    pub source_port: u16,
    /// Who was addressed; for `SVC` the frontend.
    pub destination: IpAddr,
    /// Port addressed.
    pub destination_port: u16,
    /// What the client had addressed before translation, or the backend if this is `SVC`.
    pub translated: Option<String>,
    /// When it expires, seconds since boot.
    pub expires: u32,
    /// Seconds until then.
    pub remaining_seconds: u32,
    /// When its last packet passed, seconds since boot.
    pub last_seen: u32,
    /// Packets from the opener.
    pub packets: u64,
    /// Bytes from the opener.
    pub bytes: u64,
    /// Packets back to the opener.
    pub reply_packets: u64,
    /// Bytes back to the opener.
    pub reply_bytes: u64,
    /// TCP flags seen from the opener, ORed.
    pub tcp_flags: u8,
    /// TCP flags seen from the answerer, ORed.
    pub reply_tcp_flags: u8,
    /// `Replied`, `SeenNonSyn`, `TxClosing` (opener), `RxClosing` (answerer).
    pub flags: Vec<String>,
    /// Identity of the opener.
    pub source_identity: u32,
    /// Identity of the answerer.
    pub destination_identity: u32,
    /// Number of the service that translated it; 0 if none.
    pub service: u32,
    /// The kernel forwards packets of one direction at least by itself.
    pub offloaded: bool,
}

/// Answer to a removal of many things.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removed {
    /// How many were removed.
    pub removed: usize,
}

/// Body of an answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong and what would be right.
    pub error: String,
}
