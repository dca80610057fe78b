//! Scenarios: packet in, verdict and packet out, and everything else that changed.

mod cached;
mod checksums;
mod errors;
mod fragments;
mod garbage;
mod neighbors;
mod policy;
mod refused;
mod services;
mod unknown;
mod world;

use crate::event::{TracePoint, TraceState};
use crate::{DropReason, EventKind, Port, Verdict};
use std::vec;
use tables::{Direction, Match, RuleId};
use wire::craft::Craft;
use wire::hub::{HOST_MAC, deliver_to_pod};
use wire::parse::tcp::{ACK, FIN, RST, SYN};
use world::*;

#[test]
fn a_connection_between_local_pods() {
    let mut world = World::new();
    let there = || Craft::tcp(A.at(4000), B.at(80), 0);
    let back = || Craft::tcp(B.at(80), A.at(4000), 0);

    let step = world.send(Via::Pod(A), flags(there(), SYN));
    let link = (deliver_to_pod(B.ifindex), B.mac);
    step.is(Verdict::Transmit(Port::Hub), &Craft { ttl: 63, ..flags(there(), SYN) }.link(link.0, link.1));
    step.changed(&Delta {
        egress: 1,
        ingress: 1,
        entries: 1,
        events: vec![trace(TracePoint::ToEndpoint, TraceState::New)],
        ..Delta::default()
    });

    let step = world.send(Via::Pod(B), flags(back(), SYN | ACK));
    let reply = Craft { ttl: 63, ..flags(back(), SYN | ACK) };
    step.is(Verdict::Transmit(Port::Hub), &reply.link(deliver_to_pod(A.ifindex), A.mac));
    step.changed(&Delta {
        egress: 1,
        ingress: 1,
        events: vec![trace(TracePoint::ToEndpoint, TraceState::Reply)],
        ..Delta::default()
    });

    for (via, craft, events) in [
        (A, flags(there(), ACK), vec![]),
        (B, flags(back(), ACK), vec![]),
        (A, flags(there(), FIN | ACK), vec![trace(TracePoint::ToEndpoint, TraceState::Established)]),
        (B, flags(back(), RST), vec![trace(TracePoint::ToEndpoint, TraceState::Reply)]),
        // Both have closed: a new connection on the same ports.
        (A, flags(there(), SYN), vec![trace(TracePoint::ToEndpoint, TraceState::New)]),
    ] {
        world.send(Via::Pod(via), craft).changed(&Delta {
            egress: 1,
            ingress: 1,
            events,
            ..Delta::default()
        });
    }
}

#[test]
fn ways_out_and_in() {
    let mut world = World::new();
    let out = |delta: Delta| Delta { egress: 1, entries: 1, ..delta };
    let events = |point| vec![trace(point, TraceState::New)];

    let step = world.send(Via::Pod(A), Craft::udp(A.at(1), sock(REMOTE, 53)));
    let sent = Craft { ttl: 63, ..Craft::udp(A.at(1), sock(REMOTE, 53)) };
    step.is(Verdict::Transmit(Port::Uplink(0)), &sent.link(UPLINK_MAC, NEXT_HOP_MAC));
    step.changed(&out(Delta { events: events(TracePoint::ToNetwork), ..Delta::default() }));

    let step = world.send(Via::Uplink, Craft::udp(sock(REMOTE, 53), A.at(1)));
    let sent = Craft { ttl: 63, ..Craft::udp(sock(REMOTE, 53), A.at(1)) };
    step.is(Verdict::Transmit(Port::Hub), &sent.link(deliver_to_pod(A.ifindex), A.mac));
    let events_in = vec![trace(TracePoint::ToEndpoint, TraceState::Reply)];
    step.changed(&Delta { ingress: 1, events: events_in, ..Delta::default() });

    // The host's stack takes the hop itself.
    for (dst, point) in [("8.8.8.8", TracePoint::ToStack), (GATEWAY, TracePoint::ToHost)] {
        let craft = Craft::udp(A.at(2), sock(dst, 53));
        let step = world.send(Via::Pod(A), Craft { ttl: 1, ..craft.clone() });
        step.is(Verdict::Transmit(Port::Hub), &Craft { ttl: 1, ..craft }.link(HOST_MAC, HOST_MAC));
        step.changed(&out(Delta { events: events(point), ..Delta::default() }));
    }
    let craft = Craft::udp(sock(REMOTE, 54), sock(GATEWAY, 54));
    let step = world.send(Via::Uplink, craft.clone());
    step.is(Verdict::Transmit(Port::Hub), &craft.link(HOST_MAC, HOST_MAC));
    step.changed(&Delta { entries: 1, events: events(TracePoint::ToHost), ..Delta::default() });

    for (via, src) in [(Via::Host, NODE), (Via::HostTo(B), GATEWAY), (Via::Host, "8.8.8.8")] {
        let craft = Craft { ttl: 1, ..Craft::udp(sock(src, 9), B.at(9)) };
        let step = world.send(via, craft.clone());
        step.is(Verdict::Transmit(Port::Hub), &craft.link(deliver_to_pod(B.ifindex), B.mac));
        let events = events(TracePoint::ToEndpoint);
        step.changed(&Delta { ingress: 1, entries: 1, events, ..Delta::default() });
    }
}

#[test]
fn padding_is_trimmed() {
    let mut world = World::new();
    let craft = Craft::udp(A.at(1), B.at(2));
    let mut frame = world.frame(Via::Pod(A), craft);
    let length = frame.len();
    frame.resize(60, 0xee);
    assert_eq!(world.send_frame(Port::Hub, &frame).frame.len(), length);
}

/// What is in further buffers is not looked at, but counts, and is cut where the packet ends.
#[test]
fn a_packet_in_several_buffers_is_treated_like_one_in_one() {
    for craft in [
        Craft::udp(A.at(1), VIP.sock()),
        Craft::tcp(A.at(1), VIP.sock(), SYN),
        Craft::sctp(A.at(1), VIP.sock()),
        Craft::udp(sock(A.v6, 1), sock(VIP.v6, 80)),
    ] {
        let mut frame = World::new().frame(Via::Pod(A), craft.payload(&[7; 1001]));
        frame.extend([0xee; 9]);
        let whole = World::new().send_frame(Port::Hub, &frame);
        checksums::verify(&whole.frame);
        for first in [74, 500, frame.len() - 10, frame.len() - 9, frame.len() - 1] {
            let mut world = World::new();
            let split = world.send_split(Port::Hub, &frame, first);
            assert_eq!((split.verdict, &split.frame), (whole.verdict, &whole.frame), "{first}");
            split.changed(&whole.delta);
            assert_eq!(world.counters.read_forwarded(Direction::Egress).1, frame.len() as u64);
        }
    }
}

#[test]
fn an_error_quotes_only_the_first_buffer() {
    let craft = Craft { ttl: 1, ..Craft::udp(A.at(1), B.at(2)).payload(&[9; 1000]) };
    let mut world = World::new();
    let frame = world.frame(Via::Pod(A), craft);
    let step = world.send_split(Port::Hub, &frame, 300);
    let error = Craft::read(&step.frame).unwrap();
    assert_eq!(error.l4[8..], frame[14..300]);
}

#[test]
fn events_name_both_ends() {
    let mut world = World::new();
    world.deny_all(&B);
    world.send(Via::Pod(A), Craft::tcp(A.at(4000), B.at(80), SYN));
    let event = world.last_event.unwrap();
    assert_eq!(event.kind, EventKind::Drop { reason: DropReason::PolicyDenied, rule: None });
    assert_eq!((event.src_identity, event.dst_identity), (A.identity, B.identity));
    assert_eq!((event.src_endpoint, event.dst_endpoint), (A.id, B.id));
    assert_eq!((event.tuple.sport, event.tuple.dport), (4000, 80));
    assert_eq!((event.direction, event.ifindex), (Direction::Ingress, A.ifindex));
    assert_eq!((event.length, event.captured), (54, 54));

    world.send(Via::Uplink, Craft::tcp(sock("9.9.9.9", 1), B.at(80), SYN));
    let event = world.last_event.unwrap();
    assert_eq!((event.src_identity, event.dst_identity), (wire::Identity::WORLD_IPV4, B.identity));

    world.send(Via::Pod(A), Craft::tcp(A.at(4000), VIP.sock(), SYN));
    let event = world.last_event.unwrap();
    assert_eq!((event.tuple.dst, event.translated.unwrap().dst), (address(VIP.v4), B.address()));
}

fn trace(point: TracePoint, state: TraceState) -> EventKind {
    EventKind::Trace { point, state }
}

fn verdict(allowed: bool, rule: Option<u32>, matched: Match) -> EventKind {
    EventKind::Verdict { allowed, rule: rule.map(RuleId), matched }
}

fn dropped(reason: DropReason, direction: Direction) -> Delta {
    Delta {
        dropped: vec![(reason, direction)],
        events: vec![EventKind::Drop { reason, rule: None }],
        ..Delta::default()
    }
}

/// The segment with these flags.
fn flags(mut craft: Craft, flags: u8) -> Craft {
    craft.l4[13] = flags;
    craft
}
