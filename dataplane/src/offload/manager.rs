//! The threads that look after the verdict cache.

use super::Offload;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rustix::process::setpriority_process;
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
/// The nice value of the revalidator: busy pods must not hold up a revocation. Not a real-time
/// class, which would keep workers and the kernel's own threads off its CPU during a pass.
const URGENT: i32 = -20;

/// The running threads; they end when this is dropped.
#[derive(Debug)]
pub struct Manager {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Manager {
    /// Confirms all verdicts under the current tables, then looks after them for ever, away from
    /// the CPUs `busy` if there are others.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(offload: Arc<Offload>, busy: &[usize]) -> io::Result<Manager> {
        let mut manager = Manager { stop: Arc::default(), threads: Vec::new() };
        let changes = offload.publisher.subscribe();
        let of = offload.clone();
        manager.spawn("revalidate", busy, move |stop| {
            if let Err(error) = setpriority_process(None, URGENT) {
                tracing::warn!(%error, "nice value {URGENT}: on busy CPUs revoked flows may go on for longer");
            }
            revalidate(&of, changes, stop);
        })?;
        manager.spawn("account", busy, move |stop| account(&offload, stop))?;
        Ok(manager)
    }

    fn spawn(
        &mut self,
        name: &str,
        busy: &[usize],
        run: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> io::Result<()> {
        let (stop, busy) = (self.stop.clone(), busy.to_vec());
        self.threads.push(thread::Builder::new().name(name.into()).spawn(move || {
            if let Err(error) = keep_off(&busy) {
                tracing::warn!(%error, "the verdict cache is looked after on a worker's CPU");
            }
            run(&stop);
        })?);
        Ok(())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been printed already.
            let _ = thread.join();
        }
    }
}

/// Revalidates whenever tables have changed.
///
/// A revalidation is followed by a pause as long as itself, so that constant change costs half a
/// CPU at most. A change has to wait for the one that is running, a pause, and its own: 100 ms as
/// long as each takes less than 33 ms.
fn revalidate(offload: &Offload, mut changes: Changes, stop: &AtomicBool) {
    let mut changed = true;
    while !stop.load(Relaxed) {
        if changed {
            let begun = Instant::now();
            offload.revalidate();
            thread::sleep(begun.elapsed().max(PAUSE));
        }
        changed = changes.wait(TICK);
    }
}

/// Accounts once a second, and empties slots that were taken back.
fn account(offload: &Offload, stop: &AtomicBool) {
    let mut accounted = Instant::now();
    while !stop.load(Relaxed) {
        if accounted.elapsed() >= ACCOUNTING {
            accounted = Instant::now();
            offload.refresh();
        }
        offload.recycle();
        thread::sleep(TICK);
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
