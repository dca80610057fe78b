//! What was learned of one cluster and how: its view, kept over connections, and how much of it is
//! confirmed over the current one.

use super::etcd::operations;
use super::keys::{self, Kind, Layout};
use super::overlap::Nodes;
use super::persist::{Earlier, Persistence};
use super::store::{Change, Result, Store};
use super::sync::{Audits, Batch, Follower, Gate};
use super::view::View;
use super::{Shared, lock};
use crate::update::Update;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a store lacks after a connection was lost is kept for so long: it may have lost its newest data,
/// which its writers bring back as soon as they notice.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Learned {
    pub(super) cluster: String,
    shared: Arc<Shared>,
    pub(super) view: Mutex<View>,
    /// Kinds whose view is complete over the current connection.
    complete: watch::Sender<BTreeMap<Kind, bool>>,
    /// Kinds whose view was complete and has been kept since.
    retained: Mutex<BTreeSet<Kind>>,
    /// What an earlier run knew is in the view, if it was of use.
    ready: watch::Sender<bool>,
    /// When that was last confirmed; none once it is again.
    restored: Mutex<Option<Instant>>,
    /// Up to which revision all changes of a kind are in the view.
    seen: Mutex<BTreeMap<Kind, i64>>,
    pub(super) audits: Mutex<Audits>,
}

/// A full look under way for what the watch has missed.
struct Audit {
    /// Entries not younger than this revision should be known.
    since: i64,
    repaired: u64,
}

impl Learned {
    pub(super) fn new(shared: Arc<Shared>, cluster: String, id: u32, services_wanted: bool) -> Learned {
        let view = Mutex::new(View::new(cluster.clone(), id, services_wanted));
        let complete = watch::Sender::new(none_complete());
        let ready = watch::Sender::new(false);
        let (retained, restored, seen, audits) = Default::default();
        Learned { cluster, shared, view, complete, retained, ready, restored, seen, audits }
    }

    /// Takes up what an earlier run knew of the cluster, if that is of use, and shows it; returns when it
    /// was last confirmed. To be called once, before anything else is learned.
    pub(super) async fn restore(
        &self,
        of_use: impl Fn(&Earlier) -> bool,
        observe: impl Fn(Kind, &[Change]),
    ) -> Option<Instant> {
        let since = match &self.shared.persistence {
            Some(persistence) => self.load(persistence, of_use, observe).await,
            None => None,
        };
        *lock(&self.restored) = since;
        since
    }

    /// What an earlier run knew has been taken up, with all that follows from it.
    pub(super) fn be_ready(&self) {
        self.ready.send_replace(true);
    }

    async fn load(
        &self,
        persistence: &Arc<Persistence>,
        of_use: impl Fn(&Earlier) -> bool,
        observe: impl Fn(Kind, &[Change]),
    ) -> Option<Instant> {
        let journal = persistence.journal(&self.cluster);
        let earlier = persistence.earlier(&self.cluster).filter(of_use);
        match &earlier {
            Some(earlier) => {
                self.identify(earlier.id);
                let mut records = persistence.read(&self.cluster);
                while let Some((kind, changes)) = records.recv().await {
                    observe(kind, &changes);
                    self.apply(kind, &changes, None);
                    self.shared.outbox.flush().await;
                }
                lock(&self.retained).extend(Kind::ALL);
            }
            None => match lock(&self.view).id() {
                0 => journal.forget(),
                id => journal.begin(id),
            },
        }
        lock(&self.view).write_to(journal);
        let now = Instant::now();
        earlier.map(|earlier| now.checked_sub(earlier.age).unwrap_or(now))
    }

    /// From now on the cluster has this number. To be called only while nothing is known.
    pub(super) fn identify(&self, id: u32) {
        lock(&self.view).set_id(id);
        self.shared.outbox.push([Update::Cluster(self.cluster.clone(), id)]);
    }

    /// Waits until then.
    pub(super) async fn ready(&self) {
        // The sender lives as long as self.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Only an earlier run has confirmed what is known.
    pub(super) fn is_restored(&self) -> bool {
        lock(&self.restored).is_some()
    }

    /// That, for people, to follow what the state of the connection is; else nothing.
    pub(super) fn restored_text(&self) -> String {
        let since = *lock(&self.restored);
        since.map_or(String::new(), |since| {
            format!("; what is known is of an earlier run, {} s old", since.elapsed().as_secs())
        })
    }

    /// A connection begins or ended: nothing is confirmed.
    pub(super) fn unconfirm(&self) {
        self.shared.persistence.iter().for_each(|persistence| persistence.confirm(&self.cluster, false));
        self.complete.send_replace(none_complete());
    }

    /// Which kinds are complete.
    pub(super) fn complete(&self) -> BTreeMap<Kind, bool> {
        self.complete.borrow().clone()
    }

    /// All kinds are.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.borrow().values().all(|complete| *complete)
    }

    /// Of which kinds all there is is known, or was when the connection was lost.
    pub(super) fn synced(&self) -> BTreeMap<String, bool> {
        let retained = lock(&self.retained);
        Kind::ALL.map(|kind| (kind.name().into(), retained.contains(&kind))).into()
    }

    /// Waits until a first listing of all kinds is in.
    pub(super) async fn all_complete(&self) {
        let all = |complete: &BTreeMap<Kind, bool>| complete.values().all(|complete| *complete);
        // The sender lives as long as self.
        let _ = self.complete.subscribe().wait_for(all).await;
    }

    /// Keys of a kind known from earlier connections that were not seen over this one.
    pub(super) fn suspects(&self, kind: Kind) -> usize {
        lock(&self.view).suspects(kind)
    }

    /// Forgets everything.
    pub(super) async fn drain(&self) {
        lock(&self.retained).clear();
        lock(&self.seen).clear();
        *lock(&self.restored) = None;
        self.tell(View::drain);
        self.shared.outbox.flush().await;
    }

    /// The cluster is no longer configured: forgets everything, for the next run too.
    pub(super) async fn forget(&self) {
        self.unconfirm();
        self.drain().await;
        self.shared.persistence.iter().for_each(|persistence| persistence.journal(&self.cluster).forget());
    }

    /// Up to which revision all changes of a kind are known; `None` if a listing is needed.
    pub(super) fn seen(&self, kind: Kind) -> Option<i64> {
        lock(&self.seen).get(&kind).copied()
    }

    /// Follows one kind for as long as the store answers; shows each batch before it is applied.
    /// Begins with a listing, unless the store is known to have the history that was `seen`.
    pub(super) async fn follow(
        &self,
        store: &dyn Store,
        (kind, layout): (Kind, Layout),
        gate: Gate,
        seen: Option<i64>,
        observe: impl Fn(&Batch),
    ) -> Result<Infallible> {
        let prefix = keys::prefix(kind, layout, &self.cluster);
        let mut follower = match seen {
            Some(seen) => Follower::resume(store, prefix, gate, seen).await?,
            None => Follower::new(store, prefix, gate),
        };
        let (mut audit, mut sweep) = (None, None);
        if follower.seen() > 0 {
            self.confirm(kind, follower.seen());
            // The connection before may have ended between a listing and its sweep.
            sweep = Some(Instant::now() + PATIENCE);
        }
        loop {
            let batch = tokio::select! {
                batch = follower.next() => batch?,
                () = due(sweep) => {
                    sweep = None;
                    self.sweep(kind).await;
                    continue;
                }
            };
            observe(&batch);
            let events = batch.events();
            match batch {
                Batch::Begin { audit: since } => {
                    sweep = None;
                    lock(&self.seen).remove(&kind);
                    lock(&self.view).mark(kind);
                    audit = since.map(|since| Audit { since, repaired: 0 });
                }
                Batch::Entries(entries) => {
                    let puts: Vec<_> = entries.into_iter().map(Change::Put).collect();
                    self.apply(kind, &puts, audit.as_mut());
                }
                Batch::End { complete } => {
                    lock(&self.view).sum_up(kind);
                    match audit.take() {
                        Some(Audit { repaired, .. }) => {
                            let swept = if complete { self.sweep(kind).await } else { 0 };
                            lock(&self.audits).done(&self.cluster, kind, repaired + swept);
                        }
                        None => sweep = complete.then(|| Instant::now() + PATIENCE),
                    }
                    self.confirm(kind, follower.seen());
                }
                Batch::Changes(changes) => {
                    self.apply(kind, &changes, None);
                    lock(&self.view).sum_up(kind);
                    lock(&self.seen).insert(kind, follower.seen());
                }
            }
            let begun = Instant::now();
            self.shared.outbox.flush().await;
            if let Some(persistence) = &self.shared.persistence {
                persistence.room().await;
            }
            operations::waited(kind, events, begun.elapsed());
            tokio::task::yield_now().await;
        }
    }

    /// Forgets what the last listing did not have and that did not come since; tells how much.
    async fn sweep(&self, kind: Kind) -> u64 {
        let swept = self.tell(|view, nodes| view.sweep(kind, nodes));
        kind.other_form().iter().for_each(|form| _ = lock(&self.seen).remove(form));
        self.shared.outbox.flush().await;
        swept as u64
    }

    /// What is known of a kind is all there is, and all there was at a revision.
    fn confirm(&self, kind: Kind, seen: i64) {
        lock(&self.seen).insert(kind, seen);
        // Services are complete in whichever form they are read.
        let kind = if kind == Kind::EndpointSlices { Kind::Services } else { kind };
        lock(&self.retained).insert(kind);
        self.complete.send_modify(|complete| _ = complete.insert(kind, true));
        if self.is_complete() {
            *lock(&self.restored) = None;
            self.shared.persistence.iter().for_each(|persistence| persistence.confirm(&self.cluster, true));
        }
    }

    fn apply(&self, kind: Kind, changes: &[Change], mut audit: Option<&mut Audit>) {
        for change in changes {
            let mut changed = false;
            self.tell(|view, nodes| {
                let updates = view.apply(kind, change, nodes);
                changed = updates.is_some();
                updates.unwrap_or_default()
            });
            if let (Some(audit), Change::Put(entry), true) = (&mut audit, change, changed) {
                audit.repaired += u64::from(entry.revision <= audit.since);
            }
        }
        self.tell(|view, _| view.settle());
    }

    /// Changes the view and tells what that means; returns how much it is.
    fn tell(&self, change: impl FnOnce(&mut View, &mut Nodes) -> Vec<Update>) -> usize {
        let mut view = lock(&self.view);
        // One cluster's nodes decide about those of others, and are told of in the order decided: not
        // held for longer than one change, as all clusters wait for it.
        let mut nodes = lock(&self.shared.nodes);
        let updates = change(&mut view, &mut nodes);
        let told = updates.len();
        self.shared.outbox.push(updates);
        told
    }
}

/// Waits for an instant, if there is one to wait for.
pub(super) async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn none_complete() -> BTreeMap<Kind, bool> {
    Kind::ALL.into_iter().map(|kind| (kind, false)).collect()
}

#[cfg(test)]
mod tests;
