//! How long operations on etcds take and how they end, of all connections of the process: what
//! Cilium's `kvstore_operations_duration_seconds` and `kvstore_quorum_errors_total` show.

use crate::mesh::keys;
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

/// How long it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Count per bucket of [`BOUNDS`]; what took longer is only in `count`.
    pub buckets: [u64; BOUNDS.len()],
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: Duration,
}

#[derive(Default)]
struct Meter {
    operations: BTreeMap<Operation, Durations>,
    quorum_errors: BTreeMap<&'static str, u64>,
}

static METER: Mutex<Meter> =
    Mutex::new(Meter { operations: BTreeMap::new(), quorum_errors: BTreeMap::new() });

/// All operations so far.
pub fn durations() -> BTreeMap<Operation, Durations> {
    lock(&METER).operations.clone()
}

/// How often an etcd could not answer for want of a majority of its members, by sign of that.
pub fn quorum_errors() -> BTreeMap<&'static str, u64> {
    lock(&METER).quorum_errors.clone()
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
    let durations = meter.operations.entry(operation).or_default();
    durations.count += 1;
    durations.sum += took;
    if let Some(bucket) = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound) {
        durations.buckets[bucket] += 1;
    }
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
