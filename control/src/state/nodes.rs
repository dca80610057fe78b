//! Nodes: what their addresses are, and which pod CIDRs are behind them.

use super::{Name, State};
use crate::ipcache::Claim;
use crate::model::NodeView;
use crate::records::{Cidr, Node, NodeAddress};
use ipnet::IpNet;
use std::net::IpAddr;
use wire::Identity;

/// The identity of a node's ingress listener (`cilium-interop` 3.1).
const INGRESS: Identity = Identity(8);

impl State {
    /// Folds the record of a node of any cluster. Its own is known better here.
    pub(super) fn set_node(&mut self, name: Name, node: Option<Node>) {
        if name == (self.own.cluster.clone(), self.own.node.clone()) {
            return;
        }
        if self.nodes.get(&name) == node.as_ref() {
            return;
        }
        let owner = self.store_owner(&name.0, &name.1);
        if let Some(old) = self.nodes.remove(&name) {
            for (address, _) in addresses(&old) {
                self.ipcache.claim(address.into(), owner.clone(), None);
            }
            for cidr in pod_cidrs(&old) {
                self.ipcache.route(cidr, owner.clone(), None);
            }
        }
        let Some(node) = node else { return };
        for (address, identity) in addresses(&node) {
            let claim = Claim { identity, ..Claim::default() };
            self.ipcache.claim(address.into(), owner.clone(), Some(claim));
        }
        for cidr in pod_cidrs(&node) {
            // Packets go to the node's address of the same family if it has one.
            let same = node_address(&node, cidr.addr().is_ipv4());
            let hop = same.or_else(|| node_address(&node, !cidr.addr().is_ipv4()));
            self.ipcache.route(cidr, owner.clone(), hop);
        }
        self.nodes.insert(name, node);
    }

    /// The record of this node.
    pub fn own_node(&self) -> Node {
        let address = |kind: &str, ip: &IpAddr| NodeAddress { kind: kind.into(), ip: ip.to_string() };
        let internal = self.own.addresses.iter().map(|ip| address("InternalIP", ip));
        let gateways = self.own.gateways.iter().map(|ip| address("CiliumInternalIP", ip));
        let of_family = |v4: bool| {
            let mut cidrs = self
                .own
                .pod_cidrs
                .iter()
                .filter(move |cidr| cidr.addr().is_ipv4() == v4)
                .map(|cidr| Cidr::from(*cidr));
            let first = cidrs.next();
            let more: Vec<_> = cidrs.collect();
            (first, (!more.is_empty()).then_some(more))
        };
        let (ipv4_alloc_cidr, ipv4_secondary_alloc_cidrs) = of_family(true);
        let (ipv6_alloc_cidr, ipv6_secondary_alloc_cidrs) = of_family(false);
        Node {
            name: self.own.node.clone(),
            cluster: self.own.cluster.clone(),
            cluster_id: self.own.cluster_id,
            ip_addresses: internal.chain(gateways).collect(),
            ipv4_alloc_cidr,
            ipv4_secondary_alloc_cidrs,
            ipv6_alloc_cidr,
            ipv6_secondary_alloc_cidrs,
            source: "local".into(),
            ..Node::default()
        }
    }

    /// Rows of `node list`.
    pub fn node_views(&self) -> Vec<NodeView> {
        let own = view(&self.own_node(), "local");
        let others = self.nodes.iter().map(|((cluster, _), node)| {
            view(node, if *cluster == self.own.cluster { "kvstore" } else { "clustermesh" })
        });
        let mut views: Vec<_> = std::iter::once(own).chain(others).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }
}

fn view(node: &Node, source: &str) -> NodeView {
    let cidrs = |v4: bool| {
        pod_cidrs(node).filter(move |cidr| cidr.addr().is_ipv4() == v4).map(|cidr| cidr.to_string()).collect()
    };
    NodeView {
        name: format!("{}/{}", node.cluster, node.name),
        ipv4_address: node_address(node, true),
        ipv4_cidrs: cidrs(true),
        ipv6_address: node_address(node, false),
        ipv6_cidrs: cidrs(false),
        source: source.into(),
    }
}

/// The address that packets to a node of this family are sent to (`cilium-interop` 2.3).
fn node_address(node: &Node, v4: bool) -> Option<IpAddr> {
    let rank = |address: &NodeAddress| match address.kind.as_str() {
        "InternalIP" => Some(0),
        "ExternalIP" => Some(1),
        "CiliumInternalIP" => None,
        _ => Some(2),
    };
    let usable = |address: &NodeAddress| Some((rank(address)?, address.ip.parse::<IpAddr>().ok()?));
    let candidates = node.ip_addresses.iter().filter_map(usable).filter(|(_, ip)| ip.is_ipv4() == v4);
    candidates.min_by_key(|(rank, _)| *rank).map(|(_, ip)| ip)
}

/// Every address that the node itself answers on, with the identity behind it.
fn addresses(node: &Node) -> impl Iterator<Item = (IpAddr, Identity)> {
    let own = node.ip_addresses.iter().map(|address| (&address.ip, Identity::REMOTE_NODE));
    let health = [&node.ipv4_health_ip, &node.ipv6_health_ip].map(|ip| (ip, Identity::HEALTH));
    let ingress = [&node.ipv4_ingress_ip, &node.ipv6_ingress_ip].map(|ip| (ip, INGRESS));
    own.chain(health).chain(ingress).filter_map(|(ip, identity)| Some((ip.parse().ok()?, identity)))
}

fn pod_cidrs(node: &Node) -> impl Iterator<Item = IpNet> {
    let secondary = [&node.ipv4_secondary_alloc_cidrs, &node.ipv6_secondary_alloc_cidrs];
    let primary = [&node.ipv4_alloc_cidr, &node.ipv6_alloc_cidr];
    primary.into_iter().flatten().chain(secondary.into_iter().flatten().flatten()).filter_map(Cidr::net)
}
