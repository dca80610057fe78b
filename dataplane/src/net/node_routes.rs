//! The host's own way to the pods of other nodes: what a process of the host sends to them, and
//! what it answers, leaves by the uplink towards their node. Packets of our pods take the next
//! hops of the tables instead.

use super::links::{Links, Route, route};
use super::{Context, Result};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Marks routes as ours; of the numbers that no routing daemon has (`rtnetlink.h`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x70);
/// Behind every route that somebody else made for the same prefix.
const METRIC: u32 = 4096;

/// The routes that are installed.
#[derive(Debug)]
pub struct NodeRoutes {
    links: Links,
    installed: BTreeMap<IpNet, Route>,
}

impl NodeRoutes {
    /// Takes over those of the run before.
    pub async fn new(links: Links) -> Result<NodeRoutes> {
        let mut routes = NodeRoutes { links, installed: BTreeMap::new() };
        routes.reload().await?;
        Ok(routes)
    }

    /// Looks which routes there are: the kernel drops them with their link or address.
    pub async fn reload(&mut self) -> Result<()> {
        self.installed = self.list().await?.iter().filter_map(parse).collect();
        Ok(())
    }

    /// Leaves exactly the routes to `wanted` (pod CIDR → node) that lead out of an uplink.
    pub async fn update(
        &mut self,
        wanted: &BTreeMap<IpNet, IpAddr>,
        uplinks: &[tables::Uplink],
    ) -> Result<()> {
        let mut ways = BTreeMap::new();
        for (&cidr, &node) in wanted {
            let way = self.links.route_to(node).await?;
            ways.extend(
                way.filter(|way| uplinks.iter().any(|uplink| uplink.ifindex == way.ifindex))
                    .map(|way| (cidr, way)),
            );
        }
        let gone: Vec<_> = self.installed.keys().filter(|cidr| !ways.contains_key(cidr)).copied().collect();
        for cidr in gone {
            self.remove(cidr).await?;
        }
        for (cidr, way) in ways {
            if self.installed.get(&cidr) != Some(&way) {
                let request = self.links.handle.route().add(message(cidr, way)?).replace();
                request.execute().await.context(|| format!("route to {cidr} by {}", way.via))?;
                self.installed.insert(cidr, way);
            }
        }
        Ok(())
    }

    /// Removes all of them.
    pub async fn clear(&mut self) -> Result<()> {
        self.update(&BTreeMap::new(), &[]).await
    }

    async fn remove(&mut self, cidr: IpNet) -> Result<()> {
        let Some(way) = self.installed.remove(&cidr) else { return Ok(()) };
        match self.links.handle.route().del(message(cidr, way)?).execute().await {
            // Gone already, with its link or address.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ESRCH => Ok(()),
            result => result.context(|| format!("route to {cidr}: remove")),
        }
    }

    /// All routes that carry our mark.
    async fn list(&self) -> Result<Vec<RouteMessage>> {
        let families =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        let mut ours = Vec::new();
        for family in families {
            let all: Vec<RouteMessage> = Box::pin(self.links.handle.route().get(family).execute())
                .try_collect()
                .await
                .context(|| "list routes".into())?;
            ours.extend(all.into_iter().filter(|route| route.header.protocol == PROTOCOL));
        }
        Ok(ours)
    }
}

fn message(cidr: IpNet, way: Route) -> Result<RouteMessage> {
    let what = || format!("route to {cidr} by {}", way.via);
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(cidr.addr(), cidr.prefix_len())
        .and_then(|builder| builder.gateway(way.via));
    let builder = builder.map_err(io::Error::other).context(what)?;
    Ok(builder.output_interface(way.ifindex).protocol(PROTOCOL).priority(METRIC).build())
}

fn parse(message: &RouteMessage) -> Option<(IpNet, Route)> {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::from(*v4)),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::from(*v6)),
        _ => None,
    })?;
    let cidr = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some((cidr, route(message, destination)?))
}

#[cfg(test)]
mod tests;
