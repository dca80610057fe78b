//! What was learned of one cluster and how: its view, kept over connections, and how much of it is
//! confirmed over the current one.

use super::keys::{self, Kind, Layout};
use super::store::{Change, Result, Store};
use super::sync::{Batch, Follower, Gate};
use super::view::View;
use super::{Shared, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Entries applied without giving others a turn.
const CHUNK: usize = 256;

pub(super) struct Learned {
    pub(super) cluster: String,
    shared: Arc<Shared>,
    pub(super) view: Mutex<View>,
    /// Kinds whose view is complete over the current connection.
    complete: watch::Sender<BTreeMap<Kind, bool>>,
    /// Kinds whose view was complete and has been kept since.
    retained: Mutex<BTreeSet<Kind>>,
}

impl Learned {
    pub(super) fn new(shared: Arc<Shared>, cluster: String, id: u32, services_wanted: bool) -> Learned {
        let view = Mutex::new(View::new(cluster.clone(), id, services_wanted));
        let (complete, retained) = (watch::Sender::new(none_complete()), Mutex::default());
        Learned { cluster, shared, view, complete, retained }
    }

    /// A connection begins or ended: nothing is confirmed.
    pub(super) fn unconfirm(&self) {
        self.complete.send_replace(none_complete());
    }

    /// Which kinds are complete.
    pub(super) fn complete(&self) -> BTreeMap<Kind, bool> {
        self.complete.borrow().clone()
    }

    /// What is known of a kind is, or was when the connection was lost, all there is.
    pub(super) fn retains(&self, kind: Kind) -> bool {
        lock(&self.retained).contains(&kind)
    }

    /// Waits until a first listing of all kinds is in.
    pub(super) async fn all_complete(&self) {
        let all = |complete: &BTreeMap<Kind, bool>| complete.values().all(|complete| *complete);
        // The sender lives as long as self.
        let _ = self.complete.subscribe().wait_for(all).await;
    }

    /// Keys of a kind known from earlier connections that were not seen over this one.
    pub(super) fn suspects(&self, kind: Kind) -> usize {
        lock(&self.view).suspects(kind).count()
    }

    /// Forgets everything.
    pub(super) async fn drain(&self) {
        lock(&self.retained).clear();
        let updates = lock(&self.view).drain(&mut lock(&self.shared.nodes));
        self.shared.outbox.push(updates);
        self.shared.outbox.flush().await;
    }

    /// Follows one kind for as long as the store answers; shows each batch before it is applied.
    pub(super) async fn follow(
        &self,
        store: &dyn Store,
        kind: Kind,
        layout: Layout,
        gate: Gate,
        observe: impl Fn(&Batch),
    ) -> Result<Infallible> {
        let mut follower = Follower::new(store, keys::prefix(kind, layout, &self.cluster), gate);
        loop {
            let batch = follower.next().await?;
            observe(&batch);
            match batch {
                Batch::Changes(changes) => self.apply(kind, &changes),
                Batch::Listing { entries, complete } => {
                    lock(&self.view).mark(kind);
                    let puts: Vec<_> = entries.into_iter().map(Change::Put).collect();
                    for chunk in puts.chunks(CHUNK) {
                        self.apply(kind, chunk);
                        self.shared.outbox.flush().await;
                        tokio::task::yield_now().await;
                    }
                    if complete {
                        let updates = lock(&self.view).sweep(kind, &mut lock(&self.shared.nodes));
                        self.shared.outbox.push(updates);
                        self.shared.outbox.flush().await;
                    }
                    lock(&self.retained).insert(kind);
                    self.complete.send_modify(|complete| _ = complete.insert(kind, true));
                }
            }
            self.shared.outbox.flush().await;
        }
    }

    fn apply(&self, kind: Kind, changes: &[Change]) {
        let mut view = lock(&self.view);
        let mut nodes = lock(&self.shared.nodes);
        for change in changes {
            self.shared.outbox.push(view.apply(kind, change, &mut nodes));
        }
    }
}

fn none_complete() -> BTreeMap<Kind, bool> {
    Kind::ALL.into_iter().map(|kind| (kind, false)).collect()
}
