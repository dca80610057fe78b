//! The etcd side of control: the own store, written and read, and the stores of all remote
//! clusters, read. Everything learned leaves as [`Update`]s; everything this node wants others
//! to know comes in through [`Mesh`].

use crate::labels::Labels;
use crate::model::{KvstoreStatus, RemoteStatus};
use crate::records;
use crate::update::Update;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::Identity;

/// What a [`Mesh`] needs to know.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Name of this cluster (`cilium-interop` 1.1).
    pub cluster_name: String,
    /// Id of this cluster, 1–255.
    pub cluster_id: u8,
    /// Name of this node, unique in the cluster.
    pub node_name: String,
    /// Addresses of this node: ip keys hosted by one of them belong to this node, also those
    /// that an earlier life of the agent wrote.
    pub node_addresses: Vec<IpAddr>,
    /// etcd client YAML of this cluster's store; none = a store in memory, for a single node.
    pub kvstore_config: Option<PathBuf>,
    /// Directory with one etcd client YAML per remote cluster, named like the cluster.
    pub clustermesh_config: Option<PathBuf>,
    /// How long the services of an unreachable cluster stay in use (30 s).
    pub service_grace: Duration,
    /// How long anything of an unreachable cluster is kept (10 min).
    pub cache_ttl: Duration,
}

/// Why the mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A cluster name or id is not allowed, or a configuration file is wrong.
    #[error("{0}")]
    Config(String),
}

/// Why a label set got no identity.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// Every number of the cluster is taken.
    #[error("all 65536 identities of cluster id {0} are in use; delete unused ones")]
    Exhausted(u8),
    /// The labels cannot be written as a key.
    #[error("labels '{0}' cannot be an identity: a label must not contain ';' and a set must not be empty")]
    Labels(String),
    /// The mesh is shutting down.
    #[error("the agent is shutting down")]
    Shutdown,
}

/// The stores of all clusters.
pub struct Mesh {}

impl Mesh {
    /// Starts watching; returns at once and connects in the background.
    pub async fn start(_config: MeshConfig, _updates: mpsc::Sender<Update>) -> Result<Arc<Mesh>, MeshError> {
        todo!()
    }

    /// The identity of a label set, the same on every node of the cluster; waits while the store
    /// is away. Each call is to be paired with one [`Mesh::release_identity`].
    pub async fn allocate_identity(&self, _labels: &Labels) -> Result<Identity, AllocateError> {
        todo!()
    }

    /// Gives one use of an identity back.
    pub async fn release_identity(&self, _id: Identity) {
        todo!()
    }

    /// This node's record.
    pub fn set_node(&self, _node: records::Node) {
        todo!()
    }

    /// All ip → identity records of this node by key name (`10.1.2.3`, `fd00::3`, `10.1.0.0/16`).
    pub fn set_ips(&self, _ips: BTreeMap<String, records::IpIdentity>) {
        todo!()
    }

    /// All services this cluster exports, by (namespace, name). To be called on every node, and not
    /// before the own store is [`Update::Synced`]; the leader writes them.
    pub fn set_services(&self, _services: BTreeMap<(String, String), records::Service>) {
        todo!()
    }

    /// This agent publishes for its cluster.
    pub fn is_leader(&self) -> bool {
        todo!()
    }

    /// State of the own store.
    pub fn kvstore_status(&self) -> KvstoreStatus {
        todo!()
    }

    /// State of each remote cluster, by name.
    pub fn remote_status(&self) -> Vec<RemoteStatus> {
        todo!()
    }

    /// What is wrong with the mesh as a whole, in words.
    pub fn conflicts(&self) -> Vec<String> {
        todo!()
    }

    /// Stops. Only leadership is given up: node and ip keys live on until their lease ends, so
    /// that a restart is not seen by anyone.
    pub async fn shutdown(&self) {
        todo!()
    }
}
