//! Follows the kernel while the agent runs: links that go, addresses and routes that change,
//! neighbours; and writes down what the next run has to know.

use super::Error;
use super::endpoints::Endpoints;
use super::node::{NodeSpec, describe};
use crate::net::events::{Event, Events};
use crate::net::links::Links;
use crate::net::neighbors::Resolver;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tables::Publisher;
use tokio::time::{MissedTickBehavior, interval};

/// How soon a next hop that control asks for is looked up.
const TICK: Duration = Duration::from_millis(200);
/// How often the neighbour table is read as a whole, should a change have been missed.
const RELOAD: Duration = Duration::from_secs(30);

/// What the watch works on.
pub(super) struct Watch {
    pub(super) links: Links,
    pub(super) publisher: Arc<Publisher>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) node: NodeSpec,
    pub(super) resolver: Resolver,
}

impl Watch {
    /// Follows the kernel for ever. Whatever fails is logged and tried again.
    pub(super) async fn run(mut self, mut events: Events) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut node_changed, mut reload_at) = (false, Instant::now() + RELOAD);
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
                    self.tick(now, std::mem::take(&mut node_changed), reload).await
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
        if node_changed || reload {
            self.resolver.forget_routes();
            self.update_node().await?;
        }
        self.resolver.update(now).await?;
        self.endpoints.remember_identities()
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

/// Subscribes again after the connection to the kernel broke.
async fn resubscribe(events: &mut Events) -> Result<(), Error> {
    tokio::time::sleep(TICK).await;
    *events = Events::subscribe()?;
    Ok(())
}
