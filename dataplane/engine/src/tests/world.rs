//! A node with two pods, and a bench to send packets through its pipeline.

use super::checksums::verify;
use crate::event::Interest;
use crate::{Context, Counters, DropReason, Engine, Event, EventKind, Frame, Port, Sink, Verdict};
use core::net::{IpAddr, SocketAddr};
use flow::Table;
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;
use tables::{
    Backend, Direction, Endpoint, Frontend, IpEntry, NextHop, Node, Peers, Policy, PolicySpec, PortMatch,
    Publisher, RuleEntry, RuleId, ServiceSpec, Uplink,
};
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin};
use wire::{Address, Identity, MacAddr, Protocol};

/// A pod in both families; `v6` chooses which one it speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod {
    pub(super) id: u16,
    pub(super) ifindex: u32,
    pub(super) mac: MacAddr,
    pub(super) v4: &'static str,
    pub(super) v6: &'static str,
    pub(super) identity: Identity,
}

pub(super) const A: Pod = Pod {
    id: 1001,
    ifindex: 11,
    mac: MacAddr([2, 0, 0, 0, 0, 0xa]),
    v4: "10.60.1.10",
    v6: "fd00:60:1::a",
    identity: Identity(101 << 16 | 1),
};
pub(super) const B: Pod = Pod {
    id: 1002,
    ifindex: 12,
    mac: MacAddr([2, 0, 0, 0, 0, 0xb]),
    v4: "10.60.1.11",
    v6: "fd00:60:1::b",
    identity: Identity(101 << 16 | 2),
};
pub(super) const NODE: &str = "192.168.0.1";
pub(super) const GATEWAY: &str = "10.60.1.1";
pub(super) const GATEWAY_V6: &str = "fd00:60:1::1";
pub(super) const GATEWAY_MAC: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
/// A pod of another cluster, with its node's neighbour entry resolved.
pub(super) const REMOTE: &str = "10.61.2.20";
pub(super) const REMOTE_V6: &str = "fd00:61:2::14";
pub(super) const REMOTE_IDENTITY: Identity = Identity(102 << 16 | 7);
/// A pod behind a node that does not answer.
pub(super) const LOST: &str = "10.61.3.3";
/// An address that the ipcache calls host.
pub(super) const IMPOSTOR: &str = "192.168.0.99";
pub(super) const UPLINK_MAC: MacAddr = MacAddr([2, 1, 0, 0, 0, 1]);
pub(super) const NEXT_HOP_MAC: MacAddr = MacAddr([2, 1, 0, 0, 0, 2]);
pub(super) const MTU: u16 = 1500;
/// A service on port 80 of every protocol; its backend is B on 8080.
pub(super) const VIP: Vip = Vip { v4: "10.96.0.1", v6: "fd00:96::1" };

pub(super) struct Vip {
    pub(super) v4: &'static str,
    pub(super) v6: &'static str,
}

impl Vip {
    pub(super) fn sock(&self) -> SocketAddr {
        sock(self.v4, 80)
    }
}

impl Pod {
    pub(super) fn ip(&self) -> IpAddr {
        self.v4.parse().unwrap()
    }

    pub(super) fn address(&self) -> Address {
        address(self.v4)
    }

    pub(super) fn at(&self, port: u16) -> SocketAddr {
        sock(self.v4, port)
    }
}

pub(super) fn sock(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub(super) fn ip(ip: &str) -> IpAddr {
    ip.parse().unwrap()
}

pub(super) fn address(text: &str) -> Address {
    ip(text).into()
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Via {
    Pod(Pod),
    Host,
    HostTo(Pod),
    /// The host's stack for somebody else.
    Forwarded,
    Uplink,
}

pub(super) struct World {
    pub(super) publisher: Arc<Publisher>,
    pub(super) flows: Table,
    pub(super) verdicts: verdicts::Table,
    pub(super) cache_after: u32,
    pub(super) may_hold: bool,
    pub(super) now: u32,
    engine: Box<Engine>,
    pub(super) counters: Counters,
    pub(super) last_event: Option<Event>,
}

/// All that a packet changed.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Delta {
    pub(super) dropped: Vec<(DropReason, Direction)>,
    pub(super) egress: u64,
    pub(super) ingress: u64,
    /// In conntrack, service entries included.
    pub(super) entries: i64,
    pub(super) events: Vec<EventKind>,
}

/// What came of one packet.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) verdict: Verdict,
    pub(super) frame: Vec<u8>,
    pub(super) delta: Delta,
}

impl Step {
    #[track_caller]
    pub(super) fn is(&self, verdict: Verdict, expected: &Craft) {
        assert_eq!(self.verdict, verdict);
        assert_eq!(Craft::read(&self.frame).as_ref(), Craft::read(&expected.build()).as_ref());
        assert_eq!(self.frame, expected.build());
    }

    pub(super) fn events(&self) -> &[EventKind] {
        &self.delta.events
    }

    pub(super) fn drops(&self) -> usize {
        self.delta.dropped.len()
    }

    #[track_caller]
    pub(super) fn changed(&self, expected: &Delta) {
        assert_eq!(&self.delta, expected);
    }

    #[track_caller]
    pub(super) fn dropped(&self, reason: DropReason, direction: Direction) {
        assert_eq!(self.verdict, Verdict::Drop(reason));
        self.changed(&super::dropped(reason, direction));
    }
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Sink for Events {
    fn event(&mut self, event: &Event) {
        self.0.push(*event);
    }
}

impl World {
    pub(super) fn new() -> World {
        let publisher = Publisher::new(7);
        publisher.edit(|tables| {
            tables.node = Node {
                addresses: [NODE, GATEWAY, GATEWAY_V6].map(address).to_vec(),
                gateway_v4: Some(address(GATEWAY)),
                gateway_v6: Some(address(GATEWAY_V6)),
                gateway_mac: GATEWAY_MAC,
                pod_mtu: MTU,
                pod_ranges: Vec::from([
                    (address("10.60.1.0"), address("10.60.1.255")),
                    (address("fd00:60:1::"), address("fd00:60:1::ffff")),
                ]),
                uplinks: Vec::from([Uplink { name: "up0".into(), ifindex: 2, mac: UPLINK_MAC, mtu: MTU }]),
                dual_stack: true,
            };
            for (prefix, identity, node) in [
                ("10.61.2.20/32", REMOTE_IDENTITY, "192.168.0.2"),
                ("fd00:61:2::14/128", REMOTE_IDENTITY, "192.168.0.2"),
                ("10.61.3.3/32", REMOTE_IDENTITY, "192.168.0.3"),
                // Around our pods.
                ("10.60.0.0/16", REMOTE_IDENTITY, "192.168.0.2"),
                ("192.168.0.99/32", Identity::HOST, ""),
            ] {
                let hop =
                    node.parse::<IpAddr>().map(|node| tables.hops.intern(node.into())).unwrap_or_default();
                tables.ipcache.upsert(prefix.parse().unwrap(), IpEntry { identity, hop });
            }
            let next = NextHop { uplink: 0, mac: NEXT_HOP_MAC, mtu: MTU };
            assert!(tables.hops.resolve(address("192.168.0.2"), Some(next)));
        });
        let mut world = World {
            publisher,
            flows: Table::boxed(1024, 42),
            verdicts: verdicts::Table::boxed(1024),
            cache_after: 0,
            may_hold: false,
            now: 1000,
            engine: Box::new(Engine::new()),
            counters: Counters::new(),
            last_event: None,
        };
        world.policy(&A, PolicySpec::default());
        world.policy(&B, PolicySpec::default());
        world.backends(&[(B.v4, B.v6, true)]);
        world
    }

    pub(super) fn policy(&mut self, pod: &Pod, spec: PolicySpec) {
        self.publisher.edit(|tables| {
            tables.endpoints.upsert(Endpoint {
                id: pod.id,
                ifindex: pod.ifindex,
                mac: pod.mac,
                addresses: [address(pod.v4), address(pod.v6)].into(),
                identity: pod.identity,
                policy: Arc::new(Policy::compile(&spec)),
            });
        });
    }

    /// Puts the pod into default deny in both directions.
    pub(super) fn deny_all(&mut self, pod: &Pod) {
        self.policy(pod, PolicySpec { ingress: Some(Vec::new()), egress: Some(Vec::new()) });
    }

    /// Gives the services these backends: (v4, v6, selectable).
    pub(super) fn backends(&mut self, pods: &[(&str, &str, bool)]) {
        self.publisher.edit(|tables| {
            for (vip, v6) in [(VIP.v4, false), (VIP.v6, true)] {
                for proto in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
                    let backend = |&(a, b, selectable): &(&str, &str, bool)| Backend {
                        address: address(if v6 { b } else { a }),
                        port: 8080,
                        weight: u32::from(selectable),
                    };
                    tables.services.upsert(ServiceSpec {
                        id: 5,
                        frontend: Frontend { address: address(vip), port: 80, proto },
                        backends: pods.iter().map(backend).collect(),
                    });
                }
            }
        });
    }

    /// The frame of a packet as it arrives.
    pub(super) fn frame(&self, via: Via, craft: Craft) -> Vec<u8> {
        let link = |from, origin: Origin| (from, origin.encode());
        let host_mac = MacAddr([2, 9, 9, 9, 9, 9]);
        let (from, to) = match via {
            Via::Pod(pod) => {
                let to = LinkDestination::Gateway;
                link(pod.mac, Origin::Pod { ifindex: pod.ifindex, to })
            }
            Via::Host => link(host_mac, Origin::Host),
            Via::HostTo(pod) => link(host_mac, Origin::HostToPod { ifindex: pod.ifindex }),
            Via::Forwarded => link(host_mac, Origin::Forwarded { link: None }),
            Via::Uplink => (NEXT_HOP_MAC, UPLINK_MAC),
        };
        craft.link(from, to).build()
    }

    pub(super) fn send(&mut self, via: Via, craft: Craft) -> Step {
        let frame = self.frame(via, craft);
        let port = if matches!(via, Via::Uplink) { Port::Uplink(0) } else { Port::Hub };
        let step = self.send_frame(port, &frame);
        if matches!(step.verdict, Verdict::Transmit(_)) {
            verify(&step.frame);
        }
        step
    }

    pub(super) fn send_frame(&mut self, port: Port, bytes: &[u8]) -> Step {
        self.send_split(port, bytes, bytes.len())
    }

    /// Sends a frame whose first buffer ends after `first` bytes.
    pub(super) fn send_split(&mut self, port: Port, bytes: &[u8], first: usize) -> Step {
        let before = self.state();
        let (bytes, rest) = bytes.split_at(first);
        let mut buf = std::vec![0xa5; 256 + bytes.len() + 128];
        buf[256..256 + bytes.len()].copy_from_slice(bytes);
        let mut frame = Frame { buf: &mut buf, head: 256, len: bytes.len(), tail: rest.len() };
        let mut events = Events::default();
        let tables = self.publisher.current();
        let ctx = Context {
            tables: &tables,
            flows: &self.flows,
            verdicts: &self.verdicts,
            cache_after: self.cache_after,
            now: self.now,
            clock: self.clock(),
            interest: Interest { trace: true, verdict: true },
            may_hold: self.may_hold,
        };
        let verdict = self.engine.process(&ctx, &self.counters, port, &mut frame, &mut events);
        let frame = [frame.bytes(), &rest[..frame.tail]].concat();
        let after = self.state();
        self.last_event = events.0.last().copied().or(self.last_event);
        let dropped = after.dropped.iter().zip(&before.dropped).filter(|(after, before)| after.1 != before.1);
        let delta = Delta {
            dropped: dropped.map(|(after, _)| after.0).collect(),
            egress: after.egress - before.egress,
            ingress: after.ingress - before.ingress,
            entries: after.entries - before.entries,
            events: events.0.iter().map(|event| event.kind).collect(),
        };
        Step { verdict, frame, delta }
    }

    /// Now, by the clock of the verdict cache.
    pub(super) fn clock(&self) -> u64 {
        u64::from(self.now) * 1_000_000_000
    }

    fn state(&self) -> State {
        let directions = [Direction::Ingress, Direction::Egress];
        let cells = DropReason::ALL.iter().flat_map(|&reason| directions.map(|side| (reason, side)));
        let dropped =
            cells.map(|(reason, side)| ((reason, side), self.counters.read_dropped(reason, side).0));
        State {
            dropped: dropped.collect(),
            egress: self.counters.read_forwarded(Direction::Egress).0,
            ingress: self.counters.read_forwarded(Direction::Ingress).0,
            entries: self.flows.stats().entries as i64,
        }
    }
}

struct State {
    dropped: Vec<((DropReason, Direction), u64)>,
    egress: u64,
    ingress: u64,
    entries: i64,
}

/// An entry about any peer, any port or one TCP port.
pub(super) fn rule(id: u32, peer: Option<Identity>, port: Option<u16>, deny: bool) -> RuleEntry {
    RuleEntry {
        peers: peer.map_or(Peers::Any, |peer| Peers::Set([peer].into())),
        ports: PortMatch {
            proto: port.map(|_| Protocol::TCP),
            ports: port.map_or(0..=65535, |port| port..=port),
        },
        deny,
        rule: RuleId(id),
    }
}
