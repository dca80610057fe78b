//! How connections to remote etcds fail, and are made again.

use super::agent::{Agent, Setup, setup};
use super::etcd::Etcd;
use super::eventually;
use super::relay::Relay;
use control::admin::{Own, State, Target, troubleshoot};
use control::mesh::operations;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

const HEARTBEAT: &str = "cilium/.heartbeat";

/// Writes what a cluster says of itself.
async fn introduce(etcd: &Etcd, id: u8) {
    etcd.put("cilium/cluster-config/west", &format!("{{\"id\":{id},\"capabilities\":{{}}}}")).await;
    etcd.put(HEARTBEAT, &format!("2026-11-22T05:16:{id:02}Z")).await;
}

/// Adds an address.
async fn add(etcd: &Etcd, id: u8, ip: &str) {
    let value = format!(r#"{{"IP":"{ip}","HostIP":"172.16.{id}.1","ID":{}}}"#, (u32::from(id) << 16) + 1);
    etcd.put(&format!("cilium/state/ip/v1/default/{ip}"), &value).await;
}

async fn remove(etcd: &Etcd, ip: &str) {
    etcd.delete(&format!("cilium/state/ip/v1/default/{ip}")).await;
}

/// An agent without an own etcd, which knows one address of west.
async fn agent(etcd: &Etcd, config: &str) -> Agent {
    agent_that_keeps(Duration::from_secs(600), etcd, config).await
}

/// One that keeps what it knows for so long.
async fn agent_that_keeps(ttl: Duration, etcd: &Etcd, config: &str) -> Agent {
    introduce(etcd, 2).await;
    add(etcd, 2, "10.2.1.1").await;
    let agent = Setup { grace: Duration::from_millis(200), ttl, ..setup("east", 1, 1) }.start(None).await;
    agent.join_by("west", config);
    knows(&agent, "10.2.1.1").await;
    eventually("it is ready", async || agent.ready("west")).await;
    agent
}

async fn knows(agent: &Agent, ip: &str) {
    eventually(ip, async || agent.seen().ips.contains_key(&format!("west/{ip}/32"))).await;
}

/// How often addresses were listed.
fn listings() -> u64 {
    let all = operations::durations();
    all.iter()
        .filter(|(operation, _)| operation.action == "ListPrefix" && operation.scope == "ip/v1")
        .map(|(_, durations)| durations.count)
        .sum()
}

#[tokio::test]
async fn a_watch_that_stalls_is_noticed_and_nothing_is_missed() {
    let etcd = Etcd::start().await;
    let relay = Relay::before(etcd.port()).await;
    let agent = agent(&etcd, &etcd.config_at(&[relay.port])).await;
    let watches = relay.busiest(async {
        let long = "x".repeat(64 << 10);
        let record = format!(r#"{{"IP":"10.2.1.3","HostIP":"172.16.2.1","ID":131073,"Metadata":"{long}"}}"#);
        etcd.put("cilium/state/ip/v1/default/10.2.1.3", &record).await;
        knows(&agent, "10.2.1.3").await;
    });
    let (watches, listed) = (watches.await, listings());
    relay.freeze(watches);
    add(&etcd, 2, "10.2.1.2").await;
    knows(&agent, "10.2.1.2").await;
    assert_eq!(agent.remote("west").unwrap().num_failures, 1);
    assert_eq!(listings(), listed, "it goes on where it was");
    assert_eq!(agent.seen().deleted, [""; 0]);
}

#[tokio::test]
async fn a_lost_connection_goes_on_where_it_was() {
    let mut etcd = Etcd::start().await;
    let agent = agent(&etcd, &etcd.config()).await;
    let listed = listings();
    etcd.kill();
    eventually("it is noticed", async || !agent.remote("west").unwrap().connected).await;
    etcd.resume().await;
    add(&etcd, 2, "10.2.1.2").await;
    remove(&etcd, "10.2.1.1").await;
    knows(&agent, "10.2.1.2").await;
    eventually("the address is gone", async || agent.seen().ips.len() == 1).await;
    assert_eq!(listings(), listed);
}

#[tokio::test]
async fn what_went_before_a_compaction_is_swept() {
    let etcd = Etcd::start().await;
    let relay = Relay::before(etcd.port()).await;
    let agent = agent(&etcd, &etcd.config_at(&[relay.port])).await;
    relay.cut(true);
    eventually("it is noticed", async || !agent.remote("west").unwrap().connected).await;
    add(&etcd, 2, "10.2.1.2").await;
    remove(&etcd, "10.2.1.1").await;
    etcd.compact().await;
    relay.cut(false);
    knows(&agent, "10.2.1.2").await;
    eventually("what is gone is swept", async || agent.seen().deleted == ["west/10.2.1.1/32"]).await;
}

#[tokio::test]
async fn a_watch_that_was_compacted_confirms_nothing() {
    let etcd = Etcd::start().await;
    let relay = Relay::before(etcd.port()).await;
    let canary = |kind| format!("cilium/synced/west/cilium/state/{kind}/v1");
    introduce(&etcd, 2).await;
    etcd.put("cilium/cluster-config/west", r#"{"id":2,"capabilities":{"syncedCanaries":true}}"#).await;
    for kind in ["nodes", "identities", "ip", "services"] {
        etcd.put(&canary(kind), "now").await;
    }
    add(&etcd, 2, "10.2.1.1").await;
    let [grace, ttl] = [200, 2000].map(Duration::from_millis);
    let agent = Setup { grace, ttl, ..setup("east", 1, 1) }.start(None).await;
    agent.join_by("west", &etcd.config_at(&[relay.port]));
    eventually("it is ready", async || agent.ready("west")).await;
    etcd.delete(&canary("ip")).await;
    // The heartbeat is still kept, what was seen of addresses is not.
    etcd.put(HEARTBEAT, "2026-11-22T05:17:00Z").await;
    let last = Some(etcd.revision().await);
    eventually("it is heard", async || agent.remote("west").unwrap().revision == last).await;
    etcd.compact().await;
    relay.cut(true);
    eventually("it is noticed", async || !agent.remote("west").unwrap().connected).await;
    relay.cut(false);
    // They cannot be listed without the canary, and so are forgotten in time.
    eventually("they are forgotten", async || agent.seen().deleted == ["west/10.2.1.1/32"]).await;
    etcd.put(&canary("ip"), "now").await;
    knows(&agent, "10.2.1.1").await;
}

#[tokio::test]
async fn a_store_that_has_lost_its_data_is_not_taken_for_the_one_before() {
    let mut etcd = Etcd::start().await;
    let agent = agent(&etcd, &etcd.config()).await;
    etcd.kill();
    eventually("it is noticed", async || !agent.remote("west").unwrap().connected).await;
    // As many changes as before and more, so that the old revision exists again.
    etcd.wipe();
    etcd.resume().await;
    for ip in ["10.2.1.2", "10.2.1.3", "10.2.1.4", "10.2.1.5"] {
        add(&etcd, 2, ip).await;
    }
    introduce(&etcd, 2).await;
    eventually("what is gone is swept", async || agent.seen().deleted == ["west/10.2.1.1/32"]).await;
    assert_eq!(agent.seen().ips.len(), 4);
}

#[tokio::test]
async fn a_store_that_has_lost_its_newest_data_is_listed() {
    let mut etcd = Etcd::start().await;
    let agent = agent(&etcd, &etcd.config()).await;
    etcd.kill();
    etcd.save();
    etcd.resume().await;
    add(&etcd, 2, "10.2.1.2").await;
    knows(&agent, "10.2.1.2").await;
    etcd.kill();
    eventually("it is noticed", async || !agent.remote("west").unwrap().connected).await;
    etcd.restore();
    etcd.resume().await;
    eventually("what is gone is swept", async || agent.seen().deleted == ["west/10.2.1.2/32"]).await;
}

#[tokio::test]
async fn what_cannot_be_confirmed_ages_whatever_else_answers() {
    let (one, two) = (Etcd::start().await, Etcd::start().await);
    let agent = agent_that_keeps(Duration::from_secs(2), &one, &one.config()).await;
    // It is there, but says nothing of itself.
    agent.join_by("west", &two.config());
    eventually("its services are stale", async || agent.seen().stale.contains("west")).await;
    eventually("it is forgotten", async || agent.seen().ips.is_empty()).await;
    let west = || agent.remote("west").unwrap();
    assert_eq!(west().num_cache_revocations, 1);
    eventually("it says why", async || west().status.contains("is not there yet")).await;
}

#[tokio::test]
async fn what_was_read_again_before_the_rest_came_too_late_is_read_once_more() {
    let mut etcd = Etcd::start().await;
    let ttl = Duration::from_secs(4);
    let agent = agent_that_keeps(ttl, &etcd, &etcd.config()).await;
    etcd.kill();
    etcd.wipe();
    etcd.resume().await;
    etcd.put("cilium/cluster-config/west", r#"{"id":2,"capabilities":{"syncedCanaries":true}}"#).await;
    for kind in ["nodes", "identities", "ip"] {
        etcd.put(&format!("cilium/synced/west/cilium/state/{kind}/v1"), "now").await;
    }
    add(&etcd, 2, "10.2.1.1").await;
    eventually("it is forgotten", async || agent.seen().deleted == ["west/10.2.1.1/32"]).await;
    knows(&agent, "10.2.1.1").await;
    assert!(!agent.ready("west"));
    etcd.put("cilium/synced/west/cilium/state/services/v1", "now").await;
    eventually("it is ready", async || agent.ready("west") && agent.seen().stale.is_empty()).await;
}

#[tokio::test]
async fn a_store_that_refuses_watches_is_forgotten() {
    let mut etcd = Etcd::start_with_passwords("reader", "secret").await;
    let agent = agent_that_keeps(Duration::from_secs(4), &etcd, &etcd.config()).await;
    etcd.allow_only("reader", &["cilium/.heartbeat", "cilium/cluster-config/"]).await;
    etcd.kill();
    etcd.spawn();
    eventually("it says why", async || agent.remote("west").unwrap().status.contains("watch refused: "))
        .await;
    eventually("it is forgotten", async || agent.seen().ips.is_empty()).await;
}

#[tokio::test]
async fn another_cluster_under_the_same_name_replaces_the_one_before() {
    let mut etcd = Etcd::start().await;
    let agent = agent(&etcd, &etcd.config()).await;
    etcd.wipe();
    etcd.resume().await;
    introduce(&etcd, 5).await;
    add(&etcd, 5, "10.5.1.1").await;
    knows(&agent, "10.5.1.1").await;
    assert_eq!(agent.seen().deleted, ["west/10.2.1.1/32"]);
    assert_eq!(agent.remote("west").unwrap().cluster_id, Some(5));
}

#[tokio::test]
async fn a_cluster_of_a_mesh_of_511_is_refused_wherever_one_looks() {
    let etcd = Etcd::start().await;
    etcd.put(HEARTBEAT, "2026-11-22T05:16:00Z").await;
    etcd.put("cilium/cluster-config/west", r#"{"id":2,"capabilities":{"maxConnectedClusters":511}}"#).await;
    add(&etcd, 2, "10.2.1.1").await;
    let agent = setup("east", 1, 1).start(None).await;
    agent.join_by("west", &etcd.config());
    let why = "cluster west has maxConnectedClusters 511";
    eventually("it says why", async || agent.remote("west").is_some_and(|west| west.status.contains(why)))
        .await;
    assert!(agent.mesh.conflicts().iter().any(|conflict| conflict.starts_with(why)));
    assert!(agent.seen().ips.is_empty());

    let file = agent.dir.path().join("mesh/west");
    let (targets, own) = ([Target { cluster: "west".into(), file }], Own::default());
    let mut failed = Vec::new();
    let reports = troubleshoot(&targets, &own, |_, step| {
        if step.state == State::Failed {
            failed.push((step.name, step.detail.clone(), step.fix.clone().unwrap_or_default()));
        }
    })
    .await;
    assert!(!reports[0].ok);
    let [(name, detail, fix)] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(*name, "cluster-config");
    assert!(detail.starts_with(why) && detail.contains("--max-connected-clusters=255"), "{detail}");
    assert!(fix.contains("cluster west"), "{fix}");
}

#[tokio::test]
async fn a_majority_is_needed_and_any_member_will_do() {
    let mut members = Etcd::start_cluster().await;
    let ports = members.each_ref().map(Etcd::port);
    let agent = agent(&members[0], &members[0].config_at(&ports)).await;
    let errors = || operations::quorum_errors().values().sum::<u64>();
    // One that is gone is no matter, whichever it is.
    for gone in 0..3 {
        members[gone].kill();
        let ip = format!("10.2.2.{gone}");
        let other = &members[(gone + 1) % 3];
        eventually("the others have a leader", async || other.answers().await).await;
        add(other, 2, &ip).await;
        knows(&agent, &ip).await;
        members[gone].spawn();
        eventually("it is back", async || members[gone].answers().await).await;
    }
    eventually("it is ready", async || agent.ready("west")).await;
    let before = errors();
    members[0].kill();
    members[1].kill();
    eventually("the majority is missed", async || agent.seen().stale.contains("west")).await;
    assert!(!agent.remote("west").unwrap().connected);
    eventually("it is counted", async || errors() > before).await;
    members[0].spawn();
    eventually("it is back", async || agent.ready("west") && agent.seen().stale.is_empty()).await;
    assert_eq!(agent.seen().deleted, [""; 0]);
}

#[tokio::test]
async fn tokens_that_end_are_renewed() {
    let mut etcd = Etcd::start_with_passwords("reader", "secret").await;
    let agent = agent(&etcd, &etcd.config()).await;
    etcd.tokens_end().await;
    add(&etcd, 2, "10.2.1.2").await;
    knows(&agent, "10.2.1.2").await;
    etcd.kill();
    eventually("it is noticed", async || !agent.remote("west").unwrap().connected).await;
    etcd.resume().await;
    eventually("it is back", async || agent.ready("west")).await;
    assert_eq!(agent.seen().deleted, [""; 0]);
    agent.join_by("west", &etcd.config().replace("secret", "wrong"));
    eventually("it says why", async || {
        agent.remote("west").unwrap().status.contains("invalid user ID or password")
    })
    .await;
}

#[tokio::test]
async fn renewed_certificates_are_taken_into_use() {
    let etcd = Etcd::start().await;
    let relay = Relay::before(etcd.port()).await;
    etcd.pki().issue("client", 2040);
    let agent = agent(&etcd, &etcd.config_at(&[relay.port])).await;
    let ends =
        || agent.remote("west").unwrap().certificates.into_iter().map(|c| c.expires).collect::<Vec<_>>();
    assert_eq!(ends()[1], "2040-01-01T00:00:00Z");
    let connections = relay.accepted();
    etcd.pki().issue("client", 2045);
    eventually("it is used", async || relay.accepted() == connections + 2 && agent.ready("west")).await;
    assert_eq!(ends()[1], "2045-01-01T00:00:00Z");
    assert_eq!(agent.remote("west").unwrap().num_failures, 0);
    assert_eq!(agent.seen().deleted, [""; 0]);
    etcd.pki().issue("client", 2020);
    eventually("it says why", async || {
        let west = agent.remote("west").unwrap();
        !west.connected && west.certificates[1].expires_in_seconds < 0
    })
    .await;
    etcd.pki().issue("client", 2050);
    eventually("it is back", async || agent.ready("west")).await;
}

/// Mounts files as Kubernetes does: by links over a link that is replaced as a whole.
fn mount(directory: &Path, generation: &str, files: &[(&str, &str)]) {
    let data = directory.join(generation);
    fs::create_dir(&data).unwrap();
    for (name, text) in files {
        fs::write(data.join(name), text).unwrap();
    }
    let new = directory.join("..data_tmp");
    symlink(generation, &new).unwrap();
    fs::rename(&new, directory.join("..data")).unwrap();
    for (name, _) in files {
        let _ = symlink(format!("..data/{name}"), directory.join(name));
    }
    for link in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if link.is_symlink() && !link.exists() {
            fs::remove_file(link).unwrap();
        }
    }
}

#[tokio::test]
async fn a_mounted_secret_is_followed() {
    let (one, two) = (Etcd::start().await, Etcd::start().await);
    let agent = setup("east", 1, 1).start(None).await;
    let directory = agent.dir.path().join("mesh");
    introduce(&one, 2).await;
    add(&one, 2, "10.2.1.1").await;
    mount(&directory, "..1", &[("west", &one.config()), ("east", &two.config()), ("ca.crt", "none")]);
    knows(&agent, "10.2.1.1").await;
    // Another etcd of the same cluster: what both have stays throughout.
    introduce(&two, 2).await;
    add(&two, 2, "10.2.1.1").await;
    add(&two, 2, "10.2.1.2").await;
    mount(&directory, "..2", &[("west", &two.config()), ("Bad_Name", &one.config())]);
    knows(&agent, "10.2.1.2").await;
    assert_eq!(agent.seen().deleted, [""; 0]);
    eventually("the bad name is reported", async || {
        agent.mesh.conflicts().iter().any(|conflict| conflict.contains("'Bad_Name'"))
    })
    .await;
    mount(&directory, "..3", &[("north", &two.config())]);
    eventually("west is forgotten", async || agent.seen().ips.is_empty()).await;
    // It may be configured again before that is seen to have happened.
    mount(&directory, "..4", &[("west", &two.config())]);
    knows(&agent, "10.2.1.2").await;
    eventually("only west is left", async || {
        agent.mesh.remote_status().iter().map(|remote| remote.name.as_str()).eq(["west"])
            && agent.mesh.conflicts().is_empty()
    })
    .await;
}
