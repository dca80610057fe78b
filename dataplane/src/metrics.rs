//! Metrics in Prometheus' text form. Names and labels are Cilium's where the meaning is the same
//! (`cilium_…`), so that existing dashboards work; the others are `dataplane_…`.

mod mesh;

use crate::agent::Agent;
use crate::api::model::{HoldStatus, OffloadStatus, Status, WorkerStatus};
use crate::api::views;
use crate::offload::Totals;
use engine::{Counters, DropReason};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use tables::Direction;

/// Media type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a running agent, as they are now.
pub fn encode(agent: Arc<Agent>) -> Result<String, fmt::Error> {
    let mut families = packets(agent.workers.iter().map(|worker| &worker.counters), agent.offload.refresh());
    let status = views::status(&agent);
    families.extend(datapath(&status));
    families.extend(mesh::families(&status, SystemTime::now()));
    families.extend(mesh::operations());
    families.extend(endpoints(&status));
    families.extend(policy(&agent));
    render(families)
}

fn render(families: Vec<Family>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// One metric with all its label sets.
#[derive(Debug)]
struct Family {
    name: Cow<'static, str>,
    help: Cow<'static, str>,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

#[derive(Clone, Debug)]
enum Value {
    Counter(u64),
    Gauge(u64),
    /// Sum, count, and count per upper bound.
    Histogram(f64, u64, Vec<(f64, u64)>),
}

impl Value {
    fn encode(&self, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Value::Counter(value) => metric.encode_counter::<NoLabelSet, _, u64>(value, None),
            Value::Gauge(value) => metric.encode_gauge(value),
            Value::Histogram(sum, count, buckets) => {
                metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// A counter; `_total` is appended to its name.
fn counter(
    name: impl Into<Cow<'static, str>>,
    help: impl Into<Cow<'static, str>>,
    samples: Vec<(Labels, u64)>,
) -> Family {
    let samples = samples.into_iter().map(|(labels, value)| (labels, Value::Counter(value))).collect();
    Family { name: name.into(), help: help.into(), kind: MetricType::Counter, samples }
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<(Labels, u64)>) -> Family {
    let samples = samples.into_iter().map(|(labels, value)| (labels, Value::Gauge(value))).collect();
    Family { name: name.into(), help: help.into(), kind: MetricType::Gauge, samples }
}

/// The only sample of a metric without labels.
fn one(value: impl TryInto<u64>) -> Vec<(Labels, u64)> {
    vec![(vec![], value.try_into().unwrap_or(u64::MAX))]
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family { name, help, kind, samples } in &self.0 {
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            for (labels, value) in samples {
                match labels.as_slice() {
                    [] => value.encode(&mut metric)?,
                    labels => value.encode(&mut metric.encode_family(&labels)?)?,
                }
            }
        }
        Ok(())
    }
}

const DIRECTIONS: [(Direction, &str); 2] = [(Direction::Ingress, "INGRESS"), (Direction::Egress, "EGRESS")];

/// What happened to packets, summed over workers and the verdict cache. Only what happened at all
/// is listed.
fn packets<'a>(workers: impl Iterator<Item = &'a Counters>, cached: Totals) -> Vec<Family> {
    let workers: Vec<_> = workers.collect();
    let (mut drops, mut drop_bytes) = (Vec::new(), Vec::new());
    let (mut forwards, mut forward_bytes) = (Vec::new(), Vec::new());
    let sum = |read: &dyn Fn(&Counters) -> (u64, u64)| {
        workers.iter().map(|counters| read(counters)).fold((0, 0), |(p, b), (q, c)| (p + q, b + c))
    };
    for (direction, name) in DIRECTIONS {
        let labels = vec![("direction", name.to_owned())];
        let (packets, bytes) = sum(&|counters| counters.read_forwarded(direction));
        let cached = cached.forwarded(direction);
        forwards.push((labels.clone(), packets + cached.packets));
        forward_bytes.push((labels, bytes + cached.bytes));
        for reason in DropReason::ALL {
            let (packets, bytes) = sum(&|counters| counters.read_dropped(*reason, direction));
            if packets > 0 {
                let labels = vec![("reason", reason.text().to_owned()), ("direction", name.to_owned())];
                drops.push((labels.clone(), packets));
                drop_bytes.push((labels, bytes));
            }
        }
    }
    vec![
        counter("cilium_drop_count", "Packets dropped", drops),
        counter("cilium_drop_bytes", "Bytes of packets dropped", drop_bytes),
        counter("cilium_forward_count", "Packets forwarded", forwards),
        counter("cilium_forward_bytes", "Bytes of packets forwarded", forward_bytes),
    ]
}

fn datapath(status: &Status) -> Vec<Family> {
    let conntrack = &status.conntrack;
    let workers = &status.datapath.workers;
    let worker = |index: usize| vec![("worker", index.to_string())];
    let mut sockets: BTreeMap<&str, Vec<(Labels, u64)>> = BTreeMap::new();
    for (socket, index) in workers.iter().flat_map(|w| w.sockets.iter().map(move |socket| (socket, w.index)))
    {
        for (name, count) in &socket.counters {
            let mut labels = worker(index);
            labels.push(("interface", socket.interface.clone()));
            labels.push(("queue", socket.queue.to_string()));
            sockets.entry(name).or_default().push((labels, *count));
        }
    }
    let kernel =
        status.datapath.kernel_drops.iter().map(|(cause, count)| (vec![("cause", cause.clone())], *count));
    let mut families = vec![
        gauge(
            "dataplane_build_info",
            "Version of the agent",
            vec![(vec![("version", status.version.clone())], 1)],
        ),
        gauge("dataplane_uptime_seconds", "Seconds since the agent started", one(status.uptime_seconds)),
        gauge("dataplane_conntrack_entries", "Connections tracked", one(conntrack.entries)),
        gauge("dataplane_conntrack_capacity", "Connections there is room for", one(conntrack.capacity)),
        counter(
            "dataplane_conntrack_evicted",
            "Unreplied connections evicted to make room",
            one(conntrack.evicted),
        ),
        counter("dataplane_conntrack_full", "Connections that found no room", one(conntrack.full)),
        gauge(
            "dataplane_worker_alive",
            "1 if the worker thread runs",
            workers.iter().map(|w| (worker(w.index), u64::from(w.alive))).collect(),
        ),
        counter(
            "dataplane_monitor_events_lost",
            "Monitor events that a worker could not queue",
            workers.iter().map(|w| (worker(w.index), w.events_lost)).collect(),
        ),
        counter(
            "dataplane_worker_handoff_full",
            "Frames dropped because the worker that serves the uplink had no room for them",
            workers.iter().map(|w| (worker(w.index), w.handoff_full)).collect(),
        ),
        counter(
            "dataplane_worker_no_frame",
            "Frames dropped because the memory of the socket they were to leave by was full",
            workers.iter().map(|w| (worker(w.index), w.no_frame)).collect(),
        ),
        counter(
            "dataplane_worker_uplink_gone",
            "Frames dropped because their uplink is gone",
            workers.iter().map(|w| (worker(w.index), w.uplink_gone)).collect(),
        ),
        counter(
            "dataplane_held_packets",
            "First packets to or from pods that were not known yet: held, and what became of them",
            workers.iter().flat_map(held).collect(),
        ),
        counter("dataplane_kernel_drops", "Packets dropped by the kernel's programs", kernel.collect()),
    ];
    families.extend(offload(&status.offload));
    families.extend(sockets.into_iter().map(|(name, samples)| {
        counter(
            format!("dataplane_xsk_{name}"),
            format!("AF_XDP sockets: {}", name.replace('_', " ")),
            samples,
        )
    }));
    families
}

/// What a worker did with first packets to or from pods that were not known yet.
fn held(worker: &WorkerStatus) -> [(Labels, u64); 4] {
    let HoldStatus { held, decided, expired, refused } = worker.hold;
    [("held", held), ("decided", decided), ("expired", expired), ("refused", refused)].map(
        |(event, count)| (vec![("worker", worker.index.to_string()), ("event", event.to_owned())], count),
    )
}

fn offload(status: &OffloadStatus) -> Vec<Family> {
    let removed = status.removed.iter().map(|(cause, count)| (vec![("cause", cause.clone())], *count));
    vec![
        gauge("dataplane_offload_enabled", "1 if the kernel uses the verdict cache", one(status.enabled)),
        gauge(
            "dataplane_offload_entries",
            "Verdicts cached, one per direction of a flow",
            one(status.entries),
        ),
        gauge("dataplane_offload_capacity", "Verdicts there is room for", one(status.capacity)),
        counter("dataplane_offload_inserted", "Verdicts written to the cache", one(status.inserted)),
        counter("dataplane_offload_removed", "Verdicts taken back", removed.collect()),
        counter("dataplane_offload_full", "Verdicts that found no room", one(status.full)),
        counter("dataplane_offload_packets", "Packets forwarded by cached verdicts", one(status.packets)),
        counter("dataplane_offload_bytes", "Bytes of these from the IP header on", one(status.bytes)),
    ]
}

fn endpoints(status: &Status) -> Vec<Family> {
    let control = &status.control;
    let states = status.endpoints.iter();
    vec![
        gauge("dataplane_manifest_errors", "Documents refused", one(control.manifest_errors.len())),
        gauge("dataplane_conflicts", "Conflicts between clusters", one(control.conflicts.len())),
        gauge("cilium_endpoint", "Pods on this node", one(status.endpoints.values().sum::<usize>())),
        gauge(
            "cilium_endpoint_state",
            "Pods on this node by state",
            states.map(|(state, count)| (vec![("endpoint_state", state.clone())], *count as u64)).collect(),
        ),
    ]
}

fn policy(agent: &Agent) -> Vec<Family> {
    let mut identities = BTreeMap::from([("reserved", 0), ("node_local", 0), ("cluster_local", 0)]);
    for identity in agent.control.identity_numbers() {
        let kind = match identity {
            id if id.is_reserved() => "reserved",
            id if id.cluster() == 0 => "node_local",
            _ => "cluster_local",
        };
        *identities.entry(kind).or_default() += 1;
    }
    let mut enforcement = BTreeMap::from([("none", 0), ("ingress", 0), ("egress", 0), ("both", 0)]);
    for endpoint in agent.endpoints() {
        let directions = match (endpoint.status.ingress_enforced, endpoint.status.egress_enforced) {
            (false, false) => "none",
            (true, false) => "ingress",
            (false, true) => "egress",
            (true, true) => "both",
        };
        *enforcement.entry(directions).or_default() += 1;
    }
    let labelled = |label, counts: BTreeMap<&str, u64>| {
        counts.into_iter().map(|(name, count)| (vec![(label, name.to_owned())], count)).collect()
    };
    vec![
        gauge("cilium_identity", "Identities known", labelled("type", identities)),
        gauge("cilium_policy", "Policies in force", one(agent.control.policies().len())),
        gauge(
            "cilium_policy_endpoint_enforcement_status",
            "Pods on this node by the directions that are in default deny",
            labelled("enforcement", enforcement),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::Count;

    #[test]
    fn drops_are_summed_over_workers_and_named_like_ciliums() {
        let workers = [Counters::new(), Counters::new()];
        workers[0].dropped(DropReason::PolicyDenied, Direction::Ingress, 74);
        workers[1].dropped(DropReason::PolicyDenied, Direction::Ingress, 74);
        workers[1].forwarded(Direction::Egress, 60);
        let cached = Totals { egress: Count { packets: 2, bytes: 200 }, ..Totals::default() };
        assert_eq!(
            render(packets(workers.iter(), cached)).unwrap(),
            "# HELP cilium_drop_count Packets dropped\n\
             # TYPE cilium_drop_count counter\n\
             cilium_drop_count_total{reason=\"Policy denied\",direction=\"INGRESS\"} 2\n\
             # HELP cilium_drop_bytes Bytes of packets dropped\n\
             # TYPE cilium_drop_bytes counter\n\
             cilium_drop_bytes_total{reason=\"Policy denied\",direction=\"INGRESS\"} 148\n\
             # HELP cilium_forward_count Packets forwarded\n\
             # TYPE cilium_forward_count counter\n\
             cilium_forward_count_total{direction=\"INGRESS\"} 0\n\
             cilium_forward_count_total{direction=\"EGRESS\"} 3\n\
             # HELP cilium_forward_bytes Bytes of packets forwarded\n\
             # TYPE cilium_forward_bytes counter\n\
             cilium_forward_bytes_total{direction=\"INGRESS\"} 0\n\
             cilium_forward_bytes_total{direction=\"EGRESS\"} 260\n\
             # EOF\n"
        );
    }

    #[test]
    fn labels_are_escaped_and_optional() {
        let families = vec![
            gauge("a", "Help", one(7u8)),
            gauge("b", "Help", vec![(vec![("name", "x\"y".to_owned())], 1)]),
        ];
        assert_eq!(
            render(families).unwrap(),
            "# HELP a Help\n# TYPE a gauge\na 7\n# HELP b Help\n# TYPE b gauge\nb{name=\"x\\\"y\"} 1\n# EOF\n"
        );
    }
}
