//! Next hops: for every node address that control asks for, the uplink, link-layer address and
//! MTU that lead there, as the kernel's routes and neighbour table have them.
//!
//! Packets of pods bypass the kernel, so nobody but us keeps its neighbour entries alive: stale
//! ones are probed, missing ones asked for each second.

use super::Result;
use super::links::{Links, Neighbor, Route};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tables::{NextHop, Publisher};
use wire::Address;

/// Pause between two attempts to find or confirm the same neighbour.
const RETRY: Duration = Duration::from_secs(1);
/// How long a neighbour that no longer answers is still sent to.
const GRACE: Duration = Duration::from_secs(3);

/// Keeps [`tables::Hops`] in step with the kernel.
#[derive(Debug)]
pub struct Resolver {
    links: Links,
    publisher: Arc<Publisher>,
    /// The neighbour table, as dumped and then told of changes.
    neighbors: HashMap<Route, Neighbor>,
    nodes: HashMap<IpAddr, Way>,
}

/// How a node is reached, and when what was missing is asked for again.
#[derive(Debug, Default)]
struct Way {
    route: Option<Route>,
    next_lookup: Option<Instant>,
    next_probe: Option<Instant>,
    lost_since: Option<Instant>,
}

impl Resolver {
    /// A resolver that knows the neighbour table as it is now.
    pub async fn new(links: Links, publisher: Arc<Publisher>) -> Result<Resolver> {
        let mut resolver = Resolver { links, publisher, neighbors: HashMap::new(), nodes: HashMap::new() };
        resolver.reload().await?;
        Ok(resolver)
    }

    /// Reads the neighbour table again, after changes may have been missed.
    pub async fn reload(&mut self) -> Result<()> {
        let entries = self.links.neighbors().await?;
        self.neighbors = entries.into_iter().filter_map(|(of, entry)| Some((of, entry?))).collect();
        self.forget_routes();
        Ok(())
    }

    /// Looks all routes up again, after routes, links or addresses changed.
    pub fn forget_routes(&mut self) {
        for way in self.nodes.values_mut() {
            (way.route, way.next_lookup) = (None, None);
        }
    }

    /// Takes note of a change in the neighbour table.
    pub fn neighbor_changed(&mut self, of: Route, entry: Option<Neighbor>) {
        match entry {
            Some(entry) => self.neighbors.insert(of, entry),
            None => self.neighbors.remove(&of),
        };
    }

    /// Brings the tables up to date; asks the kernel for what is missing or stale.
    pub async fn update(&mut self, now: Instant) -> Result<()> {
        let tables = self.publisher.current();
        let mut changes = Vec::new();
        self.nodes.retain(|&node, _| tables.hops.id(Address::from(node)).is_some());
        for hop in tables.hops.iter() {
            let way = self.nodes.entry(hop.node.ip()).or_default();
            if way.route.is_none() && due(&mut way.next_lookup, now) {
                way.route = self.links.route_to(hop.node.ip()).await?;
            }
            let next = match way.route.and_then(|route| Some((route, uplink(&tables.node.uplinks, route)?))) {
                Some((route, (uplink, mtu))) => {
                    let neighbor = self.neighbors.get(&route);
                    if neighbor.is_none_or(|n| n.stale) && due(&mut way.next_probe, now) {
                        self.links.probe(route).await?;
                    }
                    neighbor.map(|neighbor| NextHop { uplink, mac: neighbor.mac, mtu })
                }
                None => None,
            };
            let settled = match next {
                Some(_) => {
                    way.lost_since = None;
                    true
                }
                None => now >= *way.lost_since.get_or_insert(now) + GRACE,
            };
            if next != hop.next && settled {
                changes.push((hop.node, next));
            }
        }
        if !changes.is_empty() {
            self.publisher.edit(|tables| {
                for &(node, next) in &changes {
                    tables.hops.resolve(node, next);
                }
            });
        }
        Ok(())
    }
}

/// Whether it is time for another attempt; if so, sets the time of the one after it.
fn due(at: &mut Option<Instant>, now: Instant) -> bool {
    let due = at.is_none_or(|at| now >= at);
    if due {
        *at = Some(now + RETRY);
    }
    due
}

/// Number and MTU of the uplink that a route leaves by, if it is one of ours.
fn uplink(uplinks: &[tables::Uplink], route: Route) -> Option<(u8, u16)> {
    let number = uplinks.iter().position(|uplink| uplink.ifindex == route.ifindex)?;
    Some((u8::try_from(number).ok()?, uplinks[number].mtu))
}

#[cfg(test)]
mod tests;
