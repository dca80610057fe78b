//! Frees numbers that no node uses any more (`cilium-interop` 2.5): the leader looks once per lease
//! term and deletes what was unused, and untouched, two times in a row.

use super::keys::{self, Kind, Layout};
use super::store::{Entry, Result, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use wire::Identity;

/// As long as the lease of a use: whoever is away for less does not lose its number.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Numbers found unused and the revision of their key.
type Unused = BTreeMap<Identity, i64>;

/// Collects for as long as the store answers and this agent leads.
pub(super) async fn run(
    store: &dyn Store,
    cluster_id: u8,
    leads: watch::Receiver<bool>,
) -> Result<Infallible> {
    let mut unused = Unused::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let leader = *leads.borrow();
        unused = match leader {
            true => collect(store, cluster_id, &unused).await?,
            false => Unused::new(),
        };
    }
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
        store.delete(&entry.key, entry.revision).await?;
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
        assert!(store.list("cilium/state/identities/v1/locks/").await.unwrap().entries.is_empty());
    }
}
