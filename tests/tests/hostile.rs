//! Pods and hosts that do not play by the rules.

use regex::Regex;
use std::net::{IpAddr, SocketAddr};
use tests::reach::ALL;
use tests::{Node, World, eventually, eventually_true};

fn drops(node: &Node, reason: &str, direction: &str) -> u64 {
    node.metric(&format!(r#"cilium_drop_count_total{{reason="{reason}",direction="{direction}"}}"#))
}

/// The attack is answered by nothing, and counted with this reason.
fn is_dropped(node: &Node, reason: &str, direction: &str, attack: impl Fn() -> Result<String, String>) {
    let before = drops(node, reason, direction);
    if let Ok(answer) = attack() {
        panic!("{reason}: an answer came: {answer}");
    }
    eventually_true(reason, || drops(node, reason, direction) > before);
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    let world = World::single();
    let node = world.node(1, 1);
    let [pod, victim, server] =
        ["pod", "victim", "server"].map(|name| node.pod(&format!("default/{name}"), ""));
    let _server = server.serve(8080, "server");
    pod.reaches(server.addresses(), 8080, "server", ALL);
    for (stolen, target) in [
        (IpAddr::from(victim.ipv4), IpAddr::from(server.ipv4)),
        (victim.ipv6.into(), server.ipv6.into()),
        (node.ipv4.into(), server.ipv4.into()),
        ("10.60.1.1".parse().unwrap(), server.ipv4.into()),
        ("8.8.8.8".parse().unwrap(), server.ipv4.into()),
        ("2001:db8::1".parse().unwrap(), server.ipv6.into()),
        (node.ipv6.into(), server.ipv6.into()),
        ("fd00:60:1::1".parse().unwrap(), server.ipv6.into()),
        (victim.ipv4.into(), node.ipv4.into()),
        (victim.ipv6.into(), node.ipv6.into()),
    ] {
        pod.ip(&format!("addr add {stolen} dev eth0{}", if stolen.is_ipv6() { " nodad" } else { "" }));
        is_dropped(node, "Invalid source ip", "EGRESS", || pod.ping(target, &format!("-I {stolen}")));
        is_dropped(node, "Invalid source ip", "EGRESS", || {
            pod.connect_from(stolen, SocketAddr::from((target, 8080)))
        });
        pod.ip(&format!("addr del {stolen} dev eth0"));
    }
    pod.reaches(server.addresses(), 8080, "server", ALL);

    let mac = pod.ip("-o link show eth0");
    let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    pod.ip("link set eth0 address 02:00:00:00:00:99");
    is_dropped(node, "Invalid source mac", "EGRESS", || pod.ping(server.ipv4.into(), ""));
    is_dropped(node, "Invalid source mac", "EGRESS", || pod.ping(server.ipv6.into(), ""));
    pod.ip(&format!("link set eth0 address {mac}"));
    pod.reaches(server.addresses(), 8080, "server", ALL);
}

#[test]
fn frames_and_packets_of_unwanted_kinds_go_nowhere() {
    let world = World::single();
    let node = world.node(1, 1);
    let (pod, server) = (node.pod("default/pod", ""), node.pod("default/server", ""));
    pod.reaches(server.addresses(), 0, "", &ALL[2..]);

    is_dropped(node, "IP options not allowed", "EGRESS", || pod.ping(server.ipv4.into(), "-R"));
    let log = node.monitor("--type drop");
    for (reason, target) in [
        ("Multicast not forwarded", "224.1.2.3"),
        ("Multicast not forwarded", "ff0e::1234"),
        ("Stale or unroutable IP", "10.60.1.77"),
        ("Stale or unroutable IP", "fd00:60:1::77"),
    ] {
        is_dropped(node, reason, "EGRESS", || pod.ping(target.parse().unwrap(), "-I eth0"));
        // Its own packet, not what pods say to multicast groups of their own accord.
        let line = Regex::new(&format!(r"(?m)^xx drop \({reason}\) .*-> {target}[ :]")).unwrap();
        eventually(target, || if line.is_match(&log.log()) { Ok(()) } else { Err(log.log()) });
    }
    is_dropped(node, "Invalid IPv6 extension header", "EGRESS", || {
        // A routing header (RFC 8200 section 4.4) and nothing behind it.
        let fixed = [0x60, 0, 0, 0, 0, 8, 43, 64];
        let packet = [&fixed[..], &pod.ipv6.octets(), &server.ipv6.octets(), &[59, 0, 0, 0, 0, 0, 0, 0]];
        pod.send_raw(server.ipv6, &packet.concat()).unwrap();
        Err("nobody answers such a packet".into())
    });
    is_dropped(node, "Martian address", "EGRESS", || {
        pod.ip("route add 240.0.0.1/32 via 10.60.1.1 dev eth0 onlink");
        pod.ping("240.0.0.1".parse().unwrap(), "")
    });

    // A neighbour that the pod made up.
    for target in server.addresses() {
        pod.ip(&format!("route add {target} dev eth0"));
        pod.ip(&format!("neigh add {target} lladdr 02:00:00:00:00:01 dev eth0"));
        is_dropped(node, "Invalid destination mac", "EGRESS", || pod.ping(target, ""));
        pod.ip(&format!("neigh del {target} dev eth0"));
        pod.ping(target, "").unwrap();
    }
}

#[test]
fn nobody_on_the_wire_can_pretend_to_be_a_local_pod_or_the_node() {
    let world = World::single();
    let node = world.node(1, 1);
    let (pod, other) = (node.pod("default/pod", ""), node.pod("default/other", ""));
    world.outside.reaches(pod.addresses(), 0, "", &ALL[2..]);
    for (stolen, target) in [
        (IpAddr::from(other.ipv4), IpAddr::from(pod.ipv4)),
        (other.ipv6.into(), pod.ipv6.into()),
        (node.ipv4.into(), pod.ipv4.into()),
        (node.ipv6.into(), pod.ipv6.into()),
        ("10.60.1.1".parse().unwrap(), pod.ipv4.into()),
        ("fd00:60:1::1".parse().unwrap(), pod.ipv6.into()),
    ] {
        world
            .outside
            .ip(&format!("addr add {stolen} dev lo{}", if stolen.is_ipv6() { " nodad" } else { "" }));
        is_dropped(node, "Invalid source ip", "INGRESS", || {
            world.outside.ping(target, &format!("-I {stolen}"))
        });
        world.outside.ip(&format!("addr del {stolen} dev lo"));
    }
}

#[test]
fn a_packet_on_its_last_hop_is_answered_with_time_exceeded() {
    let world = World::of(&[2]);
    let client = world.node(1, 1).pod("default/client", "");
    let (near, far) = (world.node(1, 1).pod("default/near", ""), world.node(1, 2).pod("default/far", ""));
    for server in [&near, &far] {
        client.reaches(server.addresses(), 0, "", &ALL[2..]);
        for address in server.addresses() {
            let answer = client.ping(address, "-t 1").unwrap_err();
            assert!(answer.contains("Time to live exceeded") || answer.contains("Hop limit"), "{answer}");
        }
    }
}
