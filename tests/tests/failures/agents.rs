//! Agents are killed, and their clocks are wrong.

use crate::mesh::{GLOBAL, Mesh, Whose, has, identity_key, keys_of, knows, lives_on, row};
use std::fs;
use std::time::{Instant, SystemTime};
use tests::etcd::Etcd;
use tests::manifests::service;
use tests::reach::ALL;
use tests::{Node, World, eventually};

/// The shortest that agents take.
const TERM: &str = "25s";

/// The node of cluster 1 whose agent publishes for it, of these.
fn publisher(world: &World, nodes: &[usize]) -> usize {
    let leads =
        |&&node: &&usize| world.node(1, node).cli.json("status")["control"]["kvstore"]["leader"] == true;
    eventually("one of them publishes", || match nodes.iter().filter(leads).collect::<Vec<_>>()[..] {
        [one] => Ok(*one),
        ref leaders => Err(format!("{leaders:?}")),
    })
}

#[test]
fn what_a_killed_agent_wrote_ends_with_its_leases_and_another_publishes() {
    let mut world = World::lay(&[2, 1]);
    world.clusters[0].nodes.iter_mut().for_each(|node| node.replace_flag("--kvstore-lease-ttl", TERM));
    world.start();
    let (etcd, far) = (world.cluster(1).etcd(), world.node(2, 1));
    let killed = publisher(&world, &[1, 2]);
    let (node, other) = (world.node(1, killed), world.node(1, 3 - killed));
    let pods = [node.pod("default/alone", "app=alone"), node.pod("default/one", "app=both")];
    let both = other.pod("default/two", "app=both");
    let identities = || pods.each_ref().map(tests::Pod::identity);
    let before = identities();
    let record = format!("cilium/state/nodes/v1/cluster1/{}", node.name);
    let own: Vec<_> = pods.iter().flat_map(|pod| keys_of(pod)[..2].to_vec()).chain([record]).collect();
    has(etcd, &own, true);
    let addresses = pods.each_ref().map(tests::Pod::addresses).concat();
    [far, other].iter().for_each(|node| knows(node, &addresses, true));

    let begun = Instant::now();
    node.kill();
    assert_eq!(publisher(&world, &[3 - killed]), 3 - killed);
    row("publisher killed", None, begun.elapsed());
    world.cluster(1).apply("web.yaml", &service("web", 10, GLOBAL));
    has(etcd, &["cilium/state/services/v1/cluster1/default/web".into()], true);
    let name = |node: &Node| format!("{}/{}", world.cluster(1).name, node.name);
    [far, other].iter().for_each(|others| knows(others, &addresses, false));
    row(&format!("agent killed and not started again, leases of {TERM}"), None, begun.elapsed());
    has(etcd, &own, false);
    for others in [far, other] {
        eventually("the node is gone", || match others.cli.show("node list") {
            list if list.contains(&name(node)) => Err(list),
            _ => Ok(()),
        });
        knows(others, both.addresses(), true);
    }
    has(etcd, &[identity_key(before[1])], true);

    node.start();
    assert_eq!(identities(), before);
    has(etcd, &own, true);
    has(etcd, &before.map(identity_key), true);
    [far, other].iter().for_each(|node| knows(node, &addresses, true));
    let _server = pods[0].serve(8080, "alone");
    both.reaches(pods[0].addresses(), 8080, "alone", ALL);
}

/// Seconds that are left of the lease of a key.
fn left(etcd: &Etcd, key: &str) -> i64 {
    let ask = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&etcd.ctl(words).unwrap()).expect("JSON")
    };
    let lease = ask(&["get", key, "-w", "json"])["kvs"][0]["lease"].as_i64().expect("a lease");
    ask(&["lease", "timetolive", &format!("{lease:x}"), "-w", "json"])["ttl"].as_i64().expect("a term")
}

/// When the heartbeat was written, by the clock of who wrote it: seconds from now.
fn heartbeat(etcd: &Etcd) -> Option<i64> {
    let text = etcd.ctl(&["get", "cilium/.heartbeat", "--print-value-only"]).unwrap();
    let seconds = |time: &str| -> Option<i64> {
        let mut date = std::process::Command::new("date");
        tests::command::output(date.args(["-u", "+%s", "-d", time])).ok()?.trim().parse().ok()
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("later than 1970").as_secs();
    Some(seconds(text.trim()).filter(|_| !text.is_empty())? - now.cast_signed())
}

/// The agents believe a clock that is put an hour forward, then two hours back.
#[test]
fn clocks_that_jump_only_show_in_what_is_written() {
    let mut world = World::lay(&[1, 1]);
    let clock = world.dir().join("clock");
    fs::write(&clock, "+0").unwrap();
    for node in world.clusters.iter_mut().flat_map(|cluster| &mut cluster.nodes) {
        node.set_env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1");
        node.set_env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string());
        node.set_env("FAKETIME_NO_CACHE", "1");
        node.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        node.replace_flag("--kvstore-lease-ttl", TERM);
    }
    world.start();
    let mut mesh = Mesh::within(world);
    for (jump, by) in [("+3600", 3600), ("-3600", -3600)] {
        fs::write(&clock, jump).unwrap();
        mesh.all_is_well(jump);
        let node = "cilium/state/nodes/v1/cluster1/node1";
        let mut before = left(mesh.etcd(Whose::Own), node);
        eventually("the lease is renewed", || {
            let now = left(mesh.etcd(Whose::Own), node);
            if now > std::mem::replace(&mut before, now) { Ok(()) } else { Err(now) }
        });
        // Failures are noticed and mended as ever, and whoever connects writes the time.
        for whose in [Whose::Own, Whose::Remote] {
            mesh.etcd(whose).kill();
            mesh.sees(whose, false, Instant::now());
            mesh.all_is_well("without it");
            mesh.etcd(whose).start();
            mesh.sees(whose, true, Instant::now());
            mesh.all_is_well("with it again");
            eventually("the heartbeat has the new time", || {
                let from_now = heartbeat(mesh.etcd(whose));
                if from_now.is_some_and(|seconds| seconds.abs_diff(by) < 600) {
                    Ok(())
                } else {
                    Err(format!("{from_now:?}"))
                }
            });
        }
        let remote = &mesh.near().cli.json("status")["control"]["remotes"][0];
        let contact = remote["last-contact-seconds"].as_u64();
        assert!(contact.is_some_and(|ago| ago < 600), "{remote:#}");
        assert_eq!(remote["num-cache-revocations"], 0, "{remote:#}");
    }
    // What was learned is as old for the next run as it is.
    [1, 2].iter().for_each(|number| mesh.world.cluster(*number).etcd().kill());
    mesh.near().kill();
    fs::write(&clock, "+86400").unwrap();
    mesh.near().launch(&[]);
    lives_on(mesh.near());
    knows(mesh.near(), mesh.server.addresses(), true);
    mesh.all_is_well("after the restart");
}
