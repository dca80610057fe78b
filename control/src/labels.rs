//! Security labels and the string form they have in etcd (`cilium-interop` 2.4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, iter};

/// Ends each part of a label in [`Labels`].
const END: &str = "\0";

/// A label set, sorted by key: one piece of memory that clones share, as a mesh has very many of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Labels(
    /// Key, source and value of each label, one after the other.
    Arc<str>,
);

/// One label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label<'a> {
    /// Unique in its set.
    pub key: &'a str,
    /// `k8s`, `reserved`, `cidr`, …; `unspec` if none was given.
    pub source: &'a str,
    /// Value, possibly empty.
    pub value: &'a str,
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
    /// All of them, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = Label<'_>> {
        let mut parts = self.0.split_terminator(END);
        iter::from_fn(move || Some(Label { key: parts.next()?, source: parts.next()?, value: parts.next()? }))
    }

    /// The label with this key.
    pub fn get(&self, key: &str) -> Option<Label<'_>> {
        self.iter().find(|label| label.key == key)
    }

    /// Adds or replaces one label.
    pub fn insert(&mut self, source: &str, key: &str, value: &str) {
        *self = self.iter().chain([Label { key, source, value }]).collect();
    }

    /// Parses the etcd form; never fails (missing parts have defined meanings).
    pub fn parse(text: &str) -> Labels {
        let parts = text.split(';').filter(|part| !part.is_empty());
        let label = |part| {
            let (source, rest) = match str::split_once(part, ':') {
                Some((source, rest)) => (source, rest),
                None => match part.strip_prefix('$') {
                    Some(rest) => ("reserved", rest),
                    None => ("unspec", part),
                },
            };
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            Label { key, source, value }
        };
        parts.map(label).collect()
    }
}

impl<'a> FromIterator<Label<'a>> for Labels {
    /// The last label with a key counts. One with a NUL, which Kubernetes knows none of, is left out.
    fn from_iter<T: IntoIterator<Item = Label<'a>>>(labels: T) -> Labels {
        let whole =
            |label: &Label<'_>| ![label.key, label.source, label.value].iter().any(|part| part.contains(END));
        let labels = labels.into_iter().filter(whole).map(|label| (label.key, label));
        let mut text = String::new();
        for Label { key, source, value } in labels.collect::<BTreeMap<_, _>>().into_values() {
            text.extend([key, source, value].into_iter().flat_map(|part| [part, END]));
        }
        Labels(text.into())
    }
}

impl fmt::Display for Labels {
    /// The etcd form: `source:key=value;` for each label, sorted by key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Label { key, source, value } in self.iter() {
            write!(f, "{source}:{key}={value};")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is put in comes out again, as out of a map.
        #[test]
        fn equals_a_map(inserted in prop::collection::vec(("[a-c.]{0,2}", "[a-c]{0,2}", "[=:;a-c]{0,3}"), 0..12)) {
            let (mut labels, mut model) = (Labels::default(), BTreeMap::new());
            for (key, source, value) in &inserted {
                labels.insert(source, key, value);
                model.insert(key.as_str(), (source.as_str(), value.as_str()));
            }
            let flat = |label: Label<'_>| (label.key.to_owned(), label.source.to_owned(), label.value.to_owned());
            let all: Vec<_> = labels.iter().map(flat).collect();
            let wanted: Vec<_> =
                model.iter().map(|(k, (s, v))| ((*k).to_owned(), (*s).to_owned(), (*v).to_owned())).collect();
            prop_assert_eq!(all, wanted);
            for (key, (source, value)) in &model {
                prop_assert_eq!(labels.get(key), Some(Label { key, source, value }));
            }
        }

        /// Any text is a label set that does not change when it is written and read again.
        #[test]
        fn any_text_parses(text in "([a-c$:=;]|\\x00){0,20}") {
            let labels = Labels::parse(&text);
            prop_assert_eq!(Labels::parse(&labels.to_string()), labels);
        }
    }
}
