//! Key names ↔ typed keys (`cilium-interop` 2.1). The only file that knows paths.

use crate::records::Capabilities;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use wire::Identity;

/// Written each minute by whoever publishes a cluster.
pub(crate) const HEARTBEAT: &str = "cilium/.heartbeat";
/// Every cluster says here what it is.
pub(crate) const CLUSTER_CONFIGS: &str = "cilium/cluster-config/";

/// What a cluster tells of itself, in the order in which it is written and best read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Nodes,
    Identities,
    Ips,
    Services,
    /// What some clusters export instead of services.
    EndpointSlices,
}

impl Kind {
    /// What every cluster is known by.
    pub(crate) const ALL: [Kind; 4] = [Kind::Nodes, Kind::Identities, Kind::Ips, Kind::Services];

    /// As in `clustermesh status`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Nodes => "nodes",
            Kind::Identities => "identities",
            Kind::Ips => "endpoints",
            Kind::Services => "services",
            Kind::EndpointSlices => "endpoint-slices",
        }
    }

    /// The form in which a cluster offers its services.
    pub(crate) fn services_of(can: &Capabilities) -> Kind {
        match can.endpoint_slices_export_mode.as_str() {
            "endpointslices-only" => Kind::EndpointSlices,
            _ => Kind::Services,
        }
    }

    /// The other form of services, if this is one.
    pub(crate) fn other_form(self) -> Option<Kind> {
        match self {
            Kind::Services => Some(Kind::EndpointSlices),
            Kind::EndpointSlices => Some(Kind::Services),
            _ => None,
        }
    }

    /// As a part of keys.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Nodes => "nodes/v1",
            Kind::Identities => "identities/v1",
            Kind::Ips => "ip/v1",
            Kind::Services => "services/v1",
            Kind::EndpointSlices => "endpointslices/v1",
        }
    }
}

/// Where the data of a cluster lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
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
pub(crate) enum Name {
    Node(String),
    Identity(Identity),
    Ip(IpNet),
    /// Namespace and name.
    Service(String, String),
    /// Namespace and name.
    EndpointSlice(String, String),
}

impl Name {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Name::Node(_) => Kind::Nodes,
            Name::Identity(_) => Kind::Identities,
            Name::Ip(_) => Kind::Ips,
            Name::Service(..) => Kind::Services,
            Name::EndpointSlice(..) => Kind::EndpointSlices,
        }
    }
}

/// What [`parse`] reads.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Node(name) => f.write_str(name),
            Name::Identity(id) => id.0.fmt(f),
            Name::Ip(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Name::Ip(net) => net.fmt(f),
            Name::Service(namespace, name) | Name::EndpointSlice(namespace, name) => {
                write!(f, "{namespace}/{name}")
            }
        }
    }
}

/// The prefix of one kind, with its trailing `/`.
pub(crate) fn prefix(kind: Kind, layout: Layout, cluster: &str) -> String {
    let base = format!("{}/{}", layout.root(), kind.path());
    match (kind, layout) {
        (Kind::Identities, Layout::State) => format!("{base}/id/"),
        (Kind::Identities, Layout::Cache) => format!("{base}/{cluster}/id/"),
        (Kind::Ips, Layout::State) => format!("{base}/default/"),
        _ => format!("{base}/{cluster}/"),
    }
}

/// Present once a cluster has written all it had of one kind.
pub(crate) fn canary(cluster: &str, kind: Kind, layout: Layout) -> String {
    format!("{}{}/{}", canaries(cluster), layout.root(), kind.path())
}

/// Prefix of all canaries of a cluster.
pub(crate) fn canaries(cluster: &str) -> String {
    format!("cilium/synced/{cluster}/")
}

/// What a cluster says of itself.
pub(crate) fn cluster_config(cluster: &str) -> String {
    format!("{CLUSTER_CONFIGS}{cluster}")
}

/// Held by the agent that publishes for its cluster.
pub(crate) fn leader(cluster: &str) -> String {
    format!("cilium/.dataplane/{cluster}/leader")
}

/// The label set of an identity; created once, never bound to a lease.
pub(crate) fn identity(id: Identity) -> String {
    format!("cilium/state/identities/v1/id/{}", id.0)
}

/// Prefix of all uses of all label sets.
pub(crate) const IDENTITY_USES: &str = "cilium/state/identities/v1/value/";

/// Prefix of all uses of a label set, one key per node. Other label sets may lie below it.
pub(crate) fn identity_uses(labels: &str) -> String {
    format!("{IDENTITY_USES}{labels}/")
}

/// Use of a label set by the node with this address.
pub(crate) fn identity_use(labels: &str, address: &str) -> String {
    format!("{}{address}", identity_uses(labels))
}

/// Prefix of all locks over label sets.
pub(crate) const IDENTITY_LOCKS: &str = "cilium/state/identities/v1/locks/";

/// Lock over a label set.
pub(crate) fn identity_lock(labels: &str) -> String {
    format!("{IDENTITY_LOCKS}{labels}")
}

/// Typed form of what follows the prefix of its kind in a key.
pub(crate) fn parse(kind: Kind, name: &str) -> Result<Name, String> {
    let (parsed, right) = match kind {
        Kind::Nodes => (parse_node(name).map(Name::Node), "a node name"),
        Kind::Identities => (name.parse().ok().map(|id| Name::Identity(Identity(id))), "a decimal number"),
        Kind::Ips => (parse_ip(name).map(Name::Ip), "an address or a prefix as Go writes them"),
        Kind::Services => (parse_pair(name).map(|(of, name)| Name::Service(of, name)), "NAMESPACE/NAME"),
        Kind::EndpointSlices => {
            (parse_pair(name).map(|(of, name)| Name::EndpointSlice(of, name)), "NAMESPACE/NAME")
        }
    };
    // Of two keys that mean the same, the end of one would be taken for the end of both.
    let parsed = parsed.filter(|parsed| parsed.to_string() == name);
    parsed.ok_or_else(|| format!("key name '{name}' is not {right}"))
}

fn parse_node(name: &str) -> Option<String> {
    (!name.is_empty() && !name.contains('/')).then(|| name.into())
}

fn parse_pair(name: &str) -> Option<(String, String)> {
    let (namespace, name) = name.split_once('/')?;
    let whole = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    whole.then(|| (namespace.into(), name.into()))
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
            (
                Kind::EndpointSlices,
                "cilium/state/endpointslices/v1/alpha/",
                "cilium/cache/endpointslices/v1/alpha/",
            ),
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
        let slice = Name::EndpointSlice("shop".into(), "web-v4".into());
        assert_eq!(parse(Kind::EndpointSlices, "shop/web-v4"), Ok(slice));
        let bad = [
            (Kind::Nodes, "a/b"),
            (Kind::Identities, "x"),
            (Kind::Identities, "4294967296"),
            (Kind::Ips, "10.7.1"),
            (Kind::Ips, "10.0.0.0/33"),
            (Kind::Services, "web"),
            (Kind::Services, "a/b/c"),
            (Kind::EndpointSlices, "web-v4"),
            (Kind::Identities, "0458753"),
            (Kind::Ips, "FD00::1"),
            (Kind::Ips, "10.7.1.31/32"),
        ];
        for (kind, name) in bad {
            assert!(parse(kind, name).unwrap_err().contains(name), "{name}");
        }
    }
}
