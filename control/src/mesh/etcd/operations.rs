//! How long operations on etcds take and how they end, and how long events wait, of all connections
//! of the process: what Cilium's `kvstore_operations_duration_seconds`, `kvstore_quorum_errors_total` and
//! `kvstore_events_queue_seconds` show.

use crate::mesh::keys::{self, Kind};
use crate::mesh::lock;
use crate::mesh::store::{Result, StoreError};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// Upper bounds of the buckets, seconds: those of Prometheus' client libraries.
pub const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What was done, in Cilium's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// `read`, `set` or `delete`.
    pub kind: &'static str,
    /// `Get`, `ListPrefix`, `Update`, …
    pub action: &'static str,
    /// What the key was about, `ip/v1`.
    pub scope: String,
    /// `success` or `fail`.
    pub outcome: &'static str,
}

/// Events that were received from etcds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Events {
    /// What they were about, `ip/v1`.
    pub scope: &'static str,
    /// `create`, `modify` or `delete`.
    pub action: &'static str,
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Count per bucket of [`BOUNDS`]; what took longer is only in `count`.
    pub buckets: [u64; BOUNDS.len()],
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: Duration,
}

impl Durations {
    fn add(&mut self, took: Duration, count: u64) {
        self.count += count;
        self.sum += took.saturating_mul(count.try_into().unwrap_or(u32::MAX));
        if let Some(bucket) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            self.buckets[bucket] += count;
        }
    }
}

#[derive(Default)]
struct Meter {
    operations: BTreeMap<Operation, Durations>,
    waits: BTreeMap<Events, Durations>,
    quorum_errors: BTreeMap<&'static str, u64>,
}

static METER: Mutex<Meter> =
    Mutex::new(Meter { operations: BTreeMap::new(), waits: BTreeMap::new(), quorum_errors: BTreeMap::new() });

/// All operations so far.
pub fn durations() -> BTreeMap<Operation, Durations> {
    lock(&METER).operations.clone()
}

/// How long events waited until the agent's loop and its disk had room for them.
pub fn waits() -> BTreeMap<Events, Durations> {
    lock(&METER).waits.clone()
}

/// How often an etcd could not answer for want of a majority of its members, by sign of that.
pub fn quorum_errors() -> BTreeMap<&'static str, u64> {
    lock(&METER).quorum_errors.clone()
}

/// Writes down how long each of some events waited.
pub(crate) fn waited(kind: Kind, events: [(&'static str, u64); 3], took: Duration) {
    let mut meter = lock(&METER);
    for (action, count) in events.into_iter().filter(|(_, count)| *count > 0) {
        meter.waits.entry(Events { scope: kind.path(), action }).or_default().add(took, count);
    }
}

/// Writes an operation down.
pub(super) fn record<T>(what: &str, key: &str, took: Duration, outcome: &Result<T>) {
    let mut meter = lock(&METER);
    // A heartbeat is read to see whether there is a majority.
    let sign = outcome.as_ref().err().filter(|_| key == keys::HEARTBEAT).and_then(sign_of_no_quorum);
    if let Some(sign) = sign {
        *meter.quorum_errors.entry(sign).or_default() += 1;
    }
    let outcome = if outcome.is_ok() { "success" } else { "fail" };
    let (kind, action) = name(what);
    let operation = Operation { kind, action, scope: scope(key), outcome };
    meter.operations.entry(operation).or_default().add(took, 1);
}

fn sign_of_no_quorum(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::Timeout(..) => Some("timeout"),
        StoreError::Failed(text) if text.contains("no leader") => Some("no leader"),
        _ => None,
    }
}

/// Kind and action.
fn name(what: &str) -> (&'static str, &'static str) {
    match what {
        "get" => ("read", "Get"),
        "list" => ("read", "ListPrefix"),
        "create" => ("set", "CreateOnly"),
        "delete" => ("delete", "Delete"),
        _ => ("set", "Update"),
    }
}

/// `ip/v1` of `cilium/state/ip/v1/default/10.1.2.3`, `cluster-config` of `cilium/cluster-config/east`.
fn scope(key: &str) -> String {
    let mut parts = key.split('/').skip(1);
    match parts.next() {
        Some("state" | "cache") => parts.take(2).collect::<Vec<_>>().join("/"),
        other => other.unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_what_they_were_about() {
        let key = "cilium/state/of-a-test/v1/x";
        record("get", key, Duration::from_millis(7), &Ok(()));
        record("get", "cilium/cache/of-a-test/v1/y/z", Duration::from_secs(11), &Ok(()));
        record("put", key, Duration::ZERO, &Err::<(), _>(StoreError::LeaseLost(1)));
        let found = durations();
        let of = |kind, action, outcome| {
            &found[&Operation { kind, action, scope: "of-a-test/v1".into(), outcome }]
        };
        let reads = of("read", "Get", "success");
        assert_eq!((reads.count, reads.buckets[1], reads.buckets.iter().sum()), (2, 1, 1));
        assert_eq!(reads.sum, Duration::from_millis(11_007));
        assert_eq!(of("set", "Update", "fail").count, 1);
        assert_eq!(scope(keys::HEARTBEAT), ".heartbeat");
        assert_eq!(scope("cilium/cluster-config/east"), "cluster-config");
    }
}
