use super::*;
use crate::monitor::resolve::Resolver;
use control::agent::DropQuery;
use control::model::PodFacts;
use tables::{Decision, Direction, Match, RuleId};
use wire::{Identity, Protocol};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with a pod that serves redis to one identity.
fn state() -> State {
    let flow = Flow {
        service_entry: false,
        from: (ip("10.60.1.2"), 4000),
        to: (ip("10.60.1.9"), 6379),
        protocol: 6,
        translated: Some((ip("10.96.0.10"), 80)),
        service: 3,
        source_identity: 70_000,
        destination_identity: 70_001,
        generation: 7,
        created: 900,
        last_seen: 900,
        replied: true,
        tcp_flags: 0x1a,
        reply_tcp_flags: 0x12,
    };
    let entry = Flow {
        service_entry: true,
        to: flow.translated.unwrap(),
        translated: Some(flow.to),
        source_identity: 0,
        destination_identity: 0,
        generation: 0,
        ..flow.clone()
    };
    State {
        version: VERSION,
        agent: "0.1.0".into(),
        taken: Taken { unix: 1_700_000_000, boot: 1000, policy_generation: 7 },
        node: Node {
            name: "node1".into(),
            addresses: vec![ip("10.0.1.1"), ip("10.60.1.1")],
            gateway_v4: Some(ip("10.60.1.1")),
            gateway_v6: None,
            gateway_mac: "0a:00:00:00:00:01".into(),
            pod_mtu: 1500,
            pod_ranges: vec![(ip("10.60.1.0"), ip("10.60.1.255"))],
            uplinks: vec![Uplink {
                name: "eth0".into(),
                ifindex: 2,
                mac: "02:00:00:00:00:01".into(),
                mtu: 1500,
            }],
            dual_stack: false,
        },
        clusters: [(1, "cluster1".into())].into(),
        endpoints: vec![Endpoint {
            id: 9,
            interface: "dp9".into(),
            ifindex: 19,
            mac: "02:00:00:00:00:09".into(),
            addresses: vec![ip("10.60.1.9"), ip("fd00:60:1::9")],
            identity: 70_001,
            policy: 0,
        }],
        policies: vec![Policy {
            ingress: Some(vec![Rule {
                rule: 5,
                deny: false,
                peers: Some(vec![70_000]),
                protocol: Some(6),
                ports: (6379, 6379),
            }]),
            egress: None,
        }],
        names: Lexicon {
            pods: [(9, PodFacts { name: "default/redis-0".into(), allows: [1, 0] })].into(),
            identities: [(70_002, "app=stranger (cluster1)".into())].into(),
            rules: [(5, "rule 1 of default/redis (ingress)".into())].into(),
        },
        ipcache: vec![
            Prefix { prefix: "10.60.2.7/32".parse().unwrap(), identity: 70_002, node: Some(ip("10.0.1.2")) },
            Prefix { prefix: "10.60.0.0/16".parse().unwrap(), identity: 2, node: None },
        ],
        services: vec![Service {
            id: 3,
            address: ip("10.96.0.10"),
            port: 80,
            protocol: 6,
            backends: vec![Backend { address: ip("10.60.1.9"), port: 6379, weight: 1 }],
        }],
        hops: vec![Hop {
            node: ip("10.0.1.2"),
            way: Some(Way { uplink: 0, mac: "02:00:00:00:00:02".into(), mtu: 1500 }),
        }],
        flows: vec![flow, entry],
    }
}

#[test]
fn what_is_loaded_is_what_was_dumped() {
    let state = state();
    let loaded = Loaded::read(&serde_json::to_vec(&state).unwrap()).unwrap();
    let tables = loaded.tables();
    assert_eq!(dump::node("node1", tables), state.node);
    let interfaces = [(9, "dp9".to_owned())].into();
    assert_eq!(dump::endpoints(tables, &[(9, 0)].into(), &interfaces), state.endpoints);
    let prefixes: Vec<_> = tables.ipcache.iter().map(|entry| dump::prefix(entry, tables)).collect();
    assert_eq!(prefixes, state.ipcache);
    assert_eq!(tables.services.iter().map(dump::service).collect::<Vec<_>>(), state.services);
    assert_eq!(tables.hops.iter().map(dump::hop).collect::<Vec<_>>(), state.hops);
    assert_eq!(dump::policy(&load::spec(&state.policies[0])), state.policies[0]);

    let mut flows = Vec::new();
    loaded.conntrack(1000).for_each(1000, |flow, entry| flows.push(dump::flow(flow, entry)));
    flows.sort_by_key(|flow| flow.service_entry);
    assert_eq!(flows, state.flows);
    let mut begun_before = 0;
    loaded.conntrack(899).for_each(899, |_, _| begun_before += 1);
    assert_eq!(begun_before, 0, "flows that began later are not known yet");
}

#[test]
fn policy_decides_and_explains_as_before() {
    let mut loaded = Loaded::read(&serde_json::to_vec(&state()).unwrap()).unwrap();
    let policy = loaded.tables().endpoints.by_ifindex(19).unwrap().policy.clone();
    let decide = |peer| policy.decide(Direction::Ingress, Identity(peer), Protocol::TCP, 6379);
    assert_eq!(decide(70_000), Decision::Allow { rule: Some(RuleId(5)), matched: Match::L3L4 });
    assert_eq!(decide(70_002), Decision::DefaultDeny);
    let query = DropQuery {
        direction: Direction::Ingress,
        endpoint: 9,
        peer: Identity(70_002),
        address: ip("10.1.2.11"),
        proto: Protocol::TCP,
        port: 6379,
        rule: None,
    };
    let why = "no rule of 1 selecting default/redis-0 allows app=stranger (cluster1) on 6379/TCP";
    assert_eq!(loaded.explain(query), why);
    assert_eq!(
        loaded.explain(DropQuery { rule: Some(RuleId(5)), ..query }),
        "denied by rule 1 of default/redis (ingress)"
    );
}

#[test]
fn what_cannot_be_used_is_refused_with_the_reason() {
    let refusal = |edit: &dyn Fn(&mut State)| {
        let mut state = state();
        edit(&mut state);
        Loaded::read(&serde_json::to_vec(&state).unwrap()).unwrap_err().to_string()
    };
    assert!(refusal(&|state| state.version = 9).starts_with("version 9: this program reads version 1"));
    assert!(refusal(&|state| state.endpoints[0].mac = "2:x".into()).starts_with("link-layer address: 2:x"));
    assert!(refusal(&|state| state.endpoints[0].policy = 1).starts_with("policy of an endpoint: 1"));
    let error = Loaded::read(b"[]").unwrap_err().to_string();
    assert!(error.starts_with("not a state of `dataplane state dump`"), "{error}");
}
