//! Makes the own store what this agent wants it to be: compares desired keys with those that are
//! there, writes what is missing, wrong or bound to a lease that is not ours, deletes what is ours
//! and no longer wanted. Lost keys, lost leases, restarts of either side: all one case.

use super::lease::Leases;
use super::lock;
use super::store::{Change, Entry, LeaseId, Result, Store, StoreError};
use futures_util::stream::{self, StreamExt, TryStreamExt};
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
/// How often is looked without a reason.
const TICK: Duration = Duration::from_secs(10);
/// How often keys that nobody watches are written again.
const REASSERT: Duration = Duration::from_secs(5 * 60);
/// Keys of an earlier life are not deleted before this: its pods may still be on their way in.
const ADOPT: Duration = Duration::from_secs(30);

/// How long it is held against a node name that another agent has used it.
const CONTESTED: Duration = Duration::from_secs(60);

/// Groups of keys in the order in which they are written: readers must find an identity before
/// the addresses that have it, and a canary after everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    ClusterConfig,
    Node,
    IdentityUse,
    Ip,
    Service,
    Canary,
    Heartbeat,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::ClusterConfig,
        Stage::Node,
        Stage::IdentityUse,
        Stage::Ip,
        Stage::Service,
        Stage::Canary,
        Stage::Heartbeat,
    ];

    /// Only the leader writes it.
    fn of_cluster(self) -> bool {
        matches!(self, Stage::ClusterConfig | Stage::Service | Stage::Canary | Stage::Heartbeat)
    }

    /// What is there is observed; otherwise only what we wrote is known.
    fn observed(self) -> bool {
        !matches!(self, Stage::IdentityUse | Stage::Heartbeat)
    }

    /// Keys that are ours but not wanted are deleted; the others end with their lease.
    fn sweeps(self) -> bool {
        matches!(self, Stage::IdentityUse | Stage::Ip | Stage::Service)
    }
}

#[derive(Default)]
struct Slot {
    /// `None`: not known yet, nothing is done.
    desired: Option<BTreeMap<String, Vec<u8>>>,
    /// What is there of ours: value and lease.
    actual: BTreeMap<String, (Vec<u8>, LeaseId)>,
    /// `actual` is valid.
    known: bool,
}

enum Task {
    Put(String, Vec<u8>, Option<LeaseId>),
    Delete(String, LeaseId),
}

pub(super) struct Writer {
    slots: Mutex<BTreeMap<Stage, Slot>>,
    leases: Leases,
    desired_changed: Notify,
    actual_changed: Notify,
    started: Instant,
    /// When somebody last wrote over this node's record.
    contested: Mutex<Option<Instant>>,
}

impl Writer {
    pub(super) fn new() -> Writer {
        Writer {
            slots: Mutex::default(),
            leases: Leases::default(),
            desired_changed: Notify::new(),
            actual_changed: Notify::new(),
            started: Instant::now(),
            contested: Mutex::default(),
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
            slot.desired = Some(keys);
            self.desired_changed.notify_one();
        }
    }

    /// Adds one key to a stage.
    pub(super) fn add(&self, stage: Stage, key: String, value: Vec<u8>) {
        self.slots().entry(stage).or_default().desired.get_or_insert_default().insert(key, value);
        self.desired_changed.notify_one();
    }

    /// Takes one key from a stage.
    pub(super) fn remove(&self, stage: Stage, key: &str) {
        if let Some(desired) = &mut self.slots().entry(stage).or_default().desired {
            desired.remove(key);
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
        let slots = self.slots();
        slots
            .get(&stage)
            .and_then(|slot| slot.desired.as_ref())
            .is_some_and(|desired| desired.contains_key(key))
    }

    /// A key of ours is there.
    #[cfg(test)]
    pub(super) fn has(&self, stage: Stage, key: &str) -> bool {
        self.slots().get(&stage).is_some_and(|slot| slot.actual.contains_key(key))
    }

    /// All of ours that is there, full keys.
    pub(super) fn observe_listing(&self, stage: Stage, ours: impl Iterator<Item = Entry>) {
        // Collected first: whether a key is ours may depend on what is desired.
        let actual = ours.map(|entry| (entry.key, (entry.value, entry.lease))).collect();
        let mut slots = self.slots();
        let slot = slots.entry(stage).or_default();
        slot.actual = actual;
        slot.known = true;
        self.desired_changed.notify_one();
    }

    /// One key of ours changed.
    pub(super) fn observe(&self, stage: Stage, change: Change) {
        let mut slots = self.slots();
        let actual = &mut slots.entry(stage).or_default().actual;
        let changed = match change {
            Change::Put(entry) => {
                let new = (entry.value, entry.lease);
                let before = actual.insert(entry.key, new.clone());
                let was_ours = before.as_ref().is_some_and(|(_, lease)| self.leases.holds(*lease));
                if stage == Stage::Node && was_ours && !self.leases.holds(new.1) {
                    *lock(&self.contested) = Some(Instant::now());
                }
                before != Some(new)
            }
            Change::Delete(key) => actual.remove(&key).is_some(),
        };
        if changed {
            self.actual_changed.notify_one();
        }
    }

    /// Another agent has written over this node's record of late: two nodes have one name.
    pub(super) fn contested(&self) -> bool {
        lock(&self.contested).is_some_and(|at| at.elapsed() < CONTESTED)
    }

    /// A connection begins: nothing is known of what is there.
    pub(super) fn begin(&self) {
        for stage in Stage::ALL {
            let mut slots = self.slots();
            let slot = slots.entry(stage).or_default();
            slot.actual.clear();
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
        self.execute(store, stage, Task::Put(key, value, None)).await
    }

    /// Writes for as long as the store answers.
    pub(super) async fn run(&self, store: &dyn Store, leads: watch::Receiver<bool>) -> Result<Infallible> {
        tokio::try_join!(
            self.leases.keep_alive(store, || self.actual_changed.notify_one()),
            self.reconcile(store, leads)
        )
        .map(|(never, _)| never)
    }

    async fn reconcile(&self, store: &dyn Store, mut leads: watch::Receiver<bool>) -> Result<Infallible> {
        self.leases.renew(store).await?;
        let mut asserted = Instant::now();
        loop {
            let leader = *leads.borrow_and_update();
            self.pass(store, leader).await?;
            let mut due = tokio::time::Instant::now() + TICK;
            loop {
                tokio::select! {
                    () = self.desired_changed.notified() => break,
                    _ = leads.changed() => break,
                    () = tokio::time::sleep_until(due) => break,
                    () = self.actual_changed.notified() => {
                        due = due.min(tokio::time::Instant::now() + REPAIR);
                    }
                }
            }
            if asserted.elapsed() > REASSERT {
                asserted = Instant::now();
                if let Some(slot) = self.slots().get_mut(&Stage::IdentityUse) {
                    slot.actual.clear();
                }
            }
        }
    }

    /// Does what is to be done, stage by stage.
    async fn pass(&self, store: &dyn Store, leads: bool) -> Result<()> {
        for stage in Stage::ALL.into_iter().filter(|stage| leads || !stage.of_cluster()) {
            let tasks = self.tasks(stage);
            stream::iter(tasks)
                .map(|task| self.execute(store, stage, task))
                .buffer_unordered(PARALLEL)
                .try_collect::<()>()
                .await?;
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
        for (key, value) in desired {
            let held = slot.actual.get(key).filter(|(_, lease)| self.leases.holds(*lease));
            match held {
                Some((actual, _)) if actual == value => {}
                held => tasks.push(Task::Put(key.clone(), value.clone(), held.map(|(_, lease)| *lease))),
            }
        }
        if stage.sweeps() {
            let may_go = |lease| self.leases.holds(lease) || self.started.elapsed() > ADOPT;
            let unwanted =
                slot.actual.iter().filter(|(key, (_, lease))| !desired.contains_key(*key) && may_go(*lease));
            tasks.extend(unwanted.map(|(key, (_, lease))| Task::Delete(key.clone(), *lease)));
        }
        tasks
    }

    async fn execute(&self, store: &dyn Store, stage: Stage, task: Task) -> Result<()> {
        match task {
            Task::Put(key, value, lease) => {
                let lease = match lease {
                    Some(lease) => lease,
                    None => self.leases.attach(store).await?,
                };
                match store.put(&key, &value, lease).await {
                    Ok(()) => {
                        self.slots().entry(stage).or_default().actual.insert(key, (value, lease));
                    }
                    Err(StoreError::LeaseLost(_)) => {
                        self.leases.lost(lease);
                        self.actual_changed.notify_one();
                    }
                    Err(error) => return Err(error),
                }
            }
            Task::Delete(key, lease) => {
                store.delete(&key, i64::MAX).await?;
                self.leases.detach(lease);
                self.slots().entry(stage).or_default().actual.remove(&key);
            }
        }
        Ok(())
    }
}
