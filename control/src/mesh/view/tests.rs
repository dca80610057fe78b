use super::*;
use proptest::prelude::*;

struct World {
    view: View,
    nodes: Nodes,
}

fn world() -> World {
    World { view: View::new("alpha".into(), 7, true), nodes: Nodes::new("own".into()) }
}

impl World {
    fn put(&mut self, kind: Kind, key: &str, value: &str) -> String {
        let entry = Entry { key: key.into(), value: value.into(), lease: 0, revision: 1 };
        self.apply(kind, &Change::Put(entry))
    }

    fn delete(&mut self, kind: Kind, key: &str) -> String {
        self.apply(kind, &Change::Delete(key.into()))
    }

    fn apply(&mut self, kind: Kind, change: &Change) -> String {
        let mut updates = self.view.apply(kind, change, &mut self.nodes).unwrap_or_default();
        updates.extend(self.view.settle());
        format!("{updates:?}")
    }
}

const NODE: &str = r#"{"Name":"n1","Cluster":"alpha","ClusterID":7}"#;
const LABELS: &str = "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=alpha;";
const IP: &str = r#"{"IP":"10.7.1.31","HostIP":"172.20.7.11","ID":458753}"#;
const SERVICE: &str = r#"{"cluster":"alpha","namespace":"shop","name":"web","backends":{"10.7.1.31":{"":{"Protocol":"TCP","Port":80}}},"includeExternal":true,"shared":true,"clusterID":7}"#;

#[test]
fn good_values_become_updates_once() {
    let table = [
        (Kind::Nodes, "n1", NODE, "NodeUpsert", "NodeDelete"),
        (Kind::Identities, "458753", LABELS, "IdentityUpsert", "IdentityDelete"),
        (Kind::Ips, "10.7.1.31", IP, "IpUpsert", "IpDelete"),
        (Kind::Services, "shop/web", SERVICE, "ServiceUpsert", "ServiceDelete"),
    ];
    for (kind, key, value, upsert, delete) in table {
        let mut w = world();
        assert!(w.put(kind, key, value).contains(upsert), "{key}");
        assert_eq!(w.put(kind, key, value), "[]", "the same value again says nothing");
        assert_eq!(w.view.count(kind), 1);
        assert!(w.delete(kind, key).contains(delete), "{key}");
        assert_eq!(w.delete(kind, key), "[]");
        assert_eq!(w.view.refused().0, 0);
    }
}

#[test]
fn a_prefix_has_no_bits_beyond_its_mask() {
    let mut w = world();
    let value = r#"{"IP":"10.7.1.31","Mask":"//8AAA==","HostIP":"","ID":458753}"#;
    assert_eq!(w.put(Kind::Ips, "10.7.1.31/16", value), "[]");
    assert!(w.view.refused().1.is_some_and(|r| r.contains("10.7.0.0/16 would be right")));
}

#[test]
fn bad_values_are_refused_and_the_last_good_one_stays() {
    let id_of_other = LABELS.replace("=alpha", "=beta");
    let table = [
        (Kind::Nodes, "n1", NODE, "{", "not the right JSON"),
        (Kind::Nodes, "n1", NODE, r#"{"Name":"n2","Cluster":"alpha","ClusterID":7}"#, "Name is 'n2'"),
        (
            Kind::Nodes,
            "n1",
            NODE,
            r#"{"Name":"n1","Cluster":"beta","ClusterID":7}"#,
            "Cluster is 'beta', not 'alpha'",
        ),
        (
            Kind::Nodes,
            "n1",
            NODE,
            r#"{"Name":"n1","Cluster":"alpha","ClusterID":8}"#,
            "ClusterID is 8, not 7",
        ),
        (
            Kind::Nodes,
            "n1",
            NODE,
            r#"{"Name":"n1","Cluster":"alpha","ClusterID":7,"IPv4AllocCIDR":{"IP":"10.0.0.0","Mask":"!"}}"#,
            "pod CIDR 10.0.0.0/!",
        ),
        (
            Kind::Nodes,
            "n1",
            NODE,
            r#"{"Name":"n1","Cluster":"alpha","ClusterID":7,"IPAddresses":[{"Type":"InternalIP","IP":"x"}]}"#,
            "'x' is not an address",
        ),
        (
            Kind::Identities,
            "458753",
            LABELS,
            id_of_other.as_str(),
            "lack k8s:io.cilium.k8s.policy.cluster=alpha",
        ),
        (Kind::Identities, "458753", LABELS, "any:io.cilium.k8s.policy.cluster=alpha;", "lack"),
        (Kind::Identities, "458753", LABELS, "", "lack"),
        (Kind::Ips, "10.7.1.31", IP, r#"{"IP":"10.7.1.32","ID":458753}"#, "IP '10.7.1.32'"),
        (Kind::Ips, "10.7.1.31", IP, r#"{"IP":"10.7.1.31","ID":393217}"#, "ID 393217"),
        (Kind::Ips, "10.7.1.31", IP, r#"{"IP":"10.7.1.31","ID":16777217}"#, "ID 16777217"),
        (Kind::Ips, "10.7.1.31", IP, r#"{"IP":"10.7.1.31","HostIP":"h","ID":458753}"#, "HostIP 'h'"),
        (
            Kind::Services,
            "shop/web",
            SERVICE,
            r#"{"cluster":"alpha","namespace":"shop","name":"db","clusterID":7}"#,
            "shop/db",
        ),
        (
            Kind::Services,
            "shop/web",
            SERVICE,
            r#"{"cluster":"alpha","namespace":"shop","name":"web","clusterID":7,"backends":{"x":{}}}"#,
            "'x' among",
        ),
    ];
    for (kind, key, good, bad, why) in table {
        let mut w = world();
        w.put(kind, key, good);
        assert_eq!(w.put(kind, key, bad), "[]", "{bad}");
        assert_eq!((w.view.count(kind), w.view.refused().0), (1, 1), "{bad}");
        let refusal = w.view.refused().1.unwrap();
        assert!(refusal.contains(why) && refusal.contains(key), "{refusal}");
    }
    let mut w = world();
    assert_eq!(w.put(Kind::Identities, "393217", LABELS), "[]", "a number of another cluster");
    assert!(w.view.refused().1.unwrap().contains("458752–524287"));
}

#[test]
fn what_is_listed_again_is_not_refused_again() {
    let mut w = world();
    for _ in 0..3 {
        w.view.mark(Kind::Nodes);
        w.put(Kind::Nodes, "n1", "{");
        w.view.sweep(Kind::Nodes, &mut w.nodes);
    }
    assert_eq!(w.view.refused().0, 1);
    w.put(Kind::Nodes, "n1", NODE);
    w.put(Kind::Nodes, "n1", "{");
    w.delete(Kind::Nodes, "n1");
    w.put(Kind::Nodes, "n1", "{");
    assert_eq!(w.view.refused().0, 3, "it was good, then it had gone");
}

#[test]
fn their_host_is_a_remote_node_and_reserved_ids_pass() {
    let mut w = world();
    let update = w.put(Kind::Ips, "10.7.0.1", r#"{"IP":"10.7.0.1","ID":1}"#);
    assert!(update.contains("id: 6,"), "{update}");
    let update = w.put(Kind::Ips, "10.7.0.0/16", r#"{"IP":"10.7.0.0","Mask":"//8AAA==","ID":2}"#);
    assert!(update.contains("id: 2,") && update.contains("10.7.0.0/16"), "{update}");
}

#[test]
fn a_service_that_is_no_longer_shared_is_withdrawn() {
    let mut w = world();
    w.put(Kind::Services, "shop/web", SERVICE);
    let private = SERVICE.replace(r#""shared":true"#, r#""shared":false"#);
    assert!(w.put(Kind::Services, "shop/web", &private).contains("ServiceDelete"));
    assert_eq!(w.view.refused().0, 0);
}

#[test]
fn only_what_a_complete_listing_lacks_is_swept() {
    let mut w = world();
    w.put(Kind::Nodes, "n1", NODE);
    w.put(Kind::Nodes, "n2", &NODE.replace("n1", "n2"));
    w.put(Kind::Ips, "10.7.1.31", IP);
    w.view.mark(Kind::Nodes);
    // A value that is refused still shows that its key is there.
    w.put(Kind::Nodes, "n2", "{");
    assert_eq!(w.view.suspects(Kind::Nodes), 1);
    let swept = format!("{:?}", w.view.sweep(Kind::Nodes, &mut w.nodes));
    assert_eq!(swept, r#"[NodeDelete("alpha", "n1")]"#);
    assert_eq!((w.view.count(Kind::Nodes), w.view.count(Kind::Ips)), (1, 1));
    w.view.drain(&mut w.nodes);
    assert!(w.view.is_empty());
}

proptest! {
    #[test]
    fn no_value_panics(kind in 0usize..4, key in "[a-z0-9./:]{0,24}", value in "\\PC{0,60}") {
        world().put(Kind::ALL[kind], &key, &value);
    }
}
