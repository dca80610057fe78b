//! Stores that come late, go away and come back, and clusters that contradict each other.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use tests::manifests::service;
use tests::reach::{ALL, PORTS};
use tests::{Host, Node, World, eventually, eventually_true};

const GLOBAL: &str = "service.cilium.io/global: 'true'";

fn remote_ready(node: &Node, ready: bool) {
    eventually(&format!("{}: the remote cluster is ready: {ready}", node.host.netns), || {
        let status = node.cli.say("clustermesh status");
        let wanted = if ready { "1/1 remote clusters ready" } else { "0/1 remote clusters ready" };
        if status.contains(wanted) { Ok(()) } else { Err(status) }
    });
}

/// Starts two clusters of two nodes in this order of (cluster, node); node 0 is the etcd.
fn starts_in_order(order: [(usize, usize); 6]) {
    let world = World::lay(&[2, 2]);
    for (cluster, node) in order {
        match node {
            0 => world.cluster(cluster).etcd().start(),
            _ => world.node(cluster, node).launch(&[]),
        }
    }
    world.nodes().for_each(Node::ready);
    let pods: Vec<_> =
        world.nodes().map(|node| node.pod(&format!("default/{}", node.name), "app=web")).collect();
    let _servers: Vec<_> = pods.iter().map(|pod| pod.serve(8080, &pod.netns)).collect();
    for client in &pods {
        for server in &pods {
            client.reaches(server.addresses(), 8080, &server.netns, ALL);
        }
    }
}

#[test]
fn agents_start_before_their_etcd() {
    starts_in_order([(2, 2), (2, 1), (1, 2), (1, 0), (2, 0), (1, 1)]);
}

#[test]
fn agents_start_when_the_etcd_of_the_other_cluster_comes_last() {
    starts_in_order([(1, 0), (1, 1), (2, 1), (1, 2), (2, 2), (2, 0)]);
}

#[test]
fn agents_of_two_clusters_start_in_turns() {
    starts_in_order([(2, 0), (2, 2), (1, 1), (2, 1), (1, 2), (1, 0)]);
}

#[test]
fn traffic_goes_on_without_any_etcd_and_changes_arrive_when_it_is_back() {
    let world = World::of(&[1, 1]);
    let (near, far) = (world.node(1, 1), world.node(2, 1));
    world.cluster(1).apply("web.yaml", &service("web", 10, GLOBAL));
    world.cluster(2).apply("web.yaml", &service("web", 11, GLOBAL));
    let (client, server) = (near.pod("default/client", ""), far.pod("default/server", "app=web"));
    let _server = server.serve(8080, "server");
    let service = ["10.96.0.10", "fd00:96::10"].map(|address| address.parse::<IpAddr>().unwrap());
    client.reaches(service, 80, "server", PORTS);
    let targets = service.map(|address| (address, 80)).into_iter();
    let targets = targets.chain(server.addresses().map(|address| (address, 8080)));
    let mut conversations: Vec<_> = targets.map(|target| client.connect(target).unwrap()).collect();

    let mut all_is_well = |doing: &str| {
        for conversation in &mut conversations {
            assert_eq!(conversation.ask(doing).unwrap(), "server", "{doing}");
        }
        client.reaches(server.addresses(), 8080, "server", ALL);
        client.reaches(service, 80, "server", PORTS);
    };
    for number in [2, 1] {
        let cluster = world.cluster(number);
        cluster.etcd().kill();
        eventually_true("its own agent says so", || {
            let status = world.node(number, 1).cli.say("status");
            status.lines().any(|line| line.starts_with("KVStore:") && !line.contains("Ok"))
        });
        remote_ready(world.node(3 - number, 1), false);
        all_is_well("without it");
        cluster.etcd().start();
        world.node(number, 1).ready();
        remote_ready(world.node(3 - number, 1), true);
        all_is_well("with it");
    }

    // What changed while the other cluster's etcd was away arrives afterwards.
    world.cluster(2).etcd().kill();
    remote_ready(near, false);
    world.cluster(2).etcd().start();
    let late = far.pod("default/late", "app=late");
    let _late = late.serve(8080, "late");
    client.reaches(late.addresses(), 8080, "late", ALL);
    all_is_well("at the end");
}

#[test]
fn an_agent_restarts_without_its_etcd_and_new_pods_wait_for_it() {
    let world = World::of(&[2]);
    let (one, two) = (world.node(1, 1), world.node(1, 2));
    let (client, server) = (two.pod("default/client", "app=client"), two.pod("default/server", "app=server"));
    let distant = one.pod("default/distant", "");
    let _server = server.serve(8080, "server");
    for client in [&client, &distant] {
        client.reaches(server.addresses(), 8080, "server", ALL);
    }
    let mut conversation = client.connect((server.ipv4, 8080)).unwrap();
    let identity = server.identity();
    let etcd = world.cluster(1).etcd();
    etcd.kill();
    two.kill();
    two.launch(&[]);
    eventually("it takes its pods back", || two.cli.run("endpoint list"));
    assert_eq!(conversation.ask("without a store?").unwrap(), "server");
    assert_eq!(server.identity(), identity);

    // Nobody can say who a pod with new labels is, so nothing passes to or from it.
    let netns = format!("{}-late", two.host.netns);
    let host = Host::create(&netns);
    two.cli.show(&format!("endpoint add --pod default/late --netns {netns} --label app=new --ip 10.60.2.99"));
    assert!(two.cli.show("endpoint list").contains("waiting-for-identity"));
    host.is_kept_from(server.addresses(), 8080, ALL);
    etcd.start();
    two.ready();
    for client in [&host, &client, &distant] {
        client.reaches(server.addresses(), 8080, "server", ALL);
    }
    assert_eq!(conversation.ask("with it again?").unwrap(), "server");
}

#[test]
fn an_agent_restarts_while_no_etcd_answers_and_nothing_is_lost() {
    let world = World::of(&[2, 1]);
    let (one, two, far) = (world.node(1, 1), world.node(1, 2), world.node(2, 1));
    world.cluster(1).apply("web.yaml", &service("web", 10, GLOBAL));
    world.cluster(2).apply("web.yaml", &service("web", 11, GLOBAL));
    let client = one.pod("default/client", "app=client");
    let (near, distant) = (two.pod("default/near", "app=near"), far.pod("default/distant", "app=web"));
    let _servers = [near.serve(8080, "near"), distant.serve(8080, "distant")];
    let service = "10.96.0.10".parse::<IpAddr>().unwrap();
    let all_is_well = || {
        client.reaches(near.addresses(), 8080, "near", ALL);
        client.reaches(distant.addresses(), 8080, "distant", ALL);
        client.reaches([service], 80, "distant", PORTS);
    };
    all_is_well();
    let targets =
        [(near.ipv4.into(), 8080, "near"), (distant.ipv4.into(), 8080, "distant"), (service, 80, "distant")];
    let mut conversations =
        targets.map(|(ip, port, name): (IpAddr, _, _)| (client.connect((ip, port)).unwrap(), name));
    // What is learned is on disk about a second later.
    std::thread::sleep(std::time::Duration::from_secs(3));
    for number in [1, 2] {
        world.cluster(number).etcd().kill();
    }
    one.kill();
    one.launch(&[]);
    eventually("it takes its pods back", || one.cli.run("endpoint list"));
    for (conversation, name) in &mut conversations {
        assert_eq!(conversation.ask("without any store?").unwrap(), *name);
    }
    all_is_well();
    let status = one.cli.say("status --verbose");
    for begin in ["KVStore:", "   └  not connected:"] {
        let line = status.lines().find(|line| line.starts_with(begin));
        assert!(line.is_some_and(|line| line.contains("what is known is of an earlier run")), "{status}");
    }

    for number in [1, 2] {
        world.cluster(number).etcd().start();
    }
    world.nodes().for_each(Node::ready);
    remote_ready(one, true);
    all_is_well();
    for (conversation, name) in &mut conversations {
        assert_eq!(conversation.ask("with all of them?").unwrap(), *name);
    }
}

#[test]
fn backends_of_a_dead_cluster_leave_a_service_that_has_others_and_come_back() {
    let world = World::of(&[1, 1]);
    let (near, far) = (world.node(1, 1), world.node(2, 1));
    world.cluster(1).apply("web.yaml", &service("web", 10, GLOBAL));
    world.cluster(2).apply("web.yaml", &service("web", 11, GLOBAL));
    let client = near.pod("default/client", "");
    let backends = [near.pod("default/near", "app=web"), far.pod("default/far", "app=web")];
    let _servers = [backends[0].serve(8080, "near"), backends[1].serve(8080, "far")];
    let served_by = |wanted: &[&str]| {
        eventually(&format!("{wanted:?} serve"), || {
            let ask = |_| client.ask("10.96.0.10:80".parse::<SocketAddr>().unwrap());
            let mut seen: Vec<String> =
                (0..24).map(ask).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
            seen.sort();
            seen.dedup();
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    served_by(&["far", "near"]);
    world.cluster(2).etcd().kill();
    let killed = Instant::now();
    remote_ready(near, false);
    served_by(&["near"]);
    println!("its backends are a last resort after {:.1} s", killed.elapsed().as_secs_f64());
    world.cluster(2).etcd().start();
    let started = Instant::now();
    served_by(&["far", "near"]);
    println!("they serve again after {:.1} s", started.elapsed().as_secs_f64());
}

#[test]
fn an_etcd_that_lost_everything_is_filled_again() {
    let world = World::of(&[2, 1]);
    let (one, two, far) = (world.node(1, 1), world.node(1, 2), world.node(2, 1));
    let (client, server) = (far.pod("default/client", "app=client"), one.pod("default/server", "app=server"));
    let neighbour = two.pod("default/neighbour", "app=server");
    let _server = server.serve(8080, "server");
    client.reaches(server.addresses(), 8080, "server", ALL);
    let mut conversation = client.connect((server.ipv4, 8080)).unwrap();
    let identity = server.identity();
    let etcd = world.cluster(1).etcd();
    etcd.wipe();
    etcd.start();
    [one, two, far].iter().for_each(|node| node.ready());
    let wanted = [
        "cilium/state/nodes/v1/cluster1/node1".to_owned(),
        "cilium/state/nodes/v1/cluster1/node2".to_owned(),
        format!("cilium/state/ip/v1/default/{}", server.ipv4),
        format!("cilium/state/ip/v1/default/{}", neighbour.ipv6),
        format!("cilium/state/identities/v1/id/{identity}"),
        "cilium/cluster-config/cluster1".to_owned(),
    ];
    eventually("every record is back", || {
        let keys = etcd.keys("cilium/");
        if wanted.iter().all(|key| keys.contains(key)) { Ok(()) } else { Err(keys.join("\n")) }
    });
    remote_ready(far, true);
    assert_eq!([server.identity(), neighbour.identity()], [identity; 2]);
    assert_eq!(conversation.ask("did you notice?").unwrap(), "server");
    client.reaches(server.addresses(), 8080, "server", ALL);
}

#[test]
fn a_cluster_is_joined_and_left_with_its_file() {
    let world = World::lay(&[1, 1]);
    let file = world.dir().join("mesh/cluster2");
    let aside = world.dir().join("cluster2-aside");
    fs::rename(&file, &aside).unwrap();
    world.start();
    let (near, far) = (world.node(1, 1), world.node(2, 1));
    let (client, server) = (near.pod("default/client", ""), far.pod("default/server", ""));
    let _server = server.serve(8080, "server");
    let know = |name: &str, known: bool| {
        eventually(&format!("{name} is known: {known}"), || {
            let list = near.cli.show("node list");
            if list.contains(name) == known { Ok(()) } else { Err(list) }
        });
    };
    know("cluster2/node1", false);
    fs::rename(&aside, &file).unwrap();
    know("cluster2/node1", true);
    client.reaches(server.addresses(), 8080, "server", ALL);
    fs::rename(&file, &aside).unwrap();
    know("cluster2/node1", false);
    for address in server.addresses() {
        eventually_true("the way there is gone", || client.ping(address, "").is_err());
    }
    client.is_kept_from(server.addresses(), 8080, ALL);
}

/// Starts two clusters of which the second was told something wrong; what node 1 of the first says.
fn contradiction(option: &str, value: &str, complaint: &str) {
    let mut world = World::lay(&[1, 1]);
    world.clusters[1].nodes[0].replace_flag(option, value);
    world.clusters.iter().for_each(|cluster| cluster.etcd().start());
    world.nodes().for_each(|node| node.launch(&[]));
    let node = world.node(1, 1);
    eventually(complaint, || {
        let status = node.cli.say("status --verbose");
        if status.contains(complaint) { Ok(()) } else { Err(status) }
    });
    // The rest of the node is none the worse for it.
    let (client, server) = (node.pod("default/client", ""), node.pod("default/server", ""));
    let _server = server.serve(8080, "server");
    client.reaches(server.addresses(), 8080, "server", ALL);
    let list = node.cli.show("node list");
    assert!(!list.contains("cluster2/"), "{list}");
}

#[test]
fn a_cluster_with_our_id_is_refused_and_reported() {
    contradiction("--cluster-id", "101", "101");
}

#[test]
fn a_node_with_pod_addresses_of_ours_is_refused_and_reported() {
    contradiction("--pod-cidr", "10.60.1.0/24", "10.60.1.0/24");
    contradiction("--pod-cidr", "fd00:60:1::/112", "fd00:60:1::/112");
}
