//! The one arrow from control to the workers: pointer swap and reclamation.

use crate::Snapshot;
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Owns the current snapshot. Edits are serialised; readers never wait.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    /// Snapshots that some reader may still hold. Locked by the editor.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    published: Arc<Published>,
}

/// The newest generation, and who waits for another.
#[derive(Debug, Default)]
struct Published {
    generation: Mutex<u32>,
    changed: Condvar,
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
        Arc::new(Publisher {
            current: Arc::new(ArcSwap::from_pointee(first)),
            retired: Mutex::default(),
            published: Arc::new(Published { generation: first_generation.into(), ..Published::default() }),
        })
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
            let generation = old.generation.wrapping_add(1);
            new.generation = generation;
            drop(old);
            retired.push(self.current.swap(Arc::new(new)));
            self.published.set(generation);
        }
        free(&mut retired);
        result
    }

    /// Frees old snapshots that no worker holds any more, without waiting for the next edit.
    pub fn reclaim(&self) {
        free(&mut self.retired.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The current snapshot, for readers outside the packet path.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Tells of what is published from now on.
    pub fn subscribe(&self) -> Changes {
        let seen = *self.published.generation.lock().unwrap_or_else(PoisonError::into_inner);
        Changes { published: Arc::clone(&self.published), seen }
    }

    /// A reader for one worker.
    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader { cache: Cache::new(Arc::clone(&self.current)) }
    }
}

/// Nobody can take a new reference to a retired snapshot, so a count of one stays one.
fn free(retired: &mut Vec<Arc<Snapshot>>) {
    retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
}

impl Published {
    fn set(&self, generation: u32) {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = generation;
        self.changed.notify_all();
    }
}

/// Lets a thread off the packets' way sleep until the tables have changed.
#[derive(Debug)]
pub struct Changes {
    published: Arc<Published>,
    seen: u32,
}

impl Changes {
    /// Waits until something was published that the last call did not report; false if nothing
    /// was for `timeout`. Publications in between are reported as one.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let Published { generation, changed } = &*self.published;
        let newest = generation.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, _) = changed
            .wait_timeout_while(newest, timeout, |newest| *newest == self.seen)
            .unwrap_or_else(PoisonError::into_inner);
        *newest != std::mem::replace(&mut self.seen, *newest)
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
