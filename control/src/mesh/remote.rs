//! One remote cluster: connected to, checked, read; kept while it is away and given up after long.

use super::backoff::Backoff;
use super::config::{Certificate, ClientConfig, check_cluster_config};
use super::etcd::EtcdStore;
use super::keys::{self, Kind, Layout};
use super::learned::{Learned, due};
use super::persist::Earlier;
use super::store::{Entry, Result, Store, StoreError};
use super::sync::Gate;
use super::{MeshConfig, RETRY_FIRST, RETRY_LIMIT, Shared, liveness, lock, renewal};
use crate::model::RemoteStatus;
use crate::records::{ClusterConfig, from_json};
use crate::update::Update;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A publisher that has not renewed its heartbeat for so long, though the store answers, is taken for
/// dead, as Cilium does: its services are stale. What it wrote goes with its leases.
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
    beat: watch::Sender<Beat>,
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

/// Sign of life of the publisher, over all connections.
#[derive(Default)]
struct Beat {
    newest: Option<Entry>,
    /// For how long the store has answered since without a newer one.
    silent: Duration,
}

impl Beat {
    /// The store has answered once more, so long after its last answer.
    fn hear(&mut self, heartbeat: Option<Entry>, after: Duration) {
        // One that is gone, with its lease, is none.
        if heartbeat.is_some() && heartbeat != self.newest {
            *self = Beat { newest: heartbeat, silent: Duration::ZERO };
        } else {
            self.silent += after;
        }
    }

    fn is_dead(&self) -> bool {
        self.silent > HEARTBEAT_LIMIT
    }
}

#[derive(Default)]
struct Link {
    connected: bool,
    status: String,
    config: Option<ClusterConfig>,
    conflict: Option<String>,
    failures: u64,
    last_failure: Option<Instant>,
    /// When all that is known was confirmed last.
    confirmed: Option<Instant>,
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
            beat: watch::Sender::default(),
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
            let ttl = self.shared.config.cache_ttl;
            (ttl.is_zero() || earlier.age < ttl)
                && ids.entry(earlier.id).or_insert_with(|| self.name().into()) == self.name()
        };
        if let Some(since) = self.learned.restore(of_use, |_, _| {}).await {
            let seconds = since.elapsed().as_secs();
            tracing::info!("what was known of cluster {} {seconds} s ago is in use", self.name());
            self.lost.send_replace(Some(since));
            lock(&self.link).confirmed = Some(since);
        }
        self.learned.be_ready();
    }

    /// Follows the cluster until it is stopped, once it is restored.
    pub(super) async fn run(&self, config: ClientConfig) {
        self.learned.ready().await;
        loop {
            // Over another connection nothing is confirmed yet.
            self.doubt();
            {
                let mut link = lock(&self.link);
                (link.connected, link.status) = (false, "connecting".into());
            }
            tokio::select! {
                never = self.stay_connected(&config) => match never {},
                () = self.age() => {}
            }
            tracing::warn!("remote cluster {} is away for too long: its data is dropped", self.name());
            lock(&self.link).revocations += 1;
            self.drain().await;
        }
    }

    /// Forgets everything.
    async fn drain(&self) {
        lock(&self.link).confirmed = None;
        self.lost.send_replace(None);
        self.learned.drain().await;
    }

    /// Nothing is confirmed any more: what is known ages from now on, unless it does already.
    fn doubt(&self) {
        self.learned.unconfirm();
        if !lock(&self.learned.view).is_empty() {
            self.lost.send_if_modified(|lost| lost.is_none() && lost.replace(Instant::now()).is_none());
        }
    }

    /// The cluster is no longer configured (and no longer followed): forgets all of it.
    pub(super) async fn forget(&self) {
        self.learned.ready().await;
        self.learned.forget().await;
        self.set_stale(false).await;
        lock(&self.shared.ids).retain(|_, name| name != self.name());
    }

    pub(super) fn conflict(&self) -> Option<String> {
        lock(&self.link).conflict.clone()
    }

    pub(super) fn status(&self) -> RemoteStatus {
        let link = lock(&self.link);
        let view = lock(&self.learned.view);
        let (refused, last_refusal) = view.refused();
        let audits = lock(&self.learned.audits);
        let complete = self.learned.complete();
        let beat = self.beat.borrow();
        let ready = link.connected && complete.values().all(|complete| *complete) && !beat.is_dead();
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
                (true, true, false) if missing.is_empty() => {
                    format!("its publisher is dead: no heartbeat for {} s", beat.silent.as_secs())
                }
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
            synced: self.learned.synced(),
            num_failures: link.failures,
            last_failure_seconds: link.last_failure.map(|at| at.elapsed().as_secs()),
            last_contact_seconds: link.confirmed.map(|at| at.elapsed().as_secs()),
            refused,
            last_refusal: last_refusal.map(Into::into),
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
            self.doubt();
            if let StoreError::Renewed = error {
                tracing::info!("remote cluster {}: {error}; connecting anew", self.name());
                continue;
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
            // One that is behind what was seen has lost its newest data, heartbeat or not.
            let seen = self.learned.seen(kind).filter(|seen| resumes && Some(*seen) <= store.revision());
            self.learned.follow(store, (kind, layout), gate, seen, |_| {})
        };
        let mut answered = Instant::now();
        let contact = |heartbeat| {
            let before = std::mem::replace(&mut answered, Instant::now());
            self.beat.send_modify(|beat| beat.hear(heartbeat, answered - before));
            {
                let mut link = lock(&self.link);
                link.revision = store.revision();
                if self.learned.is_complete() {
                    link.confirmed = Some(answered);
                }
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
            liveness(store, contact),
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
            self.drain().await;
            self.learned.identify(id);
        }
        lock(&self.link).config = Some(config.clone());
        Ok(())
    }

    /// Once all is confirmed, nothing is lost any more, and services are in use while there is a
    /// publisher.
    async fn confirm(&self) -> Result<Infallible> {
        self.learned.all_complete().await;
        lock(&self.link).confirmed = Some(Instant::now());
        self.lost.send_replace(None);
        if !self.reported.swap(true, Ordering::Relaxed) {
            self.shared.outbox.push([Update::Synced(self.name().into())]);
            self.shared.outbox.flush().await;
        }
        let mut beat = self.beat.subscribe();
        loop {
            let dead = beat.borrow_and_update().is_dead();
            if dead && !self.stale.load(Ordering::Relaxed) {
                tracing::warn!("remote cluster {}: no heartbeat for too long", self.name());
            }
            self.set_stale(dead).await;
            // The sender lives as long as self.
            let _ = beat.changed().await;
        }
    }

    /// What is lost for long is first not used for services; ends when it is to be forgotten.
    async fn age(&self) {
        let MeshConfig { service_grace, cache_ttl, .. } = self.shared.config;
        let mut lost = self.lost.subscribe();
        loop {
            let since = *lost.borrow_and_update();
            let Some(since) = since else {
                // The sender lives as long as self.
                let _ = lost.changed().await;
                continue;
            };
            // So far in the future that no clock gets there is never, too.
            let end = since.checked_add(cache_ttl).filter(|_| !cache_ttl.is_zero());
            let mut changes = async |before| {
                tokio::select! {
                    biased;
                    _ = lost.changed() => true,
                    () = due(before) => false,
                }
            };
            let grace = since + service_grace;
            if end.is_none_or(|end| grace < end) {
                if changes(Some(grace)).await {
                    continue;
                }
                self.set_stale(true).await;
            }
            if !changes(end).await {
                return;
            }
        }
    }

    async fn set_stale(&self, stale: bool) {
        if self.stale.swap(stale, Ordering::Relaxed) != stale {
            self.shared.outbox.push([Update::ClusterServices { cluster: self.name().into(), stale }]);
            self.shared.outbox.flush().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_is_dead_once_the_store_has_long_answered_without_a_newer_heartbeat() {
        let heartbeat =
            |revision| Some(Entry { key: keys::HEARTBEAT.into(), value: b"now".into(), lease: 1, revision });
        let mut beat = Beat::default();
        let mut dead_after = |revision: Option<i64>, seconds| {
            beat.hear(revision.and_then(heartbeat), Duration::from_secs(seconds));
            beat.is_dead()
        };
        assert!(!dead_after(Some(5), 200), "it came just now");
        assert!(!dead_after(Some(5), 100));
        assert!(!dead_after(Some(5), 50));
        assert!(dead_after(Some(5), 1));
        assert!(dead_after(None, 1), "its lease has ended");
        assert!(!dead_after(Some(6), 1));
        assert!(!dead_after(None, 150));
        assert!(dead_after(None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_is_forgotten_when_the_ttl_says_so() {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        // Seconds, and whether its services are a last resort first.
        for (ttl, forgotten, stale) in
            [(10, Some(10), false), (600, Some(600), true), (0, None, true), (u64::MAX, None, true)]
        {
            let (updates, _received) = tokio::sync::mpsc::channel(16);
            let mut shared = Shared::alone(updates, vec![]);
            let config = &mut Arc::get_mut(&mut shared).expect("nobody else has it").config;
            (config.service_grace, config.cache_ttl) = (Duration::from_secs(30), Duration::from_secs(ttl));
            let remote = Remote::new(shared, "west".into());
            let begun = Instant::now();
            remote.lost.send_replace(Some(begun));
            let ended = tokio::time::timeout(YEAR, remote.age()).await.is_ok();
            assert_eq!(ended.then(|| begun.elapsed().as_secs()), forgotten, "{ttl} s");
            assert_eq!(remote.stale.load(Ordering::Relaxed), stale, "{ttl} s");
        }
    }
}
