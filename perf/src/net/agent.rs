//! Our own variants: real agents.

use super::arena::{Arena, Endpoint, SERVER_PORT};
use super::{Load, nft};
use std::net::Ipv4Addr;
use tests::node::Node;
use tests::{Pod, World, eventually, manifests};

/// Two pods of one node.
///
/// # Errors
/// If a pod's links are not found.
pub fn same_node(name: &str, offload: &str, load: Load) -> Result<Arena, String> {
    let mut world = World::lay_single();
    start(&mut world, offload, load);
    let node = world.node(1, 1);
    let client = node.pod("default/client", "app=client");
    let server = node.pod("default/server", "app=server");
    arena(name, world, &client, &server, [1, 1])
}

/// Two pods on two nodes, with an etcd between them.
///
/// # Errors
/// If a pod's links are not found.
pub fn two_nodes(name: &str, offload: &str, load: Load) -> Result<Arena, String> {
    let mut world = World::lay(&[2]);
    start(&mut world, offload, load);
    let client = world.node(1, 1).pod("default/client", "app=client");
    let server = world.node(1, 2).pod("default/server", "app=server");
    arena(name, world, &client, &server, [1, 2])
}

fn start(world: &mut World, offload: &str, load: Load) {
    for node in &mut world.clusters[0].nodes {
        node.replace_flag("--offload", offload);
    }
    world.cluster(1).apply("services.yaml", &services(load.services));
    world.cluster(1).apply("policy.yaml", &policy("server", load.rules));
    world.start();
}

fn arena(name: &str, world: World, client: &Pod, server: &Pod, nodes: [usize; 2]) -> Result<Arena, String> {
    nodes.iter().for_each(|&number| serves(world.node(1, number), server));
    let [client, server] = [(client, nodes[0]), (server, nodes[1])].map(|(pod, number)| {
        let (host, node) = ((**pod).clone(), world.node(1, number).host.clone());
        Endpoint::find(host, node, pod.ipv4, pod.ipv6)
    });
    Ok(Arena { name: name.to_owned(), client: client?, server: server?, kept: Box::new(world) })
}

/// Waits until the node knows the backend of the service.
fn serves(node: &Node, server: &Pod) {
    let backend = format!("{}:{SERVER_PORT}", server.ipv4);
    eventually("the service has its backend", || {
        let list = node.cli.run("service list")?;
        if list.contains(&backend) { Ok(()) } else { Err(format!("no {backend} in service list")) }
    });
}

/// The server's service, and others whose backends are nowhere.
pub(crate) fn services(count: u32) -> String {
    let mut yaml = manifests::service("server", 1, "io.cilium/global-service: 'true'");
    for number in 1..count {
        let (vip, backend) = nft::other_service(number);
        yaml += &format!("---\n{}", service(&format!("other-{number}"), vip, backend));
    }
    yaml
}

/// A service of one port and one backend.
pub(crate) fn service(name: &str, vip: Ipv4Addr, backend: Ipv4Addr) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: {vip}, ports: [{{name: p, port: 80, targetPort: {SERVER_PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [{backend}]}}]
ports: [{{name: p, port: {SERVER_PORT}}}]
"
    )
}

/// Rules for the server, of which the last lets the client in.
pub(crate) fn policy(name: &str, rules: u32) -> String {
    let ports = format!(
        "toPorts: [{{ports: [{{port: '{SERVER_PORT}', protocol: TCP}}, {{port: '{SERVER_PORT}', protocol: UDP}}]}}]"
    );
    let mut spec = "endpointSelector: {matchLabels: {app: server}}\ningress:\n".to_owned();
    for number in 1..rules {
        spec += &format!("- {{fromCIDR: [{}/32], {ports}}}\n", nft::other_peer(number));
    }
    spec += &format!("- {{fromEndpoints: [{{matchLabels: {{app: client}}}}], {ports}}}\n");
    manifests::policy(name, &spec)
}
