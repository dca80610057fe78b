//! The programs against a naive model of what verdicts cover and what they do.

use super::*;
use flow::{FlowId, Side};
use nix::time::{ClockId, clock_gettime};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config as ProptestConfig, TestRunner},
};
use std::{
    cell::Cell,
    net::{Ipv4Addr, SocketAddr},
};
use verdicts::{Exit, Inserted, Key, Nanoseconds, Table, Verdict};
use wire::{L4, Network, checksum::Delta, craft::Craft};

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const POD: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const NEXT: MacAddr = MacAddr([2, 1, 2, 3, 4, 5]);
const MINUTE: Nanoseconds = 60_000_000_000;
/// Test runs take place on the loopback device.
const LOOPBACK: u32 = 1;
const ACK: u8 = 0x10;

/// The programs with their table.
struct World {
    bpf: Loaded,
    table: Table,
}

fn world(name: &str) -> Option<World> {
    let bpf = load(name)?;
    bpf.0
        .configure(&Config { hub: 1, workers: 1, gateway_mac: GATEWAY.0, offload: true })
        .expect("configuration");
    bpf.0
        .set_pod_cidrs(&[(Ipv4Addr::UNSPECIFIED.into(), 0), ("::".parse().expect("an address"), 0)])
        .expect("CIDRs");
    let table = Table::new(bpf.0.verdicts().expect("memory"));
    Some(World { bpf, table })
}

impl World {
    fn insert(&self, verdict: &Verdict) {
        assert_eq!(self.table.insert(verdict, now()), Inserted::New);
    }

    /// Empties the table; packets and bytes that its verdicts were used for.
    fn clear(&self) -> (u64, u64) {
        self.table.flush();
        let mut used = (0, 0);
        self.table
            .recycle(self.table.retired(), |usage| used = (used.0 + usage.packets, used.1 + usage.bytes));
        used
    }
}

fn now() -> Nanoseconds {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// What differs between flows.
#[derive(Clone, Copy, Debug)]
struct Kind {
    v6: bool,
    udp: bool,
    rewrite: Rewrite,
    uplink: bool,
}

#[derive(Clone, Copy, Debug)]
enum Rewrite {
    Nothing,
    Source,
    Destination,
}

impl Kind {
    fn all() -> Vec<Kind> {
        let mut kinds = Vec::new();
        for bits in 0..8u8 {
            let [v6, udp, uplink] = [1, 2, 4].map(|bit| bits & bit != 0);
            for rewrite in [Rewrite::Nothing, Rewrite::Source, Rewrite::Destination] {
                kinds.push(Kind { v6, udp, rewrite, uplink });
            }
        }
        kinds
    }

    fn address(&self, v4: &str, v6: &str) -> SocketAddr {
        (if self.v6 { v6 } else { v4 }).parse().expect("an address")
    }

    fn packet(&self) -> Craft {
        let (src, dst) = (
            self.address("10.0.0.1:4000", "[fd00::1]:4000"),
            self.address("10.96.0.7:80", "[fd00:96::7]:80"),
        );
        let packet = if self.udp { Craft::udp(src, dst) } else { Craft::tcp(src, dst, ACK) };
        packet.link(POD, GATEWAY)
    }

    fn hook(&self) -> Hook {
        if self.uplink { Hook::UplinkIngress } else { Hook::PodIngress }
    }

    fn verdict(&self) -> Verdict {
        let packet = self.packet().build();
        let Ok(Network::Ip(packet)) = wire::parse(&packet) else { panic!("not IP") };
        let (mut tuple, new) = (packet.tuple, self.address("172.16.255.3:8080", "[fd0a:ffff::3]:8080"));
        match self.rewrite {
            Rewrite::Nothing => {}
            Rewrite::Source => (tuple.src, tuple.sport) = (new.ip().into(), new.port()),
            Rewrite::Destination => (tuple.dst, tuple.dport) = (new.ip().into(), new.port()),
        }
        Verdict {
            key: Key { ifindex: LOOPBACK, tuple: packet.tuple },
            expect: if self.uplink { GATEWAY } else { POD },
            mtu: 1500,
            tuple,
            exit: Exit::Pod { ifindex: 7 },
            to: NEXT,
            from: GATEWAY,
            flow: FlowId { slot: 1, version: 2 },
            side: Side::Original,
            lifetime: MINUTE,
            generation: 1,
        }
    }
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// The frame that leaves if the verdict covers this one.
fn model(frame: &[u8], verdict: &Verdict) -> Option<Vec<u8>> {
    let Ok(Network::Ip(packet)) = wire::parse(frame) else { return None };
    let v4 = packet.tuple.src.is_v4();
    let (to, from) = wire::parse::macs(frame)?;
    let l4 = frame.get(packet.l4_offset..)?;
    let usual = match packet.l4 {
        L4::Tcp { flags } => flags & 0x37 == ACK,
        L4::Udp => usize::from(be16(&l4[4..])) == l4.len() && (v4 || be16(&l4[6..]) != 0),
        _ => false,
    };
    let plain = packet.l4_offset == if v4 { 34 } else { 54 }
        && packet.fragment.is_none()
        && !(v4 && frame[20] & 0x80 != 0)
        && packet.end == frame.len();
    let holds = packet.tuple == verdict.key.tuple
        && packet.ttl > 1
        && packet.l3_len() <= verdict.mtu.into()
        && to == GATEWAY
        && [to, from].contains(&verdict.expect);
    (usual && plain && holds).then(|| rewritten(frame, packet.l4_offset, verdict))
}

/// What changes in addresses, and in these and ports.
fn changes(verdict: &Verdict) -> [Delta; 2] {
    let (old, new) = (verdict.key.tuple, verdict.tuple);
    let mut addresses = Delta::default();
    addresses.address(old.src, new.src);
    addresses.address(old.dst, new.dst);
    let mut all = addresses;
    all.word(old.sport, new.sport);
    all.word(old.dport, new.dport);
    [addresses, all]
}

fn rewritten(frame: &[u8], l4: usize, verdict: &Verdict) -> Vec<u8> {
    let (new, [mut header, change]) = (verdict.tuple, changes(verdict));
    let mut out = [&verdict.to.0, &verdict.from.0, &frame[12..]].concat();
    if let (Some(src), Some(dst)) = (new.src.as_v4(), new.dst.as_v4()) {
        out[22] -= 1;
        header.word(be16(&frame[22..]), be16(&out[22..]));
        let sum = header.apply(be16(&frame[24..]));
        out[24..26].copy_from_slice(&sum.to_be_bytes());
        out[26..30].copy_from_slice(&src.to_be_bytes());
        out[30..34].copy_from_slice(&dst.to_be_bytes());
    } else {
        out[21] -= 1;
        out[22..38].copy_from_slice(&new.src.0.to_be_bytes());
        out[38..54].copy_from_slice(&new.dst.0.to_be_bytes());
    }
    out[l4..l4 + 2].copy_from_slice(&new.sport.to_be_bytes());
    out[l4 + 2..l4 + 4].copy_from_slice(&new.dport.to_be_bytes());
    if new != verdict.key.tuple {
        let udp = new.proto == wire::Protocol::UDP;
        let at = l4 + checksum_offset(udp);
        let sum = be16(&frame[at..]);
        let sum = if udp { change.apply_udp(sum) } else { change.apply(sum) };
        out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    out
}

fn checksum_offset(udp: bool) -> usize {
    if udp { 6 } else { 16 }
}

/// The checksum of the transport protocol.
#[derive(Clone, Copy, Debug)]
enum Checksum {
    Right,
    Zero,
    /// One that becomes zero, whatever is right.
    BecomesZero,
}

/// How a packet deviates from an ordinary one.
#[derive(Clone, Debug)]
struct Oddity {
    payload: usize,
    ttl: u8,
    flags: u8,
    checksum: Checksum,
    /// Bytes that are overwritten.
    bytes: Vec<(prop::sample::Index, u8)>,
    /// Mends the IPv4 header checksum afterwards.
    mend: bool,
    /// Bytes that the frame is longer, or shorter, than it should be.
    tail: isize,
    /// Bytes that the MTU is above or below the packet's length.
    room: i16,
}

fn oddity() -> impl Strategy<Value = Oddity> {
    let ttl = prop_oneof![8 => 2..=255u8, 1 => 0..=1u8];
    let flags = prop_oneof![6 => select(vec![ACK, 0x18, 0xd0]), 1 => any::<u8>()];
    let checksum =
        prop_oneof![4 => Just(Checksum::Right), 1 => Just(Checksum::Zero), 1 => Just(Checksum::BecomesZero)];
    let bytes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let tail = prop_oneof![8 => Just(0), 1 => -8..8isize];
    let room = prop_oneof![4 => 0..900i16, 1 => -2..1i16];
    (0..200usize, ttl, flags, checksum, bytes, any::<bool>(), tail, room).prop_map(
        |(payload, ttl, flags, checksum, bytes, mend, tail, room)| Oddity {
            payload,
            ttl,
            flags,
            checksum,
            bytes,
            mend,
            tail,
            room,
        },
    )
}

impl Oddity {
    fn frame(&self, kind: &Kind) -> Vec<u8> {
        let mut packet = kind.packet().payload(&vec![0x5a; self.payload]);
        packet.ttl = self.ttl;
        if !kind.udp {
            packet.l4[13] = self.flags;
        }
        let mut frame = packet.build();
        let at = if kind.v6 { 54 } else { 34 } + checksum_offset(kind.udp);
        match self.checksum {
            Checksum::Right => {}
            Checksum::Zero => frame[at..at + 2].fill(0),
            Checksum::BecomesZero => {
                let [_, change] = changes(&kind.verdict());
                frame[at..at + 2].copy_from_slice(&(!change.apply(0xffff)).to_be_bytes());
            }
        }
        // Half of the overwritten bytes are in the headers.
        let headers = 74.min(frame.len());
        for (number, (index, byte)) in self.bytes.iter().enumerate() {
            let at = index.index(if number == 0 { headers } else { frame.len() });
            frame[at] = *byte;
        }
        frame.resize(frame.len().saturating_add_signed(self.tail), 0);
        if self.mend && !kind.v6 {
            frame[24..26].fill(0);
            let sum = !wire::checksum::sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }
}

#[test]
fn programs_do_what_the_model_does() {
    let Some(world) = world("model") else { return };
    let hits = Cell::new(0);
    let config = ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() };
    let cases = (select(Kind::all()), oddity());
    let result = TestRunner::new(config).run(&cases, |(kind, odd)| {
        let frame = odd.frame(&kind);
        let mtu = (frame.len() as i16 - 14 + odd.room) as u16;
        let verdict = Verdict { mtu, ..kind.verdict() };
        world.insert(&verdict);
        let seen = kind.uplink.then(|| world.bpf.run(Hook::UplinkXdp, &frame));
        let frame = if kind.uplink { without_filling(&frame) } else { frame };
        let expected = model(&frame, &verdict);
        let got = world.bpf.run(kind.hook(), &frame);
        let used = world.clear();
        match expected {
            Some(after) => {
                hits.set(hits.get() + 1);
                prop_assert_eq!(got, (TC_REDIRECT, after));
                prop_assert_eq!(used, (1, frame.len() as u64 - 14));
                prop_assert!(seen.is_none_or(|seen| seen == (XDP_PASS, frame)));
            }
            None => {
                prop_assert_eq!(used, (0, 0));
                prop_assert_eq!(got, missed(&frame, kind.uplink));
                // Whether a frame is shorter than its packet is only known with its skb.
                if let Some(seen) = seen.filter(|_| odd.tail >= 0 && odd.bytes.is_empty()) {
                    prop_assert_eq!(seen.0, XDP_DROP, "there is no worker");
                }
            }
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    assert!(hits.get() > 1000, "only {} packets were covered", hits.get());
}

/// A frame without what fills it up to the least length of Ethernet.
fn without_filling(frame: &[u8]) -> Vec<u8> {
    match wire::parse(frame) {
        Ok(Network::Ip(packet)) if frame.len() <= 60 => frame[..packet.end].to_vec(),
        _ => frame.to_vec(),
    }
}

#[test]
fn frames_of_the_least_length_lose_what_fills_them() {
    let Some(world) = world("filling") else { return };
    for kind in Kind::all() {
        let packet = kind.packet().build();
        let verdict = Verdict { expect: GATEWAY, mtu: packet.len() as u16 - 14, ..kind.verdict() };
        for length in [packet.len() + 1, 60, 61].into_iter().filter(|length| *length > packet.len()) {
            let mut frame = packet.clone();
            frame.resize(length, 0xee);
            world.insert(&verdict);
            let got = world.bpf.run(Hook::UplinkXdp, &frame);
            let filled = if length <= 60 { (XDP_PASS, packet.clone()) } else { (XDP_DROP, frame.clone()) };
            assert_eq!(got, filled, "{kind:?} of {length} bytes");
            assert_eq!(
                world.bpf.run(Hook::PodIngress, &frame),
                missed(&frame, false),
                "a pod fills nothing up"
            );
            assert_eq!(world.clear().0, 0);
        }
    }
}

/// What happens to a frame that no verdict covers.
fn missed(frame: &[u8], uplink: bool) -> (u32, Vec<u8>) {
    let ip = match be16(&frame[12..]) {
        0x0800 => frame.len() >= 34,
        0x86dd => frame.len() >= 54,
        _ => false,
    };
    if uplink {
        return (if ip { TC_SHOT } else { TC_NEXT }, frame.to_vec());
    }
    let to = match MacAddr([frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]]) {
        GATEWAY => LinkDestination::Gateway,
        mac if mac.is_multicast() => LinkDestination::Group,
        _ => LinkDestination::Other,
    };
    let mark = Origin::Pod { ifindex: LOOPBACK, to }.encode();
    (TC_REDIRECT, [&mark.0, &frame[6..]].concat())
}

#[test]
fn only_live_verdicts_for_the_interface_and_address_hold() {
    let Some(world) = world("live") else { return };
    let kind = Kind { v6: false, udp: true, rewrite: Rewrite::Nothing, uplink: false };
    let (frame, verdict) = (kind.packet().build(), kind.verdict());
    let ways =
        || [Hook::PodIngress, Hook::UplinkIngress, Hook::UplinkXdp].map(|hook| world.bpf.run(hook, &frame).0);
    let tried = |verdict: &Verdict| {
        world.insert(verdict);
        (ways(), world.clear().0)
    };
    let (held, missed) = ([TC_REDIRECT, TC_SHOT, XDP_DROP], ([TC_REDIRECT, TC_SHOT, XDP_DROP], 0));
    assert_eq!(tried(&verdict), (held, 1), "from a pod");
    let uplink = Verdict { expect: GATEWAY, ..verdict };
    assert_eq!(tried(&uplink), ([TC_REDIRECT, TC_REDIRECT, XDP_PASS], 1), "from an uplink");
    assert_eq!(tried(&Verdict { expect: NEXT, ..verdict }), missed, "another address");
    assert_eq!(tried(&Verdict { lifetime: 0, ..verdict }), missed, "expired");
    assert_eq!(
        tried(&Verdict { key: Key { ifindex: 2, ..verdict.key }, ..verdict }),
        missed,
        "another interface"
    );
    world.insert(&verdict);
    world.table.flush();
    assert_eq!(ways(), held, "taken back");
    assert_eq!(world.clear().0, 0);
    world.insert(&verdict);
    let config = Config { hub: 1, workers: 1, gateway_mac: GATEWAY.0, offload: false };
    world.bpf.0.configure(&config).expect("configuration");
    assert_eq!((ways(), world.clear().0), missed, "not wanted");
}

/// A table has as many verdicts as fit, wherever their hashes lead them.
#[test]
fn every_verdict_of_a_full_table_is_found() {
    let Some(world) = world("full") else { return };
    let kind = Kind { v6: true, udp: false, rewrite: Rewrite::Nothing, uplink: false };
    let of_port = |sport| {
        let mut packet = kind.packet();
        packet.l4[..2].copy_from_slice(&u16::to_be_bytes(sport));
        let mut verdict = kind.verdict();
        verdict.key.tuple.sport = sport;
        verdict.tuple.sport = sport;
        (packet.build(), verdict)
    };
    let ports: Vec<u16> =
        (1..1000).filter(|&port| world.table.insert(&of_port(port).1, now()) == Inserted::New).collect();
    assert_eq!(world.table.stats().entries, 64);
    assert_eq!(ports.len(), 64);
    for port in 1..1000 {
        let (frame, verdict) = of_port(port);
        let expected = if ports.contains(&port) { model(&frame, &verdict) } else { None };
        let (_, after) = world.bpf.run(Hook::PodIngress, &frame);
        assert_eq!(Some(after), expected.or(Some(missed(&frame, false).1)), "port {port}");
    }
}

#[test]
fn segments_of_a_gso_packet_are_counted_and_measured_one_by_one() {
    let Some(world) = world("gso") else { return };
    for kind in Kind::all() {
        let frame = kind.packet().payload(&[0x5a; 2001]).build();
        let headers = frame.len() as u64 - 14 - 2001;
        for (size, packets) in [(500, 5), (667, 3), (2001, 1), (3000, 1)] {
            let largest = headers as u16 + 2001.min(size);
            for (mtu, holds) in [(largest, true), (largest - 1, false)] {
                let verdict = Verdict { mtu, ..kind.verdict() };
                world.insert(&verdict);
                let (_, after) = world.bpf.run_gso(kind.hook(), &frame, size.into());
                let (used, expected) = if holds {
                    (
                        (packets, 2001 + packets * headers),
                        rewritten(&frame, if kind.v6 { 54 } else { 34 }, &verdict),
                    )
                } else {
                    ((0, 0), missed(&frame, kind.uplink).1)
                };
                assert_eq!((world.clear(), after), (used, expected), "{kind:?} {size} {mtu}");
            }
        }
    }
}
