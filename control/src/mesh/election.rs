//! One agent of a cluster publishes what belongs to the cluster as a whole. It holds a key with a
//! short lease; when it goes, another one takes the key.

use super::store::{Entry, LeaseId, REST, Result, Store, StoreError};
use super::sync;
use rand::Rng;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// Term of the leader's lease, seconds: the longest time without a leader.
const TERM: i64 = 15;
/// How often the leader proves itself.
const PROVE: Duration = Duration::from_secs(5);
/// Candidates wait up to so long, at random, so that not all write at once.
const JITTER_MS: u64 = 200;

/// Campaigns and leads for as long as the store answers. A leader is told by the revision of its key:
/// whatever it writes for its cluster is to be bound to that, as it may not know yet that another one
/// has taken over.
pub(super) async fn run(
    store: &dyn Store,
    key: &str,
    name: &str,
    leads: &watch::Sender<Option<i64>>,
) -> Result<Infallible> {
    let _resign = Resign(leads);
    loop {
        let (lease, revision) = match campaign(store, key, name).await {
            Err(error) if error.is_refusal() => {
                tracing::warn!(name, "cannot lead its cluster: {error}");
                tokio::time::sleep(REST).await;
                continue;
            }
            won => won?,
        };
        tracing::info!(name, "leads its cluster");
        leads.send_replace(Some(revision));
        while proves(store, key, lease).await? {
            tokio::time::sleep(PROVE).await;
        }
        leads.send_replace(None);
        tracing::warn!(name, "no longer leads its cluster");
    }
}

/// Gives leadership up.
pub(super) async fn resign(store: &dyn Store, key: &str, name: &str) -> Result<()> {
    match store.get(key).await? {
        Some(entry) if entry.value == name.as_bytes() => {
            store.delete_if(key, &[(key, entry.revision)]).await.map(|_| ())
        }
        _ => Ok(()),
    }
}

/// Whoever stops following the store does not lead.
struct Resign<'a>(&'a watch::Sender<Option<i64>>);

impl Drop for Resign<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

/// Returns the lease of the key that makes its holder the leader, and the key's revision.
async fn campaign(store: &dyn Store, key: &str, name: &str) -> Result<(LeaseId, i64)> {
    loop {
        match store.get(key).await? {
            // Of an earlier life of this agent: nobody else has this name.
            Some(Entry { value, revision, .. }) if value == name.as_bytes() => {
                store.delete_if(key, &[(key, revision)]).await?;
            }
            Some(_) => {
                sync::wait_gone(store, key).await?;
                let jitter = rand::rng().random_range(0..JITTER_MS);
                tokio::time::sleep(Duration::from_millis(jitter)).await;
            }
            None => {
                let lease = store.grant(TERM).await?;
                if let Some(revision) = store.put_if(key, name.as_bytes(), lease, &[(key, 0)]).await? {
                    return Ok((lease, revision));
                }
                store.revoke(lease).await?;
            }
        }
    }
}

/// The key is still there with our lease, which lives for another term.
async fn proves(store: &dyn Store, key: &str, lease: LeaseId) -> Result<bool> {
    match store.keep_alive(lease).await {
        Ok(()) => Ok(store.get(key).await?.is_some_and(|entry| entry.lease == lease)),
        Err(StoreError::LeaseLost(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
