//! Pods that one node knows and another one does not yet: what they send meanwhile waits, or is dropped
//! for a reason of its own.

use std::thread;
use tests::manifests::policy;
use tests::{Node, Pod, World, eventually, eventually_true};

/// Lets clients of the other cluster in.
const CLIENTS: &str = "
endpointSelector: {matchLabels: {app: server}}
ingress:
- fromEndpoints: [{matchLabels: {app: client, io.cilium.k8s.policy.cluster: cluster2}}]
";

/// What workers did with first packets of pods that were not known.
fn held(node: &Node, event: &str) -> u64 {
    let workers = node.cli.json("status")["datapath"]["workers"].clone();
    let workers = workers.as_array().expect("a list of workers");
    workers.iter().map(|worker| worker["hold"][event].as_u64().expect("a number")).sum()
}

/// Segments that the pod's stack has sent again.
fn sent_again(pod: &Pod) -> u64 {
    let text = pod.run("nstat -asz TcpRetransSegs").unwrap_or_else(|e| panic!("{e}"));
    let count = text.lines().find_map(|line| line.strip_prefix("TcpRetransSegs")?.split_whitespace().next());
    count.unwrap_or_else(|| panic!("{text}")).parse().unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn the_first_packets_of_a_new_pod_are_not_lost() {
    let world = World::of(&[1, 1]);
    let (near, far) = (world.node(1, 1), world.node(2, 1));
    let server = near.pod("default/server", "app=server");
    let _server = server.serve(8080, "server");
    world.cluster(1).apply("policy.yaml", &policy("clients", CLIENTS));
    near.enforces(&["clients"]);
    // Others with these labels need not ask the store for an identity any more.
    let first = far.pod("default/first", "app=client");
    eventually("a connection", || first.ask((server.ipv4, 8080)));

    let etcd = world.cluster(2).etcd();
    let connects_at_once = |number: usize| {
        etcd.freeze();
        let pod = far.pod(&format!("default/client{number}"), "app=client");
        let (before, expired) = (held(near, "held"), held(near, "expired"));
        let answer = thread::scope(|scope| {
            let asking = scope.spawn(|| pod.ask((server.ipv4, 8080)));
            eventually_true("the SYN waits", || held(near, "held") > before);
            etcd.thaw();
            asking.join().expect("no panic while asking")
        });
        // The record came too late if this test was kept from the processor.
        if held(near, "expired") > expired {
            return false;
        }
        assert_eq!(answer.expect("an answer"), "server");
        assert_eq!(sent_again(&pod), 0, "segments sent again");
        true
    };
    assert!((1..10).any(connects_at_once), "the record never came in time");

    // Without the record it is dropped, and that is not called a denial.
    etcd.freeze();
    let pod = far.pod("default/late", "app=client");
    let drops = near.monitor("--type drop");
    pod.ask((server.ipv4, 8080)).expect_err("nobody knows it");
    let why = format!("identity of {} (pod CIDR of cluster2/node1) is not known yet; cluster2 ", pod.ipv4);
    eventually("the drop is shown", || {
        let log = drops.log();
        let shown = log
            .lines()
            .any(|drop| drop.starts_with("xx drop (Unknown identity) flow 0x") && drop.contains(&why));
        if shown && !log.contains("Policy denied") { Ok(()) } else { Err(log) }
    });
    assert!(near.metric("cilium_drop_count_total{reason=\"Unknown identity\",direction=\"INGRESS\"}") > 0);
    etcd.thaw();
    eventually("it is known", || pod.ask((server.ipv4, 8080)));
}
