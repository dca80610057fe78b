//! What an agent writes into the store of its cluster, and that it stays there.

use super::agent::{self, setup};
use super::etcd::Etcd;
use super::eventually;
use control::model::WrittenStatus;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const SERVICE: &str = "cilium/state/services/v1/west/shop/web";

#[tokio::test]
async fn the_first_to_claim_an_address_keeps_it_until_it_goes() {
    let etcd = Etcd::start().await;
    let first = setup("west", 2, 1).start(Some(&etcd)).await;
    let second = setup("west", 2, 2).start(Some(&etcd)).await;
    let web = first.identity("web").await;
    assert_eq!(second.identity("web").await, web);
    let host = async || etcd.get("cilium/state/ip/v1/default/10.2.9.9").await.pop().map(|(_, value)| value);
    let of = |node| format!("\"HostIP\":\"172.16.2.{node}\"");
    first.set_pods(&[("10.2.9.9", web)]);
    eventually("the first has it", async || host().await.is_some_and(|value| value.contains(&of(1)))).await;
    second.set_pods(&[("10.2.9.9", web)]);
    eventually("the second waits", async || {
        second
            .mesh
            .conflicts()
            .iter()
            .any(|conflict| conflict.starts_with("10.2.9.9 ") && conflict.contains("172.16.2.1"))
    })
    .await;
    assert!(host().await.unwrap().contains(&of(1)));
    first.set_pods(&[]);
    eventually("the second has it", async || host().await.is_some_and(|value| value.contains(&of(2)))).await;
    eventually("nothing is contested", async || second.mesh.conflicts().is_empty()).await;
}

#[tokio::test]
async fn a_leader_that_slept_writes_nothing_any_more() {
    let etcd = Arc::new(Etcd::start().await);
    let (commands, orders) = mpsc::channel::<()>();
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let theirs = etcd.clone();
    // An agent on a thread of its own, all of which can be stopped as by SIGSTOP.
    let sleeper = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let agent = setup("west", 2, 1).start(Some(&theirs)).await;
            agent.set_service("shop", "web", "10.2.1.1");
            eventually("it leads and writes", async || {
                agent.mesh.is_leader() && !theirs.get(SERVICE).await.is_empty()
            })
            .await;
            sender.send(agent.mesh.is_leader()).unwrap();
            orders.recv().unwrap(); // nothing of this agent runs meanwhile
            agent.set_service("shop", "web", "10.2.1.3");
            sender.send(agent.mesh.is_leader()).unwrap();
            eventually("it knows", async || !agent.mesh.is_leader()).await;
            sender.send(agent.mesh.is_leader()).unwrap();
        });
    });
    assert_eq!(answers.recv().await, Some(true));
    let second = setup("west", 2, 2).start(Some(&etcd)).await;
    second.set_service("shop", "web", "10.2.1.2");
    let asleep = Instant::now();
    eventually("the second leads", async || second.mesh.is_leader()).await;
    println!(
        "another agent leads {:.1} s after the leader was last heard of",
        asleep.elapsed().as_secs_f64()
    );
    let service = async || etcd.get(SERVICE).await.pop().map(|(_, value)| value).unwrap_or_default();
    eventually("the second writes", async || service().await.contains("10.2.1.2")).await;
    let revision = etcd.versions(SERVICE).await;
    commands.send(()).unwrap();
    assert_eq!(answers.recv().await, Some(true), "it does not know that it was asleep");
    assert_eq!(answers.recv().await, Some(false));
    assert_eq!(etcd.versions(SERVICE).await, revision, "nothing was written in between");
    sleeper.join().unwrap();
}

#[tokio::test]
async fn unused_identities_and_keys_of_dead_agents_go() {
    let etcd = Etcd::start().await;
    let start = |node| {
        agent::Setup { lease_ttl: Duration::from_secs(3), ..setup("west", 2, node) }.start(Some(&etcd))
    };
    let (first, second) = (start(1).await, start(2).await);
    let (web, old) = (first.identity("web").await, first.identity("old").await);
    assert_eq!(second.identity("web").await, web);
    second.set_pods(&[("10.2.2.7", web)]);
    eventually("the pod is seen", async || first.seen().ips.contains_key("west/10.2.2.7/32")).await;
    first.mesh.release_identity(old).await;
    let key = |id: wire::Identity| format!("cilium/state/identities/v1/id/{}", id.0);
    eventually("the unused one is freed", async || etcd.get(&key(old)).await.is_empty()).await;
    assert_eq!(etcd.get(&key(web)).await.len(), 1);
    drop(second); // as if it was killed: it gives nothing back
    eventually("its keys end with their lease", async || {
        etcd.get("cilium/state/ip/v1/default/10.2.2.7").await.is_empty()
            && etcd.get("cilium/state/nodes/v1/west/n2").await.is_empty()
            && etcd.get("cilium/state/identities/v1/value/").await.len() == 1
    })
    .await;
    eventually("it is seen", async || !first.seen().nodes.contains("west/n2")).await;
    assert_eq!(etcd.get(&key(web)).await.len(), 1, "the first still uses it");
}

#[tokio::test]
async fn a_store_that_is_emptied_under_its_agents_is_filled_again() {
    let etcd = Etcd::start().await;
    let first = setup("west", 2, 1).start(Some(&etcd)).await;
    let second = setup("west", 2, 2).start(Some(&etcd)).await;
    let web = first.identity("web").await;
    first.set_pods(&[("10.2.1.5", web)]);
    for agent in [&first, &second] {
        agent.set_service("shop", "web", "10.2.1.5");
    }
    let keys = async || etcd.get("cilium/").await.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    // All but uses of identities, which nobody watches: they come back with their lease or within 5 minutes.
    let watched = async || {
        let mut keys = keys().await;
        keys.retain(|key| !key.contains("/identities/v1/value/"));
        keys
    };
    let wanted = [
        format!("cilium/state/identities/v1/id/{}", web.0),
        "cilium/.heartbeat".into(),
        SERVICE.into(),
        "cilium/synced/west/cilium/state/ip/v1".into(),
        "cilium/state/ip/v1/default/10.2.1.5".into(),
        "cilium/state/nodes/v1/west/n2".into(),
    ];
    let full = async || {
        let keys = keys().await;
        wanted.iter().all(|key| keys.contains(key))
    };
    eventually("it is full", full).await;
    eventually("nothing is pending", async || {
        let written = second.mesh.kvstore_status().written;
        let services = written.contains_key("services") == second.mesh.is_leader();
        let done = |kind: &WrittenStatus| kind.complete && kind.pending == 0;
        services && written.len() >= 2 && written.values().all(done)
    })
    .await;
    let before = watched().await;
    etcd.delete_below("cilium/").await;
    eventually("everything is back", async || {
        let now = watched().await;
        before.iter().all(|key| now.contains(key) || key.contains("heartbeat") || key.contains("leader"))
    })
    .await;
    eventually("somebody leads", async || first.mesh.is_leader() || second.mesh.is_leader()).await;
    etcd.revoke_all_leases().await;
    eventually("and after all leases were lost", async || {
        etcd.get("cilium/state/identities/v1/value/").await.len() == 1 && full().await
    })
    .await;
}

#[tokio::test]
async fn a_number_that_others_were_given_is_replaced() {
    let etcd = Etcd::start().await;
    let first = setup("west", 2, 1).start(Some(&etcd)).await;
    let lost = first.identity("web").await;
    let other = format!("{}k8s:team=other;", agent::labels("west", "web"));
    etcd.put(&format!("cilium/state/identities/v1/id/{}", lost.0), &other).await;
    eventually("another one is used", async || first.identity("web").await != lost).await;
    let new = first.identity("web").await;
    let uses = etcd.get(&format!("cilium/state/identities/v1/value/{}", agent::labels("west", "web"))).await;
    assert_eq!(uses.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), [new.0.to_string()]);
}

/// The agent shows that the store refuses something.
fn shows(agent: &agent::Agent, refusal: &str) -> bool {
    agent.mesh.conflicts().iter().any(|conflict| conflict.contains(refusal))
}

#[tokio::test]
async fn a_record_that_is_too_large_holds_nothing_up() {
    let etcd = Etcd::start_with(&["--max-request-bytes", "8192"]).await;
    let agent = setup("west", 2, 1).start(Some(&etcd)).await;
    let all: Vec<String> = (0..20_000).map(|i| format!("10.2.{}.{}", i / 250, i % 250)).collect();
    let backends = |count| all[..count].iter().map(String::as_str).collect::<Vec<_>>();
    // The second one is above what gRPC takes: another layer of etcd refuses it.
    let web: (&str, &[&str]) = ("web", &["10.2.1.1"]);
    agent.set_services("shop", &[("large", &backends(500)), ("larger", &backends(20_000)), web]);
    let services = async || etcd.get("cilium/state/services/").await.into_iter().map(|(key, _)| key);
    let key = |name: &str| format!("cilium/state/services/v1/west/shop/{name}");
    eventually("both refusals are shown", async || {
        shows(&agent, &key("large is refused")) && shows(&agent, &key("larger is refused"))
    })
    .await;
    eventually("canaries are written", async || etcd.get("cilium/synced/west/").await.len() == 4).await;
    eventually("the heartbeat is written", async || !etcd.get("cilium/.heartbeat").await.is_empty()).await;
    assert!(services().await.eq([key("web")]));
    let status = agent.mesh.kvstore_status();
    let written = &status.written["services"];
    assert!(status.connected && !written.complete && written.pending == 2, "{status:?}");

    agent.set_services("shop", &[("large", &backends(50)), web]);
    eventually("what has shrunk is written", async || services().await.eq([key("large"), key("web")])).await;
    eventually("all is written", async || agent.mesh.kvstore_status().written["services"].complete).await;
    assert_eq!(agent.mesh.conflicts(), [""; 0]);
}

#[tokio::test]
async fn a_full_store_is_read_and_deleted_from() {
    let mut etcd = Etcd::start().await;
    let first = setup("west", 2, 1).start(Some(&etcd)).await;
    let web = first.identity("web").await;
    first.set_pods(&[("10.2.1.5", web), ("10.2.1.6", web)]);
    eventually("the pods are published", async || etcd.get("cilium/state/ip/v1/").await.len() == 2).await;
    etcd.set_full(true).await;
    let second = setup("west", 2, 2).start(Some(&etcd)).await;
    eventually("what is there is read", async || {
        let seen = second.seen();
        seen.ips.contains_key("west/10.2.1.6/32") && seen.nodes.contains("west/n1")
    })
    .await;
    first.set_pods(&[("10.2.1.5", web), ("10.2.1.7", web)]);
    eventually("a pod is withdrawn", async || !second.seen().ips.contains_key("west/10.2.1.6/32")).await;
    let full = "takes no keys: etcdserver: mvcc: database space exceeded";
    for agent in [&first, &second] {
        eventually("the reason is shown", async || shows(agent, full)).await;
    }
    let mesh = second.mesh.clone();
    let db = tokio::spawn(async move { mesh.allocate_identity(&agent::labels("west", "db"), None).await });
    eventually("no identity is given", async || shows(&second, "no identity for 'k8s:app=db;")).await;

    etcd.kill();
    eventually("it is gone", async || !first.mesh.kvstore_status().connected).await;
    etcd.resume().await;
    for agent in [&first, &second] {
        eventually("it is read again", async || agent.mesh.kvstore_status().connected).await;
    }
    assert!(etcd.get("cilium/state/nodes/v1/west/n2").await.is_empty());
    etcd.set_full(false).await;
    eventually("all is written", async || {
        second.seen().ips.contains_key("west/10.2.1.7/32") && first.seen().nodes.contains("west/n2")
    })
    .await;
    eventually("somebody leads", async || first.mesh.is_leader() || second.mesh.is_leader()).await;
    assert!(db.await.unwrap().is_ok());
    for agent in [&first, &second] {
        eventually("nothing is refused", async || agent.mesh.conflicts().is_empty()).await;
    }
}
