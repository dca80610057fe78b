//! Metrics of the own store, of remote clusters and of what they told.

use super::{Family, Labels, Value, counter, gauge, one};
use crate::api::model::Status;
use control::mesh::operations::{self, BOUNDS, Durations, Operation};
use control::model::{ControlStatus, RemoteStatus};
use prometheus_client::metrics::MetricType;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn families(status: &Status, now: SystemTime) -> Vec<Family> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut families = clusters(status, now);
    families.extend(stores(&status.cluster_name, &status.control, now));
    families
}

fn clusters(status: &Status, now: u64) -> Vec<Family> {
    let control = &status.control;
    let remotes = |value: &dyn Fn(&RemoteStatus) -> Option<u64>| {
        let named = |remote: &RemoteStatus| vec![("target_cluster", remote.name.clone())];
        control.remotes.iter().filter_map(|remote| Some((named(remote), value(remote)?))).collect::<Vec<_>>()
    };
    vec![
        gauge("cilium_clustermesh_remote_clusters", "Remote clusters configured", one(control.remotes.len())),
        gauge(
            "cilium_clustermesh_remote_cluster_readiness_status",
            "1 if the remote cluster is connected and synchronised",
            remotes(&|remote| Some(remote.ready.into())),
        ),
        gauge(
            "cilium_clustermesh_remote_cluster_nodes",
            "Nodes of the remote cluster",
            remotes(&|remote| remote.num_nodes.try_into().ok()),
        ),
        gauge(
            "cilium_clustermesh_remote_cluster_endpoints",
            "Addresses with an identity in the remote cluster",
            remotes(&|remote| remote.num_endpoints.try_into().ok()),
        ),
        gauge(
            "cilium_clustermesh_remote_cluster_services",
            "Services shared by the remote cluster",
            remotes(&|remote| remote.num_shared_services.try_into().ok()),
        ),
        gauge(
            "cilium_clustermesh_remote_cluster_endpoint_slices",
            "EndpointSlices of the remote cluster, if it exports only these",
            remotes(&|remote| remote.num_endpoint_slices.try_into().ok()),
        ),
        gauge(
            "cilium_clustermesh_remote_cluster_failures",
            "Connections to the remote cluster that failed",
            remotes(&|remote| Some(remote.num_failures)),
        ),
        gauge(
            "cilium_clustermesh_remote_cluster_last_failure_ts",
            "When the last of them failed, seconds since 1970",
            remotes(&|remote| now.checked_sub(remote.last_failure_seconds?)),
        ),
        gauge(
            "cilium_clustermesh_remote_cluster_cache_revocations",
            "How often data of the remote cluster was dropped because it was away for too long",
            remotes(&|remote| Some(remote.num_cache_revocations)),
        ),
        gauge(
            "dataplane_clustermesh_last_contact_seconds",
            "Seconds since all that is known of the remote cluster was last confirmed",
            remotes(&|remote| remote.last_contact_seconds),
        ),
        gauge(
            "dataplane_clustermesh_revision",
            "Newest revision seen of the remote cluster's etcd",
            remotes(&|remote| remote.revision?.try_into().ok()),
        ),
        counter(
            "dataplane_clustermesh_refused_records",
            "Records of the remote cluster that were refused",
            remotes(&|remote| Some(remote.refused)),
        ),
    ]
}

/// The own store, and what all stores have in common.
fn stores(cluster: &str, control: &ControlStatus, now: u64) -> Vec<Family> {
    let own = (cluster, control.kvstore.certificates.as_slice());
    let stores = control.remotes.iter().map(|remote| (remote.name.as_str(), remote.certificates.as_slice()));
    let certificates = std::iter::once(own).chain(stores).flat_map(|(cluster, certificates)| {
        certificates.iter().filter_map(move |certificate| {
            let ends = now.checked_add_signed(certificate.expires_in_seconds)?;
            Some((vec![("cluster", cluster.to_owned()), ("kind", certificate.kind.clone())], ends))
        })
    });
    let repairs = control.remotes.iter().map(|remote| (remote.name.clone(), remote.audit_repairs));
    let repairs = repairs.chain([(cluster.to_owned(), control.kvstore.audit_repairs)]);
    let own = &control.kvstore;
    let read = control.remotes.iter().map(|remote| (remote.name.as_str(), &remote.synced));
    let read = read.chain([(cluster, &own.synced)]).flat_map(|(cluster, kinds)| {
        kinds.iter().map(move |(kind, done)| (labels(kind, cluster, Some("read")), u64::from(*done)))
    });
    let written = own
        .written
        .iter()
        .map(|(kind, written)| (labels(kind, cluster, Some("write")), u64::from(written.complete)));
    let pending = own
        .written
        .iter()
        .map(|(kind, written)| (labels(kind, cluster, None), written.pending.try_into().unwrap_or(u64::MAX)));
    vec![
        gauge(
            "cilium_kvstore_initial_sync_completed",
            "1 if all there is of a kind was read of a cluster, or written for it",
            read.chain(written).collect(),
        ),
        gauge("cilium_kvstore_sync_queue_size", "Keys that wait to be written", pending.collect()),
        counter(
            "cilium_kvstore_sync_errors",
            "Keys that could not be written",
            own.written.keys().map(|kind| write_errors(kind, cluster)).collect(),
        ),
        counter(
            "dataplane_kvstore_audit_repairs",
            "Differences that had to be repaired when everything was listed again",
            repairs.map(|(cluster, count)| (vec![("cluster", cluster)], count)).collect(),
        ),
        gauge(
            "dataplane_kvstore_certificate_expiry_timestamp_seconds",
            "When the client's certificate and the CAs it trusts end, seconds since 1970",
            certificates.collect(),
        ),
        gauge(
            "dataplane_kvstore_connected",
            "1 if the store of this cluster answers",
            one(u8::from(control.kvstore.connected)),
        ),
        gauge(
            "dataplane_kvstore_leader",
            "1 if this agent publishes the services of its cluster",
            one(u8::from(control.kvstore.leader)),
        ),
    ]
}

/// What part of keys a kind is, as Cilium has it.
fn scope(kind: &str) -> String {
    format!("{}/v1", if kind == "endpoints" { "ip" } else { kind })
}

fn labels(kind: &str, cluster: &str, action: Option<&str>) -> Labels {
    let mut labels = vec![("scope", scope(kind)), ("source_cluster", cluster.to_owned())];
    labels.extend(action.map(|action| ("action", action.to_owned())));
    labels
}

/// How often keys of a kind could not be written; only this cluster's store is ever written.
fn write_errors(kind: &str, cluster: &str) -> (Labels, u64) {
    let failed = |operation: &Operation| {
        operation.scope == scope(kind) && operation.kind != "read" && operation.outcome == "fail"
    };
    let all = operations::durations();
    let failed = all.iter().filter(|(operation, _)| failed(operation));
    (labels(kind, cluster, None), failed.map(|(_, durations)| durations.count).sum())
}

fn histogram(durations: &Durations) -> Value {
    let beyond = durations.count - durations.buckets.iter().sum::<u64>();
    let buckets = BOUNDS.into_iter().chain([f64::MAX]);
    let counts = durations.buckets.into_iter().chain([beyond]);
    Value::Histogram(durations.sum.as_secs_f64(), durations.count, buckets.zip(counts).collect())
}

/// What was done with etcds, and what came from them.
pub(super) fn operations() -> [Family; 3] {
    let samples = operations::durations().into_iter().map(|(operation, durations)| {
        let labels = vec![
            ("scope", operation.scope),
            ("kind", operation.kind.to_owned()),
            ("action", operation.action.to_owned()),
            ("outcome", operation.outcome.to_owned()),
        ];
        (labels, histogram(&durations))
    });
    let waits = operations::waits().into_iter().map(|(events, durations)| {
        let labels = vec![("scope", events.scope.to_owned()), ("action", events.action.to_owned())];
        (labels, histogram(&durations))
    });
    let errors = operations::quorum_errors();
    [
        Family {
            name: "cilium_kvstore_events_queue_seconds".into(),
            help: "How long events of etcds waited for room".into(),
            kind: MetricType::Histogram,
            samples: waits.collect(),
        },
        Family {
            name: "cilium_kvstore_operations_duration_seconds".into(),
            help: "How long operations on etcds took".into(),
            kind: MetricType::Histogram,
            samples: samples.collect(),
        },
        counter(
            "cilium_kvstore_quorum_errors",
            "Answers that failed for want of a majority of an etcd's members",
            errors.into_iter().map(|(error, count)| (vec![("error", error.to_owned())], count)).collect(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::model::WrittenStatus;

    #[test]
    fn kinds_are_what_cilium_calls_scopes() {
        let mut control = ControlStatus::default();
        let own = &mut control.kvstore;
        own.synced = [("endpoints".into(), true), ("nodes".into(), false)].into();
        own.written = [("endpoints".into(), WrittenStatus { pending: 3, complete: true })].into();
        let mut remote = RemoteStatus { name: "west".into(), ..RemoteStatus::default() };
        remote.synced = [("services".into(), true)].into();
        control.remotes.push(remote);
        let text = crate::metrics::render(stores("east", &control, 0)).unwrap();
        for line in [
            r#"cilium_kvstore_initial_sync_completed{scope="services/v1",source_cluster="west",action="read"} 1"#,
            r#"cilium_kvstore_initial_sync_completed{scope="ip/v1",source_cluster="east",action="read"} 1"#,
            r#"cilium_kvstore_initial_sync_completed{scope="nodes/v1",source_cluster="east",action="read"} 0"#,
            r#"cilium_kvstore_initial_sync_completed{scope="ip/v1",source_cluster="east",action="write"} 1"#,
            r#"cilium_kvstore_sync_queue_size{scope="ip/v1",source_cluster="east"} 3"#,
            r#"cilium_kvstore_sync_errors_total{scope="ip/v1",source_cluster="east"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
