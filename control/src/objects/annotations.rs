//! What the annotations of a Service say: Cilium's (`cilium-interop` 4.1) and our own.

use super::{Affinity, Invalid, ServiceMesh};
use crate::mesh::config::check_cluster_name;
use std::collections::{BTreeMap, btree_map::Entry};
use std::time::Duration;

const WEIGHTS: &str = "dataplane.io/cluster-weights";
const SHIFT: &str = "dataplane.io/shift-seconds";

/// How long a shift takes unless the Service says otherwise.
const DEFAULT_SHIFT: Duration = Duration::from_secs(30);
const MAX_SHIFT: u16 = 3600;
const MAX_WEIGHT: u16 = 100;

/// Weights of clusters: those that are not named have none, as in Istio's locality distribution, so
/// that what is written adds up whoever joins the mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterWeights(BTreeMap<String, u16>);

impl ClusterWeights {
    /// The weight of a cluster, 0–100.
    pub fn of(&self, cluster: &str) -> u16 {
        self.0.get(cluster).copied().unwrap_or(0)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut weights = BTreeMap::new();
        for part in text.split(',').map(str::trim) {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?}: must be CLUSTER=WEIGHT, as in cluster1=80,cluster2=20"))?;
            let (name, weight) = (name.trim(), weight.trim());
            check_cluster_name(name)?;
            let number = weight.parse::<u16>().ok().filter(|weight| *weight <= MAX_WEIGHT);
            let number = number
                .ok_or_else(|| format!("{weight:?}, the weight of {name}: must be 0 to {MAX_WEIGHT}"))?;
            match weights.entry(name.to_string()) {
                Entry::Vacant(entry) => entry.insert(number),
                Entry::Occupied(_) => return Err(format!("{name} is named twice")),
            };
        }
        match weights.values().any(|weight| *weight > 0) {
            true => Ok(ClusterWeights(weights)),
            false => Err("every weight is 0: name the clusters that are to serve".into()),
        }
    }
}

/// Reads them. What is not global ignores all the others, but they have to be right.
pub(super) fn read(annotations: &BTreeMap<String, String>) -> Result<ServiceMesh, Invalid> {
    // Under their current and their old name; the current one wins.
    let find = |current: &'static str, legacy: &'static str| {
        [current, legacy].into_iter().find_map(|key| Some((key, annotations.get(key)?.as_str())))
    };
    let is_true = |(_, value): (_, &str)| value.eq_ignore_ascii_case("true");
    let mut mesh = ServiceMesh { shift: DEFAULT_SHIFT, ..ServiceMesh::default() };
    for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with("dataplane.io/")) {
        let invalid = |problem: String| Invalid::new(format!("metadata.annotations.{key}"), problem);
        match key.as_str() {
            WEIGHTS => mesh.weights = Some(ClusterWeights::parse(value).map_err(invalid)?),
            SHIFT => {
                let seconds = value.trim().parse::<u16>().ok().filter(|seconds| *seconds <= MAX_SHIFT);
                let seconds = seconds
                    .ok_or_else(|| invalid(format!("{value:?}: must be seconds, 0 to {MAX_SHIFT}")))?;
                mesh.shift = Duration::from_secs(seconds.into());
            }
            _ => return Err(invalid(format!("unknown: must be {WEIGHTS} or {SHIFT}"))),
        }
    }
    if !find("service.cilium.io/global", "io.cilium/global-service").is_some_and(is_true) {
        return Ok(ServiceMesh::default());
    }
    mesh.global = true;
    mesh.shared = find("service.cilium.io/shared", "io.cilium/shared-service").is_none_or(is_true);
    if let Some((key, value)) = find("service.cilium.io/affinity", "io.cilium/service-affinity") {
        mesh.affinity = match value.to_ascii_lowercase().as_str() {
            "none" => Affinity::None,
            "local" => Affinity::Local,
            "remote" => Affinity::Remote,
            _ => {
                let right = "must be none, local or remote; counts as none";
                mesh.warning = Some(format!("{key}: {value:?}: {right}"));
                Affinity::None
            }
        };
    }
    Ok(mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(pairs: &[(&str, &str)]) -> Result<ServiceMesh, String> {
        read(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()).map_err(|e| e.to_string())
    }

    type Pair = (&'static str, &'static str);

    const GLOBAL: Pair = ("service.cilium.io/global", "true");

    /// `cilium-interop` 4.1.
    #[test]
    fn current_names_win_over_old_ones_and_booleans_have_any_case() {
        #[rustfmt::skip]
        let table: [(&[Pair], bool, bool); 9] = [
            (&[], false, false),
            (&[("service.cilium.io/global", "True")], true, true),
            (&[("io.cilium/global-service", "TRUE")], true, true),
            (&[("service.cilium.io/global", "yes")], false, false),
            (&[("service.cilium.io/global", "false"), ("io.cilium/global-service", "true")], false, false),
            (&[GLOBAL, ("service.cilium.io/shared", "no")], true, false),
            (&[GLOBAL, ("io.cilium/shared-service", "false")], true, false),
            (&[GLOBAL, ("service.cilium.io/shared", "true"), ("io.cilium/shared-service", "false")], true, true),
            (&[("service.cilium.io/shared", "true")], false, false),
        ];
        for (given, global, shared) in table {
            let read = mesh(given).unwrap();
            assert_eq!((read.global, read.shared), (global, shared), "{given:?}");
        }
    }

    #[test]
    fn affinity_is_that_of_global_services_and_what_it_may_not_be_counts_as_none() {
        let affinity = |pairs: &[_]| mesh(pairs).map(|mesh| (mesh.affinity, mesh.warning)).unwrap();
        let local = ("service.cilium.io/affinity", "local");
        assert_eq!(affinity(&[local]), (Affinity::None, None));
        assert_eq!(affinity(&[GLOBAL, local]), (Affinity::Local, None));
        assert_eq!(affinity(&[GLOBAL, ("io.cilium/service-affinity", "Remote")]), (Affinity::Remote, None));
        assert_eq!(affinity(&[GLOBAL, local, ("io.cilium/service-affinity", "remote")]).0, Affinity::Local);
        let (wrong, warning) = affinity(&[GLOBAL, ("service.cilium.io/affinity", "nearest")]);
        assert_eq!(wrong, Affinity::None);
        let expected =
            "service.cilium.io/affinity: \"nearest\": must be none, local or remote; counts as none";
        assert_eq!(warning.as_deref(), Some(expected));
    }

    #[test]
    fn weights_and_shifts_are_read_or_refused_by_name() {
        let read = mesh(&[GLOBAL, (WEIGHTS, "cluster1=80, cluster2 = 20"), (SHIFT, "5")]).unwrap();
        let weights = read.weights.unwrap();
        assert_eq!(["cluster1", "cluster2", "cluster3"].map(|name| weights.of(name)), [80, 20, 0]);
        assert_eq!(read.shift, Duration::from_secs(5));
        assert_eq!(mesh(&[GLOBAL]).unwrap().shift, DEFAULT_SHIFT);
        for (key, value, problem) in [
            (WEIGHTS, "", "\"\": must be CLUSTER=WEIGHT"),
            (WEIGHTS, "cluster1:80", "\"cluster1:80\": must be CLUSTER=WEIGHT"),
            (WEIGHTS, "cluster1=80,", "\"\": must be CLUSTER=WEIGHT"),
            (WEIGHTS, "Cluster1=80", "'Cluster1'"),
            (WEIGHTS, "cluster1=101", "\"101\", the weight of cluster1: must be 0 to 100"),
            (WEIGHTS, "cluster1=-1", "\"-1\", the weight of cluster1: must be 0 to 100"),
            (WEIGHTS, "cluster1=0.5", "\"0.5\", the weight of cluster1: must be 0 to 100"),
            (WEIGHTS, "cluster1=1,cluster1=2", "cluster1 is named twice"),
            (WEIGHTS, "cluster1=0,cluster2=0", "every weight is 0"),
            (SHIFT, "30s", "\"30s\": must be seconds, 0 to 3600"),
            (SHIFT, "3601", "\"3601\": must be seconds, 0 to 3600"),
            ("dataplane.io/cluster-weight", "a=1", "unknown: must be dataplane.io/cluster-weights or"),
        ] {
            let error = mesh(&[(key, value)]).unwrap_err();
            assert!(error.contains(problem) && error.contains(key), "{error}");
        }
    }
}
