//! Key names ↔ typed keys (`cilium-interop` 2.1). The only file that knows paths.

use ipnet::IpNet;
use std::net::IpAddr;
use wire::Identity;

/// Written each minute by whoever publishes a cluster.
pub(super) const HEARTBEAT: &str = "cilium/.heartbeat";
/// Every cluster says here what it is.
pub(super) const CLUSTER_CONFIGS: &str = "cilium/cluster-config/";

/// What a cluster tells of itself, in the order in which it is written and best read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Nodes,
    Identities,
    Ips,
    Services,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Nodes, Kind::Identities, Kind::Ips, Kind::Services];

    /// As in `clustermesh status`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Nodes => "nodes",
            Kind::Identities => "identities",
            Kind::Ips => "endpoints",
            Kind::Services => "services",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Kind::Nodes => "nodes/v1",
            Kind::Identities => "identities/v1",
            Kind::Ips => "ip/v1",
            Kind::Services => "services/v1",
        }
    }
}

/// Where the data of a cluster lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In its own etcd.
    State,
    /// In a mirror written by kvstoremesh.
    Cache,
}

impl Layout {
    fn root(self) -> &'static str {
        match self {
            Layout::State => "cilium/state",
            Layout::Cache => "cilium/cache",
        }
    }
}

/// What a key below the prefix of its kind is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Node(String),
    Identity(Identity),
    Ip(IpNet),
    /// Namespace and name.
    Service(String, String),
}

impl Name {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Name::Node(_) => Kind::Nodes,
            Name::Identity(_) => Kind::Identities,
            Name::Ip(_) => Kind::Ips,
            Name::Service(..) => Kind::Services,
        }
    }
}

/// The prefix of one kind, with its trailing `/`.
pub(super) fn prefix(kind: Kind, layout: Layout, cluster: &str) -> String {
    let base = format!("{}/{}", layout.root(), kind.path());
    match (kind, layout) {
        (Kind::Identities, Layout::State) => format!("{base}/id/"),
        (Kind::Identities, Layout::Cache) => format!("{base}/{cluster}/id/"),
        (Kind::Ips, Layout::State) => format!("{base}/default/"),
        _ => format!("{base}/{cluster}/"),
    }
}

/// Present once a cluster has written all it had of one kind.
pub(super) fn canary(cluster: &str, kind: Kind, layout: Layout) -> String {
    format!("{}{}/{}", canaries(cluster), layout.root(), kind.path())
}

/// Prefix of all canaries of a cluster.
pub(super) fn canaries(cluster: &str) -> String {
    format!("cilium/synced/{cluster}/")
}

/// What a cluster says of itself.
pub(super) fn cluster_config(cluster: &str) -> String {
    format!("{CLUSTER_CONFIGS}{cluster}")
}

/// Held by the agent that publishes for its cluster.
pub(super) fn leader(cluster: &str) -> String {
    format!("cilium/.dataplane/{cluster}/leader")
}

/// The label set of an identity; created once, never bound to a lease.
pub(super) fn identity(id: Identity) -> String {
    format!("cilium/state/identities/v1/id/{}", id.0)
}

/// Prefix of all uses of all label sets.
pub(super) const IDENTITY_USES: &str = "cilium/state/identities/v1/value/";

/// Prefix of all uses of a label set, one key per node. Other label sets may lie below it.
pub(super) fn identity_uses(labels: &str) -> String {
    format!("{IDENTITY_USES}{labels}/")
}

/// This node's use of a label set.
pub(super) fn identity_use(labels: &str, node: &str) -> String {
    format!("{}{node}", identity_uses(labels))
}

/// Lock over a label set.
pub(super) fn identity_lock(labels: &str) -> String {
    format!("cilium/state/identities/v1/locks/{labels}")
}

/// Typed form of what follows the prefix of its kind in a key.
pub(super) fn parse(kind: Kind, name: &str) -> Result<Name, String> {
    let wrong = |right: &str| format!("key name '{name}' is not {right}");
    match kind {
        Kind::Nodes if name.is_empty() || name.contains('/') => Err(wrong("a node name")),
        Kind::Nodes => Ok(Name::Node(name.into())),
        Kind::Identities => {
            name.parse().map(|id| Name::Identity(Identity(id))).map_err(|_| wrong("a decimal number"))
        }
        Kind::Ips => parse_ip(name).map(Name::Ip).ok_or_else(|| wrong("an address or a prefix")),
        Kind::Services => match name.split_once('/') {
            Some((namespace, service))
                if !namespace.is_empty() && !service.is_empty() && !service.contains('/') =>
            {
                Ok(Name::Service(namespace.into(), service.into()))
            }
            _ => Err(wrong("NAMESPACE/NAME")),
        },
    }
}

fn parse_ip(name: &str) -> Option<IpNet> {
    match name.contains('/') {
        true => name.parse().ok(),
        false => name.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_both_layouts() {
        let table = [
            (Kind::Nodes, "cilium/state/nodes/v1/alpha/", "cilium/cache/nodes/v1/alpha/"),
            (Kind::Identities, "cilium/state/identities/v1/id/", "cilium/cache/identities/v1/alpha/id/"),
            (Kind::Ips, "cilium/state/ip/v1/default/", "cilium/cache/ip/v1/alpha/"),
            (Kind::Services, "cilium/state/services/v1/alpha/", "cilium/cache/services/v1/alpha/"),
        ];
        for (kind, state, cache) in table {
            assert_eq!(prefix(kind, Layout::State, "alpha"), state);
            assert_eq!(prefix(kind, Layout::Cache, "alpha"), cache);
        }
        assert_eq!(
            canary("alpha", Kind::Identities, Layout::Cache),
            "cilium/synced/alpha/cilium/cache/identities/v1"
        );
    }

    #[test]
    fn names_parse_by_kind() {
        assert_eq!(parse(Kind::Nodes, "n1"), Ok(Name::Node("n1".into())));
        assert_eq!(parse(Kind::Identities, "458753"), Ok(Name::Identity(Identity(458753))));
        assert_eq!(parse(Kind::Ips, "10.7.1.31"), Ok(Name::Ip("10.7.1.31/32".parse().unwrap())));
        assert_eq!(parse(Kind::Ips, "fd00::/64"), Ok(Name::Ip("fd00::/64".parse().unwrap())));
        assert_eq!(parse(Kind::Services, "shop/web"), Ok(Name::Service("shop".into(), "web".into())));
        let bad = [
            (Kind::Nodes, "a/b"),
            (Kind::Identities, "x"),
            (Kind::Identities, "4294967296"),
            (Kind::Ips, "10.7.1"),
            (Kind::Ips, "10.0.0.0/33"),
            (Kind::Services, "web"),
            (Kind::Services, "a/b/c"),
        ];
        for (kind, name) in bad {
            assert!(parse(kind, name).unwrap_err().contains(name), "{name}");
        }
    }
}
