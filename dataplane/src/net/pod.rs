//! A pod's veth pair: the host's end and the interface inside the pod.

use super::links::{Links, change};
use super::netns::Netns;
use super::{Error, GATEWAY_MAC, Result, gso, hub, sysctl};
use ipnet::IpNet;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use wire::MacAddr;

/// What a pod's link has to be.
#[derive(Clone, Debug)]
pub struct PodLink {
    /// Name of the host's end.
    pub host_ifname: String,
    /// Alias of the host's end.
    pub alias: String,
    /// Name of the interface inside the pod.
    pub ifname: String,
    /// Link-layer address of the pod.
    pub mac: MacAddr,
    /// MTU in bytes, Ethernet header not counted.
    pub mtu: u32,
    /// Largest IPv4 packet in bytes that the pod's stack leaves to others to segment.
    pub gso: u32,
    /// The pod's addresses, each with the gateway of its family.
    pub addresses: Vec<(IpAddr, IpAddr)>,
}

/// Creates the pair, both ends down; returns the index of the host's end.
pub async fn create(links: &Links, netns: &Netns, pod: &PodLink) -> Result<u32> {
    let peer = LinkUnspec::new_with_name(&pod.ifname)
        .mtu(pod.mtu)
        .address(pod.mac.0.to_vec())
        .setns_by_fd(netns.as_fd().as_raw_fd())
        .build();
    let message = LinkMessageBuilder::<LinkVeth>::new(&pod.host_ifname, &pod.ifname)
        .mtu(pod.mtu)
        .address(GATEWAY_MAC.0.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let pair = format!("{} with {} in the pod", pod.host_ifname, pod.ifname);
    links.add(message, &pair).await.map_err(|error| match error.source.kind() {
        io::ErrorKind::AlreadyExists => {
            let what = format!("network namespace {}: interface {}", netns.path().display(), pod.ifname);
            Error::new(what, io::Error::other("exists already: delete it or choose another --ifname"))
        }
        _ => error,
    })?;
    let host = links.by_name(&pod.host_ifname).await?;
    let host = host.ok_or_else(|| Error::new(format!("link {pair}"), io::ErrorKind::NotFound))?;
    let quiet = change(host.index).alias(&pod.alias).append_extra_attribute(hub::no_ipv6_addresses()).build();
    let prepared = async {
        links.set(quiet, || format!("link {}: set alias {}", pod.host_ifname, pod.alias)).await?;
        sysctl::set(&format!("net/ipv6/conf/{}/disable_ipv6", pod.host_ifname), "1")
    };
    match prepared.await {
        Ok(_) => Ok(host.index),
        Err(error) => {
            links.delete(host.index).await?;
            Err(error)
        }
    }
}

/// Takes the pair into service; the programs on the host's end must be attached already.
pub async fn activate(links: &Links, netns: &Netns, host: u32, pod: &PodLink) -> Result<()> {
    links.set(change(host).up().build(), || format!("link {}: set up", pod.host_ifname)).await?;
    let pod = pod.clone();
    netns.run(move || configure(pod)).await
}

/// Addresses and routes inside the pod; runs in its namespace.
async fn configure(pod: PodLink) -> Result<()> {
    let links = Links::connect()?;
    let missing = || Error::new(format!("link {} in the pod", pod.ifname), io::ErrorKind::NotFound);
    let index = links.by_name(&pod.ifname).await?.ok_or_else(missing)?.index;
    for &(_, gateway) in &pod.addresses {
        if links.route_to(gateway).await?.is_some() {
            let why = "has a route there by another interface: a pod has one endpoint and no other network";
            return Err(Error::new(format!("pod's gateway {gateway}"), io::Error::other(why)));
        }
    }
    if pod.addresses.iter().any(|(ip, _)| ip.is_ipv6()) {
        // There is no router to ask: the gateway's address and routes are set here.
        let settings =
            [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0")];
        for (key, value) in settings {
            sysctl::set(&format!("net/ipv6/conf/{}/{key}", pod.ifname), value)?;
        }
    }
    // Traffic of the pod to itself stays on lo, whoever made the namespace.
    if let Some(lo) = links.by_name("lo").await?.filter(|lo| !lo.up) {
        links.set(change(lo.index).up().build(), || "link lo in the pod: set up".into()).await?;
    }
    gso::set(&links, index, pod.gso, &pod.ifname).await?;
    for &(ip, _) in &pod.addresses {
        links.add_address(index, ip).await?;
    }
    links.set(change(index).up().build(), || format!("link {} in the pod: set up", pod.ifname)).await?;
    for &(_, gateway) in &pod.addresses {
        links.add_route(index, IpNet::from(gateway), None, None).await?;
        links.add_route(index, default_route(gateway), Some(gateway), None).await?;
    }
    Ok(())
}

/// Everything, in the family of `gateway`.
fn default_route(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::V4(Default::default()),
        IpAddr::V6(_) => IpNet::V6(Default::default()),
    }
}

#[cfg(test)]
mod tests;
