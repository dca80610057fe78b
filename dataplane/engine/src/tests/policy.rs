//! Who may talk: new flows, changes of policy, the node itself.

use super::world::*;
use super::*;
use std::vec::Vec;
use tables::{PolicySpec, RuleEntry};
use wire::Identity;

fn ingress(entries: Vec<RuleEntry>) -> PolicySpec {
    PolicySpec { ingress: Some(entries), egress: None }
}

fn egress(entries: Vec<RuleEntry>) -> PolicySpec {
    PolicySpec { ingress: None, egress: Some(entries) }
}

/// A SYN of A to B on port 80 under these policies.
fn syn(a: PolicySpec, b: PolicySpec) -> Step {
    let mut world = World::new();
    world.policy(&A, a);
    world.policy(&B, b);
    world.send(Via::Pod(A), Craft::tcp(A.at(4000), B.at(80), SYN))
}

#[test]
fn new_flows_need_both_policies() {
    let open = PolicySpec::default;
    let allowed = |verdicts: &[EventKind]| {
        let mut events = verdicts.to_vec();
        events.push(trace(TracePoint::ToEndpoint, TraceState::New));
        Delta { egress: 1, ingress: 1, entries: 1, events, ..Delta::default() }
    };
    let refused = |reason, direction, rule: Option<u32>, verdicts: &[EventKind]| {
        let mut events = verdicts.to_vec();
        events.push(EventKind::Drop { reason, rule: rule.map(RuleId) });
        Delta { dropped: vec![(reason, direction)], events, ..Delta::default() }
    };
    let no_match = verdict(false, None, Match::None);
    let (denied, by_rule) = (DropReason::PolicyDenied, DropReason::PolicyDeniedByRule);
    let cases = [
        ("no policy", open(), open(), allowed(&[])),
        (
            "ingress by peer and port",
            open(),
            ingress(vec![rule(1, Some(A.identity), Some(80), false)]),
            allowed(&[verdict(true, Some(1), Match::L3L4)]),
        ),
        (
            "both directions",
            egress(vec![rule(2, Some(B.identity), None, false)]),
            ingress(vec![rule(1, None, Some(80), false)]),
            allowed(&[verdict(true, Some(2), Match::L3Only), verdict(true, Some(1), Match::L4Only)]),
        ),
        (
            "ingress for another peer",
            open(),
            ingress(vec![rule(1, Some(REMOTE_IDENTITY), Some(80), false)]),
            refused(denied, Direction::Ingress, None, &[no_match]),
        ),
        (
            "ingress on another port",
            open(),
            ingress(vec![rule(1, Some(A.identity), Some(81), false)]),
            refused(denied, Direction::Ingress, None, &[no_match]),
        ),
        (
            "egress default deny",
            egress(vec![]),
            open(),
            refused(denied, Direction::Egress, None, &[no_match]),
        ),
        (
            "deny beats allow",
            open(),
            ingress(vec![rule(1, Some(A.identity), Some(80), false), rule(9, None, None, true)]),
            refused(by_rule, Direction::Ingress, Some(9), &[verdict(false, Some(9), Match::All)]),
        ),
    ];
    for (what, a, b, expected) in cases {
        let step = syn(a, b);
        std::println!("{what}");
        step.changed(&expected);
    }
}

#[test]
fn revoked_flows_stop_in_the_original_direction_only() {
    let mut world = World::new();
    let there = |flag| Craft::tcp(A.at(4000), B.at(80), flag);
    let back = |flag| Craft::tcp(B.at(80), A.at(4000), flag);
    let allow = || ingress(vec![rule(1, Some(A.identity), Some(80), false)]);
    world.policy(&B, allow());
    assert_eq!(world.send(Via::Pod(A), there(SYN)).verdict, Verdict::Transmit(Port::Hub));
    assert_eq!(world.send(Via::Pod(B), back(SYN | ACK)).verdict, Verdict::Transmit(Port::Hub));
    let passed = Delta { egress: 1, ingress: 1, ..Delta::default() };

    world.policy(&B, ingress(vec![]));
    let refused = dropped(DropReason::PolicyDenied, Direction::Ingress);
    let mut events = vec![verdict(false, None, Match::None)];
    events.extend(refused.events);
    world.send(Via::Pod(A), there(ACK)).changed(&Delta { events, ..refused });
    world.send(Via::Pod(B), back(ACK)).changed(&passed);

    // The entry stayed: allowed again, the connection goes on, without being new.
    world.policy(&B, allow());
    world.send(Via::Pod(A), there(ACK)).changed(&passed);
    world.send(Via::Pod(A), there(ACK)).changed(&passed);
    // Replies pass whatever A may receive; new flows in that direction do not.
    world.policy(&A, ingress(vec![]));
    world.send(Via::Pod(B), back(ACK)).changed(&passed);
    let step = world.send(Via::Pod(B), Craft::tcp(B.at(81), A.at(4000), SYN));
    assert_eq!(step.verdict, Verdict::Drop(DropReason::PolicyDenied));
}

#[test]
fn a_changed_identity_counts_as_changed_policy() {
    let mut world = World::new();
    world.policy(&B, ingress(vec![rule(1, Some(REMOTE_IDENTITY), None, false)]));
    let craft = || Craft::udp(sock(REMOTE, 1), B.at(2));
    assert_eq!(world.send(Via::Uplink, craft()).verdict, Verdict::Transmit(Port::Hub));
    world.publisher.edit(|tables| tables.ipcache.remove("10.61.2.20/32".parse().unwrap()));
    assert_eq!(world.send(Via::Uplink, craft()).verdict, Verdict::Drop(DropReason::PolicyDenied));
    assert_eq!(world.last_event.unwrap().src_identity, Identity::WORLD_IPV4);
}

#[test]
fn the_node_reaches_its_pods_unless_denied() {
    let (deny_host, deny_all) = (vec![rule(3, Some(Identity::HOST), None, true)], vec![]);
    for (entries, src, expected) in [
        (deny_all.clone(), NODE, Verdict::Transmit(Port::Hub)),
        (deny_host, NODE, Verdict::Drop(DropReason::PolicyDeniedByRule)),
        // Routed by the host, but not from it.
        (deny_all, "8.8.8.8", Verdict::Drop(DropReason::PolicyDenied)),
    ] {
        for via in [Via::Host, Via::HostTo(B)] {
            let mut world = World::new();
            world.policy(&B, ingress(entries.clone()));
            let step = world.send(via, Craft::tcp(sock(src, 1), B.at(80), SYN));
            assert_eq!(step.verdict, expected, "{src} {via:?}");
        }
    }
}

#[test]
fn icmp_rules_are_about_the_type() {
    let mut world = World::new();
    let mut entry = rule(1, None, Some(8), false);
    entry.ports.proto = Some(wire::Protocol::ICMP);
    world.policy(&B, ingress(vec![entry]));
    let (request, reply) = (Craft::echo_request(A.ip(), B.ip(), 5), Craft::echo_reply(B.ip(), A.ip(), 5));
    let step = world.send(Via::Pod(B), reply.clone());
    assert_eq!(step.verdict, Verdict::Drop(DropReason::UnrelatedIcmp), "a reply cannot come first");
    assert_eq!(world.send(Via::Pod(A), request).verdict, Verdict::Transmit(Port::Hub));
    assert_eq!(world.send(Via::Pod(B), reply).verdict, Verdict::Transmit(Port::Hub));
    // With identifier 0 a request looks like a reply.
    world.send(Via::Pod(A), Craft::echo_request(A.ip(), B.ip(), 0));
    let step = world.send(Via::Pod(B), Craft::echo_request(B.ip(), A.ip(), 0));
    assert_eq!(step.verdict, Verdict::Drop(DropReason::UnrelatedIcmp));
}

/// Masqueraded, or faked: the kernel checks no IPv6 source against its own addresses.
#[test]
fn what_the_host_forwards_is_not_from_the_host() {
    for (src, dst) in [(sock(NODE, 4000), A.at(80)), (sock(GATEWAY_V6, 4000), sock(A.v6, 80))] {
        let mut world = World::new();
        let syn = Craft::tcp(src, dst, SYN);
        world.deny_all(&A);
        assert_eq!(world.send(Via::Forwarded, syn.clone()).verdict, Verdict::Drop(DropReason::PolicyDenied));
        let world_identity = if src.is_ipv4() { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 };
        assert_eq!(world.last_event.unwrap().src_identity, world_identity);
        assert_eq!(world.send(Via::Host, syn).verdict, Verdict::Transmit(Port::Hub));
    }
}
