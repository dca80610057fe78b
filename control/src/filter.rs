//! Which labels of a pod make up its identity (`cilium-interop` 3.3 and 3.4).

use crate::labels::{CLUSTER, Labels, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Cilium's default patterns; they match from the start of the key.
const IGNORED: &[&str] = &[
    r"io\.kubernetes",
    r"kubernetes\.io",
    r"statefulset\.kubernetes\.io/pod-name",
    r"apps\.kubernetes\.io/pod-index",
    r"batch\.kubernetes\.io/job-completion-index",
    r"batch\.kubernetes\.io/controller-uid",
    r".*beta\.kubernetes\.io",
    r"k8s\.io",
    r"pod-template-generation",
    r"pod-template-hash",
    r"controller-revision-hash",
    r"controller-uid",
    r"annotation.*",
    r"etcd_node",
    r"topology\.kubernetes\.io",
];
const INCLUDED: &[&str] = &[
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
];
/// Keys that only the agent may set.
const INTERNAL: &str = "io.cilium.k8s.";

static PATTERNS: LazyLock<(Vec<Regex>, Vec<Regex>)> =
    LazyLock::new(|| (anchored(IGNORED), anchored(INCLUDED)));

fn anchored(patterns: &[&str]) -> Vec<Regex> {
    patterns
        .iter()
        .map(|pattern| Regex::new(&format!("^(?:{pattern})")).expect("a constant pattern"))
        .collect()
}

/// Whether a label with this key is part of an identity: the longest include pattern must be
/// longer than the shortest ignore pattern, if one matches at all.
pub fn relevant(key: &str) -> bool {
    let (ignored, included) = &*PATTERNS;
    let length = |pattern: &Regex| pattern.find(key).map(|found| found.len());
    match ignored.iter().filter_map(length).min() {
        None => true,
        Some(ignore) => included.iter().filter_map(length).max().is_some_and(|include| include > ignore),
    }
}

/// The identity labels of a pod.
pub fn identity_labels(
    cluster: &str,
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    service_account: Option<&str>,
    pod_labels: &BTreeMap<String, String>,
) -> Labels {
    let mut labels = Labels::default();
    for (key, value) in pod_labels.iter().filter(|(key, _)| !key.starts_with(INTERNAL)) {
        labels.insert("k8s", key, value);
    }
    labels.insert("k8s", NAMESPACE, namespace);
    for (key, value) in namespace_labels {
        labels.insert("k8s", &format!("{NAMESPACE_LABELS}.{key}"), value);
    }
    if let Some(account) = service_account {
        labels.insert("k8s", SERVICE_ACCOUNT, account);
    }
    labels.insert("k8s", CLUSTER, cluster);
    labels.iter().filter(|label| relevant(label.key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn default_filter() {
        for key in [
            "app",
            "app.kubernetes.io/name",
            "io.kubernetes.pod.namespace",
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            "io.cilium.k8s.policy.cluster",
            "example.com/kubernetes.io",
        ] {
            assert!(relevant(key), "{key}");
        }
        for key in [
            "io.kubernetes.other",
            "kubernetes.io/hostname",
            "statefulset.kubernetes.io/pod-name",
            "pod-template-hash",
            "beta.kubernetes.io/arch",
            "failure-domain.beta.kubernetes.io/zone",
            "annotation.x",
            "topology.kubernetes.io/zone",
        ] {
            assert!(!relevant(key), "{key}");
        }
    }

    #[test]
    fn labels_of_a_pod_are_those_of_the_reference() {
        let pod = map(&[
            ("app", "web"),
            ("pod-template-hash", "5d9c"),
            ("io.cilium.k8s.policy.cluster", "forged"),
            ("io.kubernetes.pod.namespace", "forged"),
        ]);
        let namespace = map(&[("kubernetes.io/metadata.name", "shop")]);
        let labels = identity_labels("cluster3", "shop", &namespace, Some("default"), &pod);
        assert_eq!(
            labels.to_string(),
            "k8s:app=web;k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop;\
             k8s:io.cilium.k8s.policy.cluster=cluster3;k8s:io.cilium.k8s.policy.serviceaccount=default;\
             k8s:io.kubernetes.pod.namespace=shop;"
        );
    }
}
