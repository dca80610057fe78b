//! Flows that have proved themselves, with and without the kernel repeating what was decided about
//! them: the same behaviour, and the packets where they belong.

use std::io::{self, ErrorKind};
use std::iter;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use tests::manifests::{policy, service};
use tests::reach::{ALL, PORTS};
use tests::sockets::Conversation;
use tests::traffic::{Both, Traffic};
use tests::{Host, Node, Offload, Pod, World, eventually, eventually_true};

const GLOBAL: &str = "service.cilium.io/global: 'true'";
/// More packets than a flow needs to prove itself, each way.
const PROOF: usize = 8;
/// What pods say of their own accord while a test looks: neighbour discovery, group reports.
const NOISE: u64 = 100;

/// The addresses of the service that `service(_, number, _)` makes.
fn service_addresses(number: u8) -> [IpAddr; 2] {
    [format!("10.96.0.{number}").parse().unwrap(), format!("fd00:96::{number}").parse().unwrap()]
}

/// Opens a connection that has proved itself to a server of this name.
fn proven(client: &Host, to: impl Into<SocketAddr>, name: &str) -> Conversation {
    let to = to.into();
    let mut conversation = eventually(&format!("{name} answers at {to}"), || client.connect(to));
    for _ in 0..PROOF {
        assert_eq!(conversation.ask("hello").unwrap(), name);
    }
    conversation
}

/// As [`proven`], of datagrams.
fn proven_udp(client: &Host, to: impl Into<SocketAddr>, name: &str) -> UdpSocket {
    let to = to.into();
    let socket = client.udp(to).unwrap();
    eventually(&format!("{name} answers at {to}"), || ask(&socket));
    for _ in 0..PROOF {
        assert_eq!(ask(&socket).unwrap(), name);
    }
    socket
}

/// Sends a datagram; the name of the server that answered.
fn ask(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 64];
    socket.send(b"hello")?;
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim_end_matches(":hello").to_owned())
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

/// Waits until the kernel repeats verdicts about what was opened from this port, or does not.
fn is_offloaded(node: &Node, port: u16, wanted: bool) {
    eventually(&format!("offloaded: {wanted}, port {port} at {}", node.host.netns), || {
        let flows = node.connections(port);
        let offloaded = flows.iter().any(|flow| flow["offloaded"] == true);
        if offloaded == wanted { Ok(()) } else { Err(format!("{flows:#?}")) }
    });
}

/// How many verdicts the cache holds.
fn verdicts(node: &Node) -> u64 {
    node.metric("dataplane_offload_entries")
}

fn denied(node: &Node) -> u64 {
    ["INGRESS", "EGRESS"]
        .map(|way| {
            node.metric(&format!(r#"cilium_drop_count_total{{reason="Policy denied",direction="{way}"}}"#))
        })
        .iter()
        .sum()
}

/// Waits until a datagram is denied. (Answers to what was sent before may still pass.)
fn is_cut_off(node: &Node, socket: &UdpSocket) {
    let before = denied(node);
    eventually_true("it is cut off", || {
        socket.send(b"hello").unwrap();
        denied(node) > before
    });
    unread(socket);
}

/// What has arrived.
fn unread(socket: &UdpSocket) -> Vec<String> {
    let mut buffer = [0; 64];
    socket.set_nonblocking(true).unwrap();
    let received = iter::from_fn(|| socket.recv(&mut buffer).map(|length| buffer[..length].to_vec()).ok());
    let answers = received.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
    socket.set_nonblocking(false).unwrap();
    answers
}

#[test]
fn bulk_passes_by_the_workers_in_whole_segments_or_through_them_packet_by_packet() {
    let world = World::of(&[1, 1]);
    let (here, there) = (world.node(1, 1), world.node(2, 1));
    world
        .cluster(1)
        .apply("services.yaml", &[service("near", 10, ""), service("far", 11, GLOBAL)].join("---\n"));
    world.cluster(2).apply("services.yaml", &service("far", 11, GLOBAL));
    let client = here.pod("default/client", "");
    let (near, far) = (here.pod("default/near", "app=near"), there.pod("default/far", "app=far"));
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far")];
    let segments = "0123456789abcdef".repeat(1 << 18);

    for (server, name, number) in [(&near, "near", 10), (&far, "far", 11)] {
        let nodes = if name == "near" { vec![here] } else { vec![here, there] };
        // Frames that the workers got to see meanwhile.
        let seen = |packets: u64, work: &mut dyn FnMut()| {
            let before: Vec<u64> = nodes.iter().map(|node| node.through_the_hub()).collect();
            work();
            for (node, before) in nodes.iter().zip(before) {
                let grown = node.through_the_hub() - before;
                match world.offload {
                    Offload::On => assert!(grown < NOISE, "{name}: {grown} frames through the hub"),
                    Offload::Off => assert!(grown >= packets, "{name}: {grown} frames through the hub"),
                }
            }
        };
        let straight = server.addresses().map(|address| SocketAddr::from((address, 8080)));
        let virtual_ = service_addresses(number).map(|address| SocketAddr::from((address, 80)));
        for to in straight.into_iter().chain(virtual_) {
            let mut conversation = proven(&client, to, name);
            let before = server.carried("eth0").received;
            seen(2 * segments.len() as u64 / 1500, &mut || {
                assert_eq!(conversation.ask(&segments).unwrap(), name);
            });
            let after = server.carried("eth0").received;
            let average = (after.bytes - before.bytes) / (after.packets - before.packets);
            match world.offload {
                Offload::On => assert!(average > 2 * 1500, "{to}: {average} bytes per packet"),
                Offload::Off => assert!(average <= 1514, "{to}: {average} bytes per packet"),
            }
            let socket = proven_udp(&client, to, name);
            seen(1000, &mut || (0..500).for_each(|_| assert_eq!(ask(&socket).unwrap(), name)));
        }
    }
}

/// What conntrack must have counted: netfilter sees whole segments, of which every part but the
/// first comes with another copy of the headers.
fn expected(client: &Host, peer: SocketAddr) -> Both {
    let headers = if peer.is_ipv4() { 20 + 32 } else { 40 + 32 };
    let Both { received, sent } = client.exchanged();
    let [segments_in, segments_out] = client.segments(peer);
    let split = |seen: Traffic, segments: u64| Traffic {
        packets: segments,
        bytes: seen.bytes + (segments - seen.packets) * headers,
    };
    Both { received: split(received, segments_in), sent: split(sent, segments_out) }
}

/// What `ct list` says of a connection, seen from the client.
fn counted(node: &Node, port: u16) -> Both {
    let flow = node.connection(port);
    let of = |packets: &str, bytes: &str| Traffic {
        packets: flow[packets].as_u64().unwrap(),
        bytes: flow[bytes].as_u64().unwrap(),
    };
    Both { received: of("reply-packets", "reply-bytes"), sent: of("packets", "bytes") }
}

#[test]
fn conntrack_counts_what_the_ends_of_a_connection_count() {
    let world = World::of(&[2]);
    let (here, there) = (world.node(1, 1), world.node(1, 2));
    world.cluster(1).apply("services.yaml", &[service("near", 10, ""), service("far", 11, "")].join("---\n"));
    let (near, far) = (here.pod("default/near", "app=near"), there.pod("default/far", "app=far"));
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far")];
    for (number, name, nodes) in [(10, "near", vec![here]), (11, "far", vec![here, there])] {
        for (family, address) in service_addresses(number).into_iter().enumerate() {
            // A pod of its own for every connection: netfilter counts by port alone.
            let client = here.pod(&format!("default/to-{name}-{family}"), "");
            // Headers of one length.
            client.sysctl("net/ipv4/tcp_sack", "0");
            eventually("the service answers", || client.ask((address, 80)));
            client.count_port(80);
            let to = SocketAddr::from((address, 80));
            let mut conversation = proven(&client, to, name);
            for _ in 0..32 {
                conversation.ask(&"0123456789abcdef".repeat(1 << 12)).unwrap();
            }
            for node in &nodes {
                // The last acknowledgement may still be on its way.
                eventually("conntrack has counted all", || {
                    let (wanted, got) = (expected(&client, to), counted(node, conversation.port()));
                    if wanted == got { Ok(()) } else { Err(format!("{got:?} instead of {wanted:?}")) }
                });
            }
        }
    }
}

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
fn what_a_killed_agent_has_decided_goes_on_and_nothing_else_begins() {
    let world = World::of(&[2]);
    let (here, there) = (world.node(1, 1), world.node(1, 2));
    world.cluster(1).apply("services.yaml", &[service("near", 10, ""), service("far", 11, "")].join("---\n"));
    let client = here.pod("default/client", "");
    let (near, far) = (here.pod("default/near", "app=near"), there.pod("default/far", "app=far"));
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far")];
    let on = world.offload == Offload::On;
    let mut talks = Vec::new();
    for (name, number) in [("near", 10), ("far", 11)] {
        for to in service_addresses(number) {
            talks.push((proven(&client, (to, 80), name), proven_udp(&client, (to, 80), name), name));
        }
    }
    let counted: Vec<Both> = talks.iter().map(|(_, socket, _)| counted(here, port(socket))).collect();
    for (conversation, socket, _) in &talks {
        is_offloaded(here, conversation.port(), on);
        is_offloaded(here, port(socket), on);
    }
    here.kill();
    for (conversation, socket, name) in &mut talks {
        match world.offload {
            Offload::On => {
                assert_eq!(conversation.ask(&"0123456789abcdef".repeat(1 << 16)).unwrap(), *name);
                (0..100).for_each(|_| assert_eq!(ask(socket).unwrap(), *name));
            }
            Offload::Off => assert!(ask(socket).is_err(), "an answer without an agent"),
        }
    }
    client.is_kept_from([near.addresses(), far.addresses()].concat(), 8080, ALL);
    client.is_kept_from([service_addresses(10), service_addresses(11)].concat(), 80, PORTS);
    far.is_kept_from(near.addresses(), 8080, ALL);
    here.start();
    for ((conversation, socket, name), before) in talks.iter_mut().zip(counted) {
        let after = self::counted(here, port(socket));
        let grown =
            [after.sent.packets - before.sent.packets, after.received.packets - before.received.packets];
        assert_eq!(grown, if on { [100, 100] } else { [0, 0] }, "{name}");
        assert_eq!(conversation.ask("and now?").unwrap(), *name);
        assert_eq!(eventually("an answer", || ask(socket)), *name);
    }
    client.reaches(far.addresses(), 8080, "far", ALL);
}

#[test]
fn the_mode_may_change_whenever_the_agent_starts() {
    let mut world = World::single();
    let modes = match world.offload {
        Offload::On => [Offload::Off, Offload::On],
        Offload::Off => [Offload::On, Offload::Off],
    };
    let node = world.node(1, 1);
    let (client, server) = (node.pod("default/client", ""), node.pod("default/server", ""));
    let _server = server.serve(8080, "server");
    let mut conversation = proven(&client, (server.ipv4, 8080), "server");
    let socket = proven_udp(&client, (server.ipv6, 8080), "server");
    for mode in modes {
        let node = &mut world.clusters[0].nodes[0];
        node.stop();
        node.replace_flag("--offload", mode.value());
        node.start();
        for _ in 0..PROOF {
            assert_eq!(conversation.ask("still there?").unwrap(), "server");
            assert_eq!(eventually("an answer", || ask(&socket)), "server");
        }
        is_offloaded(node, conversation.port(), mode == Offload::On);
        is_offloaded(node, port(&socket), mode == Offload::On);
        let before = node.through_the_hub();
        (0..500).for_each(|_| assert_eq!(ask(&socket).unwrap(), "server"));
        let grown = node.through_the_hub() - before;
        assert!((grown < NOISE) == (mode == Offload::On), "{grown} frames through the hub, {mode:?}");
    }
}

#[test]
fn the_monitor_tells_of_every_connection_once() {
    let world = World::single();
    let node = world.node(1, 1);
    let (client, server) = (node.pod("default/client", ""), node.pod("default/server", "app=server"));
    let _server = server.serve(8080, "server");
    let allow = "endpointSelector: {matchLabels: {app: server}}\ningress: [{fromEndpoints: [{}]}]";
    world.cluster(1).apply("policy.yaml", &policy("guard", allow));
    let (traces, verdicts) = (node.monitor("--type trace"), node.monitor("--type policy-verdict"));
    for address in server.addresses() {
        let mut conversation = proven(&client, (address, 8080), "server");
        let socket = proven_udp(&client, (address, 8080), "server");
        for _ in 0..100 {
            conversation.ask("one of many").unwrap();
            ask(&socket).unwrap();
        }
        let ports = [conversation.port(), port(&socket)];
        drop(conversation);
        // What comes after all of that in the monitor.
        let last = proven_udp(&client, (address, 8080), "server");
        for (log, counts) in [(&traces, [4, 2]), (&verdicts, [1, 1])] {
            eventually_true("the last one is shown", || log.log().contains(&format!(":{} ", port(&last))));
            for (port, count) in ports.into_iter().zip(counts) {
                let text = log.log();
                let lines: Vec<&str> =
                    text.lines().filter(|line| line.contains(&format!(":{port} "))).collect();
                assert_eq!(lines.len(), count, "{lines:#?}");
            }
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

#[test]
fn more_connections_than_the_cache_has_room_for_go_through_workers() {
    let mut world = World::lay(&[1]);
    world.clusters[0].nodes[0].replace_flag("--offload-flows", "4");
    world.start();
    let node = world.node(1, 1);
    let (client, server) = (node.pod("default/client", ""), node.pod("default/server", ""));
    let _server = server.serve(8080, "server");
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for address in server.addresses() {
        sockets.extend((0..16).map(|_| proven_udp(&client, (address, 8080), "server")));
    }
    for _ in 0..PROOF {
        for socket in &sockets {
            assert_eq!(ask(socket).unwrap(), "server");
        }
    }
    let list = node.cli.json("ct list");
    let offloaded = list.as_array().unwrap().iter().filter(|flow| flow["offloaded"] == true).count();
    match world.offload {
        Offload::On => assert!((1..=4).contains(&offloaded), "{list:#}"),
        Offload::Off => assert_eq!(offloaded, 0, "{list:#}"),
    }
    assert!(node.metric("dataplane_offload_full_total") > 0);
    for socket in &sockets {
        let flow = node.connection(port(socket));
        let sent = 1 + 2 * PROOF as u64;
        assert_eq!([&flow["packets"], &flow["reply-packets"]], [sent, sent], "{flow:#}");
    }
}
