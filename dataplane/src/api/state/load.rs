//! A [`State`] as tables and conntrack that the pipeline can run on.

use super::*;
use crate::monitor::resolve::Resolver;
use control::agent::DropQuery;
use flow::{NewFlow, Seconds, Side};
use std::sync::Arc;
use tables::{
    Frontend, HopId, IpEntry, NextHop, Peers, PolicySpec, PortMatch, RuleEntry, RuleId, ServiceSpec, Snapshot,
};
use wire::parse::tcp::SYN;
use wire::{Address, Identity, MacAddr, Protocol, Tuple};

/// Conntrack has room for at least so many flows.
const MIN_FLOWS: usize = 65_536;

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not a state.
    #[error("not a state of `dataplane state dump`: {0}")]
    Json(#[from] serde_json::Error),
    /// It is one of another time.
    #[error("version {found}: this program reads version {VERSION}; use the one that the agent came with")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A value in it is wrong.
    #[error("{what}: {value}: {expected}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What it is.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// A state and the tables made of it; resolves events as the agent's monitor does.
#[derive(Debug)]
pub struct Loaded {
    /// As it was dumped.
    pub state: State,
    tables: Snapshot,
}

impl Loaded {
    /// Reads a state and fills the tables.
    ///
    /// # Errors
    /// If it is not a state, one of another version, or has values that nothing can be made of.
    pub fn read(json: &[u8]) -> Result<Loaded, LoadError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version: found } = serde_json::from_slice(json)?;
        if found != VERSION {
            return Err(LoadError::Version { found });
        }
        let state: State = serde_json::from_slice(json)?;
        Ok(Loaded { tables: tables(&state)?, state })
    }

    /// Conntrack with the flows that had begun before `now` (seconds since boot).
    pub fn conntrack(&self, now: Seconds) -> flow::Table {
        let table = flow::Table::boxed(MIN_FLOWS.max(self.state.flows.len() * 2), 0);
        self.state.flows.iter().filter(|flow| flow.created < now).for_each(|flow| restore(&table, flow));
        table
    }
}

impl Resolver for Loaded {
    fn tables(&self) -> &Snapshot {
        &self.tables
    }

    fn explain(&mut self, query: DropQuery) -> String {
        self.state.names.explain(&query)
    }

    fn rule(&mut self, rule: RuleId) -> Option<String> {
        self.state.names.rules.get(&rule.0).cloned()
    }

    fn cluster(&self, identity: Identity) -> Option<String> {
        self.state.clusters.get(&identity.cluster()).filter(|_| !identity.is_reserved()).cloned()
    }

    fn interface(&self, ifindex: u32) -> Option<String> {
        let endpoint = self.state.endpoints.iter().find(|endpoint| endpoint.ifindex == ifindex);
        endpoint.map(|endpoint| endpoint.interface.clone())
    }
}

fn tables(state: &State) -> Result<Snapshot, LoadError> {
    let mut tables = Snapshot {
        generation: state.taken.policy_generation,
        policy_generation: state.taken.policy_generation,
        node: node(&state.node)?,
        ..Snapshot::default()
    };
    for Hop { node, way } in &state.hops {
        let next = |Way { uplink, mac, mtu }: &Way| {
            Ok::<_, LoadError>(NextHop { uplink: *uplink, mac: parse_mac(mac)?, mtu: *mtu })
        };
        tables.hops.intern(Address::from(*node));
        tables.hops.resolve(Address::from(*node), way.as_ref().map(next).transpose()?);
    }
    for Prefix { prefix, identity, node } in &state.ipcache {
        let hop = node.map_or(HopId::NONE, |node| tables.hops.intern(Address::from(node)));
        tables.ipcache.upsert(*prefix, IpEntry { identity: Identity(*identity), hop });
    }
    for service in &state.services {
        tables.services.upsert(service_spec(service));
    }
    let policies: Vec<_> =
        state.policies.iter().map(|p| Arc::new(tables::Policy::compile(&spec(p)))).collect();
    for endpoint in &state.endpoints {
        let policy = policies.get(endpoint.policy).ok_or_else(|| LoadError::Invalid {
            what: "policy of an endpoint",
            value: endpoint.policy.to_string(),
            expected: "must be a position in the list of policies",
        })?;
        tables.endpoints.upsert(tables::Endpoint {
            id: endpoint.id,
            ifindex: endpoint.ifindex,
            mac: parse_mac(&endpoint.mac)?,
            addresses: endpoint.addresses.iter().map(|address| Address::from(*address)).collect(),
            identity: Identity(endpoint.identity),
            policy: Arc::clone(policy),
        });
    }
    Ok(tables)
}

fn node(node: &Node) -> Result<tables::Node, LoadError> {
    let uplink = |uplink: &Uplink| {
        Ok(tables::Uplink {
            name: uplink.name.clone(),
            ifindex: uplink.ifindex,
            mac: parse_mac(&uplink.mac)?,
            mtu: uplink.mtu,
        })
    };
    Ok(tables::Node {
        addresses: node.addresses.iter().map(|address| Address::from(*address)).collect(),
        gateway_v4: node.gateway_v4.map(Address::from),
        gateway_v6: node.gateway_v6.map(Address::from),
        gateway_mac: parse_mac(&node.gateway_mac)?,
        pod_mtu: node.pod_mtu,
        pod_ranges: node.pod_ranges.iter().map(|&(first, last)| (first.into(), last.into())).collect(),
        uplinks: node.uplinks.iter().map(uplink).collect::<Result<_, LoadError>>()?,
        dual_stack: node.dual_stack,
    })
}

pub(super) fn spec(policy: &Policy) -> PolicySpec {
    let entry = |rule: &Rule| RuleEntry {
        peers: match &rule.peers {
            None => Peers::Any,
            Some(peers) => Peers::Set(peers.iter().copied().map(Identity).collect()),
        },
        ports: PortMatch { proto: rule.protocol.map(Protocol), ports: rule.ports.0..=rule.ports.1 },
        deny: rule.deny,
        rule: RuleId(rule.rule),
    };
    let entries = |rules: &Option<Vec<Rule>>| Some(rules.as_ref()?.iter().map(entry).collect());
    PolicySpec { ingress: entries(&policy.ingress), egress: entries(&policy.egress) }
}

fn service_spec(service: &Service) -> ServiceSpec {
    let backend = |backend: &Backend| tables::Backend {
        address: backend.address.into(),
        port: backend.port,
        weight: backend.weight,
    };
    ServiceSpec {
        id: service.id,
        frontend: Frontend {
            address: service.address.into(),
            port: service.port,
            proto: Protocol(service.protocol),
        },
        backends: service.backends.iter().map(backend).collect(),
    }
}

/// Makes conntrack see what it had seen of a flow. One that finds no room is like one that has
/// been evicted.
fn restore(table: &flow::Table, flow: &Flow) {
    let (from, to) = (flow.from, flow.to);
    let tuple = Tuple {
        src: from.0.into(),
        dst: to.0.into(),
        sport: from.1,
        dport: to.1,
        proto: Protocol(flow.protocol),
    };
    let translated_from = flow.translated.map(|(address, port)| (address.into(), port));
    let inserted = match translated_from {
        Some(backend) if flow.service_entry => {
            table.insert_service(&tuple, backend, flow.service, flow.last_seen)
        }
        _ => {
            let new = NewFlow {
                tuple,
                translated_from,
                service: flow.service,
                src_identity: Identity(flow.source_identity),
                dst_identity: Identity(flow.destination_identity),
                generation: flow.generation,
            };
            table.insert(&new, flow.last_seen)
        }
    };
    let Ok(id) = inserted else { return };
    // The SYN apart: what follows it without one is what makes a connection live long.
    let segments = |flags: u8| [flags & SYN, flags & !SYN].into_iter().filter(|flags| *flags != 0);
    for flags in segments(flow.tcp_flags) {
        table.touch(id, Side::Original, flags, 0, flow.last_seen);
    }
    if flow.replied && flow.reply_tcp_flags == 0 {
        table.touch(id, Side::Reply, 0, 0, flow.last_seen);
    }
    for flags in segments(flow.reply_tcp_flags) {
        table.touch(id, Side::Reply, flags, 0, flow.last_seen);
    }
}

fn parse_mac(text: &str) -> Result<MacAddr, LoadError> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(MacAddr).ok_or_else(|| LoadError::Invalid {
        what: "link-layer address",
        value: text.into(),
        expected: "must be like 02:00:00:00:00:01",
    })
}
