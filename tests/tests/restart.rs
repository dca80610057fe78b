//! Agents that stop, crash and come back while their pods keep talking.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use tests::manifests::service;
use tests::process::Process;
use tests::proven::ask;
use tests::reach::ALL;
use tests::sockets::Conversation;
use tests::world::OUTSIDE;
use tests::{Node, Pod, World, eventually, eventually_true};

const GLOBAL: &str = "service.cilium.io/global: 'true'";
const SERVICE: [&str; 2] = ["10.96.0.10:80", "[fd00:96::10]:80"];
const SERVERS: [&str; 2] = ["server", "far"];

/// Tries, straight and through the service, IPv4 and IPv6, until each server has answered.
fn with_each_server<T>(
    servers: [&Pod; 2],
    open: impl Fn(SocketAddr) -> io::Result<(T, String)>,
) -> Vec<(T, &'static str)> {
    let mut opened = Vec::new();
    for (pod, name) in servers.into_iter().zip(SERVERS) {
        let straight = pod.addresses().map(|address| SocketAddr::from((address, 8080)));
        for to in SERVICE.map(|to| to.parse().unwrap()).into_iter().chain(straight) {
            opened.push(eventually(&format!("{name} answers at {to}"), || match open(to)? {
                (talk, who) if who == name => Ok((talk, name)),
                (_, who) => Err(io::Error::other(who)),
            }));
        }
    }
    opened
}

/// Connections with both servers.
fn conversations(client: &Pod, servers: [&Pod; 2]) -> Vec<(Conversation, &'static str)> {
    with_each_server(servers, |to| {
        let mut conversation = client.connect(to)?;
        conversation.ask("hello").map(|who| (conversation, who))
    })
}

/// Endpoint numbers, identities and addresses.
fn endpoints(node: &Node) -> Vec<String> {
    let list = node.cli.json("endpoint list");
    let line = |e: &serde_json::Value| format!("{} {} {}", e["id"], e["status"]["identity"], e["addresses"]);
    list.as_array().unwrap().iter().map(line).collect()
}

#[test]
fn established_connections_outlive_a_stop_and_a_crash_of_either_agent() {
    let world = World::of(&[2, 1]);
    let (one, two) = (world.node(1, 1), world.node(1, 2));
    world.clusters.iter().for_each(|cluster| cluster.apply("web.yaml", &service("web", 10, GLOBAL)));
    let (client, server) = (one.pod("default/client", ""), two.pod("default/server", "app=web"));
    let far = world.node(2, 1).pod("default/far", "app=web");
    let _servers = [server.serve(8080, "server"), far.serve(8080, "far")];
    let mut idle = conversations(&client, [&server, &far]);
    let busy = conversations(&client, [&server, &far]);
    let datagrams = with_each_server([&server, &far], |to| {
        let socket = client.udp(to)?;
        ask(&socket).map(|who| (socket, who))
    });
    let before = [endpoints(one), endpoints(two)];

    let done = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (mut conversation, _) in busy {
            let (done, asked) = (&done, &asked);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    conversation.ask(&"data ".repeat(1000)).expect("a connection that goes on");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Also when an assertion fails the conversations end.
        let _end = EndOnDrop(&done);
        let disturb: [fn(&Node); 2] = [Node::stop, Node::kill];
        for node in [one, two] {
            for end in disturb {
                end(node);
                node.start();
                let so_far = asked.load(Ordering::Relaxed);
                eventually_true("data flows again", || asked.load(Ordering::Relaxed) > so_far + 20);
                // A server is not changed under a flow of datagrams either.
                for (socket, name) in &datagrams {
                    assert_eq!(eventually("an answer", || ask(socket)), *name);
                }
            }
        }
    });
    assert_eq!([endpoints(one), endpoints(two)], before);
    for (conversation, name) in &mut idle {
        assert_eq!(conversation.ask("after all this?").unwrap(), *name);
    }
    client.reaches(server.addresses(), 8080, "server", ALL);
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nothing_passes_while_no_agent_runs() {
    let world = World::of(&[2]);
    let node = world.node(1, 1);
    let (client, server) = (node.pod("default/client", ""), node.pod("default/server", ""));
    let far = world.node(1, 2).pod("default/far", "");
    let _servers = [
        server.serve(8080, "server"),
        far.serve(8080, "far"),
        node.serve(9090, "node"),
        world.outside.serve(OUTSIDE, 7070, "out"),
    ];
    client.reaches(server.addresses(), 8080, "server", ALL);
    client.reaches(far.addresses(), 8080, "far", ALL);
    let mut conversation = client.connect((server.ipv4, 8080)).unwrap();
    let closed = || {
        client.is_kept_from(server.addresses(), 8080, ALL);
        client.is_kept_from(far.addresses(), 8080, ALL);
        far.is_kept_from(server.addresses(), 8080, ALL);
        client.is_kept_from(node.addresses(), 9090, ALL);
        client.is_kept_from(OUTSIDE, 7070, ALL);
        node.host.is_kept_from(server.addresses(), 8080, ALL);
        world.outside.is_kept_from(server.addresses(), 8080, ALL);
        assert!(client.links().contains(&"eth0".to_owned()));
        // The node's own traffic is nobody's business.
        node.host.reaches(OUTSIDE, 7070, "out", ALL);
    };
    node.kill();
    closed();
    node.start();
    assert_eq!(conversation.ask("again?").unwrap(), "server");
    node.stop();
    closed();
    node.start();
    assert_eq!(conversation.ask("and again?").unwrap(), "server");
    client.reaches(server.addresses(), 8080, "server", ALL);

    // New pods get numbers and addresses that nobody has.
    let late = node.pod("default/late", "");
    assert!(![client.id, server.id].contains(&late.id) && ![client.ipv4, server.ipv4].contains(&late.ipv4));
    late.reaches(server.addresses(), 8080, "server", ALL);
}

#[test]
fn policy_is_in_force_from_the_first_packet_after_a_restart() {
    let world = World::single();
    let node = world.node(1, 1);
    let (server, stranger) = (node.pod("default/server", "app=server"), node.pod("default/stranger", ""));
    let _server = server.serve(8080, "server");
    let deny = "endpointSelector: {matchLabels: {app: server}}\ningress: [{}]";
    world.cluster(1).apply("policy.yaml", &tests::manifests::policy("closed", deny));
    for address in server.addresses() {
        eventually_true("the policy is in force", || stranger.ask((address, 8080)).is_err());
    }
    let open = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for address in server.addresses() {
            let (open, done, stranger) = (&open, &done, &stranger);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if stranger.ping(address, "-W 1").is_ok() {
                        open.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        let _end = EndOnDrop(&done);
        for _ in 0..3 {
            node.kill();
            node.start();
        }
    });
    assert!(!open.load(Ordering::Relaxed), "a packet got past the policy");
    stranger.is_kept_from(server.addresses(), 8080, ALL);
}

#[test]
fn one_state_dir_has_one_agent_and_cleanup_waits_for_none() {
    let world = World::single();
    let node = world.node(1, 1);
    let pod = node.pod("default/pod", "");
    let owner = node.agent_id().to_string();
    let refusal = node.run_to_end(&[]).unwrap_err();
    assert!(refusal.contains("error: ") && refusal.contains(&owner), "{refusal}");
    let program = tests::node::dataplane();
    let cleanup = format!("{} cleanup --state-dir {}", program.display(), node.state_dir.display());
    let refusal = node.host.run(&cleanup).unwrap_err();
    assert!(refusal.contains("error: ") && refusal.contains(&owner), "{refusal}");
    node.ready();

    node.kill();
    node.host.run(&cleanup).unwrap();
    assert_eq!(pod.links(), ["lo"]);
    let forwarding =
        |host: &tests::Host| host.enter(|| std::fs::read("/proc/sys/net/ipv4/ip_forward").unwrap());
    assert_eq!(forwarding(&node.host), forwarding(&world.outside));
    let features = node.host.run("ethtool -k eth0").unwrap();
    for feature in ["tx-checksumming: on", "generic-receive-offload: off"] {
        assert!(features.contains(feature), "{feature}: {features}");
    }
    let mut links = node.host.links();
    links.sort();
    assert_eq!(links, ["eth0", "lo"]);
    node.host.run(&cleanup).unwrap();
    // From nothing again.
    node.start();
    assert_eq!(endpoints(node), Vec::<String>::new());
}

#[test]
fn pods_that_vanish_while_no_agent_runs_do_not_keep_others_from_coming_back() {
    let world = World::single();
    let node = world.node(1, 1);
    let [client, server, doomed] =
        ["client", "server", "doomed"].map(|name| node.pod(&format!("default/{name}"), ""));
    let _server = server.serve(8080, "server");
    node.stop();
    tests::command::ip(&format!("netns del {}", doomed.netns));
    node.launch(&[]);
    eventually_true("its state is not-ready", || {
        node.cli.run("endpoint list -o json").is_ok() && doomed.status()["status"]["state"] == "not-ready"
    });
    client.reaches(server.addresses(), 8080, "server", ALL);
    doomed.delete();
    node.ready();
}

#[test]
fn agents_of_two_namespaces_do_not_touch_each_other() {
    let world = World::of(&[2]);
    let (one, two) = (world.node(1, 1), world.node(1, 2));
    let (client, server) = (one.pod("default/client", ""), two.pod("default/server", ""));
    let bystander = two.pod("default/bystander", "");
    let _server = server.serve(8080, "server");
    client.reaches(server.addresses(), 8080, "server", ALL);
    // Protocol 112 is ours.
    let routes = |family: &str| one.host.ip(&format!("{family} route show proto 112"));
    for family in ["-4", "-6"] {
        eventually_true("the host has a route to the other pods", || !routes(family).is_empty());
    }
    let mut conversation = bystander.connect((server.ipv4, 8080)).unwrap();
    one.kill();
    let program = tests::node::dataplane();
    one.host.run(&format!("{} cleanup --state-dir {}", program.display(), one.state_dir.display())).unwrap();
    assert_eq!(["-4", "-6"].map(routes), ["", ""]);
    assert_eq!(conversation.ask("does that concern you?").unwrap(), "server");
    bystander.reaches(server.addresses(), 8080, "server", ALL);
    let capture = Process::start(
        two.host.command("tcpdump").args(["-n", "-c", "1", "-i", "eth0", "icmp"]),
        &world.dir().join("capture.log"),
    );
    eventually_true("it captures", || capture.log().contains("listening on"));
    two.host.ping(OUTSIDE[0], "").unwrap();
    eventually_true("the host's own packets are seen", || capture.log().contains("ICMP echo re"));
}
