//! Metrics of the own store, of remote clusters and of what they told.

use super::{Family, Labels, Value, counter, gauge, one};
use crate::api::model::Status;
use control::mesh::operations::{self, BOUNDS, Durations};
use control::model::RemoteStatus;
use prometheus_client::metrics::MetricType;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn families(status: &Status, now: SystemTime) -> Vec<Family> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut families = clusters(status, now);
    families.extend(stores(status, now));
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
            "Seconds since the remote cluster's etcd last answered",
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
fn stores(status: &Status, now: u64) -> Vec<Family> {
    let control = &status.control;
    let own = (status.cluster_name.as_str(), control.kvstore.certificates.as_slice());
    let stores = control.remotes.iter().map(|remote| (remote.name.as_str(), remote.certificates.as_slice()));
    let certificates = std::iter::once(own).chain(stores).flat_map(|(cluster, certificates)| {
        certificates.iter().filter_map(move |certificate| {
            let ends = now.checked_add_signed(certificate.expires_in_seconds)?;
            Some((vec![("cluster", cluster.to_owned()), ("kind", certificate.kind.clone())], ends))
        })
    });
    let repairs = control.remotes.iter().map(|remote| (remote.name.clone(), remote.audit_repairs));
    let repairs = repairs.chain([(status.cluster_name.clone(), control.kvstore.audit_repairs)]);
    vec![
        gauge(
            "cilium_kvstore_initial_sync_completed",
            "1 if all there is of a kind is known of a cluster",
            control.remotes.iter().flat_map(synced).collect(),
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

/// Which kinds are known of a cluster, by Cilium's labels.
fn synced(remote: &RemoteStatus) -> impl Iterator<Item = (Labels, u64)> + '_ {
    remote.synced.iter().map(|(kind, synced)| {
        let labels = vec![
            ("scope", kind.clone()),
            ("source_cluster", remote.name.clone()),
            ("action", "read".to_owned()),
        ];
        (labels, u64::from(*synced))
    })
}

/// What was done with etcds.
pub(super) fn operations() -> [Family; 2] {
    let histogram = |durations: &Durations| {
        let beyond = durations.count - durations.buckets.iter().sum::<u64>();
        let buckets = BOUNDS.into_iter().chain([f64::MAX]);
        let counts = durations.buckets.into_iter().chain([beyond]);
        Value::Histogram(durations.sum.as_secs_f64(), durations.count, buckets.zip(counts).collect())
    };
    let samples = operations::durations().into_iter().map(|(operation, durations)| {
        let labels = vec![
            ("scope", operation.scope),
            ("kind", operation.kind.to_owned()),
            ("action", operation.action.to_owned()),
            ("outcome", operation.outcome.to_owned()),
        ];
        (labels, histogram(&durations))
    });
    let errors = operations::quorum_errors();
    [
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
