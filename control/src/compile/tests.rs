use super::*;
use crate::records;
use crate::testing::*;
use crate::update::Update;
use tables::Direction::{Egress, Ingress};
use wire::Protocol;

mod differential;

const TCP: Protocol = Protocol::TCP;

const DB: u32 = 0x1_0001;
const EMPLOYEE: u32 = 0x1_0002;
const STRANGER: u32 = 0x1_0003;
const REMOTE_EMPLOYEE: u32 = 0x2_0001;
const REMOTE_STRANGER: u32 = 0x2_0002;

/// The scene: a database here, people in both clusters.
fn scene() -> World {
    let mut world = World::new();
    world
        .pod(pod(1, "default", "protected-db-0", "10.1.1.10", "app=protected-db", DB))
        .updates(elsewhere("cluster1", "default", "app=employee", EMPLOYEE, "10.1.2.10"))
        .updates(elsewhere("cluster1", "default", "app=stranger", STRANGER, "10.1.2.11"))
        .updates(elsewhere("cluster2", "istio-space", "app=employee", REMOTE_EMPLOYEE, "10.2.1.10"))
        .updates(elsewhere("cluster2", "default", "app=employee", REMOTE_STRANGER, "10.2.1.11"))
        .updates([Update::NodeUpsert(node("cluster2", "node1", "10.0.9.9", "10.2.1.0/24"))]);
    world
}

fn policy(spec: &str) -> String {
    let spec = spec.lines().map(|line| format!("  {line}\n")).collect::<String>();
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: default}}\nspec:\n{spec}"
    )
}

/// Peers, and whether they are allowed.
type Verdicts = &'static [(u32, bool)];

/// Publishes a policy for the database and asks it.
fn with_policy(spec: &str) -> World {
    let mut world = scene();
    world
        .manifest(&policy(&format!("endpointSelector: {{matchLabels: {{app: protected-db}}}}\n{spec}")))
        .run();
    world
}

#[test]
fn employees_of_both_clusters_reach_the_database_and_strangers_do_not() {
    let mut world = scene();
    world.run();
    assert!(world.allows(1, Ingress, STRANGER, TCP, 6379), "nothing is denied before the policy");
    world
        .manifest(&policy(
            r#"endpointSelector: {matchLabels: {app: protected-db}}
ingress:
- fromEndpoints:
  - matchLabels: {app: employee}
  toPorts: [{ports: [{port: "6379", protocol: TCP}]}]
- fromEndpoints:
  - matchLabels:
      app: employee
      io.kubernetes.pod.namespace: istio-space
      io.cilium.k8s.policy.cluster: cluster2
  toPorts: [{ports: [{port: "6379", protocol: TCP}]}]"#,
        ))
        .run();
    assert!(world.allows(1, Ingress, EMPLOYEE, TCP, 6379));
    assert!(world.allows(1, Ingress, REMOTE_EMPLOYEE, TCP, 6379));
    for (peer, port) in [(STRANGER, 6379), (REMOTE_STRANGER, 6379), (EMPLOYEE, 6380), (REMOTE_EMPLOYEE, 22)] {
        assert_eq!(world.decide(1, Ingress, peer, TCP, port), tables::Decision::DefaultDeny, "{peer} {port}");
    }
    assert!(world.allows(1, Egress, STRANGER, TCP, 80), "egress is not enforced");
    assert_eq!(
        world.explain(1, Ingress, STRANGER, TCP, 6379),
        "no rule of 2 selecting default/protected-db-0 allows app=stranger (cluster1) on 6379/TCP"
    );
}

#[test]
fn a_new_identity_gets_into_policies_that_select_it() {
    let mut world = with_policy("ingress: [{fromEndpoints: [{matchLabels: {app: late}}]}]");
    assert!(!world.allows(1, Ingress, 0x1_0099, TCP, 80));
    let before = world.publisher.current().policy_generation;
    world.updates(elsewhere("cluster1", "default", "app=late", 0x1_0099, "10.1.2.99")).run();
    assert!(world.allows(1, Ingress, 0x1_0099, TCP, 80));
    assert_ne!(world.publisher.current().policy_generation, before);
    world.updates([Update::IdentityDelete(Identity(0x1_0099))]).run();
    assert!(!world.allows(1, Ingress, 0x1_0099, TCP, 80));
}

#[test]
fn an_endpoint_without_identity_is_not_in_the_tables() {
    let mut world = World::new();
    let pod =
        crate::model::LocalEndpoint { identity: None, ..pod(7, "default", "a", "10.1.1.7", "app=a", 0) };
    world.pod(pod).run();
    assert_eq!(world.publisher.current().endpoints.iter().count(), 0);
    assert_eq!(world.lookup("10.1.1.7").0, 0);
    let wanted = world.state.endpoints[&7].wanted.clone();
    assert_eq!(world.state.assign(7, Identity(0x1_0007), &wanted), None);
    world.run();
    assert_eq!(world.publisher.current().endpoints.iter().count(), 1);
    assert_eq!(world.lookup("10.1.1.7").0, 0x1_0007);
}

/// The rows of `cilium-interop` 10.3 and 5.1–5.8 that are about policy: spec, then who may.
#[test]
fn semantics() {
    const HOST: u32 = Identity::HOST.0;
    const WORLD: u32 = Identity::WORLD.0;
    const NODE: u32 = Identity::REMOTE_NODE.0;
    #[rustfmt::skip]
    let table: &[(&str, &str, Verdicts)] = &[
        ("an empty list is no list", "ingress: []\negress: [{}]",
            &[(STRANGER, true), (WORLD, true)]),
        ("an empty element allows nothing but the node", "ingress: [{}]",
            &[(STRANGER, false), (WORLD, false), (HOST, true), (NODE, false)]),
        ("present and empty matches no peer", "ingress: [{fromEndpoints: []}]",
            &[(EMPLOYEE, false), (HOST, true)]),
        ("all of the namespace, in this cluster", "ingress: [{fromEndpoints: [{}]}]",
            &[(EMPLOYEE, true), (STRANGER, true), (REMOTE_EMPLOYEE, false), (REMOTE_STRANGER, false), (WORLD, false)]),
        ("ports without peers allow anyone", "ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]",
            &[(EMPLOYEE, true), (WORLD, true), (REMOTE_EMPLOYEE, true)]),
        ("no cluster key means this cluster", "ingress: [{fromEndpoints: [{matchLabels: {app: employee}}]}]",
            &[(EMPLOYEE, true), (REMOTE_STRANGER, false), (STRANGER, false)]),
        ("every cluster", "ingress: [{fromEndpoints: [{matchExpressions: [{key: io.cilium.k8s.policy.cluster, operator: Exists}]}]}]",
            &[(EMPLOYEE, true), (REMOTE_STRANGER, true), (REMOTE_EMPLOYEE, false)]),
        ("entity cluster: own pods and all nodes", "ingress: [{fromEntities: [cluster]}]",
            &[(EMPLOYEE, true), (STRANGER, true), (REMOTE_EMPLOYEE, false), (NODE, true), (HOST, true), (WORLD, false)]),
        ("entity world", "ingress: [{fromEntities: [world]}]",
            &[(EMPLOYEE, false), (WORLD, true), (NODE, false)]),
        ("entity all", "ingress: [{fromEntities: [all]}]",
            &[(EMPLOYEE, true), (WORLD, true), (NODE, true), (REMOTE_EMPLOYEE, true)]),
        ("a prefix matches no pod", "ingress: [{fromCIDR: [0.0.0.0/0]}]",
            &[(EMPLOYEE, false), (REMOTE_EMPLOYEE, false), (NODE, false), (WORLD, true)]),
        ("denied world, allowed pods", "ingressDeny: [{fromCIDR: [0.0.0.0/0]}]\ningress: [{fromEndpoints: [{}]}, {fromEntities: [world]}]",
            &[(EMPLOYEE, true), (WORLD, false)]),
        ("deny of a peer beats allow of its port", "ingressDeny: [{fromEndpoints: [{matchLabels: {app: employee}}]}]\ningress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '80'}]}]}]",
            &[(EMPLOYEE, false), (STRANGER, true)]),
        ("deny of a port beats allow of its peer", "ingressDeny: [{toPorts: [{ports: [{port: '80', protocol: TCP}]}]}]\ningress: [{fromEndpoints: [{}]}]",
            &[(EMPLOYEE, false), (STRANGER, false)]),
        ("deny without default deny leaves the rest", "enableDefaultDeny: {ingress: false}\ningressDeny: [{fromEndpoints: [{matchLabels: {app: stranger}}]}]",
            &[(EMPLOYEE, true), (STRANGER, false), (WORLD, true)]),
        ("allow without default deny changes nothing", "enableDefaultDeny: {ingress: false}\ningress: [{fromEndpoints: [{matchLabels: {app: employee}}]}]",
            &[(EMPLOYEE, true), (STRANGER, true), (WORLD, true)]),
        ("default deny is carried by entries", "enableDefaultDeny: {ingress: true}\negress: [{}]",
            &[(STRANGER, true)]),
        ("an explicit deny of the node wins", "ingressDeny: [{fromEntities: [host]}]\ningress: [{fromEntities: [all]}]",
            &[(HOST, false), (EMPLOYEE, true)]),
        ("absent keys match NotIn", "ingress: [{fromEndpoints: [{matchExpressions: [{key: tier, operator: NotIn, values: [x]}, {key: app, operator: In, values: [employee, other]}]}]}]",
            &[(EMPLOYEE, true), (STRANGER, false)]),
        ("UDP is not TCP", "ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: UDP}]}]}]",
            &[(EMPLOYEE, false)]),
        ("a range", "ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '70', endPort: 90, protocol: TCP}]}]}]",
            &[(EMPLOYEE, true)]),
        ("port 0 is every port", "ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '0', protocol: TCP}]}]}]",
            &[(EMPLOYEE, true)]),
    ];
    for (name, spec, expected) in table {
        let world = with_policy(spec);
        for (peer, allowed) in *expected {
            assert_eq!(world.allows(1, Ingress, *peer, TCP, 80), *allowed, "{name}: peer {peer}");
        }
    }
}

#[test]
fn modes() {
    for (mode, selected, other) in [
        (PolicyMode::Default, false, true),
        (PolicyMode::Always, false, false),
        (PolicyMode::Never, true, true),
    ] {
        let mut world = World::with(own(), mode);
        world
            .pod(pod(1, "default", "a", "10.1.1.10", "app=protected-db", DB))
            .pod(pod(2, "default", "b", "10.1.1.11", "app=other", EMPLOYEE))
            .manifest(&policy("endpointSelector: {matchLabels: {app: protected-db}}\ningress: [{}]"))
            .run();
        assert_eq!(world.allows(1, Ingress, STRANGER, TCP, 80), selected, "{mode:?}");
        assert_eq!(world.allows(2, Ingress, STRANGER, TCP, 80), other, "{mode:?}");
        // Without an ingress rule the node is not let in implicitly.
        assert_eq!(world.allows(2, Ingress, Identity::HOST.0, TCP, 80), other, "{mode:?}");
    }
}

#[test]
fn prefixes_get_identities_while_policies_name_them() {
    let spec = "egress: [{toCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.128/25]}]}]";
    let mut world = with_policy(spec);
    let (inside, outside) = (world.lookup("192.0.2.1").0, world.lookup("192.0.2.200").0);
    assert!(inside >= 0x0100_0001 && outside >= 0x0100_0001 && inside != outside);
    assert!(world.allows(1, Egress, inside, TCP, 443));
    assert!(!world.allows(1, Egress, outside, TCP, 443));
    assert!(!world.allows(1, Egress, Identity::WORLD.0, TCP, 443));
    assert_eq!(
        world.explain(1, Egress, outside, TCP, 443),
        "no rule of 1 selecting default/protected-db-0 allows traffic to 192.0.2.128/25 on 443/TCP"
    );
    world.manifest(&policy("endpointSelector: {}\negress: [{}]")).run();
    assert_eq!(world.lookup("192.0.2.1").0, 0);
    assert!(world.state.selectors.labels(Identity(inside)).is_none());
}

#[test]
fn named_ports_are_the_subjects_for_ingress_and_the_peers_for_egress() {
    let port = |name: &str, port| records::NamedPort { name: name.into(), port, protocol: "TCP".into() };
    let mut world = World::new();
    let mut database = pod(1, "default", "db", "10.1.1.10", "app=protected-db", DB);
    database.named_ports = vec![port("redis", 6379)];
    let [identity, mut ip] = elsewhere("cluster1", "default", "app=web", EMPLOYEE, "10.1.2.10");
    if let Update::IpUpsert(_, _, record) = &mut ip {
        record.named_ports = vec![port("http", 8080)];
    }
    let spec = "endpointSelector: {}
ingress: [{toPorts: [{ports: [{port: redis, protocol: TCP}]}]}]
egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: http, protocol: TCP}]}]}]";
    world.pod(database).manifest(&policy(spec)).run();
    assert!(world.allows(1, Ingress, STRANGER, TCP, 6379));
    assert!(!world.allows(1, Ingress, STRANGER, TCP, 6380));
    assert!(!world.allows(1, Egress, EMPLOYEE, TCP, 8080), "its port is not known yet");
    world.updates([identity, ip]).run();
    assert!(world.allows(1, Egress, EMPLOYEE, TCP, 8080));
    assert!(!world.allows(1, Egress, EMPLOYEE, TCP, 80));
    assert!(!world.allows(1, Egress, STRANGER, TCP, 8080), "it does not serve that name");
}

#[test]
fn icmp_types() {
    let world =
        with_policy("ingress: [{icmps: [{fields: [{type: EchoRequest}, {family: IPv6, type: 128}]}]}]");
    assert!(world.allows(1, Ingress, STRANGER, Protocol::ICMP, 8));
    assert!(world.allows(1, Ingress, STRANGER, Protocol::ICMPV6, 128));
    assert!(!world.allows(1, Ingress, STRANGER, Protocol::ICMP, 13));
    assert_eq!(
        world.explain(1, Ingress, STRANGER, Protocol::ICMP, 13),
        "no rule of 1 selecting default/protected-db-0 allows app=stranger (cluster1) on ICMP type 13"
    );
}

#[test]
fn a_denied_packet_names_its_rule() {
    let world = with_policy(
        "ingressDeny:\n- fromEntities: [world]\n- fromEndpoints: [{matchLabels: {app: stranger}}]",
    );
    assert_eq!(world.explain(1, Ingress, STRANGER, TCP, 80), "denied by rule 2 of default/p (ingressDeny)");
    assert_eq!(
        world.explain(1, Ingress, EMPLOYEE, TCP, 80),
        "no ingress rule selecting default/protected-db-0 allows anything"
    );
}

#[test]
fn kubernetes_network_policy() {
    let knp = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: default}}\nspec: {spec}"
        )
    };
    const WORLD: u32 = Identity::WORLD.0;
    #[rustfmt::skip]
    let table: &[(&str, Verdicts, bool)] = &[
        ("{podSelector: {}, ingress: [{}]}", &[(STRANGER, true), (WORLD, true)], true),
        ("{podSelector: {}}", &[(STRANGER, false), (WORLD, false)], true),
        ("{podSelector: {}, policyTypes: [Egress]}", &[(STRANGER, true)], false),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: employee}}}]}]}",
            &[(EMPLOYEE, true), (STRANGER, false), (REMOTE_STRANGER, false)], true),
        ("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}",
            &[(EMPLOYEE, true), (STRANGER, true), (REMOTE_EMPLOYEE, false), (WORLD, false)], true),
        ("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}, podSelector: {matchLabels: {app: employee}}}]}]}",
            &[(EMPLOYEE, true), (STRANGER, false)], true),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}",
            &[(EMPLOYEE, false), (WORLD, true)], true),
        ("{podSelector: {}, ingress: [{ports: [{port: 80}]}]}", &[(EMPLOYEE, true), (WORLD, true)], true),
        ("{podSelector: {}, ingress: [{ports: [{port: 70, endPort: 79}]}]}", &[(EMPLOYEE, false)], true),
    ];
    for (spec, expected, egress) in table {
        let mut world = scene();
        world.manifest(&knp(spec)).run();
        for (peer, allowed) in *expected {
            assert_eq!(world.allows(1, Ingress, *peer, TCP, 80), *allowed, "{spec}: {peer}");
        }
        assert_eq!(world.allows(1, Egress, STRANGER, TCP, 80), *egress, "{spec}");
    }
}

#[test]
fn addresses_resolve_to_pods_nodes_and_the_way_there() {
    let mut world = scene();
    world.run();
    let hop = Some("10.0.9.9".to_string());
    assert_eq!(world.lookup("10.2.1.10"), (REMOTE_EMPLOYEE, hop.clone()));
    assert_eq!(world.lookup("10.2.1.99"), (0, hop.clone()), "not known yet, but routed");
    assert_eq!(world.lookup("10.0.9.9"), (Identity::REMOTE_NODE.0, None));
    assert_eq!(world.lookup("10.0.1.1"), (Identity::HOST.0, None));
    assert_eq!(world.lookup("10.1.1.1"), (Identity::HOST.0, None));
    assert_eq!(world.lookup("10.1.1.10"), (DB, None));
    // A policy about addresses there does not lose the way, and is not about pods, known or not.
    world.manifest(&policy("endpointSelector: {}\negress: [{toCIDR: [10.2.0.0/16, 10.2.1.99/32]}]")).run();
    assert_eq!(world.lookup("10.2.1.99"), (0, hop));
    assert!(!world.allows(1, Egress, 0, TCP, 80));
    assert!(world.allows(1, Egress, world.lookup("10.2.2.98").0, TCP, 80), "a pod CIDR of no node");
    // Another cluster cannot take over an address of this one.
    world.updates(elsewhere("cluster2", "default", "app=thief", 0x2_0066, "10.1.2.10")).run();
    assert_eq!(world.lookup("10.1.2.10").0, EMPLOYEE);
}

#[test]
fn nodes_that_nothing_is_behind_any_more_are_not_looked_for() {
    let mut world = scene();
    world.run();
    let nodes = |world: &World| world.publisher.current().hops.iter().count();
    let before = nodes(&world);
    for host in ["10.0.9.100", "10.0.9.101", "10.0.9.102"] {
        let mut told = elsewhere("cluster2", "default", "app=far", 0x2_0099, "10.2.1.50");
        let Update::IpUpsert(_, _, record) = &mut told[1] else { unreachable!() };
        record.host_ip = host.into();
        world.updates(told).run();
        assert_eq!(world.lookup("10.2.1.50").1.as_deref(), Some(host));
        assert_eq!(nodes(&world), before + 1, "one at a time");
    }
    let gone = Update::IpDelete("cluster2".into(), "10.2.1.50/32".parse().unwrap());
    world.updates([gone]).run();
    assert_eq!(nodes(&world), before);
}

#[test]
fn an_identity_counts_when_its_labels_are_known() {
    let [labels, record] = elsewhere("cluster2", "default", "app=late", 0x2_0099, "10.2.1.50");
    let later = elsewhere("cluster2", "default", "app=late", 0x2_0099, "10.2.1.51");
    let mut world = scene();
    world.run();
    let identity = |world: &World, ip: &str| world.lookup(ip).0;
    world.updates([record.clone()]).run();
    assert_eq!(world.lookup("10.2.1.50"), (0, Some("10.0.9.9".into())));
    world.updates([labels.clone()]).run();
    assert_eq!(identity(&world, "10.2.1.50"), 0x2_0099);
    world.updates([Update::IdentityDelete(Identity(0x2_0099))]).run();
    assert_eq!(identity(&world, "10.2.1.50"), 0);
    world.updates(later).run();
    assert_eq!(["10.2.1.50", "10.2.1.51"].map(|ip| identity(&world, ip)), [0x2_0099; 2]);
    // Taken back and given again in one step.
    world.updates([Update::IdentityDelete(Identity(0x2_0099)), labels]).run();
    assert_eq!(identity(&world, "10.2.1.50"), 0x2_0099);
}

#[test]
fn who_is_not_known_is_let_in_only_with_everybody() {
    let deny = |peers: &str| format!("ingress: [{{fromEntities: [all]}}]\ningressDeny: [{{{peers}}}]");
    for (spec, allowed) in [
        ("ingress: [{fromEntities: [all]}]", true),
        ("ingress: [{toPorts: [{ports: [{port: '80'}]}]}]", true),
        ("ingress: [{fromEntities: [world, cluster]}]", false),
        ("ingress: [{fromCIDR: [0.0.0.0/0]}]", false),
        (&deny("fromEndpoints: [{matchLabels: {app: nobody-yet}}]"), false),
        (
            &deny("fromEndpoints: [{matchLabels: {app: nobody-yet}}], toPorts: [{ports: [{port: '81'}]}]"),
            true,
        ),
        (&deny("fromCIDR: [10.2.0.0/16]"), true),
    ] {
        assert_eq!(with_policy(spec).allows(1, Ingress, 0, TCP, 80), allowed, "{spec}");
    }
    let by_name =
        "egress: [{toEntities: [all]}]\negressDeny: [{toPorts: [{ports: [{port: redis, protocol: TCP}]}]}]";
    let world = with_policy(by_name);
    assert!(!world.allows(1, Egress, 0, TCP, 80) && world.allows(1, Egress, 0, Protocol::UDP, 80));
}

#[test]
fn a_drop_of_somebody_unknown_says_what_is_missing() {
    let mut world = with_policy("ingress: [{fromEndpoints: [{matchLabels: {app: employee}}]}]");
    let [labels, record] = elsewhere("cluster2", "default", "app=late", 0x2_0099, "10.2.1.50");
    let why = |world: &World, ip: &str| world.explain_stranger(1, ip);
    assert_eq!(
        why(&world, "10.2.1.50"),
        "identity of 10.2.1.50 (pod CIDR of cluster2/node1) is not known yet"
    );
    assert_eq!(why(&world, "10.1.1.99"), "no pod of this node has 10.1.1.99 yet");
    world.updates([record]).run();
    assert_eq!(
        why(&world, "10.2.1.50"),
        "labels of identity 131225 of 10.2.1.50 (cluster2) are not known yet"
    );
    world.updates([labels]).run();
    assert_eq!(
        why(&world, "10.2.1.50"),
        "identity of 10.2.1.50 was not known yet: it is app=late (cluster2) now"
    );
}

#[test]
fn a_restored_pod_stays_closed_until_the_policies_are_read() {
    let mut world = World::new();
    world.state.objects_synced = false;
    world.pod(pod(1, "default", "db", "10.1.1.10", "app=db", DB)).run();
    assert_eq!(world.publisher.current().endpoints.iter().count(), 0);
    world.state.object(crate::objects::ObjectEvent::Synced);
    world.run();
    assert!(world.allows(1, Ingress, STRANGER, TCP, 80), "no policy selects it");
}

#[test]
fn a_prefix_of_a_family_that_is_not_in_use_matches_nothing() {
    for (net, allowed) in [("::/0", false), ("0.0.0.0/0", true)] {
        let world = with_policy(&format!("ingress: [{{fromCIDR: ['{net}']}}]"));
        assert_eq!(world.allows(1, Ingress, Identity::WORLD.0, TCP, 80), allowed, "{net}");
    }
}

#[test]
fn names_of_ports_are_the_same_in_all_letters() {
    let mut world = World::new();
    let mut db = pod(1, "default", "db", "10.1.1.10", "app=db", DB);
    db.named_ports =
        vec![crate::records::NamedPort { name: "Redis".into(), port: 6379, protocol: "TCP".into() }];
    let spec = "endpointSelector: {}\ningress: [{fromEntities: [all]}]\n\
                ingressDeny: [{toPorts: [{ports: [{port: REDIS, protocol: TCP}]}]}]";
    world.pod(db).manifest(&policy(spec)).run();
    assert!(!world.allows(1, Ingress, STRANGER, TCP, 6379) && world.allows(1, Ingress, STRANGER, TCP, 80));
}
