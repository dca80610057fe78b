//! The etcd of either cluster fails, or comes back other than it was.

use crate::mesh::{Mesh, Whose, has, identity_key, identity_of, is_right, keys_of, knows, row};
use nix::sys::signal::Signal;
use std::net::IpAddr;
use std::time::Instant;
use tests::etcd::Etcd;
use tests::reach::ALL;
use tests::{Pod, eventually, eventually_true};

/// An etcd fails and comes back; nothing that need not breaks meanwhile.
fn fails(whose: Whose, members: usize, what: &str, fail: impl Fn(&Etcd), repair: impl Fn(&Etcd)) {
    let mut mesh = Mesh::of(members);
    let begun = Instant::now();
    fail(mesh.etcd(whose));
    let noticed = mesh.sees(whose, false, begun);
    mesh.all_is_well("while it is away");
    // A pod with labels of others need not wait for its store.
    let born = (whose == Whose::Own).then(|| mesh.near().pod("default/born", ""));
    let begun = Instant::now();
    repair(mesh.etcd(whose));
    let recovered = mesh.sees(whose, true, begun);
    mesh.all_is_well("when it is back");
    row(&format!("{whose:?} etcd {what}"), Some(noticed), recovered);
    is_in_use(&mesh, whose, born);
}

/// The etcd is really read and written: of pods that are new in its cluster the other one hears.
fn is_in_use(mesh: &Mesh, whose: Whose, born: Option<Pod>) {
    let (node, peer, others) = match whose {
        Whose::Own => (mesh.near(), &mesh.server, mesh.far()),
        Whose::Remote => (mesh.far(), &mesh.client, mesh.near()),
    };
    let late = node.pod("default/late", "app=late");
    let _late = late.serve(8080, "late");
    peer.reaches(late.addresses(), 8080, "late", ALL);
    for pod in born.iter().chain([&late]) {
        has(mesh.etcd(whose), &keys_of(pod), true);
        knows(others, pod.addresses(), true);
    }
}

#[test]
fn an_etcd_is_killed() {
    for whose in [Whose::Remote, Whose::Own] {
        fails(whose, 1, "killed", Etcd::kill, Etcd::start);
    }
}

#[test]
fn an_etcd_is_frozen() {
    for whose in [Whose::Remote, Whose::Own] {
        fails(whose, 1, "frozen", Etcd::freeze, Etcd::thaw);
    }
}

#[test]
fn an_etcd_loses_its_quorum() {
    for whose in [Whose::Remote, Whose::Own] {
        fails(whose, 3, "without quorum", |etcd| etcd.kill_members(2), Etcd::start);
    }
}

#[test]
fn an_etcd_of_three_loses_one() {
    for whose in [Whose::Remote, Whose::Own] {
        let mut mesh = Mesh::of(3);
        let begun = Instant::now();
        mesh.etcd(whose).kill_members(1);
        mesh.all_is_well("with two of three");
        mesh.sees(whose, true, begun);
        is_in_use(&mesh, whose, None);
    }
}

#[test]
fn an_etcd_comes_back_empty() {
    for whose in [Whose::Remote, Whose::Own] {
        let mut mesh = Mesh::of(1);
        let (identity, client) = (mesh.server.identity(), mesh.client.identity());
        let begun = Instant::now();
        mesh.etcd(whose).wipe();
        mesh.etcd(whose).start();
        // All the while it is being filled again.
        let keys = keys_of(if whose == Whose::Remote { &mesh.server } else { &mesh.client });
        eventually("it is filled again", || {
            mesh.all_is_well("while it is filled");
            let found = mesh.etcd(whose).keys("cilium/state/");
            if keys.iter().all(|key| found.contains(key)) { Ok(()) } else { Err(found.join("\n")) }
        });
        let recovered = mesh.sees(whose, true, begun);
        mesh.all_is_well("when it is filled");
        assert_eq!([mesh.server.identity(), mesh.client.identity()], [identity, client]);
        row(&format!("{whose:?} etcd emptied and restarted"), None, recovered);
    }
}

#[test]
fn an_etcd_is_compacted_behind_our_back() {
    for whose in [Whose::Remote, Whose::Own] {
        let mut mesh = Mesh::of(1);
        let etcd = mesh.etcd(whose);
        // The store goes away while the agent cannot see it, and what it missed is not kept.
        mesh.near().signal(Signal::SIGSTOP);
        let address: IpAddr = "10.70.1.200".parse().unwrap();
        let record =
            format!(r#"{{"IP":"{address}","Mask":null,"HostIP":"10.0.2.1","ID":2,"Key":0,"Metadata":""}}"#);
        etcd.ctl(&["put", &format!("cilium/state/ip/v1/default/{address}"), &record]).unwrap();
        (0..20).for_each(|n| _ = etcd.ctl(&["put", "unrelated", &n.to_string()]).unwrap());
        let answer = etcd.ctl(&["get", "unrelated", "-w", "json"]).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        etcd.kill();
        etcd.start();
        etcd.ctl(&["compact", &answer["header"]["revision"].to_string()]).unwrap();
        let begun = Instant::now();
        mesh.near().signal(Signal::SIGCONT);
        knows(mesh.near(), [address], true);
        mesh.sees(whose, true, begun);
        row(&format!("{whose:?} etcd compacted"), None, begun.elapsed());
        mesh.all_is_well("after the compaction");
    }
}

#[test]
fn a_remote_etcd_comes_back_with_fewer_keys() {
    let mut mesh = Mesh::of(1);
    let gone = mesh.far().pod("default/gone", "");
    knows(mesh.near(), gone.addresses(), true);
    mesh.etcd(Whose::Remote).kill();
    mesh.sees(Whose::Remote, false, Instant::now());
    gone.delete();
    knows(mesh.near(), gone.addresses(), true);
    let begun = Instant::now();
    mesh.etcd(Whose::Remote).start();
    knows(mesh.near(), gone.addresses(), false);
    row("Remote etcd back with fewer keys", None, begun.elapsed());
    mesh.all_is_well("without the one that went");
}

#[test]
fn an_etcd_is_restored_from_a_backup_at_first_the_wrong_one() {
    let mut mesh = Mesh::of(1);
    let backups = ["own", "theirs"].map(|name| mesh.world.dir().join(name));
    let early = mesh.near().pod("default/early", "app=early");
    knows(mesh.far(), early.addresses(), true);
    for (whose, backup) in [Whose::Own, Whose::Remote].into_iter().zip(&backups) {
        mesh.etcd(whose).snapshot(backup);
    }
    let address_keys = |pod: &Pod| keys_of(pod)[..2].to_vec();
    let gone = address_keys(&early);
    early.delete();
    let late = mesh.near().pod("default/late", "app=late");
    knows(mesh.far(), early.addresses(), false);
    knows(mesh.far(), late.addresses(), true);
    let (identity, keys) = (late.identity(), keys_of(&late));
    // Neither cluster may take it for another pod meanwhile, or for none.
    let is_late = |mesh: &Mesh| {
        let known = [mesh.near(), mesh.far()].map(|node| identity_of(node, late.ipv4.into()));
        assert_eq!(known, [Some(identity); 2]);
    };

    let restore = |mesh: &Mesh, backup| {
        mesh.etcd(Whose::Own).restore(backup);
        mesh.etcd(Whose::Own).start();
    };
    restore(&mesh, &backups[1]);
    mesh.says(mesh.near(), "this store belongs to cluster cluster2 (id 102), not to cluster1");
    mesh.all_is_well("with the store of another cluster");
    is_late(&mesh);
    let found = mesh.etcd(Whose::Own).keys("cilium/");
    let ours = |key: &&String| key.contains("cluster1") || keys.contains(key);
    assert_eq!(found.iter().filter(ours).collect::<Vec<_>>(), [""; 0]);

    let begun = Instant::now();
    restore(&mesh, &backups[0]);
    eventually("what is newer than the backup is back, and nothing older", || {
        mesh.all_is_well("while the store catches up");
        is_late(&mesh);
        let found = mesh.etcd(Whose::Own).keys("cilium/");
        let there = |key: &String| found.contains(key);
        if keys.iter().all(there) && !gone.iter().any(there) { Ok(()) } else { Err(found.join("\n")) }
    });
    row("Own etcd back with fewer keys", None, begun.elapsed());
    mesh.sees(Whose::Own, true, begun);
    is_right(mesh.world.cluster(1));
    mesh.far().ready();
    is_late(&mesh);
    assert_eq!(late.identity(), identity);
    mesh.all_is_well("at the end");
}

#[test]
fn an_etcd_comes_back_as_that_of_another_cluster_of_the_same_name() {
    let mut mesh = Mesh::of(1);
    let (etcd, identity) = (mesh.etcd(Whose::Remote), mesh.server.identity());
    let put = |key: &str, value: &str| _ = etcd.ctl(&["put", key, value]).unwrap();
    let new = 77 << 16;
    // Nobody of the old one may be there first.
    mesh.far().signal(Signal::SIGSTOP);
    etcd.wipe();
    etcd.start();
    put("cilium/cluster-config/cluster2", r#"{"id":77,"capabilities":{}}"#);
    put("cilium/.heartbeat", "2026-01-01T00:00:00Z");
    put(&identity_key(new), "k8s:app=new;k8s:io.cilium.k8s.policy.cluster=cluster2;");
    let (before, begun) = (etcd.keys(""), Instant::now());
    mesh.far().signal(Signal::SIGCONT);
    eventually("the new cluster replaces the old one", || {
        let list = mesh.near().cli.show("identity list");
        let has = |identity: u64| list.contains(&identity.to_string());
        if has(new) && !has(identity) { Ok(()) } else { Err(list) }
    });
    knows(mesh.near(), mesh.server.addresses(), false);
    row("Remote etcd replaced by that of another cluster", None, begun.elapsed());
    for address in mesh.server.addresses() {
        eventually_true("the way there is gone", || mesh.client.ping(address, "").is_err());
    }
    mesh.client.is_kept_from(mesh.server.addresses(), 8080, ALL);

    // To the old one's own agents it is not theirs to write, whatever it is called.
    mesh.says(mesh.far(), "this store belongs to cluster cluster2 with id 77, not 102");
    assert_eq!(etcd.keys(""), before);
    assert_eq!(mesh.server.identity(), identity);
    etcd.wipe();
    etcd.start();
    mesh.near().ready();
    mesh.far().ready();
    mesh.client.reaches(mesh.server.addresses(), 8080, "server", ALL);
    knows(mesh.near(), mesh.server.addresses(), true);
    mesh.sees(Whose::Remote, true, Instant::now());
    mesh.all_is_well("in the end");
}
