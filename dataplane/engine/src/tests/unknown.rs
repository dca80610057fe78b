//! Pods that are not known yet: their own reason, and packets that wait for newer tables.

use super::world::*;
use super::*;
use proptest::prelude::*;
use std::vec::Vec;
use tables::{IpEntry, PolicySpec, RuleEntry};
use wire::Identity;

const UNKNOWN: Option<Identity> = Some(Identity::UNKNOWN);

impl World {
    /// Makes the remote pod one of which only the node is known, or gives it an identity.
    fn remote_is(&mut self, identity: Identity) {
        self.publisher.edit(|tables| {
            let hop = tables.hops.intern(address("192.168.0.2"));
            tables.ipcache.remove("10.61.2.20/32".parse().unwrap());
            tables
                .ipcache
                .upsert("10.61.2.0/24".parse().unwrap(), IpEntry { identity: Identity::UNKNOWN, hop });
            if identity != Identity::UNKNOWN {
                tables.ipcache.upsert("10.61.2.20/32".parse().unwrap(), IpEntry { identity, hop });
            }
        });
    }
}

/// Policies of B, to and from which the remote pod talks, in both directions.
fn policy(entries: Vec<RuleEntry>) -> PolicySpec {
    PolicySpec { ingress: Some(entries.clone()), egress: Some(entries) }
}

fn from_remote() -> (Via, Craft) {
    (Via::Uplink, Craft::tcp(sock(REMOTE, 4000), B.at(80), SYN))
}

fn to_remote() -> (Via, Craft) {
    (Via::Pod(B), Craft::tcp(B.at(4000), sock(REMOTE, 80), SYN))
}

#[test]
fn only_what_is_certain_about_everybody_is_decided_about_unknown_pods() {
    let reason = |reason| Verdict::Drop(reason);
    let unknown = reason(DropReason::UnknownIdentity);
    let allow_all = rule(1, None, Some(80), false);
    let cases = [
        ("no rule", vec![], unknown),
        ("a rule for another pod", vec![rule(1, Some(REMOTE_IDENTITY), None, false)], unknown),
        ("a rule for the world", vec![rule(1, Some(Identity::WORLD_IPV4), None, false)], unknown),
        ("a rule for all on another port", vec![rule(1, None, Some(81), false)], unknown),
        (
            "all but some are allowed",
            vec![allow_all.clone(), rule(2, UNKNOWN, None, true), rule(2, Some(A.identity), None, true)],
            unknown,
        ),
        (
            "all are denied",
            vec![allow_all.clone(), rule(2, None, None, true)],
            reason(DropReason::PolicyDeniedByRule),
        ),
        ("all are allowed", vec![allow_all], Verdict::Transmit(Port::Hub)),
    ];
    for (what, entries, expected) in cases {
        for (via, craft) in [from_remote(), to_remote()] {
            let mut world = World::new();
            world.policy(&B, policy(entries.clone()));
            world.remote_is(Identity::UNKNOWN);
            let step = world.send(via, craft);
            let there = matches!(via, Via::Pod(_)) && expected == Verdict::Transmit(Port::Hub);
            let expected = if there { Verdict::Transmit(Port::Uplink(0)) } else { expected };
            assert_eq!(step.verdict, expected, "{what}, {via:?}");
            if expected == unknown {
                let event = world.last_event.unwrap();
                let (peer, direction) = match via {
                    Via::Uplink => (event.src_identity, Direction::Ingress),
                    _ => (event.dst_identity, Direction::Egress),
                };
                assert_eq!((peer, event.direction), (Identity::UNKNOWN, direction));
            }
        }
    }
}

#[test]
fn an_address_of_this_node_that_no_pod_has_is_not_the_world() {
    let mut world = World::new();
    world.policy(&A, policy(vec![rule(1, Some(Identity::WORLD_IPV4), None, false)]));
    let step = world.send(Via::Pod(A), Craft::tcp(A.at(1), sock("10.60.1.99", 80), SYN));
    assert_eq!(step.verdict, Verdict::Drop(DropReason::UnknownIdentity));
}

#[test]
fn the_first_packet_waits_and_passes_once_its_sender_is_known() {
    for (via, craft) in [from_remote(), to_remote()] {
        let mut world = World::new();
        world.may_hold = true;
        world.policy(&B, policy(vec![rule(1, Some(REMOTE_IDENTITY), Some(80), false)]));
        world.remote_is(Identity::UNKNOWN);
        let frame = world.frame(via, craft);
        let port = if matches!(via, Via::Uplink) { Port::Uplink(0) } else { Port::Hub };
        let held = world.send_frame(port, &frame);
        assert_eq!((held.verdict, &held.frame), (Verdict::Hold, &frame));
        held.changed(&Delta::default());
        world.remote_is(REMOTE_IDENTITY);
        let step = world.send_frame(port, &held.frame);
        assert!(matches!(step.verdict, Verdict::Transmit(_)), "{via:?}: {:?}", step.verdict);
        assert_eq!(step.delta.entries, 1);
    }
}

#[test]
fn a_service_leads_to_a_pod_that_is_not_known_yet() {
    let mut world = World::new();
    world.may_hold = true;
    world.policy(&A, policy(vec![rule(1, Some(REMOTE_IDENTITY), Some(8080), false)]));
    world.backends(&[(REMOTE, REMOTE_V6, true)]);
    world.remote_is(Identity::UNKNOWN);
    let syn = || Craft::tcp(A.at(4000), VIP.sock(), SYN);
    let held = world.send(Via::Pod(A), syn());
    assert_eq!(held.verdict, Verdict::Hold);
    held.changed(&Delta::default());
    world.remote_is(REMOTE_IDENTITY);
    let step = world.send(Via::Pod(A), syn());
    assert_eq!(step.verdict, Verdict::Transmit(Port::Uplink(0)));
    assert_eq!(step.delta.entries, 2, "the flow, and the backend that the client stays with");
}

/// It began when its peer was known: TCP repeats what is lost, and nothing is to arrive out of order.
#[test]
fn packets_of_established_flows_do_not_wait() {
    let mut world = World::new();
    world.may_hold = true;
    world.policy(&B, policy(vec![rule(1, Some(REMOTE_IDENTITY), None, false)]));
    world.remote_is(REMOTE_IDENTITY);
    let there = |flag| Craft::tcp(sock(REMOTE, 4000), B.at(80), flag);
    assert_eq!(world.send(Via::Uplink, there(SYN)).verdict, Verdict::Transmit(Port::Hub));
    world.remote_is(Identity::UNKNOWN);
    let step = world.send(Via::Uplink, there(ACK));
    assert_eq!(step.verdict, Verdict::Drop(DropReason::UnknownIdentity));
    let step = world.send(Via::Pod(B), Craft::tcp(B.at(80), sock(REMOTE, 4000), SYN | ACK));
    assert_eq!(step.verdict, Verdict::Transmit(Port::Uplink(0)), "replies pass");
}

/// The later ones would be dropped while the first one waits.
#[test]
fn fragments_do_not_wait() {
    let mut world = World::new();
    world.may_hold = true;
    world.policy(&B, policy(vec![rule(1, Some(REMOTE_IDENTITY), None, false)]));
    world.remote_is(Identity::UNKNOWN);
    let datagram = Craft::udp(sock(REMOTE, 4000), B.at(53)).payload(&[7; 40]);
    let fragments = datagram.link(NEXT_HOP_MAC, UPLINK_MAC).fragments(7, 24);
    let verdicts = fragments.iter().map(|frame| world.send_frame(Port::Uplink(0), frame).verdict);
    let reasons = [DropReason::UnknownIdentity, DropReason::FragmentNotFound];
    assert!(verdicts.eq(reasons.map(Verdict::Drop)));
}

#[derive(Clone, Debug)]
struct Scene {
    rules: Vec<(usize, Option<u16>, bool)>,
    before: usize,
    after: usize,
    other_rules: Option<Vec<(usize, Option<u16>, bool)>>,
    outwards: bool,
    flags: u8,
    udp: bool,
}

const WHO: [Option<Identity>; 5] =
    [None, UNKNOWN, Some(REMOTE_IDENTITY), Some(Identity(102 << 16 | 8)), Some(Identity::WORLD_IPV4)];

fn scenes() -> impl Strategy<Value = Scene> {
    let rules = || {
        let port = prop::sample::select(vec![None, Some(80), Some(81)]);
        prop::collection::vec((0..WHO.len(), port, any::<bool>()), 0..4)
    };
    let flags = prop::sample::select(vec![SYN, ACK, RST, SYN | ACK]);
    let who = 1..4usize;
    (rules(), who.clone(), who, proptest::option::of(rules()), any::<bool>(), flags, any::<bool>()).prop_map(
        |(rules, before, after, other_rules, outwards, flags, udp)| Scene {
            rules,
            before,
            after,
            other_rules,
            outwards,
            flags,
            udp,
        },
    )
}

proptest! {
    /// A packet is put off only if it would be dropped because somebody is not known, and what is
    /// decided about it later is what is decided about one that arrives then.
    #[test]
    fn to_wait_changes_nothing_but_the_time(scene in scenes()) {
        let spec = |rules: &[(usize, Option<u16>, bool)]| {
            let entries = rules.iter().zip(1..);
            policy(entries.map(|(&(who, port, deny), id)| rule(id, WHO[who], port, deny)).collect())
        };
        let (via, (from, to)) = match scene.outwards {
            true => (Via::Pod(B), (B.at(4000), sock(REMOTE, 80))),
            false => (Via::Uplink, (sock(REMOTE, 4000), B.at(80))),
        };
        let craft = || if scene.udp { Craft::udp(from, to) } else { Craft::tcp(from, to, scene.flags) };
        let world = |may_hold| {
            let mut world = World::new();
            world.may_hold = may_hold;
            world.policy(&B, spec(&scene.rules));
            world.remote_is(WHO[scene.before].unwrap());
            world
        };
        let (mut patient, mut impatient, mut late) = (world(true), world(false), world(false));
        let (first, expected) = (patient.send(via, craft()), impatient.send(via, craft()));
        let unknown = expected.verdict == Verdict::Drop(DropReason::UnknownIdentity);
        prop_assert_eq!(first.verdict == Verdict::Hold, unknown);
        if !unknown {
            prop_assert_eq!((first.verdict, first.frame), (expected.verdict, expected.frame));
            return Ok(());
        }
        prop_assert_eq!(&first.frame, &patient.frame(via, craft()));
        first.changed(&Delta::default());
        for world in [&mut patient, &mut late] {
            if let Some(rules) = &scene.other_rules {
                world.policy(&B, spec(rules));
            }
            world.remote_is(WHO[scene.after].unwrap());
            // As when the time is over.
            world.may_hold = false;
        }
        let (held, fresh) = (patient.send(via, craft()), late.send(via, craft()));
        prop_assert_eq!((held.verdict, &held.frame), (fresh.verdict, &fresh.frame));
        held.changed(&fresh.delta);
    }
}
