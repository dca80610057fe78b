//! The own store: read like a remote one, and written.

use super::allocator::Allocator;
use super::backoff::Backoff;
use super::config::{Certificate, ClientConfig, MAX_ID};
use super::etcd::EtcdStore;
use super::keys::{self, Kind, Layout};
use super::learned::Learned;
use super::memory::MemoryStore;
use super::store::{Change, Entry, Result, Store, StoreError};
use super::sync::{Batch, Follower, Gate};
use super::writer::{Stage, Writer};
use super::{Connection, RETRY_FIRST, RETRY_LIMIT, Shared, election, gc, liveness, lock, renewal};
use crate::model::{KvstoreStatus, WrittenStatus};
use crate::records::{self, Capabilities, ClusterConfig, IpIdentity, Node, from_json};
use crate::update::Update;
use k8s_openapi::jiff;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::watch;

/// How often the cluster shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// After a store has come back empty, how long other agents have to bring their keys back before
/// remote clusters are told that all is there.
const REPOPULATE: Duration = Duration::from_secs(30);
/// When all their nodes are back: how long they have for the rest.
const SETTLE: Duration = Duration::from_secs(5);
/// How often is looked whether they have.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Default)]
struct Status {
    connected: bool,
    /// The last attempt to connect has failed, or the connection has.
    failed: bool,
    text: String,
}

pub(super) struct Local {
    shared: Arc<Shared>,
    pub(super) learned: Learned,
    pub(super) writer: Arc<Writer>,
    pub(super) allocator: Allocator,
    /// Revision of the key that makes this agent the leader of its cluster.
    pub(super) leads: watch::Sender<Option<i64>>,
    /// The store, once identities may be allocated from it.
    connected: watch::Sender<Option<Arc<dyn Store>>>,
    /// `None`: in memory, made once.
    memory: Option<Arc<MemoryStore>>,
    status: Mutex<Status>,
    certificates: Mutex<Vec<Certificate>>,
    /// The first complete view was reported.
    reported: AtomicBool,
}

impl Local {
    pub(super) fn new(shared: Arc<Shared>) -> Local {
        let config = &shared.config;
        let writer = Arc::new(Writer::new(config.lease_ttl));
        let connected = watch::Sender::new(None);
        let allocator = Allocator::new(
            config.cluster_id,
            host_address(&config.node_addresses),
            writer.clone(),
            Connection(connected.subscribe()),
        );
        let own = ClusterConfig {
            id: config.cluster_id.into(),
            capabilities: Capabilities {
                synced_canaries: true,
                max_connected_clusters: MAX_ID,
                ..Capabilities::default()
            },
        };
        writer.replace(
            Stage::ClusterConfig,
            one(keys::cluster_config(&config.cluster_name), records::to_json(&own)),
        );
        Local {
            learned: Learned::new(
                shared.clone(),
                config.cluster_name.clone(),
                config.cluster_id.into(),
                false,
            ),
            memory: config.kvstore_config.is_none().then(Arc::default),
            certificates: Mutex::default(),
            status: Mutex::new(Status { text: "connecting".into(), ..Status::default() }),
            leads: watch::Sender::new(None),
            reported: AtomicBool::new(false),
            shared,
            writer,
            allocator,
            connected,
        }
    }

    pub(super) fn status(&self) -> KvstoreStatus {
        let status = lock(&self.status);
        let audits = lock(&self.learned.audits);
        KvstoreStatus {
            kind: if self.memory.is_some() { "memory" } else { "etcd" }.into(),
            connected: status.connected,
            status: status.text.clone() + &self.learned.restored_text(),
            leader: self.leads(),
            synced: self.learned.synced(),
            written: self.written(),
            certificates: lock(&self.certificates).iter().map(Certificate::status).collect(),
            last_audit_seconds: audits.last.map(|at| at.elapsed().as_secs()),
            audit_repairs: audits.repaired,
        }
    }

    /// How far this agent is with what it has to write, as far as that is known.
    fn written(&self) -> BTreeMap<String, WrittenStatus> {
        let kinds = [
            (Stage::Node, Kind::Nodes),
            (Stage::IdentityUse, Kind::Identities),
            (Stage::Ip, Kind::Ips),
            (Stage::Service, Kind::Services),
        ];
        let own = kinds
            .into_iter()
            .filter(|(stage, _)| self.writer.is_set(*stage) && (self.leads() || !stage.of_cluster()));
        own.map(|(stage, kind)| (kind.name().into(), self.writer.progress(stage))).collect()
    }

    /// This agent publishes for its cluster.
    pub(super) fn leads(&self) -> bool {
        self.leads.borrow().is_some()
    }

    pub(super) fn set_node(&self, node: &Node) {
        let key = self.node_key();
        self.writer.replace(Stage::Node, one(key, records::to_json(node)));
    }

    pub(super) fn set_ips(&self, ips: BTreeMap<String, IpIdentity>) {
        let prefix = keys::prefix(Kind::Ips, Layout::State, &self.learned.cluster);
        let keys =
            ips.iter().map(|(name, ip)| (format!("{prefix}{name}"), records::to_json(ip).into_bytes()));
        self.writer.replace(Stage::Ip, keys.collect());
    }

    pub(super) fn set_services(&self, services: BTreeMap<(String, String), records::Service>) {
        let prefix = keys::prefix(Kind::Services, Layout::State, &self.learned.cluster);
        let keys = services.iter().map(|((namespace, name), service)| {
            (format!("{prefix}{namespace}/{name}"), records::to_json(service).into_bytes())
        });
        self.writer.replace(Stage::Service, keys.collect());
    }

    /// Takes up what an earlier run knew.
    pub(super) async fn restore(&self) {
        // A store that comes back empty must not have these numbers given to others.
        let observe = |kind, changes: &[Change]| {
            if kind == Kind::Identities {
                changes.iter().for_each(|change| self.allocator.observe(change));
            }
        };
        if let Some(since) = self.learned.restore(|_| true, observe).await {
            tracing::info!("what was known of the own cluster {} s ago is in use", since.elapsed().as_secs());
        }
    }

    /// The store cannot be reached, and what an earlier run knew is in use.
    pub(super) fn lives_on_restored(&self) -> bool {
        let away = {
            let status = lock(&self.status);
            !status.connected && status.failed
        };
        away && self.learned.is_restored()
    }

    /// Connects, reads and writes, for ever.
    pub(super) async fn run(&self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
        loop {
            let begun = Instant::now();
            let error = match self.open().await {
                Ok(store) => {
                    let Err(error) = self.session(store).await;
                    error
                }
                Err(error) => error,
            };
            self.connected.send_replace(None);
            self.learned.unconfirm();
            let status = Status { connected: false, failed: true, text: format!("not connected: {error}") };
            let before = std::mem::replace(&mut *lock(&self.status), status);
            // Attempts follow each other fast: a reason is logged once.
            if before.connected || !before.text.ends_with(&error.to_string()) {
                tracing::warn!("own store: {error}");
            }
            backoff.pause_after(begun.elapsed()).await;
        }
    }

    /// Gives leadership up.
    pub(super) async fn resign(&self) {
        let store = self.connected.borrow().clone();
        if let Some(store) = store {
            let config = &self.shared.config;
            let key = keys::leader(&config.cluster_name);
            if let Err(error) = election::resign(&*store, &key, &config.node_name).await {
                tracing::warn!("leadership is not given up, it ends by itself: {error}");
            }
        }
    }

    async fn open(&self) -> Result<Arc<dyn Store>> {
        match (&self.memory, &self.shared.config.kvstore_config) {
            (Some(memory), _) => Ok(memory.clone()),
            (None, Some(file)) => {
                let config =
                    ClientConfig::read(file).map_err(|error| StoreError::Failed(error.to_string()))?;
                if let Ok(Some(tls)) = config.load_tls() {
                    *lock(&self.certificates) = tls.certificates;
                }
                Ok(Arc::new(EtcdStore::connect(&config).await?))
            }
            (None, None) => Err(StoreError::Failed("no store is configured".into())),
        }
    }

    async fn session(&self, connected: Arc<dyn Store>) -> Result<Infallible> {
        let store = &*connected;
        let config = &self.shared.config;
        for entry in store.list(keys::CLUSTER_CONFIGS).await?.entries {
            self.check_owner(&entry.key[keys::CLUSTER_CONFIGS.len()..], &entry.value)?;
        }
        self.writer.begin();
        self.writer.clear(Stage::Canary);
        self.allocator.assert_masters(store).await?;
        *lock(&self.status) = Status { connected: true, failed: false, text: "connected".into() };
        let leader = keys::leader(&config.cluster_name);
        tokio::try_join!(
            self.follow(&connected, Kind::Nodes),
            self.follow(&connected, Kind::Identities),
            self.follow(&connected, Kind::Ips),
            self.follow(&connected, Kind::Services),
            self.follow_configs(store),
            self.follow_canaries(store),
            self.allocator.protect(store),
            election::run(store, &leader, &config.node_name, &self.leads),
            self.writer.run(store, &leader, self.leads.subscribe()),
            gc::run(store, config.cluster_id, config.lease_ttl, self.leads.subscribe()),
            self.publish(),
            self.beat(),
            self.report(),
            renewal(store),
            liveness(store, |_| {}),
        )
        .map(|(never, ..)| never)
    }

    /// A store carries one cluster; of others it may only have kvstoremesh's mirror.
    fn check_owner(&self, cluster: &str, value: &[u8]) -> Result<()> {
        let (name, id) = (&self.shared.config.cluster_name, u32::from(self.shared.config.cluster_id));
        let Ok(theirs) = from_json::<ClusterConfig>(value) else {
            return Ok(()); // not ours to judge; our own is written over
        };
        if cluster == name && theirs.id != id {
            return Err(StoreError::Failed(format!(
                "this store belongs to cluster {name} with id {}, not {id}: give every agent of a cluster the same id",
                theirs.id
            )));
        }
        if cluster != name && !theirs.capabilities.cached {
            return Err(StoreError::Failed(format!(
                "this store belongs to cluster {cluster} (id {}), not to {name}: every cluster needs its own",
                theirs.id
            )));
        }
        Ok(())
    }

    async fn follow(&self, store: &Arc<dyn Store>, kind: Kind) -> Result<Infallible> {
        let gate = Gate::Forget(keys::canary(&self.learned.cluster, kind, Layout::State));
        self.learned
            .follow(&**store, (kind, Layout::State), gate, None, |batch| self.observe(store, kind, batch))
            .await
    }

    fn observe(&self, store: &Arc<dyn Store>, kind: Kind, batch: &Batch) {
        let stage = match kind {
            Kind::Nodes => Stage::Node,
            Kind::Ips => Stage::Ip,
            Kind::Services => Stage::Service,
            Kind::EndpointSlices => return,
            Kind::Identities => return self.observe_identities(store, batch),
        };
        let prefix = keys::prefix(kind, Layout::State, &self.learned.cluster);
        self.show_writer(stage, &prefix, batch);
    }

    /// Identities may be allocated once it is known which there are.
    fn observe_identities(&self, store: &Arc<dyn Store>, batch: &Batch) {
        match batch {
            Batch::Begin { .. } => self.allocator.begin_listing(),
            Batch::Entries(entries) => self.allocator.observe_listed(entries),
            Batch::End { complete } => {
                self.allocator.end_listing(*complete);
                self.connected.send_replace(Some(store.clone()));
            }
            Batch::Changes(changes) => changes.iter().for_each(|change| self.allocator.observe(change)),
        }
    }

    /// Tells the writer what is there of what it may write.
    fn show_writer(&self, stage: Stage, prefix: &str, batch: &Batch) {
        let full = |name: &str| format!("{prefix}{name}");
        let with_key = |entry: &Entry| Entry { key: full(&entry.key), ..entry.clone() };
        let ours = |entry: &&Entry| self.is_ours(stage, &full(&entry.key), &entry.value);
        match batch {
            Batch::Begin { .. } => self.writer.begin_listing(stage),
            Batch::Entries(entries) => {
                let taken_over = |entry: &Entry| {
                    stage == Stage::Ip && self.is_of_same_pod(&full(&entry.key), &entry.value)
                };
                for entry in entries.iter().filter(|entry| ours(entry) || taken_over(entry)) {
                    self.writer.observe(stage, Change::Put(with_key(entry)));
                }
            }
            Batch::End { .. } => self.writer.end_listing(stage),
            Batch::Changes(changes) => {
                for change in changes {
                    match change {
                        Change::Put(entry) if ours(&entry) => {
                            self.writer.observe(stage, Change::Put(with_key(entry)));
                        }
                        // Whoever wrote it has it now: it is not ours to delete any more.
                        Change::Put(Entry { key: name, .. }) | Change::Delete(name) => {
                            self.writer.observe(stage, Change::Delete(full(name)));
                        }
                    }
                }
            }
        }
    }

    fn is_ours(&self, stage: Stage, key: &str, value: &[u8]) -> bool {
        match stage {
            Stage::Service => true,
            Stage::Node => key == self.node_key(),
            Stage::Ip => self.is_hosted_here(value),
            Stage::Canary => Kind::ALL.iter().any(|kind| key == self.canary(*kind)),
            _ => self.writer.wants(stage, key),
        }
    }

    fn is_hosted_here(&self, value: &[u8]) -> bool {
        let host = from_json(value).ok().and_then(|ip: IpIdentity| ip.host_ip.parse().ok());
        host.is_some_and(|host: IpAddr| self.shared.config.node_addresses.contains(&host))
    }

    /// An address was that of the same pod when this agent began: the node's own address has changed.
    fn is_of_same_pod(&self, key: &str, value: &[u8]) -> bool {
        let Some(wanted) = self.writer.wanted(Stage::Ip, key) else { return false };
        let pod = |value: &[u8]| {
            let ip: IpIdentity = from_json(value).ok()?;
            (!ip.k8s_pod_name.is_empty()).then_some((ip.k8s_namespace, ip.k8s_pod_name))
        };
        pod(value).is_some_and(|theirs| pod(&wanted) == Some(theirs))
    }

    /// Addresses of pods of this node that another one has claimed before, and what the store refuses.
    pub(super) fn conflicts(&self) -> Vec<String> {
        let taken = self.writer.taken(Stage::Ip);
        let conflict = |(key, value): (String, Vec<u8>)| {
            let address = key.rsplit_once("default/").map_or(&*key, |(_, address)| address);
            let theirs: IpIdentity = from_json(&value).unwrap_or_default();
            format!(
                "{address} is the address of pod {}/{} behind {}: this node's pod with it is not published before \
                 that one goes",
                theirs.k8s_namespace, theirs.k8s_pod_name, theirs.host_ip
            )
        };
        taken.into_iter().map(conflict).chain(self.writer.refused()).collect()
    }

    async fn follow_configs(&self, store: &dyn Store) -> Result<Infallible> {
        let mut follower = Follower::new(store, keys::CLUSTER_CONFIGS.into(), Gate::None);
        loop {
            let batch = follower.next().await?;
            let check = |entry: &Entry| self.check_owner(&entry.key, &entry.value);
            match &batch {
                Batch::Entries(entries) => entries.iter().try_for_each(check)?,
                Batch::Changes(changes) => changes.iter().try_for_each(|change| match change {
                    Change::Put(entry) => check(entry),
                    Change::Delete(_) => Ok(()),
                })?,
                Batch::Begin { .. } | Batch::End { .. } => {}
            }
            self.show_writer(Stage::ClusterConfig, keys::CLUSTER_CONFIGS, &batch);
        }
    }

    async fn follow_canaries(&self, store: &dyn Store) -> Result<Infallible> {
        let prefix = keys::canaries(&self.learned.cluster);
        let mut follower = Follower::new(store, prefix.clone(), Gate::None);
        loop {
            let batch = follower.next().await?;
            self.show_writer(Stage::Canary, &prefix, &batch);
        }
    }

    /// Lets the canaries be written once this agent knows all it has to write, and everyone whose
    /// keys were there before has written them again.
    async fn publish(&self) -> Result<Infallible> {
        let begun = Instant::now();
        let mut nodes_back = begun;
        self.learned.all_complete().await;
        loop {
            let set = [Stage::Node, Stage::Service].into_iter().all(|stage| self.writer.is_set(stage));
            if self.learned.suspects(Kind::Nodes) > 0 {
                nodes_back = Instant::now();
            }
            let all_back = Kind::ALL.into_iter().all(|kind| self.learned.suspects(kind) == 0);
            if set && (all_back || nodes_back.elapsed() > SETTLE || begun.elapsed() > REPOPULATE) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let time = now();
        let keys = Kind::ALL.into_iter().map(|kind| (self.canary(kind), time.clone().into_bytes()));
        self.writer.replace(Stage::Canary, keys.collect());
        std::future::pending().await
    }

    async fn beat(&self) -> Result<Infallible> {
        loop {
            self.writer.replace(Stage::Heartbeat, one(keys::HEARTBEAT.into(), now()));
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    /// Reports the first complete view, once.
    async fn report(&self) -> Result<Infallible> {
        self.learned.all_complete().await;
        if !self.reported.swap(true, Ordering::Relaxed) {
            self.shared.outbox.push([Update::Synced(self.learned.cluster.clone())]);
            self.shared.outbox.flush().await;
        }
        std::future::pending().await
    }

    fn node_key(&self) -> String {
        let prefix = keys::prefix(Kind::Nodes, Layout::State, &self.learned.cluster);
        format!("{prefix}{}", self.shared.config.node_name)
    }

    fn canary(&self, kind: Kind) -> String {
        keys::canary(&self.learned.cluster, kind, Layout::State)
    }
}

/// The address by which the others know a node.
fn host_address(addresses: &[IpAddr]) -> String {
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.map(IpAddr::to_string).unwrap_or_default()
}

fn one(key: String, value: String) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([(key, value.into_bytes())])
}

/// RFC 3339, in whole seconds.
fn now() -> String {
    let seconds = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    jiff::Timestamp::from_second(seconds.cast_signed()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests;
