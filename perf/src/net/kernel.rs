//! The baselines of the kernel: routing between the same veths, alone or with nftables.

use super::arena::{Arena, Endpoint, Namespaces};
use super::{Load, nft};
use std::net::{Ipv4Addr, Ipv6Addr};
use tests::Host;

/// Link-layer address of all gateways.
const GATEWAY_MAC: &str = "02:00:00:00:00:01";
/// Address of all gateways, as many network plugins have it.
const GATEWAY: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";

/// Two pods of one node.
///
/// # Errors
/// If `nft` refuses the rules.
pub fn same_node(name: &str, nft: Option<Load>) -> Result<Arena, String> {
    let namespaces = Namespaces::new();
    let node = node(&namespaces, "node1");
    let client = pod(&namespaces, &node, "client", Ipv4Addr::new(10, 61, 1, 1))?;
    let server = pod(&namespaces, &node, "server", Ipv4Addr::new(10, 61, 1, 2))?;
    if let Some(load) = nft {
        nft::load(&node, server.ipv4, load)?;
    }
    Ok(Arena { name: name.to_owned(), client, server, kept: Box::new(namespaces) })
}

/// Two pods on two nodes, which are connected by a bridge.
///
/// # Errors
/// If `nft` refuses the rules.
pub fn two_nodes(name: &str, nft: Option<Load>) -> Result<Arena, String> {
    let namespaces = Namespaces::new();
    let fabric = namespaces.host("fabric");
    fabric.ip("link add wire type bridge");
    fabric.ip("link set wire up");
    let nodes = [node(&namespaces, "node1"), node(&namespaces, "node2")];
    for (number, node) in (1..).zip(&nodes) {
        fabric.ip(&format!("link add port{number} type veth peer name eth0 netns {}", node.netns));
        fabric.ip(&format!("link set port{number} master wire up"));
        node.ip("link set eth0 up");
        node.ip(&format!("addr add 10.0.1.{number}/16 dev eth0"));
        let other = 3 - number;
        node.ip(&format!("route add 10.61.{other}.0/24 via 10.0.1.{other}"));
    }
    let client = pod(&namespaces, &nodes[0], "client", Ipv4Addr::new(10, 61, 1, 1))?;
    let server = pod(&namespaces, &nodes[1], "server", Ipv4Addr::new(10, 61, 2, 1))?;
    if let Some(load) = nft {
        nodes.iter().try_for_each(|node| nft::load(node, server.ipv4, load))?;
    }
    Ok(Arena { name: name.to_owned(), client, server, kept: Box::new(namespaces) })
}

fn node(namespaces: &Namespaces, name: &str) -> Host {
    let node = namespaces.host(name);
    node.sysctl("net/ipv4/ip_forward", "1");
    node.sysctl("net/ipv6/conf/all/forwarding", "1");
    // Not looking up the way back is to the kernel's advantage.
    node.sysctl("net/ipv4/conf/all/rp_filter", "0");
    node.sysctl("net/ipv4/conf/default/rp_filter", "0");
    node
}

/// Connects a pod as an agent does: an address of each family, everything by a gateway.
pub(super) fn pod(
    namespaces: &Namespaces,
    node: &Host,
    name: &str,
    ipv4: Ipv4Addr,
) -> Result<Endpoint, String> {
    let ipv6 = Ipv6Addr::new(0xfd00, 0x61, 0, 0, 0, 0, 0, ipv4.to_bits() as u16);
    let host = namespaces.host(name);
    let veth = format!("p-{name}");
    node.ip(&format!("link add {veth} address {GATEWAY_MAC} type veth peer name eth0 netns {}", host.netns));
    node.ip(&format!("addr add {GATEWAY}/32 dev {veth}"));
    node.ip(&format!("addr add {GATEWAY6}/128 dev {veth} nodad"));
    node.ip(&format!("link set {veth} up"));
    node.ip(&format!("route add {ipv4}/32 dev {veth}"));
    node.ip(&format!("route add {ipv6}/128 dev {veth}"));
    host.ip(&format!("addr add {ipv4}/32 dev eth0"));
    host.ip(&format!("addr add {ipv6}/128 dev eth0 nodad"));
    host.ip("link set eth0 up");
    host.ip(&format!("route add {GATEWAY} dev eth0"));
    host.ip(&format!("route add default via {GATEWAY}"));
    host.ip(&format!("route add default via {GATEWAY6} dev eth0"));
    Endpoint::find(host, node.clone(), ipv4, ipv6)
}
