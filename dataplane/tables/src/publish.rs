//! The one arrow from control to the workers: pointer swap and reclamation.

use crate::Snapshot;
use std::sync::Arc;

/// Owns the current snapshot. Edits are serialised; readers never wait.
#[derive(Debug)]
pub struct Publisher {}

impl Publisher {
    /// An empty publisher; `first_generation` should differ from run to run (conntrack outlives
    /// the process and compares stamps).
    pub fn new(_first_generation: u32) -> Arc<Self> {
        todo!()
    }
    /// Applies an edit to a copy of the current snapshot and publishes it. The generations are
    /// bumped here by what changed, never by the caller. Old snapshots are freed on this side,
    /// once no worker holds them.
    pub fn edit<R>(&self, _edit: impl FnOnce(&mut Snapshot) -> R) -> R {
        todo!()
    }
    /// The current snapshot, for readers outside the packet path.
    pub fn current(&self) -> Arc<Snapshot> {
        todo!()
    }
    /// A reader for one worker.
    pub fn reader(self: &Arc<Self>) -> Reader {
        todo!()
    }
}

/// A worker's view; pin once per burst.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// The newest snapshot: one atomic load when nothing changed. Never frees memory.
    pub fn pin(&mut self) -> &Snapshot {
        todo!()
    }
}
