//! Leases that keep this agent's keys alive: 15 minutes, so that a restart leaves no gap, and at
//! most 1000 keys each, as Cilium has it (`cilium-interop` 2.12).

use super::lock;
use super::store::{LeaseId, Result, Store, StoreError};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Term of a lease, seconds.
const TERM: i64 = 15 * 60;
/// A third of the term: two keep-alives may fail.
const RENEW: Duration = Duration::from_secs(5 * 60);
const KEYS_PER_LEASE: usize = 1000;

#[derive(Default)]
pub(super) struct Leases {
    leases: Mutex<Vec<Lease>>,
}

struct Lease {
    id: LeaseId,
    keys: usize,
}

impl Leases {
    fn leases(&self) -> MutexGuard<'_, Vec<Lease>> {
        lock(&self.leases)
    }

    /// It is one of ours and not known to be lost.
    pub(super) fn holds(&self, id: LeaseId) -> bool {
        self.leases().iter().any(|lease| lease.id == id)
    }

    /// A lease for one more key.
    pub(super) async fn attach(&self, store: &dyn Store) -> Result<LeaseId> {
        if let Some(lease) = self.leases().iter_mut().find(|lease| lease.keys < KEYS_PER_LEASE) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let id = store.grant(TERM).await?;
        self.leases().push(Lease { id, keys: 1 });
        Ok(id)
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
            tokio::time::sleep(RENEW).await;
            if self.renew(store).await? {
                lost();
            }
        }
    }
}
