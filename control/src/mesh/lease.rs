//! Leases that keep this agent's keys alive for some time after it, so that a restart leaves no gap;
//! at most 1000 keys each, as Cilium has it (`cilium-interop` 2.12).

use super::lock;
use super::store::{LeaseId, Result, Store, StoreError};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

const KEYS_PER_LEASE: usize = 1000;

pub(super) struct Leases {
    term: Duration,
    leases: Mutex<Vec<Lease>>,
    /// One lease is opened at a time: the others of a burst find room in it.
    opening: tokio::sync::Mutex<()>,
}

struct Lease {
    id: LeaseId,
    keys: usize,
}

impl Leases {
    pub(super) fn new(term: Duration) -> Leases {
        Leases { term, leases: Mutex::default(), opening: tokio::sync::Mutex::default() }
    }

    fn leases(&self) -> MutexGuard<'_, Vec<Lease>> {
        lock(&self.leases)
    }

    /// It is one of ours and not known to be lost.
    pub(super) fn holds(&self, id: LeaseId) -> bool {
        self.leases().iter().any(|lease| lease.id == id)
    }

    /// A lease for one more key.
    pub(super) async fn attach(&self, store: &dyn Store) -> Result<LeaseId> {
        let _opening = self.opening.lock().await;
        if let Some(lease) = self.leases().iter_mut().find(|lease| lease.keys < KEYS_PER_LEASE) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let id = store.grant(self.term.as_secs().cast_signed()).await?;
        self.leases().push(Lease { id, keys: 1 });
        Ok(id)
    }

    /// A key was found that has a lease.
    pub(super) fn count(&self, id: LeaseId) {
        if let Some(lease) = self.leases().iter_mut().find(|lease| lease.id == id) {
            lease.keys += 1;
        }
    }

    /// A key of a lease is no more.
    pub(super) fn detach(&self, id: LeaseId) {
        if let Some(lease) = self.leases().iter_mut().find(|lease| lease.id == id) {
            lease.keys = lease.keys.saturating_sub(1);
        }
    }

    /// The store does not know it any more.
    pub(super) fn lost(&self, id: LeaseId) {
        self.leases().retain(|lease| lease.id != id);
    }

    /// Renews all leases and forgets those that are lost; tells whether any was.
    pub(super) async fn renew(&self, store: &dyn Store) -> Result<bool> {
        let ids: Vec<_> = self.leases().iter().map(|lease| lease.id).collect();
        let mut any = false;
        for id in ids {
            match store.keep_alive(id).await {
                Ok(()) => {}
                Err(StoreError::LeaseLost(_)) => {
                    self.lost(id);
                    any = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(any)
    }

    /// Renews for as long as the store answers; calls `lost` when a lease was lost.
    pub(super) async fn keep_alive(&self, store: &dyn Store, lost: impl Fn()) -> Result<Infallible> {
        loop {
            // A third of the term: two of them may fail.
            tokio::time::sleep(self.term / 3).await;
            if self.renew(store).await? {
                lost();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;
    use futures_util::future::join_all;
    use std::collections::BTreeMap;

    #[tokio::test]
    async fn a_lease_takes_a_thousand_keys() {
        let (leases, store) = (Leases::new(Duration::from_secs(900)), MemoryStore::default());
        let attached = join_all((0..2500).map(|_| leases.attach(&store))).await;
        let mut keys = BTreeMap::<LeaseId, usize>::new();
        for id in attached {
            *keys.entry(id.unwrap()).or_default() += 1;
        }
        assert_eq!(keys.values().copied().collect::<Vec<_>>(), [1000, 1000, 500]);
        let first = *keys.keys().next().unwrap();
        leases.detach(first);
        assert_eq!(leases.attach(&store).await.unwrap(), first, "there is room for one again");
        leases.lost(first);
        assert!(!leases.holds(first));
    }
}
