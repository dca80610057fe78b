//! What ends flows that have proved themselves, and what does not: the same with and without the
//! kernel repeating what was decided about them.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use tests::manifests::{policy, service, service_addresses};
use tests::proven::*;
use tests::reach::PORTS;
use tests::traffic::Both;
use tests::{Offload, Pod, World, eventually, eventually_true};

#[test]
fn a_policy_cuts_connections_in_the_middle_and_says_so() {
    let world = World::of(&[2]);
    let (here, there) = (world.node(1, 1), world.node(1, 2));
    world.cluster(1).apply("service.yaml", &service("server", 10, ""));
    let server = there.pod("default/server", "app=server");
    let clients = [here.pod("default/far", "app=client"), there.pod("default/near", "app=client")];
    let _server = server.serve(8080, "server");
    let targets = [server.addresses().map(|a| (a, 8080)), service_addresses(10).map(|a| (a, 80))].concat();
    let mut conversations = Vec::new();
    let mut sockets = Vec::new();
    for client in &clients {
        for &to in &targets {
            conversations.push(proven(client, to, "server"));
            sockets.push(proven_udp(client, to, "server"));
        }
    }
    let on = world.offload == Offload::On;
    sockets.iter().for_each(|socket| is_offloaded(there, port(socket), on));
    conversations.iter().for_each(|conversation| is_offloaded(there, conversation.port(), on));

    let drops = there.monitor("--type drop");
    let deny = "endpointSelector: {matchLabels: {app: server}}\ningress: [{fromEndpoints: [{matchLabels: {app: friend}}]}]";
    world.cluster(1).apply("policy.yaml", &policy("guard", deny));
    sockets.iter().for_each(|socket| is_cut_off(there, socket));
    let (from, to) = (clients[0].identity(), server.identity());
    thread::scope(|scope| {
        let doubted: Vec<_> = conversations
            .iter_mut()
            .map(|conversation| {
                (conversation.port(), scope.spawn(|| conversation.ask("am I still allowed?")))
            })
            .collect();
        for socket in &sockets {
            let before = denied(there);
            (0..10).for_each(|_| _ = socket.send(b"too late").unwrap());
            eventually_true("all are counted", || denied(there) >= before + 10);
        }
        for port in doubted.iter().map(|(port, _)| *port).chain(sockets.iter().map(port)) {
            let line = regex::Regex::new(&format!(
                r"(?m)^xx drop \(Policy denied\) flow 0x[0-9a-f]+ to endpoint {}, identity {from}->{to}: \S+:{port} -> ",
                server.id
            ))
            .unwrap();
            eventually("the drop is shown", || {
                if line.is_match(&drops.log()) { Ok(()) } else { Err(drops.log()) }
            });
        }
        assert!(doubted.iter().all(|(_, doubted)| !doubted.is_finished()));
        world.cluster(1).withdraw("policy.yaml");
        for (_, doubted) in doubted {
            assert_eq!(doubted.join().unwrap().unwrap(), "server");
        }
    });
    for socket in &sockets {
        let answers = unread(socket);
        assert!(!answers.iter().any(|answer| answer.contains("too late")), "{answers:?}");
        for _ in 0..PROOF {
            assert_eq!(ask(socket).unwrap(), "server");
        }
        is_offloaded(there, port(socket), on);
    }
}

fn namespace(team: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: default, labels: {{team: {team}}}}}\n")
}

#[test]
fn a_change_of_identity_is_a_new_question_near_and_far() {
    let world = World::of(&[1, 1]);
    let (here, there) = (world.node(1, 1), world.node(2, 1));
    let [far, server, near] = [(here, "far"), (there, "server"), (there, "near")]
        .map(|(node, app)| node.pod(&format!("default/{app}"), &format!("app={app}")));
    let _server = server.serve(8080, "server");
    let blue = |cluster: &str| {
        format!(
            "{{matchLabels: {{io.cilium.k8s.namespace.labels.team: blue, io.cilium.k8s.policy.cluster: {cluster}}}}}"
        )
    };
    let guard = format!(
        "endpointSelector: {{matchLabels: {{app: server}}}}\ningress: [{{fromEndpoints: [{}, {}]}}]",
        blue("cluster1"),
        blue("cluster2")
    );
    world.clusters.iter().for_each(|cluster| cluster.apply("namespace.yaml", &namespace("blue")));
    for pod in [&far, &server, &near] {
        let label = "k8s:io.cilium.k8s.namespace.labels.team=blue";
        eventually_true(label, || pod.status()["status"]["labels"].to_string().contains(label));
    }
    world.cluster(2).apply("policy.yaml", &policy("guard", &guard));
    there.enforces(&["guard"]);
    for (cluster, client) in [(1, &far), (2, &near)] {
        let sockets = server.addresses().map(|address| proven_udp(client, (address, 8080), "server"));
        sockets.iter().for_each(|socket| is_offloaded(there, port(socket), world.offload == Offload::On));
        world.cluster(cluster).apply("namespace.yaml", &namespace("red"));
        for socket in &sockets {
            is_cut_off(there, socket);
        }
        world.cluster(cluster).apply("namespace.yaml", &namespace("blue"));
        for socket in &sockets {
            assert_eq!(eventually("it goes on", || ask(socket)), "server");
        }
    }
}

/// An EndpointSlice of the service `web` with a backend for each condition.
fn slice(backends: &[(&Pod, &str)]) -> String {
    let endpoint = |(pod, conditions): &(&Pod, &str)| {
        format!("- {{addresses: ['{}'], conditions: {{{conditions}}}}}\n", pod.ipv4)
    };
    let endpoints: String = backends.iter().map(endpoint).collect();
    let ports =
        "- {name: stream, port: 8080, protocol: TCP}\n- {name: datagrams, port: 8080, protocol: UDP}\n";
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
endpoints:
{endpoints}ports:
{ports}"
    )
}

const READY: &str = "ready: true";
const TERMINATING: &str = "ready: false, serving: true, terminating: true";

#[test]
fn connections_follow_the_backends_of_their_service() {
    let world = World::of(&[2]);
    let (here, there) = (world.node(1, 1), world.node(1, 2));
    let client = here.pod("default/client", "");
    let (old, new) = (here.pod("default/old", ""), there.pod("default/new", ""));
    let _servers = [old.serve(8080, "old"), new.serve(8080, "new")];
    let apply = |backends: &[(&Pod, &str)]| {
        let files = [service("web", 10, ""), slice(backends)].join("---\n");
        world.cluster(1).apply("web.yaml", &files);
    };
    let [to, _] = service_addresses(10).map(|address| SocketAddr::from((address, 80)));
    let on = world.offload == Offload::On;

    apply(&[(&old, READY)]);
    let mut conversation = proven(&client, to, "old");
    let socket = proven_udp(&client, to, "old");
    is_offloaded(here, conversation.port(), on);
    is_offloaded(here, port(&socket), on);

    // On its way out it keeps what it has and gets nothing new.
    apply(&[(&old, TERMINATING), (&new, READY)]);
    eventually("new connections go elsewhere", || match client.ask(to)?.as_str() {
        "new" => Ok(()),
        who => Err(io::Error::other(who)),
    });
    for _ in 0..PROOF {
        assert_eq!(conversation.ask("still there?").unwrap(), "old");
        assert_eq!(ask(&socket).unwrap(), "old");
    }
    is_offloaded(here, conversation.port(), on);
    is_offloaded(here, port(&socket), on);

    // Gone: datagrams go to the other one, which knows nothing of the connection.
    apply(&[(&new, READY)]);
    eventually("datagrams go elsewhere", || match ask(&socket)?.as_str() {
        "new" => Ok(()),
        who => Err(io::Error::other(who)),
    });
    let refusal = conversation.ask("still there?").map_err(|e| e.kind());
    assert_eq!(refusal, Err(ErrorKind::ConnectionReset));
    let before = old.carried("eth0").received;
    for _ in 0..PROOF {
        assert_eq!(ask(&socket).unwrap(), "new");
    }
    is_offloaded(here, port(&socket), on);
    let grown = old.carried("eth0").received.packets - before.packets;
    assert!(grown < PROOF as u64, "{grown} packets to a backend that is gone");

    // None left.
    apply(&[]);
    let series = r#"cilium_drop_count_total{reason="Service backend not found",direction="EGRESS"}"#;
    eventually("they are dropped", || {
        let before = here.metric(series);
        socket.send(b"hello").unwrap();
        if here.metric(series) > before { Ok(()) } else { Err("not so") }
    });
}

#[test]
fn a_deleted_pod_gets_nothing_more_and_its_heir_nothing_of_its_connections() {
    let world = World::of(&[2]);
    let (here, there) = (world.node(1, 1), world.node(1, 2));
    let clients = [here.pod("default/near", ""), there.pod("default/far", "")];
    let server = here.pod_with("default/server", "--ip 10.60.1.50 --ip fd00:60:1::50");
    let serving = server.serve(8080, "server");
    let sockets: Vec<UdpSocket> = clients
        .iter()
        .flat_map(|client| server.addresses().map(|address| proven_udp(client, (address, 8080), "server")))
        .collect();
    sockets.iter().for_each(|socket| is_offloaded(here, port(socket), world.offload == Offload::On));
    server.delete();
    drop(serving);
    sockets.iter().for_each(|socket| is_offloaded(here, port(socket), false));
    let series = ["EGRESS", "INGRESS"].map(|way| {
        format!(r#"cilium_drop_count_total{{reason="Stale or unroutable IP",direction="{way}"}}"#)
    });
    let before = series.each_ref().map(|series| here.metric(series));
    for socket in &sockets {
        // The other node does not know yet, or says so.
        let _ = socket.send(b"hello");
    }
    for (series, before) in series.iter().zip(before) {
        eventually_true(series, || here.metric(series) > before);
    }
    let heir = here.pod_with("default/heir", "--ip 10.60.1.50 --ip fd00:60:1::50");
    let _serving = heir.serve(8080, "heir");
    for socket in &sockets {
        assert_eq!(eventually("the heir answers", || ask(socket)), "heir");
    }
}

#[test]
fn connections_that_end_leave_the_cache() {
    let world = World::of(&[2]);
    let (here, there) = (world.node(1, 1), world.node(1, 2));
    world.cluster(1).apply("service.yaml", &service("web", 10, ""));
    let (client, server) = (here.pod("default/client", ""), there.pod("default/server", "app=web"));
    let _server = server.serve(8080, "web");
    for address in service_addresses(10) {
        for reset in [false, true] {
            let conversation = proven(&client, (address, 80), "web");
            [here, there]
                .iter()
                .for_each(|node| eventually_true("there are verdicts", || verdicts(node) > 0));
            match reset {
                true => conversation.reset(),
                false => drop(conversation),
            }
            [here, there].iter().for_each(|node| eventually_true("all are gone", || verdicts(node) == 0));
        }
    }
}

#[test]
fn nobody_else_gets_anything_through_with_the_addresses_of_a_proven_flow() {
    let world = World::single();
    let node = world.node(1, 1);
    let [victim, thief, server] =
        ["victim", "thief", "server"].map(|name| node.pod(&format!("default/{name}"), ""));
    let _server = server.serve(8080, "server");
    let hardware_address = |words: String| {
        let address = words.split_whitespace().skip_while(|word| !["lladdr", "link/ether"].contains(word));
        address.into_iter().nth(1).unwrap_or_else(|| panic!("{words}")).to_owned()
    };
    let [stolen, own] = [&victim, &thief].map(|pod| hardware_address(pod.ip("-o link show eth0")));
    let gateways = ["10.60.1.1", "fd00:60:1::1"];
    for ((address, from), gateway) in server.addresses().into_iter().zip(victim.addresses()).zip(gateways) {
        let to = SocketAddr::from((address, 8080));
        thief.reaches([address], 8080, "server", PORTS);
        world.outside.reaches([address], 8080, "server", PORTS);
        let gateway_mac = hardware_address(thief.ip(&format!("neigh show {gateway} dev eth0")));
        let socket = proven_udp(&victim, to, "server");
        let from = SocketAddr::from((from, port(&socket)));
        is_offloaded(node, port(&socket), world.offload == Offload::On);
        server.count_port(port(&socket));
        // With its own link-layer address, and with that of the victim; and from outside.
        for (who, mac, reason, way) in [
            (&*thief, Some(&own), "Invalid source ip", "EGRESS"),
            (&*thief, Some(&stolen), "Invalid source mac", "EGRESS"),
            (&world.outside, None, "Invalid source ip", "INGRESS"),
        ] {
            if let Some(mac) = mac {
                // With it all neighbours are forgotten, and those who ask with a wrong address get no answer.
                who.ip(&format!("link set eth0 address {mac}"));
                who.ip(&format!("neigh replace {gateway} lladdr {gateway_mac} dev eth0"));
            }
            let series = format!(r#"cilium_drop_count_total{{reason="{reason}",direction="{way}"}}"#);
            let before = node.metric(&series);
            let nodad = if from.is_ipv6() { " nodad" } else { "" };
            let length = if from.is_ipv6() { 128 } else { 32 };
            who.ip(&format!("addr add {}/{length} dev lo{nodad}", from.ip()));
            let forged = who.udp_from(from, to).unwrap();
            (0..10).for_each(|_| _ = forged.send(b"forged").unwrap());
            eventually_true(&format!("{reason} {way}: {from} -> {to}"), || {
                node.metric(&series) >= before + 10
            });
            who.ip(&format!("addr del {}/{length} dev lo", from.ip()));
            assert_eq!(server.exchanged(), Both::default(), "{reason}: a forged packet came through");
        }
        thief.ip(&format!("link set eth0 address {own}"));
        assert_eq!(ask(&socket).unwrap(), "server");
        server.run("nft delete table inet count").unwrap();
    }
}
