//! What an endpoint may receive and send at L3/L4.

mod table;

use std::ops::RangeInclusive;
use std::sync::Arc;
use table::Table;
use wire::{Identity, Protocol};

/// Direction as seen from the endpoint whose policy is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// Names a rule; control keeps the description behind the number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RuleId(pub u32);

/// How specific the deciding entry was, in Cilium's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// Nothing matched.
    None,
    /// Peer only.
    L3Only,
    /// Peer, protocol and port.
    L3L4,
    /// Protocol and port, any peer.
    L4Only,
    /// Any peer, any protocol; also what an unenforced direction reports.
    All,
    /// Peer and protocol, any port.
    L3Proto,
    /// Protocol, any peer and port.
    ProtoOnly,
}

/// The answer for one new flow in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Let it pass.
    Allow {
        /// The rule that allowed it; `None` when the direction is not enforced.
        rule: Option<RuleId>,
        /// How it matched.
        matched: Match,
    },
    /// A deny rule matched.
    Deny {
        /// That rule.
        rule: RuleId,
        /// How it matched.
        matched: Match,
    },
    /// The direction is enforced and no rule allows it.
    DefaultDeny,
}

/// Which peers an entry is about.
#[derive(Clone, Debug)]
pub enum Peers {
    /// Anyone, world included.
    Any,
    /// Exactly these identities.
    Set(Arc<[Identity]>),
}

/// Which packets an entry is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMatch {
    /// `None` matches every protocol, ICMP included.
    pub proto: Option<Protocol>,
    /// Destination ports, or the ICMP type; `0..=65535` for all.
    pub ports: RangeInclusive<u16>,
}

/// One allow or deny entry, peers already resolved to identities.
#[derive(Clone, Debug)]
pub struct RuleEntry {
    /// Whom it is about.
    pub peers: Peers,
    /// What it is about.
    pub ports: PortMatch,
    /// Deny instead of allow. Any matching deny beats any allow.
    pub deny: bool,
    /// Where it comes from.
    pub rule: RuleId,
}

/// Policy of one endpoint before compilation. `None` = that direction is not enforced.
#[derive(Clone, Debug, Default)]
pub struct PolicySpec {
    /// Entries for traffic to the endpoint.
    pub ingress: Option<Vec<RuleEntry>>,
    /// Entries for traffic from the endpoint.
    pub egress: Option<Vec<RuleEntry>>,
}

/// Compiled policy of one endpoint. A decision costs one hash lookup and at most two binary
/// searches, however many rules there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    ingress: Option<Table>,
    egress: Option<Table>,
}

impl Policy {
    /// Compiles entries into hash lookups.
    pub fn compile(spec: &PolicySpec) -> Policy {
        let table = |entries: &Option<Vec<RuleEntry>>| entries.as_deref().map(Table::compile);
        Policy { ingress: table(&spec.ingress), egress: table(&spec.egress) }
    }

    /// Whether this direction is in default deny.
    pub fn enforced(&self, direction: Direction) -> bool {
        self.table(direction).is_some()
    }

    /// Decides about a new flow. `port` is the destination port, or the ICMP type.
    pub fn decide(&self, direction: Direction, peer: Identity, proto: Protocol, port: u16) -> Decision {
        match self.table(direction) {
            Some(table) => table.decide(peer, proto, port),
            None => Decision::Allow { rule: None, matched: Match::All },
        }
    }

    fn table(&self, direction: Direction) -> Option<&Table> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests;
