//! What agents write into etcd, read by the checker; and the checker, tried on what real Cilium
//! programs wrote and on what nobody should.

use std::fs;
use std::path::Path;
use tests::checker::Dump;
use tests::manifests::service;
use tests::{World, eventually};

/// Stores as Cilium's own exporter wrote them, with the cluster whose they are.
fn recorded() -> Vec<(String, &'static str, Dump)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control/tests/fixtures");
    let mut found = Vec::new();
    for (run, cluster) in
        [("alpha", "alpha"), ("alpha-1.18", "alpha"), ("gamma", "gamma"), ("delta", "delta")]
    {
        let path = root.join(format!("{run}.source.json"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let stages = Dump::recorded(&text).into_iter();
        found.extend(stages.map(|(stage, dump)| (format!("{run} {stage}"), cluster, dump)));
    }
    assert!(found.len() > 40, "{} dumps", found.len());
    found
}

/// The exporter names what Kubernetes knew, also pods whose identity is gone or not there yet and
/// nodes that went before their pods.
fn only_in_recordings(fault: &str) -> bool {
    ["is missing", "is no node of the cluster", "is younger"].iter().any(|end| fault.ends_with(end))
        && fault.contains("cilium/state/ip/")
}

#[test]
fn what_cilium_wrote_is_right() {
    for (stage, cluster, dump) in recorded() {
        let faults: Vec<_> =
            dump.faults(cluster).into_iter().filter(|fault| !only_in_recordings(fault)).collect();
        assert_eq!(faults, [""; 0], "{stage}");
    }
}

#[test]
fn what_is_wrong_is_found() {
    let (_, cluster, dump) =
        recorded().into_iter().find(|(name, ..)| name == "alpha 01-initial").expect("it");
    let changed = |key: &str, from: &str, to: &str| {
        let mut dump = dump.clone();
        let entry = dump.entries.get_mut(key).unwrap_or_else(|| panic!("{key}"));
        let text = String::from_utf8(entry.value.clone()).expect("text");
        assert!(text.contains(from), "{key}: {text}");
        entry.value = text.replacen(from, to, 1).into();
        dump.faults(cluster)
    };
    let (ip, node) = ("cilium/state/ip/v1/default/10.7.1.31", "cilium/state/nodes/v1/alpha/alpha-n1");
    let (web, id) = ("cilium/state/services/v1/alpha/shop/web", "cilium/state/identities/v1/id/458753");
    let table = [
        (ip, r#""Mask":null,"#, ""),
        (ip, r#""ID":458753"#, r#""ID":"458753""#),
        (ip, r#""ID":458753"#, r#""ID":400000"#),
        (ip, r#""ID":458753"#, r#""ID":458999"#),
        (ip, r#""IP":"10.7.1.31""#, r#""IP":"10.7.1.30""#),
        (ip, "172.20.7.11", "172.20.7.99"),
        (ip, r#""Mask":null"#, r#""Mask": null"#),
        (ip, r#""K8sNamespace":"shop""#, r#""K8sNamespace":"""#),
        (ip, r#""Key":3,"Metadata":"""#, r#""Metadata":"","Key":3"#),
        (ip, r#""Port":8080"#, r#""Port":80800"#),
        (node, r#""ClusterID":7"#, r#""ClusterID":8"#),
        (node, r#""Name":"alpha-n1""#, r#""Name":"n1""#),
        (node, "////AA==", "//8A/w=="),
        (node, r#""IP":"172.20.7.11""#, r#""IP":"172.20.7""#),
        (node, r#""Annotations""#, r#""annotations""#),
        (web, r#""Protocol":"TCP""#, r#""Protocol":"tcp""#),
        (web, r#""clusterID":7"#, r#""clusterID":0"#),
        (web, r#""name":"web""#, r#""name":"w<b""#),
        (web, "10.7.1.31", "10.7.1"),
        (id, "k8s:app=web;k8s:io", "k8s:zpp=web;k8s:io"),
        (id, "cluster=alpha", "cluster=beta"),
        (id, "tier=front;", "tier=front"),
        ("cilium/cluster-config/alpha", r#""id":7"#, r#""id":0"#),
        (
            "cilium/cluster-config/alpha",
            r#""syncedCanaries":true,"maxConnectedClusters":255"#,
            r#""maxConnectedClusters":255,"syncedCanaries":true"#,
        ),
        ("cilium/synced/alpha/cilium/state/ip/v1", "T", " "),
    ];
    for (key, from, to) in table {
        assert_ne!(changed(key, from, to), [""; 0], "{key}: {from} -> {to}");
    }
    let without = |key: &str| {
        let mut dump = dump.clone();
        dump.entries.remove(key).unwrap_or_else(|| panic!("{key}"));
        dump.faults(cluster)
    };
    for key in [id, "cilium/synced/alpha/cilium/state/nodes/v1", "cilium/cluster-config/alpha", node] {
        assert_ne!(without(key), [""; 0], "without {key}");
    }
    let mut other = dump.clone();
    other.entries.get_mut(ip).expect("it").lease = None;
    assert_ne!(other.faults(cluster), [""; 0], "without a lease");
    other = dump.clone();
    other.leases.values_mut().for_each(|granted| *granted = 5);
    assert_ne!(other.faults(cluster), [""; 0], "a short lease");
    other = dump.clone();
    let entry = other.entries[ip].clone();
    other.entries.insert("cilium/state/pods/v1/default/x".into(), entry.clone());
    assert_ne!(other.faults(cluster), [""; 0], "a foreign key");
    other = dump.clone();
    (0..1000).for_each(|n| _ = other.entries.insert(format!("cilium/.initlock/{n}"), entry.clone()));
    assert_ne!(other.faults(cluster), [""; 0], "a lease with too many keys");
}

#[test]
fn what_agents_write_is_right() {
    let world = World::of(&[2, 1]);
    let right = |cluster: usize| {
        let (name, etcd) = (&world.cluster(cluster).name, world.cluster(cluster).etcd());
        eventually(&format!("{name} is right"), || match Dump::of(etcd).faults(name) {
            faults if faults.is_empty() => Ok(()),
            faults => Err(faults.join("\n")),
        });
        Dump::of(etcd)
    };
    let dump = right(1);
    assert_eq!(dump.early_canaries("cluster1"), [""; 0]);
    assert!(dump.entries.contains_key("cilium/.heartbeat"));

    let web = world.node(1, 1).pod("default/web", "app=web note=a-b");
    let other = world.node(1, 2).pod("default/other", "app=web note=a-b");
    world.cluster(1).apply("web.yaml", &service("web", 10, "service.cilium.io/global: 'true'"));
    world.cluster(2).apply("web.yaml", &service("web", 11, "service.cilium.io/global: 'true'"));
    let etcd = world.cluster(1).etcd();
    let there = |prefix: &str, count: usize| {
        eventually(&format!("{count} keys at {prefix}"), || {
            let keys = etcd.keys(prefix);
            if keys.len() == count { Ok(()) } else { Err(keys.join(", ")) }
        });
    };
    there("cilium/state/ip/v1/default/", 4);
    there("cilium/state/services/v1/cluster1/", 1);
    // Two nodes use one identity.
    there("cilium/state/identities/v1/id/", 1);
    there("cilium/state/identities/v1/value/", 2);
    right(1);
    right(2);

    web.delete();
    other.delete();
    there("cilium/state/ip/v1/default/", 0);
    there("cilium/state/identities/v1/value/", 0);
    world.cluster(1).withdraw("web.yaml");
    there("cilium/state/services/v1/cluster1/", 0);
    right(1);
}
