//! Two clusters of two nodes with an etcd each.

use serde_json::Value;
use std::net::IpAddr;
use tests::reach::{ALL, Means};
use tests::{Node, Pod, World, eventually};

#[test]
fn every_pod_reaches_every_other_and_all_nodes_agree() {
    let world = World::of(&[2, 2]);
    let pods: Vec<Pod> =
        world.nodes().map(|node| node.pod(&format!("default/{}", node.name), "app=web")).collect();
    let _servers: Vec<_> = pods.iter().map(|pod| pod.serve(8080, &pod.netns)).collect();
    for client in &pods {
        for server in &pods {
            client.reaches(server.addresses(), 8080, &server.netns, ALL);
        }
    }

    // The same labels are the same identity within a cluster, and another one in the other cluster.
    let identities: Vec<u64> = pods.iter().map(Pod::identity).collect();
    assert_eq!(identities[0], identities[1]);
    assert_eq!(identities[2], identities[3]);
    assert_eq!([identities[0] >> 16, identities[2] >> 16], [101, 102]);

    // All agents know all nodes, identities and addresses.
    let nodes = |view: &Value| -> Vec<String> {
        view.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    };
    for node in world.nodes() {
        let names = nodes(&node.cli.json("node list"));
        assert_eq!(names, ["cluster1/node1", "cluster1/node2", "cluster2/node1", "cluster2/node2"]);
        let list = node.cli.json("identity list");
        for (identity, cluster) in [(identities[0], "cluster1"), (identities[2], "cluster2")] {
            let entry = list.as_array().unwrap().iter().find(|entry| entry["id"] == identity);
            let labels = entry.unwrap_or_else(|| panic!("{identity}: {list:#}"))["labels"].to_string();
            for label in ["k8s:app=web", &format!("k8s:io.cilium.k8s.policy.cluster={cluster}")] {
                assert!(labels.contains(label), "{labels}");
            }
        }
        let ipcache = node.cli.json("ipcache list");
        for (pod, identity) in pods.iter().zip(&identities) {
            let prefix = format!("{}/32", pod.ipv4);
            let entry = ipcache.as_array().unwrap().iter().find(|entry| entry["prefix"] == prefix[..]);
            assert_eq!(entry.unwrap_or_else(|| panic!("{prefix}: {ipcache:#}"))["identity"], *identity);
        }
        let status = node.cli.say("clustermesh status");
        assert!(status.contains("1/1 remote clusters ready"), "{status}");
    }

    // A pod that goes away is forgotten everywhere.
    pods[3].delete();
    let prefix = format!("{}/32", pods[3].ipv4);
    for node in world.nodes() {
        eventually("the address is forgotten", || {
            let list = node.cli.show("ipcache list -o json");
            if list.contains(&prefix) { Err(list) } else { Ok(()) }
        });
    }
}

#[test]
fn hosts_reach_the_pods_of_all_nodes_and_pods_reach_all_hosts() {
    let world = World::of(&[2, 1]);
    let nodes: Vec<&Node> = world.nodes().collect();
    let pods: Vec<Pod> = nodes.iter().map(|node| node.pod(&format!("default/{}", node.name), "")).collect();
    let _pods: Vec<_> = pods.iter().map(|pod| pod.serve(8080, &pod.netns)).collect();
    let _hosts: Vec<_> = nodes.iter().map(|node| node.serve(9090, &node.host.netns)).collect();
    for node in &nodes {
        for pod in &pods {
            node.host.reaches(pod.addresses(), 8080, &pod.netns, ALL);
            pod.reaches(node.addresses(), 9090, &node.host.netns, ALL);
        }
    }
    for (number, node) in [(60, 1), (60, 2), (70, 1)] {
        let gateways = [format!("10.{number}.{node}.1"), format!("fd00:{number}:{node}::1")];
        let gateways = gateways.map(|address| address.parse::<IpAddr>().unwrap());
        for host in nodes.iter().map(|node| &node.host).chain([&world.outside]) {
            host.reaches(gateways, 0, "the gateway", &[Means::Icmp]);
        }
    }
}

#[test]
fn a_change_of_labels_and_a_namespace_change_the_identity_without_a_gap() {
    let world = World::of(&[1, 1]);
    let (near, far) = (world.node(1, 1), world.node(2, 1));
    let (client, server) = (near.pod("shop/client", "app=client"), far.pod("shop/server", "app=server"));
    let _server = server.serve(8080, "server");
    let mut conversation = eventually("a connection", || client.connect((server.ipv4, 8080)));
    let before = client.identity();
    world.cluster(1).apply(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    team: blue\n",
    );
    let label = "k8s:io.cilium.k8s.namespace.labels.team=blue";
    let after = eventually("a new identity", || {
        let status = client.status();
        conversation.ask("still there?").unwrap();
        if status["status"]["labels"].to_string().contains(label) {
            Ok(client.identity())
        } else {
            Err(status)
        }
    });
    assert_ne!(before, after);
    eventually("the other cluster knows it", || {
        let list = far.cli.show("identity list");
        if list.contains(label) { Ok(()) } else { Err(list) }
    });
    assert_eq!(conversation.ask("and now?").unwrap(), "server");
}

#[test]
fn large_datagrams_and_large_streams_cross_between_clusters_whole() {
    let world = World::of(&[1, 1]);
    let (client, server) = (world.node(1, 1).pod("default/a", ""), world.node(2, 1).pod("default/b", ""));
    let _servers = [server.serve(8080, "b"), client.serve(8080, "a")];
    for (from, to, name) in [(&client, &server, "b"), (&server, &client, "a")] {
        for address in to.addresses() {
            // Fragments both ways: the answer is as large as the question.
            for size in [1472, 1473, 4000, 9000] {
                eventually(&format!("{size} bytes to {address}"), || {
                    let answer = from.ask_udp((address, 8080), &"f".repeat(size))?;
                    if answer == name { Ok(()) } else { Err(std::io::Error::other(answer)) }
                });
            }
            let mut conversation = from.connect((address, 8080)).unwrap();
            assert_eq!(conversation.ask(&"0123456789abcdef".repeat(1 << 18)).unwrap(), name);
        }
    }
}
