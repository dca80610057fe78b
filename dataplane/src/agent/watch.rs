//! Follows the kernel while the agent runs: links that go, addresses and routes that change,
//! neighbours; keeps the host's routes to the pods of other nodes; and writes down what the next
//! run has to know.

use super::Error;
use super::endpoints::Endpoints;
use super::node::{NodeSpec, describe};
use crate::net::events::{Event, Events};
use crate::net::links::Links;
use crate::net::neighbors::Resolver;
use crate::net::node_routes::NodeRoutes;
use control::Control;
use control::model::NodeView;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tables::Publisher;
use tokio::time::{MissedTickBehavior, interval};

/// How soon a next hop that control asks for is looked up.
const TICK: Duration = Duration::from_millis(200);
/// How soon the host's routes follow a change of nodes.
const ROUTES: Duration = Duration::from_secs(1);
/// How often the neighbour table is read as a whole, should a change have been missed.
const RELOAD: Duration = Duration::from_secs(30);

/// What the watch works on.
pub(super) struct Watch {
    pub(super) links: Links,
    pub(super) publisher: Arc<Publisher>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) node: NodeSpec,
    pub(super) resolver: Resolver,
    pub(super) control: Arc<Control>,
    pub(super) routes: NodeRoutes,
    /// What the routes are made from: pod CIDRs of other nodes.
    pub(super) routed: BTreeMap<IpNet, IpAddr>,
}

impl Watch {
    /// Follows the kernel for ever. Whatever fails is logged and tried again.
    pub(super) async fn run(mut self, mut events: Events) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut node_changed, mut reload_at) = (false, Instant::now() + RELOAD);
        let mut routes_at = Instant::now();
        loop {
            let result = tokio::select! {
                event = events.next() => match event {
                    Some(Event::LinkGone(ifindex)) => {
                        node_changed = true;
                        self.endpoints.link_gone(ifindex).await
                    }
                    Some(Event::Neighbor(of, entry)) => {
                        self.resolver.neighbor_changed(of, entry);
                        Ok(())
                    }
                    Some(Event::NodeChanged) => {
                        node_changed = true;
                        Ok(())
                    }
                    Some(Event::Missed) => {
                        reload_at = Instant::now();
                        Ok(())
                    }
                    None => resubscribe(&mut events).await,
                },
                _ = tick.tick() => {
                    let now = Instant::now();
                    let reload = now >= reload_at;
                    if reload {
                        reload_at = now + RELOAD;
                    }
                    let changed = std::mem::take(&mut node_changed) || reload;
                    let routed = if changed || now >= routes_at {
                        routes_at = now + ROUTES;
                        self.update_routes(changed).await
                    } else {
                        Ok(())
                    };
                    self.tick(now, changed, reload).await.and(routed)
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "following the kernel's network");
            }
        }
    }

    async fn tick(&mut self, now: Instant, node_changed: bool, reload: bool) -> Result<(), Error> {
        if reload {
            self.resolver.reload().await?;
        }
        if node_changed {
            self.resolver.forget_routes();
            self.update_node().await?;
        }
        self.resolver.update(now).await?;
        self.endpoints.remember_identities()
    }

    /// Brings the host's routes up to date if nodes, links or addresses are not what they were.
    async fn update_routes(&mut self, changed: bool) -> Result<(), Error> {
        let wanted = routes_to_pods(&self.control.nodes(), &self.node.addresses);
        if changed {
            self.routes.reload().await?;
        }
        if changed || wanted != self.routed {
            self.routes.update(&wanted, &self.publisher.current().node.uplinks).await?;
            self.routed = wanted;
        }
        Ok(())
    }

    /// Publishes the node anew if links or addresses are not what they were.
    async fn update_node(&self) -> Result<(), Error> {
        let node = describe(&self.node, &self.links).await?;
        if node != self.publisher.current().node {
            self.publisher.edit(|tables| tables.node = node);
        }
        Ok(())
    }
}

/// Pod CIDRs of other nodes and the way there. A CIDR that holds an address of this node is a
/// mistake and would cut it off.
fn routes_to_pods(nodes: &[NodeView], own: &[IpAddr]) -> BTreeMap<IpNet, IpAddr> {
    let others = nodes.iter().filter(|node| node.source != "local");
    let ways = others.flat_map(|node| {
        let of = |cidrs: &[String], address: Option<IpAddr>| {
            let cidrs = cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok());
            cidrs.filter_map(|cidr| Some((cidr, address?))).collect::<Vec<_>>()
        };
        [of(&node.ipv4_cidrs, node.ipv4_address), of(&node.ipv6_cidrs, node.ipv6_address)]
    });
    ways.flatten().filter(|(cidr, _)| !own.iter().any(|ip| cidr.contains(ip))).collect()
}

/// Subscribes again after the connection to the kernel broke.
async fn resubscribe(events: &mut Events) -> Result<(), Error> {
    tokio::time::sleep(TICK).await;
    *events = Events::subscribe()?;
    Ok(())
}
