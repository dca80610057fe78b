//! The monitor: events of the workers, resolved and handed to whoever listens.
//!
//! Workers push into bounded queues and never wait; the hub drains these in batches and hands
//! records to bounded channels. Whatever does not fit is counted and reported to the listener.

mod facts;
pub mod query;
pub mod record;
pub mod resolve;
pub mod summary;
pub mod text;

pub use query::{Filter, Kind, Query};
pub use record::Record;

use crate::agent::Agent;
use crate::worker;
use bytes::Bytes;
use facts::Facts;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// How often queues are drained while somebody listens.
const TICK: Duration = Duration::from_millis(20);
/// Events taken from one worker per tick: bounds the work to 50,000 events a second and worker,
/// more than anybody reads.
const BATCH: usize = 1024;
/// Records a listener may be behind.
const BACKLOG: usize = 4096;

/// Hands events to listeners.
pub struct Hub {
    agent: Arc<Agent>,
    listeners: Mutex<Vec<Listener>>,
    arrived: Notify,
}

struct Listener {
    filter: Filter,
    lines: mpsc::Sender<Bytes>,
    lost: u64,
}

impl Hub {
    /// A hub for the events of this agent's workers.
    pub fn new(agent: &Arc<Agent>) -> Arc<Hub> {
        Arc::new(Hub { agent: Arc::clone(agent), listeners: Mutex::default(), arrived: Notify::new() })
    }

    /// Starts to listen: records as JSON lines, until the receiver is dropped.
    pub fn subscribe(&self, filter: Filter) -> mpsc::Receiver<Bytes> {
        let (lines, receiver) = mpsc::channel(BACKLOG);
        let mut listeners = self.listeners();
        // What was queued before is not for this listener.
        if listeners.is_empty() {
            self.discard();
        }
        listeners.push(Listener { filter, lines, lost: 0 });
        self.set_interest(&listeners);
        self.arrived.notify_one();
        receiver
    }

    /// Drains the workers' queues for ever.
    pub async fn run(&self) {
        let mut facts = Facts::new(Arc::clone(&self.agent));
        let mut seen_lost = self.lost();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if !self.anyone() {
                self.arrived.notified().await;
                seen_lost = self.lost();
            }
            tick.tick().await;
            facts.refresh();
            self.report_lost(&mut seen_lost);
            for cpu in 0..self.agent.events.len() {
                self.drain(cpu, &mut facts);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Forgets listeners that have gone; whether one is left.
    fn anyone(&self) -> bool {
        let mut listeners = self.listeners();
        listeners.retain(|listener| !listener.lines.is_closed());
        self.set_interest(&listeners);
        !listeners.is_empty()
    }

    fn drain(&self, cpu: usize, facts: &mut Facts) {
        let mut listeners = self.listeners();
        for _ in 0..BATCH {
            let Some(event) = self.agent.events[cpu].pop() else { return };
            let mut line = None;
            for listener in listeners.iter_mut().filter(|listener| listener.filter.matches(&event)) {
                let line = line.get_or_insert_with(|| json_line(&resolve::record(cpu, &event, facts)));
                listener.send(line.clone());
            }
        }
    }

    /// Tells all listeners what workers could not queue since the last time.
    fn report_lost(&self, seen: &mut [u64]) {
        for (cpu, (seen, now)) in seen.iter_mut().zip(self.lost()).enumerate() {
            let count = now - std::mem::replace(seen, now);
            if count > 0 {
                let line =
                    json_line(&Record::Lost(record::Lost { cpu: Some(format!("CPU {cpu:02}:")), count }));
                self.listeners().iter_mut().for_each(|listener| listener.send(line.clone()));
            }
        }
    }

    fn lost(&self) -> Vec<u64> {
        self.agent.workers.iter().map(|worker| worker.events_lost.load(Relaxed)).collect()
    }

    fn discard(&self) {
        for queue in &self.agent.events {
            // Bounded: workers may go on pushing.
            for _ in 0..queue.capacity() {
                if queue.pop().is_none() {
                    break;
                }
            }
        }
    }

    fn set_interest(&self, listeners: &[Listener]) {
        let wants = |kind| listeners.iter().any(|listener| listener.filter.wants(kind));
        let mut bits = 0;
        for (kind, bit) in [
            (Kind::Drop, worker::INTEREST_DROP),
            (Kind::Trace, worker::INTEREST_TRACE),
            (Kind::PolicyVerdict, worker::INTEREST_VERDICT),
        ] {
            if wants(kind) {
                bits |= bit;
            }
        }
        self.agent.interest.store(bits, Relaxed);
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    fn send(&mut self, line: Bytes) {
        if self.lost > 0 {
            let lost = json_line(&Record::Lost(record::Lost { cpu: None, count: self.lost }));
            if self.lines.try_send(lost).is_ok() {
                self.lost = 0;
            }
        }
        if self.lost > 0 || self.lines.try_send(line).is_err() {
            self.lost += 1;
        }
    }
}

fn json_line(record: &Record) -> Bytes {
    // A record has nothing in it that JSON cannot say.
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests;
