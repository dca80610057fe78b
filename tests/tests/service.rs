//! Services: one cluster of two nodes, and a service of two clusters.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;
use tests::manifests::{service, service_addresses};
use tests::reach::PORTS;
use tests::{Host, World, eventually, eventually_true};

const GLOBAL: &str = "service.cilium.io/global: 'true'";

/// Asks again and again until exactly these servers have answered.
fn is_served_by(client: &Host, number: u8, servers: &[&str]) {
    let wanted: BTreeSet<String> = servers.iter().map(|&name| name.to_owned()).collect();
    for address in service_addresses(number) {
        eventually(&format!("{address} is served by {servers:?}"), || {
            let answers: Result<BTreeSet<String>, _> = (0..24).map(|_| client.ask((address, 80))).collect();
            match answers {
                Ok(seen) if seen == wanted => Ok(()),
                Ok(seen) => Err(format!("answers from {seen:?}")),
                Err(error) => Err(error.to_string()),
            }
        });
    }
}

#[test]
fn a_service_of_two_nodes_follows_its_pods() {
    let world = World::of(&[2]);
    let (one, two) = (world.node(1, 1), world.node(1, 2));
    world.cluster(1).apply("web.yaml", &service("web", 10, ""));
    let client = one.pod("default/client", "");
    let near = one.pod("default/near", "app=web");
    let far = two.pod("default/far", "app=web");
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far")];
    is_served_by(&client, 10, &["near", "far"]);
    for address in service_addresses(10) {
        for payload in ["short".to_owned(), "long".repeat(1500)] {
            eventually(&format!("{} bytes to {address}", payload.len()), || {
                client.ask_udp((address, 80), &payload)
            });
        }
        let mut conversation = client.connect((address, 80)).unwrap();
        conversation.ask(&"0123456789abcdef".repeat(1 << 16)).unwrap();
    }
    let list = one.cli.show("service list");
    for line in ["10.96.0.10:80/TCP", "10.96.0.10:80/UDP", "[fd00:96::10]:80/TCP", "(active)"] {
        assert!(list.contains(line), "{line}: {list}");
    }
    let flows = one.cli.show("ct list");
    assert!(flows.contains("TCP SVC ") && flows.contains("-> 10.96.0.10:80"), "{flows}");

    // A pod reaches itself through its service as soon as it is the only backend.
    far.delete();
    is_served_by(&client, 10, &["near"]);
    is_served_by(&near, 10, &["near"]);

    // No backend, then no answer, and every packet is counted with that reason.
    near.delete();
    let series = r#"cilium_drop_count_total{reason="Service backend not found",direction="EGRESS"}"#;
    eventually_true("the last backend is gone", || {
        one.cli.json("service list").to_string().contains(r#""backends":[]"#)
    });
    let before = one.metric(series);
    let socket = client.udp((service_addresses(10)[0], 80).into()).unwrap();
    for _ in 0..5 {
        socket.send(b"x").unwrap();
    }
    eventually("all five are counted", || match one.metric(series) - before {
        5 => Ok(()),
        count => Err(count),
    });
}

#[test]
fn errors_from_the_backend_come_back_as_errors_from_the_service() {
    let world = World::of(&[2]);
    world.cluster(1).apply("web.yaml", &service("web", 10, ""));
    let client = world.node(1, 1).pod("default/client", "");
    let backend = world.node(1, 2).pod("default/backend", "app=web");
    for address in service_addresses(10) {
        // Nothing listens there: its host says port unreachable, and TCP answers with a reset.
        eventually("the datagram is refused", || {
            let socket = client.udp((address, 80).into()).map_err(|e| e.kind())?;
            socket.send(b"anybody?").map_err(|e| e.kind())?;
            match socket.recv(&mut [0; 16]).map_err(|e| e.kind()) {
                Err(ErrorKind::ConnectionRefused) => Ok(()),
                Ok(_) => panic!("somebody listens"),
                Err(kind) => Err(kind),
            }
        });
        let refusal = client.connect((address, 80)).err().map(|e| e.kind());
        assert_eq!(refusal, Some(ErrorKind::ConnectionRefused));
    }
    drop(backend);
}

#[test]
fn endpoint_slices_and_named_ports_choose_the_backends() {
    let world = World::single();
    let node = world.node(1, 1);
    let client = node.pod("default/client", "");
    let chosen = node.pod_with("default/chosen", "--label app=web --port web=9000/TCP");
    let other = node.pod("default/other", "app=web");
    let _servers = [chosen.serve(9000, "chosen"), other.serve(8080, "other")];
    let named = "apiVersion: v1
kind: Service
metadata: {name: named, namespace: default}
spec:
  selector: {app: web}
  clusterIP: 10.96.0.20
  ports: [{name: stream, port: 80, targetPort: web, protocol: TCP}]
";
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  namespace: default
  labels: {{kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- addresses: ['{}']
  conditions: {{ready: true}}
ports: [{{name: stream, port: 8080, protocol: TCP}}]
",
        other.ipv4
    );
    let cluster = world.cluster(1);
    cluster.apply("all.yaml", &format!("{named}---\n{}---\n{slice}", service("web", 10, "")));
    let served_by = |address: &str, name: &str| {
        let address: IpAddr = address.parse().unwrap();
        client.reaches([address], 80, name, &PORTS[..1]);
        assert!((0..8).all(|_| client.ask((address, 80)).unwrap() == name), "{address}");
    };
    served_by("10.96.0.20", "chosen");
    served_by("10.96.0.10", "other");
}

#[test]
fn a_global_service_spans_clusters_and_honours_its_annotations() {
    let world = World::of(&[1, 1]);
    let (here, there) = (world.node(1, 1), world.node(2, 1));
    let (cluster, remote) = (world.cluster(1), world.cluster(2));
    cluster.apply("web.yaml", &service("web", 10, GLOBAL));
    remote.apply("web.yaml", &service("web", 11, GLOBAL));
    let (client, stranger) = (here.pod("default/client", ""), there.pod("default/client", ""));
    let (near, far) = (here.pod("default/near", "app=web"), there.pod("default/far", "app=web"));
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far")];
    is_served_by(&client, 10, &["near", "far"]);
    is_served_by(&stranger, 11, &["near", "far"]);

    cluster.apply("web.yaml", &service("web", 10, &format!("{GLOBAL}, service.cilium.io/affinity: local")));
    is_served_by(&client, 10, &["near"]);
    cluster.apply("web.yaml", &service("web", 10, &format!("{GLOBAL}, service.cilium.io/affinity: remote")));
    is_served_by(&client, 10, &["far"]);
    cluster.apply("web.yaml", &service("web", 10, &format!("{GLOBAL}, service.cilium.io/shared: 'false'")));
    is_served_by(&client, 10, &["near", "far"]);
    is_served_by(&stranger, 11, &["far"]);
    cluster.apply("web.yaml", &service("web", 10, ""));
    is_served_by(&client, 10, &["near"]);

    // With local affinity the other cluster takes over when the last local backend goes.
    cluster.apply("web.yaml", &service("web", 10, &format!("{GLOBAL}, service.cilium.io/affinity: local")));
    is_served_by(&client, 10, &["near"]);
    near.delete();
    is_served_by(&client, 10, &["far"]);

    // What affinity cannot be counts as none, and `status` says so.
    cluster.apply("web.yaml", &service("web", 10, &format!("{GLOBAL}, service.cilium.io/affinity: nearest")));
    let warning =
        "service default/web: service.cilium.io/affinity: \"nearest\": must be none, local or remote";
    eventually_true("status warns", || here.cli.show("status --verbose").contains(warning));
    remote.withdraw("web.yaml");
    eventually_true("nobody serves", || client.ask((service_addresses(10)[0], 80)).is_err());
}

#[test]
fn weights_divide_new_connections_among_clusters_whatever_their_backends_count() {
    let world = World::of(&[1, 1]);
    let (here, there) = (world.node(1, 1), world.node(2, 1));
    let weights = "dataplane.io/cluster-weights: 'cluster1=80,cluster2=20'";
    world.cluster(1).apply("web.yaml", &service("web", 10, &format!("{GLOBAL}, {weights}")));
    world.cluster(2).apply("web.yaml", &service("web", 11, GLOBAL));
    let client = here.pod("default/client", "");
    let near = here.pod("default/near", "app=web");
    let far = ["far-0", "far-1", "far-2"].map(|name| there.pod(&format!("default/{name}"), "app=web"));
    let _servers = [near.serve(8080, "near"), far[0].serve(8080, "far-0"), far[1].serve(8080, "far-1")];
    let _last = far[2].serve(8080, "far-2");
    is_served_by(&client, 10, &["near", "far-0", "far-1", "far-2"]);
    for address in service_addresses(10) {
        let answers = (0..500).map(|_| client.ask((address, 80)).unwrap());
        let near = answers.filter(|server| server == "near").count();
        // More than four standard deviations to either side.
        assert!((360..=440).contains(&near), "{near} of 500 connections to {address} stayed here");
    }
    let list = here.cli.show("service list");
    assert!(list.contains("(80%)") && list.contains("(cluster2) (6.7%)"), "{list}");

    // A weight that cannot be is refused and leaves the last good one in force.
    let wrong = weights.replace("80", "800");
    world.cluster(1).apply("web.yaml", &service("web", 10, &format!("{GLOBAL}, {wrong}")));
    let problem = "dataplane.io/cluster-weights: \"800\", the weight of cluster1: must be 0 to 100";
    eventually_true("status says what is wrong", || here.cli.show("status").contains(problem));
    assert_eq!(here.cli.show("service list"), list);
}

#[test]
fn with_local_affinity_traffic_fails_over_at_once_and_returns_gradually() {
    const SHIFT: u64 = 10;
    let world = World::of(&[1, 1]);
    let (here, there) = (world.node(1, 1), world.node(2, 1));
    let annotations =
        format!("{GLOBAL}, service.cilium.io/affinity: local, dataplane.io/shift-seconds: '{SHIFT}'");
    world.cluster(1).apply("web.yaml", &service("web", 10, &annotations));
    world.cluster(2).apply("web.yaml", &service("web", 11, GLOBAL));
    let client = here.pod("default/client", "");
    let (near, far) = (here.pod("default/near", "app=web"), there.pod("default/far", "app=web"));
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far")];
    // All that begins to serve within the first such time counts as being there from the start.
    is_served_by(&client, 10, &["near"]);
    std::thread::sleep(Duration::from_secs(SHIFT + 1));
    is_served_by(&client, 10, &["near"]);

    near.delete();
    is_served_by(&client, 10, &["far"]);
    let mut established = client.connect((service_addresses(10)[0], 80)).unwrap();
    assert_eq!(established.ask("before").unwrap(), "far");

    let near = here.pod("default/near-again", "app=web");
    let _server = near.serve(8080, "near");
    is_served_by(&client, 10, &["near", "far"]);
    is_served_by(&client, 10, &["near"]);
    assert_eq!(established.ask("after").unwrap(), "far");
}
