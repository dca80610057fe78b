//! The verdict cache changes nothing: what workers and the kernel repeat is what the pipeline
//! decides, packet by packet, frame by frame, and conntrack comes to the same.

use super::world::*;
use crate::admit::Sender;
use crate::cache::{forget, learn};
use crate::event::Interest;
use crate::{Context, Port, Verdict, confirm, forward, read_ahead};
use flow::{Count, Flow};
use proptest::prelude::*;
use std::string::ToString;
use std::vec;
use std::vec::Vec;
use tables::{Direction, HopId, IpEntry, NextHop, PolicySpec};
use verdicts::{Exit, Key};
use wire::craft::Craft;
use wire::hub::{LinkDestination, Origin, deliver_to_pod};
use wire::parse::tcp::{ACK, FIN, RST, SYN, URG};
use wire::{Identity, MacAddr, Protocol, Tuple};

const PSH: u8 = 8;
/// What conntrack shows of TCP flags that decides anything.
const FLAGS: u8 = SYN | ACK | FIN | RST;

/// Who repeats verdicts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repeats {
    Worker,
    /// A program before the worker, which knows no generations, and verdicts are held against new
    /// tables as soon as there are any.
    Kernel,
}

#[derive(Clone, Debug)]
enum Op {
    Packet(Packet),
    /// Seconds pass.
    Wait(u32),
    /// Pod A or B gets this policy.
    Policy(bool, usize),
    /// Pod B goes, or comes back with another interface and address.
    Endpoint(Option<bool>),
    Backends(usize),
    /// The remote pod gets this identity, or none.
    Identity(Option<u32>),
    /// The way to the remote node is lost, or found with this MTU.
    Hop(Option<u16>),
}

/// A packet of one of some flows.
#[derive(Clone, Debug)]
struct Packet {
    talk: usize,
    reply: bool,
    flags: u8,
    ttl: u8,
    payload: usize,
    oddity: Oddity,
}

#[derive(Clone, Debug)]
enum Oddity {
    None,
    Padding,
    Fragments,
    Edit(usize, u8),
    WrongSource,
    WrongMac,
    To(LinkDestination),
    FromElsewhere,
}

/// Client's source port, what it talks to, and who answers from where.
struct Talk {
    proto: Protocol,
    v6: bool,
    from: Who,
    to: Who,
    answers: Who,
    port: u16,
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    A,
    B,
    Remote,
    Service,
}

impl Who {
    fn ip(self, v6: bool) -> &'static str {
        match (self, v6) {
            (Who::A, false) => A.v4,
            (Who::A, true) => A.v6,
            (Who::B, false) => B.v4,
            (Who::B, true) => B.v6,
            (Who::Remote, false) => REMOTE,
            (Who::Remote, true) => REMOTE_V6,
            (Who::Service, false) => VIP.v4,
            (Who::Service, true) => VIP.v6,
        }
    }
}

const TALKS: &[Talk] = &{
    const fn talk(proto: Protocol, v6: bool, from: Who, to: Who, answers: Who) -> Talk {
        Talk { proto, v6, from, to, answers, port: 4000 }
    }
    const TCP: Protocol = Protocol::TCP;
    const UDP: Protocol = Protocol::UDP;
    [
        talk(TCP, false, Who::A, Who::B, Who::B),
        talk(UDP, true, Who::A, Who::B, Who::B),
        talk(TCP, true, Who::B, Who::Remote, Who::Remote),
        talk(UDP, false, Who::A, Who::Remote, Who::Remote),
        talk(TCP, false, Who::Remote, Who::A, Who::A),
        talk(UDP, true, Who::Remote, Who::B, Who::B),
        talk(TCP, false, Who::A, Who::Service, Who::B),
        talk(TCP, false, Who::A, Who::Service, Who::Remote),
        talk(UDP, true, Who::A, Who::Service, Who::B),
        talk(UDP, true, Who::A, Who::Service, Who::Remote),
        talk(TCP, false, Who::A, Who::Service, Who::A),
        talk(UDP, false, Who::B, Who::Service, Who::B),
    ]
};

fn any_packet() -> impl Strategy<Value = Packet> {
    let flags = prop_oneof![
        8 => Just(ACK),
        2 => Just(ACK | PSH),
        2 => Just(SYN),
        1 => Just(SYN | ACK),
        1 => Just(FIN | ACK),
        1 => prop::sample::select(vec![RST, RST | ACK, ACK | URG, 0, SYN | FIN, ACK | 0xc0]),
    ];
    let oddity = prop_oneof![
        12 => Just(Oddity::None),
        1 => prop_oneof![
            Just(Oddity::Padding),
            Just(Oddity::Fragments),
            (12..70usize, any::<u8>()).prop_map(|(at, value)| Oddity::Edit(at, value)),
            Just(Oddity::WrongSource),
            Just(Oddity::WrongMac),
            Just(Oddity::To(LinkDestination::Group)),
            Just(Oddity::To(LinkDestination::Other)),
            Just(Oddity::FromElsewhere),
        ],
    ];
    let ttl = prop_oneof![8 => Just(64u8), 1 => 0..3u8];
    let payload = prop_oneof![6 => 0..32usize, 1 => Just(1400), 1 => 1430..1500usize];
    (0..TALKS.len(), any::<bool>(), flags, ttl, payload, oddity).prop_map(
        |(talk, reply, flags, ttl, payload, oddity)| Packet { talk, reply, flags, ttl, payload, oddity },
    )
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        24 => any_packet().prop_map(Op::Packet),
        2 => prop_oneof![0..3u32, 55..64u32, 7990..8010u32].prop_map(Op::Wait),
        1 => (any::<bool>(), 0..5usize).prop_map(|(b, spec)| Op::Policy(b, spec)),
        1 => any::<Option<bool>>().prop_map(Op::Endpoint),
        1 => (0..6usize).prop_map(Op::Backends),
        1 => prop_oneof![Just(None), Just(Some(7)), Just(Some(8))].prop_map(Op::Identity),
        1 => prop_oneof![Just(None), Just(Some(1500)), Just(Some(1450))].prop_map(Op::Hop),
    ]
}

/// Random packets seldom make a flow, so some talk for a while.
fn any_ops() -> impl Strategy<Value = Vec<Op>> {
    let talk = (0..TALKS.len(), 2..8usize).prop_map(|(talk, packets)| {
        let packet = |reply, flags| Packet { talk, reply, flags, ttl: 64, payload: 9, oddity: Oddity::None };
        let open = [packet(false, SYN), packet(true, SYN | ACK)];
        let rest = (0..packets).map(|n| packet(n % 2 == 1, ACK));
        open.into_iter().chain(rest).map(Op::Packet).collect::<Vec<_>>()
    });
    let ops = prop_oneof![3 => prop::collection::vec(any_op(), 1..12), 1 => talk];
    prop::collection::vec(ops, 1..14).prop_map(|parts| parts.concat())
}

impl Packet {
    fn tuple(&self) -> (Who, Craft) {
        let Talk { proto, v6, from, to, answers, port } = &TALKS[self.talk];
        let service_port = if *to == Who::Service { 80 } else { 8080 };
        let (sender, src, dst) = if self.reply {
            (*answers, sock(answers.ip(*v6), 8080), sock(from.ip(*v6), *port))
        } else {
            (*from, sock(from.ip(*v6), *port), sock(to.ip(*v6), service_port))
        };
        let craft =
            if *proto == Protocol::TCP { Craft::tcp(src, dst, self.flags) } else { Craft::udp(src, dst) };
        (sender, Craft { ttl: self.ttl, ..craft.payload(&[7; 1500][..self.payload]) })
    }

    /// Where it comes in, and its frames.
    fn frames(&self, world: &World) -> (Port, Vec<Vec<u8>>) {
        let (sender, mut craft) = self.tuple();
        let pod = |pod: Pod| {
            let tables = world.publisher.current();
            let ifindex =
                tables.endpoints.by_address(pod.address()).map_or(pod.ifindex, |known| known.ifindex);
            (Port::Hub, Origin::Pod { ifindex, to: LinkDestination::Gateway }.encode(), pod.mac)
        };
        let (mut port, mut to, mut from) = match sender {
            Who::A => pod(A),
            Who::B => pod(B),
            Who::Remote | Who::Service => (Port::Uplink(0), UPLINK_MAC, NEXT_HOP_MAC),
        };
        match self.oddity {
            Oddity::WrongSource => {
                craft.src = address(if craft.src.is_v4() { "10.60.1.77" } else { "fd00::77" })
            }
            Oddity::WrongMac if port == Port::Hub => from = MacAddr([2, 0, 0, 0, 0, 0x77]),
            Oddity::WrongMac => to = MacAddr([2, 0, 0, 0, 0, 0x77]),
            Oddity::To(class) => to = Origin::Pod { ifindex: A.ifindex, to: class }.encode(),
            Oddity::FromElsewhere if port == Port::Hub => {
                (port, to, from) = (Port::Uplink(0), UPLINK_MAC, NEXT_HOP_MAC)
            }
            Oddity::FromElsewhere => (port, to, from) = pod(A),
            _ => {}
        }
        let craft = craft.link(from, to);
        if matches!(self.oddity, Oddity::Fragments) {
            return (port, craft.fragments(7, 16));
        }
        let mut frame = craft.build();
        match self.oddity {
            Oddity::Padding => frame.resize(frame.len() + 5, 0),
            Oddity::Edit(at, value) if at < frame.len() => frame[at] = value,
            _ => {}
        }
        (port, vec![frame])
    }
}

impl World {
    fn context<R>(&self, each: impl FnOnce(&Context<'_>) -> R) -> R {
        each(&Context {
            tables: &self.publisher.current(),
            flows: &self.flows,
            verdicts: &self.verdicts,
            cache_after: self.cache_after,
            now: self.now,
            clock: self.clock(),
            interest: Interest::default(),
            may_hold: false,
        })
    }

    /// Gives conntrack what verdicts were used for, and takes back those that are over.
    fn account(&self, forwarded: &mut [Count; 2]) {
        let mut each = |usage: &verdicts::Usage| {
            let verdict = &usage.verdict;
            let tcp = verdict.key.tuple.proto == Protocol::TCP;
            let (flags, passed) =
                (if tcp { ACK } else { 0 }, Count { packets: usage.packets, bytes: usage.bytes });
            let seen = (usage.last_used / 1_000_000_000) as u32;
            if usage.packets > 0 {
                self.flows.add(verdict.flow, verdict.side, flags, passed, seen);
            }
            let leaves_pod = verdict.key.ifindex != self.publisher.current().node.uplinks[0].ifindex;
            let enters_pod = matches!(verdict.exit, Exit::Pod { .. });
            for (count, applies) in forwarded.iter_mut().zip([leaves_pod, enters_pod]) {
                if applies {
                    count.packets += usage.packets;
                    count.bytes += usage.bytes + 14 * usage.packets;
                }
            }
        };
        self.verdicts.account(&mut each);
        self.verdicts.recycle(self.verdicts.retired(), each);
    }

    /// What conntrack knows, as far as it decides anything.
    fn conntrack(&self) -> Vec<(Flow, bool)> {
        let mut flows = Vec::new();
        self.flows.for_each(self.now, |flow, service| {
            let mut flow = *flow;
            flow.id = flow::FlowId { slot: 0, version: 0 };
            flow.new.generation = 0;
            flow.state.original_flags &= FLAGS;
            flow.state.reply_flags &= FLAGS;
            if service {
                // It follows its flow up to a second later.
                (flow.state, flow.last_seen, flow.expires) = Default::default();
            }
            flows.push((flow, service));
        });
        flows.sort_by_key(|(flow, service)| std::format!("{:?} {service}", flow.new.tuple));
        flows
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Packet(_) | Op::Wait(_) => {}
            Op::Policy(b, spec) => {
                let pod = if *b { B } else { A };
                let spec = match spec {
                    0 => PolicySpec::default(),
                    1 => PolicySpec { ingress: Some(Vec::new()), egress: None },
                    2 => PolicySpec { ingress: None, egress: Some(Vec::new()) },
                    3 => PolicySpec {
                        ingress: Some(vec![
                            rule(1, Some(A.identity), None, false),
                            rule(2, Some(REMOTE_IDENTITY), None, false),
                        ]),
                        egress: None,
                    },
                    _ => PolicySpec {
                        ingress: Some(vec![
                            rule(1, None, None, false),
                            rule(2, Some(REMOTE_IDENTITY), Some(8080), true),
                        ]),
                        egress: None,
                    },
                };
                self.policy(&pod, spec);
            }
            Op::Endpoint(None) => _ = self.publisher.edit(|tables| tables.endpoints.remove(B.id)),
            Op::Endpoint(Some(moved)) => {
                let ifindex = if *moved { 13 } else { B.ifindex };
                self.policy(&Pod { ifindex, ..B }, PolicySpec::default());
            }
            Op::Backends(which) => {
                let (a, b, remote) = ((A.v4, A.v6, true), (B.v4, B.v6, true), (REMOTE, REMOTE_V6, true));
                let draining = |(v4, v6, _)| (v4, v6, false);
                let backends = match which {
                    0 => vec![],
                    1 => vec![b],
                    2 => vec![remote],
                    3 => vec![draining(b), remote],
                    4 => vec![b, draining(remote)],
                    _ => vec![a],
                };
                self.backends(&backends);
            }
            Op::Identity(number) => self.publisher.edit(|tables| {
                for (prefix, ip) in [(32, REMOTE), (128, REMOTE_V6)] {
                    let prefix = [ip, "/", &prefix.to_string()].concat().parse().unwrap();
                    match number {
                        None => _ = tables.ipcache.remove(prefix),
                        Some(number) => {
                            let identity = Identity(102 << 16 | number);
                            let hop: HopId = tables.hops.intern(address("192.168.0.2"));
                            tables.ipcache.upsert(prefix, IpEntry { identity, hop });
                        }
                    }
                }
            }),
            Op::Hop(mtu) => {
                _ = self.publisher.edit(|tables| {
                    let next = mtu.map(|mtu| NextHop { uplink: 0, mac: NEXT_HOP_MAC, mtu });
                    tables.hops.resolve(address("192.168.0.2"), next)
                })
            }
        }
    }

    /// What a program of the kernel does with a frame, told from the list of all verdicts; the
    /// way out is that of a worker, for comparison.
    fn kernel(&self, port: Port, frame: &[u8]) -> Option<(Verdict, Vec<u8>)> {
        let plain = wire::plain(frame, 0)?;
        // Damaged checksums, which stay as wrong as they are, are left to the worker here.
        let craft = Craft::read(frame).filter(|craft| craft.build() == frame)?;
        let (dst, src) = wire::parse::macs(frame)?;
        let (ifindex, mac) = match (port, Origin::decode(dst)) {
            (Port::Uplink(_), _) => (self.publisher.current().node.uplinks[0].ifindex, dst),
            (Port::Hub, Some(Origin::Pod { ifindex, to: LinkDestination::Gateway })) => (ifindex, src),
            _ => return None,
        };
        let key = Key { ifindex, tuple: plain.tuple };
        let mut found = None;
        self.verdicts.for_each(|verdict, _| {
            if verdict.key == key {
                found = Some(*verdict);
            }
        });
        let verdict = found.filter(|verdict| verdict.expect == mac && plain.l3_len <= verdict.mtu.into())?;
        let hit = self.verdicts.lookup(&self.verdicts.probe(&key, mac), verdict.generation, self.clock())?;
        hit.count(plain.l3_len as u64, self.clock());
        let Tuple { src, dst, sport, dport, .. } = verdict.tuple;
        let mut l4 = craft.l4.clone();
        l4[..2].copy_from_slice(&sport.to_be_bytes());
        l4[2..4].copy_from_slice(&dport.to_be_bytes());
        let (port, from) = match verdict.exit {
            Exit::Pod { ifindex } => (Port::Hub, deliver_to_pod(ifindex)),
            Exit::Uplink { index, .. } => (Port::Uplink(index), verdict.from),
        };
        let craft = Craft { src, dst, l4, ttl: craft.ttl - 1, ..craft };
        Some((Verdict::Transmit(port), craft.link(from, verdict.to).build()))
    }
}

fn run(repeats: Repeats, cache_after: u32, ops: &[Op]) -> Result<usize, TestCaseError> {
    let (mut pure, mut cached) = (World::new(), World::new());
    cached.cache_after = cache_after;
    let mut forwarded = [Count::default(); 2];
    for (number, op) in ops.iter().enumerate() {
        if let Op::Packet(packet) = op {
            let (port, frames) = packet.frames(&pure);
            for frame in frames {
                let expected = pure.send_frame(port, &frame);
                let kernel = if repeats == Repeats::Kernel { cached.kernel(port, &frame) } else { None };
                let (verdict, bytes) = match kernel {
                    Some(done) => done,
                    None => {
                        let step = cached.send_frame(port, &frame);
                        prop_assert_eq!(step.events(), expected.events(), "{}: {:?}", number, op);
                        prop_assert_eq!(&step.delta.dropped, &expected.delta.dropped, "{}: {:?}", number, op);
                        prop_assert_eq!(step.delta.entries, expected.delta.entries, "{}: {:?}", number, op);
                        (step.verdict, step.frame)
                    }
                };
                prop_assert_eq!(verdict, expected.verdict, "{}: {:?}", number, op);
                prop_assert_eq!(bytes, expected.frame, "{}: {:?}", number, op);
            }
            continue;
        }
        cached.account(&mut forwarded);
        prop_assert_eq!(pure.conntrack(), cached.conntrack(), "before {}: {:?}", number, op);
        for world in [&mut pure, &mut cached] {
            world.apply(op);
            if let Op::Wait(seconds) = op {
                world.now += seconds;
            }
        }
        if repeats == Repeats::Kernel {
            cached.context(|ctx| {
                let ahead = |some: &[verdicts::Verdict]| read_ahead(ctx, some);
                ctx.verdicts.revalidate(
                    ctx.tables.generation,
                    |_| true,
                    ahead,
                    |verdict| confirm(ctx, verdict),
                )
            });
        }
    }
    cached.account(&mut forwarded);
    prop_assert_eq!(pure.conntrack(), cached.conntrack());
    for (count, direction) in forwarded.into_iter().zip([Direction::Egress, Direction::Ingress]) {
        let (packets, bytes) = cached.counters.read_forwarded(direction);
        prop_assert_eq!(
            (packets + count.packets, bytes + count.bytes),
            pure.counters.read_forwarded(direction)
        );
    }
    Ok(forwarded[0].packets as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn workers_repeat_what_the_pipeline_decides(after in 1..5u32, ops in any_ops()) {
        run(Repeats::Worker, after, &ops)?;
    }

    #[test]
    fn the_kernel_repeats_what_the_pipeline_decides(after in 1..5u32, ops in any_ops()) {
        run(Repeats::Kernel, after, &ops)?;
    }
}

/// A worker that has looked a flow up before another one saw its end.
#[test]
fn nothing_is_cached_of_a_flow_that_ended_meanwhile() {
    let (client, server) = (A.at(4000), B.at(8080));
    for ends in [&[(A, FIN | ACK), (B, FIN | ACK)][..], &[(B, RST)], &[]] {
        let mut world = World::new();
        world.cache_after = 1;
        let segments = |world: &mut World, segments: &[(Pod, u8)]| {
            for &(pod, flags) in segments {
                let [src, dst] = if pod.id == A.id { [client, server] } else { [server, client] };
                let step = world.send(Via::Pod(pod), Craft::tcp(src, dst, flags));
                assert_eq!(step.verdict, Verdict::Transmit(Port::Hub));
            }
            world.verdicts.stats().entries
        };
        assert_eq!(segments(&mut world, &[(A, SYN), (B, SYN | ACK), (A, ACK)]), 2);
        let frame = Craft::tcp(client, server, ACK).build();
        let Ok(wire::Network::Ip(packet)) = wire::parse(&frame) else { panic!("not IP") };
        let (flow, side) = world.flows.lookup(&packet.tuple, world.now).unwrap();
        if ends.is_empty() {
            world.flows.remove(flow.id);
            world.context(|ctx| forget(ctx, &flow));
        }
        assert_eq!(segments(&mut world, ends), 0);
        world.context(|ctx| {
            let endpoint = ctx.tables.endpoints.by_ifindex(A.ifindex).unwrap();
            let sender = Sender::Pod { endpoint, to: LinkDestination::Gateway };
            let exit = forward::route(ctx, &sender, packet.tuple.dst).unwrap();
            learn(ctx, &sender, &packet, &packet.tuple, &exit, (&flow, side));
        });
        assert_eq!(world.verdicts.stats().entries, 0, "{ends:?}");
    }
}
