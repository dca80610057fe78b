//! A store in memory, for a single node without etcd. Leases never end by themselves: the store
//! dies with the only agent that uses it.

use super::lock;
use super::store::{
    Change, Entry, Events, LeaseId, Lock, Page, Reply, Result, Store, StoreError, Unchanged, Watch,
};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

#[derive(Default)]
pub(super) struct MemoryStore {
    inner: Mutex<Inner>,
    deleted: Notify,
}

#[derive(Default)]
struct Inner {
    revision: i64,
    keys: BTreeMap<String, Entry>,
    leases: BTreeSet<LeaseId>,
    last_lease: LeaseId,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: String,
    /// With the revision of each.
    changes: mpsc::UnboundedSender<(i64, Change)>,
}

impl Inner {
    fn put(&mut self, key: &str, value: &[u8], lease: LeaseId) -> Result<()> {
        if lease != 0 && !self.leases.contains(&lease) {
            return Err(StoreError::LeaseLost(lease));
        }
        self.revision += 1;
        let entry = Entry { key: key.into(), value: value.into(), lease, revision: self.revision };
        self.keys.insert(key.into(), entry.clone());
        self.tell(key, Change::Put(entry));
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.revision += 1;
            self.tell(key, Change::Delete(key.into()));
        }
    }

    fn is_so(&self, unchanged: &[Unchanged<'_>]) -> bool {
        let revision = |key| self.keys.get(key).map_or(0, |entry| entry.revision);
        unchanged.iter().all(|(key, expected)| revision(*key) == *expected)
    }

    fn tell(&mut self, key: &str, change: Change) {
        let told = |w: &Watcher| w.changes.send((self.revision, change.clone())).is_ok();
        self.watchers.retain(|w| !key.starts_with(&w.prefix) || told(w));
    }

    fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.keys.range(prefix.to_owned()..).take_while(move |(k, _)| k.starts_with(prefix)).map(|(_, e)| e)
    }
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Takes one key for another without a word to anybody.
    #[cfg(test)]
    pub(super) fn replace_unseen(&self, old: &str, new: &str, value: &[u8]) {
        let mut inner = self.inner();
        inner.keys.remove(old);
        let entry = Entry { key: new.into(), value: value.into(), lease: 0, revision: inner.revision };
        inner.keys.insert(new.into(), entry);
    }

    /// Writes a key.
    #[cfg(test)]
    pub(super) async fn put(&self, key: &str, value: &[u8], lease: LeaseId) -> Result<()> {
        self.inner().put(key, value, lease)
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        ready(Ok(self.inner().keys.get(key).cloned())).boxed()
    }

    /// No history is kept: an earlier revision is refused as compacted.
    fn page<'a>(&'a self, prefix: &'a str, _from: Option<&'a [u8]>, revision: i64) -> Reply<'a, Page> {
        let inner = self.inner();
        if revision != 0 && revision != inner.revision {
            return ready(Err(StoreError::Compacted(revision))).boxed();
        }
        let entries = inner.below(prefix).cloned().collect();
        ready(Ok(Page { entries, revision: inner.revision, next: None })).boxed()
    }

    fn witness(&self) -> Option<Entry> {
        None
    }

    fn remembers<'a>(&'a self, entry: &'a Entry) -> Reply<'a, bool> {
        ready(Ok(self.inner().keys.get(&entry.key) == Some(entry))).boxed()
    }

    fn keeps(&self, revision: i64) -> Reply<'_, bool> {
        ready(Ok(revision > self.inner().revision)).boxed()
    }

    /// Watching from before the next revision is refused as compacted.
    fn watch<'a>(&'a self, prefix: &'a str, from: i64) -> Reply<'a, Watch> {
        let mut inner = self.inner();
        if from <= inner.revision {
            return ready(Err(StoreError::Compacted(from))).boxed();
        }
        let (changes, receiver) = mpsc::unbounded_channel();
        inner.watchers.push(Watcher { prefix: prefix.into(), changes });
        let watch = stream::unfold(receiver, |mut receiver| async {
            let (revision, change) = receiver.recv().await?;
            Some((Ok(Events { changes: vec![change], revision }), receiver))
        });
        ready(Ok(watch.boxed())).boxed()
    }

    fn create<'a>(
        &'a self,
        key: &'a str,
        value: &'a [u8],
        lease: LeaseId,
        held: Option<&'a Lock>,
    ) -> Reply<'a, bool> {
        let mut inner = self.inner();
        let lost = held.is_some_and(|lock| !inner.keys.contains_key(&lock.key));
        let created = match lost || inner.keys.contains_key(key) {
            true => Ok(false),
            false => inner.put(key, value, lease).map(|()| true),
        };
        ready(created).boxed()
    }

    fn put_if<'a>(
        &'a self,
        key: &'a str,
        value: &'a [u8],
        lease: LeaseId,
        unchanged: &'a [Unchanged<'a>],
    ) -> Reply<'a, Option<i64>> {
        let mut inner = self.inner();
        let written = match inner.is_so(unchanged) {
            true => inner.put(key, value, lease).map(|()| Some(inner.revision)),
            false => Ok(None),
        };
        ready(written).boxed()
    }

    fn delete_if<'a>(&'a self, key: &'a str, unchanged: &'a [Unchanged<'a>]) -> Reply<'a, bool> {
        let mut inner = self.inner();
        let unchanged = inner.is_so(unchanged);
        if unchanged {
            inner.delete(key);
            self.deleted.notify_waiters();
        }
        ready(Ok(unchanged)).boxed()
    }

    fn grant(&self, _seconds: i64) -> Reply<'_, LeaseId> {
        let mut inner = self.inner();
        inner.last_lease += 1;
        let lease = inner.last_lease;
        inner.leases.insert(lease);
        ready(Ok(lease)).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> Reply<'_, ()> {
        let known = self.inner().leases.contains(&lease);
        ready(if known { Ok(()) } else { Err(StoreError::LeaseLost(lease)) }).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> Reply<'_, ()> {
        let mut inner = self.inner();
        inner.leases.remove(&lease);
        let keys: Vec<_> = inner.keys.values().filter(|e| e.lease == lease).map(|e| e.key.clone()).collect();
        for key in keys {
            inner.delete(&key);
        }
        self.deleted.notify_waiters();
        ready(Ok(())).boxed()
    }

    fn lock<'a>(&'a self, name: &'a str) -> Reply<'a, Lock> {
        async move {
            let lease = self.grant(0).await?;
            let queue = format!("{name}/");
            let key = format!("{queue}{lease:x}");
            loop {
                let deleted = self.deleted.notified();
                {
                    let mut inner = self.inner();
                    if inner.below(&queue).next().is_none() {
                        inner.put(&key, b"", lease)?;
                        return Ok(Lock { key, lease });
                    }
                }
                deleted.await;
            }
        }
        .boxed()
    }
}
