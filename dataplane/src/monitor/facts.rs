//! Where the running agent's monitor gets names and explanations from.

use super::resolve::Resolver;
use crate::agent::Agent;
use control::agent::DropQuery;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tables::{Direction, RuleId, Snapshot};
use wire::{Identity, Protocol};

/// How old cluster names may be.
const CLUSTERS_AGE: Duration = Duration::from_secs(1);

/// The fields of a [`DropQuery`]; the address only if it counts.
type Asked = (Direction, u16, Identity, Option<IpAddr>, Protocol, u16, Option<RuleId>);

/// Names and explanations for one batch of events.
pub(super) struct Facts {
    agent: Arc<Agent>,
    tables: Arc<Snapshot>,
    /// Explanations given in this batch: a flood of drops is mostly the same drop.
    explained: HashMap<Asked, String>,
    /// Cluster id → name.
    clusters: BTreeMap<u32, String>,
    clusters_read: Instant,
}

impl Facts {
    pub(super) fn new(agent: Arc<Agent>) -> Facts {
        let mut facts = Facts {
            tables: agent.publisher.current(),
            explained: HashMap::new(),
            clusters: BTreeMap::new(),
            clusters_read: Instant::now(),
            agent,
        };
        facts.read_clusters();
        facts
    }

    /// Starts a new batch.
    pub(super) fn refresh(&mut self) {
        self.tables = self.agent.publisher.current();
        self.explained.clear();
        if self.clusters_read.elapsed() > CLUSTERS_AGE {
            self.read_clusters();
        }
    }

    fn read_clusters(&mut self) {
        self.clusters = self.agent.clusters();
        self.clusters_read = Instant::now();
    }
}

impl Resolver for Facts {
    fn tables(&self) -> &Snapshot {
        &self.tables
    }

    fn explain(&mut self, query: DropQuery) -> String {
        let control = &self.agent.control;
        let DropQuery { direction, endpoint, peer, address, proto, port, rule } = query;
        let stranger = Some(address).filter(|_| peer == Identity::UNKNOWN);
        let asked = (direction, endpoint, peer, stranger, proto, port, rule);
        self.explained.entry(asked).or_insert_with(|| control.explain(&query)).clone()
    }

    fn rule(&mut self, rule: RuleId) -> Option<String> {
        self.agent.control.rule(rule)
    }

    fn cluster(&self, identity: Identity) -> Option<String> {
        self.clusters.get(&identity.cluster()).filter(|_| !identity.is_reserved()).cloned()
    }

    fn interface(&self, ifindex: u32) -> Option<String> {
        nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()
    }
}
