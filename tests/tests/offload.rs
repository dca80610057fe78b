//! Flows that have proved themselves, with and without the kernel repeating what was decided about
//! them: the same behaviour, and the packets where they belong.

use std::net::{SocketAddr, UdpSocket};
use tests::manifests::{policy, service, service_addresses};
use tests::proven::{PROOF, ask, is_offloaded, port, proven, proven_udp};
use tests::reach::{ALL, PORTS};
use tests::traffic::{Both, Traffic};
use tests::{Host, Node, Offload, World, eventually, eventually_true};

const GLOBAL: &str = "service.cilium.io/global: 'true'";
/// What pods say of their own accord while a test looks: neighbour discovery, group reports.
const NOISE: u64 = 100;

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
fn more_connections_than_the_cache_has_room_for_go_through_workers() {
    let mut world = World::lay(&[1]);
    world.clusters[0].nodes[0].replace_flag("--offload-flows", "1");
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
