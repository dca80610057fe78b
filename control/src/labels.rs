//! Security labels and the string form they have in etcd (`cilium-interop` 2.4).

use std::collections::BTreeMap;
use std::fmt;

/// A label set, sorted by key: key → (source, value).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Labels(pub BTreeMap<String, Label>);

/// Source and value of one label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Label {
    /// `k8s`, `reserved`, `cidr`, …; `unspec` if none was given.
    pub source: String,
    /// Value, possibly empty.
    pub value: String,
}

/// The label that names the cluster of a pod.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// The label that names the namespace of a pod.
pub const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Prefix of the labels that repeat the labels of the pod's namespace.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";
/// The label that names the service account of a pod.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";

impl Labels {
    /// Adds or replaces one label.
    pub fn insert(&mut self, source: &str, key: &str, value: &str) {
        self.0.insert(key.into(), Label { source: source.into(), value: value.into() });
    }

    /// Parses the etcd form; never fails (missing parts have defined meanings).
    pub fn parse(text: &str) -> Labels {
        let mut labels = Labels::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (source, rest) = match part.split_once(':') {
                Some((source, rest)) => (source, rest),
                None => match part.strip_prefix('$') {
                    Some(rest) => ("reserved", rest),
                    None => ("unspec", part),
                },
            };
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            labels.insert(source, key, value);
        }
        labels
    }
}

impl fmt::Display for Labels {
    /// The etcd form: `source:key=value;` for each label, sorted by key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, label) in &self.0 {
            write!(f, "{}:{}={};", label.source, key, label.value)?;
        }
        Ok(())
    }
}
