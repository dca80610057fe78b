//! Frees numbers that no node uses any more and locks that were left behind (`cilium-interop` 2.5): the
//! leader looks once per lease term and deletes what was so, and untouched, two times in a row.

use super::keys::{self, Kind, Layout};
use super::store::{Entry, Result, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use wire::Identity;

/// Pause after each number freed: 2500 a minute, as Cilium does.
const PACE: Duration = Duration::from_millis(24);

/// Numbers found unused and the revision of their key.
type Unused = BTreeMap<Identity, i64>;
/// Locks found, likewise.
type Locks = BTreeMap<String, i64>;

/// Collects for as long as the store answers and this agent leads; to be done as often as leases of
/// uses end, as whoever is away for less must not lose its number.
pub(super) async fn run(
    store: &dyn Store,
    cluster_id: u8,
    interval: Duration,
    leads: watch::Receiver<Option<i64>>,
) -> Result<Infallible> {
    let (mut unused, mut locks) = (Unused::new(), Locks::new());
    loop {
        tokio::time::sleep(interval).await;
        if leads.borrow().is_none() {
            (unused, locks) = Default::default();
            continue;
        }
        (unused, locks) = match sweep(store, cluster_id, &unused, &locks).await {
            Err(error) if error.is_refusal() => {
                tracing::warn!("unused identities are not freed: {error}");
                Default::default()
            }
            left => left?,
        };
    }
}

async fn sweep(store: &dyn Store, cluster_id: u8, unused: &Unused, locks: &Locks) -> Result<(Unused, Locks)> {
    let locks = break_stale(store, locks).await?;
    Ok((collect(store, cluster_id, unused).await?, locks))
}

/// Removes locks that are there now as they were `before`: nobody holds one for so long. Returns the
/// others.
async fn break_stale(store: &dyn Store, before: &Locks) -> Result<Locks> {
    let mut locks = Locks::new();
    for Entry { key, revision, .. } in store.list(keys::IDENTITY_LOCKS).await?.entries {
        if before.get(&key) == Some(&revision) {
            tracing::info!("{key}: removed, nobody holds a lock for so long");
            store.delete_if(&key, &[(&key, revision)]).await?;
        } else {
            locks.insert(key, revision);
        }
    }
    Ok(locks)
}

/// One look: deletes what is unused now as it was `before`; returns what else is unused.
async fn collect(store: &dyn Store, cluster_id: u8, before: &Unused) -> Result<Unused> {
    let prefix = keys::prefix(Kind::Identities, Layout::State, "");
    let numbers = store.list(&prefix).await?;
    let used = uses(store, keys::IDENTITY_USES).await?;
    let mut unused = Unused::new();
    for entry in numbers.entries {
        let Some(id) = entry.key[prefix.len()..].parse().ok().map(Identity) else { continue };
        if id.cluster() != u32::from(cluster_id) || used.contains(&id) {
            continue;
        }
        if before.get(&id) == Some(&entry.revision) {
            free(store, id, &entry).await?;
            tokio::time::sleep(PACE).await;
        } else {
            unused.insert(id, entry.revision);
        }
    }
    Ok(unused)
}

/// Deletes a number unless somebody has begun to use it.
async fn free(store: &dyn Store, id: Identity, entry: &Entry) -> Result<()> {
    let labels = String::from_utf8_lossy(&entry.value);
    let lock = store.lock(&keys::identity_lock(&labels)).await?;
    if !uses(store, &keys::identity_uses(&labels)).await?.contains(&id) {
        tracing::info!("identity {} ({labels}) is used by no node: freed", id.0);
        store.delete_if(&entry.key, &[(&entry.key, entry.revision)]).await?;
    }
    store.revoke(lock.lease).await
}

async fn uses(store: &dyn Store, prefix: &str) -> Result<BTreeSet<Identity>> {
    let number = |entry: &Entry| std::str::from_utf8(&entry.value).ok()?.parse().ok().map(Identity);
    Ok(store.list(prefix).await?.entries.iter().filter_map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    async fn put(store: &MemoryStore, key: &str, value: &str) {
        store.put(key, value.as_bytes(), 0).await.unwrap();
    }

    #[tokio::test]
    async fn only_what_is_unused_twice_in_a_row_goes() {
        let store = MemoryStore::default();
        let id = |n: u32| Identity((2 << 16) + n);
        for n in 1..=3 {
            put(&store, &keys::identity(id(n)), &format!("k8s:a={n};")).await;
        }
        put(&store, &keys::identity(Identity(3 << 16)), "k8s:other=cluster;").await;
        put(&store, &keys::identity_use("k8s:a=1;", "n1"), &id(1).0.to_string()).await;
        let unused = collect(&store, 2, &Unused::new()).await.unwrap();
        assert_eq!(unused.keys().copied().collect::<Vec<_>>(), [id(2), id(3)]);
        // The third one was touched between the two looks.
        put(&store, &keys::identity(id(3)), "k8s:a=3;").await;
        let unused = collect(&store, 2, &unused).await.unwrap();
        assert_eq!(unused.keys().copied().collect::<Vec<_>>(), [id(3)]);
        let left = store.list(&keys::prefix(Kind::Identities, Layout::State, "")).await.unwrap();
        let left: Vec<_> = left.entries.into_iter().map(|entry| entry.key).collect();
        assert_eq!(left, [id(1), id(3), Identity(3 << 16)].map(keys::identity));
        assert!(store.list(keys::IDENTITY_LOCKS).await.unwrap().entries.is_empty());
    }

    #[tokio::test]
    async fn locks_that_stay_are_broken() {
        let store = MemoryStore::default();
        put(&store, "cilium/state/identities/v1/locks/k8s:a=1;/3e8", "").await;
        let locks = break_stale(&store, &Locks::new()).await.unwrap();
        put(&store, "cilium/state/identities/v1/locks/k8s:a=2;/3e9", "").await;
        let locks = break_stale(&store, &locks).await.unwrap();
        assert_eq!(locks.keys().collect::<Vec<_>>(), ["cilium/state/identities/v1/locks/k8s:a=2;/3e9"]);
        assert_eq!(store.list(keys::IDENTITY_LOCKS).await.unwrap().entries.len(), 1);
    }
}
