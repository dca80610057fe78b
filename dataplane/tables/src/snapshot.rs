//! One consistent view of everything a packet's verdict depends on.

use crate::{Endpoints, Hops, IpCache, Services};
use wire::{Address, MacAddr};

/// A consistent view of all tables. Cloning shares every part; editing a clone copies only what
/// it touches.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Changes whenever anything changes: verdicts made under another value are to be confirmed.
    pub generation: u32,
    /// Changes whenever a verdict about an existing flow could change: endpoints, identities or
    /// policy. Flows stamped with another value are re-evaluated on their next packet.
    pub policy_generation: u32,
    /// Changes whenever a service or one of its backends changes.
    pub service_generation: u32,
    /// This node.
    pub node: Node,
    /// Local pods.
    pub endpoints: Endpoints,
    /// Address → identity and next hop, longest prefix first.
    pub ipcache: IpCache,
    /// Frontends and their backends.
    pub services: Services,
    /// Nodes that packets can be sent to, with the state of their neighbour entry.
    pub hops: Hops,
}

impl Snapshot {
    /// Whether a verdict about an existing flow may differ from the one under `old`, of which
    /// this is an edited clone.
    pub(crate) fn policy_differs(&self, old: &Snapshot) -> bool {
        !self.endpoints.same(&old.endpoints)
            || !self.ipcache.same_identities(&old.ipcache)
            || self.node != old.node
    }

    /// Whether anything differs from `old`, of which this is an edited clone.
    pub(crate) fn differs(&self, old: &Snapshot) -> bool {
        self.policy_differs(old)
            || !self.ipcache.same(&old.ipcache)
            || !self.services.same(&old.services)
            || !self.hops.same(&old.hops)
    }
}

/// What the packet path has to know of the node it runs on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Addresses of the node itself, gateways included: packets from the host's stack with one
    /// of these sources have identity host, packets to them go to the host's stack.
    pub addresses: Vec<Address>,
    /// What pods use as default gateway, one per family; source of ICMP errors.
    pub gateway_v4: Option<Address>,
    /// IPv6 gateway of the pods.
    pub gateway_v6: Option<Address>,
    /// The gateway's link-layer address on every pod link.
    pub gateway_mac: MacAddr,
    /// MTU of pod links in bytes, Ethernet header not counted.
    pub pod_mtu: u16,
    /// Pod CIDRs of this node as (first address, last address).
    pub pod_ranges: Vec<(Address, Address)>,
    /// Uplinks in the order given on the command line; [`crate::NextHop::uplink`] indexes it.
    pub uplinks: Vec<Uplink>,
    /// Both families are in use: unknown peers are world-ipv4 / world-ipv6 instead of world.
    pub dual_stack: bool,
}

/// An interface that leads to other nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Its link-layer address, source of what we send.
    pub mac: MacAddr,
    /// MTU in bytes, Ethernet header not counted.
    pub mtu: u16,
}
