use super::*;
use crate::testing::*;
use crate::update::Update;
use std::time::Duration;
use tables::Backend;

const DB: u32 = 0x1_0001;

fn service(annotations: &str, selector: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: db, namespace: default, annotations: {{{annotations}}}}}
spec:
  clusterIP: 10.96.0.10
  selector: {{{selector}}}
  ports: [{{name: redis, port: 6379, targetPort: redis}}]
"
    )
}

fn remote(cluster: &str, id: u32, backends: &[(&str, &str, &str, u16)]) -> Update {
    let mut record = records::Service {
        cluster: cluster.into(),
        namespace: "default".into(),
        name: "db".into(),
        include_external: true,
        shared: true,
        cluster_id: id,
        ..records::Service::default()
    };
    for (ip, name, proto, port) in backends {
        let port = records::Port { protocol: proto.to_string(), port: *port };
        record.backends.entry(ip.to_string()).or_default().insert(name.to_string(), port);
    }
    Update::ServiceUpsert(record)
}

fn with_local(annotations: &str) -> World {
    let mut world = World::new();
    let mut database = pod(1, "default", "db-0", "10.1.1.10", "app=db", DB);
    database.named_ports =
        vec![records::NamedPort { name: "redis".into(), port: 6380, protocol: "TCP".into() }];
    world.pod(database).manifest(&service(annotations, "app: db"));
    world
}

/// The service's backends as the tables have them: address, port, whether they get new flows.
fn backends(world: &mut World) -> Vec<(String, u16, bool)> {
    world.run();
    published(world).into_iter().map(|b| (b.address.to_string(), b.port, b.weight > 0)).collect()
}

fn published(world: &World) -> Vec<Backend> {
    let snapshot = world.publisher.current();
    let address = Address::from("10.96.0.10".parse::<IpAddr>().expect("address"));
    let frontend = Frontend { address, port: 6379, proto: Protocol::TCP };
    snapshot.services.lookup(frontend).expect("the service").backends().to_vec()
}

fn usable(world: &mut World) -> Vec<String> {
    backends(world).into_iter().filter(|(_, _, chosen)| *chosen).map(|(ip, ..)| ip).collect()
}

const LOCAL: &str = "10.1.1.10";
const REMOTE: &str = "10.2.1.10";

fn two_clusters(annotations: &str) -> World {
    let mut world = with_local(annotations);
    world.updates([remote("cluster2", 2, &[(REMOTE, "redis", "TCP", 6379)])]);
    world
}

/// `cilium-interop` 4.1, seen from A, and what A offers to B.
#[test]
fn sharing() {
    let legacy = "io.cilium/global-service: 'true'";
    for (annotations, used, offered) in [
        ("service.cilium.io/global: 'true'", vec![LOCAL, REMOTE], true),
        (legacy, vec![LOCAL, REMOTE], true),
        ("service.cilium.io/global: 'True', service.cilium.io/shared: 'false'", vec![LOCAL, REMOTE], false),
        ("", vec![LOCAL], false),
        ("service.cilium.io/global: 'false', io.cilium/global-service: 'true'", vec![LOCAL], false),
        ("service.cilium.io/shared: 'true'", vec![LOCAL], false),
    ] {
        let mut world = two_clusters(annotations);
        assert_eq!(usable(&mut world), used, "{annotations}");
        let exports = world.compiler.services.take_exports().expect("they are new");
        assert_eq!(exports.len(), usize::from(offered), "{annotations}");
        for export in exports.values() {
            assert_eq!(
                records::to_json(export),
                r#"{"cluster":"cluster1","namespace":"default","name":"db","frontends":{"10.96.0.10":{"redis":{"Protocol":"TCP","Port":6379}}},"backends":{"10.1.1.10":{"redis":{"Protocol":"TCP","Port":6380}}},"labels":{},"selector":{"app":"db"},"includeExternal":true,"shared":true,"clusterID":1}"#
            );
        }
    }
}

#[test]
fn a_global_service_without_pods_here_uses_the_others_and_is_still_offered() {
    let mut world = two_clusters("service.cilium.io/global: 'true'");
    world.state.remove_endpoint(1);
    assert_eq!(backends(&mut world), [(REMOTE.to_string(), 6379, true)]);
    let exports = world.compiler.services.take_exports().expect("they are new");
    assert!(exports.values().all(|export| export.backends.is_empty()) && exports.len() == 1);
}

/// `cilium-interop` 4.4: affinity, which sides have backends, who gets new flows.
#[test]
fn affinity() {
    for (affinity, here, there, used) in [
        ("none", true, true, vec![LOCAL, REMOTE]),
        ("none", false, true, vec![REMOTE]),
        ("local", true, true, vec![LOCAL]),
        ("local", true, false, vec![LOCAL]),
        ("local", false, true, vec![REMOTE]),
        ("remote", true, true, vec![REMOTE]),
        ("remote", true, false, vec![LOCAL]),
        ("remote", false, true, vec![REMOTE]),
        ("remote", false, false, vec![]),
    ] {
        let annotations = format!("service.cilium.io/global: 'true', service.cilium.io/affinity: {affinity}");
        let mut world = two_clusters(&annotations);
        world.run();
        if !here {
            world.state.remove_endpoint(1);
        }
        if !there {
            world.updates([Update::ServiceDelete("cluster2".into(), "default".into(), "db".into())]);
        }
        assert_eq!(usable(&mut world), used, "{affinity}: here {here}, there {there}");
        // And back again.
        world.pod(with_local("").state.endpoints[&1].spec.clone());
        world.updates([remote("cluster2", 2, &[(REMOTE, "redis", "TCP", 6379)])]);
        assert_eq!(usable(&mut world), usable(&mut two_clusters(&annotations)), "{affinity}");
    }
}

/// The tables know an address that is mapped into IPv6 only as the IPv4 address that it is.
#[test]
fn a_mapped_address_is_an_ipv4_address() {
    let mut world = World::new();
    let manifest = service("service.cilium.io/global: 'true'", "")
        .replace("clusterIP: 10.96.0.10", "clusterIP: 10.96.0.10\n  clusterIPs: [10.96.0.10, 'fd00:96::10']")
        .replace("  selector: {}\n", "");
    world.manifest(&manifest);
    let ips = [("::ffff:10.2.1.10", "redis", "TCP", 6379), ("10.2.1.10", "redis", "TCP", 6379)];
    world.updates([remote("cluster2", 2, &ips)]);
    assert_eq!(backends(&mut world), [(REMOTE.to_string(), 6379, true)]);
    let address = Address::from("fd00:96::10".parse::<IpAddr>().expect("address"));
    let snapshot = world.publisher.current();
    let service = snapshot.services.lookup(Frontend { address, port: 6379, proto: Protocol::TCP });
    assert!(service.expect("the service").backends().is_empty());
}

#[test]
fn a_cluster_that_is_away_is_the_last_resort() {
    let mut world = two_clusters("service.cilium.io/global: 'true', service.cilium.io/affinity: remote");
    let stale = |stale| Update::ClusterServices { cluster: "cluster2".into(), stale };
    world.updates([stale(true)]);
    assert_eq!(usable(&mut world), [LOCAL]);
    assert_eq!(backends(&mut world).len(), 2, "flows that are there keep their backend");
    world.state.remove_endpoint(1);
    assert_eq!(usable(&mut world), [REMOTE]);
    world.updates([stale(false)]);
    assert_eq!(usable(&mut world), [REMOTE]);
}

#[test]
fn ports_are_matched_by_name_protocol_and_family() {
    let mut world = with_local("service.cilium.io/global: 'true'");
    world.state.remove_endpoint(1);
    world.updates([remote(
        "cluster2",
        2,
        &[
            ("10.2.1.1", "redis", "TCP", 1),
            ("10.2.1.2", "", "TCP", 2),
            ("10.2.1.3", "http", "TCP", 3),
            ("10.2.1.4", "redis", "UDP", 4),
            ("fd00::5", "redis", "TCP", 5),
        ],
    )]);
    let found: Vec<_> = backends(&mut world).into_iter().map(|(_, port, _)| port).collect();
    assert_eq!(found, [1, 2]);
}

#[test]
fn slices_replace_the_selector_and_say_who_is_ready() {
    let mut world = with_local("");
    let slice = |endpoints: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: db-1, namespace: default, labels: {{kubernetes.io/service-name: db}}}}
addressType: IPv4
endpoints: [{endpoints}]
ports: [{{name: redis, port: 6379}}]
"
        )
    };
    let ready = "{addresses: [10.1.2.1]}";
    let leaving = "{addresses: [10.1.2.2], conditions: {ready: false, serving: true, terminating: true}}";
    let broken = "{addresses: [10.1.2.3], conditions: {ready: false}}";
    world.manifest(&slice(&format!("{ready}, {leaving}, {broken}")));
    assert_eq!(backends(&mut world), [("10.1.2.1".into(), 6379, true), ("10.1.2.2".into(), 6379, false)]);
    world.manifest(&slice(&format!("{leaving}, {broken}")));
    assert_eq!(backends(&mut world), [("10.1.2.2".into(), 6379, true)], "better than none");
    world.manifest(&slice(""));
    assert_eq!(backends(&mut world), []);
}

#[test]
fn pods_of_the_whole_cluster_are_backends_but_not_those_of_other_clusters() {
    let mut world = with_local("");
    let named = records::NamedPort { name: "redis".into(), port: 7000, protocol: "TCP".into() };
    for (cluster, identity, ip) in [("cluster1", DB, "10.1.2.10"), ("cluster2", 0x2_0001, "10.2.1.10")] {
        let [labels, mut record] = elsewhere(cluster, "default", "app=db", identity, ip);
        if let Update::IpUpsert(_, _, record) = &mut record {
            record.named_ports = vec![named.clone()];
        }
        world.updates([labels, record]);
    }
    assert_eq!(backends(&mut world), [("10.1.1.10".into(), 6380, true), ("10.1.2.10".into(), 7000, true)]);
}

#[test]
fn a_service_keeps_its_number_and_a_lost_frontend_goes() {
    let mut world = two_clusters("");
    world.run();
    let numbers = world.compiler.services.frontends.clone();
    world.manifest(&service("service.cilium.io/global: 'true'", "app: db")).run();
    assert_eq!(world.compiler.services.frontends, numbers);
    world.state.object(crate::objects::ObjectEvent::Delete(crate::objects::ObjectKey {
        kind: "Service",
        namespace: "default".into(),
        name: "db".into(),
    }));
    world.run();
    assert_eq!(world.publisher.current().services.iter().count(), 0);
}

#[test]
fn a_service_that_is_renamed_keeps_its_frontend() {
    let mut world = two_clusters("");
    world.run();
    let frontends = |world: &World| world.publisher.current().services.iter().count();
    let before = frontends(&world);
    let renamed = service("", "app: db").replace("name: db", "name: storage");
    world.manifest(&renamed).run();
    let contested: Vec<_> = world.compiler.services.contested_frontends().collect();
    assert_eq!(contested.len(), before, "{contested:?}");
    assert!(contested[0].starts_with("service default/storage: "), "{contested:?}");
    // The old name may go in a later turn than the new one came.
    world.state.object(crate::objects::ObjectEvent::Delete(crate::objects::ObjectKey {
        kind: "Service",
        namespace: "default".into(),
        name: "db".into(),
    }));
    world.run();
    assert_eq!(frontends(&world), before);
    assert_eq!(world.compiler.services.contested_frontends().count(), 0);
}

const GLOBAL: &str = "service.cilium.io/global: 'true'";

/// `cilium-interop` 4.3, one rule after the other.
#[test]
fn what_a_cluster_says_replaces_what_it_said_before_and_only_that() {
    let mut world = two_clusters(GLOBAL);
    world.updates([remote(
        "cluster3",
        3,
        &[("10.3.1.1", "redis", "TCP", 1), ("10.3.1.2", "redis", "TCP", 2)],
    )]);
    assert_eq!(usable(&mut world), [LOCAL, REMOTE, "10.3.1.1", "10.3.1.2"]);
    world.updates([remote(
        "cluster3",
        3,
        &[("10.3.1.2", "redis", "TCP", 2), ("10.3.1.3", "redis", "TCP", 3)],
    )]);
    assert_eq!(usable(&mut world), [LOCAL, REMOTE, "10.3.1.2", "10.3.1.3"]);
    let withdrawn = match remote("cluster3", 3, &[("10.3.1.2", "redis", "TCP", 2)]) {
        Update::ServiceUpsert(record) => Update::ServiceUpsert(records::Service { shared: false, ..record }),
        other => other,
    };
    world.updates([withdrawn]);
    assert_eq!(usable(&mut world), [LOCAL, REMOTE]);
    world.updates([Update::ServiceDelete("cluster2".into(), "default".into(), "db".into())]);
    assert_eq!(usable(&mut world), [LOCAL]);
}

#[test]
fn what_others_offer_is_kept_until_the_service_is_global() {
    let mut world = two_clusters("");
    assert_eq!(usable(&mut world), [LOCAL]);
    world.manifest(&service(GLOBAL, "app: db"));
    assert_eq!(usable(&mut world), [LOCAL, REMOTE]);
}

#[test]
fn an_address_that_two_clusters_claim_is_this_ones() {
    let mut world = with_local(GLOBAL);
    world.updates([remote("cluster2", 2, &[(LOCAL, "redis", "TCP", 6380), (LOCAL, "redis2", "TCP", 1)])]);
    world.run();
    let view = &world.compiler.services.views(&world.state)[0];
    let rows: Vec<_> = view.backends.iter().map(|b| (&*b.address, &*b.cluster)).collect();
    assert_eq!(rows, [("10.1.1.10:6380/TCP", "cluster1")]);
}

#[test]
fn a_port_of_several_names_is_one_backend_and_an_unnamed_frontend_takes_all() {
    let mut world = with_local(GLOBAL);
    let ports = [("redis", 6379), ("metrics", 6379), ("metrics", 9121)];
    let ports = ports.map(|(name, port)| ("10.2.1.10", name, "TCP", port));
    // One name can be at one port only in this format.
    world.updates([remote("cluster2", 2, &ports[..2])]);
    assert_eq!(backends(&mut world), [(LOCAL.into(), 6380, true), (REMOTE.into(), 6379, true)]);
    world.updates([remote("cluster2", 2, &[ports[0], ports[2]])]);
    assert_eq!(backends(&mut world), [(LOCAL.into(), 6380, true), (REMOTE.into(), 6379, true)]);
    world.manifest(&service(GLOBAL, "app: db").replace("name: redis, port", "port"));
    let all = [(LOCAL.into(), 6380, true), (REMOTE.into(), 6379, true), (REMOTE.into(), 9121, true)];
    assert_eq!(backends(&mut world), all);
}

#[test]
fn weights_reach_the_tables() {
    let weights = "dataplane.io/cluster-weights: 'cluster1=80,cluster2=20'";
    let mut world = with_local(&format!("{GLOBAL}, {weights}"));
    world.updates([remote("cluster2", 2, &[(REMOTE, "redis", "TCP", 1), ("10.2.1.11", "redis", "TCP", 1)])]);
    world.run();
    let weights: Vec<_> = published(&world).iter().map(|b| b.weight).collect();
    assert_eq!(weights, [800_000, 100_000, 100_000]);
    let shares: Vec<_> =
        world.compiler.services.views(&world.state)[0].backends.iter().map(|b| b.share).collect();
    assert_eq!(shares, [80.0, 10.0, 10.0]);
}

/// What the local backend gets, in percent, once control has run at this time.
fn local_share(world: &mut World, now: Instant) -> u32 {
    world.run_at(now);
    let weights = published(world).into_iter().map(|b| (b.address.to_string(), b.weight));
    weights.filter(|(ip, _)| ip == LOCAL).map(|(_, weight)| (weight + 5_000) / 10_000).sum()
}

#[test]
fn a_local_backend_that_comes_back_takes_over_step_by_step() {
    let mut world = two_clusters(&format!("{GLOBAL}, service.cilium.io/affinity: local"));
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(local_share(&mut world, begin), 100);
    assert_eq!(world.compiler.services.next_step(), None);
    let pod = world.state.endpoints[&1].spec.clone();
    world.state.remove_endpoint(1);
    assert_eq!(local_share(&mut world, at(100)), 0);
    world.pod(pod);
    let mut seen = vec![(100, local_share(&mut world, at(100)))];
    while let Some(due) = world.compiler.services.next_step() {
        seen.push(((due - begin).as_secs(), local_share(&mut world, due)));
    }
    let steps: Vec<_> = (0..10).map(|step| (100 + 3 * step, 10 + 10 * step as u32)).collect();
    assert_eq!(seen, steps);
    // What serves already may be preferred at once.
    world.manifest(&service(&format!("{GLOBAL}, service.cilium.io/affinity: remote"), "app: db"));
    assert_eq!(local_share(&mut world, at(200)), 0);
}

#[test]
fn a_cluster_that_returns_gets_its_share_step_by_step() {
    let mut world = two_clusters(GLOBAL);
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(local_share(&mut world, begin), 50);
    let stale = |stale| Update::ClusterServices { cluster: "cluster2".into(), stale };
    assert_eq!(local_share(world.updates([stale(true)]), at(100)), 100);
    assert_eq!(world.compiler.services.views(&world.state)[0].backends[1].state, "quarantined");
    assert_eq!(local_share(world.updates([stale(false)]), at(200)), 95);
    assert_eq!(local_share(&mut world, at(215)), 70);
    assert_eq!(local_share(&mut world, at(227)), 50);
    assert_eq!(world.compiler.services.next_step(), None);
}

/// Whoever needs the state meanwhile does not wait for all of them.
#[test]
fn steps_of_many_services_are_taken_in_turns() {
    const SERVICES: usize = 2 * catalog::STEPS_PER_TURN + 1;
    let mut world = with_local(GLOBAL);
    for n in 0..SERVICES {
        let manifest = service(GLOBAL, "app: db").replace("10.96.0.10", &format!("10.96.1.{n}"));
        world.manifest(&manifest.replace("name: db", &format!("name: db-{n}")));
    }
    let begin = Instant::now();
    world.run_at(begin);
    let joins = (0..SERVICES).map(|n| match remote("cluster2", 2, &[(REMOTE, "redis", "TCP", 6379)]) {
        Update::ServiceUpsert(record) => {
            Update::ServiceUpsert(records::Service { name: format!("db-{n}"), ..record })
        }
        other => other,
    });
    world.updates(joins);
    world.run_at(begin + Duration::from_secs(100));
    let due = world.compiler.services.next_step().expect("a step");
    let turns = (0..).take_while(|_| {
        world.run_at(due);
        world.compiler.services.next_step() == Some(due)
    });
    assert_eq!(turns.count(), 2);
    assert_eq!(world.compiler.services.next_step(), Some(due + Duration::from_secs(3)));

    let settled = begin + Duration::from_secs(200);
    while world.compiler.services.next_step().is_some() {
        world.run_at(settled);
    }
    let in_use = |world: &World| {
        let snapshot = world.publisher.current();
        let usable = snapshot.services.iter().flat_map(|service| service.backends().to_vec());
        usable.filter(|b| b.weight > 0 && b.address.to_string() == REMOTE).count()
    };
    assert_eq!(in_use(&world), SERVICES);
    world.updates([Update::ClusterServices { cluster: "cluster2".into(), stale: true }]);
    let left = [0, 0, 0].map(|_| in_use(world.run_at(settled)));
    assert_eq!(left, [catalog::STEPS_PER_TURN + 1, 1, 0]);
    assert_eq!(world.compiler.services.next_step(), None);
}

#[test]
fn headless_services_and_those_of_others_are_listed_with_the_backends_of_all_clusters() {
    let mut world = with_local("");
    let headless = service(GLOBAL, "app: db").replace("10.96.0.10", "None");
    world.manifest(&headless);
    let mut elsewhere = match remote("cluster2", 2, &[(REMOTE, "redis", "TCP", 6379)]) {
        Update::ServiceUpsert(record) => record,
        other => panic!("{other:?}"),
    };
    world.updates([Update::ServiceUpsert(elsewhere.clone())]);
    elsewhere.name = "web".into();
    world.updates([Update::ServiceUpsert(elsewhere)]).run();
    assert_eq!(world.publisher.current().services.iter().count(), 0, "no frontend, nothing in the tables");
    let rows = world.compiler.services.views(&world.state);
    let row = |n: usize| {
        let backends = rows[n].backends.iter().map(|b| (&*b.address, &*b.cluster)).collect::<Vec<_>>();
        (&*rows[n].name, &*rows[n].frontend, rows[n].remote, backends)
    };
    let there = ("10.2.1.10:6379/TCP", "cluster2");
    assert_eq!(row(0), ("db", "None", false, vec![("10.1.1.10:6380/TCP", "cluster1"), there]));
    assert_eq!(row(1), ("web", "None", true, vec![there]));
    let exports = world.compiler.services.take_exports().expect("they are new");
    let json: Vec<_> = exports.values().map(records::to_json).collect();
    assert_eq!(
        json,
        [
            r#"{"cluster":"cluster1","namespace":"default","name":"db","frontends":{},"backends":{"10.1.1.10":{"redis":{"Protocol":"TCP","Port":6380}}},"labels":{},"selector":{"app":"db"},"includeExternal":true,"shared":true,"clusterID":1}"#
        ]
    );
}

#[test]
fn exports_say_what_slices_say_and_change_only_with_it() {
    let mut world = with_local(GLOBAL);
    let slice = |ready: bool| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: db-1, namespace: default, labels: {{kubernetes.io/service-name: db}}}}
addressType: IPv4
endpoints:
- {{addresses: [10.1.2.1], hostname: db-0, zone: eu-1a, hints: {{forZones: [{{name: eu-1a}}]}}}}
- {{addresses: [10.1.2.2], conditions: {{ready: {ready}}}}}
ports: [{{name: redis, port: 6379}}]
"
        )
    };
    world.manifest(&slice(false)).run();
    let exports = world.compiler.services.take_exports().expect("they are new");
    assert_eq!(
        records::to_json(&exports[&("default".to_string(), "db".to_string())]),
        r#"{"cluster":"cluster1","namespace":"default","name":"db","frontends":{"10.96.0.10":{"redis":{"Protocol":"TCP","Port":6379}}},"backends":{"10.1.2.1":{"redis":{"Protocol":"TCP","Port":6379}}},"hostnames":{"10.1.2.1":"db-0"},"zones":{"10.1.2.1":{"zone":"eu-1a","forZones":[{"name":"eu-1a"}]}},"labels":{},"selector":{"app":"db"},"includeExternal":true,"shared":true,"clusterID":1}"#
    );
    // What others offer and pods that are no backends do not concern it.
    world.updates([remote("cluster2", 2, &[(REMOTE, "redis", "TCP", 6379)])]);
    world.pod(pod(2, "default", "web-0", "10.1.1.20", "app=web", DB + 1)).run();
    assert_eq!(world.compiler.services.take_exports(), None);
    world.manifest(&slice(true)).run();
    let exports = world.compiler.services.take_exports().expect("they are new");
    assert_eq!(exports.values().map(|export| export.backends.len()).collect::<Vec<_>>(), [2]);
}
