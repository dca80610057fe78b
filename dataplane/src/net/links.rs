//! Links, addresses, routes and neighbours of one network namespace, over rtnetlink.

use super::{Context, Result, gso};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType, RouteVia,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use std::io;
use std::net::IpAddr;
use wire::MacAddr;

/// rtnetlink in the network namespace of the thread that connected.
#[derive(Clone, Debug)]
pub struct Links {
    pub(super) handle: rtnetlink::Handle,
}

/// What we want to know of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Alias (`ip link set … alias`).
    pub alias: Option<String>,
    /// Link-layer address, if it is an Ethernet one.
    pub mac: Option<MacAddr>,
    /// MTU in bytes, Ethernet header not counted.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Receive queues it was made with.
    pub rx_queues: u32,
    /// A veth: what it carries has never been on a wire.
    pub veth: bool,
    /// Largest IPv4 packet in bytes that it is given to segment.
    pub gso: u32,
    /// Largest packet in bytes that its driver can segment.
    pub gso_limit: u32,
}

/// An address of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkAddress {
    /// The interface that has it.
    pub ifindex: u32,
    /// The address.
    pub ip: IpAddr,
    /// Valid beyond its link and beyond this machine.
    pub global: bool,
}

/// How the kernel would send to an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// Outgoing interface.
    pub ifindex: u32,
    /// The neighbour to hand it to: a router, or the destination itself.
    pub via: IpAddr,
}

/// A usable entry of the neighbour table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbor {
    /// Its link-layer address.
    pub mac: MacAddr,
    /// The kernel has not heard of it for a while.
    pub stale: bool,
}

impl Links {
    /// Connects; must be called inside a tokio runtime, which drives the connection.
    pub fn connect() -> Result<Links> {
        let (connection, handle, _) = rtnetlink::new_connection().context(|| "open rtnetlink".into())?;
        tokio::spawn(connection);
        Ok(Links { handle })
    }

    /// The link with this name.
    pub async fn by_name(&self, name: &str) -> Result<Option<Link>> {
        self.one(self.handle.link().get().match_name(name), name).await
    }

    /// The link with this index.
    pub async fn by_index(&self, index: u32) -> Result<Option<Link>> {
        self.one(self.handle.link().get().match_index(index), &index.to_string()).await
    }

    async fn one(&self, request: rtnetlink::LinkGetRequest, name: &str) -> Result<Option<Link>> {
        match request.execute().try_next().await.context(|| format!("link {name}")) {
            Ok(message) => Ok(message.map(|m| Link::from(&m))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links.
    pub async fn all(&self) -> Result<Vec<Link>> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.context(|| "list links".into())?;
        Ok(messages.iter().map(Link::from).collect())
    }

    /// Creates a link.
    pub async fn add(&self, message: LinkMessage, name: &str) -> Result<()> {
        self.handle.link().add(message).execute().await.context(|| format!("link {name}: create"))
    }

    /// Changes a link; `message` starts from [`change`].
    pub async fn set(&self, message: LinkMessage, what: impl FnOnce() -> String) -> Result<()> {
        self.handle.link().set(message).execute().await.context(what)
    }

    /// Deletes a link (both ends of a veth); fine if it is gone.
    pub async fn delete(&self, index: u32) -> Result<()> {
        match self.handle.link().del(index).execute().await.context(|| format!("link {index}: delete")) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// All addresses of this machine.
    pub async fn addresses(&self) -> Result<Vec<LinkAddress>> {
        let mut stream = Box::pin(self.handle.address().get().execute());
        let mut addresses = Vec::new();
        while let Some(message) = stream.try_next().await.context(|| "list addresses".into())? {
            let mut ip = None;
            for attribute in &message.attributes {
                match attribute {
                    // Of a point-to-point address, IFA_LOCAL is ours and IFA_ADDRESS the peer's.
                    AddressAttribute::Local(local) => ip = Some(*local),
                    AddressAttribute::Address(address) => ip = ip.or(Some(*address)),
                    _ => {}
                }
            }
            let global = message.header.scope == AddressScope::Universe;
            addresses.extend(ip.map(|ip| LinkAddress { ifindex: message.header.index, ip, global }));
        }
        Ok(addresses)
    }

    /// Gives a link one address, without duplicate address detection.
    pub async fn add_address(&self, index: u32, ip: IpAddr) -> Result<()> {
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(index, ip, prefix).replace();
        if ip.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.context(|| format!("link {index}: add address {ip}"))
    }

    /// Routes a prefix out of a link: directly, or to a gateway.
    pub async fn add_route(
        &self,
        index: u32,
        to: ipnet::IpNet,
        via: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> Result<()> {
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .and_then(|route| match source {
                Some(source) => route.pref_source(source),
                None => Ok(route),
            })
            .map_err(io::Error::other)
            .context(|| format!("route to {to}"))?
            .output_interface(index);
        route = match via {
            Some(via) => route.gateway(via).map_err(io::Error::other).context(|| format!("gateway {via}"))?,
            None => route.scope(RouteScope::Link),
        };
        let request = self.handle.route().add(route.build()).replace();
        request.execute().await.context(|| format!("link {index}: add route to {to}"))
    }

    /// How the kernel would send to `ip` now; `None` if it would not, or to itself.
    pub async fn route_to(&self, ip: IpAddr) -> Result<Option<Route>> {
        let what = || format!("route to {ip}");
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(ip, prefix)
            .map_err(io::Error::other)
            .context(what)?
            .build();
        let reply = Box::pin(self.handle.route().get(message).execute()).try_next().await;
        match reply {
            Ok(message) => Ok(message.and_then(|m| route(&m, ip))),
            // Unreachable, prohibited, blackhole: the kernel's way to say that there is no route.
            Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
            Err(error) => Err(error).context(what),
        }
    }

    /// The neighbour table: what is known of each (interface, address).
    pub async fn neighbors(&self) -> Result<Vec<(Route, Option<Neighbor>)>> {
        let messages: Vec<NeighbourMessage> = self
            .handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .context(|| "list neighbours".into())?;
        Ok(messages.iter().filter_map(neighbor).collect())
    }

    /// Asks the kernel to find or confirm a neighbour, as if it had something to send.
    pub async fn probe(&self, to: Route) -> Result<()> {
        let request = self.handle.neighbours().add(to.ifindex, to.via);
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
        request.execute().await.context(|| format!("neighbour {}: probe", to.via))
    }
}

/// A change of link `index`.
pub fn change(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Link {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            alias: None,
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            rx_queues: 1,
            veth: false,
            gso: gso::LEGACY,
            gso_limit: gso::LEGACY,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok().map(MacAddr),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::NumRxQueues(n) => link.rx_queues = *n,
                LinkAttribute::GsoIpv4MaxSize(size) => link.gso = *size,
                LinkAttribute::TsoMaxSize(size) => link.gso_limit = *size,
                LinkAttribute::LinkInfo(info) => link.veth = info.contains(&LinkInfo::Kind(InfoKind::Veth)),
                _ => {}
            }
        }
        link
    }
}

/// Reads how a route sends to `ip`.
pub(super) fn route(message: &RouteMessage, ip: IpAddr) -> Option<Route> {
    let mut found = None;
    let mut via = ip;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => found = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) => via = (*v4).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => via = (*v6).into(),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => via = (*v6).into(),
            _ => {}
        }
    }
    let unicast = message.header.kind == RouteType::Unicast;
    found.filter(|_| unicast).map(|ifindex| Route { ifindex, via })
}

/// Reads an entry of the neighbour table; entries without usable address are `None`.
pub fn neighbor(message: &NeighbourMessage) -> Option<(Route, Option<Neighbor>)> {
    let (mut via, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => via = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => via = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr)
            }
            _ => {}
        }
    }
    let stale = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Delay => false,
        // While it is probed the kernel still uses the address.
        NeighbourState::Probe => false,
        NeighbourState::Stale => true,
        _ => {
            mac = None;
            false
        }
    };
    Some((Route { ifindex: message.header.ifindex, via: via? }, mac.map(|mac| Neighbor { mac, stale })))
}
