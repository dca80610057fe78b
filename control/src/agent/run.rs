//! The loop: fold what came in, publish what follows, tell the mesh, ask for identities.

use crate::compile::Compiler;
use crate::heap;
use crate::labels::Labels;
use crate::mesh::{AllocateError, Mesh};
use crate::objects::ObjectEvent;
use crate::records;
use crate::state::State;
use crate::update::Update;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tables::Publisher;
use tokio::sync::{Notify, mpsc, watch};
use wire::Identity;

/// A burst of changes is gathered for this long after the first one was published at once.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// How much of a burst is folded before it is published.
const BATCH: usize = 50_000;
/// Free memory is given back so long after that many changes.
const TRIM: Duration = Duration::from_secs(2);
/// How long to wait when the allocator refuses.
const RETRY: Duration = Duration::from_secs(5);

/// What the loop and the callers share.
pub(super) struct Shared {
    core: Mutex<Core>,
    pub(super) mesh: Arc<Mesh>,
    pub(super) publisher: Arc<Publisher>,
    changed: Notify,
    stopped: watch::Sender<bool>,
}

/// State and what became of it.
pub(super) struct Core {
    pub(super) state: State,
    pub(super) compiler: Compiler,
    /// What was last told to the mesh.
    ips: Option<BTreeMap<String, records::IpIdentity>>,
    /// Labels that an identity is being asked for, by endpoint.
    asked: HashMap<u16, Labels>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(state: State, compiler: Compiler, mesh: Arc<Mesh>, publisher: Arc<Publisher>) -> Self {
        let core = Core { state, compiler, ips: None, asked: HashMap::new() };
        Shared {
            core: Mutex::new(core),
            mesh,
            publisher,
            changed: Notify::new(),
            stopped: watch::Sender::new(false),
        }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the loop look at the state.
    pub(super) fn kick(&self) {
        self.changed.notify_one();
    }

    /// Ends the loop.
    pub(super) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    pub(super) async fn run(
        self: Arc<Self>,
        mut updates: mpsc::Receiver<Update>,
        mut objects: mpsc::Receiver<ObjectEvent>,
    ) {
        let mut stopped = self.stopped.subscribe();
        let (mut folded, mut trim) = (self.turn(&mut updates, &mut objects, None, None), None);
        loop {
            let (mut update, mut object) = (None, None);
            let step = self.core().compiler.services.next_step();
            tokio::select! {
                Some(new) = updates.recv() => update = Some(new),
                Some(new) = objects.recv() => object = Some(new),
                () = self.changed.notified() => {}
                () = until(step) => {}
                () = until(trim) => {
                    trim = None;
                    // Not awaited: allocations elsewhere may wait for it, changes need not.
                    tokio::task::spawn_blocking(heap::trim);
                    continue;
                }
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            folded += self.turn(&mut updates, &mut objects, update, object);
            if folded >= BATCH {
                (folded, trim) = (0, Some(Instant::now() + TRIM));
            }
            tokio::time::sleep(DEBOUNCE).await;
            self.publisher.reclaim();
        }
    }

    /// Folds what is waiting and acts on it; tells how many changes of stores that were.
    fn turn(
        self: &Arc<Self>,
        updates: &mut mpsc::Receiver<Update>,
        objects: &mut mpsc::Receiver<ObjectEvent>,
        update: Option<Update>,
        object: Option<ObjectEvent>,
    ) -> usize {
        let mut core = self.core();
        let waiting = std::iter::from_fn(|| updates.try_recv().ok()).take(BATCH);
        let updates = update.into_iter().chain(waiting);
        let folded = updates.map(|update| core.state.update(update)).count();
        let waiting = std::iter::from_fn(|| objects.try_recv().ok()).take(BATCH);
        object.into_iter().chain(waiting).for_each(|event| core.state.object(event));
        let Core { state, compiler, .. } = &mut *core;
        compiler.run(state, &self.publisher, Instant::now());
        core.tell(&self.mesh);
        for (id, labels, before) in core.wanted() {
            tokio::spawn(self.clone().allocate(id, labels, before));
        }
        folded
    }

    /// Gets an identity for a local pod and keeps asking until it has one or wants another one.
    async fn allocate(self: Arc<Self>, id: u16, labels: Labels, before: Option<Identity>) {
        loop {
            let unused = match self.mesh.allocate_identity(&labels, before).await {
                Ok(identity) => self.core().allocated(id, identity, &labels),
                Err(AllocateError::Shutdown) => return,
                Err(error) => {
                    if !self.core().refused(id, &labels, &error) {
                        return;
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            self.kick();
            if let Some(identity) = unused {
                self.mesh.release_identity(identity).await;
            }
            return;
        }
    }
}

/// Returns at this time; never if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

impl Core {
    /// Tells the mesh what this node and cluster have to offer.
    fn tell(&mut self, mesh: &Mesh) {
        let ips = self.state.own_records();
        if self.ips.as_ref() != Some(&ips) {
            self.ips = Some(ips.clone());
            mesh.set_ips(ips);
        }
        if self.state.objects_synced
            && self.state.synced.contains(&self.state.own.cluster)
            && let Some(exports) = self.compiler.services.take_exports()
        {
            mesh.set_services(exports.clone());
        }
    }

    /// Local pods to ask an identity for, with the one that the labels had in the last run.
    /// Namespaces must be known first: their labels count.
    fn wanted(&mut self) -> Vec<(u16, Labels, Option<Identity>)> {
        if !self.state.objects_synced {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        for (id, endpoint) in &self.state.endpoints {
            let fitting = endpoint.identity.as_ref().filter(|(_, labels)| *labels == endpoint.wanted);
            if !(fitting.is_some() && endpoint.confirmed) && self.asked.get(id) != Some(&endpoint.wanted) {
                self.asked.insert(*id, endpoint.wanted.clone());
                wanted.push((*id, endpoint.wanted.clone(), fitting.map(|(identity, _)| *identity)));
            }
        }
        wanted
    }

    /// Gives a pod its identity; gives back the one that is of no use any more.
    fn allocated(&mut self, id: u16, identity: Identity, labels: &Labels) -> Option<Identity> {
        self.answered(id, labels);
        self.state.assign(id, identity, labels)
    }

    /// Notes why a pod has no identity; false if it does not want it any more.
    fn refused(&mut self, id: u16, labels: &Labels, error: &AllocateError) -> bool {
        match self.state.endpoints.get_mut(&id).filter(|endpoint| endpoint.wanted == *labels) {
            Some(endpoint) => {
                endpoint.error = Some(error.to_string());
                true
            }
            None => {
                self.answered(id, labels);
                false
            }
        }
    }

    fn answered(&mut self, id: u16, labels: &Labels) {
        if self.asked.get(&id) == Some(labels) {
            self.asked.remove(&id);
        }
    }
}
