use super::*;
use proptest::prelude::*;

const PROTOCOLS: [Protocol; 4] = [Protocol::ICMP, Protocol::TCP, Protocol::UDP, Protocol::ICMPV6];
const PORTS: [u16; 9] = [0, 1, 8, 79, 80, 81, 443, 65534, 65535];

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(&PORTS[..])
}

fn ports() -> impl Strategy<Value = RangeInclusive<u16>> {
    prop_oneof![
        Just(0..=u16::MAX),
        port().prop_map(|port| port..=port),
        (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b)),
    ]
}

fn entries() -> impl Strategy<Value = Vec<RuleEntry>> {
    let identities = prop::collection::btree_set((0..4_u32).prop_map(Identity), 0..4);
    let peers = prop_oneof![
        Just(Peers::Any),
        identities.prop_map(|set| Peers::Set(set.into_iter().collect::<Vec<_>>().into())),
    ];
    let proto = prop::option::of(prop::sample::select(&PROTOCOLS[..3]));
    let entry = (peers, proto, ports(), prop::bool::weighted(0.2));
    prop::collection::vec(entry, 0..12).prop_map(|entries| {
        let numbered = (0..).zip(entries);
        let entry = |(n, (peers, proto, ports, deny))| RuleEntry {
            peers,
            ports: PortMatch { proto, ports },
            deny,
            rule: RuleId(n),
        };
        numbered.map(entry).collect()
    })
}

fn matches(entry: &RuleEntry, peer: Identity, proto: Protocol, port: u16) -> bool {
    let about_peer = match &entry.peers {
        Peers::Any => true,
        Peers::Set(set) => set.contains(&peer),
    };
    about_peer && entry.ports.proto.is_none_or(|p| p == proto) && entry.ports.ports.contains(&port)
}

fn shape(entry: &RuleEntry) -> Match {
    let every_port = entry.ports.ports == (0..=u16::MAX);
    match (&entry.peers, entry.ports.proto) {
        (Peers::Any, None) if every_port => Match::All,
        (Peers::Any, Some(_)) if every_port => Match::ProtoOnly,
        (Peers::Any, _) => Match::L4Only,
        (Peers::Set(_), None) if every_port => Match::L3Only,
        (Peers::Set(_), Some(_)) if every_port => Match::L3Proto,
        (Peers::Set(_), _) => Match::L3L4,
    }
}

/// Least specific first.
fn specificity(matched: Match) -> usize {
    let order = [Match::All, Match::L3Only, Match::ProtoOnly, Match::L3Proto, Match::L4Only, Match::L3L4];
    order.iter().position(|other| *other == matched).unwrap()
}

proptest! {
    #[test]
    fn equals_a_naive_evaluator(ingress in prop::option::of(entries()), egress in prop::option::of(entries())) {
        let spec = PolicySpec { ingress, egress };
        let policy = Policy::compile(&spec);
        for (direction, entries) in [(Direction::Ingress, &spec.ingress), (Direction::Egress, &spec.egress)] {
            prop_assert_eq!(policy.enforced(direction), entries.is_some());
            for peer in (0..6).map(Identity) {
                for proto in PROTOCOLS {
                    for port in PORTS {
                        let decision = policy.decide(direction, peer, proto, port);
                        check(entries.as_deref(), peer, proto, port, decision)?;
                    }
                }
            }
        }
    }
}

fn check(
    entries: Option<&[RuleEntry]>,
    peer: Identity,
    proto: Protocol,
    port: u16,
    decision: Decision,
) -> Result<(), TestCaseError> {
    let Some(entries) = entries else {
        prop_assert_eq!(decision, Decision::Allow { rule: None, matched: Match::All });
        return Ok(());
    };
    let matching: Vec<&RuleEntry> =
        entries.iter().filter(|entry| matches(entry, peer, proto, port)).collect();
    let denied = matching.iter().any(|entry| entry.deny);
    let (rule, matched) = match decision {
        Decision::DefaultDeny => {
            prop_assert!(matching.is_empty());
            return Ok(());
        }
        Decision::Deny { rule, matched } => {
            prop_assert!(denied);
            (rule, matched)
        }
        Decision::Allow { rule, matched } => {
            prop_assert!(!denied);
            (rule.unwrap(), matched)
        }
    };
    // What is reported is a rule that matched and decided so, and none was more specific.
    let deciding: Vec<&&RuleEntry> = matching.iter().filter(|entry| entry.deny == denied).collect();
    let winner = deciding.iter().find(|entry| entry.rule == rule).unwrap();
    prop_assert_eq!(shape(winner), matched);
    let most = deciding.iter().map(|entry| specificity(shape(entry))).max();
    let width = |entry: &RuleEntry| entry.ports.ports.end() - entry.ports.ports.start();
    let narrowest = deciding.iter().map(|entry| width(entry)).min();
    prop_assert!(Some(specificity(matched)) == most || Some(width(winner)) == narrowest);
    Ok(())
}

#[test]
fn peers_named_by_the_same_rules_share_a_class() {
    let peers: Vec<Identity> = (1000..2000).map(Identity).collect();
    let entries: Vec<RuleEntry> = (0..300_u16)
        .map(|port| RuleEntry {
            peers: Peers::Set(peers.clone().into()),
            ports: PortMatch { proto: Some(Protocol::TCP), ports: 2 * port..=2 * port },
            deny: false,
            rule: RuleId(port.into()),
        })
        .collect();
    let policy = Policy::compile(&PolicySpec { ingress: Some(entries), egress: None });
    assert_eq!(policy.ingress.as_ref().unwrap().classes(), 1);
    let decide = |port| policy.decide(Direction::Ingress, Identity(1777), Protocol::TCP, port);
    assert_eq!(decide(500), Decision::Allow { rule: Some(RuleId(250)), matched: Match::L3L4 });
    assert_eq!(decide(501), Decision::DefaultDeny);
}
