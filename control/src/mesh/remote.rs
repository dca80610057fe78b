//! One remote cluster: connected to, checked, read; kept while it is away and given up after long.

use super::backoff::Backoff;
use super::config::{ClientConfig, check_cluster_config};
use super::etcd::EtcdStore;
use super::keys::{self, Kind, Layout};
use super::learned::Learned;
use super::store::{Result, Store, StoreError};
use super::sync::Gate;
use super::{RETRY_FIRST, RETRY_LIMIT, Shared, liveness, lock};
use crate::model::RemoteStatus;
use crate::records::ClusterConfig;
use crate::update::Update;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// A publisher that has not renewed its heartbeat for so long is taken for dead, as Cilium does.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(150);
/// How often a missing cluster-config is looked for.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Remote {
    shared: Arc<Shared>,
    learned: Learned,
    link: Mutex<Link>,
    /// Since when what is known is no longer confirmed.
    lost: watch::Sender<Option<Instant>>,
    /// Its services were reported as stale.
    stale: AtomicBool,
    /// Its first complete view was reported.
    reported: AtomicBool,
}

#[derive(Default)]
struct Link {
    connected: bool,
    status: String,
    config: Option<ClusterConfig>,
    conflict: Option<String>,
    failures: u64,
    last_failure: Option<Instant>,
    last_contact: Option<Instant>,
}

impl Remote {
    pub(super) fn new(shared: Arc<Shared>, name: String) -> Remote {
        Remote {
            learned: Learned::new(shared.clone(), name, 0, true),
            shared,
            link: Mutex::new(Link { status: "connecting".into(), ..Link::default() }),
            lost: watch::Sender::new(None),
            stale: AtomicBool::new(false),
            reported: AtomicBool::new(false),
        }
    }

    fn name(&self) -> &str {
        &self.learned.cluster
    }

    /// Follows the cluster until it is stopped.
    pub(super) async fn run(&self, config: ClientConfig) {
        // With another configuration nothing is confirmed yet.
        self.learned.unconfirm();
        {
            let mut link = lock(&self.link);
            (link.connected, link.status) = (false, "connecting".into());
        }
        tokio::select! {
            never = self.stay_connected(&config) => match never {},
            never = self.age() => match never {},
        }
    }

    /// The cluster is no longer configured (and no longer followed): forgets all of it.
    pub(super) async fn forget(&self) {
        self.learned.drain().await;
        if self.stale.swap(false, Ordering::Relaxed) {
            self.report_services(false).await;
        }
        lock(&self.shared.ids).retain(|_, name| name != self.name());
    }

    pub(super) fn conflict(&self) -> Option<String> {
        lock(&self.link).conflict.clone()
    }

    pub(super) fn status(&self) -> RemoteStatus {
        let link = lock(&self.link);
        let view = lock(&self.learned.view);
        let complete = self.learned.complete();
        let ready = link.connected && complete.values().all(|complete| *complete);
        let missing: Vec<_> =
            complete.iter().filter(|(_, complete)| !**complete).map(|(kind, _)| kind.name()).collect();
        let capabilities = link.config.as_ref().map(|config| &config.capabilities);
        RemoteStatus {
            name: self.name().into(),
            ready,
            connected: link.connected,
            status: match (link.config.is_some(), link.connected, ready) {
                (_, _, true) => "ready".into(),
                (true, true, false) => format!("waiting for {}", missing.join(", ")),
                _ => link.status.clone(),
            },
            cluster_id: link.config.as_ref().map(|config| config.id),
            kvstoremesh: capabilities.is_some_and(|can| can.cached),
            sync_canaries: capabilities.is_some_and(|can| can.synced_canaries),
            num_nodes: view.count(Kind::Nodes),
            num_endpoints: view.count(Kind::Ips),
            num_identities: view.count(Kind::Identities),
            num_shared_services: view.count(Kind::Services),
            synced: Kind::ALL.map(|kind| (kind.name().into(), self.learned.retains(kind))).into(),
            num_failures: link.failures,
            last_failure_seconds: link.last_failure.map(|at| at.elapsed().as_secs()),
            last_contact_seconds: link.last_contact.map(|at| at.elapsed().as_secs()),
            refused: view.refused,
            last_refusal: view.last_refusal.clone(),
        }
    }

    async fn stay_connected(&self, config: &ClientConfig) -> Infallible {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
        loop {
            let begun = Instant::now();
            let Err(error) = self.session(config).await;
            self.learned.unconfirm();
            if !lock(&self.learned.view).is_empty() {
                self.lost.send_if_modified(|lost| lost.is_none() && lost.replace(Instant::now()).is_none());
            }
            {
                let mut link = lock(&self.link);
                // Attempts follow each other fast: a reason is logged once.
                if link.connected || !link.status.ends_with(&error.to_string()) {
                    tracing::warn!("remote cluster {}: {error}", self.name());
                }
                link.connected = false;
                link.status = format!("not connected: {error}");
                link.failures += 1;
                link.last_failure = Some(Instant::now());
            }
            backoff.pause_after(begun.elapsed()).await;
        }
    }

    async fn session(&self, config: &ClientConfig) -> Result<Infallible> {
        let store = &EtcdStore::connect(config).await?;
        let config = self.cluster_config(store).await?;
        self.admit(&config).await?;
        let can = &config.capabilities;
        let layout = if can.cached { Layout::Cache } else { Layout::State };
        let follow = |kind| {
            let gate = match can.synced_canaries {
                true => Gate::Read(keys::canary(self.name(), kind, layout)),
                false => Gate::None,
            };
            self.learned.follow(store, kind, layout, gate, |_| {})
        };
        tokio::try_join!(
            follow(Kind::Nodes),
            follow(Kind::Identities),
            follow(Kind::Ips),
            follow(Kind::Services),
            self.confirm(),
            liveness(store, Some(HEARTBEAT_LIMIT), || lock(&self.link).last_contact = Some(Instant::now())),
        )
        .map(|(never, ..)| never)
    }

    /// Reads what the cluster says of itself; waits until it does.
    async fn cluster_config(&self, store: &dyn Store) -> Result<ClusterConfig> {
        let key = keys::cluster_config(self.name());
        loop {
            let entry = store.get(&key).await?;
            {
                let mut link = lock(&self.link);
                link.connected = true;
                link.last_contact = Some(Instant::now());
                link.config = None;
                link.status = format!("connected, but {key} is not there yet");
            }
            match entry {
                Some(entry) => {
                    return serde_json::from_slice(&entry.value).map_err(|error| {
                        StoreError::Failed(format!("{key} is not the right JSON: {error}"))
                    });
                }
                None => sleep(LOOK).await,
            }
        }
    }

    /// Checks what a cluster says of itself and reserves its id (`cilium-interop` 1.5).
    async fn admit(&self, config: &ClusterConfig) -> Result<()> {
        let id = config.id;
        let own = &self.shared.config;
        let refusal = if let Err(refusal) = check_cluster_config(self.name(), config) {
            Some(refusal)
        } else if id == u32::from(own.cluster_id) {
            Some(format!(
                "cluster {} has id {id}, which is that of this cluster {}",
                self.name(),
                own.cluster_name
            ))
        } else {
            let mut ids = lock(&self.shared.ids);
            match ids.get(&id).filter(|name| *name != self.name()) {
                Some(other) => {
                    Some(format!("cluster {} has id {id}, which cluster {other} has too", self.name()))
                }
                None => {
                    ids.retain(|_, name| name != self.name());
                    ids.insert(id, self.name().into());
                    None
                }
            }
        };
        lock(&self.link).conflict.clone_from(&refusal);
        if let Some(refusal) = refusal {
            return Err(StoreError::Failed(format!("refused: {refusal}")));
        }
        let before = lock(&self.learned.view).id();
        if before != id {
            self.learned.drain().await;
            lock(&self.learned.view).set_id(id);
        }
        lock(&self.link).config = Some(config.clone());
        Ok(())
    }

    /// Once all is confirmed, nothing is lost or stale any more.
    async fn confirm(&self) -> Result<Infallible> {
        self.learned.all_complete().await;
        self.lost.send_replace(None);
        if self.stale.swap(false, Ordering::Relaxed) {
            self.report_services(false).await;
        }
        if !self.reported.swap(true, Ordering::Relaxed) {
            self.shared.outbox.push([Update::Synced(self.name().into())]);
            self.shared.outbox.flush().await;
        }
        std::future::pending().await
    }

    /// What is lost for long is first not used for services, then forgotten.
    async fn age(&self) -> Infallible {
        let config = &self.shared.config;
        let mut lost = self.lost.subscribe();
        loop {
            let since = *lost.borrow_and_update();
            if let Some(since) = since {
                if timeout_at(since + config.service_grace, lost.changed()).await.is_ok() {
                    continue;
                }
                if !self.stale.swap(true, Ordering::Relaxed) {
                    self.report_services(true).await;
                }
                if timeout_at(since + config.cache_ttl, lost.changed()).await.is_ok() {
                    continue;
                }
                tracing::warn!("remote cluster {} is away for too long: its data is dropped", self.name());
                self.learned.drain().await;
            }
            // The sender lives as long as self.
            let _ = lost.changed().await;
        }
    }

    async fn report_services(&self, stale: bool) {
        self.shared.outbox.push([Update::ClusterServices { cluster: self.name().into(), stale }]);
        self.shared.outbox.flush().await;
    }
}
