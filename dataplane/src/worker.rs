//! The workers: one thread each, rx → engine → tx.
//!
//! Worker `w` of `N` serves queue `w` of the hub and every queue `q` of an uplink with
//! `q % N == w`. A worker without a queue of its own on an uplink hands what it has to send there
//! to one that has ([`mailbox`]).

pub mod hold;
mod mailbox;
mod ports;
mod run;

use crate::agent::Poll;
use bpf::Bpf;
use crossbeam::queue::ArrayQueue;
use engine::{Counters, Engine, Event};
use flow::{Seconds, Table};
use hold::Hold;
use mailbox::Mailbox;
use nix::time::{ClockId, clock_gettime};
use ports::Ports;
use run::{Basis, Worker};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};
use tables::Publisher;
use verdicts::Nanoseconds;
use xsk::{Mode, Stats};

/// Bit of the interest flags: trace events.
pub const INTEREST_TRACE: u8 = 1;
/// Bit of the interest flags: policy verdicts that allow.
pub const INTEREST_VERDICT: u8 = 2;
/// Bit of the interest flags: drops.
pub const INTEREST_DROP: u8 = 4;

/// Monitor events that a worker's queue holds.
const EVENTS: usize = 4096;

/// Seconds since boot, suspend included: the clock of conntrack and heartbeats.
pub fn now() -> Seconds {
    // Linux has this clock since 2.6.39, so the call cannot fail.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec() as Seconds)
}

/// The clock of the verdict cache.
pub fn coarse_clock() -> Nanoseconds {
    // Linux has this clock since 2.6.32, so the call cannot fail.
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// What the workers are to serve.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of workers, which is the number of queues of the hub.
    pub workers: usize,
    /// CPUs to pin them to, in order; empty = not pinned.
    pub cpus: Vec<usize>,
    /// How they wait.
    pub poll: Poll,
    /// Name of the hub's worker side.
    pub hub: String,
    /// Names of the uplinks, in the order of [`tables::Node::uplinks`] and `Bpf::attach_uplinks`.
    pub uplinks: Vec<String>,
    /// The largest MTU of hub and uplinks, in bytes.
    pub mtu: u32,
    /// From which packet of a flow on its verdicts are cached; 0 is never.
    pub cache_after: u32,
}

/// Why workers cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket or memory.
    #[error(transparent)]
    Xsk(#[from] xsk::Error),
    /// The program does not take the socket.
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    /// The device does not tell its queues.
    #[error("cannot read the number of queues of {0}: {1}")]
    Queues(String, io::Error),
    /// No thread or pipe.
    #[error("cannot start worker {0}: {1}")]
    Thread(usize, io::Error),
}

/// One AF_XDP socket as others see it.
#[derive(Debug)]
pub struct SocketShared {
    /// Interface it is bound to.
    pub device: String,
    /// Queue it is bound to.
    pub queue: u32,
    /// How packets are moved.
    pub mode: Mode,
    /// Its counters; the kernel's own are up to a second old.
    pub stats: Arc<Stats>,
    /// Its device was removed.
    pub dead: AtomicBool,
}

/// What a worker shows of itself.
#[derive(Debug)]
pub struct WorkerShared {
    /// Its number.
    pub index: usize,
    /// CPU it is pinned to.
    pub cpu: Option<usize>,
    /// What it decided.
    pub counters: Counters,
    /// Its sockets, the hub's first.
    pub sockets: Vec<SocketShared>,
    /// Events it could not queue.
    pub events_lost: AtomicU64,
    /// Frames dropped because the worker that serves the uplink had no room for them.
    pub handoff_full: AtomicU64,
    /// Frames dropped because the memory of the socket they were to leave by was full.
    pub no_frame: AtomicU64,
    /// Frames dropped because their uplink is gone.
    pub uplink_gone: AtomicU64,
    /// Packets it holds until a pod is known.
    pub hold: Arc<hold::Counts>,
    /// [`now`] of its last round; at most a second old while it is well.
    pub heartbeat: AtomicU32,
    running: AtomicBool,
    failure: OnceLock<String>,
}

impl WorkerShared {
    /// Whether its thread runs.
    pub fn alive(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Why its thread ended, if it did not end on request.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    /// What each shows of itself.
    pub shared: Vec<Arc<WorkerShared>>,
    /// Monitor events of each.
    pub events: Vec<Arc<ArrayQueue<Event>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Opens all sockets, fills the programs' maps with them and starts the threads. Nothing is
    /// received before, so an error leaves the programs dropping.
    pub fn start(
        config: &Config,
        bpf: &Bpf,
        publisher: &Arc<Publisher>,
        flows: &'static Table,
        verdicts: &'static verdicts::Table,
        interest: &Arc<AtomicU8>,
    ) -> Result<Workers, Error> {
        let mut all_ports = Ports::open_all(config)?;
        let mailboxes = (0..config.workers)
            .map(|index| Mailbox::new(config.mtu).map(Arc::new).map_err(|e| Error::Thread(index, e)))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, ports) in all_ports.iter_mut().enumerate() {
            ports.connect(index, &mailboxes);
            ports.publish(bpf)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Workers { shared: Vec::new(), events: Vec::new(), stop, threads: Vec::new() };
        for (index, ports) in all_ports.into_iter().enumerate() {
            let cpu = config.cpus.get(index).copied();
            let shared = Arc::new(WorkerShared {
                index,
                cpu,
                counters: Counters::new(),
                sockets: ports.shared(),
                events_lost: AtomicU64::new(0),
                handoff_full: AtomicU64::new(0),
                no_frame: AtomicU64::new(0),
                uplink_gone: AtomicU64::new(0),
                hold: Arc::default(),
                heartbeat: AtomicU32::new(now()),
                running: AtomicBool::new(true),
                failure: OnceLock::new(),
            });
            let events = Arc::new(ArrayQueue::new(EVENTS));
            let worker = Worker {
                engine: Box::new(Engine::new()),
                basis: Basis {
                    reader: publisher.reader(),
                    flows,
                    verdicts,
                    cache_after: config.cache_after,
                    interest: interest.clone(),
                },
                ports,
                hold: Hold::new(config.mtu, shared.hold.clone()),
                mailbox: mailboxes[index].clone(),
                shared: shared.clone(),
                events: events.clone(),
                stop: workers.stop.clone(),
                busy: config.poll == Poll::Busy,
            };
            workers.shared.push(shared);
            workers.events.push(events);
            workers.threads.push(spawn(worker, cpu).map_err(|e| Error::Thread(index, e))?);
        }
        Ok(workers)
    }

    /// Ends the threads and closes the sockets; from then on the programs drop.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic has been recorded in `failure` already.
            let _ = thread.join();
        }
    }
}

fn spawn(mut worker: Worker, cpu: Option<usize>) -> io::Result<JoinHandle<()>> {
    let shared = worker.shared.clone();
    thread::Builder::new().name(format!("worker-{}", shared.index)).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| {
            cpu.map_or(Ok(()), run::pin_to)?;
            worker.run()
        }));
        // Sockets are closed before the worker is reported as gone.
        drop(worker);
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it panicked; the log has the message".to_owned()),
        };
        if let Some(failure) = failure {
            tracing::error!(worker = shared.index, %failure, "worker ended");
            let _ = shared.failure.set(failure);
        }
        shared.running.store(false, Ordering::Release);
    })
}

#[cfg(test)]
mod tests;
