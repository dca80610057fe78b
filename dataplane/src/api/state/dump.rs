//! The running agent's tables and flows as a [`State`].

use super::*;
use crate::agent::Agent;
use crate::worker;
use control::agent::Compiled;
use std::time::{SystemTime, UNIX_EPOCH};
use tables::{IpEntry, Peers, PolicySpec, RuleEntry, Snapshot};
use wire::Address;

/// Takes the state of an agent.
pub fn dump(agent: &Agent) -> State {
    let Compiled { tables, policies, policy_of, names } = agent.control.compiled();
    let interfaces: BTreeMap<u16, String> =
        agent.endpoints().into_iter().map(|info| (info.endpoint.id, info.host_ifname)).collect();
    let now = worker::now();
    let mut flows = Vec::new();
    agent.flows.for_each(now, |flow, service_entry| flows.push(self::flow(flow, service_entry)));
    State {
        version: VERSION,
        agent: env!("CARGO_PKG_VERSION").into(),
        taken: Taken {
            unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            boot: now,
            policy_generation: tables.policy_generation,
        },
        node: node(&agent.node_name, &tables),
        clusters: agent.clusters(),
        endpoints: endpoints(&tables, &policy_of, &interfaces),
        policies: policies.iter().map(policy).collect(),
        names,
        ipcache: tables.ipcache.iter().map(|entry| prefix(entry, &tables)).collect(),
        services: tables.services.iter().map(service).collect(),
        hops: tables.hops.iter().map(hop).collect(),
        flows,
    }
}

pub(super) fn node(name: &str, tables: &Snapshot) -> Node {
    let node = &tables.node;
    let uplink = |uplink: &tables::Uplink| Uplink {
        name: uplink.name.clone(),
        ifindex: uplink.ifindex,
        mac: uplink.mac.to_string(),
        mtu: uplink.mtu,
    };
    Node {
        name: name.into(),
        addresses: node.addresses.iter().map(|address| address.ip()).collect(),
        gateway_v4: node.gateway_v4.map(Address::ip),
        gateway_v6: node.gateway_v6.map(Address::ip),
        gateway_mac: node.gateway_mac.to_string(),
        pod_mtu: node.pod_mtu,
        pod_ranges: node.pod_ranges.iter().map(|(first, last)| (first.ip(), last.ip())).collect(),
        uplinks: node.uplinks.iter().map(uplink).collect(),
        dual_stack: node.dual_stack,
    }
}

pub(super) fn endpoints(
    tables: &Snapshot,
    policy_of: &BTreeMap<u16, usize>,
    interfaces: &BTreeMap<u16, String>,
) -> Vec<Endpoint> {
    let endpoint = |endpoint: &tables::Endpoint| {
        Some(Endpoint {
            id: endpoint.id,
            interface: interfaces.get(&endpoint.id).cloned().unwrap_or_default(),
            ifindex: endpoint.ifindex,
            mac: endpoint.mac.to_string(),
            addresses: endpoint.addresses.iter().map(|address| address.ip()).collect(),
            identity: endpoint.identity.0,
            policy: *policy_of.get(&endpoint.id)?,
        })
    };
    tables.endpoints.iter().filter_map(endpoint).collect()
}

pub(super) fn policy(spec: &PolicySpec) -> Policy {
    let rule = |entry: &RuleEntry| Rule {
        rule: entry.rule.0,
        deny: entry.deny,
        peers: match &entry.peers {
            Peers::Any => None,
            Peers::Set(peers) => Some(peers.iter().map(|peer| peer.0).collect()),
        },
        protocol: entry.ports.proto.map(|protocol| protocol.0),
        ports: (*entry.ports.ports.start(), *entry.ports.ports.end()),
    };
    let rules = |entries: &Option<Vec<RuleEntry>>| Some(entries.as_ref()?.iter().map(rule).collect());
    Policy { ingress: rules(&spec.ingress), egress: rules(&spec.egress) }
}

pub(super) fn prefix((prefix, entry): (IpNet, IpEntry), tables: &Snapshot) -> Prefix {
    let node = tables.hops.get(entry.hop).map(|hop| hop.node.ip());
    Prefix { prefix, identity: entry.identity.0, node }
}

pub(super) fn service(service: &tables::Service) -> Service {
    let backend = |backend: &tables::Backend| Backend {
        address: backend.address.ip(),
        port: backend.port,
        weight: backend.weight,
    };
    let tables::Frontend { address, port, proto } = service.frontend();
    Service {
        id: service.id(),
        address: address.ip(),
        port,
        protocol: proto.0,
        backends: service.backends().iter().map(backend).collect(),
    }
}

pub(super) fn hop(hop: &tables::Hop) -> Hop {
    let way = |next: tables::NextHop| Way { uplink: next.uplink, mac: next.mac.to_string(), mtu: next.mtu };
    Hop { node: hop.node.ip(), way: hop.next.map(way) }
}

pub(super) fn flow(flow: &flow::Flow, service_entry: bool) -> Flow {
    let new = &flow.new;
    Flow {
        service_entry,
        from: (new.tuple.src.ip(), new.tuple.sport),
        to: (new.tuple.dst.ip(), new.tuple.dport),
        protocol: new.tuple.proto.0,
        translated: new.translated_from.map(|(address, port)| (address.ip(), port)),
        service: new.service,
        source_identity: new.src_identity.0,
        destination_identity: new.dst_identity.0,
        generation: new.generation,
        created: flow.created,
        last_seen: flow.last_seen,
        replied: flow.state.replied,
        tcp_flags: flow.state.original_flags,
        reply_tcp_flags: flow.state.reply_flags,
    }
}
