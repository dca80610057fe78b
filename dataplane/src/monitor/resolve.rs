//! Event → record: names, and why a packet was dropped, in words.

use super::record::{Drop, Packet, Record, Trace, Verdict};
use super::summary::Summary;
use control::agent::DropQuery;
use engine::event::{TracePoint, TraceState};
use engine::{DropReason, Event, EventKind};
use std::net::{Ipv4Addr, Ipv6Addr};
use tables::{Direction, Endpoint, Frontend, Match, RuleId, Snapshot};
use wire::hub::Origin;
use wire::{Address, Identity, MacAddr, Protocol, Tuple};

/// What names and explanations come from.
pub trait Resolver {
    /// The tables as they are now.
    fn tables(&self) -> &Snapshot;
    /// Why policy dropped a packet.
    fn explain(&mut self, query: DropQuery) -> String;
    /// What a rule is called.
    fn rule(&mut self, rule: RuleId) -> Option<String>;
    /// Name of the cluster that an identity was allocated in.
    fn cluster(&self, identity: Identity) -> Option<String>;
    /// Name of an interface.
    fn interface(&self, ifindex: u32) -> Option<String>;
}

/// Resolves one event of worker `cpu`.
pub fn record(cpu: usize, event: &Event, resolver: &mut impl Resolver) -> Record {
    let packet = packet(cpu, event, resolver);
    let direction = direction(event.direction).to_owned();
    match event.kind {
        EventKind::Drop { reason, rule } => Record::Drop(Drop {
            reason: reason.text().into(),
            code: reason.code(),
            direction,
            why: why(reason, rule, event, resolver),
            packet,
        }),
        EventKind::Trace { point, state } => {
            let (point, summary) = match point {
                TracePoint::ToEndpoint => ("to-endpoint", format!("-> endpoint {}", event.dst_endpoint)),
                TracePoint::ToHost => ("to-host", "-> host from".into()),
                TracePoint::ToStack => ("to-stack", "-> stack".into()),
                TracePoint::ToNetwork => ("to-network", "-> network".into()),
            };
            let state = match state {
                TraceState::New => "new",
                TraceState::Established => "established",
                TraceState::Reply => "reply",
                TraceState::Related => "related",
            };
            let orig_ip = orig_ip(event);
            Record::Trace(Trace { packet, state: state.into(), point: point.into(), summary, orig_ip })
        }
        EventKind::Verdict { allowed, rule, matched } => {
            let (endpoint, remote, _) = sides(event);
            Record::PolicyVerdict(Verdict {
                endpoint,
                remote: remote.0,
                proto: event.tuple.proto.0,
                direction,
                action: if allowed { "allow" } else { "deny" }.into(),
                matched: matched_text(matched).into(),
                why: match allowed {
                    true => rule.and_then(|rule| resolver.rule(rule)),
                    false => Some(denied_why(rule, event, resolver)),
                },
                packet,
            })
        }
    }
}

fn packet(cpu: usize, event: &Event, resolver: &impl Resolver) -> Packet {
    let interface = resolver.interface(event.ifindex).filter(|_| event.ifindex != 0);
    Packet {
        cpu: format!("CPU {cpu:02}:"),
        mark: format!("{:#x}", event.hash),
        source: event.src_endpoint,
        dst_id: event.dst_endpoint,
        bytes: event.length,
        src_label: event.src_identity.0,
        dst_label: event.dst_identity.0,
        src_cluster: resolver.cluster(event.src_identity),
        dst_cluster: resolver.cluster(event.dst_identity),
        ifindex: interface.unwrap_or_else(|| event.ifindex.to_string()),
        service: service(event),
        summary: Summary::of(event),
    }
}

/// The frontend of a translated packet: what it was sent to, or what a reply seems to come from.
fn service(event: &Event) -> Option<String> {
    let (before, after) = (event.tuple, event.translated?);
    match event.kind {
        EventKind::Trace { state: TraceState::Related, .. } => None,
        EventKind::Trace { state: TraceState::Reply, .. } => {
            ((before.src, before.sport) != (after.src, after.sport)).then(|| socket(after.src, after.sport))
        }
        _ => {
            ((before.dst, before.dport) != (after.dst, after.dport)).then(|| socket(before.dst, before.dport))
        }
    }
}

/// The endpoint whose policy an event is about, and who is on the other side.
fn sides(event: &Event) -> (u16, Identity, Address) {
    let tuple = event.translated.unwrap_or(event.tuple);
    match event.direction {
        Direction::Ingress => (event.dst_endpoint, event.src_identity, tuple.src),
        Direction::Egress => (event.src_endpoint, event.dst_identity, tuple.dst),
    }
}

fn why(
    reason: DropReason,
    rule: Option<RuleId>,
    event: &Event,
    resolver: &mut impl Resolver,
) -> Option<String> {
    match reason {
        DropReason::PolicyDenied | DropReason::PolicyDeniedByRule | DropReason::UnknownIdentity => {
            Some(denied_why(rule, event, resolver))
        }
        _ => other_why(reason, event, resolver),
    }
}

/// The rule that denied, or that none allowed.
fn denied_why(rule: Option<RuleId>, event: &Event, resolver: &mut impl Resolver) -> String {
    let (endpoint, peer, address) = sides(event);
    let tuple = event.translated.unwrap_or(event.tuple);
    let port = match tuple.proto {
        Protocol::ICMP | Protocol::ICMPV6 => Summary::icmp_type(event).map_or(0, u16::from),
        _ => tuple.dport,
    };
    let direction = event.direction;
    let address = address.ip();
    resolver.explain(DropQuery { direction, endpoint, peer, address, proto: tuple.proto, port, rule })
}

/// Why a packet was dropped for another reason than policy, where the tables say more than the
/// reason's text does.
fn other_why(reason: DropReason, event: &Event, resolver: &impl Resolver) -> Option<String> {
    let (tables, tuple) = (resolver.tables(), event.tuple);
    let sender = tables.endpoints.by_ifindex(event.ifindex);
    Some(match reason {
        DropReason::InvalidSourceIp => match sender {
            Some(pod) => format!("endpoint {} may send from {} only", pod.id, addresses(pod)),
            None => format!("{} is an address of this node or its pods", tuple.src),
        },
        DropReason::UnknownOrigin => {
            // Steering's mark is all that is known of the sender.
            let (destination, _) = event.snap.split_first_chunk::<6>()?;
            let Some(Origin::Pod { ifindex, .. }) = Origin::decode(MacAddr(*destination)) else {
                return None;
            };
            let link = resolver.interface(ifindex)?;
            format!("{link} is of no endpoint that has its identity: see `dataplane endpoint list`")
        }
        DropReason::InvalidSourceMac => {
            let pod = sender?;
            format!("endpoint {} may send from {} only", pod.id, pod.mac)
        }
        DropReason::InvalidDestinationMac => {
            format!("pods reach everything through their gateway, {}", tables.node.gateway_mac)
        }
        DropReason::NoServiceBackend => no_backend(tuple, tables),
        DropReason::NoNeighbor => {
            let entry = tables.ipcache.lookup(event.translated.unwrap_or(tuple).dst)?;
            let node = tables.hops.get(entry.hop)?.node;
            format!("the link-layer address of node {node} is not known yet")
        }
        DropReason::Unroutable => format!("nothing here leads to {}", event.translated.unwrap_or(tuple).dst),
        DropReason::FragmentationNeeded => {
            format!("the packet has {} bytes", event.length.saturating_sub(14))
        }
        _ => return None,
    })
}

fn no_backend(tuple: Tuple, tables: &Snapshot) -> String {
    let Tuple { dst: address, dport: port, proto, .. } = tuple;
    let frontend = format!("{}/{proto}", socket(address, port));
    match tables.services.lookup(Frontend { address, port, proto }) {
        Some(service) if service.backends().is_empty() => format!("service {frontend} has no backend"),
        Some(service) => {
            format!("none of the {} backends of service {frontend} is usable", service.backends().len())
        }
        None if matches!(proto, Protocol::ICMP | Protocol::ICMPV6) => {
            format!("{address} is a service address; it serves ports only")
        }
        None => format!("{address} is a service address, but no service has port {port}/{proto} there"),
    }
}

fn addresses(pod: &Endpoint) -> String {
    let texts: Vec<_> = pod.addresses.iter().map(Address::to_string).collect();
    texts.join(", ")
}

fn socket(address: Address, port: u16) -> String {
    std::net::SocketAddr::new(address.ip(), port).to_string()
}

/// The source before source translation (a pod that reaches itself through a service).
fn orig_ip(event: &Event) -> String {
    match event.translated {
        Some(translated) if translated.src != event.tuple.src => event.tuple.src.to_string(),
        _ if event.tuple.src.is_v4() => Ipv4Addr::UNSPECIFIED.to_string(),
        _ => Ipv6Addr::UNSPECIFIED.to_string(),
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn matched_text(matched: Match) -> &'static str {
    match matched {
        Match::None => "none",
        Match::L3Only => "L3-Only",
        Match::L3L4 => "L3-L4",
        Match::L4Only => "L4-Only",
        Match::All => "all",
        Match::L3Proto => "L3-Proto",
        Match::ProtoOnly => "Proto-Only",
    }
}
