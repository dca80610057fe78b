//! The etcd side of control: the own store, written and read, and the stores of all remote
//! clusters, read. Everything learned leaves as [`Update`]s; everything this node wants others
//! to know comes in through [`Mesh`].

mod allocator;
mod backoff;
mod clusters;
pub(crate) mod config;
mod election;
pub(crate) mod etcd;
mod gc;
pub(crate) mod keys;
mod learned;
mod lease;
mod local;
mod memory;
mod outbox;
mod overlap;
mod persist;
mod remote;
pub(crate) mod slices;
mod store;
mod sync;
mod view;
mod writer;

use crate::labels::Labels;
use crate::model::{KvstoreStatus, RemoteStatus};
use crate::records;
use crate::update::Update;
use clusters::Clusters;
pub use etcd::operations;
use local::Local;
use outbox::Outbox;
use overlap::Nodes;
use persist::Persistence;
use rand::Rng;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{Entry, Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use wire::Identity;

/// Pause after the first failure to connect.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between attempts to connect.
const RETRY_LIMIT: Duration = Duration::from_secs(2);
/// How often a store is asked whether it is there.
const PROBE: Duration = Duration::from_secs(5);
/// How often is looked whether certificates were renewed, on average.
const RENEWAL: Duration = Duration::from_secs(10);

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
    /// How long anything of an unreachable cluster is kept (10 min); zero: for ever.
    pub cache_ttl: Duration,
    /// How long keys of this agent outlive it (15 min).
    pub lease_ttl: Duration,
    /// File in which what was learned is kept for the next run; none = nowhere.
    pub learned: Option<PathBuf>,
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
pub struct Mesh {
    shared: Arc<Shared>,
    local: Arc<Local>,
    clusters: Option<Arc<Clusters>>,
    tasks: Mutex<JoinSet<()>>,
    closed: watch::Sender<bool>,
}

/// What all parts have in common.
struct Shared {
    config: MeshConfig,
    outbox: Outbox,
    nodes: Mutex<Nodes>,
    /// Ids of remote clusters in use, and whose they are.
    ids: Mutex<BTreeMap<u32, String>>,
    persistence: Option<Arc<Persistence>>,
}

#[cfg(test)]
impl Shared {
    /// For an agent of node n1 of cluster east, without anything around it.
    fn alone(updates: mpsc::Sender<Update>, node_addresses: Vec<IpAddr>) -> Arc<Shared> {
        let config = MeshConfig {
            cluster_name: "east".into(),
            cluster_id: 1,
            node_name: "n1".into(),
            node_addresses,
            kvstore_config: None,
            clustermesh_config: None,
            service_grace: Duration::ZERO,
            cache_ttl: Duration::ZERO,
            lease_ttl: Duration::from_secs(900),
            learned: None,
        };
        Arc::new(Shared {
            outbox: Outbox::new(updates),
            nodes: Mutex::new(Nodes::new("east".into())),
            ids: Mutex::default(),
            persistence: None,
            config,
        })
    }
}

/// Held by whoever still restores something.
type Restoring = mpsc::Sender<Infallible>;

impl Mesh {
    /// Starts watching; returns at once and connects in the background.
    ///
    /// # Errors
    /// A name or id that is not allowed, or a kvstore configuration that cannot be used.
    pub async fn start(config: MeshConfig, updates: mpsc::Sender<Update>) -> Result<Arc<Mesh>, MeshError> {
        config::check_cluster_name(&config.cluster_name).map_err(MeshError::Config)?;
        if config.cluster_id == 0 {
            return Err(MeshError::Config(
                "cluster id 0 is not allowed: give each cluster one of 1–255".into(),
            ));
        }
        if let Some(file) = &config.kvstore_config {
            config::ClientConfig::read(file).map_err(|error| MeshError::Config(error.to_string()))?;
        }
        let persistence = match config.learned.clone() {
            Some(file) => Some(Persistence::open(file, &config.cluster_name, config.cluster_id).await),
            None => None,
        };
        let shared = Arc::new(Shared {
            outbox: Outbox::new(updates),
            nodes: Mutex::new(Nodes::new(config.cluster_name.clone())),
            ids: Mutex::default(),
            persistence,
            config,
        });
        let local = Arc::new(Local::new(shared.clone()));
        let directory = shared.config.clustermesh_config.clone();
        let clusters = directory.map(|directory| Arc::new(Clusters::new(shared.clone(), directory)));
        let mut tasks = JoinSet::new();
        let (restoring, mut restored) = mpsc::channel(1);
        let (own, token) = (local.clone(), restoring.clone());
        tasks.spawn(async move {
            own.restore().await;
            drop(token);
            own.run().await;
        });
        if let Some(clusters) = clusters.clone() {
            tasks.spawn(async move { clusters.run(restoring).await });
        } else if let Some(persistence) = &shared.persistence {
            persistence.retain(|name| name == shared.config.cluster_name);
        }
        let told = shared.clone();
        tasks.spawn(async move {
            let None = restored.recv().await;
            told.outbox.push([Update::Restored]);
            told.outbox.flush().await;
        });
        Ok(Arc::new(Mesh {
            shared,
            local,
            clusters,
            tasks: Mutex::new(tasks),
            closed: watch::Sender::new(false),
        }))
    }

    /// The identity of a label set, the same on every node of the cluster; waits while the store
    /// is away. Each call is to be paired with one [`Mesh::release_identity`].
    ///
    /// # Errors
    /// See [`AllocateError`].
    pub async fn allocate_identity(
        &self,
        labels: &Labels,
        before: Option<Identity>,
    ) -> Result<Identity, AllocateError> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            id = self.local.allocator.allocate(labels, before) => id,
            _ = closed.wait_for(|closed| *closed) => Err(AllocateError::Shutdown),
        }
    }

    /// Gives one use of an identity back.
    pub async fn release_identity(&self, id: Identity) {
        self.local.allocator.release(id);
    }

    /// This node's record.
    pub fn set_node(&self, node: records::Node) {
        self.local.set_node(&node);
    }

    /// All ip → identity records of this node by key name (`10.1.2.3`, `fd00::3`, `10.1.0.0/16`).
    /// Records of this node that are not among them are withdrawn from the store; before the
    /// first call none is.
    pub fn set_ips(&self, ips: BTreeMap<String, records::IpIdentity>) {
        self.local.set_ips(ips);
    }

    /// All services this cluster exports, by (namespace, name). To be called on every node, also
    /// when there are none, not before the own store is [`Update::Synced`], and after
    /// [`Mesh::set_ips`]: remote clusters are then told that all there is can be read. The leader writes them.
    pub fn set_services(&self, services: BTreeMap<(String, String), records::Service>) {
        self.local.set_services(services);
    }

    /// This agent publishes for its cluster.
    pub fn is_leader(&self) -> bool {
        self.local.leads()
    }

    /// State of the own store.
    pub fn kvstore_status(&self) -> KvstoreStatus {
        self.local.status()
    }

    /// The own store cannot be reached, and what an earlier run knew of it is in use.
    pub fn lives_on_restored(&self) -> bool {
        self.local.lives_on_restored()
    }

    /// State of each remote cluster, by name.
    pub fn remote_status(&self) -> Vec<RemoteStatus> {
        self.clusters.as_ref().map(|clusters| clusters.status()).unwrap_or_default()
    }

    /// What is wrong with the mesh as a whole, in words.
    pub fn conflicts(&self) -> Vec<String> {
        let mut conflicts = lock(&self.shared.nodes).conflicts();
        conflicts.extend(self.clusters.iter().flat_map(|clusters| clusters.conflicts()));
        conflicts.extend(self.local.allocator.conflicts());
        conflicts.extend(self.local.conflicts());
        conflicts.extend(self.shared.persistence.iter().filter_map(|persistence| persistence.problem()));
        if self.local.writer.contested() {
            let MeshConfig { cluster_name, node_name, .. } = &self.shared.config;
            conflicts.push(format!(
                "another agent writes over the record of node {cluster_name}/{node_name}: \
                 every node of a cluster needs its own name"
            ));
        }
        conflicts
    }

    /// Stops. Only leadership is given up: node and ip keys live on until their lease ends, so
    /// that a restart is not seen by anyone.
    pub async fn shutdown(&self) {
        self.closed.send_replace(true);
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
        if let Some(clusters) = &self.clusters {
            clusters.stop();
        }
        self.local.resign().await;
        if let Some(persistence) = &self.shared.persistence {
            persistence.close().await;
        }
    }
}

/// The own store while it is connected.
#[derive(Clone)]
struct Connection(watch::Receiver<Option<Arc<dyn Store>>>);

impl Connection {
    /// Waits for it; `None` if it will not come any more.
    async fn get(&self) -> Option<Arc<dyn Store>> {
        self.0.clone().wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Ends when certificates have been renewed: long before the old ones end, unless they are renewed
/// at the last moment.
async fn renewal(store: &dyn Store) -> store::Result<Infallible> {
    loop {
        let pause = RENEWAL.mul_f64(rand::rng().random_range(0.5..=1.5));
        tokio::time::sleep(pause).await;
        if store.is_outdated() {
            return Err(StoreError::Renewed);
        }
    }
}

/// Asks a store again and again for its heartbeat, which takes a majority of its members.
async fn liveness(store: &dyn Store, mut heard: impl FnMut(Option<Entry>)) -> store::Result<Infallible> {
    loop {
        heard(store.get(keys::HEARTBEAT).await?);
        tokio::time::sleep(PROBE).await;
    }
}

/// Locks; what a panicked thread left behind is whole, as no invariant spans a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
