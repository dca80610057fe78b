//! A node in memory: tables of a given size, conntrack and one worker's pipeline.

use clap::Args;
use engine::event::Interest;
use engine::{Context, Counters, Engine, Event, Frame, Port, Sink, Verdict};
use flow::Table;
use ipnet::IpNet;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use tables::{
    Backend, Endpoint, Frontend, IpEntry, NextHop, Node, Peers, Policy, PolicySpec, PortMatch, Publisher,
    RuleEntry, RuleId, ServiceSpec, Snapshot, Uplink,
};
use wire::{Address, Identity, MacAddr, Protocol};

/// How much the tables hold beside what the scenarios need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Args, Serialize)]
pub struct Sizes {
    /// Policy rules of each pod and direction
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rules: u32,
    /// Remote pods in the ip → identity table
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=4_000_000))]
    pub pods: u32,
    /// Services
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub services: u32,
    /// Backends of each service
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub backends: u32,
    /// Slots of conntrack
    #[arg(long, default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(65_536..=16_777_216))]
    pub flows: u32,
}

/// A local pod that sends.
pub const CLIENT: Pod = Pod::local(2);
/// A local pod that receives, on port 80 only.
pub const SERVER: Pod = Pod::local(3);
/// A pod on another node.
pub const REMOTE: Address = Address::v4(0x0a3d_0001);
/// A service with remote backends, on port 80.
pub const SERVICE: Address = Address::v4(0x0a60_0001);
/// What the server's policy allows.
pub const OPEN_PORT: u16 = 80;
/// What it does not.
pub const CLOSED_PORT: u16 = 81;

/// A pod of this node.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// Host-side interface index, endpoint number and lowest part of its addresses.
    pub number: u16,
    /// Its identity.
    pub identity: Identity,
}

impl Pod {
    const fn local(number: u16) -> Pod {
        Pod { number, identity: Identity((1 << 16) + 1000 + number as u32) }
    }

    /// Its IPv4 address.
    pub fn v4(self) -> IpAddr {
        Ipv4Addr::new(10, 60, 1, self.number as u8).into()
    }

    /// Its IPv6 address.
    pub fn v6(self) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x60, 1, 0, 0, 0, 0, self.number).into()
    }

    /// Its link-layer address.
    pub fn mac(self) -> MacAddr {
        MacAddr([0x0a, 0, 0, 0, 0, self.number as u8])
    }

    fn endpoint(self, policy: Arc<Policy>) -> Endpoint {
        Endpoint {
            id: self.number,
            ifindex: self.number.into(),
            mac: self.mac(),
            addresses: [self.v4().into(), self.v6().into()].into(),
            identity: self.identity,
            policy,
        }
    }
}

/// Everything that [`Engine::process`] takes.
#[derive(Debug)]
pub struct World {
    snapshot: Arc<Snapshot>,
    flows: Table,
    verdicts: verdicts::Table,
    engine: Box<Engine>,
    counters: Box<Counters>,
    events: Events,
}

#[derive(Debug, Default)]
struct Events(u64);

impl Sink for Events {
    fn event(&mut self, _: &Event) {
        self.0 += 1;
    }
}

impl World {
    /// Fills the tables.
    pub fn new(sizes: Sizes) -> World {
        let publisher = Publisher::new(1);
        publisher.edit(|snapshot| fill(snapshot, sizes));
        World {
            snapshot: publisher.current(),
            flows: Table::boxed(sizes.flows as usize, 1),
            verdicts: verdicts::Table::boxed(65_536),
            engine: Box::new(Engine::new()),
            counters: Box::default(),
            events: Events::default(),
        }
    }

    /// Decides about one frame from a pod.
    pub fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        let context = Context {
            tables: &self.snapshot,
            flows: &self.flows,
            verdicts: &self.verdicts,
            cache_after: 0,
            now: 1000,
            clock: 0,
            interest: Interest { trace: false, verdict: false },
        };
        self.engine.process(&context, &self.counters, Port::Hub, frame, &mut self.events)
    }

    /// Forgets all flows.
    pub fn forget(&self) {
        self.flows.flush();
    }

    /// Events that were reported so far.
    pub fn events(&self) -> u64 {
        self.events.0
    }
}

fn fill(snapshot: &mut Snapshot, sizes: Sizes) {
    let gateway_mac = MacAddr([0x0a, 0, 0, 0, 0, 1]);
    snapshot.node = Node {
        gateway_v4: Some(Address::v4(0x0a3c_0101)),
        gateway_mac,
        pod_mtu: 1500,
        pod_ranges: vec![(Address::v4(0x0a3c_0100), Address::v4(0x0a3c_01ff))],
        uplinks: vec![Uplink { name: "uplink0".into(), ifindex: 100, mac: gateway_mac, mtu: 1500 }],
        ..Node::default()
    };
    let policy = Arc::new(policy(sizes.rules));
    for pod in [CLIENT, SERVER] {
        snapshot.endpoints.upsert(pod.endpoint(Arc::clone(&policy)));
    }
    let node = Address::v4(0x0a00_0102);
    let hop = snapshot.hops.intern(node);
    let mac = MacAddr([0x0a, 0, 0, 0, 1, 2]);
    snapshot.hops.resolve(node, Some(NextHop { uplink: 0, mac, mtu: 1500 }));
    for n in 0..sizes.pods.max(sizes.backends) {
        let identity = Identity((2 << 16) + n % 0xffff);
        snapshot.ipcache.upsert(IpNet::from(remote(n).ip()), IpEntry { identity, hop });
    }
    for n in 0..sizes.services.max(1) {
        let address = Address(SERVICE.0 + u128::from(n));
        let backend = |n| Backend { address: remote(n), port: OPEN_PORT, selectable: true };
        snapshot.services.upsert(ServiceSpec {
            id: n + 1,
            frontend: Frontend { address, port: OPEN_PORT, proto: Protocol::TCP },
            backends: (0..sizes.backends).map(backend).collect(),
        });
    }
}

fn remote(n: u32) -> Address {
    Address(REMOTE.0 + u128::from(n))
}

/// Anyone may send to [`OPEN_PORT`], the client also elsewhere; the rest is ballast.
fn policy(rules: u32) -> Policy {
    let rule = |rule, peers, ports: RangeInclusive<u16>| RuleEntry {
        peers,
        ports: PortMatch { proto: Some(Protocol::TCP), ports },
        deny: false,
        rule: RuleId(rule),
    };
    let ballast = |n: u32| {
        let port = 1000 + (n % 1000) as u16;
        rule(n + 2, Peers::Set([Identity((3 << 16) + n)].into()), port..=port)
    };
    let entries: Vec<RuleEntry> = (0..rules).map(ballast).collect();
    let with = |first: RuleEntry| Some([vec![first], entries.clone()].concat());
    Policy::compile(&PolicySpec {
        ingress: with(rule(1, Peers::Any, OPEN_PORT..=OPEN_PORT)),
        egress: with(rule(1, Peers::Any, OPEN_PORT..=CLOSED_PORT)),
    })
}
