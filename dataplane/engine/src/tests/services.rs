//! Services: which backend, how long, and what clients never see.

use super::world::*;
use super::*;
use crate::HAIRPIN_V4;
use tables::PolicySpec;

fn request(port: u16, flag: u8) -> Craft {
    Craft::tcp(A.at(port), VIP.sock(), flag)
}

/// Where the last translated packet went.
fn backend(step: &Step) -> Option<std::net::SocketAddr> {
    let craft = Craft::read(&step.frame).filter(|_| matches!(step.verdict, Verdict::Transmit(_)))?;
    Some((craft.dst.ip(), u16::from_be_bytes([craft.l4[2], craft.l4[3]])).into())
}

const B_ONLY: &[(&str, &str, bool)] = &[(B.v4, B.v6, true)];
const REMOTE_ONLY: &[(&str, &str, bool)] = &[(REMOTE, REMOTE_V6, true)];

#[test]
fn flow_and_backend_are_remembered_together() {
    let mut world = World::new();
    let step = world.send(Via::Pod(A), request(4000, SYN));
    assert_eq!(backend(&step), Some(B.at(8080)));
    let events = vec![trace(TracePoint::ToEndpoint, TraceState::New)];
    step.changed(&Delta { egress: 1, ingress: 1, entries: 2, events, ..Delta::default() });
    let step = world.send(Via::Pod(A), request(4000, ACK));
    step.changed(&Delta { egress: 1, ingress: 1, ..Delta::default() });
    assert_eq!(world.flows.lookup_service(&tuple(4000), world.now).map(|found| found.3), Some(5));
}

fn tuple(port: u16) -> wire::Tuple {
    wire::Tuple { src: A.address(), dst: address(VIP.v4), sport: port, dport: 80, proto: wire::Protocol::TCP }
}

#[test]
fn a_client_keeps_its_backend_as_long_as_there_is_one() {
    let mut world = World::new();
    world.send(Via::Pod(A), request(4000, SYN));
    // Another backend comes, the old one is on its way out: it keeps what it has.
    world.backends(&[(B.v4, B.v6, false), (REMOTE, REMOTE_V6, true)]);
    assert_eq!(backend(&world.send(Via::Pod(A), request(4000, ACK))), Some(B.at(8080)));
    assert_eq!(backend(&world.send(Via::Pod(A), request(4001, SYN))), Some(sock(REMOTE, 8080)));
    // A new connection from the same port goes elsewhere.
    assert_eq!(backend(&world.send(Via::Pod(A), request(4000, SYN))), Some(sock(REMOTE, 8080)));

    // The backend is gone: another one is chosen, even in mid-flow.
    world.backends(B_ONLY);
    let step = world.send(Via::Pod(A), request(4001, ACK));
    assert_eq!(backend(&step), Some(B.at(8080)));
    assert_eq!(world.flows.lookup_service(&tuple(4001), world.now).map(|found| found.1), Some(B.address()));
    world.backends(&[]);
    world.send(Via::Pod(A), request(4001, ACK)).dropped(DropReason::NoServiceBackend, Direction::Egress);
}

#[test]
fn virtual_addresses_answer_to_nothing_else() {
    let mut world = World::new();
    for craft in [
        Craft::tcp(A.at(1), sock(VIP.v4, 81), SYN),
        Craft::echo_request(A.ip(), ip(VIP.v4), 1),
        Craft::udp(sock(A.v6, 1), sock(VIP.v6, 443)),
    ] {
        world.send(Via::Pod(A), craft).dropped(DropReason::NoServiceBackend, Direction::Egress);
    }
}

#[test]
fn policy_is_about_the_backend() {
    let mut world = World::new();
    let allow =
        |port| PolicySpec { ingress: Some(vec![rule(1, Some(A.identity), Some(port), false)]), egress: None };
    world.policy(&B, allow(80));
    let step = world.send(Via::Pod(A), request(4000, SYN));
    assert_eq!(step.verdict, Verdict::Drop(DropReason::PolicyDenied));
    world.policy(&B, allow(8080));
    assert_eq!(backend(&world.send(Via::Pod(A), request(4000, SYN))), Some(B.at(8080)));
}

#[test]
fn a_pod_reaches_itself_without_policy() {
    let mut world = World::new();
    world.backends(&[(A.v4, A.v6, true)]);
    world.deny_all(&A);
    let step = world.send(Via::Pod(A), request(4000, SYN));
    let seen = Craft { ttl: 63, ..Craft::tcp((HAIRPIN_V4.ip(), 4000).into(), A.at(8080), SYN) };
    step.is(Verdict::Transmit(Port::Hub), &seen.link(deliver_to_pod(A.ifindex), A.mac));
    let answer = Craft::tcp(A.at(8080), (HAIRPIN_V4.ip(), 4000).into(), SYN | ACK);
    let step = world.send(Via::Pod(A), answer);
    let seen = Craft { ttl: 63, ..Craft::tcp(VIP.sock(), A.at(4000), SYN | ACK) };
    step.is(Verdict::Transmit(Port::Hub), &seen.link(deliver_to_pod(A.ifindex), A.mac));
    // Its memory lives as long as it is used.
    world.now += 50;
    assert_eq!(backend(&world.send(Via::Pod(A), request(4000, ACK))), Some(A.at(8080)));
    world.now += 50;
    world.backends(&[(A.v4, A.v6, false), (REMOTE, REMOTE_V6, true)]);
    assert_eq!(backend(&world.send(Via::Pod(A), request(4000, ACK))), Some(A.at(8080)));
}

#[test]
fn a_tuple_means_one_translation_only() {
    let direct = || Craft::tcp(A.at(4000), B.at(8080), ACK);
    for service_first in [true, false] {
        let mut world = World::new();
        let (first, second) =
            if service_first { (request(4000, ACK), direct()) } else { (direct(), request(4000, ACK)) };
        assert_eq!(backend(&world.send(Via::Pod(A), first)), Some(B.at(8080)));
        world.send(Via::Pod(A), second).dropped(DropReason::ConntrackFull, Direction::Egress);
    }
}

#[test]
fn services_are_for_local_pods_only() {
    let mut world = World::new();
    world.backends(REMOTE_ONLY);
    for via in [Via::Uplink, Via::Host] {
        let step = world.send(via, Craft::tcp(sock("9.9.9.9", 1), VIP.sock(), SYN));
        step.dropped(DropReason::Unroutable, Direction::Ingress);
    }
}
