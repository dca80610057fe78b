//! Label selectors and the scope they get when a policy is read (`cilium-interop` 5.2).

use crate::labels::{CLUSTER, Labels, NAMESPACE, NAMESPACE_LABELS};
use crate::objects::Invalid;
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A conjunction of requirements; the empty one matches everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector(Vec<Requirement>);

/// What one label has to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Requirement {
    /// `None` matches every source.
    source: Option<String>,
    key: String,
    test: Test,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

/// A label selector as written in a manifest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct LabelSelector {
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Expression>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Option<Vec<String>>,
}

static KEY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$").expect("a constant pattern")
});
static VALUE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$").expect("a constant pattern")
});

impl Selector {
    /// Whether labels fulfil all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it can match a pod: no pod has a label of source `reserved`.
    pub(super) fn is_about_pods(&self) -> bool {
        let reserved = |requirement: &Requirement| requirement.source.as_deref() == Some("reserved");
        !self.0.iter().any(|r| reserved(r) && matches!(r.test, Test::In(_) | Test::Exists))
    }

    /// Adds: the label has this value.
    pub fn require(mut self, source: &str, key: &str, value: &str) -> Self {
        self.push(Some(source), key, Test::In(vec![value.into()]));
        self
    }

    /// Adds: the label is there, whatever its value.
    pub fn require_key(mut self, source: &str, key: &str) -> Self {
        self.push(Some(source), key, Test::Exists);
        self
    }

    /// Drops what was required of a key before.
    fn without(mut self, key: &str) -> Self {
        self.0.retain(|requirement| requirement.key != key);
        self
    }

    /// Restricts the subjects of a namespaced policy; what the user said of the namespace is
    /// overridden.
    pub(super) fn in_namespace(self, namespace: &str) -> Self {
        self.without(NAMESPACE).require("k8s", NAMESPACE, namespace)
    }

    /// Adds the default scope of a peer selector: the policy's namespace (`None`: any pod, not
    /// anything else) and the local cluster, unless the selector speaks of them itself.
    pub(super) fn scoped(mut self, namespace: Option<&str>, cluster: &str) -> Self {
        if self.0.iter().any(|r| r.source.as_deref() == Some("reserved")) {
            return self;
        }
        if !self.names(NAMESPACE) {
            self = match namespace.filter(|_| !self.0.iter().any(|r| r.key.starts_with(NAMESPACE_LABELS))) {
                Some(namespace) => self.require("k8s", NAMESPACE, namespace),
                None => self.require_key("k8s", NAMESPACE),
            };
        }
        self.in_cluster_by_default(cluster)
    }

    /// Restricts to one cluster unless the selector speaks of clusters itself.
    pub(super) fn in_cluster_by_default(self, cluster: &str) -> Self {
        if self.names(CLUSTER) { self } else { self.require("k8s", CLUSTER, cluster) }
    }

    fn names(&self, key: &str) -> bool {
        self.0.iter().any(|r| r.key == key && r.source.as_deref().is_none_or(|source| source == "k8s"))
    }

    fn push(&mut self, source: Option<&str>, key: &str, test: Test) {
        self.0.push(Requirement { source: source.map(Into::into), key: key.into(), test });
        // One spelling for equal selectors: they are shared.
        self.0.sort();
        self.0.dedup();
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let source = self.source.as_deref();
        let label = labels.get(&self.key).filter(|label| source.is_none_or(|source| source == label.source));
        match (&self.test, label) {
            (Test::In(values), Some(label)) => values.iter().any(|value| value == label.value),
            (Test::NotIn(values), Some(label)) => values.iter().all(|value| value != label.value),
            (Test::Exists, found) => found.is_some(),
            (Test::DoesNotExist, found) => found.is_none(),
            (Test::In(_), None) => false,
            (Test::NotIn(_), None) => true,
        }
    }
}

/// How the keys of a selector are to be read.
#[derive(Clone, Copy)]
pub(super) enum Keys {
    /// `source:key`, or `key` for any source.
    Cilium,
    /// Labels of pods.
    Pod,
    /// Labels of namespaces.
    Namespace,
}

impl LabelSelector {
    /// Whether it requires nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
            && self.match_expressions.as_ref().is_none_or(Vec::is_empty)
    }

    /// Adds the requirements to `selector`.
    pub(super) fn add_to(&self, mut selector: Selector, keys: Keys) -> Result<Selector, Invalid> {
        for (key, value) in self.match_labels.iter().flatten() {
            let at = |e: Invalid| e.under("matchLabels");
            check_value(value).map_err(|e| e.under(key)).map_err(at)?;
            let (source, key) = split(key, keys).map_err(at)?;
            selector.push(source.as_deref(), &key, Test::In(vec![value.clone()]));
        }
        for (i, expression) in self.match_expressions.iter().flatten().enumerate() {
            let at = |e: Invalid| e.under(&format!("matchExpressions[{i}]"));
            let (source, key) = split(&expression.key, keys).map_err(at)?;
            selector.push(source.as_deref(), &key, expression.test().map_err(at)?);
        }
        Ok(selector)
    }
}

impl Expression {
    fn test(&self) -> Result<Test, Invalid> {
        let mut values = self.values.clone().unwrap_or_default();
        values.sort();
        values.iter().try_for_each(|value| check_value(value).map_err(|e| e.under("values")))?;
        let test = match self.operator.as_str() {
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            other => {
                let problem = format!("{other:?}: must be In, NotIn, Exists or DoesNotExist");
                return Err(Invalid::new("operator", problem));
            }
        };
        let given = self.values.as_ref().is_some_and(|values| !values.is_empty());
        match (&test, given) {
            (Test::In(_) | Test::NotIn(_), false) => {
                Err(Invalid::new("values", format!("empty: {} needs at least one", self.operator)))
            }
            (Test::Exists | Test::DoesNotExist, true) => {
                Err(Invalid::new("values", format!("must be empty with {}", self.operator)))
            }
            _ => Ok(test),
        }
    }
}

fn split(key: &str, keys: Keys) -> Result<(Option<String>, String), Invalid> {
    let (source, name) = match (keys, key.split_once(':')) {
        (Keys::Cilium, Some(("any", name))) => (None, name.to_string()),
        (Keys::Cilium, Some((source, name))) => (Some(source.to_string()), name.to_string()),
        (Keys::Cilium, None) => (None, key.to_string()),
        (Keys::Pod, _) => (Some("k8s".to_string()), key.to_string()),
        (Keys::Namespace, _) => (Some("k8s".to_string()), format!("{NAMESPACE_LABELS}.{key}")),
    };
    if KEY.is_match(&name) {
        Ok((source, name))
    } else {
        Err(Invalid::new(
            "",
            format!("{key:?} is not a label key: [prefix/]name of letters, digits, '-', '_', '.'"),
        ))
    }
}

fn check_value(value: &str) -> Result<(), Invalid> {
    if VALUE.is_match(value) {
        Ok(())
    } else {
        let problem = format!("{value:?} is not a label value: at most 63 letters, digits, '-', '_', '.'");
        Err(Invalid::new("", problem))
    }
}
