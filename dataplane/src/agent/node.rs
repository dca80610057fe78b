//! This node as the tables describe it: its addresses, uplinks and pods' gateways.

use super::{Config, Error};
use crate::net::GATEWAY_MAC;
use crate::net::links::{Link, LinkAddress, Links};
use ipnet::IpNet;
use std::net::IpAddr;
use tables::{Node, Uplink};
use wire::{Address, MacAddr};

/// MTU of pods on a node without uplinks, in bytes.
const DEFAULT_MTU: u16 = 1500;
/// Least MTU of a link that carries IPv6 (RFC 8200 §5), in bytes.
const LEAST_MTU: u16 = 1280;

/// What does not change about this node while the agent runs.
#[derive(Clone, Debug)]
pub(super) struct NodeSpec {
    /// Name.
    pub(super) name: String,
    /// Addresses that other nodes reach it by, IPv4 first.
    pub(super) addresses: Vec<IpAddr>,
    /// Uplinks as given.
    pub(super) uplinks: Vec<String>,
    /// MTU of hub and pods: the least one of the uplinks.
    pub(super) mtu: u16,
    /// Pod CIDRs, each with its gateway.
    pub(super) pods: Vec<(IpNet, IpAddr)>,
}

/// Fills in what the command line left open, and checks it against the machine.
pub(super) async fn discover(
    config: &Config,
    links: &Links,
    pods: Vec<(IpNet, IpAddr)>,
) -> Result<NodeSpec, Error> {
    let uplinks = uplinks(links, &config.uplinks).await?;
    let mtu = uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(DEFAULT_MTU);
    let addresses = node_addresses(config, &links.addresses().await?, &uplinks)?;
    if let Some((ip, (cidr, _))) = addresses
        .iter()
        .flat_map(|ip| pods.iter().map(move |pod| (ip, pod)))
        .find(|(ip, (cidr, _))| cidr.contains(*ip))
    {
        return Err(Error::new(format!(
            "node address {ip}: is inside pod CIDR {cidr}: they must not overlap"
        )));
    }
    let name = match &config.node_name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()
            .map_err(|e| Error::new(format!("host name: {e}: give --node-name")))?
            .to_string_lossy()
            .into_owned(),
    };
    Ok(NodeSpec { name, addresses, uplinks: config.uplinks.clone(), mtu, pods })
}

/// The node for the tables, as links and addresses are now.
pub(super) async fn describe(spec: &NodeSpec, links: &Links) -> Result<Node, Error> {
    let global =
        links.addresses().await?.into_iter().filter(|address| address.global).map(|address| address.ip);
    let gateways = || spec.pods.iter().map(|&(_, gateway)| gateway);
    let mut addresses: Vec<Address> =
        spec.addresses.iter().copied().chain(gateways()).chain(global).map(Address::from).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let gateway_of = |v4: bool| gateways().find(|gateway| gateway.is_ipv4() == v4).map(Address::from);
    let (gateway_v4, gateway_v6) = (gateway_of(true), gateway_of(false));
    Ok(Node {
        addresses,
        gateway_v4,
        gateway_v6,
        gateway_mac: GATEWAY_MAC,
        pod_mtu: spec.mtu,
        pod_ranges: spec.pods.iter().map(|(cidr, _)| range(cidr)).collect(),
        uplinks: uplinks(links, &spec.uplinks).await?,
        dual_stack: gateway_v4.is_some() && gateway_v6.is_some(),
    })
}

/// First and last address of a CIDR.
fn range(cidr: &IpNet) -> (Address, Address) {
    (cidr.network().into(), cidr.broadcast().into())
}

async fn uplinks(links: &Links, names: &[String]) -> Result<Vec<Uplink>, Error> {
    let mut uplinks: Vec<Uplink> = Vec::new();
    for name in names {
        let Some(link) = links.by_name(name).await? else {
            let all: Vec<_> = links.all().await?.into_iter().map(|link| link.name).collect();
            return Err(Error::new(format!(
                "uplink {name}: no such interface: there are {}",
                all.join(", ")
            )));
        };
        if uplinks.iter().any(|other| other.ifindex == link.index) {
            return Err(Error::new(format!("uplink {name}: given twice")));
        }
        uplinks.push(uplink(link)?);
    }
    Ok(uplinks)
}

fn uplink(link: Link) -> Result<Uplink, Error> {
    let Link { index: ifindex, name, mac, mtu, .. } = link;
    // The loopback interface has one of zeros.
    let Some(mac) = mac.filter(|mac| *mac != MacAddr([0; 6])) else {
        return Err(Error::new(format!(
            "uplink {name}: has no Ethernet address: an Ethernet interface is wanted"
        )));
    };
    let most = u16::try_from(xsk::largest_mtu()).unwrap_or(u16::MAX);
    match u16::try_from(mtu) {
        Ok(mtu) if (LEAST_MTU..=most).contains(&mtu) => Ok(Uplink { name, ifindex, mac, mtu }),
        _ => Err(Error::new(format!(
            "uplink {name}: MTU {mtu}: {LEAST_MTU} to {most} is possible: `ip link set {name} mtu {most}`"
        ))),
    }
}

/// The addresses given, else per family the first global one of the first uplink that has one.
fn node_addresses(config: &Config, all: &[LinkAddress], uplinks: &[Uplink]) -> Result<Vec<IpAddr>, Error> {
    if !config.node_ips.is_empty() {
        let mut given = config.node_ips.clone();
        given.sort_unstable();
        return match given[..] {
            [a, b] if a.is_ipv4() == b.is_ipv4() => {
                Err(Error::new(format!("node address {b}: one per family, {a} was given before")))
            }
            [_] | [_, _] => Ok(given),
            _ => Err(Error::new(format!("node address {}: one per family", given[2]))),
        };
    }
    let first = |v4: bool| {
        let of = |uplink: &Uplink| {
            all.iter().find(|a| a.ifindex == uplink.ifindex && a.global && a.ip.is_ipv4() == v4).map(|a| a.ip)
        };
        uplinks.iter().find_map(of)
    };
    let found: Vec<IpAddr> = [true, false].into_iter().filter_map(first).collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(Error::new("node address: no uplink has a global address: give --node-ip")),
    }
}
