//! Policy: each direction, each family, across nodes and clusters, and what is said about it.

use regex::Regex;
use serde_json::Value;
use std::net::IpAddr;
use tests::manifests::policy;
use tests::reach::{ALL, Means};
use tests::world::OUTSIDE;
use tests::{Pod, World, eventually, eventually_true};

const INGRESS: &str = "
endpointSelector: {matchLabels: {app: server}}
ingress:
- fromEndpoints: [{matchLabels: {app: friend}}]
  toPorts: [{ports: [{port: '8080', protocol: TCP}]}]
";

#[test]
fn ingress_lets_in_who_is_named_and_says_why_others_stay_out() {
    let world = World::single();
    let node = world.node(1, 1);
    let [server, friend, stranger] = ["server", "friend", "stranger"]
        .map(|app| node.pod(&format!("default/{app}"), &format!("app={app}")));
    let _server = server.serve(8080, "server");
    let _other = server.serve(8081, "other");
    for client in [&friend, &stranger] {
        client.reaches(server.addresses(), 8080, "server", ALL);
    }
    let mut conversation = stranger.connect((server.ipv4, 8080)).unwrap();

    world.cluster(1).apply("policy.yaml", &policy("guard", INGRESS));
    node.enforces(&["guard"]);
    let (drops, verdicts) = (node.monitor("--type drop"), node.monitor("--type policy-verdict"));
    friend.reaches(server.addresses(), 8080, "server", &[Means::Tcp]);
    friend.is_kept_from(server.addresses(), 8080, &[Means::Udp, Means::Icmp]);
    friend.is_kept_from(server.addresses(), 8081, &[Means::Tcp]);
    stranger.is_kept_from(server.addresses(), 8080, ALL);
    world.outside.is_kept_from(server.addresses(), 8080, ALL);
    // The node may reach its pods whatever their policy says; their own connections are not affected.
    node.host.reaches(server.addresses(), 8080, "server", ALL);
    let _back = stranger.serve(8080, "stranger");
    server.reaches(stranger.addresses(), 8080, "stranger", ALL);

    // The monitor has said so, with both identities and the reason.
    let (from, to) = (stranger.identity(), server.identity());
    let line = Regex::new(&format!(
        r"(?m)^xx drop \(Policy denied\) flow 0x[0-9a-f]+ to endpoint {}, identity {from}->{to}: {}:\d+ -> {}:8080 tcp SYN .*app=stranger.*8080/TCP",
        server.id, stranger.ipv4, server.ipv4
    ))
    .unwrap();
    eventually("the drop is shown", || if line.is_match(&drops.log()) { Ok(()) } else { Err(drops.log()) });
    for (action, peer) in [("allow", friend.identity()), ("deny", from)] {
        let line = Regex::new(&format!(
            r"(?m)^Policy verdict log: flow 0x[0-9a-f]+ local EP ID {}, remote ID {peer}, proto 6, ingress, action {action}, ",
            server.id
        ))
        .unwrap();
        eventually("the verdict is shown", || {
            if line.is_match(&verdicts.log()) { Ok(()) } else { Err(verdicts.log()) }
        });
    }

    // What was established before is cut off, and goes on when the policy goes.
    let doubted = std::thread::spawn(move || conversation.ask("am I still allowed?"));
    let series = r#"cilium_drop_count_total{reason="Policy denied",direction="INGRESS"}"#;
    let before = node.metric(series);
    eventually_true("its segments are dropped", || node.metric(series) > before);
    assert!(!doubted.is_finished());
    world.cluster(1).withdraw("policy.yaml");
    assert_eq!(doubted.join().unwrap().unwrap(), "server");
}

#[test]
fn every_denied_packet_is_counted_once() {
    let world = World::single();
    let node = world.node(1, 1);
    let (server, client) =
        (node.pod("default/server", "app=server"), node.pod("default/client", "app=client"));
    world.cluster(1).apply("policy.yaml", &policy("guard", INGRESS));
    node.enforces(&["guard"]);
    let series = r#"cilium_drop_count_total{reason="Policy denied",direction="INGRESS"}"#;
    let before = node.metric(series);
    for address in server.addresses() {
        let socket = client.udp((address, 9).into()).unwrap();
        for _ in 0..50 {
            socket.send(b"x").unwrap();
        }
    }
    eventually("all hundred are counted", || match node.metric(series) - before {
        100 => Ok(()),
        count => Err(count),
    });
}

#[test]
fn egress_lets_out_to_pods_ports_and_networks_that_are_named() {
    let world = World::single();
    let node = world.node(1, 1);
    let [client, db, web] =
        ["client", "db", "web"].map(|app| node.pod(&format!("default/{app}"), &format!("app={app}")));
    let _servers =
        [db.serve(6379, "db"), db.serve(22, "db"), web.serve(80, "web"), client.serve(80, "client")];
    let _outside = world.outside.serve(OUTSIDE, 443, "outside");
    let [outside4, outside6]: [IpAddr; 2] = OUTSIDE;
    world.cluster(1).apply(
        "policy.yaml",
        &policy(
            "out",
            &format!(
                "
endpointSelector: {{matchLabels: {{app: client}}}}
egress:
- toEndpoints: [{{matchLabels: {{app: db}}}}]
  toPorts: [{{ports: [{{port: '6000', endPort: 6400, protocol: TCP}}]}}]
- toCIDR: ['{outside4}/32']
"
            ),
        ),
    );
    node.enforces(&["out"]);
    client.reaches(db.addresses(), 6379, "db", &[Means::Tcp]);
    client.reaches([outside4], 443, "outside", ALL);
    client.is_kept_from(db.addresses(), 22, ALL);
    client.is_kept_from(web.addresses(), 80, ALL);
    client.is_kept_from([outside6], 443, ALL);
    client.is_kept_from(node.addresses(), 80, &[Means::Icmp]);
    web.reaches(client.addresses(), 80, "client", ALL);
    let list = node.cli.json("endpoint list");
    let enforced = |pod: &Pod| -> (Value, Value) {
        let entry = list.as_array().unwrap().iter().find(|entry| entry["id"] == pod.id).unwrap();
        (entry["status"]["ingress-enforced"].clone(), entry["status"]["egress-enforced"].clone())
    };
    assert_eq!(enforced(&client), (false.into(), true.into()));
    assert_eq!(enforced(&db), (false.into(), false.into()));
}

#[test]
fn policy_tells_clusters_apart_on_the_way_in_and_out() {
    let world = World::of(&[2, 1]);
    let [client, near, far] =
        [(1, 1, "client"), (1, 2, "near"), (2, 1, "far")].map(|(cluster, node, app)| {
            world.node(cluster, node).pod(&format!("default/{app}"), &format!("app={app}"))
        });
    let _servers = [near.serve(8080, "near"), far.serve(8080, "far"), client.serve(8080, "client")];
    for server in [&near, &far] {
        client.reaches(server.addresses(), 8080, &server.name["default/".len()..], ALL);
        server.reaches(client.addresses(), 8080, "client", ALL);
    }
    let of = |cluster: &str| format!("[{{matchLabels: {{io.cilium.k8s.policy.cluster: {cluster}}}}}]");
    for (allowed, denied, cluster, name) in
        [(&near, &far, "cluster1", "near"), (&far, &near, "cluster2", "far")]
    {
        // The client's node decides whom it may call, and who may call it.
        let selector = "endpointSelector: {matchLabels: {app: client}}";
        for (way, peers) in [("egress", "toEndpoints"), ("ingress", "fromEndpoints")] {
            let spec = format!("{selector}\n{way}: [{{{peers}: {}}}]", of(cluster));
            world.cluster(1).apply("policy.yaml", &policy(&format!("{way}-{cluster}"), &spec));
            world.node(1, 1).enforces(&[&format!("{way}-{cluster}")]);
            client.reaches(allowed.addresses(), 8080, name, ALL);
            allowed.reaches(client.addresses(), 8080, "client", ALL);
            match way {
                "egress" => client.is_kept_from(denied.addresses(), 8080, ALL),
                _ => denied.is_kept_from(client.addresses(), 8080, ALL),
            }
        }
    }
    world.cluster(1).withdraw("policy.yaml");
    world.node(1, 1).enforces(&[]);

    // The server's node decides about a client of another node and another cluster.
    for (cluster, server) in [(1, &near), (2, &far)] {
        let spec = format!(
            "endpointSelector: {{matchLabels: {{app: {}}}}}\ningress: [{{fromEndpoints: {}}}]",
            &server.name["default/".len()..],
            of("cluster2")
        );
        world.cluster(cluster).apply("policy.yaml", &policy("guard", &spec));
    }
    world.node(1, 2).enforces(&["guard"]);
    world.node(2, 1).enforces(&["guard"]);
    far.reaches(near.addresses(), 8080, "near", ALL);
    for server in [&near, &far] {
        client.is_kept_from(server.addresses(), 8080, ALL);
        server.reaches(client.addresses(), 8080, "client", ALL);
    }
}

#[test]
fn a_deny_beats_every_allow_and_a_network_policy_counts_as_well() {
    let world = World::single();
    let node = world.node(1, 1);
    let [server, friend, foe] =
        [("server", "app=server"), ("friend", "app=friend"), ("foe", "app=friend bad=yes")]
            .map(|(name, labels)| node.pod(&format!("default/{name}"), labels));
    let _server = server.serve(8080, "server");
    let network_policy = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-friends, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
";
    let deny = policy(
        "deny-bad",
        "
endpointSelector: {matchLabels: {app: server}}
ingressDeny:
- fromEndpoints: [{matchLabels: {bad: 'yes'}}]
",
    );
    world.cluster(1).apply("policy.yaml", &format!("{network_policy}---\n{deny}"));
    node.enforces(&["deny-bad", "allow-friends"]);
    let drops = node.monitor("--type drop -o json");
    friend.reaches(server.addresses(), 8080, "server", ALL);
    foe.is_kept_from(server.addresses(), 8080, ALL);
    let to = server.identity();
    let event = eventually("the drop as JSON", || {
        let log = drops.log();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // Not what pods say to multicast groups of their own accord.
        events.into_iter().find(|event| event["dstLabel"] == to).ok_or(log.clone())
    });
    assert_eq!(event["reason"], "Policy denied by denylist");
    assert_eq!((&event["srcLabel"], &event["dstLabel"]), (&foe.identity().into(), &to.into()));
    assert!(event["why"].as_str().unwrap().contains("deny-bad"), "{event:#}");
}

#[test]
fn a_policy_that_cannot_be_enforced_is_refused_and_the_last_good_one_stays() {
    let world = World::single();
    let node = world.node(1, 1);
    let [server, friend, stranger] = ["server", "friend", "stranger"]
        .map(|app| node.pod(&format!("default/{app}"), &format!("app={app}")));
    let _server = server.serve(8080, "server");
    let cluster = world.cluster(1);
    cluster.apply("policy.yaml", &policy("guard", INGRESS));
    node.enforces(&["guard"]);

    // The same policy with a rule for HTTP, a file that is not YAML, and a policy with a typing error.
    let http = INGRESS.replace("protocol: TCP}]", "protocol: TCP}], rules: {http: [{method: GET}]}");
    cluster.apply("policy.yaml", &policy("guard", &http));
    cluster.apply("broken.yaml", "kind: [");
    cluster.apply("typo.yaml", &policy("typo", &INGRESS.replace("fromEndpoints", "fromEndpoint")));
    let errors = eventually("all three are reported", || {
        let errors = node.cli.json("status")["control"]["manifest-errors"].clone();
        if errors.as_array().is_some_and(|all| all.len() == 3) { Ok(errors) } else { Err(errors) }
    });
    let text = errors.to_string();
    for word in ["toPorts[0].rules", "broken.yaml", "fromEndpoint"] {
        assert!(text.contains(word), "{word}: {errors:#}");
    }
    let guard =
        errors.as_array().unwrap().iter().find(|e| e["source"].to_string().contains("policy.yaml")).unwrap();
    assert_eq!(guard["last-good-in-force"], true);
    assert!(node.cli.say("status").contains("broken.yaml"));
    node.enforces(&["guard"]);
    friend.reaches(server.addresses(), 8080, "server", &[Means::Tcp]);
    stranger.is_kept_from(server.addresses(), 8080, &[Means::Tcp]);
}
