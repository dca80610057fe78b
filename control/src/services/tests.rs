use super::*;
use crate::testing::*;
use crate::update::Update;
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

/// The service's backends as the tables have them: address, port, selectable.
fn backends(world: &mut World) -> Vec<(String, u16, bool)> {
    world.run();
    let snapshot = world.publisher.current();
    let address = Address::from("10.96.0.10".parse::<IpAddr>().expect("address"));
    let frontend = Frontend { address, port: 6379, proto: Protocol::TCP };
    let found = snapshot.services.lookup(frontend).expect("the service");
    let row = |b: &Backend| (b.address.to_string(), b.port, b.selectable);
    found.backends().iter().map(row).collect()
}

fn usable(world: &mut World) -> Vec<String> {
    backends(world).into_iter().filter(|(_, _, selectable)| *selectable).map(|(ip, ..)| ip).collect()
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
        let exports = world.compiler.exports(&world.state);
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
    let exports = world.compiler.exports(&world.state);
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
    let numbers = world.compiler.frontends.clone();
    world.manifest(&service("service.cilium.io/global: 'true'", "app: db")).run();
    assert_eq!(world.compiler.frontends, numbers);
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
    let contested: Vec<_> = world.compiler.contested_frontends().collect();
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
    assert_eq!(world.compiler.contested_frontends().count(), 0);
}
