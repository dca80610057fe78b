//! What the mesh reports: typed changes, already validated against the cluster they came from.

use crate::labels::Labels;
use crate::records;
use ipnet::IpNet;
use wire::Identity;

/// One change in the store of one cluster (the own one included).
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "moved one at a time, and most are records of some size")]
pub enum Update {
    /// Another cluster has this number. Said before anything else of it, and again only when nothing of
    /// it is left: cluster name, number.
    Cluster(String, u32),
    /// A node appeared or changed.
    NodeUpsert(records::Node),
    /// A node went: cluster name, node name.
    NodeDelete(String, String),
    /// An identity appeared or changed its labels.
    IdentityUpsert(Identity, Labels),
    /// An identity went.
    IdentityDelete(Identity),
    /// An address or prefix got an identity: cluster name, prefix, record.
    IpUpsert(String, IpNet, records::IpIdentity),
    /// It went: cluster name, prefix.
    IpDelete(String, IpNet),
    /// A cluster exports a service, or its backends changed.
    ServiceUpsert(records::Service),
    /// It stopped: cluster, namespace, name.
    ServiceDelete(String, String, String),
    /// All of a remote cluster's services are to be left out of load balancing (its store has
    /// been unreachable for too long) or to be used again.
    ClusterServices {
        /// Cluster name.
        cluster: String,
        /// Leave out, unless no other backend is left.
        stale: bool,
    },
    /// All that an earlier run of this agent knew and that is still of use is in.
    Restored,
    /// The first complete view of a cluster (or of the own store) is in.
    Synced(String),
}
