//! Why a packet was dropped by policy, in words.

use super::Compiler;
use crate::agent::DropQuery;
use crate::labels::{CLUSTER, Label, Labels, NAMESPACE, NAMESPACE_LABELS, SERVICE_ACCOUNT};
use crate::policy::cidr;
use crate::state::State;
use tables::Direction;
use wire::{Identity, Protocol};

impl Compiler {
    /// Names the rule that denied, or says that none allows.
    pub fn explain(&self, state: &State, drop: &DropQuery) -> String {
        if let Some(rule) = drop.rule {
            return match self.rules.describe(rule) {
                Some(rule) => format!("denied by {rule}"),
                None => "denied by a rule that is gone since".into(),
            };
        }
        let Some(endpoint) = state.endpoints.get(&drop.endpoint) else {
            return format!("endpoint {} is gone since", drop.endpoint);
        };
        let pod = format!("{}/{}", endpoint.spec.namespace, endpoint.spec.name);
        let peer = peer_name(state, drop.peer);
        let port = port_name(drop.proto, drop.port);
        let allows =
            self.endpoints.get(&drop.endpoint).map_or(0, |p| p.policy.allows[drop.direction as usize]);
        let (to, way) = match drop.direction {
            Direction::Ingress => ("", "ingress"),
            Direction::Egress => ("traffic to ", "egress"),
        };
        match allows {
            0 => format!("no {way} rule selecting {pod} allows anything"),
            n => format!("no rule of {n} selecting {pod} allows {to}{peer} on {port}"),
        }
    }
}

fn port_name(proto: Protocol, port: u16) -> String {
    match proto {
        Protocol::ICMP | Protocol::ICMPV6 => format!("{proto} type {port}"),
        _ => format!("{port}/{proto}"),
    }
}

/// The labels that people gave, and the cluster; a prefix or the reserved name otherwise.
fn peer_name(state: &State, peer: Identity) -> String {
    let Some(labels) = state.selectors.labels(peer) else {
        return format!("identity {} (its labels are not known here yet)", peer.0);
    };
    if peer.is_reserved() {
        return peer.to_string();
    }
    if let Some(prefix) = cidr::of(labels) {
        return prefix.to_string();
    }
    let value = |key: &str| labels.0.get(key).map(|label| label.value.as_str()).unwrap_or("?");
    let given: Vec<_> = given(labels).map(|(key, label)| format!("{key}={}", label.value)).collect();
    let name = match given.is_empty() {
        true => format!("{NAMESPACE}={}", value(NAMESPACE)),
        false => given.join(","),
    };
    format!("{name} ({})", value(CLUSTER))
}

fn given(labels: &Labels) -> impl Iterator<Item = (&String, &Label)> {
    let automatic = [CLUSTER, NAMESPACE, SERVICE_ACCOUNT];
    labels
        .0
        .iter()
        .filter(move |(key, _)| !automatic.contains(&&***key) && !key.starts_with(NAMESPACE_LABELS))
}
