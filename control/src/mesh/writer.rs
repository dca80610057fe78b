//! Makes the own store what this agent wants it to be: compares desired keys with those that are
//! there, writes what is missing, wrong or bound to a lease that is not ours, deletes what is ours
//! and no longer wanted. Lost keys, lost leases, restarts of either side: all one case. What the
//! store refuses holds nothing else up.

mod refusals;
mod stage;

use super::lease::Leases;
use super::lock;
use super::store::{Change, Entry, LeaseId, REST, Result, Store, StoreError, Unchanged};
use crate::model::WrittenStatus;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use refusals::Refusals;
pub(super) use stage::Stage;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Requests under way at once.
const PARALLEL: usize = 16;
/// Pause before a key that someone else changed or deleted is written again, so that two agents
/// at odds do not keep the store busy.
const REPAIR: Duration = Duration::from_secs(1);
/// How often is looked without a reason, also whether somebody else's keys are still in the way, or
/// the store takes what it has refused.
const TICK: Duration = REST;
/// How often keys that nobody watches are written again.
const REASSERT: Duration = Duration::from_secs(5 * 60);
/// Keys of an earlier life are not deleted before this: its pods may still be on their way in.
const ADOPT: Duration = Duration::from_secs(30);
/// How long it is held against a node name that another agent has used it.
const CONTESTED: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Slot {
    /// `None`: not known yet, nothing is done.
    desired: Option<BTreeMap<String, Vec<u8>>>,
    /// What is there of ours.
    actual: BTreeMap<String, Held>,
    /// Leases of the keys that were there before the listing under way, one for each: they count
    /// until it has ended.
    before: Vec<LeaseId>,
    /// `actual` is valid.
    known: bool,
    /// Everything wanted was once there.
    complete: bool,
    /// Wanted keys that somebody else has, with their values.
    taken: BTreeMap<String, Vec<u8>>,
}

impl Slot {
    /// What is there is taken for wrong.
    fn doubt(&mut self) {
        self.actual.values_mut().for_each(|held| held.value.clear());
    }
}

/// A key of ours that is there.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: Vec<u8>,
    lease: LeaseId,
    /// Of the last change.
    revision: i64,
}

enum Task {
    /// With what is there of it under a lease of ours, and the revision of what is there.
    Put {
        key: String,
        value: Vec<u8>,
        lease: Option<LeaseId>,
        revision: i64,
    },
    Delete {
        key: String,
        revision: i64,
    },
}

impl Task {
    fn key(&self) -> &str {
        let (Task::Put { key, .. } | Task::Delete { key, .. }) = self;
        key
    }
}

pub(super) struct Writer {
    slots: Mutex<BTreeMap<Stage, Slot>>,
    leases: Leases,
    desired_changed: Notify,
    actual_changed: Notify,
    started: Instant,
    /// When somebody last wrote over this node's record.
    contested: Mutex<Option<Instant>>,
    refusals: Mutex<Refusals>,
}

impl Writer {
    /// Keys outlive this agent by the term of their lease.
    pub(super) fn new(term: Duration) -> Writer {
        Writer {
            slots: Mutex::default(),
            leases: Leases::new(term),
            desired_changed: Notify::new(),
            actual_changed: Notify::new(),
            started: Instant::now(),
            contested: Mutex::default(),
            refusals: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Stage, Slot>> {
        lock(&self.slots)
    }

    /// Sets all keys of a stage.
    pub(super) fn replace(&self, stage: Stage, keys: BTreeMap<String, Vec<u8>>) {
        let mut slots = self.slots();
        let slot = slots.entry(stage).or_default();
        if slot.desired.as_ref() != Some(&keys) {
            let wanted = |key: &str| slot.desired.as_ref()?.get(key);
            lock(&self.refusals).retain(stage, |key| wanted(key) == keys.get(key));
            slot.desired = Some(keys);
            self.desired_changed.notify_one();
        }
    }

    /// Adds one key to a stage.
    pub(super) fn add(&self, stage: Stage, key: String, value: Vec<u8>) {
        lock(&self.refusals).retain(stage, |refused| refused != key);
        self.slots().entry(stage).or_default().desired.get_or_insert_default().insert(key, value);
        self.desired_changed.notify_one();
    }

    /// Takes one key from a stage.
    pub(super) fn remove(&self, stage: Stage, key: &str) {
        if let Some(desired) = &mut self.slots().entry(stage).or_default().desired {
            desired.remove(key);
            lock(&self.refusals).retain(stage, |refused| refused != key);
        }
        self.desired_changed.notify_one();
    }

    /// Everything of a stage is to be left as it is until it is set again.
    pub(super) fn clear(&self, stage: Stage) {
        self.slots().entry(stage).or_default().desired = None;
    }

    /// A stage has been set.
    pub(super) fn is_set(&self, stage: Stage) -> bool {
        self.slots().get(&stage).is_some_and(|slot| slot.desired.is_some())
    }

    /// Key is wanted.
    pub(super) fn wants(&self, stage: Stage, key: &str) -> bool {
        self.wanted(stage, key).is_some()
    }

    /// The value that a key is to have.
    pub(super) fn wanted(&self, stage: Stage, key: &str) -> Option<Vec<u8>> {
        self.slots().get(&stage)?.desired.as_ref()?.get(key).cloned()
    }

    /// Wanted keys that somebody else has, with their values.
    pub(super) fn taken(&self, stage: Stage) -> BTreeMap<String, Vec<u8>> {
        self.slots().get(&stage).map(|slot| slot.taken.clone()).unwrap_or_default()
    }

    /// What the store does not take, in words.
    pub(super) fn refused(&self) -> Vec<String> {
        lock(&self.refusals).shown()
    }

    /// How far a stage is.
    pub(super) fn progress(&self, stage: Stage) -> WrittenStatus {
        let tasks = self.tasks(stage).len();
        let slots = self.slots();
        slots.get(&stage).map_or_else(WrittenStatus::default, |slot| WrittenStatus {
            pending: if slot.known { tasks } else { slot.desired.as_ref().map_or(0, BTreeMap::len) },
            complete: slot.complete,
        })
    }

    /// A key of ours is there.
    #[cfg(test)]
    pub(super) fn has(&self, stage: Stage, key: &str) -> bool {
        self.slots().get(&stage).is_some_and(|slot| slot.actual.contains_key(key))
    }

    /// What is there is being listed.
    pub(super) fn begin_listing(&self, stage: Stage) {
        self.forget(self.slots().entry(stage).or_default());
    }

    fn forget(&self, slot: &mut Slot) {
        let leases = std::mem::take(&mut slot.actual).into_values().map(|held| held.lease);
        match slot.known {
            true => slot.before.extend(leases),
            // A listing that was broken off has shown what is in `before` again.
            false => leases.for_each(|lease| self.leases.detach(lease)),
        }
        slot.taken.clear();
        slot.known = false;
    }

    /// All of ours that is there was observed since the listing began.
    pub(super) fn end_listing(&self, stage: Stage) {
        let mut slots = self.slots();
        let slot = slots.entry(stage).or_default();
        slot.known = true;
        slot.before.drain(..).for_each(|lease| self.leases.detach(lease));
        self.desired_changed.notify_one();
    }

    /// One key of ours changed.
    pub(super) fn observe(&self, stage: Stage, change: Change) {
        let mut slots = self.slots();
        let slot = slots.entry(stage).or_default();
        match change {
            Change::Put(Entry { key, value, lease, revision }) => {
                let held = slot.actual.get(&key);
                let was_ours = held.is_some_and(|held| self.leases.holds(held.lease));
                if stage == Stage::Node && was_ours && !self.leases.holds(lease) {
                    *lock(&self.contested) = Some(Instant::now());
                }
                if held.is_none_or(|held| held.revision < revision) {
                    self.set(slot, key, Some(Held { value, lease, revision }));
                    self.actual_changed.notify_one();
                }
            }
            Change::Delete(key) => {
                if slot.taken.remove(&key).is_some() {
                    self.desired_changed.notify_one();
                }
                if slot.actual.contains_key(&key) {
                    self.set(slot, key, None);
                    self.actual_changed.notify_one();
                }
            }
        }
    }

    /// Notes what is there of a key of ours, and how full leases are.
    fn set(&self, slot: &mut Slot, key: String, held: Option<Held>) {
        if let Some(held) = &held {
            self.leases.count(held.lease);
            slot.taken.remove(&key);
        }
        let before = match held {
            Some(held) => slot.actual.insert(key, held),
            None => slot.actual.remove(&key),
        };
        before.iter().for_each(|before| self.leases.detach(before.lease));
    }

    /// Another agent has written over this node's record of late: two nodes have one name.
    pub(super) fn contested(&self) -> bool {
        lock(&self.contested).is_some_and(|at| at.elapsed() < CONTESTED)
    }

    /// A connection begins: nothing is known of what is there.
    pub(super) fn begin(&self) {
        *lock(&self.refusals) = Refusals::default();
        let mut slots = self.slots();
        for stage in Stage::ALL {
            let slot = slots.entry(stage).or_default();
            match stage.observed() {
                true => self.forget(slot),
                false => slot.doubt(),
            }
            slot.known = !stage.observed();
        }
    }

    /// Adds one key and writes it now.
    pub(super) async fn put(
        &self,
        store: &dyn Store,
        stage: Stage,
        key: String,
        value: Vec<u8>,
    ) -> Result<()> {
        self.add(stage, key.clone(), value.clone());
        let task = Task::Put { key, value, lease: None, revision: 0 };
        if !self.execute(store, stage, task, None).await? {
            self.actual_changed.notify_one();
        }
        Ok(())
    }

    /// Writes for as long as the store answers; what belongs to the cluster only while this agent
    /// leads it, which it does as long as the key `leader` is what it was when it got it.
    pub(super) async fn run(
        &self,
        store: &dyn Store,
        leader: &str,
        leads: watch::Receiver<Option<i64>>,
    ) -> Result<Infallible> {
        tokio::try_join!(
            self.leases.keep_alive(store, || self.actual_changed.notify_one()),
            self.reconcile(store, leader, leads)
        )
        .map(|(never, _)| never)
    }

    async fn reconcile(
        &self,
        store: &dyn Store,
        leader: &str,
        mut leads: watch::Receiver<Option<i64>>,
    ) -> Result<Infallible> {
        self.leases.renew(store).await?;
        let mut asserted = Instant::now();
        loop {
            let leadership = leads.borrow_and_update().map(|revision| (leader, revision));
            self.pass(store, leadership).await?;
            let mut due = tokio::time::Instant::now() + TICK;
            loop {
                tokio::select! {
                    () = self.desired_changed.notified() => break,
                    _ = leads.changed() => {
                        // Whoever led before may have gone long ago, and its heartbeat with it.
                        self.doubt(Stage::Heartbeat);
                        break;
                    }
                    () = tokio::time::sleep_until(due) => {
                        self.slots().values_mut().for_each(|slot| slot.taken.clear());
                        break;
                    }
                    () = self.actual_changed.notified() => {
                        due = due.min(tokio::time::Instant::now() + REPAIR);
                    }
                }
            }
            if asserted.elapsed() > REASSERT {
                asserted = Instant::now();
                self.doubt(Stage::IdentityUse);
            }
        }
    }

    /// What is there of a stage is taken for wrong.
    fn doubt(&self, stage: Stage) {
        if let Some(slot) = self.slots().get_mut(&stage) {
            slot.doubt();
        }
    }

    /// Brings every stage in order, one after the other.
    async fn pass(&self, store: &dyn Store, leadership: Option<Unchanged<'_>>) -> Result<()> {
        let (full, mut all_done) = (lock(&self.refusals).full(), true);
        for stage in Stage::ALL.into_iter().filter(|stage| leadership.is_some() || !stage.of_cluster()) {
            if stage == Stage::Canary && (full || !all_done) {
                continue;
            }
            let fence = leadership.filter(|_| stage.of_cluster());
            let done: Vec<bool> = stream::iter(self.tasks(stage))
                .map(|task| self.attempt(store, stage, task, fence))
                .buffer_unordered(PARALLEL)
                .try_collect()
                .await?;
            let done = done.into_iter().all(|done| done);
            if let Some(slot) = self.slots().get_mut(&stage) {
                let refused = lock(&self.refusals).any(stage);
                slot.complete |= done && !refused && slot.known && slot.desired.is_some();
            }
            all_done &= done;
        }
        if !all_done {
            self.actual_changed.notify_one();
        }
        Ok(())
    }

    fn tasks(&self, stage: Stage) -> Vec<Task> {
        let slots = self.slots();
        let Some(slot) = slots.get(&stage).filter(|slot| slot.known) else {
            return vec![];
        };
        let Some(desired) = &slot.desired else {
            return vec![];
        };
        let mut tasks = Vec::new();
        for (key, value) in desired.iter().filter(|(key, _)| !slot.taken.contains_key(*key)) {
            let held = slot.actual.get(key);
            let lease = held.map(|held| held.lease).filter(|lease| self.leases.holds(*lease));
            if lease.is_none() || held.is_none_or(|held| held.value != *value) {
                let revision = held.map_or(0, |held| held.revision);
                tasks.push(Task::Put { key: key.clone(), value: value.clone(), lease, revision });
            }
        }
        if stage.sweeps() {
            let may_go = |held: &Held| self.leases.holds(held.lease) || self.started.elapsed() > ADOPT;
            let unwanted =
                slot.actual.iter().filter(|(key, held)| !desired.contains_key(*key) && may_go(held));
            tasks.extend(
                unwanted.map(|(key, held)| Task::Delete { key: key.clone(), revision: held.revision }),
            );
        }
        tasks
    }

    /// Does it unless it was refused of late; tells whether it need not be tried again soon.
    async fn attempt(
        &self,
        store: &dyn Store,
        stage: Stage,
        task: Task,
        fence: Option<Unchanged<'_>>,
    ) -> Result<bool> {
        let (key, put) = (task.key().to_owned(), matches!(task, Task::Put { .. }));
        if lock(&self.refusals).rests(stage, &key, put) {
            return Ok(true);
        }
        let done = self.execute(store, stage, task, fence).await;
        lock(&self.refusals).note(stage, key, put, done)
    }

    /// Does it unless the store has changed meanwhile; tells whether it need not be tried again.
    async fn execute(
        &self,
        store: &dyn Store,
        stage: Stage,
        task: Task,
        fence: Option<Unchanged<'_>>,
    ) -> Result<bool> {
        match task {
            Task::Put { key, value, lease: held, revision } => {
                let lease = match held {
                    Some(lease) => lease,
                    None => self.leases.attach(store).await?,
                };
                let unchanged = stage.contended().then_some((&*key, revision));
                let conditions: Vec<_> = fence.into_iter().chain(unchanged).collect();
                let written = store.put_if(&key, &value, lease, &conditions).await;
                if let Ok(Some(revision)) = written {
                    let mut slots = self.slots();
                    let slot = slots.entry(stage).or_default();
                    if slot.actual.get(&key).is_none_or(|held| held.revision < revision) {
                        self.set(slot, key.clone(), Some(Held { value, lease, revision }));
                    }
                }
                if held.is_none() {
                    self.leases.detach(lease); // what `attach` has counted; `set` counts the key
                }
                match written {
                    Ok(Some(_)) => Ok(true),
                    Ok(None) if stage.contended() => self.look(store, stage, key).await,
                    Ok(None) => Ok(false),
                    Err(StoreError::LeaseLost(_)) => {
                        self.leases.lost(lease);
                        Ok(false)
                    }
                    Err(error) => Err(error),
                }
            }
            Task::Delete { key, revision } => {
                // It may have been written again since.
                let conditions: Vec<_> = fence.into_iter().chain([(&*key, revision)]).collect();
                let deleted = store.delete_if(&key, &conditions).await?;
                let done = deleted || !stage.observed(); // else whoever changed it will be observed
                let mut slots = self.slots();
                let slot = slots.entry(stage).or_default();
                if done && slot.actual.get(&key).is_some_and(|held| held.revision <= revision) {
                    self.set(slot, key, None);
                }
                Ok(done)
            }
        }
    }

    /// A key is not as expected: notes whether somebody else has it.
    async fn look(&self, store: &dyn Store, stage: Stage, key: String) -> Result<bool> {
        let Some(entry) = store.get(&key).await? else { return Ok(false) };
        let mut slots = self.slots();
        let slot = slots.entry(stage).or_default();
        let ours = self.leases.holds(entry.lease);
        match ours {
            true => {
                let Entry { value, lease, revision, .. } = entry;
                self.set(slot, key, Some(Held { value, lease, revision }));
            }
            false => {
                self.set(slot, key.clone(), None);
                slot.taken.insert(key, entry.value);
            }
        }
        Ok(!ours)
    }
}

#[cfg(test)]
mod tests;
