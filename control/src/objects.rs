//! Kubernetes objects as far as we need them, validated; and the stream they arrive by.
//!
//! A source of objects (a directory of manifests; later Kubernetes itself) sends
//! [`ObjectEvent`]s and knows nothing of what becomes of them.

use crate::model::ManifestError;
use crate::policy::{PolicyKind, PolicyObject};
use crate::records::Zone;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use wire::Protocol;

mod annotations;
mod convert;
pub use annotations::ClusterWeights;
pub(crate) use convert::{key_of, protocol, typed};

/// What a source of objects reports.
#[derive(Clone, Debug)]
pub enum ObjectEvent {
    /// An object appeared or changed.
    Upsert {
        /// The object.
        object: Object,
        /// Where it was read from, as shown to people.
        source: String,
    },
    /// An object went.
    Delete(ObjectKey),
    /// Everything that is wrong with the source now; replaces the list given before.
    Errors(Vec<ManifestError>),
    /// The first complete view is in.
    Synced,
}

/// Names an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey {
    /// Kind, `NetworkPolicy`.
    pub kind: &'static str,
    /// Namespace; empty if the kind has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{separator}{}", self.kind, self.namespace, self.name)
    }
}

/// An object that control understands.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// Its labels become identity labels.
    Namespace(Namespace),
    /// Adds what a local endpoint was not told when it was made.
    Pod(Pod),
    /// A service.
    Service(Service),
    /// Backends of a service.
    EndpointSlice(EndpointSlice),
    /// A policy of any kind.
    Policy(PolicyObject),
}

impl Object {
    /// Its name.
    pub fn key(&self) -> ObjectKey {
        let (kind, namespace, name) = match self {
            Object::Namespace(object) => ("Namespace", "", &object.name),
            Object::Pod(object) => ("Pod", &*object.namespace, &object.name),
            Object::Service(object) => ("Service", &*object.namespace, &object.name),
            Object::EndpointSlice(object) => ("EndpointSlice", &*object.namespace, &object.name),
            Object::Policy(object) => (object.kind.name(), &*object.namespace, &object.name),
        };
        ObjectKey { kind, namespace: namespace.into(), name: name.clone() }
    }
}

/// The kinds we understand, by the name they have in manifests.
pub(crate) const KINDS: [&str; 7] = [
    "Namespace",
    "Pod",
    "Service",
    "EndpointSlice",
    PolicyKind::Kubernetes.name(),
    PolicyKind::Cilium.name(),
    PolicyKind::CiliumClusterwide.name(),
];

/// A namespace.
#[derive(Clone, PartialEq, Debug)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Labels, the automatic `kubernetes.io/metadata.name` included.
    pub labels: BTreeMap<String, String>,
}

/// A pod.
#[derive(Clone, PartialEq, Debug)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account.
    pub service_account: Option<String>,
    /// Container ports that have names.
    pub named_ports: Vec<crate::records::NamedPort>,
}

/// A service.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Pod labels of its backends; empty if slices name them.
    pub selector: BTreeMap<String, String>,
    /// ClusterIPs; none if headless.
    pub cluster_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Its part in the mesh.
    pub mesh: ServiceMesh,
}

/// What a service shares with others of its name in other clusters.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServiceMesh {
    /// Merged with the services of this name in other clusters. All else is for global ones only.
    pub global: bool,
    /// Its backends are offered to other clusters.
    pub shared: bool,
    /// Which backends are preferred.
    pub affinity: Affinity,
    /// How new flows are divided among clusters; `None`: evenly among backends.
    pub weights: Option<ClusterWeights>,
    /// How long a cluster that begins to serve it takes until it gets all of its share.
    pub shift: Duration,
    /// An annotation that is wrong but not refused, and what it counts as.
    pub warning: Option<String>,
}

/// A port of a service.
#[derive(Clone, PartialEq, Debug)]
pub struct ServicePort {
    /// Name; empty if it is the only one.
    pub name: String,
    /// Protocol.
    pub proto: Protocol,
    /// Port of the frontend.
    pub port: u16,
    /// Port of the backends that the selector finds.
    pub target: TargetPort,
}

/// The port that a selected pod serves on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The container port of this name.
    Name(String),
}

/// Which backends of a global service get new flows (`cilium-interop` 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Affinity {
    /// All.
    #[default]
    None,
    /// Those of this cluster while there are any.
    Local,
    /// Those of other clusters while there are any.
    Remote,
}

/// Some of the backends of a service.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointSlice {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The service they belong to.
    pub service: String,
    /// What is at each address.
    pub endpoints: BTreeMap<IpAddr, SliceEndpoint>,
    /// Port name → port.
    pub ports: BTreeSet<(String, Protocol, u16)>,
}

/// An endpoint of a slice.
#[derive(Clone, PartialEq, Debug)]
pub struct SliceEndpoint {
    /// Whether it takes flows.
    pub state: Readiness,
    /// Its host name below that of the service.
    pub hostname: Option<String>,
    /// The zone it is in, and those that should use it.
    pub zone: Option<Zone>,
}

/// Whether a backend takes flows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Readiness {
    /// New ones too.
    Ready,
    /// It is on its way out and only keeps those it has.
    Terminating,
    /// None.
    NotReady,
}

/// What is wrong with an object: the field, its value and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Invalid {
    field: String,
    problem: String,
}

impl Invalid {
    /// A problem with one field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Invalid { field: field.into(), problem: problem.into() }
    }

    /// The same problem, seen from the object that has the field inside `parent`.
    pub fn under(mut self, parent: &str) -> Self {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{parent}{dot}{}", self.field);
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.field.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", self.field, self.problem)
    }
}

/// Applies `convert` to every element and says which one was wrong.
pub(crate) fn each<T, U>(
    field: &str,
    items: &[T],
    mut convert: impl FnMut(usize, &T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    let one = |(i, item)| convert(i, item).map_err(|e: Invalid| e.under(&format!("{field}[{i}]")));
    items.iter().enumerate().map(one).collect()
}
