//! What an agent learned outlives it.

use super::agent::{self, Agent, setup};
use super::etcd::Etcd;
use super::{eventually, pair};
use std::path::Path;
use std::time::Duration;

/// East as in [`pair`], restarted while neither etcd answers.
async fn restart(east: Agent, etcds: [&mut Etcd; 2], ttl: Duration, meanwhile: impl FnOnce(&Path)) -> Agent {
    let [one, two] = etcds;
    east.mesh.shutdown().await;
    two.kill();
    one.kill();
    meanwhile(&east.dir.path().join("mesh"));
    let setup = agent::Setup { grace: Duration::from_millis(200), ttl, ..setup("east", 1, 1) };
    let east = setup.start_in(east.dir, Some(one)).await;
    eventually("what was known is in", async || east.seen().restored).await;
    east
}

#[tokio::test]
async fn a_restarted_agent_knows_what_it_knew_until_stores_say_otherwise() {
    let (mut one, mut two) = (Etcd::start().await, Etcd::start().await);
    let ttl = Duration::from_secs(600);
    let [east, west] = pair([&one, &two], Duration::from_secs(300), ttl).await;
    east.set_pods(&[("10.1.1.5", east.identity("cache").await)]);
    eventually("east knows its own", async || east.seen().ips.contains_key("east/10.1.1.5/32")).await;
    let before = east.seen().clone();
    let east = restart(east, [&mut one, &mut two], ttl, |_| {}).await;
    {
        let seen = east.seen();
        assert_eq!((&seen.nodes, &seen.identities), (&before.nodes, &before.identities));
        assert_eq!((&seen.ips, &seen.services), (&before.ips, &before.services));
        assert!(seen.synced.is_empty(), "nothing of it is confirmed");
    }
    let remote = || east.remote("west").unwrap();
    eventually("both say so", async || {
        let texts = [remote().status, east.mesh.kvstore_status().status];
        texts.iter().all(|text| text.contains("what is known is of an earlier run"))
            && east.mesh.lives_on_restored()
    })
    .await;
    assert!(!remote().ready && remote().num_endpoints == 2);
    eventually("backends are a last resort", async || east.seen().stale.contains("west")).await;
    // One pod goes before anybody can be told.
    west.set_pods(&[("10.2.1.5", west.identity("web").await)]);
    two.resume().await;
    one.resume().await;
    eventually("all is confirmed", async || {
        let seen = east.seen();
        east.ready("west")
            && east.mesh.kvstore_status().connected
            && seen.stale.is_empty()
            && !seen.ips.contains_key("west/10.2.1.6/32")
    })
    .await;
    // Its own pod is not among those it was started with, and goes some time later.
    let others: Vec<_> =
        east.seen().deleted.iter().filter(|gone| *gone != "east/10.1.1.5/32").cloned().collect();
    assert_eq!(others, ["west/10.2.1.6/32"]);
    assert!(!east.mesh.lives_on_restored() && !remote().status.contains("earlier run"));
}

#[tokio::test]
async fn numbers_stay_taken_when_the_store_comes_back_empty() {
    let (mut one, mut two) = (Etcd::start().await, Etcd::start().await);
    let east = setup("east", 1, 1).start(Some(&one)).await;
    let web = east.identity("web").await;
    eventually("it is learned", async || east.seen().identities.contains_key(&web.0)).await;
    let east = restart(east, [&mut one, &mut two], Duration::from_secs(600), |_| {}).await;
    one.wipe();
    one.resume().await;
    let other = east.mesh.allocate_identity(&agent::labels("east", "other"), Some(web)).await.unwrap();
    assert_ne!(other, web, "it was told that this is free");
    assert_eq!(east.identity("web").await, web);
}

#[tokio::test]
async fn what_is_too_old_or_no_longer_configured_is_not_used() {
    let (mut one, mut two) = (Etcd::start().await, Etcd::start().await);
    let ttl = Duration::from_secs(600);
    let [east, _west] = pair([&one, &two], Duration::from_secs(300), ttl).await;
    let east = restart(east, [&mut one, &mut two], Duration::ZERO, |_| {}).await;
    assert!(east.seen().nodes.contains("west/n1"), "zero is for ever");
    let east = restart(east, [&mut one, &mut two], Duration::from_nanos(1), |_| {}).await;
    assert!(east.seen().ips.is_empty() && !east.seen().nodes.contains("west/n1"), "{:?}", east.seen());
    assert!(east.seen().nodes.contains("east/n1"), "the own cluster's records do not age");
    one.resume().await;
    two.resume().await;
    eventually("all is learned again", async || east.ready("west")).await;

    let rename = |from, to| move |mesh: &Path| std::fs::rename(mesh.join(from), mesh.join(to)).unwrap();
    let east = restart(east, [&mut one, &mut two], ttl, rename("west", "../aside")).await;
    assert!(!east.seen().nodes.contains("west/n1"));
    let east = restart(east, [&mut one, &mut two], ttl, rename("../aside", "west")).await;
    assert!(!east.seen().nodes.contains("west/n1"), "it was dropped for good");

    one.resume().await;
    two.resume().await;
    eventually("all is learned again", async || east.ready("west")).await;
    east.leave("west");
    eventually("west is forgotten", async || east.remote("west").is_none() && east.seen().ips.is_empty())
        .await;
    let west = two.config();
    let again = move |mesh: &Path| std::fs::write(mesh.join("west"), west).unwrap();
    let east = restart(east, [&mut one, &mut two], ttl, again).await;
    let status = east.remote("west").unwrap().status;
    assert!(!status.contains("earlier run"), "{status}");
}
