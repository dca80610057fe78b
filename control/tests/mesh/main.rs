//! The mesh against real etcds.

mod agent;
mod connections;
mod endpoints;
mod etcd;
mod kvstore;
mod own;
mod persist;
mod pki;
mod relay;
#[path = "../fixtures/replay.rs"]
mod replay;

use agent::{Agent, setup};
use etcd::Etcd;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Waits for something that must come; the limit is only there to end a failed test.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Two clusters of one agent each, with a pod each and a service of the second, connected.
async fn pair(etcds: [&Etcd; 2], grace: Duration, ttl: Duration) -> [Agent; 2] {
    let east = agent::Setup { grace, ttl, ..setup("east", 1, 1) }.start(Some(etcds[0])).await;
    let west = setup("west", 2, 1).start(Some(etcds[1])).await;
    west.set_pods(&[("10.2.1.5", west.identity("web").await), ("10.2.1.6", west.identity("db").await)]);
    west.set_service("shop", "web", "10.2.1.5");
    east.join("west", etcds[1]);
    west.join("east", etcds[0]);
    eventually("all of west is seen", async || {
        let seen = east.seen();
        east.ready("west")
            && seen.ips.contains_key("west/10.2.1.6/32")
            && seen.services.contains("west/shop/web")
    })
    .await;
    [east, west]
}

#[tokio::test]
async fn clusters_see_each_other() {
    let (one, two) = (Etcd::start().await, Etcd::start().await);
    let [east, west] = pair([&one, &two], Duration::from_secs(300), Duration::from_secs(600)).await;
    eventually("east is seen", async || west.ready("east") && west.seen().nodes.contains("east/n1")).await;
    let seen = east.seen();
    assert!(seen.nodes.contains("west/n1") && seen.nodes.contains("east/n1"));
    let id = seen.ips["west/10.2.1.5/32"];
    assert_eq!(id >> 16, 2);
    assert_eq!(seen.identities[&id], "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=west;");
    assert!(seen.synced.contains("west") && seen.synced.contains("east"));
    let status = east.remote("west").unwrap();
    assert_eq!(
        (status.cluster_id, status.sync_canaries, status.num_nodes, status.num_endpoints),
        (Some(2), true, 1, 2)
    );
    assert_eq!((status.num_identities, status.num_shared_services, status.refused), (2, 1, 0));
}

#[tokio::test]
async fn keys_are_where_cilium_looks_for_them() {
    let etcd = Etcd::start().await;
    let agent = setup("west", 2, 1).start(Some(&etcd)).await;
    let id = agent.identity("web").await;
    agent.set_pods(&[("10.2.1.5", id)]);
    eventually("the heartbeat, written last", async || !etcd.get("cilium/.heartbeat").await.is_empty()).await;
    eventually("four canaries", async || etcd.get("cilium/synced/west/cilium/state/").await.len() == 4).await;
    let only = |mut found: Vec<(String, String)>| found.pop().filter(|_| found.is_empty()).expect("one key");
    assert_eq!(
        only(etcd.get("cilium/cluster-config/").await),
        (
            "cilium/cluster-config/west".into(),
            r#"{"id":2,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}"#.into()
        )
    );
    let labels = "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=west;";
    assert_eq!(
        only(etcd.get("cilium/state/identities/v1/id/").await),
        (format!("cilium/state/identities/v1/id/{}", id.0), labels.into())
    );
    assert_eq!(
        only(etcd.get("cilium/state/identities/v1/value/").await),
        (format!("cilium/state/identities/v1/value/{labels}/172.16.2.1"), id.0.to_string())
    );
    eventually("the pod's key", async || !etcd.get("cilium/state/ip/v1/default/10.2.1.5").await.is_empty())
        .await;
    assert_eq!(only(etcd.get("cilium/state/nodes/v1/").await).0, "cilium/state/nodes/v1/west/n1");
    assert!(etcd.get("cilium/state/identities/v1/locks/").await.is_empty(), "no lock is left behind");
}

#[tokio::test]
async fn a_store_that_dies_changes_nothing_but_services() {
    let (one, mut two) = (Etcd::start().await, Etcd::start().await);
    let [east, _west] = pair([&one, &two], Duration::from_millis(200), Duration::from_secs(600)).await;
    two.kill();
    eventually("the services are stale", async || east.seen().stale.contains("west")).await;
    assert_eq!(east.seen().deleted, [""; 0]);
    let status = east.remote("west").unwrap();
    assert!(!status.ready && !status.connected && status.num_endpoints == 2, "{status:?}");
    assert!(status.synced.len() == 4 && status.synced.values().all(|kept| *kept), "{status:?}");
    let plain = ["connection lost", "connection refused"].iter().any(|end| status.status.ends_with(end));
    assert!(plain, "{}", status.status);
    two.resume().await;
    eventually("all is well again", async || east.ready("west") && east.seen().stale.is_empty()).await;
    assert_eq!(east.seen().deleted, [""; 0]);
}

#[tokio::test]
async fn a_store_that_hangs_is_noticed() {
    let (one, two) = (Etcd::start().await, Etcd::start().await);
    let [east, west] = pair([&one, &two], Duration::from_secs(300), Duration::from_secs(600)).await;
    two.signal("STOP");
    let west_sees_it = async || !west.mesh.kvstore_status().connected && !west.mesh.is_leader();
    eventually("it is noticed", async || !east.remote("west").unwrap().connected && west_sees_it().await)
        .await;
    two.signal("CONT");
    eventually("all is well again", async || east.ready("west") && west.mesh.is_leader()).await;
    assert_eq!(east.seen().deleted, [""; 0]);
}

#[tokio::test]
async fn listings_of_many_pages_are_complete() {
    let (one, two) = (Etcd::start().await, Etcd::start().await);
    let [east, west] = pair([&one, &two], Duration::from_secs(300), Duration::from_secs(600)).await;
    let id = west.identity("web").await;
    let pods: Vec<String> = (0..1100).map(|i| format!("10.2.{}.{}", 4 + i / 250, i % 250)).collect();
    west.set_pods(&pods.iter().map(|ip| (ip.as_str(), id)).collect::<Vec<_>>());
    let all =
        async || east.remote("west").is_some_and(|remote| remote.ready && remote.num_endpoints == pods.len());
    eventually("all are seen one by one", all).await;
    east.leave("west");
    eventually("none is left", async || east.seen().ips.is_empty()).await;
    east.join("west", &two);
    eventually("all are listed", all).await;
}

#[tokio::test]
async fn a_store_that_comes_back_empty_is_filled_again_without_a_gap() {
    let (one, mut two) = (Etcd::start().await, Etcd::start().await);
    let [east, west] = pair([&one, &two], Duration::from_secs(300), Duration::from_secs(600)).await;
    let other = setup("west", 2, 2).start(Some(&two)).await;
    let web = other.identity("web").await;
    // Every agent works out the services of its cluster, as any may become the leader.
    other.set_service("shop", "web", "10.2.1.5");
    other.set_pods(&[("10.2.2.7", web)]);
    eventually("the second node is seen", async || east.seen().ips.contains_key("west/10.2.2.7/32")).await;
    two.wipe();
    west.set_pods(&[("10.2.1.5", web)]);
    two.resume().await;
    eventually("what went meanwhile is swept", async || !east.seen().ips.contains_key("west/10.2.1.6/32"))
        .await;
    eventually("west is complete again", async || east.ready("west")).await;
    assert_eq!(east.seen().deleted, ["west/10.2.1.6/32"]);
    eventually("both of west agree", async || {
        !other.seen().ips.contains_key("west/10.2.1.6/32")
            && !west.seen().ips.contains_key("west/10.2.1.6/32")
    })
    .await;
    for agent in [&west, &other] {
        assert_eq!(agent.seen().deleted, ["west/10.2.1.6/32"]);
    }
}

#[tokio::test]
async fn a_cluster_that_stays_away_is_forgotten() {
    let (one, mut two) = (Etcd::start().await, Etcd::start().await);
    let [east, _west] = pair([&one, &two], Duration::from_millis(100), Duration::from_millis(500)).await;
    two.kill();
    eventually("nothing of west is left", async || {
        let seen = east.seen();
        seen.services.is_empty() && seen.ips.is_empty() && !seen.nodes.contains("west/n1")
    })
    .await;
    two.resume().await;
    eventually("west is back", async || east.ready("west") && east.seen().services.contains("west/shop/web"))
        .await;
    assert!(east.seen().stale.is_empty() && east.seen().ips.len() == 2);
}

#[tokio::test]
async fn a_cluster_that_is_no_longer_configured_is_forgotten() {
    let (one, two) = (Etcd::start().await, Etcd::start().await);
    let [east, west] = pair([&one, &two], Duration::from_secs(300), Duration::from_secs(600)).await;
    east.leave("west");
    eventually("only east is left", async || {
        let seen = east.seen();
        seen.services.is_empty() && seen.ips.is_empty() && seen.nodes.len() == 1 && seen.identities.is_empty()
    })
    .await;
    assert!(east.remote("west").is_none() && west.ready("east"));
}

#[tokio::test]
async fn a_cluster_that_is_configured_again_is_not_stale_from_before() {
    let (one, mut two) = (Etcd::start().await, Etcd::start().await);
    let [east, _west] = pair([&one, &two], Duration::from_millis(200), Duration::from_secs(600)).await;
    two.kill();
    eventually("the services are stale", async || east.seen().stale.contains("west")).await;
    east.leave("west");
    eventually("nothing of west is left", async || {
        let seen = east.seen();
        seen.services.is_empty() && seen.stale.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_configuration_that_became_wrong_leaves_the_last_good_one_in_force() {
    let (one, two) = (Etcd::start().await, Etcd::start().await);
    let [east, _west] = pair([&one, &two], Duration::from_secs(300), Duration::from_secs(600)).await;
    // As a half-written file looks.
    std::fs::write(east.dir.path().join("mesh/west"), "").unwrap();
    eventually("it is reported", async || {
        east.mesh.conflicts().iter().any(|conflict| conflict.contains("west: no 'endpoints:' can be read"))
    })
    .await;
    assert!(east.ready("west"));
    east.join("west", &two);
    eventually("all is well", async || east.mesh.conflicts().is_empty()).await;
    assert_eq!(east.seen().deleted, [""; 0]);
}

#[tokio::test]
async fn two_agents_agree_on_identities() {
    let etcd = Etcd::start().await;
    let first = setup("west", 2, 1).start(Some(&etcd)).await;
    let second = setup("west", 2, 2).start(Some(&etcd)).await;
    let apps: Vec<String> = (0..8).map(|i| format!("app{i}")).collect();
    let all = |agent: &Agent| {
        let mesh = agent.mesh.clone();
        let apps = apps.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for app in &apps {
                ids.push(mesh.allocate_identity(&agent::labels("west", app), None).await.unwrap());
            }
            ids
        })
    };
    let (a, b) = (all(&first), all(&second));
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    assert_eq!(a, b);
    assert!(a.iter().all(|id| id.cluster() == 2));
    assert_eq!(a.iter().collect::<std::collections::BTreeSet<_>>().len(), apps.len());
    // A restarted agent finds what it had, and others do not see that it was away.
    second.set_pods(&[("10.2.2.7", b[3])]);
    eventually("the pod is seen", async || first.seen().ips.contains_key("west/10.2.2.7/32")).await;
    second.mesh.shutdown().await;
    let again = setup("west", 2, 2).start(Some(&etcd)).await;
    assert_eq!(again.identity("app3").await, a[3]);
    eventually("it has its own key back", async || again.seen().ips.contains_key("west/10.2.2.7/32")).await;
    again.set_pods(&[("10.2.2.7", a[3]), ("10.2.2.8", a[3])]);
    eventually("its new pod is seen", async || first.seen().ips.contains_key("west/10.2.2.8/32")).await;
    assert_eq!(first.seen().deleted, [""; 0]);
}

#[tokio::test]
async fn lost_keys_come_back() {
    let etcd = Etcd::start().await;
    let agent = setup("west", 2, 1).start(Some(&etcd)).await;
    let id = agent.identity("web").await;
    agent.set_pods(&[("10.2.1.5", id)]);
    let keys = [
        format!("cilium/state/identities/v1/id/{}", id.0),
        "cilium/state/ip/v1/default/10.2.1.5".into(),
        "cilium/state/nodes/v1/west/n1".into(),
        "cilium/cluster-config/west".into(),
        "cilium/synced/west/cilium/state/ip/v1".into(),
    ];
    for key in &keys {
        eventually(key, async || !etcd.get(key).await.is_empty()).await;
        etcd.delete(key).await;
        eventually(key, async || !etcd.get(key).await.is_empty()).await;
    }
    etcd.revoke_all_leases().await;
    for key in &keys {
        eventually(key, async || !etcd.get(key).await.is_empty()).await;
    }
    agent.set_pods(&[]);
    eventually("the pod's key goes", async || etcd.get(&keys[1]).await.is_empty()).await;
}

#[tokio::test]
async fn leadership_moves() {
    let etcd = Etcd::start().await;
    let first = setup("west", 2, 1).start(Some(&etcd)).await;
    eventually("the first leads", async || first.mesh.is_leader()).await;
    let second = setup("west", 2, 2).start(Some(&etcd)).await;
    second.set_service("shop", "web", "10.2.1.5");
    eventually("the second is connected", async || second.mesh.kvstore_status().connected).await;
    assert!(!second.mesh.is_leader());
    assert!(etcd.get("cilium/state/services/").await.is_empty(), "only the leader writes services");
    first.mesh.shutdown().await;
    eventually("the second leads", async || second.mesh.is_leader()).await;
    eventually("and publishes", async || etcd.get("cilium/state/services/v1/west/shop/web").await.len() == 1)
        .await;
    assert!(!first.mesh.is_leader());
    assert_eq!(etcd.get("cilium/state/nodes/v1/west/").await.len(), 2, "the node of the first stays");
}

#[tokio::test]
async fn the_same_cluster_id_twice_is_refused() {
    let (one, two, three) = (Etcd::start().await, Etcd::start().await, Etcd::start().await);
    let [east, _west] = pair([&one, &two], Duration::from_secs(300), Duration::from_secs(600)).await;
    let _north = setup("north", 2, 9).start(Some(&three)).await;
    east.join("north", &three);
    let refusal = "cluster north has id 2, which cluster west has too";
    eventually("north is refused", async || east.mesh.conflicts() == [refusal]).await;
    assert!(east.remote("north").unwrap().status.contains(refusal));
    assert!(!east.seen().nodes.contains("north/n9") && east.ready("west"));
    east.leave("west");
    eventually("its id is free", async || east.ready("north") && east.mesh.conflicts().is_empty()).await;
    assert!(east.seen().nodes.contains("north/n9"));
}

#[tokio::test]
async fn overlapping_pod_cidrs_and_the_own_id_are_refused() {
    let (one, two, three) = (Etcd::start().await, Etcd::start().await, Etcd::start().await);
    let east = setup("east", 1, 1).start(Some(&one)).await;
    let _same = setup("south", 1, 7).start(Some(&two)).await;
    east.join("south", &two);
    let refusal = "cluster south has id 1, which is that of this cluster east";
    eventually("south is refused", async || east.mesh.conflicts() == [refusal]).await;
    east.leave("south");
    let north = setup("north", 3, 1).start(Some(&three)).await;
    east.join("north", &three);
    eventually("north is seen", async || east.seen().nodes.contains("north/n1")).await;
    north.mesh.set_node(control::records::Node {
        name: "n1".into(),
        cluster: "north".into(),
        cluster_id: 3,
        ipv4_alloc_cidr: Some("10.1.0.0/16".parse::<ipnet::IpNet>().unwrap().into()),
        ..Default::default()
    });
    eventually("its node is withheld", async || !east.seen().nodes.contains("north/n1")).await;
    let conflicts = east.mesh.conflicts();
    assert!(
        conflicts.len() == 1 && conflicts[0].contains("10.1.0.0/16 overlaps 10.1.1.0/24 of east/n1"),
        "{conflicts:?}"
    );
}

#[tokio::test]
async fn two_agents_with_one_node_name_are_reported() {
    let etcd = Etcd::start().await;
    let first = setup("west", 2, 1).start(Some(&etcd)).await;
    eventually("the first is there", async || etcd.get("cilium/state/nodes/").await.len() == 1).await;
    assert_eq!(first.mesh.conflicts(), [""; 0]);
    let _second = setup("west", 2, 1).start(Some(&etcd)).await;
    eventually("it is reported", async || {
        first.mesh.conflicts().iter().any(|conflict| conflict.contains("the record of node west/n1"))
    })
    .await;
}

#[tokio::test]
async fn a_store_of_another_cluster_is_not_written() {
    let etcd = Etcd::start().await;
    etcd.put("cilium/cluster-config/south", r#"{"id":9,"capabilities":{}}"#).await;
    let agent = setup("west", 2, 1).start(Some(&etcd)).await;
    eventually("it says why", async || {
        agent.mesh.kvstore_status().status.contains("belongs to cluster south (id 9), not to west")
    })
    .await;
    assert!(etcd.get("cilium/state/").await.is_empty());
}

#[tokio::test]
async fn data_written_by_cilium_is_understood() {
    let etcd = Etcd::start().await;
    let recorded = include_str!("../../src/records/testdata/recorded.txt");
    for line in recorded.lines().filter(|line| {
        line.contains("/state/") || line.contains("\"id\":7,\"capabilities\":{\"syncedCanaries\":true,\"max")
    }) {
        let (key, value) = line.split_once(' ').unwrap();
        etcd.put(key, value).await;
    }
    for kind in ["nodes", "identities", "ip", "services"] {
        etcd.put(&format!("cilium/synced/alpha/cilium/state/{kind}/v1"), "2026-11-22T05:16:46Z").await;
    }
    let agent = setup("west", 2, 1).start(None).await;
    agent.join("alpha", &etcd);
    eventually("alpha is ready", async || agent.ready("alpha")).await;
    let status = agent.remote("alpha").unwrap();
    assert_eq!((status.refused, status.last_refusal), (0, None));
    assert_eq!(
        (status.num_nodes, status.num_endpoints, status.num_identities, status.num_shared_services),
        (2, 2, 1, 2)
    );
    assert!(agent.mesh.kvstore_status().connected && agent.mesh.is_leader(), "a node alone leads itself");
}
