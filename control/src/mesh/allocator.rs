//! Label set → number, the same on every node of the cluster: Cilium's allocator protocol for
//! clusters that write their store themselves (`cilium-interop` 2.5).

use super::backoff::Backoff;
use super::keys;
use super::store::{Change, Entry, Lock, REST, Result, Store, StoreError};
use super::writer::{Stage, Writer};
use super::{AllocateError, Connection, lock};
use crate::labels::Labels;
use rand::Rng;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use wire::Identity;

/// How often numbers in use are looked for in the store without a reason.
const REASSERT: Duration = Duration::from_secs(5 * 60);
/// Numbers of one cluster.
const NUMBERS: u32 = 1 << 16;
/// Allocations under way at once.
const PARALLEL: usize = 64;
/// So many label sets with several numbers are shown, and so many without one.
const SHOWN: usize = 10;

pub(super) struct Allocator {
    cluster_id: u8,
    /// What this node's uses end in: its address.
    suffix: String,
    state: Mutex<State>,
    /// Label sets being allocated: of each one at a time, and the next one finds the first one's number.
    turns: Mutex<HashMap<String, Weak<Turn>>>,
    room: Semaphore,
    writer: Arc<Writer>,
    connection: Connection,
    master_lost: Notify,
}

type Turn = tokio::sync::Mutex<()>;

#[derive(Default)]
struct State {
    /// Numbers in the store and their labels.
    taken: BTreeMap<Identity, String>,
    /// Those of them that a listing under way has brought so far.
    listed: BTreeMap<Identity, String>,
    /// What this node uses: labels → number, users.
    used: HashMap<String, (Identity, usize)>,
    /// Why labels have no number yet.
    failing: BTreeMap<String, String>,
}

impl Allocator {
    pub(super) fn new(
        cluster_id: u8,
        suffix: String,
        writer: Arc<Writer>,
        connection: Connection,
    ) -> Allocator {
        let (state, turns, master_lost) = Default::default();
        let room = Semaphore::new(PARALLEL);
        Allocator { cluster_id, suffix, state, turns, room, writer, connection, master_lost }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes one use of the number of a label set; waits for the store if it must.
    /// `before` is the number that the labels had in this node's last run, taken again if the store
    /// has forgotten it and nobody else has it.
    pub(super) async fn allocate(
        &self,
        labels: &Labels,
        before: Option<Identity>,
    ) -> std::result::Result<Identity, AllocateError> {
        let text = labels.to_string();
        let count = labels.iter().count();
        if count == 0 || text.matches(';').count() != count {
            return Err(AllocateError::Labels(text));
        }
        if let Some(id) = self.reuse(&text) {
            return Ok(id);
        }
        let turn = self.turn(&text);
        let _turn = turn.lock().await;
        if let Some(id) = self.reuse(&text) {
            return Ok(id);
        }
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            let store = self.connection.get().await.ok_or(AllocateError::Shutdown)?;
            let attempt = self.attempt(&*store, &text, before).await;
            self.note(&text, attempt.as_ref().err());
            match attempt {
                Ok(Attempt::Got(id)) => {
                    self.state().used.insert(text, (id, 1));
                    return Ok(id);
                }
                Ok(Attempt::Full) => return Err(AllocateError::Exhausted(self.cluster_id)),
                Ok(Attempt::Lost) | Err(_) => backoff.pause().await,
            }
        }
    }

    fn turn(&self, text: &str) -> Arc<Turn> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| turn.strong_count() > 0);
        turns.get(text).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(text.into(), Arc::downgrade(&turn));
            turn
        })
    }

    /// Notes why labels have no number yet.
    fn note(&self, text: &str, error: Option<&StoreError>) {
        let failing = &mut self.state().failing;
        let Some(error) = error.map(ToString::to_string) else {
            failing.remove(text);
            return;
        };
        if failing.get(text) != Some(&error) {
            tracing::warn!("no identity for {text} yet: {error}; trying again");
            failing.insert(text.into(), error);
        }
    }

    /// Gives one use back.
    pub(super) fn release(&self, id: Identity) {
        let mut state = self.state();
        let Some((text, (_, users))) = state.used.iter_mut().find(|(_, (used, _))| *used == id) else {
            return;
        };
        *users -= 1;
        if *users == 0 {
            let text = text.clone();
            state.used.remove(&text);
            self.writer.remove(Stage::IdentityUse, &keys::identity_use(&text, &self.suffix));
        }
    }

    /// The numbers in the store are being listed.
    pub(super) fn begin_listing(&self) {
        self.state().listed.clear();
    }

    /// Some of them.
    pub(super) fn observe_listed(&self, entries: &[Entry]) {
        self.state().listed.extend(entries.iter().filter_map(parse));
    }

    /// These were all numbers in the store, or, if not complete, some.
    pub(super) fn end_listing(&self, complete: bool) {
        let mut state = self.state();
        if complete {
            state.taken.clear();
        }
        let listed = std::mem::take(&mut state.listed);
        if state.used.values().any(|(used, _)| !listed.contains_key(used)) {
            self.master_lost.notify_one();
        }
        state.taken.extend(listed);
        self.cede(&mut state);
    }

    /// One number changed.
    pub(super) fn observe(&self, change: &Change) {
        let mut state = self.state();
        match change {
            Change::Put(entry) => {
                state.taken.extend(parse(entry));
                self.cede(&mut state);
            }
            Change::Delete(key) => {
                let Some(id) = key.parse().ok().map(Identity) else { return };
                state.taken.remove(&id);
                if state.used.values().any(|(used, _)| *used == id) {
                    self.master_lost.notify_one();
                }
            }
        }
    }

    /// Numbers in use that the store gives to other labels are no longer used: somebody drew them from a
    /// store that had lost them while this node was cut off. Their pods ask for another one once they
    /// are told the same.
    fn cede(&self, state: &mut State) {
        let State { taken, used, .. } = state;
        used.retain(|text, (id, _)| {
            let Some(theirs) = taken.get(id).filter(|theirs| *theirs != text) else { return true };
            tracing::warn!("identity {} of {text} now belongs to {theirs}: allocating another one", id.0);
            self.writer.remove(Stage::IdentityUse, &keys::identity_use(text, &self.suffix));
            false
        });
    }

    /// Keeps the numbers in use in the store for as long as it answers: writes those that were
    /// deleted again.
    pub(super) async fn protect(&self, store: &dyn Store) -> Result<Infallible> {
        loop {
            match self.assert_masters(store).await? {
                // Also now and then, as one may go while it is being taken into use.
                true => _ = tokio::time::timeout(REASSERT, self.master_lost.notified()).await,
                false => tokio::time::sleep(REST).await,
            }
        }
    }

    /// Writes the numbers in use where they are missing; tells whether the store takes them. Whether
    /// somebody else has one is observed.
    pub(super) async fn assert_masters(&self, store: &dyn Store) -> Result<bool> {
        let used: Vec<_> = self.state().used.iter().map(|(text, (id, _))| (text.clone(), *id)).collect();
        let mut all = true;
        for (text, id) in used {
            match store.create(&keys::identity(id), text.as_bytes(), 0, None).await {
                Err(error) if error.is_refusal() => {
                    tracing::warn!("identity {} of {text} may be missing in the store: {error}", id.0);
                    all = false;
                    if matches!(error, StoreError::Full(_)) {
                        break;
                    }
                }
                created => _ = created?,
            }
        }
        Ok(all)
    }

    /// Label sets with two numbers, or none yet.
    pub(super) fn conflicts(&self) -> Vec<String> {
        let state = self.state();
        let failing =
            state.failing.iter().map(|(text, error)| format!("no identity for '{text}' yet: {error}"));
        duplicates(&state.taken).into_iter().chain(failing.take(SHOWN)).collect()
    }

    fn reuse(&self, text: &str) -> Option<Identity> {
        let mut state = self.state();
        let (id, users) = state.used.get_mut(text)?;
        *users += 1;
        Some(*id)
    }

    async fn attempt(&self, store: &dyn Store, text: &str, before: Option<Identity>) -> Result<Attempt> {
        let _room = self.room.acquire().await;
        let lock = store.lock(&keys::identity_lock(text)).await?;
        let attempt = self.attempt_locked(store, text, before, &lock).await;
        store.revoke(lock.lease).await?;
        attempt
    }

    async fn attempt_locked(
        &self,
        store: &dyn Store,
        text: &str,
        before: Option<Identity>,
        lock: &Lock,
    ) -> Result<Attempt> {
        let mut found = None;
        for id in self.candidates(store, text).await? {
            let key = keys::identity(id);
            let created = store.create(&key, text.as_bytes(), 0, Some(lock)).await?;
            if created || store.get(&key).await?.is_some_and(|entry| entry.value == text.as_bytes()) {
                found = Some(id);
                break;
            }
        }
        if found.is_none() {
            let Some(free) = self.free(before) else { return Ok(Attempt::Full) };
            if store.create(&keys::identity(free), text.as_bytes(), 0, Some(lock)).await? {
                found = Some(free);
            }
        }
        let Some(id) = found else { return Ok(Attempt::Lost) };
        self.state().taken.insert(id, text.into());
        let key = keys::identity_use(text, &self.suffix);
        self.writer.put(store, Stage::IdentityUse, key, id.0.to_string().into_bytes()).await?;
        Ok(Attempt::Got(id))
    }

    /// Numbers that nodes use for the label set, then such as have it but no user; lowest first.
    async fn candidates(&self, store: &dyn Store, text: &str) -> Result<Vec<Identity>> {
        let uses = keys::identity_uses(text);
        let listing = store.list(&uses).await?;
        let mut candidates: Vec<_> = listing
            .entries
            .iter()
            // Label sets may be prefixes of one another: an address alone must follow.
            .filter(|entry| !entry.key[uses.len()..].contains('/'))
            .filter_map(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok().map(Identity))
            .filter(|id| id.cluster() == u32::from(self.cluster_id))
            .collect();
        candidates.sort_unstable();
        let state = self.state();
        let named = state.taken.iter().filter(|(_, labels)| *labels == text).map(|(id, _)| *id);
        candidates.extend(named.filter(|id| id.cluster() == u32::from(self.cluster_id)));
        candidates.dedup();
        Ok(candidates)
    }

    /// A number that nobody has: the earlier one, or one from a random place on.
    fn free(&self, before: Option<Identity>) -> Option<Identity> {
        let state = self.state();
        let base = u32::from(self.cluster_id) * NUMBERS;
        let start = rand::rng().random_range(0..NUMBERS);
        let before = before.filter(|id| id.cluster() == u32::from(self.cluster_id));
        let any = (0..NUMBERS).map(|i| Identity(base + (start + i) % NUMBERS));
        before.into_iter().chain(any).find(|id| !state.taken.contains_key(id))
    }
}

enum Attempt {
    Got(Identity),
    /// Somebody else was faster.
    Lost,
    /// No number is free.
    Full,
}

/// Label sets with several numbers, in words; the first few of them.
fn duplicates(taken: &BTreeMap<Identity, String>) -> Vec<String> {
    let mut first = HashMap::new();
    let again = taken.iter().filter_map(|(id, labels)| {
        let first = *first.entry(labels).or_insert(*id);
        (first != *id).then(|| {
            format!("identities {} and {} have the same labels '{labels}'; both count", first.0, id.0)
        })
    });
    again.take(SHOWN).collect()
}

fn parse(entry: &Entry) -> Option<(Identity, String)> {
    let id = entry.key.parse().ok().map(Identity)?;
    Some((id, String::from_utf8_lossy(&entry.value).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::super::sync::{Batch, Follower, Gate};
    use super::*;
    use futures_util::future::join;
    use std::pin::pin;
    use tokio::sync::watch;

    fn labels(app: &str) -> Labels {
        let mut labels = Labels::default();
        labels.insert("k8s", "app", app);
        labels
    }

    fn allocator(store: &Arc<dyn Store>) -> Allocator {
        let connection = Connection(watch::channel(Some(store.clone())).1);
        let writer = Arc::new(Writer::new(Duration::from_secs(900)));
        Allocator::new(1, "10.0.0.1".into(), writer, connection)
    }

    #[tokio::test]
    async fn labels_wait_for_no_other_labels() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let allocator = allocator(&store);
        let theirs = store.lock(&keys::identity_lock("k8s:app=web;")).await.unwrap();
        let (web, db) = (labels("web"), labels("db"));
        let mut twice = pin!(join(allocator.allocate(&web, None), allocator.allocate(&web, None)));
        let db = tokio::select! {
            biased;
            _ = &mut twice => panic!("somebody else has the lock"),
            id = allocator.allocate(&db, None) => id.unwrap(),
        };
        store.revoke(theirs.lease).await.unwrap();
        let (first, second) = twice.await;
        let web = first.unwrap();
        assert!(second.unwrap() == web && web != db);
        allocator.release(web);
        assert!(allocator.reuse("k8s:app=web;").is_some(), "it was used twice");
        drop(allocator.turn("k8s:app=new;"));
        assert_eq!(lock(&allocator.turns).len(), 1, "the others are over");
    }

    #[tokio::test]
    async fn a_number_that_others_were_given_is_replaced() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let allocator = allocator(&store);
        let labels = labels("web");
        let lost = allocator.allocate(&labels, None).await.unwrap();
        store.put_if(&keys::identity(lost), b"k8s:app=other;", 0, &[]).await.unwrap();
        allocator.assert_masters(&*store).await.unwrap();

        let prefix = keys::prefix(keys::Kind::Identities, keys::Layout::State, "");
        let mut follower = Follower::new(&*store, prefix, Gate::None);
        loop {
            match follower.next().await.unwrap() {
                Batch::Begin { .. } => allocator.begin_listing(),
                Batch::Entries(entries) => allocator.observe_listed(&entries),
                Batch::End { complete } => break allocator.end_listing(complete),
                Batch::Changes(_) => {}
            }
        }
        let new = allocator.allocate(&labels, Some(lost)).await.unwrap();
        assert_ne!(new, lost);
        allocator.release(lost); // by a pod that was not told in time
        assert_eq!(allocator.allocate(&labels, None).await.unwrap(), new);
        assert_eq!(store.get(&keys::identity(lost)).await.unwrap().unwrap().value, b"k8s:app=other;");
        let used = store.get(&keys::identity_use("k8s:app=web;", "10.0.0.1")).await.unwrap().unwrap();
        assert_eq!(used.value, new.0.to_string().into_bytes());
    }

    #[test]
    fn label_sets_with_two_numbers_are_shown() {
        let taken = [(65537, "k8s:a=1;"), (65538, "k8s:a=2;"), (65540, "k8s:a=1;")];
        let taken = taken.map(|(id, labels)| (Identity(id), labels.to_owned())).into();
        assert_eq!(
            duplicates(&taken),
            ["identities 65537 and 65540 have the same labels 'k8s:a=1;'; both count"]
        );
    }
}
