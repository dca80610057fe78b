//! Why a packet was dropped by policy, in words.

use super::Compiler;
use crate::agent::DropQuery;
use crate::ipcache::Owner;
use crate::labels::{CLUSTER, Label, Labels, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT};
use crate::model::{Lexicon, PodFacts};
use crate::policy::cidr;
use crate::state::State;
use std::net::IpAddr;
use tables::{Direction, RuleId};
use wire::{Identity, Protocol};

/// What explanations are made of.
trait Facts {
    /// What a rule is called.
    fn rule(&self, rule: RuleId) -> Option<String>;
    /// The pod behind an endpoint.
    fn pod(&self, endpoint: u16) -> Option<PodFacts>;
    /// What people call an identity, if its labels are known.
    fn peer(&self, identity: Identity) -> Option<String>;
    /// What is known of who has an address that the tables do not know.
    fn stranger(&self, address: IpAddr) -> String;
}

/// The state as it is.
struct Live<'a>(&'a Compiler, &'a State);

impl Facts for Live<'_> {
    fn rule(&self, rule: RuleId) -> Option<String> {
        self.0.rules.describe(rule)
    }

    fn pod(&self, endpoint: u16) -> Option<PodFacts> {
        let spec = &self.1.endpoints.get(&endpoint)?.spec;
        let allows = self.0.endpoints.get(&endpoint).map_or([0; 2], |published| published.policy.allows);
        Some(PodFacts { name: format!("{}/{}", spec.namespace, spec.name), allows })
    }

    fn peer(&self, identity: Identity) -> Option<String> {
        Some(peer_name(identity, self.1.selectors.labels(identity)?))
    }

    fn stranger(&self, address: IpAddr) -> String {
        let (prefix, ipcache) = (address.into(), &self.1.ipcache);
        if let Some((Owner { cluster, .. }, identity)) = ipcache.claimed(prefix) {
            return match self.peer(identity) {
                Some(peer) => format!("identity of {address} was not known yet: it is {peer} now"),
                None => {
                    format!("labels of identity {} of {address} ({cluster}) are not known yet", identity.0)
                }
            };
        }
        match ipcache.node_of(prefix) {
            Some(Owner { cluster, part: node, .. }) => {
                format!("identity of {address} (pod CIDR of {cluster}/{node}) is not known yet")
            }
            None => format!("no pod of this node has {address} yet"),
        }
    }
}

impl Facts for Lexicon {
    fn rule(&self, rule: RuleId) -> Option<String> {
        self.rules.get(&rule.0).cloned()
    }

    fn pod(&self, endpoint: u16) -> Option<PodFacts> {
        self.pods.get(&endpoint).cloned()
    }

    fn peer(&self, identity: Identity) -> Option<String> {
        self.identities.get(&identity.0).cloned()
    }

    fn stranger(&self, address: IpAddr) -> String {
        format!("identity of {address} was not known")
    }
}

impl Compiler {
    /// Names the rule that denied, or says that none allows.
    pub fn explain(&self, state: &State, drop: &DropQuery) -> String {
        explain(&Live(self, state), drop)
    }

    /// Everything that explanations need, to be taken elsewhere.
    pub(crate) fn lexicon(&self, state: &State) -> Lexicon {
        let live = Live(self, state);
        let identities = state.selectors.identities();
        Lexicon {
            pods: state.endpoints.keys().filter_map(|&id| Some((id, live.pod(id)?))).collect(),
            identities: identities.map(|(id, labels)| (id.0, peer_name(id, labels))).collect(),
            rules: self.rules.descriptions().map(|(id, text)| (id.0, text)).collect(),
        }
    }
}

impl Lexicon {
    /// Names the rule that denied, or says that none allows.
    pub fn explain(&self, drop: &DropQuery) -> String {
        explain(self, drop)
    }
}

fn explain(facts: &impl Facts, drop: &DropQuery) -> String {
    if let Some(rule) = drop.rule {
        return match facts.rule(rule) {
            Some(rule) => format!("denied by {rule}"),
            None => "denied by a rule that is gone since".into(),
        };
    }
    if drop.peer == Identity::UNKNOWN {
        return facts.stranger(drop.address);
    }
    let Some(PodFacts { name: pod, allows }) = facts.pod(drop.endpoint) else {
        return format!("endpoint {} is gone since", drop.endpoint);
    };
    let unknown = || format!("identity {} (its labels are not known here yet)", drop.peer.0);
    let peer = facts.peer(drop.peer).unwrap_or_else(unknown);
    let port = port_name(drop.proto, drop.port);
    let (to, way) = match drop.direction {
        Direction::Ingress => ("", "ingress"),
        Direction::Egress => ("traffic to ", "egress"),
    };
    match allows[drop.direction as usize] {
        0 => format!("no {way} rule selecting {pod} allows anything"),
        n => format!("no rule of {n} selecting {pod} allows {to}{peer} on {port}"),
    }
}

fn port_name(proto: Protocol, port: u16) -> String {
    match proto {
        Protocol::ICMP | Protocol::ICMPV6 => format!("{proto} type {port}"),
        _ => format!("{port}/{proto}"),
    }
}

/// The labels that people gave, and the cluster; a prefix or the reserved name otherwise.
fn peer_name(peer: Identity, labels: &Labels) -> String {
    if peer.is_reserved() {
        return peer.to_string();
    }
    if let Some(prefix) = cidr::of(labels) {
        return prefix.to_string();
    }
    let value = |key: &str| labels.get(key).map(|label| label.value).unwrap_or("?");
    let given: Vec<_> = given(labels).map(|Label { key, value, .. }| format!("{key}={value}")).collect();
    let name = match given.is_empty() {
        true => format!("{NAMESPACE}={}", value(NAMESPACE)),
        false => given.join(","),
    };
    format!("{name} ({})", value(CLUSTER))
}

fn given(labels: &Labels) -> impl Iterator<Item = Label<'_>> {
    let automatic = [CLUSTER, NAMESPACE, SERVICE_ACCOUNT];
    labels
        .iter()
        .filter(move |label| !automatic.contains(&label.key) && !label.key.starts_with(NAMESPACE_LABELS))
}
