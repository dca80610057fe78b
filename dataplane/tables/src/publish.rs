//! The one arrow from control to the workers: pointer swap and reclamation.

use crate::Snapshot;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use std::sync::{Arc, Mutex, PoisonError};

/// Owns the current snapshot. Edits are serialised; readers never wait.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    /// Snapshots that some reader may still hold. Locked by the editor.
    retired: Mutex<Vec<Arc<Snapshot>>>,
}

impl Publisher {
    /// An empty publisher; `first_generation` should differ from run to run (conntrack outlives
    /// the process and compares stamps).
    pub fn new(first_generation: u32) -> Arc<Self> {
        let first = Snapshot {
            generation: first_generation,
            policy_generation: first_generation,
            service_generation: first_generation,
            ..Snapshot::default()
        };
        Arc::new(Publisher { current: Arc::new(ArcSwap::from_pointee(first)), retired: Mutex::default() })
    }

    /// Applies an edit to a copy of the current snapshot and publishes it. The generations are
    /// bumped here by what changed, never by the caller. Old snapshots are freed on this side,
    /// once no worker holds them.
    pub fn edit<R>(&self, edit: impl FnOnce(&mut Snapshot) -> R) -> R {
        // An edit that panicked left only its private copy half done.
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.current.load_full();
        let mut new = Snapshot::clone(&old);
        let result = edit(&mut new);
        new.policy_generation = old.policy_generation.wrapping_add(new.policy_differs(&old).into());
        new.service_generation =
            old.service_generation.wrapping_add((!new.services.same(&old.services)).into());
        if new.differs(&old) {
            new.generation = old.generation.wrapping_add(1);
            drop(old);
            retired.push(self.current.swap(Arc::new(new)));
        }
        // Nobody can take a new reference to a retired snapshot, so a count of one stays one.
        retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        result
    }

    /// The current snapshot, for readers outside the packet path.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A reader for one worker.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { cache: Cache::new(Arc::clone(&self.current)) }
    }
}

/// A worker's view; pin once per burst.
#[derive(Debug)]
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
}

impl Reader {
    /// The newest snapshot: one atomic load when nothing changed. Never frees memory.
    pub fn pin(&mut self) -> &Snapshot {
        self.cache.load()
    }
}

#[cfg(test)]
mod tests;
