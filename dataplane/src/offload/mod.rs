//! The life of cached verdicts: their packets are accounted, those that no longer hold are taken
//! back, and their slots are used again. Workers write verdicts, the kernel and workers use them.

mod manager;
mod pass;

pub use manager::Manager;
pub use pass::Totals;

use flow::FlowId;
use pass::Pass;
use rustix::thread::{MembarrierCommand, membarrier};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tables::{Publisher, Snapshot};

/// The verdict cache with everything that its verdicts rest on.
#[derive(Debug)]
pub struct Offload {
    /// The cache.
    pub verdicts: &'static verdicts::Table,
    flows: &'static flow::Table,
    publisher: Arc<Publisher>,
    /// Programs of the kernel use it too.
    kernel: bool,
    /// Held while packets are accounted and slots emptied, by one thread at a time.
    totals: Mutex<Totals>,
    /// The tables that all verdicts were last held against. Held during a revalidation, which waits
    /// for nothing else.
    confirmed: Mutex<Option<Arc<Snapshot>>>,
    /// Verdicts that revalidations took back.
    revoked: AtomicU64,
}

/// The flows that the kernel forwards.
#[derive(Debug)]
pub struct Offloaded(HashMap<u32, u32>);

impl Offloaded {
    /// Whether a direction of this flow is among them.
    pub fn contains(&self, flow: FlowId) -> bool {
        self.0.get(&flow.slot) == Some(&flow.version)
    }
}

impl Offload {
    /// Takes over a table; `kernel` says whether programs of the kernel use it. Verdicts of an
    /// earlier process stay: their packets are accounted, and workers use them only once they have
    /// been confirmed.
    pub fn new(
        verdicts: &'static verdicts::Table,
        flows: &'static flow::Table,
        publisher: Arc<Publisher>,
        kernel: bool,
    ) -> Offload {
        let offload = Offload {
            verdicts,
            flows,
            publisher,
            kernel,
            totals: Mutex::default(),
            confirmed: Mutex::default(),
            revoked: AtomicU64::new(0),
        };
        offload.adopt();
        offload
    }

    /// Accounts all packets until now, so that what is shown afterwards is exact, and takes back
    /// verdicts that have expired or forwarded packets of a flow that is gone. Returns the totals.
    /// Takes as long as a look at every verdict: not for asynchronous code.
    pub fn refresh(&self) -> Totals {
        self.account(false)
    }

    /// As [`Offload::refresh`], and takes back all verdicts whose flow is gone.
    pub fn forget_removed(&self) {
        self.account(true);
    }

    fn account(&self, unused: bool) -> Totals {
        let mut totals = lock(&self.totals);
        self.collect(&mut totals);
        Pass::new(self, &self.publisher.current()).account(unused, &mut totals);
        Totals { revoked: self.revoked.load(Relaxed), ..*totals }
    }

    /// Takes back what the pipeline would decide otherwise under the current tables.
    pub fn revalidate(&self) {
        let mut confirmed = lock(&self.confirmed);
        let tables = self.publisher.current();
        let revoked = Pass::new(self, &tables).revalidate(confirmed.as_deref());
        self.revoked.fetch_add(revoked as u64, Relaxed);
        *confirmed = Some(tables);
    }

    /// Makes the slots of verdicts that were taken back usable.
    pub fn recycle(&self) {
        self.collect(&mut lock(&self.totals));
    }

    /// The flows that the kernel forwards.
    pub fn offloaded(&self) -> Offloaded {
        let mut flows = HashMap::new();
        if self.kernel {
            self.verdicts.for_each(|verdict, _| {
                flows.insert(verdict.flow.slot, verdict.flow.version);
            });
        }
        Offloaded(flows)
    }

    /// Takes over what an earlier process left: what the kernel has forwarded meanwhile keeps its
    /// flows alive, and no verdict may look as if it had been made under tables of this process.
    fn adopt(&self) {
        self.forget_removed();
        let older = self.publisher.current().generation.wrapping_sub(1);
        self.verdicts.revalidate(older, |_| false, |_| (), |_| true);
    }

    /// Accounts the rest of verdicts that were taken back and empties their slots, once no program
    /// of the kernel reads them any more.
    fn collect(&self, totals: &mut Totals) {
        let retired = self.verdicts.retired();
        if retired.is_empty() {
            return;
        }
        // Waits for the end of an RCU grace period. The kernel has it, as checked at start.
        if self.kernel
            && let Err(error) = membarrier(MembarrierCommand::Global)
        {
            tracing::error!(%error, "membarrier: slots of the verdict cache stay unused");
            return;
        }
        Pass::new(self, &self.publisher.current()).recycle(retired, totals);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
