//! One remote cluster: connected to, checked, read; kept while it is away and given up after long.

use super::backoff::Backoff;
use super::config::{Certificate, ClientConfig, check_cluster_config};
use super::etcd::EtcdStore;
use super::keys::{self, Kind, Layout};
use super::learned::Learned;
use super::persist::Earlier;
use super::store::{Entry, Result, Store, StoreError};
use super::sync::Gate;
use super::{RETRY_FIRST, RETRY_LIMIT, Shared, liveness, lock, renewal};
use crate::model::RemoteStatus;
use crate::records::{ClusterConfig, from_json};
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
/// How often is looked whether the cluster says something else of itself.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

pub(super) struct Remote {
    shared: Arc<Shared>,
    learned: Learned,
    link: Mutex<Link>,
    past: Mutex<Option<Past>>,
    /// Since when what is known is no longer confirmed.
    lost: watch::Sender<Option<Instant>>,
    /// Its services were reported as stale.
    stale: AtomicBool,
    /// Its first complete view was reported.
    reported: AtomicBool,
}

/// What was followed last.
struct Past {
    /// etcd's own cluster id.
    etcd: Option<u64>,
    /// By which the store can be told from one that has lost its data.
    witness: Entry,
    layout: Layout,
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
    revision: Option<i64>,
    certificates: Vec<Certificate>,
    revocations: u64,
}

impl Remote {
    pub(super) fn new(shared: Arc<Shared>, name: String) -> Remote {
        Remote {
            learned: Learned::new(shared.clone(), name, 0, true),
            shared,
            past: Mutex::default(),
            link: Mutex::new(Link { status: "connecting".into(), ..Link::default() }),
            lost: watch::Sender::new(None),
            stale: AtomicBool::new(false),
            reported: AtomicBool::new(false),
        }
    }

    fn name(&self) -> &str {
        &self.learned.cluster
    }

    /// Takes up what an earlier run knew of the cluster, if it is young enough and its id is free.
    pub(super) async fn restore(&self) {
        let of_use = |earlier: &Earlier| {
            let mut ids = lock(&self.shared.ids);
            earlier.age < self.shared.config.cache_ttl
                && ids.entry(earlier.id).or_insert_with(|| self.name().into()) == self.name()
        };
        if let Some(since) = self.learned.restore(of_use).await {
            let seconds = since.elapsed().as_secs();
            tracing::info!("what was known of cluster {} {seconds} s ago is in use", self.name());
            self.lost.send_replace(Some(since));
        }
        self.learned.be_ready();
    }

    /// Follows the cluster until it is stopped, once it is restored.
    pub(super) async fn run(&self, config: ClientConfig) {
        self.learned.ready().await;
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
        self.learned.ready().await;
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
        let audits = lock(&self.learned.audits);
        let complete = self.learned.complete();
        let ready = link.connected && complete.values().all(|complete| *complete);
        let missing: Vec<_> =
            complete.iter().filter(|(_, complete)| !**complete).map(|(kind, _)| kind.name()).collect();
        let restored = self.learned.restored_text();
        let capabilities = link.config.as_ref().map(|config| &config.capabilities);
        RemoteStatus {
            name: self.name().into(),
            ready,
            connected: link.connected,
            status: match (link.config.is_some(), link.connected, ready) {
                (_, _, true) => "ready".into(),
                (true, true, false) => format!("waiting for {}{restored}", missing.join(", ")),
                _ => format!("{}{restored}", link.status),
            },
            cluster_id: link.config.as_ref().map(|config| config.id),
            kvstoremesh: capabilities.is_some_and(|can| can.cached),
            sync_canaries: capabilities.is_some_and(|can| can.synced_canaries),
            num_nodes: view.count(Kind::Nodes),
            num_endpoints: view.count(Kind::Ips),
            num_identities: view.count(Kind::Identities),
            num_shared_services: view.services(),
            num_endpoint_slices: view.count(Kind::EndpointSlices),
            synced: Kind::ALL.map(|kind| (kind.name().into(), self.learned.retains(kind))).into(),
            num_failures: link.failures,
            last_failure_seconds: link.last_failure.map(|at| at.elapsed().as_secs()),
            last_contact_seconds: link.last_contact.map(|at| at.elapsed().as_secs()),
            refused: view.refused,
            last_refusal: view.last_refusal.clone(),
            revision: link.revision,
            certificates: link.certificates.iter().map(Certificate::status).collect(),
            last_audit_seconds: audits.last.map(|at| at.elapsed().as_secs()),
            audit_repairs: audits.repaired,
            num_cache_revocations: link.revocations,
        }
    }

    async fn stay_connected(&self, config: &ClientConfig) -> Infallible {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
        loop {
            let begun = Instant::now();
            let Err(error) = self.session(config).await;
            self.learned.unconfirm();
            if let StoreError::Renewed = error {
                tracing::info!("remote cluster {}: {error}; connecting anew", self.name());
                continue;
            }
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
        if let Ok(Some(tls)) = config.load_tls() {
            lock(&self.link).certificates = tls.certificates;
        }
        let store = &EtcdStore::connect(config).await?;
        let config = self.cluster_config(store).await?;
        self.admit(&config).await?;
        let can = &config.capabilities;
        let layout = if can.cached { Layout::Cache } else { Layout::State };
        let resumes = self.resumes(store, layout).await?;
        let follow = |kind| {
            let gate = match can.synced_canaries {
                true => Gate::Read(keys::canary(self.name(), kind, layout)),
                false => Gate::None,
            };
            let seen = self.learned.seen(kind).filter(|_| resumes);
            self.learned.follow(store, (kind, layout), gate, seen, |_| {})
        };
        let contact = || {
            {
                let mut link = lock(&self.link);
                (link.last_contact, link.revision) = (Some(Instant::now()), store.revision());
            }
            let etcd = store.cluster();
            *lock(&self.past) = store.witness().map(|witness| Past { etcd, witness, layout });
        };
        tokio::try_join!(
            follow(Kind::Nodes),
            follow(Kind::Identities),
            follow(Kind::Ips),
            follow(Kind::services_of(can)),
            self.confirm(),
            self.stays(store, &config),
            renewal(store),
            liveness(store, Some(HEARTBEAT_LIMIT), contact),
        )
        .map(|(never, ..)| never)
    }

    /// This is the store that was followed before, with the data it had then: there is no need to
    /// list what is known.
    async fn resumes(&self, store: &EtcdStore, layout: Layout) -> Result<bool> {
        let past = lock(&self.past).take();
        match past {
            Some(past) if past.etcd == store.cluster() && past.layout == layout => {
                store.remembers(&past.witness).await
            }
            _ => Ok(false),
        }
    }

    /// Ends when the cluster says something else of itself.
    async fn stays(&self, store: &dyn Store, config: &ClusterConfig) -> Result<Infallible> {
        let key = keys::cluster_config(self.name());
        loop {
            sleep(LOOK_AGAIN).await;
            let Some(entry) = store.get(&key).await? else { continue };
            if from_json::<ClusterConfig>(&entry.value).ok().as_ref() != Some(config) {
                return Err(StoreError::Failed(format!("{key} has changed")));
            }
        }
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
                    return from_json(&entry.value).map_err(|error| {
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
            self.learned.identify(id);
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
                lock(&self.link).revocations += 1;
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
