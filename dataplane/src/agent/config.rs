//! What an agent is told: plain values, already validated one by one by the command line.

use control::agent::PolicyMode;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Default of [`Config::state_dir`].
pub const DEFAULT_STATE_DIR: &str = "/run/dataplane";
/// Default of [`Config::bpffs`].
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
/// Default of [`Config::conntrack_flows`]: 40 MiB of conntrack, as many flows as Cilium's minimum.
pub const DEFAULT_CONNTRACK_FLOWS: usize = 262_144;
/// Default of [`Config::offload_after`]: the first packet that both sides of a TCP connection have
/// agreed to, the answer to its SYN; a question over UDP and its answer are not cached.
pub const DEFAULT_OFFLOAD_AFTER: u32 = 2;
/// Default of [`Config::offload_flows`]: 12 MiB.
pub const DEFAULT_OFFLOAD_FLOWS: usize = 16_384;
/// Verdicts that there is room for per flow. A flow has two; in a table that is half full a place is
/// found for 97 of 100.
const SLOTS_PER_FLOW: usize = 4;

/// Everything `dataplane run` is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this cluster.
    pub cluster_name: String,
    /// Id of this cluster, 1–255.
    pub cluster_id: u8,
    /// Name of this node; `None` = host name.
    pub node_name: Option<String>,
    /// Addresses of this node, at most one per family; empty = the first global address of the
    /// first uplink that has one, per family.
    pub node_ips: Vec<IpAddr>,
    /// Pod CIDRs of this node, at least one.
    pub pod_cidrs: Vec<IpNet>,
    /// Interfaces that lead to other nodes.
    pub uplinks: Vec<String>,
    /// etcd client file of this cluster; `None` = in-memory store, single node.
    pub kvstore_config: Option<PathBuf>,
    /// How long keys of this agent stay in the store after it has gone.
    pub kvstore_lease_ttl: Duration,
    /// Directory of etcd client files of remote clusters.
    pub clustermesh_config: Option<PathBuf>,
    /// How long the state of an unreachable remote cluster is kept; zero: for ever.
    pub clustermesh_cache_ttl: Duration,
    /// Directory of manifests.
    pub manifests: Option<PathBuf>,
    /// Worker threads; `None` = as many as [`Config::cpus`] names, else one per two CPUs, 1 or 2.
    pub workers: Option<usize>,
    /// CPUs that workers are pinned to, in order; empty = not pinned.
    pub cpus: Vec<usize>,
    /// How workers wait for packets.
    pub poll: Poll,
    /// When endpoints are in default deny.
    pub policy_mode: PolicyMode,
    /// Where everything is kept that the next run needs.
    pub state_dir: PathBuf,
    /// API socket.
    pub socket: PathBuf,
    /// Where Prometheus metrics are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// The BPF file system.
    pub bpffs: PathBuf,
    /// Connections that conntrack has room for.
    pub conntrack_flows: usize,
    /// The kernel repeats cached verdicts itself; else only workers do.
    pub offload: bool,
    /// From which packet of a flow on, both directions counted, its verdicts are cached; one later
    /// for UDP. At least 1.
    pub offload_after: u32,
    /// Flows that the cache has room for.
    pub offload_flows: usize,
}

impl Config {
    /// Verdicts that the cache has room for, a power of two.
    pub fn offload_slots(&self) -> usize {
        (self.offload_flows * SLOTS_PER_FLOW).next_power_of_two()
    }
}

/// How workers wait for packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Poll {
    /// Sleep in poll(2) when there is nothing to do.
    #[default]
    Adaptive,
    /// Never sleep.
    Busy,
}

impl std::fmt::Display for Poll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Poll::Adaptive => "adaptive",
            Poll::Busy => "busy",
        })
    }
}
