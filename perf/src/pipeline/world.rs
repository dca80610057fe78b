//! A node in memory: tables of a given size, conntrack, the verdict cache, and workers that share them.

use super::packet::{self, REMOTE_NODE};
use clap::ValueEnum;
use engine::event::Interest;
use engine::{Context, Counters, Engine, Event, Frame, Port, Preview, Sink, Verdict};
use flow::NewFlow;
use ipnet::IpNet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tables::{
    Backend, Endpoint, Frontend, IpEntry, NextHop, Node, Peers, Policy, PolicySpec, PortMatch, Publisher,
    Reader, RuleEntry, RuleId, ServiceSpec, Snapshot, Uplink,
};
use wire::{Address, Identity, Protocol, Tuple};

/// How much the tables hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Policy rules of each pod and direction.
    pub rules: u32,
    /// Addresses of remote pods in the ip → identity table.
    pub addresses: u32,
    /// Services of [`BACKENDS`] backends.
    pub services: u32,
    /// Flows in conntrack that nobody uses.
    pub idle: u32,
}

impl Sizes {
    /// Next to nothing.
    pub const SMALL: Sizes = Sizes { rules: 10, addresses: 100, services: 10, idle: 0 };
    /// More than most have.
    pub const LARGE: Sizes = Sizes { rules: 10_000, addresses: 1_000_000, services: 10_000, idle: 1_000_000 };
}

/// Frames that are decided about at once, at most.
pub const BURST: usize = 256;
/// Backends of a service.
pub const BACKENDS: u32 = 10;
/// Slots of conntrack and of the verdict cache as the agent has them by default.
const FLOWS: u32 = 262_144;
const VERDICTS: usize = 131_072;
/// Packets of a flow, both directions, from which on its verdicts are cached.
const CACHE_AFTER: u32 = 4;
/// Seconds since boot; nothing expires while it stands still.
const NOW: u32 = 1000;

/// Whether workers look into the verdict cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Cache {
    /// As workers run.
    On,
    /// Every packet goes through the whole pipeline.
    Off,
}

/// What the workers of a node share.
#[derive(Debug)]
pub struct World {
    /// Where tables are changed.
    pub publisher: Arc<Publisher>,
    /// Conntrack.
    pub flows: flow::Table,
    /// The verdict cache.
    pub verdicts: verdicts::Table,
    /// In its place for workers that do without.
    no_verdicts: verdicts::Table,
}

impl World {
    /// Fills the tables; conntrack has room for `active` flows more.
    pub fn new(sizes: Sizes, active: u32) -> World {
        let publisher = Publisher::new(1);
        publisher.edit(|snapshot| fill(snapshot, sizes));
        // Full to six tenths at most: from seven on some new flows find no room.
        let slots = FLOWS.max((sizes.idle + active) / 6 * 10);
        let flows = flow::Table::boxed(slots as usize, 1);
        // Some few may find no room. The others than idle ones only touch the memory: nobody is to
        // pay for its first use later.
        for n in 0..sizes.idle.max(slots / 4) {
            if let Ok(id) = flows.insert(&idle(n), NOW)
                && n >= sizes.idle
            {
                flows.remove(id);
            }
        }
        World {
            publisher,
            flows,
            verdicts: verdicts::Table::boxed(VERDICTS),
            no_verdicts: verdicts::Table::boxed(1),
        }
    }

    /// A worker of the node.
    pub fn worker(&self, cache: Cache) -> Worker<'_> {
        Worker {
            world: self,
            cache,
            reader: self.publisher.reader(),
            engine: Box::new(Engine::new()),
            counters: Box::default(),
            previews: Vec::with_capacity(BURST),
            events: Events::default(),
            may_hold: false,
        }
    }

    /// Empties the verdict cache.
    pub fn forget_verdicts(&self) {
        self.verdicts.flush();
        self.verdicts.recycle(self.verdicts.retired(), |_| ());
    }

    /// Removes the flow that a packet with this tuple has begun.
    pub fn forget(&self, received: &Tuple) {
        let mut tuple = *received;
        if let Some((entry, dst, dport, _)) = self.flows.lookup_service(received, NOW) {
            tuple = Tuple { dst, dport, ..tuple };
            self.flows.remove(entry);
        }
        if let Some((flow, _)) = self.flows.lookup(&tuple, NOW) {
            self.flows.remove(flow.id);
        }
    }
}

/// One worker: everything that [`Engine::process`] takes.
#[derive(Debug)]
pub struct Worker<'a> {
    world: &'a World,
    cache: Cache,
    reader: Reader,
    engine: Box<Engine>,
    counters: Box<Counters>,
    previews: Vec<Preview>,
    events: Events,
    /// Whether packets to and from pods that are not known yet are put off.
    pub may_hold: bool,
}

#[derive(Debug, Default)]
struct Events(u64);

impl Sink for Events {
    fn event(&mut self, _: &Event) {
        self.0 += 1;
    }
}

impl Worker<'_> {
    /// Decides about a burst of at most [`BURST`] frames received on `port`, as the agent's workers do.
    pub fn process(&mut self, port: Port, burst: &mut [Frame<'_>], mut each: impl FnMut(Verdict)) {
        let (verdicts, cache_after) = match self.cache {
            Cache::On => (&self.world.verdicts, CACHE_AFTER),
            Cache::Off => (&self.world.no_verdicts, 0),
        };
        let context = Context {
            tables: self.reader.pin(),
            flows: &self.world.flows,
            verdicts,
            cache_after,
            now: NOW,
            clock: u64::from(NOW) * 1_000_000_000,
            interest: Interest { trace: false, verdict: false },
            may_hold: self.may_hold,
        };
        self.previews.clear();
        self.previews.extend(burst.iter().map(|frame| Preview::read(&context, port, frame)));
        Preview::read_on(&context, &self.previews);
        for (frame, preview) in burst.iter_mut().zip(&self.previews) {
            each(self.engine.decide(&context, &self.counters, preview, frame, &mut self.events));
        }
    }

    /// Events that were reported so far.
    pub fn events(&self) -> u64 {
        self.events.0
    }
}

fn fill(snapshot: &mut Snapshot, sizes: Sizes) {
    snapshot.node = Node {
        gateway_v4: Some(Address::v4(0x0a3c_0101)),
        gateway_mac: packet::UPLINK_MAC,
        pod_mtu: 1500,
        pod_ranges: vec![(Address::v4(0x0a3c_0100), Address::v4(0x0a3c_01ff))],
        uplinks: vec![Uplink { name: "uplink0".into(), ifindex: 1000, mac: packet::UPLINK_MAC, mtu: 1500 }],
        ..Node::default()
    };
    let policy = Arc::new(policy(sizes.rules));
    for pod in packet::pods() {
        snapshot.endpoints.upsert(Endpoint {
            id: pod.number,
            ifindex: pod.number.into(),
            mac: pod.mac(),
            addresses: [pod.v4().into(), pod.v6().into()].into(),
            identity: Identity((1 << 16) + 1000 + u32::from(pod.number)),
            policy: Arc::clone(&policy),
        });
    }
    let hop = snapshot.hops.intern(REMOTE_NODE);
    snapshot.hops.resolve(REMOTE_NODE, Some(NextHop { uplink: 0, mac: packet::REMOTE_MAC, mtu: 1500 }));
    let backends = if sizes.services > 0 { BACKENDS } else { 0 };
    let addresses = sizes.addresses.max(backends);
    for n in 0..addresses {
        snapshot
            .ipcache
            .upsert(IpNet::from(packet::remote(n)), IpEntry { identity: remote_identity(n), hop });
    }
    for n in 0..sizes.services {
        let backend = |b| Backend {
            address: packet::remote((n * BACKENDS + b) % addresses).into(),
            port: packet::BACKEND_PORT,
            weight: 1,
        };
        snapshot.services.upsert(ServiceSpec {
            id: n + 1,
            frontend: Frontend {
                address: packet::service(n).into(),
                port: packet::OPEN_PORT,
                proto: Protocol::TCP,
            },
            backends: (0..BACKENDS).map(backend).collect(),
        });
    }
}

/// What another node says who is behind an address.
pub fn remote_identity(n: u32) -> Identity {
    Identity((2 << 16) + n % 0xffff)
}

/// The first rule lets anybody talk on the open ports; all others are about one remote
/// identity and a port of its own.
fn policy(rules: u32) -> Policy {
    let rule = |number, peers, ports: RangeInclusive<u16>, deny| RuleEntry {
        peers,
        ports: PortMatch { proto: Some(Protocol::TCP), ports },
        deny,
        rule: RuleId(number),
    };
    let open = packet::OPEN_PORT..=packet::BACKEND_PORT;
    let about = |n: u32| {
        let port = 1000 + (n % 1000) as u16;
        rule(n, Peers::Set([remote_identity(n)].into()), port..=port, n.is_multiple_of(2))
    };
    let entries: Vec<RuleEntry> =
        [rule(0, Peers::Any, open, false)].into_iter().chain((1..rules).map(about)).collect();
    Policy::compile(&PolicySpec { ingress: Some(entries.clone()), egress: Some(entries) })
}

/// A flow between others.
fn idle(n: u32) -> NewFlow {
    NewFlow {
        tuple: Tuple {
            src: Address::v4(0x0b00_0000 + n / 1000),
            dst: Address::v4(0x0c00_0001),
            sport: 1024 + (n % 1000) as u16,
            dport: 443,
            proto: Protocol::TCP,
        },
        translated_from: None,
        service: 0,
        src_identity: Identity::WORLD,
        dst_identity: Identity::HOST,
        generation: 1,
    }
}
