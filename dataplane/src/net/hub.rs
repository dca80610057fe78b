//! The hub: one veth pair between the host's stack and pods on one side, workers on the other.

use super::links::{Link, Links, change};
use super::{Result, ethtool, sysctl};
use ipnet::IpNet;
use rtnetlink::LinkVeth;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use std::net::IpAddr;

/// The end that the host's stack and the steering programs use.
pub const HOST_END: &str = "dphub0";
/// The end that the workers' sockets are bound to.
pub const WORKER_END: &str = "dphub1";

/// What the hub has to be.
#[derive(Clone, Debug)]
pub struct HubSpec {
    /// Marks links as ours: start of their alias.
    pub alias: String,
    /// Queues, one per worker.
    pub queues: u32,
    /// MTU in bytes, Ethernet header not counted.
    pub mtu: u32,
    /// Pod CIDRs with their gateways: what the host sends into the hub, and from which address.
    pub pods: Vec<(IpNet, IpAddr)>,
}

/// The hub's ends.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Index of [`HOST_END`].
    pub host: u32,
    /// Index of [`WORKER_END`].
    pub worker: u32,
}

/// Creates the hub, or adopts the one of the run before if it is as wanted. It is not up yet: the
/// programs have to be attached first.
pub async fn create_or_adopt(links: &Links, spec: &HubSpec) -> Result<Hub> {
    let hub = match existing(links, spec).await? {
        Some(hub) => hub,
        None => create(links, spec).await?,
    };
    // Never less than before: what pods with the old MTU send has to reach a worker, which tells
    // them of the new one.
    let before = links.by_name(HOST_END).await?.map_or(0, |link| link.mtu);
    let mtu = spec.mtu.max(before);
    for index in [hub.host, hub.worker] {
        links.set(change(index).mtu(mtu).build(), || format!("hub: set MTU {mtu}")).await?;
    }
    ethtool::set_tx_checksum(HOST_END, false)?;
    Ok(hub)
}

/// Takes the hub into service: up, with the gateways' addresses and the routes to the pods.
pub async fn activate(links: &Links, hub: &Hub, spec: &HubSpec) -> Result<()> {
    for index in [hub.worker, hub.host] {
        links.set(change(index).up().build(), || "hub: set up".into()).await?;
    }
    for &(cidr, gateway) in &spec.pods {
        links.add_address(hub.host, gateway).await?;
        links.add_route(hub.host, cidr, None, Some(gateway)).await?;
    }
    Ok(())
}

/// The hub that is there, unless its queues or addresses are not those wanted.
async fn existing(links: &Links, spec: &HubSpec) -> Result<Option<Hub>> {
    let (Some(host), worker) = (links.by_name(HOST_END).await?, links.by_name(WORKER_END).await?) else {
        return Ok(None);
    };
    if host.alias.as_deref() != Some(&spec.alias) {
        let owner = host.alias.as_deref().unwrap_or("somebody else");
        let why = format!(
            "belongs to {owner}: one agent per network namespace: stop that one and `dataplane cleanup` with its \
             --state-dir"
        );
        return Err(super::Error::new(format!("link {HOST_END}"), std::io::Error::other(why)));
    }
    let as_wanted = |link: &Link| link.rx_queues == spec.queues;
    let foreign = links.addresses().await?.into_iter().find(|address| {
        address.ifindex == host.index && address.global && !spec.pods.iter().any(|(_, ip)| *ip == address.ip)
    });
    match worker.filter(|worker| as_wanted(worker) && as_wanted(&host) && foreign.is_none()) {
        Some(worker) => Ok(Some(Hub { host: host.index, worker: worker.index })),
        None => links.delete(host.index).await.map(|()| None),
    }
}

async fn create(links: &Links, spec: &HubSpec) -> Result<Hub> {
    let queues = [LinkAttribute::NumTxQueues(spec.queues), LinkAttribute::NumRxQueues(spec.queues)];
    let mut peer = LinkUnspec::new_with_name(WORKER_END).mtu(spec.mtu).build();
    peer.attributes.extend(queues.clone());
    let mut message = LinkMessageBuilder::<LinkVeth>::new(HOST_END, WORKER_END)
        .mtu(spec.mtu)
        .address(wire::hub::HOST_MAC.0.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    message.attributes.extend(queues);
    links.add(message, HOST_END).await?;
    let missing = || super::Error::new("hub: find its ends", std::io::ErrorKind::NotFound);
    let host = links.by_name(HOST_END).await?.ok_or_else(missing)?;
    let worker = links.by_name(WORKER_END).await?.ok_or_else(missing)?;
    for link in [&host, &worker] {
        // No address of its own, no neighbour discovery: only what we put there.
        let message = change(link.index)
            .alias(&spec.alias)
            .arp(false)
            .multicast(false)
            .append_extra_attribute(no_ipv6_addresses())
            .build();
        links.set(message, || format!("link {}: set alias and flags", link.name)).await?;
    }
    sysctl::set(&format!("net/ipv6/conf/{WORKER_END}/disable_ipv6"), "1")?;
    Ok(Hub { host: host.index, worker: worker.index })
}

/// "Make no link-local address".
pub(super) fn no_ipv6_addresses() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

#[cfg(test)]
mod tests;
