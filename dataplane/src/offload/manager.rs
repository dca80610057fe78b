//! The thread that looks after the verdict cache.

use super::Offload;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tables::Changes;

/// How often packets are accounted.
const ACCOUNTING: Duration = Duration::from_secs(1);
/// Longest wait until slots that were taken back are used again, and until a stop is noticed.
const TICK: Duration = Duration::from_millis(100);
/// Least pause between two revalidations.
const PAUSE: Duration = Duration::from_millis(5);

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Manager {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Manager {
    /// Confirms all verdicts under the current tables, then looks after them for ever, away from
    /// the CPUs `busy` if there are others.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(offload: Arc<Offload>, busy: &[usize]) -> io::Result<Manager> {
        let changes = offload.publisher.subscribe();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, busy) = (stop.clone(), busy.to_vec());
        let thread = thread::Builder::new().name("offload".into()).spawn(move || {
            if let Err(error) = keep_off(&busy) {
                tracing::warn!(%error, "the verdict cache is looked after on a worker's CPU");
            }
            run(&offload, changes, &stopped);
        })?;
        Ok(Manager { stop, thread: Some(thread) })
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed already.
            let _ = thread.join();
        }
    }
}

/// Revalidates whenever tables have changed, accounts once a second.
///
/// A revalidation is followed by a pause as long as itself, so that constant change costs half a
/// CPU at most. A change has to wait for the one that is running, a pause, and its own: 100 ms as
/// long as each takes less than 33 ms.
fn run(offload: &Offload, mut changes: Changes, stop: &AtomicBool) {
    let (mut changed, mut accounted) = (true, Instant::now());
    while !stop.load(Relaxed) {
        if changed {
            let begun = Instant::now();
            offload.revalidate();
            thread::sleep(begun.elapsed().max(PAUSE));
        }
        if accounted.elapsed() >= ACCOUNTING {
            accounted = Instant::now();
            offload.refresh();
        }
        offload.recycle();
        changed = changes.wait(TICK);
    }
    offload.refresh();
}

/// Keeps the calling thread off some CPUs, unless it may run on no others.
fn keep_off(busy: &[usize]) -> nix::Result<()> {
    let me = Pid::from_raw(0);
    let mut allowed = sched_getaffinity(me)?;
    for &cpu in busy {
        allowed.unset(cpu)?;
    }
    if (0..CpuSet::count()).any(|cpu| allowed.is_set(cpu) == Ok(true)) {
        sched_setaffinity(me, &allowed)?;
    }
    Ok(())
}
