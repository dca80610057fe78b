//! One node without etcd: pods, host and the outside world; connecting and disconnecting pods.

use tests::reach::ALL;
use tests::world::OUTSIDE;
use tests::{Host, World, eventually};

#[test]
fn pods_host_and_outside_reach_each_other() {
    let world = World::single();
    let node = world.node(1, 1);
    let (a, b) = (node.pod("default/a", "app=a"), node.pod("default/b", "app=b"));
    let _servers =
        [b.serve(8080, "b"), node.serve(9090, "node"), world.outside.serve(OUTSIDE, 7070, "outside")];

    a.reaches(b.addresses(), 8080, "b", ALL);
    a.reaches(node.addresses(), 9090, "node", ALL);
    a.reaches(OUTSIDE, 7070, "outside", ALL);
    node.host.reaches(b.addresses(), 8080, "b", ALL);
    world.outside.reaches(b.addresses(), 8080, "b", ALL);
    for gateway in ["10.60.1.1", "fd00:60:1::1"] {
        a.ping(gateway.parse().unwrap(), "").unwrap();
    }

    // Segments larger than the MTU, both ways at once, come through unchanged.
    for address in b.addresses() {
        let mut conversation = a.connect((address, 8080)).unwrap();
        assert_eq!(conversation.ask(&"0123456789abcdef".repeat(1 << 18)).unwrap(), "b");
    }
}

#[test]
fn endpoint_add_refuses_what_cannot_be_and_leaves_nothing_of_it() {
    let world = World::single();
    let node = world.node(1, 1);
    let taken = node.pod_with("default/taken", "--ip 10.60.1.9");
    assert_eq!(taken.ipv4.to_string(), "10.60.1.9");
    let spare = format!("{}-spare", node.host.netns.trim_end_matches("-node1"));
    let spare = Host::create(&spare);
    let links = node.host.links();
    for (pod, netns, flags, complaint) in [
        ("default/taken", &spare.netns[..], "", &format!("endpoint {}", taken.id)[..]),
        ("default/x", &spare.netns, "--ip 10.60.1.9", "10.60.1.9"),
        ("default/x", &spare.netns, "--ip 10.60.1.1", "10.60.1.1"),
        ("default/x", &spare.netns, "--ip 10.60.1.255", "10.60.1.255"),
        ("default/x", &spare.netns, "--ip 10.61.0.1", "10.60.1.0/24"),
        ("default/x", "no-such-namespace", "", "no-such-namespace"),
        ("default/x", &spare.netns, "--ifname lo", "lo"),
        ("default", &spare.netns, "", "NAMESPACE/NAME"),
        ("default/x", &spare.netns, "--label a", "KEY=VALUE"),
        ("default/x", &spare.netns, "--port http=80/FTP", "FTP"),
    ] {
        let refusal = node
            .cli
            .run(&format!("endpoint add --pod {pod} --netns {netns} {flags}"))
            .expect_err(&format!("{pod} {netns} {flags}"));
        assert!(
            refusal.contains("error: ") && refusal.contains(complaint),
            "{pod} {netns} {flags}: {refusal}"
        );
        assert_eq!(node.host.links(), links, "after: {refusal}");
        assert_eq!(spare.links(), ["lo"], "after: {refusal}");
    }
    assert_eq!(node.cli.json("endpoint list").as_array().unwrap().len(), 1);
}

#[test]
fn a_deleted_pod_frees_its_addresses_and_a_vanished_one_can_be_deleted() {
    let world = World::single();
    let node = world.node(1, 1);
    let first = node.pod_with("default/first", "--ip 10.60.1.50 --ip fd00:60:1::50");
    first.delete();
    assert!(!first.links().contains(&"eth0".to_owned()));
    let second = node.pod_with("default/second", "--ip 10.60.1.50 --ip fd00:60:1::50");
    assert_eq!(second.addresses(), first.addresses());

    let gone = node.pod("default/gone", "");
    tests::command::ip(&format!("netns del {}", gone.netns));
    eventually("its state is not-ready", || {
        let state = gone.status()["status"]["state"].clone();
        if state == "not-ready" { Ok(()) } else { Err(state) }
    });
    gone.delete();
    let refusal = node.cli.run(&format!("endpoint delete {}", gone.id)).unwrap_err();
    assert!(refusal.contains(&gone.id.to_string()), "{refusal}");
}

#[test]
fn an_address_without_a_pod_is_reported_and_not_looked_for_elsewhere() {
    let world = World::single();
    let node = world.node(1, 1);
    let pod = node.pod("default/pod", "");
    let series = r#"cilium_drop_count_total{reason="Stale or unroutable IP",direction="EGRESS"}"#;
    let before = node.metric(series);
    let socket = pod.udp("10.60.1.200:9".parse().unwrap()).unwrap();
    for _ in 0..3 {
        socket.send(b"x").unwrap();
    }
    eventually("all three are counted", || match node.metric(series) - before {
        3 => Ok(()),
        count => Err(count),
    });
}

#[test]
fn every_forwarded_packet_is_counted_once() {
    const COUNT: u64 = 100;
    let world = World::single();
    let node = world.node(1, 1);
    let (client, server) = (node.pod("default/client", ""), node.pod("default/server", ""));
    let _server = server.serve(8080, "server");
    client.reaches(server.addresses(), 8080, "server", ALL);
    let forwarded = || {
        ["EGRESS", "INGRESS"]
            .map(|side| node.metric(&format!(r#"cilium_forward_count_total{{direction="{side}"}}"#)))
    };
    for address in server.addresses() {
        let before = forwarded();
        let socket = client.udp((address, 8080).into()).unwrap();
        for _ in 0..COUNT {
            socket.send(b"x").unwrap();
            socket.recv(&mut [0; 64]).unwrap();
        }
        // Questions and answers, each out of one pod and into another.
        assert_eq!(forwarded(), before.map(|count| count + 2 * COUNT), "{address}");
        let port = socket.local_addr().unwrap().port();
        let list = node.cli.json("ct list");
        let flows: Vec<_> =
            list.as_array().unwrap().iter().filter(|flow| flow["source-port"] == port).collect();
        assert!(!flows.is_empty(), "{list:#}");
        for flow in flows {
            assert_eq!([&flow["packets"], &flow["reply-packets"]], [COUNT, COUNT], "{flow:#}");
        }
    }
}
